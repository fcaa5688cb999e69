//! Builders for tests of single replicas: node 1 is the primary, 2 and 3 are the secondaries.

#![allow(dead_code)]

use bytes::Bytes;
use pegasus_replication::{
    AppendRecord, AppendToken, Effect, Event, Moment, PeerMessage, RecordKind, Recovered, Replica, ReplicaIdentity,
    ReplicaLimits, RequestToken, Role, Session,
};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::peer::{Acknowledge, CommitPoint, Establish, Established, Prepare, Refuse, TakeCheckpoint};
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Decree, Durability, Mutation, MutationKind, NodeId, PartitionId, Status, TableId,
    TableProperties,
};

pub(crate) const ONE: NodeId = NodeId(1);
pub(crate) const TWO: NodeId = NodeId(2);
pub(crate) const THREE: NodeId = NodeId(3);
pub(crate) const FOUR: NodeId = NodeId(4);
pub(crate) const CLUSTER: ClusterId = ClusterId(7);

/// Times as the defaults have them, in milliseconds.
pub(crate) const LEASE: u64 = 2000;
pub(crate) const GRACE: u64 = 3000;
pub(crate) const PREPARE_TIMEOUT: u64 = 2000;

/// Every test begins at this reading of the clock.
pub(crate) const START: Moment = Moment(1_000_000_000);

pub(crate) fn configuration(ballot: u64) -> Configuration {
    led_by(ballot, ONE, &[TWO, THREE])
}

pub(crate) fn led_by(ballot: u64, primary: NodeId, secondaries: &[NodeId]) -> Configuration {
    Configuration { ballot: Ballot(ballot), primary: Some(primary), secondaries: secondaries.to_vec() }
}

pub(crate) fn table() -> TableProperties {
    TableProperties {
        table: TableId(1),
        name: "unit".to_owned(),
        partition_count: 4,
        replica_count: 3,
        durability: Durability::Synced,
    }
}

pub(crate) fn identity(node: NodeId) -> ReplicaIdentity {
    ReplicaIdentity { cluster: CLUSTER, node, partition: PartitionId::new(1, 0), table: table() }
}

pub(crate) fn mutation(decree: u64, ballot: u64) -> Mutation {
    Mutation {
        ballot: Ballot(ballot),
        decree: Decree(decree),
        timestamp_micros: decree * 10,
        kind: MutationKind::Write,
        payload: Bytes::from(format!("m{decree}")),
    }
}

/// A copy that stored `ballot`, applied `applied`, knows `committed`, and has these (decree, ballot) in its log.
pub(crate) fn recovered(ballot: u64, applied: u64, committed: u64, log: &[(u64, u64)]) -> Recovered {
    Recovered {
        configuration: configuration(ballot),
        applied: Decree(applied),
        committed: Decree(committed),
        promised: Ballot(ballot),
        mutations: log.iter().map(|&(decree, ballot)| mutation(decree, ballot)).collect(),
        timestamp_micros: 0,
        state: ReplicaState::Whole,
    }
}

/// A replica and its node's clock, which stands still unless a test lets time pass.
pub(crate) struct Fixture {
    pub(crate) replica: Replica,
    pub(crate) now: Moment,
}

impl Fixture {
    pub(crate) fn new(node: NodeId, recovered: Recovered) -> Fixture {
        Fixture::with_limits(node, recovered, ReplicaLimits::default())
    }

    pub(crate) fn with_limits(node: NodeId, recovered: Recovered, limits: ReplicaLimits) -> Fixture {
        Fixture { replica: Replica::with_limits(identity(node), recovered, limits, START), now: START }
    }

    /// Gives an event and returns exactly what was asked for because of it.
    pub(crate) fn on(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.replica.handle(self.now, event, &mut effects);
        effects
    }

    /// Time passes, and nothing happens.
    pub(crate) fn wait(&mut self, millis: u64) {
        self.now = self.now.after(millis * 1000);
    }

    /// Time passes, and the replica notices.
    pub(crate) fn tick_after(&mut self, millis: u64) -> Vec<Effect> {
        self.wait(millis);
        self.on(Event::Tick)
    }

    /// These members grant a beacon that is sent now.
    pub(crate) fn granted_by(&mut self, members: &[NodeId]) -> Vec<Effect> {
        let sent_at = self.now;
        members.iter().flat_map(|member| self.beacon_answered(*member, sent_at, true)).collect()
    }

    pub(crate) fn beacon_answered(&mut self, peer: NodeId, sent_at: Moment, granted: bool) -> Vec<Effect> {
        let ballot = self.replica.ballot();
        self.on(Event::BeaconAnswered { peer, ballot, sent_at, granted })
    }

