//! Walks over all rows of a table, several partitions at once, and does something with them: counts, copies, deletes.
//!
//! ```text
//! partition 0:  scan -> rows -> groups of one hash key -> work on several groups at once
//! partition 1:  scan -> ...
//! ```
//!
//! Memory is bounded: a partition's next rows are fetched when there is room for work on them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use pegasus_client::{Error, ScanRow, Scanner, row_bytes, write_overhead_bytes};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::output::Failure;
use crate::transfer::progress::Progress;
use crate::transfer::retry::{Retry, Trouble};

/// A group stops growing here.
const GROUP_BYTES_TARGET: usize = 128 * 1024;
/// Between two updates of the display.
const TICK: Duration = Duration::from_millis(250);

/// A scan that gives rows batch by batch. After an error it may be asked again, and goes on behind the last row it
/// gave.
pub trait Batches {
    /// Why there are no rows.
    type Error: Trouble;

    /// The next rows, at least one; `None` at the end.
    fn next_batch(&mut self) -> impl Future<Output = Result<Option<Vec<ScanRow>>, Self::Error>>;
}

impl Batches for Scanner {
    type Error = Error;

    async fn next_batch(&mut self) -> Result<Option<Vec<ScanRow>>, Error> {
        Scanner::next_batch(self).await
    }
}

/// What the partitions of one walk share.
#[derive(Debug)]
pub struct Walk {
    /// How long each operation is tried.
    pub retry: Retry,
    /// Rows that are done.
    pub rows: AtomicU64,
    /// Their bytes (keys and values).
    pub bytes: AtomicU64,
}

/// How a walk ended, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkEnding {
    /// All partitions are done.
    Complete,
    /// The user stopped it.
    Interrupted,
}

/// Who watches a walk: shows how far it is and what it notes on its way.
pub struct Watch {
    noted: mpsc::Receiver<String>,
    /// How far it is.
    pub progress: Progress,
}

impl Walk {
    /// A walk whose operations are tried for this long each, and who watches it.
    pub fn start(retry_for: Duration, progress: Progress) -> (Walk, Watch) {
        let (retry, noted) = Retry::new(retry_for);
        (Walk { retry, rows: AtomicU64::new(0), bytes: AtomicU64::new(0) }, Watch { noted, progress })
    }

    /// The next rows of a scan; `None` at its end.
    pub async fn next_rows(&self, scanner: &mut impl Batches) -> Result<Option<Vec<ScanRow>>, Failure> {
        let mut attempts = self.retry.begin();
        loop {
            let error = match scanner.next_batch().await {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            let kind = error.kind();
            attempts.failed("reading", &error).await.map_err(|text| Failure::new(kind, text))?;
        }
    }

    /// Reads a scan to its end and gives its rows, those that `wanted` lets pass, in groups of one hash key with at
    /// most `rows_max` rows each.
    pub fn groups<'a>(
        &'a self,
        scanner: impl Batches + 'a,
        wanted: impl Fn(&ScanRow) -> bool + 'a,
        rows_max: usize,
    ) -> impl Stream<Item = Result<Vec<ScanRow>, Failure>> + 'a {
        let batches = stream::try_unfold(scanner, move |mut scanner| async move {
            Ok::<_, Failure>(self.next_rows(&mut scanner).await?.map(|rows| (rows, scanner)))
        });
        let groups = batches.map_ok(move |mut rows| {
            rows.retain(&wanted);
            stream::iter(split(rows, rows_max).into_iter().map(Ok))
        });
        groups.try_flatten()
    }

    /// Notes that rows are done.
    pub fn count(&self, rows: &[ScanRow]) {
        self.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
        let bytes: usize = rows.iter().map(|row| row.hash_key.len() + row.sort_key.len() + row.value.len()).sum();
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Watch {
    /// Works on partitions, `at_once` at a time, and shows how far it is. `done` hears of each one that is done.
    pub async fn each_partition<T, F>(
        &mut self,
        walk: &Walk,
        partitions: &[u32],
        at_once: usize,
        work: impl Fn(u32) -> F,
        mut done: impl FnMut(u32, T) -> Result<(), Failure>,
        interrupted: impl Future<Output = ()>,
    ) -> Result<WalkEnding, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let work = &work;
        let works = partitions.iter().map(|&index| async move { (index, work(index).await) });
        let mut works = stream::iter(works).buffer_unordered(at_once.max(1));
        let mut interrupted = std::pin::pin!(interrupted);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                next = works.next() => match next {
                    Some((index, outcome)) => done(index, outcome?)?,
                    None => return Ok(WalkEnding::Complete),
                },
                () = &mut interrupted => {
                    walk.retry.stop();
                    return Ok(WalkEnding::Interrupted);
                }
                Some(note) = self.noted.recv() => self.progress.note(&note),
                _ = ticks.tick() => {
                    self.progress.update(walk.rows.load(Ordering::Relaxed), walk.bytes.load(Ordering::Relaxed));
                }
            }
        }
    }
}

