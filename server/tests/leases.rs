//! Leases and grace periods of one node among members that the test plays: it serves only while they grant it, and asks
//! for its primary's place only when that has been silent for long enough.
#![allow(clippy::unwrap_used)]

mod roles;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pegasus_wire::hash::partition_index;
use pegasus_wire::messages::peer::{Acknowledge, Beacon, BeaconAnswer, Establish, Established, Prepare};
use pegasus_wire::{Ballot, Configuration, FrameBuilder, FrameHeader, MessageKind, NodeId, PartitionId, Status};
use roles::meta::PlayedMeta;
use roles::peer::{Incoming, PlayedNode};
use roles::{eventually, partition};
use support::{Caller, Process, Scene};

/// First scene number of this program.
const SCENES: u16 = 100;
const LEASE: Duration = Duration::from_millis(800);
const GRACE: Duration = Duration::from_millis(1200);

fn start(scene: &Scene) -> Process {
    scene.start_node(&scene.node_config("node", |config| {
        let replication = [
            ("beacon_interval_ms", 100),
            ("lease_ms", LEASE.as_millis() as i64),
            ("grace_ms", GRACE.as_millis() as i64),
            ("prepare_timeout_ms", 700),
        ];
        let table = replication.map(|(key, value)| (key.to_owned(), toml::Value::from(value)));
        config.insert("replication".to_owned(), toml::Table::from_iter(table).into());
    }))
}

/// What a played secondary does with what it hears.
#[derive(Default)]
struct Manners {
    /// Beacons are answered with a refusal.
    refuses: AtomicBool,
    /// Neither beacons nor prepares are answered.
    silent: AtomicBool,
    beacons: AtomicU64,
}

/// Follows whatever the node leads.
async fn follow(mut peer: PlayedNode, manners: Arc<Manners>) {
    loop {
        tokio::spawn(follow_stream(peer.next().await, manners.clone()));
    }
}

async fn follow_stream(mut incoming: Incoming, manners: Arc<Manners>) {
    let mut next = Some(incoming.first);
    while let Some(frame) = next {
        if !manners.silent.load(Ordering::SeqCst) {
            let header = FrameHeader::answer(frame.header.kind, frame.header.request_id, Status::Ok);
            let _ = match frame.header.kind {
                MessageKind::ESTABLISH => {
                    let establish: Establish = frame.decode().unwrap();
                    let (ballot, committed) = (establish.configuration.ballot, establish.committed);
                    let next_decree = establish.last_decree.next();
                    let body = Established { ballot, next_decree, committed, uncertain: false };
                    incoming.outbox.push(|out| FrameBuilder::append(out, header, &body, &[]))
                }
                MessageKind::BEACON => {
                    manners.beacons.fetch_add(1, Ordering::SeqCst);
                    let entries = frame.decode::<Beacon>().unwrap().entries.len() as u32;
                    let refuses = manners.refuses.load(Ordering::SeqCst);
                    let body = BeaconAnswer { refused: if refuses { (0..entries).collect() } else { Vec::new() } };
                    incoming.outbox.push(|out| FrameBuilder::append(out, header, &body, &[]))
                }
                MessageKind::PREPARE => {
                    let prepare: Prepare = frame.decode().unwrap();
                    let body = Acknowledge { ballot: prepare.ballot, logged: prepare.decree };
                    let header = FrameHeader::request(MessageKind::ACKNOWLEDGE, 0, 0);
                    incoming.outbox.push(|out| FrameBuilder::append(out, header, &body, &[]))
                }
                _ => Ok(()),
            };
        }
        next = incoming.reader.next().await.ok().flatten();
    }
}

/// A node that leads partition 0, with one played secondary.
struct Stage {
    // First, so that it ends, and says what it logged, before the directory goes.
    process: Process,
    scene: Scene,
    meta: PlayedMeta,
    secondary: NodeId,
    manners: Arc<Manners>,
    caller: Caller,
    /// A hash key of partition 0.
    key: Vec<u8>,
}

impl Stage {
    async fn new(number: u16) -> Stage {
        let mut keys = (0u32..).map(|number| number.to_be_bytes().to_vec());
        let key = keys.find(|key| partition_index(key, b"", 4) == 0).expect("every partition has keys");
        let scene = Scene::new(SCENES + number);
        let meta = PlayedMeta::start(&scene);
        let process = start(&scene);
        let node = meta.wait_for_node(&scene).await;
        let peer = PlayedNode::start(&scene, &meta, 8);
        let (secondary, manners) = (peer.node, Arc::new(Manners::default()));
        tokio::spawn(follow(peer, manners.clone()));
        let configuration = Configuration { ballot: Ballot(1), primary: Some(node), secondaries: vec![secondary] };
        meta.assign(partition(0), configuration);
        let caller = scene.caller().await;
        let stage = Stage { scene, process, meta, secondary, manners, caller, key };
        stage.written().await;
        stage
    }

