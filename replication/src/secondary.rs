//! The secondary: logs what its primary prepares, acknowledges what is logged, applies what is committed.
//!
//! ```text
//!   Waiting --Establish--> Truncating --logged--> Storing --stored--> Following
//!     ^  ^                  (if a tail is stale)   (if the ballot is new)  |  |
//!     |  +------------------------ stream closed -------------------------+  |
//!     |                                                                      |
//!     +--another is in force-- Claiming <----- grace period over ------------+
//!                                 | own configuration in force
//!                                 v
//!                           primary, Storing
//! ```
//!
//! A secondary that heard nothing of its primary for a whole grace period claims its place. From then on it takes
//! nothing from that primary, and grants it nothing, until it knows what came of the claim.
//!
//! A **learner** is the same without being a member: it keeps only what it knows to be committed when it begins, and
//! never claims anything. Taking a ballot is in `reconcile.rs`; this file is the normal case.

use bytes::Bytes;
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::peer::{Acknowledge, CommitPoint, Establish, Prepare, TakeCheckpoint};
use pegasus_wire::{Ballot, Configuration, Decree, Mutation, NodeId, Status, limits};

use crate::bugs::PlantedBug;
use crate::changes::CREATION_LEASES;
use crate::describe::Phase;
use crate::effect::Effect;
use crate::event::{PeerMessage, Session};
use crate::shared::{Core, Refusal, mutation_kind};
use crate::timing::Moment;

/// Pause before a checkpoint that could not be had is tried again, in ticks.
const CHECKPOINT_PAUSE_TICKS: u32 = 10;

/// The stream from the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) peer: NodeId,
    pub(crate) session: Session,
    /// False once it was closed; kept to recognise streams older than it.
    pub(crate) open: bool,
}

/// State of the role.
///
/// Invariants:
/// - nothing is acknowledged that is not logged under the current ballot, or committed
/// - `Established` is sent only when the truncation is logged and the ballot is stored
/// - between a claim and its outcome nothing of the old primary is taken and no beacon is granted
#[derive(Clone, Debug)]
pub(crate) struct Secondary {
    /// True for a node that is taught and is no member yet.
    pub(crate) learner: bool,
    /// When anything of the primary was last accepted, or the role was taken. The grace period runs from here.
    pub(crate) heard: Moment,
    /// True while a checkpoint is being fetched.
    pub(crate) fetching: bool,
    /// After a checkpoint could not be had: ticks until the primary is asked what to do.
    pub(crate) pause_ticks: u32,
    pub(crate) upstream: Option<Upstream>,
    /// The ballot that is being taken: not answered yet.
    pub(crate) establishing: Option<Box<Establish>>,
    /// What the primary said is committed; may be ahead of what is confirmed here.
    pub(crate) told: Decree,
    /// True once the current ballot was answered on this stream.
    pub(crate) following: bool,
    /// The last decree acknowledged on this stream.
    pub(crate) acknowledged: Decree,
    /// The first decree this copy lacks of what its primary says is committed. Until it can learn, it cannot follow.
    pub(crate) missing: Option<Decree>,
    /// True once a gap was reported; said once per gap, however many prepares follow it.
    pub(crate) gap_reported: bool,
}

impl Secondary {
    pub(crate) fn new(core: &Core, learner: bool) -> Secondary {
        let grace_micros = core.limits.timing.grace_micros;
        let hasty = core.bugs.has(PlantedBug::TakesOverAtOnce);
        Secondary {
            learner,
            heard: if hasty { Moment(core.now.0.saturating_sub(grace_micros)) } else { core.now },
            fetching: false,
            pause_ticks: 0,
            upstream: None,
            establishing: None,
            told: Decree(0),
            following: false,
            acknowledged: Decree(0),
            missing: None,
            gap_reported: false,
        }
    }

    pub(crate) fn phase(&self, core: &Core) -> Phase {
        match (self.following, self.establishing.is_some()) {
            _ if core.proposal.is_some() => Phase::Claiming,
            _ if self.fetching => Phase::Fetching,
            (true, _) => Phase::Following,
            (false, true) if core.is_truncating() => Phase::Truncating,
            (false, true) => Phase::Storing,
            (false, false) => Phase::Waiting,
        }
    }

    /// A newer configuration is in force in which this node is still a secondary. What is on the way under the old
    /// ballot is not taken any more; the stream stays if it is the new primary's.
    pub(crate) fn on_new_ballot(&mut self, core: &Core, effects: &mut Vec<Effect>) {
        self.heard = core.now;
        self.learner = false;
        self.establishing = None;
        self.following = false;
        let primary = core.configuration.primary;
        if self.upstream.is_some_and(|upstream| Some(upstream.peer) != primary) {
            self.close(effects);
        }
    }

