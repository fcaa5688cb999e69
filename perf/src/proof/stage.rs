//! The cluster of a proof, and work that is done on it while nodes are killed or left alone.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pegasus_client::ClientOptions;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::chaos::course::{Course, Event};
use crate::chaos::faults::{Kind, draw};
use crate::chaos::interrupt::Interrupt;
use crate::chaos::recorder::Clock;
use crate::chaos::settle::{Settle, interrupted};
use crate::chaos::setup::{Setup, SetupOptions};
use crate::chaos::verdict::Verdict;
use crate::failure::Failure;
use crate::proof::report::{Conclusion, Report};
use crate::report::OutputOptions;
use crate::workload::client_runtime;

/// What every proof is told.
#[derive(Clone, Debug, clap::Args)]
pub struct StageOptions {
    /// Decides what is asked, and which nodes are killed when
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub seed: u64,
    /// Kill and restart nodes meanwhile
    #[arg(long)]
    pub kills: bool,
    /// The cluster and its table.
    #[command(flatten)]
    pub setup: SetupOptions,
    /// Where the results go
    #[command(flatten)]
    pub output: OutputOptions,
}

/// A cluster at work.
pub struct Stage<'a> {
    options: &'a StageOptions,
    setup: Setup,
    interrupt: Interrupt,
    events: Vec<Event>,
    kills: u64,
    problems: Vec<String>,
}

/// What the work is given.
#[derive(Clone, Debug)]
pub struct Bench {
    /// How to connect.
    pub client: ClientOptions,
    stop: Arc<AtomicBool>,
}

