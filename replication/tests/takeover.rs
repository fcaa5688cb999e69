//! Secondaries that claim the place of a silent primary, and what may come of it.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use pegasus_replication::{Effect, Event, Phase, Recovered, ReplicaLimits, Role};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Configuration, Status};

/// What node 2 asks for when its primary is silent.
fn claim() -> Configuration {
    led_by(4, TWO, &[THREE])
}

/// Node 2 after its claim was sent, with decree 1 logged.
fn claiming() -> Fixture {
    let mut secondary = Fixture::following();
    secondary.hear(ONE, 5, prepare(1, 3, 0));
    secondary.logged(1);
    assert_eq!(secondary.tick_after(GRACE), [close(ONE, 5), proposing(claim())]);
    secondary
}

fn phase(of: &Fixture) -> Phase {
    of.replica.describe().phase
}

/// How long a silence lasts before the claim.
fn silence(secondary: &mut Fixture) -> Option<u64> {
    (1..=200).map(|ticks| ticks * 100).find(|_| {
        let effects = secondary.tick_after(100);
        effects.iter().any(|effect| matches!(effect, Effect::ProposeConfiguration { .. }))
    })
}

#[test]
fn a_silent_primary_is_replaced_after_the_grace_period() {
    let mut secondary = Fixture::following();
    secondary.hear(ONE, 5, prepare(1, 3, 0));
    secondary.logged(1);
    assert_eq!(secondary.tick_after(GRACE - 1), []);
    assert_eq!(secondary.tick_after(1), [close(ONE, 5), proposing(claim())]);
    assert_eq!((phase(&secondary), secondary.replica.role()), (Phase::Claiming, Role::Secondary));
    assert_eq!(secondary.decided(claim()), [store(claim()), now_is(Role::Primary, 4, false)]);
    assert_eq!(secondary.stored(4), [append(2, 1, 4, 0), open(THREE)]);
    assert_eq!(secondary.opened(THREE, 8), [send(THREE, 8, establish_of(claim(), THREE, 1, 0))]);
    assert_eq!(secondary.hear(THREE, 8, established(4, 1, 0)), [send(THREE, 8, prepare(1, 4, 0))]);
    secondary.logged(2);
    assert_eq!(secondary.admit_read(), Err(Status::NotServing), "its inherited window is not committed");
    assert_eq!(secondary.hear(THREE, 8, acknowledge(1, 4)), [apply(&[(1, 4)])]);
    assert_eq!(secondary.applied(1), [now_is(Role::Primary, 4, true)]);
    assert_eq!(secondary.replica.describe().counters.takeovers, 1);
}

#[test]
fn everything_accepted_from_the_primary_starts_the_grace_period_again() {
    type Hear = fn(&mut Fixture) -> Vec<Effect>;
    let heard: [(Hear, u64); 6] = [
        (|secondary| secondary.hear(ONE, 5, prepare(1, 3, 0)), 5000),
        (|secondary| secondary.hear(ONE, 5, commit_point(0, 3)), 5000),
        (|secondary| secondary.hear(ONE, 6, establish(3, 0, 0)), 5000),
        (|secondary| Vec::from_iter(secondary.hears_beacon(ONE, 3, 0).then(|| open(ONE))), 5000),
        (|secondary| Vec::from_iter(secondary.hears_beacon(ONE, 2, 0).then(|| open(ONE))), 3000),
        (|secondary| secondary.hear(THREE, 9, prepare(1, 3, 0)), 3000),
    ];
    for (index, (hear, claims_after)) in heard.into_iter().enumerate() {
        let mut secondary = Fixture::following();
        secondary.wait(2000);
        hear(&mut secondary);
        assert_eq!(silence(&mut secondary), Some(claims_after - 2000), "case {index}");
    }
}

#[test]
fn after_the_claim_nothing_of_the_old_primary_is_taken() {
    let mut secondary = claiming();
    assert!(!secondary.hears_beacon(ONE, 3, 1));
    assert_eq!(secondary.hear(ONE, 5, prepare(2, 3, 0)), [], "its stream is closed");
    assert_eq!(secondary.hear(ONE, 5, commit_point(1, 3)), []);
    assert_eq!(refused(&secondary.hear(ONE, 6, establish(3, 1, 0))).0, Status::NotServing);
    assert_eq!(secondary.hear(ONE, 6, prepare(2, 3, 1)), [], "that stream was not taken either");
    assert_eq!(secondary.assigned(configuration(3)), [], "that is known, and no outcome");
    assert!(!secondary.hears_beacon(ONE, 3, 1));
    let description = secondary.replica.describe();
    assert_eq!((description.phase, description.committed.0, description.last.0), (Phase::Claiming, 0, 1));
}

