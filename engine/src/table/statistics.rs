//! Numbers about one table.

use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::properties;

use super::Table;

/// What a table did since it was opened, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStatistics {
    /// Point reads answered.
    pub reads: u64,
    /// Point reads that were not in memory.
    pub reads_would_block: u64,
    /// Scan slices begun, whatever became of them.
    pub scans: u64,
    /// Scan slices that were not in memory.
    pub scans_would_block: u64,
    /// Rows that scans looked at.
    pub scanned_rows: u64,
    /// Batches applied.
    pub batches: u64,
    /// Mutations applied.
    pub mutations: u64,
    /// Puts and deletes applied.
    pub rows_written: u64,
    /// Batches that were not applied because they would have stalled.
    pub would_stall: u64,
    /// Flushes asked for by the owner.
    pub flushes: u64,
    /// Keys, estimated; overwritten and expired ones may be counted.
    pub keys_estimated: u64,
    /// Bytes of rows not yet in files.
    pub write_buffer_bytes: u64,
    /// Bytes of the files.
    pub file_bytes: u64,
    /// Files in level 0.
    pub level0_files: u64,
    /// Bytes waiting to be compacted, estimated.
    pub compaction_pending_bytes: u64,
}

impl Table {
    /// The numbers of now. Takes RocksDB's lock for a moment: not for a serving core.
    pub fn statistics(&self) -> TableStatistics {
        let counters = &self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TableStatistics {
            reads: read(&counters.reads),
            reads_would_block: read(&counters.reads_would_block),
            scans: read(&counters.scans),
            scans_would_block: read(&counters.scans_would_block),
            scanned_rows: read(&counters.scanned_rows),
            batches: read(&counters.batches),
            mutations: read(&counters.mutations),
            rows_written: read(&counters.rows_written),
            would_stall: read(&counters.would_stall),
            flushes: read(&counters.flushes),
            keys_estimated: self.property(properties::ESTIMATE_NUM_KEYS),
            write_buffer_bytes: self.write_buffer_bytes(),
            file_bytes: self.property(properties::TOTAL_SST_FILES_SIZE),
            level0_files: self.level0_files(),
            compaction_pending_bytes: self.property(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
        }
    }

    pub(super) fn write_buffer_bytes(&self) -> u64 {
        self.property(properties::CUR_SIZE_ALL_MEM_TABLES)
    }

    fn level0_files(&self) -> u64 {
        let text = self.inner.db.property_value(properties::num_files_at_level(0));
        text.ok().flatten().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// A number RocksDB keeps; 0 if it does not.
    fn property(&self, name: &properties::PropName) -> u64 {
        self.inner.db.property_int_value(name).ok().flatten().unwrap_or(0)
    }
}

/// Counted as things happen; read from anywhere.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) reads: AtomicU64,
    pub(super) reads_would_block: AtomicU64,
    pub(super) scans: AtomicU64,
    pub(super) scans_would_block: AtomicU64,
    pub(super) scanned_rows: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) mutations: AtomicU64,
    pub(super) rows_written: AtomicU64,
    pub(super) would_stall: AtomicU64,
    pub(super) flushes: AtomicU64,
}
