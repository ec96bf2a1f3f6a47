//! Objects as `kubectl get -o yaml` and `-o json` show them.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

/// A way to write objects down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML.
    Yaml,
    /// Indented JSON.
    Json,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "yaml" => Ok(Format::Yaml),
            "json" => Ok(Format::Json),
            _ => Err("the formats are yaml and json".to_owned()),
        }
    }
}

/// One pod as itself, several as a List.
pub fn show(pods: &[Pod], format: Format) -> String {
    let mut items: Vec<Value> = pods
        .iter()
        .filter_map(|pod| serde_json::to_value(pod).ok())
        .collect();
    let value = match items.len() {
        1 => items.remove(0),
        _ => serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items }),
    };
    match format {
        Format::Json => format!("{value:#}\n"),
        Format::Yaml => yaml(&value),
    }
}

/// Block style YAML.
pub(super) fn yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => object(&mut out, map, 0, false),
        Value::Array(items) if !items.is_empty() => list(&mut out, items, 0),
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
    out
}

/// `inline`: the first key goes on the line that was begun.
fn object(out: &mut String, map: &serde_json::Map<String, Value>, indent: usize, inline: bool) {
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 || !inline {
            out.push_str(&" ".repeat(indent));
        }
        out.push_str(&text(key));
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                object(out, inner, indent + 2, false);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                list(out, items, indent);
            }
            other => {
                out.push(' ');
                out.push_str(&scalar(other));
                out.push('\n');
            }
        }
    }
}

fn list(out: &mut String, items: &[Value], indent: usize) {
    for item in items {
        out.push_str(&" ".repeat(indent));
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => object(out, map, indent + 2, true),
            // A list in a list does not occur in Kubernetes' objects but in maps of any content: JSON is YAML.
            other => {
                out.push_str(&scalar(other));
                out.push('\n');
            }
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

/// A string: plain where it can't be taken for anything else, else in JSON's quotes.
fn text(string: &str) -> String {
    let letters = string
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_./ ()=,+:".contains(c));
    let word = matches!(
        string.to_ascii_lowercase().as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n"
    );
    let begins_well = string.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') || is_amount(string);
    let colon = string.contains(": ") || string.ends_with(':');
    if letters && begins_well && !word && !colon && !string.ends_with(' ') {
        return string.to_owned();
    }
    Value::String(string.to_owned()).to_string()
}

/// An IPv4 address, or a number with a unit: `100m`, `64Mi`.
fn is_amount(string: &str) -> bool {
    let number = string.trim_end_matches(['m', 'k', 'K', 'M', 'G', 'T', 'P', 'i']);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits(number) && number.len() < string.len() || string.parse::<std::net::Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_reads_as_kubectl_shows_it() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "labels": { "a/b": "1" } },
            "spec": { "containers": [{ "name": "c", "args": ["true", "x: y", "-"], "env": [{ "name": "E", "value": "" }] }] },
        }))
        .unwrap();
        let expected = "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    a/b: \"1\"\n  name: p\nspec:\n  containers:\n  - \
                        args:\n    - \"true\"\n    - \"x: y\"\n    - \"-\"\n    env:\n    - name: E\n      value: \"\"\n    name: c\n";
        assert_eq!(show(std::slice::from_ref(&pod), Format::Yaml), expected);
        assert!(
            show(&[pod.clone(), pod], Format::Yaml)
                .starts_with("apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Pod\n")
        );
    }

    #[test]
    fn what_yaml_would_misread_is_quoted() {
        for (string, expected) in [
            ("plain", "plain"),
            ("/a/b", "/a/b"),
            ("Yes", "\"Yes\""),
            ("1e3", "\"1e3\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("a #b", "\"a #b\""),
            ("line\nline", "\"line\\nline\""),
            ("2026-01-01", "\"2026-01-01\""),
            ("12", "\"12\""),
            ("100m", "100m"),
            ("64Mi", "64Mi"),
            ("10.0.0.1", "10.0.0.1"),
            ("1.5", "\"1.5\""),
            ("a.b/c:1", "a.b/c:1"),
            ("berth://x", "berth://x"),
        ] {
            assert_eq!(text(string), expected);
        }
    }
}
