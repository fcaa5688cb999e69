//! What a host does with its disk: log writes and syncs, descriptors, the table.

use pegasus_replication::{AppendToken, Event};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Configuration, Decree, Durability, Mutation, Status};

use crate::disk::Table;
use crate::options::{Fault, HostBug};
use crate::world::{Local, World};

impl World {
    /// A time the node needs for something.
    pub(crate) fn time_on(&mut self, node: usize, micros_max: u64) -> u64 {
        self.random.range(micros_max.div_ceil(10), micros_max.max(1)) * self.nodes[node].slowness
    }

    /// Group commit: what gathered while the last write was under way is the next write.
    pub(crate) fn start_log_write(&mut self, node: usize) {
        let log = &mut self.nodes[node].log;
        if log.closed || log.writing > 0 || log.pending.is_empty() {
            return;
        }
        log.writing = log.pending.len();
        if self.options.planted.host == Some(HostBug::LoggedTooEarly) {
            let tokens: Vec<(usize, AppendToken)> =
                log.pending.iter().map(|pending| (pending.partition, pending.token)).collect();
            for (partition, through) in tokens {
                self.tell_later(node, partition, 0, Event::Logged { through });
            }
        }
        let delay = self.time_on(node, self.options.log_micros_max);
        self.schedule_local(node, delay, Local::LogWritten);
    }

    pub(crate) fn on_log_written(&mut self, node: usize) {
        if self.nodes[node].log.closed {
            return;
        }
        let count = std::mem::take(&mut self.nodes[node].log.writing);
        let mut last: Vec<Option<AppendToken>> = vec![None; self.options.partitions];
        for _ in 0..count {
            if let Some((partition, token)) = self.log_one(node) {
                last[partition] = last[partition].max(Some(token));
            }
        }
        if self.random.permille(100) {
            self.sync_log(node);
        }
        for (partition, token) in last.into_iter().enumerate() {
            if let Some(through) = token {
                self.feed(node, partition, Event::Logged { through });
            }
        }
        self.start_log_write(node);
    }

    /// The oldest pending record is written. Its partition and token, if its copy is still there.
    pub(crate) fn log_one(&mut self, node: usize) -> Option<(usize, AppendToken)> {
        let pending = self.nodes[node].log.pending.pop_front()?;
        let (partition, token) = (pending.partition, pending.token);
        let in_force = self.is_member(node, partition);
        let copy = self.nodes[node].copies[partition].as_mut()?;
        if copy.disk.incarnation != pending.incarnation {
            return None;
        }
        let change = copy.disk.view.absorb(&pending.record, self.options.planted.host);
        let checker = &self.partitions[partition].checker;
        let result = checker.on_log(pending.record.decree, &change, &copy.disk.view, in_force);
        self.check_copy(node, partition, result);
        if self.options.durability == Durability::Written {
            self.nodes[node].log.unsynced.push_back(pending);
        }
        Some((partition, token))
    }

    /// Everything written survives a loss of power.
    pub(crate) fn sync_log(&mut self, node: usize) {
        let count = self.nodes[node].log.unsynced.len();
        self.sync_first(node, count);
    }

    /// The first records that were written and not synced survive a loss of power.
    fn sync_first(&mut self, node: usize, count: usize) {
        let host = &mut self.nodes[node];
        for pending in host.log.unsynced.drain(..count) {
            if let Some(copy) = &mut host.copies[pending.partition]
                && copy.disk.incarnation == pending.incarnation
                && let Some(synced) = &mut copy.disk.synced
            {
                synced.absorb(&pending.record, None);
            }
        }
    }

    /// The machine loses power: its clock begins anew, and of what was written and not synced any end may be gone,
    /// unless nobody else has it.
    pub(crate) fn lose_power(&mut self, node: usize) {
        self.crash(node);
        let lossy = (0..self.options.partitions).all(|partition| self.can_lose(node, partition));
        let unsynced = self.nodes[node].log.unsynced.len();
        let kept = if lossy { self.random.range(0, unsynced as u64) as usize } else { unsynced };
        self.sync_first(node, kept);
        let gone: Vec<_> = self.nodes[node].log.unsynced.drain(..).collect();
        for partition in 0..self.options.partitions {
            if let Some(disk) = self.nodes[node].copies[partition].as_mut().map(|copy| &mut copy.disk)
                && let Some(synced) = &disk.synced
            {
                disk.view = synced.clone();
            }
            if gone.iter().any(|pending| pending.partition == partition) {
                self.note_loss(node, partition);
            }
        }
        self.trace.note(self.now, || format!("n{} has lost power, and {} records", node + 1, gone.len()));
        let reading = self.random.range(1_000, 60_000_000);
        let host = &mut self.nodes[node];
        host.boot += 1;
        host.clock.reboot(self.now, reading);
    }

    /// A sync fails: nobody knows what of the last write is on the disk, the log takes nothing more, every replica of
    /// the node is told, and only a restart mends it.
    pub(crate) fn fail_log(&mut self, node: usize) {
        if self.options.planted.host == Some(HostBug::RetriedSyncBelieved) {
            return self.believe_retried_sync(node);
        }
        self.trace.note(self.now, || format!("n{}: a sync fails", node + 1));
        let survivors = self.random.range(0, self.nodes[node].log.writing as u64);
        for _ in 0..survivors {
            self.log_one(node);
        }
        self.nodes[node].log.closed = true;
        self.nodes[node].log.writing = 0;
        for partition in 0..self.options.partitions {
            let event = Event::Failed { status: Status::StorageFailed, reason: "a sync failed".to_owned() };
            self.feed(node, partition, event);
        }
    }

