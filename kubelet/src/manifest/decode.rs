//! A tree as a Kubernetes type, strictly, with every mistake collected.
//!
//! serde gives up at the first value of a wrong type. So a value that was found wrong is noted and the tree is read
//! again with nothing in its place, until all of it can be read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::nearest::nearest;
use super::scalar::Meaning;
use super::tree::{Key, Node, Value};

/// Mistakes of one object are no longer collected after this many.
const MAX_MISTAKES: usize = 64;

/// A field that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) line: usize,
    pub(super) path: String,
    pub(super) kind: MistakeKind,
}

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MistakeKind {
    /// No such field; the nearest name that there is.
    Unknown(Option<String>),
    /// The field is there twice; the line of the first.
    Duplicate(usize),
    /// The value is of another type than the field.
    Type(String),
    /// The value is of the right type and does not fit.
    Value(String),
}

/// Reads a tree as a type. Returns what could be read and all that could not.
pub(super) fn decode<T: DeserializeOwned>(node: &Node) -> (Option<T>, Vec<Mistake>) {
    let context = Context::default();
    let mut object = None;
    for _ in 0..MAX_MISTAKES {
        match T::deserialize(Reader {
            node,
            line: node.line,
            path: String::new(),
            context: &context,
        }) {
            Ok(found) => {
                object = Some(found);
                break;
            }
            Err(error) => {
                let Some((line, path)) = error.place else { break };
                let kind = if error.wrong_type {
                    MistakeKind::Type
                } else {
                    MistakeKind::Value
                };
                context.note(line, &path, kind(error.message));
                if !context.wrong.borrow_mut().insert(path) {
                    break;
                }
            }
        }
    }
    let mistakes = context.mistakes.into_inner();
    (object, mistakes.into_values().collect())
}

#[derive(Default)]
struct Context {
    /// Paths of values of a wrong type, which are read as nothing.
    wrong: RefCell<BTreeSet<String>>,
    /// By path, so that reading again finds no mistake twice.
    mistakes: RefCell<BTreeMap<(usize, String), Mistake>>,
}

impl Context {
    fn note(&self, line: usize, path: &str, kind: MistakeKind) {
        let mistake = Mistake {
            line,
            path: path.to_owned(),
            kind,
        };
        self.mistakes
            .borrow_mut()
            .entry((line, path.to_owned()))
            .or_insert(mistake);
    }
}

/// Why reading stopped, and where.
#[derive(Debug)]
struct ReadError {
    message: String,
    wrong_type: bool,
    place: Option<(usize, String)>,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            message: message.to_string(),
            wrong_type: false,
            place: None,
        }
    }
}

#[derive(Clone)]
struct Reader<'a> {
    node: &'a Node,
    /// Where the field's name is, or else the value.
    line: usize,
    path: String,
    context: &'a Context,
}

impl<'a> Reader<'a> {
    /// Puts this value's place on an error that has none.
    fn at<T>(&self, result: Result<T, ReadError>) -> Result<T, ReadError> {
        result.map_err(|mut error| {
            error.place.get_or_insert_with(|| (self.line, self.path.clone()));
            error
        })
    }

    fn mismatch<T>(&self, expected: &str) -> Result<T, ReadError> {
        let (found, hint) = match &self.node.value {
            Value::Map(_) => ("an object".to_owned(), ""),
            Value::List(_) => ("a list".to_owned(), ""),
            Value::Scalar(_, Meaning::Null) => ("nothing".to_owned(), ""),
            Value::Scalar(text, Meaning::Str) => (format!("the string {text:?}"), ""),
            Value::Scalar(text, Meaning::Bool(_)) => (format!("the boolean {text}"), "; put it in quotes"),
            Value::Scalar(text, _) => (format!("the number {text}"), "; put it in quotes"),
        };
        let hint = if expected == "a string" { hint } else { "" };
        let message = format!("expected {expected}, found {found}{hint}");
        self.at(Err(ReadError {
            message,
            wrong_type: true,
            place: None,
        }))
    }

