//! `trace`: which system calls the serving threads make under a mixed load.
//!
//! A thread that serves is meant to make io_uring, socket and memory calls only: any other can block it. The load runs
//! in this process; strace is attached to the threads named `core-<i>` of the storage nodes while the load is measured,
//! and detached before it ends. Tracing slows the servers down several times; latencies seen meanwhile mean nothing.

pub mod attach;
pub mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::failure::Failure;
use crate::measure::ServerProcess;
use crate::measure::process::{thread_group, thread_stats};
use crate::report::{Machine, TextTable, count, microseconds};
use crate::trace::attach::{Attached, Traced};
use crate::trace::summary::Summary;
use crate::workload::options::{CommonOptions, WorkloadOptions, parse_seconds};
use crate::workload::{Cluster, Pace, client_runtime, drive};

/// Options of `trace`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The cluster, its servers, the rows, and where the results go.
    #[command(flatten)]
    pub common: CommonOptions,
    /// The operations.
    #[command(flatten)]
    pub workload: WorkloadOptions,
    /// How long to trace
    #[arg(long, default_value_t = 60.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// Threads whose name begins so are traced
    #[arg(long, default_value = "core-", value_name = "PREFIX")]
    pub thread_prefix: String,
    /// The strace program
    #[arg(long, default_value = "strace", value_name = "PROGRAM")]
    pub strace: PathBuf,
}

/// A thread to trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServingThread {
    /// The node.
    pub server: String,
    /// Its name.
    pub name: String,
    /// Its number.
    pub thread: u32,
}

/// What `trace` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// The threads that were traced.
    pub threads: Vec<ServingThread>,
    /// How long.
    pub seconds: f64,
    /// Operations completed meanwhile.
    pub operations: u64,
    /// Operations that failed meanwhile.
    pub errors: u64,
    /// The calls.
    pub summary: Summary,
    /// Kernel threads that do what io_uring could not do without blocking, by group of names, at the end.
    pub kernel_workers: BTreeMap<String, usize>,
    /// What strace itself had to say.
    pub messages: Vec<String>,
}

/// Traces and shows the calls.
pub fn run(options: &Options) -> Result<(), Failure> {
    let machine = Machine::now();
    attach::check(&options.strace)?;
    let servers = options.common.servers.require()?;
    let threads = serving_threads(&servers, &options.thread_prefix)?;
    let runtime = client_runtime(options.common.cluster.client_threads)?;
    let (traced, operations, errors) = runtime.block_on(trace_under_load(options, &threads))?;
    let Traced { summary, messages } = traced;
    if summary.calls.is_empty() {
        return Err(Failure::new(format!("strace saw no call of the serving threads: {}", messages.join("; "))));
    }
    let kernel_workers = kernel_workers(&servers)?;
    let seconds = options.seconds;
    let report = Report { machine, threads, seconds, operations, errors, summary, kernel_workers, messages };
    options.common.output.emit(&report.text(), &report)
}

/// Runs the load and traces while it is measured; returns the calls and how many operations were done and failed.
async fn trace_under_load(options: &Options, threads: &[ServingThread]) -> Result<(Traced, u64, u64), Failure> {
    let Options { common, workload, seconds, .. } = options;
    let cluster = Cluster::connect(&common.cluster, usize::from(workload.connections)).await?;
    let prepared = cluster.prepare_for(workload, common).await?;
    let load = workload.load(common.table.keys, Pace::Closed)?;
    let phases = common.cluster.phases(WARMUP, *seconds);
    let numbers: Vec<u32> = threads.iter().map(|thread| thread.thread).collect();
    common.output.progress(&format!("tracing {} threads for {seconds} s", numbers.len()));

    let mut attached = None;
    let driven = prepared
        .drive(&load, phases, || match attached.take() {
            None => {
                attached = Some(Attached::start(&options.strace, &numbers)?);
                Ok(None)
            }
            Some(attached) => Attached::stop(attached).map(Some),
        })
        .await;
    cluster.close().await;
    let driven: drive::Driven<Option<Traced>> = driven?;
    let (operations, errors) = (driven.record.done_count(), driven.record.error_count());
    let traced = driven.after.ok_or_else(|| Failure::new("strace was not attached"))?;
    Ok((traced, operations, errors))
}

/// The threads of these servers whose names begin so; there must be some. Helper threads inherit the name of the
/// thread that starts them, so of several with one name only the first, which is the executor, serves.
fn serving_threads(servers: &[ServerProcess], prefix: &str) -> Result<Vec<ServingThread>, Failure> {
    let mut threads: Vec<ServingThread> = Vec::new();
    for server in servers {
        let mut names = BTreeSet::new();
        for (thread, stat) in thread_stats(server.pid)? {
            if stat.name.starts_with(prefix) && names.insert(stat.name.clone()) {
                threads.push(ServingThread { server: server.name.clone(), name: stat.name, thread });
            }
        }
    }
    if threads.is_empty() {
        return Err(Failure::new(format!("no thread of the storage nodes has a name that begins with {prefix:?}")));
    }
    Ok(threads)
}

