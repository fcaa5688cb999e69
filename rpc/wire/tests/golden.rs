//! A byte image of every message. A layout that changes by accident fails here, before it reaches another release.
//!
//! Each image is a whole frame, kept as a hex dump in `tests/golden`. A message that changes on purpose becomes a
//! new kind with a new number and a new image; the images of released kinds stay as they are. While nothing is
//! released yet, `UPDATE_GOLDEN=1 cargo test -p pegasus-wire --test golden` writes the dumps again.

#![allow(clippy::unwrap_used)]

mod images;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::BytesMut;
use images::control::{available, dropped, environment, table_reply};
use images::data::CONTEXT;
use images::*;
use pegasus_wire::messages::control::*;
use pegasus_wire::messages::data::*;
use pegasus_wire::messages::peer::*;
use pegasus_wire::messages::{ErrorReply, Hello};
use pegasus_wire::{
    Ballot, Configuration, Decree, Durability, Frame, MessageKind, MutationKind, NodeId, PartitionId, Status, TableId,
};

#[test]
fn every_image_is_as_stored() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut changed = Vec::new();
    for image in all() {
        let path = golden_path(image.name);
        let dump = hex_dump(&image.bytes);
        if update {
            std::fs::write(&path, &dump).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != dump {
            changed.push(image.name);
        }
    }
    assert!(
        changed.is_empty(),
        "the bytes of {changed:?} are not those in tests/golden. A changed message must become a new kind; \
         if no release has spoken it yet, run UPDATE_GOLDEN=1 cargo test -p pegasus-wire --test golden"
    );
}

#[test]
fn every_kind_has_an_image() {
    let images = all();
    for (kind, name) in MessageKind::ALL {
        assert!(images.iter().any(|image| image.kind == *kind), "add an image of {name} to tests/images/mod.rs");
    }
}

#[test]
fn every_stored_file_has_an_image() {
    let names: Vec<String> = all().iter().map(|image| format!("{}.hex", image.name)).collect();
    for entry in std::fs::read_dir(golden_directory()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&file), "tests/golden/{file} belongs to no image; delete it");
    }
    let mut unique = names.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), names.len(), "two images share a name");
}

#[test]
fn every_stored_image_is_read_by_its_message() {
    let stored = stored();
    for image in all() {
        let frame = &stored[image.name];
        assert_eq!(frame.header.kind, image.kind, "{}", image.name);
        let summed = (image.read)(frame).unwrap_or_else(|error| panic!("{}: {error}", image.name));
        assert!(summed > 0 || frame.body.is_empty() || image.name.starts_with("list_"), "{}", image.name);
    }
}

#[test]
fn headers_read_back() {
    let stored = stored();
    let header = stored["get"].header;
    assert_eq!((header.kind, header.status), (MessageKind::GET, Status::Ok));
    assert_eq!((header.request_id, header.time_left_ms), (REQUEST_ID, TIME_LEFT_MS));
    let header = stored["get_answer"].header;
    assert_eq!((header.request_id, header.time_left_ms), (REQUEST_ID, 0));
    let header = stored["refuse"].header;
    assert_eq!((header.status, header.request_id), (Status::Gap, 0));
    assert_eq!(stored["empty_answer"].header.status, Status::NotFound);
    assert!(stored["empty_answer"].body.is_empty() && stored["empty_answer"].error().is_none());
}

#[test]
fn connection_messages_read_back() {
    let stored = stored();
    let hello: Hello = stored["hello"].decode().unwrap();
    assert_eq!(hello, Hello { version_min: 1, version_max: 1, cluster: Some(CLUSTER) });
    let hello: Hello = stored["hello_of_a_client"].decode().unwrap();
    assert_eq!(hello, Hello { version_min: 1, version_max: 2, cluster: None });
    let frame = &stored["error_answer"];
    assert_eq!((frame.header.kind, frame.header.status), (MessageKind::WRITE, Status::NotPrimary));
    let expected =
        ErrorReply { message: "node a1 is not the primary of 2.7".into(), endpoint: Some(address_v6(34802)) };
    assert_eq!(frame.error(), Some(expected));
}

