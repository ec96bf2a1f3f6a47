//! kubectl's JSONPath: templates like `{.metadata.name}` and `{range .items[*]}{.status.podIP}{"\n"}{end}`.

mod find;
mod read;

use serde_json::Value;

use self::find::walk;
use self::read::Reader;

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
    /// In quotes and brackets: a field of this name, or else what a path of fields leads to, as kubectl reads dots there.
    Quoted(String, Vec<String>),
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
        let parts = Reader::new(text).template();
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
            ("{.items[*]['metadata.name']}", "a b"),
            ("{.items[*]['metadata.name','n']}", "a b 1 2"),
            ("{.items[0]['metadata.labels']['app\\.io/x']}", "1"),
            ("{.items[0].metadata.labels['app.io/x']}", "1"),
            ("{.items[0].metadata.labels[\"app.io/x\"]}", "1"),
            ("{.items[0,1].n}", "1 2"),
            ("{.items[:1].n}", "1"),
            ("{.items[::2].n}", "1"),
            ("{.items[-1:].n}", "2"),
            ("{.items[-2:-1].n}", "1"),
            ("{.items[?(@.metadata.name!='a')].n}", "2"),
            ("{.items[?(@.c[*].t=='Ready')].n}", "2"),
            ("{ .kind }", "List"),
            ("pod {.kind}: {'\\t'}", "pod List: \t"),
            ("{..t}", "Ready X"),
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
