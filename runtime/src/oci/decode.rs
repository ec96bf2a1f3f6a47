//! From JSON to the types of a configuration, by tables: serde's derived code for the same types is ten times as large,
//! and names neither the field nor its place in messages.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value};

/// Why a JSON text is not what it should be: a phrase that names the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(String);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

/// Where in the text a value is.
#[derive(Clone, Copy)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    name: &'a str,
    index: Option<usize>,
}

impl<'a> At<'a> {
    /// The whole text.
    pub(crate) const TOP: At<'static> = At {
        parent: None,
        name: "",
        index: None,
    };

    fn field(&'a self, name: &'a str) -> At<'a> {
        At {
            parent: Some(self),
            name,
            index: None,
        }
    }

    fn element(&'a self, index: usize) -> At<'a> {
        At {
            parent: Some(self),
            name: "",
            index: Some(index),
        }
    }

    /// `process.user.uid: it must be …`.
    fn error(&self, reason: &str) -> DecodeError {
        DecodeError(match self.parent {
            None => reason.to_owned(),
            Some(_) => format!("{self}: {reason}"),
        })
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else {
            return Ok(());
        };
        parent.fmt(f)?;
        match self.index {
            Some(index) => write!(f, "[{index}]"),
            None if parent.parent.is_none() => f.write_str(self.name),
            None => write!(f, ".{}", self.name),
        }
    }
}

