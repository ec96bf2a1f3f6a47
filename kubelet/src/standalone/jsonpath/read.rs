//! How a template is read.

use serde_json::Value;

use super::{Comparison, Operand, Part, Step};

/// A template, and how far it was read.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// All of it.
    pub(super) fn template(mut self) -> Result<Vec<Part>, String> {
        self.parts(false)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) {
            return Ok(());
        }
        Err(format!("expected {token:?} before {:?}", self.rest()))
    }

    fn spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn until(&mut self, end: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(end).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Parts up to the end, or up to `{end}`.
    fn parts(&mut self, in_range: bool) -> Result<Vec<Part>, String> {
        let mut parts = Vec::new();
        loop {
            let text = self.until(|c| c == '{');
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            if !self.take("{") {
                return if in_range {
                    Err("a range has no {end}".to_owned())
                } else {
                    Ok(parts)
                };
            }
            self.spaces();
            if self.take("end") {
                self.spaces();
                self.expect("}")?;
                return if in_range {
                    Ok(parts)
                } else {
                    Err("there is an {end} without a range".to_owned())
                };
            }
            if self.take("range") {
                self.spaces();
                let path = self.path()?;
                self.spaces();
                self.expect("}")?;
                parts.push(Part::Range(path, self.parts(true)?));
                continue;
            }
            // Several expressions may share a pair of braces.
            while !self.take("}") {
                if self.rest().is_empty() {
                    return Err("a brace is not closed".to_owned());
                }
                let before = self.at;
                parts.push(if self.rest().starts_with(['"', '\'']) {
                    Part::Text(self.string()?)
                } else {
                    Part::Path(self.path()?)
                });
                if self.at == before {
                    return Err(format!("{:?} is no expression", self.rest()));
                }
                self.spaces();
            }
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let quote = self.rest().chars().next().unwrap_or('"');
        self.at += quote.len_utf8();
        let mut string = String::new();
        let mut letters = self.rest().char_indices();
        while let Some((index, letter)) = letters.next() {
            match letter {
                letter if letter == quote => {
                    self.at += index + quote.len_utf8();
                    return Ok(string);
                }
                '\\' => match letters.next().map(|(_, letter)| letter) {
                    Some('n') => string.push('\n'),
                    Some('t') => string.push('\t'),
                    Some('r') => string.push('\r'),
                    Some(other) => string.push(other),
                    None => break,
                },
                other => string.push(other),
            }
        }
        Err("a string is not closed".to_owned())
    }

    /// What is between two quotes, as it is.
    fn quoted(&mut self) -> Result<&'a str, String> {
        let quote = self.rest().chars().next().unwrap_or('"');
        self.at += quote.len_utf8();
        let text = self.until(|letter| letter == quote);
        self.expect(quote.encode_utf8(&mut [0; 4]))?;
        Ok(text)
    }

    fn path(&mut self) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        if self.take("$") {
            steps.push(Step::Root);
        } else {
            // The current value is where a path begins anyway.
            self.take("@");
        }
        loop {
            if self.take("..") {
                let name = self.name();
                steps.push(Step::Deep(name));
            } else if self.take(".*") {
                steps.push(Step::All);
            } else if self.take(".") {
                let name = self.name();
                // A dot alone is the value itself.
                if !name.is_empty() {
                    steps.push(Step::Field(name));
                }
            } else if self.take("[") {
                steps.push(self.bracket()?);
            } else if steps.is_empty() && self.rest().starts_with(|c: char| c.is_alphabetic() || c == '_') {
                steps.push(Step::Field(self.name()));
            } else if self.rest().is_empty()
                || self
                    .rest()
                    .starts_with(['}', ')', ' ', '=', '!', '<', '>', '"', '\''])
            {
                return Ok(steps);
            } else {
                return Err(format!("{:?} is no step of a path", self.rest()));
            }
        }
    }

    /// A field's name; a dot in it is written `\.`.
    fn name(&mut self) -> String {
        let mut name = String::new();
        loop {
            name.push_str(self.until(|c| !(c.is_alphanumeric() || "_-/".contains(c))));
            if !self.take("\\.") {
                return name;
            }
            name.push('.');
        }
    }

    fn bracket(&mut self) -> Result<Step, String> {
        self.spaces();
        if self.take("?(") {
            self.spaces();
            let path = self.path()?;
            self.spaces();
            let condition = self.condition()?;
            self.spaces();
            self.expect(")")?;
            self.expect("]")?;
            return Ok(Step::Filter(path, condition));
        }
        let mut steps = Vec::new();
        loop {
            self.spaces();
            steps.push(self.index()?);
            self.spaces();
            if self.take("]") {
                return Ok(match <[Step; 1]>::try_from(steps) {
                    Ok([only]) => only,
                    Err(several) => Step::Union(several),
                });
            }
            self.expect(",")?;
        }
    }

    fn index(&mut self) -> Result<Step, String> {
        if self.take("*") {
            return Ok(Step::All);
        }
        if self.rest().starts_with(['"', '\'']) {
            let text = self.quoted()?;
            // A dot that belongs to a name is written `\.`.
            let path = text.replace("\\.", "\0");
            let path = path.split('.').map(|name| name.replace('\0', "."));
            return Ok(Step::Quoted(text.replace("\\.", "."), path.collect()));
        }
        let from = self.number()?;
        if !self.take(":") {
            return from
                .map(Step::Index)
                .ok_or_else(|| format!("{:?} is no index", self.rest()));
        }
        let to = self.number()?;
        let by = if self.take(":") { self.number()? } else { None };
        Ok(Step::Slice(from, to, by.unwrap_or(1)))
    }

    fn number(&mut self) -> Result<Option<i64>, String> {
        let text = self.until(|c| !(c.is_ascii_digit() || c == '-'));
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|_| format!("{text:?} is no number"))
    }

    fn condition(&mut self) -> Result<Option<(Comparison, Operand)>, String> {
        let comparisons = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let Some((_, comparison)) = comparisons.into_iter().find(|(token, _)| self.take(token)) else {
            return Ok(None);
        };
        self.spaces();
        let operand = if self.rest().starts_with(['"', '\'']) {
            Operand::Value(Value::String(self.string()?))
        } else if self.rest().starts_with(['@', '$', '.']) {
            Operand::Path(self.path()?)
        } else {
            let word = self.until(|c| c == ')' || c == ' ');
            Operand::Value(serde_json::from_str(word).map_err(|_| format!("{word:?} is no value"))?)
        };
        Ok(Some((comparison, operand)))
    }
}
