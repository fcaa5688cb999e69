//! Scans over hash keys, judged by the worker that owns the hash keys: nothing of it is under way meanwhile, so that it
//! knows what each of its hash keys has to show. What others own passes by unseen: filters and ranges leave it out.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::try_join_all;
use pegasus_client::{Error, HashKeyRange, KeyFilter, ScanOptions, ScanRow, Scanner, SortKeyRange, now_seconds};
use pegasus_wire::hash::partition_index;
use pegasus_wire::key::encode;
use rand::Rng;
use rand::seq::IndexedRandom;

use crate::model::calls::{Ended, scan_options, sort_key_range};
use crate::model::operation::{Answer, Filter, Found, Item, Operation, Outcome, Range, RangeRead};
use crate::model::rows::Window;
use crate::model::text;
use crate::model::words::worker_prefix;
use crate::model::worker::Worker;

/// The ways to scan a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One partition after another.
    Full,
    /// Several scanners at once.
    Split,
    /// The same over a range of hash keys in stored order, and one of sort keys.
    Range,
    /// In the order of the hash keys' bytes.
    Sorted,
    /// Only counted.
    Count,
}

/// One scan.
#[derive(Clone, Debug)]
struct Plan {
    way: Way,
    /// Of which hash keys; all for those that know no range.
    hash_keys: HashKeyRange,
    /// What of each of them.
    read: RangeRead,
    rows_per_request: u32,
    snapshot: bool,
    max_split: usize,
}

/// What a scan found.
#[derive(Default)]
struct Seen {
    rows: Vec<ScanRow>,
    count: u64,
    /// Each partition may be of one moment, and is not if there are more moments than partitions.
    one_moment: bool,
    partition_count: u32,
}

/// A scan of the worker's hash keys in a way drawn at random.
pub async fn look_at_all(worker: &mut Worker) {
    let ways = [Way::Full, Way::Split, Way::Range, Way::Range, Way::Sorted, Way::Sorted, Way::Count];
    let way = *ways.choose(&mut worker.random).expect("there are some");
    look(worker, way).await;
}

/// A scan of the worker's hash keys in this way.
pub async fn look(worker: &mut Worker, way: Way) {
    let plan = worker.plan(way);
    let begin = now_seconds();
    let result = worker.scan(&plan).await;
    let window = Window { from: begin, to: now_seconds() };
    worker.tally.count_scan(way.name(), result.is_ok());
    match result {
        Ok(seen) if way == Way::Count => worker.judge_count(seen.count, window),
        Ok(seen) => worker.judge_scan(&plan, seen, window),
        Err(error) => {
            if let Some(problem) = Ended::of(Err(error)).problem {
                worker.shared.report(format!("{plan:?}: {problem}"));
            }
        }
    }
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 5] = [Way::Full, Way::Split, Way::Range, Way::Sorted, Way::Count];

    fn name(self) -> &'static str {
        match self {
            Way::Full => "full_scan",
            Way::Split => "scanners",
            Way::Range => "range_scanners",
            Way::Sorted => "sorted_scan",
            Way::Count => "count of a scan",
        }
    }

    fn knows_ranges(self) -> bool {
        matches!(self, Way::Range | Way::Sorted)
    }
}

impl Worker {
    fn plan(&mut self, way: Way) -> Plan {
        let whole = way == Way::Count;
        let place = self.random.random_range(0..self.keys.len());
        let mut artist = self.keys[place].artist(&mut self.random, now_seconds());
        let range = if way.knows_ranges() && artist.random.random_bool(0.5) { artist.range() } else { Range::all() };
        let filter = if whole || artist.random.random_bool(0.6) { Filter::default() } else { artist.filter() };
        let mut chance = |probability| self.random.random_bool(probability);
        let (reverse, no_value, snapshot) = (chance(0.4), chance(0.3), chance(0.8));
        let hash_keys = if way.knows_ranges() { self.hash_keys(way) } else { HashKeyRange::default() };
        Plan {
            way,
            hash_keys,
            read: RangeRead { range, filter, reverse, no_value },
            rows_per_request: *[1, 5, 100, 1000, 3000].choose(&mut self.random).expect("there are some"),
            snapshot,
            max_split: self.random.random_range(0..10),
        }
    }

