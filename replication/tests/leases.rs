//! Leases and beacons: what a primary may do, and what a member grants.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use pegasus_replication::{BeaconTarget, Event, ReplicaLimits, Role};
use pegasus_wire::{Ballot, Decree, NodeId, Status};

const REFUSED: Result<(), Status> = Err(Status::NotServing);

fn beacons(primary: &Fixture) -> Vec<(NodeId, u64, u64)> {
    let targets = primary.replica.beacons(primary.now);
    targets.map(|BeaconTarget { peer, ballot, committed }| (peer, ballot.0, committed.0)).collect()
}

#[test]
fn a_lease_counts_from_the_sending_of_the_beacon() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.wait(1000);
    let sent_at = primary.now;
    primary.wait(900);
    primary.beacon_answered(TWO, sent_at, true);
    primary.beacon_answered(THREE, sent_at, true);
    primary.beacon_answered(THREE, START, true);
    primary.wait(LEASE - 901);
    assert_eq!((primary.admit_read(), primary.admit()), (Ok(()), Ok(())), "2.999 s after the start");
    primary.wait(1);
    assert_eq!((primary.admit_read(), primary.admit()), (REFUSED, REFUSED), "a lease after the beacon was sent");
}

#[test]
fn a_lease_counts_from_the_sending_of_the_establish_not_from_its_answer() {
    let mut primary = Fixture::new(ONE, recovered(2, 0, 0, &[]));
    primary.assigned(configuration(2));
    primary.decided(configuration(3));
    primary.stored(3);
    primary.opened(TWO, 12);
    primary.opened(THREE, 13);
    primary.wait(1999);
    primary.hear(TWO, 12, established(3, 1, 0));
    assert_eq!(primary.hear(THREE, 13, established(3, 1, 0)), [now_is(Role::Primary, 3, true)]);
    assert_eq!(primary.admit_read(), Ok(()));
    primary.wait(1);
    assert_eq!(primary.admit_read(), REFUSED);
}

#[test]
fn without_the_lease_of_every_member_nothing_is_read_or_written() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.wait(1950);
    primary.granted_by(&[TWO]);
    assert_eq!(primary.admit_read(), Ok(()));
    primary.wait(50);
    assert_eq!((primary.admit_read(), primary.admit()), (REFUSED, REFUSED), "node 3 has granted nothing");
    let answer = primary.propose(1, 5, "a");
    assert_eq!(answer, [reply(1, Err(Status::NotServing)), now_is(Role::Primary, 3, false)]);
    assert_eq!(primary.granted_by(&[THREE]), [now_is(Role::Primary, 3, true)], "it was only late");
    assert_eq!((primary.admit_read(), primary.admit()), (Ok(()), Ok(())));
}

#[test]
fn a_request_is_judged_by_the_clock_it_brings() {
    let primary = Fixture::serving(ReplicaLimits::default());
    let frozen_until = START.after(LEASE * 1000);
    assert_eq!(primary.replica.admit_read(frozen_until), REFUSED, "no event told the replica that time passed");
    assert_eq!(primary.replica.admit(frozen_until), REFUSED);
}

#[test]
fn refusals_strangers_and_other_ballots_renew_nothing() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.wait(1500);
    let sent_at = primary.now;
    primary.granted_by(&[TWO]);
    primary.beacon_answered(THREE, sent_at, false);
    primary.beacon_answered(FOUR, sent_at, true);
    for ballot in [2, 4] {
        primary.on(Event::BeaconAnswered { peer: THREE, ballot: Ballot(ballot), sent_at, granted: true });
    }
    primary.wait(500);
    assert_eq!(primary.admit_read(), REFUSED);
    assert_eq!(primary.replica.describe().counters.beacons_refused, 1);
}

#[test]
fn a_new_ballot_begins_without_any_lease() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.hear(TWO, 12, refuse(Status::StaleBallot, 4, 0));
    primary.decided(configuration(4));
    primary.stored(4);
    primary.granted_by(&[TWO, THREE]);
    primary.hear(TWO, 12, established(4, 1, 0));
    assert_eq!(primary.admit_read(), REFUSED, "node 3 has not taken ballot 4, whatever it granted");
    primary.hear(THREE, 13, established(4, 1, 0));
    assert_eq!(primary.admit_read(), Ok(()));
}

#[test]
fn beacons_go_to_whoever_has_taken_the_ballot() {
    let mut primary = Fixture::new(ONE, recovered(2, 0, 0, &[]));
    primary.assigned(configuration(2));
    assert_eq!(beacons(&primary), [], "it has no ballot of its own yet");
    primary.decided(configuration(3));
    primary.stored(3);
    primary.opened(TWO, 12);
    primary.hear(TWO, 12, established(3, 1, 0));
    assert_eq!(beacons(&primary), [(TWO, 3, 0)]);
    primary.opened(THREE, 13);
    primary.hear(THREE, 13, established(3, 1, 0));
    primary.write_through(1);
    assert_eq!(beacons(&primary), [(TWO, 3, 1), (THREE, 3, 1)], "with the commit point");
    primary.closed(TWO, 12);
    assert_eq!(beacons(&primary).len(), 2, "a broken stream ends no lease");
}

