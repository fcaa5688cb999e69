//! Calls become plain requests, and go where those of our own protocol go.

use std::rc::Rc;

use bytes::Bytes;
use pegasus_gateway::answer::append_error;
use pegasus_gateway::frame::{Message, RequestHeader};
use pegasus_gateway::mapping::expiry_seconds;
use pegasus_gateway::messages::read::{BatchGetRequest, GetScannerRequest, MultiGetRequest, ScanRequest};
use pegasus_gateway::messages::write::{
    CheckAndMutateRequest, CheckAndSetRequest, IncrRequest, MultiPutRequest, MultiRemoveRequest, UpdateRequest,
};
use pegasus_gateway::thrift::{Blob, ThriftError};
use pegasus_gateway::{ErrorName, Rpc};
use pegasus_replication::Moment;
use pegasus_wire::messages::data::{Get, RowOperation, SortKey, Write};
use pegasus_wire::{MessageKind, PartitionId, Status};

use super::super::Core;
use super::super::gate::Entry;
use super::super::outcome::Refusal;
use super::super::request::{Form, Request, Session};
use super::super::slow::Trace;
use super::super::visit::{Access, Visit};
use super::translate::{Received, multi_get, parts};
use super::{Call, Detail};

impl Core {
    /// Takes one request: what it asks for is carried out, or refused, now or when its turn comes. `now` is a reading
    /// of the clock after it was received. An error means that the bytes are no request: the connection ends.
    pub(super) fn take_call(
        &self,
        session: &Rc<Session>,
        header: &RequestHeader,
        body: &[u8],
        now: Moment,
    ) -> Result<(), ThriftError> {
        let message = Message::parse(body)?;
        let partition = partition(header);
        let Some((rpc, access, kind)) = Rpc::from_name(message.name).and_then(served) else {
            return self.take_other(session, partition, &message);
        };
        let (sequence, is_backup) = (message.sequence, header.is_backup_request);
        let call = Call { rpc, sequence, partition, detail: Detail::Nothing, is_backup };
        let time_left_ms = if header.version == 0 { 0 } else { header.timeout_ms.try_into().unwrap_or(0) };
        let mut request = session.begin(Form::Call(call), time_left_ms);
        let visit = Visit { partition, access, kind, hash_key_bytes: 0, bytes: body.len() as u64 };
        request.trace = Some(Trace::new(visit, now, &self.slow));
        self.count(|counters| counters.compatibility_requests += 1);
        match if self.gated.get() { self.enter(&mut request, &visit, now) } else { Entry::Through } {
            Entry::Through => match self.carry_out_call(request, &message, body, now) {
                Err(ThriftError::TooManyEntries(entries)) => {
                    tracing::debug!(entries, "a list of a client of Pegasus");
                    session.push(|out| append_error(out, message.name, sequence, ErrorName::InvalidData));
                    Ok(())
                }
                carried_out => carried_out,
            },
            Entry::Refused(refusal) => {
                request.refuse(refusal);
                Ok(())
            }
            Entry::Held(place) => {
                let body = Bytes::copy_from_slice(body);
                let resume = move |core: &Core, request: Request, now| {
                    let session = request.session.clone();
                    let carried_out =
                        Message::parse(&body).and_then(|message| core.carry_out_call(request, &message, &body, now));
                    // What is malformed is only found out now; its connection goes on then.
                    if let Err(error) = carried_out {
                        tracing::debug!(%error, "a held request of a client of Pegasus");
                        session.push(|out| append_error(out, rpc.name().as_bytes(), sequence, ErrorName::InvalidData));
                    }
                };
                self.hold(request, &visit, place, Box::new(resume));
                Ok(())
            }
        }
    }

    /// Takes what is not for rows: the end of a scan, or a method that is not served here.
    fn take_other(
        &self,
        session: &Rc<Session>,
        partition: PartitionId,
        message: &Message<'_>,
    ) -> Result<(), ThriftError> {
        if Rpc::from_name(message.name) == Some(Rpc::ClearScanner) {
            // Nobody waits for an answer, whatever the request says.
            self.clear_scanner(partition, message.argument()?);
        } else if !message.is_one_way {
            let (name, sequence) = (message.name, message.sequence);
            session.push(|out| append_error(out, name, sequence, ErrorName::HandlerNotFound));
        }
        Ok(())
    }

