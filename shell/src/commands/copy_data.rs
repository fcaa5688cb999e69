//! Copying the rows of a table into another table, of this cluster or of another one.
//!
//! Rows are written as they are, with the second at which they expire. To write one twice changes nothing, so what
//! fails or is unknown is repeated, and a copy that was stopped may simply be started again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use futures_util::stream::TryStreamExt;
use pegasus_client::{Check, Client, RowCheck, ScanOptions, ScanRow, Table, WriteBatch};
use pegasus_wire::limits::WRITE_ROWS_MAX;
use serde_json::json;

use crate::cli::GlobalOptions;
use crate::commands::arguments::RowFilterArguments;
use crate::commands::import::interrupt;
use crate::commands::multi::count_text;
use crate::context::{Context, client_options};
use crate::output::{Ending, Failure, Outcome};
use crate::transfer::copied::Copied;
use crate::transfer::progress::{Progress, per_second};
use crate::transfer::walk::{Walk, WalkEnding, partitions};

/// Options of `copy_data`.
#[derive(Debug, Args)]
#[command(after_help = "\
    The target table must exist; it may have another number of partitions. Rows that are written to the\n\
    source meanwhile may be left out. With a progress file, --resume passes over the partitions that were\n\
    copied before.")]
pub struct CopyDataArguments {
    /// The table to fill
    #[arg(short = 'a', long, visible_alias = "target-app-name", value_name = "NAME")]
    pub target_table: String,
    /// Addresses of the target cluster's meta servers, separated by commas; without them, this cluster
    #[arg(short = 'c', long, value_name = "ADDRESSES")]
    pub target_meta: Option<String>,
    /// Directory of the target cluster's ca.crt, client.crt and client.key; without it, the one used for this cluster
    #[arg(long, value_name = "DIRECTORY", requires = "target_meta")]
    pub target_tls: Option<PathBuf>,
    /// Only this partition of the source, counted from 0
    #[arg(short = 'p', long, value_name = "INDEX")]
    pub partition: Option<u32>,
    /// Which rows.
    #[command(flatten)]
    pub filter: RowFilterArguments,
    /// Write the rows without a time to live
    #[arg(short = 'e', long)]
    pub no_ttl: bool,
    /// Leave rows alone that exist in the target
    #[arg(short = 'n', long)]
    pub no_overwrite: bool,
    /// Most rows of one write; they share a hash key
    #[arg(short = 'b', long, default_value_t = 100, value_name = "ROWS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=WRITE_ROWS_MAX as i64))]
    pub max_batch_count: u32,
    /// Writes under way at a time, for each partition
    #[arg(short = 'm', long, visible_alias = "max-multi-set-concurrency", default_value_t = 16, value_name = "WRITES")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub concurrency: u32,
    /// Partitions copied at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "PARTITIONS")]
    pub partitions_at_once: u32,
    /// Where to keep which partitions are copied
    #[arg(long, value_name = "FILE")]
    pub progress_file: Option<PathBuf>,
    /// Pass over the partitions that the progress file names
    #[arg(long, requires = "progress_file")]
    pub resume: bool,
    /// How long a read or write is tried before the copy stops
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub retry_seconds: u64,
    /// Show the progress also when standard error is no terminal
    #[arg(long)]
    pub progress: bool,
}

impl CopyDataArguments {
    /// What decides which rows are written, for the progress file.
    fn terms(&self) -> String {
        let filter = &self.filter;
        format!(
            "hash_key {:?}, sort_key {:?}, value {:?} {:?}, no_ttl {}, no_overwrite {}",
            filter.hash_key_filter(),
            filter.sort_key.filter(),
            filter.value.value_filter_type,
            filter.value.value_filter_pattern,
            self.no_ttl,
            self.no_overwrite
        )
    }

    fn batch<'a>(&self, rows: &'a [ScanRow]) -> WriteBatch<'a> {
        let mut batch = WriteBatch::new();
        for row in rows {
            batch.put_until(&row.sort_key, &row.value, if self.no_ttl { 0 } else { row.expiry_seconds });
        }
        batch
    }
}

/// One copy under way.
struct Copy<'a> {
    source: &'a Table,
    target: &'a Table,
    arguments: &'a CopyDataArguments,
    walk: &'a Walk,
    /// Rows that the target had.
    kept: AtomicU64,
}

