//! How nodes are called in what is printed: by address, or by identity if the address is not known.

use std::collections::HashMap;
use std::net::SocketAddr;

use pegasus_wire::{Configuration, NodeId, NodeInfo};

/// The addresses of nodes.
#[derive(Debug)]
pub struct NodeNames {
    addresses: HashMap<NodeId, SocketAddr>,
}

impl NodeNames {
    /// The names of these nodes.
    pub fn new<'a>(nodes: impl IntoIterator<Item = &'a NodeInfo>) -> NodeNames {
        // The address of a node that lost its own to another one is all zeros.
        let known = nodes.into_iter().filter(|node| !node.address.ip().is_unspecified());
        NodeNames { addresses: known.map(|node| (node.node, node.address)).collect() }
    }

    /// What a node is called.
    pub fn name(&self, node: NodeId) -> String {
        self.addresses.get(&node).map_or_else(|| format!("node {node}"), SocketAddr::to_string)
    }

    /// What the primary is called.
    pub fn primary(&self, configuration: &Configuration) -> String {
        configuration.primary.map_or_else(|| "none".into(), |node| self.name(node))
    }

    /// What the secondaries are called.
    pub fn secondaries(&self, configuration: &Configuration) -> Vec<String> {
        configuration.secondaries.iter().map(|&node| self.name(node)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_an_address_is_called_by_its_id() {
        let node = |number, address: &str| NodeInfo {
            node: NodeId(number),
            address: address.parse().expect("an address"),
            admin_address: address.parse().expect("an address"),
            cores: 1,
            alive: true,
        };
        let names = NodeNames::new(&[node(1, "127.0.0.1:34801"), node(2, "0.0.0.0:0")]);
        let called: Vec<String> = [1, 2, 3].map(|number| names.name(NodeId(number))).to_vec();
        assert_eq!(called, ["127.0.0.1:34801", "node 0000000000000002", "node 0000000000000003"]);
    }
}
