//! What learners need of the log: reading back in large steps, pins, and copies that replace each other.

#![allow(clippy::unwrap_used)]

mod log_support;

use std::path::Path;

use log_support::*;
use pegasus_engine::log::{LogError, LogOptions, LogRecord, RecoveryCopy, recover};
use pegasus_wire::{Decree, Durability, ReplicaIncarnation};

const NEXT: ReplicaIncarnation = ReplicaIncarnation(8);

/// Every segment prepared, so that what is live is what is needed.
fn prepared(directory: &Path) -> LogOptions {
    LogOptions { spare_segments: 8, ..options(directory) }
}

fn of(incarnation: ReplicaIncarnation, record: LogRecord) -> LogRecord {
    LogRecord { incarnation, ..record }
}

async fn append_all(running: &Running, records: impl IntoIterator<Item = LogRecord>) {
    let mut last = None;
    for record in records {
        last = Some(running.append(record, Durability::Synced));
    }
    running.log.submit();
    if let Some(last) = last {
        running.synced(last).await;
    }
}

/// One log write for each record.
async fn append_each(running: &Running, records: impl IntoIterator<Item = LogRecord>) {
    for record in records {
        append_all(running, [record]).await;
    }
}

#[test]
fn a_learner_reads_everything_in_large_steps() {
    let directory = disk_directory();
    let options = LogOptions { budget_bytes: 32 * SEGMENT_BYTES, spare_segments: 16, ..options(directory.path()) };
    let bytes = |decree: u64| [40, 700, 5000, 20_000][decree as usize % 4];
    let record = |index: u32, decree: u64| mutation(index, 1, decree, payload(index, decree, bytes(decree)));
    on_executor(async {
        let running = Running::open(&options, &scope(3)).await;
        // Writes of one partition, then writes that hold all of them, then more of the others than of the first.
        append_each(&running, (1..=60).map(|decree| record(0, decree))).await;
        for decree in 61..=120 {
            append_all(&running, (0..3).map(|index| record(index, decree))).await;
        }
        for decree in 121..=140 {
            append_all(&running, [record(1, decree)]).await;
            append_all(&running, [record(2, decree)]).await;
            append_all(&running, [record(0, decree)]).await;
        }
        let before = running.log.statistics();
        for (index, first) in [(0, 1), (1, 61), (2, 61)] {
            let mut next = first;
            let mut steps = 0;
            while next <= 140 {
                let read = running.log.read(partition(index), Decree(next), Decree(140), 200_000).await.unwrap();
                let taken: usize = read.iter().map(|record| record.payload.len()).sum();
                assert!(taken >= 200_000 || read.last().unwrap().decree == Decree(140), "{taken} at {next}");
                assert!(taken < 200_000 + 20_000, "{taken} are more than one record too many");
                for found in read {
                    assert!(found == record(index, next), "decree {next} of partition {index}");
                    next += 1;
                }
                steps += 1;
            }
            assert!(steps <= 6, "{steps}");
        }
        let after = running.log.statistics();
        let written = after.written_bytes;
        let read = after.read_bytes - before.read_bytes;
        assert!(read > 0 && read < 4 * written, "{read} read of {written} written, for three learners");
        // A short read does not read ahead of itself.
        running.log.read(partition(0), Decree(1), Decree(140), 1).await.unwrap();
        assert_eq!(running.log.statistics().read_bytes - after.read_bytes, BLOCK as u64);
        running.close().await;
    });
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let directory = disk_directory();
    on_executor(async {
        let running = Running::open(&prepared(directory.path()), &scope(2)).await;
        let log = running.log.clone();
        let missing = |from: u64, through: u64| {
            let log = log.clone();
            async move {
                match log.read(partition(0), Decree(from), Decree(through), 1 << 20).await {
                    Err(LogError::NotInLog { decree, first_available, .. }) => {
                        assert_eq!(decree, Decree(from));
                        first_available.map(|decree| decree.0)
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        assert_eq!(missing(1, 5).await, None, "nothing was ever logged");
        append_each(&running, (1..=60).map(|decree| mutation(0, 1, decree, payload(0, decree, 20_000)))).await;
        assert_eq!(missing(61, 70).await, None, "not yet");
        log.set_flushed(partition(0), Decree(40));
        let first = missing(1, 60).await.unwrap();
        assert!((20..=41).contains(&first), "{first}");
        assert_eq!(missing(first - 1, 60).await, Some(first));
        let read = log.read(partition(0), Decree(first), Decree(60), 8 << 20).await.unwrap();
        assert_eq!(read.len() as u64, 61 - first);
        running.close().await;
    });
}

#[test]
fn a_pin_keeps_what_was_flushed_until_it_goes() {
    let directory = disk_directory();
    on_executor(async {
        let running = Running::open(&prepared(directory.path()), &scope(2)).await;
        let log = running.log.clone();
        // About 12 records fill a segment.
        append_each(&running, (1..=20).map(|decree| mutation(0, 1, decree, payload(0, decree, 20_000)))).await;
        let early = log.pin(partition(0), Decree(5));
        // To come: kept from the present segment on.
        let late = log.pin(partition(0), Decree(21));
        append_each(&running, (21..=40).map(|decree| mutation(0, 1, decree, payload(0, decree, 20_000)))).await;
        log.set_flushed(partition(0), Decree(40));
        let statistics = log.statistics();
        assert_eq!((statistics.pins, statistics.pins_broken), (2, 0));
        assert_eq!(statistics.pinned_bytes, 3 * SEGMENT_BYTES, "all but the present one");
        assert_eq!(log.read(partition(0), Decree(5), Decree(40), 8 << 20).await.unwrap().len(), 36);
        early.advance(Decree(30));
        assert!(!early.is_broken() && !late.is_broken());
        assert!(log.read(partition(0), Decree(5), Decree(40), 1).await.is_err());
        assert_eq!(log.read(partition(0), Decree(21), Decree(40), 8 << 20).await.unwrap().len(), 20);
        drop(late);
        assert!(log.read(partition(0), Decree(21), Decree(40), 1).await.is_err());
        assert_eq!(log.read(partition(0), Decree(30), Decree(40), 8 << 20).await.unwrap().len(), 11);
        let gone = log.pin(partition(0), Decree(5));
        assert!(gone.is_broken(), "it is gone already: {gone:?}");
        drop(early);
        let statistics = log.statistics();
        assert_eq!((statistics.pins, statistics.pins_broken, statistics.pinned_bytes), (0, 1, 0));
        assert_eq!(statistics.segments_live, 1);
        running.close().await;
    });
}

/// Appends with one pin at the beginning, while the owner flushes up to `behind` decrees ago, always or when the log
/// asks for it; gives the most that the pin kept.
async fn pinned_most(running: &Running, behind: u64, only_under_pressure: bool) -> u64 {
    let log = &running.log;
    append_each(running, [mutation(0, 1, 1, payload(0, 1, 20_000))]).await;
    let pin = log.pin(partition(0), Decree(1));
    let mut most = 0;
    for decree in 2..=400 {
        append_each(running, [mutation(0, 1, decree, payload(0, decree, 20_000))]).await;
        if !only_under_pressure || log.pressure() == [partition(0)] {
            log.set_flushed(partition(0), Decree(decree.saturating_sub(behind)));
        }
        if !pin.is_broken() {
            most = most.max(log.statistics().pinned_bytes);
            assert!(log.read(partition(0), Decree(1), Decree(decree), 1).await.is_ok(), "{decree}");
        }
    }
    pin.advance(Decree(400));
    assert!(pin.is_broken(), "a broken pin stays so");
    let statistics = log.statistics();
    assert_eq!((statistics.refused_full, statistics.pins, statistics.pins_broken), (0, 0, 1));
    most
}

#[test]
fn a_pin_is_broken_before_the_log_is_full() {
    for (behind, only_under_pressure, expected) in
        [(0, false, 4), (15, false, 4), (30, false, 3), (0, true, 0), (30, true, 0)]
    {
        let directory = disk_directory();
        on_executor(async {
            let running = Running::open(&prepared(directory.path()), &scope(2)).await;
            let most = pinned_most(&running, behind, only_under_pressure).await;
            assert_eq!(most, expected * SEGMENT_BYTES, "flushed {behind} behind, of 8 segments");
            running.close().await;
        });
    }
}

#[test]
fn a_pin_gives_way_before_an_append_is_refused() {
    let directory = disk_directory();
    on_executor(async {
        let running = Running::open(&prepared(directory.path()), &scope(2)).await;
        let log = running.log.clone();
        append_each(&running, [mutation(0, 1, 1, payload(0, 1, 20_000))]).await;
        let pin = log.pin(partition(0), Decree(1));
        append_each(&running, (2..=40).map(|decree| mutation(0, 1, decree, payload(0, decree, 20_000)))).await;
        log.set_flushed(partition(0), Decree(40));
        assert_eq!((log.statistics().pinned_bytes, pin.is_broken()), (3 * SEGMENT_BYTES, false));
        // Nobody flushes any more: what the pin keeps is the only room there is.
        let mut taken = 0;
        while let Ok(sequence) = log.append(mutation(1, 1, taken + 1, payload(1, taken, 20_000)), Durability::Synced) {
            log.submit();
            running.synced(sequence).await;
            taken += 1;
        }
        assert!(pin.is_broken());
        assert!(taken > 6 * 10, "{taken} records, of which more than 10 fill a segment");
        running.close().await;
    });
}

#[test]
fn a_pin_of_a_forgotten_partition_is_broken() {
    let directory = disk_directory();
    on_executor(async {
        let running = Running::open(&prepared(directory.path()), &scope(2)).await;
        let log = running.log.clone();
        append_each(&running, [mutation(0, 1, 400, payload(0, 1, 20_000))]).await;
        let again = log.pin(partition(0), Decree(401));
        assert!(!again.is_broken());
        log.forget(partition(0));
        assert!(again.is_broken(), "what was pinned is of no copy any more");
        running.close().await;
    });
}

#[test]
fn a_pin_after_a_restart_knows_what_was_flushed() {
    let directory = disk_directory();
    let options = prepared(directory.path());
    on_executor(async {
        let running = Running::open(&options, &scope(1)).await;
        append_each(&running, (1..=5).map(|decree| mutation(0, 1, decree, vec![1; 100]))).await;
        running.close().await;
    });
    let mut flushed = scope(1);
    flushed.get_mut(&partition(0)).unwrap().flushed = Decree(5);
    on_executor(async {
        let running = Running::open(&options, &flushed).await;
        let (past, next) = (running.log.pin(partition(0), Decree(3)), running.log.pin(partition(0), Decree(6)));
        assert!(past.is_broken() && !next.is_broken());
        append_each(&running, (6..=8).map(|decree| mutation(0, 1, decree, vec![1; 100]))).await;
        running.log.set_flushed(partition(0), Decree(8));
        assert_eq!(running.log.read(partition(0), Decree(6), Decree(8), 1 << 20).await.unwrap().len(), 3);
        running.close().await;
        assert!(!next.is_broken());
    });
}

#[test]
fn a_replaced_copy_leaves_nothing_readable_and_holds_nothing() {
    let directory = disk_directory();
    let options = prepared(directory.path());
    let mut scope = scope(2);
    on_executor(async {
        let running = Running::open(&options, &scope).await;
        let log = running.log.clone();
        append_all(&running, (1..=24).map(|decree| mutation(0, 4, decree, payload(0, decree, 500)))).await;
        log.set_flushed(partition(0), Decree(24));
        // Records of the old copy that are on their way when it is replaced by one that is behind it. They end up in
        // the same log write as those of the new one, with a higher ballot.
        for decree in 25..=60 {
            running.append(mutation(0, 4, decree, payload(0, decree, 500)), Durability::Synced);
        }
        log.forget(partition(0));
        log.set_flushed(partition(0), Decree(19));
        let records = (20..=30).map(|decree| of(NEXT, mutation(0, 3, decree, payload(0, decree, 100))));
        append_all(&running, records).await;
        let read = log.read(partition(0), Decree(20), Decree(99), 1 << 20).await.unwrap();
        assert_eq!(read.iter().map(|record| record.decree.0).collect::<Vec<_>>(), (20..=30).collect::<Vec<_>>());
        assert!(read.iter().all(|record| record.incarnation == NEXT && record.payload.len() == 100));
        for (from, first) in [(1, Some(20)), (31, None), (51, None)] {
            let missing = log.read(partition(0), Decree(from), Decree(99), 1 << 20).await;
            let Err(LogError::NotInLog { first_available, .. }) = missing else { panic!("{missing:?}") };
            assert_eq!(first_available.map(|decree| decree.0), first);
        }
        // The new copy's records stay until the new copy has flushed them.
        append_each(&running, (1..=40).map(|decree| mutation(1, 1, decree, payload(1, decree, 20_000)))).await;
        log.set_flushed(partition(1), Decree(40));
        assert_eq!(log.read(partition(0), Decree(20), Decree(99), 1 << 20).await.unwrap().len(), 11);
        log.set_flushed(partition(0), Decree(30));
        assert_eq!(log.statistics().segments_live, 1, "and the old copy's hold nothing");
        running.close().await;
    });
    scope.insert(partition(0), RecoveryCopy { incarnation: NEXT, flushed: Decree(19) });
    let recovery = recover(&options, &scope).unwrap();
    let recovered = decrees(&recovery, 0);
    assert!(recovered.iter().all(|decree| (20..=30).contains(decree)), "{recovered:?}");
}

#[test]
fn what_is_on_its_way_when_a_copy_goes_is_not_kept() {
    let directory = disk_directory();
    on_executor(async {
        let running = Running::open(&prepared(directory.path()), &scope(2)).await;
        let log = running.log.clone();
        let mut last = None;
        for decree in 1..=10 {
            last = Some(running.append(mutation(0, 4, decree, vec![1; 100]), Durability::Synced));
        }
        log.forget(partition(0));
        log.submit();
        running.synced(last.unwrap()).await;
        assert!(log.read(partition(0), Decree(1), Decree(10), 1 << 20).await.is_err());
        append_each(&running, (1..=40).map(|decree| mutation(1, 1, decree, payload(1, decree, 20_000)))).await;
        log.set_flushed(partition(1), Decree(40));
        assert_eq!(log.statistics().segments_live, 1);
        running.close().await;
    });
}

#[test]
fn a_copy_that_was_replaced_without_a_word_holds_no_flushed_decree() {
    let directory = disk_directory();
    on_executor(async {
        let running = Running::open(&prepared(directory.path()), &scope(2)).await;
        let log = running.log.clone();
        append_all(&running, (1..=50).map(|decree| mutation(0, 4, decree, vec![1; 100]))).await;
        log.set_flushed(partition(0), Decree(50));
        append_all(&running, (20..=30).map(|decree| of(NEXT, mutation(0, 3, decree, vec![2; 100])))).await;
        append_each(&running, (1..=40).map(|decree| mutation(1, 1, decree, payload(1, decree, 20_000)))).await;
        log.set_flushed(partition(1), Decree(40));
        let read = log.read(partition(0), Decree(20), Decree(30), 1 << 20).await.unwrap();
        assert_eq!(read.len(), 11, "what the old copy had flushed is not taken for flushed");
        running.close().await;
    });
}
