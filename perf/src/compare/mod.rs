//! `compare`: the limits of the machine and what a cluster makes of them, measured in turn within the same minute.
//!
//! One round measures the echo, the disk and RocksDB, then get and set at depth 1 and 64 on a table of each
//! durability. Rounds are repeated, and the median of each figure is shown. Machines drift within minutes; figures of
//! one round belong together, and so do their ratios.

pub mod judge;

use std::time::Duration;

use pegasus_wire::Durability;
use serde::Serialize;

use crate::compare::judge::{Judged, Rail, judge, rails};
use crate::failure::Failure;
use crate::limits::{ProbeOptions, disk, echo, rocks};
use crate::measure::{Measurement, ServerProcess, median};
use crate::report::{Machine, TextTable, count, microseconds, optional_microseconds, ratio};
use crate::run;
use crate::workload::options::{CommonOptions, parse_seconds, table_of};
use crate::workload::{Cluster, Distribution, KeyChooser, Load, Mix, Operation, Pace, Prepared, client_runtime};

/// Options of `compare`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The cluster, its servers, the rows, and where the results go.
    #[command(flatten)]
    pub common: CommonOptions,
    /// What the limits are measured with.
    #[command(flatten)]
    pub probe: ProbeOptions,
    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// How long each line of the cluster is measured
    #[arg(long, default_value_t = 3.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// How long each line of the limits is measured
    #[arg(long, default_value_t = 1.0, value_parser = parse_seconds)]
    pub limit_seconds: f64,
}

/// What one round measured. The order of all rounds is the same.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// The machine's limits.
    pub limits: Limits,
    /// Get and set on the cluster.
    pub cluster: Vec<ClusterLine>,
}

/// The limits one round measured.
#[derive(Clone, Debug, Serialize)]
pub struct Limits {
    /// QUIC echo at depth 1.
    pub echo_alone: Measurement,
    /// QUIC echo at depth 64.
    pub echo_deep: Measurement,
    /// A direct write.
    pub write: Measurement,
    /// The fdatasync after it.
    pub sync: Measurement,
    /// Both.
    pub pair: Measurement,
    /// RocksDB put.
    pub put: Measurement,
    /// RocksDB get of a recent row.
    pub get: Measurement,
}

/// One kind of operation on the cluster.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterLine {
    /// `get` or `set`.
    pub operation: &'static str,
    /// Of the table.
    pub durability: String,
    /// Its figures.
    pub measurement: Measurement,
}

/// What `compare` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// The storage nodes.
    pub servers: Vec<ServerProcess>,
    /// Replicas of each partition, as the tables have them or were made with.
    pub replicas: u8,
    /// Every round as it was measured.
    pub rounds: Vec<Round>,
    /// The medians, with what they are measured against.
    pub medians: Vec<Judged>,
    /// The guard rails.
    pub rails: Vec<Rail>,
}

/// Measures the rounds and shows the medians.
pub fn run(options: &Options) -> Result<(), Failure> {
    let CommonOptions { cluster, servers, table, output } = &options.common;
    let machine = Machine::now();
    let servers = servers.require()?;
    let runtime = client_runtime(cluster.client_threads)?;
    let rounds = runtime.block_on(async {
        let cluster = Cluster::connect(cluster, 1).await?;
        let measured = measure_rounds(options, &cluster, &servers).await;
        cluster.close().await;
        measured
    })?;
    let median = median_round(&rounds)?;
    let medians = judge(&median, table.replicas);
    let rails = rails(&median);
    let report = Report { machine, servers, replicas: table.replicas, rounds, medians, rails };
    output.emit(&report.text(), &report)
}

async fn measure_rounds(
    options: &Options,
    cluster: &Cluster,
    servers: &[ServerProcess],
) -> Result<Vec<Round>, Failure> {
    let CommonOptions { table, output, .. } = &options.common;
    let mut tables = Vec::new();
    for durability in [Durability::Written, Durability::Synced] {
        let name = table_of(durability);
        output.progress(&format!("preparing table {name}"));
        tables.push((durability, cluster.prepare(&name, durability, table).await?));
    }
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        output.progress(&format!("round {round} of {}", options.rounds));
        let limits = measure_limits(options).await?;
        rounds.push(Round { limits, cluster: measure_cluster(options, &tables, servers).await? });
    }
    Ok(rounds)
}

async fn measure_limits(options: &Options) -> Result<Limits, Failure> {
    let seconds = Duration::from_secs_f64(options.limit_seconds);
    let ProbeOptions { payload_bytes, block_bytes, directory } = options.probe.clone();
    let value_bytes = options.common.table.value_bytes;
    let mut echoes = echo::measure(payload_bytes, &DEPTHS, seconds).await?.into_iter();
    let (Some(echo_alone), Some(echo_deep)) = (echoes.next(), echoes.next()) else {
        unreachable!("the echo is measured at each depth asked for");
    };
    // These two block, and the cluster's connections must be kept alive meanwhile.
    let blocking = tokio::task::spawn_blocking(move || {
        let disk = disk::measure(&directory, block_bytes, seconds)?;
        Ok::<_, Failure>((disk, rocks::measure(&directory, value_bytes, seconds)?))
    });
    let (disk, rocks) = blocking.await.map_err(Failure::at("measure disk and RocksDB"))??;
    let (put, get) = (rocks.put, rocks.get_recent);
    Ok(Limits { echo_alone, echo_deep, write: disk.write, sync: disk.sync, pair: disk.pair, put, get })
}

