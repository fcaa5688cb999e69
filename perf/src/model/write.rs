//! What a write answers and leaves behind. Pure, and written apart from the engine on purpose.

use bytes::Bytes;
use pegasus_wire::limits::{SORT_KEY_BYTES_MAX, VALUE_BYTES_MAX, WRITE_ROWS_MAX};

use crate::model::check::passes;
use crate::model::integer::parse_integer;
use crate::model::operation::{Answer, Change, Condition, Lifetime, LifetimeChange, Operation, Range};
use crate::model::rows::{Cell, Moment, Rows};

/// What a write comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// What the client is told.
    pub answer: Answer,
    /// The rows afterwards; `None` if nothing has changed.
    pub rows: Option<Rows>,
}

/// Carries out a write. `None` if the operation is no write.
pub fn carry_out(operation: &Operation, rows: &Rows, moment: Moment) -> Option<Written> {
    if !operation.is_write() {
        return None;
    }
    if breaks_a_limit(operation) {
        return Some(refused());
    }
    Some(match operation {
        Operation::Increment { sort_key, by, lifetime } => increment(rows, sort_key, *by, *lifetime, moment),
        Operation::CheckAndSet { condition, sort_key, value, lifetime } => {
            let put = Change::Put { sort_key: sort_key.clone(), value: value.clone(), lifetime: *lifetime };
            check_and_change(rows, condition, &[put], moment)
        }
        Operation::CheckAndMutate { condition, changes } => check_and_change(rows, condition, changes, moment),
        Operation::CompareExchange { sort_key, expected, desired, lifetime } => {
            let put = Change::Put { sort_key: sort_key.clone(), value: desired.clone(), lifetime: *lifetime };
            compare_exchange(rows, sort_key, expected.as_ref(), put, moment)
        }
        plain => Written { answer: Answer::Done, rows: Some(changed(rows, &changes_of(plain), moment)) },
    })
}

/// What a write without a condition changes.
fn changes_of(operation: &Operation) -> Vec<Change> {
    match operation {
        Operation::Set { sort_key, value, lifetime } => {
            vec![Change::Put { sort_key: sort_key.clone(), value: value.clone(), lifetime: *lifetime }]
        }
        Operation::Delete { sort_key } => vec![Change::Delete { sort_key: sort_key.clone() }],
        Operation::MultiSet { rows, lifetime } => rows
            .iter()
            .map(|(sort_key, value)| Change::Put {
                sort_key: sort_key.clone(),
                value: value.clone(),
                lifetime: *lifetime,
            })
            .collect(),
        Operation::MultiDelete { sort_keys } => {
            sort_keys.iter().map(|sort_key| Change::Delete { sort_key: sort_key.clone() }).collect()
        }
        Operation::Write { changes } => changes.clone(),
        Operation::DeleteRange { range } => vec![Change::DeleteRange { range: range.clone() }],
        _ => Vec::new(),
    }
}

fn changed(rows: &Rows, changes: &[Change], moment: Moment) -> Rows {
    let mut rows = rows.clone();
    for change in changes {
        match change {
            Change::Put { sort_key, value, lifetime } => {
                let expiry = expiry_of(*lifetime, moment);
                rows.insert(sort_key.clone(), Cell { value: value.clone(), expiry });
            }
            Change::Delete { sort_key } => {
                rows.remove(sort_key);
            }
            Change::DeleteRange { range } => rows.retain(|sort_key, _| !range.holds(sort_key)),
        }
    }
    rows
}

/// The expiry of a row that is put: what was asked for, else the table's default.
fn expiry_of(lifetime: Lifetime, moment: Moment) -> u32 {
    match lifetime {
        Lifetime::Default => default_expiry(moment),
        Lifetime::Seconds(seconds) => moment.asked.saturating_add(seconds),
        Lifetime::Until(second) => second,
    }
}

fn default_expiry(moment: Moment) -> u32 {
    if moment.default_ttl == 0 { 0 } else { moment.stamp.saturating_add(moment.default_ttl) }
}

