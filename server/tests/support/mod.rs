//! Real processes for tests of the storage node: a meta server and nodes, on ports of their own, with their own
//! certificates; and a connection that sends whatever a test wants.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod operations;
pub(crate) mod small_disk;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use pegasus_rpc::{Alpn, Authority, Channel, Connection, Endpoint, Identity, Role, Runtime};
use pegasus_wire::messages::control::{CreateTable, TableReply};
use pegasus_wire::messages::data::{Get, RowOperation, Write as WriteMessage};
use pegasus_wire::{Durability, Frame, FrameBuilder, FrameHeader, MessageKind, PartitionId, Status};
use tempfile::TempDir;

/// A bound on everything that is awaited; far above what it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at something that tells nobody when it changes.
const PAUSE: Duration = Duration::from_millis(10);
/// Ports of one scene.
const PORTS: u16 = 16;
/// Below the ports that the kernel hands out for outgoing connections.
const FIRST_PORT: u16 = 25000;

/// A directory with certificates, and a range of ports.
pub(crate) struct Scene {
    directory: TempDir,
    port: u16,
}

impl Scene {
    /// Scenes of tests that run at once need numbers of their own.
    pub(crate) fn new(number: u16) -> Scene {
        let directory = tempfile::tempdir().expect("a directory");
        let tls = directory.path().join("tls");
        let authority = Authority::generate().expect("an authority");
        authority.save(&tls).expect("saved");
        for role in Role::ALL {
            authority.write_identity(&tls, role).expect("written");
        }
        Scene { directory, port: FIRST_PORT + number * PORTS }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn identity(&self, role: Role) -> Identity {
        Identity::load_directory(&self.path("tls"), role).expect("an identity")
    }

    pub(crate) fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port + port))
    }

    pub(crate) fn meta_address(&self) -> SocketAddr {
        self.address(0)
    }

    /// Core 0 of the node.
    pub(crate) fn node_address(&self) -> SocketAddr {
        self.address(4)
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.address(3)
    }

    /// Starts a meta server and waits until it serves.
    pub(crate) fn start_meta(&self) -> Process {
        let text = format!(
            "listen = \"{}\"\nadmin_listen = \"{}\"\ndata_directory = {:?}\n{}",
            self.meta_address(),
            self.address(1),
            self.path("meta"),
            self.tls("meta")
        );
        let config = self.path("meta.toml");
        fs::write(&config, text).expect("written");
        let program = replica_program().with_file_name("pegasus-meta");
        assert!(program.exists(), "{} is missing: build the workspace in this profile first", program.display());
        let mut command = Command::new(program);
        command.arg("--config").arg(config);
        let meta = Process::start(command, self.path("meta.log"));
        meta.wait_until_ready();
        meta
    }

    fn tls(&self, role: &str) -> String {
        let file = |name: String| self.path("tls").join(name);
        let (certificate, key) = (file(format!("{role}.crt")), file(format!("{role}.key")));
        format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\nca = {:?}\n", file("ca.crt".to_owned()))
    }

    /// Writes the configuration of a node with one core and small logs, changed by `change`.
    pub(crate) fn node_config(&self, name: &str, change: impl FnOnce(&mut toml::Table)) -> PathBuf {
        let text = format!(
            "name = \"{name}\"\nlisten = \"{}\"\nadmin_listen = \"{}\"\ncores = 1\ndata_directory = {:?}\n\
             meta_servers = [\"{}\"]\n{}[log]\nsegment_bytes = 4194304\nbudget_bytes = 20971520\n[storage]\n",
            self.node_address(),
            self.admin_address(),
            self.path("data"),
            self.meta_address(),
            self.tls("replica")
        );
        let mut table: toml::Table = toml::from_str(&text).expect("TOML");
        change(&mut table);
        let path = self.path(&format!("{name}.toml"));
        fs::write(&path, toml::to_string(&table).expect("TOML")).expect("written");
        path
    }

    /// Starts a node and waits until it is ready.
    pub(crate) fn start_node(&self, config: &Path) -> Process {
        let node = Process::start(node_command(config), self.path("node.log"));
        node.wait_until_ready();
        node
    }

    /// Runs a node that must not come up: it ends by itself, as a failure and not by a signal, and does not panic.
    /// Gives what it said.
    pub(crate) fn failed_start(&self, command: Command) -> String {
        let mut node = Process::start(command, self.path("failed.log"));
        let status = node.wait_for_end();
        let log = node.log();
        fs::remove_file(self.path("failed.log")).expect("removed");
        assert_eq!(status.code(), Some(1), "{status}: {log}");
        assert!(!log.contains("panick"), "{log}");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.starts_with("pegasus-replica: "), "the last line does not tell: {log}");
        last.to_owned()
    }

    /// GET from the node's administration port: status and body.
    pub(crate) fn admin(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin_address()).expect("the administration port");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    /// A client's connection to the node's only core.
    pub(crate) async fn caller(&self) -> Caller {
        let endpoint = Endpoint::client(Runtime::tokio(), self.identity(Role::Client)).expect("an endpoint");
        eventually("a connection to the node", Instant::now() + PATIENCE, async || {
            let connected = Caller::connect(&endpoint, self.node_address(), Role::Replica, Alpn::Data).await;
            connected.map_err(|error| error.to_string())
        })
        .await
    }

    /// Makes a table on the one node, once it has arrived, and waits until it serves.
    pub(crate) async fn make_table(&self, partition_count: u32) -> TableReply {
        self.make_named_table("table", partition_count).await
    }

    pub(crate) async fn make_named_table(&self, name: &str, partition_count: u32) -> TableReply {
        let endpoint = Endpoint::client(Runtime::tokio(), self.identity(Role::Client)).expect("an endpoint");
        let meta =
            Caller::connect(&endpoint, self.meta_address(), Role::Meta, Alpn::Meta).await.expect("the meta server");
        let question = CreateTable {
            name: name.to_owned(),
            partition_count,
            replica_count: 1,
            durability: Durability::Synced,
            if_not_exists: true,
        };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &question, &[]);
        let made = meta.call_until_not(MessageKind::CREATE_TABLE, &[Status::NotEnoughNodes], build).await;
        let table: TableReply = made.decode().expect("a table");
        let node = self.caller().await;
        for index in 0..partition_count {
            node.wait_until_serving(PartitionId::new(table.table.table.0, index)).await;
        }
        table
    }
}

