//! The sending side of a stream, shared by everyone who has something to send on it.
//!
//! Senders append to one buffer and never wait; a writer task hands whatever has gathered to QUIC in one piece. So the
//! frames of a batch cost one write, and a slow peer stops nobody but those who ask for room
//! ([`Outbox::ready`]).
//!
//! ```text
//!   push --> open buffer --+ (a large attachment closes the buffer
//!   push --> open buffer   |  and follows it without a copy)
//!                          v
//!            [ sealed | attachment | . | open ] -- writer task --> stream
//! ```
//!
//! Invariants: bytes leave in the order of the pushes; after `Closed` nothing more leaves; `queued` counts what was
//! pushed and not yet taken by QUIC.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use pegasus_wire::limits::OUTBOX_BYTES_MAX;

use crate::error::{Closed, RpcError};
use crate::frame_io::FrameWriter;
use crate::runtime::Runtime;
use crate::waiters::{Waiters, wake_all};

/// A handle to the outbox. When the last one is dropped, what is queued is sent and the stream finished.
#[derive(Clone, Debug)]
pub struct Outbox {
    handle: Arc<Handle>,
}

/// Attachments from this size on are passed on without a copy; below it a copy is cheaper than a piece of its own.
const ATTACHMENT_BYTES_UNCOPIED: usize = 16 * 1024;
/// A buffer larger than this is not kept for the next batch.
const BUFFER_BYTES_KEPT: usize = 256 * 1024;

/// Counts the handles: its drop is the last one's.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Pieces that go before the open buffer.
    sealed: VecDeque<Bytes>,
    /// Where pushes append.
    open: Vec<u8>,
    /// Bytes pushed and not yet taken by QUIC.
    queued: usize,
    /// Bytes ever pushed: the stream position of the next frame.
    pushed: u64,
    /// Bytes ever handed to the writer task.
    taken: u64,
    finishing: bool,
    closed: bool,
    writer: Option<Waker>,
    waiters: Waiters,
}

impl Outbox {
    /// Starts the writer task.
    pub fn start(runtime: &Runtime, writer: FrameWriter) -> Outbox {
        let shared = Arc::new(Shared { state: Mutex::new(State::default()) });
        runtime.spawn(run(Arc::clone(&shared), writer));
        Outbox { handle: Arc::new(Handle { shared }) }
    }

    /// Appends frames. Never waits; who may produce without end asks [`Outbox::ready`] first.
    pub fn push(&self, build: impl FnOnce(&mut Vec<u8>)) -> Result<(), Closed> {
        self.push_at(build).map(|_| ())
    }

    /// Appends a frame whose attachment follows it: `build` appends its head (`FrameBuilder::head` with the
    /// attachment's length). A large attachment is not copied.
    pub fn push_with_attachment(&self, build: impl FnOnce(&mut Vec<u8>), attachment: Bytes) -> Result<(), Closed> {
        if attachment.len() < ATTACHMENT_BYTES_UNCOPIED {
            return self.push(|out| {
                build(out);
                out.extend_from_slice(&attachment);
            });
        }
        let mut state = self.handle.shared.lock();
        state.append(build)?;
        state.count(attachment.len());
        let open = std::mem::take(&mut state.open);
        state.sealed.push_back(Bytes::from(open));
        state.sealed.push_back(attachment);
        wake_writer(state);
        Ok(())
    }

    /// Like [`Outbox::push`]; returns the stream position of what was appended.
    pub(crate) fn push_at(&self, build: impl FnOnce(&mut Vec<u8>)) -> Result<u64, Closed> {
        let mut state = self.handle.shared.lock();
        let position = state.append(build)?;
        wake_writer(state);
        Ok(position)
    }

    /// Waits until fewer than `limits::OUTBOX_BYTES_MAX` bytes are queued.
    pub async fn ready(&self) -> Result<(), Closed> {
        poll_fn(|context| self.poll_ready(context)).await
    }

