//! Recovery of a node's logs and copies, and the move of windows when the number of cores changed.
//!
//! ```text
//! <data>/layout                      which generation is in force, and for how many cores
//! <data>/log/<generation>/core-<i>/  the log of core i
//! <data>/replicas/<table>.<index>/   one copy: descriptor, rdb-<incarnation>/
//! ```
//!
//! When the number of cores changed: what is committed is applied and flushed here; each core then appends the
//! windows of the partitions it owns now to its log in the *next* generation and syncs them; when all have, the
//! `layout` file switches over and the old generation is deleted. A crash before the switch repeats everything, a
//! crash after it only repeats the deletion.
//!
//! Runs before any executor serves, on the starting thread; it may block.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pegasus_engine::copies::clear_leftovers;
use pegasus_engine::descriptor::{CopyState, Descriptor, list, table_directory};
use pegasus_engine::durable_file::{FileKind, Loaded};
use pegasus_engine::identity::BootId;
use pegasus_engine::log::{
    LogOptions, LogRecord, LogRecovery, RecordKind, RecoveredPartition, RecoveryCopy, RecoveryScope,
    recover as recover_log,
};
use pegasus_engine::table::{ApplyMode, OpenMode, Table};
use pegasus_replication::Recovered;
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Ballot, Decree, Mutation, PartitionId, owner_core};

use crate::node::{NodeError, NodeShared};

/// Mutations applied in one batch during recovery.
const APPLY_BATCH: usize = 256;

/// What recovery found, by core.
pub struct Plan {
    /// One entry for each core, in order.
    pub cores: Vec<CoreRecovery>,
    /// Set when the number of cores changed.
    pub relocation: Option<Relocation>,
}

/// What one core starts with.
pub struct CoreRecovery {
    /// Where and how its log is kept.
    pub log_options: LogOptions,
    /// What its log holds.
    pub log: LogRecovery,
    /// The copies it owns.
    pub copies: Vec<RecoveredCopy>,
    /// Copies of which nothing is known but that they are here, and what is wrong with them.
    pub unfit: Vec<(PartitionId, String)>,
}

/// One copy as recovery left it.
pub struct RecoveredCopy {
    /// Its durable facts.
    pub descriptor: Descriptor,
    /// Its table and protocol state, or why it is unfit.
    pub state: Result<OpenedCopy, String>,
}

/// A copy that is fit to serve.
pub struct OpenedCopy {
    /// The rows.
    pub table: Table,
    /// Where the replica goes on.
    pub recovered: Recovered,
    /// What survives without the log.
    pub flushed: Decree,
}

/// Windows on their way to the logs of their new owners.
pub struct Relocation {
    windows: BTreeMap<PartitionId, Vec<LogRecord>>,
    cores: u16,
    from: LayoutFile,
    next: LayoutFile,
}

impl Relocation {
    /// The records that core `core` appends to its log before it serves.
    pub fn records_of(&self, core: u16) -> impl Iterator<Item = &LogRecord> {
        let owned = move |id: &PartitionId| owner_core(*id, self.cores) == core;
        self.windows.iter().filter(move |(id, _)| owned(id)).flat_map(|(_, records)| records)
    }
}

/// The `layout` file: u64 generation, u16 cores, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LayoutFile {
    generation: u64,
    cores: u16,
}

const LAYOUT_KIND: FileKind = FileKind { magic: *b"PEGLAYO\n", version: 1 };

impl LayoutFile {
    fn path(data_directory: &Path) -> PathBuf {
        data_directory.join("layout")
    }

    fn load(data_directory: &Path) -> Result<Option<LayoutFile>, NodeError> {
        let path = LayoutFile::path(data_directory);
        match LAYOUT_KIND.load(&path).map_err(|error| NodeError::new("layout", error))? {
            Loaded::Absent => Ok(None),
            Loaded::Damaged(detail) => Err(NodeError(format!(
                "{} is damaged ({detail}): restore it, or empty the data directory and let the node join anew",
                path.display()
            ))),
            Loaded::Valid(body) => {
                let decoded = body.split_first_chunk::<8>().and_then(|(generation, rest)| {
                    let cores = u16::from_le_bytes(rest.try_into().ok()?);
                    (cores > 0).then(|| LayoutFile { generation: u64::from_le_bytes(*generation), cores })
                });
                decoded.map(Some).ok_or_else(|| NodeError(format!("{} has an impossible body", path.display())))
            }
        }
    }

