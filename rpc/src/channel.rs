//! Pipelined calls on one stream: many in flight, answers in any order, each with a deadline.
//!
//! One task per channel reads answers and watches deadlines; the outbox's writer task sends. A call costs no task, no
//! timer and no allocation of its own.
//!
//! Invariants: a request is sent at most once; a call ends with its answer, at its deadline, or when the stream is
//! lost, whichever comes first; at most `limits::REQUESTS_PER_STREAM_MAX` calls are in flight, further ones wait
//! for room within their deadline.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use pegasus_wire::limits::{OUTBOX_BYTES_MAX, REQUESTS_PER_STREAM_MAX};
use pegasus_wire::{Frame, FrameHeader, MessageKind};

use crate::calls::Calls;
use crate::connection::Connection;
use crate::error::{CallError, RpcError};
use crate::frame_io::FrameReader;
use crate::outbox::Outbox;
use crate::runtime::{Runtime, Sleep};
use crate::waiters::{Waiters, wake_all};

/// A handle to a stream of calls; cheap to clone. When the last one is dropped the stream is finished.
#[derive(Clone, Debug)]
pub struct Channel {
    handle: Arc<Handle>,
}

/// Counts the handles: its drop is the last one's.
#[derive(Debug)]
struct Handle {
    runtime: Runtime,
    outbox: Outbox,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Set when no call can succeed any more.
    closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: Calls,
    /// Calls that wait for a slot.
    waiters: Waiters,
    /// Why the channel ended.
    ended: Option<String>,
    /// When the channel's task looks for passed deadlines: not later than the earliest deadline.
    sweep_at: Option<Instant>,
    /// The channel's task.
    task: Option<Waker>,
}

impl Channel {
    /// Opens a stream for calls. The peer answers requests on it, each once, in any order.
    pub async fn open(runtime: &Runtime, connection: &Connection) -> Result<Channel, RpcError> {
        let (writer, reader) = connection.open().await?;
        // Somebody waits for every call, in beacons a lease; what else the connection carries is longer.
        writer.go_first();
        let outbox = Outbox::start(runtime, writer);
        let shared = Arc::new(Shared { closed: AtomicBool::new(false), state: Mutex::new(State::default()) });
        runtime.spawn(run(Arc::clone(&shared), runtime.clone(), outbox.clone(), reader));
        Ok(Channel { handle: Arc::new(Handle { runtime: runtime.clone(), outbox, shared }) })
    }

    /// Sends a request and waits for its answer, until `deadline`.
    ///
    /// `build` appends exactly one frame with the header it is given; it is not called if the request cannot be sent.
    /// The header carries the time left at that moment. Dropping the future gives the call up: the request may have
    /// been sent, its answer is discarded.
    pub async fn call(
        &self,
        kind: MessageKind,
        deadline: Instant,
        build: impl FnOnce(&mut Vec<u8>, FrameHeader),
    ) -> Result<Frame, CallError> {
        let call = self.admit(deadline).await?;
        let time_left_ms = match deadline.checked_duration_since(self.handle.runtime.now()) {
            Some(left) if !left.is_zero() => left.as_micros().div_ceil(1000).min(u128::from(u32::MAX)) as u32,
            _ => return Err(CallError::Deadline { sent: false }),
        };
        let header = FrameHeader::request(kind, call.id, time_left_ms);
        let pushed = self.handle.outbox.push_at(|out| build(out, header));
        match pushed {
            Ok(position) => call.shared.lock().calls.sent(call.id, position),
            Err(_) => return Err(CallError::NotSent { reason: call.shared.reason() }),
        }
        poll_fn(|context| call.poll(context)).await
    }

    /// Sends a message that is not answered, if that can be done at once. False if it was not sent: the channel has
    /// ended, or too much is queued already. That it was sent does not mean that it arrives.
    ///
    /// `build` appends exactly one frame with the header it is given.
    pub fn notify(&self, kind: MessageKind, build: impl FnOnce(&mut Vec<u8>, FrameHeader)) -> bool {
        let room = !self.is_closed() && self.handle.outbox.queued_bytes() < OUTBOX_BYTES_MAX;
        room && self.handle.outbox.push(|out| build(out, FrameHeader::request(kind, 0, 0))).is_ok()
    }

    /// True once no call can succeed any more.
    pub fn is_closed(&self) -> bool {
        self.handle.shared.closed.load(Ordering::Acquire)
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> usize {
        self.handle.shared.lock().calls.in_flight()
    }

    /// Takes a slot, waiting for room if there is none.
    async fn admit(&self, deadline: Instant) -> Result<Call<'_>, CallError> {
        // The timer is only made if there is no room at once.
        if let Poll::Ready(admitted) = self.poll_admit(deadline, &mut Context::from_waker(Waker::noop())) {
            return admitted;
        }
        let admitted = poll_fn(|context| self.poll_admit(deadline, context));
        match self.handle.runtime.timeout_at(deadline, admitted).await {
            Some(admitted) => admitted,
            None => Err(CallError::Deadline { sent: false }),
        }
    }

