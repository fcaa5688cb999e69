//! The secondary: logs what its primary prepares, acknowledges what is logged, applies what is committed.
//!
//! ```text
//!   Waiting --Establish--> Truncating --logged--> Storing --stored--> Following
//!      ^                    (if a tail is stale)   (if the ballot is new)   |
//!      +------------------------- stream closed ---------------------------+
//! ```
//!
//! Taking a ballot is in `reconcile.rs`; this file is the normal case.

use bytes::Bytes;
use pegasus_wire::messages::peer::{Acknowledge, CommitPoint, Establish, Prepare};
use pegasus_wire::{Decree, Mutation, NodeId, Status, limits};

use crate::bugs::PlantedBug;
use crate::describe::Phase;
use crate::effect::Effect;
use crate::event::{PeerMessage, Session};
use crate::shared::{Core, Refusal, mutation_kind};

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
#[derive(Clone, Debug, Default)]
pub(crate) struct Secondary {
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
    pub(crate) fn phase(&self, core: &Core) -> Phase {
        match (self.following, self.establishing.is_some()) {
            (true, _) => Phase::Following,
            (false, true) if core.is_truncating() => Phase::Truncating,
            (false, true) => Phase::Storing,
            (false, false) => Phase::Waiting,
        }
    }

    /// A newer configuration is in force in which this node is still a secondary. What is on the way under the old
    /// ballot is not taken any more; the stream stays if it is the new primary's.
    pub(crate) fn on_new_ballot(&mut self, core: &Core, effects: &mut Vec<Effect>) {
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
        match message {
            PeerMessage::Prepare { prepare, payload } => {
                if let Err(refusal) = self.on_prepare(core, prepare, payload, effects) {
                    core.refuse(peer, session, refusal, effects);
                }
            }
            PeerMessage::CommitPoint(point) => self.on_commit_point(core, point),
            PeerMessage::Establish(_)
            | PeerMessage::Established(_)
            | PeerMessage::Acknowledge(_)
            | PeerMessage::Refuse { .. } => core.counters.unexpected_messages += 1,
        }
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
