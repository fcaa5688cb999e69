//! `throttle`: a table is held to its configured rate, and another table on the same cores does not feel it.

pub mod cases;

use std::time::Duration;

use pegasus_client::{Client, EnvironmentChange};
use serde::Serialize;

use crate::chaos::verdict::Verdict;
use crate::failure::Failure;
use crate::proof::{Bench, Conclusion, Stage, StageOptions};
use crate::report::{TextTable, count};
use crate::throttle::cases::{Case, Held, Unit, cases};
use crate::workload::keys::HASH_KEY_BYTES;
use crate::workload::options::{ClusterOptions, TableOptions, parse_seconds, parse_within};
use crate::workload::{Cluster, Distribution, Driven, KeyChooser, Load, Mix, Operation, Pace, Phases, Prepared};

/// Options of `throttle`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Requests a second that the throttled table is allowed
    #[arg(long, default_value_t = 800, value_name = "N", value_parser = parse_rate)]
    pub rate: u64,
    /// Bytes a second that it is allowed
    #[arg(long, default_value_t = 2_000_000, value_name = "N", value_parser = parse_bytes_rate)]
    pub bytes_rate: u64,
    /// How long each setting is measured
    #[arg(long, default_value_t = 5.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// Requests a second of the other table
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub neighbour_rate: u32,
    /// The cluster, the seed, and where the results go.
    #[command(flatten)]
    pub stage: StageOptions,
}

/// What `throttle` found.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// The other table while nothing else goes on.
    pub alone_p99_ms: f64,
    /// Each setting; first those without a throttle.
    pub cases: Vec<Held>,
}

/// Throttles and measures.
pub fn run(options: &Options) -> Result<Verdict, Failure> {
    options.stage.prove("throttle", |stage| prove(options, stage))
}

fn prove(options: &Options, stage: &mut Stage<'_>) -> Result<Conclusion<Findings>, Failure> {
    let (asked, output) = (options.clone(), options.stage.output.clone());
    let findings = stage.play_under_kills(PART_TIME, move |bench| async move {
        let client = Client::connect(bench.client.clone()).await.map_err(Failure::at("connect"))?;
        let cluster = Cluster::connect(&cluster_options(&asked, &bench), 1).await?;
        let bench = Tables::prepare(&asked, &cluster, client).await?;
        let findings = bench.measure(&asked, |line| output.progress(line)).await;
        cluster.close().await;
        findings
    })?;
    Ok(conclude(findings))
}

/// The same cluster in the words of the workloads.
fn cluster_options(options: &Options, bench: &Bench) -> ClusterOptions {
    ClusterOptions {
        meta: bench.client.meta_servers.clone(),
        tls: bench.client.ca.parent().map(Into::into),
        timeout_ms: options.stage.setup.timeout_ms,
        client_threads: 1,
    }
}

/// Two tables whose partitions are on the same cores, and the operator's client.
struct Tables {
    client: Client,
    throttled: Prepared,
    neighbour: Prepared,
}

impl Tables {
    async fn prepare(options: &Options, cluster: &Cluster, client: Client) -> Result<Tables, Failure> {
        let durability = options.stage.setup.durability;
        let table = |value_bytes| TableOptions { partitions: PARTITIONS, replicas: 3, keys: KEYS, value_bytes };
        // Large enough that what a server counts beside the value does not matter.
        let throttled = cluster.prepare(THROTTLED, durability, &table(VALUE_BYTES)).await?;
        let neighbour = cluster.prepare(NEIGHBOUR, durability, &table(100)).await?;
        Ok(Tables { client, throttled, neighbour })
    }

