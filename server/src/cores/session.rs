//! Client sessions: connections of the data protocol, their streams, the requests on them.
//!
//! A stream's reader takes whatever frames have arrived as one batch, hands each to the core and settles once.
//! Answers go to the stream's outbox in any order. Reading stops while too much is unanswered or unsent.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use pegasus_replication::Moment;
use pegasus_rpc::{Connection, FrameReader, Outbox};
use pegasus_wire::limits::REQUESTS_PER_STREAM_MAX;
use pegasus_wire::messages::ErrorReply;
use pegasus_wire::{Frame, FrameBuilder, FrameHeader, MessageKind, Status};

use super::{Core, clock};

/// Frames taken before other tasks of the core get their turn.
const BATCH_FRAMES: usize = 64;

/// One stream of one client, from the server's side.
pub(crate) struct Session {
    /// Where answers go.
    pub(crate) outbox: Outbox,
    unanswered: Cell<usize>,
    reader: RefCell<Option<Waker>>,
}

impl Session {
    fn new(outbox: Outbox) -> Rc<Session> {
        Rc::new(Session { outbox, unanswered: Cell::new(0), reader: RefCell::new(None) })
    }

    /// Counts a request that will be answered later; dropping the guard takes it off again.
    pub(crate) fn begin(self: &Rc<Session>, header: FrameHeader) -> Request {
        self.unanswered.set(self.unanswered.get() + 1);
        Request { session: self.clone(), header }
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

/// A request that awaits its answer.
pub(crate) struct Request {
    session: Rc<Session>,
    /// The request's frame header.
    pub(crate) header: FrameHeader,
}

impl Request {
    /// Sends a frame built for this request's answer. The stream may be gone; then nobody waits for the answer.
    pub(crate) fn answer<T>(&self, status: Status, body: &T, attachment: &[u8])
    where
        T: for<'a> rkyv::Serialize<
                rkyv::api::high::HighSerializer<
                    &'a mut Vec<u8>,
                    rkyv::ser::allocator::ArenaHandle<'a>,
                    rkyv::rancor::Error,
                >,
            >,
    {
        let header = FrameHeader::answer(self.header.kind, self.header.request_id, status);
        let _ = self.session.outbox.push(|out| FrameBuilder::append(out, header, body, attachment));
    }

    /// Sends an answer that is only a status.
    pub(crate) fn answer_status(&self, status: Status) {
        let header = FrameHeader::answer(self.header.kind, self.header.request_id, status);
        let _ = self.session.outbox.push(|out| FrameBuilder::append_empty(out, header, &[]));
    }

    /// Sends an error with its explanation.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        let _ = self.session.outbox.push(|out| {
            FrameBuilder::append_error(out, &self.header, refusal.status, &refusal.explanation());
        });
    }
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

/// Why a request is not carried out.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// What the client should make of it.
    pub(crate) status: Status,
    /// For people; empty means the status's own sentence.
    pub(crate) message: String,
    /// Where to go instead.
    pub(crate) endpoint: Option<std::net::SocketAddr>,
}

impl Refusal {
    /// A refusal explained by its status alone.
    pub(crate) fn plain(status: Status) -> Refusal {
        Refusal { status, message: String::new(), endpoint: None }
    }

    /// A refusal with its own explanation.
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into(), endpoint: None }
    }

    fn explanation(self) -> ErrorReply {
        let message = if self.message.is_empty() { self.status.sentence().to_owned() } else { self.message };
        ErrorReply { message, endpoint: self.endpoint }
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
            request(&core, &session, frame, now);
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

/// Hands one frame to where its kind is handled.
fn request(core: &Core, session: &Rc<Session>, frame: Frame, now: Moment) {
    let request = session.begin(frame.header);
    match frame.header.kind {
        MessageKind::GET => core.get(request, &frame, now),
        MessageKind::WRITE => core.write(request, frame, now),
        MessageKind::MULTI_GET => core.multi_get(request, frame, now),
        MessageKind::SCAN => core.scan(request, frame, now),
        kind => request.refuse(Refusal::new(Status::Unsupported, format!("a storage node does not serve {kind}"))),
    }
}
