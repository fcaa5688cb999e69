//! What the meta service tells this node to hold: new copies are made, known ones hear their configuration.

use std::sync::Arc;
use std::time::Duration;

use pegasus_engine::descriptor::{CopyState, Descriptor, create_copy, table_directory};
use pegasus_engine::table::{OpenMode, Table};
use pegasus_replication::{Event, Recovered, Replica, ReplicaIdentity, ReplicaLimits};
use pegasus_wire::messages::control::{Assignments, ReplicaState};
use pegasus_wire::{Ballot, Configuration, Decree, PartitionId, ReplicaIncarnation, TableProperties, owner_core};

use super::partition::Partition;
use super::{Core, clock};
use crate::tables::Told;

/// Pause before a copy that could not be made is tried again.
const MAKE_COPY_PAUSE: Duration = Duration::from_secs(1);

impl Core {
    /// Takes an answer of the watch: the tables, the partitions this core owns, the nodes.
    pub(crate) fn take_assignments(&self, told: Arc<Told>) {
        let assignments = &told.assignments;
        {
            let mut state = self.state.borrow_mut();
            state.nodes = assignments.nodes.iter().map(|node| (node.node, node.clone())).collect();
            state.told = Some(told.clone());
        }
        // Before anything is done under a new configuration.
        self.take_tables();
        for assigned in &assignments.partitions {
            let id = assigned.partition;
            if owner_core(id, self.shared.config.cores) != self.id {
                continue;
            }
            if told.tables.contains_key(&id.table) {
                self.take_assignment(id, &assigned.configuration);
            } else {
                tracing::warn!(partition = %id, "the meta service assigned a partition of a table it did not describe");
            }
        }
        self.settle();
        self.take_tasks(assignments);
    }

    /// What the meta service asks for: members to add, copies to remove. Said until it is done.
    pub(crate) fn take_tasks(&self, assignments: &Assignments) {
        {
            let mut state = self.state.borrow_mut();
            let leaving = state.leaving;
            for addition in assignments.additions.iter().filter(|_| !leaving) {
                if state.partitions.contains_key(&addition.partition) {
                    let add = Event::AddMember { ballot: addition.ballot, node: addition.node };
                    state.events.push_back((addition.partition, add));
                }
            }
        }
        self.settle();
        self.take_removals(assignments);
    }

    fn take_assignment(&self, id: PartitionId, configuration: &Configuration) {
        let mut state = self.state.borrow_mut();
        if let Some(partition) = state.partitions.get_mut(&id) {
            if partition.stored.state == ReplicaState::Uncertain && configuration.ballot > partition.replica.ballot() {
                // What was reported of such copies counts only until the configuration changes.
                self.shared.copies_changed.notify_one();
            }
            state.events.push_back((id, Event::Assigned(configuration.clone())));
        } else if state.broken.contains_key(&id) || state.opening.contains_key(&id) {
            // Reported to the meta service, or on its way; nothing to do with it here.
        } else if state.leaving {
            // Nothing begins on a node that stops.
        } else if configuration.ballot == Ballot::ASSIGNMENT {
            let Some(settings) = state.told.as_ref().and_then(|told| told.tables.get(&id.table)) else { return };
            let properties = settings.properties_in_force();
            state.opening.insert(id, "is being made");
            drop(state);
            self.make_copy(id, properties, configuration.clone());
        } else if state.missing.insert(id) {
            tracing::error!(
                partition = %id, ballot = %configuration.ballot,
                "this node is a member but holds no copy: it was removed from the data directory; nothing is served"
            );
            self.shared.copies_changed.notify_one();
        }
    }

    /// Makes an empty copy in the pool, then lets its replica hear its configuration.
    fn make_copy(&self, id: PartitionId, table: TableProperties, configuration: Configuration) {
        let descriptor = Descriptor {
            cluster: self.shared.cluster().unwrap_or_default(),
            table: table.clone(),
            partition: id,
            incarnation: ReplicaIncarnation(rand::random()),
            configuration: configuration.clone(),
            state: CopyState::Whole,
            boot_id: self.boot_id,
        };
        let incarnation = descriptor.incarnation;
        let shared = self.shared.clone();
        let make = move || -> Result<Table, String> {
            let directory =
                create_copy(&shared.config.data_directory, &descriptor).map_err(|error| error.to_string())?;
            let rows = table_directory(&directory, descriptor.incarnation);
            Table::open(&rows, &shared.tables, id, OpenMode::CreateIfMissing).map_err(|error| error.to_string())
        };
        let core = self.clone();
        self.later(async move {
            let opened = core.insist(&core.shared.long_pool, make).await.flatten();
            {
                let mut state = core.state.borrow_mut();
                state.opening.remove(&id);
                match opened {
                    Ok(opened) => {
                        let recovered = Recovered::empty(configuration.clone());
                        let stored = core.stored_as(ReplicaState::Whole, &recovered);
                        let replica = core.replica(id, table.clone(), recovered);
                        let partition = Partition::new(table, id, incarnation, replica, opened, Decree(0), stored);
                        state.partitions.insert(id, partition);
                        core.take_table(&mut state, id);
                        core.shared.copies_changed.notify_one();
                        state.events.push_back((id, Event::Assigned(configuration)));
                    }
                    Err(reason) => {
                        tracing::error!(partition = %id, %reason, "cannot make a copy; it is tried again");
                        state.later.push(Box::pin(core.clone().make_copy_later(id, configuration)));
                    }
                }
            }
            core.settle();
        });
    }

    /// Tries again to make a copy, unless it has come about meanwhile or the node stops.
    async fn make_copy_later(self, id: PartitionId, configuration: Configuration) {
        glommio::timer::sleep(MAKE_COPY_PAUSE).await;
        if !self.state.borrow().stopping {
            self.take_assignment(id, &configuration);
        }
    }

    /// A replica of this node.
    pub(crate) fn replica(&self, id: PartitionId, table: TableProperties, recovered: Recovered) -> Replica {
        let identity = ReplicaIdentity {
            cluster: self.shared.cluster().unwrap_or_default(),
            node: self.shared.node,
            partition: id,
            table,
        };
        let replication = &self.shared.config.replication;
        let limits = ReplicaLimits {
            timing: replication.timing(),
            min_members: replication.min_members,
            ..ReplicaLimits::default()
        };
        Replica::with_limits(identity, recovered, limits, clock::now())
    }
}
