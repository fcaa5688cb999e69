//! A secondary of the real node, played by the test: it follows whatever the node leads, and grants every lease.
//! Whether it acknowledges what is prepared is the test's to say, so that a test can look at what is not committed yet.

use pegasus_wire::messages::peer::{Acknowledge, Beacon, BeaconAnswer, Establish, Established, Prepare};
use pegasus_wire::{Ballot, Decree, Frame, FrameBuilder, FrameHeader, MessageKind, NodeId, Status};
use tokio::sync::watch;

use super::peer::{Incoming, PlayedNode};

/// A handle; the secondary plays until the test ends.
pub(crate) struct Follower {
    pub(crate) node: NodeId,
    holds: watch::Sender<bool>,
    prepared: watch::Receiver<Decree>,
}

impl Follower {
    /// Begins to follow.
    pub(crate) fn start(mut peer: PlayedNode) -> Follower {
        let (node, holds) = (peer.node, watch::Sender::new(false));
        let (seen, prepared) = watch::channel(Decree(0));
        let held = holds.subscribe();
        tokio::spawn(async move {
            loop {
                tokio::spawn(follow(peer.next().await, held.clone(), seen.clone()));
            }
        });
        Follower { node, holds, prepared }
    }

    /// From now on nothing is acknowledged.
    pub(crate) fn hold(&self) {
        self.holds.send_replace(true);
    }

    /// What was held back, and all that follows, is acknowledged.
    pub(crate) fn release(&self) {
        self.holds.send_replace(false);
    }

    /// The last decree that was prepared.
    pub(crate) fn prepared(&self) -> Decree {
        *self.prepared.borrow()
    }

    /// Waits until a decree is prepared.
    pub(crate) async fn wait_for_prepare(&mut self, decree: Decree) {
        let seen = self.prepared.wait_for(|prepared| *prepared >= decree);
        tokio::time::timeout(crate::support::PATIENCE, seen).await.expect("a prepare").expect("the follower lives");
    }
}

async fn follow(mut incoming: Incoming, mut held: watch::Receiver<bool>, seen: watch::Sender<Decree>) {
    let mut next = Some(incoming.first.clone());
    // What is not acknowledged yet.
    let mut owed = None;
    loop {
        if let Some(frame) = next.take() {
            match frame.header.kind {
                MessageKind::PREPARE => {
                    let prepare: Prepare = frame.decode().expect("a prepare");
                    seen.send_if_modified(|last| {
                        let newer = prepare.decree > *last;
                        *last = prepare.decree.max(*last);
                        newer
                    });
                    owed = Some((prepare.ballot, prepare.decree));
                }
                MessageKind::ESTABLISH => owed = Some(established(&incoming, &frame)),
                MessageKind::BEACON => grant(&incoming, &frame),
                _ => {}
            }
        }
        if !*held.borrow_and_update()
            && let Some((ballot, logged)) = owed.take()
        {
            acknowledge(&incoming, ballot, logged);
        }
        tokio::select! {
            frame = incoming.reader.next() => match frame {
                Ok(Some(frame)) => next = Some(frame),
                _ => return,
            },
            changed = held.changed() => if changed.is_err() { return },
        }
    }
}

fn acknowledge(incoming: &Incoming, ballot: Ballot, logged: Decree) {
    let header = FrameHeader::request(MessageKind::ACKNOWLEDGE, 0, 0);
    let body = Acknowledge { ballot, logged };
    // The node may have ended the stream.
    let _ = incoming.outbox.push(|out| FrameBuilder::append(out, header, &body, &[]));
}

/// It has everything, so nothing is sent again; what is in its log already is still to be acknowledged.
fn established(incoming: &Incoming, frame: &Frame) -> (Ballot, Decree) {
    let establish: Establish = frame.decode().expect("an establishment");
    let (ballot, committed) = (establish.configuration.ballot, establish.committed);
    let body = Established { ballot, next_decree: establish.last_decree.next(), committed, uncertain: false };
    let header = FrameHeader::answer(frame.header.kind, frame.header.request_id, Status::Ok);
    let _ = incoming.outbox.push(|out| FrameBuilder::append(out, header, &body, &[]));
    (ballot, establish.last_decree)
}

fn grant(incoming: &Incoming, frame: &Frame) {
    frame.decode::<Beacon>().expect("a beacon");
    let header = FrameHeader::answer(frame.header.kind, frame.header.request_id, Status::Ok);
    let body = BeaconAnswer { refused: Vec::new() };
    let _ = incoming.outbox.push(|out| FrameBuilder::append(out, header, &body, &[]));
}
