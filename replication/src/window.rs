//! The window: the mutations a replica has prepared and not yet applied, and how far each of them has come.
//!
//! ```text
//!   in the table     in the window (a ring, indexed by decree)
//!  ------------+------------------------------------------------------------------+
//!              |  apply is  |            |  logged under |  appended  |  inherited |
//!              |  running   |  committed |  this ballot  |            |            |
//!  ------------+------------+------------+---------------+------------+------------+
//!           applied      handed      committed       confirmed     prepared      last
//! ```
//!
//! `inherited` are mutations of lower ballots that the primary has not prepared again yet. On a primary that has
//! taken its ballot there are none: `prepared == last`.

use std::collections::VecDeque;

use pegasus_wire::{Ballot, Decree, Mutation};

use crate::event::{AppendToken, RequestToken};

/// One mutation on its way.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) mutation: Mutation,
    /// Its record in the log; zero for what recovery found there.
    token: AppendToken,
    /// Payload bytes of the partition up to and with this mutation, counted from an arbitrary start, so that the
    /// bytes between two decrees are one subtraction.
    bytes_through: u64,
    /// The client that waits for it.
    pub(crate) request: Option<RequestToken>,
}

/// The ring and its watermarks.
///
/// Invariants:
/// - `applied <= handed <= committed <= confirmed <= prepared <= last`
/// - the ring holds exactly the decrees from `applied + 1` to `last`, in order
/// - what lies beyond `committed` up to `prepared` has the current ballot, what lies beyond `prepared` a lower one
/// - what lies beyond `committed` up to `confirmed` is logged under the current ballot
#[derive(Clone, Debug)]
pub(crate) struct Window {
    entries: VecDeque<Entry>,
    /// The ballot that `confirmed` and `prepared` refer to.
    ballot: Ballot,
    applied: Decree,
    handed: Decree,
    committed: Decree,
    confirmed: Decree,
    prepared: Decree,
    /// `bytes_through` of `applied`.
    bytes_applied: u64,
    /// Everything up to this token is durable.
    logged: AppendToken,
    /// What was applied and is kept for learners: consecutive decrees, the last one is `applied`.
    retained: VecDeque<Mutation>,
    retained_bytes: u64,
    /// True while applied mutations are kept.
    retaining: bool,
}

impl Window {
    /// What recovery found: `mutations` begin at `applied + 1` and have no gap.
    pub(crate) fn recovered(applied: Decree, committed: Decree, mutations: Vec<Mutation>) -> Window {
        let mut window = Window {
            entries: VecDeque::with_capacity(mutations.len().max(16)),
            ballot: Ballot(0),
            applied,
            handed: applied,
            committed: applied,
            confirmed: applied,
            prepared: applied,
            bytes_applied: 0,
            logged: AppendToken(0),
            retained: VecDeque::new(),
            retained_bytes: 0,
            retaining: false,
        };
        for mutation in mutations {
            window.push_entry(mutation, AppendToken(0), None);
        }
        assert!(committed <= window.last(), "recovery checked that the log reaches the commit point");
        window.committed = committed.max(applied);
        window.confirmed = window.committed;
        window.prepared = window.committed;
        window
    }

    pub(crate) fn applied(&self) -> Decree {
        self.applied
    }

    pub(crate) fn committed(&self) -> Decree {
        self.committed
    }

    /// Everything up to here is committed or logged under the current ballot.
    pub(crate) fn confirmed(&self) -> Decree {
        self.confirmed
    }

    /// Everything up to here is committed or appended under the current ballot.
    pub(crate) fn prepared(&self) -> Decree {
        self.prepared
    }

    pub(crate) fn last(&self) -> Decree {
        Decree(self.applied.0 + self.entries.len() as u64)
    }

