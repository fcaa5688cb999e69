//! Teaching: bringing a node that is no member up to the window, so that it can become one.
//!
//! ```text
//!   asked by the meta service
//!        |
//!        v   Established: it has up to d, all committed
//!     Opening ---------------------------------+
//!        ^                                     v
//!        |                    +--- d + 1 is in memory: prepares, as for a member ------+
//!        |   new stream,      |                                                        v
//!        |   higher d         +--- it is in the log: read it, send prepares ----> has acknowledged
//!        |                    |                                                   the commit point
//!        +--- takes a <-------+--- it is in neither                                    |
//!             checkpoint                                                               v
//!                                                                          its addition is proposed
//! ```
//!
//! A learner grants no lease until its addition is proposed, and gates commits only for a moment before that; from then
//! on it does both, until the outcome is known. While somebody is taught, what is applied stays in memory for a while
//! ([`crate::window::Window::retain_from`]), so that a learner that reads from the log can catch up with writes that go
//! on.

use pegasus_wire::messages::peer::TakeCheckpoint;
use pegasus_wire::{Ballot, Configuration, Decree, Mutation, NodeId, Status, limits};

use crate::bugs::PlantedBug;
use crate::describe::Phase;
use crate::effect::Effect;
use crate::event::{PeerMessage, Session};
use crate::members::{send_prepare, send_prepares};
use crate::primary::Primary;
use crate::progress::{CatchUp, Progress};
use crate::shared::Core;

/// Attempts to reach a learner before it is left alone; the meta service asks again if it still wants it.
const ATTEMPTS_MAX: u32 = 6;

impl Primary {
    /// The meta service asks for another member.
    pub(crate) fn add_member(&mut self, core: &Core, ballot: Ballot, node: NodeId, effects: &mut Vec<Effect>) {
        let wanted = ballot == core.ballot()
            && matches!(self.phase, Phase::Reconciling | Phase::Serving)
            && !core.configuration.contains(node)
            && self.learners.iter().all(|learner| learner.node != node)
            && self.learners.len() < core.limits.learners_max
            && self.has_room(core);
        if wanted {
            let mut learner = Progress::new(node);
            learner.open(effects);
            self.learners.push(learner);
        }
    }

    /// True if the partition has fewer members than it should have.
    fn has_room(&self, core: &Core) -> bool {
        let wanted = usize::from(core.identity.table.replica_count).min(limits::MEMBERS_MAX);
        1 + self.members.len() < wanted
    }

    /// The learner whose addition is proposed.
    pub(crate) fn joining(&self, core: &Core) -> Option<&Progress> {
        let proposal = core.proposal.as_ref()?;
        self.learners.iter().find(|learner| proposal.names(learner.node))
    }

    /// The log was read for a learner.
    pub(crate) fn on_log_read(
        &mut self,
        core: &mut Core,
        peer: NodeId,
        session: Session,
        mutations: Option<Vec<Mutation>>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(learner) = self.progress(peer) else { return };
        if learner.session() != Some(session) || learner.catch_up != CatchUp::ReadingLog {
            return;
        }
        let Some(mutations) = mutations else {
            return tell_checkpoint(learner, core, session, effects);
        };
        // More than was asked for is not sent: the learner has no room for it.
        let wanted = core.limits.window_mutations_max;
        let mutations: Vec<Mutation> = mutations.into_iter().take(wanted).collect();
        let continues = mutations.iter().zip(learner.sent.0 + 1..).all(|(mutation, next)| mutation.decree.0 == next);
        let through = mutations.last().map_or(Decree(0), |mutation| mutation.decree);
        if !continues || through <= learner.sent || through > core.window.applied() {
            let message = format!("the log was read from {} and gave up to {through}", learner.sent.next());
            return learner.give_up(Status::Internal, message, effects);
        }
        core.counters.sent_from_log += mutations.len() as u64;
        learner.catch_up = CatchUp::None;
        learner.batch = learner.sent;
        for mutation in mutations {
            send_prepare(learner, core, session, mutation, effects);
        }
        send_prepares(learner, core, effects);
    }

    pub(crate) fn feed_learners(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        for learner in &mut self.learners {
            send_prepares(learner, core, effects);
        }
    }

