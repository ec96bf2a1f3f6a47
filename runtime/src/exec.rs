//! One more process in a running container.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::unistd::Pid;

use crate::oci;
use crate::{Error, Result, Stdio};

/// Which container a process is started in.
#[derive(Clone, Copy, Debug)]
pub struct ExecTarget<'a> {
    /// The container's first process, alive.
    pub pidfd: BorrowedFd<'a>,
    /// The container's configuration: its seccomp profile holds for this process too.
    pub spec: &'a oci::Spec,
    /// The container is in another user namespace than the caller; see [`crate::Created::in_user_namespace`].
    pub in_user_namespace: bool,
}

/// A process that runs in a container.
#[derive(Debug)]
pub struct Execed {
    /// As the caller's pid namespace numbers it. It is the caller's child.
    pub pid: Pid,
    /// The same as a descriptor.
    pub pidfd: OwnedFd,
    /// The terminal's master, with [`Stdio::Terminal`].
    pub terminal: Option<OwnedFd>,
}

/// Starts a process in a container and returns once its program runs. The caller must be single-threaded.
///
/// # Errors
/// [`Error::CannotRun`] when the program is missing or can't be executed; others when the container is gone or the
/// kernel refuses. Nothing is left to reap.
pub fn exec(
    target: &ExecTarget<'_>,
    process: &oci::Process,
    stdio: Stdio,
    preserve_fds: u32,
) -> Result<Execed> {
    let _ = (target, stdio, preserve_fds);
    Err(Error::unsupported(
        format!("exec of {:?}", process.args()),
        "exec is not built yet",
    ))
}
