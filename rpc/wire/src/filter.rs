//! Which keys a request means: patterns and ranges of sort keys, with Pegasus's rules.
//!
//! Requests carry both as they were asked; this is the only place that says what they mean, for servers, clients and
//! tests alike.

use memchr::memmem;

use crate::messages::data::{ArchivedFilter, ArchivedFilterKind, ArchivedSortKeys, Filter, FilterKind, SortKeys};

/// True if the pattern is where it has to be in the key. An empty pattern matches every key.
pub fn matches(kind: FilterKind, pattern: &[u8], key: &[u8]) -> bool {
    if pattern.is_empty() {
        return true;
    }
    match kind {
        FilterKind::None => true,
        FilterKind::Anywhere => memmem::find(key, pattern).is_some(),
        FilterKind::Prefix => key.starts_with(pattern),
        FilterKind::Postfix => key.ends_with(pattern),
        FilterKind::Exact => key == pattern,
    }
}

impl Filter<'_> {
    /// Every key matches.
    pub const ALL: Filter<'static> = Filter { kind: FilterKind::None, pattern: b"" };

    /// True if every key matches.
    pub fn is_off(&self) -> bool {
        self.kind == FilterKind::None || self.pattern.is_empty()
    }

    /// True if this key is wanted.
    pub fn matches(&self, key: &[u8]) -> bool {
        matches(self.kind, self.pattern, key)
    }

    /// What every wanted key begins with; empty if nothing is known about that.
    pub fn prefix(&self) -> &[u8] {
        match self.kind {
            FilterKind::Prefix | FilterKind::Exact => self.pattern,
            FilterKind::None | FilterKind::Anywhere | FilterKind::Postfix => b"",
        }
    }
}

impl ArchivedFilter<'_> {
    /// The same filter, borrowed.
    pub fn plain(&self) -> Filter<'_> {
        Filter { kind: self.kind.into(), pattern: &self.pattern }
    }
}

impl From<ArchivedFilterKind> for FilterKind {
    fn from(archived: ArchivedFilterKind) -> FilterKind {
        match archived {
            ArchivedFilterKind::None => FilterKind::None,
            ArchivedFilterKind::Anywhere => FilterKind::Anywhere,
            ArchivedFilterKind::Prefix => FilterKind::Prefix,
            ArchivedFilterKind::Postfix => FilterKind::Postfix,
            ArchivedFilterKind::Exact => FilterKind::Exact,
        }
    }
}

impl FilterKind {
    /// The kind with this number, which is Pegasus's.
    pub fn from_code(code: u8) -> Option<FilterKind> {
        let all = [FilterKind::None, FilterKind::Anywhere, FilterKind::Prefix, FilterKind::Postfix, FilterKind::Exact];
        all.get(usize::from(code)).copied()
    }
}

impl SortKeys<'_> {
    /// True if every sort key is in the range.
    pub fn is_all(&self) -> bool {
        self.start.is_empty() && self.start_inclusive && self.stop.is_empty()
    }

    /// True if no sort key can be in the range: it is reversed, or its ends meet and one of them is left out.
    pub fn is_empty(&self) -> bool {
        let meets = self.start == self.stop && !(self.start_inclusive && self.stop_inclusive);
        !self.stop.is_empty() && (self.start > self.stop || meets)
    }

    /// True if this sort key is in the range.
    pub fn contains(&self, sort_key: &[u8]) -> bool {
        let start = || if self.start_inclusive { sort_key >= self.start } else { sort_key > self.start };
        let stop = || if self.stop_inclusive { sort_key <= self.stop } else { sort_key < self.stop };
        ((self.start.is_empty() && self.start_inclusive) || start()) && (self.stop.is_empty() || stop())
    }
}

