//! Where requests go: to the partition's node, to the new one after it moved, to the meta server that leads.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use pegasus_driver::{Cluster, Error, Options, Table, TableSpec, Target, Ttl};
use pegasus_gateway::Rpc;
use pegasus_stand_in::{Fault, StandIn};
use pegasus_wire::hash::partition_index;

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for some attempts, short enough to wait for its end.
const SHORT: Duration = Duration::from_millis(300);

async fn open(server: &StandIn, timeout: Duration) -> Table {
    let target = Target::parse(&server.target("temp")).unwrap();
    let cluster = Cluster::connect(&target.meta_servers, Options { timeout, ..Options::default() }).await.unwrap();
    cluster.table(&target.table).await.unwrap()
}

async fn start(partitions: u32) -> (StandIn, Table) {
    let server = StandIn::start(3).await;
    server.create("temp", partitions);
    let table = open(&server, PATIENCE).await;
    (server, table)
}

#[tokio::test]
async fn rows_of_all_partitions_are_written_and_read() {
    let (server, table) = start(8).await;
    assert_eq!((table.name(), table.partition_count()), ("temp", 8));
    for row in 0..64u32 {
        let key = format!("row-{row}");
        table.set(key.as_bytes(), b"s", &row.to_be_bytes(), 0).await.unwrap();
        assert_eq!(table.get(key.as_bytes(), b"s").await.unwrap().unwrap(), &row.to_be_bytes()[..]);
    }
    // The stand-in answers for a partition only at its own node, so all of them went where they belong.
    assert_eq!(server.rows("temp").len(), 64);
    assert_eq!((server.received(Rpc::Put), server.received(Rpc::Get)), (64, 64));
    assert_eq!(table.get(b"row-64", b"s").await.unwrap(), None);
}

#[tokio::test]
async fn a_row_without_a_hash_key_lives_by_its_sort_key() {
    let (server, table) = start(4).await;
    for sort_key in ["a", "b", "c", "d", "e"] {
        table.set(b"", sort_key.as_bytes(), b"v", 0).await.unwrap();
        assert!(table.exist(b"", sort_key.as_bytes()).await.unwrap());
    }
    assert_eq!(server.rows("temp").len(), 5);
}

#[tokio::test]
async fn a_follower_sends_to_the_leader() {
    let server = StandIn::start(1).await;
    server.create("temp", 2);
    let follower = vec![server.meta_servers()[1].clone()];
    let cluster = Cluster::connect(&follower, Options::default()).await.unwrap();
    assert_eq!(cluster.table("temp").await.unwrap().partition_count(), 2);
    assert_eq!(server.received(Rpc::QueryCfg), 2);
    // The leader is asked first from then on.
    cluster.table("temp").await.unwrap();
    assert_eq!(server.received(Rpc::QueryCfg), 3);
}

#[tokio::test]
async fn a_meta_server_that_is_gone_does_not_matter() {
    let server = StandIn::start(1).await;
    server.create("temp", 2);
    let mut metas = vec!["127.0.0.1:1".to_owned()];
    metas.extend(server.meta_servers());
    let cluster = Cluster::connect(&metas, Options::default()).await.unwrap();
    cluster.table("temp").await.unwrap();
    let gone = Options { timeout: SHORT, ..Options::default() };
    let error = Cluster::connect(&metas[..1], gone).await.map(|_| ()).unwrap_err();
    assert!(matches!(&error, Error::Timeout(text) if text.contains("127.0.0.1:1")), "{error}");
    let nowhere = Cluster::connect(&["no.such.host.invalid:1".to_owned()], gone).await.map(|_| ()).unwrap_err();
    assert!(matches!(nowhere, Error::Invalid(_) | Error::Timeout(_)), "{nowhere}");
}

