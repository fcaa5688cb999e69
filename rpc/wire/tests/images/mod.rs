//! One frame of every message with fixed contents, and a reader for each that touches all of it.
//!
//! Shared by `golden.rs` (the bytes never change by accident) and `hostile.rs` (changed bytes never hurt).

use std::net::SocketAddr;

use pegasus_wire::frame::WireError;
use pegasus_wire::messages::control::*;
use pegasus_wire::messages::data::*;
use pegasus_wire::messages::peer::*;
use pegasus_wire::messages::{ErrorReply, Hello};
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Decree, Durability, Frame, FrameBuilder, FrameHeader, MessageKind, NodeId,
    NodeInfo, PartitionId, Status, TableId, TableProperties,
};

/// A frame with a name, and how to read it.
pub(crate) struct Image {
    /// File name in `tests/golden`, without its ending.
    pub(crate) name: &'static str,
    /// The kind in its header.
    pub(crate) kind: MessageKind,
    /// The whole frame.
    pub(crate) bytes: Vec<u8>,
    /// Checks the body as this message and touches every byte of it.
    pub(crate) read: fn(&Frame) -> Result<u64, WireError>,
}

pub(crate) const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef);
pub(crate) const REQUEST_ID: u64 = 0x1122_3344_5566_7788;
pub(crate) const TIME_LEFT_MS: u32 = 5000;
pub(crate) const TIMESTAMP_MICROS: u64 = 1_700_000_000_123_456;

/// All images; every kind of `MessageKind::ALL` occurs.
pub(crate) fn all() -> Vec<Image> {
    let mut images = Vec::new();
    connection(&mut images);
    data_reads(&mut images);
    data_writes(&mut images);
    peer(&mut images);
    nodes(&mut images);
    tables(&mut images);
    cluster(&mut images);
    images
}

pub(crate) fn partition() -> PartitionId {
    PartitionId::new(2, 7)
}

pub(crate) fn configuration() -> Configuration {
    Configuration { ballot: Ballot(3), primary: Some(NodeId(0xA1)), secondaries: vec![NodeId(0xB2), NodeId(0xC3)] }
}

pub(crate) fn table() -> TableProperties {
    TableProperties {
        table: TableId(2),
        name: "temperatures".into(),
        partition_count: 8,
        replica_count: 3,
        durability: Durability::Written,
    }
}

pub(crate) fn node() -> NodeInfo {
    NodeInfo { node: NodeId(0xA1), address: address(34801), admin_address: address(34901), cores: 2, alive: true }
}

pub(crate) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(crate) fn address_v6(port: u16) -> SocketAddr {
    SocketAddr::from(([0xfe80, 0, 0, 0, 0, 0, 0, 1], port))
}

/// Stands for the body of a `Write`; the wire does not look into an attachment.
pub(crate) const PAYLOAD: &[u8] = b"\x00payload of a mutation\xFF";

fn connection(images: &mut Vec<Image>) {
    let hello = Hello { version_min: 1, version_max: 1, cluster: Some(CLUSTER) };
    images.push(request("hello", MessageKind::HELLO, &hello, read_owned::<Hello>));
    let stranger = Hello { version_min: 1, version_max: 2, cluster: None };
    images.push(request("hello_of_a_client", MessageKind::HELLO, &stranger, read_owned::<Hello>));

    let header = FrameHeader::request(MessageKind::WRITE, REQUEST_ID, TIME_LEFT_MS);
    let error = ErrorReply { message: "node a1 is not the primary of 2.7".into(), endpoint: Some(address_v6(34802)) };
    let mut bytes = Vec::new();
    FrameBuilder::append_error(&mut bytes, &header, Status::NotPrimary, &error);
    images.push(Image { name: "error_answer", kind: MessageKind::WRITE, bytes, read: read_owned::<ErrorReply> });

    let mut bytes = Vec::new();
    FrameBuilder::append_empty(&mut bytes, FrameHeader::answer(MessageKind::GET, REQUEST_ID, Status::NotFound), &[]);
    images.push(Image { name: "empty_answer", kind: MessageKind::GET, bytes, read: |frame| Ok(sum(&frame.body)) });
}

