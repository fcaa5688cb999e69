//! A primary that gives its role away: on request, or because its storage failed.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use pegasus_replication::{Effect, Event, ReplicaLimits, Role};
use pegasus_wire::{Configuration, Status};

/// What node 1 asks for when it hands over.
fn handed_over() -> Configuration {
    led_by(4, TWO, &[THREE, ONE])
}

#[test]
fn a_hand_over_drains_then_asks_then_follows() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 5, "a");
    assert_eq!(primary.on(Event::HandOver), []);
    assert_eq!((primary.admit(), primary.admit_read()), (Err(Status::NotServing), Ok(())));
    assert_eq!(primary.propose(2, 5, "b"), [reply(2, Err(Status::NotServing))], "nothing new");
    primary.logged(1);
    primary.hear(TWO, 12, acknowledge(1, 3));
    primary.hear(THREE, 13, acknowledge(1, 3));
    let drained = primary.applied(1);
    assert_eq!(drained, [reply(1, Ok(1)), proposing(handed_over()), now_is(Role::Primary, 3, false)]);
    assert_eq!(primary.admit_read(), Err(Status::NotServing), "the other one may serve already");
    let decided = primary.decided(handed_over());
    assert_eq!(decided, [close(TWO, 12), close(THREE, 13), now_is(Role::Secondary, 4, false)]);
    let next = led_by(5, TWO, &[THREE, ONE]);
    let established_there = primary.hear(TWO, 30, establish_of(next.clone(), ONE, 1, 1));
    assert_eq!(established_there, [store(next), now_is(Role::Secondary, 5, false)]);
}

#[test]
fn the_one_that_gets_the_role_takes_a_ballot_and_serves_when_all_follow() {
    let mut secondary = Fixture::following();
    let next = led_by(5, TWO, &[THREE, ONE]);
    let effects = secondary.assigned(handed_over());
    assert_eq!(effects, [close(ONE, 5), proposing(next.clone()), now_is(Role::Primary, 4, false)]);
    secondary.decided(next.clone());
    assert_eq!(secondary.stored(5), [open(THREE), open(ONE)]);
    secondary.opened(ONE, 8);
    secondary.opened(THREE, 9);
    secondary.hear(THREE, 9, established(5, 1, 0));
    assert_eq!(secondary.admit_read(), Err(Status::NotServing));
    assert_eq!(secondary.hear(ONE, 8, established(5, 1, 0)), [now_is(Role::Primary, 5, true)]);
}

#[test]
fn until_the_outcome_is_known_nothing_is_served() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    assert_eq!(primary.on(Event::HandOver), [proposing(handed_over()), now_is(Role::Primary, 3, false)]);
    primary.on(Event::ProposalFailed);
    primary.granted_by(&[TWO, THREE]);
    assert_eq!(primary.admit_read(), Err(Status::NotServing));
    assert_eq!(primary.tick_after(100), [proposing(handed_over())], "unchanged");
    primary.decided(configuration(3));
    assert_eq!(primary.admit_read(), Err(Status::NotServing), "it may still be on its way");
    assert_eq!(primary.tick_after(100), []);
    assert_eq!(primary.tick_after(100), [proposing(handed_over())]);
}

#[test]
fn the_one_it_is_handed_to_is_there() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.closed(TWO, 12);
    let handed = primary.on(Event::HandOver);
    assert_eq!(handed[0], proposing(led_by(4, THREE, &[TWO, ONE])), "node 2 has no stream");
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.wait(1900);
    primary.granted_by(&[THREE]);
    primary.wait(100);
    assert_eq!(primary.on(Event::HandOver)[0], proposing(led_by(4, THREE, &[TWO, ONE])), "node 2 has no lease");
}

#[test]
fn a_primary_that_nobody_can_follow_goes_on() {
    let alone = |ballot| led_by(ballot, ONE, &[]);
    let limits = ReplicaLimits { min_members: 1, ..ReplicaLimits::default() };
    let mut primary = Fixture::with_limits(ONE, pegasus_replication::Recovered::empty(alone(1)), limits);
    // Who is alone cannot know who served a moment ago.
    primary.wait(3000);
    primary.assigned(alone(1));
    primary.decided(alone(2));
    primary.stored(2);
    assert_eq!(primary.on(Event::HandOver), []);
    assert_eq!(primary.admit(), Ok(()));
}

