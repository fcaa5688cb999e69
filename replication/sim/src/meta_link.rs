//! What nodes and the meta service say to each other: signs of life, reports, assignments, proposals. Everything may be
//! lost on the way, and comes late.

use pegasus_meta::core::{Outcome, Report};
use pegasus_replication::Event;
use pegasus_wire::messages::control::{Assignments, ReplicaState};
use pegasus_wire::{Ballot, Configuration, Decree, NodeId};

use crate::disk::Table;
use crate::learning::Taught;
use crate::meta::partition_id;
use crate::options::HostBug;
use crate::world::{Happening, Local, World};

impl World {
    /// True while calls from a node reach the meta service and answers come back.
    fn is_meta_reachable(&self, node: usize) -> bool {
        self.meta.up && !self.nodes[node].meta_cut
    }

    /// A node asks for its assignments, and again a while later.
    pub(crate) fn on_watch(&mut self, node: usize) {
        let registers = !self.nodes[node].registered || self.random.permille(50);
        if self.is_meta_reachable(node) && !self.is_call_lost() {
            let (delay, run) = (self.latency(node), self.nodes[node].run);
            let reports = registers.then(|| self.reports(node));
            self.schedule(delay, Happening::MetaHears { node, run, reports });
            // What changes from now on is said again.
            self.nodes[node].unreported = false;
        }
        let pause = self.random.range(1, self.options.limits.timing.lease_micros);
        self.schedule_local(node, pause, Local::Watch);
    }

    /// The meta service hears of a node, and answers.
    pub(crate) fn on_meta_hears(&mut self, node: usize, run: u64, reports: Option<Vec<Report>>) {
        if !self.is_meta_reachable(node) || !self.nodes[node].is_running(run) {
            return;
        }
        let id = self.nodes[node].id;
        if let Some(reports) = reports {
            match self.meta.register(node, id, reports) {
                Outcome::Registered { .. } => {
                    let delay = self.latency(node);
                    self.schedule_local(node, delay, Local::Registered);
                }
                other => self.check(|| format!("n{}", node + 1), Err(format!("its registration: {other:?}"))),
            }
        } else if !self.nodes[node].registered {
            // It says what it holds before it asks for anything.
            return;
        }
        self.meta.hear(id, self.now);
        self.answer_watch(node);
    }

    /// What a node says of its copies: under which ballot, and up to where it can vouch for what it has.
    fn reports(&self, node: usize) -> Vec<Report> {
        let host = &self.nodes[node];
        let longest = self.options.planted.host == Some(HostBug::LongestLogWins);
        let copies = host.copies.iter().enumerate().filter_map(|(partition, copy)| Some((partition, copy.as_ref()?)));
        let held = copies.map(|(partition, copy)| {
            let state = copy.disk.state_at(host.boot);
            let (ballot, applied) = (copy.disk.descriptor.ballot, copy.disk.flushed.applied);
            let settled = copy.disk.view.settled_through(ballot, applied);
            let uncertain_longest = longest && state == ReplicaState::Uncertain;
            let (ballot, last) =
                if uncertain_longest { (Ballot::ASSIGNMENT, copy.disk.view.last()) } else { (ballot, settled) };
            Report { partition: partition_id(partition), ballot, state, last }
        });
        let missing = host.missing.iter().filter(|partition| host.copies[**partition].is_none()).map(|partition| {
            let partition = partition_id(*partition);
            Report { partition, ballot: Ballot(0), state: ReplicaState::Missing, last: Decree(0) }
        });
        held.chain(missing).collect()
    }

    /// The answer to a node's watch, now or later.
    fn answer_watch(&mut self, node: usize) {
        if self.is_call_lost() || !self.nodes[node].up {
            return;
        }
        let assignments = self.meta.assignments(self.nodes[node].id, self.now);
        let late = if self.random.permille(100) { self.options.limits.timing.lease_micros } else { 0 };
        let delay = self.latency(node) + self.random.range(0, late);
        self.schedule_local(node, delay, Local::Assigned(Box::new(assignments)));
    }

