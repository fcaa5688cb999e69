//! One copy of a partition on its core: the replica that decides, the table that stores, the streams to the others.

use pegasus_engine::log::{LogRecord, LogSequence};
use pegasus_engine::table::Table;
use pegasus_replication::{AppendToken, Replica, Session};
use pegasus_rpc::Outbox;
use pegasus_wire::{Decree, Durability, PartitionId, ReplicaIncarnation, Status, TableProperties};

/// A copy. The replica has at most one apply outstanding, so decrees are applied in order also through the pool.
pub(crate) struct Partition {
    /// Which partition.
    pub(crate) id: PartitionId,
    /// The table's properties as last told.
    pub(crate) properties: TableProperties,
    /// Which copy; stamped on log records.
    pub(crate) incarnation: ReplicaIncarnation,
    /// The protocol state.
    pub(crate) replica: Replica,
    /// The rows.
    pub(crate) table: Table,
    /// Open replication streams, both directions.
    pub(crate) streams: Vec<PeerStream>,
    /// A flush is in the pool.
    pub(crate) flushing: bool,
    /// Last decree that survives a crash without the log.
    pub(crate) flushed: Decree,
    /// The newest append token known durable and not yet reported to the replica.
    pub(crate) durable: Option<AppendToken>,
    /// Set when the copy does not serve.
    pub(crate) problem: Option<(Status, String)>,
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
    ) -> Partition {
        Partition {
            id,
            properties,
            incarnation,
            replica,
            table,
            streams: Vec::new(),
            flushing: false,
            flushed,
            durable: None,
            problem: None,
        }
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
