//! Operations on rows, as simple as they can be.

use std::time::{SystemTime, UNIX_EPOCH};

use pegasus_gateway::frame::Message;
use pegasus_gateway::messages::read::{
    CountResponse, FilterType, KeyValue, MultiGetRequest, MultiGetResponse, ReadResponse, TtlResponse,
};
use pegasus_gateway::messages::write::{
    CheckAndSetRequest, CheckResponse, CheckType, IncrRequest, IncrResponse, MultiPutRequest, UpdateRequest,
    UpdateResponse,
};
use pegasus_gateway::thrift::Blob;
use pegasus_gateway::{ErrorName, Rpc, StorageCode, answer};
use pegasus_wire::expiry::{is_expired, seconds_since_epoch};
use pegasus_wire::key;

use crate::cluster::Rows;

/// Carries out a request; `None` if its argument cannot be read.
pub(crate) fn perform(message: &Message<'_>, rpc: Rpc, rows: &mut Rows, out: &mut Vec<u8>) -> Option<()> {
    let (name, sequence) = (message.name, message.sequence);
    match rpc {
        Rpc::Get => {
            let key: Blob<'_> = message.argument().ok()?;
            let (error, value) = live(rows, key.0).map_or((NOT_FOUND, &[][..]), |(value, _)| (OK, value));
            answer::append_result(
                out,
                name,
                sequence,
                &ReadResponse { error, value: Blob(value), ..Default::default() },
            );
        }
        Rpc::Ttl => {
            let key: Blob<'_> = message.argument().ok()?;
            let (error, ttl_seconds) = live(rows, key.0).map_or((NOT_FOUND, 0), |(_, expiry)| (OK, ttl(expiry)));
            answer::append_result(out, name, sequence, &TtlResponse { error, ttl_seconds, ..Default::default() });
        }
        Rpc::Put => {
            let update: UpdateRequest<'_> = message.argument().ok()?;
            rows.insert(update.key.0.to_vec(), (update.value.0.to_vec(), update.expire_ts_seconds.cast_unsigned()));
            updated(out, message);
        }
        Rpc::Remove => {
            let key: Blob<'_> = message.argument().ok()?;
            rows.remove(key.0);
            updated(out, message);
        }
        Rpc::MultiPut => {
            let put: MultiPutRequest<'_> = message.argument().ok()?;
            for row in &put.kvs {
                let stored = key::encode(put.hash_key.0, row.key.0);
                rows.insert(stored, (row.value.0.to_vec(), put.expire_ts_seconds.cast_unsigned()));
            }
            updated(out, message);
        }
        Rpc::Incr => {
            let incr: IncrRequest<'_> = message.argument().ok()?;
            answer::append_result(out, name, sequence, &increment(rows, &incr));
        }
        Rpc::CheckAndSet => {
            let request: CheckAndSetRequest<'_> = message.argument().ok()?;
            let error = check_and_set(rows, &request);
            answer::append_result(out, name, sequence, &CheckResponse { error, ..Default::default() });
        }
        Rpc::MultiGet => {
            let request: MultiGetRequest<'_> = message.argument().ok()?;
            answer::append_result(out, name, sequence, &multi_get(rows, &request));
        }
        Rpc::SortkeyCount => {
            let hash_key: Blob<'_> = message.argument().ok()?;
            let count = of_hash_key(rows, hash_key.0).len() as i64;
            answer::append_result(out, name, sequence, &CountResponse { count, ..Default::default() });
        }
        _ => answer::append_error(out, name, sequence, ErrorName::HandlerNotFound),
    }
    Some(())
}

const OK: i32 = StorageCode::Ok as i32;
const NOT_FOUND: i32 = StorageCode::NotFound as i32;

/// Seconds since 2016.
pub(crate) fn now_seconds() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    seconds_since_epoch(since.as_micros() as u64)
}

/// Whether a key has a pattern.
pub(crate) fn matches(kind: FilterType, pattern: &[u8], key: &[u8]) -> bool {
    match kind {
        FilterType::PREFIX => key.starts_with(pattern),
        FilterType::POSTFIX => key.ends_with(pattern),
        FilterType::ANYWHERE => pattern.is_empty() || key.windows(pattern.len()).any(|part| part == pattern),
        _ => true,
    }
}

