//! Crash images of real runs: what was synced survives, of what was not any subset of 4 KiB blocks does. Whatever the
//! image, recovery returns every record whose sync completed, nothing that breaks a prefix, and reports no damage; and
//! what it cut never comes back in a later life.
//!
//! A failure names its seed: run again with `PEGASUS_LOG_SEED=<seed>`.

#![allow(clippy::unwrap_used)]

mod log_support;

use std::collections::BTreeMap;
use std::path::Path;

use log_support::*;
use pegasus_engine::log::{Log, LogError, LogOptions, LogRecord, LogRecovery, LogSequence, RecoveryScope, recover};
use pegasus_wire::{Decree, Durability, PartitionId};

const PARTITIONS: u32 = 5;
const LIVES: usize = 4;
const IMAGES_PER_LIFE: u64 = 6;

#[test]
fn any_crash_keeps_what_was_synced() {
    let seeds = match std::env::var("PEGASUS_LOG_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=24).collect(),
    };
    for seed in seeds {
        History::default().run(seed);
    }
}

/// What the log must still know, over several lives.
#[derive(Default)]
struct History {
    /// Records of earlier lives that recovery kept, in log order.
    kept: Vec<LogRecord>,
    /// How many of them a loss of power cannot take away.
    durable: usize,
    scope: RecoveryScope,
    /// What is on stable storage, and what a killed process left in the device's cache on top of it.
    image: Image,
    volatile: Vec<Event>,
    /// The fewer, the sooner each is written again.
    segments: u64,
}

impl History {
    fn run(mut self, seed: u64) {
        let mut rng = Rng::new(seed);
        self.scope = scope(PARTITIONS);
        self.segments = 4 + seed % 4;
        for life in 0..LIVES {
            let mut events = self.volatile.clone();
            events.extend(self.live(&mut rng));
            for _ in 0..IMAGES_PER_LIFE {
                self.crash(&events, &mut rng, &format!("seed {seed}, life {life}"));
            }
            self = self.crash(&events, &mut rng, &format!("seed {seed}, life {life}, kept"));
        }
    }

    fn options(&self, directory: &Path) -> LogOptions {
        LogOptions { budget_bytes: self.segments * SEGMENT_BYTES, ..options(directory) }
    }

    /// One life on top of the present image; returns all it did.
    fn live(&self, rng: &mut Rng) -> Vec<Event> {
        let directory = quick_directory();
        self.image.after(&self.volatile, Crash::Kill, rng).store(directory.path());
        let options = self.options(directory.path());
        let recorder = Recorder::default();
        let recovery = recover(&options, &self.scope).unwrap();
        let mut last = last_decrees(&self.scope, &self.kept);
        let hook = recorder.hook(directory.path());
        on_executor(async {
            let log = Log::open_with_hook(options, recovery, Some(hook)).await.unwrap();
            let running = Running::start(log, Some(recorder.clone()));
            let mut flushed: BTreeMap<PartitionId, Decree> = BTreeMap::new();
            for _ in 0..rng.below(120) {
                let appended = self.settle(&running, &recorder, rng, &mut last);
                running.log.submit();
                if rng.chance(70) {
                    running.written(appended).await;
                }
                // A flush knows only what is synced or written; the table has it then.
                if rng.chance(30) {
                    let index = rng.below(u64::from(PARTITIONS)) as u32;
                    let decree = last.get(&partition(index)).copied().unwrap_or_default();
                    running.written(appended).await;
                    flushed.insert(partition(index), decree);
                    recorder.push(Event::Flushed(partition(index), decree));
                    running.log.set_flushed(partition(index), decree);
                }
            }
            if rng.chance(50) {
                running.close().await;
            }
        });
        recorder.events.take()
    }

