//! What survives a crash: per node one log, per copy a descriptor and a table.

use std::collections::VecDeque;

use bytes::Bytes;
use pegasus_replication::{AppendRecord, AppendToken, RecordKind};
use pegasus_wire::{Ballot, Configuration, Decree, Mutation};

use crate::options::HostBug;

/// Most keys a partition has in a simulation.
pub(crate) const KEYS_MAX: usize = 4;

/// The durable log of one copy as recovery would find it now: one record per decree, voided ones gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogView {
    records: Vec<Mutation>,
    pub(crate) committed: Decree,
}

/// What a record did to a view.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The mutation at this decree is the record's now.
    Written,
    /// Nothing, an equal or higher ballot was there.
    Superseded,
    /// This decree and all after it are gone.
    Dropped(Decree),
    /// The record does not continue the log.
    Gap,
}

impl LogView {
    /// One more record is durable.
    pub(crate) fn absorb(&mut self, record: &AppendRecord, bug: Option<HostBug>) -> Change {
        self.committed = self.committed.max(record.committed);
        let RecordKind::Mutation(kind) = record.kind else {
            return self.drop_stale(record.decree, record.ballot);
        };
        let mutation = Mutation {
            ballot: record.ballot,
            decree: record.decree,
            timestamp_micros: record.timestamp_micros,
            kind,
            payload: record.payload.clone(),
        };
        let (index, length) = ((record.decree.0 - 1) as usize, self.records.len());
        match self.records.get_mut(index) {
            Some(known) if known.ballot > mutation.ballot => Change::Superseded,
            Some(known) => {
                *known = mutation;
                let stale = self.records.get(index + 1).is_some_and(|next| next.ballot < record.ballot);
                if stale && bug == Some(HostBug::MutationVoidsTail) {
                    return self.drop_stale(record.decree.next(), record.ballot);
                }
                Change::Written
            }
            None if index == length => {
                self.records.push(mutation);
                Change::Written
            }
            None => Change::Gap,
        }
    }

    fn drop_stale(&mut self, from: Decree, ballot: Ballot) -> Change {
        let start = (from.0 - 1) as usize;
        let kept = self.records.iter().skip(start).take_while(|record| record.ballot >= ballot).count();
        if start + kept >= self.records.len() {
            return Change::Superseded;
        }
        self.records.truncate(start + kept);
        Change::Dropped(Decree((start + kept + 1) as u64))
    }

    pub(crate) fn last(&self) -> Decree {
        Decree(self.records.len() as u64)
    }

    pub(crate) fn get(&self, decree: Decree) -> Option<&Mutation> {
        self.records.get((decree.0 as usize).checked_sub(1)?)
    }

    pub(crate) fn beyond(&self, decree: Decree) -> &[Mutation] {
        &self.records[(decree.0 as usize).min(self.records.len())..]
    }
}

/// The rows of one copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) applied: Decree,
    /// Value and the decree that wrote it.
    pub(crate) rows: [(u64, Decree); KEYS_MAX],
}

impl Table {
    pub(crate) fn apply(&mut self, mutation: &Mutation) {
        self.applied = mutation.decree;
        if let Some((key, value)) = decode_write(&mutation.payload) {
            self.rows[key] = (value, mutation.decree);
        }
    }
}

/// What one copy has on disk.
#[derive(Clone, Debug)]
pub(crate) struct CopyDisk {
    pub(crate) descriptor: Configuration,
    pub(crate) view: LogView,
    /// What the table would be after a crash.
    pub(crate) flushed: Table,
}

/// The log of a node: what was handed to it and is not durable yet, in order, over all partitions.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeLog {
    pub(crate) pending: VecDeque<(usize, AppendToken, AppendRecord)>,
    /// Records in the write that is under way.
    pub(crate) writing: usize,
}

/// A client's write as a payload: key, value, and filler to make sizes differ.
pub(crate) fn encode_write(key: usize, value: u64, filler: usize) -> Bytes {
    let mut payload = Vec::with_capacity(9 + filler);
    payload.push(key as u8);
    payload.extend_from_slice(&value.to_le_bytes());
    payload.resize(9 + filler, 0);
    payload.into()
}

/// Key and value of a payload.
pub(crate) fn decode_write(payload: &[u8]) -> Option<(usize, u64)> {
    let value: [u8; 8] = payload.get(1..9)?.try_into().ok()?;
    Some((payload[0] as usize, u64::from_le_bytes(value)))
}
