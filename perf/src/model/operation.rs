//! What can be asked of one hash key, and what can be answered. Pure; `text` shows it to people.

use bytes::Bytes;
use pegasus_wire::messages::data::{Check, FilterKind};

/// How long a row that is put lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifetime {
    /// Until it is deleted, or as long as the table's default says.
    Default,
    /// So many seconds from the moment at which the client was asked; not 0.
    Seconds(u32),
    /// Until this second, since 2016; not 0.
    Until(u32),
}

/// What an increment does to the time to live of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeChange {
    /// It stays.
    Keep,
    /// So many seconds from the moment at which the client was asked; not 0.
    Seconds(u32),
    /// The row does not expire any more.
    Clear,
}

/// A range of sort keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first one.
    pub start: Bytes,
    /// Whether it belongs to the range itself.
    pub start_inclusive: bool,
    /// The last one; empty means to the end.
    pub stop: Bytes,
    /// Whether it belongs to the range itself.
    pub stop_inclusive: bool,
}

/// Which keys are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Where the pattern has to be.
    pub kind: FilterKind,
    /// The pattern.
    pub pattern: Bytes,
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Inserts or overwrites a row.
    Put {
        /// Its sort key.
        sort_key: Bytes,
        /// Its value.
        value: Bytes,
        /// How long it lives.
        lifetime: Lifetime,
    },
    /// Deletes a row.
    Delete {
        /// Its sort key.
        sort_key: Bytes,
    },
    /// Deletes all rows of a range.
    DeleteRange {
        /// Which.
        range: Range,
    },
}

/// A condition on one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The row's sort key.
    pub sort_key: Bytes,
    /// What is demanded.
    pub check: Check,
    /// With what.
    pub operand: Bytes,
    /// The value that was checked is wanted too.
    pub return_value: bool,
}

/// Which rows a read of many wants, and how it goes about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRead {
    /// Which sort keys.
    pub range: Range,
    /// Which of these.
    pub filter: Filter,
    /// From the end backwards.
    pub reverse: bool,
    /// Without values.
    pub no_value: bool,
}

/// One operation on one hash key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// set, with and without a time to live.
    Set {
        /// The row.
        sort_key: Bytes,
        /// Its value.
        value: Bytes,
        /// How long it lives; never `Until`.
        lifetime: Lifetime,
    },
    /// del.
    Delete {
        /// The row.
        sort_key: Bytes,
    },
    /// multi_set.
    MultiSet {
        /// Sort keys and values.
        rows: Vec<(Bytes, Bytes)>,
        /// How long all of them live; never `Until`.
        lifetime: Lifetime,
    },
    /// multi_del.
    MultiDelete {
        /// The rows.
        sort_keys: Vec<Bytes>,
    },
    /// A batch of changes, in their order.
    Write {
        /// The changes.
        changes: Vec<Change>,
    },
    /// del_range.
    DeleteRange {
        /// Which rows.
        range: Range,
    },
    /// incr.
    Increment {
        /// The row.
        sort_key: Bytes,
        /// What to add.
        by: i64,
        /// What becomes of its time to live.
        lifetime: LifetimeChange,
    },
    /// check_and_set.
    CheckAndSet {
        /// When.
        condition: Condition,
        /// The row that is set.
        sort_key: Bytes,
        /// Its value.
        value: Bytes,
        /// How long it lives; never `Until`.
        lifetime: Lifetime,
    },
    /// check_and_mutate.
    CheckAndMutate {
        /// When.
        condition: Condition,
        /// What.
        changes: Vec<Change>,
    },
    /// compare_exchange.
    CompareExchange {
        /// The row.
        sort_key: Bytes,
        /// What it has to hold; `None` for a row that is not there.
        expected: Option<Bytes>,
        /// What it then holds.
        desired: Bytes,
        /// How long it lives; never `Until`.
        lifetime: Lifetime,
    },
    /// get.
    Get {
        /// The row.
        sort_key: Bytes,
    },
    /// exist.
    Exist {
        /// The row.
        sort_key: Bytes,
    },
    /// ttl.
    Ttl {
        /// The row.
        sort_key: Bytes,
    },
    /// multi_get by keys.
    MultiGet {
        /// The rows.
        sort_keys: Vec<Bytes>,
        /// Without values.
        no_value: bool,
    },
    /// multi_get by range; also multi_get_sort_keys.
    MultiGetRange {
        /// Which rows.
        read: RangeRead,
        /// So many at most; 0 for all.
        rows_max: usize,
        /// Until they have so many bytes; 0 for all.
        bytes_max: usize,
    },
    /// sortkey_count.
    Count,
    /// A scan of the hash key. `read.reverse` gives the rows in descending order.
    Scan {
        /// Which rows.
        read: RangeRead,
        /// Most rows of one request.
        rows_per_request: u32,
        /// All requests see one moment.
        snapshot: bool,
    },
    /// A read and a write of a hash key that cannot be.
    BadHashKey {
        /// Too long, else empty.
        long: bool,
    },
}

