//! Descriptors, node identity, directory lock: bytes, damage, and what crashes leave behind.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use pegasus_engine::descriptor::{
    CopyState, Descriptor, FileError, Loaded, copy_directory, create_copy, list, table_directory,
};
use pegasus_engine::identity::{BootId, DirectoryLock, IdentityError, NodeIdentity};
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Durability, NodeId, PartitionId, ReplicaIncarnation, TableId, TableProperties,
};

fn descriptor() -> Descriptor {
    Descriptor {
        cluster: ClusterId(0x1122_3344_5566_7788),
        table: TableProperties {
            table: TableId(2),
            name: "temp".to_owned(),
            partition_count: 8,
            replica_count: 3,
            durability: Durability::Written,
        },
        partition: PartitionId::new(2, 7),
        incarnation: ReplicaIncarnation(0x0102_0304_0506_0708),
        configuration: Configuration {
            ballot: Ballot(5),
            primary: Some(NodeId(0xA1)),
            secondaries: vec![NodeId(0xB2), NodeId(0xC3)],
        },
        state: CopyState::Learning,
        boot_id: BootId([0xDD; 16]),
    }
}

#[rustfmt::skip]
const GOLDEN: &[u8] = &[
    b'P', b'E', b'G', b'C', b'O', b'P', b'Y', b'\n', 2, 0, 0, 0, 86, 0, 0, 0,
    0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
    2, 0, 0, 0, 7, 0, 0, 0,
    8, 7, 6, 5, 4, 3, 2, 1,
    0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD, 0xDD,
    8, 0, 0, 0, 3, 1, 1, 4, b't', b'e', b'm', b'p',
    5, 0, 0, 0, 0, 0, 0, 0, 1, 3,
    0xA1, 0, 0, 0, 0, 0, 0, 0, 0xB2, 0, 0, 0, 0, 0, 0, 0, 0xC3, 0, 0, 0, 0, 0, 0, 0,
];

#[test]
fn descriptor_golden_bytes() {
    let bytes = descriptor().to_bytes();
    let (content, checksum) = bytes.split_at(bytes.len() - 4);
    assert_eq!(content, GOLDEN);
    assert_eq!(checksum, crc32c::crc32c(GOLDEN).to_le_bytes());
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("descriptor"), &bytes).unwrap();
    assert_eq!(Descriptor::load(root.path()).unwrap(), Loaded::Valid(descriptor()));
}

#[test]
fn every_form_of_a_descriptor_round_trips() {
    let root = tempfile::tempdir().unwrap();
    let configurations = [
        Configuration::default(),
        Configuration { ballot: Ballot(1), primary: Some(NodeId(0)), secondaries: vec![] },
        Configuration { ballot: Ballot(9), primary: None, secondaries: vec![NodeId(1), NodeId(2)] },
    ];
    for configuration in configurations {
        for state in [CopyState::Whole, CopyState::Learning, CopyState::Damaged] {
            for durability in [Durability::Synced, Durability::Written] {
                let name = "n".repeat(128);
                let table = TableProperties { name, durability, ..descriptor().table };
                let configuration = configuration.clone();
                let changed = Descriptor { table, configuration, state, ..descriptor() };
                changed.store(root.path()).unwrap();
                assert_eq!(Descriptor::load(root.path()).unwrap(), Loaded::Valid(changed));
            }
        }
    }
}

#[test]
fn every_altered_byte_and_every_cut_is_damage() {
    let root = tempfile::tempdir().unwrap();
    let bytes = descriptor().to_bytes();
    let path = root.path().join("descriptor");
    let damaged = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        matches!(Descriptor::load(root.path()).unwrap(), Loaded::Damaged(_))
    };
    for place in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[place] ^= 0x40;
        assert!(damaged(&altered), "byte {place}");
        assert!(damaged(&bytes[..place]), "cut at {place}");
    }
    assert!(damaged(&[&bytes[..], b"x"].concat()), "one byte more");
    assert!(damaged(&vec![0; 1 << 20]), "huge");
    // A checksum that fits around a body that is no descriptor: the last member is missing.
    let mut short = bytes[..bytes.len() - 12].to_vec();
    let body_bytes = short.len() as u32 - 16;
    short[12..16].copy_from_slice(&body_bytes.to_le_bytes());
    short.extend_from_slice(&crc32c::crc32c(&short).to_le_bytes());
    assert!(damaged(&short), "a member short");
}

