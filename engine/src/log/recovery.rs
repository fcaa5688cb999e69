//! Recovery: what a log directory holds after a stop of any kind. Blocking, and it changes nothing on disk, so a
//! crash in it or after it repeats it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use pegasus_wire::{Decree, PartitionId, ReplicaIncarnation};

use super::directory::is_retired;
use super::error::LogError;
use super::format::{DecodedWrite, PartitionRange};
use super::history::{HistoryBuilder, RecoveredPartition};
use super::index::{Index, WritePlace};
use super::lives::Lives;
use super::meta::Meta;
use super::options::LogOptions;
use super::scan::{FoundWrite, Segments};
use super::space::LiveSegment;
use super::walk::{MissingWrites, Walk, WalkEnd, lives_of};
use crate::durable_file::Loaded;

/// The copies that exist on this node: records of anything else are skipped.
pub type RecoveryScope = BTreeMap<PartitionId, RecoveryCopy>;

/// What recovery has to know of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryCopy {
    /// From its descriptor. Records of another incarnation are skipped.
    pub incarnation: ReplicaIncarnation,
    /// Its rows up to here are on stable storage: records at or below it are not kept in memory.
    pub flushed: Decree,
}

/// Writes that were known synced and are not there (any more).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// First and last sequence of the missing writes.
    pub sequences: (u64, u64),
    /// Whose records they held.
    pub partitions: DamagedPartitions,
}

/// Whose records are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DamagedPartitions {
    /// Exactly these, with the decrees concerned. Copies that do not exist, or have flushed all of them, are left
    /// out.
    Named(Vec<PartitionRange>),
    /// The list and its repeat are gone too: every copy of this log with unflushed decrees may be concerned.
    Unknown,
}

/// What a log directory holds.
///
/// Whatever the caller must do durably because of it (copies that are damaged, a changed boot) it does before
/// [`Log::open`](super::Log::open): opening takes note that damage and boot were reported.
#[derive(Debug)]
pub struct LogRecovery {
    /// The copies in scope that have records.
    pub partitions: BTreeMap<PartitionId, RecoveredPartition>,
    /// What was lost, not counting what an earlier recovery reported.
    pub damage: Vec<Damage>,
    /// The machine was booted since the log was last opened, or it is not known: what was only `written` may be
    /// lost. False for a log that is new.
    pub boot_changed: bool,
    /// Log writes that are kept.
    pub writes: u64,
    /// Log writes beyond the end that were on their way and not known synced: cut.
    pub cut_writes: u64,
    pub(super) resume: Resume,
}

/// What [`Log::open`](super::Log::open) goes on from.
#[derive(Debug)]
pub(super) struct Resume {
    pub(super) log: u64,
    /// Of the life that opening begins.
    pub(super) incarnation: u64,
    pub(super) lives: Lives,
    pub(super) reported: Vec<(u64, u64)>,
    pub(super) head: u64,
    pub(super) next_sequence: u64,
    pub(super) previous_checksum: u32,
    pub(super) previous_list: Vec<PartitionRange>,
    pub(super) live: VecDeque<LiveSegment>,
    pub(super) index: Index,
    pub(super) flushed: HashMap<PartitionId, Decree>,
    pub(super) files: Vec<ResumeFile>,
}

/// A segment file that exists.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResumeFile {
    pub(super) number: u32,
    pub(super) bytes: u64,
    /// Its zeros are known synced.
    pub(super) prepared: bool,
}

impl LogRecovery {
    /// The copies in scope that lost records, also those that may have.
    pub fn damaged_partitions(&self, scope: &RecoveryScope) -> BTreeSet<PartitionId> {
        let mut damaged = BTreeSet::new();
        for damage in &self.damage {
            match &damage.partitions {
                DamagedPartitions::Named(ranges) => damaged.extend(ranges.iter().map(|range| range.partition)),
                DamagedPartitions::Unknown => damaged.extend(scope.keys().copied()),
            }
        }
        damaged
    }
}

