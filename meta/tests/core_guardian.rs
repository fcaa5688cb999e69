//! The guardian: who joins, who waits, whose copy goes; and what no plan ever does.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::collections::{BTreeMap, BTreeSet};

use cluster::{Cluster, alive, heard};
use pegasus_meta::core::{Decision, Heard, Limits, Plan, Presence, State, Wait, plan};
use pegasus_wire::messages::control::ReplicaState::{self, Damaged, Learning, Missing, Uncertain, Whole};
use pegasus_wire::messages::control::{Addition, Removal};
use pegasus_wire::{Ballot, NodeId, PartitionId, owner_core};
use proptest::prelude::*;

const LIMITS: Limits = Limits { return_time_ms: 10_000, learners_per_node: 4, reconnect_ms: 1_000 };

fn add(node: u64) -> Option<Decision> {
    Some(Decision::Add { node: NodeId(node) })
}

fn wait(wait: Wait) -> Option<Decision> {
    Some(Decision::Wait(wait))
}

fn decided(cluster: &Cluster, partition: PartitionId, heard: &Heard) -> Option<Decision> {
    plan(&cluster.state, heard, &LIMITS).decisions.get(&partition).copied()
}

#[test]
fn a_partition_with_all_its_members_is_left_alone() {
    let (cluster, _) = Cluster::with_partition(4, 3);
    for nodes in [&[1, 2, 3, 4][..], &[1, 4], &[4], &[]] {
        let plan = plan(&cluster.state, &alive(nodes.iter().copied()), &LIMITS);
        assert_eq!(plan, Plan::default(), "{nodes:?}: whether a member is dead is for the members to say");
    }
}

#[test]
fn the_primary_is_asked_under_the_ballot_in_force() {
    let (mut cluster, partition) = Cluster::with_partition(4, 3);
    cluster.accept(partition, 1, &[1, 2]);
    let plan = plan(&cluster.state, &alive([1, 2, 4]), &LIMITS);
    assert_eq!(plan.decisions, BTreeMap::from([(partition, Decision::Add { node: NodeId(4) })]));
    let addition = Addition { partition, ballot: Ballot(2), node: NodeId(4) };
    assert_eq!(plan.tasks.len(), 1);
    assert_eq!(plan.tasks[&NodeId(1)].additions, [addition]);
    assert!(plan.tasks[&NodeId(1)].removals.is_empty());
}

#[test]
fn only_a_primary_that_is_there_can_teach() {
    let (mut cluster, partition) = Cluster::with_partition(4, 3);
    cluster.accept(partition, 1, &[1, 2]);
    assert_eq!(decided(&cluster, partition, &alive([2, 3, 4])), wait(Wait::Primary));
    assert_eq!(decided(&cluster, partition, &heard([2, 4], &[(1, 10)])), wait(Wait::Primary));
}

#[test]
fn the_most_recent_former_member_with_a_copy_comes_first() {
    let (mut cluster, partition) = Cluster::with_partition(6, 3);
    cluster.accept(partition, 1, &[1, 3]);
    cluster.accept(partition, 1, &[1, 4]);
    cluster.accept(partition, 1, &[1]);
    assert_eq!(cluster.former(partition), [(2, 2), (3, 3), (4, 4)]);
    cluster.report(2, &[(partition, 1, Whole, 3)]);
    // (states of the copies of nodes 3 and 4, nodes that are there, expected)
    let cases = [
        ([Some(Whole), Some(Whole)], &[1, 2, 3, 4, 5][..], 4),
        ([Some(Whole), Some(Learning)], &[1, 2, 3, 4, 5], 4),
        ([Some(Whole), Some(Uncertain)], &[1, 2, 3, 4, 5], 4),
        ([Some(Whole), Some(Damaged)], &[1, 2, 3, 4, 5], 3),
        ([Some(Whole), Some(Missing)], &[1, 2, 3, 4, 5], 3),
        ([Some(Whole), None], &[1, 2, 3, 4, 5], 3),
        ([Some(Damaged), Some(Damaged)], &[1, 2, 3, 4, 5], 2),
        ([Some(Damaged), Some(Damaged)], &[1, 3, 4, 5], 4),
        ([Some(Damaged), Some(Missing)], &[1, 3, 4, 5], 3),
        ([Some(Whole), Some(Whole)], &[1, 2, 5], 2),
    ];
    for (copies, nodes, expected) in cases {
        for (node, copy) in (3..).zip(copies) {
            let report = copy.map(|state| (partition, if state == Missing { 0 } else { 2 }, state, 3));
            cluster.report(node, report.as_slice());
        }
        let found = decided(&cluster, partition, &alive(nodes.iter().copied()));
        assert_eq!(found, add(expected), "{copies:?}, {nodes:?}");
    }
}

