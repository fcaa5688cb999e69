//! What operators ask of the meta service.
#![allow(clippy::unwrap_used)]

mod support;

use pegasus_client::{Ballot, NodeId, PartitionId};
use pegasus_wire::MessageKind;

use support::{Cluster, Fault};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_diagnosed() {
    let cluster = Cluster::start(4).await;
    let diagnosis = cluster.client.diagnose_partitions(Some("temp")).await.unwrap();
    assert_eq!(diagnosis.examined, 4);
    let [case] = &diagnosis.partitions[..] else { panic!("{diagnosis:?}") };
    assert_eq!((case.table.as_str(), case.unavailable, case.waits_for.as_str()), ("temp", true, "nothing"));
    let all = cluster.client.diagnose_partitions(None).await.unwrap();
    assert_eq!(all.partitions[0].table, "all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_is_forced_once_however_often_it_is_asked_for() {
    let cluster = Cluster::start(4).await;
    let partition = PartitionId::new(1, 3);
    // The request is carried out and its answer lost.
    cluster.meta.fault(Fault::CloseAfter);
    let forced = cluster.client.force_configuration(partition, Ballot(2), NodeId(2)).await.unwrap();
    assert!(forced.accepted);
    assert_eq!((forced.configuration.ballot, forced.configuration.primary), (Ballot(3), Some(NodeId(2))));
    assert!(forced.configuration.secondaries.is_empty());
    assert_eq!(cluster.meta.requests(MessageKind::FORCE_CONFIGURATION), 2);
    let refused = cluster.client.force_configuration(partition, Ballot(2), NodeId(1)).await.unwrap();
    assert!(!refused.accepted);
    assert_eq!(refused.configuration, forced.configuration, "what is in force is told");
}
