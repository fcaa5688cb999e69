//! A connection whose peer is known: certificate checked, Hello exchanged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::close::CloseCode;
use crate::endpoint::Alpn;
use crate::error::RpcError;
use crate::frame_io::{FrameReader, FrameWriter};
use crate::identity::Role;

/// A handle to a connection; cheap to clone. The connection is closed when the last handle and the last stream are
/// dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    quinn: quinn::Connection,
    role: Role,
    alpn: Alpn,
    version: u16,
}

impl Connection {
    pub(crate) fn new(quinn: quinn::Connection, role: Role, alpn: Alpn, version: u16) -> Connection {
        Connection { inner: Arc::new(Inner { quinn, role, alpn, version }) }
    }

    /// The role in the peer's certificate.
    pub fn peer_role(&self) -> Role {
        self.inner.role
    }

    /// What the connection is for.
    pub fn alpn(&self) -> Alpn {
        self.inner.alpn
    }

    /// The protocol version agreed on.
    pub fn version(&self) -> u16 {
        self.inner.version
    }

    /// Where the peer is.
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.inner.quinn.remote_address())
    }

    /// Opens a stream. Waits while `limits::STREAMS_PER_CONNECTION_MAX` streams are open. The peer learns of the
    /// stream with the first bytes written.
    pub async fn open(&self) -> Result<(FrameWriter, FrameReader), RpcError> {
        let (send, receive) = self.inner.quinn.open_bi().await.map_err(RpcError::from_connection)?;
        Ok(self.halves(send, receive))
    }

    /// The next stream the peer opens; `None` once the connection is closed.
    pub async fn accept(&self) -> Option<(FrameWriter, FrameReader)> {
        let (send, receive) = self.inner.quinn.accept_bi().await.ok()?;
        Some(self.halves(send, receive))
    }

    /// Closes the connection at once; what is not yet delivered may be lost. The peer is told the reason.
    pub fn close(&self, reason: &str) {
        self.inner.quinn.close(CloseCode::Normal.varint(), reason.as_bytes());
    }

    /// Waits until the connection is closed and says why.
    pub async fn closed(&self) -> RpcError {
        RpcError::from_connection(self.inner.quinn.closed().await)
    }

    /// True once the connection is closed by either side, or lost.
    pub fn is_closed(&self) -> bool {
        self.inner.quinn.close_reason().is_some()
    }

    /// What the connection has seen so far.
    pub fn statistics(&self) -> ConnectionStatistics {
        let path = self.inner.quinn.stats().path;
        ConnectionStatistics {
            round_trip: path.rtt,
            datagram_bytes: path.current_mtu,
            congestion_window_bytes: path.cwnd,
            packets_sent: path.sent_packets,
            packets_lost: path.lost_packets,
            black_holes: path.black_holes_detected,
        }
    }

    fn halves(&self, send: quinn::SendStream, receive: quinn::RecvStream) -> (FrameWriter, FrameReader) {
        (FrameWriter::new(send), FrameReader::new(receive, self.inner.quinn.clone()))
    }
}

/// Figures of one connection, for metrics and tools.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionStatistics {
    /// Smoothed round-trip time.
    pub round_trip: Duration,
    /// Datagram size in use; grows after the connection was made, as larger sizes prove to work.
    pub datagram_bytes: u16,
    /// Bytes that may be in flight.
    pub congestion_window_bytes: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets deemed lost; some may only have been late.
    pub packets_lost: u64,
    /// How often the datagram size was cut because only large packets got lost.
    pub black_holes: u64,
}

/// Endpoints that speak both IP versions see IPv4 peers at IPv6 addresses.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
