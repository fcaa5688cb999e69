//! The administration port: health, metrics and status over HTTP. Read only; for operators and monitoring.

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use pegasus_wire::PartitionId;
use pegasus_wire::messages::control::{ClusterReply, NodeSummary, TableState, TableSummary};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::handlers::Service;
use super::service::stop_asked;
use crate::core::{Heard, State, Table, health_counts, health_of};

/// Serves the port until the service is told to stop.
pub async fn serve(service: Service, listener: TcpListener) {
    let mut stopping = service.stopping.clone();
    let server = axum::serve(listener, router(service));
    // Requests still open when the service stops are cut off: they only read.
    tokio::select! {
        result = server => {
            if let Err(error) = result {
                tracing::error!("the administration port failed: {error}");
            }
        }
        () = stop_asked(&mut stopping) => {}
    }
}

fn router(service: Service) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(service)
}

async fn health(Shared(service): Shared<Service>) -> Response {
    if is_stopping(&service.stopping) {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    if !service.group.leads() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not the leader\n").into_response();
    }
    (StatusCode::OK, "ok\n").into_response()
}

async fn metrics(Shared(service): Shared<Service>) -> Response {
    let text = service.metrics.render(service.gauges());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn status(Shared(service): Shared<Service>) -> Response {
    match service.cluster() {
        Some(cluster) => {
            let describe = |state: &State| describe(&cluster, state, &service.planner.heard(state));
            Json(service.group.read(describe)).into_response()
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, "the cluster has no name yet\n").into_response(),
    }
}

fn is_stopping(stopping: &watch::Receiver<bool>) -> bool {
    *stopping.borrow()
}

/// Ids are texts, because JSON readers lose the low bits of large numbers.
fn describe(cluster: &ClusterReply, state: &State, heard: &Heard) -> Value {
    let health = health_counts(state, heard);
    json!({
        "cluster": cluster.cluster.to_string(),
        "revision": state.revision(),
        "healthy_partitions": health.healthy,
        "degraded_partitions": health.degraded,
        "unavailable_partitions": health.unavailable,
        "meta_addresses": cluster.meta_addresses,
        "nodes": cluster.nodes.iter().map(describe_node).collect::<Vec<_>>(),
        "dropped_tables": state.tables().values().filter_map(describe_dropped).collect::<Vec<_>>(),
        "tables": cluster.tables.iter().map(|table| describe_table(table, state, heard)).collect::<Vec<_>>(),
    })
}

fn describe_node(node: &NodeSummary) -> Value {
    json!({
        "node": node.info.node.to_string(),
        "address": node.info.address,
        "admin_address": node.info.admin_address,
        "cores": node.info.cores,
        "alive": node.info.alive,
        "primaries": node.primaries,
        "secondaries": node.secondaries,
        "damaged": node.damaged,
    })
}

/// `None` for a table that serves.
fn describe_dropped(table: &Table) -> Option<Value> {
    let TableState::Dropped { dropped_seconds, purge_seconds } = table.state else { return None };
    Some(json!({
        "table": table.properties.table.0,
        "name": table.properties.name,
        "partition_count": table.properties.partition_count,
        "dropped_seconds": dropped_seconds,
        "purge_seconds": purge_seconds,
    }))
}

fn describe_table(summary: &TableSummary, state: &State, heard: &Heard) -> Value {
    let table = state.tables().get(&summary.table);
    let partitions: Vec<Value> = (0u32..)
        .zip(table.iter().flat_map(|table| &table.partitions))
        .map(|(index, configuration)| {
            let partition = PartitionId { table: summary.table, index };
            let former = state.former_members(partition).iter();
            json!({
                "ballot": configuration.ballot.0,
                "primary": configuration.primary.map(|node| node.to_string()),
                "secondaries": configuration.secondaries.iter().map(|node| node.to_string()).collect::<Vec<_>>(),
                "former_members": former.map(|entry| entry.node.to_string()).collect::<Vec<_>>(),
                "health": health_of(state, heard, partition, configuration).word(),
            })
        })
        .collect();
    json!({
        "table": summary.table.0,
        "name": summary.name,
        "partition_count": summary.partition_count,
        "replica_count": table.map(|table| table.properties.replica_count),
        "durability": table.map(|table| table.properties.durability.to_string()),
        "environment": table.map(|table| &table.environment),
        "healthy_partitions": summary.healthy_partitions,
        "partitions": partitions,
    })
}