async fn measure_cluster(
    options: &Options,
    tables: &[(Durability, Prepared)],
    servers: &[ServerProcess],
) -> Result<Vec<ClusterLine>, Failure> {
    let keys = KeyChooser::new(Distribution::Uniform, options.common.table.keys)?;
    let phases = options.common.cluster.phases(WARMUP, options.seconds);
    let mut lines = Vec::new();
    for (durability, table) in tables {
        for operation in [Operation::Get, Operation::Set] {
            for depth in DEPTHS {
                let load = Load { mix: Mix::only(operation), keys: keys.clone(), depth, pace: Pace::Closed };
                let mut measurement = run::measure(table, &load, phases, servers).await?.total;
                measurement.name = format!("{operation} ({durability})");
                lines.push(ClusterLine {
                    operation: operation.name(),
                    durability: durability.to_string(),
                    measurement,
                });
            }
        }
    }
    Ok(lines)
}

/// The median of each figure over the rounds.
fn median_round(rounds: &[Round]) -> Result<Round, Failure> {
    let of = |figure: &dyn Fn(&Round) -> &Measurement| {
        let figures: Vec<Measurement> = rounds.iter().map(|round| figure(round).clone()).collect();
        median(&figures).ok_or_else(|| Failure::new("no round was measured"))
    };
    let limits = Limits {
        echo_alone: of(&|round| &round.limits.echo_alone)?,
        echo_deep: of(&|round| &round.limits.echo_deep)?,
        write: of(&|round| &round.limits.write)?,
        sync: of(&|round| &round.limits.sync)?,
        pair: of(&|round| &round.limits.pair)?,
        put: of(&|round| &round.limits.put)?,
        get: of(&|round| &round.limits.get)?,
    };
    let mut cluster = rounds[0].cluster.clone();
    for (index, line) in cluster.iter_mut().enumerate() {
        line.measurement = of(&|round| &round.cluster[index].measurement)?;
    }
    Ok(Round { limits, cluster })
}

impl Report {
    /// The report for people.
    pub fn text(&self) -> String {
        let mut table = TextTable::new(&[
            "median of rounds, times in us",
            "depth",
            "per second",
            "p50",
            "p99",
            "p50/floor",
            "client CPU/op",
            "server CPU/op",
            "CPU/floor",
            "errors",
        ]);
        for Judged { measurement, floor } in &self.medians {
            table.row(vec![
                measurement.name.clone(),
                measurement.depth.to_string(),
                count(measurement.per_second),
                microseconds(measurement.latency.p50_us),
                microseconds(measurement.latency.p99_us),
                ratio(Some(measurement.latency.p50_us), floor.latency_us),
                optional_microseconds(measurement.client_cpu_us),
                optional_microseconds(measurement.server_cpu_us),
                ratio(measurement.server_cpu_us, floor.server_cpu_us),
                if measurement.errors == 0 { "-".to_owned() } else { measurement.errors.to_string() },
            ]);
        }
        let mut guards = TextTable::new(&["guard rail", "measured", "limit", "kept"]);
        for rail in &self.rails {
            let kept = rail.kept().map_or("not measured", |kept| if kept { "yes" } else { "NO" });
            let measured = optional_microseconds(rail.measured);
            guards.row(vec![rail.name.clone(), measured, optional_microseconds(rail.limit), kept.to_owned()]);
        }
        let Report { machine, servers, replicas, rounds, .. } = self;
        format!(
            "{machine}\n{} storage nodes, {replicas} replicas, {} rounds\n\n{}\n{}",
            servers.len(),
            rounds.len(),
            table.render(),
            guards.render()
        )
    }
}

/// Alone, where latency shows, and deep enough to keep everything busy.
const DEPTHS: [usize; 2] = [1, 64];
/// Before each line of the cluster.
const WARMUP: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use crate::compare::judge::tests::round;

    use super::*;

    #[test]
    fn the_median_round_has_the_median_of_each_line() {
        let mut rounds = vec![round(), round(), round()];
        for (index, round) in rounds.iter_mut().enumerate() {
            round.limits.sync.latency.p50_us = [50.0, 1500.0, 60.0][index];
            round.cluster[3].measurement.server_cpu_us = [Some(3.0), Some(1.0), Some(2.0)][index];
        }
        let median = median_round(&rounds).unwrap();
        assert_eq!(median.limits.sync.latency.p50_us, 60.0);
        assert_eq!(median.cluster[3].measurement.server_cpu_us, Some(2.0));
        assert!(median_round(&[]).is_err());
    }

    #[test]
    fn the_report_shows_limits_cluster_and_rails() {
        let median = round();
        let report = Report {
            machine: Machine::now(),
            servers: vec![],
            replicas: 3,
            rounds: vec![round()],
            medians: judge(&median, 3),
            rails: rails(&median),
        };
        let text = report.text();
        for part in ["quic echo", "fdatasync", "rocksdb put", "get (written)", "set (synced)", "guard rail", "yes"] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }
}
