//! `run`: a workload against a cluster: latencies, rates, errors, and what an operation costs in CPU.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use pegasus_driver::Target;
use serde::Serialize;

use crate::failure::Failure;
use crate::measure::measurement::per_operation_us;
use crate::measure::{CpuSnapshot, CpuUse, LatencySummary, Measurement, ServerProcess, process_cpu};
use crate::report::{Machine, TextTable, count, measurement_table, microseconds};
use crate::workload::options::{CommonOptions, WorkloadOptions, parse_rate, parse_seconds};
use crate::workload::{Cluster, Driven, Load, Pace, Phases, Prepared, Rows, client_runtime, thrift};

/// Options of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The cluster, its servers, the rows, and where the results go.
    #[command(flatten)]
    pub common: CommonOptions,
    /// The operations.
    #[command(flatten)]
    pub workload: WorkloadOptions,
    /// A table of any server that speaks Pegasus's Thrift protocol, as pegasus://host:port,host:port/table, in place
    /// of a cluster through our own protocol; made with the given partitions and replicas if it is missing
    #[arg(long, value_name = "ADDRESS", value_parser = Target::parse)]
    #[arg(conflicts_with_all = ["meta", "tls", "table", "durability"])]
    pub target: Option<Target>,
    /// Operations per second, started at their intended times; without it, each starts when one has ended
    #[arg(long, value_name = "OPS", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// How long to measure
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// How long to run before that
    #[arg(long, default_value_t = 2.0, value_parser = parse_seconds)]
    pub warmup_seconds: f64,
}

/// Runs the workload and shows the figures.
pub fn run(options: &Options) -> Result<(), Failure> {
    let Options { common, workload, target, rate, seconds, warmup_seconds } = options;
    if target.is_some() {
        thrift::check_mix(&workload.mix)?;
    }
    let machine = Machine::now();
    let servers = common.servers.find()?;
    let load = workload.load(common.table.keys, rate.map_or(Pace::Closed, Pace::Rate))?;
    let phases = common.cluster.phases(Duration::from_secs_f64(*warmup_seconds), *seconds);
    let runtime = client_runtime(common.cluster.client_threads)?;
    let (loaded, figures) = runtime.block_on(async {
        match target {
            None => {
                let cluster = Cluster::connect(&common.cluster, usize::from(workload.connections)).await?;
                let prepared = cluster.prepare_for(workload, common).await?;
                let figures = measure(&prepared, &load, phases, &servers).await;
                cluster.close().await;
                Ok::<_, Failure>((prepared.loaded, figures?))
            }
            Some(target) => {
                common.output.progress("preparing the table");
                let prepared = thrift::prepare(target, workload.connections, &common.cluster, &common.table).await?;
                prepared.load_wide_for(&workload.mix).await?;
                Ok((prepared.loaded, measure(&prepared, &load, phases, &servers).await?))
            }
        }
    })?;
    let report = Report { machine, setting: setting(options, &servers, loaded), figures };
    common.output.emit(&report.text(), &report)
}

/// Drives a load on a table and works out its figures, with the CPU time of these servers.
pub async fn measure<T: Rows>(
    table: &Prepared<T>,
    load: &Load,
    phases: Phases,
    servers: &[ServerProcess],
) -> Result<Figures, Failure> {
    let probe = || Ok((process_cpu(), CpuSnapshot::take(servers)?));
    let driven = table.drive(load, phases, probe).await?;
    let client = driven.after.0.saturating_sub(driven.before.0);
    let server = (!servers.is_empty()).then(|| driven.before.1.until(&driven.after.1));
    Ok(Figures::new(&driven, load.depth, client, server.as_ref()))
}

