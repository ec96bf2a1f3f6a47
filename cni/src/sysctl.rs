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
