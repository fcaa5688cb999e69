//! What members of a partition say to each other. One ordered stream per (partition, member), opened by the
//! primary; the member answers on the same stream.

use crate::config::{Configuration, TableProperties};
use crate::ids::{Ballot, ClusterId, Decree, NodeId, PartitionId};

/// First frame of a replication stream: the primary states under which ballot it leads.
///
/// The member, before it answers with [`Established`]: refuses a lower ballot than its own; drops everything it
/// prepared under a *lower* ballot beyond `last_decree` and logs that; stores ballot and configuration durably.
///
/// A receiver that is not a member of `configuration` is asked to become its *learner*: it keeps only what it knows to
/// be committed, and is no member until a later configuration names it.
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
    /// True if the machine restarted since this copy last acknowledged without flushing (`written` durability): it may
    /// have lost what it acknowledged, and has to learn.
    pub uncertain: bool,
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

/// What the learner lacks is in the primary's log no more: it must fetch a checkpoint of the primary's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct TakeCheckpoint {
    /// The primary's ballot.
    pub ballot: Ballot,
    /// Its commit point; a checkpoint of a lower decree is of no use.
    pub committed: Decree,
}

/// Renews the leases of partitions that the sending core leads and the receiving core follows. The lease that an
/// answer grants begins when the beacon was *sent*.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Beacon {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node whose core leads.
    pub sender: NodeId,
    /// The node this is meant for; any other one refuses.
    pub receiver: NodeId,
    /// What is renewed; at most `BEACON_ENTRIES_MAX`.
    pub entries: Vec<BeaconEntry>,
}

/// One partition of a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct BeaconEntry {
    /// The partition.
    pub partition: PartitionId,
    /// The sender's ballot.
    pub ballot: Ballot,
    /// Its commit point, so that an idle member commits.
    pub committed: Decree,
}

/// Answer to [`Beacon`]: everything in it is granted, except what is refused.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct BeaconAnswer {
    /// Positions of the refused entries, rising.
    pub refused: Vec<u32>,
}

/// A learner asks the primary for its table. The stream carries nothing else; the answer is followed by the files in
/// order, in `CHECKPOINT_CHUNK` frames: of each file its bytes, then the CRC-32C of its bytes (u32, little endian).
/// Where one file ends and the next begins has nothing to do with where a frame does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct FetchCheckpoint {
    /// The cluster.
    pub cluster: ClusterId,
    /// The partition.
    pub partition: PartitionId,
    /// The learner.
    pub sender: NodeId,
    /// The primary.
    pub receiver: NodeId,
    /// The ballot under which the learner was told to fetch it.
    pub ballot: Ballot,
}

/// Answer to [`FetchCheckpoint`]: what will be sent.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Checkpoint {
    /// Everything up to here is in the table, and nothing beyond.
    pub applied: Decree,
    /// The files of the table, in the order in which their bytes follow.
    pub files: Vec<CheckpointFile>,
}

/// One file of a checkpoint. Its checksum follows its bytes, so that the primary reads each byte once.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct CheckpointFile {
    /// Its name, at most `CHECKPOINT_NAME_BYTES_MAX` long; no directory, and never `.` or `..`.
    pub name: String,
    /// Its length, without the checksum that follows it.
    pub bytes: u64,
}
