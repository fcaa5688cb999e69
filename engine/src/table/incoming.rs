//! A checkpoint on its way in: the table of a learner's next incarnation.
//!
//! ```text
//!   begin                write ...             finish
//!   list checked  -----> files verified -----> directory synced -----> opened: is it the decree announced?
//!   directory made       and synced one                                         |
//!                        after the other                                        v
//!   replicas/2.7/descriptor        names incarnation A  - - - - - - - > replaced: names incarnation B
//!   replicas/2.7/rdb-A             the copy that was there              left over, deleted by the owner
//!   replicas/2.7/rdb-B             left over until the descriptor ----> the copy
//!                                  names it
//! ```
//!
//! The descriptor is the only switch: until it is replaced the old copy is the copy, whole; from then on the new one
//! is. So a crash at any moment leaves one of them and a directory that the descriptor does not name, which is deleted
//! at the next start (`copies`). The log records of the old incarnation are skipped by recovery from then on.
//!
//! It must never touch the old copy, never trust what was sent (names, lengths, order, checksums), and never leave a
//! table in place that it has not opened. Everything here blocks: run it, and drop it, in a pool.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use pegasus_wire::limits::{CHECKPOINT_FILES_MAX, CHECKPOINT_NAME_BYTES_MAX};
use pegasus_wire::messages::peer::{Checkpoint, CheckpointFile};
use pegasus_wire::{Decree, PartitionId, ReplicaIncarnation};

use super::checkpoint::{CHECKSUM_BYTES, stream_bytes};
use super::{CheckpointError, OpenMode, Table, TableShared};
use crate::descriptor::{CopyState, Descriptor, table_directory};
use crate::disk::disk_space;
use crate::durable_file::{create_directory, sync_directory};

/// A checkpoint that is being received. What it holds so far is deleted when it is dropped unfinished.
///
/// Invariants: bytes are taken in the order in which [`super::CheckpointReader`] gives them; a file is synced once its
/// checksum was right, before the next one begins; nothing that was refused is ever finished.
#[derive(Debug)]
pub struct Incoming {
    copy_directory: PathBuf,
    directory: PathBuf,
    incarnation: ReplicaIncarnation,
    applied: Decree,
    files: Vec<CheckpointFile>,
    next_file: usize,
    open: Option<ReceivedFile>,
    stream_bytes: u64,
    received_bytes: u64,
    refused: bool,
    finished: bool,
}

#[derive(Debug)]
struct ReceivedFile {
    file: File,
    path: PathBuf,
    bytes_left: u64,
    /// Written, and not yet on its way to the disk.
    unsent_bytes: u64,
    checksum: u32,
    trailer: Vec<u8>,
}

/// How far [`Incoming::finish_stepwise`] is. A crash right after any of them must leave the old copy or the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FinishStep {
    /// All files are there, verified and synced.
    Received,
    /// So are their names.
    Synced,
    /// The table was opened and is of the decree that was announced.
    Opened,
    /// The descriptor names it.
    Switched,
}

impl Incoming {
    /// Makes room for a checkpoint: the table of `incarnation` in the directory of a copy. The incarnation must be a
    /// fresh one, drawn for this attempt.
    ///
    /// Refuses a list that no table can have, and one that would leave less than `disk_reserve_bytes` free.
    pub fn begin(
        copy_directory: &Path,
        incarnation: ReplicaIncarnation,
        checkpoint: &Checkpoint,
        disk_reserve_bytes: u64,
    ) -> Result<Incoming, CheckpointError> {
        let stream_bytes = check_list(&checkpoint.files)?;
        create_directory(copy_directory).map_err(failed(copy_directory, "make the directory"))?;
        let space = disk_space(copy_directory).map_err(failed(copy_directory, "look for room"))?;
        if stream_bytes > space.free_bytes.saturating_sub(disk_reserve_bytes) {
            return Err(CheckpointError::NoRoom { needed_bytes: stream_bytes, free_bytes: space.free_bytes });
        }
        let directory = table_directory(copy_directory, incarnation);
        // Fails if it is there: then the incarnation is not a fresh one.
        fs::create_dir(&directory).map_err(failed(&directory, "make the directory"))?;
        Ok(Incoming {
            copy_directory: copy_directory.to_owned(),
            directory,
            incarnation,
            applied: checkpoint.applied,
            files: checkpoint.files.clone(),
            next_file: 0,
            open: None,
            stream_bytes,
            received_bytes: 0,
            refused: false,
            finished: false,
        })
    }

    /// The incarnation it becomes.
    pub fn incarnation(&self) -> ReplicaIncarnation {
        self.incarnation
    }

