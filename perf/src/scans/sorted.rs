//! Scans in an order, over hash keys of mixed lengths, against a sort of the whole data.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use pegasus_client::{Error, HashKeyRange, KeyFilter, ScanOptions, ScanRow, SortKeyRange, Table};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use crate::failure::Failure;
use crate::model::text;

/// A row, in the order of the bytes of its hash key, then of its sort key.
pub type Row = (Bytes, Bytes, Bytes);

/// What came of the comparisons.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sorted {
    /// Rows in all.
    pub rows: usize,
    /// Hash keys.
    pub hash_keys: usize,
    /// Lengths of hash keys.
    pub lengths: usize,
    /// Scans compared.
    pub scans: usize,
    /// Rows that came in them.
    pub scanned_rows: usize,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// One scan to compare.
#[derive(Clone, Debug, Default)]
struct Case {
    hash_keys: HashKeyRange,
    sort_keys: SortKeyRange,
    options: ScanOptions,
}

/// Rows with hash keys of many lengths, drawn at random; sorted, each once.
pub fn draw_rows(hash_keys: usize, seed: u64) -> Vec<Row> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut keys = BTreeSet::new();
    while keys.len() < hash_keys {
        let length = if random.random_bool(0.95) { random.random_range(1..12) } else { random.random_range(12..60) };
        keys.insert(bytes_of(&mut random, length));
    }
    let mut rows = BTreeSet::new();
    for hash_key in keys {
        for _ in 0..random.random_range(1..4) {
            let length = random.random_range(0..4);
            let sort_key = bytes_of(&mut random, length);
            let value = [&hash_key[..], b"/", &sort_key[..]].concat();
            rows.insert((hash_key.clone(), sort_key, Bytes::from(value)));
        }
    }
    rows.into_iter().collect()
}

fn bytes_of(random: &mut SmallRng, length: usize) -> Bytes {
    (0..length).map(|_| *ALPHABET.choose(random).expect("it is not empty")).collect()
}

/// Writes the rows.
pub async fn load(table: &Table, rows: &[Row]) -> Result<(), Failure> {
    let groups: Vec<&[Row]> = rows.chunk_by(|left, right| left.0 == right.0).collect();
    let write = |group: &&[Row]| {
        let (table, hash_key) = (table.clone(), group[0].0.clone());
        let rows: Vec<(Bytes, Bytes)> = group.iter().map(|(_, key, value)| (key.clone(), value.clone())).collect();
        async move { table.multi_set(hash_key, &rows).await.map_err(Failure::at("write rows of mixed lengths")) }
    };
    stream::iter(groups.iter().map(write).collect::<Vec<_>>()).buffer_unordered(64).try_collect().await
}

/// Exports the table, sorts it, and compares scans in either order and direction with it. What was written is given, to
/// see whether the export is all of it.
pub async fn compare(table: &Table, written: &[Row], cases: usize, seed: u64) -> Result<Sorted, Failure> {
    let mut scanner = table.full_scan(ScanOptions::default()).await.map_err(Failure::at("export the rows"))?;
    let mut all: Vec<Row> = Vec::new();
    while let Some(batch) = scanner.next_batch().await.map_err(Failure::at("export the rows"))? {
        all.extend(batch.into_iter().map(row_of));
    }
    all.sort_unstable();
    let lengths: BTreeSet<usize> = all.iter().map(|row| row.0.len()).collect();
    let hash_keys = all.chunk_by(|left, right| left.0 == right.0).count();
    let mut sorted = Sorted { rows: all.len(), hash_keys, lengths: lengths.len(), ..Sorted::default() };
    if all != written {
        sorted.problems.push(format!("{} rows were written, and {} exported", written.len(), all.len()));
    }
    let mut random = SmallRng::seed_from_u64(seed);
    for number in 0..cases {
        let case = Case::draw(number, &all, &mut random);
        let doing = || format!("compare {case:?}");
        let found = case.sorted_scan(table).await.map_err(Failure::at(doing()))?;
        sorted.note(&case, "a sorted scan", &case.wanted(&all, Row::cmp), &found);
        let found = case.range_scan(table).await.map_err(Failure::at(doing()))?;
        sorted.note(&case, "range scanners", &case.wanted(&all, stored_order), &found);
    }
    Ok(sorted)
}

