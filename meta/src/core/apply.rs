//! The only way to change a [`State`]. Proposals have rules of their own, in [`super::propose`], and so has what comes
//! after a table's creation, in [`super::lifecycle`].
//!
//! Each handler first checks everything and returns a [`Refusal`] without having changed anything, then acts.

use std::collections::{BTreeMap, BTreeSet};

use pegasus_wire::config::check_table_name;
use pegasus_wire::limits::{CORES_MAX, MEMBERS_MAX, PARTITION_COUNT_MAX};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{ClusterId, NodeId, TableId, TableProperties};

use super::command::{Command, CreateTable, Outcome, RegisterNode, Report};
use super::lifecycle::{change_environment, check_environment, drop_table, purge_table, recall_table, rename_table};
use super::limits::{NODES_MAX, PARTITIONS_MAX, TABLES_MAX};
use super::placement::{candidates, place};
use super::propose::{force, propose};
use super::refusal::Refusal;
use super::state::{Node, NodeAddresses, State};
use super::table::Table;

/// Applies one command. Deterministic; never panics, whatever the command holds.
pub fn apply(state: &mut State, command: Command) -> Outcome {
    let result = match command {
        Command::FoundCluster { cluster } => Ok(found_cluster(state, cluster)),
        Command::RegisterNode(command) => register_node(state, command),
        Command::CreateTable(command) => create_table(state, command, None),
        Command::CreateTableWith { table, environment } => create_table(state, table, Some(environment)),
        Command::Propose(command) => propose(state, command),
        Command::Force(command) => force(state, command),
        Command::DropTable(command) => drop_table(state, command),
        Command::RecallTable(command) => recall_table(state, command),
        Command::RenameTable(command) => rename_table(state, command),
        Command::PurgeTable(command) => purge_table(state, command),
        Command::ChangeEnvironment(command) => change_environment(state, command),
    };
    result.unwrap_or_else(Outcome::Refused)
}

fn found_cluster(state: &mut State, cluster: ClusterId) -> Outcome {
    if state.cluster.is_none() {
        state.cluster = Some(cluster);
        state.revision += 1;
    }
    Outcome::Founded { cluster: state.cluster.unwrap_or(cluster) }
}

fn register_node(state: &mut State, command: RegisterNode) -> Result<Outcome, Refusal> {
    let cluster = state.cluster.ok_or(Refusal::NotFounded)?;
    if let Some(theirs) = command.cluster
        && theirs != cluster
    {
        return Err(Refusal::WrongCluster { ours: cluster, theirs });
    }
    check_addresses(&command.addresses).map_err(Refusal::InvalidRegistration)?;
    check_reports(state, &command)?;
    if !state.nodes.contains_key(&command.node) && state.nodes.len() >= NODES_MAX {
        return Err(Refusal::TooManyNodes);
    }

    let mut reports = command.reports;
    for report in &mut reports {
        if let Some(decided) = state.report(command.node, report.partition).filter(|known| is_outdated(report, known)) {
            *report = *decided;
        }
    }
    reports.sort_unstable();
    let displaced = displace(state, command.node, &command.addresses);
    let node = Node { addresses: Some(command.addresses), reports };
    let before = state.nodes.insert(command.node, node);
    if before.is_none_or(|before| before.addresses != Some(command.addresses)) {
        state.revision += 1;
    }
    Ok(Outcome::Registered { cluster, displaced })
}

/// True if a copy was in doubt before it was decided to be good. If its machine lost power again right after that, and
/// it does not know of the decision, it still has everything for which it was chosen: a log is synced when it is
/// recovered, and nothing of a ballot is acknowledged before the ballot is durable.
fn is_outdated(report: &Report, known: &Report) -> bool {
    report.state == ReplicaState::Uncertain && known.state == ReplicaState::Whole && report.ballot < known.ballot
}

fn check_addresses(addresses: &NodeAddresses) -> Result<(), String> {
    let NodeAddresses { address, cores, .. } = addresses;
    if *cores == 0 || *cores > CORES_MAX {
        return Err(format!("a node has 1 to {CORES_MAX} cores (cores_max), got {cores}"));
    }
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(format!("{address} is not an address that others can reach"));
    }
    if u32::from(address.port()) + u32::from(*cores) - 1 > u32::from(u16::MAX) {
        return Err(format!("{cores} cores from port {} on pass port {}", address.port(), u16::MAX));
    }
    Ok(())
}

