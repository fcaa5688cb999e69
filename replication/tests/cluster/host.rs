//! What the nodes of a script do for their replicas, and what they keep when they crash.

use std::collections::BTreeMap;

use pegasus_replication::{
    AppendRecord, AppendToken, Effect, Event, PeerMessage, RecordKind, Recovered, Replica, ReplicaIdentity, Session,
};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Decree, Durability, Mutation, NodeId, PartitionId, Status, TableId,
    TableProperties,
};

use super::Cluster;
use super::meta::Report;
use super::network::{Beacon, Stream};

/// Mutations given to a learner at a time.
const LOG_BATCH: usize = 3;

/// A completion that has not happened yet.
#[derive(Debug)]
pub(crate) enum Task {
    Open { from: u64, to: u64 },
    Deliver { stream: usize, to_member: bool, message: PeerMessage },
    Closed { stream: usize, to_member: bool },
    Beacon(Beacon),
    Logged { node: u64, token: AppendToken, record: AppendRecord },
    Stored { node: u64, configuration: Configuration, state: ReplicaState },
    Applied { node: u64, through: Decree },
    Decided { node: u64, expected: Ballot, configuration: Configuration },
    ReadLog { node: u64, peer: NodeId, session: Session, from: Decree, through: Decree },
    Checkpoint { node: u64, from: u64, committed: Decree },
}

/// What a node keeps when it crashes, and its replica while it runs.
pub(crate) struct Node {
    /// False while it is down.
    pub(crate) up: bool,
    pub(crate) replica: Option<Replica>,
    pub(crate) state: ReplicaState,
    descriptor: Configuration,
    records: BTreeMap<Decree, Mutation>,
    committed: Decree,
    promised: Ballot,
    applied: Decree,
    pub(crate) sessions: u64,
}

impl Node {
    /// A node that runs and holds nothing.
    fn new() -> Node {
        Node {
            up: true,
            replica: None,
            state: ReplicaState::Whole,
            descriptor: Configuration::default(),
            records: BTreeMap::new(),
            committed: Decree(0),
            promised: Ballot(0),
            applied: Decree(0),
            sessions: 0,
        }
    }

    fn recover(&self) -> Recovered {
        Recovered {
            configuration: self.descriptor.clone(),
            applied: self.applied,
            committed: self.committed.max(self.applied),
            promised: self.promised,
            mutations: self.records.range(self.applied.next()..).map(|(_, mutation)| mutation.clone()).collect(),
            timestamp_micros: 0,
            state: self.state,
        }
    }

    fn report(&self) -> Report {
        let last = self.records.last_key_value().map_or(self.applied, |(decree, _)| self.applied.max(*decree));
        Report { ballot: self.descriptor.ballot, last, state: self.state }
    }

    /// What recovery would find.
    fn keep(&mut self, record: AppendRecord) {
        self.committed = self.committed.max(record.committed);
        self.promised = self.promised.max(record.ballot);
        match record.kind {
            RecordKind::Truncate => {
                self.records.retain(|decree, known| *decree < record.decree || known.ballot >= record.ballot);
            }
            RecordKind::Mutation(kind) => {
                let AppendRecord { ballot, decree, timestamp_micros, payload, .. } = record;
                self.records.insert(decree, Mutation { ballot, decree, timestamp_micros, kind, payload });
            }
        }
    }

    /// Some of the mutations asked for; `None` if the first one is not in the log any more.
    fn read_log(&self, from: Decree, through: Decree) -> Option<Vec<Mutation>> {
        self.records.get(&from)?;
        Some(self.records.range(from..=through).take(LOG_BATCH).map(|(_, mutation)| mutation.clone()).collect())
    }
}

impl Cluster {
    pub(super) fn create(&mut self, count: u64) {
        self.meta.configuration = Configuration {
            ballot: Ballot::ASSIGNMENT,
            primary: Some(NodeId(1)),
            secondaries: (2..=count).map(NodeId).collect(),
        };
        for number in 1..=count {
            let node = Node { descriptor: self.meta.configuration.clone(), ..Node::new() };
            self.nodes.insert(number, node);
            self.start(number);
        }
    }

    /// A registered node without a copy.
    pub(super) fn add_spare(&mut self, number: u64) {
        let node = Node::new();
        self.meta.reports.insert(NodeId(number), node.report());
        self.nodes.insert(number, node);
    }

