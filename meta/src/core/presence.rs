//! Which nodes have been heard of: what the host knows of the nodes and the core does not.
//!
//! An argument of everything that depends on it, never part of the state, and never a reason to promote anybody.

use std::collections::{BTreeMap, BTreeSet};

use pegasus_wire::NodeId;

/// Whether a node gives signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It does.
    Alive,
    /// It does not.
    Silent {
        /// Time since the last sign.
        silent_ms: u64,
    },
}

/// The presence of all nodes at one moment. A node that is not in it has never been heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    nodes: BTreeMap<NodeId, Presence>,
}

impl Heard {
    /// The time since the node's last sign of life: 0 while it is alive, the largest number if there never was one.
    pub fn silent_ms(&self, node: NodeId) -> u64 {
        match self.nodes.get(&node) {
            Some(Presence::Alive) => 0,
            Some(Presence::Silent { silent_ms }) => *silent_ms,
            None => u64::MAX,
        }
    }

    /// True if the node is alive.
    pub fn is_alive(&self, node: NodeId) -> bool {
        self.nodes.get(&node) == Some(&Presence::Alive)
    }

    /// The nodes that are alive.
    pub fn alive(&self) -> BTreeSet<NodeId> {
        self.nodes.iter().filter(|(_, presence)| **presence == Presence::Alive).map(|(&node, _)| node).collect()
    }

    /// All nodes.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Presence> {
        &self.nodes
    }
}

impl FromIterator<(NodeId, Presence)> for Heard {
    fn from_iter<I: IntoIterator<Item = (NodeId, Presence)>>(nodes: I) -> Heard {
        Heard { nodes: nodes.into_iter().collect() }
    }
}
