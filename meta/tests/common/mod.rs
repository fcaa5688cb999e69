//! A meta server on loopback with its own CA, and callers of every role.
// Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub, clippy::disallowed_methods)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use pegasus_meta::host::config::TlsConfig;
use pegasus_meta::host::{Config, Server};
use pegasus_rpc::{Alpn, Authority, Channel, Connection, Endpoint, Identity, Role, Runtime};
use pegasus_wire::messages::control;
use pegasus_wire::{ClusterId, Durability, Frame, FrameBuilder, FrameHeader, MessageKind, NodeId, Status};
use tempfile::TempDir;

/// Enough for anything that is not meant to wait.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A directory with certificates of all roles and room for a server's data.
pub struct Place {
    pub directory: TempDir,
}

impl Place {
    pub fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::generate().unwrap();
        authority.save(directory.path()).unwrap();
        for role in Role::ALL {
            authority.write_identity(directory.path(), role).unwrap();
        }
        Place { directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn config(&self) -> Config {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Config {
            listen: any,
            admin_listen: any,
            data_directory: self.path().join("data"),
            tls: TlsConfig {
                certificate: self.path().join("meta.crt"),
                key: self.path().join("meta.key"),
                ca: self.path().join("ca.crt"),
            },
            ..Config::default()
        }
    }

    pub async fn start(&self) -> Server {
        Server::start(&self.config()).await.unwrap()
    }

    pub fn endpoint(&self, role: Role) -> Endpoint {
        let identity = Identity::load_directory(self.path(), role).unwrap();
        Endpoint::client(Runtime::tokio(), identity).unwrap()
    }

    /// A connected caller of this role.
    pub async fn caller(&self, role: Role, server: SocketAddr) -> Caller {
        let endpoint = self.endpoint(role);
        let connection = endpoint.connect(server, Role::Meta, Alpn::Meta).await.unwrap();
        let channel = Channel::open(&Runtime::tokio(), &connection).await.unwrap();
        Caller { channel, connection, endpoint }
    }
}

/// One connection to the meta server with one call stream.
pub struct Caller {
    pub channel: Channel,
    pub connection: Connection,
    pub endpoint: Endpoint,
}

/// Sends one message and waits for its answer.
macro_rules! call {
    ($caller:expr, $kind:ident, $message:expr) => {{
        let message = $message;
        let deadline = std::time::Instant::now() + $crate::common::PATIENCE;
        let build = |out: &mut Vec<u8>, header| pegasus_wire::FrameBuilder::append(out, header, &message, &[]);
        $caller.channel.call(pegasus_wire::MessageKind::$kind, deadline, build).await.unwrap()
    }};
}
pub(crate) use call;

impl Caller {
    /// Sends bytes that may be no message at all.
    pub async fn call_raw(&self, kind: MessageKind, body: &[u8]) -> Frame {
        let build = |out: &mut Vec<u8>, header: FrameHeader| raw_frame(out, header, body);
        self.channel.call(kind, Instant::now() + PATIENCE, build).await.unwrap()
    }

    /// Registers a node that listens at this port and holds nothing.
    pub async fn register(&self, node: u64, port: u16) -> ClusterId {
        self.register_with(node, port, &[]).await
    }

    /// Registers a node with what it holds.
    pub async fn register_with(&self, node: u64, port: u16, replicas: &[control::ReplicaReport]) -> ClusterId {
        let message = control::RegisterNode { replicas: replicas.to_vec(), ..registration(node, port) };
        let answer = call!(self, REGISTER_NODE, message);
        assert_eq!(answer.header.status, Status::Ok, "{:?}", answer.error());
        answer.decode::<control::Registered>().unwrap().cluster
    }

    pub async fn watch(&self, node: u64, revision: u64, wait_ms: u32) -> control::Assignments {
        let message = control::WatchAssignments { node: NodeId(node), revision, wait_ms };
        let answer = call!(self, WATCH_ASSIGNMENTS, message);
        assert_eq!(answer.header.status, Status::Ok, "{:?}", answer.error());
        answer.decode().unwrap()
    }

    pub async fn cluster(&self) -> control::ClusterReply {
        let answer = call!(self, QUERY_CLUSTER, control::QueryCluster);
        assert_eq!(answer.header.status, Status::Ok, "{:?}", answer.error());
        answer.decode().unwrap()
    }
}

pub fn registration(node: u64, port: u16) -> control::RegisterNode {
    control::RegisterNode {
        cluster: None,
        node: NodeId(node),
        address: (Ipv4Addr::LOCALHOST, port).into(),
        admin_address: (Ipv4Addr::LOCALHOST, port + 100).into(),
        cores: 1,
        replicas: Vec::new(),
    }
}

pub fn table(name: &str, replica_count: u8) -> control::CreateTable {
    control::CreateTable {
        name: name.to_owned(),
        partition_count: 4,
        replica_count,
        durability: Durability::Synced,
        if_not_exists: false,
    }
}

/// A frame whose body is these bytes.
pub fn raw_frame(out: &mut Vec<u8>, header: FrameHeader, body: &[u8]) {
    // An empty frame whose attachment is the body; then the header is told that there is no attachment.
    let start = out.len();
    FrameBuilder::append_empty(out, header, body);
    out[start + 20..start + 24].fill(0);
}

/// The explanation in an answer that is an error.
pub fn explanation(answer: &Frame) -> String {
    answer.error().expect("an error explains itself").message
}
