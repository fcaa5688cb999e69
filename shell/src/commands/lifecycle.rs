//! The end of tables, and other names: drop, recall, rename, purge.

use std::time::Duration;

use clap::Args;
use pegasus_client::{DropOptions, TableDescription, TableId, TableState};
use serde_json::json;

use crate::commands::table::properties_json;
use crate::context::Context;
use crate::output::{Ending, Failure, Outcome};
use crate::units::{moment_text, seconds_text};

/// Options of `table drop`.
#[derive(Debug, Args)]
pub struct DropArguments {
    /// Its name
    pub name: String,
    /// How long its rows are held, so that it can be recalled; without it, as the meta service is set
    #[arg(long, short = 'r', visible_alias = "hold", value_name = "SECONDS")]
    pub reserve_seconds: Option<u64>,
    /// Succeed if there is no such table
    #[arg(long)]
    pub if_exists: bool,
}

/// Options of `table recall`.
#[derive(Debug, Args)]
pub struct RecallArguments {
    /// Its number, as `table list --all` shows it
    pub number: u32,
    /// The name it gets; without one, the one it had
    pub name: Option<String>,
    /// How long to wait until all partitions serve; 0 does not wait
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub wait_seconds: u64,
}

/// Options of `table rename`.
#[derive(Debug, Args)]
pub struct RenameArguments {
    /// The name it has
    pub name: String,
    /// The name it gets
    pub new_name: String,
}

/// Options of `table purge`.
#[derive(Debug, Args)]
pub struct PurgeArguments {
    /// Its number, as `table list --all` shows it
    pub number: u32,
    /// Yes, delete its rows: there is no way back
    #[arg(long, short = 'f')]
    pub force: bool,
}

/// Drops a table.
pub async fn drop_table(context: &Context, arguments: DropArguments) -> Outcome {
    let client = context.client().await?;
    let name = &arguments.name;
    let options = DropOptions { hold_seconds: arguments.reserve_seconds, if_exists: arguments.if_exists };
    let Some(table) = client.drop_table(name, options).await? else {
        context.style().show(&format!("there is no table {name}"), json!({"dropped": false}));
        return Ok(Ending::Yes);
    };
    let dropped = client.list_tables().await?.into_iter().find(|dropped| dropped.properties.table == table.table);
    let (text, value) = dropped_text(name, dropped.as_ref());
    context.style().show(&text, value);
    Ok(Ending::Yes)
}

fn dropped_text(name: &str, dropped: Option<&TableDescription>) -> (String, serde_json::Value) {
    let Some((table, TableState::Dropped { dropped_seconds, purge_seconds })) =
        dropped.map(|table| (table, table.state))
    else {
        // Purged already, or recalled by somebody else.
        return (format!("table {name} is dropped"), json!({"dropped": true}));
    };
    let number = table.properties.table;
    let held = seconds_text(purge_seconds.saturating_sub(dropped_seconds));
    let text = format!(
        "table {name} ({number}) is dropped; its rows are held for {held}, until {}\n  table recall {number} takes it \
         back, table purge {number} deletes it at once",
        moment_text(purge_seconds)
    );
    let value = json!({
        "dropped": true,
        "table": number.0,
        "name": name,
        "dropped_seconds": dropped_seconds,
        "purge_seconds": purge_seconds,
    });
    (text, value)
}

/// Takes a dropped table back.
pub async fn recall(context: &Context, arguments: RecallArguments) -> Outcome {
    let client = context.client().await?;
    let reply = client.recall_table(TableId(arguments.number), arguments.name.as_deref()).await?;
    let table = &reply.table;
    if arguments.wait_seconds > 0 {
        client.wait_until_serving(&table.name, Duration::from_secs(arguments.wait_seconds)).await?;
    }
    context.style().show(&format!("table {} ({}) is back", table.name, table.table), properties_json(table));
    Ok(Ending::Yes)
}

