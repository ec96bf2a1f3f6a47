//! The two sides of a copy, and how a place on one of them is opened.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::{CopyError, failed};

/// Where to copy from, or to.
#[derive(Clone, Copy, Debug)]
pub enum Side<'a> {
    /// A path of this machine.
    Host(&'a Path),
    /// A path in a container, by its root and the user that new files belong to.
    Container {
        /// The root.
        root: BorrowedFd<'a>,
        /// Who the files are to belong to, as the host numbers it.
        owner: (u32, u32),
        /// The path in it.
        path: &'a Path,
    },
}

impl<'a> Side<'a> {
    pub(super) fn path(&self) -> &'a Path {
        match self {
            Side::Host(path) | Side::Container { path, .. } => path,
        }
    }

    pub(super) fn owner(&self) -> Option<(u32, u32)> {
        match self {
            Side::Host(_) => None,
            Side::Container { owner, .. } => Some(*owner),
        }
    }

    /// Opens a place, as the owner of this side would find it.
    pub(super) fn place(&self, path: &Path) -> Result<Option<OwnedFd>, CopyError> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let opened = match self {
            Side::Host(_) => openat(rustix::fs::CWD, path, flags, Mode::empty()),
            Side::Container { root, .. } => {
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                // Relative to the root, as everything in a container is.
                let path = Path::new("/").join(path);
                retried(|| openat2(root, &path, flags, Mode::empty(), resolve))
            }
        };
        match opened {
            Ok(place) => Ok(Some(place)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(path, error)),
        }
    }
}

/// A rename elsewhere in the container's root makes the kernel give up a lookup.
fn retried(open: impl Fn() -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<OwnedFd> {
    for _ in 0..100 {
        match open() {
            Err(Errno::AGAIN) => {}
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}
