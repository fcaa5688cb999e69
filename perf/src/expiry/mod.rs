//! `expiry`: rows vanish from every kind of read on time, do not come back after failovers, and leave the files.

pub mod files;
pub mod judge;
pub mod reads;
pub mod rows;

use std::time::{Duration, SystemTime};

use pegasus_client::{Client, Table};
use pegasus_wire::expiry::EPOCH_UNIX_SECONDS;
use serde::Serialize;

use crate::chaos::setup::{REPLICAS, TABLE};
use crate::chaos::verdict::Verdict;
use crate::expiry::files::{Files, compact};
use crate::expiry::judge::{Judged, Look, MARGIN_S, Punctuality};
use crate::expiry::reads::{Found, Kind};
use crate::expiry::rows::{BRIEF, LASTING_BYTES, Pair, increment_after};
use crate::failure::Failure;
use crate::proof::{Bench, Conclusion, Stage, StageOptions};
use crate::workload::options::parse_seconds;

/// Options of `expiry`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Hash keys, each with a row that expires and one that does not
    #[arg(long, default_value_t = 700, value_name = "N", value_parser = clap::value_parser!(u32).range(7..=100_000))]
    pub pairs: u32,
    /// How long the rows that expire live
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u32).range(4..=600))]
    pub ttl_seconds: u32,
    /// How long nodes are killed after that
    #[arg(long, default_value_t = 15.0, value_parser = parse_seconds)]
    pub failover_seconds: f64,
    /// Do not wait until the rows may leave the files, which is a minute after their expiry
    #[arg(long)]
    pub no_files: bool,
    /// The cluster, the seed, and where the results go.
    #[command(flatten)]
    pub stage: StageOptions,
}

/// What `expiry` found.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Rows that expired.
    pub rows: usize,
    /// Kinds of reads that were asked.
    pub kinds: usize,
    /// What was seen around the expiry.
    pub punctuality: Punctuality,
    /// Looks at all rows while nodes were killed.
    pub looks_under_kills: u64,
    /// What the files held before, if they were looked at.
    pub files_before: Option<Files>,
    /// What they held after.
    pub files_after: Option<Files>,
}

/// What is passed from one part to the next.
struct Written {
    pairs: Vec<Pair>,
    files: Option<Files>,
    punctuality: Punctuality,
    problems: Vec<String>,
}

/// Writes, waits, looks.
pub fn run(options: &Options) -> Result<Verdict, Failure> {
    options.stage.prove("expiry", |stage| prove(options, stage))
}

fn prove(options: &Options, stage: &mut Stage<'_>) -> Result<Conclusion<Findings>, Failure> {
    let Options { pairs, ttl_seconds, no_files, .. } = *options;
    let timeout = options.stage.setup.timeout();
    stage.tell("writing rows and waiting for their end");
    let Written { pairs, files, punctuality, mut problems } = stage.play(PART_TIME, move |bench| async move {
        let (client, table) = open(&bench, timeout).await?;
        let written = write_and_wait(&client, &table, pairs, ttl_seconds, !no_files).await?;
        client.close().await;
        Ok(written)
    })?;
    stage.tell("looking for them while nodes are killed");
    let expired = pairs.clone();
    let time = Duration::from_secs_f64(options.failover_seconds);
    let (looks, more) = stage.play_killing(time, move |bench| async move {
        let (client, table) = open(&bench, timeout).await?;
        let looked = look_until_over(&table, &expired, &bench).await;
        client.close().await;
        Ok(looked)
    })?;
    problems.extend(more);
    stage.settle(&[TABLE])?;
    if !no_files {
        stage.tell("waiting until the rows may leave the files");
    }
    let (expired, count) = (pairs.clone(), pairs.len());
    let (files_after, more) = stage.play(PART_TIME, move |bench| async move {
        let (client, table) = open(&bench, timeout).await?;
        let ended = end(&client, &table, &expired, files).await?;
        client.close().await;
        Ok(ended)
    })?;
    problems.extend(more);
    let findings = Findings {
        rows: count,
        kinds: Kind::ALL.len(),
        punctuality,
        looks_under_kills: looks,
        files_before: files,
        files_after,
    };
    Ok(conclude(findings, problems))
}

async fn open(bench: &Bench, timeout: Duration) -> Result<(Client, Table), Failure> {
    let client = Client::connect(bench.client.clone()).await.map_err(Failure::at("connect"))?;
    let table = client.table(TABLE).await.map_err(Failure::at("open the table"))?;
    Ok((client, table.with_timeout(timeout)))
}

