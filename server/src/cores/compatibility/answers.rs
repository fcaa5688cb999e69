//! Outcomes and refusals in the words of Pegasus's protocol.

use std::time::Duration;

use glommio::timer::sleep;
use pegasus_gateway::answer::{append_error, append_result};
use pegasus_gateway::mapping::{Said, said, split_key};
use pegasus_gateway::messages::read::{
    BatchGetResponse, CountResponse, FullData, KeyValue, MultiGetResponse, ReadResponse, SCAN_COMPLETE, SCAN_UNKNOWN,
    ScanResponse, TtlResponse,
};
use pegasus_gateway::messages::write::{CheckResponse, IncrResponse, MultiRemoveResponse, UpdateResponse};
use pegasus_gateway::thrift::{Blob, Value};
use pegasus_gateway::{ErrorName, Rpc, StorageCode};
use pegasus_wire::messages::data::{Row, Rows};
use pegasus_wire::{Decree, PartitionId, Status};

use super::super::outcome::{Outcome, Refusal};
use super::super::request::{Form, Outlet, Request};
use super::{Call, Detail};

/// How long an error is held back that makes a client send again at once: what stands in its way takes longer.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// What every answer says of the node: the table, the partition, the address.
#[derive(Clone, Copy)]
struct Place<'a> {
    app_id: i32,
    partition_index: i32,
    server: &'a str,
}

