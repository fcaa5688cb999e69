//! The state of the meta service.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use pegasus_wire::limits::MEMBERS_MAX;
use pegasus_wire::messages::control::{ReplicaState, TableState};
use pegasus_wire::{Ballot, ClusterId, Configuration, Decree, NodeId, PartitionId, TableId};
use serde::{Deserialize, Serialize};

use super::command::Report;
use super::refusal::{DroppedTable, Refusal};
use super::table::{FormerMember, Table, environment_bytes};

/// Everything the meta service has decided.
///
/// Invariants:
/// - only `super::apply` changes it;
/// - a table has exactly as many configurations as partitions, each with a primary and 1 to `replica_count` distinct
///   members, the secondaries sorted;
/// - no two tables that serve have the same name; a dropped one keeps its name, for people;
/// - the ballot of a partition never falls, and rises by one at a time;
/// - no two nodes have overlapping port ranges on one IP address;
/// - every member of a configuration is in `nodes`, perhaps without an address; a node without an address is a member
///   of something;
/// - a former member of a partition is not a member of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The cluster; `None` until it is founded.
    pub(super) cluster: Option<ClusterId>,
    /// Rises with every change that a node's watch may show. 0 means that nothing has happened yet.
    pub(super) revision: u64,
    /// The highest table number given out; numbers are never used again.
    pub(super) last_table: TableId,
    pub(super) tables: BTreeMap<TableId, Table>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
}

/// One registered node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where it is; `None` after another node took its address.
    pub addresses: Option<NodeAddresses>,
    /// The copies it held when it last registered, in the order of their partitions.
    pub reports: Vec<Report>,
}

impl Node {
    /// What the node last reported of its copy of the partition.
    pub fn report(&self, partition: PartitionId) -> Option<&Report> {
        let found = self.reports.binary_search_by_key(&partition, |report| report.partition);
        found.ok().map(|index| &self.reports[index])
    }
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// Address of core 0; core `i` listens `i` ports above.
    pub address: SocketAddr,
    /// Address of the administration HTTP port.
    pub admin_address: SocketAddr,
    /// Executors; never zero.
    pub cores: u16,
}

impl NodeAddresses {
    /// True if the port ranges of the two have a port of one IP address in common.
    pub fn overlap(&self, other: &NodeAddresses) -> bool {
        let range = |addresses: &NodeAddresses| -> (IpAddr, u32, u32) {
            let first = u32::from(addresses.address.port());
            (addresses.address.ip(), first, first + u32::from(addresses.cores))
        };
        let ((ip, first, end), (other_ip, other_first, other_end)) = (range(self), range(other));
        ip == other_ip && first < other_end && other_first < end
    }
}

impl State {
    /// The cluster; `None` until it is founded.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Number of the last change that a node's watch may show.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All tables by number, those included that were dropped and are still held.
    pub fn tables(&self) -> &BTreeMap<TableId, Table> {
        &self.tables
    }

    /// All registered nodes.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// The table that serves under this name.
    pub fn table_named(&self, name: &str) -> Option<&Table> {
        self.tables.values().find(|table| table.is_available() && table.properties.name == name)
    }

    /// The table that serves under this name; the refusal says so if one was dropped under it.
    pub fn find_table(&self, name: &str) -> Result<&Table, Refusal> {
        let dropped = || {
            let namesakes = self.tables.values().filter(|table| table.properties.name == name);
            let note = |table: &Table| match table.state {
                TableState::Available => None,
                TableState::Dropped { dropped_seconds, purge_seconds } => {
                    Some(DroppedTable { table: table.properties.table, dropped_seconds, purge_seconds })
                }
            };
            namesakes.filter_map(note).max_by_key(|dropped| (dropped.dropped_seconds, dropped.table))
        };
        self.table_named(name).ok_or_else(|| Refusal::NoSuchTable { name: name.to_owned(), dropped: dropped() })
    }

    /// True if there was a table of this number, and it is gone for good.
    pub fn is_purged(&self, table: TableId) -> bool {
        table.0 != 0 && table <= self.last_table && !self.tables.contains_key(&table)
    }

