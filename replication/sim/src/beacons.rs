//! Beacons: one call from node to node for all partitions that one leads and the other follows. Calls and their answers
//! are lost, and overtake each other.

use std::collections::BTreeMap;

use pegasus_replication::{Event, Moment};
use pegasus_wire::{Ballot, Decree, NodeId};

use crate::world::{Happening, Local, World};

/// One partition of a beacon, and of its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    partition: usize,
    /// The sender's copy.
    incarnation: u64,
    ballot: Ballot,
    committed: Decree,
    /// What the answer says.
    granted: bool,
}

impl World {
    /// A node sends what its primaries want said, and again after the interval.
    pub(crate) fn send_beacons(&mut self, node: usize) {
        let host = &self.nodes[node];
        let sent_at = host.clock.read(self.now);
        let mut calls: BTreeMap<NodeId, Vec<Entry>> = BTreeMap::new();
        for (partition, copy) in host.copies.iter().enumerate() {
            let Some(copy) = copy else { continue };
            let Some(replica) = &copy.replica else { continue };
            for target in replica.beacons(sent_at) {
                let (incarnation, ballot, committed) = (copy.disk.incarnation, target.ballot, target.committed);
                let entry = Entry { partition, incarnation, ballot, committed, granted: false };
                calls.entry(target.peer).or_default().push(entry);
            }
        }
        let interval = host.clock.real(self.options.limits.timing.beacon_interval_micros);
        let run = host.run;
        for (receiver, entries) in calls {
            let Some(&to) = self.names.get(&receiver) else { continue };
            if self.network.is_cut(node, to) || self.is_call_lost() {
                continue;
            }
            let delay = self.latency(node);
            self.schedule(delay, Happening::Beacon { from: node, run, to, receiver, sent_at, entries });
        }
        self.schedule_local(node, interval, Local::Beacon);
    }

    /// A beacon arrives: every partition is asked, and the answer goes back.
    pub(crate) fn on_beacon(
        &mut self,
        (from, run): (usize, u64),
        to: usize,
        receiver: NodeId,
        sent_at: Moment,
        mut entries: Vec<Entry>,
    ) {
        if !self.nodes[to].up {
            return;
        }
        let peer = self.nodes[from].id;
        let meant = self.nodes[to].id == receiver;
        for entry in entries.iter_mut().filter(|_| meant) {
            let Entry { partition, ballot, committed, .. } = *entry;
            self.feed(to, partition, Event::BeaconHeard { peer, ballot, committed });
            entry.granted = self.replica(to, partition).is_some_and(|replica| replica.grants_beacon(peer, ballot));
        }
        if self.network.is_cut(to, from) || self.is_call_lost() {
            return;
        }
        let delay = self.latency(to);
        let local = Local::BeaconAnswered { peer: receiver, sent_at, entries };
        self.schedule(delay, Happening::Local { node: from, run, local });
    }

    /// The answer is back.
    pub(crate) fn on_beacon_answered(&mut self, node: usize, peer: NodeId, sent_at: Moment, entries: Vec<Entry>) {
        for Entry { partition, incarnation, ballot, granted, .. } in entries {
            let copy = self.nodes[node].copies[partition].as_ref();
            if copy.is_some_and(|copy| copy.disk.incarnation == incarnation) {
                self.feed(node, partition, Event::BeaconAnswered { peer, ballot, sent_at, granted });
            }
        }
    }
}
