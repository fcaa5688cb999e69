//! What a node does when it cannot start: it says what is wrong and what to change, ends as a failure, and never
//! panics. What the disk has to do with it is in `full_disk.rs`.
//!
//! Another user's process needs the rights of root. Without them the test prints that it was skipped.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use pegasus_rpc::Role;
use support::{Process, Scene, contains_all, node_command, replica_program, set_directory};

/// First scene number of this program.
const SCENES: u16 = 40;

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
