//! What members of a partition say to each other.

use pegasus_wire::messages::peer::*;
use pegasus_wire::{Ballot, Decree, FrameBuilder, FrameHeader, MessageKind, NodeId, PartitionId, Status};

use super::{
    CLUSTER, Image, PAYLOAD, REQUEST_ID, TIMESTAMP_MICROS, answer, configuration, one_way, partition, read_owned,
    request, sum, table,
};

pub(super) fn images(images: &mut Vec<Image>) {
    let establish = Establish {
        cluster: CLUSTER,
        partition: partition(),
        sender: NodeId(0xA1),
        receiver: NodeId(0xB2),
        table: table(),
        configuration: configuration(),
        last_decree: Decree(41),
        committed: Decree(40),
    };
    images.push(request("establish", MessageKind::ESTABLISH, &establish, read_owned::<Establish>));
    let established =
        Established { ballot: Ballot(3), next_decree: Decree(39), committed: Decree(38), uncertain: true };
    images.push(answer("establish_answer", MessageKind::ESTABLISH, &established, read_owned::<Established>));

    let prepare = Prepare {
        ballot: Ballot(3),
        decree: Decree(42),
        committed: Decree(40),
        timestamp_micros: TIMESTAMP_MICROS,
        mutation_kind: 1,
    };
    let mut bytes = Vec::new();
    FrameBuilder::append(&mut bytes, FrameHeader::request(MessageKind::PREPARE, 0, 0), &prepare, PAYLOAD);
    images.push(Image { name: "prepare", kind: MessageKind::PREPARE, bytes, read: read_owned::<Prepare> });

    let acknowledge = Acknowledge { ballot: Ballot(3), logged: Decree(42) };
    images.push(one_way("acknowledge", MessageKind::ACKNOWLEDGE, Status::Ok, &acknowledge, read_owned::<Acknowledge>));
    let commit_point = CommitPoint { ballot: Ballot(3), committed: Decree(42) };
    let kind = MessageKind::COMMIT_POINT;
    images.push(one_way("commit_point", kind, Status::Ok, &commit_point, read_owned::<CommitPoint>));
    let refuse = Refuse { ballot: Ballot(4), next_decree: Decree(40), message: "a prepare leaves a gap".into() };
    images.push(one_way("refuse", MessageKind::REFUSE, Status::Gap, &refuse, read_owned::<Refuse>));
    beacons(images);
    checkpoints(images);
}

fn beacons(images: &mut Vec<Image>) {
    let kind = MessageKind::BEACON;
    let beacon = Beacon {
        cluster: CLUSTER,
        sender: NodeId(0xA1),
        receiver: NodeId(0xB2),
        entries: vec![
            BeaconEntry { partition: partition(), ballot: Ballot(3), committed: Decree(42) },
            BeaconEntry { partition: PartitionId::new(1, 0), ballot: Ballot(9), committed: Decree(0) },
        ],
    };
    images.push(request("beacon", kind, &beacon, read_owned::<Beacon>));
    images.push(answer("beacon_answer", kind, &BeaconAnswer { refused: vec![1] }, read_owned::<BeaconAnswer>));
}

fn checkpoints(images: &mut Vec<Image>) {
    let take = TakeCheckpoint { ballot: Ballot(3), committed: Decree(42) };
    let kind = MessageKind::TAKE_CHECKPOINT;
    images.push(one_way("take_checkpoint", kind, Status::Ok, &take, read_owned::<TakeCheckpoint>));
    let kind = MessageKind::FETCH_CHECKPOINT;
    let fetch = FetchCheckpoint {
        cluster: CLUSTER,
        partition: partition(),
        sender: NodeId(0xD4),
        receiver: NodeId(0xA1),
        ballot: Ballot(3),
    };
    images.push(request("fetch_checkpoint", kind, &fetch, read_owned::<FetchCheckpoint>));
    let file = |name: &str, bytes| CheckpointFile { name: name.into(), bytes };
    let files = vec![file("CURRENT", 16), file("000012.sst", 65 << 20)];
    let checkpoint = Checkpoint { applied: Decree(41), files };
    images.push(answer("fetch_checkpoint_answer", kind, &checkpoint, read_owned::<Checkpoint>));
    let kind = MessageKind::CHECKPOINT_CHUNK;
    let mut bytes = Vec::new();
    FrameBuilder::append_empty(&mut bytes, FrameHeader::answer(kind, REQUEST_ID, Status::Ok), b"bytes of a file\0\xFF");
    images.push(Image { name: "checkpoint_chunk", kind, bytes, read: |frame| Ok(sum(&frame.attachment)) });
}