/// One row of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its sort key.
    pub sort_key: Bytes,
    /// Its value; empty where values were left out.
    pub value: Bytes,
    /// The second at which it expires; `None` where the answer does not say.
    pub expiry: Option<u32>,
}

/// How long a row has to live, as an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It is not there.
    Missing,
    /// Until it is deleted.
    Forever,
    /// So many seconds.
    Seconds(u32),
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A write is done.
    Done,
    /// The value of a row, if it is there.
    Value(Option<Bytes>),
    /// Whether a row is there.
    Exists(bool),
    /// How long a row has to live.
    Left(Left),
    /// Rows in the order of the answer.
    Rows {
        /// The rows.
        rows: Vec<Found>,
        /// False if a limit ended the read.
        complete: bool,
    },
    /// How many rows there are.
    Count(u64),
    /// The number in a row after an increment.
    Number(i64),
    /// The outcome of a check.
    Checked {
        /// It held, and what was to be written is.
        written: bool,
        /// The row that was checked is there.
        exists: bool,
        /// Its value, where it was asked for.
        value: Option<Bytes>,
    },
    /// The outcome of a compare_exchange: whether it was done, else what is there.
    Exchanged {
        /// It was done.
        done: bool,
        /// What the row held, if it was not done and the answer says so.
        found: Option<Bytes>,
    },
    /// Refused as something that cannot be done (an invalid argument); nothing has changed.
    Refused,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client was told this.
    Answered(Answer),
    /// It certainly had no effect, and told nothing.
    Nothing,
    /// A write which may have taken effect, may do so later, or never.
    Unknown,
}

/// An operation and how it ended.
#[derive(Clone, Debug)]
pub struct Item {
    /// What was asked.
    pub operation: Operation,
    /// What came of it.
    pub outcome: Outcome,
}

impl Range {
    /// All sort keys.
    pub fn all() -> Range {
        Range { start: Bytes::new(), start_inclusive: true, stop: Bytes::new(), stop_inclusive: false }
    }

    /// Whether a sort key belongs to it.
    pub fn holds(&self, sort_key: &[u8]) -> bool {
        let after_start = if self.start_inclusive { sort_key >= &self.start[..] } else { sort_key > &self.start[..] };
        let before_stop = self.stop.is_empty()
            || if self.stop_inclusive { sort_key <= &self.stop[..] } else { sort_key < &self.stop[..] };
        after_start && before_stop
    }
}

impl Filter {
    /// Whether a key is wanted.
    pub fn takes(&self, key: &[u8]) -> bool {
        match self.kind {
            FilterKind::None => true,
            _ if self.pattern.is_empty() => true,
            FilterKind::Anywhere => key.windows(self.pattern.len()).any(|part| part == self.pattern),
            FilterKind::Prefix => key.starts_with(&self.pattern),
            FilterKind::Postfix => key.ends_with(&self.pattern),
            FilterKind::Exact => key == self.pattern,
        }
    }
}

