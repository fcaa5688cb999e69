//! What a log is given, and the limits derived from it.

use std::path::PathBuf;

use super::error::LogError;
use super::format::{BLOCK_BYTES, HEADER_BYTES_MAX, RECORD_HEADER_BYTES};
use crate::identity::BootId;

/// Where a log lives and how large it may become. One log per core.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The log's own directory. It is made when it does not exist.
    pub directory: PathBuf,
    /// Size of one segment file: a multiple of 4096, from 256 KiB to 1 GiB. Default 32 MiB.
    pub segment_bytes: u64,
    /// Most bytes all segments together may take: at least four segments, at most 2048. Default 4 GiB. Allocated in
    /// the background. A restart with every segment in use may exceed it by the segment it starts in.
    pub budget_bytes: u64,
    /// Segments ready for writing before `open` returns, and kept ready before the background work slows down.
    /// From 2. Default 2.
    pub spare_segments: usize,
    /// The machine's present boot.
    pub boot: BootId,
}

impl LogOptions {
    /// The defaults.
    pub fn new(directory: impl Into<PathBuf>, boot: BootId) -> LogOptions {
        LogOptions {
            directory: directory.into(),
            segment_bytes: 32 * MIB,
            budget_bytes: 4096 * MIB,
            spare_segments: 2,
            boot,
        }
    }

    /// Checks every bound.
    pub fn validate(&self) -> Result<(), LogError> {
        let bad = |text: String| Err(LogError::Options(text));
        if !self.segment_bytes.is_multiple_of(BLOCK_BYTES as u64) {
            return bad(format!("segment_bytes is {} and must be a multiple of {BLOCK_BYTES}", self.segment_bytes));
        }
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return bad(format!(
                "segment_bytes is {} and must be from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}",
                self.segment_bytes
            ));
        }
        let segments = self.segments();
        if !(SEGMENTS_MIN..=SEGMENTS_MAX).contains(&segments) {
            return bad(format!(
                "budget_bytes is {}, which is {segments} segments; it must be from {SEGMENTS_MIN} to {SEGMENTS_MAX}",
                self.budget_bytes
            ));
        }
        if self.spare_segments < SPARE_SEGMENTS_MIN || self.spare_segments as u64 > segments {
            return bad(format!(
                "spare_segments is {} and must be from {SPARE_SEGMENTS_MIN} to {segments}",
                self.spare_segments
            ));
        }
        Ok(())
    }

    /// How many segments the budget allows.
    pub(super) fn segments(&self) -> u64 {
        self.budget_bytes / self.segment_bytes.max(1)
    }

    /// Largest log write, header and padding included.
    pub(super) fn write_bytes_max(&self) -> usize {
        let quarter = (self.segment_bytes / 4) as usize;
        quarter.min(WRITE_BYTES_MAX) / BLOCK_BYTES * BLOCK_BYTES
    }

    /// Largest encoded record.
    pub(super) fn record_bytes_max(&self) -> usize {
        self.write_bytes_max() - HEADER_BYTES_MAX
    }
}

const MIB: u64 = 1024 * 1024;
const SEGMENT_BYTES_MIN: u64 = 256 * 1024;
const SEGMENT_BYTES_MAX: u64 = 1024 * MIB;
/// One in use, one to go on in, one in reserve, one being freed.
const SEGMENTS_MIN: u64 = 4;
/// Bounds the open files and the size of the log's own file.
const SEGMENTS_MAX: u64 = 2048;
/// The segment that is written and the reserve.
const SPARE_SEGMENTS_MIN: usize = 2;
/// Bounds how long one write keeps the next waiting, and the space lost at the end of a segment.
pub(super) const WRITE_BYTES_MAX: usize = 2 * MIB as usize;

const _: () = assert!(WRITE_BYTES_MAX.is_multiple_of(BLOCK_BYTES));
/// The smallest segment still takes a write with the longest lists and some records.
const _: () = assert!(SEGMENT_BYTES_MIN as usize / 4 > 2 * HEADER_BYTES_MAX);
/// With segments of the default size a log write takes the largest mutation.
const _: () =
    assert!(pegasus_wire::limits::WRITE_BYTES_MAX + RECORD_HEADER_BYTES + HEADER_BYTES_MAX <= WRITE_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_checked() {
        let good = LogOptions::new("x", BootId::default());
        assert!(good.validate().is_ok());
        let bad = [
            LogOptions { segment_bytes: 32 * MIB + 1, ..good.clone() },
            LogOptions { segment_bytes: 64 * 1024, ..good.clone() },
            LogOptions { segment_bytes: 2048 * MIB, ..good.clone() },
            LogOptions { budget_bytes: 64 * MIB, ..good.clone() },
            LogOptions { budget_bytes: 1 << 50, ..good.clone() },
            LogOptions { spare_segments: 1, ..good.clone() },
            LogOptions { spare_segments: 1000, ..good },
        ];
        for options in bad {
            assert!(matches!(options.validate(), Err(LogError::Options(_))), "{options:?}");
        }
    }
}
