//! The ring against a plain list.

use std::collections::BTreeMap;

use bytes::Bytes;
use pegasus_wire::{Ballot, Decree, Mutation, MutationKind};
use proptest::prelude::*;

use super::Window;
use crate::event::AppendToken;

fn mutation(decree: u64, ballot: u64, length: usize) -> Mutation {
    Mutation {
        ballot: Ballot(ballot),
        decree: Decree(decree),
        timestamp_micros: 1,
        kind: MutationKind::Write,
        payload: Bytes::from(vec![7; length]),
    }
}

#[test]
fn a_ballot_begins_after_what_the_ring_has_of_it() {
    let log = vec![mutation(4, 2, 1), mutation(5, 3, 1), mutation(6, 3, 1), mutation(7, 2, 1)];
    let mut window = Window::recovered(Decree(3), Decree(4), log);
    window.begin_ballot(Ballot(3), Decree(4));
    assert_eq!((window.confirmed(), window.prepared(), window.last()), (Decree(6), Decree(6), Decree(7)));
    window.begin_ballot(Ballot(4), Decree(5));
    assert_eq!((window.confirmed(), window.prepared()), (Decree(5), Decree(5)));
    assert_eq!(window.first_stale(Decree(5), Ballot(3)), Some(Decree(7)));
    assert_eq!(window.first_stale(Decree(5), Ballot(4)), Some(Decree(6)));
    assert_eq!(window.first_stale(Decree(7), Ballot(4)), None);
    assert_eq!(window.first_stale(Decree(1), Ballot(3)), Some(Decree(4)));
}

#[test]
fn batches_are_handed_out_once_and_one_at_a_time() {
    let mut window = Window::recovered(Decree(0), Decree(0), Vec::new());
    window.begin_ballot(Ballot(2), Decree(0));
    for number in 1..=3 {
        window.prepare(mutation(number, 2, 1), AppendToken(number), None);
    }
    window.mark_logged(AppendToken(3));
    assert!(window.commit(Decree(1)));
    assert_eq!(window.take_batch(window.committed()).map(|batch| batch.len()), Some(1));
    assert!(window.commit(Decree(3)));
    assert!(!window.commit(Decree(2)), "it never falls");
    assert_eq!(window.take_batch(window.committed()), None, "one is running");
    assert!(window.pop_applied(Decree(1)).is_some());
    assert_eq!(window.take_batch(window.committed()).map(|batch| batch.len()), Some(2));
    assert_eq!(window.take_batch(window.committed()), None);
}

#[test]
#[should_panic(expected = "a committed mutation is never dropped")]
fn what_is_committed_is_never_dropped() {
    let mut window = Window::recovered(Decree(0), Decree(2), vec![mutation(1, 2, 1), mutation(2, 2, 1)]);
    window.truncate_from(Decree(2));
}

/// Prepares, logs, commits and applies what follows, up to a decree, in payloads of two bytes.
fn apply_through(window: &mut Window, last: u64) {
    for number in window.last().0 + 1..=last {
        window.prepare(mutation(number, 2, 2), AppendToken(number), None);
    }
    window.mark_logged(AppendToken(last));
    window.commit(Decree(last));
    window.take_batch(Decree(last));
    while window.pop_applied(Decree(last)).is_some() {}
}

/// The decrees of 1 to 12 that are in memory.
fn found(window: &Window) -> Vec<u64> {
    let wanted = (1..=12).filter_map(|number| Some((number, window.find(Decree(number))?)));
    wanted.inspect(|(number, of)| assert_eq!(of.decree.0, *number)).map(|(number, _)| number).collect()
}

#[test]
fn what_is_applied_is_kept_for_learners() {
    let mut window = Window::recovered(Decree(0), Decree(0), Vec::new());
    window.begin_ballot(Ballot(2), Decree(0));
    apply_through(&mut window, 3);
    assert_eq!(found(&window), [0; 0], "nobody learns");
    window.retain_from(Decree(1), 100);
    assert_eq!(found(&window), [0; 0], "only what is applied from now on");
    apply_through(&mut window, 6);
    window.prepare(mutation(7, 2, 2), AppendToken(7), None);
    assert_eq!(found(&window), [4, 5, 6, 7], "and what is not applied yet");
    window.retain_from(Decree(6), 100);
    assert_eq!(found(&window), [6, 7], "nobody needs more");
    window.retain_from(Decree(2), 100);
    assert_eq!(found(&window), [6, 7], "what is gone is gone");
    apply_through(&mut window, 10);
    window.retain_from(Decree(2), 6);
    assert_eq!(found(&window), [8, 9, 10], "six bytes");
    window.retain_from(Decree(11), 6);
    assert_eq!(found(&window), [0; 0]);
    apply_through(&mut window, 11);
    assert_eq!(found(&window), [11]);
    window.retain_none();
    apply_through(&mut window, 12);
    assert_eq!(found(&window), [0; 0]);
    window.check_invariants();
}

