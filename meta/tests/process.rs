//! The binary as an operator meets it: ready line, kill -9, SIGTERM, clear errors.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::net::SocketAddr;
use std::process::{Output, Stdio};

use common::{PATIENCE, Place, call, explanation, table};
use pegasus_rpc::Role;
use pegasus_wire::messages::control::{
    CreateTable, DropTable, ProposeConfiguration, QueryTable, RecallTable, TableReply,
};
use pegasus_wire::{Ballot, Configuration, Durability, NodeId, PartitionId, Status, TableId};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pegasus-meta"));
    command.stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// Starts the binary on this place's directory and waits for its ready line.
async fn start(place: &Place) -> (Child, SocketAddr) {
    let path = place.path().join("config.toml");
    std::fs::write(&path, place.config().to_toml()).unwrap();
    let mut child = binary().arg("--config").arg(&path).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let address = line.strip_prefix("ready meta ").unwrap_or_else(|| panic!("{line:?}"));
    (child, address.parse().unwrap())
}

async fn run(arguments: &[&str]) -> Output {
    tokio::time::timeout(PATIENCE, binary().args(arguments).output()).await.unwrap().unwrap()
}

fn propose(expected: u64) -> ProposeConfiguration {
    ProposeConfiguration {
        partition: PartitionId::new(1, 0),
        proposer: NodeId(1),
        expected_ballot: Ballot(expected),
        configuration: Configuration {
            ballot: Ballot(expected + 1),
            primary: Some(NodeId(1)),
            secondaries: Vec::new(),
        },
    }
}

#[tokio::test]
async fn kill_9_takes_nothing_that_was_answered() {
    let place = Place::new();
    let mut ballot = 1;
    for round in 0..3 {
        let (mut child, address) = start(&place).await;
        let node = place.caller(Role::Replica, address).await;
        node.register(1, 5001).await;
        let table = CreateTable {
            name: "kept".to_owned(),
            partition_count: 1,
            replica_count: 1,
            durability: Durability::Synced,
            if_not_exists: true,
        };
        assert_eq!(call!(node, CREATE_TABLE, table).header.status, Status::Ok);
        let kept: TableReply = call!(node, QUERY_TABLE, QueryTable { name: "kept".to_owned() }).decode().unwrap();
        assert_eq!(kept.partitions[0].ballot, Ballot(ballot), "round {round}");
        for _ in 0..10 {
            assert_eq!(call!(node, PROPOSE_CONFIGURATION, propose(ballot)).header.status, Status::Ok);
            ballot += 1;
        }
        child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_table_outlives_kill_9_until_its_time_has_come() {
    let place = Place::new();
    let (mut child, address) = start(&place).await;
    let node = place.caller(Role::Replica, address).await;
    node.register(1, 5001).await;
    let drop = |hold_seconds| DropTable { name: "t".to_owned(), hold_seconds, if_exists: false };
    assert_eq!(call!(node, CREATE_TABLE, table("t", 1)).header.status, Status::Ok);
    assert_eq!(call!(node, DROP_TABLE, drop(None)).header.status, Status::Ok);
    child.kill().await.unwrap();

    let (mut child, address) = start(&place).await;
    let node = place.caller(Role::Replica, address).await;
    node.register(1, 5001).await;
    let refused = call!(node, QUERY_TABLE, QueryTable { name: "t".to_owned() });
    assert!(explanation(&refused).contains("was dropped at 20"), "{}", explanation(&refused));
    let recall = RecallTable { table: TableId(1), name: None };
    assert_eq!(call!(node, RECALL_TABLE, recall).header.status, Status::Ok);
    // The node hears of the purge by itself, a second later.
    assert_eq!(call!(node, DROP_TABLE, drop(Some(1))).header.status, Status::Ok);
    let held = node.watch(1, 0, 0).await;
    assert_eq!(held.tables.len(), 1);
    assert_eq!(node.watch(1, held.revision, 10_000).await.tables, []);
    child.kill().await.unwrap();
}

#[tokio::test]
async fn sigterm_stops_it_in_order() {
    let place = Place::new();
    let (mut child, address) = start(&place).await;
    let client = place.caller(Role::Client, address).await;
    assert!(client.cluster().await.nodes.is_empty());
    let process = child.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-TERM", &process]).status().await.unwrap();
    assert!(sent.success());
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn the_configuration_can_be_printed() {
    let output = run(&["--print-config", "--listen", "127.0.0.1:7", "--log-level", "warn"]).await;
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("listen = \"127.0.0.1:7\"") && printed.contains("log_level = \"warn\""), "{printed}");
    assert!(printed.contains("[tls]") && printed.contains("admin_listen = \"127.0.0.1:34691\""), "{printed}");
}

#[tokio::test]
async fn errors_are_one_clear_line() {
    let place = Place::new();
    let bad = place.path().join("bad.toml");
    std::fs::write(&bad, "lissten = 1\n").unwrap();
    let blocked = place.path().join("ca.crt").join("data");
    let mut config = place.config();
    config.data_directory = blocked;
    let unusable = place.path().join("unusable.toml");
    std::fs::write(&unusable, config.to_toml()).unwrap();
    let cases = [
        (vec!["--config", "/nonexistent/config.toml"], "/nonexistent/config.toml"),
        (vec!["--config", bad.to_str().unwrap()], "lissten"),
        (vec!["--log-level", "loud"], "log_level is one of"),
        (vec!["--certificate", "/nonexistent/meta.crt"], "/nonexistent/meta.crt"),
        (vec!["--config", unusable.to_str().unwrap()], "ca.crt/data"),
    ];
    for (arguments, expected) in cases {
        let output = run(&arguments).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("pegasus-meta: ") && text.contains(expected), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}
