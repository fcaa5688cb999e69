//! Which segment is what: the budget, garbage collection and what stands in its way. Pure, in memory.
//!
//! ```text
//!   blank --zeroed, synced--> free --next write does not fit the present one--> live (written, then full)
//!                               ^                                                        |
//!                               |      a write that says so is synced                    | oldest, and nothing
//!                               +----------------------- waiting <-----------------------+ in it is needed
//! ```
//!
//! Invariants:
//! - live segments are in log order, and only the oldest is ever given up: so a record that voids others outlives
//!   them, and what is left is always the end of one unbroken chain;
//! - a waiting segment is not written again before a header that names a later head is synced: otherwise recovery
//!   would miss writes that it still expects, and call that damage;
//! - a record is taken only if it fits without the last free segment: that one is the reserve for a restart and
//!   for the write that moves the head;
//! - what learners alone keep (`pins`) is at most half of what there is to write to, and nothing once only the
//!   reserve is left: beyond it their pins are broken.
//!
//! This file is long: a third of it is tests.

use std::collections::{HashMap, VecDeque};

use pegasus_wire::{Decree, PartitionId};

use super::format::{BLOCK_BYTES, HEADER_BYTES_MAX, PARTITIONS_PER_WRITE_MAX, SEGMENT_DATA_OFFSET};
use super::pins::Pins;

/// A segment that holds records.
#[derive(Clone, Debug)]
pub(super) struct LiveSegment {
    pub(super) number: u32,
    pub(super) bytes: u64,
    pub(super) first_sequence: u64,
    /// Where the next write would go.
    pub(super) end: u64,
    /// Per partition the highest decree that must be flushed before the segment can go.
    pub(super) unflushed: HashMap<PartitionId, Decree>,
}

/// A prepared segment without records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FreeSegment {
    pub(super) number: u32,
    pub(super) bytes: u64,
}

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) segment: u32,
    pub(super) offset: u64,
}

/// The segments of one log.
#[derive(Debug)]
pub(super) struct Space {
    segment_bytes: u64,
    budget_bytes: u64,
    write_bytes_max: u64,
    live: VecDeque<LiveSegment>,
    /// True if the youngest live segment is the one being written.
    writing: bool,
    waiting: VecDeque<(FreeSegment, u64)>,
    free: VecDeque<FreeSegment>,
    blank: VecDeque<u32>,
    /// Blank segments will not be prepared any more.
    stuck: bool,
    flushed: HashMap<PartitionId, Decree>,
    /// What learners still have to read.
    pub(super) pins: Pins,
}

impl Space {
    pub(super) fn new(
        segment_bytes: u64,
        budget_bytes: u64,
        write_bytes_max: usize,
        live: VecDeque<LiveSegment>,
        flushed: HashMap<PartitionId, Decree>,
    ) -> Space {
        let (waiting, free, blank) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let write_bytes_max = write_bytes_max as u64;
        let (writing, stuck, pins) = (false, false, Pins::default());
        Space {
            segment_bytes,
            budget_bytes,
            write_bytes_max,
            live,
            writing,
            waiting,
            free,
            blank,
            stuck,
            flushed,
            pins,
        }
    }

    /// True if `record_bytes` of pending records, `records` of them, are sure to find room.
    pub(super) fn admits(&self, record_bytes: usize, records: usize) -> bool {
        let writes = 1 + 2 * record_bytes as u64 / self.write_bytes_max + (records / PARTITIONS_PER_WRITE_MAX) as u64;
        let needed = record_bytes as u64 + writes * (HEADER_BYTES_MAX + BLOCK_BYTES) as u64;
        let present = self.current().map_or(0, |segment| segment.bytes - segment.end);
        let free = self.free.iter().skip(1).map(|segment| segment.bytes - SEGMENT_DATA_OFFSET);
        // At the end of each segment as much as one write is lost. Asked for every append: as a rule the first
        // segments are enough.
        let usable = [present].into_iter().chain(free).map(|bytes| bytes.saturating_sub(self.write_bytes_max));
        let mut missing = needed;
        for bytes in usable {
            missing = missing.saturating_sub(bytes);
            if missing == 0 {
                return true;
            }
        }
        false
    }

    /// The segment the present writes go to and that a write of this size no longer fits.
    pub(super) fn left_by(&self, write_bytes: usize) -> Option<u32> {
        self.current().filter(|segment| segment.bytes - segment.end < write_bytes as u64).map(|segment| segment.number)
    }

