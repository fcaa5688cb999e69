//! What must hold at every moment, judged from outside: from disks, messages and answers, never from what a replica
//! says of itself alone. The numbers are those of the invariants in the chapter of `pegasus-replication`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pegasus_wire::{Ballot, Decree, Mutation, NodeId};

use crate::disk::{Change, LogView, decode_write};

/// What went wrong.
pub(crate) type Violation = String;

/// The oracle of one partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checker {
    /// Committed payloads by decree, the first at index 0. A payload once here never changes.
    history: Vec<Bytes>,
    /// Values in the history.
    committed_values: BTreeMap<u64, Decree>,
    /// Values whose writes were refused: they must never show up.
    refused_values: BTreeSet<u64>,
    /// Per key: no read may return, and no later write may get, a decree below this.
    floors: BTreeMap<usize, Decree>,
    /// Who led a ballot, and from which last decree.
    ballots: BTreeMap<Ballot, (NodeId, Decree)>,
}

impl Checker {
    /// Everything up to here has been committed somewhere.
    pub(crate) fn committed(&self) -> Decree {
        Decree(self.history.len() as u64)
    }

    /// Invariants 1 and 4: a replica moved its commit point, so every member has it in its durable log, the same.
    pub(crate) fn on_commit(&mut self, from: Decree, through: Decree, members: &[&LogView]) -> Result<(), Violation> {
        for number in from.0 + 1..=through.0 {
            let decree = Decree(number);
            for (index, view) in members.iter().enumerate() {
                let Some(record) = view.get(decree) else {
                    return Err(format!("{decree} is committed, but member {} has it not in its log", index + 1));
                };
                self.on_committed_payload(decree, &record.payload)?;
            }
        }
        Ok(())
    }

    fn on_committed_payload(&mut self, decree: Decree, payload: &Bytes) -> Result<(), Violation> {
        if let Some(known) = self.history.get((decree.0 - 1) as usize) {
            return if known == payload { Ok(()) } else { Err(format!("{decree} has two committed payloads")) };
        }
        assert_eq!(decree, self.committed().next(), "commit points are checked in order");
        self.history.push(payload.clone());
        if let Some((_, value)) = decode_write(payload) {
            if self.refused_values.contains(&value) {
                return Err(format!("value {value} was refused, and is committed at {decree}"));
            }
            if let Some(earlier) = self.committed_values.insert(value, decree) {
                return Err(format!("value {value} is committed twice, at {earlier} and {decree}"));
            }
        }
        Ok(())
    }

    /// Invariant 4: the durable log of a member changed, and still holds what is committed.
    pub(crate) fn on_log(&self, decree: Decree, change: &Change, view: &LogView) -> Result<(), Violation> {
        match change {
            Change::Gap => Err(format!("record {decree} leaves a gap in the log, which ends at {}", view.last())),
            Change::Dropped(from) if *from <= self.committed() => {
                Err(format!("{from} and what follows is dropped from a log, but {} is committed", self.committed()))
            }
            Change::Written if decree <= self.committed() => {
                let payload = &view.get(decree).expect("it was just written").payload;
                let same = *payload == self.history[(decree.0 - 1) as usize];
                if same { Ok(()) } else { Err(format!("committed {decree} is overwritten with another payload")) }
            }
            Change::Written | Change::Superseded | Change::Dropped(_) => Ok(()),
        }
    }

    /// Invariant 2: what is applied is committed, in order, once.
    pub(crate) fn on_apply(&self, applied: Decree, mutations: &[Mutation]) -> Result<(), Violation> {
        for (mutation, number) in mutations.iter().zip(applied.0 + 1..) {
            let decree = mutation.decree;
            if decree != Decree(number) {
                return Err(format!("{decree} is applied where {number} is next"));
            }
            match self.history.get((number - 1) as usize) {
                None => return Err(format!("{decree} is applied before it is committed")),
                Some(payload) if *payload != mutation.payload => {
                    return Err(format!("{decree} is applied with another payload than was committed"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Invariant 3: one primary, with one last decree, for each ballot.
    pub(crate) fn on_establish(&mut self, ballot: Ballot, sender: NodeId, last: Decree) -> Result<(), Violation> {
        let known = *self.ballots.entry(ballot).or_insert((sender, last));
        if known == (sender, last) {
            return Ok(());
        }
        Err(format!("ballot {ballot} is led by {sender} from {last}, and by {} from {}", known.0, known.1))
    }

    /// A member answers under a ballot: the ballot is durable, and so is that nothing of a lower one lies beyond the
    /// primary's last decree.
    pub(crate) fn on_established(&self, ballot: Ballot, stored: Ballot, view: &LogView) -> Result<(), Violation> {
        if stored < ballot {
            return Err(format!("ballot {ballot} is answered, but only {stored} is stored"));
        }
        let Some((_, last)) = self.ballots.get(&ballot) else {
            return Err(format!("ballot {ballot} is answered, but nobody asked"));
        };
        match view.beyond(*last).iter().find(|record| record.ballot < ballot) {
            Some(stale) => Err(format!("ballot {ballot} begins at {last}, but {} is still logged", stale.decree)),
            None => Ok(()),
        }
    }

    /// Invariant 5: what is acknowledged is durable, under the ballot it is acknowledged for.
    pub(crate) fn on_acknowledge(&self, ballot: Ballot, logged: Decree, view: &LogView) -> Result<(), Violation> {
        match view.get(logged) {
            None if logged == Decree(0) => Ok(()),
            None => Err(format!("{logged} is acknowledged, but the durable log ends at {}", view.last())),
            Some(record) if record.ballot < ballot && logged > self.committed() => {
                Err(format!("{logged} is acknowledged for ballot {ballot}, but logged for {}", record.ballot))
            }
            Some(_) => Ok(()),
        }
    }

    /// What a request that begins now must not be behind of.
    pub(crate) fn floor(&self, key: usize) -> Decree {
        self.floors.get(&key).copied().unwrap_or_default()
    }

    /// A write was acknowledged: it is committed where the answer says, after all that was acknowledged before it was
    /// asked for.
    pub(crate) fn on_write(&mut self, key: usize, value: u64, decree: Decree, floor: Decree) -> Result<(), Violation> {
        if self.committed_values.get(&value) != Some(&decree) {
            return Err(format!("value {value} is acknowledged at {decree}, but not committed there"));
        }
        if decree <= floor {
            return Err(format!("a write got {decree}, but {floor} was acknowledged before it began"));
        }
        self.raise_floor(key, decree);
        Ok(())
    }

    /// A write was refused, so it has no effect, ever.
    pub(crate) fn on_refused(&mut self, value: u64) -> Result<(), Violation> {
        self.refused_values.insert(value);
        match self.committed_values.get(&value) {
            Some(decree) => Err(format!("value {value} is refused, but committed at {decree}")),
            None => Ok(()),
        }
    }

    /// A read: what it returns was committed, and is not older than what anybody knew before.
    pub(crate) fn on_read(&mut self, key: usize, value: u64, decree: Decree) -> Result<(), Violation> {
        let floor = self.floor(key);
        if decree < floor {
            return Err(format!("a read of key {key} returned {decree}, but {floor} was seen before"));
        }
        if decree > Decree(0) && self.committed_values.get(&value) != Some(&decree) {
            return Err(format!("a read of key {key} returned {value} of {decree}, which is not committed"));
        }
        self.raise_floor(key, decree);
        Ok(())
    }

    fn raise_floor(&mut self, key: usize, decree: Decree) {
        let floor = self.floors.entry(key).or_default();
        *floor = (*floor).max(decree);
    }
}
