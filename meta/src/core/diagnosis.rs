//! Explains, to people, every partition that is not whole: what is wrong with it and what it waits for.
//!
//! Says what the rules of [`super::propose`] and the guardian's plan come to; it decides nothing.

use pegasus_wire::limits::FRAME_BYTES_MAX;
use pegasus_wire::messages::control::{Diagnosis, PartitionDiagnosis, ReplicaState};
use pegasus_wire::{Configuration, NodeId, PartitionId, TableId};

use super::command::Report;
use super::guardian::{Decision, Limits, Plan, Wait, plan};
use super::health::{Health, could_lead, health_of, is_up};
use super::presence::Heard;
use super::propose::newest_uncertain;
use super::refusal::{Refusal, state_word};
use super::state::State;

/// Looks at all partitions of the tables that serve, or at those of one table; refused if no table of that name serves.
/// The answer fits into a frame: when it is full, nothing more is looked at, and `examined` says how far it came.
pub fn diagnose(state: &State, heard: &Heard, limits: &Limits, table: Option<&str>) -> Result<Diagnosis, Refusal> {
    let only: Option<TableId> = match table {
        Some(name) => Some(state.find_table(name)?.properties.table),
        None => None,
    };
    let plan = plan(state, heard, limits);
    let mut diagnosis = Diagnosis { examined: 0, partitions: Vec::new() };
    let mut bytes = 0;
    for (partition, configuration) in state.available_partitions() {
        if only.is_some_and(|table| table != partition.table) {
            continue;
        }
        if bytes > ANSWER_BYTES_TARGET {
            break;
        }
        diagnosis.examined += 1;
        let health = health_of(state, heard, partition, configuration);
        if health != Health::Healthy {
            let case = Case { state, heard, plan: &plan, partition, configuration };
            let found = case.describe(health);
            bytes += archived_bytes(&found);
            diagnosis.partitions.push(found);
        }
    }
    Ok(diagnosis)
}

/// A partition that is not whole, with what is known about it.
struct Case<'a> {
    state: &'a State,
    heard: &'a Heard,
    plan: &'a Plan,
    partition: PartitionId,
    configuration: &'a Configuration,
}

