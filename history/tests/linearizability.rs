//! Known good and bad histories, recorded runs of a real register with one read corrupted, and all small histories of
//! a random kind against a checker that tries every order.
#![allow(clippy::unwrap_used)]

use pegasus_history::{Action, Answer, History, Operation, Outcome, State, Verdict, Witness, check};
use proptest::prelude::*;

const STEPS: u64 = 10_000_000;

fn write(client: u32, invoked_us: u64, returned_us: u64, value: u64) -> Operation {
    Operation { client, invoked_us, returned_us, action: Action::Write(value), outcome: Outcome::Ok(Answer::Done) }
}

fn delete(client: u32, invoked_us: u64, returned_us: u64) -> Operation {
    Operation { action: Action::Delete, ..write(client, invoked_us, returned_us, 0) }
}

fn read(client: u32, invoked_us: u64, returned_us: u64, state: impl Into<State>) -> Operation {
    let outcome = Outcome::Ok(Answer::Row(state.into()));
    Operation { client, invoked_us, returned_us, action: Action::Read, outcome }
}

fn exchange(client: u32, invoked_us: u64, returned_us: u64, from: impl Into<State>, to: impl Into<State>) -> Operation {
    Operation { action: Action::Exchange(from.into(), to.into()), ..write(client, invoked_us, returned_us, 0) }
}

/// An exchange that found something else.
fn kept(operation: Operation, found: impl Into<State>) -> Operation {
    ended(operation, Outcome::Ok(Answer::Row(found.into())))
}

fn ended(operation: Operation, outcome: Outcome) -> Operation {
    Operation { outcome, ..operation }
}

fn accepted(operations: &[Operation]) {
    let verdict = check(operations, None, STEPS);
    assert_eq!(verdict, Verdict::Linearizable, "{operations:#?}");
}

fn refused(operations: &[Operation]) -> Witness {
    match check(operations, None, STEPS) {
        Verdict::Violation(witness) => *witness,
        verdict => panic!("{verdict:?}: {operations:#?}"),
    }
}

#[test]
fn reads_see_the_latest_write() {
    accepted(&[]);
    accepted(&[read(1, 0, 1, None)]);
    accepted(&[write(1, 0, 1, 7), read(1, 2, 3, 7), delete(1, 4, 5), read(1, 6, 7, None), write(1, 8, 9, 7)]);
    assert_eq!(check(&[read(1, 0, 1, 5)], Some(5), STEPS), Verdict::Linearizable);
}

#[test]
fn a_stale_read_is_refused() {
    let history = [write(1, 0, 10, 1), write(1, 20, 30, 2), read(2, 40, 50, 1), read(2, 60, 70, 2)];
    let witness = refused(&history);
    assert_eq!(witness.culprit, history[2]);
    assert!(witness.reason.contains("overwritten before it began"), "{witness}");
    assert!(witness.nearby.contains(&history[0]) && witness.nearby.contains(&history[1]), "{witness}");
}

#[test]
fn a_lost_acknowledged_write_is_refused() {
    let history = [write(1, 0, 10, 1), write(2, 20, 30, 2), read(3, 40, 50, None)];
    assert_eq!(refused(&history).culprit, history[2]);
    let history = [write(1, 0, 10, 1), read(2, 5, 8, 1), read(3, 20, 30, None)];
    assert_eq!(refused(&history).culprit, history[2]);
}

#[test]
fn a_failed_write_that_comes_to_life_is_refused() {
    let failed = ended(write(1, 0, 10, 1), Outcome::Failed);
    accepted(&[failed, read(2, 20, 30, None)]);
    let witness = refused(&[failed, read(2, 20, 30, 1)]);
    assert!(witness.reason.contains("reported as failed"), "{witness}");
    let witness = refused(&[read(2, 20, 30, 9)]);
    assert!(witness.reason.contains("nobody ever wrote"), "{witness}");
    let witness = refused(&[read(2, 20, 30, 9), write(1, 31, 40, 9)]);
    assert!(witness.reason.contains("only after"), "{witness}");
}