    fn is_nothing(&self) -> bool {
        self.node.is_null() || self.context.wrong.borrow().contains(&self.path)
    }

    fn child(&self, node: &'a Node, line: usize, part: &str) -> Self {
        let path = if part.starts_with('[') || self.path.is_empty() {
            format!("{}{part}", self.path)
        } else {
            format!("{}.{part}", self.path)
        };
        Self {
            node,
            line,
            path,
            context: self.context,
        }
    }

    fn integer<V, T>(
        self,
        expected: &str,
        visit: impl FnOnce(T) -> Result<V, ReadError>,
    ) -> Result<V, ReadError>
    where
        T: TryFrom<i128> + Default,
    {
        if self.is_nothing() {
            return visit(T::default());
        }
        let whole = match self.node.value {
            Value::Scalar(_, Meaning::Int(number)) => Some(number),
            Value::Scalar(_, Meaning::Float(number)) => exact(number),
            _ => None,
        };
        match whole.map(T::try_from) {
            Some(Ok(number)) => self.at(visit(number)),
            Some(Err(_)) => self.mismatch(&format!("{expected} in its range")),
            None => self.mismatch(expected),
        }
    }

    fn fields(&self, known: Option<&'static [&'static str]>) -> Result<Vec<(&'a Key, &'a Node)>, ReadError> {
        let fields = match &self.node.value {
            _ if self.is_nothing() => return Ok(Vec::new()),
            Value::Map(fields) => fields,
            _ => return self.mismatch("an object"),
        };
        let mut kept: Vec<(&Key, &Node)> = Vec::with_capacity(fields.len());
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (key, node) in fields {
            let path = || self.child(node, key.line, &part(&key.name, known.is_some())).path;
            if let Some(first) = seen.get(key.name.as_str()) {
                self.context
                    .note(key.line, &path(), MistakeKind::Duplicate(*first));
            } else if known.is_some_and(|known| !known.contains(&key.name.as_str())) {
                let near = nearest(&key.name, known.unwrap_or_default());
                self.context.note(key.line, &path(), MistakeKind::Unknown(near));
            } else {
                seen.insert(&key.name, key.line);
                kept.push((key, node));
            }
        }
        Ok(kept)
    }

    fn map<V: Visitor<'a>>(
        self,
        known: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let fields = self.fields(known)?;
        let access = Fields {
            parent: &self,
            in_struct: known.is_some(),
            rest: fields.into_iter(),
            value: None,
        };
        self.at(visitor.visit_map(access))
    }
}

/// A whole number that a float stands for exactly.
fn exact(number: f64) -> Option<i128> {
    // Every whole number below 2^53 is exact.
    #[allow(clippy::cast_possible_truncation)]
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i128)
}

/// A field's name in a path; keys of a map are in brackets.
fn part(name: &str, in_struct: bool) -> String {
    if in_struct {
        name.to_owned()
    } else {
        format!("[{name}]")
    }
}

struct Fields<'p, 'a> {
    parent: &'p Reader<'a>,
    in_struct: bool,
    rest: std::vec::IntoIter<(&'a Key, &'a Node)>,
    value: Option<(&'a Key, &'a Node)>,
}

impl<'a> MapAccess<'a> for Fields<'_, 'a> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        self.value = self.rest.next();
        let Some((key, _)) = self.value else {
            return Ok(None);
        };
        seed.deserialize(de::value::StrDeserializer::new(&key.name))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let (key, node) = self
            .value
            .take()
            .ok_or_else(|| de::Error::custom("a value without a name"))?;
        seed.deserialize(
            self.parent
                .child(node, key.line, &part(&key.name, self.in_struct)),
        )
    }
}

struct Items<'p, 'a> {
    parent: &'p Reader<'a>,
    rest: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'a> SeqAccess<'a> for Items<'_, 'a> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        match self.rest.next() {
            Some((index, node)) => seed
                .deserialize(self.parent.child(node, node.line, &format!("[{index}]")))
                .map(Some),
            None => Ok(None),
        }
    }
}

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
