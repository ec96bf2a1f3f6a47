//! Control files, always reached through the descriptor of the group's directory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{read, write};

use super::hierarchy::Hierarchy;
use super::{CgroupError, CgroupPath, Result};

/// One group's directory in one hierarchy.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) hierarchy: &'static Hierarchy,
    pub(super) fd: OwnedFd,
    pub(super) path: CgroupPath,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    /// Opens a control file.
    pub(super) fn open(&self, file: &str, flags: OFlag) -> Result<OwnedFd> {
        openat(&self.fd, file, flags | OFlag::O_CLOEXEC, Mode::empty())
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
        match openat(&self.fd, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
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
        openat(&self.fd, file, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).is_ok()
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
