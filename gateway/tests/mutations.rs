//! A little fuzzing in every run of the tests: valid frames, changed at random, read to the end. What can be read is
//! written and read again, and must be the same. The seed is fixed, so a failure comes back.
//!
//! The same for as long as one likes, with other seeds: `MUTATIONS=100000000 SEED=7 cargo test --release -p
//! pegasus-gateway --test mutations`. Fuzzing that is led by coverage is in `gateway/fuzz`.

#![allow(clippy::unwrap_used)]

mod common;

use common::fixed::frames;
use common::layout::kinds;
use common::methods::{read_argument, read_result};
use common::source::{Random, Source};
use pegasus_gateway::Rpc;
use pegasus_gateway::answer::{Answer, length};
use pegasus_gateway::frame::{Message, Progress, find};
use pegasus_gateway::thrift::ThriftError;

/// How many changed frames a run reads, unless the environment says otherwise.
const MUTATIONS: u64 = 1_500_000;
/// Words that lengths, counts and types are replaced with.
const WORDS: [u32; 12] = [0, 1, 2, 0x7f, 0x80, 0xffff, 0x4000, 0x4001, 0x7fff_ffff, 0x8000_0000, 0x8001_0001, u32::MAX];

/// Changes some bytes.
fn change(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1));
        match random.below(8) {
            _ if bytes.is_empty() => bytes.push(random.next() as u8),
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 2, 3, 4, 6, 8, 10, 11, 12, 13, 14, 15, 255][random.below(13)],
            2 => bytes[at] = random.next() as u8,
            3 if at + 4 <= bytes.len() => {
                let word = WORDS[random.below(WORDS.len())];
                bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
            }
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..(at + random.below(16)).min(bytes.len()))),
            6 => {
                // A piece of it once more.
                let end = (at + random.below(64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                // A piece of another frame.
                let start = random.below(other.len());
                let end = (start + random.below(64)).min(other.len());
                let until = (at + random.below(64)).min(bytes.len());
                bytes.splice(at..until, other[start..end].iter().copied());
            }
        }
    }
}

/// The lengths in the header are made right again, so that most of what was changed is looked at.
fn repair(bytes: &mut [u8], is_request: bool) {
    let total = bytes.len();
    if is_request && total >= 48 {
        bytes[16..20].copy_from_slice(&(total as u32 - 48).to_be_bytes());
    } else if !is_request && total >= 4 {
        bytes[..4].copy_from_slice(&(total as u32).to_be_bytes());
    }
}

/// Reads a request as a server does; true if it could be.
fn read_request(bytes: &[u8]) -> bool {
    match find(bytes) {
        Ok(Progress::Needs(needed)) => assert!(needed > bytes.len()),
        Ok(Progress::Whole { body_at, end, .. }) => {
            assert!(body_at <= end && end <= bytes.len());
            let Ok(message) = Message::parse(&bytes[body_at..end]) else { return false };
            if let Some(rpc) = Rpc::from_name(message.name) {
                return read_argument(rpc, &message).is_ok();
            }
        }
        Ok(Progress::TooLarge { body_at, end }) => {
            assert!(body_at < end && bytes.len() >= body_at);
            // Its begin is read all the same.
            let _ = Message::parse(&bytes[body_at..]);
        }
        Err(_) => {}
    }
    false
}

/// Reads an answer as a client does; true if it could be.
fn read_answer(rpc: Rpc, bytes: &[u8]) -> bool {
    let Ok(Some(stated)) = length(bytes) else { return false };
    let Some(whole) = bytes.get(..stated) else { return false };
    Answer::parse(whole).and_then(|answer| read_result(rpc, &answer)).is_ok()
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn changed_frames_are_read_or_refused() {
    let frames = frames();
    let mut random = Random(from_environment("SEED", 1));
    let mut read = [0u64; 2];
    let rounds = from_environment("MUTATIONS", MUTATIONS);
    for _ in 0..rounds {
        let frame = &frames[random.below(frames.len())];
        let other = &frames[random.below(frames.len())];
        let mut bytes = frame.bytes.clone();
        change(&mut random, &mut bytes, &other.bytes);
        if random.below(8) != 0 {
            repair(&mut bytes, frame.is_request);
        }
        let is_read = if frame.is_request { read_request(&bytes) } else { read_answer(frame.rpc, &bytes) };
        read[usize::from(is_read)] += 1;
    }
    // Were nearly all refused, or nearly none, the changes would be too wild or too tame to prove anything.
    assert!(read.iter().all(|count| *count >= rounds / 20), "{read:?} were refused and read");
}

#[test]
fn changed_structures_are_read_or_refused() {
    let mut random = Random(from_environment("SEED", 2));
    let kinds = kinds();
    for _ in 0..from_environment("MUTATIONS", MUTATIONS) / 10 {
        let entropy = random.bytes(300);
        let kind = &kinds[random.below(kinds.len())];
        let mut bytes = (kind.write)(&mut Source::new(&entropy));
        let other = (kind.write)(&mut Source::new(&entropy[150..]));
        change(&mut random, &mut bytes, &other);
        for kind in [kind, &kinds[random.below(kinds.len())]] {
            match (kind.read)(&bytes) {
                Ok(left) => assert!(left < bytes.len(), "{}", kind.name),
                Err(ThriftError::NotStrict(_) | ThriftError::MessageType(_) | ThriftError::NoArgument) => {
                    panic!("{}: not an error of a structure", kind.name)
                }
                Err(_) => {}
            }
        }
    }
}
