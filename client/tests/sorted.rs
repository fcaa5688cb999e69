//! The sorted scanner, against a sort of everything.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use pegasus_client::{HashKeyRange, KeyFilter, ScanOptions, ScanRow, SortKeyRange, SortedScanner, Table, now_seconds};
use pegasus_wire::{MessageKind, Status};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use support::{Cluster, Fault};

type Key = (Vec<u8>, Vec<u8>);
type Rows = BTreeMap<Key, Vec<u8>>;

async fn all(scanner: &mut SortedScanner) -> Vec<ScanRow> {
    let mut rows = Vec::new();
    while let Some(row) = scanner.next().await.unwrap() {
        rows.push(row);
    }
    rows
}

fn told(rows: &[ScanRow]) -> Vec<(Key, Vec<u8>)> {
    rows.iter().map(|row| ((row.hash_key.to_vec(), row.sort_key.to_vec()), row.value.to_vec())).collect()
}

fn load(cluster: &Cluster, partition_count: u32, rows: &Rows) {
    cluster.store.clear();
    for ((hash_key, sort_key), value) in rows {
        cluster.store.put(partition_count, hash_key, sort_key, value, 0);
    }
}

/// Rows of every length from 1 to 9, so that each length is in several partitions.
fn mixed() -> Rows {
    let mut rows = Rows::new();
    for index in 0..120u32 {
        let length = 1 + (index % 9) as usize;
        let hash_key: Vec<u8> = (0..length).map(|at| b'a' + (index as usize * 7 + at * 3) as u8 % 5).collect();
        rows.insert((hash_key, index.to_be_bytes().to_vec()), vec![index as u8]);
    }
    rows
}

