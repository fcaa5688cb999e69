//! Streams that other nodes open to this core. The first frame says what a stream is for:
//!
//! ```text
//! ESTABLISH         a replication stream of one partition: this node is a member of it, or is to become a learner
//! BEACON            a stream of calls that renew leases
//! FETCH_CHECKPOINT  a learner wants the table of a partition that this node leads
//! ```
//!
//! Everybody here has a certificate of the replica role; what they say is checked all the same.

use std::collections::BTreeSet;

use pegasus_replication::{Event, PeerMessage};
use pegasus_rpc::{Connection, FrameReader, FrameWriter, Outbox};
use pegasus_wire::config::check_table_name;
use pegasus_wire::limits::MEMBERS_MAX;
use pegasus_wire::messages::ErrorReply;
use pegasus_wire::messages::peer::Establish;
use pegasus_wire::{Ballot, ClusterId, Frame, FrameBuilder, MessageKind, NodeId, PartitionId, Status, owner_core};

use super::Core;
use super::streams::Side;

impl Core {
    /// Serves a peer's connection until it ends.
    pub(crate) async fn serve_peer(self, connection: Connection) {
        while let Some((writer, reader)) = connection.accept().await {
            glommio::spawn_local(self.clone().serve_peer_stream(writer, reader)).detach();
        }
    }

    async fn serve_peer_stream(self, writer: FrameWriter, mut reader: FrameReader) {
        let Ok(Some(frame)) = reader.next().await else { return };
        if frame.header.kind == MessageKind::BEACON {
            writer.go_first();
        }
        let outbox = Outbox::start(&self.runtime, writer);
        match frame.header.kind {
            MessageKind::ESTABLISH => self.follow_stream(&frame, outbox, reader).await,
            MessageKind::BEACON => self.hear_beacons(frame, outbox, reader).await,
            MessageKind::FETCH_CHECKPOINT => self.serve_checkpoint(&frame, outbox, reader).await,
            kind => {
                let message =
                    format!("a stream between nodes begins with ESTABLISH, BEACON or FETCH_CHECKPOINT, not {kind}");
                refuse(&frame, &outbox, Status::Malformed, message);
            }
        }
    }

    /// Serves a replication stream as a member or learner.
    async fn follow_stream(self, frame: &Frame, outbox: Outbox, reader: FrameReader) {
        let establish = match self.admit_establish(frame).await {
            Ok(establish) => establish,
            Err((status, message)) => return refuse(frame, &outbox, status, message),
        };
        let (partition, peer) = (establish.partition, establish.sender);
        let Some(session) = self.add_stream(partition, outbox) else { return };
        self.post(partition, Event::Received { peer, session, message: PeerMessage::Establish(Box::new(establish)) });
        self.settle();
        self.pump(partition, peer, session, reader, Side::Following).await;
    }

    /// Checks an ESTABLISH and sees to it that there is a copy to hear it.
    async fn admit_establish(&self, frame: &Frame) -> Result<Establish, (Status, String)> {
        let establish: Establish = frame.decode().map_err(|error| (Status::Malformed, error.to_string()))?;
        self.check_peer(establish.cluster, establish.sender, establish.receiver)?;
        self.check_owner(establish.partition)?;
        check_shape(&establish).map_err(|message| (Status::InvalidArgument, message))?;
        if establish.configuration.contains(self.shared.node) {
            self.find_member_copy(&establish)?;
        } else {
            self.find_learner_copy(&establish).await?;
        }
        Ok(establish)
    }

    /// Refuses strangers, and what is meant for another node.
    pub(crate) fn check_peer(
        &self,
        cluster: ClusterId,
        sender: NodeId,
        receiver: NodeId,
    ) -> Result<(), (Status, String)> {
        let here = self.shared.node;
        if self.shared.cluster().is_some_and(|own| own != cluster) {
            return Err((Status::WrongCluster, format!("node {sender} belongs to cluster {cluster}")));
        }
        if receiver != here {
            return Err((Status::StaleRoute, format!("the stream is meant for node {receiver}, this is node {here}")));
        }
        if sender == here {
            return Err((Status::InvalidArgument, format!("node {sender} speaks to itself")));
        }
        Ok(())
    }

    /// Refuses partitions of other cores.
    pub(crate) fn check_owner(&self, partition: PartitionId) -> Result<(), (Status, String)> {
        let owner = owner_core(partition, self.shared.config.cores);
        if owner == self.id {
            return Ok(());
        }
        Err((Status::StaleRoute, format!("core {owner} owns partition {partition} on this node")))
    }

    /// A member has its copy, or the primary must do without it.
    fn find_member_copy(&self, establish: &Establish) -> Result<(), (Status, String)> {
        let state = self.state.borrow();
        let partition = establish.partition;
        if let Some(copy) = state.partitions.get(&partition) {
            return match &copy.problem {
                Some((status, message)) => Err((*status, message.clone())),
                None => Ok(()),
            };
        }
        if let Some(doing) = state.opening.get(&partition) {
            return Err((Status::Busy, format!("the copy of partition {partition} on this node {doing}")));
        }
        if let Some(broken) = state.broken.get(&partition) {
            return Err(broken.problem.clone());
        }
        // Under ballot 1 copies are made; whoever is a member under a higher one had a copy.
        if establish.configuration.ballot == Ballot::ASSIGNMENT {
            return Err((Status::NoSuchPartition, format!("no copy of partition {partition} on this node (yet)")));
        }
        Err((Status::Damaged, format!("this node is a member of partition {partition}, but its copy is gone")))
    }
}

/// What a descriptor could not hold, or what makes no sense for any copy.
fn check_shape(establish: &Establish) -> Result<(), String> {
    let Establish { partition, table, configuration, sender, .. } = establish;
    check_table_name(&table.name)?;
    if table.table != partition.table || partition.index >= table.partition_count {
        return Err(format!("partition {partition} is none of table {} ({})", table.table, table.name));
    }
    let members: BTreeSet<NodeId> = configuration.members().collect();
    if members.len() != configuration.members().count() || members.len() > MEMBERS_MAX {
        return Err(format!("a configuration has at most {MEMBERS_MAX} members, each once"));
    }
    if configuration.primary != Some(*sender) {
        return Err(format!("node {sender} is not the primary of its configuration"));
    }
    Ok(())
}

/// Answers the first frame of a stream with an error and ends the stream.
pub(crate) fn refuse(frame: &Frame, outbox: &Outbox, status: Status, message: String) {
    tracing::debug!(kind = %frame.header.kind, %status, %message, "refusing a stream of a peer");
    let error = ErrorReply::new(message);
    // The stream may be gone already.
    let _ = outbox.push(|out| FrameBuilder::append_error(out, &frame.header, status, &error));
    outbox.finish();
}
