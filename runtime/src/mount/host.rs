//! File systems of the kernel that a user namespace may not mount: the host's are shown instead.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::CWD;

use super::attach::{set_attributes, set_propagation};
use super::options::{Options, Propagation};
use super::source::clone_tree;
use crate::namespaces::Namespaces;

/// Where the host has the one that stands in for a file system that was refused. A sysfs needs the network namespace
/// to be of the same user namespace, an mqueue the IPC namespace, and a procfs the PID namespace. Another PID
/// namespace's procfs would not do.
pub(super) fn stand_in(kind: &str, namespaces: &Namespaces) -> Option<&'static Path> {
    match kind {
        "sysfs" => Some(Path::new("/sys")),
        "mqueue" => Some(Path::new("/dev/mqueue")),
        "proc" if !namespaces.has_pid() => Some(Path::new("/proc")),
        _ => None,
    }
}

/// A copy of a mount of the host, with all below it, which can't be left out in a user namespace.
pub(super) fn open(path: &Path, options: &Options) -> rustix::io::Result<OwnedFd> {
    let tree = clone_tree(CWD, path, true)?;
    let slave = Propagation {
        kind: libc::MS_SLAVE,
        recursive: true,
    };
    set_propagation(&tree, slave)?;
    let all = Options {
        set_recursive: options.set | options.set_recursive,
        clear_recursive: (options.clear | options.clear_recursive) & libc::MOUNT_ATTR__ATIME,
        ..Options::default()
    };
    set_attributes(&tree, &all)?;
    Ok(tree)
}