    /// The dropped table whose holding time is over first, and the Unix second at which it is.
    pub fn next_purge(&self) -> Option<(u64, TableId)> {
        let due = |(&table, entry): (&TableId, &Table)| Some((entry.purge_seconds()?, table));
        self.tables.iter().filter_map(due).min()
    }

    /// How many tables were dropped and are still held.
    pub fn dropped_count(&self) -> usize {
        self.tables.values().filter(|table| !table.is_available()).count()
    }

    /// At least what the environments of all tables take in a message.
    pub fn environments_bytes(&self) -> usize {
        self.tables.values().map(|table| environment_bytes(&table.environment)).sum()
    }

    /// The configuration in force of a partition; `None` if there is no such partition.
    pub fn configuration(&self, partition: PartitionId) -> Option<&Configuration> {
        self.tables.get(&partition.table)?.partitions.get(partition.index as usize)
    }

    /// The ballot in force of a partition; 0 if there is no such partition.
    pub fn ballot(&self, partition: PartitionId) -> Ballot {
        self.configuration(partition).map_or(Ballot(0), |configuration| configuration.ballot)
    }

    /// Who left the partition and has not come back, the newest last.
    pub fn former_members(&self, partition: PartitionId) -> &[FormerMember] {
        let table = self.tables.get(&partition.table);
        table.and_then(|table| table.former.get(&partition.index)).map_or(&[], Vec::as_slice)
    }

    /// How many members the partition should have; 0 if there is no such partition.
    pub fn replica_count(&self, partition: PartitionId) -> usize {
        self.tables.get(&partition.table).map_or(0, |table| usize::from(table.properties.replica_count))
    }

