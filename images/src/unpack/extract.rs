//! Entries of a layer, made beneath a directory that they can't leave.
//!
//! Every path is resolved by the kernel with `openat2(RESOLVE_BENEATH)` from the root's descriptor, so that no symbolic
//! link, of this layer or one that a race would put there, leads out. Files are made with `O_EXCL` after what had the
//! name is gone, so that nothing is written through a link.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::name::{Marker, Place, prefixes};
use super::tar::{Entry, Kind, Time};
use super::{READ_BUFFER, UnpackError, Unpacked};
use crate::error::ImageError;
use crate::user_namespace;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Makes the files of one layer.
pub(super) struct Extractor<'a> {
    path: &'a Path,
    root: OwnedFd,
    /// The directory that the last entry was in: archives list files directory by directory.
    last_parent: Option<(PathBuf, OwnedFd)>,
    /// Directories that entries described, with their times, which are set when nothing is made in them any more.
    described: BTreeMap<PathBuf, Time>,
    /// Directories that only names of entries in them mention.
    implicit: BTreeSet<PathBuf>,
    /// Deletions, which concern the layers below only, whatever their order among the entries.
    whiteouts: Vec<(PathBuf, OsString)>,
    bytes: u64,
    buffer: Vec<u8>,
}

impl<'a> Extractor<'a> {
    /// Extracts into the empty directory `path`.
    pub(super) fn new(path: &'a Path) -> Result<Self, UnpackError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let disk = |e: Errno| UnpackError::Disk(ImageError::io("open the directory", path, &e.into()));
        let root = fs::open(path, flags, Mode::empty()).map_err(disk)?;
        fs::fchmod(&root, Mode::from_raw_mode(0o755)).map_err(disk)?;
        Ok(Self {
            path,
            root,
            last_parent: None,
            described: BTreeMap::new(),
            implicit: BTreeSet::from([PathBuf::new()]),
            whiteouts: Vec::new(),
            bytes: 0,
            buffer: vec![0; READ_BUFFER],
        })
    }

    /// Makes what an entry says, reading its contents.
    pub(super) fn entry(&mut self, entry: &Entry, contents: &mut impl Read) -> Result<(), UnpackError> {
        let refuse = |why: String| refused(&entry.name, &why);
        let Some(place) = Place::parse(&entry.name).map_err(refuse)? else {
            return self.root_entry(entry);
        };
        match place.marker().map_err(refuse)? {
            Marker::Ignored => Ok(()),
            Marker::Opaque => self.opaque(&place.parent, &entry.name),
            Marker::Whiteout(hidden) => {
                self.open_parent(&place.parent, &entry.name)?;
                self.whiteouts.push((place.parent, hidden));
                Ok(())
            }
            Marker::File => self.file(&place, entry, contents),
        }
    }

    /// Whiteouts and times, once all entries are there.
    pub(super) fn finish(mut self) -> Result<Unpacked, UnpackError> {
        for (parent, hidden) in std::mem::take(&mut self.whiteouts) {
            self.whiteout(&parent, &hidden)?;
        }
        for (path, time) in std::mem::take(&mut self.described) {
            // By descriptor: a symbolic link on the way may have been replaced since.
            let directory = self
                .open_directory(&path, BENEATH)
                .map_err(|e| self.parent_error(&path, path.as_os_str().as_bytes(), e))?;
            fs::futimens(&directory, &timestamps(time))
                .map_err(|e| self.disk("set the times of", &path, e))?;
        }
        Ok(Unpacked {
            bytes: self.bytes,
            implicit: self.implicit.into_iter().collect(),
        })
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Directory {
            return Err(refused(&entry.name, "the root of a layer is a directory"));
        }
        let root = self.root.try_clone().map_err(UnpackError::Source)?;
        self.describe(&root, Path::new(""), entry)
    }

