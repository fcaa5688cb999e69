//! Reading rows in order, in slices.
//!
//! A scan keeps no state here: it answers with what fits its limits and the key to continue after.

use std::ops::Range;
use std::sync::atomic::Ordering;

use pegasus_wire::expiry::is_expired;
use pegasus_wire::key::{ROWS_END, after_prefix, encode};
use rocksdb::{ErrorKind, ReadOptions, ReadTier};

use super::layout::hash_key_prefix;
use super::value;
use super::{ReadMode, Table, TableError};

/// Which rows, and how many at most.
#[derive(Clone, Copy, Debug)]
pub struct ScanRequest<'a> {
    /// First stored key.
    pub start: &'a [u8],
    /// Exclusive end as a stored key; empty means the end of the table.
    pub stop: &'a [u8],
    /// Whether `start` itself belongs to the range.
    pub start_inclusive: bool,
    /// Most rows to return. Does not bound a count.
    pub rows_max: usize,
    /// Stop once the returned rows have this many bytes (keys and data); the last row may pass it. Does not bound a
    /// count.
    pub bytes_max: usize,
    /// Most rows to look at, the expired ones included. Zero counts as one, so that every slice moves on.
    pub iterations_max: usize,
    /// Return rows without their data.
    pub no_value: bool,
    /// Return no rows, only their number.
    pub count_only: bool,
    /// Rows that expire at or before this second (since 2016) are not there.
    pub now_seconds: u32,
}

/// What became of a scan.
#[derive(Debug)]
pub enum Scan {
    /// A slice was read.
    Done(ScanOutcome),
    /// Part of it is not in memory: ask again with [`ReadMode::Blocking`]. Only with [`ReadMode::CacheOnly`].
    WouldBlock,
}

/// A slice of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanOutcome {
    /// The rows; empty for a count.
    pub rows: ScanRows,
    /// How many live rows there were in the slice.
    pub count: u64,
    /// True if the end of the range was reached.
    pub complete: bool,
    /// When not complete: the last stored key looked at. The next slice starts after it (`start_inclusive: false`).
    pub resume_after: Vec<u8>,
}

/// Rows one behind the other in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanRows {
    bytes: Vec<u8>,
    rows: Vec<RowPlace>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct RowPlace {
    key: Range<usize>,
    /// Up to the end of the data, which follows the key.
    end: usize,
    expiry_seconds: u32,
}

/// One row of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScannedRow<'a> {
    /// Its stored key.
    pub key: &'a [u8],
    /// Its data; empty with `no_value`.
    pub value: &'a [u8],
    /// Second at which it expires, since 2016; 0 means never.
    pub expiry_seconds: u32,
}

impl ScanRows {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of all keys and data.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The rows, ascending by stored key.
    pub fn iter(&self) -> impl Iterator<Item = ScannedRow<'_>> {
        self.rows.iter().map(|row| ScannedRow {
            key: &self.bytes[row.key.clone()],
            value: &self.bytes[row.key.end..row.end],
            expiry_seconds: row.expiry_seconds,
        })
    }

    fn push(&mut self, key: &[u8], value: &[u8], expiry_seconds: u32) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.rows.push(RowPlace { key: start..key_end, end: self.bytes.len(), expiry_seconds });
    }
}

/// Start and exclusive stop, as stored keys, of the sort keys `start` to `stop` of one hash key. An empty `stop`
/// means the end of the hash key. The hash key must be within its limit.
pub fn hash_key_range(hash_key: &[u8], start: &[u8], stop: &[u8], stop_inclusive: bool) -> (Vec<u8>, Vec<u8>) {
    let first = encode(hash_key, start);
    if stop.is_empty() {
        let end = after_prefix(&encode(hash_key, b"")).expect("no hash key is long enough for a prefix of FF only");
        return (first, end);
    }
    let mut end = encode(hash_key, stop);
    if stop_inclusive {
        // The smallest key above `end`.
        end.push(0);
    }
    (first, end)
}

