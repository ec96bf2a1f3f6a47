//! How a list of objects is printed: kubectl's `-o`.

use serde_json::Value;

use super::jsonpath::{JsonPath, plain};
use super::show::yaml;
use crate::defaults::DEFAULT_NAMESPACE;
use crate::harmless;

/// A way to print objects.
#[derive(Clone, Debug, PartialEq)]
pub enum View {
    /// A table for people.
    Table,
    /// A table with more columns.
    Wide,
    /// `kind/name`, a line each; `kind/namespace/name` where that is not the usual one, so that it can be typed again.
    Name,
    /// Indented JSON.
    Json,
    /// YAML.
    Yaml,
    /// A template.
    JsonPath(JsonPath),
    /// A table of what these paths find, each with its header.
    Columns(Vec<(String, JsonPath)>),
}

impl std::str::FromStr for View {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(template) = text.strip_prefix("jsonpath=") {
            return JsonPath::parse(template).map(Self::JsonPath);
        }
        if let Some(columns) = text.strip_prefix("custom-columns=") {
            return columns
                .split(',')
                .map(column)
                .collect::<Result<_, _>>()
                .map(Self::Columns);
        }
        match text {
            "table" => Ok(Self::Table),
            "wide" => Ok(Self::Wide),
            "name" => Ok(Self::Name),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            _ => Err(
                "the formats are table, wide, name, json, yaml, jsonpath=TEMPLATE and custom-columns=HEADER:PATH,…"
                    .to_owned(),
            ),
        }
    }
}

fn column(text: &str) -> Result<(String, JsonPath), String> {
    let (header, path) = text
        .split_once(':')
        .ok_or_else(|| format!("the column {text:?} is not HEADER:PATH"))?;
    Ok((header.to_owned(), JsonPath::parse(path)?))
}

impl View {
    /// Objects as text, `kind` being what one is called; as a List unless `one` is wanted and there is one. `None`: as a
    /// table, which is the caller's.
    pub fn print(&self, kind: &str, items: &[Value], one: bool) -> Option<String> {
        let whole = || match items {
            [only] if one => only.clone(),
            _ => serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items }),
        };
        Some(match self {
            Self::Table | Self::Wide => return None,
            Self::Json => format!("{:#}\n", whole()),
            Self::Yaml => yaml(&whole()),
            Self::JsonPath(template) => template.print(&whole()),
            Self::Name => {
                let name = |item: &Value| {
                    let name = item.pointer("/metadata/name").or_else(|| item.get("name"));
                    let namespace = item.pointer("/metadata/namespace").and_then(Value::as_str);
                    let namespace = namespace.filter(|namespace| *namespace != DEFAULT_NAMESPACE);
                    let namespace = namespace.map_or_else(String::new, |namespace| format!("{namespace}/"));
                    format!("{kind}/{namespace}{}\n", name.map(plain).unwrap_or_default())
                };
                items.iter().map(name).collect()
            }
            Self::Columns(columns) => {
                let mut rows = vec![columns.iter().map(|(header, _)| header.clone()).collect()];
                rows.extend(items.iter().map(|item| {
                    let cell = |(_, path): &(String, JsonPath)| {
                        let found: Vec<String> = path.find(item).into_iter().map(plain).collect();
                        if found.is_empty() {
                            "<none>".to_owned()
                        } else {
                            found.join(",")
                        }
                    };
                    columns.iter().map(cell).collect::<Vec<String>>()
                }));
                table(&rows)
            }
        })
    }
}

/// Rows with columns that are as wide as their widest cell. What a cell says is shown, whoever said it: a terminal does not
/// obey it.
pub fn table(rows: &[Vec<String>]) -> String {
    let harmless = |row: &Vec<String>| row.iter().map(|cell| harmless::line(cell)).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(harmless).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_printed_as_asked() {
        let items = [
            json!({ "metadata": { "name": "a" }, "n": 1 }),
            json!({ "metadata": { "name": "bb" } }),
        ];
        let print = |view: &str, one| {
            view.parse::<View>()
                .unwrap()
                .print("pod", &items[..if one { 1 } else { 2 }], one)
        };
        assert_eq!(print("name", false).unwrap(), "pod/a\npod/bb\n");
        let apart = [json!({ "metadata": { "name": "a", "namespace": "n" } })];
        assert_eq!(View::Name.print("pod", &apart, false).unwrap(), "pod/n/a\n");
        assert_eq!(
            print("jsonpath={.items[*].metadata.name}", false).unwrap(),
            "a bb"
        );
        assert_eq!(print("jsonpath={.n}", true).unwrap(), "1");
        assert_eq!(
            print("custom-columns=NAME:.metadata.name,N:{.n}", false).unwrap(),
            "NAME   N\na      1\nbb     <none>\n"
        );
        assert!(print("json", false).unwrap().contains("\"kind\": \"List\""));
        assert!(print("yaml", true).unwrap().starts_with("metadata:\n  name: a\n"));
        let hostile = [json!({ "n": "\u{1b}]0;title\u{7}" })];
        let shown = "custom-columns=N:.n"
            .parse::<View>()
            .unwrap()
            .print("pod", &hostile, false);
        assert_eq!(shown.unwrap(), "N\n\\u{1b}]0;title\\u{7}\n");
        assert_eq!(print("wide", false), None);
        assert!("xml".parse::<View>().is_err());
        assert!("custom-columns=A".parse::<View>().is_err());
    }
}
