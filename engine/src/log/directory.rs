//! A log directory as a whole: giving it up durably. Blocks.
//!
//! When a node restarts with another number of cores, what the old logs still hold is appended to the logs of the
//! new owners and synced; then the old directories are retired. A crash in between repeats all of it, which is
//! harmless: a record that is logged twice counts once.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::error::LogError;
use super::meta::META_NAME;
use super::scan;
use crate::durable_file::sync_directory;

/// A directory that may hold a log.
#[derive(Clone, Debug)]
pub struct LogDirectory {
    path: PathBuf,
}

impl LogDirectory {
    /// Names a directory; nothing is touched.
    pub fn new(path: impl Into<PathBuf>) -> LogDirectory {
        LogDirectory { path: path.into() }
    }

    /// True if there is a log that was not retired.
    pub fn exists(&self) -> Result<bool, LogError> {
        let log = self.path.join(META_NAME).exists() || !scan::list(&self.path)?.is_empty();
        Ok(log && !is_retired(&self.path))
    }

    /// Gives the log up and deletes it. What it holds must be synced elsewhere. From the first durable step on
    /// recovery finds an empty log here, so a crash at any moment leaves the old log whole or no log; call it again
    /// to finish. A directory without a log is fine.
    pub fn retire(&self) -> Result<(), LogError> {
        let path = &self.path;
        if !path.is_dir() {
            return Ok(());
        }
        let marker = path.join(RETIRED_NAME);
        if !marker.exists() {
            File::create(&marker).map_err(LogError::io(&marker, "create"))?;
        }
        sync_directory(path)?;
        for (_, segment) in scan::list(path)? {
            remove(&segment)?;
        }
        remove(&path.join(META_NAME))?;
        sync_directory(path)?;
        remove(&marker)?;
        sync_directory(path)?;
        Ok(())
    }
}

/// True if the log was given up, though perhaps not all of it is deleted.
pub(super) fn is_retired(directory: &Path) -> bool {
    directory.join(RETIRED_NAME).exists()
}

fn remove(path: &Path) -> Result<(), LogError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::io(path, "delete")(error)),
        _ => Ok(()),
    }
}

const RETIRED_NAME: &str = "retired";
