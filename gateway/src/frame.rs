//! Requests as they arrive: a header of either version, then a body (facts 2.1 to 2.3).
//!
//! ```text
//!   v0:  THFT | version 0 | 48 | crc | body length | crc | table | partition | timeout | thread hash | partition hash
//!   v1:  THFT | version 1 | meta length | body length, then a structure with the same in optional fields
//!   body:  strict message begin (type, name, sequence), then a structure with one field: the argument
//! ```
//!
//! Checksums are not looked at, as clients send 0 and Pegasus does not look either.

use crate::Rpc;
use crate::limits::{BODY_BYTES_MAX, BODY_BYTES_PASSED_OVER_MAX, META_BYTES_MAX, NAME_BYTES_MAX};
use crate::thrift::{Reader, ThriftError, Value, Writer, thrift_struct};

/// What every request begins with.
const MAGIC: &[u8; 4] = b"THFT";
/// Length of a v0 header.
const V0_BYTES: usize = 48;
/// Length of a v1 header without its structure.
const V1_BYTES: usize = 16;
/// Upper half of the word that begins a message of the strict binary protocol.
pub(crate) const STRICT_VERSION: u32 = 0x8001_0000;
/// Type, name and sequence of a message are within so many bytes.
const MESSAGE_BEGIN_BYTES: usize = 4 + 4 + NAME_BYTES_MAX + 4;
/// Message type of a request that is answered.
const CALL: u8 = 1;
/// Message type of a request that is not.
const ONE_WAY: u8 = 4;

/// Why a connection cannot go on. Each says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Something else than a Thrift client is at the other end.
    #[error("a request begins with {}, not with THFT; {}", text(.0), hint(.0))]
    NotThrift([u8; 4]),
    /// A version from the future.
    #[error("a header of version {0}; versions 0 and 1 are known")]
    UnknownVersion(u32),
    /// The header's length is fixed.
    #[error("a v0 header of {0} bytes, it has {V0_BYTES}")]
    HeaderLength(u32),
    /// Over the limit.
    #[error("a body of {0} bytes, more than {BODY_BYTES_PASSED_OVER_MAX} are not even passed over")]
    BodyTooLarge(u32),
    /// Over the limit.
    #[error("a v1 header with a structure of {0} bytes, the limit is {META_BYTES_MAX}")]
    MetaTooLarge(u32),
    /// The bytes are not Thrift.
    #[error("{0}")]
    Thrift(#[from] ThriftError),
}

fn text(bytes: &[u8; 4]) -> String {
    bytes.escape_ascii().to_string()
}

fn hint(bytes: &[u8; 4]) -> &'static str {
    match bytes {
        b"RDSN" => "the C++ client's protocol is not served here: use a client that speaks Thrift",
        b"GET " | b"POST" | b"HEAD" | b"PUT " => "HTTP is served at the administration port",
        _ => "this port serves Pegasus's Thrift clients; our own clients use the same number over UDP",
    }
}

/// What a header says beside lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestHeader {
    /// Of which version the header is, 0 or 1.
    pub version: u8,
    /// The table's number; clients say 0 or -1 to the meta service.
    pub app_id: i32,
    /// Index of the partition.
    pub partition_index: i32,
    /// How long the client waits; 0 if it does not say. The Go client, whose headers are of version 0, computes it
    /// modulo 4.3 seconds: only in version 1 it can be relied on.
    pub timeout_ms: i32,
    /// Hash of the key, if the client says it.
    pub partition_hash: u64,
    /// The request may be answered by a secondary, with old data.
    pub is_backup_request: bool,
}

thrift_struct! {
    /// The structure of a v1 header.
    pub struct HeaderMeta {
        /// The table's number.
        1 (optional) => app_id: i32,
        /// Index of the partition.
        2 (optional) => partition_index: i32,
        /// How long the client waits.
        3 (optional) => client_timeout: i32,
        /// Hash of the key.
        4 (optional) => client_partition_hash: i64,
        /// The request may be answered by a secondary.
        5 (optional) => is_backup_request: bool,
    }
}

/// Where a request is in the bytes received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing can be said before at least that many bytes are there.
    Needs(usize),
    /// It is whole.
    Whole {
        /// What its header says.
        header: RequestHeader,
        /// Where its body begins.
        body_at: usize,
        /// Where it ends.
        end: usize,
    },
    /// Its body is larger than may be, and the begin of it is here: enough to tell the client.
    TooLarge {
        /// Where its body begins.
        body_at: usize,
        /// Where it ends.
        end: usize,
    },
}

/// Looks for a request at the begin of `received`.
pub fn find(received: &[u8]) -> Result<Progress, FrameError> {
    // Even the first bytes can tell that this leads to nothing.
    let seen = received.len().min(MAGIC.len());
    if received[..seen] != MAGIC[..seen] {
        let mut begin = [0; 4];
        begin[..seen].copy_from_slice(&received[..seen]);
        return Err(FrameError::NotThrift(begin));
    }
    let word =
        |at: usize| received.get(at..).and_then(|bytes| bytes.first_chunk()).map(|word| u32::from_be_bytes(*word));
    let (Some(version), Some(second), Some(third)) = (word(4), word(8), word(12)) else {
        return Ok(Progress::Needs(V1_BYTES));
    };
    match version {
        0 if second as usize != V0_BYTES => Err(FrameError::HeaderLength(second)),
        0 => match received.first_chunk::<V0_BYTES>() {
            Some(header) => find_v0(received, header),
            None => Ok(Progress::Needs(V0_BYTES)),
        },
        1 => find_v1(received, second, third),
        unknown => Err(FrameError::UnknownVersion(unknown)),
    }
}