#[test]
fn a_hand_over_that_takes_too_long_is_given_up() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 5, "a");
    primary.on(Event::HandOver);
    primary.wait(1500);
    primary.granted_by(&[TWO, THREE]);
    primary.on(Event::Tick);
    assert_eq!(primary.admit(), Err(Status::NotServing), "its window does not drain");
    primary.tick_after(PREPARE_TIMEOUT - 1500);
    assert_eq!(primary.admit(), Ok(()));
}

#[test]
fn a_hand_over_outlasts_a_removal() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 10, "m1");
    primary.logged(1);
    primary.hear(THREE, 13, acknowledge(1, 3));
    primary.on(Event::HandOver);
    primary.hear(TWO, 12, refuse(Status::ShuttingDown, 3, 0));
    let without_two = led_by(4, ONE, &[THREE]);
    assert!(primary.on(Event::Tick).contains(&proposing(without_two.clone())));
    primary.decided(without_two);
    primary.stored(4);
    primary.logged(2);
    primary.hear(THREE, 13, established(4, 1, 0));
    primary.hear(THREE, 13, acknowledge(1, 4));
    let drained = primary.applied(1);
    assert_eq!(drained, [reply(1, Ok(1)), proposing(led_by(5, THREE, &[ONE]))]);
}

#[test]
fn a_primary_whose_storage_failed_asks_another_to_lead() {
    for status in [Status::StorageFailed, Status::Damaged] {
        let mut primary = Fixture::serving(ReplicaLimits::default());
        primary.propose(1, 5, "a");
        let effects = primary.on(Event::Failed { status, reason: "sync failed".to_owned() });
        let expected = [
            proposing(handed_over()),
            reply(1, Err(Status::OutcomeUnknown)),
            close(TWO, 12),
            close(THREE, 13),
            Effect::Faulted { status, reason: "sync failed".to_owned() },
            now_is(Role::Error, 3, false),
        ];
        assert_eq!(effects, expected);
        assert_eq!(primary.decided(handed_over()), [], "it does nothing any more");
        let hello = establish_of(led_by(5, TWO, &[THREE, ONE]), ONE, 1, 0);
        assert_eq!(refused(&primary.hear(TWO, 30, hello)).0, status, "which tells the new primary to remove it");
        assert_eq!(primary.admit_read(), Err(status));
    }
}

#[test]
fn who_abdicates_stays_a_member_until_the_new_primary_has_heard_its_refusal() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.hear(THREE, 13, refuse(Status::Damaged, 3, 0));
    primary.on(Event::Tick);
    primary.decided(led_by(4, ONE, &[TWO]));
    primary.stored(4);
    primary.hear(TWO, 12, established(4, 1, 0));
    let effects = primary.on(Event::Failed { status: Status::StorageFailed, reason: String::new() });
    assert_eq!(effects[0], proposing(led_by(5, TWO, &[ONE])), "node 2 may be gone as well");
}

#[test]
fn who_only_stops_hands_nothing_over_by_itself() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    let effects = primary.on(Event::Shutdown);
    assert_eq!(effects, [close(TWO, 12), close(THREE, 13), now_is(Role::Inactive, 3, false)]);
}

#[test]
fn a_secondary_that_stops_says_so() {
    let cases = [
        (Event::Shutdown, Status::ShuttingDown),
        (Event::Failed { status: Status::StorageFailed, reason: "no".to_owned() }, Status::StorageFailed),
        (Event::Failed { status: Status::Damaged, reason: "no".to_owned() }, Status::Damaged),
    ];
    for (event, status) in cases {
        let mut secondary = Fixture::following();
        secondary.hear(ONE, 5, prepare(1, 3, 0));
        let effects = secondary.on(event);
        assert_eq!(refused(&effects).0, status);
        assert_eq!(effects[1], close(ONE, 5), "after it was said");
        assert_eq!(secondary.logged(1), [], "nothing is acknowledged any more");
    }
    let mut unheard = Fixture::new(TWO, recovered(3, 0, 0, &[]));
    unheard.assigned(configuration(3));
    assert_eq!(unheard.on(Event::Shutdown), [now_is(Role::Inactive, 3, false)], "there is nobody to tell");
}
