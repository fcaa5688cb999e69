//! The clock by which leases and grace periods are counted.
//!
//! It goes on while the machine is suspended and is never set: CLOCK_BOOTTIME. A reading says only that what happened
//! before it on this thread happened before it. So whoever admits a request reads it after the request was received,
//! and nobody keeps a reading across a wait.

use pegasus_replication::Moment;

/// The time now.
pub(crate) fn now() -> Moment {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes only the structure passed to it, which lives over the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    // Without this clock a node could never know whether it may serve.
    assert_eq!(result, 0, "every Linux this node runs on has CLOCK_BOOTTIME");
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    Moment(seconds.unwrap_or_default() * 1_000_000 + nanos.unwrap_or_default() / 1000)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn it_runs_with_the_monotonic_clock() {
        let (begun, first) = (Instant::now(), now());
        while begun.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let last = now();
        let real = begun.elapsed();
        let counted = Duration::from_micros(last.since(first));
        assert!(counted >= Duration::from_millis(19) && counted <= real + Duration::from_millis(1), "{counted:?}");
        assert!(first.0 > 0);
    }
}
