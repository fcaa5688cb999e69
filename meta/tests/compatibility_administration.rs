//! The port for Pegasus's own clients: tables are made, listed, changed and dropped.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;
mod thrift;

use common::{Caller, Place, call, registration};
use pegasus_gateway::messages::admin::*;
use pegasus_gateway::thrift::{ErrorCode, Map};
use pegasus_gateway::{ErrorName, Rpc};
use pegasus_meta::host::config::CompatibilityConfig;
use pegasus_meta::host::{Clock, Config, Server};
use pegasus_rpc::Role;
use pegasus_wire::Status;
use pegasus_wire::messages::control::{ListTables, RegisterNode, TableList};
use thrift::{Client, config, start};

/// Three nodes, which are alive as long as their connection.
async fn with_nodes(place: &Place, server: &Server) -> Caller {
    let node = place.caller(Role::Replica, server.address()).await;
    for id in 1..=3 {
        node.register(id, 5000 + id as u16).await;
    }
    node
}

fn options<'a>(envs: &[(&'a str, &'a str)]) -> CreateAppOptions<'a> {
    CreateAppOptions {
        partition_count: 4,
        replica_count: 3,
        app_type: "pegasus",
        is_stateful: true,
        envs: Map(envs.to_vec()),
        ..CreateAppOptions::default()
    }
}

/// The error and the number in the answer.
async fn create(client: &mut Client, app_name: &str, options: CreateAppOptions<'_>) -> (ErrorName, i32) {
    let reply = client.call(Rpc::CreateApp, &CreateAppRequest { app_name, options }).await;
    let response: CreateAppResponse<'_> = reply.result();
    (name(response.err), response.appid)
}

async fn drop_app(client: &mut Client, app_name: &str, options: DropAppOptions) -> ErrorName {
    let reply = client.call(Rpc::DropApp, &DropAppRequest { app_name, options }).await;
    name(reply.result::<PlainResponse<'_>>().err)
}

/// The error, and name and environment of the table.
async fn recall(client: &mut Client, app_id: i32, new_app_name: &str) -> (ErrorName, String) {
    let reply = client.call(Rpc::RecallApp, &RecallAppRequest { app_id, new_app_name }).await;
    let response: RecallAppResponse<'_> = reply.result();
    (name(response.err), response.info.app_name.to_owned())
}

async fn rename(client: &mut Client, old_app_name: &str, new_app_name: &str) -> (ErrorName, String) {
    let reply = client.call(Rpc::RenameApp, &RenameAppRequest { old_app_name, new_app_name }).await;
    let response: HintResponse<'_> = reply.result();
    (name(response.err), response.hint_message.to_owned())
}

fn change<'a>(app_name: &'a str, op: AppEnvOperation) -> UpdateAppEnvRequest<'a> {
    UpdateAppEnvRequest { app_name, op, ..UpdateAppEnvRequest::default() }
}

async fn update(client: &mut Client, request: UpdateAppEnvRequest<'_>) -> (ErrorName, String) {
    let reply = client.call(Rpc::UpdateAppEnv, &request).await;
    let response: HintResponse<'_> = reply.result();
    (name(response.err), response.hint_message.to_owned())
}

fn name(error: ErrorCode<'_>) -> ErrorName {
    ErrorName::from_text(error.0).unwrap()
}

/// Names of the tables that are listed.
async fn list(client: &mut Client, request: ListAppsRequest<'_>) -> Vec<String> {
    let reply = client.call(Rpc::ListApps, &request).await;
    let response: ListAppsResponse<'_> = reply.result();
    assert_eq!((name(response.err), response.hint_message), (ErrorName::Ok, None));
    response.infos.iter().map(|info| info.app_name.to_owned()).collect()
}

