//! Reads of several rows of one hash key, against servers that answer a few rows at a time.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use pegasus_client::{KeyFilter, RangeOptions, Row, SortKeyRange, Table};
use pegasus_wire::MessageKind;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use support::{Cluster, Fault};

fn keys(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| std::str::from_utf8(&row.sort_key).unwrap()).collect()
}

async fn with_rows(partition_count: u32) -> (Cluster, Table) {
    let cluster = Cluster::start(partition_count).await;
    let table = cluster.table().await;
    let rows: Vec<(String, String)> = (0..10).map(|i| (format!("k{i}"), format!("v{i}"))).collect();
    for hash_key in ["g", "h", "h2"] {
        table.multi_set(hash_key, &rows).await.unwrap();
    }
    (cluster, table)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_multi_get_by_keys_is_continued_in_the_order_asked() {
    let (cluster, table) = with_rows(8).await;
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
async fn a_range_is_continued_to_its_end_or_its_limit() {
    let (cluster, table) = with_rows(8).await;
    let all = table.multi_get_range("h", &RangeOptions::default()).await.unwrap();
    assert!(all.complete && all.rows.len() == 10);
    let range = SortKeyRange { start: "k2".into(), start_inclusive: false, stop: "k8".into(), stop_inclusive: true };
    let options = RangeOptions { range, ..RangeOptions::default() };
    let some = table.multi_get_range("h", &options).await.unwrap();
    assert_eq!(keys(&some.rows), ["k3", "k4", "k5", "k6", "k7", "k8"]);
    let few = RangeOptions { no_value: true, rows_max: 4, ..options.clone() };
    let found = table.multi_get_range("h", &few).await.unwrap();
    assert_eq!((keys(&found.rows), found.complete), (vec!["k3", "k4", "k5", "k6"], false));
    assert!(found.rows.iter().all(|row| row.value.is_empty()));
    let last = RangeOptions { reverse: true, ..few };
    cluster.nodes[0].fault(Fault::Close);
    let found = table.multi_get_range("h", &last).await.unwrap();
    assert_eq!((keys(&found.rows), found.complete), (vec!["k5", "k6", "k7", "k8"], false));
    let exactly = RangeOptions { rows_max: 10, ..RangeOptions::default() };
    let exactly = table.multi_get_range("h", &exactly).await.unwrap();
    assert!(exactly.complete && exactly.rows.len() == 10);
    let by_size = |bytes_max| RangeOptions { bytes_max, ..RangeOptions::default() };
    let found = table.multi_get_range("h", &by_size(17)).await.unwrap();
    assert_eq!((found.rows.len(), found.complete), (5, false), "four bytes each, and the fifth reaches it");
    let before = cluster.nodes[0].all_requests();
    let found = table.multi_get_range("h", &by_size(7)).await.unwrap();
    assert_eq!((found.rows.len(), found.complete), (2, false));
    assert_eq!(cluster.nodes[0].all_requests(), before + 1, "hash keys count neither here nor there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_range_asks_nobody() {
    let (cluster, table) = with_rows(1).await;
    let before = cluster.nodes[0].all_requests();
    for (start, stop, inclusive) in [("k5", "k2", true), ("k5", "k5", false)] {
        let range =
            SortKeyRange { start: start.into(), start_inclusive: true, stop: stop.into(), stop_inclusive: inclusive };
        let found = table.multi_get_range("h", &RangeOptions { range, ..RangeOptions::default() }).await.unwrap();
        assert!(found.complete && found.rows.is_empty());
    }
    assert_eq!(cluster.nodes[0].all_requests(), before);
}

fn sort_key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0u8), Just(b'a'), Just(0xFF)], 0..4)
}

