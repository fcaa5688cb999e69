//! The bytes of a log write and of a segment's first block. Pure: nothing here touches a file.
//!
//! A write begins on a block and fills whole blocks:
//!
//! ```text
//! +--------+------+--------+---------+---------+-----+---------+
//! | header | list | repeat | record  | record  | ... | padding |
//! +--------+------+--------+---------+---------+-----+---------+
//!
//! header
//! offset size field               little endian
//!      0    4 magic               "PGLW"
//!      4    2 version             1
//!      6    2 zero
//!      8    4 checksum            CRC-32C of header, list and repeat without this field
//!     12    4 previous checksum   that of the previous write's header: the chain
//!     16    8 log                 drawn at random when the directory was made
//!     24    8 incarnation         raised at each start
//!     32    8 first sequence      of this incarnation
//!     40    8 sequence            rises by one with each write, also over restarts
//!     48    8 synced              highest sequence known synced when this was built
//!     56    8 head                lowest sequence that still belongs to the log
//!     64    4 write bytes         all of it, a multiple of 4096
//!     68    4 record bytes        all records together
//!     72    4 record count
//!     76    2 list count
//!     78    2 repeat count
//!     80      list, then repeat: 24 bytes each
//!
//! list entry: what the write holds of one partition; repeat: the previous write's list
//!      0    4 table
//!      4    4 partition index
//!      8    8 first decree
//!     16    8 last decree
//!
//! first block of a segment: written once its zeros are synced, never again
//!      0    4 magic               "PGLS"
//!      4    2 version             1
//!      6    2 zero
//!      8    4 checksum            CRC-32C of the 32 bytes without this field
//!     12    4 segment number
//!     16    8 log
//!     24    8 segment bytes
//!     32      zeros to 4096
//! ```
//!
//! Decoding never panics and never returns what was not written, whatever the bytes are.

use std::collections::BTreeMap;

use pegasus_wire::{Decree, PartitionId};

pub(super) use super::record::RECORD_HEADER_BYTES;
use super::record::{LogRecord, RecordView};

/// Bytes are not what the format allows; the text says where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct FormatError(pub(super) &'static str);

/// What one write holds of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionRange {
    /// The partition.
    pub partition: PartitionId,
    /// Lowest decree among its records.
    pub first: Decree,
    /// Highest decree among its records.
    pub last: Decree,
}

/// The header of a write. See the module for the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WriteHeader {
    pub(super) previous_checksum: u32,
    pub(super) log: u64,
    pub(super) incarnation: u64,
    pub(super) first_sequence: u64,
    pub(super) sequence: u64,
    pub(super) synced: u64,
    pub(super) head: u64,
    pub(super) write_bytes: u32,
    pub(super) record_bytes: u32,
    pub(super) record_count: u32,
    pub(super) list: Vec<PartitionRange>,
    pub(super) repeat: Vec<PartitionRange>,
}

impl WriteHeader {
    /// Bytes of the header with its lists.
    pub(super) fn encoded_bytes(&self) -> usize {
        HEADER_BYTES + (self.list.len() + self.repeat.len()) * RANGE_BYTES
    }

    /// Writes header and lists to the beginning of `out` and returns the checksum.
    pub(super) fn encode(&self, out: &mut [u8]) -> u32 {
        assert!(self.list.len() <= PARTITIONS_PER_WRITE_MAX && self.repeat.len() <= PARTITIONS_PER_WRITE_MAX);
        let out = &mut out[..self.encoded_bytes()];
        put_u32(out, MAGIC, WRITE_MAGIC);
        put_u16(out, VERSION, FORMAT_VERSION);
        put_u16(out, VERSION + 2, 0);
        put_u32(out, PREVIOUS_CHECKSUM, self.previous_checksum);
        put_u64(out, LOG, self.log);
        put_u64(out, INCARNATION, self.incarnation);
        put_u64(out, FIRST_SEQUENCE, self.first_sequence);
        put_u64(out, SEQUENCE, self.sequence);
        put_u64(out, SYNCED, self.synced);
        put_u64(out, HEAD, self.head);
        put_u32(out, WRITE_LENGTH, self.write_bytes);
        put_u32(out, RECORD_LENGTH, self.record_bytes);
        put_u32(out, RECORD_COUNT, self.record_count);
        put_u16(out, LIST_COUNT, self.list.len() as u16);
        put_u16(out, REPEAT_COUNT, self.repeat.len() as u16);
        for (range, at) in self.list.iter().chain(&self.repeat).zip(out[HEADER_BYTES..].chunks_exact_mut(RANGE_BYTES)) {
            put_u32(at, 0, range.partition.table.0);
            put_u32(at, 4, range.partition.index);
            put_u64(at, 8, range.first.0);
            put_u64(at, 16, range.last.0);
        }
        let checksum = checksum(out);
        put_u32(out, CHECKSUM, checksum);
        checksum
    }

