//! YAML as JSON, within limits. Anchors are refused: a small file could stand for a huge one.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Lists and maps in each other.
const MAX_DEPTH: usize = 32;

/// Reads the one document of a text.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut root = None;
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let line = span.start.line();
        let value = match event {
            Event::MappingStart(0, _) => {
                push(&mut open, Open::Map(Map::new(), None), line)?;
                continue;
            }
            Event::SequenceStart(0, _) => {
                push(&mut open, Open::List(Vec::new()), line)?;
                continue;
            }
            Event::Scalar(text, style, 0, _) => scalar(&text, style),
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some(Open::Map(map, _)) => Value::Object(map),
                Some(Open::List(list)) => Value::Array(list),
                None => continue,
            },
            Event::Alias(_) | Event::MappingStart(..) | Event::SequenceStart(..) | Event::Scalar(..) => {
                return Err(format!("line {line}: anchors and aliases are not supported"));
            }
            _ => continue,
        };
        match open.last_mut() {
            Some(Open::List(list)) => list.push(value),
            Some(Open::Map(map, key)) => match key.take() {
                None => *key = Some(name_of(&value, line)?),
                Some(name) => {
                    if map.insert(name.clone(), value).is_some() {
                        return Err(format!("line {line}: {name:?} is there twice"));
                    }
                }
            },
            None if root.is_none() => root = Some(value),
            None => return Err(format!("line {line}: there is more than one document")),
        }
    }
    root.ok_or_else(|| "it is empty".to_owned())
}

/// What has begun and not ended.
enum Open {
    /// With the key whose value comes next.
    Map(Map<String, Value>, Option<String>),
    List(Vec<Value>),
}

fn push(open: &mut Vec<Open>, next: Open, line: usize) -> Result<(), String> {
    if open.len() == MAX_DEPTH {
        return Err(format!("line {line}: it is nested too deeply"));
    }
    open.push(next);
    Ok(())
}

fn name_of(value: &Value, line: usize) -> Result<String, String> {
    match value {
        Value::String(name) => Ok(name.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(format!("line {line}: a key is not a name")),
    }
}

/// A scalar without quotes is a number, a truth value or nothing, if it looks like one (YAML's core schema, and octal numbers as
/// Go's readers take them).
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let octal = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'));
    let number = match (octal, text.strip_prefix("0x")) {
        (_, Some(digits)) => i64::from_str_radix(digits, 16),
        (Some(digits), None) if !digits.is_empty() => i64::from_str_radix(digits, 8),
        _ => text.parse::<i64>(),
    };
    number.map_or_else(|_| Value::String(text.to_owned()), Value::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_become_json() {
        let text = "# a comment\na: [1, 0x10, 0660, '1', true, ~, 1.5, \"x\"]\nb:\n- c: d e\n  f: |\n    two\n    lines\n";
        let expected = json!({
            "a": [1, 16, 432, "1", true, null, "1.5", "x"],
            "b": [{ "c": "d e", "f": "two\nlines\n" }],
        });
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse(r#"{"a": {"b": []}}"#).unwrap(), json!({ "a": { "b": [] } }));
    }

    #[test]
    fn what_could_grow_is_refused() {
        for (text, reason) in [
            ("a: &x [1]\nb: *x\n", "anchors"),
            ("a: 1\na: 2\n", "twice"),
            ("", "empty"),
            ("a: [", ""),
            ("--- 1\n--- 2\n", "more than one"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(parse(&"[".repeat(40)).is_err());
    }
}
