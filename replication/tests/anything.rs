//! Whatever a peer says, in whatever order, and however time passes, a replica keeps its invariants (debug assertions
//! check them after every event) and never panics. The host in this test keeps its own promises; the meta service, the
//! log that is read for learners and the peers keep none.

mod common;

use std::collections::{BTreeSet, VecDeque};

use common::*;
use pegasus_replication::{
    AppendToken, Effect, Event, Moment, PeerMessage, Phase, Recovered, ReplicaLimits, RequestToken, Role, Session,
};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::peer::{Establish, Established};
use pegasus_wire::{Ballot, Configuration, Decree, Mutation, MutationKind, NodeId, Status};
use proptest::prelude::*;

/// One thing that happens; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Hear { peer: u64, session: u64, message: PeerMessage },
    Assigned(Configuration),
    Decided,
    Conflict(Configuration),
    ProposalFailed,
    Propose,
    Await { through: u64 },
    Opened { peer: u64 },
    NotOpened { peer: u64 },
    Closed { peer: u64, session: u64 },
    BeaconHeard { peer: u64, ballot: u64, committed: u64 },
    BeaconAnswered { peer: u64, ballot: u64, millis_ago: u64, granted: bool },
    AddMember { ballot: u64, node: u64 },
    HandOver,
    LogRead { count: usize },
    NoLog,
    StrangeLog { peer: u64, session: u64, decrees: Vec<u64> },
    CheckpointFailed,
    Logged,
    Stored { skips: bool },
    Applied,
    Wait { millis: u64 },
    Tick,
    Failed { damaged: bool },
}

/// Any of the usual numbers, or one at the end of the range.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..9_u64, 1 => Just(u64::MAX - 1), 1 => Just(u64::MAX)]
}

fn node() -> impl Strategy<Value = u64> {
    1..=4_u64
}

/// Led by one of four, with any of the others.
fn configuration_of(ballots: impl Strategy<Value = u64>) -> impl Strategy<Value = Configuration> {
    (ballots, node(), prop::collection::btree_set(node(), 0..3)).prop_map(|(ballot, primary, others)| {
        let secondaries: Vec<NodeId> = others.into_iter().filter(|node| *node != primary).map(NodeId).collect();
        led_by(ballot, NodeId(primary), &secondaries)
    })
}

fn establishing() -> impl Strategy<Value = PeerMessage> {
    let ballots = prop_oneof![20 => 1..7_u64, 1 => Just(u64::MAX)];
    let words = (configuration_of(ballots), 1..=3_u64, number(), number(), 0..20_u32);
    words.prop_map(|(configuration, receiver, last, committed, lie)| {
        let PeerMessage::Establish(of) = establish_of(configuration, NodeId(receiver), last, committed) else {
            unreachable!()
        };
        let sender = if lie == 0 { NodeId(9) } else { of.sender };
        PeerMessage::Establish(Box::new(Establish { sender, ..*of }))
    })
}

fn message() -> impl Strategy<Value = PeerMessage> {
    let ballots = || 1..7_u64;
    let answers = (ballots(), number(), number(), any::<bool>(), 0..10_u32);
    let established = answers.prop_map(|(ballot, next, committed, honest, uncertain)| {
        let committed = if honest { next.saturating_sub(1) } else { committed };
        let (next_decree, committed) = (Decree(next), Decree(committed));
        PeerMessage::Established(Established {
            ballot: Ballot(ballot),
            next_decree,
            committed,
            uncertain: uncertain == 0,
        })
    });
    let statuses = prop_oneof![
        Just(Status::Gap),
        Just(Status::StaleBallot),
        Just(Status::Damaged),
        Just(Status::Busy),
        Just(Status::ShuttingDown)
    ];
    prop_oneof![
        4 => establishing(),
        8 => (1..12_u64, ballots(), number()).prop_map(|(decree, ballot, point)| prepare(decree, ballot, point)),
        5 => established,
        5 => (number(), ballots()).prop_map(|(logged, ballot)| acknowledge(logged, ballot)),
        2 => (number(), ballots()).prop_map(|(point, ballot)| commit_point(point, ballot)),
        1 => (number(), ballots()).prop_map(|(point, ballot)| take_checkpoint(point, ballot)),
        1 => (statuses, 1..9_u64, number()).prop_map(|(status, ballot, next)| refuse(status, ballot, next)),
    ]
}

fn word_of_a_peer() -> impl Strategy<Value = Step> {
    let beacons = (node(), 1..7_u64, number()).prop_map(|(peer, ballot, committed)| Step::BeaconHeard {
        peer,
        ballot,
        committed,
    });
    let answers = (node(), 1..7_u64, 0..3000_u64, any::<bool>())
        .prop_map(|(peer, ballot, millis_ago, granted)| Step::BeaconAnswered { peer, ballot, millis_ago, granted });
    prop_oneof![
        12 => (node(), 1..8_u64, message()).prop_map(|(peer, session, message)| Step::Hear { peer, session, message }),
        2 => beacons,
        2 => answers,
        3 => node().prop_map(|peer| Step::Opened { peer }),
        1 => node().prop_map(|peer| Step::NotOpened { peer }),
        1 => (node(), 1..8_u64).prop_map(|(peer, session)| Step::Closed { peer, session }),
    ]
}

