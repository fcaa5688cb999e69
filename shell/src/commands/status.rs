//! The state of the cluster: all of it, its nodes, or its meta servers and numbers.

use pegasus_client::{ClusterReply, Diagnosis, TableSummary};
use serde_json::{Value, json};

use crate::context::Context;
use crate::output::{Ending, Grid, Outcome};

/// Partitions of one table that are named; the rest is counted.
const NAMED_MAX: usize = 8;

/// Shows meta servers, nodes and tables, and which partitions are not whole.
pub async fn run(context: &Context) -> Outcome {
    let client = context.client().await?;
    let status = client.cluster_status().await?;
    let all_whole = status.tables.iter().all(|table| table.healthy_partitions == table.partition_count);
    let diagnosis = match all_whole {
        true => Diagnosis { examined: 0, partitions: Vec::new() },
        false => client.diagnose_partitions(None).await?,
    };
    context.style().show(&to_text(&status, &diagnosis), to_json(&status, &diagnosis));
    Ok(Ending::Yes)
}

/// Shows the nodes and what they hold.
pub async fn nodes(context: &Context) -> Outcome {
    let status = context.client().await?.cluster_status().await?;
    context.style().show(&nodes_text(&status), json!({"nodes": nodes_json(&status)}));
    Ok(Ending::Yes)
}

/// Shows the cluster in numbers.
pub async fn cluster_info(context: &Context) -> Outcome {
    let status = context.client().await?.cluster_status().await?;
    let (text, value) = info(&status);
    context.style().show(&text, value);
    Ok(Ending::Yes)
}

fn info(status: &ClusterReply) -> (String, Value) {
    let metas: Vec<String> = status.meta_addresses.iter().map(ToString::to_string).collect();
    let alive = status.nodes.iter().filter(|node| node.info.alive).count();
    let healthy: u32 = status.tables.iter().map(|table| table.healthy_partitions).sum();
    let partitions: u32 = status.tables.iter().map(|table| table.partition_count).sum();
    let mut grid = Grid::of_texts(&["cluster", "value"]);
    for (name, value) in [
        ("id", status.cluster.to_string()),
        ("meta servers", metas.join(" ")),
        ("nodes alive", format!("{alive} of {}", status.nodes.len())),
        ("tables", status.tables.len().to_string()),
        ("partitions healthy", format!("{healthy} of {partitions}")),
    ] {
        grid.row(vec![name.to_owned(), value]);
    }
    let value = json!({
        "cluster": status.cluster.to_string(),
        "meta": metas,
        "nodes": status.nodes.len(),
        "nodes_alive": alive,
        "tables": status.tables.len(),
        "partitions": partitions,
        "healthy_partitions": healthy,
    });
    (grid.render(), value)
}

fn nodes_text(status: &ClusterReply) -> String {
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
    nodes.render()
}

fn to_text(status: &ClusterReply, diagnosis: &Diagnosis) -> String {
    let metas: Vec<String> = status.meta_addresses.iter().map(ToString::to_string).collect();
    let mut tables = Grid::new(&["table", "name", "partitions", "healthy", "not whole"]);
    for table in &status.tables {
        tables.row(vec![
            table.table.to_string(),
            table.name.clone(),
            table.partition_count.to_string(),
            table.healthy_partitions.to_string(),
            not_whole_text(&NotWhole::of(table, diagnosis)),
        ]);
    }
    let hint = match diagnosis.partitions.is_empty() {
        true => "",
        false => "\nwhat they wait for: pegasus partition diagnose\n",
    };
    let (cluster, metas) = (status.cluster, metas.join(", "));
    format!("cluster {cluster}, meta {metas}\n\n{}\n{}{hint}", nodes_text(status), tables.render())
}

/// The partitions of a table that are not whole.
struct NotWhole {
    /// Their indexes.
    indexes: Vec<u32>,
    /// How many of them are not served and cannot be.
    unavailable: usize,
}

