//! Who may change a configuration, and to what: every rule, accepted and refused.
#![allow(clippy::unwrap_used)]

mod cluster;

use cluster::{Cluster, configuration};
use pegasus_meta::core::{Command, FORMER_MEMBERS_MAX, Outcome, Refusal, State, apply};
use pegasus_wire::messages::control::ReplicaState::{self, Damaged, Learning, Missing, Uncertain, Whole};
use pegasus_wire::{Ballot, NodeId, PartitionId, Status};

/// Checks the status of a refusal and a part of its sentence.
fn says(refusal: &Refusal, status: Status, part: &str) {
    assert_eq!(refusal.status(), status, "{refusal}");
    assert!(refusal.to_string().contains(part), "{refusal} does not say {part:?}");
}

#[test]
fn a_primary_keeps_removes_and_adds() {
    let (mut cluster, partition) = Cluster::with_partition(5, 3);
    cluster.accept(partition, 1, &[1, 2, 3]);
    cluster.accept(partition, 1, &[1, 3]);
    assert_eq!(cluster.former(partition), [(2, 3)]);
    cluster.accept(partition, 1, &[1, 3, 4]);
    // One removed and one added at once, and everybody removed.
    cluster.accept(partition, 1, &[1, 2, 4]);
    assert_eq!(cluster.former(partition), [(3, 5)], "node 2 is back");
    cluster.accept(partition, 1, &[1]);
    assert_eq!(cluster.former(partition), [(3, 5), (2, 6), (4, 6)]);
    cluster.accept(partition, 1, &[1, 4, 5]);
    assert_eq!(cluster.former(partition), [(3, 5), (2, 6)]);
}

#[test]
fn a_primary_adds_only_registered_nodes_and_not_too_many() {
    let (mut cluster, partition) = Cluster::with_partition(5, 3);
    says(&cluster.refuse(partition, 1, &[1, 2, 3, 4]), Status::InvalidArgument, "4 members");
    says(&cluster.refuse(partition, 1, &[1, 2, 2]), Status::InvalidArgument, "a node twice");
    says(&cluster.refuse(partition, 1, &[1, 2, 1]), Status::InvalidArgument, "a node twice");
    says(&cluster.refuse(partition, 1, &[]), Status::InvalidArgument, "no primary");
    says(&cluster.refuse(partition, 1, &[1, 2, 99]), Status::InvalidArgument, "not registered");
    // Node 4 is a member of another table, so that it stays when it loses its address.
    cluster.create("other", 1, 1, [4]);
    cluster.displace(4, 9);
    assert!(cluster.state.nodes().contains_key(&NodeId(4)));
    says(&cluster.refuse(partition, 1, &[1, 2, 4]), Status::InvalidArgument, "not registered");
    cluster.accept(partition, 1, &[1, 2, 9]);
}

#[test]
fn a_primary_hands_over_to_a_secondary() {
    let (mut cluster, partition) = Cluster::with_partition(4, 3);
    cluster.accept(partition, 1, &[2, 1, 3]);
    assert_eq!(cluster.former(partition), []);
    // And leaves.
    cluster.accept(partition, 2, &[3, 1]);
    assert_eq!(cluster.former(partition), [(2, 3)]);
    for members in [&[1, 2][..], &[1, 3, 4], &[4, 1, 3], &[4, 3]] {
        let refusal = cluster.refuse(partition, 3, members);
        says(&refusal, Status::InvalidArgument, "hands over to one of its secondaries");
    }
    cluster.accept(partition, 3, &[1]);
}

#[test]
fn a_secondary_takes_over_and_nothing_else() {
    let (mut cluster, partition) = Cluster::with_partition(4, 3);
    for members in [&[2, 1, 3][..], &[2, 1], &[2], &[2, 3, 4], &[2, 4]] {
        says(&cluster.refuse(partition, 2, members), Status::InvalidArgument, "a secondary takes over");
    }
    for members in [&[1, 2, 3][..], &[1, 2], &[3, 2], &[3, 1, 2]] {
        says(&cluster.refuse(partition, 2, members), Status::NotPrimary, "is a secondary");
    }
    cluster.accept(partition, 2, &[2, 3]);
    assert_eq!(cluster.former(partition), [(1, 2)]);
    cluster.accept(partition, 3, &[3]);
    assert_eq!(cluster.former(partition), [(1, 2), (2, 3)]);
}

