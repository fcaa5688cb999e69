//! What nodes, clients and operators say to the meta service.

#![expect(missing_docs, reason = "rkyv's derive makes a resolver for TableState whose fields it leaves undocumented")]

use std::net::SocketAddr;

use crate::config::{Configuration, Durability, NodeInfo, TableProperties};
use crate::ids::{Ballot, ClusterId, Decree, NodeId, PartitionId, TableId};

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
    /// The highest ballot in the copy's descriptor; 0 if there is no copy.
    pub ballot: Ballot,
    /// What there is.
    pub state: ReplicaState,
    /// The last decree in its log or table when the node started.
    pub last: Decree,
}

/// What a copy is worth.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ReplicaState {
    /// It has everything it acknowledged.
    Whole,
    /// It may lack what it acknowledged without flushing it, because the machine restarted (`written` durability). Only
    /// when every member is in this state may one of them become primary: the one of the highest (ballot, decree).
    Uncertain,
    /// It was being built and has no claim to completeness.
    Learning,
    /// It lost data and refuses to serve.
    Damaged,
    /// The node was told that it is a member, and holds no copy.
    Missing,
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
    pub tables: Vec<TableDescription>,
    /// Each partition the node is a member of, with its configuration.
    pub partitions: Vec<PartitionConfiguration>,
    /// All registered nodes.
    pub nodes: Vec<NodeInfo>,
    /// What the meta service asks this node to do as primary. Repeated in every answer until it is done or no longer
    /// wanted.
    pub additions: Vec<Addition>,
    /// Copies this node holds and shall remove.
    pub removals: Vec<Removal>,
}

/// Asks the primary to teach a node and then to propose it as a secondary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Addition {
    /// The partition.
    pub partition: PartitionId,
    /// The ballot at which this was decided; a primary of another ballot ignores it.
    pub ballot: Ballot,
    /// The learner.
    pub node: NodeId,
}

/// Tells a node that its copy of a partition is not needed any more: the partition is whole without it. The node
/// renames the copy aside, and deletes it after a holding time. A copy of a table that was purged goes in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Removal {
    /// The partition.
    pub partition: PartitionId,
    /// The ballot in force; a copy of this ballot or a higher one is kept. The highest there is, of a purged table.
    pub ballot: Ballot,
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
    /// All tables by number, those that were dropped and are still held included.
    pub tables: Vec<TableDescription>,
}

/// A table with everything that may change in its life.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct TableDescription {
    /// What its partitions share.
    pub properties: TableProperties,
    /// Its environment, as it was set.
    pub environment: Vec<EnvironmentEntry>,
    /// Whether it serves.
    pub state: TableState,
}

/// One setting of a table's environment (see [`crate::environment`]).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct EnvironmentEntry {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Where a table is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum TableState {
    /// It serves.
    #[default]
    Available,
    /// It was dropped: it serves nothing, and can be recalled until it is purged.
    Dropped {
        /// Unix second at which it was dropped.
        dropped_seconds: u64,
        /// Unix second from which on its rows may be deleted for good.
        purge_seconds: u64,
    },
}

/// Asks for a table's route.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct QueryTable {
    /// The table's name.
    pub name: String,
}

/// Drops a table: it serves nothing from then on. Its rows are held for a time in which it can be recalled.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct DropTable {
    /// The table's name.
    pub name: String,
    /// How long its rows are held; `None` for the meta service's setting.
    pub hold_seconds: Option<u64>,
    /// Succeed if there is no such table; the answer is then an empty one.
    pub if_exists: bool,
}

/// Takes a dropped table back, with all its rows.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct RecallTable {
    /// Its number: several dropped tables may have had one name.
    pub table: TableId,
    /// Its name from now on; `None` for the one it had.
    pub name: Option<String>,
}

/// Gives a table another name. Clients that have opened it go on.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct RenameTable {
    /// The name it has.
    pub name: String,
    /// The name it gets.
    pub new_name: String,
}

/// Deletes a dropped table for good, before its holding time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct PurgeTable {
    /// Its number.
    pub table: TableId,
}

/// Changes a table's environment: all of it is valid and in force, or nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ChangeEnvironment {
    /// The table's name.
    pub name: String,
    /// Delete every setting first.
    pub clear: bool,
    /// Then delete these; one that is not set is no error.
    pub delete: Vec<String>,
    /// Then set these.
    pub set: Vec<EnvironmentEntry>,
}

/// Answer to [`QueryTable`], [`CreateTable`] and whatever changes a table: all a client needs to find the rows.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct TableReply {
    /// The table.
    pub table: TableProperties,
    /// Its environment, as it was set.
    pub environment: Vec<EnvironmentEntry>,
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

/// Asks which partitions are not whole, and why.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct DiagnosePartitions {
    /// Only partitions of this table.
    pub table: Option<String>,
}

/// Answer to [`DiagnosePartitions`].
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Diagnosis {
    /// How many partitions were looked at.
    pub examined: u32,
    /// Those that are not whole.
    pub partitions: Vec<PartitionDiagnosis>,
}

/// One partition that is not whole.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct PartitionDiagnosis {
    /// The partition.
    pub partition: PartitionId,
    /// Its table's name.
    pub table: String,
    /// What is in force.
    pub configuration: Configuration,
    /// How many members it should have.
    pub replica_count: u8,
    /// True if no member that could serve as primary is alive.
    pub unavailable: bool,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// What it waits for, one sentence.
    pub waits_for: String,
}

/// An operator's last resort: makes one node the only member, whatever the others hold. What only others had is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ForceConfiguration {
    /// The partition.
    pub partition: PartitionId,
    /// The ballot the operator looked at.
    pub expected_ballot: Ballot,
    /// Who becomes primary and only member.
    pub primary: NodeId,
    /// Must be true: the operator accepts that acknowledged writes may be lost.
    pub accept_loss: bool,
}
