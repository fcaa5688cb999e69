//! Counting the rows of a table, partition by partition, with the sizes of keys and values.

use std::time::Duration;

use clap::Args;
use pegasus_client::{ScanOptions, ScanRow, Table};
use serde_json::{Value, json};

use crate::commands::arguments::RowFilterArguments;
use crate::commands::import::interrupt;
use crate::context::Context;
use crate::output::{Ending, Failure, Grid, Outcome};
use crate::transfer::format::bytes_to_json;
use crate::transfer::progress::Progress;
use crate::transfer::sizes::RowSizes;
use crate::transfer::walk::{Walk, WalkEnding, partitions};

/// How long a partition is tried.
const RETRY_FOR: Duration = Duration::from_secs(60);

/// Options of `count_data`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Rows are counted by the servers and not sent, unless their values or sizes are asked for.")]
pub struct CountDataArguments {
    /// Only this partition, counted from 0
    #[arg(short = 'p', long, value_name = "INDEX")]
    pub partition: Option<u32>,
    /// Which rows.
    #[command(flatten)]
    pub filter: RowFilterArguments,
    /// Count the hash keys too
    #[arg(short = 'd', long)]
    pub diff_hash_key: bool,
    /// Show statistics about the sizes of keys and values; all rows are sent for that
    #[arg(short = 'a', long)]
    pub stat_size: bool,
    /// Show so many of the largest rows; all rows are sent for that
    #[arg(short = 'n', long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    #[arg(value_name = "ROWS")]
    pub top_count: u32,
    /// Partitions counted at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "PARTITIONS")]
    pub concurrency: u32,
    /// Show the progress also when standard error is no terminal
    #[arg(long)]
    pub progress: bool,
}

impl CountDataArguments {
    fn wants_sizes(&self) -> bool {
        self.stat_size || self.top_count > 0
    }

    fn options(&self) -> ScanOptions {
        ScanOptions {
            no_value: !self.wants_sizes() && self.filter.value.is_none(),
            hash_key_filter: self.filter.hash_key_filter(),
            sort_key_filter: self.filter.sort_key.filter(),
            ..ScanOptions::default()
        }
    }

    /// True if the servers can count without sending rows.
    fn is_plain(&self) -> bool {
        self.filter.value.is_none() && !self.diff_hash_key && !self.wants_sizes()
    }
}

/// What was found in one partition, or in all.
#[derive(Clone, Debug, Default)]
struct Found {
    rows: u64,
    hash_keys: u64,
    sizes: RowSizes,
}

impl Found {
    /// Adds rows as a scan gives them: those of one hash key together. `last` is the hash key before them.
    fn add(&mut self, rows: &[ScanRow], last: &mut Option<Vec<u8>>, with_sizes: bool) {
        for row in rows {
            self.rows += 1;
            if last.as_deref() != Some(&row.hash_key[..]) {
                self.hash_keys += 1;
                *last = Some(row.hash_key.to_vec());
            }
            if with_sizes {
                self.sizes.note(row);
            }
        }
    }

    fn merge(&mut self, other: &Found) {
        self.rows += other.rows;
        // A hash key is in one partition only.
        self.hash_keys += other.hash_keys;
        self.sizes.merge(&other.sizes);
    }
}

/// Counts the rows of the table.
pub async fn run(context: &Context, arguments: CountDataArguments) -> Outcome {
    let table = context.table().await?;
    let chosen = partitions(arguments.partition, table.properties().await?.partition_count)?;
    let (walk, mut watch) = Walk::start(RETRY_FOR, Progress::start("counted", None, arguments.progress));
    let mut counted: Vec<(u32, Found)> = Vec::new();
    let ending = {
        let work = |index| count_partition(&table, index, &arguments, &walk);
        let done = |index, found| {
            counted.push((index, found));
            Ok(())
        };
        watch.each_partition(&walk, &chosen, arguments.concurrency as usize, work, done, interrupt()).await
    };
    watch.progress.finish();
    if ending? == WalkEnding::Interrupted {
        eprintln!("interrupted");
        return Ok(Ending::Interrupted);
    }
    counted.sort_unstable_by_key(|(index, _)| *index);
    let mut total = Found { sizes: RowSizes::new(arguments.top_count as usize), ..Found::default() };
    counted.iter().for_each(|(_, found)| total.merge(found));
    let text = to_text(&counted, &total, &arguments, |bytes| context.text(bytes));
    context.style().show(&text, to_json(&counted, &total, &arguments));
    Ok(Ending::Yes)
}

async fn count_partition(
    table: &Table,
    index: u32,
    arguments: &CountDataArguments,
    walk: &Walk,
) -> Result<Found, Failure> {
    let mut found = Found { sizes: RowSizes::new(arguments.top_count as usize), ..Found::default() };
    if arguments.is_plain() {
        found.rows = count_at_server(table, index, arguments, walk).await?;
        return Ok(found);
    }
    let mut scanner = table.partition_scan(index, arguments.options())?;
    let (values, mut last) = (arguments.filter.value.filter(), None);
    while let Some(mut rows) = walk.next_rows(&mut scanner).await? {
        rows.retain(|row| values.matches(&row.value));
        found.add(&rows, &mut last, arguments.wants_sizes());
        walk.count(&rows);
    }
    Ok(found)
}

