//! A tree as a Kubernetes type, strictly, with every mistake collected.
//!
//! serde gives up at the first value of a wrong type. So a value that was found wrong is noted and the tree is read
//! again with nothing in its place, until all of it can be read.

mod deserializer;
mod reader;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;

use self::reader::Reader;
use super::tree::Node;

/// Mistakes of one object are no longer collected after this many.
const MAX_MISTAKES: usize = 64;

/// A field that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::manifest) struct Mistake {
    pub(in crate::manifest) line: usize,
    pub(in crate::manifest) path: String,
    pub(in crate::manifest) kind: MistakeKind,
}

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::manifest) enum MistakeKind {
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
pub(in crate::manifest) fn decode<T: DeserializeOwned>(node: &Node) -> (Option<T>, Vec<Mistake>) {
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
