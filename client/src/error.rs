//! What can go wrong, in few kinds. The only question a caller has is what to do next: [`Error::advice`] answers it.

use pegasus_wire::{Advice, Frame, Status};

/// Why an operation did not succeed.
///
/// Only [`Error::Unknown`] leaves open whether the operation took effect. All others prove that it did not.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks a limit or a rule of the data model; the text names it. Almost always found before anything
    /// was sent.
    #[error("{0}")]
    InvalidArgument(String),
    /// There is no table of this name, or it was dropped; the text is the server's. The client asks again with the next
    /// operation, so it finds a table that was recalled, or made anew under the name.
    #[error("{0}")]
    NoSuchTable(String),
    /// A table of this name exists with other properties.
    #[error("{0}")]
    TableExists(String),
    /// The deadline passed and the operation had no effect: it is a read, or no server has taken it. May be tried
    /// again. The text says what was in the way.
    #[error("the deadline passed and nothing was done: {0}")]
    Timeout(String),
    /// A write was sent and its outcome is not known: the connection was lost or the deadline passed. It may have
    /// taken effect, or may still do so. The library never sends such a write again; a caller whose write may safely
    /// happen twice can.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
    /// The table was made or recalled, and does not serve everywhere yet: it was waited for as long as was asked. The
    /// text says what is in the way.
    #[error("{0}")]
    NotServing(String),
    /// The server refused for a reason that trying again does not remove. Among the kinds: [`Status::Denied`] if the
    /// table was told to refuse such requests, [`Status::NotDropped`] for a recall of what is not held.
    #[error("{message}")]
    Refused {
        /// The kind of refusal.
        status: Status,
        /// The reason, for people.
        message: String,
    },
    /// The answer to a read could not be understood.
    #[error("the server's answer cannot be understood: {0}")]
    Protocol(String),
    /// The client could not be set up: certificate files, options, the local socket.
    #[error("{0}")]
    Setup(String),
}

impl Error {
    /// What to do next: try again ([`Advice::Retry`]), find out whether it happened ([`Advice::Unknown`]), or give up.
    pub fn advice(&self) -> Advice {
        match self {
            Error::Timeout(_) | Error::NotServing(_) => Advice::Retry,
            Error::Unknown(_) => Advice::Unknown,
            Error::InvalidArgument(_)
            | Error::NoSuchTable(_)
            | Error::TableExists(_)
            | Error::Refused { .. }
            | Error::Protocol(_)
            | Error::Setup(_) => Advice::GiveUp,
        }
    }

    /// One word for the kind, as machine-readable output shows it.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::InvalidArgument(_) => "invalid_argument",
            Error::NoSuchTable(_) => "no_such_table",
            Error::TableExists(_) => "table_exists",
            Error::Timeout(_) => "timeout",
            Error::Unknown(_) => "unknown",
            Error::NotServing(_) => "not_serving",
            Error::Refused { .. } => "refused",
            Error::Protocol(_) => "protocol",
            Error::Setup(_) => "setup",
        }
    }

    /// The error for an answer whose status is final.
    pub(crate) fn from_status(status: Status, message: String) -> Error {
        match status {
            Status::InvalidArgument | Status::TooLarge | Status::Malformed => Error::InvalidArgument(message),
            Status::NoSuchTable => Error::NoSuchTable(message),
            Status::TableExists => Error::TableExists(message),
            Status::OutcomeUnknown => Error::Unknown(message),
            _ => Error::Refused { status, message },
        }
    }

    pub(crate) fn protocol(error: impl std::fmt::Display) -> Error {
        Error::Protocol(error.to_string())
    }

    /// A write was answered as done, and what came of it cannot be read.
    pub(crate) fn unreadable_write(error: impl std::fmt::Display) -> Error {
        Error::Unknown(format!("the server's answer cannot be understood: {error}"))
    }

    pub(crate) fn invalid(error: impl std::fmt::Display) -> Error {
        Error::InvalidArgument(error.to_string())
    }
}

/// The text of an answer that is not a success: the status's sentence, then what the server adds.
pub(crate) fn explain(frame: &Frame) -> String {
    let status = frame.header.status;
    match frame.error() {
        Some(error) if !error.message.is_empty() => error.message,
        _ => status.sentence().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_never_tells_to_repeat_an_unknown_write() {
        assert_eq!(Error::Unknown(String::new()).advice(), Advice::Unknown);
        assert_eq!(Error::unreadable_write("no").advice(), Advice::Unknown);
        assert_eq!(Error::Timeout(String::new()).advice(), Advice::Retry);
        assert_eq!(Error::from_status(Status::OutcomeUnknown, String::new()).advice(), Advice::Unknown);
        for status in [Status::Forbidden, Status::NoSuchTable, Status::TooLarge, Status::Internal] {
            assert_eq!(Error::from_status(status, "x".into()).advice(), Advice::GiveUp, "{status:?}");
        }
    }
}
