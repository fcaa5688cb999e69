//! Tables and the state of the cluster.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use pegasus_wire::config::check_table_name;
use pegasus_wire::limits::{MEMBERS_MAX, PARTITION_COUNT_MAX};
use pegasus_wire::messages::control::{
    ClusterReply, CreateTable, DiagnosePartitions, Diagnosis, ForceConfiguration, ListTables, ProposalReply,
    QueryCluster, QueryTable, TableList, TableReply,
};
use pegasus_wire::{
    Ballot, Configuration, Durability, FrameBuilder, MessageKind, NodeId, PartitionId, TableProperties,
};

use crate::client::{Client, deadline_in};
use crate::dispatch::{Target, append_probe};
use crate::error::Error;
use crate::retry::Effect;

/// Partitions probed at a time by [`Client::wait_until_serving`].
const PROBES_AT_ONCE: usize = 16;

/// A table to be made.
///
/// ```
/// let spec = pegasus_client::TableSpec::new("temp", 8);
/// assert_eq!(spec.replica_count, 3);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Its name: 1 to 128 letters, digits, `_`, `-`, `.`, `:`.
    pub name: String,
    /// How many partitions: a power of two, at most 4096.
    pub partition_count: u32,
    /// Members of each partition: 1 to 5, and no more than there are live nodes.
    pub replica_count: u8,
    /// When writes may be acknowledged.
    pub durability: Durability,
    /// Succeed if a table of this name with these properties exists.
    pub if_not_exists: bool,
}

impl TableSpec {
    /// Three members, `synced`, and an error if the table exists.
    pub fn new(name: impl Into<String>, partition_count: u32) -> TableSpec {
        TableSpec {
            name: name.into(),
            partition_count,
            replica_count: 3,
            durability: Durability::Synced,
            if_not_exists: false,
        }
    }

    fn validate(&self) -> Result<(), Error> {
        check_table_name(&self.name).map_err(Error::InvalidArgument)?;
        if !self.partition_count.is_power_of_two() || self.partition_count > PARTITION_COUNT_MAX {
            return Err(Error::InvalidArgument(format!(
                "the partition count must be a power of two from 1 to {PARTITION_COUNT_MAX} (partition_count_max); \
                 it is {}",
                self.partition_count
            )));
        }
        if self.replica_count == 0 || usize::from(self.replica_count) > MEMBERS_MAX {
            return Err(Error::InvalidArgument(format!(
                "the replica count must be 1 to {MEMBERS_MAX} (members_max); it is {}",
                self.replica_count
            )));
        }
        Ok(())
    }
}

/// What came of [`Client::force_configuration`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// Whether what was asked for is in force. Otherwise the ballot was another one.
    pub accepted: bool,
    /// What is in force.
    pub configuration: Configuration,
}

impl Client {
    /// Makes a table. Its partitions serve a little later: see [`Client::wait_until_serving`].
    ///
    /// With `if_not_exists` a lost answer is asked for again; without it, it is [`Error::Unknown`].
    pub async fn create_table(&self, spec: &TableSpec) -> Result<TableReply, Error> {
        spec.validate()?;
        let question = CreateTable {
            name: spec.name.clone(),
            partition_count: spec.partition_count,
            replica_count: spec.replica_count,
            durability: spec.durability,
            if_not_exists: spec.if_not_exists,
        };
        let effect = if spec.if_not_exists { Effect::Read } else { Effect::Write };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &question, &[]);
        let meta = &self.shared.meta;
        let frame = meta.call(MessageKind::CREATE_TABLE, effect, self.meta_deadline(), build).await?;
        frame.decode().map_err(Error::protocol)
    }

    /// Waits until every partition of a table answers a read, at most `within`.
    ///
    /// Each partition is asked for its first row, again and again with growing pauses; [`Error::Timeout`] names one
    /// that does not serve and why.
    pub async fn wait_until_serving(&self, name: &str, within: Duration) -> Result<(), Error> {
        let deadline = deadline_in(within);
        let core = self.table_core(name);
        let count = core.route(deadline).await?.table.partition_count;
        let probe = |index: u32| {
            let core = core.clone();
            async move {
                let target = Target::Index(index);
                let call = core.call(target, MessageKind::SCAN, Effect::Read, deadline, append_probe);
                call.await.map(|_| ())
            }
        };
        let mut probes = stream::iter((0..count).map(probe)).buffer_unordered(PROBES_AT_ONCE);
        while let Some(outcome) = probes.next().await {
            outcome?;
        }
        Ok(())
    }

    /// All tables, by number.
    pub async fn list_tables(&self) -> Result<Vec<TableProperties>, Error> {
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &ListTables, &[]);
        let meta = &self.shared.meta;
        let frame = meta.call(MessageKind::LIST_TABLES, Effect::Read, self.meta_deadline(), build).await?;
        Ok(frame.decode::<TableList>().map_err(Error::protocol)?.tables)
    }

    /// A table's properties, the configuration of each partition, and the nodes named there.
    pub async fn describe_table(&self, name: &str) -> Result<TableReply, Error> {
        let question = QueryTable { name: name.to_owned() };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &question, &[]);
        let meta = &self.shared.meta;
        let frame = meta.call(MessageKind::QUERY_TABLE, Effect::Read, self.meta_deadline(), build).await?;
        frame.decode().map_err(Error::protocol)
    }

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_table_is_refused_before_it_is_sent() {
        assert!(TableSpec::new("temp", 8).validate().is_ok());
        for (spec, word) in [
            (TableSpec::new("a b", 8), "table name"),
            (TableSpec::new("temp", 0), "partition_count_max"),
            (TableSpec::new("temp", 6), "partition_count_max"),
            (TableSpec::new("temp", 8192), "partition_count_max"),
            (TableSpec { replica_count: 0, ..TableSpec::new("temp", 8) }, "members_max"),
            (TableSpec { replica_count: 6, ..TableSpec::new("temp", 8) }, "members_max"),
        ] {
            let text = spec.validate().unwrap_err().to_string();
            assert!(text.contains(word), "{spec:?}: {text}");
        }
    }
}
