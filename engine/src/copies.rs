//! How copies come, are replaced and go: the steps on disk, in an order that a crash may interrupt anywhere.
//!
//! ```text
//! <data>/replicas/2.7/                     a copy
//!            descriptor                    names the incarnation, and by it the table
//!            rdb-<incarnation>/            its table
//!            rdb-<another incarnation>/    left over: a table on its way in, or one that was replaced
//! <data>/replicas/2.7.removed.<seconds>/   a copy that was set aside at that Unix time
//! <data>/checkpoints/                      images of tables that learners read; never outlive the process
//!
//!                 create_learning
//!   nothing,  -----------------------> Learning, empty  --- Incoming::finish --> Learning, as its primary was
//!   Damaged         new incarnation                          new incarnation            |
//!                                                                                      |  Descriptor::store
//!   set aside  <------------------------------- Whole <--------------------------------+
//!        |           set_aside                    |     Descriptor::store
//!        v  holding time                          +--------------------> Learning, with the same table
//!     deleted
//! ```
//!
//! Replacing the descriptor is the only step that changes which table is the copy's. What it does not name is left over
//! and deleted at the next start.
//!
//! This module must never decide that a copy is to go or to be replaced, never delete a table that a descriptor names,
//! and never touch a copy whose descriptor cannot be read, except to set it aside or to replace it when told. All
//! functions block: run them in a pool. No two of them may work on one copy at the same time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use pegasus_wire::{PartitionId, ReplicaIncarnation};

use crate::descriptor::{
    CopyState, Descriptor, FileError, Loaded, copy_directory, list, replicas_directory, table_directory,
};
use crate::durable_file::{create_directory, failed, sync_directory};
use crate::table::{OpenMode, Table, TableError, TableShared};

/// A copy could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Its directory or its descriptor.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its table.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// What [`clear_leftovers`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Tables of the previous format that got their incarnation into their name.
    pub tables_renamed: usize,
    /// Tables that no descriptor names.
    pub tables_deleted: usize,
    /// Checkpoints of tables.
    pub checkpoints_deleted: usize,
}

/// Brings the copies into the form that everything else relies on: the first thing at each start, before anything is
/// opened. A crash in it is repaired by the next start.
pub fn clear_leftovers(data_directory: &Path) -> Result<Cleared, FileError> {
    let mut cleared = Cleared::default();
    for copy in list(data_directory)? {
        let Loaded::Valid(descriptor) = copy.descriptor else { continue };
        let named = table_directory(&copy.directory, descriptor.incarnation);
        if !named.is_dir() {
            let unnamed = copy.directory.join(UNNAMED_TABLE);
            if !unnamed.is_dir() {
                // Its table is lost or was not made yet: nothing else may be taken for it, or deleted.
                continue;
            }
            // The version first: a release that knows only the old name must refuse, not call the table lost.
            descriptor.store(&copy.directory)?;
            fs::rename(&unnamed, &named).map_err(failed(&unnamed, "rename"))?;
            sync_directory(&copy.directory)?;
            cleared.tables_renamed += 1;
        }
        for other in tables_in(&copy.directory)? {
            if other != named {
                delete(&other)?;
                cleared.tables_deleted += 1;
            }
        }
    }
    cleared.checkpoints_deleted = entries(&checkpoints_directory(data_directory))?.len();
    delete(&checkpoints_directory(data_directory))?;
    Ok(cleared)
}

/// Makes an empty copy that learns, in place of none or of a damaged one, and opens its table. The incarnation must be
/// a fresh one. The table that was there is left over: [`remove_table`] deletes it, once nobody has it open.
pub fn create_learning(
    data_directory: &Path,
    descriptor: &Descriptor,
    shared: &TableShared,
) -> Result<Table, CopyError> {
    assert_eq!(descriptor.state, CopyState::Learning, "an empty copy has everything to learn");
    let directory = copy_directory(data_directory, descriptor.partition);
    create_directory(&directory)?;
    let path = table_directory(&directory, descriptor.incarnation);
    if path.exists() {
        let exists = io::Error::new(io::ErrorKind::AlreadyExists, "the incarnation is not a fresh one");
        return Err(failed(&path, "create")(exists).into());
    }
    // The table before the descriptor: who is named is there.
    let table = Table::open(&path, shared, descriptor.partition, OpenMode::CreateIfMissing)?;
    descriptor.store(&directory)?;
    Ok(table)
}

