//! Deleting a tree of ours, and nothing else.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Deletes `path` with all that is in it. A tree that is not there is deleted.
///
/// Symbolic links are deleted, never followed. A mount in the tree is an error and nothing behind it is touched: it may
/// be a directory of the host. Directories are entered by descriptor, so that nobody can swap one for a link.
pub(crate) fn delete_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a root directory can't be deleted",
        ));
    };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    };
    let name = std::ffi::CString::new(name.as_encoded_bytes())?;
    delete_entry(parent.as_fd(), &name)
}

fn delete_entry(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(Errno::BUSY) => return Err(mounted(name)),
        Err(error) => return Err(error.into()),
    }
    let Some(directory) = enter(parent, name)? else {
        return Ok(());
    };
    empty(directory)?;
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn enter(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    loop {
        match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
            Ok(directory) => return Ok(Some(directory)),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::XDEV) => return Err(mounted(name)),
            Err(error) => return Err(error.into()),
        }
    }
}

fn empty(directory: OwnedFd) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names
        .iter()
        .try_for_each(|name| delete_entry(directory.as_fd(), name))
}

fn mounted(name: &CStr) -> io::Error {
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!("{} is a mount and is not ours to delete", name.to_string_lossy()),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::mounts;
    use super::*;

    #[test]
    fn links_are_deleted_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("host");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("file"), "x").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        symlink(&host, tree.join("a/link")).unwrap();
        symlink(&host, tree.join("top")).unwrap();
        fs::write(tree.join("a/b/f"), "x").unwrap();
        delete_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(host.join("file").exists());
        delete_tree(&tree).unwrap();
        delete_tree(&dir.path().join("absent/tree")).unwrap();
        symlink(&host, &tree).unwrap();
        delete_tree(&tree).unwrap();
        assert!(host.join("file").exists() && tree.symlink_metadata().is_err());
    }

    #[test]
    fn a_bind_mount_of_the_same_file_system_is_not_entered() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("host");
        let target = dir.path().join("tree/volume");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("file"), "x").unwrap();
        fs::create_dir_all(&target).unwrap();
        let source = super::super::beneath::open_dir(&host).unwrap();
        mounts::bind_descriptor(source.as_fd(), &target).unwrap();
        assert!(delete_tree(&dir.path().join("tree")).is_err());
        assert!(host.join("file").exists());
        mounts::unmount_below(dir.path()).unwrap();
        delete_tree(&dir.path().join("tree")).unwrap();
        assert!(host.join("file").exists());
    }
}