    /// A range of hash keys: in the order of the way between two of the worker's, or open at an end.
    fn hash_keys(&mut self, way: Way) -> HashKeyRange {
        let end = |worker: &mut Worker| match worker.random.random_range(0..6) {
            0 => Vec::new(),
            1 => worker_prefix(worker.number).to_vec(),
            _ => {
                let place = worker.random.random_range(0..worker.keys.len());
                worker.keys[place].hash_key.to_vec()
            }
        };
        let (mut start, mut stop) = (end(self), end(self));
        let is_reversed = match way {
            Way::Sorted => start > stop,
            _ => (start.len(), &start) > (stop.len(), &stop),
        };
        // At times it stays reversed: then it has no rows.
        if !stop.is_empty() && is_reversed && self.random.random_bool(0.9) {
            std::mem::swap(&mut start, &mut stop);
        }
        let (start_inclusive, stop_inclusive) = (self.random.random_bool(0.6), self.random.random_bool(0.5));
        HashKeyRange { start, start_inclusive, stop, stop_inclusive }
    }

    async fn scan(&self, plan: &Plan) -> Result<Seen, Error> {
        let table = &self.subject.table;
        let partition_count = table.properties().await?.partition_count;
        let options = ScanOptions {
            hash_key_filter: KeyFilter::Prefix(worker_prefix(self.number).to_vec()),
            ..scan_options(&plan.read, plan.rows_per_request, plan.snapshot)
        };
        let sort_keys: SortKeyRange = sort_key_range(&plan.read.range);
        let scanners = match plan.way {
            Way::Full => vec![table.full_scan(options).await?],
            Way::Split => table.scanners(plan.max_split, options).await?,
            Way::Range => table.range_scanners(plan.max_split, &plan.hash_keys, &sort_keys, options).await?,
            Way::Count => {
                let count = table.full_scan(options).await?.count().await?;
                return Ok(Seen { count, ..Seen::default() });
            }
            Way::Sorted => {
                let mut scanner = table.sorted_scan(&plan.hash_keys, &sort_keys, options).await?;
                let mut rows = Vec::new();
                while let Some(batch) = scanner.next_batch().await? {
                    rows.extend(batch);
                }
                return Ok(Seen { rows, ..Seen::default() });
            }
        };
        let seen = try_join_all(scanners.into_iter().map(read_all)).await?;
        let moments: u64 = seen.iter().map(|(_, moments)| moments).sum();
        let rows = seen.into_iter().flat_map(|(rows, _)| rows).collect();
        Ok(Seen { rows, count: 0, one_moment: moments <= u64::from(partition_count), partition_count })
    }

    fn judge_scan(&mut self, plan: &Plan, seen: Seen, window: Window) {
        if let Some(problem) = disorder(&seen, plan.way, plan.read.reverse) {
            self.shared.report(format!("{plan:?} gave rows out of order: {problem}"));
        }
        let mut of_key: BTreeMap<Bytes, Vec<Found>> = BTreeMap::new();
        for ScanRow { hash_key, sort_key, value, expiry_seconds } in seen.rows {
            of_key.entry(hash_key).or_default().push(Found { sort_key, value, expiry: Some(expiry_seconds) });
        }
        for place in 0..self.keys.len() {
            let key = &self.keys[place];
            if !holds(&plan.hash_keys, plan.way, &key.hash_key) {
                continue;
            }
            let rows = of_key.remove(&key.hash_key).unwrap_or_default();
            if key.has_limbo() && !seen.one_moment {
                // A write may have taken effect between two of its rows.
                continue;
            }
            let operation = Operation::Scan {
                read: plan.read.clone(),
                rows_per_request: plan.rows_per_request,
                snapshot: plan.snapshot,
            };
            let outcome = Outcome::Answered(Answer::Rows { rows, complete: true });
            self.judge_key(place, vec![Item { operation, outcome }], window);
        }
        if let Some(hash_key) = of_key.keys().find(|hash_key| !self.left.contains(*hash_key)) {
            let hash_key = text::Bytes(hash_key);
            self.shared.report(format!("{plan:?} found rows of {hash_key}, which are not to be there"));
        }
    }

