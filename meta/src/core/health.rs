//! Whether a partition is whole, and if not, what is wrong with each of its members.

use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Configuration, NodeId, PartitionId};

use super::presence::Heard;
use super::propose::newest_uncertain;
use super::state::State;

/// How a partition fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It has all its members, all are alive, and none reported anything but a whole copy.
    Healthy,
    /// Not all of that, and it is served or can be as soon as a secondary takes over.
    Degraded,
    /// No member that could serve as primary is alive.
    Unavailable,
}

impl Health {
    /// The word people see.
    pub fn word(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Unavailable => "unavailable",
        }
    }
}

/// Partitions by how they fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthCounts {
    /// Healthy ones.
    pub healthy: u32,
    /// Degraded ones.
    pub degraded: u32,
    /// Unavailable ones.
    pub unavailable: u32,
}

/// How one partition fares.
pub fn health_of(state: &State, heard: &Heard, partition: PartitionId, configuration: &Configuration) -> Health {
    let sound = |node: NodeId| {
        is_up(state, heard, node) && matches!(state.copy_state(node, partition), None | Some(ReplicaState::Whole))
    };
    if configuration.members().count() >= state.replica_count(partition) && configuration.members().all(sound) {
        return Health::Healthy;
    }
    if configuration.members().any(|node| could_lead(state, heard, partition, configuration, node)) {
        return Health::Degraded;
    }
    Health::Unavailable
}

/// Counts all partitions of the tables that serve.
pub fn health_counts(state: &State, heard: &Heard) -> HealthCounts {
    let mut counts = HealthCounts::default();
    for (partition, configuration) in state.available_partitions() {
        match health_of(state, heard, partition, configuration) {
            Health::Healthy => counts.healthy += 1,
            Health::Degraded => counts.degraded += 1,
            Health::Unavailable => counts.unavailable += 1,
        }
    }
    counts
}

/// True if the node is alive and has an address.
pub(super) fn is_up(state: &State, heard: &Heard, node: NodeId) -> bool {
    heard.is_alive(node) && state.is_reachable(node)
}

/// True if the member is up and its copy could be the primary's, as far as reported.
pub(super) fn could_lead(
    state: &State,
    heard: &Heard,
    partition: PartitionId,
    configuration: &Configuration,
    member: NodeId,
) -> bool {
    is_up(state, heard, member)
        && match state.copy_state(member, partition) {
            None | Some(ReplicaState::Whole) => true,
            Some(ReplicaState::Uncertain) => newest_uncertain(state, partition, configuration) == Ok(member),
            Some(ReplicaState::Learning | ReplicaState::Damaged | ReplicaState::Missing) => false,
        }
}
