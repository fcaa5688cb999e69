//! The guardian: who should join a partition that has too few members, and which copies are needed no more.
//!
//! A pure function of the state, of who has been heard of, and of limits. It keeps nothing between two calls, so the
//! same inputs give the same plan, on any server and after any restart. It must never change a configuration: it
//! asks the primary, which teaches the node and then proposes it.
//!
//! ```text
//! too few members?  no  -> nothing
//!   primary there?  no  -> wait for one
//!   a former member is back with a copy?         -> the most recent of them; one with a usable copy goes first
//!   another node holds a usable copy?            -> the newest one (mostly a learner that is half way)
//!   a former member has time left to return?     -> wait, unless the partition cannot take writes without another
//!   a node that is there, is no member, has room -> the one with the fewest copies
//!   else                                         -> wait for a node
//! ```
//!
//! Partitions of dropped tables are healed too: a recall promises every row, however many nodes are lost meanwhile.
//! They come after all others, and one that cannot take writes is in no haste. Copies of tables that were purged are
//! removed wherever they are, whatever their ballot.
//!
//! *Back* and *there* mean alive. A learner that is half way may be silent for [`Limits::reconnect_ms`]: it only
//! reconnects, and shall not be swapped for another one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use pegasus_wire::messages::control::{Addition, Removal, ReplicaState};
use pegasus_wire::{Ballot, Configuration, NodeId, PartitionId};

use super::command::Report;
use super::health::{Health, health_of, is_up};
use super::limits::PURGED_REMOVALS_MAX;
use super::placement::{Candidate, candidates};
use super::presence::Heard;
use super::state::State;

/// What the guardian keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a former member may be silent before its place is given away.
    pub return_time_ms: u64,
    /// Learners that one node is asked to be, and that one node is asked to teach, at a time.
    pub learners_per_node: u32,
    /// How long a learner that is half way may be silent.
    pub reconnect_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { return_time_ms: 300_000, learners_per_node: 4, reconnect_ms: 3_000 }
    }
}

/// What should happen now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One entry for every partition that has too few members.
    pub decisions: BTreeMap<PartitionId, Decision>,
    /// What each node is asked to do; no entry for a node with nothing to do.
    pub tasks: BTreeMap<NodeId, Tasks>,
}

/// What one partition with too few members gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The primary is asked to teach this node and to add it.
    Add {
        /// The learner.
        node: NodeId,
    },
    /// Nothing yet.
    Wait(Wait),
}

/// What a partition with too few members waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// For a primary that is there: only a primary can teach.
    Primary,
    /// For a former member to return.
    Return {
        /// The former member.
        node: NodeId,
        /// After this time its place is given away.
        left_ms: u64,
    },
    /// For its turn: the node teaches, or is taught, as many partitions as it may.
    Turn {
        /// The node.
        node: NodeId,
    },
    /// For a node that is there and no member.
    Node,
}

/// What one node is asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// As primary: whom to teach and to add.
    pub additions: Vec<Addition>,
    /// Copies to remove.
    pub removals: Vec<Removal>,
}

/// Decides for every partition. Deterministic.
pub fn plan(state: &State, heard: &Heard, limits: &Limits) -> Plan {
    let mut guardian = Guardian::new(state, heard, limits);
    let mut needy: Vec<(PartitionId, &Configuration)> = state
        .partitions()
        .filter(|(partition, configuration)| configuration.members().count() < state.replica_count(*partition))
        .collect();
    // Who is being taught keeps its turn; then those that serve; otherwise the order of the ids.
    let is_last = |partition| !state.is_available(partition);
    needy.sort_by_cached_key(|&(partition, _)| (!guardian.is_being_taught(partition), is_last(partition), partition));
    for (partition, configuration) in needy {
        guardian.decide(partition, configuration);
    }
    guardian.remove_copies();
    guardian.remove_purged_copies();
    guardian.plan
}

struct Guardian<'a> {
    state: &'a State,
    heard: &'a Heard,
    limits: &'a Limits,
    /// Nodes that may learn, by id, with the copies they hold and those they were given here.
    candidates: Vec<Candidate>,
    /// Copies on nodes that are no members, by partition and node.
    outside: BTreeMap<PartitionId, Vec<(NodeId, &'a Report)>>,
    /// Additions given out, by learner.
    learning: BTreeMap<NodeId, u32>,
    /// Additions given out, by primary.
    teaching: BTreeMap<NodeId, u32>,
    plan: Plan,
}

