//! Ranges of stored keys in one partition. Pure.

use bytes::Bytes;
use pegasus_wire::key::{ROWS_END, after_prefix, encode};

use crate::dispatch::Target;
use crate::error::Error;
use crate::keys::{HashKeyRange, SortKeyRange};
use crate::range_read::{check_progress, check_reverse_progress};

/// A range of stored keys in one partition that is still to be read.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// The partition.
    pub(crate) target: Target,
    /// First stored key.
    pub(crate) start: Bytes,
    /// Whether it belongs to the range.
    pub(crate) start_inclusive: bool,
    /// Exclusive; empty means to the end of the partition.
    pub(crate) stop: Bytes,
}

impl Section {
    /// Everything between two stored keys, the first included.
    pub(crate) fn between(target: Target, start: Vec<u8>, stop: Vec<u8>) -> Section {
        Section { target, start: start.into(), start_inclusive: true, stop: stop.into() }
    }

    /// All of a partition.
    pub(crate) fn partition(index: u32) -> Section {
        Section::between(Target::index(index), Vec::new(), Vec::new())
    }

    /// The rows of one hash key with sort keys in a range.
    pub(crate) fn hash_key(hash_key: &[u8], range: &SortKeyRange) -> Section {
        let stop = if range.stop.is_empty() {
            after_hash_key(hash_key)
        } else {
            let mut stop = encode(hash_key, &range.stop);
            if range.stop_inclusive {
                // The smallest key above `stop`.
                stop.push(0);
            }
            stop
        };
        Section {
            target: Target::hash_key(hash_key),
            start: encode(hash_key, &range.start).into(),
            start_inclusive: range.start_inclusive,
            stop: stop.into(),
        }
    }

    /// The hash keys of a range in stored order, shorter ones first, that are in one partition.
    pub(crate) fn hash_keys(index: u32, range: &HashKeyRange) -> Section {
        let start = match &range.start[..] {
            [] => Vec::new(),
            start if range.start_inclusive => encode(start, b""),
            start => after_hash_key(start),
        };
        let stop = match &range.stop[..] {
            [] => Vec::new(),
            stop if range.stop_inclusive => after_hash_key(stop),
            stop => encode(stop, b""),
        };
        Section::between(Target::index(index), start, stop)
    }

    /// True if no key can be in it.
    pub(crate) fn is_empty(&self) -> bool {
        !self.stop.is_empty() && self.start >= self.stop
    }

    /// Leaves out what was looked at, up to a key that is not wanted again.
    pub(crate) fn continue_after(&mut self, resume_after: Bytes, reverse: bool) -> Result<(), Error> {
        if reverse {
            check_reverse_progress(&self.stop, false, &resume_after)?;
            if resume_after.is_empty() {
                return Err(Error::Protocol("the answer to a scan continues at no key".into()));
            }
            self.stop = resume_after;
        } else {
            check_progress(&self.start, self.start_inclusive, &resume_after)?;
            (self.start, self.start_inclusive) = (resume_after, false);
        }
        Ok(())
    }
}

/// The smallest stored key above all rows of a hash key.
pub(crate) fn after_hash_key(hash_key: &[u8]) -> Vec<u8> {
    // A hash key within its limit has a successor: its length is no FF FF.
    after_prefix(&encode(hash_key, b"")).unwrap_or_else(|| ROWS_END.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_section(section: &Section, hash_key: &[u8], sort_key: &[u8]) -> bool {
        let key = encode(hash_key, sort_key);
        let from_start = if section.start_inclusive { key[..] >= section.start } else { key[..] > section.start };
        from_start && (section.stop.is_empty() || key[..] < section.stop)
    }

    #[test]
    fn a_hash_key_section_holds_exactly_its_rows() {
        let all = Section::hash_key(b"h\xFF", &SortKeyRange::default());
        assert!(in_section(&all, b"h\xFF", b"") && in_section(&all, b"h\xFF", &[0xFF; 40]));
        assert!(
            !in_section(&all, b"h", b"\xFF\xFF") && !in_section(&all, b"i\0", b"") && !in_section(&all, b"h\xFFx", b"")
        );
    }

    #[test]
    fn both_ends_can_be_inside_or_outside() {
        let mut range = SortKeyRange { start: b"b".into(), stop: b"d".into(), ..SortKeyRange::default() };
        let held = |range: &SortKeyRange| {
            let section = Section::hash_key(b"h", range);
            [&b"a"[..], b"b", b"c", b"d", b"d\0"].map(|key| in_section(&section, b"h", key))
        };
        assert_eq!(held(&range), [false, true, true, false, false]);
        range.start_inclusive = false;
        range.stop_inclusive = true;
        assert_eq!(held(&range), [false, false, true, true, false]);
    }

    #[test]
    fn hash_keys_are_ordered_by_length_first() {
        let mut range = HashKeyRange { start: b"b".into(), stop: b"\xFF\xFF".into(), ..HashKeyRange::default() };
        let held = |range: &HashKeyRange| {
            let section = Section::hash_keys(0, range);
            [&b"a"[..], b"b", b"c", b"aa", b"\xFF\xFF", b"aaa"].map(|key| in_section(&section, key, b"\xFF"))
        };
        assert_eq!(held(&range), [false, true, true, true, false, false]);
        range.start_inclusive = false;
        range.stop_inclusive = true;
        assert_eq!(held(&range), [false, false, true, true, true, false]);
        assert_eq!(held(&HashKeyRange::default()), [true; 6]);
        let reversed = HashKeyRange { start: b"aa".into(), stop: b"b".into(), ..HashKeyRange::default() };
        assert!(Section::hash_keys(0, &reversed).is_empty());
    }

    #[test]
    fn a_reversed_range_is_empty() {
        let range = SortKeyRange { start: b"d".into(), stop: b"b".into(), ..SortKeyRange::default() };
        assert!(Section::hash_key(b"h", &range).is_empty());
        assert!(!Section::partition(0).is_empty());
    }

    #[test]
    fn it_shrinks_from_the_side_it_is_read_from() {
        let mut section = Section::hash_key(b"h", &SortKeyRange::default());
        section.continue_after(encode(b"h", b"m").into(), false).expect("progress");
        assert!(!in_section(&section, b"h", b"m") && in_section(&section, b"h", b"m\0"));
        section.continue_after(encode(b"h", b"x").into(), true).expect("progress");
        assert!(!in_section(&section, b"h", b"x") && in_section(&section, b"h", b"w\xFF"));
        assert!(section.continue_after(encode(b"h", b"x").into(), true).is_err(), "no progress");
        assert!(section.continue_after(encode(b"h", b"m").into(), false).is_err(), "no progress");
        let mut section = Section::partition(0);
        assert!(section.continue_after(Bytes::new(), true).is_err(), "an empty stop would mean the end");
    }
}
