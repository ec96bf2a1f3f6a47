//! GVariant text: how values are written in annotations. Values of the types that properties of units have: numbers,
//! booleans, strings, arrays, tuples, variants, byte strings, with `uint64 5` or `@as []` where the type isn't obvious.

use crate::dbus::Value;

/// Arrays and tuples within each other.
const DEPTH: usize = 16;

type Parsed<T> = Result<T, &'static str>;

/// Reads one value.
pub(super) fn parse(text: &str) -> Parsed<Value> {
    let mut parser = Parser { rest: text };
    let value = parser.value(None, DEPTH)?;
    parser.space();
    if parser.rest.is_empty() {
        Ok(value)
    } else {
        Err("something follows the value")
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes a character if it is the next.
    fn takes(&mut self, wanted: char) -> bool {
        self.space();
        let after = self.rest.strip_prefix(wanted);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// The characters up to the next one that ends a word.
    fn word(&mut self) -> &'a str {
        let end = self
            .rest
            .find(|c: char| c.is_whitespace() || ",()[]<>".contains(c));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    /// A value, of the type that is expected if there is one.
    fn value(&mut self, expected: Option<&str>, depth: usize) -> Parsed<Value> {
        let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        self.space();
        match self.rest.chars().next() {
            None => Err("it ends too early"),
            Some('@') => {
                self.rest = &self.rest[1..];
                let kind = self.type_text()?;
                self.value(Some(kind), depth)
            }
            Some('[') => self.array(expected, depth),
            Some('(') => self.tuple(expected, depth),
            Some('<') => {
                self.takes('<');
                let inner = self.value(None, depth)?;
                if !self.takes('>') {
                    return Err("a variant has no end");
                }
                typed(Value::Variant(Box::new(inner)), expected)
            }
            Some('\'' | '"') => {
                let text = self.string()?;
                typed(Value::Text(text), expected)
            }
            Some('b') if self.rest.starts_with("b'") || self.rest.starts_with("b\"") => {
                self.rest = &self.rest[1..];
                let mut bytes = self.string()?.into_bytes();
                bytes.push(0);
                typed(Value::bytes(&bytes), expected)
            }
            Some(_) => self.number_or_keyword(expected, depth),
        }
    }

    fn number_or_keyword(&mut self, expected: Option<&str>, depth: usize) -> Parsed<Value> {
        let word = self.word();
        let kind = match word {
            "true" | "false" => return typed(Value::Bool(word == "true"), expected),
            "boolean" => "b",
            "byte" => "y",
            "int16" => "n",
            "uint16" => "q",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "double" => "d",
            "string" | "objectpath" | "signature" => "s",
            _ => return number(word, expected),
        };
        self.value(Some(kind), depth)
    }

    fn array(&mut self, expected: Option<&str>, depth: usize) -> Parsed<Value> {
        self.takes('[');
        let mut element = match expected {
            Some(kind) => Some(
                kind.strip_prefix('a')
                    .ok_or("an array is not of that type")?
                    .to_owned(),
            ),
            None => None,
        };
        let mut items = Vec::new();
        while !self.takes(']') {
            if !items.is_empty() && !self.takes(',') {
                return Err("an array has no end");
            }
            let item = self.value(element.as_deref(), depth)?;
            element.get_or_insert_with(|| item.signature());
            items.push(item);
        }
        let element = element.ok_or("an empty array needs its type, as in @as []")?;
        Ok(Value::Array(element, items))
    }

    fn tuple(&mut self, expected: Option<&str>, depth: usize) -> Parsed<Value> {
        self.takes('(');
        let mut kinds = match expected {
            Some(kind) => Some(kind.strip_prefix('(').ok_or("a tuple is not of that type")?),
            None => None,
        };
        let mut fields = Vec::new();
        while !self.takes(')') {
            if !fields.is_empty() && !self.takes(',') {
                return Err("a tuple has no end");
            }
            // A tuple of one field has a comma after it.
            if self.takes(')') {
                break;
            }
            let kind = match kinds {
                Some(all) => {
                    let (first, rest) = split_type(all)?;
                    kinds = Some(rest);
                    Some(first)
                }
                None => None,
            };
            fields.push(self.value(kind, depth)?);
        }
        match kinds {
            _ if fields.is_empty() => Err("an empty tuple is no value of D-Bus"),
            Some(left) if left != ")" => Err("a tuple has other fields than its type"),
            _ => Ok(Value::Struct(fields)),
        }
    }

    /// A string in quotes, with backslashes as in C.
    fn string(&mut self) -> Parsed<String> {
        let mut characters = self.rest.char_indices();
        let quote = characters.next().ok_or("it ends too early")?.1;
        let mut text = String::new();
        while let Some((at, character)) = characters.next() {
            match character {
                c if c == quote => {
                    self.rest = &self.rest[at + c.len_utf8()..];
                    return Ok(text);
                }
                '\\' => text.push(match characters.next().ok_or("a string has no end")?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other @ ('\\' | '\'' | '"') => other,
                    _ => return Err("a backslash is followed by something unknown"),
                }),
                '\0' => return Err("a string holds a NUL"),
                other => text.push(other),
            }
        }
        Err("a string has no end")
    }

    fn type_text(&mut self) -> Parsed<&'a str> {
        let (kind, rest) = split_type(self.rest)?;
        self.rest = rest;
        Ok(kind)
    }
}

