//! Learners as their primary sees them: from window, log and checkpoint to the proposal that makes them members.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use pegasus_replication::{Effect, Event, PeerMessage, Recovered, ReplicaLimits, Role, Session};
use pegasus_wire::{Ballot, Configuration, Decree, Mutation, NodeId, Status};

/// With the learner, node 4.
fn grown(ballot: u64) -> Configuration {
    led_by(ballot, ONE, &[TWO, FOUR])
}

fn pair(ballot: u64) -> Configuration {
    led_by(ballot, ONE, &[TWO])
}

/// Node 1 serves with node 2 at ballot 3, and has applied so much; its log is all it has of that.
fn serving_pair(applied: u64, limits: ReplicaLimits) -> Fixture {
    let copy = Recovered { configuration: pair(2), ..recovered(2, applied, applied, &[]) };
    let mut primary = Fixture::with_limits(ONE, copy, limits);
    primary.assigned(pair(2));
    primary.decided(pair(3));
    primary.stored(3);
    primary.opened(TWO, 12);
    primary.hear(TWO, 12, established(3, applied + 1, applied));
    assert_eq!(primary.admit(), Ok(()));
    primary
}

fn add(primary: &mut Fixture, node: NodeId) -> Vec<Effect> {
    let ballot = primary.replica.ballot();
    primary.on(Event::AddMember { ballot, node })
}

/// Opens a stream to the learner, which needs what follows `has`.
fn begin_teaching(primary: &mut Fixture, has: u64) -> Vec<Effect> {
    assert_eq!(add(primary, FOUR), [open(FOUR)]);
    primary.opened(FOUR, 14);
    primary.hear(FOUR, 14, established(3, has + 1, has))
}

/// A write that node 2 has logged too.
fn write(primary: &mut Fixture, token: u64, decree: u64) {
    primary.propose(decree, decree * 10, &format!("m{decree}"));
    primary.logged(token);
    primary.hear(TWO, 12, acknowledge(decree, primary.replica.ballot().0));
}

fn read_log(from: u64, through: u64) -> Effect {
    Effect::ReadLog { peer: FOUR, session: Session(14), from: Decree(from), through: Decree(through) }
}

fn log_read(primary: &mut Fixture, decrees: impl IntoIterator<Item = u64>) -> Vec<Effect> {
    let mutations = decrees.into_iter().map(|decree| mutation(decree, 2)).collect();
    primary.on(Event::LogRead { peer: FOUR, session: Session(14), mutations: Some(mutations) })
}

fn prepares(decrees: impl IntoIterator<Item = u64>, committed: u64) -> Vec<Effect> {
    decrees.into_iter().map(|decree| send(FOUR, 14, prepare(decree, 3, committed))).collect()
}

fn learners(primary: &Fixture) -> Vec<NodeId> {
    primary.replica.describe().learners.iter().map(|learner| learner.node).collect()
}

#[test]
fn only_what_fits_is_taught() {
    let mut primary = serving_pair(0, ReplicaLimits::default());
    for (ballot, node) in [(2, FOUR), (4, FOUR), (3, TWO), (3, ONE)] {
        assert_eq!(primary.on(Event::AddMember { ballot: Ballot(ballot), node }), [], "ballot {ballot}, {node}");
    }
    assert_eq!(add(&mut primary, FOUR), [open(FOUR)]);
    assert_eq!(add(&mut primary, FOUR), [], "said again and again");
    assert_eq!(add(&mut primary, NodeId(5)), [open(NodeId(5))], "one of them will be a member");
    assert_eq!(add(&mut primary, NodeId(6)), [], "enough are taught");
    let mut full = Fixture::serving(ReplicaLimits::default());
    assert_eq!(add(&mut full, FOUR), [], "the partition has its three members");
    let mut secondary = Fixture::following();
    assert_eq!(add(&mut secondary, FOUR), []);
}

#[test]
fn a_learner_of_an_empty_partition_is_proposed_at_once() {
    let mut primary = serving_pair(0, ReplicaLimits::default());
    assert_eq!(add(&mut primary, FOUR), [open(FOUR)]);
    let establish = establish_of(pair(3), FOUR, 0, 0);
    assert_eq!(primary.opened(FOUR, 14), [send(FOUR, 14, establish)], "the configuration does not name it");
    assert_eq!(primary.hear(FOUR, 14, established(3, 1, 0)), [proposing(grown(4))]);
    assert_eq!(primary.replica.describe().counters.additions, 1);
}

