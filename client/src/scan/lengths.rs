//! Where the hash keys of a range are in stored order. Stored order has shorter hash keys first, so a range in the
//! order of the bytes is one piece for each length.
//!
//! ```text
//! range "ab" .. "b" (in the order of the bytes, "b" left out), as it is stored:
//!   length 1   a b                              nothing: "a" comes before "ab"
//!   length 2   aa [ ab .. a\xFF ] b\0
//!   length 3   aa\xFF [ ab\0 .. a\xFF\xFF ] b\0\0
//! ```
//!
//! There may be 1024 lengths, and mostly there are few: those that a partition has are found by asking for the first
//! row at or after each, which costs one request more than there are.

use pegasus_wire::key::{ROWS_END, after_prefix, decode};
use pegasus_wire::limits::HASH_KEY_BYTES_MAX;
use pegasus_wire::messages::data::{Filter, Scan, SortKeys};
use pegasus_wire::{FrameBuilder, MessageKind, TableId};

use super::section::{Section, after_hash_key};
use crate::dispatch::Target;
use crate::error::Error;
use crate::keys::{HashKeyRange, KeyFilter};
use crate::retry::Effect;
use crate::rows::read_page;
use crate::table::Table;

/// The hash keys that a sorted scan wants, as far as that bounds their lengths.
pub(super) struct Wanted<'a> {
    range: &'a HashKeyRange,
    shortest: usize,
    longest: usize,
}

impl<'a> Wanted<'a> {
    /// Those in the range that may pass the filter.
    pub(super) fn new(range: &'a HashKeyRange, filter: &KeyFilter) -> Wanted<'a> {
        let pattern = filter.as_wire().pattern.len();
        let longest = if matches!(filter, KeyFilter::Exact(_)) && pattern > 0 { pattern } else { HASH_KEY_BYTES_MAX };
        Wanted { range, shortest: pattern.max(1), longest }
    }

    /// The stored keys of the hash keys of one length: the first, and the end, exclusive. `None` if there are none.
    fn piece(&self, length: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        let HashKeyRange { start, start_inclusive, stop, stop_inclusive } = self.range;
        let first = if start.len() > length {
            // What begins as `start` does is shorter, and so before it.
            after_hash_key(&start[..length])
        } else if start.len() == length && !start_inclusive {
            after_hash_key(start)
        } else {
            padded(start, length)
        };
        let end = if stop.is_empty() {
            end_of(length)
        } else if stop.len() > length || (stop.len() == length && *stop_inclusive) {
            after_hash_key(&stop[..length])
        } else {
            // What begins as `stop` does and is longer is behind it.
            padded(stop, length)
        };
        (first < end).then_some((first, end))
    }

    /// The next length, from this one on, of which there can be hash keys.
    fn next_length(&self, from: usize) -> Option<usize> {
        (from.max(self.shortest)..=self.longest).find(|&length| self.piece(length).is_some())
    }

    /// The pieces of one partition that have rows, as far as can be told by looking at one row of each.
    pub(super) async fn sections(&self, table: &Table, of: TableId, index: u32) -> Result<Vec<Section>, Error> {
        let target = Target::index(index).of(of);
        let mut sections = Vec::new();
        let mut next = self.next_length(1);
        while let Some(length) = next {
            let Some(found) = probe(table, target, length).await? else { break };
            if found <= self.longest
                && let Some((start, stop)) = self.piece(found)
            {
                sections.push(Section::between(Target::index(index), start, stop));
            }
            next = self.next_length(found + 1);
        }
        Ok(sections)
    }
}

/// The length of the first hash key in a partition that has this length or a greater one. It may be that of rows that
/// have expired.
async fn probe(table: &Table, target: Target, length: usize) -> Result<Option<usize>, Error> {
    let start = (length as u16).to_be_bytes();
    let (kind, deadline) = (MessageKind::SCAN, table.deadline());
    let call = table.core.call(target, kind, Effect::Read, deadline, |out, header, partition| {
        let request = Scan {
            partition,
            context: 0,
            keep_context: false,
            start: &start,
            start_inclusive: true,
            stop: b"",
            reverse: false,
            sort_keys: SortKeys::ALL,
            hash_key_filter: Filter::ALL,
            sort_key_filter: Filter::ALL,
            no_value: true,
            count_only: false,
            rows_max: 1,
        };
        FrameBuilder::append(out, header, &request, &[]);
    });
    let page = read_page(&call.await?)?;
    // Without a row, all that was looked at has expired, and the last key says how far that was.
    let found = page.rows.first().map(|row| &row.sort_key).or(page.resume_after.as_ref());
    let Some(found) = found else { return Ok(None) };
    let found = decode(found).map_err(Error::protocol)?.0.len();
    if found < length {
        return Err(Error::Protocol("the answer to a scan is before its beginning".into()));
    }
    Ok(Some(found))
}

/// The stored key of the smallest hash key of a length that begins with `bytes`.
fn padded(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + length);
    key.extend_from_slice(&(length as u16).to_be_bytes());
    key.extend_from_slice(bytes);
    key.resize(2 + length, 0);
    key
}

