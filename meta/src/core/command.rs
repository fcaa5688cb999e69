//! What may be asked of the state, and what comes of it.

use std::collections::BTreeSet;

use pegasus_wire::messages::control::{self, ReplicaState};
use pegasus_wire::{Ballot, ClusterId, Configuration, Decree, Durability, NodeId, PartitionId, Status, TableId};
use serde::{Deserialize, Serialize};

use super::limits::{NODES_MAX, PARTITIONS_MAX, TABLES_MAX};
use super::state::NodeAddresses;

/// A change. It carries everything its outcome depends on besides the state, so that every member of the Raft
/// group, and every replay, comes to the same result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Names the cluster, once. Later ones change nothing and are told the name.
    FoundCluster {
        /// Drawn at random by the host.
        cluster: ClusterId,
    },
    /// A node announces itself.
    RegisterNode(RegisterNode),
    /// An operator wants a table.
    CreateTable(CreateTable),
    /// A member wants a new configuration.
    Propose(Propose),
    /// An operator makes one node the only member.
    Force(Force),
}

/// A node announces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterNode {
    /// The cluster the node belongs to; `None` on its first start.
    pub cluster: Option<ClusterId>,
    /// The node.
    pub node: NodeId,
    /// Where it listens.
    pub addresses: NodeAddresses,
    /// Every copy it holds.
    pub reports: Vec<Report>,
}

/// One copy of a partition on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Report {
    /// The partition.
    pub partition: PartitionId,
    /// The highest ballot in the copy's descriptor; 0 if there is no copy.
    pub ballot: Ballot,
    /// What there is.
    pub state: ReplicaState,
    /// The last decree in its log or table when the node started.
    pub last: Decree,
}

/// An operator wants a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTable {
    /// Its name.
    pub name: String,
    /// A power of two, 1 to `PARTITION_COUNT_MAX`.
    pub partition_count: u32,
    /// 1 to `MEMBERS_MAX`.
    pub replica_count: u8,
    /// When writes may be acknowledged.
    pub durability: Durability,
    /// Succeed if a table of this name and these properties exists.
    pub if_not_exists: bool,
    /// The nodes that were alive when the request arrived. Liveness is no part of the state.
    pub live: BTreeSet<NodeId>,
}

/// A member wants a new configuration: compare-and-swap on the ballot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propose {
    /// The partition.
    pub partition: PartitionId,
    /// Who asks.
    pub proposer: NodeId,
    /// The ballot the proposer believes to be in force.
    pub expected_ballot: Ballot,
    /// What it wants, under the next ballot.
    pub configuration: Configuration,
}

