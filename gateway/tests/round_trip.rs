//! What is written is read again: every structure, every request, every answer, as the codec writes it and as other
//! people's clients may.

#![allow(clippy::unwrap_used)]

mod common;

use common::fixed::frames;
use common::layout::kinds;
use common::source::{Sample, Source};
use pegasus_gateway::answer::{Answer, append_error, append_result, length};
use pegasus_gateway::frame::{Message, Progress, RequestHeader, append_request, find};
use pegasus_gateway::messages::read::{MultiGetRequest, ScanResponse};
use pegasus_gateway::messages::write::CheckAndMutateRequest;
use pegasus_gateway::thrift::{ThriftError, Value};
use pegasus_gateway::{ErrorName, Rpc};
use proptest::collection::vec;
use proptest::prelude::*;

/// Enough for a few entries in every list.
const ENTROPY_BYTES: usize = 1024;

proptest! {
    #[test]
    fn every_structure_survives(entropy in vec(any::<u8>(), 0..ENTROPY_BYTES)) {
        for kind in kinds() {
            (kind.survives)(&mut Source::new(&entropy));
        }
    }

    #[test]
    fn fields_may_be_mixed_missing_and_unknown(entropy in vec(any::<u8>(), 0..ENTROPY_BYTES)) {
        for kind in kinds() {
            (kind.survives_mixed)(&mut Source::new(&entropy));
        }
    }

    #[test]
    fn requests_survive(entropy in vec(any::<u8>(), 0..ENTROPY_BYTES), before in vec(any::<u8>(), 0..8)) {
        let mut source = Source::new(&entropy);
        let (header, rpc, sequence) = envelope(&mut source);
        let argument = CheckAndMutateRequest::sample(&mut source);
        let mut bytes = before.clone();
        append_request(&mut bytes, &header, rpc, sequence, &argument);
        prop_assert_eq!(&bytes[..before.len()], &before);
        check_request(&bytes[before.len()..], 48, &header, rpc, sequence, &argument);
        let hash = i32::from_be_bytes(*bytes[before.len() + 36..].first_chunk().unwrap());
        prop_assert_eq!(hash, header.app_id.wrapping_mul(7919).wrapping_add(header.partition_index));
    }

    #[test]
    fn requests_of_version_1_survive(entropy in vec(any::<u8>(), 0..ENTROPY_BYTES)) {
        let mut source = Source::new(&entropy);
        let (mut header, rpc, sequence) = envelope(&mut source);
        let argument = MultiGetRequest::sample(&mut source);
        let mut plain = Vec::new();
        append_request(&mut plain, &header, rpc, sequence, &argument);
        (header.version, header.is_backup_request) = (1, bool::sample(&mut source));
        let (bytes, body_at) = with_header_of_version_1(&header, &plain[48..]);
        check_request(&bytes, body_at, &header, rpc, sequence, &argument);
    }

    #[test]
    fn answers_survive(entropy in vec(any::<u8>(), 0..ENTROPY_BYTES), before in vec(any::<u8>(), 0..8)) {
        let mut source = Source::new(&entropy);
        let (_, rpc, sequence) = envelope(&mut source);
        let result = ScanResponse::sample(&mut source);
        let mut bytes = before.clone();
        append_result(&mut bytes, rpc.name().as_bytes(), sequence, &result);
        prop_assert_eq!(&bytes[..before.len()], &before);
        let bytes = &bytes[before.len()..];
        prop_assert_eq!(length(bytes), Ok(Some(bytes.len())));
        let answer = Answer::parse(bytes).unwrap();
        prop_assert_eq!((answer.error, answer.sequence, answer.is_ok()), ("ERR_OK", sequence, true));
        prop_assert_eq!(answer.result::<ScanResponse<'_>>(), Ok(result));
    }

    #[test]
    fn error_answers_survive(sequence in any::<i32>(), name in vec(any::<u8>(), 0..80), index in any::<usize>()) {
        let error = ErrorName::ALL[index % ErrorName::ALL.len()];
        let mut bytes = Vec::new();
        append_error(&mut bytes, &name, sequence, error);
        prop_assert_eq!(length(&bytes), Ok(Some(bytes.len())));
        let answer = Answer::parse(&bytes).unwrap();
        prop_assert_eq!((ErrorName::from_text(answer.error), answer.sequence), (Some(error), sequence));
        prop_assert_eq!(answer.is_ok(), error == ErrorName::Ok);
        // Longer names are cut to 47 bytes, and lengthened only then.
        let mut said = name;
        said.truncate(47);
        said.extend(b"_ACK");
        prop_assert!(bytes[..bytes.len() - 4].ends_with(&said));
        prop_assert_eq!(bytes.len(), 4 + 4 + error.text().len() + 4 + 4 + said.len() + 4);
    }
}

/// What stands around an argument.
fn envelope(source: &mut Source<'_>) -> (RequestHeader, Rpc, i32) {
    let header = RequestHeader {
        version: 0,
        app_id: i32::sample(source),
        partition_index: i32::sample(source),
        timeout_ms: i32::sample(source),
        partition_hash: i64::sample(source).cast_unsigned(),
        is_backup_request: false,
    };
    (header, Rpc::ALL[source.below(Rpc::ALL.len())], i32::sample(source))
}

/// The same body behind the other header; and where it begins. Fields that are 0 are left out.
fn with_header_of_version_1(header: &RequestHeader, body: &[u8]) -> (Vec<u8>, usize) {
    let mut meta = Vec::new();
    let numbers = [(1, header.app_id), (2, header.partition_index), (3, header.timeout_ms)];
    for (id, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
        meta.extend([8, 0, id]);
        meta.extend(number.to_be_bytes());
    }
    meta.extend([10, 0, 4]);
    meta.extend(header.partition_hash.to_be_bytes());
    if header.is_backup_request {
        meta.extend([2, 0, 5, 1]);
    }
    meta.push(0);
    let mut bytes = b"THFT\0\0\0\x01".to_vec();
    bytes.extend((meta.len() as u32).to_be_bytes());
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend(&meta);
    bytes.extend(body);
    (bytes, 16 + meta.len())
}

fn check_request<'a, T: Value<'a> + PartialEq + std::fmt::Debug>(
    bytes: &'a [u8],
    body_at: usize,
    header: &RequestHeader,
    rpc: Rpc,
    sequence: i32,
    argument: &T,
) {
    let whole = Progress::Whole { header: *header, body_at, end: bytes.len() };
    assert_eq!(find(bytes), Ok(whole));
    let message = Message::parse(&bytes[body_at..]).unwrap();
    assert_eq!((Rpc::from_name(message.name), message.sequence), (Some(rpc), sequence));
    assert!(!message.is_one_way);
    assert_eq!(message.argument::<T>().as_ref(), Ok(argument));
    let mut followed = bytes.to_vec();
    followed.extend(b"THFT");
    assert_eq!(find(&followed), Ok(whole), "what follows is another request");
}

#[test]
fn a_request_is_looked_for_as_it_arrives() {
    for frame in frames().into_iter().filter(|frame| frame.is_request) {
        let header = match find(&frame.bytes) {
            Ok(Progress::Whole { header, body_at: 48, end }) if end == frame.bytes.len() => header,
            other => panic!("{}: {other:?}", frame.name),
        };
        let (of_version_1, _) = with_header_of_version_1(&header, &frame.bytes[48..]);
        for (bytes, header_bytes) in [(&frame.bytes, 48), (&of_version_1, 16)] {
            for length in 0..bytes.len() {
                // What is needed can be told in three steps, and is never more than the request has.
                let needed = match length {
                    ..16 => 16,
                    _ if length < header_bytes => header_bytes,
                    _ => bytes.len(),
                };
                assert_eq!(find(&bytes[..length]), Ok(Progress::Needs(needed)), "{} cut at {length}", frame.name);
            }
            assert!(matches!(find(bytes), Ok(Progress::Whole { end, .. }) if end == bytes.len()), "{}", frame.name);
        }
    }
}

#[test]
fn an_answer_is_looked_for_as_it_arrives() {
    for frame in frames().into_iter().filter(|frame| !frame.is_request) {
        for end in 0..=frame.bytes.len() {
            let expected = (end >= 4).then_some(frame.bytes.len());
            assert_eq!(length(&frame.bytes[..end]), Ok(expected), "{} cut at {end}", frame.name);
        }
    }
}

#[test]
fn the_argument_is_found_among_other_fields() {
    // Field 1 with another type, then field 2 with the right one, then the argument, then one more.
    let mut body = b"\x80\x01\0\x04\0\0\0\x01x\0\0\0\x09".to_vec();
    body.extend(b"\x08\0\x01\0\0\0\x07");
    body.extend(b"\x0a\0\x02\0\0\0\0\0\0\0\x08");
    body.extend(b"\x0a\0\x01\0\0\0\0\0\0\0\x09");
    body.extend(b"\x0a\0\x01\0\0\0\0\0\0\0\x0a\0");
    let message = Message::parse(&body).unwrap();
    assert_eq!((message.name, message.sequence, message.is_one_way), (&b"x"[..], 9, true));
    assert_eq!(message.argument::<i64>(), Ok(9));
    assert_eq!(message.argument::<i64>(), Ok(9), "it can be read twice");
    assert_eq!(message.argument::<i32>(), Ok(7));
    assert_eq!(message.argument::<bool>(), Err(ThriftError::NoArgument));
}

#[test]
fn the_result_is_found_among_other_fields() {
    let mut bytes = b"\0\0\0\0\0\0\0\x06ERR_OK\x80\x01\0\x02\0\0\0\x05x_ACK\0\0\0\x09".to_vec();
    bytes.extend(b"\x08\0\x01\0\0\0\x07");
    bytes.extend(b"\x0a\0\0\0\0\0\0\0\0\0\x08");
    bytes.extend(b"\x08\0\0\0\0\0\x09\0");
    let answer = Answer::parse(&bytes).unwrap();
    assert_eq!((answer.error, answer.sequence), ("ERR_OK", 9));
    assert_eq!(answer.result::<i32>(), Ok(9), "field 1 is an exception that a method may declare");
    assert_eq!(answer.result::<i64>(), Ok(8));
    assert_eq!(answer.result::<bool>(), Err(ThriftError::NoArgument));
}