/// Adjacent rows of one hash key together, as long as they fit into one write.
fn split(rows: Vec<ScanRow>, rows_max: usize) -> Vec<Vec<ScanRow>> {
    let mut groups: Vec<Vec<ScanRow>> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let size = row_bytes(row.sort_key.len(), row.value.len());
        match groups.last_mut() {
            Some(group)
                if group[0].hash_key == row.hash_key
                    && group.len() < rows_max
                    && bytes + size <= GROUP_BYTES_TARGET =>
            {
                bytes += size;
                group.push(row);
            }
            _ => {
                bytes = write_overhead_bytes(row.hash_key.len()) + size;
                groups.push(vec![row]);
            }
        }
    }
    groups
}

/// The partitions to walk over: one, or all.
pub fn partitions(chosen: Option<u32>, partition_count: u32) -> Result<Vec<u32>, Failure> {
    match chosen {
        None => Ok((0..partition_count).collect()),
        Some(index) if index < partition_count => Ok(vec![index]),
        Some(index) => Err(Failure::usage(format!(
            "there is no partition {index}: the table has {partition_count}, counted from 0"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(hash_key: &str, sort_key: &str, value_bytes: usize) -> ScanRow {
        ScanRow {
            hash_key: hash_key.to_owned().into(),
            sort_key: sort_key.to_owned().into(),
            value: vec![0; value_bytes].into(),
            expiry_seconds: 0,
        }
    }

    fn sizes(rows: Vec<ScanRow>, rows_max: usize) -> Vec<usize> {
        split(rows, rows_max).iter().map(Vec::len).collect()
    }

    #[test]
    fn groups_have_one_hash_key_and_fit_into_a_write() {
        let rows = || vec![row("a", "1", 1), row("a", "2", 1), row("b", "1", 1), row("b", "2", 1), row("b", "3", 1)];
        assert_eq!(sizes(rows(), 100), [2, 3]);
        assert_eq!(sizes(rows(), 2), [2, 2, 1]);
        assert_eq!(sizes(rows(), 1), [1; 5]);
        let large = 60 * 1024;
        assert_eq!(sizes(vec![row("a", "1", large), row("a", "2", large), row("a", "3", large)], 100), [2, 1]);
        let huge = 2 * GROUP_BYTES_TARGET;
        assert_eq!(sizes(vec![row("a", "1", huge), row("a", "2", 1), row("a", "3", 1)], 100), [1, 2]);
        assert!(sizes(Vec::new(), 100).is_empty());
    }

    #[test]
    fn a_partition_must_exist() {
        assert_eq!(partitions(None, 3), Ok(vec![0, 1, 2]));
        assert_eq!(partitions(Some(2), 3), Ok(vec![2]));
        assert!(partitions(Some(3), 3).unwrap_err().message.contains("the table has 3"));
    }

    fn walk() -> (Walk, Watch) {
        Walk::start(Duration::from_secs(1), Progress::start("tried", None, false))
    }

    #[tokio::test]
    async fn every_partition_is_worked_on_and_a_failure_ends_the_walk() {
        let (counted, mut watch) = walk();
        let mut done = Vec::new();
        let note = |index, twice: u32| {
            done.push((index, twice));
            Ok(())
        };
        let work = |index| async move { Ok(2 * index) };
        let ending = watch.each_partition(&counted, &[4, 5, 6], 2, work, note, std::future::pending()).await;
        assert_eq!(ending, Ok(WalkEnding::Complete));
        done.sort_unstable();
        assert_eq!(done, [(4, 8), (5, 10), (6, 12)]);

        let (failed, mut watch) = walk();
        let work = |index| async move { if index == 1 { Err(Failure::new("lost", "row 7")) } else { Ok(()) } };
        let ending = watch.each_partition(&failed, &[0, 1, 2], 1, work, |_, ()| Ok(()), std::future::pending()).await;
        assert_eq!(ending, Err(Failure::new("lost", "row 7")));
    }

    #[tokio::test]
    async fn the_user_can_stop_it() {
        let (stopped, mut watch) = walk();
        let work = |_| std::future::pending::<Result<(), Failure>>();
        let now = std::future::ready(());
        let ending = watch.each_partition(&stopped, &[0], 1, work, |_, ()| Ok(()), now).await;
        assert_eq!(ending, Ok(WalkEnding::Interrupted));
        assert!(stopped.retry.is_stopping());
    }
}
