//! What changes in an open table: the shape of its files, and their compaction by hand.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pegasus_engine::table::{
    Bottommost, CompactionOutcome, CompactionRecord, EXPIRY_GRACE_SECONDS, OpenMode, SharedOptions, Table, TableShape,
    TableShared,
};
use pegasus_wire::Environment;
use pegasus_wire::environment::UsageScenario;

use crate::support::*;

const BULK_LOAD: TableShape = TableShape { write_buffer_bytes: 0, usage_scenario: UsageScenario::BulkLoad };

/// Four files in level 0 are compacted.
fn compacting_options() -> SharedOptions {
    SharedOptions { level0_compaction_files: 4, ..small_options() }
}

fn open(directory: &Path, options: SharedOptions) -> Table {
    let shared = TableShared::new(options).unwrap();
    Table::open(&directory.join("rdb"), &shared, PARTITION, OpenMode::CreateIfMissing).unwrap()
}

/// Files of level 0, each with the same rows, so that none can simply be moved down.
fn flush_files(table: &Table, count: u64) {
    for _ in 0..count {
        let decree = table.applied().0 + 1;
        apply(table, &[put(decree, b"h", b"first", &[1; 5000], 0), put(decree + 1, b"h", b"last", &[2; 5000], 0)]);
        table.flush().unwrap();
    }
}

/// RocksDB tells nobody when it is done: it is asked until it is.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_bulk_load_compacts_nothing_until_it_is_over() {
    let root = tempfile::tempdir().unwrap();
    let table = open(root.path(), compacting_options());
    table.reshape(BULK_LOAD).unwrap();
    assert_eq!(table.shape(), BULK_LOAD);
    flush_files(&table, 12);
    assert_eq!(table.statistics().level0_files, 12);
    assert_eq!(table.statistics().compaction_pending_bytes, 0, "nothing waits for it either");
    table.reshape(TableShape::default()).unwrap();
    eventually("the files of level 0 are compacted", || table.statistics().level0_files < 4);
    assert_eq!(scan(&table, &everything(0)).count, 2);
}

#[test]
fn a_table_has_its_shape_from_the_moment_it_is_opened() {
    let root = tempfile::tempdir().unwrap();
    let table = open(root.path(), compacting_options());
    table.reshape(BULK_LOAD).unwrap();
    flush_files(&table, 12);
    crash_image(&root.path().join("rdb"), &root.path().join("crashed/rdb"));
    drop(table);
    for directory in [root.path().to_owned(), root.path().join("crashed")] {
        let table = open(&directory, compacting_options());
        assert_eq!(table.shape(), BULK_LOAD);
        flush_files(&table, 1);
        assert_eq!(table.statistics().level0_files, 13, "not one compaction, also not when it was opened");
        table.reshape(TableShape::default()).unwrap();
        eventually("it is an ordinary table again", || table.statistics().level0_files < 4);
        table.flush().unwrap();
        drop(table);
        assert_eq!(open(&directory, compacting_options()).shape(), TableShape::default());
    }
}

#[test]
fn the_size_of_a_write_buffer_is_that_of_the_next_one() {
    let root = tempfile::tempdir().unwrap();
    let table = open(root.path(), small_options());
    let fill = |count: u64| {
        for _ in 0..count {
            let decree = table.applied().0 + 1;
            apply(&table, &[put(decree, b"h", &decree.to_be_bytes(), &[7; 8000], 0)]);
        }
    };
    fill(50);
    assert_eq!(table.flushed().0, 0, "400 KB of 16 MiB");
    let small = TableShape { write_buffer_bytes: 64 << 10, usage_scenario: UsageScenario::Normal };
    table.reshape(small).unwrap();
    table.flush().unwrap();
    fill(50);
    eventually("buffers of 64 KiB were flushed", || table.read_flushed().unwrap().0 > 60);
    table.reshape(TableShape::default()).unwrap();
    table.flush().unwrap();
    fill(50);
    assert_eq!(table.read_flushed().unwrap().0, 100);
}

#[test]
fn a_shape_comes_from_the_environment() {
    let mut environment = Environment::default();
    assert_eq!(TableShape::from(&environment), TableShape::default());
    environment.set("rocksdb.usage_scenario", "prefer_write").unwrap();
    environment.set("rocksdb.write_buffer_size", "33554432").unwrap();
    let expected = TableShape { write_buffer_bytes: 32 << 20, usage_scenario: UsageScenario::PreferWrite };
    assert_eq!(TableShape::from(&environment), expected);
}

