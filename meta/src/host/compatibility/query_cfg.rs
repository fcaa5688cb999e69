//! Where a table's partitions are: what every client asks first, and again whenever it was sent away.
//!
//! Every client dials `primary` as it is, so it must be the core that owns the partition on the primary's node. What
//! clients make of a partition without a primary's address (facts 2.8): Java and Python skip that partition and ask
//! again when it is used; Go drops the whole answer, so that one such partition would keep it from opening the table
//! and from learning where all the others went. An error for the whole table would do that to all of them. So there is
//! always an address: if the primary has none that the protocol can say (another node took it, or it is not IPv4), that
//! of another node stands in. It is not the primary and says so, with the error after which every client asks here
//! again.

use std::net::SocketAddr;

use pegasus_gateway::ErrorName;
use pegasus_gateway::messages::meta::{PartitionConfiguration, QueryCfgRequest, QueryCfgResponse};
use pegasus_gateway::thrift::{ErrorCode, Gpid, RpcAddress, ThriftError};
use pegasus_wire::messages::control::TableReply;
use pegasus_wire::{Configuration, NodeId, NodeInfo, PartitionId};

use super::names::error_name;
use super::{Call, Front};
use crate::core::{Refusal, query};
use crate::host::handlers::Failure;

/// A table's route with the nodes that may stand in for those it names.
struct Route {
    reply: TableReply,
    others: Vec<NodeInfo>,
}

impl Front {
    /// Answers as the leader sees it, or names the leader.
    pub(super) async fn query_cfg(&self, call: &mut Call<'_>) -> Result<ErrorName, ThriftError> {
        let request: QueryCfgRequest<'_> = call.argument()?;
        let response = match self.route(request.app_name).await {
            Ok(route) => {
                self.complain_of_addresses(&route.reply);
                route.response(&request.partition_indices)
            }
            Err(failure) => Err(failure),
        };
        Ok(match response {
            Ok(response) => call.reply(ErrorName::Ok, &response),
            Err(failure) => {
                let name = error_name(&failure, ErrorName::ObjectNotFound);
                call.reply(name, &refusal(name, failure.endpoint()))
            }
        })
    }

    async fn route(&self, name: &str) -> Result<Route, Failure> {
        self.service.check_running()?;
        self.service.group.confirm_lead().await?;
        let found = self.service.group.read(|state| {
            let heard = self.service.planner.heard(state);
            let reply = query::table_reply(state, state.find_table(name)?, &heard);
            let lost = |one: &Configuration| one.primary.and_then(|node| said(find(&reply.nodes, node)?)).is_none();
            let others = if reply.partitions.iter().any(lost) { query::nodes(state, &heard) } else { Vec::new() };
            Ok::<_, Refusal>(Route { reply, others })
        });
        Ok(found?)
    }

    fn complain_of_addresses(&self, reply: &TableReply) {
        let unsayable = |node: &&NodeInfo| said(node).is_none();
        if let Some(NodeInfo { node, address, .. }) = reply.nodes.iter().find(unsayable) {
            let table = &reply.table.name;
            self.quiet.address.warn(|| {
                format!(
                    "node {node}, a member of table {table}, is at {address}: the clients of the compatibility port \
                     reach IPv4 addresses only, and cannot use its copies"
                )
            });
        }
    }
}

impl Route {
    /// All partitions, or those asked for.
    fn response(&self, indices: &[i32]) -> Result<QueryCfgResponse<'static>, Failure> {
        let count = self.reply.partitions.len();
        let partitions = if indices.is_empty() {
            (0..count).map(|index| self.partition(index)).collect()
        } else {
            let asked = |&index: &i32| usize::try_from(index).ok().filter(|&index| index < count);
            let invalid = || Failure::new(pegasus_wire::Status::InvalidArgument, "no such partition");
            // Nobody needs one twice, and the answer may be no larger than that for all.
            let indices = if indices.len() <= count { indices } else { return Err(invalid()) };
            let asked: Option<Vec<usize>> = indices.iter().map(asked).collect();
            asked.ok_or_else(invalid)?.into_iter().map(|index| self.partition(index)).collect()
        };
        Ok(QueryCfgResponse {
            err: ErrorCode(ErrorName::Ok.text()),
            app_id: self.reply.table.table.0.cast_signed(),
            partition_count: count as i32,
            is_stateful: true,
            partitions,
        })
    }

    fn partition(&self, index: usize) -> PartitionConfiguration<'static> {
        let partition = PartitionId { table: self.reply.table.table, index: index as u32 };
        let configuration = &self.reply.partitions[index];
        let endpoint = |node: &NodeId| {
            let node = find(&self.reply.nodes, *node)?;
            said(node).map(|_| node.endpoint(partition))
        };
        let primary = configuration.primary.as_ref().and_then(endpoint);
        PartitionConfiguration {
            pid: Gpid::from(partition),
            ballot: configuration.ballot.0.max(1).cast_signed(),
            max_replica_count: i32::from(self.reply.table.replica_count),
            primary: address(primary.or_else(|| self.stand_in(partition, configuration))),
            secondaries: configuration.secondaries.iter().filter_map(endpoint).map(RpcAddress::from).collect(),
            ..PartitionConfiguration::default()
        }
    }

    /// The core that would own the partition on a node that is not its primary: a member if possible, as it may become
    /// the primary, and one that is alive if possible.
    fn stand_in(&self, partition: PartitionId, configuration: &Configuration) -> Option<SocketAddr> {
        let candidates = self.others.iter().filter(|node| said(node).is_some());
        let best = candidates.max_by_key(|node| (node.alive, configuration.contains(node.node)))?;
        Some(best.endpoint(partition))
    }
}

