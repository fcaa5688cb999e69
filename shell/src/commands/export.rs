//! Export: all rows of a table into a file or pipe.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::commands::import::interrupt;
use crate::context::Context;
use crate::output::{Ending, Failure, Outcome};
use crate::transfer::exporter::{ExportError, ExportOptions, export};
use crate::transfer::format::Format;
use crate::transfer::progress::{Progress, per_second};

/// Options of `export`.
#[derive(Debug, Args)]
#[command(after_help = "\
    The rows come in no particular order. Those of one partition are of one moment, unless the partition\n\
    moved to another node meanwhile; those of several partitions are not.")]
pub struct ExportArguments {
    /// The file to write; - for standard output
    pub output: PathBuf,
    /// tsv or json; by default what the file's name says, else tsv
    #[arg(long)]
    pub format: Option<Format>,
    /// Write each row's expiry too, in seconds since 1970; 0 means never
    #[arg(long)]
    pub expiry: bool,
    /// Partitions read at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "PARTITIONS")]
    pub concurrency: u32,
    /// Show the progress also when standard error is no terminal
    #[arg(long)]
    pub progress: bool,
}

/// Exports a table.
pub async fn run(context: &Context, arguments: ExportArguments) -> Outcome {
    let table = context.table().await?;
    let options = ExportOptions {
        format: arguments.format.unwrap_or_else(|| Format::of_path(&arguments.output)),
        with_expiry: arguments.expiry,
        partitions_at_once: arguments.concurrency as usize,
    };
    let mut progress = Progress::start("exported", None, arguments.progress);
    let outcome = export(&table, &arguments.output, &options, interrupt(), &mut progress).await;
    let elapsed = progress.elapsed();
    progress.finish();
    let report = match outcome {
        Ok(report) => report,
        Err(ExportError::Interrupted) => {
            eprintln!("{}", ExportError::Interrupted);
            return Ok(Ending::Interrupted);
        }
        Err(ExportError::Read(error)) => return Err(error.into()),
        Err(error) => return Err(Failure::new("output", error.to_string())),
    };
    let rate = per_second(report.rows, elapsed);
    let text = format!("exported {} rows in {:.2} s ({rate:.0} rows/s)", report.rows, elapsed.as_secs_f64());
    let value = json!({
        "rows": report.rows,
        "bytes": report.bytes,
        "seconds": elapsed.as_secs_f64(),
        "rows_per_second": rate,
    });
    if arguments.output == Path::new("-") {
        // Standard output holds the rows.
        eprintln!("{text}");
    } else {
        context.style().show(&text, value);
    }
    Ok(Ending::Yes)
}
