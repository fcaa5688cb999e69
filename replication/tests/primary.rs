//! The primary, event by event: the exact list of effects.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use pegasus_replication::{Effect, Event, PeerMessage, ReplicaLimits, Role, Session};
use pegasus_wire::messages::peer::Prepare;
use pegasus_wire::{Ballot, Configuration, Decree, Mutation, MutationKind, Status, limits};

fn small() -> ReplicaLimits {
    ReplicaLimits { window_mutations_max: 2, window_bytes_max: 8, flight_bytes_max: 4 }
}

fn proposal(ballot: u64) -> Effect {
    Effect::ProposeConfiguration { expected_ballot: Ballot(ballot - 1), configuration: configuration(ballot) }
}

fn role(role: Role, ballot: u64, serving: bool) -> Effect {
    Effect::RoleChanged { role, ballot: Ballot(ballot), serving }
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

fn prepare_of(of: &Mutation, committed: u64) -> PeerMessage {
    PeerMessage::Prepare {
        prepare: Prepare {
            ballot: of.ballot,
            decree: of.decree,
            committed: Decree(committed),
            timestamp_micros: of.timestamp_micros,
            mutation_kind: of.kind as u8,
        },
        payload: of.payload.clone(),
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
    assert_eq!(primary.on(Event::Applied { through: Decree(1) }), [reply(1, Ok(1))]);
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
    assert_eq!(primary.replica.admit(), Ok(()));
    primary.propose(2, 1, "b");
    assert_eq!(primary.replica.admit(), Err(Status::Busy));
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
fn a_member_away_stops_new_writes_and_is_sent_what_it_lacks() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 5, "a");
    primary.propose(2, 5, "b");
    primary.hear(TWO, 12, acknowledge(1, 3));
    let closed = primary.on(Event::StreamClosed { peer: TWO, session: Session(12) });
    assert_eq!(closed, [Effect::OpenStream { peer: TWO }]);
    assert_eq!(primary.propose(3, 5, "c"), [reply(3, Err(Status::NotEnoughMembers))]);
    assert_eq!(primary.replica.admit_read(), Ok(()));
    primary.on(Event::StreamOpened { peer: TWO, session: Session(14) });
    assert_eq!(primary.hear(TWO, 12, acknowledge(2, 3)), [], "a superseded stream");
    let resent = primary.hear(TWO, 14, established(3, 2, 0));
    assert_eq!(resent, [send(TWO, 14, prepare_of(&stamped(2, 6, "b"), 0))]);
    assert_eq!(primary.replica.describe().counters.superseded_messages, 1);
    assert_eq!(primary.replica.admit(), Ok(()));
}

#[test]
fn a_member_that_cannot_be_reached_is_tried_again_ever_more_slowly() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.on(Event::StreamClosed { peer: TWO, session: Session(12) });
    let mut pauses = Vec::new();
    for _ in 0..6 {
        primary.on(Event::StreamFailed { peer: TWO });
        let ticks = (1..100).find(|_| primary.on(Event::Tick) == [Effect::OpenStream { peer: TWO }]);
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
    assert_eq!(lost, [Effect::CloseStream { peer: TWO, session: Session(12) }], "it lost what it acknowledged");
    let members = primary.replica.describe().members;
    assert_eq!(members[0].refusal.as_ref().unwrap().0, Status::Gap);
}

#[test]
fn an_acknowledgement_of_what_was_not_sent_ends_the_stream() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 5, "a");
    let answer = primary.hear(TWO, 12, acknowledge(2, 3));
    assert_eq!(answer, [Effect::CloseStream { peer: TWO, session: Session(12) }]);
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
    let started = primary.on(Event::Assigned(configuration(2)));
    assert_eq!(started, [proposal(3), apply(&[(2, 2)]), role(Role::Primary, 2, false)]);
    let store = Effect::StoreDescriptor { configuration: configuration(3) };
    let decided = primary.on(Event::ProposalDecided { configuration: configuration(3) });
    assert_eq!(decided, [store, role(Role::Primary, 3, false)]);
    let open = |peer| Effect::OpenStream { peer };
    let stored = primary.on(Event::DescriptorStored { ballot: Ballot(3) });
    assert_eq!(stored, [append(1, 3, 3, 2), append(2, 4, 3, 2), open(TWO), open(THREE)]);
    let opened = primary.on(Event::StreamOpened { peer: TWO, session: Session(7) });
    assert_eq!(opened, [send(TWO, 7, establish(3, 4, 2))]);
    primary.on(Event::StreamOpened { peer: THREE, session: Session(8) });
    let prepares = [send(TWO, 7, prepare(3, 3, 2)), send(TWO, 7, prepare(4, 3, 2))];
    assert_eq!(primary.hear(TWO, 7, established(3, 3, 2)), prepares);
    assert_eq!(primary.hear(THREE, 8, established(3, 5, 4)), [], "it had committed all of it");
    primary.logged(2);
    assert_eq!(primary.hear(TWO, 7, acknowledge(4, 3)), [], "decree 2 is still being applied");
    assert_eq!(primary.propose(1, 5, "early"), [reply(1, Err(Status::NotServing))]);
    assert_eq!(primary.on(Event::Applied { through: Decree(2) }), [apply(&[(3, 3), (4, 3)])]);
    assert_eq!(primary.on(Event::Applied { through: Decree(4) }), [role(Role::Primary, 3, true)]);
    assert_eq!(primary.replica.admit(), Ok(()));
}

