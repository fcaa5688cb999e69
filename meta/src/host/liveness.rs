//! Which nodes have been heard of lately. Only in memory, only on this server, for show, for the first assignment of a
//! new table and for the guardian: nothing is ever promoted or removed because of it.
//!
//! A node is alive while a watch of it is pending, and for [`GRACE`] after its last sign of life. What a connection
//! told is forgotten at once when that connection is lost: the node is silent from then on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pegasus_wire::NodeId;
use tokio::sync::watch;

use crate::core::{Heard, Limits, Presence};

/// How long a node stays alive after its last sign of life.
pub const GRACE: Duration = Duration::from_secs(3);

/// Number of a connection, unique in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionNumber(pub u64);

/// The signs of life heard by this server. Clones share them.
///
/// Bound: signs exist only for registered nodes and open connections, [`Liveness::lost`] removes them; when a node was
/// lost is kept only for registered nodes, [`Liveness::heard`] removes the others.
#[derive(Clone, Debug)]
pub struct Liveness {
    signs: Arc<Mutex<Signs>>,
    changes: Arc<watch::Sender<u64>>,
    started: Instant,
}

#[derive(Debug, Default)]
struct Signs {
    open: BTreeMap<(NodeId, ConnectionNumber), Sign>,
    /// When the last connection that told of a node was lost.
    lost: BTreeMap<NodeId, Instant>,
}

/// What one connection told of one node.
#[derive(Clone, Copy, Debug)]
struct Sign {
    pending_watches: u32,
    last: Instant,
}

impl Liveness {
    /// Nobody has been heard of. `started` is when this server began to listen.
    pub fn new(started: Instant) -> Liveness {
        Liveness { signs: Arc::default(), changes: Arc::new(watch::Sender::new(0)), started }
    }

    /// The node was heard of.
    pub fn heard_of(&self, node: NodeId, connection: ConnectionNumber, now: Instant) {
        self.note(node, connection, now, 0);
    }

    /// The node waits for news; it is alive until the guard is dropped, and for [`GRACE`] after that.
    pub fn watching(&self, node: NodeId, connection: ConnectionNumber, now: Instant) -> WatchGuard {
        self.note(node, connection, now, 1);
        WatchGuard { liveness: self.clone(), node, connection }
    }

