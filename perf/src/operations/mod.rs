//! `operations`: what each operation of the data model costs, beside a plain get and a plain set.

use std::time::Duration;

use pegasus_wire::Durability;
use serde::Serialize;

use crate::failure::Failure;
use crate::measure::{Measurement, ServerProcess, median};
use crate::report::{Machine, TextTable, count, microseconds, optional_microseconds, ratio};
use crate::run;
use crate::workload::options::{CommonOptions, parse_depth, parse_seconds, table_of};
use crate::workload::perform::{MULTI_GET_ROWS, SCAN_ROWS, WIDE_VALUE_BYTES};
use crate::workload::{Cluster, Distribution, KeyChooser, Load, Mix, Operation, Pace, Prepared, client_runtime};

/// Options of `operations`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The cluster, its servers, the rows, and where the results go.
    #[command(flatten)]
    pub common: CommonOptions,
    /// When writes are acknowledged: synced or written
    #[arg(long, default_value = "synced")]
    pub durability: Durability,
    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// How long each line is measured
    #[arg(long, default_value_t = 3.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// Operations in flight; of those on many rows an eighth
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = parse_depth)]
    pub depth: usize,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Its figures.
    pub measurement: Measurement,
    /// Rows that one operation reads or writes.
    pub rows: u64,
    /// Server CPU of it over that of a get.
    pub of_get: Option<f64>,
    /// Server CPU of it over that of a set.
    pub of_set: Option<f64>,
}

/// What `operations` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// The storage nodes.
    pub servers: Vec<ServerProcess>,
    /// Of the table.
    pub durability: String,
    /// Length of the values that get, set and cas move.
    pub value_bytes: usize,
    /// Every round as it was measured, by operation.
    pub rounds: Vec<Vec<Measurement>>,
    /// The medians.
    pub lines: Vec<Line>,
}

/// Measures the rounds and shows the medians.
pub fn run(options: &Options) -> Result<(), Failure> {
    let CommonOptions { cluster, servers, table, output } = &options.common;
    let machine = Machine::now();
    let servers = servers.require()?;
    let runtime = client_runtime(cluster.client_threads)?;
    let rounds = runtime.block_on(async {
        let cluster = Cluster::connect(cluster, 1).await?;
        output.progress("preparing the table");
        let prepared = cluster.prepare(&table_of(options.durability), options.durability, table).await?;
        prepared.load_wide().await?;
        let mut rounds = Vec::new();
        for round in 1..=options.rounds {
            output.progress(&format!("round {round} of {}", options.rounds));
            rounds.push(measure(options, &prepared, &servers).await?);
        }
        cluster.close().await;
        Ok::<_, Failure>(rounds)
    })?;
    let lines = lines(&rounds);
    let (durability, value_bytes) = (options.durability.to_string(), table.value_bytes);
    let report = Report { machine, servers, durability, value_bytes, rounds, lines };
    output.emit(&report.text(), &report)
}

async fn measure(options: &Options, table: &Prepared, servers: &[ServerProcess]) -> Result<Vec<Measurement>, Failure> {
    let keys = KeyChooser::new(Distribution::Uniform, options.common.table.keys)?;
    let phases = options.common.cluster.phases(WARMUP, options.seconds);
    let mut measurements = Vec::new();
    for operation in OPERATIONS {
        let depth = if rows_of(operation) > 1 { (options.depth / 8).max(1) } else { options.depth };
        let load = Load { mix: Mix::only(operation), keys: keys.clone(), depth, pace: Pace::Closed };
        let mut measurement = run::measure(table, &load, phases, servers).await?.total;
        measurement.name = operation.name().to_owned();
        measurements.push(measurement);
    }
    Ok(measurements)
}

