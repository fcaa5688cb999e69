//! Bounded pools of ordinary threads for everything that may block: point reads that missed the cache, stalled
//! writes, scans, flushes, opening and closing of tables, small durable files.
//!
//! ```text
//!   serving core                     pool
//!   run(job) --- queue full? ---> Err(Busy)
//!       |  no
//!       v
//!   [ queue, at most `queue_bound` ] ---> thread ---> job() ---> future resolves (waker called from the thread)
//! ```
//!
//! A pool must never run on a serving CPU where there are others, and must never grow: when its queue is full the
//! caller gets [`Busy`] and answers so.
//!
//! Invariants:
//! 1. Every accepted job runs, also when its future was dropped, and also when the pool is shut down meanwhile.
//! 2. Every future resolves: with the job's result, or with [`JobPanicked`].
//! 3. At most `queue_bound` jobs wait.

use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::affinity::Placement;

/// A job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// As many jobs wait as may; try again later.
    #[error("the pool is busy: {queue_bound} jobs wait already")]
    Full {
        /// The bound that was reached.
        queue_bound: usize,
    },
    /// The pool is being shut down.
    #[error("the pool is shutting down")]
    ShuttingDown,
}

/// A job panicked. The thread survived; whatever the job shared with others may be in a bad state, so the owner
/// of the job should stop what it worked on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job of the pool panicked: {message}")]
pub struct JobPanicked {
    /// The text of the panic, if it had one.
    pub message: String,
}

/// The result of a job, once it has run. Dropping it does not stop the job. Must not be polled again once ready.
pub struct JobFuture<T> {
    slot: Arc<Mutex<Slot<T>>>,
}

impl<T> Future for JobFuture<T> {
    type Output = Result<T, JobPanicked>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = lock(&self.slot);
        match slot.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Where a job leaves its result and finds whom to wake.
struct Slot<T> {
    result: Option<Result<T, JobPanicked>>,
    waker: Option<Waker>,
}

/// Leaves the result. The waker is called outside the lock, since it may run foreign code.
fn resolve<T>(slot: &Mutex<Slot<T>>, result: Result<T, JobPanicked>) {
    let waker = {
        let mut slot = lock(slot);
        slot.result = Some(result);
        slot.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What a pool did so far. Counters never go back, except `waiting` and `running`, which are of the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStatistics {
    /// Jobs in the queue now.
    pub waiting: u64,
    /// Jobs on a thread now.
    pub running: u64,
    /// Jobs accepted.
    pub accepted: u64,
    /// Jobs that returned or panicked.
    pub finished: u64,
    /// Jobs refused with [`Busy`].
    pub refused: u64,
    /// Jobs that panicked.
    pub panicked: u64,
    /// Longest time from acceptance to start, in microseconds.
    pub longest_wait_micros: u64,
    /// Longest time from start to end, in microseconds.
    pub longest_run_micros: u64,
}

/// A handle to a pool. When the last handle is dropped the threads finish what was accepted and end;
/// [`BlockingPool::shutdown`] also waits for that.
#[derive(Clone)]
pub struct BlockingPool {
    owner: Arc<Owner>,
}

impl BlockingPool {
    /// Starts `threads` threads called `name`, placed as said. Without a list of CPUs the threads inherit the mask of
    /// the caller, so pools are made before the caller pins itself.
    ///
    /// Fails if a thread cannot be started or the CPUs cannot be used.
    pub fn new(name: &str, threads: usize, queue_bound: usize, placement: &Placement) -> io::Result<BlockingPool> {
        if threads == 0 || queue_bound == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a pool needs a thread and room for a job"));
        }
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            queue_bound,
            queue: Mutex::new(Queue { jobs: VecDeque::with_capacity(queue_bound), closed: false }),
            work: Condvar::new(),
            counters: Counters::default(),
        });
        // The owner exists from here on, so that a failure below ends the threads already started.
        let owner = Arc::new(Owner { shared: shared.clone(), threads: Mutex::new(Vec::new()) });
        for _ in 0..threads {
            let thread = start_thread(name, shared.clone(), placement.clone())?;
            lock(&owner.threads).push(thread);
        }
        Ok(BlockingPool { owner })
    }

