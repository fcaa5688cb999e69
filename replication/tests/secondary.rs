//! The secondary, event by event: the exact list of effects.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use pegasus_replication::{Effect, Event, PeerMessage, Phase, Recovered, ReplicaLimits, Role};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Ballot, Configuration, Decree, NodeId, Status};

fn role(ballot: u64) -> Effect {
    now_is(Role::Secondary, ballot, false)
}

#[test]
fn a_prepare_is_acknowledged_when_it_is_logged_and_applied_when_it_is_committed() {
    let mut secondary = Fixture::following();
    assert_eq!(secondary.hear(ONE, 5, prepare(1, 3, 0)), [append(1, 1, 3, 0)]);
    assert_eq!(secondary.hear(ONE, 5, prepare(2, 3, 0)), [append(2, 2, 3, 0)]);
    assert_eq!(secondary.logged(2), [send(ONE, 5, acknowledge(2, 3))], "one answer for both");
    assert_eq!(secondary.hear(ONE, 5, prepare(3, 3, 1)), [append(3, 3, 3, 1), apply(&[(1, 3)])]);
    assert_eq!(secondary.hear(ONE, 5, commit_point(2, 3)), [], "one batch at a time");
    assert_eq!(secondary.applied(1), [apply(&[(2, 3)])]);
}

#[test]
fn the_commit_point_never_passes_what_is_logged_here() {
    let mut secondary = Fixture::following();
    secondary.hear(ONE, 5, prepare(1, 3, 0));
    assert_eq!(secondary.hear(ONE, 5, commit_point(9, 3)), []);
    assert_eq!(secondary.replica.committed(), Decree(0));
    assert_eq!(secondary.logged(1), [send(ONE, 5, acknowledge(1, 3)), apply(&[(1, 3)])]);
}

#[test]
fn a_new_ballot_truncates_stores_and_then_answers() {
    let mut secondary = Fixture::new(TWO, recovered(2, 4, 5, &[(5, 2), (6, 2), (7, 2), (8, 2)]));
    assert_eq!(secondary.assigned(configuration(2)), [apply(&[(5, 2)]), role(2)]);
    let effects = secondary.hear(ONE, 5, establish(3, 6, 5));
    assert_eq!(effects, [truncate(1, 7, 3, 5), role(3)]);
    assert_eq!(secondary.replica.describe().phase, Phase::Truncating);
    assert_eq!(secondary.logged(1), [store(configuration(3))]);
    assert_eq!(secondary.replica.describe().phase, Phase::Storing);
    let stored = secondary.stored(3);
    assert_eq!(stored, [send(ONE, 5, established(3, 6, 5))], "6 is kept and has to be prepared again");
    assert_eq!(secondary.hear(ONE, 5, prepare(6, 3, 5)), [append(2, 6, 3, 5)]);
    assert_eq!(secondary.logged(2), [send(ONE, 5, acknowledge(6, 3))]);
}

#[test]
fn what_is_kept_of_a_lower_ballot_is_not_acknowledged() {
    let mut secondary = Fixture::new(TWO, recovered(2, 0, 0, &[(1, 2), (2, 2)]));
    secondary.hear(ONE, 5, establish(3, 2, 0));
    let stored = secondary.stored(3);
    assert_eq!(stored, [send(ONE, 5, established(3, 1, 0))]);
    assert_eq!(secondary.replica.describe().confirmed, Decree(0));
    assert_eq!(secondary.hear(ONE, 5, commit_point(2, 3)), [], "nothing is confirmed, so nothing commits");
}

#[test]
fn a_still_higher_ballot_overtakes_one_that_is_being_taken() {
    let mut secondary = Fixture::new(TWO, recovered(2, 0, 0, &[(1, 2), (2, 2), (3, 2)]));
    assert_eq!(secondary.hear(ONE, 5, establish(3, 2, 0)), [truncate(1, 3, 3, 0), role(3)]);
    let effects = secondary.hear(ONE, 6, establish(4, 1, 0));
    let closed = close(ONE, 5);
    assert_eq!(effects, [closed, truncate(2, 2, 4, 0), role(4)]);
    assert_eq!(secondary.logged(1), [], "the second truncation is not logged");
    assert_eq!(secondary.logged(2), [store(configuration(4))]);
    assert_eq!(secondary.hear(ONE, 6, establish(5, 1, 0)), [store(configuration(5)), role(5)]);
    assert_eq!(secondary.stored(4), [], "overtaken");
    let stored = secondary.stored(5);
    assert_eq!(stored, [send(ONE, 6, established(5, 1, 0))]);
}

