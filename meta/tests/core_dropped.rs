//! The guardian, placement and diagnosis with tables that were dropped or purged.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::collections::BTreeMap;

use cluster::{Cluster, alive, heard};
use pegasus_meta::core::limits::PURGED_REMOVALS_MAX;
use pegasus_meta::core::{Decision, HealthCounts, Heard, Limits, Plan, Refusal, Wait, diagnose, health_counts, plan};
use pegasus_wire::messages::control::Removal;
use pegasus_wire::messages::control::ReplicaState::{Damaged, Learning, Missing, Uncertain, Whole};
use pegasus_wire::{Ballot, NodeId, PartitionId, TableId};

const LIMITS: Limits = Limits { return_time_ms: 10_000, learners_per_node: 4, reconnect_ms: 1_000 };

fn planned(cluster: &Cluster, heard: &Heard) -> Plan {
    plan(&cluster.state, heard, &LIMITS)
}

/// (table, index, learner) of every addition.
fn additions(plan: &Plan) -> Vec<(u32, u32, u64)> {
    let asked = plan.tasks.values().flat_map(|tasks| &tasks.additions);
    asked.map(|one| (one.partition.table.0, one.partition.index, one.node.0)).collect()
}

fn removals(plan: &Plan, node: u64) -> Vec<Removal> {
    plan.tasks.get(&NodeId(node)).map(|tasks| tasks.removals.clone()).unwrap_or_default()
}

#[test]
fn a_dropped_table_is_healed() {
    let (mut cluster, partition) = Cluster::with_partition(4, 3);
    cluster.drop_table("t");
    cluster.accept(partition, 1, &[1, 2]);
    let found = planned(&cluster, &alive([1, 2, 4]));
    assert_eq!(found.decisions, BTreeMap::from([(partition, Decision::Add { node: NodeId(4) })]));
    assert_eq!(additions(&found), [(1, 0, 4)]);
    // And what it does not need any more goes, as ever.
    cluster.accept(partition, 1, &[1, 2, 4]);
    cluster.report(3, &[(partition, 1, Whole, 3)]);
    assert_eq!(removals(&planned(&cluster, &alive(1..=4)), 3), [Removal { partition, ballot: Ballot(3) }]);
}

#[test]
fn what_serves_is_healed_before_what_was_dropped() {
    let mut cluster = Cluster::new(4);
    for (table, name) in [(1, "a"), (2, "b")] {
        cluster.create(name, 4, 2, 1..=2);
        for index in 0..4 {
            let partition = PartitionId::new(table, index);
            let primary = cluster.members(partition)[0];
            cluster.accept(partition, primary, &[primary]);
        }
    }
    // Node 4 holds nothing: the first four partitions that are looked at are given to it.
    let first_four = |cluster: &Cluster| -> Vec<u32> {
        let asked = additions(&planned(cluster, &alive([1, 2, 4])));
        assert_eq!(asked.len(), 8);
        asked.iter().filter(|one| one.2 == 4).map(|&(table, ..)| table).collect()
    };
    assert_eq!(first_four(&cluster), [1; 4]);
    cluster.drop_table("a");
    assert_eq!(first_four(&cluster), [2; 4]);
    // One that is being taught keeps its turn.
    let taught = PartitionId::new(1, 2);
    cluster.report(4, &[(taught, cluster.state.ballot(taught).0, Learning, 0)]);
    let mut tables = first_four(&cluster);
    tables.sort_unstable();
    assert_eq!(tables, [1, 2, 2, 2]);
    cluster.recall(TableId(1));
    assert_eq!(first_four(&cluster), [1; 4]);
}

#[test]
fn a_dropped_table_is_in_no_haste() {
    let (mut cluster, partition) = Cluster::with_partition(5, 3);
    cluster.accept(partition, 1, &[1]);
    let silent = [(2, 2_000), (3, 3_000)];
    let decided = |cluster: &Cluster| planned(cluster, &heard([1, 5], &silent)).decisions[&partition];
    assert_eq!(decided(&cluster), Decision::Add { node: NodeId(5) }, "it cannot take writes");
    cluster.drop_table("t");
    let wait = Wait::Return { node: NodeId(3), left_ms: 7_000 };
    assert_eq!(decided(&cluster), Decision::Wait(wait), "nobody wants to write");
    cluster.recall(TableId(1));
    assert_eq!(decided(&cluster), Decision::Add { node: NodeId(5) });
}