#[test]
fn an_unanswered_proposal_is_made_again_unchanged() {
    let mut primary = Fixture::new(ONE, recovered(2, 0, 0, &[]));
    primary.on(Event::Assigned(configuration(2)));
    assert_eq!(primary.on(Event::Tick), [], "an answer may still come");
    assert_eq!(primary.on(Event::ProposalFailed), []);
    assert_eq!(primary.on(Event::Tick), [proposal(3)]);
    let heard = primary.on(Event::Assigned(configuration(3)));
    assert!(heard.contains(&Effect::StoreDescriptor { configuration: configuration(3) }), "the watch tells as well");
    assert_eq!(primary.on(Event::ProposalDecided { configuration: configuration(3) }), [], "said twice");
}

#[test]
fn a_conflict_makes_the_primary_what_the_answer_says() {
    let other = Configuration { ballot: Ballot(5), primary: Some(TWO), secondaries: vec![ONE, THREE] };
    let mut primary = Fixture::new(ONE, recovered(2, 0, 0, &[]));
    primary.on(Event::Assigned(configuration(2)));
    let decided = primary.on(Event::ProposalDecided { configuration: other });
    assert_eq!(decided, [role(Role::Secondary, 5, false)]);

    let mut primary = Fixture::new(ONE, recovered(2, 0, 0, &[]));
    primary.on(Event::Assigned(configuration(2)));
    let decided = primary.on(Event::ProposalDecided { configuration: configuration(7) });
    assert_eq!(decided, [proposal(8), role(Role::Primary, 7, false)], "still primary, under a ballot it must renew");
}

#[test]
fn whoever_waits_is_answered_as_unknown_when_the_role_is_lost() {
    let other = Configuration { ballot: Ballot(9), primary: Some(TWO), secondaries: vec![ONE, THREE] };
    let unknown = [
        reply(1, Err(Status::OutcomeUnknown)),
        reply(2, Err(Status::OutcomeUnknown)),
        Effect::CloseStream { peer: TWO, session: Session(12) },
        Effect::CloseStream { peer: THREE, session: Session(13) },
    ];
    for event in [Event::Assigned(other), Event::Shutdown] {
        let mut primary = Fixture::serving(ReplicaLimits::default());
        primary.propose(1, 5, "a");
        primary.propose(2, 5, "b");
        let effects = primary.on(event);
        assert_eq!(effects[..4], unknown);
        assert!(primary.replica.admit().is_err());
    }
}

#[test]
fn a_higher_ballot_at_a_member_stops_service_until_the_meta_service_has_spoken() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 5, "a");
    let effects = primary.hear(TWO, 12, refuse(Status::StaleBallot, 4, 0));
    let expected = [reply(1, Err(Status::OutcomeUnknown)), proposal(4), role(Role::Primary, 3, false)];
    assert_eq!(effects, expected);
    assert_eq!(primary.replica.admit_read(), Err(Status::NotServing));
    assert_eq!(primary.hear(THREE, 13, refuse(Status::StaleBallot, 4, 0)), [], "asked already");
}

#[test]
fn a_new_partition_waits_for_every_copy_before_its_first_ballot() {
    let mut primary = Fixture::new(ONE, recovered(1, 0, 0, &[]));
    let open = |peer| Effect::OpenStream { peer };
    let assigned = primary.on(Event::Assigned(configuration(1)));
    assert_eq!(assigned, [open(TWO), open(THREE), role(Role::Primary, 1, false)]);
    primary.on(Event::StreamOpened { peer: TWO, session: Session(1) });
    let opened = primary.on(Event::StreamOpened { peer: THREE, session: Session(2) });
    assert_eq!(opened, [send(THREE, 2, establish(1, 0, 0))]);
    assert_eq!(primary.hear(TWO, 1, established(1, 1, 0)), []);
    assert_eq!(primary.replica.admit(), Err(Status::NotServing));
    assert_eq!(primary.hear(THREE, 2, established(1, 1, 0)), [proposal(2)]);
}

#[test]
fn a_single_member_serves_alone() {
    let alone = |ballot| Configuration { ballot: Ballot(ballot), primary: Some(ONE), secondaries: Vec::new() };
    let mut primary = Fixture::new(ONE, pegasus_replication::Recovered::empty(alone(1)));
    primary.on(Event::Assigned(alone(1)));
    primary.on(Event::ProposalDecided { configuration: alone(2) });
    primary.on(Event::DescriptorStored { ballot: Ballot(2) });
    primary.propose(1, 5, "a");
    primary.logged(1);
    assert_eq!(primary.on(Event::Applied { through: Decree(1) }), [reply(1, Ok(1))]);
}