    /// Decodes the header at the beginning of `bytes`; also returns its checksum.
    pub(super) fn decode(bytes: &[u8]) -> Result<(WriteHeader, u32), FormatError> {
        if bytes.len() < HEADER_BYTES || u32_at(bytes, MAGIC) != WRITE_MAGIC {
            return Err(FormatError("no write begins here"));
        }
        if u16_at(bytes, VERSION) != FORMAT_VERSION || u16_at(bytes, VERSION + 2) != 0 {
            return Err(FormatError("unknown version of a write"));
        }
        let list_count = u16_at(bytes, LIST_COUNT) as usize;
        let repeat_count = u16_at(bytes, REPEAT_COUNT) as usize;
        let encoded = HEADER_BYTES + (list_count + repeat_count) * RANGE_BYTES;
        if list_count > PARTITIONS_PER_WRITE_MAX || repeat_count > PARTITIONS_PER_WRITE_MAX || encoded > bytes.len() {
            return Err(FormatError("impossible list length"));
        }
        let bytes = &bytes[..encoded];
        let checksum = checksum(bytes);
        if checksum != u32_at(bytes, CHECKSUM) {
            return Err(FormatError("header checksum"));
        }
        let mut ranges = bytes[HEADER_BYTES..].chunks_exact(RANGE_BYTES).map(decode_range);
        let header = WriteHeader {
            previous_checksum: u32_at(bytes, PREVIOUS_CHECKSUM),
            log: u64_at(bytes, LOG),
            incarnation: u64_at(bytes, INCARNATION),
            first_sequence: u64_at(bytes, FIRST_SEQUENCE),
            sequence: u64_at(bytes, SEQUENCE),
            synced: u64_at(bytes, SYNCED),
            head: u64_at(bytes, HEAD),
            write_bytes: u32_at(bytes, WRITE_LENGTH),
            record_bytes: u32_at(bytes, RECORD_LENGTH),
            record_count: u32_at(bytes, RECORD_COUNT),
            list: ranges.by_ref().take(list_count).collect(),
            repeat: ranges.collect(),
        };
        if (header.write_bytes as usize) != whole_blocks(encoded + header.record_bytes as usize) {
            return Err(FormatError("write length does not fit its parts"));
        }
        Ok((header, checksum))
    }
}

fn decode_range(bytes: &[u8]) -> PartitionRange {
    PartitionRange {
        partition: PartitionId::new(u32_at(bytes, 0), u32_at(bytes, 4)),
        first: Decree(u64_at(bytes, 8)),
        last: Decree(u64_at(bytes, 16)),
    }
}

/// A write of which every byte that matters was checked.
#[derive(Debug)]
pub(super) struct DecodedWrite<'a> {
    pub(super) header: WriteHeader,
    pub(super) records: Vec<RecordView<'a>>,
}

/// Decodes the write at the beginning of `bytes`: header, lists and all records.
pub(super) fn decode_write(bytes: &[u8]) -> Result<DecodedWrite<'_>, FormatError> {
    let (header, checksum) = WriteHeader::decode(bytes)?;
    let begin = header.encoded_bytes();
    let mut rest = bytes.get(begin..begin + header.record_bytes as usize).ok_or(FormatError("write is cut off"))?;
    let mut records = Vec::with_capacity((header.record_count as usize).min(rest.len() / RECORD_HEADER_BYTES));
    while !rest.is_empty() {
        let (record, length) = RecordView::decode(rest, checksum)?;
        records.push(record);
        rest = &rest[length..];
    }
    if records.len() != header.record_count as usize {
        return Err(FormatError("record count"));
    }
    Ok(DecodedWrite { header, records })
}

/// Encodes a whole write into `out`, which is exactly `header.write_bytes` long. Returns the header's checksum.
pub(super) fn encode_write<'a>(
    header: &WriteHeader,
    records: impl Iterator<Item = &'a LogRecord>,
    out: &mut [u8],
) -> u32 {
    assert_eq!(out.len(), header.write_bytes as usize, "the buffer fits the write");
    let checksum = header.encode(out);
    let mut at = header.encoded_bytes();
    for record in records {
        record.encode(checksum, &mut out[at..]);
        at += record.encoded_bytes();
    }
    assert_eq!(at, header.encoded_bytes() + header.record_bytes as usize, "the header counts the records");
    out[at..].fill(0);
    checksum
}

/// Builds the list of a write, record by record.
#[derive(Debug, Default)]
pub(super) struct ListBuilder(BTreeMap<PartitionId, (Decree, Decree)>);

impl ListBuilder {
    /// True if a write that already lists this much can list the partition too.
    pub(super) fn admits(&self, partition: PartitionId) -> bool {
        self.0.len() < PARTITIONS_PER_WRITE_MAX || self.0.contains_key(&partition)
    }

