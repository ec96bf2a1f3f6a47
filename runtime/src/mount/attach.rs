//! What the container's process does of a mount: make it, attach it, configure it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::copy_up::copy_contents;
use super::host;
use super::options::{Options, Propagation};
use super::proc::{check_place, mount_id};
use super::queues::label_root;
use super::remount::remount;
use super::source::{Prepared, Source, clone_tree, settle};
use super::target::{Place, is_directory, make_new, open_inside, ordinary_directory, place};
use crate::error::Doing;
use crate::namespaces::Namespaces;
use crate::sys::{MountAttr, mount_setattr};
use crate::{Error, Result};

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
    /// Mounts that become read-only when nothing has to be made in them any more.
    pub(super) read_only_later: Vec<OwnedFd>,
    /// The mount on `/proc`, whatever it is.
    pub(super) proc_mount: Option<u64>,
    /// The mounts of new file systems, if any is to be remounted.
    pub(super) made: Option<Vec<u64>>,
    /// Nothing but what was made in it is mounted since `dev`: the path `/dev` leads there.
    dev_is_last: bool,
}

/// Attaches the mounts in their order, up to the control groups and what lies below them.
pub(crate) fn attach_all(root: impl AsFd, mounts: &[Prepared], namespaces: &Namespaces) -> Result<Attached> {
    let remounts = mounts.iter().any(|mount| matches!(mount.source, Source::Remount));
    let mut attached = Attached {
        made: remounts.then(Vec::new),
        ..Attached::default()
    };
    for (mount, late) in in_order(mounts) {
        if !late {
            attach_one(&root, mount, namespaces, &mut attached)?;
        }
    }
    Ok(attached)
}

/// The mounts, and whether they have to wait until the process is in its own control group.
pub(super) fn in_order(mounts: &[Prepared]) -> impl Iterator<Item = (&Prepared, bool)> {
    let mut groups: Vec<&Path> = Vec::new();
    mounts.iter().map(move |mount| {
        let destination = mount.destination.as_path();
        if matches!(mount.source, Source::Cgroup) {
            groups.push(destination);
            return (mount, true);
        }
        let after = |path: &Path| groups.iter().any(|group| path.starts_with(group));
        let source_is_late = matches!(&mount.source, Source::Inside { path, .. } if after(path));
        (mount, source_is_late || after(destination))
    })
}

/// Makes and attaches one mount, other than the control groups.
pub(super) fn attach_one(
    root: impl AsFd,
    mount: &Prepared,
    namespaces: &Namespaces,
    attached: &mut Attached,
) -> Result<()> {
    let target = mount.destination.as_path();
    match &mount.source {
        Source::Cgroup => Ok(()),
        Source::Remount => remount(root, target, &mount.options, attached),
        Source::Tree { tree, directory } => attach_tree(root, tree, *directory, target, attached),
        Source::Inside {
            path,
            recursive,
            private,
        } => {
            let doing = || format!("bind-mount {} of the container itself", path.display());
            let source = open_inside(&root, path).doing(doing)?;
            let tree = clone_tree(&source, Path::new(""), *recursive).doing(doing)?;
            settle(&tree, &mount.options, *private).doing(doing)?;
            let is_source = |later: &OwnedFd| mount_id(later).is_some_and(|id| Some(id) == mount_id(&source));
            if attached.read_only_later.iter().any(is_source) {
                attached.read_only_later.push(tree.try_clone().doing(doing)?);
            }
            let directory = is_directory(&tree).doing(doing)?;
            attach_tree(root, &tree, directory, target, attached)
        }
        Source::New { kind, source, label } => {
            let new = New {
                kind,
                source: source.as_deref(),
                label,
                options: &mount.options,
                target,
            };
            new.attach(&root, namespaces, attached)
        }
    }
}

fn attach_tree(
    root: impl AsFd,
    tree: &OwnedFd,
    directory: bool,
    target: &Path,
    attached: &mut Attached,
) -> Result<()> {
    attached.dev_is_last = false;
    let place = place(root, target, directory)?;
    check_place(&place.fd, target, attached.proc_mount)?;
    attach_to(tree, &place.fd).doing(|| attaching(target))?;
    attached.dev_is_bound |= target == Path::new("/dev");
    if target == Path::new("/proc") {
        attached.proc_mount = mount_id(tree);
    }
    Ok(())
}