impl<'a> Place<'a> {
    fn of(request: &'a Request, partition: PartitionId) -> Place<'a> {
        let server = match &request.session.outlet {
            Outlet::Socket(outbox) => outbox.server(),
            Outlet::Stream(_) => "",
        };
        Place { app_id: partition.table.0.cast_signed(), partition_index: partition.index.cast_signed(), server }
    }
}

/// Says what a request came to.
pub(crate) fn answer(request: &Request, call: &Call, outcome: &Outcome<'_>) {
    let place = Place::of(request, call.partition);
    match *outcome {
        Outcome::Missing => answer_row(request, call, place, StorageCode::NotFound, &[], 0),
        Outcome::Row { value, ttl_seconds } => {
            // What has more than 68 years left is as good as never.
            let ttl_seconds = i32::try_from(ttl_seconds).unwrap_or(i32::MAX);
            answer_row(request, call, place, StorageCode::Ok, value, ttl_seconds);
        }
        Outcome::Rows(_) if !takes_rows(request) => answer_error(request, call, ErrorName::Busy),
        Outcome::Rows(ref rows) => answer_rows(request, call, place, rows),
        Outcome::Written { decree } => answer_write(request, call, place, StorageCode::Ok, decree),
        Outcome::Incremented { value, decree } => answer_incr(request, call, place, StorageCode::Ok, value, decree),
        Outcome::Checked { written, exists, decree, value } => {
            let error = if written { StorageCode::Ok } else { StorageCode::TryAgain };
            answer_check(request, call, place, error, (exists, value), decree);
        }
        // Nobody can ask for a copy in this protocol.
        Outcome::Copy(_) => refuse(request, call, &Refusal::internal("a copy is not said in Pegasus's protocol")),
    }
}

/// True if the client has taken enough of what was said before.
fn takes_rows(request: &Request) -> bool {
    match &request.session.outlet {
        Outlet::Socket(outbox) => outbox.takes_rows(),
        Outlet::Stream(_) => true,
    }
}

/// Says why a request is not carried out.
pub(crate) fn refuse(request: &Request, call: &Call, refusal: &Refusal) {
    let Refusal { status, message, is_silent, number, .. } = refusal;
    // Of the nodes that were asked the same, the one that leads will answer.
    if *is_silent || call.is_backup {
        return;
    }
    tracing::debug!(partition = %call.partition, rpc = call.rpc.name(), ?status, %message, "refused");
    let place = Place::of(request, call.partition);
    let code = match said(*status) {
        Said::Nothing => return,
        Said::Framework(name) => return answer_error(request, call, name),
        Said::Storage(code) => code,
    };
    let nothing = Rows { rows: &[], count: 0, complete: true, resume_after: &[], context: 0 };
    match call.rpc {
        Rpc::Get | Rpc::Ttl => answer_row(request, call, place, code, &[], 0),
        Rpc::MultiGet => answer_multi_get(request, call, place, code, &nothing),
        Rpc::BatchGet => answer_batch_get(request, call, place, code, &nothing),
        Rpc::SortkeyCount => answer_count(request, call, place, code, 0),
        Rpc::GetScanner | Rpc::Scan => {
            let context_id = if *status == Status::NotFound { SCAN_UNKNOWN } else { SCAN_COMPLETE };
            answer_scan(request, call, place, code, context_id, ScanRows::default());
        }
        Rpc::Incr => answer_incr(request, call, place, code, number.unwrap_or_default(), Decree(0)),
        Rpc::CheckAndSet | Rpc::CheckAndMutate => {
            answer_check(request, call, place, code, (false, None), Decree(0));
        }
        _ => answer_write(request, call, place, code, Decree(0)),
    }
}

fn answer_error(request: &Request, call: &Call, error: ErrorName) {
    let Call { rpc, sequence, partition, .. } = *call;
    let say = move |out: &mut Vec<u8>| append_error(out, rpc.name().as_bytes(), sequence, error);
    if !is_retried_at_once(error) {
        return request.push_refusal(say);
    }
    // Counts as unanswered until it is said.
    let call = Call { rpc, sequence, partition, detail: Detail::Nothing, is_backup: false };
    let waiting = request.session.begin(Form::Call(call), 0);
    // The state of the core may be borrowed here. The task is polled at once, and only sleeps; later it touches nothing
    // but the session.
    glommio::spawn_local(async move {
        sleep(RETRY_PAUSE).await;
        waiting.push_refusal(say);
    })
    .detach();
}

/// True for an error after which the Java client sends the same request again without a pause.
fn is_retried_at_once(error: ErrorName) -> bool {
    use ErrorName::{CapacityExceeded, InvalidState, NotEnoughMember, ObjectNotFound};
    matches!(error, InvalidState | ObjectNotFound | NotEnoughMember | CapacityExceeded)
}

fn send<'a, T: Value<'a>>(request: &Request, call: &Call, result: &T) {
    request.push(|out| append_result(out, call.rpc.name().as_bytes(), call.sequence, result));
}

fn answer_row(request: &Request, call: &Call, place: Place<'_>, error: StorageCode, value: &[u8], ttl_seconds: i32) {
    let Place { app_id, partition_index, server } = place;
    let error = error.code();
    match call.rpc {
        Rpc::Ttl => send(request, call, &TtlResponse { error, ttl_seconds, app_id, partition_index, server }),
        _ => send(request, call, &ReadResponse { error, value: Blob(value), app_id, partition_index, server }),
    }
}

fn answer_rows(request: &Request, call: &Call, place: Place<'_>, rows: &Rows<'_>) {
    let error = if rows.complete { StorageCode::Ok } else { StorageCode::Incomplete };
    match &call.detail {
        Detail::Scan { scan, copy } => {
            let Some(scan) = scan.take() else { return };
            let shown = ScanRows::of(rows, scan.with_expiry, scan.count_only);
            let context_id = scan.go_on(*copy, rows).unwrap_or(SCAN_COMPLETE);
            answer_scan(request, call, place, StorageCode::Ok, context_id, shown);
        }
        _ if call.rpc == Rpc::SortkeyCount => {
            // That there was no time to count is said by the number alone.
            let count = if rows.complete { rows.count.cast_signed() } else { -1 };
            answer_count(request, call, place, StorageCode::Ok, count);
        }
        _ if call.rpc == Rpc::BatchGet => answer_batch_get(request, call, place, error, rows),
        _ => answer_multi_get(request, call, place, error, rows),
    }
}

fn answer_multi_get(request: &Request, call: &Call, place: Place<'_>, error: StorageCode, rows: &Rows<'_>) {
    let Place { app_id, partition_index, server } = place;
    let kvs = rows.rows.iter().map(|row| key_value(row, false)).collect();
    send(request, call, &MultiGetResponse { error: error.code(), kvs, app_id, partition_index, server });
}

fn answer_batch_get(request: &Request, call: &Call, place: Place<'_>, error: StorageCode, rows: &Rows<'_>) {
    let Place { app_id, partition_index, server } = place;
    let data = rows.rows.iter().filter_map(full_data).collect();
    send(request, call, &BatchGetResponse { error: error.code(), data, app_id, partition_index, server });
}

/// A row whose key is a stored key. What is stored has whole keys.
fn full_data<'a>(row: &Row<'a>) -> Option<FullData<'a>> {
    let (hash_key, sort_key) = split_key(row.key)?;
    Some(FullData { hash_key: Blob(hash_key), sort_key: Blob(sort_key), value: Blob(row.value) })
}

