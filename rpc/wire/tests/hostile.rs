//! Bytes nobody meant to send. Whatever arrives, reading it ends in a value or an error: never in a panic, never
//! in a read outside the frame, never in a frame that was not sent.
//!
//! The checks of a body are rkyv's; what is tested here is that every message asks for them and that everything
//! they let through can be read to the last byte. Seeds are fixed by proptest's own bookkeeping: a failing case is
//! printed and kept.

#![allow(clippy::unwrap_used)]

mod images;

use bytes::{BufMut, Bytes, BytesMut};
use images::{Image, all};
use pegasus_wire::frame::WireError;
use pegasus_wire::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use pegasus_wire::{Frame, MessageKind, Status};
use proptest::prelude::*;

/// Offsets of the header's fields, as drawn in `docs/formats.md`.
const KIND: usize = 4;
const STATUS: usize = 6;
const ATTACHMENT_BYTES: usize = 20;

#[test]
fn every_truncation_waits_for_more() {
    for image in all() {
        for length in 0..image.bytes.len() {
            let mut buffer = BytesMut::from(&image.bytes[..length]);
            let taken = Frame::take(&mut buffer).unwrap_or_else(|error| panic!("{}: {error}", image.name));
            assert!(taken.is_none(), "{} cut at {length}", image.name);
            assert_eq!(buffer.len(), length, "{}: an incomplete frame stays where it is", image.name);
            let needed = Frame::bytes_needed(&buffer).unwrap();
            assert_eq!(needed, (length >= 4).then_some(image.bytes.len()), "{} cut at {length}", image.name);
        }
    }
}

#[test]
fn every_shortened_body_is_read_or_refused() {
    for image in all() {
        let whole = take(&image.bytes).unwrap();
        for length in 0..whole.body.len() {
            // From either end: rkyv's root is at the end, so a cut there shifts it onto other bytes.
            for body in [whole.body.slice(..length), whole.body.slice(whole.body.len() - length..)] {
                read_everything(&Frame { body, ..whole.clone() });
            }
        }
    }
}

#[test]
fn every_single_bit_flip_is_read_or_refused() {
    for image in all() {
        for bit in 0..image.bytes.len() * 8 {
            let mut bytes = image.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Some(frame) = take(&bytes) {
                let _ = (image.read)(&frame);
            }
        }
    }
}

#[test]
fn a_body_read_as_another_message_is_read_or_refused() {
    for image in all() {
        read_everything(&take(&image.bytes).unwrap());
    }
}

