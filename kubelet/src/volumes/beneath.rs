//! Opening and making paths beneath a directory, with no way out of it.
//!
//! Every lookup is one openat2(2) with `RESOLVE_BENEATH`: a symbolic link that leads out, `..` and magic links end in an
//! error whatever a container does to the tree meanwhile.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};

/// Opens a directory of ours by its path, without reading it.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::RDONLY;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Opens `path` beneath `root` as an `O_PATH` descriptor, following only links that stay beneath `root`.
pub(crate) fn open_path(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    open(root, path, OFlags::PATH)
}

/// Opens `path` beneath `root` with these flags, following only links that stay beneath `root`.
pub(crate) fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename on the way made the kernel unsure that the path stayed beneath.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Opens the directory `path` beneath `root`, making what is missing of it with `mode`.
pub(crate) fn open_or_make_dirs(root: BorrowedFd<'_>, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    let mut directory = open(root, Path::new("."), OFlags::PATH)?;
    let mut walked = std::path::PathBuf::new();
    for name in components(path)? {
        walked.push(name);
        let next = match open_path(root, &walked) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_dir(directory.as_fd(), name, mode)?;
                open_path(root, &walked)?
            }
            result => result?,
        };
        directory = next;
    }
    Ok(directory)
}

fn make_dir(directory: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> io::Result<()> {
    match rustix::fs::mkdirat(directory, name, mode) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    // The umask took bits away. The new directory is opened without following a link put in its place.
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    Ok(rustix::fs::fchmod(made, mode)?)
}

/// The names of a relative path without `..`.
pub(crate) fn components(path: &Path) -> io::Result<Vec<&OsStr>> {
    path.components()
        .filter(|component| *component != Component::CurDir)
        .map(|component| match component {
            Component::Normal(name) => Ok(name),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the path {:?} must be relative and must not contain \"..\"",
                    path.display().to_string()
                ),
            )),
        })
        .collect()
}

/// Whether a descriptor is of a directory, and its permission bits.
pub(crate) fn kind_and_mode(fd: BorrowedFd<'_>) -> io::Result<(FileType, Mode)> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?;
    Ok((
        FileType::from_raw_mode(stat.st_mode),
        Mode::from_raw_mode(stat.st_mode),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_inside_are_followed_and_links_out_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir_all(volume.join("a/b")).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        symlink("a/b", volume.join("inside")).unwrap();
        symlink("..", volume.join("out")).unwrap();
        symlink("/", volume.join("root")).unwrap();
        symlink("/proc/self/root", volume.join("magic")).unwrap();
        let root = open_dir(&volume).unwrap();
        open_path(root.as_fd(), Path::new("inside")).unwrap();
        for path in [
            "out",
            "out/secret",
            "root",
            "magic",
            "../secret",
            "/etc",
            "a/../../secret",
        ] {
            assert!(open_path(root.as_fd(), Path::new(path)).is_err(), "{path}");
        }
        let mode = Mode::from_raw_mode(0o750);
        assert!(open_or_make_dirs(root.as_fd(), Path::new("out/made"), mode).is_err());
        assert!(open_or_make_dirs(root.as_fd(), Path::new("../made"), mode).is_err());
        assert!(!dir.path().join("made").exists());
        let made = open_or_make_dirs(root.as_fd(), Path::new("a/c/d"), mode).unwrap();
        assert_eq!(kind_and_mode(made.as_fd()).unwrap().1, mode);
    }
}