#[test]
fn strangers_change_nothing() {
    let (mut cluster, partition) = Cluster::with_partition(4, 3);
    for members in [&[1, 2, 3][..], &[4, 2, 3], &[4]] {
        says(&cluster.refuse(partition, 4, members), Status::Forbidden, "is not a member");
    }
    let nowhere = PartitionId::new(1, 1);
    let command = cluster.proposal(nowhere, 1, &[1]);
    let outcome = apply(&mut cluster.state, Command::Propose(command));
    assert_eq!(outcome, Outcome::Refused(Refusal::NoSuchPartition(nowhere)));
}

#[test]
fn a_lost_answer_is_asked_for_again_even_by_one_who_left() {
    let (mut cluster, partition) = Cluster::with_partition(3, 3);
    let mut command = cluster.proposal(partition, 1, &[2, 3]);
    let wanted = Outcome::Accepted { configuration: configuration(2, &[2, 3]) };
    assert_eq!(apply(&mut cluster.state, Command::Propose(command.clone())), wanted);
    let revision = cluster.state.revision();
    assert_eq!(apply(&mut cluster.state, Command::Propose(command.clone())), wanted);
    assert_eq!(cluster.state.revision(), revision);
    // The same ballot with other members is another proposal; who left learns what is in force.
    command.configuration.secondaries.clear();
    let in_force = Outcome::Conflict { configuration: configuration(2, &[2, 3]) };
    assert_eq!(apply(&mut cluster.state, Command::Propose(command)), in_force);
    cluster.accept(partition, 2, &[2]);
    let mut ahead = cluster.proposal(partition, 1, &[1]);
    ahead.expected_ballot = Ballot(7);
    ahead.configuration.ballot = Ballot(8);
    let in_force = Outcome::Conflict { configuration: configuration(3, &[2]) };
    assert_eq!(apply(&mut cluster.state, Command::Propose(ahead)), in_force);
}

#[test]
fn a_copy_that_is_not_whole_does_not_become_primary() {
    for state in [Learning, Damaged, Missing] {
        let (mut cluster, partition) = Cluster::with_partition(3, 3);
        cluster.report(2, &[(partition, 1, state, 5)]);
        let word = format!("{state:?}").to_lowercase();
        says(&cluster.refuse(partition, 2, &[2, 3]), Status::NotServing, &word);
        says(&cluster.refuse(partition, 1, &[2, 1, 3]), Status::NotServing, &word);
        cluster.accept(partition, 1, &[1, 2, 3]);
        // The primary itself, after a restart: it may hand over, and not go on.
        cluster.report(1, &[(partition, 2, state, 5)]);
        says(&cluster.refuse(partition, 1, &[1, 2, 3]), Status::NotServing, &word);
        cluster.accept(partition, 1, &[3, 1, 2]);
        // The next registration counts.
        cluster.report(2, &[(partition, 3, Whole, 5)]);
        cluster.accept(partition, 2, &[2, 1]);
    }
}

#[test]
fn an_uncertain_copy_waits_for_all_the_others() {
    let (mut cluster, partition) = Cluster::with_partition(3, 3);
    cluster.accept(partition, 1, &[1, 2, 3]);
    cluster.report(1, &[(partition, 2, Uncertain, 9)]);
    cluster.report(2, &[(partition, 2, Uncertain, 7)]);
    let refusal = cluster.refuse(partition, 1, &[1, 2, 3]);
    assert_eq!(refusal, Refusal::AwaitsMember { partition, node: NodeId(1), awaited: NodeId(3) });
    says(&refusal, Status::NotServing, "has not");
    cluster.refuse(partition, 1, &[1]);
    cluster.refuse(partition, 2, &[2, 3]);
    // As long as a member is whole, it takes over.
    cluster.report(3, &[(partition, 2, Whole, 7)]);
    cluster.refuse(partition, 1, &[1, 2, 3]);
    cluster.accept(partition, 3, &[3, 2]);
    // Neither of the other two becomes primary while it is a member, by whatever way.
    cluster.refuse(partition, 2, &[2]);
    cluster.refuse(partition, 3, &[2, 3]);
}

