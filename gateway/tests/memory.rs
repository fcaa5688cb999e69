//! What is read takes little memory, whatever it announces.
//!
//! Strings and blobs are slices of what was received, so only lists and maps take memory. Two bounds hold for what a
//! server reads: all allocations of a request together are at most forty times its bytes, which also bounds the work;
//! and at any moment there is no more than two lists of the longest kind, which is less than the body of a request may
//! have. For what a client reads the same holds with the larger entries of answers.

#![allow(clippy::unwrap_used)]

mod common;

use common::allocations::{Counting, NOTHING, allocated_by};
use common::crafted::*;
use pegasus_gateway::answer::Answer;
use pegasus_gateway::frame::{Message, find};
use pegasus_gateway::limits::*;
use pegasus_gateway::messages::admin::{AppInfo, ListAppsResponse, UpdateAppEnvRequest};
use pegasus_gateway::messages::meta::{PartitionConfiguration, QueryCfgRequest, QueryCfgResponse};
use pegasus_gateway::messages::read::{BatchGetRequest, BatchGetResponse, KeyValue, MultiGetRequest};
use pegasus_gateway::messages::write::{CheckAndMutateRequest, MultiPutRequest, Mutate};
use pegasus_gateway::thrift::{Blob, FieldType, ThriftError};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A row of a request takes one byte on the wire if it is empty, and this in memory. No other entry of a list takes
/// more.
const REQUEST_FACTOR: usize = size_of::<KeyValue<'static>>();
const _: () = assert!(REQUEST_FACTOR <= 40 && size_of::<Mutate<'static>>() <= REQUEST_FACTOR);
/// The largest entry of a list of an answer, by the same measure, and the largest of a list inside it: 24 bytes for the
/// seven of a host's name.
const ANSWER_FACTOR: usize = size_of::<PartitionConfiguration<'static>>() + 24usize.div_ceil(7);
const _: () = assert!(size_of::<AppInfo<'static>>() <= size_of::<PartitionConfiguration<'static>>());

/// Bytes made to look large: what a list announces is far more than what it has.
fn hostile_bodies() -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let begin = begin(0x8001_0001, b"x");
    for entries in [1, 100, 5_000, LIST_ENTRIES_MAX, LIST_ENTRIES_MAX + 1, 60_000] {
        for count in [1, entries as i32, LIST_ENTRIES_MAX as i32, i32::MAX] {
            for of in [FieldType::Struct, FieldType::String, FieldType::I32, FieldType::List] {
                for id in 1..=10 {
                    let value = structure(FieldType::List, id, &list(of, count, &vec![0; entries]));
                    bodies.push([&begin[..], b"\x0c\0\x01", &value].concat());
                    bodies.push([&begin[..], b"\x0c\0\0", &value].concat());
                }
            }
        }
    }
    // The same list many times, up to the limit of a body: only one of them is kept.
    for id in [1, 2, 5] {
        let field = list(FieldType::Struct, LIST_ENTRIES_MAX as i32, &[0; LIST_ENTRIES_MAX]);
        let again = [&[15, 0, id], &field[..]].concat().repeat(127);
        bodies.push([&begin[..], b"\x0c\0\x01", &again, &[0]].concat());
        bodies.push([&begin[..], b"\x0c\0\0", &again, &[0]].concat());
    }
    // A list of structures that each begin such a list.
    for count in [100, 16_000] {
        let inner = list(FieldType::Struct, count, &[0; 16_000]);
        for id in 1..=10 {
            let value =
                structure(FieldType::List, 5, &list(FieldType::Struct, count, &structure(FieldType::List, id, &inner)));
            bodies.push([&begin[..], b"\x0c\0\0", &value].concat());
        }
    }
    bodies
}

#[test]
fn decoding_takes_little_memory() {
    // All allocations together are bounded by what was received. What is there at one moment is bounded for good: a
    // list, and the one that replaces it.
    let peak_max = 2 * LIST_ENTRIES_MAX * REQUEST_FACTOR;
    assert!(peak_max <= BODY_BYTES_MAX, "no more than a body that may be waiting in the receive buffer");
    let mut worst = [0, 0];
    for body in hostile_bodies() {
        let reply = [b"\0\0\0\0\0\0\0\x06ERR_OK\x80\x01\0\x02", &body[4..]].concat();
        let (message, answer) = (Message::parse(&body).unwrap(), Answer::parse(&reply).unwrap());
        for read in LISTS_OF_REQUESTS {
            let (_, allocated) = allocated_by(|| read(&message));
            assert!(allocated.total <= REQUEST_FACTOR * body.len(), "{allocated:?} for {}", body.len());
            assert!(allocated.peak <= peak_max, "{allocated:?}");
            worst[0] = worst[0].max(allocated.peak);
        }
        for read in LISTS_OF_ANSWERS {
            let (_, allocated) = allocated_by(|| read(&answer));
            assert!(allocated.total <= ANSWER_FACTOR * reply.len(), "{allocated:?} for {}", reply.len());
            assert!(allocated.peak <= 2 * LIST_ENTRIES_MAX * ANSWER_FACTOR, "{allocated:?}");
            worst[1] = worst[1].max(allocated.peak);
        }
    }
    assert_eq!(worst[0], peak_max, "the bound was tried to its end");
    assert!(worst[1] >= LIST_ENTRIES_MAX * size_of::<PartitionConfiguration<'_>>(), "{worst:?}");
}

/// Reads an argument as each type that has a list.
type ReadArgument = fn(&Message<'_>) -> Result<(), ThriftError>;
const LISTS_OF_REQUESTS: [ReadArgument; 6] = [
    |message| message.argument::<MultiPutRequest<'_>>().map(drop),
    |message| message.argument::<MultiGetRequest<'_>>().map(drop),
    |message| message.argument::<BatchGetRequest<'_>>().map(drop),
    |message| message.argument::<CheckAndMutateRequest<'_>>().map(drop),
    |message| message.argument::<QueryCfgRequest<'_>>().map(drop),
    |message| message.argument::<UpdateAppEnvRequest<'_>>().map(drop),
];

/// Reads a result as each type that has a list of large entries.
type ReadResult = fn(&Answer<'_>) -> Result<(), ThriftError>;
const LISTS_OF_ANSWERS: [ReadResult; 3] = [
    |answer| answer.result::<QueryCfgResponse<'_>>().map(drop),
    |answer| answer.result::<ListAppsResponse<'_>>().map(drop),
    |answer| answer.result::<BatchGetResponse<'_>>().map(drop),
];

#[test]
fn errors_allocate_nothing() {
    let announced = list(FieldType::Struct, LIST_ENTRIES_MAX as i32, &[0; 100]);
    let (error, allocated) = allocated_by(|| read::<Vec<KeyValue<'_>>>(&announced));
    assert_eq!((error, allocated), (Err(ThriftError::Truncated), NOTHING));
    let blobs = list(FieldType::Struct, 1000, &[0; 3999]);
    let (error, allocated) = allocated_by(|| read::<Vec<Blob<'_>>>(&blobs));
    assert_eq!((error, allocated), (Err(ThriftError::Truncated), NOTHING));
    for header in [v0(u32::MAX), v1(u32::MAX, 0), b"RDSN".to_vec(), v0(7)] {
        assert_eq!(allocated_by(|| find(&header).is_ok()).1, NOTHING);
    }
}