/// What a run was.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The table; with its address if it was reached by it.
    pub table: String,
    /// Shares of the operations.
    pub mix: String,
    /// Rows.
    pub keys: u64,
    /// Rows written before the run because they were missing.
    pub loaded: u64,
    /// Length of each value.
    pub value_bytes: usize,
    /// How operations are spread over the rows.
    pub distribution: String,
    /// Operations in flight.
    pub depth: usize,
    /// Clients.
    pub connections: u16,
    /// Operations per second asked for; `None` in a closed loop.
    pub rate: Option<f64>,
    /// How long was measured.
    pub seconds: f64,
    /// The processes whose CPU time was read.
    pub servers: Vec<ServerProcess>,
}

/// What came out of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// All operations together.
    pub total: Measurement,
    /// Each kind of operation by itself; without CPU time, which cannot be told apart.
    pub operations: Vec<OperationFigures>,
    /// CPU time of the servers per operation, by group of threads, in microseconds.
    pub server_cpu_groups_us: BTreeMap<String, f64>,
    /// Operations of a fixed rate that were due and not started at the end.
    pub not_started: u64,
    /// Operations that did not end within their time limit after the end.
    pub unfinished: u64,
}

/// Figures of one kind of operation.
#[derive(Clone, Debug, Serialize)]
pub struct OperationFigures {
    /// Latency from the intended start.
    pub measurement: Measurement,
    /// Latency from the actual start.
    pub service: LatencySummary,
    /// Failed operations by kind.
    pub errors: BTreeMap<String, u64>,
}

impl Figures {
    fn new<P>(driven: &Driven<P>, depth: usize, client: Duration, server: Option<&CpuUse>) -> Figures {
        let record = &driven.record;
        let mut total = Measurement::new("all", depth, &record.latency(), driven.wall).with_client_cpu(client);
        total.errors = record.error_count();
        if let Some(server) = server {
            total = total.with_server_cpu(server.total);
        }
        let operations = record.operations.iter().map(|(name, record)| {
            let mut measurement = Measurement::new(*name, depth, &record.latency, driven.wall);
            measurement.errors = record.error_count();
            let errors = record.errors.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
            OperationFigures { measurement, service: record.service.summary(), errors }
        });
        let groups = server.into_iter().flat_map(|server| &server.groups);
        let groups =
            groups.filter_map(|(group, used)| Some((group.clone(), per_operation_us(*used, total.operations)?)));
        Figures {
            operations: operations.collect(),
            server_cpu_groups_us: groups.collect(),
            not_started: driven.not_started,
            unfinished: driven.unfinished,
            total,
        }
    }
}

/// A run and its figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// What.
    pub setting: Setting,
    /// How it went.
    pub figures: Figures,
}

impl Report {
    /// The report for people.
    pub fn text(&self) -> String {
        let Report { machine, setting, figures } = self;
        let pace = setting.rate.map_or_else(|| "closed loop".to_owned(), |rate| format!("{} a second", count(rate)));
        let mut text = format!(
            "{machine}\ntable {}, {}, {} rows ({}, {} loaded), {} B values, {pace}, depth {}, {} client(s), {} s\n\n",
            setting.table,
            setting.mix,
            count(setting.keys as f64),
            setting.distribution,
            count(setting.loaded as f64),
            setting.value_bytes,
            setting.depth,
            setting.connections,
            setting.seconds,
        );
        let rows = figures.operations.iter().map(|operation| operation.measurement.clone());
        let rows: Vec<_> = rows.chain(std::iter::once(figures.total.clone())).collect();
        text.push_str(&measurement_table(&rows).render());
        text.push_str(&self.details());
        text
    }

