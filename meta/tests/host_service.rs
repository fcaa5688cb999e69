//! The service over real QUIC on loopback.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::time::{Duration, Instant};

use common::{Place, call, explanation, registration, table};
use pegasus_meta::host::ServerError;
use pegasus_meta::host::group::StartError;
use pegasus_meta::host::store::StoreError;
use pegasus_rpc::{Alpn, Role, RpcError};
use pegasus_wire::messages::control::{
    Assignments, ListTables, ProposalReply, ProposeConfiguration, QueryTable, Registered, ReplicaReport, ReplicaState,
    TableList, TableReply, WatchAssignments,
};
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Decree, FrameBuilder, MessageKind, NodeId, PartitionId, Status, TableId,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn nodes_register_and_a_table_is_placed_over_them() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.caller(Role::Replica, server.address()).await;
    let client = place.caller(Role::Client, server.address()).await;

    let refused = call!(client, CREATE_TABLE, table("temp", 3));
    assert_eq!(refused.header.status, Status::NotEnoughNodes);
    assert!(explanation(&refused).contains("3 live storage nodes, there are 0"), "{}", explanation(&refused));

    let cluster = node.register(1, 5001).await;
    for id in 2..=3 {
        assert_eq!(node.register(id, 5000 + id as u16).await, cluster);
    }
    let created = call!(client, CREATE_TABLE, table("temp", 3));
    assert_eq!(created.header.status, Status::Ok, "{:?}", created.error());
    let created: TableReply = created.decode().unwrap();
    assert_eq!((created.table.table, created.partitions.len(), created.nodes.len()), (TableId(1), 4, 3));
    assert!(created.partitions.iter().all(|one| one.ballot == Ballot::ASSIGNMENT && one.secondaries.len() == 2));

    let queried = call!(client, QUERY_TABLE, QueryTable { name: "temp".to_owned() });
    assert_eq!(queried.decode::<TableReply>().unwrap(), created);
    let missing = call!(client, QUERY_TABLE, QueryTable { name: "nope".to_owned() });
    assert_eq!(missing.header.status, Status::NoSuchTable);
    assert!(explanation(&missing).contains("nope"));
    let list: TableList = call!(client, LIST_TABLES, ListTables).decode().unwrap();
    assert_eq!((list.tables.len(), &list.tables[0].properties), (1, &created.table));

    let exists = call!(client, CREATE_TABLE, table("temp", 3));
    assert_eq!(exists.header.status, Status::TableExists);
    let mut again = table("temp", 3);
    again.if_not_exists = true;
    assert_eq!(call!(client, CREATE_TABLE, again).decode::<TableReply>().unwrap(), created);

    let shown = client.cluster().await;
    assert_eq!((shown.cluster, shown.meta_addresses), (cluster, vec![server.address()]));
    assert_eq!((shown.nodes.len(), shown.tables[0].healthy_partitions), (3, 4));
    server.shutdown().await;
}

#[tokio::test]
async fn only_storage_nodes_speak_for_storage_nodes() {
    let place = Place::new();
    let server = place.start().await;
    for role in [Role::Client, Role::Meta] {
        let caller = place.caller(role, server.address()).await;
        let watch = WatchAssignments { node: NodeId(1), revision: 0, wait_ms: 0 };
        let propose = ProposeConfiguration {
            partition: PartitionId::new(1, 0),
            proposer: NodeId(1),
            expected_ballot: Ballot(1),
            configuration: Configuration::default(),
        };
        let answers = [
            call!(caller, REGISTER_NODE, registration(1, 5001)),
            call!(caller, WATCH_ASSIGNMENTS, watch),
            call!(caller, PROPOSE_CONFIGURATION, propose),
        ];
        for answer in answers {
            assert_eq!(answer.header.status, Status::Forbidden);
            assert!(explanation(&answer).contains(&format!("this one has the role {role}")));
        }
    }
    let shown = place.caller(Role::Client, server.address()).await.cluster().await;
    assert!(shown.nodes.is_empty());
    server.shutdown().await;
}

