//! Space: the budget, garbage collection, recycled segments, a full log, many restarts.

#![allow(clippy::unwrap_used)]

mod log_support;

use std::path::Path;

use log_support::*;
use pegasus_engine::log::{Log, LogError, LogOptions, LogSequence, RecoveryScope, recover};
use pegasus_wire::{Decree, Durability};

fn directory_bytes(directory: &Path) -> u64 {
    Image::load(directory).segments.values().map(|bytes| bytes.len() as u64).sum()
}

/// Appends until the log is full; returns the highest decree taken.
async fn fill(running: &Running, index: u32, from: u64) -> u64 {
    for decree in from.. {
        let record = mutation(index, 1, decree, payload(index, decree, 20_000));
        match running.log.append(record, Durability::Written).map_err(|refused| refused.error) {
            Ok(sequence) => {
                running.log.submit();
                running.written(sequence).await;
            }
            Err(LogError::Full { used_bytes, budget_bytes }) => {
                assert!(used_bytes <= budget_bytes, "{used_bytes} {budget_bytes}");
                return decree - 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("a log is full at some time")
}

/// Every segment prepared, so that full means full.
fn prepared(directory: &Path) -> LogOptions {
    LogOptions { spare_segments: 8, ..options(directory) }
}

#[test]
fn a_full_log_refuses_and_goes_on_once_flushed() {
    let directory = disk_directory();
    on_executor(async {
        let running = Running::open(&prepared(directory.path()), &scope(2)).await;
        assert_eq!(running.log.pressure(), []);
        let sequence = running.append(mutation(1, 1, 1, vec![1; 100]), Durability::Synced);
        running.log.submit();
        running.synced(sequence).await;
        let last = fill(&running, 0, 1).await;
        assert!(last * 20_000 > 5 * SEGMENT_BYTES, "{last} records fit");
        assert_eq!(running.log.statistics().refused_full, 1);
        assert_eq!(running.log.pressure(), [partition(0), partition(1)]);
        running.log.set_flushed(partition(0), Decree(last));
        assert_eq!(running.log.pressure(), [partition(1)], "the other one still holds the oldest segment");
        assert!(running.log.append(mutation(0, 1, last + 1, vec![0; 20_000]), Durability::Synced).is_err());
        running.log.set_flushed(partition(1), Decree(1));
        assert_eq!(running.log.pressure(), []);
        // The freed segments need one synced header before they count; the writer sees to that by itself.
        let before = running.progress.get().synced;
        running.synced(LogSequence(before.0.max(last))).await;
        let again = fill(&running, 0, last + 1).await;
        assert!(again - last > last / 2, "{again} after {last}");
        running.close().await;
    });
    assert_eq!(directory_bytes(directory.path()), 8 * SEGMENT_BYTES);
}

/// Appends a record that must be refused; what comes back is the very record, and its payload was not copied.
fn refused(log: &Log, decree: u64, bytes: usize) -> LogError {
    let record = mutation(0, 1, decree, payload(0, decree, bytes));
    let given = record.clone();
    let refused = log.append(record, Durability::Synced).expect_err("there is no room");
    assert_eq!(refused.record, given);
    assert_eq!(refused.record.payload.as_ptr(), given.payload.as_ptr());
    refused.error
}

#[test]
fn a_refused_record_comes_back_whole() {
    let directory = disk_directory();
    on_executor(async {
        let running = Running::open(&prepared(directory.path()), &scope(1)).await;
        assert!(matches!(refused(&running.log, 1, 64 * 1024), LogError::TooLarge { .. }));
        let last = fill(&running, 0, 1).await;
        let appended = running.log.statistics().appended;
        assert!(matches!(refused(&running.log, last + 1, 20_000), LogError::Full { .. }));
        let log = running.log.clone();
        running.close().await;
        assert!(matches!(refused(&log, last + 1, 10), LogError::Closed { .. }));
        assert_eq!(log.statistics().appended, appended, "nothing that was refused counts as appended");
    });
}

#[test]
fn recycled_segments_bring_nothing_back() {
    let directory = disk_directory();
    let options = options(directory.path());
    let mut scope = scope(3);
    let mut last = 0;
    for life in 0..4 {
        on_executor(async {
            let running = Running::open(&options, &scope).await;
            for _ in 0..120 {
                last += 1;
                let mut sequence = LogSequence(0);
                for index in 0..3 {
                    let record = mutation(index, 1, last, payload(index, last, 5_000));
                    sequence = running.append(record, Durability::Synced);
                }
                running.log.submit();
                running.synced(sequence).await;
                for (index, behind) in [(0, 1), (1, 5), (2, 20)] {
                    running.log.set_flushed(partition(index), Decree(last.saturating_sub(behind)));
                }
            }
            let statistics = running.log.statistics();
            assert!(statistics.segments_live <= 4, "{} segments hold the last records", statistics.segments_live);
            assert!(
                running.log.read(partition(2), Decree(last - 15), Decree(last), 1 << 20).await.unwrap().len() == 16
            );
            let recycled = running.log.read(partition(2), Decree(last - 100), Decree(last), 1 << 20).await;
            assert!(matches!(recycled, Err(LogError::NotInLog { .. })), "{recycled:?}");
            running.close().await;
        });
        for (index, behind) in [(0, 1), (1, 5), (2, 20)] {
            scope.get_mut(&partition(index)).unwrap().flushed = Decree(last - behind);
        }
        let recovery = recover(&options, &scope).unwrap();
        assert_eq!((recovery.damage.len(), recovery.cut_writes), (0, 0), "life {life}");
        for (index, behind) in [(0, 1), (1, 5), (2, 20)] {
            assert_eq!(decrees(&recovery, index), ((last - behind + 1)..=last).collect::<Vec<_>>(), "life {life}");
        }
        // What the segments still hold of earlier times is not even looked at.
        assert!(recovery.writes < 300, "{} writes were read in life {life}", recovery.writes);
        assert!(directory_bytes(directory.path()) <= options.budget_bytes);
    }
}

#[test]
fn void_and_forgotten_records_hold_nothing() {
    let directory = disk_directory();
    on_executor(async {
        let running = Running::open(&prepared(directory.path()), &scope(3)).await;
        running.append(mutation(0, 1, 1, vec![1; 10]), Durability::Synced);
        running.append(mutation(0, 1, 2, vec![1; 10]), Durability::Synced);
        running.append(mutation(1, 1, 1, vec![1; 10]), Durability::Synced);
        let last = fill(&running, 2, 1).await;
        running.log.set_flushed(partition(2), Decree(last));
        assert_eq!(running.log.pressure(), [partition(0), partition(1)]);
        running.log.forget(partition(1));
        running.log.set_flushed(partition(0), Decree(1));
        assert_eq!(running.log.pressure(), [partition(0)]);
        running.log.forget(partition(2));
        running.log.forget(partition(0));
        assert_eq!(running.log.pressure(), []);
        running.close().await;
    });
    on_executor(async {
        let running = Running::open(&prepared(directory.path()), &RecoveryScope::new()).await;
        assert_eq!(running.log.statistics().index_entries, 0, "copies out of scope are not indexed");
        running.append(mutation(0, 1, 1, vec![1; 10]), Durability::Synced);
        running.append(mutation(0, 1, 2, vec![1; 10]), Durability::Synced);
        let sequence = running.append(truncate(0, 2, 2), Durability::Synced);
        running.log.submit();
        running.synced(sequence).await;
        // Decree 2 will never be flushed: it was not committed, and the partition stays idle.
        running.log.set_flushed(partition(0), Decree(1));
        let last = fill(&running, 2, 1).await;
        assert_eq!(running.log.pressure(), [partition(2)], "a void record pins nothing");
        running.log.set_flushed(partition(2), Decree(last));
        running.close().await;
    });
}

#[test]
fn many_restarts_with_everything_in_use() {
    let directory = disk_directory();
    let options = options(directory.path());
    let mut decree = 0;
    for life in 0..12_u64 {
        on_executor(async {
            let running = Running::open(&options, &scope(1)).await;
            decree += 1;
            // Every life begins a segment of its own; that it may exceed the budget does not stop a start.
            let sequence = running.append(mutation(0, 1, decree, vec![life as u8; 1000]), Durability::Synced);
            running.log.submit();
            running.synced(sequence).await;
            if life >= 6 {
                assert_eq!(running.log.pressure(), [partition(0)]);
            }
            running.close().await;
        });
        let recovery = recover(&options, &scope(1)).unwrap();
        assert_eq!(decrees(&recovery, 0), (1..=decree).collect::<Vec<_>>());
    }
    // Once flushed, the next start goes back to the budget.
    let mut scope = scope(1);
    scope.get_mut(&partition(0)).unwrap().flushed = Decree(decree);
    for _ in 0..2 {
        on_executor(async {
            let running = Running::open(&options, &scope).await;
            decree += 1;
            let sequence = running.append(mutation(0, 1, decree, vec![1]), Durability::Synced);
            running.log.submit();
            running.synced(sequence).await;
            running.log.set_flushed(partition(0), Decree(decree));
            scope.get_mut(&partition(0)).unwrap().flushed = Decree(decree);
            running.close().await;
        });
    }
    on_executor(async { Running::open(&options, &scope).await.close().await });
    assert!(directory_bytes(directory.path()) <= options.budget_bytes, "{}", directory_bytes(directory.path()));
    assert!(decrees(&recover(&options, &scope).unwrap(), 0).is_empty());
}

#[test]
fn another_segment_size_takes_over() {
    let directory = disk_directory();
    let small = LogOptions { budget_bytes: 24 * SEGMENT_BYTES, spare_segments: 6, ..options(directory.path()) };
    let large = LogOptions { segment_bytes: 2 * SEGMENT_BYTES, ..small.clone() };
    let mut scope = scope(1);
    let mut decree = 0;
    for options in [&small, &large, &small, &large] {
        on_executor(async {
            let running = Running::open(options, &scope).await;
            for _ in 0..10 {
                decree += 1;
                let record = mutation(0, 1, decree, payload(0, decree, 40_000));
                let sequence = running.append(record, Durability::Synced);
                running.log.submit();
                running.synced(sequence).await;
            }
            running.close().await;
        });
        let recovery = recover(options, &scope).unwrap();
        assert_eq!(recovery.damage, []);
        let flushed = scope[&partition(0)].flushed.0;
        assert_eq!(decrees(&recovery, 0), (flushed + 1..=decree).collect::<Vec<_>>());
        scope.get_mut(&partition(0)).unwrap().flushed = Decree(decree - 15_u64.min(decree));
    }
}

#[test]
fn the_budget_is_allocated_in_the_background() {
    let directory = disk_directory();
    let options = options(directory.path());
    on_executor(async {
        let running = Running::open(&options, &scope(1)).await;
        assert!(running.log.statistics().segments_free >= 2);
        for decree in 1.. {
            let sequence = running.append(mutation(0, 1, decree, vec![1; 100]), Durability::Synced);
            running.log.submit();
            running.synced(sequence).await;
            running.log.set_flushed(partition(0), Decree(decree));
            let statistics = running.log.statistics();
            assert_eq!(statistics.preparation_failed, None);
            if statistics.segments_blank == 0 && statistics.segments_live + statistics.segments_free == 8 {
                break;
            }
            assert!(decree < 100_000, "{statistics:?}");
        }
        running.close().await;
    });
    assert_eq!(directory_bytes(directory.path()), options.budget_bytes);
}

#[test]
fn a_disk_that_fills_up_ends_the_preparation_only() {
    let directory = disk_directory();
    let options = options(directory.path());
    on_executor(async {
        let recorder = Recorder::default();
        let recovery = recover(&options, &scope(1)).unwrap();
        let hook = recorder.hook(directory.path());
        let log = pegasus_engine::log::Log::open_with_hook(options, recovery, Some(hook)).await.unwrap();
        recorder.fail_next(false, pegasus_engine::log::LogFault::Fail(28));
        let running = Running::start(log, None);
        let statistics = running.log.statistics();
        assert!(statistics.preparation_failed.is_some(), "{statistics:?}");
        let sequence = running.append(mutation(0, 1, 1, vec![1; 100]), Durability::Synced);
        running.log.submit();
        running.synced(sequence).await;
        running.close().await;
    });
}
