//! Pegasus's own clients: their protocol on TCP, at the number of the core's QUIC port.
//!
//! A client is told this core's address as that of a partition's primary, so its requests arrive where they are carried
//! out. Bytes are read and written by `pegasus-gateway`; what is asked for goes to the same functions as the requests
//! of our own protocol, as plain borrowed structures: values are slices of the receive buffer.
//!
//! ```text
//!   accept --> connection --> receive --> calls --> reads, rows, scans, admit, execute
//!                  |                                                    |
//!                  +--- outbox <-- answers <----------------------------+ outcome or refusal
//! ```
//!
//! Nothing here may trust a byte that arrives, or hold memory for a client that does not ask or does not listen: what
//! is unanswered, unsent and unfinished of a connection is bounded, and an idle one has no buffer.

mod answers;
mod calls;
mod connection;
mod count;
mod listen;
mod outbox;
mod scanners;
mod translate;

use std::cell::Cell;

use pegasus_gateway::Rpc;
use pegasus_wire::PartitionId;

use super::partition::CopyId;

pub(crate) use answers::{answer, refuse};
pub(crate) use listen::bind;
pub(crate) use outbox::{Outboxes, SocketOutbox};
pub(crate) use scanners::{ScanCall, Scanners};

/// Bytes after which an answer with rows ends. Pegasus goes on to 30 MiB; clients see a read that is not complete.
pub(crate) const READ_BYTES_MAX: usize = 4 << 20;

/// A request of a client of Pegasus, as far as its answer depends on it.
pub(crate) struct Call {
    /// What it asks for.
    pub(crate) rpc: Rpc,
    /// The answer repeats it.
    pub(crate) sequence: i32,
    /// Whom it is for; the answer repeats it.
    pub(crate) partition: PartitionId,
    /// What else the answer depends on.
    pub(crate) detail: Detail,
    /// The client has asked another node as well: who cannot answer says nothing.
    pub(crate) is_backup: bool,
}

/// What the answer depends on, beside the method.
pub(crate) enum Detail {
    /// Nothing.
    Nothing,
    /// Rows that were named in the request.
    Named(usize),
    /// The value checked is wanted.
    ReturnValue(bool),
    /// The scan that the rows are of; taken by the answer.
    Scan {
        /// What it is about.
        scan: Cell<Option<Box<ScanCall>>>,
        /// The copy that is read.
        copy: CopyId,
    },
}
