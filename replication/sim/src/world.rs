//! The state of a run and its queue: everything happens as an entry of the queue, in order of time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use pegasus_history::History;
use pegasus_meta::core::Report;
use pegasus_replication::{Effect, Event, Moment, PeerMessage};
use pegasus_wire::messages::control::{Assignments, ReplicaState};
use pegasus_wire::{Ballot, Configuration, Decree, NodeId, Status};

use crate::beacons::Entry;
use crate::checker::{Checker, Violation};
use crate::clients::{Client, Operation};
use crate::disk::{Row, Table};
use crate::learning::Taught;
use crate::meta::SimMeta;
use crate::network::Network;
use crate::node::{Node, place};
use crate::options::{Fault, HostBug, Options};
use crate::random::Random;
use crate::statistics::Statistics;
use crate::trace::Trace;

/// Something that will happen at a set time.
#[derive(Debug)]
pub(crate) enum Happening {
    /// On a node; nothing if that run of it is over.
    Local {
        node: usize,
        run: u64,
        local: Local,
    },
    /// A message reaches the end of a stream.
    Deliver {
        stream: usize,
        end: usize,
        message: PeerMessage,
    },
    /// An end learns that its stream is over.
    EndClosed {
        stream: usize,
        end: usize,
    },
    /// A beacon reaches a node.
    Beacon {
        from: usize,
        run: u64,
        to: usize,
        receiver: NodeId,
        sent_at: Moment,
        entries: Vec<Entry>,
    },
    /// A learner asks for a checkpoint.
    CheckpointAsked {
        learner: usize,
        run: u64,
        partition: usize,
        incarnation: u64,
        from: NodeId,
        ballot: Ballot,
    },
    /// A request reaches a node.
    Request {
        operation: u64,
    },
    /// A client hears what came of its request.
    Answer {
        operation: u64,
        answer: Answer,
    },
    /// A client has waited long enough.
    Impatience {
        operation: u64,
    },
    /// A client thinks of something.
    ClientActs {
        client: usize,
    },
    /// A node gives a sign of life to the meta service, says what it holds if it has not yet, and asks for its
    /// assignments.
    MetaHears {
        node: usize,
        run: u64,
        reports: Option<Vec<Report>>,
    },
    /// A proposal reaches the meta service.
    Proposed {
        node: usize,
        run: u64,
        partition: usize,
        incarnation: u64,
        proposer: NodeId,
        expected: Ballot,
        configuration: Configuration,
        /// False if the node has given up waiting for the answer.
        awaited: bool,
    },
    Fault,
    /// Something works again; nothing if everything was healed since.
    Recovers {
        era: u64,
        recovery: Recovery,
    },
    Thaw {
        node: usize,
        run: u64,
    },
    Heal,
}

/// What works again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Recovery {
    /// The way from one node to another.
    Way { from: usize, to: usize },
    /// The meta service.
    Meta,
    /// The way of one node to it.
    WayToMeta { node: usize },
    /// A node that was slow.
    Speed { node: usize },
    /// A node that was down.
    Node { node: usize },
}

/// What happens on a node by itself.
#[derive(Debug)]
pub(crate) enum Local {
    Tick,
    Beacon,
    Watch,
    Assigned(Box<Assignments>),
    Registered,
    LogWritten,
    ToReplica { partition: usize, incarnation: u64, event: Event },
    DescriptorStored { partition: usize, incarnation: u64, configuration: Configuration, state: ReplicaState },
    TableApplied { partition: usize, incarnation: u64, table: Table },
    OpenStream { partition: usize, incarnation: u64, peer: NodeId },
    BeaconAnswered { peer: NodeId, sent_at: Moment, entries: Vec<Entry> },
    CheckpointArrived { partition: usize, incarnation: u64, ballot: Ballot, table: Table },
    CheckpointLate { partition: usize, incarnation: u64 },
    TableRead { operation: u64, floor: Decree },
    Stopped,
}

/// What a client is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// A write took effect.
    Done,
    /// What a read or a failed check found.
    Found(Row),
    /// It had no effect.
    Refused(Status),
    /// Nobody can tell.
    Unknown,
}

