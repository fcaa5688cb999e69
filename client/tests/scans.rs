//! Scans and their contexts, against servers that answer a few rows at a time.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pegasus_client::{Error, HashKeyRange, KeyFilter, ScanOptions, ScanRow, Scanner, SortKeyRange, Table, now_seconds};
use pegasus_wire::{MessageKind, Status};

use support::{Cluster, Fault};

type Keys = BTreeSet<(String, String)>;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn key_of(row: &ScanRow) -> (String, String) {
    (text(&row.hash_key), text(&row.sort_key))
}

/// 60 rows of 12 hash keys.
async fn with_rows(partition_count: u32) -> (Cluster, Table, Keys) {
    let cluster = Cluster::start(partition_count).await;
    let table = cluster.table().await;
    let mut written = Keys::new();
    for index in 0..60 {
        let (hash_key, sort_key) = (format!("h{}", index % 12), format!("s{index:02}"));
        let value = format!("v{index:02}");
        cluster.store.put(partition_count, hash_key.as_bytes(), sort_key.as_bytes(), value.as_bytes(), 0);
        written.insert((hash_key, sort_key));
    }
    (cluster, table, written)
}

async fn all(scanner: &mut Scanner) -> Vec<ScanRow> {
    let mut rows = Vec::new();
    while let Some(row) = scanner.next().await.unwrap() {
        rows.push(row);
    }
    rows
}

/// The keys of rows, each of which came once.
fn distinct(rows: &[ScanRow]) -> Keys {
    let keys: Keys = rows.iter().map(key_of).collect();
    assert_eq!(keys.len(), rows.len(), "a row came twice");
    keys
}