impl<'a> Guardian<'a> {
    fn new(state: &'a State, heard: &'a Heard, limits: &'a Limits) -> Guardian<'a> {
        let near = |node: &NodeId| heard.is_alive(*node) || heard.silent_ms(*node) < limits.reconnect_ms;
        let near: BTreeSet<NodeId> = state.nodes().keys().copied().filter(near).collect();
        Guardian {
            state,
            heard,
            limits,
            candidates: candidates(state, &near),
            outside: copies_outside(state),
            learning: BTreeMap::new(),
            teaching: BTreeMap::new(),
            plan: Plan::default(),
        }
    }

    fn is_there(&self, node: NodeId) -> bool {
        is_up(self.state, self.heard, node)
    }

    /// True if the node reported that it learns under the ballot in force, and at most reconnects.
    fn is_half_way(&self, node: NodeId, report: &Report) -> bool {
        report.state == ReplicaState::Learning
            && report.ballot == self.state.ballot(report.partition)
            && self.candidates.binary_search_by_key(&node, Candidate::node).is_ok()
    }

    fn outside(&self, partition: PartitionId) -> &[(NodeId, &'a Report)] {
        self.outside.get(&partition).map_or(&[], Vec::as_slice)
    }

    fn is_being_taught(&self, partition: PartitionId) -> bool {
        self.outside(partition).iter().any(|(node, report)| self.is_half_way(*node, report))
    }

    fn decide(&mut self, partition: PartitionId, configuration: &Configuration) {
        let decision = match configuration.primary.filter(|&node| self.is_there(node)) {
            None => Decision::Wait(Wait::Primary),
            Some(primary) if self.is_full(&self.teaching, primary) => Decision::Wait(Wait::Turn { node: primary }),
            Some(primary) => match self.choose(partition, configuration) {
                Ok(node) => {
                    self.give(primary, Addition { partition, ballot: configuration.ballot, node });
                    Decision::Add { node }
                }
                Err(wait) => Decision::Wait(wait),
            },
        };
        self.plan.decisions.insert(partition, decision);
    }

    /// Who should learn a partition that has too few members.
    fn choose(&self, partition: PartitionId, configuration: &Configuration) -> Result<NodeId, Wait> {
        if let Some(node) = self.former_with_copy(partition).or_else(|| self.newest_holder(partition)) {
            return if self.is_full(&self.learning, node) { Err(Wait::Turn { node }) } else { Ok(node) };
        }
        let returning = self.returning(partition);
        let writable = configuration.members().count() >= self.state.replica_count(partition).min(2);
        let patient = writable || !self.state.is_available(partition);
        match (returning, self.best_node(partition, configuration)) {
            (Some(wait), _) if patient => Err(wait),
            (Some(wait), Err(Wait::Node)) => Err(wait),
            (_, best) => best,
        }
    }

    /// The most recent former member that is back with a copy; a usable copy goes before a damaged one.
    fn former_with_copy(&self, partition: PartitionId) -> Option<NodeId> {
        let copies = self.outside(partition);
        let back = |former: NodeId, wanted: fn(ReplicaState) -> bool| {
            copies.iter().any(|(node, report)| *node == former && wanted(report.state) && self.may_learn(*node, report))
        };
        let former = || self.state.former_members(partition).iter().rev().map(|entry| entry.node);
        former().find(|&node| back(node, is_usable)).or_else(|| former().find(|&node| back(node, |_| true)))
    }

    /// The node outside the configuration with the newest usable copy.
    fn newest_holder(&self, partition: PartitionId) -> Option<NodeId> {
        let usable = |(node, report): &&(NodeId, &Report)| is_usable(report.state) && self.may_learn(*node, report);
        let newest = |(node, report): &&(NodeId, &Report)| (report.ballot, report.last, Reverse(*node));
        self.outside(partition).iter().filter(usable).max_by_key(newest).map(|(node, _)| *node)
    }

    fn may_learn(&self, node: NodeId, report: &Report) -> bool {
        self.is_there(node) || self.is_half_way(node, report)
    }

    /// The former member that still has time to return; of several the most recent.
    fn returning(&self, partition: PartitionId) -> Option<Wait> {
        self.state.former_members(partition).iter().rev().map(|entry| entry.node).find_map(|node| {
            let left_ms = self.limits.return_time_ms.saturating_sub(self.heard.silent_ms(node));
            let expected = left_ms > 0 && self.state.is_reachable(node) && !self.is_there(node);
            expected.then_some(Wait::Return { node, left_ms })
        })
    }

    /// The node with the fewest copies among those that are there, are no members and have room.
    fn best_node(&self, partition: PartitionId, configuration: &Configuration) -> Result<NodeId, Wait> {
        let outsiders = || {
            let nodes = self.candidates.iter();
            nodes.filter(|one| self.is_there(one.node()) && !configuration.contains(one.node()))
        };
        let cost = |one: &&Candidate| one.learner_cost(partition);
        let free = outsiders().filter(|one| !self.is_full(&self.learning, one.node())).min_by_key(cost);
        match free.or_else(|| outsiders().min_by_key(cost)).map(Candidate::node) {
            Some(node) if free.is_some() => Ok(node),
            Some(node) => Err(Wait::Turn { node }),
            None => Err(Wait::Node),
        }
    }

    fn is_full(&self, given: &BTreeMap<NodeId, u32>, node: NodeId) -> bool {
        given.get(&node).is_some_and(|&count| count >= self.limits.learners_per_node)
    }

    fn give(&mut self, primary: NodeId, addition: Addition) {
        *self.learning.entry(addition.node).or_default() += 1;
        *self.teaching.entry(primary).or_default() += 1;
        let found = self.candidates.binary_search_by_key(&addition.node, Candidate::node);
        self.candidates[found.expect("only candidates are chosen")].add_secondary(addition.partition);
        self.plan.tasks.entry(primary).or_default().additions.push(addition);
    }

    /// Copies of nodes that are no members, where the partition is whole without them. A copy of the ballot in force or
    /// a higher one is kept: its node may know of a change that is under way.
    fn remove_copies(&mut self) {
        for (&partition, copies) in &self.outside {
            let configuration = self.state.configuration(partition).expect("only copies of partitions are listed");
            if health_of(self.state, self.heard, partition, configuration) != Health::Healthy {
                continue;
            }
            let removal = Removal { partition, ballot: configuration.ballot };
            for &(node, report) in copies {
                if report.ballot < configuration.ballot && is_up(self.state, self.heard, node) {
                    self.plan.tasks.entry(node).or_default().removals.push(removal);
                }
            }
        }
    }

    /// Whatever nodes hold of tables that are gone for good, a bounded number at a time. What they reported may be
    /// older than the last ballot of the partition, and there is no other: every ballot is below this one.
    fn remove_purged_copies(&mut self) {
        for (&node, entry) in self.state.nodes() {
            if !is_up(self.state, self.heard, node) {
                continue;
            }
            let is_gone = |report: &&Report| {
                report.state != ReplicaState::Missing && self.state.is_purged(report.partition.table)
            };
            let gone = entry.reports.iter().filter(is_gone).take(PURGED_REMOVALS_MAX);
            let removals: Vec<Removal> =
                gone.map(|report| Removal { partition: report.partition, ballot: Ballot(u64::MAX) }).collect();
            if !removals.is_empty() {
                self.plan.tasks.entry(node).or_default().removals.extend(removals);
            }
        }
    }
}

/// What nodes hold of partitions that they are no members of.
fn copies_outside(state: &State) -> BTreeMap<PartitionId, Vec<(NodeId, &Report)>> {
    let mut outside: BTreeMap<PartitionId, Vec<(NodeId, &Report)>> = BTreeMap::new();
    for (&node, entry) in state.nodes() {
        for report in entry.reports.iter().filter(|report| report.state != ReplicaState::Missing) {
            if state.configuration(report.partition).is_some_and(|configuration| !configuration.contains(node)) {
                outside.entry(report.partition).or_default().push((node, report));
            }
        }
    }
    outside
}

/// A copy that needs less than everything.
fn is_usable(state: ReplicaState) -> bool {
    matches!(state, ReplicaState::Whole | ReplicaState::Uncertain | ReplicaState::Learning)
}

impl Tasks {
    /// A number that changes whenever the tasks do, 0 if there are none: FNV-1a over them. Two lists share a number
    /// once in four billion; then the second is heard of with the next change.
    pub fn digest(&self) -> u32 {
        let additions = self.additions.iter().map(|one| (one.partition, one.ballot, one.node.0));
        let removals = self.removals.iter().map(|one| (one.partition, one.ballot, u64::MAX));
        let words = additions.chain(removals).flat_map(|(partition, ballot, node)| {
            [u64::from(partition.table.0) << 32 | u64::from(partition.index), ballot.0, node]
        });
        if self.additions.is_empty() && self.removals.is_empty() {
            return 0;
        }
        let hash = words
            .flat_map(u64::to_le_bytes)
            .fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
        (hash ^ (hash >> 32)) as u32
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
