//! The log as its core uses it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;

use pegasus_wire::{Decree, Durability, PartitionId};

use super::error::{AppendRefused, LogError};
use super::file::SegmentFile;
use super::options::LogOptions;
use super::record::LogRecord;
use super::state::{LogSequence, State};
use super::statistics::LogStatistics;

/// The open log of one core. It lives in one glommio executor; clones are the same log.
///
/// How it is used:
/// - [`recover`](super::recover), then [`Log::open`], then [`Log::run`] as a task of its own;
/// - [`Log::append`] for every record of a settle, then [`Log::submit`] once. Neither waits;
/// - `run` reports progress by calling back. A record of a `synced` table may be acknowledged when `synced` has
///   reached its sequence, one of a `written` table when `written` has;
/// - [`Log::set_flushed`] and [`Log::forget`] let segments go, [`Log::pressure`] says who holds them;
/// - [`Log::close`] before the executor ends.
///
/// Once `run` has returned an error every append fails with the same reason; reads go on.
#[derive(Clone)]
pub struct Log {
    pub(super) shared: Rc<Shared>,
}

/// What all clones share.
pub(super) struct Shared {
    pub(super) options: LogOptions,
    pub(super) files: RefCell<HashMap<u32, Rc<SegmentFile>>>,
    pub(super) state: RefCell<State>,
}

impl Shared {
    pub(super) fn file(&self, segment: u32) -> Result<Rc<SegmentFile>, LogError> {
        let file = self.files.borrow().get(&segment).map(Rc::clone);
        file.ok_or_else(|| LogError::Closed { reason: "its files are closed".into() })
    }
}

impl Log {
    /// Takes a record for the next write. It is not durable before progress says so, and not even written before
    /// [`Log::submit`].
    ///
    /// # Errors
    /// [`LogError::Closed`], [`LogError::Full`] or [`LogError::TooLarge`], with the record that was not taken.
    pub fn append(&self, record: LogRecord, durability: Durability) -> Result<LogSequence, Box<AppendRefused>> {
        self.shared.state.borrow_mut().append(record, durability)
    }

    /// Wakes the writer. Called once after a number of appends.
    pub fn submit(&self) {
        self.shared.state.borrow_mut().wake_writer();
    }

    /// Asks for a sync of everything appended so far, also of what was appended as `written`, and tells up to where
    /// that is; needed once when a table's durability is raised. Progress tells when it is done.
    pub fn request_sync(&self) -> LogSequence {
        let mut state = self.shared.state.borrow_mut();
        state.wake_writer();
        state.want_sync()
    }

    /// The rows of the partition's present copy up to `decree` are on stable storage elsewhere: records up to it may
    /// go.
    pub fn set_flushed(&self, partition: PartitionId, decree: Decree) {
        self.shared.state.borrow_mut().set_flushed(partition, decree);
    }

    /// The copy of the partition was dropped or replaced: none of the records appended for it so far, also of those not
    /// written yet, is needed or readable any more, and nothing is flushed. What is appended from now on is of the next
    /// copy, whose flushed decree has to be told anew; what an old copy still has to say must not be passed on.
    pub fn forget(&self, partition: PartitionId) {
        self.shared.state.borrow_mut().forget(partition);
    }

    /// Partitions whose unflushed records hold the oldest segments while more than three quarters of the budget are
    /// in use, the oldest first: flush these.
    pub fn pressure(&self) -> Vec<PartitionId> {
        self.shared.state.borrow().space.pressure()
    }

    /// Why the log is closed for writing, if it is.
    pub fn closed(&self) -> Option<LogError> {
        self.shared.state.borrow().check_open().err()
    }

    /// A copy of the counters. It copies histograms: for a metrics page, not for the hot path.
    pub fn statistics(&self) -> LogStatistics {
        self.shared.state.borrow().statistics()
    }

    /// Takes no more records, writes and syncs what is pending, waits for [`Log::run`] to return and closes the
    /// files. What was appended while no `run` was going is lost.
    pub async fn close(&self) {
        self.shared.state.borrow_mut().stop();
        poll_fn(|context| self.shared.state.borrow_mut().poll_stopped(context.waker())).await;
        let files: Vec<_> = self.shared.files.borrow_mut().drain().map(|(_, file)| file).collect();
        for file in files {
            // A reader that still holds one lets it go when it is done.
            let Ok(file) = Rc::try_unwrap(file) else { continue };
            if let Err(error) = file.close().await {
                tracing::warn!(%error, "a segment did not close");
            }
        }
    }
}
