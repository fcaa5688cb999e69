//! Scenarios as scripts, and what the replicas do as transcripts beside them. `UPDATE_GOLDEN=1` writes the
//! transcripts anew; the difference is then read by a person.

#![allow(clippy::unwrap_used)]

mod cluster;

use std::path::Path;

use cluster::Cluster;

#[test]
fn transcripts_match() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut scripts: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "script"));
    scripts.sort();
    assert!(scripts.len() >= 24, "the scripts are in {}", directory.display());
    let mut stale = Vec::new();
    for path in scripts {
        let transcript = Cluster::new().play(&std::fs::read_to_string(&path).unwrap());
        let golden = path.with_extension("transcript");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &transcript).unwrap();
        }
        if std::fs::read_to_string(&golden).unwrap_or_default() != transcript {
            stale.push(golden.display().to_string());
        }
    }
    assert!(stale.is_empty(), "run with UPDATE_GOLDEN=1 and read the difference of:\n{}", stale.join("\n"));
}
