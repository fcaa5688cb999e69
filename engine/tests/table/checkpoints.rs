//! Checkpoints: made while mutations are applied, sent in any pieces, taken in whole or not at all.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pegasus_engine::copies::{create_learning, fresh_checkpoint_directory};
use pegasus_engine::descriptor::{CopyState, Descriptor, Loaded, copy_directory, table_directory};
use pegasus_engine::identity::BootId;
use pegasus_engine::table::{CheckpointError, CheckpointReader, Incoming, OpenMode, Table, TableShared};
use pegasus_wire::limits::CHECKPOINT_CHUNK_BYTES;
use pegasus_wire::messages::data::RowOperation;
use pegasus_wire::messages::peer::{Checkpoint, CheckpointFile};
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Decree, Durability, NodeId, ReplicaIncarnation, TableId, TableProperties,
};

use crate::support::*;

const OLD: ReplicaIncarnation = ReplicaIncarnation(0xA);
const NEW: ReplicaIncarnation = ReplicaIncarnation(0xB);

fn descriptor(incarnation: ReplicaIncarnation) -> Descriptor {
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
        state: CopyState::Learning,
        boot_id: BootId([3; 16]),
    }
}

/// A primary's table with some rows in files and some in memory, and what is in it.
fn primary(directory: &Path, rows: u64) -> Table {
    let table = create(directory);
    for decree in 1..=rows {
        apply(&table, &[put(decree, b"h", &decree.to_be_bytes(), &[decree as u8; 900], 0)]);
        if decree % 400 == 0 {
            table.flush().unwrap();
        }
    }
    table
}

/// A learner's data directory that holds an old copy at decree 5.
fn learner(data: &Path, shared: &TableShared) -> Table {
    let table = create_learning(data, &descriptor(OLD), shared).unwrap();
    for decree in 1..=5u64 {
        apply(&table, &[put(decree, b"old", &decree.to_be_bytes(), b"old", 0)]);
    }
    table.flush().unwrap();
    table
}

/// The whole stream of a checkpoint.
fn stream(reader: &mut CheckpointReader) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        assert!(
            chunk.len() <= CHECKPOINT_CHUNK_BYTES && all.len() % CHECKPOINT_CHUNK_BYTES == 0,
            "only the last is short"
        );
        all.extend_from_slice(&chunk);
    }
    assert!(reader.next_chunk().unwrap().is_none());
    all
}

fn begin(data: &Path, checkpoint: &Checkpoint) -> Result<Incoming, CheckpointError> {
    Incoming::begin(&copy_directory(data, PARTITION), NEW, checkpoint, 0)
}

/// Asserts that the learner still has its old copy, and nothing of a new one.
fn assert_untouched(data: &Path) {
    let directory = copy_directory(data, PARTITION);
    assert_eq!(Descriptor::load(&directory).unwrap(), Loaded::Valid(descriptor(OLD)));
    assert!(!table_directory(&directory, NEW).exists());
    let table = Table::open(&table_directory(&directory, OLD), &shared(), PARTITION, OpenMode::Existing).unwrap();
    assert_eq!(table.applied(), Decree(5));
}

#[test]
fn a_table_arrives_as_it_was_and_is_flushed_there() {
    let root = tempfile::tempdir().unwrap();
    let source = primary(&root.path().join("primary"), 1500);
    let image = source.checkpoint(&shared(), &fresh_checkpoint_directory(root.path(), PARTITION)).unwrap();
    let (checkpoint, place) = (image.checkpoint().clone(), image.directory().to_owned());
    assert_eq!(checkpoint.applied, Decree(1500), "also what was in memory only");
    assert_eq!(source.flushed(), Decree(1500));
    // The log of RocksDB is never written; nothing but a table's files is there.
    let is_known = |file: &CheckpointFile| match file.name.split_once(['.', '-']) {
        None => file.name == "CURRENT",
        Some((name, ending)) => ending == "sst" || ["MANIFEST", "OPTIONS"].contains(&name) || file.bytes == 0,
    };
    assert!(checkpoint.files.iter().all(is_known), "{:?}", checkpoint.files);
    // The table goes on, and gives up the files that the image has.
    apply(&source, &[put(1501, b"h", b"late", b"late", 0)]);
    source.flush().unwrap();
    compact(&source);
    let mut reader = image.read();
    let announced = reader.image().stream_bytes();
    let stream = stream(&mut reader);
    assert_eq!(stream.len() as u64, announced);
    assert!(stream.len() > 3 * CHECKPOINT_CHUNK_BYTES, "{}", stream.len());
    assert!(place.exists());
    drop(reader);
    assert!(!place.exists());

    let data = root.path().join("learner");
    let shared = shared();
    let old = learner(&data, &shared);
    let mut incoming = begin(&data, &checkpoint).unwrap();
    assert_eq!((incoming.applied(), incoming.incarnation()), (Decree(1500), NEW));
    let mut rest = &stream[..];
    for step in 0.. {
        // Pieces that have nothing to do with chunks or files.
        let (piece, behind) = rest.split_at(rest.len().min([1, 3, 70_001, 4096, 300_000][step % 5]));
        if piece.is_empty() {
            break;
        }
        incoming.write(piece).unwrap();
        rest = behind;
    }
    assert_eq!(incoming.received_bytes(), incoming.stream_bytes());
    let table = incoming.finish(&shared, &descriptor(NEW)).unwrap();
    assert_eq!(
        (table.applied(), table.flushed(), table.read_flushed().unwrap()),
        (Decree(1500), Decree(1500), Decree(1500))
    );
    assert_eq!(table.last_timestamp_micros(), 1_000_000 + 1500);
    assert_eq!(scan(&table, &everything(0)).rows.len(), 1500);
    assert_eq!(get(&table, b"h", &77u64.to_be_bytes(), 0), Some(vec![77; 900]));
    assert_eq!((get(&table, b"old", &1u64.to_be_bytes(), 0), get(&table, b"h", b"late", 0)), (None, None));
    // The old table is open all the while, and harms nobody.
    apply(&old, &[put(6, b"old", b"x", b"x", 0)]);
    drop(old);
    apply(&table, &[put(1501, b"h", b"late", b"late", 0)]);
    drop(table);
    let directory = copy_directory(&data, PARTITION);
    assert_eq!(Descriptor::load(&directory).unwrap(), Loaded::Valid(descriptor(NEW)));
    let table = Table::open(&table_directory(&directory, NEW), &shared, PARTITION, OpenMode::Existing).unwrap();
    assert_eq!((table.applied(), table.flushed()), (Decree(1501), Decree(1501)), "closing flushes");
}