/// What is known of a partition from outside.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub(crate) checker: Checker,
    /// Members whose data was destroyed by a fault and that were not removed yet, or may still be added.
    pub(crate) lost: BTreeSet<NodeId>,
    /// Configurations asked for that may still come into force.
    pub(crate) proposals: Vec<Configuration>,
    /// How those that are being taught were taught so far.
    pub(crate) taught: BTreeMap<NodeId, Taught>,
    /// Writes acknowledged since everything was healed.
    pub(crate) healed_writes: u64,
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
    /// Where every name there ever was lives, or lived.
    pub(crate) names: BTreeMap<NodeId, usize>,
    pub(crate) network: Network,
    pub(crate) meta: SimMeta,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) clients: Vec<Client>,
    /// Requests that nobody has answered yet.
    pub(crate) operations: BTreeMap<u64, Operation>,
    pub(crate) last_operation: u64,
    pub(crate) history: History,
    pub(crate) healed: bool,
    /// Raised when everything is healed.
    pub(crate) era: u64,
    /// When an operator begins to look at what is stuck.
    pub(crate) operator_from: u64,
    /// True while clients act.
    pub(crate) busy: bool,
    pub(crate) trace: Trace,
    pub(crate) statistics: Statistics,
    pub(crate) violation: Option<Violation>,
    effects: Vec<Effect>,
}

