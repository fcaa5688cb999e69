//! A stand-in for a cluster: one meta server and one storage node in a thread of the test, which keep rows in a map.
//! Everything the client says to a cluster during a measurement is answered; nothing is replicated or stored. It can be
//! told to lie, to see whether that is noticed.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use bytes::Bytes;
use pegasus_rpc::{
    Alpn, Authority, Connection, Endpoint, EndpointOptions, FrameReader, Identity, Outbox, Role, Runtime,
};
use pegasus_wire::messages::control::{
    ClusterReply, CreateTable, QueryTable, TableDescription, TableList, TableReply, TableState,
};
use pegasus_wire::messages::data::{ArchivedGet, ArchivedRowOperation, ArchivedWrite, GetReply, Rows, WriteReply};
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Decree, Frame, FrameBuilder, FrameHeader, MessageKind, NodeId, NodeInfo, Status,
    TableId, TableProperties,
};
use tokio::sync::oneshot;

/// Name of the stand-in's thread.
pub(crate) const THREAD_NAME: &str = "stub-0";

/// The running stand-in; dropping it ends it.
pub(crate) struct Stub {
    pub(crate) meta: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    tables: Vec<TableProperties>,
    rows: BTreeMap<Vec<u8>, Bytes>,
    /// What each row was before it was written last.
    old_rows: BTreeMap<Vec<u8>, Bytes>,
    lie: Option<Lie>,
    requests: u64,
}

/// What is wrong with one answer in [`LIE_EVERY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// A read finds the value before the last.
    StaleRead,
    /// A write is acknowledged and forgotten.
    LostWrite,
    /// A read finds bytes that nobody wrote.
    Damage,
}

/// Answers from one lie to the next.
const LIE_EVERY: u64 = 200;

impl Stub {
    /// Starts it and writes the files of its clients into `tls`.
    pub(crate) fn start(tls: &Path) -> Stub {
        let authority = Authority::generate().unwrap();
        authority.write_identity(tls, Role::Client).unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let (ready, wait_ready) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let shared = state.clone();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let node = bind(&authority, Role::Replica, &[Alpn::Data]);
                let meta = bind(&authority, Role::Meta, &[Alpn::Meta]);
                ready.send(meta.local_address()).unwrap();
                let address = node.local_address();
                tokio::select! {
                    _ = stopped => {}
                    () = accept(node, address, shared.clone()) => {}
                    () = accept(meta, address, shared) => {}
                }
            });
        };
        let thread = thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(serve).unwrap();
        Stub { meta: wait_ready.recv().unwrap(), state, stop: Some(stop), thread: Some(thread) }
    }

    /// From now on it lies.
    pub(crate) fn lie(&self, lie: Lie) {
        self.state.lock().unwrap().lie = Some(lie);
    }

    /// Rows it holds, of all tables together: a hash key is one row, whichever table it is in.
    pub(crate) fn row_count(&self) -> usize {
        self.state.lock().unwrap().rows.len()
    }

    /// Tables that were made.
    pub(crate) fn tables(&self) -> Vec<TableProperties> {
        self.state.lock().unwrap().tables.clone()
    }
}

impl State {
    fn read(&mut self, key: &[u8]) -> Option<Bytes> {
        let value = self.rows.get(key).cloned();
        if self.is_to_lie(Lie::StaleRead) {
            return self.old_rows.get(key).cloned().or(value);
        }
        if self.is_to_lie(Lie::Damage) {
            return value.map(|value| value.iter().rev().map(|byte| byte ^ 1).collect());
        }
        value
    }

