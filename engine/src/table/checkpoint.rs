//! A checkpoint of a table: its files at one applied decree, hard-linked beside it, to be read by a learner.
//!
//! ```text
//!   table          flush, link, open to read          read in order
//!   (in use) ------------------------------> image --------------------> chunks: bytes of file 1, their checksum,
//!                                              |                                 bytes of file 2, their checksum, ...
//!                                              v  dropped
//!                                           deleted
//! ```
//!
//! Mutations are applied all the while: nothing stands still for a checkpoint. Which decree it is of is read from its
//! own files once they are there. Each byte is read once, and its checksum is computed on the way.
//!
//! An image costs the room of the files that the table gives up meanwhile, so it must never be kept longer than it is
//! read. It never outlives the process: what a crash leaves is deleted at the next start (`copies`). Everything here
//! blocks: run it, and drop it, in a pool.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pegasus_wire::Decree;
use pegasus_wire::limits::{CHECKPOINT_CHUNK_BYTES, CHECKPOINT_FILES_MAX, CHECKPOINT_NAME_BYTES_MAX};
use pegasus_wire::messages::peer::{Checkpoint, CheckpointFile};
use rocksdb::checkpoint::Checkpoint as RocksdbCheckpoint;
use rocksdb::{DB, ReadOptions};

use super::layout::{APPLIED_KEY, AppliedRecord};
use super::{CheckpointError, Table, TableShared};
use crate::durable_file::create_directory;

/// The files of a table at one applied decree. Deleted when dropped.
#[derive(Debug)]
pub struct CheckpointImage {
    directory: PathBuf,
    checkpoint: Checkpoint,
}

impl Table {
    /// Makes a checkpoint in `directory`, which must not exist and must be on the file system of the table. What is
    /// applied when this is called is in it, and perhaps more: [`CheckpointImage::checkpoint`] says up to where.
    pub fn checkpoint(&self, shared: &TableShared, directory: &Path) -> Result<CheckpointImage, CheckpointError> {
        if let Some(parent) = directory.parent() {
            create_directory(parent).map_err(failed(directory, "make its directory"))?;
        }
        if directory.exists() {
            return Err(failed(directory, MAKE)("it exists already"));
        }
        let least = self.applied();
        // RocksDB flushes for a checkpoint as well; a failure of this one is a failure of the table.
        self.flush()?;
        // From here on whatever is there is deleted, also after a failure.
        let checkpoint = Checkpoint { applied: least, files: Vec::new() };
        let mut image = CheckpointImage { directory: directory.to_owned(), checkpoint };
        let links = RocksdbCheckpoint::new(&self.inner.db).map_err(failed(directory, MAKE))?;
        links.create_checkpoint(directory).map_err(failed(directory, MAKE))?;
        let applied = applied_in(shared, directory)?;
        if applied < least {
            return Err(failed(directory, MAKE)(format!("it is of decree {applied}, below {least}")));
        }
        image.checkpoint.applied = applied;
        image.checkpoint.files = list(directory)?;
        Ok(image)
    }
}

impl CheckpointImage {
    /// What is in it, as a learner is told.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Bytes that [`CheckpointImage::read`] will give, checksums included.
    pub fn stream_bytes(&self) -> u64 {
        stream_bytes(&self.checkpoint.files).unwrap_or(u64::MAX)
    }

    /// Reads it from the beginning.
    pub fn read(self) -> CheckpointReader {
        CheckpointReader { image: self, next_file: 0, open: None, trailer: Vec::new() }
    }
}

impl Drop for CheckpointImage {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let directory = self.directory.display();
                tracing::warn!(%directory, %error, "a checkpoint is not deleted before the next start");
            }
            _ => {}
        }
    }
}

/// Reads an image chunk by chunk. The image is deleted when the reader is dropped.
pub struct CheckpointReader {
    image: CheckpointImage,
    next_file: usize,
    open: Option<OpenFile>,
    /// The rest of a checksum that did not fit the last chunk.
    trailer: Vec<u8>,
}

struct OpenFile {
    file: File,
    path: PathBuf,
    bytes_left: u64,
    checksum: u32,
}

impl CheckpointReader {
    /// What is read.
    pub fn image(&self) -> &CheckpointImage {
        &self.image
    }

