//! Scans over batches, lost contexts, partitions that move, and servers that do not tell expiries.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use pegasus_driver::{Cluster, Error, Filter, FilterType, Options, ScanOptions, ScanRow, Scanner, Table, now_seconds};
use pegasus_gateway::Rpc;
use pegasus_gateway::answer;
use pegasus_gateway::messages::read::{KeyValue, SCAN_COMPLETE, ScanResponse};
use pegasus_gateway::thrift::Blob;
use pegasus_stand_in::{Fault, StandIn};

const ROWS: u32 = 100;

/// A table of one partition with rows, every third of which expires.
async fn start() -> (StandIn, Table) {
    let server = StandIn::start(2).await;
    server.create("temp", 1);
    for row in 0..ROWS {
        let expiry = if row % 3 == 0 { now_seconds() + 1000 + row } else { 0 };
        server.put("temp", format!("h{:02}", row / 7).as_bytes(), &row.to_be_bytes(), b"value", expiry);
    }
    let cluster = Cluster::connect(&server.meta_servers(), Options::default()).await.unwrap();
    let table = cluster.table("temp").await.unwrap();
    (server, table)
}

fn options(rows_per_request: u32) -> ScanOptions {
    ScanOptions { rows_per_request, ..ScanOptions::default() }
}

async fn all(scanner: &mut Scanner) -> Vec<ScanRow> {
    let mut rows = Vec::new();
    while let Some(batch) = scanner.next_batch().await.unwrap() {
        assert!(!batch.is_empty());
        rows.extend(batch);
    }
    rows
}

fn as_stored(rows: Vec<ScanRow>) -> Vec<pegasus_stand_in::Row> {
    let row = |row: ScanRow| (row.hash_key.to_vec(), row.sort_key.to_vec(), row.value.to_vec(), row.expiry_seconds);
    rows.into_iter().map(row).collect()
}

#[tokio::test]
async fn a_partition_is_read_in_batches_with_expiries() {
    let (server, table) = start().await;
    for rows_per_request in [1, 7, 1000] {
        let options = ScanOptions { expiry: true, ..options(rows_per_request) };
        let mut scanner = table.partition_scan(0, options).unwrap();
        assert_eq!(as_stored(all(&mut scanner).await), server.rows("temp"));
        assert_eq!(scanner.next_batch().await, Ok(None), "the end stays the end");
    }
    assert_eq!((server.open_scans(), server.received(Rpc::GetScanner), server.received(Rpc::Ttl)), (0, 3, 0));
    let error = table.partition_scan(1, options(1)).map(|_| ()).unwrap_err();
    assert_eq!(error, Error::Invalid("partition 1 of 1".to_owned()));
}

#[tokio::test]
async fn expiries_are_not_told_unless_asked_for() {
    let (_server, table) = start().await;
    let rows = all(&mut table.partition_scan(0, options(1000)).unwrap()).await;
    assert!(rows.iter().all(|row| row.expiry_seconds == 0));
}

#[tokio::test]
async fn one_hash_key_is_read_and_no_other() {
    let (_server, table) = start().await;
    let rows = all(&mut table.hash_scan(b"h03", ScanOptions { no_value: true, ..options(3) }).unwrap()).await;
    assert_eq!(rows.len(), 7);
    assert!(rows.iter().all(|row| row.hash_key == "h03" && row.value.is_empty()));
    assert!(all(&mut table.hash_scan(b"h0", options(3)).unwrap()).await.is_empty());
}

#[tokio::test]
async fn filters_are_the_servers() {
    let (_server, table) = start().await;
    let hash_key_filter = Filter { kind: FilterType::POSTFIX, pattern: b"2".to_vec() };
    let sort_key_filter = Filter { kind: FilterType::ANYWHERE, pattern: vec![15] };
    let options = ScanOptions { hash_key_filter, sort_key_filter, ..options(10) };
    let rows = all(&mut table.partition_scan(0, options).unwrap()).await;
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0].hash_key[..], &rows[0].sort_key[..]), (&b"h02"[..], &15u32.to_be_bytes()[..]));
}

#[tokio::test]
async fn a_scan_that_is_forgotten_goes_on_behind_its_last_row() {
    let (server, table) = start().await;
    let mut scanner = table.partition_scan(0, options(10)).unwrap();
    let mut rows = scanner.next_batch().await.unwrap().unwrap();
    server.forget_scans();
    rows.extend(scanner.next_batch().await.unwrap().unwrap());
    // Another node knows nothing of the scan.
    server.forget_scans();
    server.move_partition("temp", 0, 1);
    rows.extend(scanner.next_batch().await.unwrap().unwrap());
    // Nobody knows whether the server has gone on.
    server.fault(Rpc::Scan, Fault::CloseAfter);
    rows.extend(all(&mut scanner).await);
    assert_eq!(rows.len(), ROWS as usize);
    let keys: BTreeSet<_> = rows.iter().map(|row| (row.hash_key.clone(), row.sort_key.clone())).collect();
    assert_eq!(keys.len(), rows.len());
    assert_eq!(server.received(Rpc::GetScanner), 4);
}

