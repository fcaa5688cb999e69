//! What the state looks like to those who ask. Who has been heard of comes in as an argument: the host knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use pegasus_wire::messages::control::{
    Assignments, ClusterReply, NodeSummary, PartitionConfiguration, ReplicaState, TableList, TableReply, TableSummary,
};
use pegasus_wire::{Configuration, NodeId, NodeInfo, PartitionId, TableId};

use super::guardian::Tasks;
use super::health::{Health, health_of};
use super::presence::Heard;
use super::state::State;
use super::table::Table;

/// Number of the answer that [`assignments`] gives: it changes whenever the state's revision or the node's tasks do,
/// and is never 0 once a cluster is founded. A node that has seen this number has seen the answer.
pub fn watch_number(state: &State, tasks: &Tasks) -> u64 {
    state.revision() << 32 | u64::from(tasks.digest())
}

/// Everything a node should hold, where the others are, and what the node is asked to do.
pub fn assignments(state: &State, node: NodeId, heard: &Heard, tasks: &Tasks) -> Assignments {
    let partitions: Vec<PartitionConfiguration> = state
        .partitions()
        .filter(|(_, configuration)| configuration.contains(node))
        .map(|(partition, configuration)| PartitionConfiguration { partition, configuration: configuration.clone() })
        .collect();
    let numbers: BTreeSet<TableId> = partitions.iter().map(|entry| entry.partition.table).collect();
    let tables = numbers.iter().filter_map(|number| Some(state.tables().get(number)?.description())).collect();
    let nodes = nodes(state, heard);
    Assignments {
        revision: watch_number(state, tasks),
        tables,
        partitions,
        nodes,
        additions: tasks.additions.clone(),
        removals: tasks.removals.clone(),
    }
}

/// All tables by number, those included that were dropped and are still held.
pub fn table_list(state: &State) -> TableList {
    TableList { tables: state.tables().values().map(Table::description).collect() }
}

/// A table's route: its configurations and the nodes named in them that have an address, in the order of their ids.
pub fn table_reply(state: &State, table: &Table, heard: &Heard) -> TableReply {
    let members: BTreeSet<NodeId> = table.partitions.iter().flat_map(Configuration::members).collect();
    TableReply {
        table: table.properties.clone(),
        environment: table.environment_entries(),
        partitions: table.partitions.clone(),
        nodes: members.into_iter().filter_map(|id| node_info(state, id, heard)).collect(),
    }
}

/// The whole cluster with its health. `None` before the cluster is founded. Dropped tables are no part of it: neither
/// are they listed, nor do nodes count as members of their partitions.
///
/// A node that lost its address is listed with the address 0.0.0.0:0.
pub fn cluster_reply(state: &State, meta_addresses: Vec<SocketAddr>, heard: &Heard) -> Option<ClusterReply> {
    let available = state.tables().values().filter(|table| table.is_available());
    Some(ClusterReply {
        cluster: state.cluster()?,
        meta_addresses,
        nodes: node_summaries(state, heard),
        tables: available.map(|table| table_summary(state, table, heard)).collect(),
    })
}

/// All nodes that have an address, in the order of their ids.
pub fn nodes(state: &State, heard: &Heard) -> Vec<NodeInfo> {
    state.nodes().keys().filter_map(|&id| node_info(state, id, heard)).collect()
}

fn node_info(state: &State, node: NodeId, heard: &Heard) -> Option<NodeInfo> {
    let addresses = state.nodes().get(&node)?.addresses?;
    Some(NodeInfo {
        node,
        address: addresses.address,
        admin_address: addresses.admin_address,
        cores: addresses.cores,
        alive: heard.is_alive(node),
    })
}

fn node_summaries(state: &State, heard: &Heard) -> Vec<NodeSummary> {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let without_address = |node| NodeInfo { node, address: nowhere, admin_address: nowhere, cores: 1, alive: false };
    let mut roles: BTreeMap<NodeId, (u32, u32)> = BTreeMap::new();
    for (_, configuration) in state.available_partitions() {
        if let Some(primary) = configuration.primary {
            roles.entry(primary).or_default().0 += 1;
        }
        for &secondary in &configuration.secondaries {
            roles.entry(secondary).or_default().1 += 1;
        }
    }
    let summary = |&id: &NodeId| {
        let (primaries, secondaries) = roles.get(&id).copied().unwrap_or_default();
        let reports = state.nodes().get(&id).map_or(&[][..], |node| &node.reports);
        NodeSummary {
            info: node_info(state, id, heard).unwrap_or_else(|| without_address(id)),
            primaries,
            secondaries,
            damaged: reports.iter().filter(|report| report.state == ReplicaState::Damaged).count() as u32,
        }
    };
    state.nodes().keys().map(summary).collect()
}

fn table_summary(state: &State, table: &Table, heard: &Heard) -> TableSummary {
    let number = table.properties.table;
    let healthy = (0u32..).zip(&table.partitions).filter(|(index, configuration)| {
        let partition = PartitionId { table: number, index: *index };
        health_of(state, heard, partition, configuration) == Health::Healthy
    });
    TableSummary {
        table: number,
        name: table.properties.name.clone(),
        healthy_partitions: healthy.count() as u32,
        partition_count: table.properties.partition_count,
    }
}