/// An answer without partitions, but for the one that names the leader.
fn refusal(name: ErrorName, leader: Option<SocketAddr>) -> QueryCfgResponse<'static> {
    let forward = |leader| PartitionConfiguration { primary: address(Some(leader)), ..Default::default() };
    let leader = leader.filter(|_| name == ErrorName::ForwardToOthers);
    QueryCfgResponse {
        err: ErrorCode(name.text()),
        partitions: leader.map(forward).into_iter().collect(),
        ..QueryCfgResponse::default()
    }
}

/// Nodes of a reply are in the order of their ids.
fn find(nodes: &[NodeInfo], node: NodeId) -> Option<&NodeInfo> {
    nodes.binary_search_by_key(&node, |info| info.node).ok().map(|index| &nodes[index])
}

/// The node's address, if the protocol can say it.
fn said(node: &NodeInfo) -> Option<RpcAddress> {
    Some(RpcAddress::from(node.address)).filter(|address| address.0.is_some())
}

fn address(address: Option<SocketAddr>) -> RpcAddress {
    address.map(RpcAddress::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use pegasus_wire::{Ballot, Durability, TableId, TableProperties};

    use super::*;

    fn node(id: u64, address: &str, alive: bool) -> NodeInfo {
        let address: SocketAddr = address.parse().unwrap();
        NodeInfo { node: NodeId(id), address, admin_address: address, cores: 1, alive }
    }

    /// A table of one partition, whose primary is node 1 and whose secondary is node 2.
    fn route(nodes: Vec<NodeInfo>, others: Vec<NodeInfo>) -> Route {
        let table = TableProperties {
            table: TableId(7),
            name: "temp".to_owned(),
            partition_count: 1,
            replica_count: 2,
            durability: Durability::Synced,
        };
        let configuration = Configuration { ballot: Ballot(9), primary: Some(NodeId(1)), secondaries: vec![NodeId(2)] };
        let reply = TableReply { table, environment: vec![], partitions: vec![configuration], nodes };
        Route { reply, others }
    }

    #[test]
    fn a_leader_elsewhere_is_named() {
        let leader: SocketAddr = "127.0.0.1:34602".parse().unwrap();
        let forward = refusal(ErrorName::ForwardToOthers, Some(leader));
        assert_eq!(forward.err, ErrorCode("ERR_FORWARD_TO_OTHERS"));
        assert_eq!(forward.partitions.len(), 1);
        assert_eq!(forward.partitions[0].primary, RpcAddress::from(leader));
        assert!(!forward.is_stateful, "Python takes a stateful answer for a good one");
        assert!(refusal(ErrorName::ServiceNotActive, Some(leader)).partitions.is_empty());
        assert!(refusal(ErrorName::ServiceNotActive, None).partitions.is_empty());
    }

    #[test]
    fn somebody_always_stands_in_for_a_primary_without_an_address() {
        let (gone, dead, alive) =
            (node(1, "[::1]:1", true), node(2, "127.0.0.1:2", false), node(3, "127.0.0.1:3", true));
        let primary = |route: &Route| route.partition(0).primary;
        let at = |port: u16| RpcAddress::from(SocketAddr::from(([127, 0, 0, 1], port)));
        let own = route(vec![node(1, "127.0.0.1:1", false), dead.clone()], vec![]);
        assert_eq!((primary(&own), own.partition(0).ballot), (at(1), 9), "its own address, even if it is not heard of");
        // A node that is alive goes before a member that is not.
        let all = vec![gone.clone(), dead.clone(), alive];
        assert_eq!(primary(&route(vec![gone.clone(), dead.clone()], all)), at(3));
        // A member goes before others that are as alive.
        let both = vec![gone.clone(), node(2, "127.0.0.1:2", true), node(3, "127.0.0.1:3", true)];
        assert_eq!(primary(&route(vec![gone.clone(), dead.clone()], both)), at(2));
        let lost = route(vec![dead.clone()], vec![dead]);
        assert_eq!(primary(&lost), at(2), "the primary's node has no address at all");
        assert_eq!(primary(&route(vec![gone.clone()], vec![gone])), RpcAddress(None), "nobody can be named");
    }
}