impl Sorted {
    fn note(&mut self, case: &Case, what: &str, wanted: &[Row], found: &[Row]) {
        self.scans += 1;
        self.scanned_rows += found.len();
        if wanted == found || self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let place = wanted.iter().zip(found).take_while(|(wanted, found)| wanted == found).count();
        let show = |row: Option<&Row>| {
            row.map_or("the end".to_owned(), |row| format!("{} {}", text::Bytes(&row.0), text::Bytes(&row.1)))
        };
        let (wanted_row, found_row) = (show(wanted.get(place)), show(found.get(place)));
        let (wanted, found) = (wanted.len(), found.len());
        self.problems.push(format!(
            "{what} ({case:?}) gave {found} rows for {wanted}; at place {place} {found_row} instead of {wanted_row}"
        ));
    }
}

impl Case {
    /// The first ones are the whole table in both directions.
    fn draw(number: usize, all: &[Row], random: &mut SmallRng) -> Case {
        let mut case = Case::default();
        case.options.reverse = number % 2 == 1;
        if number < 2 || all.is_empty() {
            return case;
        }
        case.options.no_value = random.random_bool(0.2);
        case.options.rows_per_request = *[1, 10, 100, 1000].choose(random).expect("there are four");
        let (mut start, mut stop) = (hash_key_end(all, random), hash_key_end(all, random));
        if start > stop && !stop.is_empty() {
            std::mem::swap(&mut start, &mut stop);
        }
        let (start_inclusive, stop_inclusive) = (random.random_bool(0.5), random.random_bool(0.5));
        case.hash_keys = HashKeyRange { start, start_inclusive, stop, stop_inclusive };
        if random.random_bool(0.5) {
            let (start, stop) = (bytes_of(random, 1).to_vec(), bytes_of(random, 2).to_vec());
            let stop = if random.random_bool(0.3) { Vec::new() } else { stop };
            let (start_inclusive, stop_inclusive) = (random.random_bool(0.5), random.random_bool(0.5));
            case.sort_keys = SortKeyRange { start, start_inclusive, stop, stop_inclusive };
        }
        if random.random_bool(0.2) {
            case.options.hash_key_filter = KeyFilter::Anywhere(bytes_of(random, 1).to_vec());
        }
        case
    }

    async fn sorted_scan(&self, table: &Table) -> Result<Vec<Row>, Error> {
        let mut scanner = table.sorted_scan(&self.hash_keys, &self.sort_keys, self.options.clone()).await?;
        let mut rows = Vec::new();
        while let Some(batch) = scanner.next_batch().await? {
            rows.extend(batch.into_iter().map(row_of));
        }
        Ok(rows)
    }

    /// Scanners give the rows of each partition in stored order; they are put together here.
    async fn range_scan(&self, table: &Table) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        for mut scanner in table.range_scanners(3, &self.hash_keys, &self.sort_keys, self.options.clone()).await? {
            while let Some(batch) = scanner.next_batch().await? {
                rows.extend(batch.into_iter().map(row_of));
            }
        }
        rows.sort_by(stored_order);
        if self.options.reverse {
            rows.reverse();
        }
        Ok(rows)
    }

    /// What is to come: the rows in both ranges, in this order.
    fn wanted(&self, all: &[Row], order: impl Fn(&Row, &Row) -> std::cmp::Ordering) -> Vec<Row> {
        let HashKeyRange { start, start_inclusive, stop, stop_inclusive } = &self.hash_keys;
        let compare = |key: &Bytes, end: &Vec<u8>| {
            let end = (Bytes::copy_from_slice(end), Bytes::new(), Bytes::new());
            order(&(key.clone(), Bytes::new(), Bytes::new()), &end)
        };
        let in_range = |(key, _, _): &&Row| {
            let (low, high) = (compare(key, start), compare(key, stop));
            (if *start_inclusive { low.is_ge() } else { low.is_gt() })
                && (stop.is_empty() || if *stop_inclusive { high.is_le() } else { high.is_lt() })
        };
        let is_wanted = |(hash_key, sort_key, _): &&Row| {
            self.options.hash_key_filter.matches(hash_key) && self.sort_keys.contains(sort_key)
        };
        let mut rows: Vec<Row> = all.iter().filter(in_range).filter(is_wanted).cloned().collect();
        rows.sort_by(&order);
        if self.options.reverse {
            rows.reverse();
        }
        if self.options.no_value {
            rows.iter_mut().for_each(|row| row.2 = Bytes::new());
        }
        rows
    }
}