#[test]
fn reads_read_back() {
    let stored = stored();
    let get = stored["get"].body::<ArchivedGet<'_>>().unwrap();
    assert_eq!(PartitionId::from(&get.partition), partition());
    assert_eq!((&*get.hash_key, &*get.sort_key, get.no_value), (&b"hash"[..], &b"sort"[..], false));
    let frame = &stored["get_answer"];
    assert_eq!(frame.body::<ArchivedGetReply>().unwrap().ttl_seconds.to_native(), -1);
    assert_eq!(frame.attachment, &b"the value\0\xFE"[..]);

    let by_keys = stored["multi_get_keys"].body::<ArchivedMultiGet<'_>>().unwrap();
    let keys: Vec<&[u8]> = by_keys.sort_keys.iter().map(|key| &*key.bytes).collect();
    assert_eq!(keys, [&b"one"[..], b"", b"a longer sort key"]);
    let by_range = stored["multi_get_range"].body::<ArchivedMultiGet<'_>>().unwrap();
    assert!(by_range.sort_keys.is_empty() && by_range.reverse && by_range.no_value && by_range.count_only);
    assert!(!by_keys.reverse && !by_keys.no_value && !by_keys.count_only);
    assert!(by_keys.range.plain().is_all() && by_keys.filter.plain().is_off());
    assert_eq!(ends(&by_range.range), (&b"a"[..], true, &b"z"[..], false));
    let filter = by_range.filter.plain();
    assert_eq!((filter.kind, filter.pattern), (FilterKind::Postfix, &b".log"[..]));
    assert_eq!((by_range.rows_max.to_native(), by_range.bytes_max.to_native()), (1000, 65_536));

    let scan = stored["scan"].body::<ArchivedScan<'_>>().unwrap();
    assert_eq!((&*scan.start, &*scan.stop), (&b"\0\x04hashsort"[..], &b"\xFF\xFF"[..]));
    assert!(!scan.start_inclusive && scan.no_value && !scan.count_only && scan.reverse && scan.keep_context);
    assert_eq!((scan.rows_max.to_native(), scan.context.to_native()), (100, CONTEXT));
    assert_eq!(ends(&scan.sort_keys), (&b"a"[..], false, &b"f"[..], true));
    let filters = [scan.hash_key_filter.plain(), scan.sort_key_filter.plain()];
    assert_eq!(filters.map(|filter| filter.kind), [FilterKind::Prefix, FilterKind::Exact]);
    assert_eq!(filters.map(|filter| filter.pattern), [&b"ha"[..], b"sort"]);
    let plain = stored["scan_without_context"].body::<ArchivedScan<'_>>().unwrap();
    assert!(plain.start_inclusive && plain.count_only && !plain.reverse && !plain.keep_context);
    assert_eq!(plain.context.to_native(), 0);
    let end: EndScan = stored["end_scan"].decode().unwrap();
    assert_eq!(end, EndScan { partition: partition(), context: CONTEXT });

    let rows = stored["multi_get_answer"].body::<ArchivedRows<'_>>().unwrap();
    assert_eq!((rows.count.to_native(), rows.complete, &*rows.resume_after), (2, false, &b"two"[..]));
    let read: Vec<(&[u8], &[u8], u32)> =
        rows.rows.iter().map(|row| (&*row.key, &*row.value, row.expiry_seconds.to_native())).collect();
    assert_eq!(read, [(&b"one"[..], &b"first"[..], 0), (b"two", b"", 300_000_000)]);
    let counted = stored["scan_answer"].body::<ArchivedRows<'_>>().unwrap();
    assert_eq!((counted.rows.len(), counted.count.to_native(), counted.complete), (0, 3000, false));
    assert_eq!((&*counted.resume_after, counted.context.to_native()), (&b"\0\x04hash"[..], CONTEXT + 1));
}

