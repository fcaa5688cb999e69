//! What a node keeps about each copy of a partition besides its rows: one small durable file per copy.
//!
//! ```text
//! <data>/replicas/<table>.<index>/      directory of a copy
//!     descriptor                        this file
//!     rdb-<incarnation>/                the rows (see `table`)
//! ```
//!
//! The descriptor names the incarnation, the incarnation names the directory of the rows and is in every log record:
//! so replacing this one file replaces the whole copy, at one moment (see `copies`). A higher ballot is durable here
//! before anything of that ballot is answered. Recovery skips log records whose incarnation has no descriptor. All
//! functions block: run them in a pool.
//!
//! This module must never decide what a state means for the protocol, and never make a copy up: an absent or
//! damaged descriptor is reported as such.

use std::fs;
use std::path::{Path, PathBuf};

use pegasus_wire::limits::{MEMBERS_MAX, TABLE_NAME_BYTES_MAX};
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Durability, NodeId, PartitionId, ReplicaIncarnation, TableProperties,
};

use crate::durable_file::{BodyReader, FileKind, create_directory, failed};
pub use crate::durable_file::{FileError, Loaded};
use crate::identity::BootId;

/// What a copy is worth.
///
/// ```text
///            has everything its primary has
///   Learning ------------------------------> Whole
///    ^  ^                                    |   |  files or log damaged
///    |  +------------------------------------+   v
///    |     asked to learn, or set aside       Damaged
///    +------------------------------------------+
///           made anew, empty
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CopyState {
    /// It has everything it acknowledged.
    Whole = 0,
    /// It is being made from another copy; it never takes over, and a gap in its log is no damage.
    Learning = 1,
    /// It lost something it had acknowledged; it must not serve, acknowledge or count.
    Damaged = 2,
}

impl CopyState {
    fn from_code(code: u8) -> Option<CopyState> {
        [CopyState::Whole, CopyState::Learning, CopyState::Damaged].into_iter().find(|state| *state as u8 == code)
    }
}

/// The durable facts about one copy.
///
/// Invariants: `table.table == partition.table`; `partition.index < table.partition_count`; at most `MEMBERS_MAX`
/// members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The cluster the copy belongs to.
    pub cluster: ClusterId,
    /// The table's properties.
    pub table: TableProperties,
    /// Which partition it is a copy of.
    pub partition: PartitionId,
    /// Tells this copy from earlier ones of the same partition on this node.
    pub incarnation: ReplicaIncarnation,
    /// The highest ballot this copy agreed to, and its members.
    pub configuration: Configuration,
    /// What the copy is worth.
    pub state: CopyState,
    /// The boot of the machine under which the copy last acknowledged: see [`Descriptor::uncertain`].
    pub boot_id: BootId,
}

impl Descriptor {
    /// Replaces the descriptor in the directory of its copy, atomically and durably.
    pub fn store(&self, copy_directory: &Path) -> Result<(), FileError> {
        KIND.store(&descriptor_path(copy_directory), &self.encode_body())
    }

    /// Reads the descriptor in the directory of a copy.
    pub fn load(copy_directory: &Path) -> Result<Loaded<Descriptor>, FileError> {
        Ok(match KIND.load(&descriptor_path(copy_directory))? {
            Loaded::Absent => Loaded::Absent,
            Loaded::Damaged(detail) => Loaded::Damaged(detail),
            Loaded::Valid(body) => match Descriptor::decode_body(&body) {
                Some(descriptor) => Loaded::Valid(descriptor),
                None => Loaded::Damaged("its body is not a descriptor".to_owned()),
            },
        })
    }

    /// True if the copy may have lost what it acknowledged: it was whole, its table acknowledges what is only
    /// `written`, and the machine was booted since the descriptor was stored. Never for a `synced` table. A learning
    /// copy claims nothing, and a damaged one is worth nothing, so neither is uncertain.
    pub fn uncertain(&self, boot: BootId) -> bool {
        self.state == CopyState::Whole && self.table.durability == Durability::Written && self.boot_id != boot
    }

    /// The boot id to put into every later descriptor of this copy, as long as it has not been learned again.
    ///
    /// An uncertain copy keeps the one it was found with: with the present one, a mere restart of the process would
    /// make it look certain. A descriptor that ends the uncertainty (of a new incarnation, of a learner that became
    /// whole, of a primary made from the best of uncertain copies) is stored with the present boot.
    pub fn boot_id_to_keep(&self, boot: BootId) -> BootId {
        if self.uncertain(boot) { self.boot_id } else { boot }
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        KIND.encode(&self.encode_body())
    }

    fn encode_body(&self) -> Vec<u8> {
        debug_assert_eq!(self.table.table, self.partition.table, "a copy belongs to its partition's table");
        debug_assert!(self.configuration.members().count() <= MEMBERS_MAX, "limits.rs bounds the members");
        debug_assert!(self.table.name.len() <= TABLE_NAME_BYTES_MAX, "limits.rs bounds the name");
        let mut body = Vec::with_capacity(256);
        body.extend_from_slice(&self.cluster.0.to_le_bytes());
        body.extend_from_slice(&self.partition.table.0.to_le_bytes());
        body.extend_from_slice(&self.partition.index.to_le_bytes());
        body.extend_from_slice(&self.incarnation.0.to_le_bytes());
        body.extend_from_slice(&self.boot_id.0);
        body.extend_from_slice(&self.table.partition_count.to_le_bytes());
        body.push(self.table.replica_count);
        body.push(durability_code(self.table.durability));
        body.push(self.state as u8);
        body.push(self.table.name.len() as u8);
        body.extend_from_slice(self.table.name.as_bytes());
        body.extend_from_slice(&self.configuration.ballot.0.to_le_bytes());
        body.push(u8::from(self.configuration.primary.is_some()));
        body.push(self.configuration.members().count() as u8);
        for member in self.configuration.members() {
            body.extend_from_slice(&member.0.to_le_bytes());
        }
        body
    }

