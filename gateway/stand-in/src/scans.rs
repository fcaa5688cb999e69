//! Scans: contexts that hold what is left, each good for one question.

use pegasus_gateway::frame::{Message, RequestHeader};
use pegasus_gateway::messages::read::{
    GetScannerRequest, KeyValue, SCAN_COMPLETE, SCAN_UNKNOWN, ScanRequest, ScanResponse,
};
use pegasus_gateway::thrift::Blob;
use pegasus_gateway::{ErrorName, Rpc, StorageCode, answer};
use pegasus_wire::expiry::is_expired;
use pegasus_wire::key;

use crate::cluster::{Rows, State};
use crate::rows::{matches, now_seconds};

/// Rows that are left of a scan.
pub(crate) struct Scan {
    left: Vec<(Vec<u8>, Vec<u8>, u32)>,
    batch_size: usize,
    tells_expiry: bool,
}

/// Carries out a request about a scan; `None` if its argument cannot be read.
pub(crate) fn perform(
    header: &RequestHeader,
    message: &Message<'_>,
    rpc: Rpc,
    node: usize,
    state: &mut State,
    out: &mut Vec<u8>,
) -> Option<()> {
    let old = state.old;
    let Some(partition) = state.partition(node, header.app_id, header.partition_index) else {
        answer::append_error(out, message.name, message.sequence, ErrorName::ObjectNotFound);
        return Some(());
    };
    let scan = match rpc {
        Rpc::GetScanner => Some(begin(&partition.rows, &message.argument().ok()?, old)),
        Rpc::Scan => {
            let request: ScanRequest = message.argument().ok()?;
            state.scans.remove(&request.context_id)
        }
        _ => {
            let context: i64 = message.argument().ok()?;
            state.scans.remove(&context);
            return Some(());
        }
    };
    match scan {
        Some(scan) => go_on(scan, message, state, out),
        None => {
            let (error, context_id) = (StorageCode::NotFound.code(), SCAN_UNKNOWN);
            let response = ScanResponse { error, context_id, ..ScanResponse::default() };
            answer::append_result(out, message.name, message.sequence, &response);
        }
    }
    Some(())
}

fn begin(rows: &Rows, request: &GetScannerRequest<'_>, old: bool) -> Scan {
    let within = |stored: &[u8]| {
        let (start, stop) = (request.start_key.0, request.stop_key.0);
        let after = stored > start || (request.start_inclusive && stored == start);
        after && (stored < stop || (request.stop_inclusive && stored == stop))
    };
    let wanted = |stored: &[u8]| {
        let Ok((hash_key, sort_key)) = key::decode(stored) else { return false };
        within(stored)
            && matches(request.hash_key_filter_type, request.hash_key_filter_pattern.0, hash_key)
            && matches(request.sort_key_filter_type, request.sort_key_filter_pattern.0, sort_key)
    };
    let now = now_seconds();
    let live = rows.iter().filter(|(stored, (_, expiry))| wanted(stored) && !is_expired(*expiry, now));
    let row = |(stored, (value, expiry)): (&Vec<u8>, &(Vec<u8>, u32))| {
        (stored.clone(), if request.no_value { Vec::new() } else { value.clone() }, *expiry)
    };
    let mut left: Vec<_> = live.map(row).collect();
    let asks_expiry = request.return_expire_ts == Some(true);
    if old && asks_expiry {
        left.reverse();
    }
    Scan {
        left,
        batch_size: usize::try_from(request.batch_size).unwrap_or(1).max(1),
        tells_expiry: asks_expiry && !old,
    }
}

fn go_on(mut scan: Scan, message: &Message<'_>, state: &mut State, out: &mut Vec<u8>) {
    let rest = scan.left.split_off(scan.batch_size.min(scan.left.len()));
    let row = |(stored, value, expiry): &'_ (Vec<u8>, Vec<u8>, u32)| -> (Vec<u8>, Vec<u8>, Option<i32>) {
        (stored.clone(), value.clone(), scan.tells_expiry.then_some(expiry.cast_signed()))
    };
    let batch: Vec<_> = scan.left.iter().map(row).collect();
    let kvs = batch.iter().map(|(stored, value, expiry)| KeyValue {
        key: Blob(stored),
        value: Blob(value),
        expire_ts_seconds: *expiry,
    });
    let context_id = if rest.is_empty() {
        SCAN_COMPLETE
    } else {
        state.next_scan += 1;
        let (batch_size, tells_expiry) = (scan.batch_size, scan.tells_expiry);
        state.scans.insert(state.next_scan, Scan { left: rest, batch_size, tells_expiry });
        state.next_scan
    };
    let response = ScanResponse { kvs: kvs.collect(), context_id, ..ScanResponse::default() };
    answer::append_result(out, message.name, message.sequence, &response);
}
