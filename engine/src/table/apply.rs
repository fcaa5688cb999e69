//! Applying committed mutations.

use std::sync::TryLockError;
use std::sync::atomic::Ordering;

use pegasus_wire::frame::read_body;
use pegasus_wire::key;
use pegasus_wire::limits::HASH_KEY_BYTES_MAX;
use pegasus_wire::messages::data::{ArchivedRowOperation, ArchivedWrite, SortKeys};
use pegasus_wire::{MessageKind, Mutation, MutationKind, PartitionId};
use rocksdb::{ErrorKind, WriteBatch};

use super::layout::{APPLIED_KEY, AppliedRecord, encode_range_end};
use super::value::{self, ValueHeader};
use super::{Table, TableError};

/// Whether an apply may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyMode {
    /// RocksDB answers at once where it would slow the writer down. For serving cores.
    NoSlowdown,
    /// Waits as long as RocksDB wants. For pools.
    Blocking,
}

/// What became of a batch of mutations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a batch that would stall was not applied"]
pub enum ApplyOutcome {
    /// All of them are applied.
    Applied,
    /// None of them is: apply the same batch with [`ApplyMode::Blocking`]. Only with [`ApplyMode::NoSlowdown`].
    WouldStall,
}

/// Buffers that live from one batch to the next.
#[derive(Default)]
pub(super) struct Applier {
    key: Vec<u8>,
    value: Vec<u8>,
    end: Vec<u8>,
}

impl Table {
    /// Applies committed mutations, all or none of them, in one write batch with the applied decree. The first must
    /// follow [`Table::applied`] and the rest follow each other; a caller that breaks this is broken itself.
    ///
    /// A batch is applied by one thread at a time: while one is in a pool, later ones wait behind it at the caller.
    /// Any error stops the copy: a committed mutation is never skipped.
    pub fn apply(&self, mutations: &[Mutation], mode: ApplyMode) -> Result<ApplyOutcome, TableError> {
        let inner = &*self.inner;
        let Some(last) = mutations.last() else { return Ok(ApplyOutcome::Applied) };
        let mut applier = match (inner.applier.try_lock(), mode) {
            (Ok(applier), _) => applier,
            // A panic while a batch was built leaves buffers that are cleared before use.
            (Err(TryLockError::Poisoned(poisoned)), _) => poisoned.into_inner(),
            (Err(TryLockError::WouldBlock), ApplyMode::NoSlowdown) => return Ok(self.would_stall()),
            (Err(TryLockError::WouldBlock), ApplyMode::Blocking) => {
                inner.applier.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
            }
        };
        self.assert_next(mutations);
        let mut batch = WriteBatch::with_capacity_bytes(batch_bytes(mutations));
        let mut rows = 0;
        for mutation in mutations {
            rows += applier.add(&mut batch, inner.partition, mutation)?;
        }
        let record =
            AppliedRecord { decree: last.decree, ballot: last.ballot, timestamp_micros: last.timestamp_micros };
        batch.put(APPLIED_KEY, record.encode());
        let options = match mode {
            ApplyMode::NoSlowdown => &inner.inline_writes,
            ApplyMode::Blocking => &inner.blocking_writes,
        };
        match inner.db.write_opt(batch, options) {
            Ok(()) => {}
            Err(error) if mode == ApplyMode::NoSlowdown && error.kind() == ErrorKind::Incomplete => {
                return Ok(self.would_stall());
            }
            Err(error) => return Err(self.failed("apply", error)),
        }
        self.set_applied(&record);
        inner.counters.batches.fetch_add(1, Ordering::Relaxed);
        inner.counters.mutations.fetch_add(mutations.len() as u64, Ordering::Relaxed);
        inner.counters.rows_written.fetch_add(rows, Ordering::Relaxed);
        Ok(ApplyOutcome::Applied)
    }

    pub(super) fn set_applied(&self, record: &AppliedRecord) {
        // The stamp first: who sees the decree must not see an older stamp.
        self.inner.timestamp_micros.store(record.timestamp_micros, Ordering::Release);
        self.inner.applied.store(record.decree.0, Ordering::Release);
    }

    fn would_stall(&self) -> ApplyOutcome {
        self.inner.counters.would_stall.fetch_add(1, Ordering::Relaxed);
        ApplyOutcome::WouldStall
    }

    fn assert_next(&self, mutations: &[Mutation]) {
        let mut expected = self.applied().next();
        for mutation in mutations {
            assert_eq!(mutation.decree, expected, "mutations are applied in decree order, each once");
            expected = expected.next();
        }
    }
}

impl Applier {
    /// Adds the rows of one mutation to the batch; gives their number.
    fn add(&mut self, batch: &mut WriteBatch, partition: PartitionId, mutation: &Mutation) -> Result<u64, TableError> {
        let corrupt = |detail: String| TableError::Corrupt { partition, decree: mutation.decree, detail };
        match mutation.kind {
            MutationKind::Empty => return Ok(0),
            MutationKind::Write => {}
        }
        let write = read_body::<ArchivedWrite<'_>>(MessageKind::WRITE, &mutation.payload)
            .map_err(|error| corrupt(error.to_string()))?;
        if PartitionId::from(&write.partition) != partition {
            return Err(corrupt(format!("it is of partition {}", PartitionId::from(&write.partition))));
        }
        if write.hash_key.len() > HASH_KEY_BYTES_MAX {
            return Err(corrupt(format!("its hash key has {} bytes", write.hash_key.len())));
        }
        let time_tag = value::time_tag(mutation.timestamp_micros);
        for operation in write.operations.iter() {
            match operation {
                ArchivedRowOperation::Put { sort_key, value: data, expiry_seconds } => {
                    key::encode_into(&mut self.key, &write.hash_key, sort_key);
                    let header = ValueHeader { expiry_seconds: expiry_seconds.to_native(), time_tag };
                    value::encode_into(&mut self.value, header, data);
                    batch.put(&self.key, &self.value);
                }
                ArchivedRowOperation::Delete { sort_key } => {
                    key::encode_into(&mut self.key, &write.hash_key, sort_key);
                    batch.delete(&self.key);
                }
                ArchivedRowOperation::DeleteRange { range } => {
                    self.add_range(batch, &write.hash_key, &range.plain());
                }
            }
        }
        Ok(write.operations.len() as u64)
    }

    /// A range that has no keys deletes nothing: RocksDB would refuse it.
    fn add_range(&mut self, batch: &mut WriteBatch, hash_key: &[u8], range: &SortKeys<'_>) {
        if range.is_empty() {
            return;
        }
        key::encode_into(&mut self.key, hash_key, range.start);
        if range.start == range.stop && !range.stop.is_empty() {
            // A range of one key; deletes of rows cost less than those of ranges.
            batch.delete(&self.key);
            return;
        }
        if !range.start_inclusive {
            self.key.push(0);
        }
        encode_range_end(&mut self.end, hash_key, range.stop, range.stop_inclusive);
        if self.key < self.end {
            batch.delete_range(&self.key, &self.end);
        }
    }
}

/// Room for a batch, so that it grows rarely: rows repeat the hash key, but an archive has padding of its own.
fn batch_bytes(mutations: &[Mutation]) -> usize {
    mutations.iter().map(|mutation| mutation.payload.len() + 32).sum::<usize>() + 96
}
