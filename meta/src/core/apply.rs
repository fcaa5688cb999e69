//! The only way to change a [`State`].
//!
//! Each handler first checks everything and returns a [`Refusal`] without having changed anything, then acts.

use std::collections::BTreeSet;

use pegasus_wire::config::check_table_name;
use pegasus_wire::limits::{CORES_MAX, MEMBERS_MAX, PARTITION_COUNT_MAX};
use pegasus_wire::{Ballot, ClusterId, Configuration, NodeId, TableId, TableProperties};

use super::command::{Command, CreateTable, Outcome, Propose, Refusal, RegisterNode};
use super::limits::{NODES_MAX, PARTITIONS_MAX, TABLES_MAX};
use super::placement::{Candidate, place};
use super::state::{Node, NodeAddresses, State, Table};

/// Applies one command. Deterministic; never panics, whatever the command holds.
pub fn apply(state: &mut State, command: Command) -> Outcome {
    let result = match command {
        Command::FoundCluster { cluster } => Ok(found_cluster(state, cluster)),
        Command::RegisterNode(command) => register_node(state, command),
        Command::CreateTable(command) => create_table(state, command),
        Command::Propose(command) => propose(state, command),
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
    reports.sort_unstable();
    let displaced = displace(state, command.node, &command.addresses);
    let node = Node { addresses: Some(command.addresses), reports };
    let before = state.nodes.insert(command.node, node);
    if before.is_none_or(|before| before.addresses != Some(command.addresses)) {
        state.revision += 1;
    }
    Ok(Outcome::Registered { cluster, displaced })
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
        if report.ballot > known {
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
        let member = state.partitions().any(|(_, configuration)| configuration.contains(id));
        match state.nodes.get_mut(&id) {
            Some(node) if member => node.addresses = None,
            _ => drop(state.nodes.remove(&id)),
        }
        state.revision += 1;
    }
    displaced
}

fn create_table(state: &mut State, command: CreateTable) -> Result<Outcome, Refusal> {
    if state.cluster.is_none() {
        return Err(Refusal::NotFounded);
    }
    check_table(&command).map_err(Refusal::InvalidTable)?;
    if let Some(existing) = state.table_named(&command.name) {
        return existing_table(&existing.properties, &command);
    }
    if state.tables.len() >= TABLES_MAX {
        return Err(Refusal::TooManyTables);
    }
    let existing = state.partition_count();
    if existing + command.partition_count > PARTITIONS_MAX {
        return Err(Refusal::TooManyPartitions { wanted: command.partition_count, existing });
    }
    let candidates = candidates(state, &command.live);
    if candidates.len() < usize::from(command.replica_count) {
        return Err(Refusal::NotEnoughNodes { wanted: command.replica_count, live: candidates.len() });
    }

    let table = TableId(state.last_table.0 + 1);
    let partitions = place(table, command.partition_count, command.replica_count, candidates);
    let properties = TableProperties {
        table,
        name: command.name,
        partition_count: command.partition_count,
        replica_count: command.replica_count,
        durability: command.durability,
    };
    state.last_table = table;
    state.tables.insert(table, Table { properties, partitions });
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

fn existing_table(existing: &TableProperties, command: &CreateTable) -> Result<Outcome, Refusal> {
    let same = existing.partition_count == command.partition_count
        && existing.replica_count == command.replica_count
        && existing.durability == command.durability;
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

/// The live nodes with an address, and what they hold already.
fn candidates(state: &State, live: &BTreeSet<NodeId>) -> Vec<Candidate> {
    let reachable = |id: &NodeId| {
        let addresses = state.nodes.get(id)?.addresses?;
        Some(Candidate::new(*id, addresses.cores))
    };
    let mut candidates: Vec<Candidate> = live.iter().filter_map(reachable).collect();
    let position = |candidates: &[Candidate], id: NodeId| candidates.binary_search_by_key(&id, Candidate::node).ok();
    for (partition, configuration) in state.partitions() {
        if let Some(index) = configuration.primary.and_then(|id| position(&candidates, id)) {
            candidates[index].add_primary(partition);
        }
        for &id in &configuration.secondaries {
            if let Some(index) = position(&candidates, id) {
                candidates[index].add_secondary(partition);
            }
        }
    }
    candidates
}

fn propose(state: &mut State, command: Propose) -> Result<Outcome, Refusal> {
    let Propose { partition, proposer, expected_ballot, configuration: wanted } = command;
    let in_force = state.configuration(partition).ok_or(Refusal::NoSuchPartition(partition))?;
    if !in_force.contains(proposer) {
        return Err(Refusal::NotMember { partition, proposer });
    }
    if in_force.primary != Some(proposer) {
        return Err(Refusal::NotPrimary { partition, proposer });
    }
    check_proposal(in_force, expected_ballot, &wanted).map_err(Refusal::InvalidProposal)?;
    if wanted.ballot == in_force.ballot {
        return Ok(Outcome::Accepted { configuration: in_force.clone() });
    }
    if expected_ballot != in_force.ballot {
        return Ok(Outcome::Conflict { configuration: in_force.clone() });
    }

    let table = state.tables.get_mut(&partition.table).expect("the configuration was found in it");
    let in_force = &mut table.partitions[partition.index as usize];
    in_force.ballot = wanted.ballot;
    let configuration = in_force.clone();
    state.revision += 1;
    Ok(Outcome::Accepted { configuration })
}

/// What must hold of a proposal whatever ballot is in force: one ballot above the expected one, and, as long as
/// members cannot change, exactly the members in force.
fn check_proposal(in_force: &Configuration, expected: Ballot, wanted: &Configuration) -> Result<(), String> {
    if expected.0.checked_add(1) != Some(wanted.ballot.0) {
        return Err(format!("ballot {} does not follow the expected ballot {expected}", wanted.ballot));
    }
    let sorted = |configuration: &Configuration| {
        let mut secondaries = configuration.secondaries.clone();
        secondaries.sort_unstable();
        secondaries
    };
    if wanted.primary != in_force.primary || sorted(wanted) != sorted(in_force) {
        return Err("the members of a partition cannot be changed by this release".to_owned());
    }
    Ok(())
}