fn filter() -> impl Strategy<Value = KeyFilter> {
    prop_oneof![
        3 => Just(KeyFilter::None),
        1 => sort_key().prop_map(KeyFilter::Anywhere),
        1 => sort_key().prop_map(KeyFilter::Prefix),
        1 => sort_key().prop_map(KeyFilter::Postfix),
        1 => sort_key().prop_map(KeyFilter::Exact),
    ]
}

fn matches(filter: &KeyFilter, key: &[u8]) -> bool {
    match filter {
        KeyFilter::None => true,
        KeyFilter::Anywhere(pattern) => (0..=key.len()).any(|at| key[at..].starts_with(pattern)),
        KeyFilter::Prefix(pattern) => key.starts_with(pattern),
        KeyFilter::Postfix(pattern) => key.ends_with(pattern),
        KeyFilter::Exact(pattern) => pattern.is_empty() || key == pattern,
    }
}

fn options() -> impl Strategy<Value = RangeOptions> {
    let range = (sort_key(), any::<bool>(), sort_key(), any::<bool>());
    (range, filter(), any::<bool>(), any::<bool>(), 0usize..8, 0usize..20).prop_map(
        |((start, start_inclusive, stop, stop_inclusive), filter, reverse, no_value, rows_max, bytes_max)| {
            let range = SortKeyRange { start, start_inclusive, stop, stop_inclusive };
            RangeOptions { range, filter, reverse, no_value, rows_max, bytes_max }
        },
    )
}

/// What a range read answers, from a map.
fn expected(rows: &BTreeMap<Vec<u8>, Vec<u8>>, options: &RangeOptions) -> Vec<(Vec<u8>, Vec<u8>)> {
    let SortKeyRange { start, start_inclusive, stop, stop_inclusive } = &options.range;
    let in_range = |key: &Vec<u8>| {
        (if *start_inclusive { key >= start } else { key > start })
            && (stop.is_empty() || if *stop_inclusive { key <= stop } else { key < stop })
    };
    let wanted = rows.iter().filter(|(key, _)| in_range(key) && matches(&options.filter, key));
    let value = |value: &Vec<u8>| if options.no_value { Vec::new() } else { value.clone() };
    let mut all: Vec<(Vec<u8>, Vec<u8>)> = wanted.map(|(key, stored)| (key.clone(), value(stored))).collect();
    if options.reverse {
        all.reverse();
    }
    let mut bytes = 0;
    let mut found = Vec::new();
    for row in all {
        if (options.rows_max > 0 && found.len() == options.rows_max)
            || (options.bytes_max > 0 && bytes >= options.bytes_max)
        {
            break;
        }
        bytes += row.0.len() + row.1.len();
        found.push(row);
    }
    if options.reverse {
        found.reverse();
    }
    found
}

#[test]
fn a_range_read_equals_a_map() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = runtime.block_on(Cluster::start(1));
    let table = runtime.block_on(cluster.table());
    let row = (sort_key(), proptest::collection::vec(any::<u8>(), 0..4));
    let cases = (proptest::collection::vec(row, 0..20), options());
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&cases, |(rows, options)| {
        cluster.store.clear();
        let rows: BTreeMap<Vec<u8>, Vec<u8>> = rows.into_iter().collect();
        for (sort_key, value) in &rows {
            cluster.store.put(1, b"h", sort_key, value, 0);
            cluster.store.put(1, b"g", sort_key, b"other", 0);
            cluster.store.put(1, b"ha", sort_key, b"other", 0);
        }
        let found = runtime.block_on(table.multi_get_range("h", &options)).unwrap();
        let told: Vec<_> = found.rows.iter().map(|row| (row.sort_key.to_vec(), row.value.to_vec())).collect();
        prop_assert_eq!(&told, &expected(&rows, &options));
        let unlimited = RangeOptions { rows_max: 0, bytes_max: 0, ..options };
        let all = expected(&rows, &unlimited);
        if found.complete {
            prop_assert_eq!(told, all, "it says that it is complete");
        }
        Ok(())
    });
    outcome.unwrap();
}
