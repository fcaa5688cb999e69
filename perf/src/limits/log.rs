//! The engine's log by itself: appends of one record until they are durable, alone and in groups.
//!
//! It runs in an executor on the calling thread that is not pinned and does not spin. What it adds to the bare disk is
//! its headers, checksums and the wake-ups of the executor.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::path::Path;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use glommio::{LocalExecutorBuilder, Placement};
use pegasus_engine::identity::BootId;
use pegasus_engine::log::{
    Log, LogError, LogOptions, LogProgress, LogRecord, LogSequence, RecordKind, RecoveryScope, recover,
};
use pegasus_wire::{Ballot, Decree, Durability, MutationKind, PartitionId, ReplicaIncarnation};

use crate::failure::Failure;
use crate::measure::{Latency, Measurement, thread_cpu};

/// Measures appends of `payload_bytes` for `seconds` at each depth, synced and written, to a log in `directory` that is
/// gone afterwards. `errors` are appends that found the log full and were made again. It takes the thread: not for the
/// inside of a runtime.
pub fn measure(
    directory: &Path,
    payload_bytes: usize,
    depths: &[usize],
    seconds: Duration,
) -> Result<Vec<Measurement>, Failure> {
    let home = tempfile::Builder::new()
        .prefix(".pegasus-perf-log-")
        .tempdir_in(directory)
        .map_err(Failure::at(format!("make a directory in {}", directory.display())))?;
    let boot = BootId::current().map_err(Failure::at("read the boot id"))?;
    let options = LogOptions {
        segment_bytes: SEGMENT_BYTES,
        budget_bytes: SEGMENTS as u64 * SEGMENT_BYTES,
        spare_segments: SEGMENTS,
        ..LogOptions::new(home.path().join("log"), boot)
    };
    let executor = LocalExecutorBuilder::new(Placement::Unbound).name("log").make();
    let executor = executor.map_err(Failure::at("make an executor"))?;
    executor.run(measure_all(options, Bytes::from(vec![0x5A; payload_bytes]), depths, seconds))
}

async fn measure_all(
    options: LogOptions,
    payload: Bytes,
    depths: &[usize],
    seconds: Duration,
) -> Result<Vec<Measurement>, Failure> {
    let recovery = recover(&options, &RecoveryScope::new()).map_err(Failure::at("read the log's directory"))?;
    let log = Log::open(options, recovery).await.map_err(Failure::at("open the log"))?;
    let progress = Rc::new(Progress::default());
    let writer = {
        let (log, progress) = (log.clone(), progress.clone());
        glommio::spawn_local(async move {
            let told = progress.clone();
            let outcome = log.run(move |now| told.advance(now)).await;
            progress.end(outcome);
        })
        .detach()
    };
    let mut appender = Appender { log: log.clone(), progress, payload, last: Decree(0) };
    let mut measurements = Vec::new();
    for durability in [Durability::Written, Durability::Synced] {
        for &depth in depths {
            measurements.push(appender.measure(durability, depth, seconds).await?);
        }
    }
    log.close().await;
    writer.await;
    Ok(measurements)
}

/// Appends records of one partition and waits for them.
struct Appender {
    log: Log,
    progress: Rc<Progress>,
    payload: Bytes,
    last: Decree,
}

impl Appender {
    async fn measure(
        &mut self,
        durability: Durability,
        depth: usize,
        seconds: Duration,
    ) -> Result<Measurement, Failure> {
        let mut latency = Latency::new();
        let mut in_flight: VecDeque<(LogSequence, Instant)> = VecDeque::with_capacity(depth);
        let (start, cpu, mut full) = (Instant::now(), thread_cpu(), 0);
        loop {
            while in_flight.len() < depth && start.elapsed() < seconds {
                match self.append(durability)? {
                    Some(sequence) => in_flight.push_back((sequence, Instant::now())),
                    None => {
                        full += 1;
                        break;
                    }
                }
            }
            if in_flight.is_empty() {
                break;
            }
            let seen = self.progress.now.get();
            self.log.submit();
            let now = self.progress.after(seen).await?;
            let through = if durability == Durability::Synced { now.synced } else { now.written };
            let done = in_flight.partition_point(|(sequence, _)| *sequence <= through);
            for (_, appended) in in_flight.drain(..done) {
                latency.record(appended.elapsed());
            }
            // What is done is not needed any more, so that segments can be written again.
            self.log.set_flushed(PARTITION, Decree(self.last.0 - in_flight.len() as u64));
        }
        let (used, wall) = (thread_cpu() - cpu, start.elapsed());
        let mut measurement =
            Measurement::new(format!("log append ({durability})"), depth, &latency, wall).with_client_cpu(used);
        measurement.errors = full;
        Ok(measurement)
    }

    /// Appends the next record; `None` if the log is full for the moment.
    fn append(&mut self, durability: Durability) -> Result<Option<LogSequence>, Failure> {
        let record = LogRecord {
            partition: PARTITION,
            incarnation: ReplicaIncarnation(1),
            kind: RecordKind::Mutation(MutationKind::Write),
            ballot: Ballot(1),
            decree: self.last.next(),
            committed: self.last,
            timestamp_micros: self.last.next().0,
            payload: self.payload.clone(),
        };
        match self.log.append(record, durability).map_err(|refused| refused.error) {
            Ok(sequence) => {
                self.last = self.last.next();
                Ok(Some(sequence))
            }
            Err(LogError::Full { .. }) => Ok(None),
            Err(error) => Err(Failure::at("append to the log")(error)),
        }
    }
}

/// How far the log is, for one waiter.
#[derive(Default)]
struct Progress {
    now: Cell<LogProgress>,
    ended: RefCell<Option<String>>,
    waiter: RefCell<Option<Waker>>,
}

impl Progress {
    fn advance(&self, now: LogProgress) {
        self.now.set(now);
        self.wake();
    }

    fn end(&self, outcome: Result<(), LogError>) {
        let reason = outcome.map_or_else(|error| error.to_string(), |()| "it was closed".to_owned());
        *self.ended.borrow_mut() = Some(reason);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waiter) = self.waiter.borrow_mut().take() {
            waiter.wake();
        }
    }

    /// Waits until the log is further than `seen`.
    async fn after(&self, seen: LogProgress) -> Result<LogProgress, Failure> {
        poll_fn(|context| {
            if self.now.get() != seen {
                return Poll::Ready(Ok(self.now.get()));
            }
            if let Some(reason) = &*self.ended.borrow() {
                return Poll::Ready(Err(Failure::new(format!("the log ended: {reason}"))));
            }
            *self.waiter.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

const PARTITION: PartitionId = PartitionId { table: pegasus_wire::TableId(1), index: 0 };
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// All of them are zeroed before anything is measured.
const SEGMENTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_become_durable_and_nothing_is_left() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let measurements = measure(directory.path(), 1000, &[1, 8], Duration::from_millis(50)).unwrap();
        let lines: Vec<_> = measurements.iter().map(|line| (line.name.as_str(), line.depth)).collect();
        let (written, synced) = ("log append (written)", "log append (synced)");
        assert_eq!(lines, [(written, 1), (written, 8), (synced, 1), (synced, 8)]);
        assert!(measurements.iter().all(|line| line.operations >= line.depth as u64), "{measurements:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
