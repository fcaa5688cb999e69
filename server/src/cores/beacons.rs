//! Beacons: how a primary's core asks the members' cores to renew its leases, and how those answer.
//!
//! ```text
//! every beacon interval, for each core that follows this one:
//!
//!   replicas' targets --> one BEACON --> | each replica hears its entry, and then says |
//!   clock is read here          (call)   | whether it grants it                        |
//!                                        |
//!   replicas <-- granted or refused <-- BeaconAnswer (what is refused)
//! ```
//!
//! A lease counts from the reading of the clock before the beacon left, however late the answer comes. Which beacons
//! are sent, which are granted and what follows from it is the replicas' business. A core that does not answer never
//! holds up the others: each beacon is a task of its own, and at most [`UNANSWERED_MAX`] to one core are on their way.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use glommio::timer::sleep;
use pegasus_replication::{Event, Moment};
use pegasus_rpc::{FrameReader, Outbox};
use pegasus_wire::limits::BEACON_ENTRIES_MAX;
use pegasus_wire::messages::ErrorReply;
use pegasus_wire::messages::peer::{Beacon, BeaconAnswer, BeaconEntry};
use pegasus_wire::{Frame, FrameBuilder, FrameHeader, MessageKind, NodeId, PartitionId, Status, owner_core};

use super::partition::CopyId;
use super::{Core, clock};

/// Beacons to one core that may wait for an answer: the last one, and a newer one.
const UNANSWERED_MAX: usize = 2;

/// One beacon before it is sent: the entries and whose they are.
#[derive(Default)]
struct Draft {
    entries: Vec<BeaconEntry>,
    copies: Vec<CopyId>,
}

impl Core {
    /// Sends beacons until its task is cancelled.
    pub(crate) async fn beacon_loop(self) {
        let replication = self.shared.config.replication;
        let interval = Duration::from_millis(replication.beacon_interval_ms);
        // An answer that comes later renews nothing.
        let patience = Duration::from_millis(replication.lease_ms);
        loop {
            sleep(interval).await;
            for ((peer, address), drafts) in self.draft_beacons() {
                for draft in drafts {
                    if !self.begin_beacon(address) {
                        break;
                    }
                    glommio::spawn_local(self.clone().send_beacon(peer, address, draft, patience)).detach();
                }
            }
        }
    }

    /// What is to be renewed now, by the core that follows.
    fn draft_beacons(&self) -> BTreeMap<(NodeId, SocketAddr), Vec<Draft>> {
        let mut drafts: BTreeMap<(NodeId, SocketAddr), Vec<Draft>> = BTreeMap::new();
        let state = self.state.borrow();
        let now = clock::now();
        for partition in state.partitions.values() {
            for target in partition.replica.beacons(now) {
                let Some(node) = state.nodes.get(&target.peer) else { continue };
                let of_core = drafts.entry((target.peer, node.endpoint(partition.id))).or_default();
                if of_core.last().is_none_or(|draft| draft.entries.len() == BEACON_ENTRIES_MAX) {
                    of_core.push(Draft::default());
                }
                if let Some(draft) = of_core.last_mut() {
                    let (ballot, committed) = (target.ballot, target.committed);
                    draft.entries.push(BeaconEntry { partition: partition.id, ballot, committed });
                    draft.copies.push(partition.copy());
                }
            }
        }
        drafts
    }

    /// Counts a beacon to a core; false if too many wait for its answer already.
    fn begin_beacon(&self, address: SocketAddr) -> bool {
        let mut state = self.state.borrow_mut();
        let unanswered = state.beacons.entry(address).or_default();
        let admitted = *unanswered < UNANSWERED_MAX;
        *unanswered += usize::from(admitted);
        if admitted {
            state.counters.beacons_sent += 1;
        } else {
            state.counters.beacons_withheld += 1;
        }
        admitted
    }

    fn end_beacon(&self, address: SocketAddr) {
        let mut state = self.state.borrow_mut();
        if let Some(unanswered) = state.beacons.get_mut(&address) {
            *unanswered -= 1;
            if *unanswered == 0 {
                state.beacons.remove(&address);
            }
        }
    }

    /// Sends one beacon and tells the replicas what was answered. Without an answer they hear nothing: a lease that is
    /// not renewed runs out by itself.
    async fn send_beacon(self, peer: NodeId, address: SocketAddr, draft: Draft, patience: Duration) {
        let Draft { entries, copies } = draft;
        let beacon = Beacon {
            cluster: self.shared.cluster().unwrap_or_default(),
            sender: self.shared.node,
            receiver: peer,
            entries,
        };
        let channel = self.channel_at(address);
        let sent_at = Cell::new(None);
        let build = |out: &mut Vec<u8>, header| {
            // Before it is handed to the network: the lease runs from here.
            sent_at.set(Some(clock::now()));
            FrameBuilder::append(out, header, &beacon, &[]);
        };
        let answered = channel.call(MessageKind::BEACON, Instant::now() + patience, build).await;
        self.end_beacon(address);
        let answered = answered.map_err(|error| error.to_string()).and_then(|frame| verdict(&frame, copies.len()));
        match (answered, sent_at.get()) {
            (Ok(refused), Some(sent_at)) => self.take_beacon_answer(peer, &beacon, &copies, &refused, sent_at),
            (Ok(_), None) => unreachable!("an answer comes to what was sent"),
            (Err(reason), _) => {
                tracing::debug!(%peer, %address, %reason, "a beacon was not answered");
                self.count(|counters| counters.beacons_unanswered += 1);
            }
        }
    }

