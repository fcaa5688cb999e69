//! Frames: what travels on every stream, requests, answers and prepares alike.
//!
//! ```text
//! offset size field            little endian
//!      0    4 length           bytes that follow this field
//!      4    2 kind             MessageKind
//!      6    2 status           Status of an answer; 0 in requests
//!      8    8 request id       chosen by the sender of the request, unique on its stream; 0 in one-way messages
//!     16    4 time left ms     in requests: how long the sender will wait; 0 in answers
//!     20    4 attachment bytes raw bytes at the end of the frame, after the body
//!     24    . body             rkyv archive of the message of that kind, its root at the end
//!      .    . attachment       payload or value, not part of the archive
//! ```
//!
//! A body is checked once, by [`Frame::body`]; after that its fields are read in place.

use bytes::{Buf, Bytes, BytesMut};
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::{Archive, Deserialize, Portable, Serialize};

use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::messages::{ErrorReply, MessageKind};
use crate::status::Status;

/// Bytes from a peer that are not a frame, or a frame whose body is not its message.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The length field is impossible.
    #[error("a frame of {0} bytes is over the limit of {FRAME_BYTES_MAX} (frame_bytes_max)")]
    TooLarge(usize),
    /// The length field is smaller than the header, or the attachment larger than the frame.
    #[error("a frame header contradicts itself: {0}")]
    BadHeader(&'static str),
    /// A status number this release does not know.
    #[error("unknown status {0}; the peer speaks a newer version")]
    UnknownStatus(u16),
    /// The body failed its check.
    #[error("the body of a {kind} frame is malformed: {detail}")]
    BadBody {
        /// What the frame said it was.
        kind: MessageKind,
        /// What the check found.
        detail: String,
    },
}

/// The fixed part of a frame, less its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the body is.
    pub kind: MessageKind,
    /// Result, in answers.
    pub status: Status,
    /// Matches an answer to its request.
    pub request_id: u64,
    /// How long the sender of a request will wait for its answer; 0 in answers.
    pub time_left_ms: u32,
}

impl FrameHeader {
    /// The header of a request.
    pub fn request(kind: MessageKind, request_id: u64, time_left_ms: u32) -> FrameHeader {
        FrameHeader { kind, status: Status::Ok, request_id, time_left_ms }
    }

    /// The header of an answer. It carries the kind of the request it answers.
    pub fn answer(kind: MessageKind, request_id: u64, status: Status) -> FrameHeader {
        FrameHeader { kind, status, request_id, time_left_ms: 0 }
    }
}

/// A received frame. Body and attachment share the receive buffer.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The fixed part.
    pub header: FrameHeader,
    /// The archive, unchecked.
    pub body: Bytes,
    /// Raw bytes after the archive.
    pub attachment: Bytes,
}

impl Frame {
    /// Takes the next whole frame off the front of `buffer`; `None` if more bytes are needed (then
    /// [`Frame::bytes_needed`] tells how many).
    pub fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, WireError> {
        let Some(total) = Frame::bytes_needed(buffer)? else { return Ok(None) };
        if buffer.len() < total {
            return Ok(None);
        }
        Frame::parse(buffer.split_to(total).freeze()).map(Some)
    }

    /// Reads one frame that is exactly `bytes` long, without copying.
    pub fn parse(mut bytes: Bytes) -> Result<Frame, WireError> {
        if Frame::bytes_needed(&bytes)? != Some(bytes.len()) {
            return Err(WireError::BadHeader("the length field does not match the bytes"));
        }
        let status = u16_at(&bytes, 6);
        let header = FrameHeader {
            kind: MessageKind(u16_at(&bytes, 4)),
            status: Status::from_code(status).ok_or(WireError::UnknownStatus(status))?,
            request_id: u64::from(u32_at(&bytes, 8)) | u64::from(u32_at(&bytes, 12)) << 32,
            time_left_ms: u32_at(&bytes, 16),
        };
        let attachment_bytes = u32_at(&bytes, 20) as usize;
        bytes.advance(FRAME_HEADER_BYTES);
        if attachment_bytes > bytes.len() {
            return Err(WireError::BadHeader("the attachment is longer than the frame"));
        }
        let attachment = bytes.split_off(bytes.len() - attachment_bytes);
        Ok(Frame { header, body: bytes, attachment })
    }

    /// Length of the frame at the front of `buffer`, header included; `None` if its length field is incomplete.
    pub fn bytes_needed(buffer: &[u8]) -> Result<Option<usize>, WireError> {
        if buffer.len() < 4 {
            return Ok(None);
        }
        let total = u32_at(buffer, 0) as usize + 4;
        if total > FRAME_BYTES_MAX {
            return Err(WireError::TooLarge(total));
        }
        if total < FRAME_HEADER_BYTES {
            return Err(WireError::BadHeader("shorter than its header"));
        }
        Ok(Some(total))
    }

