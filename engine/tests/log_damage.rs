//! Damage and tails: what was synced and is gone is reported with the partitions it hit, what was not synced is cut,
//! and what was cut or recycled never comes back. Also whole directories: another boot, another number of cores.

#![allow(clippy::unwrap_used)]

mod log_support;

use std::path::Path;

use log_support::*;
use pegasus_engine::identity::BootId;
use pegasus_engine::log::{
    Damage, DamagedPartitions, Log, LogDirectory, LogOptions, LogRecovery, LogSequence, RecoveryScope, recover,
};
use pegasus_wire::{Decree, Durability};

/// A log of which every write is known: where it is and which partitions it holds.
struct Known {
    directory: tempfile::TempDir,
    image: Image,
    writes: Vec<KnownWrite>,
}

#[derive(Clone)]
struct KnownWrite {
    segment: u32,
    offset: usize,
    bytes: usize,
    partitions: Vec<u32>,
}

const PARTITIONS: u32 = 4;

impl Known {
    /// `count` writes, each synced before the next; write k holds partition k mod 4 and, if even, also the next one.
    fn new(count: u64, payload_bytes: usize) -> Known {
        let directory = quick_directory();
        let options = LogOptions { spare_segments: 8, ..options(directory.path()) };
        let recorder = Recorder::default();
        let mut held = Vec::new();
        on_executor(async {
            let recovery = recover(&options, &scope(PARTITIONS)).unwrap();
            let hook = recorder.hook(directory.path());
            let log = Log::open_with_hook(options.clone(), recovery, Some(hook)).await.unwrap();
            recorder.events.borrow_mut().clear();
            let running = Running::start(log, None);
            let mut next = [1; PARTITIONS as usize];
            for write in 0..count {
                let first = (write % u64::from(PARTITIONS)) as u32;
                let mut partitions = vec![first];
                partitions.extend((write % 2 == 0).then_some((first + 1) % PARTITIONS));
                let mut sequence = LogSequence(0);
                for index in &partitions {
                    let decree = &mut next[*index as usize];
                    let record = mutation(*index, 1, *decree, payload(*index, *decree, payload_bytes));
                    sequence = running.append(record, Durability::Synced);
                    *decree += 1;
                }
                running.log.submit();
                running.synced(sequence).await;
                partitions.sort();
                held.push(partitions);
            }
            running.close().await;
        });
        let issued = recorder.events.borrow();
        let places = issued.iter().filter_map(|event| match event {
            Event::Write { segment, offset, bytes } => Some((*segment, *offset as usize, bytes.len())),
            _ => None,
        });
        let writes = places
            .zip(held)
            .map(|((segment, offset, bytes), partitions)| KnownWrite { segment, offset, bytes, partitions })
            .collect();
        Known { image: Image::load(directory.path()), directory, writes }
    }

    /// Recovers from the log with some bytes altered.
    fn altered(&self, alter: impl FnOnce(&mut Image, &[KnownWrite])) -> LogRecovery {
        let mut image = self.image.clone();
        alter(&mut image, &self.writes);
        image.store(self.directory.path());
        let recovery = recover(&options(self.directory.path()), &scope(PARTITIONS)).unwrap();
        self.image.store(self.directory.path());
        recovery
    }

    /// Every record but those of the lost writes, per partition.
    fn expected(&self, lost: &[usize]) -> Vec<Vec<u64>> {
        let mut expected = vec![Vec::new(); PARTITIONS as usize];
        let mut next = [1; PARTITIONS as usize];
        for (at, write) in self.writes.iter().enumerate() {
            for index in &write.partitions {
                if !lost.contains(&at) {
                    expected[*index as usize].push(next[*index as usize]);
                }
                next[*index as usize] += 1;
            }
        }
        expected
    }
}

fn all_decrees(recovery: &LogRecovery) -> Vec<Vec<u64>> {
    (0..PARTITIONS).map(|index| decrees(recovery, index)).collect()
}

