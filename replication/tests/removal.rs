//! Members that have to leave, and what becomes of the writes that wait for them.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use pegasus_replication::{Effect, Event, PeerMessage, ReplicaLimits, Role};
use pegasus_wire::messages::peer::Established;
use pegasus_wire::{Ballot, Decree, Status};

fn without_two(ballot: u64) -> pegasus_wire::Configuration {
    led_by(ballot, ONE, &[THREE])
}

/// The configuration that was asked for, if one was.
fn proposed(effects: &[Effect]) -> Option<pegasus_wire::Configuration> {
    effects.iter().find_map(|effect| match effect {
        Effect::ProposeConfiguration { configuration, .. } => Some(configuration.clone()),
        _ => None,
    })
}

/// Time passes in ticks, and these members grant beacons. The first proposal, and after how many milliseconds.
fn first_proposal(
    primary: &mut Fixture,
    granting: &[pegasus_wire::NodeId],
) -> Option<(u64, pegasus_wire::Configuration)> {
    (1..=60).find_map(|ticks| {
        let effects = primary.tick_after(100);
        primary.granted_by(granting);
        Some((ticks * 100, proposed(&effects)?))
    })
}

/// Primary of node 2 only, at ballot 4.
fn pair() -> Fixture {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.hear(THREE, 13, refuse(Status::Damaged, 3, 0));
    primary.on(Event::Tick);
    primary.decided(led_by(4, ONE, &[TWO]));
    primary.stored(4);
    primary.hear(TWO, 12, established(4, 1, 0));
    assert_eq!(primary.admit(), Ok(()));
    primary
}

#[test]
fn a_member_whose_lease_lapsed_is_removed() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.wait(1000);
    primary.granted_by(&[THREE]);
    assert_eq!(primary.tick_after(999), []);
    assert_eq!(primary.tick_after(1), [proposing(without_two(4)), now_is(Role::Primary, 3, false)]);
    assert_eq!(primary.tick_after(100), [], "asked already");
    assert_eq!(primary.replica.describe().counters.removals, 1);
}

#[test]
fn a_write_that_waits_for_a_removed_member_commits_under_the_new_configuration() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 10, "m1");
    primary.logged(1);
    assert_eq!(primary.hear(THREE, 13, acknowledge(1, 3)), []);
    primary.wait(1000);
    primary.granted_by(&[THREE]);
    let mut asked = primary.tick_after(1000);
    asked.retain(|effect| proposed(std::slice::from_ref(effect)).is_some());
    assert_eq!(asked, [proposing(without_two(4))]);
    assert_eq!(primary.replica.committed(), Decree(0), "the outcome is not known");
    let decided = primary.decided(without_two(4));
    assert_eq!(decided, [close(TWO, 12), store(without_two(4)), now_is(Role::Primary, 4, false)]);
    assert_eq!(primary.hear(TWO, 12, acknowledge(1, 3)), [], "who left is not listened to");
    let establish = establish_of(without_two(4), THREE, 1, 0);
    assert_eq!(primary.stored(4), [append(2, 1, 4, 0), send(THREE, 13, establish)]);
    assert_eq!(primary.hear(THREE, 13, acknowledge(1, 3)), [], "of ballot 3");
    assert_eq!(primary.logged(2), []);
    assert_eq!(primary.replica.committed(), Decree(0), "nobody else has logged it under ballot 4");
    assert_eq!(primary.hear(THREE, 13, established(4, 1, 0)), [send(THREE, 13, prepare(1, 4, 0))]);
    assert_eq!(primary.hear(THREE, 13, acknowledge(1, 4)), [apply(&[(1, 4)])]);
    assert_eq!(primary.applied(1), [reply(1, Ok(1)), now_is(Role::Primary, 4, true)]);
}

#[test]
fn until_the_outcome_is_known_a_member_that_leaves_counts() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 10, "m1");
    primary.logged(1);
    primary.hear(THREE, 13, acknowledge(1, 3));
    primary.wait(1000);
    primary.granted_by(&[THREE]);
    primary.tick_after(1000);
    assert_eq!(primary.admit_read(), Err(Status::NotServing));
    let late = primary.hear(TWO, 12, acknowledge(1, 3));
    assert_eq!(late.len(), 1, "all members of ballot 3 have it, so it is committed: {late:?}");
    assert_eq!(primary.replica.committed(), Decree(1));
}

#[test]
fn a_member_that_leaves_a_prepare_waiting_is_removed() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    let both = [TWO, THREE];
    primary.granted_by(&both);
    primary.propose(1, 10, "a");
    primary.propose(2, 10, "b");
    primary.logged(2);
    primary.hear(THREE, 13, acknowledge(2, 3));
    primary.on(Event::Tick);
    primary.wait(1000);
    primary.granted_by(&both);
    primary.hear(TWO, 12, acknowledge(1, 3));
    primary.propose(3, 10, "c");
    primary.on(Event::Tick);
    primary.hear(THREE, 13, acknowledge(3, 3));
    assert_eq!(proposed(&primary.tick_after(PREPARE_TIMEOUT - 1001)), None);
    assert_eq!(proposed(&primary.tick_after(1)), Some(without_two(4)), "decree 2 waits since the first tick");
    assert_eq!(primary.admit_read(), Ok(()), "its lease runs, so reads go on");
}

#[test]
fn a_member_that_acknowledges_in_time_stays_however_much_it_is_sent() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    for decree in 1..=60 {
        primary.granted_by(&[TWO, THREE]);
        primary.propose(decree, 10, "x");
        primary.logged(decree);
        primary.hear(THREE, 13, acknowledge(decree, 3));
        primary.hear(TWO, 12, acknowledge(decree.saturating_sub(10), 3));
        assert_eq!(proposed(&primary.tick_after(100)), None, "node 2 is a second behind, always");
    }
}

