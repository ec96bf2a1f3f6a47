//! An empty directory that nothing can be put into.

use std::os::fd::OwnedFd;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

/// Makes one, detached, with the SELinux label if that is not empty.
pub(crate) fn empty_directory(label: &str) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", "755")?;
    fsconfig_set_string(&context, "nr_inodes", "1")?;
    if !label.is_empty() {
        fsconfig_set_string(&context, "context", label)?;
    }
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
}