/// The end of all hash keys of a length, exclusive.
fn end_of(length: usize) -> Vec<u8> {
    after_prefix(&(length as u16).to_be_bytes()).unwrap_or_else(|| ROWS_END.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegasus_wire::key::encode;
    use proptest::prelude::*;

    fn wanted(range: &HashKeyRange) -> Wanted<'_> {
        Wanted::new(range, &KeyFilter::None)
    }

    #[test]
    fn a_range_is_a_piece_of_each_length() {
        let range = HashKeyRange { start: b"ab".into(), stop: b"b".into(), ..HashKeyRange::default() };
        let wanted = wanted(&range);
        assert_eq!(wanted.piece(1), None);
        assert_eq!(wanted.piece(2), Some((encode(b"ab", b""), encode(b"b\0", b""))));
        assert_eq!(wanted.piece(3), Some((encode(b"ab\0", b""), encode(b"b\0\0", b""))));
        assert_eq!(wanted.next_length(1), Some(2));
    }

    #[test]
    fn one_hash_key_has_one_length() {
        let range =
            HashKeyRange { start: b"abc".into(), stop: b"abc".into(), stop_inclusive: true, ..HashKeyRange::default() };
        assert_eq!((wanted(&range).next_length(1), wanted(&range).next_length(4)), (Some(3), None));
        let nothing = HashKeyRange { stop_inclusive: false, ..range };
        assert_eq!(wanted(&nothing).next_length(1), None);
    }

    #[test]
    fn filters_bound_the_lengths() {
        let all = HashKeyRange::default();
        let lengths = |filter: KeyFilter| {
            let wanted = Wanted::new(&all, &filter);
            (wanted.next_length(1), wanted.next_length(4))
        };
        assert_eq!(lengths(KeyFilter::None), (Some(1), Some(4)));
        assert_eq!(lengths(KeyFilter::Exact(b"".into())), (Some(1), Some(4)));
        assert_eq!(lengths(KeyFilter::Exact(b"abc".into())), (Some(3), None));
        for filter in [KeyFilter::Prefix(b"abc".into()), KeyFilter::Postfix(b"abc".into())] {
            assert_eq!(lengths(filter), (Some(3), Some(4)));
        }
        assert_eq!(wanted(&all).next_length(1025), None);
        assert_eq!(wanted(&all).piece(1024).map(|(start, stop)| (start.len(), stop)), Some((1026, vec![4, 1])));
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xFE), Just(0xFF)], 1..5)
    }

    fn end() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![key(), Just(Vec::new())]
    }

    proptest! {
        #[test]
        fn pieces_hold_exactly_the_range(
            start in end(),
            stop in end(),
            start_inclusive in any::<bool>(),
            stop_inclusive in any::<bool>(),
            hash_key in key(),
            sort_key in proptest::collection::vec(any::<u8>(), 0..3),
        ) {
            let range = HashKeyRange { start, start_inclusive, stop, stop_inclusive };
            let HashKeyRange { start, stop, .. } = &range;
            let after_start = if start_inclusive { hash_key >= *start } else { hash_key > *start };
            let before_stop = if stop_inclusive { hash_key <= *stop } else { hash_key < *stop };
            let expected = after_start && (stop.is_empty() || before_stop);
            let stored = encode(&hash_key, &sort_key);
            let held = |(first, end): (Vec<u8>, Vec<u8>)| stored >= first && stored < end;
            let found = (1..6).filter(|&length| wanted(&range).piece(length).is_some_and(held)).count();
            prop_assert_eq!(found, usize::from(expected));
        }
    }
}
