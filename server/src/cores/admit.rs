//! Every reason to refuse a request, in order, in one place.
//!
//! For reads: the partition is here, it is whole, this replica serves. For writes also: the bytes are a write
//! within all limits, its rows belong to the partition, the log and the disk take it, the replica may propose.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use pegasus_replication::{Event, Moment};
use pegasus_wire::limits::{SORT_KEY_BYTES_MAX, VALUE_BYTES_MAX, WRITE_BYTES_MAX, WRITE_ROWS_MAX};
use pegasus_wire::messages::data::{ArchivedRowOperation, ArchivedWrite};
use pegasus_wire::{Frame, MutationKind, PartitionId, Status, expiry, hash, key, owner_core};

use super::partition::Broken;
use super::reads::invalid_key;
use super::session::{Refusal, Request};
use super::{Core, Partition, State};

/// Payloads up to this size are copied out of the receive buffer: a few small writes in the window would
/// otherwise pin whole datagram buffers.
const COPIED_PAYLOAD_BYTES: usize = 4096;

impl Core {
    /// Runs `read` on a partition that may be read at `now`, a reading of the clock after the request was received;
    /// with the second that counts as now for expiry. What is read later, in a pool, was admitted here: a point between
    /// request and answer is all that a read promises.
    pub(crate) fn with_readable<T>(
        &self,
        partition: PartitionId,
        now: Moment,
        read: impl FnOnce(&Partition, u32) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let state = self.state.borrow();
        let partition = self.find(&state, partition)?;
        if let Err(status) = partition.replica.admit_read(now) {
            return Err(self.not_serving(&state, partition, status));
        }
        let now_micros = self.clock_micros().max(partition.replica.timestamp_micros());
        read(partition, expiry::seconds_since_epoch(now_micros))
    }

    /// Refuses a write or proposes it; the answer follows when it has committed and is applied.
    pub(crate) fn write(&self, request: Request, frame: Frame, now: Moment) {
        let admitted = self.admit_write(&frame, now);
        let mut state = self.state.borrow_mut();
        match admitted {
            Err(refusal) => {
                state.counters.writes_refused += 1;
                drop(state);
                request.refuse(refusal);
            }
            Ok((partition, payload)) => {
                state.counters.writes_proposed += 1;
                let token = state.pending.insert(request);
                let timestamp_micros = self.clock_micros();
                state.events.push_back((
                    partition,
                    Event::Propose { request: token, timestamp_micros, kind: MutationKind::Write, payload },
                ));
            }
        }
    }

    fn admit_write(&self, frame: &Frame, now: Moment) -> Result<(PartitionId, Bytes), Refusal> {
        if frame.body.len() > WRITE_BYTES_MAX {
            return Err(Refusal::new(
                Status::TooLarge,
                format!("a write of {} bytes, the limit is {WRITE_BYTES_MAX} (write_bytes_max)", frame.body.len()),
            ));
        }
        let write =
            frame.body::<ArchivedWrite<'_>>().map_err(|error| Refusal::new(Status::Malformed, error.to_string()))?;
        let id = PartitionId::from(&write.partition);
        let state = self.state.borrow();
        let partition = self.find(&state, id)?;
        check_write(partition, write)?;
        if state.stopping {
            return Err(Refusal::plain(Status::ShuttingDown));
        }
        if state.log_failed {
            return Err(Refusal::new(
                Status::StorageFailed,
                "the mutation log of this core is closed; see the node's log",
            ));
        }
        if self.shared.disk_low.load(Ordering::Relaxed) {
            return Err(Refusal::new(Status::StorageFailed, "the disk is below its reserve: free space on the node"));
        }
        partition.replica.admit(now).map_err(|status| self.not_serving(&state, partition, status))?;
        if !state.stalled.is_empty() {
            return Err(Refusal::new(Status::Busy, "the mutation log waits for tables to be flushed"));
        }
        Ok((id, unpinned(&frame.body)))
    }

