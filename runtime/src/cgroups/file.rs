//! Control files, always reached through a descriptor: of the group's directory, or of the hierarchy's root.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{read, write};

use super::hierarchy::Hierarchy;
use super::{CgroupError, CgroupPath, Result};

/// How directories are held.
pub(super) const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// One group's directory in one hierarchy.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) hierarchy: &'static Hierarchy,
    pub(super) path: CgroupPath,
    /// Opened when something needs it: of a group that was just made, in most hierarchies one file is all that is ever
    /// opened, and that has a path from the root.
    fd: OnceLock<OwnedFd>,
}

impl Directory {
    /// A directory that is held open.
    pub(super) fn held(hierarchy: &'static Hierarchy, path: CgroupPath, fd: OwnedFd) -> Directory {
        Directory {
            hierarchy,
            path,
            fd: OnceLock::from(fd),
        }
    }

    /// A directory that is there.
    pub(super) fn named(hierarchy: &'static Hierarchy, path: CgroupPath) -> Directory {
        Directory {
            hierarchy,
            path,
            fd: OnceLock::new(),
        }
    }

    /// The directory, as `O_PATH`.
    pub(super) fn fd(&self) -> Result<BorrowedFd<'_>> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd.as_fd());
        }
        let fd = openat(&self.hierarchy.root, self.path.as_str(), DIRECTORY, Mode::empty())
            .map_err(|e| self.failed("open", "the directory", e))?;
        Ok(self.fd.get_or_init(|| fd).as_fd())
    }

    /// From where, and by which path, a file of the directory is reached.
    pub(super) fn at<'a>(&'a self, file: &'a str) -> (BorrowedFd<'a>, Cow<'a, str>) {
        match self.fd.get() {
            Some(fd) => (fd.as_fd(), file.into()),
            None => (
                self.hierarchy.root.as_fd(),
                [self.path.as_str(), file].join("/").into(),
            ),
        }
    }

    fn open_file(&self, file: &str, flags: OFlag) -> std::result::Result<OwnedFd, Errno> {
        let (directory, path) = self.at(file);
        openat(directory, &*path, flags | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// Opens a control file.
    pub(super) fn open(&self, file: &str, flags: OFlag) -> Result<OwnedFd> {
        self.open_file(file, flags)
            .map_err(|e| self.failed("open", file, e))
    }

    /// Writes a value in one `write`, as cgroupfs requires.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<()> {
        match self.try_write(file, value)? {
            Ok(()) => Ok(()),
            Err(errno) => Err(self.refused(file, value, errno)),
        }
    }

    /// Like [`write`](Self::write), for what a group needs no more that was removed, if only since its file was opened.
    pub(super) fn write_unless_gone(&self, file: &str, value: &str) -> Result<()> {
        match self.try_write(file, value) {
            Err(error) if error.is_gone() => Ok(()),
            other => match other? {
                Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => Ok(()),
                Err(errno) => Err(self.refused(file, value, errno)),
            },
        }
    }

    /// Like [`write`](Self::write), but hands the kernel's refusal of the value to the caller.
    pub(super) fn try_write(&self, file: &str, value: &str) -> Result<std::result::Result<(), Errno>> {
        let fd = self.open(file, OFlag::O_WRONLY)?;
        Ok(write_once(fd.as_fd(), value.as_bytes()))
    }

    /// The whole content of a control file.
    pub(super) fn read(&self, file: &str) -> Result<String> {
        let fd = self.open(file, OFlag::O_RDONLY)?;
        read_all(fd.as_fd()).map_err(|e| self.failed("read", file, e))
    }

    /// The whole content, or `None` if the kernel has no such file here.
    pub(super) fn read_if_present(&self, file: &str) -> Result<Option<String>> {
        match self.open_file(file, OFlag::O_RDONLY) {
            Ok(fd) => read_all(fd.as_fd())
                .map(Some)
                .map_err(|e| self.failed("read", file, e)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.failed("open", file, errno)),
        }
    }

    /// A file that holds one number; `max` and what doesn't fit is `u64::MAX`.
    pub(super) fn read_number(&self, file: &str) -> Result<u64> {
        let text = self.read(file)?;
        match text.trim() {
            "max" => Ok(u64::MAX),
            number => number.parse().map_err(|_| self.not_understood(file, &text)),
        }
    }

    /// As [`read_number`](Self::read_number), or `None` if the kernel has no such file here.
    pub(super) fn number_if_present(&self, file: &str) -> Result<Option<u64>> {
        let Some(text) = self.read_if_present(file)? else {
            return Ok(None);
        };
        match text.trim() {
            "max" => Ok(Some(u64::MAX)),
            number => number
                .parse()
                .map(Some)
                .map_err(|_| self.not_understood(file, &text)),
        }
    }

    /// Whether the kernel has this control file here.
    pub(super) fn has(&self, file: &str) -> bool {
        self.open_file(file, OFlag::O_PATH).is_ok()
    }

    pub(super) fn failed(&self, action: &'static str, file: &str, errno: Errno) -> CgroupError {
        CgroupError::File {
            action,
            file: file.to_owned(),
            path: self.path.to_string(),
            hierarchy: self.hierarchy.to_string(),
            errno,
        }
    }

    pub(super) fn refused(&self, file: &str, value: &str, errno: Errno) -> CgroupError {
        CgroupError::Write {
            file: file.to_owned(),
            value: value.to_owned(),
            path: self.path.to_string(),
            errno,
        }
    }

    pub(super) fn not_understood(&self, file: &str, content: &str) -> CgroupError {
        CgroupError::Content {
            file: file.to_owned(),
            path: self.path.to_string(),
            content: content.to_owned(),
        }
    }
}

/// One `write`, repeated only when a signal interrupted it.
pub(super) fn write_once(fd: BorrowedFd<'_>, bytes: &[u8]) -> std::result::Result<(), Errno> {
    loop {
        match write(fd, bytes) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads a file of a single line, at once.
pub(super) fn read_line(fd: BorrowedFd<'_>) -> std::result::Result<String, Errno> {
    let mut buffer = [0_u8; 1024];
    let length = loop {
        match read(fd, &mut buffer) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    // A longer one goes on.
    let rest = if length == buffer.len() {
        read_all(fd)?
    } else {
        String::new()
    };
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned() + &rest)
}

/// Reads to the end.
pub(super) fn read_all(fd: BorrowedFd<'_>) -> std::result::Result<String, Errno> {
    let mut buffer = [0_u8; 4096];
    let mut content = Vec::new();
    loop {
        match read(fd, &mut buffer) {
            Ok(0) => break,
            Ok(n) => content.extend_from_slice(&buffer[..n]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// The number after `key` in a file of `key value` lines.
pub(super) fn keyed_number(content: &str, key: &str) -> Option<u64> {
    content.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_numbers() {
        let events = "low 0\noom 3\noom_kill 2\n";
        assert_eq!(keyed_number(events, "oom_kill"), Some(2));
        assert_eq!(keyed_number(events, "oom"), Some(3));
        assert_eq!(keyed_number(events, "max"), None);
    }
}
