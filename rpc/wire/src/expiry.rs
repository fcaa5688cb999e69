//! Time to live. Rows store the absolute second at which they expire, counted from 2016-01-01 00:00:00 UTC as in
//! Pegasus; 0 means never.

/// 2016-01-01 00:00:00 UTC in seconds since the Unix epoch.
pub const EPOCH_UNIX_SECONDS: u64 = 1_451_606_400;

/// Seconds since [`EPOCH_UNIX_SECONDS`] for a time in microseconds since the Unix epoch. Saturates at both ends.
pub fn seconds_since_epoch(unix_micros: u64) -> u32 {
    let seconds = (unix_micros / 1_000_000).saturating_sub(EPOCH_UNIX_SECONDS);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// The expiry of a row written `now_seconds` (since 2016) with a time to live; 0 seconds to live means never.
pub fn expiry_seconds(now_seconds: u32, ttl_seconds: u32) -> u32 {
    if ttl_seconds == 0 { 0 } else { now_seconds.saturating_add(ttl_seconds) }
}

/// True if a row with this expiry is gone at `now_seconds`.
pub fn is_expired(expiry_seconds: u32, now_seconds: u32) -> bool {
    expiry_seconds != 0 && expiry_seconds <= now_seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_second_is_expired() {
        assert!(!is_expired(0, u32::MAX));
        assert!(!is_expired(11, 10));
        assert!(is_expired(10, 10));
        assert!(is_expired(9, 10));
    }

    #[test]
    fn conversion_saturates() {
        assert_eq!(seconds_since_epoch(0), 0);
        assert_eq!(seconds_since_epoch((EPOCH_UNIX_SECONDS + 7) * 1_000_000 + 999_999), 7);
        assert_eq!(seconds_since_epoch(u64::MAX), u32::MAX);
        assert_eq!(expiry_seconds(5, 0), 0);
        assert_eq!(expiry_seconds(5, 10), 15);
        assert_eq!(expiry_seconds(5, u32::MAX), u32::MAX);
    }
}