    /// Assignments reach a node.
    pub(crate) fn on_assigned(&mut self, node: usize, assignments: Assignments) {
        for entry in assignments.partitions {
            self.on_configuration(node, entry.partition.index as usize, entry.configuration);
        }
        for addition in assignments.additions {
            let event = Event::AddMember { ballot: addition.ballot, node: addition.node };
            self.feed(node, addition.partition.index as usize, event);
        }
        for removal in assignments.removals {
            self.remove_copy(node, removal.partition.index as usize, removal.ballot);
        }
    }

    /// The first assignment makes an empty copy; a later one to a node without a copy means that data was lost.
    fn on_configuration(&mut self, node: usize, partition: usize, configuration: Configuration) {
        let id = self.nodes[node].id;
        if let Some(copy) = &self.nodes[node].copies[partition] {
            // What was reported of a copy in doubt counts only until the configuration changes.
            let news = copy.replica.as_ref().is_some_and(|replica| replica.ballot() < configuration.ballot);
            if news && copy.disk.state_at(self.nodes[node].boot) == ReplicaState::Uncertain {
                self.nodes[node].report_again();
            }
            return self.feed(node, partition, Event::Assigned(configuration));
        }
        if configuration.ballot == Ballot::ASSIGNMENT {
            self.make_copy(node, partition, configuration.clone(), ReplicaState::Whole, Table::default());
            return self.feed(node, partition, Event::Assigned(configuration));
        }
        if configuration.contains(id) && self.nodes[node].missing.insert(partition) {
            self.nodes[node].report_again();
        }
    }

    /// The partition is whole without this copy.
    fn remove_copy(&mut self, node: usize, partition: usize, ballot: Ballot) {
        let Some(copy) = &self.nodes[node].copies[partition] else { return };
        if copy.disk.descriptor.ballot >= ballot {
            return;
        }
        self.trace.note(self.now, || format!("n{} p{partition} is removed", node + 1));
        if self.is_member(node, partition) {
            self.check_copy(node, partition, Err("the copy of a member is removed".to_owned()));
        }
        if self.nodes[node].copies[partition].as_ref().is_some_and(|copy| copy.replica.is_some()) {
            self.nodes[node].removing = true;
            self.feed(node, partition, Event::Shutdown);
            self.nodes[node].removing = false;
        }
        self.close_streams_of(node, partition);
        self.nodes[node].copies[partition] = None;
        self.nodes[node].report_again();
    }

    /// A proposal arrives at the meta service. The answer may be lost; so may the proposal.
    pub(crate) fn on_proposed(
        &mut self,
        (node, proposer): (usize, NodeId),
        partition: usize,
        expected: Ballot,
        wanted: Configuration,
        asker: Option<(u64, usize, u64)>,
    ) {
        let mut answer = None;
        if self.is_meta_reachable(node) && !self.is_call_lost() {
            let before = self.meta.configuration(partition).clone();
            let outcome = self.meta.propose(proposer, partition, expected, wanted);
            answer = match outcome {
                Outcome::Accepted { configuration } | Outcome::Conflict { configuration } => Some(configuration),
                other => {
                    self.trace.note(self.now, || format!("meta: p{partition} refuses n{}: {other:?}", node + 1));
                    None
                }
            };
            let after = self.meta.configuration(partition).clone();
            if after.ballot != before.ballot {
                self.on_accepted(partition, &before, &after);
            }
        }
        let event = match answer.filter(|_| !self.is_call_lost() && self.is_meta_reachable(node)) {
            Some(configuration) => Event::ProposalDecided { configuration },
            None => Event::ProposalFailed,
        };
        let Some((run, partition, incarnation)) = asker else { return };
        let delay = self.latency(node);
        let local = Local::ToReplica { partition, incarnation, event };
        self.schedule(delay, Happening::Local { node, run, local });
    }

