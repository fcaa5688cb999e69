//! Our own protocol, at the edge of a core: frames become plain requests, outcomes become frames.
//!
//! This file and `session` are all that knows frames. What is done with a request is in `reads`, `rows`, `scans`,
//! `admit` and `execute`, whose functions another protocol would call just so. A body is checked once, here; a write's
//! body is also its payload, so it is passed on as bytes.

use bytes::Bytes;
use pegasus_replication::Moment;
use pegasus_wire::environment::TableLimits;
use pegasus_wire::messages::ErrorReply;
use pegasus_wire::messages::data::{
    ArchivedCheckAndWrite, ArchivedEndScan, ArchivedExpiryChange, ArchivedGet, ArchivedIncrement, ArchivedMultiGet,
    ArchivedQueryCopy, ArchivedScan, CheckAndWrite, CheckReply, ExpiryChange, Get, GetReply, Increment, IncrementReply,
    MultiGet, RowOperation, Rows, Scan, SortKey, WriteReply,
};
use pegasus_wire::{Frame, FrameBuilder, FrameHeader, MessageKind, PartitionId, Status};
use rkyv::Portable;
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;

use super::Core;
use super::admit::unpinned;
use super::checks::check_write_bytes;
use super::execute::{Operation, Source};
use super::gate::Entry;
use super::outcome::{Outcome, Refusal};
use super::payload::plain_operation;
use super::request::Request;
use super::slow::Trace;
use super::visit::Visit;

impl Core {
    /// Takes one frame: what it asks for is carried out, or refused, now or when its turn comes. `now` is a reading of
    /// the clock after the frame was received.
    pub(crate) fn take_frame(&self, mut request: Request, frame: Frame, now: Moment) {
        if let Some(visit) = Visit::of(&frame) {
            request.trace = Some(Trace::new(visit, now, &self.slow));
            match if self.gated.get() { self.enter(&mut request, &visit, now) } else { Entry::Through } {
                Entry::Through => {}
                Entry::Refused(refusal) => return request.refuse(refusal),
                Entry::Held(place) => {
                    let frame = Frame { body: unpinned(&frame.body), attachment: Bytes::new(), ..frame };
                    let resume = move |core: &Core, request, now| core.carry_out(request, frame, now);
                    return self.hold(request, &visit, place, Box::new(resume));
                }
            }
        }
        self.carry_out(request, frame, now);
    }

    /// Hands one frame to where its kind is handled.
    fn carry_out(&self, request: Request, frame: Frame, now: Moment) {
        match frame.header.kind {
            MessageKind::GET => match body::<ArchivedGet<'_>>(&frame) {
                Ok(get) => self.get(request, &plain_get(get), now),
                Err(refusal) => request.refuse(refusal),
            },
            MessageKind::WRITE => self.write(request, &frame.body, now),
            MessageKind::MULTI_GET => match body::<ArchivedMultiGet<'_>>(&frame) {
                Ok(get) => {
                    let sort_keys: Vec<SortKey<'_>> =
                        get.sort_keys.iter().map(|sort_key| SortKey { bytes: &sort_key.bytes }).collect();
                    self.multi_get(request, &plain_multi_get(get, &sort_keys), now);
                }
                Err(refusal) => request.refuse(refusal),
            },
            MessageKind::SCAN => match body::<ArchivedScan<'_>>(&frame) {
                Ok(scan) => self.scan(request, &plain_scan(scan), now),
                Err(refusal) => request.refuse(refusal),
            },
            // One way: whatever it says, it is not answered.
            MessageKind::END_SCAN => match body::<ArchivedEndScan>(&frame) {
                Ok(end) => self.end_scan(PartitionId::from(&end.partition), end.context.to_native()),
                Err(refusal) => tracing::debug!(message = %refusal.message, "a scan's end"),
            },
            MessageKind::INCREMENT | MessageKind::CHECK_AND_WRITE => self.execute(request, frame, now),
            MessageKind::QUERY_COPY => match body::<ArchivedQueryCopy>(&frame) {
                Ok(query) => self.query_copy(request, PartitionId::from(&query.partition)),
                Err(refusal) => request.refuse(refusal),
            },
            kind => request.refuse(Refusal::new(Status::Unsupported, format!("a storage node does not serve {kind}"))),
        }
    }
}

