//! What a client did to one key and what it was told: the model of the data, as small as it can be.
//!
//! The search knows an operation only by its [`Step`]: what it needs the key to hold, what the key holds after it, or
//! both. An increment whose answer is known is an exchange of the number before for the number after.

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
    /// Put the second state in the place of the first, if that is there; else do nothing and tell what is.
    Exchange(State, State),
}

/// What a client was told of an operation that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// A write, a delete or an exchange has taken effect.
    Done,
    /// A read found this; or an exchange did, and changed nothing.
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
    /// It is the first one before and the second one afterwards.
    Turns(S, S),
}

impl<S: Copy> Step<S> {
    /// What the key has to hold for it.
    pub(crate) fn needs(self) -> Option<S> {
        match self {
            Step::Becomes(_) => None,
            Step::Sees(state) | Step::Turns(state, _) => Some(state),
        }
    }
}

impl Operation {
    /// What it means for the state if it takes effect; `None` if it never does, or if that would mean nothing.
    pub(crate) fn step(&self) -> Option<Step<State>> {
        match (self.action, self.outcome) {
            (_, Outcome::Failed) | (Action::Read, Outcome::Unknown) => None,
            // An answer that does not belong to its action tells that it was carried out, and no more.
            (Action::Write(value), _) => Some(Step::Becomes(Some(value))),
            (Action::Delete, _) => Some(Step::Becomes(None)),
            (Action::Read | Action::Exchange(..), Outcome::Ok(Answer::Row(state))) => Some(Step::Sees(state)),
            (Action::Read, Outcome::Ok(Answer::Done)) => None,
            (Action::Exchange(from, to), _) => Some(Step::Turns(from, to)),
        }
    }

    /// What the key would hold right after it, were it to take effect; `None` for what changes nothing.
    pub fn written(&self) -> Option<State> {
        match (self.action, self.outcome) {
            (Action::Write(value), _) => Some(Some(value)),
            (Action::Delete, _) => Some(None),
            (Action::Read, _) | (Action::Exchange(..), Outcome::Ok(Answer::Row(_))) => None,
            (Action::Exchange(_, to), _) => Some(to),
        }
    }

    /// True for a write, a delete or an exchange that certainly took effect.
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
            Action::Exchange(from, to) => write!(out, "exchange {} for {}", text_of(from), text_of(to))?,
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

fn text_of(state: State) -> String {
    state.map_or_else(|| "no row".to_owned(), |value| value.to_string())
}
