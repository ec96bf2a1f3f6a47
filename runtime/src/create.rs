//! Creating a container: everything up to, but not including, its program.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::unistd::Pid;

use crate::oci;
use crate::{Error, JoinedNamespaces, Result, Rootfs, Stdio};

/// What a container is made of.
#[derive(Debug)]
pub struct CreateArgs<'a> {
    /// The container's id; a single path component.
    pub id: &'a str,
    /// The bundle directory: relative paths of the spec start here, and hooks are told.
    pub bundle: &'a Path,
    /// The configuration.
    pub spec: &'a oci::Spec,
    /// The root file system.
    pub rootfs: Rootfs,
    /// The standard streams. The spec's `process.terminal` is not looked at.
    pub stdio: Stdio,
    /// Namespaces that the caller holds.
    pub namespaces: JoinedNamespaces<'a>,
    /// How many descriptors from 3 on the program inherits.
    pub preserve_fds: u32,
    /// Use chroot(2) where the host's root is an initramfs that pivot_root(2) refuses.
    pub no_pivot: bool,
    /// A session keyring of its own.
    pub new_keyring: bool,
}

/// A container that is set up completely and waits before the exec of its program.
///
/// Dropping it before [`Created::start`] ends the container's process; the caller still has to reap it (waitid(2) on
/// `pidfd`) and to delete the cgroup.
#[derive(Debug)]
pub struct Created {
    /// The first process, as the caller's pid namespace numbers it.
    pub pid: Pid,
    /// The same as a descriptor.
    pub pidfd: OwnedFd,
    /// The terminal's master, with [`Stdio::Terminal`].
    pub terminal: Option<OwnedFd>,
    /// The process is in another user namespace than the caller.
    pub in_user_namespace: bool,
}

/// Creates a container. The caller must be single-threaded: the container's process begins as a copy of it.
///
/// # Errors
/// When the configuration is invalid or asks for what can't be done, or the kernel refuses; nothing is left behind.
pub fn create(args: CreateArgs<'_>) -> Result<Created> {
    Err(Error::unsupported(
        format!("container {}", args.id),
        "creating is not built yet",
    ))
}

impl Created {
    /// Lets the container's program run, and returns once it does.
    ///
    /// # Errors
    /// [`Error::CannotRun`] when the program is missing or can't be executed. The process has ended then, or is about
    /// to, with that exit code; the caller reaps it.
    pub fn start(&mut self) -> Result<()> {
        Err(Error::unsupported(
            format!("process {}", self.pid),
            "starting is not built yet",
        ))
    }
}
