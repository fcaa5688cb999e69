//! From nothing to a cluster with a table that serves: what all runs begin with.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pegasus_client::{Client, ClientOptions, TableSpec};
use pegasus_wire::Durability;

use crate::chaos::cluster::Cluster;
use crate::chaos::interrupt::Interrupt;
use crate::chaos::layout::Shape;
use crate::chaos::settle::interrupted;
use crate::failure::Failure;
use crate::workload::client_runtime;

/// The cluster of a run, and its table.
#[derive(Clone, Debug, clap::Args)]
pub struct SetupOptions {
    /// Storage nodes
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(3..=5))]
    pub nodes: u16,
    /// Executors of each node
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub cores: u16,
    /// Partitions of the table
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub partitions: u32,
    /// When writes are acknowledged: synced or written
    #[arg(long, default_value = "synced")]
    pub durability: Durability,
    /// How long an operation may take
    #[arg(long, default_value_t = 5000, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub timeout_ms: u64,
    /// How long it may take at the end until every partition serves, is whole, and has equal copies
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub settle_seconds: u64,
    /// Directory for the cluster; must be empty or not exist. Kept if something is wrong
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Keep the directory in any case
    #[arg(long)]
    pub keep: bool,
    /// Where the programs are [default: next to this one]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
}

/// A cluster that serves, and how to reach it.
pub struct Setup {
    /// The cluster.
    pub cluster: Cluster,
    /// How clients connect.
    pub client: ClientOptions,
    /// Where everything lies.
    pub directory: PathBuf,
}

impl SetupOptions {
    /// Makes and starts the cluster, and makes its table. Moves the calling thread into namespaces of its own.
    pub fn start(
        &self,
        default_directory: &str,
        seed: u64,
        small_disks: bool,
        interrupt: &Interrupt,
    ) -> Result<Setup, Failure> {
        let directory = self.dir.clone().unwrap_or_else(|| PathBuf::from(default_directory));
        let shape = Shape {
            nodes: usize::from(self.nodes),
            cores: self.cores,
            directory: directory.clone(),
            binaries: self.binaries()?,
            seed,
            small_disks,
        };
        let mut cluster = Cluster::make(shape)?;
        cluster.start(START_PATIENCE, interrupt)?;
        let mut client = ClientOptions::new(cluster.meta_servers(), cluster.tls_directory());
        client.operation_timeout = self.timeout();
        client_runtime(1)?.block_on(async {
            tokio::select! {
                made = self.make_table(&client) => made,
                () = interrupted(interrupt) => Err(Failure::new("interrupted")),
            }
        })?;
        Ok(Setup { cluster, client, directory })
    }

    /// Takes the cluster down. Its directory is removed, unless it is to be kept; then this is where it is.
    pub fn take_down(&self, setup: Setup, keep: bool) -> Result<Option<PathBuf>, Failure> {
        let Setup { cluster, directory, .. } = setup;
        if keep || self.keep {
            cluster.save_statuses();
            return Ok(Some(directory));
        }
        drop(cluster);
        let removed = std::fs::remove_dir_all(&directory);
        removed.map_err(Failure::at(format!("remove {}", directory.display())))?;
        Ok(None)
    }

    /// How long an operation may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// How long settling may take.
    pub fn settle_within(&self) -> Duration {
        Duration::from_secs(self.settle_seconds)
    }

    fn binaries(&self) -> Result<PathBuf, Failure> {
        if let Some(directory) = &self.bin_dir {
            return std::path::absolute(directory).map_err(Failure::at("find the programs"));
        }
        let program = std::env::current_exe().map_err(Failure::at("find this program"))?;
        program.parent().map(PathBuf::from).ok_or_else(|| Failure::new("this program has no directory"))
    }

    /// Waits for all nodes, makes the table, and waits until it serves.
    async fn make_table(&self, options: &ClientOptions) -> Result<(), Failure> {
        let deadline = Instant::now() + START_PATIENCE;
        let client = Client::connect(options.clone()).await.map_err(Failure::at("connect to the new cluster"))?;
        loop {
            let status = client.cluster_status().await.map_err(Failure::at("ask for the nodes"))?;
            let alive = status.nodes.iter().filter(|node| node.info.alive).count();
            if alive == usize::from(self.nodes) {
                break;
            }
            if Instant::now() >= deadline {
                return Err(Failure::new(format!("{alive} of {} nodes have arrived", self.nodes)));
            }
            tokio::time::sleep(ARRIVAL_INTERVAL).await;
        }
        let spec = TableSpec {
            durability: self.durability,
            replica_count: REPLICAS,
            if_not_exists: true,
            wait: None,
            ..TableSpec::new(TABLE, self.partitions)
        };
        client.create_table(&spec).await.map_err(Failure::at("make the table"))?;
        let serving = client.wait_until_serving(TABLE, deadline.saturating_duration_since(Instant::now())).await;
        serving.map_err(Failure::at("wait until the table serves"))?;
        client.close().await;
        Ok(())
    }
}

/// The table of every run.
pub const TABLE: &str = "chaos";
/// Members of each of its partitions.
pub const REPLICAS: u8 = 3;
/// How long starting may take.
const START_PATIENCE: Duration = Duration::from_secs(60);
const ARRIVAL_INTERVAL: Duration = Duration::from_millis(50);