#[test]
fn a_learner_is_taught_from_the_window() {
    let mut primary = serving_pair(0, ReplicaLimits::default());
    primary.propose(1, 10, "m1");
    primary.propose(2, 20, "m2");
    primary.logged(2);
    primary.hear(TWO, 12, acknowledge(1, 3));
    assert_eq!(begin_teaching(&mut primary, 0), prepares([1, 2], 1), "what waits to be applied, and what waits at all");
    assert_eq!(primary.replica.describe().proposal, None, "1 is committed and not logged there");
    let third = primary.propose(3, 30, "m3");
    assert_eq!(third[2..], prepares([3], 1), "what is new goes to it as well");
    primary.hear(TWO, 12, acknowledge(2, 3));
    assert_eq!(primary.replica.committed(), Decree(1), "for a moment it is waited for");
    assert_eq!(primary.hear(FOUR, 14, acknowledge(1, 3))[0], proposing(grown(4)), "it has all that is committed");
}

#[test]
fn a_learner_holds_commits_back_for_a_moment_only() {
    let mut primary = serving_pair(0, ReplicaLimits::default());
    primary.propose(1, 10, "m1");
    primary.propose(2, 20, "m2");
    primary.logged(2);
    primary.hear(TWO, 12, acknowledge(1, 3));
    begin_teaching(&mut primary, 0);
    primary.hear(TWO, 12, acknowledge(2, 3));
    assert_eq!(primary.replica.committed(), Decree(1), "the learner was sent 2, and is waited for");
    primary.wait(PREPARE_TIMEOUT - 100);
    primary.granted_by(&[TWO, FOUR]);
    assert_eq!(primary.replica.committed(), Decree(1));
    primary.tick_after(100);
    assert_eq!(primary.replica.committed(), Decree(2), "it took too long");
    assert_eq!(primary.hear(FOUR, 14, acknowledge(1, 3)), [], "2 is committed and not logged there");
    assert_eq!(primary.hear(FOUR, 14, acknowledge(2, 3)), [proposing(grown(4))]);
}

#[test]
fn a_learner_is_taught_from_the_log_two_batches_at_a_time() {
    let limits = ReplicaLimits { window_mutations_max: 3, ..ReplicaLimits::default() };
    let mut primary = serving_pair(10, limits);
    assert_eq!(begin_teaching(&mut primary, 2), [read_log(3, 5)], "no more than a window at a time");
    assert_eq!(primary.on(Event::Tick), [], "asked already");
    let first = log_read(&mut primary, 3..=5);
    assert_eq!(first, [prepares(3..=5, 10), vec![read_log(6, 8)]].concat(), "under the primary's ballot");
    assert_eq!(log_read(&mut primary, 6..=7), prepares(6..=7, 10), "less than asked for, and two are on the way");
    assert_eq!(primary.on(Event::Tick), []);
    assert_eq!(primary.hear(FOUR, 14, acknowledge(4, 3)), []);
    assert_eq!(primary.hear(FOUR, 14, acknowledge(5, 3)), [read_log(8, 10)]);
    assert_eq!(log_read(&mut primary, 8..=10), prepares(8..=10, 10));
    assert_eq!(primary.hear(FOUR, 14, acknowledge(9, 3)), []);
    assert_eq!(primary.hear(FOUR, 14, acknowledge(10, 3)), [proposing(grown(4))]);
    let counters = primary.replica.describe().counters;
    assert_eq!((counters.sent_from_log, counters.checkpoints_told), (8, 0));
}

#[test]
fn what_is_applied_while_the_log_is_read_stays_in_memory() {
    let mut primary = serving_pair(2, ReplicaLimits::default());
    assert_eq!(begin_teaching(&mut primary, 0), [read_log(1, 2)]);
    for decree in 3..=5 {
        write(&mut primary, decree - 2, decree);
        primary.applied(decree);
    }
    assert!(primary.replica.is_drained());
    let from_memory: Vec<Effect> = log_read(&mut primary, 1..=2);
    assert_eq!(from_memory, prepares(1..=5, 5), "3 to 5 are not read from the log");
    assert_eq!(primary.hear(FOUR, 14, acknowledge(5, 3)), [proposing(grown(4))]);
    assert_eq!(primary.replica.describe().counters.sent_from_log, 2);
}

