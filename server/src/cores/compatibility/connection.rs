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
use std::time::Duration;

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
/// Bytes received at a time.
const RECEIVE_BYTES: usize = 64 << 10;
/// How long a client may leave a request unfinished, or its answers untaken, without moving a byte.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves a client until its connection ends.
pub(super) async fn serve(core: Core, stream: TcpStream, server: Rc<str>) {
    // Only a peer that is gone already cannot be set up.
    let set_up = stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    let Ok(client) = set_up.and_then(|()| stream.peer_addr()) else { return };
    let stream: SharedStream = Rc::new(RefCell::new(stream));
    let outbox = SocketOutbox::new(server, core.outboxes.clone());
    let writer = glommio::spawn_local(outbox.clone().run(stream.clone()));
    let session = Session::new(Outlet::Socket(outbox.clone()), UNANSWERED_MAX);
    let mut connection = Connection {
        core: core.clone(),
        session,
        kept: Vec::new(),
        needed: 0,
        passed_over: 0,
        is_patient: false,
        filled: false,
    };
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
    /// The socket waits for the next bytes only so long, as a request is unfinished.
    is_patient: bool,
    /// The last receive brought as much as it could: there may be more.
    filled: bool,
}

impl Connection {
    /// Takes requests until the client ends the connection, it breaks, or what arrives is no request.
    async fn run(&mut self, stream: &SharedStream, outbox: &SocketOutbox) -> Result<(), FrameError> {
        while poll_fn(|context| self.poll_receive(stream, outbox, context)).await? {
            if self.filled {
                // The socket would answer at once again: without this nobody else had a turn.
                glommio::executor().yield_task_queue_now().await;
            }
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
            self.mind_the_time(stream);
        }
        Ok(())
    }

    /// An idle client may be silent for as long as it likes; one that has begun a request may not.
    fn mind_the_time(&mut self, stream: &SharedStream) {
        let is_unfinished = !self.kept.is_empty() || self.passed_over > 0;
        if is_unfinished != self.is_patient {
            // Only a time of zero is refused.
            let _ = stream.borrow().set_read_timeout(is_unfinished.then_some(PATIENCE));
            self.is_patient = is_unfinished;
        }
    }

    /// Receives what there is and takes the requests in it; false if nothing will come any more, or nothing can be
    /// answered.
    fn poll_receive(
        &mut self,
        stream: &SharedStream,
        outbox: &SocketOutbox,
        context: &mut Context<'_>,
    ) -> Poll<Result<bool, FrameError>> {
        if outbox.poll_closed(context) {
            return Poll::Ready(Ok(false));
        }
        let mut buffer = self.core.receive_buffer.take();
        // It is empty at first, and while another connection is inside this function.
        buffer.resize(RECEIVE_BYTES, 0);
        let polled = Pin::new(&mut *stream.borrow_mut()).poll_read(context, &mut buffer);
        let taken = match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Ok(false)),
            Poll::Ready(Ok(received)) => {
                self.filled = received == buffer.len();
                Poll::Ready(self.arrived(&buffer[..received]).map(|()| true))
            }
        };
        self.core.receive_buffer.set(buffer);
        taken
    }

    /// Takes what arrived, together with what was kept, once there is something to take.
    fn arrived(&mut self, received: &[u8]) -> Result<(), FrameError> {
        if self.kept.is_empty() {
            return self.take(received);
        }
        self.kept.extend_from_slice(received);
        if self.kept.len() < self.needed {
            return Ok(());
        }
        let kept = std::mem::take(&mut self.kept);
        self.take(&kept)
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
