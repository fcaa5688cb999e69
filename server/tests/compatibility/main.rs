//! Clients of Pegasus, byte by byte, against a real node.
#![allow(clippy::unwrap_used)]

mod client;
mod environments;
mod hostile;
mod operations;
mod scans;
#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::time::Instant;

use pegasus_rpc::{Alpn, Endpoint, Role, Runtime};
use pegasus_wire::messages::control::{ChangeEnvironment, EnvironmentEntry};
use pegasus_wire::{FrameBuilder, MessageKind, Status};
use support::{Caller, PATIENCE, Process, Scene};

/// A node with one core that serves clients of Pegasus, with a table of one partition.
pub(crate) struct Stage {
    pub(crate) scene: Scene,
    pub(crate) node: Process,
    pub(crate) table: u32,
    pub(crate) config: PathBuf,
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
        Stage { scene, node, table, config, _meta: meta }
    }

    /// Gives the table these settings and no others, and waits until `holds` shows that they are in effect.
    pub(crate) async fn set_environment(&self, settings: &[(&str, &str)], mut holds: impl FnMut() -> bool) {
        let endpoint = Endpoint::client(Runtime::tokio(), self.scene.identity(Role::Client)).expect("an endpoint");
        let meta =
            Caller::connect(&endpoint, self.scene.meta_address(), Role::Meta, Alpn::Meta).await.expect("the meta");
        let set =
            settings.iter().map(|(key, value)| EnvironmentEntry { key: (*key).to_owned(), value: (*value).to_owned() });
        let change =
            ChangeEnvironment { name: "table".to_owned(), clear: true, delete: Vec::new(), set: set.collect() };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &change, &[]);
        let answer = meta.call(MessageKind::CHANGE_ENVIRONMENT, build).await;
        assert_eq!(answer.header.status, Status::Ok, "{}", support::reason(&answer));
        let deadline = Instant::now() + PATIENCE;
        support::eventually(
            "the settings in effect",
            deadline,
            async || {
                if holds() { Ok(()) } else { Err(String::new()) }
            },
        )
        .await;
    }

    /// The value of a metric of the node.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, metrics) = self.scene.admin("/metrics");
        let line = metrics.lines().find(|line| line.contains(name) && !line.starts_with('#'));
        let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no metric {name} in\n{metrics}"))
    }
}
