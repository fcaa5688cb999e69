//! What nodes, clients and operators say to the meta service.

use std::net::SocketAddr;

use crate::config::{Configuration, Durability, NodeInfo, TableProperties};
use crate::ids::{Ballot, ClusterId, NodeId, PartitionId, TableId};

/// A node announces itself, at every start and after every lost connection.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct RegisterNode {
    /// The cluster the node's directory belongs to; `None` on its first start.
    pub cluster: Option<ClusterId>,
    /// The node.
    pub node: NodeId,
    /// Address of core 0.
    pub address: SocketAddr,
    /// Administration HTTP address.
    pub admin_address: SocketAddr,
    /// Executors.
    pub cores: u16,
    /// Every copy the node holds.
    pub replicas: Vec<ReplicaReport>,
}

/// One copy of a partition on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ReplicaReport {
    /// The partition.
    pub partition: PartitionId,
    /// The highest ballot in the copy's descriptor.
    pub ballot: Ballot,
    /// True if the copy lost data and refuses to serve.
    pub damaged: bool,
}

/// Answer to [`RegisterNode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Registered {
    /// The cluster; the node keeps it and refuses any other from then on.
    pub cluster: ClusterId,
}

/// A node asks for what it should hold. Answered at once if the state has moved past `revision`, else when it
/// does, at the latest after `wait_ms`. Doubles as the node's sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct WatchAssignments {
    /// The node.
    pub node: NodeId,
    /// The last revision it has seen; 0 at first.
    pub revision: u64,
    /// How long to wait for news, at most 10,000.
    pub wait_ms: u32,
}

/// Answer to [`WatchAssignments`]: everything the node is a member of.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Assignments {
    /// Revision of this answer.
    pub revision: u64,
    /// The tables that have partitions on this node.
    pub tables: Vec<TableProperties>,
    /// Each partition the node is a member of, with its configuration.
    pub partitions: Vec<PartitionConfiguration>,
    /// All registered nodes.
    pub nodes: Vec<NodeInfo>,
}

/// A partition and its configuration.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct PartitionConfiguration {
    /// The partition.
    pub partition: PartitionId,
    /// Ballot and members.
    pub configuration: Configuration,
}

/// Asks for a new configuration: compare-and-swap on the ballot. Proposing again what is already in force
/// (same members, same ballot) succeeds, so that a lost answer can be asked for again.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ProposeConfiguration {
    /// The partition.
    pub partition: PartitionId,
    /// Who asks.
    pub proposer: NodeId,
    /// The ballot the proposer believes to be current; `configuration.ballot` is one above it.
    pub expected_ballot: Ballot,
    /// The configuration wanted.
    pub configuration: Configuration,
}

/// Answer to [`ProposeConfiguration`], with `Ok` or `BallotConflict`: the configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ProposalReply {
    /// What is in force now.
    pub configuration: Configuration,
}

/// Makes a table.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct CreateTable {
    /// Its name.
    pub name: String,
    /// A power of two, 1 to `PARTITION_COUNT_MAX`.
    pub partition_count: u32,
    /// 1 to `MEMBERS_MAX`; needs as many live nodes.
    pub replica_count: u8,
    /// When writes may be acknowledged.
    pub durability: Durability,
    /// Succeed if a table of this name and these properties exists.
    pub if_not_exists: bool,
}

/// Asks for the list of tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ListTables;

/// Answer to [`ListTables`].
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct TableList {
    /// All tables by number.
    pub tables: Vec<TableProperties>,
}

/// Asks for a table's route.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct QueryTable {
    /// The table's name.
    pub name: String,
}

/// Answer to [`QueryTable`] and [`CreateTable`]: all a client needs to find the rows.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct TableReply {
    /// The table.
    pub table: TableProperties,
    /// Configuration of each partition, by index.
    pub partitions: Vec<Configuration>,
    /// The nodes named in them.
    pub nodes: Vec<NodeInfo>,
}

/// Asks about the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct QueryCluster;

/// Answer to [`QueryCluster`].
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ClusterReply {
    /// The cluster.
    pub cluster: ClusterId,
    /// Addresses of the meta servers, the leader first.
    pub meta_addresses: Vec<SocketAddr>,
    /// All registered nodes with what they hold.
    pub nodes: Vec<NodeSummary>,
    /// All tables with the health of their partitions.
    pub tables: Vec<TableSummary>,
}

/// A node and its load.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct NodeSummary {
    /// The node.
    pub info: NodeInfo,
    /// Partitions it is primary of.
    pub primaries: u32,
    /// Partitions it is secondary of.
    pub secondaries: u32,
    /// Copies it reported as damaged.
    pub damaged: u32,
}

/// A table and its health.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct TableSummary {
    /// The table's number.
    pub table: TableId,
    /// Its name.
    pub name: String,
    /// Partitions whose members are all alive.
    pub healthy_partitions: u32,
    /// All partitions.
    pub partition_count: u32,
}
