//! What a host may ask a replica. Nothing here changes anything.

use pegasus_wire::{Ballot, Configuration, Decree, Mutation, NodeId, Status};

use crate::changes::BeaconTarget;
use crate::effect::Role;
use crate::replica::{Replica, RoleState};
use crate::timing::Moment;

impl Replica {
    /// What it is.
    pub fn role(&self) -> Role {
        match &self.role {
            RoleState::Inactive => Role::Inactive,
            RoleState::Primary(_) => Role::Primary,
            RoleState::Secondary(secondary) if secondary.learner => Role::Learner,
            RoleState::Secondary(_) => Role::Secondary,
            RoleState::Stopped { status: Status::ShuttingDown, .. } => Role::Inactive,
            RoleState::Stopped { .. } => Role::Error,
        }
    }

    /// The newest ballot known.
    pub fn ballot(&self) -> Ballot {
        self.core.ballot()
    }

    /// The newest configuration known.
    pub fn configuration(&self) -> &Configuration {
        &self.core.configuration
    }

    /// The last decree known to be in the table.
    pub fn applied(&self) -> Decree {
        self.core.window.applied()
    }

    /// The commit point.
    pub fn committed(&self) -> Decree {
        self.core.window.committed()
    }

    /// The last decree prepared, of whatever ballot.
    pub fn last(&self) -> Decree {
        self.core.window.last()
    }

    /// What is prepared here and not known to be in the table, from a decree on, oldest first: consecutive decrees up
    /// to [`Replica::last`]. On a primary that serves, all of it has its ballot and stays as it is until it is applied
    /// or the role is lost; a host that keeps what it read here keeps the ballot with it.
    pub fn unapplied(&self, from: Decree) -> impl Iterator<Item = &Mutation> + '_ {
        self.core.window.from(from)
    }

    /// The highest stamp of the partition known here; "now" for expiry is never before it.
    pub fn timestamp_micros(&self) -> u64 {
        self.core.timestamp_micros
    }

    /// Why a write would be refused now, whatever its size; without proposing anything. `now` is read after the
    /// request was received.
    pub fn admit(&self, now: Moment) -> Result<(), Status> {
        match &self.role {
            RoleState::Primary(primary) => primary.admit(&self.core, now),
            RoleState::Secondary(_) => Err(Status::NotPrimary),
            RoleState::Inactive => Err(Status::NotServing),
            RoleState::Stopped { status, .. } => Err(*status),
        }
    }

    /// Why a read would be refused now. A primary that holds the lease of every member reads from its table, which
    /// then holds at least everything that was ever acknowledged. `now` is read after the request was received; the
    /// table may be read later.
    pub fn admit_read(&self, now: Moment) -> Result<(), Status> {
        match &self.role {
            RoleState::Primary(primary) => primary.admit_read(&self.core, now),
            RoleState::Inactive => Err(Status::NotServing),
            RoleState::Secondary(_) => Err(Status::NotPrimary),
            RoleState::Stopped { status, .. } => Err(*status),
        }
    }

    /// What this replica wants said in the beacons that are sent now.
    pub fn beacons(&self, now: Moment) -> impl Iterator<Item = BeaconTarget> + '_ {
        let primary = match &self.role {
            RoleState::Primary(primary) => Some(primary),
            _ => None,
        };
        primary.into_iter().flat_map(move |primary| primary.beacons(&self.core, now))
    }

    /// What to answer to a beacon; asked right after [`Event::BeaconHeard`](crate::Event::BeaconHeard) was handled.
    pub fn grants_beacon(&self, peer: NodeId, ballot: Ballot) -> bool {
        match &self.role {
            RoleState::Secondary(secondary) => secondary.grants_beacon(&self.core, peer, ballot),
            _ => false,
        }
    }

    /// The lowest decree that a learner may still need from this primary's log; the host keeps the log from there.
    pub fn learner_floor(&self) -> Option<Decree> {
        match &self.role {
            RoleState::Primary(primary) => primary.learner_floor(),
            _ => None,
        }
    }

    /// True if everything prepared here is applied; a graceful stop waits for this after it stopped admitting.
    pub fn is_drained(&self) -> bool {
        self.core.window.len() == 0
    }
}
