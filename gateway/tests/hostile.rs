//! Bytes nobody meant to send. Whatever arrives, reading it ends in a value or in the one error that says what is
//! wrong: never in a panic, never in waiting for what cannot come, never in more memory than the bytes justify.

#![allow(clippy::unwrap_used)]

mod common;

use common::allocations::{Counting, NOTHING, allocated_by};
use common::crafted::*;
use common::fixed::{DATA_HEADER, frames};
use common::layout::kinds;
use common::methods::{read_argument, read_result};
use common::source::{Random, Source};
use pegasus_gateway::Rpc;
use pegasus_gateway::answer::{Answer, AnswerError, length};
use pegasus_gateway::frame::{FrameError, Message, Progress, append_request, find};
use pegasus_gateway::limits::*;
use pegasus_gateway::messages::meta::{QueryCfgRequest, QueryCfgResponse};
use pegasus_gateway::messages::read::KeyValue;
use pegasus_gateway::messages::write::MultiPutRequest;
use pegasus_gateway::thrift::{Blob, FieldType, Map, Reader, ThriftError};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn strangers_are_told_where_to_go() {
    let error = |begin: &[u8]| find(begin).unwrap_err();
    for (begin, said) in [
        (b"RDSN", "the C++ client's protocol is not served here"),
        (b"GET ", "HTTP is served at the administration port"),
        (b"POST", "HTTP is served at the administration port"),
        (b"HEAD", "HTTP is served at the administration port"),
        (b"PUT ", "HTTP is served at the administration port"),
        (b"\x16\x03\x01\x02", "this port serves Pegasus's Thrift clients"),
        (b"thft", "this port serves Pegasus's Thrift clients"),
    ] {
        let mut sent = begin.to_vec();
        sent.extend([b'x'; 100]);
        assert_eq!(error(&sent), FrameError::NotThrift(*begin));
        assert_eq!(error(begin), FrameError::NotThrift(*begin));
        let text = error(begin).to_string();
        assert!(text.contains(said) && text.contains(&begin.escape_ascii().to_string()), "{text}");
        assert!(text.is_ascii() && !text.contains(char::is_control), "a log line stays one line: {text}");
    }
    // Less than four bytes are enough if they are wrong.
    assert_eq!(error(b"R"), FrameError::NotThrift(*b"R\0\0\0"));
    assert_eq!(error(b"THX"), FrameError::NotThrift(*b"THX\0"));
    assert_eq!(find(b""), Ok(Progress::Needs(16)));
    assert_eq!(find(b"THF"), Ok(Progress::Needs(16)));
}

#[test]
fn headers_that_lie_are_refused_at_once() {
    let with_version = |version: u32| {
        let mut header = v0(0);
        header[4..8].copy_from_slice(&version.to_be_bytes());
        find(&header[..16])
    };
    for version in [2, 256, 1 << 24, u32::MAX] {
        assert_eq!(with_version(version), Err(FrameError::UnknownVersion(version)));
    }
    for length in [0, 16, 47, 49, u32::MAX] {
        let mut header = v0(0);
        header[8..12].copy_from_slice(&length.to_be_bytes());
        assert_eq!(find(&header[..16]), Err(FrameError::HeaderLength(length)));
    }
    let largest = BODY_BYTES_MAX as u32;
    assert_eq!(find(&v0(largest)), Ok(Progress::Needs(48 + BODY_BYTES_MAX)));
    assert_eq!(find(&v1(37, largest)), Ok(Progress::Needs(16 + 37 + BODY_BYTES_MAX)));
    for over in [largest + 1, BODY_BYTES_PASSED_OVER_MAX as u32] {
        // No more of it than tells what it asks for.
        assert_eq!(find(&v0(over)), Ok(Progress::Needs(48 + 59)));
        assert_eq!(find(&v1(37, over)), Ok(Progress::Needs(16 + 37 + 59)));
    }
    for over in [BODY_BYTES_PASSED_OVER_MAX as u32 + 1, i32::MAX as u32, 1 << 31, u32::MAX] {
        // Before a byte of the body is there.
        assert_eq!(find(&v0(over)), Err(FrameError::BodyTooLarge(over)));
        assert_eq!(find(&v1(37, over)), Err(FrameError::BodyTooLarge(over)));
    }
    assert_eq!(find(&v1(META_BYTES_MAX as u32, 9)), Ok(Progress::Needs(16 + META_BYTES_MAX + 9)));
    for over in [META_BYTES_MAX as u32 + 1, 1 << 31, u32::MAX] {
        assert_eq!(find(&v1(over, 0)), Err(FrameError::MetaTooLarge(over)));
        assert_eq!(find(&v1(over, u32::MAX)), Err(FrameError::MetaTooLarge(over)));
    }
}

