//! Who may change the configuration of a partition, and to what.
//!
//! Always by compare-and-swap: the proposal names the ballot in force, the wanted configuration has the next one.
//!
//! | who | may propose |
//! |---|---|
//! | the primary | itself with any of its secondaries, and registered nodes that it has taught, as new ones |
//! | the primary | a hand-over: a secondary as primary, the others unchanged, itself a secondary or gone |
//! | a secondary | itself as primary, the old primary gone, the others unchanged (a takeover) |
//! | an uncertain member | itself as primary with any of the members, if all are uncertain and its copy is the newest |
//! | an operator | any node that holds a copy as the only member, accepting losses (`force`) |
//!
//! Besides: the new primary's copy must not have been reported as learning, damaged or missing; an uncertain one counts
//! only by the fourth row, even if it is primary already. Proposing again what is in force succeeds, whoever asks,
//! so that a lost answer can be asked for again. Everything else is refused, and changes nothing.

use std::collections::BTreeSet;

use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Ballot, Configuration, Decree, NodeId, PartitionId};

use super::command::{Force, Outcome, Propose};
use super::refusal::Refusal;
use super::state::State;

/// Carries out a proposal.
pub(super) fn propose(state: &mut State, command: Propose) -> Result<Outcome, Refusal> {
    let Propose { partition, proposer, expected_ballot, configuration: mut wanted } = command;
    let in_force = state.configuration(partition).ok_or(Refusal::NoSuchPartition(partition))?;
    if expected_ballot.0.checked_add(1) != Some(wanted.ballot.0) {
        let text = format!("ballot {} does not follow the expected ballot {expected_ballot}", wanted.ballot);
        return Err(Refusal::InvalidProposal(text));
    }
    wanted.secondaries.sort_unstable();
    if wanted == *in_force {
        return Ok(Outcome::Accepted { configuration: wanted });
    }
    if expected_ballot != in_force.ballot {
        return Ok(Outcome::Conflict { configuration: in_force.clone() });
    }
    let primary = check_shape(state, partition, &wanted).map_err(Refusal::InvalidProposal)?;
    check_right(state, partition, in_force, proposer, &wanted)?;
    check_copy(state, partition, in_force, primary)?;

    if state.copy_state(primary, partition) == Some(ReplicaState::Uncertain) {
        state.count_as_whole(primary, partition, wanted.ballot);
    }
    state.install(partition, wanted.clone());
    Ok(Outcome::Accepted { configuration: wanted })
}

/// Makes one node the only member.
pub(super) fn force(state: &mut State, command: Force) -> Result<Outcome, Refusal> {
    let Force { partition, expected_ballot, primary, accept_loss } = command;
    let in_force = state.configuration(partition).ok_or(Refusal::NoSuchPartition(partition))?;
    if !accept_loss {
        return Err(Refusal::LossNotAccepted);
    }
    let not_forcible = |reason: &str| Err(Refusal::NotForcible { partition, node: primary, reason: reason.to_owned() });
    let wanted = match expected_ballot.0.checked_add(1) {
        Some(ballot) => Configuration { ballot: Ballot(ballot), primary: Some(primary), secondaries: vec![] },
        None => return not_forcible("there is no ballot after the expected one"),
    };
    if wanted == *in_force {
        return Ok(Outcome::Accepted { configuration: wanted });
    }
    if expected_ballot != in_force.ballot {
        return Ok(Outcome::Conflict { configuration: in_force.clone() });
    }
    if !state.is_reachable(primary) {
        return not_forcible("no such node is registered");
    }
    match state.copy_state(primary, partition) {
        None => return not_forcible("it has reported no copy"),
        Some(ReplicaState::Missing) => return not_forcible("it reported that it holds no copy"),
        Some(_) => {}
    }

    state.count_as_whole(primary, partition, wanted.ballot);
    state.install(partition, wanted.clone());
    Ok(Outcome::Accepted { configuration: wanted })
}

