//! Rows in a map, answered as a storage node answers, but a few rows at a time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Mutex;

use pegasus_client::now_seconds;
use pegasus_wire::key::{decode, encode};
use pegasus_wire::messages::data::{
    ArchivedGet, ArchivedMultiGet, ArchivedRowOperation, ArchivedScan, ArchivedWrite, GetReply, Row, Rows, WriteReply,
};
use pegasus_wire::{Decree, Frame, FrameBuilder, FrameHeader, MessageKind, Status};

/// Rows in an answer at most.
pub const PAGE_ROWS: usize = 3;

type Partition = BTreeMap<Vec<u8>, (Vec<u8>, u32)>;

/// All partitions of one table, by index.
#[derive(Default)]
pub struct Store {
    partitions: Mutex<BTreeMap<u32, Partition>>,
}

/// What a read asks of a range.
struct Range<'a> {
    start: (&'a [u8], bool),
    stop: (&'a [u8], bool),
    rows_max: usize,
    no_value: bool,
}

impl Store {
    pub fn rows(&self) -> usize {
        self.partitions.lock().unwrap().values().map(BTreeMap::len).sum()
    }

    pub fn answer(&self, frame: &Frame, out: &mut Vec<u8>) {
        let header = FrameHeader::answer(frame.header.kind, frame.header.request_id, Status::Ok);
        match frame.header.kind {
            MessageKind::GET => self.get(frame, header, out),
            MessageKind::WRITE => self.write(frame, header, out),
            MessageKind::MULTI_GET => self.multi_get(frame, header, out),
            MessageKind::SCAN => self.scan(frame, header, out),
            other => panic!("a storage node was asked {other}"),
        }
    }

    fn get(&self, frame: &Frame, header: FrameHeader, out: &mut Vec<u8>) {
        let get = frame.body::<ArchivedGet<'_>>().unwrap();
        let partitions = self.partitions.lock().unwrap();
        let partition = partitions.get(&get.partition.index.to_native());
        match partition.and_then(|rows| rows.get(&encode(&get.hash_key, &get.sort_key))) {
            None => FrameBuilder::append_empty(out, FrameHeader { status: Status::NotFound, ..header }, &[]),
            Some((value, expiry)) => {
                let ttl_seconds = if *expiry == 0 { -1 } else { i64::from(*expiry) - i64::from(now_seconds()) };
                let value: &[u8] = if get.no_value { &[] } else { value };
                FrameBuilder::append(out, header, &GetReply { ttl_seconds }, value);
            }
        }
    }

    fn write(&self, frame: &Frame, header: FrameHeader, out: &mut Vec<u8>) {
        let write = frame.body::<ArchivedWrite<'_>>().unwrap();
        let mut partitions = self.partitions.lock().unwrap();
        let rows = partitions.entry(write.partition.index.to_native()).or_default();
        for operation in write.operations.iter() {
            match operation {
                ArchivedRowOperation::Put { sort_key, value, expiry_seconds } => {
                    let row = (value.to_vec(), expiry_seconds.to_native());
                    rows.insert(encode(&write.hash_key, sort_key), row);
                }
                ArchivedRowOperation::Delete { sort_key } => {
                    rows.remove(&encode(&write.hash_key, sort_key));
                }
            }
        }
        FrameBuilder::append(out, header, &WriteReply { decree: Decree(7) }, &[]);
    }

    fn multi_get(&self, frame: &Frame, header: FrameHeader, out: &mut Vec<u8>) {
        let asked = frame.body::<ArchivedMultiGet<'_>>().unwrap();
        let partitions = self.partitions.lock().unwrap();
        let empty = Partition::new();
        let stored = partitions.get(&asked.partition.index.to_native()).unwrap_or(&empty);
        let of_hash_key: Partition = stored
            .iter()
            .filter(|(key, _)| decode(key).unwrap().0 == &*asked.hash_key)
            .map(|(key, row)| (decode(key).unwrap().1.to_vec(), row.clone()))
            .collect();
        if asked.sort_keys.is_empty() {
            let range = Range {
                start: (&asked.start, asked.start_inclusive),
                stop: (&asked.stop, asked.stop_inclusive),
                rows_max: asked.rows_max.to_native() as usize,
                no_value: asked.no_value,
            };
            return answer_range(&of_hash_key, &range, false, header, out);
        }
        let keys: Vec<&[u8]> = asked.sort_keys.iter().map(|key| &*key.bytes).collect();
        let looked_at = &keys[..keys.len().min(PAGE_ROWS)];
        let found = looked_at.iter().filter_map(|&key| of_hash_key.get_key_value(key));
        let rows: Vec<Row<'_>> = found.map(|(key, row)| to_row(key, row, asked.no_value)).collect();
        let complete = looked_at.len() == keys.len();
        let resume_after = if complete { &[] } else { looked_at[looked_at.len() - 1] };
        let reply = Rows { count: rows.len() as u64, rows: &rows, complete, resume_after };
        FrameBuilder::append(out, header, &reply, &[]);
    }

    fn scan(&self, frame: &Frame, header: FrameHeader, out: &mut Vec<u8>) {
        let asked = frame.body::<ArchivedScan<'_>>().unwrap();
        let partitions = self.partitions.lock().unwrap();
        let empty = Partition::new();
        let stored = partitions.get(&asked.partition.index.to_native()).unwrap_or(&empty);
        let range = Range {
            start: (&asked.start, asked.start_inclusive),
            stop: (&asked.stop, false),
            rows_max: asked.rows_max.to_native() as usize,
            no_value: asked.no_value,
        };
        answer_range(stored, &range, asked.count_only, header, out);
    }
}

fn answer_range(stored: &Partition, range: &Range<'_>, count_only: bool, header: FrameHeader, out: &mut Vec<u8>) {
    let bound = |(key, inclusive): (&[u8], bool)| {
        if inclusive { Bound::Included(key.to_vec()) } else { Bound::Excluded(key.to_vec()) }
    };
    let stop = if range.stop.0.is_empty() { Bound::Unbounded } else { bound(range.stop) };
    let limit = if range.rows_max == 0 { PAGE_ROWS } else { range.rows_max.min(PAGE_ROWS) };
    let mut found = stored.range((bound(range.start), stop));
    let rows: Vec<Row<'_>> = found.by_ref().take(limit).map(|(key, row)| to_row(key, row, range.no_value)).collect();
    let complete = found.next().is_none();
    let resume_after = if complete { &[][..] } else { rows[rows.len() - 1].key };
    let sent: &[Row<'_>] = if count_only { &[] } else { &rows };
    FrameBuilder::append(out, header, &Rows { rows: sent, count: rows.len() as u64, complete, resume_after }, &[]);
}

fn to_row<'a>(key: &'a [u8], row: &'a (Vec<u8>, u32), no_value: bool) -> Row<'a> {
    Row { key, value: if no_value { &[] } else { &row.0 }, expiry_seconds: row.1 }
}
