//! The walk of one slice of a scan.
//!
//! ```text
//!   stored keys, hash key after hash key         wanted: sort keys low .. high of hash keys that begin with p
//!
//!   [a: . . .] [b: . . .] [p1: . . x x x x . . .] [p2: . x x x . .] [q: . . .] [pp1: . x x .]
//!    seek ------------------------>      \------------->   \------------------------>
//! ```
//!
//! What the request alone tells narrows the range before the walk begins (`seek`); the rest is judged row by row
//! (`judge`).

use std::sync::atomic::Ordering;

use pegasus_wire::expiry::is_expired;
use rocksdb::{DB, DBRawIteratorWithThreadMode, ErrorKind, Snapshot};

use super::judge::{Judge, Verdict};
use super::seek::{SeekRange, jump, step};
use super::value;
use super::{ReadMode, Scan, ScanOutcome, ScanRequest, Table, TableError};

/// Reads one slice, as of the snapshot or as of now.
pub(super) fn walk(
    table: &Table,
    snapshot: Option<&Snapshot<'_>>,
    request: &ScanRequest<'_>,
    mode: ReadMode,
) -> Result<Scan, TableError> {
    let Some(range) = SeekRange::new(request) else {
        return Ok(Scan::Done(ScanOutcome { complete: true, ..ScanOutcome::default() }));
    };
    let options = range.read_options(mode, request.reverse);
    let mut iterator = match snapshot {
        Some(snapshot) => snapshot.raw_iterator_opt(options),
        None => table.inner.db.raw_iterator_opt(options),
    };
    let mut judge = Judge::new(request, &range);
    range.begin(&mut iterator, request.reverse);
    let mut outcome = ScanOutcome::default();
    let (mut looked_at, mut satisfied) = (0, false);
    while let (false, Some((key, stored))) = (satisfied, iterator.item()) {
        looked_at += 1;
        let verdict = judge.judge(key).ok_or_else(|| table.malformed_key(key.len()))?;
        if verdict == Verdict::Wanted {
            let (header, data) = value::decode(stored).ok_or_else(|| table.malformed_value(stored.len()))?;
            if !is_expired(header.expiry_seconds, request.now_seconds) {
                outcome.count += 1;
                if !request.count_only {
                    let key = key.get(request.key_prefix..).unwrap_or_default();
                    outcome.rows.push(key, if request.no_value { &[] } else { data }, header.expiry_seconds);
                }
            }
        }
        satisfied = request.is_satisfied(&outcome, looked_at);
        if satisfied {
            outcome.resume_after.extend_from_slice(key);
        }
        match verdict {
            Verdict::Wanted | Verdict::Unwanted => step(&mut iterator, request.reverse),
            Verdict::Jump => jump(&mut iterator, judge.target(), request.reverse),
            Verdict::End => {
                outcome.complete = true;
                break;
            }
        }
    }
    let counters = &table.inner.counters;
    counters.scans.fetch_add(1, Ordering::Relaxed);
    counters.scanned_rows.fetch_add(looked_at as u64, Ordering::Relaxed);
    finish(table, &iterator, outcome, satisfied, mode)
}

/// What became of the slice, as the iterator tells.
fn finish(
    table: &Table,
    iterator: &DBRawIteratorWithThreadMode<'_, DB>,
    mut outcome: ScanOutcome,
    satisfied: bool,
    mode: ReadMode,
) -> Result<Scan, TableError> {
    match iterator.status() {
        Ok(()) => outcome.complete |= !iterator.valid(),
        // What was asked for is there; only whether more follows is not known, so the caller asks again.
        Err(error) if is_incomplete(&error, mode) && satisfied => {}
        Err(error) if is_incomplete(&error, mode) => {
            table.inner.counters.scans_would_block.fetch_add(1, Ordering::Relaxed);
            return Ok(Scan::WouldBlock);
        }
        Err(error) => return Err(table.failed("scan", error)),
    }
    if outcome.complete {
        outcome.resume_after.clear();
    }
    Ok(Scan::Done(outcome))
}

fn is_incomplete(error: &rocksdb::Error, mode: ReadMode) -> bool {
    mode == ReadMode::CacheOnly && error.kind() == ErrorKind::Incomplete
}