/// An operator makes one node the only member, whatever the others hold: compare-and-swap on the ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Force {
    /// The partition.
    pub partition: PartitionId,
    /// The ballot the operator looked at.
    pub expected_ballot: Ballot,
    /// Who becomes primary and only member.
    pub primary: NodeId,
    /// The operator accepts that acknowledged writes may be lost; refused otherwise.
    pub accept_loss: bool,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The cluster has this name: the one asked for, or the one it had before.
    Founded {
        /// The name in force.
        cluster: ClusterId,
    },
    /// The node is registered.
    Registered {
        /// The cluster it now belongs to.
        cluster: ClusterId,
        /// Nodes that lost their address to this one.
        displaced: Vec<NodeId>,
    },
    /// The table exists.
    TableReady {
        /// Its number.
        table: TableId,
        /// False if it existed before and `if_not_exists` allowed that.
        created: bool,
    },
    /// The proposal is in force (it may have been before).
    Accepted {
        /// The configuration in force.
        configuration: Configuration,
    },
    /// The proposal named a ballot that is not in force; nothing changed.
    Conflict {
        /// The configuration in force.
        configuration: Configuration,
    },
    /// The command breaks a rule; nothing changed.
    Refused(Refusal),
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No cluster yet.
    #[error("the meta service has not named its cluster yet")]
    NotFounded,
    /// The node belongs to another cluster.
    #[error("the node belongs to cluster {theirs}, this is the meta service of cluster {ours}")]
    WrongCluster {
        /// This cluster.
        ours: ClusterId,
        /// The cluster the node named.
        theirs: ClusterId,
    },
    /// The node's announcement contradicts itself or a limit.
    #[error("the registration is invalid: {0}")]
    InvalidRegistration(String),
    /// A node holds a copy that this service never ordered: the service lost state.
    #[error(
        "the node holds partition {partition} under ballot {reported}, but the meta service knows ballot {known} only: \
         the meta service has lost state (an old copy of its directory?); nothing is served from it until an operator \
         has restored it"
    )]
    NewerBallot {
        /// The partition.
        partition: PartitionId,
        /// The ballot of the copy.
        reported: Ballot,
        /// The ballot in the state; 0 if the partition is unknown.
        known: Ballot,
    },
    /// As many nodes as there may be.
    #[error("{NODES_MAX} nodes are registered, which is the limit (nodes_max)")]
    TooManyNodes,
    /// The table's name, counts or durability break a rule.
    #[error("{0}")]
    InvalidTable(String),
    /// The name is taken by a table with these properties.
    #[error(
        "table {name:?} exists already, with {partition_count} partitions of {replica_count} replicas, {durability}"
    )]
    TableExists {
        /// The name.
        name: String,
        /// Partitions of the table that exists.
        partition_count: u32,
        /// Members of each of its partitions.
        replica_count: u8,
        /// Its durability.
        durability: Durability,
    },
    /// Too few live nodes for the replica count.
    #[error(
        "{wanted} replicas need {wanted} live storage nodes, there are {live}; start more nodes or ask for fewer \
         replicas"
    )]
    NotEnoughNodes {
        /// Members wanted.
        wanted: u8,
        /// Live registered nodes.
        live: usize,
    },
    /// As many tables as there may be.
    #[error("there are {TABLES_MAX} tables, which is the limit (tables_max)")]
    TooManyTables,
    /// As many partitions as there may be.
    #[error(
        "{wanted} more partitions would pass the cluster's limit of {PARTITIONS_MAX} (partitions_max), {existing} exist"
    )]
    TooManyPartitions {
        /// Partitions asked for.
        wanted: u32,
        /// Partitions there are.
        existing: u32,
    },
    /// No such partition.
    #[error("there is no partition {0}")]
    NoSuchPartition(PartitionId),
    /// The proposer does not belong to the partition.
    #[error("node {proposer} is not a member of partition {partition} and may not propose for it")]
    NotMember {
        /// The partition.
        partition: PartitionId,
        /// Who asked.
        proposer: NodeId,
    },
    /// The proposer is a secondary and wants something else than to take over.
    #[error(
        "node {proposer} is a secondary of partition {partition}: it may only propose itself as primary, with the old \
         primary gone and the rest unchanged"
    )]
    NotPrimary {
        /// The partition.
        partition: PartitionId,
        /// Who asked.
        proposer: NodeId,
    },
    /// The proposed configuration breaks a rule.
    #[error("the proposed configuration is invalid: {0}")]
    InvalidProposal(String),
    /// The new primary's copy has no claim to completeness, as far as its node has reported.
    #[error(
        "node {node} last reported its copy of partition {partition} as {}; such a copy does not become primary",
        state_word(*.state)
    )]
    UnfitCopy {
        /// The partition.
        partition: PartitionId,
        /// The node that would be primary.
        node: NodeId,
        /// What it reported.
        state: ReplicaState,
    },
    /// The new primary may have lost what it acknowledged, and a member may have it still.
    #[error(
        "node {node} reported its copy of partition {partition} as uncertain (its machine restarted): it becomes \
         primary only when every member has reported the same; member {awaited} has not"
    )]
    AwaitsMember {
        /// The partition.
        partition: PartitionId,
        /// The node that would be primary.
        node: NodeId,
        /// A member that has not reported an uncertain copy.
        awaited: NodeId,
    },
    /// Every member may have lost what it acknowledged, and another one has more.
    #[error(
        "every member of partition {partition} reported its copy as uncertain; the newest copy is that of node \
         {newest}, so node {node} does not become primary"
    )]
    NotNewest {
        /// The partition.
        partition: PartitionId,
        /// The node that would be primary.
        node: NodeId,
        /// The node with the newest copy.
        newest: NodeId,
    },
    /// Forced without the word that losses are accepted.
    #[error(
        "forcing a configuration may lose acknowledged writes that only the other members hold; it is done only if \
         the request accepts that (accept_loss)"
    )]
    LossNotAccepted,
    /// The node to be forced holds nothing, as far as it has reported.
    #[error("node {node} cannot be made the only member of partition {partition}: {reason}")]
    NotForcible {
        /// The partition.
        partition: PartitionId,
        /// The node.
        node: NodeId,
        /// Why not.
        reason: String,
    },
}