#[test]
fn a_reconnect_under_the_same_ballot_goes_on_where_it_was() {
    let mut secondary = Fixture::following();
    secondary.hear(ONE, 5, prepare(1, 3, 0));
    secondary.hear(ONE, 5, prepare(2, 3, 0));
    assert_eq!(secondary.closed(ONE, 5), []);
    assert_eq!(secondary.logged(1), [], "there is nobody to tell");
    let answer = secondary.hear(ONE, 6, establish(3, 0, 0));
    assert_eq!(answer, [send(ONE, 6, established(3, 3, 0)), send(ONE, 6, acknowledge(1, 3))]);
    assert_eq!(secondary.logged(2), [send(ONE, 6, acknowledge(2, 3))], "the tail that was under way");
}

#[test]
fn a_restart_under_the_same_ballot_keeps_what_was_prepared_under_it() {
    let mut secondary = Fixture::new(TWO, recovered(3, 0, 0, &[(1, 3), (2, 3), (3, 2)]));
    let answer = secondary.hear(ONE, 5, establish(3, 3, 0));
    let expected = [send(ONE, 5, established(3, 3, 0)), send(ONE, 5, acknowledge(2, 3)), role(3)];
    assert_eq!(answer, expected, "3 is of ballot 2 and is prepared again");
}

#[test]
fn messages_of_a_superseded_stream_are_dropped() {
    let mut secondary = Fixture::following();
    secondary.hear(ONE, 9, establish(3, 0, 0));
    assert_eq!(secondary.hear(ONE, 5, prepare(1, 3, 0)), []);
    let closed = close(ONE, 5);
    assert_eq!(secondary.hear(ONE, 5, establish(3, 0, 0)), [closed]);
    assert_eq!(secondary.replica.describe().counters.superseded_messages, 2);
    assert_eq!(secondary.hear(ONE, 9, prepare(1, 3, 0)), [append(1, 1, 3, 0)]);
}

#[test]
fn duplicates_are_acknowledged_again_and_gaps_are_refused_once() {
    let mut secondary = Fixture::following();
    secondary.hear(ONE, 5, prepare(1, 3, 0));
    assert_eq!(secondary.hear(ONE, 5, prepare(1, 3, 0)), [], "not logged yet");
    secondary.logged(1);
    assert_eq!(secondary.hear(ONE, 5, prepare(1, 3, 0)), [send(ONE, 5, acknowledge(1, 3))]);
    assert_eq!(refused(&secondary.hear(ONE, 5, prepare(3, 3, 0))), (Status::Gap, 2));
    assert_eq!(secondary.hear(ONE, 5, prepare(4, 3, 0)), []);
    assert_eq!(secondary.hear(ONE, 5, prepare(2, 3, 0)), [append(2, 2, 3, 0)]);
    assert_eq!(refused(&secondary.hear(ONE, 5, prepare(9, 3, 0))), (Status::Gap, 3));
}

#[test]
fn a_duplicate_that_differs_is_refused() {
    let mut secondary = Fixture::following();
    secondary.hear(ONE, 5, prepare(1, 3, 0));
    let PeerMessage::Prepare { prepare, .. } = prepare(1, 3, 0) else { unreachable!() };
    let other = PeerMessage::Prepare { prepare, payload: "other".into() };
    assert_eq!(refused(&secondary.hear(ONE, 5, other)).0, Status::InvalidArgument);
}

#[test]
fn other_ballots_are_refused() {
    let mut secondary = Fixture::following();
    assert_eq!(refused(&secondary.hear(ONE, 5, prepare(1, 2, 0))).0, Status::StaleBallot);
    assert_eq!(refused(&secondary.hear(ONE, 5, prepare(1, 4, 0))).0, Status::InvalidArgument);
    assert_eq!(refused(&secondary.hear(ONE, 6, establish(2, 0, 0))).0, Status::StaleBallot);
    assert_eq!(secondary.hear(ONE, 5, prepare(1, 3, 0)), [append(1, 1, 3, 0)], "the stream that counts goes on");
}

