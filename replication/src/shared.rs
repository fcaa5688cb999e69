//! What every role shares: identity, configuration, the window, the log's tokens, counters.

use bytes::Bytes;
use pegasus_wire::messages::peer::Refuse;
use pegasus_wire::{Ballot, ClusterId, Configuration, Decree, Mutation, NodeId, PartitionId, Status, TableProperties};
use pegasus_wire::{MutationKind, limits};

use crate::bugs::Bugs;
use crate::describe::Counters;
use crate::effect::{AppendRecord, Effect, RecordKind};
use crate::event::{AppendToken, PeerMessage, RequestToken, Session};
use crate::window::Window;

/// Which copy of which partition a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node it lives on.
    pub node: NodeId,
    /// The partition.
    pub partition: PartitionId,
    /// The table's properties, told to members.
    pub table: TableProperties,
}

/// Bounds of one replica. The default is that of the release; tests choose smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaLimits {
    /// Mutations prepared and not applied, above which a primary answers `Busy`.
    pub window_mutations_max: usize,
    /// Payload bytes prepared and not applied, above which a primary answers `Busy`.
    pub window_bytes_max: u64,
    /// Payload bytes sent to one member and not acknowledged, above which the primary holds prepares back. One
    /// prepare is always allowed.
    pub flight_bytes_max: u64,
}

impl Default for ReplicaLimits {
    fn default() -> ReplicaLimits {
        ReplicaLimits {
            window_mutations_max: limits::WINDOW_MUTATIONS_MAX,
            window_bytes_max: limits::WINDOW_BYTES_MAX as u64,
            flight_bytes_max: limits::OUTBOX_BYTES_MAX as u64,
        }
    }
}

/// The shared part of a replica. Roles borrow it while they handle an event.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) identity: ReplicaIdentity,
    pub(crate) limits: ReplicaLimits,
    /// The newest configuration known. May be ahead of the descriptor.
    pub(crate) configuration: Configuration,
    /// The ballot the stored descriptor has.
    pub(crate) stored_ballot: Ballot,
    /// The highest ballot a store was asked for.
    pub(crate) storing_ballot: Ballot,
    pub(crate) window: Window,
    /// The highest stamp seen.
    pub(crate) timestamp_micros: u64,
    last_token: AppendToken,
    /// A truncation that is not logged yet; until it is, no ballot is answered.
    truncation: Option<AppendToken>,
    pub(crate) counters: Counters,
    pub(crate) bugs: Bugs,
}

impl Core {
    pub(crate) fn new(
        identity: ReplicaIdentity,
        limits: ReplicaLimits,
        configuration: Configuration,
        window: Window,
        timestamp_micros: u64,
    ) -> Core {
        let ballot = configuration.ballot;
        Core {
            identity,
            limits,
            configuration,
            stored_ballot: ballot,
            storing_ballot: ballot,
            window,
            timestamp_micros,
            last_token: AppendToken(0),
            truncation: None,
            counters: Counters::default(),
            bugs: Bugs::default(),
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.identity.node
    }

    pub(crate) fn ballot(&self) -> Ballot {
        self.configuration.ballot
    }

    /// Appends a mutation of the current ballot to the log and puts it into the window.
    pub(crate) fn append(&mut self, mutation: Mutation, request: Option<RequestToken>, effects: &mut Vec<Effect>) {
        let token = self.next_token();
        let record = AppendRecord {
            kind: RecordKind::Mutation(mutation.kind),
            ballot: mutation.ballot,
            decree: mutation.decree,
            committed: self.window.committed(),
            timestamp_micros: mutation.timestamp_micros,
            payload: mutation.payload.clone(),
        };
        self.timestamp_micros = self.timestamp_micros.max(mutation.timestamp_micros);
        self.window.prepare(mutation, token, request);
        effects.push(Effect::Append { token, record });
    }

    /// Drops a decree of lower ballots and all after it, and logs that.
    pub(crate) fn truncate_from(&mut self, decree: Decree, effects: &mut Vec<Effect>) {
        self.counters.truncated += self.window.last().0 - decree.previous().0;
        self.window.truncate_from(decree);
        let token = self.next_token();
        let record = AppendRecord {
            kind: RecordKind::Truncate,
            ballot: self.ballot(),
            decree,
            committed: self.window.committed(),
            timestamp_micros: 0,
            payload: Bytes::new(),
        };
        self.truncation = Some(token);
        effects.push(Effect::Append { token, record });
    }

    /// True while a truncation is on its way to the log.
    pub(crate) fn is_truncating(&self) -> bool {
        self.truncation.is_some_and(|token| token > self.window.logged())
    }

    /// Asks for the descriptor of the current configuration, unless it is stored or already asked for.
    pub(crate) fn store_descriptor(&mut self, effects: &mut Vec<Effect>) {
        if self.storing_ballot < self.ballot() {
            self.storing_ballot = self.ballot();
            effects.push(Effect::StoreDescriptor { configuration: self.configuration.clone() });
        }
    }

    /// True if the current ballot is durable.
    pub(crate) fn is_ballot_stored(&self) -> bool {
        self.stored_ballot >= self.ballot()
    }

    /// Answers every waiting request as unknown: this replica will not learn what becomes of them.
    pub(crate) fn forget_requests(&mut self, effects: &mut Vec<Effect>) {
        effects.extend(
            self.window.take_requests().map(|request| Effect::Reply { request, outcome: Err(Status::OutcomeUnknown) }),
        );
    }

    /// Sends a refusal.
    pub(crate) fn refuse(&mut self, peer: NodeId, session: Session, refusal: Refusal, effects: &mut Vec<Effect>) {
        self.counters.refusals_sent += 1;
        let Refusal { status, next_decree, message } = refusal;
        let refuse = Refuse { ballot: self.ballot(), next_decree, message };
        effects.push(Effect::Send { peer, session, message: PeerMessage::Refuse { status, refuse } });
    }

    fn next_token(&mut self) -> AppendToken {
        self.last_token.0 += 1;
        self.last_token
    }

    /// The last token given out.
    pub(crate) fn last_token(&self) -> AppendToken {
        self.last_token
    }
}

/// Why a message is not taken.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: Status,
    pub(crate) next_decree: Decree,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Refusal {
        Refusal { status, next_decree: Decree(0), message: message.into() }
    }

    pub(crate) fn gap(next_decree: Decree, message: impl Into<String>) -> Refusal {
        Refusal { status: Status::Gap, next_decree, message: message.into() }
    }
}

/// True if two configurations say the same; the order of the secondaries means nothing.
pub(crate) fn same_configuration(one: &Configuration, other: &Configuration) -> bool {
    one.ballot == other.ballot
        && one.primary == other.primary
        && one.secondaries.len() == other.secondaries.len()
        && one.secondaries.iter().all(|node| other.secondaries.contains(node))
}

/// The kind of a prepared mutation, if this release knows it.
pub(crate) fn mutation_kind(code: u8) -> Result<MutationKind, Refusal> {
    let unknown = || Refusal::new(Status::Unsupported, format!("this release does not know mutation kind {code}"));
    MutationKind::from_code(code).ok_or_else(unknown)
}
