//! The reason of a violation, for people: the first operation that nothing explains, and the few around it.

use std::cmp::Reverse;
use std::fmt;

use crate::operation::{Action, Answer, Operation, Outcome, State};
use crate::search::{Found, search};
use crate::timeline::Timeline;

/// Operations shown at most.
const NEARBY_MAX: usize = 24;
/// Acknowledged writes shown that ended before the culprit began.
const WRITES_BEFORE: usize = 6;

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The operation at whose return no order was left.
    pub culprit: Operation,
    /// What is wrong, one sentence.
    pub reason: String,
    /// The culprit and the operations that have to do with it, by the moment they began.
    pub nearby: Vec<Operation>,
}

impl Witness {
    /// Finds the first return that nothing explains in a history that is known to have one. An operation can be known
    /// to lead nowhere long before: the search looks ahead at the reads to come, people do not.
    pub(crate) fn find(operations: &[Operation], initial: State, steps_max: u64) -> Witness {
        let mut returns: Vec<(u64, usize)> = operations
            .iter()
            .enumerate()
            .filter(|(_, operation)| matches!(operation.outcome, Outcome::Ok(_)))
            .map(|(index, operation)| (operation.returned_us.max(operation.invoked_us), index))
            .collect();
        returns.sort_unstable();
        let fails = |returned: &(u64, usize)| {
            let known = until(operations, *returned);
            search(&Timeline::new(&known, initial), steps_max) == Found::NoOrder
        };
        let first = returns.partition_point(|returned| !fails(returned));
        let (_, culprit) = returns[first.min(returns.len() - 1)];
        Witness::of(operations, operations[culprit])
    }

    fn of(operations: &[Operation], culprit: Operation) -> Witness {
        let mut nearby = nearby(operations, &culprit);
        nearby.sort_by_key(|operation| (operation.invoked_us, operation.returned_us));
        Witness { reason: reason(operations, &culprit), culprit, nearby }
    }
}

/// What was known at the return of the operation `(moment, index)`: what began later is not there, what had not
/// returned has an unknown outcome.
fn until(operations: &[Operation], (moment, index): (u64, usize)) -> Vec<Operation> {
    let mut known = Vec::new();
    for (other, operation) in operations.iter().enumerate().filter(|(_, operation)| operation.invoked_us <= moment) {
        let returned = (operation.returned_us.max(operation.invoked_us), other) <= (moment, index);
        match operation.outcome {
            // An exchange that changed nothing will not change anything if it has not returned.
            Outcome::Ok(Answer::Row(_)) if !returned => {}
            Outcome::Ok(_) if !returned => known.push(Operation { outcome: Outcome::Unknown, ..*operation }),
            _ => known.push(*operation),
        }
    }
    known
}

/// The culprit, what wrote the value it found, what it overlaps, and the last writes before it.
fn nearby(operations: &[Operation], culprit: &Operation) -> Vec<Operation> {
    let mut chosen = vec![*culprit];
    let mut add = |candidates: Vec<&Operation>| {
        for candidate in candidates {
            if chosen.len() < NEARBY_MAX && !chosen.contains(candidate) {
                chosen.push(*candidate);
            }
        }
    };
    if let Some(found) = found(culprit) {
        let mut writers: Vec<&Operation> =
            operations.iter().filter(|operation| operation.written() == Some(found)).collect();
        writers.sort_by_key(|operation| operation.invoked_us.abs_diff(culprit.invoked_us));
        writers.truncate(WRITES_BEFORE);
        add(writers);
    }
    let mut before: Vec<&Operation> = operations
        .iter()
        .filter(|operation| operation.is_acknowledged_write() && operation.precedes(culprit))
        .collect();
    before.sort_by_key(|operation| Reverse(operation.returned_us));
    before.truncate(WRITES_BEFORE);
    add(before);
    let overlaps = |operation: &&Operation| !operation.precedes(culprit) && operation.invoked_us <= culprit.returned_us;
    let mut around: Vec<&Operation> = operations.iter().filter(overlaps).collect();
    around.sort_by_key(|operation| Reverse(operation.invoked_us));
    add(around);
    chosen
}

/// What a read found, or an exchange that changed nothing.
fn found(operation: &Operation) -> Option<State> {
    match (operation.action, operation.outcome) {
        (Action::Read | Action::Exchange(..), Outcome::Ok(Answer::Row(state))) => Some(state),
        _ => None,
    }
}

fn reason(operations: &[Operation], culprit: &Operation) -> String {
    let Some(found) = found(culprit) else {
        return "no order of the operations so far explains their answers".to_owned();
    };
    let what = found.map_or("found no row".to_owned(), |value| format!("found {value}"));
    let writers = || operations.iter().filter(|operation| operation.written() == Some(found));
    let effective = || writers().filter(|operation| operation.outcome != Outcome::Failed);
    if found.is_some() && writers().next().is_none() {
        return format!("the read {what}, which nobody ever wrote");
    }
    if found.is_some() && effective().next().is_none() {
        return format!("the read {what}, whose write was reported as failed");
    }
    if found.is_some() && effective().all(|operation| culprit.precedes(operation)) {
        return format!("the read {what}, which was written only after the read had ended");
    }
    match overwritten_by(operations, culprit, found) {
        Some(by) => format!(
            "the read {what}, but that was overwritten before it began: by the operation of client {} that ended at \
             {:.6}",
            by.client,
            by.returned_us as f64 / 1e6
        ),
        None => format!("the read {what}, and no order of the operations so far explains that"),
    }
}

/// The last acknowledged write before a read that follows everything which wrote what the read found.
fn overwritten_by<'a>(operations: &'a [Operation], culprit: &Operation, found: State) -> Option<&'a Operation> {
    let may_serve = |operation: &&Operation| {
        operation.written() == Some(found) && operation.outcome != Outcome::Failed && !culprit.precedes(operation)
    };
    let candidates = operations.iter().filter(|operation| {
        operation.is_acknowledged_write() && operation.written() != Some(found) && operation.precedes(culprit)
    });
    let by = candidates.max_by_key(|operation| operation.invoked_us)?;
    operations.iter().filter(may_serve).all(|writer| writer.precedes(by)).then_some(by)
}

impl fmt::Display for Witness {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.reason)?;
        writeln!(out, "     began (s) ..    ended (s)")?;
        for operation in &self.nearby {
            let mark = if *operation == self.culprit { '>' } else { ' ' };
            writeln!(out, "  {mark} {operation}")?;
        }
        Ok(())
    }
}
