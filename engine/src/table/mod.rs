//! The rows of one copy of a partition: one RocksDB per copy, without its write-ahead log.
//!
//! The mutation log is what makes a write durable; the table only has to keep rows and *the decree up to which they
//! are applied* together. Both are in the same write batch, so whatever RocksDB keeps after a crash is the state
//! after some decree, and [`Table::read_flushed`] tells which. Everything above is applied again from the log.
//!
//! ```text
//!                    memtable                     files
//!   apply(d+1..e) -> [rows.., applied = e] flush  [rows.., applied = f]
//!                                          ---->
//!   applied() = e                                 read_flushed() = f <= e
//! ```
//!
//! A serving core never blocks here. It reads with [`ReadMode::CacheOnly`] and applies with
//! [`ApplyMode::NoSlowdown`]; what comes back as `WouldBlock` or `WouldStall` has changed nothing and goes to a pool
//! with the blocking mode. Opening, flushing and *dropping the last handle* (which closes the files) block: pool.
//!
//! Memory, threads and write rate are shared by all tables of a node: [`TableShared`].
//!
//! This module must never read a clock for a caller: what is expired is decided by the `now` a request brings. Only
//! the compaction filter, which drops what expired a while ago, asks the system; and a scan that was told when to stop.
//!
//! A learner gets a table as a [`CheckpointImage`] of its primary's, and takes it in as [`Incoming`].
//!
//! Reading order: [`value`], `layout`, `shared`, `open`, `apply`, `read`, `scan` (`snapshot`, `walk`, `seek`, `judge`),
//! `filter`, `shape`, `compaction`, `statistics`, `checkpoint`, `incoming`.

mod apply;
mod checkpoint;
mod compaction;
mod error;
mod filter;
mod incoming;
mod judge;
mod layout;
mod open;
mod read;
mod scan;
mod seek;
mod shape;
mod shared;
mod snapshot;
mod statistics;
pub mod value;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pegasus_wire::{Decree, PartitionId};
use rocksdb::{DB, FlushOptions, ReadOptions, WriteOptions};

pub use self::apply::{ApplyMode, ApplyOutcome};
pub use self::checkpoint::{CheckpointImage, CheckpointReader};
pub use self::compaction::{Bottommost, CompactionOutcome, CompactionRecord};
pub use self::error::{CheckpointError, TableError};
pub use self::filter::EXPIRY_GRACE_SECONDS;
pub use self::incoming::{FinishStep, Incoming};
pub use self::open::OpenMode;
pub use self::read::{Lookup, ReadMode, RowValue};
pub use self::scan::{Scan, ScanOutcome, ScanRequest, ScanRows, ScannedRow, hash_key_range};
pub use self::shape::TableShape;
pub use self::shared::{SharedOptions, SharedStatistics, TableShared};
pub use self::snapshot::TableSnapshot;
pub use self::statistics::TableStatistics;

/// A handle to an open table. Clones share it; any thread may use any clone.
///
/// Invariants:
/// 1. `flushed() <= read_flushed() <= applied()`, and none of them ever goes back while the table is open.
/// 2. Mutations are applied in decree order, each once, all of its rows or none.
/// 3. No key that begins FF FF is visible to a read or a scan, dropped by compaction, or written by a mutation.
/// 4. A row whose expiry is at or before the `now` of a read is missing for that read.
#[derive(Clone)]
pub struct Table {
    inner: Arc<Inner>,
}

/// The database is first, so that it is closed before what it was opened with goes.
struct Inner {
    db: DB,
    partition: PartitionId,
    path: PathBuf,
    cached_reads: ReadOptions,
    blocking_reads: ReadOptions,
    persisted_reads: ReadOptions,
    inline_writes: WriteOptions,
    blocking_writes: WriteOptions,
    /// Held while a batch is applied: there is one applier at a time.
    applier: Mutex<apply::Applier>,
    /// As last set.
    shape: Mutex<TableShape>,
    /// Held while the shape is changed.
    reshaping: Mutex<()>,
    /// The manual compaction that runs.
    compaction: Mutex<Option<compaction::RunningCompaction>>,
    last_compaction: Mutex<CompactionRecord>,
    /// It is to be closed; see [`Table::stop`].
    stopped: AtomicBool,
    applied: AtomicU64,
    timestamp_micros: AtomicU64,
    flushed: AtomicU64,
    counters: statistics::Counters,
    shared: TableShared,
}

impl Table {
    /// The partition it holds rows of.
    pub fn partition(&self) -> PartitionId {
        self.inner.partition
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// True if no other handle to the table exists: to drop this one closes it.
    pub fn is_last_handle(&self) -> bool {
        Arc::strong_count(&self.inner) == 1
    }

    /// The last decree applied.
    pub fn applied(&self) -> Decree {
        Decree(self.inner.applied.load(Ordering::Acquire))
    }

    /// Stamp of the last mutation applied, in microseconds since the Unix epoch; 0 if there is none. A primary
    /// stamps above it, and takes it as a lower bound of "now".
    pub fn last_timestamp_micros(&self) -> u64 {
        self.inner.timestamp_micros.load(Ordering::Acquire)
    }

    /// A decree known to survive a crash: what [`Table::read_flushed`] last found. Never blocks. RocksDB flushes on
    /// its own as well, so ask `read_flushed` from time to time.
    pub fn flushed(&self) -> Decree {
        Decree(self.inner.flushed.load(Ordering::Acquire))
    }

    /// The decree that would be applied after a crash now: what is in files, not counting memory. May block.
    pub fn read_flushed(&self) -> Result<Decree, TableError> {
        let record = self.read_applied_record(&self.inner.persisted_reads)?;
        self.inner.flushed.fetch_max(record.decree.0, Ordering::AcqRel);
        Ok(self.flushed())
    }

    /// Writes everything applied so far to files and waits for it; gives the flushed decree. Blocks.
    pub fn flush(&self) -> Result<Decree, TableError> {
        let mut options = FlushOptions::new();
        options.set_wait(true);
        self.inner.db.flush_opt(&options).map_err(|error| self.failed("flush", error))?;
        self.inner.counters.flushes.fetch_add(1, Ordering::Relaxed);
        self.read_flushed()
    }

    fn failed(&self, action: &'static str, error: rocksdb::Error) -> TableError {
        TableError::from_rocksdb(&self.inner.path, action, error)
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Table")
            .field("partition", &self.inner.partition)
            .field("path", &self.inner.path)
            .field("applied", &self.applied())
            .finish_non_exhaustive()
    }
}
