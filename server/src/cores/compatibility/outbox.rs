//! The sending side of a connection: answers are appended, a task writes whatever has gathered in one piece.
//!
//! The same as the outbox of a QUIC stream, for one thread and a socket. Invariants: bytes leave in the order of the
//! pushes; after `closed` nothing more leaves; what is unsent of all connections is counted once for the core.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_util::io::AsyncWrite;
use glommio::net::TcpStream;
use pegasus_rpc::Closed;

/// Bytes that a client may leave unsent before its next request is read.
const QUEUED_BYTES_MAX: usize = 1 << 20;
/// Bytes that it may leave unsent before rows are refused.
const ROWS_BYTES_MAX: usize = 16 << 20;
/// Bytes that all clients of a core may leave unsent before rows are refused.
const TOTAL_BYTES_MAX: usize = 256 << 20;
/// A buffer larger than this is not kept for the next batch.
const BUFFER_BYTES_KEPT: usize = 64 << 10;

/// Both directions of a socket. Never borrowed across an await.
pub(super) type SharedStream = Rc<RefCell<TcpStream>>;

/// A handle; clones share the outbox.
#[derive(Clone)]
pub(crate) struct SocketOutbox(Rc<Shared>);

struct Shared {
    state: RefCell<State>,
    /// The node's address, which answers repeat.
    server: Rc<str>,
    of_core: Rc<Outboxes>,
}

/// What the outboxes of a core share.
#[derive(Default)]
pub(crate) struct Outboxes {
    /// Unsent bytes of all connections.
    unsent: Cell<usize>,
    /// An empty buffer for the connection that answers next: idle ones keep none, and answers need not allocate.
    spare: Cell<Vec<u8>>,
}

impl Outboxes {
    fn add(&self, bytes: usize) {
        self.unsent.set(self.unsent.get() + bytes);
    }

    fn take_off(&self, bytes: usize) {
        self.unsent.set(self.unsent.get() - bytes);
    }

    /// Keeps an emptied buffer, unless it is too large or there is a larger one.
    fn give_back(&self, mut buffer: Vec<u8>) {
        let spare = self.spare.take();
        buffer.clear();
        let is_better = (spare.capacity()..=BUFFER_BYTES_KEPT).contains(&buffer.capacity());
        self.spare.set(if is_better { buffer } else { spare });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let unsent = self.state.get_mut().unsent();
        self.of_core.take_off(unsent);
    }
}

#[derive(Default)]
struct State {
    /// Where pushes append.
    open: Vec<u8>,
    /// Bytes that the writer has taken and the kernel has not.
    writing: usize,
    finishing: bool,
    closed: bool,
    writer: Option<Waker>,
    /// The connection's reader, which waits for room.
    reader: Option<Waker>,
}

impl State {
    fn unsent(&self) -> usize {
        self.open.len() + self.writing
    }
}

impl SocketOutbox {
    /// An outbox of a core; [`SocketOutbox::run`] empties it.
    pub(super) fn new(server: Rc<str>, of_core: Rc<Outboxes>) -> SocketOutbox {
        SocketOutbox(Rc::new(Shared { state: RefCell::default(), server, of_core }))
    }

    /// The node's address as answers say it.
    pub(super) fn server(&self) -> &str {
        &self.0.server
    }

