//! The state of an open log, without IO: what is pending, what the next write is, how far writing and syncing are.
//!
//! ```text
//!             append         a write is planned    it completed        a sync issued after it completed
//! appended ------------> pending ------------> in flight ------------> written ------------> synced
//! ```
//!
//! Invariants:
//! - synced <= written <= appended, and each only rises;
//! - at most one write or sync is in flight;
//! - once `closed` is set it stays, with the first reason, and nothing is appended or written any more.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use pegasus_wire::{Decree, Durability, PartitionId};

use super::error::{AppendRefused, LogError};
use super::format::{HEADER_BYTES_MAX, ListBuilder, PartitionRange, WriteHeader, whole_blocks};
use super::index::{Index, WritePlace};
use super::options::LogOptions;
use super::record::LogRecord;
use super::space::{Placement, Space};
use super::statistics::{Counters, LogStatistics};

/// Position of an append in the order of appends, since the log was opened. The first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogSequence(pub u64);

/// How far the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogProgress {
    /// Everything appended up to here was written: it survives the process.
    pub written: LogSequence,
    /// Everything appended up to here was flushed to stable storage: it survives the machine.
    pub synced: LogSequence,
}

/// What the writer has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Write,
    Sync,
    Stop,
}

/// Records that go into one write.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) records: Vec<LogRecord>,
    list: Vec<PartitionRange>,
    record_bytes: usize,
    pub(super) must_sync: bool,
}

/// A write with its place.
#[derive(Debug)]
pub(super) struct PlannedWrite {
    pub(super) header: WriteHeader,
    pub(super) records: Vec<LogRecord>,
    pub(super) placement: Placement,
}

/// The end of the chain.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) log: u64,
    pub(super) incarnation: u64,
    pub(super) first_sequence: u64,
    pub(super) next_sequence: u64,
    pub(super) previous_checksum: u32,
    pub(super) previous_list: Vec<PartitionRange>,
    pub(super) written_sequence: u64,
    pub(super) synced_sequence: u64,
    /// The last write that holds records, and the synced sequence the last header states.
    pub(super) content_sequence: u64,
    pub(super) stated_sequence: u64,
}

pub(super) struct State {
    pub(super) chain: Chain,
    pub(super) space: Space,
    pub(super) index: Index,
    pub(super) counters: Counters,
    pub(super) preparation_failed: Option<String>,
    pub(super) closed: Option<Arc<str>>,
    pub(super) running: bool,
    stopping: bool,
    pending: VecDeque<(LogRecord, Durability)>,
    pending_bytes: usize,
    appended: u64,
    written: u64,
    synced: u64,
    sync_wanted: u64,
    write_bytes_max: usize,
    record_bytes_max: usize,
    /// Records of a partition appended up to here are of a copy that was forgotten before they were written.
    forgotten_through: HashMap<PartitionId, u64>,
    writer: Option<Waker>,
    closers: Vec<Waker>,
}

impl State {
    pub(super) fn new(options: &LogOptions, chain: Chain, space: Space, index: Index) -> State {
        State {
            chain,
            space,
            index,
            counters: Counters::new(),
            preparation_failed: None,
            closed: None,
            running: false,
            stopping: false,
            pending: VecDeque::new(),
            pending_bytes: 0,
            appended: 0,
            written: 0,
            synced: 0,
            sync_wanted: 0,
            write_bytes_max: options.write_bytes_max(),
            record_bytes_max: options.record_bytes_max(),
            forgotten_through: HashMap::new(),
            writer: None,
            closers: Vec::new(),
        }
    }

    pub(super) fn append(
        &mut self,
        record: LogRecord,
        durability: Durability,
    ) -> Result<LogSequence, Box<AppendRefused>> {
        let bytes = record.encoded_bytes();
        if let Err(error) = self.admit(bytes) {
            return Err(Box::new(AppendRefused { record, error }));
        }
        self.pending_bytes += bytes;
        self.pending.push_back((record, durability));
        self.appended += 1;
        Ok(LogSequence(self.appended))
    }

    /// Refuses a record of this size, or is sure that it finds room.
    fn admit(&mut self, bytes: usize) -> Result<(), LogError> {
        self.check_open()?;
        if bytes > self.record_bytes_max {
            return Err(LogError::TooLarge { bytes, bytes_max: self.record_bytes_max });
        }
        if !self.space.admits(self.pending_bytes + bytes, self.pending.len() + 1) {
            self.counters.refused_full += 1;
            return Err(LogError::Full {
                used_bytes: self.space.used_bytes(),
                budget_bytes: self.space.budget_bytes(),
            });
        }
        Ok(())
    }

    pub(super) fn check_open(&self) -> Result<(), LogError> {
        match &self.closed {
            Some(reason) => Err(LogError::Closed { reason: Arc::clone(reason) }),
            None => Ok(()),
        }
    }