fn answer_count(request: &Request, call: &Call, place: Place<'_>, error: StorageCode, count: i64) {
    let Place { app_id, partition_index, server } = place;
    send(request, call, &CountResponse { error: error.code(), count, app_id, partition_index, server });
}

/// What a slice of a scan shows.
#[derive(Default)]
struct ScanRows<'a> {
    kvs: Vec<KeyValue<'a>>,
    kv_count: Option<i32>,
}

impl<'a> ScanRows<'a> {
    fn of(rows: &Rows<'a>, with_expiry: bool, count_only: bool) -> ScanRows<'a> {
        let kv_count = count_only.then(|| i32::try_from(rows.count).unwrap_or(i32::MAX));
        ScanRows { kvs: rows.rows.iter().map(|row| key_value(row, with_expiry)).collect(), kv_count }
    }
}

fn answer_scan(
    request: &Request,
    call: &Call,
    place: Place<'_>,
    error: StorageCode,
    context_id: i64,
    rows: ScanRows<'_>,
) {
    let Place { app_id, partition_index, server } = place;
    let ScanRows { kvs, kv_count } = rows;
    let error = error.code();
    send(request, call, &ScanResponse { error, kvs, context_id, app_id, partition_index, server, kv_count });
}

fn key_value<'a>(row: &Row<'a>, with_expiry: bool) -> KeyValue<'a> {
    let expire_ts_seconds = with_expiry.then(|| row.expiry_seconds.cast_signed());
    KeyValue { key: Blob(row.key), value: Blob(row.value), expire_ts_seconds }
}

fn answer_write(request: &Request, call: &Call, place: Place<'_>, error: StorageCode, decree: Decree) {
    let Place { app_id, partition_index, server } = place;
    let (error, decree) = (error.code(), decree.0.cast_signed());
    match call.detail {
        Detail::Named(count) => {
            let count = if error == 0 { count as i64 } else { 0 };
            send(request, call, &MultiRemoveResponse { error, count, app_id, partition_index, decree, server });
        }
        _ => send(request, call, &UpdateResponse { error, app_id, partition_index, decree, server }),
    }
}

fn answer_incr(request: &Request, call: &Call, place: Place<'_>, error: StorageCode, new_value: i64, decree: Decree) {
    let Place { app_id, partition_index, server } = place;
    let (error, decree) = (error.code(), decree.0.cast_signed());
    send(request, call, &IncrResponse { error, new_value, app_id, partition_index, decree, server });
}

fn answer_check(
    request: &Request,
    call: &Call,
    place: Place<'_>,
    error: StorageCode,
    (check_value_exist, value): (bool, Option<&[u8]>),
    decree: Decree,
) {
    let Place { app_id, partition_index, server } = place;
    let check_value_returned = matches!(call.detail, Detail::ReturnValue(true));
    let result = CheckResponse {
        error: error.code(),
        check_value_returned,
        check_value_exist: check_value_returned && check_value_exist,
        check_value: Blob(value.unwrap_or_default()),
        app_id,
        partition_index,
        decree: decree.0.cast_signed(),
        server,
    };
    send(request, call, &result);
}
