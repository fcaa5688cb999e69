//! Scans: rows of one hash key or of the table, printed as they come, one line each, in the forms of import and export.

use clap::Args;
use pegasus_client::{ScanOptions, ScanRow, Scanner};

use crate::cli::Text;
use crate::commands::rows::RangeArguments;
use crate::context::Context;
use crate::output::{Ending, Outcome, Style, print_line};
use crate::transfer::format::{Format, write_line};

/// What both scans take.
#[derive(Debug, Args)]
pub struct PrintArguments {
    /// Most rows to print; 0 means all
    #[arg(long, default_value_t = 100, value_name = "ROWS")]
    pub max: u64,
    /// Print keys only
    #[arg(long)]
    pub no_value: bool,
    /// Print each row's expiry too, in seconds since 1970; 0 means never
    #[arg(long)]
    pub expiry: bool,
}

/// Options of `hash_scan`.
#[derive(Debug, Args)]
pub struct HashScanArguments {
    /// Hash key; not empty
    pub hash_key: Text,
    /// The range of sort keys.
    #[command(flatten)]
    pub range: RangeArguments,
    /// How to print.
    #[command(flatten)]
    pub print: PrintArguments,
}

/// Options of `scan`.
#[derive(Debug, Args)]
pub struct ScanArguments {
    /// How to print.
    #[command(flatten)]
    pub print: PrintArguments,
}

/// Prints the rows of one hash key.
pub async fn hash_scan(context: &Context, arguments: HashScanArguments) -> Outcome {
    let table = context.table().await?;
    let options = scan_options(&arguments.print);
    let scanner = table.hash_scan(&arguments.hash_key, &arguments.range.into_range(), options)?;
    print_rows(context.style(), scanner, &arguments.print).await
}

/// Prints the rows of the table.
pub async fn scan(context: &Context, arguments: ScanArguments) -> Outcome {
    let table = context.table().await?;
    let scanner = table.full_scan(scan_options(&arguments.print)).await?;
    print_rows(context.style(), scanner, &arguments.print).await
}

fn scan_options(print: &PrintArguments) -> ScanOptions {
    let default = ScanOptions::default();
    let wanted = if print.max == 0 { u64::MAX } else { print.max.saturating_add(1) };
    let rows_per_request = u64::from(default.rows_per_request).min(wanted) as u32;
    ScanOptions { no_value: print.no_value, rows_per_request }
}

async fn print_rows(style: Style, mut scanner: Scanner, print: &PrintArguments) -> Outcome {
    let mut printed = 0;
    let mut more = false;
    while let Some(mut rows) = scanner.next_batch().await? {
        if print.max > 0 && printed + rows.len() as u64 > print.max {
            rows.truncate((print.max - printed) as usize);
            more = true;
        }
        printed += rows.len() as u64;
        print_line(&lines(style, &rows, print));
        if more {
            break;
        }
    }
    if style == Style::Text {
        let rest = if more { "; there are more, --max 0 prints all" } else { "" };
        eprintln!("({printed} rows{rest})");
    }
    Ok(Ending::Yes)
}

fn lines(style: Style, rows: &[ScanRow], print: &PrintArguments) -> String {
    let format = match style {
        Style::Text => Format::Tsv,
        Style::Json => Format::Json,
    };
    let mut out = String::new();
    for row in rows {
        let expiry = print.expiry.then_some(row.expiry_seconds);
        write_line(&mut out, format, &row.hash_key, &row.sort_key, &row.value, expiry);
    }
    out
}
