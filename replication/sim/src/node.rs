//! A node: what it is, how it starts, dies, freezes and stops.

use std::collections::BTreeSet;

use pegasus_replication::{Event, Moment, Recovered, Replica, ReplicaIdentity, Session};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{ClusterId, Configuration, Decree, Durability, NodeId, PartitionId, TableId, TableProperties};

use crate::clock::NodeClock;
use crate::disk::{CopyDisk, NodeLog, Table};
use crate::log_view::LogView;
use crate::options::{HostBug, Options};
use crate::random::Random;
use crate::world::{Happening, Local, World};

/// The cluster of every run.
pub(crate) const CLUSTER: ClusterId = ClusterId(1);

/// One copy of a partition and its host, on one node.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) disk: CopyDisk,
    /// `None` while the node is down.
    pub(crate) replica: Option<Replica>,
    /// What reads see.
    pub(crate) table: Table,
    /// What is appended and not applied: decree, key, value. A primary's checks read through it.
    pub(crate) overlay: Vec<(Decree, usize, u64)>,
    /// When the last descriptor asked for is stored.
    pub(crate) descriptor_at: u64,
    /// True while a checkpoint is on its way.
    pub(crate) fetching: bool,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) up: bool,
    /// Raised at every start.
    pub(crate) run: u64,
    /// True while its process is stopped. What happens to it meanwhile happens when it goes on.
    pub(crate) frozen: bool,
    pub(crate) deferred: Vec<Happening>,
    /// How many times slower than usual it does everything.
    pub(crate) slowness: u64,
    pub(crate) clock: NodeClock,
    /// Names this start of the machine.
    pub(crate) boot: u64,
    /// What the clock showed at the last tick.
    pub(crate) old_reading: Moment,
    /// Stream and end by session number.
    pub(crate) sessions: Vec<(usize, usize)>,
    pub(crate) log: NodeLog,
    /// By partition.
    pub(crate) copies: Vec<Option<Copy>>,
    /// Partitions it was told it is a member of, and has no copy of.
    pub(crate) missing: BTreeSet<usize>,
    /// True once the meta service knows what it holds.
    pub(crate) registered: bool,
    /// True if that has changed since it was last said.
    pub(crate) unreported: bool,
    /// True while it does not reach the meta service.
    pub(crate) meta_cut: bool,
    /// True while it is being stopped: no requests are taken.
    pub(crate) stopping: bool,
    /// True while it removes a copy.
    pub(crate) removing: bool,
    /// Copies it ever had.
    pub(crate) incarnations: u64,
}

impl Node {
    /// A node that has not been started, on a machine that has been running for a while.
    pub(crate) fn new(index: usize, options: &Options, random: &mut Random) -> Node {
        let reading = random.range(1_000_000, 1_000_000_000_000);
        let rate = draw_rate(options, random);
        Node {
            id: NodeId(index as u64 + 1),
            up: false,
            run: 0,
            frozen: false,
            deferred: Vec::new(),
            slowness: 1,
            clock: NodeClock::new(0, reading, rate),
            boot: 1,
            old_reading: Moment(reading),
            sessions: Vec::new(),
            log: NodeLog::default(),
            copies: (0..options.partitions).map(|_| None).collect(),
            missing: BTreeSet::new(),
            registered: true,
            unreported: false,
            meta_cut: false,
            stopping: false,
            removing: false,
            incarnations: 0,
        }
    }

    pub(crate) fn is_running(&self, run: u64) -> bool {
        self.up && self.run == run
    }

    /// What it holds has changed: it says so again.
    pub(crate) fn report_again(&mut self) {
        self.registered = false;
        self.unreported = true;
    }

    /// The meta service took what it was told.
    pub(crate) fn on_registered(&mut self) {
        self.registered = !self.unreported;
    }

    /// A name for a new copy.
    pub(crate) fn next_incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }

    /// The stream and the end that a session means.
    pub(crate) fn stream_of(&self, session: Session) -> (usize, usize) {
        self.sessions[session.0 as usize - 1]
    }
}

