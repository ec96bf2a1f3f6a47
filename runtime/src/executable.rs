//! Keeping the runtime's own program from being overwritten by a container.
//!
//! A container's process is a copy of the runtime until its exec, and `/proc/self/exe` as a container's program runs
//! the runtime itself once more. Other processes of the container may then open `/proc/<pid>/exe` and, once nothing
//! runs it any more, write to it (CVE-2019-5736). A program that was executed from a read-only mount can't be written
//! that way, whatever privileges the container has: the mount is in no mount namespace, so nothing can change it.

use std::os::unix::ffi::OsStringExt;

use rustix::fs::{CWD, StatVfsMountFlags, statvfs};

use crate::error::Doing;
use crate::mount::clone_tree;
use crate::sys::{self, MountAttr, mount_setattr};
use crate::{Error, Result};

/// Tells the second round from the first.
const MARK: &str = "BERTH_EXECUTABLE=read-only";

/// Makes sure that the executable of this process can't be written through it: executes it once more from a read-only
/// mount that nobody else sees, unless it was executed from one. To be called before anything else is done.
///
/// # Errors
/// When the kernel refuses, which takes a process without CAP_SYS_ADMIN.
pub fn protect_executable() -> Result<()> {
    let doing = || "protect the runtime's executable".to_owned();
    let flags = statvfs("/proc/self/exe").doing(doing)?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    let environment: Vec<_> = std::env::vars_os()
        .map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='))
        .collect();
    if environment.iter().any(|entry| entry == MARK.as_bytes()) {
        return Err(Error::unsupported(
            "Protecting the runtime's executable",
            "its mount stays writable",
        ));
    }
    let tree = clone_tree(CWD, std::path::Path::new("/proc/self/exe"), false).doing(doing)?;
    let read_only = MountAttr {
        set: libc::MOUNT_ATTR_RDONLY,
        ..MountAttr::default()
    };
    mount_setattr(&tree, false, read_only).doing(doing)?;
    let arguments = std::env::args_os().map(OsStringExt::into_vec);
    let environment = environment.into_iter().chain([MARK.as_bytes().to_owned()]);
    Err(sys::execute_descriptor(&tree, arguments, environment)).doing(doing)
}