    /// The next bytes of the stream: `CHECKPOINT_CHUNK_BYTES`, fewer at its end, `None` after it.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, CheckpointError> {
        let mut chunk = Vec::with_capacity(CHECKPOINT_CHUNK_BYTES);
        while chunk.len() < CHECKPOINT_CHUNK_BYTES {
            if !self.trailer.is_empty() {
                let count = self.trailer.len().min(CHECKPOINT_CHUNK_BYTES - chunk.len());
                chunk.extend(self.trailer.drain(..count));
            } else if let Some(open) = &mut self.open {
                open.read_into(&mut chunk)?;
                if open.bytes_left == 0 {
                    self.trailer = open.checksum.to_le_bytes().to_vec();
                    self.open = None;
                }
            } else if !self.open_next()? {
                break;
            }
        }
        Ok((!chunk.is_empty()).then(|| Bytes::from(chunk)))
    }

    /// False if all files were read.
    fn open_next(&mut self) -> Result<bool, CheckpointError> {
        let Some(described) = self.image.checkpoint.files.get(self.next_file) else { return Ok(false) };
        let path = self.image.directory.join(&described.name);
        let file = File::open(&path).map_err(failed(&path, "open"))?;
        self.open = Some(OpenFile { file, path, bytes_left: described.bytes, checksum: 0 });
        self.next_file += 1;
        Ok(true)
    }
}

impl OpenFile {
    /// Appends what the chunk still takes.
    fn read_into(&mut self, chunk: &mut Vec<u8>) -> Result<(), CheckpointError> {
        let begin = chunk.len();
        let wanted = self.bytes_left.min((CHECKPOINT_CHUNK_BYTES - begin) as u64);
        let read = (&self.file).take(wanted).read_to_end(chunk).map_err(failed(&self.path, "read"))? as u64;
        if read < wanted {
            return Err(failed(&self.path, "read")(format!("it ends {} bytes early", self.bytes_left - read)));
        }
        self.checksum = crc32c::crc32c_append(self.checksum, &chunk[begin..]);
        self.bytes_left -= read;
        Ok(())
    }
}

/// Bytes of the stream of these files; `None` if they are more than can be counted.
pub(super) fn stream_bytes(files: &[CheckpointFile]) -> Option<u64> {
    files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.bytes)?.checked_add(CHECKSUM_BYTES as u64))
}

/// Reads the applied decree out of the files of a checkpoint, which are not changed by it.
fn applied_in(shared: &TableShared, directory: &Path) -> Result<Decree, CheckpointError> {
    let mut options = shared.rocksdb().clone();
    // One row is read: few of its files need to be opened.
    options.set_max_open_files(FILES_OPEN_MAX);
    let db = DB::open_for_read_only(&options, directory, false).map_err(failed(directory, "open a checkpoint"))?;
    let mut once = ReadOptions::default();
    once.set_verify_checksums(true);
    once.fill_cache(false);
    match db.get_pinned_opt(APPLIED_KEY, &once).map_err(failed(directory, "read a checkpoint"))? {
        None => Ok(Decree::default()),
        Some(stored) => match AppliedRecord::decode(&stored) {
            Some(record) => Ok(record.decree),
            None => Err(failed(directory, "read a checkpoint")("its applied decree is malformed")),
        },
    }
}

/// The files of a checkpoint, by name.
fn list(directory: &Path) -> Result<Vec<CheckpointFile>, CheckpointError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed(directory, LIST))? {
        let entry = entry.map_err(failed(directory, LIST))?;
        let bytes = entry.metadata().map_err(failed(directory, LIST))?.len();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.len() > CHECKPOINT_NAME_BYTES_MAX || files.len() == CHECKPOINT_FILES_MAX {
            let detail = format!("{name:?} is too long a name or one file too many (limits.rs)");
            return Err(failed(directory, LIST)(detail));
        }
        files.push(CheckpointFile { name, bytes });
    }
    files.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(files)
}

fn failed<E: Display>(path: &Path, action: &'static str) -> impl FnOnce(E) -> CheckpointError {
    CheckpointError::failed(path, action)
}

const MAKE: &str = "make a checkpoint";
const LIST: &str = "list a checkpoint";

/// Bytes of the checksum behind each file.
pub(super) const CHECKSUM_BYTES: usize = 4;
const FILES_OPEN_MAX: i32 = 64;