/// Deletes the table of an incarnation that is not the copy's (any more). Refuses if the descriptor names it.
pub fn remove_table(copy_directory: &Path, incarnation: ReplicaIncarnation) -> Result<(), FileError> {
    let path = table_directory(copy_directory, incarnation);
    if let Loaded::Valid(descriptor) = Descriptor::load(copy_directory)?
        && descriptor.incarnation == incarnation
    {
        let named = io::Error::new(io::ErrorKind::InvalidInput, "the descriptor names it");
        return Err(failed(&path, "delete")(named));
    }
    delete(&path)
}

/// A copy that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedCopy {
    /// The partition it is a copy of.
    pub partition: PartitionId,
    /// When it was set aside, in seconds since 1970.
    pub removed_seconds: u64,
    /// Where it is.
    pub directory: PathBuf,
}

/// Sets the copy of a partition aside: from now on the node holds none. Its table must be closed. Gives nothing if
/// there is no copy.
///
/// A whole copy is marked as learning first: the log keeps nothing for it any more, so one that an operator puts back
/// must not pass for whole.
pub fn set_aside(
    data_directory: &Path,
    partition: PartitionId,
    now_seconds: u64,
) -> Result<Option<RemovedCopy>, FileError> {
    let directory = copy_directory(data_directory, partition);
    if !directory.is_dir() {
        return Ok(None);
    }
    if let Loaded::Valid(descriptor) = Descriptor::load(&directory)?
        && descriptor.state == CopyState::Whole
    {
        Descriptor { state: CopyState::Learning, ..descriptor }.store(&directory)?;
    }
    let replicas = replicas_directory(data_directory);
    let aside = |seconds: u64| replicas.join(format!("{partition}{REMOVED}{seconds}"));
    // Another copy of the partition may have gone in the same second.
    let mut removed_seconds = now_seconds;
    while aside(removed_seconds).exists() {
        removed_seconds += 1;
    }
    let target = aside(removed_seconds);
    fs::rename(&directory, &target).map_err(failed(&directory, "set aside"))?;
    sync_directory(&replicas)?;
    Ok(Some(RemovedCopy { partition, removed_seconds, directory: target }))
}

/// The copies that were set aside and not deleted yet, by partition and time.
pub fn list_removed(data_directory: &Path) -> Result<Vec<RemovedCopy>, FileError> {
    let mut removed: Vec<RemovedCopy> =
        entries(&replicas_directory(data_directory))?.into_iter().filter_map(removed_copy).collect();
    removed.sort_by_key(|copy| (copy.partition, copy.removed_seconds));
    Ok(removed)
}

/// Deletes the copies that were set aside at least `holding_seconds` before now; gives those it deleted.
pub fn delete_removed(
    data_directory: &Path,
    now_seconds: u64,
    holding_seconds: u64,
) -> Result<Vec<RemovedCopy>, FileError> {
    let mut removed = list_removed(data_directory)?;
    // A time to come (a clock that was set back) is never past.
    removed.retain(|copy| now_seconds.checked_sub(copy.removed_seconds).is_some_and(|held| held >= holding_seconds));
    for copy in &removed {
        delete(&copy.directory)?;
    }
    Ok(removed)
}

/// A directory for a checkpoint of a table that nobody else gets from this process. It is not made.
pub fn fresh_checkpoint_directory(data_directory: &Path, partition: PartitionId) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    checkpoints_directory(data_directory).join(format!("{partition}-{number}"))
}

/// Directory of the checkpoints that learners read. On the file system of the tables, as hard links have to be.
fn checkpoints_directory(data_directory: &Path) -> PathBuf {
    data_directory.join("checkpoints")
}

/// The directories inside a copy's that are tables, also unnamed ones.
fn tables_in(copy_directory: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut tables = entries(copy_directory)?;
    tables.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name == UNNAMED_TABLE || name.starts_with(TABLE_PREFIX)
    });
    Ok(tables)
}

fn removed_copy(directory: PathBuf) -> Option<RemovedCopy> {
    let (partition, seconds) = directory.file_name()?.to_str()?.split_once(REMOVED)?;
    let (partition, removed_seconds) = (partition.parse().ok()?, seconds.parse().ok()?);
    Some(RemovedCopy { partition, removed_seconds, directory })
}

/// What is in a directory; nothing if it is not there.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, FileError> {
    let found = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found.map_err(failed(directory, "list"))?,
    };
    found.map(|entry| entry.map(|entry| entry.path()).map_err(failed(directory, "list"))).collect()
}

/// Deletes a directory with all that is in it, if it is there.
fn delete(directory: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(directory, "delete")(error)),
        _ => Ok(()),
    }
}

const TABLE_PREFIX: &str = "rdb-";
/// Where a table was under version 1 of the descriptor.
const UNNAMED_TABLE: &str = "rdb";
const REMOVED: &str = ".removed.";
