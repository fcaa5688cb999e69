//! The primary, event by event: the exact list of effects.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use pegasus_replication::{Effect, Event, ReplicaLimits, RequestToken, Role};
use pegasus_wire::{Ballot, Decree, Mutation, MutationKind, Status, limits};

fn small() -> ReplicaLimits {
    ReplicaLimits { window_mutations_max: 2, window_bytes_max: 8, flight_bytes_max: 4, ..ReplicaLimits::default() }
}

/// A mutation as a serving primary stamps it.
fn stamped(decree: u64, timestamp_micros: u64, payload: &'static str) -> Mutation {
    Mutation {
        ballot: Ballot(3),
        decree: Decree(decree),
        timestamp_micros,
        kind: MutationKind::Write,
        payload: payload.into(),
    }
}

#[test]
fn a_write_is_logged_prepared_committed_applied_and_only_then_answered() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    let first = stamped(1, 500, "a");
    let prepared = primary.propose(1, 500, "a");
    let prepares = [send(TWO, 12, prepare_of(&first, 0)), send(THREE, 13, prepare_of(&first, 0))];
    assert_eq!(prepared, [append_of(1, first.clone(), 0), prepares[0].clone(), prepares[1].clone()]);
    assert_eq!(primary.hear(TWO, 12, acknowledge(1, 3)), []);
    assert_eq!(primary.hear(THREE, 13, acknowledge(1, 3)), [], "not in the primary's own log yet");
    assert_eq!(primary.logged(1), [Effect::Apply { mutations: vec![first] }]);
    assert_eq!(primary.applied(1), [reply(1, Ok(1))]);
}

#[test]
fn one_member_that_lags_holds_the_commit_point_back() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 500, "a");
    primary.propose(2, 500, "b");
    assert_eq!(primary.logged(2), []);
    assert_eq!(primary.hear(TWO, 12, acknowledge(2, 3)), []);
    assert_eq!(primary.replica.committed(), Decree(0));
    primary.hear(THREE, 13, acknowledge(1, 3));
    assert_eq!(primary.replica.committed(), Decree(1));
}

#[test]
fn stamps_rise_whatever_the_clock_does() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    for (request, clock, stamp) in [(1, 500, 500), (2, 500, 501), (3, 100, 502), (4, 900, 900)] {
        let effects = primary.propose(request, clock, "a");
        let Effect::Append { record, .. } = &effects[0] else { panic!("{effects:?}") };
        assert_eq!(record.timestamp_micros, stamp);
    }
    let mut restarted = Fixture::new(ONE, recovered(2, 0, 0, &[(1, 2), (2, 2)]));
    restarted.on(Event::Tick);
    assert_eq!(restarted.replica.timestamp_micros(), 20, "the last stamp is recovered from the log");
}

#[test]
fn a_full_window_answers_busy() {
    let mut primary = Fixture::serving(small());
    assert_eq!(primary.propose(1, 1, "123456789").len(), 3, "one write is always taken");
    assert_eq!(primary.propose(2, 1, "a"), [reply(2, Err(Status::Busy))], "over the bytes");

    let mut primary = Fixture::serving(small());
    primary.propose(1, 1, "a");
    assert_eq!(primary.admit(), Ok(()));
    primary.propose(2, 1, "b");
    assert_eq!(primary.admit(), Err(Status::Busy));
    assert_eq!(primary.propose(3, 1, "c"), [reply(3, Err(Status::Busy))], "over the count");

    let large = "x".repeat(limits::WRITE_BYTES_MAX + 1);
    let mut primary = Fixture::serving(ReplicaLimits::default());
    assert_eq!(primary.propose(4, 1, &large), [reply(4, Err(Status::TooLarge))]);
}

#[test]
fn bytes_in_flight_to_a_member_are_bounded() {
    let mut primary = Fixture::serving(small());
    let (first, second) = (stamped(1, 5, "123"), stamped(2, 6, "456"));
    primary.propose(1, 5, "123");
    assert_eq!(primary.propose(2, 5, "456"), [append_of(2, second.clone(), 0)], "held back");
    assert_eq!(primary.hear(TWO, 12, acknowledge(1, 3)), [send(TWO, 12, prepare_of(&second, 0))]);
    assert_eq!(first.decree, Decree(1));
}

