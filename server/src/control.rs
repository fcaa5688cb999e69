//! What the administration thread and the cores say to each other.
//!
//! A core never waits for another thread: it takes a [`ToCore`] from its queue like any other event and answers
//! through a one-shot channel or a [`ToMeta`].

use std::sync::Arc;

use futures_channel::{mpsc, oneshot};
use pegasus_wire::messages::control::{ProposeConfiguration, ReplicaReport};
use pegasus_wire::{Configuration, PartitionId};
use serde::Serialize;

use crate::tables::Told;

/// Messages a core may have waiting.
pub const CORE_QUEUE: usize = 1024;
/// Proposals that may wait for the meta service.
pub const META_QUEUE: usize = 4096;

/// To a core.
pub enum ToCore {
    /// What this node should hold. Each core picks what it owns.
    Assignments(Arc<Told>),
    /// The same answer once more: what it asks for has not been done yet.
    Tasks(Arc<Told>),
    /// The outcome of a [`ToMeta`] proposal.
    ProposalAnswered {
        /// The partition.
        partition: PartitionId,
        /// The configuration in force; `None` if the meta service gave no answer, so that the outcome is not known.
        in_force: Option<Configuration>,
    },
    /// Asks for the core's state.
    Report(oneshot::Sender<CoreReport>),
    /// Asks for the digest of a copy's live rows.
    Digest(PartitionId, oneshot::Sender<Result<Digest, String>>),
    /// Finish: flush, close the log, leave the executor.
    Shutdown,
}

/// To the meta service, by way of the administration thread.
pub struct ToMeta {
    /// The core that asks.
    pub core: u16,
    /// What it asks.
    pub proposal: ProposeConfiguration,
}

/// The sending ends of all cores' queues.
pub type CoreSenders = Vec<mpsc::Sender<ToCore>>;

/// A core's state, for people and for registration.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CoreReport {
    /// The core.
    pub core: u16,
    /// Set when the whole core is out of service, and why.
    pub problem: Option<String>,
    /// Its copies.
    pub partitions: Vec<PartitionReport>,
    /// Plain counters and gauges, named as in `/metrics`.
    pub metrics: Vec<Metric>,
    /// The copies in the form the meta service takes.
    #[serde(skip)]
    pub replicas: Vec<ReplicaReport>,
}

/// The live rows of a copy at one decree, condensed. Equal rows give equal digests on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Digest {
    /// The applied decree at which it was taken.
    pub decree: u64,
    /// Live rows.
    pub rows: u64,
    /// Depends on every row's key, value and expiry, and on their order.
    pub digest: u64,
}

/// One copy's state.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionReport {
    /// `<table>.<index>`.
    pub partition: String,
    /// The table's name.
    pub table: String,
    /// The replica's own description: role, ballot, decrees, what it waits for.
    pub replica: String,
    /// What the copy may claim to be: whole, uncertain, learning, damaged or missing.
    pub state: String,
    /// Applied decree of the table.
    pub applied: u64,
    /// Set when the copy does not serve, and why.
    pub problem: Option<String>,
}

/// One number.
#[derive(Clone, Debug, Serialize)]
pub struct Metric {
    /// Name without prefix.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Its value.
    pub value: f64,
}
