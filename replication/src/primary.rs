//! The primary: orders writes, prepares them at every secondary, commits what all have logged.
//!
//! ```text
//!   assigned at ballot 1                  assigned at a higher ballot       own takeover accepted
//!        |                                (after a restart, a hand-over)          |
//!        v        every member has a copy     v                                   |
//!     Creating -------------------------> Proposing <----------------------+      |
//!                                             | own proposal in force      |      |
//!                                             v                            |      |
//!                                          Storing <-----------------------|------+
//!                                             | ballot durable             |      |
//!                                             v                            |      | a change of members
//!                                        Reconciling --- a member knows ---+      | accepted
//!                                             |          a higher ballot   |      |
//!                  every member established,  |                            |      |
//!                  inherited window applied   v                            |      |
//!                                          Serving ------------------------+------+
//! ```
//!
//! Becoming anything else (another configuration, a failure) is the replica's business; it calls
//! [`Primary::step_down`] first. What is said to members is in `members.rs`, to learners in `learners.rs`; who leaves
//! and who joins is decided in `changes.rs`.

use bytes::Bytes;
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Ballot, Configuration, Decree, Mutation, MutationKind, NodeId, Status, limits};

use crate::bugs::PlantedBug;
use crate::describe::Phase;
use crate::effect::Effect;
use crate::event::{PeerMessage, RequestToken, Session};
use crate::members::{on_acknowledge, on_established, on_gap, send_commit_point, send_establish, send_prepares};
use crate::progress::{Progress, Stream};
use crate::shared::Core;
use crate::timing::Moment;

/// State of the role.
///
/// Invariants:
/// - nothing is prepared before the ballot is durable, nothing new before `Serving`
/// - `committed <= acknowledged` of every member, once it has joined
/// - a learner whose addition is proposed counts as a member
#[derive(Clone, Debug)]
pub(crate) struct Primary {
    pub(crate) phase: Phase,
    pub(crate) members: Vec<Progress>,
    /// Nodes that are taught, and are no members yet.
    pub(crate) learners: Vec<Progress>,
    /// The last decree prepared before the ballot was taken: what lies up to here is inherited.
    pub(crate) inherited_last: Decree,
    /// When the role, or the current ballot, was taken.
    pub(crate) taken_at: Moment,
    /// When it could last serve.
    pub(crate) served_at: Moment,
    /// Since when the role is to be handed over: nothing new is admitted, until that is done or has taken too long.
    pub(crate) handing_over: Option<Moment>,
}

impl Primary {
    fn new(core: &Core) -> Primary {
        Primary {
            phase: Phase::Creating,
            members: Vec::new(),
            learners: Vec::new(),
            inherited_last: Decree(0),
            taken_at: core.now,
            served_at: core.now,
            handing_over: None,
        }
    }

    /// Becomes primary of the configuration in force.
    pub(crate) fn start(core: &mut Core, effects: &mut Vec<Effect>) -> Primary {
        let mut primary = Primary::new(core);
        primary.meet_members(core, effects);
        if core.ballot() == Ballot::ASSIGNMENT {
            primary.establish_all(core, effects);
            primary.leave_creating(core, effects);
        } else {
            primary.propose_next_ballot(core, effects);
        }
        primary
    }

    /// Becomes primary because its own takeover is in force.
    pub(crate) fn take_over(core: &mut Core, accepted: Configuration, effects: &mut Vec<Effect>) -> Primary {
        let mut primary = Primary::new(core);
        core.counters.takeovers += 1;
        primary.take_ballot(core, accepted, effects);
        primary
    }