#[tokio::test]
async fn a_certificate_of_another_ca_gets_nowhere() {
    let place = Place::new();
    let stranger = Place::new();
    let server = place.start().await;
    let endpoint = stranger.endpoint(Role::Replica);
    let error = endpoint.connect(server.address(), Role::Meta, Alpn::Meta).await.unwrap_err();
    assert!(matches!(error, RpcError::Untrusted { .. } | RpcError::Refused { .. }), "{error:?}");
    // Nor does anybody who wants something else than the meta service.
    let error = place.endpoint(Role::Replica).connect(server.address(), Role::Meta, Alpn::Data).await.unwrap_err();
    assert!(matches!(error, RpcError::Refused { .. }), "{error:?}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_watch_wakes_when_something_changes() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.caller(Role::Replica, server.address()).await;
    let client = place.caller(Role::Client, server.address()).await;
    node.register(1, 5001).await;

    let first = node.watch(1, 0, 10_000).await;
    assert_eq!((first.nodes.len(), first.partitions.len()), (1, 0));

    // Nothing new: the answer comes when the time is up, and says the same.
    let start = Instant::now();
    let same = node.watch(1, first.revision, 100).await;
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(same, first);

    // Something new: the watch pending at that moment is answered long before its time.
    let start = Instant::now();
    let (woken, created) = tokio::join!(node.watch(1, first.revision, 10_000), async {
        pending_watches(&server, 1).await;
        call!(client, CREATE_TABLE, table("single", 1))
    });
    assert_eq!(created.header.status, Status::Ok, "{:?}", created.error());
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(woken.revision > first.revision);
    assert_eq!((woken.tables[0].properties.name.as_str(), woken.partitions.len()), ("single", 4));

    let unknown = call!(node, WATCH_ASSIGNMENTS, WatchAssignments { node: NodeId(9), revision: 0, wait_ms: 0 });
    assert_eq!(unknown.header.status, Status::InvalidArgument);
    assert!(explanation(&unknown).contains("register first"));
    server.shutdown().await;
}

/// Waits until the server has this many watches pending.
async fn pending_watches(server: &pegasus_meta::host::Server, count: u32) {
    let reached = async {
        while server.service().liveness.pending_watches() != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(common::PATIENCE, reached).await.unwrap();
}

#[tokio::test]
async fn a_node_is_alive_while_it_watches_and_gone_with_its_connection() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.caller(Role::Replica, server.address()).await;
    let client = place.caller(Role::Client, server.address()).await;
    node.register(1, 5001).await;
    let revision = node.watch(1, 0, 0).await.revision;
    let alive = |cluster: pegasus_wire::messages::control::ClusterReply| cluster.nodes[0].info.alive;

    let ended = {
        let watching = node.watch(1, revision, 10_000);
        tokio::pin!(watching);
        tokio::select! {
            _ = &mut watching => panic!("nothing changed"),
            () = pending_watches(&server, 1) => {}
        }
        assert!(alive(client.cluster().await));
        node.connection.close("test");
        pending_watches(&server, 0)
    };
    ended.await;
    assert!(!alive(client.cluster().await), "with the connection goes the life");
    server.shutdown().await;
}

#[tokio::test]
async fn the_primary_raises_the_ballot_over_the_wire() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.caller(Role::Replica, server.address()).await;
    node.register(1, 5001).await;
    call!(node, CREATE_TABLE, table("single", 1));
    let proposal = |expected: u64| ProposeConfiguration {
        partition: PartitionId::new(1, 2),
        proposer: NodeId(1),
        expected_ballot: Ballot(expected),
        configuration: Configuration {
            ballot: Ballot(expected + 1),
            primary: Some(NodeId(1)),
            secondaries: Vec::new(),
        },
    };
    for _ in 0..2 {
        let accepted = call!(node, PROPOSE_CONFIGURATION, proposal(1));
        assert_eq!(accepted.header.status, Status::Ok);
        assert_eq!(accepted.decode::<ProposalReply>().unwrap().configuration, proposal(1).configuration);
    }
    let conflict = call!(node, PROPOSE_CONFIGURATION, proposal(5));
    assert_eq!(conflict.header.status, Status::BallotConflict);
    assert_eq!(conflict.decode::<ProposalReply>().unwrap().configuration.ballot, Ballot(2));
    let mut nowhere = proposal(1);
    nowhere.partition.table = TableId(7);
    let refused = call!(node, PROPOSE_CONFIGURATION, nowhere);
    assert_eq!(refused.header.status, Status::NoSuchPartition);
    assert!(explanation(&refused).contains("7.2"));
    server.shutdown().await;
}

