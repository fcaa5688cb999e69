//! Requests of every kind that ask for what may not be: refused with the reason, with nothing written, and everybody is
//! served as before.
#![allow(clippy::unwrap_used)]

mod roles;
mod support;

use pegasus_wire::hash::partition_index;
use pegasus_wire::limits::{
    FILTER_BYTES_MAX, HASH_KEY_BYTES_MAX, READ_ROWS_MAX, SORT_KEY_BYTES_MAX, VALUE_BYTES_MAX, WRITE_ROWS_MAX,
};
use pegasus_wire::messages::data::{
    Check, CheckAndWrite, EndScan, ExpiryChange, Filter, FilterKind, Increment, MultiGet, RowOperation, Scan, SortKey,
    SortKeys,
};
use pegasus_wire::{Frame, FrameBuilder, FrameHeader, MessageKind, PartitionId, Status};
use roles::led::{ID, Led, key_of};
use roles::{partition, table};
use support::operations::{all_of, refused, whole};

/// First scene number of this program.
const SCENES: u16 = 140;

const LONG_SORT_KEY: [u8; SORT_KEY_BYTES_MAX + 1] = [b's'; SORT_KEY_BYTES_MAX + 1];
const LONG_HASH_KEY: [u8; HASH_KEY_BYTES_MAX + 1] = [b'h'; HASH_KEY_BYTES_MAX + 1];
const LONG_PATTERN: [u8; FILTER_BYTES_MAX + 1] = [b'p'; FILTER_BYTES_MAX + 1];

fn increment(hash_key: &[u8]) -> Increment<'_> {
    Increment { partition: ID, hash_key, sort_key: b"n", increment: 1, expiry: ExpiryChange::Keep }
}

fn set_if_missing<'a>(hash_key: &'a [u8], operations: &'a [RowOperation<'a>]) -> CheckAndWrite<'a> {
    CheckAndWrite {
        partition: ID,
        hash_key,
        check_sort_key: b"n",
        check: Check::NotExist,
        operand: b"",
        operations,
        return_value: true,
    }
}

fn put<'a>(sort_key: &'a [u8], value: &'a [u8]) -> RowOperation<'a> {
    RowOperation::Put { sort_key, value, expiry_seconds: 0 }
}

fn range<'a>(start: &'a [u8], stop: &'a [u8]) -> SortKeys<'a> {
    SortKeys { start, stop, ..SortKeys::ALL }
}

