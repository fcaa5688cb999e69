//! CPU clocks of this process and its threads, in nanoseconds.

use std::time::Duration;

/// CPU time, user and system, this thread has used.
pub fn thread_cpu() -> Duration {
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID).expect("a thread can always read its own CPU clock")
}

/// CPU time, user and system, all threads of this process have used, ended ones included.
pub fn process_cpu() -> Duration {
    read_clock(libc::CLOCK_PROCESS_CPUTIME_ID).expect("a process can always read its own CPU clock")
}

/// The CPU clock of one thread of this process, which other threads may read.
#[derive(Clone, Copy, Debug)]
pub struct ThreadClock {
    clock: libc::clockid_t,
}

impl ThreadClock {
    /// The clock of the calling thread.
    pub fn current() -> ThreadClock {
        let mut clock: libc::clockid_t = 0;
        // SAFETY: `pthread_self` names the calling thread, which is alive during the call, and `clock` is a
        // valid place for the result.
        let code = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
        assert_eq!(code, 0, "a living thread has a CPU clock");
        ThreadClock { clock }
    }

    /// CPU time the thread has used; `None` once it has ended.
    pub fn read(&self) -> Option<Duration> {
        read_clock(self.clock)
    }
}

/// Reads a clock; `None` if there is none of this number (any more).
fn read_clock(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result; an unknown clock is an error, not a fault.
    let code = unsafe { libc::clock_gettime(clock, &mut time) };
    (code == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Works until the calling thread has used this much CPU.
    fn burn(cpu: Duration) {
        let start = thread_cpu();
        let mut sum = 0u64;
        while thread_cpu() - start < cpu {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }

    #[test]
    fn work_shows_on_both_clocks() {
        let (thread_before, process_before) = (thread_cpu(), process_cpu());
        burn(Duration::from_millis(5));
        assert!(thread_cpu() - thread_before >= Duration::from_millis(5));
        assert!(process_cpu() - process_before >= Duration::from_millis(5));
    }

    #[test]
    fn another_thread_can_be_read_and_its_work_is_not_ours() {
        let (send_clock, clock) = mpsc::channel();
        let (send_done, done) = mpsc::channel();
        let (finish, wait_finish) = mpsc::channel::<()>();
        let worker = thread::spawn(move || {
            send_clock.send(ThreadClock::current()).unwrap();
            burn(Duration::from_millis(20));
            send_done.send(()).unwrap();
            wait_finish.recv().ok();
        });
        let ours_before = thread_cpu();
        let clock = clock.recv().unwrap();
        done.recv().unwrap();
        let theirs = clock.read().unwrap();
        assert!(theirs >= Duration::from_millis(20), "{theirs:?}");
        assert!(thread_cpu() - ours_before < Duration::from_millis(20));
        drop(finish);
        worker.join().unwrap();
    }
}