/// A frame holds its operation for as long as it is needed.
impl Source for Frame {
    fn with_operation<T>(&self, run: impl FnOnce(&Operation<'_>) -> T) -> Result<T, Refusal> {
        if self.header.kind == MessageKind::INCREMENT {
            return Ok(run(&Operation::Increment(plain_increment(body::<ArchivedIncrement<'_>>(self)?))));
        }
        check_write_bytes(&TableLimits::default(), self.body.len())?;
        let check = body::<ArchivedCheckAndWrite<'_>>(self)?;
        let operations: Vec<RowOperation<'_>> = check.operations.iter().map(plain_operation).collect();
        Ok(run(&Operation::CheckAndWrite(plain_check_and_write(check, &operations))))
    }
}

/// Says what a request came to.
pub(crate) fn answer(request: &Request, header: &FrameHeader, outcome: &Outcome<'_>) {
    match *outcome {
        Outcome::Missing => {
            let header = FrameHeader::answer(header.kind, header.request_id, Status::NotFound);
            request.push(|out| FrameBuilder::append_empty(out, header, &[]));
        }
        Outcome::Row { value, ttl_seconds } => send(request, header, &GetReply { ttl_seconds }, value),
        Outcome::Rows(ref rows) => send::<Rows<'_>>(request, header, rows, &[]),
        Outcome::Copy(copy) => send(request, header, copy, &[]),
        Outcome::Written { decree } => send(request, header, &WriteReply { decree }, &[]),
        Outcome::Incremented { value, decree } => send(request, header, &IncrementReply { value, decree }, &[]),
        Outcome::Checked { written, exists, decree, value } => {
            send(request, header, &CheckReply { written, exists, decree }, value.unwrap_or_default());
        }
    }
}

/// Says why a request is not carried out.
pub(crate) fn refuse(request: &Request, header: &FrameHeader, refusal: Refusal) {
    let Refusal { status, message, endpoint, .. } = refusal;
    let message = if message.is_empty() { status.sentence().to_owned() } else { message };
    let explanation = ErrorReply { message, endpoint };
    request.push_refusal(|out| FrameBuilder::append_error(out, header, status, &explanation));
}

/// Sends the answer of a request that was carried out.
fn send<T>(request: &Request, header: &FrameHeader, body: &T, attachment: &[u8])
where
    T: for<'a> rkyv::Serialize<HighSerializer<&'a mut Vec<u8>, ArenaHandle<'a>, Error>>,
{
    let header = FrameHeader::answer(header.kind, header.request_id, Status::Ok);
    request.push(|out| FrameBuilder::append(out, header, body, attachment));
}

/// Checks a body and gives access to it in place.
fn body<T>(frame: &Frame) -> Result<&T, Refusal>
where
    T: Portable + for<'v> CheckBytes<HighValidator<'v, Error>>,
{
    frame.body::<T>().map_err(|error| Refusal::new(Status::Malformed, error.to_string()))
}

fn plain_get<'a>(get: &'a ArchivedGet<'_>) -> Get<'a> {
    Get {
        partition: PartitionId::from(&get.partition),
        hash_key: &get.hash_key,
        sort_key: &get.sort_key,
        no_value: get.no_value,
    }
}

fn plain_multi_get<'a>(get: &'a ArchivedMultiGet<'_>, sort_keys: &'a [SortKey<'a>]) -> MultiGet<'a> {
    MultiGet {
        partition: PartitionId::from(&get.partition),
        hash_key: &get.hash_key,
        sort_keys,
        range: get.range.plain(),
        filter: get.filter.plain(),
        reverse: get.reverse,
        no_value: get.no_value,
        count_only: get.count_only,
        rows_max: get.rows_max.to_native(),
        bytes_max: get.bytes_max.to_native(),
    }
}

fn plain_scan<'a>(scan: &'a ArchivedScan<'_>) -> Scan<'a> {
    Scan {
        partition: PartitionId::from(&scan.partition),
        context: scan.context.to_native(),
        keep_context: scan.keep_context,
        start: &scan.start,
        start_inclusive: scan.start_inclusive,
        stop: &scan.stop,
        reverse: scan.reverse,
        sort_keys: scan.sort_keys.plain(),
        hash_key_filter: scan.hash_key_filter.plain(),
        sort_key_filter: scan.sort_key_filter.plain(),
        no_value: scan.no_value,
        count_only: scan.count_only,
        rows_max: scan.rows_max.to_native(),
    }
}

fn plain_increment<'a>(increment: &'a ArchivedIncrement<'_>) -> Increment<'a> {
    Increment {
        partition: PartitionId::from(&increment.partition),
        hash_key: &increment.hash_key,
        sort_key: &increment.sort_key,
        increment: increment.increment.to_native(),
        expiry: match increment.expiry {
            ArchivedExpiryChange::Keep => ExpiryChange::Keep,
            ArchivedExpiryChange::Set(seconds) => ExpiryChange::Set(seconds.to_native()),
            ArchivedExpiryChange::Clear => ExpiryChange::Clear,
        },
    }
}

fn plain_check_and_write<'a>(
    check: &'a ArchivedCheckAndWrite<'_>,
    operations: &'a [RowOperation<'a>],
) -> CheckAndWrite<'a> {
    CheckAndWrite {
        partition: PartitionId::from(&check.partition),
        hash_key: &check.hash_key,
        check_sort_key: &check.check_sort_key,
        check: check.check.into(),
        operand: &check.operand,
        operations,
        return_value: check.return_value,
    }
}
