//! The format's bytes, and what decoders make of bytes that were never written.

use bytes::Bytes;
use pegasus_wire::{Ballot, Decree, MutationKind, PartitionId, ReplicaIncarnation};
use proptest::prelude::*;

use super::format::*;
use super::record::{LogRecord, RecordKind, RecordView};

fn record(decree: u64, payload: &[u8]) -> LogRecord {
    LogRecord {
        partition: PartitionId::new(2, 7),
        incarnation: ReplicaIncarnation(0x1122_3344_5566_7788),
        kind: RecordKind::Mutation(MutationKind::Write),
        ballot: Ballot(3),
        decree: Decree(decree),
        committed: Decree(decree - 1),
        timestamp_micros: 1_700_000_000_000_000,
        payload: Bytes::copy_from_slice(payload),
    }
}

fn range(index: u32, first: u64, last: u64) -> PartitionRange {
    PartitionRange { partition: PartitionId::new(2, index), first: Decree(first), last: Decree(last) }
}

fn write(records: &[LogRecord]) -> (WriteHeader, Vec<u8>) {
    let record_bytes: usize = records.iter().map(LogRecord::encoded_bytes).sum();
    let mut header = WriteHeader {
        previous_checksum: 0xAABB_CCDD,
        log: 0x0102_0304_0506_0708,
        incarnation: 5,
        first_sequence: 40,
        sequence: 42,
        synced: 41,
        head: 17,
        write_bytes: 0,
        record_bytes: record_bytes as u32,
        record_count: records.len() as u32,
        list: vec![range(7, 10, 11)],
        repeat: vec![range(7, 8, 9), range(8, 1, 1)],
    };
    header.write_bytes = whole_blocks(header.encoded_bytes() + record_bytes) as u32;
    let mut bytes = vec![0xEE; header.write_bytes as usize];
    encode_write(&header, records.iter(), &mut bytes);
    (header, bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of format version 1, computed by another program. A change here is a change of the format: raise its
/// version instead.
#[test]
fn golden_write() {
    let (_, bytes) = write(&[record(10, b"ab"), record(11, b"")]);
    let expected = GOLDEN_WRITE.concat();
    assert_eq!(hex(&bytes[..expected.len() / 2]), expected);
    assert!(bytes[expected.len() / 2..].iter().all(|byte| *byte == 0), "padding is zero");
}

const GOLDEN_WRITE: [&str; 22] = [
    "50474c5701000000",
    "2e5ff83e",
    "ddccbbaa",
    "080706050403020105000000000000002800000000000000",
    "2a0000000000000029000000000000001100000000000000",
    "00100000820000000200000001000200",
    "02000000070000000a000000000000000b00000000000000",
    "020000000700000008000000000000000900000000000000",
    "020000000800000001000000000000000100000000000000",
    "42000000",
    "3b8c0b0b",
    "02000000070000008877665544332211",
    "03000000000000000a00000000000000",
    "090000000000000000401e18240a0600",
    "0100000000000000",
    "6162",
    "40000000",
    "f11d3488",
    "02000000070000008877665544332211",
    "03000000000000000b00000000000000",
    "0a0000000000000000401e18240a0600",
    "0100000000000000",
];

#[test]
fn golden_segment_header() {
    let mut block = vec![0xEE; BLOCK_BYTES];
    let header = SegmentHeader { number: 3, log: 0x0102_0304_0506_0708, segment_bytes: 1 << 25 };
    header.encode(&mut block);
    assert_eq!(hex(&block[..32]), GOLDEN_SEGMENT.concat());
    assert!(block[32..].iter().all(|byte| *byte == 0));
    assert_eq!(SegmentHeader::decode(&block), Some(header));
    for bit in 0..32 * 8 {
        block[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(SegmentHeader::decode(&block), None, "bit {bit} flipped");
        block[bit / 8] ^= 1 << (bit % 8);
    }
}

const GOLDEN_SEGMENT: [&str; 3] = ["50474c5301000000", "c8bac429", "0300000008070605040302010000000200000000"];

#[test]
fn truncate_has_its_own_kind() {
    let truncate = LogRecord { kind: RecordKind::Truncate, payload: Bytes::new(), ..record(4, b"") };
    let (_, bytes) = write(std::slice::from_ref(&truncate));
    let decoded = decode_write(&bytes).unwrap();
    assert_eq!(decoded.records.len(), 1);
    assert_eq!(decoded.records[0].to_record(), truncate);
    assert_eq!(bytes[HEADER_BYTES + 3 * RANGE_BYTES + 56], 128);
}

/// A record of an earlier life of the same block has a right length and its own right checksum, but another write's
/// header before it.
#[test]
fn record_of_another_write_is_refused() {
    let (mut header, mut bytes) = write(&[record(10, b"ab"), record(11, b"cd")]);
    header.sequence += 1;
    header.encode(&mut bytes);
    assert_eq!(decode_write(&bytes).err(), Some(FormatError("record checksum")));
}

#[test]
fn every_flipped_bit_is_seen() {
    let (header, bytes) = write(&[record(10, b"ab"), record(11, b"")]);
    let meaningful = header.encoded_bytes() + header.record_bytes as usize;
    for bit in 0..meaningful * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_write(&flipped).is_err(), "bit {bit} flipped");
    }
}

fn any_record() -> impl Strategy<Value = LogRecord> {
    let kind = prop_oneof![
        Just(RecordKind::Mutation(MutationKind::Empty)),
        Just(RecordKind::Mutation(MutationKind::Write)),
        Just(RecordKind::Truncate)
    ];
    let ids = (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>());
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>());
    (ids, kind, numbers, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(ids, kind, numbers, payload)| {
        LogRecord {
            partition: PartitionId::new(ids.0, ids.1),
            incarnation: ReplicaIncarnation(ids.2),
            kind,
            ballot: Ballot(ids.3),
            decree: Decree(numbers.0),
            committed: Decree(numbers.1),
            timestamp_micros: numbers.2,
            payload: Bytes::from(payload),
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(records in prop::collection::vec(any_record(), 0..40)) {
        let (header, bytes) = write(&records);
        let decoded = decode_write(&bytes).unwrap();
        prop_assert_eq!(&decoded.header, &header);
        let read: Vec<_> = decoded.records.iter().map(|record| record.to_record()).collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn random_bytes_are_nothing(mut bytes in prop::collection::vec(any::<u8>(), 0..9000), with_magic: bool) {
        if with_magic && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(b"PGLW\x01\0\0\0");
        }
        prop_assert!(decode_write(&bytes).is_err());
        prop_assert!(RecordView::decode(&bytes, 0).is_err());
        prop_assert!(SegmentHeader::decode(&bytes).is_none());
    }

    #[test]
    fn altered_bytes_give_the_same_write_or_none(
        records in prop::collection::vec(any_record(), 0..10),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        cut_it: bool,
    ) {
        let (_, bytes) = write(&records);
        let mut altered = bytes.clone();
        for (at, value) in changes {
            let at = at.index(altered.len());
            altered[at] = value;
        }
        if cut_it {
            altered.truncate(cut.index(altered.len()));
        }
        if let Ok(decoded) = decode_write(&altered) {
            let read: Vec<_> = decoded.records.iter().map(|record| record.to_record()).collect();
            prop_assert_eq!(read, records);
        }
    }
}
