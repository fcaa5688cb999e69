//! A cluster in this process: meta servers and storage nodes that speak the real protocol over real sockets, keep rows
//! in a map, and misbehave on command.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

pub mod store;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pegasus_client::tls::{Authority, Identity, Role};
use pegasus_client::{Client, ClientOptions, Table};
use pegasus_rpc::{Alpn, Connection, Endpoint, EndpointOptions, FrameReader, Outbox, Runtime};
use pegasus_wire::messages::ErrorReply;
use pegasus_wire::messages::control::{
    ClusterReply, DiagnosePartitions, Diagnosis, ForceConfiguration, PartitionDiagnosis, ProposalReply, QueryTable,
    TableList, TableReply,
};
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Durability, Frame, FrameBuilder, FrameHeader, MessageKind, NodeId, NodeInfo,
    PartitionId, Status, TableId, TableProperties,
};

use store::Store;

/// What a server does with a request instead of answering it.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers with this status, perhaps with a hint.
    Status(Status, Option<SocketAddr>),
    /// Closes the connection.
    Close,
    /// Carries the request out and closes the connection.
    CloseAfter,
    /// Does not answer.
    Silence,
}

/// Certificates of one test cluster.
pub struct Tls {
    pub directory: tempfile::TempDir,
}

impl Tls {
    pub fn new() -> Tls {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::generate().unwrap();
        for role in [Role::Meta, Role::Replica, Role::Client] {
            authority.write_identity(directory.path(), role).unwrap();
        }
        Tls { directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn identity(&self, role: &str) -> Identity {
        let file = |suffix: &str| -> PathBuf { self.path().join(format!("{role}.{suffix}")) };
        Identity::load(&file("crt"), &file("key"), &self.path().join("ca.crt")).unwrap()
    }
}

/// Decides what to do with each request, and remembers what came.
#[derive(Default)]
pub struct Script {
    pub faults: VecDeque<Fault>,
    /// Applied to every request once the list of faults is used up.
    pub always: Option<Fault>,
    pub requests: Vec<MessageKind>,
}

type Answer = Arc<dyn Fn(&Frame, &mut Vec<u8>) + Send + Sync>;

/// A server of either kind.
pub struct Server {
    pub address: SocketAddr,
    pub script: Arc<Mutex<Script>>,
    endpoint: Endpoint,
    connections: Arc<Mutex<Vec<Connection>>>,
}

impl Server {
    fn start(identity: Identity, alpn: &'static [Alpn], answer: Answer) -> Server {
        let options = EndpointOptions { accepts: alpn, ..EndpointOptions::default() };
        let address = "127.0.0.1:0".parse().unwrap();
        let endpoint = Endpoint::bind(Runtime::tokio(), address, identity, options).unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let server = Server {
            address: endpoint.local_address(),
            script: script.clone(),
            endpoint: endpoint.clone(),
            connections: connections.clone(),
        };
        tokio::spawn(async move {
            while let Some(connection) = endpoint.accept().await {
                connections.lock().unwrap().push(connection.clone());
                tokio::spawn(serve_connection(connection, script.clone(), answer.clone()));
            }
        });
        server
    }

    /// A storage node.
    pub fn node(tls: &Tls, store: Arc<Store>) -> Server {
        let answer: Answer = Arc::new(move |frame, out| store.answer(frame, out));
        Server::start(tls.identity("replica"), &[Alpn::Data], answer)
    }

    /// A meta server.
    pub fn meta(tls: &Tls, state: Arc<Mutex<MetaState>>) -> Server {
        let answer: Answer = Arc::new(move |frame, out| state.lock().unwrap().answer(frame, out));
        Server::start(tls.identity("meta"), &[Alpn::Meta], answer)
    }

    /// Waits until a request of this kind has come.
    pub async fn asked(&self, kind: MessageKind, times: usize) {
        let patience = Instant::now() + Duration::from_secs(20);
        while self.requests(kind) < times {
            assert!(Instant::now() < patience, "{} of {times} {kind} came", self.requests(kind));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn fault(&self, fault: Fault) {
        self.script.lock().unwrap().faults.push_back(fault);
    }

    pub fn refuse(&self, times: usize, status: Status) {
        (0..times).for_each(|_| self.fault(Fault::Status(status, None)));
    }

    pub fn always(&self, fault: Option<Fault>) {
        self.script.lock().unwrap().always = fault;
    }

    /// How many requests of a kind have come.
    pub fn requests(&self, kind: MessageKind) -> usize {
        self.script.lock().unwrap().requests.iter().filter(|&&came| came == kind).count()
    }

    /// Ends the process: connections and port are gone.
    pub async fn close(&self) {
        self.endpoint.close().await;
    }

    /// Breaks the connections there are; new ones are taken.
    pub fn break_connections(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.close("told to"));
    }
}

async fn serve_connection(connection: Connection, script: Arc<Mutex<Script>>, answer: Answer) {
    while let Some((writer, reader)) = connection.accept().await {
        let outbox = Outbox::start(&Runtime::tokio(), writer);
        tokio::spawn(serve_stream(connection.clone(), reader, outbox, script.clone(), answer.clone()));
    }
}

async fn serve_stream(
    connection: Connection,
    mut reader: FrameReader,
    outbox: Outbox,
    script: Arc<Mutex<Script>>,
    answer: Answer,
) {
    while let Ok(Some(frame)) = reader.next().await {
        let fault = {
            let mut script = script.lock().unwrap();
            script.requests.push(frame.header.kind);
            script.faults.pop_front().or_else(|| script.always.clone())
        };
        match fault {
            None => drop(outbox.push(|out| answer(&frame, out))),
            Some(Fault::Silence) => {}
            Some(Fault::Close) => connection.close("told to"),
            Some(Fault::CloseAfter) => {
                answer(&frame, &mut Vec::new());
                connection.close("told to");
            }
            Some(Fault::Status(status, endpoint)) => {
                let error = ErrorReply { message: format!("told to say: {status}"), endpoint };
                let _sent = outbox.push(|out| FrameBuilder::append_error(out, &frame.header, status, &error));
            }
        }
    }
}

/// What the meta servers know.
pub struct MetaState {
    pub table: TableReply,
}

impl MetaState {
    fn answer(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        let header = FrameHeader::answer(frame.header.kind, frame.header.request_id, Status::Ok);
        match frame.header.kind {
            MessageKind::DIAGNOSE_PARTITIONS => FrameBuilder::append(out, header, &self.diagnose(frame), &[]),
            MessageKind::FORCE_CONFIGURATION => {
                let (status, reply) = self.force(&frame.decode().unwrap());
                FrameBuilder::append(out, FrameHeader { status, ..header }, &reply, &[]);
            }
            MessageKind::QUERY_CLUSTER => {
                let reply =
                    ClusterReply { cluster: ClusterId(1), meta_addresses: vec![], nodes: vec![], tables: vec![] };
                FrameBuilder::append(out, header, &reply, &[]);
            }
            MessageKind::QUERY_TABLE if frame.decode::<QueryTable>().unwrap().name != self.table.table.name => {
                let error = ErrorReply::new("there is no such table");
                FrameBuilder::append_error(out, &frame.header, Status::NoSuchTable, &error);
            }
            MessageKind::QUERY_TABLE | MessageKind::CREATE_TABLE => {
                FrameBuilder::append(out, header, &self.table, &[]);
            }
            MessageKind::LIST_TABLES => {
                FrameBuilder::append(out, header, &TableList { tables: vec![self.table.table.clone()] }, &[]);
            }
            other => panic!("a meta server was asked {other}"),
        }
    }

    /// Says that partition 0 is not whole.
    fn diagnose(&self, frame: &Frame) -> Diagnosis {
        let asked: DiagnosePartitions = frame.decode().unwrap();
        let case = PartitionDiagnosis {
            partition: PartitionId { table: self.table.table.table, index: 0 },
            table: asked.table.unwrap_or_else(|| "all".into()),
            configuration: self.table.partitions[0].clone(),
            replica_count: 2,
            unavailable: true,
            problems: vec!["it is a test".into()],
            waits_for: "nothing".into(),
        };
        Diagnosis { examined: self.table.table.partition_count, partitions: vec![case] }
    }

    fn force(&mut self, asked: &ForceConfiguration) -> (Status, ProposalReply) {
        let in_force = &mut self.table.partitions[asked.partition.index as usize];
        let ballot = asked.expected_ballot.next();
        let wanted = Configuration { ballot, primary: Some(asked.primary), secondaries: vec![] };
        let allowed = asked.accept_loss && asked.expected_ballot == in_force.ballot;
        if allowed {
            *in_force = wanted.clone();
        }
        let status = if *in_force == wanted { Status::Ok } else { Status::BallotConflict };
        (status, ProposalReply { configuration: in_force.clone() })
    }

    /// Makes the node with this number the primary of all partitions.
    pub fn appoint(&mut self, node: u64) {
        for configuration in &mut self.table.partitions {
            configuration.ballot = configuration.ballot.next();
            configuration.primary = Some(NodeId(node));
        }
    }
}

/// Two storage nodes over one store, a meta server, and a client. Node 1 is the primary of all partitions.
pub struct Cluster {
    pub tls: Tls,
    pub store: Arc<Store>,
    pub nodes: [Server; 2],
    pub meta: Server,
    pub meta_state: Arc<Mutex<MetaState>>,
    pub client: Client,
}

impl Cluster {
    pub async fn start(partition_count: u32) -> Cluster {
        let tls = Tls::new();
        let store = Arc::new(Store::default());
        let nodes = [Server::node(&tls, store.clone()), Server::node(&tls, store.clone())];
        let meta_state = Arc::new(Mutex::new(MetaState { table: route(partition_count, &nodes) }));
        let meta = Server::meta(&tls, meta_state.clone());
        let client = Client::connect(options(&tls, &[meta.address])).await.unwrap();
        Cluster { tls, store, nodes, meta, meta_state, client }
    }

    pub async fn table(&self) -> Table {
        self.client.table("temp").await.unwrap()
    }
}

/// Options with short timeouts, so that tests of timeouts are short.
pub fn options(tls: &Tls, meta: &[SocketAddr]) -> ClientOptions {
    let mut options = ClientOptions::new(meta.to_vec(), tls.path());
    options.operation_timeout = Duration::from_secs(10);
    options.attempt_timeout = Duration::from_millis(300);
    options
}

fn route(partition_count: u32, nodes: &[Server]) -> TableReply {
    let node = |(index, server): (usize, &Server)| NodeInfo {
        node: NodeId(index as u64 + 1),
        address: server.address,
        admin_address: server.address,
        cores: 1,
        alive: true,
    };
    TableReply {
        table: TableProperties {
            table: TableId(1),
            name: "temp".into(),
            partition_count,
            replica_count: 2,
            durability: Durability::Synced,
        },
        partitions: vec![
            Configuration { ballot: Ballot(2), primary: Some(NodeId(1)), secondaries: vec![NodeId(2)] };
            partition_count as usize
        ],
        nodes: nodes.iter().enumerate().map(node).collect(),
    }
}
