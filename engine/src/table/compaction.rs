//! Manual compaction: all files of a table are rewritten, without what is overwritten, deleted or long expired.
//!
//! One at a time for a table, on RocksDB's compacting threads, while a thread of a pool waits for it. It ends early
//! when the table is stopped. When the last whole one began and ended is kept in the table itself: a copy that is made
//! from a checkpoint has files that were compacted then.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use rocksdb::{BottommostLevelCompaction, CompactOptions, LiveFile, properties};

use super::layout::COMPACTION_KEY;
use super::{Table, TableError};

/// What is done with files that are in the last level already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bottommost {
    /// They are rewritten too: what expired in them goes.
    Force,
    /// They are rewritten only where files above them overlap.
    Skip,
}

/// What became of a manual compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a compaction that did not end is to be done again"]
pub enum CompactionOutcome {
    /// Everything that was applied when it began is compacted.
    Finished,
    /// The table was stopped before or meanwhile.
    Stopped,
    /// Another one runs.
    Running,
}

/// The last whole manual compaction of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionRecord {
    /// Unix second at which it began; 0 if there was none.
    pub began_seconds: u64,
    /// Unix second at which it ended; 0 if there was none.
    pub ended_seconds: u64,
}

/// The files a running compaction began with and has to do with, by name.
pub(super) struct RunningCompaction {
    files: HashMap<String, u64>,
    bytes: u64,
}

impl Table {
    /// Compacts all of it. Blocks for as long as it takes: run it in a pool. Reads and writes go on.
    pub fn compact(&self, bottommost: Bottommost) -> Result<CompactionOutcome, TableError> {
        let begun = self.begin_compaction(bottommost);
        if self.is_stopped() {
            return Ok(CompactionOutcome::Stopped);
        }
        let Some(_running) = begun? else { return Ok(CompactionOutcome::Running) };
        let errors_before = self.background_errors();
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(match bottommost {
            Bottommost::Force => BottommostLevelCompaction::ForceOptimized,
            Bottommost::Skip => BottommostLevelCompaction::Skip,
        });
        self.inner.db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
        if self.is_stopped() {
            return Ok(CompactionOutcome::Stopped);
        }
        if self.background_errors() > errors_before {
            let detail = "a flush or a compaction failed meanwhile; see RocksDB's messages in the log".to_owned();
            return Err(TableError::Failed { path: self.inner.path.clone(), action: "compact", detail });
        }
        Ok(CompactionOutcome::Finished)
    }

    /// How far a running manual compaction is, in percent of the bytes of files that it began with and has to rewrite;
    /// 0 to 99. `None` if none runs. A file counts when it is gone, so small tables know little between. Takes
    /// RocksDB's lock for a moment: not for a serving core.
    pub fn compaction_percent(&self) -> Result<Option<u8>, TableError> {
        let running = self.inner.compaction.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = &*running else { return Ok(None) };
        let left: u64 = self.live_files()?.iter().filter_map(|file| running.files.get(&file.name)).sum();
        let done = (running.bytes - left) * 100 / running.bytes.max(1);
        Ok(Some(done.min(99) as u8))
    }

    /// The last manual compaction that was recorded. Never blocks.
    pub fn last_compaction(&self) -> CompactionRecord {
        *self.inner.last_compaction.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps when a finished compaction began and ended, durably. Blocks: run it in a pool.
    pub fn record_compaction(&self, record: CompactionRecord) -> Result<(), TableError> {
        let stored = self.inner.db.put_opt(COMPACTION_KEY, record.encode(), &self.inner.blocking_writes);
        stored.map_err(|error| self.failed("record a compaction", error))?;
        self.flush()?;
        *self.inner.last_compaction.lock().unwrap_or_else(PoisonError::into_inner) = record;
        Ok(())
    }

    /// Flushes, then ends what RocksDB does in the background, a manual compaction included, and waits for that. For a
    /// table that is to be closed: it can be read, but takes no more writes. Blocks: run it in a pool.
    pub fn stop(&self) {
        self.inner.stopped.store(true, Ordering::Release);
        self.inner.db.cancel_all_background_work(true);
    }

    /// Marks that a compaction runs until the guard is dropped; `None` if one does already.
    fn begin_compaction(&self, bottommost: Bottommost) -> Result<Option<CompactionGuard<'_>>, TableError> {
        // RocksDB flushes as well, but its failure would not be told.
        self.flush()?;
        let files = self.live_files()?;
        let mut running = self.inner.compaction.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_some() {
            return Ok(None);
        }
        *running = Some(RunningCompaction::new(files, bottommost));
        Ok(Some(CompactionGuard(self)))
    }

