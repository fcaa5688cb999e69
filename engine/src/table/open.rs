//! Opening a table.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use pegasus_wire::PartitionId;
use rocksdb::{DB, ReadOptions, ReadTier, WriteOptions};

use super::apply::Applier;
use super::layout::{APPLIED_KEY, AppliedRecord, COMPACTION_KEY, SHAPE_KEY};
use super::statistics::Counters;
use super::{CompactionRecord, Inner, Table, TableError, TableShape, TableShared};
use crate::durable_file::{FileError, create_directory};

/// Whether a table may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The table must be there; one that is not is damaged. For every copy that ever prepared anything: an empty
    /// table in the place of a lost one is silent loss.
    Existing,
    /// The table is made if it is not there. Only for a copy that never prepared anything (ballot 1).
    CreateIfMissing,
}

impl Table {
    /// Opens the table in a directory. Blocks: run it in a pool.
    ///
    /// [`TableError::Damaged`] means that the files are not what was written (also: that there are none, with
    /// [`OpenMode::Existing`]); any other error leaves the question open.
    pub fn open(
        path: &Path,
        shared: &TableShared,
        partition: PartitionId,
        mode: OpenMode,
    ) -> Result<Table, TableError> {
        let failed = |error| TableError::from_rocksdb(path, "open", error);
        let mut options = shared.rocksdb().clone();
        // Not before the table has the shape it is kept in.
        options.set_disable_auto_compactions(true);
        if mode == OpenMode::CreateIfMissing {
            make_directory(path)?;
            options.create_if_missing(true);
        }
        let db = DB::open(&options, path).map_err(failed)?;
        let table = Table { inner: Arc::new(Inner::new(db, partition, path, shared)) };
        let record = table.read_applied_record(&table.inner.blocking_reads)?;
        table.set_applied(&record);
        table.read_flushed()?;
        let shape = table.read_own(&SHAPE_KEY)?.and_then(|stored| TableShape::decode(&stored)).unwrap_or_default();
        table.set_shape_options(shape, &OPTIONS_WITHOUT_SETTER)?;
        *table.inner.shape.lock().unwrap_or_else(PoisonError::into_inner) = shape;
        let compacted = table.read_own(&COMPACTION_KEY)?.and_then(|stored| CompactionRecord::decode(&stored));
        *table.inner.last_compaction.lock().unwrap_or_else(PoisonError::into_inner) = compacted.unwrap_or_default();
        shared.register(&table);
        Ok(table)
    }

    fn read_own(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        let stored = self.inner.db.get_opt(key, &self.inner.blocking_reads);
        stored.map_err(|error| self.failed("read what is kept of the table", error))
    }

    /// Reads how far the table is, through the given tier. A table without a record is empty.
    pub(super) fn read_applied_record(&self, options: &ReadOptions) -> Result<AppliedRecord, TableError> {
        let stored = self.inner.db.get_pinned_opt(APPLIED_KEY, options);
        match stored.map_err(|error| self.failed("read the applied decree", error))? {
            None => Ok(AppliedRecord::default()),
            Some(stored) => AppliedRecord::decode(&stored).ok_or_else(|| {
                TableError::damaged(&self.inner.path, "read the applied decree", "the record is malformed")
            }),
        }
    }
}

impl Inner {
    fn new(db: DB, partition: PartitionId, path: &Path, shared: &TableShared) -> Inner {
        Inner {
            db,
            partition,
            path: path.to_owned(),
            cached_reads: read_options(ReadTier::BlockCache),
            blocking_reads: read_options(ReadTier::All),
            persisted_reads: read_options(ReadTier::Persisted),
            inline_writes: write_options(true),
            blocking_writes: write_options(false),
            applier: Mutex::new(Applier::default()),
            shape: Mutex::new(TableShape::default()),
            reshaping: Mutex::new(()),
            compaction: Mutex::new(None),
            last_compaction: Mutex::new(CompactionRecord::default()),
            stopped: AtomicBool::new(false),
            applied: AtomicU64::new(0),
            timestamp_micros: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            counters: Counters::default(),
            shared: shared.clone(),
        }
    }
}

/// Options of point reads in one tier. Checksums are verified whenever a block comes from a file.
fn read_options(tier: ReadTier) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_read_tier(tier);
    options.set_verify_checksums(true);
    options
}

fn write_options(no_slowdown: bool) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options.set_no_slowdown(no_slowdown);
    options
}

fn make_directory(path: &Path) -> Result<(), TableError> {
    create_directory(path).map_err(|error: FileError| TableError::Failed {
        path: path.to_owned(),
        action: "make the directory",
        detail: error.to_string(),
    })
}

/// Options that have no setter of their own.
const OPTIONS_WITHOUT_SETTER: [(&str, &str); 2] = [
    // What is flushed was in memory a moment ago: it goes to the block cache as well, or the next read of it would have
    // to leave the serving core.
    ("block_based_table_factory", "{prepopulate_block_cache=kFlushOnly;}"),
    // A read from memory sorts the range deletes there if one was added since the last read: they must not become many.
    ("memtable_max_range_deletions", "500"),
];
