//! One replica of one partition. This file only dispatches: role first, then event. What a role knows and does is in
//! its own file.

use bytes::Bytes;
use pegasus_wire::messages::peer::Establish;
use pegasus_wire::{Ballot, Configuration, Decree, MutationKind, NodeId, Status};

use crate::bugs::PlantedBug;
use crate::describe::Phase;
use crate::effect::{Effect, Role};
use crate::event::{Event, PeerMessage, RequestToken, Session};
use crate::primary::Primary;
use crate::reconcile::{Rejection, check_establish};
use crate::recovered::Recovered;
use crate::secondary::Secondary;
use crate::shared::{Core, Refusal, ReplicaIdentity, ReplicaLimits, same_configuration};
use crate::window::Window;

/// What the replica is, with the state of that role.
#[derive(Debug)]
pub(crate) enum RoleState {
    Inactive,
    Primary(Primary),
    Secondary(Secondary),
    /// Refuses everything with this status.
    Stopped {
        status: Status,
        reason: String,
    },
}

/// One replica of one partition, as a state machine without clock, randomness or IO.
///
/// **Calling discipline.** Feed every event through [`handle`](Replica::handle) and perform the effects it adds, in
/// order, before the next event whose answer they are. The host may gather effects of many events (and of many
/// replicas) before it performs them; it must not drop or reorder any. All other methods only look.
///
/// **After a start** the replica is inactive until [`Event::Assigned`] tells it what it is, or a primary of at least
/// its own ballot establishes it.
///
/// Invariants (numbers as in the crate's chapter), checked in debug builds after every event:
/// - 2: `applied <= committed <= confirmed <= prepared <= last`
/// - 1: a primary's commit point is logged here and acknowledged by every member
/// - 4: the configuration's ballot never falls, and is at least the stored one
/// - 6: a primary serves only when its inherited window is applied
#[derive(Debug)]
pub struct Replica {
    pub(crate) core: Core,
    pub(crate) role: RoleState,
    reported: (Role, Ballot, bool),
    /// A fault found before the first event; reported with it.
    unreported_fault: bool,
}

impl Replica {
    /// A replica with the limits of the release.
    pub fn new(identity: ReplicaIdentity, recovered: Recovered) -> Replica {
        Replica::with_limits(identity, recovered, ReplicaLimits::default())
    }

    /// A replica with limits of its own.
    pub fn with_limits(identity: ReplicaIdentity, recovered: Recovered, limits: ReplicaLimits) -> Replica {
        let damage = recovered.damage();
        let Recovered { configuration, applied, committed, mutations, timestamp_micros, .. } = recovered;
        let stamp = mutations.iter().map(|mutation| mutation.timestamp_micros).fold(timestamp_micros, u64::max);
        let window = match damage {
            None => Window::recovered(applied, committed, mutations),
            Some(_) => Window::recovered(applied, applied, Vec::new()),
        };
        let ballot = configuration.ballot;
        let unreported_fault = damage.is_some();
        let role = match damage {
            None => RoleState::Inactive,
            Some(reason) => RoleState::Stopped { status: Status::Damaged, reason },
        };
        let core = Core::new(identity, limits, configuration, window, stamp);
        Replica { core, role, reported: (Role::Inactive, ballot, false), unreported_fault }
    }