    fn file(&mut self, place: &Place, entry: &Entry, contents: &mut impl Read) -> Result<(), UnpackError> {
        let parent = self.open_parent(&place.parent, &entry.name)?;
        let path = place.path();
        let failed = |this: &Self, e: Errno| this.disk("make", &path, e);
        self.make_room(&parent, place, entry)?;
        let name = place.name.as_os_str();
        match entry.kind {
            Kind::Directory => return self.directory(&parent, place, entry),
            Kind::Regular => return self.regular(&parent, place, entry, contents),
            Kind::HardLink => return self.hard_link(&parent, place, entry),
            Kind::Symlink => {
                if entry.link.is_empty() {
                    return Err(refused(&entry.name, "it is a symbolic link to nowhere"));
                }
                fs::symlinkat(OsStr::from_bytes(&entry.link), &parent, name).map_err(|e| failed(self, e))?;
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                let (kind, device) = match entry.kind {
                    Kind::CharDevice => (FileType::CharacterDevice, makedev(entry)),
                    Kind::BlockDevice => (FileType::BlockDevice, makedev(entry)),
                    _ => (FileType::Fifo, 0),
                };
                match fs::mknodat(&parent, name, kind, Mode::empty(), device) {
                    // Nobody there could open it either; containers get the devices that they may have at their start.
                    Err(Errno::PERM) if entry.kind != Kind::Fifo && user_namespace::is_in_one() => {
                        return Ok(());
                    }
                    made => made.map_err(|e| failed(self, e))?,
                }
            }
        }
        fs::chownat(
            &parent,
            name,
            Some(uid(entry)),
            Some(gid(entry)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|e| self.not_owned(&path, entry, e))?;
        if entry.kind != Kind::Symlink {
            // Safe to follow: it was made here just now, and nobody else can reach it.
            fs::chmodat(&parent, name, mode(entry), AtFlags::empty()).map_err(|e| failed(self, e))?;
        }
        fs::utimensat(&parent, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed(self, e))
    }

    fn directory(&mut self, parent: &OwnedFd, place: &Place, entry: &Entry) -> Result<(), UnpackError> {
        let path = place.path();
        match fs::mkdirat(parent, &place.name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(self.disk("make the directory", &path, e)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = fs::openat(parent, &place.name, flags, Mode::empty())
            .map_err(|e| self.disk("open the directory", &path, e))?;
        self.describe(&directory, &path, entry)
    }

    fn describe(&mut self, directory: &OwnedFd, path: &Path, entry: &Entry) -> Result<(), UnpackError> {
        self.set_owner_and_mode(directory, path, entry)?;
        self.implicit.remove(path);
        self.described.insert(path.to_owned(), entry.mtime);
        Ok(())
    }

    fn regular(
        &mut self,
        parent: &OwnedFd,
        place: &Place,
        entry: &Entry,
        contents: &mut impl Read,
    ) -> Result<(), UnpackError> {
        let path = place.path();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(parent, &place.name, flags, Mode::from_raw_mode(0o600))
            .map_err(|e| self.disk("make the file", &path, e))?;
        let mut file = File::from(file);
        loop {
            let n = match contents.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(UnpackError::Source(e)),
            };
            file.write_all(&self.buffer[..n])
                .map_err(|e| UnpackError::Disk(ImageError::io("write", &self.path.join(&path), &e)))?;
            self.bytes += n as u64;
        }
        let file = OwnedFd::from(file);
        self.set_owner_and_mode(&file, &path, entry)?;
        fs::futimens(&file, &timestamps(entry.mtime)).map_err(|e| self.disk("set the times of", &path, e))
    }

    fn hard_link(&mut self, parent: &OwnedFd, place: &Place, entry: &Entry) -> Result<(), UnpackError> {
        let refuse = |why: &str| refused(&entry.name, why);
        let shown = String::from_utf8_lossy(&entry.link).into_owned();
        let target = Place::parse(&entry.link)
            .map_err(|why| {
                refuse(&format!(
                    "it is a hard link to {shown:?}, and {}",
                    why.replace("its name", "that")
                ))
            })?
            .ok_or_else(|| refuse("it is a hard link to the root"))?;
        let resolve = BENEATH | ResolveFlags::NO_SYMLINKS;
        let directory = match self.open_directory(&target.parent, resolve) {
            Ok(directory) => directory,
            Err(Errno::LOOP | Errno::XDEV) => {
                return Err(refuse(&format!(
                    "it is a hard link through a symbolic link, {shown:?}"
                )));
            }
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(refuse(&no_target(&shown))),
            Err(e) => return Err(self.disk("open the directory", &target.parent, e)),
        };
        match fs::linkat(&directory, &target.name, parent, &place.name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Err(refuse(&no_target(&shown))),
            Err(Errno::PERM) => Err(refuse(&format!(
                "it is a hard link to {shown:?}, which is a directory"
            ))),
            Err(e) => Err(self.disk("link", &place.path(), e)),
        }
    }

    /// Removes what has the entry's name, so that the entry is new. Directories stay for entries that describe them.
    fn make_room(&mut self, parent: &OwnedFd, place: &Place, entry: &Entry) -> Result<(), UnpackError> {
        let path = place.path();
        let found = match fs::statat(parent, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NAMETOOLONG) => {
                return Err(refused(
                    &entry.name,
                    "a part of its name is longer than 255 bytes",
                ));
            }
            Err(e) => return Err(self.disk("look at", &path, e)),
        };
        match (found, entry.kind) {
            (FileType::Directory, Kind::Directory) => Ok(()),
            (FileType::Directory, _) => Err(refused(
                &entry.name,
                "an earlier entry made a directory of that name",
            )),
            _ => {
                self.last_parent = None;
                fs::unlinkat(parent, &place.name, AtFlags::empty())
                    .map_err(|e| self.disk("replace", &path, e))
            }
        }
    }

    /// Marks a directory as hiding all that is below it.
    fn opaque(&mut self, path: &Path, entry: &[u8]) -> Result<(), UnpackError> {
        let directory = self.open_parent(path, entry)?;
        self.set_opaque(&directory, path)
    }

    fn set_opaque(&self, directory: &OwnedFd, path: &Path) -> Result<(), UnpackError> {
        fs::fsetxattr(
            directory,
            user_namespace::overlay_opaque(),
            b"y",
            XattrFlags::empty(),
        )
        .map_err(|e| self.disk("mark as opaque", path, e))
    }

    /// Hides a name of the layers below: by a device 0:0, or, where this layer has a directory of that name, by making
    /// it opaque. A file of this layer hides it anyway.
    fn whiteout(&mut self, parent_path: &Path, hidden: &OsStr) -> Result<(), UnpackError> {
        let path = parent_path.join(hidden);
        let parent = self.open_parent(parent_path, path.as_os_str().as_bytes())?;
        match fs::mknodat(&parent, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(self.disk("make the whiteout", &path, e)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(&parent, hidden, flags, Mode::empty()) {
            Ok(directory) => self.set_opaque(&directory, &path),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Ok(()),
            Err(e) => Err(self.disk("open", &path, e)),
        }
    }

    /// The directory that an entry is in, made if nothing described it yet.
    fn open_parent(&mut self, path: &Path, entry: &[u8]) -> Result<OwnedFd, UnpackError> {
        if let Some((last, fd)) = &self.last_parent
            && last == path
        {
            return fd.try_clone().map_err(UnpackError::Source);
        }
        let fd = match self.open_directory(path, BENEATH) {
            Err(Errno::NOENT) => {
                self.make_implicit(path, entry)?;
                self.open_directory(path, BENEATH)
            }
            other => other,
        };
        let fd = fd.map_err(|e| self.parent_error(path, entry, e))?;
        let copy = fd.try_clone().map_err(UnpackError::Source)?;
        self.last_parent = Some((path.to_owned(), copy));
        Ok(fd)
    }

    fn make_implicit(&mut self, path: &Path, entry: &[u8]) -> Result<(), UnpackError> {
        for prefix in prefixes(path) {
            match self.open_directory(prefix, BENEATH) {
                Ok(_) => continue,
                Err(Errno::NOENT) => {}
                Err(e) => return Err(self.parent_error(prefix, entry, e)),
            }
            let (Some(parent), Some(name)) = (prefix.parent(), prefix.file_name()) else {
                continue;
            };
            let directory = self
                .open_directory(parent, BENEATH)
                .map_err(|e| self.parent_error(parent, entry, e))?;
            fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755)).map_err(|e| match e {
                // It is there, but does not open: a symbolic link to nothing.
                Errno::EXIST => refused(
                    entry,
                    &format!("{} is a symbolic link to nothing", prefix.display()),
                ),
                e => self.parent_error(prefix, entry, e),
            })?;
            fs::chmodat(&directory, name, Mode::from_raw_mode(0o755), AtFlags::empty())
                .map_err(|e| self.disk("set the mode of", prefix, e))?;
            self.implicit.insert(prefix.to_owned());
        }
        Ok(())
    }

    fn open_directory(&self, path: &Path, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        fs::openat2(
            &self.root,
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
    }

    fn set_owner_and_mode(&self, fd: &OwnedFd, path: &Path, entry: &Entry) -> Result<(), UnpackError> {
        fs::fchown(fd, Some(uid(entry)), Some(gid(entry))).map_err(|e| self.not_owned(path, entry, e))?;
        fs::fchmod(fd, mode(entry)).map_err(|e| self.disk("set the mode of", path, e))?;
        for (name, value) in &entry.xattrs {
            self.set_xattr(fd, path, name, value)?;
        }
        Ok(())
    }

    fn set_xattr(&self, fd: &OwnedFd, path: &Path, name: &[u8], value: &[u8]) -> Result<(), UnpackError> {
        let shown = String::from_utf8_lossy(name);
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            let why = format!("it has the attribute {shown:?}, by which overlayfs would be led astray");
            return Err(refused(path.as_os_str().as_bytes(), &why));
        }
        if name.contains(&0) {
            return Err(refused(
                path.as_os_str().as_bytes(),
                "the name of an attribute has a zero byte",
            ));
        }
        // Labels of the machine that built the image mean nothing here.
        if matches!(name, b"security.selinux" | b"security.ima" | b"security.evm") {
            return Ok(());
        }
        match fs::fsetxattr(fd, OsStr::from_bytes(name), value, XattrFlags::empty()) {
            // The file system has no such attributes: as docker and containerd do, go on without.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            // Only root of the machine sees these.
            Err(Errno::PERM) if name.starts_with(b"trusted.") && user_namespace::is_in_one() => Ok(()),
            Err(e) => Err(self.disk(&format!("set the attribute {shown} of"), path, e)),
        }
    }

    fn parent_error(&self, path: &Path, entry: &[u8], error: Errno) -> UnpackError {
        match error {
            Errno::XDEV => refused(
                entry,
                &format!(
                    "{} is, or goes through, a symbolic link out of the layer",
                    path.display()
                ),
            ),
            Errno::NOTDIR => refused(
                entry,
                &format!("{} goes through a file that is no directory", path.display()),
            ),
            Errno::LOOP => refused(
                entry,
                &format!("{} goes through a loop of symbolic links", path.display()),
            ),
            Errno::NAMETOOLONG => refused(entry, "a part of its name is longer than 255 bytes"),
            e => self.disk("open the directory", path, e),
        }
    }

    /// The owner can't be set. The kernel knows no number that is not mapped.
    fn not_owned(&self, path: &Path, entry: &Entry, error: Errno) -> UnpackError {
        if error == Errno::INVAL && user_namespace::is_in_one() {
            let why = format!(
                "it belongs to {}:{}, and your user namespace has no such ids; a larger range in /etc/subuid and \
                 /etc/subgid has",
                entry.uid, entry.gid
            );
            return refused(&entry.name, &why);
        }
        self.disk("set the owner of", path, error)
    }

    fn disk(&self, what: &str, path: &Path, error: Errno) -> UnpackError {
        UnpackError::Disk(ImageError::io(what, &self.path.join(path), &error.into()))
    }
}

fn refused(entry: &[u8], why: &str) -> UnpackError {
    UnpackError::Refused(format!("entry {:?}: {why}", String::from_utf8_lossy(entry)))
}

fn no_target(shown: &str) -> String {
    format!("it is a hard link to {shown:?}, which is not in the layer")
}

fn uid(entry: &Entry) -> Uid {
    Uid::from_raw(entry.uid)
}

fn gid(entry: &Entry) -> Gid {
    Gid::from_raw(entry.gid)
}

fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode)
}

fn makedev(entry: &Entry) -> u64 {
    fs::makedev(entry.device.0, entry.device.1)
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
