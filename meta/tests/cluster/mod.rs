//! A small cluster in memory, for the tests of the core: nodes 1 to n, tables, reports, proposals in short.
// Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

use pegasus_meta::core::{
    Command, CreateTable, DropTable, Force, Heard, NodeAddresses, Outcome, Presence, Propose, PurgeTable, RecallTable,
    Refusal, RegisterNode, RenameTable, Report, State, apply,
};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Ballot, ClusterId, Configuration, Decree, Durability, NodeId, PartitionId, TableId};

pub const CLUSTER: ClusterId = ClusterId(77);

/// A state with nodes 1 to `count`, two cores each, on ports 1000, 1010, ...
pub struct Cluster {
    pub state: State,
}

impl Cluster {
    pub fn new(count: u64) -> Cluster {
        let mut cluster = Cluster { state: State::default() };
        apply(&mut cluster.state, Command::FoundCluster { cluster: CLUSTER });
        for node in 1..=count {
            cluster.report(node, &[]);
        }
        cluster
    }

    /// Nodes 1 to `count` and one table of one partition on nodes 1 to `members`, with node 1 as primary.
    pub fn with_partition(count: u64, members: u64) -> (Cluster, PartitionId) {
        let mut cluster = Cluster::new(count);
        cluster.create("t", 1, members as u8, 1..=members);
        let partition = PartitionId::new(1, 0);
        assert_eq!(cluster.members(partition), (1..=members).collect::<Vec<_>>());
        (cluster, partition)
    }

    pub fn create(&mut self, name: &str, partitions: u32, replicas: u8, live: impl IntoIterator<Item = u64>) {
        let command = CreateTable {
            name: name.to_owned(),
            partition_count: partitions,
            replica_count: replicas,
            durability: Durability::Written,
            if_not_exists: false,
            live: live.into_iter().map(NodeId).collect(),
        };
        let outcome = apply(&mut self.state, Command::CreateTable(command));
        assert!(matches!(outcome, Outcome::TableReady { created: true, .. }), "{outcome:?}");
    }

    /// What comes of a command that must not be refused.
    pub fn run(&mut self, command: Command) -> Outcome {
        match apply(&mut self.state, command) {
            Outcome::Refused(refusal) => panic!("refused: {refusal}"),
            outcome => outcome,
        }
    }

    /// A command that must be refused, and change nothing.
    pub fn refused(&mut self, command: Command) -> Refusal {
        let before = self.state.clone();
        let outcome = apply(&mut self.state, command.clone());
        assert_eq!(self.state, before, "{command:?}");
        match outcome {
            Outcome::Refused(refusal) => refusal,
            other => panic!("{command:?} must be refused: {other:?}"),
        }
    }

    /// Drops a table that serves, at second 1000, for 100 seconds.
    pub fn drop_table(&mut self, name: &str) -> TableId {
        match self.run(drop_table(name, false)) {
            Outcome::TableChanged { table, changed: true } => table,
            other => panic!("{name} was not dropped: {other:?}"),
        }
    }

    /// Recalls a dropped table under the name it had.
    pub fn recall(&mut self, table: TableId) {
        assert_eq!(self.run(recall_table(table, None)), Outcome::TableChanged { table, changed: true });
    }

    /// Deletes a dropped table for good.
    pub fn purge(&mut self, table: TableId) {
        assert_eq!(self.run(purge_table(table, None)), Outcome::TablePurged { table, changed: true });
    }

    /// The node registers with these copies: (partition, ballot, state, last decree).
    pub fn report(&mut self, node: u64, copies: &[(PartitionId, u64, ReplicaState, u64)]) {
        let outcome = apply(&mut self.state, Command::RegisterNode(registration(node, copies)));
        assert!(matches!(outcome, Outcome::Registered { .. }), "{outcome:?}");
    }

    /// A node without any copy takes the address of this one.
    pub fn displace(&mut self, node: u64, winner: u64) {
        let taken = RegisterNode { node: NodeId(winner), ..registration(node, &[]) };
        let outcome = apply(&mut self.state, Command::RegisterNode(taken));
        assert_eq!(outcome, Outcome::Registered { cluster: CLUSTER, displaced: vec![NodeId(node)] });
    }

    /// A proposal for the next ballot: the first of `members` is to be primary.
    pub fn proposal(&self, partition: PartitionId, proposer: u64, members: &[u64]) -> Propose {
        let expected_ballot = self.state.ballot(partition);
        let configuration = configuration(expected_ballot.0 + 1, members);
        Propose { partition, proposer: NodeId(proposer), expected_ballot, configuration }
    }

