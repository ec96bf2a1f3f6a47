//! What a YAML scalar means, as kubectl reads it.
//!
//! kubectl turns YAML into JSON by YAML 1.1's rules before it looks at types: `yes`, `on` and `n` are booleans, `0644`
//! is octal, and a boolean in the place of a string is an error. This follows it, so that a manifest means the same
//! here and there. (Timestamps stay strings, as there.)

/// A plain or quoted scalar's meaning.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meaning {
    /// Nothing.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// Text.
    Str,
}

/// What a plain (not quoted) scalar means.
pub(super) fn plain(text: &str) -> Meaning {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Meaning::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Meaning::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Meaning::Bool(false)
        }
        _ => number(text).unwrap_or(Meaning::Str),
    }
}

fn number(text: &str) -> Option<Meaning> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let text = text.replace('_', "");
    if let Some(int) = integer(&text) {
        return Some(Meaning::Int(int));
    }
    let float: f64 = is_float(&text).then(|| text.parse().ok())??;
    float.is_finite().then_some(Meaning::Float(float))
}

fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_str() {
        d if d.starts_with("0x") => (16, &d[2..]),
        d if d.starts_with("0b") => (2, &d[2..]),
        d if d.starts_with("0o") => (8, &d[2..]),
        d if d.len() > 1 && d.starts_with('0') => (8, &d[1..]),
        d => (10, d),
    };
    // from_str_radix would take another sign.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_fits = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let exponent_fits = exponent.is_none_or(|exponent| {
        let unsigned = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !unsigned.is_empty() && digits(unsigned)
    });
    mantissa_fits && exponent_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kubectl 1.32 was seen to read them.
    #[test]
    fn as_kubectl_reads_them() {
        for (text, meaning) in [
            ("", Meaning::Null),
            ("~", Meaning::Null),
            ("Null", Meaning::Null),
            ("nULL", Meaning::Str),
            ("yes", Meaning::Bool(true)),
            ("y", Meaning::Bool(true)),
            ("N", Meaning::Bool(false)),
            ("off", Meaning::Bool(false)),
            ("TRUE", Meaning::Bool(true)),
            ("tRue", Meaning::Str),
            ("nO", Meaning::Str),
            ("0", Meaning::Int(0)),
            ("00", Meaning::Int(0)),
            ("-0", Meaning::Int(0)),
            ("0644", Meaning::Int(420)),
            ("0o644", Meaning::Int(420)),
            ("0O7", Meaning::Int(7)),
            ("+0o7", Meaning::Int(7)),
            ("-017", Meaning::Int(-15)),
            ("0o8", Meaning::Str),
            ("0x1F", Meaning::Int(31)),
            ("-0x1f", Meaning::Int(-31)),
            ("0X1F", Meaning::Int(31)),
            ("0x-1", Meaning::Str),
            ("0x", Meaning::Str),
            ("0x_1", Meaning::Int(1)),
            ("0b101", Meaning::Int(5)),
            ("-0b1", Meaning::Int(-1)),
            ("0b2", Meaning::Str),
            ("-12", Meaning::Int(-12)),
            ("+5", Meaning::Int(5)),
            ("1_000", Meaning::Int(1000)),
            ("1__0", Meaning::Int(10)),
            ("0_", Meaning::Int(0)),
            ("_1", Meaning::Str),
            ("089", Meaning::Float(89.0)),
            ("012.5", Meaning::Float(12.5)),
            ("1.5", Meaning::Float(1.5)),
            ("1.", Meaning::Float(1.0)),
            ("1e3", Meaning::Float(1000.0)),
            ("1e+3", Meaning::Float(1000.0)),
            ("12e03", Meaning::Float(12000.0)),
            ("685.230_15e+03", Meaning::Float(685_230.15)),
            (".5", Meaning::Float(0.5)),
            ("-.5", Meaning::Float(-0.5)),
            ("+.5", Meaning::Float(0.5)),
            ("1e", Meaning::Str),
            ("1e400", Meaning::Str),
            ("--1", Meaning::Str),
            ("1.2.3", Meaning::Str),
            ("100m", Meaning::Str),
            ("1:30", Meaning::Str),
            ("190:20:30", Meaning::Str),
            ("2001-01-01", Meaning::Str),
            ("-", Meaning::Str),
            ("=", Meaning::Str),
            ("e1", Meaning::Str),
        ] {
            assert_eq!(plain(text), meaning, "{text}");
        }
    }
}
