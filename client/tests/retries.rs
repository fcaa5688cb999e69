//! The retry rule, routes and deadlines, against servers that misbehave.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pegasus_client::{Client, Error, TableSpec};
use pegasus_wire::{MessageKind, NodeId, Status};

use support::{Cluster, Fault, Server, Tls, options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_is_followed_without_asking_the_meta_service() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await;
    let hint = Some(cluster.nodes[1].address);
    cluster.nodes[0].always(Some(Fault::Status(Status::StaleRoute, hint)));
    table.set("h", "s", "v").await.unwrap();
    assert_eq!(table.get("h", "s").await.unwrap().unwrap(), "v");
    assert_eq!(cluster.nodes[0].requests(MessageKind::WRITE), 1);
    assert_eq!(cluster.nodes[0].requests(MessageKind::GET), 0, "the hint is remembered");
    assert_eq!(cluster.meta.requests(MessageKind::QUERY_TABLE), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_with_a_stale_route_ask_once() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await;
    cluster.nodes[0].always(Some(Fault::Status(Status::NotPrimary, None)));
    cluster.meta_state.lock().unwrap().appoint(2);
    let sets = (0..50).map(|index| {
        let table = table.clone();
        tokio::spawn(async move { table.set(format!("h{index}"), "s", "v").await })
    });
    for outcome in join_all(sets).await {
        outcome.unwrap().unwrap();
    }
    assert_eq!(cluster.meta.requests(MessageKind::QUERY_TABLE), 2, "once at first, once for all");
    assert_eq!(cluster.store.rows(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_name_each_other_do_not_spin_a_client() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await.with_timeout(Duration::from_millis(500));
    for (node, other) in [(0, 1), (1, 0)] {
        let hint = Some(cluster.nodes[other].address);
        cluster.nodes[node].always(Some(Fault::Status(Status::NotPrimary, hint)));
    }
    let error = table.set("h", "s", "v").await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "{error:?}");
    let requests: usize = cluster.nodes.iter().map(|node| node.requests(MessageKind::WRITE)).sum();
    assert!(requests < 40, "{requests} requests in half a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_without_effect_are_tried_again_for_reads_and_writes() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await;
    for status in [Status::Busy, Status::NotServing, Status::NotEnoughMembers] {
        cluster.nodes[0].refuse(3, status);
        table.set("h", "s", "v").await.unwrap();
        cluster.nodes[0].refuse(2, status);
        assert!(table.exist("h", "s").await.unwrap());
    }
    assert_eq!(cluster.nodes[0].requests(MessageKind::WRITE), 3 * 4);
    assert_eq!(cluster.nodes[0].requests(MessageKind::GET), 3 * 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_connection_is_lost_is_unknown_and_not_sent_again() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await;
    for fault in [Fault::Close, Fault::CloseAfter] {
        cluster.nodes[0].fault(fault);
        let before = cluster.nodes[0].requests(MessageKind::WRITE);
        let error = table.set("h", "s", "v").await.unwrap_err();
        assert!(matches!(error, Error::Unknown(_)), "{error:?}");
        assert_eq!(cluster.nodes[0].requests(MessageKind::WRITE), before + 1);
    }
    // The second one had taken effect: that is why it must be called unknown.
    assert!(table.exist("h", "s").await.unwrap());
    table.set("h", "s", "w").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_outcome_told_by_the_server_is_unknown() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    cluster.nodes[0].refuse(1, Status::OutcomeUnknown);
    let error = table.set("h", "s", "v").await.unwrap_err();
    assert!(matches!(error, Error::Unknown(_)), "{error:?}");
    assert_eq!(cluster.nodes[0].requests(MessageKind::WRITE), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_whose_connection_is_lost_is_sent_again() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await;
    table.set("h", "s", "v").await.unwrap();
    cluster.nodes[0].fault(Fault::Close);
    cluster.nodes[0].fault(Fault::Close);
    assert_eq!(table.get("h", "s").await.unwrap().unwrap(), "v");
    assert_eq!(cluster.nodes[0].requests(MessageKind::GET), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_not_answered_is_unknown_at_its_deadline() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await.with_timeout(Duration::from_millis(400));
    cluster.nodes[0].always(Some(Fault::Silence));
    let begun = Instant::now();
    let error = table.set("h", "s", "v").await.unwrap_err();
    assert!(matches!(error, Error::Unknown(_)), "{error:?}");
    assert!(begun.elapsed() >= Duration::from_millis(400) && begun.elapsed() < Duration::from_secs(3));
    assert_eq!(cluster.nodes[0].requests(MessageKind::WRITE), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_is_not_answered_is_sent_again_and_ends_at_its_deadline() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    table.set("h", "s", "v").await.unwrap();
    cluster.nodes[0].fault(Fault::Silence);
    assert_eq!(table.get("h", "s").await.unwrap().unwrap(), "v");
    cluster.nodes[0].always(Some(Fault::Silence));
    let error = table.with_timeout(Duration::from_millis(700)).get("h", "s").await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "{error:?}");
    assert!(cluster.nodes[0].requests(MessageKind::GET) >= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_never_sent_is_not_unknown() {
    let cluster = Cluster::start(1).await;
    cluster.nodes[0].close().await;
    let table = cluster.table().await.with_timeout(Duration::from_millis(500));
    let error = table.set("h", "s", "v").await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_without_a_primary_is_waited_for() {
    let cluster = Cluster::start(1).await;
    cluster.meta_state.lock().unwrap().temp().partitions[0].primary = None;
    let table = cluster.table().await;
    let error = table.with_timeout(Duration::from_millis(200)).set("h", "s", "v").await.unwrap_err();
    assert!(matches!(&error, Error::Timeout(text) if text.contains("no primary")), "{error:?}");
    let set = tokio::spawn({
        let table = table.clone();
        async move { table.set("h", "s", "v").await }
    });
    cluster.meta_state.lock().unwrap().temp().partitions[0].primary = Some(NodeId(2));
    set.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_is_served_while_the_meta_service_is_away() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    table.set("h", "s", "v").await.unwrap();
    cluster.meta.always(Some(Fault::Silence));
    cluster.nodes[0].fault(Fault::Close);
    assert_eq!(table.get("h", "s").await.unwrap().unwrap(), "v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn final_refusals_are_told_at_once() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    for status in [Status::Forbidden, Status::Internal] {
        cluster.nodes[0].refuse(1, status);
        let error = table.set("h", "s", "v").await.unwrap_err();
        assert!(matches!(error, Error::Refused { status: told, .. } if told == status), "{error:?}");
    }
    let error = cluster.client.table("none").await.err().unwrap();
    assert!(matches!(error, Error::NoSuchTable(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_meta_server_is_asked_when_one_does_not_lead_or_answer() {
    let cluster = Cluster::start(1).await;
    let follower = Server::meta(&cluster.tls, cluster.meta_state.clone());
    follower.always(Some(Fault::Status(Status::NotLeader, Some(cluster.meta.address))));
    let client = Client::connect(options(&cluster.tls, &[follower.address])).await.unwrap();
    client.table("temp").await.unwrap();
    assert_eq!(follower.requests(MessageKind::QUERY_CLUSTER), 1);
    assert_eq!(follower.requests(MessageKind::QUERY_TABLE), 0, "the leader is remembered");

    follower.always(Some(Fault::Silence));
    let client = Client::connect(options(&cluster.tls, &[follower.address, cluster.meta.address])).await.unwrap();
    client.table("temp").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_create_is_unknown_unless_it_may_be_repeated() {
    let cluster = Cluster::start(1).await;
    cluster.meta.fault(Fault::CloseAfter);
    let error = cluster.client.create_table(&TableSpec::new("other", 1)).await.unwrap_err();
    assert!(matches!(error, Error::Unknown(_)), "{error:?}");
    assert_eq!(cluster.meta.requests(MessageKind::CREATE_TABLE), 1);
    cluster.meta.fault(Fault::CloseAfter);
    let spec = TableSpec { if_not_exists: true, ..TableSpec::new("third", 1) };
    cluster.client.create_table(&spec).await.unwrap();
    assert_eq!(cluster.meta.requests(MessageKind::CREATE_TABLE), 3);
    let error = cluster.client.create_table(&TableSpec::new("third", 1)).await.unwrap_err();
    assert!(matches!(error, Error::TableExists(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_until_serving_probes_every_partition() {
    let cluster = Cluster::start(4).await;
    cluster.nodes[0].refuse(6, Status::NotServing);
    cluster.client.wait_until_serving("temp", Duration::from_secs(10)).await.unwrap();
    assert_eq!(cluster.nodes[0].requests(MessageKind::SCAN), 4 + 6);
    cluster.nodes[0].always(Some(Fault::Status(Status::NotServing, None)));
    let error = cluster.client.wait_until_serving("temp", Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(&error, Error::Timeout(text) if text.contains("partition 1.")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_cluster_is_told_at_once() {
    let cluster = Cluster::start(1).await;
    let other = Tls::new();
    let begun = Instant::now();
    let error = Client::connect(options(&other, &[cluster.meta.address])).await.err().unwrap();
    assert!(matches!(error, Error::Setup(_)), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let error = Client::connect(options(&cluster.tls, &[])).await.err().unwrap();
    assert!(matches!(error, Error::Setup(_)), "{error:?}");
}
