//! Keys: which are rows, which are ours, and how rows group into hash keys.
//!
//! ```text
//! rows     u16 BE hash key length , hash key , sort key     length <= 1024, so never FF FF
//! ours     FF FF 63 ("c")                                   the last manual compaction
//!          FF FF 64 ("d")                                   the applied decree
//!          FF FF 73 ("s")                                   the shape of the files
//!
//! last manual compaction:
//! offset size field              big endian
//!      0    1 version            1
//!      1    8 began seconds      Unix second
//!      9    8 ended seconds      Unix second
//!
//! applied decree:
//! offset size field              big endian
//!      0    1 version            1
//!      1    8 decree             last mutation applied
//!      9    8 ballot             its ballot
//!     17    8 timestamp micros   its stamp
//!
//! shape:
//! offset size field              big endian
//!      0    1 version            1
//!      1    1 usage scenario     0 normal, 1 prefer_write, 2 bulk_load
//!      2    8 write buffer bytes 0: the node's setting
//! ```
//!
//! The applied decree is written with the rows; the others are written by themselves, and lose nothing but
//! themselves in a crash.

use pegasus_wire::key::{self, ROWS_END};
use pegasus_wire::{Ballot, Decree};
use rocksdb::SliceTransform;

/// Where the applied decree is kept.
pub(super) const APPLIED_KEY: [u8; 3] = [0xFF, 0xFF, b'd'];

/// Where the last manual compaction is kept.
pub(super) const COMPACTION_KEY: [u8; 3] = [0xFF, 0xFF, b'c'];

/// Where the shape of the files is kept.
pub(super) const SHAPE_KEY: [u8; 3] = [0xFF, 0xFF, b's'];

/// True for keys that are not rows.
pub(super) fn is_reserved(key: &[u8]) -> bool {
    key.starts_with(&ROWS_END)
}

/// How far a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AppliedRecord {
    pub(super) decree: Decree,
    pub(super) ballot: Ballot,
    pub(super) timestamp_micros: u64,
}