impl World {
    pub(crate) fn new(mut options: Options, mut random: Random, trace: Trace) -> World {
        if options.planted.host == Some(HostBug::GraceShorterThanLease) {
            let timing = &mut options.limits.timing;
            timing.grace_micros = timing.lease_micros;
        }
        let nodes: Vec<Node> = (0..options.nodes).map(|index| Node::new(index, &options, &mut random)).collect();
        let names: BTreeMap<NodeId, usize> = nodes.iter().map(|node| node.id).zip(0..).collect();
        let meta = SimMeta::new(&options, &nodes);
        let clients = (0..options.clients).map(|_| Client::new(options.partitions)).collect();
        let mut world = World {
            random,
            now: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            nodes,
            names,
            network: Network::default(),
            meta,
            partitions: (0..options.partitions).map(|_| Partition::default()).collect(),
            clients,
            operations: BTreeMap::new(),
            last_operation: 0,
            history: History::new(),
            healed: false,
            era: 0,
            operator_from: u64::MAX,
            busy: true,
            trace,
            statistics: Statistics::default(),
            violation: None,
            effects: Vec::new(),
            options,
        };
        for node in 0..world.options.nodes {
            world.recover_after(0, Recovery::Node { node });
        }
        for client in 0..world.options.clients {
            world.schedule(1000, Happening::ClientActs { client });
        }
        if world.options.fault_pause_micros_max > 0 && !world.options.faults.is_empty() {
            let first = world.options.limits.timing.lease_micros;
            world.schedule(first, Happening::Fault);
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

    /// Makes something work again later, if everything does not before.
    pub(crate) fn recover_after(&mut self, delay: u64, recovery: Recovery) {
        let era = self.era;
        self.schedule(delay, Happening::Recovers { era, recovery });
    }

    fn mend(&mut self, recovery: Recovery) {
        match recovery {
            Recovery::Way { from, to } => self.network.mend(from, to),
            Recovery::Meta => self.meta.up = true,
            Recovery::WayToMeta { node } => self.nodes[node].meta_cut = false,
            Recovery::Speed { node } => self.nodes[node].slowness = 1,
            Recovery::Node { node } => self.start(node),
        }
    }

    /// Makes something happen on this run of a node.
    pub(crate) fn schedule_local(&mut self, node: usize, delay: u64, local: Local) {
        let run = self.nodes[node].run;
        self.schedule(delay, Happening::Local { node, run, local });
    }

    /// Gives an event to a copy later, if it is still there.
    pub(crate) fn tell_later(&mut self, node: usize, partition: usize, delay: u64, event: Event) {
        let Some(copy) = &self.nodes[node].copies[partition] else { return };
        let incarnation = copy.disk.incarnation;
        self.schedule_local(node, delay, Local::ToReplica { partition, incarnation, event });
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
    pub(crate) fn check(&mut self, place: impl FnOnce() -> String, result: Result<(), Violation>) {
        if let Err(violation) = result
            && self.violation.is_none()
        {
            let place = place();
            self.trace.note(self.now, || format!("VIOLATION {place}: {violation}"));
            self.violation = Some(format!("{place}: {violation}"));
        }
    }

    /// Counts a fault.
    pub(crate) fn count(&mut self, fault: Fault) {
        *self.statistics.faults.entry(fault).or_default() += 1;
    }

    /// The node on which something happens; if that is frozen it happens later.
    fn place_of(&self, happening: &Happening) -> Option<usize> {
        match happening {
            Happening::Local { node, .. } => Some(*node),
            Happening::Deliver { stream, end, .. } | Happening::EndClosed { stream, end } => {
                Some(self.network.streams[*stream].ends[*end].node)
            }
            Happening::Beacon { to, .. } => Some(*to),
            Happening::CheckpointAsked { from, .. } => self.names.get(from).copied(),
            Happening::Request { operation } => self.operations.get(operation).map(|operation| operation.node),
            _ => None,
        }
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(node) = self.place_of(&happening)
            && self.nodes[node].frozen
        {
            return self.nodes[node].deferred.push(happening);
        }
        match happening {
            Happening::Local { node, run, local } => {
                if self.nodes[node].is_running(run) {
                    self.happen_on(node, local);
                }
            }
            Happening::Deliver { stream, end, message } => self.on_deliver(stream, end, message),
            Happening::EndClosed { stream, end } => self.on_end_closed(stream, end),
            Happening::Beacon { from, run, to, receiver, sent_at, entries } => {
                self.on_beacon((from, run), to, receiver, sent_at, entries);
            }
            Happening::CheckpointAsked { learner, run, partition, incarnation, from, ballot } => {
                self.on_checkpoint_asked((learner, run), partition, incarnation, from, ballot);
            }
            Happening::Request { operation } => self.on_request(operation),
            Happening::Answer { operation, answer } => self.on_answer(operation, answer),
            Happening::Impatience { operation } => self.on_impatience(operation),
            Happening::ClientActs { client } => self.on_client(client),
            Happening::MetaHears { node, run, reports } => self.on_meta_hears(node, run, reports),
            Happening::Proposed { node, run, partition, incarnation, proposer, expected, configuration, awaited } => {
                let asker = awaited.then_some((run, partition, incarnation));
                self.on_proposed((node, proposer), partition, expected, configuration, asker);
            }
            Happening::Fault => self.on_fault(),
            Happening::Recovers { era, recovery } if era == self.era => self.mend(recovery),
            Happening::Recovers { .. } => {}
            Happening::Thaw { node, run } => self.thaw(node, run),
            Happening::Heal => self.heal(),
        }
    }

    fn happen_on(&mut self, node: usize, local: Local) {
        match local {
            Local::Tick => self.on_tick(node),
            Local::Beacon => self.send_beacons(node),
            Local::Watch => self.on_watch(node),
            Local::Assigned(assignments) => self.on_assigned(node, *assignments),
            Local::Registered => self.nodes[node].on_registered(),
            Local::LogWritten => self.on_log_written(node),
            Local::ToReplica { partition, incarnation, event } if self.is_copy(node, partition, incarnation) => {
                self.feed(node, partition, event);
            }
            Local::DescriptorStored { partition, incarnation, configuration, state }
                if self.is_copy(node, partition, incarnation) =>
            {
                self.on_descriptor_stored(node, partition, configuration, state);
            }
            Local::TableApplied { partition, incarnation, table } if self.is_copy(node, partition, incarnation) => {
                self.on_table_applied(node, partition, table);
            }
            Local::OpenStream { partition, incarnation, peer } if self.is_copy(node, partition, incarnation) => {
                self.on_open_stream(node, partition, peer);
            }
            Local::BeaconAnswered { peer, sent_at, entries } => self.on_beacon_answered(node, peer, sent_at, entries),
            Local::CheckpointArrived { partition, incarnation, ballot, table }
                if self.is_copy(node, partition, incarnation) =>
            {
                self.on_checkpoint_arrived(node, partition, ballot, table);
            }
            Local::CheckpointLate { partition, incarnation } if self.is_copy(node, partition, incarnation) => {
                self.on_checkpoint_late(node, partition);
            }
            Local::TableRead { operation, floor } => self.on_table_read(node, operation, floor),
            Local::Stopped => self.on_stopped(node),
            // Of a copy that is gone.
            Local::ToReplica { .. }
            | Local::DescriptorStored { .. }
            | Local::TableApplied { .. }
            | Local::OpenStream { .. }
            | Local::CheckpointArrived { .. }
            | Local::CheckpointLate { .. } => {}
        }
    }

    fn is_copy(&self, node: usize, partition: usize, incarnation: u64) -> bool {
        self.nodes[node].copies[partition].as_ref().is_some_and(|copy| copy.disk.incarnation == incarnation)
    }

    /// Gives a replica an event, checks what it did, and performs what it asks for.
    pub(crate) fn feed(&mut self, node: usize, partition: usize, event: Event) {
        let host = &mut self.nodes[node];
        let reading = host.clock.read(self.now);
        let Some(replica) = host.copies[partition].as_mut().and_then(|copy| copy.replica.as_mut()) else { return };
        self.statistics.steps += 1;
        let before = replica.committed();
        self.trace.event(self.now, node, partition, &event);
        let mut effects = std::mem::take(&mut self.effects);
        replica.handle(reading, event, &mut effects);
        let after = replica.committed();
        if after > before {
            self.check_commit(node, partition, before, after);
        }
        self.check_serving(node, partition);
        self.trace.effects(self.now, node, partition, &effects);
        for effect in effects.drain(..) {
            self.perform(node, partition, effect);
        }
        self.effects = effects;
    }

    /// Checks something about a copy.
    pub(crate) fn check_copy(&mut self, node: usize, partition: usize, result: Result<(), Violation>) {
        self.check(|| place(node, partition), result);
    }
}
