//! A small cluster for scripts: real replicas of one partition, hosts whose every completion waits in one list until
//! the script lets it happen, a clock that stands still until the script lets time pass, and a meta service that
//! follows the rules. What happens is written down line by line.
//!
//! This file reads scripts. What hosts do is in `host.rs`, streams and beacons are in `network.rs`, the meta service is
//! in `meta.rs`.

mod host;
mod meta;
mod network;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use bytes::Bytes;
use pegasus_replication::{Event, Moment, ReplicaLimits, RequestToken};
use pegasus_wire::{Ballot, Decree, MutationKind, NodeId};

use host::{Node, Task};
use meta::Meta;
use network::Stream;

/// Time between two ticks, and between two beacons, in microseconds.
const TICK_MICROS: u64 = 100_000;
const TICKS_PER_BEACON: u64 = 5;

/// The cluster.
pub(crate) struct Cluster {
    nodes: BTreeMap<u64, Node>,
    meta: Meta,
    streams: Vec<Stream>,
    tasks: VecDeque<Task>,
    held: BTreeSet<String>,
    limits: ReplicaLimits,
    now: Moment,
    requests: u64,
    /// While time passes, only what has effects is written down.
    quiet: bool,
    /// The last moment that was written down while time passed.
    written_at: Moment,
    transcript: String,
}

impl Cluster {
    /// Nobody there yet.
    pub(crate) fn new() -> Cluster {
        Cluster {
            nodes: BTreeMap::new(),
            meta: Meta::default(),
            streams: Vec::new(),
            tasks: VecDeque::new(),
            held: BTreeSet::new(),
            limits: ReplicaLimits::default(),
            now: Moment(10_000_000),
            requests: 0,
            quiet: false,
            written_at: Moment(0),
            transcript: String::new(),
        }
    }

