//! Range deletes: their edges, their place among other operations, what they never touch.

use pegasus_engine::table::{Lookup, ReadMode, Table};
use pegasus_wire::key::encode;
use pegasus_wire::messages::data::{RowOperation, SortKeys};

use crate::support::*;

const SORT_KEYS: [&[u8]; 5] = [b"", b"a", b"a\0", b"b", b"\xFF\xFF"];

/// Hash keys g, h, i with all sort keys; only h is deleted from.
fn fill(directory: &std::path::Path, in_files: bool) -> Table {
    let table = create(directory);
    let operations = SORT_KEYS.map(|sort_key| RowOperation::Put { sort_key, value: b"v", expiry_seconds: 0 });
    for (index, hash_key) in [b"g", b"h", b"i"].into_iter().enumerate() {
        apply(&table, &[mutation(index as u64 + 1, payload(PARTITION, hash_key, &operations))]);
    }
    if in_files {
        table.flush().unwrap();
        compact(&table);
    }
    table
}

fn left(table: &Table) -> Vec<Vec<u8>> {
    let is_there = |sort_key: &&&[u8]| get(table, b"h", sort_key, 0).is_some();
    let by_get: Vec<_> = SORT_KEYS.iter().filter(is_there).map(|sort_key| sort_key.to_vec()).collect();
    let all = keys(&scan(table, &everything(0)));
    let by_scan = all.iter().filter_map(|key| key.strip_prefix(b"\0\x01h").map(<[u8]>::to_vec));
    assert!(by_scan.eq(by_get.iter().cloned()));
    assert_eq!(all.len(), by_get.len() + 2 * SORT_KEYS.len(), "the neighbours have all their rows");
    by_get
}

/// Start and stop, each with whether it belongs to the range, and the sort keys that are left.
type Case<'a> = (&'a [u8], bool, &'a [u8], bool, &'a [&'a [u8]]);

#[test]
fn edges_are_as_asked() {
    let cases: &[Case] = &[
        (b"", true, b"", true, &[]),
        (b"", true, b"", false, &[]),
        (b"", false, b"", true, &[b""]),
        (b"a", true, b"b", true, &[b"", b"\xFF\xFF"]),
        (b"a", true, b"b", false, &[b"", b"b", b"\xFF\xFF"]),
        (b"a", false, b"b", false, &[b"", b"a", b"b", b"\xFF\xFF"]),
        (b"a", true, b"a", true, &[b"", b"a\0", b"b", b"\xFF\xFF"]),
        (b"\xFF\xFF", true, b"", true, &[b"", b"a", b"a\0", b"b"]),
        (b"\xFF\xFF", false, b"", true, &SORT_KEYS),
        // Empty and reversed ones delete nothing.
        (b"a", true, b"a", false, &SORT_KEYS),
        (b"a", false, b"a", true, &SORT_KEYS),
        (b"a", false, b"a\0", false, &SORT_KEYS),
        (b"b", true, b"a", true, &SORT_KEYS),
    ];
    for in_files in [false, true] {
        for &(start, start_inclusive, stop, stop_inclusive, expected) in cases {
            let root = tempfile::tempdir().unwrap();
            let table = fill(root.path(), in_files);
            let range = SortKeys { start, stop, start_inclusive, stop_inclusive };
            apply(&table, &[delete_range_of(4, b"h", range)]);
            assert_eq!(left(&table), expected, "{range:?}");
            assert_eq!(table.applied().0, 4, "it is a mutation like any other");
            table.flush().unwrap();
            compact(&table);
            assert_eq!(left(&table), expected, "{range:?} in files");
        }
    }
}

#[test]
fn the_order_within_a_write_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let table = fill(root.path(), true);
    let put = |sort_key| RowOperation::Put { sort_key, value: b"new", expiry_seconds: 0 };
    let operations = [put(b"a"), RowOperation::DeleteRange { range: SortKeys::ALL }, put(b"b")];
    apply(&table, &[mutation(4, payload(PARTITION, b"h", &operations))]);
    for _ in 0..2 {
        assert_eq!(left(&table), [b"b"]);
        assert_eq!(get(&table, b"h", b"b", 0).unwrap(), b"new");
        table.flush().unwrap();
        compact(&table);
    }
    assert_eq!(table.statistics().rows_written, 15 + 3);
}

#[test]
fn the_order_within_a_batch_of_mutations_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let table = fill(root.path(), false);
    let range = SortKeys { start: b"a", stop: b"b", start_inclusive: true, stop_inclusive: true };
    let batch = [
        put(4, b"h", b"a", b"before", 0),
        delete_range_of(5, b"h", range),
        put(6, b"h", b"a\0", b"after", 0),
        put(7, b"h", b"b", b"before the last", 0),
        delete(8, b"h", b"b"),
    ];
    apply(&table, &batch);
    assert_eq!(left(&table), [&b""[..], b"a\0", b"\xFF\xFF"]);
}

#[test]
fn the_longest_hash_key_of_ff_has_an_end() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    let hash_key = [0xFF; 1024];
    apply(&table, &[put(1, &hash_key, &[0xFF; 1024], b"v", 0), put(2, &hash_key, b"", b"v", 0)]);
    apply(&table, &[delete_range_of(3, &hash_key, SortKeys { start: b"a", ..SortKeys::ALL })]);
    assert!(get(&table, &hash_key, &[0xFF; 1024], 0).is_none());
    assert!(get(&table, &hash_key, b"", 0).is_some());
    drop(table);
    assert_eq!(reopen(root.path()).applied().0, 3, "the applied decree is behind every range");
}

#[test]
fn deleted_rows_are_missing_from_memory_alone() {
    // A serving core never has to ask the disk whether a row in a deleted range is there.
    let root = tempfile::tempdir().unwrap();
    let table = fill(root.path(), true);
    drop(table);
    let table = reopen(root.path());
    apply(&table, &[delete_range_of(4, b"h", SortKeys::ALL)]);
    let read = |sort_key| table.read_row(&encode(b"h", sort_key), 0, ReadMode::CacheOnly).unwrap();
    assert!(SORT_KEYS.iter().all(|sort_key| matches!(read(sort_key), Lookup::Missing)));
    table.flush().unwrap();
    assert!(SORT_KEYS.iter().all(|sort_key| matches!(read(sort_key), Lookup::Missing)));
}