#[test]
fn checkpoints_of_a_busy_table_are_each_of_one_decree() {
    let root = tempfile::tempdir().unwrap();
    let source = create(&root.path().join("primary"));
    let enough = Arc::new(AtomicBool::new(false));
    let writer = {
        let (source, enough) = (source.clone(), enough.clone());
        std::thread::spawn(move || {
            // Every mutation writes the same two rows: a checkpoint that is of no one decree would show both values.
            for decree in 1u64.. {
                if enough.load(Ordering::Relaxed) {
                    return;
                }
                let value = [&decree.to_be_bytes()[..], &[0; 500]].concat();
                let put = |sort_key| RowOperation::Put { sort_key, value: &value, expiry_seconds: 0 };
                apply(&source, &[mutation(decree, payload(PARTITION, b"h", &[put(b"a"), put(b"z")]))]);
            }
        })
    };
    let mut last = Decree(0);
    for round in 0..6 {
        while source.applied() <= last {
            std::thread::yield_now();
        }
        let before = source.applied();
        let image = source.checkpoint(&shared(), &fresh_checkpoint_directory(root.path(), PARTITION)).unwrap();
        assert!(image.checkpoint().applied >= before);
        let data = root.path().join(format!("learner-{round}"));
        let checkpoint = image.checkpoint().clone();
        let mut incoming = begin(&data, &checkpoint).unwrap();
        let mut reader = image.read();
        while let Some(chunk) = reader.next_chunk().unwrap() {
            incoming.write(&chunk).unwrap();
        }
        let table = incoming.finish(&shared(), &descriptor(NEW)).unwrap();
        for sort_key in [b"a", b"z"] {
            let value = get(&table, b"h", sort_key, 0);
            let decree = value.map_or(0, |value| u64::from_be_bytes(value[..8].try_into().unwrap()));
            assert_eq!(Decree(decree), checkpoint.applied);
        }
        last = checkpoint.applied;
    }
    enough.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(fs::read_dir(root.path().join("checkpoints")).unwrap().next().is_none(), "none is left");
}

#[test]
fn an_empty_table_has_a_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let source = create(&root.path().join("primary"));
    let image = source.checkpoint(&shared(), &root.path().join("image")).unwrap();
    let checkpoint = image.checkpoint().clone();
    assert_eq!(checkpoint.applied, Decree(0));
    let mut incoming = begin(root.path(), &checkpoint).unwrap();
    incoming.write(&stream(&mut image.read())).unwrap();
    let table = incoming.finish(&shared(), &descriptor(NEW)).unwrap();
    assert_eq!((table.applied(), table.flushed()), (Decree(0), Decree(0)));
}