fn data_reads(images: &mut Vec<Image>) {
    let get = Get { partition: partition(), hash_key: b"hash", sort_key: b"sort", no_value: false };
    images.push(request("get", MessageKind::GET, &get, read_get));
    let header = FrameHeader::answer(MessageKind::GET, REQUEST_ID, Status::Ok);
    let mut bytes = Vec::new();
    FrameBuilder::append(&mut bytes, header, &GetReply { ttl_seconds: -1 }, b"the value\0\xFE");
    images.push(Image { name: "get_answer", kind: MessageKind::GET, bytes, read: read_get_reply });

    let keys = [SortKey { bytes: b"one" }, SortKey { bytes: b"" }, SortKey { bytes: b"a longer sort key" }];
    images.push(request("multi_get_keys", MessageKind::MULTI_GET, &multi_get(&keys, b"", b""), read_multi_get));
    images.push(request("multi_get_range", MessageKind::MULTI_GET, &multi_get(&[], b"a", b"z"), read_multi_get));
    let rows = [
        Row { key: b"one", value: b"first", expiry_seconds: 0 },
        Row { key: b"two", value: b"", expiry_seconds: 300_000_000 },
    ];
    let answer = Rows { rows: &rows, count: 2, complete: false, resume_after: b"two" };
    images.push(self::answer("multi_get_answer", MessageKind::MULTI_GET, &answer, read_rows));

    let scan = Scan {
        partition: partition(),
        start: b"\0\x04hashsort",
        stop: b"\xFF\xFF",
        start_inclusive: false,
        no_value: true,
        count_only: false,
        rows_max: 100,
    };
    images.push(request("scan", MessageKind::SCAN, &scan, read_scan));
    let counted = Rows { rows: &[], count: 3000, complete: true, resume_after: b"" };
    images.push(self::answer("scan_answer", MessageKind::SCAN, &counted, read_rows));
}

