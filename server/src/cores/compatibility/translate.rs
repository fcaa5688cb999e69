//! Requests of Pegasus as plain structures of ours. What they ask for that cannot be is refused here, in words.

use pegasus_gateway::frame::Message;
use pegasus_gateway::mapping::{check, expiry_change, expiry_seconds, filter_kind, limit, split_key};
use pegasus_gateway::messages::read::{FilterType, MultiGetRequest};
use pegasus_gateway::messages::write::{
    CheckAndMutateRequest, CheckAndSetRequest, CheckType, IncrRequest, Mutate, MutateOperation,
};
use pegasus_gateway::thrift::ThriftError;
use pegasus_gateway::{Rpc, limits};
use pegasus_wire::messages::data::{
    Check, CheckAndWrite, Filter, Increment, MultiGet, RowOperation, SortKey, SortKeys,
};
use pegasus_wire::{PartitionId, Status};

use super::super::execute::{Operation, Source};
use super::super::outcome::Refusal;

/// The parts of a stored key.
pub(super) fn parts(stored: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let short = || Refusal::new(Status::InvalidArgument, "a stored key is shorter than the hash key it announces");
    split_key(stored).ok_or_else(short)
}

/// A filter.
pub(super) fn filter(kind: FilterType, pattern: &[u8]) -> Result<Filter<'_>, Refusal> {
    let unknown = || Refusal::new(Status::InvalidArgument, format!("there is no filter of type {}", kind.0));
    Ok(Filter { kind: filter_kind(kind).ok_or_else(unknown)?, pattern })
}

/// A read of rows of one hash key; `sort_keys` are those of the request.
pub(super) fn multi_get<'a>(
    request: &'a MultiGetRequest<'a>,
    partition: PartitionId,
    sort_keys: &'a [SortKey<'a>],
) -> Result<MultiGet<'a>, Refusal> {
    Ok(MultiGet {
        partition,
        hash_key: request.hash_key.0,
        sort_keys,
        range: SortKeys {
            start: request.start_sortkey.0,
            stop: request.stop_sortkey.0,
            start_inclusive: request.start_inclusive,
            stop_inclusive: request.stop_inclusive,
        },
        filter: filter(request.sort_key_filter_type, request.sort_key_filter_pattern.0)?,
        reverse: request.reverse,
        no_value: request.no_value,
        count_only: false,
        rows_max: match limit(request.max_kv_count) {
            0 => limits::MULTI_GET_ROWS_MAX,
            rows => rows.min(limits::MULTI_GET_ROWS_MAX),
        },
        bytes_max: limit(request.max_kv_size),
    })
}

/// An operation that reads before it writes, as it was received: it may have to wait for the disk.
pub(super) struct Received {
    /// The body of the request.
    pub(super) body: Box<[u8]>,
    /// What it asks for.
    pub(super) rpc: Rpc,
    /// Whom it is for.
    pub(super) partition: PartitionId,
}

impl Source for Received {
    fn with_operation<T>(&self, run: impl FnOnce(&Operation<'_>) -> T) -> Result<T, Refusal> {
        let message = Message::parse(&self.body).map_err(malformed)?;
        let partition = self.partition;
        match self.rpc {
            Rpc::Incr => {
                let incr: IncrRequest<'_> = message.argument().map_err(malformed)?;
                let (hash_key, sort_key) = parts(incr.key.0)?;
                let expiry = expiry_change(incr.expire_ts_seconds);
                let increment = incr.increment;
                Ok(run(&Operation::Increment(Increment { partition, hash_key, sort_key, increment, expiry })))
            }
            Rpc::CheckAndSet => {
                let request: CheckAndSetRequest<'_> = message.argument().map_err(malformed)?;
                let other = request.set_diff_sort_key;
                let sort_key = if other { request.set_sort_key.0 } else { request.check_sort_key.0 };
                let expiry_seconds = expiry_seconds(request.set_expire_ts_seconds);
                let operations = [RowOperation::Put { sort_key, value: request.set_value.0, expiry_seconds }];
                Ok(run(&Operation::CheckAndWrite(CheckAndWrite {
                    partition,
                    hash_key: request.hash_key.0,
                    check_sort_key: request.check_sort_key.0,
                    check: check_of(request.check_type)?,
                    operand: request.check_operand.0,
                    operations: &operations,
                    return_value: request.return_check_value,
                })))
            }
            _ => {
                let request: CheckAndMutateRequest<'_> = message.argument().map_err(malformed)?;
                let operations = mutations(&request)?;
                Ok(run(&Operation::CheckAndWrite(CheckAndWrite {
                    partition,
                    hash_key: request.hash_key.0,
                    check_sort_key: request.check_sort_key.0,
                    check: check_of(request.check_type)?,
                    operand: request.check_operand.0,
                    operations: &operations,
                    return_value: request.return_check_value,
                })))
            }
        }
    }
}

fn mutations<'a>(request: &CheckAndMutateRequest<'a>) -> Result<Vec<RowOperation<'a>>, Refusal> {
    let mutation = |mutate: &Mutate<'a>| {
        let sort_key = mutate.sort_key.0;
        match mutate.operation {
            MutateOperation::PUT => {
                let expiry_seconds = expiry_seconds(mutate.set_expire_ts_seconds);
                Ok(RowOperation::Put { sort_key, value: mutate.value.0, expiry_seconds })
            }
            MutateOperation::DELETE => Ok(RowOperation::Delete { sort_key }),
            MutateOperation(other) => {
                Err(Refusal::new(Status::InvalidArgument, format!("there is no mutation of type {other}")))
            }
        }
    };
    request.mutate_list.iter().map(mutation).collect()
}

fn check_of(kind: CheckType) -> Result<Check, Refusal> {
    let unknown = || Refusal::new(Status::InvalidArgument, format!("there is no check of type {}", kind.0));
    check(kind).ok_or_else(unknown)
}

/// It was understood once, when it arrived; so this is never said to anybody.
fn malformed(error: ThriftError) -> Refusal {
    Refusal::new(Status::Malformed, error.to_string())
}
