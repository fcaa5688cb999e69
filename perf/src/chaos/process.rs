//! One server process: started in its place of the network, killed, stopped, continued. It ends with this process,
//! however that ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::chaos::interrupt::Interrupt;
use crate::chaos::namespace::Namespace;
use crate::failure::Failure;

/// What a process is made of and whether it runs.
#[derive(Debug)]
pub struct Server {
    /// `meta1`, `node1`, ...
    pub name: String,
    /// The program's file.
    pub program: PathBuf,
    /// Its own directory, with its configuration and its log.
    pub directory: PathBuf,
    /// QUIC address (of core 0).
    pub listen: SocketAddr,
    /// UDP ports, from `listen` on.
    pub udp_ports: u16,
    /// HTTP address.
    pub admin: SocketAddr,
    /// Where it runs, unless it is the loopback device of this process.
    pub namespace: Option<Namespace>,
    /// The process, from its start until its end was seen.
    child: Option<Child>,
}

impl Server {
    /// A server that does not run yet.
    pub fn new(name: String, program: PathBuf, directory: PathBuf, address: Ipv4Addr, ports: Ports) -> Server {
        Server {
            name,
            program,
            directory,
            listen: SocketAddr::from((address, ports.quic)),
            udp_ports: ports.quic_count,
            admin: SocketAddr::from((address, ports.admin)),
            namespace: None,
            child: None,
        }
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.directory.join("config.toml")
    }

