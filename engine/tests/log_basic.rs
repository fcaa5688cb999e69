//! The log in normal use: round trips, group commit, watermarks, failures, reading back.

#![allow(clippy::unwrap_used)]

mod log_support;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use log_support::*;
use pegasus_engine::log::{
    Log, LogError, LogFault, LogHook, LogIo, LogOptions, LogRecord, LogSequence, RecoveryCopy, recover,
};
use pegasus_wire::{Decree, Durability, ReplicaIncarnation};

#[test]
fn what_is_appended_is_recovered() {
    let directory = disk_directory();
    let options = LogOptions { budget_bytes: 64 * SEGMENT_BYTES, spare_segments: 8, ..options(directory.path()) };
    let mut expected: Vec<Vec<LogRecord>> = vec![Vec::new(); 4];
    for life in 0..5_u64 {
        on_executor(async {
            let running = Running::open(&options, &scope(4)).await;
            let mut last = LogSequence(0);
            for step in 0..12_u64 {
                for (index, records) in expected.iter_mut().enumerate() {
                    let decree = life * 12 + step + 1;
                    let bytes = [0, 1, 4000, 30_000][(step as usize + index) % 4];
                    let record = mutation(index as u32, 1, decree, payload(index as u32, decree, bytes));
                    records.push(record.clone());
                    let durability = if index % 2 == 0 { Durability::Synced } else { Durability::Written };
                    last = running.append(record, durability);
                }
                running.log.submit();
                if step % 3 == 0 {
                    running.written(last).await;
                }
            }
            running.close().await;
        });
        let recovery = recover(&options, &scope(4)).unwrap();
        assert_eq!((recovery.damage.len(), recovery.cut_writes, recovery.boot_changed), (0, 0, false));
        for (index, records) in expected.iter().enumerate() {
            let recovered = &recovery.partitions[&partition(index as u32)];
            assert!(recovered.records == *records, "partition {index} in life {life}");
            assert_eq!(recovered.incarnation, INCARNATION);
            assert_eq!(recovered.committed, Decree(records.len() as u64 - 1));
            assert_eq!(recovered.contiguous_through(), Decree(records.len() as u64));
        }
    }
}

#[test]
fn records_of_other_copies_and_flushed_ones_are_left_out() {
    let directory = disk_directory();
    let options = options(directory.path());
    on_executor(async {
        let running = Running::open(&options, &scope(3)).await;
        for decree in 1..=9 {
            for index in 0..3 {
                running.append(mutation(index, 1, decree, vec![1; 10]), Durability::Synced);
            }
        }
        running.close().await;
    });
    let mut scope = scope(3);
    scope.remove(&partition(0));
    scope.insert(partition(1), RecoveryCopy { incarnation: ReplicaIncarnation(8), flushed: Decree(0) });
    scope.insert(partition(2), RecoveryCopy { incarnation: INCARNATION, flushed: Decree(6) });
    let recovery = recover(&options, &scope).unwrap();
    assert_eq!(recovery.partitions.len(), 1);
    assert_eq!(decrees(&recovery, 2), [7, 8, 9]);
    assert_eq!(recovery.partitions[&partition(2)].flushed, Decree(6));
}

/// A hook that appends, while the first log write is in flight, what `while_writing` says.
fn appending_hook(log: &Rc<RefCell<Option<Log>>>, records: u64) -> LogHook {
    let (log, done) = (Rc::clone(log), Cell::new(false));
    Rc::new(move |operation| {
        if let (LogIo::Write { .. }, Some(log)) = (operation, log.borrow().as_ref())
            && !done.replace(true)
        {
            for decree in 2..2 + records {
                log.append(mutation(0, 1, decree, vec![7; 100]), Durability::Synced).unwrap();
            }
            log.submit();
        }
        LogFault::None
    })
}

