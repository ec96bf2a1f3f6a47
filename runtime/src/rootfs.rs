//! A container's root file system: where it comes from.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::cgroups::is_machines_root;
use crate::error::Doing;
use crate::mount::{Propagation, clone_tree, retry, set_propagation};
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
        /// The layers' files have their owners' ids as the user namespace that the container joins has them: what
        /// belongs to root on the disk belongs to the root in there. The writable layer is as the host has it.
        mapped: bool,
    },
}

impl Rootfs {
    /// The root as a detached mount, which vanishes with its descriptor until it is attached somewhere. It sees what
    /// the host mounts below it later, but not the reverse, and with a private propagation neither.
    ///
    /// `label` is the SELinux label of all files of an overlay; empty leaves them their own.
    pub(crate) fn open(
        &self,
        bundle: &Path,
        propagation: Option<Propagation>,
        user: Option<BorrowedFd<'_>>,
        label: &str,
    ) -> Result<OwnedFd> {
        let root = match self {
            Rootfs::Path(path) => open_named(bundle, path),
            Rootfs::Overlay {
                lower,
                upper,
                work,
                mapped,
            } => {
                let user = user.filter(|_| *mapped).map(|user| (user, bundle));
                open_overlay(lower, upper.as_deref().zip(work.as_deref()), user, label)
            }
        }?;
        if let Some(private) = propagation.filter(|p| p.kind == libc::MS_PRIVATE) {
            set_propagation(&root, private).doing(|| "make the root file system private".to_owned())?;
        }
        Ok(root)
    }

    /// The root as a detached mount, to be attached in a mount namespace of the caller's by who runs another runtime on it.
    /// `user` is the user namespace that a mapped overlay's layers have the ids of, and `label` the SELinux label of all its
    /// files, if not empty.
    ///
    /// # Errors
    /// When a layer is missing, or the kernel takes no overlay of so many.
    pub fn detached(&self, bundle: &Path, user: Option<BorrowedFd<'_>>, label: &str) -> Result<OwnedFd> {
        self.open(bundle, None, user, label)
    }

    /// Its directory, if it is one.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Rootfs::Path(path) => Some(path),
            Rootfs::Overlay { .. } => None,
        }
    }

    /// Layers as a detached mount, the topmost first, to be attached somewhere and not to be written to; with the ids of a
    /// user namespace, if one is given, for which some kernels need a place of this mount namespace in between. All files
    /// have the SELinux label `label`, unless it is empty; one layer alone keeps its own.
    ///
    /// # Errors
    /// When a layer is missing, or the kernel takes no overlay of so many.
    pub fn layers(lower: &[PathBuf], user: Option<(BorrowedFd<'_>, &Path)>, label: &str) -> Result<OwnedFd> {
        open_overlay(lower, None, user, label)
    }

    /// The root can't be written whatever the spec says.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Rootfs::Overlay { upper: None, .. })
    }
}

/// Opens the directory that the spec names. A symbolic link on the way could be changed while the container is made, and
/// is refused, as in runc; what leads to the bundle is the caller's affair.
fn open_named(bundle: &Path, path: &Path) -> Result<OwnedFd> {
    let doing = || format!("open the root file system {}", bundle.join(path).display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let below = |directory: BorrowedFd<'_>| {
        retry(|| openat2(directory, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS))
    };
    let opened = if path.is_absolute() {
        below(CWD)
    } else {
        below(openat(CWD, bundle, flags, Mode::empty()).doing(doing)?.as_fd())
    };
    let reason = match opened {
        Ok(directory) => return detach(&directory, Path::new("")).doing(doing),
        Err(Errno::LOOP) => "is a symbolic link, or lies behind one; name the directory itself",
        Err(Errno::NOTDIR) => "is not a directory",
        Err(errno) => return Err(errno).doing(doing),
    };
    Err(Error::invalid(
        "root.path",
        format!("{} {reason}", path.display()),
    ))
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    detach(CWD, path).doing(|| format!("open the root file system {}", path.display()))
}