fn attaching(target: &Path) -> String {
    format!("attach the mount on {}", target.display())
}

/// A new file system.
struct New<'a> {
    kind: &'a str,
    source: Option<&'a str>,
    label: &'a str,
    options: &'a Options,
    target: &'a Path,
}

impl New<'_> {
    fn attach(&self, root: &impl AsFd, namespaces: &Namespaces, attached: &mut Attached) -> Result<()> {
        let target = self.target;
        let doing = || attaching(target);
        let place = match (self.kind, attached.make_in_dev(target)) {
            (_, Some(fd)) => Place { fd, made: true },
            (kind, None) => {
                let place = match kind {
                    "proc" | "sysfs" => Place {
                        fd: ordinary_directory(root, target, kind)?,
                        made: false,
                    },
                    _ => place(root, target, true)?,
                };
                check_place(&place.fd, target, attached.proc_mount)?;
                place
            }
        };
        let is_tmpfs = self.kind == "tmpfs";
        let mut options = self.options.clone();
        if is_tmpfs {
            // Mounts and devices may still have to be made in it.
            options.set &= !libc::MOUNT_ATTR_RDONLY;
            options.set_recursive &= !libc::MOUNT_ATTR_RDONLY;
            keep_mode(&place, &mut options).doing(doing)?;
        }
        let fd = self.make(&options, namespaces)?;
        if options.copy_up {
            copy_contents(&place.fd, &fd)
                .doing(|| format!("copy {} of the image into the tmpfs on it", target.display()))?;
        }
        attach_to(&fd, &place.fd).doing(doing)?;
        propagate(&fd, target, &options)?;
        if is_tmpfs && (self.options.set | self.options.set_recursive) & libc::MOUNT_ATTR_RDONLY != 0 {
            let later = fd.try_clone().doing(doing)?;
            attached.read_only_later.push(later);
        }
        attached.keep(self.kind, target, fd);
        Ok(())
    }

    fn make(&self, options: &Options, namespaces: &Namespaces) -> Result<OwnedFd> {
        let refused = match make(self.kind, self.source, options, self.target) {
            Err(Error::System { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => source,
            Ok(made) => return self.label(&made).map(|()| made),
            Err(error) => return Err(error),
        };
        let doing = || format!("mount {} on {}", self.kind, self.target.display());
        let stand_in = host::stand_in(self.kind, namespaces).filter(|_| options.data.is_empty());
        match stand_in.map(|path| host::open(path, options)) {
            None | Some(Err(Errno::NOENT)) => Err(refused).doing(doing),
            Some(opened) => opened.doing(doing),
        }
    }

    /// Labels the root for SELinux, where the mount could not take the label.
    fn label(&self, made: &OwnedFd) -> Result<()> {
        if self.label.is_empty() {
            return Ok(());
        }
        match label_root(made, self.label) {
            // It belongs to nobody of this user namespace. In a pod it has its label already.
            Ok(()) | Err(Errno::PERM) => Ok(()),
            other => other.doing(|| {
                format!(
                    "label the {} on {} {}",
                    self.kind,
                    self.target.display(),
                    self.label
                )
            }),
        }
    }
}

/// A tmpfs gets the mode of the directory that it covers, unless the options name one.
fn keep_mode(place: &Place, options: &mut Options) -> rustix::io::Result<()> {
    if place.made
        || options
            .data
            .iter()
            .any(|parameter| parameter.starts_with("mode="))
    {
        return Ok(());
    }
    let mode = statat(&place.fd, c"", AtFlags::EMPTY_PATH)?.st_mode & 0o7777;
    options.data.push(format!("mode={mode:o}"));
    Ok(())
}

impl Attached {
    /// The usual mounts below `/dev` follow the one on it: their places are missing in the new file system, and made
    /// there right away.
    fn make_in_dev(&mut self, target: &Path) -> Option<OwnedFd> {
        let name = target.strip_prefix("/dev").ok().filter(|_| self.dev_is_last);
        self.dev_is_last = false;
        let mut names = name?.components();
        let (Some(Component::Normal(name)), None) = (names.next(), names.next()) else {
            return None;
        };
        let made = make_new(self.dev.as_ref()?, name)?;
        self.dev_is_last = true;
        Some(made)
    }

    fn keep(&mut self, kind: &str, target: &Path, fd: OwnedFd) {
        if let Some(made) = &mut self.made {
            made.extend(mount_id(&fd));
        }
        let place = match (kind, target.to_str()) {
            ("proc", Some("/proc")) => {
                self.proc_mount = mount_id(&fd);
                &mut self.proc
            }
            ("tmpfs", Some("/dev")) => {
                self.dev_is_last = true;
                &mut self.dev
            }
            ("devpts", Some("/dev/pts")) => &mut self.pts,
            _ => return,
        };
        *place = Some(fd);
    }

    /// Makes read-only what was left writable for other mounts and devices to be made in it.
    pub(crate) fn finish(&self) -> Result<()> {
        let read_only = MountAttr {
            set: libc::MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        };
        let mut later = self.read_only_later.iter();
        later.try_for_each(|mount| {
            mount_setattr(mount, false, read_only).doing(|| "make a mount read-only".to_owned())
        })
    }
}

/// Makes a new file system, detached.
pub(super) fn make(kind: &str, source: Option<&str>, options: &Options, target: &Path) -> Result<OwnedFd> {
    let doing = || format!("mount {kind} on {}", target.display());
    let context = match fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(Errno::NODEV) => {
            let field = format!("mounts[{}].type", target.display());
            return Err(Error::unsupported(
                field,
                format!("this kernel has no file system {kind:?}"),
            ));
        }
        other => other.doing(doing)?,
    };
    if let Some(source) = source {
        fsconfig_set_string(&context, "source", source).doing(doing)?;
    }
    configure(&context, &options.data, &doing)?;
    let attributes = options.set | options.set_recursive;
    if attributes & libc::MOUNT_ATTR_RDONLY != 0 && !NO_DEVICE.contains(&kind) {
        // A device may be read-only itself, and says so if it is to be mounted otherwise.
        fsconfig_set_flag(&context, "ro").doing(doing)?;
    }
    fsconfig_create(&context).doing(doing)?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(0));
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).doing(doing)
}

