//! `compare-protocols`: get and set through our own protocol and through Pegasus's, on the same rows of one cluster.
//!
//! A round measures each operation at each depth through both, one after the other; which one is first changes with
//! every round, so that a machine that drifts favours neither. Shown is the median of each figure over the rounds, and
//! how the second protocol's stands to the first's.

use std::time::Duration;

use pegasus_driver::Target;
use pegasus_wire::Durability;
use serde::Serialize;

use crate::failure::Failure;
use crate::measure::{Measurement, ServerProcess, median};
use crate::report::{Machine, TextTable, count, microseconds, optional_microseconds, ratio};
use crate::run;
use crate::workload::options::{CommonOptions, parse_seconds, table_of};
use crate::workload::{
    Cluster, Distribution, KeyChooser, Load, Mix, Operation, Pace, Prepared, client_runtime, thrift,
};

/// Options of `compare-protocols`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The cluster, its servers, the rows, and where the results go.
    #[command(flatten)]
    pub common: CommonOptions,
    /// When writes are acknowledged: synced or written
    #[arg(long, default_value = "synced")]
    pub durability: Durability,
    /// Where the same table is reached through Pegasus's protocol [default: at the meta servers' addresses]
    #[arg(long, value_name = "ADDRESS", value_parser = Target::parse)]
    pub target: Option<Target>,
    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// How long each line is measured
    #[arg(long, default_value_t = 3.0, value_parser = parse_seconds)]
    pub seconds: f64,
}

/// A way to reach a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Our own, over QUIC.
    Native,
    /// Pegasus's, over TCP.
    Thrift,
}

/// An operation at a depth through both protocols.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// `get` or `set`.
    pub operation: &'static str,
    /// Through our own protocol.
    pub native: Measurement,
    /// Through Pegasus's.
    pub thrift: Measurement,
}

/// What `compare-protocols` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// The storage nodes.
    pub servers: Vec<ServerProcess>,
    /// The table, as the second protocol names it.
    pub target: String,
    /// Of the table.
    pub durability: String,
    /// Length of the values.
    pub value_bytes: usize,
    /// Every round as it was measured.
    pub rounds: Vec<Vec<Pair>>,
    /// The medians.
    pub medians: Vec<Pair>,
}

/// The same table through both.
struct Both {
    native: Prepared,
    thrift: Prepared<pegasus_driver::Table>,
}

/// Measures the rounds and shows the medians.
pub fn run(options: &Options) -> Result<(), Failure> {
    let CommonOptions { cluster, servers, table, output } = &options.common;
    let machine = Machine::now();
    let servers = servers.require()?;
    let name = table_of(options.durability);
    let target = match &options.target {
        Some(target) => target.clone(),
        None => {
            let meta_servers = cluster.meta_servers()?.iter().map(ToString::to_string).collect();
            Target { meta_servers, table: name.clone() }
        }
    };
    let runtime = client_runtime(cluster.client_threads)?;
    let rounds = runtime.block_on(async {
        let connected = Cluster::connect(cluster, 1).await?;
        output.progress("preparing the table");
        let native = connected.prepare(&name, options.durability, table).await?;
        let both = Both { native, thrift: thrift::prepare(&target, 1, cluster, table).await? };
        let mut rounds = Vec::new();
        for round in 1..=options.rounds {
            output.progress(&format!("round {round} of {}", options.rounds));
            rounds.push(measure(options, &both, &servers, order(round)).await?);
        }
        connected.close().await;
        Ok::<_, Failure>(rounds)
    })?;
    let medians = medians(&rounds)?;
    let (durability, value_bytes) = (options.durability.to_string(), table.value_bytes);
    let target = target.to_string();
    let report = Report { machine, servers, target, durability, value_bytes, rounds, medians };
    output.emit(&report.text(), &report)
}

/// Which protocol is measured first in a round.
fn order(round: u16) -> [Protocol; 2] {
    if round.is_multiple_of(2) { [Protocol::Thrift, Protocol::Native] } else { [Protocol::Native, Protocol::Thrift] }
}

