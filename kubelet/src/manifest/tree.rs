//! YAML (and so JSON) as a tree with lines, within limits.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::scalar::{self, Meaning};
use super::{json, mending};
use crate::defaults::{MAX_MANIFEST_BYTES, MAX_MANIFEST_DEPTH, MAX_MANIFEST_NODES};

/// How much is read of a text that has to be mended, each time it is begun anew counted: all that people write is read, and
/// what is meant to keep the reader busy does so for a second.
const MAX_READ: usize = 4 * MAX_MANIFEST_BYTES;

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    /// The value.
    pub(super) value: Value,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A scalar's text and what it means.
    Scalar(String, Meaning),
    /// A list.
    List(Vec<Node>),
    /// Fields in their order. A key may be there twice; that is for the reader to refuse.
    Map(Vec<(Key, Node)>),
}

/// A field's name and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The name.
    pub(super) name: String,
    /// From 1.
    pub(super) line: usize,
}

/// The text is not YAML, or too much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

impl SyntaxError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
        }
    }
}

impl Node {
    /// The field of that name, if this is a map that has it.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(fields) => fields
                .iter()
                .find(|(key, _)| key.name == name)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// The value at a path of fields.
    pub(super) fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, name| node.get(name))
    }

    /// The text, if this is a scalar that is not null.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(_, Meaning::Null) => None,
            Value::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// It says nothing.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Scalar(_, Meaning::Null))
    }

    /// The line of the field that a path leads to, or of the last one on the way that is there.
    pub(super) fn line_of(&self, path: &str) -> usize {
        let mut node = self;
        let mut line = self.line;
        for part in path_parts(path) {
            let next = match (&node.value, part) {
                (Value::Map(fields), Part::Name(name)) => fields
                    .iter()
                    .find(|(key, _)| key.name == name)
                    .map(|(key, node)| (key.line, node)),
                (Value::List(items), Part::Index(index)) => items.get(index).map(|node| (node.line, node)),
                _ => None,
            };
            let Some((found, next)) = next else { return line };
            (line, node) = (found, next);
        }
        line
    }
}

/// A part of a field's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// `.name` or `[name]`
    Name(&'a str),
    /// `[0]`
    Index(usize),
}

/// Takes `a.b[0][key]` apart.
pub(super) fn path_parts(path: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let end = inside.find(']').unwrap_or(inside.len());
            let name = &inside[..end];
            parts.push(name.parse().map_or(Part::Name(name), Part::Index));
            rest = inside.get(end + 1..).unwrap_or_default();
        } else {
            let rest_of_name = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest_of_name.find(['.', '[']).unwrap_or(rest_of_name.len());
            parts.push(Part::Name(&rest_of_name[..end]));
            rest = &rest_of_name[end..];
        }
    }
    parts
}

/// Reads all documents of a text; empty ones are left out.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, SyntaxError> {
    if text.len() > MAX_MANIFEST_BYTES {
        return Err(SyntaxError::new(
            0,
            format!("the file has more than {MAX_MANIFEST_BYTES} bytes"),
        ));
    }
    let mut text = json::without_surrogates(text);
    let mut read = 0_usize;
    loop {
        let mut stopped = None;
        let error = match documents(&text, &mut stopped) {
            Ok(documents) => return Ok(documents),
            Err(error) => error,
        };
        read = read.saturating_add(text.len());
        let mended = stopped
            .filter(|_| read <= MAX_READ)
            .and_then(|stopped| mending::mended(&text, &stopped));
        match mended {
            Some(mended) => text = mended.into(),
            None => return Err(error),
        }
    }
}