/// The first complete type, and the rest.
fn split_type(text: &str) -> Parsed<(&str, &str)> {
    let mut depth = 0_usize;
    for (at, code) in text.char_indices() {
        match code {
            'a' => continue,
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or("a type is incomplete")?,
            'b' | 'y' | 'n' | 'q' | 'i' | 'u' | 'x' | 't' | 'd' | 's' | 'v' => {}
            _ => return Err("a type is unknown"),
        }
        if depth == 0 {
            return Ok(text.split_at(at + 1));
        }
    }
    Err("a type is incomplete")
}

fn typed(value: Value, expected: Option<&str>) -> Parsed<Value> {
    match expected {
        Some(kind) if kind != value.signature() => Err("a value is not of its type"),
        _ => Ok(value),
    }
}

fn number(word: &str, expected: Option<&str>) -> Parsed<Value> {
    const RANGE: &str = "it is neither a number in its type's range nor another value";
    let fraction = word.contains(['.', 'e', 'E']) && !word.starts_with("0x");
    let kind = expected.unwrap_or(if fraction { "d" } else { "i" });
    if kind == "d" {
        return double(word).map(Value::Double).ok_or(RANGE);
    }
    let wide: i128 = match word.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16)
            .ok()
            .filter(|_| !digits.starts_with(['-', '+'])),
        None => word.parse().ok(),
    }
    .ok_or(RANGE)?;
    let value = match kind {
        "y" => wide.try_into().ok().map(Value::Byte),
        "n" => wide.try_into().ok().map(Value::I16),
        "q" => wide.try_into().ok().map(Value::U16),
        "i" => wide.try_into().ok().map(Value::I32),
        "u" => wide.try_into().ok().map(Value::U32),
        "x" => wide.try_into().ok().map(Value::I64),
        "t" => wide.try_into().ok().map(Value::U64),
        _ => None,
    };
    value.ok_or(RANGE)
}

/// A finite number with or without a fraction and an exponent, read as JSON is: the standard library's own reader takes tables of
/// ten kilobytes along.
fn double(word: &str) -> Option<f64> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", word.strip_prefix('+').unwrap_or(word)),
    };
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let zero = |digits: &str| {
        if digits.is_empty() {
            "0".to_owned()
        } else {
            digits.to_owned()
        }
    };
    let json = format!("{sign}{}.{}e{exponent}", zero(whole), zero(fraction));
    serde_json::from_str(&json).ok().filter(|n: &f64| n.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values() {
        let text = |s: &str| Value::Text(s.to_owned());
        let cases = [
            ("true", Value::Bool(true)),
            ("5", Value::I32(5)),
            (" -5 ", Value::I32(-5)),
            ("0x10", Value::I32(16)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("@t 7", Value::U64(7)),
            ("byte 255", Value::Byte(255)),
            ("1.5", Value::Double(1.5)),
            ("-01.25", Value::Double(-1.25)),
            (".5", Value::Double(0.5)),
            ("5.", Value::Double(5.0)),
            ("+2e3", Value::Double(2000.0)),
            ("25E-2", Value::Double(0.25)),
            ("double 7", Value::Double(7.0)),
            ("'it\\'s'", text("it's")),
            ("\"a b\"", text("a b")),
            ("['a', 'b']", Value::Array("s".into(), vec![text("a"), text("b")])),
            ("@as []", Value::Array("s".into(), vec![])),
            (
                "[uint32 1, 2]",
                Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)]),
            ),
            ("('a', true)", Value::Struct(vec![text("a"), Value::Bool(true)])),
            ("('a',)", Value::Struct(vec![text("a")])),
            (
                "[('a', uint64 1)]",
                Value::Array("(st)".into(), vec![Value::Struct(vec![text("a"), Value::U64(1)])]),
            ),
            (
                "@a(st) [('a', 1)]",
                Value::Array("(st)".into(), vec![Value::Struct(vec![text("a"), Value::U64(1)])]),
            ),
            ("<'x'>", Value::Variant(Box::new(text("x")))),
            ("b'ab'", Value::bytes(b"ab\0")),
        ];
        for (given, expected) in cases {
            assert_eq!(parse(given), Ok(expected), "{given}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for bad in [
            "",
            " ",
            "x",
            "5x",
            "'a",
            "'a' b",
            "[",
            "[1",
            "[1 2]",
            "[1, 'a']",
            "[]",
            "()",
            "(1",
            "uint32 -1",
            "byte 256",
            "4294967296",
            ".",
            "1.5.5",
            "1e",
            "1e999",
            "double nan",
            "@z 5",
            "@a 5",
            "@s 5",
            "@(st) ('a')",
            "@(s) ('a', 1)",
            "1e999",
            "'\\x'",
            "<1",
            "int32 'a'",
            "true false",
            "0x-1",
            "@i",
            "nan",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&"[".repeat(1000)).is_err());
        assert!(parse(&"@s ".repeat(1000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]()<>@'\"\\\\, a-z0-9é.-]{0,24}") {
            let _ = parse(&text);
        }
    }
}