fn word_of_the_host() -> impl Strategy<Value = Step> {
    let strange = (node(), 1..8_u64, prop::collection::vec(number(), 0..4));
    prop_oneof![
        6 => Just(Step::Logged),
        5 => any::<bool>().prop_map(|skips| Step::Stored { skips }),
        5 => Just(Step::Applied),
        2 => (0..5_usize).prop_map(|count| Step::LogRead { count }),
        1 => Just(Step::NoLog),
        1 => strange.prop_map(|(peer, session, decrees)| Step::StrangeLog { peer, session, decrees }),
        1 => Just(Step::CheckpointFailed),
        3 => (0..2500_u64).prop_map(|millis| Step::Wait { millis }),
        3 => Just(Step::Tick),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => word_of_a_peer(),
        60 => word_of_the_host(),
        3 => configuration_of(1..7_u64).prop_map(Step::Assigned),
        8 => Just(Step::Decided),
        2 => configuration_of(1..9_u64).prop_map(Step::Conflict),
        3 => Just(Step::ProposalFailed),
        12 => Just(Step::Propose),
        3 => (0..12_u64).prop_map(|through| Step::Await { through }),
        6 => (1..7_u64, node()).prop_map(|(ballot, node)| Step::AddMember { ballot, node }),
        1 => Just(Step::HandOver),
        1 => any::<bool>().prop_map(|damaged| Step::Failed { damaged }),
    ]
}

/// A host that owes its replica answers.
struct Host {
    fixture: Fixture,
    logged: u64,
    stored: VecDeque<(Ballot, ReplicaState)>,
    applied: Option<Decree>,
    proposed: Option<Configuration>,
    reads: VecDeque<(NodeId, Session, Decree, Decree)>,
    sessions: u64,
    waiting: BTreeSet<RequestToken>,
    requests: u64,
}

impl Host {
    fn new(node: u64, state: ReplicaState) -> Host {
        let limits = ReplicaLimits {
            window_mutations_max: 4,
            window_bytes_max: 64,
            flight_bytes_max: 6,
            ..ReplicaLimits::default()
        };
        let copy = Recovered { state, ..recovered(2, 1, 2, &[(2, 1), (3, 2), (4, 2)]) };
        Host {
            fixture: Fixture::with_limits(NodeId(node), copy, limits),
            logged: 0,
            stored: VecDeque::new(),
            applied: None,
            proposed: None,
            reads: VecDeque::new(),
            sessions: 0,
            waiting: BTreeSet::new(),
            requests: 0,
        }
    }

    fn take(&mut self, event: Event) {
        for effect in self.fixture.on(event) {
            match effect {
                Effect::Append { token, .. } => self.logged = token.0,
                Effect::StoreDescriptor { configuration, state } => {
                    self.stored.push_back((configuration.ballot, state));
                }
                Effect::Apply { mutations } => {
                    assert_eq!(self.applied, None, "one batch at a time");
                    self.applied = mutations.last().map(|mutation| mutation.decree);
                }
                Effect::ProposeConfiguration { configuration, .. } => {
                    assert_ne!(self.fixture.replica.role(), Role::Learner, "a learner asks for nothing");
                    self.proposed = Some(configuration);
                }
                Effect::ReadLog { peer, session, from, through } => {
                    assert!(from <= through, "{from} to {through}");
                    self.reads.push_back((peer, session, from, through));
                }
                Effect::Reply { request, .. } => {
                    assert!(self.waiting.remove(&request), "request {} is answered once", request.0);
                }
                _ => {}
            }
        }
        if self.fixture.replica.describe().phase == Phase::Claiming {
            let granted = (1..=4).any(|peer| self.fixture.replica.grants_beacon(NodeId(peer), self.ballot()));
            assert!(!granted, "it has asked to take the primary's place");
        }
    }

    fn ballot(&self) -> Ballot {
        self.fixture.replica.ballot()
    }

    fn next_request(&mut self) -> RequestToken {
        self.requests += 1;
        self.waiting.insert(RequestToken(self.requests));
        RequestToken(self.requests)
    }

