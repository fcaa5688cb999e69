//! Which nodes have been heard of lately. Only in memory, only on this server, and only for show and for the first
//! assignment of a new table: nothing is ever promoted because of it.
//!
//! A node is alive while a watch of it is pending, and for [`GRACE`] after its last sign of life. What a connection
//! told is forgotten at once when that connection is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pegasus_wire::NodeId;

/// How long a node stays alive after its last sign of life.
pub const GRACE: Duration = Duration::from_secs(3);

/// Number of a connection, unique in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionNumber(pub u64);

/// The signs of life heard by this server. Clones share them.
///
/// Bound: entries exist only for registered nodes and open connections; [`Liveness::lost`] removes them.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    signs: Arc<Mutex<BTreeMap<(NodeId, ConnectionNumber), Sign>>>,
}

/// What one connection told of one node.
#[derive(Clone, Copy, Debug)]
struct Sign {
    pending_watches: u32,
    last: Instant,
}

impl Liveness {
    /// The node was heard of.
    pub fn heard(&self, node: NodeId, connection: ConnectionNumber, now: Instant) {
        let mut signs = self.lock();
        let sign = signs.entry((node, connection)).or_insert(Sign { pending_watches: 0, last: now });
        sign.last = sign.last.max(now);
    }

    /// The node waits for news; it is alive until the guard is dropped, and for [`GRACE`] after that.
    pub fn watching(&self, node: NodeId, connection: ConnectionNumber, now: Instant) -> WatchGuard {
        let mut signs = self.lock();
        let sign = signs.entry((node, connection)).or_insert(Sign { pending_watches: 0, last: now });
        sign.pending_watches += 1;
        WatchGuard { liveness: self.clone(), node, connection }
    }

    /// The connection is gone, and with it what it told.
    pub fn lost(&self, connection: ConnectionNumber) {
        self.lock().retain(|&(_, from), _| from != connection);
    }

    /// The nodes that are alive.
    pub fn live(&self, now: Instant) -> BTreeSet<NodeId> {
        let alive = |sign: &Sign| sign.pending_watches > 0 || now.saturating_duration_since(sign.last) <= GRACE;
        self.lock().iter().filter(|(_, sign)| alive(sign)).map(|(&(node, _), _)| node).collect()
    }

    /// Watches that wait for news.
    pub fn pending_watches(&self) -> u32 {
        self.lock().values().map(|sign| sign.pending_watches).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(NodeId, ConnectionNumber), Sign>> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        if let Some(sign) = self.liveness.lock().get_mut(&(self.node, self.connection)) {
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

    #[test]
    fn a_sign_of_life_fades() {
        let liveness = Liveness::default();
        let start = Instant::now();
        liveness.heard(NODE, FIRST, start);
        assert_eq!(liveness.live(start + GRACE), BTreeSet::from([NODE]));
        assert_eq!(liveness.live(start + GRACE + Duration::from_millis(1)), BTreeSet::new());
    }

    #[test]
    fn a_pending_watch_keeps_a_node_alive() {
        let liveness = Liveness::default();
        let start = Instant::now();
        let later = start + Duration::from_secs(100);
        let guard = liveness.watching(NODE, FIRST, start);
        assert_eq!(liveness.live(later), BTreeSet::from([NODE]));
        assert_eq!(liveness.pending_watches(), 1);
        drop(guard);
        assert_eq!(liveness.pending_watches(), 0);
        assert_eq!(liveness.live(Instant::now()), BTreeSet::from([NODE]), "alive for a while after the answer");
        assert_eq!(liveness.live(later), BTreeSet::new());
    }

    #[test]
    fn a_lost_connection_takes_its_signs_along() {
        let liveness = Liveness::default();
        let now = Instant::now();
        let guard = liveness.watching(NODE, FIRST, now);
        liveness.heard(NODE, SECOND, now);
        liveness.lost(FIRST);
        assert_eq!(liveness.live(now), BTreeSet::from([NODE]), "the second connection still tells of it");
        liveness.lost(SECOND);
        assert_eq!(liveness.live(now), BTreeSet::new());
        drop(guard);
        assert_eq!(liveness.live(now), BTreeSet::new(), "a late end of a watch is no sign of life");
    }
}
