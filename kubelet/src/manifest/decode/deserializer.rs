//! What serde asks of a value.

use serde::de::{self, Deserializer, Visitor};

use super::reader::{Items, ReadError, Reader, exact};
use crate::manifest::scalar::Meaning;
use crate::manifest::tree::{Node, Value};

macro_rules! integers {
    ($($method:ident $visit:ident $kind:ty),*) => {$(
        fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
            self.integer("a whole number", |number: $kind| visitor.$visit(number))
        }
    )*};
}

impl<'a> Deserializer<'a> for Reader<'a> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Map(_) => self.map(None, visitor),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Scalar(text, Meaning::Str) => self.at(visitor.visit_str(text)),
            Value::Scalar(_, Meaning::Bool(value)) => self.at(visitor.visit_bool(*value)),
            Value::Scalar(_, Meaning::Int(_)) => self.deserialize_i64(visitor),
            // `8080.0` is a port, as it is for the API server.
            Value::Scalar(_, Meaning::Float(value)) if exact(*value).is_some() => {
                self.deserialize_i64(visitor)
            }
            Value::Scalar(_, Meaning::Float(value)) => self.at(visitor.visit_f64(*value)),
            Value::Scalar(_, Meaning::Null) => self.at(visitor.visit_unit()),
        }
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.value {
            _ if self.is_nothing() => visitor.visit_bool(false),
            Value::Scalar(_, Meaning::Bool(value)) => self.at(visitor.visit_bool(value)),
            _ => self.mismatch("true or false"),
        }
    }

    integers!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    );

    fn deserialize_f32<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            _ if self.is_nothing() => visitor.visit_f64(0.0),
            Value::Scalar(_, Meaning::Float(value)) => self.at(visitor.visit_f64(*value)),
            Value::Scalar(text, Meaning::Int(_)) => match text.parse() {
                Ok(value) => self.at(visitor.visit_f64(value)),
                Err(_) => self.mismatch("a number"),
            },
            _ => self.mismatch("a number"),
        }
    }

    fn deserialize_char<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            _ if self.is_nothing() => visitor.visit_str(""),
            Value::Scalar(text, Meaning::Str) => self.at(visitor.visit_str(text)),
            _ => self.mismatch("a string"),
        }
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.is_nothing() {
            return visitor.visit_none();
        }
        let place = self.clone();
        place.at(visitor.visit_some(self))
    }

    fn deserialize_unit<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.is_nothing() {
            visitor.visit_unit()
        } else {
            self.mismatch("nothing")
        }
    }

    fn deserialize_unit_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_unit(visitor)
    }

    /// A quantity may be written as a number; one that is not written is none.
    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let place = self.clone();
        let number = match &self.node.value {
            Value::Scalar(_, Meaning::Int(number)) => Some(number.to_string()),
            Value::Scalar(_, Meaning::Float(number)) => Some(number.to_string()),
            Value::Scalar(_, Meaning::Null) => Some("0".to_owned()),
            _ => None,
        };
        match number.filter(|_| name == "Quantity") {
            Some(number) => {
                place.at(visitor.visit_newtype_struct(de::value::StringDeserializer::new(number)))
            }
            None => place.at(visitor.visit_newtype_struct(self)),
        }
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let items: &[Node] = match &self.node.value {
            _ if self.is_nothing() => &[],
            Value::List(items) => items,
            _ => return self.mismatch("a list"),
        };
        self.at(visitor.visit_seq(Items {
            parent: &self,
            rest: items.iter().enumerate(),
        }))
    }

    fn deserialize_tuple<V: Visitor<'a>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.map(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.map(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Scalar(text, Meaning::Str) => {
                self.at(visitor.visit_enum(de::value::StrDeserializer::<ReadError>::new(text)))
            }
            _ => self.mismatch("a string"),
        }
    }

    fn deserialize_identifier<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }
}
