//! What can go wrong with a table, by what its owner should do about it.

use std::path::{Path, PathBuf};

use pegasus_wire::{Decree, PartitionId};
use rocksdb::ErrorKind;

/// A table could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The files are not what was written: missing, altered, or not a table. Stop the copy and mark it damaged; it
    /// has to be learned again.
    #[error("the table in {path} is damaged ({action}): {detail}")]
    Damaged {
        /// The table's directory.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What RocksDB said.
        detail: String,
    },
    /// A committed mutation is not what was admitted. Stop the copy; never skip the mutation.
    #[error("mutation {decree} of partition {partition} cannot be applied: {detail}")]
    Corrupt {
        /// The partition.
        partition: PartitionId,
        /// The mutation.
        decree: Decree,
        /// What is wrong with it.
        detail: String,
    },
    /// The operating system or RocksDB refused (no room, no permission, in use, an earlier failed flush). Stop the
    /// copy; after a restart it may be whole again.
    #[error("the table in {path} failed ({action}): {detail}")]
    Failed {
        /// The table's directory.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What RocksDB said.
        detail: String,
    },
    /// Options that contradict each other or the machine.
    #[error("storage options: {0}")]
    Options(String),
}

impl TableError {
    /// True if the copy has to be marked damaged.
    pub fn is_damage(&self) -> bool {
        matches!(self, TableError::Damaged { .. } | TableError::Corrupt { .. })
    }

    pub(super) fn from_rocksdb(path: &Path, action: &'static str, error: rocksdb::Error) -> TableError {
        let damaged = match error.kind() {
            ErrorKind::Corruption | ErrorKind::NotFound => true,
            // A file that the manifest or CURRENT names, and CURRENT itself when a table has to exist.
            ErrorKind::IOError => error.as_ref().contains("No such file or directory"),
            ErrorKind::InvalidArgument => error.as_ref().contains("does not exist"),
            _ => false,
        };
        let (path, detail) = (path.to_owned(), error.into_string());
        if damaged { TableError::Damaged { path, action, detail } } else { TableError::Failed { path, action, detail } }
    }

    pub(super) fn damaged(path: &Path, action: &'static str, detail: impl Into<String>) -> TableError {
        TableError::Damaged { path: path.to_owned(), action, detail: detail.into() }
    }
}

/// A checkpoint could not be made, read or taken in. Except for [`CheckpointError::Table`] neither the table it is of
/// nor the copy it was meant for is touched: try again later.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The table the checkpoint is of failed. To be dealt with as any other failure of that table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// What was sent is not a checkpoint, or not the one that was announced.
    #[error("not a checkpoint that can be taken in: {0}")]
    Refused(String),
    /// The file system has too little room for it.
    #[error("a checkpoint of {needed_bytes} bytes does not fit in {free_bytes} free bytes less the reserve")]
    NoRoom {
        /// What it takes.
        needed_bytes: u64,
        /// What the file system has free, the reserve included.
        free_bytes: u64,
    },
    /// The operating system or RocksDB refused.
    #[error("{path}: {action}: {detail}")]
    Failed {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What was said.
        detail: String,
    },
}

impl CheckpointError {
    /// Names the file and the action of an error.
    pub(super) fn failed<E: std::fmt::Display>(path: &Path, action: &'static str) -> impl FnOnce(E) -> CheckpointError {
        move |error| CheckpointError::Failed { path: path.to_owned(), action, detail: error.to_string() }
    }
}
