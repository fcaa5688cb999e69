//! Several rows of one hash key: multi_set, multi_get, multi_get_range, multi_get_sortkeys, multi_del, multi_del_range.

use clap::Args;
use pegasus_client::{RangeOptions, RangeRows, Row, ScanOptions, SortKeyRange, Table, WriteBatch};
use serde_json::json;

use crate::cli::Text;
use crate::commands::arguments::{RangeArguments, SortKeyFilterArguments};
use crate::commands::rows::show_done;
use crate::context::Context;
use crate::output::{Ending, Failure, Grid, Outcome};
use crate::transfer::format::{bytes_to_json, to_unix};

/// Rows deleted by one write of a multi_del_range with a filter.
const DELETED_AT_ONCE: u32 = 100;

/// Options of `multi_set`.
#[derive(Debug, Args)]
pub struct MultiSetArguments {
    /// Hash key; not empty
    #[arg(allow_negative_numbers = true)]
    pub hash_key: Text,
    /// Sort key and value of each row, in turns
    #[arg(required = true, num_args = 2.., value_names = ["SORT_KEY", "VALUE"], allow_negative_numbers = true)]
    pub rows: Vec<Text>,
    /// Seconds the rows live; 0 means until they are deleted, or for the table's default_ttl
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub ttl: u32,
}

/// Options of `multi_get`.
#[derive(Debug, Args)]
pub struct MultiGetArguments {
    /// Hash key; not empty
    #[arg(allow_negative_numbers = true)]
    pub hash_key: Text,
    /// Exactly these rows, in this order; without any, all rows of the hash key
    #[arg(allow_negative_numbers = true)]
    pub sort_keys: Vec<Text>,
    /// Print keys only
    #[arg(short = 'i', long)]
    pub no_value: bool,
}

/// Options of `multi_get_range`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Rows come in ascending order, also with --reverse: that decides which rows are left out when --max_count\n\
    or --max_size ends the read.")]
pub struct MultiGetRangeArguments {
    /// Which sort keys.
    #[command(flatten)]
    pub range: RangeArguments,
    /// Which of them.
    #[command(flatten)]
    pub filter: SortKeyFilterArguments,
    /// Most rows to print; 0 means all
    #[arg(short = 'n', long, visible_alias = "max", default_value_t = 0, value_name = "ROWS")]
    pub max_count: usize,
    /// Most bytes (keys and values) to print, the row that reaches it included; 0 means all
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub max_size: usize,
    /// Print keys only
    #[arg(short = 'i', long)]
    pub no_value: bool,
    /// Collect from the end of the range
    #[arg(short = 'r', long)]
    pub reverse: bool,
}

impl MultiGetRangeArguments {
    fn options(&self) -> RangeOptions {
        RangeOptions {
            range: self.range.range(),
            filter: self.filter.filter(),
            reverse: self.reverse,
            no_value: self.no_value,
            rows_max: self.max_count,
            bytes_max: self.max_size,
        }
    }
}

/// Options of `multi_get_sortkeys`.
#[derive(Debug, Args)]
pub struct MultiGetSortKeysArguments {
    /// Hash key; not empty
    #[arg(allow_negative_numbers = true)]
    pub hash_key: Text,
    /// Most sort keys to print; 0 means all
    #[arg(short = 'n', long, visible_alias = "max", default_value_t = 0, value_name = "ROWS")]
    pub max_count: usize,
}

/// Options of `multi_del`.
#[derive(Debug, Args)]
pub struct MultiDelArguments {
    /// Hash key; not empty
    #[arg(allow_negative_numbers = true)]
    pub hash_key: Text,
    /// Sort keys of the rows
    #[arg(required = true, allow_negative_numbers = true)]
    pub sort_keys: Vec<Text>,
}

/// Options of `multi_del_range`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Without a filter this is one write: all or nothing, whatever the size of the range. With a filter the\n\
    rows are read and deleted by hundreds, and what is written meanwhile may stay.")]
