//! Questions to the meta service: a list of servers, one of which leads.
//!
//! Any of them may be asked. One that does not lead says who does; one that does not answer is passed over: soon in the
//! first round, so that a dead leader costs little, and later each time, so that slow servers are not given up for
//! ever.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use pegasus_rpc::{Alpn, CallError, Endpoint, Reconnecting, Role, RpcError};
use pegasus_wire::{Frame, FrameHeader, MessageKind};

use crate::error::Error;
use crate::retry::{Again, Backoff, Effect, Verdict, judge};

/// Access to the meta service. Remembers which server answered last and begins there.
pub(crate) struct MetaService {
    endpoint: Endpoint,
    attempt_timeout: Duration,
    servers: Mutex<Servers>,
}

/// The servers known, first those of the options, then those learned from hints.
struct Servers {
    list: Vec<(SocketAddr, Reconnecting)>,
    current: usize,
}

/// Servers remembered at most; a hint beyond it is not followed. Bounds what a server can make a client keep.
const SERVERS_MAX: usize = 16;
/// How long a server may take in the first round, if there are others; doubles with each round.
const ATTEMPT_FIRST: Duration = Duration::from_millis(500);
/// Hints followed without a pause in one question: two servers that name each other must not spin a client.
const HINTS_MAX: u32 = 3;

impl MetaService {
    pub(crate) fn new(endpoint: Endpoint, addresses: &[SocketAddr], attempt_timeout: Duration) -> MetaService {
        let list = addresses.iter().map(|&address| (address, connect_to(&endpoint, address))).collect();
        MetaService { endpoint, attempt_timeout, servers: Mutex::new(Servers { list, current: 0 }) }
    }

    /// Asks until answered or `deadline`. `effect` decides whether a lost question may be asked again.
    pub(crate) async fn call(
        &self,
        kind: MessageKind,
        effect: Effect,
        deadline: Instant,
        build: impl Fn(&mut Vec<u8>, FrameHeader),
    ) -> Result<Frame, Error> {
        let mut backoff = Backoff::new(deadline);
        let mut hints_left = HINTS_MAX;
        let mut attempts = 0;
        loop {
            let (address, channel) = self.current();
            let attempt_deadline = self.attempt_deadline(attempts, deadline);
            attempts += 1;
            let outcome = match effect {
                Effect::Read => channel.call(kind, attempt_deadline, &build).await,
                Effect::Write => call_once(&channel, kind, attempt_deadline, deadline, &build).await,
            };
            let again = match judge(outcome, effect) {
                Verdict::Done(frame) => return Ok(frame),
                Verdict::Fail(error) => return Err(error),
                Verdict::Again(again) => again,
            };
            backoff.note(&format!("meta server {address}"), &again);
            tracing::debug!(%address, reason = %again.reason, "meta service: trying again");
            let named = self.move_on(address, &again);
            if named && hints_left > 0 && !backoff.is_over() {
                hints_left -= 1;
            } else {
                backoff.pause().await?;
            }
        }
    }

    /// Connects, and begins with the server that is there first. Fails at once if every server refuses this client for
    /// a reason that does not pass: certificates, versions. Servers that do not answer are left to the first question.
    pub(crate) async fn check(&self, deadline: Instant) -> Result<(), Error> {
        let deadline = deadline.min(Instant::now() + self.attempt_timeout);
        let servers = self.lock().list.clone();
        let attempts = servers.into_iter().map(|(address, channel)| async move {
            let connected = channel.connection(deadline).await;
            (address, connected)
        });
        let mut attempts: FuturesUnordered<_> = attempts.collect();
        let mut refusal = None;
        let mut silent = false;
        while let Some((address, connected)) = attempts.next().await {
            match connected {
                Ok(_) => {
                    self.begin_with(address);
                    return Ok(());
                }
                Err(
                    error @ (RpcError::Untrusted { .. }
                    | RpcError::Refused { .. }
                    | RpcError::WrongCluster { .. }
                    | RpcError::NoCommonVersion { .. }
                    | RpcError::Setup { .. }),
                ) => refusal = Some(error),
                Err(_) => silent = true,
            }
        }
        match refusal.filter(|_| !silent) {
            Some(error) => Err(Error::Setup(format!("cannot connect: {error}"))),
            None => Ok(()),
        }
    }

    fn begin_with(&self, address: SocketAddr) {
        let mut servers = self.lock();
        if let Some(position) = servers.list.iter().position(|(known, _)| *known == address) {
            servers.current = position;
        }
    }

    /// With one server there is nobody else to ask; with several, one that does not answer is passed over.
    fn attempt_deadline(&self, attempts: u32, deadline: Instant) -> Instant {
        let servers = self.lock().list.len() as u32;
        if servers == 1 {
            return deadline;
        }
        let timeout = ATTEMPT_FIRST.saturating_mul(1 << (attempts / servers).min(10)).min(self.attempt_timeout);
        deadline.min(Instant::now() + timeout)
    }

    fn lock(&self) -> MutexGuard<'_, Servers> {
        // The list is whole at every point where a panic could poison the lock.
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> (SocketAddr, Reconnecting) {
        let servers = self.lock();
        servers.list[servers.current].clone()
    }

    /// Chooses the server to ask next after `asked` failed. True if it was named by a hint, so that no pause is needed.
    fn move_on(&self, asked: SocketAddr, again: &Again) -> bool {
        if !again.refresh {
            return false;
        }
        let mut servers = self.lock();
        if servers.list[servers.current].0 != asked {
            return false;
        }
        if let Some(leader) = again.hint.filter(|&leader| leader != asked)
            && let Some(position) = self.position_of(&mut servers, leader)
        {
            servers.current = position;
            return true;
        }
        servers.current = (servers.current + 1) % servers.list.len();
        false
    }

    fn position_of(&self, servers: &mut Servers, leader: SocketAddr) -> Option<usize> {
        if let Some(position) = servers.list.iter().position(|(address, _)| *address == leader) {
            return Some(position);
        }
        if servers.list.len() >= SERVERS_MAX {
            return None;
        }
        servers.list.push((leader, connect_to(&self.endpoint, leader)));
        Some(servers.list.len() - 1)
    }
}

/// Sends what must not be sent twice: a server that cannot be connected to is passed over, one that was asked is waited
/// for.
async fn call_once(
    channel: &Reconnecting,
    kind: MessageKind,
    connect_deadline: Instant,
    deadline: Instant,
    build: impl FnOnce(&mut Vec<u8>, FrameHeader),
) -> Result<Frame, CallError> {
    if let Err(error) = channel.connection(connect_deadline).await {
        return Err(CallError::NotSent { reason: error.to_string() });
    }
    channel.call(kind, deadline, build).await
}

fn connect_to(endpoint: &Endpoint, address: SocketAddr) -> Reconnecting {
    Reconnecting::new(endpoint.clone(), address, Role::Meta, Alpn::Meta)
}
