//! The simulated cluster: a queue of things that will happen, and the loop that makes them happen in order of time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use pegasus_replication::{Effect, Event, PeerMessage, Replica, RequestToken};
use pegasus_wire::{Ballot, Configuration, Decree};

use crate::checker::{Checker, Violation};
use crate::disk::{CopyDisk, NodeLog, Table};
use crate::meta::SimMeta;
use crate::network::Network;
use crate::options::Options;
use crate::random::Random;
use crate::trace::Trace;

/// Something that will happen at a set time. What belongs to a run of a node is dropped if that run is over.
#[derive(Debug)]
pub(crate) enum Happening {
    Tick { node: usize, run: u64 },
    LogWritten { node: usize, run: u64 },
    ToReplica { node: usize, run: u64, partition: usize, event: Event },
    DescriptorStored { node: usize, run: u64, partition: usize, configuration: Configuration },
    TableApplied { node: usize, run: u64, partition: usize, table: Table },
    OpenStream { node: usize, run: u64, partition: usize, peer: usize },
    Deliver { stream: usize, end: usize, message: PeerMessage },
    EndClosed { stream: usize, end: usize },
    Assigned { node: usize, run: u64, partition: usize, configuration: Configuration },
    Proposed { node: usize, run: u64, partition: usize, expected: Ballot, configuration: Configuration },
    ClientActs { client: usize },
    Fault,
    LinkHeals { one: usize, other: usize },
    MetaReturns,
    Restart { node: usize },
    Heal,
}

/// One replica and its host, on one node, while that is up.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) disk: CopyDisk,
    /// `None` while the node is down.
    pub(crate) replica: Option<Replica>,
    pub(crate) table: Table,
}

/// One node.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) up: bool,
    /// Raised at every start.
    pub(crate) run: u64,
    /// Stream and end by session number.
    pub(crate) sessions: Vec<(usize, usize)>,
    pub(crate) log: NodeLog,
    /// By partition; `None` until the first assignment has arrived.
    pub(crate) copies: Vec<Option<Copy>>,
}

/// A write that a client waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) node: usize,
    pub(crate) partition: usize,
    pub(crate) key: usize,
    pub(crate) value: u64,
    pub(crate) floor: Decree,
}

/// What a run did, for the summary line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Events given to replicas.
    pub events: u64,
    /// Writes acknowledged.
    pub writes: u64,
    /// Writes refused or left unknown.
    pub unanswered: u64,
    /// Reads served.
    pub reads: u64,
    /// Crashes of a node.
    pub crashes: u64,
    /// Mutations truncated by members.
    pub truncated: u64,
    /// Simulated time, microseconds.
    pub micros: u64,
}

impl Statistics {
    /// Adds another run's numbers.
    pub fn add(&mut self, other: &Statistics) {
        self.events += other.events;
        self.writes += other.writes;
        self.unanswered += other.unanswered;
        self.reads += other.reads;
        self.crashes += other.crashes;
        self.truncated += other.truncated;
        self.micros += other.micros;
    }
}

struct Scheduled {
    time: u64,
    sequence: u64,
    happening: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.time, self.sequence).cmp(&(other.time, other.sequence))
    }
}

/// Everything there is in a run.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) random: Random,
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) meta: SimMeta,
    pub(crate) checkers: Vec<Checker>,
    pub(crate) waiting: BTreeMap<RequestToken, Waiting>,
    pub(crate) next_value: u64,
    /// Writes acknowledged since everything was healed, by partition.
    pub(crate) healed_writes: Vec<u64>,
    pub(crate) healed: bool,
    /// True while clients act.
    pub(crate) busy: bool,
    pub(crate) trace: Trace,
    pub(crate) statistics: Statistics,
    pub(crate) violation: Option<Violation>,
    effects: Vec<Effect>,
}

impl World {
    pub(crate) fn new(options: Options, random: Random, trace: Trace) -> World {
        let partitions = options.partitions;
        let empty_node = |_| Node { copies: (0..partitions).map(|_| None).collect(), ..Node::default() };
        let mut world = World {
            random,
            now: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            nodes: (0..options.nodes).map(empty_node).collect(),
            network: Network::default(),
            meta: SimMeta::new(partitions, options.members),
            checkers: vec![Checker::default(); partitions],
            waiting: BTreeMap::new(),
            next_value: 1,
            healed_writes: vec![0; partitions],
            healed: false,
            busy: true,
            trace,
            statistics: Statistics::default(),
            violation: None,
            effects: Vec::new(),
            options,
        };
        for node in 0..world.options.nodes {
            world.schedule(0, Happening::Restart { node });
        }
        for client in 0..world.options.clients {
            world.schedule(1000, Happening::ClientActs { client });
        }
        if world.options.fault_pause_micros_max > 0 {
            world.schedule(20_000, Happening::Fault);
        }
        let chaos = world.options.chaos_micros;
        world.schedule(chaos, Happening::Heal);
        world
    }

