//! A stand-in for a cluster that speaks Pegasus's Thrift protocol: meta servers and storage nodes on loopback, rows in
//! memory, and whatever can go wrong, on demand. For tests only; it must never be part of a product.
//!
//! It knows nothing of replication: a partition is served by the node that a test says. It counts what it is asked, so
//! that a test can tell a request that was sent once from one that was sent twice.
//!
//! Code map: `cluster` holds tables and what goes wrong, `serve` has the sockets, `rows` carries out operations on
//! rows, `scans` those on scans.

mod cluster;
mod rows;
mod scans;
mod serve;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

pub use pegasus_gateway::Rpc;
use pegasus_wire::{hash, key};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use cluster::State;
use serve::{Role, serve};

/// Meta servers of every stand-in: the first leads, the second sends clients to it.
const META_SERVERS: usize = 2;

/// What happens to one request in place of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this error name and not carried out.
    Error(&'static str),
    /// The connection is closed before it is carried out.
    CloseBefore,
    /// It is carried out, and the connection is closed in place of an answer.
    CloseAfter,
    /// It is not carried out and not answered.
    Silence,
    /// These bytes are sent in place of an answer.
    Bytes(Vec<u8>),
    /// The answer lacks its last bytes, so many, and says so in its length.
    Cut(usize),
}

/// A row: hash key, sort key, value, second of expiry.
pub type Row = (Vec<u8>, Vec<u8>, Vec<u8>, u32);

/// A cluster that runs until it is dropped.
pub struct StandIn {
    state: Arc<Mutex<State>>,
    meta: Vec<SocketAddr>,
    _tasks: JoinSet<()>,
}

impl StandIn {
    /// Starts a cluster with this many storage nodes and no table. Must be called on a tokio runtime.
    ///
    /// # Panics
    ///
    /// If loopback has no port left.
    pub async fn start(nodes: usize) -> StandIn {
        let state = Arc::new(Mutex::new(State::default()));
        let mut tasks = JoinSet::new();
        let mut addresses = Vec::new();
        for number in 0..META_SERVERS + nodes {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
            addresses.push(listener.local_addr().expect("a bound socket has an address"));
            let role = match number {
                0 => Role::Leader,
                1..META_SERVERS => Role::Follower,
                _ => Role::Node(number - META_SERVERS),
            };
            tasks.spawn(serve(listener, role, state.clone()));
        }
        let nodes = addresses.split_off(META_SERVERS);
        lock(&state).begin(addresses[0], nodes);
        StandIn { state, meta: addresses, _tasks: tasks }
    }

    /// Makes a table whose partitions are spread over the nodes; returns its number.
    pub fn create(&self, table: &str, partition_count: u32) -> i32 {
        self.state().create(table, partition_count)
    }

    /// Takes a table away.
    pub fn drop_table(&self, table: &str) {
        self.state().tables.remove(table);
    }

    /// Meta servers as `host:port`; the first leads.
    pub fn meta_servers(&self) -> Vec<String> {
        self.meta.iter().map(SocketAddr::to_string).collect()
    }

    /// The address of a table, as people write it.
    pub fn target(&self, table: &str) -> String {
        format!("pegasus://{}/{table}", self.meta_servers().join(","))
    }

    /// The next request of this kind goes wrong. Several go wrong in the order they were asked for.
    pub fn fault(&self, rpc: Rpc, fault: Fault) {
        self.state().faults.push_back((rpc, fault));
    }

    /// From now on every connection gathers this many answers and sends them in the opposite order; 1 means at once.
    pub fn reverse(&self, answers: usize) {
        self.state().reverse = answers.max(1);
    }

    /// How many requests of this kind have arrived, carried out or not.
    pub fn received(&self, rpc: Rpc) -> usize {
        self.state().received.iter().filter(|&&known| known == rpc).count()
    }

    /// From now on a node serves a partition; the others do not know it.
    ///
    /// # Panics
    ///
    /// If there is no such table, partition or node.
    pub fn move_partition(&self, table: &str, index: u32, node: usize) {
        let mut state = self.state();
        assert!(node < state.nodes.len(), "there are {} nodes", state.nodes.len());
        state.tables.get_mut(table).expect("the table exists").partitions[index as usize].node = Some(node);
    }

    /// From now on nobody serves a partition.
    ///
    /// # Panics
    ///
    /// If there is no such table or partition.
    pub fn lose_partition(&self, table: &str, index: u32) {
        self.state().tables.get_mut(table).expect("the table exists").partitions[index as usize].node = None;
    }

    /// Forgets all scans that are open.
    pub fn forget_scans(&self) {
        self.state().scans.clear();
    }

    /// Number of scans that are open.
    pub fn open_scans(&self) -> usize {
        self.state().scans.len()
    }

    /// From now on it takes a question for expiries for one for the opposite order, as some old servers do.
    pub fn become_old(&self) {
        self.state().old = true;
    }

    /// From now on tables cannot be made by clients.
    pub fn forbid_tables(&self) {
        self.state().tables_forbidden = true;
    }

    /// Puts a row that expires at this second, or never for 0.
    ///
    /// # Panics
    ///
    /// If there is no such table.
    pub fn put(&self, table: &str, hash_key: &[u8], sort_key: &[u8], value: &[u8], expiry_seconds: u32) {
        let mut state = self.state();
        let partitions = &mut state.tables.get_mut(table).expect("the table exists").partitions;
        let index = hash::partition_index(hash_key, sort_key, partitions.len() as u32);
        partitions[index as usize].rows.insert(key::encode(hash_key, sort_key), (value.to_vec(), expiry_seconds));
    }

    /// All rows of a table, expired ones too, by partition and stored key.
    ///
    /// # Panics
    ///
    /// If there is no such table.
    pub fn rows(&self, table: &str) -> Vec<Row> {
        let state = self.state();
        let partitions = &state.tables.get(table).expect("the table exists").partitions;
        let row = |(stored, (value, expiry)): (&Vec<u8>, &(Vec<u8>, u32))| {
            let (hash_key, sort_key) = key::decode(stored).expect("stored keys are sound");
            (hash_key.to_vec(), sort_key.to_vec(), value.clone(), *expiry)
        };
        partitions.iter().flat_map(|partition| &partition.rows).map(row).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no holder of the state panics")
}