/// Threads the kernel runs inside these servers for io_uring, by group.
fn kernel_workers(servers: &[ServerProcess]) -> Result<BTreeMap<String, usize>, Failure> {
    let mut groups: BTreeMap<String, usize> = BTreeMap::new();
    for server in servers {
        for (_, stat) in thread_stats(server.pid)? {
            if stat.name.starts_with("iou-") {
                *groups.entry(thread_group(&stat.name)).or_default() += 1;
            }
        }
    }
    Ok(groups)
}

impl Report {
    /// The report for people.
    pub fn text(&self) -> String {
        let mut table = TextTable::new(&["system call", "count", "per operation", "longest us", "total ms", ""]);
        for (name, call) in self.summary.ordered() {
            let per_operation = if self.operations > 0 { call.count as f64 / self.operations as f64 } else { 0.0 };
            table.row(vec![
                name.to_owned(),
                count(call.count as f64),
                format!("{per_operation:.3}"),
                microseconds(call.longest_us),
                count(call.total_us / 1000.0),
                if call.expected { String::new() } else { "NOT EXPECTED".to_owned() },
            ]);
        }
        let names: Vec<String> =
            self.threads.iter().map(|thread| format!("{} {}", thread.server, thread.name)).collect();
        let mut text = format!(
            "{}\n{} operations ({} failed) in {} s under strace on {}\n\n{}",
            self.machine,
            count(self.operations as f64),
            self.errors,
            self.seconds,
            names.join(", "),
            table.render()
        );
        text.push_str(&self.details());
        text
    }

    fn details(&self) -> String {
        let mut text = String::from("\n");
        // Writing into a string cannot fail.
        match self.summary.unexpected().count() {
            0 => text.push_str("nothing but io_uring, socket and memory calls\n"),
            kinds => {
                let _ = writeln!(text, "{kinds} kinds of calls are not io_uring, socket or memory calls; for example:");
            }
        }
        for (_, call) in self.summary.unexpected() {
            for example in &call.examples {
                let _ = writeln!(text, "  {example}");
            }
        }
        for (group, workers) in &self.kernel_workers {
            let _ =
                writeln!(text, "{workers} kernel threads {group} do work that io_uring could not do without blocking");
        }
        for message in &self.messages {
            let _ = writeln!(text, "strace: {message}");
        }
        text
    }
}

/// Before strace is attached.
const WARMUP: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_lists_what_is_not_expected() {
        let mut summary = Summary::default();
        summary.add_line("1 io_uring_enter(5) = 1 <0.000010>");
        summary.add_line("1 fdatasync(9) = 0 <0.004000>");
        let mut report = Report {
            machine: Machine::now(),
            threads: vec![ServingThread { server: "replica1".to_owned(), name: "core-0".to_owned(), thread: 1 }],
            seconds: 60.0,
            operations: 10,
            errors: 0,
            summary,
            kernel_workers: BTreeMap::from([("iou-wrk-*".to_owned(), 2)]),
            messages: vec!["odd".to_owned()],
        };
        let text = report.text();
        let parts =
            ["replica1 core-0", "NOT EXPECTED", "1 kinds of calls", "fdatasync(9) = 0", "2 kernel threads", "odd"];
        for part in parts {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        report.summary.calls.remove("fdatasync");
        assert!(report.text().contains("nothing but io_uring"));
    }

    #[test]
    fn serving_threads_are_found_by_name_without_their_helpers() {
        let (finish, wait_finish) = std::sync::mpsc::channel::<()>();
        let (started, wait_started) = std::sync::mpsc::channel();
        let worker = std::thread::Builder::new().name("core-test-7".to_owned()).spawn(move || {
            // A thread without a name of its own has the name of the one that starts it.
            let helper = std::thread::spawn(move || {
                started.send(()).unwrap();
                wait_finish.recv().ok();
            });
            helper.join().unwrap();
        });
        wait_started.recv().unwrap();
        let pid = std::process::id();
        let named = thread_stats(pid).unwrap().into_iter().filter(|(_, stat)| stat.name == "core-test-7");
        let named: Vec<u32> = named.map(|(thread, _)| thread).collect();
        assert_eq!(named.len(), 2, "{named:?}");
        let servers = [ServerProcess { name: "this".to_owned(), pid }];
        let threads = serving_threads(&servers, "core-test-").unwrap();
        assert_eq!(threads.len(), 1);
        assert_eq!((threads[0].name.as_str(), threads[0].thread), ("core-test-7", named[0]));
        assert!(serving_threads(&servers, "no-such-").is_err());
        drop(finish);
        worker.unwrap().join().unwrap();
    }
}
