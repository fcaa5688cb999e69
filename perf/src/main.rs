//! The `pegasus-perf` program: picks the command and prints why it failed, if it did.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pegasus_perf::chaos::failover;
use pegasus_perf::chaos::verdict::Verdict;
use pegasus_perf::onebox::{learning, without_meta};
use pegasus_perf::{
    Failure, chaos, compare, counters, crowd, expiry, limits, model, operations, protocols, run, scans, throttle, trace,
};

/// Measures Pegasus and the machine under it.
#[derive(Debug, Parser)]
#[command(name = "pegasus-perf", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What this machine can do at best: QUIC echo, direct writes and fdatasync, the log, RocksDB inline.
    Limits(limits::Options),
    /// A workload against a cluster.
    Run(run::Options),
    /// Limits and cluster side by side, repeated, with medians and ratios.
    Compare(compare::Options),
    /// Get and set through our own protocol and through Pegasus's, side by side, with medians and ratios.
    CompareProtocols(protocols::Options),
    /// What clients of Pegasus notice of thousands that say nothing and some that do not listen.
    Crowd(crowd::Options),
    /// What each operation costs, beside a plain get and set.
    Operations(operations::Options),
    /// The system calls of the serving threads under a mixed load.
    Trace(trace::Options),
    /// A cluster of its own under faults, with clients whose history is checked.
    Chaos(chaos::Options),
    /// The time until writes go on after the primary of most partitions is killed or frozen.
    Failover(failover::Options),
    /// What those who read and write notice of a node that learns everything anew (on a onebox).
    Learning(learning::Options),
    /// Reads and writes while every meta server is down (on a onebox).
    WithoutMeta(without_meta::Options),
    /// Everything the data model has, drawn at random, against an in-memory model.
    Model(model::Options),
    /// Increments and exchanges of many clients on few rows: nothing lost, nothing twice, linearizable.
    Counters(counters::Options),
    /// Full scans with every row exactly once; scans in an order against a sort of the whole data.
    Scans(scans::Options),
    /// Rows vanish on time, do not come back, and leave the files.
    Expiry(expiry::Options),
    /// A table is held to its rate, and its neighbour does not feel it.
    Throttle(throttle::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Limits(options) => limits::run(&options),
        Command::Run(options) => run::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::CompareProtocols(options) => protocols::run(&options),
        Command::Crowd(options) => return judged(crowd::run(&options)),
        Command::Operations(options) => operations::run(&options),
        Command::Trace(options) => trace::run(&options),
        Command::Chaos(options) => return judged(chaos::run(&options)),
        Command::Failover(options) => return judged(failover::run(&options)),
        Command::Learning(options) => learning::run(&options),
        Command::WithoutMeta(options) => without_meta::run(&options),
        Command::Model(options) => return judged(model::run(&options)),
        Command::Counters(options) => return judged(counters::run(&options)),
        Command::Scans(options) => return judged(scans::run(&options)),
        Command::Expiry(options) => return judged(expiry::run(&options)),
        Command::Throttle(options) => return judged(throttle::run(&options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

/// The verdict has been printed; the exit code tells it to scripts.
fn judged(outcome: Result<Verdict, Failure>) -> ExitCode {
    match outcome {
        Ok(Verdict::Ok) => ExitCode::SUCCESS,
        Ok(Verdict::Violation | Verdict::Undecided) => ExitCode::FAILURE,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("pegasus-perf: {failure}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_defaults_for_all_its_options() {
        for command in Arguments::command().get_subcommands() {
            Arguments::try_parse_from(["pegasus-perf", command.get_name()]).unwrap();
        }
    }

    #[test]
    fn options_reach_their_commands() {
        let arguments = ["pegasus-perf", "run", "--mix", "get=90,set=10", "--rate", "500", "--server-pids", "1,2"];
        let Command::Run(options) = Arguments::try_parse_from(arguments).unwrap().command else {
            panic!("run was asked for");
        };
        assert_eq!(options.workload.mix.to_string(), "get=90,set=10");
        assert_eq!(options.rate, Some(500.0));
        assert_eq!(options.common.servers.server_pids, [1, 2]);

        let arguments = ["pegasus-perf", "limits", "--parts", "disk,rocksdb", "--depths", "1,8", "--seconds", "0.5"];
        let Command::Limits(options) = Arguments::try_parse_from(arguments).unwrap().command else {
            panic!("limits was asked for");
        };
        assert_eq!(options.parts, [limits::Part::Disk, limits::Part::Rocksdb]);
        assert_eq!((options.depths.as_slice(), options.seconds), (&[1, 8][..], 0.5));

        let arguments = ["pegasus-perf", "chaos", "--faults", "kill,disk", "--nodes", "5", "--seed", "9"];
        let Command::Chaos(options) = Arguments::try_parse_from(arguments).unwrap().command else {
            panic!("chaos was asked for");
        };
        assert_eq!(options.faults, [chaos::faults::Kind::Kill, chaos::faults::Kind::Disk]);
        assert_eq!((options.setup.nodes, options.seed), (5, 9));
    }

    #[test]
    fn bad_options_are_refused() {
        for arguments in [
            vec!["run", "--mix", "fly=1"],
            vec!["run", "--depth", "0"],
            vec!["run", "--rate", "-5"],
            vec!["run", "--seconds", "0"],
            vec!["run", "--seconds", "inf"],
            vec!["run", "--durability", "maybe"],
            vec!["run", "--keys", "0"],
            vec!["run", "--value-bytes", "1024001"],
            vec!["run", "--meta", "nonsense"],
            vec!["run", "--target", "127.0.0.1:34601/temp"],
            vec!["run", "--target", "pegasus://127.0.0.1:34601/temp", "--table", "other"],
            vec!["run", "--target", "pegasus://127.0.0.1:34601/temp", "--meta", "127.0.0.1:34601"],
            vec!["run", "--target", "pegasus://127.0.0.1:34601/temp", "--durability", "synced"],
            vec!["compare-protocols", "--rounds", "0"],
            vec!["limits", "--parts", "moon"],
            vec!["limits", "--block-bytes", "1000"],
            vec!["limits", "--depths", "0"],
            vec!["compare", "--rounds", "0"],
            vec!["chaos", "--faults", "rain"],
            vec!["chaos", "--nodes", "2"],
            vec!["chaos", "--seconds", "0"],
            vec!["failover", "--kills", "0"],
            vec!["model", "--operations", "0"],
            vec!["model", "--workers", "0"],
            vec!["counters", "--depth", "0"],
            vec!["scans", "--rows", "0"],
            vec!["expiry", "--ttl-seconds", "1"],
            vec!["throttle", "--rate", "1"],
            vec!["operations", "--rounds", "0"],
            vec!["crowd", "--pairs", "0"],
        ] {
            let line = ["pegasus-perf"].into_iter().chain(arguments.iter().copied());
            assert!(Arguments::try_parse_from(line).is_err(), "{arguments:?}");
        }
    }
}