    /// Appends an answer. Never waits; the connection's reader asks [`SocketOutbox::ready`] first.
    pub(crate) fn push(&self, build: impl FnOnce(&mut Vec<u8>)) -> Result<(), Closed> {
        let waker = {
            let mut state = self.0.state.borrow_mut();
            if state.closed || state.finishing {
                return Err(Closed);
            }
            if state.open.capacity() == 0 {
                state.open = self.0.of_core.spare.take();
            }
            let before = state.open.len();
            build(&mut state.open);
            self.0.of_core.add(state.open.len() - before);
            state.writer.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// True while little enough is unsent.
    pub(crate) fn has_room(&self) -> bool {
        self.0.state.borrow().unsent() < QUEUED_BYTES_MAX
    }

    /// True while rows may be answered. What was read in a pool comes here however much is unsent, so it has a bound of
    /// its own, for this client and for all of the core.
    pub(super) fn takes_rows(&self) -> bool {
        self.0.state.borrow().unsent() < ROWS_BYTES_MAX && self.0.of_core.unsent.get() < TOTAL_BYTES_MAX
    }

    /// True if nothing leaves any more; else the task is woken when that comes to be.
    pub(super) fn poll_closed(&self, context: &mut Context<'_>) -> bool {
        let mut state = self.0.state.borrow_mut();
        match &state.reader {
            Some(waker) if waker.will_wake(context.waker()) => {}
            _ => state.reader = Some(context.waker().clone()),
        }
        state.closed
    }

    /// Waits until little enough is unsent.
    pub(crate) async fn ready(&self) -> Result<(), Closed> {
        poll_fn(|context| {
            if self.0.state.borrow().closed {
                return Poll::Ready(Err(Closed));
            }
            if self.has_room() {
                return Poll::Ready(Ok(()));
            }
            self.0.state.borrow_mut().reader = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Sends what is queued, then nothing more.
    pub(crate) fn finish(&self) {
        self.end(|state| state.finishing = true);
    }

    /// Drops what is queued; nothing more leaves.
    pub(super) fn close(&self) {
        let of_core = &self.0.of_core;
        self.end(|state| {
            of_core.take_off(state.unsent());
            state.closed = true;
            (state.open, state.writing) = (Vec::new(), 0);
        });
    }

    fn end(&self, change: impl FnOnce(&mut State)) {
        let wakers = {
            let mut state = self.0.state.borrow_mut();
            change(&mut state);
            [state.writer.take(), state.reader.take()]
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Writes what gathers, until the outbox is finished and empty, or the socket fails.
    pub(super) async fn run(self, stream: SharedStream) {
        let mut buffer = Vec::new();
        while poll_fn(|context| self.poll_work(&mut buffer, context)).await {
            if let Err(error) = self.write(&stream, &buffer).await {
                tracing::debug!(%error, "a client's connection can no longer be written");
                break;
            }
            buffer.clear();
            if buffer.capacity() > BUFFER_BYTES_KEPT {
                buffer = Vec::new();
            }
        }
        self.close();
    }

    /// Takes what has gathered, or registers the task; false at the end.
    fn poll_work(&self, buffer: &mut Vec<u8>, context: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.0.state.borrow_mut();
        if state.closed {
            return Poll::Ready(false);
        }
        if !state.open.is_empty() {
            std::mem::swap(buffer, &mut state.open);
            state.writing = buffer.len();
            return Poll::Ready(true);
        }
        if state.finishing {
            return Poll::Ready(false);
        }
        // Nothing to send: an idle connection keeps no buffer.
        for idle in [std::mem::take(buffer), std::mem::take(&mut state.open)] {
            self.0.of_core.give_back(idle);
        }
        match &state.writer {
            Some(waker) if waker.will_wake(context.waker()) => {}
            _ => state.writer = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    async fn write(&self, stream: &SharedStream, buffer: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < buffer.len() {
            let taken = poll_fn(|context| {
                // A client that does not listen is not waited for once the outbox is closed.
                if self.0.state.borrow().closed {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                let polled = Pin::new(&mut *stream.borrow_mut()).poll_write(context, &buffer[written..]);
                if polled.is_pending() {
                    self.0.state.borrow_mut().writer = Some(context.waker().clone());
                }
                polled
            })
            .await?;
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            written += taken;
            self.written(taken);
        }
        Ok(())
    }

    fn written(&self, bytes: usize) {
        let waker = {
            let mut state = self.0.state.borrow_mut();
            // Nothing is left to count if the outbox was closed meanwhile.
            let counted = bytes.min(state.writing);
            state.writing -= counted;
            self.0.of_core.take_off(counted);
            let has_room = state.unsent() < QUEUED_BYTES_MAX;
            if has_room { state.reader.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
