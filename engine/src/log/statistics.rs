//! What a log did, as plain counters on its owner, copied out on request.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Counters since the log was opened, and its present state.
#[derive(Clone, Debug)]
pub struct LogStatistics {
    /// Log writes that completed.
    pub writes: u64,
    /// Their bytes, padding included.
    pub written_bytes: u64,
    /// Records in them.
    pub records: u64,
    /// Syncs that completed, those of the background preparation not counted.
    pub syncs: u64,
    /// Appends refused because the budget was used up.
    pub refused_full: u64,
    /// Records per log write; writes without records are not counted.
    pub records_per_write: Histogram<u64>,
    /// Time of a log write, in microseconds.
    pub write_micros: Histogram<u64>,
    /// Time of a sync, in microseconds.
    pub sync_micros: Histogram<u64>,
    /// Bytes read back for learners, also those of other records in the same log writes.
    pub read_bytes: u64,
    /// Pins of learners that are not broken.
    pub pins: usize,
    /// Pins that were broken because the log needed the room, or asked for what it no longer had.
    pub pins_broken: u64,
    /// Bytes of the segments that only pins keep.
    pub pinned_bytes: u64,
    /// Records taken and not yet in a log write.
    pub pending_records: usize,
    /// Their bytes.
    pub pending_bytes: usize,
    /// Last sequence handed out by `append`.
    pub appended: u64,
    /// Everything up to this sequence is written.
    pub written: u64,
    /// Everything up to this sequence is synced.
    pub synced: u64,
    /// Entries of the index.
    pub index_entries: usize,
    /// Segments that hold records.
    pub segments_live: usize,
    /// Segments given up whose release is not synced yet.
    pub segments_waiting: usize,
    /// Segments ready to be written.
    pub segments_free: usize,
    /// Segments still to be zeroed.
    pub segments_blank: usize,
    /// Bytes of the live and the waiting segments.
    pub used_bytes: u64,
    /// The budget.
    pub budget_bytes: u64,
    /// Why no more segments are prepared, if that failed. The log goes on with those it has.
    pub preparation_failed: Option<String>,
    /// Why the log takes no more writes, if it is closed.
    pub closed: Option<String>,
}

/// The counters that grow.
#[derive(Clone, Debug)]
pub(super) struct Counters {
    pub(super) writes: u64,
    pub(super) written_bytes: u64,
    pub(super) records: u64,
    pub(super) syncs: u64,
    pub(super) refused_full: u64,
    pub(super) read_bytes: u64,
    pub(super) records_per_write: Histogram<u64>,
    pub(super) write_micros: Histogram<u64>,
    pub(super) sync_micros: Histogram<u64>,
}

impl Counters {
    pub(super) fn new() -> Counters {
        let histogram =
            |high| Histogram::new_with_bounds(1, high, SIGNIFICANT_DIGITS).expect("the bounds of a histogram are fit");
        Counters {
            writes: 0,
            written_bytes: 0,
            records: 0,
            syncs: 0,
            refused_full: 0,
            read_bytes: 0,
            records_per_write: histogram(RECORDS_MAX),
            write_micros: histogram(MICROS_MAX),
            sync_micros: histogram(MICROS_MAX),
        }
    }

    pub(super) fn note_write(&mut self, bytes: usize, records: usize, took: Duration) {
        self.writes += 1;
        self.written_bytes += bytes as u64;
        self.records += records as u64;
        if records > 0 {
            self.records_per_write.saturating_record(records as u64);
        }
        self.write_micros.saturating_record(took.as_micros() as u64);
    }

    pub(super) fn note_sync(&mut self, took: Duration) {
        self.syncs += 1;
        self.sync_micros.saturating_record(took.as_micros() as u64);
    }
}

const SIGNIFICANT_DIGITS: u8 = 2;
const RECORDS_MAX: u64 = 100_000;
const MICROS_MAX: u64 = 60_000_000;
