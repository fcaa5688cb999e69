//! All operations on rows, against servers that answer a few rows at a time.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use pegasus_client::{Error, RangeOptions, Row, ScanOptions, SortKeyRange, Ttl, WriteBatch};
use pegasus_wire::MessageKind;

use support::{Cluster, Fault};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_written_read_and_deleted() {
    let cluster = Cluster::start(8).await;
    let table = cluster.table().await;
    assert_eq!(table.get("h", "s").await.unwrap(), None);
    assert_eq!(table.ttl("h", "s").await.unwrap(), None);
    table.set("h", "s", b"\0\xFF").await.unwrap();
    table.set("h", "", "").await.unwrap();
    assert_eq!(table.get("h", "s").await.unwrap().unwrap(), &b"\0\xFF"[..]);
    assert_eq!(table.get("h", "").await.unwrap().unwrap(), "");
    assert_eq!(table.ttl("h", "s").await.unwrap(), Some(Ttl::Never));
    table.set_with_ttl("h", "s", "v", 1000).await.unwrap();
    assert!(matches!(table.ttl("h", "s").await.unwrap(), Some(Ttl::Seconds(998..=1000))));
    assert!(table.exist("h", "s").await.unwrap());
    table.del("h", "s").await.unwrap();
    table.del("h", "s").await.unwrap();
    assert!(!table.exist("h", "s").await.unwrap());
    assert_eq!(table.properties().await.unwrap().partition_count, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_one_request() {
    let cluster = Cluster::start(8).await;
    let table = cluster.table().await;
    table.multi_set("h", &[("a", "1"), ("b", "2"), ("c", "3")]).await.unwrap();
    let mut batch = WriteBatch::new();
    batch.put("d", "4").delete("a").put_with_ttl("b", "5", 100);
    table.write("h", &batch).await.unwrap();
    assert_eq!(cluster.nodes[0].requests(MessageKind::WRITE), 2);
    assert_eq!(table.count("h").await.unwrap(), 3);
    assert_eq!(table.get("h", "b").await.unwrap().unwrap(), "5");
    table.multi_del("h", &["b", "c", "none"]).await.unwrap();
    assert_eq!(table.count("h").await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_a_limit_is_not_sent() {
    let cluster = Cluster::start(8).await;
    let table = cluster.table().await;
    let long = vec![0u8; 1025];
    let value = vec![0u8; 400 * 1024 + 1];
    let one: [(&str, &str); 1] = [("s", "v")];
    let errors = [
        table.set("", "s", "v").await.unwrap_err(),
        table.set(&long, "s", "v").await.unwrap_err(),
        table.set("h", &long, "v").await.unwrap_err(),
        table.set("h", "s", &value).await.unwrap_err(),
        table.multi_set("h", &one[..0]).await.unwrap_err(),
        table.multi_set("h", &vec![("s", "v"); 1001]).await.unwrap_err(),
        table.multi_del::<&str>("h", &[]).await.unwrap_err(),
        table.get("", "s").await.unwrap_err(),
        table.get("h", &long).await.unwrap_err(),
        table.multi_get::<&str>("h", &[]).await.unwrap_err(),
        table.count("").await.unwrap_err(),
        table.hash_scan(&long, &SortKeyRange::default(), ScanOptions::default()).err().unwrap(),
        table.full_scan(ScanOptions { rows_per_request: 0, ..ScanOptions::default() }).await.err().unwrap(),
    ];
    for error in errors {
        assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    }
    let sent: usize = [MessageKind::WRITE, MessageKind::GET, MessageKind::MULTI_GET, MessageKind::SCAN]
        .into_iter()
        .map(|kind| cluster.nodes[0].requests(kind))
        .sum();
    assert_eq!(sent, 0);
    let error = table.partition_scan(8, ScanOptions::default()).unwrap().next().await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
}

fn keys(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| std::str::from_utf8(&row.sort_key).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_multi_get_by_keys_is_continued_in_the_order_asked() {
    let cluster = Cluster::start(8).await;
    let table = cluster.table().await;
    let rows: Vec<(String, String)> = (0..10).map(|i| (format!("k{i}"), format!("v{i}"))).collect();
    table.multi_set("h", &rows).await.unwrap();
    let asked = ["k9", "none", "k0", "k5", "k5", "k3", "zero", "k8", "k1"];
    cluster.nodes[0].fault(Fault::Close);
    let found = table.multi_get("h", &asked).await.unwrap();
    assert_eq!(keys(&found), ["k9", "k0", "k5", "k3", "k8", "k1"]);
    assert_eq!(found[0].value, "v9");
    assert_eq!(cluster.nodes[0].requests(MessageKind::MULTI_GET), 4, "three pages, one of them lost once");
    let found = table.multi_exist("h", &asked).await.unwrap();
    assert!(found.len() == 6 && found.iter().all(|row| row.value.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_multi_get_by_range_is_continued_to_its_end_or_its_limit() {
    let cluster = Cluster::start(8).await;
    let table = cluster.table().await;
    let rows: Vec<(String, String)> = (0..10).map(|i| (format!("k{i}"), format!("v{i}"))).collect();
    table.multi_set("h", &rows).await.unwrap();
    table.multi_set("h2", &rows).await.unwrap();
    let all = table.multi_get_range("h", &RangeOptions::default()).await.unwrap();
    assert!(all.complete && all.rows.len() == 10);
    let range = SortKeyRange { start: "k2".into(), start_inclusive: false, stop: "k8".into(), stop_inclusive: true };
    let some = table.multi_get_range("h", &RangeOptions { range: range.clone(), ..Default::default() }).await.unwrap();
    assert_eq!(keys(&some.rows), ["k3", "k4", "k5", "k6", "k7", "k8"]);
    let options = RangeOptions { range, no_value: true, rows_max: 4 };
    let few = table.multi_get_range("h", &options).await.unwrap();
    assert_eq!((keys(&few.rows), few.complete), (vec!["k3", "k4", "k5", "k6"], false));
    assert!(few.rows.iter().all(|row| row.value.is_empty()));
    let exactly = table.multi_get_range("h", &RangeOptions { rows_max: 10, ..Default::default() }).await.unwrap();
    assert!(exactly.complete && exactly.rows.len() == 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_sees_every_row_once_though_connections_are_lost() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await;
    let mut written = BTreeSet::new();
    for index in 0..60 {
        let (hash_key, sort_key) = (format!("h{}", index % 12), format!("s{index}"));
        table.set(&hash_key, &sort_key, format!("v{index}")).await.unwrap();
        written.insert((hash_key, sort_key));
    }
    let mut scanner = table.full_scan(ScanOptions::default()).await.unwrap();
    let mut seen = BTreeSet::new();
    let mut batches = 0;
    while let Some(rows) = scanner.next_batch().await.unwrap() {
        batches += 1;
        if batches % 5 == 0 {
            cluster.nodes[0].fault(Fault::Close);
        }
        for row in rows {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            assert_eq!(text(&row.value)[1..], text(&row.sort_key)[1..]);
            assert!(seen.insert((text(&row.hash_key), text(&row.sort_key))), "a row came twice");
        }
    }
    assert_eq!(seen, written);
    assert_eq!(table.count_all().await.unwrap(), 60);
    assert_eq!(table.count("h3").await.unwrap(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_goes_on_after_an_error() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    let rows: Vec<(String, String)> = (0..7).map(|i| (format!("k{i}"), String::new())).collect();
    table.multi_set("h", &rows).await.unwrap();
    let mut scanner = table.hash_scan("h", &SortKeyRange::default(), ScanOptions::default()).unwrap();
    let mut found = Vec::new();
    for _ in 0..3 {
        found.push(scanner.next().await.unwrap().unwrap().sort_key);
    }
    cluster.nodes[0].refuse(1, pegasus_wire::Status::Internal);
    assert!(matches!(scanner.next().await.unwrap_err(), Error::Refused { .. }));
    while let Some(row) = scanner.next().await.unwrap() {
        found.push(row.sort_key);
    }
    assert_eq!(found.len(), 7);
    assert!(found.is_sorted());
    assert!(scanner.next().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hash_scan_stays_inside_its_range() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    let rows: Vec<(String, String)> = (0..9).map(|i| (format!("k{i}"), format!("v{i}"))).collect();
    for hash_key in ["g", "h", "h\0", "i"] {
        table.multi_set(hash_key, &rows).await.unwrap();
    }
    let range = SortKeyRange { start: "k2".into(), stop: "k7".into(), ..SortKeyRange::default() };
    let options = ScanOptions { no_value: true, rows_per_request: 2 };
    let mut scanner = table.hash_scan("h", &range, options).unwrap();
    let mut found = Vec::new();
    while let Some(row) = scanner.next().await.unwrap() {
        assert!(row.hash_key == "h" && row.value.is_empty());
        found.push(String::from_utf8(row.sort_key.to_vec()).unwrap());
    }
    assert_eq!(found, ["k2", "k3", "k4", "k5", "k6"]);
}
