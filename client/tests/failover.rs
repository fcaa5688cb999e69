//! What a client does while a partition moves from a node that is gone to another, and while meta servers are away.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pegasus_client::{Client, Error, Table};
use pegasus_wire::messages::control::TableReply;
use pegasus_wire::{MessageKind, NodeId, Status};

use support::{Cluster, Fault, Server, options};

/// Long enough to be away, short enough for a test.
const OUTAGE: Duration = Duration::from_millis(1200);

/// A cluster whose first node answers nothing any more, with a table that was used before.
async fn frozen() -> (Cluster, Table) {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await.with_timeout(Duration::from_secs(5));
    table.set("h", "s", "v").await.unwrap();
    cluster.nodes[0].always(Some(Fault::Silence));
    (cluster, table)
}

fn appoint_later(cluster: &Cluster, node: u64) -> tokio::task::JoinHandle<()> {
    let state = cluster.meta_state.clone();
    tokio::spawn(async move {
        tokio::time::sleep(OUTAGE).await;
        state.lock().unwrap().appoint(node);
    })
}

fn later_set(table: &Table, sort_key: &'static str) -> tokio::task::JoinHandle<Result<(), Error>> {
    let table = table.clone();
    tokio::spawn(async move { table.set("h", sort_key, "v").await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_leaves_a_frozen_node_as_soon_as_the_partition_has_moved() {
    let cluster = Cluster::start(1).await;
    let mut options = options(&cluster.tls, &[cluster.meta.address]);
    // Only the change of the route can end the attempt.
    options.attempt_timeout = Duration::from_secs(60);
    let client = Client::connect(options).await.unwrap();
    let table = client.table("temp").await.unwrap();
    table.set("h", "s", "v").await.unwrap();
    cluster.nodes[0].always(Some(Fault::Silence));
    let begun = Instant::now();
    let appointed = appoint_later(&cluster, 2);
    assert_eq!(table.get("h", "s").await.unwrap().unwrap(), "v");
    assert!(begun.elapsed() >= OUTAGE && begun.elapsed() < OUTAGE + Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!((cluster.nodes[0].requests(MessageKind::GET), cluster.nodes[1].requests(MessageKind::GET)), (1, 1));
    appointed.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_on_its_way_to_a_frozen_node_is_unknown_at_its_deadline_and_not_earlier() {
    let (cluster, table) = frozen().await;
    let table = table.with_timeout(OUTAGE * 2);
    let begun = Instant::now();
    let write = later_set(&table, "first");
    appoint_later(&cluster, 2).await.unwrap();
    let error = write.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Unknown(_)), "{error:?}");
    assert!(begun.elapsed() >= OUTAGE * 2, "{:?}", begun.elapsed());
    assert_eq!(cluster.nodes[0].requests(MessageKind::WRITE), 2);
    assert_eq!(cluster.nodes[1].requests(MessageKind::WRITE), 0, "it is not sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_writes_wait_for_the_new_primary_and_are_not_sent_to_a_silent_one() {
    let (cluster, table) = frozen().await;
    let first = later_set(&table, "first");
    cluster.nodes[0].asked(MessageKind::WRITE, 2).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let appointed = appoint_later(&cluster, 2);
    let begun = Instant::now();
    for write in join_all((0..20).map(|_| later_set(&table, "second"))).await {
        write.unwrap().unwrap();
    }
    assert!(begun.elapsed() < OUTAGE + Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(cluster.nodes[0].requests(MessageKind::WRITE), 2, "only those sent before the silence");
    assert_eq!(cluster.nodes[1].requests(MessageKind::WRITE), 20);
    assert!(matches!(first.await.unwrap(), Err(Error::Unknown(_))));
    appointed.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_held_back_is_not_unknown() {
    let (cluster, table) = frozen().await;
    let _first = later_set(&table, "first");
    cluster.nodes[0].asked(MessageKind::WRITE, 2).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let error = table.with_timeout(Duration::from_millis(800)).set("h", "s", "w").await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "nothing was sent: {error:?}");
    assert_eq!(cluster.nodes[0].requests(MessageKind::WRITE), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_answers_again_gets_writes_again() {
    let (cluster, table) = frozen().await;
    let short = table.with_timeout(Duration::from_millis(700));
    assert!(matches!(short.set("h", "s", "v").await.unwrap_err(), Error::Unknown(_)));
    cluster.nodes[0].always(None);
    table.set("h", "s", "w").await.unwrap();
    table.set("h", "s", "x").await.unwrap();
    assert_eq!(cluster.nodes[0].requests(MessageKind::WRITE), 4);
    assert_eq!(cluster.nodes[0].requests(MessageKind::SCAN), 1, "one probe, before the first write after the silence");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_sent_to_a_dead_node_goes_to_the_new_primary() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    // Never connected to: an attempt to connect takes seconds to fail.
    cluster.nodes[0].close().await;
    let begun = Instant::now();
    let appointed = appoint_later(&cluster, 2);
    let (set, got) = tokio::join!(table.set("h", "s", "v"), table.get("h", "none"));
    set.unwrap();
    assert!(got.unwrap().is_none());
    assert!(begun.elapsed() < OUTAGE + Duration::from_millis(1500), "{:?}", begun.elapsed());
    appointed.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_that_persist_are_a_sign_too() {
    for status in [Status::Busy, Status::NotServing, Status::NotEnoughMembers, Status::ShuttingDown] {
        let cluster = Cluster::start(1).await;
        let table = cluster.table().await;
        cluster.nodes[0].always(Some(Fault::Status(status, None)));
        cluster.meta_state.lock().unwrap().appoint(2);
        let begun = Instant::now();
        table.set("h", "s", "v").await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2), "{status:?}: {:?}", begun.elapsed());
        assert_eq!(cluster.nodes[1].requests(MessageKind::WRITE), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_refusal_is_no_sign() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    cluster.nodes[0].refuse(2, Status::Busy);
    table.set("h", "s", "v").await.unwrap();
    assert_eq!(cluster.meta.requests(MessageKind::QUERY_TABLE), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_damaged_is_replaced_by_another_member() {
    for status in [Status::Damaged, Status::StorageFailed] {
        let cluster = Cluster::start(1).await;
        let table = cluster.table().await;
        cluster.nodes[0].always(Some(Fault::Status(status, None)));
        let appointed = appoint_later(&cluster, 2);
        let (set, got) = tokio::join!(table.set("h", "s", "v"), table.get("h", "none"));
        set.unwrap();
        assert!(got.unwrap().is_none());
        appointed.await.unwrap();
        // Nobody takes its place: then it is the reason.
        cluster.nodes[1].always(Some(Fault::Status(status, None)));
        let error = table.with_timeout(Duration::from_millis(300)).set("h", "s", "v").await.unwrap_err();
        assert!(matches!(error, Error::Refused { status: told, .. } if told == status), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_and_attempts_keep_a_pace() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await.with_timeout(Duration::from_secs(3));
    cluster.nodes[0].always(Some(Fault::Status(Status::NotPrimary, None)));
    let callers = (0..50).map(|index| {
        let table = table.clone();
        tokio::spawn(async move { table.set(format!("h{index}"), "s", "v").await })
    });
    for outcome in join_all(callers).await {
        let error = outcome.unwrap().unwrap_err();
        assert!(matches!(error, Error::Timeout(_)), "{error:?}");
    }
    let questions = cluster.meta.requests(MessageKind::QUERY_TABLE);
    assert!((8..=60).contains(&questions), "{questions} questions in 3 seconds");
    let attempts = cluster.nodes[0].requests(MessageKind::WRITE) / 50;
    assert!((10..=40).contains(&attempts), "{attempts} attempts in 3 seconds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_is_followed_up_before_anybody_asks() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    table.set("h", "s", "v").await.unwrap();
    cluster.nodes[0].break_connections();
    // The first questions come before the takeover; others have to follow by themselves.
    cluster.meta.asked(MessageKind::QUERY_TABLE, 3).await;
    cluster.meta_state.lock().unwrap().appoint(2);
    tokio::time::sleep(OUTAGE).await;
    cluster.nodes[0].always(Some(Fault::Silence));
    let begun = Instant::now();
    table.set("h", "s", "w").await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(cluster.nodes[0].requests(MessageKind::WRITE), 1);
    // It is found, so the questions end.
    let asked = cluster.meta.requests(MessageKind::QUERY_TABLE);
    tokio::time::sleep(OUTAGE).await;
    assert_eq!(cluster.meta.requests(MessageKind::QUERY_TABLE), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_goes_on_with_every_meta_server_dead() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await;
    table.set("h", "s", "v").await.unwrap();
    cluster.meta.close().await;
    // The caller's handle goes; the route stays.
    drop(table);
    let table = cluster.client.table("temp").await.unwrap().with_timeout(Duration::from_secs(5));
    // Everything that can happen without a change of the configuration.
    let nuisance = async {
        for round in 0..8 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            match round % 4 {
                0 => cluster.nodes[0].refuse(3, Status::Busy),
                1 => cluster.nodes[0].refuse(3, Status::NotServing),
                2 => cluster.nodes[0].refuse(3, Status::NotPrimary),
                _ => {}
            }
        }
    };
    let begun = Instant::now();
    let work = async {
        let mut done = 0;
        while begun.elapsed() < Duration::from_millis(1500) {
            table.set(format!("h{done}"), "s", "v").await.unwrap();
            assert!(table.exist(format!("h{done}"), "s").await.unwrap());
            done += 1;
        }
        done
    };
    let (done, ()) = tokio::join!(work, nuisance);
    assert!(done > 20, "{done} in 1.5 seconds");
    cluster.nodes[0].break_connections();
    assert!(table.exist("h0", "s").await.unwrap());
    table.set("h0", "s", "w").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_leads_to_the_new_primary_with_every_meta_server_dead() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await;
    table.set("h", "s", "v").await.unwrap();
    cluster.meta.close().await;
    let hint = Some(cluster.nodes[1].address);
    cluster.nodes[0].always(Some(Fault::Status(Status::NotPrimary, hint)));
    let begun = Instant::now();
    for index in 0..20 {
        table.set(format!("h{index}"), "s", "v").await.unwrap();
        assert!(table.exist(format!("h{index}"), "s").await.unwrap());
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_makes_no_sense_leaves_the_route_as_it_is() {
    let cluster = Cluster::start(4).await;
    let table = cluster.table().await;
    let sound: TableReply = cluster.meta_state.lock().unwrap().temp().clone();
    cluster.meta_state.lock().unwrap().temp().partitions.pop();
    cluster.nodes[0].refuse(4, Status::NotPrimary);
    table.set("h", "s", "v").await.unwrap();
    let asked = cluster.meta.requests(MessageKind::QUERY_TABLE);
    assert!(asked >= 2, "{asked}");
    // A server that lags knows an older configuration.
    let mut older = sound.clone();
    for configuration in &mut older.partitions {
        configuration.ballot.0 -= 1;
        configuration.primary = Some(NodeId(2));
    }
    *cluster.meta_state.lock().unwrap().temp() = older;
    cluster.nodes[0].refuse(4, Status::NotPrimary);
    table.set("h", "s", "v").await.unwrap();
    assert_eq!(cluster.nodes[1].requests(MessageKind::WRITE), 0);
    for status in [Status::NotLeader, Status::Internal, Status::ShuttingDown, Status::Forbidden] {
        cluster.meta.always(Some(Fault::Status(status, None)));
        cluster.nodes[0].refuse(4, Status::NotPrimary);
        table.set("h", "s", "v").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_or_frozen_meta_server_is_passed_over_soon() {
    let cluster = Cluster::start(1).await;
    let other = Server::meta(&cluster.tls, cluster.meta_state.clone());
    let mut options = options(&cluster.tls, &[other.address, cluster.meta.address]);
    options.attempt_timeout = Duration::from_secs(60);
    let client = Client::connect(options).await.unwrap();
    let table = client.table("temp").await.unwrap();
    table.set("h", "s", "v").await.unwrap();
    for node in [2, 1] {
        match node {
            2 => other.always(Some(Fault::Silence)),
            _ => {
                other.always(None);
                cluster.meta.close().await;
            }
        }
        cluster.meta_state.lock().unwrap().appoint(node);
        let (old, new) = if node == 2 { (0, 1) } else { (1, 0) };
        cluster.nodes[old].always(Some(Fault::Status(Status::NotPrimary, None)));
        cluster.nodes[new].always(None);
        let begun = Instant::now();
        table.set("h", "s", "v").await.unwrap();
        assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_connects_soon_though_a_meta_server_is_dead() {
    let cluster = Cluster::start(1).await;
    let dead = Server::meta(&cluster.tls, cluster.meta_state.clone());
    dead.close().await;
    let mut options = options(&cluster.tls, &[dead.address, cluster.meta.address]);
    options.attempt_timeout = Duration::from_secs(60);
    let begun = Instant::now();
    let client = Client::connect(options).await.unwrap();
    client.table("temp").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_passes_over_a_dead_meta_server() {
    let cluster = Cluster::start(1).await;
    let dead = Server::meta(&cluster.tls, cluster.meta_state.clone());
    let options = options(&cluster.tls, &[cluster.meta.address, dead.address]);
    let client = Client::connect(options).await.unwrap();
    dead.close().await;
    // Makes the dead one the next to be asked.
    cluster.meta.refuse(1, Status::NotLeader);
    let spec = pegasus_client::TableSpec::new("other", 1);
    let begun = Instant::now();
    client.create_table(&spec).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
}
