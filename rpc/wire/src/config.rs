//! What the meta service decides and every server knows: tables, configurations of partitions, nodes.

use std::fmt;
use std::net::SocketAddr;

use crate::hash::owner_core;
use crate::ids::{Ballot, NodeId, PartitionId, TableId};

/// When a replica may acknowledge a mutation. A property of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Durability {
    /// After the log write was flushed to stable storage (fdatasync). The default.
    #[default]
    Synced,
    /// After the log write reached the device, not flushed: survives kill -9, not a power failure of all members.
    Written,
}

impl fmt::Display for Durability {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Durability::Synced => "synced",
            Durability::Written => "written",
        })
    }
}

impl std::str::FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "synced" => Ok(Durability::Synced),
            "written" => Ok(Durability::Written),
            _ => Err(format!("durability is synced or written, got {text:?}")),
        }
    }
}

/// What all partitions of a table share.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TableProperties {
    /// The table's number.
    pub table: TableId,
    /// Its name: 1 to 128 of letters, digits, `_`, `-`, `.`, `:`.
    pub name: String,
    /// How many partitions; a power of two.
    pub partition_count: u32,
    /// How many members a whole partition has.
    pub replica_count: u8,
    /// When a mutation may be acknowledged.
    pub durability: Durability,
}

/// The configuration of one partition (PacificA: the replica group).
///
/// Invariants: no node appears twice; at most `MEMBERS_MAX` members.
#[derive(Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Configuration {
    /// The epoch; every change raises it by one.
    pub ballot: Ballot,
    /// The primary. `None` only while a partition waits for its first assignment.
    pub primary: Option<NodeId>,
    /// The secondaries, in no particular order.
    pub secondaries: Vec<NodeId>,
}

impl Configuration {
    /// All members, the primary first.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.primary.into_iter().chain(self.secondaries.iter().copied())
    }

    /// True if the node is primary or secondary.
    pub fn contains(&self, node: NodeId) -> bool {
        self.members().any(|member| member == node)
    }
}

/// A storage node as the meta service knows it.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct NodeInfo {
    /// Its identity.
    pub node: NodeId,
    /// Address of its core 0; core `i` listens `i` ports above.
    pub address: SocketAddr,
    /// Address of its administration HTTP port.
    pub admin_address: SocketAddr,
    /// How many executors (cores) it runs.
    pub cores: u16,
    /// Whether the meta service has heard of it lately. Informational: nothing is promoted because of it.
    pub alive: bool,
}

impl NodeInfo {
    /// Address of the core that owns the partition on this node.
    pub fn endpoint(&self, partition: PartitionId) -> SocketAddr {
        let mut address = self.address;
        address.set_port(self.address.port().saturating_add(owner_core(partition, self.cores.max(1))));
        address
    }
}

/// Checks a table's name.
pub fn check_table_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    if name.is_empty() || name.len() > crate::limits::TABLE_NAME_BYTES_MAX || !name.chars().all(allowed) {
        return Err(format!(
            "a table name has 1 to {} letters, digits, '_', '-', '.' or ':'; got {name:?}",
            crate::limits::TABLE_NAME_BYTES_MAX
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_start_with_the_primary() {
        let configuration =
            Configuration { ballot: Ballot(3), primary: Some(NodeId(1)), secondaries: vec![NodeId(2), NodeId(3)] };
        assert_eq!(configuration.members().collect::<Vec<_>>(), [NodeId(1), NodeId(2), NodeId(3)]);
        assert!(configuration.contains(NodeId(3)) && !configuration.contains(NodeId(4)));
    }

    #[test]
    fn table_names() {
        assert!(check_table_name("temp").is_ok());
        assert!(check_table_name("a.b:c-d_1").is_ok());
        for bad in ["", "a b", "\u{e4}", &"x".repeat(129)] {
            assert!(check_table_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn endpoints_are_counted_from_core_zero() {
        let node = NodeInfo {
            node: NodeId(1),
            address: "127.0.0.1:34801".parse().unwrap(),
            admin_address: "127.0.0.1:34901".parse().unwrap(),
            cores: 2,
            alive: true,
        };
        assert_eq!(node.endpoint(PartitionId::new(2, 0)).port(), 34801);
        assert_eq!(node.endpoint(PartitionId::new(2, 1)).port(), 34802);
    }
}