#[test]
fn an_unknown_write_may_take_effect_late_or_never_but_only_once() {
    let unknown = ended(write(1, 0, 10, 1), Outcome::Unknown);
    let others = [write(2, 20, 30, 2), read(2, 40, 50, 2)];
    accepted(&[unknown, others[0], others[1]]);
    accepted(&[unknown, others[0], others[1], read(3, 1000, 1001, 1)]);
    refused(&[unknown, others[0], read(3, 100, 101, 1), write(2, 200, 201, 3), read(3, 300, 301, 1)]);
    // Two of them can do it twice.
    let again = ended(write(4, 0, 10, 1), Outcome::Unknown);
    accepted(&[unknown, again, read(3, 100, 101, 1), write(2, 200, 201, 3), read(3, 300, 301, 1)]);
    // Not before it began.
    refused(&[ended(write(1, 60, 70, 1), Outcome::Unknown), read(3, 40, 50, 1)]);
    // An unknown delete as well.
    let unknown = ended(delete(1, 0, 10), Outcome::Unknown);
    accepted(&[unknown, write(2, 20, 30, 2), read(2, 40, 50, 2), read(2, 60, 70, None)]);
    refused(&[unknown, write(2, 20, 30, 2), read(2, 40, 50, None), read(2, 60, 70, 2)]);
}

#[test]
fn concurrent_writes_take_effect_in_either_order_but_in_one() {
    let both = [write(1, 0, 100, 1), write(2, 0, 100, 2)];
    for seen in [1, 2] {
        accepted(&[both[0], both[1], read(3, 200, 210, seen), read(4, 300, 310, seen)]);
        let flicker = [both[0], both[1], read(3, 200, 210, seen), read(4, 300, 310, 3 - seen)];
        assert_eq!(refused(&flicker).culprit, flicker[3]);
        // While both are under way readers see each only once.
        accepted(&[both[0], both[1], read(3, 10, 20, seen), read(4, 30, 40, 3 - seen)]);
        refused(&[both[0], both[1], read(3, 10, 20, seen), read(4, 30, 40, 3 - seen), read(3, 50, 60, seen)]);
    }
}

#[test]
fn reads_that_overlap_each_other_must_agree_on_one_order() {
    let history = [write(1, 0, 1, 1), write(2, 10, 50, 2), read(3, 11, 20, 2), read(4, 25, 30, 1)];
    assert_eq!(refused(&history).culprit, history[3]);
    accepted(&[history[0], history[1], history[2], read(4, 15, 30, 1)]);
}

#[test]
fn an_exchange_needs_its_state_and_takes_it_away() {
    accepted(&[exchange(1, 0, 1, None, 1), exchange(2, 2, 3, 1, 2), read(1, 4, 5, 2), exchange(1, 6, 7, 2, None)]);
    let history = [exchange(1, 0, 1, None, 1), exchange(2, 2, 3, None, 2)];
    assert_eq!(refused(&history).culprit, history[1]);
    // Of two that were under way together one was carried out, and the other one saw it.
    let both = [exchange(1, 0, 10, None, 1), exchange(2, 0, 10, None, 2)];
    refused(&both);
    accepted(&[both[0], kept(both[1], 1)]);
    let witness = refused(&[both[0], kept(both[1], 3)]);
    assert!(witness.reason.contains("which nobody ever wrote"), "{witness}");
    // A write in between gives the state back.
    accepted(&[write(1, 0, 1, 1), exchange(2, 2, 9, 1, 2), exchange(3, 2, 9, 1, 3), write(4, 2, 9, 1)]);
    refused(&[write(1, 0, 1, 1), exchange(2, 2, 9, 1, 2), exchange(3, 2, 9, 1, 3), write(4, 20, 29, 1)]);
}

#[test]
fn a_lost_update_is_refused() {
    // Increments as exchanges: two clients were told the same number.
    let history = [write(1, 0, 1, 5), exchange(1, 2, 9, 5, 6), exchange(2, 3, 8, 5, 6), read(3, 20, 21, 6)];
    let witness = refused(&history);
    assert!(witness.to_string().contains("exchange 5 for 6"), "{witness}");
}