    async fn written(&self) {
        eventually("a write to succeed", || async {
            let set = self.caller.set(partition(0), &self.key, b"v").await;
            (set.header.status == Status::Ok).then_some(())
        })
        .await;
    }

    async fn read(&self) -> Status {
        self.caller.get(partition(0), &self.key, b"s").await.header.status
    }

    fn finish(self) {
        assert!(!self.process.log().contains("panick"), "{}", self.process.log());
        assert!(self.scene.admin("/health").0 == 200);
        drop(self.caller);
        self.process.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_renewed_by_beacons_alone() {
    let stage = Stage::new(0).await;
    let begun = Instant::now();
    while begun.elapsed() < 3 * LEASE {
        assert_eq!(stage.read().await, Status::Ok);
    }
    assert!(stage.manners.beacons.load(Ordering::SeqCst) >= 8);
    stage.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_lease_nothing_is_served_and_the_member_is_removed() {
    for refuses in [true, false] {
        let stage = Stage::new(1 + u16::from(refuses)).await;
        let begun = Instant::now();
        if refuses {
            stage.manners.refuses.store(true, Ordering::SeqCst);
        } else {
            stage.manners.silent.store(true, Ordering::SeqCst);
        }
        // The last lease runs from before this moment.
        let (mut last_served, mut refused) = (begun, false);
        let removed = || {
            stage.meta.change(|state| {
                let known = &state.configurations[&partition(0)];
                (!known.contains(stage.secondary)).then_some(known.ballot)
            })
        };
        while removed().is_none() {
            match stage.read().await {
                Status::Ok => last_served = Instant::now(),
                Status::NotServing => refused = true,
                status => panic!("{status}"),
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "the member is not removed");
        }
        assert!(refused, "reads went on without a lease");
        assert!(last_served - begun < LEASE + Duration::from_millis(50), "{:?}", last_served - begun);
        // Alone it has too few members for new writes, and reads go on.
        eventually("reads to go on", || async { (stage.read().await == Status::Ok).then_some(()) }).await;
        let set = stage.caller.set(partition(0), &stage.key, b"w").await;
        assert_eq!(set.header.status, Status::NotEnoughMembers);
        stage.finish();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_serves_nothing_when_it_wakes() {
    let stage = Stage::new(3).await;
    let process = stage.process.id() as i32;
    let signal = |signal| {
        // SAFETY: the call takes two numbers; the process is a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(process, signal) }, 0);
    };
    signal(libc::SIGSTOP);
    // Asked while it cannot answer, answered when it wakes: the lease has lapsed by then.
    let asked = stage.caller.get(partition(0), &stage.key, b"s");
    let wake = async {
        tokio::time::sleep(2 * LEASE).await;
        signal(libc::SIGCONT);
    };
    let (answer, ()) = tokio::join!(asked, wake);
    assert_eq!(answer.header.status, Status::NotServing);
    eventually("reads to go on", || async { (stage.read().await == Status::Ok).then_some(()) }).await;
    stage.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secondary_claims_its_primarys_place_after_the_grace_period() {
    let scene = Scene::new(SCENES + 4);
    let meta = PlayedMeta::start(&scene);
    let process = start(&scene);
    let node = meta.wait_for_node(&scene).await;
    let primary = PlayedNode::start(&scene, &meta, 8);
    let id: PartitionId = partition(0);
    let member =
        |ballot| Configuration { ballot: Ballot(ballot), primary: Some(primary.node), secondaries: vec![node] };
    meta.assign(id, member(1));
    // Under ballot 1 the copy is made.
    let establish = primary.establish(id, node, 1, &[node], 0);
    let mut stream = eventually("a copy", || async {
        let mut stream = primary.open(scene.node_address()).await;
        let answer = stream.ask(roles::peer::frame(MessageKind::ESTABLISH, &establish)).await;
        (answer.header.status == Status::Ok).then_some(stream)
    })
    .await;
    meta.assign(id, member(2));
    stream.establish(&primary.establish(id, node, 2, &[node], 0)).await;
    let mut beacons = primary.open(scene.node_address()).await;
    let beacon = |ballot| primary.beacon(id, node, ballot, 0);
    assert!(!beacons.beacon(&beacon(1)).await, "a lower ballot is not granted");
    let begun = Instant::now();
    let mut granted = begun;
    while begun.elapsed() < 2 * GRACE {
        granted = Instant::now();
        assert!(beacons.beacon(&beacon(2)).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let claim = |state: &roles::meta::MetaState| {
        let proposal = state.proposals.iter().find(|proposal| proposal.proposer == node)?;
        Some(proposal.configuration.clone())
    };
    assert_eq!(meta.change(|state| claim(state)), None, "beacons keep the secondary quiet");
    let claimed = meta.wait_for("a claim", claim).await;
    let waited = granted.elapsed();
    assert_eq!(claimed, Configuration { ballot: Ballot(3), primary: Some(node), secondaries: Vec::new() });
    assert!(waited >= GRACE, "it claimed after {waited:?}");
    assert!(!beacons.beacon(&beacon(2)).await, "the former primary gets no lease any more");
    process.stop();
}
