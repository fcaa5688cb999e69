//! Connections: answers in any order, requests that break off, answers that cannot be.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures_util::future::join_all;
use pegasus_driver::{Cluster, Error, Options, Table};
use pegasus_gateway::limits::ANSWER_BYTES_MAX;
use pegasus_gateway::{ErrorName, Rpc, answer};
use pegasus_stand_in::{Fault, StandIn};

async fn start(options: Options) -> (StandIn, Table) {
    let server = StandIn::start(1).await;
    server.create("temp", 1);
    let cluster = Cluster::connect(&server.meta_servers(), options).await.unwrap();
    let table = cluster.table("temp").await.unwrap();
    (server, table)
}

async fn write_many(table: &Table, rows: u32) {
    let write = |row: u32| async move {
        let key = format!("row-{row}");
        table.set(key.as_bytes(), b"s", &row.to_be_bytes(), 0).await.unwrap();
        (key, row)
    };
    for (key, row) in join_all((0..rows).map(write)).await {
        assert_eq!(table.get(key.as_bytes(), b"s").await.unwrap().unwrap(), &row.to_be_bytes()[..], "{key}");
    }
}

#[tokio::test]
async fn answers_come_in_any_order() {
    let (server, table) = start(Options::default()).await;
    server.put("temp", b"h", b"s", b"v", 0);
    server.reverse(16);
    // All of them wait for the last one, whose answer comes first.
    let read = |row: u32| {
        let table = &table;
        async move { table.get(b"h", if row.is_multiple_of(2) { b"s" } else { b"none" }).await }
    };
    for (row, value) in join_all((0..64).map(read)).await.into_iter().enumerate() {
        assert_eq!(value.unwrap().is_some(), row % 2 == 0, "{row}");
    }
    assert_eq!(server.received(Rpc::Get), 64);
}

#[tokio::test]
async fn several_connections_share_the_calls() {
    let (_server, table) = start(Options { connections_per_node: 4, ..Options::default() }).await;
    write_many(&table, 200).await;
}

#[tokio::test]
async fn requests_larger_than_the_room_go_one_after_the_other() {
    let (server, table) = start(Options { timeout: Duration::from_secs(60), ..Options::default() }).await;
    let value = vec![b'v'; 1 << 20];
    let write = |row: u8| {
        let (table, value) = (&table, &value);
        async move { table.set(&[b'h', row], b"s", value, 0).await }
    };
    for outcome in join_all((0..40).map(write)).await {
        outcome.unwrap();
    }
    assert_eq!(server.rows("temp").len(), 40);
    assert_eq!(table.get(b"h\x07", b"s").await.unwrap().unwrap().len(), value.len());
}

#[tokio::test]
async fn a_write_whose_connection_breaks_is_unknown_and_not_sent_twice() {
    for (fault, rows) in [(Fault::CloseBefore, 0), (Fault::CloseAfter, 1)] {
        let (server, table) = start(Options::default()).await;
        server.fault(Rpc::Put, fault.clone());
        let error = table.set(b"h", b"s", b"v", 0).await.unwrap_err();
        assert!(matches!(error, Error::Unknown(_)), "{fault:?}: {error}");
        assert_eq!((server.received(Rpc::Put), server.rows("temp").len()), (1, rows), "{fault:?}");
        // The next one has a new connection.
        table.set(b"h", b"s", b"v", 0).await.unwrap();
        assert_eq!(server.received(Rpc::Put), 2);
        server.fault(Rpc::Incr, fault.clone());
        assert!(matches!(table.incr(b"h", b"n", 1).await, Err(Error::Unknown(_))), "{fault:?}");
        assert_eq!(server.received(Rpc::Incr), 1);
    }
}

#[tokio::test]
async fn a_read_whose_connection_breaks_is_sent_again() {
    let (server, table) = start(Options::default()).await;
    server.put("temp", b"h", b"s", b"v", 0);
    server.fault(Rpc::Get, Fault::CloseBefore);
    server.fault(Rpc::Get, Fault::CloseAfter);
    assert_eq!(table.get(b"h", b"s").await.unwrap().unwrap(), "v");
    assert_eq!(server.received(Rpc::Get), 3);
}

