//! The writer loop: group commit. Whatever gathered while the last write and sync were in flight is the next write.
//!
//! On the way from append to the progress report there are no tasks, channels or timers besides this loop: one
//! wake-up by `submit` if it was idle, one by the write, one by the sync.

use std::future::poll_fn;
use std::time::Instant;

use super::error::LogError;
use super::format::encode_write;
use super::handle::Log;
use super::prepare::prepare_all;
use super::state::{LogProgress, Work};

impl Log {
    /// Writes what is appended until [`Log::close`], and calls `on_progress` after every write and every sync that
    /// moved the log on. The callback may append and submit. Also prepares segments in the background.
    ///
    /// # Errors
    /// The first failure of a write or sync. The log then stays closed for writing; nothing is retried, because
    /// after a failed sync nobody knows what the device still has. The same happens when the future is dropped.
    ///
    /// # Panics
    /// When it is already running.
    pub async fn run(&self, mut on_progress: impl FnMut(LogProgress) + 'static) -> Result<(), LogError> {
        {
            let mut state = self.shared.state.borrow_mut();
            assert!(!state.running, "one writer per log");
            state.running = true;
        }
        let guard = RunGuard { log: self };
        let preparing = glommio::spawn_local(prepare_all(self.clone()));
        let outcome = self.write_until_stopped(&mut on_progress).await;
        preparing.cancel().await;
        let outcome = outcome.map_err(|error| self.close_for(error));
        drop(guard);
        outcome
    }

    async fn write_until_stopped(&self, on_progress: &mut impl FnMut(LogProgress)) -> Result<(), LogError> {
        loop {
            let work = poll_fn(|context| self.shared.state.borrow_mut().poll_work(context.waker())).await?;
            match work {
                Work::Write => self.write(on_progress).await?,
                Work::Sync => self.sync(on_progress).await?,
                Work::Stop => return Ok(()),
            }
        }
    }

    async fn write(&self, on_progress: &mut impl FnMut(LogProgress)) -> Result<(), LogError> {
        let state = &self.shared.state;
        let batch = state.borrow_mut().take_batch();
        let must_sync = batch.must_sync;
        // The segment that is left is synced first: a sync of the next one would say nothing about it.
        let leaves = {
            let state = state.borrow();
            let dirty = state.chain.synced_sequence < state.chain.written_sequence;
            dirty && state.space.left_by(state.write_bytes(&batch)).is_some()
        };
        if leaves {
            self.sync(on_progress).await?;
        }
        let (write, buffer, file) = {
            let mut state = state.borrow_mut();
            let write = state.plan(batch)?;
            let file = self.shared.file(write.placement.segment)?;
            let mut buffer = file.buffer(write.header.write_bytes as usize);
            let checksum = encode_write(&write.header, write.records.iter(), buffer.as_bytes_mut());
            state.note_issued(&write, checksum);
            (write, buffer, file)
        };
        let begun = Instant::now();
        file.write(buffer, write.placement.offset).await?;
        let moved = !write.records.is_empty();
        state.borrow_mut().note_written(write, begun.elapsed());
        if moved {
            let progress = state.borrow().progress();
            on_progress(progress);
        }
        if must_sync {
            self.sync(on_progress).await?;
        }
        Ok(())
    }

    async fn sync(&self, on_progress: &mut impl FnMut(LogProgress)) -> Result<(), LogError> {
        let state = &self.shared.state;
        let segment = state.borrow().space.current().map(|segment| segment.number);
        let Some(segment) = segment else { return Ok(()) };
        let file = self.shared.file(segment)?;
        let begun = Instant::now();
        file.sync().await?;
        let progress = {
            let mut state = state.borrow_mut();
            state.note_synced(begun.elapsed());
            state.progress()
        };
        on_progress(progress);
        Ok(())
    }

    /// Closes the log for writing because of an error; returns what appends get from now on.
    fn close_for(&self, error: LogError) -> LogError {
        match error {
            LogError::Closed { reason } => LogError::Closed { reason },
            error => {
                let directory = self.shared.options.directory.display();
                tracing::error!(%directory, %error, "the log is closed for writing until restart");
                self.shared.state.borrow_mut().latch(error.to_string().into())
            }
        }
    }
}

/// Says that the loop ended, also when it was dropped in the middle.
struct RunGuard<'a> {
    log: &'a Log,
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.log.shared.state.borrow_mut();
        if state.closed.is_none() {
            state.latch("its writer was dropped".into());
        }
        state.note_stopped();
    }
}
