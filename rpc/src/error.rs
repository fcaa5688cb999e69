//! Errors of the transport. Each tells a person what to do; a program needs only the kind.

use std::net::SocketAddr;

use crate::close::CloseCode;

/// Why an endpoint, a connection or a stream failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// Another process holds the UDP port.
    #[error("UDP port {address} is in use; stop the other process or configure another port")]
    AddressInUse {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The address cannot be bound.
    #[error(
        "cannot bind UDP address {address}: {detail}; use an address of this machine and a port this user may open"
    )]
    CannotBind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        detail: String,
    },
    /// The identity or the address is not usable for TLS or QUIC.
    #[error("the transport cannot be set up: {detail}")]
    Setup {
        /// What is wrong.
        detail: String,
    },
    /// Nobody answered in time.
    #[error("no answer from {address} within {waited_ms} ms; check that it runs and that UDP reaches it")]
    ConnectTimeout {
        /// Who was called.
        address: SocketAddr,
        /// How long was waited.
        waited_ms: u64,
    },
    /// The peer's certificate was not accepted by this side.
    #[error(
        "the certificate of {address} is not accepted: {detail}; both sides need certificates of the same CA, and \
         the peer one of the expected role"
    )]
    Untrusted {
        /// The peer.
        address: SocketAddr,
        /// What the check found.
        detail: String,
    },
    /// The peer did not accept this side: certificate, role or application protocol.
    #[error("{address} refused the connection: {detail}")]
    Refused {
        /// The peer.
        address: SocketAddr,
        /// What it said.
        detail: String,
    },
    /// Both sides know their cluster, and they differ.
    #[error("{address} belongs to another cluster: {detail}; check the addresses configured")]
    WrongCluster {
        /// The peer.
        address: SocketAddr,
        /// The two clusters.
        detail: String,
    },
    /// The two releases have no protocol version in common.
    #[error("no common protocol version with {address}: {detail}; upgrade the older side")]
    NoCommonVersion {
        /// The peer.
        address: SocketAddr,
        /// The two ranges.
        detail: String,
    },
    /// The connection ended.
    #[error("connection lost: {reason}")]
    Lost {
        /// Why.
        reason: String,
    },
    /// The peer closed the connection and said why.
    #[error("closed by the peer: {code}: {reason}")]
    ClosedByPeer {
        /// The peer's reason.
        code: CloseCode,
        /// The peer's text.
        reason: String,
    },
    /// The peer reset this stream or stopped reading it; the connection may live on.
    #[error("the peer ended the stream: {code}")]
    StreamEnded {
        /// The peer's reason.
        code: CloseCode,
    },
    /// What arrived is not a frame of this protocol, or over a limit. The connection was closed.
    #[error("bad data from the peer: {detail}")]
    Malformed {
        /// What is wrong with it.
        detail: String,
    },
    /// This side closed it before.
    #[error("closed by this side")]
    Closed,
}

/// The queue has been closed: the stream ended, or its connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is closed")]
pub struct Closed;

/// How a call failed. The distinction is what the retry rule needs: only `NotSent` and `Deadline{sent: false}`
/// prove that the request had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request never left this process; it is safe to send it elsewhere or again.
    #[error("not sent: {reason}")]
    NotSent {
        /// Why.
        reason: String,
    },
    /// The request was sent and the connection was lost before the answer: its outcome is not known.
    #[error("connection lost after sending, the outcome is not known: {reason}")]
    Lost {
        /// Why.
        reason: String,
    },
    /// The deadline passed. If the request was sent, its outcome is not known.
    #[error("deadline passed ({})", if *.sent { "sent, the outcome is not known" } else { "not sent" })]
    Deadline {
        /// Whether the request may have left this process.
        sent: bool,
    },
}

impl RpcError {
    /// The error of an established connection.
    pub(crate) fn from_connection(error: quinn::ConnectionError) -> RpcError {
        use quinn::ConnectionError as Quinn;
        match error {
            Quinn::ApplicationClosed(close) => RpcError::ClosedByPeer {
                code: CloseCode::from_code(close.error_code.into_inner()),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            Quinn::LocallyClosed => RpcError::Closed,
            Quinn::Reset => RpcError::Lost { reason: "the peer has restarted".to_owned() },
            Quinn::TimedOut => RpcError::Lost { reason: "the peer has been silent for too long".to_owned() },
            other => RpcError::Lost { reason: other.to_string() },
        }
    }

    /// The error of a connection attempt to `address`.
    pub(crate) fn from_attempt(address: SocketAddr, error: quinn::ConnectionError) -> RpcError {
        use quinn::ConnectionError as Quinn;
        match error {
            Quinn::TransportError(error) if is_tls_alert(error.code) => {
                RpcError::Untrusted { address, detail: error.reason }
            }
            Quinn::ConnectionClosed(close) if is_tls_alert(close.error_code) => {
                RpcError::Refused { address, detail: alert_sentence(close.error_code) }
            }
            Quinn::ConnectionClosed(close) if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED => {
                RpcError::Refused { address, detail: "it has too many connections; try again later".to_owned() }
            }
            other => RpcError::from_connection(other).at(address),
        }
    }

    /// Turns the peer's reasons for ending a young connection into the errors that name them.
    pub(crate) fn at(self, address: SocketAddr) -> RpcError {
        match self {
            RpcError::ClosedByPeer { code: CloseCode::WrongCluster, reason } => {
                RpcError::WrongCluster { address, detail: reason }
            }
            RpcError::ClosedByPeer { code: CloseCode::NoCommonVersion, reason } => {
                RpcError::NoCommonVersion { address, detail: reason }
            }
            RpcError::ClosedByPeer { code: CloseCode::Forbidden, reason } => {
                RpcError::Refused { address, detail: reason }
            }
            other => other,
        }
    }

    pub(crate) fn from_read(error: quinn::ReadError) -> RpcError {
        match error {
            quinn::ReadError::Reset(code) => RpcError::StreamEnded { code: CloseCode::from_code(code.into_inner()) },
            quinn::ReadError::ConnectionLost(error) => RpcError::from_connection(error),
            quinn::ReadError::ClosedStream => RpcError::Closed,
            other => RpcError::Lost { reason: other.to_string() },
        }
    }

    pub(crate) fn from_write(error: quinn::WriteError) -> RpcError {
        match error {
            quinn::WriteError::Stopped(code) => RpcError::StreamEnded { code: CloseCode::from_code(code.into_inner()) },
            quinn::WriteError::ConnectionLost(error) => RpcError::from_connection(error),
            quinn::WriteError::ClosedStream => RpcError::Closed,
            other => RpcError::Lost { reason: other.to_string() },
        }
    }
}

/// QUIC carries TLS alert `n` as transport error 0x100 + n.
const ALERT_BASE: u64 = 0x100;

fn is_tls_alert(code: quinn::TransportErrorCode) -> bool {
    (ALERT_BASE..ALERT_BASE + 0x100).contains(&u64::from(code))
}

/// What a TLS alert from the peer means for the operator.
fn alert_sentence(code: quinn::TransportErrorCode) -> String {
    match u64::from(code) - ALERT_BASE {
        120 => "it does not serve this application protocol on this port; check the address and the port".to_owned(),
        42 | 43 | 44 | 46 | 48 | 49 | 51 => {
            "it does not accept our certificate; both sides need certificates of the same CA".to_owned()
        }
        45 => "it says that our certificate has expired; issue a new one".to_owned(),
        116 => "it demands a certificate; configure one".to_owned(),
        alert => format!("TLS alert {alert}"),
    }
}
