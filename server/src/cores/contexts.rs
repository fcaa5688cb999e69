//! Contexts of scans: snapshots that are kept between two slices, so that all slices are of one moment.
//!
//! A context is a convenience. Whoever asks for one that has ended gets a new one and goes on from the last key, so
//! they may end at any time: idle for too long, the oldest when there are too many, all of a copy when it goes away.
//!
//! This store decides which; it must never drop what it kept: to release a snapshot may block. Every method that ends
//! contexts hands them out.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use pegasus_replication::Moment;
use pegasus_wire::PartitionId;
use pegasus_wire::limits::SCAN_CONTEXTS_MAX;

use super::partition::CopyId;

/// How long a context lives that nobody uses, as in Pegasus.
const IDLE: Duration = Duration::from_secs(300);

/// The contexts of one core. `S` is what is kept of each: a snapshot.
///
/// Invariants: `by_use` has exactly the contexts of `kept`, the one that was idle longest first; there are at most
/// `most` of them; no id is given out twice.
pub(crate) struct Contexts<S> {
    kept: HashMap<u64, Context<S>>,
    by_use: BTreeSet<(Moment, u64)>,
    most: usize,
    last: u64,
}

struct Context<S> {
    copy: CopyId,
    used: Moment,
    snapshot: S,
}

impl<S> Default for Contexts<S> {
    /// Ids begin at a random high half: those of an earlier run of the node mean nothing. They are positive as signed
    /// numbers, too.
    fn default() -> Contexts<S> {
        Contexts::new(rand::random::<u32>() >> 1, SCAN_CONTEXTS_MAX)
    }
}

impl<S: Clone> Contexts<S> {
    /// What is kept under this id for this copy; from now on it is idle.
    pub(crate) fn take_up(&mut self, id: u64, copy: CopyId, now: Moment) -> Option<S> {
        let context = self.kept.get_mut(&id).filter(|context| context.copy == copy && !is_over(context.used, now))?;
        self.by_use.remove(&(context.used, id));
        context.used = now;
        self.by_use.insert((now, id));
        Some(context.snapshot.clone())
    }
}

impl<S> Contexts<S> {
    fn new(high_half: u32, most: usize) -> Contexts<S> {
        Contexts { kept: HashMap::new(), by_use: BTreeSet::new(), most, last: u64::from(high_half) << 32 }
    }

    /// Keeps a snapshot of a copy and names it; the id is never 0. The second is what had to go for it.
    pub(crate) fn add(&mut self, copy: CopyId, snapshot: S, now: Moment) -> (u64, Option<S>) {
        let oldest = if self.kept.len() < self.most { None } else { self.by_use.first().copied() };
        let gone = oldest.and_then(|(_, id)| self.remove(id));
        self.last = self.last.wrapping_add(1).max(1);
        let id = self.last;
        self.kept.insert(id, Context { copy, used: now, snapshot });
        self.by_use.insert((now, id));
        (id, gone)
    }

    /// Ends a context of a partition.
    pub(crate) fn end(&mut self, id: u64, partition: PartitionId) -> Option<S> {
        let known = self.kept.get(&id).is_some_and(|context| context.copy.partition == partition);
        if known { self.remove(id) } else { None }
    }

    /// Ends all contexts of a partition: its copy goes away.
    pub(crate) fn end_all_of(&mut self, partition: PartitionId) -> Vec<S> {
        self.end_where(|context| context.copy.partition == partition)
    }

    /// Ends all contexts: the core stops.
    pub(crate) fn end_all(&mut self) -> Vec<S> {
        self.end_where(|_| true)
    }