    /// Where no member has a copy that is known to be whole, and not all are uncertain alike, nobody may decide but an
    /// operator. One who looks at all of them loses nothing: somebody always kept everything.
    pub(crate) fn operate(&mut self) {
        for partition in 0..self.options.partitions {
            let before = self.meta.configuration(partition).clone();
            let served = (0..self.nodes.len()).any(|node| self.serves(node, partition));
            let states: Vec<_> = before.members().map(|member| self.known_state(member, partition)).collect();
            let alike = states.iter().all(|state| *state == ReplicaState::Uncertain);
            if served || alike || states.contains(&ReplicaState::Whole) {
                continue;
            }
            let complete = |member: &NodeId| {
                let copy = self.node_named(*member).and_then(|node| self.nodes[node].copies[partition].as_ref());
                copy.is_some_and(|copy| {
                    let checker = &self.partitions[partition].checker;
                    copy.disk.state != ReplicaState::Damaged && checker.holds_all(&copy.disk).is_ok()
                })
            };
            let Some(chosen) = before.members().find(complete) else {
                let lost = Err("no member holds what is committed".to_owned());
                return self.check(|| format!("p{partition}"), lost);
            };
            self.statistics.forced += 1;
            self.force(partition, chosen, &before);
        }
    }

    /// An operator makes a node the only member.
    pub(crate) fn force(&mut self, partition: usize, chosen: NodeId, before: &Configuration) {
        self.trace.note(self.now, || format!("an operator forces p{partition} to {}", chosen.0));
        self.meta.force(partition, chosen);
        let after = self.meta.configuration(partition).clone();
        if after.ballot != before.ballot {
            self.on_accepted(partition, before, &after);
        }
    }

    /// What the meta service was told of a member's copy; one whose node is no more is missing.
    fn known_state(&self, member: NodeId, partition: usize) -> ReplicaState {
        match self.node_named(member) {
            None => ReplicaState::Missing,
            Some(_) => self.meta.report(member, partition).map_or(ReplicaState::Whole, |report| report.state),
        }
    }

    /// A configuration has come into force.
    fn on_accepted(&mut self, partition: usize, before: &Configuration, after: &Configuration) {
        self.trace.note(self.now, || format!("meta: p{partition} is now {}", say(after)));
        self.count_change(partition, before, after);
        self.partitions[partition].proposals.retain(|wanted| wanted.ballot > after.ballot);
        self.settle_losses(partition, before, after);
        self.check_accepted(partition, after);
        for node in 0..self.nodes.len() {
            if self.is_meta_reachable(node) && self.nodes[node].registered && self.random.permille(800) {
                self.answer_watch(node);
            }
        }
    }

    fn count_change(&mut self, partition: usize, before: &Configuration, after: &Configuration) {
        let left = before.members().filter(|node| !after.contains(*node)).count() as u64;
        let replaced = before.primary.filter(|primary| after.primary != Some(*primary));
        match replaced {
            Some(primary) if after.contains(primary) => self.statistics.hand_overs += 1,
            Some(_) => self.statistics.takeovers += 1,
            None => self.statistics.removals += left,
        }
        for joined in after.members().filter(|node| !before.contains(*node)) {
            let count = match self.partitions[partition].taught.remove(&joined) {
                None => &mut self.statistics.learned_from_window,
                Some(Taught::FromLog) => &mut self.statistics.learned_from_log,
                Some(Taught::FromCheckpoint) => &mut self.statistics.learned_from_checkpoint,
            };
            *count += 1;
        }
    }
}

/// A configuration in a few words.
pub(crate) fn say(configuration: &Configuration) -> String {
    let Configuration { ballot, primary, secondaries } = configuration;
    let names: Vec<String> = secondaries.iter().map(|node| node.0.to_string()).collect();
    format!("ballot {ballot} primary {} secondaries [{}]", primary.map_or(0, |node| node.0), names.join(" "))
}