/// Copies rows.
pub async fn run(context: &Context, arguments: CopyDataArguments) -> Outcome {
    let source = context.table().await?;
    let client = context.client().await?;
    let other = match &arguments.target_meta {
        Some(meta) => Some(connect(context.options(), meta, arguments.target_tls.clone()).await?),
        None => None,
    };
    let target_client = other.as_ref().unwrap_or(&client);
    let outcome = copy(context, (&client, &source), target_client, &arguments).await;
    if let Some(other) = &other {
        other.close().await;
    }
    outcome
}

async fn connect(options: &GlobalOptions, meta: &str, tls: Option<PathBuf>) -> Result<Client, Failure> {
    let options = GlobalOptions { meta: Some(meta.to_owned()), tls, ..GlobalOptions::default() }.or(options);
    Ok(Client::connect(client_options(&options)?).await?)
}

async fn copy(
    context: &Context,
    (client, source): (&Client, &Table),
    target_client: &Client,
    arguments: &CopyDataArguments,
) -> Outcome {
    let target = context.with_timeout(target_client.table(&arguments.target_table).await?);
    let mut copied = begin(client, source, target_client, &target, arguments).await?;
    let mut chosen = partitions(arguments.partition, source.properties().await?.partition_count)?;
    chosen.retain(|index| !copied.partitions.contains(index));
    let retry_for = Duration::from_secs(arguments.retry_seconds);
    let (walk, mut watch) = Walk::start(retry_for, Progress::start("copied", None, arguments.progress));
    let copy = Copy { source, target: &target, arguments, walk: &walk, kept: AtomicU64::new(0) };
    let ending = {
        let done = |index, rows: u64| {
            copied.partitions.insert(index);
            copied.rows += rows;
            store(&copied, arguments)
        };
        let at_once = arguments.partitions_at_once as usize;
        watch.each_partition(&walk, &chosen, at_once, |index| copy.partition(index), done, interrupt()).await
    };
    let elapsed = watch.progress.elapsed();
    watch.progress.finish();
    let complete = ending.map_err(|failure| how_to_go_on(failure, arguments))? == WalkEnding::Complete;
    let (rows, kept) = (walk.rows.load(Ordering::Relaxed), copy.kept.load(Ordering::Relaxed));
    let rate = per_second(rows, elapsed);
    let left = if arguments.no_overwrite { format!(", left {kept} that existed") } else { String::new() };
    let text = format!("copied {}{left} in {:.2} s ({rate:.0} rows/s)", count_text(rows), elapsed.as_secs_f64());
    let value = json!({
        "rows": rows,
        "kept": kept,
        "seconds": elapsed.as_secs_f64(),
        "rows_per_second": rate,
        "retries": walk.retry.retries(),
        "partitions": copied.partitions,
        "complete": complete,
    });
    context.style().show(&text, value);
    if !complete {
        eprintln!("{}", how_to_go_on(Failure::new("interrupted", "interrupted"), arguments).message);
        return Ok(Ending::Interrupted);
    }
    Ok(Ending::Yes)
}

/// What the copy is about, and what an earlier one has done of it.
async fn begin(
    client: &Client,
    source: &Table,
    target_client: &Client,
    target: &Table,
    arguments: &CopyDataArguments,
) -> Result<Copied, Failure> {
    let clusters = (client.cluster_status().await?.cluster, target_client.cluster_status().await?.cluster);
    let numbers = (source.properties().await?.table, target.properties().await?.table);
    if clusters.0 == clusters.1 && numbers.0 == numbers.1 {
        return Err(Failure::usage("source and target are the same table"));
    }
    let mut copied = Copied {
        source: format!("{}@{}", source.name(), clusters.0),
        target: format!("{}@{}", target.name(), clusters.1),
        terms: arguments.terms(),
        partitions: [].into(),
        rows: 0,
    };
    if let (true, Some(path)) = (arguments.resume, &arguments.progress_file) {
        let failure = |text| Failure::new("progress_file", text);
        if let Some(earlier) = Copied::load(path).map_err(failure)? {
            copied.resume(earlier).map_err(failure)?;
        }
    }
    // A place that cannot be written is found before anything is copied.
    store(&copied, arguments)?;
    Ok(copied)
}

fn store(copied: &Copied, arguments: &CopyDataArguments) -> Result<(), Failure> {
    match &arguments.progress_file {
        Some(path) => copied.store(path).map_err(|text| Failure::new("progress_file", text)),
        None => Ok(()),
    }
}

