//! All messages. `docs/protocol.md` has the table: name, source, target.
//!
//! Messages on the hot path ([`data`], [`peer`]) borrow what they send and are read in place on the other side
//! (their archived types). Messages of the control plane ([`control`]) own what they carry and are decoded.
//!
//! rkyv does not evolve by itself: a changed message is a new kind with a new number. The golden images in
//! `tests/golden` fail when a layout changes by accident.

pub mod control;
pub mod data;
pub mod peer;

use std::fmt;
use std::net::SocketAddr;

use crate::ids::ClusterId;

/// What a frame's body is. A plain number, because a peer may send kinds of a later release.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKind(pub u16);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl MessageKind {
            $($(#[$doc])* pub const $name: MessageKind = MessageKind($code);)*

            /// All kinds of this release with their names.
            pub const ALL: &'static [(MessageKind, &'static str)] = &[$((MessageKind::$name, stringify!($name))),*];
        }
    };
}

kinds! {
    /// First frame of a connection, both ways: [`Hello`].
    HELLO = 1;

    /// One row: [`data::Get`] -> [`data::GetReply`], the value as attachment.
    GET = 16;
    /// Rows of one hash key: [`data::MultiGet`] -> [`data::Rows`].
    MULTI_GET = 17;
    /// Rows of one partition: [`data::Scan`] -> [`data::Rows`].
    SCAN = 18;
    /// Atomic puts and deletes of one hash key: [`data::Write`] -> [`data::WriteReply`].
    WRITE = 19;
    /// Ends a scan's context, one way: [`data::EndScan`].
    END_SCAN = 20;
    /// Adds to the number in a row: [`data::Increment`] -> [`data::IncrementReply`].
    INCREMENT = 21;
    /// Writes if a check holds: [`data::CheckAndWrite`] -> [`data::CheckReply`], the checked value as attachment.
    CHECK_AND_WRITE = 22;
    /// About one copy: [`data::QueryCopy`] -> [`data::CopyReply`].
    QUERY_COPY = 23;

    /// Primary -> member, first frame of a replication stream: [`peer::Establish`] -> [`peer::Established`].
    ESTABLISH = 32;
    /// Primary -> member: [`peer::Prepare`], the payload as attachment.
    PREPARE = 33;
    /// Member -> primary: [`peer::Acknowledge`].
    ACKNOWLEDGE = 34;
    /// Primary -> member, when there is no prepare to carry it: [`peer::CommitPoint`].
    COMMIT_POINT = 35;
    /// Member -> primary, in place of an acknowledgement: [`peer::Refuse`].
    REFUSE = 36;
    /// Primary -> learner: [`peer::TakeCheckpoint`].
    TAKE_CHECKPOINT = 37;
    /// Core -> core, every beacon interval: [`peer::Beacon`] -> [`peer::BeaconAnswer`].
    BEACON = 38;
    /// Learner -> primary: [`peer::FetchCheckpoint`] -> [`peer::Checkpoint`], then [`MessageKind::CHECKPOINT_CHUNK`]s.
    FETCH_CHECKPOINT = 39;
    /// Primary -> learner: the next bytes of a checkpoint's files and their checksums as attachment, no body.
    CHECKPOINT_CHUNK = 40;

    /// Node -> meta: [`control::RegisterNode`] -> [`control::Registered`].
    REGISTER_NODE = 48;
    /// Node -> meta, answered when something changed: [`control::WatchAssignments`] -> [`control::Assignments`].
    WATCH_ASSIGNMENTS = 49;
    /// Node -> meta: [`control::ProposeConfiguration`] -> [`control::ProposalReply`].
    PROPOSE_CONFIGURATION = 50;

    /// Anyone -> meta: [`control::CreateTable`] -> [`control::TableReply`].
    CREATE_TABLE = 64;
    /// Anyone -> meta: [`control::ListTables`] -> [`control::TableList`].
    LIST_TABLES = 65;
    /// Anyone -> meta: [`control::QueryTable`] -> [`control::TableReply`].
    QUERY_TABLE = 66;
    /// Anyone -> meta: [`control::QueryCluster`] -> [`control::ClusterReply`].
    QUERY_CLUSTER = 67;
    /// Anyone -> meta: [`control::DiagnosePartitions`] -> [`control::Diagnosis`].
    DIAGNOSE_PARTITIONS = 68;
    /// Operator -> meta: [`control::ForceConfiguration`] -> [`control::ProposalReply`].
    FORCE_CONFIGURATION = 69;
    /// Anyone -> meta: [`control::DropTable`] -> [`control::TableReply`].
    DROP_TABLE = 70;
    /// Anyone -> meta: [`control::RecallTable`] -> [`control::TableReply`].
    RECALL_TABLE = 71;
    /// Anyone -> meta: [`control::RenameTable`] -> [`control::TableReply`].
    RENAME_TABLE = 72;
    /// Anyone -> meta: [`control::PurgeTable`] -> no body.
    PURGE_TABLE = 73;
    /// Anyone -> meta: [`control::ChangeEnvironment`] -> [`control::TableReply`].
    CHANGE_ENVIRONMENT = 74;
}

impl fmt::Display for MessageKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match MessageKind::ALL.iter().find(|(kind, _)| kind == self) {
            Some((_, name)) => out.write_str(name),
            None => write!(out, "kind {}", self.0),
        }
    }
}

impl fmt::Debug for MessageKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// The oldest protocol version this release speaks.
pub const VERSION_MIN: u16 = 1;
/// The newest protocol version this release speaks.
pub const VERSION_MAX: u16 = 1;

/// First frame on the first stream of a connection, from each side: which versions the sender speaks. The highest
/// common one is used; with none in common the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Hello {
    /// Oldest version spoken.
    pub version_min: u16,
    /// Newest version spoken.
    pub version_max: u16,
    /// The sender's cluster; `None` for clients and for nodes that do not know theirs yet.
    pub cluster: Option<ClusterId>,
}

impl Hello {
    /// What this release says.
    pub fn ours(cluster: Option<ClusterId>) -> Hello {
        Hello { version_min: VERSION_MIN, version_max: VERSION_MAX, cluster }
    }

    /// The version both sides use; `None` if they have none in common.
    pub fn common_version(&self, other: &Hello) -> Option<u16> {
        let version = self.version_max.min(other.version_max);
        (version >= self.version_min.max(other.version_min)).then_some(version)
    }
}

/// Body of an answer whose status is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ErrorReply {
    /// What is wrong and what to do, for people.
    pub message: String,
    /// With `StaleRoute`, `NotPrimary`, `NotLeader`: where to go instead, if the server knows.
    pub endpoint: Option<SocketAddr>,
}

impl ErrorReply {
    /// An explanation without a hint.
    pub fn new(message: impl Into<String>) -> ErrorReply {
        ErrorReply { message: message.into(), endpoint: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_meet_at_the_highest_common_one() {
        let hello = |version_min, version_max| Hello { version_min, version_max, cluster: None };
        assert_eq!(hello(1, 3).common_version(&hello(2, 5)), Some(3));
        assert_eq!(hello(1, 1).common_version(&hello(1, 1)), Some(1));
        assert_eq!(hello(1, 2).common_version(&hello(3, 4)), None);
    }

    #[test]
    fn kinds_are_unique_and_named() {
        for pair in MessageKind::ALL.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} and {}", pair[0].1, pair[1].1);
        }
        assert_eq!(MessageKind::PREPARE.to_string(), "PREPARE");
        assert_eq!(MessageKind(999).to_string(), "kind 999");
    }
}
