//! What a node does when it cannot start, or when its disk is full: it says what is wrong and what to change, ends
//! as a failure, never panics, and loses nothing.
//!
//! Some conditions need the rights of root (other users, private mounts). Without them the test prints that it was
//! skipped.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{self, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pegasus_rpc::Role;
use pegasus_wire::messages::data::{RowOperation, Write};
use pegasus_wire::{FrameBuilder, MessageKind, PartitionId, Status};
use support::{Caller, PATIENCE, Process, Scene, node_command, reason, replica_program};

/// First scene number of this program.
const SCENES: u16 = 40;

fn contains_all(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

#[test]
fn a_port_in_use() {
    let scene = Scene::new(SCENES);
    let address = scene.node_address().to_string();
    let taken = UdpSocket::bind(scene.node_address()).unwrap();
    let error = scene.failed_start(node_command(&scene.node_config("udp", |_| ())));
    contains_all(&error, &["core 0 cannot listen", &address, "in use"]);
    drop(taken);
    // The port of the second core: the first has started by then.
    let taken = UdpSocket::bind(scene.address(5)).unwrap();
    let two_cores = |table: &mut toml::Table| drop(table.insert("cores".to_owned(), 2.into()));
    let error = scene.failed_start(node_command(&scene.node_config("second", two_cores)));
    contains_all(&error, &["core 1 cannot listen", &scene.address(5).to_string(), "in use"]);
    drop(taken);
    let taken = TcpListener::bind(scene.admin_address()).unwrap();
    let error = scene.failed_start(node_command(&scene.node_config("tcp", two_cores)));
    contains_all(&error, &["administration address", &scene.admin_address().to_string(), "in use"]);
    drop(taken);
    // Nothing of it is left behind.
    scene.start_node(&scene.node_config("well", |_| ())).stop();
}

#[test]
fn a_data_directory_that_cannot_be_used() {
    let scene = Scene::new(SCENES + 1);
    // Below a file, which not even root can write to.
    fs::write(scene.path("file"), "").unwrap();
    let below_file = scene.path("file").join("data");
    let error =
        scene.failed_start(node_command(&scene.node_config("below", |table| set_directory(table, &below_file))));
    contains_all(&error, &["cannot create the directory", below_file.to_str().unwrap()]);

    // Another process has it.
    let config = scene.node_config("holder", |_| ());
    let holder = scene.start_node(&config);
    let error = scene.failed_start(node_command(&scene.node_config("second", |table| {
        for (key, port) in [("listen", 8), ("admin_listen", 9)] {
            table.insert(key.to_owned(), scene.address(port).to_string().into());
        }
    })));
    contains_all(&error, &["in use by another process", &format!("process {}", holder.id()), "serves one process"]);
    holder.stop();

    // What it holds is not what was written.
    for (name, word) in [("node", "damaged"), ("layout", "damaged")] {
        let path = scene.path("data").join(name);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = scene.failed_start(node_command(&config));
        contains_all(&error, &[path.to_str().unwrap(), word]);
        fs::write(&path, whole).unwrap();
    }
    scene.start_node(&config).stop();
}

fn set_directory(table: &mut toml::Table, directory: &Path) {
    table.insert("data_directory".to_owned(), directory.to_str().unwrap().into());
}

#[test]
fn a_configuration_that_is_wrong() {
    let scene = Scene::new(SCENES + 2);
    let absent = scene.path("absent.toml");
    contains_all(&scene.failed_start(node_command(&absent)), &["cannot read", absent.to_str().unwrap()]);
    let cases: [(&str, toml::Value, &[&str]); 9] = [
        ("log_levle", "info".into(), &["unknown field", "log_levle"]),
        ("log_level", "a=b=c".into(), &["log_level"]),
        ("cores", 100_000.into(), &["cores"]),
        ("cores", 600.into(), &["cores", "512"]),
        ("listen", "127.0.0.1".into(), &["listen", "socket address"]),
        ("meta_servers", toml::Value::Array(Vec::new()), &["meta_servers", "at least one"]),
        ("log.budget_bytes", (16 << 20).into(), &["log.budget_bytes", "at least 5 segments"]),
        ("log.segment_bytes", 5_000_000.into(), &["log.segment_bytes", "multiple of 1 MiB"]),
        ("storage.write_buffer_bytes", 1000.into(), &["storage.write_buffer_bytes", "at least"]),
    ];
    for (key, value, words) in cases {
        let config = scene.node_config("wrong", |table| match key.split_once('.') {
            Some((section, key)) => drop(table[section].as_table_mut().unwrap().insert(key.to_owned(), value)),
            None => drop(table.insert(key.to_owned(), value)),
        });
        let mut node = Process::start(node_command(&config), scene.path("wrong.log"));
        let status = node.wait_for_end();
        let log = node.log();
        assert_eq!(status.code(), Some(1), "{key}: {log}");
        contains_all(&log, words);
        contains_all(&log, &["pegasus-replica: "]);
        fs::remove_file(scene.path("wrong.log")).unwrap();
    }
    assert!(!scene.path("data").exists(), "a wrong configuration has touched the data directory");
}

#[test]
fn a_certificate_that_is_missing_or_for_something_else() {
    let scene = Scene::new(SCENES + 3);
    let with = |key: &str, path: &Path| {
        let path = path.to_str().unwrap();
        scene.node_config("tls", |table| drop(table["tls"].as_table_mut().unwrap().insert(key.to_owned(), path.into())))
    };
    let absent = scene.path("absent.pem");
    for key in ["certificate", "key", "ca"] {
        let error = scene.failed_start(node_command(&with(key, &absent)));
        contains_all(&error, &["tls", "cannot read", absent.to_str().unwrap()]);
    }
    let garbage = scene.path("garbage.pem");
    fs::write(&garbage, "no certificate").unwrap();
    contains_all(&scene.failed_start(node_command(&with("certificate", &garbage))), &[garbage.to_str().unwrap()]);
    let tls = scene.path("tls");
    let swapped = scene.failed_start(node_command(&with("key", &tls.join("client.key"))));
    contains_all(&swapped, &["client.key", "does not fit"]);
    // Of another authority.
    let other = Scene::new(SCENES + 3);
    let untrusted = scene.failed_start(node_command(&with("ca", &other.path("tls").join("ca.crt"))));
    contains_all(&untrusted, &["not signed by the CA"]);
    // Of another role: it would start, and no peer would ever talk to it.
    for role in [Role::Client, Role::Meta] {
        let config = scene.node_config("role", |table| {
            let section = table["tls"].as_table_mut().unwrap();
            for (key, ending) in [("certificate", "crt"), ("key", "key")] {
                let path = tls.join(format!("{role}.{ending}"));
                section.insert(key.to_owned(), path.to_str().unwrap().into());
            }
        });
        let error = scene.failed_start(node_command(&config));
        contains_all(&error, &["tls.certificate", &format!("has the role {role}"), "the role replica"]);
    }
}

/// True for root; else says that a part is skipped.
fn is_root(what: &str) -> bool {
    // SAFETY: the call takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("skipped, it needs root: {what}");
    }
    root
}

