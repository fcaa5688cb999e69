//! The bytes themselves. Every example of the fact file is here as it is there, the header of version 1 is worked out
//! by hand, and `tests/images` keeps a frame of every request and answer.
//!
//! The images were compared with what Apache's own Thrift library writes for the same values. A layout of a foreign
//! protocol never changes; images are added for new methods: `UPDATE_GOLDEN=1 cargo test -p pegasus-gateway --test
//! golden` writes them.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::fixed::{DATA_HEADER, SERVER, STORED_KEY, frames};
use common::hex::{dump, parse, parse_dump};
use common::methods::{read_argument, read_result};
use pegasus_gateway::answer::{Answer, append_error, append_result, length};
use pegasus_gateway::frame::{Message, Progress, RequestHeader, append_request, find};
use pegasus_gateway::messages::admin::{AppEnvOperation, AppStatus, MatchType, NodeStatus};
use pegasus_gateway::messages::meta::QueryCfgRequest;
use pegasus_gateway::messages::read::{FilterType, ReadResponse, SCAN_COMPLETE, SCAN_UNKNOWN};
use pegasus_gateway::messages::write::{CheckType, MutateOperation};
use pegasus_gateway::thrift::{Blob, ErrorCode, FieldType, Gpid, HostPort, Reader, RpcAddress, Value, Writer};
use pegasus_gateway::{ErrorName, Rpc, StorageCode};

/// RPC_RRDB_RRDB_GET of "hello", "sk" in partition 2.7, a second, sequence 7.
const GET_REQUEST: &str = "
    54484654 00000000 00000030 00000000 0000002e 00000000 00000002 00000007 000003e8 00003de5 3377857006524257
    80010001 00000011 5250435f525244425f525244425f474554 00000007 0c0001 00000009 000568656c6c6f736b 00";
/// Query of table "temp", sequence 1, partition 0.0.
const QUERY_CFG_REQUEST: &str = "
    54484654 00000000 00000030 00000000 0000004a 00000000 00000000 00000000 00000000 00000000 0000000000000000
    80010001 00000026 5250435f434d5f51554552595f504152544954494f4e5f434f4e4649475f42595f494e444558 00000001
    0c0001 0b0001 00000004 74656d70 0f0002 08 00000000 00 00";
/// Answer to the get: "v", of partition 2.7.
const GET_ANSWER: &str = "
    00000067 00000006 4552525f4f4b 80010002 00000015 5250435f525244425f525244425f4745545f41434b 00000007
    0c0000 080001 00000000 0c0002 00000001 76 080003 00000002 080004 00000007
    0b0006 0000000f 3132372e302e302e313a3334383031 00 00";

/// The same get with a header of version 1, worked out by hand from section 2.2.
const GET_REQUEST_V1: &[&str] = &[
    "54484654",                                                      // THFT
    "00000001",                                                      // version 1
    "00000025",                 // the structure has 37 bytes: 7 + 7 + 7 + 11 + 4 + 1
    "0000002e",                 // the body has 46, as above
    "08 0001 00000002",         // i32, field 1: the table is 2
    "08 0002 00000007",         // i32, field 2: the partition is 7
    "08 0003 000003e8",         // i32, field 3: the client waits 1,000 ms
    "0a 0004 3377857006524257", // i64, field 4: hash of the key
    "02 0005 01",               // bool, field 5: a secondary may answer
    "00",                       // end of the structure
    "80010001 00000011 5250435f525244425f525244425f474554 00000007", // strict call, name, sequence
    "0c0001 00000009 000568656c6c6f736b 00", // argument: a raw blob; end
];