#[test]
fn a_former_member_has_time_to_return() {
    let (mut cluster, partition) = Cluster::with_partition(5, 3);
    cluster.accept(partition, 1, &[1, 2]);
    let returning = |left_ms| wait(Wait::Return { node: NodeId(3), left_ms });
    assert_eq!(decided(&cluster, partition, &heard([1, 2, 4], &[(3, 1)])), returning(9_999));
    assert_eq!(decided(&cluster, partition, &heard([1, 2, 4], &[(3, 1_000)])), returning(9_000));
    assert_eq!(decided(&cluster, partition, &heard([1, 2, 4], &[(3, 9_999)])), returning(1));
    assert_eq!(decided(&cluster, partition, &heard([1, 2, 4], &[(3, 10_000)])), add(4));
    assert_eq!(decided(&cluster, partition, &alive([1, 2, 4])), add(4), "it was never heard of");
    // It is back, and holds nothing of the partition: like any other node.
    assert_eq!(decided(&cluster, partition, &alive([1, 2, 3, 4])), add(3), "as few copies, and the lower id");

    // Somebody who will not come back is not waited for.
    cluster.displace(3, 30);
    assert_eq!(decided(&cluster, partition, &heard([1, 2, 4], &[(3, 1_000)])), add(4));
}

#[test]
fn a_partition_that_cannot_take_writes_does_not_wait() {
    let (mut cluster, partition) = Cluster::with_partition(5, 3);
    cluster.accept(partition, 1, &[1]);
    let silent = [(2, 2_000), (3, 3_000)];
    assert_eq!(decided(&cluster, partition, &heard([1, 5], &silent)), add(5));
    // Unless there is nobody else; then the most recent of them is named.
    let expected = wait(Wait::Return { node: NodeId(3), left_ms: 7_000 });
    assert_eq!(decided(&cluster, partition, &heard([1], &silent)), expected);
    assert_eq!(decided(&cluster, partition, &alive([1])), wait(Wait::Node));
    // A table of two replicas needs two as well.
    let (mut cluster, partition) = Cluster::with_partition(5, 2);
    cluster.accept(partition, 1, &[1]);
    assert_eq!(decided(&cluster, partition, &heard([1, 5], &[(2, 2_000)])), add(5));
    // One of five replicas with two members takes writes: it waits.
    let (mut cluster, partition) = Cluster::with_partition(6, 5);
    cluster.accept(partition, 1, &[1, 2]);
    let expected = wait(Wait::Return { node: NodeId(5), left_ms: 8_000 });
    assert_eq!(decided(&cluster, partition, &heard([1, 2, 6], &[(5, 2_000)])), expected);
}

#[test]
fn the_node_with_the_fewest_copies_is_taken() {
    let (mut cluster, partition) = Cluster::with_partition(6, 3);
    cluster.create("more", 4, 2, [4, 5]);
    cluster.accept(partition, 1, &[1, 2]);
    assert_eq!(decided(&cluster, partition, &alive([1, 2, 4, 5, 6])), add(6));
    assert_eq!(decided(&cluster, partition, &alive([1, 2, 4, 5])), add(4), "as many copies, and the lower id");
    cluster.create("even-more", 2, 1, [4]);
    assert_eq!(decided(&cluster, partition, &alive([1, 2, 4, 5])), add(5));
    assert_eq!(decided(&cluster, partition, &alive([1, 2])), wait(Wait::Node));
}

