//! The proofs from end to end on small clusters: that they come to a verdict, that it is `OK`, and that they asked what
//! they say. What they prove they prove in longer runs.
#![allow(clippy::unwrap_used)]

mod program;

use program::{last_line, perf, processes_of, results};
use serde_json::Value;

/// Runs a proof; its last line and what it wrote for machines.
fn proved(words: &[&str]) -> (String, Value) {
    let home = tempfile::tempdir().unwrap();
    let output = perf(home.path(), words).output().unwrap();
    let verdict = last_line(&output);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(verdict.starts_with(&format!("{}: OK seed ", words[0])), "{text}");
    assert!(output.status.success());
    let results = results(home.path());
    assert_eq!(results["verdict"], "OK");
    assert!(!home.path().join("run").exists(), "the directory of a good run is removed");
    assert_eq!(processes_of(home.path()), Vec::<String>::new());
    (verdict, results)
}

#[test]
fn the_model_explains_every_answer() {
    let words = ["model", "--operations", "2000", "--workers", "8", "--seed", "3", "--durability", "written"];
    let (_, results) = proved(&words);
    assert!(results["operations"].as_u64().unwrap() >= 2000);
    assert_eq!((&results["failed"], &results["unknown"]), (&Value::from(0), &Value::from(0)));
    let names = results["by_name"].as_object().unwrap();
    for name in ["incr", "check_and_set", "check_and_mutate", "del_range", "multi_get_range", "sorted_scan"] {
        assert!(names[name].as_u64().unwrap() > 0, "{name}");
    }
    assert!(results["last_look"]["answered"].as_u64().unwrap() > 0);
}

#[test]
fn counters_count() {
    let words = ["counters", "--operations", "4000", "--clients", "2", "--durability", "written"];
    let (verdict, results) = proved(&words);
    let sums = results["sums"].as_array().unwrap();
    assert_eq!(sums.len(), 4);
    for sum in sums {
        assert_eq!((&sum["last"], &sum["unknown"]), (&sum["acknowledged"], &Value::from(0)), "{verdict}");
    }
    assert!(results["exchanged"].as_u64().unwrap() > 100, "{verdict}");
}

#[test]
fn scans_are_whole_and_in_order() {
    let words = ["scans", "--rows", "20000", "--sorted-keys", "500", "--cases", "12", "--durability", "written"];
    let (_, results) = proved(&words);
    let passes = results["passes"].as_array().unwrap();
    assert_eq!(passes.len(), 4);
    assert!(passes.iter().all(|pass| pass["rows"].as_u64().unwrap() >= 20_000), "{passes:?}");
    assert_eq!(results["sorted"]["scans"], 24);
}
