//! `run --target` and `compare-protocols` from end to end against stand-ins for both kinds of servers.
#![allow(clippy::unwrap_used)]

mod stub;

use std::path::Path;

use clap::{Args, Parser};
use pegasus_perf::workload::Operation;
use pegasus_perf::{protocols, run};
use pegasus_stand_in::StandIn;
use serde_json::Value;
use stub::Stub;
use tokio::runtime::Runtime;

/// A command line that is nothing but the options of one command.
#[derive(Parser)]
struct Line<Options: Args> {
    #[command(flatten)]
    options: Options,
}

fn options<Options: Args>(home: &Path, words: &[&str]) -> Options {
    let mut line = vec!["test".to_owned(), "--server-pids".to_owned(), std::process::id().to_string()];
    line.extend(["--json".to_owned(), home.join("out.json").display().to_string()]);
    line.extend(words.iter().map(|word| (*word).to_owned()));
    Line::<Options>::try_parse_from(line).unwrap().options
}

fn results(home: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(home.join("out.json")).unwrap()).unwrap()
}

/// A stand-in on a runtime of its own, as the commands have theirs.
fn stand_in() -> (Runtime, StandIn) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(StandIn::start(3));
    (runtime, server)
}

const SHORT: [&str; 8] = ["--keys", "100", "--seconds", "0.3", "--warmup-seconds", "0.1", "--depth", "8"];

#[test]
fn every_operation_of_the_protocol_is_driven() {
    let home = tempfile::tempdir().unwrap();
    let (_runtime, server) = stand_in();
    let target = server.target("new");
    let known = Operation::ALL.into_iter().filter(|operation| *operation != Operation::DeleteRange);
    let mix: Vec<String> = known.clone().map(|operation| format!("{operation}=1")).collect();
    let mix = mix.join(",").replace("del=1", "del=0");
    let words = ["--target", &target, "--mix", &mix, "--connections", "2"];
    run::run(&options(home.path(), &[&SHORT[..], &words].concat())).unwrap();
    let results = results(home.path());
    assert_eq!((&results["setting"]["table"], &results["setting"]["loaded"]), (&target.into(), &100.into()));
    let operations = results["figures"]["operations"].as_array().unwrap();
    let names: Vec<&str> = operations.iter().map(|line| line["measurement"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["cas", "exist", "get", "incr", "multi_get", "scan", "set"], "every read hits");
    for line in operations {
        assert!(line["measurement"]["operations"].as_u64().unwrap() > 0, "{line}");
        assert_eq!(line["measurement"]["errors"], 0, "{line}");
    }
    assert!(results["figures"]["total"]["server_cpu_us"].as_f64().unwrap() > 0.0);
    assert_eq!(server.open_scans(), 0);
}

#[test]
fn what_cannot_be_measured_is_told() {
    let home = tempfile::tempdir().unwrap();
    let (_runtime, server) = stand_in();
    let fail = |table: &str, more: &[&str]| {
        let target = server.target(table);
        let words = [&SHORT[..], &["--target", &target], more].concat();
        run::run(&options(home.path(), &words)).unwrap_err().to_string()
    };
    let error = fail("none", &["--mix", "get=1,del_range=1"]);
    assert!(error.contains("del_range is none"), "{error}");
    server.forbid_tables();
    let error = fail("none", &[]);
    assert!(error.contains("cannot be made") && error.contains("ERR_STATE_FREEZED"), "{error}");
}

#[test]
fn both_protocols_are_measured_in_turn() {
    let home = tempfile::tempdir().unwrap();
    let (_runtime, server) = stand_in();
    let stub = Stub::start(&home.path().join("tls"));
    let (meta, tls) = (stub.meta.to_string(), home.path().join("tls").display().to_string());
    let target = server.target("perf_synced");
    let words = ["--meta", &meta, "--tls", &tls, "--target", &target, "--keys", "100", "--seconds", "0.2"];
    protocols::run(&options(home.path(), &[&words[..], &["--rounds", "2"]].concat())).unwrap();
    let results = results(home.path());
    let medians = results["medians"].as_array().unwrap();
    let shape: Vec<(&str, u64)> = medians
        .iter()
        .map(|pair| (pair["operation"].as_str().unwrap(), pair["thrift"]["depth"].as_u64().unwrap()))
        .collect();
    assert_eq!(shape, [("get", 1), ("get", 64), ("set", 1), ("set", 64)]);
    for figures in medians.iter().flat_map(|pair| [&pair["native"], &pair["thrift"]]) {
        assert!(figures["operations"].as_u64().unwrap() > 0, "{figures}");
        assert_eq!(figures["errors"], 0, "{figures}");
    }
    assert_eq!(results["rounds"].as_array().unwrap().len(), 2);
}
