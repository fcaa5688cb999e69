//! Any sequence of commands: invariants hold, a replay gives the same bytes, a snapshot gives the same state.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use pegasus_meta::core::{
    Command, CreateTable, DecodeError, NodeAddresses, Outcome, Propose, RegisterNode, Report, State, apply,
};
use pegasus_wire::{Ballot, ClusterId, Configuration, Durability, NodeId, PartitionId};
use proptest::prelude::*;

fn node_id() -> impl Strategy<Value = NodeId> {
    (1u64..6).prop_map(NodeId)
}

fn partition() -> impl Strategy<Value = PartitionId> {
    (1u32..4, 0u32..9).prop_map(|(table, index)| PartitionId::new(table, index))
}

fn register() -> impl Strategy<Value = Command> {
    let reports = prop::collection::vec((partition(), 1u64..4, any::<bool>()), 0..3);
    (node_id(), 1000u16..1012, 0u16..4, any::<bool>(), reports).prop_map(|(node, port, cores, known, reports)| {
        let report = |(partition, ballot, damaged)| Report { partition, ballot: Ballot(ballot), damaged };
        Command::RegisterNode(RegisterNode {
            cluster: known.then_some(ClusterId(1)),
            node,
            addresses: NodeAddresses {
                address: ([127, 0, 0, 1], port).into(),
                admin_address: ([127, 0, 0, 1], 9).into(),
                cores,
            },
            reports: reports.into_iter().map(report).collect(),
        })
    })
}

fn create() -> impl Strategy<Value = Command> {
    let live = prop::collection::btree_set(node_id(), 0..6);
    (0u8..4, 0u32..10, 0u8..7, any::<bool>(), live).prop_map(|(name, count, replica_count, if_not_exists, live)| {
        Command::CreateTable(CreateTable {
            name: format!("table{name}"),
            partition_count: count,
            replica_count,
            durability: Durability::Written,
            if_not_exists,
            live,
        })
    })
}

/// Proposals that are often right: the members are filled in from the state when `apply` is about to run.
#[derive(Clone, Debug)]
enum Step {
    Plain(Command),
    Propose { partition: PartitionId, ahead: u64, proposer: Option<NodeId> },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (1u64..3).prop_map(|id| Step::Plain(Command::FoundCluster { cluster: ClusterId(id) })),
        4 => register().prop_map(Step::Plain),
        3 => create().prop_map(Step::Plain),
        6 => (partition(), 0u64..3, prop::option::weighted(0.3, node_id()))
            .prop_map(|(partition, ahead, proposer)| Step::Propose { partition, ahead, proposer }),
    ]
}

fn command(state: &State, step: Step) -> Command {
    match step {
        Step::Plain(command) => command,
        Step::Propose { partition, ahead, proposer } => {
            let in_force = state.configuration(partition).cloned().unwrap_or_default();
            let expected_ballot = Ballot((in_force.ballot.0 + ahead).saturating_sub(1));
            let proposer = proposer.or(in_force.primary).unwrap_or(NodeId(1));
            let configuration = Configuration { ballot: expected_ballot.next(), ..in_force };
            Command::Propose(Propose { partition, proposer, expected_ballot, configuration })
        }
    }
}

fn check_invariants(state: &State) {
    for table in state.tables().values() {
        assert_eq!(table.partitions.len() as u32, table.properties.partition_count);
        for configuration in &table.partitions {
            let members: BTreeSet<NodeId> = configuration.members().collect();
            assert_eq!(members.len(), usize::from(table.properties.replica_count));
            assert!(members.iter().all(|id| state.nodes().contains_key(id)), "every member is known");
        }
    }
    let placed: Vec<NodeAddresses> = state.nodes().values().filter_map(|node| node.addresses).collect();
    for (index, one) in placed.iter().enumerate() {
        assert!(placed[index + 1..].iter().all(|other| !one.overlap(other)), "{placed:?}");
    }
}