#[test]
fn what_is_kept_in_memory_for_a_learner_is_bounded() {
    let limits = ReplicaLimits { flight_bytes_max: 4, ..ReplicaLimits::default() };
    let mut primary = serving_pair(2, limits);
    begin_teaching(&mut primary, 0);
    for decree in 3..=5 {
        write(&mut primary, decree - 2, decree);
        primary.applied(decree);
    }
    let effects = log_read(&mut primary, 1..=2);
    assert_eq!(effects, [prepares(1..=2, 5), vec![read_log(3, 5)]].concat(), "of 3, 4, 5 two are kept: 4 bytes");
}

#[test]
fn prepares_on_the_way_to_a_learner_are_bounded() {
    let limits = ReplicaLimits { window_mutations_max: 4, flight_bytes_max: 6, ..ReplicaLimits::default() };
    let mut primary = serving_pair(2, limits);
    begin_teaching(&mut primary, 0);
    for decree in 3..=5 {
        write(&mut primary, decree - 2, decree);
        primary.applied(decree);
    }
    let effects = log_read(&mut primary, 1..=2);
    assert_eq!(effects, prepares(1..=3, 5), "6 bytes are on the way");
    assert_eq!(primary.hear(FOUR, 14, acknowledge(2, 3)), prepares(4..=5, 5));

    let limits = ReplicaLimits { window_mutations_max: 2, ..ReplicaLimits::default() };
    let mut primary = serving_pair(2, limits);
    begin_teaching(&mut primary, 0);
    for decree in 3..=5 {
        write(&mut primary, decree - 2, decree);
        primary.applied(decree);
    }
    assert_eq!(log_read(&mut primary, 1..=2), prepares(1..=2, 5), "as many as a window are on the way");
    assert_eq!(primary.hear(FOUR, 14, acknowledge(1, 3)), prepares(3..=3, 5));
    assert_eq!(primary.hear(FOUR, 14, acknowledge(3, 3)), prepares(4..=5, 5));
}

#[test]
fn a_learner_is_told_to_take_a_checkpoint_if_the_log_does_not_reach_back() {
    let mut primary = serving_pair(10, ReplicaLimits::default());
    begin_teaching(&mut primary, 0);
    assert_eq!(primary.replica.learner_floor(), Some(Decree(1)));
    let missing = Event::LogRead { peer: FOUR, session: Session(14), mutations: None };
    assert_eq!(primary.on(missing), [send(FOUR, 14, take_checkpoint(10, 3))]);
    assert_eq!(primary.replica.learner_floor(), Some(Decree(11)), "the checkpoint will not have what follows");
    write(&mut primary, 1, 11);
    primary.applied(11);
    assert_eq!(primary.on(Event::Tick)[1..], [send(FOUR, 14, commit_point(11, 3))], "no prepares meanwhile");
    assert_eq!(primary.closed(FOUR, 14), [open(FOUR)]);
    assert_eq!(primary.replica.learner_floor(), Some(Decree(11)), "it will come back");
    primary.opened(FOUR, 15);
    let effects = primary.hear(FOUR, 15, established(3, 11, 10));
    let wanted = Effect::ReadLog { peer: FOUR, session: Session(15), from: Decree(11), through: Decree(11) };
    assert_eq!(effects, [wanted], "the rest is in the log");
    let late = Event::LogRead { peer: FOUR, session: Session(14), mutations: Some(vec![mutation(1, 2)]) };
    assert_eq!(primary.on(late), [], "of the stream before");
    let mutations = Some(vec![mutation(11, 3)]);
    let read = primary.on(Event::LogRead { peer: FOUR, session: Session(15), mutations });
    assert_eq!(read, [send(FOUR, 15, prepare(11, 3, 11))]);
    assert_eq!(primary.replica.learner_floor(), Some(Decree(11)));
    assert_eq!(primary.hear(FOUR, 15, acknowledge(11, 3)), [proposing(grown(4))]);
    assert_eq!(primary.replica.describe().counters.checkpoints_told, 1);
}

#[test]
fn a_log_that_answers_nonsense_ends_the_stream() {
    let hostile: [&[u64]; 5] = [&[], &[4, 5], &[3, 5], &[2, 3], &[3, 4, 5, 6, 7, 8, 9, 10, 11]];
    for decrees in hostile {
        let mut primary = serving_pair(10, ReplicaLimits::default());
        begin_teaching(&mut primary, 2);
        assert_eq!(log_read(&mut primary, decrees.iter().copied()), [close(FOUR, 14)], "{decrees:?}");
        assert_eq!(primary.on(Event::Tick), [open(FOUR)], "tried again");
    }
}