#[test]
fn a_member_away_is_reached_again_and_sent_what_it_lacks() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 5, "a");
    primary.propose(2, 5, "b");
    primary.hear(TWO, 12, acknowledge(1, 3));
    assert_eq!(primary.closed(TWO, 12), [open(TWO)]);
    assert_eq!((primary.admit(), primary.admit_read()), (Ok(()), Ok(())), "its lease still runs");
    primary.opened(TWO, 14);
    assert_eq!(primary.hear(TWO, 12, acknowledge(2, 3)), [], "a superseded stream");
    let resent = primary.hear(TWO, 14, established(3, 2, 0));
    assert_eq!(resent, [send(TWO, 14, prepare_of(&stamped(2, 6, "b"), 0))]);
    assert_eq!(primary.replica.describe().counters.superseded_messages, 1);
}

#[test]
fn a_read_of_what_may_not_be_committed_is_answered_when_it_is() {
    let wait_for = |request, through| Event::Await { request: RequestToken(request), through: Decree(through) };
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.write_through(1);
    primary.propose(2, 5, "b");
    primary.propose(3, 5, "c");
    assert_eq!(primary.on(wait_for(10, 1)), [reply(10, Ok(1))], "applied already");
    assert_eq!(primary.on(wait_for(11, 2)), []);
    assert_eq!(primary.on(wait_for(12, 3)), []);
    assert_eq!(primary.on(wait_for(13, 4)), [reply(13, Err(Status::OutcomeUnknown))], "nobody prepared that");
    primary.logged(3);
    primary.hear(TWO, 12, acknowledge(2, 3));
    primary.hear(THREE, 13, acknowledge(2, 3));
    assert_eq!(primary.applied(2), [reply(2, Ok(2)), reply(11, Ok(2))]);
    let other = led_by(9, TWO, &[ONE, THREE]);
    let effects = primary.assigned(other);
    let unknown = |request| reply(request, Err(Status::OutcomeUnknown));
    assert_eq!(effects[..2], [unknown(3), unknown(12)], "the role is lost");
    assert_eq!(primary.on(wait_for(14, 3)), [unknown(14)], "no primary");
    assert_eq!(primary.on(wait_for(15, 2)), [reply(15, Ok(2))], "it reads what is applied, whoever leads");
}

#[test]
fn what_is_not_applied_can_be_walked() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.write_through(1);
    primary.propose(2, 600, "b");
    primary.propose(3, 500, "c");
    let (second, third) = (stamped(2, 600, "b"), stamped(3, 601, "c"));
    let walk = |primary: &Fixture, from| primary.replica.unapplied(Decree(from)).cloned().collect::<Vec<_>>();
    assert_eq!(walk(&primary, 0), [second.clone(), third.clone()], "what is applied is in the table");
    assert_eq!(walk(&primary, 2), [second.clone(), third.clone()]);
    assert_eq!(walk(&primary, 3), std::slice::from_ref(&third));
    assert_eq!(walk(&primary, 4), []);
    // Committed, and on its way into the table.
    primary.logged(2);
    primary.hear(TWO, 12, acknowledge(2, 3));
    assert_eq!(primary.hear(THREE, 13, acknowledge(2, 3)), [Effect::Apply { mutations: vec![second.clone()] }]);
    assert_eq!(walk(&primary, 1), [second, third.clone()]);
    primary.applied(2);
    assert_eq!(walk(&primary, 1), [third]);
    // Another primary drops what it never had.
    primary.assigned(led_by(4, TWO, &[ONE, THREE]));
    let establish = establish_of(led_by(4, TWO, &[ONE, THREE]), ONE, 2, 2);
    primary.hear(TWO, 20, establish);
    assert_eq!(walk(&primary, 1), []);
}

#[test]
fn a_member_that_cannot_be_reached_is_tried_again_ever_more_slowly() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.closed(TWO, 12);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        primary.on(Event::StreamFailed { peer: TWO });
        let ticks = (1..100).find(|_| primary.on(Event::Tick) == [open(TWO)]);
        pauses.push(ticks.unwrap());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 8, 8]);
}

#[test]
fn a_gap_sends_the_primary_back_within_what_is_not_acknowledged() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 5, "a");
    primary.propose(2, 5, "b");
    primary.hear(TWO, 12, acknowledge(1, 3));
    let again = primary.hear(TWO, 12, refuse(Status::Gap, 3, 2));
    assert_eq!(again, [send(TWO, 12, prepare_of(&stamped(2, 6, "b"), 0))]);
    let lost = primary.hear(TWO, 12, refuse(Status::Gap, 3, 1));
    assert_eq!(lost, [close(TWO, 12)], "it lost what it acknowledged");
    let members = primary.replica.describe().members;
    assert_eq!(members[0].refusal.as_ref().unwrap().0, Status::Gap);
}

