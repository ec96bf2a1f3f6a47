//! The rules for a PriorityClass.

use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::{Errors, FieldError, validate_object_meta};
use crate::defaults::{HIGHEST_USER_PRIORITY, SYSTEM_PRIORITY_CLASSES, SYSTEM_PRIORITY_PREFIX};

/// All broken rules of a PriorityClass.
pub fn validate_priority_class(class: &PriorityClass) -> Vec<FieldError> {
    let mut errors = Errors(validate_object_meta(&class.metadata));
    if class.metadata.namespace.is_some() {
        errors.forbidden("metadata.namespace", "not allowed on this type");
    }
    let name = class.metadata.name.as_deref().unwrap_or_default();
    match class.value {
        // kubectl asks for it, too.
        None => errors.required("value", ""),
        Some(value) if name.starts_with(SYSTEM_PRIORITY_PREFIX) => {
            let globally = class.global_default == Some(true);
            if let Some(why) = system_class_problem(name, value, globally) {
                let why = format!(
                    "priority class names with '{SYSTEM_PRIORITY_PREFIX}' prefix are reserved for system use only. error: {why}"
                );
                errors.forbidden("metadata.name", why);
            }
        }
        Some(value) if value > HIGHEST_USER_PRIORITY => {
            let why = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
            errors.forbidden("value", why);
        }
        Some(_) => {}
    }
    errors.one_of(
        "preemptionPolicy",
        class.preemption_policy.as_deref(),
        &["Never", "PreemptLowerPriority"],
    );
    errors.0
}

/// One of the system's own has to be as the system has it.
fn system_class_problem(name: &str, value: i32, globally: bool) -> Option<String> {
    let Some((_, own)) = SYSTEM_PRIORITY_CLASSES.iter().find(|(known, _)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if value != *own {
        return Some(format!("value of {name} PriorityClass must be {own}"));
    }
    globally.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn rules() {
        let check = |class: Value| -> Vec<String> {
            let errors = validate_priority_class(&serde_json::from_value(class).unwrap());
            errors
                .iter()
                .map(|error| format!("{}: {error}", error.path))
                .collect()
        };
        let named = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value});
        for good in [
            named("a.b", 0),
            named("high", 1_000_000_000),
            named("low", -2_147_483_648),
            named("system-node-critical", 2_000_001_000),
            json!({"metadata": {"name": "a"}, "value": 1, "preemptionPolicy": "Never", "globalDefault": true}),
        ] {
            assert_eq!(check(good.clone()), [""; 0], "{good}");
        }
        let reserved = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: ";
        for (bad, message) in [
            (json!({"metadata": {"name": "a"}}), "value: Required value".to_owned()),
            (
                named("a", 1_000_000_001),
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000".to_owned(),
            ),
            (
                named("system-x", 1),
                format!("{reserved}system-x is not a known system priority class"),
            ),
            (
                named("system-node-critical", 1),
                format!("{reserved}value of system-node-critical PriorityClass must be 2000001000"),
            ),
            (
                json!({"metadata": {"name": "system-cluster-critical"}, "value": 2_000_000_000, "globalDefault": true}),
                format!("{reserved}globalDefault of system-cluster-critical PriorityClass must be false"),
            ),
            (
                json!({"metadata": {"name": "a", "namespace": "b"}, "value": 1}),
                "metadata.namespace: Forbidden: not allowed on this type".to_owned(),
            ),
            (
                json!({"metadata": {"name": "a"}, "value": 1, "preemptionPolicy": "Sometimes"}),
                "preemptionPolicy: Unsupported value: \"Sometimes\": supported values: \"Never\", \"PreemptLowerPriority\""
                    .to_owned(),
            ),
        ] {
            assert_eq!(check(bad.clone()), [message], "{bad}");
        }
    }
}
