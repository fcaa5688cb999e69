//! Snapshots: of one moment, on any thread, as long as they are held.

use pegasus_engine::table::{ReadMode, Scan, ScanRequest, Table, TableSnapshot};
use pegasus_wire::messages::data::{RowOperation, SortKeys};

use crate::support::*;

fn values(snapshot: &TableSnapshot) -> Vec<Vec<u8>> {
    match snapshot.scan(&everything(0), ReadMode::Blocking).unwrap() {
        Scan::Done(outcome) => outcome.rows.iter().map(|row| row.value.to_vec()).collect(),
        Scan::WouldBlock => panic!("a blocking scan never would block"),
    }
}

fn filled(directory: &std::path::Path) -> Table {
    let table = create(directory);
    apply(&table, &[put(1, b"h", b"1", b"one", 0), put(2, b"h", b"2", b"two", 0), put(3, b"i", b"1", b"three", 0)]);
    table
}

#[test]
fn later_writes_are_not_seen_whatever_becomes_of_the_files() {
    let root = tempfile::tempdir().unwrap();
    let table = filled(root.path());
    let before = table.snapshot();
    let all = RowOperation::DeleteRange { range: SortKeys::ALL };
    apply(&table, &[put(4, b"h", b"1", b"changed", 0), mutation(5, payload(PARTITION, b"i", &[all]))]);
    let after = table.snapshot();
    for step in 0..3 {
        match step {
            1 => drop(table.flush().unwrap()),
            2 => compact(&table),
            _ => {}
        }
        assert_eq!(values(&before), [&b"one"[..], b"two", b"three"]);
        assert_eq!(values(&after), [&b"changed"[..], b"two"]);
    }
    drop(before);
    assert_eq!(values(&after), [&b"changed"[..], b"two"]);
}

#[test]
fn a_snapshot_keeps_the_table_open_and_may_be_read_and_dropped_anywhere() {
    let root = tempfile::tempdir().unwrap();
    let table = filled(root.path());
    let snapshots: Vec<_> = (0..4).map(|_| table.snapshot()).collect();
    assert!(!table.is_last_handle());
    drop(table);
    std::thread::scope(|scope| {
        for snapshot in snapshots {
            scope.spawn(move || assert_eq!(values(&snapshot), [&b"one"[..], b"two", b"three"]));
        }
    });
    // Closed by the last snapshot: else it could not be opened again.
    assert_eq!(reopen(root.path()).applied().0, 3);
}

#[test]
fn slices_of_a_snapshot_are_of_one_moment() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    let batch: Vec<_> = (0..100u64).map(|row| put(row + 1, b"h", &row.to_be_bytes(), b"old", 0)).collect();
    apply(&table, &batch);
    let snapshot = table.snapshot();
    for reverse in [false, true] {
        let (mut start, mut stop, mut found) = (vec![], vec![], 0);
        loop {
            let request = ScanRequest {
                start: &start,
                start_inclusive: start.is_empty(),
                stop: &stop,
                reverse,
                rows_max: 7,
                ..everything(0)
            };
            let Scan::Done(outcome) = snapshot.scan(&request, ReadMode::CacheOnly).unwrap() else {
                panic!("all of it is in memory")
            };
            assert!(outcome.rows.iter().all(|row| row.value == b"old"));
            found += outcome.rows.len();
            // Each slice sees a table that has changed meanwhile.
            let decree = table.applied().0 + 1;
            apply(&table, &[put(decree, b"h", &(decree % 100).to_be_bytes(), b"new", 0)]);
            apply(&table, &[put(decree + 1, b"h", &decree.to_le_bytes(), b"another", 0)]);
            if outcome.complete {
                break;
            }
            if reverse { stop = outcome.resume_after } else { start = outcome.resume_after }
        }
        assert_eq!(found, 100);
    }
}
