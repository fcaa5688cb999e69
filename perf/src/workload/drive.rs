//! Drives operations, in a closed loop or at a fixed rate, and records them in a window of time.
//!
//! - Closed loop: each worker starts its next operation when its last one ended. `workers` operations are in
//!   flight all the time.
//! - Fixed rate: operation i is meant to start at `i / rate`. A thread with a precise timer hands the operations
//!   to the workers at these times. If all workers are busy, an operation starts late, and its latency still
//!   counts from the time it was meant to start: a stall shows in every operation it delayed.
//!
//! The window opens after the warm-up and closes after the measured time. Operations count in the window in which
//! they end. The driver knows nothing of what an operation is.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::failure::Failure;
use crate::workload::record::{Outcome, Record};

/// When operations start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// When the worker's last one ended.
    Closed,
    /// This many per second, at intended times.
    Rate(f64),
}

/// How long the phases of a drive last.
#[derive(Clone, Copy, Debug)]
pub struct Phases {
    /// Before the window opens; nothing is recorded.
    pub warmup: Duration,
    /// From the opening of the window to its end.
    pub measured: Duration,
    /// How long operations in flight at the end are waited for. Those that take longer are given up and counted
    /// as unfinished.
    pub drain: Duration,
}

/// What came out of a drive.
pub struct Driven<P> {
    /// The operations that ended in the window.
    pub record: Record,
    /// How long the window was.
    pub wall: Duration,
    /// What the probe read when the window opened.
    pub before: P,
    /// What the probe read when it closed.
    pub after: P,
    /// Operations of a fixed rate which were due and not started when the window closed, up to the bound of the
    /// queue. Above zero means that the system did not keep up with the rate.
    pub not_started: u64,
    /// Workers whose last operation did not end in time.
    pub unfinished: u64,
}

/// Runs the workers through the phases. Each worker is a closure that performs one operation per call. `probe` is
/// called when the window opens and when it closes.
pub async fn drive<W, F, P>(
    workers: Vec<W>,
    pace: Pace,
    phases: Phases,
    mut probe: impl FnMut() -> Result<P, Failure>,
) -> Result<Driven<P>, Failure>
where
    W: FnMut() -> F + Send + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    let shared = Arc::new(Shared::default());
    let schedule = match pace {
        Pace::Closed => None,
        Pace::Rate(per_second) => Some(Schedule::start(per_second, shared.clone())?),
    };
    let mut tasks = JoinSet::new();
    for worker in workers {
        let shared = shared.clone();
        match &schedule {
            None => tasks.spawn(work_closed(worker, shared)),
            Some(schedule) => tasks.spawn(work_scheduled(worker, shared, schedule.due.clone())),
        };
    }

    tokio::time::sleep(phases.warmup).await;
    let before = probe()?;
    let opened = Instant::now();
    drop(shared.take_record());
    tokio::time::sleep(phases.measured).await;
    let record = shared.take_record();
    let wall = opened.elapsed();
    let after = probe()?;

    shared.stop.store(true, Ordering::Relaxed);
    let not_started = match schedule {
        None => 0,
        Some(schedule) => schedule.stop().await,
    };
    let unfinished = drain(tasks, phases.drain).await?;
    Ok(Driven { record, wall, before, after, not_started, unfinished })
}

/// What workers and the driver share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    record: Mutex<Record>,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no holder of the record panics")
    }

    fn take_record(&self) -> Record {
        std::mem::take(&mut *self.record())
    }
}

async fn work_closed<W, F>(mut worker: W, shared: Arc<Shared>)
where
    W: FnMut() -> F + Send,
    F: Future<Output = Outcome> + Send,
{
    while !shared.stopped() {
        let started = Instant::now();
        let outcome = worker().await;
        shared.record().add(outcome, started, started, Instant::now());
        if outcome.error.is_some() {
            tokio::time::sleep(ERROR_PAUSE).await;
        }
    }
}

async fn work_scheduled<W, F>(mut worker: W, shared: Arc<Shared>, due: DueQueue)
where
    W: FnMut() -> F + Send,
    F: Future<Output = Outcome> + Send,
{
    while !shared.stopped() {
        let Some(intended) = due.lock().await.recv().await else { return };
        let started = Instant::now();
        let outcome = worker().await;
        shared.record().add(outcome, intended, started, Instant::now());
    }
}

/// Intended start times, in order.
type DueQueue = Arc<tokio::sync::Mutex<mpsc::Receiver<Instant>>>;

/// The thread that hands out intended start times.
struct Schedule {
    due: DueQueue,
    thread: thread::JoinHandle<()>,
}

impl Schedule {
    fn start(per_second: f64, shared: Arc<Shared>) -> Result<Schedule, Failure> {
        if !(per_second > 0.0 && per_second <= RATE_MAX) {
            return Err(Failure::new(format!(
                "the rate must be above 0 and at most {RATE_MAX} per second, got {per_second}"
            )));
        }
        let (sender, receiver) = mpsc::channel(DUE_QUEUE_MAX);
        let thread = thread::Builder::new()
            .name("schedule".to_owned())
            .spawn(move || hand_out(per_second, &shared, &sender))
            .map_err(Failure::at("start the schedule thread"))?;
        Ok(Schedule { due: Arc::new(tokio::sync::Mutex::new(receiver)), thread })
    }