#[test]
fn the_structure_of_a_header_stays_within_its_length() {
    let field = b"\x08\0\x01\0\0\0\x02\0";
    for short in 0..field.len() {
        let mut bytes = v1(short as u32, (field.len() - short) as u32);
        bytes.extend(field);
        assert_eq!(find(&bytes), Err(FrameError::Thrift(ThriftError::Truncated)), "{short} bytes announced");
    }
    // One that is shorter than announced is followed by nothing that is looked at.
    let mut bytes = v1(field.len() as u32 + 3, 0);
    bytes.extend(field);
    bytes.extend([0xff; 3]);
    assert!(matches!(find(&bytes), Ok(Progress::Whole { header, body_at: 27, .. }) if header.app_id == 2));
    for (meta, error) in [
        (&b"\x01\0\x01"[..], ThriftError::UnknownType(1)),
        (b"\x0b\0\x09\xff\xff\xff\xff", ThriftError::NegativeLength(-1)),
        (b"\x0f\0\x09\x02\x7f\xff\xff\xff", ThriftError::TooManyEntries(i32::MAX)),
    ] {
        let mut bytes = v1(meta.len() as u32, 0);
        bytes.extend(meta);
        assert_eq!(find(&bytes), Err(FrameError::Thrift(error)));
    }
    let mut bytes = v1(17 * 3, 0);
    bytes.extend(b"\x0c\0\x09".repeat(17));
    assert_eq!(find(&bytes), Err(FrameError::Thrift(ThriftError::TooDeep)));
}

#[test]
fn only_calls_are_requests_and_only_replies_are_answers() {
    let of = |kind: u8| begin(0x8001_0000 | u32::from(kind), b"RPC_RRDB_RRDB_GET");
    let answer = |kind: u8| [b"\0\0\0\0\0\0\0\x06ERR_OK", &of(kind)[..]].concat();
    for kind in 0..=255 {
        match Message::parse(&of(kind)) {
            Ok(message) => assert!(kind == 1 && !message.is_one_way || kind == 4 && message.is_one_way, "{kind}"),
            Err(error) => assert!(error == ThriftError::MessageType(kind) && kind != 1 && kind != 4, "{kind}"),
        }
        let error = Answer::parse(&answer(kind)).err();
        assert_eq!(error, (kind != 2).then_some(ThriftError::MessageType(kind)));
    }
    for word in [0, 1, 0x0000_0011, 0x8000_0001, 0x8002_0001, 0x7fff_ffff, 0xffff_ffff, 0x0001_0001] {
        assert_eq!(Message::parse(&begin(word, b"x")).err(), Some(ThriftError::NotStrict(word)));
    }
}

