//! The durable file of a meta server: Raft's vote, log and snapshot in one redb database.
//!
//! Every commit is synced before it is answered, in two phases, so that a file that was damaged later is reported
//! rather than silently taken back by one commit. The file is checked as a whole when it is opened; it is small.
//!
//! ```text
//! <data_directory>/meta.redb
//!   table "log"     index (u64) -> Raft entry (JSON)
//!   table "values"  "format"    -> 1
//!                   "vote"      -> Raft vote (JSON)
//!                   "committed" -> id of the last entry known committed (JSON)
//!                   "purged"    -> id of the last entry removed behind a snapshot (JSON)
//!                   "snapshot"  -> what the snapshot covers (JSON)
//!                   "state"     -> the snapshot itself (JSON, see `State::encode`)
//! ```

use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An open database. Clones share it.
#[derive(Clone)]
pub struct Store {
    database: Arc<Database>,
}

/// What goes wrong with the file. No error is retried: Raft stops at the first one.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or the file cannot be made or opened.
    #[error("cannot open {path}: {source}; is the directory there, writable and not full?")]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process works on the same directory.
    #[error("{path} is in use by another process; two meta servers must not share a data directory")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what was written.
    #[error(
        "{path} is damaged: {detail}; restore the file from a copy no older than the last change of a table or \
         configuration, nodes refuse an older one"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Written by another release.
    #[error("{path} has format {found}, this release reads format {FORMAT}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The number in it.
        found: u64,
    },
    /// A read or commit failed.
    #[error("the database failed: {0}")]
    Database(#[from] redb::Error),
    /// A record does not decode.
    #[error("the record {key} of the database is malformed: {detail}")]
    Record {
        /// Its key.
        key: String,
        /// What was found.
        detail: String,
    },
}

/// Single records, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Number of the file's layout.
    Format,
    /// Raft's vote.
    Vote,
    /// The last entry known to be committed.
    Committed,
    /// The last entry removed from the front of the log.
    Purged,
    /// What the snapshot covers.
    Snapshot,
    /// The snapshot.
    State,
}

impl Key {
    fn name(self) -> &'static str {
        match self {
            Key::Format => "format",
            Key::Vote => "vote",
            Key::Committed => "committed",
            Key::Purged => "purged",
            Key::Snapshot => "snapshot",
            Key::State => "state",
        }
    }
}

/// One change of the file. A list of them is one commit.
#[derive(Debug)]
pub enum Change {
    /// Sets a single record.
    Put(Key, Vec<u8>),
    /// Adds or replaces log entries.
    Append(Vec<(u64, Vec<u8>)>),
    /// Removes the entries from this index on.
    RemoveFrom(u64),
    /// Removes the entries up to this index, inclusive.
    RemoveThrough(u64),
}

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Synced before it is answered.
    Durable,
    /// Made durable by the next durable commit. For hints that may be lost.
    Lazy,
}

