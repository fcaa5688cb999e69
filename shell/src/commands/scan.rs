//! Scans: rows of one hash key, of the table, or of the table in the order of its hash keys; one line each, printed as
//! they come or written to a file, in the forms of import and export.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use pegasus_client::{HashKeyRange, ScanOptions, ScanRow, Scanner, SortKeyRange, SortedScanner};
use serde_json::{Map, Value, json};

use crate::cli::Text;
use crate::commands::arguments::{RangeArguments, RowFilterArguments, SortKeyFilterArguments, ValueFilterArguments};
use crate::commands::multi::count_text;
use crate::context::Context;
use crate::escape::escape_into;
use crate::output::{Ending, Failure, Outcome, Style, print_line};
use crate::transfer::format::{Format, bytes_to_json, to_unix};
use crate::transfer::walk::partitions;

/// Rows on the screen, if nothing else is said.
const SHOWN_DEFAULT: u64 = 100;

/// What all scans take.
#[derive(Debug, Args)]
pub struct PrintArguments {
    /// Most rows to print; 0 means all [default: 100, and all into a file]
    #[arg(short = 'n', long, visible_alias = "max", value_name = "ROWS")]
    pub max_count: Option<u64>,
    /// Print keys only
    #[arg(short = 'i', long)]
    pub no_value: bool,
    /// Print each row's expiry too, in seconds since 1970; 0 means never
    #[arg(long)]
    pub expiry: bool,
    /// Write the rows to this file, as JSON lines if its name ends so, else as TSV
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

impl PrintArguments {
    /// Most rows to print.
    fn rows_max(&self) -> u64 {
        match (self.max_count, &self.output) {
            (Some(0), _) | (None, Some(_)) => u64::MAX,
            (Some(rows), _) => rows,
            (None, None) => SHOWN_DEFAULT,
        }
    }
}

/// Options of `hash_scan`.
#[derive(Debug, Args)]
pub struct HashScanArguments {
    /// Which sort keys.
    #[command(flatten)]
    pub range: RangeArguments,
    /// Which of them.
    #[command(flatten)]
    pub filter: SortKeyFilterArguments,
    /// Which values.
    #[command(flatten)]
    pub value: ValueFilterArguments,
    /// Descending by sort key
    #[arg(short = 'r', long)]
    pub reverse: bool,
    /// How to print.
    #[command(flatten)]
    pub print: PrintArguments,
}

/// Options of `full_scan`.
#[derive(Debug, Args)]
#[command(after_help = "\
    The rows come partition by partition. Those of one partition are of one moment, unless the partition\n\
    moved to another node meanwhile; those of several partitions are not.")]
pub struct FullScanArguments {
    /// Only this partition, counted from 0
    #[arg(short = 'p', long, value_name = "INDEX")]
    pub partition: Option<u32>,
    /// Which rows.
    #[command(flatten)]
    pub filter: RowFilterArguments,
    /// Each partition from its end
    #[arg(short = 'r', long)]
    pub reverse: bool,
    /// How to print.
    #[command(flatten)]
    pub print: PrintArguments,
}

/// Options of `sorted_scan`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Unlike a full_scan this merges all partitions, so that the hash keys come in the order of their bytes.")]
pub struct SortedScanArguments {
    /// First hash key; nothing or "" means from the beginning
    #[arg(allow_negative_numbers = true)]
    pub start_hash_key: Option<Text>,
    /// Last hash key; nothing or "" means to the end
    #[arg(allow_negative_numbers = true)]
    pub stop_hash_key: Option<Text>,
    /// Whether the first hash key itself belongs to the range
    #[arg(short = 'a', long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOLEAN")]
    #[arg(num_args = 0..=1, default_missing_value = "true")]
    pub start_inclusive: bool,
    /// Whether the last hash key itself belongs to the range
    #[arg(short = 'b', long, default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOLEAN")]
    #[arg(num_args = 0..=1, default_missing_value = "true")]
    pub stop_inclusive: bool,
    /// First sort key of each hash key
    #[arg(long, value_name = "SORT_KEY", allow_negative_numbers = true)]
    pub start_sort_key: Option<Text>,
    /// End of the sort keys of each hash key, not one of them
    #[arg(long, value_name = "SORT_KEY", allow_negative_numbers = true)]
    pub stop_sort_key: Option<Text>,
    /// Which rows.
    #[command(flatten)]
    pub filter: RowFilterArguments,
    /// Descending by hash key and sort key
    #[arg(short = 'r', long)]
    pub reverse: bool,
    /// How to print.
    #[command(flatten)]
    pub print: PrintArguments,
}

impl SortedScanArguments {
    fn ranges(&self) -> (HashKeyRange, SortKeyRange) {
        let bytes = |text: &Option<Text>| text.as_ref().map_or_else(Vec::new, |text| text.0.clone());
        let hash_keys = HashKeyRange {
            start: bytes(&self.start_hash_key),
            start_inclusive: self.start_inclusive,
            stop: bytes(&self.stop_hash_key),
            stop_inclusive: self.stop_inclusive,
        };
        let sort_keys = SortKeyRange {
            start: bytes(&self.start_sort_key),
            stop: bytes(&self.stop_sort_key),
            ..SortKeyRange::default()
        };
        (hash_keys, sort_keys)
    }
}

/// Prints the rows of one hash key.
pub async fn hash_scan(context: &Context, arguments: HashScanArguments) -> Outcome {
    let HashScanArguments { range, filter, value, reverse, print } = &arguments;
    let options = ScanOptions { reverse: *reverse, sort_key_filter: filter.filter(), ..scan_options(print, value) };
    let table = context.table().await?;
    let scanner = table.hash_scan(&range.hash_key, &range.range(), options)?;
    print_rows(context, Source::Scanner(scanner), value, print).await
}

/// Prints the rows of the table, or of one partition.
pub async fn full_scan(context: &Context, arguments: FullScanArguments) -> Outcome {
    let FullScanArguments { partition, filter, reverse, print } = &arguments;
    let options = ScanOptions { reverse: *reverse, ..row_options(print, filter) };
    let table = context.table().await?;
    let scanner = match partition {
        None => table.full_scan(options).await?,
        Some(index) => {
            partitions(Some(*index), table.properties().await?.partition_count)?;
            table.partition_scan(*index, options)?
        }
    };
    print_rows(context, Source::Scanner(scanner), &filter.value, print).await
}

/// Prints the rows of the table in the order of their hash keys.
pub async fn sorted_scan(context: &Context, arguments: SortedScanArguments) -> Outcome {
    let (hash_keys, sort_keys) = arguments.ranges();
    let SortedScanArguments { filter, reverse, print, .. } = &arguments;
    let options = ScanOptions { reverse: *reverse, ..row_options(print, filter) };
    let scanner = context.table().await?.sorted_scan(&hash_keys, &sort_keys, options).await?;
    print_rows(context, Source::Sorted(scanner), &filter.value, print).await
}

fn row_options(print: &PrintArguments, filter: &RowFilterArguments) -> ScanOptions {
    ScanOptions {
        hash_key_filter: filter.hash_key_filter(),
        sort_key_filter: filter.sort_key.filter(),
        ..scan_options(print, &filter.value)
    }
}

fn scan_options(print: &PrintArguments, value: &ValueFilterArguments) -> ScanOptions {
    let default = ScanOptions::default();
    // One more than is printed tells whether there are more.
    let wanted = if value.is_none() { print.rows_max().saturating_add(1) } else { u64::MAX };
    let rows_per_request = u64::from(default.rows_per_request).min(wanted) as u32;
    ScanOptions { no_value: print.no_value && value.is_none(), rows_per_request, ..default }
}

/// Where rows come from.
enum Source {
    Scanner(Scanner),
    Sorted(SortedScanner),
}

impl Source {
    async fn next_batch(&mut self) -> Result<Option<Vec<ScanRow>>, pegasus_client::Error> {
        match self {
            Source::Scanner(scanner) => scanner.next_batch().await,
            Source::Sorted(scanner) => scanner.next_batch().await,
        }
    }
}

async fn print_rows(
    context: &Context,
    mut source: Source,
    filter: &ValueFilterArguments,
    print: &PrintArguments,
) -> Outcome {
    let mut sink = Sink::open(context, print)?;
    let (values, mut printed, mut more) = (filter.filter(), 0, false);
    while let Some(mut rows) = source.next_batch().await? {
        rows.retain(|row| values.matches(&row.value));
        let room = print.rows_max() - printed;
        if rows.len() as u64 > room {
            rows.truncate(room as usize);
            more = true;
        }
        printed += rows.len() as u64;
        sink.write(&rows, print)?;
        if more {
            break;
        }
    }
    sink.finish()?;
    if context.style() == Style::Text {
        let rest = if more { "; there are more, --max_count 0 prints all" } else { "" };
        eprintln!("({}{rest})", count_text(printed));
    }
    Ok(Ending::Yes)
}

/// Where lines go.
struct Sink<'a> {
    context: &'a Context,
    format: Format,
    file: Option<(&'a Path, BufWriter<File>)>,
}

impl<'a> Sink<'a> {
    fn open(context: &'a Context, print: &'a PrintArguments) -> Result<Sink<'a>, Failure> {
        let by_style = match context.style() {
            Style::Text => Format::Tsv,
            Style::Json => Format::Json,
        };
        let Some(path) = &print.output else { return Ok(Sink { context, format: by_style, file: None }) };
        let file = File::create(path).map_err(|error| cannot_write(path, &error))?;
        Ok(Sink { context, format: Format::of_path(path), file: Some((path, BufWriter::new(file))) })
    }

