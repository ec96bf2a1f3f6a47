//! Counting what a directory takes while somebody who is not trusted changes it.
//!
//! Directories are opened beneath the one that is counted, through no link: a container that puts a link in a
//! directory's place meanwhile leads nobody out of its layer.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, open, openat2, statat};
use rustix::io::Errno;

use super::disk::Usage;

/// Counts a directory, with everything in it on the same file system. What vanishes meanwhile is not counted. A directory
/// whose path is too long for the kernel is counted without what it holds.
pub(super) fn walk(directory: &Path) -> io::Result<Usage> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = open(directory, flags, Mode::empty())?;
    let mut walk = Walk {
        usage: Usage::default(),
        linked: HashSet::new(),
        directories: vec![PathBuf::from(".")],
    };
    walk.add(&rustix::fs::fstat(&root)?);
    while let Some(path) = walk.directories.pop() {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match openat2(&root, &path, flags, Mode::empty(), beneath) {
            Ok(opened) => walk.read(&path, opened)?,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(walk.usage)
}

struct Walk {
    usage: Usage,
    /// Files with several names that were counted.
    linked: HashSet<u64>,
    /// To be read yet, relative to the layer.
    directories: Vec<PathBuf>,
}

impl Walk {
    fn read(&mut self, path: &Path, directory: OwnedFd) -> io::Result<()> {
        for entry in Dir::read_from(&directory)? {
            let entry = match entry {
                Ok(entry) => entry,
                // The directory itself was removed.
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(errno.into()),
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let status = match statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(status) => status,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
                self.directories.push(path.join(name));
                self.add(&status);
            } else if status.st_nlink < 2 || self.linked.insert(status.st_ino) {
                self.add(&status);
            }
        }
        Ok(())
    }

    fn add(&mut self, status: &Stat) {
        // stat(2): blocks of 512 bytes, whatever the file system's are.
        let blocks = u64::try_from(status.st_blocks).unwrap_or(0);
        self.usage.bytes = self.usage.bytes.saturating_add(blocks.saturating_mul(512));
        self.usage.inodes += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn everything_is_counted_once_and_nothing_outside() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("big"), vec![1; 1 << 20]).unwrap();
        let layer = tempfile::tempdir().unwrap();
        let path = |name: &str| layer.path().join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        fs::write(path("a/b/file"), vec![1; 100_000]).unwrap();
        fs::hard_link(path("a/b/file"), path("a/again")).unwrap();
        symlink(outside.path(), path("out")).unwrap();
        let usage = walk(layer.path()).unwrap();
        assert_eq!(usage.inodes, 5, "the layer, two directories, a file and a link");
        let blocks = |name: &str| fs::symlink_metadata(path(name)).unwrap().blocks() * 512;
        let expected = ["", "a", "a/b", "a/b/file", "out"]
            .map(blocks)
            .iter()
            .sum::<u64>();
        assert_eq!(usage.bytes, expected);
        assert!(walk(&path("out")).is_err(), "a layer is not a link");
        assert!(walk(&path("missing")).is_err());
    }

    #[test]
    fn a_deep_tree_is_no_error() {
        let layer = tempfile::tempdir().unwrap();
        let mut parent: OwnedFd = fs::File::open(layer.path()).unwrap().into();
        let name = "d".repeat(200);
        for _ in 0..30 {
            rustix::fs::mkdirat(&parent, &name, Mode::RWXU).unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            parent = rustix::fs::openat(&parent, &name, flags, Mode::empty()).unwrap();
        }
        let usage = walk(layer.path()).unwrap();
        assert!((20..31).contains(&usage.inodes), "{usage:?}");
    }
}
