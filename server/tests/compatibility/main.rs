//! Clients of Pegasus, byte by byte, against a real node.

mod client;
mod hostile;
mod operations;
mod scans;
#[path = "../support/mod.rs"]
mod support;

use support::{Process, Scene};

/// A node with one core that serves clients of Pegasus, with a table of one partition.
pub(crate) struct Stage {
    pub(crate) scene: Scene,
    pub(crate) node: Process,
    pub(crate) table: u32,
    _meta: Process,
}

impl Stage {
    pub(crate) async fn new(number: u16, partitions: u32) -> Stage {
        let scene = Scene::new(number);
        let meta = scene.start_meta();
        let config = scene.node_config("node", |config| {
            let mut compatibility = toml::Table::new();
            compatibility.insert("enabled".to_owned(), true.into());
            config.insert("compatibility".to_owned(), compatibility.into());
        });
        let node = scene.start_node(&config);
        let table = scene.make_table(partitions).await.table.table.0;
        Stage { scene, node, table, _meta: meta }
    }

    /// The value of a metric of the node.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, metrics) = self.scene.admin("/metrics");
        let line = metrics.lines().find(|line| line.contains(name) && !line.starts_with('#'));
        let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no metric {name} in\n{metrics}"))
    }
}
