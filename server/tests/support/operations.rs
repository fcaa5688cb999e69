//! Requests of the data protocol as a test writes them, and their answers as it compares them.

use bytes::Bytes;
use pegasus_wire::messages::data::{
    ArchivedRows, ArchivedWriteReply, CheckAndWrite, CheckReply, CopyReply, Filter, Increment, IncrementReply,
    MultiGet, QueryCopy, RowOperation, Scan, SortKeys, Write,
};
use pegasus_wire::{Decree, Frame, FrameBuilder, FrameHeader, MessageKind, PartitionId, Status};

use super::{Caller, reason};

/// Rows of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Key and value.
    pub(crate) rows: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) count: u64,
    pub(crate) complete: bool,
    pub(crate) resume_after: Vec<u8>,
    pub(crate) context: u64,
}

impl Slice {
    /// The keys alone, as text.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.rows.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect()
    }
}

/// A write as the payload of a mutation.
pub(crate) fn payload(write: &Write<'_>) -> Bytes {
    let mut bytes = Vec::new();
    FrameBuilder::append(&mut bytes, FrameHeader::request(MessageKind::WRITE, 0, 0), write, &[]);
    Frame::parse(bytes.into()).expect("a frame").body
}

/// All rows of a hash key.
pub(crate) fn all_of(partition: PartitionId, hash_key: &[u8]) -> MultiGet<'_> {
    MultiGet {
        partition,
        hash_key,
        sort_keys: &[],
        range: SortKeys::ALL,
        filter: Filter::ALL,
        reverse: false,
        no_value: false,
        count_only: false,
        rows_max: 0,
        bytes_max: 0,
    }
}

/// All rows of a partition.
pub(crate) fn whole(partition: PartitionId) -> Scan<'static> {
    Scan {
        partition,
        context: 0,
        keep_context: false,
        start: b"",
        start_inclusive: true,
        stop: b"",
        reverse: false,
        sort_keys: SortKeys::ALL,
        hash_key_filter: Filter::ALL,
        sort_key_filter: Filter::ALL,
        no_value: false,
        count_only: false,
        rows_max: 0,
    }
}

impl Caller {
    pub(crate) async fn multi_get(&self, get: &MultiGet<'_>) -> Frame {
        self.call(MessageKind::MULTI_GET, |out, header| FrameBuilder::append(out, header, get, &[])).await
    }

    pub(crate) async fn scan(&self, scan: &Scan<'_>) -> Frame {
        self.call(MessageKind::SCAN, |out, header| FrameBuilder::append(out, header, scan, &[])).await
    }

    pub(crate) async fn increment(&self, increment: &Increment<'_>) -> Frame {
        self.call(MessageKind::INCREMENT, |out, header| FrameBuilder::append(out, header, increment, &[])).await
    }

    pub(crate) async fn check_and_write(&self, check: &CheckAndWrite<'_>) -> Frame {
        self.call(MessageKind::CHECK_AND_WRITE, |out, header| FrameBuilder::append(out, header, check, &[])).await
    }

    /// Writes, and it is carried out.
    pub(crate) async fn written(
        &self,
        partition: PartitionId,
        hash_key: &[u8],
        operations: &[RowOperation<'_>],
    ) -> Decree {
        let write = Write { partition, hash_key, operations };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &write, &[]);
        let written = self.call(MessageKind::WRITE, build).await;
        Decree(ok(&written).body::<ArchivedWriteReply>().expect("a decree").decree.0.to_native())
    }

    /// Reads rows, and it is carried out.
    pub(crate) async fn rows_of(&self, get: &MultiGet<'_>) -> Slice {
        slice(&self.multi_get(get).await)
    }

    /// What the node says of its copy.
    pub(crate) async fn copy_of(&self, partition: PartitionId) -> CopyReply {
        let query = QueryCopy { partition };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &query, &[]);
        ok(&self.call(MessageKind::QUERY_COPY, build).await).decode().expect("what it knows of a copy")
    }

    /// Scans, and it is carried out.
    pub(crate) async fn slice_of(&self, scan: &Scan<'_>) -> Slice {
        slice(&self.scan(scan).await)
    }
}

/// An answer that says that the request was carried out.
pub(crate) fn ok(frame: &Frame) -> &Frame {
    assert_eq!(frame.header.status, Status::Ok, "{}: {}", frame.header.kind, reason(frame));
    frame
}

/// An answer that refuses, and says why.
pub(crate) fn refused(frame: &Frame, status: Status, words: &str) {
    let reason = reason(frame);
    assert_eq!(frame.header.status, status, "{}: {reason}", frame.header.kind);
    assert!(reason.contains(words), "{reason:?} does not say {words:?}");
}

/// The number in the answer to an increment.
pub(crate) fn number(frame: &Frame) -> i64 {
    ok(frame).decode::<IncrementReply>().expect("a number").value
}

/// The answer to a check, and the value if it came along.
pub(crate) fn checked(frame: &Frame) -> (bool, bool, Vec<u8>) {
    let reply = ok(frame).decode::<CheckReply>().expect("the outcome of a check");
    (reply.written, reply.exists, frame.attachment.to_vec())
}

fn slice(frame: &Frame) -> Slice {
    let rows = ok(frame).body::<ArchivedRows<'_>>().expect("rows");
    Slice {
        rows: rows.rows.iter().map(|row| (row.key.to_vec(), row.value.to_vec())).collect(),
        count: rows.count.to_native(),
        complete: rows.complete,
        resume_after: rows.resume_after.to_vec(),
        context: rows.context.to_native(),
    }
}