#[test]
fn a_newer_assignment_silences_the_old_primary() {
    let mut secondary = Fixture::following();
    secondary.hear(ONE, 5, prepare(1, 3, 0));
    assert_eq!(secondary.assigned(configuration(4)), [role(4)], "the stream may carry the new ballot");
    assert_eq!(secondary.logged(1), [], "nothing of ballot 3 is acknowledged as of 4");
    assert_eq!(refused(&secondary.hear(ONE, 5, prepare(2, 3, 0))).0, Status::StaleBallot);
    assert_eq!(secondary.assigned(configuration(3)), []);
    assert_eq!(secondary.replica.describe().counters.suspicious_configurations, 1);
    assert_eq!(secondary.assigned(configuration(4)), [], "said twice");
    assert_eq!(secondary.hear(ONE, 5, establish(4, 1, 0)), [store(configuration(4))]);
    let stored = secondary.stored(4);
    assert_eq!(stored, [send(ONE, 5, established(4, 1, 0))]);
}

fn altered(alter: impl Fn(&mut pegasus_wire::messages::peer::Establish)) -> PeerMessage {
    let PeerMessage::Establish(mut establish) = establish(4, 0, 0) else { unreachable!() };
    alter(&mut establish);
    PeerMessage::Establish(establish)
}

#[test]
fn an_establish_that_contradicts_itself_or_us_is_refused() {
    let mut secondary = Fixture::following();
    let cases = [
        (altered(|establish| establish.cluster.0 += 1), Status::WrongCluster),
        (altered(|establish| establish.partition.index += 1), Status::InvalidArgument),
        (altered(|establish| establish.sender = THREE), Status::InvalidArgument),
        (altered(|establish| establish.configuration.primary = Some(THREE)), Status::InvalidArgument),
        (altered(|establish| establish.configuration.ballot = Ballot(u64::MAX)), Status::InvalidArgument),
        (altered(|establish| establish.configuration.ballot = Ballot(2)), Status::StaleBallot),
        (altered(|establish| establish.receiver = THREE), Status::StaleRoute),
        (
            altered(|establish| {
                establish.configuration.ballot = Ballot(3);
                establish.configuration.secondaries = vec![TWO, NodeId(4)];
            }),
            Status::InvalidArgument,
        ),
    ];
    for (message, status) in cases {
        assert_eq!(refused(&secondary.hear(ONE, 6, message)).0, status);
    }
    assert_eq!(secondary.hear(ONE, 5, prepare(1, 3, 0)), [append(1, 1, 3, 0)], "nothing changed");
}

#[test]
fn a_copy_without_what_is_committed_has_to_learn() {
    let mut secondary = Fixture::new(TWO, recovered(2, 0, 0, &[(1, 2)]));
    secondary.assigned(configuration(2));
    assert_eq!(refused(&secondary.hear(ONE, 5, establish(3, 6, 4))), (Status::Gap, 2));
    let description = secondary.replica.describe();
    assert_eq!((description.configuration.ballot, description.last), (Ballot(2), Decree(1)), "nothing changed");
    assert!(description.waits_for.contains("lacks 2"), "{}", description.waits_for);
}

#[test]
fn a_primary_that_lost_what_is_committed_is_not_followed() {
    let mut secondary = Fixture::new(TWO, recovered(2, 4, 5, &[(5, 2), (6, 2)]));
    let effects = secondary.hear(ONE, 5, establish(3, 4, 4));
    assert_eq!(refused(&effects).0, Status::Internal);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Faulted { status: Status::Internal, .. })));
    assert_eq!(secondary.replica.role(), Role::Error);
    assert_eq!(secondary.replica.last(), Decree(6), "what it knows is kept");
}

#[test]
fn damage_is_found_and_refuses_everything() {
    let gap = recovered(2, 1, 1, &[(2, 2), (4, 2)]);
    let short = recovered(2, 1, 3, &[(2, 2)]);
    let ahead = recovered(2, 1, 1, &[(2, 3)]);
    let mut marked = recovered(2, 0, 0, &[]);
    marked.state = ReplicaState::Damaged;
    for copy in [gap, short, ahead, marked] {
        let mut secondary = Fixture::new(TWO, copy);
        let effects = secondary.assigned(configuration(2));
        assert!(matches!(effects[0], Effect::Faulted { status: Status::Damaged, .. }), "{effects:?}");
        assert_eq!(secondary.admit(), Err(Status::Damaged));
        assert_eq!(refused(&secondary.hear(ONE, 5, establish(3, 9, 0))).0, Status::Damaged);
    }
}

