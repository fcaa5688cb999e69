//! How a member takes a ballot: check, drop the stale tail, store the ballot, answer.
//!
//! Each step is durable before the next, and only the last one is visible to the primary. A still higher ballot may
//! arrive at any point between; the steps then begin again with it, and what was already durable stays valid.

use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::peer::{Establish, Established};
use pegasus_wire::{Ballot, Decree, NodeId, Status};

use crate::bugs::PlantedBug;
use crate::effect::Effect;
use crate::event::{PeerMessage, Session};
use crate::secondary::{Secondary, Upstream};
use crate::shared::{Core, Refusal, same_configuration};

/// Why an `Establish` is not taken.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// The sender is told, and nothing else happens.
    Refused(Refusal),
    /// It contradicts what this copy knows to be committed: somewhere committed data was lost. The replica stops.
    Broken(String),
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Rejection {
        Rejection::Refused(refusal)
    }
}

/// Checks an `Establish` against everything this copy knows, whatever its role. Changes nothing.
pub(crate) fn check_establish(core: &Core, peer: NodeId, establish: &Establish) -> Result<(), Rejection> {
    check_sender(core, peer, establish)?;
    let ballot = establish.configuration.ballot;
    if ballot == Ballot(u64::MAX) {
        return Err(Refusal::new(Status::InvalidArgument, "no ballot can follow this one").into());
    }
    let known = core.ballot().max(core.promised);
    if ballot < known {
        let message = format!("established ballot {ballot}, here it is {known}");
        return Err(Refusal::new(Status::StaleBallot, message).into());
    }
    if core.proposal.is_some() && ballot == core.ballot() {
        return Err(Refusal::new(Status::NotServing, "this secondary has asked to take the primary's place").into());
    }
    if ballot == core.ballot() && !same_configuration(&establish.configuration, &core.configuration) {
        let message = format!("ballot {ballot} has two configurations");
        return Err(Refusal::new(Status::InvalidArgument, message).into());
    }
    let window = &core.window;
    let (committed, last_decree) = (window.committed(), establish.last_decree);
    let stale = window.first_stale(last_decree, ballot);
    let loses = (ballot > core.stored.0 && last_decree < committed) || stale.is_some_and(|cut| cut <= committed);
    if loses {
        return Err(Rejection::Broken(format!(
            "the primary of ballot {ballot} has nothing beyond {last_decree}, but {committed} is committed here"
        )));
    }
    if !establish.configuration.contains(core.node()) {
        return Ok(());
    }
    let kept_last = stale.map_or(window.last(), Decree::previous);
    if !window.is_logged_through(establish.committed.min(kept_last)) || kept_last < establish.committed {
        let message = format!("{} is committed, this copy has only {kept_last}; it has to learn", establish.committed);
        return Err(Refusal::gap(kept_last.next(), message).into());
    }
    Ok(())
}

fn check_sender(core: &Core, peer: NodeId, establish: &Establish) -> Result<(), Refusal> {
    let configuration = &establish.configuration;
    let invalid = |message: &str| Err(Refusal::new(Status::InvalidArgument, message));
    if establish.cluster != core.identity.cluster {
        return Err(Refusal::new(Status::WrongCluster, "the primary belongs to another cluster"));
    }
    if establish.receiver != core.node() {
        let message = format!("meant for node {}, this is node {}", establish.receiver, core.node());
        return Err(Refusal::new(Status::StaleRoute, message));
    }
    if establish.partition != core.identity.partition {
        return invalid("the stream was routed to another partition");
    }
    if establish.sender != peer || configuration.primary != Some(peer) {
        return invalid("the sender is not the primary of its configuration");
    }
    if peer == core.node() {
        return invalid("a primary does not follow itself");
    }
    Ok(())
}

impl Secondary {
    /// A checked `Establish`. It supersedes an older stream and an older ballot.
    pub(crate) fn on_establish(
        &mut self,
        core: &mut Core,
        peer: NodeId,
        session: Session,
        establish: Box<Establish>,
        effects: &mut Vec<Effect>,
    ) {
        let upstream = Upstream { peer, session, open: true };
        if self.upstream != Some(upstream) {
            self.close(effects);
            self.upstream = Some(upstream);
        }
        self.following = false;
        self.fetching = false;
        self.pause_ticks = 0;
        self.heard = core.now;
        self.learner = !establish.configuration.contains(core.node());
        core.adopt(establish.configuration.clone());
        if core.state == ReplicaState::Uncertain && !self.learner {
            return self.say_uncertain(core, upstream, effects);
        }
        // A learner keeps nothing of lower ballots that it does not know to be committed. A member keeps it up to what
        // the primary has: it may have been committed.
        let kept = if self.learner { core.window.committed() } else { establish.last_decree };
        if self.learner {
            core.state = ReplicaState::Learning;
        } else if core.state == ReplicaState::Learning {
            core.state = ReplicaState::Whole;
        }
        let stale = core.window.first_stale(kept, core.ballot());
        if let Some(decree) = stale
            && !core.bugs.has(PlantedBug::StaleTailNotTruncated)
        {
            core.truncate_from(decree, effects);
        }
        self.establishing = Some(establish);
        self.advance_establishing(core, effects);
    }

    /// A member that may have lost what it acknowledged promises nothing and takes nothing; the primary removes it. Its
    /// descriptor keeps the ballot under which it was last whole: by that one the newest of such copies is found,
    /// should there be no others.
    fn say_uncertain(&self, core: &Core, upstream: Upstream, effects: &mut Vec<Effect>) {
        let committed = core.window.committed();
        let answer = Established { ballot: core.ballot(), next_decree: committed.next(), committed, uncertain: true };
        let Upstream { peer, session, .. } = upstream;
        effects.push(Effect::Send { peer, session, message: PeerMessage::Established(answer) });
    }

    /// True if a stream is older than the one this member listens to.
    pub(crate) fn is_superseded(&self, peer: NodeId, session: Session) -> bool {
        self.upstream.is_some_and(|upstream| upstream.peer == peer && session < upstream.session)
    }

    /// Takes the next step if the one before is durable. Called after `Logged` and `DescriptorStored`.
    pub(crate) fn advance_establishing(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        if core.is_truncating() || self.establishing.is_none() {
            return;
        }
        core.store_descriptor(effects);
        if core.is_stored() || core.bugs.has(PlantedBug::BallotNotStored) {
            let establish = self.establishing.take().expect("checked above");
            self.answer(core, &establish, effects);
        }
    }

    /// The ballot is taken. What this member still needs begins after what it knows to be committed, or after what it
    /// already has of this very ballot.
    fn answer(&mut self, core: &mut Core, establish: &Establish, effects: &mut Vec<Effect>) {
        let ballot: Ballot = core.ballot();
        let own = core.window.committed();
        let base = if self.learner { own } else { own.max(establish.committed) };
        core.window.begin_ballot(ballot, base);
        core.window.commit(establish.committed);
        self.told = establish.committed;
        self.acknowledged = core.window.committed();
        self.gap_reported = false;
        self.following = true;
        self.missing = None;
        let upstream = self.upstream.expect("a ballot is taken on a stream");
        core.grant(upstream.peer);
        let answer = Established {
            ballot,
            next_decree: core.window.prepared().next(),
            committed: core.window.committed(),
            uncertain: false,
        };
        let message = PeerMessage::Established(answer);
        effects.push(Effect::Send { peer: upstream.peer, session: upstream.session, message });
    }
}
