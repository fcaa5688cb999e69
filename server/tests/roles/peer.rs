//! Another node of the cluster, played by the test: it leads or follows partitions of the real node as the test says.

use std::net::SocketAddr;

use bytes::Bytes;
use pegasus_rpc::{Alpn, Connection, Endpoint, EndpointOptions, FrameReader, FrameWriter, Outbox, Role, Runtime};
use pegasus_wire::messages::peer::{
    Acknowledge, Beacon, BeaconAnswer, BeaconEntry, CommitPoint, Establish, Established, Prepare, TakeCheckpoint,
};
use pegasus_wire::{
    Ballot, Configuration, Decree, Frame, FrameBuilder, FrameHeader, MessageKind, Mutation, MutationKind, NodeId,
    NodeInfo, PartitionId, Status,
};
use tokio::sync::mpsc;

use super::meta::PlayedMeta;
use super::{CLUSTER, table};
use crate::support::{PATIENCE, Scene};

/// A stream, with the first frame that came on it.
pub(crate) struct Incoming {
    pub(crate) first: Frame,
    pub(crate) outbox: Outbox,
    pub(crate) reader: FrameReader,
    /// Alive, so that the stream is.
    pub(crate) connection: Connection,
}

/// A played node.
pub(crate) struct PlayedNode {
    pub(crate) node: NodeId,
    endpoint: Endpoint,
    incoming: mpsc::UnboundedReceiver<Incoming>,
}

impl PlayedNode {
    /// Listens on a port of the scene and is known to the meta service.
    pub(crate) fn start(scene: &Scene, meta: &PlayedMeta, port: u16) -> PlayedNode {
        let (node, address) = (NodeId(0x1000 + u64::from(port)), scene.address(port));
        let options = EndpointOptions { cluster: Some(CLUSTER), accepts: &[Alpn::Peer] };
        let endpoint =
            Endpoint::bind(Runtime::tokio(), address, scene.identity(Role::Replica), options).expect("a port");
        let info = NodeInfo { node, address, admin_address: address, cores: 1, alive: true };
        meta.change(|state| state.nodes.insert(node, info));
        let (heard, incoming) = mpsc::unbounded_channel();
        tokio::spawn(accept_all(endpoint.clone(), heard));
        PlayedNode { node, endpoint, incoming }
    }

