//! `counters`: increments and exchanges of many clients on few rows, pipelined, with and without kills. Nothing is
//! lost, nothing happens twice, and one order explains everything that clients were told.

pub mod hands;
pub mod sums;

use std::time::Duration;

use futures_util::future::join_all;
use pegasus_client::{Client, ClientOptions, Table};
use pegasus_history::Checked;
use serde::Serialize;

use crate::chaos::recorder::Clock;
use crate::chaos::setup::TABLE;
use crate::chaos::verdict::Verdict;
use crate::counters::hands::{Hand, Recorded, counter_key, exchange_key};
use crate::counters::sums::{Sum, judge};
use crate::failure::Failure;
use crate::proof::{Conclusion, Stage, StageOptions};
use crate::report::TextTable;
use crate::workload::options::{parse_seconds, parse_within};

/// Options of `counters`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Operations, of all clients together
    #[arg(long, default_value_t = 60_000, value_name = "N", value_parser = parse_operations)]
    pub operations: u64,
    /// Clients, each with a socket of its own
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub clients: u32,
    /// Operations that each client has under way at once
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub depth: u32,
    /// Counters, and as many rows that are exchanged
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rows: u32,
    /// Most time for all of it; what is not asked by then is not asked
    #[arg(long, default_value_t = 60.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// The cluster, the seed, and where the results go.
    #[command(flatten)]
    pub stage: StageOptions,
}

/// What `counters` found.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// All operations.
    pub operations: u64,
    /// Without any effect.
    pub failed: u64,
    /// Of which nobody knows.
    pub unknown: u64,
    /// Exchanges that were carried out.
    pub exchanged: u64,
    /// How each counter came out.
    pub sums: Vec<Sum>,
}

/// Counts and judges.
pub fn run(options: &Options) -> Result<Verdict, Failure> {
    options.stage.prove("counters", |stage| prove(options, stage))
}

fn prove(options: &Options, stage: &mut Stage<'_>) -> Result<Conclusion<Findings>, Failure> {
    let Options { operations, clients, depth, .. } = *options;
    let (rows, seed) = (options.rows as usize, options.stage.seed);
    let timeout = options.stage.setup.timeout();
    let clock = Clock::start();
    let hands = clients * depth;
    stage
        .tell(&format!("{operations} operations by {clients} clients, {depth} at once each, on {rows} rows of a kind"));
    let working = clock.clone();
    let work = stage.play_under_kills(Duration::from_secs_f64(options.seconds), move |bench| async move {
        let share = operations.div_ceil(u64::from(hands));
        let mut connections = Vec::new();
        for _ in 0..clients {
            connections.push(open(&bench.client, timeout).await?);
        }
        let work = |number: u32| {
            let table = connections[number as usize % connections.len()].1.clone();
            Hand::new(number + 1, table, working.clone(), seed, rows).work(bench.clone(), share)
        };
        let mut recorded = Recorded::new(rows);
        join_all((0..hands).map(work)).await.into_iter().for_each(|more| recorded.merge(more));
        for (client, _) in connections {
            client.close().await;
        }
        Ok(recorded)
    });
    let mut recorded = work?;
    stage.settle(&[TABLE])?;
    let look = stage.play(LAST_LOOK_TIME, move |bench| async move {
        let (client, table) = open(&bench.client, timeout).await?;
        let looked = Hand::new(0, table, clock, seed, rows).look().await;
        client.close().await;
        Ok(looked)
    });
    let (seen, last) = look?;
    recorded.merge(seen);
    stage.tell("checking the history");
    Ok(conclude(options, recorded, last))
}

async fn open(options: &ClientOptions, timeout: Duration) -> Result<(Client, Table), Failure> {
    let client = Client::connect(options.clone()).await.map_err(Failure::at("connect a client"))?;
    let table = client.table(TABLE).await.map_err(Failure::at("open the table"))?;
    Ok((client, table.with_timeout(timeout)))
}

fn conclude(options: &Options, recorded: Recorded, last: Vec<Result<i64, String>>) -> Conclusion<Findings> {
    let Recorded { increments, history, failed, unknown, operations, exchanged, mut problems } = recorded;
    let mut sums = Vec::new();
    let mut table = TextTable::new(&["counter", "acknowledged", "unknown", "shows at the end"]);
    for (counter, (increments, last)) in increments.iter().zip(last).enumerate() {
        let key = counter_key(counter);
        match last {
            Ok(last) => {
                let (sum, wrong) = judge(increments, last);
                problems.extend(wrong.into_iter().map(|wrong| format!("{key}: {wrong}")));
                table.row(vec![key, sum.acknowledged.to_string(), sum.unknown.to_string(), sum.last.to_string()]);
                sums.push(sum);
            }
            Err(reason) => problems.push(format!("{key}: {reason}")),
        }
    }
    let Checked { violations, undecided, .. } = history.check(STEPS_MAX);
    let wrong = violations.iter().map(|(row, witness)| format!("{}: {witness}", exchange_key(*row as usize)));
    problems.extend(wrong);
    let undecided = undecided.into_iter().map(|row| {
        format!("{} has too many operations that may be ordered in too many ways", exchange_key(row as usize))
    });
    if !options.stage.kills && failed + unknown > 0 {
        problems.push(format!("{failed} operations failed and {unknown} are unknown, and nothing was killed"));
    }
    let (acknowledged, open, shown) =
        sums.iter().fold((0, 0, 0), |all, sum| (all.0 + sum.acknowledged, all.1 + sum.unknown, all.2 + sum.last));
    let counts = format!(
        "operations {operations}, failed {failed}, unknown {unknown}; increments acknowledged {acknowledged}, unknown \
         {open}, counted {shown}; exchanged {exchanged}"
    );
    let undecided = undecided.collect();
    let details = Findings { operations, failed, unknown, exchanged, sums };
    Conclusion { counts, text: table.render(), problems, undecided, details }
}

/// Reads a number of operations: as many as fit into memory.
fn parse_operations(text: &str) -> Result<u64, String> {
    parse_within(text, 1, OPERATIONS_MAX).map(|count| count as u64)
}

/// All operations of a run at most.
const OPERATIONS_MAX: usize = 8_000_000;
/// How long the last look may take.
const LAST_LOOK_TIME: Duration = Duration::from_secs(60);
/// Steps for the history of one row; a minute or two.
const STEPS_MAX: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::counters::sums::{Ended, Increment};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options() -> Options {
        Line::parse_from(["counters"]).options
    }

    #[test]
    fn what_is_lost_is_a_problem() {
        let mut recorded = Recorded::new(2);
        recorded.increments[0].push(Increment { invoked_us: 0, returned_us: 1, ended: Ended::Number(1) });
        let good = conclude(
            &options(),
            Recorded { increments: recorded.increments.clone(), ..Recorded::default() },
            vec![Ok(1), Ok(0)],
        );
        assert_eq!(good.problems, Vec::<String>::new());
        assert!(good.counts.contains("acknowledged 1, unknown 0, counted 1"), "{}", good.counts);
        let bad = conclude(&options(), recorded, vec![Ok(0), Err("it holds \"x\"".to_owned())]);
        let text = bad.problems.join("\n");
        assert!(text.contains("counter0: the counter shows 0") && text.contains("counter1: it holds"), "{text}");
    }

    #[test]
    fn without_kills_nothing_may_fail() {
        let recorded = Recorded { unknown: 1, ..Recorded::new(0) };
        assert!(conclude(&options(), recorded, vec![]).problems[0].contains("nothing was killed"));
    }
}
