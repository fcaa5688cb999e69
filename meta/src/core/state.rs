//! The state of the meta service.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use pegasus_wire::{Ballot, ClusterId, Configuration, NodeId, PartitionId, TableId, TableProperties};
use serde::{Deserialize, Serialize};

use super::command::Report;

/// Everything the meta service has decided.
///
/// Invariants:
/// - only `super::apply` changes it;
/// - a table has exactly as many configurations as partitions, each with `replica_count` distinct members;
/// - the ballot of a partition never falls, and rises by one at a time;
/// - no two nodes have overlapping port ranges on one IP address;
/// - every member of a configuration is in `nodes`, perhaps without an address.
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

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// What its partitions share.
    pub properties: TableProperties,
    /// Configuration of each partition, by index.
    pub partitions: Vec<Configuration>,
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
    /// True if the node reported its copy of the partition as damaged.
    pub fn reports_damaged(&self, partition: PartitionId) -> bool {
        let found = self.reports.binary_search_by_key(&partition, |report| report.partition);
        found.is_ok_and(|index| self.reports[index].damaged)
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

    /// All tables by number.
    pub fn tables(&self) -> &BTreeMap<TableId, Table> {
        &self.tables
    }

    /// All registered nodes.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// The table of this name.
    pub fn table_named(&self, name: &str) -> Option<&Table> {
        self.tables.values().find(|table| table.properties.name == name)
    }

    /// The configuration in force of a partition; `None` if there is no such partition.
    pub fn configuration(&self, partition: PartitionId) -> Option<&Configuration> {
        self.tables.get(&partition.table)?.partitions.get(partition.index as usize)
    }

    /// The ballot in force of a partition; 0 if there is no such partition.
    pub fn ballot(&self, partition: PartitionId) -> Ballot {
        self.configuration(partition).map_or(Ballot(0), |configuration| configuration.ballot)
    }

    /// Every partition with its configuration, in the order of their ids.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, &Configuration)> {
        self.tables.iter().flat_map(|(&table, entry)| {
            (0u32..)
                .zip(&entry.partitions)
                .map(move |(index, configuration)| (PartitionId { table, index }, configuration))
        })
    }

    /// Number of partitions of all tables.
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
        if format.format != FORMAT {
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
    #[error("the snapshot has format {0}, this release reads format {FORMAT}")]
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

/// Number of the snapshot's layout.
const FORMAT: u32 = 1;
