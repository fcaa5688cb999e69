//! Scans in every form over one table whose rows are in memory, in files of several levels, deleted and expired.

use std::sync::OnceLock;

use pegasus_engine::table::{ReadMode, Scan, ScanRequest, Table};
use pegasus_wire::key::encode;
use pegasus_wire::messages::data::{FilterKind, RowOperation, SortKeys};
use proptest::prelude::*;

use crate::query::*;
use crate::support::*;

const EXPIRES: u32 = 1000;

/// A table, what is in it, and where it is.
struct Fixture {
    table: Table,
    rows: Rows,
    _root: tempfile::TempDir,
}

/// Made once: every test only reads it.
fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        let table = create(root.path());
        let mut rows = Rows::new();
        let mut decree = 0;
        // Three generations: one in the last level, one in level 0, one in memory. Each overwrites and deletes some.
        for generation in 0..3u8 {
            for (number, hash_key) in hash_keys().into_iter().enumerate() {
                decree += 1;
                let operations = generation_of(number, generation);
                apply(&table, &[mutation(decree, payload(PARTITION, &hash_key, &operations))]);
                change(&mut rows, &hash_key, &operations);
            }
            match generation {
                0 => {
                    table.flush().unwrap();
                    compact(&table);
                }
                1 => drop(table.flush().unwrap()),
                _ => {}
            }
        }
        Fixture { table, rows, _root: root }
    })
}

fn generation_of(number: usize, generation: u8) -> Vec<RowOperation<'static>> {
    static SORT_KEYS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let sort_keys = SORT_KEYS.get_or_init(sort_keys);
    let mut operations = Vec::new();
    if generation > 0 && number.is_multiple_of(3) {
        let range =
            SortKeys { start: b"aa", stop: b"ba", start_inclusive: false, stop_inclusive: number.is_multiple_of(2) };
        operations.push(RowOperation::DeleteRange { range });
    }
    for (index, sort_key) in sort_keys.iter().enumerate() {
        let dice = (number * 31 + index * 17 + usize::from(generation) * 7) % 10;
        let value: &[u8] = if index.is_multiple_of(2) { b"a value" } else { b"" };
        match (generation, dice) {
            (0, 0..=7) | (_, 0..=2) => {
                let expiry_seconds = if dice == 1 { EXPIRES } else { 0 };
                operations.push(RowOperation::Put { sort_key, value, expiry_seconds });
            }
            (_, 8) => operations.push(RowOperation::Delete { sort_key }),
            _ => {}
        }
    }
    operations
}

