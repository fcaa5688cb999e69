//! What every role shares: identity, configuration, the window, the log's tokens, counters.

use std::collections::BTreeSet;

use bytes::Bytes;
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::peer::Refuse;
use pegasus_wire::{Ballot, ClusterId, Configuration, Decree, Mutation, NodeId, PartitionId, Status, TableProperties};
use pegasus_wire::{MutationKind, limits};

use crate::bugs::{Bugs, PlantedBug};
use crate::describe::Counters;
use crate::effect::{AppendRecord, Effect, RecordKind};
use crate::event::{AppendToken, PeerMessage, RequestToken, Session};
use crate::proposal::Proposal;
use crate::timing::{Moment, Timing};
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
    /// prepare is always allowed. Also the most that is kept of what was applied, for learners.
    pub flight_bytes_max: u64,
    /// Leases, grace periods and timeouts.
    pub timing: Timing,
    /// Members, the primary included, below which no new client write is taken. A table with fewer replicas needs all
    /// of them.
    pub min_members: usize,
    /// Nodes taught at a time.
    pub learners_max: usize,
}

impl Default for ReplicaLimits {
    fn default() -> ReplicaLimits {
        ReplicaLimits {
            window_mutations_max: limits::WINDOW_MUTATIONS_MAX,
            window_bytes_max: limits::WINDOW_BYTES_MAX as u64,
            flight_bytes_max: limits::OUTBOX_BYTES_MAX as u64,
            timing: Timing::default(),
            min_members: 2,
            learners_max: 2,
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
    /// The highest ballot in the log at the start; no lower one is taken.
    pub(crate) promised: Ballot,
    /// What this copy may claim to be; may be ahead of the descriptor.
    pub(crate) state: ReplicaState,
    /// What the stored descriptor says.
    pub(crate) stored: (Ballot, ReplicaState),
    /// What the last store that was asked for says.
    pub(crate) storing: (Ballot, ReplicaState),
    /// A configuration asked for.
    pub(crate) proposal: Option<Proposal>,
    /// The clock at the event that is being handled.
    pub(crate) now: Moment,
    pub(crate) window: Window,
    /// The primary that this copy last granted anything that may count as a lease, and when. It may believe that it
    /// serves until a grace period later, unless it is known to have followed, or to have stopped, since.
    pub(crate) granted: Option<(NodeId, Moment)>,
    /// Requests that read up to a decree and are answered when it is applied.
    pub(crate) awaiting: BTreeSet<(Decree, RequestToken)>,
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
        state: ReplicaState,
        now: Moment,
    ) -> Core {
        let ballot = configuration.ballot;
        let granted = granted_before(&identity, &configuration).map(|primary| (primary, now));
        Core {
            identity,
            limits,
            configuration,
            promised: ballot,
            state,
            stored: (ballot, state),
            storing: (ballot, state),
            proposal: None,
            now,
            window,
            granted,
            awaiting: BTreeSet::new(),
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

    /// Asks for the descriptor of the current configuration and state, unless it is stored or already asked for.
    pub(crate) fn store_descriptor(&mut self, effects: &mut Vec<Effect>) {
        let wanted = (self.ballot(), self.state);
        if self.storing != wanted {
            self.storing = wanted;
            effects.push(Effect::StoreDescriptor { configuration: self.configuration.clone(), state: self.state });
        }
    }

    /// True if the current ballot and state are durable.
    pub(crate) fn is_stored(&self) -> bool {
        self.stored == (self.ballot(), self.state)
    }

    /// A configuration is in force, asked for or not.
    pub(crate) fn adopt(&mut self, configuration: Configuration) {
        self.configuration = configuration;
        self.proposal = None;
    }

    /// Something was granted to a primary.
    pub(crate) fn grant(&mut self, primary: NodeId) {
        self.granted = Some((primary, self.now));
    }

    /// A node cannot be serving under an older ballot any more: it has taken this one, or it has stopped.
    pub(crate) fn release(&mut self, node: NodeId) {
        self.granted = self.granted.filter(|(primary, _)| *primary != node);
    }

    /// True once nobody can believe to serve by a lease that this copy granted.
    pub(crate) fn is_released(&self) -> bool {
        let grace = self.limits.timing.grace_micros;
        let hasty = self.bugs.has(PlantedBug::TakesOverAtOnce);
        hasty || self.granted.is_none_or(|(_, granted_at)| self.now >= granted_at.after(grace))
    }

    /// Answers every waiting request as unknown: this replica will not learn what becomes of them.
    pub(crate) fn forget_requests(&mut self, effects: &mut Vec<Effect>) {
        let awaiting = std::mem::take(&mut self.awaiting).into_iter().map(|(_, request)| request);
        let requests = self.window.take_requests().chain(awaiting);
        effects.extend(requests.map(|request| Effect::Reply { request, outcome: Err(Status::OutcomeUnknown) }));
    }

    /// Members, the primary included, below which no new client write is taken.
    pub(crate) fn min_members(&self) -> usize {
        self.limits.min_members.min(usize::from(self.identity.table.replica_count))
    }

    /// Sends a refusal.
    pub(crate) fn refuse(&mut self, peer: NodeId, session: Session, refusal: Refusal, effects: &mut Vec<Effect>) {
        self.counters.refusals_sent += 1;
        let Refusal { status, next_decree, message } = refusal;
        let refuse = Refuse { ballot: self.ballot().max(self.promised), next_decree, message };
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

/// Whom this copy may have granted a lease just before it was started, which it has forgotten: the primary it followed.
/// Who is alone may have been made so by force, and never have served since; nobody says then when that primary
/// stopped.
fn granted_before(identity: &ReplicaIdentity, configuration: &Configuration) -> Option<NodeId> {
    let alone = configuration.secondaries.is_empty() && identity.table.replica_count > 1;
    configuration.primary.filter(|primary| *primary != identity.node || alone)
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
