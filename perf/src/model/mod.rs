//! `model`: every operation of the data model, with every option and edge case, drawn at random and asked of a cluster,
//! and each answer compared with an in-memory model of the semantics.
//!
//! ```text
//! draw (words) ---> operation ---> calls ---> cluster
//!                       |            |
//!                       v            v answers, or none
//!             write, read (integer, check) ---> possible: what may each hash key hold now?
//!                                                  |
//!                                                  v nothing: a difference
//! ```
//!
//! Hash keys belong to one worker each, so that the worker knows what they hold, although many workers, and several
//! operations of each, are under way at once. The model is written from the description of the semantics, apart from
//! the engine, and must stay so: it shares no code with what it judges.

pub mod calls;
pub mod check;
pub mod draw;
pub mod integer;
pub mod key;
pub mod operation;
pub mod possible;
pub mod read;
pub mod rows;
pub mod scans;
pub mod tables;
pub mod tally;
pub mod text;
pub mod words;
pub mod worker;
pub mod write;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;

use crate::chaos::setup::TABLE;
use crate::chaos::verdict::Verdict;
use crate::failure::Failure;
use crate::model::tables::{SECOND_TABLE, SERVING_TIME, make_second, open};
use crate::model::tally::{Shared, Tally};
use crate::model::worker::{Subject, Worker};
use crate::proof::{Bench, Conclusion, Stage, StageOptions};
use crate::report::TextTable;
use crate::workload::options::parse_seconds;

/// Options of `model`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Operations, of all workers together
    #[arg(long, default_value_t = 200_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub operations: u64,
    /// Workers at once, each with hash keys of its own
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: u16,
    /// Most time for all of it; what is not asked by then is not asked
    #[arg(long, default_value_t = 120.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// The cluster, the seed, and where the results go.
    #[command(flatten)]
    pub stage: StageOptions,
}

/// What `model` found.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// What was asked.
    #[serde(flatten)]
    pub tally: Tally,
    /// What was asked at the end, undisturbed.
    pub last_look: Tally,
}

/// Asks and compares.
pub fn run(options: &Options) -> Result<Verdict, Failure> {
    options.stage.prove("model", |stage| prove(options, stage))
}

fn prove(options: &Options, stage: &mut Stage<'_>) -> Result<Conclusion<Findings>, Failure> {
    let (operations, count, seed) = (options.operations, options.workers, options.stage.seed);
    let setup = options.stage.setup.clone();
    let timeout = setup.timeout();
    let make = move |bench: Bench| async move { make_second(&bench.client, setup.partitions, setup.durability).await };
    stage.play(SERVING_TIME, make)?;
    stage.tell(&format!("{operations} operations by {count} workers"));
    let asked = stage.play_under_kills(Duration::from_secs_f64(options.seconds), move |bench| async move {
        let shared = Arc::new(Shared::new(bench.clone()));
        let (client, subjects) = open(&bench.client, timeout).await?;
        let new = |number| Worker::new(number, subject_of(&subjects, number), seed, shared.clone());
        let share = operations.div_ceil(u64::from(count));
        let ask = |mut worker: Worker| async move {
            worker.run(share).await;
            worker
        };
        let workers = join_all((0..count).map(new).map(ask)).await;
        client.close().await;
        Ok((workers, shared))
    });
    let (mut workers, shared) = asked?;
    let tally = total(&mut workers);
    // What follows from a difference would be differences, too.
    let problems = shared.take_problems();
    if !problems.is_empty() {
        return Ok(conclude(options, Findings { tally, last_look: Tally::default() }, problems));
    }
    stage.settle(&[TABLE, SECOND_TABLE])?;
    let looked = stage.play(LAST_LOOK_TIME, move |bench| async move {
        let (client, subjects) = open(&bench.client, timeout).await?;
        let look = |(number, worker): (usize, Worker)| {
            let mut worker = worker.with(subject_of(&subjects, number as u16));
            async move {
                worker.last_look().await;
                worker
            }
        };
        let workers = join_all(workers.into_iter().enumerate().map(look)).await;
        client.close().await;
        Ok(workers)
    });
    let last_look = total(&mut looked?);
    Ok(conclude(options, Findings { tally, last_look }, shared.take_problems()))
}

/// Every third worker is at the second table.
fn subject_of(subjects: &[Subject], number: u16) -> Subject {
    subjects[usize::from(number % 3 == 2)].clone()
}

fn total(workers: &mut [Worker]) -> Tally {
    let mut total = Tally::default();
    workers.iter_mut().for_each(|worker| total.add(&worker.take_tally()));
    total
}

fn conclude(options: &Options, findings: Findings, mut problems: Vec<String>) -> Conclusion<Findings> {
    let Tally { operations, answered, refused, failed, unknown, scans, keys_left, given_up, .. } = findings.tally;
    if let Some(problem) = problems.first_mut() {
        let Options { operations, workers, stage, .. } = options;
        let words = stage.replay_words();
        *problem +=
            &format!("\n  to see it again: pegasus-perf model --operations {operations} --workers {workers} {words}");
    }
    if !options.stage.kills && failed + unknown > 0 {
        problems.push(format!("{failed} operations failed and {unknown} are unknown, and nothing was killed"));
    }
    let counts = format!(
        "operations {operations} (scans {scans}, refused as invalid {refused}), answered {answered}, failed {failed}, \
         unknown {unknown}, hash keys left {keys_left}, of these not judged to the end {given_up}, differences {}",
        problems.len()
    );
    let mut table = TextTable::new(&["operation", "asked"]);
    for (name, count) in &findings.tally.by_name {
        table.row(vec![(*name).to_owned(), crate::report::count(*count as f64)]);
    }
    Conclusion { counts, text: table.render(), problems, undecided: Vec::new(), details: findings }
}

/// How long the last look may take.
const LAST_LOOK_TIME: Duration = Duration::from_secs(120);
