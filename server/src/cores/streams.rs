//! Replication streams: opened by a primary to each secondary and learner, accepted by the owning core there (see
//! `follow`).
//!
//! A stream carries one partition. Its first frame is ESTABLISH. The host only moves messages; which ones are
//! sent, and which are believed, is the replica's business.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pegasus_replication::{Event, PeerMessage, Session};
use pegasus_rpc::{Alpn, FrameReader, Outbox, Reconnecting, Role};
use pegasus_wire::frame::WireError;
use pegasus_wire::messages::peer::{
    Acknowledge, ArchivedAcknowledge, ArchivedCommitPoint, ArchivedPrepare, CommitPoint, Prepare, Refuse,
};
use pegasus_wire::{
    Ballot, Decree, Frame, FrameBuilder, FrameHeader, MessageKind, MutationKind, NodeId, PartitionId, Status,
};

use super::Core;
use super::admit::unpinned;
use super::partition::PeerStream;

/// How long opening a connection and a stream may take.
const OPEN: Duration = Duration::from_secs(3);
/// Frames taken before other tasks of the core get their turn.
const BATCH_FRAMES: usize = 256;

/// Which end of a stream this node is. ESTABLISH is a request at one end and an answer at the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The primary, which opened the stream.
    Leading,
    /// The member, which accepted it.
    Following,
}

impl Core {
    /// Opens a stream to a secondary and serves it until it ends. Then the replica decides whether to try again.
    pub(crate) async fn lead_stream(self, partition: PartitionId, peer: NodeId) {
        let opened = self.open_stream(partition, peer).await;
        let (outbox, reader) = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                tracing::debug!(%partition, %peer, %reason, "no stream to a secondary");
                self.post(partition, Event::StreamFailed { peer });
                self.settle();
                return;
            }
        };
        let Some(session) = self.add_stream(partition, outbox) else { return };
        self.post(partition, Event::StreamOpened { peer, session });
        self.settle();
        self.pump(partition, peer, session, reader, Side::Leading).await;
    }

    async fn open_stream(&self, partition: PartitionId, peer: NodeId) -> Result<(Outbox, FrameReader), String> {
        let channel = self.channel_to(partition, peer).ok_or("its address is not known yet")?;
        let connection = channel.connection(Instant::now() + OPEN).await.map_err(|error| error.to_string())?;
        let (writer, reader) = connection.open().await.map_err(|error| error.to_string())?;
        Ok((Outbox::start(&self.runtime, writer), reader))
    }

    /// The (lazily made) connection to the core that owns the partition on a peer.
    fn channel_to(&self, partition: PartitionId, peer: NodeId) -> Option<Reconnecting> {
        let address = self.state.borrow().nodes.get(&peer)?.endpoint(partition);
        Some(self.channel_at(address))
    }

    /// The (lazily made) connection to another node's core.
    pub(crate) fn channel_at(&self, address: SocketAddr) -> Reconnecting {
        let mut state = self.state.borrow_mut();
        let connect = || Reconnecting::new(self.endpoint.clone(), address, Role::Replica, Alpn::Peer);
        state.peers.entry(address).or_insert_with(connect).clone()
    }

    /// Registers a stream; `None` if the partition is gone.
    pub(crate) fn add_stream(&self, partition: PartitionId, outbox: Outbox) -> Option<Session> {
        let mut state = self.state.borrow_mut();
        state.next_session += 1;
        let session = Session(state.next_session);
        state.partitions.get_mut(&partition)?.streams.push(PeerStream { session, outbox });
        Some(session)
    }

    /// Feeds a stream's messages to the replica until the stream ends.
    pub(crate) async fn pump(
        &self,
        partition: PartitionId,
        peer: NodeId,
        session: Session,
        mut reader: FrameReader,
        side: Side,
    ) {
        while let Ok(Some(frame)) = reader.next().await {
            let started = self.begin_run();
            let mut heard = self.deliver(partition, peer, session, &frame, side);
            for _ in 1..BATCH_FRAMES {
                match reader.try_next() {
                    Ok(Some(frame)) if heard => heard = self.deliver(partition, peer, session, &frame, side),
                    _ => break,
                }
            }
            self.settle();
            self.end_run(started);
            if !heard || !self.has_stream(partition, session) {
                break;
            }
        }
        self.drop_stream(partition, session);
        self.post(partition, Event::StreamClosed { peer, session });
        self.settle();
    }

    /// Queues one message; false if the frame is not one, which ends the stream.
    fn deliver(&self, partition: PartitionId, peer: NodeId, session: Session, frame: &Frame, side: Side) -> bool {
        match decode(frame, side) {
            Ok(message) => {
                self.post(partition, Event::Received { peer, session, message });
                true
            }
            Err(reason) => {
                tracing::warn!(%partition, %peer, %reason, "ending a replication stream");
                false
            }
        }
    }

    fn has_stream(&self, partition: PartitionId, session: Session) -> bool {
        let state = self.state.borrow();
        state.partitions.get(&partition).is_some_and(|partition| partition.stream(session).is_some())
    }

    /// Closes a stream from this side. What is queued in its outbox still goes out.
    pub(crate) fn drop_stream(&self, partition: PartitionId, session: Session) {
        let mut state = self.state.borrow_mut();
        if let Some(partition) = state.partitions.get_mut(&partition) {
            partition.close_stream(session);
        }
    }
}