    /// The node starts, reports what it has, and makes its replica.
    pub(super) fn start(&mut self, number: u64) {
        let (limits, now) = (self.limits, self.now);
        let node = self.node(number);
        node.up = true;
        node.replica = Some(Replica::with_limits(identity(number), node.recover(), limits, now));
        let report = node.report();
        self.meta.reports.insert(NodeId(number), report);
    }

    /// An empty copy that learns takes the place of whatever there was.
    pub(super) fn make_learning(&mut self, number: u64, configuration: Configuration) {
        self.begin_learning(number, configuration, Decree(0));
        self.write_line(&format!("  n{number} makes an empty copy that learns"));
    }

    fn begin_learning(&mut self, number: u64, descriptor: Configuration, applied: Decree) {
        let (limits, now) = (self.limits, self.now);
        self.forget_tasks(number);
        let sessions = self.node(number).sessions;
        let mut node = Node { descriptor, applied, state: ReplicaState::Learning, sessions, ..Node::new() };
        node.replica = Some(Replica::with_limits(identity(number), node.recover(), limits, now));
        self.nodes.insert(number, node);
    }

    /// What was handed to the log and not completed is gone.
    pub(super) fn crash(&mut self, number: u64) {
        let node = self.node(number);
        (node.up, node.replica) = (false, None);
        self.forget_tasks(number);
        self.end_streams_of(number);
    }

    /// The machine goes down with the node: under `written` durability the copy may have lost something.
    pub(super) fn reboot(&mut self, number: u64) {
        self.crash(number);
        let node = self.node(number);
        if node.state == ReplicaState::Whole {
            node.state = ReplicaState::Uncertain;
        }
    }

    /// The copy of a node that is down is found damaged at its next start.
    pub(super) fn damage(&mut self, number: u64) {
        self.node(number).state = ReplicaState::Damaged;
    }

    /// The log of a node that is down loses its end: what `written` durability may do when a machine fails.
    pub(super) fn lose(&mut self, number: u64, from: Decree) {
        self.node(number).records.retain(|decree, _| *decree < from);
    }

    /// The log of a node drops what is in its table.
    pub(super) fn collect(&mut self, number: u64, through: Decree) {
        let node = self.node(number);
        assert!(through <= node.applied, "what is not in the table is kept");
        node.records.retain(|decree, _| *decree > through);
    }

    fn forget_tasks(&mut self, number: u64) {
        self.tasks.retain(|task| !task.belongs_to(number));
    }

    fn end_streams_of(&mut self, number: u64) {
        for stream in self.open_streams(|stream| stream.primary == number || stream.member == number) {
            let to_member = self.streams[stream].primary == number;
            self.streams[stream].closed[usize::from(!to_member)] = true;
            self.tasks.push_back(Task::Closed { stream, to_member });
        }
    }

    /// The proposal never arrives.
    pub(super) fn unanswered(&mut self, number: u64) {
        self.tasks.retain(|task| !matches!(task, Task::Decided { node, .. } if *node == number));
        self.feed(number, Event::ProposalFailed);
    }

    /// The proposal arrives, its answer does not.
    pub(super) fn lose_answer(&mut self, number: u64) {
        let of_node = |task: &Task| matches!(task, Task::Decided { node, .. } if *node == number);
        let index = self.tasks.iter().position(of_node).expect("a proposal on its way");
        if let Some(Task::Decided { node, expected, configuration }) = self.tasks.remove(index) {
            self.meta.propose(NodeId(node), expected, configuration);
            self.feed(node, Event::ProposalFailed);
        }
    }

    /// The name by which a script holds tasks of this kind.
    pub(super) fn category(&self, task: &Task) -> String {
        match task {
            Task::Open { from, to } => format!("open n{from} n{to}"),
            Task::Deliver { stream, to_member, .. } | Task::Closed { stream, to_member } => {
                let Stream { primary, member, .. } = &self.streams[*stream];
                let (from, to) = if *to_member { (primary, member) } else { (member, primary) };
                format!("net n{from} n{to}")
            }
            Task::Beacon(Beacon { primary, member, granted: None, .. }) => format!("beacon n{primary} n{member}"),
            Task::Beacon(Beacon { primary, member, .. }) => format!("beacon n{member} n{primary}"),
            Task::Logged { node, .. } => format!("log n{node}"),
            Task::Stored { node, .. } => format!("descriptor n{node}"),
            Task::Applied { node, .. } => format!("table n{node}"),
            Task::Decided { node, .. } if self.held.contains(&format!("meta n{node}")) => format!("meta n{node}"),
            Task::Decided { .. } => "meta".to_owned(),
            Task::ReadLog { node, .. } => format!("read n{node}"),
            Task::Checkpoint { node, .. } => format!("checkpoint n{node}"),
        }
    }