    /// The hash keys it has left may have rows, if deleting them has failed.
    fn judge_count(&mut self, count: u64, window: Window) {
        let counts: Option<Vec<(u64, u64)>> = self.keys.iter().map(|key| key.row_count(window)).collect();
        let Some(counts) = counts.filter(|_| !self.left_rows) else { return };
        let (least, most) = counts.into_iter().fold((0, 0), |(least, most), key| (least + key.0, most + key.1));
        if !(least..=most).contains(&count) {
            let number = self.number;
            self.shared.report(format!("worker {number} has {least} to {most} rows, and a scan counted {count}"));
        }
    }
}

async fn read_all(mut scanner: Scanner) -> Result<(Vec<ScanRow>, u64), Error> {
    let mut rows = Vec::new();
    while let Some(batch) = scanner.next_batch().await? {
        rows.extend(batch);
    }
    Ok((rows, scanner.snapshots()))
}

/// Whether a hash key belongs to a range, in the order of the way.
fn holds(range: &HashKeyRange, way: Way, hash_key: &[u8]) -> bool {
    let place = |key: &[u8]| (if way == Way::Sorted { 0 } else { key.len() }, key.to_vec());
    let (key, start, stop) = (place(hash_key), place(&range.start), place(&range.stop));
    let after_start = if range.start_inclusive { key >= start } else { key > start };
    let before_stop = range.stop.is_empty() || if range.stop_inclusive { key <= stop } else { key < stop };
    after_start && before_stop
}

/// Two neighbours that are in the wrong order: in a sorted scan by hash key and sort key; else by stored key, among the
/// rows of one partition.
fn disorder(seen: &Seen, way: Way, reverse: bool) -> Option<String> {
    let mut last: BTreeMap<u32, (Vec<u8>, Bytes)> = BTreeMap::new();
    for ScanRow { hash_key, sort_key, .. } in &seen.rows {
        let (partition, place) = match way {
            Way::Sorted => (0, (hash_key.to_vec(), sort_key.clone())),
            _ => {
                let partition = partition_index(hash_key, sort_key, seen.partition_count.max(1));
                (partition, (encode(hash_key, sort_key), Bytes::new()))
            }
        };
        if let Some(before) = last.get(&partition)
            && (if reverse { place >= *before } else { place <= *before })
        {
            return Some(format!("{} after {}", text::Bytes(&place.0), text::Bytes(&before.0)));
        }
        last.insert(partition, place);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(rows: &[(&'static str, &'static str)]) -> Seen {
        let row = |(hash_key, sort_key): &(&'static str, &'static str)| ScanRow {
            hash_key: Bytes::from(*hash_key),
            sort_key: Bytes::from(*sort_key),
            value: Bytes::new(),
            expiry_seconds: 0,
        };
        Seen { rows: rows.iter().map(row).collect(), partition_count: 1, ..Seen::default() }
    }

    #[test]
    fn order_depends_on_the_way() {
        let stored = seen(&[("b", "1"), ("b", "2"), ("aa", "")]);
        assert_eq!(disorder(&stored, Way::Full, false), None);
        assert!(disorder(&stored, Way::Sorted, false).unwrap().contains("aa"));
        let sorted = seen(&[("aa", ""), ("b", "1"), ("b", "2")]);
        assert_eq!(disorder(&sorted, Way::Sorted, false), None);
        assert!(disorder(&sorted, Way::Range, false).is_some());
        let back = seen(&[("b", "2"), ("b", "1"), ("aa", "")]);
        assert_eq!(disorder(&back, Way::Sorted, true), None);
        assert!(disorder(&back, Way::Sorted, false).is_some());
        assert!(disorder(&seen(&[("b", "1"), ("b", "1")]), Way::Full, false).is_some(), "a row twice");
    }

    #[test]
    fn ranges_are_in_the_order_of_the_way() {
        let range = HashKeyRange { start: b"b".into(), stop: b"aa".into(), ..HashKeyRange::default() };
        let held = |range: &HashKeyRange, way| [&b"a"[..], b"b", b"c", b"aa", b"bb"].map(|key| holds(range, way, key));
        assert_eq!(held(&range, Way::Range), [false, true, true, false, false]);
        assert_eq!(held(&range, Way::Sorted), [false; 5]);
        let range = HashKeyRange { start: b"aa".into(), stop: b"b".into(), stop_inclusive: true, ..range };
        assert_eq!(held(&range, Way::Sorted), [false, true, false, true, false]);
        assert_eq!(held(&HashKeyRange::default(), Way::Range), [true; 5]);
    }
}
