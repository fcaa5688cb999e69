//! Reads of several rows, in small pages, so that every answer of more than a few rows has to be continued.

use std::ops::Bound;

use pegasus_client::now_seconds;
use pegasus_wire::expiry::is_expired;
use pegasus_wire::key::{after_prefix, decode, encode};
use pegasus_wire::messages::data::{ArchivedMultiGet, ArchivedScan, Filter, Row, Rows, SortKeys};
use pegasus_wire::{Frame, FrameBuilder, FrameHeader, PartitionId};

use super::store::{Cell, Node, Partition, alive};

/// Rows in an answer at most.
pub const PAGE_ROWS: usize = 3;
/// Rows looked at for one answer at most, those included that are not wanted or have expired.
pub const LOOKED_AT_MAX: usize = 5;

/// What a read asks of the rows of a partition.
struct Asked<'a> {
    start: Bound<Vec<u8>>,
    /// Exclusive; empty means the end.
    stop: Vec<u8>,
    reverse: bool,
    sort_keys: SortKeys<'a>,
    hash_key_filter: Filter<'a>,
    sort_key_filter: Filter<'a>,
    rows_max: u32,
    bytes_max: u32,
    no_value: bool,
    count_only: bool,
}

/// A page of rows.
struct Found<'a> {
    rows: Vec<(&'a [u8], &'a Cell)>,
    count: u64,
    /// Where to go on; `None` at the end.
    resume_after: Option<&'a [u8]>,
}

impl Node {
    pub fn multi_get(&self, frame: &Frame, header: FrameHeader, out: &mut Vec<u8>) {
        let asked = frame.body::<ArchivedMultiGet<'_>>().unwrap();
        let partition = PartitionId::from(&asked.partition);
        if !self.serves(partition, header, out) {
            return;
        }
        let stored = self.store.snapshot(partition);
        if !asked.sort_keys.is_empty() {
            return by_keys(&stored, asked, header, out);
        }
        let range = asked.range.plain();
        let stop = match range.stop {
            [] => after_prefix(&encode(&asked.hash_key, b"")).unwrap(),
            stop if range.stop_inclusive => [&encode(&asked.hash_key, stop)[..], &[0]].concat(),
            stop => encode(&asked.hash_key, stop),
        };
        let request = Asked {
            start: bound(encode(&asked.hash_key, range.start), range.start_inclusive),
            stop,
            reverse: asked.reverse,
            sort_keys: SortKeys::ALL,
            hash_key_filter: Filter::ALL,
            sort_key_filter: asked.filter.plain(),
            rows_max: asked.rows_max.to_native(),
            bytes_max: asked.bytes_max.to_native(),
            no_value: asked.no_value,
            count_only: asked.count_only,
        };
        let mut found = find(&stored, &request);
        if request.reverse {
            found.rows.reverse();
        }
        answer(&found, &request, 2 + asked.hash_key.len(), 0, header, out);
    }

    pub fn scan(&self, frame: &Frame, header: FrameHeader, out: &mut Vec<u8>) {
        let asked = frame.body::<ArchivedScan<'_>>().unwrap();
        let partition = PartitionId::from(&asked.partition);
        if !self.serves(partition, header, out) {
            return;
        }
        let request = Asked {
            start: bound(asked.start.to_vec(), asked.start_inclusive),
            stop: asked.stop.to_vec(),
            reverse: asked.reverse,
            sort_keys: asked.sort_keys.plain(),
            hash_key_filter: asked.hash_key_filter.plain(),
            sort_key_filter: asked.sort_key_filter.plain(),
            rows_max: asked.rows_max.to_native(),
            bytes_max: 0,
            no_value: asked.no_value,
            count_only: asked.count_only,
        };
        let id = asked.context.to_native();
        let known = self.known_context(id, partition);
        let was_known = known.is_some();
        let stored = known.unwrap_or_else(|| self.store.snapshot(partition));
        let found = find(&stored, &request);
        let complete = found.resume_after.is_none();
        let context = match (was_known, asked.keep_context && !complete) {
            (true, true) => id,
            (true, false) => {
                self.end_context(id);
                if complete { id } else { 0 }
            }
            (false, true) => self.keep_context(partition, stored.clone()),
            (false, false) => 0,
        };
        answer(&found, &request, 0, context, header, out);
    }
}

fn bound(key: Vec<u8>, inclusive: bool) -> Bound<Vec<u8>> {
    if inclusive { Bound::Included(key) } else { Bound::Excluded(key) }
}

