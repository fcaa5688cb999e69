//! Plans of reads of several rows: made on a core, run on any thread.
//!
//! A plan is tried inline where it is likely to be short, from memory alone. What would block, or turns out longer than
//! a core may run, runs in the long pool from the beginning: a slice has one moment.

use std::sync::Arc;
use std::time::Instant;

use pegasus_engine::table::{
    Lookup, ReadMode, Scan as ScanStep, ScanOutcome, ScanRequest, Table, TableError, TableSnapshot,
};
use pegasus_wire::limits::{READ_BYTES_TARGET, SCAN_ITERATIONS_MAX};
use pegasus_wire::messages::data::{Filter, FilterKind, SortKeys};

use super::partition::CopyId;
use super::scans::Keeping;

/// Reads of at most this many rows are tried inline.
pub(crate) const INLINE_ROWS_MAX: usize = 128;
/// Rows looked at inline, also where some have expired or are not wanted.
const INLINE_ITERATIONS_MAX: usize = 2 * INLINE_ROWS_MAX;

/// A checked read of several rows.
pub(crate) struct ReadPlan {
    /// The copy it reads.
    pub(crate) copy: CopyId,
    /// Which rows.
    pub(crate) wanted: Wanted,
    /// What bounds it, and how rows are answered.
    pub(crate) terms: Terms,
    /// When to try it inline.
    pub(crate) inline: Inline,
    /// What becomes of the snapshot it reads.
    pub(crate) keeping: Keeping,
}

/// Which rows, and where they are read.
pub(crate) enum Wanted {
    /// Rows of a range.
    Range {
        /// Where they are read.
        source: RowSource,
        /// The range.
        range: Range,
    },
    /// Exactly these stored keys.
    Keys {
        /// Where they are read.
        table: Table,
        /// The keys.
        stored: Vec<Vec<u8>>,
    },
}

/// Where the rows of a range are read.
pub(crate) enum RowSource {
    /// As they are now.
    Table(Table),
    /// As they were.
    Snapshot(Arc<TableSnapshot>),
}

/// A range of stored keys and what of it is wanted; what `ScanRequest` borrows.
pub(crate) struct Range {
    /// First stored key.
    pub(crate) start: Vec<u8>,
    /// Whether it belongs to the range.
    pub(crate) start_inclusive: bool,
    /// Exclusive end; empty means to the end of the partition.
    pub(crate) stop: Vec<u8>,
    /// From the end to the start.
    pub(crate) reverse: bool,
    /// Which sort keys of each hash key.
    pub(crate) sort_keys: OwnedSortKeys,
    /// Which hash keys.
    pub(crate) hash_key_filter: OwnedFilter,
    /// Which sort keys.
    pub(crate) sort_key_filter: OwnedFilter,
}

/// [`SortKeys`] that outlive the request.
pub(crate) struct OwnedSortKeys {
    start: Vec<u8>,
    stop: Vec<u8>,
    start_inclusive: bool,
    stop_inclusive: bool,
}

/// A [`Filter`] that outlives the request.
pub(crate) struct OwnedFilter {
    kind: FilterKind,
    pattern: Vec<u8>,
}

/// What bounds a read, and how rows are answered.
pub(crate) struct Terms {
    /// Most rows.
    pub(crate) rows_max: usize,
    /// Bytes of the answered rows after which it stops.
    pub(crate) bytes_max: usize,
    /// When it stops.
    pub(crate) until: Option<Instant>,
    /// Leave the values out.
    pub(crate) no_value: bool,
    /// Only count.
    pub(crate) count_only: bool,
    /// Rows that expire at or before this second are not there.
    pub(crate) now_seconds: u32,
    /// Bytes of the stored key that the answer leaves out (the hash key).
    pub(crate) key_prefix: usize,
    /// Rows were collected from the end, and are answered ascending all the same.
    pub(crate) turned: bool,
}

/// What an inline read must have come to for its answer to be good enough. If it has not, the pool reads again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inline {
    /// It is likely to be long: not tried.
    Never,
    /// The end of what was asked.
    Whole,
    /// That, or as many rows or bytes as were asked.
    Satisfied,
    /// Any slice, also a short one.
    Slice,
}

/// What a plan found.
pub(crate) enum Found {
    /// A slice of a range.
    Range(ScanOutcome),
    /// The rows there are of those named.
    Keys {
        /// In the order asked.
        rows: Vec<KeyedRow>,
        /// Also where only counted.
        count: u64,
        /// All keys were looked up.
        complete: bool,
        /// The last key looked up, if that was not the last one.
        resume_after: Vec<u8>,
    },
}

/// A row found by its stored key.
pub(crate) struct KeyedRow {
    /// The key as it is answered.
    pub(crate) key: Vec<u8>,
    /// Its value; empty if values are left out.
    pub(crate) value: Vec<u8>,
    /// When it expires; 0 means never.
    pub(crate) expiry_seconds: u32,
}

impl OwnedSortKeys {
    /// A copy.
    pub(crate) fn of(range: &SortKeys<'_>) -> OwnedSortKeys {
        let SortKeys { start, stop, start_inclusive, stop_inclusive } = *range;
        OwnedSortKeys { start: start.to_vec(), stop: stop.to_vec(), start_inclusive, stop_inclusive }
    }

    fn borrowed(&self) -> SortKeys<'_> {
        let OwnedSortKeys { start, stop, start_inclusive, stop_inclusive } = self;
        SortKeys { start, stop, start_inclusive: *start_inclusive, stop_inclusive: *stop_inclusive }
    }
}

