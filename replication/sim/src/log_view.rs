//! The log of one copy as recovery would find it: one record for each decree, what is void or collected is gone.

use std::collections::VecDeque;

use pegasus_replication::{AppendRecord, RecordKind};
use pegasus_wire::{Ballot, Decree, Mutation};

use crate::options::HostBug;

/// What a record did to a view.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The mutation at this decree is the record's now.
    Written,
    /// Nothing, an equal or higher ballot was there, or the decree is in the table's files.
    Superseded,
    /// This decree and all after it are gone.
    Dropped(Decree),
    /// The record does not continue the log.
    Gap,
}

/// Truncations that are remembered; older ones went with the segments they were in.
const TRUNCATIONS_MAX: usize = 8;

/// The records of one copy.
///
/// Invariants: `records[i]` has decree `base + 1 + i`; what is at or below `base` was collected, and is in the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogView {
    base: Decree,
    records: VecDeque<Mutation>,
    /// Truncations that may still void something, each with its first decree.
    truncations: Vec<(Decree, Ballot)>,
    /// The highest ballot of any record, a truncation's included.
    pub(crate) ballot: Ballot,
    /// The highest commit point in any record.
    pub(crate) committed: Decree,
}

impl LogView {
    /// An empty log behind a table that ends at a decree.
    pub(crate) fn beginning_at(base: Decree) -> LogView {
        LogView { base, committed: base, ..LogView::default() }
    }

    /// One more record is there.
    pub(crate) fn absorb(&mut self, record: &AppendRecord, bug: Option<HostBug>) -> Change {
        self.committed = self.committed.max(record.committed);
        self.ballot = self.ballot.max(record.ballot);
        let RecordKind::Mutation(kind) = record.kind else {
            self.truncations.push((record.decree, record.ballot));
            return self.drop_stale(record.decree, record.ballot);
        };
        if record.decree <= self.base || self.is_void(record.decree, record.ballot) {
            return Change::Superseded;
        }
        let mutation = Mutation {
            ballot: record.ballot,
            decree: record.decree,
            timestamp_micros: record.timestamp_micros,
            kind,
            payload: record.payload.clone(),
        };
        let (index, length) = (self.index(record.decree), self.records.len());
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
                self.records.push_back(mutation);
                Change::Written
            }
            None => Change::Gap,
        }
    }

    fn is_void(&self, decree: Decree, ballot: Ballot) -> bool {
        self.truncations.iter().any(|(from, higher)| *from <= decree && *higher > ballot)
    }

    fn drop_stale(&mut self, from: Decree, ballot: Ballot) -> Change {
        let start = self.index(from.max(self.base.next()));
        let kept = self.records.iter().skip(start).take_while(|record| record.ballot >= ballot).count();
        if start + kept >= self.records.len() {
            return Change::Superseded;
        }
        self.records.truncate(start + kept);
        Change::Dropped(Decree(self.base.0 + (start + kept + 1) as u64))
    }

    fn index(&self, decree: Decree) -> usize {
        (decree.0 - self.base.0 - 1) as usize
    }

    /// What is in the table's files needs no record any more.
    pub(crate) fn collect(&mut self, through: Decree) {
        while self.base < through && !self.records.is_empty() {
            self.records.pop_front();
            self.base = self.base.next();
        }
        if self.truncations.len() > TRUNCATIONS_MAX {
            self.truncations.remove(0);
        }
    }

    /// The table's files reach beyond the log, which lost its end: it goes on behind them.
    pub(crate) fn skip_to(&mut self, applied: Decree) {
        if self.last() < applied {
            *self = LogView { base: applied, records: VecDeque::new(), ..std::mem::take(self) };
        }
        self.committed = self.committed.max(applied);
    }

    /// Everything at or below was collected.
    pub(crate) fn base(&self) -> Decree {
        self.base
    }

    /// The last decree it holds.
    pub(crate) fn last(&self) -> Decree {
        Decree(self.base.0 + self.records.len() as u64)
    }

    /// The record at a decree.
    pub(crate) fn get(&self, decree: Decree) -> Option<&Mutation> {
        self.records.get((decree.0 as usize).checked_sub(self.base.0 as usize + 1)?)
    }

    /// The records after a decree.
    pub(crate) fn beyond(&self, decree: Decree) -> impl Iterator<Item = &Mutation> {
        self.records.iter().skip(decree.0.saturating_sub(self.base.0) as usize)
    }

    /// Up to where it is known to be as the primary of its highest ballot had it: what is committed or in the table,
    /// and the run of records of that ballot. What lies beyond may be a tail nobody else has.
    pub(crate) fn settled_through(&self, ballot: Ballot, applied: Decree) -> Decree {
        let from = self.committed.max(applied).min(self.last());
        Decree(from.0 + self.beyond(from).take_while(|record| record.ballot == ballot).count() as u64)
    }
}
