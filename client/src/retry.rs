//! The retry rule: what follows from one attempt. Pure, so that the whole rule can be read and tested at once.
//!
//! ```text
//! attempt ended with             read                     write
//! status, advice Done            done                     done
//! status, advice Retry           again                    again
//! status, advice RefreshRoute    again, new route         again, new route
//! Damaged, StorageFailed         again, new route         again, new route
//! status, advice GiveUp          fail                     fail
//! status, advice Unknown         again                    fail: Unknown
//! not sent                       again, new route         again, new route
//! sent, connection lost          again, new route         fail: Unknown
//! attempt's deadline, not sent   again, new route         again, new route
//! attempt's deadline, sent       again, new route         fail: Unknown
//! ```
//!
//! A copy that is damaged or cannot be written to says so before it takes a request, and another member is about to
//! take its place: such a refusal is final only if nobody has by the deadline.
//!
//! Again always ends at the operation's deadline, with `Timeout` or the refusal of the last copy asked: nothing was
//! done.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pegasus_rpc::CallError;
use pegasus_wire::{Advice, Frame, MessageKind, Status};

use crate::error::{Error, explain};

/// First pause between two attempts.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
/// Longest pause between two attempts: a small part of what a failover takes.
const BACKOFF_MAX: Duration = Duration::from_millis(200);

/// Whether a request changes anything. Decides whether it may be sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Changes nothing, or may safely happen twice.
    Read,
    /// Must not be sent again once it may have reached a server that took it.
    Write,
}

/// What follows from one attempt.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Answered.
    Done(Frame),
    /// It had no effect, or may safely happen twice: try again.
    Again(Again),
    /// Tell the caller.
    Fail(Error),
}

/// How to try again.
#[derive(Debug, Default)]
pub(crate) struct Again {
    /// The route may be out of date.
    pub(crate) refresh: bool,
    /// The partition was found to be elsewhere before there was an answer.
    pub(crate) moved: bool,
    /// Where the server says the request belongs.
    pub(crate) hint: Option<SocketAddr>,
    /// Why, for the error that follows if time runs out.
    pub(crate) reason: String,
    /// True if all that is known is that time passed: an earlier reason then says more.
    pub(crate) only_late: bool,
    /// The status to tell instead of a timeout if time runs out.
    pub(crate) refusal: Option<Status>,
}

/// Judges one attempt.
pub(crate) fn judge(outcome: Result<Frame, CallError>, effect: Effect) -> Verdict {
    match outcome {
        Ok(frame) => judge_answer(frame, effect),
        Err(error) => {
            let sent = match &error {
                CallError::NotSent { .. } => false,
                CallError::Lost { .. } => true,
                CallError::Deadline { sent } => *sent,
            };
            if sent && effect == Effect::Write {
                return Verdict::Fail(Error::Unknown(error.to_string()));
            }
            let only_late = matches!(error, CallError::Deadline { .. });
            Verdict::Again(Again { refresh: true, reason: error.to_string(), only_late, ..Again::default() })
        }
    }
}

fn judge_answer(frame: Frame, effect: Effect) -> Verdict {
    let status = frame.header.status;
    match status.advice() {
        Advice::Done => Verdict::Done(frame),
        Advice::Retry => Verdict::Again(Again { reason: explain(&frame), ..Again::default() }),
        Advice::RefreshRoute => {
            let hint = frame.error().and_then(|error| error.endpoint);
            Verdict::Again(Again { refresh: true, hint, reason: explain(&frame), ..Again::default() })
        }
        Advice::GiveUp if matches!(status, Status::Damaged | Status::StorageFailed) => {
            Verdict::Again(Again { refresh: true, reason: explain(&frame), refusal: Some(status), ..Again::default() })
        }
        // Its body is the configuration in force, which is what the operator wants to see.
        Advice::GiveUp if is_conflict(&frame) => Verdict::Done(frame),
        Advice::Unknown if effect == Effect::Read => {
            Verdict::Again(Again { reason: explain(&frame), ..Again::default() })
        }
        Advice::GiveUp | Advice::Unknown => Verdict::Fail(Error::from_status(status, explain(&frame))),
    }
}

fn is_conflict(frame: &Frame) -> bool {
    frame.header.status == Status::BallotConflict && frame.header.kind == MessageKind::FORCE_CONFIGURATION
}

/// The pauses between the attempts of one operation, and why they are made.
#[derive(Debug)]
pub(crate) struct Backoff {
    deadline: Instant,
    next: Duration,
    reason: String,
    refusal: Option<Status>,
}

impl Backoff {
    /// Pauses that end at `deadline`.
    pub(crate) fn new(deadline: Instant) -> Backoff {
        Backoff { deadline, next: BACKOFF_FIRST, reason: String::new(), refusal: None }
    }

    /// True once the deadline has passed.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Notes why the last attempt failed.
    pub(crate) fn note(&mut self, place: &str, again: &Again) {
        if self.reason.is_empty() || !again.only_late {
            self.reason = format!("{place}: {}", again.reason);
            self.refusal = again.refusal;
        }
    }

    /// The error to tell when time has run out.
    pub(crate) fn timeout(&self) -> Error {
        match self.refusal {
            Some(status) => Error::from_status(status, self.reason.clone()),
            None => Error::Timeout(self.reason.clone()),
        }
    }

    /// When the next attempt is due; the error to tell if there is no time left for one.
    pub(crate) fn next_attempt(&mut self) -> Result<Instant, Error> {
        let at = Instant::now() + self.next_pause();
        if at >= self.deadline { Err(self.timeout()) } else { Ok(at) }
    }

