//! Operations, answers and rows as text, for the history that is printed with a difference.

use std::fmt::{Display, Formatter, Result};

use crate::model::operation::{
    Answer, Change, Condition, Filter, Found, Left, Lifetime, LifetimeChange, Operation, Outcome, Range, RangeRead,
};
use crate::model::rows::Rows;

/// Bytes as ASCII with escapes; of long ones the beginning and the length.
pub struct Bytes<'a>(pub &'a [u8]);

impl Display for Bytes<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        if self.0.len() <= BYTES_SHOWN {
            write!(out, "\"{}\"", self.0.escape_ascii())
        } else {
            write!(out, "\"{}\"..({} bytes)", self.0[..BYTES_SHOWN / 2].escape_ascii(), self.0.len())
        }
    }
}

/// The rows of a course.
pub fn rows_text(rows: &Rows) -> String {
    let shown = rows.iter().take(ROWS_SHOWN).map(|(sort_key, cell)| {
        let expiry = if cell.expiry == 0 { String::new() } else { format!(" until {}", cell.expiry) };
        format!("{} = {}{expiry}", Bytes(sort_key), Bytes(&cell.value))
    });
    let more = rows.len().saturating_sub(ROWS_SHOWN);
    let more = (more > 0).then(|| format!("and {more} more"));
    let all: Vec<String> = shown.chain(more).collect();
    if all.is_empty() { "no rows".to_owned() } else { all.join(", ") }
}

fn list<T>(out: &mut Formatter<'_>, items: &[T], show: impl Fn(&mut Formatter<'_>, &T) -> Result) -> Result {
    for (index, item) in items.iter().take(ROWS_SHOWN).enumerate() {
        out.write_str(if index > 0 { ", " } else { "" })?;
        show(out, item)?;
    }
    if items.len() > ROWS_SHOWN { write!(out, ", and {} more", items.len() - ROWS_SHOWN) } else { Ok(()) }
}

impl Display for Lifetime {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        match self {
            Lifetime::Default => Ok(()),
            Lifetime::Seconds(seconds) => write!(out, " for {seconds} s"),
            Lifetime::Until(second) => write!(out, " until {second}"),
        }
    }
}

impl Display for LifetimeChange {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        match self {
            LifetimeChange::Keep => Ok(()),
            LifetimeChange::Seconds(seconds) => write!(out, " for {seconds} s"),
            LifetimeChange::Clear => out.write_str(" for ever"),
        }
    }
}

impl Display for Range {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        let open = if self.start_inclusive { '[' } else { '(' };
        let close = if self.stop_inclusive { ']' } else { ')' };
        let stop: &dyn Display = if self.stop.is_empty() { &"end" } else { &Bytes(&self.stop) };
        write!(out, "{open}{} .. {stop}{close}", Bytes(&self.start))
    }
}

impl Display for Filter {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        write!(out, "{:?} {}", self.kind, Bytes(&self.pattern))
    }
}

impl Display for Change {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        match self {
            Change::Put { sort_key, value, lifetime } => {
                write!(out, "put {} = {}{lifetime}", Bytes(sort_key), Bytes(value))
            }
            Change::Delete { sort_key } => write!(out, "delete {}", Bytes(sort_key)),
            Change::DeleteRange { range } => write!(out, "delete {range}"),
        }
    }
}

impl Display for Condition {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        let value = if self.return_value { ", tell the value" } else { "" };
        write!(out, "if {} {:?} {}{value}", Bytes(&self.sort_key), self.check, Bytes(&self.operand))
    }
}

impl Display for RangeRead {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        write!(out, "{}", self.range)?;
        if self.filter != Filter::default() {
            write!(out, ", {}", self.filter)?;
        }
        out.write_str(if self.reverse { ", reverse" } else { "" })?;
        out.write_str(if self.no_value { ", no values" } else { "" })
    }
}

impl Display for Operation {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        match self {
            Operation::Set { sort_key, value, lifetime } => {
                write!(out, "set {} = {}{lifetime}", Bytes(sort_key), Bytes(value))
            }
            Operation::Delete { sort_key } => write!(out, "del {}", Bytes(sort_key)),
            Operation::MultiSet { rows, lifetime } => {
                out.write_str("multi_set ")?;
                list(out, rows, |out, (key, value)| write!(out, "{} = {}", Bytes(key), Bytes(value)))?;
                write!(out, "{lifetime}")
            }
            Operation::MultiDelete { sort_keys } => {
                out.write_str("multi_del ")?;
                list(out, sort_keys, |out, key| Bytes(key).fmt(out))
            }
            Operation::Write { changes } => {
                out.write_str("write: ")?;
                list(out, changes, |out, change| change.fmt(out))
            }
            Operation::DeleteRange { range } => write!(out, "del_range {range}"),
            Operation::Increment { sort_key, by, lifetime } => {
                write!(out, "incr {} by {by}{lifetime}", Bytes(sort_key))
            }
            Operation::CheckAndSet { condition, sort_key, value, lifetime } => {
                write!(out, "check_and_set {condition}: {} = {}{lifetime}", Bytes(sort_key), Bytes(value))
            }
            Operation::CheckAndMutate { condition, changes } => {
                write!(out, "check_and_mutate {condition}: ")?;
                list(out, changes, |out, change| change.fmt(out))
            }
            Operation::CompareExchange { sort_key, expected, desired, lifetime } => {
                let expected: &dyn Display = match expected {
                    Some(value) => &Bytes(value),
                    None => &"nothing",
                };
                write!(out, "compare_exchange {}: {expected} to {}{lifetime}", Bytes(sort_key), Bytes(desired))
            }
            reads => reads.fmt_read(out),
        }
    }
}

