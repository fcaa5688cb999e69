//! What a node's host does: performs effects, and says when they are done.

use pegasus_replication::{
    AppendRecord, AppendToken, Effect, Event, PeerMessage, Recovered, Replica, ReplicaIdentity, Session,
};
use pegasus_wire::{Ballot, ClusterId, Configuration, Decree, Durability, Mutation, NodeId, PartitionId, Status};
use pegasus_wire::{TableId, TableProperties};

use crate::disk::{CopyDisk, LogView, Table};
use crate::meta::{node_id, node_index};
use crate::network::{End, Stream};
use crate::options::HostBug;
use crate::world::{Copy, Happening, World};

/// How often a host ticks its replicas.
const TICK_MICROS: u64 = 100_000;

impl World {
    /// Performs one effect. Nothing happens at once except sending and answering; the rest is scheduled.
    pub(crate) fn perform(&mut self, node: usize, partition: usize, effect: Effect) {
        let run = self.nodes[node].run;
        match effect {
            Effect::Append { token, record } => {
                self.nodes[node].log.pending.push_back((partition, token, record));
                self.start_log_write(node);
            }
            Effect::StoreDescriptor { configuration } => {
                let delay = self.random.range(100, self.options.descriptor_micros_max);
                self.schedule(delay, Happening::DescriptorStored { node, run, partition, configuration });
            }
            Effect::OpenStream { peer } => {
                let (delay, peer) = (self.latency(), node_index(peer));
                self.schedule(delay, Happening::OpenStream { node, run, partition, peer });
            }
            Effect::CloseStream { session, .. } => self.close_end(node, session),
            Effect::Send { session, message, .. } => self.send(node, partition, session, message),
            Effect::Apply { mutations } => self.apply(node, partition, &mutations),
            Effect::Reply { request, outcome } => self.on_reply(request, outcome),
            Effect::ProposeConfiguration { expected_ballot, configuration } => {
                let delay = self.latency();
                let expected = expected_ballot;
                self.schedule(delay, Happening::Proposed { node, run, partition, expected, configuration });
            }
            Effect::RoleChanged { .. } => {}
            Effect::Faulted { status: Status::StorageFailed, .. } => {}
            Effect::Faulted { status, reason } => {
                self.check(&place(node, partition), Err(format!("a fault ({status:?}): {reason}")));
            }
        }
    }

    /// A node starts, or starts again: every copy recovers from what its disk holds.
    pub(crate) fn restart(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        self.trace.note(self.now, || format!("n{} starts", node + 1));
        self.nodes[node].up = true;
        self.nodes[node].run += 1;
        let run = self.nodes[node].run;
        for partition in 0..self.options.partitions {
            let is_member = node < self.options.members;
            if let Some(disk) = self.nodes[node].copies[partition].as_ref().map(|copy| copy.disk.clone()) {
                self.nodes[node].copies[partition] = Some(self.recover(node, partition, disk));
            }
            if is_member {
                self.tell_assignment(node, partition);
            }
        }
        let delay = self.random.range(0, TICK_MICROS);
        self.schedule(delay, Happening::Tick { node, run });
    }

    fn recover(&mut self, node: usize, partition: usize, disk: CopyDisk) -> Copy {
        let mut applied = disk.flushed.applied;
        if self.options.planted.host == Some(HostBug::DuplicateApplyAfterRestart) {
            applied = applied.previous();
        }
        let recovered = Recovered {
            configuration: disk.descriptor.clone(),
            applied,
            committed: disk.view.committed,
            mutations: disk.view.beyond(applied).to_vec(),
            timestamp_micros: 0,
            damaged: false,
        };
        let identity = identity(node, partition);
        let mut replica = Replica::with_limits(identity, recovered, self.options.limits);
        if let Some(plant) = self.options.planted.replica {
            plant(&mut replica);
        }
        Copy { table: disk.flushed, disk, replica: Some(replica) }
    }

    /// The node dies. Of what its log had not confirmed, any first part may have reached the disk.
    pub(crate) fn crash(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.statistics.crashes += 1;
        let pending = self.nodes[node].log.pending.len() as u64;
        let survivors = if self.random.permille(300) { 0 } else { self.random.range(0, pending) };
        self.trace
            .note(self.now, || format!("n{} crashes; {survivors} of {pending} pending records survive", node + 1));
        for _ in 0..survivors {
            self.log_one(node);
        }
        self.nodes[node].log = Default::default();
        self.nodes[node].up = false;
        for copy in self.nodes[node].copies.iter_mut().flatten() {
            if let Some(replica) = copy.replica.take() {
                self.statistics.truncated += replica.describe().counters.truncated;
            }
        }
        self.waiting.retain(|_, waiting| waiting.node != node);
        self.drop_streams_of(node);
    }

    pub(crate) fn on_tick(&mut self, node: usize, run: u64) {
        for partition in 0..self.options.partitions {
            self.feed(node, partition, Event::Tick);
            let flushes = self.random.permille(200);
            if let Some(copy) = &mut self.nodes[node].copies[partition]
                && flushes
            {
                copy.disk.flushed = copy.table;
            }
        }
        self.schedule(TICK_MICROS, Happening::Tick { node, run });
    }