/// What is listed of the only table of this name, with its environment.
async fn info(client: &mut Client, pattern: &str, check: impl FnOnce(&AppInfo<'_>)) {
    let request =
        ListAppsRequest { app_name_pattern: Some(pattern), match_type: Some(MatchType::EXACT), ..Default::default() };
    let reply = client.call(Rpc::ListApps, &request).await;
    let response: ListAppsResponse<'_> = reply.result();
    assert_eq!((name(response.err), response.infos.len()), (ErrorName::Ok, 1));
    check(&response.infos[0]);
}

#[tokio::test]
async fn a_table_goes_through_its_life() {
    let place = Place::new();
    let (_time, told) = tokio::sync::watch::channel(1_700_000_000);
    let server = Server::start_at(&config(&place), Clock::Given(told)).await.unwrap();
    let _node = with_nodes(&place, &server).await;
    let mut client = Client::connect(&server).await;

    let envs = [("default_ttl", "60"), ("business.info", "x")];
    assert_eq!(create(&mut client, "temp", options(&envs)).await, (ErrorName::Ok, 1));
    assert_eq!(client.query("temp", vec![]).await.route().1.partitions.len(), 4);
    info(&mut client, "temp", |info| {
        let expected = AppInfo {
            status: AppStatus::AVAILABLE,
            app_type: "pegasus",
            app_name: "temp",
            app_id: 1,
            partition_count: 4,
            envs: Map(vec![("business.info", "x"), ("default_ttl", "60")]),
            is_stateful: true,
            max_replica_count: 3,
            init_partition_count: -1,
            ..AppInfo::default()
        };
        assert_eq!(*info, expected);
    })
    .await;

    assert_eq!(rename(&mut client, "temp", "new").await, (ErrorName::Ok, String::new()));
    assert_eq!(client.query("temp", vec![]).await.route().0, ErrorName::ObjectNotFound);
    let reserve = |seconds| DropAppOptions { reserve_seconds: Some(seconds), ..DropAppOptions::default() };
    assert_eq!(drop_app(&mut client, "new", reserve(100)).await, ErrorName::Ok);
    assert_eq!(client.query("new", vec![]).await.route().0, ErrorName::ObjectNotFound);
    info(&mut client, "new", |info| {
        assert_eq!(info.status, AppStatus::DROPPED);
        assert_eq!((info.drop_second, info.expire_second), (1_700_000_000, 1_700_000_100));
    })
    .await;

    assert_eq!(recall(&mut client, 1, "").await, (ErrorName::Ok, "new".to_owned()));
    assert_eq!(client.query("new", vec![]).await.route().1.app_id, 1);
    // No positive time is no time: the service's own applies.
    assert_eq!(drop_app(&mut client, "new", reserve(0)).await, ErrorName::Ok);
    info(&mut client, "new", |info| assert_eq!(info.expire_second, 1_700_000_000 + 604_800)).await;
    assert_eq!(recall(&mut client, 1, "third").await, (ErrorName::Ok, "third".to_owned()));
    info(&mut client, "third", |info| assert_eq!(info.envs.0.len(), 2)).await;
    server.shutdown().await;
}

#[tokio::test]
async fn tables_that_cannot_be_made_are_refused() {
    let place = Place::new();
    let server = start(&place).await;
    let mut client = Client::connect(&server).await;
    assert_eq!(create(&mut client, "temp", options(&[])).await, (ErrorName::NotEnoughMember, 0));
    let node = with_nodes(&place, &server).await;

    let invalid = [
        ("temp", CreateAppOptions { partition_count: 3, ..options(&[]) }),
        ("temp", CreateAppOptions { partition_count: 0, ..options(&[]) }),
        ("temp", CreateAppOptions { partition_count: -8, ..options(&[]) }),
        ("temp", CreateAppOptions { partition_count: 1 << 30, ..options(&[]) }),
        ("temp", CreateAppOptions { replica_count: 0, ..options(&[]) }),
        ("temp", CreateAppOptions { replica_count: -1, ..options(&[]) }),
        ("temp", CreateAppOptions { replica_count: 6, ..options(&[]) }),
        ("temp", CreateAppOptions { replica_count: 259, ..options(&[]) }),
        ("temp", CreateAppOptions { app_type: "rrdb", ..options(&[]) }),
        ("temp", options(&[("no.such", "1")])),
        ("temp", options(&[("default_ttl", "soon")])),
        ("a b", options(&[])),
        ("", options(&[])),
    ];
    for (app_name, options) in invalid {
        let answer = create(&mut client, app_name, options.clone()).await;
        assert_eq!(answer, (ErrorName::InvalidParameters, 0), "{app_name:?} {options:?}");
    }
    assert!(call!(node, LIST_TABLES, ListTables).decode::<TableList>().unwrap().tables.is_empty());

    let envs = [("default_ttl", "60")];
    assert_eq!(create(&mut client, "temp", options(&envs)).await, (ErrorName::Ok, 1));
    assert_eq!(create(&mut client, "temp", options(&envs)).await, (ErrorName::AppExist, 0));
    let again = |options| CreateAppOptions { success_if_exist: true, ..options };
    assert_eq!(create(&mut client, "temp", again(options(&envs))).await, (ErrorName::Ok, 1));
    for other in [
        CreateAppOptions { partition_count: 8, ..options(&envs) },
        CreateAppOptions { replica_count: 2, ..options(&envs) },
        options(&[]),
        options(&[("default_ttl", "61")]),
    ] {
        assert_eq!(create(&mut client, "temp", again(other)).await, (ErrorName::InvalidParameters, 0));
    }
    server.shutdown().await;
}

#[tokio::test]
async fn what_does_not_fit_the_state_of_a_table_is_refused() {
    let place = Place::new();
    let server = start(&place).await;
    let _node = with_nodes(&place, &server).await;
    let mut client = Client::connect(&server).await;
    for (number, app_name) in (1..).zip(["one", "two", "three"]) {
        assert_eq!(create(&mut client, app_name, options(&[])).await, (ErrorName::Ok, number));
    }
    assert_eq!(drop_app(&mut client, "nope", DropAppOptions::default()).await, ErrorName::AppNotExist);
    let lenient = DropAppOptions { success_if_not_exist: true, reserve_seconds: None };
    assert_eq!(drop_app(&mut client, "nope", lenient.clone()).await, ErrorName::Ok);
    let forever = DropAppOptions { reserve_seconds: Some(i64::MAX), ..lenient };
    assert_eq!(drop_app(&mut client, "one", forever).await, ErrorName::InvalidParameters);

    let (error, hint) = rename(&mut client, "nope", "some").await;
    assert_eq!(error, ErrorName::AppNotExist);
    assert!(hint.contains("nope"), "{hint}");
    let (error, hint) = rename(&mut client, "one", "two").await;
    assert_eq!(error, ErrorName::InvalidParameters);
    assert!(hint.contains("belongs to table number 2"), "{hint}");
    assert_eq!(rename(&mut client, "one", "a b").await.0, ErrorName::InvalidParameters);

    assert_eq!(recall(&mut client, 1, "other").await.0, ErrorName::AppExist);
    assert_eq!(recall(&mut client, 9, "").await.0, ErrorName::AppNotExist);
    assert_eq!(recall(&mut client, -1, "").await.0, ErrorName::InvalidParameters);
    assert_eq!(drop_app(&mut client, "one", DropAppOptions::default()).await, ErrorName::Ok);
    assert_eq!(recall(&mut client, 1, "two").await.0, ErrorName::InvalidParameters);
    assert_eq!(drop_app(&mut client, "one", DropAppOptions::default()).await, ErrorName::AppNotExist);
    server.shutdown().await;
}

#[tokio::test]
async fn an_environment_is_set_deleted_and_cleared() {
    let place = Place::new();
    let server = start(&place).await;
    let _node = with_nodes(&place, &server).await;
    let mut client = Client::connect(&server).await;
    assert_eq!(create(&mut client, "temp", options(&[("business.info", "x")])).await, (ErrorName::Ok, 1));
    let done = (ErrorName::Ok, String::new());

    let set = UpdateAppEnvRequest {
        keys: Some(vec!["manual_compact.disabled", "replica.slow_query_threshold", "default_ttl"]),
        values: Some(vec!["true", "50", "60"]),
        ..change("temp", AppEnvOperation::SET)
    };
    assert_eq!(update(&mut client, set.clone()).await, done);
    info(&mut client, "temp", |info| assert_eq!(info.envs.0.len(), 4)).await;
    let delete =
        UpdateAppEnvRequest { keys: Some(vec!["default_ttl", "never.set"]), ..change("temp", AppEnvOperation::DELETE) };
    assert_eq!(update(&mut client, delete.clone()).await, done);
    let clear = |prefix| UpdateAppEnvRequest { clear_prefix: prefix, ..change("temp", AppEnvOperation::CLEAR) };
    assert_eq!(update(&mut client, clear(Some("manual_"))).await, done);
    info(&mut client, "temp", |info| {
        assert_eq!(info.envs.0, [("business.info", "x"), ("replica.slow_query_threshold", "50")]);
    })
    .await;
    assert_eq!(update(&mut client, clear(Some(""))).await, done);
    info(&mut client, "temp", |info| assert!(info.envs.0.is_empty())).await;

    for (refused, expected) in [
        (UpdateAppEnvRequest { values: Some(vec!["true"]), ..set.clone() }, "as many values"),
        (change("temp", AppEnvOperation::SET), "needs keys"),
        (change("temp", AppEnvOperation::DELETE), "needs keys"),
        (change("temp", AppEnvOperation(0)), "no operation 0"),
        (UpdateAppEnvRequest { keys: Some(vec!["a", "a", "b"]), ..set.clone() }, "set twice"),
        (UpdateAppEnvRequest { keys: Some(vec!["a", "b", "c"]), ..set.clone() }, "no setting"),
    ] {
        let (error, hint) = update(&mut client, refused.clone()).await;
        assert_eq!(error, ErrorName::InvalidParameters, "{refused:?}");
        assert!(hint.contains(expected), "{refused:?}: {hint}");
    }
    for missing in [
        UpdateAppEnvRequest { app_name: "nope", ..set },
        UpdateAppEnvRequest { app_name: "nope", ..delete },
        UpdateAppEnvRequest { app_name: "nope", ..clear(Some("manual_")) },
    ] {
        let (error, hint) = update(&mut client, missing).await;
        assert_eq!(error, ErrorName::AppNotExist);
        assert!(hint.contains("nope"), "{hint}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn tables_are_listed_by_state_and_by_name() {
    let place = Place::new();
    let server = start(&place).await;
    let _node = with_nodes(&place, &server).await;
    let mut client = Client::connect(&server).await;
    for app_name in ["temp", "state", "old", "te"] {
        create(&mut client, app_name, options(&[])).await;
    }
    assert_eq!(drop_app(&mut client, "old", DropAppOptions::default()).await, ErrorName::Ok);
    let by_state = |status| ListAppsRequest { status, ..ListAppsRequest::default() };
    assert_eq!(list(&mut client, by_state(AppStatus::INVALID)).await, ["temp", "state", "old", "te"]);
    assert_eq!(list(&mut client, by_state(AppStatus::AVAILABLE)).await, ["temp", "state", "te"]);
    assert_eq!(list(&mut client, by_state(AppStatus::DROPPED)).await, ["old"]);
    assert!(list(&mut client, by_state(AppStatus::CREATING)).await.is_empty());

    let by_name = |match_type| ListAppsRequest { app_name_pattern: Some("te"), match_type, ..Default::default() };
    for (match_type, expected) in [
        (None, &["temp", "state", "old", "te"][..]),
        (Some(MatchType::ALL), &["temp", "state", "old", "te"]),
        (Some(MatchType::EXACT), &["te"]),
        (Some(MatchType::ANYWHERE), &["temp", "state", "te"]),
        (Some(MatchType::PREFIX), &["temp", "te"]),
        (Some(MatchType::POSTFIX), &["state", "te"]),
    ] {
        assert_eq!(list(&mut client, by_name(match_type)).await, expected, "{match_type:?}");
    }
    for unknown in [MatchType::INVALID, MatchType::REGEX, MatchType(-1)] {
        let reply = client.call(Rpc::ListApps, &by_name(Some(unknown))).await;
        let response: ListAppsResponse<'_> = reply.result();
        assert_eq!((name(response.err), response.infos.len()), (ErrorName::InvalidParameters, 0));
        assert!(response.hint_message.unwrap().contains("no match type"));
    }
    server.shutdown().await;
}

#[tokio::test]
async fn nodes_and_the_cluster_are_told_of() {
    let place = Place::new();
    let server = start(&place).await;
    let node = with_nodes(&place, &server).await;
    let mut client = Client::connect(&server).await;
    create(&mut client, "temp", options(&[])).await;
    // Node 3 is a member, and loses its address to node 4; node 2 goes where the protocol cannot name it.
    node.register(4, 5003).await;
    let elsewhere = RegisterNode { address: "[::1]:5002".parse().unwrap(), ..registration(2, 5002) };
    assert_eq!(call!(node, REGISTER_NODE, elsewhere).header.status, Status::Ok);

    let mut nodes = async |status| {
        let reply = client.call(Rpc::ListNodes, &ListNodesRequest { status }).await;
        let response: ListNodesResponse<'_> = reply.result();
        assert_eq!(name(response.err), ErrorName::Ok);
        let mut ports: Vec<Option<u16>> = response.infos.iter().map(|one| one.address.0.map(|at| at.port())).collect();
        assert!(response.infos.iter().all(|one| one.status == NodeStatus::ALIVE));
        ports.sort_unstable();
        ports
    };
    assert_eq!(nodes(NodeStatus::INVALID).await, [None, Some(5001), Some(5003)]);
    assert_eq!(nodes(NodeStatus::ALIVE).await, [None, Some(5001), Some(5003)]);
    assert!(nodes(NodeStatus::UNALIVE).await.is_empty());

    let reply = client.call(Rpc::ClusterInfo, &ClusterInfoRequest {}).await;
    let response: ClusterInfoResponse<'_> = reply.result();
    assert_eq!(name(response.err), ErrorName::Ok);
    let facts: std::collections::BTreeMap<&str, &str> = response.keys.into_iter().zip(response.values).collect();
    let address = server.address().to_string();
    assert_eq!((facts["meta_servers"], facts["primary_meta_server"]), (address.as_str(), address.as_str()));
    assert_eq!(facts["meta_function_level"], "steady");
    assert_eq!(facts["cluster_name"], server.service().group.read(|state| state.cluster()).unwrap().to_string());
    assert!(facts["primary_replica_count_stddev"].parse::<f64>().unwrap() >= 0.0);
    assert!(facts["total_replica_count_stddev"].parse::<f64>().unwrap() > 0.0, "node 4 has nothing");
    server.shutdown().await;
}

#[tokio::test]
async fn administration_has_to_be_asked_for() {
    let place = Place::new();
    let compatibility = CompatibilityConfig { enabled: true, ..CompatibilityConfig::default() };
    let server = Server::start(&Config { compatibility, ..config(&place) }).await.unwrap();
    let node = with_nodes(&place, &server).await;
    assert_eq!(call!(node, CREATE_TABLE, common::table("temp", 3)).header.status, Status::Ok);
    let mut client = Client::connect(&server).await;

    let off = ErrorName::InvalidState;
    assert_eq!(create(&mut client, "other", options(&[])).await, (off, 0));
    assert_eq!(drop_app(&mut client, "temp", DropAppOptions::default()).await, off);
    assert_eq!(recall(&mut client, 1, "").await, (off, String::new()));
    let (error, hint) = rename(&mut client, "temp", "other").await;
    assert_eq!(error, off);
    assert!(hint.contains("compatibility.administration"), "{hint}");
    assert_eq!(update(&mut client, change("temp", AppEnvOperation::CLEAR)).await.0, off);
    let reply = client.call(Rpc::ListApps, &ListAppsRequest::default()).await;
    let response: ListAppsResponse<'_> = reply.result();
    assert_eq!((name(response.err), response.infos.len()), (off, 0));
    let reply = client.call(Rpc::ListNodes, &ListNodesRequest::default()).await;
    assert_eq!(name(reply.result::<ListNodesResponse<'_>>().err), off);
    let reply = client.call(Rpc::ClusterInfo, &ClusterInfoRequest {}).await;
    assert_eq!(name(reply.result::<ClusterInfoResponse<'_>>().err), off);

    // Nothing has changed, and rows can be reached.
    let tables = call!(node, LIST_TABLES, ListTables).decode::<TableList>().unwrap().tables;
    assert_eq!((tables.len(), tables[0].properties.name.as_str()), (1, "temp"));
    assert_eq!(client.query("temp", vec![]).await.route().0, ErrorName::Ok);
    let text = server.service().metrics.render(server.service().gauges());
    let line = "pegasus_meta_compatibility_answers_total{method=\"RPC_CM_DROP_APP\",outcome=\"ERR_INVALID_STATE\"} 1";
    assert!(text.lines().any(|found| found == line), "{text}");
    server.shutdown().await;
}
