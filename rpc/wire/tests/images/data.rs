//! What clients say to storage nodes.

use pegasus_wire::frame::WireError;
use pegasus_wire::messages::data::*;
use pegasus_wire::{Decree, Frame, FrameBuilder, FrameHeader, MessageKind, PartitionId, Status};

use super::{Image, REQUEST_ID, answer, one_way, partition, read_owned, request, sum};

pub(super) fn images(images: &mut Vec<Image>) {
    get_images(images);
    multi_get_images(images);
    scan_images(images);
    write_images(images);
    read_dependent_images(images);
    copy_images(images);
}

fn get_images(images: &mut Vec<Image>) {
    let kind = MessageKind::GET;
    let get = Get { partition: partition(), hash_key: b"hash", sort_key: b"sort", no_value: false };
    images.push(request("get", kind, &get, read_get));
    let mut bytes = Vec::new();
    let header = FrameHeader::answer(kind, REQUEST_ID, Status::Ok);
    FrameBuilder::append(&mut bytes, header, &GetReply { ttl_seconds: -1 }, b"the value\0\xFE");
    images.push(Image { name: "get_answer", kind, bytes, read: read_get_reply });
}

fn multi_get_images(images: &mut Vec<Image>) {
    let kind = MessageKind::MULTI_GET;
    let keys = [SortKey { bytes: b"one" }, SortKey { bytes: b"" }, SortKey { bytes: b"a longer sort key" }];
    let by_keys = MultiGet {
        partition: partition(),
        hash_key: b"hash",
        sort_keys: &keys,
        range: SortKeys::ALL,
        filter: Filter::ALL,
        reverse: false,
        no_value: false,
        count_only: false,
        rows_max: 1000,
        bytes_max: 65_536,
    };
    images.push(request("multi_get_keys", kind, &by_keys, read_multi_get));
    let by_range = MultiGet {
        sort_keys: &[],
        range: SortKeys { start: b"a", stop: b"z", start_inclusive: true, stop_inclusive: false },
        filter: Filter { kind: FilterKind::Postfix, pattern: b".log" },
        reverse: true,
        no_value: true,
        count_only: true,
        ..by_keys
    };
    images.push(request("multi_get_range", kind, &by_range, read_multi_get));
    let rows = [
        Row { key: b"one", value: b"first", expiry_seconds: 0 },
        Row { key: b"two", value: b"", expiry_seconds: 300_000_000 },
    ];
    let found = Rows { rows: &rows, count: 2, complete: false, resume_after: b"two", context: 0 };
    images.push(answer("multi_get_answer", kind, &found, read_rows));
}

fn scan_images(images: &mut Vec<Image>) {
    let kind = MessageKind::SCAN;
    let scan = Scan {
        partition: partition(),
        context: CONTEXT,
        keep_context: true,
        start: b"\0\x04hashsort",
        start_inclusive: false,
        stop: b"\xFF\xFF",
        reverse: true,
        sort_keys: SortKeys { start: b"a", stop: b"f", start_inclusive: false, stop_inclusive: true },
        hash_key_filter: Filter { kind: FilterKind::Prefix, pattern: b"ha" },
        sort_key_filter: Filter { kind: FilterKind::Exact, pattern: b"sort" },
        no_value: true,
        count_only: false,
        rows_max: 100,
    };
    images.push(request("scan", kind, &scan, read_scan));
    let plain = Scan {
        context: 0,
        keep_context: false,
        start: b"",
        start_inclusive: true,
        stop: b"",
        reverse: false,
        sort_keys: SortKeys::ALL,
        hash_key_filter: Filter::ALL,
        sort_key_filter: Filter { kind: FilterKind::Anywhere, pattern: b"x" },
        count_only: true,
        ..scan
    };
    images.push(request("scan_without_context", kind, &plain, read_scan));
    let counted = Rows { rows: &[], count: 3000, complete: false, resume_after: b"\0\x04hash", context: CONTEXT + 1 };
    images.push(answer("scan_answer", kind, &counted, read_rows));
    let end = EndScan { partition: partition(), context: CONTEXT };
    images.push(one_way("end_scan", MessageKind::END_SCAN, Status::Ok, &end, read_owned::<EndScan>));
}

