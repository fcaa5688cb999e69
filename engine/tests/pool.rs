//! The pool: bounds, panics, foreign executors, shutdown.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use pegasus_engine::affinity::{Placement, current_niceness, current_thread_cpus};
use pegasus_engine::pool::{BlockingPool, Busy};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs one future on this thread; a future that is never woken fails the test instead of hanging it.
fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let started = std::time::Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "the future was never resolved");
        thread::park_timeout(Duration::from_secs(1));
    }
}

/// A pool of one thread with its thread held until the sender is dropped.
fn held_pool(queue_bound: usize) -> (BlockingPool, mpsc::Sender<()>) {
    let pool = BlockingPool::new("held", 1, queue_bound, &Placement::default()).unwrap();
    let (release, held) = mpsc::channel::<()>();
    let (report, started) = mpsc::channel();
    drop(pool.run(move || {
        report.send(()).unwrap();
        let _ = held.recv();
    }));
    started.recv().unwrap();
    (pool, release)
}

#[test]
fn results_come_back_and_may_be_awaited_later() {
    let pool = BlockingPool::new("results", 2, 100, &Placement::default()).unwrap();
    let futures: Vec<_> = (0..100).map(|number| pool.run(move || number * 2).unwrap()).collect();
    let sum: i32 = futures.into_iter().map(|future| wait(future).unwrap()).sum();
    assert_eq!(sum, 9900);
    pool.shutdown();
    let statistics = pool.statistics();
    assert_eq!((statistics.accepted, statistics.finished, statistics.refused), (100, 100, 0));
    assert_eq!((statistics.waiting, statistics.running, statistics.panicked), (0, 0, 0));
}

#[test]
fn a_full_queue_refuses_at_once_and_recovers() {
    let (pool, release) = held_pool(2);
    let first = pool.run(|| 1).unwrap();
    let second = pool.run(|| 2).unwrap();
    assert_eq!(pool.run(|| 3).err(), Some(Busy::Full { queue_bound: 2 }));
    let statistics = pool.statistics();
    assert_eq!((statistics.waiting, statistics.running, statistics.refused), (2, 1, 1));
    drop(release);
    assert_eq!((wait(first).unwrap(), wait(second).unwrap()), (1, 2));
    assert_eq!(wait(pool.run(|| 4).unwrap()).unwrap(), 4);
}

#[test]
fn a_panic_is_an_answer_and_the_thread_goes_on() {
    let pool = BlockingPool::new("panics", 1, 10, &Placement::default()).unwrap();
    let fixed = pool.run(|| -> u32 { panic!("fixed text") }).unwrap();
    assert_eq!(wait(fixed).unwrap_err().message, "fixed text");
    let number = 7;
    let formatted = pool.run(move || -> u32 { panic!("job {number}") }).unwrap();
    assert_eq!(wait(formatted).unwrap_err().message, "job 7");
    let odd = pool.run(|| -> u32 { std::panic::panic_any(3) }).unwrap();
    assert_eq!(wait(odd).unwrap_err().message, "a panic without a text");
    assert_eq!(wait(pool.run(|| 5).unwrap()).unwrap(), 5);
    pool.shutdown();
    assert_eq!(pool.statistics().panicked, 3);
    assert_eq!(pool.statistics().finished, 4);
}

#[test]
fn shutdown_runs_what_was_accepted_and_refuses_the_rest() {
    let (pool, release) = held_pool(10);
    let ran = Arc::new(AtomicUsize::new(0));
    for _ in 0..10 {
        let ran = ran.clone();
        // Nobody awaits these; they run all the same.
        drop(pool.run(move || ran.fetch_add(1, Ordering::SeqCst)).unwrap());
    }
    drop(release);
    pool.shutdown();
    assert_eq!(ran.load(Ordering::SeqCst), 10);
    assert_eq!(pool.run(|| ()).err(), Some(Busy::ShuttingDown));
    pool.shutdown();
}

#[test]
fn the_last_handle_may_be_dropped_by_a_job() {
    let pool = BlockingPool::new("last", 1, 10, &Placement::default()).unwrap();
    let inside = pool.clone();
    let (report, done) = mpsc::channel();
    let gate = Arc::new(Barrier::new(2));
    let opened = gate.clone();
    let future = pool.run(move || {
        opened.wait();
        drop(inside);
        report.send(()).unwrap();
    });
    drop(pool);
    gate.wait();
    done.recv_timeout(Duration::from_secs(30)).unwrap();
    wait(future.unwrap()).unwrap();
}

#[test]
fn threads_have_their_name_and_their_cpus() {
    let last = *current_thread_cpus().unwrap().last().unwrap();
    let nicer = (current_niceness() + 2).min(19);
    let placement = Placement { cpus: Some(vec![last]), niceness: nicer };
    let pool = BlockingPool::new("point-reads", 2, 10, &placement).unwrap();
    let name = || thread::current().name().map(str::to_owned);
    let asked = pool.run(move || (name(), current_thread_cpus().unwrap(), current_niceness()));
    assert_eq!(wait(asked.unwrap()).unwrap(), (Some("point-reads".to_owned()), vec![last], nicer));
    let nowhere = Placement { cpus: Some(vec![100_000]), niceness: 0 };
    assert!(BlockingPool::new("nowhere", 1, 1, &nowhere).is_err());
    assert!(BlockingPool::new("none", 0, 1, &Placement::default()).is_err());
}

#[test]
fn a_glommio_executor_is_woken_from_the_pool() {
    let pool = BlockingPool::new("foreign", 1, 10, &Placement::default()).unwrap();
    let executor = glommio::LocalExecutorBuilder::default().spawn(move || async move {
        let mut sum = 0;
        for number in 0..50 {
            // The executor has nothing else to do, so it is asleep in the kernel when the answer comes.
            sum += pool.run(move || number).unwrap().await.unwrap();
        }
        sum
    });
    assert_eq!(executor.unwrap().join().unwrap(), 1225);
}
