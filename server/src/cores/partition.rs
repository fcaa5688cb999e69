//! One copy of a partition on its core: the replica that decides, the table that stores, the streams to the others.

use std::sync::Arc;

use pegasus_engine::identity::BootId;
use pegasus_engine::log::{LogPin, LogRecord, LogSequence};
use pegasus_engine::table::Table;
use pegasus_replication::{AppendToken, Moment, Replica, Role, Session};
use pegasus_rpc::Outbox;
use pegasus_wire::environment::Environment;
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{
    Ballot, Configuration, Decree, Durability, PartitionId, ReplicaIncarnation, Status, TableProperties,
};

use super::compact::Compaction;
use super::durability::DurabilityInForce;
use super::execute::WindowOverlay;
use super::gate::Gate;
use super::leavers::Leavers;
use super::settings::Shape;
use super::teach::Lessons;
use crate::tables::TableSettings;

/// Names one copy: a node may have several of one partition, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CopyId {
    /// The partition.
    pub(crate) partition: PartitionId,
    /// Which of its copies.
    pub(crate) incarnation: ReplicaIncarnation,
}

/// What the descriptor of a copy says, as of the last store that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredAs {
    /// What the copy is worth.
    pub(crate) state: ReplicaState,
    /// Its ballot.
    pub(crate) ballot: Ballot,
    /// The boot of the machine under which it last acknowledged.
    pub(crate) boot: BootId,
    /// The last decree of its table and log when its replica was made.
    pub(crate) last: Decree,
}

/// A copy. The replica has at most one apply outstanding, so decrees are applied in order also through the pool.
pub(crate) struct Partition {
    /// Which partition.
    pub(crate) id: PartitionId,
    /// The table's properties: as last told, but for the durability, which is what a descriptor says that is stored
    /// now.
    pub(crate) properties: TableProperties,
    /// When what is appended may be acknowledged.
    pub(crate) durability: DurabilityInForce,
    /// What was last told of the table; `None` until the meta service has told of it.
    pub(crate) settings: Option<Arc<TableSettings>>,
    /// The table's environment as last told.
    pub(crate) environment: Arc<Environment>,
    /// What stands before the requests, if anything does.
    pub(crate) gate: Option<Box<Gate>>,
    /// Which copy; stamped on log records.
    pub(crate) incarnation: ReplicaIncarnation,
    /// The protocol state.
    pub(crate) replica: Replica,
    /// The rows.
    pub(crate) table: Table,
    /// What operations that read before they write see beyond the rows.
    pub(crate) overlay: WindowOverlay,
    /// Open replication streams, both directions.
    pub(crate) streams: Vec<PeerStream>,
    /// Its manual compaction.
    pub(crate) compaction: Compaction,
    /// How its files are shaped, as of the last time that was asked for.
    pub(crate) shape: Shape,
    /// A flush is in the pool.
    pub(crate) flushing: bool,
    /// Last decree that survives a crash without the log.
    pub(crate) flushed: Decree,
    /// The newest append token known durable and not yet reported to the replica.
    pub(crate) durable: Option<AppendToken>,
    /// Set when the copy does not serve.
    pub(crate) problem: Option<(Status, String)>,
    /// What the copy claims to be.
    pub(crate) stored: StoredAs,
    /// The configuration in its descriptor, as of the last store that was asked for.
    pub(crate) stored_configuration: Configuration,
    /// Keeps in the log what a learner may still need; with the decree from which on.
    pub(crate) pin: Option<(Decree, LogPin)>,
    /// Nodes that the replica teaches, as primary.
    pub(crate) lessons: Lessons,
    /// Former members that the log is kept for, as primary.
    pub(crate) leavers: Leavers,
    /// Number of the last checkpoint that the replica asked for, as learner.
    pub(crate) fetch: u64,
    /// Role, ballot and readiness as last reported.
    pub(crate) reported: (Role, Ballot, bool),
}

/// A copy that is out of service and has no replica, until it is learned again or the node restarts.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    /// Of its descriptor; 0 if that is not known either.
    pub(crate) ballot: Ballot,
    /// What is wrong.
    pub(crate) problem: (Status, String),
}

