//! Making children in another PID namespace than the own one.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use rustix::fs::{Mode, OFlags, open};

use crate::Result;
use crate::error::Doing;

/// While it lives, children of this process are made in another PID namespace.
pub(crate) struct ChildrenIn {
    own: Option<OwnedFd>,
}

impl ChildrenIn {
    /// Sends children into `namespace` until dropped.
    pub(crate) fn namespace(namespace: Option<BorrowedFd<'_>>) -> Result<ChildrenIn> {
        let Some(namespace) = namespace else {
            return Ok(ChildrenIn { own: None });
        };
        let doing = || "let the container's process begin in its PID namespace".to_owned();
        let own = open(
            "/proc/self/ns/pid",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .doing(doing)?;
        setns(namespace, CloneFlags::CLONE_NEWPID).doing(doing)?;
        Ok(ChildrenIn { own: Some(own) })
    }
}

impl Drop for ChildrenIn {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            // Going back to one's own namespace is always allowed.
            let _ = setns(own, CloneFlags::CLONE_NEWPID);
        }
    }
}
