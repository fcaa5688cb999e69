//! The store against openraft's storage suite, and the group across restarts and damage.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use pegasus_meta::core::{Command, CreateTable, NodeAddresses, Outcome, Propose, RegisterNode, State};
use pegasus_meta::host::group::{Group, StartError, TypeConfig};
use pegasus_meta::host::log_store::LogStore;
use pegasus_meta::host::state_machine::StateMachine;
use pegasus_meta::host::store::{FILE, Store, StoreError};
use pegasus_wire::{Ballot, ClusterId, Configuration, Durability, NodeId, PartitionId, TableId};
use tempfile::TempDir;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<u64>> {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        Ok((directory, LogStore::new(store.clone()), StateMachine::open(store).unwrap()))
    }
}

#[test]
fn the_store_keeps_what_raft_asks_of_it() {
    Suite::test_all(Builder).unwrap();
}

const NAME: ClusterId = ClusterId(42);

fn address() -> SocketAddr {
    ([127, 0, 0, 1], 34601).into()
}

async fn start(directory: &Path) -> Group {
    Group::start(directory, address(), NAME).await.unwrap()
}

fn register(id: u64) -> Command {
    Command::RegisterNode(RegisterNode {
        cluster: None,
        node: NodeId(id),
        addresses: NodeAddresses {
            address: ([127, 0, 0, 1], 34800 + id as u16).into(),
            admin_address: ([127, 0, 0, 1], 34900 + id as u16).into(),
            cores: 1,
        },
        reports: Vec::new(),
    })
}

fn create(name: &str) -> Command {
    Command::CreateTable(CreateTable {
        name: name.to_owned(),
        partition_count: 8,
        replica_count: 3,
        durability: Durability::Synced,
        if_not_exists: false,
        live: BTreeSet::from([1, 2, 3].map(NodeId)),
    })
}

fn raise(state: &State, partition: PartitionId) -> Command {
    let in_force = state.configuration(partition).unwrap().clone();
    Command::Propose(Propose {
        partition,
        proposer: in_force.primary.unwrap(),
        expected_ballot: in_force.ballot,
        configuration: Configuration { ballot: in_force.ballot.next(), ..in_force },
    })
}

async fn with_table(group: &Group) {
    for id in 1..=3 {
        assert!(matches!(group.propose(register(id)).await, Ok(Outcome::Registered { .. })));
    }
    let created = group.propose(create("temp")).await;
    assert_eq!(created, Ok(Outcome::TableReady { table: TableId(1), created: true }));
}

#[tokio::test]
async fn everything_answered_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let partition = PartitionId::new(1, 5);
    let group = start(directory.path()).await;
    with_table(&group).await;
    for _ in 0..3 {
        let command = group.read(|state| raise(state, partition));
        assert!(matches!(group.propose(command).await, Ok(Outcome::Accepted { .. })));
    }
    let before = group.read(State::encode);
    group.shutdown().await;
    drop(group);

    let other_name = ClusterId(43);
    let group = Group::start(directory.path(), address(), other_name).await.unwrap();
    assert_eq!(group.read(State::encode), before);
    assert_eq!(group.read(|state| (state.cluster(), state.ballot(partition))), (Some(NAME), Ballot(4)));
    group.shutdown().await;
}

#[tokio::test]
async fn a_restart_from_a_snapshot_applies_the_log_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let group = start(directory.path()).await;
    with_table(&group).await;
    let covered = group.applied_index();
    group.snapshot().await.unwrap();
    group.wait_for_snapshot(covered).await;
    let command = group.read(|state| raise(state, PartitionId::new(1, 0)));
    group.propose(command).await.unwrap();
    let before = group.read(State::encode);
    group.shutdown().await;
    drop(group);

    // What is read first is the snapshot: the ballot raised behind it is missing there.
    let store = Store::open(directory.path()).unwrap();
    let machine = StateMachine::open(store).unwrap();
    assert_eq!(machine.applied().read(|state| state.ballot(PartitionId::new(1, 0))), Ballot(1));
    drop(machine);

    let group = start(directory.path()).await;
    assert_eq!(group.read(State::encode), before);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_come_together_share_an_entry() {
    let directory = tempfile::tempdir().unwrap();
    let group = start(directory.path()).await;
    with_table(&group).await;
    let before = group.applied_index();
    let mut waiting = Vec::new();
    for round in 0..50 {
        for index in 0..8 {
            let group = group.clone();
            let partition = PartitionId::new(1, index);
            let command = group.read(|state| raise(state, partition));
            waiting.push(tokio::spawn(async move { (round, group.propose(command).await) }));
        }
    }
    let mut accepted = 0;
    for task in waiting {
        let (_, outcome) = task.await.unwrap();
        accepted += u32::from(matches!(outcome.unwrap(), Outcome::Accepted { .. }));
    }
    assert!(accepted >= 8);
    let entries = group.applied_index() - before;
    assert!(entries < 200, "400 commands took {entries} entries");
    group.shutdown().await;
}

#[tokio::test]
async fn two_servers_cannot_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let group = start(directory.path()).await;
    let second = Group::start(directory.path(), address(), NAME).await;
    let Err(StartError::Store(error @ StoreError::InUse { .. })) = second else { panic!("the second one started") };
    assert!(error.to_string().contains("in use by another process"), "{error}");
    group.shutdown().await;
}

#[test]
fn an_unusable_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, b"not a directory").unwrap();
    let error = Store::open(&file.join("data")).err().unwrap();
    assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
    assert!(error.to_string().contains("file/data"), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_damage() {
    for content in [&b""[..], b"hello", &[0xAB; 10_000]] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), content).unwrap();
        let error = Store::open(directory.path()).err().unwrap();
        assert!(matches!(error, StoreError::Damaged { .. }), "{} bytes: {error}", content.len());
    }
}

/// A flipped byte anywhere in the file is either reported or harmless: never does the server start with less than
/// it had answered.
#[tokio::test]
async fn a_flipped_byte_never_loses_anything_silently() {
    let directory = tempfile::tempdir().unwrap();
    let group = start(directory.path()).await;
    with_table(&group).await;
    let command = group.read(|state| raise(state, PartitionId::new(1, 3)));
    group.propose(command).await.unwrap();
    let before = group.read(State::encode);
    // What kill -9 would leave: the last commit is the newest thing in the file.
    let intact = std::fs::read(directory.path().join(FILE)).unwrap();
    group.shutdown().await;
    let mut reported = 0;
    let used: Vec<usize> = (0..intact.len()).filter(|&offset| intact[offset] != 0).collect();
    for offset in used.iter().step_by(used.len() / 100) {
        let copy = tempfile::tempdir().unwrap();
        let mut bytes = intact.clone();
        bytes[*offset] ^= 0x10;
        std::fs::write(copy.path().join(FILE), bytes).unwrap();
        match Group::start(copy.path(), address(), NAME).await {
            Ok(group) => {
                assert_eq!(group.read(State::encode), before, "a byte flipped at {offset}");
                group.shutdown().await;
            }
            Err(error) => {
                assert!(error.to_string().contains("damaged"), "{error}");
                reported += 1;
            }
        }
    }
    assert!(reported > 0, "some of the flipped bytes hold data");
}
