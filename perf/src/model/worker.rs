//! One worker: its hash keys, which nobody else touches, what it asks of them, and its judgement of every answer.
//!
//! A worker asks in bursts: operations that are under way together, mostly one, at times several on one hash key or on
//! many, at times a scan of the whole table. It judges a burst when all of it has ended. Workers go on side by side.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use pegasus_client::{Table, now_seconds};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::model::calls::{Ended, perform};
use crate::model::key::Key;
use crate::model::operation::{Answer, Filter, Item, Lifetime, Operation, Outcome, Range, RangeRead};
use crate::model::possible::Judged;
use crate::model::rows::Window;
use crate::model::tally::{Shared, Tally};
use crate::model::{scans, words};

/// A table under test.
#[derive(Clone)]
pub struct Subject {
    /// The table.
    pub table: Table,
    /// Its `default_ttl`; 0: none.
    pub default_ttl: u32,
}

/// A worker.
pub struct Worker {
    pub(super) number: u16,
    pub(super) subject: Subject,
    pub(super) random: SmallRng,
    pub(super) keys: Vec<Key>,
    /// Hash keys that it has left; nobody knows any more what they hold.
    pub(super) left: HashSet<Bytes>,
    /// Some of these may still have rows.
    pub(super) left_rows: bool,
    pub(super) tally: Tally,
    pub(super) shared: Arc<Shared>,
    next_key: u32,
}

/// An operation on one of the worker's hash keys.
type Call = (usize, Operation);

/// Makes of a row (sort key, value, lifetime) the operation that one call of a batch does to it.
type MadeOfRow = fn(Bytes, Bytes, Lifetime) -> Operation;

