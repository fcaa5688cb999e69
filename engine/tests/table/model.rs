//! A random history against an ordered map: applies, flushes, compactions, restarts and crashes.

use std::collections::BTreeMap;

use pegasus_engine::table::{OpenMode, ScanRequest, Table, hash_key_range};
use pegasus_wire::expiry::is_expired;
use pegasus_wire::key::{decode, encode};
use pegasus_wire::messages::data::RowOperation;
use pegasus_wire::{Decree, Mutation};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::*;

/// What one mutation does, in terms of the model.
#[derive(Clone, Debug)]
enum Change {
    Put { sort_key: Vec<u8>, value: Vec<u8>, expiry: u32 },
    Delete { sort_key: Vec<u8> },
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
}

type Rows = BTreeMap<Vec<u8>, (Vec<u8>, u32)>;

struct Harness {
    root: tempfile::TempDir,
    generation: u32,
    table: Option<Table>,
    /// All mutations since the beginning: what the mutation log would hold.
    log: Vec<Mutation>,
    rows: Rows,
    /// Far enough ahead that compaction drops nothing.
    base: u32,
}

impl Harness {
    fn new() -> Harness {
        let root = tempfile::tempdir().unwrap();
        let table = create(&root.path().join("0"));
        let base = system_now_seconds() + 10_000;
        Harness { root, generation: 0, table: Some(table), log: Vec::new(), rows: Rows::new(), base }
    }

    fn table(&self) -> &Table {
        self.table.as_ref().unwrap()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Apply(mutations) => self.apply_all(mutations),
            Step::Flush => assert_eq!(self.table().flush().unwrap().0, self.log.len() as u64),
            Step::Compact => self.table().compact(),
            Step::Restart => {
                self.table = None;
                self.table = Some(reopen(&self.directory()));
                assert_eq!(self.table().applied().0, self.log.len() as u64, "closing flushes");
                assert_eq!(self.table().flushed(), self.table().applied());
            }
            Step::Crash => self.crash(),
            Step::Check { after, slice } => self.check(self.base + after, *slice),
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
            for change in changes {
                match change {
                    Change::Put { sort_key, value, expiry } => {
                        let expiry = if *expiry == 0 { 0 } else { self.base + expiry };
                        self.rows.insert(encode(hash_key, sort_key), (value.clone(), expiry));
                    }
                    Change::Delete { sort_key } => {
                        self.rows.remove(&encode(hash_key, sort_key));
                    }
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
        }
    }

    fn crash(&mut self) {
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

    fn live(&self, now: u32) -> Vec<(Vec<u8>, Vec<u8>, u32)> {
        let live = self.rows.iter().filter(|(_, (_, expiry))| !is_expired(*expiry, now));
        live.map(|(key, (value, expiry))| (key.clone(), value.clone(), *expiry)).collect()
    }

    fn check(&self, now: u32, slice: usize) {
        let expected = self.live(now);
        assert_eq!(self.scan_in_slices(everything(now), slice), expected);
        let count = scan(self.table(), &ScanRequest { count_only: true, ..everything(now) });
        assert_eq!((count.count as usize, count.complete, count.rows.len()), (expected.len(), true, 0));
        for (hash_key, sort_key) in self.all_keys() {
            let model = self.rows.get(&encode(&hash_key, &sort_key)).filter(|(_, expiry)| !is_expired(*expiry, now));
            let found = get(self.table(), &hash_key, &sort_key, now);
            assert_eq!(found.as_deref(), model.map(|(value, _)| &value[..]));
        }
        for hash_key in hash_keys() {
            let (start, stop) = hash_key_range(&hash_key, b"b", b"", false);
            let request = ScanRequest { start: &start, stop: &stop, ..everything(now) };
            let inside = |key: &[u8]| matches!(decode(key), Ok((hash, sort)) if hash == hash_key && sort >= &b"b"[..]);
            let expected: Vec<_> = expected.iter().filter(|(key, ..)| inside(key)).cloned().collect();
            assert_eq!(self.scan_in_slices(request, slice), expected);
        }
    }

    fn scan_in_slices(&self, request: ScanRequest<'_>, slice: usize) -> Vec<(Vec<u8>, Vec<u8>, u32)> {
        let mut rows = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let mut part = ScanRequest { rows_max: slice, iterations_max: slice + 1, ..request };
            if let Some(after) = &after {
                part.start = after;
                part.start_inclusive = false;
            }
            let outcome = scan(self.table(), &part);
            rows.extend(outcome.rows.iter().map(|row| (row.key.to_vec(), row.value.to_vec(), row.expiry_seconds)));
            if outcome.complete {
                return rows;
            }
            assert!(after.is_none_or(|after| after < outcome.resume_after), "a slice moves on");
            after = Some(outcome.resume_after);
        }
    }

    fn all_keys(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        hash_keys().into_iter().flat_map(|hash| sort_keys().into_iter().map(move |sort| (hash.clone(), sort)))
    }
}

fn hash_keys() -> Vec<Vec<u8>> {
    vec![b"a".to_vec(), b"aa".to_vec(), b"b".to_vec(), vec![0xFF], vec![0xFF; 3]]
}

fn sort_keys() -> Vec<Vec<u8>> {
    vec![b"".to_vec(), b"a".to_vec(), b"b".to_vec(), b"b\0".to_vec(), b"c".to_vec(), vec![0xFF, 0xFF]]
}

fn change() -> impl Strategy<Value = Change> {
    let sort_key = || proptest::sample::select(sort_keys());
    prop_oneof![
        3 => (sort_key(), vec(any::<u8>(), 0..40), proptest::sample::select(vec![0, 100, 200]))
            .prop_map(|(sort_key, value, expiry)| Change::Put { sort_key, value, expiry }),
        1 => sort_key().prop_map(|sort_key| Change::Delete { sort_key }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let one = (proptest::sample::select(hash_keys()), vec(change(), 0..5));
    prop_oneof![
        6 => vec(one, 1..6).prop_map(Step::Apply),
        2 => Just(Step::Flush),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
        3 => (proptest::sample::select(vec![0, 100, 150, 300]), 1usize..20)
            .prop_map(|(after, slice)| Step::Check { after, slice }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_history_reads_like_an_ordered_map(steps in vec(step(), 1..30)) {
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
