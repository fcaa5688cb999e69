//! Replication streams as hosts see them: opening, accepting, sending, closing.

use pegasus_replication::{Event, PeerMessage, Session};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::peer::{Establish, Refuse};
use pegasus_wire::{Ballot, Configuration, Decree, NodeId, Status};

use crate::disk::Table;
use crate::network::{End, Stream};
use crate::world::{Happening, World};

impl World {
    pub(crate) fn on_open_stream(&mut self, node: usize, partition: usize, peer: NodeId) {
        let to = self.names.get(&peer).copied();
        // The address of a node that lost its name may lead to who has it now.
        let misled = to.is_some_and(|to| self.nodes[to].id != peer) && self.random.permille(500);
        let Some(to) = to.filter(|_| !misled) else {
            return self.feed(node, partition, Event::StreamFailed { peer });
        };
        // Over a connection that was there before, a stream opens without a word from the other side.
        let answers = self.nodes[to].up && (!self.nodes[to].frozen || self.random.permille(500));
        if !answers || self.network.is_apart(node, to) {
            let patience = self.options.limits.timing.lease_micros / 2;
            let delay = if self.random.permille(500) { 0 } else { self.random.range(0, patience) };
            return self.tell_later(node, partition, delay, Event::StreamFailed { peer });
        }
        let Some(copy) = &self.nodes[node].copies[partition] else { return };
        let host = &self.nodes[node];
        let here = End::new(node, host.id, host.run, copy.disk.incarnation, self.now);
        let there = End::new(to, peer, self.nodes[to].run, 0, self.now);
        let stream = self.network.open(Stream { partition, ends: [here, there] });
        let session = self.name_end(stream, 0);
        self.feed(node, partition, Event::StreamOpened { peer, session });
    }

    /// Gives a stream its session number at one end.
    fn name_end(&mut self, stream: usize, end: usize) -> Session {
        let node = self.network.streams[stream].ends[end].node;
        self.nodes[node].sessions.push((stream, end));
        let session = Session(self.nodes[node].sessions.len() as u64);
        self.network.streams[stream].ends[end].session = Some(session);
        session
    }

    /// Sends what a replica says.
    pub(crate) fn send(&mut self, node: usize, session: Session, message: PeerMessage) {
        let (stream, end) = self.nodes[node].stream_of(session);
        self.send_from(stream, end, message);
    }

    fn send_from(&mut self, stream: usize, end: usize, message: PeerMessage) {
        let node = self.network.streams[stream].ends[end].node;
        let delay = self.latency(node);
        let ends = &mut self.network.streams[stream].ends;
        if ends[end].closing || ends[end].closed {
            return;
        }
        let delay = ends[1 - end].arrive(self.now, delay) - self.now;
        self.schedule(delay, Happening::Deliver { stream, end: 1 - end, message });
    }

    pub(crate) fn on_deliver(&mut self, stream: usize, end: usize, message: PeerMessage) {
        let state = &self.network.streams[stream];
        let receiver = state.ends[end];
        if self.now <= receiver.held_until {
            let delay = receiver.held_until + 1 - self.now;
            return self.schedule(delay, Happening::Deliver { stream, end, message });
        }
        let cut = receiver.cut_at.is_some_and(|time| time < self.now);
        if cut || receiver.closed || !self.nodes[receiver.node].is_running(receiver.run) {
            return;
        }
        let (partition, node, peer) = (state.partition, receiver.node, state.ends[1 - end].name);
        let session = match receiver.session {
            Some(session) => session,
            None => match self.accept(stream, node, partition, &message) {
                Some(session) => session,
                None => return,
            },
        };
        let incarnation = self.network.streams[stream].ends[end].incarnation;
        if self.nodes[node].copies[partition].as_ref().is_some_and(|copy| copy.disk.incarnation == incarnation) {
            self.feed(node, partition, Event::Received { peer, session, message });
        }
    }

    /// The first message of an accepted stream. A node that has no copy, or a damaged one, makes an empty one if it is
    /// asked to learn, and says that its copy is lost if it is taken for a member.
    fn accept(&mut self, stream: usize, node: usize, partition: usize, message: &PeerMessage) -> Option<Session> {
        let PeerMessage::Establish(establish) = message else { return None };
        let id = self.nodes[node].id;
        let refusal = self
            .missing_copy(node, partition, establish)
            .or_else(|| (establish.receiver != id).then(|| (Status::StaleRoute, format!("this is node {id}"))));
        if let Some((status, message)) = refusal {
            let refuse = Refuse { ballot: Ballot(0), next_decree: Decree(0), message };
            self.send_from(stream, 1, PeerMessage::Refuse { status, refuse });
            self.close_stream_end(stream, 1);
            return None;
        }
        let state = self.nodes[node].copies[partition].as_ref().map(|copy| copy.disk.state);
        let learns = !establish.configuration.contains(id);
        if learns && matches!(state, None | Some(ReplicaState::Damaged)) {
            self.make_copy(node, partition, Configuration::default(), ReplicaState::Learning, Table::default());
        }
        let incarnation = self.nodes[node].copies[partition].as_ref()?.disk.incarnation;
        self.network.streams[stream].ends[1].incarnation = incarnation;
        Some(self.name_end(stream, 1))
    }

