//! What a replica starts from, and the check that it is whole.

use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Ballot, Configuration, Decree, Mutation};

/// What a replica starts from: its descriptor, its table and what its log still holds.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The configuration in the durable descriptor. For a new copy: that of the assignment (ballot 1), stored before
    /// the replica is made.
    pub configuration: Configuration,
    /// The last decree in the table.
    pub applied: Decree,
    /// The highest commit point seen in the log; at least `applied` is assumed.
    pub committed: Decree,
    /// The highest ballot in the log, a truncation's included; at least that of the configuration is assumed. It is
    /// higher if the node died between a truncation and the descriptor: what a lower ballot prepares from then on would
    /// be void.
    pub promised: Ballot,
    /// What the log holds beyond `applied`, without gap, one record per decree (the one of the highest ballot).
    pub mutations: Vec<Mutation>,
    /// The highest stamp the table knows of; 0 if unknown.
    pub timestamp_micros: u64,
    /// What the copy may claim to be. A damaged one refuses everything.
    pub state: ReplicaState,
}

impl Recovered {
    /// A new, empty copy under its first assignment.
    pub fn empty(configuration: Configuration) -> Recovered {
        Recovered {
            configuration,
            applied: Decree(0),
            committed: Decree(0),
            promised: Ballot(0),
            mutations: Vec::new(),
            timestamp_micros: 0,
            state: ReplicaState::Whole,
        }
    }

    /// A new, empty copy that is to be taught.
    pub fn learner() -> Recovered {
        Recovered { state: ReplicaState::Learning, ..Recovered::empty(Configuration::default()) }
    }

    /// A learner claims nothing, so a gap is no damage: what lies behind it is simply not there.
    pub(crate) fn without_gap(mut self) -> Recovered {
        if self.state == ReplicaState::Learning {
            let whole = self.mutations.iter().zip(self.applied.0 + 1..).take_while(|(one, next)| one.decree.0 == *next);
            let count = whole.count();
            self.mutations.truncate(count);
            self.committed = self.committed.min(Decree(self.applied.0 + count as u64));
        }
        self
    }

    /// Why this cannot be a whole copy, if so.
    pub(crate) fn damage(&self) -> Option<String> {
        if matches!(self.state, ReplicaState::Damaged | ReplicaState::Missing) {
            return Some("the copy is marked as damaged".to_owned());
        }
        for (mutation, number) in self.mutations.iter().zip(self.applied.0 + 1..) {
            if mutation.decree != Decree(number) {
                return Some(format!("the log holds decree {} where {number} is next", mutation.decree));
            }
            if mutation.ballot > self.configuration.ballot {
                let (found, stored) = (mutation.ballot, self.configuration.ballot);
                return Some(format!("the log holds ballot {found}, the descriptor only {stored}"));
            }
        }
        let last = self.applied.0 + self.mutations.len() as u64;
        let short = self.committed.0 > last;
        short.then(|| format!("{} was committed, the log ends at {last}", self.committed))
    }
}
