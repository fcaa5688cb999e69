//! What a workload records: latencies and errors by operation.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::measure::Latency;

/// How one operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was done.
    pub operation: &'static str,
    /// `None` if it was done; else the kind of the error.
    pub error: Option<&'static str>,
}

impl Outcome {
    /// An operation that was carried out.
    pub fn done(operation: &'static str) -> Outcome {
        Outcome { operation, error: None }
    }

    /// An operation that failed.
    pub fn failed(operation: &'static str, error: &'static str) -> Outcome {
        Outcome { operation, error: Some(error) }
    }
}

/// The record of one kind of operation.
#[derive(Clone, Default)]
pub struct OperationRecord {
    /// From the intended start to the answer, of operations that were carried out. This is what a user waits.
    pub latency: Latency,
    /// From the actual start to the answer. The same in a closed loop.
    pub service: Latency,
    /// Failed operations by kind.
    pub errors: BTreeMap<&'static str, u64>,
}

impl OperationRecord {
    /// Operations that failed.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// The records of all kinds of operations.
#[derive(Clone, Default)]
pub struct Record {
    /// By the operation's name.
    pub operations: BTreeMap<&'static str, OperationRecord>,
}

impl Record {
    /// Counts one operation.
    pub fn add(&mut self, outcome: Outcome, intended: Instant, started: Instant, ended: Instant) {
        let record = self.operations.entry(outcome.operation).or_default();
        match outcome.error {
            None => {
                record.latency.record(ended.saturating_duration_since(intended));
                record.service.record(ended.saturating_duration_since(started));
            }
            Some(kind) => *record.errors.entry(kind).or_default() += 1,
        }
    }

    /// Counts what another record has as well.
    pub fn merge(&mut self, other: &Record) {
        for (name, theirs) in &other.operations {
            let ours = self.operations.entry(name).or_default();
            ours.latency.merge(&theirs.latency);
            ours.service.merge(&theirs.service);
            for (kind, count) in &theirs.errors {
                *ours.errors.entry(kind).or_default() += count;
            }
        }
    }

    /// Operations carried out.
    pub fn done_count(&self) -> u64 {
        self.operations.values().map(|record| record.latency.count()).sum()
    }

    /// Operations that failed.
    pub fn error_count(&self) -> u64 {
        self.operations.values().map(OperationRecord::error_count).sum()
    }

    /// All operations that were carried out, as one histogram.
    pub fn latency(&self) -> Latency {
        let mut latency = Latency::new();
        for record in self.operations.values() {
            latency.merge(&record.latency);
        }
        latency
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn latency_counts_from_the_intended_start_and_errors_count_apart() {
        let intended = Instant::now();
        let started = intended + Duration::from_millis(30);
        let ended = started + Duration::from_millis(10);
        let mut record = Record::default();
        record.add(Outcome::done("get"), intended, started, ended);
        record.add(Outcome::failed("set", "timeout"), intended, started, ended);
        record.add(Outcome::failed("set", "timeout"), intended, started, ended);
        let get = &record.operations["get"];
        assert!((39_900.0..40_100.0).contains(&get.latency.summary().p50_us));
        assert!((9_900.0..10_100.0).contains(&get.service.summary().p50_us));
        assert_eq!((record.done_count(), record.error_count()), (1, 2));
        assert_eq!(record.operations["set"].errors["timeout"], 2);
        assert_eq!(record.latency().count(), 1);
        let mut both = record.clone();
        both.merge(&record);
        assert_eq!((both.done_count(), both.error_count()), (2, 4));
    }
}