    pub(super) fn add(&mut self, partition: PartitionId, decree: Decree) {
        let (first, last) = self.0.entry(partition).or_insert((decree, decree));
        *first = decree.min(*first);
        *last = decree.max(*last);
    }

    pub(super) fn finish(self) -> Vec<PartitionRange> {
        self.0.into_iter().map(|(partition, (first, last))| PartitionRange { partition, first, last }).collect()
    }
}

/// The first block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u32,
    pub(super) log: u64,
    pub(super) segment_bytes: u64,
}

impl SegmentHeader {
    /// Fills a block.
    pub(super) fn encode(&self, block: &mut [u8]) {
        block.fill(0);
        put_u32(block, MAGIC, SEGMENT_MAGIC);
        put_u16(block, VERSION, FORMAT_VERSION);
        put_u32(block, SEGMENT_NUMBER, self.number);
        put_u64(block, LOG, self.log);
        put_u64(block, SEGMENT_LENGTH, self.segment_bytes);
        let checksum = checksum(&block[..SEGMENT_HEADER_BYTES]);
        put_u32(block, CHECKSUM, checksum);
    }

    pub(super) fn decode(block: &[u8]) -> Option<SegmentHeader> {
        let bytes = block.get(..SEGMENT_HEADER_BYTES)?;
        let known = u32_at(bytes, MAGIC) == SEGMENT_MAGIC
            && u16_at(bytes, VERSION) == FORMAT_VERSION
            && checksum(bytes) == u32_at(bytes, CHECKSUM);
        known.then(|| SegmentHeader {
            number: u32_at(bytes, SEGMENT_NUMBER),
            log: u64_at(bytes, LOG),
            segment_bytes: u64_at(bytes, SEGMENT_LENGTH),
        })
    }
}

/// Checksum of everything but the checksum field.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CHECKSUM]), &bytes[CHECKSUM + 4..])
}

/// `bytes` rounded up to whole blocks.
pub(super) fn whole_blocks(bytes: usize) -> usize {
    bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

/// True if the block may begin a write; cheap.
pub(super) fn may_begin_write(block: &[u8]) -> bool {
    block.len() >= HEADER_BYTES && u32_at(block, MAGIC) == WRITE_MAGIC
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Unit of writing, of loss in a crash, and of alignment.
pub(super) const BLOCK_BYTES: usize = 4096;
/// Where the first write of a segment begins.
pub(super) const SEGMENT_DATA_OFFSET: u64 = BLOCK_BYTES as u64;
/// Partitions one write may hold records of; bounds the lists.
pub(super) const PARTITIONS_PER_WRITE_MAX: usize = 256;
/// Longest header with its lists.
pub(super) const HEADER_BYTES_MAX: usize = HEADER_BYTES + 2 * PARTITIONS_PER_WRITE_MAX * RANGE_BYTES;

const WRITE_MAGIC: u32 = u32::from_le_bytes(*b"PGLW");
const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"PGLS");
const FORMAT_VERSION: u16 = 1;

const MAGIC: usize = 0;
const VERSION: usize = MAGIC + 4;
const CHECKSUM: usize = VERSION + 4;
const PREVIOUS_CHECKSUM: usize = CHECKSUM + 4;
const LOG: usize = PREVIOUS_CHECKSUM + 4;
const INCARNATION: usize = LOG + 8;
const FIRST_SEQUENCE: usize = INCARNATION + 8;
const SEQUENCE: usize = FIRST_SEQUENCE + 8;
const SYNCED: usize = SEQUENCE + 8;
const HEAD: usize = SYNCED + 8;
const WRITE_LENGTH: usize = HEAD + 8;
const RECORD_LENGTH: usize = WRITE_LENGTH + 4;
const RECORD_COUNT: usize = RECORD_LENGTH + 4;
const LIST_COUNT: usize = RECORD_COUNT + 4;
const REPEAT_COUNT: usize = LIST_COUNT + 2;
pub(super) const HEADER_BYTES: usize = REPEAT_COUNT + 2;
pub(super) const RANGE_BYTES: usize = 24;
const SEGMENT_NUMBER: usize = PREVIOUS_CHECKSUM;
const SEGMENT_LENGTH: usize = LOG + 8;
const SEGMENT_HEADER_BYTES: usize = SEGMENT_LENGTH + 8;

const _: () = assert!(HEADER_BYTES == 80);
const _: () = assert!(SEGMENT_HEADER_BYTES == 32);
const _: () = assert!(PARTITIONS_PER_WRITE_MAX <= u16::MAX as usize);
/// A write of one small record, listed and with a short repeat, fits one block.
const _: () = assert!(HEADER_BYTES + 9 * RANGE_BYTES + RECORD_HEADER_BYTES + 1024 < BLOCK_BYTES);