impl Operation {
    fn fmt_read(&self, out: &mut Formatter<'_>) -> Result {
        match self {
            Operation::Get { sort_key } => write!(out, "get {}", Bytes(sort_key)),
            Operation::Exist { sort_key } => write!(out, "exist {}", Bytes(sort_key)),
            Operation::Ttl { sort_key } => write!(out, "ttl {}", Bytes(sort_key)),
            Operation::MultiGet { sort_keys, no_value } => {
                out.write_str("multi_get ")?;
                list(out, sort_keys, |out, key| Bytes(key).fmt(out))?;
                out.write_str(if *no_value { ", no values" } else { "" })
            }
            Operation::MultiGetRange { read, rows_max, bytes_max } => {
                write!(out, "multi_get {read}, at most {rows_max} rows, {bytes_max} bytes")
            }
            Operation::Count => out.write_str("sortkey_count"),
            Operation::Scan { read, rows_per_request, snapshot } => {
                let snapshot = if *snapshot { ", of one moment" } else { "" };
                write!(out, "scan {read}, {rows_per_request} rows at a time{snapshot}")
            }
            Operation::BadHashKey { long } => {
                write!(out, "get and set of a hash key that is {}", if *long { "too long" } else { "empty" })
            }
            write => unreachable!("{write:?} is shown as a write"),
        }
    }
}

impl Display for Found {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        write!(out, "{} = {}", Bytes(&self.sort_key), Bytes(&self.value))?;
        match self.expiry {
            None | Some(0) => Ok(()),
            Some(second) => write!(out, " until {second}"),
        }
    }
}

impl Display for Answer {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        let value = |value: &Option<bytes::Bytes>| value.as_ref().map(|value| Bytes(value).to_string());
        match self {
            Answer::Done => out.write_str("done"),
            Answer::Value(found) => out.write_str(&value(found).unwrap_or_else(|| "no row".to_owned())),
            Answer::Exists(exists) => out.write_str(if *exists { "exists" } else { "no row" }),
            Answer::Left(Left::Missing) => out.write_str("no row"),
            Answer::Left(Left::Forever) => out.write_str("lives for ever"),
            Answer::Left(Left::Seconds(seconds)) => write!(out, "lives for {seconds} s"),
            Answer::Rows { rows, complete } => {
                write!(out, "{} rows{}: ", rows.len(), if *complete { "" } else { " (not all)" })?;
                list(out, rows, |out, row| row.fmt(out))
            }
            Answer::Count(count) => write!(out, "{count} rows"),
            Answer::Number(number) => write!(out, "{number}"),
            Answer::Checked { written, exists, value: found } => {
                let written = if *written { "written" } else { "not written" };
                let exists = if *exists { "the row exists" } else { "no row" };
                let found = value(found).map_or(String::new(), |value| format!(" with {value}"));
                write!(out, "{written}, {exists}{found}")
            }
            Answer::Exchanged { done: true, .. } => out.write_str("exchanged"),
            Answer::Exchanged { done: false, found } => {
                write!(out, "not exchanged, there is {}", value(found).unwrap_or_else(|| "no row".to_owned()))
            }
            Answer::Refused => out.write_str("refused as invalid"),
        }
    }
}

impl Display for Outcome {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        match self {
            Outcome::Answered(answer) => answer.fmt(out),
            Outcome::Nothing => out.write_str("failed, no effect"),
            Outcome::Unknown => out.write_str("unknown"),
        }
    }
}

/// Longer byte strings are cut.
const BYTES_SHOWN: usize = 48;
/// Rows shown of longer lists.
const ROWS_SHOWN: usize = 40;

#[cfg(test)]
mod tests {
    use pegasus_wire::messages::data::{Check, FilterKind};

    use super::*;
    use crate::model::rows::Cell;

    #[test]
    fn operations_can_be_read() {
        let range =
            Range { start: "a\0".into(), start_inclusive: false, stop: bytes::Bytes::new(), stop_inclusive: true };
        let filter = Filter { kind: FilterKind::Prefix, pattern: "x".into() };
        let read = RangeRead { range, filter, reverse: true, no_value: false };
        let operation = Operation::MultiGetRange { read, rows_max: 5, bytes_max: 0 };
        assert_eq!(
            operation.to_string(),
            "multi_get (\"a\\x00\" .. end], Prefix \"x\", reverse, at most 5 rows, 0 bytes"
        );
        let condition =
            Condition { sort_key: "c".into(), check: Check::IntegerLess, operand: "5".into(), return_value: true };
        let put = Change::Put { sort_key: "k".into(), value: vec![b'v'; 100].into(), lifetime: Lifetime::Seconds(9) };
        let text = Operation::CheckAndMutate { condition, changes: vec![put] }.to_string();
        assert!(
            text.starts_with("check_and_mutate if \"c\" IntegerLess \"5\", tell the value: put \"k\" = "),
            "{text}"
        );
        assert!(text.ends_with("\"..(100 bytes) for 9 s"), "{text}");
    }

    #[test]
    fn answers_and_rows_can_be_read() {
        let row = Found { sort_key: "k".into(), value: "v".into(), expiry: Some(7) };
        let answer = Answer::Rows { rows: vec![row; 50], complete: false };
        let text = answer.to_string();
        assert!(text.starts_with("50 rows (not all): \"k\" = \"v\" until 7, "), "{text}");
        assert!(text.ends_with("and 10 more"), "{text}");
        let rows = Rows::from([("k".into(), Cell { value: "v".into(), expiry: 0 })]);
        assert_eq!((rows_text(&rows), rows_text(&Rows::new())), ("\"k\" = \"v\"".to_owned(), "no rows".to_owned()));
    }
}
