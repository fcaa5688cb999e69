//! Where each partition's records are: one entry per (partition, log write). Pure, in memory.
//!
//! Invariants, per partition:
//! - entries are in log order, and so in rising, disjoint decree ranges: a record of a higher ballot cuts off what
//!   earlier entries hold at or beyond its decree;
//! - what an entry names was written (its write completed), so it can be read;
//! - all entries are of one incarnation: a record of another one drops what is known of those before.

use std::collections::{HashMap, VecDeque};

use pegasus_wire::{Ballot, Decree, PartitionId, ReplicaIncarnation};

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
    /// It is the first of another copy of the partition: nothing that was known of the partition holds for it.
    pub(super) replaces: bool,
}

#[derive(Debug)]
struct PartitionEntries {
    incarnation: ReplicaIncarnation,
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
        (partition, incarnation): (PartitionId, ReplicaIncarnation),
        kind: RecordKind,
        ballot: Ballot,
        decree: Decree,
    ) -> Indexed {
        let known = self.partitions.entry(partition).or_insert_with(|| PartitionEntries::new(incarnation));
        let replaces = known.incarnation != incarnation;
        if replaces {
            *known = PartitionEntries::new(incarnation);
        }
        let raised = ballot > known.ballot;
        known.ballot = known.ballot.max(ballot);
        let truncates = kind == RecordKind::Truncate;
        if raised && decree <= known.last {
            // What is logged again under a higher ballot is read where it was logged last. Only a truncation makes
            // the records void: what a mutation of a higher ballot has not replaced yet is still needed.
            let void_from = truncates.then_some(decree);
            known.cut(decree);
            if truncates {
                return Indexed { void_from, kept: false, replaces };
            }
        }
        // A repeated record is readable where it was logged first, and needed in both places.
        if !truncates && decree > known.last {
            known.extend(place, decree);
        }
        Indexed { void_from: None, kept: !truncates, replaces }
    }

    /// What to read at once for a partition: the entry that holds `from` and those that follow it on the disk, as long
    /// as they are near each other and not more than about `bytes_max`. Nothing if `from` is not in the log.
    pub(super) fn span(&self, partition: PartitionId, from: Decree, through: Decree, bytes_max: usize) -> Option<Span> {
        let known = self.partitions.get(&partition)?;
        let begin = known.entries.partition_point(|entry| entry.last < from);
        let mut following = known.entries.range(begin..);
        let first = following.next().filter(|entry| entry.first <= from)?;
        let mut span = Span { incarnation: known.incarnation, entries: vec![*first] };
        let mut bytes = u64::from(first.place.bytes);
        for entry in following {
            let last = span.last();
            let near = entry.place.segment == last.place.segment
                && entry.place.offset - last.place.end() <= SPAN_GAP_BYTES
                && entry.place.end() - first.place.offset <= SPAN_BYTES_MAX;
            if !near || entry.first != last.last.next() || entry.first > through || bytes >= bytes_max as u64 {
                break;
            }
            bytes += u64::from(entry.place.bytes);
            span.entries.push(*entry);
        }
        Some(span)
    }

    /// The first log write that holds a decree of the partition, or `None` if it is not in the log.
    pub(super) fn place_of(&self, partition: PartitionId, decree: Decree) -> Option<WritePlace> {
        self.span(partition, decree, decree, 0).map(|span| span.entries[0].place)
    }

    /// The lowest decree above `decree` that is in the log.
    pub(super) fn first_above(&self, partition: PartitionId, decree: Decree) -> Option<Decree> {
        let known = self.partitions.get(&partition)?;
        let begin = known.entries.partition_point(|entry| entry.last <= decree);
        known.entries.get(begin).map(|entry| entry.first.max(decree.next()))
    }

    /// The last decree of the partition that was logged and is not void; zero if nothing is known of it.
    pub(super) fn last(&self, partition: PartitionId) -> Decree {
        self.partitions.get(&partition).map_or(Decree::default(), |known| known.last)
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

impl WritePlace {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.bytes)
    }
}

/// Log writes to read at once: in one segment, in order, near each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Of the records; those of another one are of an earlier copy.
    pub(super) incarnation: ReplicaIncarnation,
    /// At least one.
    pub(super) entries: Vec<IndexEntry>,
}

impl Span {
    /// Segment, offset and length of the read.
    pub(super) fn place(&self) -> (u32, u64, usize) {
        let first = self.entries[0].place;
        (first.segment, first.offset, (self.last().place.end() - first.offset) as usize)
    }

    fn last(&self) -> &IndexEntry {
        &self.entries[self.entries.len() - 1]
    }
}

impl PartitionEntries {
    fn new(incarnation: ReplicaIncarnation) -> PartitionEntries {
        PartitionEntries { incarnation, ballot: Ballot::default(), last: Decree::default(), entries: VecDeque::new() }
    }

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

/// Reading over a gap of this size takes about as long as another read.
const SPAN_GAP_BYTES: u64 = 64 * 1024;
/// Bounds what one read decodes before its executor goes on; a single larger write is read all the same.
const SPAN_BYTES_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::history::MUTATION;

    const PARTITION: PartitionId = PartitionId { table: pegasus_wire::TableId(1), index: 0 };

    fn place(sequence: u64) -> WritePlace {
        WritePlace { segment: sequence as u32 / 10, offset: sequence * 4096, bytes: 4096, sequence }
    }

