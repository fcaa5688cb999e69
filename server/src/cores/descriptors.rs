//! Descriptors of the copies of a core: written in the pool, one after the other, in the order in which they were asked
//! for; and what becomes of a copy that is found bad.

use futures_channel::oneshot;
use pegasus_engine::descriptor::{CopyState, Descriptor, copy_directory};
use pegasus_engine::identity::BootId;
use pegasus_replication::Event;
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Configuration, PartitionId, Status};

use super::{Core, State};

impl Core {
    /// Replaces a copy's descriptor. An uncertain copy keeps the boot id it was found with: with the present one, a
    /// restart of the process would make it look certain.
    pub(crate) fn store_descriptor(
        &self,
        state: &mut State,
        id: PartitionId,
        configuration: Configuration,
        worth: ReplicaState,
    ) {
        let boot_id = self.boot_id;
        let Some(partition) = state.partitions.get_mut(&id) else { return };
        let (copy, ballot) = (partition.copy(), configuration.ballot);
        let boot = if worth == ReplicaState::Uncertain { partition.stored.boot } else { boot_id };
        // How far a learner is in the eyes of the meta service is also a matter of its ballot.
        let learning = worth == ReplicaState::Learning && partition.stored.ballot != ballot;
        let changed = partition.stored.state != worth || learning;
        partition.stored.state = worth;
        partition.stored.ballot = ballot;
        partition.stored.boot = boot;
        partition.stored_configuration.clone_from(&configuration);
        partition.lessons.settle(&configuration, &mut state.counters);
        partition.leavers.settle(&configuration);
        let Some(descriptor) = self.descriptor(state, id, configuration, copy_state(worth), boot) else { return };
        self.store(state, descriptor, move |core, stored| match stored {
            Ok(()) => {
                core.post_to(copy, Event::DescriptorStored { ballot, state: worth });
                if changed {
                    core.shared.copies_changed.notify_one();
                }
            }
            Err(reason) => core.post_to(copy, Event::Failed { status: Status::StorageFailed, reason }),
        });
    }

    /// Replaces a copy's descriptor by one that says what is new of its table, and else what the last one says.
    pub(crate) fn restate(
        &self,
        state: &mut State,
        id: PartitionId,
        done: impl FnOnce(&Core, Result<(), String>) + 'static,
    ) {
        let Some(partition) = state.partitions.get(&id) else { return };
        let (configuration, worth) = (partition.stored_configuration.clone(), partition.state());
        let boot = partition.stored.boot;
        let Some(descriptor) = self.descriptor(state, id, configuration, copy_state(worth), boot) else { return };
        self.store(state, descriptor, move |core, stored| {
            if let Err(error) = &stored {
                tracing::error!(partition = %id, %error, "cannot store what is new of the table in the descriptor");
            }
            done(core, stored);
        });
    }

    /// Writes a descriptor in the pool, one after the other per core, then says so.
    fn store(&self, state: &mut State, descriptor: Descriptor, done: impl FnOnce(&Core, Result<(), String>) + 'static) {
        let directory = copy_directory(&self.shared.config.data_directory, descriptor.partition);
        let turn = DescriptorTurn::take(state);
        let core = self.clone();
        state.later.push(Box::pin(async move {
            let ending = turn.begin().await;
            let stored = core.insist(&core.shared.long_pool, move || descriptor.store(&directory)).await;
            let stored = stored.and_then(|stored| stored.map_err(|error| error.to_string()));
            drop(ending);
            done(&core, stored);
            core.settle();
        }));
    }

    /// The descriptor of a copy as it should be from now on.
    fn descriptor(
        &self,
        state: &State,
        id: PartitionId,
        configuration: Configuration,
        copy_state: CopyState,
        boot_id: BootId,
    ) -> Option<Descriptor> {
        let partition = state.partitions.get(&id)?;
        Some(Descriptor {
            cluster: self.shared.cluster().unwrap_or_default(),
            table: partition.properties.clone(),
            partition: id,
            incarnation: partition.incarnation,
            configuration,
            state: copy_state,
            boot_id,
        })
    }

    /// Takes a copy out of service; a damaged one is marked so durably.
    pub(crate) fn fault(&self, state: &mut State, id: PartitionId, status: Status, reason: String) {
        let Some(partition) = state.partitions.get_mut(&id) else { return };
        partition.fail(status, reason);
        if status != Status::Damaged {
            return;
        }
        let configuration = partition.replica.configuration().clone();
        let Some(descriptor) = self.descriptor(state, id, configuration, CopyState::Damaged, self.boot_id) else {
            return;
        };
        self.store(state, descriptor, move |core, stored| {
            if let Err(error) = stored {
                tracing::error!(partition = %id, %error, "cannot mark the copy as damaged on disk");
            }
            core.shared.copies_changed.notify_one();
        });
    }
}

/// How a descriptor says what a copy is worth. That it is uncertain follows from its boot id.
fn copy_state(worth: ReplicaState) -> CopyState {
    match worth {
        ReplicaState::Whole | ReplicaState::Uncertain => CopyState::Whole,
        ReplicaState::Learning => CopyState::Learning,
        ReplicaState::Damaged | ReplicaState::Missing => CopyState::Damaged,
    }
}

/// A place in the order in which the descriptors of a core are written.
pub(crate) struct DescriptorTurn {
    before: Option<oneshot::Receiver<()>>,
    ending: TurnEnd,
}

/// Lets the next one begin when it is dropped.
pub(crate) struct TurnEnd {
    _next: oneshot::Sender<()>,
}

impl DescriptorTurn {
    /// After all that took a turn before.
    pub(crate) fn take(state: &mut State) -> DescriptorTurn {
        let (next, turn_of_next) = oneshot::channel();
        DescriptorTurn { before: state.descriptor_turns.replace(turn_of_next), ending: TurnEnd { _next: next } }
    }

    /// Waits for the turn.
    pub(crate) async fn begin(self) -> TurnEnd {
        if let Some(before) = self.before {
            // It always comes to an error: the end of the one before.
            let _ = before.await;
        }
        self.ending
    }
}
