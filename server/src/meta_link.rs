//! The node's side of the meta service: registration, the watch for assignments, proposals of configurations.
//!
//! Runs on the administration thread. It only carries messages: it never decides anything about a partition.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_channel::{mpsc, oneshot};
use futures_util::{SinkExt, StreamExt};
use pegasus_rpc::{Alpn, Endpoint, Reconnecting, Role};
use pegasus_wire::messages::control::{Assignments, ProposalReply, RegisterNode, Registered, WatchAssignments};
use pegasus_wire::{Advice, Frame, FrameBuilder, MessageKind, Status};

use crate::control::{CoreReport, CoreSenders, ToCore, ToMeta};
use crate::node::NodeShared;
use crate::tables::{KnownTables, Told};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);
/// How long a watch asks the meta service to wait for news.
const WATCH: Duration = Duration::from_secs(2);
/// Pause after a failed round of all meta servers.
const BACKOFF: Duration = Duration::from_millis(200);
/// Least time between two registrations because copies changed: many change together.
const REGISTER_PAUSE: Duration = Duration::from_millis(300);

/// Calls whichever meta server answers as leader.
pub struct MetaClient {
    servers: Vec<Reconnecting>,
    addresses: Vec<SocketAddr>,
    preferred: AtomicUsize,
}

impl MetaClient {
    /// A client of these servers.
    pub fn new(endpoint: &Endpoint, addresses: &[SocketAddr]) -> MetaClient {
        let connect = |address: &SocketAddr| Reconnecting::new(endpoint.clone(), *address, Role::Meta, Alpn::Meta);
        MetaClient {
            servers: addresses.iter().map(connect).collect(),
            addresses: addresses.to_vec(),
            preferred: AtomicUsize::new(0),
        }
    }

    /// One call to the preferred server. On failure, or when it is not the leader, the next call goes to another.
    async fn call(
        &self,
        kind: MessageKind,
        patience: Duration,
        build: impl FnOnce(&mut Vec<u8>, pegasus_wire::FrameHeader),
    ) -> Result<Frame, String> {
        let preferred = self.preferred.load(Ordering::Relaxed) % self.servers.len();
        let address = self.addresses[preferred];
        match self.servers[preferred].call(kind, Instant::now() + patience, build).await {
            Ok(frame) if frame.header.status.advice() == Advice::RefreshRoute => {
                let hint = frame.error().and_then(|error| error.endpoint);
                let next = hint.and_then(|hint| self.addresses.iter().position(|address| *address == hint));
                self.preferred.store(next.unwrap_or(preferred + 1), Ordering::Relaxed);
                Err(format!("meta server {address} is not the leader"))
            }
            Ok(frame) => Ok(frame),
            Err(error) => {
                self.preferred.store(preferred + 1, Ordering::Relaxed);
                Err(format!("meta server {address}: {error}"))
            }
        }
    }
}

/// Registers and watches for ever. Returns only on an error that no retry can mend (wrong cluster, refused).
pub async fn watch(shared: Arc<NodeShared>, meta: Arc<MetaClient>, mut cores: CoreSenders) -> String {
    let mut said = String::new();
    let mut tables = KnownTables::default();
    loop {
        match register_and_watch(&shared, &meta, &mut cores, &mut tables).await {
            Lost::Transient(reason) => {
                if reason != said {
                    tracing::warn!(%reason, "no contact with the meta service; trying again");
                    said = reason;
                }
                tokio::time::sleep(BACKOFF).await;
            }
            Lost::Final(reason) => return reason,
        }
    }
}

/// Why a round of registration and watching ended.
enum Lost {
    Transient(String),
    Final(String),
}

async fn register_and_watch(
    shared: &NodeShared,
    meta: &MetaClient,
    cores: &mut CoreSenders,
    tables: &mut KnownTables,
) -> Lost {
    let registered = match register(shared, meta, cores).await {
        Ok(registered) => registered,
        Err(lost) => return lost,
    };
    if let Err(reason) = shared.adopt_cluster(registered.cluster) {
        return Lost::Final(reason);
    }
    tracing::info!(cluster = %registered.cluster, node = %shared.node, "registered with the meta service");
    let reporters = cores.clone();
    tokio::select! {
        lost = watch_assignments(shared, meta, cores, tables) => lost,
        lost = register_changes(shared, meta, &reporters) => lost,
    }
}

