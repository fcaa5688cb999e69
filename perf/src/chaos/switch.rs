//! The network between the namespaces: a thread that takes each packet from one TUN device and puts it into another,
//! later or never, as the links say. What the operator does (TCP, the administration ports) is never hurt.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::Serialize;

use crate::chaos::links::{Fate, Links, Place};
use crate::failure::Failure;

/// One end of the network.
#[derive(Debug)]
pub struct Port {
    /// Packets for this address go here.
    pub address: Ipv4Addr,
    /// The device.
    pub tun: File,
}

/// The thread. Dropping it ends it.
#[derive(Debug)]
pub struct Switch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    links: Mutex<Links>,
    stopping: AtomicBool,
    forwarded: AtomicU64,
    lost: AtomicU64,
}

/// What the switch has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Packets passed on.
    pub forwarded: u64,
    /// Packets dropped, by faults or because too many were waiting.
    pub lost: u64,
}

impl Switch {
    /// Starts to forward. The place of a port is its position.
    pub fn start(ports: Vec<Port>, seed: u64) -> Result<Switch, Failure> {
        let shared = Arc::new(Shared {
            links: Mutex::new(Links::new(ports.len())),
            stopping: AtomicBool::new(false),
            forwarded: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let forwarder = Forwarder {
            shared: shared.clone(),
            ports,
            random: SmallRng::seed_from_u64(seed),
            waiting: BinaryHeap::new(),
            number: 0,
        };
        let thread = thread::Builder::new().name("switch".to_owned()).spawn(move || forwarder.run());
        Ok(Switch { shared, thread: Some(thread.map_err(Failure::at("start the switch"))?) })
    }

    /// From now on packets fare like this. Those under way keep their delay.
    pub fn set(&self, links: Links) {
        *self.shared.links.lock().unwrap_or_else(PoisonError::into_inner) = links;
    }

    /// What it has done so far.
    pub fn traffic(&self) -> Traffic {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic { forwarded: count(&self.shared.forwarded), lost: count(&self.shared.lost) }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does nothing that could panic; if it did, there is nothing left to do.
            let _ = thread.join();
        }
    }
}

/// A packet that is delayed. The number keeps packets of one moment in their order.
type Waiting = Reverse<(Instant, u64, Place, Vec<u8>)>;

struct Forwarder {
    shared: Arc<Shared>,
    ports: Vec<Port>,
    random: SmallRng,
    waiting: BinaryHeap<Waiting>,
    number: u64,
}

impl Forwarder {
    fn run(mut self) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        while !self.shared.stopping.load(Ordering::Relaxed) {
            let readable = self.wait();
            for from in readable {
                self.drain(from, &mut buffer);
            }
            self.deliver_due();
        }
    }

    /// Waits until a device has packets or a delayed packet is due; the devices that have some.
    fn wait(&self) -> Vec<Place> {
        let due = self.waiting.peek().map(|Reverse((due, ..))| due.saturating_duration_since(Instant::now()));
        let wait = due.unwrap_or(WAIT_MAX).min(WAIT_MAX);
        let timeout =
            libc::timespec { tv_sec: wait.as_secs() as libc::time_t, tv_nsec: i64::from(wait.subsec_nanos()) };
        let watch = |port: &Port| libc::pollfd { fd: port.tun.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut polls: Vec<libc::pollfd> = self.ports.iter().map(watch).collect();
        // SAFETY: the array and the time live across the call, and the count is that of the array.
        let ready = unsafe { libc::ppoll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, &timeout, std::ptr::null()) };
        if ready <= 0 {
            return Vec::new();
        }
        (0..polls.len()).filter(|&place| polls[place].revents & libc::POLLIN != 0).collect()
    }

