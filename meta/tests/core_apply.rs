//! The core, command by command, with exact outcomes.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::collections::BTreeSet;

use cluster::{CLUSTER, addresses, alive};
use pegasus_meta::core::limits::{NODES_MAX, PARTITIONS_MAX};
use pegasus_meta::core::{
    Command, CreateTable, NodeAddresses, Outcome, Propose, Refusal, RegisterNode, Report, State, Tasks, apply, query,
};
use pegasus_wire::limits::FRAME_BYTES_MAX;
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Decree, Durability, FrameBuilder, FrameHeader, MessageKind, NodeId, PartitionId,
    Status, TableId,
};

fn founded() -> State {
    let mut state = State::default();
    assert_eq!(apply(&mut state, Command::FoundCluster { cluster: CLUSTER }), Outcome::Founded { cluster: CLUSTER });
    state
}

/// A cluster with nodes 1 to `count`, two cores each, on ports 1000, 1010, ...
fn with_nodes(count: u64) -> State {
    let mut state = founded();
    for id in 1..=count {
        let outcome = apply(&mut state, Command::RegisterNode(registration(id)));
        assert_eq!(outcome, Outcome::Registered { cluster: CLUSTER, displaced: vec![] });
    }
    state
}

fn registration(id: u64) -> RegisterNode {
    cluster::registration(id, &[])
}

fn live(nodes: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
    nodes.into_iter().map(NodeId).collect()
}

fn table(name: &str, partition_count: u32, replica_count: u8) -> CreateTable {
    CreateTable {
        name: name.to_owned(),
        partition_count,
        replica_count,
        durability: Durability::Synced,
        if_not_exists: false,
        live: live(1..=3),
    }
}

fn create(state: &mut State, command: CreateTable) -> Outcome {
    apply(state, Command::CreateTable(command))
}

fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn nothing_works_before_the_cluster_is_founded() {
    let mut state = State::default();
    assert_eq!(refusal(apply(&mut state, Command::RegisterNode(registration(1)))), Refusal::NotFounded);
    assert_eq!(refusal(create(&mut state, table("t", 8, 1))), Refusal::NotFounded);
    assert_eq!(state, State::default());
    assert!(query::cluster_reply(&state, vec![], &alive([])).is_none());
}

#[test]
fn a_cluster_keeps_its_first_name() {
    let mut state = founded();
    let outcome = apply(&mut state, Command::FoundCluster { cluster: ClusterId(1) });
    assert_eq!(outcome, Outcome::Founded { cluster: CLUSTER });
    assert_eq!((state.cluster(), state.revision()), (Some(CLUSTER), 1));
}

#[test]
fn registering_again_without_news_wakes_nobody() {
    let mut state = with_nodes(2);
    let revision = state.revision();
    apply(&mut state, Command::RegisterNode(registration(1)));
    assert_eq!(state.revision(), revision);
    let mut moved = registration(1);
    moved.addresses.cores = 3;
    apply(&mut state, Command::RegisterNode(moved));
    assert_eq!(state.revision(), revision + 1);
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    let mut state = founded();
    let mut command = registration(1);
    command.cluster = Some(ClusterId(5));
    let refused = refusal(apply(&mut state, Command::RegisterNode(command.clone())));
    assert_eq!(refused, Refusal::WrongCluster { ours: CLUSTER, theirs: ClusterId(5) });
    assert_eq!(refused.status(), Status::WrongCluster);
    command.cluster = None;
    assert!(matches!(apply(&mut state, Command::RegisterNode(command)), Outcome::Registered { .. }));
}