/// The program under test.
pub(crate) fn replica_program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_pegasus-replica"))
}

pub(crate) fn node_command(config: &Path) -> Command {
    let mut command = Command::new(replica_program());
    command.arg("--config").arg(config);
    command
}

/// A process that ends with the test, however that ends.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it logs is appended to a file.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Process {
        let file = File::options().create(true).append(true).open(&log).expect("a log file");
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = child.stdout.take().expect("a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // The receiver is gone when the test is over.
            BufReader::new(output).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok());
        });
        Process { child, lines, log }
    }

    pub(crate) fn wait_until_ready(&self) {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => assert!(line.starts_with("ready "), "{line}"),
            Err(error) => panic!("not ready ({error}): {}", self.log()),
        }
    }

    /// Waits until it is ready, or has ended by itself: then gives how.
    pub(crate) fn wait_until_ready_or_ended(&mut self) -> Option<ExitStatus> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                assert!(line.starts_with("ready "), "{line}");
                None
            }
            Err(RecvTimeoutError::Disconnected) => Some(self.child.wait().expect("its status")),
            Err(RecvTimeoutError::Timeout) => panic!("neither ready nor ended: {}", self.log()),
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        // Its standard output closes when it ends.
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().expect("its status"),
                Err(RecvTimeoutError::Timeout) => panic!("it still runs: {}", self.log()),
            }
        }
    }

    pub(crate) fn kill(mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        self.child.wait().expect("its status");
    }

    /// Asks it to stop and waits until it has.
    pub(crate) fn stop(mut self) {
        // SAFETY: the call takes two numbers; the process is a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) }, 0);
        let status = self.wait_for_end();
        assert!(status.success(), "{status}: {}", self.log());
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_none()
    }

    /// What it and those before it with this file have logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- end of {}\n{}", self.log.display(), lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection and a channel on it.
