//! `learning`: what a node that learns everything anew costs those who read and write meanwhile.
//!
//! ```text
//! once:        load the rows; a closed loop tells the rate of saturation
//! each round:  a fixed rate, a share of that     --> latencies before
//!              the node is stopped, its directory removed, and it is started again
//!              the same rate until all partitions are whole on live nodes --> latencies during
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use pegasus_client::{Client, TableReply};
use serde::Serialize;

use crate::failure::Failure;
use crate::measure::{LatencySummary, median_of};
use crate::onebox::Onebox;
use crate::report::{Machine, TextTable, count, microseconds};
use crate::workload::options::{CommonOptions, WorkloadOptions, parse_seconds};
use crate::workload::{Cluster, Load, Pace, Phases, Prepared, Record, client_runtime};

/// Options of `learning`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The cluster, its rows, and where the results go.
    #[command(flatten)]
    pub common: CommonOptions,
    /// The operations.
    #[command(flatten)]
    pub workload: WorkloadOptions,
    /// Pairs of measurements, before and during
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Share of the rate of saturation, in percent
    #[arg(long, default_value_t = 30, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub percent: u32,
    /// How long to measure saturation, and before each learning
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// The node that learns
    #[arg(long, default_value = "replica3", value_name = "NAME")]
    pub node: String,
    /// How long a learning may take
    #[arg(long, default_value_t = 300.0, value_parser = parse_seconds)]
    pub patience_seconds: f64,
}

/// Measures and shows the figures.
pub fn run(options: &Options) -> Result<(), Failure> {
    let onebox = Onebox::find(&options.common.servers)?;
    let machine = Machine::now();
    let runtime = client_runtime(options.common.cluster.client_threads)?;
    let (saturation_per_second, loaded, rounds) = runtime.block_on(measure(options, &onebox))?;
    let ratios: Vec<f64> = rounds.iter().map(Round::ratio).collect();
    let report = Report {
        machine,
        keys: options.common.table.keys,
        value_bytes: options.common.table.value_bytes,
        loaded,
        mix: options.workload.mix.to_string(),
        saturation_per_second,
        rate: saturation_per_second * f64::from(options.percent) / 100.0,
        median_ratio: median_of(ratios),
        rounds,
    };
    options.common.output.emit(&report.text(), &report)
}

async fn measure(options: &Options, onebox: &Onebox) -> Result<(f64, u64, Vec<Round>), Failure> {
    let Options { common, workload, .. } = options;
    let cluster = Cluster::connect(&common.cluster, usize::from(workload.connections)).await?;
    let table = cluster.prepare_for(workload, common).await?;
    let run = Run { options, table: &table, client: cluster.client(), name: workload.table_name() };
    run.until_whole(run.deadline()).await?;
    common.output.progress("measuring the rate of saturation");
    let closed = workload.load(common.table.keys, Pace::Closed)?;
    let phases = common.cluster.phases(WARMUP, options.seconds);
    let driven = table.drive(&closed, phases, || Ok(())).await?;
    let saturation = driven.record.done_count() as f64 / driven.wall.as_secs_f64();
    let rate = Pace::Rate((saturation * f64::from(options.percent) / 100.0).max(1.0));
    let steady = workload.load(common.table.keys, rate)?;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let round = run.round(onebox, &steady, phases).await?;
        common.output.progress(&format!("round {number} of {}: {}", options.rounds, round.line()));
        rounds.push(round);
    }
    cluster.close().await;
    Ok((saturation, table.loaded, rounds))
}

struct Run<'a> {
    options: &'a Options,
    table: &'a Prepared,
    client: &'a Client,
    name: String,
}

