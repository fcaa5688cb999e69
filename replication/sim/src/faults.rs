//! What breaks, and the healing of everything at the end. Faults are placed so that the cluster ought to survive them:
//! data is destroyed only where another member has it.

use pegasus_replication::{Event, Role};
use pegasus_wire::NodeId;
use pegasus_wire::messages::control::ReplicaState;

use crate::node::draw_rate;
use crate::options::{Fault, Lasting};
use crate::world::{Happening, Recovery, World};

impl World {
    /// One thing breaks, and the next one is planned.
    pub(crate) fn on_fault(&mut self) {
        if self.healed {
            return;
        }
        let least = self.options.fault_pause_micros_max / 20;
        let pause = self.random.range(least, self.options.fault_pause_micros_max);
        self.schedule(pause, Happening::Fault);
        let fault = self.options.faults[self.random.index(self.options.faults.len())];
        let node = self.random.index(self.nodes.len());
        match fault {
            Fault::Damage | Fault::LostCopy => return self.destroy_copy(node, fault),
            Fault::Wipe => return self.wipe(node),
            Fault::FailedSync => return self.fail_sync_of(node),
            Fault::Force => return self.force_to(node),
            _ => self.count(fault),
        }
        match fault {
            Fault::Crash => self.crash_and_start(node),
            Fault::CrashAll => (0..self.nodes.len()).for_each(|node| self.crash_and_start(node)),
            Fault::PowerLoss => self.lose_power_and_start(node),
            Fault::PowerLossAll => {
                // Who is last has to keep what nobody else has.
                let first = self.random.index(self.nodes.len());
                let count = self.nodes.len();
                (first..first + count).for_each(|node| self.lose_power_and_start(node % count));
            }
            Fault::Freeze => {
                let micros = self.outage();
                self.freeze(node, micros);
            }
            Fault::Slow => {
                self.trace.note(self.now, || format!("n{} is slow", node + 1));
                self.nodes[node].slowness = self.random.range(2, 30);
                let micros = self.outage();
                self.recover_after(micros, Recovery::Speed { node });
            }
            Fault::Stop => self.stop(node),
            Fault::ClockTurns => {
                let rate = draw_rate(&self.options, &mut self.random);
                self.nodes[node].clock.turn(self.now, rate);
            }
            Fault::HandOver => self.hand_over(node),
            Fault::MetaDown => {
                self.trace.note(self.now, || "meta is down".to_owned());
                self.meta.up = false;
                let micros = self.outage();
                self.recover_after(micros, Recovery::Meta);
            }
            Fault::MetaUnreachable => {
                self.nodes[node].meta_cut = true;
                let micros = self.outage();
                self.recover_after(micros, Recovery::WayToMeta { node });
            }
            _ => self.break_network(fault, node),
        }
    }

    /// How long something lasts: often about as long as a lease, sometimes much longer.
    fn outage(&mut self) -> u64 {
        let longest = self.options.outage_micros_max[self.random.index(3)];
        self.random.range(longest / 20, longest.max(1))
    }

    pub(crate) fn crash_and_start(&mut self, node: usize) {
        self.crash(node);
        let delay = self.outage();
        self.recover_after(delay, Recovery::Node { node });
    }

    fn lose_power_and_start(&mut self, node: usize) {
        self.lose_power(node);
        let delay = self.outage();
        self.recover_after(delay, Recovery::Node { node });
    }

    /// The process dies; when it comes back, one of its copies is damaged or gone.
    fn destroy_copy(&mut self, node: usize, fault: Fault) {
        let held = (0..self.options.partitions).filter(|partition| self.nodes[node].copies[*partition].is_some());
        let held: Vec<usize> = held.filter(|partition| self.can_lose(node, *partition)).collect();
        if held.is_empty() {
            return;
        }
        self.count(fault);
        let partition = held[self.random.index(held.len())];
        self.trace.note(self.now, || format!("n{} p{partition}: {fault:?}", node + 1));
        self.crash(node);
        self.note_loss(node, partition);
        let copy = &mut self.nodes[node].copies[partition];
        match copy {
            Some(copy) if fault == Fault::Damage => copy.disk.state = ReplicaState::Damaged,
            _ => *copy = None,
        }
        self.crash_and_start(node);
    }