    /// Leaves the role: nobody waits here any longer, and nothing more is sent.
    pub(crate) fn step_down(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        core.forget_requests(effects);
        core.window.retain_none();
        for member in self.members.iter_mut().chain(&mut self.learners) {
            member.close(effects);
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn inherited_last(&self) -> Decree {
        self.inherited_last
    }

    /// Why a read is not taken now, if so.
    pub(crate) fn admit_read(&self, core: &Core, now: Moment) -> Result<(), Status> {
        let serves = self.phase == Phase::Serving && !self.has_proposed_hand_over(core) && self.holds_leases(core, now);
        if serves { Ok(()) } else { Err(Status::NotServing) }
    }

    /// Why a write is not taken now, if so; its size apart.
    pub(crate) fn admit(&self, core: &Core, now: Moment) -> Result<(), Status> {
        self.admit_read(core, now)?;
        if self.handing_over.is_some() {
            return Err(Status::NotServing);
        }
        if 1 + self.members.len() < core.min_members() {
            return Err(Status::NotEnoughMembers);
        }
        let full = core.window.len() >= core.limits.window_mutations_max;
        if full { Err(Status::Busy) } else { Ok(()) }
    }

    /// A client's write.
    pub(crate) fn on_propose(
        &mut self,
        core: &mut Core,
        request: RequestToken,
        timestamp_micros: u64,
        (kind, payload): (MutationKind, Bytes),
        effects: &mut Vec<Effect>,
    ) {
        let admitted = self.admit(core, core.now).and_then(|()| {
            let bytes = core.window.bytes() + payload.len() as u64;
            match payload.len() {
                length if length > limits::WRITE_BYTES_MAX => Err(Status::TooLarge),
                _ if core.window.len() > 0 && bytes > core.limits.window_bytes_max => Err(Status::Busy),
                _ => Ok(()),
            }
        });
        if let Err(status) = admitted {
            effects.push(Effect::Reply { request, outcome: Err(status) });
            return;
        }
        let mutation = Mutation {
            ballot: core.ballot(),
            decree: core.window.last().next(),
            timestamp_micros: timestamp_micros.max(core.timestamp_micros.saturating_add(1)),
            kind,
            payload,
        };
        core.append(mutation, Some(request), effects);
        for member in &mut self.members {
            send_prepares(member, core, effects);
        }
        self.feed_learners(core, effects);
    }

    /// The meta service accepted what was proposed: its ballot is ours once it is durable here.
    pub(crate) fn take_ballot(&mut self, core: &mut Core, accepted: Configuration, effects: &mut Vec<Effect>) {
        core.adopt(accepted);
        core.state = ReplicaState::Whole;
        self.inherited_last = core.window.last();
        self.taken_at = core.now;
        self.served_at = core.now;
        self.handing_over = self.handing_over.map(|_| core.now);
        self.meet_members(core, effects);
        self.phase = Phase::Storing;
        core.store_descriptor(effects);
    }

    /// The ballot is durable: the inherited window is logged again under it, and the members are told. Requests of
    /// this run that wait for something in the window go on waiting.
    pub(crate) fn on_ballot_stored(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        if self.phase != Phase::Storing || !core.is_stored() {
            return;
        }
        self.phase = Phase::Reconciling;
        let ballot = core.ballot();
        let committed = core.window.committed();
        core.window.begin_ballot(ballot, committed);
        for number in committed.0 + 1..=self.inherited_last.0 {
            let entry = core.window.get(Decree(number)).expect("the inherited window has no gap");
            let mutation = Mutation { ballot, ..entry.mutation.clone() };
            let request = entry.request;
            core.append(mutation, request, effects);
        }
        self.establish_all(core, effects);
    }

    pub(crate) fn on_stream_opened(
        &mut self,
        core: &mut Core,
        peer: NodeId,
        session: Session,
        effects: &mut Vec<Effect>,
    ) {
        let last_decree = self.inherited_last;
        let establishing = self.is_establishing();
        match self.progress(peer) {
            Some(member) => {
                if member.opened(session, effects) && establishing {
                    send_establish(member, core, last_decree, effects);
                }
            }
            None => effects.push(Effect::CloseStream { peer, session }),
        }
    }

    pub(crate) fn on_stream_failed(&mut self, peer: NodeId) {
        if let Some(member) = self.progress(peer)
            && member.stream == Stream::Opening
        {
            member.lost();
        }
    }

    pub(crate) fn on_stream_closed(&mut self, peer: NodeId, session: Session, effects: &mut Vec<Effect>) {
        if let Some(member) = self.progress(peer)
            && member.session() == Some(session)
        {
            member.lost();
            member.open(effects);
        }
    }

    /// A message of a member or learner.
    pub(crate) fn on_message(
        &mut self,
        core: &mut Core,
        peer: NodeId,
        session: Session,
        message: PeerMessage,
        effects: &mut Vec<Effect>,
    ) {
        let establishing = self.is_establishing();
        let learner = self.learners.iter().any(|learner| learner.node == peer);
        let mut known = self.members.iter_mut().chain(&mut self.learners);
        let Some(member) = known.find(|member| member.session() == Some(session)) else {
            core.counters.superseded_messages += 1;
            return;
        };
        if member.node != peer {
            core.counters.unexpected_messages += 1;
            return;
        }
        match message {
            PeerMessage::Acknowledge(acknowledge) if acknowledge.ballot == core.ballot() => {
                on_acknowledge(member, core, acknowledge.logged, effects);
            }
            PeerMessage::Established(answer) if establishing && answer.ballot == core.ballot() => {
                on_established(member, core, session, answer, learner, effects);
                self.leave_creating(core, effects);
            }
            // A learner has no say: if this primary is superseded, it hears so from a member or by its leases.
            PeerMessage::Refuse { status: Status::StaleBallot, refuse }
                if refuse.ballot > core.ballot() && !learner =>
            {
                self.on_superseded(core, effects);
            }
            PeerMessage::Refuse { status: Status::Gap, refuse }
                if refuse.ballot == core.ballot() && member.is_established() =>
            {
                on_gap(member, core, refuse.next_decree, effects);
            }
            PeerMessage::Refuse { status, refuse } => {
                core.counters.refusals_received += 1;
                if !learner && has_stopped(status) {
                    core.release(peer);
                }
                member.give_up(status, refuse.message, effects);
            }
            // Answers to a ballot this primary has left behind, on a stream it kept.
            PeerMessage::Acknowledge(_) | PeerMessage::Established(_) => core.counters.superseded_messages += 1,
            PeerMessage::Establish(_)
            | PeerMessage::Prepare { .. }
            | PeerMessage::CommitPoint(_)
            | PeerMessage::TakeCheckpoint(_) => core.counters.unexpected_messages += 1,
        }
    }

    pub(crate) fn on_tick(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        core.retry_proposal(effects);
        if !self.is_establishing() {
            return;
        }
        let prepared = core.window.prepared();
        for member in &mut self.members {
            member.mark(prepared, core.now);
        }
        for member in self.members.iter_mut().chain(&mut self.learners) {
            member.tick(effects);
            send_commit_point(member, core, effects);
        }
        self.change_members(core, effects);
    }

    /// Moves the commit point and the phase as far as they may go. Cheap; called after every event.
    pub(crate) fn settle(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Reconciling | Phase::Serving) {
            return;
        }
        core.window.commit(self.commit_point(core));
        let inherited_done =
            core.window.applied() >= self.inherited_last || core.bugs.has(PlantedBug::InheritedWindowSkipped);
        let hasty = core.bugs.has(PlantedBug::NewPrimaryStartsWithLease);
        let joined = hasty || self.members.iter().all(|member| member.joined);
        if self.phase == Phase::Reconciling && inherited_done && joined && core.is_released() {
            self.phase = Phase::Serving;
        }
        if self.admit_read(core, core.now).is_ok() {
            self.served_at = core.now;
        }
        if !self.learners.is_empty() {
            self.settle_learners(core, effects);
        }
        if self.handing_over.is_some() {
            self.propose_hand_over(core, effects);
        }
    }

    /// What every member has logged. PacificA has no majority: one that lags holds all back. A learner counts from
    /// the moment its addition is proposed, and for a bounded time before, so that it comes so far.
    fn commit_point(&self, core: &Core) -> Decree {
        let joining = self.joining(core).filter(|_| !core.bugs.has(PlantedBug::PendingLearnerNotCounted));
        if core.bugs.has(PlantedBug::CommitByMajority) {
            let mut logged: Vec<Decree> = self.members.iter().map(|member| member.acknowledged).collect();
            logged.push(core.window.confirmed());
            logged.sort_unstable();
            return logged[logged.len().saturating_sub(1) / 2];
        }
        let leaving = core.proposal.as_ref().filter(|_| core.bugs.has(PlantedBug::CommitsWithoutRemovedMember));
        let counts = |member: &&Progress| leaving.is_none_or(|proposal| proposal.configuration.contains(member.node));
        let patience = core.limits.timing.prepare_timeout_micros;
        let awaited = self.learners.iter().filter(|learner| learner.gates(core.now, patience));
        let counted = self.members.iter().filter(counts).chain(joining).chain(awaited);
        counted.map(|member| member.acknowledged).fold(core.window.confirmed(), Decree::min)
    }

    /// A member knows a higher ballot, so this primary may be superseded. It stops serving and asks the meta service
    /// in the one way there is: by proposing the next ballot. A conflict tells what is in force.
    fn on_superseded(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        core.counters.refusals_received += 1;
        if core.proposal.is_none() {
            self.propose_next_ballot(core, effects);
        }
    }

    fn propose_next_ballot(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        let configuration = Configuration { ballot: core.ballot().next(), ..core.configuration.clone() };
        core.propose(configuration, effects);
        self.phase = Phase::Proposing;
    }

    /// Once every member has its empty copy, the first ballot under which anything may happen is asked for.
    fn leave_creating(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        let ready = self.phase == Phase::Creating && self.members.iter().all(|member| member.joined);
        if ready && core.proposal.is_none() {
            self.propose_next_ballot(core, effects);
        }
    }

    /// Takes the secondaries of the configuration as members, keeping the streams there are, also to a learner that
    /// became one. Who is no member any more is not spoken to.
    fn meet_members(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        let mut left = std::mem::take(&mut self.members);
        for member in left.iter_mut().chain(&mut self.learners) {
            member.begin_ballot();
        }
        for &node in &core.configuration.secondaries {
            let kept = take(&mut left, node).or_else(|| take(&mut self.learners, node));
            self.members.push(kept.unwrap_or_else(|| Progress::new(node)));
        }
        for member in &mut left {
            member.close(effects);
        }
        if self.learners.is_empty() {
            core.window.retain_none();
        }
    }

    fn establish_all(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        for member in self.members.iter_mut().chain(&mut self.learners) {
            match member.session() {
                Some(_) => send_establish(member, core, self.inherited_last, effects),
                None => member.open(effects),
            }
        }
    }

    /// True in the phases in which members are spoken to.
    pub(crate) fn is_establishing(&self) -> bool {
        matches!(self.phase, Phase::Creating | Phase::Reconciling | Phase::Serving)
    }

    pub(crate) fn progress(&mut self, node: NodeId) -> Option<&mut Progress> {
        self.members.iter_mut().chain(&mut self.learners).find(|member| member.node == node)
    }
}

/// True if a copy that refuses to be a member with this status leads nothing any more.
fn has_stopped(status: Status) -> bool {
    matches!(status, Status::Damaged | Status::StorageFailed | Status::ShuttingDown)
}

fn take(known: &mut Vec<Progress>, node: NodeId) -> Option<Progress> {
    let index = known.iter().position(|member| member.node == node)?;
    Some(known.swap_remove(index))
}
