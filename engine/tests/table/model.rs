//! A random history against an ordered map: applies, flushes, compactions, restarts and crashes.

use pegasus_engine::table::{OpenMode, Table, TableSnapshot};
use pegasus_wire::expiry::is_expired;
use pegasus_wire::key::encode;
use pegasus_wire::messages::data::{RowOperation, SortKeys};
use pegasus_wire::{Decree, Mutation};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::query::*;
use crate::support::*;

/// What one mutation does, in terms of the model.
#[derive(Clone, Debug)]
enum Change {
    Put { sort_key: Vec<u8>, value: Vec<u8>, expiry: u32 },
    Delete { sort_key: Vec<u8> },
    DeleteRange { start: Vec<u8>, start_inclusive: bool, stop: Vec<u8>, stop_inclusive: bool },
}

#[derive(Clone, Debug)]
enum Step {
    /// Batches of mutations: each a hash key and its changes; no changes is an empty mutation.
    Apply(Vec<(Vec<u8>, Vec<Change>)>),
    Flush,
    Compact,
    /// Close and open: closing flushes.
    Restart,
    /// Open what a crash leaves and apply the lost mutations again.
    Crash,
    /// Compare everything, as of this long after the base time, in slices of this many rows.
    Check {
        after: u32,
        slice: usize,
    },
    /// Compare what a scan finds, now and in the oldest snapshot.
    Query {
        query: Query,
        after: u32,
        slice: usize,
    },
    /// Remember this moment; of three the oldest is forgotten.
    Snapshot,
}

struct Harness {
    root: tempfile::TempDir,
    generation: u32,
    table: Option<Table>,
    /// All mutations since the beginning: what the mutation log would hold.
    log: Vec<Mutation>,
    rows: Rows,
    /// Moments, each with the rows there were. Of the table that is open.
    snapshots: Vec<(TableSnapshot, Rows)>,
    /// Far enough ahead that compaction drops nothing.
    base: u32,
}

impl Harness {
    fn new() -> Harness {
        let root = tempfile::tempdir().unwrap();
        let table = create(&root.path().join("0"));
        let base = system_now_seconds() + 10_000;
        let (log, rows, snapshots) = (Vec::new(), Rows::new(), Vec::new());
        Harness { root, generation: 0, table: Some(table), log, rows, snapshots, base }
    }

    fn table(&self) -> &Table {
        self.table.as_ref().unwrap()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Apply(mutations) => self.apply_all(mutations),
            Step::Flush => assert_eq!(self.table().flush().unwrap().0, self.log.len() as u64),
            Step::Compact => compact(self.table()),
            Step::Restart => {
                self.snapshots.clear();
                self.table = None;
                self.table = Some(reopen(&self.directory()));
                assert_eq!(self.table().applied().0, self.log.len() as u64, "closing flushes");
                assert_eq!(self.table().flushed(), self.table().applied());
            }
            Step::Crash => self.crash(),
            Step::Check { after, slice } => self.check(self.base + after, *slice),
            Step::Query { query, after, slice } => {
                let now = self.base + after;
                query.check(self.table(), &self.rows, now, *slice);
                if let Some((snapshot, rows)) = self.snapshots.first() {
                    query.check(snapshot, rows, now, *slice);
                }
            }
            Step::Snapshot => {
                self.snapshots.push((self.table().snapshot(), self.rows.clone()));
                if self.snapshots.len() == 3 {
                    self.snapshots.remove(0);
                }
            }
        }
    }

    fn directory(&self) -> std::path::PathBuf {
        self.root.path().join(self.generation.to_string())
    }

    fn apply_all(&mut self, mutations: &[(Vec<u8>, Vec<Change>)]) {
        let first = self.log.len();
        for (hash_key, changes) in mutations {
            let decree = self.log.len() as u64 + 1;
            let operations: Vec<_> = changes.iter().map(|change| self.operation(change)).collect();
            let mutation = match operations.is_empty() {
                true => empty(decree),
                false => mutation(decree, payload(PARTITION, hash_key, &operations)),
            };
            for operation in &operations {
                match operation {
                    RowOperation::Put { sort_key, value, expiry_seconds } => {
                        self.rows.insert(encode(hash_key, sort_key), (value.to_vec(), *expiry_seconds));
                    }
                    RowOperation::Delete { sort_key } => drop(self.rows.remove(&encode(hash_key, sort_key))),
                    RowOperation::DeleteRange { range } => delete_range(&mut self.rows, hash_key, range),
                }
            }
            self.log.push(mutation);
        }
        let batch = &self.log[first..];
        apply(self.table(), batch);
        assert_eq!(self.table().applied(), Decree(self.log.len() as u64));
        if let Some(last) = batch.last() {
            assert_eq!(self.table().last_timestamp_micros(), last.timestamp_micros);
        }
    }

    fn operation<'a>(&self, change: &'a Change) -> RowOperation<'a> {
        match change {
            Change::Put { sort_key, value, expiry } => {
                let expiry_seconds = if *expiry == 0 { 0 } else { self.base + expiry };
                RowOperation::Put { sort_key, value, expiry_seconds }
            }
            Change::Delete { sort_key } => RowOperation::Delete { sort_key },
            Change::DeleteRange { start, start_inclusive, stop, stop_inclusive } => RowOperation::DeleteRange {
                range: SortKeys { start, stop, start_inclusive: *start_inclusive, stop_inclusive: *stop_inclusive },
            },
        }
    }

    fn crash(&mut self) {
        self.snapshots.clear();
        let flushed = self.table().read_flushed().unwrap();
        let before = self.directory();
        self.generation += 1;
        crash_image(&before.join("rdb"), &self.directory().join("rdb"));
        let table = Table::open(&self.directory().join("rdb"), &shared(), PARTITION, OpenMode::Existing).unwrap();
        assert_eq!(table.applied(), flushed, "a crash leaves exactly what read_flushed said");
        assert_eq!(table.flushed(), flushed);
        apply(&table, &self.log[flushed.0 as usize..]);
        self.table = Some(table);
        std::fs::remove_dir_all(before).unwrap();
    }

    fn check(&self, now: u32, slice: usize) {
        Query::everything().check(self.table(), &self.rows, now, slice);
        for (hash_key, sort_key) in self.all_keys() {
            let model = self.rows.get(&encode(&hash_key, &sort_key)).filter(|(_, expiry)| !is_expired(*expiry, now));
            let found = get(self.table(), &hash_key, &sort_key, now);
            assert_eq!(found.as_deref(), model.map(|(value, _)| &value[..]));
        }
        for (snapshot, rows) in &self.snapshots {
            Query::everything().check(snapshot, rows, now, slice);
        }
    }

    fn all_keys(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        hash_keys().into_iter().flat_map(|hash| sort_keys().into_iter().map(move |sort| (hash.clone(), sort)))
    }
}

