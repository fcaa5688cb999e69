//! Membership over real QUIC: what nodes are asked to do, when their watches wake, what operators see and force.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::time::{Duration, Instant};

use common::{Caller, PATIENCE, Place, call, explanation, table};
use pegasus_meta::host::Server;
use pegasus_meta::host::config::GuardianConfig;
use pegasus_rpc::Role;
use pegasus_wire::messages::control::{
    Addition, Assignments, DiagnosePartitions, Diagnosis, ForceConfiguration, ProposalReply, ProposeConfiguration,
    QueryTable, Removal, ReplicaReport, ReplicaState, TableReply, WatchAssignments,
};
use pegasus_wire::{Ballot, Configuration, Decree, NodeId, PartitionId, Status};

/// Nodes 1 to n, each with a connection of its own, and a table of 4 partitions of 3 replicas on the first three.
struct Membership {
    place: Place,
    server: Server,
    nodes: Vec<Caller>,
    operator: Caller,
}

impl Membership {
    async fn start(nodes: u64, guardian: GuardianConfig) -> Membership {
        let place = Place::new();
        let config = pegasus_meta::host::Config { guardian, ..place.config() };
        let server = Server::start(&config).await.unwrap();
        let operator = place.caller(Role::Client, server.address()).await;
        let mut cluster = Membership { place, server, nodes: Vec::new(), operator };
        for id in 1..=nodes {
            cluster.nodes.push(cluster.connect().await);
            cluster.node(id).register(id, port(id)).await;
            if id == 3 {
                let created = call!(cluster.operator, CREATE_TABLE, table("t", 3));
                assert_eq!(created.header.status, Status::Ok, "{:?}", created.error());
            }
        }
        cluster
    }

    async fn connect(&self) -> Caller {
        self.place.caller(Role::Replica, self.server.address()).await
    }

    fn node(&self, id: u64) -> &Caller {
        &self.nodes[id as usize - 1]
    }

    /// The node's connection is lost, and the server has noticed.
    async fn stop(&self, id: u64) {
        self.node(id).connection.close("test");
        self.until(|cluster| !cluster.nodes.iter().any(|node| node.info.node == NodeId(id) && node.info.alive)).await;
    }