    /// What happens, if it can happen now.
    fn event(&mut self, step: Step) -> Option<Event> {
        Some(match step {
            Step::Hear { peer, session, message } => {
                Event::Received { peer: NodeId(peer), session: Session(session), message }
            }
            Step::Assigned(configuration) => Event::Assigned(configuration),
            Step::Decided => Event::ProposalDecided { configuration: self.proposed.take()? },
            Step::Conflict(configuration) => {
                self.proposed.take()?;
                Event::ProposalDecided { configuration }
            }
            Step::ProposalFailed => Event::ProposalFailed,
            Step::Propose => Event::Propose {
                request: self.next_request(),
                timestamp_micros: 7,
                kind: MutationKind::Write,
                payload: "m".into(),
            },
            Step::Await { through } => Event::Await { request: self.next_request(), through: Decree(through) },
            Step::Opened { peer } => {
                self.sessions += 1;
                Event::StreamOpened { peer: NodeId(peer), session: Session(self.sessions) }
            }
            Step::NotOpened { peer } => Event::StreamFailed { peer: NodeId(peer) },
            Step::Closed { peer, session } => Event::StreamClosed { peer: NodeId(peer), session: Session(session) },
            Step::BeaconHeard { peer, ballot, committed } => {
                Event::BeaconHeard { peer: NodeId(peer), ballot: Ballot(ballot), committed: Decree(committed) }
            }
            Step::BeaconAnswered { peer, ballot, millis_ago, granted } => {
                let sent_at = Moment(self.fixture.now.0 - millis_ago * 1000);
                Event::BeaconAnswered { peer: NodeId(peer), ballot: Ballot(ballot), sent_at, granted }
            }
            Step::AddMember { ballot, node } => Event::AddMember { ballot: Ballot(ballot), node: NodeId(node) },
            Step::HandOver => Event::HandOver,
            Step::LogRead { .. } | Step::NoLog | Step::StrangeLog { .. } => self.log_read(step)?,
            Step::CheckpointFailed => Event::CheckpointFailed,
            Step::Logged => Event::Logged { through: AppendToken(self.logged) },
            Step::Stored { skips } => {
                let last = if skips { self.stored.drain(..).next_back() } else { self.stored.pop_front() };
                let (ballot, state) = last?;
                Event::DescriptorStored { ballot, state }
            }
            Step::Applied => Event::Applied { through: self.applied.take()? },
            Step::Wait { millis } => {
                self.fixture.wait(millis);
                Event::Tick
            }
            Step::Tick => Event::Tick,
            Step::Failed { damaged } => {
                let status = if damaged { Status::Damaged } else { Status::StorageFailed };
                Event::Failed { status, reason: String::new() }
            }
        })
    }

    fn log_read(&mut self, step: Step) -> Option<Event> {
        let of = |decree: u64| Mutation { decree: Decree(decree), ..mutation(1, 1) };
        Some(match step {
            Step::StrangeLog { peer, session, decrees } => {
                let mutations = Some(decrees.into_iter().map(of).collect());
                Event::LogRead { peer: NodeId(peer), session: Session(session), mutations }
            }
            Step::LogRead { count } => {
                let (peer, session, from, through) = self.reads.pop_front()?;
                let mutations = Some((from.0..=through.0).take(1 + count).map(of).collect());
                Event::LogRead { peer, session, mutations }
            }
            _ => {
                let (peer, session, _, _) = self.reads.pop_front()?;
                Event::LogRead { peer, session, mutations: None }
            }
        })
    }
}

/// Runs the steps, checking after each what must never change for the worse.
fn play(mut host: Host, steps: Vec<Step>) -> Host {
    let seen = |host: &Host| {
        let replica = &host.fixture.replica;
        (replica.ballot(), replica.applied(), replica.committed())
    };
    let mut before = seen(&host);
    for step in steps {
        let Some(event) = host.event(step) else { continue };
        host.take(event);
        let after = seen(&host);
        assert!(after.0 >= before.0, "the ballot fell");
        assert!(after.1 >= before.1 && after.2 >= before.2, "what is applied or committed fell");
        before = after;
    }
    host
}

/// A primary with members and a learner, which all go on from there.
fn founded() -> Host {
    let mut host = Host::new(1, ReplicaState::Whole);
    host.take(Event::Assigned(led_by(3, ONE, &[TWO])));
    host.take(Event::ProposalDecided { configuration: led_by(4, ONE, &[TWO]) });
    for step in [Step::Stored { skips: true }, Step::Logged, Step::Applied, Step::Opened { peer: 2 }] {
        let event = host.event(step).expect("it was asked for");
        host.take(event);
    }
    let session = Session(host.sessions);
    host.take(Event::Received { peer: TWO, session, message: established(4, 5, 2) });
    host.take(Event::Received { peer: TWO, session, message: acknowledge(4, 4) });
    let applied = host.event(Step::Applied).expect("all is committed");
    host.take(applied);
    host.take(Event::AddMember { ballot: Ballot(4), node: FOUR });
    assert_eq!(host.fixture.admit(), Ok(()), "{}", host.fixture.replica.describe());
    host
}

fn stop(mut host: Host) {
    host.take(Event::Shutdown);
    host.take(Event::Tick);
    assert_eq!(host.waiting, BTreeSet::new(), "who waits is answered");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_peer_breaks_a_replica(steps in prop::collection::vec(step(), 0..120), node in 1..=2_u64, state in 0..4_u32) {
        let state = match state {
            0 => ReplicaState::Learning,
            1 => ReplicaState::Uncertain,
            _ => ReplicaState::Whole,
        };
        stop(play(Host::new(node, state), steps));
    }

    #[test]
    fn no_peer_breaks_a_primary_that_teaches(steps in prop::collection::vec(step(), 0..120)) {
        stop(play(founded(), steps));
    }
}