#[test]
fn a_later_version_is_refused_and_not_called_damage() {
    let root = tempfile::tempdir().unwrap();
    let mut bytes = descriptor().to_bytes();
    bytes.truncate(bytes.len() - 4);
    bytes[8] = 3;
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    fs::write(root.path().join("descriptor"), &bytes).unwrap();
    let error = Descriptor::load(root.path()).unwrap_err();
    assert!(matches!(error, FileError::NewerVersion { version: 3, newest: 2, .. }), "{error}");
}

#[test]
fn the_previous_version_is_read() {
    let root = tempfile::tempdir().unwrap();
    let mut bytes = descriptor().to_bytes();
    bytes.truncate(bytes.len() - 4);
    bytes[8] = 1;
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    fs::write(root.path().join("descriptor"), &bytes).unwrap();
    assert_eq!(Descriptor::load(root.path()).unwrap(), Loaded::Valid(descriptor()));
}

#[test]
fn only_a_whole_copy_of_a_written_table_is_uncertain_and_only_after_another_boot() {
    let (before, now) = (BootId([1; 16]), BootId([2; 16]));
    let copy = |durability, state, boot_id| {
        let table = TableProperties { durability, ..descriptor().table };
        Descriptor { table, state, boot_id, ..descriptor() }
    };
    let uncertain = copy(Durability::Written, CopyState::Whole, before);
    assert!(uncertain.uncertain(now) && !uncertain.uncertain(before));
    for certain in [
        copy(Durability::Written, CopyState::Whole, now),
        copy(Durability::Written, CopyState::Learning, before),
        copy(Durability::Written, CopyState::Damaged, before),
        copy(Durability::Synced, CopyState::Whole, before),
    ] {
        assert!(!certain.uncertain(now), "{certain:?}");
        assert_eq!(certain.boot_id_to_keep(now), now);
    }
    // A ballot that is stored, and a restart of the process after it, do not make it certain.
    let stored = Descriptor { boot_id: uncertain.boot_id_to_keep(now), ..uncertain };
    assert!(stored.uncertain(now));
}

#[test]
fn a_crash_at_any_step_of_a_replacement_leaves_the_old_or_the_new() {
    let old = descriptor();
    let new =
        Descriptor { configuration: Configuration { ballot: Ballot(6), ..old.configuration.clone() }, ..old.clone() };
    let bytes = new.to_bytes();
    // Before the rename any part of the new bytes may be in the side file, in any order: here cut, and zeroed.
    let mut leftovers: Vec<Vec<u8>> = (0..=bytes.len()).map(|length| bytes[..length].to_vec()).collect();
    leftovers.push(vec![0; bytes.len()]);
    for leftover in leftovers {
        let root = tempfile::tempdir().unwrap();
        old.store(root.path()).unwrap();
        fs::write(root.path().join("descriptor.new"), &leftover).unwrap();
        assert_eq!(Descriptor::load(root.path()).unwrap(), Loaded::Valid(old.clone()));
        // The next attempt is not hindered by it.
        new.store(root.path()).unwrap();
        assert_eq!(Descriptor::load(root.path()).unwrap(), Loaded::Valid(new.clone()));
        assert!(!root.path().join("descriptor.new").exists());
    }
    let first = tempfile::tempdir().unwrap();
    fs::write(first.path().join("descriptor.new"), &bytes).unwrap();
    assert_eq!(Descriptor::load(first.path()).unwrap(), Loaded::Absent, "never stored");
}

#[test]
fn a_failed_store_says_where_and_leaves_the_old() {
    let root = tempfile::tempdir().unwrap();
    descriptor().store(root.path()).unwrap();
    // A directory in the place of the side file: it cannot be created.
    fs::create_dir(root.path().join("descriptor.new")).unwrap();
    let error = descriptor().store(root.path()).unwrap_err().to_string();
    assert!(error.contains("descriptor.new") && error.contains("create"), "{error}");
    assert_eq!(Descriptor::load(root.path()).unwrap(), Loaded::Valid(descriptor()));
}