#[test]
fn impossible_addresses_are_refused() {
    let mut state = founded();
    let cases = [
        (addresses(1000, 0), "1 to 512 cores"),
        (addresses(1000, 513), "1 to 512 cores"),
        (addresses(0, 1), "reach"),
        (NodeAddresses { address: ([0, 0, 0, 0], 1000).into(), ..addresses(1000, 1) }, "reach"),
        (addresses(65535, 2), "pass port 65535"),
    ];
    for (addresses, expected) in cases {
        let command = RegisterNode { addresses, ..registration(1) };
        let refused = refusal(apply(&mut state, Command::RegisterNode(command)));
        assert_eq!(refused.status(), Status::InvalidArgument);
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    let last_port = RegisterNode { addresses: addresses(65534, 2), ..registration(1) };
    assert!(matches!(apply(&mut state, Command::RegisterNode(last_port)), Outcome::Registered { .. }));
    assert_eq!(state.nodes().len(), 1);
}

#[test]
fn the_later_node_on_an_address_wins() {
    let mut state = with_nodes(3);
    create(&mut state, table("t", 4, 2));
    // Ports 1001 to 1002 overlap those of node 1 (1000 to 1001) only.
    let newcomer = RegisterNode { addresses: addresses(1001, 2), ..registration(9) };
    let outcome = apply(&mut state, Command::RegisterNode(newcomer));
    assert_eq!(outcome, Outcome::Registered { cluster: CLUSTER, displaced: vec![NodeId(1)] });
    assert_eq!(state.nodes()[&NodeId(1)].addresses, None, "a member is kept, without an address");
    let shown = query::assignments(&state, NodeId(2), &alive(1..=9), &Tasks::default());
    assert_eq!(shown.nodes.iter().map(|info| info.node).collect::<Vec<_>>(), [NodeId(2), NodeId(3), NodeId(9)]);
    let cluster = query::cluster_reply(&state, vec![], &alive(1..=9)).unwrap();
    assert_eq!(cluster.nodes[0].info.address.to_string(), "0.0.0.0:0");
    assert!(!cluster.nodes[0].info.alive);

    // Node 9 holds nothing: losing its address again, it is forgotten, and node 1 is back.
    let outcome = apply(&mut state, Command::RegisterNode(registration(1)));
    assert_eq!(outcome, Outcome::Registered { cluster: CLUSTER, displaced: vec![NodeId(9)] });
    assert!(!state.nodes().contains_key(&NodeId(9)));
    assert_eq!(state.nodes()[&NodeId(1)].addresses, Some(addresses(1000, 2)));
}

#[test]
fn a_copy_from_the_future_is_refused() {
    let mut state = with_nodes(3);
    create(&mut state, table("t", 4, 3));
    let report =
        |partition, ballot| Report { partition, ballot: Ballot(ballot), state: ReplicaState::Whole, last: Decree(0) };
    let cases = [(PartitionId::new(1, 3), 2, 1), (PartitionId::new(1, 4), 1, 0), (PartitionId::new(2, 0), 1, 0)];
    for (partition, reported, known) in cases {
        let command = RegisterNode { reports: vec![report(partition, reported)], ..registration(1) };
        let refused = refusal(apply(&mut state, Command::RegisterNode(command)));
        assert_eq!(refused, Refusal::NewerBallot { partition, reported: Ballot(reported), known: Ballot(known) });
        assert!(refused.to_string().contains("lost state"), "{refused}");
    }
    let fitting = RegisterNode { reports: vec![report(PartitionId::new(1, 3), 1)], ..registration(1) };
    assert!(matches!(apply(&mut state, Command::RegisterNode(fitting)), Outcome::Registered { .. }));
    let twice = RegisterNode { reports: vec![report(PartitionId::new(1, 3), 1); 2], ..registration(1) };
    let refused = refusal(apply(&mut state, Command::RegisterNode(twice)));
    assert_eq!(refused, Refusal::InvalidRegistration("partition 1.3 is reported twice".to_owned()));
}

#[test]
fn nodes_are_bounded() {
    let mut state = founded();
    for id in 0..=NODES_MAX as u64 {
        let node = NodeAddresses { address: ([10, 1, (id / 256) as u8, id as u8], 1).into(), ..addresses(1, 1) };
        let command = RegisterNode { addresses: node, ..registration(id) };
        let outcome = apply(&mut state, Command::RegisterNode(command));
        if id == NODES_MAX as u64 {
            assert_eq!(outcome, Outcome::Refused(Refusal::TooManyNodes));
        } else {
            assert!(matches!(outcome, Outcome::Registered { .. }), "{id}: {outcome:?}");
        }
    }
}

#[test]
fn tables_are_created_once() {
    let mut state = with_nodes(3);
    let revision = state.revision();
    assert_eq!(create(&mut state, table("temp", 8, 3)), Outcome::TableReady { table: TableId(1), created: true });
    assert_eq!(create(&mut state, table("stat", 4, 3)), Outcome::TableReady { table: TableId(2), created: true });
    assert_eq!(state.revision(), revision + 2);

    let exists = Refusal::TableExists {
        name: "temp".to_owned(),
        partition_count: 8,
        replica_count: 3,
        durability: Durability::Synced,
    };
    assert_eq!(refusal(create(&mut state, table("temp", 8, 3))), exists);
    let same = CreateTable { if_not_exists: true, live: live([]), ..table("temp", 8, 3) };
    assert_eq!(create(&mut state, same), Outcome::TableReady { table: TableId(1), created: false });
    let others = [
        CreateTable { if_not_exists: true, ..table("temp", 16, 3) },
        CreateTable { if_not_exists: true, ..table("temp", 8, 2) },
        CreateTable { if_not_exists: true, durability: Durability::Written, ..table("temp", 8, 3) },
    ];
    for other in others {
        assert_eq!(refusal(create(&mut state, other)), exists);
    }
    assert_eq!(state.revision(), revision + 2);
}

#[test]
fn invalid_tables_are_refused() {
    let mut state = with_nodes(3);
    let cases = [
        (table("", 8, 3), "a table name has"),
        (table("a b", 8, 3), "a table name has"),
        (table("t", 0, 3), "power of two from 1 to 4096"),
        (table("t", 6, 3), "power of two from 1 to 4096"),
        (table("t", 8192, 3), "power of two from 1 to 4096"),
        (table("t", 8, 0), "1 to 5 replicas"),
        (table("t", 8, 6), "1 to 5 replicas"),
    ];
    let before = state.clone();
    for (command, expected) in cases {
        let refused = refusal(create(&mut state, command));
        assert_eq!(refused.status(), Status::InvalidArgument);
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    assert_eq!(state, before);
}

#[test]
fn too_few_live_nodes_are_counted() {
    let mut state = with_nodes(3);
    // Node 8 is alive but not registered; node 3 is registered but not alive.
    let command = CreateTable { live: live([1, 2, 8]), ..table("t", 8, 3) };
    let refused = refusal(create(&mut state, command));
    assert_eq!(refused, Refusal::NotEnoughNodes { wanted: 3, live: 2 });
    assert_eq!(refused.status(), Status::NotEnoughNodes);
    assert!(refused.to_string().contains("3 live storage nodes, there are 2"), "{refused}");
}

#[test]
fn partitions_are_bounded() {
    let mut state = with_nodes(3);
    for number in 0..4 {
        let outcome = create(&mut state, table(&format!("t{number}"), PARTITIONS_MAX / 4, 1));
        assert_eq!(outcome, Outcome::TableReady { table: TableId(number + 1), created: true });
    }
    let refused = refusal(create(&mut state, table("more", 1, 1)));
    assert_eq!(refused, Refusal::TooManyPartitions { wanted: 1, existing: PARTITIONS_MAX, dropped: 0 });
    assert_eq!(refused.status(), Status::TooLarge);
}

fn proposal(state: &State, partition: PartitionId) -> Propose {
    let in_force = state.configuration(partition).unwrap();
    Propose {
        partition,
        proposer: in_force.primary.unwrap(),
        expected_ballot: in_force.ballot,
        configuration: Configuration { ballot: in_force.ballot.next(), ..in_force.clone() },
    }
}

#[test]
fn the_primary_raises_the_ballot() {
    let mut state = with_nodes(3);
    create(&mut state, table("t", 4, 3));
    let partition = PartitionId::new(1, 2);
    let revision = state.revision();
    let mut command = proposal(&state, partition);
    command.configuration.secondaries.reverse();
    let in_force = state.configuration(partition).unwrap().clone();
    let expected = Outcome::Accepted { configuration: Configuration { ballot: Ballot(2), ..in_force } };
    assert_eq!(apply(&mut state, Command::Propose(command.clone())), expected);
    assert_eq!(state.revision(), revision + 1);
    // A lost answer is asked for again.
    assert_eq!(apply(&mut state, Command::Propose(command.clone())), expected);
    assert_eq!((state.revision(), state.ballot(partition)), (revision + 1, Ballot(2)));
    assert_eq!(state.ballot(PartitionId::new(1, 1)), Ballot(1), "other partitions are left alone");

    let second = proposal(&state, partition);
    apply(&mut state, Command::Propose(second));
    let in_force = state.configuration(partition).unwrap().clone();
    assert_eq!(in_force.ballot, Ballot(3));
    assert_eq!(
        apply(&mut state, Command::Propose(command)),
        Outcome::Conflict { configuration: in_force },
        "the old proposal is not in force any more"
    );
}

#[test]
fn a_stale_proposal_learns_the_configuration_in_force() {
    let mut state = with_nodes(3);
    create(&mut state, table("t", 1, 3));
    let partition = PartitionId::new(1, 0);
    let in_force = state.configuration(partition).unwrap().clone();
    let mut ahead = proposal(&state, partition);
    ahead.expected_ballot = Ballot(7);
    ahead.configuration.ballot = Ballot(8);
    let before = state.clone();
    assert_eq!(apply(&mut state, Command::Propose(ahead)), Outcome::Conflict { configuration: in_force });
    assert_eq!(state, before);
}

#[test]
fn proposals_with_other_ballots_are_refused() {
    let mut state = with_nodes(4);
    create(&mut state, table("t", 1, 3));
    let good = proposal(&state, PartitionId::new(1, 0));
    let before = state.clone();
    for (expected, wanted) in [(1, 3), (1, 1), (1, 0), (u64::MAX, 0), (u64::MAX, u64::MAX), (0, 2)] {
        let mut command = good.clone();
        command.expected_ballot = Ballot(expected);
        command.configuration.ballot = Ballot(wanted);
        let refused = refusal(apply(&mut state, Command::Propose(command)));
        assert_eq!(refused.status(), Status::InvalidArgument, "{expected}, {wanted}: {refused}");
        assert!(refused.to_string().contains("does not follow"), "{refused}");
    }
    assert_eq!(state, before);
}

#[test]
fn health_counts_live_and_undamaged_members() {
    let mut state = with_nodes(3);
    create(&mut state, table("t", 4, 3));
    // Reports come in any order.
    let report = |index| Report {
        partition: PartitionId::new(1, index),
        ballot: Ballot(1),
        state: if index == 3 { ReplicaState::Damaged } else { ReplicaState::Whole },
        last: Decree(0),
    };
    apply(
        &mut state,
        Command::RegisterNode(RegisterNode { reports: [3, 2, 1, 0].map(report).to_vec(), ..registration(2) }),
    );

    let meta = vec![([127, 0, 0, 1], 34601).into()];
    let cluster = query::cluster_reply(&state, meta.clone(), &alive(1..=3)).unwrap();
    assert_eq!((cluster.cluster, cluster.meta_addresses), (CLUSTER, meta.clone()));
    assert_eq!((cluster.tables[0].healthy_partitions, cluster.tables[0].partition_count), (3, 4));
    assert_eq!(cluster.nodes.iter().map(|node| node.damaged).collect::<Vec<_>>(), [0, 1, 0]);
    assert_eq!(cluster.nodes.iter().map(|node| node.primaries).sum::<u32>(), 4);
    assert_eq!(cluster.nodes.iter().map(|node| node.secondaries).sum::<u32>(), 8);

    let cluster = query::cluster_reply(&state, meta, &alive([1, 2])).unwrap();
    assert_eq!(cluster.tables[0].healthy_partitions, 0);
    assert_eq!(cluster.nodes.iter().map(|node| node.info.alive).collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn a_watch_shows_only_what_the_node_holds() {
    let mut state = with_nodes(3);
    create(&mut state, CreateTable { live: live([1, 2]), ..table("pair", 4, 2) });
    create(&mut state, CreateTable { live: live([3]), ..table("single", 2, 1) });
    let first = query::assignments(&state, NodeId(1), &alive([]), &Tasks::default());
    assert_eq!(first.revision, query::watch_number(&state, &Tasks::default()));
    assert_eq!(first.tables, [state.table_named("pair").unwrap().description()]);
    assert_eq!(first.partitions.len(), 4);
    let third = query::assignments(&state, NodeId(3), &alive([]), &Tasks::default());
    assert_eq!(third.tables, [state.table_named("single").unwrap().description()]);
    assert_eq!(third.partitions.len(), 2);
    let stranger = query::assignments(&state, NodeId(99), &alive([]), &Tasks::default());
    assert_eq!((stranger.partitions.len(), stranger.nodes.len()), (0, 3));

    let reply = query::table_reply(&state, state.table_named("single").unwrap(), &alive([3]));
    assert_eq!(reply.nodes.iter().map(|info| (info.node, info.alive)).collect::<Vec<_>>(), [(NodeId(3), true)]);
    assert_eq!(query::table_list(&state).tables.len(), 2);
}

#[test]
fn the_largest_answer_fits_into_a_frame() {
    let mut state = founded();
    for id in 0..NODES_MAX as u64 {
        let node = NodeAddresses { address: ([10, 1, (id / 256) as u8, id as u8], 1).into(), ..addresses(1, 1) };
        apply(&mut state, Command::RegisterNode(RegisterNode { addresses: node, ..registration(id) }));
    }
    // Few tables with all partitions, each with as many members as there may be, all on the same nodes.
    for number in 0..4 {
        let name = format!("{number}{}", "x".repeat(127));
        let command = CreateTable { live: live(0..5), ..table(&name, PARTITIONS_MAX / 4, 5) };
        assert!(matches!(create(&mut state, command), Outcome::TableReady { .. }));
    }
    let everything = query::assignments(&state, NodeId(0), &alive([]), &Tasks::default());
    assert_eq!(everything.partitions.len(), PARTITIONS_MAX as usize);
    let header = FrameHeader::answer(MessageKind::WATCH_ASSIGNMENTS, 1, Status::Ok);
    let mut frame = Vec::new();
    FrameBuilder::append(&mut frame, header, &everything, &[]);
    assert!(frame.len() < FRAME_BYTES_MAX / 2, "{} bytes leave room for a thousand tables", frame.len());
}