    /// Takes room for a write; `None` if there is none, which [`Space::admits`] excludes.
    pub(super) fn place(&mut self, write_bytes: usize, sequence: u64) -> Option<Placement> {
        if self.current().is_none() || self.left_by(write_bytes).is_some() {
            let FreeSegment { number, bytes } = self.free.pop_front()?;
            let end = SEGMENT_DATA_OFFSET;
            let unflushed = HashMap::new();
            self.live.push_back(LiveSegment { number, bytes, first_sequence: sequence, end, unflushed });
            self.writing = true;
        }
        let segment = self.live.back_mut()?;
        let placement = Placement { segment: segment.number, offset: segment.end };
        segment.end += write_bytes as u64;
        Some(placement)
    }

    /// A record was logged in a segment and is needed until flushed.
    pub(super) fn keep(&mut self, segment: u32, partition: PartitionId, decree: Decree) {
        if let Some(segment) = self.live.iter_mut().rev().find(|live| live.number == segment) {
            let last = segment.unflushed.entry(partition).or_default();
            *last = decree.max(*last);
        }
    }

    /// Records of the partition from this decree on are void: they need not be kept.
    pub(super) fn let_go_from(&mut self, partition: PartitionId, void_from: Decree) {
        for segment in &mut self.live {
            if let Some(last) = segment.unflushed.get_mut(&partition) {
                *last = void_from.previous().min(*last);
            }
        }
    }

    /// The partition's rows up to the decree are on stable storage elsewhere.
    pub(super) fn set_flushed(&mut self, partition: PartitionId, decree: Decree) {
        let flushed = self.flushed.entry(partition).or_default();
        *flushed = decree.max(*flushed);
    }

    /// How far the partition was last said to be flushed.
    pub(super) fn flushed(&self, partition: PartitionId) -> Decree {
        self.flushed.get(&partition).copied().unwrap_or_default()
    }

    /// Nothing of the partition is needed any more.
    pub(super) fn forget(&mut self, partition: PartitionId) {
        self.flushed.remove(&partition);
        self.pins.break_of(partition);
        for segment in &mut self.live {
            segment.unflushed.remove(&partition);
        }
    }

    /// Gives up the oldest segment if nothing in it is needed; it waits for the sync of a write with at least
    /// sequence `next_sequence`. Call again until `None`.
    pub(super) fn release_oldest(&mut self, next_sequence: u64) -> Option<LiveSegment> {
        let (pinned_segments, pinned_bytes) = self.flushed_prefix();
        if pinned_segments == 0 {
            return None;
        }
        let behind = self.live.get(1).map_or(next_sequence, |second| second.first_sequence);
        if self.pins.floor().is_some_and(|floor| floor < behind) {
            if pinned_bytes <= self.limit_bytes() / 2 && !self.is_short() {
                return None;
            }
            self.pins.break_below(behind);
        }
        let segment = self.live.pop_front()?;
        // A segment of another size is left behind by a change of options; the next start removes it.
        if segment.bytes == self.segment_bytes {
            let free = FreeSegment { number: segment.number, bytes: segment.bytes };
            self.waiting.push_back((free, next_sequence));
        }
        Some(segment)
    }

    /// Everything up to this sequence is synced.
    pub(super) fn synced(&mut self, sequence: u64) {
        while let Some((segment, _)) = self.waiting.front().copied().filter(|(_, needed)| *needed <= sequence) {
            self.waiting.pop_front();
            self.free.push_back(segment);
        }
    }

