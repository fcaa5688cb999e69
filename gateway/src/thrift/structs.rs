//! Declares structures as their description reads: number, name, type. Reading and writing follow from that.

/// Declares structures. `3 => name: Type` is a field that is always written; `3 (optional) => name: Type` is an
/// `Option` that is written only if there is one. When read, fields may come in any order and any may be missing.
macro_rules! thrift_struct {
    ($($(#[$doc:meta])* pub struct $name:ident $(<$lifetime:lifetime>)? {
        $($(#[$field_doc:meta])* $id:literal $(($optional:ident))? => $field:ident : $type:ty,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name $(<$lifetime>)? {
            $($(#[$field_doc])* pub $field: $crate::thrift::structs::declared!($type $(, $optional)?),)*
        }

        impl<'a> $crate::thrift::Value<'a> for $crate::thrift::structs::with_lifetime!($name $(, $lifetime)?) {
            const TYPE: $crate::thrift::FieldType = $crate::thrift::FieldType::Struct;

            #[allow(unused_mut, clippy::match_single_binding, reason = "some structures have no fields")]
            fn read(reader: &mut $crate::thrift::Reader<'a>) -> Result<Self, $crate::thrift::ThriftError> {
                let mut value = Self::default();
                while let Some((found, id)) = reader.field()? {
                    match (id, found) {
                        $(($id, of) if of == <$type as $crate::thrift::Value<'a>>::TYPE => {
                            let read = <$type as $crate::thrift::Value<'a>>::read(reader)?;
                            $crate::thrift::structs::set!(value.$field, read $(, $optional)?);
                        })*
                        _ => reader.skip(found)?,
                    }
                }
                Ok(value)
            }

            fn write(&self, writer: &mut $crate::thrift::Writer<'_>) {
                $($crate::thrift::structs::put!(writer, $id, $type, self.$field $(, $optional)?);)*
                writer.stop();
            }
        }

        impl<'a> $crate::thrift::Struct<'a> for $crate::thrift::structs::with_lifetime!($name $(, $lifetime)?) {}
    )*};
}

/// Declares an enumeration whose values travel as numbers; numbers without a name are kept as they are.
macro_rules! thrift_enum {
    ($($(#[$doc:meta])* pub enum $name:ident { $($(#[$value_doc:meta])* $code:literal => $value:ident,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name(pub i32);

        impl $name {
            $($(#[$value_doc])* pub const $value: $name = $name($code);)*
        }

        impl<'a> $crate::thrift::Value<'a> for $name {
            const TYPE: $crate::thrift::FieldType = $crate::thrift::FieldType::I32;

            fn read(reader: &mut $crate::thrift::Reader<'a>) -> Result<Self, $crate::thrift::ThriftError> {
                reader.i32().map($name)
            }

            fn write(&self, writer: &mut $crate::thrift::Writer<'_>) {
                writer.i32(self.0);
            }
        }
    )*};
}

macro_rules! declared {
    ($type:ty) => { $type };
    ($type:ty, optional) => { Option<$type> };
}

macro_rules! with_lifetime {
    ($name:ident) => { $name };
    ($name:ident, $lifetime:lifetime) => { $name<$lifetime> };
}

macro_rules! set {
    ($place:expr, $read:ident) => {
        $place = $read
    };
    ($place:expr, $read:ident, optional) => {
        $place = Some($read)
    };
}

macro_rules! put {
    ($writer:ident, $id:literal, $type:ty, $value:expr) => {{
        $writer.field(<$type as $crate::thrift::Value<'_>>::TYPE, $id);
        $crate::thrift::Value::write(&$value, $writer);
    }};
    ($writer:ident, $id:literal, $type:ty, $value:expr, optional) => {
        if let Some(value) = &$value {
            $writer.field(<$type as $crate::thrift::Value<'_>>::TYPE, $id);
            $crate::thrift::Value::write(value, $writer);
        }
    };
}

pub(crate) use {declared, put, set, thrift_enum, thrift_struct, with_lifetime};
