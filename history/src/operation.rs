//! What a client did to one key and what it was told: the model of the data, as small as it can be.
//!
//! The search knows an operation only by its [`Step`]: what it needs the key to hold, what the key holds after it. An
//! operation that does both, an increment with its answer or a check-and-set that was carried out, is one more kind of
//! step; the search has to be told only that it does not overwrite just any state.

use std::fmt;

/// A value, as numbered by whoever records. Two values are the same if their numbers are.
pub type Value = u64;

/// What a key holds: a value, or no row.
pub type State = Option<Value>;

/// What is asked of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Store this value, whatever is there.
    Write(Value),
    /// Remove the row, if there is one.
    Delete,
    /// Tell the value.
    Read,
}

/// What a client was told of an operation that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// A write or a delete has taken effect.
    Done,
    /// A read found this.
    Row(State),
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It took effect between its invocation and its return.
    Ok(Answer),
    /// It certainly had no effect and never will.
    Failed,
    /// It may take effect at any moment after its invocation, or never.
    Unknown,
}

/// One operation of one client on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who; for people only.
    pub client: u32,
    /// When it began, in microseconds of the one clock of all clients.
    pub invoked_us: u64,
    /// When its outcome was known. One that would lie before the invocation counts as that moment. Operations that
    /// touch in one moment count as concurrent.
    pub returned_us: u64,
    /// What was asked.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
}

/// What an operation means for the state of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<S> {
    /// Whatever it was, it is this afterwards.
    Becomes(S),
    /// It is this, before and afterwards.
    Sees(S),
}

impl Operation {
    /// What it means for the state if it takes effect; `None` if it never does, or if that would mean nothing.
    pub(crate) fn step(&self) -> Option<Step<State>> {
        match (self.action, self.outcome) {
            (_, Outcome::Failed) | (Action::Read, Outcome::Unknown) => None,
            // An answer that does not belong to its action tells that it was carried out, and no more.
            (Action::Write(value), _) => Some(Step::Becomes(Some(value))),
            (Action::Delete, _) => Some(Step::Becomes(None)),
            (Action::Read, Outcome::Ok(Answer::Row(state))) => Some(Step::Sees(state)),
            (Action::Read, Outcome::Ok(Answer::Done)) => None,
        }
    }

    /// What the key would hold right after it, were it to take effect; `None` for a read.
    pub fn written(&self) -> Option<State> {
        match self.action {
            Action::Write(value) => Some(Some(value)),
            Action::Delete => Some(None),
            Action::Read => None,
        }
    }

    /// True for a write or a delete that certainly took effect.
    pub fn is_acknowledged_write(&self) -> bool {
        self.written().is_some() && matches!(self.outcome, Outcome::Ok(_))
    }

    /// True if it ended before the other one began.
    pub(crate) fn precedes(&self, other: &Operation) -> bool {
        self.outcome != Outcome::Unknown && self.returned_us.max(self.invoked_us) < other.invoked_us
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |micros: u64| format!("{:>12.6}", micros as f64 / 1e6);
        let end = match self.outcome {
            Outcome::Unknown => format!("{:>12}", "?"),
            Outcome::Ok(_) | Outcome::Failed => seconds(self.returned_us),
        };
        write!(out, "{} .. {end}  client {:<3} ", seconds(self.invoked_us), self.client)?;
        match self.action {
            Action::Write(value) => write!(out, "write {value}")?,
            Action::Delete => out.write_str("delete")?,
            Action::Read => out.write_str("read")?,
        }
        match self.outcome {
            Outcome::Ok(Answer::Done) => out.write_str(": done"),
            Outcome::Ok(Answer::Row(Some(value))) => write!(out, ": found {value}"),
            Outcome::Ok(Answer::Row(None)) => out.write_str(": found no row"),
            Outcome::Failed => out.write_str(": failed, no effect"),
            Outcome::Unknown => out.write_str(": unknown"),
        }
    }
}
