//! Import: rows from a file or pipe into a table.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::output::{Ending, Failure, Outcome};
use crate::transfer::checkpoint::{Checkpoint, Position, with_suffix};
use crate::transfer::format::Format;
use crate::transfer::importer::{ImportOptions, ImportReport, Importer, WriteTerms};
use crate::transfer::progress::{Progress, per_second};
use crate::transfer::reader;

/// Groups read ahead of the writes.
const GROUPS_AHEAD_MAX: usize = 64;

/// Options of `import`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Lines are TSV (hash key, sort key, value and perhaps expiry, with C-style escapes) or JSON objects with\n\
    the same fields. Rows that could not be written, or of which it is not known, are written again: that\n\
    changes nothing, since the same row is written. If a row stands in the input twice, the later line wins.")]
pub struct ImportArguments {
    /// The file to read; - for standard input
    pub input: PathBuf,
    /// tsv or json; by default what the file's name says, else tsv
    #[arg(long)]
    pub format: Option<Format>,
    /// Rows under way at a time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536), value_name = "ROWS")]
    pub concurrency: u32,
    /// Seconds that rows without an expiry of their own live; 0 means until they are deleted
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub ttl: u32,
    /// Continue an import that stopped, from its progress file
    #[arg(long)]
    pub resume: bool,
    /// Where to keep up to which row all are acknowledged; by default INPUT.progress, and nowhere for standard input
    #[arg(long, value_name = "FILE")]
    pub progress_file: Option<PathBuf>,
    /// Keep no progress file
    #[arg(long, conflicts_with_all = ["progress_file", "resume"])]
    pub no_progress_file: bool,
    /// How long a row is tried before the import stops
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub retry_seconds: u64,
    /// Show the progress also when standard error is no terminal
    #[arg(long)]
    pub progress: bool,
}

impl ImportArguments {
    fn format(&self) -> Format {
        self.format.unwrap_or_else(|| Format::of_path(&self.input))
    }

    /// Where the progress file is, if there is to be one.
    fn progress_path(&self) -> Option<PathBuf> {
        if self.no_progress_file {
            return None;
        }
        let beside_input = || (self.input != Path::new("-")).then(|| with_suffix(&self.input, ".progress"));
        self.progress_file.clone().or_else(beside_input)
    }

    /// The progress file as it is written for this import.
    fn checkpoint(&self, table: &str) -> Checkpoint {
        Checkpoint {
            table: table.to_owned(),
            input: self.input.display().to_string(),
            format: self.format().to_string(),
            rows: 0,
            bytes: 0,
            complete: false,
        }
    }
}

/// Imports rows.
pub async fn run(context: &Context, arguments: ImportArguments) -> Outcome {
    let table_name = context.table_name()?;
    let progress_path = arguments.progress_path();
    let checkpoint = arguments.checkpoint(&table_name);
    let earlier = match &progress_path {
        Some(path) => Checkpoint::load(path).map_err(|error| Failure::new("progress_file", error))?,
        None => None,
    };
    let from = begin_at(&arguments, &checkpoint, earlier)?;
    let Some(from) = from else {
        context.style().show("the import is complete already", json!({"rows": 0, "complete": true}));
        return Ok(Ending::Yes);
    };
    let table = context.table().await?;
    let (input, length) = reader::open(&arguments.input, from).map_err(|error| Failure::new("input", error))?;
    let options = ImportOptions {
        concurrency: arguments.concurrency as usize,
        terms: WriteTerms { retry_for: Duration::from_secs(arguments.retry_seconds), ttl_seconds: arguments.ttl },
        checkpoint: progress_path.clone().map(|path| (path, checkpoint)),
    };
    let (sender, receiver) = mpsc::channel(GROUPS_AHEAD_MAX);
    let (format, rows_max) = (arguments.format(), arguments.concurrency as usize);
    // Not awaited in the end: it may be blocked in a read that nobody can cut short.
    std::thread::spawn(move || reader::run(input, format, from, rows_max, &sender));
    let mut progress = Progress::start("imported", length, arguments.progress);
    let outcome = Importer::new(&table, options, from).run(receiver, interrupt(), &mut progress).await;
    let elapsed = progress.elapsed();
    progress.finish();
    let report = outcome.map_err(|error| Failure::new("progress_file", error))?;
    finish(context, &report, elapsed, progress_path.as_deref())
}

