//! mount_setattr(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What to change of a mount; the kernel's `struct mount_attr`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MountAttr<'a> {
    /// `MOUNT_ATTR_*` to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear; the access time's mask whenever an access time is set.
    pub(crate) clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0.
    pub(crate) propagation: u64,
    /// The user namespace whose maps are applied, with `MOUNT_ATTR_IDMAP` in `set`.
    pub(crate) userns: Option<BorrowedFd<'a>>,
}

/// Changes the mount that `mount` refers to, and with `recursive` all below it.
pub(crate) fn mount_setattr(mount: impl AsFd, recursive: bool, attr: MountAttr<'_>) -> io::Result<()> {
    let raw = libc::mount_attr {
        attr_set: attr.set,
        attr_clr: attr.clear,
        propagation: attr.propagation,
        userns_fd: attr
            .userns
            .map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string and the attributes are a valid struct of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