#[test]
fn an_unknown_exchange_takes_effect_at_most_once_and_only_from_its_state() {
    let unknown = ended(exchange(1, 0, 10, 1, 2), Outcome::Unknown);
    let begin = write(9, 0, 1, 1);
    accepted(&[begin, unknown, read(2, 20, 30, 1), read(2, 40, 50, 2)]);
    accepted(&[begin, unknown, exchange(2, 20, 30, 2, 3)]);
    accepted(&[begin, unknown, exchange(2, 20, 30, 1, 3), read(3, 40, 50, 3)]);
    refused(&[begin, unknown, exchange(2, 20, 30, 1, 3), read(3, 40, 50, 2)]);
    refused(&[begin, unknown, read(3, 20, 30, 2), read(3, 40, 50, 1)]);
    // Again after the state has come back, but not twice.
    let again = [begin, unknown, read(3, 20, 30, 1), write(2, 40, 50, 4), write(2, 60, 70, 1), read(3, 80, 90, 2)];
    accepted(&again);
    refused(&[&again[..], &[write(2, 100, 110, 1), read(3, 120, 130, 2)]].concat());
    refused(&[ended(exchange(1, 0, 10, 7, 2), Outcome::Unknown), read(2, 20, 30, 2)]);
}

#[test]
fn too_few_steps_decide_nothing() {
    assert_eq!(check(&[write(1, 0, 10, 1), read(2, 20, 30, 1)], None, 1), Verdict::Undecided);
}

#[test]
fn keys_are_judged_apart() {
    let mut history = History::new();
    history.record(1, write(1, 0, 10, 1));
    history.record(2, read(1, 20, 30, 1));
    let mut other = History::new();
    other.record(1, read(1, 20, 30, 1));
    history.merge(other);
    let checked = history.check(STEPS);
    assert_eq!((checked.keys, checked.operations, checked.violations.len()), (2, 3, 1));
    assert_eq!(checked.violations[0].0, 2);
    assert!(!checked.is_linearizable());
}

