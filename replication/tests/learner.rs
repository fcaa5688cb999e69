//! A learner, event by event: what it keeps, what it takes, and what it never does.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use pegasus_replication::{Effect, Event, Phase, Recovered, Role};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::peer::Established;
use pegasus_wire::{Ballot, Configuration, Decree, Status};

const LEARNING: ReplicaState = ReplicaState::Learning;

/// A configuration without node 2.
fn others(ballot: u64) -> Configuration {
    led_by(ballot, ONE, &[THREE])
}

fn teach(ballot: u64, last: u64, committed: u64) -> pegasus_replication::PeerMessage {
    establish_of(others(ballot), TWO, last, committed)
}

fn learning(of: Recovered) -> Recovered {
    Recovered { state: LEARNING, ..of }
}

/// An empty copy that is taught at ballot 3 on stream s5 by a primary that has committed 9.
fn taught() -> Fixture {
    let mut learner = Fixture::new(TWO, Recovered { configuration: others(3), ..Recovered::learner() });
    let answer = learner.hear(ONE, 5, teach(3, 9, 9));
    assert_eq!(answer, [send(ONE, 5, established(3, 1, 0)), now_is(Role::Learner, 3, false)]);
    learner
}

/// The same with a primary that has committed 1 and prepared 3, all of which was sent.
fn taught_before_commit() -> Fixture {
    let mut learner = Fixture::new(TWO, Recovered { configuration: others(3), ..Recovered::learner() });
    learner.hear(ONE, 5, teach(3, 3, 1));
    for decree in 1..=3 {
        assert_eq!(learner.hear(ONE, 5, prepare(decree, 3, 1)), [append(decree, decree, 3, 0)]);
    }
    learner
}

fn fetch(committed: u64) -> Effect {
    Effect::FetchCheckpoint { from: ONE, ballot: Ballot(3), committed: Decree(committed) }
}

#[test]
fn a_former_member_keeps_only_what_it_knows_to_be_committed() {
    let mut learner = Fixture::new(TWO, recovered(2, 3, 5, &[(4, 2), (5, 2), (6, 2), (7, 2)]));
    learner.assigned(others(4));
    let effects = learner.hear(ONE, 5, teach(4, 9, 9));
    assert_eq!(effects, [truncate(1, 6, 4, 5), now_is(Role::Learner, 4, false)]);
    assert_eq!(learner.logged(1), [store_as(others(4), LEARNING)], "no claim to completeness, durably");
    assert_eq!(learner.stored_as(4, LEARNING), [send(ONE, 5, established(4, 6, 5))]);
    assert_eq!(learner.replica.describe().state, LEARNING);
    assert_eq!(learner.hear(ONE, 5, prepare(6, 4, 9)), [append(2, 6, 4, 5)]);
    assert_eq!(learner.logged(2), [send(ONE, 5, acknowledge(6, 4))]);
    assert_eq!(learner.applied(5), [apply(&[(6, 4)])]);
}

#[test]
fn an_empty_copy_is_taught_from_the_beginning() {
    let mut learner = taught();
    assert_eq!(learner.hear(ONE, 5, prepare(1, 3, 9)), [append(1, 1, 3, 0)]);
    assert_eq!(learner.hear(ONE, 5, prepare(2, 3, 9)), [append(2, 2, 3, 0)]);
    assert_eq!(learner.logged(2), [send(ONE, 5, acknowledge(2, 3)), apply(&[(1, 3), (2, 3)])]);
    assert_eq!(learner.admit_read(), Err(Status::NotPrimary));
}

#[test]
fn a_reconnect_under_the_same_ballot_keeps_what_was_taught() {
    let mut learner = taught_before_commit();
    learner.logged(2);
    assert_eq!(learner.replica.committed(), Decree(1));
    learner.closed(ONE, 5);
    let answer = learner.hear(ONE, 6, teach(3, 3, 1));
    assert_eq!(answer, [send(ONE, 6, established(3, 4, 1)), send(ONE, 6, acknowledge(2, 3))], "3 is under way");
    assert_eq!(learner.logged(3), [send(ONE, 6, acknowledge(3, 3))]);
}

