//! Kubernetes quantities: `100m`, `1.5Gi`, `2e3`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Billionths, which is as fine as upstream counts.
const NANO: i128 = 1_000_000_000;

/// A quantity's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value(i128);

/// The text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

impl Value {
    /// A whole number of units.
    pub fn units(units: i64) -> Self {
        Self(i128::from(units) * NANO)
    }

    /// A number of thousandths.
    pub fn milli(milli: i64) -> Self {
        Self(i128::from(milli) * (NANO / 1000))
    }

    /// Whole units, rounded up (`Value()`).
    pub fn as_units(self) -> i64 {
        clamp(div_ceil(self.0, NANO))
    }

    /// Thousandths, rounded up (`MilliValue()`).
    pub fn as_milli(self) -> i64 {
        clamp(div_ceil(self.0, NANO / 1000))
    }

    /// It is nothing.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// It is less than nothing.
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// It has no fraction.
    pub fn is_whole(self) -> bool {
        self.0 % NANO == 0
    }

    /// It is a whole number of times the other.
    pub fn is_multiple_of(self, other: Self) -> bool {
        other.0 != 0 && self.0 % other.0 == 0
    }

    /// The next larger number of whole thousandths, which is as fine as resources of pods are counted.
    #[must_use]
    pub fn up_to_milli(self) -> Self {
        Self(div_ceil(self.0, NANO / 1000).saturating_mul(NANO / 1000))
    }

    /// How often `divisor` is in it, rounded up; a divisor of zero counts as one.
    pub fn divided_by(self, divisor: Self) -> i64 {
        let divisor = if divisor.0 == 0 { NANO } else { divisor.0 };
        clamp(div_ceil(self.0, divisor))
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// How a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `1500`, `100m`, `2k`.
    #[default]
    Decimal,
    /// `2e3`.
    Exponent,
    /// `1536Mi`.
    Binary,
}

impl Form {
    /// The form that a text has.
    pub fn of(text: &str) -> Self {
        let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit() || "+-.".contains(c));
        match suffix.as_bytes() {
            [_, b'i'] => Self::Binary,
            [b'e' | b'E', _, ..] => Self::Exponent,
            _ => Self::Decimal,
        }
    }
}

impl Value {
    /// The quantity in its shortest form (`String()`): no fraction, and the largest suffix that leaves none.
    pub fn show(self, form: Form) -> String {
        let exact = self.is_whole() && self.0.abs() >= 1024 * NANO;
        if form == Form::Binary && exact {
            let mut number = self.0 / NANO;
            let mut suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter();
            let mut suffix = suffixes.next();
            while number % 1024 == 0
                && let Some(larger) = suffixes.next()
            {
                number /= 1024;
                suffix = Some(larger);
            }
            return format!("{number}{}", suffix.unwrap_or(&""));
        }
        let (mut number, mut thousands) = (self.0, 0);
        while number != 0 && number % 1000 == 0 && thousands < 9 {
            number /= 1000;
            thousands += 1;
        }
        let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        match (form, thousands) {
            _ if number == 0 => "0".to_owned(),
            (Form::Exponent, 3) => number.to_string(),
            (Form::Exponent, thousands) => {
                let exponent = i32::try_from(thousands).unwrap_or(0) * 3 - 9;
                format!("{number}e{exponent}")
            }
            (_, thousands) => format!("{number}{}", suffixes.get(thousands).unwrap_or(&"")),
        }
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn div_ceil(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by != 0 && (value < 0) == (by < 0) {
        quotient + 1
    } else {
        quotient
    }
}

/// Reads a quantity.
///
/// # Errors
/// The text does not have the form of one.
pub fn parse(text: &str) -> Result<Value, QuantityError> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(QuantityError);
    }
    let scale = scale(suffix)?;
    let mut value = whole_part(whole, scale);
    value = value.saturating_add(fraction_part(fraction, scale));
    // Upstream caps at the largest 64-bit number.
    value = value.min(i128::from(i64::MAX) * NANO);
    Ok(Value(if negative { -value } else { value }))
}

/// A unit as a fraction of billionths.
#[derive(Clone, Copy)]
struct Scale {
    multiply: i128,
    divide: i128,
}

fn scale(suffix: &str) -> Result<Scale, QuantityError> {
    let times = |multiply: i128| Scale {
        multiply: multiply.saturating_mul(NANO),
        divide: 1,
    };
    Ok(match suffix {
        "n" => Scale {
            multiply: 1,
            divide: 1,
        },
        "u" => Scale {
            multiply: 1000,
            divide: 1,
        },
        "m" => Scale {
            multiply: NANO / 1000,
            divide: 1,
        },
        "" => times(1),
        "k" => times(1_000),
        "M" => times(1_000_000),
        "G" => times(NANO),
        "T" => times(1_000 * NANO),
        "P" => times(1_000_000 * NANO),
        "E" => times(NANO * NANO),
        "Ki" => times(1 << 10),
        "Mi" => times(1 << 20),
        "Gi" => times(1 << 30),
        "Ti" => times(1 << 40),
        "Pi" => times(1 << 50),
        "Ei" => times(1 << 60),
        _ => return exponent(suffix),
    })
}

