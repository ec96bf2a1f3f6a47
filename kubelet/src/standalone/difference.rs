//! What a file would change of a pod, and whether that can be while the pod runs.
//!
//! Two pods are compared as the API server does it: quantities by their values, and lists and maps that are empty are not
//! there.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value};

use super::apply::Applied;
use crate::validation::APP_ARMOR_ANNOTATION;
use crate::{annotations, qos, quantity, spec};

/// What differs, and whether that can be changed in place. The pods are defaulted.
pub(super) fn difference(before: &Pod, after: &Pod) -> Applied {
    let mut fields = BTreeSet::new();
    let new = comparable(after);
    collect(&comparable(before), &new, "", &mut fields);
    if fields.is_empty() {
        return Applied::Unchanged;
    }
    let same_class = qos::qos_class(before) == qos::qos_class(after);
    // Of a pod that has no resources yet none are changed.
    let has_resources = !spec::is_gated(before);
    let is_lifted =
        spec::scheduling_gates(after).all(|gate| spec::scheduling_gates(before).any(|had| had == gate));
    let in_place = fields.iter().all(|field| {
        if field.starts_with("spec.schedulingGates") {
            return is_lifted;
        }
        let is_resource = field.contains(".resources.");
        can_change(field) && (!is_resource || (same_class && has_resources && is_there(&new, field)))
    });
    let fields = fields.into_iter().collect();
    if in_place {
        Applied::Configured(fields)
    } else {
        Applied::Replaced(fields)
    }
}

/// What a file says of a pod, so that the same is said by the same value.
fn comparable(pod: &Pod) -> Value {
    let mut pod = pod.clone();
    pod.status = None;
    // What an API server writes, and so `berth status -o yaml`, whose output may be applied again.
    let metadata = &mut pod.metadata;
    metadata.uid = None;
    metadata.generation = None;
    metadata.creation_timestamp = None;
    metadata.resource_version = None;
    metadata.self_link = None;
    metadata.managed_fields = None;
    metadata.owner_references = None;
    metadata.generate_name = None;
    // Added to the pod while it ran, and no part of what a file says.
    if let Some(spec) = &mut pod.spec {
        spec.ephemeral_containers = None;
    }
    let mut value = serde_json::to_value(pod).unwrap_or(Value::Null);
    tidy(&mut value, false);
    value
}

/// Maps, and structures that are always there: an empty one of them says nothing.
const SAYS_NOTHING_EMPTY: [&str; 10] = [
    "annotations",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "overhead",
    "requests",
    "resources",
    "securityContext",
    "volumeAttributes",
];

/// Leaves out what is empty, and writes quantities in one way. `quantities`: the values of this map are such.
fn tidy(value: &mut Value, quantities: bool) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                let is_quantity = quantities || matches!(name.as_str(), "sizeLimit" | "divisor");
                if let Value::String(text) = field
                    && is_quantity
                    && let Ok(read) = quantity::parse(text)
                {
                    *text = format!("{read:?}");
                }
                tidy(field, matches!(name.as_str(), "limits" | "requests" | "overhead"));
            }
            fields.retain(|name, field| !says_nothing(name, field));
        }
        Value::Array(all) => all.iter_mut().for_each(|one| tidy(one, false)),
        _ => {}
    }
}

fn says_nothing(name: &str, field: &Value) -> bool {
    match field {
        Value::Null => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(fields) => fields.is_empty() && SAYS_NOTHING_EMPTY.contains(&name),
        _ => false,
    }
}