fn how_to_go_on(failure: Failure, arguments: &CopyDataArguments) -> Failure {
    let how = match &arguments.progress_file {
        Some(path) => format!("--resume goes on with the partitions that are not copied ({})", path.display()),
        None => "the same command copies everything again, which does no harm".to_owned(),
    };
    Failure { message: format!("{}; {how}", failure.message), ..failure }
}

impl Copy<'_> {
    /// Copies one partition of the source; gives how many rows were written.
    async fn partition(&self, index: u32) -> Result<u64, Failure> {
        let filter = &self.arguments.filter;
        let options = ScanOptions {
            hash_key_filter: filter.hash_key_filter(),
            sort_key_filter: filter.sort_key.filter(),
            ..ScanOptions::default()
        };
        let scanner = self.source.partition_scan(index, options)?;
        let written = AtomicU64::new(0);
        // A row that must not be overwritten is a write of its own, with its own check.
        let rows_max = if self.arguments.no_overwrite { 1 } else { self.arguments.max_batch_count as usize };
        let values = filter.value.filter();
        let groups = self.walk.groups(scanner, |row: &ScanRow| values.matches(&row.value), rows_max);
        let at_once = self.arguments.concurrency as usize;
        let write = |rows: Vec<ScanRow>| async {
            written.fetch_add(self.write(rows).await?, Ordering::Relaxed);
            Ok(())
        };
        groups.try_for_each_concurrent(at_once, write).await?;
        Ok(written.into_inner())
    }

    /// Writes rows of one hash key until they are acknowledged; gives how many were.
    async fn write(&self, rows: Vec<ScanRow>) -> Result<u64, Failure> {
        let Some(first) = rows.first() else { return Ok(0) };
        let batch = self.arguments.batch(&rows);
        let mut attempts = self.walk.retry.begin();
        loop {
            let outcome = if self.arguments.no_overwrite {
                let check =
                    RowCheck { sort_key: &first.sort_key, check: Check::NotExist, operand: b"", return_value: false };
                self.target.check_and_mutate(&first.hash_key, &check, &batch).await.map(|outcome| outcome.written)
            } else {
                self.target.write(&first.hash_key, &batch).await.map(|()| true)
            };
            let error = match outcome {
                Ok(true) => {
                    self.walk.count(&rows);
                    return Ok(rows.len() as u64);
                }
                Ok(false) => {
                    self.kept.fetch_add(1, Ordering::Relaxed);
                    return Ok(0);
                }
                Err(error) => error,
            };
            let kind = error.kind();
            attempts.failed("writing", &error).await.map_err(|text| Failure::new(kind, text))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};

    fn arguments(line: &str) -> Result<CopyDataArguments, clap::Error> {
        match parse(line.split(' ').map(str::to_owned))?.command {
            Some(Command::CopyData(arguments)) => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_have_the_names_of_pegasus_too() {
        let line = "copy_data -c 127.0.0.1:34601 --target_app_name stat -p 1 -b 10 --max_multi_set_concurrency 3 -e -n";
        let parsed = arguments(line).expect("a sound line");
        assert_eq!((parsed.target_table.as_str(), parsed.target_meta.as_deref()), ("stat", Some("127.0.0.1:34601")));
        assert_eq!((parsed.partition, parsed.max_batch_count, parsed.concurrency), (Some(1), 10, 3));
        assert!(parsed.no_ttl && parsed.no_overwrite);
        for line in ["copy_data", "copy_data -a stat --resume", "copy_data -a stat --target_tls x"] {
            assert!(arguments(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_terms_of_a_copy_tell_what_is_in_the_target() {
        let terms = |line: &str| arguments(line).expect("a sound line").terms();
        let plain = terms("copy_data -a stat");
        assert_eq!(plain, terms("copy_data -a stat -b 7 -m 3 --progress"));
        for line in ["copy_data -a stat -e", "copy_data -a stat -s prefix -y x", "copy_data -a stat -v exact -z x"] {
            assert_ne!(plain, terms(line), "{line}");
        }
    }

    #[test]
    fn a_copy_that_stops_tells_how_to_go_on() {
        let message = |line: &str| {
            how_to_go_on(Failure::new("timeout", "reading: lost"), &arguments(line).expect("a sound line")).message
        };
        assert!(message("copy_data -a stat").contains("reading: lost; the same command"));
        assert!(message("copy_data -a stat --progress_file p").contains("--resume goes on"));
    }
}
