//! Trying again what may safely happen twice, for a long time, and saying so.
//!
//! The client library ends every operation within seconds and never repeats a write whose outcome is unknown. The
//! programs that move rows know of their own writes that repeating them changes nothing, so they do.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pegasus_client::{Advice, Error};
use tokio::sync::mpsc;

/// First pause before something is tried again.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause before something is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Notes that wait to be shown; more are left out.
const NOTES_MAX: usize = 16;

/// Why something failed, whichever library says so.
pub trait Trouble: Display {
    /// One word for the kind.
    fn kind(&self) -> &'static str;

    /// Whether it may go away, so that what may safely happen twice is worth another attempt.
    fn may_pass(&self) -> bool;
}

impl Trouble for Error {
    fn kind(&self) -> &'static str {
        Error::kind(self)
    }

    fn may_pass(&self) -> bool {
        match self.advice() {
            Advice::Retry | Advice::Unknown | Advice::RefreshRoute => true,
            Advice::Done | Advice::GiveUp => false,
        }
    }
}

/// How long the operations of one job are tried. Shared by all of them.
#[derive(Debug)]
pub struct Retry {
    retry_for: Duration,
    stopping: AtomicBool,
    retries: AtomicU64,
    notes: mpsc::Sender<String>,
}

impl Retry {
    /// Operations are tried for this long each. What is noted on the way arrives at the receiver.
    pub fn new(retry_for: Duration) -> (Retry, mpsc::Receiver<String>) {
        let (notes, noted) = mpsc::channel(NOTES_MAX);
        (Retry { retry_for, stopping: AtomicBool::new(false), retries: AtomicU64::new(0), notes }, noted)
    }

    /// From now on nothing is tried again. Tells whether that was so before.
    pub fn stop(&self) -> bool {
        self.stopping.swap(true, Ordering::Relaxed)
    }

    /// True once [`Retry::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// How often something was tried again.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// The attempts at one operation, the first of which begins now.
    pub fn begin(&self) -> Attempts<'_> {
        Attempts { retry: self, begun: Instant::now(), pause: PAUSE_FIRST }
    }
}

/// The attempts at one operation.
#[derive(Debug)]
pub struct Attempts<'a> {
    retry: &'a Retry,
    begun: Instant,
    pause: Duration,
}

impl Attempts<'_> {
    /// An attempt has failed. Returns when it is time for the next one; an error (with `what` it was about) if there is
    /// none: the cause does not go away, the job is stopping, or the time is over.
    pub async fn failed(&mut self, what: &str, error: &impl Trouble) -> Result<(), String> {
        let text = format!("{what}: {error}");
        if !error.may_pass() || self.retry.is_stopping() {
            return Err(text);
        }
        if self.begun.elapsed() >= self.retry.retry_for {
            return Err(format!("{text} (tried for {} s)", self.retry.retry_for.as_secs()));
        }
        self.retry.retries.fetch_add(1, Ordering::Relaxed);
        // A note that finds no room is one of many alike.
        let _noted = self.retry.notes.try_send(format!("{text}; trying again"));
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Error {
        Error::Unknown("lost".into())
    }

    #[tokio::test]
    async fn what_may_happen_twice_is_tried_again_and_noted() {
        let (retry, mut noted) = Retry::new(Duration::from_secs(60));
        let mut attempts = retry.begin();
        attempts.failed("row 7", &lost()).await.expect("another attempt");
        attempts.failed("row 7", &Error::Timeout("busy".into())).await.expect("another attempt");
        assert_eq!((retry.retries(), attempts.pause), (2, PAUSE_FIRST * 4));
        let note = noted.recv().await.expect("a note");
        assert!(note.starts_with("row 7: ") && note.ends_with("; trying again"), "{note}");
    }

    #[tokio::test]
    async fn what_does_not_help_is_not_tried() {
        let (retry, _noted) = Retry::new(Duration::from_secs(60));
        let error = retry.begin().failed("row 7", &Error::InvalidArgument("too long".into())).await.unwrap_err();
        assert_eq!(error, "row 7: too long");
        let (short, _noted) = Retry::new(Duration::ZERO);
        let error = short.begin().failed("row 7", &lost()).await.unwrap_err();
        assert!(error.ends_with("(tried for 0 s)"), "{error}");
        assert!(!retry.stop() && retry.stop() && retry.is_stopping());
        assert!(retry.begin().failed("row 7", &lost()).await.is_err());
        assert_eq!((retry.retries(), short.retries()), (0, 0));
    }
}
