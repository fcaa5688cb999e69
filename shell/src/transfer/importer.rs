//! Writes the rows of an input, many at a time.
//!
//! A row of an import may safely be written twice, so a write whose outcome is unknown is simply repeated. That is this
//! program's knowledge about its own writes; the client library never does it.
//!
//! The progress file never counts a row that is not acknowledged.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use pegasus_client::{Error, Table, WriteBatch, expiry_from_now};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::transfer::checkpoint::{Checkpoint, Position};
use crate::transfer::flight::Flight;
use crate::transfer::progress::Progress;
use crate::transfer::reader::{Group, Input};
use crate::transfer::retry::Retry;

/// Between two writes of the progress file, and two updates of the display.
const TICK: Duration = Duration::from_millis(250);

/// How an import runs.
pub struct ImportOptions {
    /// Rows under way at most.
    pub concurrency: usize,
    /// How each group is written.
    pub terms: WriteTerms,
    /// The progress file and what it says besides the position; `None` to keep none.
    pub checkpoint: Option<(PathBuf, Checkpoint)>,
}

/// How a group is written.
#[derive(Clone, Copy, Debug)]
pub struct WriteTerms {
    /// How long a group is tried before the import gives up.
    pub retry_for: Duration,
    /// Time to live for rows that state no expiry; 0 means none.
    pub ttl_seconds: u32,
}

/// How an import ended.
#[derive(Clone, Debug)]
pub struct ImportReport {
    /// All rows of the input before this are acknowledged.
    pub through: Position,
    /// Rows acknowledged by this run, also beyond `through`.
    pub rows: u64,
    /// Groups that were written again.
    pub retries: u64,
    /// True if the end of the input was reached and all is acknowledged.
    pub complete: bool,
    /// Why it ended early; `None` if it was complete or stopped by the user.
    pub failure: Option<String>,
}

/// One import under way.
pub struct Importer<'a> {
    table: &'a Table,
    options: ImportOptions,
    flight: Flight,
    saved: Option<Position>,
    end: Option<Position>,
    failure: Option<String>,
    retry: Arc<Retry>,
    noted: mpsc::Receiver<String>,
}

impl<'a> Importer<'a> {
    /// An import that continues at `from`.
    pub fn new(table: &'a Table, options: ImportOptions, from: Position) -> Importer<'a> {
        let flight = Flight::new(options.concurrency, from);
        let (retry, noted) = Retry::new(options.terms.retry_for);
        Importer { table, options, flight, saved: None, end: None, failure: None, retry: Arc::new(retry), noted }
    }

    /// Runs until the end of the input, a failure, or `interrupted`; then waits for what is under way. The progress
    /// file is written at the start (so that a place that cannot be written is found before anything else), every so
    /// often, and at the end.
    pub async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        interrupted: impl Future<Output = ()>,
        progress: &mut Progress,
    ) -> Result<ImportReport, String> {
        self.save(false)?;
        let mut interrupted = std::pin::pin!(interrupted);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut under_way = FuturesUnordered::new();
        loop {
            while let Some(group) = self.next_to_start() {
                under_way.push(write_group(self.table, self.options.terms.ttl_seconds, group, self.retry.clone()));
            }
            let stopping = self.retry.is_stopping();
            let at_end = self.end.is_some() || stopping;
            if under_way.is_empty() && at_end && (self.flight.has_place() || stopping) {
                break;
            }
            tokio::select! {
                Some((group, outcome)) = under_way.next(), if !under_way.is_empty() => self.finish(&group, outcome),
                input = inputs.recv(), if !at_end && self.flight.has_place() => self.take(input),
                Some(note) = self.noted.recv() => progress.note(&note),
                _ = ticks.tick() => {
                    self.save(false)?;
                    progress.update(self.flight.rows_done(), self.flight.through().bytes);
                }
                () = &mut interrupted, if !stopping => {
                    self.retry.stop();
                }
            }
        }
        let through = self.flight.through();
        let complete = self.failure.is_none() && self.end == Some(through);
        self.save(complete)?;
        Ok(ImportReport {
            through,
            rows: self.flight.rows_done(),
            retries: self.retry.retries(),
            complete,
            failure: self.failure,
        })
    }

    fn take(&mut self, input: Option<Input>) {
        match input {
            Some(Input::Group(group)) => self.flight.offer(group),
            Some(Input::End(position)) => self.end = Some(position),
            Some(Input::Failed(message)) => self.fail(message),
            None => self.fail("the reader of the input has gone".into()),
        }
    }

    fn next_to_start(&mut self) -> Option<Group> {
        if self.retry.is_stopping() { None } else { self.flight.start() }
    }

    fn finish(&mut self, group: &Group, outcome: Result<(), String>) {
        self.flight.end(group, outcome.is_ok());
        if let Err(message) = outcome {
            self.fail(message);
        }
    }

    /// Stops the import. The first reason is the one to tell; writes cut short because of it are not reasons.
    fn fail(&mut self, message: String) {
        if !self.retry.stop() {
            self.failure = Some(message);
        }
    }

    fn save(&mut self, complete: bool) -> Result<(), String> {
        let through = self.flight.through();
        if let Some((path, template)) = &self.options.checkpoint
            && (complete || self.saved != Some(through))
        {
            let checkpoint = Checkpoint { rows: through.rows, bytes: through.bytes, complete, ..template.clone() };
            checkpoint.store(path)?;
            self.saved = Some(through);
        }
        Ok(())
    }
}

/// Writes a group until it is acknowledged, refused for good, or tried for too long.
async fn write_group(table: &Table, ttl_seconds: u32, group: Group, retry: Arc<Retry>) -> (Group, Result<(), String>) {
    let mut attempts = retry.begin();
    loop {
        let error = match write_once(table, &group, ttl_seconds).await {
            Ok(()) => return (group, Ok(())),
            Err(error) => error,
        };
        let what = format!("rows {} to {}", group.first + 1, group.end.rows);
        if let Err(text) = attempts.failed(&what, &error).await {
            return (group, Err(text));
        }
    }
}

async fn write_once(table: &Table, group: &Group, ttl_seconds: u32) -> Result<(), Error> {
    let default_expiry = expiry_from_now(ttl_seconds);
    let mut batch = WriteBatch::new();
    for row in &group.rows {
        let expiry = if row.expiry_seconds == 0 { default_expiry } else { row.expiry_seconds };
        batch.put_until(&row.sort_key, &row.value, expiry);
    }
    table.write(&group.hash_key, &batch).await
}
