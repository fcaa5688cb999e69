//! One TCP connection with many calls on it at a time.
//!
//! ```text
//!   calls --append--> outbox --writer takes all there is--> socket --reader--> answer by sequence --> waiting call
//! ```
//!
//! Requests are encoded straight into the outbox, so what gathers while one write is under way goes out with the next.
//! Bytes of requests that wait for an answer are bounded; a call that finds no room waits. The reader and the writer
//! are one task; whatever ends it ends the connection, and every waiting call hears whether its request had left.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use pegasus_gateway::Rpc;
use pegasus_gateway::answer::{self, Answer};
use pegasus_gateway::frame::{RequestHeader, append_request};
use pegasus_gateway::thrift::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, TryAcquireError, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::judge::CallError;

/// Most bytes of requests that wait for an answer on one connection.
const ROOM_BYTES: usize = 16 << 20;
/// What a request counts beside its keys and values: header, names, and our own bookkeeping.
const CALL_BYTES: usize = 512;
/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;
/// A buffer of requests that has grown above this is given back.
const OUTBOX_KEEP_BYTES: usize = 1 << 20;

/// What is asked: a method, its argument, and about how many bytes that is.
pub(crate) struct Request<T> {
    pub(crate) rpc: Rpc,
    pub(crate) argument: T,
    pub(crate) bytes: usize,
}

/// An open connection. When the last handle is dropped it is closed.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    state: Mutex<State>,
    /// Tells the writer that the outbox is no longer empty.
    filled: Notify,
    /// Tells the task to end.
    end: Notify,
    room: Semaphore,
}

#[derive(Default)]
struct State {
    outbox: Vec<u8>,
    /// Bytes ever appended to the outbox.
    appended: u64,
    /// Bytes ever taken from it to be written.
    taken: u64,
    waiting: HashMap<i32, Waiting>,
    next_sequence: i32,
    /// Answers ever received.
    answers: u64,
    /// Why it ended.
    ended: Option<String>,
}

struct Waiting {
    /// Where its request begins among all bytes appended.
    begin: u64,
    answer: oneshot::Sender<Result<Bytes, CallError>>,
}

impl Connection {
    /// Takes over a socket that is connected.
    pub(crate) fn start(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Notify::new(),
            end: Notify::new(),
            room: Semaphore::new(ROOM_BYTES),
        });
        let task = tokio::spawn(run(stream, shared.clone())).abort_handle();
        Ok(Connection { shared, task })
    }

    /// False once it has ended.
    pub(crate) fn is_open(&self) -> bool {
        self.shared.state().ended.is_none()
    }

    /// Sends a request and waits for its answer: a whole frame that begins as an answer should.
    pub(crate) async fn call<'a, T: Value<'a>>(
        &self,
        header: &RequestHeader,
        request: &Request<T>,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        let _room = self.room(request.bytes, deadline).await?;
        let mut call = self.shared.begin(header, request)?;
        match timeout_at(deadline, &mut call.answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(CallError::Lost("the connection was given up".to_owned())),
            Err(_) => {
                // A server that said nothing at all meanwhile may be gone without a word.
                let silent = self.shared.state().answers == call.answers_before;
                if silent {
                    self.shared.finish("the server does not answer".to_owned());
                    self.shared.end.notify_one();
                }
                Err(CallError::Late { sent: true })
            }
        }
    }

    /// Sends a request that is not answered, if that can be done at once.
    pub(crate) fn post<'a, T: Value<'a>>(&self, header: &RequestHeader, request: &Request<T>) {
        let mut state = self.shared.state();
        if state.ended.is_none() && state.outbox.len() < OUTBOX_KEEP_BYTES {
            let sequence = state.sequence();
            self.shared.append(&mut state, header, sequence, request);
        }
    }

    async fn room(&self, bytes: usize, deadline: Instant) -> Result<SemaphorePermit<'_>, CallError> {
        let bytes = (bytes + CALL_BYTES).min(ROOM_BYTES) as u32;
        match self.shared.room.try_acquire_many(bytes) {
            Ok(room) => Ok(room),
            Err(TryAcquireError::Closed) => Err(CallError::NotSent(self.shared.why_ended())),
            Err(TryAcquireError::NoPermits) => match timeout_at(deadline, self.shared.room.acquire_many(bytes)).await {
                Ok(Ok(room)) => Ok(room),
                Ok(Err(_)) => Err(CallError::NotSent(self.shared.why_ended())),
                Err(_) => Err(CallError::Late { sent: false }),
            },
        }
    }
}

