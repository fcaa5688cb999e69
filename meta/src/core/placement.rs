//! The first assignment of a table's partitions: a pure function. Its [`Candidate`]s also tell the guardian where a
//! new member is welcome.
//!
//! Goals, in this order: members of a partition are distinct nodes; the primaries of the table are spread within
//! one of each other over the nodes, and so are its secondaries; nodes that hold less already get more of what is
//! left over; the cores of a node are used evenly. Which core of a node a partition lands on is not a choice:
//! [`owner_core`] says so. So cores are evened out by choosing among nodes that are otherwise equal.

use std::collections::{BTreeSet, VecDeque};

use pegasus_wire::{Ballot, Configuration, NodeId, PartitionId, TableId, owner_core};

use super::state::State;

/// A node that partitions may be placed on, with what it holds already.
#[derive(Clone, Debug)]
pub struct Candidate {
    node: NodeId,
    cores: Vec<CoreLoad>,
    primaries: u32,
    secondaries: u32,
    /// Of the table being placed.
    new_primaries: u32,
    /// Of the table being placed.
    new_secondaries: u32,
}

/// What one core of a node holds.
#[derive(Clone, Copy, Debug, Default)]
struct CoreLoad {
    primaries: u32,
    members: u32,
}

impl Candidate {
    /// A node with nothing on it. A core count of zero is taken as one.
    pub fn new(node: NodeId, cores: u16) -> Candidate {
        let cores = vec![CoreLoad::default(); usize::from(cores.max(1))];
        Candidate { node, cores, primaries: 0, secondaries: 0, new_primaries: 0, new_secondaries: 0 }
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Counts a partition whose primary is here.
    pub fn add_primary(&mut self, partition: PartitionId) {
        self.primaries += 1;
        let core = self.core_mut(partition);
        core.primaries += 1;
        core.members += 1;
    }

    /// Counts a partition with a secondary here, or any copy that leads nothing.
    pub fn add_secondary(&mut self, partition: PartitionId) {
        self.secondaries += 1;
        self.core_mut(partition).members += 1;
    }

    fn owner(&self, partition: PartitionId) -> usize {
        usize::from(owner_core(partition, self.cores.len() as u16))
    }

    fn core_mut(&mut self, partition: PartitionId) -> &mut CoreLoad {
        let core = self.owner(partition);
        &mut self.cores[core]
    }

    /// How unwelcome the partition's primary is here.
    fn primary_cost(&self, partition: PartitionId) -> (u32, u32, u32, u32, NodeId) {
        let core = self.cores[self.owner(partition)];
        (self.new_primaries, core.primaries, self.primaries, self.primaries + self.secondaries, self.node)
    }

    /// How unwelcome a learner of the partition is here: copies count first, because each of them is work for ever.
    pub(super) fn learner_cost(&self, partition: PartitionId) -> (u32, u32, NodeId) {
        let core = self.cores[self.owner(partition)];
        (self.primaries + self.secondaries, core.members, self.node)
    }

    /// How unwelcome a secondary of the partition is here.
    fn secondary_cost(&self, partition: PartitionId) -> (u32, u32, u32, NodeId) {
        let core = self.cores[self.owner(partition)];
        (self.new_secondaries, core.members, self.primaries + self.secondaries, self.node)
    }
}

/// Places all partitions of a new table, under [`Ballot::ASSIGNMENT`]. Deterministic.
///
/// There must be at least `replica_count` candidates, all different; the caller has checked.
pub fn place(
    table: TableId,
    partition_count: u32,
    replica_count: u8,
    mut candidates: Vec<Candidate>,
) -> Vec<Configuration> {
    assert!(candidates.len() >= usize::from(replica_count) && replica_count > 0, "the caller has checked the counts");
    let partitions: Vec<PartitionId> = (0..partition_count).map(|index| PartitionId { table, index }).collect();
    let primaries: Vec<usize> = partitions.iter().map(|&partition| pick_primary(&mut candidates, partition)).collect();
    let mut groups: Vec<Group> = primaries
        .into_iter()
        .zip(&partitions)
        .map(|(primary, &partition)| pick_secondaries(&mut candidates, partition, primary, replica_count))
        .collect();
    even_out(&mut groups, candidates.len());
    groups.into_iter().map(|group| configuration(group, &candidates)).collect()
}

/// The nodes among `available` that have an address, by id, with what they hold already. The copies of dropped tables
/// take room like any other, and none of them is a primary's: nobody writes or reads there.
pub(super) fn candidates(state: &State, available: &BTreeSet<NodeId>) -> Vec<Candidate> {
    let reachable = |id: &NodeId| {
        let addresses = state.nodes.get(id)?.addresses?;
        Some(Candidate::new(*id, addresses.cores))
    };
    let mut candidates: Vec<Candidate> = available.iter().filter_map(reachable).collect();
    let position = |candidates: &[Candidate], id: NodeId| candidates.binary_search_by_key(&id, Candidate::node).ok();
    for (partition, configuration) in state.partitions() {
        for id in configuration.members() {
            let Some(index) = position(&candidates, id) else { continue };
            if configuration.primary == Some(id) && state.is_available(partition) {
                candidates[index].add_primary(partition);
            } else {
                candidates[index].add_secondary(partition);
            }
        }
    }
    candidates
}

fn configuration(group: Group, candidates: &[Candidate]) -> Configuration {
    let id = |index: usize| candidates[index].node;
    let mut secondaries: Vec<NodeId> = group.secondaries.into_iter().map(id).collect();
    secondaries.sort_unstable();
    Configuration { ballot: Ballot::ASSIGNMENT, primary: Some(id(group.primary)), secondaries }
}

/// The members of one partition, as positions in the list of candidates.
struct Group {
    primary: usize,
    secondaries: Vec<usize>,
}

impl Group {
    fn contains(&self, candidate: usize) -> bool {
        self.primary == candidate || self.secondaries.contains(&candidate)
    }
}

fn pick_primary(candidates: &mut [Candidate], partition: PartitionId) -> usize {
    let chosen = (0..candidates.len())
        .min_by_key(|&index| candidates[index].primary_cost(partition))
        .expect("there is a candidate");
    candidates[chosen].new_primaries += 1;
    candidates[chosen].add_primary(partition);
    chosen
}

fn pick_secondaries(candidates: &mut [Candidate], partition: PartitionId, primary: usize, replica_count: u8) -> Group {
    let mut group = Group { primary, secondaries: Vec::with_capacity(usize::from(replica_count) - 1) };
    for _ in 1..replica_count {
        let chosen = (0..candidates.len())
            .filter(|&index| !group.contains(index))
            .min_by_key(|&index| candidates[index].secondary_cost(partition))
            .expect("there are at least as many candidates as members");
        candidates[chosen].new_secondaries += 1;
        candidates[chosen].add_secondary(partition);
        group.secondaries.push(chosen);
    }
    group
}

/// Choosing one secondary after the other can leave one node with two more than another, when that other was
/// primary of the last partitions. Hands secondaries on, along the shortest chain of nodes, until all are within
/// one of each other.
fn even_out(groups: &mut [Group], candidate_count: usize) {
    loop {
        let mut counts = vec![0u32; candidate_count];
        for &secondary in groups.iter().flat_map(|group| &group.secondaries) {
            counts[secondary] += 1;
        }
        let most = (0..candidate_count).max_by_key(|&index| counts[index]).expect("there is a candidate");
        let Some(chain) = chain_to_fewer(groups, &counts, most) else { return };
        for (group, from, to) in chain {
            let secondaries = &mut groups[group].secondaries;
            let position = secondaries.iter().position(|&index| index == from).expect("the chain was found in it");
            secondaries[position] = to;
        }
    }
}

/// The shortest chain of hand-overs (group, from, to) that takes one secondary from `most` and gives one to a node
/// with at least two fewer. No group appears twice: a shorter chain would exist.
fn chain_to_fewer(groups: &[Group], counts: &[u32], most: usize) -> Option<Vec<(usize, usize, usize)>> {
    let mut came_from: Vec<Option<(usize, usize)>> = vec![None; counts.len()];
    let mut queue = VecDeque::from([most]);
    while let Some(from) = queue.pop_front() {
        if counts[from] + 2 <= counts[most] {
            let mut chain = Vec::new();
            let mut to = from;
            while let Some((group, previous)) = came_from[to].filter(|_| to != most) {
                chain.push((group, previous, to));
                to = previous;
            }
            return Some(chain);
        }
        for (index, group) in groups.iter().enumerate().filter(|(_, group)| group.secondaries.contains(&from)) {
            for to in (0..counts.len()).filter(|&to| to != most && !group.contains(to)) {
                if came_from[to].is_none() {
                    came_from[to] = Some((index, from));
                    queue.push_back(to);
                }
            }
        }
    }
    None
}
