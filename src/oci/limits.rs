//! `linux.resources` as a container's updates left them: a later update builds upon them.

use serde_json::{Map, Value};

/// Limits of which the second is understood together with the first: an object and two of its fields.
const PAIRS: &[(&str, &str, &str)] = &[
    ("memory", "limit", "swap"),
    ("cpu", "period", "quota"),
    ("cpu", "realtimePeriod", "realtimeRuntime"),
];

/// Adds to an update the halves of pairs that it leaves as they are: memory and swap together stay limited to what they
/// were when that of memory changes.
pub(crate) fn complete(update: &mut Value, remembered: &Value) {
    for &(object, first, second) in PAIRS {
        let Some(fields) = update.get_mut(object).and_then(Value::as_object_mut) else {
            continue;
        };
        for (given, missing) in [(first, second), (second, first)] {
            let other = &remembered[object][missing];
            let alone =
                is_set(object, given, fields.get(given)) && !is_set(object, missing, fields.get(missing));
            if alone && !other.is_null() {
                fields.insert(missing.to_owned(), other.clone());
            }
        }
    }
}

/// Enters what an update has set.
pub(crate) fn remember(remembered: &mut Value, update: &Value) {
    remember_in("", remembered, update);
}

fn remember_in(object: &str, remembered: &mut Value, update: &Value) {
    let (Some(old), Value::Object(new)) = (object_of(remembered), update) else {
        return;
    };
    for (name, value) in new {
        match (value, old.get_mut(name)) {
            (Value::Object(_), _) => {
                let part = old.entry(name).or_insert(Value::Null);
                remember_in(name, part, value);
            }
            (Value::Array(new), Some(Value::Array(old))) => {
                old.retain(|item| !new.iter().any(|other| key(item) == key(other)));
                old.extend(new.iter().cloned());
            }
            (value, _) if is_set(object, name, Some(value)) => {
                old.insert(name.clone(), value.clone());
            }
            _ => {}
        }
    }
}

fn object_of(value: &mut Value) -> Option<&mut Map<String, Value>> {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// No value sets nothing, nor does an empty text, or a 0 where that stands for none.
fn is_set(object: &str, name: &str, value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(value) => {
            let zero_counts = matches!((object, name), ("cpu", "burst" | "idle") | ("pids", _));
            zero_counts || value.as_i64() != Some(0)
        }
    }
}

/// What an item of a list is about: a size of pages, a device, an interface.
fn key(item: &Value) -> [&Value; 4] {
    ["pageSize", "major", "minor", "name"].map(|name| &item[name])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pairs_are_completed() {
        let remembered = json!({ "memory": { "limit": 10, "swap": 20 }, "cpu": { "period": 5 } });
        for (update, expected) in [
            (
                json!({ "memory": { "limit": 15 } }),
                json!({ "memory": { "limit": 15, "swap": 20 } }),
            ),
            (
                json!({ "memory": { "swap": 30 } }),
                json!({ "memory": { "limit": 10, "swap": 30 } }),
            ),
            (
                json!({ "memory": { "limit": 1, "swap": 2 } }),
                json!({ "memory": { "limit": 1, "swap": 2 } }),
            ),
            (
                json!({ "memory": { "reservation": 1 } }),
                json!({ "memory": { "reservation": 1 } }),
            ),
            (
                json!({ "cpu": { "quota": 7 } }),
                json!({ "cpu": { "quota": 7, "period": 5 } }),
            ),
            (
                json!({ "cpu": { "shares": 7 } }),
                json!({ "cpu": { "shares": 7 } }),
            ),
            (json!({ "cpu": null }), json!({ "cpu": null })),
        ] {
            let mut completed = update.clone();
            complete(&mut completed, &remembered);
            assert_eq!(completed, expected, "{update}");
        }
    }

    #[test]
    fn what_is_not_set_is_not_remembered() {
        let mut remembered = Value::Null;
        for (update, expected) in [
            (
                json!({ "pids": { "limit": 5 } }),
                json!({ "pids": { "limit": 5 } }),
            ),
            (
                json!({ "cpu": { "shares": 0, "cpus": "", "burst": 0 }, "memory": null }),
                json!({ "pids": { "limit": 5 }, "cpu": { "burst": 0 } }),
            ),
            (
                json!({ "unified": { "memory.high": "1" }, "cpu": { "burst": 3 } }),
                json!({ "pids": { "limit": 5 }, "cpu": { "burst": 3 }, "unified": { "memory.high": "1" } }),
            ),
        ] {
            remember(&mut remembered, &update);
            assert_eq!(remembered, expected, "{update}");
        }
        let mut remembered = json!({ "memory": { "limit": 5 } });
        remember(&mut remembered, &json!({ "memory": { "limit": 0 } }));
        assert_eq!(remembered, json!({ "memory": { "limit": 5 } }));
        let mut remembered = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 1 }, { "pageSize": "1GB", "limit": 2 }] });
        remember(
            &mut remembered,
            &json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 3 }] }),
        );
        let expected = json!([{ "pageSize": "1GB", "limit": 2 }, { "pageSize": "2MB", "limit": 3 }]);
        assert_eq!(remembered["hugepageLimits"], expected);
    }
}
