//! Kernel parameters below `net.` of the calling thread's network namespace.

use std::fs;
use std::path::Path;

use crate::result::{PluginError, code};

/// Sets a parameter unless it has the value already, so that a read-only `/proc/sys` does when nothing is to change.
/// `key` is a path below `/proc/sys/net`.
pub(crate) fn set(key: &str, value: &str) -> Result<(), PluginError> {
    let path = Path::new("/proc/sys/net").join(key);
    let current = fs::read_to_string(&path).unwrap_or_default();
    if current.trim() == value {
        return Ok(());
    }
    fs::write(&path, value).map_err(|e| {
        PluginError::new(
            code::KERNEL,
            format!(
                "can't set {} to {value}: {e}; pods need it for their way out of the node",
                path.display()
            ),
        )
    })
}

/// Sets a parameter where the kernel has it.
pub(crate) fn set_if_present(key: &str, value: &str) -> Result<(), PluginError> {
    match Path::new("/proc/sys/net").join(key).exists() {
        true => set(key, value),
        false => Ok(()),
    }
}

/// Lets the host forward IPv6. A host that forwards no longer heeds router advertisements, and would lose its default
/// route some time later; where it heeded them so far, it is told to go on.
pub(crate) fn forward_ipv6() -> Result<(), PluginError> {
    let root = Path::new("/proc/sys/net/ipv6/conf");
    let is = |path: &Path, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is(&root.join("all/forwarding"), "1") {
        return Ok(());
    }
    for interface in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = interface.file_name();
        let path = interface.path().join("accept_ra");
        if name != "all" && name != "default" && name != "lo" && is(&path, "1") {
            set(&format!("ipv6/conf/{}/accept_ra", name.to_string_lossy()), "2")?;
        }
    }
    set("ipv6/conf/all/forwarding", "1")
}
