//! Reading: a cursor over received bytes.

use super::ThriftError;
use crate::limits::{DEPTH_MAX, LIST_ENTRIES_MAX};

/// Type of a field, of the entries of a list, or of the keys and values of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FieldType {
    /// One byte, 0 or 1.
    Bool = 2,
    /// One byte.
    Byte = 3,
    /// Eight bytes.
    Double = 4,
    /// Two bytes.
    I16 = 6,
    /// Four bytes.
    I32 = 8,
    /// Eight bytes.
    I64 = 10,
    /// A length and as many bytes.
    String = 11,
    /// Fields until a stop.
    Struct = 12,
    /// Pairs.
    Map = 13,
    /// Entries.
    Set = 14,
    /// Entries.
    List = 15,
}

impl FieldType {
    fn from_code(code: u8) -> Result<FieldType, ThriftError> {
        Ok(match code {
            2 => FieldType::Bool,
            3 => FieldType::Byte,
            4 => FieldType::Double,
            6 => FieldType::I16,
            8 => FieldType::I32,
            10 => FieldType::I64,
            11 => FieldType::String,
            12 => FieldType::Struct,
            13 => FieldType::Map,
            14 => FieldType::Set,
            15 => FieldType::List,
            unknown => return Err(ThriftError::UnknownType(unknown)),
        })
    }

    /// Fewest bytes that a value of this type takes. A structure may have no fields; the raw types have more.
    pub const fn bytes_min(self) -> usize {
        match self {
            FieldType::Bool | FieldType::Byte | FieldType::Struct => 1,
            FieldType::I16 => 2,
            FieldType::I32 | FieldType::String => 4,
            FieldType::Set | FieldType::List => 5,
            FieldType::Map => 6,
            FieldType::I64 | FieldType::Double => 8,
        }
    }
}

/// A cursor. After an error its position means nothing.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// At the first of these bytes.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next bytes, as many as that.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], ThriftError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(ThriftError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ThriftError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(ThriftError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A byte.
    pub fn byte(&mut self) -> Result<u8, ThriftError> {
        Ok(self.array::<1>()?[0])
    }

    /// A number of two bytes.
    pub fn i16(&mut self) -> Result<i16, ThriftError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    /// A number of four bytes.
    pub fn i32(&mut self) -> Result<i32, ThriftError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// A number of eight bytes.
    pub fn i64(&mut self) -> Result<i64, ThriftError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A length and as many bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], ThriftError> {
        let length = self.i32()?;
        let length = usize::try_from(length).map_err(|_| ThriftError::NegativeLength(length))?;
        self.take(length)
    }

    /// A length and as many bytes of text.
    pub fn text(&mut self) -> Result<&'a str, ThriftError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| ThriftError::NotText)
    }

    /// The next field of a structure; `None` at its end.
    pub fn field(&mut self) -> Result<Option<(FieldType, i16)>, ThriftError> {
        match self.byte()? {
            0 => Ok(None),
            code => Ok(Some((FieldType::from_code(code)?, self.i16()?))),
        }
    }

    /// Number of the entries of a list, which must be of this type and have at least that many bytes each. An empty
    /// list may state any type.
    pub fn list(&mut self, wanted: FieldType, bytes_min: usize) -> Result<usize, ThriftError> {
        let found = self.byte()?;
        let count = self.entries(bytes_min)?;
        expect_type(found, wanted, count)?;
        Ok(count)
    }

    /// Number of the pairs of a map, which must be of these types. An empty map may state any.
    pub fn map(&mut self, key: FieldType, value: FieldType) -> Result<usize, ThriftError> {
        let (found_key, found_value) = (self.byte()?, self.byte()?);
        let count = self.entries(key.bytes_min() + value.bytes_min())?;
        expect_type(found_key, key, count)?;
        expect_type(found_value, value, count)?;
        Ok(count)
    }

    fn entries(&mut self, bytes_min: usize) -> Result<usize, ThriftError> {
        let stated = self.i32()?;
        let count = usize::try_from(stated).map_err(|_| ThriftError::NegativeLength(stated))?;
        if count > LIST_ENTRIES_MAX {
            return Err(ThriftError::TooManyEntries(stated));
        }
        // Whoever makes room for the entries makes it for what was sent, not for what was announced.
        if count * bytes_min > self.rest.len() { Err(ThriftError::Truncated) } else { Ok(count) }
    }

    /// Passes over a value.
    pub fn skip(&mut self, of: FieldType) -> Result<(), ThriftError> {
        self.skip_within(of, DEPTH_MAX)
    }

    fn skip_within(&mut self, of: FieldType, depth: usize) -> Result<(), ThriftError> {
        let inner = depth.checked_sub(1).ok_or(ThriftError::TooDeep)?;
        match of {
            FieldType::Bool | FieldType::Byte => self.take(1).map(|_| ()),
            FieldType::I16 => self.take(2).map(|_| ()),
            FieldType::I32 => self.take(4).map(|_| ()),
            FieldType::I64 | FieldType::Double => self.take(8).map(|_| ()),
            FieldType::String => self.bytes().map(|_| ()),
            FieldType::Struct => {
                while let Some((of, _)) = self.field()? {
                    self.skip_within(of, inner)?;
                }
                Ok(())
            }
            FieldType::Map => {
                let (key, value) = (self.byte()?, self.byte()?);
                for _ in 0..self.entries(1)? {
                    self.skip_within(FieldType::from_code(key)?, inner)?;
                    self.skip_within(FieldType::from_code(value)?, inner)?;
                }
                Ok(())
            }
            FieldType::Set | FieldType::List => {
                let entry = self.byte()?;
                for _ in 0..self.entries(1)? {
                    self.skip_within(FieldType::from_code(entry)?, inner)?;
                }
                Ok(())
            }
        }
    }
}

