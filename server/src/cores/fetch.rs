//! A learner's checkpoint on its way in: from the primary's core into a table of a new incarnation, which then takes
//! the place of the copy.
//!
//! ```text
//!   own connection --> FETCH_CHECKPOINT --> Checkpoint (what will come) --> CHECKPOINT_CHUNK ... --> all here
//!                                                                             | pool, one at a time        |
//!   failed at any point: what came is deleted, the replica hears CheckpointFailed                         v
//!                                                                     the copy leaves, its replica with it
//!                                                                     the descriptor names the new incarnation
//!                                                                     a new replica begins from the checkpoint
//! ```
//!
//! The connection is its own, so that a checkpoint never stands before prepares and beacons. Only the last step touches
//! the copy; if that fails, the old table gets a new replica.
//!
//! A fetch that the replica no longer waits for (its primary established it again, or told it to take another
//! checkpoint) ends by itself: `Partition::fetch` names the one that counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pegasus_engine::copies;
use pegasus_engine::descriptor::{CopyState, Descriptor, copy_directory};
use pegasus_engine::table::{CheckpointError, Incoming, Table};
use pegasus_replication::{Event, Phase, Recovered};
use pegasus_rpc::{Alpn, FrameReader, Role};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::peer::{Checkpoint, FetchCheckpoint};
use pegasus_wire::{
    Ballot, Decree, Frame, FrameBuilder, FrameHeader, MessageKind, NodeId, PartitionId, ReplicaIncarnation, Status,
    TableProperties,
};

use super::copies::Departing;
use super::partition::{Broken, CopyId, Partition};
use super::{Core, State};

/// How long the primary may take to make a checkpoint: its table is flushed for it.
const MAKE: Duration = Duration::from_secs(120);
/// How long the next bytes may take. A dead connection is noticed earlier.
const CHUNK: Duration = Duration::from_secs(30);

/// What a replica asked for.
#[derive(Clone, Copy)]
struct Goal {
    copy: CopyId,
    /// Tells this fetch from an earlier one of the same copy.
    number: u64,
    from: NodeId,
    ballot: Ballot,
    committed: Decree,
}

/// A checkpoint that pool and core pass to each other; empty once it was put to use.
type Shared = Arc<Mutex<Option<Incoming>>>;

/// Why a fetch ended early.
enum Ended {
    /// The replica does not wait for it any more.
    Superseded,
    Failed(String),
}

impl From<String> for Ended {
    fn from(reason: String) -> Ended {
        Ended::Failed(reason)
    }
}

impl Core {
    /// Begins to fetch a checkpoint for a learner.
    pub(crate) fn fetch_checkpoint(
        &self,
        state: &mut State,
        id: PartitionId,
        from: NodeId,
        ballot: Ballot,
        committed: Decree,
    ) {
        let Some(partition) = state.partitions.get_mut(&id) else { return };
        partition.fetch += 1;
        let goal = Goal { copy: partition.copy(), number: partition.fetch, from, ballot, committed };
        let core = self.clone();
        state.later.push(Box::pin(async move {
            tracing::info!(partition = %id, %from, %committed, "fetching a checkpoint");
            match core.fetch(goal).await {
                Ok(()) => tracing::info!(partition = %id, "the checkpoint is the copy now"),
                Err(Ended::Superseded) => tracing::info!(partition = %id, "the checkpoint is not needed any more"),
                Err(Ended::Failed(reason)) => {
                    tracing::warn!(partition = %id, %from, %reason, "the checkpoint could not be had");
                    core.count(|counters| counters.checkpoints_failed += 1);
                    if core.waits_for(&goal) {
                        core.post_to(goal.copy, Event::CheckpointFailed);
                    }
                }
            }
            core.settle();
        }));
    }

    /// True while the replica waits for exactly this fetch.
    fn waits_for(&self, goal: &Goal) -> bool {
        let mut state = self.state.borrow_mut();
        let leaving = state.leaving;
        let waits = |copy: &mut Partition| {
            copy.fetch == goal.number && copy.problem.is_none() && copy.replica.describe().phase == Phase::Fetching
        };
        !leaving && state.copy(goal.copy).is_some_and(waits)
    }

