//! Pure stays pure: no runtime in the dependency tree, no clock or file in the source, lints that say so.

use std::process::Command;

use crate::report;
use crate::scanner::product_lines;
use crate::workspace::{product_files, read, root};

/// Folders whose sources see no IO, no clock and no randomness of their own.
const PURE_SOURCES: &[&str] = &["rpc/wire/src/", "replication/src/", "history/src/", "meta/src/core/", "gateway/src/"];

/// What such a source never names.
const NEVER_NAMED: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "axum::",
    "crate::host",
    "getrandom",
    "glommio",
    "openraft",
    "pegasus_rpc",
    "print!",
    "println!",
    "eprintln!",
    "quinn",
    "rand::",
    "redb",
    "rocksdb",
    "super::host",
    "tokio",
];

/// Methods which the clippy.toml of a pure package bans.
const BANNED_METHODS: &[&str] = &["std::time::Instant::now", "std::time::SystemTime::now", "std::thread::spawn"];

#[test]
fn the_client_builds_without_rocksdb_and_glommio() {
    let breaches = crates_in_tree(&["-p", "pegasus-client"], &["glommio", "librocksdb-sys", "rocksdb"]);
    report("in the dependency tree of pegasus-client (see cargo tree -e normal -p pegasus-client):", &breaches);
}

#[test]
fn the_shell_builds_without_rocksdb_and_glommio() {
    let breaches = crates_in_tree(&["-p", "pegasus-shell"], &["glommio", "librocksdb-sys", "rocksdb"]);
    report("in the dependency tree of pegasus-shell (see cargo tree -e normal -p pegasus-shell):", &breaches);
}

#[test]
fn the_meta_service_builds_without_rocksdb_and_glommio() {
    let breaches = crates_in_tree(&["-p", "pegasus-meta"], &["glommio", "librocksdb-sys", "rocksdb"]);
    report("in the dependency tree of pegasus-meta (see cargo tree -e normal -p pegasus-meta):", &breaches);
}

#[test]
fn pure_packages_build_without_any_runtime() {
    let never = [
        "async-executor",
        "glommio",
        "hyper",
        "librocksdb-sys",
        "mio",
        "openraft",
        "quinn",
        "quinn-proto",
        "quinn-udp",
        "rand",
        "redb",
        "rocksdb",
        "rustls",
        "socket2",
        "tokio",
    ];
    let mut breaches = Vec::new();
    for selection in
        [&["-p", "pegasus-wire"][..], &["-p", "pegasus-replication"], &["-p", "pegasus-meta", "--no-default-features"]]
    {
        let found = crates_in_tree(selection, &never);
        breaches.extend(found.iter().map(|name| format!("cargo tree -e normal {}: {name}", selection.join(" "))));
    }
    report("a pure package sees no runtime, not even through another crate:", &breaches);
}

#[test]
fn the_simulator_sees_only_the_core_of_meta() {
    let never = ["glommio", "openraft", "quinn", "redb", "rocksdb", "tokio"];
    let breaches = crates_in_tree(&["-p", "pegasus-sim"], &never);
    report("the simulator runs without IO; in its dependency tree (cargo tree -e normal -p pegasus-sim):", &breaches);
}

#[test]
fn pure_sources_name_no_io() {
    let mut breaches = Vec::new();
    for file in product_files().iter().filter(|file| PURE_SOURCES.iter().any(|folder| file.path.starts_with(folder))) {
        for (index, line) in product_lines(&file.text).iter().enumerate() {
            for name in NEVER_NAMED.iter().filter(|name| names(&line.code, name)) {
                breaches.push(format!("{}:{}: {name}", file.path, index + 1));
            }
        }
    }
    report("a pure source takes time, randomness and IO as arguments, or leaves them to its host:", &breaches);
}

#[test]
fn pure_packages_ban_clocks_and_threads_by_lint() {
    let mut breaches = Vec::new();
    for folder in ["rpc/wire", "replication", "history"] {
        let path = format!("{folder}/clippy.toml");
        if !root().join(&path).exists() {
            breaches.push(format!("{path} is missing"));
            continue;
        }
        let table: toml::Table = read(&path).parse().unwrap();
        let entries = table.get("disallowed-methods").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        let paths: Vec<&str> = entries.iter().filter_map(|entry| entry.get("path")?.as_str()).collect();
        let missing = BANNED_METHODS.iter().filter(|method| !paths.contains(method));
        breaches.extend(missing.map(|method| format!("{path} does not ban {method}")));
    }
    report("a pure package has a clippy.toml that bans ambient time and threads:", &breaches);
}

#[test]
fn the_protocol_crate_is_reached_by_concrete_names_only() {
    assert!(names("use tokio::sync;", "tokio"));
    assert!(!names("let tokio_like = 1;", "tokio"));
    assert!(names("std::fs::read(x)", "std::fs"));
    assert!(!names("my_std::fs", "std::fs"));
    assert!(names("x = rand::random()", "rand::") && !names("operand::x", "rand::"));
}

/// True if the code has the name with nothing of a longer word around it.
fn names(code: &str, name: &str) -> bool {
    let word = |character: Option<char>| character.is_some_and(crate::scanner::is_word);
    code.match_indices(name).any(|(start, _)| {
        let after = code[start + name.len()..].chars().next();
        let open_ended = name.ends_with([':', '!']);
        !word(code[..start].chars().next_back()) && (open_ended || !word(after))
    })
}

/// Which of `never` are in the normal dependency tree of a selection of packages.
fn crates_in_tree(selection: &[&str], never: &[&str]) -> Vec<String> {
    let output = Command::new(std::env::var("CARGO").expect("cargo test says which cargo it is"))
        .args(["tree", "--offline", "--locked", "-e", "normal", "--prefix", "none", "-f", "{p}"])
        .args(selection)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree {}: {errors}", selection.join(" "));
    let tree = String::from_utf8(output.stdout).expect("cargo tree prints text");
    let mut names: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 1, "an empty tree proves nothing: {tree}");
    names.sort_unstable();
    names.dedup();
    names.into_iter().filter(|name| never.contains(name)).map(str::to_owned).collect()
}