/// A call that waits for its answer. Dropped, nobody waits any more, and a late answer is passed over.
struct Call<'a> {
    shared: &'a Shared,
    sequence: i32,
    answers_before: u64,
    answer: oneshot::Receiver<Result<Bytes, CallError>>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.shared.state().waiting.remove(&self.sequence);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the state panics")
    }

    fn why_ended(&self) -> String {
        self.state().ended.clone().unwrap_or_default()
    }

    fn begin<'a, T: Value<'a>>(&self, header: &RequestHeader, request: &Request<T>) -> Result<Call<'_>, CallError> {
        let mut state = self.state();
        if let Some(why) = &state.ended {
            return Err(CallError::NotSent(why.clone()));
        }
        let sequence = state.sequence();
        let (sender, answer) = oneshot::channel();
        let begin = state.appended;
        self.append(&mut state, header, sequence, request);
        state.waiting.insert(sequence, Waiting { begin, answer: sender });
        let answers_before = state.answers;
        drop(state);
        Ok(Call { shared: self, sequence, answers_before, answer })
    }

    fn append<'a, T: Value<'a>>(&self, state: &mut State, header: &RequestHeader, sequence: i32, request: &Request<T>) {
        let before = state.outbox.len();
        append_request(&mut state.outbox, header, request.rpc, sequence, &request.argument);
        state.appended += (state.outbox.len() - before) as u64;
        // Later ones need not wake the writer: it takes all there is.
        if before == 0 {
            self.filled.notify_one();
        }
    }

    /// An answer has arrived; nobody may wait for it any more.
    fn complete(&self, frame: Bytes) -> Result<(), String> {
        let sequence = Answer::parse(&frame).map_err(|error| error.to_string())?.sequence;
        let waiting = {
            let mut state = self.state();
            state.answers += 1;
            state.waiting.remove(&sequence)
        };
        if let Some(waiting) = waiting {
            // A call that was dropped in this moment does not want it.
            let _unwanted = waiting.answer.send(Ok(frame));
        }
        Ok(())
    }

    /// Nothing more is sent or received; whoever waits is told. Only the first reason counts.
    fn finish(&self, why: String) {
        let (waiting, taken) = {
            let mut state = self.state();
            if state.ended.is_some() {
                return;
            }
            state.ended = Some(why.clone());
            state.outbox = Vec::new();
            (std::mem::take(&mut state.waiting), state.taken)
        };
        self.room.close();
        for Waiting { begin, answer } in waiting.into_values() {
            let error = if begin >= taken { CallError::NotSent(why.clone()) } else { CallError::Lost(why.clone()) };
            let _unwanted = answer.send(Err(error));
        }
    }
}

impl State {
    fn sequence(&mut self) -> i32 {
        loop {
            self.next_sequence = self.next_sequence.wrapping_add(1);
            if !self.waiting.contains_key(&self.next_sequence) {
                return self.next_sequence;
            }
        }
    }
}

async fn run(stream: TcpStream, shared: Arc<Shared>) {
    let (reading, writing) = stream.into_split();
    let why = tokio::select! {
        why = read(reading, &shared) => why,
        error = write(writing, &shared) => format!("writing: {error}"),
        () = shared.end.notified() => "it was given up".to_owned(),
    };
    shared.finish(why);
}

/// Writes what is in the outbox, all of it at a time, until that fails.
async fn write(mut socket: OwnedWriteHalf, shared: &Shared) -> io::Error {
    let mut batch = Vec::new();
    loop {
        shared.filled.notified().await;
        {
            let mut state = shared.state();
            std::mem::swap(&mut state.outbox, &mut batch);
            state.taken = state.appended;
        }
        if let Err(error) = socket.write_all(&batch).await {
            return error;
        }
        batch.clear();
        if batch.capacity() > OUTBOX_KEEP_BYTES {
            batch = Vec::new();
        }
    }
}

/// Reads answers and hands them out, until that fails; tells why.
async fn read(mut socket: OwnedReadHalf, shared: &Shared) -> String {
    let mut received = BytesMut::with_capacity(READ_BYTES);
    loop {
        let needed = match hand_out(&mut received, shared) {
            Ok(needed) => needed,
            Err(error) => return format!("the server's answer cannot be understood: {error}"),
        };
        // Room grows with what has arrived, not with what was announced.
        let missing = needed.saturating_sub(received.len());
        received.reserve(missing.min(received.len()).max(READ_BYTES));
        match socket.read_buf(&mut received).await {
            Ok(0) => return "the server closed the connection".to_owned(),
            Ok(_) => {}
            Err(error) => return format!("reading: {error}"),
        }
    }
}

/// Hands out the answers that are whole; gives the length of the one that is not, as far as it is known.
fn hand_out(received: &mut BytesMut, shared: &Shared) -> Result<usize, String> {
    while let Some(length) = answer::length(received).map_err(|error| error.to_string())? {
        if received.len() < length {
            return Ok(length);
        }
        shared.complete(received.split_to(length).freeze())?;
    }
    Ok(0)
}