impl Run<'_> {
    async fn round(&self, onebox: &Onebox, load: &Load, phases: Phases) -> Result<Round, Failure> {
        let before = self.table.drive(load, phases, || Ok(())).await?;
        let node = &self.options.node;
        onebox.stop(node).await?;
        onebox.wipe(node).await?;
        onebox.start(node).await?;
        let begun = Instant::now();
        let slice = Phases { warmup: Duration::ZERO, measured: SLICE, ..phases };
        let (mut during, mut windows_p99_us) = (Record::default(), Vec::new());
        // Slices end with the learning: the last one counts only if it did not outlast it.
        loop {
            let driven = self.table.drive(load, slice, || Ok(())).await?;
            let whole = self.is_whole().await?;
            if !whole || during.done_count() == 0 {
                during.merge(&driven.record);
                windows_p99_us.push(driven.record.latency().summary().p99_us);
            }
            if whole {
                break;
            }
            if begun.elapsed().as_secs_f64() > self.options.patience_seconds {
                return Err(Failure::new(format!("{node} has not learned everything in time")));
            }
        }
        let learned_s = begun.elapsed().as_secs_f64();
        Ok(Round { windows_p99_us, ..Round::of(&before.record, &during, learned_s) })
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs_f64(self.options.patience_seconds)
    }

    async fn until_whole(&self, deadline: Instant) -> Result<(), Failure> {
        while !self.is_whole().await? {
            if Instant::now() >= deadline {
                return Err(Failure::new(format!("table {} is not whole", self.name)));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    async fn is_whole(&self) -> Result<bool, Failure> {
        let reply = self.client.describe_table(&self.name).await.map_err(Failure::at("ask for the members"))?;
        Ok(is_whole(&reply))
    }
}

/// True if every partition has all its members, and each of them is a node that lives.
fn is_whole(reply: &TableReply) -> bool {
    let lives = |member| reply.nodes.iter().any(|node| node.node == member && node.alive);
    let wanted = usize::from(reply.table.replica_count);
    reply.partitions.iter().all(|partition| partition.members().filter(|member| lives(*member)).count() >= wanted)
}

/// Latencies before and during one learning.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// At the fixed rate, before the node was stopped.
    pub before: LatencySummary,
    /// At the same rate, from its start until all was whole.
    pub during: LatencySummary,
    /// p99 before and during of each kind of operation.
    pub operations_p99_us: BTreeMap<String, (f64, f64)>,
    /// p99 of each window during the learning, in their order.
    pub windows_p99_us: Vec<f64>,
    /// Operations that failed in either.
    pub errors: u64,
    /// How long it took from the start of the empty node.
    pub learned_s: f64,
}

impl Round {
    fn of(before: &Record, during: &Record, learned_s: f64) -> Round {
        let p99 = |record: &Record, name| record.operations.get(name).map_or(0.0, |of| of.latency.summary().p99_us);
        let names = during.operations.keys();
        Round {
            before: before.latency().summary(),
            during: during.latency().summary(),
            operations_p99_us: names.map(|name| ((*name).to_owned(), (p99(before, name), p99(during, name)))).collect(),
            windows_p99_us: Vec::new(),
            errors: before.error_count() + during.error_count(),
            learned_s,
        }
    }

    /// p99 during over p99 before.
    pub fn ratio(&self) -> f64 {
        self.during.p99_us / self.before.p99_us.max(1.0)
    }

    fn line(&self) -> String {
        let (before, during) = (microseconds(self.before.p99_us), microseconds(self.during.p99_us));
        let of_each = self.operations_p99_us.iter().map(|(name, (before, during))| {
            format!(", {name} {} and {}", microseconds(*before), microseconds(*during))
        });
        let of_each: String = of_each.collect();
        let (learned_s, ratio) = (self.learned_s, self.ratio());
        let windows: Vec<String> = self.windows_p99_us.iter().map(|p99_us| microseconds(*p99_us)).collect();
        let windows = windows.join(" ");
        let times = format!("{ratio:.2} times{of_each}; by windows {windows}");
        format!("p99 {before} us before, {during} us during {learned_s:.1} s: {times}")
    }
}

/// What `learning` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Rows.
    pub keys: u64,
    /// Length of each value.
    pub value_bytes: usize,
    /// Rows written before because they were missing.
    pub loaded: u64,
    /// Shares of the operations.
    pub mix: String,
    /// Operations a second of the closed loop.
    pub saturation_per_second: f64,
    /// Operations a second at which the pairs were measured.
    pub rate: f64,
    /// The pairs.
    pub rounds: Vec<Round>,
    /// Median of p99 during over p99 before.
    pub median_ratio: f64,
}

