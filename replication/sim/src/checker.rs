//! What must hold of one partition at every moment, judged from disks, messages and answers, never from what a
//! replica says of itself alone. The numbers are those of the invariants in the chapter of `pegasus-replication`.
//!
//! The order of commits is known here, so that most of what a history check would find at the end of a run is found
//! at the step that did it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pegasus_wire::{Ballot, Decree, Mutation, NodeId};

use crate::disk::{CopyDisk, KEYS_MAX, Row, Table, Write};
use crate::log_view::{Change, LogView};

/// What went wrong.
pub(crate) type Violation = String;

/// The oracle of one partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checker {
    /// Committed payloads by decree, the first at index 0. A payload once here never changes.
    history: Vec<Bytes>,
    /// What each key held, from which decree on.
    versions: [Vec<Row>; KEYS_MAX],
    /// Where operations were committed.
    operations: BTreeMap<u64, Decree>,
    /// Operations that were refused: they must never show up.
    refused: BTreeSet<u64>,
    /// Per key: no read may return, and no later write may get, a decree below this.
    floors: [Decree; KEYS_MAX],
    /// Who led a ballot, and from which last decree.
    ballots: BTreeMap<Ballot, (NodeId, Decree)>,
}

impl Checker {
    /// Everything up to here has been committed somewhere.
    pub(crate) fn committed(&self) -> Decree {
        Decree(self.history.len() as u64)
    }

    /// Invariant 4: a decree is committed at a replica with this payload. True if nobody had committed it before.
    pub(crate) fn on_commit(&mut self, decree: Decree, payload: &Bytes) -> Result<bool, Violation> {
        if let Some(known) = self.history.get((decree.0 - 1) as usize) {
            return if known == payload { Ok(false) } else { Err(format!("{decree} has two committed payloads")) };
        }
        if decree != self.committed().next() {
            return Err(format!("{decree} is committed, but {} is not", self.committed().next()));
        }
        self.history.push(payload.clone());
        if let Some(Write { key, operation, value }) = Write::decode(payload) {
            self.versions[key].push(Row { value, decree });
            if self.refused.contains(&operation) {
                return Err(format!("operation {operation} was refused, and is committed at {decree}"));
            }
            if let Some(earlier) = self.operations.insert(operation, decree) {
                return Err(format!("operation {operation} is committed twice, at {earlier} and {decree}"));
            }
        }
        Ok(true)
    }

    /// Invariant 1: a member holds what is committed, in its log or its table, with the payload committed.
    pub(crate) fn is_held(&self, decree: Decree, disk: &CopyDisk) -> Result<(), Violation> {
        if decree <= disk.flushed.applied {
            return Ok(());
        }
        match disk.view.get(decree) {
            None if decree <= disk.view.base() => {
                Err(format!("{decree} is committed, but the log begins after {}", disk.view.base()))
            }
            None => Err(format!("{decree} is committed, but the log ends at {}", disk.view.last())),
            Some(record) if record.payload != self.history[(decree.0 - 1) as usize] => {
                Err(format!("{decree} is committed, but logged with another payload"))
            }
            Some(_) => Ok(()),
        }
    }

    /// Invariant 1 for everything committed so far.
    pub(crate) fn holds_all(&self, disk: &CopyDisk) -> Result<(), Violation> {
        (disk.flushed.applied.0 + 1..=self.committed().0).try_for_each(|number| self.is_held(Decree(number), disk))
    }