#[test]
fn more_than_was_asked_for_is_not_sent() {
    let limits = ReplicaLimits { window_mutations_max: 2, ..ReplicaLimits::default() };
    let mut primary = serving_pair(10, limits);
    assert_eq!(begin_teaching(&mut primary, 0), [read_log(1, 2)]);
    assert_eq!(log_read(&mut primary, 1..=9), [prepares(1..=2, 10), vec![read_log(3, 4)]].concat());
}

/// Node 4 has everything up to decree 2, and is proposed.
fn pending() -> Fixture {
    let mut primary = serving_pair(0, ReplicaLimits::default());
    begin_teaching(&mut primary, 0);
    assert_eq!(primary.replica.describe().proposal, Some(grown(4)));
    primary
}

#[test]
fn while_its_addition_is_pending_a_learner_counts_for_commits() {
    let mut primary = pending();
    write(&mut primary, 1, 1);
    assert_eq!(primary.replica.committed(), Decree(0));
    primary.on(Event::ProposalFailed);
    assert_eq!(primary.replica.committed(), Decree(0), "it may have been accepted");
    primary.closed(FOUR, 14);
    assert_eq!(primary.replica.committed(), Decree(0), "gone or not");
    primary.opened(FOUR, 15);
    primary.hear(FOUR, 15, established(3, 1, 0));
    assert_eq!(primary.hear(FOUR, 15, acknowledge(1, 3)).len(), 1);
    assert_eq!(primary.replica.committed(), Decree(1));
}

#[test]
fn while_its_addition_is_pending_a_learner_counts_for_the_lease() {
    let mut primary = pending();
    primary.wait(1000);
    primary.granted_by(&[TWO]);
    primary.wait(1000);
    assert_eq!(primary.admit_read(), Err(Status::NotServing), "it may be a member, and lead already");
    primary.granted_by(&[FOUR]);
    assert_eq!(primary.admit_read(), Ok(()), "learners are sent beacons too");
    let mut primary = serving_pair(10, ReplicaLimits::default());
    begin_teaching(&mut primary, 0);
    primary.wait(1000);
    primary.granted_by(&[TWO]);
    primary.wait(1000);
    assert_eq!(primary.admit_read(), Ok(()), "before that it does not count");
}

#[test]
fn an_accepted_addition_makes_the_learner_a_member_on_its_stream() {
    let mut primary = pending();
    primary.propose(1, 10, "m1");
    primary.logged(1);
    let decided = primary.decided(grown(4));
    assert_eq!(decided, [store(grown(4)), now_is(Role::Primary, 4, false)]);
    assert_eq!(primary.hear(FOUR, 14, acknowledge(1, 3)), [], "of the ballot before");
    let establishes = [(TWO, 12), (FOUR, 14)].map(|(to, on)| send(to, on, establish_of(grown(4), to, 1, 0)));
    assert_eq!(primary.stored(4), [vec![append(2, 1, 4, 0)], establishes.to_vec()].concat());
    primary.logged(2);
    primary.hear(TWO, 12, established(4, 1, 0));
    primary.hear(TWO, 12, acknowledge(1, 4));
    assert_eq!(primary.hear(FOUR, 14, established(4, 1, 0)), [send(FOUR, 14, prepare(1, 4, 0))]);
    assert_eq!(primary.hear(FOUR, 14, acknowledge(1, 4)), [apply(&[(1, 4)])]);
    assert_eq!(primary.applied(1), [reply(1, Ok(1)), now_is(Role::Primary, 4, true)]);
    assert_eq!((learners(&primary), primary.replica.learner_floor()), (vec![], None));
}

#[test]
fn an_addition_is_accepted_while_the_learners_stream_is_opened_again() {
    let mut primary = pending();
    assert_eq!(primary.closed(FOUR, 14), [open(FOUR)]);
    primary.decided(grown(4));
    assert_eq!(primary.stored(4), [send(TWO, 12, establish_of(grown(4), TWO, 0, 0))]);
    assert_eq!(primary.opened(FOUR, 15), [send(FOUR, 15, establish_of(grown(4), FOUR, 0, 0))]);
    primary.hear(TWO, 12, established(4, 1, 0));
    assert_eq!(primary.hear(FOUR, 15, established(4, 1, 0)), [now_is(Role::Primary, 4, true)]);
}

