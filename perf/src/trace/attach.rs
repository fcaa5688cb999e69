//! Attaching strace to threads and detaching it. Its lines are summed up as they come, so nothing grows.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::failure::Failure;
use crate::trace::summary::Summary;

/// What strace reported.
#[derive(Clone, Debug, Default)]
pub struct Traced {
    /// The calls.
    pub summary: Summary,
    /// What strace said about itself, without its usual notes on attaching and detaching.
    pub messages: Vec<String>,
}

/// Fails with what to do if strace cannot be run.
pub fn check(strace: &Path) -> Result<(), Failure> {
    let outcome = Command::new(strace).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match outcome {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("{} -V failed: {status}", strace.display()))),
        Err(error) => Err(Failure::new(format!(
            "cannot run {}: {error}; install it with `apt-get install strace`, or name it with --strace",
            strace.display()
        ))),
    }
}

/// strace at work. Dropping it without [`Attached::stop`] detaches too.
pub struct Attached {
    strace: Option<(Child, thread::JoinHandle<Traced>)>,
}

impl Attached {
    /// Attaches to these threads; the calls of others in the same processes are not seen.
    pub fn start(strace: &Path, threads: &[u32]) -> Result<Attached, Failure> {
        let mut command = Command::new(strace);
        // -T: time spent in each call; -s 0: no contents of buffers.
        command.args(["-T", "-s", "0"]);
        for thread in threads {
            command.arg("-p").arg(thread.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // SAFETY: between fork and exec only `signal` is called, which is async-signal-safe. A shell starts its
        // background jobs with SIGINT ignored, and a child would inherit that and never be interrupted.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(Failure::at(format!("run {}", strace.display())))?;
        let lines = child.stderr.take().expect("the standard error was asked to be piped");
        let reader = thread::Builder::new().name("strace-reader".to_owned()).spawn(move || read_all(lines));
        let mut attached = Attached { strace: None };
        match reader {
            Ok(reader) => attached.strace = Some((child, reader)),
            Err(error) => {
                interrupt(&mut child);
                return Err(Failure::at("start a thread that reads from strace")(error));
            }
        }
        Ok(attached)
    }

    /// Detaches and returns what was seen.
    pub fn stop(mut self) -> Result<Traced, Failure> {
        let (mut child, reader) = self.strace.take().expect("it is taken here and when dropped only");
        interrupt(&mut child);
        reader.join().map_err(|_| Failure::new("the thread that reads from strace panicked"))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.strace.take() {
            interrupt(&mut child);
        }
    }
}

/// Asks strace to detach and waits until it has ended. It must not be killed: threads could stay stopped.
fn interrupt(child: &mut Child) {
    // SAFETY: the process is our child and has not been waited for, so the number is still its own.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    // Whether it ended well shows in what it wrote.
    let _ = child.wait();
}

fn read_all(lines: impl Read) -> Traced {
    let mut traced = Traced::default();
    let mut lines = BufReader::new(lines);
    let mut line = Vec::new();
    // An error ends the reading like the end of the output.
    while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        add_line(&mut traced, &String::from_utf8_lossy(&line));
        line.clear();
    }
    traced
}

fn add_line(traced: &mut Traced, line: &str) {
    match line.trim_end().strip_prefix("strace: ") {
        None => traced.summary.add_line(line),
        Some(note) if note.ends_with(" attached") || note.ends_with(" detached") => {}
        Some(note) if traced.messages.len() < MESSAGES_MAX => traced.messages.push(note.to_owned()),
        Some(_) => {}
    }
}

/// Notes of strace kept.
const MESSAGES_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn output_is_sorted_into_calls_and_messages() {
        let output = "strace: Process 7 attached\n[pid 7] sendmsg(3) = 1 <0.000002>\n\
                      strace: attach: ptrace(7): denied\n\u{FFFD}\nstrace: Process 7 detached\n";
        let traced = read_all(output.as_bytes());
        assert_eq!(traced.summary.calls["sendmsg"].count, 1);
        assert_eq!(traced.messages, ["attach: ptrace(7): denied"]);
    }

    #[test]
    fn a_missing_strace_says_how_to_install_it() {
        let failure = check(Path::new("/no/such/strace")).unwrap_err().to_string();
        assert!(failure.contains("apt-get install strace"), "{failure}");
    }

    #[test]
    fn a_stand_in_for_strace_is_started_read_and_interrupted() {
        // It prints a call, says so through a pipe, and goes on until it is interrupted, like strace does.
        let directory = tempfile::tempdir().unwrap();
        let (program, pipe) = (directory.path().join("stand-in"), directory.path().join("pipe"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let call = r#"echo "[pid $5] fsync(1) = 0 <0.5>" >&2"#;
        let script = format!("#!/bin/sh\n{call}\necho ready > {}\nexec sleep 600\n", pipe.display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let attached = Attached::start(&program, &[7]).unwrap();
        assert_eq!(std::fs::read_to_string(&pipe).unwrap(), "ready\n");
        let traced = attached.stop().unwrap();
        let fsync = &traced.summary.calls["fsync"];
        assert_eq!((fsync.count, fsync.longest_us), (1, 500_000.0));
        assert_eq!(fsync.examples, ["[pid 7] fsync(1) = 0 <0.5>"]);
    }
}
