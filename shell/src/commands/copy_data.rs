//! Copying the rows of a table into another table, of this cluster or of another one; or those of a Pegasus cluster
//! into a table of this one.
//!
//! Rows are written as they are, with the second at which they expire. To write one twice changes nothing, so what
//! fails or is unknown is repeated, and a copy that was stopped may simply be started again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use futures_util::stream::TryStreamExt;
use pegasus_client::{Check, Client, KeyFilter, RowCheck, ScanOptions, ScanRow, Table, WriteBatch};
use pegasus_driver::Target;
use pegasus_wire::limits::WRITE_ROWS_MAX;
use serde_json::json;

use crate::cli::GlobalOptions;
use crate::commands::arguments::RowFilterArguments;
use crate::commands::import::interrupt;
use crate::commands::multi::count_text;
use crate::context::{Context, client_options};
use crate::escape::escape;
use crate::output::{Ending, Failure, Outcome};
use crate::transfer::copied::Copied;
use crate::transfer::pegasus::{PegasusTable, fits};
use crate::transfer::progress::{Progress, per_second};
use crate::transfer::walk::{Batches, Walk, WalkEnding, partitions};

/// Options of `copy_data`.
#[derive(Debug, Args)]
#[command(after_help = "\
    The target table must exist; it may have another number of partitions. Rows that are written to the\n\
    source meanwhile may be left out. With a progress file, --resume passes over the partitions that were\n\
    copied before.\n\n\
    From a Pegasus cluster into the table in use: -t users copy_data --from pegasus://10.0.0.7:34601/users")]
pub struct CopyDataArguments {
    /// The table to fill
    #[arg(short = 'a', long, visible_alias = "target-app-name", value_name = "NAME", required_unless_present = "from")]
    pub target_table: Option<String>,
    /// Read this table of a Pegasus cluster, pegasus://host:port,host:port/table, and fill the table in use
    #[arg(long, value_name = "ADDRESS", value_parser = Target::parse, conflicts_with = "target_table")]
    pub from: Option<Target>,
    /// With --from, rows in one answer of the source; fewer where values are large
    #[arg(long, default_value_t = 100, conflicts_with = "target_table", value_name = "ROWS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rows_per_read: u32,
    /// With --from, leave out and count rows that break a limit of this cluster, in place of stopping at the first
    #[arg(long, conflicts_with = "target_table")]
    pub skip_unfit: bool,
    /// Addresses of the target cluster's meta servers, separated by commas; without them, this cluster
    #[arg(short = 'c', long, value_name = "ADDRESSES", conflicts_with = "from")]
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
            "hash_key {:?}, sort_key {:?}, value {:?} {:?}, no_ttl {}, no_overwrite {}{}",
            filter.hash_key_filter(),
            filter.sort_key.filter(),
            filter.value.value_filter_type,
            filter.value.value_filter_pattern,
            self.no_ttl,
            self.no_overwrite,
            if self.skip_unfit { ", skip_unfit" } else { "" }
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

/// What is read.
enum Source {
    /// A table of this cluster.
    Ours(Table),
    /// A table of a Pegasus cluster.
    Pegasus(PegasusTable),
}

impl Source {
    async fn partition_count(&self) -> Result<u32, Failure> {
        match self {
            Source::Ours(table) => Ok(table.properties().await?.partition_count),
            Source::Pegasus(table) => Ok(table.partition_count()),
        }
    }
}

/// One copy under way.
struct Copy<'a> {
    source: &'a Source,
    target: &'a Table,
    arguments: &'a CopyDataArguments,
    walk: &'a Walk,
    /// Rows that the target had.
    kept: AtomicU64,
    /// Rows that break a limit and were left out.
    unfit: AtomicU64,
}