/// Nothing of partition 0 was written, and both partitions are served.
async fn finish(led: Led) {
    assert_eq!(led.caller.slice_of(&whole(ID)).await.count, 0, "something was written");
    led.serving().await;
    assert_eq!(led.scene.admin("/health"), (200, "ok\n".to_owned()));
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_beyond_a_limit_are_refused_with_its_name() {
    let led = Led::new(SCENES).await;
    let (caller, key) = (&led.caller, key_of(0, 0));
    let one = [put(b"s", b"v")];

    refused(&caller.increment(&increment(&LONG_HASH_KEY)).await, Status::TooLarge, "hash_key_bytes_max");
    // A single row without a hash key is where its sort key belongs.
    let elsewhere =
        (0u8..).map(|byte| [byte]).find(|sort_key| partition_index(b"", sort_key, table().partition_count) != ID.index);
    let misplaced = Increment { sort_key: &elsewhere.unwrap(), ..increment(b"") };
    refused(&caller.increment(&misplaced).await, Status::InvalidArgument, "does not belong to partition");
    let long = Increment { sort_key: &LONG_SORT_KEY, ..increment(&key) };
    refused(&caller.increment(&long).await, Status::TooLarge, "sort_key_bytes_max");

    let value = vec![b'v'; VALUE_BYTES_MAX + 1];
    let many: Vec<RowOperation<'_>> = (0..=WRITE_ROWS_MAX).map(|_| put(b"s", b"v")).collect();
    let large: Vec<RowOperation<'_>> = [b"a", b"b", b"c"].map(|key| put(key, &value[1..])).into();
    let (long_put, large_put) = ([put(&LONG_SORT_KEY, b"")], [put(b"s", &value)]);
    let long_range = [RowOperation::DeleteRange { range: range(b"", &LONG_SORT_KEY) }];
    let cases: [(CheckAndWrite<'_>, Status, &str); 10] = [
        (set_if_missing(&LONG_HASH_KEY, &one), Status::TooLarge, "hash_key_bytes_max"),
        (set_if_missing(b"", &one), Status::InvalidArgument, "hash key must not be empty"),
        (
            CheckAndWrite { check_sort_key: &LONG_SORT_KEY, ..set_if_missing(&key, &one) },
            Status::TooLarge,
            "sort_key_bytes_max",
        ),
        (CheckAndWrite { operand: &value, ..set_if_missing(&key, &one) }, Status::TooLarge, "value_bytes_max"),
        (set_if_missing(&key, &[]), Status::InvalidArgument, "at least one row"),
        (set_if_missing(&key, &many), Status::TooLarge, "write_rows_max"),
        (set_if_missing(&key, &large), Status::TooLarge, "write_bytes_max"),
        (set_if_missing(&key, &long_put), Status::TooLarge, "sort_key_bytes_max"),
        (set_if_missing(&key, &large_put), Status::TooLarge, "value_bytes_max"),
        (set_if_missing(&key, &long_range), Status::TooLarge, "sort_key_bytes_max"),
    ];
    for (check, status, words) in cases {
        refused(&caller.check_and_write(&check).await, status, words);
    }
    refused(&caller.write(ID, &key, &long_range).await, Status::TooLarge, "sort_key_bytes_max");
    finish(led).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_beyond_a_limit_are_refused_with_its_name() {
    let led = Led::new(SCENES + 1).await;
    let (caller, key) = (&led.caller, key_of(0, 0));
    let all = all_of(ID, &key);
    for kind in [FilterKind::None, FilterKind::Anywhere, FilterKind::Exact] {
        let filter = Filter { kind, pattern: &LONG_PATTERN };
        refused(
            &caller.multi_get(&MultiGet { filter, ..all_of(ID, &key) }).await,
            Status::TooLarge,
            "filter_bytes_max",
        );
        let scan = Scan { hash_key_filter: filter, ..whole(ID) };
        refused(&caller.scan(&scan).await, Status::TooLarge, "filter_bytes_max");
        let scan = Scan { sort_key_filter: filter, ..whole(ID) };
        refused(&caller.scan(&scan).await, Status::TooLarge, "filter_bytes_max");
    }
    for sort_keys in [range(&LONG_SORT_KEY, b""), range(b"", &LONG_SORT_KEY)] {
        let get = MultiGet { range: sort_keys, ..all_of(ID, &key) };
        refused(&caller.multi_get(&get).await, Status::TooLarge, "sort_key_bytes_max");
        refused(&caller.scan(&Scan { sort_keys, ..whole(ID) }).await, Status::TooLarge, "sort_key_bytes_max");
    }
    let long = [SortKey { bytes: b"s" }, SortKey { bytes: &LONG_SORT_KEY }];
    let named = MultiGet { sort_keys: &long, ..all_of(ID, &key) };
    refused(&caller.multi_get(&named).await, Status::TooLarge, "sort_key_bytes_max");
    let keys: Vec<SortKey<'_>> = (0..=READ_ROWS_MAX).map(|_| SortKey { bytes: b"s" }).collect();
    refused(&caller.multi_get(&MultiGet { sort_keys: &keys, ..all }).await, Status::TooLarge, "read_rows_max");
    finish(led).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_in_the_wrong_place_are_refused() {
    let led = Led::new(SCENES + 2).await;
    let (caller, key, one) = (&led.caller, key_of(0, 0), [put(b"s", b"v")]);
    let places = [
        (partition(1), Status::InvalidArgument, "does not belong to partition"),
        (partition(2), Status::NoSuchPartition, "does not hold the partition"),
        (PartitionId::new(77, 0), Status::NoSuchPartition, "does not hold the partition"),
        (PartitionId::new(0, u32::MAX), Status::NoSuchPartition, "does not hold the partition"),
    ];
    for (place, status, words) in places {
        refused(&caller.increment(&Increment { partition: place, ..increment(&key) }).await, status, words);
        let check = CheckAndWrite { partition: place, ..set_if_missing(&key, &one) };
        refused(&caller.check_and_write(&check).await, status, words);
        refused(&caller.multi_get(&all_of(place, &key)).await, status, words);
    }
    refused(&caller.scan(&whole(partition(2))).await, Status::NoSuchPartition, "does not hold the partition");
    finish(led).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_with_any_byte_changed_are_answered() {
    let led = Led::new(SCENES + 3).await;
    let key = key_of(1, 0);
    let operations = [put(b"s", b"value"), RowOperation::DeleteRange { range: range(b"a", b"b") }];
    let filter = Filter { kind: FilterKind::Anywhere, pattern: b"x" };
    let mut frames = Vec::new();
    let mut keep = |kind, build: &dyn Fn(&mut Vec<u8>, FrameHeader)| {
        let mut bytes = Vec::new();
        build(&mut bytes, FrameHeader::request(kind, 1, 0));
        frames.push((kind, bytes[24..].to_vec()));
    };
    let of_one = Increment { partition: partition(1), expiry: ExpiryChange::Set(5), ..increment(&key) };
    keep(MessageKind::INCREMENT, &|out, header| FrameBuilder::append(out, header, &of_one, &[]));
    let check = CheckAndWrite { partition: partition(1), ..set_if_missing(&key, &operations) };
    keep(MessageKind::CHECK_AND_WRITE, &|out, header| FrameBuilder::append(out, header, &check, &[]));
    let get = MultiGet { filter, range: range(b"a", b"z"), ..all_of(partition(1), &key) };
    keep(MessageKind::MULTI_GET, &|out, header| FrameBuilder::append(out, header, &get, &[]));
    let scan =
        Scan { keep_context: true, hash_key_filter: filter, sort_keys: range(b"a", b"z"), ..whole(partition(1)) };
    keep(MessageKind::SCAN, &|out, header| FrameBuilder::append(out, header, &scan, &[]));
    let mut malformed = 0;
    for (kind, whole) in frames {
        for position in 0..whole.len() {
            for change in [0xFF, 0x10] {
                let mut body = whole.clone();
                body[position] ^= change;
                let answer = led.caller.call(kind, |out, header| append_raw(out, header, &body)).await;
                assert_ne!(answer.header.status, Status::Internal, "{kind}: byte {position}");
                malformed += u32::from(answer.header.status == Status::Malformed);
            }
        }
    }
    assert!(malformed > 50, "tags and lengths are checked");
    finish(led).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_scan_is_never_answered() {
    let led = Led::new(SCENES + 4).await;
    let (mut writer, mut reader) = led.caller.connection.open().await.unwrap();
    let mut bytes = Vec::new();
    let header = FrameHeader::request(MessageKind::END_SCAN, 0, 0);
    for (partition, context) in [(ID, 1), (ID, 0), (partition(3), u64::MAX), (PartitionId::new(9, 9), 5)] {
        FrameBuilder::append(&mut bytes, header, &EndScan { partition, context }, &[]);
    }
    for body in [&b""[..], b"x", &[0xFF; 100]] {
        append_raw(&mut bytes, header, body);
    }
    // A question behind them is the first that is answered.
    let question = FrameHeader::request(MessageKind::SCAN, 7, 0);
    FrameBuilder::append(&mut bytes, question, &whole(ID), &[]);
    writer.write(&bytes).await.unwrap();
    let answer: Frame = reader.next().await.unwrap().expect("an answer");
    assert_eq!((answer.header.kind, answer.header.request_id), (MessageKind::SCAN, 7));
    assert_eq!(answer.header.status, Status::Ok);
    finish(led).await;
}

/// A frame with any bytes as its body.
fn append_raw(out: &mut Vec<u8>, header: FrameHeader, body: &[u8]) {
    let start = out.len();
    FrameBuilder::append_empty(out, header, &[]);
    out.extend_from_slice(body);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}
