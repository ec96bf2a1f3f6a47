//! The SELinux label of an IPC namespace's message queues.
//!
//! They are one file system, which the kernel mounts for itself when the namespace is made. All further mounts have to be like
//! that one, so none can bring a label along: its root is labelled afterwards, and what is made in it takes that label.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use rustix::fs::{CWD, Mode, OFlags, XattrFlags, fsetxattr, openat};

use super::attach::make;
use super::options::Options;
use crate::Result;
use crate::error::Doing;

/// The file system's type.
pub(super) const QUEUES: &str = "mqueue";

/// Labels the queues of an IPC namespace that is not the caller's, who must be single-threaded. In a pod with users of its own
/// no container could do it: their root belongs to who made the namespace.
///
/// # Errors
/// When the kernel or the policy refuses.
pub fn label_queues(ipc: impl AsFd, label: &str) -> Result<()> {
    let doing = || format!("label the pod's message queues {label}");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = openat(CWD, c"/proc/thread-self/ns/ipc", flags, Mode::empty()).doing(doing)?;
    setns(ipc, CloneFlags::CLONE_NEWIPC).doing(doing)?;
    let labelled = make(QUEUES, None, &Options::default(), Path::new("/dev/mqueue"))
        .and_then(|queues| label_root(&queues, label).doing(doing));
    setns(own, CloneFlags::CLONE_NEWIPC).doing(doing)?;
    labelled
}

/// Labels the root of a detached mount.
pub(super) fn label_root(mount: &OwnedFd, label: &str) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(mount, c".", flags, Mode::empty())?;
    fsetxattr(root, "security.selinux", label.as_bytes(), XattrFlags::empty())
}