/// Reads the documents once. What stopped the reader is left in `stopped`, if that was not one of the limits here.
fn documents(text: &str, stopped: &mut Option<ScanError>) -> Result<Vec<Node>, SyntaxError> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: BTreeMap::new(),
        nodes: 0,
        stopped,
    };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(documents),
            (Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing, _) => {}
            (event, span) => {
                let node = reader.node(event, span, 0)?;
                reader.anchors.clear();
                if !node.is_null() {
                    documents.push(node);
                }
            }
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// With the number of values in each, so that an alias can be counted before it is copied.
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
    stopped: &'a mut Option<ScanError>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), SyntaxError> {
        match self.parser.next_event() {
            None => Ok((Event::StreamEnd, Span::default())),
            Some(Ok(found)) => Ok(found),
            Some(Err(error)) => {
                let way_out = match error.info() {
                    info if info.ends_with("<document start>") => "; a line `---` stands between two objects",
                    _ => "",
                };
                let message = format!("not YAML: {}{way_out}", error.info());
                let line = error.marker().line();
                *self.stopped = Some(error);
                Err(SyntaxError::new(line, message))
            }
        }
    }

    fn count(&mut self, more: usize, line: usize) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > MAX_MANIFEST_NODES {
            let message = format!("more than {MAX_MANIFEST_NODES} values, each use of an alias counted");
            return Err(SyntaxError::new(line, message));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, SyntaxError> {
        let line = span.start.line();
        if depth > MAX_MANIFEST_DEPTH {
            return Err(SyntaxError::new(
                line,
                format!("nested more than {MAX_MANIFEST_DEPTH} levels deep"),
            ));
        }
        let before = self.nodes;
        self.count(1, line)?;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let meaning = meaning(&text, style, tag.as_deref(), line)?;
                (anchor, Value::Scalar(text.into_owned(), meaning))
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), "seq", line)?;
                (anchor, self.list(depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), "map", line)?;
                (anchor, self.map(depth)?)
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let (node, size) = known.ok_or_else(|| {
                    SyntaxError::new(line, "an alias refers to itself, or to another document")
                })?;
                self.count(size, line)?;
                check_depth(&node, depth)?;
                return Ok(Node { line, ..node });
            }
            _ => return Err(SyntaxError::new(line, "a value is missing")),
        };
        let node = Node { line, value };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (Event::StreamEnd, span) => {
                    return Err(SyntaxError::new(span.start.line(), "the text ends too early"));
                }
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut fields: Vec<(Key, Node)> = Vec::new();
        let mut merged: Vec<(Key, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let line = span.start.line();
            if let Event::Scalar(text, ScalarStyle::Plain, ..) = &event
                && (text.starts_with("//") || text.starts_with("/*"))
            {
                let why = "JSON has no comments; those of YAML begin with #";
                return Err(SyntaxError::new(line, why));
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let name = match event {
                Event::MappingEnd => break,
                Event::StreamEnd => return Err(SyntaxError::new(line, "the text ends too early")),
                event => match self.node(event, span, depth + 1)?.value {
                    // As in JSON, where a name is always text.
                    Value::Scalar(_, Meaning::Bool(value)) => value.to_string(),
                    Value::Scalar(_, Meaning::Int(number)) => number.to_string(),
                    Value::Scalar(text, _) => text,
                    Value::Map(_) => {
                        let why = "a field's name must be a string; of a template with {{ }}, make a manifest first";
                        return Err(SyntaxError::new(line, why));
                    }
                    Value::List(_) => return Err(SyntaxError::new(line, "a field's name must be a string")),
                },
            };
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            if is_merge {
                merged.extend(merge_fields(node, line)?);
            } else {
                fields.push((Key { name, line }, node));
            }
        }
        // A field of the map itself comes before a merged one.
        let mut known: BTreeSet<String> = fields.iter().map(|(key, _)| key.name.clone()).collect();
        for (key, node) in merged {
            if known.insert(key.name.clone()) {
                fields.push((key, node));
            }
        }
        Ok(Value::Map(fields))
    }
}

/// The fields that `<<` brings: of a map, or of a list of maps.
fn merge_fields(node: Node, line: usize) -> Result<Vec<(Key, Node)>, SyntaxError> {
    let refuse = || SyntaxError::new(line, "'<<' must be a map or a list of maps");
    match node.value {
        Value::Map(fields) => Ok(fields),
        Value::List(items) => {
            let mut all = Vec::new();
            for item in items {
                match item.value {
                    Value::Map(fields) => all.extend(fields),
                    _ => return Err(refuse()),
                }
            }
            Ok(all)
        }
        Value::Scalar(..) => Err(refuse()),
    }
}

fn check_depth(node: &Node, depth: usize) -> Result<(), SyntaxError> {
    if depth > MAX_MANIFEST_DEPTH {
        return Err(SyntaxError::new(
            node.line,
            format!("nested more than {MAX_MANIFEST_DEPTH} levels deep"),
        ));
    }
    match &node.value {
        Value::Scalar(..) => Ok(()),
        Value::List(items) => items.iter().try_for_each(|item| check_depth(item, depth + 1)),
        Value::Map(fields) => fields
            .iter()
            .try_for_each(|(_, node)| check_depth(node, depth + 1)),
    }
}

