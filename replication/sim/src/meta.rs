//! The meta service in miniature: configurations, changed by compare-and-swap on the ballot.

use pegasus_wire::{Ballot, Configuration, NodeId};

/// The configurations of all partitions.
#[derive(Clone, Debug)]
pub(crate) struct SimMeta {
    configurations: Vec<Configuration>,
    /// False while no meta server can be reached.
    pub(crate) up: bool,
}

impl SimMeta {
    /// The first assignment of every partition.
    pub(crate) fn new(partitions: usize, members: usize) -> SimMeta {
        let configurations = (0..partitions)
            .map(|partition| Configuration {
                ballot: Ballot::ASSIGNMENT,
                primary: Some(node_id(partition % members)),
                secondaries: (1..members).map(|offset| node_id((partition + offset) % members)).collect(),
            })
            .collect();
        SimMeta { configurations, up: true }
    }

    pub(crate) fn configuration(&self, partition: usize) -> &Configuration {
        &self.configurations[partition]
    }

    /// A proposal. True if it changed what is in force; what is in force now is read back in either case.
    pub(crate) fn propose(&mut self, partition: usize, expected: Ballot, wanted: &Configuration) -> bool {
        let current = &mut self.configurations[partition];
        let accepted = current.ballot == expected && wanted.ballot == expected.next();
        if accepted {
            *current = wanted.clone();
        }
        accepted
    }

    /// An operator's order: another member becomes primary.
    pub(crate) fn force_move(&mut self, partition: usize, choice: usize) {
        let current = &mut self.configurations[partition];
        if current.secondaries.is_empty() || current.ballot == Ballot::ASSIGNMENT {
            return;
        }
        let index = choice % current.secondaries.len();
        if let Some(primary) = &mut current.primary {
            std::mem::swap(primary, &mut current.secondaries[index]);
            current.ballot = current.ballot.next();
        }
    }
}

/// Nodes are counted from 0 inside the simulator and from 1 in names.
pub(crate) fn node_id(index: usize) -> NodeId {
    NodeId(index as u64 + 1)
}

/// The reverse of [`node_id`].
pub(crate) fn node_index(node: NodeId) -> usize {
    node.0 as usize - 1
}