    pub(crate) fn on_stream_closed(&mut self, peer: NodeId, session: Session) {
        if let Some(upstream) = &mut self.upstream
            && (upstream.peer, upstream.session) == (peer, session)
        {
            upstream.open = false;
            self.establishing = None;
            self.following = false;
        }
    }

    /// A message of the primary, other than `Establish`.
    pub(crate) fn on_message(
        &mut self,
        core: &mut Core,
        peer: NodeId,
        session: Session,
        message: PeerMessage,
        effects: &mut Vec<Effect>,
    ) {
        let current = Upstream { peer, session, open: true };
        if self.upstream != Some(current) && !core.bugs.has(PlantedBug::OlderBallotAccepted) {
            core.counters.superseded_messages += 1;
            return;
        }
        self.heard = core.now;
        match message {
            PeerMessage::Prepare { prepare, payload } => {
                if let Err(refusal) = self.on_prepare(core, prepare, payload, effects) {
                    core.refuse(peer, session, refusal, effects);
                }
            }
            PeerMessage::CommitPoint(point) => self.on_commit_point(core, point),
            PeerMessage::TakeCheckpoint(take) => self.on_take_checkpoint(core, peer, take, effects),
            PeerMessage::Establish(_)
            | PeerMessage::Established(_)
            | PeerMessage::Acknowledge(_)
            | PeerMessage::Refuse { .. } => core.counters.unexpected_messages += 1,
        }
    }

    /// True if a beacon of this primary under this ballot is granted.
    pub(crate) fn grants_beacon(&self, core: &Core, peer: NodeId, ballot: Ballot) -> bool {
        let claims = core.proposal.is_some();
        if claims && core.bugs.has(PlantedBug::BeaconsGrantedAfterClaim) {
            return ballot == core.ballot() && core.configuration.primary == Some(peer);
        }
        let led = self.upstream.is_some_and(|upstream| upstream.open && upstream.peer == peer);
        !claims && led && self.following && ballot == core.ballot()
    }

    /// A beacon: if it is granted, the grace period starts again and the commit point is taken.
    pub(crate) fn on_beacon(&mut self, core: &mut Core, peer: NodeId, ballot: Ballot, committed: Decree) {
        if self.grants_beacon(core, peer, ballot) {
            if core.proposal.is_none() {
                core.grant(peer);
            }
            self.heard = core.now;
            self.told = self.told.max(committed);
        }
    }

    /// Time passes: claims the primary's place if that was silent for too long.
    pub(crate) fn on_tick(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        core.retry_proposal(effects);
        self.end_pause(effects);
        let timing = &core.limits.timing;
        // A new partition's primary waits long for the others to make their copies, and may be making its own.
        let creating = core.ballot() == Ballot::ASSIGNMENT;
        let patience = if creating { CREATION_LEASES * timing.lease_micros } else { 0 };
        let silent = core.now >= self.heard.after(timing.grace_micros + patience);
        let may = !self.learner && core.state != ReplicaState::Learning && core.proposal.is_none();
        if !silent || !may || !core.configuration.secondaries.contains(&core.node()) {
            return;
        }
        self.close(effects);
        let node = core.node();
        let mut secondaries = core.configuration.secondaries.clone();
        secondaries.retain(|secondary| *secondary != node);
        core.propose(Configuration { ballot: core.ballot().next(), primary: Some(node), secondaries }, effects);
    }

    /// The checkpoint could not be had. After a pause the stream is closed; the primary opens another one, and says
    /// again what to do.
    pub(crate) fn on_checkpoint_failed(&mut self) {
        if self.fetching {
            self.fetching = false;
            self.pause_ticks = CHECKPOINT_PAUSE_TICKS;
        }
    }

    fn end_pause(&mut self, effects: &mut Vec<Effect>) {
        if self.pause_ticks > 0 {
            self.pause_ticks -= 1;
            if self.pause_ticks == 0 {
                self.close(effects);
            }
        }
    }

    fn on_take_checkpoint(&mut self, core: &mut Core, peer: NodeId, take: TakeCheckpoint, effects: &mut Vec<Effect>) {
        let waits = self.fetching || self.pause_ticks > 0;
        if !self.learner || !self.following || waits || take.ballot != core.ballot() {
            core.counters.unexpected_messages += 1;
            return;
        }
        self.fetching = true;
        effects.push(Effect::FetchCheckpoint { from: peer, ballot: take.ballot, committed: take.committed });
    }

    /// Commits what may be committed and acknowledges what may be acknowledged. Called after every event.
    pub(crate) fn settle(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        let Some(Upstream { peer, session, open: true }) = self.upstream else { return };
        if !self.following {
            return;
        }
        core.window.commit(self.told);
        let logged = self.acknowledgeable(core);
        if logged > self.acknowledged {
            self.acknowledged = logged;
            let message = PeerMessage::Acknowledge(Acknowledge { ballot: core.ballot(), logged });
            effects.push(Effect::Send { peer, session, message });
        }
    }

