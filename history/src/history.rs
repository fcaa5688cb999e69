//! The operations of many keys.

use std::collections::BTreeMap;

use crate::operation::Operation;
use crate::witness::Witness;
use crate::{Verdict, check};

/// Recorded operations by key; keys are numbered by whoever records. Every key starts without a row.
#[derive(Clone, Debug, Default)]
pub struct History {
    keys: BTreeMap<u64, Vec<Operation>>,
}

/// What the check of a history found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Keys that have operations.
    pub keys: usize,
    /// Operations of all keys.
    pub operations: usize,
    /// Keys whose operations no order explains, with the reason.
    pub violations: Vec<(u64, Witness)>,
    /// Keys for which the steps did not suffice.
    pub undecided: Vec<u64>,
}

impl Checked {
    /// True if every key is known to be linearizable.
    pub fn is_linearizable(&self) -> bool {
        self.violations.is_empty() && self.undecided.is_empty()
    }
}

impl History {
    /// A history without operations.
    pub fn new() -> History {
        History::default()
    }

    /// Adds an operation; the order of additions does not matter.
    pub fn record(&mut self, key: u64, operation: Operation) {
        self.keys.entry(key).or_default().push(operation);
    }

    /// Adds everything another recorder has.
    pub fn merge(&mut self, other: History) {
        for (key, mut operations) in other.keys {
            self.keys.entry(key).or_default().append(&mut operations);
        }
    }

    /// The operations of each key, in the order they were added.
    pub fn keys(&self) -> impl Iterator<Item = (u64, &[Operation])> {
        self.keys.iter().map(|(key, operations)| (*key, operations.as_slice()))
    }

    /// Checks each key in at most about `steps_max` steps (see [`check`]).
    pub fn check(&self, steps_max: u64) -> Checked {
        let mut checked = Checked { keys: self.keys.len(), ..Checked::default() };
        for (key, operations) in self.keys() {
            checked.operations += operations.len();
            match check(operations, None, steps_max) {
                Verdict::Linearizable => {}
                Verdict::Violation(witness) => checked.violations.push((key, *witness)),
                Verdict::Undecided => checked.undecided.push(key),
            }
        }
        checked
    }
}