    /// Hands a job to the pool. Never waits. The future may be awaited on any executor.
    pub fn run<T, F>(&self, job: F) -> Result<JobFuture<T>, Busy>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let slot = Arc::new(Mutex::new(Slot { result: None, waker: None }));
        let future = JobFuture { slot: slot.clone() };
        self.enqueue(Box::new(move |counters| {
            let result = catch_unwind(AssertUnwindSafe(job)).map_err(|panic| {
                counters.panicked.fetch_add(1, Ordering::Relaxed);
                JobPanicked { message: panic_text(panic.as_ref()) }
            });
            resolve(&slot, result);
        }))?;
        Ok(future)
    }

    fn enqueue(&self, run: Work) -> Result<(), Busy> {
        let shared = &self.owner.shared;
        let mut queue = lock(&shared.queue);
        let refusal = if queue.closed {
            Some(Busy::ShuttingDown)
        } else if queue.jobs.len() >= shared.queue_bound {
            Some(Busy::Full { queue_bound: shared.queue_bound })
        } else {
            None
        };
        if let Some(busy) = refusal {
            shared.counters.refused.fetch_add(1, Ordering::Relaxed);
            return Err(busy);
        }
        queue.jobs.push_back(Job { accepted_at: Instant::now(), run });
        shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
        drop(queue);
        shared.work.notify_one();
        Ok(())
    }

    /// Refuses new jobs, runs all accepted ones and waits until the threads have ended. Must not be called from a
    /// job of this pool. Calling it again does nothing.
    pub fn shutdown(&self) {
        self.owner.shared.close();
        let threads = std::mem::take(&mut *lock(&self.owner.threads));
        for thread in threads {
            // A thread ends only by returning: jobs' panics are caught.
            let _ = thread.join();
        }
    }

    /// Name of the pool and of its threads.
    pub fn name(&self) -> &str {
        &self.owner.shared.name
    }

    /// What the pool did so far.
    pub fn statistics(&self) -> PoolStatistics {
        let waiting = lock(&self.owner.shared.queue).jobs.len() as u64;
        let counters = &self.owner.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PoolStatistics {
            waiting,
            running: read(&counters.running),
            accepted: read(&counters.accepted),
            finished: read(&counters.finished),
            refused: read(&counters.refused),
            panicked: read(&counters.panicked),
            longest_wait_micros: read(&counters.longest_wait_micros),
            longest_run_micros: read(&counters.longest_run_micros),
        }
    }
}

/// Shared by the handles, not by the threads: its end is the end of the pool.
struct Owner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Not joined here: the last handle may be dropped by a job of this very pool.
        self.shared.close();
    }
}

/// Shared by handles and threads.
struct Shared {
    name: String,
    queue_bound: usize,
    queue: Mutex<Queue>,
    work: Condvar,
    counters: Counters,
}

impl Shared {
    fn close(&self) {
        lock(&self.queue).closed = true;
        self.work.notify_all();
    }

    /// The next job; `None` when the pool is closed and drained.
    fn next(&self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            let started_at = Instant::now();
            let waited = started_at.duration_since(job.accepted_at).as_micros() as u64;
            self.counters.longest_wait_micros.fetch_max(waited, Ordering::Relaxed);
            self.counters.running.fetch_add(1, Ordering::Relaxed);
            (job.run)(&self.counters);
            let ran = started_at.elapsed().as_micros() as u64;
            self.counters.longest_run_micros.fetch_max(ran, Ordering::Relaxed);
            self.counters.running.fetch_sub(1, Ordering::Relaxed);
            self.counters.finished.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

type Work = Box<dyn FnOnce(&Counters) + Send>;

struct Job {
    accepted_at: Instant,
    run: Work,
}

#[derive(Default)]
struct Counters {
    running: AtomicU64,
    accepted: AtomicU64,
    finished: AtomicU64,
    refused: AtomicU64,
    panicked: AtomicU64,
    longest_wait_micros: AtomicU64,
    longest_run_micros: AtomicU64,
}

/// Starts one thread and waits until it has its CPUs.
fn start_thread(name: &str, shared: Arc<Shared>, placement: Placement) -> io::Result<JoinHandle<()>> {
    let (report, ready) = mpsc::channel();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let placed = placement.take();
        let usable = placed.is_ok();
        let _ = report.send(placed);
        if usable {
            shared.work();
        }
    })?;
    ready.recv().map_err(|_| io::Error::other("a thread of the pool ended before it began"))??;
    Ok(thread)
}

/// No code that can panic runs under these locks, so a poisoned one is as good as any other.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a text".to_owned()
    }
}
