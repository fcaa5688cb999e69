//! What can go wrong, in few kinds.

use pegasus_gateway::ErrorName;

/// Why an operation did not succeed. Only [`Error::Unknown`] leaves open whether it took effect; all others prove that
/// it did not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request, an address or an option breaks a rule; found before anything was sent.
    #[error("{0}")]
    Invalid(String),
    /// The meta servers know no table of this name.
    #[error("{0}")]
    NoSuchTable(String),
    /// The deadline passed and nothing was done. May be tried again. The text says what was in the way.
    #[error("the deadline passed and nothing was done: {0}")]
    Timeout(String),
    /// A write was sent and its outcome is not known. It is never sent again by itself.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
    /// The server refused for a reason that trying again does not remove.
    #[error("{message}")]
    Refused {
        /// The kind, for statistics: a known name such as `ERR_INVALID_DATA`, else `ERR_UNKNOWN`; or the word for a
        /// storage code.
        name: &'static str,
        /// The reason, for people.
        message: String,
    },
    /// The answer to a read could not be understood.
    #[error("the server's answer cannot be understood: {0}")]
    Protocol(String),
}

impl Error {
    /// One word for the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Invalid(_) => "invalid_argument",
            Error::NoSuchTable(_) => "no_such_table",
            Error::Timeout(_) => "timeout",
            Error::Unknown(_) => "unknown",
            Error::Refused { name, .. } => name,
            Error::Protocol(_) => "protocol",
        }
    }

    /// The refusal with an error name of the framework.
    pub(crate) fn refused(name: &str) -> Error {
        let known = ErrorName::from_text(name).unwrap_or(ErrorName::Unknown).text();
        Error::Refused { name: known, message: format!("the server refused: {name}") }
    }

    /// The refusal by the storage of an operation that changed nothing.
    pub(crate) fn storage(code: i32) -> Error {
        let name = storage_word(code);
        Error::Refused { name, message: format!("the storage refused: {name} ({code})") }
    }
}

/// RocksDB's words for its status codes.
fn storage_word(code: i32) -> &'static str {
    const WORDS: [&str; 14] = [
        "ok",
        "not found",
        "corruption",
        "not supported",
        "invalid argument",
        "io error",
        "merge in progress",
        "incomplete",
        "shutdown in progress",
        "timed out",
        "aborted",
        "busy",
        "expired",
        "try again",
    ];
    usize::try_from(code).ok().and_then(|place| WORDS.get(place).copied()).unwrap_or("unknown storage error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_tell_what_the_server_said() {
        let error = Error::refused("ERR_DISK_INSUFFICIENT");
        assert_eq!((error.kind(), error.to_string().contains("ERR_DISK_INSUFFICIENT")), ("ERR_UNKNOWN", true));
        assert_eq!(Error::refused("ERR_INVALID_DATA").kind(), "ERR_INVALID_DATA");
        assert_eq!(Error::storage(4).kind(), "invalid argument");
        for code in [-1, 14, i32::MIN, i32::MAX] {
            assert_eq!(Error::storage(code).kind(), "unknown storage error");
        }
    }
}
