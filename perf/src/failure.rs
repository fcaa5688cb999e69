//! Why a command stopped: one sentence for people.

use std::fmt;

/// A command could not go on. The tool only ever prints it, so it is text and has no kinds.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    message: String,
}

impl Failure {
    /// A failure with its explanation, which says what is wrong and, where it can, what to do.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into() }
    }

    /// For `map_err`: puts what was being done ("open data.json") before the cause.
    pub fn at<E: fmt::Display>(doing: impl fmt::Display) -> impl FnOnce(E) -> Failure {
        move |cause| Failure::new(format!("{doing}: {cause}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