impl Store {
    /// Opens the database of a data directory; makes both if they are not there. Blocking.
    pub fn open(directory: &Path) -> Result<Store, StoreError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| StoreError::Unusable { path: directory.to_owned(), source })?;
        let path = directory.join(FILE);
        if !path.exists() {
            create(directory, &path)?;
        }
        let database = builder().open(&path).map_err(|error| open_error(&path, error))?;
        let store = Store { database: Arc::new(database) };
        let format = store.get::<u64>(Key::Format).map_err(|error| damaged(&path, error))?;
        match format {
            Some(FORMAT) => Ok(store),
            Some(found) => Err(StoreError::Format { path, found }),
            None => Err(StoreError::Damaged { path, detail: "it has no format number".to_owned() }),
        }
    }

    /// Reads and decodes a single record. Short: the file is in the page cache.
    pub fn get<T: DeserializeOwned>(&self, key: Key) -> Result<Option<T>, StoreError> {
        match self.get_bytes(key)? {
            Some(bytes) => decode(key.name(), &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Reads a single record as it is.
    pub fn get_bytes(&self, key: Key) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let table = self.database.begin_read()?.open_table(VALUES)?;
            Ok(table.get(key.name())?.map(|value| value.value().to_vec()))
        };
        Ok(read()?)
    }

    /// Reads and decodes the log entries of a range of indices that are there.
    pub fn entries<T: DeserializeOwned>(&self, range: impl RangeBounds<u64>) -> Result<Vec<T>, StoreError> {
        let read = || -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
            let table = self.database.begin_read()?.open_table(LOG)?;
            let mut found = Vec::new();
            for item in table.range(range)? {
                let (index, bytes) = item?;
                found.push((index.value(), bytes.value().to_vec()));
            }
            Ok(found)
        };
        read()?.into_iter().map(|(index, bytes)| decode(&format!("log {index}"), &bytes)).collect()
    }

    /// Reads and decodes the last log entry.
    pub fn last_entry<T: DeserializeOwned>(&self) -> Result<Option<T>, StoreError> {
        let read = || -> Result<Option<(u64, Vec<u8>)>, redb::Error> {
            let table = self.database.begin_read()?.open_table(LOG)?;
            Ok(table.last()?.map(|(index, bytes)| (index.value(), bytes.value().to_vec())))
        };
        match read()? {
            Some((index, bytes)) => decode(&format!("log {index}"), &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Carries out the changes as one commit, on a blocking thread.
    pub async fn commit(&self, changes: Vec<Change>, commit: Commit) -> Result<(), StoreError> {
        let database = Arc::clone(&self.database);
        let job = move || commit_now(&database, &changes, commit);
        let done = tokio::task::spawn_blocking(job).await;
        Ok(done.map_err(|error| redb::Error::Io(io::Error::other(error)))??)
    }
}

/// Encodes a record.
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have only encodable fields")
}

fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Record { key: key.to_owned(), detail: error.to_string() })
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Makes the file under another name first, so that a crash never leaves an empty file that looks like a lost one.
fn create(directory: &Path, path: &Path) -> Result<(), StoreError> {
    let unusable = |source| StoreError::Unusable { path: path.to_owned(), source };
    let unfinished = directory.join(format!("{FILE}.new"));
    if unfinished.exists() {
        std::fs::remove_file(&unfinished).map_err(unusable)?;
    }
    let database = builder().create(&unfinished).map_err(|error| open_error(path, error))?;
    commit_now(&database, &[Change::Put(Key::Format, encode(&FORMAT)), Change::Append(Vec::new())], Commit::Durable)?;
    drop(database);
    std::fs::rename(&unfinished, path).map_err(unusable)?;
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(unusable)
}

fn commit_now(database: &Database, changes: &[Change], commit: Commit) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    if commit == Commit::Lazy {
        transaction.set_durability(redb::Durability::None)?;
    }
    for change in changes {
        perform(&transaction, change)?;
    }
    transaction.commit()?;
    Ok(())
}

fn perform(transaction: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Put(key, bytes) => {
            transaction.open_table(VALUES)?.insert(key.name(), bytes.as_slice())?;
        }
        Change::Append(entries) => {
            let mut log = transaction.open_table(LOG)?;
            for (index, bytes) in entries {
                log.insert(index, bytes.as_slice())?;
            }
        }
        Change::RemoveFrom(index) => transaction.open_table(LOG)?.retain_in::<u64, _>(*index.., |_, _| false)?,
        Change::RemoveThrough(index) => transaction.open_table(LOG)?.retain_in::<u64, _>(..=*index, |_, _| false)?,
    }
    Ok(())
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => StoreError::InUse { path },
        DatabaseError::Storage(redb::StorageError::Io(source)) if source.kind() != io::ErrorKind::InvalidData => {
            StoreError::Unusable { path, source }
        }
        other => StoreError::Damaged { path, detail: other.to_string() },
    }
}

fn damaged(path: &Path, error: StoreError) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), detail: error.to_string() }
}

/// Name of the file inside the data directory.
pub const FILE: &str = "meta.redb";
/// Number of the file's layout.
const FORMAT: u64 = 1;
/// The whole file fits many times over.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
const LOG: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("log");
const VALUES: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("values");