impl Bench {
    /// True once the work is to come to its end: its time is over, or [`Bench::end`] was called.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Tells all who work here to come to their end.
    pub fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl StageOptions {
    /// Makes a cluster, has something proved on it, takes it down and shows what came of it. The directory is kept if
    /// something is wrong.
    pub fn prove<D: Serialize>(
        &self,
        command: &'static str,
        proof: impl FnOnce(&mut Stage<'_>) -> Result<Conclusion<D>, Failure>,
    ) -> Result<Verdict, Failure> {
        let interrupt = Interrupt::install()?;
        self.output.progress("starting the cluster");
        let setup = self.setup.start(&format!("./{command}-{}", self.seed), self.seed, false, &interrupt)?;
        let mut stage = Stage { options: self, setup, interrupt, events: Vec::new(), kills: 0, problems: Vec::new() };
        let conclusion = proof(&mut stage).map_err(|failure| {
            let directory = stage.setup.directory.display();
            Failure::new(format!("{failure}\nthe cluster's logs and data are in {directory}"))
        })?;
        let Stage { setup, events, kills, mut problems, .. } = stage;
        let mut conclusion = conclusion;
        problems.append(&mut conclusion.problems);
        conclusion.problems = problems;
        let mut report = Report::new(command, self.seed, conclusion, events, kills);
        let kept = self.setup.take_down(setup, report.verdict != Verdict::Ok)?;
        report.directory = kept.map(|directory| directory.display().to_string());
        self.output.emit(&report.text(), &report)?;
        Ok(report.verdict)
    }

    /// The options that make the same run again, without those of a single command.
    pub fn replay_words(&self) -> String {
        let SetupOptions { nodes, cores, partitions, durability, .. } = &self.setup;
        let kills = if self.kills { " --kills" } else { "" };
        format!(
            "--seed {}{kills} --nodes {nodes} --cores {cores} --partitions {partitions} --durability {durability}",
            self.seed
        )
    }
}

impl Stage<'_> {
    /// A line on what is going on, for people who wait.
    pub fn tell(&self, line: &str) {
        self.options.output.progress(line);
    }

    /// Does the work on a thread of its own. Nodes are killed meanwhile if that was asked for; processes that end by
    /// themselves are a problem in any case. When `time` is over the work is told to come to its end, and is awaited.
    pub fn play_under_kills<T, F>(
        &mut self,
        time: Duration,
        work: impl FnOnce(Bench) -> F + Send + 'static,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>>,
    {
        let kinds = if self.options.kills { &[Kind::Kill][..] } else { &[] };
        self.play_with(time, kinds, work)
    }

    /// The same, with kills in any case.
    pub fn play_killing<T, F>(
        &mut self,
        time: Duration,
        work: impl FnOnce(Bench) -> F + Send + 'static,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>>,
    {
        self.play_with(time, &[Kind::Kill], work)
    }

    /// The same without kills.
    pub fn play<T, F>(&mut self, time: Duration, work: impl FnOnce(Bench) -> F + Send + 'static) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>>,
    {
        self.play_with(time, &[], work)
    }

    fn play_with<T, F>(
        &mut self,
        time: Duration,
        kinds: &[Kind],
        work: impl FnOnce(Bench) -> F + Send + 'static,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>>,
    {
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let planned = match kinds {
            [] => Vec::new(),
            kinds => draw(self.options.seed, time_ms, usize::from(self.options.setup.nodes), kinds),
        };
        let bench = Bench { client: self.setup.client.clone(), stop: Arc::default() };
        let worker = Worker::start(bench.clone(), work)?;
        let output = &self.options.output;
        let tell = |line: &str| output.progress(line);
        let clock = Clock::start();
        let mut course = Course::new(&mut self.setup.cluster, &clock, planned, &tell);
        let ran = course.run(time_ms, || worker.has_ended(), &self.interrupt);
        let looked = course.look_once_more();
        let Course { events, counts, problems, .. } = course;
        self.events.extend(events);
        self.kills += counts.values().sum::<u64>();
        self.problems.extend(problems);
        ran.and(looked)?;
        bench.end();
        worker.join(|within| {
            self.interrupt.wait(within);
            self.interrupt.check()
        })
    }

    /// Waits until every partition of these tables serves, has all its members, and these hold the same rows. What is
    /// not so is a problem.
    pub fn settle(&mut self, tables: &[&str]) -> Result<(), Failure> {
        self.tell("waiting until everything is whole and equal");
        for table in tables {
            let settle = Settle {
                client: self.setup.client.clone(),
                table: (*table).to_owned(),
                keys: 0,
                within: self.options.setup.settle_within(),
                timeout: self.options.setup.timeout(),
            };
            let settled = client_runtime(1)?.block_on(async {
                tokio::select! {
                    settled = settle.settle_untouched() => Ok(settled),
                    () = interrupted(&self.interrupt) => Err(Failure::new("interrupted")),
                }
            })?;
            self.problems.extend(settled.problems);
        }
        Ok(())
    }
}

/// A thread at work.
struct Worker<T> {
    /// When it is gone the work ends where it stands.
    leash: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<T, Failure>>>,
}

impl<T: Send + 'static> Worker<T> {
    /// The calling thread's network is the worker's.
    fn start<F>(bench: Bench, work: impl FnOnce(Bench) -> F + Send + 'static) -> Result<Worker<T>, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let (leash, let_go) = oneshot::channel::<()>();
        let work = move || {
            client_runtime(1)?.block_on(async {
                tokio::select! {
                    outcome = work(bench) => outcome,
                    _ = let_go => Err(Failure::new("the work was given up")),
                }
            })
        };
        let thread = thread::Builder::new().name("work".to_owned()).spawn(work);
        Ok(Worker { leash: Some(leash), thread: Some(thread.map_err(Failure::at("start the work"))?) })
    }
}

impl<T> Worker<T> {
    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// What it came to. While it goes on, `wait` waits for that long and says whether to go on waiting.
    fn join(mut self, wait: impl Fn(Duration) -> Result<(), Failure>) -> Result<T, Failure> {
        while !self.has_ended() {
            wait(LOOK_INTERVAL)?;
        }
        let thread = self.thread.take().expect("it is taken here and when dropped only");
        thread.join().map_err(|_| Failure::new("the work panicked"))?
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.leash = None;
        if let Some(thread) = self.thread.take() {
            // Nobody asks any more what came of it.
            let _ = thread.join();
        }
    }
}

/// How often work that has to end is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn bench() -> Bench {
        Bench { client: ClientOptions::new(Vec::new(), "nowhere"), stop: Arc::default() }
    }

    #[test]
    fn work_gives_what_it_came_to_and_ends_when_told() {
        let wait = |within| {
            thread::sleep(within);
            Ok(())
        };
        let told = bench();
        let worker = Worker::start(told.clone(), |bench: Bench| async move {
            let mut turns = 0u64;
            while !bench.is_over() {
                turns += 1;
                tokio::task::yield_now().await;
            }
            Ok(turns)
        });
        let worker = worker.unwrap();
        told.end();
        worker.join(wait).unwrap();
        let failing = Worker::<()>::start(bench(), |_| async { Err(Failure::new("no")) }).unwrap();
        assert_eq!(failing.join(wait).unwrap_err().to_string(), "no");
        // One that never ends is given up.
        drop(Worker::<()>::start(bench(), |_| std::future::pending()).unwrap());
    }
}