#[test]
fn what_gathers_during_a_write_is_the_next_write() {
    let directory = disk_directory();
    let mut options = options(directory.path());
    // Nothing else is written meanwhile: every segment is prepared before the log opens.
    options.spare_segments = 8;
    on_executor(async {
        let late = Rc::new(RefCell::new(None));
        let recovery = recover(&options, &scope(1)).unwrap();
        let log = Log::open_with_hook(options, recovery, Some(appending_hook(&late, 200))).await.unwrap();
        *late.borrow_mut() = Some(log.clone());
        let running = Running::start(log, None);
        running.append(mutation(0, 1, 1, vec![7; 100]), Durability::Synced);
        running.log.submit();
        running.synced(LogSequence(201)).await;
        let statistics = running.log.statistics();
        assert_eq!((statistics.writes, statistics.syncs, statistics.records), (2, 2, 201));
        assert_eq!(statistics.records_per_write.min(), 1);
        assert_eq!(statistics.records_per_write.max(), 200);
        *late.borrow_mut() = None;
        running.close().await;
    });
}

#[test]
fn only_what_asks_for_it_is_synced() {
    let directory = disk_directory();
    on_executor(async {
        let running = Running::open(&options(directory.path()), &scope(2)).await;
        let first = running.append(mutation(0, 1, 1, vec![1]), Durability::Written);
        running.log.submit();
        running.written(first).await;
        assert_eq!((running.log.statistics().syncs, running.progress.get().synced), (0, LogSequence(0)));
        let second = running.append(mutation(1, 1, 1, vec![1]), Durability::Synced);
        running.log.submit();
        running.synced(second).await;
        assert_eq!(running.log.statistics().syncs, 1, "one sync covers what was written before");
        let third = running.append(mutation(0, 1, 2, vec![1]), Durability::Written);
        running.log.submit();
        running.written(third).await;
        running.log.request_sync();
        running.synced(third).await;
        assert_eq!(running.log.statistics().syncs, 2);
        running.close().await;
    });
}

async fn fails_with(fault: LogFault, on_sync: bool) {
    let directory = disk_directory();
    let mut options = options(directory.path());
    options.spare_segments = 8;
    let recorder = Recorder::default();
    let recovery = recover(&options, &scope(1)).unwrap();
    let hook = recorder.hook(directory.path());
    let log = Log::open_with_hook(options.clone(), recovery, Some(hook)).await.unwrap();
    let running = Running::start(log, None);
    let good = running.append(mutation(0, 1, 1, vec![1; 100]), Durability::Synced);
    running.log.submit();
    running.synced(good).await;
    recorder.fail_next(on_sync, fault);
    running.append(mutation(0, 1, 2, vec![2; 100]), Durability::Synced);
    running.log.submit();
    let Err(LogError::Closed { reason }) = running.ended().await else { panic!("the log goes on") };
    assert_eq!(running.progress.get().synced, good);
    let operations = recorder.events.borrow().len();
    let refused = running.log.append(mutation(0, 1, 3, vec![3]), Durability::Synced).unwrap_err();
    assert!(matches!(refused.error, LogError::Closed { reason: again } if again == reason));
    running.log.submit();
    running.log.request_sync();
    assert!(running.log.closed().is_some() && running.log.statistics().closed.is_some());
    let read = running.log.read(partition(0), Decree(1), Decree(1), 1000).await.unwrap();
    assert_eq!(read.len(), 1, "reads go on");
    running.log.close().await;
    assert_eq!(recorder.events.borrow().len(), operations, "nothing is written or synced after a failure");
    let recovery = recover(&options, &scope(1)).unwrap();
    assert_eq!(decrees(&recovery, 0).first(), Some(&1));
    assert_eq!(recovery.damage, []);
}

#[test]
fn a_failure_closes_the_log_for_writing() {
    on_executor(async {
        fails_with(LogFault::Fail(5), false).await;
        fails_with(LogFault::Fail(5), true).await;
        fails_with(LogFault::Short(0), false).await;
        fails_with(LogFault::Short(1024), false).await;
    });
}

#[test]
fn a_dropped_writer_closes_the_log() {
    let directory = disk_directory();
    let options = options(directory.path());
    on_executor(async {
        let log = Log::open(options.clone(), recover(&options, &scope(1)).unwrap()).await.unwrap();
        let other = log.clone();
        let task = glommio::spawn_local(async move { other.run(|_| {}).await });
        task.cancel().await;
        let refused = log.append(mutation(0, 1, 1, vec![]), Durability::Synced).unwrap_err();
        assert!(matches!(refused.error, LogError::Closed { .. }), "{refused:?}");
        log.close().await;
    });
}

