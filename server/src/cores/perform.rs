//! Carries out what replicas ask for. One match, one arm per effect; nothing here decides anything.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pegasus_engine::log::{AppendRefused, LogError, LogRecord, RecordKind as LogRecordKind};
use pegasus_engine::pool::{BlockingPool, Busy};
use pegasus_engine::table::{ApplyMode, ApplyOutcome, TableError};
use pegasus_replication::{AppendRecord, AppendToken, Effect, Event, PeerMessage, RecordKind, Role, Session};
use pegasus_wire::messages::control::ProposeConfiguration;
use pegasus_wire::{Ballot, Configuration, Decree, Durability, Mutation, NodeId, PartitionId, Status};

use super::partition::{LogWait, StalledAppend};
use super::{Core, State, streams};
use crate::control::ToMeta;

/// Larger batches are applied in the pool: the core would run too long without yielding.
const INLINE_APPLY_BYTES: usize = 256 * 1024;
/// Pause before a job that must run is offered to a full pool again.
const POOL_PATIENCE: Duration = Duration::from_millis(2);

impl Core {
    /// Carries out the effects of one event, in order.
    pub(crate) fn perform(&self, state: &mut State, id: PartitionId, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Append { token, record } => self.append(state, id, token, record),
                Effect::StoreDescriptor { configuration, state: worth } => {
                    self.store_descriptor(state, id, configuration, worth);
                }
                Effect::OpenStream { peer } => {
                    let core = self.clone();
                    state.later.push(Box::pin(core.lead_stream(id, peer)));
                }
                Effect::CloseStream { session, .. } => {
                    if let Some(partition) = state.partitions.get_mut(&id) {
                        partition.close_stream(session);
                    }
                }
                Effect::Send { peer, session, message } => send(state, id, peer, session, message),
                Effect::Apply { mutations } => self.apply(state, id, mutations),
                Effect::Reply { request, outcome } => state.pending.finish(request, outcome),
                Effect::ProposeConfiguration { expected_ballot, configuration } => {
                    self.propose_configuration(state, id, expected_ballot, configuration);
                }
                Effect::ReadLog { peer, session, from, through } => {
                    self.read_log(state, id, peer, session, from, through);
                }
                Effect::FetchCheckpoint { from, ballot, committed } => {
                    self.fetch_checkpoint(state, id, from, ballot, committed);
                }
                Effect::RoleChanged { role, ballot, serving } => note_role(state, id, (role, ballot, serving)),
                Effect::Faulted { status, reason } => self.fault(state, id, status, reason),
            }
        }
    }

    fn append(&self, state: &mut State, id: PartitionId, token: AppendToken, record: AppendRecord) {
        let Some(partition) = state.partitions.get(&id) else { return };
        let durability = partition.durability.of_appends();
        let record = LogRecord {
            partition: id,
            incarnation: partition.incarnation,
            kind: match record.kind {
                RecordKind::Mutation(kind) => LogRecordKind::Mutation(kind),
                RecordKind::Truncate => LogRecordKind::Truncate,
            },
            ballot: record.ballot,
            decree: record.decree,
            committed: record.committed,
            timestamp_micros: record.timestamp_micros,
            payload: record.payload,
        };
        let append = StalledAppend { record, durability, token };
        if state.stalled.is_empty() {
            self.append_now(state, append);
        } else {
            state.stalled.push_back(append);
        }
    }

    /// Hands a record to the log. While the log has no room it waits in line, with all that come after it: room
    /// comes when tables are flushed. The line is bounded by the windows of this core's partitions.
    fn append_now(&self, state: &mut State, append: StalledAppend) {
        let StalledAppend { record, durability, token } = append;
        let partition = record.partition;
        match self.log.append(record, durability).map_err(|refused| *refused) {
            Ok(sequence) => {
                let wait = LogWait { sequence, partition, token };
                match durability {
                    Durability::Synced => state.waiting_synced.push_back(wait),
                    Durability::Written => state.waiting_written.push_back(wait),
                }
            }
            Err(AppendRefused { record, error: LogError::Full { .. } }) => {
                state.counters.appends_stalled += 1;
                state.stalled.push_front(StalledAppend { record, durability, token });
            }
            Err(AppendRefused { error, .. }) => {
                let reason = error.to_string();
                state.events.push_back((partition, Event::Failed { status: Status::StorageFailed, reason }));
            }
        }
    }

    /// Appends what waited for room, in order, as far as there is room now.
    pub(crate) fn append_stalled(&self, state: &mut State) {
        let mut before = usize::MAX;
        while state.stalled.len() < before {
            before = state.stalled.len();
            if let Some(append) = state.stalled.pop_front() {
                self.append_now(state, append);
            }
        }
    }

    /// Applies a batch inline if RocksDB takes it without stalling, else in the pool.
    fn apply(&self, state: &mut State, id: PartitionId, mutations: Vec<Mutation>) {
        let Some(partition) = state.partitions.get_mut(&id) else { return };
        let Some(through) = mutations.last().map(|mutation| mutation.decree) else { return };
        let count = mutations.len() as u64;
        let bytes: usize = mutations.iter().map(|mutation| mutation.payload.len()).sum();
        let outcome = if bytes <= INLINE_APPLY_BYTES {
            partition.table.apply(&mutations, ApplyMode::NoSlowdown)
        } else {
            Ok(ApplyOutcome::WouldStall)
        };
        match outcome {
            Ok(ApplyOutcome::Applied) => {
                state.counters.applies_inline += 1;
                state.counters.mutations_applied += count;
                state.events.push_back((id, Event::Applied { through }));
            }
            Ok(ApplyOutcome::WouldStall) => {
                state.counters.applies_in_pool += 1;
                state.counters.mutations_applied += count;
                let (copy, table) = (partition.copy(), partition.table.clone());
                let core = self.clone();
                state.later.push(Box::pin(async move {
                    let apply = move || table.apply(&mutations, ApplyMode::Blocking).map(|_| ());
                    let outcome = core.insist(&core.shared.point_pool, apply).await;
                    core.post_to(copy, outcome.map_or_else(pool_failed, |outcome| applied(outcome, through)));
                    core.settle();
                }));
            }
            Err(error) => state.events.push_back((id, applied(Err(error), through))),
        }
    }

    /// Runs a job in a pool however full it is: what protocol and table need done has no other way, so it waits
    /// its turn behind the reads.
    pub(crate) async fn insist<T, E>(
        &self,
        pool: &BlockingPool,
        job: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Result<T, E>, String>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let job = Arc::new(job);
        loop {
            let attempt = job.clone();
            match pool.run(move || attempt()) {
                Ok(running) => return running.await.map_err(|panicked| panicked.to_string()),
                Err(Busy::Full { .. }) => glommio::timer::sleep(POOL_PATIENCE).await,
                Err(closed @ Busy::ShuttingDown) => return Err(closed.to_string()),
            }
        }
    }

    /// Drops what blocks when it ends (files are closed or deleted) in the pool.
    pub(crate) async fn drop_in_pool<T: Send + 'static>(&self, value: T) {
        let slot = Mutex::new(Some(value));
        let end = move || -> Result<(), Infallible> {
            drop(slot.lock().unwrap_or_else(PoisonError::into_inner).take());
            Ok(())
        };
        if let Err(reason) = self.insist(&self.shared.long_pool, end).await {
            tracing::warn!(%reason, "files were closed or deleted on a core");
        }
    }

    fn propose_configuration(
        &self,
        state: &mut State,
        id: PartitionId,
        expected_ballot: Ballot,
        configuration: Configuration,
    ) {
        if !self.may_propose(state, id, &configuration) {
            state.events.push_back((id, Event::ProposalFailed));
            return;
        }
        if let Some(partition) = state.partitions.get_mut(&id) {
            self.hold_log_for_leavers(partition, &configuration);
        }
        let proposal =
            ProposeConfiguration { partition: id, proposer: self.shared.node, expected_ballot, configuration };
        let sent = self.to_meta.borrow_mut().try_send(ToMeta { core: self.id, proposal });
        if sent.is_err() {
            state.events.push_back((id, Event::ProposalFailed));
        }
    }

    /// A node that is about to stop removes nobody, and at last takes no ballot any more: of a cluster that stops as a
    /// whole, the last node would else be the only member of everything.
    fn may_propose(&self, state: &State, id: PartitionId, configuration: &Configuration) -> bool {
        if !state.leaving || configuration.primary != Some(self.shared.node) {
            return true;
        }
        let known = state.partitions.get(&id).map(|partition| partition.replica.configuration());
        let removes = known.is_none_or(|known| configuration.members().count() < known.members().count());
        !state.stopping && !removes
    }
}