/// What every configuration must be. Returns its primary.
fn check_shape(state: &State, partition: PartitionId, wanted: &Configuration) -> Result<NodeId, String> {
    let primary = wanted.primary.ok_or("it names no primary")?;
    let count = wanted.members().count();
    let allowed = state.replica_count(partition);
    if count > allowed {
        return Err(format!("it has {count} members, a partition of this table has at most {allowed}"));
    }
    if wanted.members().collect::<BTreeSet<_>>().len() != count {
        return Err("it names a node twice".to_owned());
    }
    Ok(primary)
}

/// Whether this proposer may ask for this change.
fn check_right(
    state: &State,
    partition: PartitionId,
    in_force: &Configuration,
    proposer: NodeId,
    wanted: &Configuration,
) -> Result<(), Refusal> {
    if !in_force.contains(proposer) {
        return Err(Refusal::NotMember { partition, proposer });
    }
    let names_itself = wanted.primary == Some(proposer);
    let uncertain = state.copy_state(proposer, partition) == Some(ReplicaState::Uncertain);
    if names_itself && uncertain && wanted.members().all(|node| in_force.contains(node)) {
        // Whether it is the one is decided when its copy is looked at.
        return Ok(());
    }
    let invalid = |text: String| Err(Refusal::InvalidProposal(text));
    match (in_force.primary == Some(proposer), names_itself) {
        (true, true) => check_added(state, in_force, wanted).map_err(Refusal::InvalidProposal),
        (true, false) if is_hand_over(in_force, wanted) => Ok(()),
        (true, false) => invalid(
            "a primary hands over to one of its secondaries, with the others unchanged and itself a secondary or gone"
                .to_owned(),
        ),
        (false, true) if is_takeover(in_force, wanted) => Ok(()),
        (false, true) => {
            invalid("a secondary takes over with the old primary gone and the others unchanged".to_owned())
        }
        (false, false) => Err(Refusal::NotPrimary { partition, proposer }),
    }
}

fn check_added(state: &State, in_force: &Configuration, wanted: &Configuration) -> Result<(), String> {
    match wanted.members().find(|&node| !in_force.contains(node) && !state.is_reachable(node)) {
        Some(node) => Err(format!("it adds node {node}, which is not registered")),
        None => Ok(()),
    }
}

fn is_hand_over(in_force: &Configuration, wanted: &Configuration) -> bool {
    let secondary = wanted.primary.is_some_and(|node| in_force.secondaries.contains(&node));
    let others = |configuration: &Configuration| -> BTreeSet<NodeId> {
        let gone = [in_force.primary, wanted.primary];
        configuration.members().filter(|&node| !gone.contains(&Some(node))).collect()
    };
    secondary && others(wanted) == others(in_force)
}

fn is_takeover(in_force: &Configuration, wanted: &Configuration) -> bool {
    let remaining: BTreeSet<NodeId> = in_force.secondaries.iter().copied().collect();
    wanted.members().collect::<BTreeSet<_>>() == remaining
}

/// Whether the copy of the node that would be primary is good enough, as far as reported.
fn check_copy(state: &State, partition: PartitionId, in_force: &Configuration, primary: NodeId) -> Result<(), Refusal> {
    match state.copy_state(primary, partition) {
        None | Some(ReplicaState::Whole) => Ok(()),
        Some(ReplicaState::Uncertain) => match newest_uncertain(state, partition, in_force) {
            Ok(newest) if newest == primary => Ok(()),
            Ok(newest) => Err(Refusal::NotNewest { partition, node: primary, newest }),
            Err(awaited) => Err(Refusal::AwaitsMember { partition, node: primary, awaited }),
        },
        Some(unfit @ (ReplicaState::Learning | ReplicaState::Damaged | ReplicaState::Missing)) => {
            Err(Refusal::UnfitCopy { partition, node: primary, state: unfit })
        }
    }
}

/// The member with the newest copy, if every member has reported an uncertain one; else a member that has not.
pub(super) fn newest_uncertain(
    state: &State,
    partition: PartitionId,
    in_force: &Configuration,
) -> Result<NodeId, NodeId> {
    let mut newest: Option<(Ballot, Decree, NodeId)> = None;
    for member in in_force.members() {
        let report = state.report(member, partition).filter(|report| report.state == ReplicaState::Uncertain);
        let report = report.ok_or(member)?;
        newest = newest.max(Some((report.ballot, report.last, member)));
    }
    Ok(newest.expect("a configuration has a primary").2)
}
