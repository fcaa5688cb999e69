//! What a node does when a disk is read-only, too small or full: it says what is wrong and what to do, never panics,
//! and loses nothing that was acknowledged.
//!
//! Small disks are private mounts, which need the rights of root. Without them the test prints that it was skipped.
#![allow(clippy::unwrap_used)]

mod support;

use std::ops::Range;
use std::time::Instant;

use pegasus_engine::descriptor::{Descriptor, Loaded, copy_directory, table_directory};
use pegasus_wire::messages::data::{RowOperation, Write};
use pegasus_wire::{Frame, FrameBuilder, MessageKind, PartitionId, Status};
use support::small_disk::SmallDisk;
use support::{Caller, PATIENCE, Process, Scene, contains_all, eventually, reason, set_directory};

/// First scene number of this program.
const SCENES: u16 = 60;
/// Length of each value.
const VALUE_BYTES: u32 = 20_000;
/// More rows than any of these disks, and any log that is not freed, has room for.
const TOO_MANY_ROWS: u32 = 10_000;

#[test]
fn a_read_only_file_system() {
    let scene = Scene::new(SCENES);
    let Some(disk) = SmallDisk::mount(scene.path("disk"), "ro,size=16m") else { return };
    let config = scene.node_config("node", |table| set_directory(table, &disk.directory));
    let error = scene.failed_start(disk.node(&config));
    contains_all(&error, &[disk.directory.to_str().unwrap(), "Read-only file system"]);
}

#[test]
fn a_file_system_too_small_to_start_on() {
    let scene = Scene::new(SCENES + 1);
    for size in ["16k", "1m", "6m"] {
        let Some(disk) = SmallDisk::mount(scene.path(size), &format!("size={size}")) else { return };
        let config = scene.node_config("node", |table| set_directory(table, &disk.directory.join("data")));
        let error = scene.failed_start(disk.node(&config));
        assert!(error.contains("is full") || error.contains("No space left"), "{error}");
        contains_all(&error, &[disk.directory.to_str().unwrap()]);
    }
}

fn value_of(number: u32) -> Vec<u8> {
    let mut state = u64::from(number) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..VALUE_BYTES).map(|_| next()).collect()
}

/// Writes one row. While a table is flushed to make room in the log, writes are told to come again.
async fn write_row(caller: &Caller, partition: PartitionId, number: u32) -> Frame {
    let (key, value) = (number.to_be_bytes(), value_of(number));
    let operations = [RowOperation::Put { sort_key: b"s", value: &value, expiry_seconds: 0 }];
    let write = Write { partition, hash_key: &key, operations: &operations };
    let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &write, &[]);
    caller.call_until_not(MessageKind::WRITE, &[Status::Busy], build).await
}

/// Writes rows until one is refused; gives the number of the first that was not acknowledged, and the refusal.
async fn write_rows(caller: &Caller, partition: PartitionId, numbers: Range<u32>) -> (u32, Option<Frame>) {
    let end = numbers.end;
    for number in numbers {
        let answer = write_row(caller, partition, number).await;
        if answer.header.status != Status::Ok {
            return (number, Some(answer));
        }
    }
    (end, None)
}

async fn expect_written(caller: &Caller, partition: PartitionId, numbers: Range<u32>) {
    let (_, refusal) = write_rows(caller, partition, numbers).await;
    assert!(refusal.is_none(), "{:?}", refusal.map(|refusal| reason(&refusal)));
}

async fn expect_rows(caller: &Caller, partition: PartitionId, count: u32) {
    for number in 0..count {
        let got = caller.get(partition, &number.to_be_bytes(), b"s").await;
        assert_eq!(got.header.status, Status::Ok, "row {number}: {}", reason(&got));
        assert_eq!(&got.attachment[..], value_of(number), "row {number}");
    }
}

/// The write that met a full disk may have been logged already; else it is refused, and says why.
fn expect_met_full_disk(answer: &Frame) {
    let status = answer.header.status;
    assert!(matches!(status, Status::StorageFailed | Status::OutcomeUnknown), "{status:?}: {}", reason(answer));
}

fn expect_storage_failed(answer: &Frame, words: &[&str]) {
    assert_eq!(answer.header.status, Status::StorageFailed, "{}", reason(answer));
    contains_all(&reason(answer), words);
}

