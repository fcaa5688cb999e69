//! One record and its bytes. Pure.
//!
//! ```text
//! offset size field               little endian
//!      0    4 length              of the whole record
//!      4    4 checksum            CRC-32C, see below
//!      8    4 table
//!     12    4 partition index
//!     16    8 replica incarnation
//!     24    8 ballot
//!     32    8 decree
//!     40    8 commit point
//!     48    8 timestamp           microseconds since the Unix epoch
//!     56    1 kind                0 empty, 1 write, 128 truncate
//!     57    7 zero
//!     64      payload
//! ```
//!
//! The checksum covers everything but itself and starts from the checksum of the header of the write that holds
//! the record. So a record that an earlier life of the block left behind never passes for one of this write.

use bytes::Bytes;
use pegasus_wire::{Ballot, Decree, MutationKind, PartitionId, ReplicaIncarnation};

use super::format::{FormatError, put_u32, put_u64, u32_at, u64_at};

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// A mutation was prepared.
    Mutation(MutationKind),
    /// What this copy prepared under lower ballots from this decree on is void. No payload.
    Truncate,
}

impl RecordKind {
    fn code(self) -> u8 {
        match self {
            RecordKind::Mutation(kind) => kind as u8,
            RecordKind::Truncate => TRUNCATE_CODE,
        }
    }

    fn from_code(code: u8) -> Option<RecordKind> {
        match code {
            TRUNCATE_CODE => Some(RecordKind::Truncate),
            code => MutationKind::from_code(code).map(RecordKind::Mutation),
        }
    }
}

/// One record of the log. Cloning shares the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// The partition.
    pub partition: PartitionId,
    /// The copy of the partition on this node that it belongs to.
    pub incarnation: ReplicaIncarnation,
    /// What it says.
    pub kind: RecordKind,
    /// Ballot under which it was prepared, or by which earlier records are void.
    pub ballot: Ballot,
    /// Its position in the partition's history, or the first position that is void.
    pub decree: Decree,
    /// Commit point known when it was appended.
    pub committed: Decree,
    /// The primary's stamp: microseconds since the Unix epoch.
    pub timestamp_micros: u64,
    /// The mutation's payload.
    pub payload: Bytes,
}

impl LogRecord {
    /// Bytes it takes in a log write.
    pub fn encoded_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.payload.len()
    }

    /// Writes it to the beginning of `out`, for a write whose header has checksum `seed`.
    pub(super) fn encode(&self, seed: u32, out: &mut [u8]) {
        let length = self.encoded_bytes();
        let out = &mut out[..length];
        put_u32(out, LENGTH, length as u32);
        put_u32(out, TABLE, self.partition.table.0);
        put_u32(out, INDEX, self.partition.index);
        put_u64(out, INCARNATION, self.incarnation.0);
        put_u64(out, BALLOT, self.ballot.0);
        put_u64(out, DECREE, self.decree.0);
        put_u64(out, COMMITTED, self.committed.0);
        put_u64(out, TIMESTAMP, self.timestamp_micros);
        out[KIND] = self.kind.code();
        out[RESERVED..RECORD_HEADER_BYTES].fill(0);
        out[RECORD_HEADER_BYTES..].copy_from_slice(&self.payload);
        let checksum = checksum(out, seed);
        put_u32(out, CHECKSUM, checksum);
    }
}

/// A decoded record whose payload is still where it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordView<'a> {
    pub(super) partition: PartitionId,
    pub(super) incarnation: ReplicaIncarnation,
    pub(super) kind: RecordKind,
    pub(super) ballot: Ballot,
    pub(super) decree: Decree,
    pub(super) committed: Decree,
    pub(super) timestamp_micros: u64,
    pub(super) payload: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Decodes the record at the beginning of `bytes`; also returns its length.
    pub(super) fn decode(bytes: &'a [u8], seed: u32) -> Result<(RecordView<'a>, usize), FormatError> {
        if bytes.len() < RECORD_HEADER_BYTES {
            return Err(FormatError("too short for a record"));
        }
        let length = u32_at(bytes, LENGTH) as usize;
        if !(RECORD_HEADER_BYTES..=bytes.len()).contains(&length) {
            return Err(FormatError("impossible record length"));
        }
        let bytes = &bytes[..length];
        if checksum(bytes, seed) != u32_at(bytes, CHECKSUM) {
            return Err(FormatError("record checksum"));
        }
        let kind = RecordKind::from_code(bytes[KIND]).ok_or(FormatError("unknown record kind"))?;
        if bytes[RESERVED..RECORD_HEADER_BYTES].iter().any(|byte| *byte != 0) {
            return Err(FormatError("reserved record bytes are not zero"));
        }
        let view = RecordView {
            partition: PartitionId::new(u32_at(bytes, TABLE), u32_at(bytes, INDEX)),
            incarnation: ReplicaIncarnation(u64_at(bytes, INCARNATION)),
            kind,
            ballot: Ballot(u64_at(bytes, BALLOT)),
            decree: Decree(u64_at(bytes, DECREE)),
            committed: Decree(u64_at(bytes, COMMITTED)),
            timestamp_micros: u64_at(bytes, TIMESTAMP),
            payload: &bytes[RECORD_HEADER_BYTES..],
        };
        Ok((view, length))
    }

    /// The record with a payload of its own.
    pub(super) fn to_record(self) -> LogRecord {
        LogRecord {
            partition: self.partition,
            incarnation: self.incarnation,
            kind: self.kind,
            ballot: self.ballot,
            decree: self.decree,
            committed: self.committed,
            timestamp_micros: self.timestamp_micros,
            payload: Bytes::copy_from_slice(self.payload),
        }
    }
}

fn checksum(record: &[u8], seed: u32) -> u32 {
    let length = crc32c::crc32c_append(seed, &record[..CHECKSUM]);
    crc32c::crc32c_append(length, &record[TABLE..])
}

const LENGTH: usize = 0;
const CHECKSUM: usize = LENGTH + 4;
const TABLE: usize = CHECKSUM + 4;
const INDEX: usize = TABLE + 4;
const INCARNATION: usize = INDEX + 4;
const BALLOT: usize = INCARNATION + 8;
const DECREE: usize = BALLOT + 8;
const COMMITTED: usize = DECREE + 8;
const TIMESTAMP: usize = COMMITTED + 8;
const KIND: usize = TIMESTAMP + 8;
const RESERVED: usize = KIND + 1;
/// Bytes before the payload.
pub(super) const RECORD_HEADER_BYTES: usize = RESERVED + 7;
const TRUNCATE_CODE: u8 = 128;

const _: () = assert!(RECORD_HEADER_BYTES == 64);
