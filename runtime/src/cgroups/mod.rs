//! Control groups on v1, v2 and hybrid hosts.
//!
//! A [`Cgroup`] is one group under the same path in every hierarchy that matters to a container. Each controller is
//! looked up in the hierarchy that has it, so that nothing here asks "which version is this host?": on a hybrid host
//! the same container has its memory limit in a v1 hierarchy and its kill switch (`cgroup.kill`), freezer and events
//! in the unified one. Every file is reached with `openat` from a directory held open, the group's or that of its
//! hierarchy's root.
//!
//! A container's life:
//! 1. [`Cgroup::create`] makes the directories, [`Cgroup::apply`] writes `linux.resources`.
//! 2. The container's process enters as late as possible before its exec, by writing [`ENTER`] to each of
//!    [`Cgroup::entry_files`]: what came before is not charged to it, so that tiny memory limits can start.
//! 3. [`Cgroup::kill_all`], then [`Cgroup::delete`], which waits for the processes to be gone.

mod block_io;
mod bounds;
mod controller;
mod cpu;
mod cpuset;
mod create;
mod delegation;
mod delete;
mod device_list;
mod device_program;
mod devices;
mod error;
mod file;
#[cfg(test)]
mod fixture;
mod freeze;
mod hierarchy;
mod hugetlb;
mod layout;

mod memory;
mod narrow;
mod oom;
mod path;
mod process;
pub mod qos;
mod resources;
pub mod statistics;
mod stats;
mod subgroup;
pub mod systemd;
mod undo;
mod unified;

pub use bounds::Bounds;
pub use controller::{Controller, Controllers};
pub use delegation::{is_host_root, is_machines_root, path_for};
pub use devices::allow_default_devices;
pub use error::{CgroupError, DbusError, Result};
pub use hierarchy::Hierarchies;
pub use oom::OomWatch;
pub use path::CgroupPath;
pub use process::ENTER;
pub use stats::{CpuStats, MemoryStats, Pressures, Stats, SwapStats};
pub use subgroup::{OUTSIDE_PODS, Subgroup, leave_all};
pub use undo::Limits;

/// Refuses rules for devices that mean nothing.
pub(crate) fn check_device_rules(rules: &[crate::oci::LinuxDeviceCgroup]) -> Result<()> {
    devices::parse(rules).map(drop)
}

/// Understands device rules, and compiles them for cgroup v2.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check_devices(rules: &[crate::oci::LinuxDeviceCgroup]) -> Result<()> {
    device_program::compile(&devices::parse(rules)?);
    Ok(())
}

use file::Directory;
use hierarchy::Kind;
use std::os::fd::BorrowedFd;

/// A group, held open in each hierarchy that it exists in.
///
/// Dropping it closes descriptors only; [`Cgroup::delete`] removes the group.
#[derive(Debug)]
pub struct Cgroup {
    path: CgroupPath,
    /// The unified hierarchy's directory first, if there is one.
    directories: Vec<Directory>,
}

impl Cgroup {
    /// Makes the group, and missing groups above it, in each hierarchy; a group that exists is taken as it is.
    /// Upon failure, what was made is removed again.
    ///
    /// # Errors
    /// When no hierarchy is mounted, the path is not usable, or the kernel refuses. That a group above holds processes
    /// itself, or is somebody else's, so that controllers of v2 are not passed on, is an error of [`Cgroup::apply`].
    pub fn create(path: &str) -> Result<Self> {
        let (group, made) = create::create(CgroupPath::new(path)?)?;
        made.keep();
        Ok(group)
    }

    /// Like [`Cgroup::create`], but `None` when there are processes in the group already; it is left as it is then.
    ///
    /// # Errors
    /// As [`Cgroup::create`], and when the group was there and is frozen, so that nothing could begin in it.
    pub fn create_unused(path: &str) -> Result<Option<Self>> {
        let (group, made) = create::create(CgroupPath::new(path)?)?;
        if !made.is_all_of(&group) {
            if !group.pids()?.is_empty() {
                return Ok(None);
            }
            if group.is_frozen_anywhere()? {
                return Err(CgroupError::Frozen {
                    path: group.path.to_string(),
                });
            }
        }
        made.keep();
        Ok(Some(group))
    }

    /// A group that exists in no hierarchy: nothing can be limited, and there is nothing to enter or to delete.
    ///
    /// # Errors
    /// When the path is not usable.
    pub fn none(path: &str) -> Result<Self> {
        Ok(Cgroup {
            path: CgroupPath::new(path)?,
            directories: Vec::new(),
        })
    }

    /// Whether the group exists in no hierarchy: nothing that runs can be found by it.
    pub fn is_nowhere(&self) -> bool {
        self.directories.is_empty()
    }

    /// Opens the group where it exists; `None` when no hierarchy has it.
    ///
    /// # Errors
    /// When no hierarchy is mounted, the path is not usable, or the kernel refuses.
    pub fn open(path: &str) -> Result<Option<Self>> {
        create::open(CgroupPath::new(path)?)
    }

    /// The group's path below each hierarchy's root, without a leading slash.
    pub fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// The directory in the unified hierarchy.
    fn unified(&self) -> Option<&Directory> {
        self.directories.iter().find(|d| d.hierarchy.kind == Kind::V2)
    }

    /// The directory that has a controller.
    fn directory(&self, controller: Controller) -> Option<&Directory> {
        self.directories
            .iter()
            .find(|d| d.hierarchy.controllers.contains(controller))
    }

    /// The directory that has a controller, or the sentence that says what can't be set without it.
    fn need(&self, controller: Controller, resource: &'static str) -> Result<&Directory> {
        let missing = || CgroupError::NoController {
            resource,
            controller: controller.v1_name(),
        };
        self.directory(controller).ok_or_else(missing)
    }

    /// The directory in the unified hierarchy, for `CLONE_INTO_CGROUP`; on a pure v2 host the child is then in its
    /// group from the first instruction and needs no entry file. `None` where v1 hierarchies have to be entered too.
    pub fn entry_fd(&self) -> Option<BorrowedFd<'_>> {
        match self.directories.as_slice() {
            [only] if only.hierarchy.kind == Kind::V2 => only.fd().ok(),
            _ => None,
        }
    }
}