    async fn measure(&self, options: &Options, tell: impl Fn(&str)) -> Result<Findings, Failure> {
        tell("the other table alone");
        let alone = self.drive_neighbour(options).await?;
        let mut held = Vec::new();
        for (operation, name) in [(Operation::Set, "writes, not throttled"), (Operation::Get, "reads, not throttled")] {
            tell(name);
            held.push(self.measure_one(options, name.to_owned(), Mix::only(operation), Unit::Operations, None).await?);
        }
        for case in cases(options.rate, options.bytes_rate) {
            tell(&case.setting());
            let Case { key, ref value, unit, rate, .. } = case;
            let change = EnvironmentChange { clear: true, ..EnvironmentChange::set(key, value) };
            self.client.change_environment(THROTTLED, &change).await.map_err(Failure::at("set a throttle"))?;
            held.push(self.measure_one(options, case.setting(), case.mix(), unit, Some(rate)).await?);
        }
        let alone_p99_ms = alone.record.latency().summary().p99_us / 1e3;
        Ok(Findings { alone_p99_ms, cases: held })
    }

    async fn measure_one(
        &self,
        options: &Options,
        setting: String,
        mix: Mix,
        unit: Unit,
        allowed: Option<u64>,
    ) -> Result<Held, Failure> {
        let keys = KeyChooser::new(Distribution::Uniform, KEYS)?;
        let load = Load { mix, keys, depth: DEPTH, pace: Pace::Closed };
        let throttled = self.throttled.drive(&load, phases(options), || Ok(()));
        let (throttled, neighbour) = tokio::join!(throttled, self.drive_neighbour(options));
        let (throttled, neighbour) = (throttled?, neighbour?);
        let per_second = throttled.record.done_count() as f64 / throttled.wall.as_secs_f64();
        let measured = match unit {
            Unit::Operations => per_second,
            Unit::Bytes => per_second * (VALUE_BYTES + HASH_KEY_BYTES) as f64,
        };
        let (beside, latency) = (neighbour.record.latency().summary(), throttled.record.latency().summary());
        Ok(Held {
            setting,
            unit,
            allowed,
            measured,
            p50_ms: latency.p50_us / 1e3,
            errors: throttled.record.error_count(),
            neighbour_p99_ms: beside.p99_us / 1e3,
            neighbour_p50_ms: beside.p50_us / 1e3,
            neighbour_rate: neighbour.record.done_count() as f64 / neighbour.wall.as_secs_f64(),
        })
    }

    /// Reads and writes at a fixed rate.
    async fn drive_neighbour(&self, options: &Options) -> Result<Driven<()>, Failure> {
        let mix: Mix = "get=50,set=50".parse().map_err(Failure::at("mix reads and writes"))?;
        let keys = KeyChooser::new(Distribution::Uniform, KEYS)?;
        let load = Load { mix, keys, depth: DEPTH, pace: Pace::Rate(f64::from(options.neighbour_rate)) };
        self.neighbour.drive(&load, phases(options), || Ok(())).await
    }
}

fn phases(options: &Options) -> Phases {
    let drain = options.stage.setup.timeout() + Duration::from_secs(1);
    Phases { warmup: EFFECT_TIME, measured: Duration::from_secs_f64(options.seconds), drain }
}

fn conclude(findings: Findings) -> Conclusion<Findings> {
    let mut table = TextTable::new(&[
        "throttled table",
        "allowed",
        "measured",
        "ratio",
        "p50 ms",
        "errors",
        "other table: a second",
        "p50 ms",
        "p99 ms",
    ]);
    for held in &findings.cases {
        table.row(vec![
            held.setting.clone(),
            held.allowed.map_or("-".to_owned(), |allowed| count(allowed as f64)),
            count(held.measured),
            held.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.3}")),
            format!("{:.2}", held.p50_ms),
            held.errors.to_string(),
            count(held.neighbour_rate),
            format!("{:.2}", held.neighbour_p50_ms),
            format!("{:.2}", held.neighbour_p99_ms),
        ]);
    }
    let problems: Vec<String> = findings.cases.iter().filter_map(Held::problem).collect();
    let throttled = || findings.cases.iter().filter(|held| held.allowed.is_some());
    let worst = throttled().filter_map(Held::ratio).map(|ratio| (ratio - 1.0).abs()).fold(0.0, f64::max);
    let beside = throttled().map(|held| held.neighbour_p99_ms).fold(0.0, f64::max);
    let alone = findings.alone_p99_ms;
    let counts = format!(
        "{} settings, rates off by {:.1} % at most; p99 of the other table {alone:.2} ms alone, {beside:.2} ms at most \
         beside them",
        throttled().count(),
        worst * 100.0
    );
    let undecided = too_slow(&findings.cases);
    Conclusion { counts, text: table.render(), problems, undecided, details: findings }
}