    /// Ends the hand-out; returns how many operations were due and not started.
    async fn stop(self) -> u64 {
        let mut due = self.due.lock().await;
        due.close();
        let mut not_started = 0;
        while due.recv().await.is_some() {
            not_started += 1;
        }
        drop(due);
        self.thread.join().expect("the schedule thread does not panic");
        not_started
    }
}

/// Sends each intended start time when it has come. A full queue delays the hand-out, not the times themselves.
fn hand_out(per_second: f64, shared: &Shared, due: &mpsc::Sender<Instant>) {
    let start = Instant::now();
    for index in 0u64.. {
        let intended = start + Duration::from_secs_f64(index as f64 / per_second);
        while let Some(wait) = intended.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
            if shared.stopped() {
                return;
            }
            thread::sleep(wait.min(STOP_CHECK_INTERVAL));
        }
        if shared.stopped() || due.blocking_send(intended).is_err() {
            return;
        }
    }
}

/// Waits for the workers; returns how many had to be given up. A worker that panicked is a failure.
async fn drain(mut tasks: JoinSet<()>, patience: Duration) -> Result<u64, Failure> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match tokio::time::timeout_at(deadline, tasks.join_next()).await {
            Ok(None) => return Ok(0),
            Ok(Some(ended)) => ended.map_err(Failure::at("run a worker"))?,
            Err(_) => {
                let unfinished = tasks.len() as u64;
                tasks.shutdown().await;
                return Ok(unfinished);
            }
        }
    }
}

/// A closed loop pauses this long after an error, so that a system that refuses at once is not flooded.
const ERROR_PAUSE: Duration = Duration::from_millis(1);
/// Intended start times that may wait for a worker.
const DUE_QUEUE_MAX: usize = 65_536;
/// The schedule thread looks this often whether it should stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// The highest rate that makes sense from one process.
const RATE_MAX: f64 = 10_000_000.0;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn phases(measured_ms: u64) -> Phases {
        Phases { warmup: Duration::ZERO, measured: Duration::from_millis(measured_ms), drain: Duration::from_secs(10) }
    }

    /// A worker whose operations take this long.
    fn sleeper(took: Duration) -> impl FnMut() -> std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>> + Send {
        move || {
            Box::pin(async move {
                tokio::time::sleep(took).await;
                Outcome::done("op")
            })
        }
    }

    #[tokio::test]
    async fn a_closed_loop_keeps_its_depth_in_flight() {
        let in_flight = Arc::new(AtomicU64::new(0));
        let most = Arc::new(AtomicU64::new(0));
        let worker = || {
            let (in_flight, most) = (in_flight.clone(), most.clone());
            move || {
                let (in_flight, most) = (in_flight.clone(), most.clone());
                async move {
                    let now = in_flight.fetch_add(1, Ordering::Relaxed) + 1;
                    most.fetch_max(now, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    in_flight.fetch_sub(1, Ordering::Relaxed);
                    Outcome::done("op")
                }
            }
        };
        let driven = drive((0..4).map(|_| worker()).collect(), Pace::Closed, phases(60), || Ok(())).await.unwrap();
        assert_eq!(most.load(Ordering::Relaxed), 4);
        assert_eq!(in_flight.load(Ordering::Relaxed), 0, "all operations were awaited");
        assert!(driven.record.done_count() >= 4);
        assert_eq!((driven.not_started, driven.unfinished), (0, 0));
    }

    #[tokio::test]
    async fn a_rate_is_kept() {
        let workers = (0..8).map(|_| sleeper(Duration::from_millis(1))).collect();
        let driven = drive(workers, Pace::Rate(200.0), phases(500), || Ok(())).await.unwrap();
        let done = driven.record.done_count();
        assert!((60..=101).contains(&done), "{done} operations in half a second at 200 a second");
    }

    #[tokio::test]
    async fn a_stall_shows_in_every_operation_it_delayed() {
        // One worker, 100 operations a second, each taking 50 ms: the queue grows, and so must the latency.
        let driven =
            drive(vec![sleeper(Duration::from_millis(50))], Pace::Rate(100.0), phases(600), || Ok(())).await.unwrap();
        let operation = &driven.record.operations["op"];
        let (latency, service) = (operation.latency.summary(), operation.service.summary());
        assert!(latency.max_us > 3.0 * service.p50_us, "{latency:?} {service:?}");
        assert!(driven.not_started > 0);
    }

    #[tokio::test]
    async fn errors_are_recorded_and_probes_frame_the_window() {
        let mut probes = 0;
        let failing = || async { Outcome::failed("op", "timeout") };
        let driven = drive(vec![failing], Pace::Closed, phases(30), || {
            probes += 1;
            Ok(probes)
        })
        .await
        .unwrap();
        assert_eq!((driven.before, driven.after), (1, 2));
        assert_eq!(driven.record.done_count(), 0);
        assert!(driven.record.operations["op"].errors["timeout"] > 0);
    }

    #[tokio::test]
    async fn workers_that_hang_are_given_up() {
        let hanging = || std::future::pending::<Outcome>();
        let phases =
            Phases { warmup: Duration::ZERO, measured: Duration::from_millis(5), drain: Duration::from_millis(5) };
        let driven = drive(vec![hanging, hanging], Pace::Closed, phases, || Ok(())).await.unwrap();
        assert_eq!(driven.unfinished, 2);
    }

    #[tokio::test]
    async fn impossible_rates_are_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let workers = vec![sleeper(Duration::ZERO)];
            assert!(drive(workers, Pace::Rate(rate), phases(1), || Ok(())).await.is_err(), "{rate}");
        }
    }
}