pub struct MultiDelRangeArguments {
    /// Which sort keys.
    #[command(flatten)]
    pub range: RangeArguments,
    /// Which of them.
    #[command(flatten)]
    pub filter: SortKeyFilterArguments,
}

/// Inserts or overwrites rows of one hash key.
pub async fn multi_set(context: &Context, arguments: MultiSetArguments) -> Outcome {
    if !arguments.rows.len().is_multiple_of(2) {
        return Err(Failure::usage("multi_set takes a hash key, then sort key and value of each row in turns"));
    }
    let rows: Vec<(&Text, &Text)> = arguments.rows.chunks_exact(2).map(|pair| (&pair[0], &pair[1])).collect();
    context.table().await?.multi_set_with_ttl(&arguments.hash_key, &rows, arguments.ttl).await?;
    Ok(show_done(context.style()))
}

/// Prints rows of one hash key by their sort keys, or all.
pub async fn multi_get(context: &Context, arguments: MultiGetArguments) -> Outcome {
    let table = context.table().await?;
    let (hash_key, sort_keys) = (&arguments.hash_key, &arguments.sort_keys);
    let answer = if sort_keys.is_empty() {
        let options = RangeOptions { no_value: arguments.no_value, ..RangeOptions::default() };
        table.multi_get_range(hash_key, &options).await?
    } else if arguments.no_value {
        RangeRows { rows: table.multi_exist(hash_key, sort_keys).await?, complete: true }
    } else {
        RangeRows { rows: table.multi_get(hash_key, sort_keys).await?, complete: true }
    };
    Ok(show_rows(context, &answer, arguments.no_value))
}

/// Prints rows of one hash key by a range of sort keys.
pub async fn multi_get_range(context: &Context, arguments: MultiGetRangeArguments) -> Outcome {
    let table = context.table().await?;
    let answer = table.multi_get_range(&arguments.range.hash_key, &arguments.options()).await?;
    Ok(show_rows(context, &answer, arguments.no_value))
}

/// Prints the sort keys of one hash key.
pub async fn multi_get_sortkeys(context: &Context, arguments: MultiGetSortKeysArguments) -> Outcome {
    let options = RangeOptions { no_value: true, rows_max: arguments.max_count, ..RangeOptions::default() };
    let answer = context.table().await?.multi_get_range(&arguments.hash_key, &options).await?;
    Ok(show_rows(context, &answer, true))
}

/// Deletes rows of one hash key.
pub async fn multi_del(context: &Context, arguments: MultiDelArguments) -> Outcome {
    context.table().await?.multi_del(&arguments.hash_key, &arguments.sort_keys).await?;
    Ok(show_done(context.style()))
}

/// Deletes the rows of a range of sort keys.
pub async fn multi_del_range(context: &Context, arguments: MultiDelRangeArguments) -> Outcome {
    let table = context.table().await?;
    let (hash_key, range) = (&arguments.range.hash_key, arguments.range.range());
    if arguments.filter.is_none() {
        table.del_range(hash_key, &range).await?;
        return Ok(show_done(context.style()));
    }
    let deleted = delete_matching(&table, hash_key, &range, &arguments.filter).await?;
    context.style().show(&format!("deleted {deleted} rows"), json!({"ok": true, "deleted": deleted}));
    Ok(Ending::Yes)
}

async fn delete_matching(
    table: &Table,
    hash_key: &Text,
    range: &SortKeyRange,
    filter: &SortKeyFilterArguments,
) -> Result<u64, Failure> {
    let options = ScanOptions {
        no_value: true,
        rows_per_request: DELETED_AT_ONCE,
        sort_key_filter: filter.filter(),
        ..ScanOptions::default()
    };
    let mut scanner = table.hash_scan(hash_key, range, options)?;
    let mut deleted = 0;
    while let Some(rows) = scanner.next_batch().await? {
        let mut batch = WriteBatch::new();
        for row in &rows {
            batch.delete(&row.sort_key);
        }
        table.write(hash_key, &batch).await?;
        deleted += rows.len() as u64;
    }
    Ok(deleted)
}

