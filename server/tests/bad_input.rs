//! Whatever a peer sends, a node answers with an error that says what is wrong, or closes that peer's connection. It
//! goes on serving the others meanwhile and never panics.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pegasus_rpc::{Alpn, Authority, Endpoint, FrameReader, Identity, Role, RpcError, Runtime};
use pegasus_wire::hash::partition_index;
use pegasus_wire::limits::{
    FRAME_BYTES_MAX, HASH_KEY_BYTES_MAX, READ_ROWS_MAX, SORT_KEY_BYTES_MAX, VALUE_BYTES_MAX, WRITE_ROWS_MAX,
};
use pegasus_wire::messages::data::{ArchivedRows, MultiGet, RowOperation, Scan, SortKey};
use pegasus_wire::messages::peer::{CommitPoint, Establish};
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Decree, Frame, FrameBuilder, FrameHeader, MessageKind, PartitionId, Status,
};
use support::operations::{all_of, whole};
use support::{Caller, PATIENCE, Process, Scene, reason};

const PARTITIONS: u32 = 4;

/// A node with a table, and a bystander who must not notice anything.
struct Stage {
    scene: Scene,
    meta: Process,
    node: Process,
    table: u32,
    stop: Arc<AtomicBool>,
    bystander: tokio::task::JoinHandle<u64>,
}

impl Stage {
    async fn new(number: u16) -> Stage {
        let scene = Scene::new(number);
        let meta = scene.start_meta();
        let node = scene.start_node(&scene.node_config("node", |_| ()));
        let table = scene.make_table(PARTITIONS).await.table.table.0;
        let stop = Arc::new(AtomicBool::new(false));
        let bystander = tokio::spawn(bystand(scene.caller().await, table, stop.clone()));
        Stage { scene, meta, node, table, stop, bystander }
    }

    fn partition_of(&self, hash_key: &[u8]) -> PartitionId {
        partition_of(self.table, hash_key)
    }

    /// The bystander was served all the time, the node runs, and nothing panicked.
    async fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let served = self.bystander.await.expect("the bystander was served");
        assert!(served > 0, "the bystander was not served at all");
        assert!(self.node.is_running(), "the node has ended");
        assert_eq!(self.scene.admin("/health"), (200, "ok\n".to_owned()));
        self.node.stop();
        assert!(self.meta.is_running());
        let log = std::fs::read_to_string(self.scene.path("node.log")).unwrap();
        assert!(!log.contains("panick"), "{log}");
    }
}

fn partition_of(table: u32, hash_key: &[u8]) -> PartitionId {
    PartitionId::new(table, partition_index(hash_key, b"", PARTITIONS))
}

/// Writes and reads back until told to stop; panics if anything but success is answered.
async fn bystand(caller: Caller, table: u32, stop: Arc<AtomicBool>) -> u64 {
    let mut served = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let (hash_key, value) = (format!("bystander{}", served % 50).into_bytes(), served.to_be_bytes());
        let partition = partition_of(table, &hash_key);
        let set = caller.set(partition, &hash_key, &value).await;
        assert_eq!(set.header.status, Status::Ok, "{}", reason(&set));
        let got = caller.get(partition, &hash_key, b"s").await;
        assert_eq!((got.header.status, &got.attachment[..]), (Status::Ok, &value[..]));
        served += 1;
    }
    served
}