impl OwnedFilter {
    /// A copy.
    pub(crate) fn of(filter: &Filter<'_>) -> OwnedFilter {
        OwnedFilter { kind: filter.kind, pattern: filter.pattern.to_vec() }
    }

    fn borrowed(&self) -> Filter<'_> {
        Filter { kind: self.kind, pattern: &self.pattern }
    }
}

/// What a plan came to in the pool.
pub(crate) struct PoolRead {
    /// What it found.
    pub(crate) found: Option<Found>,
    /// A snapshot made for it, if there is more to read.
    pub(crate) snapshot: Option<Arc<TableSnapshot>>,
    /// Those of the plan.
    pub(crate) terms: Terms,
}

impl ReadPlan {
    /// Runs in the pool. Snapshots are made here, and those that nobody needs any more end here.
    pub(crate) fn run_in_pool(mut self) -> Result<PoolRead, TableError> {
        let mut made = None;
        if let (Keeping::New, Wanted::Range { source, .. }) = (self.keeping, &mut self.wanted)
            && let RowSource::Table(table) = source
        {
            let snapshot = Arc::new(table.snapshot());
            made = Some(snapshot.clone());
            *source = RowSource::Snapshot(snapshot);
        }
        let found = self.run(ReadMode::Blocking)?;
        let snapshot = made.filter(|_| found.as_ref().is_some_and(|found| !found.is_complete()));
        Ok(PoolRead { found, snapshot, terms: self.terms })
    }

    /// Reads; `None` if memory alone cannot answer.
    pub(crate) fn run(&self, mode: ReadMode) -> Result<Option<Found>, TableError> {
        match &self.wanted {
            Wanted::Range { source, range } => {
                let request = self.terms.of_range(range, mode);
                let step = match source {
                    RowSource::Table(table) => table.scan(&request, mode)?,
                    RowSource::Snapshot(snapshot) => snapshot.scan(&request, mode)?,
                };
                match step {
                    ScanStep::Done(outcome) => Ok(Some(Found::Range(outcome))),
                    ScanStep::WouldBlock => Ok(None),
                }
            }
            Wanted::Keys { table, stored } => self.terms.read_keys(table, stored, mode),
        }
    }

    /// True if an inline read need not be done again in the pool.
    pub(crate) fn accepts(&self, found: &Found) -> bool {
        match self.inline {
            Inline::Never => false,
            Inline::Whole => found.is_complete(),
            Inline::Satisfied => found.is_complete() || self.terms.are_met(found),
            Inline::Slice => true,
        }
    }
}

impl Wanted {
    /// The snapshot that it was read from.
    pub(crate) fn snapshot(self) -> Option<Arc<TableSnapshot>> {
        match self {
            Wanted::Range { source: RowSource::Snapshot(snapshot), .. } => Some(snapshot),
            _ => None,
        }
    }
}

impl Found {
    /// True if the end of what was asked was reached.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Found::Range(outcome) => outcome.complete,
            Found::Keys { complete, .. } => *complete,
        }
    }
}

impl Terms {
    fn of_range<'a>(&self, range: &'a Range, mode: ReadMode) -> ScanRequest<'a> {
        ScanRequest {
            start: &range.start,
            stop: &range.stop,
            start_inclusive: range.start_inclusive,
            reverse: range.reverse,
            sort_keys: range.sort_keys.borrowed(),
            hash_key_filter: range.hash_key_filter.borrowed(),
            sort_key_filter: range.sort_key_filter.borrowed(),
            rows_max: self.rows_max,
            // A core runs only so long; what is larger is read in the pool.
            bytes_max: if mode == ReadMode::CacheOnly { self.bytes_max.min(READ_BYTES_TARGET) } else { self.bytes_max },
            iterations_max: if mode == ReadMode::CacheOnly { INLINE_ITERATIONS_MAX } else { SCAN_ITERATIONS_MAX },
            until: self.until,
            no_value: self.no_value,
            key_prefix: self.key_prefix,
            count_only: self.count_only,
            now_seconds: self.now_seconds,
        }
    }

    /// True if as many rows or bytes were found as may be. Counts are bounded by neither.
    fn are_met(&self, found: &Found) -> bool {
        match found {
            Found::Range(ScanOutcome { rows, .. }) => {
                !self.count_only && (rows.len() >= self.rows_max || rows.bytes() >= self.bytes_max)
            }
            Found::Keys { .. } => true,
        }
    }

    fn read_keys(&self, table: &Table, stored: &[Vec<u8>], mode: ReadMode) -> Result<Option<Found>, TableError> {
        let mut rows = Vec::with_capacity(if self.count_only { 0 } else { stored.len().min(self.rows_max) });
        let (mut bytes, mut count) = (0, 0);
        for (position, key) in stored.iter().enumerate() {
            let full = rows.len() >= self.rows_max || bytes >= self.bytes_max;
            let late = || self.until.is_some_and(|until| Instant::now() >= until);
            if position > 0 && (full || late()) {
                let resume_after = stored[position - 1].clone();
                return Ok(Some(Found::Keys { rows, count, complete: false, resume_after }));
            }
            match table.read_row(key, self.now_seconds, mode)? {
                Lookup::WouldBlock => return Ok(None),
                Lookup::Missing => {}
                Lookup::Found { value, expiry_seconds } => {
                    count += 1;
                    if !self.count_only {
                        let value = if self.no_value { Vec::new() } else { value.into_vec() };
                        let key = key.get(self.key_prefix..).unwrap_or_default().to_vec();
                        bytes += key.len() + value.len();
                        rows.push(KeyedRow { key, value, expiry_seconds });
                    }
                }
            }
        }
        Ok(Some(Found::Keys { rows, count, complete: true, resume_after: Vec::new() }))
    }
}