    /// Keeps for learners what they need, sends what there is, and proposes one that has everything.
    pub(crate) fn settle_learners(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        let joining = self.joining(core).map(|learner| learner.node);
        let full = !self.has_room(core);
        self.learners.retain_mut(|learner| {
            let stays = Some(learner.node) == joining || !full && learner.failures() < ATTEMPTS_MAX;
            if !stays {
                learner.close(effects);
            }
            stays
        });
        let taught = self.learners.iter().filter(|learner| learner.is_established());
        match taught.map(|learner| learner.sent).min() {
            Some(sent) => core.window.retain_from(sent.next(), core.limits.flight_bytes_max),
            None => core.window.retain_none(),
        }
        self.feed_learners(core, effects);
        self.await_learner(core);
        self.propose_addition(core, effects);
    }

    /// A learner that is always a little later than every member would never have logged what is committed while
    /// writes go on. So once it was sent everything, commits wait for it too: for the next moment, and at most as long
    /// as a member may leave a prepare waiting.
    fn await_learner(&mut self, core: &Core) {
        if self.phase != Phase::Serving || core.proposal.is_some() || self.handing_over.is_some() {
            return;
        }
        let (prepared, now) = (core.window.prepared(), core.now);
        let arrived = |learner: &&mut Progress| {
            learner.is_established() && learner.catch_up == CatchUp::None && learner.sent == prepared
        };
        if let Some(learner) = self.learners.iter_mut().find(arrived) {
            learner.gating_since.get_or_insert(now);
        }
    }

    fn propose_addition(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        if self.phase != Phase::Serving || core.proposal.is_some() || self.handing_over.is_some() {
            return;
        }
        let committed = core.window.committed();
        let hasty = core.bugs.has(PlantedBug::LearnerPromotedWithGap);
        // From its proposal on its lease counts, so it must have one.
        let lapses = |learner: &Progress| learner.lease_from.map(|from| from.after(core.limits.timing.lease_micros));
        let ready = |learner: &&Progress| {
            let present = learner.is_established() && lapses(learner).is_some_and(|lapses| core.now < lapses);
            present && (hasty || learner.catch_up == CatchUp::None && learner.acknowledged >= committed)
        };
        let Some(learner) = self.learners.iter().find(ready) else { return };
        let mut secondaries = core.configuration.secondaries.clone();
        secondaries.push(learner.node);
        core.counters.additions += 1;
        let configuration =
            Configuration { ballot: core.ballot().next(), secondaries, primary: core.configuration.primary };
        core.propose(configuration, effects);
    }

    /// The lowest decree a learner may still need from the log.
    pub(crate) fn learner_floor(&self) -> Option<Decree> {
        let floors = self.learners.iter().filter(|learner| learner.floor > Decree(0));
        floors.map(|learner| learner.floor.max(learner.acknowledged.next())).min()
    }
}

/// Asks for what the learner needs next and memory does not hold. At most two batches are on the way to it, each of no
/// more mutations than a window, so that the learner has room for them.
pub(crate) fn ask_log(learner: &mut Progress, core: &Core, session: Session, effects: &mut Vec<Effect>) {
    if learner.acknowledged < learner.batch {
        return;
    }
    learner.catch_up = CatchUp::ReadingLog;
    let batch_last = Decree(learner.sent.0.saturating_add(core.limits.window_mutations_max as u64));
    let (from, through) = (learner.sent.next(), core.window.applied().min(batch_last));
    effects.push(Effect::ReadLog { peer: learner.node, session, from, through });
}

/// The log does not reach back far enough. What the checkpoint will not have begins after the commit point of now.
fn tell_checkpoint(learner: &mut Progress, core: &mut Core, session: Session, effects: &mut Vec<Effect>) {
    core.counters.checkpoints_told += 1;
    learner.catch_up = CatchUp::Checkpoint;
    let committed = core.window.applied();
    learner.floor = committed.next();
    let message = PeerMessage::TakeCheckpoint(TakeCheckpoint { ballot: core.ballot(), committed });
    effects.push(Effect::Send { peer: learner.node, session, message });
}