#[test]
fn what_is_in_the_last_level_is_rewritten_if_it_is_forced() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    let gone = system_now_seconds() - EXPIRY_GRACE_SECONDS - 5;
    apply(&table, &[put(1, b"h", b"1", b"v", 0), put(2, b"h", b"2", b"v", gone)]);
    assert_eq!(scan(&table, &everything(0)).count, 2, "as of 2016 nothing has expired: what is there is in the files");
    assert_eq!(table.compact(Bottommost::Skip).unwrap(), CompactionOutcome::Finished);
    assert_eq!((table.statistics().level0_files, scan(&table, &everything(0)).count), (0, 1));
    let files = || files_ending(&root.path().join("rdb"), ".sst");
    let last_level = files();
    assert_eq!(table.compact(Bottommost::Skip).unwrap(), CompactionOutcome::Finished);
    assert_eq!(files(), last_level);
    assert_eq!(table.compact(Bottommost::Force).unwrap(), CompactionOutcome::Finished);
    assert!(files() != last_level, "it was written again");
    assert_eq!(table.compaction_percent().unwrap(), None);
}

#[test]
fn the_last_compaction_is_remembered_by_files_and_checkpoints() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    assert_eq!(table.last_compaction(), CompactionRecord::default());
    apply(&table, &[put(1, b"h", b"1", b"v", 0)]);
    compact(&table);
    let record = CompactionRecord { began_seconds: 1_700_000_000, ended_seconds: 1_700_000_100 };
    table.record_compaction(record).unwrap();
    assert_eq!(table.last_compaction(), record);
    assert_eq!((table.applied().0, scan(&table, &everything(0)).count), (1, 1), "it is no mutation and no row");
    crash_image(&root.path().join("rdb"), &root.path().join("crashed/rdb"));
    assert_eq!(reopen(&root.path().join("crashed")).last_compaction(), record);
    let image = table.checkpoint(&shared(), &root.path().join("image")).unwrap();
    crash_image(image.directory(), &root.path().join("learned/rdb"));
    let learned = reopen(&root.path().join("learned"));
    assert_eq!((learned.last_compaction(), learned.applied().0), (record, 1));
    compact(&learned);
    assert_eq!(learned.last_compaction(), record, "compaction passes over it");
}

/// A table of four files that cannot be compressed, on a disk that takes seconds to write them once more.
fn slow_to_compact(directory: &Path) -> Table {
    let table = create(directory);
    let mut state = 1u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    for file in 0..4u64 {
        for row in 0..ROWS_PER_FILE {
            let value: Vec<u8> = (0..1000).flat_map(|_| noise()).collect();
            let decree = table.applied().0 + 1;
            apply(&table, &[put(decree, b"h", &(row * 4 + file).to_be_bytes(), &value, 0)]);
        }
        table.flush().unwrap();
    }
    drop(table);
    open(directory, SharedOptions { write_rate_bytes_per_second: 2 << 20, ..small_options() })
}

const ROWS_PER_FILE: u64 = 250;

#[test]
fn a_table_that_is_stopped_ends_its_compaction_and_can_be_closed() {
    let root = tempfile::tempdir().unwrap();
    let table = slow_to_compact(root.path());
    let (report, ended) = mpsc::channel();
    let compacting = table.clone();
    let thread = std::thread::spawn(move || report.send(compacting.compact(Bottommost::Force).unwrap()).unwrap());
    eventually("it runs", || table.compaction_percent().unwrap().is_some());
    assert!(table.compaction_percent().unwrap().is_none_or(|percent| percent <= 99));
    assert_eq!(table.compact(Bottommost::Skip).unwrap(), CompactionOutcome::Running, "one at a time");
    table.stop();
    assert_eq!(ended.recv().unwrap(), CompactionOutcome::Stopped);
    thread.join().unwrap();
    assert_eq!(table.compaction_percent().unwrap(), None);
    assert_eq!(table.compact(Bottommost::Force).unwrap(), CompactionOutcome::Stopped, "none begins any more");
    assert_eq!(scan(&table, &everything(0)).count, 4 * ROWS_PER_FILE, "it can still be read");
    assert!(table.is_last_handle());
    drop(table);
    let table = reopen(root.path());
    assert_eq!(table.applied().0, 4 * ROWS_PER_FILE);
    assert_eq!(scan(&table, &everything(0)).count, 4 * ROWS_PER_FILE);
    assert_eq!(table.last_compaction(), CompactionRecord::default());
}

#[test]
fn a_stopped_table_has_flushed_what_was_applied() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    apply(&table, &[put(1, b"h", b"", b"v", 0)]);
    table.stop();
    crash_image(&root.path().join("rdb"), &root.path().join("crashed/rdb"));
    assert_eq!(reopen(&root.path().join("crashed")).applied().0, 1);
}