impl Operation {
    /// The word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Set { .. } => "set",
            Operation::Delete { .. } => "del",
            Operation::MultiSet { .. } => "multi_set",
            Operation::MultiDelete { .. } => "multi_del",
            Operation::Write { .. } => "write",
            Operation::DeleteRange { .. } => "del_range",
            Operation::Increment { .. } => "incr",
            Operation::CheckAndSet { .. } => "check_and_set",
            Operation::CheckAndMutate { .. } => "check_and_mutate",
            Operation::CompareExchange { .. } => "compare_exchange",
            Operation::Get { .. } => "get",
            Operation::Exist { .. } => "exist",
            Operation::Ttl { .. } => "ttl",
            Operation::MultiGet { .. } => "multi_get",
            Operation::MultiGetRange { .. } => "multi_get_range",
            Operation::Count => "sortkey_count",
            Operation::Scan { .. } => "hash_scan",
            Operation::BadHashKey { .. } => "bad hash key",
        }
    }

    /// Drops the option by which a read of a hash key that is not wide may take several requests, each of its own
    /// moment.
    pub fn keep_to_one_moment(&mut self) {
        if let Operation::Scan { snapshot, .. } = self {
            *snapshot = true;
        }
    }

    /// True if it may change rows.
    pub fn is_write(&self) -> bool {
        match self {
            Operation::Set { .. }
            | Operation::Delete { .. }
            | Operation::MultiSet { .. }
            | Operation::MultiDelete { .. }
            | Operation::Write { .. }
            | Operation::DeleteRange { .. }
            | Operation::Increment { .. }
            | Operation::CheckAndSet { .. }
            | Operation::CheckAndMutate { .. }
            | Operation::CompareExchange { .. } => true,
            Operation::Get { .. }
            | Operation::Exist { .. }
            | Operation::Ttl { .. }
            | Operation::MultiGet { .. }
            | Operation::MultiGetRange { .. }
            | Operation::Count
            | Operation::Scan { .. }
            | Operation::BadHashKey { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &'static str, start_inclusive: bool, stop: &'static str, stop_inclusive: bool) -> Range {
        Range { start: start.into(), start_inclusive, stop: stop.into(), stop_inclusive }
    }

    fn held(range: &Range) -> Vec<&'static str> {
        ["", "a", "b", "b\0", "c"].into_iter().filter(|key| range.holds(key.as_bytes())).collect()
    }

    #[test]
    fn ranges_hold_what_they_should() {
        assert_eq!(held(&Range::all()), ["", "a", "b", "b\0", "c"]);
        assert_eq!(held(&range("", false, "", true)), ["a", "b", "b\0", "c"]);
        assert_eq!(held(&range("a", true, "b", false)), ["a"]);
        assert_eq!(held(&range("a", false, "b", true)), ["b"]);
        assert_eq!(held(&range("b", true, "b", true)), ["b"]);
        assert_eq!(held(&range("b", true, "b", false)), [""; 0]);
        assert_eq!(held(&range("c", true, "a", true)), [""; 0]);
    }

    #[test]
    fn filters_take_what_they_should() {
        let takes = |kind, pattern: &'static str| {
            let filter = Filter { kind, pattern: pattern.into() };
            ["", "ab", "abc", "xab"].into_iter().filter(|key| filter.takes(key.as_bytes())).collect::<Vec<_>>()
        };
        assert_eq!(takes(FilterKind::None, "zz"), ["", "ab", "abc", "xab"]);
        assert_eq!(takes(FilterKind::Anywhere, "ab"), ["ab", "abc", "xab"]);
        assert_eq!(takes(FilterKind::Prefix, "ab"), ["ab", "abc"]);
        assert_eq!(takes(FilterKind::Postfix, "ab"), ["ab", "xab"]);
        assert_eq!(takes(FilterKind::Exact, "ab"), ["ab"]);
        assert_eq!(takes(FilterKind::Exact, ""), ["", "ab", "abc", "xab"], "an empty pattern matches every key");
    }
}
