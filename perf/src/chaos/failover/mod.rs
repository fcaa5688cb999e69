//! `failover`: how long partitions take no writes when the process that is primary of most of them is killed or frozen.
//!
//! ```text
//! each round:  primary of most partitions --kill -9-->  its partitions take writes again  --start-->  all is whole
//!                                          `-SIGSTOP->  ... after 10 s SIGCONT, with clients that still believe in it
//! ```
//!
//! The time is that from the signal to the acknowledgement of the first write which began after the signal, for each
//! of its partitions. All reads and writes are recorded and checked like those of `chaos`.

pub mod believers;
pub mod report;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pegasus_client::{Client, TableReply};
use pegasus_wire::NodeId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::chaos::clients::{Clients, Load, LoadOptions};
use crate::chaos::failover::believers::{BELIEVERS_AHEAD, Believers};
use crate::chaos::failover::report::{Report, Round};
use crate::chaos::faults::place_name;
use crate::chaos::interrupt::Interrupt;
use crate::chaos::links::Place;
use crate::chaos::probe::{Probes, probe_keys};
use crate::chaos::recorder::{Clock, Recorded};
use crate::chaos::settle::{Settle, interrupted};
use crate::chaos::setup::{Setup, SetupOptions, TABLE};
use crate::chaos::verdict::Verdict;
use crate::failure::Failure;
use crate::report::OutputOptions;
use crate::workload::client_runtime;

/// Options of `failover`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How often
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub kills: u32,
    /// Freeze the process for 10 seconds (SIGSTOP, SIGCONT) instead of killing it
    #[arg(long)]
    pub stop: bool,
    /// Decides what the clients do, and the pauses between two kills
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub seed: u64,
    /// The cluster and its table.
    #[command(flatten)]
    pub setup: SetupOptions,
    /// The clients.
    #[command(flatten)]
    pub load: LoadOptions,
    /// Where the results go
    #[command(flatten)]
    pub output: OutputOptions,
}

/// Kills and measures.
pub fn run(options: &Options) -> Result<Verdict, Failure> {
    let interrupt = Interrupt::install()?;
    options.output.progress("starting the cluster");
    let mut setup = options.setup.start("./failover", options.seed, false, &interrupt)?;
    let report = client_runtime(1)?.block_on(async {
        tokio::select! {
            report = measure(options, &mut setup) => report,
            () = interrupted(&interrupt) => Err(Failure::new("interrupted")),
        }
    });
    let mut report = report.map_err(|failure| {
        Failure::new(format!("{failure}\nthe cluster's logs and data are in {}", setup.directory.display()))
    })?;
    let verdict = report.findings.verdict;
    let kept = options.setup.take_down(setup, verdict != Verdict::Ok)?;
    report.directory = kept.map(|directory| directory.display().to_string());
    options.output.emit(&report.text(), &report)?;
    Ok(verdict)
}

async fn measure(options: &Options, setup: &mut Setup) -> Result<Report, Failure> {
    let clock = Clock::start();
    let load = Load {
        client: setup.client.clone(),
        table: TABLE.to_owned(),
        clients: options.load.clients,
        keys: options.load.keys,
        timeout: options.setup.timeout(),
        seed: options.seed,
    };
    let clients = Clients::start(load, clock.clone())?;
    let client = Client::connect(setup.client.clone()).await.map_err(Failure::at("connect the probes"))?;
    let table = client.table(TABLE).await.map_err(Failure::at("open the table"))?;
    let keys = probe_keys(options.load.keys, options.setup.partitions);
    let last_key = keys.iter().flatten().max().copied().unwrap_or(0);
    let probes = Probes::start(&table, &clock, &keys);
    let mut killer = Killer { options, setup, clock, client, probes, keys, recorded: Recorded::default() };
    let mut random = SmallRng::seed_from_u64(options.seed);
    let (mut rounds, mut problems) = (Vec::new(), Vec::new());
    for number in 1..=options.kills {
        tokio::time::sleep(Duration::from_millis(random.random_range(500..2000))).await;
        match killer.round().await? {
            Ok(round) => {
                options.output.progress(&format!("{number} of {}: {}", options.kills, round.line()));
                rounds.push(round);
            }
            Err(problem) => {
                problems.push(format!("kill {number}: {problem}"));
                break;
            }
        }
    }
    let Killer { clock, client, probes, mut recorded, .. } = killer;
    recorded.merge(probes.stop().await?);
    let stopped = tokio::task::spawn_blocking(move || clients.stop()).await;
    recorded.merge(stopped.map_err(Failure::at("stop the clients"))??);
    client.close().await;
    let settle = Settle {
        client: setup.client.clone(),
        table: TABLE.to_owned(),
        keys: last_key + 1,
        within: options.setup.settle_within(),
        timeout: options.setup.timeout(),
    };
    let settled = settle.settle(&clock).await;
    for (place, how) in setup.cluster.ended()? {
        problems.push(format!("{} ended by itself: {how}", place_name(place)));
    }
    Ok(Report::of(options, rounds, recorded, settled, problems, setup.cluster.missing().to_vec()))
}

