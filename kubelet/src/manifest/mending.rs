//! What kubectl's reader of YAML takes, and the strict one refuses.
//!
//! The strict one keeps to the letter of YAML 1.2, where what is in brackets or quotes must be further to the right than
//! the field that it belongs to. kubectl does not ask for that, and most manifests with brackets over several lines have
//! the closing one below the field. Where the strict reader stops for such a reason, this changes the text so that it
//! goes on, without another meaning and without another number of lines.

use std::ops::Range;

use saphyr_parser::{Marker, ScanError};

/// How far a line is moved to the right at first, and if that was not enough.
const INDENTATIONS: [usize; 2] = [64, 2048];

/// The text without what stopped the reader; `None` if that stops kubectl, too.
pub(super) fn mended(text: &str, error: &ScanError) -> Option<String> {
    let line = line_start(text, error.marker().line())?;
    let place = place(text, line, error.marker())?;
    let rest = &text[line..];
    match error.info() {
        // The last one is of text in quotes alone.
        "invalid indentation"
        | "invalid indentation in flow construct"
        | "tab cannot be used as indentation" => {
            let more = indentation(rest)?;
            Some(replaced(text, line..line, &more))
        }
        "invalid indentation in quoted scalar" => indented_quotes(text, place),
        "while parsing a quoted scalar, found unknown escape character" => plain_apostrophes(text, place),
        "':' must be followed by a valid YAML whitespace" => {
            let tabs = text[..place].trim_end_matches(['\t', ' ']).len();
            let spaces = text[tabs..place]
                .contains('\t')
                .then(|| " ".repeat(place - tabs))?;
            Some(replaced(text, tabs..place, &spaces))
        }
        // What several files were put together from.
        "a byte order mark must not appear inside a document" => rest
            .starts_with('\u{feff}')
            .then(|| replaced(text, line..line + '\u{feff}'.len_utf8(), "")),
        // JSON objects one after the other, as jq prints them.
        "did not find expected <document start>" => {
            let is_json = |text: &str| text.trim_start().starts_with('{');
            let may_be = text[line..place].trim().is_empty() && is_json(rest) && is_json(text);
            may_be.then(|| replaced(text, line..line, "--- "))
        }
        _ => None,
    }
}

/// All lines but the first of what is in quotes there, further to the right. What a line in quotes begins with, no reader
/// takes for part of the value.
fn indented_quotes(text: &str, start: usize) -> Option<String> {
    let end = start + quoted_length(&text[start..])?;
    let mut output = text[..start].to_owned();
    let mut moved = false;
    for (index, line) in text[start..end].split_inclusive(['\n', '\r']).enumerate() {
        if index > 0 && !line.trim().is_empty() {
            output.push_str(&indentation(line)?);
            moved = true;
        }
        output.push_str(line);
    }
    output.push_str(&text[end..]);
    moved.then_some(output)
}

/// How many bytes the text in quotes has that begins there, with its quotes.
fn quoted_length(text: &str) -> Option<usize> {
    let mut rest = text.char_indices();
    let (_, quote) = rest.next().filter(|(_, first)| matches!(first, '"' | '\''))?;
    while let Some((at, character)) = rest.next() {
        if character == '\\' && quote == '"' {
            rest.next();
        } else if character == quote {
            if quote == '"' || !text[at + 1..].starts_with('\'') {
                return Some(at + 1);
            }
            rest.next();
        }
    }
    None
}

/// What is in double quotes there with `'` for each `\'`; `None` if it has none.
fn plain_apostrophes(text: &str, start: usize) -> Option<String> {
    let end = start + quoted_length(&text[start..]).filter(|_| text[start..].starts_with('"'))?;
    let mut output = text[..start].to_owned();
    let mut rest = &text[start..end];
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        output.push_str(before);
        let used = 1 + escape[1..].chars().next().map_or(0, char::len_utf8);
        output.push_str(if &escape[..used] == "\\'" {
            "'"
        } else {
            &escape[..used]
        });
        rest = &escape[used..];
    }
    output.push_str(rest);
    output.push_str(&text[end..]);
    (output.len() < text.len()).then_some(output)
}

/// What is put before a line: more, if it was moved before.
fn indentation(line: &str) -> Option<String> {
    let has = line.len() - line.trim_start_matches(' ').len();
    let wanted = INDENTATIONS.into_iter().find(|wanted| has < *wanted)?;
    Some(" ".repeat(wanted))
}

/// Where a line begins; the first is 1.
fn line_start(text: &str, line: usize) -> Option<usize> {
    let mut at = 0;
    for _ in 1..line {
        let rest = &text[at..];
        let end = rest.find(['\n', '\r'])?;
        at += end + if rest[end..].starts_with("\r\n") { 2 } else { 1 };
    }
    Some(at)
}

