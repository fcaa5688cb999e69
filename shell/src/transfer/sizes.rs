//! Statistics about the sizes of rows, exact and in bounded memory: no key or value is longer than some 400,000 bytes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;
use pegasus_client::ScanRow;
use serde_json::{Value, json};

use crate::output::Grid;
use crate::units::bytes_text;

/// How often each size occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    counts: BTreeMap<usize, u64>,
}

impl Sizes {
    /// Notes one.
    pub fn note(&mut self, bytes: usize) {
        *self.counts.entry(bytes).or_default() += 1;
    }

    /// Takes over what another one has noted.
    pub fn merge(&mut self, other: &Sizes) {
        for (&bytes, count) in &other.counts {
            *self.counts.entry(bytes).or_default() += count;
        }
    }

    /// How many were noted.
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// All of them together.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|(&bytes, count)| bytes as u64 * count).sum()
    }

    /// The average, rounded down; 0 if there is none.
    pub fn average(&self) -> u64 {
        self.total().checked_div(self.count()).unwrap_or(0)
    }

    /// The smallest and the largest; 0 if there is none.
    pub fn bounds(&self) -> (usize, usize) {
        let ends = (self.counts.first_key_value(), self.counts.last_key_value());
        (ends.0.map_or(0, |(&bytes, _)| bytes), ends.1.map_or(0, |(&bytes, _)| bytes))
    }

    /// The smallest size that at least so many percent do not exceed; 0 if there is none.
    pub fn percentile(&self, percent: u64) -> usize {
        let needed = (self.count() * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (&bytes, count) in &self.counts {
            seen += count;
            if seen >= needed {
                return bytes;
            }
        }
        0
    }
}

/// The sizes of the parts of rows, and the largest rows.
#[derive(Clone, Debug, Default)]
pub struct RowSizes {
    hash_keys: Sizes,
    sort_keys: Sizes,
    values: Sizes,
    rows: Sizes,
    top_max: usize,
    /// The largest rows; the smallest of them is at hand.
    top: BinaryHeap<Reverse<(usize, Bytes, Bytes)>>,
}

impl RowSizes {
    /// Nothing yet; remembers so many of the largest rows.
    pub fn new(top_max: usize) -> RowSizes {
        RowSizes { top_max, ..RowSizes::default() }
    }

    /// Notes one row.
    pub fn note(&mut self, row: &ScanRow) {
        let (hash_key, sort_key, value) = (row.hash_key.len(), row.sort_key.len(), row.value.len());
        self.hash_keys.note(hash_key);
        self.sort_keys.note(sort_key);
        self.values.note(value);
        self.rows.note(hash_key + sort_key + value);
        self.offer(hash_key + sort_key + value, &row.hash_key, &row.sort_key);
    }

    /// Takes over what another one has noted.
    pub fn merge(&mut self, other: &RowSizes) {
        self.hash_keys.merge(&other.hash_keys);
        self.sort_keys.merge(&other.sort_keys);
        self.values.merge(&other.values);
        self.rows.merge(&other.rows);
        for Reverse((bytes, hash_key, sort_key)) in &other.top {
            self.offer(*bytes, hash_key, sort_key);
        }
    }

    fn offer(&mut self, bytes: usize, hash_key: &Bytes, sort_key: &Bytes) {
        let is_large = self.top.len() < self.top_max || self.top.peek().is_some_and(|least| least.0.0 < bytes);
        if self.top_max == 0 || !is_large {
            return;
        }
        // Copied: a slice would keep the whole answer it came in.
        let owned = |key: &Bytes| Bytes::copy_from_slice(key);
        self.top.push(Reverse((bytes, owned(hash_key), owned(sort_key))));
        if self.top.len() > self.top_max {
            self.top.pop();
        }
    }