#[test]
fn locked_memory_that_is_too_low() {
    // Root may lock as much as it likes.
    if !is_root("locked memory as another user") {
        return;
    }
    const NOBODY: u32 = 65534;
    let scene = Scene::new(SCENES + 4);
    // That user must get at the program, the configuration, the certificates and the data.
    let program = scene.path("pegasus-replica");
    fs::copy(replica_program(), &program).unwrap();
    let config = scene.node_config("nobody", |_| ());
    fs::create_dir(scene.path("data")).unwrap();
    fs::set_permissions(scene.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    let certificates = fs::read_dir(scene.path("tls")).unwrap().map(|entry| entry.unwrap().path());
    for path in certificates.chain([scene.path("data"), config.clone(), program.clone()]) {
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    for bytes in ["0", "65536"] {
        let mut command = Command::new("prlimit");
        command.arg(format!("--memlock={bytes}")).arg("setpriv");
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
        command.arg(&program).arg("--config").arg(&config);
        let error = scene.failed_start(command);
        contains_all(&error, &["cannot start its io_uring executor", "ulimit -l", "512 KiB"]);
    }
}

/// Makes `io_uring_setup` fail in this process and what it runs, as `kernel.io_uring_disabled` does.
fn forbid_io_uring() -> io::Result<()> {
    let instruction = |code: u32, jump_if_not: u8, value: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_if_not,
        k: value,
    };
    // The number of the system call is the first word of what a filter sees.
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_io_uring_setup as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls only read what they are given; the filter lives over the call.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn io_uring_that_is_disabled() {
    let scene = Scene::new(SCENES + 5);
    let mut command = node_command(&scene.node_config("node", |_| ()));
    // SAFETY: what runs between fork and exec makes two system calls and allocates nothing.
    unsafe { command.pre_exec(forbid_io_uring) };
    let error = scene.failed_start(command);
    contains_all(&error, &["cannot start its io_uring executors", "kernel.io_uring_disabled"]);
}

/// A mount namespace with a small file system of its own, alive as long as this is.
struct SmallDisk {
    holder: Child,
    directory: PathBuf,
}

impl SmallDisk {
    /// Mounts `directory` in a new namespace; `None`, and says so, where that is not allowed.
    fn mount(directory: PathBuf, options: &str) -> Option<SmallDisk> {
        fs::create_dir_all(&directory).unwrap();
        let script = format!("mount -t tmpfs -o {options} tmpfs {} && echo mounted && exec cat", directory.display());
        let mut command = Command::new("unshare");
        // cat ends when the pipe to it closes, so nothing outlives the test.
        command.args(["--mount", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = match command.spawn() {
            Ok(holder) => holder,
            Err(error) => {
                eprintln!("skipped, unshare does not run: {error}");
                return None;
            }
        };
        let mut said = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(holder.stdout.as_mut().unwrap()), &mut said).unwrap();
        let disk = SmallDisk { holder, directory };
        if said != "mounted\n" {
            eprintln!("skipped, a private mount is not allowed here");
            return None;
        }
        Some(disk)
    }

    /// A node that runs in the namespace.
    fn node(&self, config: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg(replica_program());
        command.arg("--config").arg(config);
        command
    }

    /// The directory as it is seen from outside of the namespace.
    fn outside(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.directory.strip_prefix("/").unwrap()).join(name)
    }

    /// Takes all the room there is, but for `leave` bytes.
    fn fill(&self, leave: u64) {
        let mut file = fs::File::create(self.outside("filler")).unwrap();
        let block = vec![0xAA; 64 * 1024];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&block[..4096]).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(leave)).unwrap();
    }

    fn give_back(&self) {
        fs::remove_file(self.outside("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn a_read_only_file_system() {
    let scene = Scene::new(SCENES + 6);
    let Some(disk) = SmallDisk::mount(scene.path("disk"), "ro,size=16m") else { return };
    let config = scene.node_config("node", |table| set_directory(table, &disk.directory));
    let error = scene.failed_start(disk.node(&config));
    contains_all(&error, &[disk.directory.to_str().unwrap(), "Read-only file system"]);
}

#[test]
fn a_file_system_too_small_to_start_on() {
    let scene = Scene::new(SCENES + 7);
    for size in ["16k", "1m", "6m"] {
        let Some(disk) = SmallDisk::mount(scene.path(size), &format!("size={size}")) else { return };
        let config = scene.node_config("node", |table| set_directory(table, &disk.directory.join("data")));
        let error = scene.failed_start(disk.node(&config));
        assert!(error.contains("is full") || error.contains("No space left"), "{error}");
        contains_all(&error, &[disk.directory.to_str().unwrap()]);
    }
}

/// Writes numbered rows with pauses until one is refused; gives the number of those acknowledged, and the refusal.
async fn write_until_refused(
    caller: &Caller,
    partition: PartitionId,
    from: u32,
    pause: Duration,
) -> (u32, Status, String) {
    let deadline = Instant::now() + PATIENCE;
    for number in from.. {
        let set = caller.set(partition, &number.to_be_bytes(), &value_of(number)).await;
        match set.header.status {
            Status::Ok => assert!(Instant::now() < deadline, "{number} rows are written and none was refused"),
            Status::Busy => panic!("row {number}: {}", reason(&set)),
            status => return (number, status, reason(&set)),
        }
        tokio::time::sleep(pause).await;
    }
    unreachable!("the loop ends with a refusal")
}

fn value_of(number: u32) -> Vec<u8> {
    let mut state = u64::from(number) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..20_000).map(|_| next()).collect()
}

async fn expect_rows(caller: &Caller, partition: PartitionId, count: u32) {
    for number in 0..count {
        let got = caller.get(partition, &number.to_be_bytes(), b"s").await;
        assert_eq!(got.header.status, Status::Ok, "row {number}: {}", reason(&got));
        assert_eq!(&got.attachment[..], value_of(number), "row {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_log_takes_any_number_of_writes() {
    let scene = Scene::new(SCENES + 10);
    let _meta = scene.start_meta();
    let node = scene.start_node(&scene.node_config("node", |_| ()));
    let partition = PartitionId::new(scene.make_table(1).await.table.table.0, 0);
    let caller = scene.caller().await;
    // Twice what it holds. While a table is flushed to make room, writes are told to come again.
    let count = 2 * (20 << 20) / 20_000;
    for number in 0..count {
        let key = u32::to_be_bytes(number);
        let value = value_of(number);
        let operations = [RowOperation::Put { sort_key: b"s", value: &value, expiry_seconds: 0 }];
        let write = Write { partition, hash_key: &key, operations: &operations };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &write, &[]);
        let set = caller.call_until_not(MessageKind::WRITE, &[Status::Busy], build).await;
        assert_eq!(set.header.status, Status::Ok, "row {number}: {}", reason(&set));
    }
    node.kill();
    let node = scene.start_node(&scene.node_config("node", |_| ()));
    scene.make_table(1).await;
    expect_rows(&scene.caller().await, partition, count).await;
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_disk_reserve_writes_are_refused_and_reads_are_not() {
    let scene = Scene::new(SCENES + 8);
    let Some(disk) = SmallDisk::mount(scene.path("disk"), "size=96m") else { return };
    let config = scene.node_config("node", |table| {
        set_directory(table, &disk.directory.join("data"));
        set_storage(table, &[("disk_reserve_bytes", 16 << 20)]);
    });
    let _meta = scene.start_meta();
    let node = Process::start(disk.node(&config), scene.path("node.log"));
    node.wait_until_ready();
    let partition = PartitionId::new(scene.make_table(1).await.table.table.0, 0);
    let caller = scene.caller().await;
    for number in 0..20 {
        assert_eq!(caller.set(partition, &u32::to_be_bytes(number), &value_of(number)).await.header.status, Status::Ok);
    }
    disk.fill(8 << 20);
    // The node looks from time to time.
    let (written, status, reason) = write_until_refused(&caller, partition, 20, Duration::from_millis(20)).await;
    assert_eq!(status, Status::StorageFailed, "{reason}");
    contains_all(&reason, &["disk", "reserve"]);
    expect_rows(&caller, partition, written).await;
    let (health, text) = scene.admin("/health");
    assert_eq!(health, 503);
    contains_all(&text, &["disk", "reserve"]);
    disk.give_back();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let set = caller.set(partition, &written.to_be_bytes(), &value_of(written)).await;
        if set.header.status == Status::Ok {
            break;
        }
        assert!(Instant::now() < deadline, "writes are still refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    expect_rows(&caller, partition, written + 1).await;
    assert!(!node.log().contains("panick"), "{}", node.log());
    node.stop();
}

fn set_storage(table: &mut toml::Table, values: &[(&str, i64)]) {
    let section = table["storage"].as_table_mut().unwrap();
    for (key, value) in values {
        section.insert((*key).to_owned(), (*value).into());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let scene = Scene::new(SCENES + 9);
    let Some(disk) = SmallDisk::mount(scene.path("disk"), "size=64m") else { return };
    // Without a reserve the disk really runs full, in flushes and compactions that the log asks for.
    let config = scene.node_config("node", |table| {
        set_directory(table, &disk.directory.join("data"));
        set_storage(table, &[("disk_reserve_bytes", 0), ("write_buffer_bytes", 4 << 20)]);
    });
    let start = || {
        let node = Process::start(disk.node(&config), scene.path("node.log"));
        node.wait_until_ready();
        node
    };
    let _meta = scene.start_meta();
    let node = start();
    let partition = PartitionId::new(scene.make_table(1).await.table.table.0, 0);
    let caller = scene.caller().await;
    let mut written = 0u32;
    while written < 100 {
        assert_eq!(caller.set(partition, &written.to_be_bytes(), &value_of(written)).await.header.status, Status::Ok);
        written += 1;
    }
    disk.fill(0);
    let (written, status, said) = write_until_refused(&caller, partition, written, Duration::ZERO).await;
    // The write that met the full disk may have been logged already. Those after it are refused, and say why.
    assert!(matches!(status, Status::StorageFailed | Status::OutcomeUnknown), "{status:?}: {said}");
    let refused = caller.set(partition, &written.to_be_bytes(), b"other").await;
    assert_eq!(refused.header.status, Status::StorageFailed, "{}", reason(&refused));
    contains_all(&reason(&refused), &["No space left on device"]);
    let (health, text) = scene.admin("/health");
    assert_eq!(health, 503);
    contains_all(&text, &["No space left on device"]);
    assert!(!node.log().contains("panick"), "{}", node.log());
    node.kill();

    // It may not come up while the disk is full; if it does not, it says why.
    let mut node = Process::start(disk.node(&config), scene.path("full.log"));
    let full = node.wait_until_ready_or_ended();
    assert!(!node.log().contains("panick"), "{}", node.log());
    if let Some(status) = full {
        assert_eq!(status.code(), Some(1), "{}", node.log());
        let log = node.log();
        let last = log.lines().last().unwrap();
        assert!(last.contains("No space left") || last.contains("is full"), "{last}");
    }
    node.kill();

    disk.give_back();
    let node = start();
    let caller = scene.caller().await;
    scene.make_table(1).await;
    expect_rows(&caller, partition, written).await;
    let more = caller.set(partition, &written.to_be_bytes(), &value_of(written)).await;
    assert_eq!(more.header.status, Status::Ok, "{}", reason(&more));
    node.stop();
}
