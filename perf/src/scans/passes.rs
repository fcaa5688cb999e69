//! Scans of all rows, again and again, while other rows come and go and nodes are killed.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use pegasus_client::{Advice, Error, ScanOptions, Scanner, Table};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use crate::failure::Failure;
use crate::proof::Bench;
use crate::scans::rows::{GROUP_ROWS, Row, Seen, hash_key};

/// How a pass goes through the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Forward,
    Backward,
    Split,
    WithoutSnapshots,
}

const WAYS: [Way; 4] = [Way::Forward, Way::Backward, Way::Split, Way::WithoutSnapshots];

/// One scan of all rows.
#[derive(Clone, Debug, Serialize)]
pub struct Pass {
    /// How it went through the table.
    pub way: &'static str,
    /// Rows that came.
    pub rows: u64,
    /// How many moments they were of.
    pub moments: u64,
    /// Requests that failed and were asked again.
    pub failed: u64,
    /// How long it took.
    pub seconds: f64,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Writes all lasting rows.
pub async fn load(table: &Table, rows: u64) -> Result<(), Failure> {
    let write = |group: u64| async move {
        let numbers = group * GROUP_ROWS..((group + 1) * GROUP_ROWS).min(rows);
        let rows: Vec<(String, String)> = numbers.map(Row::Lasting).map(|row| (row.sort_key(), row.value())).collect();
        let key = hash_key(group);
        // Writing it twice does no harm.
        for _ in 0..ATTEMPTS_MAX {
            match table.multi_set(&key, &rows).await {
                Err(error) if matches!(error.advice(), Advice::Retry | Advice::Unknown) => {}
                outcome => return outcome.map_err(Failure::at("write the rows")),
            }
        }
        Err(Failure::new(format!("the rows of {key} could not be written")))
    };
    stream::iter(0..rows.div_ceil(GROUP_ROWS)).map(write).buffer_unordered(LOADS_AT_ONCE).try_collect().await
}

/// Scans in every way, over and over until told to end, or only once; passing rows come and go meanwhile.
pub async fn scan(
    table: &Table,
    bench: &Bench,
    rows: u64,
    seed: u64,
    over_and_over: bool,
) -> Result<Vec<Pass>, Failure> {
    let passes = async {
        let mut passes = Vec::new();
        for way in WAYS.into_iter().cycle().take(if over_and_over { usize::MAX } else { WAYS.len() }) {
            let pass = one_pass(table, bench, way, rows).await;
            let wrong = pass.as_ref().is_some_and(|pass| !pass.problems.is_empty());
            passes.extend(pass);
            if wrong || bench.is_over() {
                break;
            }
        }
        passes
    };
    let restless = join_all((0..RESTLESS).map(|number| come_and_go(table, rows, seed.wrapping_add(number))));
    tokio::select! {
        passes = passes => Ok(passes),
        _ = restless => Err(Failure::new("the passing rows have come to an end")),
    }
}

/// One pass; `None` if it could not be ended before time was over.
async fn one_pass(table: &Table, bench: &Bench, way: Way, rows: u64) -> Option<Pass> {
    let begin = std::time::Instant::now();
    let mut pass = Pass { way: way.name(), rows: 0, moments: 0, failed: 0, seconds: 0.0, problems: Vec::new() };
    let scanners = match way.scanners(table).await {
        Ok(scanners) => scanners,
        Err(error) => {
            pass.problems.push(format!("{} could not begin: {error}", way.name()));
            return Some(pass);
        }
    };
    let read = scanners.into_iter().map(|scanner| read(scanner, bench, rows));
    let mut all = Seen::new(rows);
    for (seen, scan) in join_all(read).await {
        pass.moments += scan.moments;
        pass.failed += scan.failed;
        if !scan.ended {
            return None;
        }
        pass.problems.extend(scan.problem);
        all.merge(seen);
    }
    pass.rows = all.rows;
    pass.seconds = begin.elapsed().as_secs_f64();
    pass.problems.extend(all.into_problems().into_iter().map(|problem| format!("{}: {problem}", way.name())));
    Some(pass)
}

/// How one scanner came along.
#[derive(Default)]
struct Scan {
    ended: bool,
    moments: u64,
    failed: u64,
    problem: Option<String>,
}

/// Reads a scanner to its end. What failed goes on where it stood.
async fn read(mut scanner: Scanner, bench: &Bench, rows: u64) -> (Seen, Scan) {
    let (mut seen, mut scan) = (Seen::new(rows), Scan::default());
    loop {
        match scanner.next_batch().await {
            Ok(Some(batch)) => batch.iter().for_each(|row| seen.see(&row.hash_key, &row.sort_key, &row.value)),
            Ok(None) => {
                scan.ended = true;
                break;
            }
            Err(error) if error.advice() == Advice::Retry => {
                scan.failed += 1;
                if bench.is_over() {
                    break;
                }
            }
            Err(error) => {
                scan.ended = true;
                scan.problem = Some(format!("a scan ended with an error of the kind {}: {error}", error.kind()));
                break;
            }
        }
    }
    scan.moments = scanner.snapshots();
    (seen, scan)
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Forward => "full scan",
            Way::Backward => "full scan against the order",
            Way::Split => "scanners at once",
            Way::WithoutSnapshots => "full scan without snapshots",
        }
    }

    async fn scanners(self, table: &Table) -> Result<Vec<Scanner>, Error> {
        let options = ScanOptions {
            reverse: self == Way::Backward,
            snapshot: self != Way::WithoutSnapshots,
            ..ScanOptions::default()
        };
        match self {
            Way::Split => table.scanners(SPLIT, options).await,
            _ => Ok(vec![table.full_scan(options).await?]),
        }
    }
}

/// Writes and deletes passing rows for ever. What comes of it does not matter.
async fn come_and_go(table: &Table, rows: u64, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    loop {
        let row = Row::Passing(random.random_range(0..rows));
        let _ = match random.random_bool(0.5) {
            true => table.set(row.hash_key(), row.sort_key(), row.value()).await,
            false => table.del(row.hash_key(), row.sort_key()).await,
        };
        tokio::time::sleep(RESTLESS_PAUSE).await;
    }
}

/// Hash keys written at a time.
const LOADS_AT_ONCE: usize = 64;
const ATTEMPTS_MAX: usize = 10;
/// Writers of passing rows, and the pause of each between two writes.
const RESTLESS: u64 = 8;
const RESTLESS_PAUSE: Duration = Duration::from_millis(2);
/// Scanners at once.
const SPLIT: usize = 4;