fn exponent(suffix: &str) -> Result<Scale, QuantityError> {
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError)?;
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError);
    }
    let exponent: i32 = digits.parse().map_err(|_| QuantityError)?;
    let power = 10_i128
        .checked_pow(exponent.unsigned_abs().min(20))
        .unwrap_or(i128::MAX);
    Ok(if exponent < 0 {
        Scale {
            multiply: NANO,
            divide: power,
        }
    } else {
        Scale {
            multiply: power.saturating_mul(NANO),
            divide: 1,
        }
    })
}

fn whole_part(digits: &str, scale: Scale) -> i128 {
    let number = digits.bytes().fold(0_i128, |sum, digit| {
        sum.saturating_mul(10).saturating_add(i128::from(digit - b'0'))
    });
    div_ceil(number.saturating_mul(scale.multiply), scale.divide)
}

/// Digits after the point, rounded up to a billionth.
fn fraction_part(digits: &str, scale: Scale) -> i128 {
    let digits = &digits[..digits.len().min(18)];
    if digits.is_empty() {
        return 0;
    }
    let number = digits
        .bytes()
        .fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    let places = 10_i128.pow(u32::try_from(digits.len()).unwrap_or(18));
    // A large scale divides first, so that the product stays in range.
    let multiplied = if scale.multiply > i128::MAX / places {
        (scale.multiply / places).saturating_mul(number)
    } else {
        div_ceil(number.saturating_mul(scale.multiply), places)
    };
    div_ceil(multiplied, scale.divide)
}

/// Reads a quantity that validation has read before; anything else counts as zero.
pub fn value_of(quantity: &Quantity) -> Value {
    parse(&quantity.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_suffix() {
        for (text, milli) in [
            ("0", 0),
            ("1", 1000),
            ("100m", 100),
            ("1.5", 1500),
            (".5", 500),
            ("5.", 5000),
            ("+2", 2000),
            ("-1", -1000),
            ("1k", 1_000_000),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("2e3", 2_000_000),
            ("2E-3", 2),
            ("1u", 1),
            ("1n", 1),
            ("0.0001", 1),
            ("1e-20", 1),
        ] {
            assert_eq!(parse(text).map(Value::as_milli), Ok(milli), "{text}");
        }
        assert_eq!(parse("1E").map(Value::as_units), Ok(1_000_000_000_000_000_000));
        assert_eq!(parse("9Ei").map(Value::as_units), Ok(i64::MAX));
        assert_eq!(
            parse("99999999999999999999999999999999999999999999").map(Value::as_units),
            Ok(i64::MAX)
        );
        assert_eq!(parse("128974848").map(Value::as_units), Ok(128_974_848));
        assert_eq!(parse("0.5Mi").map(Value::as_units), Ok(524_288));
    }

    #[test]
    fn refuses_what_is_not_a_quantity() {
        for text in [
            "",
            "-",
            ".",
            "1.2.3",
            "1 Gi",
            "1gi",
            "Gi",
            "1e",
            "1e+",
            "0x10",
            "1KiB",
            "½",
            "1m1",
            "--1",
            "1e99999999999",
        ] {
            assert_eq!(parse(text), Err(QuantityError), "{text}");
        }
    }

    #[test]
    fn the_shortest_form_is_upstream_s() {
        for (text, shown) in [
            ("1Mi", "1Mi"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("1000Ki", "1000Ki"),
            ("1023", "1023"),
            ("0.5Ki", "512"),
            ("1048576", "1048576"),
            ("1000", "1k"),
            ("1500M", "1500M"),
            ("2000M", "2G"),
            ("0.1", "100m"),
            ("2e3", "2e3"),
            ("2000e0", "2e3"),
            ("1e0", "1"),
            ("0Mi", "0"),
            ("-2Ki", "-2Ki"),
            ("1E", "1E"),
        ] {
            assert_eq!(
                parse(text).map(|value| value.show(Form::of(text))),
                Ok(shown.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn divides_rounding_up() {
        assert_eq!(Value::milli(1500).divided_by(Value::units(1)), 2);
        assert_eq!(Value::milli(250).divided_by(Value::milli(1)), 250);
        assert_eq!(Value::units(10).divided_by(Value::default()), 10);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[+-]?[0-9.]{0,40}[eEinumkKMGTP+-]{0,3}[0-9]{0,12}") {
            let _ = parse(&text);
        }
    }
}
