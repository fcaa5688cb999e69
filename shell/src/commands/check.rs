//! Writes under a condition: check_and_set, check_and_mutate, compare_exchange.

use clap::Args;
use pegasus_client::{CheckAndSet, CheckOutcome, CompareExchange, RowCheck, SortKeyRange, WriteBatch};
use serde_json::{Value, json};

use crate::cli::Text;
use crate::commands::arguments::CheckArguments;
use crate::context::Context;
use crate::escape::unescape;
use crate::output::{Ending, Failure, Outcome};
use crate::transfer::format::bytes_to_json;

/// Options of `check_and_set`.
#[derive(Debug, Args)]
pub struct CheckAndSetArguments {
    /// Hash key of the row that is checked and of the one that is written
    #[arg(allow_negative_numbers = true)]
    pub hash_key: Text,
    /// The condition.
    #[command(flatten)]
    pub check: CheckArguments,
    /// Sort key of the row that is written; without it, the one that is checked
    #[arg(short = 's', long, value_name = "SORT_KEY")]
    pub set_sort_key: Option<Text>,
    /// The value written
    #[arg(short = 'v', long, value_name = "VALUE", allow_negative_numbers = true)]
    pub set_value: Text,
    /// Seconds that the row lives; 0 means until it is deleted, or for the table's default_ttl
    #[arg(short = 'l', long, visible_alias = "ttl", default_value_t = 0, value_name = "SECONDS")]
    pub set_value_ttl_seconds: u32,
}

/// Options of `check_and_mutate`.
#[derive(Debug, Args)]
#[command(after_help = "\
    The mutations are carried out in their order, all or none: set SORT_KEY VALUE, set_ttl SORT_KEY VALUE\n\
    SECONDS, del SORT_KEY, and del_range START STOP (the first included, the last not; \"\" means open).")]
pub struct CheckAndMutateArguments {
    /// Hash key of the row that is checked and of those that are written
    #[arg(allow_negative_numbers = true)]
    pub hash_key: Text,
    /// What to do if the condition holds, for example: set name Ada del draft
    #[arg(required = true, allow_negative_numbers = true, value_name = "MUTATION")]
    pub mutations: Vec<String>,
    /// The condition.
    #[command(flatten)]
    pub check: CheckArguments,
}

/// Options of `compare_exchange`.
#[derive(Debug, Args)]
pub struct CompareExchangeArguments {
    /// Hash key; not empty
    #[arg(allow_negative_numbers = true)]
    pub hash_key: Text,
    /// Sort key; may be empty ("")
    #[arg(allow_negative_numbers = true)]
    pub sort_key: Text,
    /// The value it must have and the value it gets; with --expect_missing only the latter
    #[arg(required = true, num_args = 1..=2, value_names = ["EXPECTED", "DESIRED"], allow_negative_numbers = true)]
    pub values: Vec<Text>,
    /// The row must not exist
    #[arg(long)]
    pub expect_missing: bool,
    /// Seconds that the row lives; 0 means until it is deleted, or for the table's default_ttl
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub ttl: u32,
}

impl CompareExchangeArguments {
    /// What is expected (`None`: no row) and what is desired.
    fn values(&self) -> Result<(Option<&[u8]>, &[u8]), Failure> {
        match (self.values.as_slice(), self.expect_missing) {
            ([desired], true) => Ok((None, &desired.0)),
            ([expected, desired], false) => Ok((Some(&expected.0), &desired.0)),
            (_, true) => Err(Failure::usage("with --expect_missing, compare_exchange takes only the value to write")),
            (_, false) => Err(Failure::usage(
                "compare_exchange takes the expected value and the one to write; --expect_missing if there must be no \
                 row",
            )),
        }
    }
}

/// One mutation of `check_and_mutate`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RowChange {
    Set(Vec<u8>, Vec<u8>, u32),
    Delete(Vec<u8>),
    DeleteRange(SortKeyRange),
}

/// Sets a row if another one of its hash key passes a check.
pub async fn check_and_set(context: &Context, arguments: CheckAndSetArguments) -> Outcome {
    let (check, operand) = arguments.check.check()?;
    let set_sort_key = arguments.set_sort_key.as_ref().unwrap_or(&arguments.check.check_sort_key);
    let request = CheckAndSet {
        check_sort_key: arguments.check.check_sort_key.as_ref(),
        check,
        operand,
        set_sort_key: set_sort_key.as_ref(),
        value: arguments.set_value.as_ref(),
        ttl_seconds: arguments.set_value_ttl_seconds,
        return_value: arguments.check.return_check_value,
    };
    let outcome = context.table().await?.check_and_set(&arguments.hash_key, &request).await?;
    Ok(show_outcome(context, &outcome, arguments.check.return_check_value))
}