    /// Hands one request, the message of which is the body's, to where its method is handled.
    fn carry_out_call(
        &self,
        request: Request,
        message: &Message<'_>,
        body: &[u8],
        now: Moment,
    ) -> Result<(), ThriftError> {
        let Form::Call(call) = &request.form else { return Ok(()) };
        let (rpc, partition) = (call.rpc, call.partition);
        match rpc {
            Rpc::Get | Rpc::Ttl => {
                let key: Blob<'_> = message.argument()?;
                match parts(key.0) {
                    Ok((hash_key, sort_key)) => {
                        self.get(request, &Get { partition, hash_key, sort_key, no_value: rpc == Rpc::Ttl }, now);
                    }
                    Err(refusal) => request.refuse(refusal),
                }
            }
            Rpc::MultiGet => self.call_multi_get(request, partition, &message.argument()?, now),
            Rpc::BatchGet => self.call_batch_get(request, partition, &message.argument()?, now),
            Rpc::SortkeyCount => {
                let hash_key: Blob<'_> = message.argument()?;
                self.count_sort_keys(request, partition, hash_key.0, now);
            }
            Rpc::GetScanner => self.begin_scan(request, partition, &message.argument::<GetScannerRequest<'_>>()?, now),
            Rpc::Scan => {
                let scan: ScanRequest = message.argument()?;
                self.continue_scan(request, partition, scan.context_id, now);
            }
            Rpc::Put => self.call_put(request, partition, &message.argument()?, now),
            Rpc::Remove => {
                let key: Blob<'_> = message.argument()?;
                match parts(key.0) {
                    Ok((hash_key, sort_key)) => {
                        let operations = &[RowOperation::Delete { sort_key }];
                        self.write_rows(request, &Write { partition, hash_key, operations }, now);
                    }
                    Err(refusal) => request.refuse(refusal),
                }
            }
            Rpc::MultiPut => self.call_multi_put(request, partition, &message.argument()?, now),
            Rpc::MultiRemove => self.call_multi_remove(request, partition, &message.argument()?, now),
            _ => {
                let mut request = request;
                note(&mut request, Detail::ReturnValue(understand(rpc, message)?));
                self.execute(request, Received { body: body.into(), rpc, partition }, now);
            }
        }
        Ok(())
    }

    fn call_put(&self, request: Request, partition: PartitionId, update: &UpdateRequest<'_>, now: Moment) {
        match parts(update.key.0) {
            Ok((hash_key, sort_key)) => {
                let expiry_seconds = expiry_seconds(update.expire_ts_seconds);
                let operations = &[RowOperation::Put { sort_key, value: update.value.0, expiry_seconds }];
                self.write_rows(request, &Write { partition, hash_key, operations }, now);
            }
            Err(refusal) => request.refuse(refusal),
        }
    }

    fn call_multi_put(&self, request: Request, partition: PartitionId, put: &MultiPutRequest<'_>, now: Moment) {
        let expiry_seconds = expiry_seconds(put.expire_ts_seconds);
        let row = |sort_key, value| RowOperation::Put { sort_key, value, expiry_seconds };
        let operations: Vec<RowOperation<'_>> = put.kvs.iter().map(|kv| row(kv.key.0, kv.value.0)).collect();
        self.write_rows(request, &Write { partition, hash_key: put.hash_key.0, operations: &operations }, now);
    }

    fn call_multi_remove(
        &self,
        mut request: Request,
        partition: PartitionId,
        remove: &MultiRemoveRequest<'_>,
        now: Moment,
    ) {
        note(&mut request, Detail::Named(remove.sort_keys.len()));
        let deletes = remove.sort_keys.iter().map(|sort_key| RowOperation::Delete { sort_key: sort_key.0 });
        let operations: Vec<RowOperation<'_>> = deletes.collect();
        self.write_rows(request, &Write { partition, hash_key: remove.hash_key.0, operations: &operations }, now);
    }

    fn call_multi_get(&self, request: Request, partition: PartitionId, get: &MultiGetRequest<'_>, now: Moment) {
        let sort_keys: Vec<SortKey<'_>> = get.sort_keys.iter().map(|sort_key| SortKey { bytes: sort_key.0 }).collect();
        match multi_get(get, partition, &sort_keys) {
            Ok(get) => self.multi_get(request, &get, now),
            Err(refusal) => request.refuse(refusal),
        }
    }

    fn call_batch_get(&self, request: Request, partition: PartitionId, get: &BatchGetRequest<'_>, now: Moment) {
        if get.keys.is_empty() {
            return request.refuse(Refusal::new(Status::InvalidArgument, "a batch_get without keys"));
        }
        let keys: Vec<(&[u8], &[u8])> = get.keys.iter().map(|key| (key.hash_key.0, key.sort_key.0)).collect();
        self.read_rows_by_key(request, partition, &keys, now);
    }
}

/// Remembers what the answer depends on.
pub(super) fn note(request: &mut Request, detail: Detail) {
    if let Form::Call(call) = &mut request.form {
        call.detail = detail;
    }
}

/// Methods that ask for rows: what they do, and what they are called in the log of slow requests.
fn served(rpc: Rpc) -> Option<(Rpc, Access, MessageKind)> {
    let (access, kind) = match rpc {
        Rpc::Get | Rpc::Ttl => (Access::Read, MessageKind::GET),
        Rpc::MultiGet | Rpc::BatchGet | Rpc::SortkeyCount => (Access::Read, MessageKind::MULTI_GET),
        Rpc::GetScanner | Rpc::Scan => (Access::Read, MessageKind::SCAN),
        Rpc::Put | Rpc::MultiPut | Rpc::Remove | Rpc::MultiRemove => (Access::Write, MessageKind::WRITE),
        Rpc::Incr => (Access::Write, MessageKind::INCREMENT),
        Rpc::CheckAndSet | Rpc::CheckAndMutate => (Access::Write, MessageKind::CHECK_AND_WRITE),
        _ => return None,
    };
    Some((rpc, access, kind))
}

/// Reads the argument of an operation that may have to wait, so that what cannot be read ends the connection now. Tells
/// whether the value checked is wanted.
fn understand(rpc: Rpc, message: &Message<'_>) -> Result<bool, ThriftError> {
    match rpc {
        Rpc::Incr => message.argument::<IncrRequest<'_>>().map(|_| false),
        Rpc::CheckAndSet => message.argument::<CheckAndSetRequest<'_>>().map(|check| check.return_check_value),
        _ => message.argument::<CheckAndMutateRequest<'_>>().map(|check| check.return_check_value),
    }
}

/// Whom a request is for. A number that is none of ours is that of a table that is not here.
fn partition(header: &RequestHeader) -> PartitionId {
    PartitionId::new(header.app_id.cast_unsigned(), header.partition_index.cast_unsigned())
}
