//! Counters of the service, and their names in the Prometheus text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use pegasus_wire::{MessageKind, Status};

use super::compatibility;

/// Answers given, by kind of request and status. Bounded: kinds that this release does not know share one entry.
#[derive(Debug, Default)]
pub struct Metrics {
    answers: Mutex<BTreeMap<(MessageKind, Status), u64>>,
    /// What the port for Pegasus's own clients counts.
    pub(super) compatibility: compatibility::Metrics,
}

/// What is read from elsewhere at the moment of asking.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// 1 while this server leads.
    pub leader: u64,
    /// Last Raft entry applied.
    pub applied_index: u64,
    /// Last change a watch may show.
    pub revision: u64,
    /// Registered nodes.
    pub nodes: u64,
    /// Registered nodes heard of lately.
    pub live_nodes: u64,
    /// Tables that serve.
    pub tables: u64,
    /// Tables that were dropped and are still held.
    pub dropped_tables: u64,
    /// Partitions of the tables that serve.
    pub partitions: u64,
    /// Partitions with all members, every one alive and sound.
    pub healthy_partitions: u64,
    /// Partitions that are not healthy, but served or about to be.
    pub degraded_partitions: u64,
    /// Partitions without a live member that could serve.
    pub unavailable_partitions: u64,
    /// Learners that primaries are asked to teach now.
    pub additions_asked: u64,
    /// Copies that nodes are asked to remove now.
    pub removals_asked: u64,
    /// Watches that wait for news.
    pub pending_watches: u64,
}

impl Metrics {
    /// Counts an answer.
    pub fn count(&self, kind: MessageKind, status: Status) {
        let known = MessageKind::ALL.iter().any(|(other, _)| *other == kind);
        let kind = if known { kind } else { MessageKind(0) };
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner).entry((kind, status)).or_default() += 1;
    }

    /// Everything in the Prometheus text format.
    pub fn render(&self, gauges: Gauges) -> String {
        let mut out = String::new();
        let values = [
            ("leader", "1 while this server leads its Raft group", gauges.leader),
            ("applied_index", "last Raft entry applied", gauges.applied_index),
            ("revision", "last change that a node's watch may show", gauges.revision),
            ("nodes", "registered storage nodes", gauges.nodes),
            ("live_nodes", "registered storage nodes heard of lately", gauges.live_nodes),
            ("tables", "tables that serve", gauges.tables),
            ("dropped_tables", "tables that were dropped and are still held", gauges.dropped_tables),
            ("partitions", "partitions of the tables that serve", gauges.partitions),
            ("healthy_partitions", "partitions with all members alive and sound", gauges.healthy_partitions),
            ("degraded_partitions", "partitions not healthy, but served or about to be", gauges.degraded_partitions),
            ("unavailable_partitions", "partitions no live member can serve", gauges.unavailable_partitions),
            ("additions_asked", "learners that primaries are asked to teach now", gauges.additions_asked),
            ("removals_asked", "copies that nodes are asked to remove now", gauges.removals_asked),
            ("pending_watches", "watches that wait for news", gauges.pending_watches),
        ];
        for (name, help, value) in values {
            // Writing to a string cannot fail.
            writeln!(out, "# HELP pegasus_meta_{name} {help}\n# TYPE pegasus_meta_{name} gauge").ok();
            writeln!(out, "pegasus_meta_{name} {value}").ok();
        }
        out.push_str("# HELP pegasus_meta_answers_total answers by kind of request and status\n");
        out.push_str("# TYPE pegasus_meta_answers_total counter\n");
        for ((kind, status), count) in self.answers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let kind = if kind.0 == 0 { "unknown".to_owned() } else { kind.to_string() };
            writeln!(out, "pegasus_meta_answers_total{{kind=\"{kind}\",status=\"{status:?}\"}} {count}").ok();
        }
        self.compatibility.render(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_every_counter() {
        let metrics = Metrics::default();
        metrics.count(MessageKind::LIST_TABLES, Status::Ok);
        metrics.count(MessageKind::LIST_TABLES, Status::Ok);
        metrics.count(MessageKind(999), Status::Unsupported);
        metrics.count(MessageKind(998), Status::Unsupported);
        let text = metrics.render(Gauges { nodes: 3, ..Gauges::default() });
        for line in [
            "pegasus_meta_nodes 3",
            "pegasus_meta_answers_total{kind=\"LIST_TABLES\",status=\"Ok\"} 2",
            "pegasus_meta_answers_total{kind=\"unknown\",status=\"Unsupported\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
