//! Partitions: where they are, what is wrong with those that are not whole, and the last resort.

use std::net::SocketAddr;
use std::str::FromStr;

use clap::{Args, Subcommand};
use pegasus_client::{
    Ballot, Client, Configuration, Diagnosis, NodeId, PartitionDiagnosis, PartitionId, TableReply, TableState,
};
use serde_json::{Value, json};

use crate::context::Context;
use crate::nodes::NodeNames;
use crate::output::{Ending, Failure, Grid, Outcome};

/// `partition` and its verbs.
#[derive(Debug, Args)]
pub struct PartitionCommand {
    /// What to do.
    #[command(subcommand)]
    pub verb: PartitionVerb,
}

/// What can be done with partitions.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum PartitionVerb {
    /// List partitions: ballot, members, health; of the table of --table, or of all
    List(Scope),
    /// Explain every partition that is not whole and what it waits for; exit code 0 if all are whole, else 1
    Diagnose(Scope),
    /// Make one node the only member of a partition whose other members will not come back. May lose data
    Force(ForceArguments),
}

/// Which tables to look at.
#[derive(Clone, Copy, Debug, Args)]
pub struct Scope {
    /// Look at all tables, also if one is named by PEGASUS_TABLE or was chosen at the prompt
    #[arg(long)]
    pub all: bool,
}

/// Options of `partition force`.
#[derive(Clone, Debug, Args)]
pub struct ForceArguments {
    /// The partition's number inside its table, from 0
    #[arg(long)]
    pub index: u32,
    /// The node that becomes primary and only member: its address or its id
    #[arg(long, value_name = "NODE")]
    pub primary: NodeName,
    /// The ballot that `partition list` shows: if another one is in force, nothing is done
    #[arg(long, value_name = "BALLOT")]
    pub expected_ballot: u64,
    /// Accept that acknowledged writes which this node does not have are lost for ever
    #[arg(long)]
    pub accept_loss: bool,
}

/// A node as an operator names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeName {
    /// By the address of its core 0.
    Address(SocketAddr),
    /// By its identity.
    Id(NodeId),
}

impl FromStr for NodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<NodeName, String> {
        if let Ok(address) = text.parse() {
            return Ok(NodeName::Address(address));
        }
        // Shorter numbers are more likely an index or a name's end than an id.
        match u64::from_str_radix(text, 16) {
            Ok(id) if text.len() == 16 => Ok(NodeName::Id(NodeId(id))),
            _ => Err(format!(
                "a node is named by its address or by the 16 digits of its id, as `status` shows them; got {text:?}"
            )),
        }
    }
}

/// Carries out a verb.
pub async fn run(context: &Context, command: PartitionCommand) -> Outcome {
    match command.verb {
        PartitionVerb::List(scope) => list(context, scope).await,
        PartitionVerb::Diagnose(scope) => diagnose(context, scope).await,
        PartitionVerb::Force(arguments) => force(context, arguments).await,
    }
}

async fn list(context: &Context, scope: Scope) -> Outcome {
    let client = context.client().await?;
    let tables = match table_in(context, scope) {
        Some(table) => vec![table],
        None => {
            let tables = client.list_tables().await?.into_iter();
            let serving = tables.filter(|table| table.state == TableState::Available);
            serving.map(|table| table.properties.name).collect()
        }
    };
    let mut listed = Vec::new();
    for table in &tables {
        let reply = client.describe_table(table).await?;
        let diagnosis = client.diagnose_partitions(Some(table)).await?;
        listed.push((reply, diagnosis));
    }
    context.style().show(&list_text(&listed), list_json(&listed));
    Ok(Ending::Yes)
}

async fn diagnose(context: &Context, scope: Scope) -> Outcome {
    let client = context.client().await?;
    let table = table_in(context, scope);
    let diagnosis = client.diagnose_partitions(table.as_deref()).await?;
    let cluster = client.cluster_status().await?;
    let names = NodeNames::new(cluster.nodes.iter().map(|node| &node.info));
    let concerned = cluster.tables.iter().filter(|summary| table.as_ref().is_none_or(|table| *table == summary.name));
    let partition_count = concerned.map(|table| table.partition_count).sum();
    let value = diagnosis_json(&diagnosis, &names);
    context.style().show(&diagnosis_text(&diagnosis, &names, partition_count), value);
    Ok(if diagnosis.partitions.is_empty() { Ending::Yes } else { Ending::No })
}

