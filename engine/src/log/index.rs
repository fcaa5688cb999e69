//! Where each partition's records are: one entry per (partition, log write). Pure, in memory.
//!
//! Invariants, per partition:
//! - entries are in log order, and so in rising, disjoint decree ranges: a record of a higher ballot cuts off what
//!   earlier entries hold at or beyond its decree;
//! - what an entry names was written (its write completed), so it can be read.

use std::collections::{HashMap, VecDeque};

use pegasus_wire::{Ballot, Decree, PartitionId};

use super::record::RecordKind;

/// Where a log write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WritePlace {
    pub(super) segment: u32,
    pub(super) offset: u64,
    pub(super) bytes: u32,
    pub(super) sequence: u64,
}

/// Records of one partition in one log write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexEntry {
    pub(super) place: WritePlace,
    pub(super) first: Decree,
    pub(super) last: Decree,
}

/// What a record meant for what is already indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Indexed {
    /// Records of the partition at or beyond this decree are void, wherever they are.
    pub(super) void_from: Option<Decree>,
    /// The record itself is needed until its decree is flushed.
    pub(super) kept: bool,
}

#[derive(Debug, Default)]
struct PartitionEntries {
    ballot: Ballot,
    last: Decree,
    entries: VecDeque<IndexEntry>,
}

/// The index of one log.
#[derive(Debug, Default)]
pub(super) struct Index {
    partitions: HashMap<PartitionId, PartitionEntries>,
}

impl Index {
    /// Enters a record of the write at `place`. Records are entered in log order.
    pub(super) fn add(
        &mut self,
        place: WritePlace,
        partition: PartitionId,
        kind: RecordKind,
        ballot: Ballot,
        decree: Decree,
    ) -> Indexed {
        let known = self.partitions.entry(partition).or_default();
        let raised = ballot > known.ballot;
        known.ballot = known.ballot.max(ballot);
        let truncates = kind == RecordKind::Truncate;
        if raised && decree <= known.last {
            // What is logged again under a higher ballot is read where it was logged last. Only a truncation makes
            // the records void: what a mutation of a higher ballot has not replaced yet is still needed.
            let void_from = truncates.then_some(decree);
            known.cut(decree);
            if truncates {
                return Indexed { void_from, kept: false };
            }
        }
        // A repeated record is readable where it was logged first, and needed in both places.
        if !truncates && decree > known.last {
            known.extend(place, decree);
        }
        Indexed { void_from: None, kept: !truncates }
    }

    /// The entries that hold decrees from `from` through `through`, in decree order.
    pub(super) fn find(&self, partition: PartitionId, from: Decree, through: Decree) -> Vec<IndexEntry> {
        let Some(known) = self.partitions.get(&partition) else { return Vec::new() };
        let begin = known.entries.partition_point(|entry| entry.last < from);
        known.entries.range(begin..).take_while(|entry| entry.first <= through).copied().collect()
    }

    /// Drops the entries of a partition in the oldest segment.
    pub(super) fn remove_oldest(&mut self, partition: PartitionId, segment: u32) {
        if let Some(known) = self.partitions.get_mut(&partition) {
            while known.entries.front().is_some_and(|entry| entry.place.segment == segment) {
                known.entries.pop_front();
            }
        }
    }

    /// Drops all entries of a partition.
    pub(super) fn forget(&mut self, partition: PartitionId) {
        self.partitions.remove(&partition);
    }

    /// Number of entries, over all partitions.
    pub(super) fn len(&self) -> usize {
        self.partitions.values().map(|known| known.entries.len()).sum()
    }
}

impl PartitionEntries {
    fn cut(&mut self, from: Decree) {
        while let Some(entry) = self.entries.back_mut().filter(|entry| entry.last >= from) {
            if entry.first < from {
                entry.last = from.previous();
            } else {
                self.entries.pop_back();
            }
        }
        self.last = self.last.min(from.previous());
    }

