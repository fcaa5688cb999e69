//! Ctrl-C and SIGTERM as something to wait for, so that a run that is interrupted still takes its cluster down.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// The descriptor that the signal handler writes to; -1 before it is installed.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// The right to be told of an interrupt.
#[derive(Debug)]
pub struct Interrupt {
    event: File,
}

impl Interrupt {
    /// From now on Ctrl-C and SIGTERM are told here and end nothing by themselves; dropping this undoes it.
    pub fn install() -> Result<Interrupt, Failure> {
        // SAFETY: eventfd takes two numbers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(Failure::at("make an event descriptor")(io::Error::last_os_error()));
        }
        // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
        let event = unsafe { File::from_raw_fd(fd) };
        WAKE.store(fd, Ordering::SeqCst);
        for signal in SIGNALS {
            let handler: extern "C" fn(libc::c_int) = note;
            // SAFETY: the handler only does what is async-signal-safe: an atomic load and a write.
            unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        }
        Ok(Interrupt { event })
    }

    /// Waits for an interrupt, at most so long. True once there was one; from then on at once.
    pub fn wait(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd { fd: self.event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let timeout_ms = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            // SAFETY: the pointer is to one pollfd that lives across the call.
            let ready = unsafe { libc::poll(&mut poll, 1, timeout_ms) };
            if ready > 0 {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }

    /// True once there was an interrupt.
    pub fn happened(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// An error once there was an interrupt.
    pub fn check(&self) -> Result<(), Failure> {
        if self.happened() { Err(Failure::new("interrupted")) } else { Ok(()) }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        for signal in SIGNALS {
            // SAFETY: the default action is restored; no handler of ours runs from now on.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        WAKE.store(-1, Ordering::SeqCst);
        // What was told is told; nothing depends on it.
        let _ = (&self.event).read(&mut [0; 8]);
    }
}

extern "C" fn note(_signal: libc::c_int) {
    let one = 1u64.to_ne_bytes();
    let fd = WAKE.load(Ordering::SeqCst);
    // SAFETY: eight bytes that live across the call; a descriptor of -1 is refused.
    unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) };
}

const SIGNALS: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_and_stays_told() {
        let interrupt = Interrupt::install().unwrap();
        assert!(!interrupt.wait(Duration::from_millis(1)));
        assert!(interrupt.check().is_ok());
        note(libc::SIGINT);
        assert!(interrupt.wait(Duration::from_secs(10)) && interrupt.happened());
        assert_eq!(interrupt.check().unwrap_err().to_string(), "interrupted");
    }
}
