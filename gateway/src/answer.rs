//! Answers: total length, error name, message begin, and the result if there is no error (facts 2.4).

use crate::error_name::ErrorName;
use crate::frame::{STRICT_VERSION, read_message_begin};
use crate::limits::{ANSWER_BYTES_MAX, NAME_BYTES_MAX};
use crate::thrift::{Reader, ThriftError, Value, Writer};

/// Message type of an answer.
const REPLY: u8 = 2;
/// What the name of a method gets in its answer.
const SUFFIX: &[u8] = b"_ACK";

/// Appends the answer of a request that was carried out.
pub fn append_result<'a, T: Value<'a>>(out: &mut Vec<u8>, name: &[u8], sequence: i32, result: &T) {
    append(out, name, sequence, ErrorName::Ok, |writer| {
        writer.field(T::TYPE, 0);
        result.write(writer);
        writer.stop();
    });
}

/// Appends the answer of a request that was not carried out.
pub fn append_error(out: &mut Vec<u8>, name: &[u8], sequence: i32, error: ErrorName) {
    append(out, name, sequence, error, |_| {});
}

fn append(out: &mut Vec<u8>, name: &[u8], sequence: i32, error: ErrorName, write: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    let mut writer = Writer::new(out);
    writer.i32(0);
    writer.bytes(error.text().as_bytes());
    writer.i32((STRICT_VERSION | u32::from(REPLY)).cast_signed());
    let name = &name[..name.len().min(NAME_BYTES_MAX)];
    writer.i32((name.len() + SUFFIX.len()) as i32);
    writer.raw(name);
    writer.raw(SUFFIX);
    writer.i32(sequence);
    write(&mut writer);
    let total = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&total.to_be_bytes());
}

/// Why an answer cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Its length cannot be right.
    #[error("an answer of {0} bytes, the limit is {ANSWER_BYTES_MAX}")]
    Length(i32),
    /// The bytes are not Thrift.
    #[error("{0}")]
    Thrift(#[from] ThriftError),
}

/// Tells how many bytes the answer at the begin of `received` has; `None` until that can be told.
pub fn length(received: &[u8]) -> Result<Option<usize>, AnswerError> {
    let Some(word) = received.first_chunk::<4>() else { return Ok(None) };
    let stated = i32::from_be_bytes(*word);
    match usize::try_from(stated) {
        Ok(bytes) if (4..=ANSWER_BYTES_MAX).contains(&bytes) => Ok(Some(bytes)),
        _ => Err(AnswerError::Length(stated)),
    }
}

/// An answer whose result is not read yet.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Name of the error; may be one that [`ErrorName`] does not know.
    pub error: &'a str,
    /// Of the request.
    pub sequence: i32,
    result: Reader<'a>,
}

impl<'a> Answer<'a> {
    /// Reads the begin of an answer, given with its length word.
    pub fn parse(bytes: &'a [u8]) -> Result<Answer<'a>, ThriftError> {
        let mut reader = Reader::new(bytes);
        reader.i32()?;
        let error = reader.text()?;
        let (kind, _, sequence) = read_message_begin(&mut reader)?;
        if kind != REPLY {
            return Err(ThriftError::MessageType(kind));
        }
        Ok(Answer { error, sequence, result: reader })
    }

    /// True if there is a result.
    pub fn is_ok(&self) -> bool {
        self.error == ErrorName::Ok.text()
    }

    /// Reads the result.
    pub fn result<T: Value<'a>>(&self) -> Result<T, ThriftError> {
        let mut reader = self.result;
        while let Some((found, id)) = reader.field()? {
            if id == 0 && found == T::TYPE {
                return T::read(&mut reader);
            }
            reader.skip(found)?;
        }
        Err(ThriftError::NoArgument)
    }
}