/// Where a marker points to in the line that begins there.
fn place(text: &str, line: usize, marker: &Marker) -> Option<usize> {
    let rest = &text[line..];
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.into_iter().nth(marker.col()).map(|at| line + at)
}

fn replaced(text: &str, range: Range<usize>, by: &str) -> String {
    [&text[..range.start], by, &text[range.end..]].concat()
}

#[cfg(test)]
mod tests {
    use crate::manifest::tree::{Node, Value, parse};

    /// The tree without its lines, as JSON would show it.
    fn shown(node: &Node) -> String {
        match &node.value {
            Value::Scalar(text, _) => format!("{text:?}"),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(shown).collect();
                format!("[{}]", items.join(","))
            }
            Value::Map(fields) => {
                let fields = fields.iter();
                let fields: Vec<_> = fields
                    .map(|(key, node)| format!("{}:{}", key.name, shown(node)))
                    .collect();
                format!("{{{}}}", fields.join(","))
            }
        }
    }

    fn read(text: &str) -> Vec<String> {
        let documents = parse(text).unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
        documents.iter().map(shown).collect()
    }

    /// Each was given to kubectl 1.32 (`kubectl label --local -o json`), and is what that showed.
    #[test]
    fn what_kubectl_takes_is_read() {
        let cases = [
            // Brackets that end below their field, or begin their content there.
            (
                "- a: [\n    \"x\",\n    \"y\"\n  ]\n  b: 1\n",
                r#"[{a:["x","y"],b:"1"}]"#,
            ),
            (
                "- a: {\n    \"x\": \"y\"\n  }\n  b: [\n    {\"c\": 1}\n  ]\n",
                r#"[{a:{x:"y"},b:[{c:"1"}]}]"#,
            ),
            ("- a: [\n  \"x\", y\n  ]\n", r#"[{a:["x","y"]}]"#),
            (
                "a: {\nb: [\n{c: d, e: f}\n]\n}\ng: h\n",
                r#"{a:{b:[{c:"d",e:"f"}]},g:"h"}"#,
            ),
            ("a:\n  b: [\"x\",\n\"y\"]\n", r#"{a:{b:["x","y"]}}"#),
            ("a:\n  b: [x,\n# between\ny]\n", r#"{a:{b:["x","y"]}}"#),
            // Quotes over several lines.
            ("- a: \"one\n  two\n\n  three\"\n", r#"[{a:"one two\nthree"}]"#),
            ("a:\n  b: 'it''s\nmore'\n", r#"{a:{b:"it's more"}}"#),
            (
                "a:\n  b: [\"x\", \"one\n\ttwo \\\"q\\\" \\\nthree\"]\n",
                r#"{a:{b:["x","one two \"q\" three"]}}"#,
            ),
            // Signs.
            (r#"a: ["it\'s", "\\\'\"\'"]"#, r#"{a:["it's","\\'\"'"]}"#),
            ("a:\tb\nc: \td\n", r#"{a:"b",c:"d"}"#),
            ("a:\t\"b\"\nc:\n-\td\n", r#"{a:"b",c:["d"]}"#),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), [expected], "{text:?}");
        }
        assert_eq!(read("{\"a\":1}\n{\"a\":2}\n\n  {\"a\":3}\n").len(), 3);
        assert_eq!(read("\u{feff}a: 1\n---\n\u{feff}b: 2\n").len(), 2);
    }

    /// Lines keep their numbers, in values as in what is wrong after them.
    #[test]
    fn lines_stay() {
        let text = "a:\n- b: [\n    \"x\"\n  ]\n  c: \"1\n  2\"\n  d: 3\n";
        assert_eq!(parse(text).unwrap()[0].line_of("a[0].d"), 7);
        let wrong = parse(&format!("{text}  e: f: g\n")).unwrap_err();
        assert_eq!(wrong.line, 8);
    }

    #[test]
    fn what_is_wrong_to_kubectl_too_stays_so() {
        for text in [
            "a: [\n",
            "- a:\n  [\n  \"x\"\n  ]\n",
            "a: \"x\n",
            "a: \"\\d \\' \"\n",
            "a: 'it\\'s'\n",
            "a: b: c\n",
            "a:\n\tb: c\n",
            "a:\n  - b\n c: d\n",
            "a: 1\n} b\n",
            "{\"a\":1} {\"a\":2}\n",
            "a: x \u{feff}\n  \u{feff}\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    /// Text that has to be mended again and again is given up in the end.
    #[test]
    fn mending_has_an_end() {
        let line = "- a: [\n    \"x\"\n  ]\n";
        assert_eq!(read(&line.repeat(500)).len(), 1);
        assert!(parse(&line.repeat(20_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[-a:\\[\\]{}\"'\\\\\t\r\n\u{feff}ü #,|]{0,60}") {
            let _ = parse(&text);
        }
    }
}
