//! ioctl_ns(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The kind of a namespace, as the flag that clone(2) has for it. The descriptor must be that of a namespace's file.
pub(crate) fn namespace_kind(file: impl AsFd) -> io::Result<i32> {
    // SAFETY: the command takes no argument and changes nothing.
    match unsafe { libc::ioctl(file.as_fd().as_raw_fd(), libc::NS_GET_NSTYPE) } {
        -1 => Err(io::Error::last_os_error()),
        flag => Ok(flag),
    }
}