/// Writes the pairs, sees that all rows are there, and looks at them until they are gone.
async fn write_and_wait(
    client: &Client,
    table: &Table,
    count: u32,
    ttl_seconds: u32,
    with_files: bool,
) -> Result<Written, Failure> {
    let pairs = rows::write(table, count, ttl_seconds).await?;
    let mut problems = look_at_all(table, &pairs).await;
    let mut punctuality = Punctuality::new();
    let last = pairs.iter().map(|pair| pair.expiry.last).max().unwrap_or(0);
    while now_s() < f64::from(last) + 2.0 * MARGIN_S {
        problems.extend(look_at_each(table, &pairs, &mut punctuality).await);
    }
    problems.extend(look_at_all(table, &pairs).await);
    // They are in the files still: reads leave them out.
    let files = if with_files { Some(compact(client, TABLE).await?) } else { None };
    Ok(Written { pairs, files, punctuality, problems })
}

/// One get of every row.
async fn look_at_each(table: &Table, pairs: &[Pair], punctuality: &mut Punctuality) -> Vec<String> {
    let mut problems = Vec::new();
    for some in pairs.chunks(LOOKS_AT_ONCE) {
        let from_s = now_s();
        let found = Kind::Get.read(table, some).await;
        let to_s = now_s();
        problems.extend(found.problems.iter().cloned());
        if found.unanswered > 0 {
            continue;
        }
        for (place, pair) in some.iter().enumerate() {
            let look = Look { from_s, to_s, there: found.there.contains(&place) };
            punctuality.note(look, pair.expiry);
            problems.extend(wrong(Kind::Get, look, pair));
        }
    }
    problems.truncate(PROBLEMS_MAX);
    problems
}

/// All rows by every kind of read.
async fn look_at_all(table: &Table, pairs: &[Pair]) -> Vec<String> {
    let mut problems = Vec::new();
    for kind in Kind::ALL {
        let from_s = now_s();
        let found = kind.read(table, pairs).await;
        let to_s = now_s();
        let mut wrong = judge_all(kind, &found, pairs, from_s, to_s);
        wrong.truncate(PROBLEMS_MAX);
        problems.append(&mut wrong);
    }
    problems
}

/// What is wrong with a read of all pairs.
fn judge_all(kind: Kind, found: &Found, pairs: &[Pair], from_s: f64, to_s: f64) -> Vec<String> {
    let mut problems = found.problems.clone();
    if found.unanswered > 0 {
        return problems;
    }
    if let Some(count) = found.count {
        let judge = |pair: &&Pair, there| Look { from_s, to_s, there }.judge(pair.expiry);
        let least = pairs.iter().filter(|pair| judge(pair, false) == Judged::TooEarly).count();
        let gone = pairs.iter().filter(|pair| judge(pair, true) == Judged::TooLate).count();
        if count < least || count > pairs.len() - gone {
            let most = pairs.len() - gone;
            problems.push(format!("{kind:?} found {count} rows that expire, and there are {least} to {most}"));
        }
        return problems;
    }
    for (place, pair) in pairs.iter().enumerate() {
        problems.extend(wrong(kind, Look { from_s, to_s, there: found.there.contains(&place) }, pair));
    }
    problems
}

fn wrong(kind: Kind, look: Look, pair: &Pair) -> Option<String> {
    let Pair { hash_key, way, expiry } = pair;
    let how = match look.judge(*expiry) {
        Judged::Fine => return None,
        Judged::TooEarly => "does not find",
        Judged::TooLate => "finds",
    };
    let after = look.from_s - f64::from(expiry.last);
    Some(format!("{kind:?} {how} {BRIEF} of {hash_key}, written by {way}, {after:.3} s after its expiry"))
}

/// Looks at all rows by every kind of read, again and again, until told to end.
async fn look_until_over(table: &Table, pairs: &[Pair], bench: &Bench) -> (u64, Vec<String>) {
    let (mut looks, mut problems) = (0, Vec::new());
    // A read of all takes some of them, so that many are asked while something is going on.
    let sample: Vec<Pair> = pairs.iter().step_by((pairs.len() / SAMPLE).max(1)).cloned().collect();
    while !bench.is_over() && problems.is_empty() {
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::CountAll) {
            let from_s = now_s();
            let found = kind.read(table, &sample).await;
            problems.extend(judge_all(kind, &found, &sample, from_s, now_s()));
            looks += 1;
            if bench.is_over() {
                break;
            }
        }
    }
    problems.truncate(PROBLEMS_MAX);
    (looks, problems)
}