    /// The decree it is of.
    pub fn applied(&self) -> Decree {
        self.applied
    }

    /// Bytes of the whole stream, checksums included.
    pub fn stream_bytes(&self) -> u64 {
        self.stream_bytes
    }

    /// Bytes taken so far.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Takes the next bytes of the stream, however it was cut. After an error it takes nothing any more: drop it.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        if self.refused {
            return Err(refused("an earlier part of it was refused"));
        }
        let written = self.write_all(bytes);
        self.refused = written.is_err();
        written
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), CheckpointError> {
        while !bytes.is_empty() {
            let Some(file) = self.open_file()? else {
                return Err(refused(format!("{} bytes follow its last file", bytes.len())));
            };
            let taken = file.take(bytes)?;
            let whole = file.is_whole();
            if whole {
                file.verify_and_sync()?;
            }
            bytes = &bytes[taken..];
            self.received_bytes += taken as u64;
            if whole {
                self.open = None;
            }
        }
        Ok(())
    }

    /// The file that takes the next byte; `None` if all are whole.
    fn open_file(&mut self) -> Result<Option<&mut ReceivedFile>, CheckpointError> {
        if self.open.is_none() {
            let Some(described) = self.files.get(self.next_file) else { return Ok(None) };
            self.open = Some(ReceivedFile::create(self.directory.join(&described.name), described.bytes)?);
            self.next_file += 1;
        }
        Ok(self.open.as_mut())
    }

    /// Makes the copy this table, durably, and opens it: the last call. `descriptor` is that of the copy from now on;
    /// it has to name this incarnation and the state learning. No other descriptor of the copy may be stored while
    /// this runs, and none of an earlier incarnation after it.
    ///
    /// After an error the old copy is the copy, unless storing the descriptor itself failed: then it is the one that
    /// the stored descriptor names.
    pub fn finish(self, shared: &TableShared, descriptor: &Descriptor) -> Result<Table, CheckpointError> {
        self.finish_stepwise(shared, descriptor, |_| ())
    }

    /// As [`Incoming::finish`], and says after each step that it is done. For tests.
    pub fn finish_stepwise(
        mut self,
        shared: &TableShared,
        descriptor: &Descriptor,
        mut done: impl FnMut(FinishStep),
    ) -> Result<Table, CheckpointError> {
        assert_eq!(descriptor.incarnation, self.incarnation, "the descriptor is that of the new incarnation");
        assert_eq!(descriptor.state, CopyState::Learning, "a copy that was just received has to catch up");
        if self.refused || self.received_bytes != self.stream_bytes {
            let (received, all) = (self.received_bytes, self.stream_bytes);
            return Err(refused(format!("{received} of {all} bytes were received")));
        }
        done(FinishStep::Received);
        sync_directory(&self.directory).map_err(failed(&self.directory, "sync"))?;
        sync_directory(&self.copy_directory).map_err(failed(&self.copy_directory, "sync"))?;
        done(FinishStep::Synced);
        let table = self.open_table(shared, descriptor.partition)?;
        done(FinishStep::Opened);
        let stored = descriptor.store(&self.copy_directory);
        // Also after a failure the stored descriptor may be the new one: then this table must stay.
        self.finished = true;
        stored.map_err(failed(&self.copy_directory, "store the descriptor"))?;
        done(FinishStep::Switched);
        Ok(table)
    }

    fn open_table(&self, shared: &TableShared, partition: PartitionId) -> Result<Table, CheckpointError> {
        let opened = Table::open(&self.directory, shared, partition, OpenMode::Existing);
        let table = opened.map_err(|error| match error.is_damage() {
            true => refused(format!("it does not open: {error}")),
            false => failed(&self.directory, "open")(error),
        })?;
        let (applied, flushed) = (table.applied(), table.flushed());
        if applied != self.applied || flushed != self.applied {
            let announced = self.applied;
            return Err(refused(format!("it is of decree {applied} ({flushed} in files), not {announced}")));
        }
        Ok(table)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            let directory = self.directory.display();
            tracing::warn!(%directory, %error, "half a checkpoint is not deleted before the next start");
        }
    }
}

impl ReceivedFile {
    fn create(path: PathBuf, bytes: u64) -> Result<ReceivedFile, CheckpointError> {
        let file = File::create_new(&path).map_err(failed(&path, "create"))?;
        Ok(ReceivedFile { file, path, bytes_left: bytes, unsent_bytes: 0, checksum: 0, trailer: Vec::new() })
    }