#[test]
fn copies_of_a_purged_table_go_wherever_they_are() {
    let (mut cluster, partition) = Cluster::with_partition(4, 3);
    let other = PartitionId::new(1, 7);
    cluster.create("kept", 1, 1, [1]);
    let kept = PartitionId::new(2, 0);
    cluster.report(1, &[(partition, 1, Whole, 3), (kept, 1, Whole, 3)]);
    cluster.report(2, &[(partition, 1, Damaged, 3)]);
    cluster.report(3, &[(partition, 0, Missing, 0)]);
    cluster.drop_table("t");
    assert_eq!(planned(&cluster, &alive(1..=4)), Plan::default(), "held");
    cluster.purge(TableId(1));
    // One that was away comes back, under a ballot that this service no longer knows.
    cluster.report(4, &[(partition, 9, Uncertain, 3), (other, 2, Learning, 3)]);

    let gone = |partition| Removal { partition, ballot: Ballot(u64::MAX) };
    let found = planned(&cluster, &alive(1..=4));
    assert_eq!(removals(&found, 1), [gone(partition)]);
    assert_eq!(removals(&found, 2), [gone(partition)]);
    assert_eq!(removals(&found, 3), [], "it holds none");
    assert_eq!(removals(&found, 4), [gone(partition), gone(other)]);
    assert!(found.decisions.is_empty());
    assert_eq!(removals(&planned(&cluster, &alive([1, 3])), 4), [], "who is not there is told nothing");
    // Done: they register without.
    cluster.report(1, &[(kept, 1, Whole, 3)]);
    cluster.report(2, &[]);
    cluster.report(4, &[(other, 2, Learning, 3)]);
    let found = planned(&cluster, &alive(1..=4));
    assert_eq!(found.tasks.keys().copied().collect::<Vec<_>>(), [NodeId(4)]);
}

#[test]
fn removals_of_purged_tables_are_bounded() {
    let mut cluster = Cluster::new(1);
    cluster.create("t", 4096, 1, [1]);
    cluster.drop_table("t");
    cluster.purge(TableId(1));
    let copies: Vec<_> = (0..4096).map(|index| (PartitionId::new(1, index), 2, Whole, 0)).collect();
    let mut rounds = 0;
    let mut left = copies;
    while !left.is_empty() {
        cluster.report(1, &left);
        let asked = removals(&planned(&cluster, &alive([1])), 1);
        assert_eq!(asked.len(), left.len().min(PURGED_REMOVALS_MAX));
        left.retain(|copy| !asked.iter().any(|one| one.partition == copy.0));
        rounds += 1;
    }
    assert_eq!(rounds, 4096 / PURGED_REMOVALS_MAX);
}

#[test]
fn copies_of_dropped_tables_take_room_but_lead_nothing() {
    let mut cluster = Cluster::new(3);
    // Node 1 is primary of eight partitions, node 2 of four.
    cluster.create("many", 8, 1, [1]);
    cluster.create("some", 4, 1, [2]);
    let primary_of_next = |cluster: &Cluster| {
        let mut cluster = Cluster { state: cluster.state.clone() };
        cluster.create("next", 1, 1, [1, 2]);
        cluster.members(PartitionId::new(3, 0))[0]
    };
    assert_eq!(primary_of_next(&cluster), 2);
    cluster.drop_table("many");
    assert_eq!(primary_of_next(&cluster), 1, "it leads nothing now");
    // For a learner, what counts is how much is there.
    let mut cluster = Cluster::new(4);
    cluster.create("t", 1, 2, [3, 4]);
    cluster.create("many", 2, 1, [1]);
    cluster.create("some", 1, 1, [2]);
    let partition = PartitionId::new(1, 0);
    let (primary, other) = (cluster.members(partition)[0], cluster.members(partition)[1]);
    cluster.accept(partition, primary, &[primary]);
    let learner = |cluster: &Cluster| additions(&planned(cluster, &alive([1, 2, primary])));
    assert_eq!(learner(&cluster), [(1, 0, 2)], "{other} is away");
    cluster.drop_table("many");
    assert_eq!(learner(&cluster), [(1, 0, 2)]);
    cluster.purge(TableId(2));
    assert_eq!(learner(&cluster), [(1, 0, 1)]);
}

#[test]
fn a_dropped_table_is_nobody_s_worry() {
    let mut cluster = Cluster::new(3);
    cluster.create("t", 4, 3, 1..=3);
    cluster.create("u", 1, 1, [1]);
    let heard = alive([1, 2]);
    assert_eq!(health_counts(&cluster.state, &heard), HealthCounts { healthy: 1, degraded: 4, unavailable: 0 });
    cluster.drop_table("t");
    assert_eq!(health_counts(&cluster.state, &heard), HealthCounts { healthy: 1, degraded: 0, unavailable: 0 });
    let all = diagnose(&cluster.state, &heard, &LIMITS, None).unwrap();
    assert_eq!((all.examined, all.partitions), (1, vec![]));
    let refused = diagnose(&cluster.state, &heard, &LIMITS, Some("t")).unwrap_err();
    assert!(matches!(refused, Refusal::NoSuchTable { dropped: Some(_), .. }), "{refused}");
    cluster.recall(TableId(1));
    assert_eq!(diagnose(&cluster.state, &heard, &LIMITS, Some("t")).unwrap().partitions.len(), 4);
}
