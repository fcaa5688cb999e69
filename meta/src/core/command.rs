//! What may be asked of the state, and what comes of it.

use std::collections::{BTreeMap, BTreeSet};

use pegasus_wire::messages::control::{self, EnvironmentEntry, ReplicaState};
use pegasus_wire::{Ballot, ClusterId, Configuration, Decree, Durability, NodeId, PartitionId, TableId};
use serde::{Deserialize, Serialize};

use super::refusal::Refusal;
use super::state::NodeAddresses;

/// A change. It carries everything its outcome depends on besides the state, so that every member of the Raft
/// group, and every replay, comes to the same result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Names the cluster, once. Later ones change nothing and are told the name.
    FoundCluster {
        /// Drawn at random by the host.
        cluster: ClusterId,
    },
    /// A node announces itself.
    RegisterNode(RegisterNode),
    /// An operator wants a table.
    CreateTable(CreateTable),
    /// An operator wants a table with these settings from its first moment on.
    CreateTableWith {
        /// The table. If it exists, it is as asked only if its environment is.
        table: CreateTable,
        /// Its environment.
        environment: BTreeMap<String, String>,
    },
    /// A member wants a new configuration.
    Propose(Propose),
    /// An operator makes one node the only member.
    Force(Force),
    /// An operator drops a table.
    DropTable(DropTable),
    /// An operator takes a dropped table back.
    RecallTable(RecallTable),
    /// An operator gives a table another name.
    RenameTable(RenameTable),
    /// An operator, or the passing of time, deletes a dropped table.
    PurgeTable(PurgeTable),
    /// An operator changes a table's environment.
    ChangeEnvironment(ChangeEnvironment),
}

/// A node announces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterNode {
    /// The cluster the node belongs to; `None` on its first start.
    pub cluster: Option<ClusterId>,
    /// The node.
    pub node: NodeId,
    /// Where it listens.
    pub addresses: NodeAddresses,
    /// Every copy it holds.
    pub reports: Vec<Report>,
}

/// One copy of a partition on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Report {
    /// The partition.
    pub partition: PartitionId,
    /// The highest ballot in the copy's descriptor; 0 if there is no copy.
    pub ballot: Ballot,
    /// What there is.
    pub state: ReplicaState,
    /// The last decree in its log or table when the node started.
    pub last: Decree,
}

/// An operator wants a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTable {
    /// Its name.
    pub name: String,
    /// A power of two, 1 to `PARTITION_COUNT_MAX`.
    pub partition_count: u32,
    /// 1 to `MEMBERS_MAX`.
    pub replica_count: u8,
    /// When writes may be acknowledged.
    pub durability: Durability,
    /// Succeed if a table of this name and these properties exists.
    pub if_not_exists: bool,
    /// The nodes that were alive when the request arrived. Liveness is no part of the state.
    pub live: BTreeSet<NodeId>,
}

/// A member wants a new configuration: compare-and-swap on the ballot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propose {
    /// The partition.
    pub partition: PartitionId,
    /// Who asks.
    pub proposer: NodeId,
    /// The ballot the proposer believes to be in force.
    pub expected_ballot: Ballot,
    /// What it wants, under the next ballot.
    pub configuration: Configuration,
}

/// An operator makes one node the only member, whatever the others hold: compare-and-swap on the ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Force {
    /// The partition.
    pub partition: PartitionId,
    /// The ballot the operator looked at.
    pub expected_ballot: Ballot,
    /// Who becomes primary and only member.
    pub primary: NodeId,
    /// The operator accepts that acknowledged writes may be lost; refused otherwise.
    pub accept_loss: bool,
}

/// An operator drops a table: it serves nothing from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropTable {
    /// Its name.
    pub name: String,
    /// How long its rows are held, at most `HOLD_SECONDS_MAX`.
    pub hold_seconds: u64,
    /// Succeed if there is no such table.
    pub if_exists: bool,
    /// Unix second at which the request arrived. Clocks are no part of the state.
    pub now_seconds: u64,
}

/// An operator takes a dropped table back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallTable {
    /// Its number.
    pub table: TableId,
    /// Its name from now on; `None` for the one it had.
    pub name: Option<String>,
}

/// An operator gives a table another name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameTable {
    /// The name it has.
    pub name: String,
    /// The name it gets.
    pub new_name: String,
}

/// Deletes a dropped table for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeTable {
    /// Its number.
    pub table: TableId,
    /// Only if its holding time is over at this Unix second: what the host asks for when a time has come. It may have
    /// been recalled, and dropped again, since the host looked. `None`: an operator does not wait.
    pub due_at_seconds: Option<u64>,
}

