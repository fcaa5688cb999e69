//! One connection: its bytes become calls, as many at a time as have arrived.
//!
//! Bytes are received into a buffer that all connections of the core share, and requests are carried out straight from
//! it; only what is left of an unfinished request is kept by the connection. So idle connections have no buffer, and
//! values are slices of what was received.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::io::AsyncRead;
use glommio::net::TcpStream;
use pegasus_gateway::ErrorName;
use pegasus_gateway::answer::append_error;
use pegasus_gateway::frame::{FrameError, Message, Progress, find};
use pegasus_gateway::thrift::ThriftError;

use super::super::request::{Outlet, Session};
use super::super::{Core, clock};
use super::outbox::{SharedStream, SocketOutbox};

/// Requests of one connection that may be unanswered.
const UNANSWERED_MAX: usize = 512;
/// Requests taken before other tasks of the core get their turn.
const BATCH_CALLS: usize = 64;
/// Bytes received at a time, if nothing is kept.
const RECEIVE_BYTES: usize = 64 << 10;
/// Least and most bytes received at a time for a request that is unfinished: its length is only what the peer says.
const REST_BYTES: (usize, usize) = (4 << 10, 256 << 10);

/// Serves a client until its connection ends.
pub(super) async fn serve(core: Core, stream: TcpStream, server: Rc<str>) {
    // Only a peer that is gone already cannot be set up.
    let Ok(client) = stream.set_nodelay(true).and_then(|()| stream.peer_addr()) else { return };
    let stream: SharedStream = Rc::new(RefCell::new(stream));
    let outbox = SocketOutbox::new(server);
    let writer = glommio::spawn_local(outbox.clone().run(stream.clone()));
    let session = Session::new(Outlet::Socket(outbox.clone()), UNANSWERED_MAX);
    let mut connection = Connection { core: core.clone(), session, kept: Vec::new(), needed: 0, passed_over: 0 };
    match connection.run(&stream, &outbox).await {
        Ok(()) => {
            // The client has said all, and may still listen.
            connection.session.answered().await;
            outbox.finish();
        }
        Err(error) => {
            core.tell_of_hostile(client, &error);
            outbox.close();
        }
    }
    drop(connection);
    writer.await;
}

struct Connection {
    core: Core,
    session: Rc<Session>,
    /// Received and not taken: the begin of a request, or requests that have to wait.
    kept: Vec<u8>,
    /// Length that `kept` must have before there is anything to take.
    needed: usize,
    /// Bytes that are still to come of a request that is too large.
    passed_over: usize,
}

impl Connection {
    /// Takes requests until the client ends the connection, it breaks, or what arrives is no request.
    async fn run(&mut self, stream: &SharedStream, outbox: &SocketOutbox) -> Result<(), FrameError> {
        while poll_fn(|context| self.poll_receive(stream, context)).await? {
            loop {
                self.session.may_read().await;
                if outbox.ready().await.is_err() {
                    return Ok(());
                }
                if self.kept.is_empty() || self.kept.len() < self.needed {
                    break;
                }
                glommio::executor().yield_task_queue_now().await;
                let kept = std::mem::take(&mut self.kept);
                self.take(&kept)?;
            }
        }
        Ok(())
    }

    /// Receives what there is and takes the requests in it; false if nothing will come any more.
    fn poll_receive(&mut self, stream: &SharedStream, context: &mut Context<'_>) -> Poll<Result<bool, FrameError>> {
        if !self.kept.is_empty() {
            return self.poll_receive_rest(stream, context);
        }
        let mut buffer = self.core.receive_buffer.take();
        // It is empty at first, and while another connection is inside this function.
        buffer.resize(RECEIVE_BYTES, 0);
        let polled = Pin::new(&mut *stream.borrow_mut()).poll_read(context, &mut buffer);
        let taken = match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Ok(false)),
            Poll::Ready(Ok(received)) => Poll::Ready(self.take(&buffer[..received]).map(|()| true)),
        };
        self.core.receive_buffer.set(buffer);
        taken
    }

    fn poll_receive_rest(
        &mut self,
        stream: &SharedStream,
        context: &mut Context<'_>,
    ) -> Poll<Result<bool, FrameError>> {
        let before = self.kept.len();
        let missing = self.needed.saturating_sub(before).clamp(REST_BYTES.0, REST_BYTES.1);
        self.kept.resize(before + missing, 0);
        let polled = Pin::new(&mut *stream.borrow_mut()).poll_read(context, &mut self.kept[before..]);
        let received = match polled {
            Poll::Ready(Ok(received)) => received,
            Poll::Pending | Poll::Ready(Err(_)) => 0,
        };
        self.kept.truncate(before + received);
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Ok(false)),
            Poll::Ready(Ok(_)) if self.kept.len() < self.needed => Poll::Ready(Ok(true)),
            Poll::Ready(Ok(_)) => {
                let kept = std::mem::take(&mut self.kept);
                Poll::Ready(self.take(&kept).map(|()| true))
            }
        }
    }

    /// Takes as many of the requests received as may be now; the rest is kept.
    fn take(&mut self, received: &[u8]) -> Result<(), FrameError> {
        let started = self.core.begin_run();
        // After all of them were received: whether a lease still runs is judged at a moment within each request.
        let now = clock::now();
        let mut at = self.passed_over.min(received.len());
        self.passed_over -= at;
        let mut outcome = Ok(());
        self.needed = 0;
        for _ in 0..BATCH_CALLS {
            if at == received.len() || !self.session.has_room() || !self.session.outlet.has_room() {
                break;
            }
            outcome = match find(&received[at..]) {
                Ok(Progress::Needs(bytes)) => {
                    self.needed = bytes;
                    break;
                }
                Ok(Progress::Whole { header, body_at, end }) => {
                    let body = &received[at + body_at..at + end];
                    at += end;
                    self.core.take_call(&self.session, &header, body, now).map_err(FrameError::from)
                }
                Ok(Progress::TooLarge { body_at, end }) => {
                    let refused = self.session.refuse_too_large(&received[at + body_at..]);
                    let here = end.min(received.len() - at);
                    at += here;
                    self.passed_over = end - here;
                    refused.map_err(FrameError::from)
                }
                Err(error) => Err(error),
            };
            if outcome.is_err() {
                break;
            }
        }
        self.core.settle();
        self.core.end_run(started);
        self.kept.extend_from_slice(&received[at..]);
        outcome
    }
}

impl Session {
    /// Tells the client that its request is too large; its connection goes on.
    fn refuse_too_large(&self, body: &[u8]) -> Result<(), ThriftError> {
        let message = Message::parse(body)?;
        if !message.is_one_way {
            self.push(|out| append_error(out, message.name, message.sequence, ErrorName::InvalidData));
        }
        Ok(())
    }
}

impl Core {
    /// Logs that a connection was ended because of what arrived on it, a bounded number of times.
    fn tell_of_hostile(&self, client: SocketAddr, error: &FrameError) {
        let mut state = self.state.borrow_mut();
        state.counters.compatibility_broken += 1;
        if let Some(left_out) = state.hostile_lines.admit(clock::now()) {
            tracing::warn!(%client, %error, left_out, "closing a connection of a client of Pegasus");
        }
    }
}
