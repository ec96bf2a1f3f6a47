//! Images as volumes: mounted in the shim's own mount namespace, where a container's bind mounts find them. With the
//! bundle's directory, or with the shim, the mounts go.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_runtime::Rootfs;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use crate::error::RequestError;
use crate::protocol::{ImageVolume, VOLUMES_DIR};

/// Mounts the images of a container, with the ids of its user namespace if it has one.
pub(crate) fn mount_all(
    bundle: &Path,
    volumes: &[ImageVolume],
    user: Option<BorrowedFd<'_>>,
) -> Result<(), RequestError> {
    for (number, volume) in volumes.iter().enumerate() {
        let place = bundle.join(VOLUMES_DIR).join(number.to_string());
        fs::create_dir_all(&place).map_err(RequestError::io(format!("make {}", place.display())))?;
        mount_one(&place, volume, user)?;
    }
    Ok(())
}

fn mount_one(place: &Path, volume: &ImageVolume, user: Option<BorrowedFd<'_>>) -> Result<(), RequestError> {
    let failed = |errno: Errno| RequestError::io("mount an image as a volume")(io::Error::from(errno));
    let mut lower = volume.lower.clone();
    if !volume.label.is_empty() && lower.len() == 1 {
        // Only an overlay has a label for all of its files, and that is of two directories at least: this one is empty.
        lower.push(place.to_owned());
    }
    let image = Rootfs::layers(&lower, user.map(|user| (user, place)), &volume.label)?;
    attach(&image, place).map_err(failed)?;
    if volume.sub_path.as_os_str().is_empty() {
        return Ok(());
    }
    // A mount that is attached nowhere can't be copied by older kernels, so the part is taken from one that is, which
    // then makes room for it. An image does not change meanwhile.
    let part = part_of(&image, &volume.sub_path).map_err(|errno| missing(&volume.sub_path, errno));
    let detached = unmount(place, UnmountFlags::DETACH).map_err(failed);
    let part = part?;
    detached?;
    attach(&part, place).map_err(failed)
}

/// A directory of the image, as a mount. Links in the image lead where they would in a container of it.
fn part_of(image: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let directory = openat2(image, path, flags, Mode::empty(), resolve)?;
    let copy = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(directory, "", copy)
}

fn missing(path: &Path, errno: Errno) -> RequestError {
    let path = path.display();
    match errno {
        Errno::NOENT => RequestError::Invalid(format!("There is no directory {path} in the image")),
        Errno::NOTDIR => RequestError::Invalid(format!("{path} is not a directory in the image")),
        errno => RequestError::io(format!("find {path} in an image"))(io::Error::from(errno)),
    }
}

/// Attaches a detached mount.
pub(crate) fn attach(mount: impl AsFd, place: &Path) -> Result<(), Errno> {
    move_mount(mount, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
