//! Tables: create, list, describe. Their life, environment and compaction are in files of their own.

use std::time::Duration;

use clap::{Args, Subcommand};
use pegasus_client::{
    Durability, EnvironmentChange, TableDescription, TableProperties, TableReply, TableSpec, TableState,
};
use pegasus_wire::Environment;
use serde_json::{Value, json};

use crate::commands::compact::{self, CompactCommand, copies_json, copies_text};
use crate::commands::environment::{self, EnvironmentCommand, entries_json, entries_text};
use crate::commands::lifecycle::{self, DropArguments, PurgeArguments, RecallArguments, RenameArguments};
use crate::context::Context;
use crate::nodes::NodeNames;
use crate::output::{Ending, Failure, Grid, Outcome};
use crate::units::{moment_text, seconds_text, unix_now};

/// `table` and its verbs.
#[derive(Debug, Args)]
pub struct TableCommand {
    /// What to do.
    #[command(subcommand)]
    pub verb: TableVerb,
}

/// What can be done with tables.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum TableVerb {
    /// Make a table and wait until it serves
    Create(CreateArguments),
    /// List the tables
    List(ListArguments),
    /// Show a table's properties, its environment and where its partitions are
    Describe(DescribeArguments),
    /// Drop a table; it can be recalled for a time
    Drop(DropArguments),
    /// Take a dropped table back, with all its rows
    Recall(RecallArguments),
    /// Give a table another name
    Rename(RenameArguments),
    /// Delete a dropped table for good
    Purge(PurgeArguments),
    /// Show and change a table's environment: settings that change while it serves
    Env(EnvironmentCommand),
    /// Compact a table's files, and show how far that is
    Compact(CompactCommand),
}

/// Options of `table create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// Its name: letters, digits, '_', '-', '.', ':'
    pub name: String,
    /// Partitions, a power of two
    #[arg(long, short = 'p', visible_alias = "partition-count", default_value_t = 8)]
    pub partitions: u32,
    /// Members of each partition
    #[arg(long, short = 'r', visible_alias = "replica-count", default_value_t = 3)]
    pub replicas: u8,
    /// When a write is acknowledged: synced (flushed to stable storage) or written (on the device)
    #[arg(long, default_value_t = Durability::Synced)]
    pub durability: Durability,
    /// A setting of its environment; may be given several times
    #[arg(long, short = 'e', visible_alias = "envs", value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Succeed if the table exists with these properties
    #[arg(long)]
    pub if_not_exists: bool,
    /// How long to wait until all partitions serve; 0 does not wait
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub wait_seconds: u64,
}

/// Options of `table list`.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Dropped tables that can be recalled too
    #[arg(long, short = 'a')]
    pub all: bool,
}

/// Options of `table describe`.
#[derive(Debug, Args)]
pub struct DescribeArguments {
    /// Its name; without one, the table of --table or `use`
    pub name: Option<String>,
    /// Show every copy: its role, how far it is, its size
    #[arg(long, short = 'd')]
    pub detailed: bool,
}

/// Carries out a verb.
pub async fn run(context: &Context, command: TableCommand) -> Outcome {
    match command.verb {
        TableVerb::Create(arguments) => create(context, arguments).await,
        TableVerb::List(arguments) => list(context, arguments).await,
        TableVerb::Describe(arguments) => describe(context, arguments).await,
        TableVerb::Drop(arguments) => lifecycle::drop_table(context, arguments).await,
        TableVerb::Recall(arguments) => lifecycle::recall(context, arguments).await,
        TableVerb::Rename(arguments) => lifecycle::rename(context, arguments).await,
        TableVerb::Purge(arguments) => lifecycle::purge(context, arguments).await,
        TableVerb::Env(command) => environment::run(context, command).await,
        TableVerb::Compact(command) => compact::run(context, command).await,
    }
}

/// Makes a table.
pub async fn create(context: &Context, arguments: CreateArguments) -> Outcome {
    let set = read_settings(&arguments.env)?;
    let client = context.client().await?;
    let spec = TableSpec {
        name: arguments.name,
        partition_count: arguments.partitions,
        replica_count: arguments.replicas,
        durability: arguments.durability,
        if_not_exists: arguments.if_not_exists,
        wait: None,
    };
    let mut reply = client.create_table(&spec).await?;
    if !set.is_empty() {
        let change = EnvironmentChange { set, ..EnvironmentChange::default() };
        reply.environment = client.change_environment(&spec.name, &change).await?;
    }
    if arguments.wait_seconds > 0 {
        client.wait_until_serving(&spec.name, Duration::from_secs(arguments.wait_seconds)).await?;
    }
    let text = format!("table {} has number {}", spec.name, reply.table.table);
    let mut value = properties_json(&reply.table);
    value["environment"] = entries_json(&reply.environment);
    context.style().show(&text, value);
    Ok(Ending::Yes)
}

