//! What the container's process does of a mount: make it, attach it, configure it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::options::{Options, Propagation};
use super::source::{Prepared, Source};
use super::target::{make_directory, make_file};
use crate::Result;
use crate::error::Doing;
use crate::sys::{MountAttr, mount_setattr};

/// Mounts that later steps work on, by descriptor so that no image can redirect them.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    /// The container's procfs.
    pub(crate) proc: Option<OwnedFd>,
    /// The mount on `/dev`.
    pub(crate) dev: Option<OwnedFd>,
    /// The devpts on `/dev/pts`.
    pub(crate) pts: Option<OwnedFd>,
    /// `/dev` is the host's: it is left as it is.
    pub(crate) dev_is_bound: bool,
}

/// Attaches the mounts in their order, all but the control groups.
pub(crate) fn attach_all(root: impl AsFd, mounts: &[Prepared]) -> Result<Attached> {
    let mut attached = Attached::default();
    for mount in mounts {
        let target = mount.destination.as_path();
        match &mount.source {
            Source::Cgroup => {}
            Source::Tree { tree, directory } => {
                attach(tree, &root, target, *directory)?;
                attached.dev_is_bound |= target == Path::new("/dev");
            }
            Source::New { kind, source } => {
                let fd = make(kind, source.as_deref(), &mount.options, target)?;
                attach(&fd, &root, target, true)?;
                if let Some(propagation) = mount.options.propagation {
                    set_propagation(&fd, propagation)
                        .doing(|| format!("set the propagation of {}", target.display()))?;
                }
                attached.keep(kind, target, fd);
            }
        }
    }
    Ok(attached)
}

impl Attached {
    fn keep(&mut self, kind: &str, target: &Path, fd: OwnedFd) {
        let place = match (kind, target.to_str()) {
            ("proc", Some("/proc")) => &mut self.proc,
            ("tmpfs", Some("/dev")) => &mut self.dev,
            ("devpts", Some("/dev/pts")) => &mut self.pts,
            _ => return,
        };
        *place = Some(fd);
    }
}

/// Makes a new file system, detached.
pub(super) fn make(kind: &str, source: Option<&str>, options: &Options, target: &Path) -> Result<OwnedFd> {
    let doing = || format!("mount {kind} on {}", target.display());
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).doing(doing)?;
    if let Some(source) = source {
        fsconfig_set_string(&context, "source", source).doing(doing)?;
    }
    for parameter in &options.data {
        let set = match parameter.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value),
            None => fsconfig_set_flag(&context, parameter.as_str()),
        };
        set.doing(|| format!("{} with the option {parameter:?}", doing()))?;
    }
    fsconfig_create(&context).doing(doing)?;
    let attributes = u32::try_from(options.set | options.set_recursive).unwrap_or(0);
    let attributes = MountAttrFlags::from_bits_retain(attributes);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).doing(doing)
}

/// Attaches a detached mount to a place inside the root, which is made if it is missing.
pub(super) fn attach(mount: impl AsFd, root: impl AsFd, target: &Path, directory: bool) -> Result<()> {
    let place = if directory {
        make_directory(root, target)?
    } else {
        make_file(root, target)?
    };
    attach_to(mount, place).doing(|| format!("attach the mount on {}", target.display()))
}

/// Attaches a detached mount to an open place.
pub(crate) fn attach_to(mount: impl AsFd, place: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", place, c"", flags)
}

/// Sets the attributes that options ask for.
pub(crate) fn set_attributes(mount: impl AsFd, options: &Options) -> rustix::io::Result<()> {
    if options.set | options.clear != 0 {
        let attr = MountAttr {
            set: options.set,
            clear: options.clear,
            ..MountAttr::default()
        };
        mount_setattr(&mount, false, attr).map_err(from_io)?;
    }
    if options.set_recursive | options.clear_recursive != 0 {
        let (set, clear) = (options.set_recursive, options.clear_recursive);
        mount_setattr(
            &mount,
            true,
            MountAttr {
                set,
                clear,
                ..MountAttr::default()
            },
        )
        .map_err(from_io)?;
    }
    Ok(())
}

/// Sets how mounts propagate.
pub(crate) fn set_propagation(mount: impl AsFd, propagation: Propagation) -> rustix::io::Result<()> {
    let attr = MountAttr {
        propagation: propagation.kind,
        ..MountAttr::default()
    };
    mount_setattr(mount, propagation.recursive, attr).map_err(from_io)
}

fn from_io(error: std::io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)
}

/// The destinations of the control groups' mounts.
pub(crate) fn cgroup_mounts(mounts: &[Prepared]) -> impl Iterator<Item = (&PathBuf, &Options)> {
    mounts
        .iter()
        .filter(|m| matches!(m.source, Source::Cgroup))
        .map(|m| (&m.destination, &m.options))
}
