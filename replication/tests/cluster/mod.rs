//! A small cluster for scripts: real replicas of one partition, and hosts whose every completion waits in one list
//! until the script lets it happen. What happens is written down line by line.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use bytes::Bytes;
use pegasus_replication::{
    AppendRecord, AppendToken, Effect, Event, PeerMessage, RecordKind, Recovered, Replica, ReplicaIdentity,
    ReplicaLimits, RequestToken, Session,
};
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Decree, Durability, Mutation, MutationKind, NodeId, PartitionId, Status, TableId,
    TableProperties,
};

/// A completion that has not happened yet.
#[derive(Debug)]
enum Task {
    Open { from: u64, to: u64 },
    Deliver { stream: usize, to_member: bool, message: PeerMessage },
    Closed { stream: usize, to_member: bool },
    Logged { node: u64, token: AppendToken, record: AppendRecord },
    Stored { node: u64, configuration: Configuration },
    Applied { node: u64, through: Decree },
    Decided { node: u64, expected: Ballot, configuration: Configuration },
}

/// A replication stream; its sessions are named when the ends come to know it.
#[derive(Debug)]
struct Stream {
    primary: u64,
    member: u64,
    sessions: [Option<Session>; 2],
    closed: [bool; 2],
}

/// What a node keeps when it crashes, and its replica while it runs.
struct Node {
    replica: Option<Replica>,
    descriptor: Configuration,
    records: BTreeMap<Decree, Mutation>,
    committed: Decree,
    applied: Decree,
    sessions: u64,
    damaged: bool,
}

/// The cluster.
pub(crate) struct Cluster {
    nodes: BTreeMap<u64, Node>,
    meta: Configuration,
    streams: Vec<Stream>,
    tasks: VecDeque<Task>,
    held: BTreeSet<String>,
    limits: ReplicaLimits,
    requests: u64,
    transcript: String,
}

impl Cluster {
    /// Nobody there yet.
    pub(crate) fn new() -> Cluster {
        Cluster {
            nodes: BTreeMap::new(),
            meta: Configuration::default(),
            streams: Vec::new(),
            tasks: VecDeque::new(),
            held: BTreeSet::new(),
            limits: ReplicaLimits::default(),
            requests: 0,
            transcript: String::new(),
        }
    }

