//! What is seen of a request before its body is checked: whom it is for, what kind it is, how large.
//!
//! The root of an archive is at its end, and its fields are at places that the compiler knows. So the partition can be
//! read without checking the rest, which whoever carries the request out does. Of a malformed body this reads
//! nonsense, as harmless as a well-formed request for a partition that is not here: it must only be used to choose a
//! queue and to write a log line.

use std::mem::{offset_of, size_of};

use pegasus_wire::messages::data::{
    ArchivedCheckAndWrite, ArchivedGet, ArchivedIncrement, ArchivedMultiGet, ArchivedScan, ArchivedWrite,
};
use pegasus_wire::{Frame, MessageKind, PartitionId};

/// Whether a request reads or writes; what reads before it writes is a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

/// A client's request for rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    /// Whom it is for.
    pub(crate) partition: PartitionId,
    /// What it does.
    pub(crate) access: Access,
    /// Its operation.
    pub(crate) kind: MessageKind,
    /// Length of its hash key; 0 if it has none.
    pub(crate) hash_key_bytes: u32,
    /// Length of its body.
    pub(crate) bytes: u64,
}

impl Visit {
    /// What a frame asks for; `None` if that is not rows.
    pub(crate) fn of(frame: &Frame) -> Option<Visit> {
        let shape = Shape::of(frame.header.kind)?;
        let body: &[u8] = &frame.body;
        let root = body.get(body.len().checked_sub(shape.root_bytes)?..)?;
        let number = |offset: usize| Some(u32::from_le_bytes(*root.get(offset..)?.first_chunk()?));
        Some(Visit {
            partition: PartitionId::new(number(shape.table)?, number(shape.index)?),
            access: shape.access,
            kind: frame.header.kind,
            // A slice is an offset and a length.
            hash_key_bytes: shape.hash_key.map_or(Some(0), |offset| number(offset + 4))?,
            bytes: body.len() as u64,
        })
    }
}

/// Where the fields of an archived message are.
struct Shape {
    access: Access,
    root_bytes: usize,
    table: usize,
    index: usize,
    hash_key: Option<usize>,
}

macro_rules! shape {
    ($access:ident, $archived:ty $(, $hash_key:ident)?) => {
        Shape {
            access: Access::$access,
            root_bytes: size_of::<$archived>(),
            table: offset_of!($archived, partition.table),
            index: offset_of!($archived, partition.index),
            hash_key: None$(.or(Some(offset_of!($archived, $hash_key))))?,
        }
    };
}

impl Shape {
    fn of(kind: MessageKind) -> Option<Shape> {
        Some(match kind {
            MessageKind::GET => shape!(Read, ArchivedGet<'static>, hash_key),
            MessageKind::MULTI_GET => shape!(Read, ArchivedMultiGet<'static>, hash_key),
            MessageKind::SCAN => shape!(Read, ArchivedScan<'static>),
            MessageKind::WRITE => shape!(Write, ArchivedWrite<'static>, hash_key),
            MessageKind::INCREMENT => shape!(Write, ArchivedIncrement<'static>, hash_key),
            MessageKind::CHECK_AND_WRITE => shape!(Write, ArchivedCheckAndWrite<'static>, hash_key),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pegasus_wire::messages::data::{
        Check, CheckAndWrite, EndScan, ExpiryChange, Filter, Get, Increment, MultiGet, RowOperation, Scan, SortKey,
        SortKeys, Write,
    };
    use pegasus_wire::{FrameBuilder, FrameHeader, TableId};

    use super::*;

    const PARTITION: PartitionId = PartitionId { table: TableId(0x0102_0304), index: 0x0506_0708 };
    const KEY: &[u8] = b"a hash key of some length";

    macro_rules! frame {
        ($kind:ident, $body:expr) => {{
            let mut bytes = Vec::new();
            FrameBuilder::append(&mut bytes, FrameHeader::request(MessageKind::$kind, 1, 0), &$body, b"attached");
            Frame::parse(Bytes::from(bytes)).unwrap()
        }};
    }

    fn seen(frame: &Frame, access: Access, hash_key_bytes: usize) {
        let visit = Visit::of(frame).unwrap();
        let (kind, bytes) = (frame.header.kind, frame.body.len() as u64);
        let wanted = Visit { partition: PARTITION, access, kind, hash_key_bytes: hash_key_bytes as u32, bytes };
        assert_eq!(visit, wanted);
    }

    #[test]
    fn every_request_for_rows_says_whom_it_is_for() {
        let (partition, hash_key) = (PARTITION, KEY);
        let sort_key: &[u8] = b"sort";
        seen(&frame!(GET, Get { partition, hash_key, sort_key, no_value: true }), Access::Read, KEY.len());
        let (range, filter) = (SortKeys::ALL, Filter::default());
        let multi_get = MultiGet {
            partition,
            hash_key,
            sort_keys: &[SortKey { bytes: b"one" }, SortKey { bytes: b"two" }],
            range,
            filter,
            reverse: false,
            no_value: false,
            count_only: true,
            rows_max: 7,
            bytes_max: 9,
        };
        seen(&frame!(MULTI_GET, multi_get), Access::Read, KEY.len());
        let scan = Scan {
            partition,
            context: 5,
            keep_context: true,
            start: b"start",
            start_inclusive: true,
            stop: b"stop",
            reverse: false,
            sort_keys: range,
            hash_key_filter: filter,
            sort_key_filter: filter,
            no_value: false,
            count_only: false,
            rows_max: 3,
        };
        seen(&frame!(SCAN, scan), Access::Read, 0);
        let operations = &[RowOperation::Put { sort_key, value: b"value", expiry_seconds: 0 }];
        seen(&frame!(WRITE, Write { partition, hash_key, operations }), Access::Write, KEY.len());
        let increment = Increment { partition, hash_key, sort_key, increment: 1, expiry: ExpiryChange::Keep };
        seen(&frame!(INCREMENT, increment), Access::Write, KEY.len());
        let check = CheckAndWrite {
            partition,
            hash_key,
            check_sort_key: b"c",
            check: Check::Exist,
            operand: b"o",
            operations,
            return_value: false,
        };
        seen(&frame!(CHECK_AND_WRITE, check), Access::Write, KEY.len());
    }

    #[test]
    fn other_frames_and_short_ones_are_no_visits() {
        assert_eq!(Visit::of(&frame!(END_SCAN, EndScan { partition: PARTITION, context: 1 })), None);
        let mut frame = frame!(GET, Get { partition: PARTITION, hash_key: KEY, sort_key: b"", no_value: false });
        for length in 0..size_of::<ArchivedGet<'static>>() {
            frame.body.truncate(length);
            assert_eq!(Visit::of(&frame), None, "{length} bytes");
            frame.body = Bytes::from(vec![0; length]);
            assert_eq!(Visit::of(&frame), None, "{length} bytes");
        }
    }
}
