//! `crowd`: what clients of Pegasus notice of very many others that say nothing, and of some that do not listen.
//!
//! Pairs of measurements: reads and writes at a fixed rate while nobody else is there, and beside the crowd. The crowd
//! comes and goes with each pair. A pair shows how the latency beside the crowd stands to that alone; the verdict of
//! the command is on the median of the pairs.

mod others;

use std::time::Duration;

use pegasus_driver::Target;
use pegasus_wire::Durability;
use serde::Serialize;

use crate::chaos::verdict::Verdict;
use crate::crowd::others::Others;
use crate::failure::Failure;
use crate::measure::{LatencySummary, ServerProcess, resident_bytes};
use crate::report::{Machine, TextTable, count, microseconds, ratio};
use crate::workload::options::{CommonOptions, parse_rate, parse_seconds, table_of};
use crate::workload::{
    Cluster, Distribution, Driven, KeyChooser, Load, Mix, Pace, Phases, Prepared, client_runtime, thrift,
};

/// Options of `crowd`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The cluster, its servers, the rows, and where the results go.
    #[command(flatten)]
    pub common: CommonOptions,
    /// When writes are acknowledged: synced or written
    #[arg(long, default_value = "synced")]
    pub durability: Durability,
    /// Connections that say nothing
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=50_000))]
    pub idle: u32,
    /// Connections that ask for rows all the time and read no answer
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub deaf: u32,
    /// Pairs of measurements
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub pairs: u16,
    /// How long each is measured
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// Operations a second, half of them reads
    #[arg(long, default_value_t = 2000.0, value_name = "OPS", value_parser = parse_rate)]
    pub rate: f64,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Side {
    /// Latencies from the intended starts.
    pub latency: LatencySummary,
    /// Operations that failed.
    pub errors: u64,
    /// Memory of all storage nodes together at its end.
    pub server_bytes: u64,
}

/// Both measurements.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pair {
    /// Nobody else is there.
    pub alone: Side,
    /// Everybody is.
    pub beside: Side,
}

/// What `crowd` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// The storage nodes.
    pub servers: Vec<ServerProcess>,
    /// Connections that said nothing.
    pub idle: u32,
    /// Connections that read nothing.
    pub deaf: u32,
    /// Operations a second.
    pub rate: f64,
    /// The pairs as they were measured.
    pub pairs: Vec<Pair>,
}

/// Measures the pairs and judges their median.
pub fn run(options: &Options) -> Result<Verdict, Failure> {
    let CommonOptions { cluster, servers, table, output } = &options.common;
    let machine = Machine::now();
    let servers = servers.require()?;
    others::raise_limit_of_files(options.idle + options.deaf)?;
    let name = table_of(options.durability);
    let runtime = client_runtime(cluster.client_threads)?;
    let pairs = runtime.block_on(async {
        let connected = Cluster::connect(cluster, 1).await?;
        output.progress("preparing the table");
        connected.prepare(&name, options.durability, table).await?.load_wide().await?;
        let nodes = others::addresses(connected.client(), &name).await?;
        let meta_servers = cluster.meta_servers()?.iter().map(ToString::to_string).collect();
        let target = Target { meta_servers, table: name.clone() };
        let prepared = thrift::prepare(&target, 1, cluster, table).await?;
        let mut pairs = Vec::new();
        for number in 1..=options.pairs {
            output.progress(&format!("pair {number} of {}", options.pairs));
            let alone = async || measure(options, &prepared, &servers).await;
            let beside = async || {
                let others = Others::come(&nodes, options.idle, options.deaf).await?;
                let beside = measure(options, &prepared, &servers).await?;
                others.go(connected.client(), &name).await?;
                Ok::<Side, Failure>(beside)
            };
            // Which one is first changes, so that a machine that drifts favours neither.
            pairs.push(if number.is_multiple_of(2) {
                let beside = beside().await?;
                Pair { alone: alone().await?, beside }
            } else {
                Pair { alone: alone().await?, beside: beside().await? }
            });
        }
        connected.close().await;
        Ok::<_, Failure>(pairs)
    })?;
    let Options { idle, deaf, rate, .. } = *options;
    let report = Report { machine, servers, idle, deaf, rate, pairs };
    output.emit(&report.text(), &report)?;
    Ok(report.verdict())
}

async fn measure<T: crate::workload::Rows>(
    options: &Options,
    table: &Prepared<T>,
    servers: &[ServerProcess],
) -> Result<Side, Failure> {
    let mix: Mix = "get=50,set=50".parse().map_err(Failure::at("mix reads and writes"))?;
    let keys = KeyChooser::new(Distribution::Uniform, options.common.table.keys)?;
    let load = Load { mix, keys, depth: DEPTH, pace: Pace::Rate(options.rate) };
    let phases: Phases = options.common.cluster.phases(WARMUP, options.seconds);
    let driven: Driven<()> = table.drive(&load, phases, || Ok(())).await?;
    let server_bytes = servers.iter().map(|server| resident_bytes(server.pid)).sum::<Result<u64, Failure>>()?;
    Ok(Side { latency: driven.record.latency().summary(), errors: driven.record.error_count(), server_bytes })
}