    fn drain(&mut self, from: Place, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let Ok(length) = Read::read(&mut &self.ports[from].tun, buffer) else { return };
            let Some(packet) = Packet::parse(&buffer[..length]) else { continue };
            let Some(to) = self.ports.iter().position(|port| port.address == packet.destination) else { continue };
            let fate = if packet.is_tcp {
                Fate::After(0)
            } else {
                // As of now: what is sent after a change must not fare as before it.
                let links = self.shared.links.lock().unwrap_or_else(PoisonError::into_inner);
                links.fate(from, to, &mut self.random)
            };
            match fate {
                Fate::After(0) => self.deliver(to, &buffer[..length]),
                Fate::After(micros) if self.waiting.len() < WAITING_MAX => {
                    let due = Instant::now() + Duration::from_micros(u64::from(micros));
                    self.number += 1;
                    self.waiting.push(Reverse((due, self.number, to, buffer[..length].to_vec())));
                }
                Fate::After(_) | Fate::Lost => self.count_lost(),
            }
        }
    }

    fn deliver_due(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((due, ..))) = self.waiting.peek()
            && *due <= now
        {
            let Some(Reverse((_, _, to, packet))) = self.waiting.pop() else { return };
            self.deliver(to, &packet);
        }
    }

    fn deliver(&self, to: Place, packet: &[u8]) {
        // An error means that its buffers are full, or that the device is down: lost, as on any network.
        match Write::write(&mut &self.ports[to].tun, packet) {
            Ok(_) => {
                self.shared.forwarded.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => self.count_lost(),
        }
    }

    fn count_lost(&self) {
        self.shared.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the switch needs to know of a packet.
struct Packet {
    destination: Ipv4Addr,
    is_tcp: bool,
}

impl Packet {
    /// `None` for anything but IPv4.
    fn parse(packet: &[u8]) -> Option<Packet> {
        let header = packet.get(..IPV4_HEADER_BYTES)?;
        if header[0] >> 4 != 4 {
            return None;
        }
        let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
        Some(Packet { destination, is_tcp: header[9] == libc::IPPROTO_TCP as u8 })
    }
}

const IPV4_HEADER_BYTES: usize = 20;
/// Far above what a device of 1500 bytes gives.
const PACKET_BYTES_MAX: usize = 65_536;
/// Packets taken from one device before the others have their turn.
const BATCH: usize = 64;
/// Delayed packets at most.
const WAITING_MAX: usize = 65_536;
/// How long it may take to notice that the switch is to stop.
const WAIT_MAX: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::chaos::faults::{Fault, Hurt};
    use crate::chaos::namespace::Namespace;

    /// Two namespaces on a switch, with a socket in each.
    struct Pair {
        sockets: [UdpSocket; 2],
        switch: Switch,
        _namespaces: Vec<Namespace>,
    }

    fn pair() -> Option<Pair> {
        let (mut ports, mut namespaces, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
        for last in [1, 2] {
            let address = Ipv4Addr::new(10, 77, 0, last);
            let Ok((namespace, tun)) = Namespace::make(address) else {
                eprintln!("skipped: namespaces are not allowed here");
                return None;
            };
            let bind = || UdpSocket::bind((address, 7000)).map_err(Failure::at("bind"));
            let socket = namespace.within(bind).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            sockets.push(socket);
            namespaces.push(namespace);
            ports.push(Port { address, tun });
        }
        let sockets = sockets.try_into().unwrap();
        Some(Pair { sockets, switch: Switch::start(ports, 1).unwrap(), _namespaces: namespaces })
    }

    impl Pair {
        fn send(&self, from: usize, text: &str) {
            self.sockets[from].send_to(text.as_bytes(), format!("10.77.0.{}:7000", 2 - from)).unwrap();
        }

        fn receive(&self, at: usize) -> String {
            let mut buffer = [0; 2000];
            let (length, _) = self.sockets[at].recv_from(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        }
    }

    #[test]
    fn packets_are_forwarded_cut_one_way_and_delayed() {
        let Some(pair) = pair() else { return };
        pair.send(0, "there");
        pair.send(1, "back");
        assert_eq!((pair.receive(1), pair.receive(0)), ("there".to_owned(), "back".to_owned()));

        let cut = Fault::Cut { hurt: Hurt { from: vec![0], to: vec![1], both_ways: false } };
        pair.switch.set(Links::under(2, std::iter::once(&cut)));
        let lost = pair.switch.traffic().lost;
        pair.send(0, "into the void");
        pair.send(1, "still");
        assert_eq!(pair.receive(0), "still");
        while pair.switch.traffic().lost == lost {
            thread::yield_now();
        }
        pair.switch.set(Links::new(2));
        pair.send(0, "healed");
        assert_eq!(pair.receive(1), "healed");

        let hurt = Hurt { from: vec![0], to: vec![1], both_ways: false };
        let delay = Fault::Delay { hurt, delay_us: 150_000, jitter_us: 0, loss_per_mille: 0 };
        pair.switch.set(Links::under(2, std::iter::once(&delay)));
        let before = Instant::now();
        pair.send(0, "late");
        assert_eq!(pair.receive(1), "late");
        // The switch reads its clock once for a batch of packets.
        assert!(before.elapsed() >= Duration::from_millis(100));
    }

    #[test]
    fn only_ipv4_is_forwarded() {
        assert!(Packet::parse(&[0x45; 19]).is_none());
        assert!(Packet::parse(&[0x60; 40]).is_none());
        let mut packet = [0x45; 20];
        packet[9] = 6;
        assert!(Packet::parse(&packet).unwrap().is_tcp);
        packet[9] = 17;
        assert!(!Packet::parse(&packet).unwrap().is_tcp);
    }
}