    async fn fetch(&self, goal: Goal) -> Result<(), Ended> {
        let id = goal.copy.partition;
        let node = self.state.borrow().nodes.get(&goal.from).cloned();
        let address = node.ok_or_else(|| "the primary's address is not known".to_owned())?.endpoint(id);
        let connection = self.endpoint.connect(address, Role::Replica, Alpn::Peer).await;
        let connection = connection.map_err(|error| error.to_string())?;
        let incoming: Shared = Arc::default();
        let received = match connection.open().await {
            Ok((mut writer, mut reader)) => {
                let asked = writer.write(&self.question(&goal)).await.map_err(|error| error.to_string().into());
                writer.finish();
                match asked {
                    Ok(()) => self.receive(&goal, &mut reader, &incoming).await,
                    Err(ended) => Err(ended),
                }
            }
            Err(error) => Err(Ended::Failed(error.to_string())),
        };
        connection.close("the checkpoint was received, or given up");
        let taken = match received {
            Ok(()) => self.take_in(&goal, &incoming).await,
            Err(ended) => Err(ended),
        };
        // What is left of it is deleted, which blocks.
        if let Some(left) = take(&incoming) {
            self.drop_in_pool(left).await;
        }
        taken
    }

    fn question(&self, goal: &Goal) -> Vec<u8> {
        let fetch = FetchCheckpoint {
            cluster: self.shared.cluster().unwrap_or_default(),
            partition: goal.copy.partition,
            sender: self.shared.node,
            receiver: goal.from,
            ballot: goal.ballot,
        };
        let mut out = Vec::new();
        let header = FrameHeader::request(MessageKind::FETCH_CHECKPOINT, 1, MAKE.as_millis() as u32);
        FrameBuilder::append(&mut out, header, &fetch, &[]);
        out
    }

    /// Takes the answer and all that follows it. The next bytes are read when the last ones are in the file, so the
    /// sender is held back by as much as this node's disk is slower.
    async fn receive(&self, goal: &Goal, reader: &mut FrameReader, incoming: &Shared) -> Result<(), Ended> {
        let answer = self.next_frame(reader, MAKE).await?;
        if answer.header.status != Status::Ok {
            let status = answer.header.status;
            return Err(answer.error().map_or_else(|| status.to_string(), |error| error.message).into());
        }
        let checkpoint: Checkpoint = answer.decode().map_err(|error| error.to_string())?;
        if checkpoint.applied < goal.committed {
            let (applied, committed) = (checkpoint.applied, goal.committed);
            return Err(format!("it is of decree {applied}, {committed} at least is of use").into());
        }
        let shared = self.shared.clone();
        let directory = copy_directory(&shared.config.data_directory, goal.copy.partition);
        let incarnation = ReplicaIncarnation(rand::random());
        let slot = incoming.clone();
        let begin = move || -> Result<u64, CheckpointError> {
            let reserve = shared.config.storage.disk_reserve_bytes;
            let begun = Incoming::begin(&directory, incarnation, &checkpoint, reserve)?;
            let bytes = begun.stream_bytes();
            *lock(&slot) = Some(begun);
            Ok(bytes)
        };
        let mut bytes_left = self.in_pool(begin).await?;
        while bytes_left > 0 {
            let frame = self.next_frame(reader, CHUNK).await?;
            let count = frame.attachment.len() as u64;
            if frame.header.kind != MessageKind::CHECKPOINT_CHUNK || count == 0 || count > bytes_left {
                return Err(format!("{} with {count} bytes, {bytes_left} are missing", frame.header.kind).into());
            }
            if !self.waits_for(goal) {
                return Err(Ended::Superseded);
            }
            let (slot, bytes) = (incoming.clone(), frame.attachment);
            let write = move || lock(&slot).as_mut().map_or(Ok(()), |incoming| incoming.write(&bytes));
            self.in_pool(write).await?;
            bytes_left -= count;
            self.count(|counters| counters.checkpoint_bytes_received += count);
        }
        Ok(())
    }

    async fn next_frame(&self, reader: &mut FrameReader, patience: Duration) -> Result<Frame, String> {
        match self.runtime.timeout_at(Instant::now() + patience, reader.next()).await {
            Some(Ok(Some(frame))) => Ok(frame),
            Some(Ok(None)) => Err("the primary ended the stream".to_owned()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err(format!("the primary sent nothing for {} s", patience.as_secs())),
        }
    }

    async fn in_pool<T: Send + 'static>(
        &self,
        job: impl Fn() -> Result<T, CheckpointError> + Send + Sync + 'static,
    ) -> Result<T, String> {
        self.insist(&self.shared.long_pool, job).await?.map_err(|error| error.to_string())
    }

