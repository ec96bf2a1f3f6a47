//! The types of fields: each type is asked how it is read, by a reader that notes what it asks for.

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Visitor, value::Error,
};
use serde::forward_to_deserialize_any;

/// What a type is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Its name, or that of a JSON type.
    pub(super) name: String,
    pub(super) list: bool,
    pub(super) map: bool,
    /// Its fields, if it is an object.
    pub(super) fields: &'static [&'static str],
}

impl Shape {
    /// As `kubectl explain` writes it.
    pub(super) fn text(&self) -> String {
        match (self.list, self.map) {
            (true, _) => format!("[]{}", self.name),
            (_, true) => format!("map[string]{}", self.name),
            _ => self.name.clone(),
        }
    }
}

/// What the type at a path asks its reader for.
pub(super) fn shape<T: DeserializeOwned>(names: &[&str]) -> Shape {
    let mut shape = Shape::default();
    // It is an error by design: nothing is read.
    let _ = T::deserialize(Probe {
        names,
        shape: &mut shape,
    });
    shape
}

/// Follows the names, then notes what is asked for.
struct Probe<'a> {
    names: &'a [&'a str],
    shape: &'a mut Shape,
}

fn noted<T>() -> Result<T, Error> {
    Err(Error::custom("only noted"))
}

impl Probe<'_> {
    fn note<T>(self, name: &str) -> Result<T, Error> {
        name.clone_into(&mut self.shape.name);
        noted()
    }
}

macro_rules! simple {
    ($($method:ident $name:literal)*) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            self.note($name)
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    simple! {
        deserialize_bool "boolean"
        deserialize_i32 "integer" deserialize_i64 "integer" deserialize_u32 "integer" deserialize_u64 "integer"
        deserialize_f64 "number"
        deserialize_str "string" deserialize_string "string"
        deserialize_bytes "base64" deserialize_byte_buf "base64"
        deserialize_any "integer or string"
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: V,
    ) -> Result<V::Value, Error> {
        self.note(name)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let [next, ..] = self.names else {
            self.shape.fields = fields;
            return self.note(name);
        };
        if !fields.contains(next) {
            return noted();
        }
        visitor.visit_map(Enter(self, false))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.shape.list = self.names.is_empty();
        visitor.visit_seq(Enter(self, false))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.shape.map = self.names.is_empty();
        visitor.visit_map(Enter(self, true))
    }

    forward_to_deserialize_any! {
        i8 i16 u8 u16 f32 char unit unit_struct tuple tuple_struct enum identifier ignored_any
    }
}

/// The one entry that is looked at, of a map whose keys are anything or of an object.
struct Enter<'a>(Probe<'a>, bool);

impl Enter<'_> {
    fn value(&mut self) -> Probe<'_> {
        let names = self.0.names;
        Probe {
            names: if self.1 {
                names
            } else {
                names.get(1..).unwrap_or_default()
            },
            shape: self.0.shape,
        }
    }
}

impl<'de> MapAccess<'de> for Enter<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let name = self.0.names.first().copied().unwrap_or("key");
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(self.value())
    }
}

impl<'de> SeqAccess<'de> for Enter<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let probe = Probe {
            names: self.0.names,
            shape: self.0.shape,
        };
        seed.deserialize(probe).map(Some)
    }
}
