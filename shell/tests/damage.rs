//! Files damaged by hand under real processes: exactly the copies that lost something are named, they are learned again
//! from the others without anybody's help, nothing acknowledged is lost, and an unfinished tail of a log is no damage.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use pegasus_client::{Client, Table};
use pegasus_wire::hash::partition_index;
use pegasus_wire::{PartitionId, TableId};
use support::TestCluster;

const NODES: u16 = 3;
/// Tables of a onebox and their partitions.
const TABLES: [(&str, u32); 2] = [("temp", 8), ("stat", 4)];
const PATIENCE: Duration = Duration::from_secs(20);
const MENDED: Duration = Duration::from_secs(60);

/// A row that was acknowledged.
#[derive(Clone, Debug)]
struct KnownRow {
    table: usize,
    partition: String,
    hash_key: String,
}

impl KnownRow {
    fn value(&self) -> Vec<u8> {
        self.hash_key.as_bytes().repeat(100)
    }
}

/// Both tables and what was written to them.
struct Rows {
    client: Client,
    tables: Vec<Table>,
    numbers: Vec<TableId>,
    known: Vec<KnownRow>,
}

impl Rows {
    async fn open(cluster: &TestCluster) -> Rows {
        let client = cluster.client().await;
        let (mut tables, mut numbers) = (Vec::new(), Vec::new());
        for (name, _) in TABLES {
            let table = client.table(name).await.unwrap().with_timeout(PATIENCE);
            numbers.push(table.properties().await.unwrap().table);
            tables.push(table);
        }
        Rows { client, tables, numbers, known: Vec::new() }
    }

    /// Writes rows named after `prefix`, `at_once` at a time, but for those of the partitions in `except`.
    async fn write(&mut self, prefix: &str, count: usize, at_once: usize, except: &BTreeSet<String>) {
        let rows = (0..count).map(|number| self.row(number % TABLES.len(), format!("{prefix}{number}")));
        let rows: Vec<KnownRow> = rows.filter(|row| !except.contains(&row.partition)).collect();
        let tables = &self.tables;
        let writes = stream::iter(rows.iter()).map(|row| async move {
            tables[row.table].set(&row.hash_key, "s", row.value()).await.unwrap();
        });
        writes.buffer_unordered(at_once).collect::<Vec<()>>().await;
        self.known.extend(rows);
    }

    fn row(&self, table: usize, hash_key: String) -> KnownRow {
        let index = partition_index(hash_key.as_bytes(), b"", TABLES[table].1);
        let partition = PartitionId::new(self.numbers[table].0, index).to_string();
        KnownRow { table, partition, hash_key }
    }

    /// Every row of a partition that is not in `except` is there.
    async fn expect_all(&self, except: &BTreeSet<String>) {
        let rows = self.known.iter().filter(|row| !except.contains(&row.partition));
        let reads = stream::iter(rows).map(|row| async move {
            let value = self.tables[row.table].get(&row.hash_key, "s").await;
            match value {
                Ok(value) => assert_eq!(value.as_deref(), Some(&row.value()[..]), "{row:?} is lost"),
                Err(error) => panic!("{row:?}: {error}"),
            }
        });
        let read = reads.buffer_unordered(16).collect::<Vec<()>>().await.len();
        assert!(read > 50, "{read} rows in whole partitions are too few to show anything");
    }

    /// True if every partition has all its members.
    async fn are_whole(&self) -> bool {
        for (name, _) in TABLES {
            let reply = self.client.describe_table(name).await.unwrap();
            if reply.partitions.iter().any(|configuration| configuration.members().count() < usize::from(NODES)) {
                return false;
            }
        }
        true
    }

    /// Which node (the first is 0) is the primary of each partition.
    async fn primaries(&self, cluster: &TestCluster) -> BTreeMap<String, u16> {
        let mut primaries = BTreeMap::new();
        for (name, _) in TABLES {
            let reply = self.client.describe_table(name).await.unwrap();
            for (index, configuration) in (0..).zip(&reply.partitions) {
                let primary = configuration.primary.unwrap();
                let node = reply.nodes.iter().find(|node| node.node == primary).unwrap();
                let id = PartitionId::new(reply.table.table.0, index).to_string();
                primaries.insert(id, cluster.node_at(node.address));
            }
        }
        primaries
    }
}

