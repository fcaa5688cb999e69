//! What survives of a partition's records. Pure.
//!
//! The rule: of several mutations of one decree the one with the highest ballot counts, and a truncation voids the
//! records of the same copy with a lower ballot and a decree at or beyond its own. A mutation says nothing about
//! later decrees: a primary that re-logs its inherited window may crash in the middle of it, and what it had not yet
//! logged again under the new ballot may be committed. The rule does not depend on the order of the records, so
//! records that are logged twice (a restart with another number of cores that crashed on the way) change nothing.
//!
//! ```text
//! ballot 3 |                 T         T: Truncate, M: mutation
//! ballot 2 |           M  M  .  .      . void
//! ballot 1 |  M  M  M  m  m  .  .      m replaced
//!          +--1--2--3--4--5--6--7--> decree
//! ```

use std::collections::BTreeMap;

use pegasus_wire::{Ballot, Decree, ReplicaIncarnation};

use super::record::{LogRecord, RecordKind, RecordView};

/// What recovery found of one copy beyond its flushed decree.
///
/// Invariants: `records` holds mutations only, in strictly rising decree order, each above `flushed`. It may have
/// gaps: whoever replays it decides what a gap means for the copy (a learner's is none).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredPartition {
    /// The copy.
    pub incarnation: ReplicaIncarnation,
    /// The flushed decree the caller named; records at or below it were left out.
    pub flushed: Decree,
    /// The records that are valid, void ones left out.
    pub records: Vec<LogRecord>,
    /// Highest commit point any record carries.
    pub committed: Decree,
    /// Highest ballot any record carries, also of a truncation.
    pub ballot: Ballot,
}

impl RecoveredPartition {
    /// Highest decree up to which nothing is missing above the flushed one.
    pub fn contiguous_through(&self) -> Decree {
        let mut through = self.flushed;
        for record in &self.records {
            if record.decree != through.next() {
                break;
            }
            through = record.decree;
        }
        through
    }

    /// True if there are records beyond a missing one.
    pub fn has_gap(&self) -> bool {
        self.records.last().is_some_and(|last| last.decree > self.contiguous_through())
    }
}

/// Gathers the records of one copy.
#[derive(Debug)]
pub(super) struct HistoryBuilder {
    incarnation: ReplicaIncarnation,
    flushed: Decree,
    /// Highest ballot of the truncations at or below the flushed decree; they reach beyond it.
    floor: Ballot,
    /// The record of the highest ballot at each decree.
    highest: BTreeMap<Decree, LogRecord>,
    /// The highest truncation at each decree.
    truncations: BTreeMap<Decree, Ballot>,
    committed: Decree,
    ballot: Ballot,
}

impl HistoryBuilder {
    pub(super) fn new(incarnation: ReplicaIncarnation, flushed: Decree) -> HistoryBuilder {
        HistoryBuilder {
            incarnation,
            flushed,
            floor: Ballot::default(),
            highest: BTreeMap::new(),
            truncations: BTreeMap::new(),
            committed: Decree::default(),
            ballot: Ballot::default(),
        }
    }

    pub(super) fn push(&mut self, record: RecordView<'_>) {
        self.committed = self.committed.max(record.committed);
        self.ballot = self.ballot.max(record.ballot);
        let flushed = record.decree <= self.flushed;
        match record.kind {
            RecordKind::Truncate if flushed => self.floor = self.floor.max(record.ballot),
            RecordKind::Truncate => {
                let ballot = self.truncations.entry(record.decree).or_default();
                *ballot = record.ballot.max(*ballot);
            }
            RecordKind::Mutation(_) if flushed => {}
            RecordKind::Mutation(_) => self.take_mutation(record),
        }
    }

    fn take_mutation(&mut self, record: RecordView<'_>) {
        let known = self.highest.get(&record.decree);
        if known.is_none_or(|known| known.ballot < record.ballot) {
            self.highest.insert(record.decree, record.to_record());
        }
    }

    /// Applies the rule: walking up the decrees, a mutation survives if no truncation on the way had a higher ballot.
    pub(super) fn finish(self) -> RecoveredPartition {
        let mut voided = self.floor;
        let mut truncations = self.truncations.into_iter().peekable();
        let mut records = Vec::with_capacity(self.highest.len());
        for (decree, record) in self.highest {
            while let Some((_, ballot)) = truncations.next_if(|(at, _)| *at <= decree) {
                voided = voided.max(ballot);
            }
            if record.ballot >= voided {
                records.push(record);
            }
        }
        RecoveredPartition {
            incarnation: self.incarnation,
            flushed: self.flushed,
            records,
            committed: self.committed,
            ballot: self.ballot,
        }
    }
}