/// What a value of the configuration can be.
///
/// As in the reference implementation's language, a field that is missing or null has the type's zero value, and
/// properties that are not known are passed over (the specification's "Extensibility").
pub trait Decode: Sized {
    /// Reads `value`, which stands at `at`.
    ///
    /// # Errors
    /// When it is of another type, out of range, or has a name that is not known.
    fn decode(value: Value, at: &At<'_>) -> Result<Self, DecodeError>;
}

/// Hands the properties of an object, those that are null aside, to `set`; then looks for `required` ones.
pub(crate) fn object(
    value: Value,
    at: &At<'_>,
    required: &[&str],
    set: &mut dyn FnMut(&str, Value, &At<'_>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let properties = properties(value, at)?;
    if let Some(missing) = required
        .iter()
        .find(|name| properties.get(**name).is_none_or(Value::is_null))
    {
        return Err(at.field(missing).error("it is missing"));
    }
    for (name, value) in properties {
        if !value.is_null() {
            set(&name, value, &at.field(&name))?;
        }
    }
    Ok(())
}

fn properties(value: Value, at: &At<'_>) -> Result<Map<String, Value>, DecodeError> {
    match value {
        Value::Object(properties) => Ok(properties),
        _ => Err(at.error("it must be an object")),
    }
}

/// The position in `names` of a value that is one of them.
pub(crate) fn one_of(value: &Value, at: &At<'_>, names: &[&str]) -> Result<usize, DecodeError> {
    let name = value.as_str().ok_or_else(|| at.error("it must be a string"))?;
    names
        .iter()
        .position(|known| *known == name)
        .ok_or_else(|| at.error(&format!("{name:?} is not known")))
}

impl Decode for bool {
    fn decode(value: Value, at: &At<'_>) -> Result<bool, DecodeError> {
        value
            .as_bool()
            .ok_or_else(|| at.error("it must be true or false"))
    }
}

impl Decode for String {
    fn decode(value: Value, at: &At<'_>) -> Result<String, DecodeError> {
        match value {
            // No string of a configuration can be handed to the kernel with a NUL in it.
            Value::String(text) if text.contains('\0') => Err(at.error("it has a NUL byte in it")),
            Value::String(text) => Ok(text),
            _ => Err(at.error("it must be a string")),
        }
    }
}

impl Decode for PathBuf {
    fn decode(value: Value, at: &At<'_>) -> Result<PathBuf, DecodeError> {
        String::decode(value, at).map(PathBuf::from)
    }
}

fn integer(value: &Value, at: &At<'_>, min: i128, max: i128) -> Result<i128, DecodeError> {
    let number = value
        .as_i64()
        .map(i128::from)
        .or_else(|| value.as_u64().map(i128::from));
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| at.error(&format!("it must be an integer between {min} and {max}")))
}

macro_rules! integers {
    ($($type:ty)*) => {
        $(impl Decode for $type {
            fn decode(value: Value, at: &At<'_>) -> Result<$type, DecodeError> {
                let number = integer(&value, at, <$type>::MIN.into(), <$type>::MAX.into())?;
                <$type>::try_from(number).map_err(|_| at.error("it is out of range"))
            }
        })*
    };
}

integers!(i32 i64 u16 u32 u64);

impl<T: Decode> Decode for Option<T> {
    fn decode(value: Value, at: &At<'_>) -> Result<Option<T>, DecodeError> {
        T::decode(value, at).map(Some)
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(value: Value, at: &At<'_>) -> Result<Vec<T>, DecodeError> {
        let Value::Array(values) = value else {
            return Err(at.error("it must be an array"));
        };
        let elements = values.into_iter().enumerate();
        elements
            .map(|(index, value)| T::decode(value, &at.element(index)))
            .collect()
    }
}

impl<T: Decode> Decode for BTreeMap<String, T> {
    fn decode(value: Value, at: &At<'_>) -> Result<BTreeMap<String, T>, DecodeError> {
        let mut map = BTreeMap::new();
        for (name, value) in properties(value, at)? {
            let element = T::decode(value, &at.field(&name))?;
            map.insert(name, element);
        }
        Ok(map)
    }
}

/// Defines structs of a configuration: `"jsonName" field: Type`, with `= required` where a zero value has no meaning.
macro_rules! objects {
    ($(
        $(#[$meta:meta])*
        struct $name:ident {
            $($(#[$field_meta:meta])* $json:literal $field:ident: $type:ty $(= $required:ident)?,)*
        }
    )*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, Default, PartialEq)]
            pub struct $name {
                $($(#[$field_meta])* pub $field: $type,)*
            }

            impl<'de> serde::Deserialize<'de> for $name {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let value = serde_json::Value::deserialize(deserializer)?;
                    $crate::oci::from_value(value).map_err(serde::de::Error::custom)
                }
            }

            impl serde::Serialize for $name {
                /// Fields with a zero value are left out.
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    use serde::ser::SerializeMap;
                    let zero = Self::default();
                    let mut map = serializer.serialize_map(None)?;
                    $(if self.$field != zero.$field || $crate::oci::decode::is_required!($($required)?) {
                        map.serialize_entry($json, &self.$field)?;
                    })*
                    map.end()
                }
            }

            impl $crate::oci::Decode for $name {
                fn decode(value: serde_json::Value, at: &$crate::oci::At<'_>) -> Result<Self, $crate::oci::DecodeError> {
                    let mut new = Self::default();
                    let required: &[&str] = &[$($($crate::oci::decode::$required!($json),)?)*];
                    $crate::oci::decode::object(value, at, required, &mut |name, value, at| {
                        match name {
                            $($json => new.$field = $crate::oci::Decode::decode(value, at)?,)*
                            _ => {}
                        }
                        Ok(())
                    })?;
                    Ok(new)
                }
            }
        )*
    };
}

macro_rules! required {
    ($json:literal) => {
        $json
    };
}

macro_rules! is_required {
    () => {
        false
    };
    (required) => {
        true
    };
}

/// Defines enumerations of a configuration: `"jsonName" Variant`, the first being the default.
macro_rules! names {
    ($(
        $(#[$meta:meta])*
        enum $name:ident {
            $($(#[$variant_meta:meta])* $json:literal $variant:ident,)*
        }
    )*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub enum $name {
                $($(#[$variant_meta])* $variant,)*
            }

            impl $name {
                /// All of them.
                pub const ALL: &'static [$name] = &[$($name::$variant,)*];
                /// Their names in the configuration, in the same order.
                pub const NAMES: &'static [&'static str] = &[$($json,)*];

                /// Its name in the configuration.
                pub fn name(self) -> &'static str {
                    Self::NAMES[self as usize]
                }
            }

            impl Default for $name {
                fn default() -> Self {
                    Self::ALL[0]
                }
            }

            impl serde::Serialize for $name {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_str(self.name())
                }
            }

            impl std::fmt::Display for $name {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(self.name())
                }
            }

            impl $crate::oci::Decode for $name {
                fn decode(value: serde_json::Value, at: &$crate::oci::At<'_>) -> Result<Self, $crate::oci::DecodeError> {
                    $crate::oci::decode::one_of(&value, at, Self::NAMES).map(|index| Self::ALL[index])
                }
            }
        )*
    };
}

pub(crate) use {is_required, names, objects, required};