    pub(crate) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let mut state = self.handle.shared.lock();
        if state.closed {
            return Poll::Ready(Err(Closed));
        }
        if state.queued < OUTBOX_BYTES_MAX {
            return Poll::Ready(Ok(()));
        }
        state.waiters.register(context.waker());
        Poll::Pending
    }

    /// Bytes pushed and not yet taken by QUIC.
    pub fn queued_bytes(&self) -> usize {
        self.handle.shared.lock().queued
    }

    /// Sends what is queued, then ends the stream; later pushes fail.
    pub fn finish(&self) {
        self.handle.shared.finish();
    }

    /// True once nothing more can be sent.
    pub fn is_closed(&self) -> bool {
        let state = self.handle.shared.lock();
        state.closed || state.finishing
    }

    /// Drops what is queued; nothing more leaves. Returns how many bytes had been handed on before.
    pub(crate) fn abandon(&self) -> u64 {
        self.handle.shared.close();
        self.handle.shared.lock().taken
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.finish();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn finish(&self) {
        let mut state = self.lock();
        state.finishing = true;
        wake_writer(state);
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.sealed.clear();
        state.open = Vec::new();
        state.queued = 0;
        let waiters = state.waiters.take();
        wake_writer(state);
        wake_all(waiters);
    }

    /// QUIC took `bytes`.
    fn written(&self, bytes: usize) {
        let mut state = self.lock();
        state.queued = state.queued.saturating_sub(bytes);
        if state.queued < OUTBOX_BYTES_MAX {
            let waiters = state.waiters.take();
            drop(state);
            wake_all(waiters);
        }
    }
}

impl State {
    /// Appends to the open buffer and returns the position.
    fn append(&mut self, build: impl FnOnce(&mut Vec<u8>)) -> Result<u64, Closed> {
        if self.closed || self.finishing {
            return Err(Closed);
        }
        let position = self.pushed;
        let before = self.open.len();
        build(&mut self.open);
        debug_assert!(self.open.len() >= before, "frames are only appended");
        self.count(self.open.len().saturating_sub(before));
        Ok(position)
    }

    fn count(&mut self, bytes: usize) {
        self.queued += bytes;
        self.pushed += bytes as u64;
    }
}

/// Releases the lock, then wakes the writer task.
fn wake_writer(mut state: MutexGuard<'_, State>) {
    if let Some(writer) = state.writer.take() {
        drop(state);
        writer.wake();
    }
}

/// What the writer task does next.
enum Work {
    /// Write the pieces, then the buffer.
    Write,
    /// Nothing is queued and nothing will be.
    Finish,
    /// The stream or the connection is gone.
    Stop,
}

/// The writer task: the only one that touches the stream.
async fn run(shared: Arc<Shared>, mut writer: FrameWriter) {
    let mut stopped = Box::pin(writer.stream.stopped());
    let mut buffer = Vec::new();
    let mut pieces = Vec::new();
    loop {
        let work = poll_fn(|context| poll_work(&shared, &mut stopped, &mut buffer, &mut pieces, context)).await;
        match work {
            Work::Write => {}
            Work::Finish => {
                writer.finish();
                shared.close();
                // Kept until all is acknowledged: a stream dropped earlier could not be waited for.
                let _ = stopped.await;
                return;
            }
            Work::Stop => return shared.close(),
        }
        if let Err(error) = write(&shared, &mut writer, &mut buffer, &mut pieces).await {
            tracing::debug!(%error, "a stream can no longer be written");
            return shared.close();
        }
    }
}

/// Takes what has gathered, or registers the task.
fn poll_work(
    shared: &Shared,
    stopped: &mut (impl Future + Unpin),
    buffer: &mut Vec<u8>,
    pieces: &mut Vec<Bytes>,
    context: &mut Context<'_>,
) -> Poll<Work> {
    let mut state = shared.lock();
    if state.closed {
        return Poll::Ready(Work::Stop);
    }
    if !state.open.is_empty() || !state.sealed.is_empty() {
        pieces.extend(state.sealed.drain(..));
        std::mem::swap(buffer, &mut state.open);
        state.taken = state.pushed;
        return Poll::Ready(Work::Write);
    }
    if state.finishing {
        return Poll::Ready(Work::Finish);
    }
    match &state.writer {
        Some(waker) if waker.will_wake(context.waker()) => {}
        _ => state.writer = Some(context.waker().clone()),
    }
    // quinn's lock is taken while ours is held only here, and nowhere the other way round.
    drop(state);
    match std::pin::Pin::new(stopped).poll(context) {
        Poll::Ready(_) => Poll::Ready(Work::Stop),
        Poll::Pending => Poll::Pending,
    }
}

/// Writes what was taken and makes room.
async fn write(
    shared: &Shared,
    writer: &mut FrameWriter,
    buffer: &mut Vec<u8>,
    pieces: &mut Vec<Bytes>,
) -> Result<(), RpcError> {
    if !pieces.is_empty() {
        for piece in pieces.drain(..) {
            let bytes = piece.len();
            writer.stream.write_chunk(piece).await.map_err(RpcError::from_write)?;
            shared.written(bytes);
        }
    }
    if !buffer.is_empty() {
        writer.write(buffer).await?;
        shared.written(buffer.len());
        buffer.clear();
        if buffer.capacity() > BUFFER_BYTES_KEPT {
            *buffer = Vec::new();
        }
    }
    Ok(())
}
