//! A request on its way: who waits for its answer, and in which words that is said.
//!
//! What carries requests out sees only this: it answers with an `Outcome` or a `Refusal`, and whoever took the request
//! from its client says that in the client's protocol. Here is also what bounds a client: what is unanswered, and what
//! it does not take.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use futures_channel::oneshot;
use pegasus_rpc::{Closed, Outbox};
use pegasus_wire::FrameHeader;
use pegasus_wire::limits::{OUTBOX_BYTES_MAX, READ_BYTES_TARGET};

use super::compatibility::{self, Call, SocketOutbox};
use super::frames;
use super::outcome::{Outcome, Refusal};
use super::slow::Trace;

/// One stream or connection of one client, from the server's side.
pub(crate) struct Session {
    /// Where answers go.
    pub(crate) outlet: Outlet,
    /// Requests that may be unanswered.
    unanswered_max: usize,
    unanswered: Cell<usize>,
    /// Of those, the ones that wait at a gate.
    pub(crate) held: Cell<usize>,
    reader: RefCell<Option<Waker>>,
}

/// Where answers go.
pub(crate) enum Outlet {
    /// Our own protocol.
    Stream(Outbox),
    /// Pegasus's.
    Socket(SocketOutbox),
}

impl Outlet {
    /// True while the client has taken so much that more may be produced for it.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Outlet::Stream(outbox) => outbox.queued_bytes() < OUTBOX_BYTES_MAX,
            Outlet::Socket(outbox) => outbox.has_room(),
        }
    }

    /// Appends an answer; never waits.
    fn push(&self, build: impl FnOnce(&mut Vec<u8>)) -> Result<(), Closed> {
        match self {
            Outlet::Stream(outbox) => outbox.push(build),
            Outlet::Socket(outbox) => outbox.push(build),
        }
    }

    /// Waits until the client has taken so much that more may be produced for it.
    pub(crate) async fn ready(&self) -> Result<(), Closed> {
        match self {
            Outlet::Stream(outbox) => outbox.ready().await,
            Outlet::Socket(outbox) => outbox.ready().await,
        }
    }

    /// Sends what is queued, then nothing more.
    pub(crate) fn finish(&self) {
        match self {
            Outlet::Stream(outbox) => outbox.finish(),
            Outlet::Socket(outbox) => outbox.finish(),
        }
    }
}

impl Session {
    /// A session that answers there, and has at most so many requests unanswered.
    pub(crate) fn new(outlet: Outlet, unanswered_max: usize) -> Rc<Session> {
        Rc::new(Session {
            outlet,
            unanswered_max,
            unanswered: Cell::new(0),
            held: Cell::new(0),
            reader: RefCell::new(None),
        })
    }

    /// Counts a request that will be answered later; dropping it takes it off again.
    pub(crate) fn begin(self: &Rc<Session>, form: Form, time_left_ms: u32) -> Request {
        self.unanswered.set(self.unanswered.get() + 1);
        Request { session: self.clone(), form, time_left_ms, trace: None, charge: None }
    }

    /// Appends an answer that needs no request; the client may be gone.
    pub(crate) fn push(&self, build: impl FnOnce(&mut Vec<u8>)) {
        let _ = self.outlet.push(build);
    }

    /// True while the session may take another request.
    pub(crate) fn has_room(&self) -> bool {
        self.unanswered.get() < self.unanswered_max
    }

    /// Waits until it may.
    pub(crate) async fn may_read(&self) {
        self.wait_until(Session::has_room).await;
    }

    /// Waits until nothing is unanswered.
    pub(crate) async fn answered(&self) {
        self.wait_until(|session| session.unanswered.get() == 0).await;
    }

    async fn wait_until(&self, holds: impl Fn(&Session) -> bool) {
        poll_fn(|context| {
            if holds(self) {
                return Poll::Ready(());
            }
            *self.reader.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// In which words a request is answered.
pub(crate) enum Form {
    /// Our own protocol: the header of the request's frame.
    Frame(FrameHeader),
    /// Pegasus's.
    Call(Call),
    /// None: a request that the core makes to itself, as a part of another.
    Part(Cell<Option<oneshot::Sender<Result<Part, Refusal>>>>),
}

/// What a request of the core to itself came to: a count, and how it goes on.
pub(crate) struct Part {
    /// Rows counted.
    pub(crate) count: u64,
    /// They are all.
    pub(crate) complete: bool,
    /// Where to go on if not.
    pub(crate) resume_after: Vec<u8>,
    /// The context to go on with.
    pub(crate) context: u64,
}

/// A request that awaits its answer.
pub(crate) struct Request {
    pub(crate) session: Rc<Session>,
    pub(crate) form: Form,
    /// How long the client still waits; 0 if it does not say.
    pub(crate) time_left_ms: u32,
    /// Looks at how long it takes.
    pub(crate) trace: Option<Trace>,
    /// The bytes of its answer are added to this, if its table counts them.
    pub(crate) charge: Option<Rc<Cell<u64>>>,
}

impl Request {
    /// Says what the request came to. The client may be gone; then nobody waits for the answer.
    pub(crate) fn answer(&self, outcome: &Outcome<'_>) {
        match &self.form {
            Form::Frame(header) => frames::answer(self, header, outcome),
            Form::Call(call) => compatibility::answer(self, call, outcome),
            Form::Part(asker) => tell(asker, Part::of(outcome)),
        }
    }

    /// Says why the request is not carried out.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        match &self.form {
            Form::Frame(header) => frames::refuse(self, header, refusal),
            Form::Call(call) => compatibility::refuse(self, call, &refusal),
            Form::Part(asker) => tell(asker, Err(refusal)),
        }
    }

    /// Bytes after which an answer with rows ends.
    pub(crate) fn read_bytes_max(&self) -> usize {
        match &self.form {
            Form::Frame(_) | Form::Part(_) => READ_BYTES_TARGET,
            Form::Call(_) => compatibility::READ_BYTES_MAX,
        }
    }

    /// Appends an answer, whose bytes are charged to the table.
    pub(crate) fn push(&self, build: impl FnOnce(&mut Vec<u8>)) {
        let _ = self.session.outlet.push(|out| {
            let before = out.len();
            build(out);
            if let Some(charge) = &self.charge {
                charge.set(charge.get() + (out.len() - before) as u64);
            }
        });
    }

    /// Appends the answer of a request that was not carried out; nobody is charged.
    pub(crate) fn push_refusal(&self, build: impl FnOnce(&mut Vec<u8>)) {
        let _ = self.session.outlet.push(build);
    }
}

impl Part {
    fn of(outcome: &Outcome<'_>) -> Result<Part, Refusal> {
        match outcome {
            Outcome::Rows(rows) => Ok(Part {
                count: rows.count,
                complete: rows.complete,
                resume_after: rows.resume_after.to_vec(),
                context: rows.context,
            }),
            _ => Err(Refusal::internal("a count came back as something else")),
        }
    }
}

/// Whoever asked may have gone away.
fn tell(asker: &Cell<Option<oneshot::Sender<Result<Part, Refusal>>>>, part: Result<Part, Refusal>) {
    if let Some(asker) = asker.take() {
        let _ = asker.send(part);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let unanswered = self.session.unanswered.get();
        self.session.unanswered.set(unanswered - 1);
        let is_awaited = unanswered == self.session.unanswered_max || unanswered == 1;
        if is_awaited && let Some(reader) = self.session.reader.borrow_mut().take() {
            reader.wake();
        }
    }
}
