//! Pieces of frames put together by hand, right or wrong as a test wants them.

use pegasus_gateway::thrift::{FieldType, Reader, ThriftError, Value};

/// A v0 header that announces a body of so many bytes.
pub(crate) fn v0(body_bytes: u32) -> Vec<u8> {
    let mut header = b"THFT\0\0\0\0\0\0\0\x30\0\0\0\0".to_vec();
    header.extend(body_bytes.to_be_bytes());
    header.resize(48, 0);
    header
}

/// A v1 header that announces a structure and a body of so many bytes.
pub(crate) fn v1(meta_bytes: u32, body_bytes: u32) -> Vec<u8> {
    let mut header = b"THFT\0\0\0\x01".to_vec();
    header.extend(meta_bytes.to_be_bytes());
    header.extend(body_bytes.to_be_bytes());
    header
}

/// The begin of a message with this word, name and sequence 1.
pub(crate) fn begin(word: u32, name: &[u8]) -> Vec<u8> {
    let mut bytes = word.to_be_bytes().to_vec();
    bytes.extend((name.len() as u32).to_be_bytes());
    bytes.extend(name);
    bytes.extend(1u32.to_be_bytes());
    bytes
}

/// A list of this type that announces so many entries and has these bytes.
pub(crate) fn list(of: FieldType, count: i32, entries: &[u8]) -> Vec<u8> {
    let mut bytes = vec![of as u8];
    bytes.extend(count.to_be_bytes());
    bytes.extend(entries);
    bytes
}

/// A structure with one field.
pub(crate) fn structure(of: FieldType, id: i16, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![of as u8];
    bytes.extend(id.to_be_bytes());
    bytes.extend(value);
    bytes.push(0);
    bytes
}

pub(crate) fn read<'a, T: Value<'a>>(bytes: &'a [u8]) -> Result<T, ThriftError> {
    T::read(&mut Reader::new(bytes))
}