    fn extend(&mut self, place: WritePlace, decree: Decree) {
        match self.entries.back_mut() {
            Some(entry) if entry.place == place => entry.last = decree,
            _ => self.entries.push_back(IndexEntry { place, first: decree, last: decree }),
        }
        self.last = decree;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::history::MUTATION;

    const PARTITION: PartitionId = PartitionId { table: pegasus_wire::TableId(1), index: 0 };

    fn place(sequence: u64) -> WritePlace {
        WritePlace { segment: sequence as u32 / 10, offset: sequence * 4096, bytes: 4096, sequence }
    }

    fn add(index: &mut Index, sequence: u64, kind: RecordKind, ballot: u64, decree: u64) -> Indexed {
        index.add(place(sequence), PARTITION, kind, Ballot(ballot), Decree(decree))
    }

    fn ranges(index: &Index) -> Vec<(u64, u64, u64)> {
        let all = index.find(PARTITION, Decree(1), Decree(u64::MAX));
        all.iter().map(|entry| (entry.place.sequence, entry.first.0, entry.last.0)).collect()
    }

    #[test]
    fn one_entry_per_write() {
        let mut index = Index::default();
        for (sequence, decree) in [(1, 1), (1, 2), (2, 3), (3, 4), (3, 5)] {
            assert_eq!(add(&mut index, sequence, MUTATION, 1, decree), Indexed { void_from: None, kept: true });
        }
        assert_eq!(ranges(&index), [(1, 1, 2), (2, 3, 3), (3, 4, 5)]);
        assert_eq!(index.find(PARTITION, Decree(2), Decree(3)).len(), 2);
        assert_eq!(index.find(PARTITION, Decree(6), Decree(9)), []);
    }

    #[test]
    fn higher_ballot_cuts_entries() {
        let mut index = Index::default();
        for decree in 1..=6 {
            add(&mut index, 1 + decree / 3, MUTATION, 1, decree);
        }
        assert_eq!(ranges(&index), [(1, 1, 2), (2, 3, 5), (3, 6, 6)]);
        let truncated = add(&mut index, 4, RecordKind::Truncate, 2, 5);
        assert_eq!(truncated, Indexed { void_from: Some(Decree(5)), kept: false });
        assert_eq!(ranges(&index), [(1, 1, 2), (2, 3, 4)]);
        assert_eq!(add(&mut index, 5, MUTATION, 3, 4), Indexed { void_from: None, kept: true });
        assert_eq!(ranges(&index), [(1, 1, 2), (2, 3, 3), (5, 4, 4)]);
    }

    #[test]
    fn voiding_inside_one_write() {
        let mut index = Index::default();
        for (ballot, decree) in [(1, 10), (1, 11), (2, 10)] {
            add(&mut index, 1, MUTATION, ballot, decree);
        }
        assert_eq!(ranges(&index), [(1, 10, 10)]);
    }

    #[test]
    fn repeated_records_are_kept_and_read_where_they_were_logged_first() {
        let mut index = Index::default();
        for decree in 1..=3 {
            add(&mut index, 1, MUTATION, 2, decree);
        }
        let kept = Indexed { void_from: None, kept: true };
        assert_eq!(add(&mut index, 2, MUTATION, 2, 2), kept);
        assert_eq!(ranges(&index), [(1, 1, 3)]);
        // The rest of a window that was re-logged in part only.
        assert_eq!(add(&mut index, 3, MUTATION, 1, 4), kept);
        assert_eq!(ranges(&index), [(1, 1, 3), (3, 4, 4)]);
    }

    #[test]
    fn oldest_segment_goes_first() {
        let mut index = Index::default();
        for decree in 1..=30 {
            add(&mut index, decree, MUTATION, 1, decree);
        }
        index.remove_oldest(PARTITION, 0);
        assert_eq!(ranges(&index).first(), Some(&(10, 10, 10)));
        index.forget(PARTITION);
        assert_eq!(index.len(), 0);
    }
}
