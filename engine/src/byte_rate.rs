//! A bound on bytes per second, shared by whoever must not take the whole disk or network: checkpoints.
//!
//! It never sleeps and never blocks: it says how long to wait, and the caller waits where waiting is free (a timer of
//! its executor, not a thread of a pool). What was not used is lost, so there are no bursts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A rate that any number of threads share. Everybody together gets no more than it.
#[derive(Debug)]
pub struct ByteRate {
    bytes_per_second: u64,
    begun: Instant,
    /// Up to when everything granted so far takes at this rate, in nanoseconds since `begun`.
    granted_until_nanos: AtomicU64,
}

impl ByteRate {
    /// A rate in bytes per second; 0 means no limit.
    pub fn new(bytes_per_second: u64) -> ByteRate {
        ByteRate { bytes_per_second, begun: Instant::now(), granted_until_nanos: AtomicU64::new(0) }
    }

    /// Grants these bytes and says how long the caller has to wait before it goes on with them. Zero for the first
    /// after a pause; whoever comes next waits for as long as these bytes take.
    #[must_use = "the bytes are granted for later"]
    pub fn reserve(&self, bytes: usize, now: Instant) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let now_nanos = now.saturating_duration_since(self.begun).as_nanos() as u64;
        let cost_nanos = bytes as u128 * NANOS_PER_SECOND / u128::from(self.bytes_per_second);
        let cost_nanos = u64::try_from(cost_nanos).unwrap_or(u64::MAX);
        let grant = |until: u64| Some(until.max(now_nanos).saturating_add(cost_nanos));
        // The closure always gives a value, so both arms hold what was there before.
        let before = match self.granted_until_nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grant) {
            Ok(before) | Err(before) => before,
        };
        Duration::from_nanos(before.saturating_sub(now_nanos))
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_for_those_before_them() {
        let rate = ByteRate::new(1000);
        let begun = rate.begun;
        assert_eq!(rate.reserve(500, begun), Duration::ZERO);
        assert_eq!(rate.reserve(250, begun), Duration::from_millis(500));
        assert_eq!(rate.reserve(1, begun + Duration::from_millis(700)), Duration::from_millis(50));
        assert_eq!(rate.reserve(1000, begun + Duration::from_secs(60)), Duration::ZERO, "a pause saves nothing up");
        assert_eq!(rate.reserve(1, begun + Duration::from_secs(60)), Duration::from_secs(1));
    }

    #[test]
    fn no_limit_never_waits_and_impossible_sizes_do_not_overflow() {
        let free = ByteRate::new(0);
        assert_eq!(free.reserve(usize::MAX, free.begun), Duration::ZERO);
        assert_eq!(free.reserve(usize::MAX, free.begun), Duration::ZERO);
        let slow = ByteRate::new(1);
        assert_eq!(slow.reserve(usize::MAX, slow.begun), Duration::ZERO);
        assert_eq!(slow.reserve(usize::MAX, slow.begun), Duration::from_nanos(u64::MAX));
        assert_eq!(slow.reserve(1, slow.begun), Duration::from_nanos(u64::MAX));
    }
}
