//! Reads segment files for recovery: blocking, read-only, one segment in memory at a time.
//!
//! A block that cannot be read counts as zeros: what was in it is then missing, and the walk decides what that means.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::LogError;
use super::format::{
    BLOCK_BYTES, HEADER_BYTES_MAX, SEGMENT_DATA_OFFSET, SegmentHeader, WriteHeader, may_begin_write, whole_blocks,
};
use super::options::WRITE_BYTES_MAX;

/// One segment file as found.
#[derive(Debug)]
pub(super) struct FoundSegment {
    pub(super) number: u32,
    pub(super) bytes: u64,
    /// Its first block, if that is whole.
    pub(super) header: Option<SegmentHeader>,
    /// The header of the write at its beginning, if that is whole.
    pub(super) first: Option<FoundWrite>,
    path: PathBuf,
}

/// A whole write header, found in a segment. Whether it belongs to the log is for the walk to say.
#[derive(Clone, Debug)]
pub(super) struct FoundWrite {
    /// Position of the segment in [`Segments::found`].
    pub(super) segment: usize,
    pub(super) offset: u64,
    pub(super) header: WriteHeader,
    pub(super) checksum: u32,
}

impl FoundWrite {
    /// Where the write ends.
    pub(super) fn end(&self) -> u64 {
        self.offset + u64::from(self.header.write_bytes)
    }
}

/// The segment files of a directory.
#[derive(Debug, Default)]
pub(super) struct Segments {
    pub(super) found: Vec<FoundSegment>,
    loaded: Option<(usize, Vec<u8>)>,
}

impl Segments {
    /// Lists the directory and reads the beginning of every segment.
    pub(super) fn open(directory: &Path) -> Result<Segments, LogError> {
        let mut segments = Segments::default();
        for (number, path) in list(directory)? {
            let at = segments.found.len();
            segments.found.push(open_segment(at, number, path)?);
        }
        Ok(segments)
    }

    /// The whole content of a segment.
    pub(super) fn content(&mut self, segment: usize) -> Result<&[u8], LogError> {
        if self.loaded.as_ref().is_none_or(|(loaded, _)| *loaded != segment) {
            let found = &self.found[segment];
            // The buffer of the last segment is used again.
            let mut bytes = self.loaded.take().map(|(_, bytes)| bytes).unwrap_or_default();
            bytes.clear();
            bytes.resize(found.bytes as usize, 0);
            read_what_can_be_read(&found.path, &mut bytes)?;
            self.loaded = Some((segment, bytes));
        }
        Ok(self.loaded.as_ref().map_or(&[], |(_, bytes)| bytes))
    }

    /// Every whole write header from `offset` on, whoever wrote it.
    pub(super) fn headers_from(&mut self, segment: usize, offset: u64) -> Result<Vec<FoundWrite>, LogError> {
        let content = self.content(segment)?;
        Ok(headers_in(content, segment, offset as usize, content.len()))
    }

    /// Every whole write header as near to the beginning as the second write of a segment can be.
    pub(super) fn headers_near_begin(&self, segment: usize) -> Result<Vec<FoundWrite>, LogError> {
        let found = &self.found[segment];
        let until = SEGMENT_DATA_OFFSET as usize + WRITE_BYTES_MAX + BLOCK_BYTES;
        let mut bytes = vec![0; (until + whole_blocks(HEADER_BYTES_MAX)).min(found.bytes as usize)];
        read_what_can_be_read(&found.path, &mut bytes)?;
        Ok(headers_in(&bytes, segment, SEGMENT_DATA_OFFSET as usize, until))
    }
}

/// Segment files of a directory, by number. A directory that does not exist has none.
pub(super) fn list(directory: &Path) -> Result<Vec<(u32, PathBuf)>, LogError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(LogError::io(directory, "list"))?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let entry = entry.map_err(LogError::io(directory, "list"))?;
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix(SEGMENT_PREFIX)?.parse().ok());
        segments.extend(number.map(|number: u32| (number, entry.path())));
    }
    segments.sort();
    Ok(segments)
}

/// Path of a segment file.
pub(super) fn segment_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{SEGMENT_PREFIX}{number:06}"))
}

fn open_segment(at: usize, number: u32, path: PathBuf) -> Result<FoundSegment, LogError> {
    let bytes = fs::metadata(&path).map_err(LogError::io(&path, "look up"))?.len();
    let begin = SEGMENT_DATA_OFFSET as usize;
    let mut block = vec![0; (begin + whole_blocks(HEADER_BYTES_MAX)).min(bytes as usize)];
    read_what_can_be_read(&path, &mut block)?;
    let first = headers_in(&block, at, begin, begin + BLOCK_BYTES).pop();
    Ok(FoundSegment { number, bytes, header: SegmentHeader::decode(&block), first, path })
}

/// Whole headers that begin on the blocks from `from` up to `until`.
fn headers_in(content: &[u8], segment: usize, from: usize, until: usize) -> Vec<FoundWrite> {
    let until = until.min(content.len());
    let blocks = (from..until).step_by(BLOCK_BYTES);
    let begins = blocks.filter(|offset| may_begin_write(&content[*offset..]));
    begins
        .filter_map(|offset| {
            let (header, checksum) = WriteHeader::decode(&content[offset..]).ok()?;
            Some(FoundWrite { segment, offset: offset as u64, header, checksum })
        })
        .collect()
}

/// Fills `bytes` from the beginning of a file. What cannot be read stays zero.
fn read_what_can_be_read(path: &Path, bytes: &mut [u8]) -> Result<(), LogError> {
    let file = File::open(path).map_err(LogError::io(path, "open"))?;
    for (chunk, bytes) in bytes.chunks_mut(CHUNK_BYTES).enumerate() {
        let offset = (chunk * CHUNK_BYTES) as u64;
        if file.read_exact_at(bytes, offset).is_ok() {
            continue;
        }
        for (block, bytes) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
            let offset = offset + (block * BLOCK_BYTES) as u64;
            if let Err(error) = file.read_exact_at(bytes, offset) {
                tracing::warn!(path = %path.display(), offset, %error, "a block of the log cannot be read");
                bytes.fill(0);
            }
        }
    }
    Ok(())
}

const SEGMENT_PREFIX: &str = "segment-";
const CHUNK_BYTES: usize = 1024 * 1024;

const _: () = assert!(CHUNK_BYTES.is_multiple_of(BLOCK_BYTES));
