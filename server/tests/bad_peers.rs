//! Whatever a node with the right certificate says to another: what makes no sense, or is not its business, is refused
//! with the reason, and changes nothing.
#![allow(clippy::unwrap_used)]

mod roles;
mod support;

use pegasus_wire::limits::{BEACON_ENTRIES_MAX, MEMBERS_MAX};
use pegasus_wire::messages::peer::{Beacon, BeaconEntry, Establish, FetchCheckpoint};
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Decree, Frame, FrameBuilder, FrameHeader, MessageKind, NodeId, PartitionId,
    Status, TableId,
};
use roles::meta::PlayedMeta;
use roles::peer::{PlayedNode, frame};
use roles::{CLUSTER, eventually, partition, table};
use support::{Process, Scene, reason};

/// First scene number of this program.
const SCENES: u16 = 80;

/// A node that leads partition 1.0 alone, and another one, played, that says things to it.
struct Stage {
    // First, so that it ends, and says what it logged, before the directory goes.
    process: Process,
    scene: Scene,
    meta: PlayedMeta,
    node: NodeId,
    peer: PlayedNode,
}

impl Stage {
    async fn new(number: u16) -> Stage {
        let scene = Scene::new(SCENES + number);
        let meta = PlayedMeta::start(&scene);
        let process = scene.start_node(&scene.node_config("node", |_| ()));
        let node = meta.wait_for_node(&scene).await;
        let peer = PlayedNode::start(&scene, &meta, 8);
        let alone = Configuration { ballot: Ballot(1), primary: Some(node), secondaries: Vec::new() };
        meta.assign(partition(0), alone);
        meta.wait_for("the partition to be led", |state| {
            (state.configurations[&partition(0)].ballot > Ballot(1)).then_some(())
        })
        .await;
        Stage { scene, process, meta, node, peer }
    }

    /// Says one thing on a stream of its own.
    async fn say(&self, bytes: Vec<u8>) -> Frame {
        self.peer.open(self.scene.node_address()).await.ask(bytes).await
    }

    async fn refused<T>(&self, kind: MessageKind, body: &T, status: Status, words: &str)
    where
        T: for<'a> rkyv::Serialize<
                rkyv::api::high::HighSerializer<
                    &'a mut Vec<u8>,
                    rkyv::ser::allocator::ArenaHandle<'a>,
                    rkyv::rancor::Error,
                >,
            >,
    {
        let answer = self.say(frame(kind, body)).await;
        let reason = reason(&answer);
        assert_eq!(answer.header.status, status, "{reason}");
        assert!(reason.contains(words), "{reason:?} does not say {words:?}");
    }

