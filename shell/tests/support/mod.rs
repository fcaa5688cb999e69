//! A onebox of real processes for tests: started, killed and cleared through the `pegasus` command.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use pegasus_client::{Client, ClientOptions};
use serde_json::Value;
use tempfile::TempDir;

/// A cluster on loopback. Dropping it stops its processes and removes its directory.
pub(crate) struct TestCluster {
    directory: TempDir,
    port_offset: u16,
}

impl TestCluster {
    /// A directory and a range of ports; nothing runs yet. Tests that run at once need offsets 400 apart, and from
    /// 26500 to 30500: those ports are above what the kernel hands out for outgoing connections.
    pub(crate) fn new(port_offset: u16) -> TestCluster {
        for program in ["pegasus-meta", "pegasus-replica"] {
            let path = binaries().join(program);
            assert!(path.exists(), "{} is missing: build the workspace in this profile first", path.display());
        }
        TestCluster { directory: tempfile::tempdir().expect("a directory"), port_offset }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("onebox")
    }

    fn command(&self, verb: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pegasus"))
            .args(["onebox", verb, "--dir"])
            .arg(self.path())
            .args(arguments)
            .output()
            .expect("pegasus runs")
    }

    /// Starts what does not run and waits until temp and stat serve.
    pub(crate) fn start(&self, cores: u16) {
        let (cores, offset) = (cores.to_string(), self.port_offset.to_string());
        self.start_with(&["--cores", &cores, "--port-offset", &offset]);
    }

    /// Starts what does not run, without waiting for tables (some may refuse to serve).
    pub(crate) fn start_without_tables(&self) {
        self.start_with(&["--no-tables"]);
    }

    fn start_with(&self, arguments: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let output = self.command("start", arguments);
            // The sockets of a killed process live on for some milliseconds, until the kernel has taken down its ring.
            let port_in_use = String::from_utf8_lossy(&output.stderr).contains("another process uses");
            if !port_in_use || Instant::now() >= deadline {
                return succeeded(&output);
            }
        }
    }

    /// kill -9 of one process, or of all.
    pub(crate) fn kill(&self, only: Option<&str>) {
        match only {
            Some(name) => succeeded(&self.command("kill", &["--only", name])),
            None => succeeded(&self.command("kill", &[])),
        }
    }

    pub(crate) fn stop(&self) {
        succeeded(&self.command("stop", &[]));
    }

    pub(crate) fn meta_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 34601 + self.port_offset))
    }

    pub(crate) async fn client(&self) -> Client {
        let options = ClientOptions::new(vec![self.meta_address()], self.path().join("tls"));
        Client::connect(options).await.expect("the cluster answers")
    }

    /// The `pegasus` command, about to work on a table of this cluster and to print JSON.
    pub(crate) fn tool(&self, table: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pegasus"));
        command.args(["--json", "--table", table, "--meta", &self.meta_address().to_string()]);
        command.arg("--tls").arg(self.path().join("tls"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// The `pegasus` command as a user of this cluster starts it: what it needs to know is in its environment.
    pub(crate) fn shell(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pegasus"));
        command.env("PEGASUS_META", self.meta_address().to_string()).env("PEGASUS_TLS", self.path().join("tls"));
        command.env_remove("PEGASUS_TABLE").env("PEGASUS_HISTORY", self.directory.path().join("history"));
        command
    }

    /// GET from a node's administration port: status line and body.
    pub(crate) fn get(&self, node: u16, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", 34901 + self.port_offset + node)).expect("admin port");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        (status, body)
    }

    /// Waits until all three copies of a partition are at one decree with the same live rows; gives their number.
    pub(crate) fn rows_equal_on_all_copies(&self, partition: &str, within: Duration) -> u64 {
        let deadline = Instant::now() + within;
        loop {
            let digests: Vec<String> =
                (0..3).map(|node| self.get(node, &format!("/digest/{partition}"))).map(|(_, body)| body).collect();
            if digests.iter().all(|digest| *digest == digests[0])
                && let Ok(Value::Object(digest)) = serde_json::from_str::<Value>(&digests[0])
            {
                return digest["rows"].as_u64().expect("a number of rows");
            }
            if Instant::now() >= deadline {
                panic!("copies of {partition} differ: {digests:?}\n{}", self.descriptions(partition));
            }
        }
    }
}

impl TestCluster {
    /// The data directory of a node; the first is 0.
    pub(crate) fn data_directory(&self, node: u16) -> PathBuf {
        self.path().join(format!("replica{}/data", node + 1))
    }

    /// The node (the first is 0) that listens on an address, with one core per node.
    pub(crate) fn node_at(&self, address: SocketAddr) -> u16 {
        address.port() - 34801 - self.port_offset
    }

    /// What a node has logged since the onebox was made.
    pub(crate) fn process_log(&self, node: u16) -> String {
        let name = format!("replica{}", node + 1);
        std::fs::read_to_string(self.path().join(format!("{name}/log/{name}.log"))).expect("a log")
    }

    /// All copies of a node, as `/status` shows them, by partition.
    pub(crate) fn copies(&self, node: u16) -> BTreeMap<String, Value> {
        let status: Value = serde_json::from_str(&self.get(node, "/status").1).expect("status is JSON");
        let cores = status["cores"].as_array().cloned().unwrap_or_default();
        let copies = cores.iter().flat_map(|core| core["partitions"].as_array().cloned().unwrap_or_default());
        copies.map(|copy| (copy["partition"].as_str().expect("a name").to_owned(), copy)).collect()
    }

    /// The copies that a node says it does not serve, with the reasons.
    pub(crate) fn problems(&self, node: u16) -> BTreeMap<String, String> {
        let problem = |copy: &Value| copy["problem"].as_str().map(str::to_owned);
        self.copies(node).into_iter().filter_map(|(id, copy)| Some((id, problem(&copy)?))).collect()
    }

    /// Asks again and again until `probe` gives an answer.
    pub(crate) fn wait_for<T>(&self, what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + within;
        loop {
            if let Some(answer) = probe() {
                return answer;
            }
            assert!(Instant::now() < deadline, "waited {within:?} for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What each node says of its copy of a partition.
    fn descriptions(&self, partition: &str) -> String {
        let of_node = |node| {
            let status: Value = serde_json::from_str(&self.get(node, "/status").1).expect("status is JSON");
            let cores = status["cores"].as_array().cloned().unwrap_or_default();
            let copies = cores.iter().flat_map(|core| core["partitions"].as_array().cloned().unwrap_or_default());
            copies.filter(|copy| copy["partition"] == partition).map(|copy| copy.to_string()).collect::<String>()
        };
        (0..3).map(of_node).collect::<Vec<String>>().join("\n")
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in 1..=3 {
                let log = self.path().join(format!("replica{node}/log/replica{node}.log"));
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(30).collect();
                eprintln!("--- end of {}", log.display());
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        let _ = self.command("clear", &["--grace-seconds", "5"]);
    }
}

fn binaries() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_pegasus")).parent().expect("a directory")
}

fn succeeded(output: &Output) {
    assert!(
        output.status.success(),
        "pegasus failed\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
