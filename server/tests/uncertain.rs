//! A copy of a `written` table on a machine that was booted again: it may lack what it acknowledged, says so until it
//! has learned, and a mere restart of the process does not make it look certain.
#![allow(clippy::unwrap_used)]

mod roles;
mod support;

use pegasus_engine::descriptor::{Descriptor, Loaded};
use pegasus_engine::identity::BootId;
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::peer::{Establish, Established};
use pegasus_wire::{Decree, Durability, MessageKind, Status};
use roles::eventually;
use roles::peer::{PeerStream, frame};
use roles::stage::{ID, Stage};

/// First scene number of this program.
const SCENES: u16 = 110;

/// Establishes the node as a member of a `written` table, or as a learner.
async fn establish(stage: &Stage, ballot: u64, member: bool, last: u64) -> (PeerStream, Established) {
    let secondaries = if member { vec![stage.node] } else { Vec::new() };
    let mut establish: Establish = stage.primary.establish(ID, stage.node, ballot, &secondaries, last);
    establish.table.durability = Durability::Written;
    eventually("an answer", || async {
        let mut stream = stage.primary.open(stage.scene.node_address()).await;
        let answer = stream.ask(frame(MessageKind::ESTABLISH, &establish)).await;
        (answer.header.status == Status::Ok).then(|| (stream, answer.decode().unwrap()))
    })
    .await
}

/// Makes the copy one that was last stored under another boot of the machine.
fn forget_boot(stage: &Stage) {
    let directory = stage.scene.path("data").join("replicas/1.0");
    let Loaded::Valid(descriptor) = Descriptor::load(&directory).unwrap() else { panic!("there is a descriptor") };
    Descriptor { boot_id: BootId([7; 16]), ..descriptor }.store(&directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_stays_uncertain_until_it_has_learned() {
    let mut stage = Stage::new(SCENES, 4).await;
    stage.meta.change(|state| state.durability = Durability::Written);
    let (mut stream, _) = establish(&stage, 2, false, 1).await;
    stream.prepare(2, 1, 0).await;
    stream.acknowledged(1).await;
    stage.lead(3, &[stage.node]);
    let (_stream, established) = establish(&stage, 3, true, 1).await;
    assert!(!established.uncertain);
    stage.reported(Some(ReplicaState::Whole)).await;
    // A restart of the process alone loses nothing that was written.
    stage.restart().await;
    stage.reported(Some(ReplicaState::Whole)).await;

    stage.process.take().unwrap().kill();
    forget_boot(&stage);
    stage.meta.change(|state| state.reports.clear());
    stage.process = Some(stage.scene.start_node(&stage.config));
    stage.reported(Some(ReplicaState::Uncertain)).await;
    stage.lead(4, &[stage.node]);
    let (_stream, established) = establish(&stage, 4, true, 1).await;
    assert!(established.uncertain);
    // Ballot 4 is stored under this boot, and says nothing about what was lost before it.
    stage.restart().await;
    stage.reported(Some(ReplicaState::Uncertain)).await;

    // Without it, then taught, then with it.
    stage.lead(5, &[]);
    let (mut stream, established) = establish(&stage, 5, false, 1).await;
    stage.reported(Some(ReplicaState::Learning)).await;
    if established.next_decree == Decree(1) {
        stream.prepare(5, 1, 0).await;
        stream.acknowledged(1).await;
    }
    stage.lead(6, &[stage.node]);
    let (_stream, established) = establish(&stage, 6, true, 1).await;
    assert!(!established.uncertain);
    stage.reported(Some(ReplicaState::Whole)).await;
    stage.restart().await;
    stage.reported(Some(ReplicaState::Whole)).await;
    stage.finish();
}
