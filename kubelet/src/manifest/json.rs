//! What JSON has and YAML has not: characters beyond U+FFFF as two escapes.

use std::borrow::Cow;

/// A JSON text with such pairs replaced by their characters. Any other text is left as it is.
pub(super) fn without_surrogates(text: &str) -> Cow<'_, str> {
    let start = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if !start.starts_with(['{', '[']) || !text.contains("\\u") {
        return Cow::Borrowed(text);
    }
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        output.push_str(&rest[..at]);
        let escape = &rest[at..];
        let used = match pair(escape) {
            Some(character) => {
                output.push(character);
                12
            }
            None => {
                // The backslash and what it escapes, which may be another backslash.
                let used = 1 + escape[1..].chars().next().map_or(0, char::len_utf8);
                output.push_str(&escape[..used]);
                used
            }
        };
        rest = &escape[used..];
    }
    output.push_str(rest);
    Cow::Owned(output)
}

/// The character of `\ud83d\ude00`.
fn pair(escapes: &str) -> Option<char> {
    let unit = |from: usize| {
        let digits = escapes.get(from..from + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let units = [unit(0)?, unit(6)?];
    let mut decoded = char::decode_utf16(units);
    match (decoded.next(), decoded.next()) {
        (Some(Ok(character)), None) => Some(character),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        for (text, expected) in [
            (r#"{"a":"\ud83d\ude00!"}"#, "{\"a\":\"😀!\"}"),
            (r#" ["\\ud83d\\ude00"]"#, r#" ["\\ud83d\\ude00"]"#),
            (r#"["\u0041\ud83d"]"#, r#"["\u0041\ud83d"]"#),
            (r#"["\ude00\ud83d"]"#, r#"["\ude00\ud83d"]"#),
            (r#"["\"\ud83d\ude00"#, "[\"\\\"😀"),
            ("{\\", "{\\"),
            (r"a: \ud83d\ude00", r"a: \ud83d\ude00"),
        ] {
            assert_eq!(without_surrogates(text), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in r#"\{[\\ud83de0"ü😀]{0,40}"#) {
            let _ = without_surrogates(&text);
        }
    }
}
