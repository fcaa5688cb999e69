//! What workers count, and what they share.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::model::operation::{Answer, Operation, Outcome};
use crate::proof::Bench;

/// What was asked and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// All operations.
    pub operations: u64,
    /// Answered.
    pub answered: u64,
    /// Answered, as something that cannot be done.
    pub refused: u64,
    /// Without any effect.
    pub failed: u64,
    /// Writes of which nobody knows.
    pub unknown: u64,
    /// Scans of the whole table, which are operations too.
    pub scans: u64,
    /// Hash keys that were left for new ones.
    pub keys_left: u64,
    /// Those of them with more possibilities than could be followed.
    pub given_up: u64,
    /// Operations by name.
    pub by_name: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Counts an operation.
    pub fn count(&mut self, operation: &Operation, outcome: &Outcome) {
        self.operations += 1;
        *self.by_name.entry(operation.name()).or_default() += 1;
        match outcome {
            Outcome::Answered(answer) => {
                self.answered += 1;
                self.refused += u64::from(*answer == Answer::Refused);
            }
            Outcome::Nothing => self.failed += 1,
            Outcome::Unknown => self.unknown += 1,
        }
    }

    /// Counts a scan of the whole table.
    pub fn count_scan(&mut self, name: &'static str, answered: bool) {
        self.operations += 1;
        self.scans += 1;
        *self.by_name.entry(name).or_default() += 1;
        *if answered { &mut self.answered } else { &mut self.failed } += 1;
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Tally) {
        self.operations += other.operations;
        self.answered += other.answered;
        self.refused += other.refused;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.scans += other.scans;
        self.keys_left += other.keys_left;
        self.given_up += other.given_up;
        for (name, count) in &other.by_name {
            *self.by_name.entry(name).or_default() += count;
        }
    }
}

/// What all workers share: the end, and what is wrong.
#[derive(Debug)]
pub struct Shared {
    bench: Bench,
    problems: Mutex<Vec<String>>,
}

impl Shared {
    /// Nothing is wrong yet.
    pub fn new(bench: Bench) -> Shared {
        Shared { bench, problems: Mutex::default() }
    }

    /// True once everybody is to end.
    pub fn is_over(&self) -> bool {
        self.bench.is_over()
    }

    /// Something is wrong: everybody ends, since what follows from a difference is one, too.
    pub fn report(&self, problem: String) {
        self.bench.end();
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() < PROBLEMS_MAX {
            problems.push(problem);
        }
    }

    /// What is wrong.
    pub fn take_problems(&self) -> Vec<String> {
        std::mem::take(&mut self.problems.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Differences that are kept; the first one counts.
const PROBLEMS_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_and_added() {
        let mut tally = Tally::default();
        tally.count(&Operation::Count, &Outcome::Answered(Answer::Count(1)));
        tally.count(&Operation::Count, &Outcome::Answered(Answer::Refused));
        tally.count(&Operation::Count, &Outcome::Nothing);
        tally.count(&Operation::BadHashKey { long: true }, &Outcome::Unknown);
        tally.count_scan("full_scan", true);
        let mut twice = tally.clone();
        twice.add(&tally);
        assert_eq!((tally.operations, tally.answered, tally.refused), (5, 3, 1));
        assert_eq!((tally.failed, tally.unknown, tally.scans), (1, 1, 1));
        assert_eq!((twice.operations, twice.by_name["sortkey_count"], twice.by_name["full_scan"]), (10, 6, 2));
    }
}
