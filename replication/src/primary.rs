//! The primary: orders writes, prepares them at every secondary, commits what all have logged.
//!
//! ```text
//!   assigned at ballot 1                        assigned at a higher ballot (after a restart)
//!        |                                            |
//!        v        every member has a copy             v
//!     Creating ----------------------------------> Proposing <-----------------------------+
//!                                                     | own proposal in force              |
//!                                                     v                                  a member knows
//!                                                  Storing                              a higher ballot
//!                                                     | ballot durable                     |
//!                                                     v                                    |
//!                                                Reconciling ------------------------------+
//!                                                     | every member established,          |
//!                                                     | inherited window applied           |
//!                                                     v                                    |
//!                                                  Serving --------------------------------+
//! ```
//!
//! Becoming anything else (another configuration, a failure) is the replica's business; it calls
//! [`Primary::step_down`] first.

use bytes::Bytes;
use pegasus_wire::messages::peer::{CommitPoint, Establish, Prepare};
use pegasus_wire::{Ballot, Configuration, Decree, Mutation, MutationKind, NodeId, Status, limits};

use crate::bugs::PlantedBug;
use crate::describe::Phase;
use crate::effect::Effect;
use crate::event::{PeerMessage, RequestToken, Session};
use crate::progress::{Progress, Stream};
use crate::shared::{Core, same_configuration};

/// A configuration asked for.
#[derive(Clone, Debug)]
struct Proposal {
    configuration: Configuration,
    /// False once it is known that no answer will come; the next tick asks again.
    outstanding: bool,
}

/// State of the role.
///
/// Invariants:
/// - nothing is prepared before the ballot is durable, nothing new before `Serving`
/// - `committed <= acknowledged` of every member, once it has joined
#[derive(Clone, Debug)]
pub(crate) struct Primary {
    phase: Phase,
    pub(crate) members: Vec<Progress>,
    proposal: Option<Proposal>,
    /// The last decree prepared before the ballot was taken: what lies up to here is inherited.
    inherited_last: Decree,
}

impl Primary {
    /// Becomes primary of the configuration in force.
    pub(crate) fn start(core: &mut Core, effects: &mut Vec<Effect>) -> Primary {
        let mut primary =
            Primary { phase: Phase::Creating, members: Vec::new(), proposal: None, inherited_last: Decree(0) };
        primary.meet_members(core);
        if core.ballot() == Ballot::ASSIGNMENT {
            primary.establish_all(core, effects);
            primary.leave_creating(core, effects);
        } else {
            primary.propose_next_ballot(core, effects);
        }
        primary
    }

