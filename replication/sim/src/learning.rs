//! Checkpoints: a learner's host asks the primary's, which flushes its table and sends it.

use pegasus_replication::{Event, Role};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Ballot, NodeId};

use crate::disk::Table;
use crate::world::{Happening, Local, World};

/// How a learner got what it lacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Taught {
    /// Some of it was read from the primary's log.
    FromLog,
    /// It fetched a checkpoint.
    FromCheckpoint,
}

impl World {
    /// A learner wants the primary's table.
    pub(crate) fn fetch_checkpoint(&mut self, node: usize, partition: usize, from: NodeId, ballot: Ballot) {
        let (delay, run) = (self.latency(node), self.nodes[node].run);
        let patience = 4 * self.options.checkpoint_micros_max + 4 * delay;
        let Some(copy) = &mut self.nodes[node].copies[partition] else { return };
        copy.fetching = true;
        let incarnation = copy.disk.incarnation;
        self.schedule_local(node, patience, Local::CheckpointLate { partition, incarnation });
        let asked = Happening::CheckpointAsked { learner: node, run, partition, incarnation, from, ballot };
        self.schedule(delay, asked);
    }

    /// The primary's host flushes the table as it is now, and sends it. It sends nothing if it is not that primary.
    pub(crate) fn on_checkpoint_asked(
        &mut self,
        (learner, run): (usize, u64),
        partition: usize,
        incarnation: u64,
        from: NodeId,
        ballot: Ballot,
    ) {
        let Some(node) = self.node_named(from) else { return };
        if self.network.is_apart(learner, node) || self.is_call_lost() {
            return;
        }
        let leads = self
            .replica(node, partition)
            .is_some_and(|replica| replica.role() == Role::Primary && replica.ballot() == ballot);
        let Some(copy) = self.nodes[node].copies[partition].as_mut().filter(|_| leads) else { return };
        copy.disk.flushed = copy.table;
        let table = copy.table;
        let delay = self.time_on(node, self.options.checkpoint_micros_max);
        let local = Local::CheckpointArrived { partition, incarnation, ballot, table };
        self.schedule(delay, Happening::Local { node: learner, run, local });
    }

    /// The files are here and synced: they take the place of the copy, unless it has moved on meanwhile.
    pub(crate) fn on_checkpoint_arrived(&mut self, node: usize, partition: usize, ballot: Ballot, table: Table) {
        let Some(copy) = &mut self.nodes[node].copies[partition] else { return };
        if !std::mem::take(&mut copy.fetching) {
            return;
        }
        let wanted = copy.replica.as_ref().is_some_and(|replica| {
            replica.role() == Role::Learner && replica.ballot() == ballot && replica.committed() < table.applied
        });
        if !wanted {
            return self.feed(node, partition, Event::CheckpointFailed);
        }
        let descriptor = copy.disk.descriptor.clone();
        self.trace.note(self.now, || format!("n{} p{partition} begins anew at {}", node + 1, table.applied));
        self.make_copy(node, partition, descriptor, ReplicaState::Learning, table);
        let id = self.nodes[node].id;
        self.partitions[partition].taught.insert(id, Taught::FromCheckpoint);
    }

    /// The checkpoint did not come in time.
    pub(crate) fn on_checkpoint_late(&mut self, node: usize, partition: usize) {
        let Some(copy) = &mut self.nodes[node].copies[partition] else { return };
        if std::mem::take(&mut copy.fetching) {
            self.feed(node, partition, Event::CheckpointFailed);
        }
    }
}
