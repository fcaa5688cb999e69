//! The meta service, played by the test: it grants every proposal whose ballot fits, unless it is told not to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pegasus_rpc::{Alpn, Endpoint, EndpointOptions, Outbox, Role, Runtime};
use pegasus_wire::messages::control::{
    Addition, Assignments, EnvironmentEntry, PartitionConfiguration, ProposalReply, ProposeConfiguration, RegisterNode,
    Registered, Removal, ReplicaReport, ReplicaState, TableDescription, TableState, WatchAssignments,
};
use pegasus_wire::{
    Configuration, Durability, Frame, FrameBuilder, FrameHeader, MessageKind, NodeId, NodeInfo, PartitionId, Status,
    TableProperties,
};
use tokio::sync::watch;

use super::{CLUSTER, table};
use crate::support::{PATIENCE, Scene};

/// What it knows and has heard.
#[derive(Default)]
pub(crate) struct MetaState {
    pub(crate) nodes: BTreeMap<NodeId, NodeInfo>,
    pub(crate) configurations: BTreeMap<PartitionId, Configuration>,
    pub(crate) additions: Vec<Addition>,
    pub(crate) removals: Vec<Removal>,
    pub(crate) reports: BTreeMap<NodeId, Vec<ReplicaReport>>,
    pub(crate) proposals: Vec<ProposeConfiguration>,
    /// Nodes that have heard what is in force, since they were last restarted.
    pub(crate) informed: BTreeSet<NodeId>,
    pub(crate) registrations: usize,
    /// Of the table.
    pub(crate) durability: Durability,
    /// Of the table.
    pub(crate) environment: Vec<EnvironmentEntry>,
    /// Of the table.
    pub(crate) table_state: TableState,
    /// Of the table, if it was renamed.
    pub(crate) name: Option<String>,
    /// Other tables.
    pub(crate) others: Vec<TableDescription>,
}

impl MetaState {
    /// What a node last said of its copy.
    pub(crate) fn report(&self, node: NodeId, partition: PartitionId) -> Option<ReplicaState> {
        let report = self.reports.get(&node)?.iter().find(|report| report.partition == partition)?;
        Some(report.state)
    }
}

/// A handle; clones are the same service.
#[derive(Clone)]
pub(crate) struct PlayedMeta {
    state: Arc<Mutex<MetaState>>,
    revision: watch::Sender<u64>,
}

impl PlayedMeta {
    /// Listens where the nodes of the scene look for it.
    pub(crate) fn start(scene: &Scene) -> PlayedMeta {
        let options = EndpointOptions { cluster: Some(CLUSTER), accepts: &[Alpn::Meta] };
        let identity = scene.identity(Role::Meta);
        let endpoint = Endpoint::bind(Runtime::tokio(), scene.meta_address(), identity, options).expect("a port");
        let meta = PlayedMeta { state: Arc::default(), revision: watch::Sender::new(1) };
        let serving = meta.clone();
        tokio::spawn(async move {
            while let Some(connection) = endpoint.accept().await {
                let meta = serving.clone();
                tokio::spawn(async move {
                    while let Some((writer, mut reader)) = connection.accept().await {
                        let (meta, outbox) = (meta.clone(), Outbox::start(&Runtime::tokio(), writer));
                        tokio::spawn(async move {
                            while let Ok(Some(frame)) = reader.next().await {
                                tokio::spawn(meta.clone().answer(frame, outbox.clone()));
                            }
                        });
                    }
                });
            }
        });
        meta
    }

