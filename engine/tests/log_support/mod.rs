//! What the log's tests share: an executor, a running log, a recorder of every write and sync, and crash images.

#![allow(dead_code)] // Each test file uses a part of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use glommio::{LocalExecutorBuilder, Placement};
use pegasus_engine::identity::BootId;
use pegasus_engine::log::{
    Log, LogError, LogFault, LogHook, LogIo, LogOptions, LogProgress, LogRecord, LogRecovery, LogSequence, RecordKind,
    RecoveryCopy, RecoveryScope, recover,
};
use pegasus_wire::{Ballot, Decree, Durability, MutationKind, PartitionId, ReplicaIncarnation};

pub(crate) const SEGMENT_BYTES: u64 = 256 * 1024;
pub(crate) const BLOCK: usize = 4096;
pub(crate) const INCARNATION: ReplicaIncarnation = ReplicaIncarnation(7);

/// Runs a future on an executor of its own.
pub(crate) fn on_executor<T>(future: impl Future<Output = T>) -> T {
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(1 << 20);
    builder.make().expect("an executor").run(future)
}

/// A directory on the disk, for direct writes as a server makes them.
pub(crate) fn disk_directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A directory that is quick to sync where there is one; what a crash leaves is simulated anyway.
pub(crate) fn quick_directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match tempfile::tempdir_in(memory) {
        Ok(directory) => directory,
        Err(_) => tempfile::tempdir().unwrap(),
    }
}

pub(crate) fn options(directory: &Path) -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT_BYTES,
        budget_bytes: 8 * SEGMENT_BYTES,
        ..LogOptions::new(directory, BootId([1; 16]))
    }
}

pub(crate) fn partition(index: u32) -> PartitionId {
    PartitionId::new(1, index)
}

pub(crate) fn scope(partitions: u32) -> RecoveryScope {
    let copy = RecoveryCopy { incarnation: INCARNATION, flushed: Decree(0) };
    (0..partitions).map(|index| (partition(index), copy)).collect()
}

pub(crate) fn mutation(index: u32, ballot: u64, decree: u64, payload: Vec<u8>) -> LogRecord {
    LogRecord {
        partition: partition(index),
        incarnation: INCARNATION,
        kind: RecordKind::Mutation(MutationKind::Write),
        ballot: Ballot(ballot),
        decree: Decree(decree),
        committed: Decree(decree.saturating_sub(1)),
        timestamp_micros: decree * 1000,
        payload: Bytes::from(payload),
    }
}

pub(crate) fn truncate(index: u32, ballot: u64, decree: u64) -> LogRecord {
    LogRecord { kind: RecordKind::Truncate, payload: Bytes::new(), ..mutation(index, ballot, decree, Vec::new()) }
}

/// A payload that differs for every record and fills `bytes`.
pub(crate) fn payload(index: u32, decree: u64, bytes: usize) -> Vec<u8> {
    let mut rng = Rng::new(u64::from(index) << 32 | decree);
    (0..bytes).map(|_| rng.next() as u8).collect()
}

/// The decrees of a partition that recovery returned.
pub(crate) fn decrees(recovery: &LogRecovery, index: u32) -> Vec<u64> {
    let recovered = recovery.partitions.get(&partition(index));
    recovered.map_or(Vec::new(), |recovered| recovered.records.iter().map(|record| record.decree.0).collect())
}

/// A small generator: the same seed gives the same run.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A log with its writer going.
pub(crate) struct Running {
    pub(crate) log: Log,
    pub(crate) progress: Rc<Cell<LogProgress>>,
    wakers: Rc<RefCell<Vec<Waker>>>,
    outcome: Rc<RefCell<Option<Result<(), LogError>>>>,
}

impl Running {
    pub(crate) fn start(log: Log, recorder: Option<Recorder>) -> Running {
        let running =
            Running { log: log.clone(), progress: Rc::default(), wakers: Rc::default(), outcome: Rc::default() };
        let (progress, wakers) = (Rc::clone(&running.progress), Rc::clone(&running.wakers));
        let (ended, outcome) = (Rc::clone(&running.wakers), Rc::clone(&running.outcome));
        glommio::spawn_local(async move {
            let result = log
                .run(move |now| {
                    assert!(now.synced <= now.written, "{now:?}");
                    let before = progress.replace(now);
                    assert!(before.written <= now.written && before.synced <= now.synced, "{before:?} {now:?}");
                    if let Some(recorder) = &recorder {
                        recorder.push(Event::Progress(now));
                    }
                    wakers.borrow_mut().drain(..).for_each(Waker::wake);
                })
                .await;
            *outcome.borrow_mut() = Some(result);
            ended.borrow_mut().drain(..).for_each(Waker::wake);
        })
        .detach();
        running
    }

