//! The state as bytes: what is refused, and what earlier releases wrote.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::collections::BTreeMap;

use cluster::Cluster;
use pegasus_meta::core::{Command, DecodeError, Outcome, State, apply};
use pegasus_wire::messages::control::TableState;
use pegasus_wire::{Ballot, Configuration, NodeId, PartitionId, TableId};

/// A snapshot of format 1, before tables had a state and an environment.
const FORMAT_1: &str = r#"{"format":1,"state":{"cluster":77,"revision":6,"last_table":1,
    "tables":{"1":{
        "properties":{"table":1,"name":"t","partition_count":1,"replica_count":2,"durability":"Synced"},
        "partitions":[{"ballot":3,"primary":1,"secondaries":[2]}],
        "former":{"0":[{"node":3,"ballot":2}]}}},
    "nodes":{
        "1":{"addresses":{"address":"10.0.0.1:1000","admin_address":"10.0.0.1:9000","cores":2},
             "reports":[{"partition":{"table":1,"index":0},"ballot":2,"state":"Whole","last":5}]},
        "2":{"addresses":null,"reports":[]}}}}"#;

/// Log entries of that time.
const COMMANDS: [&str; 3] = [
    r#"{"FoundCluster":{"cluster":77}}"#,
    r#"{"RegisterNode":{"cluster":null,"node":1,
        "addresses":{"address":"10.0.0.1:1000","admin_address":"10.0.0.1:9000","cores":2},"reports":[]}}"#,
    r#"{"CreateTable":{"name":"t","partition_count":1,"replica_count":1,"durability":"Written","if_not_exists":false,
        "live":[1]}}"#,
];

#[test]
fn snapshots_say_what_is_wrong_with_them() {
    let bytes = State::default().encode();
    assert_eq!(State::decode(&bytes), Ok(State::default()));
    for other in [0, 3] {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let changed = text.replace("\"format\":2", &format!("\"format\":{other}"));
        assert_eq!(State::decode(changed.as_bytes()), Err(DecodeError::Format(other)));
    }
    assert_eq!(DecodeError::Format(3).to_string(), "the snapshot has format 3, this release reads formats 1 to 2");
    assert!(matches!(State::decode(&bytes[..bytes.len() - 1]), Err(DecodeError::Malformed(_))));
    assert!(matches!(State::decode(b""), Err(DecodeError::Malformed(_))));
}

#[test]
fn a_snapshot_of_format_1_is_read() {
    let mut state = State::decode(FORMAT_1.as_bytes()).unwrap();
    let partition = PartitionId::new(1, 0);
    let configuration = Configuration { ballot: Ballot(3), primary: Some(NodeId(1)), secondaries: vec![NodeId(2)] };
    assert_eq!((state.configuration(partition), state.revision()), (Some(&configuration), 6));
    let table = state.table_named("t").unwrap();
    assert_eq!((table.state, &table.environment), (TableState::Available, &BTreeMap::new()));
    assert_eq!(state.former_members(partition)[0].node, NodeId(3));
    // It is written in the format of today, and lives on.
    assert!(state.encode().starts_with(b"{\"format\":2,"));
    assert_eq!(State::decode(&state.encode()).unwrap(), state);
    let outcome = apply(&mut state, cluster::drop_table("t", false));
    assert_eq!(outcome, Outcome::TableChanged { table: TableId(1), changed: true });
}

#[test]
fn commands_of_that_time_are_applied() {
    let mut state = State::default();
    for text in COMMANDS {
        let command: Command = serde_json::from_str(text).unwrap();
        let outcome = apply(&mut state, command);
        assert!(!matches!(outcome, Outcome::Refused(_)), "{text}: {outcome:?}");
    }
    assert_eq!(state.table_named("t").unwrap().properties.table, TableId(1));
}

#[test]
fn everything_of_a_table_survives_a_snapshot() {
    let mut cluster = Cluster::new(2);
    cluster.create("t", 2, 1, 1..=2);
    cluster.create("u", 2, 1, 1..=2);
    cluster.run(cluster::rename_table("t", "v"));
    cluster.drop_table("u");
    let set = vec![("default_ttl".to_owned(), "60".to_owned())];
    let name = "v".to_owned();
    let change = pegasus_meta::core::ChangeEnvironment { name, clear: false, delete: vec![], set };
    cluster.run(Command::ChangeEnvironment(change));
    let restored = State::decode(&cluster.state.encode()).unwrap();
    assert_eq!(restored, cluster.state);
    assert_eq!(restored.tables()[&TableId(1)].renamed_from.as_deref(), Some("t"));
    assert_eq!(restored.next_purge(), Some((1100, TableId(2))));
    assert_eq!(restored.tables()[&TableId(1)].environment["default_ttl"], "60");
}
