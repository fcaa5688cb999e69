//! The state of the cluster and of its copies, and the last resort.

use std::net::SocketAddr;

use futures_util::stream::{self, StreamExt};
use pegasus_wire::messages::control::{
    ClusterReply, DiagnosePartitions, Diagnosis, ForceConfiguration, ProposalReply, QueryCluster,
};
use pegasus_wire::messages::data::{CopyReply, QueryCopy};
use pegasus_wire::{Ballot, Configuration, FrameBuilder, MessageKind, NodeId, NodeInfo, PartitionId};

use crate::client::{Client, deadline_in};
use crate::error::Error;
use crate::retry::{Effect, Verdict, judge};

/// Copies asked about at a time by [`Client::copies`].
const COPIES_AT_ONCE: usize = 16;

/// What came of [`Client::force_configuration`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// Whether what was asked for is in force. Otherwise the ballot was another one.
    pub accepted: bool,
    /// What is in force.
    pub configuration: Configuration,
}

/// One copy of a partition, as its node tells of it.
#[derive(Clone, Debug)]
pub struct CopyReport {
    /// The partition.
    pub partition: PartitionId,
    /// The node that holds the copy.
    pub node: NodeId,
    /// The core that was asked; `None` if the meta service knows no address of the node.
    pub address: Option<SocketAddr>,
    /// What it says, or why it says nothing.
    pub outcome: Result<CopyReply, Error>,
}

impl Client {
    /// Which partitions of a table, or of all tables, are not whole, why, and what they wait for.
    ///
    /// An answer that would be too large says of fewer: [`Diagnosis::examined`] tells how many were looked at.
    pub async fn diagnose_partitions(&self, table: Option<&str>) -> Result<Diagnosis, Error> {
        let question = DiagnosePartitions { table: table.map(str::to_owned) };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &question, &[]);
        let meta = &self.shared.meta;
        let frame = meta.call(MessageKind::DIAGNOSE_PARTITIONS, Effect::Read, self.meta_deadline(), build).await?;
        frame.decode().map_err(Error::protocol)
    }

    /// The last resort for a partition none of whose members will come back: makes `primary` its only member, if
    /// `expected_ballot` is the ballot in force.
    ///
    /// **Acknowledged writes that only the other members held are lost for ever**, also if these come back later. The
    /// caller has made sure that somebody accepts that.
    pub async fn force_configuration(
        &self,
        partition: PartitionId,
        expected_ballot: Ballot,
        primary: NodeId,
    ) -> Result<Forced, Error> {
        let request = ForceConfiguration { partition, expected_ballot, primary, accept_loss: true };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &request, &[]);
        // May happen twice: it is compared with the ballot, and what is in force already succeeds.
        let meta = &self.shared.meta;
        let frame = meta.call(MessageKind::FORCE_CONFIGURATION, Effect::Read, self.meta_deadline(), build).await?;
        let configuration = frame.decode::<ProposalReply>().map_err(Error::protocol)?.configuration;
        Ok(Forced { accepted: frame.header.status.is_ok(), configuration })
    }

    /// The cluster: its meta servers, nodes and tables.
    pub async fn cluster_status(&self) -> Result<ClusterReply, Error> {
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &QueryCluster, &[]);
        let meta = &self.shared.meta;
        let frame = meta.call(MessageKind::QUERY_CLUSTER, Effect::Read, self.meta_deadline(), build).await?;
        frame.decode().map_err(Error::protocol)
    }

    /// What every member of every partition of a table says of its copy: decrees, sizes, manual compaction. Sorted by
    /// partition, the primary first. A member that does not answer within [`crate::ClientOptions::attempt_timeout`] is
    /// reported so.
    ///
    /// ```no_run
    /// # async fn example(client: pegasus_client::Client) -> Result<(), pegasus_client::Error> {
    /// for copy in client.copies("temp").await? {
    ///     match copy.outcome {
    ///         Ok(copy_of) => println!("{} on {}: {} bytes", copy.partition, copy.node, copy_of.file_bytes),
    ///         Err(error) => println!("{} on {}: {error}", copy.partition, copy.node),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn copies(&self, table: &str) -> Result<Vec<CopyReport>, Error> {
        let description = self.describe_table(table).await?;
        let number = description.table.table;
        let nodes = &description.nodes;
        let mut members = Vec::new();
        for (index, configuration) in (0..).zip(&description.partitions) {
            let partition = PartitionId { table: number, index };
            members.extend(configuration.members().map(|node| {
                let known = nodes.iter().find(|info| info.node == node);
                (partition, node, known.map(|info: &NodeInfo| info.endpoint(partition)))
            }));
        }
        let reports = members.into_iter().map(|(partition, node, address)| async move {
            let outcome = match address {
                Some(address) => self.copy_at(partition, address).await,
                None => Err(Error::Timeout("the meta service knows no address of the node".into())),
            };
            CopyReport { partition, node, address, outcome }
        });
        Ok(stream::iter(reports).buffered(COPIES_AT_ONCE).collect().await)
    }

    async fn copy_at(&self, partition: PartitionId, address: SocketAddr) -> Result<CopyReply, Error> {
        let channel = self.shared.nodes.channel(address);
        let deadline = deadline_in(self.shared.options.attempt_timeout);
        let question = QueryCopy { partition };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &question, &[]);
        match judge(channel.call(MessageKind::QUERY_COPY, deadline, build).await, Effect::Read) {
            Verdict::Done(frame) => frame.decode().map_err(Error::protocol),
            Verdict::Fail(error) => Err(error),
            Verdict::Again(again) => Err(match again.refusal {
                Some(status) => Error::Refused { status, message: again.reason },
                None => Error::Timeout(format!("{address}: {}", again.reason)),
            }),
        }
    }
}
