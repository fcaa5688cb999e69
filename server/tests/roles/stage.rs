//! A node that holds nothing, and a primary, played by the test, that teaches it.

use std::fs;
use std::path::PathBuf;

use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::peer::Established;
use pegasus_wire::{Ballot, Configuration, MessageKind, NodeId, PartitionId, Status};

use super::eventually;
use super::meta::{MetaState, PlayedMeta};
use super::peer::{PeerStream, PlayedNode, frame};
use crate::support::{Process, Scene, reason};

/// The partition that is learned.
pub(crate) const ID: PartitionId = PartitionId { table: pegasus_wire::TableId(1), index: 0 };

/// A node that holds nothing, and a primary, played, that teaches it.
pub(crate) struct Stage {
    // First, so that it ends, and says what it logged, before the directory goes.
    pub(crate) process: Option<Process>,
    pub(crate) scene: Scene,
    pub(crate) config: PathBuf,
    pub(crate) meta: PlayedMeta,
    pub(crate) node: NodeId,
    pub(crate) primary: PlayedNode,
}

impl Stage {
    pub(crate) async fn new(number: u16, learners: i64) -> Stage {
        let scene = Scene::new(number);
        let meta = PlayedMeta::start(&scene);
        let config = scene.node_config("node", |config| {
            // The played primary sends beacons only where a test is about them.
            let replication = [("learners_per_core", learners), ("grace_ms", 60_000)];
            let replication = replication.map(|(key, value)| (key.to_owned(), toml::Value::from(value)));
            config.insert("replication".to_owned(), toml::Table::from_iter(replication).into());
        });
        let process = Some(scene.start_node(&config));
        let node = meta.wait_for_node(&scene).await;
        let primary = PlayedNode::start(&scene, &meta, 8);
        let stage = Stage { scene, config, process, meta, node, primary };
        // Known to the node: it may have to find its primary.
        stage.lead(2, &[]);
        stage
    }

    /// Puts a configuration in force that the played primary leads.
    pub(crate) fn lead(&self, ballot: u64, secondaries: &[NodeId]) {
        let secondaries = secondaries.to_vec();
        let configuration = Configuration { ballot: Ballot(ballot), primary: Some(self.primary.node), secondaries };
        self.meta.assign(ID, configuration);
    }

    /// Opens a stream and establishes the node as a learner; gives also what it needs next.
    pub(crate) async fn teach(&self, ballot: u64, last: u64) -> (PeerStream, u64) {
        let establish = self.primary.establish(ID, self.node, ballot, &[], last);
        eventually("the node to learn", || async {
            let mut stream = self.primary.open(self.scene.node_address()).await;
            let answer = stream.ask(frame(MessageKind::ESTABLISH, &establish)).await;
            if answer.header.status == Status::Busy {
                return None;
            }
            assert_eq!(answer.header.status, Status::Ok, "{}", reason(&answer));
            let established: Established = answer.decode().unwrap();
            Some((stream, established.next_decree.0))
        })
        .await
    }

    /// kill -9, and again.
    pub(crate) async fn restart(&mut self) {
        self.process.take().unwrap().kill();
        let before = self.meta.change(|state| {
            state.reports.remove(&self.node);
            state.informed.remove(&self.node);
            state.registrations
        });
        self.process = Some(self.scene.start_node(&self.config));
        // It knows the others, too: what is asked of it right after this may need their addresses.
        let back = |state: &MetaState| state.registrations > before && state.informed.contains(&self.node);
        self.meta.wait_for("registration", |state| back(state).then_some(())).await;
    }

    pub(crate) async fn reported(&self, state: Option<ReplicaState>) {
        let node = self.node;
        self.meta
            .wait_for(&format!("a report of {state:?}"), |known| {
                (known.reports.contains_key(&node) && known.report(node, ID) == state).then_some(())
            })
            .await;
    }

    /// Names in the directory of the copy's tables.
    pub(crate) fn tables(&self) -> Vec<String> {
        let directory = self.scene.path("data").join("replicas/1.0");
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("rdb")).collect()
    }

    pub(crate) fn set_aside(&self) -> Vec<PathBuf> {
        let copies = fs::read_dir(self.scene.path("data").join("replicas")).unwrap();
        let paths = copies.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.to_str().unwrap().contains("1.0.removed.")).collect()
    }

    pub(crate) fn finish(mut self) {
        let process = self.process.take().unwrap();
        let log = process.log();
        assert!(!log.contains("panick"), "{log}");
        process.stop();
    }
}
