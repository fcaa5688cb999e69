//! The front door: one script builds, runs and tests, and the gate is that script.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::report;
use crate::workspace::{files, read, root};

/// What `run.sh` can do.
const COMMANDS: &[&str] =
    &["build", "start_onebox", "stop_onebox", "list_onebox", "clear_onebox", "shell", "bench", "test", "fix"];

#[test]
fn the_gate_is_the_test_command() {
    let gate = read(".ci/run");
    assert!(
        gate.lines().any(|line| line.trim_start_matches("exec ").trim() == "./run.sh test"),
        ".ci/run calls exactly ./run.sh test, so that everybody can run the gate"
    );
}

#[test]
fn scripts_stop_at_the_first_error() {
    let shell_scripts = files().into_iter().filter(|file| file.path.ends_with(".sh") || file.path == ".ci/run");
    let mut breaches = Vec::new();
    for script in shell_scripts {
        if !script.text.starts_with("#!/usr/bin/env bash\n") {
            breaches.push(format!("{}: begins with #!/usr/bin/env bash", script.path));
        }
        if !script.text.contains("\nset -euo pipefail\n") {
            breaches.push(format!("{}: set -euo pipefail", script.path));
        }
        let mode = std::fs::metadata(root().join(&script.path)).unwrap().permissions().mode();
        if mode & 0o111 == 0 {
            breaches.push(format!("{}: chmod +x", script.path));
        }
    }
    report("scripts fail early and can be called:", &breaches);
}

#[test]
fn scripts_are_understood_by_bash() {
    for script in files().into_iter().filter(|file| file.path.ends_with(".sh") || file.path == ".ci/run") {
        let checked = Command::new("bash").arg("-n").arg(root().join(&script.path)).output().unwrap();
        assert!(checked.status.success(), "{}: {}", script.path, String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn the_front_door_names_all_its_commands() {
    let output = Command::new(root().join("run.sh")).arg("help").output().unwrap();
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "./run.sh help fails: {}", String::from_utf8_lossy(&output.stderr));
    let missing: Vec<String> =
        COMMANDS.iter().filter(|command| !help.contains(*command)).map(|command| (*command).to_owned()).collect();
    report("./run.sh help does not mention:", &missing);
}

#[test]
fn an_unknown_command_is_an_error_that_names_the_known_ones() {
    let output = Command::new(root().join("run.sh")).arg("frobnicate").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("frobnicate") && text.contains("start_onebox"), "{text}");
}
