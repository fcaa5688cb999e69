//! What changes in a copy when its table does: name, settings, durability, gate. All of it while the copy serves.

use pegasus_engine::table::TableShape;
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{PartitionId, TableId, TableProperties};

use super::gate::Gate;
use super::{Core, State, clock};

/// How the files of a copy are shaped, as far as the core knows.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    /// What they have; `None` if that is not known.
    has: Option<TableShape>,
    /// A change is in the pool.
    changing: bool,
}

impl Core {
    /// Gives every copy what was last told of its table. [`Core::settle`] must follow.
    pub(crate) fn take_tables(&self) {
        let changed: Vec<PartitionId> = {
            let state = self.state.borrow();
            let Some(told) = &state.told else { return };
            let changed = state.partitions.values().filter(|partition| {
                let settings = told.tables.get(&partition.id.table);
                // Of a table that is not told of any more, what was told last stays.
                settings.is_some_and(|settings| !partition.has_settings(settings))
            });
            changed.map(|partition| partition.id).collect()
        };
        for id in changed {
            self.take_table(&mut self.state.borrow_mut(), id);
            let copy = self.state.borrow().partitions.get(&id).map(|partition| partition.copy());
            // Whom the new settings let go need not wait any longer.
            copy.into_iter().for_each(|copy| self.mind_gate(copy));
        }
        self.gated.set(self.state.borrow().partitions.values().any(|partition| partition.gate.is_some()));
    }

    /// Gives a copy what was last told of its table, if anything was. [`Core::settle`] must follow.
    pub(crate) fn take_table(&self, state: &mut State, id: PartitionId) {
        let settings = state.told.as_ref().and_then(|told| told.tables.get(&id.table)).cloned();
        let (Some(settings), Some(partition)) = (settings, state.partitions.get_mut(&id)) else { return };
        let durability = partition.durability.in_descriptor();
        let properties = TableProperties { durability, ..settings.properties.clone() };
        let renamed = partition.properties != properties;
        partition.properties = properties;
        partition.environment = settings.environment.clone();
        partition.gate = Gate::of(partition.gate.take(), Some(&settings), clock::now());
        if partition.gate.is_some() {
            self.gated.set(true);
        }
        // Learners hear from their primary what their table is.
        partition.replica.set_table(settings.properties_in_force());
        let lowered = partition.durability.want(settings.durability(), || self.log.request_sync());
        partition.properties.durability = partition.durability.in_descriptor();
        partition.settings = Some(settings);
        self.reshape(state, id);
        let Some(partition) = state.partitions.get(&id) else { return };
        if renamed || lowered.is_some() {
            let copy = partition.copy();
            self.restate(state, id, move |core, stored| {
                let mut state = core.state.borrow_mut();
                if let (Ok(()), Some(change), Some(partition)) = (stored, lowered, state.copy(copy)) {
                    partition.durability.is_stored(change);
                }
            });
        }
    }

    /// The properties that a new copy of a table begins with: as told, else as whoever has it made says.
    pub(crate) fn properties_now(&self, table: TableId, otherwise: TableProperties) -> TableProperties {
        let state = self.state.borrow();
        let settings = state.told.as_ref().and_then(|told| told.tables.get(&table));
        settings.map_or(otherwise, |settings| settings.properties_in_force())
    }

    /// Gives the files of a copy the shape that its table wants, in the pool, if they do not have it.
    /// [`Core::settle`] must follow.
    fn reshape(&self, state: &mut State, id: PartitionId) {
        let Some(partition) = state.partitions.get_mut(&id) else { return };
        let wanted = TableShape::from(&*partition.environment);
        if partition.shape.changing || partition.shape.has == Some(wanted) {
            return;
        }
        partition.shape.changing = true;
        let (copy, table, core) = (partition.copy(), partition.table.clone(), self.clone());
        state.later.push(Box::pin(async move {
            let changed = core.insist(&core.shared.long_pool, move || table.reshape(wanted)).await;
            let changed = changed.and_then(|changed| changed.map_err(|error| error.to_string()));
            let mut state = core.state.borrow_mut();
            let Some(partition) = state.copy(copy) else { return };
            partition.shape.changing = false;
            match changed {
                Ok(()) => {
                    partition.shape.has = Some(wanted);
                    // It may be another one by now.
                    core.reshape(&mut state, id);
                }
                Err(reason) => {
                    tracing::error!(partition = %id, %reason, "the files of a table cannot be shaped as it wants");
                }
            }
            drop(state);
            core.settle();
        }));
    }

    /// Tries again where files do not have the shape that their table wants. [`Core::settle`] must follow.
    pub(crate) fn look_at_shapes(&self, state: &mut State) {
        let told = state.partitions.values().filter(|partition| partition.settings.is_some());
        let ids: Vec<PartitionId> = told.map(|partition| partition.id).collect();
        ids.into_iter().for_each(|id| self.reshape(state, id));
    }

    /// Sees which copies are synced as far as their tables want it by now: their descriptors may say so.
    /// [`Core::settle`] must follow.
    pub(crate) fn look_at_durability(&self, state: &mut State) {
        let synced = state.log_synced;
        let raised: Vec<PartitionId> = state
            .partitions
            .values_mut()
            .filter_map(|partition| {
                let uncertain = partition.stored.state == ReplicaState::Uncertain;
                let raised = partition.durability.is_synced(synced, uncertain);
                partition.properties.durability = partition.durability.in_descriptor();
                raised.then_some(partition.id)
            })
            .collect();
        for id in raised {
            tracing::info!(partition = %id, "everything is synced: the copy is synced from now on");
            self.restate(state, id, |_, _| ());
        }
    }
}
