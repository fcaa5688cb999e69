//! The overlay against a naive model: the list of all mutations, walked from the newest to the oldest.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use pegasus_engine::overlay::{Overlaid, Overlay};
use pegasus_wire::frame::append_body;
use pegasus_wire::key::encode;
use pegasus_wire::messages::data::{RowOperation, SortKeys, Write};
use pegasus_wire::{Ballot, Decree, Mutation, MutationKind, PartitionId};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Change {
    Put { sort_key: Vec<u8>, value: Vec<u8>, expiry: u32 },
    Delete { sort_key: Vec<u8> },
    DeleteRange { start: Vec<u8>, stop: Vec<u8>, start_inclusive: bool, stop_inclusive: bool },
}

#[derive(Clone, Debug)]
enum Step {
    /// The next mutation; without changes an empty one.
    Write(Vec<u8>, Vec<Change>),
    /// So many mutations more are applied.
    Apply(u64),
    /// The overlay takes in what it lacks, and every row is looked up.
    Ask,
    /// What is not applied is replaced, under another ballot, by nothing.
    Replace,
}

impl Change {
    fn operation(&self) -> RowOperation<'_> {
        match self {
            Change::Put { sort_key, value, expiry } => RowOperation::Put { sort_key, value, expiry_seconds: *expiry },
            Change::Delete { sort_key } => RowOperation::Delete { sort_key },
            Change::DeleteRange { start, stop, start_inclusive, stop_inclusive } => RowOperation::DeleteRange {
                range: SortKeys { start, stop, start_inclusive: *start_inclusive, stop_inclusive: *stop_inclusive },
            },
        }
    }

    /// What this change makes of a row; `None` if it leaves it alone.
    fn effect(&self, key: &[u8]) -> Option<Option<(Bytes, u32)>> {
        match self {
            Change::Put { sort_key, value, expiry } if sort_key == key => {
                Some(Some((Bytes::from(value.clone()), *expiry)))
            }
            Change::Delete { sort_key } if sort_key == key => Some(None),
            Change::DeleteRange { start, stop, start_inclusive, stop_inclusive } => {
                let after = if *start_inclusive { key >= &start[..] } else { key > &start[..] };
                let before = if *stop_inclusive { key <= &stop[..] } else { key < &stop[..] };
                (after && (stop.is_empty() || before)).then_some(None)
            }
            _ => None,
        }
    }
}

fn mutation(decree: u64, hash_key: &[u8], changes: &[Change]) -> Mutation {
    let operations: Vec<_> = changes.iter().map(Change::operation).collect();
    let mut payload = Vec::new();
    let kind = if operations.is_empty() { MutationKind::Empty } else { MutationKind::Write };
    if kind == MutationKind::Write {
        append_body(&mut payload, &Write { partition: PartitionId::new(1, 2), hash_key, operations: &operations });
    }
    Mutation { ballot: Ballot(1), decree: Decree(decree), timestamp_micros: decree, kind, payload: payload.into() }
}

/// The whole history, and how much of it is applied.
#[derive(Default)]
struct Model {
    history: Vec<(Vec<u8>, Vec<Change>)>,
    applied: usize,
}

impl Model {
    fn get(&self, hash_key: &[u8], sort_key: &[u8]) -> Option<Overlaid> {
        let unapplied = self.history.iter().enumerate().skip(self.applied);
        let changes = unapplied
            .filter(|(_, (hash, _))| hash == hash_key)
            .flat_map(|(index, (_, changes))| changes.iter().map(move |change| (Decree(index as u64 + 1), change)));
        let mut effects = changes.filter_map(|(decree, change)| Some((decree, change.effect(sort_key)?)));
        effects.next_back().map(|(decree, row)| Overlaid { decree, row })
    }
}

struct Harness {
    model: Model,
    overlay: Overlay,
}

impl Harness {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(hash_key, changes) => self.model.history.push((hash_key.clone(), changes.clone())),
            Step::Apply(count) => {
                self.model.applied = (self.model.applied + *count as usize).min(self.model.history.len());
            }
            Step::Ask => self.ask(),
            Step::Replace => {
                self.model.history.truncate(self.model.applied);
                self.overlay.clear();
            }
        }
    }

    fn ask(&mut self) {
        self.overlay.prune(Decree(self.model.applied as u64));
        let from = self.overlay.through().0 as usize;
        for (index, (hash_key, changes)) in self.model.history.iter().enumerate().skip(from) {
            self.overlay.index(&mutation(index as u64 + 1, hash_key, changes)).unwrap();
        }
        assert_eq!(self.overlay.through().0 as usize, self.model.history.len());
        for hash_key in hash_keys() {
            for sort_key in sort_keys() {
                let found = self.overlay.get(&encode(&hash_key, &sort_key));
                assert_eq!(found, self.model.get(&hash_key, &sort_key), "{hash_key:?} {sort_key:?}");
            }
        }
        let unapplied = &self.model.history[self.model.applied..];
        assert_eq!(self.overlay.is_empty(), unapplied.iter().all(|(_, changes)| changes.is_empty()));
    }
}