#[test]
fn copies_count_before_the_core_they_are_on() {
    let (mut cluster, partition) = Cluster::with_partition(6, 3);
    cluster.accept(partition, 1, &[1, 2]);
    // Node 4 gets two copies, none on the core that would own the partition; node 5 gets one, on that core.
    let (mut on_fourth, mut on_fifth) = (0, 0);
    for table in 2.. {
        let same_core = owner_core(PartitionId::new(table, 0), 2) == owner_core(partition, 2);
        let node = match same_core {
            true if on_fifth < 1 => 5,
            false if on_fourth < 2 => 4,
            _ => 6,
        };
        on_fourth += u32::from(node == 4);
        on_fifth += u32::from(node == 5);
        cluster.create(&format!("table{table}"), 1, 1, [node]);
        if (on_fourth, on_fifth) == (2, 1) {
            break;
        }
    }
    assert_eq!(decided(&cluster, partition, &alive([1, 2, 4, 5])), add(5));
}

#[test]
fn a_learner_that_is_half_way_stays_the_learner() {
    let (mut cluster, partition) = Cluster::with_partition(6, 3);
    cluster.accept(partition, 1, &[1, 2]);
    assert_eq!(decided(&cluster, partition, &alive([1, 2, 5, 6])), add(5));
    // It began; then the other node has fewer copies, and node 3 begins to return.
    cluster.report(5, &[(partition, 2, Learning, 3)]);
    cluster.create("more", 8, 1, [5]);
    let silent = [(3, 2_000)];
    assert_eq!(decided(&cluster, partition, &heard([1, 2, 5, 6], &silent)), add(5));
    // It lost its connection a moment ago, and then for longer.
    assert_eq!(decided(&cluster, partition, &heard([1, 2, 6], &[(5, 999), (3, 2_000)])), add(5));
    let returning = wait(Wait::Return { node: NodeId(3), left_ms: 8_000 });
    assert_eq!(decided(&cluster, partition, &heard([1, 2, 6], &[(5, 1_000), (3, 2_000)])), returning);
    // Of several the newest.
    cluster.report(6, &[(partition, 2, Learning, 4)]);
    assert_eq!(decided(&cluster, partition, &heard([1, 2, 5, 6], &silent)), add(6));
    // A former member that is back with its copy has less to learn.
    cluster.report(3, &[(partition, 1, Whole, 2)]);
    assert_eq!(decided(&cluster, partition, &alive([1, 2, 3, 5, 6])), add(3));
}

/// `count` partitions that all lack one member.
fn needy(count: u32, primary: impl Fn(u32) -> u64) -> Cluster {
    let mut cluster = Cluster::new(9);
    cluster.create("t", count, 3, 1..=3);
    for index in 0..count {
        let partition = PartitionId::new(1, index);
        let was = cluster.members(partition)[0];
        if was != primary(index) {
            let others: Vec<u64> = (1..=3).filter(|&node| node != primary(index)).collect();
            cluster.accept(partition, was, &[&[primary(index)][..], &others].concat());
        }
        let secondary = if primary(index) == 1 { 2 } else { 1 };
        cluster.accept(partition, primary(index), &[primary(index), secondary]);
    }
    cluster
}

fn additions(plan: &Plan) -> Vec<(u64, u32, u64)> {
    let of = |(primary, tasks): (&NodeId, &pegasus_meta::core::Tasks)| {
        let primary = primary.0;
        tasks.additions.iter().map(move |one| (primary, one.partition.index, one.node.0)).collect::<Vec<_>>()
    };
    plan.tasks.iter().flat_map(of).collect()
}

#[test]
fn learners_are_limited_per_node() {
    // Two primaries with four each, one node to learn: it takes four of them, in the order of the partitions.
    let cluster = needy(8, |index| 1 + u64::from(index % 2));
    let first = plan(&cluster.state, &alive([1, 2, 4]), &LIMITS);
    assert_eq!(additions(&first), [(1, 0, 4), (1, 2, 4), (2, 1, 4), (2, 3, 4)]);
    let turn = Decision::Wait(Wait::Turn { node: NodeId(4) });
    assert_eq!((4..8).filter(|&index| first.decisions[&PartitionId::new(1, index)] == turn).count(), 4);
    // One primary with eight: it teaches four, spread over the nodes and their cores.
    let cluster = needy(8, |_| 1);
    let second = plan(&cluster.state, &alive([1, 2, 4, 5]), &LIMITS);
    assert_eq!(additions(&second), [(1, 0, 4), (1, 1, 5), (1, 2, 5), (1, 3, 4)]);
    assert_eq!(second.decisions[&PartitionId::new(1, 7)], Decision::Wait(Wait::Turn { node: NodeId(1) }));
    let one = Limits { learners_per_node: 1, ..LIMITS };
    assert_eq!(additions(&plan(&cluster.state, &alive([1, 2, 4, 5]), &one)), [(1, 0, 4)]);
}