    fn details(&self) -> String {
        let Report { setting, figures, .. } = self;
        let mut text = String::new();
        for OperationFigures { measurement, service, errors } in &figures.operations {
            if setting.rate.is_some() {
                let (p50, p99) = (microseconds(service.p50_us), microseconds(service.p99_us));
                let _ = write!(text, "\n{} from its actual start: p50 {p50}, p99 {p99} us", measurement.name);
            }
            for (kind, times) in errors {
                let _ = write!(text, "\n{} failed {times} times: {kind}", measurement.name);
            }
        }
        if figures.not_started > 0 {
            let _ =
                write!(text, "\n{} operations were due and not started: the rate was not kept", figures.not_started);
        }
        if figures.unfinished > 0 {
            let _ = write!(text, "\n{} operations had not ended when the run was over", figures.unfinished);
        }
        if setting.servers.is_empty() {
            text.push_str("\nno server CPU: name the nodes with --onebox DIR or --server-pids");
        }
        if !text.is_empty() {
            text.push('\n');
        }
        if !figures.server_cpu_groups_us.is_empty() {
            let mut table = TextTable::new(&["server threads", "CPU us/op"]);
            for (group, used_us) in &figures.server_cpu_groups_us {
                table.row(vec![group.clone(), microseconds(*used_us)]);
            }
            text.push('\n');
            text.push_str(&table.render());
        }
        text
    }
}

fn setting(options: &Options, servers: &[ServerProcess], loaded: u64) -> Setting {
    let Options { common, workload, .. } = options;
    Setting {
        table: options.target.as_ref().map_or_else(|| workload.table_name(), Target::to_string),
        mix: workload.mix.to_string(),
        keys: common.table.keys,
        loaded,
        value_bytes: common.table.value_bytes,
        distribution: format!("{:?}", workload.distribution).to_lowercase(),
        depth: workload.depth,
        connections: workload.connections,
        rate: options.rate,
        seconds: options.seconds,
        servers: servers.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crate::workload::{Outcome, Record};

    use super::*;

    fn driven() -> Driven<()> {
        let mut record = Record::default();
        let intended = Instant::now();
        let (started, ended) = (intended + Duration::from_millis(2), intended + Duration::from_millis(3));
        for _ in 0..100 {
            record.add(Outcome::done("get"), intended, started, ended);
        }
        record.add(Outcome::failed("set", "unknown"), intended, started, ended);
        Driven { record, wall: Duration::from_secs(1), before: (), after: (), not_started: 7, unfinished: 1 }
    }

    fn report() -> Report {
        let server = CpuUse {
            total: Duration::from_millis(2),
            groups: BTreeMap::from([("core-*".to_owned(), Duration::from_millis(1))]),
        };
        let setting = Setting {
            table: "perf_synced".to_owned(),
            mix: "get=50,set=50".to_owned(),
            keys: 10_000,
            loaded: 0,
            value_bytes: 1000,
            distribution: "uniform".to_owned(),
            depth: 64,
            connections: 1,
            rate: Some(100.0),
            seconds: 1.0,
            servers: vec![ServerProcess { name: "replica1".to_owned(), pid: 1 }],
        };
        let figures = Figures::new(&driven(), 64, Duration::from_millis(1), Some(&server));
        Report { machine: Machine::now(), setting, figures }
    }

    #[test]
    fn costs_are_divided_by_the_operations_that_were_done() {
        let Figures { total, operations, server_cpu_groups_us, .. } = report().figures;
        assert_eq!((total.operations, total.errors, total.per_second), (100, 1, 100.0));
        assert_eq!((total.client_cpu_us, total.server_cpu_us), (Some(10.0), Some(20.0)));
        assert_eq!(server_cpu_groups_us["core-*"], 10.0);
        assert_eq!(operations.len(), 2);
        assert_eq!(operations[1].errors["unknown"], 1);
    }

    #[test]
    fn the_text_tells_what_went_wrong_and_what_it_cost() {
        let text = report().text();
        for part in [
            "get=50,set=50",
            "100 a second",
            "set failed 1 times: unknown",
            "7 operations were due",
            "1 operations had not ended",
            "get from its actual start: p50 1,000",
            "core-*",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn the_json_has_the_figures() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["figures"]["total"]["server_cpu_us"], 20.0);
        assert_eq!(json["setting"]["servers"][0]["name"], "replica1");
        assert_eq!(json["figures"]["operations"][0]["measurement"]["name"], "get");
    }
}