const OPERATIONS: [RowOperation<'static>; 4] = [
    RowOperation::Put { sort_key: b"one", value: b"first value", expiry_seconds: 300_000_000 },
    RowOperation::Delete { sort_key: b"two" },
    RowOperation::DeleteRange {
        range: SortKeys { start: b"c", stop: b"e", start_inclusive: false, stop_inclusive: true },
    },
    RowOperation::Put { sort_key: b"", value: b"", expiry_seconds: 0 },
];

fn write_images(images: &mut Vec<Image>) {
    let kind = MessageKind::WRITE;
    let write = Write { partition: partition(), hash_key: b"hash", operations: &OPERATIONS };
    images.push(request("write", kind, &write, read_write));
    images.push(answer("write_answer", kind, &WriteReply { decree: Decree(42) }, read_write_reply));
}

fn read_dependent_images(images: &mut Vec<Image>) {
    let kind = MessageKind::INCREMENT;
    let increment =
        |expiry| Increment { partition: partition(), hash_key: b"hash", sort_key: b"sort", increment: -3, expiry };
    images.push(request("increment", kind, &increment(ExpiryChange::Keep), read_increment));
    images.push(request("increment_that_expires", kind, &increment(ExpiryChange::Set(300_000_000)), read_increment));
    images.push(request("increment_for_ever", kind, &increment(ExpiryChange::Clear), read_increment));
    let reply = IncrementReply { value: i64::MIN, decree: Decree(43) };
    images.push(answer("increment_answer", kind, &reply, read_owned::<IncrementReply>));

    let kind = MessageKind::CHECK_AND_WRITE;
    let check = CheckAndWrite {
        partition: partition(),
        hash_key: b"hash",
        check_sort_key: b"sort",
        check: Check::IntegerGreaterOrEqual,
        operand: b"17",
        operations: &OPERATIONS,
        return_value: true,
    };
    images.push(request("check_and_write", kind, &check, read_check_and_write));
    let reply = CheckReply { written: false, exists: true, decree: Decree(44) };
    let mut bytes = Vec::new();
    FrameBuilder::append(&mut bytes, FrameHeader::answer(kind, REQUEST_ID, Status::Ok), &reply, b"16");
    images.push(Image { name: "check_and_write_answer", kind, bytes, read: read_owned::<CheckReply> });
}

fn copy_images(images: &mut Vec<Image>) {
    let kind = MessageKind::QUERY_COPY;
    images.push(request("query_copy", kind, &QueryCopy { partition: partition() }, read_owned::<QueryCopy>));
    let reply = CopyReply {
        primary: true,
        applied: Decree(45),
        file_bytes: 65 << 20,
        estimated_rows: 1_000_000,
        compaction: CompactionState::Running,
        compaction_ended_seconds: 1_700_000_000,
        compaction_percent: 37,
    };
    images.push(answer("query_copy_answer", kind, &reply, read_owned::<CopyReply>));
}

/// Context of a scan.
pub(crate) const CONTEXT: u64 = 0x0F1E_2D3C_0000_0001;

fn read_get(frame: &Frame) -> Result<u64, WireError> {
    let get = frame.body::<ArchivedGet<'_>>()?;
    let fixed = u64::from(PartitionId::from(&get.partition).index) + u64::from(get.no_value);
    Ok(fixed + sum(&get.hash_key) + sum(&get.sort_key))
}

fn read_get_reply(frame: &Frame) -> Result<u64, WireError> {
    let reply = frame.body::<ArchivedGetReply>()?;
    Ok(reply.ttl_seconds.to_native().unsigned_abs() / 2 + sum(&frame.attachment))
}

