//! Deleting a tree, and nothing else, however deep somebody has made it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Deletes `path` with all that is in it. A tree that is not there is deleted.
///
/// Symbolic links are deleted, never followed. A mount in the tree is an error and nothing behind it is touched: it may
/// be a directory of the host. Directories are entered by descriptor, so that nobody can swap one for a link; two of them
/// are open at a time, and none stands on the stack, so that a container can't make a tree that is too deep.
///
/// # Errors
/// Something is mounted in the tree, somebody moves its directories meanwhile, or the file system refuses.
pub fn delete_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a root directory can't be deleted",
        ));
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    };
    let name = CString::new(name.as_encoded_bytes())?;
    let Some(directory) = unlink_or_enter(parent.as_fd(), &name)? else {
        return Ok(());
    };
    empty(directory)?;
    remove(parent.as_fd(), &name)
}

/// A directory on the way down.
struct Above {
    /// Device and inode.
    identity: (u64, u64),
    /// The name of the one below.
    below: CString,
    /// What is left to delete in it.
    left: Vec<CString>,
}

/// Deletes what is in a directory.
fn empty(directory: OwnedFd) -> io::Result<()> {
    let mut here = directory;
    let mut left = names(&here)?;
    let mut above: Vec<Above> = Vec::new();
    loop {
        if let Some(name) = left.pop() {
            if let Some(child) = unlink_or_enter(here.as_fd(), &name)? {
                above.push(Above {
                    identity: identity(&here)?,
                    below: name,
                    left: std::mem::replace(&mut left, names(&child)?),
                });
                here = child;
            }
            continue;
        }
        let Some(up) = above.pop() else { return Ok(()) };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        here = rustix::fs::openat(&here, "..", flags, Mode::empty())?;
        if identity(&here)? != up.identity {
            let name = up.below.to_string_lossy();
            return Err(io::Error::other(format!(
                "the directory {name} was moved while it was deleted"
            )));
        }
        remove(here.as_fd(), &up.below)?;
        left = up.left;
    }
}

/// Deletes what is no directory, or opens what is one.
fn unlink_or_enter(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<OwnedFd>> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(Errno::ISDIR) => {}
        Err(Errno::BUSY) => return Err(mounted(name)),
        Err(error) => return Err(error.into()),
    }
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

fn remove(parent: BorrowedFd<'_>, directory: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, directory, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

fn identity(directory: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
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
    fn wide_and_branched_trees_go_whole() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        for branch in 0..20 {
            let deep = tree.join(format!("{branch}/a/b"));
            fs::create_dir_all(&deep).unwrap();
            fs::create_dir(tree.join(format!("{branch}/c"))).unwrap();
            (0..20).for_each(|file| fs::write(deep.join(file.to_string()), "").unwrap());
        }
        delete_tree(&tree).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_tree_can_t_be_too_deep() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut here: OwnedFd = fs::File::open(&tree).unwrap().into();
        // Deeper than there may be open files, and than a thread's stack.
        for _ in 0..30_000 {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            here = rustix::fs::openat(&here, "d", flags, Mode::empty()).unwrap();
        }
        drop(here);
        delete_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