/// Appends a message to a stream's outbox. A closed outbox is noticed by the stream's reader.
pub(crate) fn send(outbox: &Outbox, message: PeerMessage) {
    let header = |kind| FrameHeader::request(kind, 0, 0);
    let _ = match message {
        PeerMessage::Establish(establish) => {
            outbox.push(|out| FrameBuilder::append(out, header(MessageKind::ESTABLISH), &*establish, &[]))
        }
        PeerMessage::Established(established) => outbox.push(|out| {
            FrameBuilder::append(out, FrameHeader::answer(MessageKind::ESTABLISH, 0, Status::Ok), &established, &[]);
        }),
        PeerMessage::Prepare { prepare, payload } => {
            let length = payload.len();
            outbox.push_with_attachment(
                |out| FrameBuilder::head(out, header(MessageKind::PREPARE), &prepare, length),
                payload,
            )
        }
        PeerMessage::Acknowledge(Acknowledge { ballot, logged }) => outbox.push(|out| {
            FrameBuilder::append(out, header(MessageKind::ACKNOWLEDGE), &Acknowledge { ballot, logged }, &[]);
        }),
        PeerMessage::CommitPoint(CommitPoint { ballot, committed }) => outbox.push(|out| {
            FrameBuilder::append(out, header(MessageKind::COMMIT_POINT), &CommitPoint { ballot, committed }, &[]);
        }),
        PeerMessage::TakeCheckpoint(take) => {
            outbox.push(|out| FrameBuilder::append(out, header(MessageKind::TAKE_CHECKPOINT), &take, &[]))
        }
        PeerMessage::Refuse { status, refuse } => outbox.push(|out| {
            FrameBuilder::append(out, FrameHeader::answer(MessageKind::REFUSE, 0, status), &refuse, &[]);
        }),
    };
}

/// Reads a message off a frame.
fn decode(frame: &Frame, side: Side) -> Result<PeerMessage, String> {
    let text = |error: WireError| error.to_string();
    match frame.header.kind {
        MessageKind::ESTABLISH if frame.header.status != Status::Ok => {
            let message = frame.error().map_or_else(|| frame.header.status.to_string(), |error| error.message);
            let refuse = Refuse { ballot: Ballot(0), next_decree: Decree(0), message };
            Ok(PeerMessage::Refuse { status: frame.header.status, refuse })
        }
        MessageKind::ESTABLISH if side == Side::Leading => frame.decode().map(PeerMessage::Established).map_err(text),
        MessageKind::ESTABLISH => frame.decode().map(|body| PeerMessage::Establish(Box::new(body))).map_err(text),
        MessageKind::PREPARE => {
            let prepare = frame.body::<ArchivedPrepare>().map_err(text)?;
            if MutationKind::from_code(prepare.mutation_kind).is_none() {
                return Err(format!("mutation kind {} is of a later release", prepare.mutation_kind));
            }
            let prepare = Prepare {
                ballot: Ballot(prepare.ballot.0.to_native()),
                decree: Decree(prepare.decree.0.to_native()),
                committed: Decree(prepare.committed.0.to_native()),
                timestamp_micros: prepare.timestamp_micros.to_native(),
                mutation_kind: prepare.mutation_kind,
            };
            Ok(PeerMessage::Prepare { prepare, payload: unpinned(&frame.attachment) })
        }
        MessageKind::ACKNOWLEDGE => {
            let acknowledge = frame.body::<ArchivedAcknowledge>().map_err(text)?;
            Ok(PeerMessage::Acknowledge(Acknowledge {
                ballot: Ballot(acknowledge.ballot.0.to_native()),
                logged: Decree(acknowledge.logged.0.to_native()),
            }))
        }
        MessageKind::COMMIT_POINT => {
            let point = frame.body::<ArchivedCommitPoint>().map_err(text)?;
            Ok(PeerMessage::CommitPoint(CommitPoint {
                ballot: Ballot(point.ballot.0.to_native()),
                committed: Decree(point.committed.0.to_native()),
            }))
        }
        MessageKind::TAKE_CHECKPOINT => frame.decode().map(PeerMessage::TakeCheckpoint).map_err(text),
        MessageKind::REFUSE => {
            let refuse = frame.decode::<Refuse>().map_err(text)?;
            Ok(PeerMessage::Refuse { status: frame.header.status, refuse })
        }
        kind => Err(format!("{kind} has no place on a replication stream")),
    }
}