impl ArchivedSortKeys<'_> {
    /// The same range, borrowed.
    pub fn plain(&self) -> SortKeys<'_> {
        SortKeys {
            start: &self.start,
            stop: &self.stop,
            start_inclusive: self.start_inclusive,
            stop_inclusive: self.stop_inclusive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [FilterKind; 5] =
        [FilterKind::None, FilterKind::Anywhere, FilterKind::Prefix, FilterKind::Postfix, FilterKind::Exact];

    #[test]
    fn a_pattern_has_its_place() {
        let found = |pattern: &[u8], key: &[u8]| KINDS.map(|kind| matches(kind, pattern, key));
        assert_eq!(found(b"b", b"abc"), [true, true, false, false, false]);
        assert_eq!(found(b"a", b"abc"), [true, true, true, false, false]);
        assert_eq!(found(b"c", b"abc"), [true, true, false, true, false]);
        assert_eq!(found(b"abc", b"abc"), [true, true, true, true, true]);
        assert_eq!(found(b"abcd", b"abc"), [true, false, false, false, false]);
        assert_eq!(found(b"\0\xFF", b"x\0\xFF"), [true, true, false, true, false]);
        assert_eq!(found(b"x", b""), [true, false, false, false, false]);
        assert_eq!(found(b"", b""), [true; 5], "an empty pattern matches every key");
        assert_eq!(found(b"", b"abc"), [true; 5]);
    }

    #[test]
    fn kinds_have_pegasus_numbers() {
        for kind in KINDS {
            assert_eq!(FilterKind::from_code(kind as u8), Some(kind));
        }
        assert_eq!(FilterKind::from_code(5), None);
        assert_eq!((FilterKind::Anywhere as u8, FilterKind::Postfix as u8), (1, 3));
    }

    #[test]
    fn a_filter_knows_whether_it_does_anything() {
        let filter = |kind, pattern| Filter { kind, pattern };
        assert!(Filter::ALL.is_off() && filter(FilterKind::None, b"x").is_off());
        assert!(filter(FilterKind::Exact, b"").is_off() && !filter(FilterKind::Exact, b"x").is_off());
        assert_eq!(KINDS.map(|kind| filter(kind, b"x").prefix().len()), [0, 0, 1, 0, 1]);
    }

    #[test]
    fn ranges_have_ends() {
        let range =
            |start, start_inclusive, stop, stop_inclusive| SortKeys { start, stop, start_inclusive, stop_inclusive };
        assert!(SortKeys::ALL.is_all() && !SortKeys::ALL.is_empty() && SortKeys::ALL.contains(b""));
        assert!(range(b"", true, b"", false).is_all(), "an empty stop is no stop, inclusive or not");
        assert!(!range(b"", false, b"", true).is_all() && !range(b"", false, b"", true).contains(b""));
        assert!(range(b"a", true, b"a", true).contains(b"a") && !range(b"a", true, b"a", true).is_empty());
        for empty in [range(b"a", true, b"a", false), range(b"a", false, b"a", true), range(b"b", true, b"a", true)] {
            assert!(empty.is_empty() && !empty.contains(b"a") && !empty.contains(b"b"));
        }
        assert!(!range(b"a", false, b"b", false).is_empty(), "there is always a key between two: a, then zero");
        assert!(range(b"a", false, b"b", false).contains(b"a\0"));
    }

    proptest! {
        #[test]
        fn a_prefix_begins_every_key_that_matches(
            kind in proptest::sample::select(KINDS.to_vec()),
            pattern in proptest::collection::vec(0u8..3, 0..4),
            key in proptest::collection::vec(0u8..3, 0..6),
        ) {
            let filter = Filter { kind, pattern: &pattern };
            if filter.matches(&key) {
                prop_assert!(key.starts_with(filter.prefix()));
            }
            let naive = pattern.is_empty() || key.windows(pattern.len()).any(|window| window == pattern);
            prop_assert_eq!(matches(FilterKind::Anywhere, &pattern, &key), naive);
        }

        #[test]
        fn an_empty_range_contains_nothing(
            start in proptest::collection::vec(0u8..3, 0..3),
            stop in proptest::collection::vec(0u8..3, 0..3),
            start_inclusive in any::<bool>(),
            stop_inclusive in any::<bool>(),
            key in proptest::collection::vec(0u8..3, 0..4),
        ) {
            let range = SortKeys { start: &start, stop: &stop, start_inclusive, stop_inclusive };
            prop_assert!(!(range.is_empty() && range.contains(&key)));
            prop_assert!(!range.is_all() || range.contains(&key));
        }
    }
}
