//! The disk by itself: direct writes of a block, and fdatasync after them, on blocks written before.
//!
//! Plain system calls from one thread, one at a time: what the log could do at best at depth 1.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::measure::{Latency, Measurement, thread_cpu};

/// Blocks must be a multiple of this for direct I/O on any disk.
pub const ALIGNMENT_BYTES: usize = 4096;

/// The three figures of the disk.
pub struct DiskFigures {
    /// A direct write alone.
    pub write: Measurement,
    /// The fdatasync after a direct write; its CPU is that of the pair.
    pub sync: Measurement,
    /// Both together, from the start of the write to the end of the fdatasync.
    pub pair: Measurement,
}

/// Measures writes of `block_bytes` into a file in `directory`, for `seconds` each with and without fdatasync. The
/// file is gone afterwards.
pub fn measure(directory: &Path, block_bytes: usize, seconds: Duration) -> Result<DiskFigures, Failure> {
    let file = prepare(directory)?;
    let buffer = AlignedBlock::new(block_bytes);
    let mut place = Place { block_bytes: block_bytes as u64, next: 0 };

    let write = {
        let mut latency = Latency::new();
        let (start, cpu) = (Instant::now(), thread_cpu());
        while start.elapsed() < seconds {
            let began = Instant::now();
            write_block(&file, buffer.bytes(), place.advance())?;
            latency.record(began.elapsed());
        }
        let used = thread_cpu() - cpu;
        Measurement::new(format!("direct write {block_bytes} B"), 1, &latency, start.elapsed()).with_client_cpu(used)
    };

    let (mut sync, mut pair) = (Latency::new(), Latency::new());
    let (start, cpu) = (Instant::now(), thread_cpu());
    while start.elapsed() < seconds {
        let began = Instant::now();
        write_block(&file, buffer.bytes(), place.advance())?;
        let written = Instant::now();
        file.sync_data().map_err(Failure::at("fdatasync the test file"))?;
        let synced = Instant::now();
        sync.record(synced - written);
        pair.record(synced - began);
    }
    let (used, wall) = (thread_cpu() - cpu, start.elapsed());
    Ok(DiskFigures {
        write,
        sync: Measurement::new("fdatasync after a write", 1, &sync, wall),
        pair: Measurement::new("write and fdatasync", 1, &pair, wall).with_client_cpu(used),
    })
}

/// A file without a name, filled with zeros and synced, so that later writes change neither size nor extents.
fn prepare(directory: &Path) -> Result<File, Failure> {
    let shown = directory.display();
    let mut named = tempfile::Builder::new()
        .prefix(".pegasus-perf-disk-")
        .tempfile_in(directory)
        .map_err(Failure::at(format!("make a test file in {shown}")))?;
    let zeros = vec![0u8; FILL_BYTES];
    for _ in 0..FILE_BYTES / FILL_BYTES as u64 {
        named.write_all(&zeros).map_err(Failure::at(format!("fill a test file in {shown}")))?;
    }
    named.as_file().sync_all().map_err(Failure::at(format!("sync a test file in {shown}")))?;
    OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(named.path()).map_err(Failure::at(format!(
        "open a file in {shown} for direct writes (a file system in memory does not take them; try --directory)"
    )))
}

fn write_block(file: &File, block: &[u8], offset: u64) -> Result<(), Failure> {
    let written = file.write_at(block, offset).map_err(Failure::at("write to the test file"))?;
    if written == block.len() {
        Ok(())
    } else {
        Err(Failure::new(format!("a direct write was cut to {written} bytes")))
    }
}

/// Where the next block goes: one after the other, from the start again at the end of the file.
struct Place {
    block_bytes: u64,
    next: u64,
}

impl Place {
    fn advance(&mut self) -> u64 {
        if self.next + self.block_bytes > FILE_BYTES {
            self.next = 0;
        }
        let offset = self.next;
        self.next += self.block_bytes;
        offset
    }
}

/// A block whose first byte is aligned for direct I/O: a part of a larger buffer.
struct AlignedBlock {
    storage: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBlock {
    fn new(length: usize) -> AlignedBlock {
        let storage = vec![0xA5; length + ALIGNMENT_BYTES];
        let start = storage.as_ptr().align_offset(ALIGNMENT_BYTES);
        AlignedBlock { storage, start, length }
    }

    fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }
}

/// Size of the test file: more than a disk's own cache lines, little enough to fill in a moment.
const FILE_BYTES: u64 = 64 * 1024 * 1024;
const FILL_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_whole() {
        for length in [4096, 8192, 1024 * 1024] {
            let block = AlignedBlock::new(length);
            assert_eq!(block.bytes().as_ptr() as usize % ALIGNMENT_BYTES, 0);
            assert_eq!(block.bytes().len(), length);
        }
    }

    #[test]
    fn places_wrap_before_the_end() {
        let mut place = Place { block_bytes: FILE_BYTES / 2 - 4096, next: 0 };
        assert_eq!(place.advance(), 0);
        assert_eq!(place.advance(), FILE_BYTES / 2 - 4096);
        assert_eq!(place.advance(), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let Err(failure) = measure(Path::new("/no/such/directory"), 4096, Duration::from_millis(1)) else {
            panic!("nothing can be written there");
        };
        assert!(failure.to_string().contains("/no/such/directory"), "{failure}");
    }

    #[test]
    fn the_disk_is_measured_and_nothing_is_left() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let figures = measure(directory.path(), 4096, Duration::from_millis(20)).unwrap();
        assert!(figures.write.operations > 0 && figures.pair.operations > 0);
        assert!(figures.pair.latency.p50_us >= figures.sync.latency.p50_us);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
