//! One replica of one partition. This file only dispatches: role first, then event. What a role knows and does is in
//! its own file; what may be asked without changing anything is in `questions.rs`.

use bytes::Bytes;
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::peer::Establish;
use pegasus_wire::{Ballot, Configuration, Decree, MutationKind, NodeId, Status, TableProperties};

use crate::bugs::PlantedBug;
use crate::describe::Phase;
use crate::effect::{Effect, Role};
use crate::event::{Event, PeerMessage, RequestToken, Session};
use crate::primary::Primary;
use crate::reconcile::{Rejection, check_establish};
use crate::recovered::Recovered;
use crate::secondary::{Secondary, Upstream};
use crate::shared::{Core, Refusal, ReplicaIdentity, ReplicaLimits, same_configuration};
use crate::timing::Moment;
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
    pub fn new(identity: ReplicaIdentity, recovered: Recovered, now: Moment) -> Replica {
        Replica::with_limits(identity, recovered, ReplicaLimits::default(), now)
    }

    /// A replica with limits of its own.
    pub fn with_limits(identity: ReplicaIdentity, recovered: Recovered, limits: ReplicaLimits, now: Moment) -> Replica {
        let recovered = recovered.without_gap();
        let damage = recovered.damage();
        let Recovered { configuration, applied, committed, promised, mutations, timestamp_micros, state } = recovered;
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
        let mut core = Core::new(identity, limits, configuration, window, stamp, state, now);
        core.promised = promised;
        Replica { core, role, reported: (Role::Inactive, ballot, false), unreported_fault }
    }

    /// Takes the table's properties as they are now: its name, or the durability that is in force. Those that learn
    /// hear of them when they are established; nothing else depends on them here.
    pub fn set_table(&mut self, table: TableProperties) {
        self.core.identity.table = table;
    }

    /// Takes one event and adds what must be done because of it. `now` is the node's clock, read after whatever the
    /// event tells of has happened.
    pub fn handle(&mut self, now: Moment, event: Event, effects: &mut Vec<Effect>) {
        self.core.now = self.core.now.max(now);
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
            Event::DescriptorStored { ballot, state } => self.on_descriptor_stored(ballot, state, effects),
            Event::Assigned(configuration) => self.on_configuration(configuration, effects),
            Event::ProposalDecided { configuration } => {
                self.core.proposal_unanswered();
                self.on_configuration(configuration, effects);
            }
            Event::ProposalFailed => self.core.proposal_unanswered(),
            Event::StreamOpened { peer, session } => self.on_stream_opened(peer, session, effects),
            Event::StreamFailed { peer } => {
                if let RoleState::Primary(primary) = &mut self.role {
                    primary.on_stream_failed(peer);
                }
            }
            Event::StreamClosed { peer, session } => self.on_stream_closed(peer, session, effects),
            Event::BeaconHeard { peer, ballot, committed } => {
                if let RoleState::Secondary(secondary) = &mut self.role {
                    secondary.on_beacon(&mut self.core, peer, ballot, committed);
                }
            }
            Event::BeaconAnswered { peer, ballot, sent_at, granted } => {
                if let RoleState::Primary(primary) = &mut self.role {
                    primary.on_beacon_answered(&mut self.core, peer, ballot, sent_at, granted);
                }
            }
            Event::Await { request, through } => self.on_await(request, through, effects),
            Event::AddMember { ballot, node } => {
                if let RoleState::Primary(primary) = &mut self.role {
                    primary.add_member(&self.core, ballot, node, effects);
                }
            }
            Event::HandOver => {
                if let RoleState::Primary(primary) = &mut self.role {
                    primary.handing_over.get_or_insert(self.core.now);
                }
            }
            Event::LogRead { peer, session, mutations } => {
                if let RoleState::Primary(primary) = &mut self.role {
                    primary.on_log_read(&mut self.core, peer, session, mutations, effects);
                }
            }
            Event::CheckpointFailed => {
                if let RoleState::Secondary(secondary) = &mut self.role {
                    secondary.on_checkpoint_failed();
                }
            }
            Event::Tick => match &mut self.role {
                RoleState::Primary(primary) => primary.on_tick(&mut self.core, effects),
                RoleState::Secondary(secondary) => secondary.on_tick(&mut self.core, effects),
                RoleState::Inactive | RoleState::Stopped { .. } => {}
            },
            Event::Failed { status, reason } => self.stop(status, reason, effects),
            Event::Shutdown => self.stop(Status::ShuttingDown, String::new(), effects),
        }
        self.settle(effects);
    }

    /// Checks the invariants of the type. Called after every event in debug builds; a simulator may call it too.
    pub fn check_invariants(&self) {
        let window = &self.core.window;
        window.check_invariants();
        assert!(self.core.stored.0 <= self.core.ballot(), "a stored ballot is a known one");
        if let RoleState::Primary(primary) = &self.role {
            let serving = primary.phase() == Phase::Serving;
            assert!(
                !serving || window.applied() >= primary.inherited_last(),
                "serves with its inherited window applied"
            );
            assert!(!serving || self.core.is_stored(), "serves under a stored ballot");
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
                let status = self.admit(self.core.now).expect_err("only a primary admits writes");
                effects.push(Effect::Reply { request, outcome: Err(status) });
            }
        }
    }

    fn on_stream_opened(&mut self, peer: NodeId, session: Session, effects: &mut Vec<Effect>) {
        match &mut self.role {
            RoleState::Primary(primary) => primary.on_stream_opened(&mut self.core, peer, session, effects),
            _ => effects.push(Effect::CloseStream { peer, session }),
        }
    }

    fn on_stream_closed(&mut self, peer: NodeId, session: Session, effects: &mut Vec<Effect>) {
        match &mut self.role {
            RoleState::Primary(primary) => primary.on_stream_closed(peer, session, effects),
            RoleState::Secondary(secondary) => secondary.on_stream_closed(peer, session),
            RoleState::Inactive | RoleState::Stopped { .. } => {}
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
                // A member keeps what it has, for people to look at. Whoever is no member was left behind by an
                // operator's decision to accept losses: its copy is set aside, and it learns from the beginning.
                let member = establish.configuration.contains(self.core.node());
                let status = if member { Status::Internal } else { Status::Damaged };
                self.core.refuse(peer, session, Refusal::new(status, reason.clone()), effects);
                return self.stop(status, reason, effects);
            }
        }
        if !matches!(self.role, RoleState::Secondary(_)) {
            self.step_down(effects);
            self.role = RoleState::Secondary(Secondary::new(&self.core, false));
        }
        if let RoleState::Secondary(secondary) = &mut self.role {
            secondary.on_establish(&mut self.core, peer, session, establish, effects);
        }
    }

    /// What the meta service says is in force, as an answer or unasked.
    fn on_configuration(&mut self, configuration: Configuration, effects: &mut Vec<Effect>) {
        if self.core.has_proposed(&configuration) && configuration.primary == Some(self.core.node()) {
            return self.on_accepted(configuration, effects);
        }
        let careless = self.core.bugs.has(PlantedBug::StaleConfigurationAccepted);
        if configuration.ballot < self.core.ballot() && !careless {
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
            self.core.adopt(configuration);
            return secondary.on_new_ballot(&self.core, effects);
        }
        self.step_down(effects);
        self.core.adopt(configuration);
        self.take_role(effects);
    }

    /// What this replica proposed is in force, and it leads.
    fn on_accepted(&mut self, accepted: Configuration, effects: &mut Vec<Effect>) {
        match &mut self.role {
            RoleState::Primary(primary) => primary.take_ballot(&mut self.core, accepted, effects),
            RoleState::Secondary(secondary) => {
                secondary.close(effects);
                self.role = RoleState::Primary(Primary::take_over(&mut self.core, accepted, effects));
            }
            RoleState::Inactive | RoleState::Stopped { .. } => {}
        }
    }

    /// Becomes what the configuration says.
    fn take_role(&mut self, effects: &mut Vec<Effect>) {
        let node = self.core.node();
        self.role = if self.core.configuration.primary == Some(node) {
            RoleState::Primary(Primary::start(&mut self.core, effects))
        } else if self.core.configuration.secondaries.contains(&node) {
            RoleState::Secondary(Secondary::new(&self.core, false))
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

    /// Stops for this run. The others are told what helps them to go on without this replica.
    fn stop(&mut self, status: Status, reason: String, effects: &mut Vec<Effect>) {
        match &self.role {
            RoleState::Stopped { .. } => return,
            RoleState::Primary(primary) if status != Status::ShuttingDown => primary.abdicate(&mut self.core, effects),
            RoleState::Secondary(Secondary { upstream: Some(upstream), .. }) if upstream.open => {
                let Upstream { peer, session, .. } = *upstream;
                self.core.refuse(peer, session, Refusal::new(status, reason.clone()), effects);
            }
            _ => {}
        }
        self.step_down(effects);
        self.core.proposal = None;
        self.unreported_fault = status != Status::ShuttingDown;
        self.role = RoleState::Stopped { status, reason };
    }

    /// Answers once everything up to a decree is applied.
    fn on_await(&mut self, request: RequestToken, through: Decree, effects: &mut Vec<Effect>) {
        let serves = matches!(&self.role, RoleState::Primary(primary) if primary.phase() == Phase::Serving);
        if through <= self.core.window.applied() {
            effects.push(Effect::Reply { request, outcome: Ok(through) });
        } else if serves && through <= self.core.window.last() {
            self.core.awaiting.insert((through, request));
        } else {
            effects.push(Effect::Reply { request, outcome: Err(Status::OutcomeUnknown) });
        }
    }

    fn on_descriptor_stored(&mut self, ballot: Ballot, state: ReplicaState, effects: &mut Vec<Effect>) {
        assert!(ballot <= self.core.storing.0, "only what was asked for is stored");
        self.core.stored = (ballot, state);
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
        let applied = self.core.window.applied();
        while let Some(&(decree, request)) = self.core.awaiting.first()
            && decree <= applied
        {
            self.core.awaiting.pop_first();
            effects.push(Effect::Reply { request, outcome: Ok(decree) });
        }
    }

    /// After every event: move watermarks, hand out what is committed, report changes. A list of cheap steps, each of
    /// which does nothing if there is nothing to do.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        match &mut self.role {
            RoleState::Primary(primary) => primary.settle(&mut self.core, effects),
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
        let now = (self.role(), self.core.ballot(), self.admit_read(self.core.now).is_ok());
        if now != self.reported {
            self.reported = now;
            let (role, ballot, serving) = now;
            effects.push(Effect::RoleChanged { role, ballot, serving });
        }
    }
}