/// The view of a record of which only the place in the history matters.
#[cfg(test)]
pub(super) fn place_only(kind: RecordKind, ballot: u64, decree: u64) -> RecordView<'static> {
    RecordView {
        partition: pegasus_wire::PartitionId::new(1, 0),
        incarnation: ReplicaIncarnation(7),
        kind,
        ballot: Ballot(ballot),
        decree: Decree(decree),
        committed: Decree(0),
        timestamp_micros: 0,
        payload: &[],
    }
}

/// A mutation without payload, for what only needs a kind.
#[cfg(test)]
pub(super) const MUTATION: RecordKind = RecordKind::Mutation(pegasus_wire::MutationKind::Empty);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn survivors(flushed: u64, records: &[(RecordKind, u64, u64)]) -> Vec<(u64, u64)> {
        let mut builder = HistoryBuilder::new(ReplicaIncarnation(7), Decree(flushed));
        for (kind, ballot, decree) in records {
            builder.push(place_only(*kind, *ballot, *decree));
        }
        builder.finish().records.iter().map(|record| (record.ballot.0, record.decree.0)).collect()
    }

    #[test]
    fn a_higher_ballot_replaces_its_own_decree_only() {
        let records = [(MUTATION, 1, 1), (MUTATION, 1, 2), (MUTATION, 1, 3), (MUTATION, 2, 2)];
        assert_eq!(survivors(0, &records), [(1, 1), (2, 2), (1, 3)]);
    }

    #[test]
    fn truncation_voids_lower_ballots_only() {
        let records = [(MUTATION, 1, 1), (MUTATION, 1, 2), (RecordKind::Truncate, 2, 2), (MUTATION, 2, 2)];
        assert_eq!(survivors(0, &records), [(1, 1), (2, 2)]);
        assert_eq!(survivors(0, &records[..3]), [(1, 1)]);
        let same_ballot = [(MUTATION, 2, 2), (RecordKind::Truncate, 2, 2)];
        assert_eq!(survivors(0, &same_ballot), [(2, 2)]);
    }

    #[test]
    fn a_flushed_truncation_still_voids_and_a_flushed_mutation_does_not() {
        let records = [(MUTATION, 1, 5), (MUTATION, 1, 6), (RecordKind::Truncate, 2, 4), (MUTATION, 2, 4)];
        assert_eq!(survivors(4, &records), []);
        let relogged = [(MUTATION, 1, 5), (MUTATION, 1, 6), (MUTATION, 2, 4)];
        assert_eq!(survivors(4, &relogged), [(1, 5), (1, 6)]);
    }

    #[test]
    fn gaps_are_seen() {
        let mut builder = HistoryBuilder::new(ReplicaIncarnation(7), Decree(3));
        for decree in [4, 5, 7] {
            builder.push(place_only(MUTATION, 1, decree));
        }
        let recovered = builder.finish();
        assert_eq!((recovered.contiguous_through(), recovered.has_gap()), (Decree(5), true));
    }

    /// The rule as the module states it, record against record.
    fn survivors_by_definition(flushed: u64, records: &[(RecordKind, u64, u64)]) -> Vec<(u64, u64)> {
        let mut survivors: Vec<(u64, u64)> = records
            .iter()
            .filter(|(kind, ballot, decree)| {
                *kind != RecordKind::Truncate
                    && *decree > flushed
                    && !records.iter().any(|(other_kind, other, at)| {
                        other > ballot && if *other_kind == RecordKind::Truncate { at <= decree } else { at == decree }
                    })
            })
            .map(|(_, ballot, decree)| (*ballot, *decree))
            .collect();
        survivors.sort_by_key(|(_, decree)| *decree);
        survivors.dedup();
        survivors
    }

    proptest! {
        #[test]
        fn matches_the_definition_in_any_order(
            flushed in 0_u64..6,
            records in prop::collection::vec((prop::bool::weighted(0.2), 1_u64..5, 1_u64..12), 0..24),
        ) {
            let mut records: Vec<_> = records
                .into_iter()
                .map(|(truncate, ballot, decree)| {
                    (if truncate { RecordKind::Truncate } else { MUTATION }, ballot, decree)
                })
                .collect();
            let expected = survivors_by_definition(flushed, &records);
            prop_assert_eq!(survivors(flushed, &records), expected.clone());
            records.reverse();
            prop_assert_eq!(survivors(flushed, &records), expected);
        }
    }
}