    /// Runs a script and gives its transcript.
    pub(crate) fn play(mut self, script: &str) -> String {
        for line in script.lines() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                let _ = writeln!(self.transcript, "{line}");
                continue;
            }
            let _ = writeln!(self.transcript, "> {line}");
            let words: Vec<&str> = line.split_whitespace().collect();
            if !self.command(&words) && !self.fault(&words) {
                panic!("no such command: {line}");
            }
        }
        self.transcript
    }

    /// The usual course of things. False if it is no such command.
    fn command(&mut self, words: &[&str]) -> bool {
        match words {
            ["limits", "window", mutations, "flight", bytes] => {
                self.limits.window_mutations_max = mutations.parse().unwrap();
                self.limits.flight_bytes_max = bytes.parse().unwrap();
            }
            ["create", count] => self.create(number(count)),
            ["found", count] => self.found(number(count)),
            ["spare", node] => self.add_spare(node_number(node)),
            ["assign", node] => self.assign(node_number(node)),
            ["assign", node, "ballot", ballot] => {
                let mut configuration = self.meta.configuration.clone();
                configuration.ballot = Ballot(number(ballot));
                self.feed(node_number(node), Event::Assigned(configuration));
            }
            ["add", node] => self.ask_for_addition(node_number(node)),
            ["handover", node] => self.feed(node_number(node), Event::HandOver),
            ["write", node, payload] => self.write(node_number(node), payload),
            ["read", node] => self.read(node_number(node)),
            ["run"] => self.run(),
            ["tick", node] => self.feed(node_number(node), Event::Tick),
            ["wait", millis] => self.now = self.now.after(number(millis) * 1000),
            ["pass", millis] => self.pass(number(millis)),
            ["beacons", node] => self.send_beacons(node_number(node)),
            ["start", node] => self.start(node_number(node)),
            ["shutdown", node] => self.feed(node_number(node), Event::Shutdown),
            ["show"] => self.show(),
            _ => return false,
        }
        true
    }

    /// What goes wrong. False if it is no such command.
    fn fault(&mut self, words: &[&str]) -> bool {
        match words {
            ["hold", rest @ ..] => drop(self.held.insert(rest.join(" "))),
            ["release", rest @ ..] => assert!(self.held.remove(&rest.join(" ")), "it is not held"),
            ["drop", rest @ ..] => self.drop_held(&rest.join(" ")),
            ["break", one, other] => self.break_streams(node_number(one), node_number(other)),
            ["cut", one, other] => self.cut(node_number(one), node_number(other)),
            ["heal", one, other] => self.heal(node_number(one), node_number(other)),
            ["crash", node] => self.crash(node_number(node)),
            ["reboot", node] => self.reboot(node_number(node)),
            ["damage", node] => self.damage(node_number(node)),
            ["lose", node, "from", decree] => self.lose(node_number(node), Decree(number(decree))),
            ["collect", node, "through", decree] => self.collect(node_number(node), Decree(number(decree))),
            ["unanswered", node] => self.unanswered(node_number(node)),
            ["answer-lost", node] => self.lose_answer(node_number(node)),
            ["force", node] => self.meta.force(NodeId(node_number(node))),
            ["prepare", member, decree, "ballot", ballot] => {
                self.forge_prepare(node_number(member), Decree(number(decree)), Ballot(number(ballot)));
            }
            _ => return false,
        }
        true
    }

    /// A partition that serves, without the story of how it came to be.
    fn found(&mut self, count: u64) {
        let before = self.transcript.len();
        self.create(count);
        for number in 1..=count {
            self.assign(number);
        }
        self.run();
        self.transcript.truncate(before);
        self.show();
    }

    fn assign(&mut self, number: u64) {
        self.feed(number, Event::Assigned(self.meta.configuration.clone()));
    }

    /// What the guardian asks the primary for.
    fn ask_for_addition(&mut self, number: u64) {
        let (ballot, node) = (self.meta.configuration.ballot, NodeId(number));
        let primary = self.meta.configuration.primary.expect("a primary");
        self.feed(primary.0, Event::AddMember { ballot, node });
    }

    fn write(&mut self, number: u64, payload: &str) {
        self.requests += 1;
        let event = Event::Propose {
            request: RequestToken(self.requests),
            timestamp_micros: 1000 * self.requests,
            kind: MutationKind::Write,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        };
        self.feed(number, event);
    }

    /// Asks whether a read would be answered.
    fn read(&mut self, number: u64) {
        let now = self.now;
        let text = match &self.node(number).replica {
            Some(replica) => match replica.admit_read(now) {
                Ok(()) => format!("reads with {} applied", replica.applied()),
                Err(status) => format!("{status:?}"),
            },
            None => "down".to_owned(),
        };
        let _ = writeln!(self.transcript, "  n{number}: {text}");
    }

    /// Time passes as it does: ticks, beacons, and everything that is not held happens at once.
    fn pass(&mut self, millis: u64) {
        self.quiet = true;
        for ticks in 1..=millis * 1000 / TICK_MICROS {
            self.now = self.now.after(TICK_MICROS);
            let running: Vec<u64> = self.running().collect();
            for number in running {
                if ticks % TICKS_PER_BEACON == 0 {
                    self.send_beacons(number);
                }
                self.feed(number, Event::Tick);
            }
            self.run();
        }
        self.quiet = false;
    }

    fn running(&self) -> impl Iterator<Item = u64> + '_ {
        self.nodes.iter().filter(|(_, node)| node.replica.is_some()).map(|(number, _)| *number)
    }

    /// Lets everything happen that is not held, oldest first, until nothing is left.
    fn run(&mut self) {
        while let Some(index) = self.tasks.iter().position(|task| !self.held.contains(&self.category(task))) {
            let task = self.tasks.remove(index).expect("the index was just found");
            self.complete(task);
        }
    }

    /// What is held will never happen.
    fn drop_held(&mut self, category: &str) {
        let tasks = std::mem::take(&mut self.tasks);
        self.tasks = tasks.into_iter().filter(|task| self.category(task) != category).collect();
    }

    fn feed(&mut self, number: u64, event: Event) {
        let line = format!("  n{number} <- {event}");
        let now = self.now;
        let mut effects = Vec::new();
        let Some(replica) = &mut self.node(number).replica else { return };
        replica.handle(now, event, &mut effects);
        if !self.quiet || !effects.is_empty() {
            self.write_line(&line);
        }
        for effect in effects {
            let _ = writeln!(self.transcript, "       {effect}");
            self.perform(number, effect);
        }
    }

    fn write_line(&mut self, line: &str) {
        if self.quiet && self.written_at != self.now {
            self.written_at = self.now;
            let _ = writeln!(self.transcript, "  at {}.{} s", self.now.0 / 1_000_000, self.now.0 / 100_000 % 10);
        }
        let _ = writeln!(self.transcript, "{line}");
    }

    fn show(&mut self) {
        for (number, node) in &self.nodes {
            let text = match &node.replica {
                Some(replica) => replica.describe().to_string(),
                None => "down".to_owned(),
            };
            let _ = writeln!(self.transcript, "  n{number} {text}");
        }
    }

    fn node(&mut self, number: u64) -> &mut Node {
        self.nodes.get_mut(&number).expect("a node of the script")
    }
}

fn node_number(word: &str) -> u64 {
    word.trim_start_matches('n').parse().expect("a node is written n1, n2, ..")
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}