#[test]
fn the_get_request_is_the_one_of_the_facts() {
    let bytes = parse(GET_REQUEST);
    assert_eq!(bytes.len(), 94);
    let mut written = Vec::new();
    append_request(&mut written, &DATA_HEADER, Rpc::Get, 7, &Blob(STORED_KEY));
    assert_eq!(written, bytes);
    assert_eq!(find(&bytes), Ok(Progress::Whole { header: DATA_HEADER, body_at: 48, end: 94 }));
    let message = Message::parse(&bytes[48..]).unwrap();
    assert_eq!((message.name, message.sequence, message.is_one_way), (&b"RPC_RRDB_RRDB_GET"[..], 7, false));
    assert_eq!(message.argument::<Blob<'_>>(), Ok(Blob(b"\0\x05hellosk")));
}

#[test]
fn the_query_is_the_one_of_the_facts() {
    let bytes = parse(QUERY_CFG_REQUEST);
    assert_eq!(bytes.len(), 122);
    let query = QueryCfgRequest { app_name: "temp", partition_indices: vec![] };
    let mut written = Vec::new();
    append_request(&mut written, &RequestHeader::default(), Rpc::QueryCfg, 1, &query);
    assert_eq!(written, bytes);
    assert_eq!(find(&bytes), Ok(Progress::Whole { header: RequestHeader::default(), body_at: 48, end: 122 }));
    let message = Message::parse(&bytes[48..]).unwrap();
    assert_eq!((Rpc::from_name(message.name), message.sequence), (Some(Rpc::QueryCfg), 1));
    assert_eq!(message.argument::<QueryCfgRequest<'_>>(), Ok(query));
}

#[test]
fn the_get_answer_is_the_one_of_the_facts() {
    let bytes = parse(GET_ANSWER);
    assert_eq!(bytes.len(), 103);
    let response = ReadResponse { error: 0, value: Blob(b"v"), app_id: 2, partition_index: 7, server: SERVER };
    let mut written = Vec::new();
    append_result(&mut written, b"RPC_RRDB_RRDB_GET", 7, &response);
    assert_eq!(written, bytes);
    assert_eq!(length(&bytes), Ok(Some(103)));
    let answer = Answer::parse(&bytes).unwrap();
    assert_eq!((answer.error, answer.sequence, answer.is_ok()), ("ERR_OK", 7, true));
    assert_eq!(answer.result::<ReadResponse<'_>>(), Ok(response));
}

#[test]
fn an_error_ends_with_the_begin_of_the_message() {
    let mut written = Vec::new();
    append_error(&mut written, b"RPC_RRDB_RRDB_GET", -2, ErrorName::Busy);
    let bytes = parse(
        "00000031 00000008 4552525f42555359 80010002 00000015 5250435f525244425f525244425f4745545f41434b fffffffe",
    );
    assert_eq!(written, bytes);
    let answer = Answer::parse(&bytes).unwrap();
    assert_eq!((answer.error, answer.sequence, answer.is_ok()), ("ERR_BUSY", -2, false));
}

#[test]
fn a_header_of_version_1_is_read() {
    let bytes = parse(&GET_REQUEST_V1.concat());
    assert_eq!(bytes.len(), 16 + 37 + 46);
    let header = RequestHeader { version: 1, is_backup_request: true, ..DATA_HEADER };
    assert_eq!(find(&bytes), Ok(Progress::Whole { header, body_at: 53, end: 99 }));
    let message = Message::parse(&bytes[53..]).unwrap();
    assert_eq!(message.argument::<Blob<'_>>(), Ok(Blob(STORED_KEY)));
    // Every field may be missing.
    let empty = parse("54484654 00000001 00000001 00000000 00");
    let nothing = RequestHeader { version: 1, ..RequestHeader::default() };
    assert_eq!(find(&empty), Ok(Progress::Whole { header: nothing, body_at: 17, end: 17 }));
    // The Java client says -1 to the meta service, in both fields.
    let meta = parse("54484654 00000001 0000000f 00000000 080001ffffffff 080002ffffffff 00");
    let header = RequestHeader { app_id: -1, partition_index: -1, ..nothing };
    assert_eq!(find(&meta), Ok(Progress::Whole { header, body_at: 31, end: 31 }));
}

/// Writes a value, and reads it again.
fn bytes_of<'a, T: Value<'a>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.write(&mut Writer::new(&mut bytes));
    bytes
}

#[test]
fn special_types_are_raw() {
    let address = |text: &str| RpcAddress(Some(text.parse().unwrap()));
    let host = HostPort { host: "node-1", port: 34801, kind: 1 };
    let of_7 = Gpid { app_id: 2, partition_index: 7 };
    let nowhere = Gpid { app_id: -1, partition_index: -1 };
    for (bytes, expected) in [
        (bytes_of(&Blob(b"\0\x05hellosk")), "00000009 000568656c6c6f736b"),
        (bytes_of(&Blob(b"")), "00000000"),
        (bytes_of(&ErrorCode("ERR_OK")), "00000006 4552525f4f4b"),
        (bytes_of(&of_7), "00000007 00000002"),
        (bytes_of(&nowhere), "ffffffff ffffffff"),
        (bytes_of(&address("127.0.0.1:34801")), "7f00000187f10001"),
        (bytes_of(&address("255.254.253.252:65535")), "fffefdfcffff0001"),
        (bytes_of(&RpcAddress(None)), "0000000000000000"),
        (bytes_of(&host), "00000006 6e6f64652d31 87f1 01"),
        // In lists they are called structures too.
        (bytes_of(&vec![Blob(b"a"), Blob(b"")]), "0c 00000002 00000001 61 00000000"),
        (bytes_of(&vec![address("127.0.0.1:1")]), "0c 00000001 7f00000100010001"),
        (bytes_of(&Vec::<HostPort<'_>>::new()), "0c 00000000"),
    ] {
        assert_eq!(bytes, parse(expected), "{expected}");
    }
    for other in ["00000000000a0002", "7f00000187f10000", "7f00000187f10003"] {
        let read = RpcAddress::read(&mut Reader::new(&parse(other))).unwrap();
        assert_eq!(read, RpcAddress(None), "only type 1 is an address, 2 is a group: {other}");
    }
    for (byte, value) in [(0, false), (1, true), (2, true), (255, true)] {
        assert_eq!(bool::read(&mut Reader::new(&[byte])), Ok(value), "as Apache's library reads {byte}");
    }
    let bytes = bytes_of(&host);
    assert_eq!(HostPort::read(&mut Reader::new(&bytes)), Ok(host));
    assert_eq!(Gpid::read(&mut Reader::new(&bytes_of(&nowhere))), Ok(nowhere));
    for of in [Blob::TYPE, ErrorCode::TYPE, Gpid::TYPE, RpcAddress::TYPE, HostPort::TYPE] {
        assert_eq!(of as u8, 12);
    }
}

#[test]
fn numbers_that_travel_are_those_of_the_facts() {
    let types = [
        (FieldType::Bool, 2),
        (FieldType::Byte, 3),
        (FieldType::Double, 4),
        (FieldType::I16, 6),
        (FieldType::I32, 8),
        (FieldType::I64, 10),
        (FieldType::String, 11),
        (FieldType::Struct, 12),
        (FieldType::Map, 13),
        (FieldType::Set, 14),
        (FieldType::List, 15),
    ];
    for (of, code) in types {
        assert_eq!(of as u8, code);
    }
    let filters = [FilterType::NONE, FilterType::ANYWHERE, FilterType::PREFIX, FilterType::POSTFIX];
    assert_eq!(filters.map(|filter| filter.0), [0, 1, 2, 3]);
    let checks = [CheckType::NO_CHECK, CheckType::VALUE_NOT_EXIST, CheckType::VALUE_BYTES_EQUAL];
    assert_eq!(checks.map(|check| check.0), [0, 1, 10]);
    assert_eq!([MutateOperation::PUT, MutateOperation::DELETE].map(|operation| operation.0), [0, 1]);
    let states = [AppStatus::INVALID, AppStatus::AVAILABLE, AppStatus::CREATING, AppStatus::DROPPED];
    assert_eq!(states.map(|state| state.0), [0, 1, 2, 6]);
    assert_eq!([NodeStatus::INVALID, NodeStatus::ALIVE, NodeStatus::UNALIVE].map(|state| state.0), [0, 1, 2]);
    let operations = [AppEnvOperation::SET, AppEnvOperation::DELETE, AppEnvOperation::CLEAR];
    assert_eq!(operations.map(|operation| operation.0), [1, 2, 3]);
    let matches = [MatchType::INVALID, MatchType::ALL, MatchType::EXACT, MatchType::ANYWHERE, MatchType::PREFIX];
    assert_eq!(matches.map(|one| one.0), [0, 1, 2, 3, 4]);
    assert_eq!([MatchType::POSTFIX, MatchType::REGEX].map(|one| one.0), [5, 6]);
    let codes = [
        StorageCode::Ok,
        StorageCode::NotFound,
        StorageCode::Corruption,
        StorageCode::NotSupported,
        StorageCode::InvalidArgument,
        StorageCode::IoError,
        StorageCode::Incomplete,
        StorageCode::TryAgain,
    ];
    assert_eq!(codes.map(StorageCode::code), [0, 1, 2, 3, 4, 5, 7, 13]);
    assert_eq!((SCAN_COMPLETE, SCAN_UNKNOWN), (-1, -2));
}

#[test]
fn every_error_name_is_known_to_every_client() {
    let safe = "ERR_OK ERR_TIMEOUT ERR_BUSY ERR_INVALID_STATE ERR_INACTIVE_STATE ERR_OBJECT_NOT_FOUND \
        ERR_HANDLER_NOT_FOUND ERR_NOT_ENOUGH_MEMBER ERR_CAPACITY_EXCEEDED ERR_INVALID_DATA ERR_INVALID_PARAMETERS \
        ERR_FORWARD_TO_OTHERS ERR_SERVICE_NOT_ACTIVE ERR_APP_NOT_EXIST ERR_APP_EXIST ERR_BUSY_CREATING \
        ERR_BUSY_DROPPING ERR_STATE_FREEZED ERR_UNKNOWN";
    let names: Vec<&str> = ErrorName::ALL.iter().map(|name| name.text()).collect();
    assert_eq!(names, safe.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn every_image_is_as_stored() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut changed = Vec::new();
    for frame in frames() {
        let path = image_path(frame.name);
        let image = dump(&frame.bytes);
        if update {
            std::fs::write(&path, &image).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != image {
            changed.push(frame.name);
        }
    }
    assert!(changed.is_empty(), "the bytes of {changed:?} are not those in tests/images, which every client speaks");
}

#[test]
fn every_stored_image_is_read() {
    let mut seen = BTreeMap::new();
    for frame in frames() {
        let text = std::fs::read_to_string(image_path(frame.name)).unwrap();
        let bytes = parse_dump(&text);
        seen.entry(frame.rpc.name()).or_insert([0, 0])[usize::from(frame.is_request)] += 1;
        if frame.is_request {
            let Ok(Progress::Whole { body_at, end, .. }) = find(&bytes) else { panic!("{}", frame.name) };
            assert_eq!(end, bytes.len(), "{}", frame.name);
            let message = Message::parse(&bytes[body_at..end]).unwrap();
            assert_eq!(Rpc::from_name(message.name), Some(frame.rpc), "{}", frame.name);
            assert_eq!(read_argument(frame.rpc, &message), Ok(()), "{}", frame.name);
        } else {
            assert_eq!(length(&bytes), Ok(Some(bytes.len())), "{}", frame.name);
            let answer = Answer::parse(&bytes).unwrap();
            assert_eq!(answer.is_ok(), !frame.name.starts_with("error"), "{}", frame.name);
            assert_eq!(read_result(frame.rpc, &answer).is_ok(), answer.is_ok(), "{}", frame.name);
        }
    }
    for rpc in Rpc::ALL {
        let [answers, requests] = seen.get(rpc.name()).copied().unwrap_or_default();
        assert!(requests > 0, "add a request of {rpc:?} to tests/common/fixed.rs");
        assert!(answers > 0 || *rpc == Rpc::ClearScanner, "add an answer of {rpc:?} to tests/common/fixed.rs");
    }
}

#[test]
fn every_stored_image_has_its_frame() {
    let mut names: Vec<String> = frames().iter().map(|frame| format!("{}.hex", frame.name)).collect();
    for entry in std::fs::read_dir(image_directory()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&file), "tests/images/{file} belongs to no frame; delete it");
    }
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "two frames share a name");
}

/// Asked for when the test runs: it may have been compiled in another checkout that shares the target directory.
fn image_directory() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("tests/images")
}

fn image_path(name: &str) -> PathBuf {
    image_directory().join(format!("{name}.hex"))
}