/// The last look; and once the rows may leave the files, whether they have.
async fn end(
    client: &Client,
    table: &Table,
    pairs: &[Pair],
    before: Option<Files>,
) -> Result<(Option<Files>, Vec<String>), Failure> {
    let mut problems = look_at_all(table, pairs).await;
    let mut files_after = None;
    if let Some(before) = before {
        let last = pairs.iter().map(|pair| pair.expiry.last).max().unwrap_or(0);
        let wait_s = f64::from(last) + FILES_AFTER_S - now_s();
        tokio::time::sleep(Duration::from_secs_f64(wait_s.max(0.0))).await;
        let after = compact(client, TABLE).await?;
        let lasting = pairs.len() as u64;
        let bytes = lasting * (LASTING_BYTES + ROW_BYTES) as u64;
        problems.extend(files::judge(before, after, u64::from(REPLICAS), lasting, bytes));
        files_after = Some(after);
        problems.extend(look_at_all(table, pairs).await);
    }
    problems.extend(increment_after(table, pairs).await);
    Ok((files_after, problems))
}

fn conclude(findings: Findings, problems: Vec<String>) -> Conclusion<Findings> {
    let Findings { rows, kinds, punctuality, looks_under_kills, files_before, files_after } = &findings;
    let mut text = format!(
        "{} looks around the expiry; the latest sight of a row was {:.3} s after the beginning of its last second\n",
        punctuality.looks, punctuality.latest_s
    );
    if let (Some(before), Some(after)) = (files_before, files_after) {
        text += &format!(
            "files of {} copies: {} rows in {} bytes before the rows might leave, {} rows in {} bytes after\n",
            after.copies, before.rows, before.bytes, after.rows, after.bytes
        );
    }
    let files = if files_after.is_some() { "left the files" } else { "files not looked at" };
    let counts = format!(
        "{rows} rows gone on time from {kinds} kinds of reads, not seen again in {looks_under_kills} looks under \
         kills, {files}"
    );
    Conclusion { counts, text, problems, undecided: Vec::new(), details: findings }
}

/// This machine's clock, in seconds since 2016.
fn now_s() -> f64 {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    unix.as_secs_f64() - EPOCH_UNIX_SECONDS as f64
}

/// How long each undisturbed part may take.
const PART_TIME: Duration = Duration::from_secs(900);
/// So long after their expiry rows may leave the files: the engine keeps them for a minute.
const FILES_AFTER_S: f64 = 63.0;
/// What a row takes beside its value, generously.
const ROW_BYTES: usize = 60;
/// Rows of one look around the expiry.
const LOOKS_AT_ONCE: usize = 64;
/// Rows of one look under kills.
const SAMPLE: usize = 70;
/// Problems that are kept of one look.
const PROBLEMS_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expiry::judge::Expiry;

    fn pairs() -> Vec<Pair> {
        let pair = |(number, second): (usize, u32)| Pair {
            hash_key: format!("pair{number}"),
            way: "set",
            expiry: Expiry { first: second, last: second },
        };
        [100, 100, 200].into_iter().enumerate().map(pair).collect()
    }

    fn problems(there: &[usize], at_s: f64) -> Vec<String> {
        let found = Found { there: there.iter().copied().collect(), ..Found::default() };
        judge_all(Kind::Get, &found, &pairs(), at_s, at_s)
    }

    #[test]
    fn every_row_is_judged_by_its_own_expiry() {
        assert!(problems(&[0, 1, 2], 90.0).is_empty() && problems(&[2], 150.0).is_empty());
        assert_eq!(problems(&[], 150.0).len(), 1);
        let late = problems(&[0, 2], 150.0);
        assert_eq!(late, ["Get finds brief of pair0, written by set, 50.000 s after its expiry"]);
    }

    #[test]
    fn counts_are_judged_as_counts() {
        let count = |count, at_s| {
            let found = Found { count: Some(count), ..Found::default() };
            judge_all(Kind::CountAll, &found, &pairs(), at_s, at_s).is_empty()
        };
        assert_eq!([0, 1, 2, 3].map(|found| count(found, 150.0)), [false, true, false, false]);
        assert_eq!([1, 2, 3].map(|found| count(found, 90.0)), [false, false, true]);
        assert_eq!([0, 1, 2, 3].map(|found| count(found, 100.5)), [false, true, true, true]);
    }

    #[test]
    fn what_was_not_answered_is_not_judged() {
        let found = Found { unanswered: 1, ..Found::default() };
        assert!(judge_all(Kind::Get, &found, &pairs(), 90.0, 90.0).is_empty());
    }
}