    fn is_to_lie(&mut self, lie: Lie) -> bool {
        if self.lie != Some(lie) {
            return false;
        }
        self.requests += 1;
        self.requests.is_multiple_of(LIE_EVERY)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn bind(authority: &Authority, role: Role, accepts: &'static [Alpn]) -> Endpoint {
    let issued = authority.issue(role).unwrap();
    let identity = Identity::from_pem(&issued.certificate, &issued.key, authority.certificate()).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    Endpoint::bind(Runtime::tokio(), address, identity, EndpointOptions { cluster: None, accepts }).unwrap()
}

async fn accept(endpoint: Endpoint, node: SocketAddr, state: Arc<Mutex<State>>) {
    while let Some(connection) = endpoint.accept().await {
        tokio::spawn(serve(connection, node, state.clone()));
    }
}

async fn serve(connection: Connection, node: SocketAddr, state: Arc<Mutex<State>>) {
    while let Some((writer, reader)) = connection.accept().await {
        let outbox = Outbox::start(&Runtime::tokio(), writer);
        tokio::spawn(answer_all(reader, outbox, node, state.clone()));
    }
}

async fn answer_all(mut reader: FrameReader, outbox: Outbox, node: SocketAddr, state: Arc<Mutex<State>>) {
    while let Ok(Some(frame)) = reader.next().await {
        let answered = outbox.push(|out| answer(out, &frame, node, &mut state.lock().unwrap()));
        if answered.is_err() {
            return;
        }
    }
}

fn answer(out: &mut Vec<u8>, frame: &Frame, node: SocketAddr, state: &mut State) {
    let header = |status| FrameHeader::answer(frame.header.kind, frame.header.request_id, status);
    let ok = header(Status::Ok);
    match frame.header.kind {
        MessageKind::QUERY_CLUSTER => {
            let (meta_addresses, nodes, tables) = (vec![], vec![], vec![]);
            let reply = ClusterReply { cluster: ClusterId(1), meta_addresses, nodes, tables };
            FrameBuilder::append(out, ok, &reply, &[]);
        }
        MessageKind::LIST_TABLES => {
            let describe = |properties: &TableProperties| TableDescription {
                properties: properties.clone(),
                environment: vec![],
                state: TableState::Available,
            };
            FrameBuilder::append(out, ok, &TableList { tables: state.tables.iter().map(describe).collect() }, &[]);
        }
        MessageKind::CREATE_TABLE => {
            let asked: CreateTable = frame.decode().unwrap();
            let table = TableProperties {
                table: TableId(state.tables.len() as u32 + 1),
                name: asked.name,
                partition_count: asked.partition_count,
                replica_count: asked.replica_count,
                durability: asked.durability,
            };
            state.tables.push(table.clone());
            FrameBuilder::append(out, ok, &route(table, node), &[]);
        }
        MessageKind::QUERY_TABLE => {
            let asked: QueryTable = frame.decode().unwrap();
            let table = state.tables.iter().find(|table| table.name == asked.name).unwrap();
            FrameBuilder::append(out, ok, &route(table.clone(), node), &[]);
        }
        MessageKind::SCAN => {
            let nothing = Rows { rows: &[], count: 0, complete: true, resume_after: b"", context: 0 };
            FrameBuilder::append(out, ok, &nothing, &[]);
        }
        MessageKind::GET => {
            let get = frame.body::<ArchivedGet<'_>>().unwrap();
            match state.read(&get.hash_key[..]) {
                Some(value) => FrameBuilder::append(out, ok, &GetReply { ttl_seconds: -1 }, &value),
                None => FrameBuilder::append_empty(out, header(Status::NotFound), &[]),
            }
        }
        MessageKind::WRITE => {
            let write = frame.body::<ArchivedWrite<'_>>().unwrap();
            let forgotten = state.is_to_lie(Lie::LostWrite);
            for operation in write.operations.iter().filter(|_| !forgotten) {
                match operation {
                    ArchivedRowOperation::Put { value, .. } => {
                        let old = state.rows.insert(write.hash_key.to_vec(), Bytes::copy_from_slice(value));
                        state.old_rows.extend(old.map(|old| (write.hash_key.to_vec(), old)));
                    }
                    ArchivedRowOperation::Delete { .. } => {
                        state.rows.remove(&write.hash_key[..]);
                    }
                    ArchivedRowOperation::DeleteRange { .. } => panic!("a measurement deletes no ranges"),
                }
            }
            FrameBuilder::append(out, ok, &WriteReply { decree: Decree(1) }, &[]);
        }
        kind => panic!("a measurement has no use for {kind}"),
    }
}

/// The route of a table whose partitions are all on the one node.
fn route(table: TableProperties, address: SocketAddr) -> TableReply {
    let configuration = Configuration { ballot: Ballot(2), primary: Some(NodeId(1)), secondaries: vec![] };
    let partitions = vec![configuration; table.partition_count as usize];
    let node = NodeInfo { node: NodeId(1), address, admin_address: address, cores: 1, alive: true };
    TableReply { table, environment: vec![], partitions, nodes: vec![node] }
}
