//! Where a value is, and what it is taken for.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::{Context, MistakeKind};
use crate::manifest::nearest::nearest;
use crate::manifest::scalar::Meaning;
use crate::manifest::tree::{Key, Node, Value};

/// Why reading stopped, and where.
#[derive(Debug)]
pub(super) struct ReadError {
    pub(super) message: String,
    pub(super) wrong_type: bool,
    pub(super) place: Option<(usize, String)>,
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

/// A value that is to be read, and where it is.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    pub(super) node: &'a Node,
    /// Where the field's name is, or else the value.
    pub(super) line: usize,
    pub(super) path: String,
    pub(super) context: &'a Context,
}

impl<'a> Reader<'a> {
    /// Puts this value's place on an error that has none.
    pub(super) fn at<T>(&self, result: Result<T, ReadError>) -> Result<T, ReadError> {
        result.map_err(|mut error| {
            error.place.get_or_insert_with(|| (self.line, self.path.clone()));
            error
        })
    }

    pub(super) fn mismatch<T>(&self, expected: &str) -> Result<T, ReadError> {
        let (found, hint) = match &self.node.value {
            // `- echo a: b`
            Value::Map(fields) if fields.len() == 1 => (
                "an object".to_owned(),
                "; put it in quotes if it is a text with a colon",
            ),
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

    pub(super) fn is_nothing(&self) -> bool {
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

    pub(super) fn integer<V, T>(
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

    pub(super) fn map<V: Visitor<'a>>(
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
pub(super) fn exact(number: f64) -> Option<i128> {
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

/// The fields of an object that are left.
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

/// The items of a list that are left.
pub(super) struct Items<'p, 'a> {
    pub(super) parent: &'p Reader<'a>,
    pub(super) rest: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
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
