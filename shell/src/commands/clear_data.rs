//! Deleting the rows of a table, all or those that filters let pass.

use std::time::Duration;

use clap::Args;
use futures_util::stream::TryStreamExt;
use pegasus_client::{ScanOptions, ScanRow, Table, WriteBatch};
use pegasus_wire::limits::WRITE_ROWS_MAX;
use serde_json::json;

use crate::commands::arguments::RowFilterArguments;
use crate::commands::import::interrupt;
use crate::commands::multi::count_text;
use crate::context::Context;
use crate::output::{Ending, Failure, Outcome};
use crate::transfer::progress::{Progress, per_second};
use crate::transfer::walk::{Walk, WalkEnding, partitions};

/// Options of `clear_data`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Deletes the rows that a scan finds, in groups of one hash key. Rows that are written meanwhile may stay.\n\
    It can be stopped and repeated. To get rid of a whole table, drop it: that takes a moment, and can be\n\
    taken back.")]
pub struct ClearDataArguments {
    /// Yes, delete the rows: there is no way back
    #[arg(short = 'f', long)]
    pub force: bool,
    /// Only this partition, counted from 0
    #[arg(short = 'p', long, value_name = "INDEX")]
    pub partition: Option<u32>,
    /// Which rows.
    #[command(flatten)]
    pub filter: RowFilterArguments,
    /// Most rows that one write deletes
    #[arg(short = 'b', long, default_value_t = 500, value_name = "ROWS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=WRITE_ROWS_MAX as i64))]
    pub max_batch_count: u32,
    /// Partitions worked on at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "PARTITIONS")]
    pub concurrency: u32,
    /// How long a write is tried before it all stops
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub retry_seconds: u64,
    /// Show the progress also when standard error is no terminal
    #[arg(long)]
    pub progress: bool,
}

/// Writes of one partition under way at a time.
const WRITES_AT_ONCE: usize = 16;

/// Deletes rows.
pub async fn run(context: &Context, arguments: ClearDataArguments) -> Outcome {
    let name = context.table_name()?;
    if !arguments.force {
        return Err(Failure::new("force_needed", explain(&name, &arguments)));
    }
    let table = context.table().await?;
    let chosen = partitions(arguments.partition, table.properties().await?.partition_count)?;
    let retry_for = Duration::from_secs(arguments.retry_seconds);
    let (walk, mut watch) = Walk::start(retry_for, Progress::start("deleted", None, arguments.progress));
    let work = |index| clear_partition(&table, index, &arguments, &walk);
    let done = |_, ()| Ok(());
    let at_once = arguments.concurrency as usize;
    let ending = watch.each_partition(&walk, &chosen, at_once, work, done, interrupt()).await;
    let elapsed = watch.progress.elapsed();
    watch.progress.finish();
    let ending = ending?;
    let rows = walk.rows.into_inner();
    let rate = per_second(rows, elapsed);
    let text = format!("deleted {} in {:.2} s ({rate:.0} rows/s)", count_text(rows), elapsed.as_secs_f64());
    let complete = ending == WalkEnding::Complete;
    let value = json!({
        "rows": rows,
        "seconds": elapsed.as_secs_f64(),
        "retries": walk.retry.retries(),
        "complete": complete,
    });
    context.style().show(&text, value);
    if !complete {
        eprintln!("interrupted; the same command deletes the rest");
        return Ok(Ending::Interrupted);
    }
    Ok(Ending::Yes)
}

fn explain(table: &str, arguments: &ClearDataArguments) -> String {
    let which = if arguments.filter.is_none() { "all rows" } else { "the rows that the filters let pass" };
    let of = match arguments.partition {
        Some(index) => format!("partition {index} of table {table}"),
        None => format!("table {table}"),
    };
    format!(
        "refused: this would delete {which} of {of}, for ever, and --force was not given.\n  count_data with the same \
         filters tells how many there are. A whole table is better dropped (table drop {table}): that\n  takes a \
         moment, and can be taken back for a time."
    )
}

async fn clear_partition(
    table: &Table,
    index: u32,
    arguments: &ClearDataArguments,
    walk: &Walk,
) -> Result<(), Failure> {
    let filter = &arguments.filter;
    let options = ScanOptions {
        no_value: filter.value.is_none(),
        hash_key_filter: filter.hash_key_filter(),
        sort_key_filter: filter.sort_key.filter(),
        ..ScanOptions::default()
    };
    let scanner = table.partition_scan(index, options)?;
    let values = filter.value.filter();
    let wanted = |row: &ScanRow| values.matches(&row.value);
    let groups = walk.groups(scanner, wanted, arguments.max_batch_count as usize);
    groups.try_for_each_concurrent(WRITES_AT_ONCE, |rows| delete(table, rows, walk)).await
}

/// Deletes rows of one hash key. To delete them twice does no harm: what matters is that they are gone.
async fn delete(table: &Table, rows: Vec<ScanRow>, walk: &Walk) -> Result<(), Failure> {
    let Some(first) = rows.first() else { return Ok(()) };
    let mut batch = WriteBatch::new();
    for row in &rows {
        batch.delete(&row.sort_key);
    }
    let mut attempts = walk.retry.begin();
    while let Err(error) = table.write(&first.hash_key, &batch).await {
        let kind = error.kind();
        attempts.failed("deleting", &error).await.map_err(|text| Failure::new(kind, text))?;
    }
    walk.count(&rows);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};

    fn arguments(line: &str) -> Result<ClearDataArguments, clap::Error> {
        match parse(line.split(' ').map(str::to_owned))?.command {
            Some(Command::ClearData(arguments)) => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_deleted_by_accident() {
        let text = |line: &str| explain("temp", &arguments(line).expect("a sound line"));
        let all = text("clear_data");
        assert!(all.contains("all rows of table temp") && all.contains("--force"), "{all}");
        let some = text("clear_data -p 3 -s prefix -y a");
        assert!(some.contains("the filters let pass of partition 3 of table temp"), "{some}");
        assert!(arguments("clear_data -f").expect("forced").force);
        for line in ["clear_data -b 0", "clear_data -b 1001", "clear_data temp"] {
            assert!(arguments(line).is_err(), "{line}");
        }
    }
}
