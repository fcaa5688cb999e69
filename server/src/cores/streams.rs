//! Replication streams: opened by a primary to each secondary, accepted by the secondary's owning core.
//!
//! A stream carries one partition. Its first frame is ESTABLISH. The host only moves messages; which ones are
//! sent, and which are believed, is the replica's business.

use std::time::{Duration, Instant};

use pegasus_replication::{Event, PeerMessage, Session};
use pegasus_rpc::{Alpn, Connection, FrameReader, Outbox, Reconnecting, Role};
use pegasus_wire::frame::WireError;
use pegasus_wire::messages::ErrorReply;
use pegasus_wire::messages::peer::{
    Acknowledge, ArchivedAcknowledge, ArchivedCommitPoint, ArchivedPrepare, CommitPoint, Establish, Prepare, Refuse,
};
use pegasus_wire::{
    Ballot, Decree, Frame, FrameBuilder, FrameHeader, MessageKind, MutationKind, NodeId, PartitionId, Status,
    owner_core,
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
enum Side {
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
        let mut state = self.state.borrow_mut();
        let address = state.nodes.get(&peer)?.endpoint(partition);
        let channel = state
            .peers
            .entry(address)
            .or_insert_with(|| Reconnecting::new(self.endpoint.clone(), address, Role::Replica, Alpn::Peer));
        Some(channel.clone())
    }

    /// Registers a stream; `None` if the partition is gone.
    fn add_stream(&self, partition: PartitionId, outbox: Outbox) -> Option<Session> {
        let mut state = self.state.borrow_mut();
        state.next_session += 1;
        let session = Session(state.next_session);
        state.partitions.get_mut(&partition)?.streams.push(PeerStream { session, outbox });
        Some(session)
    }

    /// Feeds a stream's messages to the replica until the stream ends.
    async fn pump(&self, partition: PartitionId, peer: NodeId, session: Session, mut reader: FrameReader, side: Side) {
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

    /// Serves a peer's connection until it ends.
    pub(crate) async fn serve_peer(self, connection: Connection) {
        while let Some((writer, reader)) = connection.accept().await {
            let outbox = Outbox::start(&self.runtime, writer);
            glommio::spawn_local(self.clone().follow_stream(outbox, reader)).detach();
        }
    }

    /// Serves one accepted stream: the first frame must be ESTABLISH for a partition this core holds.
    async fn follow_stream(self, outbox: Outbox, mut reader: FrameReader) {
        let Ok(Some(frame)) = reader.next().await else { return };
        let establish = match self.first_frame(&frame) {
            Ok(establish) => establish,
            Err((status, message)) => {
                tracing::debug!(%status, %message, "refusing a replication stream");
                let error = ErrorReply::new(message);
                let _ = outbox.push(|out| FrameBuilder::append_error(out, &frame.header, status, &error));
                outbox.finish();
                return;
            }
        };
        let (partition, peer) = (establish.partition, establish.sender);
        let Some(session) = self.add_stream(partition, outbox) else { return };
        self.post(partition, Event::Received { peer, session, message: PeerMessage::Establish(Box::new(establish)) });
        self.settle();
        self.pump(partition, peer, session, reader, Side::Following).await;
    }

    fn first_frame(&self, frame: &Frame) -> Result<Establish, (Status, String)> {
        if frame.header.kind != MessageKind::ESTABLISH {
            return Err((
                Status::Malformed,
                format!("a replication stream begins with ESTABLISH, not {}", frame.header.kind),
            ));
        }
        let establish: Establish = frame.decode().map_err(|error| (Status::Malformed, error.to_string()))?;
        if self.shared.cluster().is_some_and(|cluster| cluster != establish.cluster) {
            return Err((Status::WrongCluster, format!("the primary belongs to cluster {}", establish.cluster)));
        }
        if establish.receiver != self.shared.node {
            let (meant, here) = (establish.receiver, self.shared.node);
            return Err((Status::StaleRoute, format!("the stream is meant for node {meant}, this is node {here}")));
        }
        let partition = establish.partition;
        let owner = owner_core(partition, self.shared.config.cores);
        if owner != self.id {
            return Err((Status::StaleRoute, format!("core {owner} owns partition {partition} on this node")));
        }
        let state = self.state.borrow();
        match state.partitions.get(&partition) {
            None if state.broken.contains_key(&partition) || state.missing.contains(&partition) => {
                Err((Status::Damaged, format!("the copy of partition {partition} on this node is unfit")))
            }
            None => Err((Status::NoSuchPartition, format!("no copy of partition {partition} on this node (yet)"))),
            Some(copy) => match &copy.problem {
                Some((status, message)) => Err((*status, message.clone())),
                None => Ok(establish),
            },
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
        MessageKind::REFUSE => {
            let refuse = frame.decode::<Refuse>().map_err(text)?;
            Ok(PeerMessage::Refuse { status: frame.header.status, refuse })
        }
        kind => Err(format!("{kind} has no place on a replication stream")),
    }
}
