//! A container's first process and its cgroup, by whichever runtime they were made.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_runtime::Created;
use berth_runtime::cgroups::Cgroup;

/// What there is of a container in the kernel.
pub(crate) enum Process {
    /// Made by this process.
    Own(Box<Created>),
    /// Made by another runtime's program.
    Handled(Handled),
}

/// A container of another runtime.
pub(crate) struct Handled {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) cgroup: Cgroup,
}

impl Process {
    /// As the host numbers it.
    pub(crate) fn pid(&self) -> i32 {
        match self {
            Self::Own(created) => created.pid.as_raw(),
            Self::Handled(handled) => handled.pid,
        }
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(created) => created.pidfd.as_fd(),
            Self::Handled(handled) => handled.pidfd.as_fd(),
        }
    }

    pub(crate) fn cgroup(&self) -> &Cgroup {
        match self {
            Self::Own(created) => &created.cgroup,
            Self::Handled(handled) => &handled.cgroup,
        }
    }

    /// What its own runtime left out.
    pub(crate) fn warnings(&self) -> &[String] {
        match self {
            Self::Own(created) => &created.warnings,
            Self::Handled(_) => &[],
        }
    }
}