    /// What it writes to standard error, over all its runs.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn ready_path(&self) -> PathBuf {
        self.directory.join("ready")
    }

    /// Starts it and returns at once; it may not serve yet.
    pub fn start(&mut self) -> Result<(), Failure> {
        let doing = format!("start {}", self.name);
        self.wait_for_ports().map_err(Failure::at(&doing))?;
        let ready = File::create(self.ready_path()).map_err(Failure::at(&doing))?;
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).map_err(Failure::at(&doing))?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.config_path()).current_dir(&self.directory);
        // A group of its own: the keyboard's interrupt is not meant for it.
        command.stdin(Stdio::null()).stdout(ready).stderr(log).process_group(0);
        self.prepare(&mut command)?;
        self.child = Some(command.spawn().map_err(Failure::at(format!("run {}", self.program.display())))?);
        Ok(())
    }

    /// Has the child enter its namespace, and end when this thread does.
    fn prepare(&self, command: &mut Command) -> Result<(), Failure> {
        let namespace = match &self.namespace {
            Some(namespace) => Some(namespace.duplicate().map_err(Failure::at("keep a namespace"))?),
            None => None,
        };
        let parent = std::process::id();
        // SAFETY: between fork and exec only setns, prctl and getppid are called, which are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                if let Some(namespace) = &namespace {
                    namespace.enter()?;
                }
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // Had the parent ended before that, nobody would tell.
                if libc::getppid() != parent as libc::pid_t { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
            });
        }
        Ok(())
    }

    /// The sockets of a killed process live on until the kernel has taken down its ring.
    fn wait_for_ports(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + PORTS_PATIENCE;
        loop {
            let bind = || {
                for core in 0..self.udp_ports {
                    let mut address = self.listen;
                    address.set_port(self.listen.port() + core);
                    UdpSocket::bind(address).map_err(Failure::at(format!("use UDP port {address}")))?;
                }
                Ok(())
            };
            let bound = match &self.namespace {
                Some(namespace) => namespace.within(bind),
                None => bind(),
            };
            match bound {
                Err(_) if Instant::now() < deadline => thread::sleep(LOOK_INTERVAL),
                outcome => return outcome,
            }
        }
    }

    /// Waits until it says that it serves. A failure, with the end of its log, if it ended or takes too long.
    pub fn wait_until_ready(&mut self, deadline: Instant, interrupt: &Interrupt) -> Result<(), Failure> {
        loop {
            let said = fs::read_to_string(self.ready_path()).unwrap_or_default();
            if said.split_inclusive('\n').any(|line| line.starts_with("ready ") && line.ends_with('\n')) {
                return Ok(());
            }
            if let Some(status) = self.ended()? {
                return Err(Failure::new(format!("{} ended at once ({status})\n{}", self.name, self.log_tail())));
            }
            if Instant::now() >= deadline {
                return Err(Failure::new(format!("{} does not serve\n{}", self.name, self.log_tail())));
            }
            if interrupt.wait(LOOK_INTERVAL) {
                return interrupt.check();
            }
        }
    }

    /// True if it was started and its end was not seen.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// The status with which it ended by itself, once.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait().map_err(Failure::at(format!("look at {}", self.name)))?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// kill -9, also if it is stopped. Does nothing if it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP, or SIGCONT. Does nothing if it does not run.
    pub fn set_stopped(&self, stopped: bool) {
        if let Some(child) = &self.child {
            let signal = if stopped { libc::SIGSTOP } else { libc::SIGCONT };
            // SAFETY: the process is our child and has not been waited for, so the number is still its own.
            unsafe { libc::kill(child.id() as libc::pid_t, signal) };
        }
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = tail(&self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        let shown: String = shown.iter().map(|line| format!("  {line}\n")).collect();
        format!("the end of {}:\n{shown}", self.log_path().display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The ports of one server.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// The first UDP port.
    pub quic: u16,
    /// How many there are.
    pub quic_count: u16,
    /// The HTTP port.
    pub admin: u16,
}

fn tail(path: &std::path::Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How long the ports of a killed process may stay taken.
const PORTS_PATIENCE: Duration = Duration::from_secs(5);
/// How often a starting process is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
const LOG_TAIL_LINES: usize = 20;
const LOG_TAIL_BYTES: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn server(home: &Path, script: &str) -> Server {
        let program = home.join("program");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let ports = Ports { quic: 0, quic_count: 1, admin: 0 };
        Server::new("node1".to_owned(), program, home.to_owned(), Ipv4Addr::LOCALHOST, ports)
    }

    fn start(server: &mut Server) {
        // Another test may have forked while the script was open for writing; its copy of the descriptor goes soon.
        while let Err(failure) = server.start() {
            assert!(failure.to_string().contains("Text file busy"), "{failure}");
            thread::yield_now();
        }
    }

    fn state_of(server: &Server) -> char {
        let pid = server.child.as_ref().unwrap().id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim().chars().next().unwrap()
    }

    fn wait_for_state(server: &Server, wanted: char) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while state_of(server) != wanted {
            assert!(Instant::now() < deadline, "waited for {wanted}, it is {}", state_of(server));
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_process_is_stopped_continued_and_killed() {
        let home = tempfile::tempdir().unwrap();
        let mut server = server(home.path(), "exec sleep 1000");
        start(&mut server);
        wait_for_state(&server, 'S');
        server.set_stopped(true);
        wait_for_state(&server, 'T');
        server.set_stopped(false);
        wait_for_state(&server, 'S');
        server.set_stopped(true);
        server.kill();
        assert!(!server.is_running());
        server.kill();
        server.set_stopped(false);
    }

    #[test]
    fn the_end_of_a_process_is_seen_once_with_its_log() {
        let home = tempfile::tempdir().unwrap();
        let mut server = server(home.path(), "echo the disk is on fire >&2; exit 3");
        start(&mut server);
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = server.ended().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(status.code(), Some(3));
        assert!(server.ended().unwrap().is_none() && !server.is_running());
        assert!(server.log_tail().contains("the disk is on fire"));
    }

    #[test]
    fn a_process_ends_with_the_thread_that_started_it() {
        let home = tempfile::tempdir().unwrap();
        let mut server = server(home.path(), "exec sleep 1000");
        let server = thread::spawn(move || {
            start(&mut server);
            server
        });
        let mut server = server.join().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while server.ended().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it outlived its parent");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