/// A detached copy of a directory's mount and all below it, as a slave of them.
fn detach(at: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let tree = clone_tree(at, path, true)?;
    set_propagation(
        &tree,
        Propagation {
            kind: libc::MS_SLAVE,
            recursive: true,
        },
    )?;
    Ok(tree)
}

fn open_overlay(
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    user: Option<(BorrowedFd<'_>, &Path)>,
    label: &str,
) -> Result<OwnedFd> {
    let Some((user, place)) = user else {
        return stack(lower, upper, label);
    };
    let layers = lower
        .iter()
        .map(|layer| map_layer(layer, user))
        .collect::<Result<Vec<_>>>()?;
    if let ([_], None) = (lower, upper) {
        return layers
            .into_iter()
            .next()
            .ok_or_else(|| Error::invalid("root", "an overlay needs a lower directory"));
    }
    let path = |layer: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", layer.as_raw_fd()));
    match stack(&layers.iter().map(path).collect::<Vec<_>>(), upper, label) {
        // Before Linux 6.15 layers have to be attached somewhere.
        Err(Error::System { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
            stack_attached(&layers, upper, place, label)
        }
        other => other,
    }
}

/// Stacks mounts that are attached in `place`, of this mount namespace, for as long as that takes: the overlay keeps copies
/// of its own.
fn stack_attached(
    layers: &[OwnedFd],
    upper: Option<(&Path, &Path)>,
    place: &Path,
    label: &str,
) -> Result<OwnedFd> {
    let place = place.join("layers");
    let doing = || format!("attach layers in {}", place.display());
    let mut attached = AttachedLayers(Vec::new());
    std::fs::create_dir_all(&place).doing(doing)?;
    for (number, layer) in layers.iter().enumerate() {
        let target = place.join(number.to_string());
        std::fs::create_dir_all(&target).doing(doing)?;
        move_mount(layer, c"", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).doing(doing)?;
        attached.0.push(target);
    }
    stack(&attached.0, upper, label).map_err(|error| match error {
        Error::System { source, .. } if source.raw_os_error() == Some(libc::EINVAL) => Error::unsupported(
            "A root file system with the ids of a user namespace",
            "this kernel's overlayfs takes no such layers; Linux 5.19 and newer do",
        ),
        other => other,
    })
}

/// Mounts that are detached again when this goes.
struct AttachedLayers(Vec<PathBuf>);

impl Drop for AttachedLayers {
    fn drop(&mut self) {
        for layer in &self.0 {
            let _ = unmount(layer, UnmountFlags::DETACH);
            let _ = std::fs::remove_dir(layer);
        }
    }
}

/// A layer alone, detached, with the ids of a user namespace.
fn map_layer(layer: &Path, user: BorrowedFd<'_>) -> Result<OwnedFd> {
    let tree = clone_tree(CWD, layer, false).doing(|| format!("open the layer {}", layer.display()))?;
    let attr = MountAttr {
        set: libc::MOUNT_ATTR_IDMAP,
        userns: Some(user),
        ..MountAttr::default()
    };
    mount_setattr(&tree, false, attr).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS) => Error::unsupported(
            format!("Mapping the ids of {}", layer.display()),
            "its file system can't be id-mapped by this kernel",
        ),
        _ => Error::System {
            doing: format!("map the ids of {}", layer.display()),
            source: error,
        },
    })?;
    Ok(tree)
}

fn stack(lower: &[PathBuf], upper: Option<(&Path, &Path)>, label: &str) -> Result<OwnedFd> {
    match (lower, upper) {
        ([], _) => return Err(Error::invalid("root", "an overlay needs a lower directory")),
        // overlayfs wants two directories; one alone needs no overlay.
        ([only], None) => return open_directory(only),
        _ => {}
    }
    match overlay_by_layer(lower, upper, label)? {
        Some(mount) => Ok(mount),
        None => overlay_in_one(lower, upper, label),
    }
}