fn hash_keys() -> Vec<Vec<u8>> {
    vec![b"h".to_vec(), b"hh".to_vec(), vec![0xFF]]
}

fn sort_keys() -> Vec<Vec<u8>> {
    vec![b"".to_vec(), b"a".to_vec(), b"a\0".to_vec(), b"b".to_vec(), b"c".to_vec(), vec![0xFF]]
}

fn change() -> impl Strategy<Value = Change> {
    let sort_key = || proptest::sample::select(sort_keys());
    prop_oneof![
        3 => (sort_key(), vec(any::<u8>(), 0..4), 0u32..3)
            .prop_map(|(sort_key, value, expiry)| Change::Put { sort_key, value, expiry }),
        1 => sort_key().prop_map(|sort_key| Change::Delete { sort_key }),
        2 => (sort_key(), sort_key(), any::<bool>(), any::<bool>()).prop_map(
            |(start, stop, start_inclusive, stop_inclusive)| Change::DeleteRange {
                start,
                stop,
                start_inclusive,
                stop_inclusive
            }
        ),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (proptest::sample::select(hash_keys()), vec(change(), 0..5))
            .prop_map(|(hash_key, changes)| Step::Write(hash_key, changes)),
        3 => (1u64..6).prop_map(Step::Apply),
        4 => Just(Step::Ask),
        1 => Just(Step::Replace),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_reads_as_the_window_says(steps in vec(step(), 1..60)) {
        let mut harness = Harness { model: Model::default(), overlay: Overlay::default() };
        for step in &steps {
            harness.step(step);
        }
        harness.ask();
        harness.step(&Step::Apply(1000));
        harness.ask();
        prop_assert!(harness.overlay.is_empty(), "what is applied is forgotten");
    }
}

#[test]
fn the_order_within_a_write_counts() {
    let put = |sort_key: &[u8]| Change::Put { sort_key: sort_key.into(), value: b"v".to_vec(), expiry: 9 };
    let all = Change::DeleteRange { start: vec![], stop: vec![], start_inclusive: true, stop_inclusive: true };
    let mut overlay = Overlay::default();
    overlay.index(&mutation(1, b"h", &[put(b"before"), all, put(b"after")])).unwrap();
    let row = |sort_key: &[u8]| overlay.get(&encode(b"h", sort_key)).map(|overlaid| overlaid.row);
    assert_eq!(row(b"before"), Some(None));
    assert_eq!(row(b"after"), Some(Some((Bytes::from_static(b"v"), 9))));
    assert_eq!(row(b"never written"), Some(None), "a range deletes what the table may have");
    assert_eq!(overlay.get(&encode(b"other", b"after")), None);
    assert_eq!(overlay.get(b"\0\x09short"), None, "no stored key, no row");
}

#[test]
fn values_are_pieces_of_the_payload_and_go_when_they_are_applied() {
    let change = Change::Put { sort_key: b"s".to_vec(), value: vec![7; 100], expiry: 0 };
    let mutation = mutation(1, b"h", &[change]);
    let mut overlay = Overlay::default();
    overlay.index(&mutation).unwrap();
    let (value, _) = overlay.get(&encode(b"h", b"s")).unwrap().row.unwrap();
    assert!(mutation.payload.as_ptr_range().contains(&value.as_ptr()));
    drop(value);
    overlay.prune(Decree(1));
    assert!(mutation.payload.is_unique(), "nothing holds on to the payload");
}

#[test]
fn mutations_that_were_applied_before_anybody_asked_are_skipped() {
    let mut overlay = Overlay::default();
    overlay.prune(Decree(41));
    assert_eq!(overlay.through(), Decree(41));
    overlay.index(&mutation(42, b"h", &[])).unwrap();
    overlay.prune(Decree(7));
    assert_eq!(overlay.through(), Decree(42), "an older report changes nothing");
    overlay.clear();
    assert_eq!(overlay.through(), Decree(0));
}

#[test]
#[should_panic(expected = "without gaps")]
fn a_gap_is_a_bug_of_the_owner() {
    let _ = Overlay::default().index(&mutation(2, b"h", &[]));
}

#[test]
fn a_payload_that_is_no_write_is_an_error() {
    let mut bad = mutation(1, b"h", &[Change::Delete { sort_key: vec![] }]);
    bad.payload = Bytes::from_static(b"garbage");
    assert!(Overlay::default().index(&bad).is_err());
}