    /// What to do next; keeps the waker if there is nothing.
    pub(super) fn poll_work(&mut self, waker: &Waker) -> Poll<Result<Work, LogError>> {
        if !self.stopping {
            self.check_open()?;
        }
        let unsynced = self.chain.synced_sequence < self.chain.written_sequence;
        let unstated = self.chain.stated_sequence < self.chain.content_sequence;
        if !self.pending.is_empty() || self.space.wants_head_write() {
            Poll::Ready(Ok(Work::Write))
        } else if unsynced && (self.stopping || self.sync_wanted > self.synced) {
            Poll::Ready(Ok(Work::Sync))
        } else if self.stopping && unstated {
            // A last header says that the last records are synced, so that a later loss of them is seen as damage.
            Poll::Ready(Ok(Work::Write))
        } else if self.stopping {
            Poll::Ready(Ok(Work::Stop))
        } else {
            if !self.writer.as_ref().is_some_and(|known| known.will_wake(waker)) {
                self.writer = Some(waker.clone());
            }
            Poll::Pending
        }
    }

    /// Takes what gathered, as much as one write may hold.
    pub(super) fn take_batch(&mut self) -> Batch {
        let mut list = ListBuilder::default();
        let mut records = Vec::new();
        let mut record_bytes = 0;
        let mut must_sync = self.space.waits_for_sync() || self.sync_wanted > self.synced || self.pending.is_empty();
        while let Some((record, durability)) = self.pending.front() {
            let bytes = record.encoded_bytes();
            let fits = record_bytes + bytes + HEADER_BYTES_MAX <= self.write_bytes_max;
            if !fits || !list.admits(record.partition) {
                break;
            }
            must_sync |= *durability == Durability::Synced;
            list.add(record.partition, record.decree);
            record_bytes += bytes;
            records.extend(self.pending.pop_front().map(|(record, _)| record));
        }
        self.pending_bytes -= record_bytes;
        Batch { records, list: list.finish(), record_bytes, must_sync }
    }

    /// Size of the write this batch becomes.
    pub(super) fn write_bytes(&self, batch: &Batch) -> usize {
        let ranges = batch.list.len() + self.chain.previous_list.len();
        whole_blocks(super::format::HEADER_BYTES + ranges * super::format::RANGE_BYTES + batch.record_bytes)
    }

    /// Gives the batch its place and its header.
    pub(super) fn plan(&mut self, batch: Batch) -> Result<PlannedWrite, LogError> {
        let write_bytes = self.write_bytes(&batch);
        let sequence = self.chain.next_sequence;
        let segments = self.space.live_count();
        let Some(placement) = self.space.place(write_bytes, sequence) else {
            return Err(self.latch("no segment is left for a write that was admitted".into()));
        };
        if self.space.live_count() > segments {
            // The segment that was left may be one that nobody needs, or leave too little room for pins.
            self.collect();
        }
        let header = WriteHeader {
            previous_checksum: self.chain.previous_checksum,
            log: self.chain.log,
            incarnation: self.chain.incarnation,
            first_sequence: self.chain.first_sequence,
            sequence,
            synced: self.chain.synced_sequence,
            head: self.space.head().unwrap_or(sequence),
            write_bytes: write_bytes as u32,
            record_bytes: batch.record_bytes as u32,
            record_count: batch.records.len() as u32,
            list: batch.list,
            repeat: std::mem::take(&mut self.chain.previous_list),
        };
        Ok(PlannedWrite { header, records: batch.records, placement })
    }

    /// The planned write is encoded and goes out.
    pub(super) fn note_issued(&mut self, write: &PlannedWrite, checksum: u32) {
        self.chain.next_sequence += 1;
        self.chain.previous_checksum = checksum;
        self.chain.previous_list.clone_from(&write.header.list);
        self.chain.stated_sequence = write.header.synced;
        if !write.records.is_empty() {
            self.chain.content_sequence = write.header.sequence;
        }
    }

    /// The write completed, whole.
    pub(super) fn note_written(&mut self, write: PlannedWrite, took: Duration) {
        let PlannedWrite { header, records, placement } = write;
        self.chain.written_sequence = header.sequence;
        self.counters.note_write(header.write_bytes as usize, records.len(), took);
        let place = WritePlace {
            segment: placement.segment,
            offset: placement.offset,
            bytes: header.write_bytes,
            sequence: header.sequence,
        };
        for record in records {
            self.written += 1;
            let forgotten = self.forgotten_through.get(&record.partition);
            if forgotten.is_none_or(|through| self.written > *through) {
                self.enter(place, &record);
            }
        }
        if !self.forgotten_through.is_empty() {
            self.forgotten_through.retain(|_, through| *through > self.written);
        }
        debug_assert!(self.written <= self.appended);
    }

    /// A record is where it can be read, and is needed from now on.
    fn enter(&mut self, place: WritePlace, record: &LogRecord) {
        let copy = (record.partition, record.incarnation);
        let indexed = self.index.add(place, copy, record.kind, record.ballot, record.decree);
        if indexed.replaces {
            // Its owner did not forget the copy before: what was flushed of that one says nothing about this one.
            self.space.forget(record.partition);
        }
        if let Some(void_from) = indexed.void_from {
            self.space.let_go_from(record.partition, void_from);
        }
        if indexed.kept {
            self.space.keep(place.segment, record.partition, record.decree);
        }
    }

