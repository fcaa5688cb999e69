//! The operations on rows against the stand-in.
#![allow(clippy::unwrap_used)]

use pegasus_driver::{CheckAndSet, CheckType, Cluster, Error, Filter, FilterType, Options, RangeOptions, Table};
use pegasus_stand_in::StandIn;

async fn start() -> (StandIn, Table) {
    let server = StandIn::start(2).await;
    server.create("temp", 4);
    let cluster = Cluster::connect(&server.meta_servers(), Options::default()).await.unwrap();
    let table = cluster.table("temp").await.unwrap();
    (server, table)
}

#[tokio::test]
async fn rows_are_deleted() {
    let (server, table) = start().await;
    table.set(b"h", b"s", b"v", 0).await.unwrap();
    table.del(b"h", b"s").await.unwrap();
    table.del(b"h", b"s").await.unwrap();
    assert!(!table.exist(b"h", b"s").await.unwrap());
    assert!(server.rows("temp").is_empty());
}

#[tokio::test]
async fn numbers_are_added_to() {
    let (_server, table) = start().await;
    assert_eq!(table.incr(b"h", b"n", 5).await, Ok(5));
    assert_eq!(table.incr(b"h", b"n", -7).await, Ok(-2));
    table.set(b"h", b"text", b"abc", 0).await.unwrap();
    let error = table.incr(b"h", b"text", 1).await.unwrap_err();
    assert!(matches!(error, Error::Refused { name: "invalid argument", .. }), "{error}");
}

#[tokio::test]
async fn a_check_decides_whether_a_row_is_set() {
    let (_server, table) = start().await;
    let change = |check, operand: &'static [u8], value: &'static [u8]| CheckAndSet {
        check_sort_key: b"s",
        check,
        operand,
        set_sort_key: b"s",
        value,
        ttl_seconds: 0,
    };
    assert_eq!(table.check_and_set(b"h", &change(CheckType::VALUE_EXIST, b"", b"1")).await, Ok(false));
    assert_eq!(table.check_and_set(b"h", &change(CheckType::VALUE_NOT_EXIST, b"", b"1")).await, Ok(true));
    assert_eq!(table.check_and_set(b"h", &change(CheckType::VALUE_BYTES_EQUAL, b"2", b"3")).await, Ok(false));
    assert_eq!(table.check_and_set(b"h", &change(CheckType::VALUE_BYTES_EQUAL, b"1", b"2")).await, Ok(true));
    let other = CheckAndSet { set_sort_key: b"other", ..change(CheckType::VALUE_EXIST, b"", b"x") };
    assert_eq!(table.check_and_set(b"h", &other).await, Ok(true));
    assert_eq!(table.get(b"h", b"s").await.unwrap().unwrap(), "2");
    assert_eq!(table.get(b"h", b"other").await.unwrap().unwrap(), "x");
    let odd = table.check_and_set(b"h", &change(CheckType(99), b"", b"x")).await.unwrap_err();
    assert!(matches!(odd, Error::Refused { name: "invalid argument", .. }), "{odd}");
}

#[tokio::test]
async fn many_rows_of_a_hash_key_are_one_request() {
    let (server, table) = start().await;
    let rows: Vec<(String, String)> = (0..20).map(|row| (format!("{row:02}"), format!("v{row}"))).collect();
    table.multi_set(b"h", &rows, 0).await.unwrap();
    assert_eq!((table.count(b"h").await, server.rows("temp").len()), (Ok(20), 20));

    let named = table.multi_get(b"h", &["03", "99", "07"]).await.unwrap();
    let values: Vec<&[u8]> = named.rows.iter().map(|row| &row.value[..]).collect();
    assert_eq!((values, named.complete), (vec![&b"v3"[..], b"v7"], true));

    let range = RangeOptions { start: b"05".to_vec(), stop: b"15".to_vec(), rows_max: 4, ..RangeOptions::default() };
    let keys = |rows: &[pegasus_driver::Row]| -> Vec<String> {
        rows.iter().map(|row| String::from_utf8(row.sort_key.to_vec()).unwrap()).collect()
    };
    let first = table.multi_get_range(b"h", &range).await.unwrap();
    assert_eq!((keys(&first.rows), first.complete), (["05", "06", "07", "08"].map(str::to_owned).to_vec(), false));
    let last = RangeOptions { reverse: true, no_value: true, ..range.clone() };
    let last = table.multi_get_range(b"h", &last).await.unwrap();
    assert_eq!(keys(&last.rows), ["11", "12", "13", "14"]);
    assert!(last.rows.iter().all(|row| row.value.is_empty()));
    let filter = Filter { kind: FilterType::POSTFIX, pattern: b"5".to_vec() };
    let filtered = table.multi_get_range(b"h", &RangeOptions { filter, ..RangeOptions::default() }).await.unwrap();
    assert_eq!((keys(&filtered.rows), filtered.complete), (vec!["05".to_owned(), "15".to_owned()], true));
}

#[tokio::test]
async fn what_cannot_be_asked_is_not_sent() {
    let (_server, table) = start().await;
    let long = vec![b'h'; 0xFFFF];
    assert!(matches!(table.get(&long, b"s").await, Err(Error::Invalid(_))));
    assert!(matches!(table.multi_get(b"h", &[] as &[&str]).await, Err(Error::Invalid(_))));
    assert!(matches!(table.multi_set(b"h", &[] as &[(&str, &str)], 0).await, Err(Error::Invalid(_))));
    assert!(matches!(table.multi_set(b"", &[("s", "v")], 0).await, Err(Error::Invalid(_))));
}