/// Settings as `key=value`, checked before there is a table.
fn read_settings(words: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.to_owned())),
        None => Err(Failure::usage(format!("--env: a setting is written KEY=VALUE, got {word:?}"))),
    };
    let pairs = words.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
    let mut environment = Environment::default();
    for (key, value) in &pairs {
        environment.set(key, value).map_err(|error| Failure::new("invalid_argument", error.to_string()))?;
    }
    Ok(pairs)
}

/// Lists tables.
pub async fn list(context: &Context, arguments: ListArguments) -> Outcome {
    let tables = context.client().await?.list_tables().await?;
    let value = json!({
        "tables": tables.iter().filter(|table| is_listed(table, &arguments)).map(table_json).collect::<Vec<_>>(),
    });
    context.style().show(&list_text(&tables, &arguments, unix_now()), value);
    Ok(Ending::Yes)
}

fn is_listed(table: &TableDescription, arguments: &ListArguments) -> bool {
    arguments.all || table.state == TableState::Available
}

fn list_text(tables: &[TableDescription], arguments: &ListArguments, now: u64) -> String {
    let mut grid = Grid::new(&["table", "name", "state", "partitions", "replicas", "durability", "environment"]);
    for table in tables.iter().filter(|table| is_listed(table, arguments)) {
        let properties = &table.properties;
        grid.row(vec![
            properties.table.to_string(),
            properties.name.clone(),
            state_text(&table.state, now),
            properties.partition_count.to_string(),
            properties.replica_count.to_string(),
            properties.durability.to_string(),
            match table.environment.len() {
                0 => "-".to_owned(),
                1 => "1 setting".to_owned(),
                count => format!("{count} settings"),
            },
        ]);
    }
    let hidden = tables.iter().filter(|table| !is_listed(table, arguments)).count();
    let note = match hidden {
        0 => String::new(),
        1 => "(1 dropped table is held; --all shows it)\n".to_owned(),
        _ => format!("({hidden} dropped tables are held; --all shows them)\n"),
    };
    format!("{}{note}", grid.render())
}

fn state_text(state: &TableState, now: u64) -> String {
    match state {
        TableState::Available => "available".to_owned(),
        TableState::Dropped { purge_seconds, .. } if *purge_seconds <= now => "dropped, about to be purged".to_owned(),
        TableState::Dropped { purge_seconds, .. } => {
            let (moment, left) = (moment_text(*purge_seconds), seconds_text(purge_seconds - now));
            format!("dropped, held until {moment} (for {left})")
        }
    }
}

fn state_json(state: &TableState) -> Value {
    match state {
        TableState::Available => json!({"state": "available"}),
        TableState::Dropped { dropped_seconds, purge_seconds } => {
            json!({"state": "dropped", "dropped_seconds": dropped_seconds, "purge_seconds": purge_seconds})
        }
    }
}

fn table_json(table: &TableDescription) -> Value {
    let mut value = properties_json(&table.properties);
    if let (Some(all), Value::Object(state)) = (value.as_object_mut(), state_json(&table.state)) {
        all.extend(state);
    }
    value["environment"] = entries_json(&table.environment);
    value
}

/// Describes a table.
pub async fn describe(context: &Context, arguments: DescribeArguments) -> Outcome {
    let name = context.name_or_table(arguments.name)?;
    let client = context.client().await?;
    let reply = client.describe_table(&name).await?;
    let (mut text, mut value) = (description_text(&reply), description_json(&reply));
    if arguments.detailed {
        let copies = client.copies(&name).await?;
        let names = NodeNames::new(&reply.nodes);
        text.push_str(&format!("\n{}", copies_text(&copies, &names)));
        value["copies"] = copies_json(&copies, &names);
    }
    context.style().show(&text, value);
    Ok(Ending::Yes)
}