    /// Group commit: what gathered while the last write was under way is the next write.
    fn start_log_write(&mut self, node: usize) {
        let log = &mut self.nodes[node].log;
        if log.writing > 0 || log.pending.is_empty() {
            return;
        }
        log.writing = log.pending.len();
        if self.options.planted.host == Some(HostBug::LoggedTooEarly) {
            let tokens: Vec<(usize, AppendToken)> = log.pending.iter().map(|record| (record.0, record.1)).collect();
            let run = self.nodes[node].run;
            for (partition, through) in tokens {
                let event = Event::Logged { through };
                self.schedule(0, Happening::ToReplica { node, run, partition, event });
            }
        }
        let (delay, run) = (self.random.range(20, self.options.log_micros_max), self.nodes[node].run);
        self.schedule(delay, Happening::LogWritten { node, run });
    }

    pub(crate) fn on_log_written(&mut self, node: usize) {
        if !self.healed && self.random.draw() % 100_000 < self.options.failed_writes_per_100k {
            return self.fail_log(node);
        }
        let count = std::mem::take(&mut self.nodes[node].log.writing);
        let mut last: Vec<Option<AppendToken>> = vec![None; self.options.partitions];
        for _ in 0..count {
            if let Some((partition, token)) = self.log_one(node) {
                last[partition] = Some(token);
            }
        }
        for (partition, token) in last.into_iter().enumerate() {
            if let Some(through) = token {
                self.feed(node, partition, Event::Logged { through });
            }
        }
        self.start_log_write(node);
    }

    /// The oldest pending record becomes durable.
    fn log_one(&mut self, node: usize) -> Option<(usize, AppendToken)> {
        let (partition, token, record): (usize, AppendToken, AppendRecord) =
            self.nodes[node].log.pending.pop_front()?;
        let copy = self.nodes[node].copies[partition].as_mut()?;
        let change = copy.disk.view.absorb(&record, self.options.planted.host);
        let result = self.checkers[partition].on_log(record.decree, &change, &copy.disk.view);
        self.check(&place(node, partition), result);
        Some((partition, token))
    }

    /// A write failed: the log takes nothing more, every replica of the node stops, and the node is started again.
    fn fail_log(&mut self, node: usize) {
        self.trace.note(self.now, || format!("n{}: a log write fails", node + 1));
        for partition in 0..self.options.partitions {
            let event = Event::Failed { status: Status::StorageFailed, reason: "a log write failed".to_owned() };
            self.feed(node, partition, event);
        }
        self.crash(node);
        let delay = self.random.range(1_000, 300_000);
        self.schedule(delay, Happening::Restart { node });
    }

    pub(crate) fn on_descriptor_stored(&mut self, node: usize, partition: usize, configuration: Configuration) {
        let Some(copy) = &mut self.nodes[node].copies[partition] else { return };
        let ballot = configuration.ballot;
        // Stores are asked for in order but scheduled apart; an overtaken one is not done.
        if ballot > copy.disk.descriptor.ballot {
            copy.disk.descriptor = configuration;
        }
        self.feed(node, partition, Event::DescriptorStored { ballot });
    }

    fn apply(&mut self, node: usize, partition: usize, mutations: &[Mutation]) {
        let run = self.nodes[node].run;
        let Some(copy) = &self.nodes[node].copies[partition] else { return };
        let mut table = copy.table;
        let result = self.checkers[partition].on_apply(table.applied, mutations);
        self.check(&place(node, partition), result);
        for mutation in mutations {
            table.apply(mutation);
        }
        let slow = self.random.permille(self.options.slow_apply_permille);
        let delay = if slow { self.random.range(100, 30_000) } else { 0 };
        self.schedule(delay, Happening::TableApplied { node, run, partition, table });
    }

    pub(crate) fn on_table_applied(&mut self, node: usize, partition: usize, table: Table) {
        let Some(copy) = &mut self.nodes[node].copies[partition] else { return };
        copy.table = table;
        self.feed(node, partition, Event::Applied { through: table.applied });
    }

    pub(crate) fn on_open_stream(&mut self, node: usize, partition: usize, peer: usize) {
        let there = self.nodes[peer].up && self.nodes[peer].copies[partition].is_some();
        if !there || self.network.is_cut(node, peer) {
            return self.feed(node, partition, Event::StreamFailed { peer: node_id(peer) });
        }
        let end = |node: usize, run: u64| End {
            node,
            run,
            session: None,
            closing: false,
            closed: false,
            arrival: self.now,
            held_until: 0,
        };
        let ends = [end(node, self.nodes[node].run), end(peer, self.nodes[peer].run)];
        self.network.streams.push(Stream { partition, ends, cut_at: None });
        let session = self.name_end(self.network.streams.len() - 1, 0);
        self.feed(node, partition, Event::StreamOpened { peer: node_id(peer), session });
    }