/// Only what a list or a map is anyway may be said of it: what `!!set` asks for, no field of Kubernetes is.
fn check_tag(tag: Option<&Tag>, kind: &str, line: usize) -> Result<(), SyntaxError> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == kind) => {
            let message = format!("the tag {}{} is not supported", tag.handle, tag.suffix);
            Err(SyntaxError::new(line, message))
        }
        _ => Ok(()),
    }
}

fn meaning(text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<Meaning, SyntaxError> {
    let plain = || {
        if style == ScalarStyle::Plain {
            scalar::plain(text)
        } else {
            Meaning::Str
        }
    };
    let Some(tag) = tag else { return Ok(plain()) };
    match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
        (true, "str" | "timestamp") => Ok(Meaning::Str),
        (false, "") if tag.handle == "!" => Ok(Meaning::Str),
        (true, "int" | "float" | "bool" | "null") => Ok(scalar::plain(text)),
        _ => Err(SyntaxError::new(
            line,
            format!("the tag {}{} is not supported", tag.handle, tag.suffix),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> SyntaxError {
        parse(text).unwrap_err()
    }

    #[test]
    fn documents_and_lines() {
        let documents = parse("# nothing\n---\na: 1\nb:\n  - x\n  - y: [z]\n---\n---\nc: d\n...\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].line_of("b[1].y[0]"), 6);
        assert_eq!(documents[0].line_of("b[1].none.more"), 6);
        assert_eq!(documents[0].line_of("a"), 3);
        assert_eq!(documents[1].get("c").unwrap().text(), Some("d"));
    }

    #[test]
    fn json_is_yaml() {
        let documents = parse("{\"a\": {\"b\": [1, \"2\"]}}").unwrap();
        assert_eq!(documents[0].line_of("a.b[1]"), 1);
    }

    #[test]
    fn texts_of_other_systems() {
        let documents = parse("\u{feff}a: 1\r\nb:\r\n- \"\\u00fc\\/\\t\"\r\n").unwrap();
        assert_eq!(documents[0].line_of("b[0]"), 3);
        let Value::List(items) = &documents[0].get("b").unwrap().value else {
            panic!()
        };
        assert_eq!(items[0].text(), Some("ü/\t"));
    }

    #[test]
    fn json_with_surrogates() {
        let documents = parse("{\"a\": \"\\ud83d\\ude00\", \"b\": [1.5, null, true]}").unwrap();
        assert_eq!(documents[0].get("a").unwrap().text(), Some("😀"));
    }

    #[test]
    fn aliases_and_merges() {
        let documents = parse("base: &b {p: 1, q: 2}\nmore:\n  <<: *b\n  q: 3\n").unwrap();
        let more = documents[0].get("more").unwrap();
        assert_eq!(
            (more.get("p").unwrap().text(), more.get("q").unwrap().text()),
            (Some("1"), Some("3"))
        );
    }

    #[test]
    fn billion_laughs_are_not_funny() {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let last = format!("*a{}", i - 1);
            text.push_str(&format!("a{i}: &a{i} [{}]\n", [last.as_str(); 10].join(",")));
        }
        assert!(error(&text).message.contains("values"));
    }

    #[test]
    fn an_alias_inside_its_anchor_is_refused() {
        assert!(!error("a: &a\n  b: *a\n").message.is_empty());
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(parse(&"[".repeat(5000)).is_err());
        assert!(
            error(&format!("{}x{}", "[".repeat(100), "]".repeat(100)))
                .message
                .contains("deep")
        );
        let nested = format!("{}x{}", "[".repeat(40), "]".repeat(40));
        let by_alias = format!("a: &a {nested}\nb: {}*a{}\n", "[".repeat(40), "]".repeat(40));
        assert!(error(&by_alias).message.contains("deep"));
    }

    #[test]
    fn what_is_not_yaml_is_refused_with_its_line() {
        assert_eq!(error("a: 1\nb: [1\nc: 2\n").line, 3);
        assert!(error("a: !!binary x\n").message.contains("tag"));
        assert!(error("? [a]\n: b\n").message.contains("name"));
        assert!(error("a: *b\n").line == 1);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[-a:&* \\[\\]{}!|>'\"\n<#?,]{0,60}") {
            let _ = parse(&text);
        }
    }
}