fn change() -> impl Strategy<Value = Change> {
    let sort_key = || proptest::sample::select(sort_keys());
    prop_oneof![
        3 => (sort_key(), vec(any::<u8>(), 0..40), proptest::sample::select(vec![0, 100, 200]))
            .prop_map(|(sort_key, value, expiry)| Change::Put { sort_key, value, expiry }),
        1 => sort_key().prop_map(|sort_key| Change::Delete { sort_key }),
        1 => (sort_key(), any::<bool>(), sort_key(), any::<bool>()).prop_map(
            |(start, start_inclusive, stop, stop_inclusive)| Change::DeleteRange {
                start,
                start_inclusive,
                stop,
                stop_inclusive
            }
        ),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let one = (proptest::sample::select(hash_keys()), vec(change(), 0..8));
    prop_oneof![
        8 => vec(one, 1..8).prop_map(Step::Apply),
        2 => Just(Step::Flush),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
        2 => (proptest::sample::select(vec![0, 100, 150, 300]), 1usize..20)
            .prop_map(|(after, slice)| Step::Check { after, slice }),
        4 => (query(), proptest::sample::select(vec![0, 100, 150]), 1usize..20)
            .prop_map(|(query, after, slice)| Step::Query { query, after, slice }),
        2 => Just(Step::Snapshot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_history_reads_like_an_ordered_map(steps in vec(step(), 1..40)) {
        let mut harness = Harness::new();
        for step in &steps {
            harness.step(step);
        }
        harness.check(harness.base, 7);
    }
}

#[test]
fn a_crash_keeps_what_was_flushed_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let table = create(&root.path().join("before"));
    apply(&table, &[put(1, b"h", b"1", b"one", 0), put(2, b"h", b"2", b"two", 0)]);
    assert_eq!((table.flushed(), table.read_flushed().unwrap()), (Decree(0), Decree(0)));
    assert_eq!(table.flush().unwrap(), Decree(2));
    apply(&table, &[put(3, b"h", b"1", b"changed", 0), delete(4, b"h", b"2"), empty(5)]);
    assert_eq!((table.applied(), table.read_flushed().unwrap()), (Decree(5), Decree(2)));

    crash_image(&root.path().join("before/rdb"), &root.path().join("after/rdb"));
    let survivor = reopen(&root.path().join("after"));
    assert_eq!((survivor.applied(), survivor.flushed()), (Decree(2), Decree(2)));
    assert_eq!(survivor.last_timestamp_micros(), 1_000_002);
    assert_eq!(get(&survivor, b"h", b"1", 0).unwrap(), b"one");
    assert_eq!(get(&survivor, b"h", b"2", 0).unwrap(), b"two");
}

#[test]
fn an_empty_table_survives_a_crash() {
    let root = tempfile::tempdir().unwrap();
    let table = create(&root.path().join("before"));
    crash_image(&root.path().join("before/rdb"), &root.path().join("after/rdb"));
    let survivor = reopen(&root.path().join("after"));
    assert_eq!((survivor.applied(), survivor.last_timestamp_micros()), (Decree(0), 0));
    apply(&survivor, &[]);
    assert_eq!(survivor.applied(), Decree(0), "an empty batch is no step");
    drop(table);
}
