//! What a host does for its replicas: performs their effects, ticks them, and says what is done.

use pegasus_replication::{Effect, Event, Moment, Replica};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Ballot, Configuration, Decree, Mutation, NodeId, Status};

use crate::disk::{Pending, Write};
use crate::learning::Taught;
use crate::options::HostBug;
use crate::world::{Happening, Local, World};

impl World {
    /// How long a message of a node takes.
    pub(crate) fn latency(&mut self, node: usize) -> u64 {
        let usual = self.random.range(20, self.options.latency_micros_max.max(20)) * self.nodes[node].slowness;
        if !self.healed && self.random.permille(self.options.slow_messages_permille) {
            return usual * self.random.range(2, 100);
        }
        usual
    }

    /// True if a call is lost for no reason.
    pub(crate) fn is_call_lost(&mut self) -> bool {
        !self.healed && self.random.permille(self.options.lost_calls_permille)
    }

    /// Performs one effect. Nothing happens at once except sending and answering; the rest is scheduled.
    pub(crate) fn perform(&mut self, node: usize, partition: usize, effect: Effect) {
        match effect {
            Effect::Append { token, record } => {
                let write = Write::decode(&record.payload).map(|write| (write.key, write.value));
                self.note_append(node, partition, record.decree, write);
                let Some(copy) = &self.nodes[node].copies[partition] else { return };
                let incarnation = copy.disk.incarnation;
                self.nodes[node].log.pending.push_back(Pending { partition, incarnation, token, record });
                self.start_log_write(node);
            }
            Effect::StoreDescriptor { configuration, state } => {
                self.store_descriptor(node, partition, configuration, state);
            }
            Effect::OpenStream { peer } => {
                let Some(copy) = &self.nodes[node].copies[partition] else { return };
                let incarnation = copy.disk.incarnation;
                let delay = self.latency(node);
                self.schedule_local(node, delay, Local::OpenStream { partition, incarnation, peer });
            }
            Effect::CloseStream { session, .. } => self.close_end(node, session),
            Effect::Send { session, message, .. } => {
                self.check_message(node, partition, &message);
                self.send(node, session, message);
            }
            Effect::Apply { mutations } => self.apply(node, partition, &mutations),
            Effect::Reply { request, outcome } => self.on_reply(node, partition, request, outcome),
            Effect::ProposeConfiguration { expected_ballot, configuration } => {
                self.propose(node, partition, expected_ballot, configuration);
            }
            Effect::ReadLog { peer, session, from, through } => {
                let mutations = self.read_log(node, partition, peer, from, through);
                let delay = self.time_on(node, self.options.log_micros_max);
                self.tell_later(node, partition, delay, Event::LogRead { peer, session, mutations });
            }
            Effect::FetchCheckpoint { from, ballot, .. } => self.fetch_checkpoint(node, partition, from, ballot),
            Effect::RoleChanged { .. } => {}
            Effect::Faulted { status, reason } => self.on_faulted(node, partition, status, &reason),
        }
    }

    /// Some of the mutations asked for; `None` if the log does not reach back so far.
    fn read_log(
        &mut self,
        node: usize,
        partition: usize,
        learner: NodeId,
        from: Decree,
        through: Decree,
    ) -> Option<Vec<Mutation>> {
        let count = self.random.range(1, 20).min(through.0 + 1 - from.0) as usize;
        if self.random.permille(20) {
            return None;
        }
        let copy = self.nodes[node].copies[partition].as_ref()?;
        copy.disk.view.get(from)?;
        let mutations = copy.disk.view.beyond(from.previous()).take(count).cloned().collect();
        self.partitions[partition].taught.entry(learner).or_insert(Taught::FromLog);
        Some(mutations)
    }

    fn on_faulted(&mut self, node: usize, partition: usize, status: Status, reason: &str) {
        if !self.is_expected(node, partition, status) {
            self.check_copy(node, partition, Err(format!("a fault ({status:?}): {reason}")));
        }
        if status == Status::Damaged
            && let Some(copy) = &mut self.nodes[node].copies[partition]
        {
            copy.disk.state = ReplicaState::Damaged;
            self.nodes[node].report_again();
        }
    }

    fn propose(&mut self, node: usize, partition: usize, expected: Ballot, configuration: Configuration) {
        self.check_proposal(node, partition, &configuration);
        let Some(copy) = &self.nodes[node].copies[partition] else { return };
        let (run, incarnation, proposer) = (self.nodes[node].run, copy.disk.incarnation, self.nodes[node].id);
        if expected == self.meta.configuration(partition).ballot {
            let proposals = &mut self.partitions[partition].proposals;
            if !proposals.contains(&configuration) {
                proposals.push(configuration.clone());
            }
        }
        let delay = self.latency(node);
        // A call that takes too long is given up, and may be carried out all the same.
        let awaited = !self.is_call_lost();
        if !awaited {
            self.tell_later(node, partition, delay, Event::ProposalFailed);
        }
        let delay = delay + if awaited { 0 } else { self.random.range(0, self.options.limits.timing.lease_micros) };
        let proposed =
            Happening::Proposed { node, run, partition, incarnation, proposer, expected, configuration, awaited };
        self.schedule(delay, proposed);
    }

    pub(crate) fn on_tick(&mut self, node: usize) {
        self.nodes[node].old_reading = self.nodes[node].clock.read(self.now);
        for partition in 0..self.options.partitions {
            self.feed(node, partition, Event::Tick);
            self.keep_house(node, partition);
        }
        let delay = self.nodes[node].clock.real(self.options.tick_micros);
        self.schedule_local(node, delay, Local::Tick);
    }

    /// The reading of the clock by which a request is admitted.
    pub(crate) fn admission_reading(&self, node: usize) -> Moment {
        match self.options.planted.host {
            Some(HostBug::LeaseOldClock) => self.nodes[node].old_reading,
            _ => self.nodes[node].clock.read(self.now),
        }
    }

    /// The running replica of a partition.
    pub(crate) fn replica(&self, node: usize, partition: usize) -> Option<&Replica> {
        self.nodes[node].copies[partition].as_ref()?.replica.as_ref()
    }
}