impl Refusal {
    /// The status that answers the request.
    pub fn status(&self) -> Status {
        match self {
            Refusal::NotFounded => Status::ShuttingDown,
            Refusal::WrongCluster { .. } => Status::WrongCluster,
            Refusal::InvalidRegistration(_)
            | Refusal::InvalidTable(_)
            | Refusal::InvalidProposal(_)
            | Refusal::LossNotAccepted
            | Refusal::NotForcible { .. } => Status::InvalidArgument,
            // A later registration may change each of them.
            Refusal::UnfitCopy { .. } | Refusal::AwaitsMember { .. } | Refusal::NotNewest { .. } => Status::NotServing,
            Refusal::NewerBallot { .. } => Status::Internal,
            Refusal::TooManyNodes | Refusal::TooManyTables | Refusal::TooManyPartitions { .. } => Status::TooLarge,
            Refusal::TableExists { .. } => Status::TableExists,
            Refusal::NotEnoughNodes { .. } => Status::NotEnoughNodes,
            Refusal::NoSuchPartition(_) => Status::NoSuchPartition,
            Refusal::NotMember { .. } => Status::Forbidden,
            Refusal::NotPrimary { .. } => Status::NotPrimary,
        }
    }
}

/// The word of the glossary for the state of a copy.
pub fn state_word(state: ReplicaState) -> &'static str {
    match state {
        ReplicaState::Whole => "whole",
        ReplicaState::Uncertain => "uncertain",
        ReplicaState::Learning => "learning",
        ReplicaState::Damaged => "damaged",
        ReplicaState::Missing => "missing",
    }
}

impl From<control::RegisterNode> for RegisterNode {
    fn from(message: control::RegisterNode) -> RegisterNode {
        let report = |report: control::ReplicaReport| Report {
            partition: report.partition,
            ballot: report.ballot,
            state: report.state,
            last: report.last,
        };
        RegisterNode {
            cluster: message.cluster,
            node: message.node,
            addresses: NodeAddresses {
                address: message.address,
                admin_address: message.admin_address,
                cores: message.cores,
            },
            reports: message.replicas.into_iter().map(report).collect(),
        }
    }
}

impl CreateTable {
    /// The command for a request, with the nodes alive at its arrival.
    pub fn from_request(message: control::CreateTable, live: BTreeSet<NodeId>) -> CreateTable {
        CreateTable {
            name: message.name,
            partition_count: message.partition_count,
            replica_count: message.replica_count,
            durability: message.durability,
            if_not_exists: message.if_not_exists,
            live,
        }
    }
}

impl From<control::ProposeConfiguration> for Propose {
    fn from(message: control::ProposeConfiguration) -> Propose {
        Propose {
            partition: message.partition,
            proposer: message.proposer,
            expected_ballot: message.expected_ballot,
            configuration: message.configuration,
        }
    }
}

impl From<control::ForceConfiguration> for Force {
    fn from(message: control::ForceConfiguration) -> Force {
        Force {
            partition: message.partition,
            expected_ballot: message.expected_ballot,
            primary: message.primary,
            accept_loss: message.accept_loss,
        }
    }
}
