//! A cluster in this process: meta servers and storage nodes that speak the real protocol over real sockets, keep rows
//! in a map, and misbehave on command.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

pub mod meta;
mod reads;
pub mod store;
pub mod writes;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pegasus_client::tls::{Authority, Identity, Role};
use pegasus_client::{Client, ClientOptions, Table};
use pegasus_rpc::{Alpn, Connection, Endpoint, EndpointOptions, FrameReader, Outbox, Runtime};
use pegasus_wire::messages::ErrorReply;
use pegasus_wire::{Frame, FrameBuilder, MessageKind, NodeId, NodeInfo, PartitionId, Status, partition_index};

use meta::MetaState;
use store::{Node, Partition, Store, TEMP};

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
    pub fn node(tls: &Tls, node: Arc<Node>) -> Server {
        let answer: Answer = Arc::new(move |frame, out| node.answer(frame, out));
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

    /// How many requests have come.
    pub fn all_requests(&self) -> usize {
        self.script.lock().unwrap().requests.len()
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

/// Two storage nodes over one store, a meta server, and a client. Node 1 is the primary of all partitions.
pub struct Cluster {
    pub tls: Tls,
    pub store: Arc<Store>,
    /// What the nodes keep beside the rows.
    pub storage: [Arc<Node>; 2],
    pub nodes: [Server; 2],
    pub meta: Server,
    pub meta_state: Arc<Mutex<MetaState>>,
    pub client: Client,
}

impl Cluster {
    pub async fn start(partition_count: u32) -> Cluster {
        let tls = Tls::new();
        let store = Arc::new(Store::default());
        let storage = [1, 2].map(|number| Arc::new(Node::new(store.clone(), number)));
        let nodes = [0, 1].map(|index: usize| Server::node(&tls, storage[index].clone()));
        let infos = nodes.iter().enumerate().map(info).collect();
        let meta_state = Arc::new(Mutex::new(MetaState::new(partition_count, infos, store.clone())));
        let meta = Server::meta(&tls, meta_state.clone());
        let client = Client::connect(options(&tls, &[meta.address])).await.unwrap();
        Cluster { tls, store, storage, nodes, meta, meta_state, client }
    }

    pub async fn table(&self) -> Table {
        self.client.table("temp").await.unwrap()
    }

    /// The rows of the partition that holds a hash key.
    pub fn partition_of(&self, hash_key: &str) -> Partition {
        let count = self.meta_state.lock().unwrap().temp().table.partition_count;
        self.store.snapshot(PartitionId { table: TEMP, index: partition_index(hash_key.as_bytes(), b"", count) })
    }
}

/// Options with short timeouts, so that tests of timeouts are short.
pub fn options(tls: &Tls, meta: &[SocketAddr]) -> ClientOptions {
    let mut options = ClientOptions::new(meta.to_vec(), tls.path());
    options.operation_timeout = Duration::from_secs(10);
    options.attempt_timeout = Duration::from_millis(300);
    options
}

fn info((index, server): (usize, &Server)) -> NodeInfo {
    NodeInfo {
        node: NodeId(index as u64 + 1),
        address: server.address,
        admin_address: server.address,
        cores: 1,
        alive: true,
    }
}