fn multi_get<'a>(sort_keys: &'a [SortKey<'a>], start: &'a [u8], stop: &'a [u8]) -> MultiGet<'a> {
    MultiGet {
        partition: partition(),
        hash_key: b"hash",
        sort_keys,
        start,
        stop,
        start_inclusive: true,
        stop_inclusive: false,
        no_value: false,
        rows_max: 1000,
        bytes_max: 65_536,
    }
}

fn data_writes(images: &mut Vec<Image>) {
    let operations = [
        RowOperation::Put { sort_key: b"one", value: b"first value", expiry_seconds: 300_000_000 },
        RowOperation::Delete { sort_key: b"two" },
        RowOperation::Put { sort_key: b"", value: b"", expiry_seconds: 0 },
    ];
    let write = Write { partition: partition(), hash_key: b"hash", operations: &operations };
    images.push(request("write", MessageKind::WRITE, &write, read_write));
    images.push(answer("write_answer", MessageKind::WRITE, &WriteReply { decree: Decree(42) }, read_write_reply));
}

fn peer(images: &mut Vec<Image>) {
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

fn report(partition: PartitionId, ballot: u64, state: ReplicaState) -> ReplicaReport {
    ReplicaReport { partition, ballot: Ballot(ballot), state, last: Decree(7 * ballot) }
}

fn nodes(images: &mut Vec<Image>) {
    let register = RegisterNode {
        cluster: None,
        node: NodeId(0xA1),
        address: address(34801),
        admin_address: address_v6(34901),
        cores: 2,
        replicas: vec![
            report(partition(), 3, ReplicaState::Whole),
            report(PartitionId::new(1, 0), 9, ReplicaState::Damaged),
            report(PartitionId::new(1, 1), 9, ReplicaState::Uncertain),
            report(PartitionId::new(1, 2), 9, ReplicaState::Learning),
            report(PartitionId::new(1, 3), 0, ReplicaState::Missing),
        ],
    };
    images.push(request("register_node", MessageKind::REGISTER_NODE, &register, read_owned::<RegisterNode>));
    let registered = Registered { cluster: CLUSTER };
    let kind = MessageKind::REGISTER_NODE;
    images.push(answer("register_node_answer", kind, &registered, read_owned::<Registered>));

    let watch = WatchAssignments { node: NodeId(0xA1), revision: 17, wait_ms: 10_000 };
    let kind = MessageKind::WATCH_ASSIGNMENTS;
    images.push(request("watch_assignments", kind, &watch, read_owned::<WatchAssignments>));
    let partitions = vec![PartitionConfiguration { partition: partition(), configuration: configuration() }];
    let assignments = Assignments {
        revision: 18,
        tables: vec![table()],
        partitions,
        nodes: vec![node()],
        additions: vec![Addition { partition: partition(), ballot: Ballot(3), node: NodeId(0xD4) }],
        removals: vec![Removal { partition: PartitionId::new(1, 0), ballot: Ballot(10) }],
    };
    images.push(answer("watch_assignments_answer", kind, &assignments, read_owned::<Assignments>));

    let proposal = ProposeConfiguration {
        partition: partition(),
        proposer: NodeId(0xA1),
        expected_ballot: Ballot(2),
        configuration: configuration(),
    };
    let kind = MessageKind::PROPOSE_CONFIGURATION;
    images.push(request("propose_configuration", kind, &proposal, read_owned::<ProposeConfiguration>));
    let reply = ProposalReply { configuration: Configuration { primary: None, ..configuration() } };
    let header = FrameHeader::answer(kind, REQUEST_ID, Status::BallotConflict);
    images.push(build("propose_configuration_answer", header, &reply, read_owned::<ProposalReply>));
}

fn tables(images: &mut Vec<Image>) {
    let create = CreateTable {
        name: "temperatures".into(),
        partition_count: 8,
        replica_count: 3,
        durability: Durability::Synced,
        if_not_exists: true,
    };
    images.push(request("create_table", MessageKind::CREATE_TABLE, &create, read_owned::<CreateTable>));
    let reply = TableReply { table: table(), partitions: vec![configuration()], nodes: vec![node()] };
    images.push(answer("create_table_answer", MessageKind::CREATE_TABLE, &reply, read_owned::<TableReply>));
    images.push(request("list_tables", MessageKind::LIST_TABLES, &ListTables, read_owned::<ListTables>));
    let list = TableList { tables: vec![table(), TableProperties { table: TableId(3), name: "t".into(), ..table() }] };
    images.push(answer("list_tables_answer", MessageKind::LIST_TABLES, &list, read_owned::<TableList>));
    let query = QueryTable { name: "temperatures".into() };
    images.push(request("query_table", MessageKind::QUERY_TABLE, &query, read_owned::<QueryTable>));
    images.push(answer("query_table_answer", MessageKind::QUERY_TABLE, &reply, read_owned::<TableReply>));
}

fn cluster(images: &mut Vec<Image>) {
    let kind = MessageKind::QUERY_CLUSTER;
    images.push(request("query_cluster", kind, &QueryCluster, read_owned::<QueryCluster>));
    let reply = ClusterReply {
        cluster: CLUSTER,
        meta_addresses: vec![address(34601), address_v6(34602)],
        nodes: vec![NodeSummary { info: node(), primaries: 4, secondaries: 8, damaged: 1 }],
        tables: vec![TableSummary {
            table: TableId(2),
            name: "temperatures".into(),
            healthy_partitions: 7,
            partition_count: 8,
        }],
    };
    images.push(answer("query_cluster_answer", kind, &reply, read_owned::<ClusterReply>));
    partitions(images);
}

fn partitions(images: &mut Vec<Image>) {
    let kind = MessageKind::DIAGNOSE_PARTITIONS;
    let diagnose = DiagnosePartitions { table: Some("temperatures".into()) };
    images.push(request("diagnose_partitions", kind, &diagnose, read_owned::<DiagnosePartitions>));
    let diagnosed = PartitionDiagnosis {
        partition: partition(),
        table: "temperatures".into(),
        configuration: configuration(),
        replica_count: 3,
        unavailable: false,
        problems: vec!["node c3 is down".into()],
        waits_for: "node c3 to return".into(),
    };
    let diagnosis = Diagnosis { examined: 8, partitions: vec![diagnosed] };
    images.push(answer("diagnose_partitions_answer", kind, &diagnosis, read_owned::<Diagnosis>));
    let kind = MessageKind::FORCE_CONFIGURATION;
    let force = ForceConfiguration {
        partition: partition(),
        expected_ballot: Ballot(3),
        primary: NodeId(0xC3),
        accept_loss: true,
    };
    images.push(request("force_configuration", kind, &force, read_owned::<ForceConfiguration>));
}

/// What `FrameBuilder::append` accepts, spelled once.
trait Body:
    for<'a> rkyv::Serialize<
        rkyv::api::high::HighSerializer<&'a mut Vec<u8>, rkyv::ser::allocator::ArenaHandle<'a>, rkyv::rancor::Error>,
    >
{
}

impl<T> Body for T where
    T: for<'a> rkyv::Serialize<
            rkyv::api::high::HighSerializer<
                &'a mut Vec<u8>,
                rkyv::ser::allocator::ArenaHandle<'a>,
                rkyv::rancor::Error,
            >,
        >
{
}

type Read = fn(&Frame) -> Result<u64, WireError>;

fn request(name: &'static str, kind: MessageKind, body: &impl Body, read: Read) -> Image {
    build(name, FrameHeader::request(kind, REQUEST_ID, TIME_LEFT_MS), body, read)
}

fn answer(name: &'static str, kind: MessageKind, body: &impl Body, read: Read) -> Image {
    build(name, FrameHeader::answer(kind, REQUEST_ID, Status::Ok), body, read)
}

fn one_way(name: &'static str, kind: MessageKind, status: Status, body: &impl Body, read: Read) -> Image {
    build(name, FrameHeader { kind, status, request_id: 0, time_left_ms: 0 }, body, read)
}

fn build(name: &'static str, header: FrameHeader, body: &impl Body, read: Read) -> Image {
    let mut bytes = Vec::new();
    FrameBuilder::append(&mut bytes, header, body, &[]);
    Image { name, kind: header.kind, bytes, read }
}

/// Sums the bytes, so that each of them is read.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte)).sum()
}

fn read_owned<T>(frame: &Frame) -> Result<u64, WireError>
where
    T: rkyv::Archive + std::fmt::Debug,
    T::Archived: for<'v> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'v, rkyv::rancor::Error>>
        + rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<rkyv::rancor::Error>>,
{
    let message: T = frame.decode()?;
    Ok(sum(format!("{message:?}").as_bytes()) + sum(&frame.attachment))
}

fn read_get(frame: &Frame) -> Result<u64, WireError> {
    let get = frame.body::<ArchivedGet<'_>>()?;
    let fixed = u64::from(PartitionId::from(&get.partition).index) + u64::from(get.no_value);
    Ok(fixed + sum(&get.hash_key) + sum(&get.sort_key))
}

fn read_get_reply(frame: &Frame) -> Result<u64, WireError> {
    let reply = frame.body::<ArchivedGetReply>()?;
    Ok(reply.ttl_seconds.to_native().unsigned_abs() / 2 + sum(&frame.attachment))
}

fn read_multi_get(frame: &Frame) -> Result<u64, WireError> {
    let message = frame.body::<ArchivedMultiGet<'_>>()?;
    let keys: u64 = message.sort_keys.iter().map(|key| sum(&key.bytes)).sum();
    let flags = [message.start_inclusive, message.stop_inclusive, message.no_value];
    let flags: u64 = flags.into_iter().map(u64::from).sum();
    let limits = u64::from(message.rows_max.to_native()) + u64::from(message.bytes_max.to_native());
    Ok(keys + flags + limits + sum(&message.hash_key) + sum(&message.start) + sum(&message.stop))
}

fn read_scan(frame: &Frame) -> Result<u64, WireError> {
    let scan = frame.body::<ArchivedScan<'_>>()?;
    let flags = [scan.start_inclusive, scan.no_value, scan.count_only];
    let flags: u64 = flags.into_iter().map(u64::from).sum();
    Ok(flags + u64::from(scan.rows_max.to_native()) + sum(&scan.start) + sum(&scan.stop))
}

fn read_rows(frame: &Frame) -> Result<u64, WireError> {
    let rows = frame.body::<ArchivedRows<'_>>()?;
    let content: u64 =
        rows.rows.iter().map(|row| sum(&row.key) + sum(&row.value) + u64::from(row.expiry_seconds.to_native())).sum();
    Ok(content + rows.count.to_native() / 2 + u64::from(rows.complete) + sum(&rows.resume_after))
}

fn read_write(frame: &Frame) -> Result<u64, WireError> {
    let write = frame.body::<ArchivedWrite<'_>>()?;
    let operations: u64 = write
        .operations
        .iter()
        .map(|operation| match operation {
            ArchivedRowOperation::Put { sort_key, value, expiry_seconds } => {
                sum(sort_key) + sum(value) + u64::from(expiry_seconds.to_native())
            }
            ArchivedRowOperation::Delete { sort_key } => sum(sort_key),
        })
        .sum();
    Ok(operations + sum(&write.hash_key))
}

fn read_write_reply(frame: &Frame) -> Result<u64, WireError> {
    Ok(frame.body::<ArchivedWriteReply>()?.decree.0.to_native() / 2)
}
