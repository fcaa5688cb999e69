//! Zeroes segments ahead of time, so that a sync never has an extent to convert or a size to change.
//!
//! It runs beside the writer and in its executor; every step waits for the ring, and while enough segments are ready
//! it leaves most of the disk's time to others: a node that begins has a whole log to zero. A failure (a full disk)
//! ends the preparation, not the log.

use std::rc::Rc;
use std::time::Instant;

use super::error::LogError;
use super::file::SegmentFile;
use super::format::{BLOCK_BYTES, SegmentHeader};
use super::handle::{Log, Shared};
use super::space::FreeSegment;

/// Prepares every blank segment, in the background.
pub(super) async fn prepare_all(log: Log) {
    let shared = &log.shared;
    loop {
        let blank = shared.state.borrow_mut().space.take_blank();
        let Some(number) = blank else { return };
        if let Err(error) = prepare(shared, number).await {
            let directory = shared.options.directory.display();
            tracing::warn!(%directory, segment = number, %error, "no more segments are prepared until restart");
            let mut state = shared.state.borrow_mut();
            state.preparation_failed = Some(error.to_string());
            state.space.add_blank(number);
            state.space.give_up_blanks();
            return;
        }
    }
}

/// Zeroes one segment file, marks it and hands it over for writing.
pub(super) async fn prepare(shared: &Shared, number: u32) -> Result<(), LogError> {
    let file = shared.file(number)?;
    let bytes = shared.options.segment_bytes;
    let log = shared.state.borrow().chain.log;
    zero(shared, &file, bytes).await?;
    file.sync().await?;
    // Only now may the mark be there: it says that the zeros are durable.
    let mut block = file.buffer(BLOCK_BYTES);
    SegmentHeader { number, log, segment_bytes: bytes }.encode(block.as_bytes_mut());
    file.write(block, 0).await?;
    file.sync().await?;
    shared.state.borrow_mut().space.add_free(FreeSegment { number, bytes });
    Ok(())
}

async fn zero(shared: &Shared, file: &SegmentFile, bytes: u64) -> Result<(), LogError> {
    let mut chunk = file.buffer(CHUNK_BYTES);
    chunk.as_bytes_mut().fill(0);
    let chunk = Rc::new(chunk);
    let mut offset = 0;
    while offset < bytes {
        let begun = Instant::now();
        let rest = (bytes - offset) as usize;
        if rest >= CHUNK_BYTES {
            file.write_shared(&chunk, offset).await?;
        } else {
            let mut end = file.buffer(rest);
            end.as_bytes_mut().fill(0);
            file.write(end, offset).await?;
        }
        offset += CHUNK_BYTES as u64;
        let relaxed = shared.state.borrow().space.free_count() >= shared.options.spare_segments;
        if relaxed {
            glommio::timer::sleep(begun.elapsed() * RESTS_PER_WORK).await;
        }
    }
    Ok(())
}

/// How long it rests for what it worked, while there is no hurry.
const RESTS_PER_WORK: u32 = 7;
/// Large enough to be quick, small enough not to keep a log write waiting on the device.
const CHUNK_BYTES: usize = 256 * 1024;

const _: () = assert!(CHUNK_BYTES.is_multiple_of(BLOCK_BYTES));
