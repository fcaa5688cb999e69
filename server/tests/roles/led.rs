//! A node that leads two partitions, with a secondary that the test plays: what is committed when is the test's to say.

use pegasus_wire::hash::partition_index;
use pegasus_wire::messages::control::{EnvironmentEntry, TableDescription, TableState};
use pegasus_wire::messages::data::{ArchivedGetReply, Get, RowOperation};
use pegasus_wire::{
    Ballot, Configuration, FrameBuilder, MessageKind, NodeId, PartitionId, Status, TableId, TableProperties,
};

use super::follower::Follower;
use super::meta::PlayedMeta;
use super::peer::PlayedNode;
use super::{eventually, partition, table};
use crate::support::{Caller, Process, Scene};

/// The partition that tests work in.
pub(crate) const ID: PartitionId = PartitionId { table: TableId(1), index: 0 };

/// The node, the meta service and the secondary.
pub(crate) struct Led {
    // First, so that it ends, and says what it logged, before the directory goes.
    pub(crate) process: Process,
    pub(crate) scene: Scene,
    pub(crate) meta: PlayedMeta,
    pub(crate) node: NodeId,
    pub(crate) follower: Follower,
    pub(crate) caller: Caller,
}

impl Led {
    pub(crate) async fn new(number: u16) -> Led {
        Led::with(number, |_| ()).await
    }

    /// With another configuration of the node.
    pub(crate) async fn with(number: u16, change: impl FnOnce(&mut toml::Table)) -> Led {
        let scene = Scene::new(number);
        let meta = PlayedMeta::start(&scene);
        let config = scene.node_config("node", |config| {
            change(config);
            // A test may hold acknowledgements back for as long as it likes.
            let patience = ("prepare_timeout_ms".to_owned(), toml::Value::from(60_000));
            config.insert("replication".to_owned(), toml::Table::from_iter([patience]).into());
        });
        let process = scene.start_node(&config);
        let node = meta.wait_for_node(&scene).await;
        let follower = Follower::start(PlayedNode::start(&scene, &meta, 8));
        let caller = scene.caller().await;
        let led = Led { process, scene, meta, node, follower, caller };
        led.lead(partition(0));
        led.lead(partition(1));
        led.serving().await;
        led
    }

    /// Has the node lead a partition.
    pub(crate) fn lead(&self, partition: PartitionId) {
        let secondaries = vec![self.follower.node];
        self.meta.assign(partition, Configuration { ballot: Ballot(1), primary: Some(self.node), secondaries });
    }

    /// A partition of another table, led by the same core.
    pub(crate) async fn other_table(&self, settings: &[(&str, &str)]) -> PartitionId {
        let id = PartitionId::new(2, 0);
        let properties = TableProperties { table: TableId(2), name: "other".into(), partition_count: 1, ..table() };
        let environment = entries(settings);
        let described = TableDescription { properties, environment, state: TableState::Available };
        self.meta.change(|state| state.others.push(described));
        self.lead(id);
        eventually("the other table to serve", || async {
            (self.caller.set(id, b"k", b"v").await.header.status == Status::Ok).then_some(())
        })
        .await;
        id
    }

    /// Kills the node, starts it again, and waits until both partitions take writes.
    pub(crate) async fn restart(self) -> Led {
        let Led { process, scene, meta, node, follower, caller } = self;
        drop(caller);
        process.kill();
        let process = scene.start_node(&scene.path("node.toml"));
        let caller = scene.caller().await;
        let led = Led { process, scene, meta, node, follower, caller };
        led.serving().await;
        led
    }

    /// Waits until both partitions take writes.
    pub(crate) async fn serving(&self) {
        for index in [0, 1] {
            let key = key_of(index, 0);
            let delete = [RowOperation::Delete { sort_key: b"nothing" }];
            eventually("a write to succeed", || async {
                let written = self.caller.write(partition(index), &key, &delete).await;
                (written.header.status == Status::Ok).then_some(())
            })
            .await;
        }
    }

    /// Gives the table an environment, and waits until `shows` says that it is in force.
    pub(crate) async fn set_environment(&self, settings: &[(&str, &str)], shows: impl AsyncFn() -> bool) {
        self.meta.change(|state| state.environment = entries(settings));
        eventually("the environment to be in force", || async { shows().await.then_some(()) }).await;
    }

    /// Another node leads; this one follows.
    pub(crate) fn lose_role(&self) {
        let configuration = Configuration {
            ballot: Ballot(self.ballot() + 1),
            primary: Some(self.follower.node),
            secondaries: vec![self.node],
        };
        self.meta.assign(ID, configuration);
    }

    fn ballot(&self) -> u64 {
        self.meta.change(|state| state.configurations[&ID].ballot.0)
    }

    /// Seconds that a row has left; `None` if there is none.
    pub(crate) async fn ttl(&self, hash_key: &[u8], sort_key: &[u8]) -> Option<i64> {
        let get = Get { partition: ID, hash_key, sort_key, no_value: true };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &get, &[]);
        let got = self.caller.call(MessageKind::GET, build).await;
        (got.header.status == Status::Ok)
            .then(|| got.body::<ArchivedGetReply>().expect("a ttl").ttl_seconds.to_native())
    }

    /// The value of a row; `None` if there is none.
    pub(crate) async fn value(&self, hash_key: &[u8], sort_key: &[u8]) -> Option<Vec<u8>> {
        let got = self.caller.get(ID, hash_key, sort_key).await;
        (got.header.status == Status::Ok).then(|| got.attachment.to_vec())
    }

    /// What a core counts or measures.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, metrics) = self.scene.admin("/metrics");
        let of_name = |line: &&str| line.split([' ', '{']).next().is_some_and(|of| of.ends_with(name));
        let line = metrics.lines().filter(|line| !line.starts_with('#')).find(of_name);
        let line = line.unwrap_or_else(|| panic!("there is no {name} in {metrics}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
    }

    pub(crate) fn finish(self) {
        let log = self.process.log();
        assert!(!log.contains("panick"), "{log}");
        drop(self.caller);
        self.process.stop();
    }
}

fn entries(settings: &[(&str, &str)]) -> Vec<EnvironmentEntry> {
    let entry = |&(key, value): &(&str, &str)| EnvironmentEntry { key: key.to_owned(), value: value.to_owned() };
    settings.iter().map(entry).collect()
}

/// The n-th hash key that belongs to a partition of the table.
pub(crate) fn key_of(index: u32, n: usize) -> Vec<u8> {
    let keys = (0..).map(|number: u32| format!("hash{number}").into_bytes());
    let mut of_partition = keys.filter(|key| partition_index(key, b"", table().partition_count) == index);
    of_partition.nth(n).expect("every partition has keys")
}
