//! The three standard streams of a container's process.

use std::os::fd::OwnedFd;

/// Where a process's standard streams go.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own.
    Inherit,
    /// These descriptors, which are closed in the caller once the process has them.
    Fds {
        /// Read by the process.
        stdin: OwnedFd,
        /// Written by the process.
        stdout: OwnedFd,
        /// Written by the process.
        stderr: OwnedFd,
    },
    /// A new terminal of the container's devpts; its master is returned to the caller.
    Terminal {
        /// Columns; 0 leaves the size unset.
        width: u16,
        /// Rows.
        height: u16,
    },
}
