//! Host devices in a container.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{major, minor};
use serde_json::{Value, json};

use crate::engine::EngineError;
use crate::types::{ContainerConfig, Device};

/// The runtime makes these itself, or mounts something else there.
const RUNTIMES_OWN: [&str; 16] = [
    "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
    "stdout", "tty", "urandom", "zero",
];
/// Parts of a directory that are no devices of its own, as in containerd.
const NO_DEVICES: [&str; 8] = [
    "pts",
    "shm",
    "fd",
    "mqueue",
    ".lxc",
    ".lxd-mounts",
    ".udev",
    "console",
];

/// What a container has of the host's devices.
#[derive(Debug, Default)]
pub(super) struct Devices {
    /// OCI's `linux.devices`.
    pub(super) nodes: Vec<Value>,
    /// What it may do with them: entries for `linux.resources.devices`.
    pub(super) rules: Vec<Value>,
    /// It may do anything with any device.
    pub(super) everything: bool,
}

/// What privileged containers get of the host's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privileged {
    /// All of them.
    Everything,
    /// None, but they may make and use any.
    Allowed,
    /// None.
    Nothing,
}

impl Devices {
    /// A later node takes the place of an earlier one.
    fn add(&mut self, node: Value, permissions: &str) {
        let mut rule = json!({ "allow": true, "access": permissions });
        for name in ["type", "major", "minor"] {
            rule[name] = node[name].clone();
        }
        self.nodes.retain(|known| known["path"] != node["path"]);
        self.nodes.push(node);
        self.rules.push(rule);
    }
}

/// The devices that a container asks for, and every one of the host's if it is privileged and its runtime handler wants
/// that.
pub(super) fn of(config: &ContainerConfig, privileged: Privileged) -> Result<Devices, EngineError> {
    let mut devices = Devices {
        everything: config.security.privileged && privileged != Privileged::Nothing,
        ..Devices::default()
    };
    if config.security.privileged && privileged == Privileged::Everything {
        collect(
            Path::new("/dev"),
            Path::new("/dev"),
            &RUNTIMES_OWN,
            &mut devices.nodes,
        )
        .map_err(|error| EngineError::Internal(format!("The host's devices can't be listed: {error}.")))?;
    }
    for device in &config.devices {
        add(device, &mut devices)?;
    }
    Ok(devices)
}

/// A device, or all of a directory. Links are followed: what is asked for by name is what the name leads to.
fn add(device: &Device, devices: &mut Devices) -> Result<(), EngineError> {
    let refused =
        |reason: &str| EngineError::InvalidArgument(format!("{} {reason}.", device.host_path.display()));
    let permissions = match device.permissions.as_str() {
        "" => "rwm",
        some if some.bytes().all(|b| b"rwm".contains(&b)) => some,
        _ => {
            return Err(refused(&format!(
                "can't have the permissions {:?}: they are made of r, w and m",
                device.permissions
            )));
        }
    };
    if device.container_path.as_os_str().is_empty() {
        return Err(refused("lacks its path in the container"));
    }
    let host = fs::canonicalize(&device.host_path).map_err(|_| refused("is not a device of this host"))?;
    if host.is_dir() {
        let mut found = Vec::new();
        collect(&host, &device.container_path, &NO_DEVICES, &mut found)
            .map_err(|error| refused(&format!("can't be listed: {error}")))?;
        if found.is_empty() {
            return Err(refused("is a directory without devices"));
        }
        found.into_iter().for_each(|node| devices.add(node, permissions));
        return Ok(());
    }
    let node = describe(&host, &device.container_path).ok().flatten();
    devices.add(
        node.ok_or_else(|| refused("is not a device of this host"))?,
        permissions,
    );
    Ok(())
}

/// All devices in a directory, but for those of some names; they have the same places below `container`.
fn collect(host: &Path, container: &Path, except: &[&str], found: &mut Vec<Value>) -> io::Result<()> {
    for entry in fs::read_dir(host)? {
        let entry = entry?;
        let name = entry.file_name();
        if except.iter().any(|own| name == **own) {
            continue;
        }
        let (path, container) = (entry.path(), container.join(&name));
        if entry.file_type()?.is_dir() {
            collect(&path, &container, except, found)?;
        } else if let Ok(Some(device)) = describe(&path, &container) {
            // A device that vanished meanwhile is none of the host's.
            found.push(device);
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

    fn of(config: &ContainerConfig) -> Result<Devices, EngineError> {
        super::of(config, Privileged::Everything)
    }
    use crate::types::ContainerSecurity;

    fn asking(host_path: &str, permissions: &str) -> ContainerConfig {
        ContainerConfig {
            devices: vec![Device {
                container_path: "/dev/n".into(),
                host_path: host_path.into(),
                permissions: permissions.into(),
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_device_is_described_by_its_numbers() {
        let devices = of(&asking("/dev/null", "rw")).unwrap();
        let node = &devices.nodes[0];
        assert_eq!(
            (&node["path"], &node["major"], &node["minor"]),
            (&json!("/dev/n"), &json!(1), &json!(3))
        );
        let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw" });
        assert_eq!(devices.rules, [rule]);
        assert_eq!(of(&asking("/dev/null", "")).unwrap().rules[0]["access"], "rwm");
    }

    #[test]
    fn links_and_directories_lead_to_devices() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let devices = of(&asking(&link.display().to_string(), "r")).unwrap();
        assert_eq!(devices.nodes[0]["minor"], 3);
        let devices = of(&asking("/dev", "r")).unwrap();
        let paths: Vec<_> = devices
            .nodes
            .iter()
            .map(|node| node["path"].as_str().unwrap())
            .collect();
        assert!(
            paths.contains(&"/dev/n/null") && !paths.contains(&"/dev/n/console"),
            "{paths:?}"
        );
        assert_eq!(devices.nodes.len(), devices.rules.len());
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().display().to_string();
        for (path, permissions, reason) in [
            ("/etc/hostname", "r", "not a device"),
            ("/dev/no-such-device", "r", "not a device"),
            ("/dev/null", "rx", "permissions"),
            (empty.as_str(), "r", "without devices"),
        ] {
            let error = of(&asking(path, permissions)).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(path), "{error}");
        }
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
        assert!(!devices.nodes.iter().any(|device| device["path"] == "/dev/null"));
        assert!(
            !devices
                .nodes
                .iter()
                .any(|device| device["path"].as_str().unwrap().starts_with("/dev/pts/"))
        );
    }
}
