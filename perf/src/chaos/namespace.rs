//! Network namespaces with one TUN device each, without names and without programs: when the last process and the last
//! descriptor of one are gone, so is it.
//!
//! ```text
//!  runner's namespace      node's namespace         this process
//!  clients                 pegasus-replica
//!     |  10.77.0.1            |  10.77.0.11
//!   pegasus0                pegasus0
//!     |                       |
//!     +-- TUN descriptor -----+-- TUN descriptor --> switch (a thread): forwards, delays or drops each packet
//! ```
//!
//! A thread that enters a namespace stays there; nothing else of this process moves.

use std::ffi::c_int;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use crate::failure::Failure;

/// A network namespace, kept alive by this.
#[derive(Debug)]
pub struct Namespace {
    fd: File,
}

impl Namespace {
    /// A new namespace with a device of this address, and the device's other end: packets that are sent in the
    /// namespace are read there, and what is written there arrives.
    pub fn make(address: Ipv4Addr) -> Result<(Namespace, File), Failure> {
        on_a_thread(|| {
            unshare(libc::CLONE_NEWNET).map_err(Failure::at("make a network namespace"))?;
            let namespace = Namespace::of_this_thread()?;
            Ok((namespace, add_device(address)?))
        })
    }

    /// The namespace the calling thread is in.
    pub fn of_this_thread() -> Result<Namespace, Failure> {
        let path = "/proc/thread-self/ns/net";
        Ok(Namespace { fd: File::open(path).map_err(Failure::at(format!("open {path}")))? })
    }

    /// Moves the calling thread into it. Async-signal-safe.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: setns takes a descriptor, which is open, and a number.
        result(unsafe { libc::setns(self.fd.as_raw_fd(), libc::CLONE_NEWNET) })
    }

    /// Another handle on the same namespace.
    pub fn duplicate(&self) -> io::Result<Namespace> {
        Ok(Namespace { fd: self.fd.try_clone()? })
    }

    /// Does some work inside, on a thread of its own.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
        on_a_thread(|| {
            self.enter().map_err(Failure::at("enter a network namespace"))?;
            work()
        })
    }
}

/// Gives the calling thread (and those it starts) namespaces of its own, for network and mounts. Without the right to
/// do so it tries with a user namespace around them, which needs no rights, but works only before any thread was
/// started.
pub fn isolate() -> Result<Isolation, Failure> {
    let wanted = libc::CLONE_NEWNET | libc::CLONE_NEWNS;
    let isolation = match unshare(wanted) {
        Ok(()) => Isolation { may_mount: true },
        Err(refused) => {
            // SAFETY: these two only tell who this process is.
            let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
            unshare(wanted | libc::CLONE_NEWUSER).map_err(|_| {
                Failure::new(format!("namespaces are not allowed here ({refused}); run as root to have them"))
            })?;
            map_identity(user, group)?;
            Isolation { may_mount: false }
        }
    };
    // SAFETY: the paths are C strings that live across the call; no file system type and no data are given.
    let private = unsafe {
        libc::mount(
            c"none".as_ptr(),
            c"/".as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null(),
        )
    };
    result(private).map_err(Failure::at("make the mounts of this process its own"))?;
    raise_loopback().map_err(Failure::at("bring up the loopback device"))?;
    Ok(isolation)
}

/// What a thread that was isolated may do.
#[derive(Clone, Copy, Debug)]
pub struct Isolation {
    /// Block devices may be mounted.
    pub may_mount: bool,
}

/// A TUN device in the calling thread's namespace, up and with its address.
pub fn add_device(address: Ipv4Addr) -> Result<File, Failure> {
    raise_loopback().map_err(Failure::at("bring up the loopback device"))?;
    let path = "/dev/net/tun";
    let open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
    let tun = open.map_err(Failure::at(format!("open {path}")))?;
    let mut request = request(DEVICE);
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    ioctl(&tun, libc::TUNSETIFF, &mut request).map_err(Failure::at("make a TUN device"))?;
    configure(address).map_err(Failure::at(format!("give a TUN device the address {address}")))?;
    Ok(tun)
}

