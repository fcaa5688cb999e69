//! Small files that are replaced as a whole, atomically and durably.
//!
//! ```text
//! offset size field          little endian
//!      0    8 magic          says what the file is
//!      8    4 version        of the body
//!     12    4 body bytes     n
//!     16    n body
//!   16+n    4 checksum       CRC-32C of bytes 0 to 16+n
//! ```
//!
//! A new version is written to `<name>.new`, synced, renamed over the old one, and the directory is synced. So a
//! crash leaves the old file or the new one, whole; a `.new` file that is left over means nothing and is written
//! over next time.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// What was found where a file was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded<T> {
    /// No such file.
    Absent,
    /// A whole file.
    Valid(T),
    /// A file that is not what was written: torn, altered, or of another kind. The text says what is wrong.
    Damaged(String),
}

/// A small file could not be read or replaced.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system said no.
    #[error("{path}: {action}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is whole and was written by a later release: it must not be touched by this one.
    #[error("{path} has format version {version}, this release reads up to {newest}; start the release that wrote it")]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version this release reads.
        newest: u32,
    },
}

/// Kind of a small file: its magic and the newest version of its body.
#[derive(Clone, Copy, Debug)]
pub struct FileKind {
    /// First bytes of every file of this kind.
    pub magic: [u8; 8],
    /// Newest version of its body.
    pub version: u32,
}

impl FileKind {
    /// The bytes of a file with this body.
    pub fn encode(&self, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len() + CHECKSUM_BYTES);
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Replaces the file at `path`. Blocks until the new content is durable.
    pub fn store(&self, path: &Path, body: &[u8]) -> Result<(), FileError> {
        let bytes = self.encode(body);
        let fresh = fresh_path(path);
        let mut file = File::create(&fresh).map_err(failed(&fresh, "create"))?;
        file.write_all(&bytes).map_err(failed(&fresh, "write"))?;
        file.sync_all().map_err(failed(&fresh, "sync"))?;
        drop(file);
        fs::rename(&fresh, path).map_err(failed(path, "replace"))?;
        sync_directory(path.parent().unwrap_or(Path::new(".")))
    }

    /// Reads the body of the file at `path` and its version.
    pub fn load(&self, path: &Path) -> Result<Loaded<Vec<u8>>, FileError> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Absent),
            Err(error) => return Err(failed(path, "open")(error)),
            // One byte more than allowed is read, so that a file that grew is seen and memory stays bounded.
            Ok(file) => {
                file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed(path, "read"))?;
            }
        }
        match self.open_envelope(&bytes) {
            Err(detail) => Ok(Loaded::Damaged(detail)),
            Ok((version, _)) if version > self.version => {
                Err(FileError::NewerVersion { path: path.to_owned(), version, newest: self.version })
            }
            Ok((_, body)) => Ok(Loaded::Valid(body.to_vec())),
        }
    }

    fn open_envelope<'a>(&self, bytes: &'a [u8]) -> Result<(u32, &'a [u8]), String> {
        if bytes.len() < HEADER_BYTES + CHECKSUM_BYTES {
            return Err(format!("{} bytes are too few for any file of this kind", bytes.len()));
        }
        if bytes[..8] != self.magic {
            return Err("it does not begin with the magic of its kind".to_owned());
        }
        let (content, stored) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        let body_bytes = u32_at(content, 12) as usize;
        if body_bytes != content.len() - HEADER_BYTES {
            return Err(format!("it states {body_bytes} body bytes and has {}", content.len() - HEADER_BYTES));
        }
        if crc32c::crc32c(content) != u32_at(stored, 0) {
            return Err("its checksum does not fit".to_owned());
        }
        Ok((u32_at(content, 8), &content[HEADER_BYTES..]))
    }
}

/// Where a new version is written before it replaces the old one.
pub(crate) fn fresh_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".new");
    path.with_file_name(name)
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), FileError> {
    let handle = File::open(directory).map_err(failed(directory, "open"))?;
    handle.sync_all().map_err(failed(directory, "sync"))
}

/// Makes a directory and its missing parents, each durable in its own parent.
pub(crate) fn create_directory(directory: &Path) -> Result<(), FileError> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_directory(parent)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(directory, "create")(error)),
        _ => {}
    }
    sync_directory(parent)
}

/// Names the file and the action of an operating system error.
pub(crate) fn failed<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError::Io { path: path.to_owned(), action, source }
}

/// Takes fixed-width fields off the front of a body. Every method is `None` when the body is too short.
pub(crate) struct BodyReader<'a>(pub(crate) &'a [u8]);

impl<'a> BodyReader<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]])
}

const HEADER_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
/// Far above any file of these kinds; a larger one is damaged.
const FILE_BYTES_MAX: u64 = 64 * 1024;