impl Worker {
    /// The worker with this number.
    pub fn new(number: u16, subject: Subject, seed: u64, shared: Arc<Shared>) -> Worker {
        let random = SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number)));
        let keys = Vec::new();
        let (left, left_rows, tally) = (HashSet::new(), false, Tally::default());
        let mut worker = Worker { number, subject, random, keys, left, left_rows, tally, shared, next_key: 0 };
        for place in 0..KEYS {
            let key = worker.new_key(place);
            worker.keys.push(key);
        }
        worker
    }

    /// Asks until it has asked so much, or is told to end.
    pub async fn run(&mut self, operations: u64) {
        while self.tally.operations < operations && !self.shared.is_over() {
            match self.random.random_range(0..1000) {
                0..600 => self.one().await,
                600..830 => self.several_of_one().await,
                830..900 => self.several_of_many().await,
                900..970 => self.batch().await,
                _ => scans::look_at_all(self).await,
            }
            self.replace_spent().await;
        }
    }

    /// Looks at all its rows in every way, with nothing going on.
    pub async fn last_look(&mut self) {
        for place in 0..self.keys.len() {
            let read = RangeRead { range: Range::all(), filter: Filter::default(), reverse: false, no_value: false };
            let whole = Operation::MultiGetRange { read, rows_max: 0, bytes_max: 0 };
            self.ask(vec![(place, whole)]).await;
            self.ask(vec![(place, Operation::Count)]).await;
        }
        for way in scans::Way::ALL {
            scans::look(self, way).await;
        }
    }

    /// What it counted since this was called last.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// The same with another handle on its table: a client lives no longer than its runtime.
    pub fn with(self, subject: Subject) -> Worker {
        Worker { subject, ..self }
    }

    /// One operation after the other.
    async fn one(&mut self) {
        let place = self.choose();
        let operation = self.draw(place, Artistry::Any);
        self.ask(vec![(place, operation)]).await;
    }

    /// Several operations on one hash key at once: they take effect in some order.
    async fn several_of_one(&mut self) {
        let place = self.choose();
        // The reads of a wide one take several requests, which is no fun while it is written to.
        let count = if self.keys[place].wide { 1 } else { self.random.random_range(2..=5) };
        let calls = (0..count).map(|_| (place, self.draw(place, Artistry::Any))).collect();
        self.ask(calls).await;
    }

    /// One or two operations on each hash key at once.
    async fn several_of_many(&mut self) {
        let mut calls = Vec::new();
        for place in 0..self.keys.len() {
            let count = if self.keys[place].wide { 1 } else { self.random.random_range(0..=2) };
            calls.extend((0..count).map(|_| (place, self.draw(place, Artistry::Any))));
        }
        self.ask(calls).await;
    }

    /// The operations on rows of many hash keys in one call.
    async fn batch(&mut self) {
        let count = self.random.random_range(1..12);
        let mut rows = Vec::new();
        for _ in 0..count {
            let place = self.choose();
            let row = self.draw(place, Artistry::Row);
            // Few of each: all orders of them are tried.
            let of_place = rows.iter().filter(|(other, _)| *other == place).count();
            if let Operation::Set { sort_key, value, .. } = row
                && of_place < BATCH_PER_KEY
                && !self.keys[place].wide
            {
                rows.push((place, (sort_key, value)));
            }
        }
        let begin = now_seconds();
        let hash_key = |place: usize| self.keys[place].hash_key.clone();
        let names: Vec<(Bytes, Bytes)> =
            rows.iter().map(|(place, (sort_key, _))| (hash_key(*place), sort_key.clone())).collect();
        let table = &self.subject.table;
        let done = |result: Result<(), _>| Ended::of(result.map(|()| Answer::Done));
        let lifetime = if self.random.random_bool(0.5) { Lifetime::Default } else { Lifetime::Seconds(4) };
        let (ended, operation): (Vec<Ended>, MadeOfRow) = match self.random.random_range(0..3) {
            0 => {
                let found = table.batch_get(&names).await;
                let ended = found.into_iter().map(|found| Ended::of(found.map(Answer::Value)));
                (ended.collect(), |sort_key, _, _| Operation::Get { sort_key })
            }
            1 => {
                let values = rows.iter().map(|(_, (_, value))| value.clone());
                let with_value = |((hash_key, sort_key), value)| (hash_key, sort_key, value);
                let rows: Vec<(Bytes, Bytes, Bytes)> = names.iter().cloned().zip(values).map(with_value).collect();
                let seconds = if lifetime == Lifetime::Default { 0 } else { 4 };
                let ended = table.batch_set(&rows, seconds).await.into_iter().map(done);
                (ended.collect(), |sort_key, value, lifetime| Operation::Set { sort_key, value, lifetime })
            }
            _ => {
                let ended = table.batch_del(&names).await.into_iter().map(done);
                (ended.collect(), |sort_key, _, _| Operation::Delete { sort_key })
            }
        };
        if ended.len() != rows.len() {
            let (ended, rows) = (ended.len(), rows.len());
            self.shared.report(format!("a batch of {rows} rows gave {ended} results"));
            return;
        }
        let window = Window { from: begin, to: now_seconds() };
        let calls = rows.into_iter().map(|(place, (sort_key, value))| (place, operation(sort_key, value, lifetime)));
        self.judge(calls.zip(ended).collect(), window);
    }

    /// Asks all of it at once and judges what came of it.
    async fn ask(&mut self, mut calls: Vec<Call>) {
        for place in 0..self.keys.len() {
            let together = calls.iter().filter(|(other, _)| *other == place).count() > 1;
            let one_moment = together || self.keys[place].has_limbo();
            for (_, operation) in calls.iter_mut().filter(|(other, _)| one_moment && *other == place) {
                operation.keep_to_one_moment();
            }
        }
        let begin = now_seconds();
        let asked = calls.iter().map(|(place, operation)| {
            let key = &self.keys[*place];
            let together = calls.iter().filter(|(other, _)| other == place).count() > 1;
            perform(&self.subject.table, &key.hash_key, operation, together || key.has_limbo())
        });
        let ended = join_all(asked).await;
        let window = Window { from: begin, to: now_seconds() };
        self.judge(calls.into_iter().zip(ended).collect(), window);
    }

    /// Judges the operations of a burst, each hash key by itself.
    pub(super) fn judge(&mut self, ended: Vec<(Call, Ended)>, window: Window) {
        let mut of_key: BTreeMap<usize, Vec<Item>> = BTreeMap::new();
        for ((place, operation), Ended { outcome, problem }) in ended {
            self.tally.count(&operation, &outcome);
            if let Some(problem) = problem {
                self.shared.report(format!("{operation}: {problem}"));
            }
            of_key.entry(place).or_default().push(Item { operation, outcome });
        }
        for (place, items) in of_key {
            self.judge_key(place, items, window);
        }
    }

    /// Judges operations on one hash key.
    pub(super) fn judge_key(&mut self, place: usize, items: Vec<Item>, window: Window) {
        let (judged, difference) = self.keys[place].judge(items, window);
        if let Some(difference) = difference {
            self.shared.report(format!("worker {}, {difference}", self.number));
        }
        self.tally.given_up += u64::from(judged == Judged::TooMany);
    }

    /// Begins new hash keys in the place of those that are spent.
    async fn replace_spent(&mut self) {
        for place in 0..self.keys.len() {
            if !self.keys[place].is_spent() {
                continue;
            }
            let fresh = self.new_key(place);
            let old = std::mem::replace(&mut self.keys[place], fresh);
            self.tally.keys_left += 1;
            // So that scans do not get longer and longer. If it fails, they do.
            let everything = Operation::DeleteRange { range: Range::all() };
            let ended = perform(&self.subject.table, &old.hash_key, &everything, false).await;
            self.left_rows |= old.has_limbo() || ended.outcome != Outcome::Answered(Answer::Done);
            self.left.insert(old.hash_key);
        }
    }

    fn new_key(&mut self, place: usize) -> Key {
        let hash_key = words::hash_key(self.number, self.next_key, &mut self.random);
        self.next_key += 1;
        // The first worker has one wide hash key.
        let wide = self.number == 0 && place == 0;
        Key::new(hash_key, self.subject.default_ttl, wide, &mut self.random)
    }

    fn choose(&mut self) -> usize {
        self.random.random_range(0..self.keys.len())
    }

    fn draw(&mut self, place: usize, artistry: Artistry) -> Operation {
        let key = &self.keys[place];
        let mut artist = key.artist(&mut self.random, now_seconds());
        match artistry {
            Artistry::Any => artist.operation(),
            Artistry::Row => artist.set(),
        }
    }
}

/// What is drawn.
#[derive(Clone, Copy, Debug)]
enum Artistry {
    Any,
    Row,
}

/// Hash keys of a worker at a time.
const KEYS: usize = 4;
/// Rows of one hash key in one batch.
const BATCH_PER_KEY: usize = 4;
