//! What survives a crash: per node one log, per copy a descriptor and a table.

use std::collections::VecDeque;

use bytes::Bytes;
use pegasus_replication::{AppendRecord, AppendToken};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Ballot, Configuration, Decree, Mutation};

use crate::log_view::LogView;

/// Most keys a partition has in a simulation.
pub(crate) const KEYS_MAX: usize = 4;

/// What a key holds: the number of the operation that wrote it and the value; 0 for no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    /// 0: no row.
    pub(crate) value: u64,
    /// What wrote it, or removed it.
    pub(crate) decree: Decree,
}

/// The rows of one copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) applied: Decree,
    pub(crate) rows: [Row; KEYS_MAX],
}

impl Table {
    pub(crate) fn apply(&mut self, mutation: &Mutation) {
        self.applied = mutation.decree;
        if let Some(write) = Write::decode(&mutation.payload) {
            self.rows[write.key] = Row { value: write.value, decree: mutation.decree };
        }
    }
}

/// A client's write as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) key: usize,
    /// The operation it belongs to; no two have the same.
    pub(crate) operation: u64,
    /// 0 removes the row.
    pub(crate) value: u64,
}

impl Write {
    /// The payload, with filler to make sizes differ.
    pub(crate) fn encode(self, filler: usize) -> Bytes {
        let mut payload = Vec::with_capacity(17 + filler);
        payload.push(self.key as u8);
        payload.extend_from_slice(&self.operation.to_le_bytes());
        payload.extend_from_slice(&self.value.to_le_bytes());
        payload.resize(17 + filler, 0);
        payload.into()
    }

    /// The reverse; `None` for the payload of an empty mutation.
    pub(crate) fn decode(payload: &[u8]) -> Option<Write> {
        let number = |from: usize| Some(u64::from_le_bytes(payload.get(from..from + 8)?.try_into().ok()?));
        Some(Write { key: usize::from(*payload.first()?), operation: number(1)?, value: number(9)? })
    }
}

/// What one copy has on disk.
#[derive(Clone, Debug)]
pub(crate) struct CopyDisk {
    /// Names the copy among those this node had of the partition.
    pub(crate) incarnation: u64,
    pub(crate) descriptor: Configuration,
    /// What the descriptor says of the copy.
    pub(crate) state: ReplicaState,
    /// Boot id of the machine when the copy was last known to be whole.
    pub(crate) boot: u64,
    /// What a restart of the process finds.
    pub(crate) view: LogView,
    /// What a restart of the machine finds at least; only where that may be less.
    pub(crate) synced: Option<LogView>,
    /// What the table would be after a crash.
    pub(crate) flushed: Table,
}

impl CopyDisk {
    /// What the copy is worth in this run of the machine. Under `written` durability it may have lost what it
    /// acknowledged if the machine was started since; under the assignment nothing was acknowledged.
    pub(crate) fn state_at(&self, boot: u64) -> ReplicaState {
        let fresh = self.synced.is_none() || self.boot == boot || self.descriptor.ballot <= Ballot::ASSIGNMENT;
        if self.state == ReplicaState::Whole && !fresh { ReplicaState::Uncertain } else { self.state }
    }
}

/// One record on its way to the disk, or on it.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) partition: usize,
    pub(crate) incarnation: u64,
    pub(crate) token: AppendToken,
    pub(crate) record: AppendRecord,
}

/// The log of a node, over all partitions, beyond what is in the views.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeLog {
    /// Handed to it and not confirmed, in order.
    pub(crate) pending: VecDeque<Pending>,
    /// How many of these are in the write that is under way.
    pub(crate) writing: usize,
    /// True after a failed write: it takes nothing more.
    pub(crate) closed: bool,
    /// Written and confirmed under `written` durability, and not synced.
    pub(crate) unsynced: VecDeque<Pending>,
    /// Not confirmed at the last crash and cut off since, but still on the disk behind the end of the log.
    pub(crate) cut_tail: Vec<Pending>,
    /// The same of the crash before.
    pub(crate) old_tail: Vec<Pending>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_round_trip() {
        let write = Write { key: 2, operation: 77, value: u64::MAX };
        assert_eq!(Write::decode(&write.encode(0)), Some(write));
        assert_eq!(Write::decode(&write.encode(9)), Some(write));
        assert_eq!(Write::decode(&[]), None);
    }
}
