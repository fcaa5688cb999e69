//! Leases, and who leaves: what a primary may still do, and what it asks the meta service for.
//!
//! A lease of a member runs from the *sending* of the last beacon it granted. A primary serves while it has the lease
//! of every member. A member whose lease lapsed, or that leaves a prepare waiting too long, is removed; the writes
//! that wait for it are acknowledged only under the new configuration.
//!
//! A removal that would leave fewer members than new writes need is put off by a grace period: if it is this primary
//! that is cut off, the others take over first.

use pegasus_wire::{Ballot, Configuration, Decree, NodeId};

use crate::bugs::PlantedBug;
use crate::describe::Phase;
use crate::effect::Effect;
use crate::primary::Primary;
use crate::progress::Progress;
use crate::shared::Core;
use crate::timing::Moment;

/// How many leases long a new partition's members may take to make their empty copies.
pub(crate) const CREATION_LEASES: u64 = 5;

/// What a primary wants said to a member in the next beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeaconTarget {
    /// The member or learner.
    pub peer: NodeId,
    /// The ballot under which the lease is asked for.
    pub ballot: Ballot,
    /// The commit point.
    pub committed: Decree,
}

impl Primary {
    /// True while every member's lease runs, and that of a learner whose addition is proposed.
    pub(crate) fn holds_leases(&self, core: &Core, now: Moment) -> bool {
        let lease = core.limits.timing.lease_micros;
        let hasty = core.bugs.has(PlantedBug::NewPrimaryStartsWithLease).then_some(self.taken_at);
        let runs = |member: &Progress| member.lease_from.max(hasty).is_some_and(|from| now < from.after(lease));
        core.bugs.has(PlantedBug::ServesAfterLease) || self.members.iter().chain(self.joining(core)).all(runs)
    }

    /// A member answered a beacon.
    pub(crate) fn on_beacon_answered(
        &mut self,
        core: &mut Core,
        peer: NodeId,
        ballot: Ballot,
        sent_at: Moment,
        granted: bool,
    ) {
        if !granted {
            core.counters.beacons_refused += 1;
            return;
        }
        let sent_at = if core.bugs.has(PlantedBug::LeaseFromAnswer) { core.now } else { sent_at };
        if ballot == core.ballot()
            && let Some(member) = self.progress(peer)
            && member.joined
        {
            member.grant(sent_at);
        }
    }

    /// Whom to send a beacon now. A primary that could not serve for a whole grace period asks for no more leases, so
    /// that others may take over; the next ballot, if it gets one, starts afresh. While a new partition is created,
    /// nobody serves anyway.
    pub(crate) fn beacons<'a>(&'a self, core: &'a Core, now: Moment) -> impl Iterator<Item = BeaconTarget> + 'a {
        let hopeful = now < self.served_at.after(core.limits.timing.grace_micros);
        let speaks = match self.phase {
            Phase::Creating => true,
            Phase::Reconciling | Phase::Serving => hopeful,
            _ => false,
        };
        let (ballot, committed) = (core.ballot(), core.window.committed());
        let asked = self.members.iter().chain(&self.learners).filter(move |member| speaks && member.joined);
        asked.map(move |member| BeaconTarget { peer: member.node, ballot, committed })
    }

    /// Proposes a configuration without the members that have to leave, if there are any. Called on ticks.
    pub(crate) fn change_members(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        if core.proposal.is_some() {
            return self.withdraw(core, effects);
        }
        let late: Vec<&Progress> = self.members.iter().filter(|member| self.is_late(core, member, 0)).collect();
        let enough = 1 + self.members.len() - late.len() >= core.min_members();
        let patience = if enough { 0 } else { core.limits.timing.grace_micros };
        let leave: Vec<NodeId> = late
            .into_iter()
            .filter(|member| enough || self.is_late(core, member, patience))
            .map(|member| member.node)
            .collect();
        if leave.is_empty() {
            return;
        }
        core.counters.removals += leave.len() as u64;
        let mut configuration = Configuration { ballot: core.ballot().next(), ..core.configuration.clone() };
        configuration.secondaries.retain(|node| !leave.contains(node));
        core.propose(configuration, effects);
    }

