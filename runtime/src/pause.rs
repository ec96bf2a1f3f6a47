//! The process that holds a pod's namespaces open.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use nix::unistd::Pid;

use crate::oci;
use crate::{Error, Result};

/// Which namespaces a pause holds, and how they are configured.
#[derive(Clone, Debug, Default)]
pub struct PauseArgs<'a> {
    /// A new network namespace. Its `lo` is left down: that is CNI's business.
    pub network: bool,
    /// A new IPC namespace.
    pub ipc: bool,
    /// A new UTS namespace with this host name.
    pub hostname: Option<&'a str>,
    /// A new PID namespace, in which the pause is PID 1 and reaps.
    pub pid: bool,
    /// A new user namespace with these uid and gid mappings, which owns all the others.
    pub user: Option<(&'a [oci::LinuxIdMapping], &'a [oci::LinuxIdMapping])>,
    /// Namespaced sysctls, dotted name to value, set inside the new namespaces.
    pub sysctls: Option<&'a BTreeMap<String, String>>,
}

/// A running pause process. It ends with its creator, or when it is sent SIGTERM or SIGKILL.
#[derive(Debug)]
pub struct Pause {
    /// As the caller's pid namespace numbers it. It is the caller's child.
    pub pid: Pid,
    /// The same as a descriptor.
    pub pidfd: OwnedFd,
    /// The namespaces that were asked for.
    pub namespaces: HeldNamespaces,
}

/// Open namespaces; lend them to a container as [`crate::JoinedNamespaces`].
#[derive(Debug, Default)]
pub struct HeldNamespaces {
    /// The user namespace.
    pub user: Option<OwnedFd>,
    /// The network namespace.
    pub network: Option<OwnedFd>,
    /// The IPC namespace.
    pub ipc: Option<OwnedFd>,
    /// The UTS namespace.
    pub uts: Option<OwnedFd>,
    /// The PID namespace.
    pub pid: Option<OwnedFd>,
}

/// Starts a pause: a child without a program of its own, that only waits. The caller must be single-threaded.
///
/// # Errors
/// When a sysctl is not namespaced or not known, or the kernel refuses; nothing is left behind.
pub fn start_pause(args: &PauseArgs<'_>) -> Result<Pause> {
    Err(Error::unsupported(
        format!("pause {:?}", args.hostname),
        "it is not built yet",
    ))
}