    /// Takes one event and adds what must be done because of it.
    pub fn handle(&mut self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Propose { request, timestamp_micros, kind, payload } => {
                self.on_propose(request, timestamp_micros, kind, payload, effects);
            }
            Event::Received { peer, session, message } => self.on_received(peer, session, message, effects),
            Event::Logged { through } => {
                assert!(through <= self.core.last_token(), "only what was appended is logged");
                self.core.window.mark_logged(through);
                self.advance_establishing(effects);
            }
            Event::Applied { through } => self.on_applied(through, effects),
            Event::DescriptorStored { ballot } => self.on_descriptor_stored(ballot, effects),
            Event::Assigned(configuration) => self.on_configuration(configuration, effects),
            Event::ProposalDecided { configuration } => {
                if let RoleState::Primary(primary) = &mut self.role {
                    primary.proposal_unanswered();
                }
                self.on_configuration(configuration, effects);
            }
            Event::ProposalFailed => {
                if let RoleState::Primary(primary) = &mut self.role {
                    primary.proposal_unanswered();
                }
            }
            Event::StreamOpened { peer, session } => match &mut self.role {
                RoleState::Primary(primary) => primary.on_stream_opened(&self.core, peer, session, effects),
                _ => effects.push(Effect::CloseStream { peer, session }),
            },
            Event::StreamFailed { peer } => {
                if let RoleState::Primary(primary) = &mut self.role {
                    primary.on_stream_failed(peer);
                }
            }
            Event::StreamClosed { peer, session } => match &mut self.role {
                RoleState::Primary(primary) => primary.on_stream_closed(peer, session, effects),
                RoleState::Secondary(secondary) => secondary.on_stream_closed(peer, session),
                RoleState::Inactive | RoleState::Stopped { .. } => {}
            },
            Event::Tick => {
                if let RoleState::Primary(primary) = &mut self.role {
                    primary.on_tick(&self.core, effects);
                }
            }
            Event::Failed { status, reason } => self.stop(status, reason, effects),
            Event::Shutdown => self.stop(Status::ShuttingDown, String::new(), effects),
        }
        self.settle(effects);
    }

    /// What it is.
    pub fn role(&self) -> Role {
        match &self.role {
            RoleState::Inactive => Role::Inactive,
            RoleState::Primary(_) => Role::Primary,
            RoleState::Secondary(_) => Role::Secondary,
            RoleState::Stopped { status: Status::ShuttingDown, .. } => Role::Inactive,
            RoleState::Stopped { .. } => Role::Error,
        }
    }

    /// The newest ballot known.
    pub fn ballot(&self) -> Ballot {
        self.core.ballot()
    }

    /// The newest configuration known.
    pub fn configuration(&self) -> &Configuration {
        &self.core.configuration
    }

    /// The last decree known to be in the table.
    pub fn applied(&self) -> Decree {
        self.core.window.applied()
    }

    /// The commit point.
    pub fn committed(&self) -> Decree {
        self.core.window.committed()
    }

    /// The last decree prepared, of whatever ballot.
    pub fn last(&self) -> Decree {
        self.core.window.last()
    }

    /// The highest stamp of the partition known here; "now" for expiry is never before it.
    pub fn timestamp_micros(&self) -> u64 {
        self.core.timestamp_micros
    }

    /// Why a write would be refused now, whatever its size; without proposing anything.
    pub fn admit(&self) -> Result<(), Status> {
        match &self.role {
            RoleState::Primary(primary) => primary.admit(&self.core),
            RoleState::Secondary(_) => Err(Status::NotPrimary),
            RoleState::Inactive => Err(Status::NotServing),
            RoleState::Stopped { status, .. } => Err(*status),
        }
    }

    /// Why a read would be refused now. A primary reads from its table, which then holds at least everything that was
    /// ever acknowledged.
    pub fn admit_read(&self) -> Result<(), Status> {
        match &self.role {
            RoleState::Primary(primary) if primary.phase() == Phase::Serving => Ok(()),
            RoleState::Primary(_) | RoleState::Inactive => Err(Status::NotServing),
            RoleState::Secondary(_) => Err(Status::NotPrimary),
            RoleState::Stopped { status, .. } => Err(*status),
        }
    }

    /// True if everything prepared here is applied; a graceful stop waits for this after it stopped admitting.
    pub fn is_drained(&self) -> bool {
        self.core.window.len() == 0
    }

    /// Checks the invariants of the type. Called after every event in debug builds; a simulator may call it too.
    pub fn check_invariants(&self) {
        let window = &self.core.window;
        window.check_invariants();
        assert!(self.core.stored_ballot <= self.core.ballot(), "a stored ballot is a known one");
        if let RoleState::Primary(primary) = &self.role {
            let serving = primary.phase() == Phase::Serving;
            assert!(
                !serving || window.applied() >= primary.inherited_last(),
                "serves with its inherited window applied"
            );
            assert!(!serving || self.core.is_ballot_stored(), "serves under a stored ballot");
            for member in &primary.members {
                let behind = member.joined && member.acknowledged < window.committed();
                assert!(!behind, "{} is committed but not acknowledged: {member:?}", window.committed());
                assert!(member.acknowledged <= member.sent || !member.joined, "acknowledged before sent: {member:?}");
            }
        }
    }

    /// Plants a bug; for tests of the simulator.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&mut self, bug: PlantedBug) {
        self.core.bugs.planted = Some(bug);
    }

    fn on_propose(
        &mut self,
        request: RequestToken,
        timestamp_micros: u64,
        kind: MutationKind,
        payload: Bytes,
        effects: &mut Vec<Effect>,
    ) {
        match &mut self.role {
            RoleState::Primary(primary) => {
                primary.on_propose(&mut self.core, request, timestamp_micros, (kind, payload), effects);
            }
            _ => {
                let status = self.admit().expect_err("only a primary admits writes");
                effects.push(Effect::Reply { request, outcome: Err(status) });
            }
        }
    }

    fn on_received(&mut self, peer: NodeId, session: Session, message: PeerMessage, effects: &mut Vec<Effect>) {
        if let PeerMessage::Establish(establish) = message {
            return self.on_establish(peer, session, establish, effects);
        }
        match &mut self.role {
            RoleState::Primary(primary) => primary.on_message(&mut self.core, peer, session, message, effects),
            RoleState::Secondary(secondary) => secondary.on_message(&mut self.core, peer, session, message, effects),
            RoleState::Inactive | RoleState::Stopped { .. } => self.core.counters.superseded_messages += 1,
        }
    }

    /// Whatever this replica was: a primary with a ballot at least as high, and not contradicted by what is known
    /// here, makes it a secondary.
    fn on_establish(&mut self, peer: NodeId, session: Session, establish: Box<Establish>, effects: &mut Vec<Effect>) {
        if let RoleState::Secondary(secondary) = &self.role
            && secondary.is_superseded(peer, session)
        {
            self.core.counters.superseded_messages += 1;
            effects.push(Effect::CloseStream { peer, session });
            return;
        }
        if let RoleState::Stopped { status, reason } = &self.role {
            let refusal = Refusal::new(*status, reason.clone());
            return self.core.refuse(peer, session, refusal, effects);
        }
        match check_establish(&self.core, peer, &establish) {
            Ok(()) => {}
            Err(Rejection::Refused(refusal)) => {
                if let RoleState::Secondary(secondary) = &mut self.role
                    && refusal.status == Status::Gap
                {
                    secondary.missing = Some(refusal.next_decree);
                }
                return self.core.refuse(peer, session, refusal, effects);
            }
            Err(Rejection::Broken(reason)) => {
                let refusal = Refusal::new(Status::Internal, reason.clone());
                self.core.refuse(peer, session, refusal, effects);
                return self.stop(Status::Internal, reason, effects);
            }
        }
        if !matches!(self.role, RoleState::Secondary(_)) {
            self.step_down(effects);
            self.role = RoleState::Secondary(Secondary::default());
        }
        if let RoleState::Secondary(secondary) = &mut self.role {
            secondary.on_establish(&mut self.core, peer, session, establish, effects);
        }
    }

    /// What the meta service says is in force, as an answer or unasked.
    fn on_configuration(&mut self, configuration: Configuration, effects: &mut Vec<Effect>) {
        if let RoleState::Primary(primary) = &mut self.role
            && primary.has_proposed(&configuration)
        {
            return primary.take_ballot(&mut self.core, effects);
        }
        if configuration.ballot < self.core.ballot() {
            self.core.counters.suspicious_configurations += 1;
            return;
        }
        if configuration.ballot == self.core.ballot() {
            if !same_configuration(&configuration, &self.core.configuration) {
                self.core.counters.suspicious_configurations += 1;
            } else if matches!(self.role, RoleState::Inactive) {
                self.take_role(effects);
            }
            return;
        }
        if matches!(self.role, RoleState::Stopped { .. }) {
            return;
        }
        let stays_secondary = configuration.secondaries.contains(&self.core.node());
        if let RoleState::Secondary(secondary) = &mut self.role
            && stays_secondary
        {
            self.core.configuration = configuration;
            return secondary.on_new_ballot(&self.core, effects);
        }
        self.step_down(effects);
        self.core.configuration = configuration;
        self.take_role(effects);
    }

    /// Becomes what the configuration says.
    fn take_role(&mut self, effects: &mut Vec<Effect>) {
        let node = self.core.node();
        self.role = if self.core.configuration.primary == Some(node) {
            RoleState::Primary(Primary::start(&mut self.core, effects))
        } else if self.core.configuration.secondaries.contains(&node) {
            RoleState::Secondary(Secondary::default())
        } else {
            RoleState::Inactive
        };
    }

    fn step_down(&mut self, effects: &mut Vec<Effect>) {
        match &mut self.role {
            RoleState::Primary(primary) => primary.step_down(&mut self.core, effects),
            RoleState::Secondary(secondary) => secondary.close(effects),
            RoleState::Inactive | RoleState::Stopped { .. } => {}
        }
    }

    fn stop(&mut self, status: Status, reason: String, effects: &mut Vec<Effect>) {
        if matches!(self.role, RoleState::Stopped { .. }) {
            return;
        }
        self.step_down(effects);
        self.unreported_fault = status != Status::ShuttingDown;
        self.role = RoleState::Stopped { status, reason };
    }

    fn on_descriptor_stored(&mut self, ballot: Ballot, effects: &mut Vec<Effect>) {
        assert!(ballot <= self.core.storing_ballot, "only what was asked for is stored");
        self.core.stored_ballot = self.core.stored_ballot.max(ballot);
        if let RoleState::Primary(primary) = &mut self.role {
            primary.on_ballot_stored(&mut self.core, effects);
        }
        self.advance_establishing(effects);
    }

    fn advance_establishing(&mut self, effects: &mut Vec<Effect>) {
        if let RoleState::Secondary(secondary) = &mut self.role {
            secondary.advance_establishing(&mut self.core, effects);
        }
    }

    fn on_applied(&mut self, through: Decree, effects: &mut Vec<Effect>) {
        while let Some(entry) = self.core.window.pop_applied(through) {
            if let Some(request) = entry.request {
                effects.push(Effect::Reply { request, outcome: Ok(entry.mutation.decree) });
            }
        }
    }

    /// After every event: move watermarks, hand out what is committed, report changes. A list of cheap steps, each of
    /// which does nothing if there is nothing to do.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        match &mut self.role {
            RoleState::Primary(primary) => primary.settle(&mut self.core),
            RoleState::Secondary(secondary) => secondary.settle(&mut self.core, effects),
            RoleState::Inactive | RoleState::Stopped { .. } => {}
        }
        self.apply_committed(effects);
        self.report_changes(effects);
        if cfg!(debug_assertions) && !self.core.bugs.any() {
            self.check_invariants();
        }
    }

    fn apply_committed(&mut self, effects: &mut Vec<Effect>) {
        if matches!(self.role, RoleState::Stopped { .. }) {
            return;
        }
        let window = &mut self.core.window;
        let early = self.core.bugs.has(PlantedBug::AppliedBeforeCommitted);
        let through = if early { window.prepared() } else { window.committed() };
        if let Some(mutations) = window.take_batch(through) {
            effects.push(Effect::Apply { mutations });
        }
    }

    fn report_changes(&mut self, effects: &mut Vec<Effect>) {
        if self.unreported_fault
            && let RoleState::Stopped { status, reason } = &self.role
        {
            self.unreported_fault = false;
            effects.push(Effect::Faulted { status: *status, reason: reason.clone() });
        }
        let now = (self.role(), self.core.ballot(), self.admit_read().is_ok());
        if now != self.reported {
            self.reported = now;
            let (role, ballot, serving) = now;
            effects.push(Effect::RoleChanged { role, ballot, serving });
        }
    }
}
