//! Where the partitions of a table are, as the meta servers said.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use pegasus_gateway::limits::LIST_ENTRIES_MAX;
use pegasus_gateway::messages::meta::QueryCfgResponse;

use crate::node::Node;

/// A table's number and the primary of each partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// The table's number.
    pub(crate) app_id: i32,
    /// By index; `None` for a partition that nobody serves now.
    pub(crate) primaries: Vec<Option<SocketAddr>>,
}

impl Configuration {
    /// Reads an answer without an error. An error says what cannot be.
    pub(crate) fn read(answer: &QueryCfgResponse<'_>) -> Result<Configuration, String> {
        let stated = answer.partition_count;
        let count = usize::try_from(stated).ok().filter(|count| (1..=LIST_ENTRIES_MAX).contains(count));
        let count = count.ok_or_else(|| format!("a table of {stated} partitions"))?;
        if answer.partitions.len() != count {
            return Err(format!("{} of {count} partitions were told", answer.partitions.len()));
        }
        let mut told: Vec<Option<(i64, Option<SocketAddr>)>> = vec![None; count];
        for partition in &answer.partitions {
            let index = partition.pid.partition_index;
            let place = usize::try_from(index).ok().and_then(|index| told.get_mut(index));
            let place = place.ok_or_else(|| format!("partition {index} of {count}"))?;
            if place.replace((partition.ballot, partition.primary.0.map(SocketAddr::V4))).is_some() {
                return Err(format!("partition {index} was told twice"));
            }
        }
        // All are there: as many as there are places, and none twice.
        let told: Vec<(i64, Option<SocketAddr>)> = told.into_iter().flatten().collect();
        let primary = |index: usize| match told[index] {
            // The child of a split that is not ready: its rows are still with the parent.
            (..0, _) if index >= count / 2 => told[index - count / 2].1,
            (_, primary) => primary,
        };
        Ok(Configuration { app_id: answer.app_id, primaries: (0..count).map(primary).collect() })
    }
}

/// A configuration with connections.
pub(crate) struct Route {
    /// The table's number.
    pub(crate) app_id: i32,
    /// By index of the partition.
    primaries: Vec<Option<Arc<Node>>>,
}

impl Route {
    /// Connections of the route before are kept where the address is the same.
    pub(crate) fn new(configuration: &Configuration, before: Option<&Route>, connections: usize) -> Route {
        let known = before.into_iter().flat_map(|before| before.primaries.iter().flatten());
        let mut nodes: HashMap<SocketAddr, Arc<Node>> = known.map(|node| (node.address(), node.clone())).collect();
        let mut node = |address: SocketAddr| {
            nodes.entry(address).or_insert_with(|| Arc::new(Node::new(address, connections))).clone()
        };
        let primaries = configuration.primaries.iter().map(|primary| primary.map(&mut node)).collect();
        Route { app_id: configuration.app_id, primaries }
    }

    /// Number of partitions; above zero.
    pub(crate) fn partition_count(&self) -> u32 {
        self.primaries.len() as u32
    }

    /// The primary of a partition, which must exist; `None` if nobody serves it.
    pub(crate) fn primary(&self, index: u32) -> Option<&Arc<Node>> {
        self.primaries.get(index as usize).and_then(Option::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use pegasus_gateway::messages::meta::PartitionConfiguration;
    use pegasus_gateway::thrift::{Gpid, RpcAddress};

    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn answer(partitions: &[(i32, i64, u16)]) -> QueryCfgResponse<'static> {
        let configuration = |&(index, ballot, port): &(i32, i64, u16)| PartitionConfiguration {
            pid: Gpid { app_id: 3, partition_index: index },
            ballot,
            primary: if port == 0 { RpcAddress(None) } else { address(port).into() },
            ..PartitionConfiguration::default()
        };
        let partitions: Vec<_> = partitions.iter().map(configuration).collect();
        QueryCfgResponse { app_id: 3, partition_count: partitions.len() as i32, partitions, ..Default::default() }
    }

    #[test]
    fn partitions_come_in_any_order_and_may_have_no_primary() {
        let read = Configuration::read(&answer(&[(1, 1, 7), (0, 1, 0), (2, 5, 8), (3, 1, 7)])).unwrap();
        assert_eq!(read.app_id, 3);
        assert_eq!(read.primaries, [None, Some(address(7)), Some(address(8)), Some(address(7))]);
    }

    #[test]
    fn an_unready_child_is_read_at_its_parent() {
        let read = Configuration::read(&answer(&[(0, 4, 7), (1, 4, 8), (2, -1, 0), (3, -1, 9)])).unwrap();
        assert_eq!(read.primaries, [7, 8, 7, 8].map(|port| Some(address(port))));
        // What cannot be a child is left as it is told.
        assert_eq!(Configuration::read(&answer(&[(0, -1, 7), (1, 1, 8)])).unwrap().primaries[0], Some(address(7)));
    }

    #[test]
    fn impossible_answers_are_refused() {
        let refused = |answer: &QueryCfgResponse<'_>| Configuration::read(answer).unwrap_err();
        assert!(refused(&answer(&[])).contains("0 partitions"));
        assert!(refused(&answer(&[(0, 1, 7), (0, 1, 7)])).contains("twice"));
        assert!(refused(&answer(&[(0, 1, 7), (2, 1, 7)])).contains("partition 2 of 2"));
        assert!(refused(&answer(&[(0, 1, 7), (-1, 1, 7)])).contains("partition -1"));
        for stated in [-1, 2, i32::MAX] {
            let answer = QueryCfgResponse { partition_count: stated, ..answer(&[(0, 1, 7)]) };
            refused(&answer);
        }
    }

    #[test]
    fn connections_outlive_a_change_elsewhere() {
        let configuration = |ports: &[u16]| Configuration {
            app_id: 1,
            primaries: ports.iter().map(|&port| Some(address(port))).collect(),
        };
        let before = Route::new(&configuration(&[7, 8]), None, 1);
        let after = Route::new(&configuration(&[7, 9]), Some(&before), 1);
        assert!(Arc::ptr_eq(before.primary(0).unwrap(), after.primary(0).unwrap()));
        assert_eq!(after.primary(1).unwrap().address(), address(9));
        assert_eq!((after.partition_count(), after.primary(2).is_none()), (2, true));
    }
}
