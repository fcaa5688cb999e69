//! One row: set, get, del, exist, ttl, incr.

use std::io::Write;

use clap::Args;
use pegasus_client::{Ttl, TtlChange};
use serde_json::{Value, json};

use crate::cli::Text;
use crate::commands::arguments::RowArguments;
use crate::context::Context;
use crate::output::{Ending, Failure, Outcome, Style};
use crate::transfer::format::bytes_to_json;

/// Options of `set`.
#[derive(Debug, Args)]
pub struct SetArguments {
    /// Which row.
    #[command(flatten)]
    pub row: RowArguments,
    /// Value
    #[arg(allow_negative_numbers = true)]
    pub value: Text,
    /// Seconds the row lives; 0 means until it is deleted, or for the table's default_ttl
    #[arg(value_name = "TTL")]
    pub ttl_in_seconds: Option<u32>,
    /// The same as an option
    #[arg(long, value_name = "SECONDS", conflicts_with = "ttl_in_seconds")]
    pub ttl: Option<u32>,
}

impl SetArguments {
    /// Seconds the row lives; 0 for none said.
    pub fn ttl_seconds(&self) -> u32 {
        self.ttl_in_seconds.or(self.ttl).unwrap_or(0)
    }
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

/// Options of `incr`.
#[derive(Debug, Args)]
pub struct IncrArguments {
    /// Which row.
    #[command(flatten)]
    pub row: RowArguments,
    /// What to add; may be negative
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    pub increment: i64,
    /// Seconds the row lives from now on; without it, it keeps the time it has
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub ttl: Option<u32>,
    /// The row lives until it is deleted from now on
    #[arg(long, conflicts_with = "ttl")]
    pub clear_ttl: bool,
}

impl IncrArguments {
    fn ttl_change(&self) -> TtlChange {
        match self.ttl {
            _ if self.clear_ttl => TtlChange::Clear,
            Some(seconds) => TtlChange::Set(seconds),
            None => TtlChange::Keep,
        }
    }
}

/// Inserts or overwrites a row.
pub async fn set(context: &Context, arguments: SetArguments) -> Outcome {
    let table = context.table().await?;
    let row = &arguments.row;
    table.set_with_ttl(&row.hash_key, &row.sort_key, &arguments.value, arguments.ttl_seconds()).await?;
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
        context.style().show(&line(&context.text(&value)), json!({"found": true, "value": bytes_to_json(&value)}));
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

/// Adds to the number in a row and prints what it is then.
pub async fn incr(context: &Context, arguments: IncrArguments) -> Outcome {
    let table = context.table().await?;
    let row = &arguments.row;
    let change = arguments.ttl_change();
    let value = table.incr_with(&row.hash_key, &row.sort_key, arguments.increment, change).await?;
    context.style().show(&value.to_string(), json!({ "value": value }));
    Ok(Ending::Yes)
}

/// Says that it is done, of what has nothing else to say.
pub(crate) fn show_done(style: Style) -> Ending {
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

/// A line even if the text is empty.
pub(crate) fn line(text: &str) -> String {
    format!("{text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};

    fn command(line: &[&str]) -> Result<Command, clap::Error> {
        parse(line.iter().map(ToString::to_string)).map(|cli| cli.command.expect("a command"))
    }

    #[test]
    fn the_time_to_live_comes_last_or_as_an_option() {
        for (line, seconds) in [
            (&["set", "h", "s", "v"][..], 0),
            (&["set", "h", "s", "v", "60"], 60),
            (&["set", "h", "s", "-5", "--ttl", "60"], 60),
        ] {
            let Ok(Command::Set(arguments)) = command(line) else { panic!("{line:?}") };
            assert_eq!(arguments.ttl_seconds(), seconds, "{line:?}");
        }
        for line in [&["set", "h", "s", "v", "-1"][..], &["set", "h", "s", "v", "60", "--ttl", "60"]] {
            assert!(command(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn an_increment_is_one_unless_said() {
        let parsed = |line: &[&str]| match command(line) {
            Ok(Command::Incr(arguments)) => (arguments.increment, arguments.ttl_change()),
            other => panic!("{other:?}"),
        };
        assert_eq!(parsed(&["incr", "h", "s"]), (1, TtlChange::Keep));
        assert_eq!(parsed(&["incr", "h", "s", "-12", "--ttl", "5"]), (-12, TtlChange::Set(5)));
        assert_eq!(parsed(&["incr", "h", "-1", "3", "--clear_ttl"]), (3, TtlChange::Clear));
        for line in [&["incr", "h", "s", "x"][..], &["incr", "h", "s", "--ttl", "0"], &["incr", "h"]] {
            assert!(command(line).is_err(), "{line:?}");
        }
    }
}