fn keys_of(rows: &Rows) -> Vec<(Key, Vec<u8>)> {
    rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

async fn sorted(table: &Table, options: ScanOptions) -> SortedScanner {
    table.sorted_scan(&HashKeyRange::default(), &SortKeyRange::default(), options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hash_keys_of_mixed_lengths_come_in_the_order_of_their_bytes() {
    let cluster = Cluster::start(8).await;
    let table = cluster.table().await;
    let rows = mixed();
    load(&cluster, 8, &rows);
    let mut expected = keys_of(&rows);
    assert_eq!(told(&all(&mut sorted(&table, ScanOptions::default()).await).await), expected);
    let mut scanner = sorted(&table, ScanOptions { reverse: true, ..ScanOptions::default() }).await;
    let mut found = Vec::new();
    while let Some(rows) = scanner.next_batch().await.unwrap() {
        assert!(!rows.is_empty());
        found.extend(rows);
    }
    expected.reverse();
    assert_eq!(told(&found), expected);
    assert!(scanner.next().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sorted_scan_survives_errors_lost_contexts_and_moves() {
    let cluster = Cluster::start(8).await;
    let table = cluster.table().await;
    let rows = mixed();
    load(&cluster, 8, &rows);
    cluster.nodes[0].fault(Fault::Close);
    let mut scanner = sorted(&table, ScanOptions::default()).await;
    let mut found = vec![scanner.next().await.unwrap().unwrap()];
    let walks = scanner.snapshots();
    let mut errors = 0;
    loop {
        match found.len() % 20 {
            3 => cluster.nodes[0].refuse(1, Status::Internal),
            7 => cluster.storage[0].lose_contexts(),
            11 => cluster.nodes[0].fault(Fault::Close),
            15 => {
                let elsewhere = Some(cluster.nodes[1].address);
                cluster.nodes[0].fault(Fault::Status(Status::NotPrimary, elsewhere));
            }
            _ => {}
        }
        match scanner.next().await {
            Ok(Some(row)) => found.push(row),
            Ok(None) => break,
            Err(_) => errors += 1,
        }
    }
    assert!(errors > 0 && cluster.nodes[1].requests(MessageKind::SCAN) > 0);
    assert!(walks > 30 && scanner.snapshots() > walks, "{walks} walks, {} moments", scanner.snapshots());
    assert_eq!(told(&found), keys_of(&rows));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_written_meanwhile_are_in_no_answer_of_an_older_snapshot() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    let rows = mixed();
    load(&cluster, 1, &rows);
    let mut scanner = sorted(&table, ScanOptions::default()).await;
    let mut found = vec![scanner.next().await.unwrap().unwrap()];
    assert_eq!(scanner.snapshots(), 9, "one for each length");
    for (hash_key, _) in rows.keys() {
        table.set(hash_key, b"\xFF new", "").await.unwrap();
    }
    found.extend(all(&mut scanner).await);
    assert_eq!(told(&found), keys_of(&rows));
    assert_eq!(scanner.snapshots(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_lengths_cost_few_requests_and_a_dropped_scan_ends_its_contexts() {
    let cluster = Cluster::start(2).await;
    let table = cluster.table().await;
    let rows = (0..40u8).map(|index| ((vec![b'k', index], vec![]), vec![]));
    load(&cluster, 2, &rows.collect());
    // Rows that have expired are no reason to ask on and on.
    for index in 0..20 {
        cluster.store.put(2, &[b'e'; 3], &[index], b"", now_seconds() - 1);
    }
    let mut scanner = sorted(&table, ScanOptions::default()).await;
    assert!(
        cluster.nodes[0].requests(MessageKind::SCAN) <= 2 * 3,
        "one for each length, and one to find that it was the last"
    );
    scanner.next().await.unwrap().unwrap();
    assert_eq!(cluster.storage[0].contexts(), 2);
    drop(scanner);
    cluster.nodes[0].asked(MessageKind::END_SCAN, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_table_has_no_rows() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await;
    let mut scanner = sorted(&table, ScanOptions::default()).await;
    assert!(scanner.next_batch().await.unwrap().is_none() && scanner.next().await.unwrap().is_none());
    assert_eq!((scanner.snapshots(), cluster.nodes[0].requests(MessageKind::SCAN)), (0, 4));
}

fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0u8), Just(b'a'), Just(b'b'), Just(0xFE), Just(0xFF)]
}

fn hash_key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(byte(), 1..5)
}

fn sort_key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(byte(), 0..3)
}

fn end(key: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![key, Just(Vec::new())]
}

fn filter() -> impl Strategy<Value = KeyFilter> {
    let pattern = || proptest::collection::vec(byte(), 0..3);
    prop_oneof![
        4 => Just(KeyFilter::None),
        1 => pattern().prop_map(KeyFilter::Anywhere),
        1 => pattern().prop_map(KeyFilter::Prefix),
        1 => pattern().prop_map(KeyFilter::Postfix),
        1 => pattern().prop_map(KeyFilter::Exact),
    ]
}

fn hash_keys() -> impl Strategy<Value = HashKeyRange> {
    (end(hash_key()), any::<bool>(), end(hash_key()), any::<bool>()).prop_map(
        |(start, start_inclusive, stop, stop_inclusive)| HashKeyRange { start, start_inclusive, stop, stop_inclusive },
    )
}

fn sort_keys() -> impl Strategy<Value = SortKeyRange> {
    (end(sort_key()), any::<bool>(), end(sort_key()), any::<bool>()).prop_map(
        |(start, start_inclusive, stop, stop_inclusive)| SortKeyRange { start, start_inclusive, stop, stop_inclusive },
    )
}

fn options() -> impl Strategy<Value = ScanOptions> {
    (any::<bool>(), any::<bool>(), 1u32..6, filter(), filter()).prop_map(
        |(reverse, snapshot, rows_per_request, hash_key_filter, sort_key_filter)| ScanOptions {
            no_value: false,
            rows_per_request,
            reverse,
            hash_key_filter,
            sort_key_filter,
            snapshot,
        },
    )
}

/// Whether a key is between two ends, in the order of its bytes.
fn between(key: &[u8], start: &[u8], start_inclusive: bool, stop: &[u8], stop_inclusive: bool) -> bool {
    let after_start = key > start || (start_inclusive && key == start);
    after_start && (stop.is_empty() || key < stop || (stop_inclusive && key == stop))
}

fn expected(
    rows: &Rows,
    hash_keys: &HashKeyRange,
    sort_keys: &SortKeyRange,
    options: &ScanOptions,
) -> Vec<(Key, Vec<u8>)> {
    let wanted = |(hash_key, sort_key): &Key| {
        let (of_hash, of_sort) = (hash_keys, sort_keys);
        between(hash_key, &of_hash.start, of_hash.start_inclusive, &of_hash.stop, of_hash.stop_inclusive)
            && between(sort_key, &of_sort.start, of_sort.start_inclusive, &of_sort.stop, of_sort.stop_inclusive)
            && options.hash_key_filter.matches(hash_key)
            && options.sort_key_filter.matches(sort_key)
    };
    let mut found: Vec<(Key, Vec<u8>)> = keys_of(rows).into_iter().filter(|(key, _)| wanted(key)).collect();
    if options.reverse {
        found.reverse();
    }
    found
}

#[test]
fn a_sorted_scan_equals_a_sort() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = runtime.block_on(Cluster::start(4));
    let table = runtime.block_on(cluster.table());
    let row = ((hash_key(), sort_key()), proptest::collection::vec(any::<u8>(), 0..2));
    let cases = (proptest::collection::vec(row, 0..60), hash_keys(), sort_keys(), options());
    let mut runner = TestRunner::new(Config { cases: 1000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&cases, |(rows, hash_keys, sort_keys, options)| {
        let rows: Rows = rows.into_iter().collect();
        load(&cluster, 4, &rows);
        let found = runtime.block_on(async {
            let mut scanner = table.sorted_scan(&hash_keys, &sort_keys, options.clone()).await.unwrap();
            all(&mut scanner).await
        });
        prop_assert_eq!(told(&found), expected(&rows, &hash_keys, &sort_keys, &options));
        Ok(())
    });
    outcome.unwrap();
}