#[test]
fn an_acknowledgement_of_what_was_not_sent_ends_the_stream() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 5, "a");
    let answer = primary.hear(TWO, 12, acknowledge(2, 3));
    assert_eq!(answer, [close(TWO, 12)]);
    assert_eq!(primary.hear(THREE, 13, acknowledge(1, 2)), [], "of a ballot left behind");
    assert_eq!(primary.replica.describe().members[1].acknowledged, Decree(0));
}

#[test]
fn an_idle_member_is_told_the_commit_point_once() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 5, "a");
    primary.logged(1);
    primary.hear(TWO, 12, acknowledge(1, 3));
    primary.hear(THREE, 13, acknowledge(1, 3));
    let told = primary.on(Event::Tick);
    assert_eq!(told, [send(TWO, 12, commit_point(1, 3)), send(THREE, 13, commit_point(1, 3))]);
    assert_eq!(primary.on(Event::Tick), []);
}

#[test]
fn a_restarted_primary_takes_a_new_ballot_and_prepares_its_window_again() {
    let mut primary = Fixture::new(ONE, recovered(2, 1, 2, &[(2, 2), (3, 2), (4, 2)]));
    let started = primary.assigned(configuration(2));
    assert_eq!(started, [proposing(configuration(3)), apply(&[(2, 2)]), now_is(Role::Primary, 2, false)]);
    let store = store(configuration(3));
    let decided = primary.decided(configuration(3));
    assert_eq!(decided, [store, now_is(Role::Primary, 3, false)]);
    let stored = primary.stored(3);
    assert_eq!(stored, [append(1, 3, 3, 2), append(2, 4, 3, 2), open(TWO), open(THREE)]);
    let opened = primary.opened(TWO, 7);
    assert_eq!(opened, [send(TWO, 7, establish(3, 4, 2))]);
    primary.opened(THREE, 8);
    let prepares = [send(TWO, 7, prepare(3, 3, 2)), send(TWO, 7, prepare(4, 3, 2))];
    assert_eq!(primary.hear(TWO, 7, established(3, 3, 2)), prepares);
    assert_eq!(primary.hear(THREE, 8, established(3, 5, 4)), [], "it had committed all of it");
    primary.logged(2);
    assert_eq!(primary.hear(TWO, 7, acknowledge(4, 3)), [], "decree 2 is still being applied");
    assert_eq!(primary.propose(1, 5, "early"), [reply(1, Err(Status::NotServing))]);
    assert_eq!(primary.applied(2), [apply(&[(3, 3), (4, 3)])]);
    assert_eq!(primary.applied(4), [now_is(Role::Primary, 3, true)]);
    assert_eq!(primary.admit(), Ok(()));
}

#[test]
fn an_unanswered_proposal_is_made_again_unchanged() {
    let mut primary = Fixture::new(ONE, recovered(2, 0, 0, &[]));
    primary.assigned(configuration(2));
    assert_eq!(primary.on(Event::Tick), [], "an answer may still come");
    assert_eq!(primary.on(Event::ProposalFailed), []);
    assert_eq!(primary.on(Event::Tick), [proposing(configuration(3))]);
    let heard = primary.assigned(configuration(3));
    assert!(heard.contains(&store(configuration(3))), "the watch tells as well");
    assert_eq!(primary.decided(configuration(3)), [], "said twice");
}

#[test]
fn a_conflict_makes_the_primary_what_the_answer_says() {
    let other = led_by(5, TWO, &[ONE, THREE]);
    let mut primary = Fixture::new(ONE, recovered(2, 0, 0, &[]));
    primary.assigned(configuration(2));
    let decided = primary.on(Event::ProposalDecided { configuration: other });
    assert_eq!(decided, [now_is(Role::Secondary, 5, false)]);

    let mut primary = Fixture::new(ONE, recovered(2, 0, 0, &[]));
    primary.assigned(configuration(2));
    let decided = primary.decided(configuration(7));
    assert_eq!(
        decided,
        [proposing(configuration(8)), now_is(Role::Primary, 7, false)],
        "still primary, under a ballot it must renew"
    );
}