    /// Leaves the role: nobody waits here any longer, and nothing more is sent.
    pub(crate) fn step_down(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        core.forget_requests(effects);
        for member in &mut self.members {
            member.close(effects);
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn inherited_last(&self) -> Decree {
        self.inherited_last
    }

    /// Why a write is not taken now, if so; its size apart.
    pub(crate) fn admit(&self, core: &Core) -> Result<(), Status> {
        if self.phase != Phase::Serving {
            return Err(Status::NotServing);
        }
        if !self.members.iter().all(Progress::is_established) {
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
        let admitted = self.admit(core).and_then(|()| {
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
    }

    /// The meta service accepted what was proposed: its ballot is ours once it is durable here.
    pub(crate) fn take_ballot(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        let proposal = self.proposal.take().expect("a ballot is taken because it was proposed");
        core.configuration = proposal.configuration;
        self.inherited_last = core.window.last();
        self.meet_members(core);
        self.phase = Phase::Storing;
        core.store_descriptor(effects);
    }

    /// True if this configuration is the one asked for.
    pub(crate) fn has_proposed(&self, configuration: &Configuration) -> bool {
        self.proposal.as_ref().is_some_and(|proposal| same_configuration(&proposal.configuration, configuration))
    }

    /// No answer will come to the proposal as it was asked; the next tick asks again.
    pub(crate) fn proposal_unanswered(&mut self) {
        if let Some(proposal) = &mut self.proposal {
            proposal.outstanding = false;
        }
    }

    /// The ballot is durable: the inherited window is logged again under it, and the members are told.
    pub(crate) fn on_ballot_stored(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        if self.phase != Phase::Storing || !core.is_ballot_stored() {
            return;
        }
        self.phase = Phase::Reconciling;
        let ballot = core.ballot();
        let committed = core.window.committed();
        core.window.begin_ballot(ballot, committed);
        for number in committed.0 + 1..=self.inherited_last.0 {
            let entry = core.window.get(Decree(number)).expect("the inherited window has no gap");
            let mutation = Mutation { ballot, ..entry.mutation.clone() };
            core.append(mutation, None, effects);
        }
        self.establish_all(core, effects);
    }

    pub(crate) fn on_stream_opened(&mut self, core: &Core, peer: NodeId, session: Session, effects: &mut Vec<Effect>) {
        let last_decree = self.inherited_last;
        let establishing = self.is_establishing();
        match self.member(peer) {
            Some(member) => {
                if member.opened(session, effects) && establishing {
                    send_establish(member, core, last_decree, effects);
                }
            }
            None => effects.push(Effect::CloseStream { peer, session }),
        }
    }

    pub(crate) fn on_stream_failed(&mut self, peer: NodeId) {
        if let Some(member) = self.member(peer)
            && member.stream == Stream::Opening
        {
            member.lost();
        }
    }

    pub(crate) fn on_stream_closed(&mut self, peer: NodeId, session: Session, effects: &mut Vec<Effect>) {
        if let Some(member) = self.member(peer)
            && member.session() == Some(session)
        {
            member.lost();
            member.open(effects);
        }
    }

    /// A message of a member.
    pub(crate) fn on_message(
        &mut self,
        core: &mut Core,
        peer: NodeId,
        session: Session,
        message: PeerMessage,
        effects: &mut Vec<Effect>,
    ) {
        let establishing = self.is_establishing();
        let Some(member) = self.members.iter_mut().find(|member| member.session() == Some(session)) else {
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
                on_established(member, core, session, answer.next_decree, answer.committed, effects);
                self.leave_creating(core, effects);
            }
            PeerMessage::Refuse { status: Status::StaleBallot, refuse } if refuse.ballot > core.ballot() => {
                self.on_superseded(core, effects);
            }
            PeerMessage::Refuse { status: Status::Gap, refuse }
                if refuse.ballot == core.ballot() && member.is_established() =>
            {
                on_gap(member, core, refuse.next_decree, effects);
            }
            PeerMessage::Refuse { status, refuse } => {
                core.counters.refusals_received += 1;
                member.give_up(status, refuse.message, effects);
            }
            // Answers to a ballot this primary has left behind, on a stream it kept.
            PeerMessage::Acknowledge(_) | PeerMessage::Established(_) => core.counters.superseded_messages += 1,
            PeerMessage::Establish(_) | PeerMessage::Prepare { .. } | PeerMessage::CommitPoint(_) => {
                core.counters.unexpected_messages += 1;
            }
        }
    }

    pub(crate) fn on_tick(&mut self, core: &Core, effects: &mut Vec<Effect>) {
        if let Some(proposal) = &mut self.proposal
            && !proposal.outstanding
        {
            proposal.outstanding = true;
            effects.push(propose(core, &proposal.configuration));
        }
        if !self.is_establishing() {
            return;
        }
        for member in &mut self.members {
            member.tick(effects);
            send_commit_point(member, core, effects);
        }
    }

    /// Moves the commit point and the phase as far as they may go. Cheap; called after every event.
    pub(crate) fn settle(&mut self, core: &mut Core) {
        if !matches!(self.phase, Phase::Reconciling | Phase::Serving) {
            return;
        }
        core.window.commit(self.commit_point(core));
        let inherited_done =
            core.window.applied() >= self.inherited_last || core.bugs.has(PlantedBug::InheritedWindowSkipped);
        if self.phase == Phase::Reconciling && inherited_done && self.members.iter().all(|member| member.joined) {
            self.phase = Phase::Serving;
        }
    }

    /// What every member has logged. PacificA has no majority: one that lags holds all back.
    fn commit_point(&self, core: &Core) -> Decree {
        if core.bugs.has(PlantedBug::CommitByMajority) {
            let mut logged: Vec<Decree> = self.members.iter().map(|member| member.acknowledged).collect();
            logged.push(core.window.confirmed());
            logged.sort_unstable();
            return logged[logged.len().saturating_sub(1) / 2];
        }
        self.members.iter().map(|member| member.acknowledged).fold(core.window.confirmed(), Decree::min)
    }

    /// A member knows a higher ballot, so this primary may be superseded. It stops serving and asks the meta service
    /// in the one way there is: by proposing the next ballot. A conflict tells what is in force.
    fn on_superseded(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        core.counters.refusals_received += 1;
        if self.proposal.is_none() {
            core.forget_requests(effects);
            self.propose_next_ballot(core, effects);
        }
    }

    fn propose_next_ballot(&mut self, core: &Core, effects: &mut Vec<Effect>) {
        let configuration = Configuration { ballot: core.ballot().next(), ..core.configuration.clone() };
        effects.push(propose(core, &configuration));
        self.proposal = Some(Proposal { configuration, outstanding: true });
        self.phase = Phase::Proposing;
    }

    /// Once every member has its empty copy, the first ballot under which anything may happen is asked for.
    fn leave_creating(&mut self, core: &Core, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Creating && self.members.iter().all(|member| member.joined) {
            self.propose_next_ballot(core, effects);
        }
    }

    /// Takes the secondaries of the configuration as members, keeping the streams there are.
    fn meet_members(&mut self, core: &Core) {
        let mut known = std::mem::take(&mut self.members);
        for &node in &core.configuration.secondaries {
            let kept = known.iter().position(|member| member.node == node).map(|index| known.swap_remove(index));
            let mut member = kept.unwrap_or_else(|| Progress::new(node));
            member.begin_ballot();
            self.members.push(member);
        }
    }

    fn establish_all(&mut self, core: &Core, effects: &mut Vec<Effect>) {
        for member in &mut self.members {
            match member.session() {
                Some(_) => send_establish(member, core, self.inherited_last, effects),
                None => member.open(effects),
            }
        }
    }

    /// True in the phases in which members are spoken to.
    fn is_establishing(&self) -> bool {
        matches!(self.phase, Phase::Creating | Phase::Reconciling | Phase::Serving)
    }

    fn member(&mut self, node: NodeId) -> Option<&mut Progress> {
        self.members.iter_mut().find(|member| member.node == node)
    }
}

fn propose(core: &Core, configuration: &Configuration) -> Effect {
    Effect::ProposeConfiguration { expected_ballot: core.ballot(), configuration: configuration.clone() }
}

fn send_establish(member: &mut Progress, core: &Core, last_decree: Decree, effects: &mut Vec<Effect>) {
    let Some(session) = member.session() else { return };
    member.told = core.window.committed();
    let establish = Establish {
        cluster: core.identity.cluster,
        partition: core.identity.partition,
        sender: core.node(),
        receiver: member.node,
        table: core.identity.table.clone(),
        configuration: core.configuration.clone(),
        last_decree,
        committed: core.window.committed(),
    };
    let message = PeerMessage::Establish(Box::new(establish));
    effects.push(Effect::Send { peer: member.node, session, message });
}

/// Sends what the member has not been sent, as far as the bytes in flight allow.
fn send_prepares(member: &mut Progress, core: &mut Core, effects: &mut Vec<Effect>) {
    let Stream::Established { session } = member.stream else { return };
    while member.sent < core.window.prepared() {
        let entry = core.window.get(member.sent.next()).expect("what is not acknowledged is in the window");
        let mutation = &entry.mutation;
        let flight = core.window.bytes_between(member.acknowledged, member.sent);
        if flight > 0 && flight + mutation.payload.len() as u64 > core.limits.flight_bytes_max {
            return;
        }
        let prepare = Prepare {
            ballot: mutation.ballot,
            decree: mutation.decree,
            committed: core.window.committed(),
            timestamp_micros: mutation.timestamp_micros,
            mutation_kind: mutation.kind as u8,
        };
        let message = PeerMessage::Prepare { prepare, payload: mutation.payload.clone() };
        effects.push(Effect::Send { peer: member.node, session, message });
        member.sent = mutation.decree;
        member.told = prepare.committed;
    }
}

/// On a tick only: under load prepares carry the commit point, and a member that is told late loses nothing.
fn send_commit_point(member: &mut Progress, core: &Core, effects: &mut Vec<Effect>) {
    let committed = core.window.committed();
    if let Stream::Established { session } = member.stream
        && member.told < committed
    {
        member.told = committed;
        let message = PeerMessage::CommitPoint(CommitPoint { ballot: core.ballot(), committed });
        effects.push(Effect::Send { peer: member.node, session, message });
    }
}

fn on_acknowledge(member: &mut Progress, core: &mut Core, logged: Decree, effects: &mut Vec<Effect>) {
    if !member.is_established() {
        core.counters.unexpected_messages += 1;
        return;
    }
    if logged > member.sent {
        let message = format!("acknowledged {logged}, but only {} was sent", member.sent);
        member.give_up(Status::Internal, message, effects);
        return;
    }
    member.acknowledged = member.acknowledged.max(logged);
    send_prepares(member, core, effects);
}

fn on_established(
    member: &mut Progress,
    core: &mut Core,
    session: Session,
    next_decree: Decree,
    committed: Decree,
    effects: &mut Vec<Effect>,
) {
    if member.is_established() {
        core.counters.unexpected_messages += 1;
        return;
    }
    let window = &core.window;
    let has = next_decree.previous();
    if next_decree == Decree(0) || has < window.committed() || has < committed || has < member.acknowledged {
        let message = format!("needs {next_decree}, which was committed at it or here; it has to learn");
        member.give_up(Status::Gap, message, effects);
        return;
    }
    if committed < member.told {
        let message = format!("committed {committed}, but was told {}", member.told);
        member.give_up(Status::Internal, message, effects);
        return;
    }
    if has > window.last() {
        let message = format!("has up to {has}, but this primary only up to {}", window.last());
        member.give_up(Status::Internal, message, effects);
        return;
    }
    member.establish(session);
    member.acknowledged = member.acknowledged.max(committed);
    member.sent = has;
    core.counters.resent += window.prepared().0.saturating_sub(has.0);
    send_prepares(member, core, effects);
}

/// The member misses what was sent before: it is sent again from there.
fn on_gap(member: &mut Progress, core: &mut Core, next_decree: Decree, effects: &mut Vec<Effect>) {
    core.counters.refusals_received += 1;
    let has = next_decree.previous();
    if next_decree == Decree(0) || has < member.acknowledged || has > member.sent {
        let message = format!("needs {next_decree} after it acknowledged {}; it has to learn", member.acknowledged);
        member.give_up(Status::Gap, message, effects);
        return;
    }
    core.counters.resent += member.sent.0 - has.0;
    member.sent = has;
    send_prepares(member, core, effects);
}