impl AppliedRecord {
    pub(super) fn encode(&self) -> [u8; APPLIED_RECORD_BYTES] {
        let mut bytes = [0; APPLIED_RECORD_BYTES];
        bytes[0] = APPLIED_RECORD_VERSION;
        bytes[1..9].copy_from_slice(&self.decree.0.to_be_bytes());
        bytes[9..17].copy_from_slice(&self.ballot.0.to_be_bytes());
        bytes[17..25].copy_from_slice(&self.timestamp_micros.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<AppliedRecord> {
        let bytes: &[u8; APPLIED_RECORD_BYTES] = bytes.try_into().ok()?;
        let (version, rest) = bytes.split_first()?;
        let mut fields = rest.chunks_exact(8).filter_map(|field| field.try_into().ok().map(u64::from_be_bytes));
        let (decree, ballot, timestamp_micros) = (fields.next()?, fields.next()?, fields.next()?);
        (*version == APPLIED_RECORD_VERSION).then_some(AppliedRecord {
            decree: Decree(decree),
            ballot: Ballot(ballot),
            timestamp_micros,
        })
    }
}

/// The part of a stored key that all rows of its hash key share: length and hash key. `None` if the key is not one
/// of a row, or ends before its hash key does.
pub(super) fn hash_key_prefix(key: &[u8]) -> Option<&[u8]> {
    let (length, _) = key.split_first_chunk::<2>()?;
    if *length == ROWS_END {
        return None;
    }
    key.get(..2 + usize::from(u16::from_be_bytes(*length)))
}

/// Writes the exclusive end, as a stored key, of a range of sort keys into `out`, which is cleared first. An empty
/// `stop` means the end of the hash key, which must be within its limit.
pub(super) fn encode_range_end(out: &mut Vec<u8>, hash_key: &[u8], stop: &[u8], stop_inclusive: bool) {
    key::encode_into(out, hash_key, stop);
    if stop.is_empty() {
        to_end_of_prefix(out);
    } else if stop_inclusive {
        // The smallest key above `stop`.
        out.push(0);
    }
}

/// Makes of a beginning of stored keys the smallest key above all that begin so. It has a hash key's length.
pub(super) fn to_end_of_prefix(prefix: &mut Vec<u8>) {
    let last = prefix.iter().rposition(|&byte| byte != 0xFF);
    let last = last.expect("a hash key's length is never FF FF");
    prefix.truncate(last + 1);
    prefix[last] += 1;
}

/// True if `key` is the smallest one above all that begin with `prefix`.
pub(super) fn is_after_prefix(key: &[u8], prefix: &[u8]) -> bool {
    let Some(last) = prefix.iter().rposition(|&byte| byte != 0xFF) else { return false };
    key.len() == last + 1 && key[..last] == prefix[..last] && key[last] == prefix[last] + 1
}

/// Tells RocksDB what a prefix is, so that its Bloom filters know hash keys as well as whole keys. The name is
/// stored in files: another rule needs another name.
pub(super) fn prefix_extractor() -> SliceTransform {
    SliceTransform::create(
        "pegasus.hash_key.1",
        |key| hash_key_prefix(key).unwrap_or(key),
        Some(|key| hash_key_prefix(key).is_some()),
    )
}

const APPLIED_RECORD_VERSION: u8 = 1;
const APPLIED_RECORD_BYTES: usize = 25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applied_record_golden_bytes() {
        let record = AppliedRecord { decree: Decree(0x0102), ballot: Ballot(3), timestamp_micros: 0x0405_0607 };
        let bytes = record.encode();
        assert_eq!(&bytes, b"\x01\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\0\x04\x05\x06\x07");
        assert_eq!(AppliedRecord::decode(&bytes), Some(record));
        assert_eq!(AppliedRecord::decode(&bytes[..24]), None);
        let mut other = bytes;
        other[0] = 2;
        assert_eq!(AppliedRecord::decode(&other), None);
    }

    #[test]
    fn ends_of_prefixes() {
        for prefix in [&b"\0\x01a"[..], b"\0\x01\xFF", b"\0\xFF\xFF\xFF", b"\x01\0", b"\0\x02\xFE\xFF"] {
            let mut end = prefix.to_vec();
            to_end_of_prefix(&mut end);
            assert_eq!(Some(&end), key::after_prefix(prefix).as_ref());
            assert!(is_after_prefix(&end, prefix));
            assert!(!is_after_prefix(prefix, prefix) && !is_after_prefix(&[&end[..], b"\0"].concat(), prefix));
        }
        assert!(!is_after_prefix(b"", b"\xFF\xFF"));
        let mut end = Vec::new();
        let mut range_end = |stop: &[u8], inclusive| {
            encode_range_end(&mut end, b"h", stop, inclusive);
            end.clone()
        };
        assert_eq!(range_end(b"", true), b"\0\x01i");
        assert_eq!(range_end(b"s", true), b"\0\x01hs\0");
        assert_eq!(range_end(b"s", false), b"\0\x01hs");
    }

    #[test]
    fn prefixes() {
        assert_eq!(hash_key_prefix(b"\0\x02absort"), Some(&b"\0\x02ab"[..]));
        assert_eq!(hash_key_prefix(b"\0\x02ab"), Some(&b"\0\x02ab"[..]));
        assert_eq!(hash_key_prefix(b"\0\0sort"), Some(&b"\0\0"[..]));
        for none in [&b""[..], b"\0", b"\0\x02a", b"\xFF\xFFd", &APPLIED_KEY] {
            assert_eq!(hash_key_prefix(none), None, "{none:?}");
        }
        assert!(is_reserved(&APPLIED_KEY) && is_reserved(b"\xFF\xFF") && !is_reserved(b"\xFF\xFE\xFF"));
    }
}
