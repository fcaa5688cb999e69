//! What a replica may ask of its host: one closed enum.

use bytes::Bytes;
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Ballot, Configuration, Decree, Mutation, MutationKind, NodeId, Status};

use crate::event::{AppendToken, PeerMessage, RequestToken, Session};

/// What a log record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A mutation. At recovery, of several records of one decree the one with the highest ballot counts. It says
    /// nothing about later decrees (see the chapter on recovery in the crate's documentation).
    Mutation(MutationKind),
    /// Voids every record with a lower ballot and this decree or a higher one. No payload.
    Truncate,
}

/// One record for the log. The host adds partition and incarnation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendRecord {
    /// What it says.
    pub kind: RecordKind,
    /// Ballot under which it was prepared, or which voids.
    pub ballot: Ballot,
    /// Its decree, or the first decree voided.
    pub decree: Decree,
    /// The replica's commit point when it was appended.
    pub committed: Decree,
    /// The mutation's stamp; 0 for a truncation.
    pub timestamp_micros: u64,
    /// Shared with the frame it came in.
    pub payload: Bytes,
}

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Orders the writes. Not serving yet while it reconciles.
    Primary,
    /// Logs and applies what the primary prepares.
    Secondary,
    /// Like a secondary, but not a member yet: it does not have everything.
    Learner,
    /// Waits to hear what it is.
    Inactive,
    /// Refuses everything until restart or repair.
    Error,
}

/// Everything a replica may ask. Performed in the order given; nothing may be skipped, except that effects of a run
/// are forgotten when the process dies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Hand a record to the log, in this order; say `Logged` when it is durable.
    Append {
        /// Names the record.
        token: AppendToken,
        /// What to write.
        record: AppendRecord,
    },
    /// Replace the descriptor's configuration, durably; say `DescriptorStored` when done. Stores are performed in
    /// order; only the last one of several that wait needs to be.
    StoreDescriptor {
        /// What to store.
        configuration: Configuration,
        /// What to say of the copy: `Whole`, or `Learning`, with no claim to completeness until it is stored
        /// otherwise. An `Uncertain` copy keeps the boot id its descriptor has, so that it stays uncertain.
        state: ReplicaState,
    },
    /// Try once to open a replication stream, for a bounded time; answer with exactly one `StreamOpened` or
    /// `StreamFailed`.
    OpenStream {
        /// To whom.
        peer: NodeId,
    },
    /// End a stream, after what was sent on it. `StreamClosed` may follow and is ignored.
    CloseStream {
        /// The node at its other end.
        peer: NodeId,
        /// The stream.
        session: Session,
    },
    /// Send a message; never waits. If the stream is gone it is dropped (`StreamClosed` tells).
    Send {
        /// To whom.
        peer: NodeId,
        /// On which stream.
        session: Session,
        /// What.
        message: PeerMessage,
    },
    /// Apply committed mutations to the table, in order, as one batch; say `Applied` when done. At most one is
    /// outstanding, and a decree is handed out once per run.
    Apply {
        /// Consecutive decrees.
        mutations: Vec<Mutation>,
    },
    /// Answer a client's write.
    Reply {
        /// The request.
        request: RequestToken,
        /// The decree at which it was committed and applied, or why it was not proposed; `OutcomeUnknown` if it was
        /// proposed and this replica will not learn what became of it.
        outcome: Result<Decree, Status>,
    },
    /// Ask the meta service for a configuration by compare-and-swap; answer with `ProposalDecided` or
    /// `ProposalFailed`, within a bounded time.
    ProposeConfiguration {
        /// What must be in force for the swap.
        expected_ballot: Ballot,
        /// What is wanted; its ballot is one above.
        configuration: Configuration,
    },
    /// Read mutations of this partition from the log, for a learner; answer with exactly one `LogRead`. All of them
    /// are committed here.
    ReadLog {
        /// The learner.
        peer: NodeId,
        /// Its stream.
        session: Session,
        /// The first one wanted.
        from: Decree,
        /// The last one wanted; fewer are fine.
        through: Decree,
    },
    /// Fetch a checkpoint from the primary and put it in the place of this copy's table. If that succeeds, this
    /// replica is over: make a new one from the checkpoint (in state learning). Else say `CheckpointFailed`. Any other
    /// effect of this replica is still performed until then, except that the table is not applied to.
    FetchCheckpoint {
        /// The primary.
        from: NodeId,
        /// Its ballot.
        ballot: Ballot,
        /// The least decree a useful checkpoint has.
        committed: Decree,
    },
    /// Role, ballot or readiness changed.
    RoleChanged {
        /// The role now.
        role: Role,
        /// The ballot now.
        ballot: Ballot,
        /// True on a primary that serves.
        serving: bool,
    },
    /// The replica stopped itself (role error) because something that must never happen did. Tell people. With
    /// `Damaged` the copy itself is bad and must be marked so durably; otherwise the copy is kept as it is.
    Faulted {
        /// What requests are answered with.
        status: Status,
        /// Why, for people.
        reason: String,
    },
}