    fn take_beacon_answer(&self, peer: NodeId, beacon: &Beacon, copies: &[CopyId], refused: &[bool], sent_at: Moment) {
        {
            let mut state = self.state.borrow_mut();
            for ((copy, entry), refused) in copies.iter().zip(&beacon.entries).zip(refused) {
                if state.copy(*copy).is_some() {
                    let answered = Event::BeaconAnswered { peer, ballot: entry.ballot, sent_at, granted: !refused };
                    state.events.push_back((copy.partition, answered));
                }
            }
        }
        self.settle();
    }

    /// Serves a stream of beacons, of which the first has arrived, until the sender ends it.
    pub(crate) async fn hear_beacons(self, first: Frame, outbox: Outbox, mut reader: FrameReader) {
        let mut next = Some(first);
        while let Some(frame) = next {
            let started = self.begin_run();
            match self.hear_beacon(&frame) {
                Ok(answer) => {
                    let header = FrameHeader::answer(frame.header.kind, frame.header.request_id, Status::Ok);
                    // A closed outbox is noticed by the reader.
                    let _ = outbox.push(|out| FrameBuilder::append(out, header, &answer, &[]));
                }
                Err((status, message)) => {
                    tracing::debug!(%status, %message, "refusing a beacon");
                    let error = ErrorReply::new(message);
                    let _ = outbox.push(|out| FrameBuilder::append_error(out, &frame.header, status, &error));
                }
            }
            self.settle();
            self.end_run(started);
            if outbox.ready().await.is_err() {
                break;
            }
            next = reader.next().await.ok().flatten();
        }
        outbox.finish();
    }

    /// Lets each replica hear its entry and asks it, before anything else happens, whether it grants it.
    fn hear_beacon(&self, frame: &Frame) -> Result<BeaconAnswer, (Status, String)> {
        if frame.header.kind != MessageKind::BEACON {
            let message = format!("{} has no place on a stream of beacons", frame.header.kind);
            return Err((Status::Malformed, message));
        }
        let beacon: Beacon = frame.decode().map_err(|error| (Status::Malformed, error.to_string()))?;
        self.check_peer(beacon.cluster, beacon.sender, beacon.receiver)?;
        if beacon.entries.len() > BEACON_ENTRIES_MAX {
            let message =
                format!("{} entries, the limit is {BEACON_ENTRIES_MAX} (beacon_entries_max)", beacon.entries.len());
            return Err((Status::TooLarge, message));
        }
        let mut state = self.state.borrow_mut();
        // After the beacon was received: the grace period runs from here.
        let now = clock::now();
        let mut refused = Vec::new();
        for (position, entry) in (0u32..).zip(&beacon.entries) {
            let BeaconEntry { partition: id, ballot, committed } = *entry;
            if owner_core(id, self.shared.config.cores) == self.id {
                let peer = beacon.sender;
                self.handle(&mut state, now, id, Event::BeaconHeard { peer, ballot, committed });
            }
            let granted = |id: PartitionId| {
                let copy = state.partitions.get(&id).filter(|copy| copy.problem.is_none());
                copy.is_some_and(|copy| copy.replica.grants_beacon(beacon.sender, ballot))
            };
            if !granted(id) {
                refused.push(position);
            }
        }
        state.counters.beacons_heard += 1;
        state.counters.beacon_entries_declined += refused.len() as u64;
        Ok(BeaconAnswer { refused })
    }
}

/// Which entries were refused, one by one; an error if the answer says nothing of them.
fn verdict(frame: &Frame, entries: usize) -> Result<Vec<bool>, String> {
    match frame.header.status {
        Status::Ok => {}
        // The whole core is out of service.
        Status::StorageFailed | Status::ShuttingDown => return Ok(vec![true; entries]),
        status => return Err(frame.error().map_or_else(|| status.to_string(), |error| error.message)),
    }
    let answer: BeaconAnswer = frame.decode().map_err(|error| error.to_string())?;
    let mut refused = vec![false; entries];
    for position in answer.refused {
        match refused.get_mut(position as usize) {
            Some(entry) => *entry = true,
            None => return Err(format!("it refuses entry {position} of {entries}")),
        }
    }
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: Status, refused: &[u32]) -> Frame {
        let mut out = Vec::new();
        let header = FrameHeader::answer(MessageKind::BEACON, 7, status);
        if status == Status::Ok {
            FrameBuilder::append(&mut out, header, &BeaconAnswer { refused: refused.to_vec() }, &[]);
        } else {
            FrameBuilder::append(&mut out, header, &ErrorReply::new("because"), &[]);
        }
        Frame::parse(out.into()).unwrap()
    }

    #[test]
    fn what_is_not_refused_is_granted() {
        assert_eq!(verdict(&answer(Status::Ok, &[]), 3), Ok(vec![false; 3]));
        assert_eq!(verdict(&answer(Status::Ok, &[0, 2]), 3), Ok(vec![true, false, true]));
        assert_eq!(verdict(&answer(Status::StorageFailed, &[]), 2), Ok(vec![true; 2]));
    }

    #[test]
    fn an_answer_that_makes_no_sense_grants_nothing() {
        assert!(verdict(&answer(Status::Ok, &[3]), 3).is_err());
        assert_eq!(verdict(&answer(Status::StaleRoute, &[]), 3), Err("because".to_owned()));
        let mut broken = answer(Status::Ok, &[]);
        broken.body = bytes::Bytes::from_static(b"x");
        assert!(verdict(&broken, 3).is_err());
    }
}