    fn write(&mut self, rows: &[ScanRow], print: &PrintArguments) -> Result<(), Failure> {
        let mut out = String::new();
        for row in rows {
            match (self.format, &self.file) {
                (Format::Json, _) => append_json(&mut out, row, print),
                (Format::Tsv, None) => append_tsv(&mut out, row, print, |out, bytes| {
                    out.push_str(&self.context.text(bytes));
                }),
                (Format::Tsv, Some(_)) => append_tsv(&mut out, row, print, escape_into),
            }
        }
        match &mut self.file {
            None => print_line(&out),
            Some((path, file)) => file.write_all(out.as_bytes()).map_err(|error| cannot_write(path, &error))?,
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        match self.file {
            None => Ok(()),
            Some((path, mut file)) => file.flush().map_err(|error| cannot_write(path, &error)),
        }
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new("output", format!("cannot write {}: {error}", path.display()))
}

fn append_tsv(out: &mut String, row: &ScanRow, print: &PrintArguments, text: impl Fn(&mut String, &[u8])) {
    text(out, &row.hash_key);
    out.push('\t');
    text(out, &row.sort_key);
    if !print.no_value {
        out.push('\t');
        text(out, &row.value);
    }
    if print.expiry {
        out.push('\t');
        out.push_str(&to_unix(row.expiry_seconds).to_string());
    }
    out.push('\n');
}

fn append_json(out: &mut String, row: &ScanRow, print: &PrintArguments) {
    let mut object = Map::new();
    object.insert("hash_key".into(), bytes_to_json(&row.hash_key));
    object.insert("sort_key".into(), bytes_to_json(&row.sort_key));
    if !print.no_value {
        object.insert("value".into(), bytes_to_json(&row.value));
    }
    if print.expiry {
        object.insert("expiry".into(), json!(to_unix(row.expiry_seconds)));
    }
    out.push_str(&Value::Object(object).to_string());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};
    use pegasus_client::KeyFilter;

    fn command(line: &str) -> Result<Command, clap::Error> {
        parse(line.split(' ').map(str::to_owned)).map(|cli| cli.command.expect("a command"))
    }

    fn full(line: &str) -> FullScanArguments {
        match command(line) {
            Ok(Command::FullScan(arguments)) => arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_screen_has_a_limit_and_a_file_has_none() {
        let rows_max = |line: &str| full(line).print.rows_max();
        assert_eq!(rows_max("full_scan"), 100);
        assert_eq!(rows_max("scan -n 7"), 7);
        assert_eq!(rows_max("full_scan --max_count 0"), u64::MAX);
        assert_eq!(rows_max("full_scan -o rows.tsv"), u64::MAX);
        assert_eq!(rows_max("full_scan -o rows.tsv --max 3"), 3);
    }

    #[test]
    fn options_of_a_scan_come_from_its_filters() {
        let line = "full_scan --hash_key_filter_type prefix -x user: -s exact -y name -i -r -p 3 -n 7";
        let arguments = full(line);
        let options = row_options(&arguments.print, &arguments.filter);
        assert_eq!(options.hash_key_filter, KeyFilter::Prefix(b"user:".into()));
        assert_eq!(options.sort_key_filter, KeyFilter::Exact(b"name".into()));
        assert_eq!((options.no_value, options.rows_per_request), (true, 8));
        assert_eq!((arguments.partition, arguments.reverse), (Some(3), true));
        // Values that are not printed are needed to filter them, and nobody knows how many pass.
        let arguments = full("full_scan -v anywhere -z x -i -n 7");
        let options = row_options(&arguments.print, &arguments.filter);
        assert_eq!((options.no_value, options.rows_per_request), (false, ScanOptions::default().rows_per_request));
    }

    #[test]
    fn a_sorted_scan_has_two_ranges() {
        let Ok(Command::SortedScan(arguments)) =
            command("sorted_scan a b -b --start_sort_key 1 --stop_sort_key 2 --reverse")
        else {
            panic!("a sorted scan")
        };
        let (hash_keys, sort_keys) = arguments.ranges();
        assert_eq!((&hash_keys.start[..], hash_keys.start_inclusive), (&b"a"[..], true));
        assert_eq!((&hash_keys.stop[..], hash_keys.stop_inclusive), (&b"b"[..], true));
        assert_eq!((&sort_keys.start[..], &sort_keys.stop[..]), (&b"1"[..], &b"2"[..]));
        assert!(arguments.reverse);
    }

    #[test]
    fn lines_hold_what_was_asked_for() {
        let row =
            ScanRow { hash_key: "h\t".into(), sort_key: "s".into(), value: b"\xff"[..].into(), expiry_seconds: 5 };
        let line = |options: &str, format| {
            let print = full(&format!("full_scan{options}")).print;
            let mut out = String::new();
            match format {
                Format::Tsv => append_tsv(&mut out, &row, &print, escape_into),
                Format::Json => append_json(&mut out, &row, &print),
            }
            out
        };
        assert_eq!(line("", Format::Tsv), "h\\t\ts\t\\xff\n");
        assert_eq!(line(" --expiry", Format::Tsv), "h\\t\ts\t\\xff\t1451606405\n");
        assert_eq!(line(" -i", Format::Tsv), "h\\t\ts\n");
        let json = |options: &str| serde_json::from_str::<Value>(&line(options, Format::Json)).expect("JSON");
        let value = json!({"hex": "ff"});
        assert_eq!(json(""), json!({"hash_key": "h\t", "sort_key": "s", "value": value}));
        assert_eq!(json(" -i --expiry"), json!({"hash_key": "h\t", "sort_key": "s", "expiry": 1_451_606_405}));
    }
}
