//! What the unit tests of this crate share.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

/// A pod `default/p` with this specification (JSON).
pub(crate) fn pod(spec: &str) -> Pod {
    let spec: serde_json::Value = serde_json::from_str(spec).unwrap();
    let metadata = json!({"name": "p", "namespace": "default", "uid": "uid", "generation": 1});
    serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
        .unwrap()
}