#[test]
fn the_next_ballot_drops_what_is_not_known_to_be_committed() {
    let mut learner = taught_before_commit();
    learner.logged(3);
    assert_eq!(learner.hear(ONE, 5, teach(4, 9, 2)), [truncate(4, 2, 4, 1), now_is(Role::Learner, 4, false)]);
    assert_eq!(learner.logged(4), [store_as(others(4), LEARNING)]);
    assert_eq!(learner.stored_as(4, LEARNING), [send(ONE, 5, established(4, 2, 1))]);
}

#[test]
fn a_learner_grants_beacons_and_claims_nothing() {
    let mut learner = taught();
    assert!(learner.hears_beacon(ONE, 3, 9), "its lease counts once its addition is proposed");
    assert_eq!(learner.tick_after(GRACE * 10), []);
    learner.closed(ONE, 5);
    assert!(!learner.hears_beacon(ONE, 3, 9));
    assert_eq!(learner.tick_after(GRACE * 10), []);
    assert_eq!(learner.replica.role(), Role::Learner);
}

#[test]
fn a_checkpoint_is_fetched_once() {
    let mut learner = taught();
    assert_eq!(learner.hear(ONE, 5, take_checkpoint(9, 3)), [fetch(9)]);
    assert_eq!(learner.replica.describe().phase, Phase::Fetching);
    assert_eq!(learner.hear(ONE, 5, take_checkpoint(9, 3)), [], "already under way");
    learner.closed(ONE, 5);
    learner.hear(ONE, 6, teach(3, 9, 9));
    assert_eq!(learner.hear(ONE, 6, take_checkpoint(12, 3)), [fetch(12)], "the primary decides again");
}

#[test]
fn a_checkpoint_that_cannot_be_had_is_tried_again_after_a_pause() {
    let mut learner = taught();
    learner.hear(ONE, 5, take_checkpoint(9, 3));
    assert_eq!(learner.on(Event::CheckpointFailed), []);
    assert_eq!(learner.hear(ONE, 5, take_checkpoint(9, 3)), [], "not at once");
    let ticks = (1..100).find(|_| learner.tick_after(100) == [close(ONE, 5)]);
    assert_eq!(ticks, Some(10));
    assert_eq!(learner.on(Event::CheckpointFailed), [], "of a fetch given up");
    learner.hear(ONE, 6, teach(3, 9, 9));
    assert_eq!(learner.hear(ONE, 6, take_checkpoint(9, 3)), [fetch(9)]);
}

#[test]
fn a_replica_made_from_a_checkpoint_is_taught_what_follows() {
    let from_checkpoint = learning(Recovered { configuration: others(3), ..recovered(3, 9, 9, &[]) });
    let mut learner = Fixture::new(TWO, from_checkpoint);
    let answer = learner.hear(ONE, 7, teach(3, 4, 12));
    assert_eq!(answer[0], send(ONE, 7, established(3, 10, 9)), "the primary's ballot began at 4");
    assert_eq!(learner.hear(ONE, 7, prepare(10, 3, 12)), [append(1, 10, 3, 9)]);
}

#[test]
fn only_a_learner_takes_a_checkpoint() {
    let mut secondary = Fixture::following();
    assert_eq!(secondary.hear(ONE, 5, take_checkpoint(0, 3)), []);
    let mut learner = taught();
    assert_eq!(learner.hear(ONE, 5, take_checkpoint(9, 2)), [], "another ballot");
    assert_eq!(learner.hear(THREE, 6, take_checkpoint(9, 3)), [], "another node");
    assert_eq!(learner.replica.describe().phase, Phase::Following);
}