    fn store(&self, data_directory: &Path) -> Result<(), NodeError> {
        let mut body = self.generation.to_le_bytes().to_vec();
        body.extend_from_slice(&self.cores.to_le_bytes());
        LAYOUT_KIND.store(&LayoutFile::path(data_directory), &body).map_err(|error| NodeError::new("layout", error))
    }

    fn directory(&self, data_directory: &Path) -> PathBuf {
        data_directory.join("log").join(self.generation.to_string())
    }
}

/// Recovers everything the node holds.
pub fn recover(shared: &NodeShared) -> Result<Plan, NodeError> {
    let data = &shared.config.data_directory;
    let boot = BootId::current().map_err(|error| NodeError::new("boot id", error))?;
    let cores = shared.config.cores;
    let cleared = clear_leftovers(data).map_err(|error| NodeError::new("copies", error))?;
    tracing::debug!(?cleared, "what earlier runs left over");
    let (mut copies, mut unfit) = open_copies(shared, boot)?;
    let current = match LayoutFile::load(data)? {
        Some(layout) => layout,
        None if copies.is_empty() && unfit.is_empty() => {
            let layout = LayoutFile { generation: 1, cores };
            layout.store(data)?;
            layout
        }
        None => {
            return Err(NodeError(format!(
                "{} is missing although there are copies: restore it, or empty the data directory",
                LayoutFile::path(data).display()
            )));
        }
    };
    let mut logs = Vec::new();
    for core in 0..current.cores {
        logs.push(recover_core_log(shared, current, core, boot, &mut copies)?);
    }
    if current.cores == cores {
        let plan = logs.into_iter().enumerate().map(|(core, (log_options, log))| {
            let copies = take_owned(&mut copies, core, cores).into_values().collect();
            CoreRecovery { log_options, log, copies, unfit: take_owned(&mut unfit, core, cores).into_iter().collect() }
        });
        return Ok(Plan { cores: plan.collect(), relocation: None });
    }
    relocate(shared, current, boot, copies, unfit)
}

/// Copies whose descriptor is damaged, and what is wrong with it.
type Unfit = BTreeMap<PartitionId, String>;

/// Opens every copy's table; a copy that cannot be opened because it is damaged is kept, and refuses to serve.
fn open_copies(shared: &NodeShared, boot: BootId) -> Result<(BTreeMap<PartitionId, RecoveredCopy>, Unfit), NodeError> {
    let listed = list(&shared.config.data_directory).map_err(|error| NodeError::new("copies", error))?;
    let (mut copies, mut unfit) = (BTreeMap::new(), Unfit::new());
    for found in listed {
        let descriptor = match found.descriptor {
            Loaded::Valid(descriptor) => descriptor,
            Loaded::Absent => {
                tracing::warn!(directory = %found.directory.display(), "a copy without descriptor: left over, ignored");
                continue;
            }
            Loaded::Damaged(detail) => {
                let problem = format!("the descriptor of partition {} is damaged: {detail}", found.partition);
                say_damaged(found.partition, &problem);
                unfit.insert(found.partition, problem);
                continue;
            }
        };
        let state = match descriptor.state {
            CopyState::Whole | CopyState::Learning => open_copy(shared, &descriptor, &found.directory, boot)?,
            CopyState::Damaged => Err(format!("partition {} was found damaged earlier", found.partition)),
        };
        let copy = RecoveredCopy { descriptor, state };
        if let Err(problem) = &copy.state {
            say_damaged(found.partition, problem);
            mark_damaged(&copy.descriptor, &found.directory)?;
        }
        copies.insert(found.partition, copy);
    }
    Ok((copies, unfit))
}

fn say_damaged(partition: PartitionId, problem: &str) {
    tracing::error!(%partition, %problem, "this copy is damaged and refuses to serve");
}

fn open_copy(
    shared: &NodeShared,
    descriptor: &Descriptor,
    directory: &Path,
    boot: BootId,
) -> Result<Result<OpenedCopy, String>, NodeError> {
    let state = match descriptor.state {
        CopyState::Learning => ReplicaState::Learning,
        _ if descriptor.uncertain(boot) => ReplicaState::Uncertain,
        _ => ReplicaState::Whole,
    };
    if state == ReplicaState::Uncertain {
        tracing::warn!(
            partition = %descriptor.partition,
            "the machine restarted: under durability `written` this copy may lack what it acknowledged; it learns \
             again, unless all members are in this state"
        );
    }
    let never_prepared = state == ReplicaState::Whole && descriptor.configuration.ballot == Ballot::ASSIGNMENT;
    let mode = if never_prepared { OpenMode::CreateIfMissing } else { OpenMode::Existing };
    let rows = table_directory(directory, descriptor.incarnation);
    match Table::open(&rows, &shared.tables, descriptor.partition, mode) {
        Ok(table) => {
            let recovered = Recovered {
                applied: table.applied(),
                committed: table.applied(),
                timestamp_micros: table.last_timestamp_micros(),
                state,
                ..Recovered::empty(descriptor.configuration.clone())
            };
            Ok(Ok(OpenedCopy { flushed: table.flushed(), recovered, table }))
        }
        Err(error) if error.is_damage() => Ok(Err(error.to_string())),
        Err(error) => Err(NodeError::new(format!("partition {}", descriptor.partition), error)),
    }
}