impl Broken {
    /// A copy that lost something it had promised to keep.
    pub(crate) fn damaged(ballot: Ballot, message: String) -> Broken {
        Broken { ballot, problem: (Status::Damaged, message) }
    }

    /// A copy that was closed; nothing says that it lost anything.
    pub(crate) fn closed(copy: &Partition) -> Broken {
        let closed = || (Status::StorageFailed, "the copy was closed; restart the node".to_owned());
        Broken { ballot: copy.replica.ballot(), problem: copy.problem.clone().unwrap_or_else(closed) }
    }

    /// What the copy is worth, for the meta service.
    pub(crate) fn state(&self) -> ReplicaState {
        if self.problem.0 == Status::Damaged { ReplicaState::Damaged } else { ReplicaState::Whole }
    }
}

/// A replication stream of one partition.
pub(crate) struct PeerStream {
    /// Names the stream; rising on this core.
    pub(crate) session: Session,
    /// Where messages go.
    pub(crate) outbox: Outbox,
}

/// An append that waits to be durable.
pub(crate) struct LogWait {
    /// Its place in the log.
    pub(crate) sequence: LogSequence,
    /// Whose it is.
    pub(crate) partition: PartitionId,
    /// Its name at the replica.
    pub(crate) token: AppendToken,
}

/// A record that the log had no room for.
pub(crate) struct StalledAppend {
    /// The record.
    pub(crate) record: LogRecord,
    /// When it counts as logged.
    pub(crate) durability: Durability,
    /// Its name at the replica.
    pub(crate) token: AppendToken,
}

impl Partition {
    /// A copy with no streams and nothing in flight.
    pub(crate) fn new(
        properties: TableProperties,
        id: PartitionId,
        incarnation: ReplicaIncarnation,
        replica: Replica,
        table: Table,
        flushed: Decree,
        stored: StoredAs,
    ) -> Partition {
        Partition {
            id,
            durability: DurabilityInForce::stored(properties.durability),
            properties,
            settings: None,
            environment: Arc::default(),
            gate: Gate::of(None, None, Moment(0)),
            incarnation,
            stored_configuration: replica.configuration().clone(),
            replica,
            compaction: Compaction::of(&table),
            shape: Shape::default(),
            table,
            overlay: WindowOverlay::default(),
            streams: Vec::new(),
            flushing: false,
            flushed,
            durable: None,
            problem: None,
            stored,
            pin: None,
            lessons: Lessons::default(),
            leavers: Leavers::default(),
            fetch: 0,
            reported: (Role::Inactive, Ballot(0), false),
        }
    }

    /// Names the copy.
    pub(crate) fn copy(&self) -> CopyId {
        CopyId { partition: self.id, incarnation: self.incarnation }
    }

    /// True if this is what it was last told of its table.
    pub(crate) fn has_settings(&self, settings: &Arc<TableSettings>) -> bool {
        self.settings.as_ref().is_some_and(|known| Arc::ptr_eq(known, settings))
    }

    /// What the copy is worth, for the meta service.
    pub(crate) fn state(&self) -> ReplicaState {
        if matches!(self.problem, Some((Status::Damaged, _))) { ReplicaState::Damaged } else { self.stored.state }
    }

    /// The stream with this number, if it is still open.
    pub(crate) fn stream(&self, session: Session) -> Option<&PeerStream> {
        self.streams.iter().find(|stream| stream.session == session)
    }

    /// Forgets a stream; what is queued in its outbox still goes out.
    pub(crate) fn close_stream(&mut self, session: Session) {
        if let Some(position) = self.streams.iter().position(|stream| stream.session == session) {
            self.streams.swap_remove(position).outbox.finish();
        }
    }

    /// Takes the copy out of service for good (until restart), keeping the first reason.
    pub(crate) fn fail(&mut self, status: Status, message: String) {
        tracing::error!(partition = %self.id, %status, %message, "copy taken out of service");
        self.problem.get_or_insert((status, message));
    }
}