fn change(rows: &mut Rows, hash_key: &[u8], operations: &[RowOperation<'_>]) {
    for operation in operations {
        match operation {
            RowOperation::Put { sort_key, value, expiry_seconds } => {
                rows.insert(encode(hash_key, sort_key), (value.to_vec(), *expiry_seconds));
            }
            RowOperation::Delete { sort_key } => drop(rows.remove(&encode(hash_key, sort_key))),
            RowOperation::DeleteRange { range } => delete_range(rows, hash_key, range),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_scan_finds_what_it_asked_for(query in query(), slice in 1usize..30, late in any::<bool>()) {
        let Fixture { table, rows, .. } = fixture();
        let now = if late { EXPIRES } else { EXPIRES - 1 };
        query.check(table, rows, now, slice);
        query.check(&table.snapshot(), rows, now, slice);
    }
}

#[test]
fn the_fixture_has_rows_of_every_kind() {
    let Fixture { table, rows, .. } = fixture();
    assert!(rows.len() > 100, "{}", rows.len());
    let statistics = table.statistics();
    assert!(statistics.level0_files > 0 && statistics.file_bytes > 0 && statistics.write_buffer_bytes > 0);
    let expired = rows.values().filter(|(_, expiry)| *expiry == EXPIRES).count();
    assert!(expired > 5 && expired < rows.len() / 2, "{expired}");
}

#[test]
fn what_cannot_match_is_jumped_over() {
    // One table of its own: others count too.
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    let mut decree = 0;
    for hash_key in [&b"a"[..], b"b", b"ab", b"bb", b"abc"] {
        for sort_key in 0..=255u8 {
            decree += 1;
            apply(&table, &[put(decree, hash_key, &[sort_key], b"v", 0)]);
        }
    }
    let looked_at = |query: &Query, found: u64| {
        let before = table.statistics().scanned_rows;
        assert_eq!(scan(&table, &query.request(0)).count, found, "{query:?}");
        table.statistics().scanned_rows - before
    };
    for reverse in [false, true] {
        let all = Query { reverse, ..Query::everything() };
        assert_eq!(looked_at(&all, 1280), 1280);
        let few_sort_keys = Query { sort_keys: (vec![100], true, vec![102], true), ..all.clone() };
        assert!(looked_at(&few_sort_keys, 15) < 15 + 5 * 12);
        let prefix = Query { hash_key_filter: (FilterKind::Prefix, b"b".to_vec()), ..all.clone() };
        assert!(looked_at(&prefix, 512) < 512 + 4 * 6);
        let one = Query { hash_key_filter: (FilterKind::Exact, b"ab".to_vec()), ..all.clone() };
        assert_eq!(looked_at(&one, 256), 256);
        let no_hash_key = Query { hash_key_filter: (FilterKind::Anywhere, b"x".to_vec()), ..all.clone() };
        assert!(looked_at(&no_hash_key, 0) < 5 * 6);
        let one_sort_key = Query { sort_key_filter: (FilterKind::Exact, vec![7]), ..all.clone() };
        assert!(looked_at(&one_sort_key, 5) < 5 * 12);
    }
}

#[test]
fn what_is_behind_an_exact_sort_key_is_jumped_over() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    let sort_keys = std::iter::once(vec![7]).chain((0..100).map(|last| vec![7, last]));
    let batch: Vec<_> = (1..).zip(sort_keys).map(|(decree, sort_key)| put(decree, b"a", &sort_key, b"v", 0)).collect();
    apply(&table, &batch);
    for (reverse, looked_at_max) in [(false, 6), (true, 12)] {
        let exact = Query { sort_key_filter: (FilterKind::Exact, vec![7]), reverse, ..Query::everything() };
        let before = table.statistics().scanned_rows;
        assert_eq!(scan(&table, &exact.request(0)).count, 1);
        let looked_at = table.statistics().scanned_rows - before;
        assert!(looked_at <= looked_at_max, "{looked_at} rows, reverse {reverse}");
    }
}

#[test]
fn a_time_that_has_come_stops_a_scan_that_has_moved_on() {
    let table = &fixture().table;
    let now = std::time::Instant::now();
    let late = ScanRequest { until: Some(now), ..everything(0) };
    for reverse in [false, true] {
        let outcome = scan(table, &ScanRequest { reverse, ..late });
        assert_eq!((outcome.rows.len(), outcome.complete), (1, false), "one row is always looked at");
        let count = scan(table, &ScanRequest { reverse, count_only: true, ..late });
        assert_eq!((count.count, count.complete), (1, false));
    }
    let in_time = ScanRequest { until: Some(now + std::time::Duration::from_secs(3600)), ..everything(0) };
    assert!(scan(table, &in_time).complete);
}

#[test]
fn nothing_wanted_is_a_complete_answer_without_a_look() {
    let nothing = [
        Query { sort_keys: (b"b".to_vec(), true, b"a".to_vec(), true), ..Query::everything() },
        Query { sort_keys: (b"b".to_vec(), true, b"b".to_vec(), false), ..Query::everything() },
        Query { start: encode(b"b", b""), stop: encode(b"a", b""), ..Query::everything() },
        Query { hash_key_filter: (FilterKind::Prefix, vec![1; 1025]), ..Query::everything() },
        Query {
            sort_keys: (b"b".to_vec(), true, vec![], true),
            sort_key_filter: (FilterKind::Prefix, b"a".to_vec()),
            ..Query::everything()
        },
    ];
    for query in nothing {
        for reverse in [false, true] {
            let query = Query { reverse, ..query.clone() };
            let outcome = scan(&fixture().table, &query.request(0));
            assert_eq!((outcome.count, outcome.complete, outcome.resume_after.len()), (0, true, 0), "{query:?}");
        }
    }
}

#[test]
fn the_filters_of_files_are_asked_in_both_directions() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    let batch: Vec<_> = (0..500u64).map(|row| put(row + 1, &(row * 2).to_be_bytes(), b"s", &[7; 200], 0)).collect();
    apply(&table, &batch);
    table.flush().unwrap();
    drop(table);
    let table = reopen(root.path());
    let absent = |row: u64, reverse| Query {
        reverse,
        hash_key_filter: (FilterKind::Exact, (row * 2 + 1).to_be_bytes().to_vec()),
        ..Query::everything()
    };
    for reverse in [false, true] {
        let answered = (0..500u64).filter(|row| {
            let query = absent(*row, reverse);
            let outcome = table.scan(&query.request(0), ReadMode::CacheOnly).unwrap();
            matches!(outcome, Scan::Done(outcome) if outcome.complete)
        });
        assert!(answered.count() > 450, "of 500, reverse {reverse}");
    }
}

#[test]
fn a_serving_core_does_not_walk_over_a_great_many_deleted_rows() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    let batch: Vec<_> = (0..3000u64).map(|row| put(row + 1, b"h", &row.to_be_bytes(), b"v", 0)).collect();
    apply(&table, &batch);
    let batch: Vec<_> = (0..2999u64).map(|row| delete(row + 3001, b"h", &row.to_be_bytes())).collect();
    apply(&table, &batch);
    for reverse in [false, true] {
        let request = ScanRequest { reverse, ..everything(0) };
        assert!(matches!(table.scan(&request, ReadMode::CacheOnly).unwrap(), Scan::WouldBlock));
        assert_eq!(scan(&table, &request).count, 1);
    }
}
