//! Streams and beacons between the nodes of a script.

use std::fmt::Write as _;

use bytes::Bytes;
use pegasus_replication::{BeaconTarget, Event, Moment, PeerMessage, Session};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::peer::{Prepare, Refuse};
use pegasus_wire::{Ballot, Decree, MutationKind, NodeId, Status};

use super::Cluster;
use super::host::Task;

/// A replication stream; its sessions are named when the ends come to know it.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) primary: u64,
    pub(crate) member: u64,
    pub(crate) sessions: [Option<Session>; 2],
    pub(crate) closed: [bool; 2],
}

/// A beacon on its way, or its answer.
#[derive(Debug)]
pub(crate) struct Beacon {
    pub(crate) primary: u64,
    pub(crate) member: u64,
    ballot: Ballot,
    committed: Decree,
    sent_at: Moment,
    /// The answer, once there is one.
    pub(crate) granted: Option<bool>,
}

impl Cluster {
    pub(super) fn open(&mut self, from: u64, to: u64) {
        let reachable = self.nodes.get(&to).is_some_and(|node| node.up) && !self.is_cut(from, to);
        if !reachable {
            return self.feed(from, Event::StreamFailed { peer: NodeId(to) });
        }
        let session = self.next_session(from);
        self.streams.push(Stream { primary: from, member: to, sessions: [Some(session), None], closed: [false; 2] });
        self.feed(from, Event::StreamOpened { peer: NodeId(to), session });
    }

    pub(super) fn deliver(&mut self, stream: usize, to_member: bool, message: PeerMessage) {
        let end = usize::from(to_member);
        let (node, peer) = self.ends(stream, to_member);
        if self.streams[stream].closed[end] {
            return;
        }
        if let PeerMessage::Establish(establish) = &message
            && let Err((status, text)) = self.find_copy(node, establish)
        {
            self.write_line(&format!("  n{node} <- n{peer}: {message}"));
            let _ = writeln!(self.transcript, "       refused by its host, {status:?}: {text}");
            let refuse = Refuse { ballot: Ballot(0), next_decree: Decree(0), message: text };
            let message = PeerMessage::Refuse { status, refuse };
            self.tasks.push_back(Task::Deliver { stream, to_member: false, message });
            return;
        }
        let session = match self.streams[stream].sessions[end] {
            Some(session) => session,
            None => self.next_session(node),
        };
        self.streams[stream].sessions[end] = Some(session);
        self.feed(node, Event::Received { peer: NodeId(peer), session, message });
    }

    /// One end comes to know that a stream is over.
    pub(super) fn end_stream(&mut self, stream: usize, to_member: bool) {
        let end = usize::from(to_member);
        let (node, peer) = self.ends(stream, to_member);
        if std::mem::replace(&mut self.streams[stream].closed[end], true) {
            return;
        }
        if let Some(session) = self.streams[stream].sessions[end] {
            self.feed(node, Event::StreamClosed { peer: NodeId(peer), session });
        }
    }

    pub(super) fn send(&mut self, node: u64, session: Session, message: PeerMessage) {
        if let Some((stream, end)) = self.find(node, session) {
            self.tasks.push_back(Task::Deliver { stream, to_member: end == 0, message });
        }
    }

    pub(super) fn close(&mut self, node: u64, session: Session) {
        if let Some((stream, end)) = self.find(node, session) {
            self.streams[stream].closed[end] = true;
            self.tasks.push_back(Task::Closed { stream, to_member: end == 0 });
        }
    }

    /// What a replica wants said in the beacons of now.
    pub(super) fn send_beacons(&mut self, primary: u64) {
        let now = self.now;
        let Some(replica) = &self.node(primary).replica else { return };
        let targets: Vec<BeaconTarget> = replica.beacons(now).collect();
        for BeaconTarget { peer, ballot, committed } in targets {
            let beacon = Beacon { primary, member: peer.0, ballot, committed, sent_at: now, granted: None };
            self.tasks.push_back(Task::Beacon(beacon));
        }
    }

