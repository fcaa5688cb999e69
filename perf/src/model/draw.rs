//! What a worker asks next: every operation with every option, drawn so that operations meet the same few rows. Pure:
//! randomness comes in.

use bytes::Bytes;
use pegasus_wire::limits::{READ_ROWS_MAX, SORT_KEY_BYTES_MAX, VALUE_BYTES_MAX, WRITE_ROWS_MAX};
use pegasus_wire::messages::data::{Check, FilterKind};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::model::operation::{Change, Condition, Filter, Lifetime, LifetimeChange, Operation, Range, RangeRead};
use crate::model::rows::Rows;
use crate::model::words::{SortKeys, increment, large_value, pattern, value};

/// Draws operations on one hash key.
pub struct Artist<'a> {
    /// Decides everything.
    pub random: &'a mut SmallRng,
    /// The sort keys there are.
    pub sort_keys: &'a SortKeys,
    /// What the hash key holds, as far as anybody knows.
    pub rows: &'a Rows,
    /// The second it is, since 2016.
    pub now: u32,
    /// The hash key gets many rows, and large ones: its reads take several requests.
    pub wide: bool,
}

impl Artist<'_> {
    /// The next operation.
    pub fn operation(&mut self) -> Operation {
        match self.random.random_range(0..1000) {
            0..500 => self.write(),
            500..985 => self.read(),
            _ => self.invalid(),
        }
    }

    /// One that writes.
    pub fn write(&mut self) -> Operation {
        match self.random.random_range(0..100) {
            0..18 => self.set(),
            18..25 => Operation::Delete { sort_key: self.sort_key() },
            25..32 => self.multi_set(),
            32..37 => {
                let count = self.random.random_range(1..6);
                Operation::MultiDelete { sort_keys: (0..count).map(|_| self.sort_key()).collect() }
            }
            37..45 => Operation::Write { changes: self.changes() },
            45..49 => Operation::DeleteRange { range: self.deleted_range() },
            49..65 => Operation::Increment {
                sort_key: self.sort_key(),
                by: increment(self.random),
                lifetime: match self.random.random_range(0..10) {
                    0..6 => LifetimeChange::Keep,
                    6..8 => LifetimeChange::Seconds(self.seconds()),
                    _ => LifetimeChange::Clear,
                },
            },
            65..82 => self.check_and_set(),
            82..92 => Operation::CheckAndMutate { condition: self.condition(), changes: self.changes() },
            _ => self.compare_exchange(),
        }
    }

    /// One that sets a row.
    pub fn set(&mut self) -> Operation {
        Operation::Set { sort_key: self.sort_key(), value: self.value(), lifetime: self.lifetime() }
    }

    /// One that reads.
    pub fn read(&mut self) -> Operation {
        match self.random.random_range(0..100) {
            0..22 => Operation::Get { sort_key: self.sort_key() },
            22..30 => Operation::Exist { sort_key: self.sort_key() },
            30..40 => Operation::Ttl { sort_key: self.sort_key() },
            40..55 => self.multi_get(),
            55..78 => self.multi_get_range(),
            78..84 => Operation::Count,
            _ => Operation::Scan {
                read: self.range_read(),
                rows_per_request: *[1, 2, 3, 7, 100, 1000, 3000].choose(self.random).expect("there are some"),
                snapshot: self.random.random_bool(0.8),
            },
        }
    }

    fn multi_set(&mut self) -> Operation {
        let lifetime = self.lifetime();
        let keys = if self.wide && self.random.random_bool(0.5) {
            self.sort_keys.choose_row(self.random, WRITE_ROWS_MAX as u32)
        } else {
            (0..self.random.random_range(1..8)).map(|_| self.sort_key()).collect()
        };
        if keys.is_empty() {
            return Operation::MultiSet { rows: vec![(self.sort_key(), self.value())], lifetime };
        }
        let few = keys.len() < 8;
        let rows = keys.into_iter().map(|key| (key, if few { self.value() } else { Bytes::from_static(b"wide") }));
        Operation::MultiSet { rows: rows.collect(), lifetime }
    }

    fn changes(&mut self) -> Vec<Change> {
        let count = self.random.random_range(1..6);
        let mut change = || match self.random.random_range(0..10) {
            0..6 => Change::Put { sort_key: self.sort_key(), value: self.value(), lifetime: self.any_lifetime() },
            6..9 => Change::Delete { sort_key: self.sort_key() },
            _ => Change::DeleteRange { range: self.deleted_range() },
        };
        (0..count).map(|_| change()).collect()
    }

    fn check_and_set(&mut self) -> Operation {
        let condition = self.condition();
        let sort_key = if self.random.random_bool(0.5) { condition.sort_key.clone() } else { self.sort_key() };
        Operation::CheckAndSet { condition, sort_key, value: self.value(), lifetime: self.lifetime() }
    }

    fn condition(&mut self) -> Condition {
        let sort_key = self.sort_key();
        let check = *Check::ALL.choose(self.random).expect("there are eighteen");
        let held = self.rows.get(&sort_key).map(|cell| cell.value.clone());
        let operand = match (held, self.random.random_range(0..10)) {
            (Some(held), 0..3) => held,
            // A part of it, for the checks that match.
            (Some(held), 3..6) => {
                let begin = self.random.random_range(0..=held.len());
                let end = self.random.random_range(begin..=held.len());
                held.slice(begin..end)
            }
            (_, 9) => Bytes::new(),
            _ => self.value(),
        };
        Condition { sort_key, check, operand, return_value: self.random.random_bool(0.5) }
    }

    fn compare_exchange(&mut self) -> Operation {
        let sort_key = self.sort_key();
        let held = self.rows.get(&sort_key).map(|cell| cell.value.clone());
        let expected = match self.random.random_range(0..10) {
            0..6 => held,
            6..8 => None,
            _ => Some(self.value()),
        };
        Operation::CompareExchange { sort_key, expected, desired: self.value(), lifetime: self.lifetime() }
    }

    fn multi_get(&mut self) -> Operation {
        let no_value = self.random.random_bool(0.3);
        let sort_keys = if self.wide && self.random.random_bool(0.3) {
            self.sort_keys.choose_row(self.random, READ_ROWS_MAX as u32)
        } else {
            (0..self.random.random_range(1..12)).map(|_| self.sort_key()).collect()
        };
        let sort_keys = if sort_keys.is_empty() { vec![self.sort_key()] } else { sort_keys };
        Operation::MultiGet { sort_keys, no_value }
    }

    fn multi_get_range(&mut self) -> Operation {
        let rows_max = match self.random.random_range(0..10) {
            0..4 => 0,
            4..9 => self.random.random_range(1..10),
            _ => self.random.random_range(1..5000),
        };
        let bytes_max = match self.random.random_range(0..10) {
            0..7 => 0,
            7..9 => self.random.random_range(1..200),
            _ => self.random.random_range(1..100_000),
        };
        Operation::MultiGetRange { read: self.range_read(), rows_max, bytes_max }
    }

    fn range_read(&mut self) -> RangeRead {
        let range = if self.random.random_bool(0.4) { Range::all() } else { self.range() };
        let filter = if self.random.random_bool(0.6) { Filter::default() } else { self.filter() };
        RangeRead { range, filter, reverse: self.random.random_bool(0.3), no_value: self.random.random_bool(0.3) }
    }

    /// A range, at times an empty or a reversed one.
    pub fn range(&mut self) -> Range {
        let (mut start, mut stop) = (self.sort_key(), self.sort_key());
        if start > stop && self.random.random_bool(0.85) {
            (start, stop) = (stop, start);
        }
        match self.random.random_range(0..8) {
            0 => start = Bytes::new(),
            1 => stop = Bytes::new(),
            2 => stop = start.clone(),
            _ => {}
        }
        let (start_inclusive, stop_inclusive) = (self.random.random_bool(0.6), self.random.random_bool(0.4));
        Range { start, start_inclusive, stop, stop_inclusive }
    }

    /// Mostly a small one, so that not everything is gone all the time.
    fn deleted_range(&mut self) -> Range {
        let mut range = self.range();
        if range.stop.is_empty() && self.random.random_bool(0.8) {
            range.stop = range.start.clone();
        }
        range
    }

    /// A filter on sort keys.
    pub fn filter(&mut self) -> Filter {
        let kinds =
            [FilterKind::None, FilterKind::Anywhere, FilterKind::Prefix, FilterKind::Postfix, FilterKind::Exact];
        let kind = *kinds.choose(self.random).expect("there are five");
        let pattern = if self.random.random_bool(0.2) { self.sort_key() } else { pattern(self.random) };
        Filter { kind, pattern }
    }

    fn sort_key(&mut self) -> Bytes {
        if !self.rows.is_empty() && self.random.random_bool(0.35) {
            // Rows that are there; walking to a far one of a wide hash key would take long.
            let place = self.random.random_range(0..self.rows.len().min(64));
            return self.rows.keys().nth(place).expect("the place is below their number").clone();
        }
        self.sort_keys.choose(self.random)
    }

    fn value(&mut self) -> Bytes {
        if self.wide && self.random.random_bool(0.05) { large_value(self.random) } else { value(self.random) }
    }

    fn seconds(&mut self) -> u32 {
        *[1, 2, 3, 4, 6, 10, 100, 100_000, u32::MAX].choose(self.random).expect("there are some")
    }

    fn lifetime(&mut self) -> Lifetime {
        if self.random.random_bool(0.7) { Lifetime::Default } else { Lifetime::Seconds(self.seconds()) }
    }

    fn any_lifetime(&mut self) -> Lifetime {
        match self.random.random_range(0..20) {
            0 => Lifetime::Until(1),
            1 => Lifetime::Until(u32::MAX),
            2..4 => Lifetime::Until(self.now.saturating_add(self.random.random_range(0..8))),
            _ => self.lifetime(),
        }
    }

    /// An operation that breaks a limit or a rule.
    fn invalid(&mut self) -> Operation {
        let long = Bytes::from(vec![b'x'; SORT_KEY_BYTES_MAX + 1]);
        let (sort_key, value, lifetime) = (self.sort_key(), self.value(), Lifetime::Default);
        match self.random.random_range(0..12) {
            0 => Operation::BadHashKey { long: self.random.random_bool(0.5) },
            1 => Operation::Set { sort_key: long, value, lifetime },
            2 => Operation::Set { sort_key, value: vec![b'x'; VALUE_BYTES_MAX + 1].into(), lifetime },
            3 => Operation::MultiSet { rows: vec![], lifetime },
            4 => Operation::MultiSet { rows: vec![(sort_key, value); WRITE_ROWS_MAX + 1], lifetime },
            5 => Operation::MultiDelete { sort_keys: vec![] },
            6 => Operation::MultiDelete { sort_keys: vec![sort_key, long] },
            7 => Operation::Write { changes: vec![] },
            8 => Operation::CheckAndMutate { condition: self.condition(), changes: vec![] },
            9 => Operation::MultiGet { sort_keys: vec![], no_value: false },
            10 => Operation::Get { sort_key: long },
            _ => Operation::Increment { sort_key: long, by: 1, lifetime: LifetimeChange::Keep },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rand::SeedableRng;

    use super::*;
    use crate::model::operation::Answer;
    use crate::model::rows::{Cell, Moment};
    use crate::model::write::{breaks_a_limit, carry_out};

    fn drawn(seed: u64, count: usize, wide: bool) -> Vec<Operation> {
        let mut random = SmallRng::seed_from_u64(seed);
        let sort_keys = SortKeys::draw(&mut random, if wide { 5000 } else { 0 });
        let mut rows = Rows::new();
        let mut operations = Vec::new();
        for _ in 0..count {
            let mut artist = Artist { random: &mut random, sort_keys: &sort_keys, rows: &rows, now: 1000, wide };
            let operation = artist.operation();
            let moment = Moment { now: 1000, asked: 1000, stamp: 1000, default_ttl: 0 };
            if let Some(after) = carry_out(&operation, &rows, moment).and_then(|written| written.rows) {
                rows = after;
            }
            operations.push(operation);
        }
        operations
    }

    #[test]
    fn a_seed_gives_the_same_operations() {
        assert_eq!(drawn(7, 500, false), drawn(7, 500, false));
        assert_ne!(drawn(7, 500, false), drawn(8, 500, false));
    }

    #[test]
    fn every_operation_and_every_check_comes_up() {
        let operations = drawn(1, 20_000, false);
        let kinds: BTreeSet<String> = operations
            .iter()
            .map(|operation| format!("{operation:?}").split([' ', '{']).next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(kinds.len(), 18, "{kinds:?}");
        let mut checks: BTreeMap<u8, u32> = BTreeMap::new();
        for operation in &operations {
            if let Operation::CheckAndSet { condition, .. } | Operation::CheckAndMutate { condition, .. } = operation {
                *checks.entry(condition.check as u8).or_default() += 1;
            }
        }
        assert_eq!(checks.len(), 18, "{checks:?}");
        assert!(checks.values().all(|count| *count > 50), "{checks:?}");
        let bad = operations.iter().filter(|operation| breaks_a_limit(operation)).count();
        assert!((100..800).contains(&bad), "{bad}");
    }

    #[test]
    fn checks_hold_and_fail_and_numbers_are_added() {
        let moment = Moment { now: 1000, asked: 1000, stamp: 1000, default_ttl: 0 };
        let rows = Rows::from([(Bytes::from_static(b"a"), Cell { value: "12".into(), expiry: 0 })]);
        let (mut numbers, mut held, mut failed, mut exchanged, mut refused) = (0, 0, 0, 0, 0);
        for operation in drawn(3, 20_000, false) {
            match carry_out(&operation, &rows, moment).map(|written| written.answer) {
                Some(Answer::Number(_)) => numbers += 1,
                Some(Answer::Checked { written: true, .. }) => held += 1,
                Some(Answer::Checked { written: false, .. }) => failed += 1,
                Some(Answer::Exchanged { done: true, .. }) => exchanged += 1,
                Some(Answer::Refused) => refused += 1,
                _ => {}
            }
        }
        let counts = [numbers, held, failed, exchanged, refused];
        assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
    }

    #[test]
    fn wide_hash_keys_pass_what_one_request_reads() {
        let operations = drawn(5, 400, true);
        let most = operations.iter().filter_map(|operation| match operation {
            Operation::MultiSet { rows, .. } => Some(rows.len()),
            _ => None,
        });
        assert!(most.max().is_some_and(|rows| rows > 500));
    }
}
