//! Newtypes for everything that is counted or named. A bare integer never crosses a package boundary.

use std::fmt;
use std::str::FromStr;

use rkyv::Archive;

/// Declares an integer newtype with the derives that every id shares.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            Archive, rkyv::Serialize, rkyv::Deserialize,
        )]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, $format, self.0)
            }
        }
    };
}

id!(
    /// Identity of a cluster, drawn at random when its meta service first starts. Nodes refuse a meta service of
    /// another cluster.
    ClusterId(u64),
    "{:016x}"
);
id!(
    /// Identity of a storage node: drawn at random when its data directory is made, and kept in it. A node that
    /// lost its directory is a new node, so it can never pass for a member it no longer has the data of.
    NodeId(u64),
    "{:016x}"
);
id!(
    /// Number of a table. Never used again, also not after the table was dropped. The first is 1.
    TableId(u32),
    "{}"
);
id!(
    /// Epoch of a partition's configuration (PacificA: configuration version). Rises by one with each change.
    /// 0 means "never assigned"; under [`Ballot::ASSIGNMENT`] replicas are created and nothing is served.
    Ballot(u64),
    "{}"
);
id!(
    /// Position of a mutation in the history of its partition (PacificA: serial number). Consecutive, the first
    /// is 1; 0 means "nothing yet".
    Decree(u64),
    "{}"
);
id!(
    /// Distinguishes one copy of a partition on a node from an earlier copy of the same partition on that node.
    /// Log records carry it, so that records of a discarded copy are skipped at recovery.
    ReplicaIncarnation(u64),
    "{:016x}"
);

impl Ballot {
    /// The ballot of a partition's first assignment. Members create their empty copies under it; the primary
    /// asks for the next ballot before it serves. So a node without a copy can tell a new partition (ballot 1)
    /// from a lost copy (any higher ballot).
    pub const ASSIGNMENT: Ballot = Ballot(1);

    /// The ballot after this one.
    pub fn next(self) -> Ballot {
        Ballot(self.0 + 1)
    }
}

impl Decree {
    /// The decree after this one.
    pub fn next(self) -> Decree {
        Decree(self.0 + 1)
    }

    /// The decree before this one; zero stays zero.
    pub fn previous(self) -> Decree {
        Decree(self.0.saturating_sub(1))
    }
}

/// One partition of one table.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, rkyv::Serialize, rkyv::Deserialize,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PartitionId {
    /// The table.
    pub table: TableId,
    /// Index of the partition inside the table, below its partition count.
    pub index: u32,
}

impl PartitionId {
    /// Partition `index` of table `table`.
    pub fn new(table: u32, index: u32) -> PartitionId {
        PartitionId { table: TableId(table), index }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.table, self.index)
    }
}

/// The text is not `<table>.<index>`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a partition is written <table>.<index>, for example 2.7; got {0:?}")]
pub struct ParsePartitionError(String);

impl FromStr for PartitionId {
    type Err = ParsePartitionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (table, index) = text.split_once('.')?;
            Some(PartitionId::new(table.parse().ok()?, index.parse().ok()?))
        };
        parse().ok_or_else(|| ParsePartitionError(text.to_owned()))
    }
}

impl From<&ArchivedPartitionId> for PartitionId {
    fn from(archived: &ArchivedPartitionId) -> PartitionId {
        PartitionId::new(archived.table.0.to_native(), archived.index.to_native())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_text_round_trips() {
        let partition = PartitionId::new(2, 7);
        assert_eq!(partition.to_string(), "2.7");
        assert_eq!("2.7".parse(), Ok(partition));
        for bad in ["", "2", "2.", ".7", "2.7.1", "a.b", "-1.2"] {
            assert!(bad.parse::<PartitionId>().is_err(), "{bad}");
        }
    }
}