/// Changes rows of a hash key if one of them passes a check.
pub async fn check_and_mutate(context: &Context, arguments: CheckAndMutateArguments) -> Outcome {
    let (check, operand) = arguments.check.check()?;
    let changes = read_changes(&arguments.mutations).map_err(Failure::usage)?;
    let condition = RowCheck {
        sort_key: arguments.check.check_sort_key.as_ref(),
        check,
        operand,
        return_value: arguments.check.return_check_value,
    };
    let batch = batch_of(&changes);
    let outcome = context.table().await?.check_and_mutate(&arguments.hash_key, &condition, &batch).await?;
    Ok(show_outcome(context, &outcome, arguments.check.return_check_value))
}

/// Replaces a value by another one if it is what is expected.
pub async fn compare_exchange(context: &Context, arguments: CompareExchangeArguments) -> Outcome {
    let (expected, desired) = arguments.values()?;
    let table = context.table().await?;
    let (hash_key, sort_key) = (&arguments.hash_key, &arguments.sort_key);
    let outcome = table.compare_exchange(hash_key, sort_key, expected, desired, arguments.ttl).await?;
    let (text, value) = match &outcome {
        CompareExchange::Exchanged => ("exchanged".to_owned(), json!({"exchanged": true})),
        CompareExchange::Different(None) => {
            ("not exchanged: there is no such row".to_owned(), json!({"exchanged": false, "found": false}))
        }
        CompareExchange::Different(Some(value)) => (
            format!("not exchanged: the value is {}", context.text(value)),
            json!({"exchanged": false, "found": true, "value": bytes_to_json(value)}),
        ),
    };
    context.style().show(&text, value);
    Ok(if matches!(outcome, CompareExchange::Exchanged) { Ending::Yes } else { Ending::No })
}

fn show_outcome(context: &Context, outcome: &CheckOutcome, asked_for_value: bool) -> Ending {
    let (text, value) = render(outcome, asked_for_value, |bytes| context.text(bytes));
    context.style().show(&text, value);
    if outcome.written { Ending::Yes } else { Ending::No }
}

fn render(outcome: &CheckOutcome, asked_for_value: bool, text: impl Fn(&[u8]) -> String) -> (String, Value) {
    let mut out = if outcome.written { "written" } else { "not written: the check failed" }.to_owned();
    let mut value = json!({"written": outcome.written, "exists": outcome.exists});
    if asked_for_value {
        match &outcome.value {
            Some(found) => out.push_str(&format!("\nthe value checked was {}", text(found))),
            None => out.push_str("\nthere was no row to check"),
        }
        value["value"] = outcome.value.as_ref().map_or(Value::Null, |found| bytes_to_json(found));
    }
    (out, value)
}

/// Reads mutations from words.
fn read_changes(words: &[String]) -> Result<Vec<RowChange>, String> {
    let mut words = words.iter().map(String::as_str);
    let mut changes = Vec::new();
    while let Some(verb) = words.next() {
        let mut operand = |what: &str| {
            let word = words.next().ok_or_else(|| format!("{verb}: {what} is missing; {FORM}"))?;
            unescape(word.as_bytes()).map_err(|error| format!("{verb}: {what}: {error}"))
        };
        changes.push(match verb {
            "set" => RowChange::Set(operand("the sort key")?, operand("the value")?, 0),
            "set_ttl" => {
                let (sort_key, value) = (operand("the sort key")?, operand("the value")?);
                let seconds = operand("the time to live")?;
                let seconds = std::str::from_utf8(&seconds).ok().and_then(|text| text.parse().ok());
                let seconds = seconds.ok_or_else(|| format!("{verb}: the time to live is a number of seconds"))?;
                RowChange::Set(sort_key, value, seconds)
            }
            "del" => RowChange::Delete(operand("the sort key")?),
            "del_range" => RowChange::DeleteRange(SortKeyRange {
                start: operand("the first sort key")?,
                stop: operand("the end")?,
                ..SortKeyRange::default()
            }),
            _ => return Err(format!("there is no mutation {verb:?}; {FORM}")),
        });
    }
    Ok(changes)
}

/// For people.
const FORM: &str =
    "a mutation is: set SORT_KEY VALUE, set_ttl SORT_KEY VALUE SECONDS, del SORT_KEY, or del_range START STOP";

