//! Deciding what an operation that reads before it writes comes to, with Pegasus's rules.
//!
//! ```text
//!   newest value of the row --+
//!                             +--> increment / check --> what is to be written, if anything
//!   the operation ------------+
//! ```
//!
//! Pure: no clock, no table, nothing replicated. The caller finds the newest value, which may not be committed yet (see
//! [`crate::overlay`]), treats expired rows as missing, and turns what is decided here into an ordinary write.

mod check;
mod increment;
mod integer;

pub use self::check::check;
pub use self::increment::{Incremented, increment};
pub use self::integer::parse_integer;

/// A row that exists: not missing, not expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current<'a> {
    /// Its value.
    pub value: &'a [u8],
    /// Second at which it expires, since 2016; 0 means never.
    pub expiry_seconds: u32,
}

/// Why an operation is refused; nothing is written. The caller answers `InvalidArgument` with the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// The value of the row is no number.
    #[error("the value of the row is no integer of 64 bits: {0}")]
    ValueNotInteger(String),
    /// The operand of the check is no number.
    #[error("the operand of the check is no integer of 64 bits: {0}")]
    OperandNotInteger(String),
    /// The sum does not fit.
    #[error("{value} and {increment} add up to no integer of 64 bits; the row keeps its value")]
    Overflow {
        /// What the row holds, and keeps.
        value: i64,
        /// What was to be added.
        increment: i64,
    },
}

/// The beginning of bytes, for people.
fn excerpt(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(EXCERPT_BYTES)];
    let dots = if shown.len() < bytes.len() { ".." } else { "" };
    format!("\"{}{dots}\" ({} bytes)", shown.escape_ascii(), bytes.len())
}

/// How much of a value an error shows.
const EXCERPT_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_show_the_beginning_of_what_is_wrong() {
        assert_eq!(excerpt(b"12a"), "\"12a\" (3 bytes)");
        assert_eq!(excerpt(&[0; 30]), format!("\"{}..\" (30 bytes)", "\\x00".repeat(24)));
        let text = ExecuteError::Overflow { value: 5, increment: i64::MAX }.to_string();
        assert!(text.contains("5 and 9223372036854775807"), "{text}");
    }
}