async fn force(context: &Context, arguments: ForceArguments) -> Outcome {
    let table = context.table_name()?;
    let client = context.client().await?;
    let reply = client.describe_table(&table).await?;
    let Some(in_force) = reply.partitions.get(arguments.index as usize) else {
        return Err(Failure::usage(format!(
            "table {table} has {} partitions, there is no partition {}",
            reply.partitions.len(),
            arguments.index
        )));
    };
    let (primary, names) = resolve(&client, arguments.primary).await?;
    if !arguments.accept_loss {
        let text = explain_loss(&table, &arguments, in_force, names.name(primary), &names);
        return Err(Failure::new("loss_not_accepted", text));
    }
    let partition = PartitionId { table: reply.table.table, index: arguments.index };
    let forced = client.force_configuration(partition, Ballot(arguments.expected_ballot), primary).await?;
    let text = configuration_text(&forced.configuration, &names);
    if !forced.accepted {
        return Err(Failure::new(
            "ballot_conflict",
            format!(
                "ballot {} is not in force; look again before you decide. In force: {text}",
                arguments.expected_ballot
            ),
        ));
    }
    let mut value = configuration_json(&forced.configuration, &names);
    value["table"] = json!(table);
    value["partition"] = json!(partition.to_string());
    context.style().show(&format!("partition {partition} of table {table}, in force now: {text}"), value);
    Ok(Ending::Yes)
}

/// The table to look at; `None` for all.
fn table_in(context: &Context, scope: Scope) -> Option<String> {
    if scope.all { None } else { context.table_name().ok() }
}

/// The node's identity, and how nodes are called.
async fn resolve(client: &Client, node: NodeName) -> Result<(NodeId, NodeNames), Failure> {
    let cluster = client.cluster_status().await?;
    let names = NodeNames::new(cluster.nodes.iter().map(|node| &node.info));
    let found = cluster.nodes.iter().map(|node| &node.info).find(|info| match node {
        NodeName::Address(address) => info.address == address,
        NodeName::Id(id) => info.node == id,
    });
    match found {
        Some(info) => Ok((info.node, names)),
        None => Err(Failure::usage("the cluster knows no such node; `status` lists its nodes".to_owned())),
    }
}

fn explain_loss(
    table: &str,
    arguments: &ForceArguments,
    in_force: &Configuration,
    primary: String,
    names: &NodeNames,
) -> String {
    let index = arguments.index;
    let stale = if in_force.ballot.0 == arguments.expected_ballot {
        String::new()
    } else {
        format!("\n  Ballot {} is not in force: look again before you decide.", arguments.expected_ballot)
    };
    format!(
        "refused: this may lose data for ever, and --accept-loss was not given.\n  \
         {primary} would become the only member of partition {index} of table {table}. Every acknowledged write that \
         its copy does not\n  have would be gone, also if the other members come back later: their copies would be \
         thrown away.\n  \
         In force: {}.{stale}\n  \
         As long as one of the members can come back, start its node instead; `pegasus partition diagnose` says what \
         the partition\n  waits for. If none ever will, choose the node whose copy is the newest and repeat this \
         with --accept-loss.",
        configuration_text(in_force, names)
    )
}

/// How a partition fares, by what the meta service says of it.
fn health(diagnosis: &Diagnosis, index: u32) -> &'static str {
    match diagnosis.partitions.iter().find(|found| found.partition.index == index) {
        Some(found) => health_word(found),
        // Partitions are looked at in their order, and an answer that is full ends early.
        None if index >= diagnosis.examined => "unknown",
        None => "healthy",
    }
}

fn health_word(found: &PartitionDiagnosis) -> &'static str {
    if found.unavailable { "unavailable" } else { "degraded" }
}

fn list_text(listed: &[(TableReply, Diagnosis)]) -> String {
    let mut grid = Grid::new(&["table", "index", "ballot", "primary", "secondaries", "health"]);
    for (reply, diagnosis) in listed {
        let names = NodeNames::new(&reply.nodes);
        for (index, configuration) in (0..).zip(&reply.partitions) {
            grid.row(vec![
                reply.table.name.clone(),
                index.to_string(),
                configuration.ballot.to_string(),
                names.primary(configuration),
                names.secondaries(configuration).join(" "),
                health(diagnosis, index).to_owned(),
            ]);
        }
    }
    grid.render()
}