    /// Makes something happen `delay` microseconds from now.
    pub(crate) fn schedule(&mut self, delay: u64, happening: Happening) {
        self.sequence += 1;
        let scheduled = Scheduled { time: self.now + delay, sequence: self.sequence, happening };
        self.queue.push(Reverse(scheduled));
    }

    /// Runs until a moment, or until something is found.
    pub(crate) fn run_until(&mut self, time: u64) {
        while self.violation.is_none() {
            match self.queue.peek() {
                Some(Reverse(next)) if next.time <= time => {}
                _ => break,
            }
            let Some(Reverse(next)) = self.queue.pop() else { break };
            self.now = next.time;
            self.happen(next.happening);
        }
        self.now = self.now.max(time);
        self.statistics.micros = self.now;
    }

    /// Notes a violation; the first one counts.
    pub(crate) fn check(&mut self, place: &str, result: Result<(), Violation>) {
        if let Err(violation) = result
            && self.violation.is_none()
        {
            self.trace.note(self.now, || format!("VIOLATION {place}: {violation}"));
            self.violation = Some(format!("{place}: {violation}"));
        }
    }

    fn is_running(&self, node: usize, run: u64) -> bool {
        self.nodes[node].up && self.nodes[node].run == run
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tick { node, run } if self.is_running(node, run) => self.on_tick(node, run),
            Happening::LogWritten { node, run } if self.is_running(node, run) => self.on_log_written(node),
            Happening::ToReplica { node, run, partition, event } if self.is_running(node, run) => {
                self.feed(node, partition, event);
            }
            Happening::DescriptorStored { node, run, partition, configuration } if self.is_running(node, run) => {
                self.on_descriptor_stored(node, partition, configuration);
            }
            Happening::TableApplied { node, run, partition, table } if self.is_running(node, run) => {
                self.on_table_applied(node, partition, table);
            }
            Happening::OpenStream { node, run, partition, peer } if self.is_running(node, run) => {
                self.on_open_stream(node, partition, peer);
            }
            Happening::Assigned { node, run, partition, configuration } if self.is_running(node, run) => {
                self.on_assigned(node, partition, configuration);
            }
            Happening::Proposed { node, run, partition, expected, configuration } => {
                self.on_proposed(node, run, partition, expected, configuration);
            }
            Happening::Deliver { stream, end, message } => self.on_deliver(stream, end, message),
            Happening::EndClosed { stream, end } => self.on_end_closed(stream, end),
            Happening::ClientActs { client } => self.on_client(client),
            Happening::Fault => self.on_fault(),
            Happening::LinkHeals { one, other } => self.network.cut_links.retain(|link| *link != (one, other)),
            Happening::MetaReturns => self.meta.up = true,
            Happening::Restart { node } => self.restart(node),
            Happening::Heal => self.heal(),
            // Of a run that is over.
            Happening::Tick { .. }
            | Happening::LogWritten { .. }
            | Happening::ToReplica { .. }
            | Happening::DescriptorStored { .. }
            | Happening::TableApplied { .. }
            | Happening::OpenStream { .. }
            | Happening::Assigned { .. } => {}
        }
    }

    /// Gives a replica an event, checks what it did, and performs what it asks for.
    pub(crate) fn feed(&mut self, node: usize, partition: usize, event: Event) {
        let Some(copy) = &mut self.nodes[node].copies[partition] else { return };
        let Some(replica) = &mut copy.replica else { return };
        self.statistics.events += 1;
        let before = replica.committed();
        self.trace.event(self.now, node, partition, &event);
        let mut effects = std::mem::take(&mut self.effects);
        replica.handle(event, &mut effects);
        let after = replica.committed();
        if after > before {
            self.check_commit(node, partition, before, after);
        }
        self.trace.effects(self.now, node, partition, &effects);
        for effect in effects.drain(..) {
            self.perform(node, partition, effect);
        }
        self.effects = effects;
    }

    fn check_commit(&mut self, node: usize, partition: usize, before: Decree, after: Decree) {
        let copies = self.nodes.iter().take(self.options.members).map(|node| node.copies[partition].as_ref());
        let views: Option<Vec<_>> = copies.map(|copy| copy.map(|copy| &copy.disk.view)).collect();
        let result = match views {
            None => Err(format!("{after} is committed, but a member has no copy")),
            Some(views) => self.checkers[partition].on_commit(before, after, &views),
        };
        self.check(&format!("n{} p{partition}", node + 1), result);
    }
}