impl Case<'_> {
    fn describe(&self, health: Health) -> PartitionDiagnosis {
        let properties = &self.state.tables()[&self.partition.table].properties;
        PartitionDiagnosis {
            partition: self.partition,
            table: properties.name.clone(),
            configuration: self.configuration.clone(),
            replica_count: properties.replica_count,
            unavailable: health == Health::Unavailable,
            problems: self.problems(),
            waits_for: self.waits_for(health),
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let (count, wanted) = (self.configuration.members().count(), self.state.replica_count(self.partition));
        if count < wanted {
            problems.push(format!("it has {count} of {wanted} members"));
        }
        for node in self.configuration.members() {
            let role = if self.configuration.primary == Some(node) { "primary" } else { "secondary" };
            let name = self.name(node);
            if !self.state.is_reachable(node) {
                problems.push(format!("{role} {name} lost its address to another node"));
            } else if !self.heard.is_alive(node) {
                problems.push(format!("{role} {name} is down: not heard of for {}", self.silence(node)));
            }
            if let Some(problem) = self.state.copy_state(node, self.partition).and_then(copy_problem) {
                problems.push(format!("{role} {name} {problem}"));
            }
        }
        if !self.primary_leads() {
            problems.push("no primary serves it".to_owned());
        }
        problems
    }

    fn waits_for(&self, health: Health) -> String {
        if health == Health::Unavailable {
            return self.waits_for_members();
        }
        if !self.primary_leads() {
            let fit: Vec<String> = self.members_that(|node| self.could_lead(node));
            return format!("a takeover by {}, once its grace period is over", either(&fit));
        }
        let primary = self.configuration.primary;
        if let Some(node) = primary.filter(|&node| !self.is_whole(node)) {
            return format!(
                "{} to become primary again: every copy is uncertain, and its is the newest",
                self.name(node)
            );
        }
        let is_sound = |node: NodeId| is_up(self.state, self.heard, node) && self.is_whole(node);
        let unsound = self.members_that(|node| !is_sound(node));
        if !unsound.is_empty() {
            return format!("the primary to remove {}; others are taught then", all(&unsound));
        }
        match self.plan.decisions.get(&self.partition) {
            Some(Decision::Add { node }) if self.is_learning(*node) => {
                format!("{} to finish learning; the primary adds it then", self.name(*node))
            }
            Some(Decision::Add { node }) => {
                format!("{} to begin learning; the primary has been asked to teach it", self.name(*node))
            }
            Some(Decision::Wait(wait)) => self.explain(*wait),
            None => "nothing: it is about to be whole".to_owned(),
        }
    }

    fn explain(&self, wait: Wait) -> String {
        match wait {
            Wait::Primary => "its primary to be heard of".to_owned(),
            Wait::Return { node, left_ms } => format!(
                "former member {} to return; its place is given to another node in {}",
                self.name(node),
                duration(left_ms)
            ),
            Wait::Turn { node } => format!("its turn: {} has as many learners as it may have", self.name(node)),
            Wait::Node => "another storage node: every node that is alive is a member already".to_owned(),
        }
    }

    /// Nobody could serve: members must come back, or an operator decides.
    fn waits_for_members(&self) -> String {
        let uncertain = self.members_that(|node| self.copy_is(node, ReplicaState::Uncertain));
        let down = self.members_that(|node| !is_up(self.state, self.heard, node));
        let first = if !uncertain.is_empty() {
            match newest_uncertain(self.state, self.partition, self.configuration) {
                Ok(newest) => {
                    format!("{} to return: every copy is uncertain, and its is the newest", self.name(newest))
                }
                Err(_) => {
                    let missing = self.members_that(|node| !self.copy_is(node, ReplicaState::Uncertain));
                    format!(
                        "{} to return and to report: machines restarted under written durability, and the newest copy \
                         is known only when every member has reported",
                        all(&missing)
                    )
                }
            }
        } else if down.is_empty() {
            "an operator: no member has a copy that may serve".to_owned()
        } else {
            format!("{} to return", either(&down))
        };
        format!("{first}; {}", self.last_resort())
    }

    /// What forcing could choose from, the best first.
    fn last_resort(&self) -> String {
        let mut holders: Vec<(&Report, NodeId)> = self
            .state
            .nodes()
            .iter()
            .filter_map(|(&node, entry)| Some((entry.report(self.partition)?, node)))
            .filter(|(report, node)| report.state != ReplicaState::Missing && self.state.is_reachable(*node))
            .collect();
        holders.sort_by_key(|(report, node)| (report.state, std::cmp::Reverse((report.ballot, report.last)), *node));
        let describe = |(report, node): &(&Report, NodeId)| {
            let (word, ballot, last) = (state_word(report.state), report.ballot, report.last);
            format!("{} ({word}, ballot {ballot}, last decree {last})", self.name(*node))
        };
        let listed: Vec<String> = holders.iter().take(HOLDERS_LISTED).map(describe).collect();
        match listed.is_empty() {
            true => "forcing has nothing to choose from: no registered node has reported a copy".to_owned(),
            false => {
                format!("the last resort is to force one of {}, which loses what only others hold", listed.join(", "))
            }
        }
    }

    fn primary_leads(&self) -> bool {
        self.configuration.primary.is_some_and(|node| self.could_lead(node))
    }

    fn could_lead(&self, node: NodeId) -> bool {
        could_lead(self.state, self.heard, self.partition, self.configuration, node)
    }

    fn copy_is(&self, node: NodeId, state: ReplicaState) -> bool {
        self.state.copy_state(node, self.partition) == Some(state)
    }

    fn is_whole(&self, node: NodeId) -> bool {
        self.state.copy_state(node, self.partition).is_none_or(|state| state == ReplicaState::Whole)
    }

    fn is_learning(&self, node: NodeId) -> bool {
        let report = self.state.report(node, self.partition);
        report
            .is_some_and(|report| report.state == ReplicaState::Learning && report.ballot == self.configuration.ballot)
    }

    fn members_that(&self, holds: impl Fn(NodeId) -> bool) -> Vec<String> {
        self.configuration.members().filter(|&node| holds(node)).map(|node| self.name(node)).collect()
    }

    fn name(&self, node: NodeId) -> String {
        match self.state.nodes().get(&node).and_then(|entry| entry.addresses) {
            Some(addresses) => format!("node {node} at {}", addresses.address),
            None => format!("node {node}"),
        }
    }

    fn silence(&self, node: NodeId) -> String {
        match self.heard.silent_ms(node) {
            u64::MAX => "as long as this meta server runs".to_owned(),
            silent_ms => duration(silent_ms),
        }
    }
}

/// What is wrong with a copy in this state; `None` if nothing is.
fn copy_problem(state: ReplicaState) -> Option<&'static str> {
    match state {
        ReplicaState::Whole => None,
        ReplicaState::Uncertain => {
            Some("reported its copy as uncertain: its machine restarted, and it may lack what it acknowledged")
        }
        ReplicaState::Learning => Some("reported its copy as learning: it has no claim to completeness"),
        ReplicaState::Damaged => Some("reported its copy as damaged: it lost data and refuses to serve"),
        ReplicaState::Missing => Some("reported its copy as missing: it holds none"),
    }
}

fn either(names: &[String]) -> String {
    names.join(" or ")
}

fn all(names: &[String]) -> String {
    names.join(" and ")
}

fn duration(milliseconds: u64) -> String {
    match milliseconds / 1000 {
        0 => format!("{milliseconds} ms"),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// At least what the diagnosis takes in a frame.
fn archived_bytes(diagnosis: &PartitionDiagnosis) -> usize {
    let texts = diagnosis.problems.iter().chain([&diagnosis.table, &diagnosis.waits_for]);
    texts.map(|text| text.len() + 16).sum::<usize>() + 256
}

/// Where the answer stops growing; the last entry may pass it by a few kilobytes.
const ANSWER_BYTES_TARGET: usize = FRAME_BYTES_MAX / 2;
/// Copies listed for the operator.
const HOLDERS_LISTED: usize = 5;