impl Report {
    fn text(&self) -> String {
        let mut table = TextTable::new(&[
            "round",
            "p50 before",
            "p99 before",
            "p50 during",
            "p99 during",
            "p99 ratio",
            "learned s",
            "errors",
        ]);
        for (round, number) in self.rounds.iter().zip(1..) {
            table.row(vec![
                format!("{number}"),
                microseconds(round.before.p50_us),
                microseconds(round.before.p99_us),
                microseconds(round.during.p50_us),
                microseconds(round.during.p99_us),
                format!("{:.2}", round.ratio()),
                format!("{:.1}", round.learned_s),
                count(round.errors as f64),
            ]);
        }
        let mut text = format!(
            "{}\n{} rows of {} B ({} loaded), {}; saturation {} a second, measured at {}\n\n{}",
            self.machine,
            count(self.keys as f64),
            self.value_bytes,
            count(self.loaded as f64),
            self.mix,
            count(self.saturation_per_second),
            count(self.rate),
            table.render()
        );
        let _ = writeln!(text, "\nmedian: p99 during learning is {:.2} times the p99 before", self.median_ratio);
        text
    }
}

/// Before each window.
const WARMUP: Duration = Duration::from_secs(2);
/// Latencies during a learning are taken in windows of this length.
const SLICE: Duration = Duration::from_secs(2);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use crate::workload::Outcome;
    use pegasus_wire::{Ballot, Configuration, Durability, NodeId, NodeInfo, TableId, TableProperties};

    use super::*;

    fn record(took_us: u64) -> Record {
        let (mut record, begun) = (Record::default(), Instant::now());
        record.add(Outcome::done("get"), begun, begun, begun + Duration::from_micros(took_us));
        record
    }

    #[test]
    fn a_dead_member_is_no_member() {
        let node = |number, alive| NodeInfo {
            node: NodeId(number),
            address: "127.0.0.1:1".parse().unwrap(),
            admin_address: "127.0.0.1:2".parse().unwrap(),
            cores: 1,
            alive,
        };
        let configuration =
            Configuration { ballot: Ballot(3), primary: Some(NodeId(1)), secondaries: vec![NodeId(2), NodeId(3)] };
        let mut reply = TableReply {
            table: TableProperties {
                table: TableId(1),
                name: "t".into(),
                partition_count: 1,
                replica_count: 3,
                durability: Durability::Synced,
            },
            environment: Vec::new(),
            partitions: vec![configuration],
            nodes: vec![node(1, true), node(2, true)],
        };
        assert!(!is_whole(&reply), "node 3 is not known");
        reply.nodes.push(node(3, false));
        assert!(!is_whole(&reply), "node 3 is not alive");
        reply.nodes[2].alive = true;
        assert!(is_whole(&reply));
        reply.partitions[0].secondaries.pop();
        assert!(!is_whole(&reply), "a member is missing");
    }

    #[test]
    fn the_text_has_every_pair_and_their_median() {
        let round = |before, during| Round::of(&record(before), &record(during), 9.5);
        let rounds = vec![round(1000, 1500), round(1000, 4000), round(1000, 1000)];
        assert!(rounds[0].line().contains(", get 1,000 and 1,500"), "{}", rounds[0].line());
        let ratios: Vec<f64> = rounds.iter().map(Round::ratio).collect();
        let report = Report {
            machine: Machine::now(),
            keys: 1_000_000,
            value_bytes: 1000,
            loaded: 0,
            mix: "get=50,set=50".into(),
            saturation_per_second: 10_000.0,
            rate: 3000.0,
            rounds,
            median_ratio: median_of(ratios),
        };
        let text = report.text();
        assert!(text.contains("is 1.50 times"), "{text}");
        assert!(text.contains("1,000,000 rows") && text.contains("measured at 3,000"), "{text}");
        assert!(text.contains("9.5"), "{text}");
    }
}