    /// A beacon is heard; true if it is granted.
    pub(crate) fn hears_beacon(&mut self, peer: NodeId, ballot: u64, committed: u64) -> bool {
        let ballot = Ballot(ballot);
        self.on(Event::BeaconHeard { peer, ballot, committed: Decree(committed) });
        self.replica.grants_beacon(peer, ballot)
    }

    pub(crate) fn admit(&self) -> Result<(), Status> {
        self.replica.admit(self.now)
    }

    pub(crate) fn admit_read(&self) -> Result<(), Status> {
        self.replica.admit_read(self.now)
    }

    pub(crate) fn assigned(&mut self, configuration: Configuration) -> Vec<Effect> {
        self.on(Event::Assigned(configuration))
    }

    pub(crate) fn decided(&mut self, configuration: Configuration) -> Vec<Effect> {
        self.on(Event::ProposalDecided { configuration })
    }

    pub(crate) fn stored(&mut self, ballot: u64) -> Vec<Effect> {
        self.stored_as(ballot, ReplicaState::Whole)
    }

    pub(crate) fn stored_as(&mut self, ballot: u64, state: ReplicaState) -> Vec<Effect> {
        self.on(Event::DescriptorStored { ballot: Ballot(ballot), state })
    }

    pub(crate) fn applied(&mut self, through: u64) -> Vec<Effect> {
        self.on(Event::Applied { through: Decree(through) })
    }

    pub(crate) fn opened(&mut self, peer: NodeId, session: u64) -> Vec<Effect> {
        self.on(Event::StreamOpened { peer, session: Session(session) })
    }

    pub(crate) fn closed(&mut self, peer: NodeId, session: u64) -> Vec<Effect> {
        self.on(Event::StreamClosed { peer, session: Session(session) })
    }

    pub(crate) fn hear(&mut self, peer: NodeId, session: u64, message: PeerMessage) -> Vec<Effect> {
        self.on(Event::Received { peer, session: Session(session), message })
    }

    pub(crate) fn logged(&mut self, token: u64) -> Vec<Effect> {
        self.on(Event::Logged { through: AppendToken(token) })
    }

    pub(crate) fn propose(&mut self, request: u64, timestamp_micros: u64, payload: &str) -> Vec<Effect> {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let kind = MutationKind::Write;
        self.on(Event::Propose { request: RequestToken(request), timestamp_micros, kind, payload })
    }

    /// A primary that serves at ballot 2, with streams s12 and s13, and an empty window unless recovered otherwise.
    pub(crate) fn serving(limits: ReplicaLimits) -> Fixture {
        let mut primary = Fixture::with_limits(ONE, recovered(2, 0, 0, &[]), limits);
        primary.assigned(configuration(2));
        primary.decided(configuration(3));
        primary.stored(3);
        for (peer, session) in [(TWO, 12), (THREE, 13)] {
            primary.opened(peer, session);
            primary.hear(peer, session, established(3, 1, 0));
        }
        assert_eq!(primary.admit(), Ok(()));
        primary
    }

    /// A write of request 1, 2, .. that all three have logged and that is applied.
    pub(crate) fn write_through(&mut self, decree: u64) {
        let ballot = self.replica.ballot().0;
        self.propose(decree, 5, "x");
        self.logged(decree);
        self.hear(TWO, 12, acknowledge(decree, ballot));
        self.hear(THREE, 13, acknowledge(decree, ballot));
        assert_eq!(self.applied(decree), [reply(decree, Ok(decree))]);
    }

    /// A secondary that follows node 1 at ballot 3 on stream s5, with nothing in its log.
    pub(crate) fn following() -> Fixture {
        let mut secondary = Fixture::new(TWO, recovered(3, 0, 0, &[]));
        secondary.assigned(configuration(3));
        secondary.hear(ONE, 5, establish(3, 0, 0));
        secondary
    }
}

pub(crate) fn establish(ballot: u64, last: u64, committed: u64) -> PeerMessage {
    establish_of(configuration(ballot), TWO, last, committed)
}

/// What the primary of a configuration says to a member or learner.
pub(crate) fn establish_of(configuration: Configuration, receiver: NodeId, last: u64, committed: u64) -> PeerMessage {
    PeerMessage::Establish(Box::new(Establish {
        cluster: CLUSTER,
        partition: PartitionId::new(1, 0),
        sender: configuration.primary.unwrap_or_default(),
        receiver,
        table: table(),
        configuration,
        last_decree: Decree(last),
        committed: Decree(committed),
    }))
}

pub(crate) fn established(ballot: u64, next: u64, committed: u64) -> PeerMessage {
    let (next_decree, committed) = (Decree(next), Decree(committed));
    PeerMessage::Established(Established { ballot: Ballot(ballot), next_decree, committed, uncertain: false })
}