#[test]
fn a_learner_becomes_a_member_when_it_is_established_as_one() {
    let mut learner = taught();
    for decree in 1..=9 {
        learner.hear(ONE, 5, prepare(decree, 3, 9));
    }
    learner.logged(9);
    let member = configuration(4);
    assert_eq!(learner.assigned(member.clone()), [now_is(Role::Secondary, 4, false)]);
    assert_eq!(learner.replica.describe().state, LEARNING, "its primary has not said that it has everything");
    assert_eq!(learner.tick_after(GRACE * 10), []);
    assert_eq!(learner.hear(ONE, 5, establish(4, 9, 9)), [store(member)]);
    assert_eq!(learner.stored(4), [send(ONE, 5, established(4, 10, 9))]);
    assert_eq!(learner.tick_after(GRACE), [close(ONE, 5), proposing(led_by(5, TWO, &[THREE]))], "a full member");
}

#[test]
fn a_learner_that_lacks_something_does_not_become_a_member() {
    let mut learner = taught();
    learner.hear(ONE, 5, prepare(1, 3, 9));
    learner.logged(1);
    assert_eq!(refused(&learner.hear(ONE, 5, establish(4, 9, 9))), (Status::Gap, 2));
    assert_eq!(learner.replica.describe().state, LEARNING);
}

#[test]
fn a_gap_in_the_log_of_a_learner_is_no_damage() {
    let copy = learning(recovered(3, 2, 9, &[(3, 3), (5, 3), (6, 3)]));
    let mut learner = Fixture::new(TWO, copy);
    let answer = learner.hear(ONE, 5, teach(4, 9, 9));
    assert_eq!(answer[0], store_as(others(4), LEARNING));
    assert_eq!((learner.replica.last(), learner.replica.committed()), (Decree(3), Decree(3)));
    assert_eq!(learner.stored_as(4, LEARNING), [send(ONE, 5, established(4, 4, 3))]);
}

#[test]
fn an_uncertain_member_says_so_and_then_learns() {
    let copy = Recovered { state: ReplicaState::Uncertain, ..recovered(2, 0, 1, &[(1, 2), (2, 2)]) };
    let mut member = Fixture::new(TWO, copy);
    let effects = member.hear(ONE, 5, establish(3, 2, 1));
    let answer = Established { ballot: Ballot(3), next_decree: Decree(2), committed: Decree(1), uncertain: true };
    let told = send(ONE, 5, pegasus_replication::PeerMessage::Established(answer));
    let role = now_is(Role::Secondary, 3, false);
    assert_eq!(effects, [told, apply(&[(1, 2)]), role], "nothing is stored: ballot 2 is its last good one");
    assert!(!member.hears_beacon(ONE, 3, 1), "it promises nothing");
    assert_eq!(refused(&member.hear(ONE, 5, prepare(2, 3, 1))).0, Status::InvalidArgument, "and takes nothing");
    member.closed(ONE, 5);
    let effects = member.hear(ONE, 6, teach(4, 2, 1));
    assert_eq!(effects, [truncate(1, 2, 4, 1), now_is(Role::Learner, 4, false)]);
    member.logged(1);
    assert_eq!(member.stored_as(4, LEARNING), [send(ONE, 6, established(4, 2, 1))], "certain of what it says");
}

#[test]
fn who_led_may_have_to_learn() {
    let mut primary = Fixture::serving(Default::default());
    primary.write_through(1);
    primary.propose(2, 5, "b");
    let teach = establish_of(led_by(6, TWO, &[THREE]), ONE, 2, 1);
    let effects = primary.hear(TWO, 30, teach);
    let expected = [
        reply(2, Err(Status::OutcomeUnknown)),
        close(TWO, 12),
        close(THREE, 13),
        truncate(3, 2, 6, 1),
        now_is(Role::Learner, 6, false),
    ];
    assert_eq!(effects, expected);
}

#[test]
fn a_learner_that_knows_more_than_its_primary_stops() {
    let mut learner = Fixture::new(TWO, learning(recovered(3, 5, 5, &[])));
    let effects = learner.hear(ONE, 5, teach(4, 4, 4));
    assert_eq!(refused(&effects).0, Status::Damaged, "so that its copy is set aside, and made anew");
    assert_eq!(learner.replica.role(), Role::Error);
}