    /// A few appends at once.
    fn settle(
        &self,
        running: &Running,
        recorder: &Recorder,
        rng: &mut Rng,
        last: &mut BTreeMap<PartitionId, Decree>,
    ) -> LogSequence {
        let mut appended = LogSequence(0);
        for _ in 0..1 + rng.below(6) {
            let index = rng.below(u64::from(PARTITIONS)) as u32;
            let decree = last.get(&partition(index)).copied().unwrap_or_default().next();
            let bytes = if rng.chance(10) { rng.below(40_000) } else { rng.below(2_000) } as usize;
            let record = mutation(index, 1, decree.0, payload(index, decree.0 * 31 + rng.below(1 << 20), bytes));
            let durability = if rng.chance(60) { Durability::Synced } else { Durability::Written };
            match running.log.append(record.clone(), durability).map_err(|refused| refused.error) {
                Ok(sequence) => {
                    recorder.push(Event::Appended(record));
                    last.insert(partition(index), decree);
                    appended = sequence;
                }
                Err(LogError::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        appended
    }

    /// Crashes at a random moment of a life, recovers, and checks; returns the history as recovered.
    fn crash(&self, events: &[Event], rng: &mut Rng, context: &str) -> History {
        let earlier = self.volatile.len();
        let moment = earlier + rng.below((events.len() - earlier) as u64 + 1) as usize;
        let crash = match rng.below(3) {
            0 => Crash::Kill,
            1 => Crash::Power { survives: 50 },
            _ => Crash::Power { survives: 90 },
        };
        let context = format!("{context}, {crash:?} after event {moment} of {}", events.len());
        let events = &events[..moment];
        let (mut scope, mut appended) = (self.scope.clone(), self.kept.clone());
        let (mut written, mut synced) = (self.kept.len(), self.durable);
        for event in events {
            match event {
                Event::Appended(record) => appended.push(record.clone()),
                Event::Flushed(partition, decree) => scope.get_mut(partition).unwrap().flushed = *decree,
                // From here on what was kept counts as synced.
                Event::Meta(_) => synced = self.kept.len(),
                Event::Progress(progress) => {
                    written = self.kept.len() + progress.written.0 as usize;
                    synced = self.kept.len() + progress.synced.0 as usize;
                }
                _ => {}
            }
        }
        let (image, volatile) = self.image.split_after(events, crash, rng);
        let found = image.after(&volatile, Crash::Kill, rng);
        let directory = quick_directory();
        found.store(directory.path());
        let recovery = recover(&self.options(directory.path()), &scope).unwrap();
        assert_eq!(recovery.damage, [], "{context}");
        let must = if matches!(crash, Crash::Kill) { written } else { synced };
        let kept = prefix(&recovery, &scope, &appended, must, &context);
        assert_eq!(Image::load(directory.path()), found, "recovery changes nothing, {context}");
        let durable = if matches!(crash, Crash::Kill) { synced } else { kept };
        History { kept: appended[..kept].to_vec(), durable, scope, image, volatile, segments: self.segments }
    }
}

/// Checks that what was recovered is a prefix of what was appended, of at least `must` records; returns its length.
fn prefix(recovery: &LogRecovery, scope: &RecoveryScope, appended: &[LogRecord], must: usize, context: &str) -> usize {
    let wanted = |record: &&LogRecord| record.decree > scope[&record.partition].flushed;
    let recovered: usize = recovery.partitions.values().map(|partition| partition.records.len()).sum();
    let expected: Vec<&LogRecord> = appended.iter().filter(wanted).take(recovered).collect();
    assert_eq!(expected.len(), recovered, "more than was appended, {context}");
    let mut histories: BTreeMap<PartitionId, Vec<&LogRecord>> = BTreeMap::new();
    for record in &expected {
        histories.entry(record.partition).or_default().push(record);
    }
    for (partition, expected) in &histories {
        let found: Vec<&LogRecord> = recovery.partitions[partition].records.iter().collect();
        assert!(found == *expected, "partition {partition} differs, {context}");
        assert!(!recovery.partitions[partition].has_gap(), "{context}");
    }
    // The last recovered record is where the prefix ends, but flushed ones behind it cost nothing.
    let kept = match expected.last() {
        Some(last) => 1 + appended.iter().rposition(|record| std::ptr::eq(record, *last)).unwrap(),
        None => 0,
    };
    let lost: Vec<&LogRecord> = appended[kept.min(must)..must].iter().filter(wanted).collect();
    assert!(lost.is_empty(), "{} synced records are lost, {context}", lost.len());
    kept.max(must)
}

fn last_decrees(scope: &RecoveryScope, kept: &[LogRecord]) -> BTreeMap<PartitionId, Decree> {
    let mut last: BTreeMap<PartitionId, Decree> =
        scope.iter().map(|(partition, copy)| (*partition, copy.flushed)).collect();
    for record in kept {
        let decree = last.get_mut(&record.partition).unwrap();
        *decree = record.decree.max(*decree);
    }
    last
}
