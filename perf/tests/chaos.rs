//! `chaos` and `failover` from end to end on real processes: their verdict, and that nothing is left behind. Faults are
//! those that need no rights, so that the tests mean the same everywhere.
#![allow(clippy::unwrap_used)]

mod program;

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use program::{last_line, perf, processes_of, results};

#[test]
fn a_cluster_survives_kills_and_stops_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let words = ["chaos", "--seconds", "6", "--seed", "5", "--faults", "kill,stop", "--clients", "8"];
    let output = perf(home.path(), &words).output().unwrap();
    let verdict = last_line(&output);
    assert!(verdict.starts_with("chaos: OK seed 5, 6 s: operations "), "{output:?}");
    assert!(output.status.success());
    let results = results(home.path());
    assert_eq!(results["verdict"], "OK");
    assert!(results["counts"]["ok"].as_u64().unwrap() > 200, "{verdict}");
    let faults = results["faults"].as_object().unwrap();
    assert!(!faults.is_empty() && faults.keys().all(|kind| kind == "kill" || kind == "stop"), "{faults:?}");
    assert!(results["events"].as_array().unwrap().len() > faults.len());
    assert!(!home.path().join("run").exists(), "the directory of a good run is removed");
    assert_eq!(processes_of(home.path()), Vec::<String>::new());
}

/// A run that is ended with the test, however that ends.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_interrupted_run_takes_its_cluster_down() {
    let home = tempfile::tempdir().unwrap();
    let words = ["chaos", "--seconds", "600", "--seed", "5", "--faults", "stop"];
    let mut run = Run(perf(home.path(), &words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let wait_for = |what: &str, holds: &mut dyn FnMut() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "waited for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // The runner itself, the meta server and three nodes.
    wait_for("the cluster", &mut || processes_of(home.path()).len() == 5);
    // SAFETY: the process is our child and has not been waited for, so the number is still its own.
    unsafe { libc::kill(run.0.id() as libc::pid_t, libc::SIGINT) };
    let mut status = None;
    wait_for("the end of the run", &mut || {
        status = run.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(1));
    assert_eq!(processes_of(home.path()), Vec::<String>::new());
    assert!(home.path().join("run/node1/log").is_file(), "what happened can be looked at");
}

#[test]
fn failover_measures_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let output = perf(home.path(), &["failover", "--kills", "1", "--clients", "4"]).output().unwrap();
    let verdict = last_line(&output);
    assert!(verdict.starts_with("failover: OK seed 1, 1 times kill -9: writes again after median "), "{output:?}");
    assert!(verdict.contains("lost acknowledged writes 0, stale reads 0"), "{verdict}");
    let results = results(home.path());
    let round = &results["rounds"][0];
    assert_eq!(round["recovered_s"].as_array().unwrap().len() as u64, round["partitions"].as_u64().unwrap());
    assert!(results["max_s"].as_f64().unwrap() > 0.0);
    assert_eq!(processes_of(home.path()), Vec::<String>::new());
}

#[test]
fn a_directory_with_something_in_it_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("run")).unwrap();
    fs::write(home.path().join("run/mine"), "precious").unwrap();
    let output = perf(home.path(), &["chaos", "--seconds", "5"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("not empty"), "{errors}");
    assert_eq!(fs::read_to_string(home.path().join("run/mine")).unwrap(), "precious");
}
