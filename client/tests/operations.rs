//! All operations on rows, against servers that answer a few rows at a time.
#![allow(clippy::unwrap_used)]

mod support;

use pegasus_client::{
    Check, CheckAndSet, Error, HashKeyRange, KeyFilter, RangeOptions, ScanOptions, SortKeyRange, Ttl, WriteBatch,
    now_seconds,
};
use pegasus_wire::{MessageKind, Status};

use support::Cluster;
use support::writes::ttl_of;

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
    let value = vec![0u8; 1000 * 1024 + 1];
    let one: [(&str, &str); 1] = [("s", "v")];
    let range = SortKeyRange { stop: long.clone(), ..SortKeyRange::default() };
    let filter = KeyFilter::Anywhere(long.clone());
    let filtered = RangeOptions { filter: filter.clone(), ..RangeOptions::default() };
    let scan = || ScanOptions { hash_key_filter: filter.clone(), ..ScanOptions::default() };
    let hash_keys = HashKeyRange { start: long.clone(), ..HashKeyRange::default() };
    let all = HashKeyRange::default();
    let check = CheckAndSet {
        check_sort_key: b"",
        check: Check::BytesEqual,
        operand: &value,
        set_sort_key: b"",
        value: b"",
        ttl_seconds: 0,
        return_value: false,
    };
    let errors = [
        (table.set("", "s", "v").await.unwrap_err(), "must not be empty"),
        (table.set(&long, "s", "v").await.unwrap_err(), "hash_key_bytes_max"),
        (table.set("h", &long, "v").await.unwrap_err(), "sort_key_bytes_max"),
        (table.set("h", "s", &value).await.unwrap_err(), "value_bytes_max"),
        (table.multi_set("h", &one[..0]).await.unwrap_err(), "at least one row"),
        (table.multi_set("h", &vec![("s", "v"); 1001]).await.unwrap_err(), "write_rows_max"),
        (table.multi_set("h", &[("s", &value[1..]); 3]).await.unwrap_err(), "write_bytes_max"),
        (table.multi_del::<&str>("h", &[]).await.unwrap_err(), "at least one row"),
        (table.write("h", &WriteBatch::new()).await.unwrap_err(), "at least one row"),
        (table.del_range("h", &range).await.unwrap_err(), "sort_key_bytes_max"),
        (table.get("", "s").await.unwrap_err(), "must not be empty"),
        (table.get("h", &long).await.unwrap_err(), "sort_key_bytes_max"),
        (table.incr("h", &long, 1).await.unwrap_err(), "sort_key_bytes_max"),
        (table.incr("", "s", 1).await.unwrap_err(), "must not be empty"),
        (table.check_and_set("h", &check).await.unwrap_err(), "value_bytes_max"),
        (table.compare_exchange("h", "s", None, &value, 0).await.unwrap_err(), "value_bytes_max"),
        (table.multi_get::<&str>("h", &[]).await.unwrap_err(), "at least one"),
        (table.multi_get("h", &vec!["s"; 3001]).await.unwrap_err(), "read_rows_max"),
        (table.multi_get_range("h", &filtered).await.unwrap_err(), "filter_bytes_max"),
        (table.multi_get_sort_keys("h", &range).await.unwrap_err(), "sort_key_bytes_max"),
        (table.count("").await.unwrap_err(), "must not be empty"),
        (table.hash_scan(&long, &SortKeyRange::default(), ScanOptions::default()).err().unwrap(), "hash_key_bytes_max"),
        (table.hash_scan("h", &range, ScanOptions::default()).err().unwrap(), "sort_key_bytes_max"),
        (table.full_scan(scan()).await.err().unwrap(), "filter_bytes_max"),
        (table.partition_scan(0, scan()).err().unwrap(), "filter_bytes_max"),
        (table.scanners(1, scan()).await.err().unwrap(), "filter_bytes_max"),
        (
            table.range_scanners(1, &hash_keys, &range, ScanOptions::default()).await.err().unwrap(),
            "hash_key_bytes_max",
        ),
        (table.range_scanners(1, &all, &range, ScanOptions::default()).await.err().unwrap(), "sort_key_bytes_max"),
        (table.sorted_scan(&hash_keys, &range, ScanOptions::default()).await.err().unwrap(), "hash_key_bytes_max"),
        (table.sorted_scan(&all, &range, ScanOptions::default()).await.err().unwrap(), "sort_key_bytes_max"),
        (table.full_scan(ScanOptions { rows_per_request: 0, ..scan() }).await.err().unwrap(), "read_rows_max"),
    ];
    for (error, limit) in errors {
        assert!(matches!(&error, Error::InvalidArgument(text) if text.contains(limit)), "{limit}: {error:?}");
    }
    assert_eq!(cluster.nodes[0].all_requests(), 0);
    let error = table.partition_scan(8, ScanOptions::default()).unwrap().next().await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_have_expired_are_in_no_answer() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await;
    for (sort_key, expiry) in [("gone", now_seconds() - 1), ("stays", 0), ("still", now_seconds() + 100)] {
        cluster.store.put(4, b"h", sort_key.as_bytes(), b"1", expiry);
    }
    assert!(table.get("h", "gone").await.unwrap().is_none() && !table.exist("h", "gone").await.unwrap());
    assert_eq!(table.ttl("h", "gone").await.unwrap(), None);
    assert_eq!(table.multi_get("h", &["gone", "stays"]).await.unwrap().len(), 1);
    assert_eq!(table.multi_get_sort_keys("h", &SortKeyRange::default()).await.unwrap(), ["stays", "still"]);
    assert_eq!((table.count("h").await.unwrap(), table.count_all().await.unwrap()), (2, 2));
    assert_eq!(table.incr("h", "gone", 5).await.unwrap(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_is_deleted_by_one_write() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    let rows: Vec<(String, &str)> = (0..10).map(|i| (format!("k{i}"), "v")).collect();
    for hash_key in ["g", "h", "ha"] {
        table.multi_set(hash_key, &rows).await.unwrap();
    }
    let all = SortKeyRange::default();
    let range = SortKeyRange { start: "k2".into(), start_inclusive: false, stop: "k5".into(), stop_inclusive: true };
    let before = cluster.nodes[0].requests(MessageKind::WRITE);
    table.del_range("h", &range).await.unwrap();
    assert_eq!(cluster.nodes[0].requests(MessageKind::WRITE), before + 1);
    let left = ["k0", "k1", "k2", "k6", "k7", "k8", "k9"];
    assert_eq!(table.multi_get_sort_keys("h", &all).await.unwrap(), left);
    let reversed = SortKeyRange { start: "k9".into(), stop: "k0".into(), ..all.clone() };
    table.del_range("h", &reversed).await.unwrap();
    let mut batch = WriteBatch::new();
    batch.put("early", "v").delete_range(&all).put("late", "v");
    table.write("h", &batch).await.unwrap();
    assert_eq!(table.multi_get_sort_keys("h", &all).await.unwrap(), ["late"]);
    assert_eq!((table.count("g").await.unwrap(), table.count("ha").await.unwrap()), (10, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_of_a_batch_has_its_own_result() {
    let cluster = Cluster::start(8).await;
    let table = cluster.table().await;
    let long = "x".repeat(1025);
    let rows: Vec<(String, &str, String)> = (0..600)
        .map(
            |i| if i % 100 == 7 { (long.clone(), "s", String::new()) } else { (format!("h{i}"), "s", format!("v{i}")) },
        )
        .collect();
    let written = table.batch_set(&rows, 0).await;
    assert_eq!(written.iter().filter(|outcome| outcome.is_err()).count(), 6);
    assert!(written.iter().enumerate().all(|(i, outcome)| outcome.is_err() == (i % 100 == 7)));
    assert_eq!(cluster.store.rows(), 594);
    let keys: Vec<(&str, &str)> = rows.iter().map(|(hash_key, sort_key, _)| (hash_key.as_str(), *sort_key)).collect();
    // One of them is refused by the server, and the others are not.
    cluster.nodes[0].refuse(1, Status::Internal);
    let (reader, asked) = (table.clone(), rows.clone());
    let found = tokio::spawn(async move {
        let keys: Vec<(&str, &str)> =
            asked.iter().map(|(hash_key, sort_key, _)| (hash_key.as_str(), *sort_key)).collect();
        reader.batch_get(&keys).await
    });
    let found = found.await.unwrap();
    assert_eq!(found.iter().filter(|outcome| matches!(outcome, Err(Error::InvalidArgument(_)))).count(), 6);
    assert_eq!(found.iter().filter(|outcome| matches!(outcome, Err(Error::Refused { .. }))).count(), 1);
    for (outcome, (_, _, value)) in found.iter().zip(&rows).filter(|(outcome, _)| outcome.is_ok()) {
        assert_eq!(outcome.as_ref().unwrap().as_ref().unwrap(), value);
    }
    let deleted = table.batch_del(&keys[..300]).await;
    assert_eq!(deleted.iter().filter(|outcome| outcome.is_err()).count(), 3);
    assert_eq!(cluster.store.rows(), 297);
    assert!(table.batch_get::<&str, &str>(&[]).await.is_empty());
    assert!(table.batch_set(&[("h", "s", "v")], 100).await[0].is_ok());
    assert!((99..=100).contains(&ttl_of(&cluster.partition_of("h"), b"h", b"s")));
}
