//! Members that leave are often back soon: what they will lack then is kept in the log for a while, though it is
//! flushed and nothing else needs it. So a node that was away for seconds needs no checkpoint.
//!
//! What a member that was removed lacks begins after the last decree it acknowledged; nothing beyond that was
//! committed, so nothing of it was flushed, when its removal is proposed. A primary that was replaced has everything
//! that was committed under it, but what of that it *knows* to be committed is a little less.
//!
//! The log keeps at most half of its budget for this and for learners; beyond that a pin breaks.

use std::time::Duration;

use pegasus_engine::log::{Log, LogPin};
use pegasus_replication::{Moment, Role};
use pegasus_wire::{Configuration, Decree, NodeId};

use super::{Core, Partition, State, clock};

/// How long a member's way back is kept open.
const HELD: Duration = Duration::from_secs(600);
/// Decrees before the commit point from which a former primary may have to read; the first that the log still has.
const SLACKS: [u64; 4] = [8192, 2048, 256, 0];

/// A former member, or one whose removal is proposed.
struct Leaver {
    node: NodeId,
    pin: LogPin,
    since: Moment,
}

/// The leavers of one partition, as its primary sees them.
#[derive(Default)]
pub(crate) struct Leavers(Vec<Leaver>);

impl Leavers {
    /// Forgets those that are members of a configuration in force.
    pub(crate) fn settle(&mut self, configuration: &Configuration) {
        self.0.retain(|leaver| !configuration.contains(leaver.node));
    }

    /// Another node leads: it keeps what is needed.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    fn expire(&mut self, now: Moment) {
        self.0.retain(|leaver| u128::from(now.since(leaver.since)) < HELD.as_micros() && !leaver.pin.is_broken());
    }
}

impl Core {
    /// A configuration is about to be proposed: keeps the log for those that are no members in it.
    pub(crate) fn hold_log_for_leavers(&self, partition: &mut Partition, wanted: &Configuration) {
        let known = partition.replica.configuration();
        let held = |node: NodeId| partition.leavers.0.iter().any(|leaver| leaver.node == node);
        let leaving: Vec<NodeId> = known.members().filter(|node| !wanted.contains(*node) && !held(*node)).collect();
        if leaving.is_empty() {
            return;
        }
        let members = partition.replica.describe().members;
        let committed = partition.replica.committed();
        for node in leaving {
            let acknowledged = members.iter().find(|member| member.node == node).map(|member| member.acknowledged);
            let pin = match acknowledged {
                Some(acknowledged) => Some(self.log.pin(partition.id, acknowledged.next())),
                None => pin_with_slack(&self.log, partition, committed),
            };
            partition.leavers.0.extend(pin.map(|pin| Leaver { node, pin, since: clock::now() }));
        }
    }

    /// Gives up what was kept for long enough.
    pub(crate) fn expire_leavers(&self, state: &mut State) {
        let now = clock::now();
        for partition in state.partitions.values_mut() {
            partition.leavers.expire(now);
            if partition.replica.role() != Role::Primary && partition.replica.describe().proposal.is_none() {
                partition.leavers.clear();
            }
        }
    }
}

/// Pins from as far before the commit point as the log reaches.
fn pin_with_slack(log: &Log, partition: &Partition, committed: Decree) -> Option<LogPin> {
    let pins = SLACKS.iter().filter(|slack| **slack <= committed.0);
    let mut pins = pins.map(|slack| log.pin(partition.id, Decree(committed.0 - slack + 1)));
    pins.find(|pin| !pin.is_broken())
}