#[test]
fn extreme_lengths_and_pointers_inside_a_body_are_refused_or_harmless() {
    // Every aligned or unaligned word of every body becomes a length, a relative pointer or a tag of the worst kind.
    let words = [0u32, 1, 0x7F, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FF00, 0xFFFF_FFF0, u32::MAX];
    for image in all() {
        for offset in FRAME_HEADER_BYTES..image.bytes.len().saturating_sub(3) {
            for word in words {
                let mut bytes = image.bytes.clone();
                bytes[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
                let _ = (image.read)(&take(&bytes).unwrap());
            }
        }
    }
}

#[test]
fn bodies_may_lie_at_any_address() {
    for image in all() {
        let whole = take(&image.bytes).unwrap();
        let expected = (image.read)(&whole).unwrap();
        for shift in 0..8 {
            let mut moved = vec![0xEE; shift];
            moved.extend_from_slice(&whole.body);
            let frame = Frame { body: Bytes::from(moved).slice(shift..), ..whole.clone() };
            assert_eq!((image.read)(&frame).unwrap(), expected, "{} moved by {shift}", image.name);
        }
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_the_frame_is_there() {
    for total in [FRAME_BYTES_MAX + 1, 1 << 30, u32::MAX as usize] {
        let mut buffer = BytesMut::new();
        buffer.put_u32_le(u32::try_from(total - 4).unwrap());
        let error = Frame::take(&mut buffer).unwrap_err();
        assert!(matches!(error, WireError::TooLarge(bytes) if bytes == total), "{error}");
        assert!(error.to_string().contains("frame_bytes_max"), "{error}");
    }
    let mut buffer = BytesMut::new();
    buffer.put_u32_le(u32::try_from(FRAME_BYTES_MAX - 4).unwrap());
    assert_eq!(Frame::bytes_needed(&buffer).unwrap(), Some(FRAME_BYTES_MAX));
    assert!(Frame::take(&mut buffer).unwrap().is_none());
}

#[test]
fn a_length_below_the_header_is_refused() {
    for length in 0..(FRAME_HEADER_BYTES - 4) as u32 {
        let mut buffer = BytesMut::from(&[0u8; 64][..]);
        buffer[..4].copy_from_slice(&length.to_le_bytes());
        let error = Frame::take(&mut buffer).unwrap_err();
        assert!(matches!(error, WireError::BadHeader(_)), "{error}");
    }
}

#[test]
fn an_attachment_longer_than_its_frame_is_refused() {
    let prepare = image("prepare");
    let room = (prepare.bytes.len() - FRAME_HEADER_BYTES) as u32;
    for (attachment_bytes, fits) in [(0, true), (room, true), (room + 1, false), (u32::MAX, false)] {
        let mut bytes = prepare.bytes.clone();
        bytes[ATTACHMENT_BYTES..ATTACHMENT_BYTES + 4].copy_from_slice(&attachment_bytes.to_le_bytes());
        match Frame::take(&mut BytesMut::from(&bytes[..])) {
            Ok(frame) => assert_eq!(fits.then_some(attachment_bytes as usize), Some(frame.unwrap().attachment.len())),
            Err(error) => assert!(!fits && matches!(error, WireError::BadHeader(_)), "{error}"),
        }
    }
}

#[test]
fn an_unknown_status_is_refused_and_named() {
    let mut refused = 0;
    for code in 0..=u16::MAX {
        let mut bytes = image("empty_answer").bytes;
        bytes[STATUS..STATUS + 2].copy_from_slice(&code.to_le_bytes());
        match (Status::from_code(code), Frame::take(&mut BytesMut::from(&bytes[..]))) {
            (Some(status), Ok(Some(frame))) => assert_eq!(frame.header.status, status),
            (None, Err(WireError::UnknownStatus(named))) => {
                assert_eq!(named, code);
                refused += 1;
            }
            (known, taken) => panic!("status {code}: {known:?}, {taken:?}"),
        }
    }
    assert_eq!(refused, (1 << 16) - Status::ALL.len());
}

#[test]
fn an_unknown_kind_passes_with_its_number() {
    // A later release may send kinds this one does not know. The frame is taken, so that it can be answered.
    let mut bytes = image("get").bytes;
    bytes[KIND..KIND + 2].copy_from_slice(&0xABCDu16.to_le_bytes());
    let frame = take(&bytes).unwrap();
    assert_eq!(frame.header.kind, MessageKind(0xABCD));
    assert_eq!(frame.header.kind.to_string(), "kind 43981");
}

#[test]
fn a_malformed_explanation_is_no_explanation() {
    let whole = take(&image("error_answer").bytes).unwrap();
    let garbage = Frame { body: Bytes::from_static(b"\xFF\xFF\xFF\xFF\xFF"), ..whole };
    assert!(garbage.error().is_none());
}

#[test]
fn malformed_bodies_are_named_by_their_kind() {
    let whole = take(&image("establish").bytes).unwrap();
    let cut = Frame { body: whole.body.slice(..10), ..whole };
    let error = cut.decode::<pegasus_wire::messages::peer::Establish>().unwrap_err();
    assert!(matches!(&error, WireError::BadBody { kind: MessageKind::ESTABLISH, .. }), "{error}");
    assert!(error.to_string().contains("ESTABLISH"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_end_in_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        let mut left = buffer.len();
        while let Ok(Some(frame)) = Frame::take(&mut buffer) {
            prop_assert!(buffer.len() + FRAME_HEADER_BYTES <= left, "each frame takes at least its header");
            left = buffer.len();
            read_everything(&frame);
        }
    }

    #[test]
    fn random_bytes_behind_an_honest_header_are_read_or_refused(
        body in proptest::collection::vec(any::<u8>(), 0..512),
        attachment_bytes in 0u32..600,
        kind in 0u16..80,
    ) {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        bytes[..4].copy_from_slice(&((FRAME_HEADER_BYTES - 4 + body.len()) as u32).to_le_bytes());
        bytes[KIND..KIND + 2].copy_from_slice(&kind.to_le_bytes());
        bytes[ATTACHMENT_BYTES..ATTACHMENT_BYTES + 4].copy_from_slice(&attachment_bytes.to_le_bytes());
        bytes.extend_from_slice(&body);
        if let Some(frame) = take(&bytes) {
            prop_assert_eq!(frame.body.len() + frame.attachment.len(), body.len());
            read_everything(&frame);
        } else {
            prop_assert!(attachment_bytes as usize > body.len());
        }
    }

    #[test]
    fn several_flipped_bits_are_read_or_refused(
        which in any::<prop::sample::Index>(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..16),
    ) {
        let images = all();
        let image = &images[which.index(images.len())];
        let mut bytes = image.bytes.clone();
        for (position, bit) in flips {
            let position = position.index(bytes.len());
            bytes[position] ^= 1 << bit;
        }
        if let Some(frame) = take(&bytes) {
            read_everything(&frame);
        }
    }

    #[test]
    fn any_split_gives_the_same_frames(
        order in proptest::collection::vec(any::<prop::sample::Index>(), 1..12),
        pieces in proptest::collection::vec(1usize..200, 1..64),
    ) {
        let images = all();
        let sent: Vec<&Image> = order.iter().map(|index| &images[index.index(images.len())]).collect();
        let stream: Vec<u8> = sent.iter().flat_map(|image| image.bytes.iter().copied()).collect();
        let received = deliver(&stream, pieces.iter().copied().cycle());
        prop_assert_eq!(received.len(), sent.len());
        for (frame, image) in received.iter().zip(&sent) {
            prop_assert!(same(frame, &take(&image.bytes).unwrap()), "{}", image.name);
        }
    }
}

#[test]
fn byte_by_byte_gives_the_same_frames() {
    let images = all();
    let stream: Vec<u8> = images.iter().flat_map(|image| image.bytes.iter().copied()).collect();
    let received = deliver(&stream, std::iter::repeat(1));
    assert_eq!(received.len(), images.len());
    for (frame, image) in received.iter().zip(&images) {
        assert!(same(frame, &take(&image.bytes).unwrap()), "{}", image.name);
        assert_eq!(frame.header.kind, image.kind, "{}", image.name);
        assert_eq!((image.read)(frame).unwrap(), (image.read)(&take(&image.bytes).unwrap()).unwrap());
    }
}

/// Feeds a stream in pieces and takes every frame as soon as it is whole.
fn deliver(stream: &[u8], mut pieces: impl Iterator<Item = usize>) -> Vec<Frame> {
    let mut buffer = BytesMut::new();
    let mut rest = stream;
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(pieces.next().unwrap().min(rest.len()));
        buffer.extend_from_slice(piece);
        rest = after;
        while let Some(frame) = Frame::take(&mut buffer).unwrap() {
            frames.push(frame);
        }
    }
    assert!(buffer.is_empty(), "whole frames leave nothing behind");
    frames
}

fn same(one: &Frame, other: &Frame) -> bool {
    one.header == other.header && one.body == other.body && one.attachment == other.attachment
}

/// The first frame of the bytes; `None` if they are refused or incomplete.
fn take(bytes: &[u8]) -> Option<Frame> {
    Frame::take(&mut BytesMut::from(bytes)).ok().flatten()
}

/// Reads a frame as every message there is. Errors are fine; panics and reads out of bounds are not.
fn read_everything(frame: &Frame) {
    for image in readers() {
        let _ = image(frame);
    }
    let _ = frame.error();
}

type Read = fn(&Frame) -> Result<u64, WireError>;

fn readers() -> &'static [Read] {
    static READERS: std::sync::OnceLock<Vec<Read>> = std::sync::OnceLock::new();
    READERS.get_or_init(|| all().iter().map(|image| image.read).collect())
}

fn image(name: &str) -> Image {
    all().into_iter().find(|image| image.name == name).unwrap()
}
