//! One table of the state.

use std::collections::BTreeMap;

use pegasus_wire::messages::control::{EnvironmentEntry, TableDescription, TableState};
use pegasus_wire::{Ballot, Configuration, NodeId, TableProperties};
use serde::{Deserialize, Serialize};

/// One table. Fields with a default were not written by the releases of format 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// What its partitions share. The durability is the one it was made with, whatever its environment says.
    pub properties: TableProperties,
    /// Whether it serves.
    #[serde(default)]
    pub state: TableState,
    /// Its settings, as they were set; all of them are valid.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The name it had before it was last renamed, until another table takes that name.
    #[serde(default)]
    pub renamed_from: Option<String>,
    /// Configuration of each partition, by index.
    pub partitions: Vec<Configuration>,
    /// Who left each partition, by index, the newest last; no entry for a partition that nobody left.
    pub former: BTreeMap<u32, Vec<FormerMember>>,
}

/// A node that was a member of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerMember {
    /// The node.
    pub node: NodeId,
    /// Ballot of the first configuration without it.
    pub ballot: Ballot,
}

impl Table {
    /// A new table, which serves.
    pub(super) fn new(properties: TableProperties, partitions: Vec<Configuration>) -> Table {
        Table {
            properties,
            state: TableState::Available,
            environment: BTreeMap::new(),
            renamed_from: None,
            partitions,
            former: BTreeMap::new(),
        }
    }

    /// True unless it was dropped.
    pub fn is_available(&self) -> bool {
        self.state == TableState::Available
    }

    /// The Unix second from which on its rows may be deleted for good; `None` while it serves.
    pub fn purge_seconds(&self) -> Option<u64> {
        match self.state {
            TableState::Available => None,
            TableState::Dropped { purge_seconds, .. } => Some(purge_seconds),
        }
    }

    /// Its environment as messages carry it, in the order of the keys.
    pub fn environment_entries(&self) -> Vec<EnvironmentEntry> {
        entries(&self.environment)
    }

    /// Everything that may change in its life.
    pub fn description(&self) -> TableDescription {
        TableDescription {
            properties: self.properties.clone(),
            environment: self.environment_entries(),
            state: self.state,
        }
    }
}

/// Settings as messages carry them.
pub(super) fn entries(environment: &BTreeMap<String, String>) -> Vec<EnvironmentEntry> {
    let entry = |(key, value): (&String, &String)| EnvironmentEntry { key: key.clone(), value: value.clone() };
    environment.iter().map(entry).collect()
}

/// At least what settings take in a message.
pub(super) fn environment_bytes(environment: &BTreeMap<String, String>) -> usize {
    environment.iter().map(|(key, value)| key.len() + value.len() + ENTRY_BYTES).sum()
}

/// What a setting takes in a message besides its text.
const ENTRY_BYTES: usize = 32;