/// The rows of one page, in the direction of the read.
fn find<'a>(stored: &'a Partition, asked: &Asked<'_>) -> Found<'a> {
    let after_start = |key: &[u8]| match &asked.start {
        Bound::Included(start) => key >= &start[..],
        Bound::Excluded(start) => key > &start[..],
        Bound::Unbounded => true,
    };
    let in_range = |key: &[u8]| after_start(key) && (asked.stop.is_empty() || key < &asked.stop[..]);
    // Sort keys that are out of the range are jumped over.
    let of_range = |key: &&Vec<u8>| in_range(key) && asked.sort_keys.contains(decode(key).unwrap().1);
    let mut keys: Vec<&Vec<u8>> = stored.keys().filter(of_range).collect();
    if asked.reverse {
        keys.reverse();
    }
    let rows_max = if asked.rows_max == 0 { PAGE_ROWS } else { PAGE_ROWS.min(asked.rows_max as usize) };
    let mut found = Found { rows: Vec::new(), count: 0, resume_after: None };
    let mut bytes = 0;
    for (looked_at, key) in keys.iter().enumerate() {
        let full = found.rows.len() >= rows_max || (asked.bytes_max > 0 && bytes >= asked.bytes_max as usize);
        if looked_at == LOOKED_AT_MAX || (full && !asked.count_only) {
            return found;
        }
        let ((hash_key, sort_key), cell) = (decode(key).unwrap(), &stored[*key]);
        let wanted = asked.hash_key_filter.matches(hash_key) && asked.sort_key_filter.matches(sort_key);
        if wanted && !is_expired(cell.1, now_seconds()) {
            found.count += 1;
            bytes += sort_key.len() + if asked.no_value { 0 } else { cell.0.len() };
            found.rows.push((key, cell));
        }
        found.resume_after = Some(key);
    }
    Found { resume_after: None, ..found }
}

fn answer(
    found: &Found<'_>,
    asked: &Asked<'_>,
    key_prefix: usize,
    context: u64,
    header: FrameHeader,
    out: &mut Vec<u8>,
) {
    let to_row = |(key, (value, expiry_seconds)): &(&'_ [u8], &'_ Cell)| -> (Vec<u8>, Vec<u8>, u32) {
        let value = if asked.no_value { Vec::new() } else { value.clone() };
        (key[key_prefix..].to_vec(), value, *expiry_seconds)
    };
    let rows: Vec<_> = if asked.count_only { Vec::new() } else { found.rows.iter().map(to_row).collect() };
    let rows: Vec<Row<'_>> =
        rows.iter().map(|(key, value, expiry)| Row { key, value, expiry_seconds: *expiry }).collect();
    let resume_after = found.resume_after.map_or(&[][..], |key| &key[key_prefix..]);
    // Nothing comes before the empty sort key.
    let complete = found.resume_after.is_none() || (key_prefix > 0 && asked.reverse && resume_after.is_empty());
    let reply = Rows { rows: &rows, count: found.count, complete, resume_after, context };
    FrameBuilder::append(out, header, &reply, &[]);
}

fn by_keys(stored: &Partition, asked: &ArchivedMultiGet<'_>, header: FrameHeader, out: &mut Vec<u8>) {
    let keys: Vec<&[u8]> = asked.sort_keys.iter().map(|key| &*key.bytes).collect();
    let looked_at = &keys[..keys.len().min(PAGE_ROWS)];
    let find = |&key: &&'_ [u8]| alive(stored, &encode(&asked.hash_key, key)).map(|cell| (key.to_vec(), cell));
    let found: Vec<(Vec<u8>, &Cell)> = looked_at.iter().filter_map(find).collect();
    let to_row = |(key, (value, expiry_seconds)): &'_ (Vec<u8>, &'_ Cell)| -> (Vec<u8>, Vec<u8>, u32) {
        (key.clone(), if asked.no_value { Vec::new() } else { value.clone() }, *expiry_seconds)
    };
    let rows: Vec<_> = found.iter().map(to_row).collect();
    let rows: Vec<Row<'_>> =
        rows.iter().map(|(key, value, expiry)| Row { key, value, expiry_seconds: *expiry }).collect();
    let complete = looked_at.len() == keys.len();
    let resume_after = if complete { &[] } else { looked_at[looked_at.len() - 1] };
    let reply = Rows { count: rows.len() as u64, rows: &rows, complete, resume_after, context: 0 };
    FrameBuilder::append(out, header, &reply, &[]);
}