/// An operator changes a table's environment: all of it is valid and in force, or nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeEnvironment {
    /// The table's name.
    pub name: String,
    /// Delete every setting first.
    pub clear: bool,
    /// Then delete these; one that is not set is no error.
    pub delete: Vec<String>,
    /// Then set these, each once.
    pub set: Vec<(String, String)>,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The cluster has this name: the one asked for, or the one it had before.
    Founded {
        /// The name in force.
        cluster: ClusterId,
    },
    /// The node is registered.
    Registered {
        /// The cluster it now belongs to.
        cluster: ClusterId,
        /// Nodes that lost their address to this one.
        displaced: Vec<NodeId>,
    },
    /// The table exists.
    TableReady {
        /// Its number.
        table: TableId,
        /// False if it existed before and `if_not_exists` allowed that.
        created: bool,
    },
    /// The table was dropped, recalled or renamed, or its environment changed, as asked.
    TableChanged {
        /// Its number.
        table: TableId,
        /// False if it was like that before; nothing changed then.
        changed: bool,
    },
    /// There is no table to drop, and `if_exists` allowed that.
    NothingToDrop,
    /// The table is gone.
    TablePurged {
        /// Its number.
        table: TableId,
        /// False if it was gone before.
        changed: bool,
    },
    /// The proposal is in force (it may have been before).
    Accepted {
        /// The configuration in force.
        configuration: Configuration,
    },
    /// The proposal named a ballot that is not in force; nothing changed.
    Conflict {
        /// The configuration in force.
        configuration: Configuration,
    },
    /// The command breaks a rule; nothing changed.
    Refused(Refusal),
}

impl From<control::RegisterNode> for RegisterNode {
    fn from(message: control::RegisterNode) -> RegisterNode {
        let report = |report: control::ReplicaReport| Report {
            partition: report.partition,
            ballot: report.ballot,
            state: report.state,
            last: report.last,
        };
        RegisterNode {
            cluster: message.cluster,
            node: message.node,
            addresses: NodeAddresses {
                address: message.address,
                admin_address: message.admin_address,
                cores: message.cores,
            },
            reports: message.replicas.into_iter().map(report).collect(),
        }
    }
}

impl CreateTable {
    /// The command for a request, with the nodes alive at its arrival.
    pub fn from_request(message: control::CreateTable, live: BTreeSet<NodeId>) -> CreateTable {
        CreateTable {
            name: message.name,
            partition_count: message.partition_count,
            replica_count: message.replica_count,
            durability: message.durability,
            if_not_exists: message.if_not_exists,
            live,
        }
    }
}

impl From<control::ProposeConfiguration> for Propose {
    fn from(message: control::ProposeConfiguration) -> Propose {
        Propose {
            partition: message.partition,
            proposer: message.proposer,
            expected_ballot: message.expected_ballot,
            configuration: message.configuration,
        }
    }
}

impl From<control::ForceConfiguration> for Force {
    fn from(message: control::ForceConfiguration) -> Force {
        Force {
            partition: message.partition,
            expected_ballot: message.expected_ballot,
            primary: message.primary,
            accept_loss: message.accept_loss,
        }
    }
}

impl DropTable {
    /// The command for a request that arrived at this Unix second; `hold_seconds` for one that names no time.
    pub fn from_request(message: control::DropTable, hold_seconds: u64, now_seconds: u64) -> DropTable {
        DropTable {
            name: message.name,
            hold_seconds: message.hold_seconds.unwrap_or(hold_seconds),
            if_exists: message.if_exists,
            now_seconds,
        }
    }
}

impl From<control::RecallTable> for RecallTable {
    fn from(message: control::RecallTable) -> RecallTable {
        RecallTable { table: message.table, name: message.name }
    }
}

impl From<control::RenameTable> for RenameTable {
    fn from(message: control::RenameTable) -> RenameTable {
        RenameTable { name: message.name, new_name: message.new_name }
    }
}

impl From<control::PurgeTable> for PurgeTable {
    fn from(message: control::PurgeTable) -> PurgeTable {
        PurgeTable { table: message.table, due_at_seconds: None }
    }
}

impl From<control::ChangeEnvironment> for ChangeEnvironment {
    fn from(message: control::ChangeEnvironment) -> ChangeEnvironment {
        let pair = |EnvironmentEntry { key, value }| (key, value);
        ChangeEnvironment {
            name: message.name,
            clear: message.clear,
            delete: message.delete,
            set: message.set.into_iter().map(pair).collect(),
        }
    }
}
