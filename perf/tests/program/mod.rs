//! The program itself, run as its users run it, and what it leaves behind.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The program, with a directory of this test.
pub(crate) fn perf(home: &Path, words: &[&str]) -> Command {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_pegasus-perf"));
    for server in ["pegasus-meta", "pegasus-replica"] {
        let path = program.with_file_name(server);
        assert!(path.is_file(), "{} is missing: build the workspace in this profile first", path.display());
    }
    let mut command = Command::new(program);
    command.args(words).arg("--dir").arg(home.join("run")).arg("--json").arg(home.join("out.json"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The last line that it printed.
pub(crate) fn last_line(output: &Output) -> String {
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    out.lines().last().unwrap_or_else(|| panic!("nothing was printed\n{errors}")).to_owned()
}

/// What it wrote for machines.
pub(crate) fn results(home: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(home.join("out.json")).unwrap()).unwrap()
}

/// Command lines of the processes that have to do with this directory.
pub(crate) fn processes_of(home: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(home.to_str().unwrap()) {
            found.push(line);
        }
    }
    found
}