fn read_multi_get(frame: &Frame) -> Result<u64, WireError> {
    let message = frame.body::<ArchivedMultiGet<'_>>()?;
    let keys: u64 = message.sort_keys.iter().map(|key| sum(&key.bytes)).sum();
    let flags = flags(&[message.reverse, message.no_value, message.count_only]);
    let limits = u64::from(message.rows_max.to_native()) + u64::from(message.bytes_max.to_native());
    Ok(keys + flags + limits + sum(&message.hash_key) + range(&message.range) + filter(&message.filter))
}

fn read_scan(frame: &Frame) -> Result<u64, WireError> {
    let scan = frame.body::<ArchivedScan<'_>>()?;
    let flags = flags(&[scan.keep_context, scan.start_inclusive, scan.reverse, scan.no_value, scan.count_only]);
    let numbers = u64::from(scan.rows_max.to_native()) + scan.context.to_native() / 2;
    let keys = sum(&scan.start) + sum(&scan.stop) + range(&scan.sort_keys);
    Ok(flags + numbers + keys + filter(&scan.hash_key_filter) + filter(&scan.sort_key_filter))
}

fn read_rows(frame: &Frame) -> Result<u64, WireError> {
    let rows = frame.body::<ArchivedRows<'_>>()?;
    let content: u64 =
        rows.rows.iter().map(|row| sum(&row.key) + sum(&row.value) + u64::from(row.expiry_seconds.to_native())).sum();
    let numbers = rows.count.to_native() / 4 + rows.context.to_native() / 4;
    Ok(content + numbers + u64::from(rows.complete) + sum(&rows.resume_after))
}

fn read_write(frame: &Frame) -> Result<u64, WireError> {
    let write = frame.body::<ArchivedWrite<'_>>()?;
    Ok(operations(&write.operations) + sum(&write.hash_key))
}

fn read_write_reply(frame: &Frame) -> Result<u64, WireError> {
    Ok(frame.body::<ArchivedWriteReply>()?.decree.0.to_native() / 2)
}

fn read_increment(frame: &Frame) -> Result<u64, WireError> {
    let message = frame.body::<ArchivedIncrement<'_>>()?;
    let expiry = match &message.expiry {
        ArchivedExpiryChange::Keep => 0,
        ArchivedExpiryChange::Set(seconds) => u64::from(seconds.to_native()),
        ArchivedExpiryChange::Clear => 1,
    };
    let increment = message.increment.to_native().unsigned_abs() / 2;
    Ok(increment + expiry + sum(&message.hash_key) + sum(&message.sort_key))
}

fn read_check_and_write(frame: &Frame) -> Result<u64, WireError> {
    let message = frame.body::<ArchivedCheckAndWrite<'_>>()?;
    let check = Check::from(message.check) as u64;
    let keys = sum(&message.hash_key) + sum(&message.check_sort_key) + sum(&message.operand);
    Ok(check + keys + operations(&message.operations) + u64::from(message.return_value))
}

fn operations(operations: &[ArchivedRowOperation<'_>]) -> u64 {
    let one = |operation: &ArchivedRowOperation<'_>| match operation {
        ArchivedRowOperation::Put { sort_key, value, expiry_seconds } => {
            sum(sort_key) + sum(value) + u64::from(expiry_seconds.to_native())
        }
        ArchivedRowOperation::Delete { sort_key } => sum(sort_key),
        ArchivedRowOperation::DeleteRange { range: deleted } => range(deleted),
    };
    operations.iter().map(one).sum()
}

fn range(range: &ArchivedSortKeys<'_>) -> u64 {
    flags(&[range.start_inclusive, range.stop_inclusive]) + sum(&range.start) + sum(&range.stop)
}

fn filter(filter: &ArchivedFilter<'_>) -> u64 {
    FilterKind::from(filter.kind) as u64 + sum(&filter.pattern)
}

fn flags(flags: &[bool]) -> u64 {
    flags.iter().copied().map(u64::from).sum()
}
