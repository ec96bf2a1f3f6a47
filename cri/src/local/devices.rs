//! Host devices in a container.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{major, minor};
use serde_json::{Value, json};

use crate::engine::EngineError;
use crate::types::ContainerConfig;

/// The runtime makes these itself, or mounts something else there.
const RUNTIMES_OWN: [&str; 14] = [
    "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
    "stdout", "tty",
];
/// Also the runtime's own.
const RUNTIMES_OWN_TOO: [&str; 2] = ["urandom", "zero"];

/// The OCI `linux.devices` of a container: those asked for, and every one of the host's if it is privileged.
pub(super) fn of(config: &ContainerConfig) -> Result<Vec<Value>, EngineError> {
    let mut devices = Vec::new();
    if config.security.privileged {
        collect(Path::new("/dev"), &mut devices).map_err(|error| {
            EngineError::Internal(format!("The host's devices can't be listed: {error}."))
        })?;
    }
    for device in &config.devices {
        let found = describe(&device.host_path, &device.container_path).ok().flatten();
        devices.push(found.ok_or_else(|| {
            EngineError::InvalidArgument(format!(
                "{} is not a device of this host.",
                device.host_path.display()
            ))
        })?);
    }
    Ok(devices)
}

fn collect(directory: &Path, devices: &mut Vec<Value>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let own = |names: &[&str]| names.iter().any(|own| name == **own);
        if own(&RUNTIMES_OWN) || own(&RUNTIMES_OWN_TOO) {
            continue;
        }
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, devices)?;
        } else if let Ok(Some(device)) = describe(&path, &path) {
            // A device that vanished meanwhile is none of the host's.
            devices.push(device);
        }
    }
    Ok(())
}

/// `None` for what is not a device. Links are not followed: the device has its own entry.
fn describe(host: &Path, container: &Path) -> io::Result<Option<Value>> {
    let metadata = fs::symlink_metadata(host)?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return Ok(None),
    };
    Ok(Some(json!({
        "path": container,
        "type": kind,
        "major": major(metadata.rdev()),
        "minor": minor(metadata.rdev()),
        "fileMode": metadata.mode() & 0o7777,
        "uid": metadata.uid(),
        "gid": metadata.gid(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ContainerSecurity, Device};

    #[test]
    fn a_device_is_described_by_its_numbers() {
        let null = Device {
            container_path: "/dev/n".into(),
            host_path: "/dev/null".into(),
            permissions: "rwm".into(),
        };
        let config = ContainerConfig {
            devices: vec![null],
            ..Default::default()
        };
        let devices = of(&config).unwrap();
        assert_eq!(
            (&devices[0]["path"], &devices[0]["major"], &devices[0]["minor"]),
            (&json!("/dev/n"), &json!(1), &json!(3))
        );
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let file = Device {
            container_path: "/x".into(),
            host_path: "/etc/hostname".into(),
            permissions: "r".into(),
        };
        let config = ContainerConfig {
            devices: vec![file],
            ..Default::default()
        };
        assert!(of(&config).unwrap_err().to_string().contains("/etc/hostname"));
    }

    #[test]
    fn a_privileged_container_sees_the_hosts_devices_but_not_the_runtimes() {
        let security = ContainerSecurity {
            privileged: true,
            ..Default::default()
        };
        let devices = of(&ContainerConfig {
            security,
            ..Default::default()
        })
        .unwrap();
        assert!(!devices.iter().any(|device| device["path"] == "/dev/null"));
        assert!(
            !devices
                .iter()
                .any(|device| device["path"].as_str().unwrap().starts_with("/dev/pts/"))
        );
    }
}
