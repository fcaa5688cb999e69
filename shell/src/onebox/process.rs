//! Processes by their id, safely: a process id can be given to another process at any moment, a handle on a process
//! cannot. A handle is opened first, then the process is checked to be ours, and only then signalled.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// A handle on one running process.
#[derive(Debug)]
pub struct ProcessHandle {
    pid: i32,
    fd: OwnedFd,
}

impl ProcessHandle {
    /// The process whose id stands in `pid_file`, if it still runs and was started with `argument` (the path of its
    /// configuration file) among its arguments. `None` if there is no such process.
    pub fn find(pid_file: &Path, argument: &Path) -> Option<ProcessHandle> {
        let pid: i32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
        let handle = ProcessHandle::open(pid).ok()?;
        // Read after the handle was opened: if it matches, the handle is on that very process.
        handle.has_argument(argument).then_some(handle)
    }

    /// A handle on the process with this id.
    pub fn open(pid: i32) -> io::Result<ProcessHandle> {
        // SAFETY: pidfd_open takes a process id and flags and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the system call succeeded, so this is a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(ProcessHandle { pid, fd })
    }

    /// The process's id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal. Succeeds if the process has ended already.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: the descriptor is open for as long as self lives; a null siginfo is allowed.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if result == 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        }
    }

    /// Waits until the process has ended, at most `within`. True if it has.
    pub fn wait(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let timeout_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
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

    /// A zombie has no arguments any more, so a process that has ended never matches.
    fn has_argument(&self, argument: &Path) -> bool {
        let Ok(command_line) = fs::read(format!("/proc/{}/cmdline", self.pid)) else { return false };
        command_line.split(|&byte| byte == 0).any(|part| part == argument.as_os_str().as_encoded_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process that ends with the test, however that ends.
    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Sleeper {
            let mut command = Command::new("sleep");
            let quiet = command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let sleeper = Sleeper(quiet.spawn().expect("sleep starts"));
            // The kernel shows the arguments a moment after the process has begun.
            let path = format!("/proc/{}/cmdline", sleeper.0.id());
            while fs::read(&path).expect("it runs").is_empty() {
                std::thread::yield_now();
            }
            sleeper
        }

        fn pid(&self) -> i32 {
            self.0.id() as i32
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _killed = self.0.kill();
            let _reaped = self.0.wait();
        }
    }

    #[test]
    fn a_process_is_signalled_and_awaited() {
        let mut child = Sleeper::start();
        let handle = ProcessHandle::open(child.pid()).expect("it runs");
        assert!(!handle.wait(Duration::from_millis(1)));
        handle.signal(libc::SIGTERM).expect("sent");
        assert!(handle.wait(Duration::from_secs(10)));
        child.0.wait().expect("reaped");
        handle.signal(libc::SIGTERM).expect("a process that has ended needs no signal");
    }

    #[test]
    fn only_the_process_with_the_argument_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let pid_file = directory.path().join("pid");
        assert!(ProcessHandle::find(&pid_file, Path::new("1000")).is_none());
        let mut child = Sleeper::start();
        fs::write(&pid_file, format!("{}\n", child.pid())).expect("written");
        let found = ProcessHandle::find(&pid_file, Path::new("1000")).map(|found| found.pid());
        assert_eq!(found, Some(child.pid()));
        assert!(ProcessHandle::find(&pid_file, Path::new("100")).is_none());
        child.0.kill().expect("killed");
        // Killed but not reaped: it must not be taken for a running process.
        assert!(ProcessHandle::open(child.pid()).expect("a zombie").wait(Duration::from_secs(10)));
        assert!(ProcessHandle::find(&pid_file, Path::new("1000")).is_none());
        drop(child);
        fs::write(&pid_file, "garbage").expect("written");
        assert!(ProcessHandle::find(&pid_file, Path::new("1000")).is_none());
    }
}
