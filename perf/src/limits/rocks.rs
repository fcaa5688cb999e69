//! RocksDB by itself: the engine's table with the engine's options, called inline on one thread.
//!
//! A put is one mutation of one row in its own write batch, without waiting (no slowdown) and without a write-ahead
//! log; a get reads in memory only (block cache tier). What is prepared for an operation is prepared before its time
//! starts.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use pegasus_engine::table::{ApplyMode, ApplyOutcome, Lookup, OpenMode, ReadMode, SharedOptions, Table, TableShared};
use pegasus_wire::messages::data::{RowOperation, Write};
use pegasus_wire::{
    Ballot, Decree, Frame, FrameBuilder, FrameHeader, MessageKind, Mutation, MutationKind, PartitionId, key,
};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use crate::failure::Failure;
use crate::measure::{Latency, Measurement, thread_cpu};
use crate::workload::keys::{Distribution, KeyChooser, hash_key};

/// The three figures of RocksDB. `errors` of each are the operations that would have blocked; they were done by the
/// blocking call and are not in the latencies.
pub struct RocksFigures {
    /// A put.
    pub put: Measurement,
    /// A get of a row written lately, still in the write buffer.
    pub get_recent: Measurement,
    /// A get of a row that has been flushed, from the block cache.
    pub get_cached: Measurement,
}

/// Measures each for at most `seconds`, with a table in `directory` that is gone afterwards.
pub fn measure(directory: &Path, value_bytes: usize, seconds: Duration) -> Result<RocksFigures, Failure> {
    let home = tempfile::Builder::new()
        .prefix(".pegasus-perf-rocksdb-")
        .tempdir_in(directory)
        .map_err(Failure::at(format!("make a directory in {}", directory.display())))?;
    let shared = TableShared::new(SharedOptions::default()).map_err(Failure::at("set up RocksDB"))?;
    let table = Table::open(&home.path().join("table"), &shared, PARTITION, OpenMode::CreateIfMissing);
    let table = table.map_err(Failure::at("open a table"))?;
    let mut random = SmallRng::seed_from_u64(1);
    let keys = KeyChooser::new(Distribution::Uniform, ROWS)?;

    fill(&table, value_bytes)?;
    let put = measure_puts(&table, value_bytes, seconds, &keys, &mut random)?;
    let get_recent = measure_gets(&table, "rocksdb get (write buffer)", seconds, &keys, &mut random)?;
    table.flush().map_err(Failure::at("flush the table"))?;
    for row in 0..ROWS {
        table.read_row(&stored_key(row), NOW_SECONDS, ReadMode::Blocking).map_err(Failure::at("read a row"))?;
    }
    let get_cached = measure_gets(&table, "rocksdb get (block cache)", seconds, &keys, &mut random)?;
    Ok(RocksFigures { put, get_recent, get_cached })
}

/// Writes every row once.
fn fill(table: &Table, value_bytes: usize) -> Result<(), Failure> {
    let value = vec![0x5A; value_bytes];
    for row in 0..ROWS {
        let mutation = mutation(table.applied().next(), row, &value);
        let _ = table.apply(&[mutation], ApplyMode::Blocking).map_err(Failure::at("fill the table"))?;
    }
    Ok(())
}

fn measure_puts(
    table: &Table,
    value_bytes: usize,
    seconds: Duration,
    keys: &KeyChooser,
    random: &mut SmallRng,
) -> Result<Measurement, Failure> {
    let mut value = vec![0; value_bytes];
    let (mut latency, mut wall, mut cpu, mut stalled) = (Latency::new(), Duration::ZERO, Duration::ZERO, 0);
    let chunks_max = (PUT_BYTES_MAX / (value_bytes + ROW_OVERHEAD_BYTES) / CHUNK).max(1);
    for _ in 0..chunks_max {
        random.fill_bytes(&mut value);
        let mut decree = table.applied();
        let mut prepare = || {
            decree = decree.next();
            mutation(decree, keys.next(random), &value)
        };
        let mutations: Vec<Mutation> = std::iter::repeat_with(&mut prepare).take(CHUNK).collect();
        let (started, cpu_before) = (Instant::now(), thread_cpu());
        for mutation in &mutations {
            let batch = std::slice::from_ref(mutation);
            let began = Instant::now();
            let outcome = table.apply(batch, ApplyMode::NoSlowdown).map_err(Failure::at("put a row"))?;
            latency.record(began.elapsed());
            if outcome == ApplyOutcome::WouldStall {
                stalled += 1;
                let _ = table.apply(batch, ApplyMode::Blocking).map_err(Failure::at("put a row"))?;
            }
        }
        cpu += thread_cpu() - cpu_before;
        wall += started.elapsed();
        if wall >= seconds {
            break;
        }
    }
    let mut measurement = Measurement::new("rocksdb put", 1, &latency, wall).with_client_cpu(cpu);
    measurement.errors = stalled;
    Ok(measurement)
}

