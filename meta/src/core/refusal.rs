//! Why a command or a question was refused, in words for people.

use std::fmt;

use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Ballot, ClusterId, Durability, NodeId, PartitionId, Status, TableId};
use serde::{Deserialize, Serialize};

use super::limits::{ENVIRONMENTS_BYTES_MAX, NODES_MAX, PARTITIONS_MAX, TABLES_MAX};

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
    /// The table is as asked but for its environment.
    #[error("table {name:?} exists already, with another environment")]
    EnvironmentDiffers {
        /// The name.
        name: String,
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
    #[error(
        "there are {TABLES_MAX} tables, which is the limit (tables_max); {dropped} of them are dropped and held, and \
         may be purged"
    )]
    TooManyTables {
        /// How many of them are dropped.
        dropped: usize,
    },
    /// As many partitions as there may be.
    #[error(
        "{wanted} more partitions would pass the cluster's limit of {PARTITIONS_MAX} (partitions_max), {existing} \
         exist; {dropped} of them belong to dropped tables, which are held and may be purged"
    )]
    TooManyPartitions {
        /// Partitions asked for.
        wanted: u32,
        /// Partitions there are.
        existing: u32,
        /// How many of them belong to dropped tables.
        dropped: u32,
    },
    /// No table of this name serves.
    #[error("{}", no_such_table(name, dropped.as_ref()))]
    NoSuchTable {
        /// The name.
        name: String,
        /// The table that had the name when it was dropped, the latest of several.
        dropped: Option<DroppedTable>,
    },
    /// A name that is to be given belongs to another table.
    #[error("the name {name:?} belongs to table number {table}; choose another name")]
    NameInUse {
        /// The name.
        name: String,
        /// Whose it is.
        table: TableId,
    },
    /// Only a dropped table can be recalled or purged.
    #[error("table number {table} is not dropped: it serves under the name {name:?}")]
    NotDropped {
        /// The table.
        table: TableId,
        /// Its name.
        name: String,
    },
    /// The table's rows are gone.
    #[error("table number {0} was purged: its rows are gone")]
    Purged(TableId),
    /// No table has had this number yet.
    #[error("there never was a table number {0}")]
    NeverMade(TableId),
    /// The holding time of a dropped table is not over.
    #[error("table number {table} is held until {}", Moment(*.purge_seconds))]
    StillHeld {
        /// The table.
        table: TableId,
        /// Unix second at which the time is over.
        purge_seconds: u64,
    },
    /// A setting that cannot be kept, or a change that contradicts itself.
    #[error("{0}")]
    InvalidEnvironment(String),
    /// The environments of all tables together would be too large to tell every node.
    #[error(
        "with this change the environments of all tables would take {wanted} bytes, at most \
         {ENVIRONMENTS_BYTES_MAX} are kept (environments_bytes_max)"
    )]
    EnvironmentsTooLarge {
        /// Bytes with the change.
        wanted: usize,
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
            | Refusal::InvalidEnvironment(_)
            | Refusal::StillHeld { .. }
            | Refusal::LossNotAccepted
            | Refusal::NotForcible { .. } => Status::InvalidArgument,
            // A later registration may change each of them.
            Refusal::UnfitCopy { .. } | Refusal::AwaitsMember { .. } | Refusal::NotNewest { .. } => Status::NotServing,
            Refusal::NewerBallot { .. } => Status::Internal,
            Refusal::TooManyNodes
            | Refusal::TooManyTables { .. }
            | Refusal::TooManyPartitions { .. }
            | Refusal::EnvironmentsTooLarge { .. } => Status::TooLarge,
            Refusal::TableExists { .. } | Refusal::EnvironmentDiffers { .. } | Refusal::NameInUse { .. } => {
                Status::TableExists
            }
            Refusal::NoSuchTable { .. } => Status::NoSuchTable,
            Refusal::NotDropped { .. } | Refusal::Purged(_) | Refusal::NeverMade(_) => Status::NotDropped,
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

/// A dropped table, as far as it helps somebody who asks for its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedTable {
    /// Its number.
    pub table: TableId,
    /// Unix second at which it was dropped.
    pub dropped_seconds: u64,
    /// Unix second from which on it is purged.
    pub purge_seconds: u64,
}

fn no_such_table(name: &str, dropped: Option<&DroppedTable>) -> String {
    match dropped {
        None => format!("there is no table named {name:?}"),
        Some(DroppedTable { table, dropped_seconds, purge_seconds }) => format!(
            "table {name:?} was dropped at {}; its rows are held until {}: recall table number {table} to have them \
             back",
            Moment(*dropped_seconds),
            Moment(*purge_seconds)
        ),
    }
}

/// A Unix second, shown as date and time in UTC.
pub(super) struct Moment(pub(super) u64);

impl fmt::Display for Moment {
    /// Days are counted from 0000-03-01, so that a leap day is the last day of its year.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400 + 719_468, self.0 % 86_400);
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, new_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = era * 400 + year + new_year;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(out, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    use super::Moment;

    #[test]
    fn moments_are_dates() {
        let cases = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(Moment(seconds).to_string(), expected);
        }
        assert!(Moment(u64::MAX).to_string().ends_with("UTC"));
    }
}