fn configure(address: Ipv4Addr) -> io::Result<()> {
    let socket = control_socket()?;
    let mut address_request = request(DEVICE);
    address_request.ifr_ifru.ifru_addr = socket_address(address);
    ioctl(&socket, libc::SIOCSIFADDR, &mut address_request)?;
    let mut mask = request(DEVICE);
    mask.ifr_ifru.ifru_netmask = socket_address(Ipv4Addr::new(255, 255, 255, 0));
    ioctl(&socket, libc::SIOCSIFNETMASK, &mut mask)?;
    let mut queue = request(DEVICE);
    queue.ifr_ifru.ifru_metric = QUEUE_PACKETS;
    ioctl(&socket, libc::SIOCSIFTXQLEN, &mut queue)?;
    raise(&socket, DEVICE)
}

fn raise_loopback() -> io::Result<()> {
    raise(&control_socket()?, "lo")
}

fn raise(socket: &OwnedFd, device: &str) -> io::Result<()> {
    let mut flags = request(device);
    flags.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    ioctl(socket, libc::SIOCSIFFLAGS, &mut flags)
}

/// Root inside is whoever started this outside.
fn map_identity(user: u32, group: u32) -> Result<(), Failure> {
    for (file, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ] {
        fs::write(file, text).map_err(Failure::at(format!("write {file}")))?;
    }
    Ok(())
}

fn unshare(what: c_int) -> io::Result<()> {
    // SAFETY: unshare takes a number.
    result(unsafe { libc::unshare(what) })
}

fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: socket takes three numbers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    result(fd.min(0))?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A request about a device, all zero but for the name.
fn request(device: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain numbers and bytes, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    assert!(device.len() < request.ifr_name.len(), "the names of devices are short");
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

fn ioctl(of: &impl AsRawFd, what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: all requests made here take a pointer to an ifreq, which lives across the call.
    result(unsafe { libc::ioctl(of.as_raw_fd(), what, std::ptr::from_mut(request)) })
}

fn result(code: c_int) -> io::Result<()> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, work);
        let thread = thread.map_err(Failure::at("start a thread"))?;
        thread.join().map_err(|_| Failure::new("a thread in a namespace panicked"))?
    })
}

/// The device's name, the same in every namespace.
const DEVICE: &str = "pegasus0";
/// Packets that wait in a device for the switch; beyond it they are lost, as on any network.
const QUEUE_PACKETS: c_int = 5000;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn packets_leave_a_namespace_and_arrive_in_it() {
        // Where that is not allowed, the commands go on without (and say so), and there is nothing to test.
        let Ok((namespace, tun)) = Namespace::make(Ipv4Addr::new(10, 77, 0, 11)) else {
            eprintln!("skipped: namespaces are not allowed here");
            return;
        };
        let send = || {
            let socket = UdpSocket::bind("10.77.0.11:5000").map_err(Failure::at("bind"))?;
            socket.send_to(b"hello", "10.77.0.12:6000").map_err(Failure::at("send"))?;
            Ok(socket)
        };
        let socket = namespace.within(send).unwrap();
        let mut packet = [0; 2000];
        let length = loop {
            let length = io::Read::read(&mut &tun, &mut packet).unwrap();
            // The kernel says hello over IPv6 as well.
            if packet[0] >> 4 == 4 {
                break length;
            }
        };
        assert_eq!(&packet[16..20], &[10, 77, 0, 12]);
        assert_eq!(&packet[length - 5..length], b"hello");
        // Sent back with the addresses exchanged; the checksums stay right.
        for (from, to, bytes) in [(12, 16, 4), (20, 22, 2)] {
            for byte in 0..bytes {
                packet.swap(from + byte, to + byte);
            }
        }
        io::Write::write(&mut &tun, &packet[..length]).unwrap();
        let mut answer = [0; 10];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..length], from.to_string().as_str()), (&b"hello"[..], "10.77.0.12:6000"));
        // Outside there is no such address.
        assert!(UdpSocket::bind("10.77.0.11:5000").is_err());
    }
}
