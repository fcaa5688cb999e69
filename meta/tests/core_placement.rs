//! Properties of the first assignment.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use pegasus_meta::core::{Candidate, place};
use pegasus_wire::{Ballot, Configuration, NodeId, PartitionId, TableId, owner_core};
use proptest::prelude::*;

fn candidates(count: u64, cores: u16) -> Vec<Candidate> {
    (1..=count).map(|id| Candidate::new(NodeId(id), cores)).collect()
}

/// Largest minus smallest count over `keys`, counting `items`.
fn spread<K: Ord + Copy>(keys: impl IntoIterator<Item = K>, items: impl IntoIterator<Item = K>) -> u32 {
    let mut counts: BTreeMap<K, u32> = keys.into_iter().map(|key| (key, 0)).collect();
    for item in items {
        *counts.get_mut(&item).unwrap() += 1;
    }
    counts.values().max().unwrap() - counts.values().min().unwrap()
}

fn check(nodes: u64, replicas: u8, placed: &[Configuration]) {
    for configuration in placed {
        let members: BTreeSet<NodeId> = configuration.members().collect();
        assert_eq!(configuration.ballot, Ballot::ASSIGNMENT);
        assert_eq!(members.len(), usize::from(replicas), "members are distinct: {configuration:?}");
        assert!(members.iter().all(|id| (1..=nodes).contains(&id.0)));
    }
    let ids = || (1..=nodes).map(NodeId);
    let primaries = spread(ids(), placed.iter().map(|configuration| configuration.primary.unwrap()));
    let secondaries = spread(ids(), placed.iter().flat_map(|configuration| configuration.secondaries.clone()));
    assert!(primaries <= 1 && secondaries <= 1, "{nodes} nodes, {replicas} replicas: {placed:?}");
}

#[test]
fn small_tables_are_balanced_whatever_the_counts() {
    for nodes in 1..=9 {
        for replicas in 1..=5u8.min(nodes as u8) {
            for power in 0..=6 {
                for cores in [1, 2, 3, 8] {
                    let placed = place(TableId(1), 1 << power, replicas, candidates(nodes, cores));
                    assert_eq!(placed.len(), 1 << power);
                    check(nodes, replicas, &placed);
                }
            }
        }
    }
}

#[test]
fn the_cores_of_the_nodes_share_the_primaries() {
    for (nodes, cores, partitions) in [(3, 2, 8), (2, 2, 8), (3, 1, 8), (4, 4, 64), (3, 3, 64), (5, 8, 128)] {
        let placed = place(TableId(1), partitions, 2, candidates(nodes, cores));
        let keys = (1..=nodes).flat_map(|id| (0..cores).map(move |core| (NodeId(id), core)));
        let primaries = (0u32..).zip(&placed).map(|(index, configuration)| {
            (configuration.primary.unwrap(), owner_core(PartitionId::new(1, index), cores))
        });
        let spread = spread(keys, primaries);
        assert!(spread <= 2, "{nodes} nodes, {cores} cores, {partitions} partitions: spread {spread}");
    }
}

#[test]
fn later_tables_go_where_there_is_less() {
    let mut loaded = candidates(3, 1);
    for index in 0..6 {
        loaded[0].add_primary(PartitionId::new(1, index));
        loaded[1].add_secondary(PartitionId::new(1, index));
    }
    let placed = place(TableId(2), 1, 1, loaded);
    assert_eq!(placed[0].primary, Some(NodeId(3)));
}

#[test]
fn the_tables_of_onebox() {
    let primaries = |placed: &[Configuration]| placed.iter().map(|one| one.primary.unwrap().0).collect::<Vec<_>>();
    let temp = place(TableId(1), 8, 3, candidates(3, 1));
    assert_eq!(primaries(&temp), [1, 2, 3, 1, 2, 3, 1, 2]);
    assert_eq!(temp[0].secondaries, [NodeId(2), NodeId(3)]);
}

proptest! {
    #[test]
    fn any_table_is_balanced_and_the_same_again(
        nodes in 1u64..30,
        replicas in 1u8..=5,
        power in 0u32..=9,
        cores in 1u16..20,
        load in prop::collection::vec((0u64..30, 0u32..50), 0..60),
    ) {
        prop_assume!(nodes >= u64::from(replicas));
        let make = || {
            let mut made = candidates(nodes, cores);
            for (node, index) in &load {
                let candidate = &mut made[(node % nodes) as usize];
                if index % 3 == 0 {
                    candidate.add_primary(PartitionId::new(1, *index));
                } else {
                    candidate.add_secondary(PartitionId::new(1, *index));
                }
            }
            made
        };
        let placed = place(TableId(7), 1 << power, replicas, make());
        check(nodes, replicas, &placed);
        prop_assert_eq!(place(TableId(7), 1 << power, replicas, make()), placed);
    }
}