    /// Puts the checkpoint in the place of the copy.
    async fn take_in(&self, goal: &Goal, incoming: &Shared) -> Result<(), Ended> {
        let Some((plan, departing)) = self.begin_swap(goal, incoming) else { return Err(Ended::Superseded) };
        self.settle();
        let former = departing.quiesce(self).await.expect("a copy that waits for a checkpoint was there to part with");
        let (shared, descriptor) = (self.shared.clone(), plan.clone());
        let slot = incoming.clone();
        let finish = move || match take(&slot) {
            Some(incoming) => incoming.finish(&shared.tables, &descriptor).map_err(|error| error.to_string()),
            None => Err("it was put to use already".to_owned()),
        };
        match self.insist(&self.shared.long_pool, finish).await.flatten() {
            Ok(table) => {
                let (id, replaced) = (former.id, former.incarnation);
                self.begin_again(former.properties.clone(), plan, table);
                self.count(|counters| counters.checkpoints_taken += 1);
                self.close_table(Some(former)).await;
                self.delete_table(id, replaced).await;
                Ok(())
            }
            Err(reason) => {
                self.go_on_with(former, plan).await;
                Err(Ended::Failed(reason))
            }
        }
    }

    /// Takes the copy out of service, if it still waits for this checkpoint, and gives the descriptor of what comes
    /// after it. That has the newest ballot the replica knew of: an older one could be established again.
    fn begin_swap(&self, goal: &Goal, incoming: &Shared) -> Option<(Descriptor, Departing)> {
        if !self.waits_for(goal) {
            return None;
        }
        let incarnation = lock(incoming).as_ref()?.incarnation();
        let mut state = self.state.borrow_mut();
        let former = state.copy(goal.copy)?;
        let plan = Descriptor {
            cluster: self.shared.cluster().unwrap_or_default(),
            table: former.properties.clone(),
            partition: former.id,
            incarnation,
            configuration: former.replica.configuration().clone(),
            state: CopyState::Learning,
            boot_id: self.boot_id,
        };
        let departing = self.part_with(&mut state, goal.copy.partition, "is replaced by a checkpoint");
        Some((plan, departing))
    }

    /// Gives a table, all of which is in its files, a replica that learns. Log records of earlier copies mean nothing
    /// to it.
    fn begin_again(&self, properties: TableProperties, descriptor: Descriptor, table: Table) {
        let id = descriptor.partition;
        let recovered = Recovered {
            applied: table.applied(),
            committed: table.applied(),
            timestamp_micros: table.last_timestamp_micros(),
            configuration: descriptor.configuration,
            ..Recovered::learner()
        };
        let flushed = table.flushed();
        let stored = self.stored_as(ReplicaState::Learning, &recovered);
        let replica = self.replica(id, properties.clone(), recovered);
        let copy = Partition::new(properties, id, descriptor.incarnation, replica, table, flushed, stored);
        self.log.forget(id);
        self.log.set_flushed(id, flushed);
        let mut state = self.state.borrow_mut();
        state.opening.remove(&id);
        state.partitions.insert(id, copy);
        self.take_table(&mut state, id);
        self.shared.copies_changed.notify_one();
    }

    /// The checkpoint could not take the copy's place: the old table goes on with a new replica, under the descriptor
    /// that the checkpoint would have had. Which one is stored now is not known, so it is stored again.
    async fn go_on_with(&self, former: Partition, plan: Descriptor) {
        let id = former.id;
        let descriptor = Descriptor { incarnation: former.incarnation, ..plan };
        let directory = copy_directory(&self.shared.config.data_directory, id);
        let (table, stored) = (former.table.clone(), descriptor.clone());
        let store = move || -> Result<(), String> {
            // The log keeps nothing for a replica that begins anew.
            table.flush().map_err(|error| error.to_string())?;
            stored.store(&directory).map_err(|error| error.to_string())
        };
        match self.insist(&self.shared.long_pool, store).await.flatten() {
            Ok(()) => {
                let applied = former.table.applied();
                tracing::warn!(partition = %id, %applied, "the learner goes on with what it had");
                self.begin_again(former.properties, descriptor, former.table);
            }
            Err(reason) => {
                tracing::error!(partition = %id, %reason, "a copy is out of service until the node restarts");
                let broken = Broken::closed(&former);
                {
                    let mut state = self.state.borrow_mut();
                    state.opening.remove(&id);
                    state.broken.insert(id, broken);
                }
                self.close_table(Some(former)).await;
            }
        }
    }

    /// Deletes the table that a checkpoint replaced.
    async fn delete_table(&self, id: PartitionId, incarnation: ReplicaIncarnation) {
        let directory = copy_directory(&self.shared.config.data_directory, id);
        let delete = move || copies::remove_table(&directory, incarnation);
        let deleted = self.insist(&self.shared.long_pool, delete).await;
        if let Ok(Err(error)) = deleted {
            tracing::warn!(partition = %id, %error, "a table that was replaced is left over until the next start");
        }
    }
}

fn lock(incoming: &Mutex<Option<Incoming>>) -> std::sync::MutexGuard<'_, Option<Incoming>> {
    incoming.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(incoming: &Mutex<Option<Incoming>>) -> Option<Incoming> {
    lock(incoming).take()
}