fn check_reports(state: &State, command: &RegisterNode) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for report in &command.reports {
        let known = state.ballot(report.partition);
        // A copy of a table that was purged since its node was last here is no sign of a loss: it will be removed.
        if report.ballot > known && !state.is_purged(report.partition.table) {
            return Err(Refusal::NewerBallot { partition: report.partition, reported: report.ballot, known });
        }
        if !seen.insert(report.partition) {
            return Err(Refusal::InvalidRegistration(format!("partition {} is reported twice", report.partition)));
        }
    }
    Ok(())
}

/// Takes the address from every node whose ports overlap those of `winner`. A node registers only while it holds
/// its ports, so whoever came earlier is gone. What is left of such a node is kept only while it is a member of
/// something.
fn displace(state: &mut State, winner: NodeId, addresses: &NodeAddresses) -> Vec<NodeId> {
    let overlaps = |node: &Node| node.addresses.is_some_and(|other| other.overlap(addresses));
    let displaced: Vec<NodeId> =
        state.nodes.iter().filter(|&(&id, node)| id != winner && overlaps(node)).map(|(&id, _)| id).collect();
    for &id in &displaced {
        if let Some(node) = state.nodes.get_mut(&id) {
            node.addresses = None;
        }
        state.forget_if_gone(id);
        state.revision += 1;
    }
    displaced
}

/// `environment` is `None` if nothing is said of it: then that of a table that exists may be any.
fn create_table(
    state: &mut State,
    command: CreateTable,
    environment: Option<BTreeMap<String, String>>,
) -> Result<Outcome, Refusal> {
    if state.cluster.is_none() {
        return Err(Refusal::NotFounded);
    }
    check_table(&command).map_err(Refusal::InvalidTable)?;
    if let Some(existing) = state.table_named(&command.name) {
        return existing_table(existing, &command, environment.as_ref());
    }
    let environment = environment.unwrap_or_default();
    check_environment(state, &BTreeMap::new(), &environment)?;
    if state.tables.len() >= TABLES_MAX {
        return Err(Refusal::TooManyTables { dropped: state.dropped_count() });
    }
    // What was dropped counts until it is purged: nodes hold its copies, and are told of them.
    let existing = state.partition_count();
    if existing + command.partition_count > PARTITIONS_MAX {
        let dropped = existing - state.available_partitions().count() as u32;
        return Err(Refusal::TooManyPartitions { wanted: command.partition_count, existing, dropped });
    }
    let candidates = candidates(state, &command.live);
    if candidates.len() < usize::from(command.replica_count) {
        return Err(Refusal::NotEnoughNodes { wanted: command.replica_count, live: candidates.len() });
    }

    let table = TableId(state.last_table.0 + 1);
    let partitions = place(table, command.partition_count, command.replica_count, candidates);
    let properties = TableProperties {
        table,
        name: String::new(),
        partition_count: command.partition_count,
        replica_count: command.replica_count,
        durability: command.durability,
    };
    state.last_table = table;
    state.tables.insert(table, Table { environment, ..Table::new(properties, partitions) });
    state.give_name(table, command.name);
    state.revision += 1;
    Ok(Outcome::TableReady { table, created: true })
}

fn check_table(command: &CreateTable) -> Result<(), String> {
    check_table_name(&command.name)?;
    if !command.partition_count.is_power_of_two() || command.partition_count > PARTITION_COUNT_MAX {
        return Err(format!(
            "the partition count is a power of two from 1 to {PARTITION_COUNT_MAX} (partition_count_max), got {}",
            command.partition_count
        ));
    }
    if command.replica_count == 0 || usize::from(command.replica_count) > MEMBERS_MAX {
        return Err(format!(
            "a partition has 1 to {MEMBERS_MAX} replicas (members_max), got {}",
            command.replica_count
        ));
    }
    Ok(())
}

fn existing_table(
    existing: &Table,
    command: &CreateTable,
    environment: Option<&BTreeMap<String, String>>,
) -> Result<Outcome, Refusal> {
    let differs = environment.is_some_and(|environment| *environment != existing.environment);
    let existing = &existing.properties;
    let same = existing.partition_count == command.partition_count
        && existing.replica_count == command.replica_count
        && existing.durability == command.durability;
    if command.if_not_exists && same && differs {
        return Err(Refusal::EnvironmentDiffers { name: existing.name.clone() });
    }
    if command.if_not_exists && same {
        return Ok(Outcome::TableReady { table: existing.table, created: false });
    }
    Err(Refusal::TableExists {
        name: existing.name.clone(),
        partition_count: existing.partition_count,
        replica_count: existing.replica_count,
        durability: existing.durability,
    })
}