#[tokio::test]
async fn a_node_with_copies_from_the_future_is_refused() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.caller(Role::Replica, server.address()).await;
    let mut message = registration(1, 5001);
    let (partition, ballot) = (PartitionId::new(3, 0), Ballot(4));
    let report = ReplicaReport { partition, ballot, state: ReplicaState::Whole, last: Decree(0) };
    message.replicas.push(report);
    let refused = call!(node, REGISTER_NODE, message);
    assert_eq!(refused.header.status, Status::Internal);
    assert!(explanation(&refused).contains("3.0") && explanation(&refused).contains("lost state"));

    let mut message = registration(1, 5001);
    message.cluster = Some(ClusterId(1));
    let refused = call!(node, REGISTER_NODE, message);
    assert_eq!(refused.header.status, Status::WrongCluster);
    server.shutdown().await;
}

#[tokio::test]
async fn damaged_requests_are_answered_and_harm_nothing() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.caller(Role::Replica, server.address()).await;
    let kinds = [
        MessageKind::REGISTER_NODE,
        MessageKind::WATCH_ASSIGNMENTS,
        MessageKind::PROPOSE_CONFIGURATION,
        MessageKind::CREATE_TABLE,
        MessageKind::QUERY_TABLE,
        MessageKind::FORCE_CONFIGURATION,
        MessageKind::DROP_TABLE,
        MessageKind::RECALL_TABLE,
        MessageKind::RENAME_TABLE,
        MessageKind::PURGE_TABLE,
        MessageKind::CHANGE_ENVIRONMENT,
    ];
    let bodies: [&[u8]; 4] = [b"", b"x", &[0xFF; 64], &[0xFF; 300]];
    for kind in kinds {
        for body in bodies {
            let answer = node.call_raw(kind, body).await;
            // Some of these bytes happen to be a message, with an empty name.
            assert!(
                matches!(
                    answer.header.status,
                    Status::Malformed | Status::InvalidArgument | Status::NoSuchTable | Status::NotDropped
                ),
                "{kind} of {} bytes: {:?}",
                body.len(),
                answer.header.status
            );
            assert!(!explanation(&answer).is_empty());
        }
    }
    let mut whole = Vec::new();
    let header = pegasus_wire::FrameHeader::request(MessageKind::CREATE_TABLE, 0, 0);
    FrameBuilder::append(&mut whole, header, &table("cut", 1), &[]);
    let body = &whole[pegasus_wire::limits::FRAME_HEADER_BYTES..];
    for length in 0..body.len() {
        let answer = node.call_raw(MessageKind::CREATE_TABLE, &body[body.len() - length..]).await;
        assert_eq!(answer.header.status, Status::Malformed, "{length} bytes");
    }
    for kind in [MessageKind::GET, MessageKind(999)] {
        let answer = node.call_raw(kind, b"").await;
        assert_eq!(answer.header.status, Status::Unsupported);
    }
    node.register(1, 5001).await;
    assert_eq!(node.cluster().await.nodes.len(), 1, "the connection and the service live on");
    server.shutdown().await;
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.caller(Role::Replica, server.address()).await;
    let cluster = node.register(1, 5001).await;
    let created: TableReply = call!(node, CREATE_TABLE, table("kept", 1)).decode().unwrap();
    server.shutdown().await;
    drop(node);

    let server = place.start().await;
    let node = place.caller(Role::Replica, server.address()).await;
    let kept = call!(node, QUERY_TABLE, QueryTable { name: "kept".to_owned() });
    let kept: TableReply = kept.decode().unwrap();
    assert_eq!((&kept.table, &kept.partitions), (&created.table, &created.partitions));
    assert!(!kept.nodes[0].alive, "nobody has been heard of yet");
    let mut message = registration(1, 5001);
    message.cluster = Some(cluster);
    let answer = call!(node, REGISTER_NODE, message);
    assert_eq!(answer.decode::<Registered>().unwrap().cluster, cluster);
    server.shutdown().await;
}