    /// Takes what belongs to this file off the front of the bytes; says how many that were.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, CheckpointError> {
        if self.bytes_left == 0 {
            let count = bytes.len().min(CHECKSUM_BYTES - self.trailer.len());
            self.trailer.extend_from_slice(&bytes[..count]);
            return Ok(count);
        }
        let count = usize::try_from(self.bytes_left).unwrap_or(usize::MAX).min(bytes.len());
        self.file.write_all(&bytes[..count]).map_err(failed(&self.path, "write"))?;
        self.checksum = crc32c::crc32c_append(self.checksum, &bytes[..count]);
        self.bytes_left -= count as u64;
        self.unsent_bytes += count as u64;
        if self.unsent_bytes >= UNSENT_BYTES_MAX {
            start_writing(&self.file);
            self.unsent_bytes = 0;
        }
        Ok(count)
    }

    fn is_whole(&self) -> bool {
        self.bytes_left == 0 && self.trailer.len() == CHECKSUM_BYTES
    }

    fn verify_and_sync(&mut self) -> Result<(), CheckpointError> {
        if self.trailer != self.checksum.to_le_bytes() {
            return Err(refused(format!("the checksum of {} does not fit", self.path.display())));
        }
        self.file.sync_all().map_err(failed(&self.path, "sync"))
    }
}

/// Tells the kernel to begin to write what the file holds, so that the sync at its end is short and the log's syncs do
/// not wait behind it. Says nothing about success: the sync does.
fn start_writing(file: &File) {
    // SAFETY: the descriptor is open for as long as the reference lives; the call touches no memory of ours.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Checks what a primary announced; gives the bytes that will follow.
fn check_list(files: &[CheckpointFile]) -> Result<u64, CheckpointError> {
    if files.len() > CHECKPOINT_FILES_MAX {
        return Err(refused(format!("it has {} files; at most {CHECKPOINT_FILES_MAX} are taken", files.len())));
    }
    let mut names = BTreeSet::new();
    for file in files {
        if !is_plain(&file.name) {
            return Err(refused(format!("{:?} is no name of a table's file", file.name)));
        }
        if !names.insert(file.name.as_str()) {
            return Err(refused(format!("it has {} twice", file.name)));
        }
    }
    if !names.contains("CURRENT") {
        return Err(refused("it has no file CURRENT, which every table has"));
    }
    stream_bytes(files).ok_or_else(|| refused("its files are larger than can be counted"))
}

/// True for a name that stays in its directory on every file system.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.starts_with('.') && (1..=CHECKPOINT_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

fn refused(text: impl Into<String>) -> CheckpointError {
    CheckpointError::Refused(text.into())
}

fn failed<E: Display>(path: &Path, action: &'static str) -> impl FnOnce(E) -> CheckpointError {
    CheckpointError::failed(path, action)
}

const UNSENT_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, u64)]) -> Vec<CheckpointFile> {
        list.iter().map(|(name, bytes)| CheckpointFile { name: (*name).to_owned(), bytes: *bytes }).collect()
    }

    #[test]
    fn only_lists_of_plain_distinct_names_are_taken() {
        assert_eq!(check_list(&files(&[("CURRENT", 16), ("000012.sst", 0)])).unwrap(), 24);
        let long = "n".repeat(CHECKPOINT_NAME_BYTES_MAX + 1);
        for name in ["", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a\0b", "a b", "\u{e4}", &long] {
            let error = check_list(&files(&[("CURRENT", 16), (name, 1)])).unwrap_err();
            assert!(matches!(error, CheckpointError::Refused(_)), "{name:?}: {error}");
        }
        for list in [&[("CURRENT", 1), ("a", 1), ("a", 2)][..], &[("a", 1)], &[], &[("CURRENT", u64::MAX)]] {
            let error = check_list(&files(list)).unwrap_err();
            assert!(matches!(error, CheckpointError::Refused(_)), "{list:?}: {error}");
        }
        let many: Vec<String> = (0..=CHECKPOINT_FILES_MAX).map(|number| number.to_string()).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), 1)).collect();
        assert!(check_list(&files(&many)).unwrap_err().to_string().contains("at most"));
    }

    #[test]
    fn early_writing_leaves_the_content_alone() {
        let directory = tempfile::tempdir().unwrap();
        let content = vec![7; 3 * UNSENT_BYTES_MAX as usize];
        let mut file = ReceivedFile::create(directory.path().join("x"), content.len() as u64).unwrap();
        for part in content.chunks(100_000) {
            assert_eq!(file.take(part).unwrap(), part.len());
        }
        assert_eq!(file.take(&crc32c::crc32c(&content).to_le_bytes()).unwrap(), CHECKSUM_BYTES);
        assert!(file.is_whole());
        file.verify_and_sync().unwrap();
        assert_eq!(fs::read(directory.path().join("x")).unwrap(), content);
    }
}