#[test]
fn writes_read_back() {
    let stored = stored();
    let write = stored["write"].body::<ArchivedWrite<'_>>().unwrap();
    assert_eq!((PartitionId::from(&write.partition), &*write.hash_key), (partition(), &b"hash"[..]));
    let [first, second, range, last] = &*write.operations else { panic!("four operations") };
    let put = |operation: &ArchivedRowOperation<'_>| match operation {
        ArchivedRowOperation::Put { sort_key, value, expiry_seconds } => {
            (sort_key.to_vec(), value.to_vec(), expiry_seconds.to_native())
        }
        ArchivedRowOperation::Delete { .. } | ArchivedRowOperation::DeleteRange { .. } => panic!("a put"),
    };
    assert_eq!(put(first), (b"one".to_vec(), b"first value".to_vec(), 300_000_000));
    assert!(matches!(second, ArchivedRowOperation::Delete { sort_key } if **sort_key == *b"two"));
    let ArchivedRowOperation::DeleteRange { range } = range else { panic!("a range") };
    assert_eq!(ends(range), (&b"c"[..], false, &b"e"[..], true));
    assert_eq!(put(last), (vec![], vec![], 0));
    let reply = stored["write_answer"].body::<ArchivedWriteReply>().unwrap();
    assert_eq!(reply.decree.0.to_native(), 42);
}

#[test]
fn read_dependent_operations_read_back() {
    let stored = stored();
    let expiry = |name: &str| match &stored[name].body::<ArchivedIncrement<'_>>().unwrap().expiry {
        ArchivedExpiryChange::Keep => ExpiryChange::Keep,
        ArchivedExpiryChange::Set(seconds) => ExpiryChange::Set(seconds.to_native()),
        ArchivedExpiryChange::Clear => ExpiryChange::Clear,
    };
    assert_eq!(expiry("increment"), ExpiryChange::Keep);
    assert_eq!(expiry("increment_that_expires"), ExpiryChange::Set(300_000_000));
    assert_eq!(expiry("increment_for_ever"), ExpiryChange::Clear);
    let increment = stored["increment"].body::<ArchivedIncrement<'_>>().unwrap();
    assert_eq!((&*increment.hash_key, &*increment.sort_key), (&b"hash"[..], &b"sort"[..]));
    assert_eq!(increment.increment.to_native(), -3);
    let reply: IncrementReply = stored["increment_answer"].decode().unwrap();
    assert_eq!(reply, IncrementReply { value: i64::MIN, decree: Decree(43) });

    let check = stored["check_and_write"].body::<ArchivedCheckAndWrite<'_>>().unwrap();
    assert_eq!(Check::from(check.check), Check::IntegerGreaterOrEqual);
    assert_eq!((&*check.check_sort_key, &*check.operand), (&b"sort"[..], &b"17"[..]));
    assert_eq!((check.operations.len(), check.return_value), (4, true));
    let frame = &stored["check_and_write_answer"];
    let reply: CheckReply = frame.decode().unwrap();
    assert_eq!(reply, CheckReply { written: false, exists: true, decree: Decree(44) });
    assert_eq!(frame.attachment, &b"16"[..]);

    let query: QueryCopy = stored["query_copy"].decode().unwrap();
    assert_eq!(query, QueryCopy { partition: partition() });
    let reply: CopyReply = stored["query_copy_answer"].decode().unwrap();
    assert_eq!((reply.primary, reply.applied, reply.compaction), (true, Decree(45), CompactionState::Running));
    assert_eq!((reply.file_bytes, reply.estimated_rows), (65 << 20, 1_000_000));
    assert_eq!((reply.compaction_ended_seconds, reply.compaction_percent), (1_700_000_000, 37));
}

#[test]
fn every_check_has_its_number() {
    for (number, check) in Check::ALL.into_iter().enumerate() {
        assert_eq!((check as usize, Check::from_code(number as u8)), (number, Some(check)));
        let archived = rkyv::to_bytes::<rkyv::rancor::Error>(&check).unwrap();
        let archived = rkyv::access::<ArchivedCheck, rkyv::rancor::Error>(&archived).unwrap();
        assert_eq!(Check::from(*archived), check);
    }
    assert_eq!(Check::from_code(18), None);
}

