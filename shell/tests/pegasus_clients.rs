//! Pegasus's own clients, unmodified, against a onebox: the programs of `gateway/clients`, built with what their
//! package registries have. Where a toolchain is missing, or its registry does not give what it should, a client is
//! passed over, and the test says so.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use support::TestCluster;

const PORT_OFFSET: u16 = 30500;
/// A bound on one run of a program; far above what it takes.
const RUN_MAX: Duration = Duration::from_secs(300);
/// A registry may fail to answer; then it is asked again.
const ATTEMPTS: usize = 3;
/// What the tools say when a registry is out of reach or does not have a package.
const REGISTRY_REFUSALS: [&str; 9] = [
    "403 Forbidden",
    "404 Not Found",
    "dial tcp",
    "i/o timeout",
    "Could not transfer",
    "Could not find artifact",
    "Could not resolve",
    "No matching distribution",
    "Could not fetch URL",
];
/// How long the clients load the cluster in which a node is killed.
const LOAD_SECONDS: &str = "30";
/// What has to be there of a table of 8 partitions before a node may be killed.
const MEMBERS: usize = 3;

/// The tests of this program share their ports.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// One of the clients, ready to run.
struct Client {
    name: &'static str,
    program: Vec<PathBuf>,
    /// What comes before the names of options.
    dash: &'static str,
}

impl Client {
    fn command(&self, cluster: &TestCluster, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]);
        command.arg(format!("{}meta", self.dash)).arg(cluster.meta_address().to_string()).args(arguments);
        // Some write logs where they are.
        command.current_dir(folder(self.name)).stdin(Stdio::null());
        command
    }

    /// Runs a mode that checks, and tells how many checks there were.
    fn check(&self, cluster: &TestCluster, mode: &str) {
        let output = bounded(self.command(cluster, &[mode]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn());
        let said = String::from_utf8_lossy(&output.stdout);
        let last = said.lines().last().unwrap_or_default();
        assert!(
            output.status.success() && last.starts_with("ok: "),
            "{} {mode}: {}\n{said}\n{}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        eprintln!("{} {mode}: {last}", self.name);
    }
}

/// Where a client's program is built: kept from run to run.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pegasus-clients").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("gateway/clients").join(name)
}

/// The end of a process, which comes in time or is brought about.
fn bounded(child: std::io::Result<Child>) -> Output {
    let child = child.unwrap();
    let id = child.id();
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    match end.recv_timeout(RUN_MAX) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            // Its end is waited for by the thread.
            let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
            panic!("a program had not ended after {RUN_MAX:?}");
        }
    }
}

/// True if a tool of a toolchain is there.
fn has(tool: &str, version: &str) -> bool {
    Command::new(tool).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|end| end.success())
}

/// Builds; what comes from a registry may need more than one attempt. False if the registry does not give it.
fn build(name: &str, command: impl Fn() -> Command) -> bool {
    let mut said = String::new();
    for _ in 0..ATTEMPTS {
        let output = command().stdin(Stdio::null()).output().unwrap();
        if output.status.success() {
            return true;
        }
        said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    assert!(REGISTRY_REFUSALS.iter().any(|words| said.contains(words)), "{name} cannot be built:\n{said}");
    eprintln!("NOT RUN: the {name} client, because its package registry does not give it:\n{said}");
    false
}

fn go() -> Option<Client> {
    let name = "go";
    if !has("go", "version") {
        return passed_over(name, "go");
    }
    let program = folder(name).join("client");
    let built = build(name, || {
        let mut command = Command::new("go");
        command.args(["build", "-o"]).arg(&program).arg(".").current_dir(source(name));
        command
    });
    built.then(|| Client { name, program: vec![program], dash: "-" })
}

fn python() -> Option<Client> {
    let name = "python";
    let python = ["python3.11", "python3"].into_iter().find(|python| has(python, "--version"));
    let Some(python) = python.filter(|python| is_python_3_11(python)) else {
        return passed_over(name, "CPython 3.11");
    };
    let environment = folder(name).join("environment");
    let program = environment.join("bin/python");
    let requirements = std::fs::read_to_string(source(name).join("requirements.txt")).unwrap();
    let installed = folder(name).join("installed");
    if std::fs::read_to_string(&installed).ok().as_ref() != Some(&requirements) {
        build(name, || {
            let mut command = Command::new(python);
            command.args(["-m", "venv", "--clear"]).arg(&environment);
            command
        });
        let installs = build(name, || {
            let mut command = Command::new(&program);
            command.args(["-m", "pip", "install", "--quiet", "--requirement"]);
            command.arg(source(name).join("requirements.txt"));
            command
        });
        if !installs {
            return None;
        }
        std::fs::write(installed, requirements).unwrap();
    }
    Some(Client { name, program: vec![program, source(name).join("client.py")], dash: "--" })
}

/// The versions in its requirements are those of this Python.
fn is_python_3_11(python: &str) -> bool {
    let output = Command::new(python).arg("--version").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).starts_with("Python 3.11."))
}

