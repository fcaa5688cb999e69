//! Why a connection or a stream was ended, as the number that travels in QUIC's application close.
//!
//! ```text
//! code name               who sends it, when
//!    0 normal             either side, the connection is no longer needed
//!    1 shutting down      an endpoint that closes
//!    2 wrong cluster      either side after the Hello: both know their cluster and they differ
//!    3 no common version  either side after the Hello
//!    4 forbidden          the accepting side: the certificate's role does not fit
//!    5 malformed          either side: bytes that are not a frame, or a frame over its limit
//!    6 timeout            the accepting side: no Hello in time
//! ```

use std::fmt;

/// Reason of an application close. Unknown numbers of later releases are kept as [`CloseCode::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// No longer needed.
    Normal,
    /// The endpoint closes.
    ShuttingDown,
    /// The two sides belong to different clusters.
    WrongCluster,
    /// No protocol version in common.
    NoCommonVersion,
    /// The certificate's role does not allow this connection.
    Forbidden,
    /// Bytes that are not a frame, or a frame over its limit.
    Malformed,
    /// The peer did not say Hello in time.
    Timeout,
    /// A code of a later release.
    Other(u64),
}

impl CloseCode {
    /// The number on the wire.
    pub fn code(self) -> u64 {
        match self {
            CloseCode::Normal => 0,
            CloseCode::ShuttingDown => 1,
            CloseCode::WrongCluster => 2,
            CloseCode::NoCommonVersion => 3,
            CloseCode::Forbidden => 4,
            CloseCode::Malformed => 5,
            CloseCode::Timeout => 6,
            CloseCode::Other(code) => code,
        }
    }

    /// The reason with this number.
    pub fn from_code(code: u64) -> CloseCode {
        match code {
            0 => CloseCode::Normal,
            1 => CloseCode::ShuttingDown,
            2 => CloseCode::WrongCluster,
            3 => CloseCode::NoCommonVersion,
            4 => CloseCode::Forbidden,
            5 => CloseCode::Malformed,
            6 => CloseCode::Timeout,
            code => CloseCode::Other(code),
        }
    }

    /// The number as quinn takes it.
    pub(crate) fn varint(self) -> quinn::VarInt {
        quinn::VarInt::from_u64(self.code()).unwrap_or(quinn::VarInt::MAX)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseCode::Normal => out.write_str("no longer needed"),
            CloseCode::ShuttingDown => out.write_str("shutting down"),
            CloseCode::WrongCluster => out.write_str("wrong cluster"),
            CloseCode::NoCommonVersion => out.write_str("no common protocol version"),
            CloseCode::Forbidden => out.write_str("forbidden"),
            CloseCode::Malformed => out.write_str("malformed"),
            CloseCode::Timeout => out.write_str("timeout"),
            CloseCode::Other(code) => write!(out, "code {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for code in 0..10 {
            assert_eq!(CloseCode::from_code(code).code(), code);
        }
        assert_eq!(CloseCode::from_code(6), CloseCode::Timeout);
        assert_eq!(CloseCode::from_code(7), CloseCode::Other(7));
    }
}
