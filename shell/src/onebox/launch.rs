//! Starting one process of a onebox and waiting until it serves.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::onebox::plan::{Member, Plan, write_file};
use crate::onebox::process::ProcessHandle;

/// How often a starting process is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How much of a log is shown when its process died.
const LOG_TAIL_LINES: usize = 20;
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// A process that was started and may not serve yet.
pub struct Started {
    member: Member,
    child: Child,
    handle: ProcessHandle,
}

/// Checks that the ports of a process are free, so that the error can say which process needs which port.
pub fn check_ports(member: &Member) -> Result<(), String> {
    for core in 0..member.udp_ports {
        let mut address = member.listen;
        address.set_port(member.listen.port() + core);
        if let Err(error) = UdpSocket::bind(address) {
            return Err(port_error(member, "UDP", &address.to_string(), &error));
        }
        if let Err(error) = TcpListener::bind(address) {
            return Err(port_error(member, "TCP", &address.to_string(), &error));
        }
    }
    match TcpListener::bind(member.admin) {
        Ok(_) => Ok(()),
        Err(error) => Err(port_error(member, "TCP", &member.admin.to_string(), &error)),
    }
}

/// Writes the configuration of a process and starts it, detached from this terminal.
pub fn launch(plan: &Plan, member: &Member, binaries: &Path) -> Result<Started, String> {
    check_ports(member)?;
    let log_directory = member.directory.join("log");
    make_directory(&log_directory)?;
    make_directory(&member.directory.join("data"))?;
    write_file(&member.config_path(), &plan.config_text(member)?)?;
    let program = program_path(binaries, member)?;
    let fail = |path: PathBuf| move |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    let ready = File::create(member.ready_path()).map_err(fail(member.ready_path()))?;
    let log = OpenOptions::new().create(true).append(true).open(member.log_path()).map_err(fail(member.log_path()))?;
    let child = Command::new(&program)
        .arg("--config")
        .arg(member.config_path())
        .current_dir(&member.directory)
        .stdin(Stdio::null())
        .stdout(ready)
        .stderr(log)
        // A group of its own: the keyboard's interrupt is not meant for it.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    write_file(&member.pid_path(), &format!("{}\n", child.id()))?;
    let handle = ProcessHandle::open(child.id() as i32)
        .map_err(|error| format!("cannot open a handle on {} (pid {}): {error}", member.name, child.id()))?;
    Ok(Started { member: member.clone(), child, handle })
}

impl Started {
    /// Waits until the process says that it serves. An error, with the end of its log, if it died or takes longer than
    /// `deadline`.
    pub fn wait_until_ready(&mut self, deadline: Instant) -> Result<(), String> {
        loop {
            if fs::read_to_string(self.member.ready_path()).is_ok_and(|text| is_ready(&text)) {
                return Ok(());
            }
            if self.handle.wait(LOOK_INTERVAL) {
                let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                return Err(self.explain(&format!("ended at once ({status})")));
            }
            if Instant::now() >= deadline {
                return Err(self.explain("runs, but does not serve yet"));
            }
        }
    }

    fn explain(&self, what: &str) -> String {
        let path = self.member.log_path();
        let tail = log_tail(&path).unwrap_or_default();
        let shown = if tail.is_empty() { "(the log is empty)".to_owned() } else { tail };
        format!("{} (pid {}) {what}. The end of {}:\n{shown}", self.member.name, self.handle.pid(), path.display())
    }
}

/// Makes a directory and its parents.
pub fn make_directory(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| format!("cannot make the directory {}: {error}", path.display()))
}

/// The program of a process, next to this program unless told otherwise.
pub fn program_path(binaries: &Path, member: &Member) -> Result<PathBuf, String> {
    let path = binaries.join(member.kind.program());
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("{} is not there; build it, or say where the programs are with --bin-dir", path.display()))
}

/// A whole line `ready ...`: half a line is not yet one.
fn is_ready(text: &str) -> bool {
    text.split_inclusive('\n').any(|line| line.starts_with("ready ") && line.ends_with('\n'))
}

fn port_error(member: &Member, protocol: &str, address: &str, error: &std::io::Error) -> String {
    let name = &member.name;
    if error.kind() == ErrorKind::AddrInUse {
        return format!(
            "{name} needs {protocol} port {address}, which another process uses; stop that one, or move this onebox \
             with --port-offset"
        );
    }
    format!("{name} cannot use {protocol} port {address}: {error}")
}

fn log_tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
    Ok(shown.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onebox::plan::{Kind, Shape};
    use std::os::unix::fs::PermissionsExt;

    fn free_port() -> u16 {
        UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
    }

    fn member(directory: &Path) -> Member {
        let address = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        Member {
            name: "meta1".into(),
            kind: Kind::Meta,
            listen: address(free_port()),
            udp_ports: 1,
            admin: address(free_port()),
            directory: directory.join("meta1"),
        }
    }

    fn fake_program(directory: &Path, script: &str) {
        let path = directory.join("pegasus-meta");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }

    /// A process that ends with the test, however that ends.
    struct Ended(Started);

    impl Drop for Ended {
        fn drop(&mut self) {
            let _killed = self.0.child.kill();
            let _reaped = self.0.child.wait();
        }
    }

    fn start(directory: &Path, script: &str) -> Ended {
        fake_program(directory, script);
        let plan = Plan { directory: directory.to_owned(), shape: Shape::default() };
        loop {
            match launch(&plan, &member(directory), directory) {
                Ok(started) => return Ended(started),
                // Another test forked while the script was open for writing; its copy of the descriptor goes soon.
                Err(error) if error.contains("Text file busy") => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn a_port_in_use_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut member = member(directory.path());
        member.udp_ports = 1;
        let taken = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        member.listen = taken.local_addr().expect("an address");
        let error = check_ports(&member).unwrap_err();
        assert!(error.contains("meta1 needs UDP port") && error.contains("--port-offset"), "{error}");
        let taken = TcpListener::bind("127.0.0.1:0").expect("a socket");
        member.listen.set_port(free_port());
        member.admin = taken.local_addr().expect("an address");
        assert!(check_ports(&member).unwrap_err().contains("TCP port"));
        // Pegasus's own clients are served at the number of the QUIC port.
        (member.listen, member.admin) = (member.admin, member.listen);
        let error = check_ports(&member).unwrap_err();
        assert!(error.contains(&format!("TCP port {}", member.listen)), "{error}");
    }

    #[test]
    fn a_process_that_says_ready_is_ready() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut started = start(directory.path(), "echo ready meta1 127.0.0.1:1; exec sleep 1000");
        started.0.wait_until_ready(soon()).expect("ready");
    }

    #[test]
    fn a_process_that_dies_shows_its_log() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut started = start(directory.path(), "echo the disk is on fire >&2; exit 3");
        let error = started.0.wait_until_ready(soon()).unwrap_err();
        assert!(error.contains("the disk is on fire") && error.contains("3"), "{error}");
    }

    #[test]
    fn a_process_that_takes_too_long_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut started = start(directory.path(), "printf ready; exec sleep 1000");
        let error = started.0.wait_until_ready(Instant::now() + Duration::from_millis(100)).unwrap_err();
        assert!(error.contains("does not serve yet"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = program_path(directory.path(), &member(directory.path())).unwrap_err();
        assert!(error.contains("pegasus-meta") && error.contains("--bin-dir"), "{error}");
    }
}
