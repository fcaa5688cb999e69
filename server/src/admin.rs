//! The administration port: health, metrics in Prometheus's text format, status as JSON. Loopback or a trusted
//! network only: it has no authentication and shows no data.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_channel::oneshot;
use futures_util::SinkExt;
use pegasus_wire::{PartitionId, owner_core};
use tokio::task::JoinHandle;

use crate::control::{CoreReport, CoreSenders, ToCore};
use crate::meta_link::reports;
use crate::node::{NodeError, NodeShared};

#[derive(Clone)]
struct Admin {
    shared: Arc<NodeShared>,
    cores: CoreSenders,
}

/// Binds the administration port and serves it until the handle is dropped or the server fails.
pub async fn serve(shared: Arc<NodeShared>, cores: CoreSenders) -> Result<JoinHandle<String>, NodeError> {
    let address = shared.config.admin_listen;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| NodeError::new(format!("cannot listen on the administration address {address}"), error))?;
    let router = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/digest/{partition}", get(digest))
        .with_state(Admin { shared, cores });
    Ok(tokio::spawn(async move {
        match axum::serve(listener, router).await {
            Ok(()) => "the server ended".to_owned(),
            Err(error) => error.to_string(),
        }
    }))
}

/// 200 while every core answers and no log is closed, else 503 with the reasons.
async fn health(State(admin): State<Admin>) -> Response {
    let reports = reports(&admin.cores).await;
    let mut problems: Vec<String> = reports
        .iter()
        .flat_map(|report| &report.partitions)
        .filter_map(|partition| Some(format!("partition {}: {}", partition.partition, partition.problem.as_ref()?)))
        .collect();
    problems.extend(
        reports.iter().filter_map(|report| Some(format!("core {}: {}", report.core, report.problem.as_ref()?))),
    );
    if reports.len() < admin.cores.len() {
        problems.push("a core does not answer".to_owned());
    }
    if admin.shared.disk_low.load(Ordering::Relaxed) {
        problems.push("the disk is below its reserve".to_owned());
    }
    if problems.is_empty() {
        (StatusCode::OK, "ok\n".to_owned()).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n").into_response()
    }
}

async fn status(State(admin): State<Admin>) -> Response {
    #[derive(serde::Serialize)]
    struct Status<'a> {
        name: &'a str,
        node: String,
        cluster: Option<String>,
        cores: Vec<CoreReport>,
    }
    let status = Status {
        name: &admin.shared.config.name,
        node: admin.shared.node.to_string(),
        cluster: admin.shared.cluster().map(|cluster| cluster.to_string()),
        cores: reports(&admin.cores).await,
    };
    match serde_json::to_string_pretty(&status) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Digest of a copy's live rows; 409 while it cannot be had.
async fn digest(State(admin): State<Admin>, Path(partition): Path<String>) -> Response {
    let partition: PartitionId = match partition.parse() {
        Ok(partition) => partition,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    let core = owner_core(partition, admin.shared.config.cores);
    let (answer, result) = oneshot::channel();
    let mut sender = admin.cores[usize::from(core)].clone();
    let result = match sender.send(ToCore::Digest(partition, answer)).await {
        Ok(()) => result.await.unwrap_or_else(|_| Err("the core is stopping".to_owned())),
        Err(_) => Err("the core has stopped".to_owned()),
    };
    match result.map(|digest| serde_json::to_string(&digest)) {
        Ok(Ok(body)) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(reason) => (StatusCode::CONFLICT, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut body = render(&reports(&admin.cores).await);
    let pools = [&admin.shared.point_pool, &admin.shared.long_pool, &admin.shared.compact_pool];
    for (pool, statistics) in pools.map(|pool| (pool.name(), pool.statistics())) {
        let _ = writeln!(body, "pegasus_pool_jobs_total{{pool=\"{pool}\"}} {}", statistics.finished);
        let _ = writeln!(body, "pegasus_pool_refused_total{{pool=\"{pool}\"}} {}", statistics.refused);
        let _ = writeln!(body, "pegasus_pool_waiting{{pool=\"{pool}\"}} {}", statistics.waiting);
    }
    let _ = writeln!(body, "pegasus_disk_low {}", u8::from(admin.shared.disk_low.load(Ordering::Relaxed)));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], body).into_response()
}

/// A metric's help text and its samples by core.
type Family<'a> = (&'a str, Vec<(u16, f64)>);

/// One family per metric, one sample per core.
fn render(reports: &[CoreReport]) -> String {
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for report in reports {
        for metric in &report.metrics {
            families
                .entry(metric.name)
                .or_insert_with(|| (metric.help, Vec::new()))
                .1
                .push((report.core, metric.value));
        }
    }
    let mut body = String::new();
    for (name, (help, samples)) in families {
        let _ = writeln!(body, "# HELP pegasus_{name} {help}");
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        let _ = writeln!(body, "# TYPE pegasus_{name} {kind}");
        for (core, value) in samples {
            let _ = writeln!(body, "pegasus_{name}{{core=\"{core}\"}} {value}");
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Metric;

    #[test]
    fn metrics_are_grouped_by_name() {
        let report = |core, value| CoreReport {
            core,
            metrics: vec![Metric { name: "writes_total", help: "Writes.", value }],
            ..CoreReport::default()
        };
        assert_eq!(
            render(&[report(0, 3.0), report(1, 4.0)]),
            "# HELP pegasus_writes_total Writes.\n# TYPE pegasus_writes_total counter\n\
             pegasus_writes_total{core=\"0\"} 3\npegasus_writes_total{core=\"1\"} 4\n"
        );
    }
}
