//! The invariants that concern more than one copy: who must hold what is committed, who may serve, and whose data may
//! be destroyed without the cluster having a right to lose some.

use pegasus_replication::PeerMessage;
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Configuration, Decree, NodeId, Status};

use crate::checker::Violation;
use crate::node::place;
use crate::options::HostBug;
use crate::world::World;

impl World {
    /// Invariants 1 and 4: a replica moved its commit point. What nobody had committed before is in the durable log of
    /// every member of the configuration in force.
    pub(crate) fn check_commit(&mut self, node: usize, partition: usize, before: Decree, after: Decree) {
        for number in before.0 + 1..=after.0 {
            let decree = Decree(number);
            let result = self.judge_commit(node, partition, decree);
            if result.is_err() {
                return self.check_copy(node, partition, result);
            }
        }
    }

    fn judge_commit(&mut self, node: usize, partition: usize, decree: Decree) -> Result<(), Violation> {
        let Some(copy) = &self.nodes[node].copies[partition] else { return Ok(()) };
        let Some(record) = copy.disk.view.get(decree) else {
            return Err(format!(
                "{decree} is committed, but not in the durable log, which ends at {}",
                copy.disk.view.last()
            ));
        };
        let first = self.partitions[partition].checker.on_commit(decree, &record.payload)?;
        if !first {
            return Ok(());
        }
        for member in self.meta.configuration(partition).members() {
            self.member_holds(partition, member, |world, node| {
                let disk = &world.nodes[node].copies[partition].as_ref().ok_or("it has no copy")?.disk;
                world.partitions[partition].checker.is_held(decree, disk)
            })?;
        }
        Ok(())
    }

    /// A configuration came into force: every member of it holds what is committed anywhere. So no learner becomes a
    /// member with a gap.
    pub(crate) fn check_accepted(&mut self, partition: usize, configuration: &Configuration) {
        for member in configuration.members() {
            let result = self.member_holds(partition, member, |world, node| {
                let checker = &world.partitions[partition].checker;
                match &world.nodes[node].copies[partition] {
                    Some(copy) => checker.holds_all(&copy.disk),
                    // A new partition whose assignment has not arrived everywhere.
                    None if checker.committed() == Decree(0) => Ok(()),
                    None => Err("it has no copy".to_owned()),
                }
            });
            self.check(|| format!("p{partition} {configuration:?}"), result);
        }
    }

    /// Asks something of a member's disk, unless a fault destroyed what was on it.
    fn member_holds(
        &self,
        partition: usize,
        member: NodeId,
        holds: impl FnOnce(&World, usize) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        if self.partitions[partition].lost.contains(&member) {
            return Ok(());
        }
        let node = self.node_named(member).ok_or_else(|| format!("member {member} is nowhere"))?;
        holds(self, node).map_err(|text| format!("member n{}: {text}", node + 1))
    }

    /// Invariant 3: a replica that serves now is the only one that does, by the clock of each.
    pub(crate) fn check_serving(&mut self, node: usize, partition: usize) {
        if !self.serves(node, partition) {
            return;
        }
        let other = (0..self.nodes.len()).find(|other| *other != node && self.serves(*other, partition));
        let result = other.map_or(Ok(()), |other| Err(format!("n{} serves at the same moment", other + 1)));
        self.check(|| place(node, partition), result);
    }

    /// True if a request that came now would be taken.
    pub(crate) fn serves(&self, node: usize, partition: usize) -> bool {
        let host = &self.nodes[node];
        let Some(replica) = host.copies[partition].as_ref().and_then(|copy| copy.replica.as_ref()) else {
            return false;
        };
        let reading = host.clock.read(self.now);
        replica.admit_read(reading).is_ok() || matches!(replica.admit(reading), Ok(()) | Err(Status::Busy))
    }

    /// Invariants 3 and 5, by what is said.
    pub(crate) fn check_message(&mut self, node: usize, partition: usize, message: &PeerMessage) {
        let Some(copy) = &self.nodes[node].copies[partition] else { return };
        let checker = &mut self.partitions[partition].checker;
        let result = match message {
            PeerMessage::Establish(establish) => {
                checker.on_establish(establish.configuration.ballot, establish.sender, establish.last_decree)
            }
            // Nobody counts on a member that says it may have lost something.
            PeerMessage::Established(answer) if answer.uncertain => Ok(()),
            PeerMessage::Established(answer) => checker.on_established(answer.ballot, &copy.disk),
            PeerMessage::Acknowledge(answer) => checker.on_acknowledge(answer.ballot, answer.logged, &copy.disk),
            _ => Ok(()),
        };
        self.check_copy(node, partition, result);
    }

