//! What a file says, as the specification has it.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::name;

/// The versions whose fields are known.
const VERSIONS: [&str; 8] = [
    "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0",
];
/// When a hook can run.
const HOOKS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Specification {
    pub(super) cdi_version: String,
    pub(super) kind: String,
    /// For people and their tools; they change nothing in a container.
    #[serde(default, rename = "annotations")]
    _annotations: Option<BTreeMap<String, String>>,
    pub(super) devices: Vec<Device>,
    #[serde(default)]
    pub(super) container_edits: Edits,
}

/// A device in a file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    #[serde(deserialize_with = "text")]
    pub(super) name: String,
    /// For people and their tools; they change nothing in a container.
    #[serde(default, rename = "annotations")]
    _annotations: Option<BTreeMap<String, String>>,
    pub(super) container_edits: Edits,
}

/// Devices have numbers for names, and vendors forget YAML's quotes.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(D::Error::custom(format!("{other} is no name"))),
    }
}

/// What changes in a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<DeviceNode>,
    pub(super) net_devices: Vec<NetDevice>,
    pub(super) hooks: Vec<Hook>,
    pub(super) mounts: Vec<Mount>,
    pub(super) intel_rdt: Option<IntelRdt>,
    pub(super) additional_gids: Vec<u32>,
}

/// A device node. What is not said is as it is on the host.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeviceNode {
    pub(super) path: String,
    #[serde(default)]
    pub(super) host_path: String,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) major: u32,
    #[serde(default)]
    pub(super) minor: u32,
    #[serde(default)]
    pub(super) file_mode: Option<u32>,
    #[serde(default)]
    pub(super) permissions: String,
    #[serde(default)]
    pub(super) uid: Option<u32>,
    #[serde(default)]
    pub(super) gid: Option<u32>,
}

/// A network device that the container gets.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NetDevice {
    pub(super) host_interface_name: String,
    pub(super) name: String,
}

/// A program that runs at a step of the container's life.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Hook {
    pub(super) hook_name: String,
    pub(super) path: String,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<String>,
    #[serde(default)]
    pub(super) timeout: Option<i64>,
}

/// A mount, in OCI's words.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(default)]
    pub(super) options: Vec<String>,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
}

/// Cache and memory bandwidth, in OCI's words.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct IntelRdt {
    #[serde(default, rename = "closID")]
    pub(super) clos_id: String,
    #[serde(default)]
    pub(super) l3_cache_schema: String,
    #[serde(default)]
    pub(super) mem_bw_schema: String,
    #[serde(default)]
    pub(super) schemata: Vec<String>,
    #[serde(default)]
    pub(super) enable_monitoring: bool,
}

impl Specification {
    /// Refuses what the specification does.
    pub(super) fn check(&self) -> Result<(), String> {
        let version = self.cdi_version.strip_prefix('v').unwrap_or(&self.cdi_version);
        if !VERSIONS.contains(&version) {
            return Err(format!(
                "its cdiVersion {:?} is not known; {} are",
                self.cdi_version,
                VERSIONS.join(", ")
            ));
        }
        name::check_kind(&self.kind)?;
        if self.devices.is_empty() {
            return Err("it has no devices".to_owned());
        }
        self.container_edits.check()?;
        let mut names = BTreeSet::new();
        for device in &self.devices {
            if !name::is_name(&device.name) {
                return Err(format!("{:?} can't be the name of a device", device.name));
            }
            if !names.insert(&device.name) {
                return Err(format!("it has the device {:?} twice", device.name));
            }
            if device.container_edits.is_empty() {
                return Err(format!("the device {:?} changes nothing", device.name));
            }
            device
                .container_edits
                .check()
                .map_err(|reason| format!("the device {:?}: {reason}", device.name))?;
        }
        Ok(())
    }
}

impl Edits {
    fn is_empty(&self) -> bool {
        self.env.is_empty()
            && self.device_nodes.is_empty()
            && self.net_devices.is_empty()
            && self.hooks.is_empty()
            && self.mounts.is_empty()
            && self.intel_rdt.is_none()
            && self.additional_gids.is_empty()
    }

    fn check(&self) -> Result<(), String> {
        check_env(&self.env)?;
        self.device_nodes.iter().try_for_each(DeviceNode::check)?;
        for hook in &self.hooks {
            if !HOOKS.contains(&hook.hook_name.as_str()) {
                return Err(format!("there is no hook {:?}", hook.hook_name));
            }
            if hook.path.is_empty() {
                return Err(format!("the hook {} lacks its path", hook.hook_name));
            }
            check_env(&hook.env)?;
        }
        for mount in &self.mounts {
            if mount.host_path.is_empty() || mount.container_path.is_empty() {
                return Err("a mount lacks its hostPath or its containerPath".to_owned());
            }
        }
        let mut hosts = BTreeSet::new();
        let mut inside = BTreeSet::new();
        for device in &self.net_devices {
            if device.host_interface_name.is_empty() || device.name.is_empty() {
                return Err("a net device lacks its hostInterfaceName or its name".to_owned());
            }
            if !hosts.insert(&device.host_interface_name) || !inside.insert(&device.name) {
                return Err(format!("the net device {:?} is there twice", device.name));
            }
        }
        Ok(())
    }
}

fn check_env(env: &[String]) -> Result<(), String> {
    match env
        .iter()
        .find(|variable| !matches!(variable.find('='), Some(1..)))
    {
        Some(bad) => Err(format!("{bad:?} is not a variable, as in NAME=value")),
        None => Ok(()),
    }
}

impl DeviceNode {
    fn check(&self) -> Result<(), String> {
        if self.path.is_empty() {
            return Err("a device node lacks its path".to_owned());
        }
        if !["", "b", "c", "u", "p"].contains(&self.kind.as_str()) {
            return Err(format!("{} can't be of the type {:?}", self.path, self.kind));
        }
        let known = self.permissions == "none" || self.permissions.bytes().all(|b| b"rwm".contains(&b));
        match known {
            true => Ok(()),
            false => Err(format!(
                "{} can't have the permissions {:?}",
                self.path, self.permissions
            )),
        }
    }
}