    /// Waits until the cluster looks like that.
    async fn until(&self, holds: impl Fn(&pegasus_wire::messages::control::ClusterReply) -> bool) {
        let reached = async {
            while !holds(&self.operator.cluster().await) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap();
    }

    async fn configurations(&self) -> Vec<Configuration> {
        let answer = call!(self.operator, QUERY_TABLE, QueryTable { name: "t".to_owned() });
        answer.decode::<TableReply>().unwrap().partitions
    }

    /// A proposal that must be accepted, carried by whichever node is connected.
    async fn propose(&self, by: u64, partition: PartitionId, proposer: u64, members: &[u64]) {
        let in_force = &self.configurations().await[partition.index as usize];
        let configuration = Configuration {
            ballot: in_force.ballot.next(),
            primary: Some(NodeId(members[0])),
            secondaries: members[1..].iter().copied().map(NodeId).collect(),
        };
        let (proposer, expected_ballot) = (NodeId(proposer), in_force.ballot);
        let message = ProposeConfiguration { partition, proposer, expected_ballot, configuration };
        let answer = call!(self.node(by), PROPOSE_CONFIGURATION, message);
        assert_eq!(answer.header.status, Status::Ok, "{:?}", answer.error());
    }

    async fn diagnose(&self) -> Diagnosis {
        let answer = call!(self.operator, DIAGNOSE_PARTITIONS, DiagnosePartitions { table: None });
        assert_eq!(answer.header.status, Status::Ok, "{:?}", answer.error());
        answer.decode().unwrap()
    }

    async fn pending_watches(&self, count: u32) {
        let reached = async {
            while self.server.service().liveness.pending_watches() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap();
    }
}

fn port(id: u64) -> u16 {
    5000 + id as u16
}

/// A partition and its primary, as the first assignment has it.
const FIRST: PartitionId = PartitionId { table: pegasus_wire::TableId(1), index: 0 };

fn copy(partition: PartitionId, ballot: u64, state: ReplicaState) -> ReplicaReport {
    ReplicaReport { partition, ballot: Ballot(ballot), state, last: Decree(3) }
}

fn patient() -> GuardianConfig {
    GuardianConfig { return_time_ms: 600_000, learners_per_node: 4 }
}

#[tokio::test]
async fn a_watch_wakes_with_an_addition_when_a_node_comes_back() {
    let cluster = Membership::start(3, patient()).await;
    assert_eq!(cluster.configurations().await[0].primary, Some(NodeId(1)));
    // Node 3 goes away and is removed; everybody else is a member already.
    cluster.stop(3).await;
    cluster.propose(1, FIRST, 1, &[1, 2]).await;
    let before = cluster.node(1).watch(1, 0, 10_000).await;
    assert_eq!(before.additions, []);

    // Two watches wait. When node 3 registers again, that of the primary is answered, that of node 2 is not.
    let start = Instant::now();
    let quiet = cluster.node(2).watch(2, 0, 10_000).await.revision;
    let waiting = cluster.node(2).watch(2, quiet, 1_500);
    let woken = async {
        let answer = cluster.node(1).watch(1, before.revision, 10_000).await;
        (answer, start.elapsed())
    };
    let back = async {
        cluster.pending_watches(2).await;
        let again = cluster.connect().await;
        again.register_with(3, port(3), &[copy(FIRST, 1, ReplicaState::Whole)]).await;
        // It also shows itself as alive for a while.
        again
    };
    let ((woken, after), unmoved, _again) = tokio::join!(woken, waiting, back);
    assert_eq!(woken.additions, [Addition { partition: FIRST, ballot: Ballot(2), node: NodeId(3) }]);
    assert!(after < Duration::from_secs(5), "{after:?}");
    assert_ne!(woken.revision, before.revision, "a node that has seen the other answer knows that this one is new");
    assert_eq!((unmoved.revision, &unmoved.additions), (quiet, &vec![]), "nothing for node 2 to do");

    // It is repeated, and it goes away when it is done.
    let again = cluster.node(1).watch(1, woken.revision, 0).await;
    assert_eq!((again.additions, again.revision), (woken.additions, woken.revision));
    cluster.propose(1, FIRST, 1, &[1, 2, 3]).await;
    assert_eq!(cluster.node(1).watch(1, woken.revision, 10_000).await.additions, []);
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn a_sign_of_life_alone_wakes_the_primary() {
    let cluster = Membership::start(3, patient()).await;
    cluster.node(3).register_with(3, port(3), &[copy(FIRST, 1, ReplicaState::Whole)]).await;
    cluster.stop(3).await;
    cluster.propose(1, FIRST, 1, &[1, 2]).await;
    let before = cluster.node(1).watch(1, 0, 10_000).await;
    assert_eq!(before.additions, []);
    let start = Instant::now();
    let back = async {
        cluster.pending_watches(1).await;
        // Nothing is written: the node was registered all the time.
        let again = cluster.connect().await;
        again.watch(3, 0, 0).await;
        again
    };
    let (woken, again) = tokio::join!(cluster.node(1).watch(1, before.revision, 10_000), back);
    assert_eq!(woken.additions, [Addition { partition: FIRST, ballot: Ballot(2), node: NodeId(3) }]);
    // And when it goes again, the request goes with it.
    let gone = async {
        cluster.pending_watches(1).await;
        again.connection.close("test");
    };
    let (woken, ()) = tokio::join!(cluster.node(1).watch(1, woken.revision, 10_000), gone);
    assert_eq!(woken.additions, []);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn a_watch_wakes_with_another_addition_when_the_time_to_return_is_over() {
    let soon = GuardianConfig { return_time_ms: 4_000, learners_per_node: 4 };
    let cluster = Membership::start(4, soon).await;
    cluster.stop(3).await;
    cluster.propose(1, FIRST, 1, &[1, 2]).await;
    let stay = async {
        // Node 4 holds nothing, and is alive.
        let seen = cluster.node(4).watch(4, 0, 0).await.revision;
        cluster.node(4).watch(4, seen, 10_000).await
    };
    let wait = async {
        let first = cluster.node(1).watch(1, 0, 10_000).await;
        assert_eq!(first.additions, [], "node 3 has its time to return");
        cluster.node(1).watch(1, first.revision, 10_000).await
    };
    tokio::select! {
        answer = wait => {
            assert_eq!(answer.additions, [Addition { partition: FIRST, ballot: Ballot(2), node: NodeId(4) }]);
        }
        _ = stay => panic!("nothing changes for node 4"),
    }
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn an_addition_changes_with_the_ballot_in_the_same_answer() {
    let cluster = Membership::start(4, GuardianConfig { return_time_ms: 0, learners_per_node: 4 }).await;
    cluster.propose(1, FIRST, 1, &[1, 2]).await;
    let first = cluster.node(1).watch(1, 0, 10_000).await;
    assert_eq!(first.additions.len(), 1);
    for ballot in 3..10 {
        cluster.propose(1, FIRST, 1, &[1, 2]).await;
        // Never an answer with the new ballot and without its addition.
        let next = cluster.node(1).watch(1, 0, 10_000).await;
        let shown = next.partitions.iter().find(|one| one.partition == FIRST).unwrap().configuration.ballot;
        assert_eq!((shown, next.additions[0].ballot), (Ballot(ballot), Ballot(ballot)));
    }
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn a_copy_that_is_not_needed_is_removed() {
    let cluster = Membership::start(4, patient()).await;
    let others: Vec<ReplicaReport> =
        (1..4).map(|index| copy(PartitionId::new(1, index), 1, ReplicaState::Whole)).collect();
    let held = [&[copy(FIRST, 1, ReplicaState::Whole)][..], &others].concat();
    cluster.node(3).register_with(3, port(3), &held).await;
    cluster.propose(1, FIRST, 1, &[1, 2]).await;
    let asked = cluster.node(3).watch(3, 0, 10_000).await;
    assert_eq!((asked.removals.len(), asked.partitions.len()), (0, 3), "it may come back");
    cluster.propose(1, FIRST, 1, &[1, 2, 4]).await;
    let asked = cluster.node(3).watch(3, asked.revision, 10_000).await;
    assert_eq!(asked.removals, [Removal { partition: FIRST, ballot: Ballot(3) }]);
    // Done: it registers without the copy.
    cluster.node(3).register_with(3, port(3), &others).await;
    let after = cluster.node(3).watch(3, asked.revision, 10_000).await;
    assert_eq!(after.removals, []);
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn a_diagnosis_explains_what_is_not_whole() {
    let cluster = Membership::start(3, patient()).await;
    let whole = cluster.diagnose().await;
    assert_eq!((whole.examined, whole.partitions), (4, vec![]));

    cluster.stop(3).await;
    let found = cluster.diagnose().await;
    assert_eq!((found.examined, found.partitions.len()), (4, 4));
    assert!(found.partitions.iter().all(|one| !one.unavailable && one.table == "t" && one.replica_count == 3));
    let problem = "secondary node 0000000000000003 at 127.0.0.1:5003 is down: not heard of for";
    assert!(found.partitions[0].problems[0].starts_with(problem), "{found:?}");
    cluster.propose(1, FIRST, 1, &[1, 2]).await;
    let found = cluster.diagnose().await;
    assert!(found.partitions[0].waits_for.contains("former member node 0000000000000003"), "{found:?}");

    let missing = call!(cluster.operator, DIAGNOSE_PARTITIONS, DiagnosePartitions { table: Some("nope".to_owned()) });
    assert_eq!(missing.header.status, Status::NoSuchTable);
    assert!(explanation(&missing).contains("nope"));
    let metrics = cluster.server.service().metrics.render(cluster.server.service().gauges());
    for line in [
        "pegasus_meta_healthy_partitions 0",
        "pegasus_meta_degraded_partitions 4",
        "pegasus_meta_unavailable_partitions 0",
        "pegasus_meta_additions_asked 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in\n{metrics}");
    }
    cluster.stop(2).await;
    cluster.stop(1).await;
    let found = cluster.diagnose().await;
    assert!(found.partitions.iter().all(|one| one.unavailable), "{found:?}");
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn an_operator_forces_what_is_left() {
    let cluster = Membership::start(3, patient()).await;
    let force = |expected: u64, primary: u64, accept_loss| ForceConfiguration {
        partition: FIRST,
        expected_ballot: Ballot(expected),
        primary: NodeId(primary),
        accept_loss,
    };
    cluster.node(2).register_with(2, port(2), &[copy(FIRST, 1, ReplicaState::Uncertain)]).await;
    cluster.stop(1).await;
    cluster.stop(3).await;
    assert!(cluster.diagnose().await.partitions[0].unavailable);

    let refused = call!(cluster.operator, FORCE_CONFIGURATION, force(1, 2, false));
    assert_eq!(refused.header.status, Status::InvalidArgument);
    assert!(explanation(&refused).contains("accept_loss"));
    let refused = call!(cluster.operator, FORCE_CONFIGURATION, force(1, 3, true));
    assert!(explanation(&refused).contains("reported no copy"), "{}", explanation(&refused));
    let conflict = call!(cluster.operator, FORCE_CONFIGURATION, force(7, 2, true));
    assert_eq!(conflict.header.status, Status::BallotConflict);
    assert_eq!(conflict.decode::<ProposalReply>().unwrap().configuration.ballot, Ballot(1));

    // The node hears of it through its watch.
    let seen = cluster.node(2).watch(2, 0, 10_000).await.revision;
    let forced = async {
        cluster.pending_watches(1).await;
        call!(cluster.operator, FORCE_CONFIGURATION, force(1, 2, true))
    };
    let (answer, woken): (_, Assignments) = tokio::join!(forced, cluster.node(2).watch(2, seen, 10_000));
    assert_eq!(answer.header.status, Status::Ok, "{:?}", answer.error());
    let wanted = Configuration { ballot: Ballot(2), primary: Some(NodeId(2)), secondaries: vec![] };
    assert_eq!(answer.decode::<ProposalReply>().unwrap().configuration, wanted);
    assert_eq!(woken.partitions.iter().find(|one| one.partition == FIRST).unwrap().configuration, wanted);
    assert!(!cluster.diagnose().await.partitions[0].unavailable);
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn a_refused_takeover_says_why() {
    let cluster = Membership::start(3, patient()).await;
    cluster.node(2).register_with(2, port(2), &[copy(FIRST, 1, ReplicaState::Damaged)]).await;
    let message = ProposeConfiguration {
        partition: FIRST,
        proposer: NodeId(2),
        expected_ballot: Ballot(1),
        configuration: Configuration { ballot: Ballot(2), primary: Some(NodeId(2)), secondaries: vec![NodeId(3)] },
    };
    let refused = call!(cluster.node(2), PROPOSE_CONFIGURATION, message);
    assert_eq!(refused.header.status, Status::NotServing);
    assert!(explanation(&refused).contains("damaged; such a copy does not become primary"));
    assert_eq!(cluster.configurations().await[0].ballot, Ballot(1));
    // What a node may not ask in the name of the operator's role, it may not ask at all: the watch needs a node.
    let watch = WatchAssignments { node: NodeId(2), revision: 0, wait_ms: 0 };
    assert_eq!(call!(cluster.operator, WATCH_ASSIGNMENTS, watch).header.status, Status::Forbidden);
    cluster.server.shutdown().await;
}
