//! The core behind Raft: applies committed commands in memory, keeps snapshots in the store.
//!
//! The state itself is only in memory; after a start it is the last snapshot plus the log behind it. Nothing is
//! read from it before this member is leader and has applied everything committed (see the group's start).

use std::io::Cursor;
use std::sync::{Arc, PoisonError, RwLock};

use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError,
    StorageIOError, StoredMembership,
};
use tokio::sync::watch;

use super::group::{Entry, Outcomes, TypeConfig};
use super::store::{Change, Commit, Key, Store, StoreError, encode};
use crate::core::{State, apply};

/// The applied state, shared with those who read it.
pub struct Applied {
    current: RwLock<Current>,
    revision: watch::Sender<u64>,
    changes: watch::Sender<u64>,
}

/// A state, and how many times this process has changed it.
struct Current {
    state: State,
    changes: u64,
}

impl Applied {
    fn new(state: State) -> Applied {
        let (revision, changes) = (watch::Sender::new(state.revision()), watch::Sender::new(0));
        Applied { current: RwLock::new(Current { state, changes: 0 }), revision, changes }
    }

    /// Looks at the state. `look` must be short: commands wait for it.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.read_numbered(|state, _| look(state))
    }

    /// Looks at the state and its number of changes. `look` must be short: commands wait for it.
    pub fn read_numbered<T>(&self, look: impl FnOnce(&State, u64) -> T) -> T {
        // A panic while the lock was held would have been in `apply`, which never panics half way.
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        look(&current.state, current.changes)
    }

    /// Tells when [`State::revision`] has moved.
    pub fn watch_revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Tells when something was applied, whether or not the revision moved.
    pub fn watch_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut current.state);
        current.changes += 1;
        let (revision, changes) = (current.state.revision(), current.changes);
        drop(current);
        self.revision.send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
        self.changes.send_replace(changes);
        result
    }
}

/// The state machine Raft drives.
pub struct StateMachine {
    store: Store,
    applied: Arc<Applied>,
    last_applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, openraft::BasicNode>,
}

impl StateMachine {
    /// Starts from the snapshot in the store, or from nothing.
    pub fn open(store: Store) -> Result<StateMachine, StoreError> {
        let mut machine = StateMachine {
            store: store.clone(),
            applied: Arc::new(Applied::new(State::default())),
            last_applied: None,
            membership: StoredMembership::default(),
        };
        if let Some((meta, state)) = load(&store)? {
            machine.last_applied = meta.last_log_id;
            machine.membership = meta.last_membership;
            machine.applied = Arc::new(Applied::new(decode_state(&state)?));
        }
        Ok(machine)
    }

    /// The applied state.
    pub fn applied(&self) -> Arc<Applied> {
        Arc::clone(&self.applied)
    }

    fn apply_entry(&mut self, entry: Entry) -> Outcomes {
        self.last_applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Outcomes::default(),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Outcomes::default()
            }
            EntryPayload::Normal(batch) => {
                self.applied.write(|state| Outcomes(batch.0.into_iter().map(|command| apply(state, command)).collect()))
            }
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, openraft::BasicNode>), StorageError<u64>> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcomes>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(entries.into_iter().map(|entry| self.apply_entry(entry)).collect())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            store: self.store.clone(),
            state: self.applied.read(State::clone),
            last_applied: self.last_applied,
            membership: self.membership.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Box<Cursor<Vec<u8>>>) -> Result<(), StorageError<u64>> {
        let bytes = snapshot.into_inner();
        let state = decode_state(&bytes).map_err(read_snapshot)?;
        save(&self.store, meta, bytes).await.map_err(write_snapshot)?;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.applied.write(|current| *current = state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError<u64>> {
        let found = load(&self.store).map_err(read_snapshot)?;
        Ok(found.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

/// Writes a snapshot of the state as it was when the builder was made.
pub struct SnapshotBuilder {
    store: Store,
    state: State,
    last_applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, openraft::BasicNode>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError<u64>> {
        let position = self.last_applied.map_or("start".to_owned(), |log_id| log_id.to_string());
        let meta = SnapshotMeta {
            last_log_id: self.last_applied,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{position}-revision-{}", self.state.revision()),
        };
        let bytes = self.state.encode();
        save(&self.store, &meta, bytes.clone()).await.map_err(write_snapshot)?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}

type Meta = SnapshotMeta<u64, openraft::BasicNode>;

fn load(store: &Store) -> Result<Option<(Meta, Vec<u8>)>, StoreError> {
    // Both records are written by one commit.
    match (store.get(Key::Snapshot)?, store.get_bytes(Key::State)?) {
        (Some(meta), Some(bytes)) => Ok(Some((meta, bytes))),
        _ => Ok(None),
    }
}

async fn save(store: &Store, meta: &Meta, bytes: Vec<u8>) -> Result<(), StoreError> {
    let changes = vec![Change::Put(Key::Snapshot, encode(meta)), Change::Put(Key::State, bytes)];
    store.commit(changes, Commit::Durable).await
}

fn decode_state(bytes: &[u8]) -> Result<State, StoreError> {
    State::decode(bytes).map_err(|error| StoreError::Record { key: "state".to_owned(), detail: error.to_string() })
}

fn read_snapshot(error: StoreError) -> StorageError<u64> {
    StorageIOError::read_snapshot(None, AnyError::new(&error)).into()
}

fn write_snapshot(error: StoreError) -> StorageError<u64> {
    StorageIOError::write_snapshot(None, AnyError::new(&error)).into()
}
