//! Nodes that come back: after a short absence, without their directory, with damaged or missing copies. They become
//! members of everything again by themselves, and whoever reads and writes meanwhile never notices.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pegasus_client::{Client, Error, Table};
use support::TestCluster;

const PORT_OFFSET: u16 = 29300;
const TABLE: &str = "temp";
const PARTITIONS: u32 = 8;
const MEMBERS: usize = 3;
const NODES: u16 = 3;
const WHOLE_AGAIN: Duration = Duration::from_secs(90);

/// The tests of this program share their ports.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Rows that are written all the time.
struct Load {
    stop: Arc<AtomicBool>,
    /// Writes acknowledged, by writer.
    acknowledged: Vec<Arc<AtomicU64>>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(table: &Table) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged: Vec<Arc<AtomicU64>> = (0..4).map(|_| Arc::default()).collect();
        let write = |(writer, acknowledged): (usize, &Arc<AtomicU64>)| {
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            // Whoever waits for a node that died waits for as long as a client does by default.
            let table = table.with_timeout(Duration::from_secs(5));
            tokio::spawn(async move {
                for row in 0u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let hash_key = format!("w{writer}r{}", row % 5000);
                    match table.set(&hash_key, "s", hash_key.repeat(30)).await {
                        Ok(()) => drop(acknowledged.fetch_add(1, Ordering::Relaxed)),
                        Err(Error::Unknown(_)) => {}
                        Err(error) => panic!("{hash_key}: {error}"),
                    }
                }
            })
        };
        let writers = acknowledged.iter().enumerate().map(write).collect();
        Load { stop, acknowledged, writers }
    }

    /// Stops once every writer has come on; every write was acknowledged, or nobody knows.
    async fn finish(self) {
        let before: Vec<u64> = self.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let begun = Instant::now();
        while self.acknowledged.iter().zip(&before).any(|(count, before)| count.load(Ordering::Relaxed) < before + 50) {
            assert!(begun.elapsed() < WHOLE_AGAIN, "writes do not go on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.expect("no write is refused for good");
        }
    }
}

/// A cluster with some rows in it.
async fn cluster_with_rows() -> (TestCluster, Client, Table) {
    let cluster = TestCluster::new(PORT_OFFSET);
    cluster.start(1);
    let client = cluster.client().await;
    let table = client.table(TABLE).await.unwrap().with_timeout(Duration::from_secs(20));
    for row in 0..2000u32 {
        table.set(format!("row{row}"), "s", format!("value{row}").repeat(50)).await.unwrap();
    }
    (cluster, client, table)
}

async fn until_whole(client: &Client) {
    let begun = Instant::now();
    loop {
        let partitions = client.describe_table(TABLE).await.unwrap().partitions;
        if partitions.iter().all(|configuration| configuration.members().count() == MEMBERS) {
            return;
        }
        assert!(begun.elapsed() < WHOLE_AGAIN, "still not whole: {partitions:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until some partition goes on without a node.
async fn until_removed(client: &Client) {
    let begun = Instant::now();
    loop {
        let partitions = client.describe_table(TABLE).await.unwrap().partitions;
        if partitions.iter().all(|configuration| configuration.members().count() < MEMBERS) {
            return;
        }
        assert!(begun.elapsed() < WHOLE_AGAIN, "a node that is away is still a member: {partitions:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All copies hold the same rows, and those that were written first.
async fn expect_equal_copies(cluster: &TestCluster, table: &Table) {
    for index in 0..PARTITIONS {
        cluster.rows_equal_on_all_copies(&format!("1.{index}"), Duration::from_secs(30));
    }
    for row in (0..2000u32).step_by(7) {
        let value = table.get(format!("row{row}"), "s").await.unwrap();
        assert_eq!(value.as_deref(), Some(format!("value{row}").repeat(50).as_bytes()), "row {row} is lost");
    }
}

/// A metric, all cores of all nodes together.
fn total(cluster: &TestCluster, name: &str) -> u64 {
    let of_node = |node| {
        let (_, text) = cluster.get(node, "/metrics");
        let lines = text.lines().filter(|line| line.starts_with(&format!("pegasus_{name}{{"))).map(str::to_owned);
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum::<u64>()
    };
    (0..NODES).map(of_node).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_for_seconds_needs_no_checkpoint() {
    let _turn = TURN.lock().await;
    let (cluster, client, table) = cluster_with_rows().await;
    let load = Load::start(&table);
    cluster.kill(Some("replica2"));
    until_removed(&client).await;
    // Not a wait for anything: this is how long the node is away.
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.start(1);
    until_whole(&client).await;
    load.finish().await;
    expect_equal_copies(&cluster, &table).await;
    assert_eq!(total(&cluster, "learned_from_checkpoint_total"), 0);
    assert_eq!(total(&cluster, "checkpoint_sent_bytes_total"), 0);
    let learned = total(&cluster, "learned_from_log_total") + total(&cluster, "learned_from_window_total");
    assert!(learned >= u64::from(PARTITIONS), "{learned} learned");
    assert!(total(&cluster, "log_mutations_sent_total") > 0, "the log was not needed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_directory_comes_back_whole() {
    let _turn = TURN.lock().await;
    let (cluster, client, table) = cluster_with_rows().await;
    let load = Load::start(&table);
    cluster.kill(Some("replica3"));
    fs::remove_dir_all(cluster.data_directory(2)).unwrap();
    until_removed(&client).await;
    cluster.start(1);
    until_whole(&client).await;
    load.finish().await;
    expect_equal_copies(&cluster, &table).await;
    let copies = cluster.copies(2);
    let of_table = copies.keys().filter(|id| id.starts_with("1."));
    assert_eq!(of_table.count(), PARTITIONS as usize, "{copies:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_and_missing_copies_are_learned_again() {
    let _turn = TURN.lock().await;
    let (cluster, client, table) = cluster_with_rows().await;
    // In order, so that the tables are in files.
    cluster.stop();
    let replicas = cluster.data_directory(0).join("replicas");
    fs::write(replicas.join("1.0/descriptor"), b"damaged").unwrap();
    fs::remove_dir_all(replicas.join("1.1")).unwrap();
    let rows = fs::read_dir(replicas.join("1.2")).unwrap().map(|entry| entry.unwrap().path());
    let rows = rows.filter(|path| path.is_dir()).flat_map(|path| fs::read_dir(path).unwrap());
    let files = rows.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "sst"));
    let mut damaged = 0;
    for file in files {
        let mut content = fs::read(&file).unwrap();
        content.iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(&file, content).unwrap();
        damaged += 1;
    }
    assert!(damaged > 0, "there is no file to damage");
    cluster.start_without_tables();
    let load = Load::start(&table);
    let healed = || {
        let copies = cluster.copies(0);
        let whole = |id: &str| copies.get(id).is_some_and(|copy| copy["state"] == "whole" && copy["problem"].is_null());
        (0..PARTITIONS).all(|index| whole(&format!("1.{index}"))).then_some(())
    };
    cluster.wait_for("the copies to be whole again", WHOLE_AGAIN, healed);
    until_whole(&client).await;
    load.finish().await;
    expect_equal_copies(&cluster, &table).await;
    let aside = fs::read_dir(&replicas).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let aside: Vec<String> = aside.filter(|name| name.contains(".removed.")).collect();
    assert!(aside.iter().any(|name| name.starts_with("1.0.")), "{aside:?}");
    assert_eq!(cluster.get(0, "/health"), (200, "ok\n".to_owned()));
}