#[test]
fn an_unanswered_claim_binds_and_is_made_again_ever_more_slowly() {
    let mut secondary = claiming();
    let mut pauses = Vec::new();
    for _ in 0..6 {
        assert_eq!(secondary.on(Event::Tick), [], "an answer may still come");
        assert_eq!(secondary.on(Event::ProposalFailed), []);
        assert!(!secondary.hears_beacon(ONE, 3, 1), "it may have been accepted");
        assert_eq!(refused(&secondary.hear(ONE, 6, establish(3, 1, 0))).0, Status::NotServing);
        pauses.push((1..100).find(|_| secondary.tick_after(100) == [proposing(claim())]).unwrap());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 8, 8]);
    assert_eq!(secondary.decided(claim())[0], store(claim()), "the answer that came at last");
}

#[test]
fn an_answer_that_the_old_ballot_is_in_force_decides_nothing() {
    let mut secondary = claiming();
    assert_eq!(secondary.decided(configuration(3)), []);
    assert_eq!(phase(&secondary), Phase::Claiming, "the claim may still be on its way");
    assert_eq!(secondary.tick_after(100), [proposing(claim())]);
}

#[test]
fn a_claim_that_came_too_late_ends_in_what_is_in_force() {
    let mut secondary = claiming();
    let faster = led_by(4, ONE, &[TWO]);
    assert_eq!(secondary.decided(faster.clone()), [now_is(Role::Secondary, 4, false)]);
    assert_eq!(phase(&secondary), Phase::Waiting);
    assert_eq!(secondary.hear(ONE, 6, establish_of(faster.clone(), TWO, 1, 0)), [store(faster)]);
    assert_eq!(secondary.stored(4), [send(ONE, 6, established(4, 1, 0))]);
    assert!(secondary.hears_beacon(ONE, 4, 0));

    let mut secondary = claiming();
    assert_eq!(secondary.assigned(led_by(4, THREE, &[TWO])), [now_is(Role::Secondary, 4, false)]);
    let mut secondary = claiming();
    assert_eq!(secondary.assigned(led_by(4, ONE, &[THREE])), [now_is(Role::Inactive, 4, false)], "removed");
    assert_eq!(silence(&mut secondary), None, "who is no member claims nothing");
}

#[test]
fn a_higher_ballot_overtakes_a_claim() {
    let mut secondary = claiming();
    let higher = led_by(4, ONE, &[TWO]);
    let effects = secondary.hear(ONE, 6, establish_of(higher.clone(), TWO, 1, 0));
    assert_eq!(effects, [store(higher.clone()), now_is(Role::Secondary, 4, false)]);
    assert_eq!(secondary.stored(4), [send(ONE, 6, established(4, 1, 0))]);
    assert_eq!(secondary.decided(higher), [], "the late answer to the claim says the same");
    assert_eq!(phase(&secondary), Phase::Following);
    assert_eq!(secondary.tick_after(100), [], "the claim is forgotten");
}

#[test]
fn the_grace_period_starts_afresh_after_a_restart() {
    let mut secondary = Fixture::new(TWO, recovered(3, 0, 0, &[(1, 3)]));
    secondary.wait(GRACE * 10);
    secondary.assigned(configuration(3));
    assert_eq!(silence(&mut secondary), Some(GRACE));
}

#[test]
fn the_grace_period_starts_afresh_with_a_configuration() {
    let mut secondary = Fixture::following();
    secondary.wait(GRACE - 1);
    secondary.assigned(led_by(4, THREE, &[TWO]));
    assert_eq!(silence(&mut secondary), Some(GRACE));
    assert_eq!(secondary.replica.describe().proposal, Some(led_by(5, TWO, &[])));
}

#[test]
fn a_copy_that_is_not_complete_claims_nothing() {
    let learning = Recovered { state: ReplicaState::Learning, ..recovered(3, 0, 0, &[]) };
    let mut member = Fixture::new(TWO, learning);
    member.assigned(configuration(3));
    assert_eq!(silence(&mut member), None, "named as a secondary, but never established as one");
    let mut damaged = Fixture::new(TWO, recovered(3, 0, 5, &[]));
    damaged.assigned(configuration(3));
    assert_eq!(silence(&mut damaged), None);
    let mut stranger = Fixture::new(FOUR, recovered(3, 0, 0, &[]));
    stranger.assigned(configuration(3));
    assert_eq!(silence(&mut stranger), None);
}

#[test]
fn an_uncertain_copy_asks_and_leaves_it_to_the_meta_service() {
    let uncertain = Recovered { state: ReplicaState::Uncertain, ..recovered(3, 0, 0, &[(1, 3)]) };
    let mut secondary = Fixture::new(TWO, uncertain);
    secondary.assigned(configuration(3));
    assert_eq!(secondary.tick_after(GRACE), [proposing(claim())]);
    assert_eq!(secondary.on(Event::ProposalFailed), [], "not while another may be better");
    assert_eq!(secondary.tick_after(100), [proposing(claim())]);
    assert_eq!(secondary.decided(claim())[0], store(claim()), "it was the best of all: whole from now on");
}