/// How fast a clock runs: often as far from the truth as it may be.
pub(crate) fn draw_rate(options: &Options, random: &mut Random) -> u64 {
    let drift = options.limits.timing.drift_permille;
    match random.index(4) {
        0 => 1000 - drift,
        1 => 1000 + drift,
        2 => 1000,
        _ => random.range(1000 - drift, 1000 + drift),
    }
}

impl World {
    /// A node starts, or starts again: every copy recovers from what its disk holds.
    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        self.trace.note(self.now, || format!("n{} starts", node + 1));
        let reading = self.nodes[node].clock.read(self.now);
        let host = &mut self.nodes[node];
        host.up = true;
        host.run += 1;
        host.stopping = false;
        host.old_reading = reading;
        host.missing.clear();
        let bugged = self.options.planted.host == Some(HostBug::CutTailRevived);
        if bugged {
            self.revive_cut_tail(node);
        }
        for partition in 0..self.options.partitions {
            if let Some(disk) = self.nodes[node].copies[partition].take().map(|copy| copy.disk) {
                let copy = self.recover(node, partition, disk);
                self.nodes[node].copies[partition] = Some(copy);
            }
        }
        // The first start of all registers with the table it is for.
        self.nodes[node].registered = self.nodes[node].run == 1 && self.now == 0;
        let tick = self.options.tick_micros;
        for local in [Local::Tick, Local::Beacon, Local::Watch] {
            let delay = self.random.range(0, tick);
            self.schedule_local(node, delay, local);
        }
    }

    /// Makes a running copy from what is on disk.
    pub(crate) fn recover(&mut self, node: usize, partition: usize, mut disk: CopyDisk) -> Copy {
        let host = &self.nodes[node];
        let applied = disk.flushed.applied;
        let damaged = disk.state == ReplicaState::Damaged;
        let gap = (disk.view.base() > applied && !damaged)
            .then(|| format!("the log begins after {}, the table ends at {applied}", disk.view.base()));
        disk.view.skip_to(applied);
        if let Some(synced) = &mut disk.synced {
            synced.skip_to(applied);
        }
        let state = disk.state_at(host.boot);
        self.statistics.uncertain += u64::from(state == ReplicaState::Uncertain);
        let bugged = self.options.planted.host == Some(HostBug::DuplicateApplyAfterRestart);
        let recovered = Recovered {
            configuration: disk.descriptor.clone(),
            applied: if bugged { applied.previous() } else { applied },
            committed: disk.view.committed,
            promised: disk.view.ballot,
            mutations: disk.view.beyond(applied).cloned().collect(),
            timestamp_micros: 0,
            state,
        };
        let (identity, reading) = (self.identity(node, partition), host.clock.read(self.now));
        let mut replica = Replica::with_limits(identity, recovered, self.options.limits, reading);
        if let Some(plant) = self.options.planted.replica {
            plant(&mut replica);
        }
        let checker = &self.partitions[partition].checker;
        let tail = if damaged { Ok(()) } else { checker.on_tail(disk.descriptor.ballot, &disk.view) };
        let result = gap.map_or(Ok(()), Err).and(tail).and(checker.on_table(&disk.flushed));
        self.check_copy(node, partition, result);
        let table = disk.flushed;
        let overlay = Vec::new();
        Copy { disk, replica: Some(replica), table, overlay, descriptor_at: 0, fetching: false }
    }

    /// An empty copy, or one with a table from elsewhere. Its streams were another copy's.
    pub(crate) fn make_copy(
        &mut self,
        node: usize,
        partition: usize,
        descriptor: Configuration,
        state: ReplicaState,
        table: Table,
    ) {
        self.close_streams_of(node, partition);
        if let Some(old) = self.nodes[node].copies[partition].take() {
            self.count_replica(&old);
        }
        let incarnation = self.nodes[node].next_incarnation();
        let view = LogView::beginning_at(table.applied);
        let synced = (self.options.durability == Durability::Written).then(|| view.clone());
        let boot = self.nodes[node].boot;
        let disk = CopyDisk { incarnation, descriptor, state, boot, view, synced, flushed: table };
        let copy = self.recover(node, partition, disk);
        self.nodes[node].copies[partition] = Some(copy);
        self.nodes[node].missing.remove(&partition);
    }

    fn count_replica(&mut self, copy: &Copy) {
        if let Some(replica) = &copy.replica {
            self.statistics.truncated += replica.describe().counters.truncated;
        }
    }

    fn identity(&self, node: usize, partition: usize) -> ReplicaIdentity {
        let table = TableProperties {
            table: TableId(1),
            name: "sim".to_owned(),
            partition_count: self.options.partitions as u32,
            replica_count: self.options.replicas as u8,
            durability: self.options.durability,
        };
        let partition = PartitionId { table: table.table, index: partition as u32 };
        ReplicaIdentity { cluster: CLUSTER, node: self.nodes[node].id, partition, table }
    }

    /// The process dies. Of what its log had not confirmed, any first part may have reached the disk.
    pub(crate) fn crash(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        let pending = self.nodes[node].log.pending.len() as u64;
        let closed = self.nodes[node].log.closed;
        let survivors = if closed || self.random.permille(300) { 0 } else { self.random.range(0, pending) };
        self.trace
            .note(self.now, || format!("n{} crashes; {survivors} of {pending} pending records survive", node + 1));
        for _ in 0..survivors {
            self.log_one(node);
        }
        let host = &mut self.nodes[node];
        host.log.cut_tail = host.log.pending.drain(..).collect();
        host.log.writing = 0;
        host.log.closed = false;
        host.up = false;
        host.frozen = false;
        host.deferred.clear();
        let mut copies = std::mem::take(&mut self.nodes[node].copies);
        for copy in copies.iter_mut().flatten() {
            self.count_replica(copy);
            copy.replica = None;
        }
        self.nodes[node].copies = copies;
        self.drop_requests_of(node);
        self.drop_streams_of(node);
    }

    /// The process is stopped by a signal; its clock runs on.
    pub(crate) fn freeze(&mut self, node: usize, micros: u64) {
        if !self.nodes[node].up || self.nodes[node].frozen {
            return;
        }
        self.trace.note(self.now, || format!("n{} is frozen", node + 1));
        self.nodes[node].frozen = true;
        let run = self.nodes[node].run;
        self.schedule(micros, Happening::Thaw { node, run });
    }

    /// The process goes on: everything that happened to it meanwhile happens now.
    pub(crate) fn thaw(&mut self, node: usize, run: u64) {
        if !self.nodes[node].is_running(run) || !self.nodes[node].frozen {
            return;
        }
        self.trace.note(self.now, || format!("n{} goes on", node + 1));
        self.nodes[node].frozen = false;
        let mut deferred = std::mem::take(&mut self.nodes[node].deferred);
        if self.random.permille(500) {
            // Timers are looked at before, or after, what came from the network.
            let timers = |happening: &Happening| matches!(happening, Happening::Local { .. });
            let after = self.random.permille(500);
            deferred.sort_by_key(|happening| timers(happening) == after);
        }
        for happening in deferred {
            self.schedule(0, happening);
        }
    }

    /// The node is asked to stop: it hands over, takes no more requests, and ends.
    pub(crate) fn stop(&mut self, node: usize) {
        if !self.nodes[node].up || self.nodes[node].frozen || self.nodes[node].stopping {
            return;
        }
        self.trace.note(self.now, || format!("n{} is asked to stop", node + 1));
        self.nodes[node].stopping = true;
        for partition in 0..self.options.partitions {
            self.feed(node, partition, Event::HandOver);
        }
        let delay = self.random.range(0, self.options.limits.timing.lease_micros);
        self.schedule_local(node, delay, Local::Stopped);
    }

    pub(crate) fn on_stopped(&mut self, node: usize) {
        for partition in 0..self.options.partitions {
            self.feed(node, partition, Event::Shutdown);
        }
        self.crash_and_start(node);
    }
}

/// Where something happened.
pub(crate) fn place(node: usize, partition: usize) -> String {
    format!("n{} p{partition}", node + 1)
}
