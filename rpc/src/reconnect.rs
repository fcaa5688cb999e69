//! A connection to one address that is made when it is needed and made again when it was lost.
//!
//! ```text
//!                 first use                    connected
//!     Idle ------------------> Connecting ------------------> Up
//!      ^  ^                        | failed                    | lost
//!      |  +---- wait (backoff) <---+                           |
//!      +-------------------------------------------------------+
//! ```
//!
//! Callers that come while a connection is being made share that attempt and its outcome: a failed attempt fails
//! them all with "not sent". Callers that come during a backoff wait for its end, within their deadlines. Nothing is
//! ever sent twice by this type.

use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::{Duration, Instant};

use pegasus_wire::{Frame, FrameHeader, MessageKind};

use crate::channel::Channel;
use crate::connection::Connection;
use crate::endpoint::{Alpn, Endpoint};
use crate::error::{CallError, RpcError};
use crate::identity::Role;
use crate::waiters::{Waiters, wake_all};

/// Wait after the first failure.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Longest wait after repeated failures.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A connection that lived this long proves that the peer is well: the next loss starts without a wait.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// A handle; cheap to clone, all clones share the connection.
#[derive(Clone, Debug)]
pub struct Reconnecting {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    address: SocketAddr,
    role: Role,
    alpn: Alpn,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    link: Link,
    /// Failed attempts in a row.
    failures: u32,
    /// Attempts that have ended, and how the last of them failed.
    attempts_ended: u64,
    last_error: Option<RpcError>,
    waiters: Waiters,
}

#[derive(Debug)]
enum Link {
    Idle { not_before: Option<Instant> },
    Connecting,
    Up { connection: Connection, channel: Channel, since: Instant },
}

/// What a caller does next.
enum Step {
    Use(Connection, Channel),
    WaitUntil(Instant),
    WaitForAttempt(u64),
}

/// Why there is no link.
enum NoLink {
    Deadline,
    Failed(RpcError),
}

impl Reconnecting {
    /// Does not connect yet.
    pub fn new(endpoint: Endpoint, address: SocketAddr, role: Role, alpn: Alpn) -> Reconnecting {
        let state = State {
            link: Link::Idle { not_before: None },
            failures: 0,
            attempts_ended: 0,
            last_error: None,
            waiters: Waiters::default(),
        };
        Reconnecting { inner: Arc::new(Inner { endpoint, address, role, alpn, state: Mutex::new(state) }) }
    }

    /// Where it connects to.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Like [`Channel::call`], after connecting if need be, all within the deadline.
    pub async fn call(
        &self,
        kind: MessageKind,
        deadline: Instant,
        build: impl FnOnce(&mut Vec<u8>, FrameHeader),
    ) -> Result<Frame, CallError> {
        let channel = match self.link(deadline).await {
            Ok((_, channel)) => channel,
            Err(NoLink::Deadline) => return Err(CallError::Deadline { sent: false }),
            Err(NoLink::Failed(error)) => return Err(CallError::NotSent { reason: error.to_string() }),
        };
        channel.call(kind, deadline, build).await
    }

    /// Like [`Channel::notify`], if a connection is up; none is made for it.
    pub fn notify(&self, kind: MessageKind, build: impl FnOnce(&mut Vec<u8>, FrameHeader)) -> bool {
        let channel = match &self.inner.lock().link {
            Link::Up { channel, .. } => channel.clone(),
            Link::Idle { .. } | Link::Connecting => return false,
        };
        channel.notify(kind, build)
    }

    /// The connection itself, for streams other than calls.
    pub async fn connection(&self, deadline: Instant) -> Result<Connection, RpcError> {
        let start = self.now();
        match self.link(deadline).await {
            Ok((connection, _)) => Ok(connection),
            Err(NoLink::Failed(error)) => Err(error),
            Err(NoLink::Deadline) => Err(RpcError::ConnectTimeout {
                address: self.inner.address,
                waited_ms: self.now().saturating_duration_since(start).as_millis() as u64,
            }),
        }
    }

