//! The rules for PersistentVolumeClaims and PersistentVolumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NFSVolumeSource, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::metadata::validate_object_meta;
use super::scheduling::node_terms;
use super::{Errors, FieldError, names};

const ACCESS_MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// All broken rules of a PersistentVolumeClaim.
pub fn validate_claim(claim: &PersistentVolumeClaim) -> Vec<FieldError> {
    let mut errors = Errors(validate_object_meta(&claim.metadata));
    match &claim.spec {
        Some(spec) => claim_spec(spec, "spec", &mut errors),
        None => errors.required("spec", ""),
    }
    errors.0
}

/// The rules for what a claim asks for.
pub(super) fn claim_spec(spec: &PersistentVolumeClaimSpec, path: &str, errors: &mut Errors) {
    access_modes(
        spec.access_modes.as_deref(),
        &format!("{path}.accessModes"),
        errors,
    );
    if let Some(found) = &spec.selector {
        selector(found, &format!("{path}.selector"), errors);
    }
    let requests = spec.resources.as_ref().and_then(|all| all.requests.as_ref());
    storage(requests, &format!("{path}.resources.requests"), errors);
    class(spec.storage_class_name.as_deref(), path, errors);
    let mode = spec.volume_mode.as_deref();
    errors.one_of(&format!("{path}.volumeMode"), mode, &VOLUME_MODES);
}

/// All broken rules of a PersistentVolume.
pub fn validate_volume(volume: &PersistentVolume) -> Vec<FieldError> {
    let mut errors = Errors(validate_object_meta(&volume.metadata));
    if volume.metadata.namespace.is_some() {
        errors.forbidden("metadata.namespace", "not allowed on this type");
    }
    match &volume.spec {
        Some(spec) => volume_spec(spec, &mut errors),
        None => errors.required("spec", ""),
    }
    errors.0
}

fn volume_spec(spec: &PersistentVolumeSpec, errors: &mut Errors) {
    access_modes(spec.access_modes.as_deref(), "spec.accessModes", errors);
    storage(spec.capacity.as_ref(), "spec.capacity", errors);
    class(spec.storage_class_name.as_deref(), "spec", errors);
    let mode = spec.volume_mode.as_deref();
    errors.one_of("spec.volumeMode", mode, &VOLUME_MODES);
    let sources = [
        ("hostPath", spec.host_path.is_some()),
        ("local", spec.local.is_some()),
        ("nfs", spec.nfs.is_some()),
    ];
    let mut there = sources.iter().filter(|(_, there)| *there);
    if there.next().is_none() {
        errors.required("spec", "must specify a volume type");
    }
    for (name, _) in there {
        errors.forbidden(&format!("spec.{name}"), "may not specify more than 1 volume type");
    }
    if let Some(source) = &spec.host_path {
        super::volume::host_path(source, "spec.hostPath", errors);
    }
    if let Some(source) = &spec.local {
        match source.path.as_str() {
            "" => errors.required("spec.local.path", ""),
            path if path.split('/').any(|part| part == "..") => {
                errors.invalid("spec.local.path", path, "must not contain '..'");
            }
            path if !path.starts_with('/') => {
                errors.invalid("spec.local.path", path, "must be an absolute path");
            }
            _ => {}
        }
        let required = spec
            .node_affinity
            .as_ref()
            .and_then(|affinity| affinity.required.as_ref());
        if required.is_none() {
            errors.required("spec.nodeAffinity", "Local volume requires node affinity");
        }
    }
    if let Some(affinity) = &spec.node_affinity {
        match &affinity.required {
            Some(required) => node_terms(
                &required.node_selector_terms,
                "spec.nodeAffinity.required",
                errors,
            ),
            None => errors.required(
                "spec.nodeAffinity.required",
                "must specify required node constraints",
            ),
        }
    }
    if let Some(source) = &spec.nfs {
        nfs(source, "spec.nfs", errors);
    }
    if mode == Some("Block") && spec.local.is_none() {
        errors.invalid(
            "spec.volumeMode",
            "Block",
            "only a `local` volume can be a block device",
        );
    }
    if spec.nfs.is_none()
        && spec
            .mount_options
            .as_ref()
            .is_some_and(|options| !options.is_empty())
    {
        errors.invalid(
            "spec.mountOptions",
            "",
            "only an `nfs` volume is mounted with options",
        );
    }
    if let Some(claim) = &spec.claim_ref {
        for (name, value) in [("name", &claim.name), ("namespace", &claim.namespace)] {
            if value.as_deref().is_none_or(str::is_empty) {
                errors.required(&format!("spec.claimRef.{name}"), "");
            }
        }
    }
}

