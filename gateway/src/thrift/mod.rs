//! Thrift's strict binary protocol, as much of it as Pegasus uses: big-endian numbers, no compression.
//!
//! Reading borrows: strings and blobs are slices of what was received. Fields that are not known are skipped, as
//! newer clients may send them; fields that are missing keep their default.

mod read;
mod special;
pub(crate) mod structs;
mod value;
mod write;

pub use read::{FieldType, Reader};
pub use special::{Blob, ErrorCode, Gpid, HostPort, RpcAddress};
pub(crate) use structs::{thrift_enum, thrift_struct};
pub use value::{Map, Struct, Value};
pub use write::Writer;

/// Bytes that are not what they should be. Nothing can be said of what follows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThriftError {
    /// The bytes end in the middle of a value.
    #[error("the bytes end in the middle of a value")]
    Truncated,
    /// A string, blob, list or map has less than no entries.
    #[error("a length of {0}")]
    NegativeLength(i32),
    /// A list or map has too many entries.
    #[error("{0} entries, the limit is {limit}", limit = crate::limits::LIST_ENTRIES_MAX)]
    TooManyEntries(i32),
    /// Structures inside structures.
    #[error("more than {limit} structures inside each other", limit = crate::limits::DEPTH_MAX)]
    TooDeep,
    /// There is no such type.
    #[error("type {0} does not exist")]
    UnknownType(u8),
    /// A list or map holds another type than it should.
    #[error("a list of type {found}, not {wanted}")]
    WrongType {
        /// What it holds.
        found: u8,
        /// What it should hold.
        wanted: u8,
    },
    /// A string is not UTF-8.
    #[error("a string that is not UTF-8")]
    NotText,
    /// The message does not begin as the strict protocol demands.
    #[error("a message begins with {0:#010x}, not with version 1 of the strict binary protocol")]
    NotStrict(u32),
    /// The message is none that may come here.
    #[error("a message of type {0}")]
    MessageType(u8),
    /// The structure of the arguments lacks the argument.
    #[error("the request has no argument")]
    NoArgument,
}