fn mark_damaged(descriptor: &Descriptor, directory: &Path) -> Result<(), NodeError> {
    if descriptor.state == CopyState::Damaged {
        return Ok(());
    }
    let marked = Descriptor { state: CopyState::Damaged, ..descriptor.clone() };
    marked.store(directory).map_err(|error| NodeError::new(format!("partition {}", descriptor.partition), error))
}

/// Reads one core's log and gives each copy what it holds of it. Damage is durable in the descriptors before this
/// returns: opening the log takes note that it was reported.
fn recover_core_log(
    shared: &NodeShared,
    layout: LayoutFile,
    core: u16,
    boot: BootId,
    copies: &mut BTreeMap<PartitionId, RecoveredCopy>,
) -> Result<(LogOptions, LogRecovery), NodeError> {
    let options = log_options(shared, layout, core, boot);
    let scope: RecoveryScope = copies
        .iter()
        .filter(|(id, _)| owner_core(**id, layout.cores) == core)
        .filter_map(|(id, copy)| {
            let opened = copy.state.as_ref().ok()?;
            Some((*id, RecoveryCopy { incarnation: copy.descriptor.incarnation, flushed: opened.flushed }))
        })
        .collect();
    let mut log =
        recover_log(&options, &scope).map_err(|error| NodeError::new(format!("log of core {core}"), error))?;
    let damaged = log.damaged_partitions(&scope);
    let partitions = std::mem::take(&mut log.partitions);
    for (id, found) in partitions {
        if let Some(copy) = copies.get_mut(&id) {
            take_records(copy, found);
        }
    }
    refuse_damaged(shared, copies, &damaged, &scope)?;
    Ok((options, log))
}

/// Takes copies that lost records out of service, durably.
fn refuse_damaged(
    shared: &NodeShared,
    copies: &mut BTreeMap<PartitionId, RecoveredCopy>,
    damaged: &BTreeSet<PartitionId>,
    scope: &RecoveryScope,
) -> Result<(), NodeError> {
    for id in scope.keys() {
        let Some(copy) = copies.get_mut(id) else { continue };
        // A copy that learns has promised nothing.
        if damaged.contains(id) && copy.descriptor.state != CopyState::Learning {
            // Also where a gap was found already: this is what the gap comes from.
            copy.state = Err(format!("synced log records of partition {id} are lost"));
        }
        if let Err(problem) = &copy.state {
            say_damaged(*id, problem);
            mark_damaged(
                &copy.descriptor,
                &pegasus_engine::descriptor::copy_directory(&shared.config.data_directory, *id),
            )?;
        }
    }
    Ok(())
}

/// Gives a copy the records that the log holds beyond its table. For one that learns, what lies behind a gap is simply
/// not there.
fn take_records(copy: &mut RecoveredCopy, mut found: RecoveredPartition) {
    let id = copy.descriptor.partition;
    let Ok(opened) = &mut copy.state else { return };
    if copy.descriptor.state == CopyState::Learning {
        let through = found.contiguous_through();
        found.records.retain(|record| record.decree <= through);
        found.committed = found.committed.min(through);
    }
    if found.has_gap() {
        copy.state = Err(format!("the log of partition {id} has a gap after decree {}", found.contiguous_through()));
        return;
    }
    let last = found.contiguous_through();
    if found.committed > last {
        copy.state =
            Err(format!("the log of partition {id} ends at decree {last}, below its commit point {}", found.committed));
        return;
    }
    opened.recovered.committed = opened.recovered.committed.max(found.committed);
    opened.recovered.promised = opened.recovered.promised.max(found.ballot);
    let applied = opened.recovered.applied;
    opened.recovered.mutations =
        found.records.into_iter().filter(|record| record.decree > applied).filter_map(mutation_of).collect();
}