    /// A node loses its directory and comes back as another one, at the same address.
    fn wipe(&mut self, node: usize) {
        if !(0..self.options.partitions).all(|partition| self.can_lose(node, partition)) {
            return;
        }
        self.count(Fault::Wipe);
        self.crash(node);
        for partition in 0..self.options.partitions {
            self.note_loss(node, partition);
        }
        let id = NodeId(self.names.keys().last().map_or(1, |last| last.0 + 1));
        self.trace.note(self.now, || format!("n{} lost everything and is {} from now on", node + 1, id.0));
        self.names.insert(id, node);
        let host = &mut self.nodes[node];
        host.id = id;
        host.copies.iter_mut().for_each(|copy| *copy = None);
        host.log = Default::default();
        self.crash_and_start(node);
    }

    /// An operator asks a primary to hand over.
    fn hand_over(&mut self, node: usize) {
        let leads = |world: &World, partition: usize| {
            world.replica(node, partition).is_some_and(|replica| replica.role() == Role::Primary)
        };
        if self.nodes[node].frozen {
            return;
        }
        for partition in 0..self.options.partitions {
            if leads(self, partition) {
                self.feed(node, partition, Event::HandOver);
            }
        }
    }

    /// An operator makes a node the only member of what it is a sound member of.
    fn force_to(&mut self, node: usize) {
        let partition = self.random.index(self.options.partitions);
        let (id, before) = (self.nodes[node].id, self.meta.configuration(partition).clone());
        if self.meta.up && before.contains(id) && self.is_sound(id, partition) {
            self.count(Fault::Force);
            self.force(partition, id, &before);
        }
    }

    fn break_network(&mut self, fault: Fault, node: usize) {
        let count = self.nodes.len();
        let other = (node + 1 + self.random.index(count - 1)) % count;
        self.trace.note(self.now, || format!("{fault:?} n{} n{}", node + 1, other + 1));
        match fault {
            Fault::BreakStreams => {
                self.cut_streams(node, other);
                self.cut_streams(other, node);
            }
            Fault::CutLink => self.cut_link(node, other),
            Fault::CutOneWay => {
                let micros = self.outage();
                self.cut_way(node, other, micros);
            }
            Fault::Isolate => {
                for other in (0..count).filter(|other| *other != node) {
                    self.cut_link(node, other);
                }
            }
            Fault::StallLink => {
                let micros = self.options.limits.timing.lease_micros;
                self.stall_streams(node, other, micros);
            }
            _ => {}
        }
    }

    fn cut_link(&mut self, one: usize, other: usize) {
        let micros = self.outage();
        self.cut_way(one, other, micros);
        self.cut_way(other, one, micros);
    }

    fn cut_way(&mut self, from: usize, to: usize, micros: u64) {
        self.network.cut(from, to);
        self.cut_streams(from, to);
        self.recover_after(micros, Recovery::Way { from, to });
    }

    /// One thing stays broken when all else is healed.
    pub(crate) fn afflict(&mut self, node: usize, lasting: Lasting) {
        self.trace.note(self.now, || format!("what lasts: n{} {lasting:?}", node + 1));
        let count = self.nodes.len();
        let others: Vec<usize> = (0..count).filter(|other| *other != node).collect();
        match lasting {
            Lasting::Down => self.crash(node),
            Lasting::Frozen => self.freeze(node, u64::MAX / 4),
            Lasting::CutOff => others.into_iter().for_each(|other| self.part(node, other)),
            Lasting::NoMeta => self.nodes[node].meta_cut = true,
            Lasting::Link => self.part(node, (node + 1) % count),
            Lasting::Deaf => {
                self.nodes[node].meta_cut = true;
                for other in others {
                    self.network.cut(other, node);
                    self.cut_streams(other, node);
                }
            }
        }
    }

    fn part(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            self.network.cut(from, to);
            self.cut_streams(from, to);
        }
    }

    /// Everything works from now on.
    pub(crate) fn heal(&mut self) {
        self.trace.note(self.now, || "everything is healed".to_owned());
        self.healed = true;
        self.era += 1;
        // Calm enough for learners to catch up with what goes on.
        self.options.think_micros_max = self.options.think_micros_max.max(self.options.limits.timing.lease_micros / 2);
        self.meta.up = true;
        self.network.mend_all();
        for node in 0..self.nodes.len() {
            self.nodes[node].meta_cut = false;
            self.nodes[node].slowness = 1;
            let run = self.nodes[node].run;
            self.thaw(node, run);
            if self.nodes[node].log.closed {
                self.crash(node);
            }
            self.start(node);
        }
    }
}
