//! Manual compactions of the copies of a core: begun when they are due and the node has a turn, run by a pool of their
//! own, which mostly waits for RocksDB's threads.
//!
//! A node that stops, and a copy that leaves, end theirs (`Table::stop`). One that did not end whole leaves no trace
//! and begins again.

use pegasus_engine::table::{Bottommost, CompactionOutcome, CompactionRecord, Table, TableError};
use pegasus_replication::{Moment, Role};
use pegasus_wire::messages::control::TableState;
use pegasus_wire::messages::data::CompactionState;

use super::copies::unix_seconds;
use super::partition::{CopyId, Partition};
use super::perform::table_failed;
use super::{Core, State, clock};
use crate::compactions::{Due, Turn, due};

/// Pause after a compaction that failed.
const FAILED_PAUSE_MICROS: u64 = 600_000_000;
/// Pause after one that did not take place.
const STOPPED_PAUSE_MICROS: u64 = 1_000_000;

/// What a copy's manual compaction does.
pub(crate) struct Compaction {
    /// What it does now.
    pub(crate) state: CompactionState,
    /// The last one that ended whole.
    pub(crate) last: CompactionRecord,
    /// None begins before.
    not_before: Moment,
}

impl Compaction {
    /// Of a table that was just opened.
    pub(crate) fn of(table: &Table) -> Compaction {
        Compaction { state: CompactionState::Idle, last: table.last_compaction(), not_before: Moment(0) }
    }
}

impl Core {
    /// Begins the compactions that are due, as far as there are turns. [`Core::settle`] must follow.
    pub(crate) fn look_at_compactions(&self, state: &mut State) {
        if state.leaving {
            return;
        }
        let (now, now_seconds) = (clock::now(), unix_seconds());
        for partition in state.partitions.values_mut() {
            if partition.compaction.state == CompactionState::Running {
                continue;
            }
            partition.compaction.state = CompactionState::Idle;
            let Some(due) = due_now(partition, now, now_seconds) else { continue };
            let of_table_max = partition.environment.manual_compaction.concurrent_max;
            let Some(turn) = self.shared.compactions.take(partition.id.table, of_table_max) else {
                partition.compaction.state = CompactionState::Queued;
                continue;
            };
            partition.compaction.state = CompactionState::Running;
            let (copy, table) = (partition.copy(), partition.table.clone());
            state.later.push(Box::pin(self.clone().compact(copy, table, due, turn)));
        }
    }

    async fn compact(self, copy: CopyId, table: Table, due: Due, turn: Turn) {
        let id = copy.partition;
        tracing::info!(partition = %id, bottommost = due.bottommost, "a manual compaction begins");
        let outcome = match self.shared.compact_pool.run(move || compact(&table, due)) {
            Ok(job) => job.await.map_err(|panicked| panicked.to_string()),
            Err(busy) => Err(busy.to_string()),
        };
        drop(turn);
        let now = clock::now();
        let mut guard = self.state.borrow_mut();
        let state: &mut State = &mut guard;
        let Some(partition) = state.partitions.get_mut(&id).filter(|partition| partition.copy() == copy) else {
            return;
        };
        partition.compaction.state = CompactionState::Idle;
        let failed = match outcome {
            Ok(Ok(Some(record))) => {
                partition.compaction.last = record;
                state.counters.compactions += 1;
                let seconds = record.ended_seconds.saturating_sub(record.began_seconds);
                tracing::info!(partition = %id, seconds, "a manual compaction has ended");
                return;
            }
            Ok(Ok(None)) => {
                partition.compaction.not_before = Moment(now.0 + STOPPED_PAUSE_MICROS);
                return;
            }
            Ok(Err(error)) => {
                if error.is_damage() {
                    state.events.push_back((id, table_failed(&error)));
                }
                error.to_string()
            }
            Err(reason) => reason,
        };
        tracing::error!(partition = %id, reason = %failed, "a manual compaction failed");
        partition.compaction.not_before = Moment(now.0 + FAILED_PAUSE_MICROS);
        state.counters.compactions_failed += 1;
        drop(guard);
        self.settle();
    }
}

/// Whether a copy is to be compacted now.
fn due_now(partition: &Partition, now: Moment, now_seconds: u64) -> Option<Due> {
    let serves = partition.settings.as_ref().is_some_and(|settings| settings.state == TableState::Available);
    let is_member = matches!(partition.replica.role(), Role::Primary | Role::Secondary);
    if !serves || !is_member || partition.problem.is_some() || now < partition.compaction.not_before {
        return None;
    }
    due(&partition.environment.manual_compaction, partition.compaction.last.began_seconds, now_seconds)
}

/// Compacts a table in the pool; `None` if that was stopped.
fn compact(table: &Table, due: Due) -> Result<Option<CompactionRecord>, TableError> {
    let began_seconds = unix_seconds();
    let bottommost = if due.bottommost { Bottommost::Force } else { Bottommost::Skip };
    match table.compact(bottommost)? {
        CompactionOutcome::Stopped | CompactionOutcome::Running => Ok(None),
        CompactionOutcome::Finished => {
            let record = CompactionRecord { began_seconds, ended_seconds: unix_seconds() };
            table.record_compaction(record)?;
            Ok(Some(record))
        }
    }
}