/// The mutation that a record holds; `None` for a truncation.
pub(crate) fn mutation_of(record: LogRecord) -> Option<Mutation> {
    let RecordKind::Mutation(kind) = record.kind else { return None };
    Some(Mutation {
        ballot: record.ballot,
        decree: record.decree,
        timestamp_micros: record.timestamp_micros,
        kind,
        payload: record.payload,
    })
}

fn log_options(shared: &NodeShared, layout: LayoutFile, core: u16, boot: BootId) -> LogOptions {
    let directory = layout.directory(&shared.config.data_directory).join(format!("core-{core}"));
    LogOptions {
        segment_bytes: shared.config.log.segment_bytes,
        budget_bytes: shared.config.log.budget_bytes,
        ..LogOptions::new(directory, boot)
    }
}

fn take_owned<T>(of: &mut BTreeMap<PartitionId, T>, core: usize, cores: u16) -> BTreeMap<PartitionId, T> {
    of.extract_if(.., |id, _| usize::from(owner_core(*id, cores)) == core).collect()
}

/// Prepares the move to another number of cores: flushes what is committed, collects the windows.
fn relocate(
    shared: &NodeShared,
    from: LayoutFile,
    boot: BootId,
    mut copies: BTreeMap<PartitionId, RecoveredCopy>,
    mut unfit: Unfit,
) -> Result<Plan, NodeError> {
    let cores = shared.config.cores;
    let next = LayoutFile { generation: from.generation + 1, cores };
    tracing::info!(from = from.cores, to = cores, "the number of cores changed: windows move to their new owners");
    remove_generation(shared, next)?;
    let mut windows = BTreeMap::new();
    for (id, copy) in &mut copies {
        let incarnation = copy.descriptor.incarnation;
        let Ok(opened) = &mut copy.state else { continue };
        flush_committed(opened).map_err(|error| NodeError::new(format!("partition {id}"), error))?;
        let committed = opened.recovered.committed;
        let record = |mutation: &Mutation| LogRecord {
            partition: *id,
            incarnation,
            kind: RecordKind::Mutation(mutation.kind),
            ballot: mutation.ballot,
            decree: mutation.decree,
            committed,
            timestamp_micros: mutation.timestamp_micros,
            payload: mutation.payload.clone(),
        };
        windows.insert(*id, opened.recovered.mutations.iter().map(record).collect());
    }
    let mut plan = Vec::new();
    for core in 0..cores {
        let log_options = log_options(shared, next, core, boot);
        let log = recover_log(&log_options, &RecoveryScope::new())
            .map_err(|error| NodeError::new(format!("log of core {core}"), error))?;
        let copies = take_owned(&mut copies, usize::from(core), cores).into_values().collect();
        let unfit = take_owned(&mut unfit, usize::from(core), cores).into_iter().collect();
        plan.push(CoreRecovery { log_options, log, copies, unfit });
    }
    Ok(Plan { cores: plan, relocation: Some(Relocation { windows, cores, from, next }) })
}

/// Applies what is known to be committed and flushes it, so that the old log is needed for the window only.
fn flush_committed(opened: &mut OpenedCopy) -> Result<(), pegasus_engine::table::TableError> {
    let committed = opened.recovered.committed;
    let mutations = std::mem::take(&mut opened.recovered.mutations);
    let split = mutations.partition_point(|mutation| mutation.decree <= committed);
    for batch in mutations[..split].chunks(APPLY_BATCH) {
        // Blocking: it never answers that it would stall.
        let _ = opened.table.apply(batch, ApplyMode::Blocking)?;
    }
    opened.flushed = opened.table.flush()?;
    opened.recovered.applied = opened.table.applied();
    opened.recovered.timestamp_micros = opened.table.last_timestamp_micros();
    opened.recovered.mutations = mutations[split..].to_vec();
    Ok(())
}

fn remove_generation(shared: &NodeShared, layout: LayoutFile) -> Result<(), NodeError> {
    let directory = layout.directory(&shared.config.data_directory);
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(NodeError::new(format!("cannot remove {}", directory.display()), error))
        }
        _ => Ok(()),
    }
}

/// After every core has its windows synced: switches the layout over and deletes the old generation.
pub fn finish(shared: &NodeShared, relocation: Option<&Relocation>) -> Result<(), NodeError> {
    let Some(relocation) = relocation else { return Ok(()) };
    relocation.next.store(&shared.config.data_directory)?;
    remove_generation(shared, relocation.from)
}
