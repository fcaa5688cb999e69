//! One reconnecting channel per core of a storage node, shared by all tables of a client, and whether it answers.
//!
//! A process that was killed or frozen sends no sign: its connection seems to be up until it is found lost, seconds
//! later. So one task per client looks at all channels several times a second. A channel that owes answers and has
//! given none for [`SILENT_LOOKS`] looks is silent. It gives the alarm, as does one that lost its connection, so that
//! the routes that lead there are asked for again before anybody needs them.
//!
//! ```text
//!             call begins              no answer for SILENT_LOOKS looks
//!   quiet ------------------> owing -----------------------------------> silent
//!     ^                         |                                          |
//!     +--- answered, none waits-+------ any answer, or connection lost ----+
//! ```
//!
//! Silence ends only with an answer or a new connection, not when the callers have given up: the next write would be
//! sent into nowhere. A call pays for this with two additions; the clock is read by the task alone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use pegasus_rpc::{Alpn, CallError, Endpoint, Reconnecting, Role};
use pegasus_wire::{Frame, FrameHeader, MessageKind};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::client::Shared;

/// How often all channels are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Looks without an answer after which a channel is silent: half a second, which is well above a slow disk and well
/// below a failover.
const SILENT_LOOKS: u32 = 5;
/// A channel that stays silent gives the alarm until this many looks; then whoever calls finds out by itself.
const ALARM_LOOKS: u32 = 100;
/// With more channels than this, those that no route needs are dropped. Bounds what servers' hints can make a client
/// keep.
const CHANNELS_KEPT: usize = 1024;

/// The channels of a client. They connect when they are first used.
pub(crate) struct Nodes {
    endpoint: Endpoint,
    channels: Mutex<HashMap<SocketAddr, Arc<NodeChannel>>>,
}

/// Something that may mean that a partition is served elsewhere by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// Calls wait and nothing comes back.
    Silent,
    /// The connection is gone.
    Lost,
}

impl Nodes {
    pub(crate) fn new(endpoint: Endpoint) -> Nodes {
        Nodes { endpoint, channels: Mutex::new(HashMap::new()) }
    }

    /// The channel to the core that listens at `address`.
    pub(crate) fn channel(&self, address: SocketAddr) -> Arc<NodeChannel> {
        let mut channels = self.lock();
        if let Some(channel) = channels.get(&address) {
            return channel.clone();
        }
        if channels.len() >= CHANNELS_KEPT {
            channels.retain(|_, channel| Arc::strong_count(channel) > 1);
        }
        let channel = Arc::new(NodeChannel::new(self.endpoint.clone(), address));
        channels.insert(address, channel.clone());
        channel
    }