fn flip(image: &mut Image, write: &KnownWrite, at: usize) {
    image.segments.get_mut(&write.segment).unwrap()[write.offset + at] ^= 0x10;
}

fn erase(image: &mut Image, write: &KnownWrite) {
    image.segments.get_mut(&write.segment).unwrap()[write.offset..write.offset + write.bytes].fill(0);
}

/// The damaged partitions per damage, or nothing where they are unknown.
fn named(damage: &[Damage]) -> Vec<Option<Vec<u32>>> {
    let indexes = |damage: &Damage| match &damage.partitions {
        DamagedPartitions::Named(ranges) => Some(ranges.iter().map(|range| range.partition.index).collect()),
        DamagedPartitions::Unknown => None,
    };
    damage.iter().map(indexes).collect()
}

#[test]
fn a_flipped_byte_names_exactly_its_partitions() {
    let known = Known::new(40, 3000);
    assert_eq!(known.altered(|_, _| ()).damage, []);
    for lost in [0, 1, 7, 20, 37, 38] {
        // The header, the list, a record header, a payload: whatever is hit.
        for at in [0, 9, 41, 90, 180, 400, 2500] {
            let recovery = known.altered(|image, writes| flip(image, &writes[lost], at));
            let expected = vec![Some(known.writes[lost].partitions.clone())];
            assert_eq!(named(&recovery.damage), expected, "byte {at} of write {lost}");
            assert_eq!(all_decrees(&recovery), known.expected(&[lost]), "byte {at} of write {lost}");
            assert_eq!(recovery.cut_writes, 0);
        }
    }
}

#[test]
fn lost_writes_are_named_by_the_next_write() {
    let known = Known::new(30, 3000);
    let recovery = known.altered(|image, writes| erase(image, &writes[11]));
    assert_eq!(named(&recovery.damage), [Some(known.writes[11].partitions.clone())]);
    assert_eq!(all_decrees(&recovery), known.expected(&[11]));
    // Of two in a row the first has neither its list nor the repeat.
    let recovery = known.altered(|image, writes| writes[11..13].iter().for_each(|write| erase(image, write)));
    assert_eq!(named(&recovery.damage), [None, Some(known.writes[12].partitions.clone())]);
    assert_eq!(recovery.damaged_partitions(&scope(PARTITIONS)).len(), PARTITIONS as usize);
    assert_eq!(all_decrees(&recovery), known.expected(&[11, 12]));
    // A broken payload leaves the header, which still repeats the list of its predecessor.
    let recovery = known.altered(|image, writes| {
        erase(image, &writes[11]);
        flip(image, &writes[12], 1000);
    });
    let expected = [11, 12].map(|lost: usize| Some(known.writes[lost].partitions.clone()));
    assert_eq!(named(&recovery.damage), expected);
}

#[test]
fn the_beginning_of_a_segment_may_be_lost() {
    let known = Known::new(60, 12_000);
    let firsts: Vec<usize> =
        (1..known.writes.len()).filter(|at| known.writes[*at].segment != known.writes[at - 1].segment).collect();
    assert!(firsts.len() >= 2);
    for first in firsts {
        for count in [1, 3] {
            let lost: Vec<usize> = (first..first + count).collect();
            let recovery = known.altered(|image, writes| lost.iter().for_each(|at| erase(image, &writes[*at])));
            assert_eq!(all_decrees(&recovery), known.expected(&lost), "{lost:?}");
            let last = Some(known.writes[first + count - 1].partitions.clone());
            assert_eq!(named(&recovery.damage).last(), Some(&last), "{lost:?}");
            assert_eq!(recovery.damage.len(), count.min(2), "{lost:?}");
        }
    }
}

