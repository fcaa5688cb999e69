//! Any sequence of commands: invariants hold, a replay gives the same bytes, a snapshot gives the same state.
#![allow(clippy::unwrap_used)]

mod tables;

use std::collections::{BTreeMap, BTreeSet};

use pegasus_meta::core::{
    Command, CreateTable, FORMER_MEMBERS_MAX, Force, NodeAddresses, Outcome, Propose, RegisterNode, Report, State,
    apply,
};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Ballot, ClusterId, Configuration, Decree, Durability, NodeId, PartitionId};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

fn node_id() -> impl Strategy<Value = NodeId> {
    (1u64..6).prop_map(NodeId)
}

fn partition() -> impl Strategy<Value = PartitionId> {
    (1u32..6, 0u32..9).prop_map(|(table, index)| PartitionId::new(table, index))
}

fn copy_state() -> impl Strategy<Value = ReplicaState> {
    use ReplicaState::{Damaged, Learning, Missing, Uncertain, Whole};
    prop_oneof![3 => Just(Whole), 3 => Just(Uncertain), 1 => Just(Learning), 1 => Just(Damaged), 1 => Just(Missing)]
}

fn register() -> impl Strategy<Value = Command> {
    let reports = prop::collection::vec((partition(), 0u64..4, copy_state(), 0u64..3), 0..3);
    (node_id(), 1000u16..1012, 0u16..4, any::<bool>(), reports).prop_map(|(node, port, cores, known, reports)| {
        let report =
            |(partition, ballot, state, last)| Report { partition, ballot: Ballot(ballot), state, last: Decree(last) };
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
    let live = prop_oneof![
        2 => Just((1..6).map(NodeId).collect::<BTreeSet<NodeId>>()),
        1 => prop::collection::btree_set(node_id(), 0..6),
    ];
    let count = prop_oneof![3 => Just(2), 2 => Just(8), 1 => 0u32..10];
    let replica_count = prop_oneof![5 => 1u8..4, 1 => 0u8..7];
    (0u8..4, count, replica_count, any::<bool>(), live).prop_map(|(name, count, replica_count, if_not_exists, live)| {
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

/// Proposals that are often right: what they build on is filled in from the state when `apply` is about to run.
#[derive(Clone, Debug)]
enum Step {
    Plain(Command),
    Propose { partition: PartitionId, ahead: u64, proposer: Option<NodeId>, change: Change },
    Force { partition: PartitionId, ahead: u64, primary: NodeId, accept_loss: bool },
}

/// What a proposal makes of the configuration in force.
#[derive(Clone, Copy, Debug)]
enum Change {
    Keep,
    Remove(usize),
    Add(NodeId),
    HandOver { leave: bool },
    TakeOver { of_all: bool },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => Just(Change::Keep),
        2 => (0usize..4).prop_map(Change::Remove),
        3 => node_id().prop_map(Change::Add),
        1 => any::<bool>().prop_map(|leave| Change::HandOver { leave }),
        3 => any::<bool>().prop_map(|of_all| Change::TakeOver { of_all }),
    ]
}

fn force() -> impl Strategy<Value = Step> {
    let parts = (partition(), 0u64..3, node_id(), prop::bool::weighted(0.8));
    parts.prop_map(|(partition, ahead, primary, accept_loss)| Step::Force { partition, ahead, primary, accept_loss })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (1u64..3).prop_map(|id| Step::Plain(Command::FoundCluster { cluster: ClusterId(id) })),
        5 => register().prop_map(Step::Plain),
        3 => create().prop_map(Step::Plain),
        6 => tables::step().prop_map(Step::Plain),
        9 => (partition(), prop_oneof![4 => Just(1), 1 => 0u64..3], prop::option::weighted(0.3, node_id()), change())
            .prop_map(|(partition, ahead, proposer, change)| Step::Propose { partition, ahead, proposer, change }),
        1 => force(),
    ]
}

/// A cluster to begin with: nodes 1 to 5, each with ports of its own.
fn beginning() -> Vec<Step> {
    let register = |id: u64| {
        let addresses = NodeAddresses {
            address: ([127, 0, 0, 1], 1000 + 2 * id as u16).into(),
            admin_address: ([127, 0, 0, 1], 9).into(),
            cores: 2,
        };
        Command::RegisterNode(RegisterNode { cluster: None, node: NodeId(id), addresses, reports: vec![] })
    };
    let commands = std::iter::once(Command::FoundCluster { cluster: ClusterId(1) }).chain((1..6).map(register));
    commands.map(Step::Plain).collect()
}

fn steps(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    (prop::bool::weighted(0.9), prop::collection::vec(step(), count))
        .prop_map(|(begun, steps)| if begun { [beginning(), steps].concat() } else { steps })
}

fn command(state: &State, step: Step) -> Command {
    match step {
        Step::Plain(command) => command,
        Step::Propose { partition, ahead, proposer, change } => {
            let in_force = state.configuration(partition).cloned().unwrap_or_default();
            let expected_ballot = Ballot((in_force.ballot.0 + ahead).saturating_sub(1));
            let mut proposer = proposer.or(in_force.primary).unwrap_or(NodeId(1));
            if let (Change::TakeOver { .. }, Some(&secondary)) = (change, in_force.secondaries.first()) {
                proposer = secondary;
            }
            let configuration = changed(&in_force, proposer, change);
            let configuration = Configuration { ballot: expected_ballot.next(), ..configuration };
            Command::Propose(Propose { partition, proposer, expected_ballot, configuration })
        }
        Step::Force { partition, ahead, primary, accept_loss } => {
            let expected_ballot = Ballot((state.ballot(partition).0 + ahead).saturating_sub(1));
            Command::Force(Force { partition, expected_ballot, primary, accept_loss })
        }
    }
}

fn changed(in_force: &Configuration, proposer: NodeId, change: Change) -> Configuration {
    let mut wanted = in_force.clone();
    match change {
        Change::Keep => {}
        Change::Remove(position) => {
            if position < wanted.secondaries.len() {
                wanted.secondaries.remove(position);
            }
        }
        Change::Add(node) => wanted.secondaries.push(node),
        Change::HandOver { leave } => {
            if let Some(next) = wanted.secondaries.pop() {
                wanted.secondaries.extend(wanted.primary.filter(|_| !leave));
                wanted.primary = Some(next);
            }
        }
        Change::TakeOver { of_all } => {
            wanted.secondaries.retain(|&node| node != proposer);
            wanted.secondaries.extend(wanted.primary.filter(|_| of_all));
            wanted.primary = Some(proposer);
        }
    }
    wanted
}

fn check_invariants(state: &State) {
    for (partition, configuration) in state.partitions() {
        let members: Vec<NodeId> = configuration.members().collect();
        let distinct: BTreeSet<NodeId> = members.iter().copied().collect();
        assert!(configuration.primary.is_some() && configuration.secondaries.is_sorted());
        assert!(
            distinct.len() == members.len() && members.len() <= state.replica_count(partition),
            "{configuration:?}"
        );
        assert!(members.iter().all(|id| state.nodes().contains_key(id)), "every member is known");
        let former: BTreeSet<NodeId> = state.former_members(partition).iter().map(|entry| entry.node).collect();
        assert_eq!(former.len(), state.former_members(partition).len(), "nobody left twice");
        assert!(former.len() <= FORMER_MEMBERS_MAX && former.is_disjoint(&distinct));
        assert!(state.former_members(partition).is_sorted_by_key(|entry| entry.ballot));
    }
    tables::check_invariants(state);
    let member = |id: NodeId| state.partitions().any(|(_, configuration)| configuration.contains(id));
    for (&id, node) in state.nodes() {
        assert!(node.addresses.is_some() || member(id), "who lost its address is kept as a member only");
        let reported: Vec<PartitionId> = node.reports.iter().map(|report| report.partition).collect();
        assert!(reported.is_sorted() && reported.windows(2).all(|pair| pair[0] != pair[1]));
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
    tables::check_step(before, after, command, outcome);
    for (partition, was) in before.partitions() {
        let Some(now) = after.configuration(partition) else {
            assert!(after.is_purged(partition.table), "partitions go away with their tables only");
            continue;
        };
        if now == was {
            continue;
        }
        assert_eq!(now.ballot, was.ballot.next(), "one ballot at a time");
        assert!(after.revision() > before.revision(), "watchers are woken");
        let changed = match command {
            Command::Propose(propose) => {
                check_right(before, was, now, propose);
                propose.partition
            }
            Command::Force(force) => {
                assert!(force.accept_loss && now.secondaries.is_empty() && now.primary == Some(force.primary));
                assert!(before.report(force.primary, partition).is_some());
                force.partition
            }
            _ => panic!("only a proposal or force changes a configuration"),
        };
        assert_eq!(changed, partition);
        for left in was.members().filter(|&id| !now.contains(id)) {
            assert!(after.former_members(partition).iter().any(|one| one.node == left && one.ballot == now.ballot));
        }
    }
    let (partition, in_force) = match (command, outcome) {
        (Command::Propose(one), Outcome::Accepted { configuration } | Outcome::Conflict { configuration }) => {
            (one.partition, configuration)
        }
        (Command::Force(one), Outcome::Accepted { configuration } | Outcome::Conflict { configuration }) => {
            (one.partition, configuration)
        }
        _ => return,
    };
    assert_eq!(after.configuration(partition), Some(in_force), "the answer is what is in force");
}

/// The rules once more, in other words than those of the code.
fn check_right(before: &State, was: &Configuration, now: &Configuration, propose: &Propose) {
    let partition = propose.partition;
    let set = |configuration: &Configuration| configuration.members().collect::<BTreeSet<NodeId>>();
    let (old, new) = (set(was), set(now));
    let proposer = propose.proposer;
    assert!(old.contains(&proposer), "only members propose");
    let primary = now.primary.unwrap();
    let uncertain = |id: NodeId| before.copy_state(id, partition) == Some(ReplicaState::Uncertain);
    match before.copy_state(primary, partition) {
        None | Some(ReplicaState::Whole) => {}
        Some(ReplicaState::Uncertain) => {
            assert!(old.iter().all(|&id| uncertain(id)), "a member may have what this one lost");
            let rank = |id: NodeId| {
                let report = before.report(id, partition).unwrap();
                (report.ballot, report.last, id)
            };
            assert_eq!(old.iter().map(|&id| rank(id)).max(), Some(rank(primary)));
        }
        Some(unfit) => panic!("{unfit:?} became primary"),
    }
    if was.primary == Some(proposer) && primary == proposer {
        assert!(new.difference(&old).all(|id| before.nodes()[id].addresses.is_some()));
    } else if was.primary == Some(proposer) {
        assert!(was.secondaries.contains(&primary));
        assert!(old.difference(&new).all(|&id| id == proposer) && new.is_subset(&old));
    } else if uncertain(proposer) {
        assert!(primary == proposer && new.is_subset(&old));
    } else {
        assert_eq!(primary, proposer);
        assert_eq!(old.difference(&new).copied().collect::<Vec<_>>(), [was.primary.unwrap()]);
        assert!(new.is_subset(&old));
    }
}

proptest! {
    #[test]
    fn any_history_keeps_the_invariants_and_replays(steps in steps(0..120)) {
        let mut state = State::default();
        let mut history = Vec::new();
        for step in steps {
            let command = command(&state, step);
            let before = state.clone();
            let outcome = apply(&mut state, command.clone());
            check_invariants(&state);
            check_step(&before, &state, &command, &outcome);
            tables::check_again(&state, &command, &outcome);
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
    for id in 1..=3 {
        let addresses = addresses(1000 + id as u16);
        let node = RegisterNode { cluster: None, node: NodeId(id), addresses, reports: vec![] };
        apply(&mut state, Command::RegisterNode(node));
    }
    let table = CreateTable {
        name: "t".to_owned(),
        partition_count: 8,
        replica_count: 3,
        durability: Durability::Written,
        if_not_exists: false,
        live: (1..=3).map(NodeId).collect(),
    };
    apply(&mut state, Command::CreateTable(table));
    let partition = PartitionId::new(1, 0);
    let mut take = |change, ahead| {
        let next = command(&state, Step::Propose { partition, ahead, proposer: None, change });
        apply(&mut state, next)
    };
    let accepted = |outcome| assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    accepted(take(Change::Keep, 1));
    accepted(take(Change::Keep, 0));
    accepted(take(Change::HandOver { leave: false }, 1));
    accepted(take(Change::TakeOver { of_all: false }, 1));
    accepted(take(Change::Remove(0), 1));
    accepted(take(Change::Add(NodeId(3)), 1));
    accepted(take(Change::HandOver { leave: true }, 1));
    assert!(matches!(take(Change::Keep, 2), Outcome::Conflict { .. }));
    assert!(matches!(take(Change::Add(NodeId(9)), 1), Outcome::Refused(_)));
    let force = Step::Force { partition, ahead: 1, primary: NodeId(3), accept_loss: true };
    let force = command(&state, force);
    accepted(apply(&mut state, force));
}

#[test]
fn the_steps_reach_what_may_happen_to_a_table() {
    let mut runner = TestRunner::deterministic();
    let mut happened: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..400 {
        let steps = steps(100..101).new_tree(&mut runner).unwrap().current();
        let mut state = State::default();
        for step in steps {
            let command = command(&state, step);
            let outcome = apply(&mut state, command.clone());
            *happened.entry(tables::kind(&command, &outcome)).or_default() += 1;
        }
    }
    for kind in tables::KINDS {
        assert!(happened.get(kind).is_some_and(|&count| count >= 5), "{kind} is rare: {happened:?}");
    }
}