    /// Invariant 4: the durable log of a copy changed. What a member of the configuration in force holds of what is
    /// committed stays. A copy outside of it may have to drop what it does not know to be committed.
    pub(crate) fn on_log(
        &self,
        decree: Decree,
        change: &Change,
        view: &LogView,
        in_force: bool,
    ) -> Result<(), Violation> {
        match change {
            Change::Gap => Err(format!("record {decree} leaves a gap in the log, which ends at {}", view.last())),
            Change::Dropped(from) if in_force && *from <= self.committed() => {
                Err(format!("{from} and what follows is dropped from a log, but {} is committed", self.committed()))
            }
            Change::Written if in_force && decree <= self.committed() => {
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

    /// A table holds the newest version of every key up to its applied decree.
    pub(crate) fn on_table(&self, table: &Table) -> Result<(), Violation> {
        for (key, row) in table.rows.iter().enumerate() {
            let wanted = self.version(key, table.applied);
            if *row != wanted {
                return Err(format!("key {key} of a table at {} is {row:?}, not {wanted:?}", table.applied));
            }
        }
        Ok(())
    }

    /// What a key held right after a decree.
    fn version(&self, key: usize, decree: Decree) -> Row {
        let versions = &self.versions[key];
        let count = versions.partition_point(|row| row.decree <= decree);
        count.checked_sub(1).map(|index| versions[index]).unwrap_or_default()
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
    pub(crate) fn on_established(&self, ballot: Ballot, disk: &CopyDisk) -> Result<(), Violation> {
        let stored = disk.descriptor.ballot;
        if stored < ballot {
            return Err(format!("ballot {ballot} is answered, but only {stored} is stored"));
        }
        if !self.ballots.contains_key(&ballot) {
            return Err(format!("ballot {ballot} is answered, but nobody asked"));
        }
        self.on_tail(ballot, &disk.view)
    }

    /// Once a ballot is taken, nothing of a lower one lies beyond the decree at which it began; after a restart
    /// neither.
    pub(crate) fn on_tail(&self, ballot: Ballot, view: &LogView) -> Result<(), Violation> {
        let Some((_, last)) = self.ballots.get(&ballot) else { return Ok(()) };
        match view.beyond(*last).find(|record| record.ballot < ballot) {
            Some(stale) => Err(format!("ballot {ballot} begins at {last}, but {} is still logged", stale.decree)),
            None => Ok(()),
        }
    }

    /// Invariant 5: what is acknowledged is durable, under the ballot it is acknowledged for.
    pub(crate) fn on_acknowledge(&self, ballot: Ballot, logged: Decree, disk: &CopyDisk) -> Result<(), Violation> {
        match disk.view.get(logged) {
            None if logged <= disk.flushed.applied => Ok(()),
            None => Err(format!("{logged} is acknowledged, but the durable log ends at {}", disk.view.last())),
            Some(record) if record.ballot < ballot && logged > self.committed() => {
                Err(format!("{logged} is acknowledged for ballot {ballot}, but logged for {}", record.ballot))
            }
            Some(_) => Ok(()),
        }
    }

    /// What a request that is admitted now must not be behind of.
    pub(crate) fn floor(&self, key: usize) -> Decree {
        self.floors[key]
    }

    /// A write was acknowledged: it is committed where the answer says, after all that was acknowledged before it was
    /// asked for; and a check that it was made under held right before it.
    pub(crate) fn on_write(
        &mut self,
        write: Write,
        expected: Option<u64>,
        decree: Decree,
        floor: Decree,
    ) -> Result<(), Violation> {
        let Write { key, operation, .. } = write;
        if self.operations.get(&operation) != Some(&decree) {
            return Err(format!("operation {operation} is acknowledged at {decree}, but not committed there"));
        }
        if decree <= floor {
            return Err(format!("a write got {decree}, but {floor} was acknowledged before it began"));
        }
        let before = self.version(key, decree.previous()).value;
        if expected.is_some_and(|expected| expected != before) {
            return Err(format!("a check for {expected:?} passed at {decree}, but the row was {before}"));
        }
        self.raise_floor(key, decree);
        Ok(())
    }

    /// An operation was refused, so it has no effect, ever.
    pub(crate) fn on_refused(&mut self, operation: u64) -> Result<(), Violation> {
        self.refused.insert(operation);
        match self.operations.get(&operation) {
            Some(decree) => Err(format!("operation {operation} is refused, but committed at {decree}")),
            None => Ok(()),
        }
    }

    /// A read, or a failed check: what it returns was committed, and is not older than what anybody knew when it was
    /// admitted.
    pub(crate) fn on_read(&mut self, key: usize, row: Row, floor: Decree) -> Result<(), Violation> {
        if row.decree < floor {
            return Err(format!("a read of key {key} returned {}, but {floor} was seen before", row.decree));
        }
        if row.decree > self.committed() || self.version(key, row.decree) != row {
            return Err(format!("a read of key {key} returned {row:?}, which is not committed"));
        }
        self.raise_floor(key, row.decree);
        Ok(())
    }

    fn raise_floor(&mut self, key: usize, decree: Decree) {
        self.floors[key] = self.floors[key].max(decree);
    }
}
