//! ConfigMaps and Secrets of manifests.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::loader::{Loader, Place};
use super::tree::{Node, Value};
use crate::defaults::{DEFAULT_NAMESPACE, MAX_SECRET_SIZE};
use crate::validation::{self, FieldError};

/// The object with that field's base64 on one line. Go's decoder leaves ends of lines out, so people paste what `base64`
/// prints.
fn without_line_ends(object: &Node, field: &str) -> Node {
    let mut object = object.clone();
    let Value::Map(all) = &mut object.value else {
        return object;
    };
    for (_, field) in all.iter_mut().filter(|(key, _)| key.name == field) {
        let Value::Map(values) = &mut field.value else {
            continue;
        };
        for (_, value) in values {
            if let Value::Scalar(text, _) = &mut value.value {
                text.retain(|character| !matches!(character, '\n' | '\r'));
            }
        }
    }
    object
}

impl Loader<'_> {
    pub(super) fn config_map(&mut self, place: Place<'_>) {
        let node = without_line_ends(place.node, "binaryData");
        let place = Place { node: &node, ..place };
        let Some(mut map) = self.decode::<ConfigMap>(place) else {
            return;
        };
        let text = map
            .data
            .iter()
            .flatten()
            .map(|(key, value)| ("data", key.as_str(), value.len()));
        let bytes = map
            .binary_data
            .iter()
            .flatten()
            .map(|(key, value)| ("binaryData", key.as_str(), value.0.len()));
        let entries: Vec<_> = text.chain(bytes).collect();
        let own = validation::validate_config_map(&map);
        self.check(place, "ConfigMap", (&map.metadata, own), &entries);
        if let Some(key) = self.add_name(&mut map.metadata) {
            self.manifest.objects.config_maps.insert(key, map);
        }
    }

    pub(super) fn secret(&mut self, place: Place<'_>) {
        let node = without_line_ends(place.node, "data");
        let place = Place { node: &node, ..place };
        let Some(mut secret) = self.decode::<Secret>(place) else {
            return;
        };
        // As the API server does, stringData goes over data.
        for (key, value) in secret.string_data.take().into_iter().flatten() {
            secret
                .data
                .get_or_insert_default()
                .insert(key, ByteString(value.into_bytes()));
        }
        if secret.type_.as_deref().is_none_or(str::is_empty) {
            secret.type_ = Some("Opaque".to_owned());
        }
        let data = secret
            .data
            .iter()
            .flatten()
            .map(|(key, value)| ("data", key.as_str(), value.0.len()));
        let entries: Vec<_> = data.collect();
        let own = validation::validate_secret(&secret);
        self.check(place, "Secret", (&secret.metadata, own), &entries);
        if let Some(key) = self.add_name(&mut secret.metadata) {
            self.manifest.objects.secrets.insert(key, secret);
        }
    }

    /// Names of the object and its keys, its size, and what else was found.
    fn check(
        &mut self,
        place: Place<'_>,
        kind: &str,
        (metadata, own): (&ObjectMeta, Vec<FieldError>),
        entries: &[(&str, &str, usize)],
    ) {
        let mut errors = validation::validate_object_meta(metadata);
        errors.extend(own);
        for (field, key, _) in entries {
            errors.extend(validation::validate_data_key(&format!("{field}[{key}]"), key));
        }
        for error in errors {
            let line = place.node.line_of(&error.path);
            self.errors
                .push(place.diagnostic(line, &error.path, error.to_string()));
        }
        let size: usize = entries.iter().map(|(_, _, size)| size).sum();
        if size > MAX_SECRET_SIZE {
            let message = format!("Too long: may not be more than {MAX_SECRET_SIZE} bytes");
            self.errors
                .push(place.diagnostic(place.node.line_of("data"), "data", message));
        }
        self.note_name(
            place,
            kind,
            metadata.namespace.as_deref(),
            metadata.name.as_deref(),
        );
    }

    fn add_name(&self, metadata: &mut ObjectMeta) -> Option<(String, String)> {
        let given = metadata
            .namespace
            .take()
            .filter(|namespace| !namespace.is_empty());
        let namespace = given.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        metadata.namespace = Some(namespace.clone());
        Some((namespace, metadata.name.clone()?))
    }
}