    /// True if a member has to leave, and would have had to `patience` ago already. One that says that it cannot follow
    /// cannot take over either, unless it only stops: for the others nothing is gained by waiting.
    fn is_late(&self, core: &Core, member: &Progress, patience: u64) -> bool {
        let timing = &core.limits.timing;
        let lease = if self.phase == Phase::Creating { CREATION_LEASES } else { 1 } * timing.lease_micros;
        let lapses = member.lease_from.unwrap_or(self.taken_at).max(self.taken_at).after(lease);
        let waits = member.waits_since().map(|since| since.after(timing.prepare_timeout_micros));
        let due = waits.map_or(lapses, |waits| waits.min(lapses));
        member.unfit && (patience == 0 || !member.stops()) || core.now >= due.after(patience)
    }

    /// True if the role is on its way to another member: until the outcome is known, nothing is served here.
    pub(crate) fn has_proposed_hand_over(&self, core: &Core) -> bool {
        core.proposal.as_ref().is_some_and(|proposal| proposal.leads_away_from(core.node()))
    }

    /// A learner whose addition is proposed, or a member that is to lead, is gone, and the meta service did not answer:
    /// it may be that it cannot accept that any more. Asks for the same members as now; until either is in force, what
    /// was asked for first still holds here.
    fn withdraw(&self, core: &mut Core, effects: &mut Vec<Effect>) {
        let Some(proposal) = core.proposal.as_ref().filter(|proposal| proposal.may_be_withdrawn()) else { return };
        let leader = proposal.configuration.primary;
        let successor = self.members.iter().find(|member| Some(member.node) == leader);
        if self.joining(core).or(successor).is_some_and(|awaited| self.is_late(core, awaited, 0)) {
            let configuration = Configuration { ballot: core.ballot().next(), ..core.configuration.clone() };
            core.propose_beside(configuration, effects);
        }
    }

    /// Once everything is answered, asks for a configuration led by another member. If there is nobody to hand over to,
    /// or it takes longer than a member may leave a prepare waiting, this primary goes on.
    pub(crate) fn propose_hand_over(&mut self, core: &mut Core, effects: &mut Vec<Effect>) {
        if core.proposal.is_some() || self.phase != Phase::Serving {
            return;
        }
        let patience = core.limits.timing.prepare_timeout_micros;
        if self.members.is_empty() || self.handing_over.is_some_and(|since| core.now >= since.after(patience)) {
            self.handing_over = None;
            return;
        }
        if core.window.len() > 0 {
            return;
        }
        if let Some(mut configuration) = self.successor(core) {
            configuration.secondaries.push(core.node());
            core.counters.hand_overs += 1;
            core.propose(configuration, effects);
        }
    }

    /// The storage of this node failed: asks once, without waiting for an answer, that another member lead. If that is
    /// lost, a secondary takes over when its grace period ends.
    pub(crate) fn abdicate(&self, core: &mut Core, effects: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Reconciling | Phase::Serving) {
            return;
        }
        if let Some(mut configuration) = self.successor(core) {
            // It stays a member: this copy has everything, and whether the successor is still there is not known. Its
            // refusal tells the new primary that nobody serves here; then it is removed.
            configuration.secondaries.push(core.node());
            core.counters.hand_overs += 1;
            effects.push(Effect::ProposeConfiguration { expected_ballot: core.ballot(), configuration });
        }
    }

    /// The configuration led by the first member that is here, without this node.
    fn successor(&self, core: &Core) -> Option<Configuration> {
        let lease = core.limits.timing.lease_micros;
        let present = |member: &&Progress| {
            member.is_established() && member.lease_from.is_some_and(|from| core.now < from.after(lease))
        };
        let next = self.members.iter().find(present)?.node;
        let mut secondaries = core.configuration.secondaries.clone();
        secondaries.retain(|node| *node != next);
        Some(Configuration { ballot: core.ballot().next(), primary: Some(next), secondaries })
    }
}