    fn missing_copy(&self, node: usize, partition: usize, establish: &Establish) -> Option<(Status, String)> {
        let member = establish.configuration.contains(self.nodes[node].id);
        if !member || self.nodes[node].copies[partition].is_some() {
            return None;
        }
        if establish.configuration.ballot > Ballot::ASSIGNMENT {
            return Some((Status::Damaged, "the copy is lost".to_owned()));
        }
        Some((Status::NotServing, "the assignment has not arrived yet".to_owned()))
    }

    /// An end is told that its stream is over.
    pub(crate) fn on_end_closed(&mut self, stream: usize, end: usize) {
        let state = &mut self.network.streams[stream];
        let (partition, peer) = (state.partition, state.ends[1 - end].name);
        let told = &mut state.ends[end];
        let (node, incarnation) = (told.node, told.incarnation);
        if std::mem::replace(&mut told.closed, true) || !self.nodes[node].is_running(told.run) {
            return;
        }
        let current = self.nodes[node].copies[partition].as_ref().map(|copy| copy.disk.incarnation);
        if let Some(session) = told.session
            && current == Some(incarnation)
        {
            self.feed(node, partition, Event::StreamClosed { peer, session });
        }
    }

    /// A replica closes its end; the other end learns it after what was sent before.
    pub(crate) fn close_end(&mut self, node: usize, session: Session) {
        let (stream, end) = self.nodes[node].stream_of(session);
        self.close_stream_end(stream, end);
    }

    fn close_stream_end(&mut self, stream: usize, end: usize) {
        let node = self.network.streams[stream].ends[end].node;
        let delay = self.latency(node);
        let ends = &mut self.network.streams[stream].ends;
        if std::mem::replace(&mut ends[end].closing, true) {
            return;
        }
        let delay = ends[1 - end].arrive(self.now, delay) - self.now;
        self.schedule(delay, Happening::EndClosed { stream, end: 1 - end });
        let late = self.options.limits.timing.lease_micros / 4;
        let delay = if self.random.permille(500) { 0 } else { self.random.range(0, late) };
        self.schedule(delay, Happening::EndClosed { stream, end });
    }

    /// The copy they belonged to is gone; its host closes them.
    pub(crate) fn close_streams_of(&mut self, node: usize, partition: usize) {
        for stream in self.network.of_copy(node, partition) {
            for end in 0..2 {
                let state = self.network.streams[stream].ends[end];
                // One that was only just accepted belongs to the copy to come.
                if state.node == node && state.session.is_some() {
                    self.close_stream_end(stream, end);
                    self.network.streams[stream].ends[end].closed = true;
                }
            }
        }
    }

    /// The ends of streams between two nodes notice one after the other that nothing comes any more.
    pub(crate) fn cut_streams(&mut self, from: usize, to: usize) {
        let late = self.options.limits.timing.lease_micros;
        for stream in self.network.between(from, to) {
            for end in 0..2 {
                let state = &mut self.network.streams[stream].ends[end];
                if state.node == to {
                    state.cut_at.get_or_insert(self.now);
                }
                let delay = self.random.range(100, late);
                self.schedule(delay, Happening::EndClosed { stream, end });
            }
        }
    }

    /// What is on the way between two nodes arrives late.
    pub(crate) fn stall_streams(&mut self, one: usize, other: usize, micros_max: u64) {
        for stream in self.network.between(one, other) {
            for end in 0..2 {
                let until = self.now + self.random.range(100, micros_max);
                self.network.streams[stream].ends[end].hold(until);
            }
        }
    }

    /// The other ends of a dead node's streams notice sooner or later; what was under way still arrives before that,
    /// or does not.
    pub(crate) fn drop_streams_of(&mut self, node: usize) {
        let late = self.options.limits.timing.lease_micros;
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            for stream in self.network.between(node, peer) {
                let choice = self.random.index(3);
                let until = self.now + self.random.range(100, late);
                let delay = self.random.range(50, late);
                let end = usize::from(self.network.streams[stream].ends[0].node == node);
                let ends = &mut self.network.streams[stream].ends;
                ends[1 - end].closed = true;
                match choice {
                    0 => ends[end].cut_at = Some(self.now),
                    1 => ends[end].hold(until),
                    _ => {}
                }
                self.schedule(delay, Happening::EndClosed { stream, end });
            }
        }
    }
}
