//! The meta service: the real core (`pegasus-meta`), with a host made of two times and a switch.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use pegasus_meta::core::{
    Command, CreateTable, Force, Heard, Limits, NodeAddresses, Outcome, Presence, Propose, RegisterNode, Report, State,
    apply, plan, query,
};
use pegasus_wire::messages::control::Assignments;
use pegasus_wire::{Ballot, Configuration, NodeId, PartitionId};

use crate::node::{CLUSTER, Node};
use crate::options::Options;

/// The meta service.
#[derive(Clone, Debug)]
pub(crate) struct SimMeta {
    state: State,
    /// When each node was last heard of.
    heard: BTreeMap<NodeId, u64>,
    /// How long after that a node counts as alive.
    alive_micros: u64,
    limits: Limits,
    /// False while no meta server can be reached.
    pub(crate) up: bool,
}

impl SimMeta {
    /// A service that knows all nodes and one table, whose partitions have just been assigned.
    pub(crate) fn new(options: &Options, nodes: &[Node]) -> SimMeta {
        let lease = options.limits.timing.lease_micros;
        let limits = Limits {
            return_time_ms: options.return_micros / 1000,
            learners_per_node: options.limits.learners_max as u32,
            reconnect_ms: lease / 1000,
        };
        let heard = nodes.iter().map(|node| (node.id, 0)).collect();
        let mut meta = SimMeta { state: State::default(), heard, alive_micros: 3 * lease, limits, up: true };
        apply(&mut meta.state, Command::FoundCluster { cluster: CLUSTER });
        for (index, node) in nodes.iter().enumerate() {
            meta.register(index, node.id, Vec::new());
        }
        let create = CreateTable {
            name: "sim".to_owned(),
            partition_count: options.partitions as u32,
            replica_count: options.replicas as u8,
            durability: options.durability,
            if_not_exists: false,
            live: nodes.iter().map(|node| node.id).collect(),
        };
        let created = apply(&mut meta.state, Command::CreateTable(create));
        assert!(matches!(created, Outcome::TableReady { .. }), "the table is made: {created:?}");
        meta
    }

    /// What is in force.
    pub(crate) fn configuration(&self, partition: usize) -> &Configuration {
        self.state.configuration(partition_id(partition)).expect("the table has this partition")
    }

    /// A node says what it holds.
    pub(crate) fn register(&mut self, index: usize, node: NodeId, reports: Vec<Report>) -> Outcome {
        let port = 10_000 + 10 * index as u16;
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let addresses = NodeAddresses { address: address(port), admin_address: address(port + 5), cores: 1 };
        let command = RegisterNode { cluster: Some(CLUSTER), node, addresses, reports };
        apply(&mut self.state, Command::RegisterNode(command))
    }

    /// A sign of life.
    pub(crate) fn hear(&mut self, node: NodeId, now: u64) {
        self.heard.insert(node, now);
    }

    /// A proposal. What is in force after it, unless it is refused.
    pub(crate) fn propose(
        &mut self,
        proposer: NodeId,
        partition: usize,
        expected_ballot: Ballot,
        configuration: Configuration,
    ) -> Outcome {
        let partition = partition_id(partition);
        apply(&mut self.state, Command::Propose(Propose { partition, proposer, expected_ballot, configuration }))
    }

    /// An operator's last resort.
    pub(crate) fn force(&mut self, partition: usize, primary: NodeId) -> Outcome {
        let expected_ballot = self.configuration(partition).ballot;
        let partition = partition_id(partition);
        apply(&mut self.state, Command::Force(Force { partition, expected_ballot, primary, accept_loss: true }))
    }

    /// What a node last said of its copy.
    pub(crate) fn report(&self, node: NodeId, partition: usize) -> Option<&Report> {
        self.state.report(node, partition_id(partition))
    }

    /// What a node is told when it asks.
    pub(crate) fn assignments(&self, node: NodeId, now: u64) -> Assignments {
        let presence = |at: u64| match now - at {
            silent if silent < self.alive_micros => Presence::Alive,
            silent => Presence::Silent { silent_ms: silent / 1000 },
        };
        let heard: Heard = self.heard.iter().map(|(node, at)| (*node, presence(*at))).collect();
        let mut plan = plan(&self.state, &heard, &self.limits);
        let tasks = plan.tasks.remove(&node).unwrap_or_default();
        query::assignments(&self.state, node, &heard, &tasks)
    }
}

/// The wire's name of a partition.
pub(crate) fn partition_id(partition: usize) -> PartitionId {
    PartitionId::new(1, partition as u32)
}