    fn believe_retried_sync(&mut self, node: usize) {
        let count = std::mem::take(&mut self.nodes[node].log.writing);
        let gone: Vec<_> = self.nodes[node].log.pending.drain(..count).collect();
        for pending in gone {
            self.tell_later(node, pending.partition, 0, Event::Logged { through: pending.token });
        }
    }

    /// What was cut off at the restart before is read again, behind what was written since.
    pub(crate) fn revive_cut_tail(&mut self, node: usize) {
        let log = &mut self.nodes[node].log;
        let newer = std::mem::take(&mut log.cut_tail);
        for pending in std::mem::replace(&mut log.old_tail, newer) {
            let Some(copy) = &mut self.nodes[node].copies[pending.partition] else { continue };
            let disk = &mut copy.disk;
            if disk.incarnation == pending.incarnation && pending.record.decree <= disk.view.last().next() {
                disk.view.absorb(&pending.record, None);
            }
        }
    }

    pub(crate) fn store_descriptor(
        &mut self,
        node: usize,
        partition: usize,
        configuration: Configuration,
        state: ReplicaState,
    ) {
        let delay = self.time_on(node, self.options.descriptor_micros_max);
        let Some(copy) = &mut self.nodes[node].copies[partition] else { return };
        copy.descriptor_at = copy.descriptor_at.max(self.now + delay);
        let (delay, incarnation) = (copy.descriptor_at - self.now, copy.disk.incarnation);
        self.schedule_local(node, delay, Local::DescriptorStored { partition, incarnation, configuration, state });
    }

    pub(crate) fn on_descriptor_stored(
        &mut self,
        node: usize,
        partition: usize,
        configuration: Configuration,
        state: ReplicaState,
    ) {
        if self.options.planted.host != Some(HostBug::DescriptorBeforeLog) {
            self.sync_log(node);
        }
        let boot = self.nodes[node].boot;
        let Some(copy) = &mut self.nodes[node].copies[partition] else { return };
        let ballot = configuration.ballot;
        let learns = state == ReplicaState::Learning && ballot != copy.disk.descriptor.ballot;
        let changed = learns || state != copy.disk.state_at(boot);
        copy.disk.descriptor = configuration;
        if state != ReplicaState::Uncertain {
            copy.disk.state = state;
            copy.disk.boot = boot;
        }
        if changed {
            self.nodes[node].report_again();
        }
        self.feed(node, partition, Event::DescriptorStored { ballot, state });
    }

    /// Puts committed mutations into the table, now or later.
    pub(crate) fn apply(&mut self, node: usize, partition: usize, mutations: &[Mutation]) {
        let Some(copy) = &self.nodes[node].copies[partition] else { return };
        let (mut table, incarnation) = (copy.table, copy.disk.incarnation);
        let result = self.partitions[partition].checker.on_apply(table.applied, mutations);
        self.check_copy(node, partition, result);
        for mutation in mutations {
            table.apply(mutation);
        }
        let slow = self.random.permille(self.options.slow_apply_permille);
        let slowest = self.options.limits.timing.lease_micros / 5;
        let delay = if slow { self.time_on(node, slowest) } else { 0 };
        self.schedule_local(node, delay, Local::TableApplied { partition, incarnation, table });
    }

    pub(crate) fn on_table_applied(&mut self, node: usize, partition: usize, table: Table) {
        let Some(copy) = &mut self.nodes[node].copies[partition] else { return };
        copy.table = table;
        copy.overlay.retain(|(decree, ..)| *decree > table.applied);
        self.feed(node, partition, Event::Applied { through: table.applied });
    }

    /// Sometimes the table is flushed, and sometimes the log is collected: what the table's files hold and no learner
    /// waits for goes.
    pub(crate) fn keep_house(&mut self, node: usize, partition: usize) {
        let flushes = self.random.permille(self.options.flush_permille);
        let collects = self.random.permille(self.options.collect_permille);
        let hasty = self.options.planted.host == Some(HostBug::LogCollectedTooEarly);
        let Some(copy) = &mut self.nodes[node].copies[partition] else { return };
        if flushes {
            copy.disk.flushed = copy.table;
        }
        if !collects {
            return;
        }
        let needed = copy.replica.as_ref().and_then(|replica| replica.learner_floor());
        let flushed = if hasty { copy.table.applied } else { copy.disk.flushed.applied };
        let through = needed.map_or(flushed, |needed| flushed.min(needed.previous()));
        copy.disk.view.collect(through);
        if let Some(synced) = &mut copy.disk.synced {
            synced.collect(through);
        }
    }

    /// A record was appended: a mutation, or a truncation. Reads through the window see it from now on.
    pub(crate) fn note_append(&mut self, node: usize, partition: usize, decree: Decree, write: Option<(usize, u64)>) {
        let Some(copy) = &mut self.nodes[node].copies[partition] else { return };
        copy.overlay.retain(|(known, ..)| *known < decree);
        if let Some((key, value)) = write {
            copy.overlay.push((decree, key, value));
        }
    }

    /// The log of a node fails, if it has one that can.
    pub(crate) fn fail_sync_of(&mut self, node: usize) {
        if self.nodes[node].up && !self.nodes[node].frozen && !self.nodes[node].log.closed {
            self.count(Fault::FailedSync);
            self.fail_log(node);
        }
    }
}