    /// True if a synced write would free a segment.
    pub(super) fn waits_for_sync(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// True if segments are so few that it is worth a write of its own to free one.
    pub(super) fn wants_head_write(&self) -> bool {
        !self.waiting.is_empty() && self.free.len() <= 1
    }

    /// Lowest sequence that belongs to the log, if any write does.
    pub(super) fn head(&self) -> Option<u64> {
        self.live.front().map(|segment| segment.first_sequence)
    }

    /// The segment the last write went to.
    pub(super) fn current(&self) -> Option<&LiveSegment> {
        self.live.back().filter(|_| self.writing)
    }

    /// Partitions to flush, those that hold the oldest segments first; none below three quarters of what there is to
    /// write to: the budget, or less if no more segments can be prepared.
    pub(super) fn pressure(&self) -> Vec<PartitionId> {
        let limit = self.limit_bytes();
        // Early enough for a log of few segments, one of which is the reserve.
        let early = self.live.back().map_or(0, |segment| 2 * segment.bytes);
        let threshold = (limit / 4 * 3).min(limit.saturating_sub(early));
        let mut excess = self.used_bytes().saturating_sub(threshold);
        let mut partitions = Vec::new();
        // No flush frees what only learners keep. But every flush behind it adds to it, until their pins break.
        let pinned_segments = self.pins.floor().map_or(0, |_| self.flushed_prefix().0);
        for segment in self.live.iter().skip(pinned_segments) {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(segment.bytes);
            let mut unflushed: Vec<PartitionId> = self.unflushed(segment).collect();
            unflushed.sort_unstable();
            unflushed.retain(|partition| !partitions.contains(partition));
            partitions.extend(unflushed);
        }
        partitions
    }

    /// Number and bytes of the oldest segments that only learners need: what is not collected because of their pins.
    pub(super) fn flushed_prefix(&self) -> (usize, u64) {
        let full = self.live.len() - usize::from(self.writing);
        let prefix = self.live.iter().take(full).take_while(|segment| self.unflushed(segment).next().is_none());
        prefix.fold((0, 0), |(segments, bytes), segment| (segments + 1, bytes + segment.bytes))
    }

    /// True if only the reserve is left, and no more is on its way.
    fn is_short(&self) -> bool {
        self.free.len() <= 1 && self.waiting.is_empty() && (self.stuck || self.blank.is_empty())
    }

    /// What there is to write to: the budget, or less if no more segments can be prepared.
    fn limit_bytes(&self) -> u64 {
        let free: u64 = self.free.iter().map(|segment| segment.bytes).sum();
        if self.stuck { self.budget_bytes.min(self.used_bytes() + free) } else { self.budget_bytes }
    }

    fn unflushed<'a>(&'a self, segment: &'a LiveSegment) -> impl Iterator<Item = PartitionId> + 'a {
        let needed = |(partition, last): &(&PartitionId, &Decree)| **last > self.flushed(**partition);
        segment.unflushed.iter().filter(needed).map(|(partition, _)| *partition)
    }

    /// A file that has to be zeroed before it can be used.
    pub(super) fn add_blank(&mut self, number: u32) {
        self.blank.push_back(number);
    }

    /// Takes the next file to zero.
    pub(super) fn take_blank(&mut self) -> Option<u32> {
        self.blank.pop_front()
    }

    /// No blank segment can be prepared until the next start.
    pub(super) fn give_up_blanks(&mut self) {
        self.stuck = true;
    }

    /// A segment is ready to be written.
    pub(super) fn add_free(&mut self, segment: FreeSegment) {
        self.free.push_back(segment);
    }

    pub(super) fn live_count(&self) -> usize {
        self.live.len()
    }

    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn free_count(&self) -> usize {
        self.free.len()
    }

    pub(super) fn blank_count(&self) -> usize {
        self.blank.len()
    }

    /// Bytes of the segments that cannot be written again yet.
    pub(super) fn used_bytes(&self) -> u64 {
        let waiting = self.waiting.iter().map(|(segment, _)| segment.bytes);
        self.live.iter().map(|segment| segment.bytes).chain(waiting).sum()
    }

    pub(super) fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 256 * 1024;
    const WRITE: usize = 64 * 1024;

    fn partition(index: u32) -> PartitionId {
        PartitionId::new(1, index)
    }

    fn space(free: u32) -> Space {
        let mut space = Space::new(SEGMENT, 8 * SEGMENT, WRITE, VecDeque::new(), HashMap::new());
        for number in 0..free {
            space.add_free(FreeSegment { number, bytes: SEGMENT });
        }
        space
    }

    /// Fills segments with one write each, each with a record of a partition of its own.
    fn fill(space: &mut Space, segments: u32) {
        for index in 0..segments {
            let placement = space.place(SEGMENT as usize - BLOCK_BYTES, u64::from(index) + 1).unwrap();
            assert_eq!(placement, Placement { segment: index, offset: SEGMENT_DATA_OFFSET });
            space.keep(placement.segment, partition(index), Decree(5));
        }
    }

    #[test]
    fn only_the_oldest_goes_and_only_when_flushed() {
        let mut space = space(8);
        fill(&mut space, 3);
        space.set_flushed(partition(1), Decree(5));
        assert!(space.release_oldest(4).is_none());
        space.set_flushed(partition(0), Decree(4));
        assert!(space.release_oldest(4).is_none());
        space.set_flushed(partition(0), Decree(5));
        assert_eq!(space.release_oldest(4).map(|segment| segment.number), Some(0));
        assert_eq!(space.release_oldest(4).map(|segment| segment.number), Some(1));
        space.forget(partition(2));
        assert!(space.release_oldest(4).is_none(), "the one being written stays");
        assert_eq!(space.head(), Some(3));
    }

    #[test]
    fn freed_segment_waits_for_a_synced_head() {
        let mut space = space(2);
        fill(&mut space, 2);
        assert_eq!(space.free_count(), 0);
        space.forget(partition(0));
        assert!(space.release_oldest(3).is_some());
        assert!(space.wants_head_write());
        space.synced(2);
        assert_eq!((space.free_count(), space.waiting_count()), (0, 1));
        space.synced(3);
        assert_eq!((space.free_count(), space.waiting_count()), (1, 0));
    }

    #[test]
    fn pins_keep_half_of_the_budget_and_then_break() {
        let mut space = space(10);
        fill(&mut space, 7);
        let pin = space.pins.add(partition(1), Some(2));
        for index in 0..5 {
            space.set_flushed(partition(index), Decree(5));
        }
        assert_eq!(space.release_oldest(8).map(|segment| segment.number), Some(0), "before the pin");
        assert!(space.release_oldest(8).is_none());
        assert_eq!((space.flushed_prefix(), space.pins.holds(pin)), ((4, 4 * SEGMENT), true), "half of the budget");
        space.set_flushed(partition(5), Decree(5));
        let released: Vec<u32> = std::iter::from_fn(|| space.release_oldest(8)).map(|segment| segment.number).collect();
        assert_eq!((released, space.pins.holds(pin)), (vec![1, 2, 3, 4, 5], false));
        assert_eq!((space.pins.count(), space.pins.broken_count(), space.flushed_prefix()), (0, 1, (0, 0)));
    }

    #[test]
    fn only_the_pins_in_the_way_are_broken() {
        let mut space = space(10);
        fill(&mut space, 7);
        let (old, young) = (space.pins.add(partition(0), Some(1)), space.pins.add(partition(3), Some(4)));
        for index in 0..6 {
            space.set_flushed(partition(index), Decree(5));
        }
        let released: Vec<u32> = std::iter::from_fn(|| space.release_oldest(8)).map(|segment| segment.number).collect();
        assert_eq!(released, [0, 1, 2], "what the younger pin keeps is not too much");
        assert!(!space.pins.holds(old) && space.pins.holds(young));
        space.pins.advance(young, 6);
        space.pins.advance(young, 5);
        assert_eq!(std::iter::from_fn(|| space.release_oldest(8)).count(), 2, "a pin moves on and never back");
        space.forget(partition(3));
        assert!(!space.pins.holds(young) && space.release_oldest(8).is_some());
    }

    #[test]
    fn a_pin_never_keeps_the_last_room() {
        let mut space = space(8);
        fill(&mut space, 7);
        let pin = space.pins.add(partition(0), Some(1));
        space.set_flushed(partition(0), Decree(5));
        assert_eq!(space.free_count(), 1);
        assert!(space.release_oldest(8).is_some() && !space.pins.holds(pin));
    }

    #[test]
    fn pressure_looks_behind_what_pins_keep() {
        let mut space = space(10);
        fill(&mut space, 8);
        space.pins.add(partition(0), Some(1));
        for index in 0..3 {
            space.set_flushed(partition(index), Decree(5));
        }
        assert!(space.release_oldest(9).is_none());
        assert_eq!(space.pressure(), [partition(3), partition(4)], "those whose flush makes the pin break");
    }

    #[test]
    fn void_records_do_not_pin() {
        let mut space = space(3);
        fill(&mut space, 2);
        space.let_go_from(partition(0), Decree(3));
        space.set_flushed(partition(0), Decree(2));
        assert!(space.release_oldest(3).is_some());
    }

    #[test]
    fn admission_leaves_a_reserve() {
        let mut space = space(2);
        assert!(!space.admits(150_000, 1) && space.admits(10_000, 1), "one segment, less what its end may lose");
        let mut taken = 0;
        while space.admits(1000, 1) {
            taken += 1;
            assert!(space.place(2 * BLOCK_BYTES, taken).is_some());
        }
        assert_eq!(space.free_count(), 1, "the reserve is untouched");
        assert!(taken > 10);
        assert!(space.place(WRITE, taken + 1).is_some(), "and there is room for what was admitted");
    }

    #[test]
    fn pressure_names_the_oldest_first() {
        let mut space = space(8);
        fill(&mut space, 6);
        assert_eq!(space.pressure(), []);
        let mut space = self::space(8);
        fill(&mut space, 8);
        assert_eq!(space.pressure(), [partition(0), partition(1)]);
        space.set_flushed(partition(0), Decree(5));
        assert_eq!(space.pressure(), [partition(1)]);
        let mut space = self::space(4);
        fill(&mut space, 4);
        assert_eq!(space.pressure(), []);
        space.give_up_blanks();
        assert_eq!(space.pressure().first(), Some(&partition(0)), "the disk has no room for the rest of the budget");
    }
}
