//! Rows: set, get, del, exist, ttl, and the same for several rows of one hash key.

use std::io::Write;

use clap::Args;
use pegasus_client::{RangeOptions, Row, SortKeyRange, Ttl, WriteBatch, expiry_from_now};
use serde_json::{Value, json};

use crate::cli::Text;
use crate::context::Context;
use crate::escape::escape;
use crate::output::{Ending, Failure, Grid, Outcome, Style};
use crate::transfer::format::{bytes_to_json, to_unix};

/// One row.
#[derive(Debug, Args)]
pub struct RowArguments {
    /// Hash key; not empty
    pub hash_key: Text,
    /// Sort key; may be empty ("")
    pub sort_key: Text,
}

/// Options of `set`.
#[derive(Debug, Args)]
pub struct SetArguments {
    /// Which row.
    #[command(flatten)]
    pub row: RowArguments,
    /// Value
    pub value: Text,
    /// Seconds the row lives; 0 means until it is deleted
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub ttl: u32,
}

/// Options of `get`.
#[derive(Debug, Args)]
pub struct GetArguments {
    /// Which row.
    #[command(flatten)]
    pub row: RowArguments,
    /// Print the bytes of the value as they are, without escapes and line end
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
}

/// Options of `multi_set`.
#[derive(Debug, Args)]
pub struct MultiSetArguments {
    /// Hash key; not empty
    pub hash_key: Text,
    /// Sort key and value of each row, in turns
    #[arg(required = true, num_args = 2.., value_names = ["SORT_KEY", "VALUE"])]
    pub rows: Vec<Text>,
    /// Seconds the rows live; 0 means until they are deleted
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub ttl: u32,
}

/// Options of `multi_get`.
#[derive(Debug, Args)]
pub struct MultiGetArguments {
    /// Hash key; not empty
    pub hash_key: Text,
    /// Exactly these rows; without any, the rows of the range
    pub sort_keys: Vec<Text>,
    /// The range of sort keys.
    #[command(flatten)]
    pub range: RangeArguments,
    /// Most rows of the range to print; 0 means all
    #[arg(long, default_value_t = 0, value_name = "ROWS")]
    pub max: usize,
    /// Print keys only
    #[arg(long)]
    pub no_value: bool,
}

/// A range of sort keys.
#[derive(Debug, Args)]
pub struct RangeArguments {
    /// First sort key of the range
    #[arg(long, value_name = "SORT_KEY")]
    pub start: Option<Text>,
    /// Leave the first sort key itself out
    #[arg(long)]
    pub start_exclusive: bool,
    /// End of the range, not part of it
    #[arg(long, value_name = "SORT_KEY")]
    pub stop: Option<Text>,
    /// The end belongs to the range
    #[arg(long)]
    pub stop_inclusive: bool,
}

impl RangeArguments {
    /// True if the range is all sort keys.
    pub fn is_everything(&self) -> bool {
        self.start.is_none() && self.stop.is_none() && !self.start_exclusive && !self.stop_inclusive
    }

    /// The range as the client has it.
    pub fn into_range(self) -> SortKeyRange {
        SortKeyRange {
            start: self.start.map_or_else(Vec::new, |text| text.0),
            start_inclusive: !self.start_exclusive,
            stop: self.stop.map_or_else(Vec::new, |text| text.0),
            stop_inclusive: self.stop_inclusive,
        }
    }
}

/// Options of `multi_del`.
#[derive(Debug, Args)]
pub struct MultiDelArguments {
    /// Hash key; not empty
    pub hash_key: Text,
    /// Sort keys of the rows
    #[arg(required = true)]
    pub sort_keys: Vec<Text>,
}

/// Inserts or overwrites a row.
pub async fn set(context: &Context, arguments: SetArguments) -> Outcome {
    let table = context.table().await?;
    table.set_with_ttl(&arguments.row.hash_key, &arguments.row.sort_key, &arguments.value, arguments.ttl).await?;
    Ok(show_done(context.style()))
}

/// Prints the value of a row.
pub async fn get(context: &Context, arguments: GetArguments) -> Outcome {
    let table = context.table().await?;
    let Some(value) = table.get(&arguments.row.hash_key, &arguments.row.sort_key).await? else {
        return Ok(show_not_found(context.style()));
    };
    if arguments.raw {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(&value).and_then(|()| out.flush());
        written.map_err(|error| Failure::new("output", format!("cannot write to standard output: {error}")))?;
    } else {
        context.style().show(&line(&escape(&value)), json!({"found": true, "value": bytes_to_json(&value)}));
    }
    Ok(Ending::Yes)
}