#[test]
fn an_addition_without_an_answer_is_asked_for_again() {
    let mut primary = pending();
    primary.on(Event::ProposalFailed);
    assert_eq!(primary.tick_after(100), [proposing(grown(4))]);
    primary.on(Event::ProposalFailed);
    assert_eq!(primary.assigned(grown(4))[0], store(grown(4)), "the watch tells as well");
}

/// Node 4 is proposed and gone, and the meta service does not answer.
fn withdrawn() -> Fixture {
    let mut primary = pending();
    write(&mut primary, 1, 1);
    primary.closed(FOUR, 14);
    primary.wait(1000);
    primary.granted_by(&[TWO]);
    primary.on(Event::ProposalFailed);
    let asked = primary.tick_after(999);
    assert!(asked.contains(&proposing(grown(4))), "its lease runs: {asked:?}");
    primary.on(Event::ProposalFailed);
    let asked = primary.tick_after(1);
    assert!(asked.contains(&proposing(pair(4))), "the meta service may be unable to accept it: {asked:?}");
    primary
}

#[test]
fn an_addition_whose_learner_is_gone_is_withdrawn_by_another_proposal() {
    let mut primary = withdrawn();
    assert_eq!(primary.replica.committed(), Decree(0), "until one of them is in force it counts");
    assert_eq!(primary.admit_read(), Err(Status::NotServing));
    primary.on(Event::ProposalFailed);
    assert!(primary.tick_after(100).contains(&proposing(pair(4))), "asked again like any other");
    primary.decided(pair(4));
    primary.stored(4);
    primary.logged(2);
    primary.hear(TWO, 12, established(4, 1, 0));
    primary.hear(TWO, 12, acknowledge(1, 4));
    assert_eq!(primary.replica.committed(), Decree(1));
    assert_eq!(primary.applied(1), [reply(1, Ok(1)), now_is(Role::Primary, 4, true)]);
}

#[test]
fn an_addition_may_come_into_force_after_it_was_withdrawn() {
    let mut primary = withdrawn();
    assert_eq!(primary.decided(grown(4))[0], store(grown(4)), "the older proposal was on its way");
    primary.stored(4);
    primary.hear(TWO, 12, established(4, 1, 0));
    assert_eq!(primary.admit_read(), Err(Status::NotServing), "node 4 is a member");
    primary.wait(1900);
    primary.granted_by(&[TWO]);
    let effects = primary.tick_after(100);
    assert!(effects.contains(&proposing(pair(5))), "and is removed like any other: {effects:?}");
}

#[test]
fn an_addition_that_conflicts_ends_the_role() {
    let mut primary = pending();
    write(&mut primary, 1, 1);
    let effects = primary.decided(led_by(4, TWO, &[]));
    let unknown = reply(1, Err(Status::OutcomeUnknown));
    assert_eq!(effects, [unknown, close(TWO, 12), close(FOUR, 14), now_is(Role::Inactive, 4, false)]);
    assert_eq!(primary.replica.learner_floor(), None);
}

#[test]
fn a_learner_under_way_goes_on_under_the_next_ballot() {
    let mut primary = serving_pair(10, ReplicaLimits::default());
    begin_teaching(&mut primary, 0);
    log_read(&mut primary, 1..=4);
    primary.hear(FOUR, 14, acknowledge(3, 3));
    primary.hear(TWO, 12, refuse(Status::StaleBallot, 4, 0));
    primary.decided(pair(4));
    assert_eq!(log_read(&mut primary, 5..=6), [], "of the ballot before");
    let establishes = [(TWO, 12), (FOUR, 14)].map(|(to, on)| send(to, on, establish_of(pair(4), to, 10, 10)));
    assert_eq!(primary.stored(4), establishes);
    assert_eq!(primary.hear(FOUR, 14, established(4, 5, 4)), [read_log(5, 10)], "also before the others are there");
    primary.hear(TWO, 12, established(4, 11, 10));
    let third = mutation(5, 4);
    assert_eq!(log_read(&mut primary, [5])[0], send(FOUR, 14, prepare_of(&third, 10)));
}