    /// A sync that was issued after the last completed write completed.
    pub(super) fn note_synced(&mut self, took: Duration) {
        self.counters.note_sync(took);
        self.synced = self.written;
        self.chain.synced_sequence = self.chain.written_sequence;
        self.space.synced(self.chain.synced_sequence);
    }

    pub(super) fn progress(&self) -> LogProgress {
        LogProgress { written: LogSequence(self.written), synced: LogSequence(self.synced) }
    }

    pub(super) fn want_sync(&mut self) -> LogSequence {
        self.sync_wanted = self.appended;
        LogSequence(self.appended)
    }

    pub(super) fn set_flushed(&mut self, partition: PartitionId, decree: Decree) {
        self.space.set_flushed(partition, decree);
        self.collect();
    }

    pub(super) fn forget(&mut self, partition: PartitionId) {
        self.space.forget(partition);
        self.index.forget(partition);
        if self.appended > self.written {
            self.forgotten_through.insert(partition, self.appended);
        }
        self.collect();
    }

    /// Gives the number of a pin that keeps what there is of a partition from `decree` on; a broken one if that is
    /// not all.
    pub(super) fn pin(&mut self, partition: PartitionId, decree: Decree) -> u64 {
        let floor = self.floor_of(partition, decree);
        self.space.pins.add(partition, floor)
    }

    pub(super) fn advance_pin(&mut self, number: u64, partition: PartitionId, decree: Decree) {
        if let Some(floor) = self.floor_of(partition, decree) {
            self.space.pins.advance(number, floor);
            self.collect();
        }
    }

    pub(super) fn unpin(&mut self, number: u64) {
        self.space.pins.remove(number);
        self.collect();
    }

    /// The first log write that has to stay so that a partition can be read from `decree` on. A decree to come is in
    /// the present segment or a later one.
    fn floor_of(&self, partition: PartitionId, decree: Decree) -> Option<u64> {
        if let Some(place) = self.index.place_of(partition, decree) {
            return Some(place.sequence);
        }
        let last = self.index.last(partition).max(self.space.flushed(partition));
        let present = || self.space.current().map_or(self.chain.next_sequence, |segment| segment.first_sequence);
        (decree > last).then(present)
    }

    /// Gives up every segment that is no longer needed.
    pub(super) fn collect(&mut self) {
        while let Some(segment) = self.space.release_oldest(self.chain.next_sequence) {
            for partition in segment.unflushed.keys() {
                self.index.remove_oldest(*partition, segment.number);
            }
        }
        if self.space.wants_head_write() {
            self.wake_writer();
        }
    }

    /// Closes the log for writing; the first reason stays.
    pub(super) fn latch(&mut self, reason: Arc<str>) -> LogError {
        if self.stopping {
            // A failure on the way down is the reason that counts.
            self.stopping = false;
            self.closed = None;
        }
        let reason = Arc::clone(self.closed.get_or_insert(reason));
        self.pending.clear();
        self.pending_bytes = 0;
        self.wake_writer();
        LogError::Closed { reason }
    }

    /// Takes nothing more and lets the writer finish what is pending.
    pub(super) fn stop(&mut self) {
        if self.closed.is_none() {
            self.closed = Some("it was shut down".into());
            self.stopping = true;
        }
        self.wake_writer();
    }

    pub(super) fn note_stopped(&mut self) {
        self.running = false;
        for closer in self.closers.drain(..) {
            closer.wake();
        }
    }

    pub(super) fn poll_stopped(&mut self, waker: &Waker) -> Poll<()> {
        if !self.running {
            return Poll::Ready(());
        }
        self.closers.push(waker.clone());
        Poll::Pending
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    pub(super) fn statistics(&self) -> LogStatistics {
        let counters = self.counters.clone();
        LogStatistics {
            writes: counters.writes,
            written_bytes: counters.written_bytes,
            records: counters.records,
            syncs: counters.syncs,
            refused_full: counters.refused_full,
            records_per_write: counters.records_per_write,
            write_micros: counters.write_micros,
            sync_micros: counters.sync_micros,
            read_bytes: counters.read_bytes,
            pins: self.space.pins.count(),
            pins_broken: self.space.pins.broken_count(),
            pinned_bytes: self.space.flushed_prefix().1,
            pending_records: self.pending.len(),
            pending_bytes: self.pending_bytes,
            appended: self.appended,
            written: self.written,
            synced: self.synced,
            index_entries: self.index.len(),
            segments_live: self.space.live_count(),
            segments_waiting: self.space.waiting_count(),
            segments_free: self.space.free_count(),
            segments_blank: self.space.blank_count(),
            used_bytes: self.space.used_bytes(),
            budget_bytes: self.space.budget_bytes(),
            preparation_failed: self.preparation_failed.clone(),
            closed: self.closed.as_ref().map(|reason| reason.to_string()),
        }
    }
}
