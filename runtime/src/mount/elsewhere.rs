//! Sources in another mount namespace than the creator's, which keeps mounts of its own that nobody else sees.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::process::{chroot, fchdir};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::options::Options;
use super::source::{Origin, clone_tree, inside};
use crate::error::Doing;
use crate::{Result, oci};

/// Where the sources of bind mounts are looked up, if not in the creator's mount namespace.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere<'a> {
    /// The mount namespace that has them.
    pub namespace: BorrowedFd<'a>,
    /// The directory of that namespace at which absolute paths begin.
    pub root: BorrowedFd<'a>,
    /// What is at or below this directory is the creator's own.
    pub except: &'a Path,
}

impl Elsewhere<'_> {
    /// Detached copies of mounts that are there, each with all below it if its flag says so: for who mounts them by other
    /// means than [`crate::create`]. `None` for a source that is the creator's own. One visit is enough for all.
    ///
    /// # Errors
    /// When a source is missing, or the kernel lets no mount of it be copied.
    pub fn copies(&self, sources: &[(PathBuf, bool)]) -> Result<Vec<Option<OwnedFd>>> {
        let copy = |(path, recursive): &(PathBuf, bool)| {
            let copied = self.has(path).then(|| clone_tree(CWD, path, *recursive));
            copied
                .transpose()
                .doing(|| format!("bind-mount {}", path.display()))
        };
        if !sources.iter().any(|(path, _)| self.has(path)) {
            return Ok(sources.iter().map(|_| None).collect());
        }
        self.visit(|| sources.iter().map(copy).collect())
    }

    /// Whether a source is there.
    pub(super) fn has(&self, source: &Path) -> bool {
        !source.starts_with(self.except)
    }

    /// Does something there. Copying a mount takes a process of its namespace; a descriptor is not enough.
    pub(super) fn visit<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let back = Back::here()?;
        let there =
            enter(self.namespace, self.root).doing(|| "enter the sources' mount namespace".to_owned());
        let done = there.and_then(|()| act());
        back.go()?;
        done
    }
}

/// Copies of the mounts' sources that are elsewhere, each in its mount's place: one visit is enough for all.
pub(super) fn copy_trees(mounts: &[oci::Mount], origin: &Origin<'_>) -> Result<Vec<Option<OwnedFd>>> {
    let Some(elsewhere) = &origin.elsewhere else {
        return Ok(Vec::new());
    };
    let recursion = |(i, mount): (usize, &oci::Mount)| -> Result<Option<bool>> {
        let options = Options::parse(&mount.options)?;
        let bind = options.bind.or_else(|| (mount.typ == "bind").then_some(false));
        let source = origin.bundle.join(&mount.source);
        let there = !options.remount
            && !mount.source.as_os_str().is_empty()
            && elsewhere.has(&source)
            && inside(&source, &mounts[..i], origin).is_none();
        Ok(bind.filter(|_| there))
    };
    let recursions = mounts
        .iter()
        .enumerate()
        .map(recursion)
        .collect::<Result<Vec<_>>>()?;
    if recursions.iter().all(Option::is_none) {
        return Ok(Vec::new());
    }
    let copy = |(mount, recursive): (&oci::Mount, Option<bool>)| {
        let path = origin.bundle.join(&mount.source);
        let copy =
            |recursive| clone_tree(CWD, &path, recursive).doing(|| format!("bind-mount {}", path.display()));
        recursive.map(copy).transpose()
    };
    elsewhere.visit(|| mounts.iter().zip(recursions).map(copy).collect())
}

/// The way back.
struct Back {
    namespace: OwnedFd,
    root: OwnedFd,
    directory: OwnedFd,
}

impl Back {
    fn here() -> Result<Back> {
        let open = |path, flags| {
            open(path, flags | OFlags::CLOEXEC, Mode::empty())
                .doing(|| format!("open {path} to come back to it"))
        };
        Ok(Back {
            namespace: open("/proc/thread-self/ns/mnt", OFlags::RDONLY)?,
            root: open("/", OFlags::PATH)?,
            directory: open(".", OFlags::PATH)?,
        })
    }

    fn go(self) -> Result<()> {
        enter(self.namespace.as_fd(), self.root.as_fd())
            .and_then(|()| fchdir(&self.directory))
            .doing(|| "come back to the mount namespace".to_owned())
    }
}

/// The kernel takes a process to the namespace's own root directory.
fn enter(namespace: BorrowedFd<'_>, root: BorrowedFd<'_>) -> rustix::io::Result<()> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))?;
    fchdir(root)?;
    chroot(".")
}
