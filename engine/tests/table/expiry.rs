//! Time to live: hidden at once, dropped from files a while later.

use pegasus_engine::table::{EXPIRY_GRACE_SECONDS, ScanRequest};

use crate::support::*;

#[test]
fn a_row_is_hidden_from_its_expiry_on() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    apply(&table, &[put(1, b"h", b"", b"v", 1000), put(2, b"h", b"for ever", b"v", 0)]);
    for flushed in [false, true] {
        if flushed {
            table.flush().unwrap();
        }
        assert!(get(&table, b"h", b"", 999).is_some());
        assert!(get(&table, b"h", b"", 1000).is_none());
        assert!(get(&table, b"h", b"for ever", u32::MAX).is_some());
        assert_eq!(scan(&table, &everything(999)).count, 2);
        let outcome = scan(&table, &everything(1000));
        assert_eq!((outcome.count, outcome.rows.len()), (1, 1));
    }
}

#[test]
fn compaction_drops_rows_that_expired_a_while_ago_and_no_others() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    let now = system_now_seconds();
    apply(
        &table,
        &[
            put(1, b"h", b"long gone", b"v", now - EXPIRY_GRACE_SECONDS - 5),
            put(2, b"h", b"just gone", b"v", now - EXPIRY_GRACE_SECONDS / 2),
            put(3, b"h", b"soon", b"v", now + 1000),
            put(4, b"h", b"for ever", b"v", 0),
        ],
    );
    table.flush().unwrap();
    // As of the year 2016 nothing has expired: what is missing then has left the files.
    assert_eq!(scan(&table, &everything(0)).count, 4);
    compact(&table);
    let left: Vec<_> = keys(&scan(&table, &ScanRequest { no_value: true, ..everything(0) }));
    let names: Vec<_> = left.iter().map(|key| String::from_utf8_lossy(&key[3..]).into_owned()).collect();
    assert_eq!(names, ["for ever", "just gone", "soon"]);
    assert_eq!(table.read_flushed().unwrap().0, 4, "the applied decree is no row");
    drop(table);
    assert_eq!(reopen(root.path()).applied().0, 4);
}

#[test]
fn a_row_written_again_does_not_come_back_in_its_old_form() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    apply(&table, &[put(1, b"h", b"", b"old", 0)]);
    table.flush().unwrap();
    compact(&table);
    apply(&table, &[put(2, b"h", b"", b"new", system_now_seconds() - 1000)]);
    table.flush().unwrap();
    compact(&table);
    assert_eq!(get(&table, b"h", b"", 0), None);
}
