//! Stored keys, as in Pegasus: the hash key's length (u16, big-endian), the hash key, the sort key.
//!
//! Inside one hash key rows sort by sort key bytes; hash keys sort by length first, then bytes. Keys that begin
//! FF FF belong to the engine: no hash key is that long.

use crate::limits::{HASH_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX};

/// A key breaks a limit of the data model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// The hash key has no bytes.
    #[error("the hash key must not be empty")]
    EmptyHashKey,
    /// The hash key is too long.
    #[error("the hash key has {0} bytes, the limit is {HASH_KEY_BYTES_MAX} (hash_key_bytes_max)")]
    HashKeyTooLong(usize),
    /// The sort key is too long.
    #[error("the sort key has {0} bytes, the limit is {SORT_KEY_BYTES_MAX} (sort_key_bytes_max)")]
    SortKeyTooLong(usize),
    /// A stored key is shorter than the hash key length it states.
    #[error("a stored key of {0} bytes is shorter than the hash key it announces")]
    Truncated(usize),
}

/// Checks a hash key against the data model.
pub fn check_hash_key(hash_key: &[u8]) -> Result<(), KeyError> {
    if hash_key.is_empty() {
        return Err(KeyError::EmptyHashKey);
    }
    if hash_key.len() > HASH_KEY_BYTES_MAX {
        return Err(KeyError::HashKeyTooLong(hash_key.len()));
    }
    Ok(())
}

/// Checks a sort key against the data model. An empty sort key is a key like any other.
pub fn check_sort_key(sort_key: &[u8]) -> Result<(), KeyError> {
    if sort_key.len() > SORT_KEY_BYTES_MAX {
        return Err(KeyError::SortKeyTooLong(sort_key.len()));
    }
    Ok(())
}

/// Writes the stored key of a row into `out`, which is cleared first. The hash key must be within its limit.
pub fn encode_into(out: &mut Vec<u8>, hash_key: &[u8], sort_key: &[u8]) {
    debug_assert!(hash_key.len() < 0xFFFF, "callers check the hash key first");
    out.clear();
    out.reserve(2 + hash_key.len() + sort_key.len());
    out.extend_from_slice(&(hash_key.len() as u16).to_be_bytes());
    out.extend_from_slice(hash_key);
    out.extend_from_slice(sort_key);
}

/// The stored key of a row.
pub fn encode(hash_key: &[u8], sort_key: &[u8]) -> Vec<u8> {
    let mut key = Vec::new();
    encode_into(&mut key, hash_key, sort_key);
    key
}

/// Splits a stored key into hash key and sort key.
pub fn decode(stored: &[u8]) -> Result<(&[u8], &[u8]), KeyError> {
    let truncated = KeyError::Truncated(stored.len());
    let Some((length, rest)) = stored.split_first_chunk::<2>() else { return Err(truncated) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length == 0xFFFF || rest.len() < length {
        return Err(truncated);
    }
    Ok(rest.split_at(length))
}

/// The smallest stored key greater than every key that begins with `prefix`; `None` if there is none.
///
/// Pegasus's rule: walk back to the last byte that is not FF, add one, cut after it.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xFF)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

/// Exclusive end of all rows: the first key that belongs to the engine.
pub const ROWS_END: [u8; 2] = [0xFF, 0xFF];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_bytes() {
        assert_eq!(encode(b"hello", b"sk"), b"\0\x05hellosk");
        assert_eq!(decode(b"\0\x05hellosk"), Ok((&b"hello"[..], &b"sk"[..])));
        assert_eq!(decode(b"\0\x05hell"), Err(KeyError::Truncated(6)));
        assert_eq!(decode(b"\0"), Err(KeyError::Truncated(1)));
        assert_eq!(decode(b"\xFF\xFFx"), Err(KeyError::Truncated(3)));
    }

    #[test]
    fn limits_are_named() {
        assert_eq!(check_hash_key(b""), Err(KeyError::EmptyHashKey));
        let message = check_hash_key(&[0; HASH_KEY_BYTES_MAX + 1]).unwrap_err().to_string();
        assert!(message.contains("1025") && message.contains("hash_key_bytes_max"), "{message}");
        assert!(check_hash_key(&[0; HASH_KEY_BYTES_MAX]).is_ok());
        assert!(check_sort_key(b"").is_ok());
        assert!(check_sort_key(&[0; SORT_KEY_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn after_prefix_skips_ff() {
        assert_eq!(after_prefix(b"a\xFF\xFF"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(b"\xFF\xFF"), None);
        assert_eq!(after_prefix(b""), None);
    }

    proptest! {
        #[test]
        fn round_trip(
            hash in proptest::collection::vec(any::<u8>(), 1..50),
            sort in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let stored = encode(&hash, &sort);
            prop_assert_eq!(decode(&stored), Ok((&hash[..], &sort[..])));
            prop_assert!(stored.as_slice() < &ROWS_END[..]);
            let end = after_prefix(&encode(&hash, b"")).expect("a hash key length is never FF FF");
            prop_assert!(stored < end);
        }
    }
}