#[test]
fn a_witness_is_small_and_marks_the_culprit() {
    let mut history: Vec<Operation> = (0..500).map(|n| write(1, 10 * n, 10 * n + 5, n + 1)).collect();
    history.push(read(2, 4996, 5001, 250));
    history.extend((0..500).map(|n| write(1, 6000 + 10 * n, 6005 + 10 * n, n + 1000)));
    history.extend((0..40).map(|client| read(client + 10, 4990, 5500, 500)));
    let witness = refused(&history);
    assert_eq!(witness.culprit, history[500]);
    let text = witness.to_string();
    assert!(witness.nearby.len() <= 24 && text.lines().count() <= 26, "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("  >")).count(), 1, "{text}");
    assert!(text.contains("found 250"), "{text}");
}

/// A small stream of numbers, so that a history follows from its seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

/// How a register is used.
#[derive(Clone, Copy, Debug)]
struct Usage {
    clients: u64,
    operations: u64,
    /// Values written; above `operations` each is new.
    values: u64,
    deletes_percent: u64,
    /// Of what would be plain writes.
    exchanges_percent: u64,
    unknown_percent: u64,
}

/// What clients of a real register see: each operation takes effect at one moment inside its interval, or, of unknown
/// outcome, at any moment after it began, or never.
fn recorded(seed: u64, usage: Usage) -> Vec<Operation> {
    let mut numbers = Numbers(seed);
    let mut free_at = vec![0u64; usage.clients as usize];
    // By the moment of effect: the operation, or `None` for one that never takes effect.
    let mut plan = Vec::new();
    for n in 0..usage.operations {
        let client = numbers.below(usage.clients) as usize;
        let invoked_us = free_at[client] + numbers.below(50);
        let returned_us = invoked_us + 1 + numbers.below(200);
        free_at[client] = returned_us + 1;
        let value = if usage.values > usage.operations { n + 1 } else { 1 + numbers.below(usage.values) };
        let action = match numbers.below(100) {
            percent if percent < usage.deletes_percent => Action::Delete,
            percent if percent < 50 && numbers.below(100) < usage.exchanges_percent => {
                Action::Exchange(None, Some(value))
            }
            percent if percent < 50 => Action::Write(value),
            _ => Action::Read,
        };
        let unknown = action != Action::Read && numbers.below(100) < usage.unknown_percent;
        let outcome = if unknown { Outcome::Unknown } else { Outcome::Ok(Answer::Done) };
        let effect = match (unknown, numbers.below(3)) {
            (true, 0) => None,
            (true, 1) => Some(returned_us + numbers.below(5000)),
            _ => Some(invoked_us + numbers.below(returned_us - invoked_us + 1)),
        };
        let operation = Operation { client: client as u32, invoked_us, returned_us, action, outcome };
        plan.push((effect, operation));
    }
    plan.sort_by_key(|(effect, _)| effect.unwrap_or(u64::MAX));
    let mut state = None;
    for (effect, operation) in &mut plan {
        match (*effect, operation.action) {
            (None, _) => {}
            (Some(_), Action::Write(value)) => state = Some(value),
            (Some(_), Action::Delete) => state = None,
            (Some(_), Action::Read) => operation.outcome = Outcome::Ok(Answer::Row(state)),
            // Three of four have learned of the state in time.
            (Some(_), Action::Exchange(_, to)) if numbers.below(4) > 0 => {
                operation.action = Action::Exchange(state, to);
                state = to;
            }
            (Some(_), Action::Exchange(_, to)) => {
                operation.action = Action::Exchange(Some(u64::MAX), to);
                if operation.outcome != Outcome::Unknown {
                    operation.outcome = Outcome::Ok(Answer::Row(state));
                }
            }
        }
    }
    plan.into_iter().map(|(_, operation)| operation).collect()
}

#[test]
fn long_histories_of_many_clients_are_decided_quickly() {
    let usual = Usage {
        clients: 8,
        operations: 200_000,
        values: u64::MAX,
        deletes_percent: 10,
        exchanges_percent: 0,
        unknown_percent: 1,
    };
    for usage in [
        usual,
        Usage { deletes_percent: 0, ..usual },
        Usage { clients: 64, operations: 20_000, deletes_percent: 0, ..usual },
        Usage { clients: 24, operations: 20_000, ..usual },
        Usage { clients: 4, operations: 5_000, deletes_percent: 25, unknown_percent: 40, ..usual },
        Usage { clients: 16, exchanges_percent: 100, deletes_percent: 0, unknown_percent: 3, ..usual },
        Usage { clients: 16, operations: 50_000, exchanges_percent: 50, ..usual },
        Usage { clients: 48, operations: 20_000, exchanges_percent: 90, deletes_percent: 0, ..usual },
    ] {
        let history = recorded(7, usage);
        assert_eq!(check(&history, None, 50_000_000), Verdict::Linearizable, "{usage:?}");
    }
}

#[test]
fn one_wrong_read_in_a_long_history_is_found() {
    let usage = Usage {
        clients: 16,
        operations: 20_000,
        values: u64::MAX,
        deletes_percent: 5,
        exchanges_percent: 0,
        unknown_percent: 2,
    };
    let mut history = recorded(3, usage);
    history.sort_by_key(|operation| operation.returned_us);
    let seen = |operation: &Operation| matches!(operation.outcome, Outcome::Ok(Answer::Row(Some(_))));
    let old = history[..9_000].iter().rev().find(|operation| seen(operation)).unwrap().outcome;
    let late = 10_000 + history[10_000..].iter().position(seen).unwrap();
    history[late].outcome = old;
    let witness = refused(&history);
    assert_eq!(witness.culprit, history[late]);
    assert!(witness.nearby.len() <= 24);
}

/// Tries every order: `left` are the operations that have not taken effect.
fn explained(left: &[Operation], state: State) -> bool {
    if left.iter().all(|operation| operation.outcome == Outcome::Unknown) {
        return true;
    }
    left.iter().enumerate().any(|(index, operation)| {
        let first = |other: &Operation| other.outcome == Outcome::Unknown || other.returned_us >= operation.invoked_us;
        if !left.iter().all(first) {
            return false;
        }
        let next = match (operation.action, operation.outcome) {
            (Action::Write(value), _) => Some(value),
            (Action::Delete, _) => None,
            (Action::Exchange(from, to), Outcome::Ok(Answer::Done) | Outcome::Unknown) if from == state => to,
            // An unknown one that finds another state does nothing; that is the same as never.
            (Action::Exchange(..), Outcome::Ok(Answer::Done) | Outcome::Unknown) => return false,
            (_, Outcome::Ok(Answer::Row(found))) if found != state => return false,
            (Action::Read | Action::Exchange(..), _) => state,
        };
        let mut rest = left.to_vec();
        rest.remove(index);
        explained(&rest, next)
    })
}

fn small_operation() -> impl Strategy<Value = Operation> {
    let action = prop_oneof![
        3 => (1u64..4).prop_map(Action::Write),
        2 => Just(Action::Delete),
        5 => Just(Action::Read),
        5 => (state(), state()).prop_map(|(from, to)| Action::Exchange(from, to)),
    ];
    let changed = any::<bool>();
    let outcome = prop_oneof![
        1 => Just(Outcome::Failed),
        2 => Just(Outcome::Unknown),
        7 => Just(Outcome::Ok(Answer::Done)),
    ];
    let moments = (0u64..14, 0u64..8);
    (moments, action, outcome, state(), changed).prop_map(|((invoked_us, length), action, outcome, found, changed)| {
        let outcome = match (action, outcome) {
            (Action::Read, Outcome::Ok(_)) => Outcome::Ok(Answer::Row(found)),
            (Action::Exchange(from, _), Outcome::Ok(_)) if !changed && from != found => Outcome::Ok(Answer::Row(found)),
            (_, outcome) => outcome,
        };
        Operation { client: 0, invoked_us, returned_us: invoked_us + length, action, outcome }
    })
}

fn state() -> impl Strategy<Value = State> {
    proptest::option::of(1u64..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn small_histories_are_judged_as_by_trying_every_order(
        operations in prop::collection::vec(small_operation(), 0..8),
    ) {
        let effective: Vec<Operation> =
            operations.iter().filter(|operation| operation.outcome != Outcome::Failed).copied().collect();
        let expected = explained(&effective, None);
        match check(&operations, None, STEPS) {
            Verdict::Linearizable => prop_assert!(expected, "accepted, but no order explains it"),
            Verdict::Violation(witness) => prop_assert!(!expected, "refused with {witness}"),
            Verdict::Undecided => prop_assert!(false, "undecided"),
        }
    }

    #[test]
    fn recordings_of_a_register_are_accepted(
        seed in any::<u64>(),
        clients in 1u64..8,
        values in prop_oneof![Just(u64::MAX), 1u64..6],
        deletes_percent in 0u64..30,
        exchanges_percent in prop_oneof![Just(0u64), 0u64..=100],
        unknown_percent in 0u64..30,
    ) {
        // Exchanges of a few values that come again and again can be ordered in too many ways.
        let exchanges_percent = if values == u64::MAX { exchanges_percent } else { 0 };
        let usage = Usage { clients, operations: 200, values, deletes_percent, exchanges_percent, unknown_percent };
        let verdict = check(&recorded(seed, usage), None, STEPS);
        prop_assert_eq!(verdict, Verdict::Linearizable);
    }

    /// A read that ends before a value is first written, and yet found it, is wrong whatever else is going on.
    #[test]
    fn recordings_with_one_corrupted_read_are_refused(
        seed in any::<u64>(),
        clients in 1u64..12,
        exchanges_percent in prop_oneof![Just(0u64), 0u64..=100],
        which in any::<u64>(),
    ) {
        let usage = Usage {
            clients,
            operations: 200,
            values: u64::MAX,
            deletes_percent: 10,
            exchanges_percent,
            unknown_percent: 5,
        };
        let mut history = recorded(seed, usage);
        let reads: Vec<usize> = (0..history.len())
            .filter(|&index| matches!(history[index].outcome, Outcome::Ok(Answer::Row(_))))
            .collect();
        prop_assume!(!reads.is_empty());
        let chosen = reads[which as usize % reads.len()];
        let corrupted = history[chosen];
        let overwritten = history.iter().find_map(|early| {
            let value = match (early.action, early.outcome) {
                (Action::Write(value), Outcome::Ok(_)) => value,
                _ => return None,
            };
            let between = |late: &Operation| {
                late.is_acknowledged_write()
                    && early.returned_us < late.invoked_us
                    && late.returned_us < corrupted.invoked_us
            };
            (early.returned_us < corrupted.invoked_us && history.iter().any(between)).then_some(value)
        });
        let wrong = overwritten.unwrap_or(u64::MAX);
        history[chosen].outcome = Outcome::Ok(Answer::Row(Some(wrong)));
        let verdict = check(&history, None, STEPS);
        prop_assert!(matches!(verdict, Verdict::Violation(_)), "{:?} after {:?}", verdict, corrupted);
    }
}
