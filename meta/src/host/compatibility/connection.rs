//! One connection: reads requests, answers them in any order, within bounds. One task; each request is one more.
//!
//! ```text
//!   socket -> received -> at most REQUESTS_MAX tasks -> unsent -> socket
//! ```
//!
//! Reading stops while the answers that are not taken have UNSENT_BYTES_MAX, or the requests in flight are as many as
//! may be. While all connections together hold more than UNSENT_BYTES_CROWDED, each has one answer at a time. A peer
//! that owes bytes (the rest of a request, the taking of an answer) and moves none for STALL_MAX is left.
//!
//! An idle connection holds its socket, this task and no buffer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pegasus_gateway::frame::{self, FrameError, Progress};
use pegasus_gateway::thrift::ThriftError;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Front;
use super::metrics::Metrics;
use crate::host::service::stop_asked;

/// Serves a connection until its peer or the service is done with it.
pub(super) async fn run(front: Arc<Front>, stream: TcpStream, peer: SocketAddr) {
    let metrics = &front.service.metrics.compatibility;
    let _counted = metrics.connected();
    tracing::debug!(%peer, "connected to the compatibility port");
    let connection = Connection {
        front: &front,
        stream,
        peer,
        received: Vec::new(),
        unsent: Unsent { metrics, bytes: Vec::new(), sent: 0 },
        requests: JoinSet::new(),
    };
    match connection.serve().await {
        Ok(()) => tracing::debug!(%peer, "disconnected"),
        Err(End::Lost(error)) => tracing::debug!(%peer, "connection lost: {error}"),
        Err(end) => {
            metrics.broken();
            front.quiet.broken.warn(|| format!("the connection of {peer} to the compatibility port ends: {end}"));
        }
    }
}

/// Why a connection ended before its peer closed it.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Lost(#[from] std::io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a request of {0} bytes, the limit of the meta service is {REQUEST_BYTES_MAX}")]
    TooLarge(usize),
    #[error("a request cannot be read: {0}")]
    Request(#[from] ThriftError),
    #[error("the peer neither went on with its request nor took its answers for {STALL_MAX:?}")]
    Stalled,
}

struct Connection<'a> {
    front: &'a Arc<Front>,
    stream: TcpStream,
    peer: SocketAddr,
    /// Requests that were not looked at yet, the last one perhaps in part.
    received: Vec<u8>,
    unsent: Unsent<'a>,
    requests: JoinSet<Result<Vec<u8>, ThriftError>>,
}

