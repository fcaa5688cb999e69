//! What the tests share: small options, mutations, short forms of reads.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use pegasus_engine::table::{
    ApplyMode, ApplyOutcome, Bottommost, CompactionOutcome, Lookup, OpenMode, ReadMode, Scan, ScanOutcome, ScanRequest,
    SharedOptions, Table, TableShared,
};
use pegasus_wire::expiry::seconds_since_epoch;
use pegasus_wire::key::{decode, encode};
use pegasus_wire::messages::data::{RowOperation, SortKeys, Write};
use pegasus_wire::{
    Ballot, Decree, Frame, FrameBuilder, FrameHeader, MessageKind, Mutation, MutationKind, PartitionId,
};

use crate::query::Rows;

pub(crate) const PARTITION: PartitionId = PartitionId { table: pegasus_wire::TableId(1), index: 3 };

/// Files stay as the tests make them: no compaction on its own.
pub(crate) fn small_options() -> SharedOptions {
    SharedOptions {
        block_cache_bytes: 16 << 20,
        write_buffer_bytes_total: 64 << 20,
        write_buffer_bytes: 16 << 20,
        background_threads: 2,
        level0_compaction_files: 500,
        level0_slowdown_files: 500,
        level0_stop_files: 500,
        ..SharedOptions::default()
    }
}

pub(crate) fn shared() -> TableShared {
    TableShared::new(small_options()).unwrap()
}

pub(crate) fn create(directory: &Path) -> Table {
    Table::open(&directory.join("rdb"), &shared(), PARTITION, OpenMode::CreateIfMissing).unwrap()
}

pub(crate) fn reopen(directory: &Path) -> Table {
    Table::open(&directory.join("rdb"), &shared(), PARTITION, OpenMode::Existing).unwrap()
}

/// The payload of a write: the body of its frame, as it arrives.
pub(crate) fn payload(partition: PartitionId, hash_key: &[u8], operations: &[RowOperation<'_>]) -> Bytes {
    let mut out = Vec::new();
    let header = FrameHeader::request(MessageKind::WRITE, 1, 1000);
    FrameBuilder::append(&mut out, header, &Write { partition, hash_key, operations }, &[]);
    Frame::take(&mut BytesMut::from(&out[..])).unwrap().unwrap().body
}

pub(crate) fn mutation(decree: u64, payload: Bytes) -> Mutation {
    Mutation {
        ballot: Ballot(2),
        decree: Decree(decree),
        timestamp_micros: 1_000_000 + decree,
        kind: MutationKind::Write,
        payload,
    }
}

pub(crate) fn put(decree: u64, hash_key: &[u8], sort_key: &[u8], value: &[u8], expiry_seconds: u32) -> Mutation {
    mutation(decree, payload(PARTITION, hash_key, &[RowOperation::Put { sort_key, value, expiry_seconds }]))
}

pub(crate) fn delete(decree: u64, hash_key: &[u8], sort_key: &[u8]) -> Mutation {
    mutation(decree, payload(PARTITION, hash_key, &[RowOperation::Delete { sort_key }]))
}

pub(crate) fn delete_range_of(decree: u64, hash_key: &[u8], range: SortKeys<'_>) -> Mutation {
    mutation(decree, payload(PARTITION, hash_key, &[RowOperation::DeleteRange { range }]))
}

/// What a range delete does to a model.
pub(crate) fn delete_range(rows: &mut Rows, hash_key: &[u8], range: &SortKeys<'_>) {
    rows.retain(|key, _| {
        let (hash, sort) = decode(key).unwrap();
        let after_start = sort > range.start || (range.start_inclusive && sort == range.start);
        let before_stop = range.stop.is_empty() || sort < range.stop || (range.stop_inclusive && sort == range.stop);
        hash != hash_key || !(after_start && before_stop)
    });
}

pub(crate) fn empty(decree: u64) -> Mutation {
    Mutation { kind: MutationKind::Empty, ..mutation(decree, Bytes::new()) }
}

pub(crate) fn apply(table: &Table, mutations: &[Mutation]) {
    assert_eq!(table.apply(mutations, ApplyMode::Blocking).unwrap(), ApplyOutcome::Applied);
}

pub(crate) fn compact(table: &Table) {
    assert_eq!(table.compact(Bottommost::Force).unwrap(), CompactionOutcome::Finished);
}

/// `Some` with the data of a live row, read from wherever it is.
pub(crate) fn get(table: &Table, hash_key: &[u8], sort_key: &[u8], now_seconds: u32) -> Option<Vec<u8>> {
    match table.read_row(&encode(hash_key, sort_key), now_seconds, ReadMode::Blocking).unwrap() {
        Lookup::Found { value, .. } => Some(value.to_vec()),
        Lookup::Missing => None,
        Lookup::WouldBlock => panic!("a blocking read never would block"),
    }
}

/// Everything, without limits.
pub(crate) fn everything(now_seconds: u32) -> ScanRequest<'static> {
    ScanRequest::everything(now_seconds)
}

pub(crate) fn scan(table: &Table, request: &ScanRequest<'_>) -> ScanOutcome {
    match table.scan(request, ReadMode::Blocking).unwrap() {
        Scan::Done(outcome) => outcome,
        Scan::WouldBlock => panic!("a blocking scan never would block"),
    }
}

pub(crate) fn keys(outcome: &ScanOutcome) -> Vec<Vec<u8>> {
    outcome.rows.iter().map(|row| row.key.to_vec()).collect()
}

pub(crate) fn system_now_seconds() -> u32 {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    seconds_since_epoch(unix.as_micros() as u64)
}

/// What a crash leaves: the files of a table as they are while it is open. RocksDB's background threads may delete a
/// file in the middle of the copy; then it is taken again, since a crash is one moment.
pub(crate) fn crash_image(from: &Path, to: &Path) {
    for _ in 0..100 {
        match try_crash_image(from, to) {
            Ok(()) => return,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => std::fs::remove_dir_all(to).unwrap(),
            Err(error) => panic!("cannot copy {}: {error}", from.display()),
        }
    }
    panic!("the files of {} never stayed the same for one copy", from.display());
}

fn try_crash_image(from: &Path, to: &Path) -> std::io::Result<()> {
    let names = || -> std::io::Result<std::collections::BTreeSet<std::ffi::OsString>> {
        std::fs::read_dir(from)?.map(|entry| Ok(entry?.file_name())).collect()
    };
    std::fs::create_dir_all(to)?;
    let before = names()?;
    for name in before.iter().filter(|name| *name != "LOCK") {
        std::fs::copy(from.join(name), to.join(name))?;
    }
    if names()? == before { Ok(()) } else { Err(std::io::ErrorKind::NotFound.into()) }
}

pub(crate) fn files_ending(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_str().unwrap().ends_with(ending)).collect()
}

pub(crate) fn files_named(directory: &Path, beginning: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(beginning)).collect()
}