    /// Runs a script and gives its transcript.
    pub(crate) fn play(mut self, script: &str) -> String {
        for line in script.lines() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                let _ = writeln!(self.transcript, "{line}");
                continue;
            }
            let _ = writeln!(self.transcript, "> {line}");
            let words: Vec<&str> = line.split_whitespace().collect();
            self.command(&words);
        }
        self.transcript
    }

    fn command(&mut self, words: &[&str]) {
        match words {
            ["limits", "window", mutations, "flight", bytes] => {
                self.limits.window_mutations_max = mutations.parse().unwrap();
                self.limits.flight_bytes_max = bytes.parse().unwrap();
            }
            ["create", count] => self.create(count.parse().unwrap()),
            ["assign", node] => self.feed(node_number(node), Event::Assigned(self.meta.clone())),
            ["assign", node, "ballot", ballot] => {
                let configuration = Configuration { ballot: Ballot(ballot.parse().unwrap()), ..self.meta.clone() };
                self.feed(node_number(node), Event::Assigned(configuration));
            }
            ["force", node] => self.force(node_number(node)),
            ["write", node, payload] => self.write(node_number(node), payload),
            ["hold", rest @ ..] => drop(self.held.insert(rest.join(" "))),
            ["release", rest @ ..] => assert!(self.held.remove(&rest.join(" ")), "it is not held"),
            ["run"] => self.run(),
            ["tick", node] => self.feed(node_number(node), Event::Tick),
            ["break", one, other] => self.break_streams(node_number(one), node_number(other)),
            ["crash", node] => self.crash(node_number(node)),
            ["start", node] => self.start(node_number(node)),
            ["damage", node] => self.node(node_number(node)).damaged = true,
            ["lose", node, "from", decree] => self.lose(node_number(node), Decree(decree.parse().unwrap())),
            ["shutdown", node] => self.feed(node_number(node), Event::Shutdown),
            ["unanswered", node] => self.unanswered(node_number(node)),
            ["prepare", member, decree, "ballot", ballot] => {
                let (decree, ballot) = (Decree(decree.parse().unwrap()), Ballot(ballot.parse().unwrap()));
                self.forge_prepare(node_number(member), decree, ballot);
            }
            ["show"] => self.show(),
            other => panic!("no such command: {other:?}"),
        }
    }

    fn create(&mut self, count: u64) {
        self.meta = Configuration {
            ballot: Ballot::ASSIGNMENT,
            primary: Some(NodeId(1)),
            secondaries: (2..=count).map(NodeId).collect(),
        };
        for number in 1..=count {
            let node = Node {
                replica: None,
                descriptor: self.meta.clone(),
                records: BTreeMap::new(),
                committed: Decree(0),
                applied: Decree(0),
                sessions: 0,
                damaged: false,
            };
            self.nodes.insert(number, node);
            self.start(number);
        }
    }

    fn start(&mut self, number: u64) {
        let limits = self.limits;
        let node = self.node(number);
        let recovered = Recovered {
            configuration: node.descriptor.clone(),
            applied: node.applied,
            committed: node.committed.max(node.applied),
            mutations: node.records.range(node.applied.next()..).map(|(_, mutation)| mutation.clone()).collect(),
            timestamp_micros: 0,
            damaged: node.damaged,
        };
        node.replica = Some(Replica::with_limits(identity(number), recovered, limits));
    }

    /// What was handed to the log and not completed is gone.
    fn crash(&mut self, number: u64) {
        self.node(number).replica = None;
        self.tasks.retain(|task| !task.belongs_to(number));
        let streams: Vec<usize> = self.open_streams(|stream| stream.primary == number || stream.member == number);
        for stream in streams {
            let to_member = self.streams[stream].primary == number;
            self.streams[stream].closed[usize::from(!to_member)] = true;
            self.tasks.push_back(Task::Closed { stream, to_member });
        }
    }

    /// The log of a node that is down loses its end: what `written` durability may do when a machine fails.
    fn lose(&mut self, number: u64, from: Decree) {
        self.node(number).records.retain(|decree, _| *decree < from);
    }

    fn write(&mut self, number: u64, payload: &str) {
        self.requests += 1;
        let event = Event::Propose {
            request: RequestToken(self.requests),
            timestamp_micros: 1000 * self.requests,
            kind: MutationKind::Write,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        };
        self.feed(number, event);
    }

    fn force(&mut self, number: u64) {
        let mut members: Vec<NodeId> = self.meta.members().filter(|node| *node != NodeId(number)).collect();
        members.sort();
        self.meta =
            Configuration { ballot: self.meta.ballot.next(), primary: Some(NodeId(number)), secondaries: members };
    }

    fn unanswered(&mut self, number: u64) {
        self.tasks.retain(|task| !matches!(task, Task::Decided { node, .. } if *node == number));
        self.feed(number, Event::ProposalFailed);
    }

    /// A prepare on the stream the member listens to, as a confused primary might send it.
    fn forge_prepare(&mut self, member: u64, decree: Decree, ballot: Ballot) {
        let stream = *self.open_streams(|stream| stream.member == member).last().expect("a stream to the member");
        let message = PeerMessage::Prepare {
            prepare: pegasus_wire::messages::peer::Prepare {
                ballot,
                decree,
                committed: Decree(0),
                timestamp_micros: 1,
                mutation_kind: MutationKind::Write as u8,
            },
            payload: Bytes::from_static(b"forged"),
        };
        self.tasks.push_back(Task::Deliver { stream, to_member: true, message });
    }

    fn break_streams(&mut self, one: u64, other: u64) {
        let between = |stream: &Stream| [(one, other), (other, one)].contains(&(stream.primary, stream.member));
        for stream in self.open_streams(between) {
            self.tasks.retain(|task| !matches!(task, Task::Deliver { stream: of, .. } if *of == stream));
            self.tasks.push_back(Task::Closed { stream, to_member: false });
            self.tasks.push_back(Task::Closed { stream, to_member: true });
        }
    }

    fn open_streams(&self, wanted: impl Fn(&Stream) -> bool) -> Vec<usize> {
        let streams = self.streams.iter().enumerate();
        streams.filter(|(_, stream)| wanted(stream) && stream.closed != [true; 2]).map(|(id, _)| id).collect()
    }

    /// Lets everything happen that is not held, oldest first, until nothing is left.
    fn run(&mut self) {
        while let Some(index) = self.tasks.iter().position(|task| !self.held.contains(&self.category(task))) {
            let task = self.tasks.remove(index).expect("the index was just found");
            self.complete(task);
        }
    }

    /// The name by which a script holds tasks of this kind.
    fn category(&self, task: &Task) -> String {
        match task {
            Task::Open { from, to } => format!("open n{from} n{to}"),
            Task::Deliver { stream, to_member, .. } | Task::Closed { stream, to_member } => {
                let Stream { primary, member, .. } = &self.streams[*stream];
                let (from, to) = if *to_member { (primary, member) } else { (member, primary) };
                format!("net n{from} n{to}")
            }
            Task::Logged { node, .. } => format!("log n{node}"),
            Task::Stored { node, .. } => format!("descriptor n{node}"),
            Task::Applied { node, .. } => format!("table n{node}"),
            Task::Decided { .. } => "meta".to_owned(),
        }
    }

    fn complete(&mut self, task: Task) {
        match task {
            Task::Open { from, to } => self.open(from, to),
            Task::Deliver { stream, to_member, message } => self.deliver(stream, to_member, message),
            Task::Closed { stream, to_member } => {
                let end = usize::from(to_member);
                let (node, peer) = self.ends(stream, to_member);
                if std::mem::replace(&mut self.streams[stream].closed[end], true) {
                    return;
                }
                if let Some(session) = self.streams[stream].sessions[end] {
                    self.feed(node, Event::StreamClosed { peer: NodeId(peer), session });
                }
            }
            Task::Logged { node, token, record } => {
                self.keep(node, record);
                self.feed(node, Event::Logged { through: token });
            }
            Task::Stored { node, configuration } => {
                let ballot = configuration.ballot;
                self.node(node).descriptor = configuration;
                self.feed(node, Event::DescriptorStored { ballot });
            }
            Task::Applied { node, through } => {
                self.node(node).applied = through;
                self.feed(node, Event::Applied { through });
            }
            Task::Decided { node, expected, configuration } => {
                if self.meta.ballot == expected {
                    self.meta = configuration;
                }
                self.feed(node, Event::ProposalDecided { configuration: self.meta.clone() });
            }
        }
    }

    fn open(&mut self, from: u64, to: u64) {
        if self.node(to).replica.is_none() {
            return self.feed(from, Event::StreamFailed { peer: NodeId(to) });
        }
        let session = self.next_session(from);
        self.streams.push(Stream { primary: from, member: to, sessions: [Some(session), None], closed: [false; 2] });
        self.feed(from, Event::StreamOpened { peer: NodeId(to), session });
    }

    fn deliver(&mut self, stream: usize, to_member: bool, message: PeerMessage) {
        let end = usize::from(to_member);
        let (node, peer) = self.ends(stream, to_member);
        if self.streams[stream].closed[end] {
            return;
        }
        let session = match self.streams[stream].sessions[end] {
            Some(session) => session,
            None => self.next_session(node),
        };
        self.streams[stream].sessions[end] = Some(session);
        self.feed(node, Event::Received { peer: NodeId(peer), session, message });
    }

    fn ends(&self, stream: usize, to_member: bool) -> (u64, u64) {
        let Stream { primary, member, .. } = self.streams[stream];
        if to_member { (member, primary) } else { (primary, member) }
    }

    /// What recovery would find.
    fn keep(&mut self, number: u64, record: AppendRecord) {
        let node = self.node(number);
        node.committed = node.committed.max(record.committed);
        match record.kind {
            RecordKind::Truncate => {
                node.records.retain(|decree, known| *decree < record.decree || known.ballot >= record.ballot);
            }
            RecordKind::Mutation(kind) => {
                let AppendRecord { ballot, decree, timestamp_micros, payload, .. } = record;
                node.records.insert(decree, Mutation { ballot, decree, timestamp_micros, kind, payload });
            }
        }
    }

    fn feed(&mut self, number: u64, event: Event) {
        let _ = writeln!(self.transcript, "  n{number} <- {event}");
        let mut effects = Vec::new();
        let Some(replica) = &mut self.node(number).replica else { return };
        replica.handle(event, &mut effects);
        for effect in effects {
            let _ = writeln!(self.transcript, "       {effect}");
            self.perform(number, effect);
        }
    }

    fn perform(&mut self, node: u64, effect: Effect) {
        match effect {
            Effect::Append { token, record } => self.tasks.push_back(Task::Logged { node, token, record }),
            Effect::StoreDescriptor { configuration } => self.tasks.push_back(Task::Stored { node, configuration }),
            Effect::OpenStream { peer } => self.tasks.push_back(Task::Open { from: node, to: peer.0 }),
            Effect::CloseStream { session, .. } => {
                if let Some((stream, end)) = self.find(node, session) {
                    self.streams[stream].closed[end] = true;
                    self.tasks.push_back(Task::Closed { stream, to_member: end == 0 });
                }
            }
            Effect::Send { session, message, .. } => {
                if let Some((stream, end)) = self.find(node, session) {
                    self.tasks.push_back(Task::Deliver { stream, to_member: end == 0, message });
                }
            }
            Effect::Apply { mutations } => {
                let through = mutations.last().expect("a batch is not empty").decree;
                self.tasks.push_back(Task::Applied { node, through });
            }
            Effect::ProposeConfiguration { expected_ballot: expected, configuration } => {
                self.tasks.push_back(Task::Decided { node, expected, configuration });
            }
            Effect::Faulted { status: Status::Damaged, .. } => self.node(node).damaged = true,
            Effect::Reply { .. } | Effect::RoleChanged { .. } | Effect::Faulted { .. } => {}
        }
    }

    fn find(&self, node: u64, session: Session) -> Option<(usize, usize)> {
        let end_of = |stream: &Stream| {
            let ends = [stream.primary, stream.member];
            (0..2).find(|end| ends[*end] == node && stream.sessions[*end] == Some(session))
        };
        self.streams.iter().enumerate().find_map(|(id, stream)| end_of(stream).map(|end| (id, end)))
    }

    fn next_session(&mut self, number: u64) -> Session {
        let node = self.node(number);
        node.sessions += 1;
        Session(node.sessions)
    }

    fn show(&mut self) {
        for (number, node) in &self.nodes {
            let text = match &node.replica {
                Some(replica) => replica.describe().to_string(),
                None => "down".to_owned(),
            };
            let _ = writeln!(self.transcript, "  n{number} {text}");
        }
    }

    fn node(&mut self, number: u64) -> &mut Node {
        self.nodes.get_mut(&number).expect("a node of the script")
    }
}

impl Task {
    /// True for what happens inside a node and dies with it.
    fn belongs_to(&self, number: u64) -> bool {
        match self {
            Task::Logged { node, .. }
            | Task::Stored { node, .. }
            | Task::Applied { node, .. }
            | Task::Decided { node, .. } => *node == number,
            Task::Open { from, .. } => *from == number,
            Task::Deliver { .. } | Task::Closed { .. } => false,
        }
    }
}

fn node_number(word: &str) -> u64 {
    word.trim_start_matches('n').parse().expect("a node is written n1, n2, ..")
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