    pub fn propose(&mut self, partition: PartitionId, proposer: u64, members: &[u64]) -> Outcome {
        let command = self.proposal(partition, proposer, members);
        apply(&mut self.state, Command::Propose(command))
    }

    /// Proposes what must be accepted, and checks what is in force then.
    pub fn accept(&mut self, partition: PartitionId, proposer: u64, members: &[u64]) {
        let ballot = self.state.ballot(partition).0 + 1;
        let outcome = self.propose(partition, proposer, members);
        let wanted = configuration(ballot, members);
        assert_eq!(outcome, Outcome::Accepted { configuration: wanted.clone() }, "{proposer} wants {members:?}");
        assert_eq!(self.state.configuration(partition), Some(&wanted));
    }

    /// Proposes what must be refused, and checks that nothing changes.
    pub fn refuse(&mut self, partition: PartitionId, proposer: u64, members: &[u64]) -> Refusal {
        let before = self.state.clone();
        let outcome = self.propose(partition, proposer, members);
        assert_eq!(self.state, before, "{proposer} wants {members:?}");
        match outcome {
            Outcome::Refused(refusal) => refusal,
            other => panic!("node {proposer} may not have {members:?}: {other:?}"),
        }
    }

    pub fn force(&mut self, partition: PartitionId, expected: u64, primary: u64, accept_loss: bool) -> Outcome {
        let expected_ballot = Ballot(expected);
        let command = Force { partition, expected_ballot, primary: NodeId(primary), accept_loss };
        apply(&mut self.state, Command::Force(command))
    }

    /// The members in force, the primary first.
    pub fn members(&self, partition: PartitionId) -> Vec<u64> {
        self.state.configuration(partition).unwrap().members().map(|node| node.0).collect()
    }

    /// The former members and the ballots under which they left.
    pub fn former(&self, partition: PartitionId) -> Vec<(u64, u64)> {
        self.state.former_members(partition).iter().map(|entry| (entry.node.0, entry.ballot.0)).collect()
    }
}

pub fn registration(node: u64, copies: &[(PartitionId, u64, ReplicaState, u64)]) -> RegisterNode {
    let report = |&(partition, ballot, state, last): &(PartitionId, u64, ReplicaState, u64)| Report {
        partition,
        ballot: Ballot(ballot),
        state,
        last: Decree(last),
    };
    RegisterNode {
        cluster: Some(CLUSTER),
        node: NodeId(node),
        addresses: addresses(990 + 10 * node as u16, 2),
        reports: copies.iter().map(report).collect(),
    }
}

/// A drop at second 1000, for 100 seconds.
pub fn drop_table(name: &str, if_exists: bool) -> Command {
    Command::DropTable(DropTable { name: name.to_owned(), hold_seconds: 100, if_exists, now_seconds: 1000 })
}

pub fn recall_table(table: TableId, name: Option<&str>) -> Command {
    Command::RecallTable(RecallTable { table, name: name.map(str::to_owned) })
}

pub fn rename_table(name: &str, new_name: &str) -> Command {
    Command::RenameTable(RenameTable { name: name.to_owned(), new_name: new_name.to_owned() })
}

pub fn purge_table(table: TableId, due_at_seconds: Option<u64>) -> Command {
    Command::PurgeTable(PurgeTable { table, due_at_seconds })
}

pub fn addresses(port: u16, cores: u16) -> NodeAddresses {
    NodeAddresses { address: ([10, 0, 0, 1], port).into(), admin_address: ([10, 0, 0, 1], 9000).into(), cores }
}

pub fn configuration(ballot: u64, members: &[u64]) -> Configuration {
    Configuration {
        ballot: Ballot(ballot),
        primary: members.first().copied().map(NodeId),
        secondaries: members.iter().skip(1).copied().map(NodeId).collect(),
    }
}

/// These nodes are alive; the others have never been heard of.
pub fn alive(nodes: impl IntoIterator<Item = u64>) -> Heard {
    nodes.into_iter().map(|node| (NodeId(node), Presence::Alive)).collect()
}

/// `alive`, and these are silent for so many milliseconds.
pub fn heard(nodes: impl IntoIterator<Item = u64>, silent: &[(u64, u64)]) -> Heard {
    let present = nodes.into_iter().map(|node| (NodeId(node), Presence::Alive));
    present.chain(silent.iter().map(|&(node, silent_ms)| (NodeId(node), Presence::Silent { silent_ms }))).collect()
}
