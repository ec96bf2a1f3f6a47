//! A container's root file system: where it comes from, and how a process moves into it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::error::Doing;
use crate::mount::{Propagation, clone_tree, set_propagation};
use crate::sys::{MountAttr, mount_setattr};
use crate::{Error, Result};

/// fsconfig(2) takes no longer value.
const MAX_VALUE: usize = 255;

/// A container's root file system. Nothing of it becomes visible outside of the container's mount namespace.
#[derive(Clone, Debug)]
pub enum Rootfs {
    /// A directory, with what is mounted below it. Relative to the bundle.
    Path(PathBuf),
    /// An overlay of directories.
    Overlay {
        /// Read-only layers, the topmost first. At least one.
        lower: Vec<PathBuf>,
        /// The writable layer; `None` makes the root read-only whatever the spec says.
        upper: Option<PathBuf>,
        /// overlayfs's work directory, on the same file system as `upper`.
        work: Option<PathBuf>,
    },
}

impl Rootfs {
    /// The root as a detached mount, which vanishes with its descriptor until it is attached somewhere.
    pub(crate) fn open(&self, bundle: &Path) -> Result<OwnedFd> {
        match self {
            Rootfs::Path(path) => open_directory(&bundle.join(path)),
            Rootfs::Overlay { lower, upper, work } => {
                open_overlay(lower, upper.as_deref().zip(work.as_deref()))
            }
        }
    }

    /// The root can't be written whatever the spec says.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Rootfs::Overlay { upper: None, .. })
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let doing = || format!("open the root file system {}", path.display());
    let tree = clone_tree(CWD, path, true).doing(doing)?;
    if !crate::mount::is_directory(&tree).doing(doing)? {
        return Err(Error::invalid(
            "root.path",
            format!("{} is not a directory", path.display()),
        ));
    }
    set_propagation(
        &tree,
        Propagation {
            kind: libc::MS_SLAVE,
            recursive: true,
        },
    )
    .doing(doing)?;
    Ok(tree)
}

fn open_overlay(lower: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<OwnedFd> {
    match (lower, upper) {
        ([], _) => return Err(Error::invalid("root", "an overlay needs a lower directory")),
        // overlayfs wants two directories; one alone needs no overlay.
        ([only], None) => return open_directory(only),
        _ => {}
    }
    let doing = || {
        format!(
            "mount the overlay of {} layers on {}",
            lower.len(),
            lower[0].display()
        )
    };
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).doing(doing)?;
    let set = |key: &str, path: &Path| {
        fsconfig_set_string(&context, key, path)
            .doing(|| format!("use {} as {key} of an overlay", path.display()))
    };
    fsconfig_set_string(&context, "source", "overlay").doing(doing)?;
    let mut held = Vec::new();
    set_layers(&context, lower, &mut held)?;
    if let Some((upper, work)) = upper {
        set("upperdir", &short(upper, &mut held)?)?;
        set("workdir", &short(work, &mut held)?)?;
    }
    fsconfig_create(&context).doing(doing)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).doing(doing)
}

/// Adds the layers one by one, or joined in one value where the kernel (before 6.7) does not know `lowerdir+`.
fn set_layers(context: &OwnedFd, lower: &[PathBuf], held: &mut Vec<OwnedFd>) -> Result<()> {
    for (index, layer) in lower.iter().enumerate() {
        let path = short(layer, held)?;
        match fsconfig_set_string(context, "lowerdir+", path.as_path()) {
            Err(Errno::INVAL) if index == 0 && layer.exists() => {
                return set_joined_layers(context, lower, held);
            }
            other => other.doing(|| format!("use {} as a layer of an overlay", layer.display()))?,
        }
    }
    Ok(())
}

fn set_joined_layers(context: &OwnedFd, lower: &[PathBuf], held: &mut Vec<OwnedFd>) -> Result<()> {
    let paths: Vec<String> = lower
        .iter()
        .map(|layer| Ok(by_descriptor(layer, held)?.display().to_string()))
        .collect::<Result<_>>()?;
    let joined = paths.join(":");
    if joined.len() > MAX_VALUE {
        return Err(Error::unsupported(
            format!("An overlay of {} layers", lower.len()),
            "this kernel takes about a dozen; Linux 6.7 and newer take 500",
        ));
    }
    fsconfig_set_string(context, "lowerdir", joined.as_str()).doing(|| format!("use the layers {joined}"))
}

/// The path itself, or one through a descriptor if it is too long for fsconfig(2).
fn short(path: &Path, held: &mut Vec<OwnedFd>) -> Result<PathBuf> {
    if path.as_os_str().len() <= MAX_VALUE {
        Ok(path.to_owned())
    } else {
        by_descriptor(path, held)
    }
}

fn by_descriptor(path: &Path, held: &mut Vec<OwnedFd>) -> Result<PathBuf> {
    use rustix::fs::{Mode, OFlags, open};
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = open(path, flags, Mode::empty()).doing(|| format!("open {}", path.display()))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    held.push(fd);
    Ok(short)
}

/// Attaches the root where it can be found without a path: on top of the mount namespace's own root. Paths still lead
/// into the old root, because the process's root directory lies below the new mount.
pub(crate) fn attach_root(root: impl AsFd) -> Result<()> {
    // Nothing that is mounted from now on may be seen by the host, nor be unmounted there.
    let slave = MountAttr {
        propagation: libc::MS_SLAVE,
        ..MountAttr::default()
    };
    let host = rustix::fs::open(
        "/",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .doing(|| "open the root directory".to_owned())?;
    mount_setattr(&host, true, slave).doing(|| "keep mounts from the host".to_owned())?;
    move_mount(
        root,
        c"",
        &host,
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
    .doing(|| "attach the container's root file system".to_owned())
}

/// Makes the attached root the process's root directory, and drops the old one from its mount namespace.
pub(crate) fn pivot(root: impl AsFd, no_pivot: bool) -> Result<()> {
    let doing = || "move into the container's root file system".to_owned();
    rustix::process::fchdir(root).doing(doing)?;
    if no_pivot {
        return rustix::process::chroot(".").doing(doing);
    }
    // With both places the same the old root ends up on top of the new one, from where it is detached.
    rustix::process::pivot_root(".", ".").doing(doing)?;
    unmount(".", UnmountFlags::DETACH).doing(doing)
}

/// Makes the root mount read-only; mounts below it keep their own setting.
pub(crate) fn make_read_only(root: impl AsFd) -> Result<()> {
    let attr = MountAttr {
        set: libc::MOUNT_ATTR_RDONLY,
        ..MountAttr::default()
    };
    mount_setattr(root, false, attr).doing(|| "make the root file system read-only".to_owned())
}