fn find_v0(received: &[u8], header: &[u8; V0_BYTES]) -> Result<Progress, FrameError> {
    let mut fields = Reader::new(&header[16..]);
    let body_bytes = body_bytes(fields.i32()?.cast_unsigned())?;
    fields.i32()?;
    let (app_id, partition_index, timeout_ms) = (fields.i32()?, fields.i32()?, fields.i32()?);
    fields.i32()?;
    let partition_hash = fields.i64()?.cast_unsigned();
    let end = V0_BYTES + body_bytes;
    if let Some(progress) = unless_whole(received, V0_BYTES, end) {
        return Ok(progress);
    }
    let header =
        RequestHeader { version: 0, app_id, partition_index, timeout_ms, partition_hash, is_backup_request: false };
    Ok(Progress::Whole { header, body_at: V0_BYTES, end })
}

fn find_v1(received: &[u8], meta_bytes: u32, stated_body: u32) -> Result<Progress, FrameError> {
    if meta_bytes as usize > META_BYTES_MAX {
        return Err(FrameError::MetaTooLarge(meta_bytes));
    }
    let body_at = V1_BYTES + meta_bytes as usize;
    let end = body_at + body_bytes(stated_body)?;
    if let Some(progress) = unless_whole(received, body_at, end) {
        return Ok(progress);
    }
    let meta = HeaderMeta::read(&mut Reader::new(&received[V1_BYTES..body_at]))?;
    let header = RequestHeader {
        version: 1,
        app_id: meta.app_id.unwrap_or_default(),
        partition_index: meta.partition_index.unwrap_or_default(),
        timeout_ms: meta.client_timeout.unwrap_or_default(),
        partition_hash: meta.client_partition_hash.unwrap_or_default().cast_unsigned(),
        is_backup_request: meta.is_backup_request.unwrap_or_default(),
    };
    Ok(Progress::Whole { header, body_at, end })
}

fn body_bytes(stated: u32) -> Result<usize, FrameError> {
    let bytes = stated as usize;
    if bytes > BODY_BYTES_PASSED_OVER_MAX { Err(FrameError::BodyTooLarge(stated)) } else { Ok(bytes) }
}

/// What stands in the way of a request with such a body.
fn unless_whole(received: &[u8], body_at: usize, end: usize) -> Option<Progress> {
    let is_too_large = end - body_at > BODY_BYTES_MAX;
    let needed = if is_too_large { body_at + MESSAGE_BEGIN_BYTES } else { end };
    if received.len() < needed {
        return Some(Progress::Needs(needed));
    }
    is_too_large.then_some(Progress::TooLarge { body_at, end })
}

/// The body of a request: what is asked, and its argument, which is not read yet.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Name of the method; [`Rpc::from_name`] tells whether it is known.
    pub name: &'a [u8],
    /// The answer repeats it.
    pub sequence: i32,
    /// Nobody waits for an answer.
    pub is_one_way: bool,
    arguments: Reader<'a>,
}

impl<'a> Message<'a> {
    /// Reads the begin of a body.
    pub fn parse(body: &'a [u8]) -> Result<Message<'a>, ThriftError> {
        let mut reader = Reader::new(body);
        let (kind, name, sequence) = read_message_begin(&mut reader)?;
        let is_one_way = match kind {
            CALL => false,
            ONE_WAY => true,
            other => return Err(ThriftError::MessageType(other)),
        };
        let name = &name[..name.len().min(NAME_BYTES_MAX)];
        Ok(Message { name, sequence, is_one_way, arguments: reader })
    }

    /// Reads the argument: the first field of the structure that follows.
    pub fn argument<T: Value<'a>>(&self) -> Result<T, ThriftError> {
        let mut reader = self.arguments;
        while let Some((found, id)) = reader.field()? {
            if id == 1 && found == T::TYPE {
                return T::read(&mut reader);
            }
            reader.skip(found)?;
        }
        Err(ThriftError::NoArgument)
    }
}

/// Reads type, name and sequence.
pub(crate) fn read_message_begin<'a>(reader: &mut Reader<'a>) -> Result<(u8, &'a [u8], i32), ThriftError> {
    let word = reader.i32()?.cast_unsigned();
    if word & 0xffff_0000 != STRICT_VERSION {
        return Err(ThriftError::NotStrict(word));
    }
    let name = reader.bytes()?;
    Ok((word as u8, name, reader.i32()?))
}

/// Appends a request with a v0 header, as most clients send it.
pub fn append_request<'a, T: Value<'a>>(
    out: &mut Vec<u8>,
    header: &RequestHeader,
    rpc: Rpc,
    sequence: i32,
    argument: &T,
) {
    let start = out.len();
    let mut writer = Writer::new(out);
    writer.raw(MAGIC);
    // Version, header length, checksum, body length (below), checksum.
    for word in [0, V0_BYTES as i32, 0, 0, 0, header.app_id, header.partition_index, header.timeout_ms] {
        writer.i32(word);
    }
    writer.i32(thread_hash(header.app_id, header.partition_index));
    writer.i64(header.partition_hash.cast_signed());
    // Scanners are ended without waiting; the clients of Apache send even that as a call.
    writer.i32((STRICT_VERSION | u32::from(CALL)).cast_signed());
    writer.bytes(rpc.name().as_bytes());
    writer.i32(sequence);
    writer.field(T::TYPE, 1);
    argument.write(&mut writer);
    writer.stop();
    let body_bytes = (out.len() - start - V0_BYTES) as u32;
    out[start + 16..start + 20].copy_from_slice(&body_bytes.to_be_bytes());
}

/// Which thread of a server of Apache the request goes to.
fn thread_hash(app_id: i32, partition_index: i32) -> i32 {
    app_id.wrapping_mul(7919).wrapping_add(partition_index)
}
