//! What the compatibility port counts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use pegasus_gateway::{ErrorName, Rpc};

/// Counters of the port. Bounded: methods that are not served share one entry.
#[derive(Debug, Default)]
pub(in crate::host) struct Metrics {
    connections: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    unsent_bytes: AtomicUsize,
    answers: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
}

impl Metrics {
    /// Counts a connection for as long as the guard lives.
    pub(super) fn connected(&self) -> Connected<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(self)
    }

    /// Counts a connection that was turned away.
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that was ended because of what its peer did.
    pub(super) fn broken(&self) {
        self.broken.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer; `method` is `None` for one that is not served.
    pub(super) fn answered(&self, method: Option<Rpc>, outcome: ErrorName) {
        let key = (method.map_or("unknown", Rpc::name), outcome.text());
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    /// Answers of all connections that their peers have not taken yet.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add_unsent(&self, bytes: usize) {
        self.unsent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn remove_unsent(&self, bytes: usize) {
        self.unsent_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Appends everything in the Prometheus text format.
    pub(in crate::host) fn render(&self, out: &mut String) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let values = [
            ("connections", "gauge", "connections of Pegasus's own clients", read(&self.connections)),
            ("unsent_bytes", "gauge", "answers that clients have not taken yet", self.unsent_bytes() as u64),
            ("refused_total", "counter", "connections turned away: there were too many", read(&self.refused)),
            ("broken_total", "counter", "connections ended because of what the peer did", read(&self.broken)),
        ];
        for (name, kind, help, value) in values {
            // Writing to a string cannot fail.
            writeln!(out, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}").ok();
            writeln!(out, "{PREFIX}{name} {value}").ok();
        }
        writeln!(out, "# HELP {PREFIX}answers_total answers to Pegasus's own clients by method and outcome").ok();
        writeln!(out, "# TYPE {PREFIX}answers_total counter").ok();
        for ((method, outcome), count) in self.answers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            writeln!(out, "{PREFIX}answers_total{{method=\"{method}\",outcome=\"{outcome}\"}} {count}").ok();
        }
    }
}

/// A connection that is counted.
pub(super) struct Connected<'a>(&'a Metrics);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

const PREFIX: &str = "pegasus_meta_compatibility_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_every_counter() {
        let metrics = Metrics::default();
        let held = metrics.connected();
        drop(metrics.connected());
        metrics.refused();
        metrics.add_unsent(9);
        metrics.remove_unsent(2);
        metrics.answered(Some(Rpc::QueryCfg), ErrorName::Ok);
        metrics.answered(Some(Rpc::QueryCfg), ErrorName::Ok);
        metrics.answered(None, ErrorName::HandlerNotFound);
        let mut text = String::new();
        metrics.render(&mut text);
        for line in [
            "connections 1",
            "unsent_bytes 7",
            "refused_total 1",
            "broken_total 0",
            "answers_total{method=\"RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX\",outcome=\"ERR_OK\"} 2",
            "answers_total{method=\"unknown\",outcome=\"ERR_HANDLER_NOT_FOUND\"} 1",
        ] {
            let line = format!("{PREFIX}{line}");
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        drop(held);
    }
}
