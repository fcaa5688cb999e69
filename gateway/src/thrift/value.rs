//! What can stand in a field.

use super::{FieldType, Reader, ThriftError, Writer};

/// A value that is read from received bytes and written to a buffer.
pub trait Value<'a>: Sized {
    /// What the protocol calls it.
    const TYPE: FieldType;

    /// Fewest bytes that one takes. What a list announces is held against it before room is made.
    const BYTES_MIN: usize = Self::TYPE.bytes_min();

    /// Reads one.
    fn read(reader: &mut Reader<'a>) -> Result<Self, ThriftError>;

    /// Appends it.
    fn write(&self, writer: &mut Writer<'_>);
}

/// A structure with fields, as opposed to the raw types that only pretend to be structures.
pub trait Struct<'a>: Value<'a> {}

/// A map of text to text, in the order of the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map<'a>(pub Vec<(&'a str, &'a str)>);

impl<'a> Value<'a> for bool {
    const TYPE: FieldType = FieldType::Bool;

    fn read(reader: &mut Reader<'a>) -> Result<bool, ThriftError> {
        Ok(reader.byte()? != 0)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.byte(u8::from(*self));
    }
}

impl<'a> Value<'a> for i32 {
    const TYPE: FieldType = FieldType::I32;

    fn read(reader: &mut Reader<'a>) -> Result<i32, ThriftError> {
        reader.i32()
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.i32(*self);
    }
}

impl<'a> Value<'a> for i64 {
    const TYPE: FieldType = FieldType::I64;

    fn read(reader: &mut Reader<'a>) -> Result<i64, ThriftError> {
        reader.i64()
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.i64(*self);
    }
}

impl<'a> Value<'a> for &'a str {
    const TYPE: FieldType = FieldType::String;

    fn read(reader: &mut Reader<'a>) -> Result<&'a str, ThriftError> {
        reader.text()
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.bytes(self.as_bytes());
    }
}

impl<'a, T: Value<'a>> Value<'a> for Vec<T> {
    const TYPE: FieldType = FieldType::List;

    fn read(reader: &mut Reader<'a>) -> Result<Vec<T>, ThriftError> {
        let count = reader.list(T::TYPE, T::BYTES_MIN)?;
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(T::read(reader)?);
        }
        Ok(list)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.list(T::TYPE, self.len());
        for entry in self {
            entry.write(writer);
        }
    }
}

impl<'a> Value<'a> for Map<'a> {
    const TYPE: FieldType = FieldType::Map;

    fn read(reader: &mut Reader<'a>) -> Result<Map<'a>, ThriftError> {
        let count = reader.map(FieldType::String, FieldType::String)?;
        let mut map = Vec::with_capacity(count);
        for _ in 0..count {
            map.push((reader.text()?, reader.text()?));
        }
        Ok(Map(map))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.map(FieldType::String, FieldType::String, self.0.len());
        for (key, value) in &self.0 {
            writer.bytes(key.as_bytes());
            writer.bytes(value.as_bytes());
        }
    }
}
