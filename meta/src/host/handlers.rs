//! One handler per message. Each decodes, checks the role, asks the group, and builds the frame that answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pegasus_rpc::Role;
use pegasus_wire::messages::ErrorReply;
use pegasus_wire::messages::control::{self, Assignments, ProposalReply, Registered};
use pegasus_wire::{Frame, FrameBuilder, FrameHeader, MessageKind, NodeId, Status, WireError};
use rkyv::api::high::HighSerializer;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use tokio::sync::watch;

use super::clock::Clock;
use super::group::{Group, GroupError};
use super::liveness::{ConnectionNumber, Liveness};
use super::metrics::{Gauges, Metrics};
use super::planner::Planner;
use super::service::stop_asked;
use crate::core::{Command, Outcome, Refusal, State, Tasks, health_counts, query};

/// What every handler needs. Clones share it.
#[derive(Clone)]
pub struct Service {
    /// The replicated state.
    pub group: Group,
    /// Who has been heard of.
    pub liveness: Liveness,
    /// What the guardian asks of the nodes.
    pub planner: Planner,
    /// The time of day.
    pub clock: Clock,
    /// How long a dropped table is held if nobody says otherwise.
    pub hold_seconds: u64,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where this server is reached.
    pub address: SocketAddr,
    /// True once the process is stopping.
    pub stopping: watch::Receiver<bool>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The role in the peer's certificate.
    pub role: Role,
    /// The connection the request came on.
    pub connection: ConnectionNumber,
    /// Where it comes from.
    pub peer: SocketAddr,
}

/// Who asks, as the log names them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    /// Where the request comes from.
    pub(super) peer: SocketAddr,
    /// The role in the certificate, or what stands in its place.
    pub(super) role: &'static str,
}

/// Why a request gets an error for an answer.
#[derive(Debug)]
pub(super) struct Failure {
    status: Status,
    reply: ErrorReply,
}

/// A handler's result: status and bytes of the answer frame.
pub(super) type Answer = Result<(Status, Vec<u8>), Failure>;

impl Service {
    /// Answers one request: the bytes of the answer frame. Never fails: errors are answers.
    pub async fn answer(&self, caller: Caller, frame: &Frame) -> Vec<u8> {
        let header = frame.header;
        let answer = self.dispatch(caller, frame).await;
        let (status, bytes) = match answer {
            Ok(answered) => answered,
            Err(failure) => {
                let mut bytes = Vec::new();
                FrameBuilder::append_error(&mut bytes, &header, failure.status, &failure.reply);
                (failure.status, bytes)
            }
        };
        self.metrics.count(header.kind, status);
        bytes
    }

    async fn dispatch(&self, caller: Caller, frame: &Frame) -> Answer {
        self.check_running()?;
        match frame.header.kind {
            MessageKind::REGISTER_NODE => self.register_node(caller, frame).await,
            MessageKind::WATCH_ASSIGNMENTS => self.watch_assignments(caller, frame).await,
            MessageKind::PROPOSE_CONFIGURATION => self.propose_configuration(caller, frame).await,
            MessageKind::CREATE_TABLE => self.create_table(frame).await,
            MessageKind::LIST_TABLES => self.list_tables(frame).await,
            MessageKind::QUERY_TABLE => self.query_table(frame).await,
            MessageKind::DROP_TABLE => self.drop_table(caller, frame).await,
            MessageKind::RECALL_TABLE => self.recall_table(caller, frame).await,
            MessageKind::RENAME_TABLE => self.rename_table(caller, frame).await,
            MessageKind::PURGE_TABLE => self.purge_table(caller, frame).await,
            MessageKind::CHANGE_ENVIRONMENT => self.change_environment(caller, frame).await,
            MessageKind::QUERY_CLUSTER => self.query_cluster(frame).await,
            MessageKind::DIAGNOSE_PARTITIONS => self.diagnose_partitions(frame).await,
            MessageKind::FORCE_CONFIGURATION => self.force_configuration(caller, frame).await,
            other => {
                Err(Failure::new(Status::Unsupported, format!("the meta service does not answer {other} requests")))
            }
        }
    }