impl Pair {
    fn p99_ratio(&self) -> f64 {
        self.beside.latency.p99_us / self.alone.latency.p99_us
    }
}

impl Report {
    /// Median over the pairs of the ratio of the 99th percentiles.
    pub fn median_ratio(&self) -> f64 {
        let mut ratios: Vec<f64> = self.pairs.iter().map(Pair::p99_ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Whether the crowd does no harm.
    pub fn verdict(&self) -> Verdict {
        let failed = self.pairs.iter().any(|pair| pair.alone.errors + pair.beside.errors > 0);
        let grown = self.pairs.iter().map(|pair| pair.beside.server_bytes.saturating_sub(pair.alone.server_bytes));
        let is_large = grown.max().unwrap_or(0) > self.bytes_allowed();
        if failed || is_large || self.median_ratio() > RATIO_MAX { Verdict::Violation } else { Verdict::Ok }
    }

    /// What the nodes may grow by: little for each that is idle, a bound for each that does not listen.
    fn bytes_allowed(&self) -> u64 {
        u64::from(self.idle) * IDLE_BYTES_MAX + u64::from(self.deaf) * DEAF_BYTES_MAX + SLACK_BYTES
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut table =
            TextTable::new(&["times in us", "p50", "p99", "max", "errors", "nodes' memory, MiB", "p99 beside / alone"]);
        for (number, pair) in self.pairs.iter().enumerate() {
            for (name, side) in [("alone", &pair.alone), ("beside", &pair.beside)] {
                table.row(vec![
                    format!("{}, {name}", number + 1),
                    microseconds(side.latency.p50_us),
                    microseconds(side.latency.p99_us),
                    microseconds(side.latency.max_us),
                    side.errors.to_string(),
                    (side.server_bytes >> 20).to_string(),
                    match name {
                        "beside" => ratio(Some(pair.beside.latency.p99_us), Some(pair.alone.latency.p99_us)),
                        _ => String::new(),
                    },
                ]);
            }
        }
        format!(
            "{}\n{} storage nodes; the crowd: {} idle connections, {} that do not listen; {} operations a second\n\n{}\
             \nmedian of {} pairs: {:.2} (at most {RATIO_MAX})\n",
            self.machine,
            self.servers.len(),
            self.idle,
            self.deaf,
            count(self.rate),
            table.render(),
            self.pairs.len(),
            self.median_ratio(),
        )
    }
}

/// Operations under way at a time; at a fixed rate it only bounds them.
const DEPTH: usize = 64;
/// Before each measurement.
const WARMUP: Duration = Duration::from_secs(2);
/// What the 99th percentile may grow by.
const RATIO_MAX: f64 = 1.2;
/// What a connection that says nothing may cost its node.
const IDLE_BYTES_MAX: u64 = 16 << 10;
/// What one that does not listen may cost it: its share of requests unanswered, and of answers unsent.
const DEAF_BYTES_MAX: u64 = 16 << 20;
/// What nodes may grow by for other reasons between two looks: memtables, caches.
const SLACK_BYTES: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn side(p99_us: f64, server_mib: u64) -> Side {
        let latency = LatencySummary { p99_us, ..LatencySummary::default() };
        Side { latency, errors: 0, server_bytes: server_mib << 20 }
    }

    fn report(ratios: &[f64]) -> Report {
        let pair = |ratio: &f64| Pair { alone: side(100.0, 50), beside: side(100.0 * ratio, 60) };
        let pairs = ratios.iter().map(pair).collect();
        Report { machine: Machine::now(), servers: vec![], idle: 10_000, deaf: 10, rate: 2000.0, pairs }
    }

    #[test]
    fn the_median_of_the_pairs_is_judged() {
        let good = report(&[9.0, 1.1, 0.9, 1.15, 1.0]);
        assert!((good.median_ratio() - 1.1).abs() < 1e-9);
        assert_eq!(good.verdict(), Verdict::Ok);
        assert!(good.text().contains("median of 5 pairs: 1.10"), "{}", good.text());
        assert_eq!(report(&[1.3, 1.1, 1.25]).verdict(), Verdict::Violation);
    }

    #[test]
    fn errors_and_memory_are_judged_as_well() {
        let mut failed = report(&[1.0]);
        failed.pairs[0].beside.errors = 1;
        assert_eq!(failed.verdict(), Verdict::Violation);
        let mut large = report(&[1.0]);
        large.pairs[0].beside.server_bytes += large.bytes_allowed();
        assert_eq!(large.verdict(), Verdict::Violation);
    }
}
