//! kill -9 of every process in the middle of a load: what was acknowledged is there afterwards, on every copy.
//!
//! Two rounds by default; `PEGASUS_KILL_ROUNDS=10` runs the long form. The number of cores changes between rounds,
//! and one node is killed a few hundred milliseconds before the others.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use pegasus_client::{Error, Table};
use support::TestCluster;
use tokio::sync::watch;

const WRITERS: u64 = 32;
const PARTITIONS: u32 = 8;
/// Rows acknowledged before the first node is killed, at least.
const ROWS_BEFORE_KILL: u64 = 5000;

fn value_of(round: u64, writer: u64, row: u64) -> Vec<u8> {
    format!("{round}:{writer}:{row};").into_bytes().repeat(1 + (row % 40) as usize)
}

/// What the writers of a round share with the test.
struct Load {
    stop: AtomicBool,
    acknowledged: watch::Sender<u64>,
}

impl Load {
    /// Waits until the writers have seen so many acknowledgements.
    async fn wait_for_rows(&self, rows: u64) {
        let mut acknowledged = self.acknowledged.subscribe();
        let enough = acknowledged.wait_for(|&count| count >= rows);
        let _count =
            tokio::time::timeout(Duration::from_secs(60), enough).await.expect("rows are acknowledged").unwrap();
    }
}

/// Writes until told to stop; gives the rows that were acknowledged.
async fn write_until_stopped(table: Table, round: u64, writer: u64, load: Arc<Load>) -> (u64, Vec<u64>) {
    let table = table.with_timeout(Duration::from_secs(2));
    let mut acknowledged = Vec::new();
    let mut row = 0u64;
    while !load.stop.load(Ordering::Relaxed) {
        let hash_key = format!("r{round}w{writer}n{}", row % 97);
        match table.set(hash_key, row.to_be_bytes(), value_of(round, writer, row)).await {
            Ok(()) => {
                acknowledged.push(row);
                load.acknowledged.send_modify(|count| *count += 1);
            }
            Err(Error::InvalidArgument { .. }) => panic!("the row is within all limits"),
            // Refused, or nobody knows; it may be there or not.
            Err(_) => {}
        }
        row += 1;
    }
    (writer, acknowledged)
}

async fn expect_rows(table: &Table, round: u64, writer: u64, rows: &[u64]) {
    let reads = stream::iter(rows.iter().copied()).map(|row| async move {
        let hash_key = format!("r{round}w{writer}n{}", row % 97);
        let value = table.get(hash_key, row.to_be_bytes()).await.unwrap();
        assert_eq!(
            value.as_deref(),
            Some(&value_of(round, writer, row)[..]),
            "row {row} of writer {writer}, acknowledged in round {round}, is lost"
        );
    });
    reads.buffer_unordered(64).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_rows_survive_kill_of_all_processes() {
    let rounds: u64 = std::env::var("PEGASUS_KILL_ROUNDS").map_or(2, |text| text.parse().unwrap());
    let cluster = TestCluster::new(26500);
    let mut acknowledged = Vec::new();
    for round in 0..rounds {
        let begun = Instant::now();
        cluster.start(1 + (round % 2) as u16);
        let client = cluster.client().await;
        let table = client.table("temp").await.unwrap();
        let load = Arc::new(Load { stop: AtomicBool::new(false), acknowledged: watch::Sender::new(0) });
        let write = |writer| tokio::spawn(write_until_stopped(table.clone(), round, writer, load.clone()));
        let writers: Vec<_> = (0..WRITERS).map(write).collect();
        load.wait_for_rows(ROWS_BEFORE_KILL + 1700 * (round % 5)).await;
        cluster.kill(Some(&format!("replica{}", 1 + round % 3)));
        // Not a wait for anything: for this long the others are alive, with writes that cannot be acknowledged.
        tokio::time::sleep(Duration::from_millis(200 + 50 * (round % 4))).await;
        cluster.kill(None);
        load.stop.store(true, Ordering::Relaxed);
        let mut count = 0;
        for writer in writers {
            let (writer, rows) = writer.await.unwrap();
            count += rows.len();
            acknowledged.push((round, writer, rows));
        }
        client.close().await;

        cluster.start(1 + ((round + 1) % 2) as u16);
        let client = cluster.client().await;
        let table = client.table("temp").await.unwrap();
        for (round, writer, rows) in &acknowledged {
            expect_rows(&table, *round, *writer, rows).await;
        }
        let total: usize = acknowledged.iter().map(|(_, _, rows)| rows.len()).sum();
        let table_number = client.describe_table("temp").await.unwrap().table.table;
        let held: u64 = (0..PARTITIONS)
            .map(|index| cluster.rows_equal_on_all_copies(&format!("{table_number}.{index}"), Duration::from_secs(20)))
            .sum();
        assert!(held >= total as u64, "{held} rows on each copy, {total} were acknowledged");
        client.close().await;
        let took = begun.elapsed();
        eprintln!(
            "round {round}: {count} acknowledged before the kill, {total} in all, {held} on every copy, {took:.1?}"
        );
    }
}

/// A write that was under way when its connection broke is unknown; the same row may simply be written again.
async fn set_until_known(table: &Table, hash_key: &str) {
    for _ in 0..3 {
        match table.set(hash_key, "s", "w").await {
            Err(Error::Unknown(_)) => {}
            known => return known.unwrap(),
        }
    }
    panic!("{hash_key}: a connection that works does not break three times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_rejoins_and_writes_go_on() {
    let cluster = TestCluster::new(26900);
    cluster.start(1);
    let client = cluster.client().await;
    let table = client.table("temp").await.unwrap().with_timeout(Duration::from_secs(20));
    for row in 0..200u64 {
        table.set(format!("before{row}"), "s", "v").await.unwrap();
    }
    cluster.kill(Some("replica2"));
    cluster.start(1);
    // No row may be refused for good: every partition has a copy on the node that restarted.
    for row in 0..200u64 {
        assert_eq!(table.get(format!("before{row}"), "s").await.unwrap().as_deref(), Some(&b"v"[..]));
        set_until_known(&table, &format!("after{row}")).await;
    }
    for index in 0..PARTITIONS {
        cluster.rows_equal_on_all_copies(&format!("1.{index}"), Duration::from_secs(20));
    }
    // A stop in order and a start keep everything as well.
    cluster.stop();
    cluster.start(1);
    assert_eq!(table.count_all().await.unwrap(), 400);
}