    /// Ends those that were idle for too long.
    pub(crate) fn expire(&mut self, now: Moment) -> Vec<S> {
        let mut ended = Vec::new();
        while let Some(&(used, id)) = self.by_use.first()
            && is_over(used, now)
        {
            ended.extend(self.remove(id));
        }
        ended
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    fn end_where(&mut self, ends: impl Fn(&Context<S>) -> bool) -> Vec<S> {
        let ids: Vec<u64> = self.kept.iter().filter(|(_, context)| ends(context)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    fn remove(&mut self, id: u64) -> Option<S> {
        let context = self.kept.remove(&id)?;
        self.by_use.remove(&(context.used, id));
        Some(context.snapshot)
    }
}

fn is_over(used: Moment, now: Moment) -> bool {
    u128::from(now.since(used)) >= IDLE.as_micros()
}

#[cfg(test)]
mod tests {
    use pegasus_wire::ReplicaIncarnation;

    use super::*;

    /// Snapshots are numbers here.
    type Store = Contexts<u32>;

    fn copy(index: u32, incarnation: u64) -> CopyId {
        CopyId { partition: PartitionId::new(1, index), incarnation: ReplicaIncarnation(incarnation) }
    }

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000)
    }

    fn sorted(mut of: Vec<u32>) -> Vec<u32> {
        of.sort_unstable();
        of
    }

    impl Store {
        fn add_only(&mut self, copy: CopyId, snapshot: u32, now: Moment) -> u64 {
            let (id, gone) = self.add(copy, snapshot, now);
            assert_eq!(gone, None);
            self.check();
            id
        }

        fn check(&self) {
            let known: BTreeSet<_> = self.kept.iter().map(|(id, context)| (context.used, *id)).collect();
            assert_eq!(known, self.by_use);
            assert!(self.len() <= self.most);
        }
    }

    #[test]
    fn a_context_lives_while_it_is_used() {
        let mut store = Store::new(7, 10);
        let id = store.add_only(copy(0, 1), 11, at(0));
        assert_eq!(store.take_up(id, copy(0, 1), at(299)), Some(11));
        assert_eq!(store.expire(at(300)), [0; 0], "idle since 299");
        assert_eq!(store.take_up(id, copy(0, 1), at(598)), Some(11));
        assert_eq!(store.take_up(id, copy(0, 1), at(898)), None, "idle for five minutes, though nobody has looked");
        assert_eq!(store.len(), 1, "it is still to be released");
        assert_eq!(store.expire(at(897)), [0; 0]);
        assert_eq!(store.expire(at(898)), [11]);
        assert_eq!(store.len(), 0);
        assert_eq!(store.take_up(id, copy(0, 1), at(898)), None);
        store.check();
    }

    #[test]
    fn the_one_idle_longest_makes_room() {
        let mut store = Store::new(0, 3);
        let ids: Vec<u64> = (0..3).map(|n| store.add_only(copy(0, 1), n, at(u64::from(n)))).collect();
        assert_eq!(store.take_up(ids[0], copy(0, 1), at(5)), Some(0));
        let (fourth, gone) = store.add(copy(1, 1), 3, at(6));
        assert_eq!(gone, Some(1), "the first was used since");
        let (_, gone) = store.add(copy(1, 1), 4, at(6));
        assert_eq!(gone, Some(2));
        let (_, gone) = store.add(copy(1, 1), 5, at(6));
        assert_eq!(gone, Some(0));
        let (_, gone) = store.add(copy(1, 1), 6, at(6));
        assert_eq!(gone, Some(3), "of those idle equally long the first that was made");
        assert_eq!(store.take_up(fourth, copy(1, 1), at(6)), None);
        assert_eq!(store.len(), 3);
        store.check();
    }

    #[test]
    fn a_context_is_of_one_copy() {
        let mut store = Store::new(0, 10);
        let (one, other) = (store.add_only(copy(0, 1), 10, at(0)), store.add_only(copy(1, 1), 20, at(0)));
        assert_eq!(store.take_up(one, copy(1, 1), at(1)), None, "another partition");
        assert_eq!(store.take_up(one, copy(0, 2), at(1)), None, "another copy of the partition");
        assert_eq!(store.end(one, PartitionId::new(1, 1)), None);
        assert_eq!(store.end(one, PartitionId::new(1, 0)), Some(10));
        assert_eq!(store.end(one, PartitionId::new(1, 0)), None, "once");
        assert_eq!(store.take_up(other, copy(1, 1), at(1)), Some(20));
        store.check();
    }

    #[test]
    fn a_copy_that_goes_away_takes_its_contexts_along() {
        let mut store = Store::new(0, 10);
        for (index, snapshot) in [(0, 1), (1, 2), (0, 3), (2, 4)] {
            store.add_only(copy(index, 9), snapshot, at(0));
        }
        assert_eq!(sorted(store.end_all_of(PartitionId::new(1, 0))), [1, 3]);
        assert_eq!(store.end_all_of(PartitionId::new(1, 0)), [0; 0]);
        store.check();
        assert_eq!(sorted(store.end_all()), [2, 4]);
        assert_eq!(store.len(), 0);
        store.check();
    }

    #[test]
    fn ids_are_never_used_again() {
        let mut store = Store::new(0x1234_5678, 1);
        let ids: Vec<u64> = (0..100).map(|n| store.add(copy(0, 1), n, at(0)).0).collect();
        assert!(ids.iter().all(|id| id >> 32 == 0x1234_5678) && ids.is_sorted_by(|one, next| one < next));
        let mut store = Store::new(0, 1);
        store.last = u64::MAX;
        assert_eq!(store.add(copy(0, 1), 0, at(0)).0, 1, "0 means none");
        assert_ne!(Store::default().last >> 32, Store::default().last >> 32, "two runs, but for one in four milliards");
    }
}
