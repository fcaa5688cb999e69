//! kill -9 of every process in the middle of imports: all rows up to the tool's resume point are there afterwards, and
//! once it has resumed, the tables hold exactly the input, on every copy.
//!
//! ```text
//! import into both tables -> a part is acknowledged -> one node is killed -> pause -> all are killed
//!        |                                                                                 |
//!   next round <- export = input, copies equal <- resumed <- acknowledged rows are read <- start, other cores
//! ```
//!
//! Two rounds by default; `PEGASUS_KILL_ROUNDS=10` runs the long form.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use pegasus_client::Client;
use pegasus_shell::onebox::process::ProcessHandle;
use pegasus_shell::transfer::checkpoint::Checkpoint;
use serde_json::{Value, json};
use support::TestCluster;
use tempfile::TempDir;
use tokio::process::Child;

/// Tables of a onebox and their partitions.
const TABLES: [(&str, u32); 2] = [("temp", 8), ("stat", 4)];
/// Rows of one import. Far more than are written until the tool has said that enough are acknowledged.
const ROWS: u64 = 50_000;
/// Rows that the tool must say are acknowledged before the first node is killed, at least.
const ROWS_BEFORE_KILL: u64 = 4000;
/// A bound on everything that is awaited; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What becomes of an import after the cluster was killed under it.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// kill -9.
    Killed,
    /// The user's interrupt: it ends by itself and says how far it came.
    Interrupted,
    /// It goes on by itself when the cluster is back.
    GoesOn,
}

const ENDINGS: [Ending; 3] = [Ending::Killed, Ending::Interrupted, Ending::GoesOn];

/// A row of the input: hash key, sort key, value. Stretches of rows alone alternate with groups of eight that share a
/// hash key and are written as one; keys and values hold bytes that the file must escape.
fn row(round: u64, number: u64) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let group = if (number / 64).is_multiple_of(2) { number } else { number - number % 8 };
    let sort_key = format!("{number}\t").into_bytes();
    let value = [format!("{round}\\{number};\n").repeat(1 + (number % 24) as usize).as_bytes(), b"\0\xff"].concat();
    (format!("r{round}n{group}").into_bytes(), sort_key, value)
}

fn line(round: u64, number: u64) -> String {
    let (hash_key, sort_key, value) = row(round, number);
    format!("{}\t{}\t{}\n", escape(&hash_key), escape(&sort_key), escape(&value))
}

fn escape(bytes: &[u8]) -> String {
    let text = |byte: &u8| match byte {
        b'\\' => "\\\\".to_owned(),
        b'\t' => "\\t".to_owned(),
        b'\n' => "\\n".to_owned(),
        0 => "\\0".to_owned(),
        0xff => "\\xff".to_owned(),
        byte => char::from(*byte).to_string(),
    };
    bytes.iter().map(text).collect()
}

/// A table and all input it was given.
struct Load<'a> {
    cluster: &'a TestCluster,
    directory: &'a Path,
    table: &'static str,
    partition_count: u32,
    input: Vec<String>,
}

/// The import tool at work.
struct Import {
    child: Child,
    ending: Ending,
    progress_file: PathBuf,
}

/// An import after the kill: all rows before `through` were acknowledged; it may still run.
struct Remains {
    through: u64,
    running: Option<Child>,
}

impl Load<'_> {
    fn input_file(&self, round: u64) -> PathBuf {
        self.directory.join(format!("{}-{round}.tsv", self.table))
    }

    fn progress_file(&self, round: u64) -> PathBuf {
        self.directory.join(format!("{}-{round}.progress", self.table))
    }

    /// Starts `pegasus import`, resuming if a progress file of this round is there. It ends with the test.
    fn start_tool(&self, round: u64) -> Child {
        let mut tool = self.cluster.tool(self.table);
        tool.args(["--timeout-ms", "2000", "import", "--resume"]).arg(self.input_file(round));
        tool.arg("--progress-file").arg(self.progress_file(round));
        tool.spawn().unwrap()
    }

    fn make_input(&mut self, round: u64) {
        let lines: Vec<String> = (0..ROWS).map(|number| line(round, number)).collect();
        fs::write(self.input_file(round), lines.concat()).unwrap();
        self.input.extend(lines);
    }

    fn begin(&self, round: u64, ending: Ending) -> Import {
        Import { child: self.start_tool(round), ending, progress_file: self.progress_file(round) }
    }

    async fn expect_rows(&self, client: &Client, round: u64, through: u64) {
        let table = &client.table(self.table).await.unwrap();
        let reads = stream::iter(0..through).map(|number| async move {
            let (hash_key, sort_key, value) = row(round, number);
            let found = table.get(hash_key, sort_key).await.unwrap();
            let name = self.table;
            assert_eq!(found.as_deref(), Some(&value[..]), "{name}: row {number} of round {round} is lost");
        });
        reads.buffer_unordered(64).collect::<Vec<()>>().await;
    }

    /// Lets an import that still runs come to its end, and continues one that does not.
    async fn complete(&self, round: u64, remains: Remains) {
        let mut left = ROWS - remains.through;
        if let Some(child) = remains.running {
            let report = report_of(output_of(child).await, 0);
            assert_eq!((&report["complete"], &report["through_row"]), (&json!(true), &json!(ROWS)), "{report}");
            left = 0;
        }
        let report = report_of(output_of(self.start_tool(round)).await, 0);
        assert_eq!((&report["complete"], &report["rows"]), (&json!(true), &json!(left)), "{report}");
    }

    /// The sorted difference between all input so far and what `pegasus export` writes is empty.
    async fn expect_export_equals_input(&mut self) {
        let path = self.directory.join("export.tsv");
        let mut tool = self.cluster.tool(self.table);
        report_of(output_of(tool.arg("export").arg(&path).spawn().unwrap()).await, 0);
        let content = fs::read_to_string(&path).unwrap();
        let mut exported: Vec<&str> = content.split_inclusive('\n').collect();
        exported.sort_unstable();
        self.input.sort_unstable();
        let differing = self.input.iter().zip(&exported).find(|(input, exported)| input != *exported);
        assert_eq!(differing, None, "{}: the first line of the input and of the export that differ", self.table);
        assert_eq!(self.input.len(), exported.len(), "rows of {}", self.table);
    }

    /// Every copy holds the same live rows, all of them together.
    async fn expect_copies_equal(&self, client: &Client) {
        let number = client.describe_table(self.table).await.unwrap().table.table;
        let rows: Vec<u64> = (0..self.partition_count)
            .map(|index| self.cluster.rows_equal_on_all_copies(&format!("{number}.{index}"), PATIENCE))
            .collect();
        assert!(rows.iter().all(|&rows| rows > 0), "{}: a partition got no rows: {rows:?}", self.table);
        assert_eq!(rows.iter().sum::<u64>(), self.input.len() as u64, "{}: {rows:?}", self.table);
    }
}

