//! What comes from outside: clients, the meta service, faults, and the healing of everything at the end.

use pegasus_replication::{Event, RequestToken};
use pegasus_wire::{Advice, Ballot, Configuration, Decree, MutationKind, Status};

use crate::disk::encode_write;
use crate::host::place;
use crate::meta::node_index;
use crate::network::link;
use crate::world::{Happening, Waiting, World};

impl World {
    /// How long a message takes.
    pub(crate) fn latency(&mut self) -> u64 {
        let usual = self.random.range(20, self.options.latency_micros_max);
        if !self.healed && self.random.permille(self.options.slow_messages_permille) {
            return usual * self.random.range(2, 100);
        }
        usual
    }

    /// A client sends a write or a read to whom the meta service names as primary.
    pub(crate) fn on_client(&mut self, client: usize) {
        if !self.busy {
            return;
        }
        let pause = self.random.range(10, self.options.think_micros_max);
        self.schedule(pause, Happening::ClientActs { client });
        let partition = self.random.index(self.options.partitions);
        let key = self.random.index(self.options.keys);
        let Some(primary) = self.meta.configuration(partition).primary else { return };
        let node = node_index(primary);
        if !self.nodes[node].up {
            return;
        }
        if self.random.permille(300) { self.read(node, partition, key) } else { self.write(node, partition, key) }
    }

    fn read(&mut self, node: usize, partition: usize, key: usize) {
        let Some(copy) = &self.nodes[node].copies[partition] else { return };
        let Some(replica) = &copy.replica else { return };
        // Until there are leases, a primary that was moved away by force does not know it yet.
        let newest = replica.ballot() == self.meta.configuration(partition).ballot;
        if replica.admit_read().is_err() || (self.options.moves && !newest) {
            return;
        }
        let (value, decree) = copy.table.rows[key];
        self.statistics.reads += 1;
        let result = self.checkers[partition].on_read(key, value, decree);
        self.check(&place(node, partition), result);
    }

    fn write(&mut self, node: usize, partition: usize, key: usize) {
        let value = self.next_value;
        self.next_value += 1;
        let request = RequestToken(value);
        let floor = self.checkers[partition].floor(key);
        self.waiting.insert(request, Waiting { node, partition, key, value, floor });
        let filler = if self.random.permille(100) { self.random.index(200) } else { 0 };
        let payload = encode_write(key, value, filler);
        // Clocks of hosts differ and jump; stamps must rise all the same.
        let timestamp_micros = 1_000_000 + self.now / 2 + self.random.range(0, 100_000);
        let event = Event::Propose { request, timestamp_micros, kind: MutationKind::Write, payload };
        self.feed(node, partition, event);
    }

    /// A replica answers a write.
    pub(crate) fn on_reply(&mut self, request: RequestToken, outcome: Result<Decree, Status>) {
        let Some(waiting) = self.waiting.remove(&request) else {
            return self.check("client", Err(format!("request {} is answered twice", request.0)));
        };
        let Waiting { node, partition, key, value, floor } = waiting;
        let checker = &mut self.checkers[partition];
        let result = match outcome {
            Ok(decree) => {
                self.statistics.writes += 1;
                self.healed_writes[partition] += u64::from(self.healed);
                checker.on_write(key, value, decree, floor)
            }
            Err(status) => {
                self.statistics.unanswered += 1;
                if status.advice() == Advice::Unknown { Ok(()) } else { checker.on_refused(value) }
            }
        };
        self.check(&place(node, partition), result);
    }

    /// The node's watch at the meta service answers, now or later.
    pub(crate) fn tell_assignment(&mut self, node: usize, partition: usize) {
        let configuration = self.meta.configuration(partition).clone();
        let run = self.nodes[node].run;
        let delay = self.latency() + if self.random.permille(100) { self.random.range(0, 300_000) } else { 0 };
        self.schedule(delay, Happening::Assigned { node, run, partition, configuration });
    }

    /// A proposal arrives at the meta service. The answer may be lost; so may the proposal.
    pub(crate) fn on_proposed(
        &mut self,
        node: usize,
        run: u64,
        partition: usize,
        expected: Ballot,
        configuration: Configuration,
    ) {
        let lossy = !self.healed;
        let lost = !self.meta.up || (lossy && self.random.permille(50));
        if !lost && self.meta.propose(partition, expected, &configuration) {
            self.trace.note(self.now, || format!("meta: p{partition} is now {configuration:?}"));
            self.tell_members(partition);
        }
        let unanswered = lost || (lossy && self.random.permille(50));
        let event = if unanswered {
            Event::ProposalFailed
        } else {
            Event::ProposalDecided { configuration: self.meta.configuration(partition).clone() }
        };
        let delay = self.latency();
        self.schedule(delay, Happening::ToReplica { node, run, partition, event });
    }

