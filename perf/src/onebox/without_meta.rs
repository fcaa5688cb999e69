//! `without-meta`: reads and writes while every meta server is down.
//!
//! A table is opened, then every meta server of the onebox is killed, and a load runs for a while. Every operation
//! must succeed within its deadline; one whose outcome is unknown counts as failed. The meta servers are started
//! again at the end, whatever happened.

use std::time::Duration;

use serde::Serialize;

use crate::failure::Failure;
use crate::measure::Measurement;
use crate::onebox::Onebox;
use crate::report::{Machine, measurement_table};
use crate::workload::options::{CommonOptions, WorkloadOptions, parse_rate, parse_seconds};
use crate::workload::{Cluster, Pace, client_runtime};

/// Options of `without-meta`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The cluster, its rows, and where the results go.
    #[command(flatten)]
    pub common: CommonOptions,
    /// The operations.
    #[command(flatten)]
    pub workload: WorkloadOptions,
    /// Operations per second; without it, each starts when one has ended
    #[arg(long, value_name = "OPS", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// How long the meta servers are down
    #[arg(long, default_value_t = 60.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// The meta servers
    #[arg(long, default_value = "meta1", value_delimiter = ',', value_name = "NAME")]
    pub metas: Vec<String>,
}

/// Kills the meta servers and measures.
pub fn run(options: &Options) -> Result<(), Failure> {
    let onebox = Onebox::find(&options.common.servers)?;
    let machine = Machine::now();
    let runtime = client_runtime(options.common.cluster.client_threads)?;
    let operations = runtime.block_on(measure(options, &onebox))?;
    let (done, failed) = (sum(&operations, |line| line.operations), sum(&operations, |line| line.errors));
    let report = Report { machine, seconds: options.seconds, operations, done, failed };
    options.common.output.emit(&report.text(), &report)?;
    if failed > 0 {
        return Err(Failure::new(format!("{failed} operations failed while no meta server was there")));
    }
    Ok(())
}

async fn measure(options: &Options, onebox: &Onebox) -> Result<Vec<Measurement>, Failure> {
    let Options { common, workload, .. } = options;
    let cluster = Cluster::connect(&common.cluster, usize::from(workload.connections)).await?;
    let table = cluster.prepare_for(workload, common).await?;
    let load = workload.load(common.table.keys, options.rate.map_or(Pace::Closed, Pace::Rate))?;
    let phases = common.cluster.phases(Duration::ZERO, options.seconds);
    common.output.progress(&format!("killing {}", options.metas.join(", ")));
    let mut outcome = Ok(());
    for meta in &options.metas {
        outcome = outcome.and(onebox.kill(meta).await);
    }
    let driven = match outcome {
        Ok(()) => table.drive(&load, phases, || Ok(())).await,
        Err(failure) => Err(failure),
    };
    for meta in &options.metas {
        onebox.start(meta).await?;
    }
    let driven = driven?;
    cluster.close().await;
    let lines = driven.record.operations.iter().map(|(name, record)| {
        let mut line = Measurement::new(*name, load.depth, &record.latency, driven.wall);
        line.errors = record.error_count();
        line
    });
    let mut lines: Vec<Measurement> = lines.collect();
    if let Some(first) = lines.first_mut() {
        first.errors += driven.unfinished;
    }
    Ok(lines)
}

fn sum(lines: &[Measurement], figure: impl Fn(&Measurement) -> u64) -> u64 {
    lines.iter().map(figure).sum()
}

/// What `without-meta` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// How long the meta servers were down.
    pub seconds: f64,
    /// By kind of operation.
    pub operations: Vec<Measurement>,
    /// Operations that succeeded.
    pub done: u64,
    /// Operations that failed, timed out, are unknown or never ended.
    pub failed: u64,
}

impl Report {
    fn text(&self) -> String {
        let Report { machine, seconds, operations, done, failed } = self;
        let table = measurement_table(operations).render();
        format!("{machine}\nno meta server for {seconds} s\n\n{table}\n{done} operations succeeded, {failed} failed\n")
    }
}

#[cfg(test)]
mod tests {
    use crate::measure::Latency;

    use super::*;

    #[test]
    fn failures_are_counted_and_told() {
        let mut latency = Latency::new();
        latency.record(Duration::from_millis(1));
        let mut get = Measurement::new("get", 16, &latency, Duration::from_secs(60));
        get.errors = 3;
        let operations = vec![get.clone(), get];
        let (done, failed) = (sum(&operations, |line| line.operations), sum(&operations, |line| line.errors));
        let report = Report { machine: Machine::now(), seconds: 60.0, operations, done, failed };
        let text = report.text();
        assert!(text.ends_with("2 operations succeeded, 6 failed\n"), "{text}");
    }
}