fn mounting(lower: &[PathBuf]) -> String {
    format!(
        "mount the overlay of {} layers on {}",
        lower.len(),
        lower[0].display()
    )
}

/// Adds the layers one by one. `None` where the kernel does not know how: Linux 6.5 and 6.6 refuse the first layer,
/// older ones take whatever they are told until the end.
fn overlay_by_layer(
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    label: &str,
) -> Result<Option<OwnedFd>> {
    let doing = || mounting(lower);
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).doing(doing)?;
    fsconfig_set_string(&context, "source", "overlay").doing(doing)?;
    use_own_attributes(&context)?;
    set_label(&context, label)?;
    let mut held = Vec::new();
    for layer in lower {
        match fsconfig_set_string(&context, "lowerdir+", short(layer, &mut held)?.as_path()) {
            Err(Errno::INVAL) if layer.exists() => return Ok(None),
            other => other.doing(|| format!("use {} as a layer of an overlay", layer.display()))?,
        }
    }
    for (key, path) in upper
        .into_iter()
        .flat_map(|(upper, work)| [("upperdir", upper), ("workdir", work)])
    {
        fsconfig_set_string(&context, key, short(path, &mut held)?.as_path())
            .doing(|| format!("use {} as {key} of an overlay", path.display()))?;
    }
    match fsconfig_create(&context) {
        Err(Errno::INVAL) => Ok(None),
        other => {
            other.doing(doing)?;
            let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
            mount.map(Some).doing(doing)
        }
    }
}

/// overlayfs marks directories by attributes that only root of the machine may set; there are others for everybody else, which
/// Linux 5.11 and newer know. Layers are unpacked with the same.
fn use_own_attributes(context: &OwnedFd) -> Result<()> {
    if is_machines_root() {
        return Ok(());
    }
    fsconfig_set_flag(context, "userxattr").doing(|| "mount an overlay in a user namespace".to_owned())
}

/// The SELinux label of all files, whatever those of the layers say.
fn set_label(context: &OwnedFd, label: &str) -> Result<()> {
    if label.is_empty() {
        return Ok(());
    }
    fsconfig_set_string(context, "context", label).doing(|| format!("label an overlay {label}"))
}

/// Names all layers in one value, which is short: each directory is a descriptor's number, looked up in
/// `/proc/self/fd` as the working directory of the moment.
fn overlay_in_one(lower: &[PathBuf], upper: Option<(&Path, &Path)>, label: &str) -> Result<OwnedFd> {
    let doing = || mounting(lower);
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).doing(doing)?;
    use_own_attributes(&context)?;
    set_label(&context, label)?;
    let mut held = Vec::new();
    let mut number = |path: &Path| -> Result<String> {
        let fd = open_layer(path)?;
        let number = fd.as_raw_fd().to_string();
        held.push(fd);
        Ok(number)
    };
    let layers = lower
        .iter()
        .map(|layer| number(layer))
        .collect::<Result<Vec<_>>>()?
        .join(":");
    if layers.len() > MAX_VALUE {
        return Err(Error::unsupported(
            format!("An overlay of {} layers", lower.len()),
            "this kernel takes about sixty; Linux 6.7 and newer take 500",
        ));
    }
    let mut settings = vec![("source", "overlay".to_owned()), ("lowerdir", layers)];
    if let Some((upper, work)) = upper {
        settings.push(("upperdir", number(upper)?));
        settings.push(("workdir", number(work)?));
    }
    let here = open_layer(Path::new("."))?;
    rustix::process::chdir("/proc/self/fd").doing(doing)?;
    // The kernel looks paths up when it is told them, or, before Linux 6.5, at the end.
    let told = settings
        .iter()
        .try_for_each(|(key, value)| fsconfig_set_string(&context, *key, value.as_str()));
    let created = told.and_then(|()| fsconfig_create(&context));
    rustix::process::fchdir(&here).doing(|| "return to the working directory".to_owned())?;
    created.doing(doing)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).doing(doing)
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
    let fd = open_layer(path)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    held.push(fd);
    Ok(short)
}