async fn count_at_server(
    table: &Table,
    index: u32,
    arguments: &CountDataArguments,
    walk: &Walk,
) -> Result<u64, Failure> {
    let mut scanner = table.partition_scan(index, arguments.options())?;
    let mut attempts = walk.retry.begin();
    loop {
        // After an error it goes on where it stands.
        let error = match scanner.count().await {
            Ok(count) => return Ok(count),
            Err(error) => error,
        };
        let (kind, what) = (error.kind(), format!("counting partition {index}"));
        attempts.failed(&what, &error).await.map_err(|text| Failure::new(kind, text))?;
    }
}

fn to_text(
    counted: &[(u32, Found)],
    total: &Found,
    arguments: &CountDataArguments,
    text: impl Fn(&[u8]) -> String,
) -> String {
    let mut grid = Grid::new(if arguments.diff_hash_key {
        &["partition", "rows", "hash keys"][..]
    } else {
        &["partition", "rows"]
    });
    let cells = |name: String, found: &Found| {
        let mut cells = vec![name, found.rows.to_string()];
        if arguments.diff_hash_key {
            cells.push(found.hash_keys.to_string());
        }
        cells
    };
    for (index, found) in counted {
        grid.row(cells(index.to_string(), found));
    }
    grid.row(cells("all".to_owned(), total));
    let mut out = grid.render();
    if arguments.wants_sizes() {
        out.push_str(&format!("\n{}", total.sizes.to_text(text)));
    }
    out
}

fn to_json(counted: &[(u32, Found)], total: &Found, arguments: &CountDataArguments) -> Value {
    let of = |found: &Found| {
        let mut value = json!({"rows": found.rows});
        if arguments.diff_hash_key {
            value["hash_keys"] = json!(found.hash_keys);
        }
        value
    };
    let partitions = counted.iter().map(|(index, found)| {
        let mut value = of(found);
        value["partition"] = json!(index);
        value
    });
    let mut value = of(total);
    value["partitions"] = partitions.collect();
    if arguments.wants_sizes() {
        value["sizes"] = total.sizes.to_json(bytes_to_json);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};
    use crate::escape::escape;

    fn arguments(line: &str) -> CountDataArguments {
        match parse(line.split(' ').map(str::to_owned)).expect("a sound line").command {
            Some(Command::CountData(arguments)) => arguments,
            other => panic!("{other:?}"),
        }
    }

    fn row(hash_key: &'static str, value: &'static str) -> ScanRow {
        ScanRow { hash_key: hash_key.into(), sort_key: "".into(), value: value.into(), expiry_seconds: 0 }
    }

    #[test]
    fn rows_are_sent_only_if_they_must_be() {
        assert!(arguments("count_data").is_plain() && arguments("count_data -s prefix -y a -p 3").is_plain());
        for line in ["count_data -d", "count_data -a", "count_data -n 3", "count_data -v exact -z a"] {
            assert!(!arguments(line).is_plain(), "{line}");
        }
        assert!(arguments("count_data -d").options().no_value && !arguments("count_data -a").options().no_value);
        assert!(!arguments("count_data -v exact -z a").options().no_value);
    }

    #[test]
    fn hash_keys_are_counted_once() {
        let (mut found, mut last) = (Found::default(), None);
        found.add(&[row("a", "1"), row("a", "2")], &mut last, false);
        found.add(&[row("a", "3"), row("b", "4")], &mut last, false);
        assert_eq!((found.rows, found.hash_keys), (4, 2));
        assert!(found.sizes.top().is_empty());
    }

    #[test]
    fn partitions_and_their_sum_are_shown() {
        let arguments = arguments("count_data -d -a -n 1");
        let (mut found, mut total) = (Found { sizes: RowSizes::new(1), ..Found::default() }, Found::default());
        total.sizes = RowSizes::new(1);
        found.add(&[row("a", "1"), row("bb", "22")], &mut None, true);
        total.merge(&found);
        total.merge(&Found::default());
        let counted = [(0, found), (10, Found::default())];
        let text = to_text(&counted, &total, &arguments, escape);
        let expected = "partition  rows  hash keys\n0             2          2\n10            0          0\n\
                        all           2          2\n";
        assert!(text.starts_with(expected) && text.contains("\nhash_key  1 B") && text.contains("bb"), "{text}");
        let value = to_json(&counted, &total, &arguments);
        assert_eq!((&value["rows"], &value["hash_keys"]), (&json!(2), &json!(2)));
        assert_eq!(value["partitions"][1], json!({"partition": 10, "rows": 0, "hash_keys": 0}));
        assert_eq!(value["sizes"]["largest"][0]["hash_key"], "bb");
    }
}