    pub(super) fn complete(&mut self, task: Task) {
        match task {
            Task::Open { from, to } => self.open(from, to),
            Task::Deliver { stream, to_member, message } => self.deliver(stream, to_member, message),
            Task::Closed { stream, to_member } => self.end_stream(stream, to_member),
            Task::Beacon(beacon) => self.on_beacon(beacon),
            Task::Logged { node, token, record } => {
                self.node(node).keep(record);
                self.feed(node, Event::Logged { through: token });
            }
            Task::Stored { node, configuration, state } => {
                let ballot = configuration.ballot;
                let kept = self.node(node);
                (kept.descriptor, kept.state) = (configuration, state);
                self.feed(node, Event::DescriptorStored { ballot, state });
            }
            Task::Applied { node, through } => {
                self.node(node).applied = through;
                self.feed(node, Event::Applied { through });
            }
            Task::Decided { node, expected, configuration } => {
                match self.meta.propose(NodeId(node), expected, configuration) {
                    Some(configuration) => self.feed(node, Event::ProposalDecided { configuration }),
                    None => self.feed(node, Event::ProposalFailed),
                }
            }
            Task::ReadLog { node, peer, session, from, through } => {
                let mutations = self.node(node).read_log(from, through);
                self.feed(node, Event::LogRead { peer, session, mutations });
            }
            Task::Checkpoint { node, from, committed } => self.take_checkpoint(node, from, committed),
        }
    }

    /// The table of the primary, as it is now, in the place of the learner's copy, under a new incarnation.
    fn take_checkpoint(&mut self, number: u64, from: u64, committed: Decree) {
        let primary = self.node(from);
        let applied = primary.applied;
        if primary.replica.is_none() || applied < committed {
            return self.feed(number, Event::CheckpointFailed);
        }
        let configuration = self.node(number).replica.as_ref().expect("it asked").configuration().clone();
        self.end_streams_of(number);
        self.begin_learning(number, configuration, applied);
        self.write_line(&format!("  n{number} has put a checkpoint of {applied} in the place of its copy"));
    }

    pub(super) fn perform(&mut self, node: u64, effect: Effect) {
        match effect {
            Effect::Append { token, record } => self.tasks.push_back(Task::Logged { node, token, record }),
            Effect::StoreDescriptor { configuration, state } => {
                self.tasks.push_back(Task::Stored { node, configuration, state });
            }
            Effect::OpenStream { peer } => self.tasks.push_back(Task::Open { from: node, to: peer.0 }),
            Effect::CloseStream { session, .. } => self.close(node, session),
            Effect::Send { session, message, .. } => self.send(node, session, message),
            Effect::Apply { mutations } => {
                let through = mutations.last().expect("a batch is not empty").decree;
                self.tasks.push_back(Task::Applied { node, through });
            }
            Effect::ProposeConfiguration { expected_ballot: expected, configuration } => {
                self.tasks.push_back(Task::Decided { node, expected, configuration });
            }
            Effect::ReadLog { peer, session, from, through } => {
                self.tasks.push_back(Task::ReadLog { node, peer, session, from, through });
            }
            Effect::FetchCheckpoint { from, committed, .. } => {
                self.tasks.push_back(Task::Checkpoint { node, from: from.0, committed });
            }
            Effect::Faulted { status: Status::Damaged, .. } => self.damage(node),
            Effect::Reply { .. } | Effect::RoleChanged { .. } | Effect::Faulted { .. } => {}
        }
    }
}

impl Task {
    /// True for what happens inside a node and dies with it.
    fn belongs_to(&self, number: u64) -> bool {
        match self {
            Task::Logged { node, .. }
            | Task::Stored { node, .. }
            | Task::Applied { node, .. }
            | Task::Decided { node, .. }
            | Task::ReadLog { node, .. }
            | Task::Checkpoint { node, .. } => *node == number,
            Task::Open { from, .. } => *from == number,
            Task::Deliver { .. } | Task::Closed { .. } | Task::Beacon(_) => false,
        }
    }
}

fn identity(number: u64) -> ReplicaIdentity {
    let table = TableProperties {
        table: TableId(1),
        name: "scripts".to_owned(),
        partition_count: 4,
        replica_count: 3,
        durability: Durability::Synced,
    };
    ReplicaIdentity { cluster: ClusterId(7), node: NodeId(number), partition: PartitionId::new(1, 0), table }
}