    fn decode_body(body: &[u8]) -> Option<Descriptor> {
        let mut body = BodyReader(body);
        let cluster = ClusterId(body.u64()?);
        let partition = PartitionId::new(body.u32()?, body.u32()?);
        let incarnation = ReplicaIncarnation(body.u64()?);
        let boot_id = BootId(body.array()?);
        let partition_count = body.u32()?;
        let replica_count = body.u8()?;
        let durability = durability_from_code(body.u8()?)?;
        let state = CopyState::from_code(body.u8()?)?;
        let name_bytes = usize::from(body.u8()?);
        let name = std::str::from_utf8(body.bytes(name_bytes)?).ok()?.to_owned();
        let configuration = decode_configuration(&mut body)?;
        let table = TableProperties { table: partition.table, name, partition_count, replica_count, durability };
        let whole = body.0.is_empty() && partition.index < partition_count;
        whole.then_some(Descriptor { cluster, table, partition, incarnation, configuration, state, boot_id })
    }
}

/// Directory of the copy of a partition in a node's data directory.
pub fn copy_directory(data_directory: &Path, partition: PartitionId) -> PathBuf {
    replicas_directory(data_directory).join(partition.to_string())
}

/// Directory of the rows of one incarnation inside the directory of its copy.
pub fn table_directory(copy_directory: &Path, incarnation: ReplicaIncarnation) -> PathBuf {
    copy_directory.join(format!("rdb-{incarnation}"))
}

/// Makes the directory of a new copy of a new partition and stores its first descriptor there; its table is made when
/// it is opened. The directory may exist already, left by a crash in the middle of this.
pub fn create_copy(data_directory: &Path, descriptor: &Descriptor) -> Result<PathBuf, FileError> {
    let directory = copy_directory(data_directory, descriptor.partition);
    create_directory(&directory)?;
    descriptor.store(&directory)?;
    Ok(directory)
}

/// A directory that looks like a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedCopy {
    /// The partition its name says it is a copy of.
    pub partition: PartitionId,
    /// The directory.
    pub directory: PathBuf,
    /// Its descriptor. A descriptor of another partition than the directory's is reported as damaged.
    pub descriptor: Loaded<Descriptor>,
}

/// All copies in a node's data directory, by partition. Names that are no partitions are left alone.
pub fn list(data_directory: &Path) -> Result<Vec<ListedCopy>, FileError> {
    let replicas = replicas_directory(data_directory);
    let entries = match fs::read_dir(&replicas) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed(&replicas, "list"))?,
    };
    let mut copies = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed(&replicas, "list"))?;
        let Some(partition) = entry.file_name().to_str().and_then(canonical_partition) else { continue };
        let directory = entry.path();
        let descriptor = match Descriptor::load(&directory)? {
            Loaded::Valid(found) if found.partition != partition => {
                Loaded::Damaged(format!("it is the descriptor of partition {}", found.partition))
            }
            other => other,
        };
        copies.push(ListedCopy { partition, directory, descriptor });
    }
    copies.sort_by_key(|copy| copy.partition);
    Ok(copies)
}

/// Directory of the copies.
pub fn replicas_directory(data_directory: &Path) -> PathBuf {
    data_directory.join("replicas")
}

fn descriptor_path(copy_directory: &Path) -> PathBuf {
    copy_directory.join("descriptor")
}

/// The partition a directory is named after, if it is named exactly as this module names it.
fn canonical_partition(name: &str) -> Option<PartitionId> {
    name.parse::<PartitionId>().ok().filter(|partition| partition.to_string() == name)
}

fn decode_configuration(body: &mut BodyReader<'_>) -> Option<Configuration> {
    let ballot = Ballot(body.u64()?);
    let has_primary = match body.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let count = usize::from(body.u8()?);
    if count > MEMBERS_MAX || (has_primary && count == 0) {
        return None;
    }
    let mut members = (0..count).map(|_| body.u64().map(NodeId)).collect::<Option<Vec<_>>>()?;
    let primary = has_primary.then(|| members.remove(0));
    Some(Configuration { ballot, primary, secondaries: members })
}

fn durability_code(durability: Durability) -> u8 {
    match durability {
        Durability::Synced => 0,
        Durability::Written => 1,
    }
}

fn durability_from_code(code: u8) -> Option<Durability> {
    match code {
        0 => Some(Durability::Synced),
        1 => Some(Durability::Written),
        _ => None,
    }
}

/// Version 1 has the same body; under it the rows were in `rdb`, whatever the incarnation.
const KIND: FileKind = FileKind { magic: *b"PEGCOPY\n", version: 2 };
