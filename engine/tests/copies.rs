//! The life of a copy on disk, crashed at every step: there is always the old copy or the new one, never a mix.
#![allow(clippy::unwrap_used)]

mod log_support;

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use log_support::{Running, decrees, disk_directory, on_executor, options};
use pegasus_engine::copies::{
    Cleared, CopyError, clear_leftovers, create_learning, delete_removed, list_removed, remove_table, set_aside,
};
use pegasus_engine::descriptor::{
    CopyState, Descriptor, Loaded, copy_directory, create_copy, list, replicas_directory, table_directory,
};
use pegasus_engine::identity::BootId;
use pegasus_engine::log::{LogRecord, RecordKind, RecoveryCopy, RecoveryScope, recover};
use pegasus_engine::table::{
    ApplyMode, ApplyOutcome, CheckpointReader, FinishStep, Incoming, OpenMode, SharedOptions, Table, TableShared,
};
use pegasus_wire::messages::peer::Checkpoint;
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Decree, Durability, Mutation, MutationKind, NodeId, PartitionId,
    ReplicaIncarnation, TableId, TableProperties,
};

const PARTITION: PartitionId = PartitionId { table: TableId(1), index: 0 };
const OLD: ReplicaIncarnation = ReplicaIncarnation(0xA);
const NEW: ReplicaIncarnation = ReplicaIncarnation(0xB);

fn shared() -> TableShared {
    let small = SharedOptions { block_cache_bytes: 1 << 20, background_threads: 2, ..SharedOptions::default() };
    TableShared::new(small).unwrap()
}

fn descriptor(incarnation: ReplicaIncarnation, state: CopyState) -> Descriptor {
    Descriptor {
        cluster: ClusterId(9),
        table: TableProperties {
            table: TableId(1),
            name: "temp".to_owned(),
            partition_count: 8,
            replica_count: 3,
            durability: Durability::Synced,
        },
        partition: PARTITION,
        incarnation,
        configuration: Configuration { ballot: Ballot(2), primary: Some(NodeId(1)), secondaries: vec![NodeId(2)] },
        state,
        boot_id: BootId([3; 16]),
    }
}

/// Mutations without rows: these tests are about decrees.
fn advance(table: &Table, through: u64) {
    let mutation = |decree| Mutation {
        ballot: Ballot(2),
        decree: Decree(decree),
        timestamp_micros: decree,
        kind: MutationKind::Empty,
        payload: Bytes::new(),
    };
    let mutations: Vec<Mutation> = (table.applied().0 + 1..=through).map(mutation).collect();
    assert_eq!(table.apply(&mutations, ApplyMode::Blocking).unwrap(), ApplyOutcome::Applied);
    table.flush().unwrap();
}

fn record(incarnation: ReplicaIncarnation, decree: u64) -> LogRecord {
    LogRecord {
        partition: PARTITION,
        incarnation,
        kind: RecordKind::Mutation(MutationKind::Empty),
        ballot: Ballot(2),
        decree: Decree(decree),
        committed: Decree(decree - 1),
        timestamp_micros: decree,
        payload: Bytes::new(),
    }
}

fn checkpoint_of_eighty(root: &Path) -> (Checkpoint, CheckpointReader) {
    let path = root.join("primary");
    let source = Table::open(&path, &shared(), PARTITION, OpenMode::CreateIfMissing).unwrap();
    advance(&source, 80);
    let image = source.checkpoint(&shared(), &root.join("image")).unwrap();
    (image.checkpoint().clone(), image.read())
}

fn receive(incoming: &mut Incoming, mut reader: CheckpointReader) {
    while let Some(chunk) = reader.next_chunk().unwrap() {
        incoming.write(&chunk).unwrap();
    }
}

/// A directory with everything in it, as a crash leaves it.
fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What a start finds in a data directory: incarnation, state, applied decree.
fn start(data: &Path) -> (ReplicaIncarnation, CopyState, Decree) {
    clear_leftovers(data).unwrap();
    let mut copies = list(data).unwrap();
    assert_eq!(copies.len(), 1);
    let copy = copies.remove(0);
    let Loaded::Valid(descriptor) = copy.descriptor else { panic!("{:?}", copy.descriptor) };
    let path = table_directory(&copy.directory, descriptor.incarnation);
    let table = Table::open(&path, &shared(), PARTITION, OpenMode::Existing).unwrap();
    assert_eq!(table.applied(), table.flushed());
    assert_eq!(names(&copy.directory), ["descriptor".to_owned(), format!("rdb-{}", descriptor.incarnation)]);
    assert_eq!(clear_leftovers(data).unwrap(), Cleared::default(), "once is enough");
    (descriptor.incarnation, descriptor.state, table.applied())
}

fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_swap_that_crashes_anywhere_leaves_the_old_copy_or_the_new_one() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let old_table = create_learning(&data, &descriptor(OLD, CopyState::Learning), &shared()).unwrap();
    advance(&old_table, 50);
    drop(old_table);
    descriptor(OLD, CopyState::Damaged).store(&copy_directory(&data, PARTITION)).unwrap();

    let mut crashes: Vec<(String, PathBuf)> = Vec::new();
    let mut crash = |step: String| {
        let image = root.path().join(format!("crash-{}", crashes.len()));
        copy_all(&data, &image);
        crashes.push((step, image));
    };
    crash("before".to_owned());
    let (checkpoint, reader) = checkpoint_of_eighty(root.path());
    let mut incoming = Incoming::begin(&copy_directory(&data, PARTITION), NEW, &checkpoint, 0).unwrap();
    crash("begun".to_owned());
    receive(&mut incoming, reader);
    let new = descriptor(NEW, CopyState::Learning);
    let mut steps = Vec::new();
    let table = incoming.finish_stepwise(&shared(), &new, |step| {
        steps.push(step);
        crash(format!("{step:?}"));
    });
    let table = table.unwrap();
    assert_eq!(steps, [FinishStep::Received, FinishStep::Synced, FinishStep::Opened, FinishStep::Switched]);
    // A descriptor that was written aside and not put in its place.
    let half = root.path().join("half");
    copy_all(&crashes[crashes.len() - 2].1, &half);
    fs::write(copy_directory(&half, PARTITION).join("descriptor.new"), new.to_bytes()).unwrap();
    drop(table);
    copy_all(&data, &root.path().join("after"));

    for (step, image) in &crashes {
        let expected = match step.as_str() {
            "Switched" => (NEW, CopyState::Learning, Decree(80)),
            _ => (OLD, CopyState::Damaged, Decree(50)),
        };
        assert_eq!(start(image), expected, "{step}");
    }
    fs::remove_file(copy_directory(&half, PARTITION).join("descriptor.new")).unwrap();
    assert_eq!(start(&half), (OLD, CopyState::Damaged, Decree(50)));
    assert_eq!(start(&root.path().join("after")), (NEW, CopyState::Learning, Decree(80)));
}

#[test]
fn each_incarnation_gets_its_own_records_of_the_log() {
    let directory = disk_directory();
    let log_options = options(directory.path());
    let scope: RecoveryScope =
        [(PARTITION, RecoveryCopy { incarnation: OLD, flushed: Decree(50) })].into_iter().collect();
    on_executor(async {
        let running = Running::open(&log_options, &scope).await;
        for decree in 51..=60 {
            running.append(record(OLD, decree), Durability::Synced);
        }
        // The swap happens here.
        running.log.forget(PARTITION);
        running.log.set_flushed(PARTITION, Decree(55));
        for decree in 56..=58 {
            running.append(record(NEW, decree), Durability::Synced);
        }
        running.close().await;
    });
    let recovered = |incarnation, flushed| {
        let copy = RecoveryCopy { incarnation, flushed };
        let scope: RecoveryScope = [(PARTITION, copy)].into_iter().collect();
        decrees(&recover(&log_options, &scope).unwrap(), 0)
    };
    assert_eq!(recovered(OLD, Decree(50)), (51..=60).collect::<Vec<_>>());
    assert_eq!(recovered(NEW, Decree(55)), (56..=58).collect::<Vec<_>>());
    assert_eq!(recovered(NEW, Decree(0)), (56..=58).collect::<Vec<_>>());
    assert!(recovered(ReplicaIncarnation(0xC), Decree(0)).is_empty(), "nobody's records are nobody's");
}

