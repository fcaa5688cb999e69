//! RocksDB's threads keep to their CPUs. In a process of its own: the threads are the process's.
#![allow(clippy::unwrap_used)]

use std::fs;

use pegasus_engine::affinity::current_thread_cpus;
use pegasus_engine::table::{Bottommost, OpenMode, SharedOptions, Table, TableShared};
use pegasus_wire::PartitionId;

/// Allowed CPUs, as the kernel prints them, of all threads of this process whose names begin so.
fn cpus_of_threads(beginning: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.map_or(String::new(), |line| line[name.len()..].trim().to_owned())
        };
        let name = field("Name:");
        if name.starts_with(beginning) {
            found.push((name, field("Cpus_allowed_list:")));
        }
    }
    found.sort();
    found
}

#[test]
fn background_threads_stay_on_the_cpus_they_were_given() {
    let before = current_thread_cpus().unwrap();
    let last = *before.last().unwrap();
    let options = SharedOptions {
        block_cache_bytes: 1 << 20,
        background_threads: 5,
        background_cpus: Some(vec![last]),
        ..SharedOptions::default()
    };
    let shared = TableShared::new(options).unwrap();
    assert_eq!(current_thread_cpus().unwrap(), before, "the caller keeps its own CPUs");

    let root = tempfile::tempdir().unwrap();
    let tables: Vec<_> = (0..4)
        .map(|index| {
            let path = root.path().join(index.to_string());
            let table = Table::open(&path, &shared, PartitionId::new(1, index), OpenMode::CreateIfMissing).unwrap();
            table.flush().unwrap();
            let _ = table.compact(Bottommost::Force).unwrap();
            table
        })
        .collect();
    let threads = cpus_of_threads("rocksdb:");
    let named = |name: &str| threads.iter().filter(|(thread, _)| thread == name).count();
    assert_eq!((named("rocksdb:high"), named("rocksdb:low")), (1, 4), "opening tables starts no more: {threads:?}");
    for (name, cpus) in &threads {
        assert_eq!(cpus, &last.to_string(), "{name}");
    }
    drop(tables);
}

#[test]
fn impossible_cpus_are_an_error() {
    let options = SharedOptions { background_cpus: Some(vec![100_000]), ..SharedOptions::default() };
    let error = TableShared::new(options).err().unwrap().to_string();
    assert!(error.contains("background_cpus"), "{error}");
}
