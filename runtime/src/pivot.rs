//! How a process moves into its root file system, and what becomes of the old one.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use rustix::fs::{CWD, FsWord, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstatfs, open, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use crate::error::Doing;
use crate::mount::{Propagation, attach_to, clone_tree, empty_directory, is_directory, set_propagation};
use crate::sys::{MountAttr, mount_setattr};
use crate::{Result, mountinfo};

/// statfs(2)'s type of a sysfs.
const SYSFS_MAGIC: FsWord = libc::SYSFS_MAGIC;

/// Attaches the root at `place`, its own path on the host, where hooks look for it that enter the mount namespace; or,
/// without one that can be reached, where it can be found without a path: on top of the namespace's own root. Paths
/// still lead into the old root then, because the process's root directory lies below the new mount.
pub(crate) fn attach_root(root: impl AsFd, place: Option<&Path>) -> Result<()> {
    // Nothing that is mounted from now on may be seen by the host, nor be unmounted there.
    let slave = MountAttr {
        propagation: libc::MS_SLAVE,
        ..MountAttr::default()
    };
    let host = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .doing(|| "open the root directory".to_owned())?;
    mount_setattr(&host, true, slave).doing(|| "keep mounts from the host".to_owned())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = place
        .and_then(|path| openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).ok())
        .unwrap_or(host);
    move_mount(
        root,
        c"",
        &place,
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
    .doing(|| "attach the container's root file system".to_owned())
}

/// Makes the attached root the process's root directory, and drops the old one from its mount namespace.
pub(crate) fn pivot(root: impl AsFd, no_pivot: bool) -> Result<()> {
    let doing = || "move into the container's root file system".to_owned();
    if no_pivot {
        hide_kernel_views()?;
        return enter(root);
    }
    rustix::process::fchdir(root).doing(doing)?;
    // With both places the same the old root ends up on top of the new one, from where it is detached.
    rustix::process::pivot_root(".", ".").doing(doing)?;
    unmount(".", UnmountFlags::DETACH).doing(doing)
}

/// Makes a directory the process's root directory.
pub(crate) fn enter(root: impl AsFd) -> Result<()> {
    let doing = || "enter the container's root file system".to_owned();
    rustix::process::fchdir(root).doing(doing)?;
    rustix::process::chroot(".").doing(doing)
}

/// Moves into a mount namespace of others, and takes the root directory along with all that is mounted in it. There it is
/// attached nowhere: nobody else finds it, and it is gone with the last process that has it.
pub(crate) fn take_along(namespace: BorrowedFd<'_>) -> Result<()> {
    let root = clone_tree(CWD, Path::new("/"), true).doing(|| "copy the container's mounts".to_owned())?;
    setns(namespace, CloneFlags::CLONE_NEWNS).doing(|| "join the mount namespace".to_owned())?;
    enter(root)
}

/// After chroot(2) the host's mounts stay in the mount namespace, under the container's root. A procfs or sysfs among
/// them that nothing is masked in would let a user namespace in the container mount another one like it.
fn hide_kernel_views() -> Result<()> {
    let doing = || "hide the host's procfs and sysfs".to_owned();
    let text = std::fs::read_to_string("/proc/self/mountinfo").doing(doing)?;
    let views = mountinfo::parse(&text).filter(|line| matches!(line.kind, "proc" | "sysfs"));
    // The container's own mounts are listed too, as if they were the host's; their paths lead to the host's.
    for point in views.map(|line| line.point) {
        hide(Path::new(&point)).doing(|| format!("hide the host's {point}"))?;
    }
    Ok(())
}

fn hide(point: &Path) -> rustix::io::Result<()> {
    match unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // It is no mount any more, or one that a user namespace must not remove.
        Err(Errno::INVAL | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let place = open(
        point,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    match fstatfs(&place)?.f_type {
        // A file alone makes nothing visible that a new procfs or sysfs would have to be compared with.
        PROC_SUPER_MAGIC | SYSFS_MAGIC if is_directory(&place)? => attach_to(empty_directory("")?, &place),
        _ => Ok(()),
    }
}

/// Makes the root mount read-only; mounts below it keep their own setting.
pub(crate) fn make_read_only(root: impl AsFd) -> Result<()> {
    let attr = MountAttr {
        set: libc::MOUNT_ATTR_RDONLY,
        ..MountAttr::default()
    };
    mount_setattr(root, false, attr).doing(|| "make the root file system read-only".to_owned())
}

/// Makes the root propagate what is mounted in the container, once it is complete: what the container is made of would
/// propagate, too. That a root takes part in nothing has been seen to when it was opened.
pub(crate) fn propagate(root: impl AsFd, propagation: Option<Propagation>) -> Result<()> {
    match propagation {
        Some(propagation) if matches!(propagation.kind, libc::MS_SHARED | libc::MS_UNBINDABLE) => {
            set_propagation(root, propagation)
                .doing(|| "set the propagation of the root file system".to_owned())
        }
        _ => Ok(()),
    }
}