    fn tell_members(&mut self, partition: usize) {
        for node in 0..self.options.members {
            self.tell_assignment(node, partition);
            if self.random.permille(100) {
                self.tell_assignment(node, partition);
            }
        }
    }

    /// One thing breaks, and the next one is planned.
    pub(crate) fn on_fault(&mut self) {
        if self.healed {
            return;
        }
        let pause = self.random.range(1_000, self.options.fault_pause_micros_max);
        self.schedule(pause, Happening::Fault);
        match self.random.index(11) {
            0..=2 => {
                let node = self.random.index(self.options.nodes);
                self.crash_and_restart(node);
            }
            3 => (0..self.options.nodes).for_each(|node| self.crash_and_restart(node)),
            4 | 5 => self.break_streams(),
            6 => self.cut_link(),
            7 => {
                self.meta.up = false;
                let delay = self.random.range(1_000, 400_000);
                self.schedule(delay, Happening::MetaReturns);
            }
            8 => self.stall_link(),
            _ => self.move_primary(),
        }
    }

    fn crash_and_restart(&mut self, node: usize) {
        self.crash(node);
        let longest = [2_000, 50_000, 500_000][self.random.index(3)];
        let delay = self.random.range(100, longest);
        self.schedule(delay, Happening::Restart { node });
    }

    fn move_primary(&mut self) {
        if !self.options.moves {
            return;
        }
        let partition = self.random.index(self.options.partitions);
        let choice = self.random.index(8);
        self.meta.force_move(partition, choice);
        let configuration = self.meta.configuration(partition).clone();
        self.trace.note(self.now, || format!("meta: p{partition} is forced to {configuration:?}"));
        self.tell_members(partition);
    }

    fn pick_link(&mut self) -> (usize, usize) {
        let one = self.random.index(self.options.nodes);
        let other = (one + 1 + self.random.index(self.options.nodes - 1)) % self.options.nodes;
        link(one, other)
    }

    /// Every stream over one link breaks once.
    fn break_streams(&mut self) {
        let (one, other) = self.pick_link();
        self.trace.note(self.now, || format!("streams n{}-n{} break", one + 1, other + 1));
        self.cut_streams(one, other);
    }

    /// Nothing passes between two nodes for a while.
    fn cut_link(&mut self) {
        let (one, other) = self.pick_link();
        self.trace.note(self.now, || format!("link n{}-n{} is cut", one + 1, other + 1));
        self.network.cut_links.push((one, other));
        self.cut_streams(one, other);
        let delay = self.random.range(1_000, 500_000);
        self.schedule(delay, Happening::LinkHeals { one, other });
    }

    fn cut_streams(&mut self, one: usize, other: usize) {
        for stream in self.network.over_link(one, other) {
            self.network.streams[stream].cut_at = Some(self.now);
            for end in 0..2 {
                let delay = self.random.range(100, 200_000);
                self.schedule(delay, Happening::EndClosed { stream, end });
            }
        }
    }

    /// What is under way on a stream towards one end takes its time.
    fn hold(&mut self, stream: usize, end: usize) {
        let until = self.now + self.random.range(100, 150_000);
        self.network.streams[stream].ends[end].hold(until);
    }

    /// Packets of one link are late, in both directions.
    fn stall_link(&mut self) {
        let (one, other) = self.pick_link();
        self.trace.note(self.now, || format!("link n{}-n{} stalls", one + 1, other + 1));
        for stream in self.network.over_link(one, other) {
            for end in 0..2 {
                self.hold(stream, end);
            }
        }
    }

    /// The other ends of a dead node's streams notice sooner or later; what was under way still arrives before that,
    /// or does not.
    pub(crate) fn drop_streams_of(&mut self, node: usize) {
        for peer in (0..self.options.nodes).filter(|peer| *peer != node) {
            for stream in self.network.over_link(node, peer) {
                let end = usize::from(self.network.streams[stream].ends[0].node == node);
                self.network.streams[stream].ends[1 - end].closed = true;
                match self.random.index(3) {
                    0 => self.network.streams[stream].cut_at = Some(self.now),
                    1 => self.hold(stream, end),
                    _ => {}
                }
                let delay = self.random.range(50, 200_000);
                self.schedule(delay, Happening::EndClosed { stream, end });
            }
        }
    }

    /// Everything works from now on.
    pub(crate) fn heal(&mut self) {
        self.trace.note(self.now, || "everything is healed".to_owned());
        self.healed = true;
        self.meta.up = true;
        self.network.cut_links.clear();
        for node in 0..self.options.nodes {
            self.restart(node);
        }
    }
}