    /// What is logged, unless applying falls behind: then acknowledgements wait, which holds the primary back, and so
    /// the window of this member stays bounded too.
    fn acknowledgeable(&self, core: &Core) -> Decree {
        if core.bugs.has(PlantedBug::AcknowledgedBeforeLogged) {
            return core.window.prepared();
        }
        let window = &core.window;
        let (applied, confirmed) = (window.applied(), window.confirmed());
        let fits = |decree: Decree| {
            decree.0 - applied.0 <= core.limits.window_mutations_max as u64
                && window.bytes_between(applied, decree) <= core.limits.window_bytes_max
        };
        if fits(confirmed) {
            return confirmed;
        }
        let mut logged = self.acknowledged.max(window.committed());
        while logged < confirmed && (logged == applied || fits(logged.next())) {
            logged = logged.next();
        }
        logged
    }

    fn on_commit_point(&mut self, core: &mut Core, point: CommitPoint) {
        if !self.following || point.ballot != core.ballot() {
            core.counters.unexpected_messages += 1;
            return;
        }
        self.told = self.told.max(point.committed);
    }

    fn on_prepare(
        &mut self,
        core: &mut Core,
        prepare: Prepare,
        payload: Bytes,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let careless = core.bugs.has(PlantedBug::OlderBallotAccepted);
        if prepare.ballot < core.ballot() && !careless {
            let message = format!("prepared under ballot {}, here it is {}", prepare.ballot, core.ballot());
            return Err(Refusal::new(Status::StaleBallot, message));
        }
        if prepare.ballot > core.ballot() || !(self.following || careless) {
            return Err(Refusal::new(Status::InvalidArgument, "a prepare before its ballot was established"));
        }
        let kind = mutation_kind(prepare.mutation_kind)?;
        let next = core.window.prepared().next();
        if prepare.decree > next {
            return self.on_gap(core, prepare.decree);
        }
        let mutation = Mutation {
            ballot: prepare.ballot,
            decree: prepare.decree,
            timestamp_micros: prepare.timestamp_micros,
            kind,
            payload,
        };
        if prepare.decree < next {
            return self.on_duplicate(core, &mutation, careless);
        }
        check_room(core, &mutation)?;
        self.gap_reported = false;
        self.told = self.told.max(prepare.committed);
        core.window.commit(self.told);
        core.append(mutation, None, effects);
        Ok(())
    }

    /// Said once: the primary goes back to the missing decree, and what is still on the way is ignored.
    fn on_gap(&mut self, core: &mut Core, decree: Decree) -> Result<(), Refusal> {
        if self.gap_reported {
            return Ok(());
        }
        self.gap_reported = true;
        let next = core.window.prepared().next();
        Err(Refusal::gap(next, format!("prepare {decree} leaves a gap, {next} is next")))
    }

    /// Nothing to log; the acknowledgement is said again, in case it was lost with an earlier stream.
    fn on_duplicate(&mut self, core: &mut Core, mutation: &Mutation, careless: bool) -> Result<(), Refusal> {
        core.counters.duplicates += 1;
        let differs = core
            .window
            .get(mutation.decree)
            .is_some_and(|entry| mutation.decree > core.window.committed() && entry.mutation != *mutation);
        if differs && !careless {
            let message = format!("prepare {} differs from the one of the same ballot before it", mutation.decree);
            return Err(Refusal::new(Status::InvalidArgument, message));
        }
        self.acknowledged = self.acknowledged.min(mutation.decree.previous());
        Ok(())
    }

    pub(crate) fn close(&mut self, effects: &mut Vec<Effect>) {
        if let Some(upstream) = &mut self.upstream
            && upstream.open
        {
            upstream.open = false;
            effects.push(Effect::CloseStream { peer: upstream.peer, session: upstream.session });
        }
        self.establishing = None;
        self.following = false;
    }
}

/// A primary that keeps to its own bounds and to the acknowledgements never sends more than this.
fn check_room(core: &Core, mutation: &Mutation) -> Result<(), Refusal> {
    if mutation.payload.len() > limits::WRITE_BYTES_MAX {
        return Err(Refusal::new(Status::TooLarge, "a payload over write_bytes_max"));
    }
    let known = mutation.decree <= core.window.last();
    let count_max = 3 * core.limits.window_mutations_max;
    let bytes_max = 3 * core.limits.window_bytes_max;
    let fits = core.window.len() < count_max && core.window.bytes() + mutation.payload.len() as u64 <= bytes_max;
    if known || fits || core.window.len() == 0 {
        return Ok(());
    }
    Err(Refusal::new(Status::Busy, "more is prepared than the window of a member holds"))
}