pub(crate) fn prepare(decree: u64, ballot: u64, committed: u64) -> PeerMessage {
    prepare_of(&mutation(decree, ballot), committed)
}

pub(crate) fn acknowledge(logged: u64, ballot: u64) -> PeerMessage {
    PeerMessage::Acknowledge(Acknowledge { ballot: Ballot(ballot), logged: Decree(logged) })
}

pub(crate) fn commit_point(committed: u64, ballot: u64) -> PeerMessage {
    PeerMessage::CommitPoint(CommitPoint { ballot: Ballot(ballot), committed: Decree(committed) })
}

pub(crate) fn take_checkpoint(committed: u64, ballot: u64) -> PeerMessage {
    PeerMessage::TakeCheckpoint(TakeCheckpoint { ballot: Ballot(ballot), committed: Decree(committed) })
}

/// A prepare of a mutation as it is.
pub(crate) fn prepare_of(of: &Mutation, committed: u64) -> PeerMessage {
    PeerMessage::Prepare {
        prepare: Prepare {
            ballot: of.ballot,
            decree: of.decree,
            committed: Decree(committed),
            timestamp_micros: of.timestamp_micros,
            mutation_kind: of.kind as u8,
        },
        payload: of.payload.clone(),
    }
}

pub(crate) fn refuse(status: Status, ballot: u64, next: u64) -> PeerMessage {
    let refuse = Refuse { ballot: Ballot(ballot), next_decree: Decree(next), message: "no".to_owned() };
    PeerMessage::Refuse { status, refuse }
}

pub(crate) fn send(peer: NodeId, session: u64, message: PeerMessage) -> Effect {
    Effect::Send { peer, session: Session(session), message: meant_for(peer, message) }
}

/// An `Establish` names its receiver; everything else is left as it is.
pub(crate) fn meant_for(node: NodeId, message: PeerMessage) -> PeerMessage {
    match message {
        PeerMessage::Establish(establish) => {
            PeerMessage::Establish(Box::new(Establish { receiver: node, ..*establish }))
        }
        other => other,
    }
}

/// The append of a mutation as the builders make it.
pub(crate) fn append(token: u64, decree: u64, ballot: u64, committed: u64) -> Effect {
    append_of(token, mutation(decree, ballot), committed)
}

pub(crate) fn append_of(token: u64, of: Mutation, committed: u64) -> Effect {
    let record = AppendRecord {
        kind: RecordKind::Mutation(of.kind),
        ballot: of.ballot,
        decree: of.decree,
        committed: Decree(committed),
        timestamp_micros: of.timestamp_micros,
        payload: of.payload,
    };
    Effect::Append { token: AppendToken(token), record }
}

pub(crate) fn truncate(token: u64, from: u64, ballot: u64, committed: u64) -> Effect {
    let record = AppendRecord {
        kind: RecordKind::Truncate,
        ballot: Ballot(ballot),
        decree: Decree(from),
        committed: Decree(committed),
        timestamp_micros: 0,
        payload: Bytes::new(),
    };
    Effect::Append { token: AppendToken(token), record }
}

pub(crate) fn apply(of: &[(u64, u64)]) -> Effect {
    Effect::Apply { mutations: of.iter().map(|&(decree, ballot)| mutation(decree, ballot)).collect() }
}

/// A proposal, as the one after the ballot before it.
pub(crate) fn proposing(configuration: Configuration) -> Effect {
    Effect::ProposeConfiguration { expected_ballot: Ballot(configuration.ballot.0 - 1), configuration }
}

pub(crate) fn store(configuration: Configuration) -> Effect {
    store_as(configuration, ReplicaState::Whole)
}

pub(crate) fn store_as(configuration: Configuration, state: ReplicaState) -> Effect {
    Effect::StoreDescriptor { configuration, state }
}

pub(crate) fn now_is(role: Role, ballot: u64, serving: bool) -> Effect {
    Effect::RoleChanged { role, ballot: Ballot(ballot), serving }
}

pub(crate) fn open(peer: NodeId) -> Effect {
    Effect::OpenStream { peer }
}

pub(crate) fn close(peer: NodeId, session: u64) -> Effect {
    Effect::CloseStream { peer, session: Session(session) }
}

/// The status of the one refusal among the effects, and the decree it asks for.
pub(crate) fn refused(effects: &[Effect]) -> (Status, u64) {
    let refusals: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { message: PeerMessage::Refuse { status, refuse }, .. } => {
                Some((*status, refuse.next_decree.0))
            }
            _ => None,
        })
        .collect();
    assert_eq!(refusals.len(), 1, "{effects:?}");
    refusals[0]
}

pub(crate) fn reply(request: u64, outcome: Result<u64, Status>) -> Effect {
    Effect::Reply { request: RequestToken(request), outcome: outcome.map(Decree) }
}
