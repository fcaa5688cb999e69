//! Point reads: tiers, the engine's own keys, values.

use std::path::Path;

use pegasus_engine::table::{Lookup, ReadMode, Table};
use pegasus_wire::key::encode;

use crate::support::*;

const ROWS: u64 = 500;

fn value_of(row: u64) -> Vec<u8> {
    (0..1000u64).map(|index| (index * 131 + row * 17) as u8).collect()
}

fn fill(directory: &Path) -> Table {
    let table = create(directory);
    let batch: Vec<_> = (1..=ROWS).map(|row| put(row, b"h", &row.to_be_bytes(), &value_of(row), 0)).collect();
    apply(&table, &batch);
    table.flush().unwrap();
    table
}

fn cached<'a>(table: &'a Table, row: u64) -> Lookup<'a> {
    table.read_row(&encode(b"h", &row.to_be_bytes()), 0, ReadMode::CacheOnly).unwrap()
}

#[test]
fn a_cold_block_would_block_until_a_blocking_read_has_fetched_it() {
    let root = tempfile::tempdir().unwrap();
    drop(fill(root.path()));
    let table = reopen(root.path());
    assert!(matches!(cached(&table, 250), Lookup::WouldBlock));
    assert_eq!(table.statistics().reads_would_block, 1);
    let fetched = table.read_row(&encode(b"h", &250u64.to_be_bytes()), 0, ReadMode::Blocking).unwrap();
    assert!(matches!(fetched, Lookup::Found { value, .. } if *value == value_of(250)));
    assert!(matches!(cached(&table, 250), Lookup::Found { value, .. } if *value == value_of(250)));
    assert!(matches!(cached(&table, 10), Lookup::WouldBlock), "another block is still cold");
}

#[test]
fn what_was_just_flushed_is_still_in_memory() {
    let root = tempfile::tempdir().unwrap();
    let table = fill(root.path());
    assert!(table.statistics().write_buffer_bytes < 100_000, "the rows are in a file");
    for row in 1..=ROWS {
        assert!(matches!(cached(&table, row), Lookup::Found { value, .. } if *value == value_of(row)), "{row}");
    }
}

#[test]
fn absent_rows_rarely_need_a_block() {
    let root = tempfile::tempdir().unwrap();
    drop(fill(root.path()));
    let table = reopen(root.path());
    let answered = (0..1000u64)
        .filter(|row| {
            let key = encode(b"h", &[&row.to_be_bytes()[..], b"absent"].concat());
            matches!(table.read_row(&key, 0, ReadMode::CacheOnly).unwrap(), Lookup::Missing)
        })
        .count();
    assert!(answered > 950, "the filter answers {answered} of 1000");
}

#[test]
fn an_owned_answer_outlives_the_table() {
    let root = tempfile::tempdir().unwrap();
    let table = fill(root.path());
    let owned = cached(&table, 7).into_owned();
    drop(table);
    let Lookup::Found { value, expiry_seconds: 0 } = owned else { panic!("{owned:?}") };
    let mut out = b"head".to_vec();
    out.extend_from_slice(&value);
    assert_eq!(out[4..], value_of(7));
    assert_eq!(value.into_vec(), value_of(7));
}

#[test]
fn the_engines_own_keys_are_invisible() {
    let root = tempfile::tempdir().unwrap();
    let table = fill(root.path());
    for key in [&b"\xFF\xFFd"[..], b"\xFF\xFF", b"\xFF\xFF\xFF"] {
        for mode in [ReadMode::CacheOnly, ReadMode::Blocking] {
            assert!(matches!(table.read_row(key, 0, mode).unwrap(), Lookup::Missing), "{key:?}");
        }
    }
}

#[test]
fn other_threads_read_the_same_handle() {
    let root = tempfile::tempdir().unwrap();
    let table = fill(root.path());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let table = table.clone();
            std::thread::spawn(move || {
                for row in 1..=ROWS {
                    assert!(matches!(cached(&table, row), Lookup::Found { value, .. } if *value == value_of(row)));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(table.statistics().reads, 4 * ROWS);
}
