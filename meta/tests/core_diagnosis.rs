//! What people are told about partitions that are not whole.
#![allow(clippy::unwrap_used)]

mod cluster;

use cluster::{Cluster, addresses, alive, heard};
use pegasus_meta::core::limits::{NODES_MAX, PARTITIONS_MAX};
use pegasus_meta::core::{Command, Heard, Limits, Refusal, RegisterNode, apply, diagnose, health_counts};
use pegasus_wire::limits::FRAME_BYTES_MAX;
use pegasus_wire::messages::control::PartitionDiagnosis;
use pegasus_wire::messages::control::ReplicaState::{self, Damaged, Learning, Missing, Uncertain, Whole};
use pegasus_wire::{FrameBuilder, FrameHeader, MessageKind, NodeId, PartitionId, Status};

const LIMITS: Limits = Limits { return_time_ms: 300_000, learners_per_node: 4, reconnect_ms: 3_000 };

/// The diagnosis of the only partition; checks that health and diagnosis agree.
fn look(cluster: &Cluster, heard: &Heard) -> Option<PartitionDiagnosis> {
    let mut found = diagnose(&cluster.state, heard, &LIMITS, None).unwrap();
    assert_eq!(found.examined, 1);
    let counts = health_counts(&cluster.state, heard);
    assert_eq!(counts.healthy == 1, found.partitions.is_empty());
    assert_eq!(counts.unavailable == 1, found.partitions.first().is_some_and(|one| one.unavailable));
    found.partitions.pop()
}

/// Checks that the text of one diagnosis holds every part.
fn says(found: &Option<PartitionDiagnosis>, unavailable: bool, problems: &[&str], waits_for: &[&str]) {
    let found = found.as_ref().expect("it is not whole");
    assert_eq!(found.unavailable, unavailable, "{found:?}");
    for part in problems {
        assert!(found.problems.iter().any(|problem| problem.contains(part)), "no {part:?} in {:?}", found.problems);
    }
    for part in waits_for {
        assert!(found.waits_for.contains(part), "no {part:?} in {:?}", found.waits_for);
    }
}

#[test]
fn a_whole_partition_is_not_mentioned() {
    let (mut cluster, partition) = Cluster::with_partition(4, 3);
    assert_eq!(look(&cluster, &alive(1..=3)), None);
    cluster.report(2, &[(partition, 1, Whole, 3)]);
    assert_eq!(look(&cluster, &alive(1..=3)), None);
    let refused = diagnose(&cluster.state, &alive([]), &LIMITS, Some("nope")).unwrap_err();
    assert_eq!(refused, Refusal::NoSuchTable { name: "nope".to_owned(), dropped: None });
    cluster.create("other", 4, 1, [4]);
    let all = diagnose(&cluster.state, &alive([]), &LIMITS, None).unwrap();
    assert_eq!((all.examined, all.partitions.len()), (5, 5));
    let one = diagnose(&cluster.state, &alive([]), &LIMITS, Some("other")).unwrap();
    assert_eq!((one.examined, one.partitions.len()), (4, 4));
    assert_eq!(one.partitions[3].partition, PartitionId::new(2, 3));
    assert_eq!((one.partitions[3].table.as_str(), one.partitions[3].replica_count), ("other", 1));
}

#[test]
fn a_member_that_is_down_is_named() {
    let (mut cluster, partition) = Cluster::with_partition(5, 3);
    let found = look(&cluster, &heard([1, 2], &[(3, 12_345)]));
    let down = "secondary node 0000000000000003 at 10.0.0.1:1020 is down: not heard of for 12 s";
    says(&found, false, &[down], &["the primary to remove node 0000000000000003"]);
    says(&look(&cluster, &alive([1, 2])), false, &["as long as this meta server runs"], &[]);
    says(&look(&cluster, &heard([1, 2], &[(3, 700)])), false, &["for 700 ms"], &[]);

    // The primary is down: a secondary takes over.
    let found = look(&cluster, &heard([2, 3], &[(1, 200_000)]));
    let problems = ["primary node 0000000000000001", "3 min 20 s", "no primary serves it"];
    says(
        &found,
        false,
        &problems,
        &["a takeover by node 0000000000000002", "or node 0000000000000003", "grace period"],
    );

    // It was removed: it has its time to return.
    cluster.accept(partition, 2, &[2, 3]);
    let found = look(&cluster, &heard([2, 3, 4], &[(1, 200_000)]));
    let waits = ["former member node 0000000000000001", "to return", "in 100 s"];
    says(&found, false, &["it has 2 of 3 members"], &waits);
    let found = look(&cluster, &heard([2, 3, 4], &[(1, 400_000)]));
    says(&found, false, &[], &["node 0000000000000004", "to begin learning"]);
    cluster.report(4, &[(partition, 2, Learning, 0)]);
    says(&look(&cluster, &heard([2, 3, 4], &[(1, 400_000)])), false, &[], &["to finish learning"]);
    says(&look(&cluster, &heard([2, 3], &[(1, 400_000)])), false, &[], &["another storage node"]);
}

#[test]
fn a_node_that_lost_its_address_is_down_for_good() {
    let (mut cluster, _) = Cluster::with_partition(3, 3);
    cluster.displace(3, 30);
    let found = look(&cluster, &alive([1, 2, 3, 30]));
    says(&found, false, &["secondary node 0000000000000003 lost its address to another node"], &["to remove"]);
}

