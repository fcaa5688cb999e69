//! `scans`: a scan of many rows with kills in the middle gives every row that was there all the time exactly once; and
//! scans in an order give what a sort of the whole data gives.

pub mod passes;
pub mod rows;
pub mod sorted;

use std::time::Duration;

use pegasus_client::{Client, ClientOptions, Table, TableSpec};
use serde::Serialize;

use crate::chaos::setup::TABLE;
use crate::chaos::verdict::Verdict;
use crate::failure::Failure;
use crate::proof::{Bench, Conclusion, Stage, StageOptions};
use crate::report::{TextTable, count};
use crate::scans::passes::Pass;
use crate::scans::sorted::{Sorted, draw_rows};
use crate::workload::options::{parse_keys, parse_seconds};

/// Options of `scans`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rows of the full scans
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = parse_keys)]
    pub rows: u64,
    /// Hash keys of mixed lengths, for the sorted scans
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sorted_keys: u32,
    /// Sorted scans that are compared, in pairs with scans of ranges in stored order
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub cases: u32,
    /// With --kills: how long full scans go on
    #[arg(long, default_value_t = 40.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// The cluster, the seed, and where the results go.
    #[command(flatten)]
    pub stage: StageOptions,
}

/// What `scans` found.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Rows that were there all the time.
    pub rows: u64,
    /// The full scans.
    pub passes: Vec<Pass>,
    /// The scans in an order.
    pub sorted: Sorted,
}

/// Scans and compares.
pub fn run(options: &Options) -> Result<Verdict, Failure> {
    options.stage.prove("scans", |stage| prove(options, stage))
}

fn prove(options: &Options, stage: &mut Stage<'_>) -> Result<Conclusion<Findings>, Failure> {
    let (rows, seed, kills) = (options.rows, options.stage.seed, options.stage.kills);
    let timeout = options.stage.setup.timeout();
    stage.tell(&format!("writing {} rows", count(rows as f64)));
    stage.play(LOAD_TIME, move |bench: Bench| async move {
        let (client, table) = open(&bench.client, TABLE, timeout).await?;
        passes::load(&table, rows).await?;
        client.close().await;
        Ok(())
    })?;
    stage.tell("scanning");
    let time = if kills { Duration::from_secs_f64(options.seconds) } else { LOAD_TIME };
    let passes = stage.play_under_kills(time, move |bench| async move {
        let (client, table) = open(&bench.client, TABLE, timeout).await?;
        let passes = passes::scan(&table, &bench, rows, seed, kills).await?;
        client.close().await;
        Ok(passes)
    })?;
    stage.settle(&[TABLE])?;
    stage.tell("scanning in an order");
    let (keys, cases, setup) = (options.sorted_keys as usize, options.cases as usize, options.stage.setup.clone());
    let sorted = stage.play(LOAD_TIME, move |bench| async move {
        let client = Client::connect(bench.client.clone()).await.map_err(Failure::at("connect"))?;
        let spec = TableSpec { wait: Some(SERVING_TIME), ..TableSpec::new(SORTED_TABLE, setup.partitions) };
        client.create_table(&spec).await.map_err(Failure::at("make the table of the sorted scans"))?;
        client.close().await;
        let (client, table) = open(&bench.client, SORTED_TABLE, timeout).await?;
        let written = draw_rows(keys, seed);
        sorted::load(&table, &written).await?;
        let sorted = sorted::compare(&table, &written, cases, seed).await?;
        client.close().await;
        Ok(sorted)
    })?;
    Ok(conclude(Findings { rows, passes, sorted }))
}

async fn open(options: &ClientOptions, name: &str, timeout: Duration) -> Result<(Client, Table), Failure> {
    let client = Client::connect(options.clone()).await.map_err(Failure::at("connect"))?;
    let table = client.table(name).await.map_err(Failure::at(format!("open table {name}")))?;
    Ok((client, table.with_timeout(timeout)))
}

fn conclude(findings: Findings) -> Conclusion<Findings> {
    let Findings { rows, passes, sorted } = &findings;
    let mut table = TextTable::new(&["full scan", "rows", "moments", "requests failed", "seconds", "rows a second"]);
    for pass in passes {
        table.row(vec![
            pass.way.to_owned(),
            count(pass.rows as f64),
            pass.moments.to_string(),
            pass.failed.to_string(),
            format!("{:.2}", pass.seconds),
            count(pass.rows as f64 / pass.seconds.max(1e-6)),
        ]);
    }
    let problems: Vec<String> =
        passes.iter().flat_map(|pass| &pass.problems).chain(&sorted.problems).cloned().collect();
    let undecided =
        if passes.is_empty() { vec!["no full scan came to its end in time".to_owned()] } else { Vec::new() };
    let counts = format!(
        "{} rows exactly once in each of {} full scans; {} scans in an order over {} rows with hash keys of {} \
         lengths, {} rows compared",
        rows,
        passes.iter().filter(|pass| pass.problems.is_empty()).count(),
        sorted.scans,
        sorted.rows,
        sorted.lengths,
        sorted.scanned_rows,
    );
    Conclusion { counts, text: table.render(), problems, undecided, details: findings }
}

/// The table of the sorted scans.
const SORTED_TABLE: &str = "chaos_sorted";
/// How long writing and each of the undisturbed parts may take.
const LOAD_TIME: Duration = Duration::from_secs(600);
/// How long it may take until a new table serves.
const SERVING_TIME: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(problems: &[&str]) -> Pass {
        let problems = problems.iter().map(|text| (*text).to_owned()).collect();
        Pass { way: "full scan", rows: 5, moments: 8, failed: 0, seconds: 1.0, problems }
    }

    #[test]
    fn problems_of_both_parts_are_told() {
        let sorted = Sorted { problems: vec!["out of order".to_owned()], ..Sorted::default() };
        let passes = vec![pass(&[]), pass(&["a row is missing"])];
        let conclusion = conclude(Findings { rows: 5, passes, sorted });
        assert_eq!(conclusion.problems, ["a row is missing", "out of order"]);
        assert!(conclusion.counts.starts_with("5 rows exactly once in each of 1 full scans"), "{}", conclusion.counts);
        assert!(conclusion.undecided.is_empty());
        let nothing = conclude(Findings { rows: 5, passes: vec![], sorted: Sorted::default() });
        assert_eq!(nothing.undecided.len(), 1);
    }
}