#[test]
fn a_member_that_will_not_become_better_is_removed_at_the_next_tick() {
    for status in [Status::Damaged, Status::StorageFailed, Status::ShuttingDown, Status::Gap] {
        let mut primary = Fixture::serving(ReplicaLimits::default());
        primary.closed(TWO, 12);
        primary.opened(TWO, 14);
        assert_eq!(primary.hear(TWO, 14, refuse(status, 3, 9)), [close(TWO, 14)]);
        let effects = primary.on(Event::Tick);
        assert_eq!(proposed(&effects), Some(without_two(4)), "{status:?}");
    }
    for status in [Status::Busy, Status::NotServing, Status::Internal, Status::NoSuchPartition] {
        let mut primary = Fixture::serving(ReplicaLimits::default());
        primary.closed(TWO, 12);
        primary.opened(TWO, 14);
        primary.hear(TWO, 14, refuse(status, 3, 0));
        assert_eq!(first_proposal(&mut primary, &[THREE]), Some((2000, without_two(4))), "{status:?}: by its lease");
    }
}

#[test]
fn a_member_that_recovers_before_the_tick_stays() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.closed(TWO, 12);
    primary.opened(TWO, 14);
    primary.hear(TWO, 14, refuse(Status::Gap, 3, 9));
    primary.opened(TWO, 15);
    primary.hear(TWO, 15, established(3, 1, 0));
    assert_eq!(primary.on(Event::Tick), []);
}

#[test]
fn an_uncertain_member_is_removed() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.closed(TWO, 12);
    primary.opened(TWO, 14);
    let answer = Established { ballot: Ballot(3), next_decree: Decree(1), committed: Decree(0), uncertain: true };
    assert_eq!(primary.hear(TWO, 14, PeerMessage::Established(answer)), [close(TWO, 14)]);
    assert_eq!(proposed(&primary.on(Event::Tick)), Some(without_two(4)));
    let refusal = primary.replica.describe().members[0].refusal.clone();
    assert!(refusal.is_some_and(|(_, message)| message.contains("machine restarted")));
}

#[test]
fn a_member_that_does_not_take_the_ballot_within_a_lease_is_removed() {
    let mut primary = Fixture::new(ONE, recovered(2, 0, 0, &[]));
    primary.assigned(configuration(2));
    primary.wait(10_000);
    primary.decided(configuration(3));
    primary.stored(3);
    primary.opened(THREE, 13);
    primary.hear(THREE, 13, established(3, 1, 0));
    primary.on(Event::StreamFailed { peer: TWO });
    assert_eq!(first_proposal(&mut primary, &[THREE]), Some((2000, without_two(4))));
    primary.decided(without_two(4));
    primary.stored(4);
    primary.hear(THREE, 13, established(4, 1, 0));
    assert_eq!(primary.admit(), Ok(()));
}

#[test]
fn a_removal_that_leaves_too_few_is_put_off_by_a_grace_period() {
    let mut primary = pair();
    primary.closed(TWO, 12);
    let (after, wanted) = first_proposal(&mut primary, &[]).unwrap();
    assert_eq!((after, wanted), (LEASE + GRACE, led_by(5, ONE, &[])));
    let mut primary = pair();
    primary.hear(TWO, 12, refuse(Status::ShuttingDown, 4, 0));
    assert_eq!(first_proposal(&mut primary, &[]), Some((LEASE + GRACE, led_by(5, ONE, &[]))), "it may come back");
}

#[test]
fn a_primary_that_hears_nobody_first_gives_the_others_time() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    assert_eq!(first_proposal(&mut primary, &[]), Some((LEASE + GRACE, led_by(4, ONE, &[]))));
}

#[test]
fn alone_it_reads_but_takes_no_new_writes() {
    let mut primary = pair();
    primary.propose(1, 10, "m1");
    primary.logged(1);
    first_proposal(&mut primary, &[]);
    primary.decided(led_by(5, ONE, &[]));
    assert_eq!(primary.stored(5), [append(2, 1, 5, 0)]);
    assert_eq!(primary.logged(2), [apply(&[(1, 5)])], "what was prepared commits");
    assert_eq!(primary.applied(1), [reply(1, Ok(1)), now_is(Role::Primary, 5, true)]);
    assert_eq!((primary.admit_read(), primary.admit()), (Ok(()), Err(Status::NotEnoughMembers)));
    assert_eq!(primary.propose(2, 10, "b"), [reply(2, Err(Status::NotEnoughMembers))]);
}

#[test]
fn a_removal_without_an_answer_is_asked_for_again_and_may_turn_out_otherwise() {
    let mut primary = Fixture::serving(ReplicaLimits::default());
    primary.propose(1, 10, "a");
    primary.wait(1000);
    primary.granted_by(&[THREE]);
    primary.tick_after(1000);
    primary.on(Event::ProposalFailed);
    assert_eq!(primary.tick_after(100), [proposing(without_two(4))], "unchanged");
    primary.granted_by(&[TWO, THREE]);
    assert_eq!(primary.admit_read(), Ok(()), "still the primary of ballot 3, with all its leases");
    let other = led_by(4, TWO, &[THREE]);
    let effects = primary.decided(other);
    assert_eq!(effects[0], reply(1, Err(Status::OutcomeUnknown)));
    assert_eq!(effects.last(), Some(&now_is(Role::Inactive, 4, false)), "node 2 was faster");
}