#[tokio::test]
async fn a_write_that_is_not_answered_is_unknown() {
    let (server, table) = start(Options { timeout: Duration::from_millis(300), ..Options::default() }).await;
    server.fault(Rpc::Put, Fault::Silence);
    assert!(matches!(table.set(b"h", b"s", b"v", 0).await, Err(Error::Unknown(_))));
    assert_eq!(server.received(Rpc::Put), 1);
    server.fault(Rpc::Get, Fault::Silence);
    assert!(matches!(table.get(b"h", b"s").await, Err(Error::Timeout(_))));
    assert_eq!(table.get(b"h", b"s").await, Ok(None), "the connection was given up for another");
}

#[tokio::test]
async fn refusals_without_effect_are_sent_again() {
    let (server, table) = start(Options::default()).await;
    let names = ["ERR_BUSY", "ERR_OBJECT_NOT_FOUND", "ERR_INVALID_STATE", "ERR_NOT_ENOUGH_MEMBER", "ERR_SPLITTING"];
    for name in names {
        server.fault(Rpc::Put, Fault::Error(name));
    }
    table.set(b"h", b"s", b"v", 0).await.unwrap();
    assert_eq!(server.received(Rpc::Put), names.len() + 1);
}

#[tokio::test]
async fn other_refusals_are_told() {
    let (server, table) = start(Options::default()).await;
    for name in ["ERR_TIMEOUT", "ERR_UNKNOWN", "ERR_FROM_THE_FUTURE"] {
        server.fault(Rpc::Put, Fault::Error(name));
        let error = table.set(b"h", b"s", b"v", 0).await.unwrap_err();
        assert!(matches!(&error, Error::Unknown(text) if text.contains(name)), "{name}: {error}");
    }
    server.fault(Rpc::Put, Fault::Error("ERR_INVALID_DATA"));
    let refused = table.set(b"h", b"s", b"v", 0).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { name: "ERR_INVALID_DATA", .. }), "{refused}");
    server.fault(Rpc::Get, Fault::Error("ERR_FROM_THE_FUTURE"));
    let refused = table.get(b"h", b"s").await.unwrap_err();
    assert!(matches!(&refused, Error::Refused { message, .. } if message.contains("FUTURE")), "{refused}");
    assert_eq!((server.received(Rpc::Put), server.received(Rpc::Get)), (4, 1));
}

/// What a server must not send in place of an answer.
fn hostile_answers() -> Vec<Vec<u8>> {
    let mut huge = ((ANSWER_BYTES_MAX + 1) as u32).to_be_bytes().to_vec();
    huge.extend([0; 100]);
    let mut name_of_4_gib = Vec::new();
    answer::append_error(&mut name_of_4_gib, b"GET", 1, ErrorName::Busy);
    name_of_4_gib[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut call = Vec::new();
    answer::append_error(&mut call, b"GET", 1, ErrorName::Busy);
    let kind = 4 + 4 + ErrorName::Busy.text().len() + 3;
    call[kind] = 1;
    vec![
        huge,
        vec![0xff; 64],
        0u32.to_be_bytes().to_vec(),
        5u32.to_be_bytes().into_iter().chain([1]).collect(),
        name_of_4_gib,
        call,
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
    ]
}

#[tokio::test]
async fn hostile_answers_end_their_connection_and_nothing_else() {
    let (server, table) = start(Options::default()).await;
    server.put("temp", b"h", b"s", b"v", 0);
    let hostile = hostile_answers();
    for (number, bytes) in hostile.iter().enumerate() {
        server.fault(Rpc::Put, Fault::Bytes(bytes.clone()));
        let error = table.set(b"h", b"x", b"v", 0).await.unwrap_err();
        assert!(matches!(error, Error::Unknown(_)), "{number}: {error}");
        server.fault(Rpc::Get, Fault::Bytes(bytes.clone()));
        assert_eq!(table.get(b"h", b"s").await.unwrap().unwrap(), "v", "{number}");
    }
    assert_eq!((server.received(Rpc::Put), server.received(Rpc::Get)), (hostile.len(), 2 * hostile.len()));
}

#[tokio::test]
async fn a_result_that_cannot_be_read_is_its_own_callers_matter() {
    let (server, table) = start(Options::default()).await;
    server.put("temp", b"h", b"s", b"v", 0);
    server.fault(Rpc::Put, Fault::Cut(3));
    assert!(matches!(table.set(b"h", b"x", b"v", 0).await, Err(Error::Unknown(_))));
    server.fault(Rpc::Get, Fault::Cut(3));
    assert!(matches!(table.get(b"h", b"s").await, Err(Error::Protocol(_))));
    assert_eq!(table.get(b"h", b"s").await.unwrap().unwrap(), "v");
    assert_eq!((server.received(Rpc::Put), server.received(Rpc::Get)), (1, 2));
}
