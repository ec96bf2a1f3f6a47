//! Copying what is below a place, entry by entry.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, fchmod, fchown, fstat,
    fstatfs, futimens, mkdirat, openat, readlinkat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::super::file_user::make;
use super::{CopyError, failed};

/// Directories may be so deep: each level holds descriptors.
pub(super) const DEEPEST: usize = 200;
/// procfs and sysfs (statfs(2)): they have no end, and no files that anybody wants to keep.
const ENDLESS: [i64; 2] = [0x9fa0, 0x6265_6572];

/// Opens what a descriptor stands for, if it is an ordinary file.
pub(super) fn reopen(place: &OwnedFd, write: bool) -> io::Result<File> {
    let kind = FileType::from_raw_mode(fstat(place)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(io::Error::other("it is no ordinary file"));
    }
    File::options()
        .read(!write)
        .write(write)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
        .open(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// Where something is copied to.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) directory: &'a OwnedFd,
    pub(super) name: &'a OsStr,
    /// What it is called in messages.
    pub(super) shown: &'a Path,
    /// 0 for what the person named, 1 for what is in that.
    pub(super) depth: usize,
}

/// Copies entries one by one.
pub(super) struct Copier<'a> {
    /// Who new files are to belong to.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) warn: &'a mut dyn FnMut(&str),
}

impl Copier<'_> {
    /// Copies what `source` is.
    pub(super) fn entry(&mut self, source: OwnedFd, stat: &Stat, to: Target<'_>) -> Result<(), CopyError> {
        let shown = to.shown;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file =
                    create(to.directory, to.name, self.owner).map_err(|error| not_there(shown, &error))?;
                self.file(&source, stat, file, shown)
            }
            FileType::Directory => {
                let made = make_directory(to.directory, to.name, self.owner)
                    .map_err(|error| not_there(shown, &error))?;
                self.contents(&source, &made, shown, to.depth + 1)?;
                self.finish(made.as_fd(), stat)
                    .map_err(|error| failed(shown, error))
            }
            FileType::Symlink => self.link(&source, to),
            _ => {
                (self.warn)(&format!(
                    "{} is left out: it is neither a file nor a directory",
                    shown.display()
                ));
                Ok(())
            }
        }
    }

    pub(super) fn contents(
        &mut self,
        source: &OwnedFd,
        directory: &OwnedFd,
        shown: &Path,
        depth: usize,
    ) -> Result<(), CopyError> {
        if depth > DEEPEST {
            return Err(CopyError::Refused(format!(
                "{} is more than {DEEPEST} directories deep.",
                shown.display()
            )));
        }
        let reason = |error: Errno| failed(shown, error);
        if ENDLESS.contains(&fstatfs(source).map_err(reason)?.f_type) {
            (self.warn)(&format!(
                "{} is left out: the kernel makes it up",
                shown.display()
            ));
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let source = openat(source, ".", flags, Mode::empty()).map_err(reason)?;
        for entry in Dir::read_from(&source).map_err(reason)? {
            let entry = entry.map_err(reason)?;
            let name: &CStr = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let name = OsStr::from_bytes(name.to_bytes());
            let shown = shown.join(name);
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let child = match openat(&source, name, flags, Mode::empty()) {
                // It went while the directory was read.
                Err(Errno::NOENT) => continue,
                child => child.map_err(|error| failed(&shown, error))?,
            };
            let stat = fstat(&child).map_err(|error| failed(&shown, error))?;
            let target = Target {
                directory,
                name,
                shown: &shown,
                depth,
            };
            self.entry(child, &stat, target)?;
        }
        Ok(())
    }

    /// No more than the file had when it was looked at: its writer may never end.
    pub(super) fn file(
        &mut self,
        source: &OwnedFd,
        stat: &Stat,
        mut to: File,
        shown: &Path,
    ) -> Result<(), CopyError> {
        let reason = |error: io::Error| failed(shown, error);
        let from = reopen(source, false).map_err(reason)?;
        let size = u64::try_from(stat.st_size).ok().filter(|size| *size > 0);
        to.set_len(0).map_err(reason)?;
        io::copy(&mut from.take(size.unwrap_or(u64::MAX)), &mut to).map_err(reason)?;
        self.finish(to.as_fd(), stat).map_err(reason)
    }

    /// A link comes along if it stays in what is copied, wherever that will be.
    fn link(&mut self, source: &OwnedFd, to: Target<'_>) -> Result<(), CopyError> {
        let Target {
            directory,
            name,
            shown,
            depth,
        } = to;
        let reason = |error: Errno| failed(shown, error);
        let target = readlinkat(source, "", Vec::new()).map_err(reason)?;
        let inside = Path::new(OsStr::from_bytes(target.to_bytes()));
        if !stays_inside(inside, depth.saturating_sub(1)) {
            (self.warn)(&format!(
                "{} is left out: it is a link to {}, which is not in what is copied",
                shown.display(),
                target.to_string_lossy()
            ));
            return Ok(());
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Err(error) if error != Errno::NOENT => return Err(reason(error)),
            _ => {}
        }
        make(self.owner, || symlinkat(&target, directory, name)).map_err(reason)
    }

    /// Owner, permissions without set-user-id and the like, and time of a new file.
    fn finish(&self, file: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o777))?;
        let mtime = Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        };
        let times = Timestamps {
            last_access: mtime,
            last_modification: mtime,
        };
        Ok(futimens(file, &times)?)
    }
}

/// Why what is copied can't be made where it is to go: that it has its source's name in messages says nothing against that.
fn not_there(shown: &Path, error: &io::Error) -> CopyError {
    failed(
        shown,
        io::Error::new(error.kind(), format!("can't be made there: {error}")),
    )
}

/// A file of that name: the one that is there, or a new one.
fn create(directory: &OwnedFd, name: &OsStr, owner: Option<(u32, u32)>) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(directory, name, flags, Mode::empty()) {
        Ok(there) if FileType::from_raw_mode(fstat(&there)?.st_mode) == FileType::RegularFile => {
            return Ok(there.into());
        }
        Err(Errno::NOENT) => {}
        // A link, a pipe, a device: replaced, never written to.
        Ok(_) | Err(Errno::LOOP | Errno::NXIO) => unlinkat(directory, name, AtFlags::empty())?,
        Err(error) => return Err(error.into()),
    }
    let flags = flags | OFlags::CREATE | OFlags::EXCL;
    let file = make(owner, || {
        openat(directory, name, flags, Mode::from_raw_mode(0o600))
    })?;
    Ok(file.into())
}

/// A directory of that name: the one that is there, or a new one.
fn make_directory(directory: &OwnedFd, name: &OsStr, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
    match make(owner, || mkdirat(directory, name, Mode::from_raw_mode(0o700))) {
        Err(error) if error != Errno::EXIST => return Err(error.into()),
        _ => {}
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?)
}

/// Whether a link, so many directories below what is copied, leads to somewhere in that. `..` counts only at its beginning,
/// where the directories are those that are made here: after a name it would depend on what that name is a link to.
pub(super) fn stays_inside(target: &Path, depth: usize) -> bool {
    let mut up = 0;
    let mut named = false;
    for component in target.components() {
        match component {
            Component::ParentDir if !named => up += 1,
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            _ => return false,
        }
    }
    up <= depth
}