fn check_step(before: &State, after: &State, command: &Command, outcome: &Outcome) {
    if let Outcome::Refused(_) | Outcome::Conflict { .. } = outcome {
        assert_eq!(before, after, "a refusal changes nothing");
    }
    assert!(after.revision() >= before.revision());
    for (partition, configuration) in before.partitions() {
        let now = after.configuration(partition).expect("partitions never go away");
        if now == configuration {
            continue;
        }
        assert_eq!(now.ballot, configuration.ballot.next(), "one ballot at a time");
        assert_eq!((&now.primary, &now.secondaries), (&configuration.primary, &configuration.secondaries));
        let Command::Propose(propose) = command else { panic!("only a proposal changes a configuration") };
        assert_eq!((propose.partition, Some(propose.proposer)), (partition, configuration.primary));
        assert!(after.revision() > before.revision(), "watchers are woken");
    }
    if let (Command::Propose(propose), Outcome::Accepted { configuration } | Outcome::Conflict { configuration }) =
        (command, outcome)
    {
        assert_eq!(after.configuration(propose.partition), Some(configuration), "the answer is what is in force");
    }
}

proptest! {
    #[test]
    fn any_history_keeps_the_invariants_and_replays(steps in prop::collection::vec(step(), 0..80)) {
        let mut state = State::default();
        let mut history = Vec::new();
        for step in steps {
            let command = command(&state, step);
            let before = state.clone();
            let outcome = apply(&mut state, command.clone());
            check_invariants(&state);
            check_step(&before, &state, &command, &outcome);
            history.push((command, outcome));
        }

        let mut replayed = State::default();
        let mut from_snapshot = None;
        for (position, (command, outcome)) in history.iter().enumerate() {
            prop_assert_eq!(&apply(&mut replayed, command.clone()), outcome);
            if position == history.len() / 2 {
                from_snapshot = Some((position, State::decode(&replayed.encode()).unwrap()));
            }
        }
        prop_assert_eq!(replayed.encode(), state.encode());
        if let Some((position, mut restored)) = from_snapshot {
            for (command, _) in &history[position + 1..] {
                apply(&mut restored, command.clone());
            }
            prop_assert_eq!(restored.encode(), state.encode());
        }
    }
}

#[test]
fn a_history_with_every_outcome_happens() {
    // Guards the generator above: were all its proposals refused, the properties would say little.
    let mut state = State::default();
    let addresses = |port| NodeAddresses {
        address: ([127, 0, 0, 1], port).into(),
        admin_address: ([127, 0, 0, 1], 9).into(),
        cores: 1,
    };
    apply(&mut state, Command::FoundCluster { cluster: ClusterId(1) });
    let node = RegisterNode { cluster: None, node: NodeId(1), addresses: addresses(1000), reports: vec![] };
    apply(&mut state, Command::RegisterNode(node));
    let table = CreateTable {
        name: "t".to_owned(),
        partition_count: 8,
        replica_count: 1,
        durability: Durability::Written,
        if_not_exists: false,
        live: [NodeId(1)].into(),
    };
    apply(&mut state, Command::CreateTable(table));
    let step = |ahead| Step::Propose { partition: PartitionId::new(1, 0), ahead, proposer: None };
    let next = command(&state, step(1));
    assert!(matches!(apply(&mut state, next), Outcome::Accepted { .. }));
    let again = command(&state, step(0));
    assert!(matches!(apply(&mut state, again), Outcome::Accepted { .. }));
    let ahead = command(&state, step(2));
    assert!(matches!(apply(&mut state, ahead), Outcome::Conflict { .. }));
}

#[test]
fn snapshots_say_what_is_wrong_with_them() {
    let bytes = State::default().encode();
    assert_eq!(State::decode(&bytes), Ok(State::default()));
    let newer = String::from_utf8(bytes.clone()).unwrap().replace("\"format\":1", "\"format\":2");
    assert_eq!(State::decode(newer.as_bytes()), Err(DecodeError::Format(2)));
    assert!(matches!(State::decode(&bytes[..bytes.len() - 1]), Err(DecodeError::Malformed(_))));
    assert!(matches!(State::decode(b""), Err(DecodeError::Malformed(_))));
}