#[test]
fn a_primary_that_cannot_serve_for_a_grace_period_lets_others_take_over() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    for _ in 0..50 {
        primary.granted_by(&[TWO]);
        primary.tick_after(100);
    }
    assert_eq!(primary.replica.describe().proposal, Some(led_by(4, ONE, &[TWO])), "the meta service is away");
    let served_last = START.after((LEASE - 100) * 1000);
    assert_eq!(primary.now.since(served_last), 3_100_000);
    assert_eq!(beacons(&primary), []);
    primary.decided(led_by(4, ONE, &[TWO]));
    primary.stored(4);
    primary.hear(TWO, 12, established(4, 1, 0));
    assert_eq!(beacons(&primary), [(TWO, 4, 0)], "the next ballot starts afresh");
    assert_eq!(primary.admit_read(), Ok(()));
}

#[test]
fn beacons_end_exactly_a_grace_period_after_the_last_service() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.tick_after(LEASE - 1);
    primary.tick_after(GRACE - 1);
    assert_eq!(beacons(&primary).len(), 2);
    primary.wait(1);
    assert_eq!(beacons(&primary).len(), 0);
}

#[test]
fn the_members_of_a_new_partition_are_kept_while_the_slowest_makes_its_copy() {
    let mut primary = Fixture::new(ONE, recovered(1, 0, 0, &[]));
    primary.assigned(configuration(1));
    primary.opened(TWO, 1);
    primary.hear(TWO, 1, established(1, 1, 0));
    for _ in 0..99 {
        assert_eq!(beacons(&primary), [(TWO, 1, 0)]);
        primary.granted_by(&[TWO]);
        let effects = primary.tick_after(100);
        assert!(!effects.iter().any(|effect| effect.to_string().starts_with("propose")), "{effects:?}");
    }
    let effects = primary.tick_after(100);
    assert!(effects.contains(&proposing(led_by(2, ONE, &[TWO]))), "only the slowest goes: {effects:?}");
}

#[test]
fn a_secondary_grants_only_what_it_follows() {
    let mut secondary = Fixture::new(TWO, recovered(3, 0, 0, &[]));
    assert!(!secondary.hears_beacon(ONE, 3, 0), "it does not know yet what it is");
    secondary.assigned(configuration(3));
    assert!(!secondary.hears_beacon(ONE, 3, 0), "the primary has not established it");
    secondary.hear(ONE, 5, establish(3, 0, 0));
    assert!(secondary.hears_beacon(ONE, 3, 0));
    assert!(!secondary.hears_beacon(THREE, 3, 0), "not the primary");
    assert!(!secondary.hears_beacon(ONE, 2, 0) && !secondary.hears_beacon(ONE, 4, 0), "other ballots");
    secondary.closed(ONE, 5);
    assert!(!secondary.hears_beacon(ONE, 3, 0), "what it needs is not agreed");
    secondary.hear(ONE, 6, establish(3, 0, 0));
    assert!(secondary.hears_beacon(ONE, 3, 0));
    secondary.assigned(configuration(4));
    assert!(!secondary.hears_beacon(ONE, 3, 0), "a ballot left behind");
    secondary.hear(ONE, 6, establish(4, 0, 0));
    assert!(!secondary.hears_beacon(ONE, 4, 0), "ballot 4 is not durable here");
    secondary.stored(4);
    assert!(secondary.hears_beacon(ONE, 4, 0));
    secondary.on(Event::Shutdown);
    assert!(!secondary.hears_beacon(ONE, 4, 0));
}

#[test]
fn a_granted_beacon_tells_the_commit_point() {
    let mut secondary = Fixture::following();
    secondary.hear(ONE, 5, prepare(1, 3, 0));
    secondary.hear(ONE, 5, prepare(2, 3, 0));
    secondary.logged(1);
    let heard = |peer, committed| Event::BeaconHeard { peer, ballot: Ballot(3), committed: Decree(committed) };
    assert_eq!(secondary.on(heard(THREE, 2)), [], "it is refused");
    assert_eq!(secondary.on(heard(ONE, 2)), [apply(&[(1, 3)])], "as far as it is logged");
    assert_eq!(secondary.logged(2), [send(ONE, 5, acknowledge(2, 3))]);
    assert_eq!(secondary.applied(1), [apply(&[(2, 3)])]);
}

#[test]
fn a_primary_grants_nothing() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    assert!(!primary.hears_beacon(TWO, 3, 0) && !primary.hears_beacon(TWO, 4, 0));
}
