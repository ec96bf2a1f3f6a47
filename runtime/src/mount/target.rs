//! Places inside a container's root: found, and made where they are missing, without ever leaving it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;

use crate::error::Doing;
use crate::{Error, Result};

/// Symbolic links are followed as a process inside would see them; magic links (`/proc/self/fd/N`) are refused.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Opens a path inside the root as `O_PATH`.
pub(crate) fn open_inside(root: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    retry(|| openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), INSIDE))
}

/// Opens a directory inside the root as `O_PATH`, and makes it and those above it where they are missing.
pub(crate) fn make_directory(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let failed = || format!("make the directory {} in the container's root", path.display());
    match open_inside(&root, path) {
        Err(Errno::NOENT) => {}
        other => return other.doing(failed),
    }
    let mut made = std::path::PathBuf::from("/");
    let mut parent = open_inside(&root, &made).doing(failed)?;
    for component in path.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        made.push(name);
        parent = match open_inside(&root, &made) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => {
                // A dangling symbolic link is not followed: mkdirat says EEXIST, and openat2 says ELOOP.
                match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno).doing(failed),
                }
                let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
                let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                retry(|| openat2(&parent, name, flags, Mode::empty(), strict)).doing(failed)?
            }
            Err(errno) => return Err(errno).doing(failed),
        };
    }
    Ok(parent)
}

/// Opens a file inside the root as `O_PATH`, and makes it, empty, and the directories above it where it is missing.
pub(crate) fn make_file(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let failed = || format!("make the file {} in the container's root", path.display());
    match open_inside(&root, path) {
        Err(Errno::NOENT) => {}
        other => return other.doing(failed),
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::invalid(
            path.display().to_string(),
            "it is not a place for a file",
        ));
    };
    let parent = make_directory(&root, parent)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).doing(failed),
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    retry(|| openat2(&parent, name, flags, Mode::empty(), strict)).doing(failed)
}

/// Whether a descriptor is a directory.
pub(crate) fn is_directory(fd: impl AsFd) -> rustix::io::Result<bool> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

/// openat2(2) gives EAGAIN when somebody renamed something while it made sure to stay inside.
pub(crate) fn retry<T>(mut open: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    const ATTEMPTS: usize = 128;
    for _ in 0..ATTEMPTS {
        match open() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    open()
}