fn show_rows(context: &Context, answer: &RangeRows, no_value: bool) -> Ending {
    let RangeRows { rows, complete } = answer;
    let values = rows.iter().map(|row| {
        let mut object = json!({"sort_key": bytes_to_json(&row.sort_key), "expiry": to_unix(row.expiry_seconds)});
        if !no_value {
            object["value"] = bytes_to_json(&row.value);
        }
        object
    });
    let value = json!({"rows": values.collect::<Vec<_>>(), "complete": complete});
    let text = rows_text(rows, *complete, no_value, |bytes| context.text(bytes));
    context.style().show(&text, value);
    if rows.is_empty() { Ending::No } else { Ending::Yes }
}

fn rows_text(rows: &[Row], complete: bool, no_value: bool, text: impl Fn(&[u8]) -> String) -> String {
    let mut grid = Grid::of_texts(if no_value { &["sort_key"] } else { &["sort_key", "value"] });
    for row in rows {
        let mut cells = vec![text(&row.sort_key)];
        if !no_value {
            cells.push(text(&row.value));
        }
        grid.row(cells);
    }
    let more = if complete { "" } else { ", and there are more" };
    format!("{}({}{more})", grid.render(), count_text(rows.len() as u64))
}

/// `1 row`, `2 rows`.
pub(crate) fn count_text(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};
    use crate::escape::{escape, escape_all};
    use pegasus_client::KeyFilter;

    fn command(line: &[&str]) -> Result<Command, clap::Error> {
        parse(line.iter().map(ToString::to_string)).map(|cli| cli.command.expect("a command"))
    }

    #[test]
    fn a_range_read_takes_all_of_pegasus_options() {
        let line = "multi_get_range h a b -a false -b true -s prefix -y p -n 7 --max_size 99 -i -r";
        let Ok(Command::MultiGetRange(arguments)) = command(&line.split(' ').collect::<Vec<_>>()) else {
            panic!("{line}")
        };
        let range =
            SortKeyRange { start: b"a".into(), start_inclusive: false, stop: b"b".into(), stop_inclusive: true };
        let expected = RangeOptions {
            range,
            filter: KeyFilter::Prefix(b"p".into()),
            reverse: true,
            no_value: true,
            rows_max: 7,
            bytes_max: 99,
        };
        assert_eq!(arguments.options(), expected);
        let Ok(Command::MultiGetRange(arguments)) = command(&["multi_get_range", "h"]) else { panic!("a range") };
        assert_eq!(arguments.options(), RangeOptions::default());
    }

    #[test]
    fn lists_need_at_least_one_row() {
        for line in [&["multi_set", "h"][..], &["multi_set", "h", "s"], &["multi_del", "h"], &["multi_del_range"]] {
            assert!(command(line).is_err(), "{line:?}");
        }
        for line in [&["multi_set", "h", "s", "-1"][..], &["multi_get", "h"], &["multi_del_range", "h"]] {
            assert!(command(line).is_ok(), "{line:?}");
        }
    }

    #[test]
    fn rows_are_shown_as_a_grid() {
        let row = |sort_key: &'static str, value: &'static str| Row {
            sort_key: sort_key.into(),
            value: value.into(),
            expiry_seconds: 0,
        };
        let rows = [row("a\n", "1"), row("bb", "17")];
        assert_eq!(rows_text(&rows, true, false, escape), "sort_key  value\na\\n       1\nbb        17\n(2 rows)");
        assert_eq!(rows_text(&rows[..1], false, true, escape), "sort_key\na\\n\n(1 row, and there are more)");
        let all = rows_text(&rows[1..], true, true, escape_all);
        assert_eq!(all, "sort_key\n\\x62\\x62\n(1 row)");
        assert_eq!(rows_text(&[], true, true, escape), "sort_key\n(0 rows)");
    }
}
