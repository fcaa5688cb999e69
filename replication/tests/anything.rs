//! Whatever a peer says, in whatever order, a replica keeps its invariants (debug assertions check them after every
//! event) and never panics. The host in this test keeps its own promises.

mod common;

use common::*;
use pegasus_replication::{Effect, Event, PeerMessage, ReplicaLimits, Session};
use pegasus_wire::messages::peer::Establish;
use pegasus_wire::{Ballot, Configuration, Decree, NodeId, Status};
use proptest::prelude::*;

/// One thing that happens; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Hear { peer: u64, session: u64, message: PeerMessage },
    Assigned { ballot: u64, primary: u64 },
    Decided,
    ProposalFailed,
    Propose,
    Opened { peer: u64 },
    Closed { peer: u64, session: u64 },
    Logged,
    Stored,
    Applied,
    Tick,
}

fn led_by(ballot: u64, primary: u64) -> Configuration {
    let secondaries = (1..=3).filter(|node| *node != primary).map(NodeId).collect();
    Configuration { ballot: Ballot(ballot), primary: Some(NodeId(primary)), secondaries }
}

fn message() -> impl Strategy<Value = PeerMessage> {
    let number = || prop_oneof![8 => 0..8_u64, 1 => Just(u64::MAX - 1)];
    let establishing = (1..6_u64, number(), number(), 1..=3_u64).prop_map(|(ballot, last, committed, sender)| {
        let PeerMessage::Establish(of) = establish(ballot, 0, 0) else { unreachable!() };
        PeerMessage::Establish(Box::new(Establish {
            sender: NodeId(sender),
            configuration: led_by(ballot, sender),
            last_decree: Decree(last),
            committed: Decree(committed),
            ..*of
        }))
    });
    let statuses = prop_oneof![Just(Status::Gap), Just(Status::StaleBallot), Just(Status::Damaged), Just(Status::Busy)];
    prop_oneof![
        3 => establishing,
        6 => (1..9_u64, 1..6_u64, number()).prop_map(|(decree, ballot, point)| prepare(decree, ballot, point)),
        4 => (1..6_u64, number(), number()).prop_map(|(ballot, next, point)| established(ballot, next, point)),
        4 => (number(), 1..6_u64).prop_map(|(logged, ballot)| acknowledge(logged, ballot)),
        2 => (number(), 1..6_u64).prop_map(|(point, ballot)| commit_point(point, ballot)),
        1 => (statuses, 1..9_u64, number()).prop_map(|(status, ballot, next)| refuse(status, ballot, next)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1..=3_u64, 1..6_u64, message())
            .prop_map(|(peer, session, message)| Step::Hear { peer, session, message }),
        1 => (1..6_u64, 1..=3_u64).prop_map(|(ballot, primary)| Step::Assigned { ballot, primary }),
        2 => Just(Step::Decided),
        1 => Just(Step::ProposalFailed),
        3 => Just(Step::Propose),
        3 => (1..=3_u64).prop_map(|peer| Step::Opened { peer }),
        1 => (1..=3_u64, 1..6_u64).prop_map(|(peer, session)| Step::Closed { peer, session }),
        4 => Just(Step::Logged),
        3 => Just(Step::Stored),
        3 => Just(Step::Applied),
        1 => Just(Step::Tick),
    ]
}

/// What the host owes the replica.
#[derive(Default)]
struct Owed {
    logged: u64,
    stored: Vec<Ballot>,
    applied: Option<Decree>,
    proposed: Option<Configuration>,
    sessions: u64,
}

impl Owed {
    fn note(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Append { token, .. } => self.logged = token.0,
                Effect::StoreDescriptor { configuration } => self.stored.push(configuration.ballot),
                Effect::Apply { mutations } => {
                    assert_eq!(self.applied, None, "one batch at a time");
                    self.applied = mutations.last().map(|mutation| mutation.decree);
                }
                Effect::ProposeConfiguration { configuration, .. } => self.proposed = Some(configuration.clone()),
                _ => {}
            }
        }
    }
}

fn event(step: Step, owed: &mut Owed) -> Option<Event> {
    Some(match step {
        Step::Hear { peer, session, message } => {
            Event::Received { peer: NodeId(peer), session: Session(session), message }
        }
        Step::Assigned { ballot, primary } => Event::Assigned(led_by(ballot, primary)),
        Step::Decided => Event::ProposalDecided { configuration: owed.proposed.take()? },
        Step::ProposalFailed => Event::ProposalFailed,
        Step::Propose => Event::Propose {
            request: pegasus_replication::RequestToken(1),
            timestamp_micros: 7,
            kind: pegasus_wire::MutationKind::Write,
            payload: "m".into(),
        },
        Step::Opened { peer } => {
            owed.sessions += 1;
            Event::StreamOpened { peer: NodeId(peer), session: Session(owed.sessions) }
        }
        Step::Closed { peer, session } => Event::StreamClosed { peer: NodeId(peer), session: Session(session) },
        Step::Logged => Event::Logged { through: pegasus_replication::AppendToken(owed.logged) },
        Step::Stored if owed.stored.is_empty() => return None,
        Step::Stored => Event::DescriptorStored { ballot: owed.stored.remove(0) },
        Step::Applied => Event::Applied { through: owed.applied.take()? },
        Step::Tick => Event::Tick,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_peer_breaks_a_replica(steps in prop::collection::vec(step(), 0..80), node in 1..=2_u64) {
        let limits = ReplicaLimits { window_mutations_max: 4, window_bytes_max: 64, flight_bytes_max: 6 };
        let copy = recovered(2, 1, 2, &[(2, 1), (3, 2), (4, 2)]);
        let mut fixture = Fixture::with_limits(NodeId(node), copy, limits);
        let mut owed = Owed::default();
        let (mut ballot, mut applied) = (fixture.replica.ballot(), fixture.replica.applied());
        for step in steps {
            let Some(event) = event(step, &mut owed) else { continue };
            let effects = fixture.on(event);
            owed.note(&effects);
            prop_assert!(fixture.replica.ballot() >= ballot, "the ballot fell");
            prop_assert!(fixture.replica.applied() >= applied, "the applied decree fell");
            (ballot, applied) = (fixture.replica.ballot(), fixture.replica.applied());
        }
    }
}