#[test]
fn a_closed_log_takes_nothing() {
    let directory = disk_directory();
    on_executor(async {
        let running = Running::open(&options(directory.path()), &scope(1)).await;
        let log = running.log.clone();
        running.append(mutation(0, 1, 1, vec![1; 10]), Durability::Written);
        // Not submitted: closing writes and syncs it all the same.
        running.close().await;
        let refused = log.append(mutation(0, 1, 2, vec![]), Durability::Synced).unwrap_err();
        assert!(matches!(refused.error, LogError::Closed { .. }), "{refused:?}");
        let statistics = log.statistics();
        assert_eq!((statistics.written, statistics.synced), (1, 1));
    });
    assert_eq!(decrees(&recover(&options(directory.path()), &scope(1)).unwrap(), 0), [1]);
}

#[test]
fn too_large_is_refused_and_the_largest_is_taken() {
    let directory = disk_directory();
    let options = options(directory.path());
    on_executor(async {
        let running = Running::open(&options, &scope(1)).await;
        let refused = running.log.append(mutation(0, 1, 1, vec![0; 64 * 1024]), Durability::Synced).unwrap_err();
        let LogError::TooLarge { bytes, bytes_max } = refused.error else { panic!("{refused:?}") };
        let largest = 64 * 1024 - (bytes - bytes_max);
        let sequence = running.append(mutation(0, 1, 1, vec![9; largest]), Durability::Synced);
        running.log.submit();
        running.synced(sequence).await;
        running.close().await;
    });
    assert_eq!(decrees(&recover(&options, &scope(1)).unwrap(), 0), [1]);
}

#[test]
fn records_are_read_back() {
    let directory = disk_directory();
    on_executor(async {
        let running = Running::open(&options(directory.path()), &scope(2)).await;
        let log = running.log.clone();
        let mut last = LogSequence(0);
        for decree in 1..=40 {
            last = running.append(mutation(0, 1, decree, payload(0, decree, 500)), Durability::Synced);
            running.append(mutation(1, 1, decree, payload(1, decree, 100)), Durability::Synced);
            if decree % 4 == 0 {
                running.log.submit();
                running.written(last).await;
            }
        }
        let read = |from, through, bytes| {
            let log = log.clone();
            async move {
                let read = log.read(partition(0), Decree(from), Decree(through), bytes).await.unwrap();
                for record in &read {
                    let decree = record.decree.0;
                    assert_eq!(*record, mutation(0, record.ballot.0, decree, payload(0, decree, 500)));
                }
                read.iter().map(|record| (record.ballot.0, record.decree.0)).collect::<Vec<_>>()
            }
        };
        assert_eq!(read(3, 30, 1 << 20).await, (3..=30).map(|decree| (1, decree)).collect::<Vec<_>>());
        assert_eq!(read(39, u64::MAX, 1 << 20).await, [(1, 39), (1, 40)]);
        assert_eq!(read(5, 30, 1200).await, [(1, 5), (1, 6), (1, 7)], "a little more than the bytes asked for");
        assert_eq!(read(5, 30, 0).await, [(1, 5)], "at least one");
        assert_eq!(read(5, 4, 1 << 20).await, []);
        // A higher ballot replaces what was prepared at and beyond its decree.
        running.append(truncate(0, 2, 38), Durability::Synced);
        last = running.append(mutation(0, 2, 38, payload(0, 38, 500)), Durability::Synced).max(last);
        running.log.submit();
        running.written(last).await;
        assert_eq!(read(36, 99, 1 << 20).await, [(1, 36), (1, 37), (2, 38)]);
        let missing = log.read(partition(0), Decree(39), Decree(50), 1).await;
        assert!(matches!(missing, Err(LogError::NotInLog { decree: Decree(39), .. })), "{missing:?}");
        running.close().await;
    });
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error() {
    let directory = disk_directory();
    let file = directory.path().join("file");
    std::fs::write(&file, b"not a directory").unwrap();
    on_executor(async {
        let inside = options(&file.join("log"));
        let outcome = match recover(&inside, &scope(1)) {
            Ok(recovery) => Log::open(inside, recovery).await.map(|_| ()),
            Err(error) => Err(error),
        };
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
    });
}