#[test]
fn of_uncertain_copies_the_newest_wins() {
    // Highest ballot, then last decree, then node id.
    let cases = [
        ([(3, 1), (2, 9), (2, 9)], 1),
        ([(2, 5), (2, 6), (2, 5)], 2),
        ([(2, 5), (2, 5), (2, 5)], 3),
        ([(1, 9), (2, 1), (1, 9)], 2),
    ];
    for (copies, winner) in cases {
        let (mut cluster, partition) = Cluster::with_partition(3, 3);
        cluster.accept(partition, 1, &[1, 2, 3]);
        cluster.accept(partition, 1, &[1, 2, 3]);
        for (node, (ballot, last)) in (1..).zip(copies) {
            cluster.report(node, &[(partition, ballot, Uncertain, last)]);
        }
        for loser in (1..=3).filter(|&node| node != winner) {
            let others: Vec<u64> = (1..=3).filter(|&node| node != loser).collect();
            let refusal = cluster.refuse(partition, loser, &[&[loser][..], &others].concat());
            let expected = Refusal::NotNewest { partition, node: NodeId(loser), newest: NodeId(winner) };
            assert_eq!(refusal, expected);
            assert_eq!(refusal.status(), Status::NotServing);
        }
        // The winner may keep all members, the old primary too.
        let others: Vec<u64> = (1..=3).filter(|&node| node != winner).collect();
        cluster.accept(partition, winner, &[&[winner][..], &others].concat());
        // From now on its copy is what the partition holds.
        cluster.accept(partition, winner, &[winner, others[1]]);
        cluster.accept(partition, winner, &[winner]);
        cluster.refuse(partition, winner, &[]);
    }
}

#[test]
fn an_uncertain_winner_names_members_only() {
    let (mut cluster, partition) = Cluster::with_partition(4, 3);
    for node in 1..=3 {
        cluster.report(node, &[(partition, 1, Uncertain, node)]);
    }
    says(&cluster.refuse(partition, 3, &[3, 4]), Status::InvalidArgument, "a secondary takes over");
    cluster.accept(partition, 3, &[3]);
    assert_eq!(cluster.former(partition), [(1, 2), (2, 2)]);
}

#[test]
fn what_a_node_reported_before_it_joined_is_forgotten() {
    // Node 3 was uncertain, learned everything, and is a member again: it must not be counted among the uncertain.
    let (mut cluster, partition) = Cluster::with_partition(3, 3);
    cluster.report(3, &[(partition, 1, Uncertain, 4)]);
    cluster.accept(partition, 1, &[1]);
    cluster.accept(partition, 1, &[1, 3]);
    cluster.report(1, &[(partition, 3, Uncertain, 9)]);
    let refusal = cluster.refuse(partition, 1, &[1, 3]);
    assert_eq!(refusal, Refusal::AwaitsMember { partition, node: NodeId(1), awaited: NodeId(3) });
    cluster.accept(partition, 3, &[3]);
    // The same for one that was learning, damaged or missing.
    for state in [Learning, Damaged, Missing] {
        let (mut cluster, partition) = Cluster::with_partition(3, 2);
        cluster.report(3, &[(partition, 1, state, 4)]);
        cluster.accept(partition, 1, &[1]);
        cluster.accept(partition, 1, &[1, 3]);
        cluster.accept(partition, 3, &[3]);
        // What it reports from then on counts.
        cluster.accept(partition, 3, &[3, 1]);
        cluster.report(1, &[(partition, 5, state, 4)]);
        cluster.refuse(partition, 1, &[1]);
    }
}

#[test]
fn what_was_reported_before_a_decision_does_not_undo_it() {
    let (mut cluster, partition) = Cluster::with_partition(3, 2);
    cluster.accept(partition, 1, &[1, 2]);
    cluster.accept(partition, 1, &[1, 2]);
    cluster.report(1, &[(partition, 2, Uncertain, 9)]);
    cluster.report(2, &[(partition, 1, Uncertain, 9)]);
    cluster.accept(partition, 1, &[1, 2]);
    // The registration from before arrives once more, or its machine restarts before it knew that it had won.
    cluster.report(1, &[(partition, 2, Uncertain, 9)]);
    cluster.accept(partition, 1, &[1]);
    cluster.accept(partition, 1, &[1, 3]);
    // A restart after it knew is another matter, and so is anything worse than uncertain.
    cluster.report(1, &[(partition, 6, Uncertain, 9)]);
    let refusal = cluster.refuse(partition, 1, &[1]);
    assert_eq!(refusal, Refusal::AwaitsMember { partition, node: NodeId(1), awaited: NodeId(3) });
    cluster.report(3, &[(partition, 1, Damaged, 9)]);
    cluster.refuse(partition, 3, &[3]);
}