/// A rate that is not reached without a throttle shows nothing.
fn too_slow(cases: &[Held]) -> Vec<String> {
    let free = |reads: bool| {
        let of_kind = |held: &&Held| held.allowed.is_none() && held.setting.starts_with("reads") == reads;
        cases.iter().find(of_kind).map_or(0.0, |held| held.measured)
    };
    let is_too_slow = |held: &&Held| {
        let in_operations = match held.unit {
            Unit::Operations => 1.0,
            Unit::Bytes => (VALUE_BYTES + HASH_KEY_BYTES) as f64,
        };
        let reads = held.setting.contains("read_throttling");
        held.allowed.is_some_and(|allowed| free(reads) * in_operations < FREE_FACTOR * allowed as f64)
    };
    let say = |held: &Held| format!("{}: without it the machine does hardly more", held.setting);
    cases.iter().filter(is_too_slow).map(say).collect()
}

/// Small rates are not measured within a tenth in some seconds.
fn parse_rate(text: &str) -> Result<u64, String> {
    parse_within(text, 100, 1_000_000).map(|rate| rate as u64)
}

fn parse_bytes_rate(text: &str) -> Result<u64, String> {
    parse_within(text, 100_000, 1_000_000_000).map(|rate| rate as u64)
}

const THROTTLED: &str = "throttled";
const NEIGHBOUR: &str = "neighbour";
/// Partitions of each table. All cores of a node own some of both.
const PARTITIONS: u32 = 4;
const KEYS: u64 = 400;
const VALUE_BYTES: usize = 8000;
/// Operations under way at a time, on each table.
const DEPTH: usize = 64;
/// A setting is in effect everywhere by then.
const EFFECT_TIME: Duration = Duration::from_secs(4);
/// Without a throttle the rate has to be that much higher.
const FREE_FACTOR: f64 = 1.3;
/// How long all of it may take.
const PART_TIME: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn held(setting: &str, allowed: Option<u64>, measured: f64, unit: Unit) -> Held {
        Held {
            setting: setting.to_owned(),
            unit,
            allowed,
            measured,
            p50_ms: 60.0,
            errors: 0,
            neighbour_p99_ms: 2.5,
            neighbour_p50_ms: 1.0,
            neighbour_rate: 200.0,
        }
    }

    #[test]
    fn rates_are_judged_and_the_neighbour_is_told() {
        let cases = vec![
            held("writes, not throttled", None, 5000.0, Unit::Operations),
            held("reads, not throttled", None, 9000.0, Unit::Operations),
            held("replica.write_throttling = 800*delay*2000", Some(800), 820.0, Unit::Operations),
            held("replica.read_throttling = 800*reject*0", Some(800), 1000.0, Unit::Operations),
        ];
        let conclusion = conclude(Findings { alone_p99_ms: 1.5, cases });
        assert_eq!(conclusion.problems.len(), 1, "{:?}", conclusion.problems);
        assert!(conclusion.problems[0].contains("read_throttling") && conclusion.undecided.is_empty());
        assert!(conclusion.counts.contains("2 settings, rates off by 25.0 % at most"), "{}", conclusion.counts);
        assert!(conclusion.counts.contains("1.50 ms alone, 2.50 ms at most"), "{}", conclusion.counts);
    }

    #[test]
    fn a_machine_that_is_too_slow_shows_nothing() {
        let bytes = 900.0 * VALUE_BYTES as f64;
        let cases = vec![
            held("writes, not throttled", None, 900.0, Unit::Operations),
            held("replica.write_throttling = 800*delay*2000", Some(800), 800.0, Unit::Operations),
            held("replica.write_throttling_by_size = 2M*delay*0", Some(bytes as u64 / 4), 800.0, Unit::Bytes),
        ];
        assert_eq!(too_slow(&cases).len(), 1);
    }
}
