//! What scans may be asked, with a naive answer: every row is looked at and judged by the words of the request.

use std::collections::BTreeMap;

use pegasus_engine::table::{ReadMode, Scan, ScanOutcome, ScanRequest, Table, TableSnapshot};
use pegasus_wire::expiry::is_expired;
use pegasus_wire::key::{decode, encode};
use pegasus_wire::messages::data::{Filter, FilterKind, SortKeys};
use proptest::prelude::*;
use proptest::sample::select;

/// Rows by stored key: value and expiry.
pub(crate) type Rows = BTreeMap<Vec<u8>, (Vec<u8>, u32)>;

/// A row as it is returned.
pub(crate) type Row = (Vec<u8>, Vec<u8>, u32);

/// Where rows are read.
pub(crate) trait Source {
    /// One slice.
    fn slice(&self, request: &ScanRequest<'_>) -> ScanOutcome;
}

impl Source for Table {
    fn slice(&self, request: &ScanRequest<'_>) -> ScanOutcome {
        done(self.scan(request, ReadMode::Blocking).unwrap())
    }
}

impl Source for TableSnapshot {
    fn slice(&self, request: &ScanRequest<'_>) -> ScanOutcome {
        done(self.scan(request, ReadMode::Blocking).unwrap())
    }
}

fn done(scan: Scan) -> ScanOutcome {
    match scan {
        Scan::Done(outcome) => outcome,
        Scan::WouldBlock => panic!("a blocking scan never would block"),
    }
}

/// A scan without its limits.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) start: Vec<u8>,
    pub(crate) start_inclusive: bool,
    pub(crate) stop: Vec<u8>,
    pub(crate) reverse: bool,
    pub(crate) sort_keys: (Vec<u8>, bool, Vec<u8>, bool),
    pub(crate) hash_key_filter: (FilterKind, Vec<u8>),
    pub(crate) sort_key_filter: (FilterKind, Vec<u8>),
}

impl Query {
    /// All rows.
    pub(crate) fn everything() -> Query {
        Query {
            start: vec![],
            start_inclusive: true,
            stop: vec![],
            reverse: false,
            sort_keys: (vec![], true, vec![], true),
            hash_key_filter: (FilterKind::None, vec![]),
            sort_key_filter: (FilterKind::None, vec![]),
        }
    }

    pub(crate) fn request(&self, now_seconds: u32) -> ScanRequest<'_> {
        let (start, start_inclusive, stop, stop_inclusive) = &self.sort_keys;
        ScanRequest {
            start: &self.start,
            start_inclusive: self.start_inclusive,
            stop: &self.stop,
            reverse: self.reverse,
            sort_keys: SortKeys { start, stop, start_inclusive: *start_inclusive, stop_inclusive: *stop_inclusive },
            hash_key_filter: Filter { kind: self.hash_key_filter.0, pattern: &self.hash_key_filter.1 },
            sort_key_filter: Filter { kind: self.sort_key_filter.0, pattern: &self.sort_key_filter.1 },
            ..ScanRequest::everything(now_seconds)
        }
    }

    /// The rows that are wanted, in the order of the scan.
    pub(crate) fn expected(&self, rows: &Rows, now_seconds: u32) -> Vec<Row> {
        let live = rows.iter().filter(|(key, (_, expiry))| self.wants(key) && !is_expired(*expiry, now_seconds));
        let mut found: Vec<Row> = live.map(|(key, (value, expiry))| (key.clone(), value.clone(), *expiry)).collect();
        if self.reverse {
            found.reverse();
        }
        found
    }

    fn wants(&self, key: &[u8]) -> bool {
        let (hash_key, sort_key) = decode(key).unwrap();
        let (low, low_inclusive, high, high_inclusive) = &self.sort_keys;
        let after_start = key > &self.start[..] || (self.start_inclusive && key == self.start);
        let before_stop = self.stop.is_empty() || key < &self.stop[..];
        let above = sort_key > &low[..] || (*low_inclusive && sort_key == low);
        let below = high.is_empty() || sort_key < &high[..] || (*high_inclusive && sort_key == high);
        let filters = matches(&self.hash_key_filter, hash_key) && matches(&self.sort_key_filter, sort_key);
        after_start && before_stop && above && below && filters
    }

    /// Reads all slices; each has at most so many rows, and looks at one more at most.
    pub(crate) fn in_slices(&self, source: &impl Source, now_seconds: u32, slice: usize) -> Vec<Row> {
        let mut query = self.clone();
        let mut rows = Vec::new();
        loop {
            let limits = ScanRequest { rows_max: slice, iterations_max: slice + 1, ..query.request(now_seconds) };
            let outcome = source.slice(&limits);
            let counted = source.slice(&ScanRequest { count_only: true, ..limits });
            assert!(outcome.rows.len() <= slice && outcome.count == outcome.rows.len() as u64);
            assert!(counted.rows.is_empty() && counted.count >= outcome.count);
            rows.extend(outcome.rows.iter().map(|row| (row.key.to_vec(), row.value.to_vec(), row.expiry_seconds)));
            if outcome.complete {
                assert!(outcome.resume_after.is_empty());
                return rows;
            }
            let after = outcome.resume_after;
            if self.reverse {
                assert!(query.stop.is_empty() || after < query.stop, "a slice moves on");
                query.stop = after;
            } else {
                assert!(after > query.start || (query.start_inclusive && after == query.start), "a slice moves on");
                (query.start, query.start_inclusive) = (after, false);
            }
        }
    }

    /// Compares all ways of asking with the rows there should be.
    pub(crate) fn check(&self, source: &impl Source, rows: &Rows, now_seconds: u32, slice: usize) {
        let expected = self.expected(rows, now_seconds);
        let found = self.in_slices(source, now_seconds, slice);
        assert!(found == expected, "{self:?}\nfound {found:?}\nexpected {expected:?}");
        let count = source.slice(&ScanRequest { count_only: true, ..self.request(now_seconds) });
        assert_eq!((count.count as usize, count.complete, count.rows.len()), (expected.len(), true, 0), "{self:?}");
        let keys = source.slice(&ScanRequest { no_value: true, ..self.request(now_seconds) });
        assert!(keys.rows.iter().map(|row| row.key).eq(expected.iter().map(|(key, ..)| &key[..])), "{self:?}");
        assert!(keys.rows.iter().all(|row| row.value.is_empty()));
    }
}