fn note_role(state: &mut State, id: PartitionId, now: (Role, Ballot, bool)) {
    let (role, ballot, serving) = now;
    tracing::info!(partition = %id, ?role, %ballot, serving, "role");
    let Some(partition) = state.partitions.get_mut(&id) else { return };
    let before = std::mem::replace(&mut partition.reported, now);
    if before == (Role::Primary, ballot, true) && role == Role::Primary && !state.leaving {
        state.counters.leases_lapsed += 1;
    }
    if role != Role::Primary {
        partition.lessons.clear();
        partition.leavers.clear();
    } else if state.leaving && !state.stopping && before.0 != Role::Primary {
        // Somebody who stops as well handed it to this node.
        state.events.push_back((id, Event::HandOver));
    }
}

/// Puts a message of a replica on its stream.
fn send(state: &mut State, id: PartitionId, peer: NodeId, session: Session, message: PeerMessage) {
    let Some(partition) = state.partitions.get_mut(&id) else { return };
    match &message {
        PeerMessage::Prepare { .. } => state.counters.prepares_sent += 1,
        PeerMessage::Acknowledge(_) => state.counters.acknowledgements_sent += 1,
        PeerMessage::Establish(establish) if !establish.configuration.contains(peer) => partition.lessons.begin(peer),
        PeerMessage::TakeCheckpoint(_) => partition.lessons.take_checkpoint(peer),
        _ => {}
    }
    if let Some(stream) = partition.stream(session) {
        streams::send(&stream.outbox, message);
    }
}

fn applied(outcome: Result<(), TableError>, through: Decree) -> Event {
    match outcome {
        Ok(()) => Event::Applied { through },
        // A committed mutation that cannot be applied stops the replica; it is never skipped.
        Err(error) => table_failed(&error),
    }
}

/// What a replica hears of a table that failed.
pub(crate) fn table_failed(error: &TableError) -> Event {
    if error.is_damage() {
        return Event::Failed { status: Status::Damaged, reason: error.to_string() };
    }
    // What the table lacks is in the log, and is applied again when the node starts. If others lead meanwhile, the copy
    // learns again from them.
    let reason =
        format!("{error}; make room on the disk or mend it; if the copy does not learn again, restart the node");
    Event::Failed { status: Status::StorageFailed, reason }
}

/// What a replica hears when a job of its copy panicked or found no pool.
pub(crate) fn pool_failed(reason: String) -> Event {
    Event::Failed { status: Status::StorageFailed, reason }
}
