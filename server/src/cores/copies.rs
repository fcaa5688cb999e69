//! How copies leave a core while it runs: for good, or to make room for another copy of the same partition.
//!
//! ```text
//!   part_with            quiesce                   close_table           pool
//!   replica told   -->   descriptor stores   -->   nobody reads   -->   set aside, replaced
//!   to stop,             of the copy               the table any
//!   streams and scans'   have ended                more
//!   contexts closed
//! ```
//!
//! From the first step to the last the partition is in `State::opening`: whoever asks for it is told to come back. A
//! descriptor of the old copy that is written late would undo the change, so those that are on their way end first.
//! Records of it that are logged late are the log's business: it forgets the copy, not a moment.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use glommio::timer::sleep;
use pegasus_engine::copies;
use pegasus_engine::table::TableSnapshot;
use pegasus_replication::Event;
use pegasus_wire::messages::control::{Assignments, Removal};
use pegasus_wire::messages::data::CompactionState;
use pegasus_wire::{PartitionId, owner_core};

use super::descriptors::DescriptorTurn;
use super::partition::{Broken, Partition};
use super::{Core, State, clock};

/// How long readers may hold a table that is to be closed; then its files go under their hands.
const READERS: Duration = Duration::from_secs(10);
/// Pause between two looks whether they still do.
const READERS_LOOK: Duration = Duration::from_millis(5);

/// A copy on its way out: no longer in `State::partitions`.
pub(crate) struct Departing {
    copy: Option<Partition>,
    broken: Option<Broken>,
    turn: DescriptorTurn,
    /// Kept for scans of the copy; they hold its table.
    snapshots: Vec<Arc<TableSnapshot>>,
}

impl Core {
    /// Takes a partition's copy, if it has one, out of service. Until the caller takes it out of `State::opening`,
    /// nothing else is done with the partition. `doing` completes the sentence "the copy ...".
    pub(crate) fn part_with(&self, state: &mut State, id: PartitionId, doing: &'static str) -> Departing {
        if state.partitions.contains_key(&id) {
            // Whoever waits for an answer gets one.
            self.handle(state, clock::now(), id, Event::Shutdown);
        }
        let copy = state.partitions.remove(&id).map(|mut copy| {
            for stream in copy.streams.drain(..) {
                stream.outbox.finish();
            }
            state.counters.add_replica(&copy.replica.describe().counters);
            // Whoever waits there is answered.
            copy.gate = None;
            copy
        });
        // Its own later events.
        state.events.retain(|(partition, _)| *partition != id);
        state.stalled.retain(|append| append.record.partition != id);
        state.waiting_synced.retain(|wait| wait.partition != id);
        state.waiting_written.retain(|wait| wait.partition != id);
        state.opening.insert(id, doing);
        let snapshots = state.contexts.end_all_of(id);
        Departing { copy, broken: state.broken.get(&id).cloned(), turn: DescriptorTurn::take(state), snapshots }
    }

    /// Closes a table once its last reader is done with it.
    pub(crate) async fn close_table(&self, copy: Option<Partition>) {
        let Some(Partition { id, table, compaction, .. }) = copy else { return };
        if compaction.state == CompactionState::Running {
            let compacting = table.clone();
            let stop = move || -> Result<(), Infallible> {
                compacting.stop();
                Ok(())
            };
            // Without a pool everything ends.
            let _ = self.insist(&self.shared.long_pool, stop).await;
        }
        let mut waited = Duration::ZERO;
        while !table.is_last_handle() {
            if waited >= READERS {
                tracing::warn!(partition = %id, "a table is given up while it is still read");
                break;
            }
            sleep(READERS_LOOK).await;
            waited += READERS_LOOK;
        }
        self.drop_in_pool(table).await;
    }

    /// Removes the copies that the meta service says are not needed any more.
    pub(crate) fn take_removals(&self, assignments: &Assignments) {
        for removal in &assignments.removals {
            if owner_core(removal.partition, self.shared.config.cores) == self.id {
                self.take_removal(removal);
            }
        }
    }

    fn take_removal(&self, removal: &Removal) {
        let id = removal.partition;
        let departing = {
            let mut state = self.state.borrow_mut();
            let held = match (state.partitions.get(&id), state.broken.get(&id)) {
                (Some(copy), _) => Some(copy.replica.ballot()),
                (None, broken) => broken.map(|broken| broken.ballot),
            };
            // A copy of this ballot or a higher one may be on its way to be a member.
            if state.leaving || state.opening.contains_key(&id) || held.is_none_or(|held| held >= removal.ballot) {
                return;
            }
            self.part_with(&mut state, id, "is removed")
        };
        let (core, ballot) = (self.clone(), removal.ballot);
        self.later(async move {
            core.remove_copy(id, departing).await;
            tracing::info!(partition = %id, %ballot, "the partition is whole without this copy");
            core.settle();
        });
    }

    async fn remove_copy(&self, id: PartitionId, departing: Departing) {
        let broken = departing.as_broken();
        let former = departing.quiesce(self).await;
        self.close_table(former).await;
        let shared = self.shared.clone();
        let set_aside = move || {
            let aside = copies::set_aside(&shared.config.data_directory, id, unix_seconds());
            aside.map_err(|error| error.to_string())
        };
        let removed = self.insist(&self.shared.long_pool, set_aside).await.flatten();
        let mut state = self.state.borrow_mut();
        state.opening.remove(&id);
        match removed {
            Ok(aside) => {
                if let Some(aside) = aside {
                    tracing::info!(partition = %id, directory = %aside.directory.display(), "a copy was set aside");
                }
                state.broken.remove(&id);
                state.missing.remove(&id);
                state.counters.copies_removed += 1;
                self.log.forget(id);
            }
            Err(reason) => {
                tracing::error!(partition = %id, %reason, "a copy that is not needed could not be set aside");
                state.broken.extend(broken.map(|broken| (id, broken)));
            }
        }
        self.shared.copies_changed.notify_one();
    }
}

impl Departing {
    /// How the copy is refused if what was to be done with it fails.
    pub(crate) fn as_broken(&self) -> Option<Broken> {
        self.copy.as_ref().map(Broken::closed).or_else(|| self.broken.clone())
    }

    /// Waits until no descriptor of the copy is on its way to the disk and no scan keeps its table, and gives what is
    /// left of it.
    pub(crate) async fn quiesce(self, core: &Core) -> Option<Partition> {
        drop(self.turn.begin().await);
        if !self.snapshots.is_empty() {
            core.drop_in_pool(self.snapshots).await;
        }
        self.copy
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
