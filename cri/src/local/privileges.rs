//! What a container may do: capability sets, devices, masked paths and the system call filter.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::engine::EngineError;
use crate::types::{ContainerSecurity, SeccompProfile};

/// What every container runtime of the field gives a container that asks for nothing.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// All capabilities of Linux 5.9 and newer, in the kernel's order.
const ALL_CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A container's capabilities: the defaults, more, less; or all that this machine lets the engine have.
fn capabilities(
    security: &ContainerSecurity,
    bounding: &BTreeSet<String>,
) -> Result<BTreeSet<String>, EngineError> {
    if security.privileged {
        return Ok(bounding.clone());
    }
    let named = |names: &[String]| {
        names
            .iter()
            .map(|name| canonical(name))
            .collect::<Result<Vec<_>, _>>()
    };
    let (add, drop) = (
        named(&security.add_capabilities)?,
        named(&security.drop_capabilities)?,
    );
    let mut set: BTreeSet<String> = DEFAULT_CAPABILITIES
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    // `ALL` comes before single names, so that `drop: [ALL], add: [CHOWN]` leaves CHOWN, whatever the order.
    if add.iter().any(|name| name == "ALL") {
        set.clone_from(bounding);
    }
    if drop.iter().any(|name| name == "ALL") {
        set.clear();
    }
    for name in add.into_iter().filter(|name| name != "ALL") {
        available(&name, bounding)?;
        set.insert(name);
    }
    for name in drop {
        set.remove(&name);
    }
    set.retain(|name| bounding.contains(name));
    Ok(set)
}

/// The capabilities in the engine's own bounding set: no container can have more.
pub(crate) fn bounding_set() -> io::Result<BTreeSet<String>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let mask = mask.ok_or_else(|| io::Error::other("/proc/self/status has no CapBnd"))?;
    let names = ALL_CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(bit, _)| mask >> bit & 1 == 1);
    Ok(names.map(|(_, name)| (*name).to_owned()).collect())
}

fn canonical(name: &str) -> Result<String, EngineError> {
    let upper = name.to_ascii_uppercase();
    if upper == "ALL" {
        return Ok(upper);
    }
    let full = if upper.starts_with("CAP_") {
        upper
    } else {
        format!("CAP_{upper}")
    };
    if ALL_CAPABILITIES.contains(&full.as_str()) {
        return Ok(full);
    }
    Err(EngineError::InvalidArgument(format!(
        "There is no capability {name:?}; capabilities(7) lists them."
    )))
}

/// Whether there is a capability of that name, with or without `CAP_`, or it stands for all of them.
#[must_use]
pub fn is_capability(name: &str) -> bool {
    canonical(name).is_ok()
}

/// The masked and the read-only paths of a container: those that are asked for, and none if it is privileged.
pub(crate) fn hidden_paths(security: &ContainerSecurity) -> (&[PathBuf], &[PathBuf]) {
    if security.privileged {
        return (&[], &[]);
    }
    (&security.masked_paths, &security.readonly_paths)
}

/// The capability sets of a container's first process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CapabilitySets {
    /// Bounding, effective and permitted.
    pub(crate) given: BTreeSet<String>,
    /// Inheritable and ambient: what a program keeps although its user is not root.
    pub(crate) ambient: BTreeSet<String>,
}

/// A container's capabilities. An ambient one has to be permitted, so it is also added to the others.
pub(crate) fn capability_sets(
    security: &ContainerSecurity,
    bounding: &BTreeSet<String>,
) -> Result<CapabilitySets, EngineError> {
    let mut given = capabilities(security, bounding)?;
    let mut ambient = BTreeSet::new();
    for name in &security.add_ambient_capabilities {
        match canonical(name)? {
            all if all == "ALL" => ambient.extend(bounding.iter().cloned()),
            name => {
                available(&name, bounding)?;
                ambient.insert(name);
            }
        }
    }
    given.extend(ambient.iter().cloned());
    Ok(CapabilitySets { given, ambient })
}

