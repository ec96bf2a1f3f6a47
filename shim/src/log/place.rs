//! Where a log file is, reached without being led astray: a pod that has `/var/log` mounted can put a symbolic link
//! where its own log or its directory should be, and must not make the shim write through it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, fstat, mkdirat, open, openat};
use rustix::io::Errno;

/// A pod's and a container's directory: the part of a log's path that is berth's own and never a link. What is above
/// it (`/var/log/pods`) is the administrator's, who may well have made it a link to a larger disk.
const OWN_DIRECTORIES: usize = 2;

/// The directory of a log file, held open, and the file's name.
pub(crate) struct Place {
    pub(crate) dir: OwnedFd,
    pub(crate) name: OsString,
}

impl Place {
    /// Opens the directory of `path`, making what is missing with mode 0755.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let (parent, name) = parts(path)?;
        let depth = parent.components().count().saturating_sub(OWN_DIRECTORIES).max(1);
        let above: std::path::PathBuf = parent.components().take(depth).collect();
        fs::create_dir_all(&above)?;
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut dir = open(&above, directory, Mode::empty())?;
        for component in parent.components().skip(depth) {
            dir = enter(dir, component.as_os_str())?;
        }
        Ok(Self { dir, name })
    }

    /// Opens the file for appending, and makes it if need be. Only a regular file will do: a FIFO would block, and a
    /// device would not be a log.
    pub(crate) fn file(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let file = openat(&self.dir, &self.name, flags, Mode::from_raw_mode(0o640))?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        Ok(file)
    }
}

fn parts(path: &Path) -> io::Result<(&Path, OsString)> {
    let plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if plain => Ok((parent, name.to_owned())),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path is not absolute and without '..'",
        )),
    }
}

fn enter(parent: OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(openat(&parent, name, flags, Mode::empty())?)
        }
        opened => Ok(opened?),
    }
}
