//! Builders for tests of single replicas: node 1 is the primary, 2 and 3 are the secondaries.

#![allow(dead_code)]

use bytes::Bytes;
use pegasus_replication::{
    AppendRecord, AppendToken, Effect, Event, PeerMessage, RecordKind, Recovered, Replica, ReplicaIdentity,
    ReplicaLimits, RequestToken, Session,
};
use pegasus_wire::messages::peer::{Acknowledge, CommitPoint, Establish, Established, Prepare, Refuse};
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Decree, Durability, Mutation, MutationKind, NodeId, PartitionId, Status, TableId,
    TableProperties,
};

pub(crate) const ONE: NodeId = NodeId(1);
pub(crate) const TWO: NodeId = NodeId(2);
pub(crate) const THREE: NodeId = NodeId(3);
pub(crate) const CLUSTER: ClusterId = ClusterId(7);

pub(crate) fn configuration(ballot: u64) -> Configuration {
    Configuration { ballot: Ballot(ballot), primary: Some(ONE), secondaries: vec![TWO, THREE] }
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
        mutations: log.iter().map(|&(decree, ballot)| mutation(decree, ballot)).collect(),
        timestamp_micros: 0,
        damaged: false,
    }
}

/// A replica and the effects of its last event.
pub(crate) struct Fixture {
    pub(crate) replica: Replica,
}

impl Fixture {
    pub(crate) fn new(node: NodeId, recovered: Recovered) -> Fixture {
        Fixture::with_limits(node, recovered, ReplicaLimits::default())
    }

    pub(crate) fn with_limits(node: NodeId, recovered: Recovered, limits: ReplicaLimits) -> Fixture {
        Fixture { replica: Replica::with_limits(identity(node), recovered, limits) }
    }

    /// Gives an event and returns exactly what was asked for because of it.
    pub(crate) fn on(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.replica.handle(event, &mut effects);
        effects
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
        primary.on(Event::Assigned(configuration(2)));
        primary.on(Event::ProposalDecided { configuration: configuration(3) });
        primary.on(Event::DescriptorStored { ballot: Ballot(3) });
        for (peer, session) in [(TWO, 12), (THREE, 13)] {
            primary.on(Event::StreamOpened { peer, session: Session(session) });
            primary.hear(peer, session, established(3, 1, 0));
        }
        assert_eq!(primary.replica.admit(), Ok(()));
        primary
    }

    /// A secondary that follows node 1 at ballot 3 on stream s5, with nothing in its log.
    pub(crate) fn following() -> Fixture {
        let mut secondary = Fixture::new(TWO, recovered(3, 0, 0, &[]));
        secondary.on(Event::Assigned(configuration(3)));
        secondary.hear(ONE, 5, establish(3, 0, 0));
        secondary
    }
}

pub(crate) fn establish(ballot: u64, last: u64, committed: u64) -> PeerMessage {
    PeerMessage::Establish(Box::new(Establish {
        cluster: CLUSTER,
        partition: PartitionId::new(1, 0),
        sender: ONE,
        receiver: TWO,
        table: table(),
        configuration: configuration(ballot),
        last_decree: Decree(last),
        committed: Decree(committed),
    }))
}

pub(crate) fn established(ballot: u64, next: u64, committed: u64) -> PeerMessage {
    let (next_decree, committed) = (Decree(next), Decree(committed));
    PeerMessage::Established(Established { ballot: Ballot(ballot), next_decree, committed })
}

pub(crate) fn prepare(decree: u64, ballot: u64, committed: u64) -> PeerMessage {
    let of = mutation(decree, ballot);
    PeerMessage::Prepare {
        prepare: Prepare {
            ballot: of.ballot,
            decree: of.decree,
            committed: Decree(committed),
            timestamp_micros: of.timestamp_micros,
            mutation_kind: of.kind as u8,
        },
        payload: of.payload,
    }
}

pub(crate) fn acknowledge(logged: u64, ballot: u64) -> PeerMessage {
    PeerMessage::Acknowledge(Acknowledge { ballot: Ballot(ballot), logged: Decree(logged) })
}

pub(crate) fn commit_point(committed: u64, ballot: u64) -> PeerMessage {
    PeerMessage::CommitPoint(CommitPoint { ballot: Ballot(ballot), committed: Decree(committed) })
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

pub(crate) fn reply(request: u64, outcome: Result<u64, Status>) -> Effect {
    Effect::Reply { request: RequestToken(request), outcome: outcome.map(Decree) }
}