    /// Prepared and not applied.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Payload bytes of the whole ring.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_between(self.applied, self.last())
    }

    /// Payload bytes beyond `after` up to `through`, both within the ring.
    pub(crate) fn bytes_between(&self, after: Decree, through: Decree) -> u64 {
        self.bytes_through(through) - self.bytes_through(after)
    }

    /// The entry at a decree, if the ring holds it.
    pub(crate) fn get(&self, decree: Decree) -> Option<&Entry> {
        self.entries.get(self.index(decree)?)
    }

    /// The mutations of the ring from a decree on, oldest first.
    pub(crate) fn from(&self, decree: Decree) -> impl Iterator<Item = &Mutation> + '_ {
        let skip = decree.0.saturating_sub(self.applied.0 + 1);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries.range(skip..).map(|entry| &entry.mutation)
    }

    /// The mutation at a decree, if it is in memory: in the ring, or kept for learners.
    pub(crate) fn find(&self, decree: Decree) -> Option<&Mutation> {
        if decree > self.applied {
            return self.get(decree).map(|entry| &entry.mutation);
        }
        let back = (self.applied.0 - decree.0) as usize;
        let index = self.retained.len().checked_sub(back + 1)?;
        self.retained.get(index)
    }

    /// Keeps what is applied from now on, from `floor` on, as long as it is within `bytes_max`.
    pub(crate) fn retain_from(&mut self, floor: Decree, bytes_max: u64) {
        self.retaining = true;
        let useless = |mutation: &Mutation, bytes: u64| mutation.decree < floor || bytes > bytes_max;
        while self.retained.front().is_some_and(|mutation| useless(mutation, self.retained_bytes)) {
            let dropped = self.retained.pop_front().map_or(0, |mutation| mutation.payload.len());
            self.retained_bytes -= dropped as u64;
        }
    }

    /// Keeps nothing beyond what is applied.
    pub(crate) fn retain_none(&mut self) {
        self.retaining = false;
        self.retained.clear();
        self.retained_bytes = 0;
    }

    /// True if everything up to the decree is committed or its record, of whatever ballot, is durable.
    pub(crate) fn is_logged_through(&self, decree: Decree) -> bool {
        decree <= self.last()
            && (self.committed.0 + 1..=decree.0)
                .all(|number| self.get(Decree(number)).is_some_and(|entry| entry.token <= self.logged))
    }

    /// Starts a ballot of which everything up to `base` is known to be as it will stay. What the ring already holds
    /// of this same ballot (a reconnect, a restart) counts.
    pub(crate) fn begin_ballot(&mut self, ballot: Ballot, base: Decree) {
        assert!(self.committed <= base && base <= self.last(), "the base lies within the window");
        self.ballot = ballot;
        self.confirmed = base;
        self.prepared = base;
        while self.get(self.prepared.next()).is_some_and(|entry| entry.mutation.ballot == ballot) {
            self.prepared = self.prepared.next();
        }
        self.advance_confirmed();
    }

    /// Adds or replaces the mutation after `prepared`; it has the current ballot.
    pub(crate) fn prepare(&mut self, mutation: Mutation, token: AppendToken, request: Option<RequestToken>) {
        let decree = mutation.decree;
        assert_eq!(decree, self.prepared.next(), "mutations are prepared in order");
        self.ballot = mutation.ballot;
        self.prepared = decree;
        let Some(index) = self.index(decree) else {
            self.push_entry(mutation, token, request);
            return;
        };
        let entry = &mut self.entries[index];
        let resized = entry.mutation.payload.len() != mutation.payload.len();
        entry.mutation = mutation;
        entry.token = token;
        entry.request = request;
        if resized {
            self.count_bytes();
        }
    }

    /// The first decree beyond `after` that was prepared under a ballot below `ballot`.
    pub(crate) fn first_stale(&self, after: Decree, ballot: Ballot) -> Option<Decree> {
        let skip = (after.0.saturating_sub(self.applied.0)) as usize;
        let stale = self.entries.iter().skip(skip).find(|entry| entry.mutation.ballot < ballot)?;
        Some(stale.mutation.decree)
    }

    /// Drops a decree and all after it; they are not committed.
    pub(crate) fn truncate_from(&mut self, decree: Decree) {
        assert!(decree > self.committed, "a committed mutation is never dropped");
        let index = self.index(decree).expect("a decree of the ring");
        self.entries.truncate(index);
        self.confirmed = self.confirmed.min(decree.previous());
        self.prepared = self.prepared.min(decree.previous());
    }

    /// Records up to a token are durable.
    pub(crate) fn mark_logged(&mut self, through: AppendToken) {
        self.logged = self.logged.max(through);
        self.advance_confirmed();
    }

    /// The last durable record.
    pub(crate) fn logged(&self) -> AppendToken {
        self.logged
    }

    /// Commits up to a decree, as far as it is confirmed. True if the commit point moved.
    pub(crate) fn commit(&mut self, decree: Decree) -> bool {
        let point = decree.min(self.confirmed);
        let moved = point > self.committed;
        self.committed = self.committed.max(point);
        moved
    }

    /// Hands out what is committed (up to `through`) and not handed out, unless an earlier batch is still running.
    pub(crate) fn take_batch(&mut self, through: Decree) -> Option<Vec<Mutation>> {
        if self.handed > self.applied || through <= self.handed {
            return None;
        }
        let count = (through.0 - self.handed.0) as usize;
        self.handed = through;
        Some(self.entries.iter().take(count).map(|entry| entry.mutation.clone()).collect())
    }

    /// Drops the oldest entry once it is applied.
    pub(crate) fn pop_applied(&mut self, through: Decree) -> Option<Entry> {
        assert!(through <= self.handed, "only what was handed out is applied");
        if self.applied >= through {
            return None;
        }
        let entry = self.entries.pop_front()?;
        self.applied = entry.mutation.decree;
        self.bytes_applied = entry.bytes_through;
        if self.retaining {
            self.retained_bytes += entry.mutation.payload.len() as u64;
            self.retained.push_back(entry.mutation.clone());
        }
        Some(entry)
    }

    /// Takes the waiting requests out, oldest first.
    pub(crate) fn take_requests(&mut self) -> impl Iterator<Item = RequestToken> + '_ {
        self.entries.iter_mut().filter_map(|entry| entry.request.take())
    }

    /// The invariants of the type, in full.
    pub(crate) fn check_invariants(&self) {
        assert!(self.applied <= self.handed, "applied <= handed: {self:?}");
        assert!(self.handed <= self.committed, "handed <= committed: {self:?}");
        assert!(self.committed <= self.confirmed, "committed <= confirmed: {self:?}");
        assert!(self.confirmed <= self.prepared, "confirmed <= prepared: {self:?}");
        assert!(self.prepared <= self.last(), "prepared <= last: {self:?}");
        let mut bytes = self.bytes_applied;
        for (entry, number) in self.entries.iter().zip(self.applied.0 + 1..) {
            let (decree, ballot) = (entry.mutation.decree, entry.mutation.ballot);
            bytes += entry.mutation.payload.len() as u64;
            assert_eq!(decree, Decree(number), "decrees are consecutive");
            assert_eq!(entry.bytes_through, bytes, "bytes are counted");
            if decree > self.committed && decree <= self.prepared {
                assert_eq!(ballot, self.ballot, "{decree} was prepared under the current ballot");
                assert!(decree > self.confirmed || entry.token <= self.logged, "{decree} is confirmed, so logged");
            }
        }
    }

    fn advance_confirmed(&mut self) {
        while self.confirmed < self.prepared {
            let next = self.confirmed.next();
            match self.get(next) {
                Some(entry) if entry.token <= self.logged => self.confirmed = next,
                _ => return,
            }
        }
    }

    fn push_entry(&mut self, mutation: Mutation, token: AppendToken, request: Option<RequestToken>) {
        assert_eq!(mutation.decree, self.last().next(), "the ring has no gap");
        let bytes_through = self.bytes_through(self.last()) + mutation.payload.len() as u64;
        self.entries.push_back(Entry { mutation, token, bytes_through, request });
    }

    fn count_bytes(&mut self) {
        let mut bytes = self.bytes_applied;
        for entry in &mut self.entries {
            bytes += entry.mutation.payload.len() as u64;
            entry.bytes_through = bytes;
        }
    }

    fn bytes_through(&self, decree: Decree) -> u64 {
        match self.get(decree) {
            Some(entry) => entry.bytes_through,
            None => self.bytes_applied,
        }
    }

    fn index(&self, decree: Decree) -> Option<usize> {
        let index = decree.0.checked_sub(self.applied.0 + 1)? as usize;
        (index < self.entries.len()).then_some(index)
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