    fn alarms(&self) -> Vec<(SocketAddr, Alarm)> {
        self.lock().values().filter_map(|channel| Some((channel.address(), channel.look()?))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<NodeChannel>>> {
        // The map is whole at every point where a panic could poison the lock.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at all channels, until the client is gone or closed.
pub(crate) async fn watch(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(shared) = shared.upgrade().filter(|shared| !shared.is_closed()) else { return };
        for (address, alarm) in shared.nodes.alarms() {
            tracing::debug!(%address, ?alarm, "a storage node may be gone");
            shared.suspect_address(address, alarm);
        }
    }
}

/// The channel to one core of a storage node.
pub(crate) struct NodeChannel {
    channel: Reconnecting,
    pulse: Pulse,
    /// True from an answer until the connection it came on is found lost.
    connected: AtomicBool,
    /// Of partitions that were served here. One per channel, because every read that waits is registered in it.
    departures: Notify,
}

impl NodeChannel {
    fn new(endpoint: Endpoint, address: SocketAddr) -> NodeChannel {
        NodeChannel {
            channel: Reconnecting::new(endpoint, address, Role::Replica, Alpn::Data),
            pulse: Pulse::default(),
            connected: AtomicBool::new(false),
            departures: Notify::new(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.channel.address()
    }

    /// See [`Reconnecting::call`]. Notes whether there was an answer.
    pub(crate) async fn call(
        &self,
        kind: MessageKind,
        deadline: Instant,
        build: impl FnOnce(&mut Vec<u8>, FrameHeader),
    ) -> Result<Frame, CallError> {
        let _waiting = self.pulse.begin();
        let outcome = self.channel.call(kind, deadline, build).await;
        match &outcome {
            Ok(_) => {
                self.pulse.answered();
                raise(&self.connected);
            }
            Err(CallError::Lost { .. } | CallError::NotSent { .. }) => self.pulse.start_anew(),
            Err(CallError::Deadline { .. }) => {}
        }
        outcome
    }

    /// See [`Reconnecting::notify`].
    pub(crate) fn notify(&self, kind: MessageKind, build: impl FnOnce(&mut Vec<u8>, FrameHeader)) {
        if !self.channel.notify(kind, build) {
            tracing::debug!(address = %self.address(), %kind, "not sent, which does no harm");
        }
    }

    /// Resolves when partitions have moved from here, after this call, whenever it is polled.
    pub(crate) fn departure(&self) -> Notified<'_> {
        self.departures.notified()
    }

    /// Tells the calls under way that partitions have moved from here.
    pub(crate) fn note_departure(&self) {
        self.departures.notify_waiters();
    }

    /// True if calls have been sent and nothing came back for some time: what is sent now may never be answered.
    pub(crate) fn is_silent(&self) -> bool {
        self.pulse.silent_looks() >= SILENT_LOOKS
    }

    /// What there is to tell of this channel, if anything.
    fn look(&self) -> Option<Alarm> {
        if self.connected.load(Ordering::Relaxed) && !self.channel.is_connected() {
            self.connected.store(false, Ordering::Relaxed);
            self.pulse.start_anew();
            return Some(Alarm::Lost);
        }
        (SILENT_LOOKS..ALARM_LOOKS).contains(&self.pulse.look()).then_some(Alarm::Silent)
    }
}

/// Whether calls are answered. Calls and looks that meet may be off by one look, and nothing depends on that.
#[derive(Debug, Default)]
struct Pulse {
    /// Calls under way.
    waiting: AtomicU32,
    /// A call has begun since the last look.
    begun: AtomicBool,
    /// A call was answered since the last look.
    answered: AtomicBool,
    /// At the last look an answer was owed, to callers that wait or have given up.
    owing: AtomicBool,
    /// Looks in a row at which an answer was owed and none had come.
    silent_looks: AtomicU32,
}

/// A call that waits, until it is dropped.
struct Waiting<'a>(&'a Pulse);

impl Pulse {
    fn begin(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        raise(&self.begun);
        Waiting(self)
    }

    fn answered(&self) {
        raise(&self.answered);
        if self.silent_looks() > 0 {
            self.silent_looks.store(0, Ordering::Relaxed);
        }
    }

    /// The connection is gone, and its silence with it.
    fn start_anew(&self) {
        self.begun.store(false, Ordering::Relaxed);
        self.owing.store(false, Ordering::Relaxed);
        self.silent_looks.store(0, Ordering::Relaxed);
    }

    /// For how many looks nothing was answered, this one included.
    fn look(&self) -> u32 {
        let begun = self.begun.swap(false, Ordering::Relaxed);
        let answered = self.answered.swap(false, Ordering::Relaxed);
        let waiting = self.waiting.load(Ordering::Relaxed) > 0;
        let owing = waiting || (!answered && (begun || self.owing.load(Ordering::Relaxed)));
        self.owing.store(owing, Ordering::Relaxed);
        let silent_looks = if owing && !answered { self.silent_looks().saturating_add(1) } else { 0 };
        self.silent_looks.store(silent_looks, Ordering::Relaxed);
        silent_looks
    }

    fn silent_looks(&self) -> u32 {
        self.silent_looks.load(Ordering::Relaxed)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sets a flag that mostly is set already: the line of memory then stays shared between the threads.
fn raise(flag: &AtomicBool) {
    if !flag.load(Ordering::Relaxed) {
        flag.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks<const N: usize>(pulse: &Pulse) -> [u32; N] {
        [(); N].map(|()| pulse.look())
    }

    #[test]
    fn only_looks_without_an_answer_count() {
        let pulse = Pulse::default();
        assert_eq!(looks(&pulse), [0, 0], "nothing is owed");
        let first = pulse.begin();
        let second = pulse.begin();
        assert_eq!(looks(&pulse), [1, 2]);
        pulse.answered();
        drop(second);
        assert_eq!(pulse.silent_looks(), 0, "known at once");
        assert_eq!(looks(&pulse), [0, 1, 2], "the other call still waits");
        pulse.answered();
        drop(first);
        assert_eq!(looks(&pulse), [0, 0, 0]);
    }

    #[test]
    fn a_busy_channel_is_never_silent() {
        let pulse = Pulse::default();
        let _slow = pulse.begin();
        for _ in 0..20 {
            let quick = pulse.begin();
            pulse.answered();
            drop(quick);
            assert_eq!(pulse.look(), 0);
        }
    }

    #[test]
    fn callers_that_give_up_do_not_end_a_silence() {
        let pulse = Pulse::default();
        drop(pulse.begin());
        assert_eq!(looks(&pulse), [1, 2, 3]);
        let later = pulse.begin();
        assert_eq!(looks(&pulse), [4, 5], "the next call does not begin a new silence");
        pulse.answered();
        drop(later);
        assert_eq!(looks(&pulse), [0, 0]);
    }

    #[test]
    fn a_new_connection_is_not_silent() {
        let pulse = Pulse::default();
        drop(pulse.begin());
        assert_eq!(looks(&pulse), [1]);
        pulse.start_anew();
        assert_eq!(looks(&pulse), [0, 0]);
    }
}
