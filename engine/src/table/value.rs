//! Stored values: the layout of Pegasus's value version 1.
//!
//! ```text
//! offset size field            big endian
//!      0    4 expiry seconds   since 2016-01-01 00:00:00 UTC; 0 means never
//!      4    8 time tag         microseconds << 8 | cluster << 1 | deleted; the low 8 bits are 0 here
//!     12    n data
//! ```

/// Length of the header in front of the data.
pub const VALUE_HEADER_BYTES: usize = 12;

/// The fixed part of a stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueHeader {
    /// Second at which the row expires, since 2016; 0 means never.
    pub expiry_seconds: u32,
    /// Orders writes of several clusters.
    pub time_tag: u64,
}

/// The time tag of a write stamped at this microsecond since the Unix epoch. 56 bits hold the stamp.
pub fn time_tag(timestamp_micros: u64) -> u64 {
    timestamp_micros << 8
}

/// Writes a stored value into `out`, which is cleared first.
pub fn encode_into(out: &mut Vec<u8>, header: ValueHeader, data: &[u8]) {
    out.clear();
    out.reserve(VALUE_HEADER_BYTES + data.len());
    out.extend_from_slice(&header.expiry_seconds.to_be_bytes());
    out.extend_from_slice(&header.time_tag.to_be_bytes());
    out.extend_from_slice(data);
}

/// Splits a stored value into header and data; `None` if it is shorter than its header.
pub fn decode(stored: &[u8]) -> Option<(ValueHeader, &[u8])> {
    let (expiry, rest) = stored.split_first_chunk::<4>()?;
    let (tag, data) = rest.split_first_chunk::<8>()?;
    let header = ValueHeader { expiry_seconds: u32::from_be_bytes(*expiry), time_tag: u64::from_be_bytes(*tag) };
    Some((header, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        // 2021-01-01 00:00:00 UTC is 1609459200 s, 157852800 s after 2016; stamped at 1609459200123456 us.
        let header = ValueHeader { expiry_seconds: 157_852_800, time_tag: time_tag(1_609_459_200_123_456) };
        let mut stored = b"left over".to_vec();
        encode_into(&mut stored, header, b"value");
        assert_eq!(stored, b"\x09\x68\xA4\x80\x05\xB7\xCB\x6B\xE7\x62\x40\x00value");
        assert_eq!(decode(&stored), Some((header, &b"value"[..])));
    }

    #[test]
    fn short_values_are_refused() {
        let mut stored = Vec::new();
        encode_into(&mut stored, ValueHeader { expiry_seconds: 0, time_tag: 1 }, b"");
        assert_eq!(stored, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(decode(&stored).is_some_and(|(_, data)| data.is_empty()));
        for length in 0..VALUE_HEADER_BYTES {
            assert_eq!(decode(&stored[..length]), None);
        }
    }
}