impl Table {
    /// Reads one slice of a range.
    pub fn scan(&self, request: &ScanRequest<'_>, mode: ReadMode) -> Result<Scan, TableError> {
        let counters = &self.inner.counters;
        let range = SeekRange::new(request);
        if range.is_empty() {
            return Ok(Scan::Done(ScanOutcome { complete: true, ..ScanOutcome::default() }));
        }
        let mut outcome = ScanOutcome::default();
        let mut iterator = self.inner.db.raw_iterator_opt(range.read_options(mode));
        iterator.seek(&range.first);
        let mut looked_at = 0;
        while let Some((key, stored)) = iterator.item() {
            if looked_at > 0 && request.is_satisfied(&outcome, looked_at) {
                break;
            }
            looked_at += 1;
            let Some((header, data)) = value::decode(stored) else { return Err(self.malformed_value(stored.len())) };
            if !is_expired(header.expiry_seconds, request.now_seconds) {
                outcome.count += 1;
                if !request.count_only {
                    outcome.rows.push(key, if request.no_value { &[] } else { data }, header.expiry_seconds);
                }
            }
            outcome.resume_after.clear();
            outcome.resume_after.extend_from_slice(key);
            iterator.next();
        }
        counters.scans.fetch_add(1, Ordering::Relaxed);
        counters.scanned_rows.fetch_add(looked_at as u64, Ordering::Relaxed);
        let more = iterator.valid();
        match iterator.status() {
            Ok(()) => {}
            // What was asked for is there; only whether more follows is not known, so the caller asks again.
            Err(error) if is_incomplete(&error, mode) && looked_at > 0 && request.is_satisfied(&outcome, looked_at) => {
                return Ok(Scan::Done(outcome));
            }
            Err(error) if is_incomplete(&error, mode) => {
                counters.scans_would_block.fetch_add(1, Ordering::Relaxed);
                return Ok(Scan::WouldBlock);
            }
            Err(error) => return Err(self.failed("scan", error)),
        }
        if !more {
            outcome.complete = true;
            outcome.resume_after.clear();
        }
        Ok(Scan::Done(outcome))
    }
}

impl ScanRequest<'_> {
    /// True if a limit says that no further row may be looked at.
    fn is_satisfied(&self, outcome: &ScanOutcome, looked_at: usize) -> bool {
        let full = outcome.rows.len() >= self.rows_max || outcome.rows.bytes() >= self.bytes_max;
        looked_at >= self.iterations_max || (full && !self.count_only)
    }
}

fn is_incomplete(error: &rocksdb::Error, mode: ReadMode) -> bool {
    mode == ReadMode::CacheOnly && error.kind() == ErrorKind::Incomplete
}

/// The range in terms of an iterator: inclusive first key, exclusive end below the engine's own keys.
struct SeekRange {
    first: Vec<u8>,
    end: Vec<u8>,
    /// All keys of the range have one hash key, and `first` contains it whole.
    one_hash_key: bool,
}

impl SeekRange {
    fn new(request: &ScanRequest<'_>) -> SeekRange {
        let mut first = request.start.to_vec();
        if !request.start_inclusive {
            // The smallest key above `start`.
            first.push(0);
        }
        let unbounded = request.stop.is_empty() || request.stop > &ROWS_END[..];
        let end = if unbounded { ROWS_END.to_vec() } else { request.stop.to_vec() };
        let one_hash_key = hash_key_prefix(&first).and_then(after_prefix).is_some_and(|after| end <= after);
        SeekRange { first, end, one_hash_key }
    }

    fn is_empty(&self) -> bool {
        self.first >= self.end
    }

    fn read_options(&self, mode: ReadMode) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.set_iterate_upper_bound(self.end.as_slice());
        // The filters know hash keys: a range inside one skips the files without it.
        options.set_prefix_same_as_start(self.one_hash_key);
        options.set_total_order_seek(!self.one_hash_key);
        // A walk through the table must not push out what is read often.
        options.fill_cache(self.one_hash_key);
        // Files that nobody needs after this are deleted by a background thread, not by the reader.
        options.set_background_purge_on_iterator_cleanup(true);
        options.set_read_tier(match mode {
            ReadMode::CacheOnly => ReadTier::BlockCache,
            ReadMode::Blocking => ReadTier::All,
        });
        options
    }
}