    fn note(&self, node: NodeId, connection: ConnectionNumber, now: Instant, watches: u32) {
        let mut signs = self.lock();
        let known = signs.presence(node, now) == Some(Presence::Alive);
        let sign = signs.open.entry((node, connection)).or_insert(Sign { pending_watches: 0, last: now });
        sign.pending_watches += watches;
        sign.last = sign.last.max(now);
        drop(signs);
        if !known {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// The connection is gone, and with it what it told.
    pub fn lost(&self, connection: ConnectionNumber, now: Instant) {
        let mut signs = self.lock();
        let gone: Vec<NodeId> =
            signs.open.keys().filter(|(_, from)| *from == connection).map(|&(node, _)| node).collect();
        signs.open.retain(|&(_, from), _| from != connection);
        signs.lost.extend(gone.iter().map(|&node| (node, now)));
        drop(signs);
        if !gone.is_empty() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// The presence of the registered nodes. One that has not been heard of since this server started counts as silent
    /// since then, and not as one that only reconnects.
    pub fn heard(&self, registered: impl IntoIterator<Item = NodeId>, now: Instant) -> Heard {
        let mut signs = self.lock();
        let running_ms = milliseconds(now.saturating_duration_since(self.started));
        let never = Presence::Silent { silent_ms: running_ms.saturating_add(Limits::default().reconnect_ms) };
        let heard: Heard =
            registered.into_iter().map(|node| (node, signs.presence(node, now).unwrap_or(never))).collect();
        signs.lost.retain(|node, _| heard.nodes().contains_key(node));
        heard
    }

    /// Counts the moments at which a node came to life or was lost. That the time of one ran out is not among them.
    pub fn watch_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// How many such moments there were.
    pub fn change_count(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Watches that wait for news.
    pub fn pending_watches(&self) -> u32 {
        self.lock().open.values().map(|sign| sign.pending_watches).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Signs> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signs {
    /// `None` if the node has not been heard of.
    fn presence(&self, node: NodeId, now: Instant) -> Option<Presence> {
        let every = (node, ConnectionNumber(0))..=(node, ConnectionNumber(u64::MAX));
        let mut last = self.lost.get(&node).copied();
        for (_, sign) in self.open.range(every) {
            if sign.pending_watches > 0 || now.saturating_duration_since(sign.last) <= GRACE {
                return Some(Presence::Alive);
            }
            last = last.max(Some(sign.last));
        }
        last.map(|last| Presence::Silent { silent_ms: milliseconds(now.saturating_duration_since(last)) })
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A watch that is pending.
#[derive(Debug)]
pub struct WatchGuard {
    liveness: Liveness,
    node: NodeId,
    connection: ConnectionNumber,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        let now = Instant::now();
        // Nothing to do if the connection was lost first.
        if let Some(sign) = self.liveness.lock().open.get_mut(&(self.node, self.connection)) {
            sign.pending_watches -= 1;
            sign.last = sign.last.max(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);
    const FIRST: ConnectionNumber = ConnectionNumber(1);
    const SECOND: ConnectionNumber = ConnectionNumber(2);

    fn presence(liveness: &Liveness, now: Instant) -> Presence {
        liveness.heard([NODE], now).nodes()[&NODE]
    }

    fn silent(silent_ms: u64) -> Presence {
        Presence::Silent { silent_ms }
    }

    #[test]
    fn a_sign_of_life_fades() {
        let start = Instant::now();
        let liveness = Liveness::new(start);
        liveness.heard_of(NODE, FIRST, start);
        assert_eq!(presence(&liveness, start + GRACE), Presence::Alive);
        assert_eq!(presence(&liveness, start + GRACE + Duration::from_millis(1)), silent(3001));
    }

    #[test]
    fn a_pending_watch_keeps_a_node_alive() {
        let start = Instant::now();
        let liveness = Liveness::new(start);
        let later = start + Duration::from_secs(100);
        let guard = liveness.watching(NODE, FIRST, start);
        assert_eq!(presence(&liveness, later), Presence::Alive);
        assert_eq!(liveness.pending_watches(), 1);
        drop(guard);
        assert_eq!(liveness.pending_watches(), 0);
        assert_eq!(presence(&liveness, Instant::now()), Presence::Alive, "alive for a while after the answer");
        assert!(matches!(presence(&liveness, later), Presence::Silent { .. }));
    }

    #[test]
    fn a_lost_connection_takes_its_signs_along() {
        let now = Instant::now();
        let later = now + Duration::from_millis(700);
        let liveness = Liveness::new(now);
        let guard = liveness.watching(NODE, FIRST, now);
        liveness.heard_of(NODE, SECOND, now);
        liveness.lost(FIRST, now);
        assert_eq!(presence(&liveness, now), Presence::Alive, "the second connection still tells of it");
        liveness.lost(SECOND, now);
        assert_eq!(presence(&liveness, later), silent(700));
        drop(guard);
        assert_eq!(presence(&liveness, later), silent(700), "a late end of a watch is no sign of life");
    }

    #[test]
    fn a_node_never_heard_of_is_silent_since_the_start() {
        let start = Instant::now();
        let liveness = Liveness::new(start);
        assert_eq!(presence(&liveness, start + Duration::from_secs(5)), silent(8000));
    }

    #[test]
    fn coming_and_going_is_counted_and_forgotten_with_the_node() {
        let now = Instant::now();
        let liveness = Liveness::new(now);
        liveness.heard_of(NODE, FIRST, now);
        liveness.heard_of(NODE, FIRST, now);
        let guard = liveness.watching(NODE, SECOND, now);
        assert_eq!(liveness.change_count(), 1, "it was alive already");
        drop(guard);
        liveness.lost(FIRST, now);
        assert_eq!(liveness.change_count(), 2);
        liveness.lost(FIRST, now);
        assert_eq!(liveness.change_count(), 2, "nothing was lost with it");
        liveness.lost(SECOND, now);
        liveness.heard([], now);
        assert!(liveness.lock().lost.is_empty(), "what is not registered is not kept");
    }
}