/// An end of a range: a hash key there is, the beginning of one, something behind it, or none.
fn hash_key_end(all: &[Row], random: &mut SmallRng) -> Vec<u8> {
    let key = all.choose(random).expect("there are rows").0.to_vec();
    match random.random_range(0..8) {
        0 => Vec::new(),
        1 => key[..key.len().div_ceil(2)].to_vec(),
        2 => [&key[..], b"b"].concat(),
        _ => key,
    }
}

fn row_of(row: ScanRow) -> Row {
    (row.hash_key, row.sort_key, row.value)
}

/// Shorter hash keys first, then bytes.
fn stored_order(left: &Row, right: &Row) -> std::cmp::Ordering {
    (left.0.len(), left).cmp(&(right.0.len(), right))
}

/// Few letters, so that hash keys begin alike, among them the least and the greatest.
const ALPHABET: &[u8] = &[0x00, b'a', b'b', b'c', 0xFF];
/// Problems that are kept.
const PROBLEMS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(keys: &[&'static str]) -> Vec<Row> {
        keys.iter().map(|key| (Bytes::from(*key), Bytes::from_static(b"s"), Bytes::from_static(b"v"))).collect()
    }

    fn keys(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| std::str::from_utf8(&row.0).unwrap()).collect()
    }

    #[test]
    fn drawn_rows_have_many_lengths_and_are_sorted() {
        let rows = draw_rows(3000, 1);
        assert!(rows.is_sorted() && rows.len() >= 3000);
        let lengths: BTreeSet<usize> = rows.iter().map(|row| row.0.len()).collect();
        assert!(lengths.len() > 30 && lengths.contains(&1), "{lengths:?}");
        assert_eq!(rows, draw_rows(3000, 1));
    }

    #[test]
    fn ranges_and_directions_are_those_of_the_order() {
        let all = rows(&["a", "aa", "ab", "b", "ba", "c"]);
        let mut case = Case::default();
        case.hash_keys =
            HashKeyRange { start: b"aa".into(), stop: b"b".into(), stop_inclusive: true, ..case.hash_keys };
        assert_eq!(keys(&case.wanted(&all, Row::cmp)), ["aa", "ab", "b"]);
        assert_eq!(keys(&case.wanted(&all, stored_order)), [""; 0], "b is before aa");
        case.hash_keys = HashKeyRange { start: b"b".into(), start_inclusive: false, ..HashKeyRange::default() };
        assert_eq!(keys(&case.wanted(&all, stored_order)), ["c", "aa", "ab", "ba"]);
        case.options.reverse = true;
        assert_eq!(keys(&case.wanted(&all, Row::cmp)), ["c", "ba"]);
        case.sort_keys = SortKeyRange { start: b"t".into(), ..SortKeyRange::default() };
        assert!(case.wanted(&all, Row::cmp).is_empty());
    }

    #[test]
    fn a_difference_names_the_place() {
        let mut sorted = Sorted::default();
        let (wanted, found) = (rows(&["a", "aa", "b"]), rows(&["a", "b", "aa"]));
        sorted.note(&Case::default(), "a scan", &wanted, &found);
        assert!(sorted.problems[0].contains("at place 1 \"b\" \"s\" instead of \"aa\" \"s\""), "{:?}", sorted.problems);
        sorted.note(&Case::default(), "a scan", &wanted, &wanted[..2]);
        assert!(sorted.problems[1].contains("the end instead of \"b\""), "{:?}", sorted.problems);
        sorted.note(&Case::default(), "a scan", &wanted, &wanted);
        assert_eq!((sorted.scans, sorted.problems.len()), (3, 2));
    }
}