impl Import {
    fn checkpoint(&self) -> Option<Checkpoint> {
        Checkpoint::load(&self.progress_file).unwrap()
    }

    /// Waits until the tool says that this many rows are acknowledged.
    fn wait_for_rows(&mut self, cluster: &TestCluster, rows: u64) {
        cluster.wait_for("the import to get under way", PATIENCE, || {
            assert!(self.child.try_wait().unwrap().is_none(), "the import ended before the kill");
            self.checkpoint().filter(|checkpoint| checkpoint.rows >= rows).map(|_| ())
        });
    }

    /// Nothing answers any more: the tool ends as it was chosen, or stays.
    async fn after_kill(mut self) -> Remains {
        assert!(self.child.try_wait().unwrap().is_none(), "no import gives up as soon as nothing answers");
        let mut running = None;
        let progress_file = self.progress_file.clone();
        match self.ending {
            Ending::Killed => self.child.kill().await.unwrap(),
            Ending::Interrupted => {
                let process = ProcessHandle::open(self.child.id().unwrap() as i32).unwrap();
                process.signal(libc::SIGINT).unwrap();
                let report = report_of(output_of(self.child).await, 130);
                let said = Checkpoint::load(&progress_file).unwrap().unwrap().rows;
                assert_eq!((&report["complete"], &report["through_row"]), (&json!(false), &json!(said)), "{report}");
            }
            Ending::GoesOn => running = Some(self.child),
        }
        let checkpoint = Checkpoint::load(&progress_file).unwrap().unwrap();
        assert!(!checkpoint.complete && checkpoint.rows < ROWS, "the import was over before the kill");
        Remains { through: checkpoint.rows, running }
    }
}

async fn output_of(child: Child) -> Output {
    tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("the tool ends").unwrap()
}

/// What the tool printed on standard output, if it ended with this code.
fn report_of(output: Output, code: i32) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_resumes_after_kill_of_all_processes() {
    let rounds: u64 = std::env::var("PEGASUS_KILL_ROUNDS").map_or(2, |text| text.parse().unwrap());
    let cluster = TestCluster::new(27700);
    let directory = TempDir::new().unwrap();
    let load = |(table, partition_count)| Load {
        cluster: &cluster,
        directory: directory.path(),
        table,
        partition_count,
        input: Vec::new(),
    };
    let mut loads = TABLES.map(load);
    for round in 0..rounds {
        let begun = Instant::now();
        cluster.start(1 + (round % 2) as u16);
        loads.iter_mut().for_each(|load| load.make_input(round));
        let endings = [0, 1].map(|table| ENDINGS[(round as usize + table) % ENDINGS.len()]);
        let mut imports: Vec<Import> =
            loads.iter().zip(endings).map(|(load, ending)| load.begin(round, ending)).collect();
        imports.iter_mut().for_each(|import| import.wait_for_rows(&cluster, ROWS_BEFORE_KILL + 1000 * (round % 5)));
        cluster.kill(Some(&format!("replica{}", 1 + round % 3)));
        // Not a wait for anything: for this long the others are alive, with writes that cannot be acknowledged.
        tokio::time::sleep(Duration::from_millis(200 + 50 * (round % 4))).await;
        cluster.kill(None);
        let mut remains = Vec::new();
        for import in imports {
            remains.push(import.after_kill().await);
        }

        cluster.start(1 + ((round + 1) % 2) as u16);
        let client = cluster.client().await;
        let through: Vec<u64> = remains.iter().map(|remains| remains.through).collect();
        for (load, &through) in loads.iter().zip(&through) {
            load.expect_rows(&client, round, through).await;
        }
        for (load, remains) in loads.iter().zip(remains) {
            load.complete(round, remains).await;
        }
        for load in &mut loads {
            load.expect_export_equals_input().await;
            load.expect_copies_equal(&client).await;
        }
        client.close().await;
        let total: usize = loads.iter().map(|load| load.input.len()).sum();
        eprintln!(
            "round {round}: {endings:?}, {through:?} acknowledged before the kill, {total} rows in all, {:.1?}",
            begun.elapsed()
        );
    }
}
