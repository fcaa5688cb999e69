//! `pegasus-sim`: runs seeds until one fails, or until enough have passed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use pegasus_sim::{Planted, Profile, Statistics, run_seed};

/// Simulates replicated clusters from seeds and stops at the first one that breaks a rule.
#[derive(Debug, Parser)]
#[command(name = "pegasus-sim")]
struct Arguments {
    /// What kind of runs: usual, or much of one thing (crashing, apart, late, behind, handing,
    /// failing, learning, asking, powerless).
    #[arg(long, default_value_t = Profile::Usual)]
    profile: Profile,
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Stop after this many seconds, if the seeds are not done before.
    #[arg(long)]
    seconds: Option<u64>,
    /// Run only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Go on after a failing seed, and print one line for each.
    #[arg(long)]
    keep_going: bool,
    /// Print the whole event log (with --seed), not only the end of a failing one.
    #[arg(long)]
    trace: bool,
}

/// Lines of a failing run that are printed without `--trace`.
const TRACE_LINES: usize = 200;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return run_one(arguments.profile, seed, arguments.trace);
    }
    // A panic inside a run is reported with its seed; the default report would only come before it.
    std::panic::set_hook(Box::new(|_| {}));
    run_many(&arguments)
}

fn run_one(profile: Profile, seed: u64, trace: bool) -> ExitCode {
    match run_seed(profile, seed, Planted::default(), trace) {
        Ok(statistics) => {
            println!("seed {seed} passes: {statistics}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

// The only clock here: how long the tool itself has been running.
#[allow(clippy::disallowed_methods)]
fn run_many(arguments: &Arguments) -> ExitCode {
    let started = Instant::now();
    let limit = arguments.seconds.map(Duration::from_secs);
    let mut total = Statistics::default();
    let (mut done, mut failed) = (0, 0);
    for seed in arguments.start..arguments.start.saturating_add(arguments.seeds) {
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            break;
        }
        match run_seed(arguments.profile, seed, Planted::default(), false) {
            Ok(statistics) => {
                total.add(&statistics);
                done += 1;
            }
            Err(failure) if arguments.keep_going => {
                failed += 1;
                println!("seed {seed}: {}", failure.violation.lines().next().unwrap_or_default());
            }
            Err(_) => return report(arguments.profile, seed),
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{done} seeds pass in {seconds:.1} s ({:.0} a minute): {total}", done as f64 * 60.0 / seconds.max(1e-9));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a failing seed again, this time with its event log.
fn report(profile: Profile, seed: u64) -> ExitCode {
    match run_seed(profile, seed, Planted::default(), true) {
        Ok(_) => println!("seed {seed} failed once and then passed: the simulator is not deterministic"),
        Err(mut failure) => {
            let skipped = failure.trace.len().saturating_sub(TRACE_LINES);
            failure.trace.drain(..skipped);
            println!("{failure}");
        }
    }
    ExitCode::FAILURE
}
