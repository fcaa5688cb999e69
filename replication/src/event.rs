//! What can happen to a replica: one closed enum. The host turns everything it hears into one of these.

use std::fmt;

use bytes::Bytes;
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::peer::{Acknowledge, CommitPoint, Establish, Established, Prepare, Refuse, TakeCheckpoint};
use pegasus_wire::{Ballot, Configuration, Decree, Mutation, MutationKind, NodeId, Status};

use crate::timing::Moment;

/// Names a client request between [`Event::Propose`] and its [`Reply`](crate::Effect::Reply). The host chooses it,
/// unique among the requests it has not been answered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestToken(pub u64);

/// Names a record handed to the log. Counts up from 1 in each run of a replica; records become durable in this
/// order, so one token stands for all up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendToken(pub u64);

/// Names one replication stream as its host sees it. The host counts streams it opened and streams it accepted with
/// one rising counter, so that of two streams with the same peer the higher one is the newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

impl fmt::Display for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "s{}", self.0)
    }
}

/// What members of a partition say to each other (see `pegasus_wire::messages::peer`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// Primary to member: under which ballot it leads. Boxed: it is large and rare.
    Establish(Box<Establish>),
    /// Member to primary: the ballot is taken, and this is what the member still needs.
    Established(Established),
    /// Primary to member: one mutation to log.
    Prepare {
        /// The frame's body.
        prepare: Prepare,
        /// The frame's attachment.
        payload: Bytes,
    },
    /// Member to primary: everything up to a decree is logged.
    Acknowledge(Acknowledge),
    /// Primary to member: how far it may commit.
    CommitPoint(CommitPoint),
    /// Primary to learner: only a checkpoint can help.
    TakeCheckpoint(TakeCheckpoint),
    /// Member to primary: the member will not take a message.
    Refuse {
        /// Why, for programs; travels in the frame header.
        status: Status,
        /// The frame's body.
        refuse: Refuse,
    },
}

/// Everything that can happen to a replica.
///
/// Promises of the host, on which the safety of the protocol rests:
/// - `Logged` is said only of records that are durable as the table demands, in the order of their tokens.
/// - `DescriptorStored` is said only when the descriptor is durable; descriptors are stored in the order asked for.
/// - A crash may lose any suffix of the records that were not yet `Logged`, and nothing else.
/// - Messages of one session arrive in the order in which they were sent, without loss between two that arrive.
#[derive(Clone, Debug)]
pub enum Event {
    /// The meta service said what is in force. Said after every start, and again whenever it changes; may be late,
    /// repeated, or overtaken by a newer one.
    Assigned(Configuration),
    /// The answer to [`ProposeConfiguration`](crate::Effect::ProposeConfiguration), accepted or conflict alike.
    ProposalDecided {
        /// What is in force now.
        configuration: Configuration,
    },
    /// The proposal got no answer: it may or may not have been accepted. It is proposed again, unchanged.
    ProposalFailed,
    /// A client's write, executed to a plain mutation. Answered by exactly one `Reply`.
    Propose {
        /// Names the request in its reply.
        request: RequestToken,
        /// The host's clock, microseconds since the Unix epoch. The replica stamps the mutation with this or with
        /// the last stamp + 1, whichever is higher.
        timestamp_micros: u64,
        /// What the payload is.
        kind: MutationKind,
        /// At most `WRITE_BYTES_MAX` bytes.
        payload: Bytes,
    },
    /// An asked-for stream is open. The replica speaks first on it.
    StreamOpened {
        /// The member at its other end.
        peer: NodeId,
        /// Names the stream from now on.
        session: Session,
    },
    /// An asked-for stream could not be opened. The replica asks again after a few ticks.
    StreamFailed {
        /// The member that could not be reached.
        peer: NodeId,
    },
    /// A stream, opened or accepted, ended for whatever reason. Nothing of it is delivered afterwards.
    StreamClosed {
        /// The node at its other end.
        peer: NodeId,
        /// The stream.
        session: Session,
    },
    /// A message of a peer. An accepted stream becomes known by the `Establish` that opens it.
    Received {
        /// The node at the other end of the stream.
        peer: NodeId,
        /// The stream.
        session: Session,
        /// What it said.
        message: PeerMessage,
    },
    /// All records up to this token are durable.
    Logged {
        /// The last durable one.
        through: AppendToken,
    },
    /// The descriptor asked for is durable.
    DescriptorStored {
        /// Ballot of the stored configuration.
        ballot: Ballot,
        /// What it says of the copy.
        state: ReplicaState,
    },
    /// The mutations of the outstanding [`Apply`](crate::Effect::Apply) are in the table, up to this decree.
    Applied {
        /// The last applied one.
        through: Decree,
    },
    /// A request is to be answered once everything up to a decree is committed and applied: it read what may not be
    /// committed yet. Answered by exactly one `Reply`, with that decree.
    Await {
        /// Names the request in its reply.
        request: RequestToken,
        /// The highest decree it read; at most the last one prepared.
        through: Decree,
    },
    /// A beacon of a primary names this partition. [`Replica::grants_beacon`](crate::Replica::grants_beacon), asked
    /// right after this event, says what to answer.
    BeaconHeard {
        /// The primary.
        peer: NodeId,
        /// Its ballot.
        ballot: Ballot,
        /// Its commit point.
        committed: Decree,
    },
    /// A member answered a beacon of this primary.
    BeaconAnswered {
        /// The member.
        peer: NodeId,
        /// The ballot the beacon named.
        ballot: Ballot,
        /// The clock before the beacon was handed to the network. The lease runs from here.
        sent_at: Moment,
        /// False if it was refused.
        granted: bool,
    },
    /// The meta service asks this primary to teach a node and to make it a secondary. Said again and again until it
    /// is done.
    AddMember {
        /// The ballot at which that was decided.
        ballot: Ballot,
        /// The learner.
        node: NodeId,
    },
    /// This primary shall hand its role over to the secondary best suited, and stay a secondary.
    HandOver,
    /// The answer to [`ReadLog`](crate::Effect::ReadLog).
    LogRead {
        /// The learner it is for.
        peer: NodeId,
        /// The stream it is for.
        session: Session,
        /// Consecutive mutations from the decree asked for, at least one; `None` if the log does not hold that decree
        /// any more, or cannot be read.
        mutations: Option<Vec<Mutation>>,
    },
    /// The answer to [`FetchCheckpoint`](crate::Effect::FetchCheckpoint) if it failed. If it succeeded, the host
    /// replaces the replica by one made from the checkpoint.
    CheckpointFailed,
    /// Time passes; every 100 ms or so. Retries, idle commit points, removal and takeover hang on it; safety never
    /// does.
    Tick,
    /// The storage under this replica failed, or the copy was found damaged. The replica stops for this run.
    Failed {
        /// `Damaged` or `StorageFailed`.
        status: Status,
        /// Why, for people.
        reason: String,
    },
    /// The node stops. Requests that wait are answered as unknown.
    Shutdown,
}