struct Killer<'a> {
    options: &'a Options,
    setup: &'a mut Setup,
    clock: Arc<Clock>,
    client: Client,
    probes: Probes,
    /// By partition.
    keys: Vec<Vec<u64>>,
    recorded: Recorded,
}

/// A primary of many partitions.
struct Victim {
    place: Place,
    partitions: Vec<usize>,
}

impl Killer<'_> {
    /// One kill; the inner error is what the cluster failed to do.
    async fn round(&mut self) -> Result<Result<Round, String>, Failure> {
        let reply = self.describe().await?;
        let Some(victim) = self.choose(&reply) else { return Ok(Err("no node is primary of anything".to_owned())) };
        let begin_us = if self.options.stop { self.freeze(&victim).await? } else { self.kill(&victim).await? };
        let firsts = self.probes.first_ok_us(&victim.partitions);
        let mut recovered_s: Vec<f64> =
            firsts.into_iter().flatten().map(|at_us| (at_us - begin_us) as f64 / 1e6).collect();
        recovered_s.sort_by(f64::total_cmp);
        if recovered_s.len() < victim.partitions.len() {
            let lacking = victim.partitions.len() - recovered_s.len();
            return Ok(Err(format!("{lacking} partitions of {} take no writes", place_name(victim.place))));
        }
        if let Err(problem) = self.wait_until_whole().await? {
            return Ok(Err(problem));
        }
        let whole_s = (self.clock.now_us() - begin_us) as f64 / 1e6;
        let node = place_name(victim.place);
        Ok(Ok(Round { node, partitions: victim.partitions.len(), recovered_s, whole_s }))
    }

    /// kill -9, and a start when its partitions take writes again, or when it seems they will not without it.
    async fn kill(&mut self, victim: &Victim) -> Result<u64, Failure> {
        let begin_us = self.clock.now_us();
        self.setup.cluster.kill(victim.place);
        self.probes.watch_from(begin_us);
        let without_it = self.probes.wait_for(&victim.partitions, WITHOUT_IT_MAX).await;
        self.setup.cluster.start_one(victim.place)?;
        if !without_it {
            self.probes.wait_for(&victim.partitions, self.options.setup.settle_within()).await;
        }
        Ok(begin_us)
    }

    /// SIGSTOP, and SIGCONT after a while; around that clients which know of no other primary read from it.
    async fn freeze(&mut self, victim: &Victim) -> Result<u64, Failure> {
        let keys = victim.partitions.iter().map(|partition| self.keys[*partition][0]).collect();
        let believers = Believers::connect(&self.setup.client, keys, &self.clock).await?;
        let begin_us = self.clock.now_us();
        let begin = Instant::now();
        self.setup.cluster.set_stopped(victim.place, true);
        self.probes.watch_from(begin_us);
        tokio::time::sleep((FROZEN - BELIEVERS_AHEAD).saturating_sub(begin.elapsed())).await;
        let reads = tokio::spawn(believers.read_on(self.clock.clone()));
        tokio::time::sleep(FROZEN.saturating_sub(begin.elapsed())).await;
        self.setup.cluster.set_stopped(victim.place, false);
        self.recorded.merge(reads.await.map_err(Failure::at("clients that read from a frozen node"))?);
        self.probes.wait_for(&victim.partitions, self.options.setup.settle_within()).await;
        Ok(begin_us)
    }

    /// Waits until every partition has all its members and takes writes.
    async fn wait_until_whole(&self) -> Result<Result<(), String>, Failure> {
        let deadline = Instant::now() + self.options.setup.settle_within();
        loop {
            let reply = self.describe().await?;
            let wanted = usize::from(reply.table.replica_count);
            let lacking = reply.partitions.iter().filter(|partition| partition.members().count() < wanted).count();
            if lacking == 0 {
                break;
            }
            if Instant::now() >= deadline {
                return Ok(Err(format!("{lacking} partitions have too few members")));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.probes.watch_from(self.clock.now_us());
        let all: Vec<usize> = (0..self.keys.len()).collect();
        match self.probes.wait_for(&all, deadline.saturating_duration_since(Instant::now())).await {
            true => Ok(Ok(())),
            false => Ok(Err("not every partition takes writes after the node has come back".to_owned())),
        }
    }

    async fn describe(&self) -> Result<TableReply, Failure> {
        self.client.describe_table(TABLE).await.map_err(Failure::at("ask who is primary"))
    }

    /// The node that is primary of most partitions.
    fn choose(&self, reply: &TableReply) -> Option<Victim> {
        let mut partitions: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
        for (index, configuration) in reply.partitions.iter().enumerate() {
            if let Some(primary) = configuration.primary {
                partitions.entry(primary).or_default().push(index);
            }
        }
        let (node, partitions) = partitions.into_iter().max_by_key(|(_, partitions)| partitions.len())?;
        let address = reply.nodes.iter().find(|info| info.node == node)?.address;
        Some(Victim { place: self.setup.cluster.node_at(address)?, partitions })
    }
}

/// A killed node is started after that also if its partitions still take no writes.
const WITHOUT_IT_MAX: Duration = Duration::from_secs(15);
/// How long a frozen process is frozen.
const FROZEN: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