fn available(name: &str, bounding: &BTreeSet<String>) -> Result<(), EngineError> {
    if bounding.contains(name) {
        return Ok(());
    }
    Err(EngineError::InvalidArgument(format!(
        "The capability {name} can't be given to a container: this machine does not let berth have it."
    )))
}

/// The OCI `linux.seccomp` object of a container, if it has one. A privileged container has none, as upstream.
pub(crate) fn seccomp(
    security: &ContainerSecurity,
    capabilities: &BTreeSet<String>,
) -> Result<Option<Value>, EngineError> {
    match &security.seccomp {
        _ if security.privileged => Ok(None),
        SeccompProfile::Unconfined => Ok(None),
        SeccompProfile::RuntimeDefault => default_profile(capabilities).map(Some).map_err(|error| {
            EngineError::Internal(format!(
                "The default seccomp profile can't be written as JSON: {error}."
            ))
        }),
        SeccompProfile::Localhost(path) => read_profile(path).map(Some),
    }
}

/// What the default profile allows depends on the capabilities that the container could ever have.
fn default_profile(capabilities: &BTreeSet<String>) -> serde_json::Result<Value> {
    serde_json::to_value(berth_runtime::seccomp::default_profile(capabilities))
}

pub(crate) fn read_profile(path: &Path) -> Result<Value, EngineError> {
    let bytes = fs::read(path).map_err(|error| {
        EngineError::InvalidArgument(format!(
            "The seccomp profile {} can't be read: {error}.",
            path.display()
        ))
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        EngineError::InvalidArgument(format!(
            "The seccomp profile {} is not valid: {error}.",
            path.display()
        ))
    })
}

/// Device cgroup rules: nothing but what the runtime always allows, or everything.
pub(crate) fn device_rules(everything: bool) -> Vec<Value> {
    vec![json!({ "allow": everything, "access": "rwm" })]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_filter_knows_every_capability() {
        default_profile(&all()).unwrap();
    }

    fn all() -> BTreeSet<String> {
        ALL_CAPABILITIES.iter().map(|name| (*name).to_owned()).collect()
    }

    fn security(add: &[&str], drop: &[&str]) -> ContainerSecurity {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        ContainerSecurity {
            add_capabilities: owned(add),
            drop_capabilities: owned(drop),
            ..Default::default()
        }
    }

    #[test]
    fn names_are_added_and_dropped() {
        let count = |add, drop| capabilities(&security(add, drop), &all()).unwrap().len();
        assert_eq!(count(&[], &[]), 14);
        assert_eq!(count(&["NET_ADMIN"], &[]), 15);
        assert_eq!(count(&["cap_net_admin"], &["CHOWN"]), 14);
        assert_eq!(count(&["ALL"], &[]), 41);
        assert_eq!(count(&["ALL"], &["SYS_ADMIN"]), 40);
        assert_eq!(count(&[], &["ALL"]), 0);
        assert_eq!(count(&["CHOWN"], &["ALL"]), 1);
    }

    #[test]
    fn ambient_ones_are_permitted_too() {
        let security = ContainerSecurity {
            add_ambient_capabilities: vec!["NET_BIND_SERVICE".into(), "sys_time".into()],
            ..security(&[], &["ALL"])
        };
        let sets = capability_sets(&security, &all()).unwrap();
        let both = ["CAP_NET_BIND_SERVICE", "CAP_SYS_TIME"].map(str::to_owned);
        assert_eq!(sets.ambient, BTreeSet::from(both));
        assert_eq!(sets.given, sets.ambient);
        let mut bounding = all();
        bounding.remove("CAP_SYS_TIME");
        assert!(capability_sets(&security, &bounding).is_err());
    }

    #[test]
    fn unknown_and_unavailable_names_are_refused() {
        let mut bounding = all();
        bounding.remove("CAP_SYS_RESOURCE");
        for name in ["SYS_RESOURCE", "FLY"] {
            let error = capabilities(&security(&[name], &[]), &bounding)
                .unwrap_err()
                .to_string();
            assert!(error.contains(name), "{error}");
        }
        let privileged = ContainerSecurity {
            privileged: true,
            ..Default::default()
        };
        assert_eq!(capabilities(&privileged, &bounding).unwrap(), bounding);
    }
}