#[test]
fn former_members_are_bounded() {
    let nodes = FORMER_MEMBERS_MAX as u64 + 5;
    let (mut cluster, partition) = Cluster::with_partition(nodes, 2);
    for node in 3..=nodes {
        cluster.accept(partition, 1, &[1, node]);
    }
    let former = cluster.former(partition);
    assert_eq!(former.len(), FORMER_MEMBERS_MAX);
    assert_eq!(former.last(), Some(&(nodes - 1, nodes - 1)), "the newest is last");
    assert_eq!(former[0].0, nodes - FORMER_MEMBERS_MAX as u64, "the oldest are gone");
    let restored = State::decode(&cluster.state.encode()).unwrap();
    assert_eq!(restored, cluster.state);
}

#[test]
fn a_node_without_an_address_is_forgotten_with_its_last_membership() {
    let (mut cluster, partition) = Cluster::with_partition(4, 3);
    cluster.create("other", 1, 1, [3]);
    cluster.displace(2, 20);
    cluster.displace(3, 30);
    cluster.accept(partition, 1, &[1]);
    assert!(!cluster.state.nodes().contains_key(&NodeId(2)));
    assert!(cluster.state.nodes().contains_key(&NodeId(3)), "it is a member of the other table");
    assert!(cluster.state.nodes().contains_key(&NodeId(4)));
    assert_eq!(cluster.former(partition), [(2, 2), (3, 2)]);
}

fn refused(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn an_operator_forces_a_copy() {
    let usable: [ReplicaState; 4] = [Whole, Uncertain, Learning, Damaged];
    for state in usable {
        let (mut cluster, partition) = Cluster::with_partition(4, 3);
        cluster.accept(partition, 1, &[1, 2, 3]);
        // Also a node that is no member.
        cluster.report(4, &[(partition, 1, state, 3)]);
        let revision = cluster.state.revision();
        let forced = Outcome::Accepted { configuration: configuration(3, &[4]) };
        assert_eq!(cluster.force(partition, 2, 4, true), forced);
        assert_eq!(cluster.former(partition), [(1, 3), (2, 3), (3, 3)]);
        assert_eq!(cluster.state.revision(), revision + 1);
        assert_eq!(cluster.force(partition, 2, 4, true), forced, "a lost answer is asked for again");
        assert_eq!(cluster.state.revision(), revision + 1);
        // It goes on from there as any primary does.
        cluster.accept(partition, 4, &[4]);
        cluster.accept(partition, 4, &[4, 1]);
        cluster.refuse(partition, 2, &[2]);
    }
}

#[test]
fn forcing_has_limits() {
    let (mut cluster, partition) = Cluster::with_partition(5, 3);
    cluster.create("other", 1, 1, [5]);
    cluster.report(2, &[(partition, 1, Whole, 3)]);
    cluster.report(3, &[(partition, 0, Missing, 0)]);
    cluster.report(5, &[(partition, 1, Whole, 3)]);
    cluster.displace(5, 50);
    let before = cluster.state.clone();
    says(&refused(cluster.force(partition, 1, 2, false)), Status::InvalidArgument, "accept_loss");
    says(&refused(cluster.force(partition, 1, 3, true)), Status::InvalidArgument, "holds no copy");
    says(&refused(cluster.force(partition, 1, 4, true)), Status::InvalidArgument, "reported no copy");
    says(&refused(cluster.force(partition, 1, 5, true)), Status::InvalidArgument, "no such node");
    says(&refused(cluster.force(partition, 1, 99, true)), Status::InvalidArgument, "no such node");
    says(&refused(cluster.force(partition, u64::MAX, 2, true)), Status::InvalidArgument, "no ballot");
    says(&refused(cluster.force(PartitionId::new(9, 9), 1, 2, true)), Status::NoSuchPartition, "9.9");
    let in_force = cluster.state.configuration(partition).unwrap().clone();
    for expected in [0, 2] {
        let conflict = Outcome::Conflict { configuration: in_force.clone() };
        assert_eq!(cluster.force(partition, expected, 2, true), conflict);
    }
    assert_eq!(cluster.state, before);
}