    /// True while a connection is up.
    pub fn is_connected(&self) -> bool {
        matches!(&self.inner.lock().link, Link::Up { channel, .. } if !channel.is_closed())
    }

    async fn link(&self, deadline: Instant) -> Result<(Connection, Channel), NoLink> {
        let runtime = self.inner.endpoint.runtime();
        loop {
            match self.step() {
                Step::Use(connection, channel) => return Ok((connection, channel)),
                Step::WaitUntil(at) if at < deadline => runtime.sleep_until(at).await,
                Step::WaitUntil(_) => {
                    runtime.sleep_until(deadline).await;
                    return Err(self.inner.no_link_at_deadline());
                }
                Step::WaitForAttempt(number) => {
                    let ended = poll_fn(|context| {
                        let mut state = self.inner.lock();
                        if state.attempts_ended >= number {
                            return Poll::Ready(state.outcome());
                        }
                        state.waiters.register(context.waker());
                        Poll::Pending
                    });
                    match runtime.timeout_at(deadline, ended).await {
                        None => return Err(NoLink::Deadline),
                        Some(Some(error)) => return Err(NoLink::Failed(error)),
                        Some(None) => {}
                    }
                }
            }
        }
    }

    fn step(&self) -> Step {
        let now = self.now();
        let mut state = self.inner.lock();
        state.notice_loss(now);
        let attempt = state.attempts_ended + 1;
        match &state.link {
            Link::Up { connection, channel, .. } => Step::Use(connection.clone(), channel.clone()),
            Link::Idle { not_before: Some(at) } if *at > now => Step::WaitUntil(*at),
            Link::Connecting => Step::WaitForAttempt(attempt),
            Link::Idle { .. } => {
                state.link = Link::Connecting;
                drop(state);
                // A task of its own, so that a caller that gives up does not end the attempt of the others.
                let runtime = self.inner.endpoint.runtime();
                runtime.spawn(Arc::clone(&self.inner).connect());
                Step::WaitForAttempt(attempt)
            }
        }
    }

    fn now(&self) -> Instant {
        self.inner.endpoint.runtime().now()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn connect(self: Arc<Self>) {
        let result = self.connect_once().await;
        let now = self.endpoint.runtime().now();
        let mut state = self.lock();
        state.attempts_ended += 1;
        match result {
            Ok((connection, channel)) => {
                state.last_error = None;
                state.link = Link::Up { connection, channel, since: now };
            }
            Err(error) => {
                tracing::debug!(address = %self.address, %error, "cannot connect");
                state.last_error = Some(error);
                state.back_off(now);
            }
        }
        let waiters = state.waiters.take();
        drop(state);
        wake_all(waiters);
    }

    async fn connect_once(&self) -> Result<(Connection, Channel), RpcError> {
        let connection = self.endpoint.connect(self.address, self.role, self.alpn).await?;
        let channel = Channel::open(self.endpoint.runtime(), &connection).await?;
        Ok((connection, channel))
    }

    /// During a backoff the last failure says more than the passed deadline.
    fn no_link_at_deadline(&self) -> NoLink {
        self.lock().last_error.clone().map_or(NoLink::Deadline, NoLink::Failed)
    }
}

impl State {
    /// `None` if the last attempt succeeded.
    fn outcome(&self) -> Option<RpcError> {
        self.last_error.clone()
    }

    /// Leaves `Up` if the connection is gone.
    fn notice_loss(&mut self, now: Instant) {
        let Link::Up { channel, since, .. } = &self.link else { return };
        if !channel.is_closed() {
            return;
        }
        if now.saturating_duration_since(*since) >= STABLE_AFTER {
            self.failures = 0;
            self.link = Link::Idle { not_before: None };
        } else {
            self.back_off(now);
        }
    }

    fn back_off(&mut self, now: Instant) {
        let wait = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.link = Link::Idle { not_before: Some(now + wait.mul_f64(jitter())) };
    }
}

/// Between one half and one. Spreads the callers of a server that comes back; needs no better randomness.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    0.5 + (random >> 11) as f64 / (1u64 << 53) as f64 / 2.0
}