    /// True if the node is registered and has an address.
    pub fn is_reachable(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.addresses.is_some())
    }

    /// What the node last reported of its copy of the partition; `None` if it reported nothing of it.
    pub fn report(&self, node: NodeId, partition: PartitionId) -> Option<&Report> {
        self.nodes.get(&node)?.report(partition)
    }

    /// What the node's copy of the partition is worth, as far as reported.
    pub fn copy_state(&self, node: NodeId, partition: PartitionId) -> Option<ReplicaState> {
        self.report(node, partition).map(|report| report.state)
    }

    /// Puts a configuration in force, with everything that follows from it: who left is noted, who joined counts as
    /// whole.
    pub(super) fn install(&mut self, partition: PartitionId, configuration: Configuration) {
        let table = self.tables.get_mut(&partition.table).expect("the partition was found before");
        let in_force = &mut table.partitions[partition.index as usize];
        let before = std::mem::replace(in_force, configuration.clone());
        let mut former = table.former.remove(&partition.index).unwrap_or_default();
        former.retain(|entry| !configuration.contains(entry.node));
        let left: Vec<NodeId> = before.members().filter(|&node| !configuration.contains(node)).collect();
        former.extend(left.iter().map(|&node| FormerMember { node, ballot: configuration.ballot }));
        former.drain(..former.len().saturating_sub(FORMER_MEMBERS_MAX));
        if !former.is_empty() {
            table.former.insert(partition.index, former);
        }
        for joined in configuration.members().filter(|&node| !before.contains(node)) {
            self.count_as_whole(joined, partition, before.ballot);
        }
        for node in left {
            self.forget_if_gone(node);
        }
        self.revision += 1;
    }

    /// Gives a table a name that no table serves under.
    pub(super) fn give_name(&mut self, table: TableId, name: String) {
        for other in self.tables.values_mut().filter(|other| other.renamed_from.as_ref() == Some(&name)) {
            other.renamed_from = None;
        }
        self.table_mut(table).properties.name = name;
    }

    /// A table that was found before.
    pub(super) fn table_mut(&mut self, table: TableId) -> &mut Table {
        self.tables.get_mut(&table).expect("the table was found before")
    }

    /// Forgets a table and whatever was kept for its sake alone. What nodes reported of its copies stays: they are told
    /// to remove them.
    pub(super) fn purge(&mut self, table: TableId) {
        self.tables.remove(&table);
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.forget_if_gone(node);
        }
        self.revision += 1;
    }

    /// Replaces what the node reported of a copy that has been decided to be good: it was taught everything, or it
    /// won among uncertain copies, or an operator said so. Counts until the node registers again, and longer than what
    /// was reported under a lower ballot than `ballot`, which may arrive late.
    pub(super) fn count_as_whole(&mut self, node: NodeId, partition: PartitionId, ballot: Ballot) {
        let Some(node) = self.nodes.get_mut(&node) else { return };
        match node.reports.binary_search_by_key(&partition, |report| report.partition) {
            Ok(index) => {
                let report = &mut node.reports[index];
                report.state = ReplicaState::Whole;
                report.ballot = report.ballot.max(ballot);
            }
            Err(index) => {
                let report = Report { partition, ballot, state: ReplicaState::Whole, last: Decree(0) };
                node.reports.insert(index, report);
            }
        }
    }

    /// Removes a node that lost its address and is a member of nothing: it is never heard of again.
    pub(super) fn forget_if_gone(&mut self, node: NodeId) {
        let registered = self.nodes.contains_key(&node);
        if registered && !self.is_reachable(node) && !self.partitions().any(|(_, one)| one.contains(node)) {
            self.nodes.remove(&node);
        }
    }

    /// True if the partition's table serves. A partition that does not exist does not.
    pub fn is_available(&self, partition: PartitionId) -> bool {
        self.tables.get(&partition.table).is_some_and(Table::is_available)
    }

    /// Every partition of the tables that serve, in the order of their ids.
    pub fn available_partitions(&self) -> impl Iterator<Item = (PartitionId, &Configuration)> {
        self.partitions().filter(|(partition, _)| self.is_available(*partition))
    }

    /// Every partition with its configuration, in the order of their ids; those of dropped tables included.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, &Configuration)> {
        self.tables.iter().flat_map(|(&table, entry)| {
            (0u32..)
                .zip(&entry.partitions)
                .map(move |(index, configuration)| (PartitionId { table, index }, configuration))
        })
    }

    /// Number of partitions of all tables, those of dropped tables included.
    pub fn partition_count(&self) -> u32 {
        self.tables.values().map(|table| table.properties.partition_count).sum()
    }

    /// The state as bytes (JSON with its format number), for snapshots. Equal states give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&Stored { format: FORMAT, state: self }).expect("a state has only encodable fields")
    }

    /// Reads what [`State::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<State, DecodeError> {
        let format: StoredFormat = serde_json::from_slice(bytes).map_err(DecodeError::malformed)?;
        if !(FORMAT_MIN..=FORMAT).contains(&format.format) {
            return Err(DecodeError::Format(format.format));
        }
        let stored: Stored<State> = serde_json::from_slice(bytes).map_err(DecodeError::malformed)?;
        Ok(stored.state)
    }
}

/// A snapshot that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Written by another release.
    #[error("the snapshot has format {0}, this release reads formats {FORMAT_MIN} to {FORMAT}")]
    Format(u32),
    /// Not a snapshot, or a damaged one.
    #[error("the snapshot is malformed: {0}")]
    Malformed(String),
}

impl DecodeError {
    fn malformed(error: serde_json::Error) -> DecodeError {
        DecodeError::Malformed(error.to_string())
    }
}

/// A state with the number of its layout.
#[derive(Serialize, Deserialize)]
struct Stored<S> {
    format: u32,
    state: S,
}

/// The part of [`Stored`] that is read first.
#[derive(Deserialize)]
struct StoredFormat {
    format: u32,
}

/// Former members of one partition that are remembered.
pub const FORMER_MEMBERS_MAX: usize = 2 * MEMBERS_MAX;
/// Number of the snapshot's layout. 2: tables have a state and an environment. A release that does not know them must
/// not read it: it would serve what was dropped.
const FORMAT: u32 = 2;
/// The oldest layout that is read.
const FORMAT_MIN: u32 = 1;