#[derive(Clone, Debug)]
enum Step {
    Prepare { length: usize },
    Logged,
    Commit { decree: u64 },
    TakeAndApply,
    NewBallot { keep: u64 },
    Retain { floor: u64, bytes_max: u64 },
    RetainNone,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5_usize).prop_map(|length| Step::Prepare { length }),
        2 => Just(Step::Logged),
        2 => (0..30_u64).prop_map(|decree| Step::Commit { decree }),
        2 => Just(Step::TakeAndApply),
        1 => (0..6_u64).prop_map(|keep| Step::NewBallot { keep }),
        1 => (0..30_u64, 0..20_u64).prop_map(|(floor, bytes_max)| Step::Retain { floor, bytes_max }),
        1 => Just(Step::RetainNone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The window agrees with a map of decree to (ballot, length), and keeps its own invariants.
    #[test]
    fn the_ring_is_a_map(steps in prop::collection::vec(step(), 0..120)) {
        let mut window = Window::recovered(Decree(0), Decree(0), Vec::new());
        let mut model: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
        let (mut ballot, mut token, mut committed) = (2, 0, 0);
        window.begin_ballot(Ballot(ballot), Decree(0));
        for step in steps {
            match step {
                Step::Prepare { length } => {
                    token += 1;
                    let decree = window.prepared().0 + 1;
                    window.prepare(mutation(decree, ballot, length), AppendToken(token), None);
                    model.insert(decree, (ballot, length));
                }
                Step::Logged => window.mark_logged(AppendToken(token)),
                Step::Commit { decree } => {
                    window.commit(Decree(decree));
                    prop_assert!(window.committed().0 >= committed);
                    committed = window.committed().0;
                }
                Step::TakeAndApply => {
                    if let Some(batch) = window.take_batch(window.committed()) {
                        for mutation in &batch {
                            let known = (mutation.ballot.0, mutation.payload.len());
                            prop_assert_eq!(model.get(&mutation.decree.0), Some(&known));
                        }
                        let through = batch.last().map(|mutation| mutation.decree).unwrap_or_default();
                        while window.pop_applied(through).is_some() {}
                        prop_assert_eq!(window.applied(), through);
                    }
                }
                Step::NewBallot { keep } => {
                    ballot += 1;
                    let last = (committed + keep).min(window.last().0);
                    if let Some(stale) = window.first_stale(Decree(last), Ballot(ballot)) {
                        window.truncate_from(stale);
                        model.retain(|decree, _| *decree < stale.0);
                    }
                    window.begin_ballot(Ballot(ballot), window.committed());
                }
                Step::Retain { floor, bytes_max } => window.retain_from(Decree(floor), bytes_max),
                Step::RetainNone => window.retain_none(),
            }
            for (number, (ballot, length)) in &model {
                let found = window.find(Decree(*number)).map(|of| (of.decree.0, of.ballot.0, of.payload.len()));
                let applied = *number <= window.applied().0;
                prop_assert!(found == Some((*number, *ballot, *length)) || applied && found.is_none());
            }
            for from in [0, window.applied().0 + 1, window.committed().0 + 1, window.last().0 + 1, u64::MAX] {
                let walked: Vec<_> = window.from(Decree(from)).map(|of| (of.decree.0, of.ballot.0)).collect();
                let beyond = model.range(from.max(window.applied().0 + 1)..);
                let known: Vec<_> = beyond.map(|(decree, (ballot, _))| (*decree, *ballot)).collect();
                prop_assert_eq!(walked, known);
            }
            window.check_invariants();
            let held: usize = model.range(window.applied().0 + 1..).map(|(_, (_, length))| length).sum();
            prop_assert_eq!(window.bytes(), held as u64);
            prop_assert_eq!(window.last().0, model.keys().last().copied().unwrap_or(0));
        }
    }
}
