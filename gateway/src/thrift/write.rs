//! Writing: appends to a buffer.

use super::FieldType;

/// Appends values to a buffer that somebody else owns. Lengths are ours, so they fit.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to this.
    pub fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { out }
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A byte.
    pub fn byte(&mut self, value: u8) {
        self.out.push(value);
    }

    /// A number of two bytes.
    pub fn i16(&mut self, value: i16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A number of four bytes.
    pub fn i32(&mut self, value: i32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A number of eight bytes.
    pub fn i64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A length and as many bytes.
    pub fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.out.extend_from_slice(value);
    }

    /// The begin of a field.
    pub fn field(&mut self, of: FieldType, id: i16) {
        self.byte(of as u8);
        self.i16(id);
    }

    /// The end of a structure.
    pub fn stop(&mut self) {
        self.byte(0);
    }

    /// The begin of a list.
    pub fn list(&mut self, of: FieldType, count: usize) {
        self.byte(of as u8);
        self.length(count);
    }

    /// The begin of a map.
    pub fn map(&mut self, key: FieldType, value: FieldType, count: usize) {
        self.byte(key as u8);
        self.byte(value as u8);
        self.length(count);
    }

    fn length(&mut self, length: usize) {
        self.i32(i32::try_from(length).expect("what is written is far smaller than 2 GiB: limits bound it"));
    }
}