#[test]
fn a_former_member_is_waited_for_when_it_has_enough_to_learn() {
    let mut cluster = needy(8, |index| 1 + u64::from(index % 2));
    let copies: Vec<_> = (0..8).map(|index| (PartitionId::new(1, index), 1, Whole, 0)).collect();
    cluster.report(3, &copies);
    let found = plan(&cluster.state, &alive([1, 2, 3, 4]), &LIMITS);
    assert_eq!(additions(&found), [(1, 0, 3), (1, 2, 3), (2, 1, 3), (2, 3, 3)]);
    assert_eq!(found.decisions[&PartitionId::new(1, 5)], Decision::Wait(Wait::Turn { node: NodeId(3) }));
}

#[test]
fn who_is_being_taught_keeps_its_turn() {
    let mut cluster = needy(8, |_| 1);
    // Partitions 4 to 7 are under way when the earlier ones lose a member too.
    let ballot = |cluster: &Cluster, index| cluster.state.ballot(PartitionId::new(1, index)).0;
    let copies: Vec<_> =
        (4..8).map(|index| (PartitionId::new(1, index), ballot(&cluster, index), Learning, 0)).collect();
    cluster.report(4, &copies);
    let found = plan(&cluster.state, &alive([1, 2, 4, 5]), &LIMITS);
    assert_eq!(additions(&found), [(1, 4, 4), (1, 5, 4), (1, 6, 4), (1, 7, 4)]);
}

#[test]
fn a_copy_goes_when_the_partition_is_whole_without_it() {
    let removal = |partition, ballot| Removal { partition, ballot: Ballot(ballot) };
    for state in [Whole, Learning, Uncertain, Damaged, Missing] {
        let (mut cluster, partition) = Cluster::with_partition(5, 3);
        let removals = |cluster: &Cluster, heard: &Heard| {
            plan(&cluster.state, heard, &LIMITS).tasks.get(&NodeId(3)).map(|tasks| tasks.removals.clone())
        };
        cluster.accept(partition, 1, &[1, 2]);
        cluster.report(3, &[(partition, 1, state, 4)]);
        assert_eq!(removals(&cluster, &alive(1..=5)), None, "it may come back");
        cluster.accept(partition, 1, &[1, 2, 4]);
        let expected = (state != Missing).then(|| vec![removal(partition, 3)]);
        assert_eq!(removals(&cluster, &alive(1..=5)), expected, "{state:?}");
        assert_eq!(removals(&cluster, &alive([1, 2, 3, 5])), None, "a member is not alive");
        assert_eq!(removals(&cluster, &heard([1, 2, 3], &[(4, 10)])), None, "nor surely alive");
        assert_eq!(removals(&cluster, &alive([1, 2, 4, 5])), None, "who is not there is told nothing");
        // Not while a member's copy is in doubt.
        for doubt in [Damaged, Missing, Uncertain, Learning] {
            cluster.report(2, &[(partition, 1, doubt, 4)]);
            assert_eq!(removals(&cluster, &alive(1..=5)), None, "{doubt:?}");
        }
        cluster.report(2, &[(partition, 1, Whole, 4)]);
        assert_eq!(removals(&cluster, &alive(1..=5)), expected);
        // A copy that knows the ballot in force is kept.
        cluster.report(3, &[(partition, 3, state, 4)]);
        assert_eq!(removals(&cluster, &alive(1..=5)), None);
    }
}

#[test]
fn members_are_never_told_to_remove() {
    let (mut cluster, partition) = Cluster::with_partition(3, 3);
    for _ in 0..3 {
        cluster.accept(partition, 1, &[1, 2, 3]);
    }
    cluster.report(2, &[(partition, 1, Whole, 4)]);
    assert_eq!(plan(&cluster.state, &alive(1..=3), &LIMITS), Plan::default());
}