impl NotWhole {
    fn of(table: &TableSummary, diagnosis: &Diagnosis) -> NotWhole {
        let found = diagnosis.partitions.iter().filter(|found| found.partition.table == table.table);
        NotWhole {
            indexes: found.clone().map(|found| found.partition.index).collect(),
            unavailable: found.filter(|found| found.unavailable).count(),
        }
    }
}

/// For example `3: 0 4 7 (1 unavailable)`.
fn not_whole_text(not_whole: &NotWhole) -> String {
    let count = not_whole.indexes.len();
    if count == 0 {
        return "0".to_owned();
    }
    let named: Vec<String> = not_whole.indexes.iter().take(NAMED_MAX).map(u32::to_string).collect();
    let more = if count > NAMED_MAX { " ..." } else { "" };
    let unavailable = match not_whole.unavailable {
        0 => String::new(),
        unavailable => format!(" ({unavailable} unavailable)"),
    };
    format!("{count}: {}{more}{unavailable}", named.join(" "))
}

fn nodes_json(status: &ClusterReply) -> Value {
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
    nodes.collect()
}

fn to_json(status: &ClusterReply, diagnosis: &Diagnosis) -> Value {
    let tables = status.tables.iter().map(|table| {
        let not_whole = NotWhole::of(table, diagnosis);
        json!({
            "table": table.table.0,
            "name": table.name,
            "partition_count": table.partition_count,
            "healthy_partitions": table.healthy_partitions,
            "not_whole": not_whole.indexes,
            "unavailable_partitions": not_whole.unavailable,
        })
    });
    json!({
        "cluster": status.cluster.to_string(),
        "meta": status.meta_addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "nodes": nodes_json(status),
        "tables": tables.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegasus_client::{Ballot, Configuration, PartitionDiagnosis, PartitionId};
    use pegasus_wire::{ClusterId, TableId};

    fn status() -> ClusterReply {
        let table = |number: u32, name: &str, healthy_partitions| TableSummary {
            table: TableId(number),
            name: name.into(),
            healthy_partitions,
            partition_count: 16,
        };
        ClusterReply {
            cluster: ClusterId(7),
            meta_addresses: vec!["127.0.0.1:34601".parse().expect("an address")],
            nodes: vec![],
            tables: vec![table(1, "stat", 16), table(2, "temp", 14)],
        }
    }

    fn found(index: u32, unavailable: bool) -> PartitionDiagnosis {
        PartitionDiagnosis {
            partition: PartitionId::new(2, index),
            table: "temp".into(),
            configuration: Configuration { ballot: Ballot(3), ..Configuration::default() },
            replica_count: 3,
            unavailable,
            problems: vec![],
            waits_for: String::new(),
        }
    }

    #[test]
    fn partitions_that_are_not_whole_are_named_per_table() {
        let diagnosis = Diagnosis { examined: 32, partitions: vec![found(4, false), found(9, true)] };
        let text = to_text(&status(), &diagnosis);
        assert!(text.contains("2: 4 9 (1 unavailable)") && text.contains("partition diagnose"), "{text}");
        let value = to_json(&status(), &diagnosis);
        assert_eq!(value["tables"][0]["not_whole"], json!([]));
        assert_eq!(value["tables"][1]["not_whole"], json!([4, 9]));
        assert_eq!(value["tables"][1]["unavailable_partitions"], 1);
    }

    #[test]
    fn a_cluster_is_summed_up() {
        let (text, value) = info(&status());
        assert!(text.contains("nodes alive         0 of 0\n"), "{text}");
        assert!(text.contains("partitions healthy  30 of 32\n"), "{text}");
        assert_eq!((&value["tables"], &value["healthy_partitions"]), (&json!(2), &json!(30)));
    }

    #[test]
    fn a_whole_cluster_says_nothing_of_it() {
        let text = to_text(&status(), &Diagnosis { examined: 0, partitions: vec![] });
        assert!(!text.contains("diagnose"), "{text}");
    }

    #[test]
    fn many_are_counted() {
        let many = NotWhole { indexes: (0..10).collect(), unavailable: 0 };
        assert_eq!(not_whole_text(&many), "10: 0 1 2 3 4 5 6 7 ...");
    }
}