    fn lock(&self) -> MutexGuard<'_, MetaState> {
        self.state.lock().expect("no test panics while it holds it")
    }

    /// Changes what it knows and tells the nodes.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut MetaState) -> T) -> T {
        let changed = change(&mut self.lock());
        self.revision.send_modify(|revision| *revision += 1);
        changed
    }

    /// Puts a configuration in force, whatever was.
    pub(crate) fn assign(&self, partition: PartitionId, configuration: Configuration) {
        self.change(|state| state.configurations.insert(partition, configuration));
    }

    /// Waits until something holds.
    pub(crate) async fn wait_for<T>(&self, what: &str, holds: impl Fn(&MetaState) -> Option<T>) -> T {
        let mut revisions = self.revision.subscribe();
        let look = async {
            loop {
                revisions.borrow_and_update();
                if let Some(found) = holds(&self.lock()) {
                    return found;
                }
                revisions.changed().await.expect("the service lives");
            }
        };
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(found) => found,
            Err(_) => {
                let (configurations, reports) = {
                    let state = self.lock();
                    (state.configurations.clone(), state.reports.clone())
                };
                panic!("waited for {what}: {configurations:?} {reports:?}")
            }
        }
    }

    /// Waits for the real node of the scene.
    pub(crate) async fn wait_for_node(&self, scene: &Scene) -> NodeId {
        let address = scene.node_address();
        let is_real = |state: &MetaState| {
            let mut nodes = state.nodes.values();
            nodes.find(|info| info.address == address && state.reports.contains_key(&info.node)).map(|info| info.node)
        };
        self.wait_for("the node to register", is_real).await
    }

    fn assignments(&self, node: NodeId) -> Assignments {
        let revision = *self.revision.borrow();
        let state = self.lock();
        let of_node = state.configurations.iter().filter(|(_, configuration)| configuration.contains(node));
        let partitions = of_node.map(|(&partition, configuration)| PartitionConfiguration {
            partition,
            configuration: configuration.clone(),
        });
        let leads = |partition| state.configurations.get(&partition).is_some_and(|known| known.primary == Some(node));
        let name = state.name.clone().unwrap_or(table().name);
        let described = TableDescription {
            properties: TableProperties { name, durability: state.durability, ..table() },
            environment: state.environment.clone(),
            state: state.table_state,
        };
        Assignments {
            revision,
            tables: state.others.iter().cloned().chain([described]).collect(),
            partitions: partitions.collect(),
            nodes: state.nodes.values().cloned().collect(),
            additions: state.additions.iter().filter(|addition| leads(addition.partition)).copied().collect(),
            removals: state.removals.clone(),
        }
    }

    async fn answer(self, frame: Frame, outbox: Outbox) {
        let header = FrameHeader::answer(frame.header.kind, frame.header.request_id, Status::Ok);
        let _ = match frame.header.kind {
            MessageKind::REGISTER_NODE => {
                self.register(frame.decode().expect("a registration"));
                let registered = Registered { cluster: CLUSTER };
                outbox.push(|out| FrameBuilder::append(out, header, &registered, &[]))
            }
            MessageKind::WATCH_ASSIGNMENTS => {
                let asked: WatchAssignments = frame.decode().expect("a watch");
                if asked.revision != 0 && self.lock().informed.insert(asked.node) {
                    self.revision.send_modify(|_| ());
                }
                let mut revisions = self.revision.subscribe();
                let news = revisions.wait_for(|revision| *revision != asked.revision);
                let _ = tokio::time::timeout(Duration::from_millis(asked.wait_ms.into()), news).await;
                outbox.push(|out| FrameBuilder::append(out, header, &self.assignments(asked.node), &[]))
            }
            MessageKind::PROPOSE_CONFIGURATION => {
                let (status, configuration) = self.propose(frame.decode().expect("a proposal"));
                let header = FrameHeader { status, ..header };
                outbox.push(|out| FrameBuilder::append(out, header, &ProposalReply { configuration }, &[]))
            }
            kind => panic!("a node does not send {kind} to the meta service"),
        };
    }

    fn register(&self, node: RegisterNode) {
        let RegisterNode { node, address, admin_address, cores, replicas, .. } = node;
        self.change(|state| {
            state.nodes.insert(node, NodeInfo { node, address, admin_address, cores, alive: true });
            state.reports.insert(node, replicas);
            state.registrations += 1;
        });
    }

    fn propose(&self, proposal: ProposeConfiguration) -> (Status, Configuration) {
        self.change(|state| {
            let known = state.configurations.entry(proposal.partition).or_default();
            if known.ballot == proposal.expected_ballot {
                known.clone_from(&proposal.configuration);
            }
            let known = known.clone();
            let status = if known == proposal.configuration { Status::Ok } else { Status::BallotConflict };
            state.additions.retain(|addition| !known.contains(addition.node));
            state.proposals.push(proposal);
            (status, known)
        })
    }
}