    /// The next stream that the real node opened to this one.
    pub(crate) async fn accept(&mut self, kind: MessageKind) -> Incoming {
        let next = async {
            loop {
                let incoming = self.incoming.recv().await.expect("the node listens");
                if incoming.first.header.kind == kind {
                    return incoming;
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.unwrap_or_else(|_| panic!("waited for a stream of {kind}"))
    }

    /// The next stream, whatever it is for; never, if none comes.
    pub(crate) async fn next(&mut self) -> Incoming {
        self.incoming.recv().await.expect("the node listens")
    }

    /// Opens a stream to the real node.
    pub(crate) async fn open(&self, address: SocketAddr) -> PeerStream {
        let connection = self.endpoint.connect(address, Role::Replica, Alpn::Peer).await.expect("the node listens");
        let (writer, reader) = connection.open().await.expect("a stream");
        PeerStream { writer, reader, connection }
    }

    /// The first frame of a replication stream led by this node.
    pub(crate) fn establish(
        &self,
        partition: PartitionId,
        receiver: NodeId,
        ballot: u64,
        secondaries: &[NodeId],
        last: u64,
    ) -> Establish {
        Establish {
            cluster: CLUSTER,
            partition,
            sender: self.node,
            receiver,
            table: table(),
            configuration: Configuration {
                ballot: Ballot(ballot),
                primary: Some(self.node),
                secondaries: secondaries.to_vec(),
            },
            last_decree: Decree(last),
            committed: Decree(last),
        }
    }

    /// A beacon of this node with one entry.
    pub(crate) fn beacon(&self, partition: PartitionId, receiver: NodeId, ballot: u64, committed: u64) -> Beacon {
        let entries = vec![BeaconEntry { partition, ballot: Ballot(ballot), committed: Decree(committed) }];
        Beacon { cluster: CLUSTER, sender: self.node, receiver, entries }
    }
}

async fn accept_all(endpoint: Endpoint, heard: mpsc::UnboundedSender<Incoming>) {
    while let Some(connection) = endpoint.accept().await {
        let heard = heard.clone();
        tokio::spawn(async move {
            while let Some((writer, mut reader)) = connection.accept().await {
                let (heard, connection) = (heard.clone(), connection.clone());
                tokio::spawn(async move {
                    if let Ok(Some(first)) = reader.next().await {
                        let outbox = Outbox::start(&Runtime::tokio(), writer);
                        // The test may be over.
                        let _ = heard.send(Incoming { first, outbox, reader, connection });
                    }
                });
            }
        });
    }
}

/// A stream to the real node.
pub(crate) struct PeerStream {
    writer: FrameWriter,
    reader: FrameReader,
    connection: Connection,
}

impl PeerStream {
    /// Sends one frame.
    pub(crate) async fn send(&mut self, bytes: Vec<u8>) {
        self.writer.write(&bytes).await.expect("the stream is open");
    }

    /// The next frame; `None` when the node has ended the stream.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let next = tokio::time::timeout(PATIENCE, self.reader.next()).await;
        next.expect("waited for a frame").expect("frames are whole")
    }

    pub(crate) async fn ask(&mut self, bytes: Vec<u8>) -> Frame {
        self.send(bytes).await;
        self.next().await.expect("an answer")
    }

    /// Establishes; gives what the node needs next.
    pub(crate) async fn establish(&mut self, establish: &Establish) -> Established {
        let answer = self.ask(frame(MessageKind::ESTABLISH, establish)).await;
        assert_eq!(answer.header.status, Status::Ok, "{:?}", answer.error());
        assert_eq!(answer.header.kind, MessageKind::ESTABLISH, "{:?}", answer.header);
        answer.decode().expect("an answer to ESTABLISH")
    }

    /// Prepares an empty mutation.
    pub(crate) async fn prepare(&mut self, ballot: u64, decree: u64, committed: u64) {
        let (ballot, decree, kind) = (Ballot(ballot), Decree(decree), MutationKind::Empty);
        let mutation = Mutation { ballot, decree, timestamp_micros: decree.0, kind, payload: Bytes::new() };
        self.prepare_mutation(&mutation, committed).await;
    }

    /// Prepares a mutation.
    pub(crate) async fn prepare_mutation(&mut self, mutation: &Mutation, committed: u64) {
        let &Mutation { ballot, decree, timestamp_micros, kind, ref payload } = mutation;
        let committed = Decree(committed);
        let prepare = Prepare { ballot, decree, committed, timestamp_micros, mutation_kind: kind as u8 };
        let mut bytes = Vec::new();
        FrameBuilder::append(&mut bytes, FrameHeader::request(MessageKind::PREPARE, 1, 1000), &prepare, payload);
        self.send(bytes).await;
    }

    /// Waits until the node has logged up to a decree.
    pub(crate) async fn acknowledged(&mut self, decree: u64) {
        loop {
            let frame = self.next().await.expect("an acknowledgement");
            assert_eq!(frame.header.kind, MessageKind::ACKNOWLEDGE, "{:?}", frame.header);
            let acknowledge: Acknowledge = frame.decode().expect("an acknowledgement");
            if acknowledge.logged >= Decree(decree) {
                return;
            }
        }
    }

    pub(crate) async fn commit(&mut self, ballot: u64, committed: u64) {
        let point = CommitPoint { ballot: Ballot(ballot), committed: Decree(committed) };
        self.send(frame(MessageKind::COMMIT_POINT, &point)).await;
    }

    pub(crate) async fn take_checkpoint(&mut self, ballot: u64, committed: u64) {
        let take = TakeCheckpoint { ballot: Ballot(ballot), committed: Decree(committed) };
        self.send(frame(MessageKind::TAKE_CHECKPOINT, &take)).await;
    }

    /// Sends a beacon; true if its only entry is granted.
    pub(crate) async fn beacon(&mut self, beacon: &Beacon) -> bool {
        let answer = self.ask(frame(MessageKind::BEACON, beacon)).await;
        assert_eq!(answer.header.status, Status::Ok, "{:?}", answer.error());
        let answer: BeaconAnswer = answer.decode().expect("an answer to BEACON");
        assert!(answer.refused.is_empty() || answer.refused == [0], "{answer:?}");
        answer.refused.is_empty()
    }

    /// Waits until the node has ended the stream.
    pub(crate) async fn ended(&mut self) {
        let end = async { while matches!(self.reader.next().await, Ok(Some(_))) {} };
        tokio::time::timeout(PATIENCE, end).await.expect("waited for the end of a stream");
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// The bytes of a request.
pub(crate) fn frame<T>(kind: MessageKind, body: &T) -> Vec<u8>
where
    T: for<'a> rkyv::Serialize<
            rkyv::api::high::HighSerializer<
                &'a mut Vec<u8>,
                rkyv::ser::allocator::ArenaHandle<'a>,
                rkyv::rancor::Error,
            >,
        >,
{
    let mut bytes = Vec::new();
    FrameBuilder::append(&mut bytes, FrameHeader::request(kind, 1, 1000), body, &[]);
    bytes
}
