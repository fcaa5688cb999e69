//! Warnings that a peer can cause, at a limited rate.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One limit for each kind of warning.
#[derive(Default)]
pub(super) struct Quiet {
    /// A connection was ended because of what its peer did.
    pub(super) broken: Limited,
    /// A connection was turned away.
    pub(super) full: Limited,
    /// Nothing can be accepted.
    pub(super) accept: Limited,
    /// An address cannot be said in the protocol.
    pub(super) address: Limited,
    /// An administration request was refused.
    pub(super) refused: Limited,
}

/// Lets one warning through in [`PAUSE`], and counts the others.
#[derive(Default)]
pub(super) struct Limited {
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    at: Option<Instant>,
    withheld: u64,
}

impl Limited {
    /// Logs, unless something was logged a moment ago.
    pub(super) fn warn(&self, text: impl FnOnce() -> String) {
        if let Some(withheld) = self.pass(Instant::now()) {
            tracing::warn!(withheld, "{}", text());
        }
    }

    /// The number of warnings withheld since the last one that passed, if one may pass now.
    fn pass(&self, now: Instant) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.at.is_some_and(|at| now.saturating_duration_since(at) < PAUSE) {
            last.withheld += 1;
            return None;
        }
        last.at = Some(now);
        Some(std::mem::take(&mut last.withheld))
    }
}

/// Between two warnings of one kind.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_withheld_is_counted() {
        let (limited, start) = (Limited::default(), Instant::now());
        assert_eq!(limited.pass(start), Some(0));
        assert_eq!(limited.pass(start + PAUSE / 2), None);
        assert_eq!(limited.pass(start + PAUSE / 2), None);
        assert_eq!(limited.pass(start + PAUSE), Some(2));
        assert_eq!(limited.pass(start + PAUSE * 2), Some(0));
    }
}