/// Waits until the nodes keep no contexts.
async fn no_contexts(cluster: &Cluster) {
    let patience = Instant::now() + Duration::from_secs(20);
    while cluster.storage.iter().any(|node| node.contexts() > 0) {
        assert!(Instant::now() < patience, "contexts are still kept");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_comes_once_though_connections_are_lost() {
    let (cluster, table, written) = with_rows(4).await;
    for reverse in [false, true] {
        let mut scanner = table.full_scan(ScanOptions { reverse, ..ScanOptions::default() }).await.unwrap();
        let mut seen = Vec::new();
        let mut batches = 0;
        while let Some(rows) = scanner.next_batch().await.unwrap() {
            batches += 1;
            if batches % 5 == 0 {
                cluster.nodes[0].fault(Fault::Close);
            }
            for row in &rows {
                assert_eq!(text(&row.value)[1..], text(&row.sort_key)[1..]);
            }
            seen.extend(rows);
        }
        assert_eq!(distinct(&seen), written);
        assert_eq!(scanner.snapshots(), 4);
    }
    assert_eq!((table.count_all().await.unwrap(), table.count("h3").await.unwrap()), (60, 5));
    no_contexts(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_is_of_one_moment_while_its_context_lives() {
    let (cluster, table, written) = with_rows(1).await;
    for snapshot in [true, false] {
        let mut scanner = table.full_scan(ScanOptions { snapshot, ..ScanOptions::default() }).await.unwrap();
        let first = scanner.next_batch().await.unwrap().unwrap();
        assert_eq!(cluster.storage[0].contexts(), usize::from(snapshot));
        table.set("zzz", "new", "").await.unwrap();
        table.del("h11", "s59").await.unwrap();
        let mut rows = all(&mut scanner).await;
        rows.extend(first);
        let seen = distinct(&rows);
        assert_eq!((seen == written, scanner.snapshots() == 1), (snapshot, snapshot));
        assert_eq!(seen.contains(&("zzz".into(), "new".into())), !snapshot);
        table.del("zzz", "new").await.unwrap();
        table.set("h11", "s59", "v59").await.unwrap();
    }
    assert_eq!(cluster.storage[0].contexts(), 0, "the end of a scan ends its context");
    assert_eq!(cluster.nodes[0].requests(MessageKind::END_SCAN), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_goes_on_with_a_newer_snapshot_when_its_context_is_lost() {
    let (cluster, table, written) = with_rows(1).await;
    let mut scanner = table.full_scan(ScanOptions::default()).await.unwrap();
    let mut rows = scanner.next_batch().await.unwrap().unwrap();
    table.set("zzz", "new", "").await.unwrap();
    rows.extend(scanner.next_batch().await.unwrap().unwrap());
    assert_eq!(scanner.snapshots(), 1);
    // It expires; then the partition moves to a node that has never heard of it.
    cluster.storage[0].lose_contexts();
    rows.extend(scanner.next_batch().await.unwrap().unwrap());
    assert_eq!(scanner.snapshots(), 2);
    cluster.meta_state.lock().unwrap().appoint(2);
    cluster.nodes[0].always(Some(Fault::Status(Status::NotPrimary, None)));
    rows.extend(scanner.next_batch().await.unwrap().unwrap());
    assert_eq!((scanner.snapshots(), cluster.storage[1].contexts()), (3, 1));
    table.set("zzz", "newer", "").await.unwrap();
    rows.extend(all(&mut scanner).await);
    let seen = distinct(&rows);
    assert!(seen.is_superset(&written));
    assert!(seen.contains(&("zzz".into(), "new".into())) && !seen.contains(&("zzz".into(), "newer".into())));
    assert_eq!(scanner.snapshots(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_that_is_dropped_ends_its_context() {
    let (cluster, table, _) = with_rows(4).await;
    let mut scanner = table.full_scan(ScanOptions::default()).await.unwrap();
    scanner.next().await.unwrap().unwrap();
    assert_eq!(cluster.storage[0].contexts(), 1);
    drop(scanner);
    cluster.nodes[0].asked(MessageKind::END_SCAN, 1).await;
    no_contexts(&cluster).await;
    // One that is dropped where no runtime is, too.
    let mut scanner = table.hash_scan("h3", &SortKeyRange::default(), ScanOptions::default()).unwrap();
    scanner.next().await.unwrap().unwrap();
    std::thread::spawn(move || drop(scanner)).join().unwrap();
    cluster.nodes[0].asked(MessageKind::END_SCAN, 2).await;
    no_contexts(&cluster).await;
    // Nothing is told of what the server does not keep.
    let mut scanner = table.hash_scan("h3", &SortKeyRange::default(), ScanOptions::default()).unwrap();
    all(&mut scanner).await;
    drop(scanner);
    drop(table.full_scan(ScanOptions::default()).await.unwrap());
    let mut scanner = table.full_scan(ScanOptions { snapshot: false, ..ScanOptions::default() }).await.unwrap();
    scanner.next().await.unwrap().unwrap();
    drop(scanner);
    table.get("h", "s").await.unwrap();
    assert_eq!(cluster.nodes[0].requests(MessageKind::END_SCAN), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_dropped_scan_is_not_waited_for() {
    let (cluster, table, _) = with_rows(1).await;
    let mut scanner = table.full_scan(ScanOptions::default()).await.unwrap();
    scanner.next().await.unwrap().unwrap();
    cluster.nodes[0].close().await;
    let begun = Instant::now();
    drop(scanner);
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_goes_on_after_an_error_and_loses_nothing_when_given_up() {
    let (cluster, table, _) = with_rows(1).await;
    let mut scanner = table.hash_scan("h3", &SortKeyRange::default(), ScanOptions::default()).unwrap();
    let mut found = Vec::new();
    for _ in 0..3 {
        found.push(scanner.next().await.unwrap().unwrap().sort_key);
    }
    cluster.nodes[0].refuse(1, Status::Internal);
    assert!(matches!(scanner.next().await.unwrap_err(), Error::Refused { .. }));
    // The answer is lost, and the caller does not wait for it.
    cluster.nodes[0].fault(Fault::Silence);
    assert!(tokio::time::timeout(Duration::from_millis(50), scanner.next()).await.is_err());
    while let Some(row) = scanner.next().await.unwrap() {
        found.push(row.sort_key);
    }
    assert_eq!(found, ["s03", "s15", "s27", "s39", "s51"]);
    assert!(scanner.next().await.unwrap().is_none() && scanner.next_batch().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hash_scan_stays_inside_its_range_in_both_directions() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    let rows: Vec<(String, String)> = (0..9).map(|i| (format!("k{i}"), format!("v{i}"))).collect();
    for hash_key in ["g", "h", "h\0", "i"] {
        table.multi_set(hash_key, &rows).await.unwrap();
    }
    let range = SortKeyRange { start: "k2".into(), stop: "k7".into(), ..SortKeyRange::default() };
    for reverse in [false, true] {
        let options = ScanOptions { no_value: true, rows_per_request: 2, reverse, ..ScanOptions::default() };
        let found = all(&mut table.hash_scan("h", &range, options).unwrap()).await;
        assert!(found.iter().all(|row| row.hash_key == "h" && row.value.is_empty()));
        let mut keys: Vec<String> = found.iter().map(|row| text(&row.sort_key)).collect();
        if reverse {
            keys.reverse();
        }
        assert_eq!(keys, ["k2", "k3", "k4", "k5", "k6"]);
    }
    let odd = KeyFilter::Postfix("3".into());
    let options = ScanOptions { sort_key_filter: odd, ..ScanOptions::default() };
    let found = all(&mut table.hash_scan("h", &SortKeyRange::default(), options).unwrap()).await;
    assert_eq!(found.len(), 1);
    let reversed = SortKeyRange { start: "k7".into(), stop: "k2".into(), ..SortKeyRange::default() };
    let mut scanner = table.hash_scan("h", &reversed, ScanOptions::default()).unwrap();
    assert!(scanner.next().await.unwrap().is_none() && scanner.snapshots() == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_are_applied_by_the_servers() {
    let (cluster, table, written) = with_rows(4).await;
    cluster.store.put(4, b"h1", b"s13x", b"gone", now_seconds() - 5);
    let options = ScanOptions {
        hash_key_filter: KeyFilter::Prefix("h1".into()),
        sort_key_filter: KeyFilter::Anywhere("3".into()),
        ..ScanOptions::default()
    };
    let wanted: Keys = written.iter().filter(|(h, s)| h.starts_with("h1") && s.contains('3')).cloned().collect();
    assert!(wanted.len() > 3);
    for reverse in [false, true] {
        let options = ScanOptions { reverse, ..options.clone() };
        let mut scanner = table.full_scan(options.clone()).await.unwrap();
        assert_eq!(distinct(&all(&mut scanner).await), wanted);
        assert_eq!(table.full_scan(options).await.unwrap().count().await.unwrap(), wanted.len() as u64);
    }
    let nothing = ScanOptions { hash_key_filter: KeyFilter::Exact("none".into()), ..ScanOptions::default() };
    let mut scanner = table.full_scan(nothing).await.unwrap();
    assert!(scanner.next_batch().await.unwrap().is_none(), "answers without rows do not end a scan too early");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_counts_what_is_left_and_survives_errors() {
    let (cluster, table, _) = with_rows(4).await;
    let mut scanner = table.full_scan(ScanOptions::default()).await.unwrap();
    for _ in 0..7 {
        scanner.next().await.unwrap().unwrap();
    }
    cluster.nodes[0].refuse(1, Status::Internal);
    assert!(scanner.count().await.is_err());
    let sent = cluster.nodes[0].requests(MessageKind::SCAN);
    assert_eq!(scanner.count().await.unwrap(), 53);
    assert!(cluster.nodes[0].requests(MessageKind::SCAN) - sent < 20, "by five rows, not by three");
    assert_eq!(scanner.count().await.unwrap(), 0, "nothing is left");
    assert!(scanner.next().await.unwrap().is_none());
    no_contexts(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scanners_share_a_table_out() {
    let (cluster, table, written) = with_rows(8).await;
    for (max_split, expected) in [(0, 8), (1, 1), (3, 3), (100, 8)] {
        let scanners = table.scanners(max_split, ScanOptions::default()).await.unwrap();
        assert_eq!(scanners.len(), expected);
        let tasks = scanners.into_iter().map(|mut scanner| tokio::spawn(async move { all(&mut scanner).await }));
        let mut rows = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            rows.extend(task.await.unwrap());
        }
        assert_eq!(distinct(&rows), written);
    }
    no_contexts(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn range_scanners_take_hash_keys_in_stored_order_and_sort_keys_of_each() {
    let (_cluster, table, written) = with_rows(4).await;
    // In stored order h10 and h11 come after h9.
    let hash_keys =
        HashKeyRange { start: "h8".into(), start_inclusive: false, stop: "h10".into(), stop_inclusive: true };
    let sort_keys = SortKeyRange { start: "s20".into(), stop: "s50".into(), ..SortKeyRange::default() };
    let wanted: Keys = written
        .iter()
        .filter(|(hash_key, sort_key)| {
            ["h9", "h10"].contains(&&hash_key[..]) && sort_key >= &"s20".to_owned() && sort_key < &"s50".to_owned()
        })
        .cloned()
        .collect();
    assert_eq!(wanted.len(), 6);
    for reverse in [false, true] {
        let mut rows = Vec::new();
        let options = ScanOptions { reverse, ..ScanOptions::default() };
        for mut scanner in table.range_scanners(2, &hash_keys, &sort_keys, options).await.unwrap() {
            rows.extend(all(&mut scanner).await);
        }
        assert_eq!(distinct(&rows), wanted);
    }
    let reversed = HashKeyRange { start: "h10".into(), stop: "h9".into(), ..HashKeyRange::default() };
    for mut scanner in table.range_scanners(0, &reversed, &sort_keys, ScanOptions::default()).await.unwrap() {
        assert!(scanner.next().await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_scanned_one_by_one_or_in_order_from_either_end() {
    let (_cluster, table, written) = with_rows(4).await;
    let mut rows = Vec::new();
    for index in 0..4 {
        let forward = all(&mut table.partition_scan(index, ScanOptions::default()).unwrap()).await;
        let options = ScanOptions { reverse: true, ..ScanOptions::default() };
        let mut backward = all(&mut table.partition_scan(index, options).unwrap()).await;
        backward.reverse();
        assert_eq!(forward, backward);
        let order = |row: &ScanRow| (row.hash_key.len(), row.hash_key.clone(), row.sort_key.clone());
        assert!(forward.is_sorted_by_key(order));
        rows.extend(forward);
    }
    assert_eq!(distinct(&rows), written);
}
