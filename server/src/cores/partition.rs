//! One copy of a partition on its core: the replica that decides, the table that stores, the streams to the others.

use pegasus_engine::log::LogSequence;
use pegasus_engine::table::Table;
use pegasus_replication::{AppendToken, Replica, Session};
use pegasus_rpc::Outbox;
use pegasus_wire::{Decree, NodeId, PartitionId, ReplicaIncarnation, Status, TableProperties};

/// A copy. The replica has at most one apply outstanding, so decrees are applied in order also through the pool.
pub struct Partition {
    /// Which partition.
    pub id: PartitionId,
    /// The table's properties as last told.
    pub properties: TableProperties,
    /// Which copy; stamped on log records.
    pub incarnation: ReplicaIncarnation,
    /// The protocol state.
    pub replica: Replica,
    /// The rows.
    pub table: Table,
    /// Open replication streams, both directions.
    pub streams: Vec<PeerStream>,
    /// A flush is in the pool.
    pub flushing: bool,
    /// Last decree that survives a crash without the log.
    pub flushed: Decree,
    /// The newest append token known durable and not yet reported to the replica.
    pub durable: Option<AppendToken>,
    /// Set when the copy does not serve.
    pub problem: Option<(Status, String)>,
}

/// A replication stream of one partition.
pub struct PeerStream {
    /// Who is at the other end.
    pub peer: NodeId,
    /// Names the stream; rising on this core.
    pub session: Session,
    /// Where messages go.
    pub outbox: Outbox,
}

/// An append that waits to be durable.
pub struct LogWait {
    /// Its place in the log.
    pub sequence: LogSequence,
    /// Whose it is.
    pub partition: PartitionId,
    /// Its name at the replica.
    pub token: AppendToken,
}

impl Partition {
    /// A copy with no streams and nothing in flight.
    pub fn new(
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
    pub fn stream(&self, session: Session) -> Option<&PeerStream> {
        self.streams.iter().find(|stream| stream.session == session)
    }

    /// Forgets a stream; what is queued in its outbox still goes out.
    pub fn close_stream(&mut self, session: Session) {
        if let Some(position) = self.streams.iter().position(|stream| stream.session == session) {
            self.streams.swap_remove(position).outbox.finish();
        }
    }

    /// Takes the copy out of service for good (until restart), keeping the first reason.
    pub fn fail(&mut self, status: Status, message: String) {
        tracing::error!(partition = %self.id, %status, %message, "copy taken out of service");
        self.problem.get_or_insert((status, message));
    }
}