/// File systems of the kernel's own, one of which may be shared by several mounts.
const NO_DEVICE: &[&str] = &["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];

/// What fsconfig(2) takes of a value.
const MAX_PARAMETER: usize = 255;

/// Gives a file system its parameters.
pub(super) fn configure(context: &OwnedFd, parameters: &[String], doing: &impl Fn() -> String) -> Result<()> {
    for parameter in parameters {
        let set = match parameter.split_once('=') {
            Some((key, value)) => fsconfig_set_string(context, key, value),
            None => fsconfig_set_flag(context, parameter.as_str()),
        };
        if set == Err(Errno::INVAL) && parameter.len() > MAX_PARAMETER {
            let what = format!("The mount option {parameter:?}");
            let reason = format!("the kernel takes no value of more than {MAX_PARAMETER} bytes");
            return Err(Error::unsupported(what, reason));
        }
        set.doing(|| format!("{} with the option {parameter:?}", doing()))?;
    }
    Ok(())
}

/// Attaches a detached mount to a directory inside the root, which is made if it is missing.
pub(super) fn attach(mount: impl AsFd, root: impl AsFd, target: &Path) -> Result<()> {
    let place = place(root, target, true)?;
    attach_to(mount, place.fd).doing(|| attaching(target))
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

/// Sets how mounts propagate, as the options of a mount say.
pub(super) fn propagate(mount: &OwnedFd, target: &Path, options: &Options) -> Result<()> {
    let set = |propagation: &Propagation| set_propagation(mount, *propagation);
    let mut all = options.propagation.iter();
    all.try_for_each(set)
        .doing(|| format!("set the propagation of {}", target.display()))
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
