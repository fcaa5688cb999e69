//! Reading one row.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::Ordering;

use pegasus_wire::expiry::is_expired;
use rocksdb::{DBPinnableSlice, ErrorKind};

use super::layout::is_reserved;
use super::value::{self, VALUE_HEADER_BYTES};
use super::{Table, TableError};

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// Only memory is looked at. For serving cores.
    CacheOnly,
    /// Files are read as needed. For pools.
    Blocking,
}

/// What became of a read of one row.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// The row is there.
    Found {
        /// Its data.
        value: RowValue<'a>,
        /// Second at which it expires, since 2016; 0 means never.
        expiry_seconds: u32,
    },
    /// There is no such row, or it has expired.
    Missing,
    /// The answer is not in memory: ask again with [`ReadMode::Blocking`]. Only with [`ReadMode::CacheOnly`].
    WouldBlock,
}

impl Lookup<'_> {
    /// The same answer with its own copy of the data, to be sent from a pool's thread to a core.
    pub fn into_owned(self) -> Lookup<'static> {
        match self {
            Lookup::Found { value, expiry_seconds } => Lookup::Found { value: value.into_owned(), expiry_seconds },
            Lookup::Missing => Lookup::Missing,
            Lookup::WouldBlock => Lookup::WouldBlock,
        }
    }
}

/// The data of a row, without its header. Held in RocksDB's memory where possible: copy it out and drop it soon, it
/// pins a block of the cache.
pub struct RowValue<'a> {
    held: Held<'a>,
}

enum Held<'a> {
    /// A whole stored value, at least as long as its header.
    Pinned(DBPinnableSlice<'a>),
    /// The data alone.
    Owned(Vec<u8>),
}

impl RowValue<'_> {
    /// The same data in memory of its own.
    pub fn into_owned(self) -> RowValue<'static> {
        RowValue { held: Held::Owned(self.into_vec()) }
    }

    /// The data in a vector; copied unless it is owned already.
    pub fn into_vec(self) -> Vec<u8> {
        match self.held {
            Held::Pinned(stored) => stored[VALUE_HEADER_BYTES..].to_vec(),
            Held::Owned(data) => data,
        }
    }
}

impl Deref for RowValue<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.held {
            Held::Pinned(stored) => &stored[VALUE_HEADER_BYTES..],
            Held::Owned(data) => data,
        }
    }
}

impl fmt::Debug for RowValue<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "RowValue({} bytes)", self.len())
    }
}

impl Table {
    /// Reads the row with this stored key, as of `now_seconds` (since 2016).
    pub fn read_row(&self, key: &[u8], now_seconds: u32, mode: ReadMode) -> Result<Lookup<'_>, TableError> {
        let inner = &*self.inner;
        if is_reserved(key) {
            return Ok(Lookup::Missing);
        }
        let options = match mode {
            ReadMode::CacheOnly => &inner.cached_reads,
            ReadMode::Blocking => &inner.blocking_reads,
        };
        let counters = &inner.counters;
        let stored = match inner.db.get_pinned_opt(key, options) {
            Ok(stored) => stored,
            Err(error) if mode == ReadMode::CacheOnly && error.kind() == ErrorKind::Incomplete => {
                counters.reads_would_block.fetch_add(1, Ordering::Relaxed);
                return Ok(Lookup::WouldBlock);
            }
            Err(error) => return Err(self.failed("read", error)),
        };
        counters.reads.fetch_add(1, Ordering::Relaxed);
        let Some(stored) = stored else { return Ok(Lookup::Missing) };
        let Some((header, _)) = value::decode(&stored) else { return Err(self.malformed_value(stored.len())) };
        if is_expired(header.expiry_seconds, now_seconds) {
            return Ok(Lookup::Missing);
        }
        let value = RowValue { held: Held::Pinned(stored) };
        Ok(Lookup::Found { value, expiry_seconds: header.expiry_seconds })
    }

    pub(super) fn malformed_key(&self, length: usize) -> TableError {
        let detail = format!("a stored key of {length} bytes is shorter than the hash key it announces");
        TableError::damaged(&self.inner.path, "read", detail)
    }

    pub(super) fn malformed_value(&self, length: usize) -> TableError {
        let detail = format!("a stored value of {length} bytes is shorter than its header");
        TableError::damaged(&self.inner.path, "read", detail)
    }
}
