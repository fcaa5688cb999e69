//! The range of a scan in terms of an iterator, narrowed by all that the request alone tells.

use pegasus_wire::key::{ROWS_END, after_prefix, encode};
use pegasus_wire::limits::{HASH_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX};
use pegasus_wire::messages::data::{Filter, FilterKind, SortKeys};
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions, ReadTier};

use super::layout::{hash_key_prefix, is_after_prefix};
use super::{ReadMode, ScanRequest};

/// Inclusive first key and exclusive end, below the engine's own keys; `first < end`.
pub(super) struct SeekRange {
    first: Vec<u8>,
    end: Vec<u8>,
    /// All keys of the range have one hash key: so many bytes of `first` are its length and itself.
    one_hash_key: Option<usize>,
    sort_keys: SortKeyBounds,
}

/// Which sort keys of each hash key can be wanted.
#[derive(Default)]
pub(super) struct SortKeyBounds {
    /// The lowest one.
    pub(super) low: Vec<u8>,
    /// The first one above them; `None` if there is none.
    pub(super) high: Option<Vec<u8>>,
}

impl SeekRange {
    /// `None` if no row can be wanted.
    pub(super) fn new(request: &ScanRequest<'_>) -> Option<SeekRange> {
        let mut first = request.start.to_vec();
        if !request.start_inclusive {
            // The smallest key above `start`.
            first.push(0);
        }
        let unbounded = request.stop.is_empty() || request.stop > &ROWS_END[..];
        let end = if unbounded { ROWS_END.to_vec() } else { request.stop.to_vec() };
        let sort_keys = SortKeyBounds::new(&request.sort_keys, &request.sort_key_filter)?;
        let mut range = SeekRange { first, end, one_hash_key: None, sort_keys };
        range.narrow_to_hash_keys(&request.hash_key_filter)?;
        range.narrow_to_one_hash_key();
        (range.first < range.end).then_some(range)
    }

    /// Hash keys that begin with a pattern are at least as long; a whole hash key is one range.
    fn narrow_to_hash_keys(&mut self, filter: &Filter<'_>) -> Option<()> {
        let prefix = filter.prefix();
        if prefix.is_empty() {
            return Some(());
        }
        if prefix.len() > HASH_KEY_BYTES_MAX {
            return None;
        }
        let least = encode(prefix, b"");
        if filter.kind == FilterKind::Exact {
            let end = after_prefix(&least).expect("a hash key length is never FF FF");
            if end < self.end {
                self.end = end;
            }
        }
        if least > self.first {
            self.first = least;
        }
        Some(())
    }

    /// Inside one hash key the bounds of the sort keys are bounds of the range.
    fn narrow_to_one_hash_key(&mut self) {
        let Some(prefix) = hash_key_prefix(&self.first) else { return };
        if self.first >= self.end || !(self.end.starts_with(prefix) || is_after_prefix(&self.end, prefix)) {
            return;
        }
        self.one_hash_key = Some(prefix.len());
        let SortKeyBounds { low, high } = std::mem::take(&mut self.sort_keys);
        if let Some(high) = high {
            let end = [prefix, &high].concat();
            if end < self.end {
                self.end = end;
            }
        }
        if !low.is_empty() {
            let first = [prefix, &low].concat();
            if first > self.first {
                self.first = first;
            }
        }
    }

    /// What is left to be judged row by row.
    pub(super) fn sort_keys(&self) -> &SortKeyBounds {
        &self.sort_keys
    }

    pub(super) fn read_options(&self, mode: ReadMode, reverse: bool) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.set_iterate_upper_bound(self.end.as_slice());
        if reverse {
            options.set_iterate_lower_bound(self.first.as_slice());
        }
        // The filters know hash keys: a range inside one skips the files without it. What an iterator finds beyond the
        // hash key is not defined then, and beyond its bounds.
        let one_hash_key = self.one_hash_key.is_some();
        options.set_total_order_seek(!one_hash_key);
        // A walk through the table must not push out what is read often.
        options.fill_cache(one_hash_key);
        // Files that nobody needs after this are deleted by a background thread, not by the reader.
        options.set_background_purge_on_iterator_cleanup(true);
        if mode == ReadMode::CacheOnly {
            options.set_read_tier(ReadTier::BlockCache);
            // Where a great many rows were deleted one step can take long; then it is one for the pool.
            options.set_max_skippable_internal_keys(DELETED_ROWS_PER_STEP_MAX);
        }
        options
    }

    /// Goes to the first row or, in reverse, to the last one.
    pub(super) fn begin(&self, iterator: &mut DBRawIteratorWithThreadMode<'_, DB>, reverse: bool) {
        match self.one_hash_key {
            _ if !reverse => iterator.seek(&self.first),
            // The place to seek from must have the hash key of the range itself, or the filters are asked for another.
            Some(prefix) if !self.end.starts_with(&self.first[..prefix]) => {
                let mut last = self.first[..prefix].to_vec();
                last.resize(prefix + SORT_KEY_BYTES_MAX + 1, 0xFF);
                iterator.seek_for_prev(last);
            }
            _ => jump(iterator, &self.end, true),
        }
    }
}

impl SortKeyBounds {
    /// `None` if no sort key can be wanted.
    fn new(range: &SortKeys<'_>, filter: &Filter<'_>) -> Option<SortKeyBounds> {
        let mut low = range.start.to_vec();
        if !range.start_inclusive {
            low.push(0);
        }
        let mut high = (!range.stop.is_empty()).then(|| range.stop.to_vec());
        if let (Some(high), true) = (&mut high, range.stop_inclusive) {
            high.push(0);
        }
        let prefix = filter.prefix();
        if !prefix.is_empty() {
            let end = match filter.kind {
                FilterKind::Exact => Some([prefix, &[0]].concat()),
                _ => after_prefix(prefix),
            };
            high = [high, end].into_iter().flatten().min();
            if prefix > &low[..] {
                low = prefix.to_vec();
            }
        }
        high.as_ref().is_none_or(|high| low < *high).then_some(SortKeyBounds { low, high })
    }
}

pub(super) fn step(iterator: &mut DBRawIteratorWithThreadMode<'_, DB>, reverse: bool) {
    if reverse {
        iterator.prev();
    } else {
        iterator.next();
    }
}

/// Goes to the first row at or above the target or, in reverse, to the last one below it.
pub(super) fn jump(iterator: &mut DBRawIteratorWithThreadMode<'_, DB>, target: &[u8], reverse: bool) {
    if !reverse {
        return iterator.seek(target);
    }
    iterator.seek_for_prev(target);
    if iterator.key() == Some(target) {
        iterator.prev();
    }
}

/// Deleted rows that one step of a serving core passes over; at about 100 ns each.
const DELETED_ROWS_PER_STEP_MAX: u64 = 1000;