#[test]
fn a_whole_segment_may_be_lost() {
    let known = Known::new(60, 12_000);
    let segment = known.writes[30].segment;
    let lost: Vec<usize> = (0..known.writes.len()).filter(|at| known.writes[*at].segment == segment).collect();
    let recovery = known.altered(|image, _| image.segments.get_mut(&segment).unwrap().fill(0));
    assert_eq!(all_decrees(&recovery), known.expected(&lost));
    assert_eq!(recovery.damaged_partitions(&scope(PARTITIONS)).len(), PARTITIONS as usize);
    let recovery = known.altered(|image, _| drop(image.segments.get_mut(&segment).unwrap().drain(100_000..)));
    assert!(!recovery.damage.is_empty(), "a shortened file is damage too");
}

#[test]
fn damage_to_flushed_records_hurts_nobody() {
    let known = Known::new(20, 1000);
    let mut image = known.image.clone();
    flip(&mut image, &known.writes[4], 300);
    image.store(known.directory.path());
    let mut scope = scope(PARTITIONS);
    scope.get_mut(&partition(0)).unwrap().flushed = Decree(100);
    scope.remove(&partition(1));
    assert_eq!(known.writes[4].partitions, [0, 1]);
    assert_eq!(recover(&options(known.directory.path()), &scope).unwrap().damage, []);
}

#[test]
fn damage_is_reported_until_the_log_is_opened() {
    let known = Known::new(30, 2000);
    let options = options(known.directory.path());
    let mut image = known.image.clone();
    flip(&mut image, &known.writes[9], 300);
    image.store(known.directory.path());
    for _ in 0..2 {
        let recovery = recover(&options, &scope(PARTITIONS)).unwrap();
        assert_eq!(named(&recovery.damage), [Some(known.writes[9].partitions.clone())]);
    }
    for _ in 0..2 {
        on_executor(async { Running::open(&options, &scope(PARTITIONS)).await.close().await });
        assert_eq!(recover(&options, &scope(PARTITIONS)).unwrap().damage, []);
    }
    let mut image = Image::load(known.directory.path());
    flip(&mut image, &known.writes[15], 300);
    image.store(known.directory.path());
    let recovery = recover(&options, &scope(PARTITIONS)).unwrap();
    assert_eq!(named(&recovery.damage), [Some(known.writes[15].partitions.clone())]);
    assert_eq!(all_decrees(&recovery), known.expected(&[9, 15]));
}

/// Two synced writes, then several that are written only; returns the places of the latter.
fn with_unsynced(directory: &Path, from: u64) -> Vec<KnownWrite> {
    let recorder = Recorder::default();
    on_executor(async {
        let options = options(directory);
        let recovery = recover(&options, &scope(1)).unwrap();
        let log = Log::open_with_hook(options, recovery, Some(recorder.hook(directory))).await.unwrap();
        let running = Running::start(log, None);
        for decree in from..from + 8 {
            if decree == from + 2 {
                recorder.events.borrow_mut().clear();
            }
            let durability = if decree < from + 2 { Durability::Synced } else { Durability::Written };
            let record = mutation(0, 1, decree, payload(0, decree, 6000));
            let sequence = running.append(record, durability);
            running.log.submit();
            running.written(sequence).await;
        }
        // No close: the process is gone.
    });
    let events = recorder.events.borrow();
    let writes = events.iter().filter_map(|event| match event {
        Event::Write { segment, offset, bytes } if *offset > 0 && bytes.len() < 16_384 => {
            Some(KnownWrite { segment: *segment, offset: *offset as usize, bytes: bytes.len(), partitions: vec![0] })
        }
        _ => None,
    });
    writes.collect()
}