fn expect(frame: &Frame, status: Status, words: &str) {
    let reason = reason(frame);
    assert_eq!(frame.header.status, status, "{reason}");
    assert!(reason.contains(words), "{reason:?} does not say {words:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_a_limit_are_refused_with_its_name() {
    let stage = Stage::new(0).await;
    let caller = stage.scene.caller().await;
    let key = b"key".as_slice();
    let here = stage.partition_of(key);
    let long_hash_key = vec![b'h'; HASH_KEY_BYTES_MAX + 1];
    let long_sort_key = vec![b's'; SORT_KEY_BYTES_MAX + 1];
    let long_value = vec![b'v'; VALUE_BYTES_MAX + 1];
    let put = |sort_key, value| RowOperation::Put { sort_key, value, expiry_seconds: 0 };

    let there = stage.partition_of(&long_hash_key);
    expect(&caller.set(there, &long_hash_key, b"v").await, Status::TooLarge, "hash_key_bytes_max");
    expect(&caller.get(there, &long_hash_key, b"").await, Status::TooLarge, "hash_key_bytes_max");
    // Only single rows may have no hash key; then the sort key says where they belong.
    let two = [put(b"s", b"v"), put(b"t", b"v")];
    expect(&caller.write(here, b"", &two).await, Status::InvalidArgument, "hash key must not be empty");
    let key_of_none = [SortKey { bytes: b"s" }];
    let none = multi_get(&caller, here, b"", &key_of_none).await;
    expect(&none, Status::InvalidArgument, "hash key must not be empty");
    let elsewhere = PartitionId { index: (partition_index(b"", b"s", PARTITIONS) + 1) % PARTITIONS, ..here };
    expect(&caller.set(elsewhere, b"", b"v").await, Status::InvalidArgument, "does not belong to partition");
    expect(&caller.get(elsewhere, b"", b"s").await, Status::InvalidArgument, "does not belong to partition");
    expect(&caller.write(here, key, &[put(&long_sort_key, b"v")]).await, Status::TooLarge, "sort_key_bytes_max");
    let delete = [RowOperation::Delete { sort_key: &long_sort_key }];
    expect(&caller.write(here, key, &delete).await, Status::TooLarge, "sort_key_bytes_max");
    expect(&caller.get(here, key, &long_sort_key).await, Status::TooLarge, "sort_key_bytes_max");
    expect(&caller.set(here, key, &long_value).await, Status::TooLarge, "value_bytes_max");
    expect(&caller.write(here, key, &[]).await, Status::InvalidArgument, "at least one row");
    let many: Vec<RowOperation<'_>> = (0..=WRITE_ROWS_MAX).map(|_| put(b"s", b"v")).collect();
    expect(&caller.write(here, key, &many).await, Status::TooLarge, "write_rows_max");
    let large: Vec<RowOperation<'_>> =
        [b"a", b"b", b"c"].map(|sort_key| put(sort_key, &long_value[..VALUE_BYTES_MAX])).into();
    expect(&caller.write(here, key, &large).await, Status::TooLarge, "write_bytes_max");
    let keys: Vec<SortKey<'_>> = (0..=READ_ROWS_MAX).map(|_| SortKey { bytes: b"s" }).collect();
    expect(&multi_get(&caller, here, key, &keys).await, Status::TooLarge, "read_rows_max");
    let keys = [SortKey { bytes: &long_sort_key }];
    expect(&multi_get(&caller, here, key, &keys).await, Status::TooLarge, "sort_key_bytes_max");

    // At the limits all is well.
    let (hash_key, sort_key) = (&long_hash_key[1..], &long_sort_key[1..]);
    let there = stage.partition_of(hash_key);
    let set = caller.write(there, hash_key, &[put(sort_key, &long_value[1..])]).await;
    assert_eq!(set.header.status, Status::Ok, "{}", reason(&set));
    let got = caller.get(there, hash_key, sort_key).await;
    assert_eq!((got.header.status, got.attachment.len()), (Status::Ok, VALUE_BYTES_MAX));
    stage.finish().await;
}

async fn multi_get(caller: &Caller, partition: PartitionId, hash_key: &[u8], sort_keys: &[SortKey<'_>]) -> Frame {
    caller.multi_get(&MultiGet { sort_keys, ..all_of(partition, hash_key) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_for_the_wrong_place_or_without_sense_are_refused() {
    let stage = Stage::new(1).await;
    let caller = stage.scene.caller().await;
    let key = b"key".as_slice();
    let here = stage.partition_of(key);
    let other = PartitionId::new(stage.table, (here.index + 1) % PARTITIONS);
    expect(&caller.set(other, key, b"v").await, Status::InvalidArgument, "does not belong to partition");
    expect(&caller.get(other, key, b"s").await, Status::InvalidArgument, "does not belong to partition");
    for nowhere in [PartitionId::new(stage.table, PARTITIONS), PartitionId::new(77, 0), PartitionId::new(0, u32::MAX)] {
        expect(&caller.set(nowhere, key, b"v").await, Status::NoSuchPartition, "does not hold the partition");
        expect(&caller.get(nowhere, key, b"s").await, Status::NoSuchPartition, "does not hold the partition");
    }

    // Ranges that make no sense, and one over what the engine keeps for itself.
    for (start, stop) in
        [(&b"z"[..], &b"a"[..]), (b"\xFF\xFF", b""), (b"\xFF\xFFd", b"\xFF\xFFe"), (&[0xFF; 5000], b"")]
    {
        let answer = caller.scan(&Scan { start, stop, ..whole(here) }).await;
        assert_eq!(answer.header.status, Status::Ok, "{}", reason(&answer));
        assert_eq!(answer.body::<ArchivedRows<'_>>().unwrap().count.to_native(), 0, "{start:?} to {stop:?}");
    }

    // Bodies that are not the message.
    let mut noise = 88172645463325252u64;
    let kinds = [
        MessageKind::GET,
        MessageKind::WRITE,
        MessageKind::MULTI_GET,
        MessageKind::SCAN,
        MessageKind::INCREMENT,
        MessageKind::CHECK_AND_WRITE,
    ];
    for kind in kinds {
        for length in [0usize, 1, 7, 16, 64, 500, 5000] {
            let body: Vec<u8> = (0..length).map(|_| random(&mut noise) as u8).collect();
            let answer = caller.call(kind, |out, header| append_raw(out, header, &body)).await;
            expect(&answer, Status::Malformed, "malformed");
        }
    }
    // A whole message with bytes changed is refused, or is another message; its sender gets an answer in any case.
    let operations = [RowOperation::Put { sort_key: b"s", value: b"value", expiry_seconds: 0 }];
    let write = pegasus_wire::messages::data::Write { partition: here, hash_key: key, operations: &operations };
    let mut whole = Vec::new();
    FrameBuilder::append(&mut whole, FrameHeader::request(MessageKind::WRITE, 1, 0), &write, &[]);
    for position in 24..whole.len() {
        let mut body = whole[24..].to_vec();
        body[position - 24] ^= 0xFF;
        let answer = caller.call(MessageKind::WRITE, |out, header| append_raw(out, header, &body)).await;
        assert_ne!(answer.header.status, Status::Internal, "byte {position}: {}", reason(&answer));
    }

    // Kinds that have no place here, known and unknown.
    for kind in [MessageKind::CREATE_TABLE, MessageKind::HELLO, MessageKind::PREPARE, MessageKind(9999)] {
        let answer = caller.call(kind, |out, header| append_raw(out, header, b"")).await;
        expect(&answer, Status::Unsupported, &format!("does not serve {kind}"));
    }
    // A client cannot replicate over the data protocol, whatever it says it is.
    let establish = establish(here);
    let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &establish, &[]);
    expect(&caller.call(MessageKind::ESTABLISH, build).await, Status::Unsupported, "does not serve ESTABLISH");
    let point = CommitPoint { ballot: Ballot(99), committed: Decree(99) };
    let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &point, &[]);
    expect(&caller.call(MessageKind::COMMIT_POINT, build).await, Status::Unsupported, "does not serve COMMIT_POINT");
    stage.finish().await;
}

fn establish(partition: PartitionId) -> Establish {
    let node = pegasus_wire::NodeId(1);
    let table = pegasus_wire::TableProperties {
        table: partition.table,
        name: "table".to_owned(),
        partition_count: PARTITIONS,
        replica_count: 1,
        durability: pegasus_wire::Durability::Synced,
    };
    Establish {
        cluster: ClusterId(1),
        partition,
        sender: node,
        receiver: node,
        table,
        configuration: Configuration { ballot: Ballot(99), primary: Some(node), secondaries: Vec::new() },
        last_decree: Decree(0),
        committed: Decree(0),
    }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A frame with any bytes as its body.
fn append_raw(out: &mut Vec<u8>, header: FrameHeader, body: &[u8]) {
    let start = out.len();
    FrameBuilder::append_empty(out, header, &[]);
    out.extend_from_slice(body);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_frames_end_the_connection_they_came_on() {
    let stage = Stage::new(2).await;
    let header = FrameHeader::request(MessageKind::GET, 1, 1000);
    let frame = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        append_raw(&mut bytes, header, &[0; 40]);
        change(&mut bytes);
        bytes
    };
    let too_large = (FRAME_BYTES_MAX as u32).to_le_bytes();
    let cases = [
        (frame(&|bytes| bytes[..4].copy_from_slice(&too_large)), "frame_bytes_max"),
        (frame(&|bytes| bytes[..4].copy_from_slice(&[0xFF; 4])), "frame_bytes_max"),
        (frame(&|bytes| bytes[..4].copy_from_slice(&10u32.to_le_bytes())), "shorter than its header"),
        (frame(&|bytes| bytes[20..24].copy_from_slice(&[0xFF; 4])), "attachment is longer than the frame"),
        (frame(&|bytes| bytes[6..8].copy_from_slice(&[0xFF; 2])), "unknown status"),
    ];
    for (bytes, words) in cases {
        let caller = stage.scene.caller().await;
        let (mut writer, mut reader) = caller.connection.open().await.unwrap();
        writer.write(&bytes).await.unwrap();
        let error = until_error(&mut reader).await;
        assert!(matches!(error, RpcError::ClosedByPeer { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error} does not say {words:?}");
    }
    // Half a frame and then nothing holds up nobody, and is no error until the stream ends.
    let caller = stage.scene.caller().await;
    let (mut writer, _reader) = caller.connection.open().await.unwrap();
    writer.write(&frame(&|bytes| bytes.truncate(30))).await.unwrap();
    let here = stage.partition_of(b"key");
    let got = caller.get(here, b"key", b"s").await;
    assert_eq!(got.header.status, Status::NotFound);
    stage.finish().await;
}

async fn until_error(reader: &mut FrameReader) -> RpcError {
    let error = async {
        loop {
            match reader.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended in good order"),
                Err(error) => return error,
            }
        }
    };
    tokio::time::timeout(PATIENCE, error).await.expect("the connection is closed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_datagrams_disturb_nobody() {
    let stage = Stage::new(3).await;
    let caller = stage.scene.caller().await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut noise = 88172645463325252u64;
    let here = stage.partition_of(b"key");
    for round in 0..3000u32 {
        let length = [0, 1, 4, 20, 21, 100, 1200, 1472, 9000][round as usize % 9];
        let mut bytes: Vec<u8> = (0..length).map(|_| random(&mut noise) as u8).collect();
        match round % 4 {
            // What a first packet of a connection, of version 1, begins with.
            0 if length > 20 => bytes[..6].copy_from_slice(&[0xC3, 0, 0, 0, 1, 8]),
            // A version that nobody speaks.
            1 if length > 20 => bytes[..6].copy_from_slice(&[0xC0, 0x1A, 0x2A, 0x3A, 0x4A, 8]),
            // A packet of a connection.
            2 if length > 20 => bytes[0] = 0x40,
            _ => {}
        }
        socket.send_to(&bytes, stage.scene.node_address()).unwrap();
        if round % 100 == 0 {
            let set = caller.set(here, b"key", &bytes).await;
            assert_eq!(set.header.status, Status::Ok, "{}", reason(&set));
            assert_eq!(&caller.get(here, b"key", b"s").await.attachment[..], &bytes[..]);
        }
    }
    // New connections are made as before.
    let again = stage.scene.caller().await;
    assert_eq!(again.get(here, b"key", b"s").await.header.status, Status::Ok);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_open_only_what_they_are_for() {
    let stage = Stage::new(4).await;
    let address = stage.scene.node_address();
    let here = stage.partition_of(b"key");
    // Replication is for storage nodes.
    for role in [Role::Client, Role::Meta] {
        let endpoint = Endpoint::client(Runtime::tokio(), stage.scene.identity(role)).unwrap();
        let error = endpoint.connect(address, Role::Replica, Alpn::Peer).await.unwrap_err();
        assert!(matches!(error, RpcError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("replica"), "{error}");
        let error = endpoint.connect(address, Role::Replica, Alpn::Meta).await.unwrap_err();
        assert!(error.to_string().contains("application protocol"), "{error}");
    }
    // A certificate of another authority, by one that knows ours too, and by one that does not.
    let authority = Authority::generate().unwrap();
    let ours = std::fs::read_to_string(stage.scene.path("tls").join("ca.crt")).unwrap();
    for role in Role::ALL {
        let issued = authority.issue(role).unwrap();
        let both = format!("{}{ours}", authority.certificate());
        let stranger = Identity::from_pem(&issued.certificate, &issued.key, &both).unwrap();
        let endpoint = Endpoint::client(Runtime::tokio(), stranger).unwrap();
        for alpn in [Alpn::Data, Alpn::Peer] {
            let error = endpoint.connect(address, Role::Replica, alpn).await.unwrap_err();
            assert!(matches!(error, RpcError::Refused { .. }), "{error}");
            assert!(error.to_string().contains("does not accept our certificate"), "{error}");
        }
        let stranger = Identity::from_pem(&issued.certificate, &issued.key, authority.certificate()).unwrap();
        let endpoint = Endpoint::client(Runtime::tokio(), stranger).unwrap();
        let error = endpoint.connect(address, Role::Replica, Alpn::Data).await.unwrap_err();
        assert!(matches!(error, RpcError::Untrusted { .. }), "{error}");
    }
    // A storage node that says nonsense about a partition changes nothing there.
    let endpoint = Endpoint::client(Runtime::tokio(), stage.scene.identity(Role::Replica)).unwrap();
    let connection = endpoint.connect(address, Role::Replica, Alpn::Peer).await.unwrap();
    for (kind, body) in [(MessageKind::ESTABLISH, &[1u8; 64][..]), (MessageKind::PREPARE, &[][..])] {
        let (mut writer, mut reader) = connection.open().await.unwrap();
        let mut bytes = Vec::new();
        append_raw(&mut bytes, FrameHeader::request(kind, 0, 0), body);
        writer.write(&bytes).await.unwrap();
        let answer = reader.next().await.unwrap().expect("an answer");
        assert_eq!(answer.header.status, Status::Malformed, "{}", reason(&answer));
    }
    let (mut writer, mut reader) = connection.open().await.unwrap();
    let mut bytes = Vec::new();
    FrameBuilder::append(&mut bytes, FrameHeader::request(MessageKind::ESTABLISH, 0, 0), &establish(here), &[]);
    writer.write(&bytes).await.unwrap();
    let answer = reader.next().await.unwrap().expect("an answer");
    assert_eq!(answer.header.status, Status::WrongCluster, "{}", reason(&answer));
    let log = stage.node.log();
    assert!(log.contains("WARN") && log.contains("replica"), "refused peers are not logged: {log}");
    stage.finish().await;
}
