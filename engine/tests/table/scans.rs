//! Scans: limits, continuation, counting, ranges, tiers.

use pegasus_engine::table::{Lookup, ReadMode, Scan, ScanRequest, Table, hash_key_range};
use pegasus_wire::key::encode;
use pegasus_wire::limits::SORT_KEY_BYTES_MAX;

use crate::support::*;

/// Hash keys a, b, c with sort keys 0 to 9; every third row of b has expired at 100.
fn fill(directory: &std::path::Path) -> Table {
    let table = create(directory);
    let mut batch = Vec::new();
    for hash_key in [b"a", b"b", b"c"] {
        for sort in 0..10u8 {
            let expiry = if hash_key == b"b" && sort % 3 == 0 { 100 } else { 0 };
            batch.push(put(batch.len() as u64 + 1, hash_key, &[b'0' + sort], &[sort; 100], expiry));
        }
    }
    apply(&table, &batch);
    table
}

/// Rows 1 to 200 of hash key h, 1000 bytes each, flushed, with a cold cache.
fn reopen_with_200_large_rows(directory: &std::path::Path) -> Table {
    let table = create(directory);
    let batch: Vec<_> = (1..=200u64).map(|row| put(row, b"h", &row.to_be_bytes(), &[0; 1000], 0)).collect();
    apply(&table, &batch);
    table.flush().unwrap();
    drop(table);
    reopen(directory)
}

fn sort_keys(outcome: &pegasus_engine::table::ScanOutcome) -> Vec<u8> {
    outcome.rows.iter().map(|row| *row.key.last().unwrap()).collect()
}

#[test]
fn limits_stop_a_scan_and_say_where() {
    let root = tempfile::tempdir().unwrap();
    let table = fill(root.path());
    let by_rows = scan(&table, &ScanRequest { rows_max: 4, ..everything(0) });
    assert_eq!((by_rows.rows.len(), by_rows.complete), (4, false));
    assert_eq!(by_rows.resume_after, encode(b"a", b"3"));

    let by_bytes = scan(&table, &ScanRequest { bytes_max: 250, ..everything(0) });
    assert_eq!((by_bytes.rows.len(), by_bytes.complete), (3, false), "the third row of 104 bytes passes 250");

    let bare = scan(&table, &ScanRequest { bytes_max: 250, key_prefix: 3, ..everything(0) });
    assert_eq!((bare.rows.len(), bare.rows.bytes(), &bare.resume_after), (3, 303, &encode(b"a", b"2")));
    assert_eq!(bare.rows.iter().map(|row| row.key).collect::<Vec<_>>(), [b"0", b"1", b"2"]);
    let exactly = scan(&table, &ScanRequest { bytes_max: 202, key_prefix: 3, ..everything(0) });
    assert_eq!(exactly.rows.len(), 2, "what is left out does not count");

    let (start, stop) = hash_key_range(b"b", b"", b"", false);
    let expired_too = ScanRequest { start: &start, stop: &stop, iterations_max: 5, ..everything(100) };
    let by_iterations = scan(&table, &expired_too);
    assert_eq!(sort_keys(&by_iterations), b"124");
    assert_eq!((by_iterations.resume_after, by_iterations.complete), (encode(b"b", b"4"), false));

    let nothing = scan(&table, &ScanRequest { iterations_max: 0, rows_max: 0, ..everything(0) });
    assert_eq!((nothing.rows.len(), nothing.complete), (1, false), "a slice always moves on");
}

#[test]
fn a_limit_reached_at_the_end_is_the_end() {
    let root = tempfile::tempdir().unwrap();
    let table = fill(root.path());
    for exact in [
        ScanRequest { rows_max: 30, ..everything(0) },
        ScanRequest { iterations_max: 30, ..everything(0) },
        ScanRequest { bytes_max: 30 * 104, ..everything(0) },
    ] {
        let outcome = scan(&table, &exact);
        assert_eq!((outcome.rows.len(), outcome.complete, outcome.resume_after.len()), (30, true, 0));
    }
}

#[test]
fn counting_returns_no_rows_and_is_bounded_by_iterations_only() {
    let root = tempfile::tempdir().unwrap();
    let table = fill(root.path());
    let count = ScanRequest { count_only: true, rows_max: 1, bytes_max: 1, ..everything(100) };
    let all = scan(&table, &count);
    assert_eq!((all.count, all.rows.len(), all.complete), (26, 0, true));
    let part = scan(&table, &ScanRequest { iterations_max: 12, ..count });
    assert_eq!((part.count, part.complete), (11, false));
    let rest = scan(&table, &ScanRequest { start: &part.resume_after, start_inclusive: false, ..count });
    assert_eq!((rest.count, rest.complete), (15, true));
}

#[test]
fn rows_without_their_data() {
    let root = tempfile::tempdir().unwrap();
    let table = fill(root.path());
    let outcome = scan(&table, &ScanRequest { no_value: true, ..everything(0) });
    assert_eq!(outcome.rows.len(), 30);
    assert!(outcome.rows.iter().all(|row| row.value.is_empty()));
    assert_eq!(outcome.rows.bytes(), 30 * 4);
}