fn list_json(listed: &[(TableReply, Diagnosis)]) -> Value {
    let partitions = listed.iter().flat_map(|(reply, diagnosis)| {
        let names = NodeNames::new(&reply.nodes);
        (0..).zip(&reply.partitions).map(move |(index, configuration)| {
            let mut value = configuration_json(configuration, &names);
            value["table"] = json!(reply.table.name);
            value["partition"] = json!(PartitionId { table: reply.table.table, index }.to_string());
            value["index"] = json!(index);
            value["health"] = json!(health(diagnosis, index));
            value
        })
    });
    json!({"partitions": partitions.collect::<Vec<_>>()})
}

fn diagnosis_text(diagnosis: &Diagnosis, names: &NodeNames, partition_count: u32) -> String {
    let examined = diagnosis.examined;
    let mut out = String::new();
    for found in &diagnosis.partitions {
        let (table, index) = (&found.table, found.partition.index);
        out.push_str(&format!("partition {index} of table {table} ({}) is {}\n", found.partition, health_word(found)));
        out.push_str(&format!("  in force   {}\n", configuration_text(&found.configuration, names)));
        for problem in &found.problems {
            out.push_str(&format!("  problem    {problem}\n"));
        }
        out.push_str(&format!("  waits for  {}\n\n", found.waits_for));
    }
    match diagnosis.partitions.len() {
        0 => out.push_str(&format!("all {examined} partitions are whole\n")),
        count => {
            let unavailable = diagnosis.partitions.iter().filter(|found| found.unavailable).count();
            out.push_str(&format!("{count} of {examined} partitions are not whole ({unavailable} unavailable)\n"));
        }
    }
    if examined < partition_count {
        out.push_str(&format!(
            "only {examined} of {partition_count} partitions were looked at, then the answer was full; name a table\n"
        ));
    }
    out
}

fn diagnosis_json(diagnosis: &Diagnosis, names: &NodeNames) -> Value {
    let partitions = diagnosis.partitions.iter().map(|found| {
        let mut value = configuration_json(&found.configuration, names);
        value["table"] = json!(found.table);
        value["partition"] = json!(found.partition.to_string());
        value["index"] = json!(found.partition.index);
        value["health"] = json!(health_word(found));
        value["replica_count"] = json!(found.replica_count);
        value["problems"] = json!(found.problems);
        value["waits_for"] = json!(found.waits_for);
        value
    });
    json!({"examined": diagnosis.examined, "partitions": partitions.collect::<Vec<_>>()})
}

fn configuration_text(configuration: &Configuration, names: &NodeNames) -> String {
    let secondaries = match configuration.secondaries.len() {
        0 => "no secondaries".to_owned(),
        _ => format!("secondaries {}", names.secondaries(configuration).join(" ")),
    };
    format!("ballot {}, primary {}, {secondaries}", configuration.ballot, names.primary(configuration))
}

