//! What members of a partition say to each other. One ordered stream per (partition, member), opened by the
//! primary; the member answers on the same stream.

use crate::config::{Configuration, TableProperties};
use crate::ids::{Ballot, ClusterId, Decree, NodeId, PartitionId};

/// First frame of a replication stream: the primary states under which ballot it leads.
///
/// The member, before it answers with [`Established`]: refuses a lower ballot than its own; drops everything it
/// prepared under a *lower* ballot beyond `last_decree` and logs that; stores ballot and configuration durably.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Establish {
    /// The cluster; a member of another one refuses.
    pub cluster: ClusterId,
    /// The partition.
    pub partition: PartitionId,
    /// The sender, which must be the primary of `configuration`.
    pub sender: NodeId,
    /// The member this is meant for. A node of that address may have given its ports to another since: who is not
    /// meant refuses, or one node would count as two members.
    pub receiver: NodeId,
    /// The table's properties.
    pub table: TableProperties,
    /// Ballot and members.
    pub configuration: Configuration,
    /// The primary's last prepared decree at the moment it took this ballot.
    pub last_decree: Decree,
    /// The primary's commit point.
    pub committed: Decree,
}

/// Answer to [`Establish`].
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Established {
    /// The ballot established.
    pub ballot: Ballot,
    /// The lowest decree the member still needs under this ballot; the primary resends from here.
    pub next_decree: Decree,
    /// The member's commit point.
    pub committed: Decree,
}

/// One mutation to log. The payload is the frame's attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Prepare {
    /// The primary's ballot.
    pub ballot: Ballot,
    /// Position of the mutation.
    pub decree: Decree,
    /// The primary's commit point.
    pub committed: Decree,
    /// Stamp of the mutation, microseconds since the Unix epoch.
    pub timestamp_micros: u64,
    /// `MutationKind` of the payload.
    pub mutation_kind: u8,
}

/// Everything up to a decree is in the member's log (and flushed, if the table is `synced`). Cumulative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Acknowledge {
    /// Ballot under which it was prepared.
    pub ballot: Ballot,
    /// Last decree of the contiguous logged run.
    pub logged: Decree,
}

/// Tells an idle member how far it may commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct CommitPoint {
    /// The primary's ballot.
    pub ballot: Ballot,
    /// Its commit point.
    pub committed: Decree,
}

/// The member will not take a message. The status is in the frame header.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Refuse {
    /// The member's ballot.
    pub ballot: Ballot,
    /// With `Gap`: the decree the member needs next.
    pub next_decree: Decree,
    /// Why, for people.
    pub message: String,
}