#[test]
fn names_may_be_anything_and_are_cut() {
    let word = 0x8001_0001;
    let long = vec![b'n'; 10 << 20];
    let body = begin(word, &long);
    let (parsed, allocated) = allocated_by(|| Message::parse(&body).unwrap());
    assert_eq!((parsed.name, parsed.sequence, allocated), (&long[..NAME_BYTES_MAX], 1, NOTHING));
    assert_eq!(Rpc::from_name(parsed.name), None);
    for name in [&b""[..], b"\xff\xfe\0\n", b"RPC_RRDB_RRDB_GE", b"RPC_RRDB_RRDB_GETS", b"rpc_rrdb_rrdb_get"] {
        let body = begin(word, name);
        assert_eq!(Rpc::from_name(Message::parse(&body).unwrap().name), None);
    }
    // What is cut to the length of a known name is not that method.
    for rpc in Rpc::ALL {
        let name = [rpc.name().as_bytes(), &[b'X'; 60]].concat();
        assert_eq!(Rpc::from_name(Message::parse(&begin(word, &name)).unwrap().name), None);
    }
    for (length, error) in [
        (-1i32, ThriftError::NegativeLength(-1)),
        (i32::MIN, ThriftError::NegativeLength(i32::MIN)),
        (i32::MAX, ThriftError::Truncated),
        (6, ThriftError::Truncated),
    ] {
        let body = [&word.to_be_bytes()[..], &length.to_be_bytes(), b"12345"].concat();
        assert_eq!(Message::parse(&body).err(), Some(error));
    }
}

#[test]
fn every_truncation_of_a_structure_is_told() {
    let mut random = Random(1);
    for kind in kinds() {
        let bytes = (kind.write)(&mut Source::new(&random.bytes(600)));
        assert_eq!((kind.read)(&bytes), Ok(0), "{}", kind.name);
        for length in 0..bytes.len() {
            assert_eq!((kind.read)(&bytes[..length]), Err(ThriftError::Truncated), "{} cut at {length}", kind.name);
        }
    }
}

#[test]
fn every_truncation_of_a_body_is_told() {
    for frame in frames() {
        // The last byte ends the structure around the value, which nobody waits for.
        let begin = if frame.is_request { 48 } else { 0 };
        let bytes = &frame.bytes[begin..];
        for length in 0..bytes.len() {
            let cut = &bytes[..length];
            let error = if frame.is_request {
                Message::parse(cut).and_then(|message| read_argument(frame.rpc, &message)).err()
            } else {
                Answer::parse(cut).and_then(|answer| read_result(frame.rpc, &answer)).err()
            };
            let expected =
                (length < bytes.len() - 1 || frame.name.starts_with("error")).then_some(ThriftError::Truncated);
            assert_eq!(error, expected, "{} cut at {length}", frame.name);
        }
    }
}

#[test]
fn lengths_of_answers_are_bounded() {
    let of = |stated: i32| length(&stated.to_be_bytes());
    for stated in [-1, i32::MIN, 0, 3, ANSWER_BYTES_MAX as i32 + 1, i32::MAX] {
        assert_eq!(of(stated), Err(AnswerError::Length(stated)));
    }
    assert_eq!(of(4), Ok(Some(4)));
    assert_eq!(of(ANSWER_BYTES_MAX as i32), Ok(Some(ANSWER_BYTES_MAX)));
}

