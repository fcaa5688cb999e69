//! Scans of clients of Pegasus: such a client only repeats a number, so what its scan is about is kept here.
//!
//! ```text
//!   get_scanner --> slice --> more? kept under a number, which is answered
//!   scan(number) --> taken out --> next slice --> more? kept under another number
//!   clear_scanner(number) --> forgotten
//! ```
//!
//! A number that is not known (idle for five minutes, pushed out by others, another node's) is answered as such, and
//! the client begins again after the last row it saw. The rows of all slices are of one moment: each kept scan has a
//! context of our own protocol, which holds a snapshot.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pegasus_gateway::limits::SCAN_ROWS_MAX;
use pegasus_gateway::mapping::limit;
use pegasus_gateway::messages::read::GetScannerRequest;
use pegasus_replication::Moment;
use pegasus_wire::limits::{HASH_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX};
use pegasus_wire::messages::data::{Filter, FilterKind, Rows, Scan, SortKeys};
use pegasus_wire::{PartitionId, Status};

use super::super::contexts::Contexts;
use super::super::outcome::Refusal;
use super::super::partition::CopyId;
use super::super::request::Request;
use super::super::{Core, clock};
use super::Detail;
use super::calls::note;
use super::translate::filter;

/// More bytes than any stored key has.
const STORED_KEY_BYTES_BEYOND: usize = 2 + HASH_KEY_BYTES_MAX + SORT_KEY_BYTES_MAX + 1;

/// An end of a range, as far as it can matter: no stored key is so long that the rest would tell it apart.
fn cut(end: &[u8]) -> &[u8] {
    &end[..end.len().min(STORED_KEY_BYTES_BEYOND)]
}

/// A scan between two slices, and while one is read.
pub(crate) struct ScanCall {
    /// Where it goes on.
    start: Vec<u8>,
    start_inclusive: bool,
    /// Exclusive end; empty means to the end of the partition.
    stop: Vec<u8>,
    hash_key_filter: (FilterKind, Vec<u8>),
    sort_key_filter: (FilterKind, Vec<u8>),
    batch_rows: u32,
    no_value: bool,
    /// Rows are answered with their expiry.
    pub(super) with_expiry: bool,
    /// Only their number is.
    pub(super) count_only: bool,
    /// Of our own protocol.
    context: u64,
    kept: Rc<Scanners>,
}

/// The scans of one core between two slices.
#[derive(Default)]
pub(crate) struct Scanners(RefCell<Contexts<Box<ScanCall>>>);

impl Scanners {
    /// Forgets those that nobody has gone on with for long enough. Their snapshots end in the same way.
    pub(crate) fn expire(&self) {
        self.0.borrow_mut().expire(clock::now());
    }

    /// Takes a scan out: whoever goes on with it keeps it under another number.
    fn take_out(&self, id: i64, partition: PartitionId) -> Option<Box<ScanCall>> {
        self.0.borrow_mut().end(u64::try_from(id).ok()?, partition)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

impl ScanCall {
    /// A slice was read: keeps the rest of the scan, if there is one, and names it.
    pub(super) fn go_on(mut self: Box<ScanCall>, copy: CopyId, rows: &Rows<'_>) -> Option<i64> {
        if rows.complete {
            return None;
        }
        self.start.clear();
        self.start.extend_from_slice(rows.resume_after);
        (self.start_inclusive, self.context) = (false, rows.context);
        let kept = self.kept.clone();
        // One that had to go for it is not known any more; its snapshot ends when it was idle long enough.
        let (id, _) = kept.0.borrow_mut().add(copy, self, clock::now());
        Some(id.cast_signed())
    }

    fn question(&self, partition: PartitionId) -> Scan<'_> {
        Scan {
            partition,
            context: self.context,
            keep_context: true,
            start: &self.start,
            start_inclusive: self.start_inclusive,
            stop: &self.stop,
            reverse: false,
            sort_keys: SortKeys::ALL,
            hash_key_filter: Filter { kind: self.hash_key_filter.0, pattern: &self.hash_key_filter.1 },
            sort_key_filter: Filter { kind: self.sort_key_filter.0, pattern: &self.sort_key_filter.1 },
            no_value: self.no_value,
            count_only: self.count_only,
            rows_max: self.batch_rows,
        }
    }
}

impl Core {
    /// Begins a scan and answers its first slice.
    pub(super) fn begin_scan(
        &self,
        request: Request,
        partition: PartitionId,
        asked: &GetScannerRequest<'_>,
        now: Moment,
    ) {
        match self.scan_asked(asked) {
            Ok(scan) => self.read_slice(request, partition, Box::new(scan), now),
            Err(refusal) => request.refuse(refusal),
        }
    }

    /// Answers the next slice of a scan.
    pub(super) fn continue_scan(&self, request: Request, partition: PartitionId, id: i64, now: Moment) {
        match self.scanners.take_out(id, partition) {
            Some(scan) => self.read_slice(request, partition, scan, now),
            // Only who leads the partition can say that there is no such scan.
            None => match self.with_readable(partition, now, |_, _| Ok(())) {
                Ok(()) => request.refuse(Refusal::plain(Status::NotFound)),
                Err(refusal) => request.refuse(refusal),
            },
        }
    }

    /// Forgets a scan.
    pub(super) fn clear_scanner(&self, partition: PartitionId, id: i64) {
        if let Some(scan) = self.scanners.take_out(id, partition) {
            self.end_scan(partition, scan.context);
        }
    }

    fn read_slice(&self, mut request: Request, partition: PartitionId, scan: Box<ScanCall>, now: Moment) {
        match self.plan_scan(&scan.question(partition), now) {
            Ok(plan) => {
                note(&mut request, Detail::Scan { scan: Cell::new(Some(scan)), copy: plan.copy });
                self.read_rows(request, plan);
            }
            Err(refusal) => request.refuse(refusal),
        }
    }

    fn scan_asked(&self, asked: &GetScannerRequest<'_>) -> Result<ScanCall, Refusal> {
        let owned = |filter: Filter<'_>| (filter.kind, filter.pattern.to_vec());
        let mut stop = cut(asked.stop_key.0).to_vec();
        if asked.stop_inclusive && !stop.is_empty() && stop.len() < STORED_KEY_BYTES_BEYOND {
            // The first key that is greater.
            stop.push(0);
        }
        Ok(ScanCall {
            start: cut(asked.start_key.0).to_vec(),
            start_inclusive: asked.start_inclusive,
            stop,
            hash_key_filter: owned(filter(asked.hash_key_filter_type, asked.hash_key_filter_pattern.0)?),
            sort_key_filter: owned(filter(asked.sort_key_filter_type, asked.sort_key_filter_pattern.0)?),
            batch_rows: match limit(asked.batch_size) {
                0 => SCAN_ROWS_MAX,
                rows => rows.min(SCAN_ROWS_MAX),
            },
            no_value: asked.no_value,
            with_expiry: asked.return_expire_ts.unwrap_or_default(),
            count_only: asked.only_return_count.unwrap_or_default(),
            context: 0,
            kept: self.scanners.clone(),
        })
    }
}
