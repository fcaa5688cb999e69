//! The meta service of a script: the configuration in force, what nodes reported of their copies, and who may change
//! what.

use std::collections::{BTreeMap, BTreeSet};

use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Ballot, Configuration, Decree, NodeId};

const MEMBERS_MAX: usize = 3;

/// What it keeps.
#[derive(Default)]
pub(crate) struct Meta {
    pub(crate) configuration: Configuration,
    /// What registered nodes said of their copies when they started.
    pub(crate) reports: BTreeMap<NodeId, Report>,
}

/// A copy as its node reported it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Report {
    pub(crate) ballot: Ballot,
    pub(crate) last: Decree,
    pub(crate) state: ReplicaState,
}

impl Meta {
    /// The answer to a proposal: what is in force, accepted or in conflict; `None` if it is refused.
    pub(crate) fn propose(
        &mut self,
        proposer: NodeId,
        expected: Ballot,
        mut wanted: Configuration,
    ) -> Option<Configuration> {
        wanted.secondaries.sort_unstable();
        if wanted != self.configuration && expected == self.configuration.ballot {
            if !self.allows(proposer, &wanted) {
                return None;
            }
            self.install(wanted);
        }
        Some(self.configuration.clone())
    }

    /// An operator makes a node the primary, whatever it thinks of that.
    pub(crate) fn force(&mut self, primary: NodeId) {
        let others = self.configuration.members().filter(|node| *node != primary);
        let mut secondaries: Vec<NodeId> = others.collect();
        secondaries.sort_unstable();
        let ballot = self.configuration.ballot.next();
        self.install(Configuration { ballot, primary: Some(primary), secondaries });
    }

    fn install(&mut self, wanted: Configuration) {
        for report in self.reports.values_mut() {
            report.state = ReplicaState::Whole;
        }
        self.configuration = wanted;
    }

    fn allows(&self, proposer: NodeId, wanted: &Configuration) -> bool {
        let in_force = &self.configuration;
        let members: BTreeSet<NodeId> = wanted.members().collect();
        let Some(primary) = wanted.primary else { return false };
        let shaped = members.len() == wanted.members().count() && members.len() <= MEMBERS_MAX;
        let without = |node: Option<NodeId>| -> BTreeSet<NodeId> {
            in_force.members().filter(|member| Some(*member) != node).collect()
        };
        let by_primary = in_force.primary == Some(proposer);
        let change = if by_primary && primary == proposer {
            members.iter().all(|node| in_force.contains(*node) || self.reports.contains_key(node))
        } else if by_primary {
            let leaves = !members.contains(&proposer);
            in_force.secondaries.contains(&primary) && members == without(leaves.then_some(proposer))
        } else {
            primary == proposer && in_force.contains(proposer) && members == without(in_force.primary)
        };
        shaped && change && self.is_fit(primary)
    }

    /// An uncertain copy leads only if all members are uncertain and none has more.
    fn is_fit(&self, primary: NodeId) -> bool {
        match self.reports.get(&primary).map(|report| report.state) {
            None | Some(ReplicaState::Whole) => true,
            Some(ReplicaState::Uncertain) => {
                let reports: Option<Vec<(Report, NodeId)>> =
                    self.configuration.members().map(|node| Some((*self.reports.get(&node)?, node))).collect();
                let uncertain = |(report, _): &(Report, NodeId)| report.state == ReplicaState::Uncertain;
                let all = reports.filter(|all| all.iter().all(uncertain));
                all.and_then(|all| all.into_iter().max()).is_some_and(|(_, newest)| newest == primary)
            }
            Some(_) => false,
        }
    }
}