    /// The node still leads its partition, has nothing else, and did not panic.
    async fn finish(mut self) {
        assert!(self.process.is_running(), "the node has ended");
        assert_eq!(self.scene.admin("/health"), (200, "ok\n".to_owned()));
        let status = eventually("the partition to be served", || async {
            let status = self.scene.admin("/status").1;
            status.contains("1.0 Primary/Serving").then_some(status)
        })
        .await;
        assert_eq!(status.matches("\"partition\": ").count(), 1, "{status}");
        let held = |state: &roles::meta::MetaState| (state.reports[&self.node].len() == 1).then_some(());
        self.meta.wait_for("nothing else to be reported", held).await;
        let log = self.process.log();
        assert!(!log.contains("panick"), "{log}");
        self.process.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_frames_that_begin_nothing() {
    let stage = Stage::new(0).await;
    for kind in [MessageKind::PREPARE, MessageKind::CHECKPOINT_CHUNK, MessageKind::GET, MessageKind(999)] {
        let mut bytes = Vec::new();
        FrameBuilder::append_empty(&mut bytes, FrameHeader::request(kind, 1, 0), b"x");
        let answer = stage.say(bytes).await;
        assert_eq!(answer.header.status, Status::Malformed, "{kind}");
        assert!(reason(&answer).contains("BEACON or FETCH_CHECKPOINT"), "{}", reason(&answer));
    }
    for kind in [MessageKind::ESTABLISH, MessageKind::BEACON, MessageKind::FETCH_CHECKPOINT] {
        let mut bytes = Vec::new();
        FrameBuilder::append_empty(&mut bytes, FrameHeader::request(kind, 1, 0), &[]);
        let answer = stage.say(bytes).await;
        assert_eq!(answer.header.status, Status::Malformed, "{kind}");
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beacons_that_renew_nothing() {
    let stage = Stage::new(1).await;
    let good = stage.peer.beacon(partition(0), stage.node, 2, 0);
    let kind = MessageKind::BEACON;
    stage.refused(kind, &Beacon { cluster: ClusterId(1), ..good.clone() }, Status::WrongCluster, "cluster").await;
    stage.refused(kind, &Beacon { receiver: NodeId(1), ..good.clone() }, Status::StaleRoute, "meant for").await;
    stage.refused(kind, &Beacon { sender: stage.node, ..good.clone() }, Status::InvalidArgument, "itself").await;
    let many = Beacon { entries: vec![good.entries[0]; BEACON_ENTRIES_MAX + 1], ..good.clone() };
    stage.refused(kind, &many, Status::TooLarge, "beacon_entries_max").await;

    // A partition that the node leads itself, ones it does not hold, one that cannot be: none is granted.
    let mut stream = stage.peer.open(stage.scene.node_address()).await;
    for id in [partition(0), partition(3), PartitionId::new(9, 0), PartitionId::new(1, u32::MAX)] {
        for ballot in [0, 2, 3, u64::MAX] {
            let entries = vec![BeaconEntry { partition: id, ballot: Ballot(ballot), committed: Decree(u64::MAX) }];
            assert!(!stream.beacon(&Beacon { entries, ..good.clone() }).await, "{id} {ballot}");
        }
    }
    assert!(stream.beacon(&Beacon { entries: Vec::new(), ..good.clone() }).await, "nothing asked, nothing refused");
    // What is no beacon has no place on a stream of beacons; the stream goes on.
    let answer = stream.ask(frame(MessageKind::ESTABLISH, &establish(&stage))).await;
    assert_eq!(answer.header.status, Status::Malformed, "{}", reason(&answer));
    assert!(!stream.beacon(&good).await);
    stage.finish().await;
}

fn establish(stage: &Stage) -> Establish {
    stage.peer.establish(partition(1), stage.node, 5, &[NodeId(77)], 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn establishing_what_cannot_be() {
    let stage = Stage::new(2).await;
    let good = establish(&stage);
    let with = |change: &dyn Fn(&mut Establish)| {
        let mut changed = good.clone();
        change(&mut changed);
        changed
    };
    let kind = MessageKind::ESTABLISH;
    let invalid = Status::InvalidArgument;
    stage.refused(kind, &with(&|one| one.cluster = ClusterId(1)), Status::WrongCluster, "cluster").await;
    stage.refused(kind, &with(&|one| one.receiver = NodeId(1)), Status::StaleRoute, "meant for").await;
    stage.refused(kind, &with(&|one| one.configuration.primary = None), invalid, "not the primary").await;
    stage.refused(kind, &with(&|one| one.configuration.primary = Some(NodeId(4))), invalid, "not the primary").await;
    stage.refused(kind, &with(&|one| one.partition.index = 4), invalid, "is none of table").await;
    stage.refused(kind, &with(&|one| one.table.table = TableId(2)), invalid, "is none of table").await;
    stage.refused(kind, &with(&|one| one.table.name = "x".repeat(300)), invalid, "table name").await;
    let crowd: Vec<NodeId> = (1..=MEMBERS_MAX as u64).map(NodeId).collect();
    stage.refused(kind, &with(&|one| one.configuration.secondaries.clone_from(&crowd)), invalid, "at most").await;
    stage.refused(kind, &with(&|one| one.configuration.secondaries = vec![NodeId(4); 2]), invalid, "each once").await;
    // A member of ballot 1 that has no copy yet, and of a higher one that has lost it.
    let member = |ballot: u64| {
        with(&|one| {
            one.configuration.ballot = Ballot(ballot);
            one.configuration.secondaries = vec![stage.node];
        })
    };
    stage.refused(kind, &member(1), Status::NoSuchPartition, "(yet)").await;
    stage.refused(kind, &member(2), Status::Damaged, "is gone").await;
    // The partition that the node leads, by a primary of a lower ballot.
    let stale = with(&|one| {
        one.partition = partition(0);
        one.configuration.ballot = Ballot(1);
    });
    stage.refused_in_a_frame(&stale, Status::StaleBallot).await;
    stage.finish().await;
}

impl Stage {
    /// Refused by the replica itself.
    async fn refused_in_a_frame(&self, establish: &Establish, status: Status) {
        let answer = self.say(frame(MessageKind::ESTABLISH, establish)).await;
        assert_eq!((answer.header.kind, answer.header.status), (MessageKind::REFUSE, status));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_are_for_learners_only() {
    let stage = Stage::new(3).await;
    let ballot = stage.meta.wait_for("a ballot", |state| Some(state.configurations[&partition(0)].ballot)).await;
    let good = FetchCheckpoint {
        cluster: CLUSTER,
        partition: partition(0),
        sender: stage.peer.node,
        receiver: stage.node,
        ballot,
    };
    let kind = MessageKind::FETCH_CHECKPOINT;
    stage.refused(kind, &FetchCheckpoint { cluster: ClusterId(1), ..good }, Status::WrongCluster, "cluster").await;
    stage.refused(kind, &FetchCheckpoint { receiver: NodeId(1), ..good }, Status::StaleRoute, "meant for").await;
    stage.refused(kind, &FetchCheckpoint { partition: partition(2), ..good }, Status::NoSuchPartition, "no copy").await;
    stage.refused(kind, &FetchCheckpoint { ballot: ballot.next(), ..good }, Status::StaleBallot, "ballot").await;
    stage.refused(kind, &good, Status::Forbidden, "was not told").await;
    // Nothing of them is left on the disk.
    let checkpoints = stage.scene.path("data").join("checkpoints");
    eventually("no checkpoint to be left", || async {
        let left = std::fs::read_dir(&checkpoints).map_or(0, |entries| entries.count());
        (left == 0).then_some(())
    })
    .await;
    assert_eq!(table().replica_count, 3);
    stage.finish().await;
}
