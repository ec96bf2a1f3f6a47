//! The rules for a container's environment.

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, EnvVarSource, FileKeySelector, ObjectFieldSelector,
    ResourceFieldSelector,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::container::Place;
use super::{Errors, names};
use crate::env::subscript;
use crate::quantity::{Form, Value};

/// Fields that an environment variable may refer to.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Resources that may be referred to.
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// What bytes may be counted in.
const BYTES: [&str; 13] = [
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

pub(super) fn environment(container: &Container, place: &Place<'_>, errors: &mut Errors) {
    for (index, variable) in container.env.iter().flatten().enumerate() {
        env_var(variable, &format!("{}.env[{index}]", place.path), place, errors);
    }
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        env_from(source, &format!("{}.envFrom[{index}]", place.path), errors);
    }
}

fn env_var(variable: &EnvVar, path: &str, place: &Place<'_>, errors: &mut Errors) {
    if variable.name.is_empty() {
        errors.required(&format!("{path}.name"), "");
    } else {
        errors.check(
            &format!("{path}.name"),
            &variable.name,
            names::env_name(&variable.name),
        );
    }
    let Some(from) = &variable.value_from else { return };
    let path = format!("{path}.valueFrom");
    if variable.value.as_deref().is_some_and(|value| !value.is_empty()) {
        errors.invalid(&path, "", "may not be specified when `value` is not empty");
    }
    let sources = usize::from(from.field_ref.is_some())
        + usize::from(from.resource_field_ref.is_some())
        + usize::from(from.config_map_key_ref.is_some())
        + usize::from(from.secret_key_ref.is_some())
        + usize::from(from.file_key_ref.is_some());
    match sources {
        1 => value_from(from, &path, place, errors),
        0 => errors.invalid(
            &path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ => errors.invalid(&path, "", "may not have more than one field specified at a time"),
    }
}

fn value_from(from: &EnvVarSource, path: &str, place: &Place<'_>, errors: &mut Errors) {
    if let Some(selector) = &from.file_key_ref {
        file_key(selector, &format!("{path}.fileKeyRef"), place, errors);
    }
    if let Some(field) = &from.field_ref {
        field_path(field, &format!("{path}.fieldRef.fieldPath"), &FIELDS, errors);
    }
    if let Some(field) = &from.resource_field_ref {
        resource_field(field, &format!("{path}.resourceFieldRef"), errors);
    }
    if let Some(selector) = &from.config_map_key_ref {
        key_selector(
            &selector.name,
            &selector.key,
            &format!("{path}.configMapKeyRef"),
            errors,
        );
    }
    if let Some(selector) = &from.secret_key_ref {
        key_selector(
            &selector.name,
            &selector.key,
            &format!("{path}.secretKeyRef"),
            errors,
        );
    }
}

/// A field that may be referred to, or a label or annotation.
pub(super) fn field_path(
    selector: &ObjectFieldSelector,
    path: &str,
    known: &[&'static str],
    errors: &mut Errors,
) {
    let field = selector.field_path.as_str();
    if let Some(version) = selector
        .api_version
        .as_deref()
        .filter(|version| !matches!(*version, "" | "v1"))
    {
        let why = format!("error converting fieldPath: unsupported pod version: {version}");
        return errors.invalid(path, field, why);
    }
    match subscript(field) {
        _ if field.is_empty() => errors.required(path, ""),
        Some(("metadata.labels", key)) => errors.check(path, field, names::qualified_name(key)),
        Some(("metadata.annotations", key)) => {
            errors.check(path, field, names::qualified_name(&key.to_lowercase()))
        }
        Some(_) => errors.invalid(path, field, "does not support subscript"),
        None => errors.one_of(path, Some(field), known),
    }
}

pub(super) fn resource_field(field: &ResourceFieldSelector, path: &str, errors: &mut Errors) {
    let resource_path = format!("{path}.resource");
    let huge = ["limits.hugepages-", "requests.hugepages-"];
    if field.resource.is_empty() {
        errors.required(&resource_path, "");
    } else if !huge.iter().any(|prefix| field.resource.starts_with(prefix)) {
        errors.one_of(&resource_path, Some(&field.resource), &RESOURCES);
    }
    if let Some(Quantity(divisor)) = &field.divisor {
        let path = format!("{path}.divisor");
        match crate::quantity::parse(divisor) {
            Err(error) => errors.invalid(&path, divisor, error.to_string()),
            Ok(value) => errors.check(&path, divisor, divisor_problem(&field.resource, divisor, value)),
        }
    }
}

/// A resource is counted in units that it is written in.
fn divisor_problem(resource: &str, text: &str, value: Value) -> Option<&'static str> {
    let shown = value.show(Form::of(text));
    let known: &[&str] = match resource.split_once('.') {
        _ if value.is_zero() => return None,
        Some((_, "cpu")) => &["1", "1m"],
        Some((_, "memory" | "ephemeral-storage")) => &BYTES,
        Some((_, other)) if other.starts_with("hugepages-") => &BYTES,
        _ => return None,
    };
    let why = if known.len() == 2 {
        "only divisor's values 1m and 1 are supported with the cpu resource"
    } else {
        "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with this resource"
    };
    (!known.contains(&shown.as_str())).then_some(why)
}

fn file_key(selector: &FileKeySelector, path: &str, place: &Place<'_>, errors: &mut Errors) {
    let FileKeySelector {
        key,
        path: file,
        volume_name,
        ..
    } = selector;
    if key.is_empty() {
        errors.required(&format!("{path}.key"), "");
    } else {
        errors.check(&format!("{path}.key"), key, names::env_name(key));
    }
    if file.is_empty() {
        errors.required(&format!("{path}.path"), "");
    } else {
        errors.check(&format!("{path}.path"), file, names::local_path(file));
    }
    let path = format!("{path}.volumeName");
    let mut volumes = place.spec.volumes.iter().flatten();
    match volumes.find(|volume| volume.name == *volume_name) {
        _ if volume_name.is_empty() => errors.required(&path, ""),
        None => errors.not_found(&path, volume_name),
        Some(volume) if volume.empty_dir.is_none() => {
            errors.invalid(&path, volume_name, "referenced volume must be of type emptyDir");
        }
        Some(_) => {}
    }
}

fn key_selector(name: &str, key: &str, path: &str, errors: &mut Errors) {
    object_name(name, &format!("{path}.name"), errors);
    if key.is_empty() {
        errors.required(&format!("{path}.key"), "");
    } else {
        errors.check(&format!("{path}.key"), key, names::data_key(key));
    }
}

fn env_from(source: &EnvFromSource, path: &str, errors: &mut Errors) {
    if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        errors.check(&format!("{path}.prefix"), prefix, names::env_name(prefix));
    }
    match (&source.config_map_ref, &source.secret_ref) {
        (None, None) => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
        (Some(_), Some(_)) => {
            errors.invalid(path, "", "may not have more than one field specified at a time")
        }
        (Some(map), None) => object_name(&map.name, &format!("{path}.configMapRef.name"), errors),
        (None, Some(secret)) => object_name(&secret.name, &format!("{path}.secretRef.name"), errors),
    }
}

/// The name of a ConfigMap or Secret.
fn object_name(name: &str, path: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
    } else {
        errors.check(path, name, names::dns_subdomain(name));
    }
}
