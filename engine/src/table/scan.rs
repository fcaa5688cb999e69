//! Reading rows in order, or against it, in slices.
//!
//! A scan keeps no state here: it answers with what fits its limits and the key to continue after. What all slices of
//! a scan have in common may be a moment: a [`TableSnapshot`](super::TableSnapshot).

use std::ops::Range;
use std::time::Instant;

use pegasus_wire::key::encode;
use pegasus_wire::messages::data::{Filter, SortKeys};

use super::layout::encode_range_end;
use super::walk;
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
    /// From the end of the range to its start; rows are returned in that order.
    pub reverse: bool,
    /// Only these sort keys of each hash key. Those between are jumped over, not looked at.
    pub sort_keys: SortKeys<'a>,
    /// Only hash keys that match. What cannot match by its beginning is jumped over.
    pub hash_key_filter: Filter<'a>,
    /// Only sort keys that match. Those that cannot match by their beginning are jumped over.
    pub sort_key_filter: Filter<'a>,
    /// Most rows to return. Does not bound a count.
    pub rows_max: usize,
    /// Stop once the returned rows have this many bytes (keys and data, as they are returned); the last row may pass
    /// it. Does not bound a count.
    pub bytes_max: usize,
    /// Most rows to look at, those that expired or do not match included. Zero counts as one, so that every slice
    /// moves on.
    pub iterations_max: usize,
    /// When to stop, having looked at a row at least; read once in a while.
    pub until: Option<Instant>,
    /// Return rows without their data.
    pub no_value: bool,
    /// Return rows without so many bytes at the beginning of their stored keys: those that all keys of the range have
    /// in common.
    pub key_prefix: usize,
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
    /// How many live rows there were in the slice that were wanted.
    pub count: u64,
    /// True if the end of the range was reached.
    pub complete: bool,
    /// When not complete: the last stored key looked at. The next slice starts after it (`start_inclusive: false`) or,
    /// in reverse, stops before it.
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
    /// Its stored key, from `key_prefix` on.
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

    /// The rows in the order of the scan.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = ScannedRow<'_>> + ExactSizeIterator {
        self.rows.iter().map(|row| ScannedRow {
            key: &self.bytes[row.key.clone()],
            value: &self.bytes[row.key.end..row.end],
            expiry_seconds: row.expiry_seconds,
        })
    }

    pub(super) fn push(&mut self, key: &[u8], value: &[u8], expiry_seconds: u32) {
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
    let mut end = Vec::new();
    encode_range_end(&mut end, hash_key, stop, stop_inclusive);
    (encode(hash_key, start), end)
}

impl Table {
    /// Reads one slice of a range, as it is now.
    pub fn scan(&self, request: &ScanRequest<'_>, mode: ReadMode) -> Result<Scan, TableError> {
        walk::walk(self, None, request, mode)
    }
}

impl<'a> ScanRequest<'a> {
    /// All rows of the table in their order, without any limit.
    pub fn everything(now_seconds: u32) -> ScanRequest<'a> {
        ScanRequest {
            start: b"",
            stop: b"",
            start_inclusive: true,
            reverse: false,
            sort_keys: SortKeys::ALL,
            hash_key_filter: Filter::ALL,
            sort_key_filter: Filter::ALL,
            rows_max: usize::MAX,
            bytes_max: usize::MAX,
            iterations_max: usize::MAX,
            until: None,
            no_value: false,
            key_prefix: 0,
            count_only: false,
            now_seconds,
        }
    }

    /// True if a limit says that no further row may be looked at.
    pub(super) fn is_satisfied(&self, outcome: &ScanOutcome, looked_at: usize) -> bool {
        let full = outcome.rows.len() >= self.rows_max || outcome.rows.bytes() >= self.bytes_max;
        looked_at >= self.iterations_max || (full && !self.count_only) || self.is_late(looked_at)
    }

    fn is_late(&self, looked_at: usize) -> bool {
        self.until.is_some_and(|until| looked_at % ROWS_PER_CLOCK_READING == 1 && Instant::now() >= until)
    }
}

/// A reading of the clock costs about as much as a row without a value.
const ROWS_PER_CLOCK_READING: usize = 32;
