//! Requests that wait for a replica, by token: with each what it is answered once the replica is done with it.

use bytes::Bytes;
use pegasus_replication::RequestToken;
use pegasus_wire::{Decree, Status};

use super::outcome::{Outcome, Refusal};
use super::request::Request;

/// What a request is answered when what it waits for is applied.
pub(crate) enum Completion {
    /// It wrote.
    Written,
    /// It wrote the number that follows from the one it read.
    Incremented {
        /// The number now.
        value: i64,
    },
    /// It checked a row, and wrote if the check held.
    Checked(Box<Checked>),
    /// It wrote nothing: what it read does not allow it.
    Refused(Box<Refusal>),
}

/// What a check found.
pub(crate) struct Checked {
    /// The check held, and something is written.
    pub(crate) written: bool,
    /// The row exists.
    pub(crate) exists: bool,
    /// Its value, if it was asked for.
    pub(crate) value: Option<Bytes>,
}

/// A request that waits.
pub(crate) struct Waiting {
    request: Request,
    completion: Completion,
}

impl Completion {
    /// Answers: everything up to a decree is applied, or why that is not known.
    pub(crate) fn finish(self, request: &Request, outcome: Result<Decree, Status>) {
        match (self, outcome) {
            (Completion::Written, Ok(decree)) => request.answer(&Outcome::Written { decree }),
            (Completion::Incremented { value }, Ok(decree)) => {
                request.answer(&Outcome::Incremented { value, decree });
            }
            (Completion::Checked(checked), Ok(decree)) => {
                let Checked { written, exists, value } = *checked;
                request.answer(&Outcome::Checked { written, exists, decree, value: value.as_deref() });
            }
            (Completion::Refused(refusal), Ok(_)) => request.refuse(*refusal),
            // It wrote nothing, so it had no effect, whatever became of what it read.
            (completion, Err(Status::OutcomeUnknown)) if !completion.writes() => {
                request.refuse(Refusal::new(
                    Status::NotServing,
                    "the replica lost its role before what was read had committed; nothing was written",
                ));
            }
            (_, Err(status)) => request.refuse(Refusal::plain(status)),
        }
    }

    fn writes(&self) -> bool {
        match self {
            Completion::Written | Completion::Incremented { .. } => true,
            Completion::Checked(checked) => checked.written,
            Completion::Refused(_) => false,
        }
    }
}

/// A slab: tokens are reused, so the replicas hand each back exactly once.
#[derive(Default)]
pub(crate) struct Pending {
    slots: Vec<Option<Waiting>>,
    free: Vec<usize>,
}

impl Pending {
    /// Keeps a request with what it is answered, and names it.
    pub(crate) fn insert(&mut self, request: Request, completion: Completion) -> RequestToken {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(Waiting { request, completion });
        RequestToken(slot as u64)
    }

    /// Answers a request. Nothing happens if the token is not in use.
    pub(crate) fn finish(&mut self, token: RequestToken, outcome: Result<Decree, Status>) {
        let slot = usize::try_from(token.0).ok().and_then(|slot| Some((slot, self.slots.get_mut(slot)?.take()?)));
        let Some((slot, Waiting { request, completion })) = slot else { return };
        self.free.push(slot);
        completion.finish(&request, outcome);
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