#[tokio::test]
async fn a_stopping_server_answers_its_watches() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.caller(Role::Replica, server.address()).await;
    node.register(1, 5001).await;
    let revision = node.watch(1, 0, 0).await.revision;
    let start = Instant::now();
    let watching =
        async { call!(node, WATCH_ASSIGNMENTS, WatchAssignments { node: NodeId(1), revision, wait_ms: 10_000 }) };
    let stopping = async {
        pending_watches(&server, 1).await;
        server.shutdown().await;
    };
    let (answer, ()) = tokio::join!(watching, stopping);
    assert_eq!(answer.header.status, Status::ShuttingDown);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn bad_starts_say_why() {
    let place = Place::new();
    let server = place.start().await;

    let mut config = place.config();
    let second = start_error(&config).await;
    assert!(matches!(second, ServerError::Group(StartError::Store(StoreError::InUse { .. }))), "{second}");

    config.data_directory = place.path().join("other");
    config.listen = server.address();
    let taken = start_error(&config).await;
    assert!(taken.to_string().contains("in use"), "{taken}");

    config.listen = place.config().listen;
    config.admin_listen = server.admin_address();
    let taken = start_error(&config).await;
    assert!(taken.to_string().contains("administration port") && taken.to_string().contains("in use"), "{taken}");

    config = place.config();
    config.tls.certificate = place.path().join("replica.crt");
    config.tls.key = place.path().join("replica.key");
    let role = start_error(&config).await;
    assert!(matches!(role, ServerError::WrongRole { found: Role::Replica, .. }), "{role}");

    config.tls.key = place.path().join("nothing.key");
    let missing = start_error(&config).await;
    assert!(missing.to_string().contains("nothing.key"), "{missing}");
    server.shutdown().await;
}

async fn start_error(config: &pegasus_meta::host::Config) -> ServerError {
    match pegasus_meta::host::Server::start(config).await {
        Ok(_) => panic!("the server started"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn the_administration_port_shows_health_metrics_and_status() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.caller(Role::Replica, server.address()).await;
    let cluster = node.register(1, 5001).await;
    call!(node, CREATE_TABLE, table("shown", 1));
    let _: Assignments = node.watch(1, 0, 0).await;

    assert!(http(&server, "/health").await.ends_with("ok\n"));
    let metrics = http(&server, "/metrics").await;
    for line in [
        "pegasus_meta_live_nodes 1",
        "pegasus_meta_healthy_partitions 4",
        "pegasus_meta_degraded_partitions 0",
        "pegasus_meta_unavailable_partitions 0",
        "pegasus_meta_answers_total{kind=\"CREATE_TABLE\",status=\"Ok\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    let status = http(&server, "/status").await;
    let body = status.split("\r\n\r\n").nth(1).unwrap();
    let status: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(status["cluster"], cluster.to_string());
    assert_eq!(status["tables"][0]["name"], "shown");
    assert_eq!(status["tables"][0]["partitions"][0]["primary"], NodeId(1).to_string());
    assert_eq!(status["tables"][0]["partitions"][0]["health"], "healthy");
    assert_eq!((&status["healthy_partitions"], &status["degraded_partitions"]), (&4.into(), &0.into()));
    assert!(http(&server, "/nothing").await.starts_with("HTTP/1.1 404"));
    server.shutdown().await;
}

async fn http(server: &pegasus_meta::host::Server, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(server.admin_address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: meta\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
