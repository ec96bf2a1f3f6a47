//! Keeping the runtime's own program from being overwritten by a container.
//!
//! A container's process is a copy of the runtime until its exec, and `/proc/self/exe` as a container's program runs
//! the runtime itself once more. Other processes of the container may then open `/proc/<pid>/exe` and, once nothing
//! runs it any more, write to it (CVE-2019-5736). A program that was executed from a read-only mount can't be written
//! that way, whatever privileges the container has: the mount is in no mount namespace, so nothing can change it. The
//! same holds for a program whose memory was mapped anew from there, which is several times faster.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    Access, AtFlags, CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfs, StatVfsMountFlags, accessat,
    fcntl_add_seals, fcntl_get_seals, fstatvfs, memfd_create, openat, stat,
};

use crate::error::Doing;
use crate::mount::clone_tree;
use crate::sys::{self, MountAttr, mount_setattr};
use crate::{Error, Result};

/// The executable of this process.
const SELF: &str = "/proc/self/exe";

/// What a file in memory can't be rid of, once it can't be written any more.
const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// Makes sure that the executable of this process can't be written through it: it runs on from a read-only mount that
/// nobody else sees, unless it was executed from one, or executes it once more from there where the kernel does not let
/// it. To be called before anything else is done. A user without CAP_SYS_ADMIN can't make such a mount, and executes a
/// sealed copy in memory, unless the file is root's.
///
/// # Errors
/// When the kernel refuses.
pub fn protect_executable() -> Result<()> {
    let doing = || "protect the runtime's executable".to_owned();
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let executable = openat(CWD, SELF, flags, Mode::empty()).doing(doing)?;
    if is_read_only(&fstatvfs(&executable).doing(doing)?) {
        return Ok(());
    }
    if rustix::process::geteuid().is_root() {
        let mount = read_only_mount(&executable)?;
        drop(executable);
        if run_from(&mount).is_ok() {
            return Ok(());
        }
        return Err(sys::execute_again(&mount)).doing(doing);
    }
    drop(executable);
    if is_roots().doing(doing)? || is_sealed().doing(doing)? {
        return Ok(());
    }
    Err(sys::execute_again(&sealed_copy().doing(doing)?)).doing(doing)
}

fn read_only_mount(executable: &OwnedFd) -> Result<OwnedFd> {
    let doing = || "protect the runtime's executable".to_owned();
    let tree = clone_tree(executable, Path::new(""), false).doing(doing)?;
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
    Ok(tree)
}

/// Maps the program anew from the mount, which is one of the file alone.
fn run_from(mount: &OwnedFd) -> std::io::Result<()> {
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    sys::run_from(file.as_fd())
}

fn is_read_only(mount: &StatVfs) -> bool {
    mount.f_flag.contains(StatVfsMountFlags::RDONLY)
}

/// Neither the user nor anybody whose id they may map can write to the file or change its mode: it belongs to root.
fn is_roots() -> rustix::io::Result<bool> {
    let writable = accessat(CWD, SELF, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    Ok(stat(SELF)?.st_uid == 0 && !writable)
}

fn is_sealed() -> rustix::io::Result<bool> {
    let file = openat(CWD, SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // Only files in memory have seals.
    Ok(fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SEALS)))
}

fn sealed_copy() -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = File::from(memfd_create(c"berth-oci", flags)?);
    std::io::copy(&mut File::open(SELF)?, &mut copy)?;
    fcntl_add_seals(&copy, SEALS)?;
    Ok(copy.into())
}