#[test]
fn ranges_of_one_hash_key() {
    let root = tempfile::tempdir().unwrap();
    let table = fill(root.path());
    let read = |start: &[u8], stop: &[u8], start_inclusive, stop_inclusive| {
        let (start, stop) = hash_key_range(b"b", start, stop, stop_inclusive);
        sort_keys(&scan(&table, &ScanRequest { start: &start, stop: &stop, start_inclusive, ..everything(0) }))
    };
    assert_eq!(read(b"", b"", true, false), b"0123456789");
    assert_eq!(read(b"3", b"6", true, false), b"345");
    assert_eq!(read(b"3", b"6", false, true), b"456");
    assert_eq!(read(b"6", b"3", true, true), b"");
    assert_eq!(read(b"9", b"", false, false), b"");
}

#[test]
fn no_range_reaches_the_engines_own_keys() {
    let root = tempfile::tempdir().unwrap();
    let table = fill(root.path());
    for (start, stop) in [(&b""[..], &b""[..]), (b"", b"\xFF\xFF\xFF\xFF"), (b"\0", b"\xFF\xFF")] {
        let outcome = scan(&table, &ScanRequest { start, stop, ..everything(0) });
        assert_eq!((outcome.count, outcome.complete), (30, true));
    }
    for start in [&b"\xFF\xFF"[..], b"\xFF\xFFd", b"\xFF\xFF\xFF"] {
        for start_inclusive in [true, false] {
            let outcome = scan(&table, &ScanRequest { start, start_inclusive, ..everything(0) });
            assert_eq!((outcome.count, outcome.complete), (0, true));
        }
    }
}

#[test]
fn a_cold_scan_would_block_and_a_warm_one_does_not() {
    let root = tempfile::tempdir().unwrap();
    let table = reopen_with_200_large_rows(root.path());
    let (start, stop) = hash_key_range(b"h", b"", &20u64.to_be_bytes(), false);
    let request = ScanRequest { start: &start, stop: &stop, ..everything(0) };
    assert!(matches!(table.scan(&request, ReadMode::CacheOnly).unwrap(), Scan::WouldBlock));
    assert_eq!(table.statistics().scans_would_block, 1);
    assert_eq!(scan(&table, &request).count, 19);
    assert!(matches!(table.scan(&request, ReadMode::CacheOnly).unwrap(), Scan::Done(outcome) if outcome.count == 19));
}

#[test]
fn a_scan_of_the_whole_table_leaves_the_cache_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let table = reopen_with_200_large_rows(root.path());
    assert_eq!(scan(&table, &everything(0)).count, 200);
    assert!(matches!(table.scan(&everything(0), ReadMode::CacheOnly).unwrap(), Scan::WouldBlock));
}

#[test]
fn a_scan_that_got_all_it_asked_for_does_not_need_the_next_block() {
    let root = tempfile::tempdir().unwrap();
    let table = reopen_with_200_large_rows(root.path());
    let (start, stop) = hash_key_range(b"h", b"", b"", false);
    let first = |rows_max| ScanRequest { start: &start, stop: &stop, rows_max, ..everything(0) };
    // Brings in the block of row 51 as well, whose last row is not far.
    scan(&table, &first(50));
    let is_there = |row: &u64| {
        let read = table.read_row(&encode(b"h", &row.to_be_bytes()), 0, ReadMode::CacheOnly).unwrap();
        matches!(read, Lookup::Found { .. })
    };
    let there = (1..=200).take_while(is_there).count();
    assert!((51..150).contains(&there), "{there}");
    let Scan::Done(outcome) = table.scan(&first(there), ReadMode::CacheOnly).unwrap() else {
        panic!("all {there} rows are in memory")
    };
    assert_eq!((outcome.rows.len(), outcome.complete), (there, false));
    assert!(matches!(table.scan(&first(there + 1), ReadMode::CacheOnly).unwrap(), Scan::WouldBlock));
}

#[test]
fn the_last_sort_keys_come_first_in_reverse() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    let longest = [0xFF; SORT_KEY_BYTES_MAX];
    let sort_keys = [&b""[..], &[0xFF], &[0xFF, 0xFF], &[0xFF, 0xFF, 1], &longest[1..], &longest];
    let batch: Vec<_> = (1..).zip(sort_keys).map(|(decree, sort_key)| put(decree, b"h", sort_key, b"v", 0)).collect();
    apply(&table, &batch);
    let (start, stop) = hash_key_range(b"h", b"", b"", false);
    for (start, stop) in [(&start[..], &stop[..]), (b"", b"")] {
        let outcome = scan(&table, &ScanRequest { start, stop, reverse: true, ..everything(0) });
        let found: Vec<_> = outcome.rows.iter().rev().map(|row| row.key[3..].to_vec()).collect();
        assert_eq!(found, sort_keys);
    }
}

#[test]
fn a_hash_key_that_is_not_there_needs_no_block() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    let batch: Vec<_> = (0..500u64).map(|row| put(row + 1, &(row * 2).to_be_bytes(), b"s", &[7; 200], 0)).collect();
    apply(&table, &batch);
    table.flush().unwrap();
    drop(table);
    let table = reopen(root.path());
    let answered = (0..500u64)
        .filter(|row| {
            let (start, stop) = hash_key_range(&(row * 2 + 1).to_be_bytes(), b"", b"", false);
            let request = ScanRequest { start: &start, stop: &stop, ..everything(0) };
            matches!(table.scan(&request, ReadMode::CacheOnly).unwrap(), Scan::Done(outcome) if outcome.complete)
        })
        .count();
    assert!(answered > 450, "the filter answers {answered} of 500");
}