/// Not the product's own `matches`.
fn matches((kind, pattern): &(FilterKind, Vec<u8>), key: &[u8]) -> bool {
    let at = |begin: usize| key.get(begin..begin + pattern.len()) == Some(pattern);
    match kind {
        FilterKind::None => true,
        FilterKind::Anywhere => (0..=key.len()).any(at),
        FilterKind::Prefix => at(0),
        FilterKind::Postfix => key.len() >= pattern.len() && at(key.len() - pattern.len()),
        FilterKind::Exact => pattern.is_empty() || key == pattern,
    }
}

/// Hash keys of several lengths, some of which begin with others, some with FF.
pub(crate) fn hash_keys() -> Vec<Vec<u8>> {
    let texts = ["a", "b", "aa", "ab", "ba", "aab", "aba", "abb", "bbb", "abab"];
    let mut keys: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    keys.extend([vec![0xFF], vec![0xFF; 3], vec![b'a', 0xFF], vec![0; 2]]);
    keys
}

pub(crate) fn sort_keys() -> Vec<Vec<u8>> {
    let texts = ["", "a", "aa", "ab", "b", "b\0", "ba", "bab", "c", "d"];
    let mut keys: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    keys.extend([vec![0xFF], vec![0xFF; 2], vec![0xFF, b'a']]);
    keys
}

/// A place in the order of stored keys: a row, near one, or none at all.
fn place() -> impl Strategy<Value = Vec<u8>> {
    let row = (select(hash_keys()), select(sort_keys())).prop_map(|(hash, sort)| encode(&hash, &sort));
    let odd: Vec<Vec<u8>> =
        vec![vec![], vec![0], vec![0, 2], vec![0, 3, b'a'], vec![0, 9], vec![0xFF, 0xFF], vec![0xFF, 0xFF, b'd']];
    prop_oneof![3 => row, 1 => select(odd)]
}

fn filter(pattern: Vec<Vec<u8>>) -> impl Strategy<Value = (FilterKind, Vec<u8>)> {
    let kinds = vec![FilterKind::Anywhere, FilterKind::Prefix, FilterKind::Postfix, FilterKind::Exact];
    prop_oneof![
        2 => Just((FilterKind::None, vec![])),
        3 => (select(kinds), select(pattern)),
    ]
}

/// Any scan.
pub(crate) fn query() -> impl Strategy<Value = Query> {
    let patterns = ["", "a", "b", "ab", "ba", "aba", "abc"].iter().map(|text| text.as_bytes().to_vec());
    let patterns: Vec<Vec<u8>> = patterns.chain([vec![0xFF], vec![0xFF; 2], vec![b'a'; 2000]]).collect();
    let range = prop_oneof![
        2 => (Just((vec![], vec![])), Just((true, true))),
        3 => ((select(sort_keys()), select(sort_keys())), (any::<bool>(), any::<bool>())),
    ];
    let whole = prop_oneof![1 => (Just(vec![]), Just(vec![])), 2 => (place(), place())];
    let one = (select(hash_keys()), select(sort_keys()), select(sort_keys()), any::<bool>()).prop_map(
        |(hash, start, stop, to_end)| {
            let stop = if to_end { vec![] } else { stop };
            pegasus_engine::table::hash_key_range(&hash, &start, &stop, true)
        },
    );
    (prop_oneof![whole, one], any::<(bool, bool)>(), range, filter(patterns.clone()), filter(patterns)).prop_map(
        |((start, stop), (start_inclusive, reverse), ((low, high), inclusive), hash_key_filter, sort_key_filter)| {
            let sort_keys = (low, inclusive.0, high, inclusive.1);
            Query { start, start_inclusive, stop, reverse, sort_keys, hash_key_filter, sort_key_filter }
        },
    )
}