/// Where to begin; `None` if there is nothing left to do.
fn begin_at(
    arguments: &ImportArguments,
    checkpoint: &Checkpoint,
    earlier: Option<Checkpoint>,
) -> Result<Option<Position>, Failure> {
    if !arguments.resume {
        if let Some(earlier) = earlier.filter(|earlier| !earlier.complete && earlier.rows > 0) {
            eprintln!("an earlier import stopped after row {}; beginning anew (--resume continues it)", earlier.rows);
        }
        return Ok(Some(Position::default()));
    }
    if arguments.progress_path().is_none() {
        return Err(Failure::usage("--resume needs --progress-file for standard input"));
    }
    let Some(earlier) = earlier else {
        return Ok(Some(Position::default()));
    };
    let position = earlier.resume_position(&checkpoint.table, &checkpoint.input, &checkpoint.format);
    let position = position.map_err(|error| Failure::new("progress_file", error))?;
    Ok((!earlier.complete).then_some(position))
}

fn finish(context: &Context, report: &ImportReport, elapsed: Duration, progress_path: Option<&Path>) -> Outcome {
    let rate = per_second(report.rows, elapsed);
    let text = format!(
        "imported {} rows in {:.2} s ({rate:.0} rows/s), {} retries",
        report.rows,
        elapsed.as_secs_f64(),
        report.retries
    );
    let value = json!({
        "rows": report.rows,
        "seconds": elapsed.as_secs_f64(),
        "rows_per_second": rate,
        "retries": report.retries,
        "through_row": report.through.rows,
        "complete": report.complete,
    });
    context.style().show(&text, value);
    if report.complete {
        return Ok(Ending::Yes);
    }
    let rows = report.through.rows;
    let how = match progress_path {
        Some(path) => format!("--resume continues from there ({})", path.display()),
        None => "there is no progress file to resume from".to_owned(),
    };
    let place = format!("rows 1 to {rows} are acknowledged; {how}");
    match &report.failure {
        Some(failure) => Err(Failure::new("import", format!("{failure}\n{place}"))),
        None => {
            eprintln!("interrupted; {place}");
            Ok(Ending::Interrupted)
        }
    }
}

/// Resolves when the user asks to stop.
pub(crate) async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the signal ends the process as it always does.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn arguments(line: &[&str]) -> ImportArguments {
        let words = ["pegasus", "import", "-t", "temp"].iter().chain(line);
        match Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).command {
            Some(Command::Import(arguments)) => arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_progress_file_lies_beside_the_input() {
        assert_eq!(arguments(&["rows.tsv"]).progress_path(), Some("rows.tsv.progress".into()));
        assert_eq!(arguments(&["-"]).progress_path(), None);
        assert_eq!(arguments(&["-", "--progress-file", "p"]).progress_path(), Some("p".into()));
        assert_eq!(arguments(&["rows.tsv", "--no-progress-file"]).progress_path(), None);
    }

    #[test]
    fn resuming_begins_where_all_was_acknowledged() {
        let asked = arguments(&["rows.tsv", "--resume"]);
        let ours = asked.checkpoint("temp");
        let begin = |earlier| begin_at(&asked, &ours, earlier);
        let earlier = Checkpoint { rows: 5, bytes: 50, ..ours.clone() };
        assert_eq!(begin(None), Ok(Some(Position::default())));
        assert_eq!(begin(Some(earlier.clone())), Ok(Some(Position { rows: 5, bytes: 50 })));
        assert_eq!(begin(Some(Checkpoint { complete: true, ..earlier.clone() })), Ok(None));
        assert!(begin(Some(Checkpoint { table: "stat".into(), ..earlier.clone() })).is_err());
        let anew = arguments(&["rows.tsv"]);
        assert_eq!(begin_at(&anew, &ours, Some(earlier)), Ok(Some(Position::default())));
        assert!(begin_at(&arguments(&["-", "--resume"]), &ours, None).is_err());
    }
}
