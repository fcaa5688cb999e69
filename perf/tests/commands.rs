//! The commands from end to end against a stand-in for a cluster: what is loaded, measured and written down. Whether a
//! figure is right cannot be told here; whether it is there, and counts what it says it counts, can.
#![allow(clippy::unwrap_used)]

mod stub;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::{Args, Parser};
use pegasus_perf::{compare, run, trace};
use pegasus_wire::Durability;
use serde_json::Value;
use stub::Stub;

/// A command line that is nothing but the options of one command.
#[derive(Parser)]
struct Line<Options: Args> {
    #[command(flatten)]
    options: Options,
}

/// Parses options as the program would, with the cluster, the servers and the output of this test filled in.
fn options<Options: Args>(stub: &Stub, home: &Path, more: &[&str]) -> Options {
    let mut line = vec!["test".to_owned(), "--meta".to_owned(), stub.meta.to_string()];
    line.extend(["--server-pids".to_owned(), std::process::id().to_string()]);
    for (option, file) in [("--tls", "tls"), ("--json", "out.json")] {
        line.extend([option.to_owned(), home.join(file).display().to_string()]);
    }
    line.extend(more.iter().map(|word| (*word).to_owned()));
    Line::<Options>::try_parse_from(line).unwrap().options
}

fn results(home: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(home.join("out.json")).unwrap()).unwrap()
}

#[test]
fn run_loads_what_is_missing_and_measures_every_operation() {
    let home = tempfile::tempdir().unwrap();
    let stub = Stub::start(&home.path().join("tls"));
    let words = ["--keys", "200", "--seconds", "0.3", "--warmup-seconds", "0.1", "--depth", "8", "--connections", "2"];
    run::run(&options(&stub, home.path(), &words)).unwrap();
    let first = results(home.path());
    assert_eq!(stub.row_count(), 200);
    assert_eq!(first["setting"]["loaded"], 200);
    let table = &stub.tables()[0];
    assert_eq!((table.name.as_str(), table.partition_count, table.replica_count), ("perf_synced", 8, 3));
    assert_eq!(table.durability, Durability::Synced);

    let operations = first["figures"]["operations"].as_array().unwrap();
    let names: Vec<&str> = operations.iter().map(|line| line["measurement"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["get", "set"], "every get hits");
    for line in operations {
        assert!(line["measurement"]["operations"].as_u64().unwrap() > 0);
        assert_eq!(line["measurement"]["errors"], 0);
        assert!(line["measurement"]["latency"]["p50_us"].as_f64().unwrap() > 0.0);
    }
    let total = &first["figures"]["total"];
    assert!(total["client_cpu_us"].as_f64().unwrap() > 0.0);
    assert!(total["server_cpu_us"].as_f64().is_some());

    // What is there is not loaded again; a fixed rate is kept.
    let words = ["--keys", "200", "--seconds", "0.5", "--warmup-seconds", "0.1", "--rate", "300", "--mix", "get=1"];
    run::run(&options(&stub, home.path(), &words)).unwrap();
    let second = results(home.path());
    assert_eq!(second["setting"]["loaded"], 0);
    let done = second["figures"]["total"]["operations"].as_u64().unwrap();
    assert!((50..=160).contains(&done), "{done} operations in half a second at 300 a second");
}

#[test]
fn run_counts_reads_of_deleted_rows_apart() {
    let home = tempfile::tempdir().unwrap();
    let stub = Stub::start(&home.path().join("tls"));
    let words = ["--keys", "10", "--seconds", "0.2", "--warmup-seconds", "0.05", "--mix", "get=50,exist=50,del=50"];
    run::run(&options(&stub, home.path(), &words)).unwrap();
    let results = results(home.path());
    let operations = results["figures"]["operations"].as_array().unwrap();
    let has = |name: &str| operations.iter().any(|line| line["measurement"]["name"] == name);
    assert!(has("del") && has("get (no row)") && has("exist (no row)"), "{operations:?}");
}

#[test]
fn run_refuses_a_table_of_another_durability() {
    let home = tempfile::tempdir().unwrap();
    let stub = Stub::start(&home.path().join("tls"));
    let words = |durability| {
        ["--table", "mine", "--keys", "5", "--seconds", "0.05", "--warmup-seconds", "0.01", "--durability", durability]
    };
    run::run(&options(&stub, home.path(), &words("written"))).unwrap();
    let failure = run::run(&options(&stub, home.path(), &words("synced"))).unwrap_err().to_string();
    assert!(failure.contains("table mine is written"), "{failure}");
}

#[test]
fn compare_measures_limits_and_cluster_in_each_round() {
    let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let stub = Stub::start(&home.path().join("tls"));
    let directory = home.path().display().to_string();
    let words =
        ["--keys", "50", "--seconds", "0.1", "--limit-seconds", "0.05", "--rounds", "1", "--directory", &directory];
    compare::run(&options(&stub, home.path(), &words)).unwrap();
    let results = results(home.path());
    assert_eq!(results["rounds"].as_array().unwrap().len(), 1);
    let medians = results["medians"].as_array().unwrap();
    assert_eq!(medians.len(), 7 + 8, "seven limits; get and set at two depths for two durabilities");
    for line in medians {
        let measurement = &line["measurement"];
        assert!(measurement["operations"].as_u64().unwrap() > 0, "{measurement}");
        assert_eq!(measurement["errors"], 0, "{measurement}");
    }
    let rails = results["rails"].as_array().unwrap();
    assert_eq!(rails.len(), 6);
    assert!(rails.iter().all(|rail| rail["measured"].is_number() && rail["limit"].is_number()), "{rails:?}");
    let names: Vec<String> = stub.tables().into_iter().map(|table| table.name).collect();
    assert_eq!(names, ["perf_written", "perf_synced"]);
}

#[test]
fn trace_sums_up_what_strace_says_of_the_serving_threads() {
    let home = tempfile::tempdir().unwrap();
    let stub = Stub::start(&home.path().join("tls"));
    // It says what it was attached to and one call, and stays until it is interrupted.
    let strace = home.path().join("strace");
    let script = "#!/bin/sh\n[ \"$1\" = -V ] && exit 0\necho \"[pid $5] fsync(1) = 0 <0.25>\" >&2\nexec sleep 600\n";
    std::fs::write(&strace, script).unwrap();
    std::fs::set_permissions(&strace, std::fs::Permissions::from_mode(0o755)).unwrap();
    let strace = strace.display().to_string();
    let words = ["--keys", "50", "--seconds", "1", "--thread-prefix", stub::THREAD_NAME, "--strace", &strace];
    let options: trace::Options = options(&stub, home.path(), &words);
    // Other tests of this process have stand-ins of the same name; which of them is the first does not matter.
    trace::run(&options).unwrap();
    let results = results(home.path());
    assert_eq!(results["threads"].as_array().unwrap().len(), 1);
    let fsync = &results["summary"]["calls"]["fsync"];
    assert_eq!((&fsync["count"], &fsync["expected"]), (&Value::from(1), &Value::from(false)));
    let thread = &results["threads"][0]["thread"];
    assert_eq!(fsync["examples"][0], format!("[pid {thread}] fsync(1) = 0 <0.25>"));
    assert!(results["operations"].as_u64().unwrap() > 0);
}

#[test]
fn trace_without_strace_says_how_to_get_it() {
    let home = tempfile::tempdir().unwrap();
    let stub = Stub::start(&home.path().join("tls"));
    let failure = trace::run(&options(&stub, home.path(), &["--strace", "/no/such/strace"])).unwrap_err().to_string();
    assert!(failure.contains("apt-get install strace"), "{failure}");
}