#[test]
fn bad_copies_are_told_by_their_kind() {
    let cases = [
        (Damaged, "reported its copy as damaged"),
        (Missing, "reported its copy as missing"),
        (Learning, "reported its copy as learning"),
        (Uncertain, "reported its copy as uncertain"),
    ];
    for (state, text) in cases {
        let (mut cluster, partition) = Cluster::with_partition(4, 3);
        cluster.report(2, &[(partition, 1, state, 0)]);
        says(&look(&cluster, &alive(1..=4)), false, &[text], &["the primary to remove node 0000000000000002"]);
        // The primary: a secondary has to take over.
        cluster.report(1, &[(partition, 1, state, 0)]);
        let found = look(&cluster, &alive(1..=4));
        says(&found, false, &[text, "no primary serves it"], &["a takeover by node 0000000000000003"]);
        // All of them: no way out but by an operator, or by the newest of uncertain copies.
        cluster.report(3, &[(partition, 1, state, 7)]);
        let found = look(&cluster, &alive(1..=4));
        if state == Uncertain {
            says(&found, false, &[text], &["a takeover by node 0000000000000003"]);
        } else if state == Missing {
            says(&found, true, &[text], &["an operator", "no registered node has reported a copy"]);
        } else {
            says(&found, true, &[text], &["an operator", "to force one of node 0000000000000003", "last decree 7"]);
        }
    }
}

#[test]
fn all_members_down_is_for_them_or_an_operator() {
    let (mut cluster, partition) = Cluster::with_partition(4, 3);
    cluster.report(4, &[(partition, 1, Whole, 5)]);
    let found = look(&cluster, &heard([4], &[(1, 5_000)]));
    let waits = ["to return", "node 0000000000000002", "the last resort is to force one of node 0000000000000004"];
    says(&found, true, &["is down", "no primary serves it"], &waits);
    says(&found, true, &[], &["(whole, ballot 1, last decree 5), which loses what only others hold"]);
}

#[test]
fn uncertain_copies_wait_for_each_other() {
    let (mut cluster, partition) = Cluster::with_partition(3, 3);
    cluster.report(1, &[(partition, 1, Uncertain, 5)]);
    cluster.report(2, &[(partition, 1, Uncertain, 9)]);
    let found = look(&cluster, &alive([1, 2]));
    let waits = ["node 0000000000000003", "to return and to report", "written durability", "force one of"];
    says(&found, true, &["secondary node 0000000000000003", "uncertain"], &waits);
    let best = "force one of node 0000000000000002 at 10.0.0.1:1010 (uncertain, ballot 1, last decree 9)";
    says(&found, true, &[], &[best]);
    cluster.report(3, &[(partition, 1, Uncertain, 7)]);
    says(&look(&cluster, &alive(1..=3)), false, &[], &["a takeover by node 0000000000000002"]);
    says(&look(&cluster, &alive([1, 3])), true, &[], &["node 0000000000000002", "to return: every copy is uncertain"]);
    cluster.report(1, &[(partition, 1, Uncertain, 50)]);
    says(&look(&cluster, &alive(1..=3)), false, &["uncertain"], &["node 0000000000000001", "primary again"]);
    cluster.accept(partition, 1, &[1, 2, 3]);
    says(&look(&cluster, &alive(1..=3)), false, &["uncertain"], &["the primary to remove", "2", "and", "3"]);
}

#[test]
fn turns_and_limits_are_explained() {
    let mut cluster = Cluster::new(4);
    cluster.create("t", 8, 3, 1..=3);
    for index in 0..8 {
        let partition = PartitionId::new(1, index);
        let members = cluster.members(partition);
        cluster.accept(partition, members[0], &members[..2]);
    }
    let few = Limits { learners_per_node: 1, return_time_ms: 0, ..LIMITS };
    let found = diagnose(&cluster.state, &alive(1..=4), &few, None).unwrap();
    let waiting = found.partitions.iter().filter(|one| one.waits_for.contains("as many learners as it may have"));
    assert!(waiting.count() >= 4, "{found:?}");
}

#[test]
fn the_answer_fits_into_a_frame_and_says_how_far_it_came() {
    let mut cluster = Cluster::new(0);
    for node in 0..NODES_MAX as u64 {
        let mut place = addresses(1, 1);
        place.address = ([10, 1, (node / 256) as u8, node as u8], 65_000).into();
        let reports = Vec::new();
        let command = RegisterNode { cluster: None, node: NodeId(node), addresses: place, reports };
        apply(&mut cluster.state, Command::RegisterNode(command));
    }
    for number in 0..4 {
        let name = format!("{number}{}", "x".repeat(127));
        cluster.create(&name, PARTITIONS_MAX / 4, 5, 0..5);
    }
    let state: ReplicaState = Uncertain;
    for node in 0..5u64 {
        let copies: Vec<_> = cluster.state.partitions().map(|(partition, _)| (partition, 1, state, 9)).collect();
        let mut command = cluster::registration(0, &copies);
        command.node = NodeId(node);
        command.addresses = cluster.state.nodes()[&NodeId(node)].addresses.unwrap();
        command.cluster = None;
        apply(&mut cluster.state, Command::RegisterNode(command));
    }
    let found = diagnose(&cluster.state, &alive([]), &LIMITS, None).unwrap();
    assert!(found.examined < PARTITIONS_MAX && found.partitions.len() == found.examined as usize);
    let header = FrameHeader::answer(MessageKind::DIAGNOSE_PARTITIONS, 1, Status::Ok);
    let mut frame = Vec::new();
    FrameBuilder::append(&mut frame, header, &found, &[]);
    assert!(frame.len() < FRAME_BYTES_MAX, "{} bytes", frame.len());
    assert!(frame.len() > FRAME_BYTES_MAX / 3, "{} bytes are few", frame.len());
}
