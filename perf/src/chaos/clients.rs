//! The clients of a run: a thread with a runtime of its own, and many workers on it which set, delete and read a few
//! rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pegasus_client::{Client, ClientOptions, Table};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use crate::chaos::recorder::{Ask, Clock, Recorded, perform};
use crate::failure::Failure;
use crate::workload::client_runtime;

/// How many clients, and on how many rows.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadOptions {
    /// Rows that the clients write and read
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub keys: u64,
    /// Clients at work at once
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub clients: u32,
}

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Load {
    /// How to connect.
    pub client: ClientOptions,
    /// The table.
    pub table: String,
    /// Operations under way at once, each a client of its own in the history.
    pub clients: u32,
    /// Rows.
    pub keys: u64,
    /// How long an operation may take.
    pub timeout: Duration,
    /// Decides who does what to which row.
    pub seed: u64,
}

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    stop: Arc<AtomicBool>,
    /// When it is gone the clients end without waiting for what they are at.
    leash: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<Recorded, Failure>>>,
}

impl Clients {
    /// Connects and begins. The calling thread's network is theirs.
    pub fn start(load: Load, clock: Arc<Clock>) -> Result<Clients, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let (leash, let_go) = oneshot::channel::<()>();
        let work = async move {
            tokio::select! {
                recorded = run(&load, &clock, &stopping) => recorded,
                _ = let_go => Err(Failure::new("the clients were given up")),
            }
        };
        let work = move || client_runtime(1)?.block_on(work);
        let thread = thread::Builder::new().name("clients".to_owned()).spawn(work);
        Ok(Clients { stop, leash: Some(leash), thread: Some(thread.map_err(Failure::at("start the clients"))?) })
    }

    /// True once they have ended by themselves: they could not connect, or recorded all that is allowed.
    pub fn have_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends them when what they are at has ended; what they recorded.
    pub fn stop(mut self) -> Result<Recorded, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is taken here and when dropped only");
        thread.join().map_err(|_| Failure::new("the clients' thread panicked"))?
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.leash = None;
        if let Some(thread) = self.thread.take() {
            // Nobody asks any more what they recorded.
            let _ = thread.join();
        }
    }
}

async fn run(load: &Load, clock: &Arc<Clock>, stop: &Arc<AtomicBool>) -> Result<Recorded, Failure> {
    let mut connections = Vec::new();
    let mut workers = Vec::new();
    for number in 0..load.clients {
        if number % WORKERS_PER_CONNECTION == 0 {
            let client = Client::connect(load.client.clone()).await.map_err(Failure::at("connect a client"))?;
            let table = client.table(&load.table).await.map_err(Failure::at("open the table"))?;
            connections.push((client, table));
        }
        let (_, table): &(Client, Table) = connections.last().expect("one was made for the first worker");
        let worker = Worker {
            number: number + 1,
            table: table.with_timeout(load.timeout),
            clock: clock.clone(),
            random: SmallRng::seed_from_u64(load.seed.wrapping_add(u64::from(number) + 1)),
            keys: load.keys,
            share: OPERATIONS_MAX / load.clients,
        };
        workers.push(tokio::spawn(worker.run(stop.clone())));
    }
    let mut recorded = Recorded::default();
    for worker in workers {
        recorded.merge(worker.await.map_err(Failure::at("a client's worker"))?);
    }
    for (client, _) in connections {
        client.close().await;
    }
    Ok(recorded)
}

struct Worker {
    number: u32,
    table: Table,
    clock: Arc<Clock>,
    random: SmallRng,
    keys: u64,
    /// Operations it may do.
    share: u32,
}

impl Worker {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Recorded {
        let mut recorded = Recorded::default();
        for _ in 0..self.share {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let key = self.random.random_range(0..self.keys);
            let ask = match self.random.random_range(0..100) {
                0..45 => Ask::Set,
                45..52 => Ask::Delete,
                _ => Ask::Read,
            };
            recorded.add(key, perform(&self.table, &self.clock, self.number, key, ask).await);
            let pause = Duration::from_micros(self.random.random_range(0..PAUSE_US_MAX));
            tokio::time::sleep(pause).await;
        }
        recorded
    }
}

/// Workers share a socket and a route, as the threads of one application do.
const WORKERS_PER_CONNECTION: u32 = 4;
/// All operations of a run at most; so many fit into memory.
const OPERATIONS_MAX: u32 = 8_000_000;
/// Between two operations of a worker, at most.
const PAUSE_US_MAX: u64 = 10_000;