    /// Checks the body and gives access to it in place. `T` is the archived message, for example
    /// `ArchivedGet<'_>`.
    pub fn body<'a, T>(&'a self) -> Result<&'a T, WireError>
    where
        T: Portable + for<'v> CheckBytes<HighValidator<'v, rancor::Error>>,
    {
        read_body(self.header.kind, &self.body)
    }

    /// Checks the body and copies it out. For messages off the hot path.
    pub fn decode<T>(&self) -> Result<T, WireError>
    where
        T: Archive,
        T::Archived: for<'v> CheckBytes<HighValidator<'v, rancor::Error>>
            + Deserialize<T, rkyv::api::high::HighDeserializer<rancor::Error>>,
    {
        let kind = self.header.kind;
        rkyv::from_bytes::<T, rancor::Error>(&self.body)
            .map_err(|error| WireError::BadBody { kind, detail: error.to_string() })
    }

    /// The explanation that comes with a status other than `Ok` and `NotFound`; `None` if there is none.
    pub fn error(&self) -> Option<ErrorReply> {
        if self.body.is_empty() { None } else { self.decode::<ErrorReply>().ok() }
    }
}

/// Checks archived bytes and gives access to them in place. Used where a body was kept without its frame
/// (mutation payloads).
pub fn read_body<T>(kind: MessageKind, body: &[u8]) -> Result<&T, WireError>
where
    T: Portable + for<'v> CheckBytes<HighValidator<'v, rancor::Error>>,
{
    rkyv::access::<T, rancor::Error>(body).map_err(|error| WireError::BadBody { kind, detail: error.to_string() })
}

/// Appends a message's archive alone, without a frame around it: what [`read_body`] reads.
pub fn append_body<T>(out: &mut Vec<u8>, body: &T)
where
    T: for<'a> Serialize<HighSerializer<&'a mut Vec<u8>, ArenaHandle<'a>, rancor::Error>>,
{
    rkyv::util::with_arena(|arena| {
        rkyv::api::high::to_bytes_in_with_alloc::<_, _, rancor::Error>(body, &mut *out, arena.acquire())
            .map(|_| ())
            .expect("a message in memory always archives into a growing buffer");
    });
}

/// Appends one frame to a buffer. The buffer may hold earlier frames: answers of one batch share one buffer.
///
/// The attachment is copied; a sender that wants to pass a large one on without a copy appends the frame with
/// [`FrameBuilder::head`] and sends the attachment behind it.
pub struct FrameBuilder;

impl FrameBuilder {
    /// Appends a whole frame.
    pub fn append<T>(out: &mut Vec<u8>, header: FrameHeader, body: &T, attachment: &[u8])
    where
        T: for<'a> Serialize<HighSerializer<&'a mut Vec<u8>, ArenaHandle<'a>, rancor::Error>>,
    {
        FrameBuilder::head(out, header, body, attachment.len());
        out.extend_from_slice(attachment);
    }

    /// Appends a frame without a body (answers that are only a status).
    pub fn append_empty(out: &mut Vec<u8>, header: FrameHeader, attachment: &[u8]) {
        let start = begin(out, header);
        finish(out, start, attachment.len());
        out.extend_from_slice(attachment);
    }

    /// Appends header and body; the caller sends `attachment_bytes` more bytes behind it.
    pub fn head<T>(out: &mut Vec<u8>, header: FrameHeader, body: &T, attachment_bytes: usize)
    where
        T: for<'a> Serialize<HighSerializer<&'a mut Vec<u8>, ArenaHandle<'a>, rancor::Error>>,
    {
        let start = begin(out, header);
        append_body(out, body);
        finish(out, start, attachment_bytes);
    }

    /// Appends an answer that is an error with its explanation.
    pub fn append_error(out: &mut Vec<u8>, request: &FrameHeader, status: Status, error: &ErrorReply) {
        FrameBuilder::append(out, FrameHeader::answer(request.kind, request.request_id, status), error, &[]);
    }
}

fn begin(out: &mut Vec<u8>, header: FrameHeader) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&header.kind.0.to_le_bytes());
    out.extend_from_slice(&header.status.code().to_le_bytes());
    out.extend_from_slice(&header.request_id.to_le_bytes());
    out.extend_from_slice(&header.time_left_ms.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    start
}

fn finish(out: &mut [u8], start: usize, attachment_bytes: usize) {
    let length = out.len() - start - 4 + attachment_bytes;
    debug_assert!(length + 4 <= FRAME_BYTES_MAX, "senders keep their frames within limits.rs");
    out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    out[start + 20..start + 24].copy_from_slice(&(attachment_bytes as u32).to_le_bytes());
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]])
}