#[test]
fn a_torn_tail_is_cut_and_stays_cut() {
    let directory = quick_directory();
    let options = options(directory.path());
    let unsynced = with_unsynced(directory.path(), 1);
    assert_eq!(unsynced.len(), 6);
    let whole = recover(&options, &scope(1)).unwrap();
    assert_eq!(decrees(&whole, 0), [1, 2, 3, 4, 5, 6, 7, 8], "a killed process loses nothing it wrote");
    // The third of the unsynced writes is torn; those behind it are whole.
    let intact = Image::load(directory.path());
    let mut image = intact.clone();
    let torn = &unsynced[2];
    image.segments.get_mut(&torn.segment).unwrap()[torn.offset + 4096..torn.offset + torn.bytes].fill(0);
    image.store(directory.path());
    let recovery = recover(&options, &scope(1)).unwrap();
    assert_eq!((decrees(&recovery, 0), recovery.damage.len()), (vec![1, 2, 3, 4], 0));
    assert!(recovery.cut_writes >= 3);
    // A start without a single write makes the cut final.
    on_executor(async { Running::open(&options, &scope(1)).await.close().await });
    let before = Image::load(directory.path());
    let mut mended = before.clone();
    let place = torn.offset..torn.offset + torn.bytes;
    mended.segments.get_mut(&torn.segment).unwrap()[place.clone()]
        .copy_from_slice(&intact.segments[&torn.segment][place]);
    mended.store(directory.path());
    assert_eq!(decrees(&recover(&options, &scope(1)).unwrap(), 0), [1, 2, 3, 4], "not even if it turns up whole");
    before.store(directory.path());
    // The next life uses the same decrees again; losing its first write is damage, and the old tail stays void.
    let second = with_unsynced(directory.path(), 5);
    assert_eq!(decrees(&recover(&options, &scope(1)).unwrap(), 0), (1..=12).collect::<Vec<_>>());
    let mut image = Image::load(directory.path());
    let segment = second[0].segment;
    assert_ne!(segment, torn.segment, "a fresh segment");
    let first_write = KnownWrite { segment, offset: 4096, bytes: 8192, partitions: vec![0] };
    erase(&mut image, &first_write);
    image.store(directory.path());
    let recovery = recover(&options, &scope(1)).unwrap();
    assert_eq!(named(&recovery.damage), [Some(vec![0])]);
    assert_eq!(decrees(&recovery, 0), [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]);
}

#[test]
fn behind_damage_a_hole_in_the_tail_still_cuts() {
    let directory = quick_directory();
    let options = options(directory.path());
    let unsynced = with_unsynced(directory.path(), 1);
    let mut image = Image::load(directory.path());
    let second = KnownWrite { offset: 4096 + 8192, ..unsynced[0].clone() };
    assert_eq!(unsynced[0].offset, second.offset + second.bytes);
    // The second synced write is lost, the first unsynced one too; the others are whole.
    erase(&mut image, &second);
    image.store(directory.path());
    assert_eq!(decrees(&recover(&options, &scope(1)).unwrap(), 0), [1, 3, 4, 5, 6, 7, 8]);
    erase(&mut image, &unsynced[0]);
    image.store(directory.path());
    let recovery = recover(&options, &scope(1)).unwrap();
    assert_eq!((decrees(&recovery, 0), recovery.damage.len()), (vec![1], 1));
    assert_eq!(recovery.damage[0].sequences, (2, 2));
}

#[test]
fn a_lost_own_file_is_damage_without_names() {
    let known = Known::new(30, 2000);
    std::fs::remove_file(known.directory.path().join("meta")).unwrap();
    let options = options(known.directory.path());
    let recovery = recover(&options, &scope(PARTITIONS)).unwrap();
    assert_eq!(named(&recovery.damage), [None]);
    assert!(recovery.boot_changed, "nobody knows");
    assert_eq!(all_decrees(&recovery), known.expected(&[]));
    on_executor(async { Running::open(&options, &scope(PARTITIONS)).await.close().await });
    let recovery = recover(&options, &scope(PARTITIONS)).unwrap();
    assert_eq!((recovery.damage.len(), all_decrees(&recovery)), (0, known.expected(&[])));
}

#[test]
fn another_boot_is_reported_until_the_log_is_opened() {
    let directory = quick_directory();
    let first = options(directory.path());
    let second = LogOptions { boot: BootId([2; 16]), ..first.clone() };
    on_executor(async { Running::open(&first, &scope(1)).await.close().await });
    assert!(!recover(&first, &scope(1)).unwrap().boot_changed);
    assert!(recover(&second, &scope(1)).unwrap().boot_changed);
    assert!(recover(&second, &scope(1)).unwrap().boot_changed);
    on_executor(async { Running::open(&second, &scope(1)).await.close().await });
    assert!(!recover(&second, &scope(1)).unwrap().boot_changed);
    assert!(recover(&first, &scope(1)).unwrap().boot_changed);
}