/// A write of a mutation log, as `docs/formats.md` draws it.
#[derive(Debug)]
struct LogWrite {
    offset: usize,
    bytes: usize,
    sequence: u64,
    synced: u64,
    partitions: BTreeSet<String>,
    records_offset: usize,
    record_bytes: usize,
}

impl LogWrite {
    fn read(content: &[u8], offset: usize) -> Option<LogWrite> {
        let header = content.get(offset..offset + 80)?;
        let u16_at = |at: usize| usize::from(u16::from_le_bytes(header[at..at + 2].try_into().unwrap()));
        let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
        if &header[..4] != b"PGLW" {
            return None;
        }
        let (listed, repeated) = (u16_at(76), u16_at(78));
        let list = content[offset + 80..].chunks_exact(24).take(listed);
        let name = |range: &[u8]| {
            let field = |at: usize| u32::from_le_bytes(range[at..at + 4].try_into().unwrap());
            PartitionId::new(field(0), field(4)).to_string()
        };
        Some(LogWrite {
            offset,
            bytes: u32_at(64) as usize,
            sequence: u64_at(40),
            synced: u64_at(48),
            partitions: list.map(name).collect(),
            records_offset: offset + 80 + 24 * (listed + repeated),
            record_bytes: u32_at(68) as usize,
        })
    }
}

/// The segment that was written last, and its writes in order.
struct Segment {
    path: PathBuf,
    content: Vec<u8>,
    writes: Vec<LogWrite>,
}

impl Segment {
    fn newest(data_directory: &Path) -> Segment {
        let generations: Vec<_> = fs::read_dir(data_directory.join("log")).unwrap().collect();
        assert_eq!(generations.len(), 1, "the number of cores has not changed");
        let log = generations[0].as_ref().unwrap().path().join("core-0");
        let files = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
        let segments = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("segment-"));
        segments.map(Segment::read).max_by_key(|segment| segment.writes.last().map(|write| write.sequence)).unwrap()
    }

    fn read(path: PathBuf) -> Segment {
        let content = fs::read(&path).unwrap();
        let mut writes: Vec<LogWrite> = Vec::new();
        let mut offset = 4096;
        while let Some(write) = LogWrite::read(&content, offset) {
            if writes.last().is_some_and(|last| last.sequence + 1 != write.sequence) {
                break;
            }
            offset += write.bytes;
            writes.push(write);
        }
        Segment { path, content, writes }
    }

    /// A write well before the end that a later one says is synced, with records of few partitions and none of
    /// `except`.
    fn early_write(&self, except: &BTreeSet<String>) -> &LogWrite {
        let synced = self.writes.iter().map(|write| write.synced).max().unwrap();
        let early = &self.writes[3..self.writes.len() / 2];
        let fits = |write: &&LogWrite| {
            let few = (1..=3).contains(&write.partitions.len()) && write.partitions.is_disjoint(except);
            few && write.sequence <= synced
        };
        early.iter().filter(fits).max_by_key(|write| write.partitions.len()).unwrap()
    }

    fn flip(&self, offset: usize) {
        let mut content = self.content.clone();
        content[offset] ^= 0x10;
        fs::write(&self.path, content).unwrap();
    }

    /// Where the last write ends.
    fn end(&self) -> usize {
        self.writes.last().map(|write| write.offset + write.bytes).unwrap()
    }
}

fn names(problems: &BTreeMap<String, String>) -> BTreeSet<String> {
    problems.keys().cloned().collect()
}

/// The log of a node names exactly these copies.
fn expect_named(cluster: &TestCluster, node: u16, expected: &BTreeSet<String>) {
    let named = || -> BTreeSet<String> {
        let log = cluster.process_log(node);
        let errors = log.lines().filter(|line| line.contains(" ERROR "));
        let partitions = errors.filter_map(|line| line.split("partition=").nth(1)?.split(' ').next());
        partitions.map(str::to_owned).collect()
    };
    cluster.wait_for("the copies to be named", PATIENCE, || (named() == *expected).then_some(()));
}