async fn measure(
    options: &Options,
    both: &Both,
    servers: &[ServerProcess],
    order: [Protocol; 2],
) -> Result<Vec<Pair>, Failure> {
    let keys = KeyChooser::new(Distribution::Uniform, options.common.table.keys)?;
    let phases = options.common.cluster.phases(WARMUP, options.seconds);
    let mut pairs = Vec::new();
    for operation in [Operation::Get, Operation::Set] {
        for depth in DEPTHS {
            let load = Load { mix: Mix::only(operation), keys: keys.clone(), depth, pace: Pace::Closed };
            let mut pair =
                Pair { operation: operation.name(), native: Measurement::default(), thrift: Measurement::default() };
            for protocol in order {
                match protocol {
                    Protocol::Native => pair.native = run::measure(&both.native, &load, phases, servers).await?.total,
                    Protocol::Thrift => pair.thrift = run::measure(&both.thrift, &load, phases, servers).await?.total,
                }
            }
            pair.native.name = format!("{operation}, native");
            pair.thrift.name = format!("{operation}, thrift");
            pairs.push(pair);
        }
    }
    Ok(pairs)
}

/// The median of each figure over the rounds.
fn medians(rounds: &[Vec<Pair>]) -> Result<Vec<Pair>, Failure> {
    let first = rounds.first().ok_or_else(|| Failure::new("no round was measured"))?;
    let of = |place: usize, figures: fn(&Pair) -> &Measurement| {
        let all: Vec<Measurement> = rounds.iter().map(|round| figures(&round[place]).clone()).collect();
        median(&all).ok_or_else(|| Failure::new("no round was measured"))
    };
    let pair = |(place, pair): (usize, &Pair)| {
        let (native, thrift) = (of(place, |pair| &pair.native)?, of(place, |pair| &pair.thrift)?);
        Ok(Pair { operation: pair.operation, native, thrift })
    };
    first.iter().enumerate().map(pair).collect()
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
            "client CPU/op",
            "server CPU/op",
            "errors",
        ]);
        for Pair { native, thrift, .. } in &self.medians {
            for measurement in [native, thrift] {
                table.row(vec![
                    measurement.name.clone(),
                    measurement.depth.to_string(),
                    count(measurement.per_second),
                    microseconds(measurement.latency.p50_us),
                    microseconds(measurement.latency.p99_us),
                    optional_microseconds(measurement.client_cpu_us),
                    optional_microseconds(measurement.server_cpu_us),
                    if measurement.errors == 0 { "-".to_owned() } else { measurement.errors.to_string() },
                ]);
            }
            let of = |figure: fn(&Measurement) -> f64| ratio(Some(figure(thrift)), Some(figure(native)));
            table.row(vec![
                "  thrift / native".to_owned(),
                String::new(),
                of(|figures| figures.per_second),
                of(|figures| figures.latency.p50_us),
                of(|figures| figures.latency.p99_us),
                ratio(thrift.client_cpu_us, native.client_cpu_us),
                ratio(thrift.server_cpu_us, native.server_cpu_us),
            ]);
        }
        let Report { machine, servers, target, durability, value_bytes, rounds, .. } = self;
        format!(
            "{machine}\n{} storage nodes, {target} ({durability}), values of {value_bytes} B, {} rounds\n\n{}",
            servers.len(),
            rounds.len(),
            table.render()
        )
    }
}

/// Alone, where latency shows, and deep enough to keep everything busy.
const DEPTHS: [usize; 2] = [1, 64];
/// Before each line.
const WARMUP: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use crate::measure::LatencySummary;

    use super::*;

    fn round(p50_us: f64) -> Vec<Pair> {
        let figures = |name: &str, times: f64| Measurement {
            name: format!("get, {name}"),
            depth: 64,
            operations: 10,
            per_second: 1000.0,
            latency: LatencySummary { p50_us: p50_us * times, ..LatencySummary::default() },
            server_cpu_us: Some(20.0 * times),
            ..Measurement::default()
        };
        vec![Pair { operation: "get", native: figures("native", 1.0), thrift: figures("thrift", 1.5) }]
    }

    #[test]
    fn both_stand_beside_each_other_with_their_ratio() {
        let rounds = vec![round(10.0), round(90.0), round(20.0)];
        let medians = medians(&rounds).unwrap();
        assert_eq!((medians[0].native.latency.p50_us, medians[0].thrift.latency.p50_us), (20.0, 30.0));
        let text = Report {
            machine: Machine::now(),
            servers: vec![],
            target: "pegasus://m:1/t".to_owned(),
            durability: "synced".to_owned(),
            value_bytes: 1000,
            rounds,
            medians,
        }
        .text();
        for part in ["get, native", "get, thrift", "thrift / native", "1.00x", "1.50x", "pegasus://m:1/t (synced)"] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(super::medians(&[]).is_err());
    }

    #[test]
    fn the_first_one_changes_with_every_round() {
        assert_eq!(order(1)[0], Protocol::Native);
        assert_eq!(order(2)[0], Protocol::Thrift);
        assert_eq!(order(3), order(1));
    }
}
