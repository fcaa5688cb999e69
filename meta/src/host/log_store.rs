//! Raft's log and vote in the store.
//!
//! Writes are durable when they are answered. They are not gathered here: commands that come together are one
//! entry already (see the group's batches), and Raft waits for each append anyway.

use std::fmt::Debug;
use std::ops::RangeBounds;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogId, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote};

use super::group::{Entry, TypeConfig};
use super::store::{Change, Commit, Key, Store, StoreError, encode};

/// The log of this member. Clones read the same log.
#[derive(Clone)]
pub struct LogStore {
    store: Store,
}

impl LogStore {
    /// The log inside a store.
    pub fn new(store: Store) -> LogStore {
        LogStore { store }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        self.store.entries(range).map_err(read_logs)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError<u64>> {
        let last: Option<Entry> = self.store.last_entry().map_err(read_logs)?;
        let last_purged_log_id: Option<LogId<u64>> = self.store.get(Key::Purged).map_err(read_logs)?;
        let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        let changes = vec![Change::Put(Key::Vote, encode(vote))];
        let done = self.store.commit(changes, Commit::Durable).await;
        done.map_err(|error| StorageIOError::write_vote(AnyError::new(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        self.store.get(Key::Vote).map_err(|error| StorageIOError::read_vote(AnyError::new(&error)).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Result<(), StorageError<u64>> {
        // A hint: with an older value the rest is applied again when this member next hears a leader.
        let changes = vec![Change::Put(Key::Committed, encode(&committed))];
        self.store.commit(changes, Commit::Lazy).await.map_err(write_logs)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>, StorageError<u64>> {
        let committed: Option<Option<LogId<u64>>> = self.store.get(Key::Committed).map_err(read_logs)?;
        Ok(committed.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encoded = entries.into_iter().map(|entry| (entry.log_id.index, encode(&entry))).collect();
        self.store.commit(vec![Change::Append(encoded)], Commit::Durable).await.map_err(write_logs)?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        let changes = vec![Change::RemoveFrom(log_id.index)];
        self.store.commit(changes, Commit::Durable).await.map_err(write_logs)
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        let changes = vec![Change::Put(Key::Purged, encode(&log_id)), Change::RemoveThrough(log_id.index)];
        self.store.commit(changes, Commit::Durable).await.map_err(write_logs)
    }
}

fn read_logs(error: StoreError) -> StorageError<u64> {
    StorageIOError::read_logs(AnyError::new(&error)).into()
}

fn write_logs(error: StoreError) -> StorageError<u64> {
    StorageIOError::write_logs(AnyError::new(&error)).into()
}
