//! A tmpfs that begins with what the image has in its place (`tmpcopyup`).

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fgetxattr, fsetxattr, futimens, mkdirat, mknodat, openat, readlinkat, sendfile, statat,
    symlinkat,
};
use rustix::io::Errno;

/// File capabilities. Other attributes are not what an image is made of.
const CAPABILITIES: &CStr = c"security.capability";

/// Copies the contents of a directory, with owners, modes and times. Hard links become files of their own.
pub(super) fn copy_contents(from: impl AsFd, to: impl AsFd) -> rustix::io::Result<()> {
    let readable = open_directory(from, c".")?;
    copy_directory(&readable, &open_directory(to, c".")?)
}

fn open_directory(at: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(from, to, name)?;
        }
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match kind {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU)?;
            let (old, new) = (open_directory(from, name)?, open_directory(to, name)?);
            copy_directory(&old, &new)?;
            dress(&old, &new, &stat, mode)
        }
        FileType::RegularFile => {
            let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let old = openat(
                from,
                name,
                flags | OFlags::RDONLY | OFlags::NONBLOCK,
                Mode::empty(),
            )?;
            let made = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let new = openat(to, name, made, Mode::RUSR | Mode::WUSR)?;
            while sendfile(&new, &old, None, 1 << 30)? > 0 {}
            dress(&old, &new, &stat, mode)
        }
        FileType::Symlink => {
            symlinkat(readlinkat(from, name, Vec::new())?.as_c_str(), to, name)?;
            own(to, name, &stat)
        }
        _ => {
            mknodat(to, name, kind, mode, stat.st_rdev)?;
            own(to, name, &stat)?;
            chmodat(to, name, mode, AtFlags::empty())
        }
    }
}

fn own(to: &OwnedFd, name: &CStr, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// Gives a copy the attributes of the original. The owner comes first, because a change of it drops the others.
fn dress(old: &OwnedFd, new: &OwnedFd, stat: &Stat, mode: Mode) -> rustix::io::Result<()> {
    fchown(
        new,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    fchmod(new, mode)?;
    let mut value = [0u8; 64];
    match fgetxattr(old, CAPABILITIES, &mut value) {
        Ok(length) => fsetxattr(new, CAPABILITIES, &value[..length], XattrFlags::empty())?,
        Err(Errno::NODATA | Errno::NOTSUP) => {}
        Err(errno) => return Err(errno),
    }
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    futimens(new, &times)
}