    /// A copy without a claim to completeness must never ask to lead.
    pub(crate) fn check_proposal(&mut self, node: usize, partition: usize, wanted: &Configuration) {
        let id = self.nodes[node].id;
        let leads = self.meta.configuration(partition).primary == Some(id);
        let Some(copy) = &self.nodes[node].copies[partition] else { return };
        let told = copy.replica.as_ref().is_some_and(|replica| replica.configuration().contains(id));
        let unfit = match copy.disk.state {
            ReplicaState::Damaged => true,
            ReplicaState::Learning => !told,
            _ => false,
        };
        if wanted.primary == Some(id) && !leads && unfit {
            let state = copy.disk.state;
            self.check_copy(node, partition, Err(format!("a copy in state {state:?} asks to lead")));
        }
    }

    /// The node that has this name now.
    pub(crate) fn node_named(&self, name: NodeId) -> Option<usize> {
        self.names.get(&name).copied().filter(|index| self.nodes[*index].id == name)
    }

    /// True if the node is a member of the configuration in force and has not lost its data.
    pub(crate) fn is_member(&self, node: usize, partition: usize) -> bool {
        let id = self.nodes[node].id;
        self.meta.configuration(partition).contains(id) && !self.partitions[partition].lost.contains(&id)
    }

    /// True if what a node holds of a partition may be destroyed: of the configuration in force, and of every one
    /// that may still come into force, another member has everything.
    pub(crate) fn can_lose(&self, node: usize, partition: usize) -> bool {
        let id = self.nodes[node].id;
        let in_force = self.meta.configuration(partition);
        let safe = |configuration: &Configuration| {
            !configuration.contains(id)
                || configuration.members().any(|member| member != id && self.is_sound(member, partition))
        };
        safe(in_force) && self.partitions[partition].proposals.iter().all(safe)
    }

    /// True if a member holds everything it should, as far as faults are concerned.
    pub(crate) fn is_sound(&self, member: NodeId, partition: usize) -> bool {
        let Some(node) = self.node_named(member) else { return false };
        let host = &self.nodes[node];
        let Some(copy) = &host.copies[partition] else { return false };
        copy.disk.state_at(host.boot) == ReplicaState::Whole && !self.partitions[partition].lost.contains(&member)
    }

    /// What a node held of a partition is destroyed. That is no fault of anybody until the node is removed, or a copy
    /// made later has everything. A node that was only being taught may still be added, because of what it said before.
    pub(crate) fn note_loss(&mut self, node: usize, partition: usize) {
        let id = self.nodes[node].id;
        self.partitions[partition].lost.insert(id);
    }

    /// A configuration came into force: whoever is not in it owes nothing any more. Who joined and has everything is a
    /// member like any other from now on, and so is a primary that was chosen among those that may have lost something.
    /// Anybody else may have said, before its loss, that it has what is committed only later.
    pub(crate) fn settle_losses(&mut self, partition: usize, before: &Configuration, after: &Configuration) {
        let lost = std::mem::take(&mut self.partitions[partition].lost);
        let still = lost.into_iter().filter(|id| {
            let node = self.node_named(*id);
            let copy = node.and_then(|node| self.nodes[node].copies[partition].as_ref());
            let whole = copy.is_some_and(|copy| self.partitions[partition].checker.holds_all(&copy.disk).is_ok());
            let begins = after.primary == Some(*id) || !before.contains(*id);
            after.contains(*id) && !(whole && begins)
        });
        self.partitions[partition].lost = still.collect();
    }

    /// True if a copy stopped for a reason that the run itself made.
    pub(crate) fn is_expected(&self, node: usize, partition: usize, status: Status) -> bool {
        let damaged =
            self.nodes[node].copies[partition].as_ref().is_some_and(|copy| copy.disk.state == ReplicaState::Damaged);
        let failed = self.nodes[node].log.closed && self.options.planted.host != Some(HostBug::RetriedSyncBelieved);
        match status {
            Status::StorageFailed => failed,
            Status::Damaged => damaged,
            Status::ShuttingDown => self.nodes[node].stopping || self.nodes[node].removing,
            _ => false,
        }
    }
}