#[test]
fn peer_messages_read_back() {
    let stored = stored();
    let establish: Establish = stored["establish"].decode().unwrap();
    assert_eq!((establish.cluster, establish.partition, establish.sender), (CLUSTER, partition(), NodeId(0xA1)));
    assert_eq!((establish.table, establish.configuration), (table(), configuration()));
    assert_eq!((establish.last_decree, establish.committed), (Decree(41), Decree(40)));
    let established: Established = stored["establish_answer"].decode().unwrap();
    let expected = Established { ballot: Ballot(3), next_decree: Decree(39), committed: Decree(38), uncertain: true };
    assert_eq!(established, expected);

    let frame = &stored["prepare"];
    let prepare: Prepare = frame.decode().unwrap();
    assert_eq!((prepare.ballot, prepare.decree, prepare.committed), (Ballot(3), Decree(42), Decree(40)));
    assert_eq!(prepare.timestamp_micros, TIMESTAMP_MICROS);
    assert_eq!(MutationKind::from_code(prepare.mutation_kind), Some(MutationKind::Write));
    assert_eq!(frame.attachment, PAYLOAD);

    let acknowledge: Acknowledge = stored["acknowledge"].decode().unwrap();
    assert_eq!(acknowledge, Acknowledge { ballot: Ballot(3), logged: Decree(42) });
    let commit_point: CommitPoint = stored["commit_point"].decode().unwrap();
    assert_eq!(commit_point, CommitPoint { ballot: Ballot(3), committed: Decree(42) });
    let refuse: Refuse = stored["refuse"].decode().unwrap();
    assert_eq!((refuse.ballot, refuse.next_decree), (Ballot(4), Decree(40)));
    assert_eq!(refuse.message, "a prepare leaves a gap");
}

#[test]
fn node_messages_read_back() {
    let stored = stored();
    let register: RegisterNode = stored["register_node"].decode().unwrap();
    assert_eq!((register.cluster, register.node, register.cores), (None, NodeId(0xA1), 2));
    assert_eq!((register.address, register.admin_address), (address(34801), address_v6(34901)));
    let states: Vec<ReplicaState> = register.replicas.iter().map(|report| report.state).collect();
    assert_eq!(states[..2], [ReplicaState::Whole, ReplicaState::Damaged]);
    assert_eq!((register.replicas[1].partition, register.replicas[1].ballot), (PartitionId::new(1, 0), Ballot(9)));
    let registered: Registered = stored["register_node_answer"].decode().unwrap();
    assert_eq!(registered, Registered { cluster: CLUSTER });

    let watch: WatchAssignments = stored["watch_assignments"].decode().unwrap();
    assert_eq!(watch, WatchAssignments { node: NodeId(0xA1), revision: 17, wait_ms: 10_000 });
    let assignments: Assignments = stored["watch_assignments_answer"].decode().unwrap();
    assert_eq!((assignments.revision, &assignments.tables[..]), (18, &[available(), dropped()][..]));
    assert_eq!(assignments.partitions[0].configuration, configuration());
    assert_eq!(assignments.nodes, [node()]);

    let proposal: ProposeConfiguration = stored["propose_configuration"].decode().unwrap();
    assert_eq!((proposal.partition, proposal.proposer), (partition(), NodeId(0xA1)));
    assert_eq!((proposal.expected_ballot, proposal.configuration), (Ballot(2), configuration()));
    let frame = &stored["propose_configuration_answer"];
    assert_eq!(frame.header.status, Status::BallotConflict);
    let reply: ProposalReply = frame.decode().unwrap();
    assert_eq!(reply.configuration, Configuration { primary: None, ..configuration() });
}

#[test]
fn table_and_cluster_messages_read_back() {
    let stored = stored();
    let create: CreateTable = stored["create_table"].decode().unwrap();
    assert_eq!((create.name.as_str(), create.partition_count, create.replica_count), ("temperatures", 8, 3));
    assert_eq!((create.durability, create.if_not_exists), (Durability::Synced, true));
    for name in ["create_table_answer", "query_table_answer"] {
        let reply: TableReply = stored[name].decode().unwrap();
        assert_eq!(reply, table_reply());
    }
    let list: TableList = stored["list_tables_answer"].decode().unwrap();
    assert_eq!(list.tables, [available(), dropped()]);
    let query: QueryTable = stored["query_table"].decode().unwrap();
    assert_eq!(query.name, "temperatures");

    let reply: ClusterReply = stored["query_cluster_answer"].decode().unwrap();
    assert_eq!((reply.cluster, reply.meta_addresses), (CLUSTER, vec![address(34601), address_v6(34602)]));
    let summary = &reply.nodes[0];
    assert_eq!((&summary.info, summary.primaries, summary.secondaries, summary.damaged), (&node(), 4, 8, 1));
    let table = &reply.tables[0];
    assert_eq!((table.table, table.name.as_str()), (TableId(2), "temperatures"));
    assert_eq!((table.healthy_partitions, table.partition_count), (7, 8));
}