/// Deletes a row.
pub async fn del(context: &Context, arguments: RowArguments) -> Outcome {
    context.table().await?.del(&arguments.hash_key, &arguments.sort_key).await?;
    Ok(show_done(context.style()))
}

/// Tells whether a row exists.
pub async fn exist(context: &Context, arguments: RowArguments) -> Outcome {
    let found = context.table().await?.exist(&arguments.hash_key, &arguments.sort_key).await?;
    context.style().show(if found { "true" } else { "false" }, json!({ "found": found }));
    Ok(if found { Ending::Yes } else { Ending::No })
}

/// Prints how long a row has to live.
pub async fn ttl(context: &Context, arguments: RowArguments) -> Outcome {
    let Some(ttl) = context.table().await?.ttl(&arguments.hash_key, &arguments.sort_key).await? else {
        return Ok(show_not_found(context.style()));
    };
    let (text, value) = match ttl {
        Ttl::Never => ("never expires".to_owned(), Value::Null),
        Ttl::Seconds(seconds) => (seconds.to_string(), json!(seconds)),
    };
    context.style().show(&text, json!({"found": true, "ttl": value}));
    Ok(Ending::Yes)
}

/// Inserts or overwrites rows of one hash key.
pub async fn multi_set(context: &Context, arguments: MultiSetArguments) -> Outcome {
    if !arguments.rows.len().is_multiple_of(2) {
        return Err(Failure::usage("multi_set takes a hash key, then sort key and value of each row in turns"));
    }
    let expiry = expiry_from_now(arguments.ttl);
    let mut batch = WriteBatch::new();
    for pair in arguments.rows.chunks_exact(2) {
        batch.put_until(&pair[0], &pair[1], expiry);
    }
    context.table().await?.write(&arguments.hash_key, &batch).await?;
    Ok(show_done(context.style()))
}

/// Prints rows of one hash key.
pub async fn multi_get(context: &Context, arguments: MultiGetArguments) -> Outcome {
    let by_keys = !arguments.sort_keys.is_empty();
    if by_keys && (!arguments.range.is_everything() || arguments.max != 0) {
        return Err(Failure::usage("multi_get takes sort keys or a range (--start, --stop, --max), not both"));
    }
    let table = context.table().await?;
    let (rows, complete) = if by_keys {
        let keys = &arguments.sort_keys;
        let rows = if arguments.no_value {
            table.multi_exist(&arguments.hash_key, keys).await?
        } else {
            table.multi_get(&arguments.hash_key, keys).await?
        };
        (rows, true)
    } else {
        let options =
            RangeOptions { range: arguments.range.into_range(), no_value: arguments.no_value, rows_max: arguments.max };
        let answer = table.multi_get_range(&arguments.hash_key, &options).await?;
        (answer.rows, answer.complete)
    };
    show_rows(context.style(), &rows, complete, arguments.no_value);
    Ok(if rows.is_empty() { Ending::No } else { Ending::Yes })
}

/// Deletes rows of one hash key.
pub async fn multi_del(context: &Context, arguments: MultiDelArguments) -> Outcome {
    context.table().await?.multi_del(&arguments.hash_key, &arguments.sort_keys).await?;
    Ok(show_done(context.style()))
}

fn show_done(style: Style) -> Ending {
    style.show("ok", json!({"ok": true}));
    Ending::Yes
}

fn show_not_found(style: Style) -> Ending {
    match style {
        Style::Text => eprintln!("not found"),
        Style::Json => style.show("", json!({"found": false})),
    }
    Ending::No
}

fn show_rows(style: Style, rows: &[Row], complete: bool, no_value: bool) {
    let values = rows.iter().map(|row| {
        let mut object = json!({"sort_key": bytes_to_json(&row.sort_key), "expiry": to_unix(row.expiry_seconds)});
        if !no_value {
            object["value"] = bytes_to_json(&row.value);
        }
        object
    });
    let value = json!({"rows": values.collect::<Vec<_>>(), "complete": complete});
    let headings: &[&'static str] = if no_value { &["sort_key"] } else { &["sort_key", "value"] };
    let mut grid = Grid::new(headings);
    for row in rows {
        let mut cells = vec![escape(&row.sort_key)];
        if !no_value {
            cells.push(escape(&row.value));
        }
        grid.row(cells);
    }
    let more = if complete { "" } else { ", and there are more" };
    style.show(&format!("{}({} rows{more})", grid.render(), rows.len()), value);
}

/// A line even if the text is empty.
fn line(text: &str) -> String {
    format!("{text}\n")
}
