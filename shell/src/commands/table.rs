//! Tables: create, list, describe.

use std::time::Duration;

use clap::{Args, Subcommand};
use pegasus_client::{Durability, TableProperties, TableReply, TableSpec};
use serde_json::{Value, json};

use crate::context::Context;
use crate::nodes::NodeNames;
use crate::output::{Ending, Grid, Outcome};

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
    /// List all tables
    List,
    /// Show a table's properties and where its partitions are
    Describe {
        /// Its name; without one, the table of --table
        name: Option<String>,
    },
}

/// Options of `table create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// Its name: letters, digits, '_', '-', '.', ':'
    pub name: String,
    /// Partitions, a power of two
    #[arg(long, short = 'p', default_value_t = 8)]
    pub partitions: u32,
    /// Members of each partition
    #[arg(long, short = 'r', default_value_t = 3)]
    pub replicas: u8,
    /// When a write is acknowledged: synced (flushed to stable storage) or written (on the device)
    #[arg(long, default_value_t = Durability::Synced)]
    pub durability: Durability,
    /// Succeed if the table exists with these properties
    #[arg(long)]
    pub if_not_exists: bool,
    /// How long to wait until all partitions serve; 0 does not wait
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub wait_seconds: u64,
}

/// Carries out a verb.
pub async fn run(context: &Context, command: TableCommand) -> Outcome {
    match command.verb {
        TableVerb::Create(arguments) => create(context, arguments).await,
        TableVerb::List => list(context).await,
        TableVerb::Describe { name } => describe(context, name).await,
    }
}

async fn create(context: &Context, arguments: CreateArguments) -> Outcome {
    let client = context.client().await?;
    let spec = TableSpec {
        name: arguments.name,
        partition_count: arguments.partitions,
        replica_count: arguments.replicas,
        durability: arguments.durability,
        if_not_exists: arguments.if_not_exists,
    };
    let reply = client.create_table(&spec).await?;
    if arguments.wait_seconds > 0 {
        client.wait_until_serving(&spec.name, Duration::from_secs(arguments.wait_seconds)).await?;
    }
    let text = format!("table {} has number {}", spec.name, reply.table.table);
    context.style().show(&text, properties_json(&reply.table));
    Ok(Ending::Yes)
}

async fn list(context: &Context) -> Outcome {
    let tables = context.client().await?.list_tables().await?;
    let mut grid = Grid::new(&["table", "name", "partitions", "replicas", "durability"]);
    for table in &tables {
        grid.row(vec![
            table.table.to_string(),
            table.name.clone(),
            table.partition_count.to_string(),
            table.replica_count.to_string(),
            table.durability.to_string(),
        ]);
    }
    let value = json!({"tables": tables.iter().map(properties_json).collect::<Vec<_>>()});
    context.style().show(&grid.render(), value);
    Ok(Ending::Yes)
}

async fn describe(context: &Context, name: Option<String>) -> Outcome {
    let name = match name {
        Some(name) => name,
        None => context.table_name()?,
    };
    let reply = context.client().await?.describe_table(&name).await?;
    context.style().show(&description_text(&reply), description_json(&reply));
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
    format!(
        "table {} ({}): {} partitions, {} replicas, {}\n\n{}",
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
    value
}

fn properties_json(table: &TableProperties) -> Value {
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
            partitions: vec![Configuration {
                ballot: Ballot(7),
                primary: Some(NodeId(1)),
                secondaries: vec![NodeId(0xab)],
            }],
            nodes: vec![node],
        };
        let text = description_text(&reply);
        assert!(text.contains("7  127.0.0.1:34801  node 00000000000000ab"), "{text}");
        assert_eq!(description_json(&reply)["partitions"][0]["primary"], "127.0.0.1:34801");
    }
}