fn java() -> Option<Client> {
    let name = "java";
    if !has("java", "-version") || !has("mvn", "--version") {
        return passed_over(name, "java and mvn");
    }
    let copy = folder(name);
    copy_folder(&source(name), &copy);
    let built = build(name, || {
        let mut command = Command::new("mvn");
        command.args(["--quiet", "--batch-mode", "package"]).current_dir(&copy);
        command
    });
    let jar = copy.join("target/client.jar");
    built.then(|| Client { name, program: vec!["java".into(), "-jar".into(), jar], dash: "--" })
}

/// The sources, so that nothing is built in the checkout.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if !entry.file_type().unwrap().is_dir() {
            std::fs::copy(entry.path(), target).unwrap();
        } else if entry.file_name() != "target" {
            copy_folder(&entry.path(), &target);
        }
    }
}

fn passed_over(name: &str, missing: &str) -> Option<Client> {
    eprintln!("NOT RUN: the {name} client, because {missing} is not installed");
    None
}

#[tokio::test]
async fn every_operation_of_every_client() {
    let _turn = TURN.lock().await;
    let cluster = TestCluster::new(PORT_OFFSET);
    cluster.start(2);
    for client in [go(), python(), java()].into_iter().flatten() {
        client.check(&cluster, "basic");
        if client.name != "python" {
            client.check(&cluster, "admin");
        }
    }
}

/// A node is killed and started again while the client writes and reads: it recovers by itself, loses nothing that was
/// acknowledged, and repeats nothing whose outcome it did not know.
#[tokio::test]
async fn clients_recover_when_a_node_is_killed() {
    let _turn = TURN.lock().await;
    let cluster = TestCluster::new(PORT_OFFSET);
    cluster.start(1);
    let ours = cluster.client().await;
    for client in [go(), java(), python()].into_iter().flatten() {
        until_whole(&ours).await;
        let arguments = [&format!("{}seconds", client.dash), LOAD_SECONDS, "failover"];
        let mut load = client.command(&cluster, &arguments);
        let load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        // The load must be under way; it says nothing until its end, so the nodes are asked.
        let before = requests(&cluster);
        cluster.wait_for("load", RUN_MAX, || (requests(&cluster) > before + 1000).then_some(()));
        cluster.kill(Some("replica2"));
        cluster.start(1);
        let output = tokio::task::spawn_blocking(move || bounded(load)).await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let last = said.lines().last().unwrap_or_default();
        let report: Value = serde_json::from_str(last).unwrap_or(Value::Null);
        assert!(output.status.success(), "{}: {said}{}", client.name, String::from_utf8_lossy(&output.stderr));
        eprintln!("{} failover: {report}", client.name);
    }
}

/// Requests of clients of Pegasus that the nodes that run have taken.
fn requests(cluster: &TestCluster) -> u64 {
    let of_node = |node| {
        let (_, metrics) = cluster.get(node, "/metrics");
        let lines =
            metrics.lines().filter(|line| line.contains("compatibility_requests_total") && !line.starts_with('#'));
        let numbers = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        numbers.sum::<f64>() as u64
    };
    (0..3).map(of_node).sum()
}

async fn until_whole(client: &pegasus_client::Client) {
    let deadline = std::time::Instant::now() + RUN_MAX;
    loop {
        let partitions = client.describe_table("temp").await.unwrap().partitions;
        if partitions.iter().all(|configuration| configuration.members().count() == MEMBERS) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "still not whole: {partitions:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