#[test]
fn the_digest_tells_tasks_apart() {
    let (mut cluster, partition) = Cluster::with_partition(5, 3);
    assert_eq!(pegasus_meta::core::Tasks::default().digest(), 0);
    cluster.accept(partition, 1, &[1, 2]);
    let tasks = |nodes: &[u64]| {
        plan(&cluster.state, &alive(nodes.iter().copied()), &LIMITS).tasks.remove(&NodeId(1)).unwrap_or_default()
    };
    let (fourth, fifth) = (tasks(&[1, 2, 4]), tasks(&[1, 2, 5]));
    assert_ne!(fourth.digest(), fifth.digest());
    assert_ne!(fourth.digest(), 0);
    assert_eq!(fourth.digest(), tasks(&[1, 2, 4]).digest());
}

/// What a node holds of a partition, drawn at random.
fn copy_state() -> impl Strategy<Value = ReplicaState> {
    prop_oneof![4 => Just(Whole), 1 => Just(Uncertain), 2 => Just(Learning), 1 => Just(Damaged), 1 => Just(Missing)]
}

fn presence() -> impl Strategy<Value = Presence> {
    prop_oneof![
        3 => Just(Presence::Alive),
        1 => (0u64..20_000).prop_map(|silent_ms| Presence::Silent { silent_ms }),
    ]
}

/// A change by a primary: partition, members to drop, node to add.
fn change() -> impl Strategy<Value = (u32, u8, u64)> {
    (0u32..8, 0u8..16, 1u64..9)
}

const NODES: u64 = 8;

fn random_cluster(
    replicas: u8,
    changes: &[(u32, u8, u64)],
    copies: &BTreeMap<(u64, u32), (ReplicaState, u64)>,
) -> Cluster {
    let mut cluster = Cluster::new(NODES);
    cluster.create("t", 8, replicas, 1..=NODES);
    for &(index, dropped, added) in changes {
        let partition = PartitionId::new(1, index);
        let members = cluster.members(partition);
        let kept = |position: usize| position == 0 || dropped & (1 << position) == 0;
        let mut wanted: Vec<u64> =
            members.iter().enumerate().filter(|(position, _)| kept(*position)).map(|(_, &node)| node).collect();
        if !wanted.contains(&added) && wanted.len() < usize::from(replicas) && dropped % 3 == 0 {
            wanted.push(added);
        }
        cluster.propose(partition, members[0], &wanted);
    }
    for node in 1..=NODES {
        let held: Vec<_> = copies
            .range((node, 0)..=(node, 7))
            .map(|(&(_, index), &(state, behind))| {
                let partition = PartitionId::new(1, index);
                let ballot = cluster.state.ballot(partition).0.saturating_sub(behind);
                (partition, if state == Missing { 0 } else { ballot }, state, behind)
            })
            .collect();
        cluster.report(node, &held);
    }
    cluster
}

fn check_plan(state: &State, heard: &Heard, limits: &Limits, plan: &Plan) {
    let half_way = |addition: &Addition| {
        let report = state.report(addition.node, addition.partition);
        report.is_some_and(|report| report.state == Learning && report.ballot == addition.ballot)
            && heard.silent_ms(addition.node) < limits.reconnect_ms
    };
    let mut learning: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut added = BTreeSet::new();
    for (&primary, tasks) in &plan.tasks {
        assert!(tasks.additions.len() <= limits.learners_per_node as usize);
        for addition in &tasks.additions {
            let in_force = state.configuration(addition.partition).unwrap();
            assert_eq!((in_force.primary, in_force.ballot), (Some(primary), addition.ballot));
            assert!(heard.is_alive(primary) && !in_force.contains(addition.node));
            assert!(heard.is_alive(addition.node) || half_way(addition), "never a dead node");
            assert!(in_force.members().count() < state.replica_count(addition.partition));
            assert!(added.insert(addition.partition), "one at a time: a partition never gets too many members");
            assert_eq!(plan.decisions[&addition.partition], Decision::Add { node: addition.node });
            *learning.entry(addition.node).or_default() += 1;
        }
    }
    assert!(learning.values().all(|&count| count <= limits.learners_per_node));
    for (&node, tasks) in &plan.tasks {
        for removal in &tasks.removals {
            let in_force = state.configuration(removal.partition).unwrap();
            assert!(!in_force.contains(node) && !added.contains(&removal.partition) && heard.is_alive(node));
            assert_eq!(in_force.ballot, removal.ballot);
            assert!(state.report(node, removal.partition).unwrap().ballot < removal.ballot);
            assert_eq!(in_force.members().count(), state.replica_count(removal.partition));
            assert!(in_force.members().all(|member| heard.is_alive(member)));
        }
    }
    for (partition, in_force) in state.partitions() {
        let short = in_force.members().count() < state.replica_count(partition);
        assert_eq!(plan.decisions.contains_key(&partition), short, "exactly the short ones get a decision");
        let asked = matches!(plan.decisions.get(&partition), Some(Decision::Add { .. }));
        assert_eq!(asked, added.contains(&partition));
    }
}

