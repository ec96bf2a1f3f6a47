//! The rules for `volumeDevices`: volumes that are block devices in a container.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, VolumeDevice, VolumeMount};

use super::Errors;
use super::container::Place;

/// Checks a container's devices, and that no mount has the volume or the path of one.
pub(super) fn volume_devices(container: &Container, place: &Place<'_>, errors: &mut Errors) {
    let devices = container.volume_devices.as_deref().unwrap_or_default();
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in devices.iter().enumerate() {
        let path = place.field(&format!("volumeDevices[{index}]"));
        name(device, mounts, place, &format!("{path}.name"), errors);
        if !device.name.is_empty() && !names.insert(device.name.as_str()) {
            errors.invalid(&format!("{path}.name"), &device.name, "must be unique");
        }
        device_path(device, mounts, &format!("{path}.devicePath"), errors);
        if !device.device_path.is_empty() && !paths.insert(device.device_path.as_str()) {
            errors.invalid(
                &format!("{path}.devicePath"),
                &device.device_path,
                "must be unique",
            );
        }
    }
    for (index, mount) in mounts.iter().enumerate() {
        let path = place.field(&format!("volumeMounts[{index}]"));
        if names.contains(mount.name.as_str()) {
            let why = "must not already exist in volumeDevices";
            errors.invalid(&format!("{path}.name"), &mount.name, why);
        }
        if paths.contains(mount.mount_path.as_str()) {
            let why = "must not already exist as a path in volumeDevices";
            errors.invalid(&format!("{path}.mountPath"), &mount.mount_path, why);
        }
    }
}

fn name(device: &VolumeDevice, mounts: &[VolumeMount], place: &Place<'_>, path: &str, errors: &mut Errors) {
    if device.name.is_empty() {
        return errors.required(path, "");
    }
    let mut volumes = place.spec.volumes.iter().flatten();
    match volumes.find(|volume| volume.name == device.name) {
        None => errors.not_found(path, &device.name),
        Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
            let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            errors.invalid(path, &device.name, why);
        }
        Some(_) => {}
    }
    if mounts.iter().any(|mount| mount.name == device.name) {
        errors.invalid(path, &device.name, "must not already exist in volumeMounts");
    }
}

fn device_path(device: &VolumeDevice, mounts: &[VolumeMount], path: &str, errors: &mut Errors) {
    let place = device.device_path.as_str();
    if place.is_empty() {
        return errors.required(path, "");
    }
    if place.split('/').any(|part| part == "..") {
        errors.invalid(path, place, "can not contain backsteps ('..')");
    }
    if mounts.iter().any(|mount| mount.mount_path == place) {
        errors.invalid(path, place, "must not already exist as a path in volumeMounts");
    }
}