    /// Opens what is in the directory and starts the writer.
    pub(crate) async fn open(options: &LogOptions, scope: &RecoveryScope) -> Running {
        let recovery = recover(options, scope).unwrap();
        Running::start(Log::open(options.clone(), recovery).await.unwrap(), None)
    }

    pub(crate) fn append(&self, record: LogRecord, durability: Durability) -> LogSequence {
        self.log.append(record, durability).unwrap()
    }

    async fn wait(&self, mut done: impl FnMut() -> bool) {
        let waiting = poll_fn(|context| {
            if done() || self.outcome.borrow().is_some() {
                return Poll::Ready(());
            }
            self.wakers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        });
        let bounded = glommio::timer::timeout(Duration::from_secs(60), async {
            waiting.await;
            Ok::<(), glommio::GlommioError<()>>(())
        });
        bounded.await.expect("progress within a minute");
    }

    pub(crate) async fn synced(&self, sequence: LogSequence) {
        self.wait(|| self.progress.get().synced >= sequence).await;
        assert!(self.progress.get().synced >= sequence, "the log closed: {:?}", self.outcome.borrow());
    }

    pub(crate) async fn written(&self, sequence: LogSequence) {
        self.wait(|| self.progress.get().written >= sequence).await;
        assert!(self.progress.get().written >= sequence, "the log closed: {:?}", self.outcome.borrow());
    }

    /// Waits for the writer to return.
    pub(crate) async fn ended(&self) -> Result<(), LogError> {
        self.wait(|| false).await;
        self.outcome.borrow_mut().take().expect("it ended")
    }

    pub(crate) async fn close(self) {
        self.log.close().await;
        self.wait(|| false).await;
        assert!(matches!(*self.outcome.borrow(), Some(Ok(()))), "{:?}", self.outcome.borrow());
    }
}

/// Something that happened, in order.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Write {
        segment: u32,
        offset: u64,
        bytes: Vec<u8>,
    },
    Written {
        segment: u32,
        offset: u64,
    },
    Sync {
        segment: u32,
    },
    Synced {
        segment: u32,
    },
    /// The log's own file was replaced.
    Meta(Vec<u8>),
    Progress(LogProgress),
    Appended(LogRecord),
    Flushed(PartitionId, Decree),
}

/// Records what a log does to its segments; can make one operation fail.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    pub(crate) events: Rc<RefCell<Vec<Event>>>,
    fault: Rc<Cell<Option<(bool, LogFault)>>>,
}

impl Recorder {
    pub(crate) fn push(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }

    /// The next log write (or, if `sync`, the next sync) gets this fault.
    pub(crate) fn fail_next(&self, sync: bool, fault: LogFault) {
        self.fault.set(Some((sync, fault)));
    }

    pub(crate) fn hook(&self, directory: &Path) -> LogHook {
        let recorder = self.clone();
        let meta_path = directory.join("meta");
        let meta: RefCell<Option<Vec<u8>>> = RefCell::new(fs::read(&meta_path).ok());
        Rc::new(move |operation| {
            let now = fs::read(&meta_path).ok();
            if *meta.borrow() != now {
                recorder.push(Event::Meta(now.clone().expect("it is never deleted")));
                *meta.borrow_mut() = now;
            }
            recorder.push(match operation {
                LogIo::Write { segment, offset, bytes } => Event::Write { segment, offset, bytes: bytes.to_vec() },
                LogIo::Written { segment, offset } => Event::Written { segment, offset },
                LogIo::Sync { segment } => Event::Sync { segment },
                LogIo::Synced { segment } => Event::Synced { segment },
            });
            recorder.fault_for(operation)
        })
    }

    fn fault_for(&self, operation: LogIo<'_>) -> LogFault {
        let is_sync = match operation {
            LogIo::Write { .. } => false,
            LogIo::Sync { .. } => true,
            _ => return LogFault::None,
        };
        match self.fault.get() {
            Some((sync, fault)) if sync == is_sync => {
                self.fault.set(None);
                fault
            }
            _ => LogFault::None,
        }
    }
}