/// The rules for an export of an NFS server.
pub(super) fn nfs(source: &NFSVolumeSource, path: &str, errors: &mut Errors) {
    if source.server.is_empty() {
        errors.required(&format!("{path}.server"), "");
    }
    let place = format!("{path}.path");
    if source.path.is_empty() {
        errors.required(&place, "");
    } else if !source.path.starts_with('/') {
        errors.invalid(&place, &source.path, "must be an absolute path");
    }
}

fn access_modes(modes: Option<&[String]>, path: &str, errors: &mut Errors) {
    let modes = modes.unwrap_or_default();
    if modes.is_empty() {
        errors.required(path, "at least 1 access mode is required");
    }
    for (index, mode) in modes.iter().enumerate() {
        errors.one_of(&format!("{path}[{index}]"), Some(mode), &ACCESS_MODES);
    }
    let is_of_one_pod = |mode: &String| mode == "ReadWriteOncePod";
    if modes.iter().any(is_of_one_pod) && !modes.iter().all(is_of_one_pod) {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// How much of it there is, or is asked for; nothing else can be counted.
fn storage(quantities: Option<&BTreeMap<String, Quantity>>, path: &str, errors: &mut Errors) {
    let Some(storage) = quantities.and_then(|quantities| quantities.get("storage")) else {
        return errors.required(&format!("{path}[storage]"), "");
    };
    let path_of = |name: &str| format!("{path}[{name}]");
    for name in quantities.into_iter().flatten().map(|(name, _)| name) {
        errors.one_of(&path_of(name), Some(name), &["storage"]);
    }
    match crate::quantity::parse(&storage.0) {
        Ok(value) if value.is_negative() || value.is_zero() => {
            errors.invalid(&path_of("storage"), &storage.0, "must be greater than zero");
        }
        Ok(_) => {}
        Err(error) => errors.invalid(&path_of("storage"), &storage.0, error.to_string()),
    }
}

fn class(class: Option<&str>, path: &str, errors: &mut Errors) {
    if let Some(class) = class.filter(|class| !class.is_empty()) {
        errors.check(
            &format!("{path}.storageClassName"),
            class,
            names::dns_subdomain(class),
        );
    }
}

pub(super) fn selector(selector: &LabelSelector, path: &str, errors: &mut Errors) {
    for (key, value) in selector.match_labels.iter().flatten() {
        let path = format!("{path}.matchLabels");
        errors.check(&path, key, names::qualified_name(key));
        errors.check(&path, value, names::label_value(value));
    }
    for (index, rule) in selector.match_expressions.iter().flatten().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        errors.check(
            &format!("{path}.key"),
            &rule.key,
            names::qualified_name(&rule.key),
        );
        let operators = ["DoesNotExist", "Exists", "In", "NotIn"];
        errors.one_of(&format!("{path}.operator"), Some(&rule.operator), &operators);
        for (index, value) in rule.values.iter().flatten().enumerate() {
            errors.check(
                &format!("{path}.values[{index}]"),
                value,
                names::label_value(value),
            );
        }
        let listed = matches!(rule.operator.as_str(), "In" | "NotIn");
        let unlisted = matches!(rule.operator.as_str(), "Exists" | "DoesNotExist");
        let empty = rule.values.as_ref().is_none_or(Vec::is_empty);
        if listed && empty {
            errors.required(
                &format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            );
        }
        if unlisted && !empty {
            errors.forbidden(
                &format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(spec: Value) -> Vec<String> {
        let claim = json!({"metadata": {"name": "c"}, "spec": spec});
        let errors = validate_claim(&serde_json::from_value(claim).unwrap());
        errors
            .iter()
            .map(|error| format!("{}: {error}", error.path))
            .collect()
    }

    fn volume(spec: Value) -> Vec<String> {
        let volume = json!({"metadata": {"name": "v"}, "spec": spec});
        let errors = validate_volume(&serde_json::from_value(volume).unwrap());
        errors
            .iter()
            .map(|error| format!("{}: {error}", error.path))
            .collect()
    }

    fn one_is(errors: &[String], needle: &str) {
        assert!(
            errors.iter().any(|error| error.contains(needle)),
            "{needle}: {errors:?}"
        );
    }

    #[test]
    fn rules_for_claims() {
        let requests = json!({"requests": {"storage": "1Gi"}});
        let good = json!({"accessModes": ["ReadWriteOnce"], "resources": requests});
        assert_eq!(claim(good), [""; 0]);
        let empty = claim(json!({}));
        one_is(
            &empty,
            "spec.accessModes: Required value: at least 1 access mode is required",
        );
        one_is(&empty, "spec.resources.requests[storage]: Required value");
        let bad = claim(json!({
            "accessModes": ["ReadWriteOncePod", "Often"],
            "resources": {"requests": {"storage": "0", "cpu": "1"}},
            "volumeMode": "Tape",
            "storageClassName": "Fast",
            "selector": {"matchExpressions": [{"key": "k", "operator": "In"}, {"key": "k", "operator": "Is"}]},
        }));
        for needle in [
            "spec.accessModes[1]: Unsupported value: \"Often\"",
            "may not use ReadWriteOncePod with other access modes",
            "must be greater than zero",
            "spec.resources.requests[cpu]: Unsupported",
            "spec.volumeMode: Unsupported",
            "spec.storageClassName: Invalid",
            "matchExpressions[0].values: Required",
            "matchExpressions[1].operator: Unsupported",
        ] {
            one_is(&bad, needle);
        }
    }

    #[test]
    fn rules_for_volumes() {
        let with = |source: Value| {
            let mut spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
            let fields = spec.as_object_mut().unwrap();
            fields.extend(source.as_object().unwrap().clone());
            volume(spec)
        };
        assert_eq!(with(json!({"hostPath": {"path": "/x"}})), [""; 0]);
        assert_eq!(
            with(json!({"nfs": {"server": "s", "path": "/x"}, "mountOptions": ["soft"]})),
            [""; 0]
        );
        for (source, needle) in [
            (json!({}), "must specify a volume type"),
            (
                json!({"hostPath": {"path": "/x"}, "nfs": {"server": "s", "path": "/"}}),
                "more than 1 volume type",
            ),
            (
                json!({"local": {"path": "/x"}}),
                "Local volume requires node affinity",
            ),
            (
                json!({"local": {"path": "x"}, "nodeAffinity": {}}),
                "must be an absolute path",
            ),
            (
                json!({"local": {"path": "/x/../y"}, "nodeAffinity": {}}),
                "must not contain '..'",
            ),
            (
                json!({"nfs": {"server": "", "path": "x"}}),
                "spec.nfs.server: Required",
            ),
            (
                json!({"hostPath": {"path": "/x"}, "volumeMode": "Block"}),
                "can be a block device",
            ),
            (
                json!({"hostPath": {"path": "/x"}, "mountOptions": ["ro"]}),
                "mounted with options",
            ),
            (
                json!({"hostPath": {"path": "/x"}, "claimRef": {"name": "c"}}),
                "spec.claimRef.namespace: Required",
            ),
        ] {
            one_is(&with(source), needle);
        }
    }
}