    /// The partition, if this core holds a copy that is fit to serve.
    fn find<'s>(&self, state: &'s State, id: PartitionId) -> Result<&'s Partition, Refusal> {
        match state.partitions.get(&id) {
            Some(partition) => match &partition.problem {
                None => Ok(partition),
                Some((status, message)) => Err(Refusal::new(*status, message.clone())),
            },
            None => Err(self.not_here(state, id)),
        }
    }

    fn not_here(&self, state: &State, id: PartitionId) -> Refusal {
        let owner = owner_core(id, self.shared.config.cores);
        if owner != self.id {
            let mut endpoint = self.shared.config.listen;
            endpoint.set_port(endpoint.port() + owner);
            return Refusal {
                status: Status::StaleRoute,
                message: format!("core {owner} of this node owns partition {id}"),
                endpoint: Some(endpoint),
            };
        }
        if let Some(Broken { problem: (status, message), .. }) = state.broken.get(&id) {
            return Refusal::new(*status, message.clone());
        }
        if state.missing.contains(&id) {
            return Refusal::new(
                Status::Damaged,
                format!("partition {id} is assigned to this node, but its copy is gone from the data directory"),
            );
        }
        if let Some(doing) = state.opening.get(&id) {
            return Refusal::new(Status::NotServing, format!("the copy of partition {id} on this node {doing}"));
        }
        Refusal::plain(Status::NoSuchPartition)
    }

    /// Adds to a replica's refusal where the primary is.
    fn not_serving(&self, state: &State, partition: &Partition, status: Status) -> Refusal {
        let mut refusal = Refusal::plain(status);
        if matches!(status, Status::NotServing | Status::NotEnoughMembers) {
            let mut waits_for = partition.replica.describe().waits_for;
            if waits_for.is_empty() {
                waits_for = "the lease of a member, or another primary".to_owned();
            }
            refusal.message = format!("{status}; the partition waits for {waits_for}");
        }
        if status == Status::NotPrimary
            && let Some(primary) = partition.replica.configuration().primary
            && let Some(node) = state.nodes.get(&primary)
        {
            refusal.endpoint = Some(node.endpoint(partition.id));
        }
        refusal
    }
}

/// A payload to keep: small ones in memory of their own, large ones shared with the frame.
pub(crate) fn unpinned(payload: &Bytes) -> Bytes {
    if payload.len() <= COPIED_PAYLOAD_BYTES { Bytes::copy_from_slice(payload) } else { payload.clone() }
}

/// Checks a write against the data model and the partition.
fn check_write(partition: &Partition, write: &ArchivedWrite<'_>) -> Result<(), Refusal> {
    key::check_hash_key(&write.hash_key).map_err(invalid_key)?;
    let rows = write.operations.len();
    if rows == 0 {
        return Err(Refusal::new(Status::InvalidArgument, "a write needs at least one row"));
    }
    if rows > WRITE_ROWS_MAX {
        return Err(Refusal::new(
            Status::TooLarge,
            format!("a write of {rows} rows, the limit is {WRITE_ROWS_MAX} (write_rows_max)"),
        ));
    }
    for operation in write.operations.iter() {
        let (sort_key, value_bytes) = match operation {
            ArchivedRowOperation::Put { sort_key, value, .. } => (sort_key, value.len()),
            ArchivedRowOperation::Delete { sort_key } => (sort_key, 0),
        };
        if sort_key.len() > SORT_KEY_BYTES_MAX {
            return Err(invalid_key(key::KeyError::SortKeyTooLong(sort_key.len())));
        }
        if value_bytes > VALUE_BYTES_MAX {
            return Err(Refusal::new(
                Status::TooLarge,
                format!("a value of {value_bytes} bytes, the limit is {VALUE_BYTES_MAX} (value_bytes_max)"),
            ));
        }
    }
    if hash::partition_index(&write.hash_key, b"", partition.properties.partition_count) != partition.id.index {
        return Err(Refusal::new(
            Status::InvalidArgument,
            format!("the hash key does not belong to partition {}", partition.id),
        ));
    }
    Ok(())
}