fn measure_gets(
    table: &Table,
    name: &str,
    seconds: Duration,
    keys: &KeyChooser,
    random: &mut SmallRng,
) -> Result<Measurement, Failure> {
    let (mut latency, mut wall, mut cpu, mut blocked) = (Latency::new(), Duration::ZERO, Duration::ZERO, 0);
    while wall < seconds {
        let chunk: Vec<Vec<u8>> = (0..CHUNK).map(|_| stored_key(keys.next(random))).collect();
        let (started, cpu_before) = (Instant::now(), thread_cpu());
        for key in &chunk {
            let began = Instant::now();
            let found = table.read_row(key, NOW_SECONDS, ReadMode::CacheOnly).map_err(Failure::at("get a row"))?;
            match found {
                Lookup::Found { value, .. } => {
                    std::hint::black_box(value.len());
                    latency.record(began.elapsed());
                }
                Lookup::WouldBlock => blocked += 1,
                Lookup::Missing => return Err(Failure::new("a row that was written is missing")),
            }
        }
        cpu += thread_cpu() - cpu_before;
        wall += started.elapsed();
    }
    let mut measurement = Measurement::new(name, 1, &latency, wall).with_client_cpu(cpu);
    measurement.errors = blocked;
    Ok(measurement)
}

fn mutation(decree: Decree, row: u64, value: &[u8]) -> Mutation {
    let payload = payload(row, value);
    Mutation { ballot: Ballot(1), decree, timestamp_micros: decree.0, kind: MutationKind::Write, payload }
}

/// The payload of a put as it travels: the body of a write request.
fn payload(row: u64, value: &[u8]) -> Bytes {
    let key = hash_key(row);
    let operations = [RowOperation::Put { sort_key: SORT_KEY, value, expiry_seconds: 0 }];
    let write = Write { partition: PARTITION, hash_key: &key, operations: &operations };
    let mut out = Vec::new();
    FrameBuilder::append(&mut out, FrameHeader::request(MessageKind::WRITE, 1, 0), &write, &[]);
    let mut buffer = BytesMut::from(&out[..]);
    let frame = Frame::take(&mut buffer).expect("our own frame is well formed");
    frame.expect("our own frame is whole").body
}

fn stored_key(row: u64) -> Vec<u8> {
    key::encode(&hash_key(row), SORT_KEY)
}

const PARTITION: PartitionId = PartitionId { table: pegasus_wire::TableId(1), index: 0 };
const SORT_KEY: &[u8] = b"value";
/// Rows never expire here, so any second will do.
const NOW_SECONDS: u32 = 0;
/// Rows of the table: as many as `run` has by default.
const ROWS: u64 = 10_000;
/// Operations prepared at a time.
const CHUNK: usize = 1000;
/// Puts end after this much, so that flushes of the test do not keep the disk busy afterwards.
const PUT_BYTES_MAX: usize = 128 * 1024 * 1024;
/// A row is more than its value.
const ROW_OVERHEAD_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_and_gets_are_measured_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let figures = measure(directory.path(), 100, Duration::from_millis(20)).unwrap();
        for figure in [&figures.put, &figures.get_recent, &figures.get_cached] {
            assert!(figure.operations > 0 && figure.client_cpu_us.unwrap() > 0.0, "{figure:?}");
        }
        assert_eq!(figures.get_cached.errors, 0, "all rows fit in the block cache");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