/// Every partition gets all its members again, nobody complains any more, all rows are there, and all copies are equal.
async fn expect_mended(cluster: &TestCluster, rows: &Rows) {
    let begun = Instant::now();
    while !rows.are_whole().await {
        assert!(begun.elapsed() < MENDED, "some partition still lacks a member");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for node in 0..NODES {
        cluster.wait_for("sound copies", MENDED, || names(&cluster.problems(node)).is_empty().then_some(()));
        assert_eq!(cluster.get(node, "/health"), (200, "ok\n".to_owned()), "node {node}");
    }
    rows.expect_all(&BTreeSet::new()).await;
    for (number, (_, partitions)) in rows.numbers.iter().zip(TABLES) {
        for index in 0..partitions {
            let partition = PartitionId::new(number.0, index).to_string();
            cluster.rows_equal_on_all_copies(&partition, PATIENCE);
        }
    }
    expect_no_panic(cluster);
}

fn expect_no_panic(cluster: &TestCluster) {
    for node in 0..NODES {
        assert!(!cluster.process_log(node).contains("panick"), "node {node} panicked");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_hit_by_a_flipped_byte_in_a_log_are_learned_again() {
    let cluster = TestCluster::new(28100);
    cluster.start(1);
    let mut rows = Rows::open(&cluster).await;
    let nothing = BTreeSet::new();
    rows.write("one", 100, 1, &nothing).await;
    rows.write("few", 200, 3, &nothing).await;
    rows.write("many", 200, 16, &nothing).await;
    rows.write("end", 100, 1, &nothing).await;
    rows.client.close().await;
    cluster.kill(None);

    // A byte of a record on one node, a byte of a header (with its list) on another.
    let segment = Segment::newest(&cluster.data_directory(1));
    let write = segment.early_write(&nothing);
    segment.flip(write.records_offset + write.record_bytes / 2);
    let hit_record = write.partitions.clone();
    let segment = Segment::newest(&cluster.data_directory(2));
    let write = segment.early_write(&hit_record);
    segment.flip(write.offset + 41);
    let hit_header = write.partitions.clone();

    cluster.start_without_tables();
    expect_named(&cluster, 0, &nothing);
    expect_named(&cluster, 1, &hit_record);
    expect_named(&cluster, 2, &hit_header);
    let mut rows = Rows { known: rows.known, ..Rows::open(&cluster).await };
    rows.write("after", 100, 8, &nothing).await;
    expect_mended(&cluster, &rows).await;

    // What was learned is kept.
    rows.client.close().await;
    cluster.kill(None);
    cluster.start(1);
    let rows = Rows { known: rows.known, ..Rows::open(&cluster).await };
    expect_mended(&cluster, &rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_tail_of_a_log_is_cut_and_loses_nothing() {
    let cluster = TestCluster::new(28500);
    cluster.start(1);
    let mut rows = Rows::open(&cluster).await;
    let nothing = BTreeSet::new();
    for round in 0..2 {
        rows.write(&format!("round{round}n"), 200, 8, &nothing).await;
        rows.client.close().await;
        cluster.kill(None);

        // A write of which only the beginning arrived, and blocks that did not come in order.
        let segment = Segment::newest(&cluster.data_directory(0));
        let mut content = segment.content.clone();
        let last = segment.writes.last().unwrap();
        let mut copy = content[last.offset..last.offset + last.bytes].to_vec();
        copy[40..48].copy_from_slice(&(last.sequence + 1).to_le_bytes());
        copy[last.bytes / 2..].fill(0);
        content[segment.end()..segment.end() + copy.len()].copy_from_slice(&copy);
        content[segment.end() + 3 * copy.len()..][..copy.len()].copy_from_slice(&copy);
        fs::write(&segment.path, content).unwrap();

        // Anything at all.
        let segment = Segment::newest(&cluster.data_directory(1));
        let mut content = segment.content.clone();
        let mut noise = 88172645463325252u64;
        for byte in &mut content[segment.end()..segment.end() + 200_000] {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            *byte = noise as u8;
        }
        fs::write(&segment.path, content).unwrap();

        // Nothing.
        let segment = Segment::newest(&cluster.data_directory(2));
        fs::write(&segment.path, &segment.content[..segment.end()]).unwrap();

        cluster.start(1);
        for node in 0..NODES {
            expect_named(&cluster, node, &nothing);
            assert!(!cluster.process_log(node).contains("missing"), "damage was reported on node {node}");
        }
        rows = Rows { known: rows.known, ..Rows::open(&cluster).await };
        rows.expect_all(&nothing).await;
    }
    rows.write("after", 100, 8, &nothing).await;
    rows.expect_all(&nothing).await;
}

/// The SST files of a copy, largest first.
fn tables_of(cluster: &TestCluster, node: u16, partition: &str) -> Vec<PathBuf> {
    let entries = |directory: PathBuf| fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_table = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("rdb-");
    let copy = cluster.data_directory(node).join("replicas").join(partition);
    let paths = entries(copy).filter(is_table).flat_map(entries);
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "sst")).collect();
    paths.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    paths
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_with_damaged_table_files_are_learned_again() {
    let cluster = TestCluster::new(28900);
    cluster.start(1);
    let mut rows = Rows::open(&cluster).await;
    let nothing = BTreeSet::new();
    rows.write("row", 1200, 16, &nothing).await;
    rows.client.close().await;
    // In order, so that there are files; then at once, so that nobody hands over what it leads.
    cluster.stop();
    cluster.start(1);
    let rows = Rows { known: rows.known, ..Rows::open(&cluster).await };
    let primaries = rows.primaries(&cluster).await;
    rows.client.close().await;
    cluster.kill(None);

    // One kind of damage per node. What only a read finds is put where clients read.
    let (read_there, &reader) = primaries.iter().next().unwrap();
    let (first, second) = ((reader + 1) % NODES, (reader + 2) % NODES);
    let mut others = primaries.keys().filter(|partition| *partition != read_there).cloned();
    let (no_current, short_file, descriptor) = (others.next().unwrap(), others.next().unwrap(), others.next().unwrap());
    fs::remove_file(tables_of(&cluster, first, &no_current)[0].with_file_name("CURRENT")).unwrap();
    let path = &tables_of(&cluster, second, &short_file)[0];
    let content = fs::read(path).unwrap();
    fs::write(path, &content[..content.len() / 2]).unwrap();
    let path = cluster.data_directory(second).join("replicas").join(&descriptor).join("descriptor");
    let mut content = fs::read(&path).unwrap();
    content[50] ^= 0x10;
    fs::write(path, content).unwrap();
    let path = &tables_of(&cluster, reader, read_there)[0];
    let mut content = fs::read(path).unwrap();
    content[100] ^= 0x10;
    fs::write(path, content).unwrap();

    cluster.start_without_tables();
    expect_named(&cluster, first, &BTreeSet::from([no_current]));
    expect_named(&cluster, second, &BTreeSet::from([short_file, descriptor]));
    let mut rows = Rows { known: rows.known, ..Rows::open(&cluster).await };
    rows.write("after", 100, 8, &nothing).await;
    // Reading all its rows meets the flipped byte: its primary goes out of service, another one answers.
    rows.expect_all(&nothing).await;
    expect_named(&cluster, reader, &BTreeSet::from([read_there.clone()]));
    expect_mended(&cluster, &rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_that_were_removed_are_learned_again() {
    let cluster = TestCluster::new(29300);
    cluster.start(1);
    let mut rows = Rows::open(&cluster).await;
    let nothing = BTreeSet::new();
    rows.write("row", 300, 8, &nothing).await;
    let primaries = rows.primaries(&cluster).await;
    rows.client.close().await;
    cluster.kill(None);

    // A copy of a primary and one of a secondary.
    let led = primaries.iter().find(|(_, node)| **node == 0).unwrap().0.clone();
    let followed = primaries.iter().find(|(_, node)| **node != 0).unwrap().0.clone();
    let removed = BTreeSet::from([led, followed]);
    let directory = |partition: &String| cluster.data_directory(0).join("replicas").join(partition);
    removed.iter().for_each(|partition| fs::remove_dir_all(directory(partition)).unwrap());

    cluster.start_without_tables();
    expect_named(&cluster, 0, &removed);
    let mut rows = Rows { known: rows.known, ..Rows::open(&cluster).await };
    rows.write("after", 100, 8, &nothing).await;
    expect_mended(&cluster, &rows).await;
    expect_named(&cluster, 1, &nothing);
    expect_named(&cluster, 2, &nothing);
}