proptest! {
    #[test]
    fn no_plan_asks_for_what_must_not_be(
        replicas in 1u8..=5,
        changes in prop::collection::vec(change(), 0..40),
        copies in prop::collection::btree_map((1u64..=NODES, 0u32..8), (copy_state(), 0u64..3), 0..30),
        presences in prop::collection::btree_map(1u64..=NODES, presence(), 0..9),
        learners_per_node in 1u32..4,
    ) {
        let cluster = random_cluster(replicas, &changes, &copies);
        let heard: Heard = presences.into_iter().map(|(node, presence)| (NodeId(node), presence)).collect();
        let limits = Limits { learners_per_node, ..LIMITS };
        let found = plan(&cluster.state, &heard, &limits);
        check_plan(&cluster.state, &heard, &limits, &found);
        prop_assert_eq!(&plan(&cluster.state, &heard, &limits), &found, "the same again");
        // What goes through a snapshot is the same state, so it gets the same plan.
        let restored = State::decode(&cluster.state.encode()).unwrap();
        prop_assert_eq!(&plan(&restored, &heard, &limits), &found);
    }

    /// If all nodes live and every addition is carried out, every partition becomes whole, and then nothing is asked.
    #[test]
    fn what_is_asked_heals(
        replicas in 1u8..=5,
        changes in prop::collection::vec(change(), 0..40),
    ) {
        let mut cluster = random_cluster(replicas, &changes, &BTreeMap::new());
        let heard = alive(1..=NODES);
        let mut rounds = 0;
        loop {
            let found = plan(&cluster.state, &heard, &LIMITS);
            check_plan(&cluster.state, &heard, &LIMITS, &found);
            let asked = additions(&found);
            if asked.is_empty() {
                prop_assert!(found.decisions.is_empty(), "{:?}", found.decisions);
                break;
            }
            for (primary, index, node) in asked {
                let partition = PartitionId::new(1, index);
                let wanted = [cluster.members(partition), vec![node]].concat();
                let outcome = cluster.propose(partition, primary, &wanted);
                let accepted = matches!(outcome, pegasus_meta::core::Outcome::Accepted { .. });
                prop_assert!(accepted, "{:?}", outcome);
            }
            rounds += 1;
            prop_assert!(rounds < 100);
        }
    }
}

#[test]
fn the_properties_see_every_kind_of_plan() {
    // Guards the generators above: were all plans empty, the properties would say little.
    let changes: Vec<_> = (0..8).map(|index| (index, 2, 9)).collect();
    let copies = (0..8u32).map(|index| ((u64::from(index) + 1, index), (Whole, 1))).collect();
    let cluster = random_cluster(3, &changes, &copies);
    let found = plan(&cluster.state, &alive(1..=NODES), &LIMITS);
    assert!(!additions(&found).is_empty());
    let changes: Vec<_> = (0..8).flat_map(|index| [(index, 6, 8), (index, 0, 7), (index, 0, 6)]).collect();
    let cluster = random_cluster(3, &changes, &BTreeMap::from([((1, 7), (Learning, 1)), ((5, 1), (Whole, 1))]));
    let found = plan(&cluster.state, &alive(1..=NODES), &LIMITS);
    assert!(found.tasks.values().any(|tasks| !tasks.removals.is_empty()), "{found:?}");
}