#[test]
fn messages_of_a_tables_life_read_back() {
    let stored = stored();
    let drop: DropTable = stored["drop_table"].decode().unwrap();
    assert_eq!((drop.name.as_str(), drop.hold_seconds, drop.if_exists), ("temperatures", Some(3600), true));
    let recall: RecallTable = stored["recall_table"].decode().unwrap();
    assert_eq!((recall.table, recall.name.as_deref()), (TableId(3), Some("temperatures.old")));
    let rename: RenameTable = stored["rename_table"].decode().unwrap();
    assert_eq!((rename.name.as_str(), rename.new_name.as_str()), ("temperatures", "t"));
    let purge: PurgeTable = stored["purge_table"].decode().unwrap();
    assert_eq!(purge, PurgeTable { table: TableId(3) });
    let change: ChangeEnvironment = stored["change_environment"].decode().unwrap();
    assert_eq!((change.name.as_str(), change.clear, change.set), ("temperatures", true, environment()));
    assert_eq!(change.delete, ["business.info"]);
    for name in ["drop", "recall", "rename"] {
        let reply: TableReply = stored[format!("{name}_table_answer").as_str()].decode().unwrap();
        assert_eq!(reply, table_reply());
    }
    let reply: TableReply = stored["change_environment_answer"].decode().unwrap();
    assert_eq!(reply, table_reply());
}

#[test]
fn hex_dumps_round_trip() {
    let bytes: Vec<u8> = (0..=255).collect();
    let dump = hex_dump(&bytes);
    assert!(dump.starts_with("00000000  00 01 02 "), "{dump}");
    assert!(dump.contains("00000040  40 41 42 "), "{dump}");
    assert!(dump.contains("|@ABC"), "{dump}");
    assert_eq!(parse_hex_dump(&dump), bytes);
}

/// Start and stop of a range, each with whether it belongs to it.
fn ends<'a>(range: &'a ArchivedSortKeys<'_>) -> (&'a [u8], bool, &'a [u8], bool) {
    let range = range.plain();
    (range.start, range.start_inclusive, range.stop, range.stop_inclusive)
}

/// The stored images as frames, by name.
fn stored() -> BTreeMap<&'static str, Frame> {
    let load = |image: Image| {
        let text = std::fs::read_to_string(golden_path(image.name)).unwrap_or_else(|error| {
            panic!("tests/golden/{}.hex: {error}; see the head of tests/golden.rs", image.name);
        });
        let mut buffer = BytesMut::from(&parse_hex_dump(&text)[..]);
        let frame = Frame::take(&mut buffer).unwrap().expect("a whole frame");
        assert!(buffer.is_empty(), "{} is followed by {} more bytes", image.name, buffer.len());
        (image.name, frame)
    };
    all().into_iter().map(load).collect()
}

/// Asked for when the test runs: it may have been compiled in another checkout that shares the target directory.
fn golden_directory() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("tests/golden")
}

fn golden_path(name: &str) -> PathBuf {
    golden_directory().join(format!("{name}.hex"))
}

/// Sixteen bytes a line: offset, hex, the printable characters.
fn hex_dump(bytes: &[u8]) -> String {
    let line = |(index, chunk): (usize, &[u8])| {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let printable = |&byte: &u8| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' };
        let text: String = chunk.iter().map(printable).collect();
        format!("{:08x}  {:<47}  |{text}|\n", index * 16, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

fn parse_hex_dump(dump: &str) -> Vec<u8> {
    let line = |line: &str| -> Vec<u8> {
        line[10..57].split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    };
    dump.lines().flat_map(line).collect()
}
