//! Places inside a container's root: found, and made where they are missing, without ever leaving it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::proc::is_proc;
use crate::error::Doing;
use crate::{Error, Result};

/// Symbolic links are followed as a process inside would see them; magic links (`/proc/self/fd/N`) are refused.
pub(crate) const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// One step down: into a mount, but through no link, and not up.
const ONE_STEP: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// As many links as the kernel follows in one path, see path_resolution(7).
const MAX_LINKS: usize = 40;

/// A place for a mount.
#[derive(Debug)]
pub(crate) struct Place {
    /// The place, as `O_PATH`.
    pub(crate) fd: OwnedFd,
    /// It was not there before.
    pub(crate) made: bool,
}

/// Opens a path inside the root as `O_PATH`.
pub(crate) fn open_inside(root: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    retry(|| openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), INSIDE))
}

/// Opens a directory inside the root as `O_PATH`, and makes it and those above it where they are missing.
pub(crate) fn make_directory(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    place(root, path, true).map(|place| place.fd)
}

/// Opens a path inside the root as `O_PATH`. Where it is missing a directory, or with `directory` unset an empty file,
/// is made, with the directories above it. A symbolic link that leads nowhere is followed to the place that it names.
pub(crate) fn place(root: impl AsFd, path: &Path, directory: bool) -> Result<Place> {
    let kind = if directory { "directory" } else { "file" };
    let failed = || format!("make the {kind} {} in the container's root", path.display());
    match open_inside(&root, path) {
        Err(Errno::NOENT) => {}
        other => return other.map(|fd| Place { fd, made: false }).doing(failed),
    }
    let fd = match make_last(&root, path, directory) {
        Some(fd) => fd,
        None => walk(&root, path, directory).doing(failed)?,
    };
    Ok(Place { fd, made: true })
}

/// Makes a directory in an open one. `None` if something is there already.
pub(super) fn make_new(parent: &OwnedFd, name: &OsStr) -> Option<OwnedFd> {
    mkdirat(parent, name, Mode::from_raw_mode(0o755)).ok()?;
    step(parent, name).ok()
}

/// Where only the last name is missing, as nearly always, there is no need to go down step by step.
fn make_last(root: &impl AsFd, path: &Path, directory: bool) -> Option<OwnedFd> {
    let parent = open_inside(root, path.parent()?).ok()?;
    let name = path.file_name()?;
    make(&parent, name, directory).ok()?;
    // A symbolic link to nowhere is there, too: that one is for the long way.
    step(&parent, name).ok()
}

/// Goes down component by component and makes what is missing. Each directory on the way is held: `..` goes back to
/// the one that was passed, wherever somebody has moved it meanwhile.
fn walk(root: &impl AsFd, path: &Path, directory: bool) -> rustix::io::Result<OwnedFd> {
    let mut way = vec![open_inside(root, Path::new("/"))?];
    let mut rest = components(path.as_os_str());
    let mut detours = 0;
    while let Some(name) = rest.pop() {
        let Some(here) = way.last() else {
            return Err(Errno::NOENT);
        };
        if name == ".." {
            way.truncate(way.len().saturating_sub(1).max(1));
            continue;
        }
        match step(here, &name) {
            Ok(next) => {
                way.push(next);
                continue;
            }
            Err(Errno::LOOP) if is_magic(here, &name) => return Err(Errno::LOOP),
            Err(Errno::LOOP) => {
                let link = OsString::from_vec(readlinkat(here, &*name, Vec::new())?.into_bytes());
                if link.as_bytes().starts_with(b"/") {
                    way.truncate(1);
                }
                rest.extend(components(&link));
            }
            Err(Errno::NOENT) => {
                make(here, &name, directory || !rest.is_empty())?;
                rest.push(name);
            }
            Err(errno) => return Err(errno),
        }
        detours += 1;
        if detours > MAX_LINKS + path.as_os_str().len() {
            return Err(Errno::LOOP);
        }
    }
    way.pop().ok_or(Errno::NOENT)
}

/// The names of a path, the last one first.
fn components(path: &OsStr) -> Vec<OsString> {
    let names = path.as_bytes().split(|byte| *byte == b'/');
    let names = names.filter(|name| !name.is_empty() && *name != b".");
    names
        .rev()
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect()
}

fn step(here: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    retry(|| openat2(here, name, flags, Mode::empty(), ONE_STEP))
}

/// Whether a link is one of those of a procfs that lead to open files instead of to what they say.
fn is_magic(here: &OwnedFd, name: &OsStr) -> bool {
    let open = || openat2(here, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), INSIDE);
    is_proc(here) && retry(open).is_err_and(|errno| errno == Errno::LOOP)
}

/// Somebody else may be faster: what is there is looked at afterwards.
fn make(here: &OwnedFd, name: &OsStr, directory: bool) -> rustix::io::Result<()> {
    let made = if directory {
        mkdirat(here, name, Mode::from_raw_mode(0o755))
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        openat(here, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Opens a directory that no symbolic link leads to, and makes it where it is missing: an image must not choose where
/// the kernel's own file systems go.
pub(crate) fn ordinary_directory(root: impl AsFd, path: &Path, kind: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let strict = INSIDE | ResolveFlags::NO_SYMLINKS;
    let open = || retry(|| openat2(&root, path, flags, Mode::empty(), strict));
    let opened = match open() {
        Err(Errno::NOENT) => {
            place(&root, path, true)?;
            open()
        }
        other => other,
    };
    match opened {
        Err(Errno::LOOP | Errno::NOTDIR) => {
            let reason = format!(
                "{kind} must be mounted on an ordinary directory, which the image does not have there"
            );
            Err(Error::invalid(format!("mounts[{}]", path.display()), reason))
        }
        other => other.doing(|| format!("open {} in the container's root", path.display())),
    }
}

/// Opens a file of an open directory as `O_PATH`, and makes it, empty, where it is missing. A symbolic link is refused.
pub(crate) fn file_in(directory: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match openat(&directory, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    retry(|| openat2(&directory, name, flags, Mode::empty(), ONE_STEP))
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
