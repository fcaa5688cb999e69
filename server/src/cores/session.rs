//! Client sessions: connections of the data protocol, their streams, the requests on them.
//!
//! A stream's reader takes whatever frames have arrived as one batch, hands each to the core and settles once.
//! Answers go to the stream's outbox in any order. Reading stops while too much is unanswered or unsent.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use pegasus_rpc::{Connection, FrameReader, Outbox};
use pegasus_wire::FrameHeader;
use pegasus_wire::limits::REQUESTS_PER_STREAM_MAX;

use super::slow::Trace;
use super::{Core, clock};

/// Frames taken before other tasks of the core get their turn.
const BATCH_FRAMES: usize = 64;

/// One stream of one client, from the server's side.
pub(crate) struct Session {
    /// Where answers go.
    pub(crate) outbox: Outbox,
    unanswered: Cell<usize>,
    /// Of those, the ones that wait at a gate.
    pub(crate) held: Cell<usize>,
    reader: RefCell<Option<Waker>>,
}

impl Session {
    fn new(outbox: Outbox) -> Rc<Session> {
        Rc::new(Session { outbox, unanswered: Cell::new(0), held: Cell::new(0), reader: RefCell::new(None) })
    }

    /// Counts a request that will be answered later; dropping the guard takes it off again.
    pub(crate) fn begin(self: &Rc<Session>, header: FrameHeader) -> Request {
        self.unanswered.set(self.unanswered.get() + 1);
        Request { session: self.clone(), header, trace: None, charge: None }
    }

    /// Waits until the stream may read on.
    async fn may_read(&self) {
        poll_fn(|context| {
            if self.unanswered.get() < REQUESTS_PER_STREAM_MAX {
                return Poll::Ready(());
            }
            *self.reader.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A request that awaits its answer; `frames` puts that into words.
pub(crate) struct Request {
    pub(crate) session: Rc<Session>,
    /// The request's frame header.
    pub(crate) header: FrameHeader,
    /// Looks at how long it takes.
    pub(crate) trace: Option<Trace>,
    /// The bytes of its answer are added to this, if its table counts them.
    pub(crate) charge: Option<Rc<Cell<u64>>>,
}

impl Drop for Request {
    fn drop(&mut self) {
        let unanswered = self.session.unanswered.get();
        self.session.unanswered.set(unanswered - 1);
        if unanswered == REQUESTS_PER_STREAM_MAX
            && let Some(reader) = self.session.reader.borrow_mut().take()
        {
            reader.wake();
        }
    }
}

/// Serves a client's connection until it ends.
pub(crate) async fn serve_connection(core: Core, connection: Connection) {
    while let Some((writer, reader)) = connection.accept().await {
        let outbox = Outbox::start(&core.runtime, writer);
        glommio::spawn_local(serve_stream(core.clone(), connection.clone(), reader, outbox)).detach();
    }
}

async fn serve_stream(core: Core, connection: Connection, mut reader: FrameReader, outbox: Outbox) {
    let session = Session::new(outbox);
    let mut batch = Vec::with_capacity(BATCH_FRAMES);
    loop {
        let frame = match reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                // A peer that breaks the framing is not heard again on this connection.
                if !connection.is_closed() {
                    tracing::warn!(client = %connection.remote_address(), %error, "closing a client's connection");
                    connection.close(&error.to_string());
                }
                break;
            }
        };
        let started = core.begin_run();
        batch.push(frame);
        while batch.len() < BATCH_FRAMES {
            match reader.try_next() {
                Ok(Some(frame)) => batch.push(frame),
                // An error is met again by the next `next`.
                Ok(None) | Err(_) => break,
            }
        }
        // After all of them were received: whether a lease still runs is judged at a moment within each request.
        let now = clock::now();
        for frame in batch.drain(..) {
            core.take_frame(session.begin(frame.header), frame, now);
        }
        core.settle();
        core.end_run(started);
        session.may_read().await;
        if session.outbox.ready().await.is_err() {
            break;
        }
    }
    session.outbox.finish();
}