#[test]
fn acknowledgements_wait_for_a_table_that_falls_behind() {
    let limits = ReplicaLimits {
        window_mutations_max: 2,
        window_bytes_max: 1000,
        flight_bytes_max: 1000,
        ..ReplicaLimits::default()
    };
    let mut secondary = Fixture::with_limits(TWO, recovered(3, 0, 0, &[]), limits);
    secondary.hear(ONE, 5, establish(3, 0, 0));
    for decree in 1..=3 {
        secondary.hear(ONE, 5, prepare(decree, 3, 0));
    }
    assert_eq!(secondary.logged(3), [send(ONE, 5, acknowledge(2, 3))], "two are not applied");
    assert_eq!(secondary.hear(ONE, 5, commit_point(2, 3)), [apply(&[(1, 3), (2, 3)])]);
    assert_eq!(secondary.applied(2), [send(ONE, 5, acknowledge(3, 3))]);
}

#[test]
fn a_member_never_holds_more_than_its_window() {
    let limits = ReplicaLimits {
        window_mutations_max: 2,
        window_bytes_max: 1000,
        flight_bytes_max: 1000,
        ..ReplicaLimits::default()
    };
    let mut secondary = Fixture::with_limits(TWO, recovered(3, 0, 0, &[]), limits);
    secondary.hear(ONE, 5, establish(3, 0, 0));
    for decree in 1..=6 {
        assert_eq!(secondary.hear(ONE, 5, prepare(decree, 3, 0)).len(), 1);
    }
    assert_eq!(refused(&secondary.hear(ONE, 5, prepare(7, 3, 0))).0, Status::Busy);
}

#[test]
fn late_words_of_the_log_about_dropped_records_mean_nothing() {
    let mut secondary = Fixture::following();
    secondary.hear(ONE, 5, prepare(1, 3, 0));
    secondary.hear(ONE, 5, prepare(2, 3, 0));
    assert_eq!(secondary.hear(ONE, 6, establish(4, 1, 0))[1], truncate(3, 2, 4, 0));
    assert_eq!(secondary.logged(2), [], "the records, not the truncation");
    assert_eq!(secondary.logged(3), [store(configuration(4))]);
    let stored = secondary.stored(4);
    assert_eq!(stored, [send(ONE, 6, established(4, 1, 0))]);
    assert_eq!(secondary.hear(ONE, 6, prepare(1, 4, 0)), [append(4, 1, 4, 0)]);
    assert_eq!(secondary.logged(3), [], "said again");
    assert_eq!(secondary.logged(4), [send(ONE, 6, acknowledge(1, 4))]);
}

#[test]
fn another_primary_supersedes_a_primary() {
    let other = Configuration { ballot: Ballot(8), primary: Some(TWO), secondaries: vec![ONE, THREE] };
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 5, "a");
    let PeerMessage::Establish(mut establish) = establish(8, 0, 0) else { unreachable!() };
    (establish.sender, establish.receiver) = (TWO, ONE);
    establish.configuration = other.clone();
    let effects = primary.hear(TWO, 30, PeerMessage::Establish(establish));
    assert_eq!(effects[0], reply(1, Err(Status::OutcomeUnknown)));
    assert_eq!(effects[3], truncate(2, 1, 8, 0));
    assert_eq!(primary.replica.role(), Role::Secondary);
    assert_eq!(primary.logged(2), [store(other)]);
}

#[test]
fn a_ballot_that_the_log_has_promised_is_kept_without_its_descriptor() {
    // The node died between the truncation of ballot 5 and the descriptor of it.
    let copy = Recovered { promised: Ballot(5), ..recovered(3, 0, 0, &[]) };
    let mut secondary = Fixture::new(TWO, copy);
    secondary.on(Event::Assigned(configuration(3)));
    let effects = secondary.hear(ONE, 5, establish(4, 0, 0));
    assert_eq!(refused(&effects).0, Status::StaleBallot, "what ballot 4 prepares would be void");
    let stored = secondary.hear(ONE, 6, establish(5, 0, 0));
    assert!(stored.iter().any(|effect| matches!(effect, Effect::StoreDescriptor { .. })), "{stored:?}");
}
