//! Scans of a partition, and the snapshots that are kept for them.
//!
//! A scan needs nothing kept: each request says where it goes on. With a context all its slices are of one moment:
//!
//! ```text
//!   keep_context, no context known --> tried inline: it ends at once? answered, nothing to keep
//!                                      else pool: snapshot, first slice --> kept under a new id, which is answered
//!   context known                  --> the next slice of that snapshot; at the end it is released
//!   context not known any more     --> as without one: a new snapshot, another id
//! ```
//!
//! To make or to release a snapshot takes a lock of RocksDB that flushes and compactions hold as well, so neither is
//! done on a core.

use std::sync::Arc;

use pegasus_engine::table::TableSnapshot;
use pegasus_replication::Moment;
use pegasus_wire::PartitionId;
use pegasus_wire::limits::{READ_BYTES_TARGET, READ_ROWS_MAX};
use pegasus_wire::messages::data::Scan;

use super::checks::{check_filter, check_range};
use super::outcome::Refusal;
use super::partition::CopyId;
use super::plan::{INLINE_ROWS_MAX, Inline, OwnedFilter, OwnedSortKeys, Range, ReadPlan, RowSource, Terms, Wanted};
use super::request::Request;
use super::rows::{bounded, deadline};
use super::{Core, State, clock};

/// What becomes of the snapshot that a slice is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// There is none.
    Nothing,
    /// One is made, and kept unless this slice ends the scan.
    New,
    /// It is kept already.
    Known {
        /// Under this id.
        id: u64,
        /// It still is after this slice, unless that ends the scan.
        keep: bool,
    },
}

impl Core {
    /// Answers a scan of a partition.
    pub(crate) fn scan(&self, request: Request, scan: &Scan<'_>, now: Moment) {
        match self.plan_scan(scan, now) {
            Ok(plan) => self.read_rows(request, plan),
            Err(refusal) => request.refuse(refusal),
        }
    }

    /// What a scan reads, if it may.
    pub(crate) fn plan_scan(&self, scan: &Scan<'_>, now: Moment) -> Result<ReadPlan, Refusal> {
        check_range(&scan.sort_keys)?;
        check_filter(&scan.hash_key_filter)?;
        check_filter(&scan.sort_key_filter)?;
        let mut plan = self.with_readable(scan.partition, now, |partition, now_seconds| {
            let range = Range {
                start: scan.start.to_vec(),
                start_inclusive: scan.start_inclusive,
                stop: scan.stop.to_vec(),
                reverse: scan.reverse,
                sort_keys: OwnedSortKeys::of(&scan.sort_keys),
                hash_key_filter: OwnedFilter::of(&scan.hash_key_filter),
                sort_key_filter: OwnedFilter::of(&scan.sort_key_filter),
            };
            let terms = Terms {
                rows_max: bounded(scan.rows_max, READ_ROWS_MAX),
                bytes_max: READ_BYTES_TARGET,
                until: deadline(partition),
                no_value: scan.no_value,
                count_only: scan.count_only,
                now_seconds,
                key_prefix: 0,
                turned: false,
            };
            let inline = if is_short(scan, terms.rows_max) { Inline::Slice } else { Inline::Never };
            let wanted = Wanted::Range { source: RowSource::Table(partition.table.clone()), range };
            Ok(ReadPlan { copy: partition.copy(), wanted, terms, inline, keeping: Keeping::Nothing })
        })?;
        self.take_context(&mut plan, scan);
        Ok(plan)
    }

    /// Finds the context that a scan names, or sees to it that one is made if it wants one.
    fn take_context(&self, plan: &mut ReadPlan, scan: &Scan<'_>) {
        let known = match scan.context {
            0 => None,
            id => self.state.borrow_mut().contexts.take_up(id, plan.copy, clock::now()),
        };
        let Wanted::Range { source, .. } = &mut plan.wanted else { return };
        if let Some(snapshot) = known {
            *source = RowSource::Snapshot(snapshot);
            plan.keeping = Keeping::Known { id: scan.context, keep: scan.keep_context };
        } else if scan.keep_context {
            plan.keeping = Keeping::New;
            if plan.inline == Inline::Slice {
                // More than one slice has to be read from a snapshot from the first on.
                plan.inline = Inline::Whole;
            }
        }
    }

    /// A slice was read from a snapshot that somebody holds here: keeps or releases it. Gives the context that
    /// the slice is of, which goes on unless the slice ends the scan; 0 if there is none.
    pub(crate) fn slice_read(
        &self,
        copy: CopyId,
        keeping: Keeping,
        snapshot: Option<Arc<TableSnapshot>>,
        complete: bool,
    ) -> u64 {
        let mut released = Vec::new();
        let context = match keeping {
            Keeping::Nothing => 0,
            // One that ends at once has none.
            Keeping::New => snapshot.map_or(0, |snapshot| self.keep_snapshot(copy, snapshot, &mut released)),
            // A handle that is only dropped here is never the last one: the store has another.
            Keeping::Known { id, keep } if keep && !complete => id,
            Keeping::Known { id, .. } => {
                released.extend(self.state.borrow_mut().contexts.end(id, copy.partition));
                released.extend(snapshot);
                // Named once more, so that the client knows that this slice is of the same moment.
                id
            }
        };
        self.release_snapshots(released);
        context
    }

    /// Keeps a snapshot, unless its copy is gone or the core stops.
    fn keep_snapshot(&self, copy: CopyId, snapshot: Arc<TableSnapshot>, released: &mut Vec<Arc<TableSnapshot>>) -> u64 {
        let mut guard = self.state.borrow_mut();
        let state: &mut State = &mut guard;
        if state.stopping || state.copy(copy).is_none() {
            released.push(snapshot);
            return 0;
        }
        let (id, gone) = state.contexts.add(copy, snapshot, clock::now());
        state.counters.scan_contexts_made += 1;
        state.counters.scan_contexts_evicted += u64::from(gone.is_some());
        released.extend(gone);
        id
    }

    /// A client does not need its context any more.
    pub(crate) fn end_scan(&self, partition: PartitionId, context: u64) {
        let ended = self.state.borrow_mut().contexts.end(context, partition);
        self.release_snapshots(ended.into_iter().collect());
    }

    /// Ends the contexts that nobody has used for long enough.
    pub(crate) fn expire_contexts(&self) {
        let ended = self.state.borrow_mut().contexts.expire(clock::now());
        self.release_snapshots(ended);
        self.scanners.expire();
    }

    /// Releases snapshots, in the pool.
    fn release_snapshots(&self, snapshots: Vec<Arc<TableSnapshot>>) {
        if !snapshots.is_empty() {
            let core = self.clone();
            self.later(async move { core.drop_in_pool(snapshots).await });
        }
    }
}

/// True for a scan that is worth a try inline: few rows are asked for, and none is passed over.
fn is_short(scan: &Scan<'_>, rows_max: usize) -> bool {
    let all = scan.sort_keys.is_all() && scan.hash_key_filter.is_off() && scan.sort_key_filter.is_off();
    all && !scan.count_only && rows_max <= INLINE_ROWS_MAX
}
