//! The rule about trying again: what follows from one attempt. Pure.
//!
//! ```text
//! attempt ended with                               read                write
//! partition is elsewhere, or server not ready      again, new route    again, new route
//! busy, too few members, full, splitting           again               again
//! refused before it was begun, for good            fail                fail
//! timeout, or any other error name                 again (timeout)     fail: Unknown
//!                                                  fail (others)
//! not sent                                         again, new route    again, new route
//! sent, connection lost                            again, new route    fail: Unknown
//! deadline of the attempt, not sent                again, new route    again, new route
//! deadline of the attempt, sent                    again, new route    fail: Unknown
//! ```
//!
//! The names of the first three lines are given by a server before it takes a write (order of admission checks in
//! Apache Pegasus, and the mapping of our own statuses), so they prove that nothing was done.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// Whether a request changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Changes nothing.
    Read,
    /// Must not be sent again once a server may have taken it.
    Write,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// No byte of the request has left.
    NotSent(String),
    /// The connection broke after some of it may have.
    Lost(String),
    /// Time is over.
    Late {
        /// Some of it may have left.
        sent: bool,
    },
}

/// What follows from an attempt that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It had no effect, or may safely happen twice.
    Again {
        /// The route may be out of date.
        refresh: bool,
        /// Why, for people.
        reason: String,
    },
    /// Tell the caller.
    Fail(Error),
}

/// What follows from an answer with this error name, which is not `ERR_OK`.
pub(crate) fn judge_name(name: &str, effect: Effect) -> Verdict {
    let again = |refresh| Verdict::Again { refresh, reason: format!("the server says {name}") };
    match name {
        "ERR_OBJECT_NOT_FOUND"
        | "ERR_INVALID_STATE"
        | "ERR_INACTIVE_STATE"
        | "ERR_PARENT_PARTITION_MISUSED"
        | "ERR_SERVICE_NOT_ACTIVE" => again(true),
        "ERR_BUSY" | "ERR_NOT_ENOUGH_MEMBER" | "ERR_CAPACITY_EXCEEDED" | "ERR_SPLITTING" => again(false),
        "ERR_HANDLER_NOT_FOUND"
        | "ERR_INVALID_DATA"
        | "ERR_INVALID_PARAMETERS"
        | "ERR_INVALID_VERSION"
        | "ERR_OPERATION_DISABLED"
        | "ERR_APP_NOT_EXIST"
        | "ERR_NOT_IMPLEMENTED"
        | "ERR_UNAUTHENTICATED"
        | "ERR_ACL_DENY"
        | "ERR_DISK_INSUFFICIENT" => Verdict::Fail(Error::refused(name)),
        _ if effect == Effect::Write => Verdict::Fail(Error::Unknown(format!("the server says {name}"))),
        "ERR_TIMEOUT" => again(false),
        _ => Verdict::Fail(Error::refused(name)),
    }
}

/// What follows from an attempt without an answer, to this place.
pub(crate) fn judge_failure(error: &CallError, effect: Effect, place: &str) -> Verdict {
    let (sent, reason) = match error {
        CallError::NotSent(reason) => (false, format!("{place}: {reason}")),
        CallError::Lost(reason) => (true, format!("{place}: {reason}")),
        CallError::Late { sent } => (*sent, format!("{place} did not answer in time")),
    };
    if sent && effect == Effect::Write {
        return Verdict::Fail(Error::Unknown(reason));
    }
    Verdict::Again { refresh: true, reason }
}

/// First pause between two attempts.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// The pauses between the attempts of one operation, and why they are made.
#[derive(Debug)]
pub(crate) struct Pauses {
    deadline: Instant,
    next: Duration,
}

impl Pauses {
    /// Pauses that end at `deadline`.
    pub(crate) fn until(deadline: Instant) -> Pauses {
        Pauses { deadline, next: PAUSE_FIRST }
    }

    /// Waits. An error if there is no time for another attempt; the text is why the last one failed.
    pub(crate) async fn pause(&mut self, reason: String) -> Result<(), Error> {
        let until = Instant::now() + self.next;
        if until >= self.deadline {
            return Err(Error::Timeout(reason));
        }
        tokio::time::sleep_until(until).await;
        self.next = (self.next * 2).min(PAUSE_MAX);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_again(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Again { .. })
    }

    #[test]
    fn a_write_that_may_have_been_taken_is_never_sent_again() {
        for error in [CallError::Lost("x".into()), CallError::Late { sent: true }] {
            let verdict = judge_failure(&error, Effect::Write, "here");
            assert!(matches!(verdict, Verdict::Fail(Error::Unknown(_))), "{verdict:?}");
            assert!(is_again(&judge_failure(&error, Effect::Read, "here")));
        }
        for error in [CallError::NotSent("x".into()), CallError::Late { sent: false }] {
            assert!(is_again(&judge_failure(&error, Effect::Write, "here")));
        }
        for name in ["ERR_TIMEOUT", "ERR_UNKNOWN", "ERR_REPLICATION_FAILURE", "ERR_FROM_THE_FUTURE", ""] {
            let verdict = judge_name(name, Effect::Write);
            assert!(matches!(verdict, Verdict::Fail(Error::Unknown(_))), "{name}: {verdict:?}");
        }
    }

    #[test]
    fn refusals_before_a_write_is_taken_are_tried_again_or_told() {
        for effect in [Effect::Read, Effect::Write] {
            for name in ["ERR_OBJECT_NOT_FOUND", "ERR_INVALID_STATE", "ERR_PARENT_PARTITION_MISUSED"] {
                assert!(matches!(judge_name(name, effect), Verdict::Again { refresh: true, .. }), "{name}");
            }
            for name in ["ERR_BUSY", "ERR_NOT_ENOUGH_MEMBER", "ERR_SPLITTING"] {
                assert!(matches!(judge_name(name, effect), Verdict::Again { refresh: false, .. }), "{name}");
            }
            for name in ["ERR_INVALID_DATA", "ERR_ACL_DENY"] {
                assert!(matches!(judge_name(name, effect), Verdict::Fail(Error::Refused { .. })), "{name}");
            }
        }
        assert!(is_again(&judge_name("ERR_TIMEOUT", Effect::Read)));
        assert!(matches!(judge_name("ERR_UNKNOWN", Effect::Read), Verdict::Fail(Error::Refused { .. })));
    }

    #[tokio::test]
    async fn pauses_end_with_the_last_reason() {
        let mut pauses = Pauses::until(Instant::now() + Duration::from_millis(8));
        pauses.pause("first".into()).await.unwrap();
        assert_eq!(pauses.pause("second".into()).await, Err(Error::Timeout("second".into())));
    }
}