    /// Waits until the next attempt is due; the error to tell if there is no time left for one.
    pub(crate) async fn pause(&mut self) -> Result<(), Error> {
        tokio::time::sleep_until(self.next_attempt()?.into()).await;
        Ok(())
    }

    fn next_pause(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(BACKOFF_MAX);
        jittered(full)
    }
}

/// Half fixed, half drawn: clients that failed together do not come back together.
pub(crate) fn jittered(full: Duration) -> Duration {
    let drawn = RandomState::new().hash_one(0u8) % 1024;
    full / 2 + full.mul_f64(drawn as f64 / 2048.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use pegasus_wire::FrameHeader;

    fn answer(status: Status) -> Result<Frame, CallError> {
        answer_of(MessageKind::WRITE, status)
    }

    fn answer_of(kind: MessageKind, status: Status) -> Result<Frame, CallError> {
        let header = FrameHeader::answer(kind, 7, status);
        Ok(Frame { header, body: Bytes::new(), attachment: Bytes::new() })
    }

    fn sent_errors() -> Vec<CallError> {
        vec![CallError::Lost { reason: "gone".into() }, CallError::Deadline { sent: true }]
    }

    fn unsent_errors() -> Vec<CallError> {
        vec![CallError::NotSent { reason: "no".into() }, CallError::Deadline { sent: false }]
    }

    #[test]
    fn a_sent_write_is_never_sent_again() {
        for error in sent_errors() {
            let verdict = judge(Err(error), Effect::Write);
            assert!(matches!(verdict, Verdict::Fail(Error::Unknown(_))), "{verdict:?}");
        }
        let verdict = judge(answer(Status::OutcomeUnknown), Effect::Write);
        assert!(matches!(verdict, Verdict::Fail(Error::Unknown(_))), "{verdict:?}");
    }

    #[test]
    fn reads_and_unsent_writes_are_sent_again() {
        for error in sent_errors().into_iter().chain(unsent_errors()) {
            let verdict = judge(Err(error), Effect::Read);
            assert!(matches!(verdict, Verdict::Again(Again { refresh: true, .. })), "{verdict:?}");
        }
        for error in unsent_errors() {
            let verdict = judge(Err(error), Effect::Write);
            assert!(matches!(verdict, Verdict::Again(Again { refresh: true, .. })), "{verdict:?}");
        }
    }

    #[test]
    fn every_status_follows_its_advice() {
        for &status in Status::ALL {
            let verdict = judge(answer(status), Effect::Write);
            let follows = match status.advice() {
                Advice::Done => matches!(verdict, Verdict::Done(_)),
                Advice::Retry => matches!(verdict, Verdict::Again(Again { refresh: false, .. })),
                Advice::RefreshRoute => matches!(verdict, Verdict::Again(Again { refresh: true, .. })),
                Advice::GiveUp if matches!(status, Status::Damaged | Status::StorageFailed) => {
                    matches!(verdict, Verdict::Again(Again { refresh: true, .. }))
                }
                Advice::GiveUp => matches!(&verdict, Verdict::Fail(error) if error.advice() == Advice::GiveUp),
                Advice::Unknown => matches!(verdict, Verdict::Fail(Error::Unknown(_))),
            };
            assert!(follows, "{status:?}: {verdict:?}");
        }
    }

    #[test]
    fn a_read_is_sent_again_whatever_became_of_it() {
        let verdict = judge(answer(Status::OutcomeUnknown), Effect::Read);
        assert!(matches!(verdict, Verdict::Again(_)), "{verdict:?}");
    }

    #[test]
    fn a_conflict_is_an_answer_to_an_operator_and_to_nobody_else() {
        let verdict = judge(answer_of(MessageKind::FORCE_CONFIGURATION, Status::BallotConflict), Effect::Read);
        assert!(matches!(verdict, Verdict::Done(_)), "{verdict:?}");
        let verdict = judge(answer_of(MessageKind::GET, Status::BallotConflict), Effect::Read);
        assert!(matches!(verdict, Verdict::Fail(Error::Refused { .. })), "{verdict:?}");
    }

    #[test]
    fn the_refusal_of_the_last_copy_is_told() {
        let mut backoff = Backoff::new(Instant::now());
        let Verdict::Again(damaged) = judge(answer(Status::Damaged), Effect::Write) else {
            panic!("it is tried again")
        };
        backoff.note("node", &damaged);
        backoff.note("node", &Again { only_late: true, ..Again::default() });
        let error = backoff.timeout();
        assert!(matches!(error, Error::Refused { status: Status::Damaged, .. }), "{error:?}");
        let Verdict::Again(busy) = judge(answer(Status::Busy), Effect::Write) else { panic!("it is tried again") };
        backoff.note("another node", &busy);
        assert!(matches!(backoff.timeout(), Error::Timeout(_)));
    }

    #[test]
    fn pauses_grow_within_bounds() {
        let mut backoff = Backoff::new(Instant::now());
        let mut full = BACKOFF_FIRST;
        for _ in 0..20 {
            let pause = backoff.next_pause();
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
            full = (full * 2).min(BACKOFF_MAX);
        }
        assert_eq!(full, BACKOFF_MAX);
    }

    #[tokio::test]
    async fn no_pause_reaches_past_the_deadline() {
        let mut backoff = Backoff::new(Instant::now());
        let again = |reason: &str, only_late| Again { reason: reason.into(), only_late, ..Again::default() };
        backoff.note("node", &again("is away", false));
        backoff.note("node", &again("late", true));
        let error = backoff.pause().await.unwrap_err();
        assert!(matches!(&error, Error::Timeout(reason) if reason == "node: is away"), "{error:?}");
    }
}
