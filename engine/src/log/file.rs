//! One open segment file: direct reads and writes of whole blocks through the executor's ring.
//!
//! A hook sees every write and sync before it is issued and after it completed, and can make it fail. Tests use it;
//! a server passes none.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::io::{DmaBuffer, DmaFile, OpenOptions, ReadResult};

use super::error::LogError;
use super::format::BLOCK_BYTES;

/// What is about to happen to a segment, or just happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogIo<'a> {
    /// A write is about to be issued.
    Write {
        /// Number of the segment.
        segment: u32,
        /// Where it goes, in bytes.
        offset: u64,
        /// What is written.
        bytes: &'a [u8],
    },
    /// The write of this segment issued last at this offset completed, whole.
    Written {
        /// Number of the segment.
        segment: u32,
        /// Where it went, in bytes.
        offset: u64,
    },
    /// A sync is about to be issued.
    Sync {
        /// Number of the segment.
        segment: u32,
    },
    /// The sync issued last for this segment completed.
    Synced {
        /// Number of the segment.
        segment: u32,
    },
}

/// What a hook wants to happen to the operation that is about to be issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFault {
    /// Nothing unusual.
    #[default]
    None,
    /// It fails with this operating system error number, without reaching the file.
    Fail(i32),
    /// It reaches the file and is reported to have written this many bytes only. For writes.
    Short(usize),
}

/// Sees, and can disturb, every operation on every segment.
pub type LogHook = Rc<dyn Fn(LogIo<'_>) -> LogFault>;

/// An open segment.
pub(super) struct SegmentFile {
    pub(super) number: u32,
    path: PathBuf,
    file: DmaFile,
    hook: Option<LogHook>,
}

impl SegmentFile {
    /// Opens the file; makes an empty one if there is none.
    pub(super) async fn open(path: &Path, number: u32, hook: Option<LogHook>) -> Result<SegmentFile, LogError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let opened = options.dma_open(path).await;
        let file = opened.map_err(|error| LogError::io(path, "open for direct access")(error.into()))?;
        Ok(SegmentFile { number, path: path.to_owned(), file, hook })
    }

    /// Lets the executor find out, from a file that has data, whether the device takes polled requests.
    ///
    /// glommio asks once per executor and device, with a read of the first file it opens there. A read of an empty
    /// file succeeds without reaching the device; glommio would then send every request to its poll ring, where a
    /// device without polling fails them, and would spin while any is in flight. So this file comes first.
    pub(super) async fn probe_device(directory: &Path) -> Result<(), LogError> {
        let path = directory.join(PROBE_NAME);
        let data = [0; BLOCK_BYTES];
        let mut file = fs::File::create(&path).map_err(LogError::io(&path, "create"))?;
        file.write_all(&data).map_err(LogError::io(&path, "write"))?;
        file.sync_all().map_err(LogError::io(&path, "sync"))?;
        let probe = SegmentFile::open(&path, 0, None).await?;
        probe.close().await?;
        fs::remove_file(&path).map_err(LogError::io(&path, "delete"))
    }

    /// A buffer aligned as writes of this file need it. Its content is arbitrary.
    pub(super) fn buffer(&self, bytes: usize) -> DmaBuffer {
        self.file.alloc_dma_buffer(bytes)
    }

    /// Writes whole blocks. A short write is a failure: what it left behind is not known to be whole.
    pub(super) async fn write(&self, buffer: DmaBuffer, offset: u64) -> Result<(), LogError> {
        let bytes = buffer.len();
        let fault = self.ask(LogIo::Write { segment: self.number, offset, bytes: buffer.as_bytes() });
        let outcome = match fault {
            LogFault::Fail(number) => Err(io::Error::from_raw_os_error(number)),
            _ => self.file.write_at(buffer, offset).await.map_err(io::Error::from),
        };
        self.finish_write(outcome, fault, bytes, offset)
    }

    /// As [`SegmentFile::write`], for a buffer that is written again and again.
    pub(super) async fn write_shared(&self, buffer: &Rc<DmaBuffer>, offset: u64) -> Result<(), LogError> {
        let fault = self.ask(LogIo::Write { segment: self.number, offset, bytes: buffer.as_bytes() });
        let outcome = match fault {
            LogFault::Fail(number) => Err(io::Error::from_raw_os_error(number)),
            _ => self.file.write_rc_at(Rc::clone(buffer), offset).await.map_err(io::Error::from),
        };
        self.finish_write(outcome, fault, buffer.len(), offset)
    }

    /// Makes every completed write durable.
    pub(super) async fn sync(&self) -> Result<(), LogError> {
        let outcome = match self.ask(LogIo::Sync { segment: self.number }) {
            LogFault::Fail(number) => Err(io::Error::from_raw_os_error(number)),
            _ => self.file.fdatasync().await.map_err(io::Error::from),
        };
        outcome.map_err(LogError::io(&self.path, "sync"))?;
        self.ask(LogIo::Synced { segment: self.number });
        Ok(())
    }

    /// Reads whole blocks; fewer bytes at the end of the file.
    pub(super) async fn read(&self, offset: u64, bytes: usize) -> Result<ReadResult, LogError> {
        let read = self.file.read_at_aligned(offset, bytes).await;
        read.map_err(|error| LogError::io(&self.path, "read")(error.into()))
    }

    pub(super) async fn close(self) -> Result<(), LogError> {
        let path = self.path;
        self.file.close().await.map_err(|error| LogError::io(path, "close")(error.into()))
    }

    fn finish_write(
        &self,
        outcome: io::Result<usize>,
        fault: LogFault,
        bytes: usize,
        offset: u64,
    ) -> Result<(), LogError> {
        let mut written = outcome.map_err(LogError::io(&self.path, "write"))?;
        if let LogFault::Short(short) = fault {
            written = short;
        }
        if written != bytes {
            let detail = format!("wrote {written} of {bytes} bytes at {offset}");
            return Err(LogError::io(&self.path, "write")(io::Error::new(io::ErrorKind::WriteZero, detail)));
        }
        self.ask(LogIo::Written { segment: self.number, offset });
        Ok(())
    }

    fn ask(&self, operation: LogIo<'_>) -> LogFault {
        self.hook.as_ref().map_or(LogFault::None, |hook| hook(operation))
    }
}

const PROBE_NAME: &str = "probe";
