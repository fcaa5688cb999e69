//! Why the log refused or failed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use pegasus_wire::{Decree, PartitionId};

use super::record::LogRecord;
use crate::descriptor::FileError;

/// A call of the log did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A write or a sync failed earlier, or the log was stopped. Nothing can be appended until the process
    /// restarts and recovers. The reason is the first one.
    #[error("the log takes no more writes until restart: {reason}")]
    Closed {
        /// What happened first.
        reason: Arc<str>,
    },
    /// No room within the budget: the partitions that hold the oldest segments have to be flushed. The log stays
    /// open.
    #[error("the log is full: {used_bytes} of {budget_bytes} bytes hold records that are not flushed")]
    Full {
        /// Bytes of segments that hold records.
        used_bytes: u64,
        /// The budget.
        budget_bytes: u64,
    },
    /// The record is larger than one log write may be. The log stays open.
    #[error("a record of {bytes} bytes is larger than the {bytes_max} a log write takes")]
    TooLarge {
        /// Encoded size of the record.
        bytes: usize,
        /// Largest size taken.
        bytes_max: usize,
    },
    /// The decree asked for is not in the log (any more).
    #[error("decree {decree} of partition {partition} is not in the log")]
    NotInLog {
        /// The partition.
        partition: PartitionId,
        /// The first decree that is missing.
        decree: Decree,
        /// The lowest decree beyond it that is there, if any is.
        first_available: Option<Decree>,
    },
    /// What was read is not what was written.
    #[error("segment {segment} at {offset}: {detail}")]
    Damaged {
        /// Number of the segment.
        segment: u32,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        detail: String,
    },
    /// The options contradict each other or a limit.
    #[error("log options: {0}")]
    Options(String),
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
    /// The log's own small file could not be read or replaced.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The log did not take a record: here it is, whole, and why.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct AppendRefused {
    /// The record as it was given.
    pub record: LogRecord,
    /// [`LogError::Closed`], [`LogError::Full`] or [`LogError::TooLarge`].
    pub error: LogError,
}

impl LogError {
    /// Names the file and the action of an operating system error.
    pub(super) fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(io::Error) -> LogError {
        let path = path.into();
        move |source| LogError::Io { path, action, source }
    }
}