    fn poll_admit(&self, deadline: Instant, context: &mut Context<'_>) -> Poll<Result<Call<'_>, CallError>> {
        let shared = &self.handle.shared;
        match self.handle.outbox.poll_ready(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(Err(CallError::NotSent { reason: shared.reason() })),
            Poll::Pending => return Poll::Pending,
        }
        let mut state = shared.lock();
        if let Some(reason) = &state.ended {
            return Poll::Ready(Err(CallError::NotSent { reason: reason.clone() }));
        }
        let Some(id) = state.calls.begin(deadline) else {
            state.waiters.register(context.waker());
            return Poll::Pending;
        };
        if state.sweep_at.is_none_or(|at| deadline < at) {
            state.sweep_at = Some(deadline);
            let task = state.task.take();
            drop(state);
            wake_all(task.into_iter().collect());
        }
        Poll::Ready(Ok(Call { shared, id }))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close("the channel was dropped");
    }
}

/// A call that holds a slot, until it is dropped.
struct Call<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Call<'_> {
    fn poll(&self, context: &mut Context<'_>) -> Poll<Result<Frame, CallError>> {
        match self.shared.lock().calls.poll(self.id, context.waker()) {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.calls.release(self.id);
        // Waiting calls are let in by the half table: one by one would wake them all for each slot.
        if state.calls.in_flight() <= REQUESTS_PER_STREAM_MAX / 2 {
            let waiters = state.waiters.take();
            drop(state);
            wake_all(waiters);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn reason(&self) -> String {
        self.lock().ended.clone().unwrap_or_else(|| "the connection is lost".to_owned())
    }

    /// Ends the channel and lets its task notice. Keeps the first reason.
    fn close(&self, reason: &str) {
        self.closed.store(true, Ordering::Release);
        let mut state = self.lock();
        state.ended.get_or_insert_with(|| reason.to_owned());
        let task = state.task.take();
        drop(state);
        wake_all(task.into_iter().collect());
    }
}

/// What the channel's task woke for.
enum Event {
    Frame(Frame),
    Deadlines,
    Ended(String),
}

/// The channel's task: reads answers and watches deadlines until the stream ends or all handles are gone.
async fn run(shared: Arc<Shared>, runtime: Runtime, outbox: Outbox, mut reader: FrameReader) {
    let mut timer = None;
    let mut frames = Vec::new();
    let mut wake = Vec::new();
    let reason = loop {
        let event = {
            let mut next = std::pin::pin!(reader.next());
            poll_fn(|context| {
                let answer = next.as_mut().poll(context);
                poll_event(&shared, &runtime, &mut timer, answer, context)
            })
            .await
        };
        match event {
            Event::Frame(first) => {
                frames.push(first);
                let more = take_batch(&mut reader, &mut frames);
                deliver(&shared, &mut frames, &mut wake);
                if let Err(error) = more {
                    break error.to_string();
                }
            }
            Event::Deadlines => {
                let now = runtime.now();
                let mut state = shared.lock();
                state.sweep_at = state.calls.expire(now, &mut wake);
            }
            Event::Ended(reason) => break reason,
        }
        wake.drain(..).for_each(Waker::wake);
    };
    shared.close(&reason);
    // In this order: once the outbox is abandoned nothing more can leave, so what had not left was not sent.
    let taken = outbox.abandon();
    let mut state = shared.lock();
    state.calls.fail(&reason, taken, &mut wake);
    let waiters = state.waiters.take();
    drop(state);
    wake.drain(..).for_each(Waker::wake);
    wake_all(waiters);
}

fn poll_event(
    shared: &Shared,
    runtime: &Runtime,
    timer: &mut Option<Sleep>,
    answer: Poll<Result<Option<Frame>, RpcError>>,
    context: &mut Context<'_>,
) -> Poll<Event> {
    match answer {
        Poll::Ready(Ok(Some(frame))) => return Poll::Ready(Event::Frame(frame)),
        Poll::Ready(Ok(None)) => return Poll::Ready(Event::Ended("the peer finished the stream".to_owned())),
        Poll::Ready(Err(error)) => return Poll::Ready(Event::Ended(error.to_string())),
        Poll::Pending => {}
    }
    let mut state = shared.lock();
    if let Some(reason) = &state.ended {
        return Poll::Ready(Event::Ended(reason.clone()));
    }
    match &state.task {
        Some(waker) if waker.will_wake(context.waker()) => {}
        _ => state.task = Some(context.waker().clone()),
    }
    let Some(sweep_at) = state.sweep_at else { return Poll::Pending };
    drop(state);
    let timer = timer.get_or_insert_with(|| runtime.sleep_until(sweep_at));
    timer.reset(sweep_at);
    std::pin::Pin::new(timer).poll(context).map(|()| Event::Deadlines)
}

/// Takes what has arrived, up to a bound that keeps the task from running for long.
fn take_batch(reader: &mut FrameReader, frames: &mut Vec<Frame>) -> Result<(), RpcError> {
    while frames.len() < BATCH_FRAMES_MAX {
        match reader.try_next()? {
            Some(frame) => frames.push(frame),
            None => break,
        }
    }
    Ok(())
}

/// Answers handed out before the task yields.
const BATCH_FRAMES_MAX: usize = 256;

/// Hands answers to their calls under one lock.
fn deliver(shared: &Shared, frames: &mut Vec<Frame>, wake: &mut Vec<Waker>) {
    let mut state = shared.lock();
    for frame in frames.drain(..) {
        wake.extend(state.calls.complete(frame));
    }
}
