//! The Container Device Interface: files that say what of a container makes a vendor's device usable in it.
//!
//! A device is named `vendor/class=name`. Each file describes devices of one `vendor/class`; of files in several
//! directories the later directory's wins. Specification: <https://github.com/cncf-tags/container-device-interface>,
//! versions 0.3 to 1.1.

mod edits;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod name;
mod registry;
mod schema;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::engine::EngineError;

/// What begins the keys of annotations that ask for devices.
const ANNOTATION: &str = "cdi.k8s.io/";

/// The devices that a container asks for, by its field and by its annotations, each once.
pub(crate) fn asked_for(
    field: &[String],
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<String>, EngineError> {
    let annotated = annotations
        .iter()
        .filter(|(key, _)| key.starts_with(ANNOTATION))
        .flat_map(|(_, value)| value.split(','));
    let mut devices: Vec<String> = Vec::new();
    for device in field.iter().map(String::as_str).chain(annotated) {
        name::check_qualified(device).map_err(EngineError::InvalidArgument)?;
        if !devices.iter().any(|known| known == device) {
            devices.push(device.to_owned());
        }
    }
    Ok(devices)
}

/// Changes an OCI configuration so that the container can use the devices, as the files in the directories say.
pub(crate) fn inject(
    spec: &mut Value,
    devices: &[String],
    directories: &[PathBuf],
) -> Result<(), EngineError> {
    if devices.is_empty() {
        return Ok(());
    }
    let registry = registry::Registry::read(directories);
    for edits in registry.edits(devices).map_err(EngineError::InvalidArgument)? {
        edits::apply(edits, spec).map_err(EngineError::InvalidArgument)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_asked_for_by_field_and_annotation() {
        let annotations = BTreeMap::from([
            ("cdi.k8s.io/a".to_owned(), "v.com/c=1,v.com/c=2".to_owned()),
            ("other".to_owned(), "nonsense".to_owned()),
        ]);
        let field = ["v.com/c=2".to_owned(), "v.com/c=3".to_owned()];
        let devices = asked_for(&field, &annotations).unwrap();
        assert_eq!(devices, ["v.com/c=2", "v.com/c=3", "v.com/c=1"]);
        let error = asked_for(&["gpu0".to_owned()], &annotations)
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"gpu0\""), "{error}");
    }
}