#[test]
fn a_learning_copy_is_made_in_place_of_none_or_of_a_damaged_one() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path();
    let shared = shared();
    let made = create_learning(data, &descriptor(OLD, CopyState::Learning), &shared).unwrap();
    assert_eq!((made.applied(), made.partition()), (Decree(0), PARTITION));
    advance(&made, 7);
    drop(made);
    assert_eq!(start(data), (OLD, CopyState::Learning, Decree(7)));
    let directory = copy_directory(data, PARTITION);
    descriptor(OLD, CopyState::Whole).store(&directory).unwrap();
    assert_eq!(start(data), (OLD, CopyState::Whole, Decree(7)), "promoted");
    descriptor(OLD, CopyState::Learning).store(&directory).unwrap();
    assert_eq!(start(data), (OLD, CopyState::Learning, Decree(7)), "asked to learn again, it keeps what it has");

    descriptor(OLD, CopyState::Damaged).store(&directory).unwrap();
    let again = create_learning(data, &descriptor(OLD, CopyState::Learning), &shared);
    assert!(matches!(again, Err(CopyError::File(_))), "an incarnation is used once: {again:?}");
    // A crash before the descriptor is stored.
    let crashed = root.path().join("crashed");
    copy_all(&replicas_directory(data), &replicas_directory(&crashed));
    let path = table_directory(&copy_directory(&crashed, PARTITION), NEW);
    drop(Table::open(&path, &shared, PARTITION, OpenMode::CreateIfMissing).unwrap());
    assert_eq!(start(&crashed), (OLD, CopyState::Damaged, Decree(7)));

    let made = create_learning(data, &descriptor(NEW, CopyState::Learning), &shared).unwrap();
    assert_eq!(made.applied(), Decree(0));
    drop(made);
    assert!(table_directory(&directory, OLD).exists());
    let error = remove_table(&directory, NEW).unwrap_err().to_string();
    assert!(error.contains("the descriptor names it"), "{error}");
    remove_table(&directory, OLD).unwrap();
    remove_table(&directory, OLD).unwrap();
    assert!(!table_directory(&directory, OLD).exists());
    assert_eq!(start(data), (NEW, CopyState::Learning, Decree(0)));
    // A descriptor nobody can read is replaced as well.
    fs::write(directory.join("descriptor"), b"nonsense").unwrap();
    let last = ReplicaIncarnation(0xC);
    drop(create_learning(data, &descriptor(last, CopyState::Learning), &shared).unwrap());
    assert_eq!(start(data), (last, CopyState::Learning, Decree(0)));
}

#[test]
fn tables_of_the_previous_format_get_their_incarnation_into_their_name() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path();
    let directory = create_copy(data, &descriptor(OLD, CopyState::Whole)).unwrap();
    let table = Table::open(&directory.join("rdb"), &shared(), PARTITION, OpenMode::CreateIfMissing).unwrap();
    advance(&table, 7);
    drop(table);
    let mut version_1 = descriptor(OLD, CopyState::Whole).to_bytes();
    version_1.truncate(version_1.len() - 4);
    version_1[8] = 1;
    version_1.extend_from_slice(&crc32c::crc32c(&version_1).to_le_bytes());
    fs::write(directory.join("descriptor"), &version_1).unwrap();
    // As it was, and as a crash between the two steps leaves it.
    let crashed = data.join("crashed");
    copy_all(&replicas_directory(data), &replicas_directory(&crashed));
    descriptor(OLD, CopyState::Whole).store(&copy_directory(&crashed, PARTITION)).unwrap();
    for data in [data, &crashed] {
        let cleared = clear_leftovers(data).unwrap();
        assert_eq!(cleared, Cleared { tables_renamed: 1, ..Cleared::default() });
        assert_eq!(start(data), (OLD, CopyState::Whole, Decree(7)));
        let bytes = fs::read(copy_directory(data, PARTITION).join("descriptor")).unwrap();
        assert_eq!(bytes[8], 2, "a release that knows only the old name refuses it");
    }
}

