//! Applying: stalls, order, what is no mutation, batches.

use std::sync::mpsc;

use bytes::Bytes;
use pegasus_engine::table::{
    ApplyMode, ApplyOutcome, Lookup, OpenMode, ReadMode, SharedOptions, Table, TableError, TableShared,
};
use pegasus_wire::key::encode;
use pegasus_wire::messages::data::RowOperation;
use pegasus_wire::{Decree, Mutation, PartitionId};

use crate::support::*;

/// Buffers of 64 KiB, two of them, and a disk that takes 100 KB a second: writes stall soon and for a while.
fn stalling_options() -> SharedOptions {
    SharedOptions {
        write_buffer_bytes: 64 << 10,
        write_buffer_count: 2,
        write_rate_bytes_per_second: 100_000,
        ..small_options()
    }
}

fn filler(decree: u64) -> Mutation {
    let value: Vec<u8> = (0..8000u64).map(|index| (index * 31 + decree * 7) as u8).collect();
    put(decree, b"h", &decree.to_be_bytes(), &value, 0)
}

#[test]
fn a_stall_is_reported_and_the_same_batch_succeeds_in_a_pool() {
    let root = tempfile::tempdir().unwrap();
    let shared = TableShared::new(stalling_options()).unwrap();
    let table = Table::open(&root.path().join("rdb"), &shared, PARTITION, OpenMode::CreateIfMissing).unwrap();
    let refused = (1..1000).find(|&decree| {
        let outcome = table.apply(&[filler(decree)], ApplyMode::NoSlowdown).unwrap();
        outcome == ApplyOutcome::WouldStall
    });
    let refused = refused.expect("two small buffers and a slow disk stall the writer");
    assert_eq!(table.applied(), Decree(refused - 1), "nothing of the batch was applied");
    assert_eq!(get(&table, b"h", &refused.to_be_bytes(), 0), None);
    assert_eq!(table.statistics().would_stall, 1);

    let (report, done) = mpsc::channel();
    let (in_pool, batch) = (table.clone(), [filler(refused), filler(refused + 1)]);
    std::thread::spawn(move || report.send(in_pool.apply(&batch, ApplyMode::Blocking).unwrap()).unwrap());
    assert_eq!(done.recv().unwrap(), ApplyOutcome::Applied);
    assert_eq!(table.applied(), Decree(refused + 1));
    let outcome = scan(&table, &everything(0));
    let found: Vec<_> = outcome.rows.iter().map(|row| (row.key.to_vec(), row.value.to_vec())).collect();
    let expected: Vec<_> = (1..=refused + 1)
        .map(|decree| {
            let value: Vec<u8> = (0..8000u64).map(|index| (index * 31 + decree * 7) as u8).collect();
            (encode(b"h", &decree.to_be_bytes()), value)
        })
        .collect();
    assert!(found == expected, "every row is there once, as written");
}

#[test]
fn writing_over_the_memory_budget_flushes_instead_of_waiting() {
    let root = tempfile::tempdir().unwrap();
    let options =
        SharedOptions { write_buffer_bytes: 256 << 10, write_buffer_bytes_total: 256 << 10, ..small_options() };
    let shared = TableShared::new(options).unwrap();
    let table = Table::open(&root.path().join("rdb"), &shared, PARTITION, OpenMode::CreateIfMissing).unwrap();
    assert!(shared.memory_pressure().is_none());
    let mut decree = 0;
    while shared.memory_pressure().is_none() {
        decree += 1;
        apply(&table, &[filler(decree)]);
        assert!(decree < 1000, "the budget is small");
    }
    let fullest = shared.memory_pressure().unwrap();
    assert_eq!(fullest.partition(), PARTITION);
    assert_eq!(fullest.flush().unwrap(), Decree(decree));
    assert_eq!(shared.statistics().tables, 1);
    drop((table, fullest));
    assert_eq!(shared.statistics().tables, 0);
}

#[test]
fn a_batch_of_many_mutations_is_one_step() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    let operations = [
        RowOperation::Put { sort_key: b"1", value: b"first", expiry_seconds: 0 },
        RowOperation::Put { sort_key: b"1", value: b"second", expiry_seconds: 77 },
        RowOperation::Delete { sort_key: b"2" },
    ];
    let batch = [
        put(1, b"h", b"2", b"gone", 0),
        mutation(2, payload(PARTITION, b"h", &operations)),
        empty(3),
        put(4, b"other", b"", b"", 0),
    ];
    assert_eq!(table.apply(&batch, ApplyMode::NoSlowdown).unwrap(), ApplyOutcome::Applied);
    assert_eq!((table.applied(), table.last_timestamp_micros()), (Decree(4), 1_000_004));
    match table.read_row(&encode(b"h", b"1"), 0, ReadMode::CacheOnly).unwrap() {
        Lookup::Found { value, expiry_seconds } => assert_eq!((&*value, expiry_seconds), (&b"second"[..], 77)),
        other => panic!("{other:?}"),
    }
    assert_eq!(get(&table, b"h", b"2", 0), None);
    assert_eq!(get(&table, b"other", b"", 0).unwrap(), b"");
    let statistics = table.statistics();
    assert_eq!((statistics.batches, statistics.mutations, statistics.rows_written), (1, 4, 5));
}

#[test]
fn what_is_no_write_of_this_partition_stops_the_copy_and_applies_nothing() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    let good = put(1, b"h", b"1", b"one", 0);
    let truncated = good.payload.slice(..good.payload.len() - 1);
    let foreign = payload(PartitionId::new(1, 4), b"h", &[RowOperation::Delete { sort_key: b"" }]);
    let long_key = payload(PARTITION, &[7; 1025], &[RowOperation::Delete { sort_key: b"" }]);
    for bad in [Bytes::new(), Bytes::from_static(b"garbage"), truncated, foreign, long_key] {
        let error = table.apply(&[good.clone(), mutation(2, bad)], ApplyMode::NoSlowdown).unwrap_err();
        assert!(matches!(error, TableError::Corrupt { decree: Decree(2), .. }) && error.is_damage(), "{error}");
        assert_eq!(table.applied(), Decree(0));
        assert_eq!(get(&table, b"h", b"1", 0), None, "not even the good one of the same batch");
    }
    apply(&table, &[good]);
}

#[test]
#[should_panic(expected = "in decree order")]
fn a_gap_is_a_bug_of_the_caller() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    let _ = table.apply(&[empty(2)], ApplyMode::Blocking);
}

#[test]
#[should_panic(expected = "in decree order")]
fn a_repetition_is_a_bug_of_the_caller() {
    let root = tempfile::tempdir().unwrap();
    let table = create(root.path());
    let _ = table.apply(&[empty(1), empty(1)], ApplyMode::Blocking);
}