/// Copies rows.
pub async fn run(context: &Context, arguments: CopyDataArguments) -> Outcome {
    let client = context.client().await?;
    if let Some(from) = &arguments.from {
        let target = context.table().await?;
        let timeout = context.options().timeout_ms.map(Duration::from_millis);
        let source = PegasusTable::open(from, timeout).await?;
        let cluster = client.cluster_status().await?.cluster;
        let copied = nothing_copied(source.identity(), format!("{}@{cluster}", target.name()), &arguments);
        return copy(context, Source::Pegasus(source), &target, copied, &arguments).await;
    }
    let source = context.table().await?;
    let other = match &arguments.target_meta {
        Some(meta) => Some(connect(context.options(), meta, arguments.target_tls.clone()).await?),
        None => None,
    };
    let outcome = copy_ours(context, (&client, source), other.as_ref().unwrap_or(&client), &arguments).await;
    if let Some(other) = &other {
        other.close().await;
    }
    outcome
}

async fn connect(options: &GlobalOptions, meta: &str, tls: Option<PathBuf>) -> Result<Client, Failure> {
    let options = GlobalOptions { meta: Some(meta.to_owned()), tls, ..GlobalOptions::default() }.or(options);
    Ok(Client::connect(client_options(&options)?).await?)
}

/// Copies a table of this cluster.
async fn copy_ours(
    context: &Context,
    (client, source): (&Client, Table),
    target_client: &Client,
    arguments: &CopyDataArguments,
) -> Outcome {
    let name = arguments.target_table.as_deref().unwrap_or_default();
    let target = context.with_timeout(target_client.table(name).await?);
    let clusters = (client.cluster_status().await?.cluster, target_client.cluster_status().await?.cluster);
    let numbers = (source.properties().await?.table, target.properties().await?.table);
    if clusters.0 == clusters.1 && numbers.0 == numbers.1 {
        return Err(Failure::usage("source and target are the same table"));
    }
    let (from, to) = (format!("{}@{}", source.name(), clusters.0), format!("{}@{}", target.name(), clusters.1));
    let copied = nothing_copied(from, to, arguments);
    copy(context, Source::Ours(source), &target, copied, arguments).await
}

async fn copy(
    context: &Context,
    source: Source,
    target: &Table,
    copied: Copied,
    arguments: &CopyDataArguments,
) -> Outcome {
    let mut copied = begin(copied, arguments)?;
    let mut chosen = partitions(arguments.partition, source.partition_count().await?)?;
    chosen.retain(|index| !copied.partitions.contains(index));
    let retry_for = Duration::from_secs(arguments.retry_seconds);
    let (walk, mut watch) = Walk::start(retry_for, Progress::start("copied", None, arguments.progress));
    let (kept, unfit) = (AtomicU64::new(0), AtomicU64::new(0));
    let copy = Copy { source: &source, target, arguments, walk: &walk, kept, unfit };
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
    report(context, &copy, &copied, elapsed, complete);
    if !complete {
        eprintln!("{}", how_to_go_on(Failure::new("interrupted", "interrupted"), arguments).message);
        return Ok(Ending::Interrupted);
    }
    Ok(Ending::Yes)
}

/// Shows what was copied.
fn report(context: &Context, copy: &Copy<'_>, copied: &Copied, elapsed: Duration, complete: bool) {
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (rows, kept, unfit) = (of(&copy.walk.rows), of(&copy.kept), of(&copy.unfit));
    let rate = per_second(rows, elapsed);
    let mut left = String::new();
    if copy.arguments.no_overwrite {
        left.push_str(&format!(", left {kept} that existed"));
    }
    if copy.arguments.skip_unfit {
        left.push_str(&format!(", left out {unfit} that break a limit"));
    }
    let text = format!("copied {}{left} in {:.2} s ({rate:.0} rows/s)", count_text(rows), elapsed.as_secs_f64());
    let value = json!({
        "rows": rows,
        "kept": kept,
        "unfit": unfit,
        "seconds": elapsed.as_secs_f64(),
        "rows_per_second": rate,
        "retries": copy.walk.retry.retries(),
        "partitions": copied.partitions,
        "complete": complete,
    });
    context.style().show(&text, value);
}

fn nothing_copied(source: String, target: String, arguments: &CopyDataArguments) -> Copied {
    Copied { source, target, terms: arguments.terms(), partitions: [].into(), rows: 0 }
}

/// What an earlier copy has done of this one, if it is to go on.
fn begin(mut copied: Copied, arguments: &CopyDataArguments) -> Result<Copied, Failure> {
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
    let unfit = arguments.from.is_some() && failure.kind == "invalid_argument";
    let leave_out = if unfit { "; --skip-unfit leaves out rows that break a limit" } else { "" };
    Failure { message: format!("{}{leave_out}; {how}", failure.message), ..failure }
}