    fn parts(&self) -> [(&'static str, &Sizes); 4] {
        [("hash_key", &self.hash_keys), ("sort_key", &self.sort_keys), ("value", &self.values), ("row", &self.rows)]
    }

    /// The largest rows, the largest first: bytes, hash key, sort key.
    pub fn top(&self) -> Vec<(usize, Bytes, Bytes)> {
        let mut top: Vec<_> = self.top.iter().map(|Reverse(row)| row.clone()).collect();
        top.sort_unstable_by(|left, right| right.cmp(left));
        top
    }

    /// For people.
    pub fn to_text(&self, text: impl Fn(&[u8]) -> String) -> String {
        let mut grid = Grid::new(&["size of", "min", "average", "p50", "p90", "p99", "max", "total"]);
        for (name, sizes) in self.parts() {
            let (min, max) = sizes.bounds();
            let percentiles = [50, 90, 99].map(|percent| sizes.percentile(percent) as u64);
            let numbers = [min as u64, sizes.average(), percentiles[0], percentiles[1], percentiles[2], max as u64];
            let mut cells = vec![name.to_owned()];
            cells.extend(numbers.iter().chain([&sizes.total()]).map(|&bytes| bytes_text(bytes)));
            grid.row(cells);
        }
        let mut out = grid.render();
        if !self.top.is_empty() {
            let mut grid = Grid::new(&["largest", "hash_key", "sort_key"]);
            for (bytes, hash_key, sort_key) in self.top() {
                grid.row(vec![bytes_text(bytes as u64), text(&hash_key), text(&sort_key)]);
            }
            out.push_str(&format!("\n{}", grid.render()));
        }
        out
    }

    /// For programs.
    pub fn to_json(&self, bytes_to_json: impl Fn(&[u8]) -> Value) -> Value {
        let mut out = json!({});
        for (name, sizes) in self.parts() {
            let (min, max) = sizes.bounds();
            out[name] = json!({
                "min": min,
                "average": sizes.average(),
                "p50": sizes.percentile(50),
                "p90": sizes.percentile(90),
                "p99": sizes.percentile(99),
                "max": max,
                "total": sizes.total(),
            });
        }
        let largest = self.top().into_iter().map(|(bytes, hash_key, sort_key)| {
            json!({"bytes": bytes, "hash_key": bytes_to_json(&hash_key), "sort_key": bytes_to_json(&sort_key)})
        });
        out["largest"] = largest.collect();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escape::escape;
    use crate::transfer::format::bytes_to_json;
    use proptest::prelude::*;

    fn row(hash_key: &str, sort_key: &str, value_bytes: usize) -> ScanRow {
        ScanRow {
            hash_key: hash_key.to_owned().into(),
            sort_key: sort_key.to_owned().into(),
            value: vec![0; value_bytes].into(),
            expiry_seconds: 0,
        }
    }

    #[test]
    fn nothing_has_no_size() {
        let sizes = Sizes::default();
        assert_eq!((sizes.average(), sizes.bounds(), sizes.percentile(99)), (0, (0, 0), 0));
    }

    #[test]
    fn the_largest_rows_are_remembered_over_partitions() {
        let (mut one, mut other) = (RowSizes::new(2), RowSizes::new(2));
        for (hash_key, bytes) in [("a", 10), ("b", 30), ("c", 20)] {
            one.note(&row(hash_key, "", bytes));
        }
        other.note(&row("d", "s", 2048));
        one.merge(&other);
        let top: Vec<usize> = one.top().iter().map(|(bytes, ..)| *bytes).collect();
        assert_eq!(top, [2050, 31]);
        let text = one.to_text(escape);
        assert!(text.contains("\nlargest  hash_key  sort_key\n2.0 KiB  d         s\n"), "{text}");
        let value = one.to_json(bytes_to_json);
        assert_eq!(value["value"]["max"], 2048);
        assert_eq!(value["row"]["total"], 2050 + 11 + 21 + 31);
        assert_eq!(value["largest"][1], json!({"bytes": 31, "hash_key": "b", "sort_key": ""}));
        let none = RowSizes::new(0);
        assert!(!none.to_text(escape).contains("largest"));
    }

    proptest! {
        #[test]
        fn statistics_are_exact(values in proptest::collection::vec(0usize..50, 1..80), cut in 0usize..80) {
            let cut = cut.min(values.len());
            let mut sizes = Sizes::default();
            values[..cut].iter().for_each(|&bytes| sizes.note(bytes));
            let mut rest = Sizes::default();
            values[cut..].iter().for_each(|&bytes| rest.note(bytes));
            sizes.merge(&rest);
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let total: usize = values.iter().sum();
            prop_assert_eq!((sizes.count(), sizes.total()), (values.len() as u64, total as u64));
            prop_assert_eq!(sizes.bounds(), (sorted[0], sorted[sorted.len() - 1]));
            for percent in [1, 50, 90, 99, 100] {
                let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
                prop_assert_eq!(sizes.percentile(percent as u64), sorted[place]);
            }
        }
    }
}