async fn watch_assignments(
    shared: &NodeShared,
    meta: &MetaClient,
    cores: &mut CoreSenders,
    tables: &mut KnownTables,
) -> Lost {
    let mut revision = 0;
    loop {
        let watch = WatchAssignments { node: shared.node, revision, wait_ms: WATCH.as_millis() as u32 };
        let answer = meta
            .call(MessageKind::WATCH_ASSIGNMENTS, WATCH + CALL, |out, header| {
                FrameBuilder::append(out, header, &watch, &[]);
            })
            .await;
        let assignments = match answer.and_then(|frame| decode_ok::<Assignments>(&frame)) {
            Ok(assignments) => assignments,
            Err(reason) => return Lost::Transient(reason),
        };
        let news = assignments.revision != revision;
        revision = assignments.revision;
        // What is asked for is said again until it is done, also while nothing changes.
        if (news || !assignments.additions.is_empty() || !assignments.removals.is_empty())
            && let Err(lost) = pass_on(tables.take(assignments), news, cores).await
        {
            return lost;
        }
    }
}

/// Registers again whenever copies of this node have changed.
async fn register_changes(shared: &NodeShared, meta: &MetaClient, cores: &CoreSenders) -> Lost {
    loop {
        shared.copies_changed.notified().await;
        tokio::time::sleep(REGISTER_PAUSE).await;
        if let Err(lost) = register(shared, meta, cores).await {
            return lost;
        }
    }
}

/// Gives an answer of the watch to every core.
async fn pass_on(told: Told, news: bool, cores: &mut CoreSenders) -> Result<(), Lost> {
    let told = Arc::new(told);
    for core in cores.iter_mut() {
        let told = told.clone();
        let message = if news { ToCore::Assignments(told) } else { ToCore::Tasks(told) };
        core.send(message).await.map_err(|_| Lost::Final("a core has stopped".to_owned()))?;
    }
    Ok(())
}

async fn register(shared: &NodeShared, meta: &MetaClient, cores: &CoreSenders) -> Result<Registered, Lost> {
    let reports = reports(cores).await;
    let request = RegisterNode {
        cluster: shared.cluster(),
        node: shared.node,
        address: shared.config.listen,
        admin_address: shared.config.admin_listen,
        cores: shared.config.cores,
        replicas: reports.iter().flat_map(|report| report.replicas.iter().copied()).collect(),
    };
    let frame = meta
        .call(MessageKind::REGISTER_NODE, CALL, |out, header| FrameBuilder::append(out, header, &request, &[]))
        .await
        .map_err(Lost::Transient)?;
    match frame.header.status {
        Status::WrongCluster | Status::Forbidden | Status::InvalidArgument => {
            let message = frame.error().map_or_else(|| frame.header.status.to_string(), |error| error.message);
            Err(Lost::Final(format!("the meta service refuses this node: {message}")))
        }
        _ => decode_ok::<Registered>(&frame).map_err(Lost::Transient),
    }
}

/// Asks every core for its state; a core that has stopped is left out.
pub async fn reports(cores: &CoreSenders) -> Vec<CoreReport> {
    let mut reports = Vec::with_capacity(cores.len());
    for core in cores {
        let (answer, report) = oneshot::channel();
        if core.clone().send(ToCore::Report(answer)).await.is_ok()
            && let Ok(report) = report.await
        {
            reports.push(report);
        }
    }
    reports
}

/// Carries proposals to the meta service, each in a task of its own, and the answers back to the cores.
pub async fn carry_proposals(meta: Arc<MetaClient>, mut proposals: mpsc::Receiver<ToMeta>, cores: CoreSenders) {
    while let Some(ToMeta { core, proposal }) = proposals.next().await {
        let meta = meta.clone();
        let mut back = cores[usize::from(core)].clone();
        tokio::spawn(async move {
            let partition = proposal.partition;
            let answer = meta
                .call(MessageKind::PROPOSE_CONFIGURATION, CALL, |out, header| {
                    FrameBuilder::append(out, header, &proposal, &[]);
                })
                .await;
            let in_force = match answer.and_then(|frame| decode_proposal(&frame)) {
                Ok(reply) => Some(reply.configuration),
                Err(reason) => {
                    tracing::warn!(%partition, %reason, "a proposal to the meta service was not decided");
                    tokio::time::sleep(BACKOFF).await;
                    None
                }
            };
            // A core that has stopped needs no answer.
            let _ = back.send(ToCore::ProposalAnswered { partition, in_force }).await;
        });
    }
}

fn decode_proposal(frame: &Frame) -> Result<ProposalReply, String> {
    match frame.header.status {
        Status::Ok | Status::BallotConflict => frame.decode().map_err(|error| error.to_string()),
        status => Err(frame.error().map_or_else(|| status.to_string(), |error| error.message)),
    }
}

fn decode_ok<T>(frame: &Frame) -> Result<T, String>
where
    T: rkyv::Archive,
    T::Archived: for<'v> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'v, rkyv::rancor::Error>>
        + rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<rkyv::rancor::Error>>,
{
    match frame.header.status {
        Status::Ok => frame.decode().map_err(|error| error.to_string()),
        status => Err(frame.error().map_or_else(|| status.to_string(), |error| error.message)),
    }
}