/// The median of each operation over the rounds, with its cost beside a get and a set.
fn lines(rounds: &[Vec<Measurement>]) -> Vec<Line> {
    let of = |place: usize| {
        let figures: Vec<Measurement> = rounds.iter().filter_map(|round| round.get(place).cloned()).collect();
        median(&figures)
    };
    let medians: Vec<(Operation, Measurement)> =
        OPERATIONS.iter().enumerate().filter_map(|(place, operation)| Some((*operation, of(place)?))).collect();
    let cost = |wanted: Operation| {
        medians.iter().find(|(operation, _)| *operation == wanted).and_then(|(_, figures)| figures.server_cpu_us)
    };
    let over = |cost: Option<f64>, plain: Option<f64>| {
        cost.zip(plain).filter(|(_, plain)| *plain > 0.0).map(|(cost, plain)| cost / plain)
    };
    let line = |(operation, measurement): &(Operation, Measurement)| Line {
        measurement: measurement.clone(),
        rows: rows_of(*operation),
        of_get: over(measurement.server_cpu_us, cost(Operation::Get)),
        of_set: over(measurement.server_cpu_us, cost(Operation::Set)),
    };
    medians.iter().map(line).collect()
}

fn rows_of(operation: Operation) -> u64 {
    match operation {
        Operation::MultiGet => MULTI_GET_ROWS,
        Operation::Scan => SCAN_ROWS,
        _ => 1,
    }
}

impl Report {
    /// The report for people.
    pub fn text(&self) -> String {
        let mut table = TextTable::new(&[
            "median of rounds, times in us",
            "rows",
            "depth",
            "per second",
            "p50",
            "p99",
            "client CPU/op",
            "server CPU/op",
            "CPU/get",
            "CPU/set",
            "CPU/row",
            "errors",
        ]);
        for Line { measurement, rows, of_get, of_set } in &self.lines {
            let per_row = measurement.server_cpu_us.map(|cost| cost / *rows as f64);
            table.row(vec![
                measurement.name.clone(),
                rows.to_string(),
                measurement.depth.to_string(),
                count(measurement.per_second),
                microseconds(measurement.latency.p50_us),
                microseconds(measurement.latency.p99_us),
                optional_microseconds(measurement.client_cpu_us),
                optional_microseconds(measurement.server_cpu_us),
                ratio(*of_get, Some(1.0)),
                ratio(*of_set, Some(1.0)),
                optional_microseconds(per_row),
                if measurement.errors == 0 { "-".to_owned() } else { measurement.errors.to_string() },
            ]);
        }
        let Report { machine, servers, durability, value_bytes, rounds, .. } = self;
        format!(
            "{machine}\n{} storage nodes, a {durability} table, values of {value_bytes} B, and of {WIDE_VALUE_BYTES} B \
             where there are many rows, {} rounds\n\n{}",
            servers.len(),
            rounds.len(),
            table.render()
        )
    }
}

/// What is measured, in the order of the table.
const OPERATIONS: [Operation; 7] = [
    Operation::Get,
    Operation::Set,
    Operation::Increment,
    Operation::CheckAndSet,
    Operation::DeleteRange,
    Operation::MultiGet,
    Operation::Scan,
];
/// Before each line.
const WARMUP: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn round(get_cpu_us: f64) -> Vec<Measurement> {
        let figures = |place: usize| Measurement {
            name: OPERATIONS[place].name().to_owned(),
            depth: 8,
            operations: 10,
            server_cpu_us: Some(get_cpu_us * (place + 1) as f64),
            ..Measurement::default()
        };
        (0..OPERATIONS.len()).map(figures).collect()
    }

    #[test]
    fn costs_stand_beside_a_get_and_a_set() {
        let lines = lines(&[round(10.0), round(30.0), round(20.0)]);
        assert_eq!(lines.len(), OPERATIONS.len());
        assert_eq!((lines[0].of_get, lines[0].of_set), (Some(1.0), Some(0.5)));
        assert_eq!((lines[3].measurement.server_cpu_us, lines[3].of_get), (Some(80.0), Some(4.0)));
        let text = Report {
            machine: Machine::now(),
            servers: vec![],
            durability: "synced".to_owned(),
            value_bytes: 1000,
            rounds: vec![],
            lines,
        }
        .text();
        for part in ["multi_get", "cas", "del_range", "7.00x", "CPU/row"] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn without_server_cpu_there_is_no_ratio() {
        let mut unknown = round(10.0);
        unknown.iter_mut().for_each(|figures| figures.server_cpu_us = None);
        assert!(lines(&[unknown]).iter().all(|line| line.of_get.is_none() && line.of_set.is_none()));
        assert!(lines(&[]).is_empty());
    }
}
