//! Opening: from what recovery found to a log that takes records.
//!
//! The order is what makes a crash in it harmless:
//!
//! 1. segment files exist (their entries are durable);
//! 2. what recovery kept is synced;
//! 3. the log's own file begins the new life: from here on the cut tail is void, and what was kept counts as synced;
//! 4. segments are zeroed, and the first writes of the new life go to a fresh one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use super::directory::{LogDirectory, is_retired};
use super::error::LogError;
use super::file::{LogHook, SegmentFile};
use super::handle::{Log, Shared};
use super::lives::Life;
use super::meta::Meta;
use super::options::LogOptions;
use super::prepare::prepare;
use super::recovery::{LogRecovery, Resume, ResumeFile};
use super::scan::segment_path;
use super::space::{FreeSegment, Space};
use super::state::{Chain, State};
use crate::durable_file::{create_directory, sync_directory};

impl Log {
    /// Opens the log that `recovery` was read from. It blocks for small files and waits for the first segments to be
    /// zeroed: call it before the executor serves.
    ///
    /// What had to be done durably because of the recovery (damaged copies, another boot) must be done: opening
    /// takes note that it was reported.
    ///
    /// # Errors
    /// Any failure to make, write or sync a file: the directory cannot be written, the disk is full, the file system
    /// does not take direct writes.
    pub async fn open(options: LogOptions, recovery: LogRecovery) -> Result<Log, LogError> {
        Log::open_with_hook(options, recovery, None).await
    }

    /// As [`Log::open`], with a hook that sees every operation on the segments. For tests.
    pub async fn open_with_hook(
        options: LogOptions,
        recovery: LogRecovery,
        hook: Option<LogHook>,
    ) -> Result<Log, LogError> {
        options.validate()?;
        let mut resume = recovery.resume;
        let directory = options.directory.as_path();
        create_directory(directory)?;
        if is_retired(directory) {
            LogDirectory::new(directory).retire()?;
        }
        let spare = choose_files(&options, &mut resume)?;
        SegmentFile::probe_device(directory).await?;
        let files = open_files(directory, &resume, &spare, hook).await?;
        sync_directory(directory)?;
        for segment in &resume.live {
            if let Some(file) = files.get(&segment.number) {
                file.sync().await?;
            }
        }
        begin_life(&options, &mut resume)?;
        let log = assemble(options, resume, files, &spare);
        log.prepare_first().await?;
        Ok(log)
    }

    /// Zeroes segments until enough are ready.
    async fn prepare_first(&self) -> Result<(), LogError> {
        loop {
            let blank = {
                let mut state = self.shared.state.borrow_mut();
                if state.space.free_count() >= self.shared.options.spare_segments {
                    return Ok(());
                }
                state.space.take_blank()
            };
            match blank {
                Some(number) => prepare(&self.shared, number).await?,
                None => return Ok(()),
            }
        }
    }
}

/// A segment without records.
#[derive(Clone, Copy, Debug)]
struct SpareFile {
    number: u32,
    prepared: bool,
}

/// Decides which files without records are kept or made, within the budget, and deletes the others. At least the
/// spare segments are there, even if live ones take the whole budget.
fn choose_files(options: &LogOptions, resume: &mut Resume) -> Result<Vec<SpareFile>, LogError> {
    let mut wanted = options.segments().saturating_sub(resume.live.len() as u64) as usize;
    wanted = wanted.max(options.spare_segments);
    let is_live = |file: &ResumeFile| resume.live.iter().any(|segment| segment.number == file.number);
    let mut spare = Vec::new();
    for file in resume.files.iter().filter(|file| !is_live(file)) {
        if spare.len() < wanted {
            let prepared = file.prepared && file.bytes == options.segment_bytes;
            spare.push(SpareFile { number: file.number, prepared });
            if file.bytes > options.segment_bytes {
                shorten(&options.directory, file.number, options.segment_bytes)?;
            }
        } else {
            let path = segment_path(&options.directory, file.number);
            fs::remove_file(&path).map_err(LogError::io(&path, "delete"))?;
        }
    }
    let taken = |number| resume.files.iter().any(|file| file.number == number);
    let missing = wanted - spare.len();
    let numbers = (0..).filter(|number| !taken(*number)).take(missing);
    spare.extend(numbers.map(|number| SpareFile { number, prepared: false }));
    // Those that are ready come first.
    spare.sort_by_key(|file| (!file.prepared, file.number));
    Ok(spare)
}

/// Cuts a file left from larger segments.
fn shorten(directory: &Path, number: u32, bytes: u64) -> Result<(), LogError> {
    let path = segment_path(directory, number);
    let file = fs::OpenOptions::new().write(true).open(&path).map_err(LogError::io(&path, "open"))?;
    file.set_len(bytes).map_err(LogError::io(&path, "shorten"))
}

async fn open_files(
    directory: &Path,
    resume: &Resume,
    spare: &[SpareFile],
    hook: Option<LogHook>,
) -> Result<HashMap<u32, Rc<SegmentFile>>, LogError> {
    let live = resume.live.iter().map(|segment| segment.number);
    let mut files = HashMap::new();
    for number in live.chain(spare.iter().map(|file| file.number)) {
        let file = SegmentFile::open(&segment_path(directory, number), number, hook.clone()).await?;
        files.insert(number, Rc::new(file));
    }
    Ok(files)
}

fn begin_life(options: &LogOptions, resume: &mut Resume) -> Result<(), LogError> {
    resume.lives.learn(Life { incarnation: resume.incarnation, first_sequence: resume.next_sequence });
    resume.lives.forget_below(resume.head);
    let meta = Meta {
        log: resume.log,
        boot: options.boot,
        incarnation: resume.incarnation,
        head: resume.head,
        lives: resume.lives.clone(),
        reported: resume.reported.clone(),
    };
    meta.store(&options.directory)
}

fn assemble(options: LogOptions, resume: Resume, files: HashMap<u32, Rc<SegmentFile>>, spare: &[SpareFile]) -> Log {
    let kept = resume.next_sequence - 1;
    let chain = Chain {
        log: resume.log,
        incarnation: resume.incarnation,
        first_sequence: resume.next_sequence,
        next_sequence: resume.next_sequence,
        previous_checksum: resume.previous_checksum,
        previous_list: resume.previous_list,
        written_sequence: kept,
        synced_sequence: kept,
        content_sequence: kept,
        stated_sequence: kept,
    };
    let mut space =
        Space::new(options.segment_bytes, options.budget_bytes, options.write_bytes_max(), resume.live, resume.flushed);
    for file in spare {
        match file.prepared {
            true => space.add_free(FreeSegment { number: file.number, bytes: options.segment_bytes }),
            false => space.add_blank(file.number),
        }
    }
    let mut state = State::new(&options, chain, space, resume.index);
    state.collect();
    Log { shared: Rc::new(Shared { options, files: RefCell::new(files), state: RefCell::new(state) }) }
}
