//! Annotations `org.systemd.property.NAME`: properties of the scope, their values as GVariant text.

use std::collections::BTreeMap;

use super::super::{CgroupError, Result};
use super::manager::Property;
use super::text;
use crate::dbus::Value;

const PREFIX: &str = "org.systemd.property.";
const MICROSECONDS: u64 = 1_000_000;

/// The properties, in the order of their names.
pub(super) fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>> {
    let ours = annotations
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)));
    ours.map(|(name, value)| property(name, value)).collect()
}

fn property(name: &str, text: &str) -> Result<Property> {
    let refuse = |reason: &str| CgroupError::Value {
        resource: format!("The annotation {PREFIX}{name}"),
        value: text.to_owned(),
        reason: reason.to_owned(),
    };
    if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err(refuse(
            "a property's name has at least three letters and nothing else",
        ));
    }
    let value = text::parse(text).map_err(refuse)?;
    // What is documented as TimeoutStopSec is TimeoutStopUSec on the bus.
    match name.strip_suffix("Sec") {
        Some(stem) if stem.ends_with(|c: char| c.is_ascii_lowercase()) => {
            let value = microseconds(&value).ok_or_else(|| refuse("a number of seconds is needed"))?;
            Ok((format!("{stem}USec"), Value::U64(value)))
        }
        _ => Ok((name.to_owned(), value)),
    }
}

fn microseconds(seconds: &Value) -> Option<u64> {
    let whole = match seconds {
        Value::Byte(n) => u64::from(*n),
        Value::U16(n) => u64::from(*n),
        Value::U32(n) => u64::from(*n),
        Value::U64(n) => *n,
        Value::I16(n) => u64::try_from(*n).ok()?,
        Value::I32(n) => u64::try_from(*n).ok()?,
        Value::I64(n) => u64::try_from(*n).ok()?,
        Value::Double(n) => {
            let duration = std::time::Duration::try_from_secs_f64(*n).ok()?;
            return u64::try_from(duration.as_micros()).ok();
        }
        _ => return None,
    };
    whole.checked_mul(MICROSECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<Property> {
        let annotations = BTreeMap::from([
            (format!("{PREFIX}{name}"), value.to_owned()),
            ("org.example.other".to_owned(), "((".to_owned()),
        ]);
        properties(&annotations).map(|mut list| list.remove(0))
    }

    #[test]
    fn names_and_seconds() {
        assert_eq!(
            one("CollectMode", "'inactive-or-failed'").unwrap().1,
            Value::Text("inactive-or-failed".into())
        );
        for (value, expected) in [
            ("5", 5_000_000),
            ("uint64 123", 123_000_000),
            ("2.5", 2_500_000),
            ("byte 1", 1_000_000),
        ] {
            assert_eq!(
                one("TimeoutStopSec", value).unwrap(),
                ("TimeoutStopUSec".to_owned(), Value::U64(expected))
            );
        }
        assert_eq!(one("CPUQuotaPerSec", "1").unwrap().0, "CPUQuotaPerUSec");
        assert_eq!(one("TimeoutSTOPSec", "1").unwrap().0, "TimeoutSTOPSec");
        for (name, value) in [
            ("A", "1"),
            ("A.b", "1"),
            ("Timeout-Sec", "1"),
            ("TimeoutStopSec", "'x'"),
            ("TimeoutStopSec", "-1"),
            ("Abc", "("),
        ] {
            let error = one(name, value).unwrap_err().to_string();
            assert!(error.contains(name) && error.ends_with('.'), "{error}");
        }
    }
}
