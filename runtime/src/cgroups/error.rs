//! What can go wrong with a cgroup, in sentences.

use std::time::Duration;

use nix::errno::Errno;
use thiserror::Error;

use super::{device_program, devices};

pub use crate::dbus::DbusError;

/// Any failure of this module. Each message names the cgroup and, where there is one, the way out.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// No hierarchy of either version is mounted.
    #[error(
        "No cgroup hierarchy is mounted; mount cgroup2 on /sys/fs/cgroup (or the v1 controllers below it)."
    )]
    NotMounted,

    /// `/proc/self/mountinfo` could not be read.
    #[error("The list of mounts /proc/self/mountinfo could not be read: {0}.")]
    MountInfo(Errno),

    /// A path that could leave the hierarchy, or that the kernel would refuse.
    #[error("The cgroup path {path:?} is not usable: {reason}.")]
    Path {
        /// The path as it was given.
        path: String,
        /// Which rule it breaks.
        reason: &'static str,
    },

    /// The kernel refused an operation on a file or directory of the group.
    #[error("Could not {action} {file} of cgroup {path:?} ({hierarchy}): {errno}.")]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// Control file, or "the directory".
        file: String,
        /// The group's path below its hierarchy's root.
        path: String,
        /// Which hierarchy.
        hierarchy: String,
        /// The kernel's answer.
        errno: Errno,
    },

    /// The kernel refused a value that the caller asked for.
    #[error("Could not set {file} of cgroup {path:?} to {value:?}: {errno}.")]
    Write {
        /// Control file.
        file: String,
        /// The value that was refused.
        value: String,
        /// The group's path below its hierarchy's root.
        path: String,
        /// The kernel's answer.
        errno: Errno,
    },

    /// A control file held something that its documentation does not allow for.
    #[error("{file} of cgroup {path:?} holds {content:?}, which is not understood.")]
    Content {
        /// Control file.
        file: String,
        /// The group's path below its hierarchy's root.
        path: String,
        /// What was read.
        content: String,
    },

    /// A resource was asked for whose controller this host does not have.
    #[error("{resource} cannot be set: the {controller} cgroup controller is not available on this host.")]
    NoController {
        /// The field of `linux.resources`.
        resource: &'static str,
        /// The controller's name.
        controller: &'static str,
    },

    /// A resource that the hierarchy which holds its controller cannot express.
    #[error("{resource} cannot be set: {reason}.")]
    Unsupported {
        /// The field of `linux.resources`.
        resource: String,
        /// Why, and what to use instead.
        reason: String,
    },

    /// A limit by a controller that the group doesn't have.
    #[error(
        "Cgroup {path:?} has no {file}: the groups above it do not pass the {controller} controller on. Who owns them has \
         to delegate it (with systemd: Delegate= of the unit above)."
    )]
    NotDelegated {
        /// Control file.
        file: String,
        /// The controller's name.
        controller: &'static str,
        /// The group's path below its hierarchy's root.
        path: String,
    },

    /// A value outside of its range.
    #[error("{resource} is {value}, which is not valid: {reason}.")]
    Value {
        /// The field of `linux.resources`.
        resource: String,
        /// What was asked for.
        value: String,
        /// The rule it breaks.
        reason: String,
    },

    /// cgroup v2 forbids processes in a group that distributes resources to children.
    #[error(
        "The {controllers} controllers cannot be enabled below cgroup {path:?}, because it holds processes itself; \
         move them into a child group first (the no-internal-processes rule of cgroup v2)."
    )]
    InternalProcesses {
        /// The group with the processes.
        path: String,
        /// What was to be enabled.
        controllers: String,
    },

    /// A wait for the kernel ended without the expected state.
    #[error("Cgroup {path:?} was still not {state} after {waited:?}.")]
    Timeout {
        /// The group's path below its hierarchy's root.
        path: String,
        /// What was waited for.
        state: &'static str,
        /// For how long.
        waited: Duration,
    },

    /// Somebody thawed a group that was about to be frozen.
    #[error("Cgroup {path:?} was thawed by somebody else before it was frozen.")]
    Thawed {
        /// The group's path below its hierarchy's root.
        path: String,
    },

    /// A group that was there is frozen.
    #[error("container's cgroup unexpectedly frozen: none can begin in {path:?}; thaw it first.")]
    Frozen {
        /// The group's path below its hierarchy's root.
        path: String,
    },

    /// systemd, which is to make the group, can't be reached.
    #[error("The scope {unit} needs systemd: {error}")]
    NoSystemd {
        /// The unit.
        unit: String,
        /// Why not.
        error: DbusError,
    },

    /// systemd refused something.
    #[error("systemd could not {action} the scope {unit}: {error}.")]
    Systemd {
        /// What was asked for, as a verb.
        action: &'static str,
        /// The unit.
        unit: String,
        /// systemd's answer.
        error: DbusError,
    },

    /// systemd tried, and it didn't work.
    #[error(
        "systemd could not {action} the scope {unit}: the job's result is {outcome:?}; its journal says more."
    )]
    SystemdJob {
        /// What was asked for, as a verb.
        action: &'static str,
        /// The unit.
        unit: String,
        /// The job's result.
        outcome: String,
    },

    /// The process that a scope begins with could not be made.
    #[error("Could not make the first process of the scope {unit}: {error}.")]
    Placeholder {
        /// The unit.
        unit: String,
        /// The kernel's answer.
        error: std::io::Error,
    },

    /// A limit below what is used already, with `checkBeforeUpdate`.
    #[error(
        "The memory limit {limit} of cgroup {path:?} is not above its current usage of {usage} bytes \
         (checkBeforeUpdate is set)."
    )]
    BelowUsage {
        /// The group's path below its hierarchy's root.
        path: String,
        /// Asked for, in bytes.
        limit: i64,
        /// Used, in bytes.
        usage: u64,
    },
}

/// Result of this module.
pub type Result<T> = std::result::Result<T, CgroupError>;

impl CgroupError {
    /// Whether the caller may not do that: the group is not theirs, or the hierarchy is mounted read-only.
    pub(crate) fn is_denied(&self) -> bool {
        let (Self::File { errno, .. } | Self::Write { errno, .. }) = self else {
            return false;
        };
        matches!(errno, Errno::EACCES | Errno::EPERM | Errno::EROFS)
    }

    /// Whether rules for devices can't be set by this caller: it may not, or it was not given the hierarchy for them.
    pub(crate) fn refuses_device_rules(&self) -> bool {
        match self {
            Self::File { file, .. } | Self::Write { file, .. } => {
                self.is_denied() && (file.starts_with("devices.") || file == device_program::FILE)
            }
            Self::NoController { resource, .. } => *resource == devices::FIELD,
            _ => false,
        }
    }

    /// Whether the group, or the file of it, is not there (any more).
    pub(super) fn is_gone(&self) -> bool {
        matches!(
            self,
            Self::File {
                errno: Errno::ENOENT | Errno::ENODEV,
                ..
            }
        )
    }
}

/// For operations that have nothing to do in a group that was removed.
pub(super) fn unless_gone(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_gone() => Ok(()),
        other => other,
    }
}