#[test]
fn a_copy_made_anew_begins_from_nothing() {
    let mut primary = serving_pair(4, ReplicaLimits::default());
    begin_teaching(&mut primary, 0);
    log_read(&mut primary, 1..=2);
    primary.hear(FOUR, 14, acknowledge(2, 3));
    primary.closed(FOUR, 14);
    write(&mut primary, 1, 5);
    primary.opened(FOUR, 15);
    let effects = primary.hear(FOUR, 15, established(3, 1, 0));
    let wanted = Effect::ReadLog { peer: FOUR, session: Session(15), from: Decree(1), through: Decree(4) };
    assert_eq!(effects, [wanted], "what the copy before had logged does not count");
    assert_eq!(primary.replica.describe().learners[0].acknowledged, Decree(0));
}

#[test]
fn a_copy_made_anew_while_pending_is_not_taken_for_the_one_before() {
    let mut primary = serving_pair(0, ReplicaLimits::default());
    for decree in 1..=3 {
        write(&mut primary, decree, decree);
        primary.applied(decree);
    }
    add(&mut primary, FOUR);
    primary.opened(FOUR, 14);
    primary.hear(FOUR, 14, established(3, 4, 3));
    assert_eq!(primary.replica.describe().proposal, Some(grown(4)));
    primary.closed(FOUR, 14);
    write(&mut primary, 4, 4);
    primary.opened(FOUR, 15);
    primary.hear(FOUR, 15, established(3, 1, 0));
    assert_eq!(primary.replica.describe().learners[0].acknowledged, Decree(0));
    assert_eq!(primary.replica.committed(), Decree(3), "decree 4 waits for it");
}

#[test]
fn a_learner_that_cannot_be_reached_is_left_alone_until_asked_for_again() {
    let mut primary = serving_pair(0, ReplicaLimits::default());
    add(&mut primary, FOUR);
    for _ in 0..60 {
        primary.granted_by(&[TWO]);
        if primary.tick_after(100).contains(&open(FOUR)) || learners(&primary) == [FOUR] {
            primary.on(Event::StreamFailed { peer: FOUR });
        }
    }
    assert_eq!(learners(&primary), []);
    assert_eq!(primary.opened(FOUR, 99), [close(FOUR, 99)], "a stream that comes too late");
    assert_eq!(add(&mut primary, FOUR), [open(FOUR)]);
}

#[test]
fn who_is_not_needed_any_more_is_not_taught_further() {
    let mut primary = serving_pair(10, ReplicaLimits::default());
    add(&mut primary, NodeId(5));
    primary.opened(NodeId(5), 15);
    primary.hear(NodeId(5), 15, established(3, 1, 0));
    add(&mut primary, FOUR);
    primary.opened(FOUR, 14);
    assert_eq!(primary.hear(FOUR, 14, established(3, 11, 10)), [proposing(grown(4))]);
    primary.decided(grown(4));
    primary.stored(4);
    assert_eq!(learners(&primary), [], "there are three members");
    assert_eq!(primary.replica.learner_floor(), None);
}

#[test]
fn a_learner_cannot_make_the_primary_stumble() {
    let mut primary = serving_pair(10, ReplicaLimits::default());
    let begun = begin_teaching(&mut primary, 0);
    assert_eq!(begun, [read_log(1, 10)]);
    assert_eq!(primary.hear(FOUR, 14, refuse(Status::StaleBallot, 99, 0)), [close(FOUR, 14)]);
    assert_eq!((primary.admit(), primary.replica.describe().proposal), (Ok(()), None), "it has no say");
    primary.on(Event::Tick);
    primary.opened(FOUR, 15);
    assert_eq!(primary.hear(FOUR, 15, established(3, 12, 11)), [close(FOUR, 15)], "it has more than there is");
    for _ in 0..3 {
        primary.on(Event::Tick);
    }
    primary.opened(FOUR, 16);
    primary.hear(FOUR, 16, established(3, 11, 10));
    assert_eq!(primary.replica.describe().proposal, Some(grown(4)));
    let answer = primary.hear(FOUR, 16, acknowledge(12, 3));
    assert_eq!(answer, [close(FOUR, 16)], "acknowledged what was not sent");
}

#[test]
fn what_a_learner_lacks_is_sent_under_the_ballot_of_now() {
    let mut primary = serving_pair(1, ReplicaLimits::default());
    begin_teaching(&mut primary, 0);
    let effects = log_read(&mut primary, [1]);
    let Effect::Send { message: PeerMessage::Prepare { prepare, payload }, .. } = &effects[0] else { panic!() };
    let Mutation { timestamp_micros, payload: original, .. } = mutation(1, 2);
    assert_eq!((prepare.ballot, prepare.timestamp_micros, payload), (Ballot(3), timestamp_micros, &original));
}
