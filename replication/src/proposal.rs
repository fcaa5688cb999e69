//! A configuration asked for, from the asking until it is known what came of it.
//!
//! An unanswered proposal may have been accepted. It is asked for again, unchanged, until an answer tells what is in
//! force; it must never be taken for refused. A replica has at most one, with one exception: what depends on a node
//! that is gone may never be accepted, so another configuration of the same ballot is asked for beside it, and
//! whichever comes into force decides both.

use pegasus_wire::{Ballot, Configuration, NodeId};

use crate::bugs::PlantedBug;
use crate::effect::Effect;
use crate::shared::{Core, same_configuration};

/// Longest pause between two attempts, in ticks.
const PAUSE_TICKS_MAX: u32 = 8;

/// A configuration asked for.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    pub(crate) configuration: Configuration,
    /// Asked for before, with the same ballot, and not decided either.
    earlier: Option<Configuration>,
    /// False once it is known that no answer will come to the last attempt.
    outstanding: bool,
    attempts: u32,
    pause_ticks: u32,
}

impl Proposal {
    fn new(configuration: Configuration, earlier: Option<Configuration>) -> Proposal {
        Proposal { configuration, earlier, outstanding: true, attempts: 1, pause_ticks: 0 }
    }

    /// True if the node is a member of what may come into force.
    pub(crate) fn names(&self, node: NodeId) -> bool {
        self.configuration.contains(node) || self.earlier.as_ref().is_some_and(|earlier| earlier.contains(node))
    }

    /// True if another node than this one may come to lead.
    pub(crate) fn leads_away_from(&self, node: NodeId) -> bool {
        let mut asked = [Some(&self.configuration), self.earlier.as_ref()].into_iter().flatten();
        asked.any(|asked| asked.primary != Some(node))
    }

    /// True if it had no answer, and nothing else was asked for beside it.
    pub(crate) fn may_be_withdrawn(&self) -> bool {
        !self.outstanding && self.earlier.is_none()
    }
}

impl Core {
    /// Asks for a configuration, which has the next ballot.
    pub(crate) fn propose(&mut self, configuration: Configuration, effects: &mut Vec<Effect>) {
        assert!(self.proposal.is_none(), "one proposal at a time");
        assert_eq!(configuration.ballot, self.ballot().next(), "a proposal has the next ballot");
        effects.push(ask(&configuration));
        self.proposal = Some(Proposal::new(configuration, None));
    }

    /// Asks for another configuration of the same ballot, beside the one asked for.
    pub(crate) fn propose_beside(&mut self, configuration: Configuration, effects: &mut Vec<Effect>) {
        let earlier = self.proposal.take().map(|proposal| proposal.configuration);
        effects.push(ask(&configuration));
        self.proposal = Some(Proposal::new(configuration, earlier));
    }

    /// True if this configuration was asked for.
    pub(crate) fn has_proposed(&self, configuration: &Configuration) -> bool {
        self.proposal.as_ref().is_some_and(|proposal| {
            let mut asked = [Some(&proposal.configuration), proposal.earlier.as_ref()].into_iter().flatten();
            asked.any(|asked| same_configuration(asked, configuration))
        })
    }

    /// No answer will come to the last attempt.
    pub(crate) fn proposal_unanswered(&mut self) {
        if self.bugs.has(PlantedBug::LostAnswerTakenAsRefusal) {
            self.proposal = None;
        }
        if let Some(proposal) = &mut self.proposal {
            proposal.outstanding = false;
            proposal.pause_ticks = PAUSE_TICKS_MAX.min(1 << (proposal.attempts - 1).min(8));
        }
    }

    /// Asks again, unchanged, if no answer will come and the pause is over. Called on ticks.
    pub(crate) fn retry_proposal(&mut self, effects: &mut Vec<Effect>) {
        let Some(proposal) = &mut self.proposal else { return };
        if proposal.outstanding {
            return;
        }
        proposal.pause_ticks = proposal.pause_ticks.saturating_sub(1);
        if proposal.pause_ticks == 0 {
            proposal.outstanding = true;
            proposal.attempts = proposal.attempts.saturating_add(1);
            effects.push(ask(&proposal.configuration));
        }
    }
}

fn ask(configuration: &Configuration) -> Effect {
    let expected_ballot = Ballot(configuration.ballot.0.saturating_sub(1));
    Effect::ProposeConfiguration { expected_ballot, configuration: configuration.clone() }
}
