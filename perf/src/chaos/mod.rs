//! `chaos`: a cluster of real processes, faults drawn from a seed, clients whose history is checked; and `failover`:
//! the time until writes go on after the primary of most partitions is gone.
//!
//! ```text
//! setup ---> cluster (process, namespace, switch, disk)
//!   |           ^
//!   |           | kill, stop, cut, delay, fill; and undo
//!   +---> course <--- faults (drawn from the seed)
//!   +---> clients ---> recorder ---> history
//!   v                                   |
//! settle: serves, whole, equal          v
//!   +----------------------------> verdict
//! ```
//!
//! Processes run in network namespaces of their own, joined by a switch inside of this process ([`namespace`],
//! [`switch`]), so that links can be cut and delayed without anything of the kernel but TUN devices. Where that is not
//! allowed everything runs on the loopback device, and links stay well.
//!
//! A run ends only what it started, and leaves nothing behind but its directory, also when it is interrupted or killed:
//! namespaces and mounts have no names, and processes end with the thread that started them.

pub mod clients;
pub mod cluster;
pub mod course;
pub mod disk;
pub mod failover;
pub mod faults;
pub mod http;
pub mod interrupt;
pub mod layout;
pub mod links;
pub mod namespace;
pub mod outage;
pub mod probe;
pub mod process;
pub mod recorder;
pub mod rows;
pub mod settle;
pub mod setup;
pub mod stale;
pub mod switch;
pub mod verdict;

use std::path::Path;

use crate::chaos::clients::{Clients, Load, LoadOptions};
use crate::chaos::cluster::Cluster;
use crate::chaos::course::Course;
use crate::chaos::faults::{Kind, draw};
use crate::chaos::interrupt::Interrupt;
use crate::chaos::recorder::Clock;
use crate::chaos::settle::Settle;
use crate::chaos::setup::{Setup, SetupOptions, TABLE};
use crate::chaos::verdict::{Findings, Report, Verdict, longest_outage_s};
use crate::failure::Failure;
use crate::report::OutputOptions;

/// Options of `chaos`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How long faults go on
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Decides which faults happen when, and what the clients do
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub seed: u64,
    /// Kinds of faults, separated by commas [default: all that this machine allows]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    pub faults: Vec<Kind>,
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

/// Runs the cluster under faults and says whether it kept its promises.
pub fn run(options: &Options) -> Result<Verdict, Failure> {
    let interrupt = Interrupt::install()?;
    let tell = |line: &str| options.output.progress(line);
    tell("starting the cluster");
    let directory = format!("./chaos-{}", options.seed);
    let small_disks = options.faults.is_empty() || options.faults.contains(&Kind::Disk);
    let mut setup = options.setup.start(&directory, options.seed, small_disks, &interrupt)?;
    let kinds = allowed(&options.faults, &setup.cluster)?;
    let report = hurt_and_judge(options, &mut setup, &kinds, &interrupt, &tell);
    let report = report.map_err(|failure| explained(failure, &setup.directory))?;
    finish(options, setup, report)
}

fn hurt_and_judge(
    options: &Options,
    setup: &mut Setup,
    kinds: &[Kind],
    interrupt: &Interrupt,
    tell: &dyn Fn(&str),
) -> Result<Report, Failure> {
    let run_ms = options.seconds * 1000;
    let planned = draw(options.seed, run_ms, usize::from(options.setup.nodes), kinds);
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
    let mut course = Course::new(&mut setup.cluster, &clock, planned, tell);
    course.run(run_ms, || clients.have_ended(), interrupt)?;
    let recorded = clients.stop()?;
    tell("waiting until everything works again");
    let settle = Settle {
        client: setup.client.clone(),
        table: TABLE.to_owned(),
        keys: options.load.keys,
        within: options.setup.settle_within(),
        timeout: options.setup.timeout(),
    };
    let settled = settle.run(&clock, interrupt)?;
    course.look_once_more()?;
    tell("checking the history");
    let longest_outage_s = longest_outage_s(&recorded.history, options.setup.partitions);
    let Course { events, counts, problems, .. } = course;
    Ok(Report {
        seed: options.seed,
        seconds: options.seconds,
        findings: Findings::of(recorded, settled, problems),
        faults: counts.into_iter().map(|(kind, count)| (kind.name(), count)).collect(),
        longest_outage_s,
        traffic: setup.cluster.traffic(),
        missing: setup.cluster.missing().to_vec(),
        events,
        directory: None,
    })
}

/// The kinds asked for; without any, all that this machine allows.
fn allowed(asked: &[Kind], cluster: &Cluster) -> Result<Vec<Kind>, Failure> {
    let is_allowed = |kind: &Kind| match kind {
        Kind::Kill | Kind::Stop => true,
        Kind::Cut | Kind::Delay => cluster.has_links(),
        Kind::Disk => cluster.has_disks(),
    };
    if let Some(kind) = asked.iter().find(|kind| !is_allowed(kind)) {
        let reasons = cluster.missing().join("; ");
        return Err(Failure::new(format!("faults of the kind {} are not possible here: {reasons}", kind.name())));
    }
    let kinds = if asked.is_empty() { &Kind::ALL[..] } else { asked };
    Ok(kinds.iter().copied().filter(|kind| is_allowed(kind)).collect())
}

/// Takes the cluster down, keeps or removes its directory, and shows the report.
fn finish(options: &Options, setup: Setup, mut report: Report) -> Result<Verdict, Failure> {
    let verdict = report.findings.verdict;
    let kept = options.setup.take_down(setup, verdict != Verdict::Ok)?;
    report.directory = kept.map(|directory| directory.display().to_string());
    options.output.emit(&report.text(), &report)?;
    Ok(verdict)
}

fn explained(failure: Failure, directory: &Path) -> Failure {
    Failure::new(format!("{failure}\nthe cluster's logs and data are in {}", directory.display()))
}
