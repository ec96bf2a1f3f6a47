//! `fsGroup`: a volume's files belong to a group of the pod.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::beneath::{kind_and_mode, open_dir};

/// `rw` for owner and group.
const FILE_MASK: u32 = 0o660;
/// `rwx` for the group, and new files inherit it.
const DIR_MASK: u32 = 0o2000 | 0o770;

/// When ownership is changed, as in `fsGroupChangePolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangePolicy {
    /// At each set-up.
    Always,
    /// Only if the volume's root is not as it should be.
    OnRootMismatch,
}

/// Gives the volume at `root` to the group `gid`: group and mode of each file and directory. Symbolic links and mounts
/// are left alone.
pub(crate) fn set(root: &Path, gid: u32, policy: ChangePolicy) -> io::Result<()> {
    let directory = open_dir(root)?;
    if policy == ChangePolicy::OnRootMismatch && matches(directory.as_fd(), gid)? {
        return Ok(());
    }
    // The root comes last: after a crash in between, it does not match yet.
    set_children(directory.as_fd(), gid)?;
    set_one(directory.as_fd(), gid)
}

fn matches(directory: BorrowedFd<'_>, gid: u32) -> io::Result<bool> {
    let stat = rustix::fs::fstat(directory)?;
    Ok(stat.st_gid == gid && stat.st_mode & DIR_MASK == DIR_MASK)
}

fn set_children(directory: BorrowedFd<'_>, gid: u32) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if matches!(name.as_bytes(), b"." | b"..") {
            continue;
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let child = match rustix::fs::openat2(directory, &name, flags, Mode::empty(), resolve) {
            Err(Errno::NOENT | Errno::XDEV) => continue,
            result => result?,
        };
        match kind_and_mode(child.as_fd())?.0 {
            FileType::Symlink => continue,
            FileType::Directory => set_children(readable(&child)?.as_fd(), gid)?,
            _ => {}
        }
        set_one(child.as_fd(), gid)?;
    }
    Ok(())
}

fn readable(directory: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, ".", flags, Mode::empty())?)
}

/// `file` is not a symbolic link.
fn set_one(file: BorrowedFd<'_>, gid: u32) -> io::Result<()> {
    rustix::fs::chownat(file, "", None, Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
    let (kind, mode) = kind_and_mode(file)?;
    let mask = if kind == FileType::Directory {
        DIR_MASK
    } else {
        FILE_MASK
    };
    // fchmod(2) does not take O_PATH descriptors; through /proc it is the same file.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::chmod(path, mode | Mode::from_raw_mode(mask))?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn owner(path: &Path) -> (u32, u32) {
        let metadata = path.symlink_metadata().unwrap();
        (metadata.gid(), metadata.mode() & 0o7777)
    }

    #[test]
    fn files_and_directories_get_the_group_and_links_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("host");
        fs::write(&host, "x").unwrap();
        let before = owner(&host);
        let volume = dir.path().join("volume");
        fs::create_dir_all(volume.join("d")).unwrap();
        fs::write(volume.join("d/f"), "x").unwrap();
        symlink(&host, volume.join("link")).unwrap();
        set(&volume, 4242, ChangePolicy::Always).unwrap();
        assert_eq!(owner(&volume.join("d/f")), (4242, 0o664));
        assert_eq!(owner(&volume.join("d")), (4242, 0o2775));
        assert_eq!(owner(&volume), (4242, 0o2775));
        assert_eq!(owner(&host), before);
    }

    #[test]
    fn on_root_mismatch_trusts_a_matching_root() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir(&volume).unwrap();
        set(&volume, 4242, ChangePolicy::OnRootMismatch).unwrap();
        fs::write(volume.join("f"), "x").unwrap();
        std::os::unix::fs::chown(volume.join("f"), None, Some(0)).unwrap();
        set(&volume, 4242, ChangePolicy::OnRootMismatch).unwrap();
        assert_eq!(owner(&volume.join("f")).0, 0);
        set(&volume, 4242, ChangePolicy::Always).unwrap();
        assert_eq!(owner(&volume.join("f")).0, 4242);
    }
}
