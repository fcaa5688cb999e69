//! A node that learns, taught by a primary that the test plays: from prepares, from checkpoints good and bad, killed on
//! the way, with damaged files, and told to remove what it has.
#![allow(clippy::unwrap_used)]

mod roles;
mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use pegasus_engine::table::{ApplyMode, OpenMode, SharedOptions, Table, TableShared};
use pegasus_wire::messages::control::{Removal, ReplicaState};
use pegasus_wire::messages::data::{RowOperation, Write};
use pegasus_wire::messages::peer::{Checkpoint, FetchCheckpoint};
use pegasus_wire::{Ballot, Decree, FrameBuilder, FrameHeader, MessageKind, Mutation, MutationKind, Status};
use roles::peer::{Incoming, frame};
use roles::stage::{ID, Stage};
use roles::{eventually, partition};
use support::operations::payload;
use support::reason;

/// First scene number of this program.
const SCENES: u16 = 90;
/// Mutations in the primary's checkpoint.
const CHECKPOINT_DECREE: u64 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_survives_and_the_copy_becomes_a_member() {
    let mut stage = Stage::new(SCENES, 4).await;
    let (mut stream, next) = stage.teach(2, 3).await;
    assert_eq!(next, 1);
    stage.reported(Some(ReplicaState::Learning)).await;
    for decree in 1..=3 {
        stream.prepare(2, decree, decree - 1).await;
    }
    stream.acknowledged(3).await;
    stream.commit(2, 3).await;
    // A learner grants no lease worth anything, but it answers, and hears the commit point.
    let mut beacons = stage.primary.open(stage.scene.node_address()).await;
    assert!(beacons.beacon(&stage.primary.beacon(ID, stage.node, 2, 3)).await);
    stream.prepare(2, 4, 3).await;
    stream.acknowledged(4).await;

    stage.restart().await;
    stage.reported(Some(ReplicaState::Learning)).await;
    // What is not known to be committed is given up by a learner.
    let (mut stream, next) = stage.teach(2, 4).await;
    assert!((4..=5).contains(&next), "{next}");
    if next == 4 {
        stream.prepare(2, 4, 3).await;
        stream.acknowledged(4).await;
    }

    // A member under the next ballot.
    stage.lead(3, &[stage.node]);
    let establish = stage.primary.establish(ID, stage.node, 3, &[stage.node], 4);
    let established = stream.establish(&establish).await;
    assert_eq!(established.next_decree, Decree(5));
    stage.reported(Some(ReplicaState::Whole)).await;
    assert_eq!(stage.set_aside(), Vec::<PathBuf>::new());
    stage.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_core_learns_no_more_at_a_time_than_it_may() {
    let stage = Stage::new(SCENES + 1, 1).await;
    let (stream, _) = stage.teach(2, 0).await;
    let mut second = stage.primary.open(stage.scene.node_address()).await;
    let other = stage.primary.establish(partition(1), stage.node, 2, &[], 0);
    let answer = second.ask(frame(MessageKind::ESTABLISH, &other)).await;
    assert_eq!(answer.header.status, Status::Busy, "{}", reason(&answer));
    // The one that learns already is not refused, and when it has gone there is room.
    let (again, _) = stage.teach(2, 0).await;
    drop((stream, again));
    eventually("room for another learner", || async {
        let mut stream = stage.primary.open(stage.scene.node_address()).await;
        let answer = stream.ask(frame(MessageKind::ESTABLISH, &other)).await;
        (answer.header.status == Status::Ok).then_some(())
    })
    .await;
    stage.finish();
}

/// A table as a primary has it.
struct Source {
    shared: TableShared,
    table: Table,
    directory: tempfile::TempDir,
}

impl Source {
    fn new() -> Source {
        let directory = tempfile::tempdir().unwrap();
        let shared = TableShared::new(SharedOptions::default()).unwrap();
        let table = Table::open(&directory.path().join("rdb"), &shared, ID, OpenMode::CreateIfMissing).unwrap();
        let mutations: Vec<Mutation> = (1..=CHECKPOINT_DECREE).map(mutation).collect();
        let _ = table.apply(&mutations, ApplyMode::Blocking).unwrap();
        Source { shared, table, directory }
    }

    /// What a learner is told, and the bytes that follow.
    fn checkpoint(&self) -> (Checkpoint, Vec<u8>) {
        let image = self.table.checkpoint(&self.shared, &self.directory.path().join("checkpoint")).unwrap();
        let checkpoint = image.checkpoint().clone();
        let (mut reader, mut bytes) = (image.read(), Vec::new());
        while let Some(chunk) = reader.next_chunk().unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        (checkpoint, bytes)
    }
}

fn mutation(decree: u64) -> Mutation {
    let value = vec![decree as u8; 1000];
    let operations = [RowOperation::Put { sort_key: b"s", value: &value, expiry_seconds: 0 }];
    let payload = payload(&Write { partition: ID, hash_key: &decree.to_be_bytes(), operations: &operations });
    let (ballot, decree) = (Ballot(2), Decree(decree));
    Mutation { ballot, decree, timestamp_micros: decree.0, kind: MutationKind::Write, payload }
}

/// Answers a request for a checkpoint, with as many of the bytes as is said.
fn send(incoming: &Incoming, checkpoint: &Checkpoint, bytes: &[u8]) {
    let fetch: FetchCheckpoint = incoming.first.decode().unwrap();
    assert_eq!(fetch.partition, ID);
    let header = FrameHeader::answer(incoming.first.header.kind, incoming.first.header.request_id, Status::Ok);
    incoming.outbox.push(|out| FrameBuilder::append(out, header, checkpoint, &[])).unwrap();
    for chunk in bytes.chunks(20_000) {
        let header = FrameHeader::request(MessageKind::CHECKPOINT_CHUNK, 0, 0);
        incoming.outbox.push(|out| FrameBuilder::append_empty(out, header, chunk)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_bad_and_good() {
    let mut stage = Stage::new(SCENES + 2, 4).await;
    let (good, bytes) = Source::new().checkpoint();
    assert_eq!(good.applied, Decree(CHECKPOINT_DECREE));
    let damaged = {
        let mut damaged = bytes.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        damaged
    };
    let named = |name: &str| {
        let mut changed = good.clone();
        changed.files[0].name = name.to_owned();
        changed
    };
    let applied = |decree: u64| Checkpoint { applied: Decree(decree), ..good.clone() };
    let longer = [&bytes[..], b"more"].concat();
    let cases: [(&str, Checkpoint, &[u8]); 7] = [
        ("of too low a decree", applied(CHECKPOINT_DECREE - 1), &bytes),
        ("not of the decree it says", applied(CHECKPOINT_DECREE + 1), &bytes),
        ("names outside of its directory", named("../../descriptor"), &bytes),
        ("a name twice", named(&good.files[1].name), &bytes),
        ("damaged on the way", good.clone(), &damaged),
        ("cut short", good.clone(), &bytes[..bytes.len() - 1]),
        ("longer than announced", good.clone(), &longer),
    ];
    let before = {
        let (_stream, next) = stage.teach(2, CHECKPOINT_DECREE).await;
        assert_eq!(next, 1);
        stage.tables()
    };
    for (what, checkpoint, bytes) in cases {
        let (mut stream, next) = stage.teach(2, CHECKPOINT_DECREE).await;
        assert_eq!(next, 1, "{what}");
        stream.take_checkpoint(2, CHECKPOINT_DECREE).await;
        let incoming = stage.primary.accept(MessageKind::FETCH_CHECKPOINT).await;
        send(&incoming, &checkpoint, bytes);
        incoming.outbox.finish();
        // The learner gives up the stream, so that it is told again what to do.
        stream.ended().await;
        eventually(&format!("nothing to be left of one {what}"), || async { (stage.tables() == before).then_some(()) })
            .await;
    }
    let (mut stream, _) = stage.teach(2, CHECKPOINT_DECREE).await;
    stream.take_checkpoint(2, CHECKPOINT_DECREE).await;
    let incoming = stage.primary.accept(MessageKind::FETCH_CHECKPOINT).await;
    send(&incoming, &good, &bytes);
    stream.ended().await;
    learned(&stage, CHECKPOINT_DECREE).await;
    assert!(stage.tables() != before && stage.tables().len() == 1, "{:?}", stage.tables());
    stage.finish();
}

/// Waits until the node says that it has everything up to a decree, and no more.
async fn learned(stage: &Stage, decree: u64) {
    eventually("the checkpoint to be the copy", || async {
        let (_stream, next) = stage.teach(2, decree).await;
        (next == decree + 1).then_some(())
    })
    .await;
    eventually("the former table to be deleted", || async { (stage.tables().len() == 1).then_some(()) }).await;
    let (status, digest) = stage.scene.admin("/digest/1.0");
    assert_eq!(status, 200, "{digest}");
    assert!(digest.contains(&format!("\"rows\":{decree}")), "{digest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_killed_on_the_way_begins_again() {
    let mut stage = Stage::new(SCENES + 3, 4).await;
    let (good, bytes) = Source::new().checkpoint();
    let (mut stream, _) = stage.teach(2, CHECKPOINT_DECREE).await;
    stream.take_checkpoint(2, CHECKPOINT_DECREE).await;
    let incoming = stage.primary.accept(MessageKind::FETCH_CHECKPOINT).await;
    send(&incoming, &good, &bytes[..bytes.len() / 2]);
    eventually("half of it to have come", || async { (stage.tables().len() == 2).then_some(()) }).await;
    stage.restart().await;
    assert_eq!(stage.tables().len(), 1, "what came is given up at the start");
    let (mut stream, next) = stage.teach(2, CHECKPOINT_DECREE).await;
    assert_eq!(next, 1);
    stream.take_checkpoint(2, CHECKPOINT_DECREE).await;
    let incoming = stage.primary.accept(MessageKind::FETCH_CHECKPOINT).await;
    send(&incoming, &good, &bytes);
    stream.ended().await;
    learned(&stage, CHECKPOINT_DECREE).await;
    // And it is there after a kill right behind it.
    stage.restart().await;
    learned(&stage, CHECKPOINT_DECREE).await;
    stage.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_copy_is_set_aside_and_learned_again() {
    let mut stage = Stage::new(SCENES + 4, 4).await;
    let (mut stream, _) = stage.teach(2, 2).await;
    stream.prepare(2, 1, 0).await;
    stream.acknowledged(1).await;
    stage.process.take().unwrap().kill();
    let descriptor = stage.scene.path("data").join("replicas/1.0/descriptor");
    fs::write(&descriptor, b"no descriptor").unwrap();
    stage.meta.change(|state| state.reports.clear());
    stage.process = Some(stage.scene.start_node(&stage.config));
    stage.reported(Some(ReplicaState::Damaged)).await;

    // As a member it is refused, so that the primary does without it; as a learner it begins anew.
    let mut refused = stage.primary.open(stage.scene.node_address()).await;
    let member = stage.primary.establish(ID, stage.node, 2, &[stage.node], 2);
    let answer = refused.ask(frame(MessageKind::ESTABLISH, &member)).await;
    assert_eq!(answer.header.status, Status::Damaged, "{}", reason(&answer));
    let (_stream, next) = stage.teach(2, 2).await;
    assert_eq!(next, 1);
    stage.reported(Some(ReplicaState::Learning)).await;
    let aside = stage.set_aside();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(fs::read(aside[0].join("descriptor")).unwrap(), b"no descriptor");
    assert_eq!(stage.scene.admin("/health"), (200, "ok\n".to_owned()));
    stage.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_goes_only_for_a_higher_ballot() {
    let stage = Stage::new(SCENES + 5, 4).await;
    let (mut stream, _) = stage.teach(4, 1).await;
    stream.prepare(4, 1, 0).await;
    stream.acknowledged(1).await;
    stage.reported(Some(ReplicaState::Learning)).await;
    for ballot in [1, 3, 4] {
        stage.meta.change(|state| state.removals = vec![Removal { partition: ID, ballot: Ballot(ballot) }]);
    }
    // Nothing tells that nothing happens; the stream still works after what was said.
    tokio::time::sleep(Duration::from_millis(300)).await;
    stream.prepare(4, 2, 1).await;
    stream.acknowledged(2).await;
    stage.meta.change(|state| state.removals = vec![Removal { partition: ID, ballot: Ballot(5) }]);
    stream.ended().await;
    stage.reported(None).await;
    assert_eq!(stage.set_aside().len(), 1);
    // It can be asked to learn again.
    let (_stream, next) = stage.teach(6, 2).await;
    assert_eq!(next, 1);
    assert_eq!(stage.set_aside().len(), 1);
    stage.finish();
}