#[tokio::test]
async fn an_error_and_a_dropped_future_lose_no_rows() {
    let (server, table) = start().await;
    let mut scanner = table.partition_scan(0, options(30)).unwrap();
    let mut rows = scanner.next_batch().await.unwrap().unwrap();
    server.fault(Rpc::Scan, Fault::Error("ERR_INVALID_DATA"));
    assert!(matches!(scanner.next_batch().await, Err(Error::Refused { .. })));
    {
        let dropped = scanner.next_batch();
        let mut dropped = std::pin::pin!(dropped);
        // Polled once: the question is on its way, and its answer will not be heard.
        let polled = futures_util::poll!(dropped.as_mut());
        assert!(polled.is_pending());
    }
    rows.extend(all(&mut scanner).await);
    assert_eq!(rows.len(), ROWS as usize);
}

#[tokio::test]
async fn a_scan_that_is_dropped_is_ended() {
    let (server, table) = start().await;
    let mut scanner = table.partition_scan(0, options(10)).unwrap();
    scanner.next_batch().await.unwrap();
    assert_eq!(server.open_scans(), 1);
    drop(scanner);
    // On the same connection, so it is behind the request that ends the scan.
    table.get(b"h", b"s").await.unwrap();
    assert_eq!((server.open_scans(), server.received(Rpc::ClearScanner)), (0, 1));
}

#[tokio::test]
async fn a_server_that_does_not_tell_expiries_is_asked_row_by_row() {
    let (server, table) = start().await;
    server.become_old();
    server.put("temp", b"h99", b"past", b"v", 1);
    let mut scanner = table.partition_scan(0, ScanOptions { expiry: true, ..options(10) }).unwrap();
    let (rows, mut expected) = (as_stored(all(&mut scanner).await), server.rows("temp"));
    expected.retain(|row| row.3 != 1);
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!((&row.0, &row.1, &row.2), (&expected.0, &expected.1, &expected.2));
        assert!(row.3.abs_diff(expected.3) <= 2, "{row:?} {expected:?}");
        assert_eq!(row.3 == 0, expected.3 == 0);
    }
    assert_eq!(server.received(Rpc::Ttl), ROWS as usize);
}

/// A whole answer to the first request on its connection that a scan makes.
fn scan_answer(rpc: Rpc, sequence: i32, keys: &[&[u8]], context_id: i64) -> Vec<u8> {
    let kvs = keys.iter().map(|key| KeyValue { key: Blob(key), ..KeyValue::default() }).collect();
    let mut out = Vec::new();
    let response = ScanResponse { kvs, context_id, ..ScanResponse::default() };
    answer::append_result(&mut out, rpc.name().as_bytes(), sequence, &response);
    out
}

#[tokio::test]
async fn scans_that_cannot_be_are_refused() {
    let cases: [(&[&[u8]], i64); 5] = [
        (&[b"\0\x01b", b"\0\x01a"], SCAN_COMPLETE),
        (&[b"\0\x01a", b"\0\x01a"], SCAN_COMPLETE),
        (&[b"\0\x09a"], SCAN_COMPLETE),
        (&[b"\0"], SCAN_COMPLETE),
        (&[b"\0\x01a"], -7),
    ];
    for (number, (keys, context)) in cases.into_iter().enumerate() {
        let (server, table) = start().await;
        // The first request on the connection to the node.
        server.fault(Rpc::GetScanner, Fault::Bytes(scan_answer(Rpc::GetScanner, 1, keys, context)));
        let outcome = table.partition_scan(0, options(10)).unwrap().next_batch().await;
        assert!(matches!(outcome, Err(Error::Protocol(_))), "{number}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_server_that_forgets_every_scan_is_left_in_the_end() {
    let (server, table) = start().await;
    for sequence in 1..100 {
        // Nothing, and a context that nobody knows.
        server.fault(Rpc::GetScanner, Fault::Bytes(scan_answer(Rpc::GetScanner, 2 * sequence - 1, &[], 7)));
    }
    let mut scanner = table.partition_scan(0, options(10)).unwrap();
    let error = scanner.next_batch().await.unwrap_err();
    assert!(matches!(&error, Error::Timeout(text) if text.contains("forgets")), "{error}");
}