impl Connection<'_> {
    async fn serve(mut self) -> Result<(), End> {
        let mut stopping = self.front.service.stopping.clone();
        let stall = tokio::time::sleep(STALL_MAX);
        tokio::pin!(stall);
        let (mut ended, mut stopped) = (false, false);
        while !self.requests.is_empty() || !stopped && (!ended || !self.unsent.is_empty()) {
            let reads = !ended && !stopped && self.has_room();
            let owes = !self.unsent.is_empty() || reads && !self.received.is_empty();
            tokio::select! {
                done = self.requests.join_next(), if !self.requests.is_empty() => self.answered(done)?,
                ready = self.stream.readable(), if reads => {
                    ready?;
                    match self.read()? {
                        Moved::Nothing => continue,
                        Moved::Bytes => {}
                        Moved::End => ended = true,
                    }
                }
                ready = self.stream.writable(), if !self.unsent.is_empty() => {
                    ready?;
                    if !self.unsent.write_to(&self.stream)? {
                        continue;
                    }
                }
                () = stop_asked(&mut stopping), if !stopped => stopped = true,
                () = &mut stall, if owes => return Err(End::Stalled),
            }
            stall.as_mut().reset(Instant::now() + STALL_MAX);
            if !stopped {
                self.start_requests()?;
            }
        }
        if stopped && tokio::time::timeout(LINGER, self.leave(ended)).await.is_err() {
            tracing::debug!("a peer did not take its last answers");
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        let crowded = self.unsent.metrics.unsent_bytes() > UNSENT_BYTES_CROWDED;
        let (requests, unsent_bytes) = if crowded { (1, 1) } else { (REQUESTS_MAX, UNSENT_BYTES_MAX) };
        self.requests.len() < requests && self.unsent.len() < unsent_bytes
    }

    /// Takes what has arrived. The buffer grows with what really came, not with what was announced.
    fn read(&mut self) -> Result<Moved, End> {
        self.received.reserve(self.received.len().clamp(READ_BYTES_MIN, READ_BYTES_MAX));
        match self.stream.try_read_buf(&mut self.received) {
            Ok(0) => Ok(Moved::End),
            Ok(_) => Ok(Moved::Bytes),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                self.release();
                Ok(Moved::Nothing)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Starts the requests that are whole, as far as there is room.
    fn start_requests(&mut self) -> Result<(), End> {
        let mut taken = 0;
        while self.has_room() {
            let received = &self.received[taken..];
            match frame::find(received)? {
                Progress::Needs(bytes) if bytes > REQUEST_BYTES_MAX => return Err(End::TooLarge(bytes)),
                Progress::Needs(_) => break,
                Progress::Whole { end, .. } if end > REQUEST_BYTES_MAX => return Err(End::TooLarge(end)),
                Progress::TooLarge { end, .. } => return Err(End::TooLarge(end)),
                Progress::Whole { body_at, end, .. } => {
                    let (front, peer, body) = (Arc::clone(self.front), self.peer, received[body_at..end].to_vec());
                    self.requests.spawn(async move { front.carry_out(peer, &body).await });
                    taken += end;
                }
            }
        }
        self.received.drain(..taken);
        self.release();
        Ok(())
    }

    fn release(&mut self) {
        if self.received.is_empty() {
            self.received = Vec::new();
        }
    }

    fn answered(
        &mut self,
        done: Option<Result<Result<Vec<u8>, ThriftError>, tokio::task::JoinError>>,
    ) -> Result<(), End> {
        let lost = |error: tokio::task::JoinError| End::Lost(std::io::Error::other(error));
        if let Some(answer) = done.transpose().map_err(lost)?.transpose()? {
            self.unsent.append(&answer);
        }
        Ok(())
    }

    /// The service stops: sends what is left. The peer closes once it has it; until then this side must not, or what
    /// the peer sent in the meantime would take the answers away.
    async fn leave(mut self, mut ended: bool) {
        while !self.unsent.is_empty() {
            let written = match self.stream.writable().await {
                Ok(()) => self.unsent.write_to(&self.stream),
                Err(error) => Err(error.into()),
            };
            if written.is_err() {
                return;
            }
        }
        while !ended {
            self.received.clear();
            let moved = match self.stream.readable().await {
                Ok(()) => self.read(),
                Err(error) => Err(error.into()),
            };
            ended = matches!(moved, Ok(Moved::End) | Err(_));
        }
    }
}

/// What came of reading.
enum Moved {
    Nothing,
    Bytes,
    End,
}

/// Answers that the peer has not taken yet.
struct Unsent<'a> {
    metrics: &'a Metrics,
    bytes: Vec<u8>,
    /// How many of `bytes` were taken.
    sent: usize,
}

impl Unsent<'_> {
    fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn append(&mut self, answer: &[u8]) {
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.bytes.extend_from_slice(answer);
        self.metrics.add_unsent(answer.len());
    }

    /// False if the socket took nothing.
    fn write_to(&mut self, stream: &TcpStream) -> Result<bool, End> {
        match stream.try_write(&self.bytes[self.sent..]) {
            Ok(written) => {
                self.sent += written;
                self.metrics.remove_unsent(written);
                if self.is_empty() {
                    (self.bytes, self.sent) = (Vec::new(), 0);
                }
                Ok(written > 0)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        self.metrics.remove_unsent(self.len());
    }
}

/// Requests of one connection in flight. A client asks for one table at a time.
const REQUESTS_MAX: usize = 16;
/// The largest request: an environment that is as large as it may be, and names.
const REQUEST_BYTES_MAX: usize = 512 * 1024;
/// Answers not taken after which a connection is not read. The answers of its requests in flight come on top.
const UNSENT_BYTES_MAX: usize = 256 * 1024;
/// Answers not taken, of all connections together, from which on each connection gets one at a time.
const UNSENT_BYTES_CROWDED: usize = 64 << 20;
/// The least room a read has.
const READ_BYTES_MIN: usize = 2 * 1024;
/// The most room a read has.
const READ_BYTES_MAX: usize = 64 * 1024;
/// How long a peer may owe bytes without moving any.
const STALL_MAX: Duration = Duration::from_secs(30);
/// How long a stopping server waits for a peer to take its last answers.
const LINGER: Duration = Duration::from_millis(300);