/// Reads the log in `options.directory`. Blocks for as long as it takes to read what is live in it.
///
/// Records of a copy that is not in `scope`, or of another incarnation of it, are skipped. The directory of another
/// core (after a change of their number) is read in the same way.
pub fn recover(options: &LogOptions, scope: &RecoveryScope) -> Result<LogRecovery, LogError> {
    options.validate()?;
    let directory = &options.directory;
    if is_retired(directory) {
        return Ok(fresh());
    }
    let meta = Meta::load(directory)?;
    let mut segments = Segments::open(directory)?;
    let (mut meta, lost) = match meta {
        Loaded::Valid(meta) => (meta, false),
        Loaded::Absent if segments.found.iter().all(|segment| segment.header.is_none()) => return Ok(fresh()),
        found => {
            tracing::error!(directory = %directory.display(), ?found, "the log's own file is lost");
            (meta_from(&segments, options), true)
        }
    };
    lives_of(&segments, meta.log, &mut meta.lives);
    let mut gathered = Gathered::new(scope);
    let walk = Walk::new(&mut segments, meta.log, &meta.lives, meta.head);
    let end = walk.run(|write, number, decoded| gathered.accept(write, number, decoded))?;
    let boot_changed = lost || meta.boot != options.boot;
    let mut recovery = gathered.finish(end, meta, &segments, scope);
    recovery.boot_changed = boot_changed;
    if lost {
        recovery.damage.push(Damage { sequences: (0, 0), partitions: DamagedPartitions::Unknown });
    }
    report(directory, &recovery);
    Ok(recovery)
}

/// A log that was never written.
fn fresh() -> LogRecovery {
    let resume = Resume {
        log: RandomState::new().hash_one(std::process::id()),
        incarnation: 1,
        lives: Lives::default(),
        reported: Vec::new(),
        head: 1,
        next_sequence: 1,
        previous_checksum: 0,
        previous_list: Vec::new(),
        live: VecDeque::new(),
        index: Index::default(),
        flushed: HashMap::new(),
        files: Vec::new(),
    };
    LogRecovery {
        partitions: BTreeMap::new(),
        damage: Vec::new(),
        boot_changed: false,
        writes: 0,
        cut_writes: 0,
        resume,
    }
}

/// What the segments themselves tell, for when the log's own file is lost.
fn meta_from(segments: &Segments, options: &LogOptions) -> Meta {
    let log = segments.found.iter().find_map(|segment| segment.header.map(|header| header.log)).unwrap_or_default();
    Meta { log, boot: options.boot, incarnation: 0, head: 1, lives: Lives::default(), reported: Vec::new() }
}

fn report(directory: &Path, recovery: &LogRecovery) {
    let (writes, cut_writes, damage) = (recovery.writes, recovery.cut_writes, recovery.damage.len());
    tracing::info!(directory = %directory.display(), writes, cut_writes, damage, "log recovered");
    for damage in &recovery.damage {
        tracing::error!(directory = %directory.display(), ?damage, "synced log writes are missing");
    }
}

/// Everything the accepted writes add up to.
struct Gathered<'a> {
    scope: &'a RecoveryScope,
    histories: BTreeMap<PartitionId, HistoryBuilder>,
    index: Index,
    live: VecDeque<LiveSegment>,
    writes: u64,
    incarnation: u64,
    last_sequence: u64,
}