/// Addresses for people, ids for programs.
fn configuration_json(configuration: &Configuration, names: &NodeNames) -> Value {
    json!({
        "ballot": configuration.ballot.0,
        "primary": configuration.primary.map(|node| names.name(node)),
        "primary_node": configuration.primary.map(|node| node.to_string()),
        "secondaries": names.secondaries(configuration),
        "secondary_nodes": configuration.secondaries.iter().map(NodeId::to_string).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegasus_client::{Durability, TableProperties};
    use pegasus_wire::{NodeInfo, TableId};

    fn node(number: u64) -> NodeInfo {
        NodeInfo {
            node: NodeId(number),
            address: format!("127.0.0.1:{}", 34800 + number).parse().expect("an address"),
            admin_address: "127.0.0.1:34901".parse().expect("an address"),
            cores: 1,
            alive: true,
        }
    }

    fn configuration(ballot: u64, primary: u64, secondaries: &[u64]) -> Configuration {
        Configuration {
            ballot: Ballot(ballot),
            primary: Some(NodeId(primary)),
            secondaries: secondaries.iter().map(|&node| NodeId(node)).collect(),
        }
    }

    fn found(index: u32, unavailable: bool) -> PartitionDiagnosis {
        PartitionDiagnosis {
            partition: PartitionId::new(2, index),
            table: "temp".into(),
            configuration: configuration(7, 1, &[2]),
            replica_count: 3,
            unavailable,
            problems: vec!["it has 2 of 3 members".into(), "secondary 9 is down".into()],
            waits_for: "node 3 to finish learning".into(),
        }
    }

    fn listed(examined: u32) -> Vec<(TableReply, Diagnosis)> {
        let table = TableProperties {
            table: TableId(2),
            name: "temp".into(),
            partition_count: 4,
            replica_count: 3,
            durability: Durability::Synced,
        };
        let partitions = vec![configuration(7, 1, &[2, 0xab]); 4];
        let diagnosis = Diagnosis { examined, partitions: vec![found(1, false), found(2, true)] };
        vec![(TableReply { table, environment: vec![], partitions, nodes: vec![node(1), node(2)] }, diagnosis)]
    }

    #[test]
    fn a_list_tells_members_and_health() {
        let text = list_text(&listed(4));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("healthy") && lines[2].ends_with("degraded"), "{text}");
        assert!(lines[3].ends_with("unavailable") && lines[4].ends_with("healthy"), "{text}");
        assert!(lines[1].contains("127.0.0.1:34801  127.0.0.1:34802 node 00000000000000ab"), "{text}");
        let value = list_json(&listed(3));
        let health: Vec<&str> = (0..4).filter_map(|index| value["partitions"][index]["health"].as_str()).collect();
        assert_eq!(health, ["healthy", "degraded", "unavailable", "unknown"], "the last one was not looked at");
        assert_eq!(value["partitions"][2]["partition"], "2.2");
        assert_eq!(value["partitions"][2]["primary_node"], "0000000000000001");
    }

    #[test]
    fn a_diagnosis_tells_problems_and_what_is_awaited() {
        let names = NodeNames::new(&[node(1), node(2)]);
        let diagnosis = Diagnosis { examined: 8, partitions: vec![found(1, false), found(2, true)] };
        let text = diagnosis_text(&diagnosis, &names, 12);
        for words in [
            "partition 1 of table temp (2.1) is degraded",
            "in force   ballot 7, primary 127.0.0.1:34801, secondaries 127.0.0.1:34802",
            "problem    secondary 9 is down",
            "waits for  node 3 to finish learning",
            "2 of 8 partitions are not whole (1 unavailable)",
            "only 8 of 12 partitions were looked at",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let value = diagnosis_json(&diagnosis, &names);
        assert_eq!(value["partitions"][1]["health"], "unavailable");
        assert_eq!(value["partitions"][1]["problems"][0], "it has 2 of 3 members");
        let whole = Diagnosis { examined: 8, partitions: vec![] };
        assert_eq!(diagnosis_text(&whole, &names, 8), "all 8 partitions are whole\n");
    }

    #[test]
    fn what_may_be_lost_is_explained() {
        let arguments =
            ForceArguments { index: 3, primary: NodeName::Id(NodeId(2)), expected_ballot: 7, accept_loss: false };
        let names = NodeNames::new(&[node(1), node(2)]);
        let text =
            |ballot| explain_loss("temp", &arguments, &configuration(ballot, 1, &[2]), names.name(NodeId(2)), &names);
        for words in
            ["--accept-loss", "partition 3 of table temp", "127.0.0.1:34802 would become", "primary 127.0.0.1:34801"]
        {
            assert!(text(7).contains(words), "{words}: {}", text(7));
        }
        assert!(!text(7).contains("look again"));
        assert!(text(9).contains("Ballot 7 is not in force"), "{}", text(9));
    }

    #[test]
    fn nodes_are_named_by_address_or_id() {
        let address = NodeName::Address("127.0.0.1:34801".parse().expect("an address"));
        assert_eq!("127.0.0.1:34801".parse(), Ok(address));
        assert_eq!("00000000000000ab".parse(), Ok(NodeName::Id(NodeId(0xab))));
        for bad in ["ab", "replica2", "", "127.0.0.1", "00000000000000abc"] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }
}