fn description_text(reply: &TableReply) -> String {
    let names = NodeNames::new(&reply.nodes);
    let mut grid = Grid::new(&["partition", "ballot", "primary", "secondaries"]);
    for (index, configuration) in reply.partitions.iter().enumerate() {
        grid.row(vec![
            index.to_string(),
            configuration.ballot.to_string(),
            names.primary(configuration),
            names.secondaries(configuration).join(" "),
        ]);
    }
    let table = &reply.table;
    let environment = match reply.environment.is_empty() {
        true => String::new(),
        false => format!("\n{}", entries_text(&reply.environment)),
    };
    format!(
        "table {} ({}): {} partitions, {} replicas, {}\n{environment}\n{}",
        table.name,
        table.table,
        table.partition_count,
        table.replica_count,
        table.durability,
        grid.render()
    )
}

fn description_json(reply: &TableReply) -> Value {
    let names = NodeNames::new(&reply.nodes);
    let partitions = reply.partitions.iter().map(|configuration| {
        json!({
            "ballot": configuration.ballot.0,
            "primary": configuration.primary.map(|node| names.name(node)),
            "secondaries": names.secondaries(configuration),
        })
    });
    let mut value = properties_json(&reply.table);
    value["partitions"] = partitions.collect();
    value["environment"] = entries_json(&reply.environment);
    value
}

/// A table's properties for programs.
pub(crate) fn properties_json(table: &TableProperties) -> Value {
    json!({
        "table": table.table.0,
        "name": table.name,
        "partition_count": table.partition_count,
        "replica_count": table.replica_count,
        "durability": table.durability.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegasus_client::EnvironmentEntry;
    use pegasus_wire::{Ballot, Configuration, NodeId, NodeInfo, TableId};

    #[test]
    fn a_description_names_the_nodes() {
        let node = NodeInfo {
            node: NodeId(1),
            address: "127.0.0.1:34801".parse().expect("an address"),
            admin_address: "127.0.0.1:34901".parse().expect("an address"),
            cores: 1,
            alive: true,
        };
        let reply = TableReply {
            table: TableProperties {
                table: TableId(2),
                name: "temp".into(),
                partition_count: 1,
                replica_count: 2,
                durability: Durability::Synced,
            },
            environment: vec![EnvironmentEntry { key: "default_ttl".into(), value: "60".into() }],
            partitions: vec![Configuration {
                ballot: Ballot(7),
                primary: Some(NodeId(1)),
                secondaries: vec![NodeId(0xab)],
            }],
            nodes: vec![node],
        };
        let text = description_text(&reply);
        assert!(text.contains("7  127.0.0.1:34801  node 00000000000000ab"), "{text}");
        assert!(text.contains("default_ttl  60\n"), "{text}");
        assert_eq!(description_json(&reply)["partitions"][0]["primary"], "127.0.0.1:34801");
    }
    fn table(number: u32, name: &str, state: TableState) -> TableDescription {
        let properties = TableProperties {
            table: TableId(number),
            name: name.into(),
            partition_count: 8,
            replica_count: 3,
            durability: Durability::Synced,
        };
        TableDescription { properties, environment: vec![], state }
    }

    #[test]
    fn a_list_tells_states_and_until_when_a_table_is_held() {
        let dropped = TableState::Dropped { dropped_seconds: 1_000_000, purge_seconds: 1_000_000 + 7 * 86_400 };
        let tables = [table(1, "stat", TableState::Available), table(2, "temp", dropped)];
        let now = 1_000_000 + 86_400;
        let text = list_text(&tables, &ListArguments { all: false }, now);
        assert!(text.contains("available") && !text.contains("temp"), "{text}");
        assert!(text.ends_with("(1 dropped table is held; --all shows it)\n"), "{text}");
        let text = list_text(&tables, &ListArguments { all: true }, now);
        assert!(text.contains("temp  dropped, held until 1970-01-19 13:46:40 UTC (for 6 d)"), "{text}");
        assert!(!text.contains("--all"), "{text}");
        let late = list_text(&tables, &ListArguments { all: true }, now + 30 * 86_400);
        assert!(late.contains("about to be purged"), "{late}");
        let value = table_json(&tables[1]);
        assert_eq!((&value["state"], &value["purge_seconds"]), (&json!("dropped"), &json!(1_604_800)));
    }

    #[test]
    fn settings_are_checked_before_a_table_is_made() {
        let read = |words: &[&str]| read_settings(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        let pairs = read(&["default_ttl=60", "replica.write_throttling=100*delay*5,200*reject*9"]).expect("sound");
        assert_eq!(pairs[1].1, "100*delay*5,200*reject*9");
        assert!(read(&["default_ttl"]).unwrap_err().message.contains("KEY=VALUE"));
        assert!(read(&["default_ttl=soon"]).unwrap_err().message.contains("whole number"));
        assert!(read(&["no.such=1"]).unwrap_err().message.contains("there is no setting"));
    }
}