impl<'a> Gathered<'a> {
    fn new(scope: &'a RecoveryScope) -> Gathered<'a> {
        Gathered {
            scope,
            histories: BTreeMap::new(),
            index: Index::default(),
            live: VecDeque::new(),
            writes: 0,
            incarnation: 0,
            last_sequence: 0,
        }
    }

    fn accept(&mut self, write: &FoundWrite, number: u32, decoded: &DecodedWrite<'_>) {
        let header = &write.header;
        if self.live.back().is_none_or(|segment| segment.number != number) {
            self.live.push_back(LiveSegment {
                number,
                bytes: 0,
                first_sequence: header.sequence,
                end: 0,
                unflushed: HashMap::new(),
            });
        }
        self.writes += 1;
        self.incarnation = self.incarnation.max(header.incarnation);
        self.last_sequence = header.sequence;
        let place =
            WritePlace { segment: number, offset: write.offset, bytes: header.write_bytes, sequence: header.sequence };
        for record in &decoded.records {
            let Some(copy) = self.scope.get(&record.partition).filter(|copy| copy.incarnation == record.incarnation)
            else {
                continue;
            };
            let history = || HistoryBuilder::new(copy.incarnation, copy.flushed);
            self.histories.entry(record.partition).or_insert_with(history).push(*record);
            let copy = (record.partition, record.incarnation);
            let indexed = self.index.add(place, copy, record.kind, record.ballot, record.decree);
            enter(&mut self.live, number, record.partition, record.decree, indexed);
        }
    }

    fn finish(mut self, end: WalkEnd, meta: Meta, segments: &Segments, scope: &RecoveryScope) -> LogRecovery {
        self.drop_below(end.head);
        let bytes: HashMap<u32, u64> = segments.found.iter().map(|found| (found.number, found.bytes)).collect();
        for segment in &mut self.live {
            segment.bytes = bytes.get(&segment.number).copied().unwrap_or_default();
            segment.end = segment.bytes;
        }
        let missing: Vec<_> = end.missing.into_iter().filter(|missing| missing.last >= end.head).collect();
        let mut reported = meta.reported;
        let fresh_damage = missing.iter().filter(|missing| !is_reported(&reported, missing));
        let damage = fresh_damage.filter_map(|missing| damage_of(missing, scope)).collect();
        reported = missing.iter().map(|missing| (missing.first, missing.last)).collect();
        let seen = meta.lives.as_slice().last().map_or(0, |life| life.incarnation);
        let resume = Resume {
            log: meta.log,
            incarnation: 1 + meta.incarnation.max(self.incarnation).max(seen),
            lives: meta.lives,
            reported,
            head: end.head,
            next_sequence: end.next,
            previous_checksum: end.previous_checksum,
            previous_list: end.previous_list,
            live: self.live,
            index: self.index,
            flushed: scope.iter().map(|(partition, copy)| (*partition, copy.flushed)).collect(),
            files: files(segments, meta.log),
        };
        LogRecovery {
            partitions: self.histories.into_iter().map(|(partition, history)| (partition, history.finish())).collect(),
            damage,
            boot_changed: false,
            writes: self.writes,
            cut_writes: end.cut_writes,
            resume,
        }
    }

    /// Gives up the segments that the last write says are no longer part of the log.
    fn drop_below(&mut self, head: u64) {
        loop {
            let through = match self.live.get(1) {
                Some(next) => next.first_sequence - 1,
                None => self.last_sequence,
            };
            if self.live.is_empty() || through >= head {
                return;
            }
            if let Some(segment) = self.live.pop_front() {
                for partition in segment.unflushed.keys() {
                    self.index.remove_oldest(*partition, segment.number);
                }
            }
        }
    }
}

/// Keeps what the live segments are needed for in step with the index.
fn enter(
    live: &mut VecDeque<LiveSegment>,
    number: u32,
    partition: PartitionId,
    decree: Decree,
    indexed: super::index::Indexed,
) {
    if let Some(void_from) = indexed.void_from {
        for last in live.iter_mut().filter_map(|segment| segment.unflushed.get_mut(&partition)) {
            *last = void_from.previous().min(*last);
        }
    }
    if let Some(segment) = live.back_mut().filter(|segment| indexed.kept && segment.number == number) {
        let last = segment.unflushed.entry(partition).or_default();
        *last = decree.max(*last);
    }
}

fn is_reported(reported: &[(u64, u64)], missing: &MissingWrites) -> bool {
    reported.iter().any(|(first, last)| *first <= missing.first && missing.last <= *last)
}

/// What the missing writes mean for the copies in scope; `None` if nothing.
fn damage_of(missing: &MissingWrites, scope: &RecoveryScope) -> Option<Damage> {
    let sequences = (missing.first, missing.last);
    let Some(list) = &missing.list else {
        return Some(Damage { sequences, partitions: DamagedPartitions::Unknown });
    };
    let concerned = |range: &&PartitionRange| scope.get(&range.partition).is_some_and(|copy| copy.flushed < range.last);
    let ranges: Vec<PartitionRange> = list.iter().filter(concerned).copied().collect();
    (!ranges.is_empty()).then_some(Damage { sequences, partitions: DamagedPartitions::Named(ranges) })
}

fn files(segments: &Segments, log: u64) -> Vec<ResumeFile> {
    let prepared = |found: &super::scan::FoundSegment| {
        found.header.is_some_and(|header| {
            header.log == log && header.number == found.number && header.segment_bytes == found.bytes
        })
    };
    let file = |found: &super::scan::FoundSegment| ResumeFile {
        number: found.number,
        bytes: found.bytes,
        prepared: prepared(found),
    };
    segments.found.iter().map(file).collect()
}