#[test]
fn members_of_a_new_partition_wait_longer() {
    let mut secondary = Fixture::new(TWO, recovered(1, 0, 0, &[]));
    secondary.assigned(configuration(1));
    assert_eq!(silence(&mut secondary), Some(5 * LEASE + GRACE), "the primary makes its copy, or waits for another");
}

/// Node 2 follows node 1 and, in the middle of it, is told that it leads without node 1: a claim of the run before was
/// accepted late.
fn promoted_unasked(configuration: Configuration) -> Fixture {
    let mut secondary = Fixture::new(TWO, recovered(3, 0, 0, &[]));
    secondary.hear(ONE, 5, establish(3, 0, 0));
    secondary.wait(500);
    assert!(secondary.hears_beacon(ONE, 3, 0));
    let ballot = configuration.ballot.0;
    let next = Configuration { ballot: configuration.ballot.next(), ..configuration.clone() };
    let effects = secondary.assigned(configuration);
    assert_eq!(effects, [close(ONE, 5), proposing(next.clone()), now_is(Role::Primary, ballot, false)]);
    secondary.decided(next.clone());
    secondary.stored(next.ballot.0);
    secondary.opened(THREE, 8);
    secondary.hear(THREE, 8, established(next.ballot.0, 1, 0));
    secondary
}

#[test]
fn a_new_primary_waits_until_nobody_serves_by_a_lease_that_it_granted() {
    let mut primary = promoted_unasked(claim());
    for _ in 0..2 {
        assert_eq!(primary.admit_read(), Err(Status::NotServing), "node 1 may have all its leases of ballot 3");
        primary.tick_after(1000);
        primary.granted_by(&[THREE]);
    }
    assert_eq!(primary.tick_after(999), []);
    assert_eq!(primary.tick_after(1), [now_is(Role::Primary, 5, true)], "a grace period after its last grant");
}

#[test]
fn what_a_member_answered_when_it_was_established_counts_as_granted() {
    let mut primary = Fixture::new(TWO, recovered(3, 0, 0, &[]));
    primary.hear(ONE, 5, establish(3, 0, 0));
    primary.wait(1000);
    primary.assigned(led_by(4, TWO, &[]));
    primary.decided(led_by(5, TWO, &[]));
    primary.stored(5);
    assert_eq!(primary.tick_after(GRACE - 1001), []);
    assert_eq!(primary.tick_after(1), [now_is(Role::Primary, 5, true)]);
    let mut restarted = Fixture::new(TWO, recovered(3, 0, 0, &[]));
    restarted.assigned(led_by(4, TWO, &[]));
    restarted.decided(led_by(5, TWO, &[]));
    assert_eq!(restarted.stored(5), [], "the run before may have granted something just before it ended");
    assert_eq!(restarted.tick_after(GRACE - 1), []);
    assert_eq!(restarted.tick_after(1), [now_is(Role::Primary, 5, true)]);
}

#[test]
fn a_new_primary_serves_at_once_when_the_old_one_has_followed() {
    let mut primary = promoted_unasked(led_by(4, TWO, &[THREE, ONE]));
    assert_eq!(primary.admit_read(), Err(Status::NotServing));
    primary.opened(ONE, 9);
    assert_eq!(primary.hear(ONE, 9, established(5, 1, 0)), [now_is(Role::Primary, 5, true)]);
}

#[test]
fn a_new_primary_serves_at_once_when_the_old_one_says_that_it_stopped() {
    let mut primary = promoted_unasked(led_by(4, TWO, &[THREE, ONE]));
    primary.opened(ONE, 9);
    primary.hear(ONE, 9, refuse(Status::StorageFailed, 3, 0));
    let without_one = led_by(6, TWO, &[THREE]);
    assert!(primary.on(Event::Tick).contains(&proposing(without_one.clone())));
    primary.decided(without_one);
    primary.stored(6);
    assert_eq!(primary.hear(THREE, 8, established(6, 1, 0)), [now_is(Role::Primary, 6, true)]);
}

#[test]
fn an_operator_may_put_a_copy_in_state_learning_in_force() {
    let learning = Recovered { state: ReplicaState::Learning, ..recovered(3, 2, 2, &[(3, 3)]) };
    let alone = |ballot| led_by(ballot, TWO, &[]);
    let mut primary = Fixture::with_limits(TWO, learning, ReplicaLimits { min_members: 1, ..ReplicaLimits::default() });
    assert_eq!(primary.assigned(alone(7)), [proposing(alone(8)), now_is(Role::Primary, 7, false)]);
    assert_eq!(primary.decided(alone(8)), [store(alone(8)), now_is(Role::Primary, 8, false)], "whole, by decision");
    assert_eq!(primary.stored(8), [append(1, 3, 8, 2)]);
    assert_eq!(primary.logged(1), [apply(&[(3, 8)])]);
    assert_eq!(primary.applied(3), [], "node 1 may serve by a lease of the run before");
    assert_eq!(primary.tick_after(GRACE), [now_is(Role::Primary, 8, true)]);
    assert_eq!(primary.admit(), Ok(()));
}