    fn is_stopped(&self) -> bool {
        self.inner.stopped.load(Ordering::Acquire)
    }

    fn live_files(&self) -> Result<Vec<LiveFile>, TableError> {
        self.inner.db.live_files().map_err(|error| self.failed("list files", error))
    }

    fn background_errors(&self) -> u64 {
        self.inner.db.property_int_value(properties::BACKGROUND_ERRORS).ok().flatten().unwrap_or(0)
    }
}

impl RunningCompaction {
    fn new(files: Vec<LiveFile>, bottommost: Bottommost) -> RunningCompaction {
        let last_level = files.iter().map(|file| file.level).max().unwrap_or(0);
        let is_rewritten = |file: &LiveFile| bottommost == Bottommost::Force || file.level < last_level;
        let files: HashMap<String, u64> =
            files.into_iter().filter(is_rewritten).map(|file| (file.name, file.size as u64)).collect();
        RunningCompaction { bytes: files.values().sum(), files }
    }
}

/// Also after a panic the next compaction may run.
struct CompactionGuard<'a>(&'a Table);

impl Drop for CompactionGuard<'_> {
    fn drop(&mut self) {
        *self.0.inner.compaction.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl CompactionRecord {
    /// As it is kept; drawn in `layout`.
    fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0] = RECORD_VERSION;
        bytes[1..9].copy_from_slice(&self.began_seconds.to_be_bytes());
        bytes[9..].copy_from_slice(&self.ended_seconds.to_be_bytes());
        bytes
    }

    /// What cannot be read counts as none: the table is compacted once more.
    pub(super) fn decode(bytes: &[u8]) -> Option<CompactionRecord> {
        let (&[RECORD_VERSION], rest) = bytes.split_first_chunk::<1>()? else { return None };
        let (began, ended) = rest.split_first_chunk::<8>()?;
        let ended: &[u8; 8] = ended.try_into().ok()?;
        Some(CompactionRecord { began_seconds: u64::from_be_bytes(*began), ended_seconds: u64::from_be_bytes(*ended) })
    }
}

const RECORD_VERSION: u8 = 1;
const RECORD_BYTES: usize = 17;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, level: i32, size: usize) -> LiveFile {
        LiveFile {
            column_family_name: "default".to_owned(),
            name: name.to_owned(),
            size,
            level,
            start_key: None,
            end_key: None,
            num_entries: 0,
            num_deletions: 0,
        }
    }

    #[test]
    fn progress_counts_the_files_that_are_rewritten() {
        let files = || vec![file("/1", 0, 10), file("/2", 3, 20), file("/3", 6, 300), file("/4", 6, 400)];
        assert_eq!(RunningCompaction::new(files(), Bottommost::Force).bytes, 730);
        let skip = RunningCompaction::new(files(), Bottommost::Skip);
        assert_eq!((skip.bytes, skip.files.get("/3")), (30, None));
        assert_eq!(RunningCompaction::new(Vec::new(), Bottommost::Skip).bytes, 0);
    }

    #[test]
    fn records_golden_bytes() {
        let record = CompactionRecord { began_seconds: 0x0102, ended_seconds: 0x0304 };
        let bytes = record.encode();
        assert_eq!(&bytes, b"\x01\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\x03\x04");
        assert_eq!(CompactionRecord::decode(&bytes), Some(record));
        let mut later = bytes;
        later[0] = 2;
        for unknown in [&later[..], &bytes[..16], b""] {
            assert_eq!(CompactionRecord::decode(unknown), None);
        }
    }
}
