//! Names, labels and annotations of any object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Errors, FieldError, names};

/// Bytes of all annotations of an object (TotalAnnotationSizeLimitB).
const TOTAL_ANNOTATION_SIZE: usize = 256 * 1024;

/// The rules for an object's metadata.
pub fn validate_object_meta(metadata: &ObjectMeta) -> Vec<FieldError> {
    let mut errors = Errors::default();
    match metadata.name.as_deref().filter(|name| !name.is_empty()) {
        None => errors.required("metadata.name", "name or generateName is required"),
        Some(name) => errors.check("metadata.name", name, names::dns_subdomain(name)),
    }
    if let Some(namespace) = metadata
        .namespace
        .as_deref()
        .filter(|namespace| !namespace.is_empty())
    {
        errors.check("metadata.namespace", namespace, names::dns_label(namespace));
    }
    labels(metadata, "metadata", &mut errors);
    if let Some(uid) = metadata.uid.as_deref() {
        // It becomes a part of paths.
        let fits =
            (1..=63).contains(&uid.len()) && uid.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        let why = "must consist of at most 63 alphanumeric characters or '-'";
        errors.check("metadata.uid", uid, (!fits).then_some(why));
    }
    errors.0
}

/// The rules for labels and annotations.
pub(super) fn labels(metadata: &ObjectMeta, path: &str, errors: &mut Errors) {
    let path_of_labels = format!("{path}.labels");
    for (key, value) in metadata.labels.iter().flatten() {
        errors.check(&path_of_labels, key, names::qualified_name(key));
        errors.check(&path_of_labels, value, names::label_value(value));
    }
    let path = format!("{path}.annotations");
    let mut size = 0;
    for (key, value) in metadata.annotations.iter().flatten() {
        errors.check(&path, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.len();
    }
    if size > TOTAL_ANNOTATION_SIZE {
        let why = format!("Too long: may not be more than {TOTAL_ANNOTATION_SIZE} bytes");
        errors.invalid(&path, "", why);
    }
}

/// The rule for a key of a ConfigMap or Secret.
pub fn validate_data_key(path: &str, key: &str) -> Vec<FieldError> {
    let mut errors = Errors::default();
    errors.check(path, key, names::data_key(key));
    errors.0
}
