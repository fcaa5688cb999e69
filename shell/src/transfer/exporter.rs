//! Writes all rows of a table to a file or pipe, in no particular order, in bounded memory.
//!
//! Several partitions are read at once; one thread writes what they find. A file appears under its name only when it is
//! whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use pegasus_client::{Error, ScanOptions, ScanRow, Table};
use tokio::sync::{mpsc, oneshot};

use crate::transfer::checkpoint::with_suffix;
use crate::transfer::format::{Format, write_line};
use crate::transfer::progress::Progress;

/// Blocks of lines queued for the writer; each comes from one request.
const BLOCKS_QUEUED_MAX: usize = 8;
/// Between two updates of the display.
const TICK: Duration = Duration::from_millis(250);

/// How an export runs.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// How rows are written.
    pub format: Format,
    /// Write each row's expiry as well.
    pub with_expiry: bool,
    /// Partitions read at once.
    pub partitions_at_once: usize,
}

/// How an export ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportReport {
    /// Rows written.
    pub rows: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The cluster.
    #[error(transparent)]
    Read(#[from] Error),
    /// The output.
    #[error("cannot write {0}: {1}")]
    Write(String, io::Error),
    /// The user.
    #[error("interrupted; nothing was kept")]
    Interrupted,
}

#[derive(Default)]
struct Totals {
    rows: AtomicU64,
    bytes: AtomicU64,
}

/// Exports a table to `output`; `-` is standard output.
pub async fn export(
    table: &Table,
    output: &Path,
    options: &ExportOptions,
    interrupted: impl Future<Output = ()>,
    progress: &mut Progress,
) -> Result<ExportReport, ExportError> {
    let partition_count = table.properties().await?.partition_count;
    let (blocks, written) = start_writer(Target::open(output)?);
    let totals = Totals::default();
    let read = {
        let mut reads = std::pin::pin!(read_partitions(table, partition_count, options, blocks, &totals));
        let mut interrupted = std::pin::pin!(interrupted);
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                outcome = &mut reads => break outcome,
                () = &mut interrupted => break Err(ExportError::Interrupted),
                _ = ticks.tick() => {
                    progress.update(totals.rows.load(Ordering::Relaxed), totals.bytes.load(Ordering::Relaxed));
                }
            }
        }
    };
    // All senders are gone now, so the writer ends. Its error is the cause of a reader's, if both failed.
    let target = written.await.unwrap_or(Err(ExportError::Interrupted))?;
    read?;
    target.commit()?;
    Ok(ExportReport { rows: totals.rows.into_inner(), bytes: totals.bytes.into_inner() })
}

async fn read_partitions(
    table: &Table,
    partition_count: u32,
    options: &ExportOptions,
    blocks: mpsc::Sender<String>,
    totals: &Totals,
) -> Result<(), ExportError> {
    let reads = (0..partition_count).map(|index| read_partition(table, index, options, blocks.clone(), totals));
    let mut reads = stream::iter(reads).buffer_unordered(options.partitions_at_once.max(1));
    while let Some(outcome) = reads.next().await {
        outcome?;
    }
    Ok(())
}

async fn read_partition(
    table: &Table,
    index: u32,
    options: &ExportOptions,
    blocks: mpsc::Sender<String>,
    totals: &Totals,
) -> Result<(), ExportError> {
    let mut scanner = table.partition_scan(index, ScanOptions::default())?;
    while let Some(rows) = scanner.next_batch().await? {
        let block = to_lines(&rows, options);
        totals.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
        totals.bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
        if blocks.send(block).await.is_err() {
            // The writer failed; its own error is told.
            return Err(ExportError::Interrupted);
        }
    }
    Ok(())
}

fn to_lines(rows: &[ScanRow], options: &ExportOptions) -> String {
    let mut out = String::new();
    for row in rows {
        let expiry = options.with_expiry.then_some(row.expiry_seconds);
        write_line(&mut out, options.format, &row.hash_key, &row.sort_key, &row.value, expiry);
    }
    out
}

/// Starts the thread that writes; it gives the target back when all senders are gone.
fn start_writer(mut target: Target) -> (mpsc::Sender<String>, oneshot::Receiver<Result<Target, ExportError>>) {
    let (blocks, mut queued) = mpsc::channel::<String>(BLOCKS_QUEUED_MAX);
    let (done, written) = oneshot::channel();
    std::thread::spawn(move || {
        let outcome = loop {
            match queued.blocking_recv() {
                None => break Ok(target),
                Some(block) => {
                    if let Err(error) = target.write(&block) {
                        break Err(error);
                    }
                }
            }
        };
        // Nobody waits any more if the export was dropped.
        let _received = done.send(outcome);
    });
    (blocks, written)
}

/// Where the lines go. A file that is not committed is removed.
struct Target {
    name: String,
    writer: BufWriter<Box<dyn Write + Send>>,
    /// The file being written and the name it gets in the end.
    file: Option<(PathBuf, PathBuf)>,
}

impl Target {
    fn open(output: &Path) -> Result<Target, ExportError> {
        if output == Path::new("-") {
            let writer: Box<dyn Write + Send> = Box::new(io::stdout());
            return Ok(Target { name: "standard output".into(), writer: buffered(writer), file: None });
        }
        let name = output.display().to_string();
        // A device or pipe cannot be renamed into place.
        let special = fs::metadata(output).is_ok_and(|metadata| !metadata.is_file());
        let path = if special { output.to_owned() } else { with_suffix(output, ".partial") };
        let file = File::create(&path).map_err(|error| ExportError::Write(name.clone(), error))?;
        let rename = (!special).then(|| (path, output.to_owned()));
        Ok(Target { name, writer: buffered(Box::new(file)), file: rename })
    }

    fn write(&mut self, block: &str) -> Result<(), ExportError> {
        self.writer.write_all(block.as_bytes()).map_err(|error| ExportError::Write(self.name.clone(), error))
    }

    fn commit(mut self) -> Result<(), ExportError> {
        let flushed = self.writer.flush();
        let renamed = flushed.and_then(|()| match self.file.take() {
            Some((from, to)) => fs::rename(from, to),
            None => Ok(()),
        });
        renamed.map_err(|error| ExportError::Write(self.name.clone(), error))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.file {
            // It may be gone already; there is nothing better to do then.
            let _removed = fs::remove_file(path);
        }
    }
}

fn buffered(writer: Box<dyn Write + Send>) -> BufWriter<Box<dyn Write + Send>> {
    BufWriter::with_capacity(1 << 20, writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_only_when_it_is_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("rows.tsv");
        let mut target = Target::open(&path).expect("opened");
        target.write("a\t1\tx\n").expect("written");
        assert!(!path.exists());
        drop(target);
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
        let mut target = Target::open(&path).expect("opened");
        target.write("a\t1\tx\n").expect("written");
        target.commit().expect("committed");
        assert_eq!(fs::read_to_string(&path).expect("whole"), "a\t1\tx\n");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn an_output_that_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = Target::open(&directory.path().join("none/rows.tsv")).err().expect("no such directory");
        assert!(error.to_string().contains("rows.tsv"), "{error}");
    }
}