/// Waits until the node's health has this code; gives what it says.
async fn health(scene: &Scene, code: u16) -> String {
    eventually(&format!("health {code}"), Instant::now() + PATIENCE, async || {
        let (now, text) = scene.admin("/health");
        if now == code { Ok(text) } else { Err(format!("{now} {text}")) }
    })
    .await
}

fn set_section(table: &mut toml::Table, section: &str, values: &[(&str, i64)]) {
    let section = table[section].as_table_mut().unwrap();
    for (key, value) in values {
        section.insert((*key).to_owned(), (*value).into());
    }
}

async fn one_partition(scene: &Scene, table: &str) -> PartitionId {
    PartitionId::new(scene.make_named_table(table, 1).await.table.table.0, 0)
}

fn expect_no_panic(node: &Process) {
    assert!(!node.log().contains("panick"), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_log_takes_any_number_of_writes() {
    let scene = Scene::new(SCENES + 2);
    let _meta = scene.start_meta();
    let node = scene.start_node(&scene.node_config("node", |_| ()));
    let partition = one_partition(&scene, "table").await;
    // Twice what it holds.
    let count = 2 * (20 << 20) / VALUE_BYTES;
    expect_written(&scene.caller().await, partition, 0..count).await;
    node.kill();
    let node = scene.start_node(&scene.node_config("node", |_| ()));
    assert_eq!(one_partition(&scene, "table").await, partition);
    expect_rows(&scene.caller().await, partition, count).await;
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_disk_reserve_writes_are_refused_and_reads_are_not() {
    let scene = Scene::new(SCENES + 3);
    let Some(disk) = SmallDisk::mount(scene.path("disk"), "size=96m") else { return };
    let config = scene.node_config("node", |table| {
        set_directory(table, &disk.directory.join("data"));
        set_section(table, "storage", &[("disk_reserve_bytes", 16 << 20)]);
    });
    let _meta = scene.start_meta();
    let node = Process::start(disk.node(&config), scene.path("node.log"));
    node.wait_until_ready();
    let partition = one_partition(&scene, "table").await;
    let caller = scene.caller().await;
    expect_written(&caller, partition, 0..20).await;
    disk.fill(8 << 20);
    // The node looks from time to time.
    contains_all(&health(&scene, 503).await, &["disk", "reserve"]);
    expect_storage_failed(&write_row(&caller, partition, 20).await, &["disk", "reserve"]);
    expect_rows(&caller, partition, 20).await;
    disk.give_back();
    health(&scene, 200).await;
    expect_written(&caller, partition, 20..40).await;
    expect_rows(&caller, partition, 40).await;
    expect_no_panic(&node);
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let scene = Scene::new(SCENES + 4);
    let Some(disk) = SmallDisk::mount(scene.path("disk"), "size=64m") else { return };
    // Without a reserve the disk really runs full, in flushes and compactions that the log asks for.
    let config = scene.node_config("node", |table| {
        set_directory(table, &disk.directory.join("data"));
        set_section(table, "storage", &[("disk_reserve_bytes", 0), ("write_buffer_bytes", 4 << 20)]);
    });
    let start = || {
        let node = Process::start(disk.node(&config), scene.path("node.log"));
        node.wait_until_ready();
        node
    };
    let _meta = scene.start_meta();
    let node = start();
    let partition = one_partition(&scene, "table").await;
    let caller = scene.caller().await;
    expect_written(&caller, partition, 0..100).await;
    disk.fill(0);
    let (written, refusal) = write_rows(&caller, partition, 100..TOO_MANY_ROWS).await;
    expect_met_full_disk(&refusal.expect("the disk is full"));
    let refused = caller.set(partition, &written.to_be_bytes(), b"other").await;
    expect_storage_failed(&refused, &["No space left on device", "restart the node"]);
    contains_all(&health(&scene, 503).await, &["No space left on device", "restart the node"]);
    expect_no_panic(&node);
    node.kill();

    // It may not come up while the disk is full; if it does not, it says why.
    let mut node = Process::start(disk.node(&config), scene.path("full.log"));
    let full = node.wait_until_ready_or_ended();
    expect_no_panic(&node);
    if let Some(status) = full {
        assert_eq!(status.code(), Some(1), "{}", node.log());
        let log = node.log();
        let last = log.lines().last().unwrap();
        assert!(last.contains("No space left") || last.contains("is full"), "{last}");
    }
    node.kill();

    disk.give_back();
    let node = start();
    assert_eq!(one_partition(&scene, "table").await, partition);
    let caller = scene.caller().await;
    expect_rows(&caller, partition, written).await;
    expect_written(&caller, partition, written..written + 20).await;
    node.stop();
}

/// Two copies on a node. The disk of one is full when its table has to be flushed: it goes out of service, the node and
/// the other copy go on, and nothing acknowledged is lost. `rows` are as many as make the node flush the table, and
/// `metric` counts flushes of that kind.
async fn a_failed_flush_stops_one_copy(scene: Scene, change: impl FnOnce(&mut toml::Table), rows: u32, metric: &str) {
    let _meta = scene.start_meta();
    let config = scene.node_config("node", change);
    let node = scene.start_node(&config);
    let (poor, rich) = (one_partition(&scene, "poor").await, one_partition(&scene, "rich").await);
    for partition in [poor, rich] {
        expect_written(&scene.caller().await, partition, 0..20).await;
    }
    node.stop();
    let copy = copy_directory(&scene.path("data"), poor);
    let Loaded::Valid(descriptor) = Descriptor::load(&copy).unwrap() else { panic!("no descriptor in {copy:?}") };
    let rows_of_poor = table_directory(&copy, descriptor.incarnation);
    let Some(disk) = SmallDisk::mount(rows_of_poor, "size=64m") else { return };
    let start = async || {
        let node = Process::start(disk.node(&config), scene.path("node.log"));
        node.wait_until_ready();
        assert_eq!((one_partition(&scene, "poor").await, one_partition(&scene, "rich").await), (poor, rich));
        (node, scene.caller().await)
    };
    let (mut node, caller) = start().await;
    disk.fill(0);
    let (written, refusal) = write_rows(&caller, poor, 20..rows).await;
    let flooded = refusal.is_some();
    if let Some(refusal) = refusal {
        expect_met_full_disk(&refusal);
    }

    // Nobody has to write to learn of it. A write that is applied right after the flush has failed may be the first
    // to say so.
    let advice = ["No space left on device", "restart the node"];
    let said = health(&scene, 503).await;
    contains_all(&said, &advice);
    contains_all(&said, &[&format!("partition {poor}: "), "storage failed"]);
    assert!(said.contains("(flush)") || (flooded && said.contains("(apply)")), "{said}");
    assert_eq!(said.lines().count(), 1, "only that copy has a problem: {said}");
    contains_all(&scene.admin("/status").1, &advice);
    contains_all(&scene.admin("/metrics").1, &[&format!("{metric}{{core=\"0\"}} 1\n")]);
    expect_storage_failed(&caller.get(poor, &0u32.to_be_bytes(), b"s").await, &advice);
    expect_storage_failed(&write_row(&caller, poor, written).await, &advice);
    expect_written(&caller, rich, 20..60).await;
    expect_rows(&caller, rich, 60).await;
    expect_no_panic(&node);
    assert!(node.is_running());
    // What cannot be flushed does not keep it from stopping in order.
    node.stop();

    disk.give_back();
    let (node, caller) = start().await;
    expect_rows(&caller, poor, written).await;
    expect_rows(&caller, rich, 60).await;
    assert_eq!(health(&scene, 200).await, "ok\n");
    expect_written(&caller, poor, written..written + 20).await;
    expect_no_panic(&node);
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_flush_for_the_log_stops_one_copy() {
    // Wide enough that it is not full before the flush has failed.
    let wide_log = |table: &mut toml::Table| set_section(table, "log", &[("budget_bytes", 40 << 20)]);
    let scene = Scene::new(SCENES + 5);
    a_failed_flush_stops_one_copy(scene, wide_log, TOO_MANY_ROWS, "pegasus_flushes_for_log_total").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_flush_for_memory_stops_one_copy() {
    let little_memory = |table: &mut toml::Table| set_section(table, "storage", &[("write_buffer_bytes", 8 << 20)]);
    // Above three quarters of it, where the node flushes, and below seven eighths, where RocksDB would.
    let rows = 20 + (8 << 20) / 100 * 79 / VALUE_BYTES;
    let scene = Scene::new(SCENES + 6);
    a_failed_flush_stops_one_copy(scene, little_memory, rows, "pegasus_flushes_for_memory_total").await;
}
