//! The Raft group that replicates the core: today one member, and the same code path as several.
//!
//! ```text
//! propose() -> bounded queue -> batch -> one Raft entry -> synced -> applied -> outcomes
//! ```
//!
//! Commands that arrive while an entry is being written become one entry together, so a thousand partitions that
//! ask for a new ballot after a restart cost a handful of syncs.
//!
//! What several members still need: a [`RaftNetwork`] over the transport (here every peer is honestly unreachable),
//! a way to tell a member who its peers are, and a change of membership when an address changes. Everything else
//! (redirection to the leader, reads that first make sure of being leader, snapshots) is in place.

use std::io::Cursor;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{
    CheckIsLeaderError, ClientWriteError, Fatal, ForwardToLeader, InstallSnapshotError, RPCError, RaftError,
    Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{BasicNode, Config, Raft, RaftNetwork, RaftNetworkFactory, SnapshotPolicy};
use pegasus_wire::ClusterId;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::log_store::LogStore;
use super::state_machine::{Applied, StateMachine};
use super::store::{Store, StoreError};
use crate::core::{Command, Outcome, State};

openraft::declare_raft_types!(
    /// What Raft replicates here.
    pub TypeConfig:
        D = Batch,
        R = Outcomes,
        NodeId = u64,
        Node = BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        Responder = openraft::impls::OneshotResponder<TypeConfig>,
        AsyncRuntime = openraft::TokioRuntime,
);

/// A log entry.
pub type Entry = openraft::Entry<TypeConfig>;

/// Commands that came together; one Raft entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch(pub Vec<Command>);

/// What came of each command of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes(pub Vec<Outcome>);

/// This member of the group. Clones share it.
#[derive(Clone)]
pub struct Group {
    raft: Raft<TypeConfig>,
    applied: Arc<Applied>,
    proposals: mpsc::Sender<Proposal>,
}

/// A command that waits for its outcome.
struct Proposal {
    command: Command,
    answer: oneshot::Sender<Result<Outcome, GroupError>>,
}

/// Why a command or a read was not carried out.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum GroupError {
    /// Another member leads, or none.
    #[error("this meta server is not the leader")]
    NotLeader {
        /// Where the leader is, if known.
        leader: Option<SocketAddr>,
    },
    /// More commands wait than the queue holds.
    #[error("too many changes are waiting to be written")]
    Busy,
    /// Raft stopped while the command was under way; it may or may not take effect.
    #[error("the meta service stopped while the change was being written: {0}")]
    OutcomeUnknown(String),
    /// Raft is not running.
    #[error("the meta service is stopping: {0}")]
    Stopped(String),
}

/// Why the group did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Raft itself.
    #[error("Raft did not start: {0}")]
    Raft(String),
}

impl Group {
    /// Opens the data directory and starts this member. Returns once it leads and has applied everything
    /// committed, and the cluster has a name. `address` is where the other servers reach this member; `name` names
    /// the cluster if it has no name yet.
    pub async fn start(directory: &Path, address: SocketAddr, name: ClusterId) -> Result<Group, StartError> {
        let directory = directory.to_owned();
        let open = move || -> Result<(LogStore, StateMachine), StoreError> {
            let store = Store::open(&directory)?;
            Ok((LogStore::new(store.clone()), StateMachine::open(store)?))
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let (log, machine) = opened.map_err(|error| StartError::Raft(error.to_string()))??;
        let applied = machine.applied();
        let raft = Raft::new(MEMBER, Arc::new(raft_config()), NoPeers, log, machine).await.map_err(not_started)?;
        take_the_lead(&raft, address).await?;

        let (proposals, queue) = mpsc::channel(PROPOSALS_MAX);
        tokio::spawn(write_batches(raft.clone(), queue));
        let group = Group { raft, applied, proposals };
        if group.read(|state| state.cluster().is_none()) {
            group.propose(Command::FoundCluster { cluster: name }).await.map_err(not_started)?;
        }
        Ok(group)
    }

    /// Replicates and applies one command. Dropping the future does not take the command back.
    pub async fn propose(&self, command: Command) -> Result<Outcome, GroupError> {
        let (answer, outcome) = oneshot::channel();
        self.proposals.try_send(Proposal { command, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => GroupError::Busy,
            mpsc::error::TrySendError::Closed(_) => GroupError::Stopped("no writer".to_owned()),
        })?;
        outcome.await.unwrap_or_else(|_| Err(GroupError::OutcomeUnknown("the writer is gone".to_owned())))
    }

    /// Makes sure that this member leads and has applied everything that was committed before the call.
    pub async fn confirm_lead(&self) -> Result<(), GroupError> {
        match self.raft.ensure_linearizable().await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => Err(not_leader(&forward)),
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                Err(GroupError::NotLeader { leader: None })
            }
            Err(RaftError::Fatal(fatal)) => Err(GroupError::Stopped(fatal.to_string())),
        }
    }

    /// Looks at the applied state. `look` must be short.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.applied.read(look)
    }

    /// Looks at the applied state and the number of changes that led to it on this server. `look` must be short.
    pub fn read_numbered<T>(&self, look: impl FnOnce(&State, u64) -> T) -> T {
        self.applied.read_numbered(look)
    }

    /// Tells when something was applied.
    pub fn watch_changes(&self) -> watch::Receiver<u64> {
        self.applied.watch_changes()
    }

    /// Tells when the state's revision has moved.
    pub fn watch_revision(&self) -> watch::Receiver<u64> {
        self.applied.watch_revision()
    }

    /// True while this member leads and Raft runs.
    pub fn leads(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.running_state.is_ok() && metrics.current_leader == Some(MEMBER)
    }

    /// Index of the last entry applied by this member; 0 before the first.
    pub fn applied_index(&self) -> u64 {
        self.raft.metrics().borrow().last_applied.map_or(0, |log_id| log_id.index)
    }

    /// Asks Raft to take a snapshot now; it also does so by itself every few thousand entries.
    pub async fn snapshot(&self) -> Result<(), GroupError> {
        self.raft.trigger().snapshot().await.map_err(|fatal| GroupError::Stopped(fatal.to_string()))
    }

    /// Waits until a snapshot covers the entry with this index.
    pub async fn wait_for_snapshot(&self, index: u64) {
        let mut metrics = self.raft.metrics();
        // An error means that Raft is gone, and no snapshot will come.
        metrics.wait_for(|metrics| metrics.snapshot.is_some_and(|covered| covered.index >= index)).await.ok();
    }

    /// Resolves when Raft has stopped by itself, with the reason. Then the process must end: what it would answer
    /// can no longer be trusted to be durable.
    pub async fn failed(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_and_update().running_state {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "Raft is gone".to_owned();
            }
        }
    }

    /// Stops Raft. Commands under way are answered with an error.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!("Raft did not stop in order: {error}");
        }
    }
}

