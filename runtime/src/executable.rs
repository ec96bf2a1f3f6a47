//! Keeping the runtime's own program from being overwritten by a container.
//!
//! A container's process is a copy of the runtime until its exec, and `/proc/self/exe` as a container's program runs
//! the runtime itself once more. Other processes of the container may then open `/proc/<pid>/exe` and, once nothing
//! runs it any more, write to it (CVE-2019-5736). A program that was executed from a read-only mount can't be written
//! that way, whatever privileges the container has: the mount is in no mount namespace, so nothing can change it.

use rustix::fs::{CWD, StatVfs, StatVfsMountFlags, fstatvfs, statvfs};

use crate::error::Doing;
use crate::mount::clone_tree;
use crate::sys::{self, MountAttr, mount_setattr};
use crate::{Error, Result};

/// The executable of this process.
const SELF: &str = "/proc/self/exe";

/// Makes sure that the executable of this process can't be written through it: executes it once more from a read-only
/// mount that nobody else sees, unless it was executed from one. To be called before anything else is done.
///
/// # Errors
/// When the kernel refuses, which takes a process without CAP_SYS_ADMIN.
pub fn protect_executable() -> Result<()> {
    let doing = || "protect the runtime's executable".to_owned();
    if is_read_only(&statvfs(SELF).doing(doing)?) {
        return Ok(());
    }
    let tree = clone_tree(CWD, std::path::Path::new(SELF), false).doing(doing)?;
    let read_only = MountAttr {
        set: libc::MOUNT_ATTR_RDONLY,
        ..MountAttr::default()
    };
    mount_setattr(&tree, false, read_only).doing(doing)?;
    // What is executed now would otherwise come here again, and again.
    if !is_read_only(&fstatvfs(&tree).doing(doing)?) {
        return Err(Error::unsupported(
            "Protecting the runtime's executable",
            "its mount stays writable",
        ));
    }
    Err(sys::execute_again(&tree)).doing(doing)
}

fn is_read_only(mount: &StatVfs) -> bool {
    mount.f_flag.contains(StatVfsMountFlags::RDONLY)
}
