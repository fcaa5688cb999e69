//! What operators ask of the meta service.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pegasus_client::{
    Ballot, CompactionState, DropOptions, EnvironmentChange, Error, NodeId, PartitionId, TableId, TableSpec, TableState,
};
use pegasus_wire::{MessageKind, Status};

use support::{Cluster, Fault};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_diagnosed() {
    let cluster = Cluster::start(4).await;
    let diagnosis = cluster.client.diagnose_partitions(Some("temp")).await.unwrap();
    assert_eq!(diagnosis.examined, 4);
    let [case] = &diagnosis.partitions[..] else { panic!("{diagnosis:?}") };
    assert_eq!((case.table.as_str(), case.unavailable, case.waits_for.as_str()), ("temp", true, "nothing"));
    let all = cluster.client.diagnose_partitions(None).await.unwrap();
    assert_eq!(all.partitions[0].table, "all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_is_forced_once_however_often_it_is_asked_for() {
    let cluster = Cluster::start(4).await;
    let partition = PartitionId::new(1, 3);
    // The request is carried out and its answer lost.
    cluster.meta.fault(Fault::CloseAfter);
    let forced = cluster.client.force_configuration(partition, Ballot(2), NodeId(2)).await.unwrap();
    assert!(forced.accepted);
    assert_eq!((forced.configuration.ballot, forced.configuration.primary), (Ballot(3), Some(NodeId(2))));
    assert!(forced.configuration.secondaries.is_empty());
    assert_eq!(cluster.meta.requests(MessageKind::FORCE_CONFIGURATION), 2);
    let refused = cluster.client.force_configuration(partition, Ballot(2), NodeId(1)).await.unwrap();
    assert!(!refused.accepted);
    assert_eq!(refused.configuration, forced.configuration, "what is in force is told");
}

fn is_no_table<T: std::fmt::Debug>(outcome: Result<T, Error>) -> bool {
    match outcome {
        Err(Error::NoSuchTable(text)) => !text.is_empty(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_dropped_is_told_and_found_again_when_recalled() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await;
    table.set("h", "s", "v").await.unwrap();
    assert!(is_no_table(cluster.client.drop_table("none", DropOptions::default()).await));
    let leniently = DropOptions { if_exists: true, ..DropOptions::default() };
    assert_eq!(cluster.client.drop_table("none", leniently).await.unwrap(), None);
    let hold = DropOptions { hold_seconds: Some(77), if_exists: true };
    let dropped = cluster.client.drop_table("temp", hold).await.unwrap().unwrap();
    assert_eq!((dropped.name.as_str(), dropped.table), ("temp", TableId(1)));
    assert!(is_no_table(table.get("h", "s").await) && is_no_table(table.set("h", "s", "w").await));
    assert!(cluster.client.table("temp").await.is_err());
    let listed = cluster.client.list_tables().await.unwrap();
    assert_eq!(listed[0].state, TableState::Dropped { dropped_seconds: 1000, purge_seconds: 1077 });
    let recalled = cluster.client.recall_table(dropped.table, None).await.unwrap();
    assert_eq!((recalled.table, recalled.partitions.len()), (dropped, 4));
    assert_eq!(table.get("h", "s").await.unwrap().unwrap(), "v", "the same handle");
    let error = cluster.client.recall_table(TableId(9), None).await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: Status::NotDropped, .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drop_by_somebody_else_is_told_by_the_nodes() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await;
    table.set("h", "s", "v").await.unwrap();
    let other = pegasus_client::Client::connect(support::options(&cluster.tls, &[cluster.meta.address])).await.unwrap();
    let dropped = other.drop_table("temp", DropOptions::default()).await.unwrap().unwrap();
    for outcome in join_all((0..20).map(|_| table.get("h", "s"))).await {
        match outcome {
            Err(Error::NoSuchTable(text)) => assert!(text.contains("recall number 1"), "the server's words: {text}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(cluster.meta.requests(MessageKind::QUERY_TABLE) < 10, "many callers ask once");
    // A new table of the name is found, and has nothing of the old one.
    other.create_table(&TableSpec { replica_count: 2, ..TableSpec::new("temp", 2) }).await.unwrap();
    assert_eq!(table.get("h", "s").await.unwrap(), None);
    assert_eq!(table.properties().await.unwrap().partition_count, 2);
    table.set("h", "s", "new").await.unwrap();
    // The old one comes back under another name.
    let error = other.recall_table(dropped.table, None).await.unwrap_err();
    assert!(matches!(error, Error::TableExists(_)), "{error:?}");
    other.recall_table(dropped.table, Some("old")).await.unwrap();
    assert_eq!(cluster.client.table("old").await.unwrap().get("h", "s").await.unwrap().unwrap(), "v");
    assert_eq!(table.get("h", "s").await.unwrap().unwrap(), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_not_heard_of_a_recall_is_waited_for() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await.with_timeout(Duration::from_secs(5));
    table.set("h", "s", "v").await.unwrap();
    let dropped = cluster.client.drop_table("temp", DropOptions::default()).await.unwrap().unwrap();
    cluster.meta_state.lock().unwrap().nodes_hear = false;
    cluster.client.recall_table(dropped.table, None).await.unwrap();
    let before = cluster.meta.requests(MessageKind::QUERY_TABLE);
    let reader = table.clone();
    let read = tokio::spawn(async move { reader.get("h", "s").await });
    cluster.nodes[0].asked(MessageKind::GET, 3).await;
    cluster.store.set_dropped(dropped.table, false);
    assert_eq!(read.await.unwrap().unwrap().unwrap(), "v");
    assert!(cluster.meta.requests(MessageKind::QUERY_TABLE) - before < 10);
    // One that never hears of it is told at the deadline.
    cluster.store.set_dropped(dropped.table, true);
    assert!(is_no_table(table.with_timeout(Duration::from_millis(300)).get("h", "s").await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_does_not_go_on_in_another_table_of_the_name() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    let rows: Vec<(String, &str)> = (0..10).map(|i| (format!("k{i}"), "v")).collect();
    table.multi_set("h", &rows).await.unwrap();
    let mut full = table.full_scan(Default::default()).await.unwrap();
    let mut of_key = table.hash_scan("h", &Default::default(), Default::default()).unwrap();
    let mut sorted = table.sorted_scan(&Default::default(), &Default::default(), Default::default()).await.unwrap();
    full.next_batch().await.unwrap().unwrap();
    of_key.next_batch().await.unwrap().unwrap();
    sorted.next_batch().await.unwrap().unwrap();
    cluster.client.drop_table("temp", DropOptions::default()).await.unwrap();
    cluster.client.create_table(&TableSpec { replica_count: 2, ..TableSpec::new("temp", 1) }).await.unwrap();
    table.multi_set("h", &rows).await.unwrap();
    assert!(is_no_table(full.next_batch().await) && is_no_table(of_key.next_batch().await));
    assert!(is_no_table(sorted.next_batch().await) && is_no_table(full.count().await));
    assert_eq!(table.count("h").await.unwrap(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_stay_with_a_table_that_is_renamed() {
    let cluster = Cluster::start(1).await;
    let client = &cluster.client;
    let table = cluster.table().await;
    table.set("h", "s", "v").await.unwrap();
    // By another client, so that this one has to find out.
    let other = pegasus_client::Client::connect(support::options(&cluster.tls, &[cluster.meta.address])).await.unwrap();
    let reply = other.rename_table("temp", "users").await.unwrap();
    assert_eq!((reply.table.name.as_str(), reply.table.table), ("users", TableId(1)));
    other.create_table(&TableSpec { replica_count: 2, ..TableSpec::new("temp", 1) }).await.unwrap();
    // The partition moves: the route has to be asked for, and the old name means another table.
    cluster.meta_state.lock().unwrap().appoint(2);
    cluster.nodes[0].always(Some(Fault::Status(Status::NotPrimary, None)));
    assert_eq!(table.get("h", "s").await.unwrap().unwrap(), "v");
    assert_eq!((table.name(), table.properties().await.unwrap().name.as_str()), ("temp", "users"));
    // Who opens the old name now gets the other table.
    let new = client.table("temp").await.unwrap();
    assert_eq!(new.get("h", "s").await.unwrap(), None);
    assert_eq!(client.table("users").await.unwrap().get("h", "s").await.unwrap().unwrap(), "v");
    let error = client.rename_table("temp", "users").await.unwrap_err();
    assert!(matches!(error, Error::TableExists(_)), "{error:?}");
    assert!(matches!(client.rename_table("temp", "no name").await, Err(Error::InvalidArgument(_))));
    // A client that renames knows at once, also if the answer was lost once.
    client.rename_table("users", "people").await.unwrap();
    assert_eq!(table.properties().await.unwrap().name, "people");
    assert!(client.table("users").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opened_name_is_checked_in_the_background() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    let other = pegasus_client::Client::connect(support::options(&cluster.tls, &[cluster.meta.address])).await.unwrap();
    other.rename_table("temp", "users").await.unwrap();
    let asked = cluster.meta.requests(MessageKind::QUERY_TABLE);
    cluster.client.table("temp").await.unwrap();
    // The name is nobody's, so the tables are listed, and the new name is asked for.
    cluster.meta.asked(MessageKind::QUERY_TABLE, asked + 2).await;
    let patience = Instant::now() + Duration::from_secs(20);
    while table.properties().await.unwrap().name != "users" {
        assert!(Instant::now() < patience, "the new name was not found");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(cluster.client.table("temp").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_waited_for_when_it_is_made() {
    let cluster = Cluster::start(1).await;
    let wait = Some(Duration::from_secs(10));
    let spec = TableSpec { replica_count: 2, wait, ..TableSpec::new("new", 4) };
    cluster.nodes[0].refuse(5, Status::NotServing);
    let made = cluster.client.create_table(&spec).await.unwrap();
    assert_eq!((made.table.table, cluster.nodes[0].requests(MessageKind::SCAN)), (TableId(2), 4 + 5));
    cluster.nodes[0].always(Some(Fault::Status(Status::NotServing, None)));
    let wait = Some(Duration::from_millis(300));
    let error =
        cluster.client.create_table(&TableSpec { name: "newer".into(), wait, ..spec.clone() }).await.unwrap_err();
    assert!(matches!(&error, Error::NotServing(text) if text.contains("newer") && text.contains('3')), "{error:?}");
    let again = TableSpec { if_not_exists: true, wait: None, ..spec };
    assert_eq!(cluster.client.create_table(&again).await.unwrap(), made);
    let other = TableSpec { partition_count: 8, ..again };
    assert!(matches!(cluster.client.create_table(&other).await, Err(Error::TableExists(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_purged_cannot_be_recalled() {
    let cluster = Cluster::start(1).await;
    let error = cluster.client.purge_table(TableId(1)).await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: Status::NotDropped, .. }), "{error:?}");
    cluster.client.drop_table("temp", DropOptions::default()).await.unwrap();
    // Its answer is lost, and it is asked again.
    cluster.client.create_table(&TableSpec { replica_count: 2, ..TableSpec::new("other", 1) }).await.unwrap();
    cluster.meta.fault(Fault::CloseAfter);
    cluster.client.purge_table(TableId(1)).await.unwrap();
    assert!(cluster.client.recall_table(TableId(1), None).await.is_err());
    assert_eq!(cluster.client.list_tables().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_drop_is_unknown_and_not_asked_again() {
    let cluster = Cluster::start(1).await;
    cluster.meta.fault(Fault::CloseAfter);
    let error = cluster.client.drop_table("temp", DropOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unknown(_)), "{error:?}");
    assert_eq!(cluster.meta.requests(MessageKind::DROP_TABLE), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_changed_all_or_none() {
    let cluster = Cluster::start(1).await;
    let client = &cluster.client;
    let shown = |entries: Vec<pegasus_client::EnvironmentEntry>| -> Vec<String> {
        entries.into_iter().map(|entry| format!("{}={}", entry.key, entry.value)).collect()
    };
    let change = EnvironmentChange::set("default_ttl", 60).and_set("business.info", "a test");
    assert_eq!(
        shown(client.change_environment("temp", &change).await.unwrap()),
        ["business.info=a test", "default_ttl=60"]
    );
    let wrong = EnvironmentChange::set("default_ttl", 70).and_set("durability", "maybe");
    let error = client.change_environment("temp", &wrong).await.unwrap_err();
    assert!(matches!(&error, Error::InvalidArgument(text) if text.contains("durability")), "{error:?}");
    let change = EnvironmentChange::default().and_delete("business.info").and_delete("durability");
    assert_eq!(shown(client.change_environment("temp", &change).await.unwrap()), ["default_ttl=60"]);
    assert_eq!(shown(client.environment("temp").await.unwrap()), ["default_ttl=60"]);
    let change = EnvironmentChange { clear: true, ..EnvironmentChange::set("durability", "written") };
    assert_eq!(shown(client.change_environment("temp", &change).await.unwrap()), ["durability=written"]);
    assert!(is_no_table(client.change_environment("none", &change).await));
    assert!(is_no_table(client.environment("none").await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_copy_is_asked_and_one_that_is_silent_is_reported() {
    let cluster = Cluster::start(4).await;
    let copies = cluster.client.copies("temp").await.unwrap();
    let places: Vec<(u32, NodeId)> = copies.iter().map(|copy| (copy.partition.index, copy.node)).collect();
    let expected: Vec<(u32, NodeId)> = (0..4).flat_map(|index| [(index, NodeId(1)), (index, NodeId(2))]).collect();
    assert_eq!(places, expected);
    let last = copies[7].outcome.as_ref().unwrap();
    assert_eq!((last.file_bytes, last.compaction, last.compaction_percent), (3000, CompactionState::Running, 40));
    cluster.nodes[1].always(Some(Fault::Silence));
    cluster.meta_state.lock().unwrap().temp().partitions[0].secondaries = vec![NodeId(7)];
    let copies = cluster.client.copies("temp").await.unwrap();
    assert!(copies.iter().filter(|copy| copy.node == NodeId(1)).all(|copy| copy.outcome.is_ok()));
    let silent: Vec<_> = copies.iter().filter(|copy| copy.node != NodeId(1)).collect();
    assert_eq!((silent.len(), silent[0].node, silent[0].address), (4, NodeId(7), None));
    assert!(silent.iter().all(|copy| matches!(copy.outcome, Err(Error::Timeout(_)))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_by_a_setting_is_told_in_the_servers_words() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    cluster.nodes[0].refuse(1, Status::Denied);
    let error = table.get("h", "s").await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: Status::Denied, .. }), "{error:?}");
    // A throttle that stays shut is what the deadline names.
    cluster.nodes[0].always(Some(Fault::Status(Status::Busy, None)));
    let error = table.with_timeout(Duration::from_millis(200)).incr("h", "n", 1).await.unwrap_err();
    assert!(matches!(&error, Error::Timeout(text) if text.contains("told to say")), "{error:?}");
}