/// Raft's parameters. Heartbeat and election timeouts matter only once there are several members.
fn raft_config() -> Config {
    Config {
        cluster_name: "pegasus-meta".to_owned(),
        heartbeat_interval: 250,
        election_timeout_min: 1000,
        election_timeout_max: 2000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
        max_in_snapshot_log_to_keep: SNAPSHOT_ENTRIES / 4,
        ..Config::default()
    }
}

async fn take_the_lead(raft: &Raft<TypeConfig>, address: SocketAddr) -> Result<(), StartError> {
    if raft.is_initialized().await.map_err(not_started)? {
        // A single member need not wait for its election timeout.
        raft.trigger().elect().await.map_err(not_started)?;
    } else {
        let members = std::collections::BTreeMap::from([(MEMBER, BasicNode::new(address))]);
        raft.initialize(members).await.map_err(not_started)?;
    }
    raft.wait(Some(START_TIMEOUT)).current_leader(MEMBER, "start").await.map_err(not_started)?;
    let confirm = raft.ensure_linearizable();
    tokio::time::timeout(START_TIMEOUT, confirm).await.map_err(not_started)?.map_err(not_started)?;
    Ok(())
}

fn not_started(error: impl std::fmt::Display) -> StartError {
    StartError::Raft(error.to_string())
}

/// Writes what gathered while the last entry was under way as the next entry.
async fn write_batches(raft: Raft<TypeConfig>, mut queue: mpsc::Receiver<Proposal>) {
    let mut gathered = Vec::with_capacity(BATCH_MAX);
    while queue.recv_many(&mut gathered, BATCH_MAX).await > 0 {
        let (commands, answers): (Vec<Command>, Vec<_>) =
            gathered.drain(..).map(|proposal| (proposal.command, proposal.answer)).unzip();
        let results = write_batch(&raft, commands).await;
        for (answer, result) in answers.into_iter().zip(results) {
            // An error here means that nobody waits any more.
            answer.send(result).ok();
        }
    }
}

/// One result per command.
async fn write_batch(raft: &Raft<TypeConfig>, commands: Vec<Command>) -> Vec<Result<Outcome, GroupError>> {
    let count = commands.len();
    let error = match raft.client_write(Batch(commands)).await {
        Ok(response) if response.data.0.len() == count => return response.data.0.into_iter().map(Ok).collect(),
        Ok(_) => GroupError::OutcomeUnknown("an entry came back with another number of outcomes".to_owned()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => not_leader(&forward),
        Err(RaftError::APIError(other)) => GroupError::OutcomeUnknown(other.to_string()),
        Err(RaftError::Fatal(Fatal::Stopped)) => GroupError::OutcomeUnknown("shutting down".to_owned()),
        Err(RaftError::Fatal(fatal)) => GroupError::OutcomeUnknown(fatal.to_string()),
    };
    vec![Err(error); count]
}

fn not_leader(forward: &ForwardToLeader<u64, BasicNode>) -> GroupError {
    let leader = forward.leader_node.as_ref().and_then(|node| node.addr.parse().ok());
    GroupError::NotLeader { leader }
}

/// The network of a group of one: there is nobody to reach, and it says so.
struct NoPeers;

/// The error of [`NoPeers`].
#[derive(Debug, thiserror::Error)]
#[error("this release runs a single meta server; there is no connection to other members")]
struct SingleMember;

impl RaftNetworkFactory<TypeConfig> for NoPeers {
    type Network = NoPeers;

    async fn new_client(&mut self, _target: u64, _node: &BasicNode) -> NoPeers {
        NoPeers
    }
}

impl RaftNetwork<TypeConfig> for NoPeers {
    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        Err(Unreachable::new(&SingleMember).into())
    }

    async fn install_snapshot(
        &mut self,
        _request: InstallSnapshotRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RPCError<u64, BasicNode, RaftError<u64, InstallSnapshotError>>> {
        Err(Unreachable::new(&SingleMember).into())
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        Err(Unreachable::new(&SingleMember).into())
    }
}

/// This member's number in the group.
const MEMBER: u64 = 1;
/// Commands that may wait; beyond it they are refused as busy.
const PROPOSALS_MAX: usize = 16 * 1024;
/// Commands of one entry.
const BATCH_MAX: usize = 256;
/// Entries between two snapshots.
const SNAPSHOT_ENTRIES: u64 = 4096;
/// A start that takes longer has failed.
const START_TIMEOUT: Duration = Duration::from_secs(10);