    /// Gives a stream its session number at one end.
    fn name_end(&mut self, stream: usize, end: usize) -> Session {
        let node = self.network.streams[stream].ends[end].node;
        self.nodes[node].sessions.push((stream, end));
        let session = Session(self.nodes[node].sessions.len() as u64);
        self.network.streams[stream].ends[end].session = Some(session);
        session
    }

    fn send(&mut self, node: usize, partition: usize, session: Session, message: PeerMessage) {
        self.check_message(node, partition, &message);
        let (stream, end) = self.nodes[node].sessions[session.0 as usize - 1];
        let delay = self.latency();
        let state = &mut self.network.streams[stream];
        if state.ends[end].closing || state.ends[end].closed {
            return;
        }
        let other = &mut state.ends[1 - end];
        other.arrival = other.arrival.max(self.now + delay);
        let delay = other.arrival - self.now;
        self.schedule(delay, Happening::Deliver { stream, end: 1 - end, message });
    }

    fn check_message(&mut self, node: usize, partition: usize, message: &PeerMessage) {
        let Some(copy) = &self.nodes[node].copies[partition] else { return };
        let (disk, checker): (&CopyDisk, _) = (&copy.disk, &mut self.checkers[partition]);
        let result = match message {
            PeerMessage::Establish(establish) => {
                checker.on_establish(establish.configuration.ballot, establish.sender, establish.last_decree)
            }
            PeerMessage::Established(answer) => {
                checker.on_established(answer.ballot, disk.descriptor.ballot, &disk.view)
            }
            PeerMessage::Acknowledge(answer) => checker.on_acknowledge(answer.ballot, answer.logged, &disk.view),
            _ => Ok(()),
        };
        self.check(&place(node, partition), result);
    }

    pub(crate) fn on_deliver(&mut self, stream: usize, end: usize, message: PeerMessage) {
        let state = &self.network.streams[stream];
        let receiver = state.ends[end];
        let cut = state.cut_at.is_some_and(|time| time < self.now);
        if self.now <= receiver.held_until {
            let delay = receiver.held_until + 1 - self.now;
            return self.schedule(delay, Happening::Deliver { stream, end, message });
        }
        let running = self.nodes[receiver.node].up && self.nodes[receiver.node].run == receiver.run;
        if cut || receiver.closed || !running {
            return;
        }
        let (partition, peer): (usize, NodeId) = (state.partition, node_id(state.ends[1 - end].node));
        let session = match receiver.session {
            Some(session) => session,
            None => self.name_end(stream, end),
        };
        self.feed(receiver.node, partition, Event::Received { peer, session, message });
    }

    /// An end is told that its stream is over.
    pub(crate) fn on_end_closed(&mut self, stream: usize, end: usize) {
        let state = &mut self.network.streams[stream];
        let (partition, peer) = (state.partition, node_id(state.ends[1 - end].node));
        let told = &mut state.ends[end];
        let node = told.node;
        let running = self.nodes[node].up && self.nodes[node].run == told.run;
        if std::mem::replace(&mut told.closed, true) || !running {
            return;
        }
        if let Some(session) = told.session {
            self.feed(node, partition, Event::StreamClosed { peer, session });
        }
    }

    /// A replica closes its end; the other end learns it after what was sent before.
    fn close_end(&mut self, node: usize, session: Session) {
        let (stream, end) = self.nodes[node].sessions[session.0 as usize - 1];
        let delay = self.latency();
        let state = &mut self.network.streams[stream];
        if std::mem::replace(&mut state.ends[end].closing, true) {
            return;
        }
        let other = &mut state.ends[1 - end];
        other.arrival = other.arrival.max(self.now + delay);
        let delay = other.arrival - self.now;
        self.schedule(delay, Happening::EndClosed { stream, end: 1 - end });
        let delay = if self.random.permille(500) { 0 } else { self.random.range(0, 50_000) };
        self.schedule(delay, Happening::EndClosed { stream, end });
    }

    /// The first assignment makes an empty copy; a later one to a node without a copy would mean that data was lost.
    pub(crate) fn on_assigned(&mut self, node: usize, partition: usize, configuration: Configuration) {
        if self.nodes[node].copies[partition].is_none() {
            if configuration.ballot > Ballot::ASSIGNMENT {
                let missing = format!("ballot {} is assigned, but there is no copy", configuration.ballot);
                return self.check(&place(node, partition), Err(missing));
            }
            let (view, flushed) = (LogView::default(), Table { applied: Decree(0), ..Table::default() });
            let disk = CopyDisk { descriptor: configuration.clone(), view, flushed };
            self.nodes[node].copies[partition] = Some(self.recover(node, partition, disk));
        }
        self.feed(node, partition, Event::Assigned(configuration));
    }
}

/// Where something happened.
pub(crate) fn place(node: usize, partition: usize) -> String {
    format!("n{} p{partition}", node + 1)
}

fn identity(node: usize, partition: usize) -> ReplicaIdentity {
    let table = TableProperties {
        table: TableId(1),
        name: "sim".to_owned(),
        partition_count: 4,
        replica_count: 3,
        durability: Durability::Synced,
    };
    let partition = PartitionId::new(1, partition as u32);
    ReplicaIdentity { cluster: ClusterId(1), node: node_id(node), partition, table }
}