#[test]
fn copies_are_listed_by_partition_with_what_is_known_of_them() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(list(root.path()).unwrap(), []);
    let made = create_copy(root.path(), &descriptor()).unwrap();
    assert_eq!(made, copy_directory(root.path(), PartitionId::new(2, 7)));
    assert_eq!(made, root.path().join("replicas/2.7"));
    let table = table_directory(&made, descriptor().incarnation);
    assert_eq!(table, root.path().join("replicas/2.7/rdb-0102030405060708"));
    create_copy(root.path(), &descriptor()).unwrap();
    // An empty directory, one with another's descriptor, and names that are none of ours.
    for name in ["10.0", "2.3", "02.1", "2.7.moved", "note"] {
        fs::create_dir(root.path().join("replicas").join(name)).unwrap();
    }
    fs::copy(made.join("descriptor"), root.path().join("replicas/2.3/descriptor")).unwrap();
    let copies = list(root.path()).unwrap();
    let partitions: Vec<_> = copies.iter().map(|copy| copy.partition.to_string()).collect();
    assert_eq!(partitions, ["2.3", "2.7", "10.0"]);
    assert!(matches!(&copies[0].descriptor, Loaded::Damaged(detail) if detail.contains("2.7")));
    assert_eq!(copies[1].descriptor, Loaded::Valid(descriptor()));
    assert_eq!(copies[1].directory, made);
    assert_eq!(copies[2].descriptor, Loaded::Absent);
}

#[test]
fn a_node_keeps_its_identity_and_its_cluster() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("a/b/data");
    let mut identity = NodeIdentity::open(&data, || NodeId(0x0807_0605_0403_0201)).unwrap();
    assert_eq!((identity.node(), identity.cluster()), (NodeId(0x0807_0605_0403_0201), None));
    let reopen = || NodeIdentity::open(&data, || panic!("drawn once")).unwrap();
    assert_eq!(reopen(), identity);
    identity.set_cluster(ClusterId(0xEE)).unwrap();
    identity.set_cluster(ClusterId(0xEE)).unwrap();
    assert_eq!(reopen().cluster(), Some(ClusterId(0xEE)));
    let error = reopen().set_cluster(ClusterId(0xEF)).unwrap_err();
    assert!(matches!(error, IdentityError::OtherCluster { own: ClusterId(0xEE), offered: ClusterId(0xEF) }));
    assert_eq!(reopen().cluster(), Some(ClusterId(0xEE)));

    let bytes = fs::read(data.join("node")).unwrap();
    assert_eq!(bytes, identity.to_bytes());
    assert_eq!(
        bytes[..bytes.len() - 4],
        *b"PEGNODE\n\x01\0\0\0\x11\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08\x01\xEE\0\0\0\0\0\0\0"
    );
}

#[test]
fn a_lost_or_altered_identity_is_never_drawn_anew() {
    let root = tempfile::tempdir().unwrap();
    let never = || panic!("a new identity would disown what is here");
    NodeIdentity::open(root.path(), || NodeId(1)).unwrap();
    create_copy(root.path(), &descriptor()).unwrap();
    let path = root.path().join("node");
    let bytes = fs::read(&path).unwrap();
    for place in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[place] ^= 1;
        fs::write(&path, altered).unwrap();
        assert!(matches!(NodeIdentity::open(root.path(), never), Err(IdentityError::Damaged { .. })), "{place}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(NodeIdentity::open(root.path(), never), Err(IdentityError::Lost { .. })));
}

#[test]
fn one_process_has_a_data_directory() {
    let root = tempfile::tempdir().unwrap();
    let lock = DirectoryLock::acquire(root.path()).unwrap();
    let error = DirectoryLock::acquire(root.path()).unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    assert!(!taken_by_another_process(root.path()), "held");
    drop(lock);
    assert!(taken_by_another_process(root.path()), "free again");
    drop(DirectoryLock::acquire(root.path()).unwrap());
}

/// Runs this test binary once more, to take the lock from another process.
fn taken_by_another_process(data_directory: &Path) -> bool {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_takes_the_lock"])
        .env("PEGASUS_TEST_LOCK", data_directory)
        .output();
    output.unwrap().status.success()
}

#[test]
fn helper_that_takes_the_lock() {
    if let Some(directory) = std::env::var_os("PEGASUS_TEST_LOCK") {
        drop(DirectoryLock::acquire(Path::new(&directory)).unwrap());
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_a_clear_error() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = NodeIdentity::open(&file.join("data"), || NodeId(1)).unwrap_err().to_string();
    assert!(error.contains("file"), "{error}");
    assert!(DirectoryLock::acquire(&file.join("data")).is_err());
}