#[test]
fn an_image_needs_a_place_of_its_own_and_leaves_nothing_after_a_failure() {
    let root = tempfile::tempdir().unwrap();
    let source = primary(&root.path().join("primary"), 10);
    let taken = root.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("precious"), b"").unwrap();
    assert!(matches!(source.checkpoint(&shared(), &taken), Err(CheckpointError::Failed { .. })));
    assert!(taken.join("precious").exists());
    let below_a_file = taken.join("precious/image");
    assert!(matches!(source.checkpoint(&shared(), &below_a_file), Err(CheckpointError::Failed { .. })));
    apply(&source, &[put(11, b"h", b"x", b"x", 0)]);
    assert_eq!(source.flush().unwrap(), Decree(11), "the table is none the worse");
    // A file of an image that is cut or gone is an error, and never a short stream.
    for cut in [true, false] {
        let image = source.checkpoint(&shared(), &root.path().join("image")).unwrap();
        let victim = files_ending(image.directory(), ".sst").remove(0);
        let bytes = fs::read(&victim).unwrap();
        fs::remove_file(&victim).unwrap();
        if cut {
            fs::write(&victim, &bytes[..bytes.len() - 1]).unwrap();
        }
        let mut reader = image.read();
        let outcome = std::iter::from_fn(|| reader.next_chunk().transpose()).find(Result::is_err);
        assert!(outcome.is_some());
    }
    assert!(!root.path().join("image").exists());
}

#[test]
fn what_is_not_what_was_announced_is_refused_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let source = primary(&root.path().join("primary"), 60);
    let image = source.checkpoint(&shared(), &root.path().join("image")).unwrap();
    let checkpoint = image.checkpoint().clone();
    let stream = stream(&mut image.read());
    let data = root.path().join("learner");
    drop(learner(&data, &shared()));
    let receive = |checkpoint: &Checkpoint, stream: &[u8]| {
        let mut incoming = begin(&data, checkpoint)?;
        for piece in stream.chunks(10_000) {
            incoming.write(piece)?;
        }
        incoming.finish(&shared(), &descriptor(NEW)).map(|_| ())
    };
    let assert_refused = |checkpoint: &Checkpoint, stream: &[u8], case: &str| {
        let error = receive(checkpoint, stream).expect_err(case);
        assert!(matches!(error, CheckpointError::Refused(_)), "{case}: {error}");
        assert_untouched(&data);
    };
    for place in (0..stream.len()).step_by(stream.len() / 150) {
        let mut altered = stream.clone();
        altered[place] ^= 0x04;
        assert_refused(&checkpoint, &altered, &format!("byte {place} altered"));
    }
    for length in [0, 1, stream.len() / 2, stream.len() - 1] {
        assert_refused(&checkpoint, &stream[..length], &format!("cut at {length}"));
    }
    assert_refused(&checkpoint, &[&stream[..], b"x"].concat(), "a byte more");
    for applied in [0, 59, 61] {
        let other = Checkpoint { applied: Decree(applied), ..checkpoint.clone() };
        assert_refused(&other, &stream, "another decree");
    }
    // Whole files of a table that is not whole: one file less, and its bytes left out.
    let missing = checkpoint.files.iter().position(|file| file.name.ends_with(".sst")).unwrap();
    let begin_of = |count: usize| checkpoint.files[..count].iter().map(|file| file.bytes as usize + 4).sum::<usize>();
    let mut files = checkpoint.files.clone();
    files.remove(missing);
    let fewer = [&stream[..begin_of(missing)], &stream[begin_of(missing + 1)..]].concat();
    assert_refused(&Checkpoint { files, ..checkpoint.clone() }, &fewer, "a file less");
    let foreign = vec![CheckpointFile { name: "CURRENT".to_owned(), bytes: 0 }];
    assert_refused(&Checkpoint { files: foreign, ..checkpoint.clone() }, &[0; 4], "no table at all");
    let outside = vec![CheckpointFile { name: "../descriptor".to_owned(), bytes: 0 }];
    assert_refused(&Checkpoint { files: outside, ..checkpoint.clone() }, &[0; 4], "a name outside");
    receive(&checkpoint, &stream).unwrap();
}

#[test]
fn after_a_refusal_nothing_is_taken_and_an_incarnation_is_used_once() {
    let root = tempfile::tempdir().unwrap();
    let source = primary(&root.path().join("primary"), 20);
    let image = source.checkpoint(&shared(), &root.path().join("image")).unwrap();
    let checkpoint = image.checkpoint().clone();
    let mut stream = stream(&mut image.read());
    let mut incoming = begin(root.path(), &checkpoint).unwrap();
    let again = begin(root.path(), &checkpoint).unwrap_err();
    assert!(matches!(again, CheckpointError::Failed { .. }), "{again}");
    let last = stream.len() - 1;
    stream[last] ^= 1;
    incoming.write(&stream).unwrap_err();
    stream[last] ^= 1;
    incoming.write(&stream[last..]).unwrap_err();
    assert!(matches!(incoming.finish(&shared(), &descriptor(NEW)), Err(CheckpointError::Refused(_))));
    let full = Incoming::begin(&copy_directory(root.path(), PARTITION), NEW, &checkpoint, u64::MAX).unwrap_err();
    assert!(matches!(full, CheckpointError::NoRoom { .. }), "{full}");
    let huge = vec![CheckpointFile { name: "CURRENT".to_owned(), bytes: 1 << 60 }];
    let full = begin(root.path(), &Checkpoint { files: huge, ..checkpoint }).unwrap_err();
    assert!(matches!(full, CheckpointError::NoRoom { .. }), "{full}");
}
