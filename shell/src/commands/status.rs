//! The state of the cluster.

use pegasus_client::ClusterReply;
use serde_json::{Value, json};

use crate::context::Context;
use crate::output::{Ending, Grid, Outcome};

/// Shows meta servers, nodes and tables.
pub async fn run(context: &Context) -> Outcome {
    let status = context.client().await?.cluster_status().await?;
    context.style().show(&to_text(&status), to_json(&status));
    Ok(Ending::Yes)
}

fn to_text(status: &ClusterReply) -> String {
    let metas: Vec<String> = status.meta_addresses.iter().map(ToString::to_string).collect();
    let mut nodes = Grid::new(&["node", "address", "cores", "alive", "primaries", "secondaries", "damaged"]);
    for node in &status.nodes {
        nodes.row(vec![
            node.info.node.to_string(),
            node.info.address.to_string(),
            node.info.cores.to_string(),
            if node.info.alive { "yes" } else { "no" }.to_owned(),
            node.primaries.to_string(),
            node.secondaries.to_string(),
            node.damaged.to_string(),
        ]);
    }
    let mut tables = Grid::new(&["table", "name", "partitions", "healthy"]);
    for table in &status.tables {
        tables.row(vec![
            table.table.to_string(),
            table.name.clone(),
            table.partition_count.to_string(),
            table.healthy_partitions.to_string(),
        ]);
    }
    format!("cluster {}, meta {}\n\n{}\n{}", status.cluster, metas.join(", "), nodes.render(), tables.render())
}

fn to_json(status: &ClusterReply) -> Value {
    let nodes = status.nodes.iter().map(|node| {
        json!({
            "node": node.info.node.to_string(),
            "address": node.info.address.to_string(),
            "admin_address": node.info.admin_address.to_string(),
            "cores": node.info.cores,
            "alive": node.info.alive,
            "primaries": node.primaries,
            "secondaries": node.secondaries,
            "damaged": node.damaged,
        })
    });
    let tables = status.tables.iter().map(|table| {
        json!({
            "table": table.table.0,
            "name": table.name,
            "partition_count": table.partition_count,
            "healthy_partitions": table.healthy_partitions,
        })
    });
    json!({
        "cluster": status.cluster.to_string(),
        "meta": status.meta_addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "nodes": nodes.collect::<Vec<_>>(),
        "tables": tables.collect::<Vec<_>>(),
    })
}