#[test]
fn whoever_waits_is_answered_as_unknown_when_the_role_is_lost() {
    let other = led_by(9, TWO, &[ONE, THREE]);
    let unknown = [
        reply(1, Err(Status::OutcomeUnknown)),
        reply(2, Err(Status::OutcomeUnknown)),
        close(TWO, 12),
        close(THREE, 13),
    ];
    for event in [Event::Assigned(other), Event::Shutdown] {
        let mut primary = Fixture::serving(ReplicaLimits::default());
        primary.propose(1, 5, "a");
        primary.propose(2, 5, "b");
        let effects = primary.on(event);
        assert_eq!(effects[..4], unknown);
        assert!(primary.admit().is_err());
    }
}

#[test]
fn a_higher_ballot_at_a_member_stops_service_until_the_meta_service_has_spoken() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 5, "a");
    let effects = primary.hear(TWO, 12, refuse(Status::StaleBallot, 4, 0));
    assert_eq!(effects, [proposing(configuration(4)), now_is(Role::Primary, 3, false)], "the write waits");
    assert_eq!(primary.admit_read(), Err(Status::NotServing));
    assert_eq!(primary.hear(THREE, 13, refuse(Status::StaleBallot, 4, 0)), [], "asked already");
    let superseded = primary.decided(led_by(4, TWO, &[THREE]));
    assert_eq!(superseded[0], reply(1, Err(Status::OutcomeUnknown)));
    assert_eq!(superseded.last(), Some(&now_is(Role::Inactive, 4, false)));
}

#[test]
fn a_write_waits_across_the_primarys_own_ballots() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 10, "m1");
    primary.logged(1);
    primary.hear(TWO, 12, acknowledge(1, 3));
    primary.hear(TWO, 12, refuse(Status::StaleBallot, 4, 0));
    assert_eq!(primary.decided(configuration(4)), [store(configuration(4)), now_is(Role::Primary, 4, false)]);
    assert_eq!(primary.hear(THREE, 13, acknowledge(1, 3)), [], "of the ballot before");
    let stored = primary.stored(4);
    let establishes = [send(TWO, 12, establish(4, 1, 0)), send(THREE, 13, establish(4, 1, 0))];
    assert_eq!(stored, [append(2, 1, 4, 0), establishes[0].clone(), establishes[1].clone()]);
    assert_eq!(primary.hear(TWO, 12, established(4, 1, 0)), [send(TWO, 12, prepare(1, 4, 0))]);
    assert_eq!(primary.hear(THREE, 13, established(4, 1, 0)), [send(THREE, 13, prepare(1, 4, 0))]);
    primary.hear(TWO, 12, acknowledge(1, 4));
    primary.hear(THREE, 13, acknowledge(1, 4));
    assert_eq!(primary.logged(2), [apply(&[(1, 4)])]);
    assert_eq!(primary.applied(1), [reply(1, Ok(1)), now_is(Role::Primary, 4, true)]);
}

#[test]
fn a_new_partition_waits_for_every_copy_before_its_first_ballot() {
    let mut primary = Fixture::new(ONE, recovered(1, 0, 0, &[]));
    let assigned = primary.assigned(configuration(1));
    assert_eq!(assigned, [open(TWO), open(THREE), now_is(Role::Primary, 1, false)]);
    primary.opened(TWO, 1);
    let opened = primary.opened(THREE, 2);
    assert_eq!(opened, [send(THREE, 2, establish(1, 0, 0))]);
    assert_eq!(primary.hear(TWO, 1, established(1, 1, 0)), []);
    assert_eq!(primary.admit(), Err(Status::NotServing));
    assert_eq!(primary.hear(THREE, 2, established(1, 1, 0)), [proposing(configuration(2))]);
}

#[test]
fn a_single_member_serves_alone() {
    let alone = |ballot| led_by(ballot, ONE, &[]);
    let limits = ReplicaLimits { min_members: 1, ..ReplicaLimits::default() };
    let mut primary = Fixture::with_limits(ONE, pegasus_replication::Recovered::empty(alone(1)), limits);
    // Who is alone cannot know who served a moment ago.
    primary.wait(3000);
    primary.on(Event::Assigned(alone(1)));
    primary.on(Event::ProposalDecided { configuration: alone(2) });
    primary.stored(2);
    primary.propose(1, 5, "a");
    primary.logged(1);
    assert_eq!(primary.applied(1), [reply(1, Ok(1))]);
}