fn live<'a>(rows: &'a Rows, stored: &[u8]) -> Option<(&'a [u8], u32)> {
    let (value, expiry) = rows.get(stored)?;
    (!is_expired(*expiry, now_seconds())).then_some((value, *expiry))
}

fn ttl(expiry: u32) -> i32 {
    if expiry == 0 { -1 } else { expiry.saturating_sub(now_seconds()).cast_signed() }
}

fn updated(out: &mut Vec<u8>, message: &Message<'_>) {
    answer::append_result(out, message.name, message.sequence, &UpdateResponse::default());
}

fn increment(rows: &mut Rows, request: &IncrRequest<'_>) -> IncrResponse<'static> {
    let (value, expiry) = live(rows, request.key.0).unwrap_or((b"0", 0));
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
    let Some(new_value) = number.and_then(|number| number.checked_add(request.increment)) else {
        return IncrResponse { error: StorageCode::InvalidArgument.code(), ..IncrResponse::default() };
    };
    rows.insert(request.key.0.to_vec(), (new_value.to_string().into_bytes(), expiry));
    IncrResponse { new_value, ..IncrResponse::default() }
}

fn check_and_set(rows: &mut Rows, request: &CheckAndSetRequest<'_>) -> i32 {
    let stored = key::encode(request.hash_key.0, request.check_sort_key.0);
    let found = live(rows, &stored).map(|(value, _)| value);
    let holds = match request.check_type {
        CheckType::NO_CHECK => true,
        CheckType::VALUE_NOT_EXIST => found.is_none(),
        CheckType::VALUE_EXIST => found.is_some(),
        CheckType::VALUE_BYTES_EQUAL => found == Some(request.check_operand.0),
        _ => return StorageCode::InvalidArgument.code(),
    };
    if !holds {
        return StorageCode::TryAgain.code();
    }
    let sort_key = if request.set_diff_sort_key { request.set_sort_key } else { request.check_sort_key };
    let row = (request.set_value.0.to_vec(), request.set_expire_ts_seconds.cast_unsigned());
    rows.insert(key::encode(request.hash_key.0, sort_key.0), row);
    OK
}

/// Sort keys and values of a hash key, ascending.
fn of_hash_key<'a>(rows: &'a Rows, hash_key: &[u8]) -> Vec<(&'a [u8], &'a [u8])> {
    let prefix = key::encode(hash_key, b"");
    let of = rows.range(prefix.clone()..).take_while(|(stored, _)| stored.starts_with(&prefix));
    let live = of.filter(|(_, (_, expiry))| !is_expired(*expiry, now_seconds()));
    live.map(|(stored, (value, _))| (&stored[prefix.len()..], &value[..])).collect()
}

fn multi_get<'a>(rows: &'a Rows, request: &MultiGetRequest<'_>) -> MultiGetResponse<'a> {
    let within = |key: &[u8]| {
        let (start, stop) = (request.start_sortkey.0, request.stop_sortkey.0);
        let after = key > start || (request.start_inclusive && key == start);
        let before = stop.is_empty() || key < stop || (request.stop_inclusive && key == stop);
        after && before && matches(request.sort_key_filter_type, request.sort_key_filter_pattern.0, key)
    };
    let wanted = |key: &[u8]| match request.sort_keys.as_slice() {
        [] => within(key),
        keys => keys.iter().any(|wanted| wanted.0 == key),
    };
    let mut found = of_hash_key(rows, request.hash_key.0);
    found.retain(|(sort_key, _)| wanted(sort_key));
    let limit = usize::try_from(request.max_kv_count).ok().filter(|&limit| limit > 0).unwrap_or(usize::MAX);
    let error = if found.len() > limit { StorageCode::Incomplete } else { StorageCode::Ok };
    let passed_over = if request.reverse { found.len().saturating_sub(limit) } else { 0 };
    let row = |(sort_key, value): &(&'a [u8], &'a [u8])| KeyValue {
        key: Blob(sort_key),
        value: Blob(if request.no_value { &[] } else { value }),
        expire_ts_seconds: None,
    };
    let kvs = found.iter().skip(passed_over).take(limit).map(row).collect();
    MultiGetResponse { error: error.code(), kvs, ..MultiGetResponse::default() }
}