    pub(super) fn on_beacon(&mut self, beacon: Beacon) {
        let Beacon { primary, member, ballot, committed, sent_at, granted } = beacon;
        if self.is_cut(primary, member) {
            return;
        }
        if let Some(granted) = granted {
            return self.feed(primary, Event::BeaconAnswered { peer: NodeId(member), ballot, sent_at, granted });
        }
        self.feed(member, Event::BeaconHeard { peer: NodeId(primary), ballot, committed });
        if let Some(replica) = &self.node(member).replica {
            let granted = replica.grants_beacon(NodeId(primary), ballot);
            if !self.quiet {
                let _ = writeln!(self.transcript, "       {}", if granted { "granted" } else { "refused" });
            }
            self.tasks.push_back(Task::Beacon(Beacon { granted: Some(granted), ..beacon }));
        }
    }

    /// A prepare on the stream the member listens to, as a confused primary might send it.
    pub(super) fn forge_prepare(&mut self, member: u64, decree: Decree, ballot: Ballot) {
        let stream = *self.open_streams(|stream| stream.member == member).last().expect("a stream to the member");
        let prepare = Prepare {
            ballot,
            decree,
            committed: Decree(0),
            timestamp_micros: 1,
            mutation_kind: MutationKind::Write as u8,
        };
        let message = PeerMessage::Prepare { prepare, payload: Bytes::from_static(b"forged") };
        self.tasks.push_back(Task::Deliver { stream, to_member: true, message });
    }

    pub(super) fn break_streams(&mut self, one: u64, other: u64) {
        let between = |stream: &Stream| [(one, other), (other, one)].contains(&(stream.primary, stream.member));
        for stream in self.open_streams(between) {
            self.tasks.retain(|task| !matches!(task, Task::Deliver { stream: of, .. } if *of == stream));
            self.tasks.push_back(Task::Closed { stream, to_member: false });
            self.tasks.push_back(Task::Closed { stream, to_member: true });
        }
    }

    /// Nothing passes between two nodes any more, and both notice that their streams are gone.
    pub(super) fn cut(&mut self, one: u64, other: u64) {
        self.held.insert(cut_name(one, other));
        self.break_streams(one, other);
    }

    pub(super) fn heal(&mut self, one: u64, other: u64) {
        assert!(self.held.remove(&cut_name(one, other)), "they are not cut off");
    }

    fn is_cut(&self, one: u64, other: u64) -> bool {
        self.held.contains(&cut_name(one, other))
    }

    pub(super) fn open_streams(&self, wanted: impl Fn(&Stream) -> bool) -> Vec<usize> {
        let streams = self.streams.iter().enumerate();
        streams.filter(|(_, stream)| wanted(stream) && stream.closed != [true; 2]).map(|(id, _)| id).collect()
    }

    /// The one that is told and the one at the other end.
    fn ends(&self, stream: usize, to_member: bool) -> (u64, u64) {
        let Stream { primary, member, .. } = self.streams[stream];
        if to_member { (member, primary) } else { (primary, member) }
    }

    fn find(&self, node: u64, session: Session) -> Option<(usize, usize)> {
        let end_of = |stream: &Stream| {
            let ends = [stream.primary, stream.member];
            (0..2).find(|end| ends[*end] == node && stream.sessions[*end] == Some(session))
        };
        self.streams.iter().enumerate().find_map(|(id, stream)| end_of(stream).map(|end| (id, end)))
    }

    fn next_session(&mut self, number: u64) -> Session {
        let node = self.node(number);
        node.sessions += 1;
        Session(node.sessions)
    }

    /// A member has its copy, or is refused; a learner without one, or with a damaged one, gets an empty one.
    fn find_copy(
        &mut self,
        number: u64,
        establish: &pegasus_wire::messages::peer::Establish,
    ) -> Result<(), (Status, String)> {
        let member = establish.configuration.contains(NodeId(number));
        let node = self.node(number);
        match (&node.replica, node.state) {
            (Some(_), state) if member || state != ReplicaState::Damaged => Ok(()),
            (None, _) if member => Err((Status::Damaged, "its copy is gone".to_owned())),
            _ => {
                self.make_learning(number, establish.configuration.clone());
                Ok(())
            }
        }
    }
}

fn cut_name(one: u64, other: u64) -> String {
    format!("cut {} {}", one.min(other), one.max(other))
}