fn alive<'a>(rows: &'a Rows, sort_key: &[u8], moment: Moment) -> Option<&'a Cell> {
    rows.get(sort_key).filter(|cell| cell.is_alive(moment.now))
}

fn increment(rows: &Rows, sort_key: &Bytes, by: i64, lifetime: LifetimeChange, moment: Moment) -> Written {
    let current = alive(rows, sort_key, moment);
    let number = match current {
        None => Some(0),
        Some(cell) if cell.value.is_empty() => Some(0),
        Some(cell) => parse_integer(&cell.value),
    };
    let Some(sum) = number.and_then(|number| number.checked_add(by)) else { return refused() };
    let kept = current.map_or(0, |cell| cell.expiry);
    let expiry = match lifetime {
        LifetimeChange::Keep if kept != 0 => kept,
        LifetimeChange::Keep | LifetimeChange::Clear => default_expiry(moment),
        LifetimeChange::Seconds(seconds) => moment.asked.saturating_add(seconds),
    };
    let mut rows = rows.clone();
    rows.insert(sort_key.clone(), Cell { value: sum.to_string().into(), expiry });
    Written { answer: Answer::Number(sum), rows: Some(rows) }
}

fn check_and_change(rows: &Rows, condition: &Condition, changes: &[Change], moment: Moment) -> Written {
    let current = alive(rows, &condition.sort_key, moment).map(|cell| &cell.value);
    let Ok(written) = passes(condition.check, current.map(|value| &value[..]), &condition.operand) else {
        return refused();
    };
    let value = if condition.return_value { current.cloned() } else { None };
    let answer = Answer::Checked { written, exists: current.is_some(), value };
    Written { answer, rows: written.then(|| changed(rows, changes, moment)) }
}

fn compare_exchange(rows: &Rows, sort_key: &Bytes, expected: Option<&Bytes>, put: Change, moment: Moment) -> Written {
    let current = alive(rows, sort_key, moment).map(|cell| &cell.value);
    let done = current == expected;
    let found = if done { None } else { current.cloned() };
    Written { answer: Answer::Exchanged { done, found }, rows: done.then(|| changed(rows, &[put], moment)) }
}

fn refused() -> Written {
    Written { answer: Answer::Refused, rows: None }
}

/// True if an operation is refused whatever there is, because something is missing or too long.
pub fn breaks_a_limit(operation: &Operation) -> bool {
    match operation {
        Operation::Set { sort_key, value, .. } => is_long(sort_key) || is_large(value),
        Operation::MultiSet { rows, .. } => {
            is_bad_count(rows.len()) || rows.iter().any(|(sort_key, value)| is_long(sort_key) || is_large(value))
        }
        Operation::MultiDelete { sort_keys } => {
            is_bad_count(sort_keys.len()) || sort_keys.iter().any(|sort_key| is_long(sort_key))
        }
        Operation::Write { changes } => are_bad(changes),
        Operation::DeleteRange { range } => is_long_range(range),
        Operation::CheckAndSet { condition, sort_key, value, .. } => {
            is_long(&condition.sort_key) || is_long(sort_key) || is_large(value)
        }
        Operation::CheckAndMutate { condition, changes } => is_long(&condition.sort_key) || are_bad(changes),
        Operation::CompareExchange { sort_key, desired, .. } => is_long(sort_key) || is_large(desired),
        Operation::Delete { sort_key }
        | Operation::Increment { sort_key, .. }
        | Operation::Get { sort_key }
        | Operation::Exist { sort_key }
        | Operation::Ttl { sort_key } => is_long(sort_key),
        Operation::MultiGet { sort_keys, .. } => {
            sort_keys.is_empty() || sort_keys.iter().any(|sort_key| is_long(sort_key))
        }
        Operation::MultiGetRange { read, .. } | Operation::Scan { read, .. } => is_long_range(&read.range),
        Operation::Count => false,
        Operation::BadHashKey { .. } => true,
    }
}

fn are_bad(changes: &[Change]) -> bool {
    let is_bad = |change: &Change| match change {
        Change::Put { sort_key, value, .. } => is_long(sort_key) || is_large(value),
        Change::Delete { sort_key } => is_long(sort_key),
        Change::DeleteRange { range } => is_long_range(range),
    };
    is_bad_count(changes.len()) || changes.iter().any(is_bad)
}