    const KEPT: Indexed = Indexed { void_from: None, kept: true, replaces: false };

    fn add(index: &mut Index, sequence: u64, kind: RecordKind, ballot: u64, decree: u64) -> Indexed {
        index.add(place(sequence), (PARTITION, ReplicaIncarnation(7)), kind, Ballot(ballot), Decree(decree))
    }

    fn ranges(index: &Index) -> Vec<(u64, u64, u64)> {
        let all = &index.partitions[&PARTITION].entries;
        all.iter().map(|entry| (entry.place.sequence, entry.first.0, entry.last.0)).collect()
    }

    #[test]
    fn one_entry_per_write() {
        let mut index = Index::default();
        for (sequence, decree) in [(1, 1), (1, 2), (2, 3), (3, 4), (3, 5)] {
            assert_eq!(add(&mut index, sequence, MUTATION, 1, decree), KEPT);
        }
        assert_eq!(ranges(&index), [(1, 1, 2), (2, 3, 3), (3, 4, 5)]);
        assert_eq!(index.place_of(PARTITION, Decree(2)), Some(place(1)));
        assert_eq!(index.place_of(PARTITION, Decree(6)), None);
    }

    #[test]
    fn higher_ballot_cuts_entries() {
        let mut index = Index::default();
        for decree in 1..=6 {
            add(&mut index, 1 + decree / 3, MUTATION, 1, decree);
        }
        assert_eq!(ranges(&index), [(1, 1, 2), (2, 3, 5), (3, 6, 6)]);
        let truncated = add(&mut index, 4, RecordKind::Truncate, 2, 5);
        assert_eq!(truncated, Indexed { void_from: Some(Decree(5)), kept: false, replaces: false });
        assert_eq!(ranges(&index), [(1, 1, 2), (2, 3, 4)]);
        assert_eq!(add(&mut index, 5, MUTATION, 3, 4), KEPT);
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
        assert_eq!(add(&mut index, 2, MUTATION, 2, 2), KEPT);
        assert_eq!(ranges(&index), [(1, 1, 3)]);
        // The rest of a window that was re-logged in part only.
        assert_eq!(add(&mut index, 3, MUTATION, 1, 4), KEPT);
        assert_eq!(ranges(&index), [(1, 1, 3), (3, 4, 4)]);
    }

    fn span_of(index: &Index, from: u64, through: u64, bytes_max: usize) -> Option<(Vec<u64>, (u32, u64, usize))> {
        let span = index.span(PARTITION, Decree(from), Decree(through), bytes_max)?;
        Some((span.entries.iter().map(|entry| entry.place.sequence).collect(), span.place()))
    }

    #[test]
    fn what_is_near_is_read_at_once() {
        let mut index = Index::default();
        // Sequences below 10 are in one segment; another partition's writes are between 3 and 6; 20 is far from 21.
        for (sequence, decree) in [(1, 1), (2, 2), (3, 3), (6, 4), (7, 5), (11, 6)] {
            add(&mut index, sequence, MUTATION, 1, decree);
        }
        let begin = place(1).offset;
        assert_eq!(span_of(&index, 1, 99, 1 << 20), Some((vec![1, 2, 3, 6, 7], (0, begin, 7 * 4096))));
        assert_eq!(span_of(&index, 2, 4, 1 << 20), Some((vec![2, 3, 6], (0, place(2).offset, 5 * 4096))));
        assert_eq!(span_of(&index, 1, 99, 5000), Some((vec![1, 2], (0, begin, 2 * 4096))));
        assert_eq!(span_of(&index, 1, 99, 0), Some((vec![1], (0, begin, 4096))));
        assert_eq!(span_of(&index, 6, 99, 1 << 20), Some((vec![11], (1, place(11).offset, 4096))));
        assert_eq!(span_of(&index, 7, 99, 1 << 20), None);
        let far = WritePlace { offset: place(11).offset + SPAN_GAP_BYTES + 8192, sequence: 12, ..place(11) };
        index.add(far, (PARTITION, ReplicaIncarnation(7)), MUTATION, Ballot(1), Decree(7));
        assert_eq!(span_of(&index, 6, 99, 1 << 20), Some((vec![11], (1, place(11).offset, 4096))));
        index.remove_oldest(PARTITION, 0);
        assert_eq!((span_of(&index, 5, 99, 1 << 20), index.first_above(PARTITION, Decree(5))), (None, Some(Decree(6))));
        assert_eq!(index.first_above(PARTITION, Decree(7)), None);
        assert_eq!(index.place_of(PARTITION, Decree(7)), Some(far));
        assert_eq!(index.last(PARTITION), Decree(7));
    }

    #[test]
    fn another_incarnation_begins_anew() {
        let mut index = Index::default();
        for decree in 1..=5 {
            add(&mut index, 1, MUTATION, 4, decree);
        }
        let mut add_other = |sequence, decree| {
            index.add(place(sequence), (PARTITION, ReplicaIncarnation(8)), MUTATION, Ballot(3), Decree(decree))
        };
        assert_eq!(add_other(2, 3), Indexed { replaces: true, ..KEPT });
        assert_eq!(add_other(2, 4), KEPT);
        assert_eq!(ranges(&index), [(2, 3, 4)]);
        assert_eq!(index.span(PARTITION, Decree(3), Decree(9), 9).unwrap().incarnation, ReplicaIncarnation(8));
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