#[test]
fn leftovers_go_and_what_may_be_needed_stays() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path();
    assert_eq!(clear_leftovers(data).unwrap(), Cleared::default(), "nothing at all");
    drop(create_learning(data, &descriptor(OLD, CopyState::Learning), &shared()).unwrap());
    let directory = copy_directory(data, PARTITION);
    for name in ["rdb", "rdb-00000000000000ff", "rdb-x"] {
        fs::create_dir(directory.join(name)).unwrap();
        fs::write(directory.join(name).join("CURRENT"), b"").unwrap();
    }
    fs::write(directory.join("note"), b"an operator's").unwrap();
    fs::create_dir_all(data.join("checkpoints/1.0-7.tmp")).unwrap();
    fs::create_dir_all(data.join("checkpoints/1.0-6")).unwrap();
    let cleared = clear_leftovers(data).unwrap();
    assert_eq!(cleared, Cleared { tables_renamed: 0, tables_deleted: 3, checkpoints_deleted: 2 });
    assert_eq!(names(&directory), ["descriptor", "note", "rdb-000000000000000a"]);
    assert!(!data.join("checkpoints").exists());

    // A copy whose own table is lost, one without descriptor and one with a damaged one are left as they are.
    fs::rename(directory.join("rdb-000000000000000a"), directory.join("rdb-00000000000000ee")).unwrap();
    for (name, content) in [("1.1", None), ("1.2", Some(b"nonsense"))] {
        let other = replicas_directory(data).join(name);
        fs::create_dir_all(other.join("rdb-0000000000000001")).unwrap();
        if let Some(content) = content {
            fs::write(other.join("descriptor"), content).unwrap();
        }
    }
    let before: Vec<_> = ["1.0", "1.1", "1.2"].map(|name| names(&replicas_directory(data).join(name))).into();
    assert_eq!(clear_leftovers(data).unwrap(), Cleared::default());
    let after: Vec<_> = ["1.0", "1.1", "1.2"].map(|name| names(&replicas_directory(data).join(name))).into();
    assert_eq!(before, after);
}

#[test]
fn removed_copies_are_held_for_a_time_and_are_no_copies() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path();
    assert_eq!(set_aside(data, PARTITION, 100).unwrap(), None);
    assert_eq!(list_removed(data).unwrap(), []);
    let mut incarnation = 0;
    let mut remove_one = |at: u64| {
        incarnation += 1;
        let made = descriptor(ReplicaIncarnation(incarnation), CopyState::Learning);
        let table = create_learning(data, &made, &shared()).unwrap();
        advance(&table, 3);
        drop(table);
        Descriptor { state: CopyState::Whole, ..made }.store(&copy_directory(data, PARTITION)).unwrap();
        let removed = set_aside(data, PARTITION, at).unwrap().unwrap();
        assert_eq!(list(data).unwrap(), [], "recovery sees no copy");
        removed
    };
    let first = remove_one(100);
    assert_eq!(first.directory, replicas_directory(data).join("1.0.removed.100"));
    let same_second = remove_one(100);
    assert_eq!(same_second.removed_seconds, 101, "nothing is written over");
    let later = remove_one(500);
    fs::create_dir(replicas_directory(data).join("1.0.removed.soon")).unwrap();
    assert_eq!(list_removed(data).unwrap(), [first.clone(), same_second.clone(), later.clone()]);
    assert_eq!(clear_leftovers(data).unwrap(), Cleared::default());

    assert_eq!(delete_removed(data, 50, 10).unwrap(), [], "a clock that was set back");
    assert_eq!(delete_removed(data, 109, 10).unwrap(), []);
    assert_eq!(delete_removed(data, 110, 10).unwrap(), std::slice::from_ref(&first));
    assert_eq!(delete_removed(data, 120, 10).unwrap(), [same_second]);
    assert_eq!(list_removed(data).unwrap(), std::slice::from_ref(&later));
    assert!(!first.directory.exists());

    // Put back by an operator it is a copy again, but does not pass for whole: the log has forgotten it.
    fs::rename(&later.directory, copy_directory(data, PARTITION)).unwrap();
    assert_eq!(start(data), (ReplicaIncarnation(3), CopyState::Learning, Decree(3)));
    // A damaged descriptor does not keep a copy from going.
    fs::write(copy_directory(data, PARTITION).join("descriptor"), b"nonsense").unwrap();
    assert!(set_aside(data, PARTITION, 900).unwrap().is_some());
    assert_eq!(list(data).unwrap(), []);
}