fn is_bad_count(count: usize) -> bool {
    count == 0 || count > WRITE_ROWS_MAX
}

fn is_long(sort_key: &[u8]) -> bool {
    sort_key.len() > SORT_KEY_BYTES_MAX
}

fn is_long_range(range: &Range) -> bool {
    is_long(&range.start) || is_long(&range.stop)
}

fn is_large(value: &[u8]) -> bool {
    value.len() > VALUE_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use pegasus_wire::messages::data::Check;

    use super::*;

    const MOMENT: Moment = Moment { now: 100, asked: 100, stamp: 101, default_ttl: 0 };

    fn rows(rows: &[(&'static str, &'static str, u32)]) -> Rows {
        let cell = |(key, value, expiry): &(&'static str, &'static str, u32)| {
            (Bytes::from(*key), Cell { value: Bytes::from(*value), expiry: *expiry })
        };
        rows.iter().map(cell).collect()
    }

    fn after(operation: &Operation, before: &Rows) -> (Answer, Option<Rows>) {
        let Written { answer, rows } = carry_out(operation, before, MOMENT).unwrap();
        (answer, rows)
    }

    fn increment_by(by: i64, lifetime: LifetimeChange) -> Operation {
        Operation::Increment { sort_key: "n".into(), by, lifetime }
    }

    fn condition(check: Check, operand: &'static str) -> Condition {
        Condition { sort_key: "a".into(), check, operand: operand.into(), return_value: true }
    }

    #[test]
    fn a_batch_is_carried_out_in_its_order() {
        let put = |key: &'static str, value: &'static str| Change::Put {
            sort_key: key.into(),
            value: value.into(),
            lifetime: Lifetime::Default,
        };
        let range = Range { start: "b".into(), start_inclusive: true, stop: "d".into(), stop_inclusive: false };
        let changes = vec![
            put("b", "1"),
            put("c", "2"),
            Change::DeleteRange { range },
            put("c", "3"),
            Change::Delete { sort_key: "x".into() },
            put("c", "4"),
        ];
        let before = rows(&[("a", "0", 0), ("bb", "0", 0), ("d", "0", 7), ("x", "0", 0)]);
        let (answer, left) = after(&Operation::Write { changes }, &before);
        assert_eq!((answer, left.unwrap()), (Answer::Done, rows(&[("a", "0", 0), ("c", "4", 0), ("d", "0", 7)])));
    }

    #[test]
    fn lifetimes_count_from_the_right_second() {
        let set = |lifetime| Operation::Set { sort_key: "a".into(), value: "v".into(), lifetime };
        let expiry =
            |lifetime, moment| carry_out(&set(lifetime), &Rows::new(), moment).unwrap().rows.unwrap()[&b"a"[..]].expiry;
        let with_default = Moment { default_ttl: 50, ..MOMENT };
        assert_eq!(expiry(Lifetime::Default, MOMENT), 0);
        assert_eq!(expiry(Lifetime::Default, with_default), 151);
        assert_eq!(expiry(Lifetime::Seconds(9), with_default), 109);
        assert_eq!(expiry(Lifetime::Until(3), with_default), 3);
    }

    #[test]
    fn increments_count_what_is_not_there_as_nothing() {
        for before in [rows(&[]), rows(&[("n", "", 0)]), rows(&[("n", "77", 100)])] {
            let (answer, left) = after(&increment_by(-5, LifetimeChange::Keep), &before);
            assert_eq!((answer, left.unwrap()), (Answer::Number(-5), rows(&[("n", "-5", 0)])), "{before:?}");
        }
        let (answer, left) = after(&increment_by(1, LifetimeChange::Keep), &rows(&[("n", " 0x10", 500)]));
        assert_eq!((answer, left.unwrap()), (Answer::Number(17), rows(&[("n", "17", 500)])));
    }

    #[test]
    fn increments_change_the_lifetime_as_asked() {
        let left = |lifetime| after(&increment_by(1, lifetime), &rows(&[("n", "1", 500)])).1.unwrap()[&b"n"[..]].expiry;
        assert_eq!(left(LifetimeChange::Keep), 500);
        assert_eq!(left(LifetimeChange::Clear), 0);
        assert_eq!(left(LifetimeChange::Seconds(7)), 107);
    }

    #[test]
    fn impossible_increments_change_nothing() {
        let max = "9223372036854775807";
        for (value, by) in [("x", 1), ("1 ", 1), (max, 1), ("-9223372036854775808", -1), ("9223372036854775808", 0)] {
            let before = rows(&[("n", value, 0)]);
            assert_eq!(after(&increment_by(by, LifetimeChange::Keep), &before), (Answer::Refused, None), "{value}");
        }
        let (answer, _) = after(&increment_by(0, LifetimeChange::Keep), &rows(&[("n", max, 0)]));
        assert_eq!(answer, Answer::Number(i64::MAX));
    }

    #[test]
    fn a_check_decides_and_tells_what_it_saw() {
        let operation = |check, operand| Operation::CheckAndSet {
            condition: condition(check, operand),
            sort_key: "b".into(),
            value: "new".into(),
            lifetime: Lifetime::Default,
        };
        let before = rows(&[("a", "5", 0)]);
        let (answer, left) = after(&operation(Check::IntegerLess, "6"), &before);
        assert_eq!(answer, Answer::Checked { written: true, exists: true, value: Some("5".into()) });
        assert_eq!(left.unwrap(), rows(&[("a", "5", 0), ("b", "new", 0)]));
        let (answer, left) = after(&operation(Check::NotExist, ""), &before);
        assert_eq!(answer, Answer::Checked { written: false, exists: true, value: Some("5".into()) });
        assert_eq!(left, None);
        assert_eq!(after(&operation(Check::IntegerLess, "x"), &before), (Answer::Refused, None));
        let expired = rows(&[("a", "5", 100)]);
        let (answer, left) = after(&operation(Check::NotExist, ""), &expired);
        assert_eq!(answer, Answer::Checked { written: true, exists: false, value: None });
        assert!(left.is_some());
    }

    #[test]
    fn an_exchange_wants_exactly_what_is_there() {
        let operation = |expected: Option<&'static str>| Operation::CompareExchange {
            sort_key: "a".into(),
            expected: expected.map(Bytes::from),
            desired: "new".into(),
            lifetime: Lifetime::Default,
        };
        let before = rows(&[("a", "", 0)]);
        let (answer, left) = after(&operation(Some("")), &before);
        assert_eq!((answer, left), (Answer::Exchanged { done: true, found: None }, Some(rows(&[("a", "new", 0)]))));
        let (answer, left) = after(&operation(None), &before);
        assert_eq!((answer, left), (Answer::Exchanged { done: false, found: Some("".into()) }, None));
        assert!(after(&operation(None), &rows(&[("a", "5", 99)])).1.is_some());
    }

    #[test]
    fn limits_are_kept() {
        let long = Bytes::from(vec![b'x'; SORT_KEY_BYTES_MAX + 1]);
        let large = Bytes::from(vec![b'x'; VALUE_BYTES_MAX + 1]);
        let set = |sort_key: &Bytes, value: &Bytes| Operation::Set {
            sort_key: sort_key.clone(),
            value: value.clone(),
            lifetime: Lifetime::Default,
        };
        let short = Bytes::from_static(b"s");
        assert_eq!(after(&set(&long, &short), &Rows::new()), (Answer::Refused, None));
        assert_eq!(after(&set(&short, &large), &Rows::new()), (Answer::Refused, None));
        assert!(!breaks_a_limit(&set(&long.slice(1..), &large.slice(1..))));
        assert!(breaks_a_limit(&Operation::MultiDelete { sort_keys: vec![] }));
        assert!(breaks_a_limit(&Operation::Write { changes: vec![Change::Delete { sort_key: short }; 1001] }));
        assert!(breaks_a_limit(&Operation::MultiGet { sort_keys: vec![], no_value: true }));
    }
}