fn expect_type(found: u8, wanted: FieldType, count: usize) -> Result<(), ThriftError> {
    let wanted = wanted as u8;
    if found == wanted || count == 0 { Ok(()) } else { Err(ThriftError::WrongType { found, wanted }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_before_anything_is_read() {
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]).bytes(), Err(ThriftError::NegativeLength(-1)));
        assert_eq!(Reader::new(&[0, 0, 0, 2, 1]).bytes(), Err(ThriftError::Truncated));
        assert_eq!(Reader::new(&[0, 0, 0, 1, 7, 8]).bytes(), Ok(&[7][..]));
        let list = |count: i32, bytes: usize| {
            let mut list = vec![FieldType::Byte as u8];
            list.extend(count.to_be_bytes());
            list.resize(5 + bytes, 0);
            Reader::new(&list).list(FieldType::Byte, 1)
        };
        assert_eq!(list(3, 3), Ok(3));
        assert_eq!(list(3, 2), Err(ThriftError::Truncated));
        assert_eq!(list(-3, 2), Err(ThriftError::NegativeLength(-3)));
        assert_eq!(list(LIST_ENTRIES_MAX as i32, LIST_ENTRIES_MAX), Ok(LIST_ENTRIES_MAX));
        let too_many = LIST_ENTRIES_MAX as i32 + 1;
        assert_eq!(list(too_many, LIST_ENTRIES_MAX + 1), Err(ThriftError::TooManyEntries(too_many)));
        assert_eq!(list(i32::MAX, 9), Err(ThriftError::TooManyEntries(i32::MAX)));
    }

    #[test]
    fn a_list_of_another_type_is_refused_unless_it_is_empty() {
        let wanted = FieldType::Struct;
        assert_eq!(Reader::new(&[8, 0, 0, 0, 0]).list(wanted, 1), Ok(0));
        let wrong = ThriftError::WrongType { found: 8, wanted: 12 };
        assert_eq!(Reader::new(&[8, 0, 0, 0, 1, 0, 0, 0, 0]).list(wanted, 4), Err(wrong));
    }

    #[test]
    fn skipping_goes_only_so_deep() {
        let nested = |depth: usize| {
            let mut bytes = [FieldType::Struct as u8, 0, 1].repeat(depth - 1);
            bytes.extend(vec![0; depth]);
            Reader::new(&bytes).skip(FieldType::Struct)
        };
        assert_eq!(nested(DEPTH_MAX), Ok(()));
        assert_eq!(nested(DEPTH_MAX + 1), Err(ThriftError::TooDeep));
        assert_eq!(nested(100_000), Err(ThriftError::TooDeep));
    }

    #[test]
    fn skipping_passes_over_every_type() {
        let mut bytes = Vec::new();
        for (of, value) in [
            (FieldType::Bool, &[1][..]),
            (FieldType::Byte, &[9]),
            (FieldType::Double, &[0; 8]),
            (FieldType::I16, &[0; 2]),
            (FieldType::I32, &[0; 4]),
            (FieldType::I64, &[0; 8]),
            (FieldType::String, &[0, 0, 0, 2, b'a', b'b']),
            (FieldType::Map, &[3, 8, 0, 0, 0, 1, 7, 0, 0, 0, 7]),
            (FieldType::Set, &[3, 0, 0, 0, 2, 1, 2]),
            (FieldType::List, &[12, 0, 0, 0, 2, 0, 0]),
        ] {
            bytes.push(of as u8);
            bytes.extend([0, 1]);
            bytes.extend(value);
        }
        bytes.push(0);
        bytes.push(0x55);
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.skip(FieldType::Struct), Ok(()));
        assert_eq!(reader.rest(), [0x55]);
        assert_eq!(Reader::new(&[99, 0, 1]).skip(FieldType::Struct), Err(ThriftError::UnknownType(99)));
    }
}
