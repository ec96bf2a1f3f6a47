//! kubectl's JSONPath: templates like `{.metadata.name}` and `{range .items[*]}{.status.podIP}{"\n"}{end}`.

use serde_json::Value;

/// A template that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    /// Its parts for each of the values.
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// From the outermost value.
    Root,
    Field(String),
    /// Every value in it.
    All,
    /// The field, however deep.
    Deep(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>, i64),
    Union(Vec<Step>),
    Filter(Vec<Step>, Option<(Comparison, Operand)>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Value(Value),
    Path(Vec<Step>),
}

impl JsonPath {
    /// Understands a template; a path alone may stand without its braces.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let braced;
        let text = if text.contains('{') {
            text
        } else {
            let dot = if text.starts_with(['.', '$', '[', '@']) {
                ""
            } else {
                "."
            };
            braced = format!("{{{dot}{text}}}");
            &braced
        };
        let mut reader = Reader { text, at: 0 };
        let parts = reader.parts(false);
        parts
            .map(Self)
            .map_err(|error| format!("the JSONPath {text:?} can't be read: {error}"))
    }

    /// What the template says of a value. What is not there is empty.
    pub fn print(&self, value: &Value) -> String {
        let mut text = String::new();
        print(&self.0, value, value, &mut text);
        text
    }

    /// The values that the first path of the template finds.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let path = self.0.iter().find_map(|part| match part {
            Part::Path(path) | Part::Range(path, _) => Some(path),
            Part::Text(_) => None,
        });
        path.map_or_else(Vec::new, |path| walk(path, value, value))
    }
}

/// A value as kubectl prints it: a string without quotes.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn print(parts: &[Part], value: &Value, root: &Value, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(path) => {
                let found: Vec<String> = walk(path, value, root).into_iter().map(plain).collect();
                out.push_str(&found.join(" "));
            }
            Part::Range(path, inner) => {
                for item in walk(path, value, root) {
                    print(inner, item, root, out);
                }
            }
        }
    }
}

fn walk<'v>(path: &[Step], value: &'v Value, root: &'v Value) -> Vec<&'v Value> {
    let mut values = vec![value];
    for step in path {
        values = values
            .into_iter()
            .flat_map(|value| one(step, value, root))
            .collect();
    }
    values
}

fn one<'v>(step: &Step, value: &'v Value, root: &'v Value) -> Vec<&'v Value> {
    match step {
        Step::Root => vec![root],
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::All => children(value),
        Step::Deep(name) => {
            let mut found: Vec<&Value> = value.get(name).into_iter().collect();
            found.extend(
                children(value)
                    .into_iter()
                    .flat_map(|child| one(step, child, root)),
            );
            found
        }
        Step::Index(index) => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            position(*index, items.len())
                .and_then(|at| items.get(at))
                .into_iter()
                .collect()
        }
        Step::Slice(from, to, by) => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            let bound = |index: Option<i64>, default| {
                index.map_or(default, |index| {
                    position(index, items.len()).unwrap_or(0).min(items.len())
                })
            };
            let (from, to) = (bound(*from, 0), bound(*to, items.len()));
            let by = usize::try_from(*by).unwrap_or(1).max(1);
            items
                .get(from..to)
                .unwrap_or_default()
                .iter()
                .step_by(by)
                .collect()
        }
        Step::Union(steps) => steps.iter().flat_map(|step| one(step, value, root)).collect(),
        Step::Filter(path, condition) => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            items
                .iter()
                .filter(|item| holds(path, condition.as_ref(), item, root))
                .collect()
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

fn position(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { length + index } else { index }).ok()
}

fn holds(path: &[Step], condition: Option<&(Comparison, Operand)>, item: &Value, root: &Value) -> bool {
    let found = walk(path, item, root);
    let Some((comparison, operand)) = condition else {
        return !found.is_empty();
    };
    let other = match operand {
        Operand::Value(value) => Some(value),
        Operand::Path(path) => walk(path, item, root).into_iter().next(),
    };
    let (Some(one), Some(other)) = (found.into_iter().next(), other) else {
        return false;
    };
    let order = match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.partial_cmp(&other),
        _ if one == other => Some(std::cmp::Ordering::Equal),
        _ => one
            .as_str()
            .zip(other.as_str())
            .map(|(one, other)| one.cmp(other)),
    };
    match comparison {
        Comparison::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
        Comparison::NotEqual => !order.is_some_and(std::cmp::Ordering::is_eq),
        Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
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
            return Ok(Step::Field(self.string()?));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_say_what_kubectl_would() {
        let value = json!({
            "kind": "List",
            "items": [
                { "metadata": { "name": "a", "labels": { "app.io/x": "1" } }, "n": 1, "on": true },
                { "metadata": { "name": "b" }, "n": 2, "c": [{ "t": "Ready", "s": "True" }, { "t": "X", "s": "False" }] },
            ],
        });
        for (template, expected) in [
            ("{.kind}", "List"),
            (".kind", "List"),
            ("kind", "List"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0].metadata.name}-{.items[-1].metadata['name']}", "a-b"),
            (
                "{range .items[*]}{.metadata.name}{\"\\t\"}{.n}{\"\\n\"}{end}",
                "a\t1\nb\t2\n",
            ),
            ("{.items[?(@.n>1)].metadata.name}", "b"),
            ("{.items[?(@.metadata.name==\"a\")].n}", "1"),
            ("{.items[?(@.on)].n}", "1"),
            ("{.items[?(@.on==true)].n}", "1"),
            ("{.items[1].c[?(@.t=='Ready')].s}", "True"),
            ("{.items[0].metadata.labels.app\\.io/x}", "1"),
            ("{..name}", "a b"),
            ("{.items[0:1].n}", "1"),
            ("{.items[0]['n','on']}", "1 true"),
            ("{.none.of.it}", ""),
            ("{.items[0].metadata.labels}", "{\"app.io/x\":\"1\"}"),
            ("{$.kind}: {.items[9].n}", "List: "),
            ("{range .items[*]}{$.kind}{end}", "ListList"),
        ] {
            let path = JsonPath::parse(template).unwrap_or_else(|error| panic!("{template}: {error}"));
            assert_eq!(path.print(&value), expected, "{template}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for template in [
            "{.a",
            "{.a[}",
            "{.a[?(@.b==}",
            "{range .a}",
            "{end}",
            "{.a[x]}",
            "{\"a}",
            "{.a%}",
            "{.a[?(@.b=1)]}",
            "{)}",
            "{.a = 1}",
        ] {
            assert!(JsonPath::parse(template).is_err(), "{template}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[{}.\\[\\]?@$'\"a-c0-9:*,()=<>\\\\ -]{0,40}") {
            let value = json!({ "a": [{ "b": 1 }, { "c": "x" }] });
            if let Ok(path) = JsonPath::parse(&text) {
                path.print(&value);
            }
        }
    }
}
