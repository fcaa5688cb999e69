//! A primary that is killed, or stops for a while, under load: its partitions are written again soon, nothing that was
//! acknowledged is lost, and nobody reads what has been overwritten.
//!
//! Two rounds of kills by default; `PEGASUS_FAILOVER_ROUNDS=20` runs the long form.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use pegasus_client::{Client, Error, Table};
use pegasus_wire::hash::partition_index;
use support::TestCluster;

const PORT_OFFSET: u16 = 28900;
const TABLE: &str = "temp";
const PARTITIONS: u32 = 8;
const MEMBERS: usize = 3;
const WRITERS: u64 = 8;
/// Far above what a takeover takes; how long it takes is measured elsewhere.
const OUTAGE_MAX: Duration = Duration::from_secs(20);
const WHOLE_AGAIN: Duration = Duration::from_secs(60);

/// The tests of this program share their ports.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Writes rows named after the writer until told to stop; gives those that were acknowledged.
async fn write_until_stopped(table: Table, writer: u64, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for row in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let hash_key = format!("w{writer}r{row}");
        match table.set(&hash_key, "s", value_of(&hash_key)).await {
            Ok(()) => acknowledged.push(hash_key),
            // Nobody knows: it may be there or not.
            Err(Error::Unknown(_) | Error::Timeout(_)) => {}
            Err(error) => panic!("{hash_key}: {error}"),
        }
    }
    acknowledged
}

fn value_of(hash_key: &str) -> Vec<u8> {
    hash_key.as_bytes().repeat(20)
}

/// One hash key for each partition.
fn probes() -> Vec<String> {
    let mut probes = BTreeMap::new();
    for number in 0u32.. {
        let hash_key = format!("probe{number}");
        probes.entry(partition_index(hash_key.as_bytes(), b"", PARTITIONS)).or_insert(hash_key);
        if probes.len() == PARTITIONS as usize {
            break;
        }
    }
    probes.into_values().collect()
}

/// Writes to every partition until each has taken one; gives the longest time that took.
async fn until_all_are_written(table: &Table) -> Duration {
    let begun = Instant::now();
    let write = |hash_key: String| async move {
        while let Err(error) = table.set(&hash_key, "s", "v").await {
            assert!(begun.elapsed() < OUTAGE_MAX, "{hash_key}: {error}");
        }
        begun.elapsed()
    };
    join_all(probes().into_iter().map(write)).await.into_iter().max().unwrap()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_when_a_primary_is_killed() {
    let _turn = TURN.lock().await;
    let rounds: u16 = std::env::var("PEGASUS_FAILOVER_ROUNDS").map_or(2, |text| text.parse().unwrap());
    let cluster = TestCluster::new(PORT_OFFSET);
    cluster.start(1);
    let client = cluster.client().await;
    let table = client.table(TABLE).await.unwrap().with_timeout(Duration::from_secs(5));
    let stop = Arc::new(AtomicBool::new(false));
    let write = |writer| tokio::spawn(write_until_stopped(table.clone(), writer, stop.clone()));
    let writers: Vec<_> = (0..WRITERS).map(write).collect();
    for round in 0..rounds {
        let victim = round % 3;
        let reply = client.describe_table(TABLE).await.unwrap();
        let led = reply.partitions.iter().filter(|configuration| {
            let primary = reply.nodes.iter().find(|node| Some(node.node) == configuration.primary);
            primary.is_some_and(|node| cluster.node_at(node.address) == victim)
        });
        let led = led.count();
        cluster.kill(Some(&format!("replica{}", victim + 1)));
        let outage = until_all_are_written(&table.with_timeout(Duration::from_millis(500))).await;
        cluster.start(1);
        until_whole(&client).await;
        eprintln!("round {round}: node {victim} led {led} partitions, all were written again after {outage:.1?}");
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<String> =
        join_all(writers).await.into_iter().flat_map(|writer| writer.expect("no write fails for good")).collect();
    assert!(acknowledged.len() > 1000, "{} rows are too few to show anything", acknowledged.len());
    let reads = stream::iter(&acknowledged).map(|hash_key| {
        let table = &table;
        async move {
            let value = table.get(hash_key, "s").await.unwrap();
            assert_eq!(value.as_deref(), Some(&value_of(hash_key)[..]), "{hash_key} was acknowledged and is lost");
        }
    });
    reads.buffer_unordered(32).collect::<Vec<()>>().await;
    for index in 0..PARTITIONS {
        cluster.rows_equal_on_all_copies(&format!("1.{index}"), Duration::from_secs(20));
    }
}

/// Sends a signal to a process of the cluster.
fn signal(cluster: &TestCluster, node: u16, signal: i32) {
    let pid = std::fs::read_to_string(cluster.path().join(format!("replica{}/pid", node + 1))).unwrap();
    let pid: i32 = pid.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a process id");
    // SAFETY: the call takes two numbers; the process is one that this test started.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_wakes_up_answers_nothing_stale() {
    let _turn = TURN.lock().await;
    let cluster = TestCluster::new(PORT_OFFSET);
    cluster.start(1);
    let (writing, reading) = (cluster.client().await, cluster.client().await);
    let patient = |table: Table| table.with_timeout(Duration::from_secs(15));
    let (writer, reader) = (patient(writing.table(TABLE).await.unwrap()), patient(reading.table(TABLE).await.unwrap()));
    writer.set("counter", "s", 0u64.to_be_bytes()).await.unwrap();
    assert!(reader.get("counter", "s").await.unwrap().is_some(), "the reader knows the route");

    // What was acknowledged last; whoever reads after that must not see less.
    let acknowledged = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let readers = (0..4).map(|_| {
        let (reader, acknowledged, stop) = (reader.clone(), acknowledged.clone(), stop.clone());
        tokio::spawn(async move {
            let mut reads = 0u64;
            while !stop.load(Ordering::SeqCst) {
                let least = acknowledged.load(Ordering::SeqCst);
                let value = reader.get("counter", "s").await.unwrap().expect("the row is there");
                let value = u64::from_be_bytes(value[..].try_into().unwrap());
                assert!(value >= least, "read {value} after {least} was acknowledged");
                reads += 1;
            }
            reads
        })
    });
    let readers: Vec<_> = readers.collect();
    let reply = writing.describe_table(TABLE).await.unwrap();
    let partition = partition_index(b"counter", b"", PARTITIONS) as usize;
    let primary = reply.partitions[partition].primary.unwrap();
    let address = reply.nodes.iter().find(|node| node.node == primary).unwrap().address;
    let node = cluster.node_at(address);
    signal(&cluster, node, libc::SIGSTOP);
    let begun = Instant::now();
    let mut next = 1u64;
    let mut write = async |until: Duration| {
        while begun.elapsed() < until {
            match writer.set("counter", "s", next.to_be_bytes()).await {
                Ok(()) => acknowledged.store(next, Ordering::SeqCst),
                Err(Error::Unknown(_)) => {}
                Err(error) => panic!("{error}"),
            }
            next += 1;
        }
    };
    write(Duration::from_secs(10)).await;
    signal(&cluster, node, libc::SIGCONT);
    write(Duration::from_secs(13)).await;
    let last = acknowledged.load(Ordering::SeqCst);
    assert!(last > 0, "nothing was written while the primary was stopped");
    stop.store(true, Ordering::SeqCst);
    for reads in join_all(readers).await {
        assert!(reads.unwrap() > 0, "a reader was never answered");
    }
    until_whole(&writing).await;
    for index in 0..PARTITIONS {
        cluster.rows_equal_on_all_copies(&format!("1.{index}"), Duration::from_secs(20));
    }
}