#[tokio::test]
async fn a_table_that_is_being_made_is_waited_for() {
    let server = StandIn::start(1).await;
    server.create("temp", 2);
    for name in ["ERR_BUSY_CREATING", "ERR_SERVICE_NOT_ACTIVE", "ERR_UNDER_RECOVERY"] {
        server.fault(Rpc::QueryCfg, Fault::Error(name));
    }
    let leader = vec![server.meta_servers()[0].clone()];
    let cluster = Cluster::connect(&leader, Options::default()).await.unwrap();
    cluster.table("temp").await.unwrap();
    assert_eq!(server.received(Rpc::QueryCfg), 4);
    let error = cluster.table("none").await.map(|_| ()).unwrap_err();
    assert_eq!(error, Error::NoSuchTable("there is no table none".to_owned()));
}

#[tokio::test]
async fn a_partition_that_moved_is_found() {
    let (server, table) = start(1).await;
    table.set(b"h", b"s", b"before", 0).await.unwrap();
    server.move_partition("temp", 0, 1);
    table.set(b"h", b"s", b"after", 0).await.unwrap();
    assert_eq!(table.get(b"h", b"s").await.unwrap().unwrap(), "after");
    // Twice at the start (one meta server only points to the other), once more by the one that leads.
    assert!(server.received(Rpc::QueryCfg) <= 3);
    assert_eq!(server.received(Rpc::Put), 3);
}

#[tokio::test]
async fn a_partition_without_a_primary_is_waited_for() {
    let (server, _) = start(2).await;
    server.lose_partition("temp", partition_index(b"h", b"s", 2));
    let table = open(&server, SHORT).await;
    let error = table.set(b"h", b"s", b"v", 0).await.unwrap_err();
    assert!(matches!(&error, Error::Timeout(text) if text.contains("no primary")), "{error}");
    let error = table.wait_until_serving(SHORT).await.unwrap_err();
    assert!(error.to_string().contains("1 partitions"), "{error}");
    let table = open(&server, PATIENCE).await;
    let write = tokio::spawn(async move { table.set(b"h", b"s", b"v", 0).await });
    server.move_partition("temp", partition_index(b"h", b"s", 2), 0);
    write.await.unwrap().unwrap();
    assert_eq!(server.rows("temp").len(), 1);
}

#[tokio::test]
async fn a_table_that_is_dropped_is_told() {
    let (server, table) = start(1).await;
    server.drop_table("temp");
    assert!(matches!(table.get(b"h", b"s").await, Err(Error::NoSuchTable(_))));
    let mut scanner = table.partition_scan(0, Default::default()).unwrap();
    server.create("temp", 1);
    assert_eq!(table.get(b"h", b"s").await, Ok(None), "a new one of its name is used");
    let error = scanner.next_batch().await.unwrap_err();
    assert!(matches!(&error, Error::NoSuchTable(text) if text.contains("another one")), "{error}");
}

#[tokio::test]
async fn tables_are_made_unless_that_is_refused() {
    let server = StandIn::start(2).await;
    let cluster = Cluster::connect(&server.meta_servers(), Options::default()).await.unwrap();
    let spec = TableSpec { name: "new", partition_count: 4, replica_count: 3 };
    cluster.create_table(&spec).await.unwrap();
    cluster.create_table(&spec).await.unwrap();
    let table = cluster.table("new").await.unwrap();
    table.wait_until_serving(PATIENCE).await.unwrap();
    assert_eq!((table.partition_count(), table.id()), (4, 1));
    server.forbid_tables();
    let error = cluster.create_table(&spec).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { name: "ERR_STATE_FREEZED", .. }), "{error}");
}

#[tokio::test]
async fn times_to_live_are_told() {
    let (server, table) = start(4).await;
    table.set(b"h", b"never", b"v", 0).await.unwrap();
    table.set(b"h", b"later", b"v", 1000).await.unwrap();
    assert_eq!(table.ttl(b"h", b"never").await, Ok(Some(Ttl::Never)));
    let later = table.ttl(b"h", b"later").await.unwrap();
    assert!(matches!(later, Some(Ttl::Seconds(900..=1000))), "{later:?}");
    assert_eq!(table.ttl(b"h", b"none").await, Ok(None));
    server.put("temp", b"h", b"past", b"v", 1);
    assert!(!table.exist(b"h", b"past").await.unwrap());
}