pub(crate) struct Caller {
    pub(crate) connection: Connection,
    channel: Channel,
}

impl Caller {
    pub(crate) async fn connect(
        endpoint: &Endpoint,
        address: SocketAddr,
        role: Role,
        alpn: Alpn,
    ) -> Result<Caller, pegasus_rpc::RpcError> {
        let connection = endpoint.connect(address, role, alpn).await?;
        let channel = Channel::open(&Runtime::tokio(), &connection).await?;
        Ok(Caller { connection, channel })
    }

    pub(crate) async fn call(&self, kind: MessageKind, build: impl FnOnce(&mut Vec<u8>, FrameHeader)) -> Frame {
        self.channel.call(kind, Instant::now() + PATIENCE, build).await.expect("an answer")
    }

    /// Calls again while the answer has one of the statuses.
    pub(crate) async fn call_until_not(
        &self,
        kind: MessageKind,
        statuses: &[Status],
        build: impl Fn(&mut Vec<u8>, FrameHeader),
    ) -> Frame {
        eventually("another status", Instant::now() + PATIENCE, async || {
            let frame = self.call(kind, &build).await;
            let status = frame.header.status;
            if statuses.contains(&status) { Err(format!("{kind}: {status:?}: {}", reason(&frame))) } else { Ok(frame) }
        })
        .await
    }

    pub(crate) async fn wait_until_serving(&self, partition: PartitionId) {
        // No key belongs to every partition: one that serves says so.
        let get = |out: &mut Vec<u8>, header| {
            FrameBuilder::append(out, header, &Get { partition, hash_key: b"k", sort_key: b"", no_value: false }, &[]);
        };
        let starting = [Status::NoSuchPartition, Status::NotServing];
        self.call_until_not(MessageKind::GET, &starting, get).await;
    }

    pub(crate) async fn set(&self, partition: PartitionId, hash_key: &[u8], value: &[u8]) -> Frame {
        let operations = [RowOperation::Put { sort_key: b"s", value, expiry_seconds: 0 }];
        self.write(partition, hash_key, &operations).await
    }

    pub(crate) async fn write(
        &self,
        partition: PartitionId,
        hash_key: &[u8],
        operations: &[RowOperation<'_>],
    ) -> Frame {
        let write = WriteMessage { partition, hash_key, operations };
        self.call(MessageKind::WRITE, |out, header| FrameBuilder::append(out, header, &write, &[])).await
    }

    pub(crate) async fn get(&self, partition: PartitionId, hash_key: &[u8], sort_key: &[u8]) -> Frame {
        let get = Get { partition, hash_key, sort_key, no_value: false };
        self.call(MessageKind::GET, |out, header| FrameBuilder::append(out, header, &get, &[])).await
    }
}

/// Looks again, after a pause, until there is what is waited for; only for what cannot be awaited. Panics when there is
/// still none at the deadline, with why.
pub(crate) async fn eventually<T>(
    what: &str,
    deadline: Instant,
    mut condition: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    loop {
        match condition().await {
            Ok(found) => return found,
            Err(missing) => assert!(Instant::now() < deadline, "there is still not {what}: {missing}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

pub(crate) fn contains_all(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

/// Points a configuration to a data directory.
pub(crate) fn set_directory(table: &mut toml::Table, directory: &Path) {
    table.insert("data_directory".to_owned(), directory.to_str().expect("UTF-8").into());
}

/// The explanation in an answer.
pub(crate) fn reason(frame: &Frame) -> String {
    frame.error().map(|error| error.message).unwrap_or_default()
}