/// Of `resources`, what a running pod can have another value of.
const RESOURCES: [&str; 4] = ["limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

/// Fields that a running pod can have another value of.
fn can_change(field: &str) -> bool {
    let container = field
        .strip_prefix("spec.containers[")
        .or_else(|| field.strip_prefix("spec.initContainers["))
        .and_then(|rest| rest.split_once("]."))
        .map(|(_, field)| field);
    match container {
        Some("image") => true,
        Some(field) => field
            .strip_prefix("resources.")
            .is_some_and(|resource| RESOURCES.contains(&resource)),
        None => {
            let own = field.strip_prefix("spec.resources.");
            if let Some(resource) = own {
                return RESOURCES.contains(&resource);
            }
            is_metadata(field)
                // They choose a node, and there is one.
                || field == "spec.tolerations"
                || field.starts_with("spec.tolerations[")
                || matches!(
                    field,
                    "spec.terminationGracePeriodSeconds" | "spec.activeDeadlineSeconds"
                )
        }
    }
}

/// A label, or an annotation unless it says how containers are made.
fn is_metadata(field: &str) -> bool {
    let of = |map: &str| field.strip_prefix(map).and_then(|rest| rest.strip_prefix('.'));
    let of_start =
        |name: &str| name.starts_with(APP_ARMOR_ANNOTATION) || name == annotations::MEMORY_OOM_GROUP;
    of("metadata.labels").is_some()
        || of("metadata.annotations").is_some_and(|name| !of_start(name))
        || matches!(field, "metadata.labels" | "metadata.annotations")
}

/// As upstream, a request or limit can't be taken away from a pod that runs.
fn is_there(pod: &Value, field: &str) -> bool {
    let pointer = field.replace(['.', '['], "/").replace(']', "");
    pod.pointer(&format!("/{pointer}")).is_some()
}

/// The paths at which two values differ.
fn collect(before: &Value, after: &Value, path: &str, fields: &mut BTreeSet<String>) {
    match (before, after) {
        (Value::Object(one), Value::Object(other)) => {
            for key in one.keys().chain(other.keys()) {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let (one, other) = (one.get(key), other.get(key));
                match (one, other) {
                    (Some(one), Some(other)) => collect(one, other, &path, fields),
                    // What is new in a map or gone from it is told by its own name.
                    (Some(Value::Object(only)), None) | (None, Some(Value::Object(only)))
                        if !only.is_empty() =>
                    {
                        let empty = Value::Object(Map::new());
                        collect(&Value::Object(only.clone()), &empty, &path, fields);
                    }
                    _ => drop(fields.insert(path)),
                }
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                collect(one, other, &format!("{path}[{index}]"), fields);
            }
        }
        _ if before != after => drop(fields.insert(path.to_owned())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const BEFORE: &str = r#"{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1","memory":"64Mi"},
        "requests":{"cpu":"1","memory":"64Mi"}}}],"terminationGracePeriodSeconds":5}"#;

    fn compared(after: &str) -> Applied {
        difference(&testing::pod(BEFORE), &testing::pod(after))
    }

    #[test]
    fn what_can_be_changed_in_place_is() {
        assert_eq!(compared(BEFORE), Applied::Unchanged);
        let fields = |fields: &[&str]| fields.iter().map(|&field| field.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            compared(&BEFORE.replace("\"i\"", "\"j\"").replace(":5", ":6")),
            Applied::Configured(fields(&[
                "spec.containers[0].image",
                "spec.terminationGracePeriodSeconds"
            ]))
        );
        assert_eq!(
            compared(&BEFORE.replace("64Mi", "65Mi")),
            Applied::Configured(fields(&[
                "spec.containers[0].resources.limits.memory",
                "spec.containers[0].resources.requests.memory"
            ]))
        );
        // Another QoS class is another group.
        let request = BEFORE.replace(
            r#""requests":{"cpu":"1","memory":"64Mi"}"#,
            r#""requests":{"cpu":"500m","memory":"64Mi"}"#,
        );
        assert!(matches!(compared(&request), Applied::Replaced(_)));
        let unlimited = BEFORE.replace(r#""cpu":"1","memory""#, r#""memory""#);
        assert!(matches!(compared(&unlimited), Applied::Replaced(_)));
        assert_eq!(
            compared(&BEFORE.replace(r#""image":"i""#, r#""image":"i","command":["x"]"#)),
            Applied::Replaced(fields(&["spec.containers[0].command"]))
        );
        assert!(matches!(
            compared(&BEFORE.replace(
                r#"{"containers":["#,
                r#"{"containers":[{"name":"d","image":"i"},"#
            )),
            Applied::Replaced(_)
        ));
    }

    #[test]
    fn what_an_api_server_writes_is_no_change() {
        let before = testing::pod(BEFORE);
        let mut shown = serde_json::to_value(&before).unwrap();
        let written = serde_json::json!({
            "creationTimestamp": "2026-01-01T00:00:00Z", "generateName": "p-", "generation": 3, "resourceVersion": "7",
            "managedFields": [{ "manager": "m" }], "selfLink": "/p", "uid": "u",
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "p", "uid": "u" }],
        });
        let metadata = shown["metadata"].as_object_mut().unwrap();
        metadata.extend(written.as_object().unwrap().clone());
        shown["status"] = serde_json::json!({ "phase": "Running" });
        let shown = serde_json::from_value(shown).unwrap();
        assert_eq!(difference(&before, &shown), Applied::Unchanged);
    }

    #[test]
    fn labels_change_whoever_shows_them() {
        let spec = BEFORE.replace(
            r#"{"containers""#,
            r#"{"volumes":[{"name":"v","downwardAPI":{"items":[{"path":"l","fieldRef":{"fieldPath":"metadata.labels"}}]}}],"containers""#,
        );
        let mut labelled = testing::pod(&spec);
        labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        assert_eq!(
            difference(&testing::pod(&spec), &labelled),
            Applied::Configured(vec!["metadata.labels.a".to_owned()])
        );
    }

    #[test]
    fn the_same_said_another_way_is_no_change() {
        for (one, other) in [
            (r#""cpu":"1""#, r#""cpu":"1000m""#),
            (r#""memory":"64Mi""#, r#""memory":"65536Ki""#),
            (
                r#""image":"i""#,
                r#""image":"i","env":[],"volumeMounts":[],"securityContext":{}"#,
            ),
            (
                r#":5}"#,
                r#":5,"tolerations":[],"nodeSelector":{},"securityContext":{}}"#,
            ),
        ] {
            assert!(BEFORE.contains(one));
            assert_eq!(
                compared(&BEFORE.replace(one, other)),
                Applied::Unchanged,
                "{other}"
            );
        }
        // An empty volume is one.
        let with = |volume: &str| {
            testing::pod(&BEFORE.replace(
                r#"{"containers""#,
                &format!(r#"{{"volumes":[{{"name":"v"{volume}}}],"containers""#),
            ))
        };
        let sized = difference(
            &with(r#","emptyDir":{"sizeLimit":"1Gi"}"#),
            &with(r#","emptyDir":{"sizeLimit":"1024Mi"}"#),
        );
        assert_eq!(sized, Applied::Unchanged);
        assert!(matches!(
            difference(&with(r#","emptyDir":{}"#), &with("")),
            Applied::Replaced(_)
        ));
    }

    #[test]
    fn gates_are_lifted_in_place_and_added_by_making_the_pod_anew() {
        let gated = |gates: &str| {
            testing::pod(&BEFORE.replacen('{', &format!(r#"{{"schedulingGates":[{gates}],"#), 1))
        };
        let (one, both) = (r#"{"name":"a"}"#, r#"{"name":"a"},{"name":"b"}"#);
        let lifted = Applied::Configured(vec!["spec.schedulingGates".to_owned()]);
        assert_eq!(difference(&gated(both), &gated(one)), lifted);
        assert_eq!(difference(&gated(one), &testing::pod(BEFORE)), lifted);
        for (before, after) in [
            (gated(one), gated(both)),
            (testing::pod(BEFORE), gated(one)),
            (gated(one), gated(r#"{"name":"b"}"#)),
        ] {
            assert!(matches!(difference(&before, &after), Applied::Replaced(_)));
        }
        // It has none that could be changed.
        let mut sized = gated(one);
        sized.spec.as_mut().unwrap().containers = testing::pod(&BEFORE.replace("64Mi", "65Mi"))
            .spec
            .unwrap()
            .containers;
        assert!(matches!(difference(&gated(one), &sized), Applied::Replaced(_)));
    }

    #[test]
    fn what_chooses_no_node_here_is_changed_in_place() {
        let tolerant = BEFORE.replace(":5}", r#":5,"tolerations":[{"key":"k","operator":"Exists"}]}"#);
        assert_eq!(
            compared(&tolerant),
            Applied::Configured(vec!["spec.tolerations".to_owned()])
        );
    }

    #[test]
    fn annotations_that_say_how_a_container_is_made_make_it_anew() {
        for (name, in_place) in [
            ("example.com/note", true),
            ("berth.dev/restart-backoff", true),
            ("berth.dev/memory-oom-group", false),
            ("container.apparmor.security.beta.kubernetes.io/c", false),
        ] {
            let mut annotated = testing::pod(BEFORE);
            annotated.metadata.annotations = Some([(name.to_owned(), "x".to_owned())].into());
            let applied = difference(&testing::pod(BEFORE), &annotated);
            assert_eq!(matches!(applied, Applied::Configured(_)), in_place, "{name}");
        }
    }
}
