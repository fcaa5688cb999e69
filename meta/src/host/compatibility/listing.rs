//! Administration that only looks: tables, nodes, the cluster. As the leader sees them.

use pegasus_gateway::ErrorName;
use pegasus_gateway::messages::admin::{
    AppInfo, AppStatus, ClusterInfoRequest, ClusterInfoResponse, ListAppsRequest, ListAppsResponse, ListNodesRequest,
    ListNodesResponse, MatchType, NodeState, NodeStatus,
};
use pegasus_gateway::thrift::{ErrorCode, RpcAddress, ThriftError};
use pegasus_wire::messages::control::{ClusterReply, NodeSummary, TableDescription, TableList};

use super::administration::{OK, Refused, app_info};
use super::{Call, Front};

impl Front {
    /// Lists the tables of a state whose names match.
    pub(super) async fn list_apps(&self, call: &mut Call<'_>) -> Result<ErrorName, ThriftError> {
        let request = call.argument()?;
        Ok(match self.settle(call, self.tables(&request).await) {
            Ok(list) => {
                let infos = list.tables.iter().map(described).collect();
                call.reply(ErrorName::Ok, &ListAppsResponse { err: OK, infos, hint_message: None })
            }
            Err(Refused { name, message }) => {
                let hint_message = Some(message.as_str());
                call.reply(name, &ListAppsResponse { err: ErrorCode(name.text()), infos: vec![], hint_message })
            }
        })
    }

    async fn tables(&self, request: &ListAppsRequest<'_>) -> Result<TableList, Refused> {
        self.check_administration()?;
        let pattern = request.app_name_pattern.unwrap_or_default();
        let match_type = match request.app_name_pattern {
            Some(_) => request.match_type.unwrap_or(MatchType::ALL),
            None => MatchType::ALL,
        };
        if !(MatchType::ALL.0..=MatchType::POSTFIX.0).contains(&match_type.0) {
            let rule = "names match exactly, anywhere, at their begin or at their end";
            return Err(Refused::invalid(format!("there is no match type {}: {rule}", match_type.0)));
        }
        let mut list = self.service.all_tables().await?;
        list.tables.retain(|one| {
            let info = app_info(&one.properties, &[], one.state);
            (request.status == AppStatus::INVALID || request.status == info.status)
                && matches(info.app_name, pattern, match_type)
        });
        Ok(list)
    }

    /// Lists the nodes of a state. A node that lost its address is not listed: it could not be told from others.
    pub(super) async fn list_nodes(&self, call: &mut Call<'_>) -> Result<ErrorName, ThriftError> {
        let request: ListNodesRequest = call.argument()?;
        Ok(match self.settle(call, self.cluster().await) {
            Ok(cluster) => {
                let all = request.status == NodeStatus::INVALID;
                let infos = cluster.nodes.iter().filter_map(node_state);
                let infos = infos.filter(|node| all || node.status == request.status).collect();
                call.reply(ErrorName::Ok, &ListNodesResponse { err: OK, infos })
            }
            Err(Refused { name, .. }) => {
                call.reply(name, &ListNodesResponse { err: ErrorCode(name.text()), infos: vec![] })
            }
        })
    }

    /// Tells of the cluster what Pegasus would, as far as there is such a thing here: no ZooKeeper, and no operations
    /// of balancing that could be counted.
    pub(super) async fn cluster_info(&self, call: &mut Call<'_>) -> Result<ErrorName, ThriftError> {
        let ClusterInfoRequest {} = call.argument()?;
        Ok(match self.settle(call, self.cluster().await) {
            Ok(cluster) => {
                let (keys, values): (Vec<&str>, Vec<String>) = describe(&cluster).into_iter().unzip();
                let values = values.iter().map(String::as_str).collect();
                call.reply(ErrorName::Ok, &ClusterInfoResponse { err: OK, keys, values })
            }
            Err(Refused { name, .. }) => {
                let err = ErrorCode(name.text());
                call.reply(name, &ClusterInfoResponse { err, ..ClusterInfoResponse::default() })
            }
        })
    }

    async fn cluster(&self) -> Result<ClusterReply, Refused> {
        self.check_administration()?;
        Ok(self.service.confirmed_cluster().await?)
    }
}

fn described(one: &TableDescription) -> AppInfo<'_> {
    app_info(&one.properties, &one.environment, one.state)
}

fn matches(name: &str, pattern: &str, match_type: MatchType) -> bool {
    match match_type {
        MatchType::EXACT => name == pattern,
        MatchType::ANYWHERE => name.contains(pattern),
        MatchType::PREFIX => name.starts_with(pattern),
        MatchType::POSTFIX => name.ends_with(pattern),
        _ => true,
    }
}

fn node_state(node: &NodeSummary) -> Option<NodeState> {
    let address = Some(node.info.address).filter(|address| !address.ip().is_unspecified())?;
    let status = if node.info.alive { NodeStatus::ALIVE } else { NodeStatus::UNALIVE };
    Some(NodeState { status, address: RpcAddress::from(address) })
}

fn describe(cluster: &ClusterReply) -> Vec<(&'static str, String)> {
    let addresses: Vec<String> = cluster.meta_addresses.iter().map(ToString::to_string).collect();
    let spread = |count: fn(&NodeSummary) -> u32| {
        let alive = cluster.nodes.iter().filter(|node| node.info.alive);
        deviation(&alive.map(|node| f64::from(count(node))).collect::<Vec<f64>>())
    };
    vec![
        ("meta_servers", addresses.join(",")),
        ("primary_meta_server", addresses.first().cloned().unwrap_or_default()),
        // Members that are lost are replaced, and nothing is moved for the sake of balance alone.
        ("meta_function_level", "steady".to_owned()),
        ("primary_replica_count_stddev", format!("{:.2}", spread(|node| node.primaries))),
        ("total_replica_count_stddev", format!("{:.2}", spread(|node| node.primaries + node.secondaries))),
        ("cluster_name", cluster.cluster.to_string()),
    ]
}

/// The standard deviation of all there are; 0 of nothing.
fn deviation(values: &[f64]) -> f64 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_pegasus_says() {
        let all = [MatchType::ALL, MatchType::EXACT, MatchType::ANYWHERE, MatchType::PREFIX, MatchType::POSTFIX];
        let found = |name: &str| all.map(|match_type| matches(name, "te", match_type));
        assert_eq!(found("te"), [true; 5]);
        assert_eq!(found("temp"), [true, false, true, true, false]);
        assert_eq!(found("state"), [true, false, true, false, true]);
        assert_eq!(found("items"), [true, false, true, false, false]);
        assert_eq!(found("x"), [true, false, false, false, false]);
    }

    #[test]
    fn equal_counts_do_not_deviate() {
        assert_eq!(deviation(&[]), 0.0);
        assert_eq!(deviation(&[3.0, 3.0, 3.0]), 0.0);
        assert_eq!(format!("{:.2}", deviation(&[1.0, 2.0, 2.0])), "0.47");
    }
}