impl Copy<'_> {
    /// Copies one partition of the source; gives how many rows were written.
    async fn partition(&self, index: u32) -> Result<u64, Failure> {
        let (hash_key_filter, sort_key_filter) = self.filters();
        match self.source {
            Source::Ours(table) => {
                let options = ScanOptions { hash_key_filter, sort_key_filter, ..ScanOptions::default() };
                self.write_all(table.partition_scan(index, options)?).await
            }
            Source::Pegasus(table) => {
                let filters = (hash_key_filter, sort_key_filter);
                self.write_all(table.scan(index, filters, self.arguments.rows_per_read)?).await
            }
        }
    }

    fn filters(&self) -> (KeyFilter, KeyFilter) {
        (self.arguments.filter.hash_key_filter(), self.arguments.filter.sort_key.filter())
    }

    /// Writes the rows of a scan; gives how many were written.
    async fn write_all(&self, scan: impl Batches) -> Result<u64, Failure> {
        let written = AtomicU64::new(0);
        // A row that must not be overwritten is a write of its own, with its own check.
        let rows_max = if self.arguments.no_overwrite { 1 } else { self.arguments.max_batch_count as usize };
        let values = self.arguments.filter.value.filter();
        let wanted = |row: &ScanRow| values.matches(&row.value) && self.is_let_in(row);
        let groups = self.walk.groups(scan, wanted, rows_max);
        let at_once = self.arguments.concurrency as usize;
        let write = |rows: Vec<ScanRow>| async {
            written.fetch_add(self.write(rows).await?, Ordering::Relaxed);
            Ok(())
        };
        groups.try_for_each_concurrent(at_once, write).await?;
        Ok(written.into_inner())
    }

    /// False for a row that breaks a limit and is to be left out.
    fn is_let_in(&self, row: &ScanRow) -> bool {
        let let_in = !self.arguments.skip_unfit || fits(row);
        if !let_in {
            self.unfit.fetch_add(1, Ordering::Relaxed);
        }
        let_in
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
            let what = format!("writing rows of the hash key {}", escape(&first.hash_key));
            attempts.failed(&what, &error).await.map_err(|text| Failure::new(kind, text))?;
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
        assert_eq!(
            (parsed.target_table.as_deref(), parsed.target_meta.as_deref()),
            (Some("stat"), Some("127.0.0.1:34601"))
        );
        assert_eq!((parsed.partition, parsed.max_batch_count, parsed.concurrency), (Some(1), 10, 3));
        assert!(parsed.no_ttl && parsed.no_overwrite);
        for line in ["copy_data", "copy_data -a stat --resume", "copy_data -a stat --target_tls x"] {
            assert!(arguments(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_pegasus_cluster_fills_the_table_in_use() {
        let parsed = arguments("copy_data --from pegasus://10.0.0.7:34601/users -p 3").expect("a sound line");
        let from = parsed.from.map(|from| from.to_string());
        assert_eq!((from.as_deref(), parsed.target_table), (Some("pegasus://10.0.0.7:34601/users"), None));
        assert_eq!((parsed.rows_per_read, parsed.skip_unfit, parsed.partition), (100, false, Some(3)));
        for line in [
            "copy_data --from 10.0.0.7:34601/users",
            "copy_data --from pegasus://10.0.0.7:34601",
            "copy_data --from pegasus://10.0.0.7:34601/users -a stat",
            "copy_data --from pegasus://10.0.0.7:34601/users -c 127.0.0.1:34601",
            "copy_data --from pegasus://10.0.0.7:34601/users --rows_per_read 0",
            "copy_data -a stat --rows_per_read 7",
            "copy_data -a stat --skip_unfit",
        ] {
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
        let unfit = arguments("copy_data --from pegasus://10.0.0.7:34601/users").expect("a sound line");
        let failure = how_to_go_on(Failure::new("invalid_argument", "writing: too long"), &unfit);
        assert!(failure.message.contains("too long; --skip-unfit leaves out"), "{}", failure.message);
    }
}
