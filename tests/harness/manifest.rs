//! Manifests of pods whose containers are berth's own helper.

use serde_json::{Value, json};

/// The built-in image.
pub const HELPER: &str = "berth.local/helper:latest";

/// A pod of this name and specification, as text. JSON is YAML. It is given two seconds to end, unless the
/// specification says otherwise.
pub fn pod(name: &str, spec: Value) -> String {
    let mut spec = spec;
    spec.as_object_mut()
        .expect("a specification")
        .entry("terminationGracePeriodSeconds")
        .or_insert(json!(2));
    document(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec }))
}

/// One document of a manifest.
pub fn document(object: &Value) -> String {
    format!("---\n{object:#}\n")
}

/// A container of the built-in image with a command, and more fields.
pub fn container(name: &str, command: &[&str], more: Value) -> Value {
    let mut container = json!({
        "name": name,
        "image": HELPER,
        "imagePullPolicy": "Never",
        "command": command,
    });
    let Value::Object(more) = more else {
        panic!("{more} is no object")
    };
    container.as_object_mut().expect("it is an object").extend(more);
    container
}

/// A pod of one container, `main`, that is not started again when it ends.
pub fn once(name: &str, command: &[&str], more: Value) -> String {
    once_with(name, command, more, json!({}))
}

/// The same with more fields of the pod.
pub fn once_with(name: &str, command: &[&str], container_fields: Value, pod_fields: Value) -> String {
    let mut spec =
        json!({ "restartPolicy": "Never", "containers": [container("main", command, container_fields)] });
    let Value::Object(more) = pod_fields else {
        panic!("{pod_fields} is no object")
    };
    spec.as_object_mut().expect("it is an object").extend(more);
    pod(name, spec)
}