#[test]
fn a_higher_ballot_voids_over_restarts() {
    let directory = quick_directory();
    let options = options(directory.path());
    let lives = [
        vec![mutation(0, 1, 1, vec![1]), mutation(0, 1, 2, vec![1]), mutation(0, 1, 3, vec![1])],
        vec![truncate(0, 2, 3), mutation(0, 2, 2, vec![2])],
        vec![mutation(0, 2, 3, vec![2]), mutation(0, 2, 4, vec![2])],
    ];
    let expected: [&[(u64, u64)]; 3] =
        [&[(1, 1), (1, 2), (1, 3)], &[(1, 1), (2, 2)], &[(1, 1), (2, 2), (2, 3), (2, 4)]];
    for (records, expected) in lives.into_iter().zip(expected) {
        on_executor(async {
            let running = Running::open(&options, &scope(1)).await;
            for record in records {
                running.append(record, Durability::Synced);
            }
            running.close().await;
        });
        let recovery = recover(&options, &scope(1)).unwrap();
        let recovered = &recovery.partitions[&partition(0)];
        let found: Vec<_> = recovered.records.iter().map(|record| (record.ballot.0, record.decree.0)).collect();
        assert_eq!(found, expected);
    }
}

/// Moves what the old log holds to a new one, as a restart with another number of cores does.
async fn move_records(old: &LogOptions, new: &Running, scope: &RecoveryScope) {
    let mut last = LogSequence(0);
    for partition in recover(old, scope).unwrap().partitions.into_values() {
        for record in partition.records {
            last = new.append(record, Durability::Synced);
        }
    }
    new.log.submit();
    new.synced(last).await;
}

#[test]
fn records_move_to_another_log_and_the_old_one_is_retired() {
    let known = Known::new(30, 2000);
    let old = options(known.directory.path());
    let new_directory = quick_directory();
    let new = options(new_directory.path());
    // The first attempt is cut off after the sync and before the old log is retired.
    for _ in 0..2 {
        on_executor(async {
            let running = Running::open(&new, &scope(PARTITIONS)).await;
            move_records(&old, &running, &scope(PARTITIONS)).await;
        });
        assert_eq!(all_decrees(&recover(&new, &scope(PARTITIONS)).unwrap()), known.expected(&[]));
    }
    let directory = LogDirectory::new(known.directory.path());
    assert!(directory.exists().unwrap());
    directory.retire().unwrap();
    assert!(!directory.exists().unwrap());
    assert_eq!(Image::load(known.directory.path()), Image::default());
    directory.retire().unwrap();
    assert!(recover(&old, &scope(PARTITIONS)).unwrap().partitions.is_empty());
}

#[test]
fn a_half_retired_log_is_empty_and_no_damage() {
    let known = Known::new(60, 12_000);
    let path = known.directory.path();
    std::fs::write(path.join("retired"), b"").unwrap();
    std::fs::remove_file(path.join("segment-000001")).unwrap();
    let options = options(path);
    let recovery = recover(&options, &scope(PARTITIONS)).unwrap();
    assert!(recovery.partitions.is_empty() && recovery.damage.is_empty());
    // Opened again (the number of cores went back), it finishes what was begun and starts anew.
    on_executor(async {
        let running = Running::open(&options, &scope(PARTITIONS)).await;
        running.append(mutation(0, 5, 1, vec![1]), Durability::Synced);
        running.close().await;
    });
    let recovery = recover(&options, &scope(PARTITIONS)).unwrap();
    assert_eq!((all_decrees(&recovery), recovery.damage.len()), (vec![vec![1], vec![], vec![], vec![]], 0));
}