fn open_layer(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).doing(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways to name the layers give the same overlay; newer kernels know both.
    #[test]
    fn layers_are_stacked_topmost_first() {
        let directory = std::env::temp_dir().join(format!("berth-rootfs-{}", std::process::id()));
        let layers: Vec<PathBuf> = (0..30).map(|n| directory.join(n.to_string())).collect();
        for (number, layer) in layers.iter().enumerate() {
            std::fs::create_dir_all(layer).unwrap();
            std::fs::write(layer.join("name"), number.to_string()).unwrap();
            std::fs::write(layer.join(format!("of-{number}")), "").unwrap();
        }
        let [upper, work] = ["upper", "work"].map(|name| directory.join(name));
        let before = std::env::current_dir().unwrap();
        for writable in [None, Some((upper.as_path(), work.as_path()))] {
            std::fs::create_dir_all(&upper).unwrap();
            std::fs::create_dir_all(&work).unwrap();
            let by_layer = overlay_by_layer(&layers, writable, "").unwrap();
            let in_one = overlay_in_one(&layers, writable.filter(|_| by_layer.is_none()), "").unwrap();
            for mount in by_layer.iter().chain([&in_one]) {
                let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
                assert_eq!(std::fs::read_to_string(path.join("name")).unwrap(), "0");
                assert!(path.join("of-29").exists());
            }
        }
        assert_eq!(std::env::current_dir().unwrap(), before);
        // Only with SELinux does the kernel know the parameter.
        let label = "system_u:object_r:container_file_t:s0:c1,c2";
        let labelled = [
            overlay_by_layer(&layers, None, label).map(drop),
            overlay_in_one(&layers, None, label).map(drop),
        ];
        for labelled in labelled {
            match labelled {
                Ok(()) => assert!(crate::label::selinux_is_enabled()),
                Err(error) => assert!(error.to_string().contains(label), "{error}"),
            }
        }
        let missing = directory.join("missing");
        let error = open_overlay(&[layers[0].clone(), missing], None, None, "")
            .unwrap_err()
            .to_string();
        assert!(error.contains("missing"), "{error}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// Both ways to stack layers with other ids give the same; kernels before 6.15 know the second only.
    #[test]
    fn layers_have_the_ids_of_a_user_namespace() {
        use crate::oci::LinuxIdMapping;
        use std::os::fd::AsFd;
        use std::os::unix::fs::MetadataExt;
        // Mounts of this thread alone.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS | nix::sched::CloneFlags::CLONE_FS).unwrap();
        let private = MountAttr {
            propagation: libc::MS_PRIVATE,
            ..MountAttr::default()
        };
        let host = open("/", OFlags::PATH, Mode::empty()).unwrap();
        mount_setattr(&host, true, private).unwrap();
        let directory = std::env::temp_dir().join(format!("berth-mapped-{}", std::process::id()));
        let [lower, upper, work, place] =
            ["lower", "upper", "work", "place"].map(|name| directory.join(name));
        for made in [&lower, &upper, &work, &place] {
            std::fs::create_dir_all(made).unwrap();
        }
        std::fs::write(lower.join("file"), "").unwrap();
        let map = [LinuxIdMapping {
            container_id: 0,
            host_id: 300_000,
            size: 1000,
        }];
        let user = crate::mount::user_namespace(&map, &map).unwrap();
        let layers = [map_layer(&lower, user.as_fd()).unwrap()];
        let attached = stack_attached(&layers, Some((&upper, &work)), &place, "").unwrap();
        let direct = Rootfs::layers(std::slice::from_ref(&lower), Some((user.as_fd(), &place)), "").unwrap();
        for mount in [&attached, &direct] {
            let path = format!("/proc/self/fd/{}/file", mount.as_raw_fd());
            assert_eq!(std::fs::metadata(path).unwrap().uid(), 300_000);
        }
        assert_eq!(std::fs::read_dir(place.join("layers")).unwrap().count(), 0);
        drop((attached, direct));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