/// The files of a log directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) segments: BTreeMap<u32, Vec<u8>>,
    pub(crate) meta: Option<Vec<u8>>,
}

/// How much of what was not synced survives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crash {
    /// The machine loses power: of each write that no sync covered, any subset of its blocks.
    Power {
        /// Chance of a block, in percent.
        survives: u64,
    },
    /// The process is killed: completed writes are whole, of those in flight any subset of blocks.
    Kill,
}

impl Image {
    pub(crate) fn load(directory: &Path) -> Image {
        let mut image = Image { meta: fs::read(directory.join("meta")).ok(), ..Image::default() };
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if let Some(number) = name.strip_prefix("segment-") {
                image.segments.insert(number.parse().unwrap(), fs::read(entry.path()).unwrap());
            }
        }
        image
    }

    pub(crate) fn store(&self, directory: &Path) {
        for (number, bytes) in &self.segments {
            fs::write(directory.join(format!("segment-{number:06}")), bytes).unwrap();
        }
        if let Some(meta) = &self.meta {
            fs::write(directory.join("meta"), meta).unwrap();
        }
    }

    /// What is found if the crash comes after these events, which began from this image.
    pub(crate) fn after(&self, events: &[Event], crash: Crash, rng: &mut Rng) -> Image {
        let (mut image, volatile) = self.split_after(events, crash, rng);
        for event in volatile {
            image.apply(&event);
        }
        image
    }

    /// As [`Image::after`], in two parts: what is on stable storage, and the writes on top of it that a killed process
    /// left in the device's cache, where a loss of power can still reach them.
    pub(crate) fn split_after(&self, events: &[Event], crash: Crash, rng: &mut Rng) -> (Image, Vec<Event>) {
        let mut image = self.clone();
        let mut volatile = Vec::new();
        for (event, fate) in events.iter().zip(fates(events)) {
            let Event::Write { segment, offset, bytes } = event else {
                image.apply(event);
                continue;
            };
            let percent = match (fate, crash) {
                (Fate::Synced, _) | (Fate::Completed, Crash::Kill) => 100,
                (_, Crash::Power { survives }) => survives,
                (Fate::InFlight, Crash::Kill) => 50,
            };
            for (block, bytes) in bytes.chunks(BLOCK).enumerate() {
                if !rng.chance(percent) {
                    continue;
                }
                let (segment, offset) = (*segment, *offset + (block * BLOCK) as u64);
                let landed = Event::Write { segment, offset, bytes: bytes.to_vec() };
                match (fate, crash) {
                    (Fate::Synced, _) | (_, Crash::Power { .. }) => image.apply(&landed),
                    (_, Crash::Kill) => volatile.extend([landed, Event::Written { segment, offset }]),
                }
            }
        }
        (image, volatile)
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Meta(bytes) => self.meta = Some(bytes.clone()),
            Event::Write { segment, offset, bytes } => {
                put(self.segments.entry(*segment).or_default(), *offset as usize, bytes);
            }
            _ => {}
        }
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    InFlight,
    Completed,
    Synced,
}

/// How far each write got, at its position in the events.
fn fates(events: &[Event]) -> Vec<Fate> {
    let mut fates = vec![Fate::InFlight; events.len()];
    let mut in_flight: Vec<(u32, u64, usize)> = Vec::new();
    let mut completed: Vec<(u32, usize)> = Vec::new();
    let mut covered: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        match event {
            Event::Write { segment, offset, .. } => in_flight.push((*segment, *offset, at)),
            Event::Written { segment, offset } => {
                let done = in_flight.iter().position(|(number, place, _)| number == segment && place == offset);
                let (_, _, write) = in_flight.swap_remove(done.expect("it was issued"));
                fates[write] = Fate::Completed;
                completed.push((*segment, write));
            }
            Event::Sync { segment } => {
                let writes = completed.iter().filter(|(number, _)| number == segment).map(|(_, write)| *write);
                covered.insert(*segment, writes.collect());
            }
            Event::Synced { segment } => {
                for write in covered.remove(segment).expect("it was issued") {
                    fates[write] = Fate::Synced;
                }
            }
            _ => {}
        }
    }
    fates
}
