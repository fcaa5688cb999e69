//! Opening a table.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use pegasus_wire::PartitionId;
use rocksdb::{DB, ReadOptions, ReadTier, WriteOptions};

use super::apply::Applier;
use super::layout::{APPLIED_KEY, AppliedRecord};
use super::statistics::Counters;
use super::{Inner, Table, TableError, TableShared};
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
        let db = match mode {
            OpenMode::Existing => DB::open(shared.rocksdb(), path).map_err(failed)?,
            OpenMode::CreateIfMissing => {
                make_directory(path)?;
                let mut options = shared.rocksdb().clone();
                options.create_if_missing(true);
                DB::open(&options, path).map_err(failed)?
            }
        };
        // What is flushed was in memory a moment ago: it goes to the block cache as well, or the next read of it
        // would have to leave the serving core. This option has no setter of its own.
        let keep_flushed_in_cache = [("block_based_table_factory", "{prepopulate_block_cache=kFlushOnly;}")];
        db.set_options(&keep_flushed_in_cache).map_err(failed)?;

        let table = Table { inner: Arc::new(Inner::new(db, partition, path)) };
        let record = table.read_applied_record(&table.inner.blocking_reads)?;
        table.set_applied(&record);
        table.read_flushed()?;
        shared.register(&table);
        Ok(table)
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
    fn new(db: DB, partition: PartitionId, path: &Path) -> Inner {
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
            applied: AtomicU64::new(0),
            timestamp_micros: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            counters: Counters::default(),
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
