//! Every reason to refuse a request, in order, in one place. What can be wrong with the request itself is in `checks`.
//! What a table refuses as a whole comes before all of this: it was dropped, denies, is throttled (`gate`).
//!
//! For reads: the partition is here, it is whole, this replica serves. For writes, plain or read-dependent, also: what
//! is written is within all limits, its rows belong to the partition, the log and the disk take it, the replica may
//! propose.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use pegasus_replication::{Event, Moment};
use pegasus_wire::environment::TableLimits;
use pegasus_wire::frame::read_body;
use pegasus_wire::messages::data::{ArchivedWrite, Write};
use pegasus_wire::{MessageKind, MutationKind, PartitionId, Status, expiry, owner_core};

use super::checks::{check_operations, check_write_bytes, check_write_key};
use super::outcome::Refusal;
use super::partition::Broken;
use super::payload::{self, plain_operation, with_expiry};
use super::pending::Completion;
use super::request::Request;
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
        read(partition, self.now_seconds(partition))
    }

    /// Runs `check` on a partition that takes a write at `now`, a reading of the clock after the request was received.
    /// `check` says what is wrong with the write itself, which comes before whatever is wrong with the moment.
    pub(crate) fn with_writable<T>(
        &self,
        state: &State,
        partition: PartitionId,
        now: Moment,
        check: impl FnOnce(&Partition) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let partition = self.find(state, partition)?;
        let checked = check(partition)?;
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
        partition.replica.admit(now).map_err(|status| self.not_serving(state, partition, status))?;
        if !state.stalled.is_empty() {
            return Err(Refusal::new(Status::Busy, "the mutation log waits for tables to be flushed"));
        }
        Ok(checked)
    }

    /// The second (since 2016) that counts as now for expiry: never before the last stamp of the partition, so that a
    /// failover to a slower clock brings nothing back that had expired at the last write.
    pub(crate) fn now_seconds(&self, partition: &Partition) -> u32 {
        expiry::seconds_since_epoch(self.clock_micros().max(partition.replica.timestamp_micros()))
    }

    /// The expiry of rows that are put without one; `None` if they stay until they are deleted.
    pub(crate) fn default_expiry(&self, partition: &Partition) -> Option<u32> {
        match partition.environment.default_ttl_seconds {
            0 => None,
            ttl_seconds => Some(expiry::expiry_seconds(self.now_seconds(partition), ttl_seconds)),
        }
    }

    /// Refuses a write or proposes it; the answer follows when it has committed and is applied. `body` is that of a
    /// `Write` frame, not checked yet; it becomes the mutation's payload.
    pub(crate) fn write(&self, request: Request, body: &Bytes, now: Moment) {
        let admitted = self.admit_write(body, now);
        let mut state = self.state.borrow_mut();
        match admitted {
            Err(refusal) => {
                state.counters.writes_refused += 1;
                drop(state);
                request.refuse(refusal);
            }
            Ok((partition, payload)) => self.propose(&mut state, partition, request, payload, Completion::Written),
        }
    }

    /// Queues the proposal of a write that was admitted.
    pub(crate) fn propose(
        &self,
        state: &mut State,
        partition: PartitionId,
        request: Request,
        payload: Bytes,
        completion: Completion,
    ) {
        state.counters.writes_proposed += 1;
        let request = state.pending.insert(request, completion);
        let timestamp_micros = self.clock_micros();
        let event = Event::Propose { request, timestamp_micros, kind: MutationKind::Write, payload };
        state.events.push_back((partition, event));
    }

    /// The same for a write that arrived in another form than ours.
    pub(crate) fn write_rows(&self, request: Request, write: &Write<'_>, now: Moment) {
        let admitted = self.admit_rows(write, now);
        let mut state = self.state.borrow_mut();
        match admitted {
            Err(refusal) => {
                state.counters.writes_refused += 1;
                drop(state);
                request.refuse(refusal);
            }
            Ok(payload) => self.propose(&mut state, write.partition, request, payload, Completion::Written),
        }
    }

    fn admit_rows(&self, write: &Write<'_>, now: Moment) -> Result<Bytes, Refusal> {
        let state = self.state.borrow();
        self.with_writable(&state, write.partition, now, |partition| {
            let limits = &partition.environment.limits;
            check_write_key(partition, write.hash_key, write.operations.iter().copied())?;
            check_operations(limits, write.operations.iter().copied())?;
            let payload = payload::encode_with_default(write, self.default_expiry(partition));
            check_write_bytes(limits, payload.len())?;
            Ok(payload)
        })
    }

    fn admit_write(&self, body: &Bytes, now: Moment) -> Result<(PartitionId, Bytes), Refusal> {
        check_write_bytes(&TableLimits::default(), body.len())?;
        let write = read_body::<ArchivedWrite<'_>>(MessageKind::WRITE, body)
            .map_err(|error| Refusal::new(Status::Malformed, error.to_string()))?;
        let id = PartitionId::from(&write.partition);
        let state = self.state.borrow();
        self.with_writable(&state, id, now, |partition| {
            let limits = &partition.environment.limits;
            check_write_bytes(limits, body.len())?;
            check_write_key(partition, &write.hash_key, write.operations.iter().map(plain_operation))?;
            check_operations(limits, write.operations.iter().map(plain_operation))?;
            let default = self.default_expiry(partition);
            let payload = default.and_then(|expiry_seconds| with_expiry(write, expiry_seconds));
            Ok((id, payload.unwrap_or_else(|| unpinned(body))))
        })
    }

    /// The partition, if this core holds a copy that is fit to serve.
    pub(crate) fn find<'s>(&self, state: &'s State, id: PartitionId) -> Result<&'s Partition, Refusal> {
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
            let message = format!("core {owner} of this node owns partition {id}");
            return Refusal { endpoint: Some(endpoint), ..Refusal::new(Status::StaleRoute, message) };
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