/// Gives a table another name.
pub async fn rename(context: &Context, arguments: RenameArguments) -> Outcome {
    let client = context.client().await?;
    let reply = client.rename_table(&arguments.name, &arguments.new_name).await?;
    let table = &reply.table;
    let text = format!("table {} ({}) is called {} now", arguments.name, table.table, table.name);
    context.style().show(&text, properties_json(table));
    Ok(Ending::Yes)
}

/// Deletes a dropped table for good.
pub async fn purge(context: &Context, arguments: PurgeArguments) -> Outcome {
    let client = context.client().await?;
    let number = TableId(arguments.number);
    if !arguments.force {
        let tables = client.list_tables().await?;
        let table = tables.iter().find(|table| table.properties.table == number);
        return Err(Failure::new("force_needed", explain_purge(number, table)));
    }
    client.purge_table(number).await?;
    context.style().show(&format!("table {number} is purged"), json!({"purged": true, "table": number.0}));
    Ok(Ending::Yes)
}

fn explain_purge(number: TableId, table: Option<&TableDescription>) -> String {
    let Some(table) = table else {
        return format!("there is no table {number}; `table list --all` lists those that can be purged");
    };
    let name = &table.properties.name;
    match table.state {
        TableState::Available => format!("table {name} ({number}) serves; drop it first: table drop {name}"),
        TableState::Dropped { purge_seconds, .. } => format!(
            "refused: all rows of table {name} ({number}) would be gone for ever, and --force was not given.\n  \
             Without it they are held until {}; until then table recall {number} takes the table back.",
            moment_text(purge_seconds)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, TableWord, parse};
    use crate::commands::table::{TableCommand, TableVerb};
    use pegasus_client::{Durability, TableProperties};

    fn command(line: &str) -> Result<TableWord, clap::Error> {
        match parse(line.split(' ').map(str::to_owned))?.command {
            Some(Command::Tables(word)) => Ok(word),
            other => panic!("{other:?}"),
        }
    }

    fn table(state: TableState) -> TableDescription {
        let properties = TableProperties {
            table: TableId(3),
            name: "temp".into(),
            partition_count: 8,
            replica_count: 3,
            durability: Durability::Synced,
        };
        TableDescription { properties, environment: vec![], state }
    }

    #[test]
    fn one_verb_has_two_words() {
        for line in
            ["drop temp -r 60", "drop temp --reserve_seconds 60", "drop temp --hold 60", "table drop temp -r 60"]
        {
            let arguments = match command(line) {
                Ok(TableWord::Drop(arguments)) => arguments,
                Ok(TableWord::Table(TableCommand { verb: TableVerb::Drop(arguments) })) => arguments,
                other => panic!("{line}: {other:?}"),
            };
            assert_eq!((arguments.name.as_str(), arguments.reserve_seconds), ("temp", Some(60)), "{line}");
        }
        let Ok(TableWord::Recall(arguments)) = command("recall 3 other") else { panic!("a recall") };
        assert_eq!((arguments.number, arguments.name.as_deref()), (3, Some("other")));
        for line in ["recall temp", "rename temp", "table purge", "drop"] {
            assert!(command(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_drop_tells_how_to_take_it_back() {
        let state = TableState::Dropped { dropped_seconds: 1_000_000, purge_seconds: 1_003_600 };
        let (text, value) = dropped_text("temp", Some(&table(state)));
        assert!(text.contains("held for 1 h, until 1970-01-12 14:46:40 UTC"), "{text}");
        assert!(text.contains("table recall 3") && text.contains("table purge 3"), "{text}");
        assert_eq!((&value["table"], &value["purge_seconds"]), (&json!(3), &json!(1_003_600)));
        assert_eq!(dropped_text("temp", None).0, "table temp is dropped");
    }

    #[test]
    fn a_purge_is_explained() {
        let text =
            explain_purge(TableId(3), Some(&table(TableState::Dropped { dropped_seconds: 0, purge_seconds: 60 })));
        assert!(text.contains("--force") && text.contains("1970-01-01 00:01:00"), "{text}");
        assert!(explain_purge(TableId(3), Some(&table(TableState::Available))).contains("table drop temp"));
        assert!(explain_purge(TableId(9), None).contains("no table 9"));
    }
}