    async fn register_node(&self, caller: Caller, frame: &Frame) -> Answer {
        caller.must_be_replica(frame)?;
        let message: control::RegisterNode = frame.decode()?;
        let (node, address) = (message.node, message.address);
        match self.propose(Command::RegisterNode(message.into())).await? {
            Outcome::Registered { cluster, displaced } => {
                self.liveness.heard_of(node, caller.connection, Instant::now());
                tracing::info!(%node, %address, "node registered");
                for loser in displaced {
                    tracing::warn!(node = %loser, winner = %node, %address, "node lost its address to another");
                }
                Ok(reply(frame, Status::Ok, &Registered { cluster }))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// The long poll. The node is alive as long as it waits here.
    async fn watch_assignments(&self, caller: Caller, frame: &Frame) -> Answer {
        caller.must_be_replica(frame)?;
        let message: control::WatchAssignments = frame.decode()?;
        if !self.group.leads() {
            return Err(GroupError::NotLeader { leader: None }.into());
        }
        let known = || self.group.read(|state| state.nodes().contains_key(&message.node));
        let unknown = || {
            let text = format!("node {} is not registered (any more); register first", message.node);
            Failure::new(Status::InvalidArgument, text)
        };
        if !known() {
            return Err(unknown());
        }
        let guard = self.liveness.watching(message.node, caller.connection, Instant::now());
        let wait = Duration::from_millis(u64::from(message.wait_ms)).min(WATCH_WAIT_MAX);
        let mut stopping = self.stopping.clone();
        tokio::select! {
            () = self.news(message.node, message.revision) => {}
            () = tokio::time::sleep(wait) => {}
            () = stop_asked(&mut stopping) => {
                return Err(Failure::new(Status::ShuttingDown, "the meta server is stopping"));
            }
        }
        drop(guard);
        if !known() {
            return Err(unknown());
        }
        let answer: Assignments = self.group.read_numbered(|state, changes| {
            let tasks = self.planner.tasks(state, changes);
            let tasks = tasks.get(&message.node).cloned().unwrap_or_default();
            query::assignments(state, message.node, &self.planner.heard(state), &tasks)
        });
        Ok(reply(frame, Status::Ok, &answer))
    }

    /// Resolves when the answer to this node's watch is another one than the one it has seen.
    async fn news(&self, node: NodeId, seen: u64) {
        let mut revision = self.group.watch_revision();
        let mut tasks = self.planner.watch_tasks();
        let number = |state: &State, changes: u64| {
            let tasks = self.planner.tasks(state, changes);
            query::watch_number(state, tasks.get(&node).unwrap_or(&Tasks::default()))
        };
        while self.group.read_numbered(number) == seen {
            let changed = tokio::select! {
                changed = revision.changed() => changed,
                changed = tasks.changed() => changed,
            };
            // An error means that the sender is gone, which is answered with what there is.
            if changed.is_err() {
                return;
            }
        }
    }

    async fn propose_configuration(&self, caller: Caller, frame: &Frame) -> Answer {
        caller.must_be_replica(frame)?;
        let message: control::ProposeConfiguration = frame.decode()?;
        match self.propose(Command::Propose(message.into())).await? {
            Outcome::Accepted { configuration } => Ok(reply(frame, Status::Ok, &ProposalReply { configuration })),
            Outcome::Conflict { configuration } => {
                Ok(reply(frame, Status::BallotConflict, &ProposalReply { configuration }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn query_cluster(&self, frame: &Frame) -> Answer {
        frame.decode::<control::QueryCluster>()?;
        Ok(reply(frame, Status::Ok, &self.confirmed_cluster().await?))
    }

    /// The cluster as the leader sees it.
    pub(super) async fn confirmed_cluster(&self) -> Result<control::ClusterReply, Failure> {
        self.group.confirm_lead().await?;
        self.cluster().ok_or_else(|| Refusal::NotFounded.into())
    }

    /// The cluster as this server sees it now.
    pub fn cluster(&self) -> Option<control::ClusterReply> {
        self.group.read(|state| query::cluster_reply(state, vec![self.address], &self.planner.heard(state)))
    }

    /// The numbers for the metrics page.
    pub fn gauges(&self) -> Gauges {
        let (leader, applied_index) = (u64::from(self.group.leads()), self.group.applied_index());
        self.group.read_numbered(|state, changes| {
            let heard = self.planner.heard(state);
            let health = health_counts(state, &heard);
            let tasks = self.planner.tasks(state, changes);
            Gauges {
                leader,
                applied_index,
                revision: state.revision(),
                nodes: state.nodes().len() as u64,
                live_nodes: state.nodes().keys().filter(|&&node| heard.is_alive(node)).count() as u64,
                tables: (state.tables().len() - state.dropped_count()) as u64,
                dropped_tables: state.dropped_count() as u64,
                partitions: state.available_partitions().count() as u64,
                healthy_partitions: u64::from(health.healthy),
                degraded_partitions: u64::from(health.degraded),
                unavailable_partitions: u64::from(health.unavailable),
                additions_asked: tasks.values().map(|one| one.additions.len() as u64).sum(),
                removals_asked: tasks.values().map(|one| one.removals.len() as u64).sum(),
                pending_watches: u64::from(self.liveness.pending_watches()),
            }
        })
    }

    /// Refuses whatever comes once the process is stopping.
    pub(super) fn check_running(&self) -> Result<(), Failure> {
        if *self.stopping.borrow() {
            return Err(Failure::new(Status::ShuttingDown, "the meta server is stopping"));
        }
        Ok(())
    }

    /// Carries out a command; a refusal becomes the answer.
    pub(super) async fn propose(&self, command: Command) -> Result<Outcome, Failure> {
        match self.group.propose(command).await? {
            Outcome::Refused(refusal) => {
                if let Refusal::NewerBallot { .. } | Refusal::WrongCluster { .. } = refusal {
                    tracing::error!("registration refused: {refusal}");
                }
                Err(refusal.into())
            }
            outcome => Ok(outcome),
        }
    }
}

impl Caller {
    pub(super) fn asker(&self) -> Asker {
        Asker { peer: self.peer, role: self.role.name() }
    }

    fn must_be_replica(&self, frame: &Frame) -> Result<(), Failure> {
        if self.role == Role::Replica {
            return Ok(());
        }
        let kind = frame.header.kind;
        Err(Failure::new(
            Status::Forbidden,
            format!("{kind} needs a certificate of the role replica, this one has the role {}", self.role),
        ))
    }
}

impl Failure {
    pub(super) fn new(status: Status, message: impl Into<String>) -> Failure {
        Failure { status, reply: ErrorReply::new(message) }
    }

    /// Which kind of error.
    pub(super) fn status(&self) -> Status {
        self.status
    }

    /// Where to go instead, if that is known.
    pub(super) fn endpoint(&self) -> Option<SocketAddr> {
        self.reply.endpoint
    }

    /// The explanation.
    pub(super) fn message(&self) -> &str {
        &self.reply.message
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Failure {
        Failure::new(Status::Malformed, error.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::new(refusal.status(), refusal.to_string())
    }
}

impl From<GroupError> for Failure {
    fn from(error: GroupError) -> Failure {
        let status = match &error {
            GroupError::NotLeader { .. } => Status::NotLeader,
            GroupError::Busy => Status::Busy,
            GroupError::OutcomeUnknown(_) => Status::OutcomeUnknown,
            GroupError::Stopped(_) => Status::ShuttingDown,
        };
        let message = error.to_string();
        let endpoint = if let GroupError::NotLeader { leader } = error { leader } else { None };
        Failure { status, reply: ErrorReply { message, endpoint } }
    }
}

pub(super) fn unexpected(outcome: &Outcome) -> Failure {
    tracing::error!(?outcome, "a command came back with the outcome of another");
    Failure::new(Status::Internal, "a command came back with the outcome of another; see the server's log")
}

/// An answer frame with a body. `core::limits` keeps every body within a frame.
pub(super) fn reply<T>(request: &Frame, status: Status, body: &T) -> (Status, Vec<u8>)
where
    T: for<'a> rkyv::Serialize<HighSerializer<&'a mut Vec<u8>, ArenaHandle<'a>, rancor::Error>>,
{
    let header = FrameHeader::answer(request.header.kind, request.header.request_id, status);
    let mut bytes = Vec::new();
    FrameBuilder::append(&mut bytes, header, body, &[]);
    (status, bytes)
}

/// The longest a watch waits.
const WATCH_WAIT_MAX: Duration = Duration::from_millis(10_000);