#[test]
fn lengths_of_blobs_and_texts_are_checked() {
    for (length, error) in [
        (-1i32, ThriftError::NegativeLength(-1)),
        (i32::MIN, ThriftError::NegativeLength(i32::MIN)),
        (4, ThriftError::Truncated),
        (i32::MAX, ThriftError::Truncated),
    ] {
        let bytes = [&length.to_be_bytes()[..], b"abc"].concat();
        assert_eq!(read::<Blob<'_>>(&bytes), Err(error));
        assert_eq!(read::<&str>(&bytes), Err(error));
        let value = structure(FieldType::Struct, 1, &bytes);
        assert_eq!(read::<MultiPutRequest<'_>>(&value), Err(error));
        // The same in a field that is skipped. A structure's end is there: only within the bytes it could be read.
        let skipped = structure(FieldType::String, 99, &bytes);
        let error = if length == 4 { ThriftError::Truncated } else { error };
        assert_eq!(read::<MultiPutRequest<'_>>(&skipped), Err(error));
    }
}

#[test]
fn text_is_text() {
    for bytes in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\xe4\xb8"] {
        let text = [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
        assert_eq!(read::<&str>(&text), Err(ThriftError::NotText));
        assert_eq!(read::<Blob<'_>>(&text), Ok(Blob(bytes)), "a blob may be anything");
        let query = structure(FieldType::String, 1, &text);
        assert_eq!(read::<QueryCfgRequest<'_>>(&query), Err(ThriftError::NotText));
        let answer = structure(FieldType::Struct, 1, &text);
        assert_eq!(read::<QueryCfgResponse<'_>>(&answer), Err(ThriftError::NotText));
        let map = [&b"\x0b\x0b\0\0\0\x01\0\0\0\0"[..], &text].concat();
        assert_eq!(read::<Map<'_>>(&map), Err(ThriftError::NotText));
        let error = [b"\0\0\0\0", &text[..]].concat();
        assert_eq!(Answer::parse(&error).err(), Some(ThriftError::NotText));
    }
}

#[test]
fn wrong_types_are_passed_over_or_told() {
    // A field of another type counts as unknown.
    let wrong = structure(FieldType::I64, 1, &[7; 8]);
    assert_eq!(read::<QueryCfgRequest<'_>>(&wrong), Ok(QueryCfgRequest::default()));
    // A list that holds another type does not: the field is ours.
    let wrong = structure(FieldType::List, 2, &list(FieldType::I64, 1, &[0; 8]));
    let error = Err(ThriftError::WrongType { found: 10, wanted: 8 });
    assert_eq!(read::<QueryCfgRequest<'_>>(&wrong), error);
    for code in [0, 1, 5, 7, 9, 16, 127, 128, 255] {
        let unknown = Err(ThriftError::UnknownType(code));
        let skipped = |value: &[u8]| {
            let bytes = [value, &[0; 9]].concat();
            read::<KeyValue<'_>>(&bytes).map(|read| assert_eq!(read, KeyValue::default()))
        };
        if code != 0 {
            assert_eq!(skipped(&[code, 0, 9]), unknown);
        }
        assert_eq!(skipped(&[15, 0, 9, code, 0, 0, 0, 1]), unknown);
        assert_eq!(skipped(&[14, 0, 9, code, 0, 0, 0, 1]), unknown);
        assert_eq!(skipped(&[13, 0, 9, code, 2, 0, 0, 0, 1]), unknown);
        assert_eq!(skipped(&[13, 0, 9, 2, code, 0, 0, 0, 1]), unknown);
        // Nobody knows the type of no entries.
        assert_eq!(skipped(&[15, 0, 9, code, 0, 0, 0, 0]), Ok(()));
        assert_eq!(skipped(&[13, 0, 9, code, code, 0, 0, 0, 0]), Ok(()));
    }
    let pairs = |key: u8, value: u8| read::<Map<'_>>(&[key, value, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).map(drop);
    assert_eq!(pairs(11, 11), Ok(()));
    assert_eq!(pairs(8, 11), Err(ThriftError::WrongType { found: 8, wanted: 11 }));
    assert_eq!(pairs(11, 12), Err(ThriftError::WrongType { found: 12, wanted: 11 }));
}

#[test]
fn counts_are_held_against_what_is_there() {
    let counted = |of: FieldType, count: i32, bytes: usize| {
        let value = list(of, count, &vec![0; bytes]);
        let typed = match of {
            FieldType::Struct => read::<Vec<KeyValue<'_>>>(&value).map(|list| list.len()),
            FieldType::I32 => read::<Vec<i32>>(&value).map(|list| list.len()),
            _ => read::<Vec<&str>>(&value).map(|list| list.len()),
        };
        let skipped = Reader::new(&value).skip(FieldType::List);
        assert_eq!(typed.map(drop), skipped, "{of:?} {count}");
        typed
    };
    let most = LIST_ENTRIES_MAX as i32;
    for (of, bytes) in [(FieldType::Struct, 1), (FieldType::I32, 4), (FieldType::String, 4)] {
        assert_eq!(counted(of, most, bytes * LIST_ENTRIES_MAX), Ok(LIST_ENTRIES_MAX));
        assert_eq!(counted(of, most, bytes * LIST_ENTRIES_MAX - 1), Err(ThriftError::Truncated));
        assert_eq!(counted(of, 1, bytes - 1), Err(ThriftError::Truncated));
        for over in [most + 1, i32::MAX] {
            assert_eq!(counted(of, over, bytes * (LIST_ENTRIES_MAX + 1)), Err(ThriftError::TooManyEntries(over)));
        }
        for negative in [-1, i32::MIN] {
            assert_eq!(counted(of, negative, 64), Err(ThriftError::NegativeLength(negative)));
        }
    }
    let pairs = |count: i32, bytes: usize| {
        let value = [&[11, 11], &count.to_be_bytes()[..], &vec![0; bytes]].concat();
        let typed = read::<Map<'_>>(&value).map(|map| map.0.len());
        assert_eq!(typed.map(drop), Reader::new(&value).skip(FieldType::Map), "{count}");
        typed
    };
    assert_eq!(pairs(most, 8 * LIST_ENTRIES_MAX), Ok(LIST_ENTRIES_MAX));
    assert_eq!(pairs(most, 8 * LIST_ENTRIES_MAX - 1), Err(ThriftError::Truncated));
    assert_eq!(pairs(most + 1, 8 * (LIST_ENTRIES_MAX + 1)), Err(ThriftError::TooManyEntries(most + 1)));
    assert_eq!(pairs(-7, 8), Err(ThriftError::NegativeLength(-7)));
}

#[test]
fn nesting_ends_somewhere() {
    type Nest = fn(usize) -> Vec<u8>;
    // Each is a field that nobody knows, with so many values inside each other, and what ends them.
    let nests: [(&str, Nest); 4] = [
        ("structures", |depth| [b"\x0c\0\x63".repeat(depth), vec![0; depth]].concat()),
        ("lists", |depth| [&b"\x0f\0\x63"[..], &b"\x0f\0\0\0\x01".repeat(depth - 1), b"\x02\0\0\0\0"].concat()),
        ("sets", |depth| [&b"\x0e\0\x63"[..], &b"\x0e\0\0\0\x01".repeat(depth - 1), b"\x02\0\0\0\0"].concat()),
        ("maps", |depth| {
            let inner = b"\x0d\x02\0\0\0\x01".repeat(depth - 1);
            [&b"\x0d\0\x63"[..], &inner, b"\x02\x02\0\0\0\0", &vec![1; depth - 1]].concat()
        }),
    ];
    for (name, nest) in nests {
        for depth in [1, 2, DEPTH_MAX - 1, DEPTH_MAX, DEPTH_MAX + 1, 100, 1000, 10_000] {
            let mut bytes = nest(depth);
            bytes.push(0);
            let expected = if depth <= DEPTH_MAX { Ok(KeyValue::default()) } else { Err(ThriftError::TooDeep) };
            let (found, allocated) = allocated_by(|| read::<KeyValue<'_>>(&bytes));
            assert_eq!((found, allocated), (expected, NOTHING), "{depth} {name}");
        }
    }
}

#[test]
fn a_request_of_the_largest_size_is_taken() {
    let overhead = 4 + 4 + Rpc::Get.name().len() + 4 + 3 + 4 + 1;
    let value = vec![7; BODY_BYTES_MAX - overhead];
    let mut bytes = Vec::new();
    append_request(&mut bytes, &DATA_HEADER, Rpc::Get, 1, &Blob(&value));
    assert!(matches!(find(&bytes), Ok(Progress::Whole { end, .. }) if end == 48 + BODY_BYTES_MAX));
    bytes.clear();
    append_request(&mut bytes, &DATA_HEADER, Rpc::Get, 1, &Blob(&[&value[..], &[7]].concat()));
    let too_large = Progress::TooLarge { body_at: 48, end: 48 + BODY_BYTES_MAX + 1 };
    for length in [48 + 59, 48 + 60, bytes.len()] {
        assert_eq!(find(&bytes[..length]), Ok(too_large));
    }
    assert_eq!(find(&bytes[..48 + 58]), Ok(Progress::Needs(48 + 59)));
    let message = Message::parse(&bytes[48..48 + 59]).unwrap();
    assert_eq!((message.name, message.sequence), (Rpc::Get.name().as_bytes(), 1));
}