fn batch_of(changes: &[RowChange]) -> WriteBatch<'_> {
    let mut batch = WriteBatch::new();
    for change in changes {
        match change {
            RowChange::Set(sort_key, value, ttl_seconds) => batch.put_with_ttl(sort_key, value, *ttl_seconds),
            RowChange::Delete(sort_key) => batch.delete(sort_key),
            RowChange::DeleteRange(range) => batch.delete_range(range),
        };
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};
    use crate::escape::escape;

    fn command(line: &str) -> Result<Command, clap::Error> {
        parse(line.split(' ').map(str::to_owned)).map(|cli| cli.command.expect("a command"))
    }

    fn changes(line: &str) -> Result<Vec<RowChange>, String> {
        read_changes(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn mutations_are_read_in_their_order() {
        let range = |start: &str, stop: &str| SortKeyRange {
            start: start.into(),
            stop: stop.into(),
            ..SortKeyRange::default()
        };
        let read = changes(r"set a \x31 del set set_ttl b 2 60 del_range c  set d del").expect("sound mutations");
        let expected = [
            RowChange::Set(b"a".into(), b"1".into(), 0),
            RowChange::Delete(b"set".into()),
            RowChange::Set(b"b".into(), b"2".into(), 60),
            RowChange::DeleteRange(range("c", "")),
            RowChange::Set(b"d".into(), b"del".into(), 0),
        ];
        assert_eq!(read, expected);
        assert_eq!(batch_of(&read).len(), 5);
    }

    #[test]
    fn what_is_no_mutation_is_explained() {
        for (line, word) in [
            ("put a 1", "there is no mutation"),
            ("set a", "the value is missing"),
            ("del a del", "the sort key is missing"),
            (r"del \q", "unknown escape"),
            ("set_ttl a 1 soon", "number of seconds"),
            ("del_range a", "the end is missing"),
        ] {
            let error = changes(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn conditions_are_taken_from_the_line() {
        let Ok(Command::CheckAndSet(arguments)) =
            command("check_and_set h -c s --check_type int_less -o 5 -v -1 -l 9 -r")
        else {
            panic!("a check")
        };
        assert_eq!(arguments.check.check().expect("sound"), (pegasus_client::Check::IntegerLess, &b"5"[..]));
        assert_eq!((arguments.set_value.0, arguments.set_value_ttl_seconds), (b"-1".to_vec(), 9));
        assert!(arguments.check.return_check_value && arguments.set_sort_key.is_none());
        let line = "check_and_mutate h set a 1 del b --check-sort-key s --check-type exist";
        let Ok(Command::CheckAndMutate(arguments)) = command(line) else { panic!("a check") };
        assert_eq!(arguments.mutations, ["set", "a", "1", "del", "b"]);
        for line in [
            "check_and_set h -c s --check_type exist",
            "check_and_set h -v 1 --check_type exist",
            "check_and_set h -c s -v 1",
            "check_and_set h -c s -v 1 --check_type like",
            "check_and_mutate h -c s --check_type exist",
        ] {
            assert!(command(line).is_err(), "{line}");
        }
    }

    #[test]
    fn an_exchange_names_what_it_expects() {
        let values = |line: &str| match command(line) {
            Ok(Command::CompareExchange(arguments)) => {
                arguments.values().map(|(expected, desired)| (expected.map(<[u8]>::to_vec), desired.to_vec()))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(values("compare_exchange h s a b"), Ok((Some(b"a".to_vec()), b"b".to_vec())));
        assert_eq!(values("compare_exchange h s b --expect_missing"), Ok((None, b"b".to_vec())));
        assert!(values("compare_exchange h s b").unwrap_err().message.contains("--expect_missing"));
        assert!(values("compare_exchange h s a b --expect_missing").unwrap_err().message.contains("only the value"));
    }

    #[test]
    fn outcomes_tell_what_was_there() {
        let outcome = |written, value: Option<&'static [u8]>| CheckOutcome {
            written,
            exists: value.is_some(),
            value: value.map(Into::into),
        };
        let (text, value) = render(&outcome(true, Some(b"\xff")), true, escape);
        assert_eq!(text, "written\nthe value checked was \\xff");
        assert_eq!(value, json!({"written": true, "exists": true, "value": {"hex": "ff"}}));
        let (text, value) = render(&outcome(false, None), true, escape);
        assert_eq!(text, "not written: the check failed\nthere was no row to check");
        assert_eq!(value, json!({"written": false, "exists": false, "value": null}));
        let (text, value) = render(&outcome(false, None), false, escape);
        assert_eq!(text, "not written: the check failed");
        assert_eq!(value.get("value"), None);
    }
}
