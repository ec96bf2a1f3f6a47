//! The archive of an overlay's writable layer: what has changed as it is, and what is gone as whiteouts.
//!
//! The container may go on writing meanwhile. Everything is opened from its directory's descriptor and never through a
//! symbolic link, so that nothing else than the layer is read.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, fstat, major, minor, openat,
    readlinkat, statat,
};
use rustix::io::Errno;

use super::tar::TarWriter;
use crate::unpack::{TarEntry, TarKind, TarTime};

/// What overlayfs keeps for itself.
const OVERLAY: &str = "trusted.overlay.";
const OPAQUE: &str = "trusted.overlay.opaque";
/// The directory was renamed, and what it had before is not in this layer.
const REDIRECT: &str = "trusted.overlay.redirect";
/// Only the owner or the mode has changed, and the contents are not in this layer.
const METACOPY: &str = "trusted.overlay.metacopy";
/// Longest value of an extended attribute.
const MAX_XATTR: usize = 64 << 10;

/// Writes the layer `upper` as an archive. `owner` says who a file's user and group are in the archive. Returns the paths that
/// are hidden, relative to the root, each with all that was below it.
///
/// # Errors
/// The layer can't be read, the archive can't be written, or the layer makes no sense without those below it, as
/// overlayfs's options `redirect_dir` and `metacopy` do that.
pub fn layer(
    upper: &Path,
    to: impl Write,
    owner: &dyn Fn(u32, u32) -> (u32, u32),
) -> io::Result<Vec<PathBuf>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = openat(CWD, upper, flags, Mode::empty())?;
    let mut packer = Packer {
        to: TarWriter::new(to),
        owner,
        links: HashMap::new(),
        hidden: Vec::new(),
    };
    packer.directory(&root, Path::new(""))?;
    packer.to.finish()?;
    Ok(packer.hidden)
}

struct Packer<'a, W> {
    to: TarWriter<W>,
    owner: &'a dyn Fn(u32, u32) -> (u32, u32),
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
    hidden: Vec<PathBuf>,
}

impl<W: Write> Packer<'_, W> {
    /// A directory, and then all that is in it, by name.
    fn directory(&mut self, directory: &OwnedFd, path: &Path) -> io::Result<()> {
        let (xattrs, overlay) = attributes(directory, path)?;
        let mut entry = self.entry(TarKind::Directory, path, &fstat(directory)?);
        entry.xattrs = xattrs;
        entry.name.push(b'/');
        if path.as_os_str().is_empty() {
            entry.name = b"./".to_vec();
        }
        self.to.add_empty(&entry)?;
        if overlay.opaque {
            self.whiteout(&path.join(".wh..wh..opq"))?;
        }
        for name in names(directory)? {
            let path = path.join(OsStr::from_bytes(name.as_bytes()));
            match self.child(directory, &name, &path) {
                // The container removed it, or put something else there.
                Err(error) if is_gone(&error) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn child(&mut self, parent: &OwnedFd, name: &CStr, path: &Path) -> io::Result<()> {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let directory = openat(parent, name, flags | OFlags::DIRECTORY, Mode::empty())?;
                return self.directory(&directory, path);
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                self.hidden.push(path.to_owned());
                return self.whiteout(&hiding(path));
            }
            // Nobody listens at a socket that was copied.
            FileType::Socket | FileType::Unknown => return Ok(()),
            FileType::RegularFile => TarKind::Regular,
            FileType::Symlink => TarKind::Symlink,
            FileType::CharacterDevice => TarKind::CharDevice,
            FileType::BlockDevice => TarKind::BlockDevice,
            FileType::Fifo => TarKind::Fifo,
        };
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let mut entry = self.entry(TarKind::HardLink, path, &stat);
                entry.link = first.as_os_str().as_bytes().to_vec();
                return self.to.add_empty(&entry);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        let mut entry = self.entry(kind, path, &stat);
        match kind {
            TarKind::Symlink => entry.link = readlinkat(parent, name, Vec::new())?.into_bytes(),
            TarKind::CharDevice | TarKind::BlockDevice => {
                entry.device = (major(stat.st_rdev), minor(stat.st_rdev));
            }
            TarKind::Regular => return self.regular(parent, name, path),
            _ => {}
        }
        self.to.add_empty(&entry)
    }

    /// Opened without waiting: it may have become a pipe.
    fn regular(&mut self, parent: &OwnedFd, name: &CStr, path: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::empty())?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let mut entry = self.entry(TarKind::Regular, path, &stat);
        entry.xattrs = attributes(&file, path)?.0;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.to.add(&entry, &mut File::from(file), size)
    }

    fn whiteout(&mut self, path: &Path) -> io::Result<()> {
        self.to.add_empty(&TarEntry {
            name: path.as_os_str().as_bytes().to_vec(),
            ..TarEntry::of(TarKind::Regular)
        })
    }

    fn entry(&self, kind: TarKind, path: &Path, stat: &Stat) -> TarEntry {
        let (uid, gid) = (self.owner)(stat.st_uid, stat.st_gid);
        TarEntry {
            name: path.as_os_str().as_bytes().to_vec(),
            mode: stat.st_mode & 0o7777,
            uid,
            gid,
            mtime: TarTime {
                seconds: stat.st_mtime,
                nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
            ..TarEntry::of(kind)
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::NXIO];
    gone.iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The file by which a layer's archive says that a name is gone.
fn hiding(path: &Path) -> PathBuf {
    let mut name = OsStr::new(".wh.").to_owned();
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What overlayfs says of a directory.
struct Overlay {
    opaque: bool,
}

type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// The extended attributes of a file, but for overlayfs's own.
fn attributes(file: &OwnedFd, path: &Path) -> io::Result<(Attributes, Overlay)> {
    let mut overlay = Overlay { opaque: false };
    let mut attributes = Vec::new();
    let mut list = vec![0; MAX_XATTR];
    let length = match flistxattr(file.as_fd(), &mut list[..]) {
        Err(Errno::NOTSUP) => return Ok((attributes, overlay)),
        other => other?,
    };
    for name in list[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let text = String::from_utf8_lossy(name);
        if text == REDIRECT || text == METACOPY {
            return Err(io::Error::other(format!(
                "/{} is stored as a difference to a lower layer ({text}); load the module overlay with redirect_dir=off \
                 and metacopy=off",
                path.display()
            )));
        }
        if text.starts_with(OVERLAY) {
            overlay.opaque |= text == OPAQUE;
            continue;
        }
        let mut value = vec![0; MAX_XATTR];
        match fgetxattr(file, &*text, &mut value[..]) {
            // It was removed meanwhile, or is none of this process's business.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => continue,
            other => value.truncate(other?),
        }
        attributes.push((name.to_vec(), value));
    }
    Ok((attributes, overlay))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use rustix::fs::{XattrFlags, mknodat, setxattr};

    use super::*;
    use crate::unpack::apply;

    const SAME: &dyn Fn(u32, u32) -> (u32, u32) = &|uid, gid| (uid, gid);

    fn made() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let upper = directory.path().join("upper");
        fs::create_dir_all(upper.join("etc/conf.d")).unwrap();
        fs::write(upper.join("etc/hosts"), "127.0.0.1 me\n").unwrap();
        fs::set_permissions(upper.join("etc/hosts"), PermissionsExt::from_mode(0o4640)).unwrap();
        std::os::unix::fs::chown(upper.join("etc/hosts"), Some(12), Some(34)).unwrap();
        fs::hard_link(upper.join("etc/hosts"), upper.join("other")).unwrap();
        symlink("/nowhere", upper.join("etc/link")).unwrap();
        fs::write(upper.join("x".repeat(200)), [5; 3000]).unwrap();
        setxattr(
            upper.join("etc/hosts"),
            "trusted.mine",
            b"yes",
            XattrFlags::empty(),
        )
        .unwrap();
        setxattr(upper.join("etc/conf.d"), OPAQUE, b"y", XattrFlags::empty()).unwrap();
        let whiteout = |name: &str| {
            mknodat(CWD, upper.join(name), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        };
        whiteout("gone");
        whiteout("etc/passwd");
        mknodat(
            CWD,
            upper.join("pipe"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        std::os::unix::net::UnixListener::bind(upper.join("socket")).unwrap();
        directory
    }

    #[test]
    fn a_layer_comes_back_as_it_was() {
        let directory = made();
        let (upper, again) = (directory.path().join("upper"), directory.path().join("again"));
        let mut archive = Vec::new();
        let hidden = layer(&upper, &mut archive, SAME).unwrap();
        assert_eq!(hidden, [Path::new("etc/passwd"), Path::new("gone")]);
        fs::create_dir(&again).unwrap();
        apply(&archive[..], &again, crate::Limits::default()).unwrap();
        let look = |root: &Path, name: &str| {
            let metadata = fs::symlink_metadata(root.join(name)).unwrap();
            let times = (metadata.mtime(), metadata.mtime_nsec());
            let owner = (metadata.uid(), metadata.gid(), metadata.mode(), metadata.rdev());
            // Directories have sizes of their own.
            (owner, times, metadata.is_file().then_some(metadata.len()))
        };
        for name in [
            "etc",
            "etc/hosts",
            "etc/link",
            "other",
            &"x".repeat(200),
            "pipe",
            "gone",
            "etc/conf.d",
        ] {
            if matches!(name, "gone" | "etc/link") {
                assert_eq!(look(&upper, name).0, look(&again, name).0, "{name}");
            } else {
                assert_eq!(look(&upper, name), look(&again, name), "{name}");
            }
        }
        assert_eq!(fs::read(again.join("x".repeat(200))).unwrap(), [5; 3000]);
        assert_eq!(
            fs::read_link(again.join("etc/link")).unwrap(),
            Path::new("/nowhere")
        );
        let inode = |name: &str| fs::metadata(again.join(name)).unwrap().ino();
        assert_eq!(inode("other"), inode("etc/hosts"));
        let mut value = [0; 10];
        let length = rustix::fs::getxattr(again.join("etc/hosts"), "trusted.mine", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"yes");
        assert!(rustix::fs::getxattr(again.join("etc/conf.d"), OPAQUE, &mut value[..]).is_ok());
        assert!(!again.join("socket").exists());
    }

    #[test]
    fn owners_are_the_containers() {
        let directory = made();
        let mut archive = Vec::new();
        layer(&directory.path().join("upper"), &mut archive, &|uid, gid| {
            (uid + 1, gid + 2)
        })
        .unwrap();
        let again = directory.path().join("again");
        fs::create_dir(&again).unwrap();
        apply(&archive[..], &again, crate::Limits::default()).unwrap();
        let hosts = fs::metadata(again.join("etc/hosts")).unwrap();
        assert_eq!((hosts.uid(), hosts.gid()), (13, 36));
    }

    #[test]
    fn a_layer_that_needs_those_below_is_refused() {
        for name in [REDIRECT, METACOPY] {
            let directory = made();
            let upper = directory.path().join("upper");
            setxattr(upper.join("etc"), name, b"/usr", XattrFlags::empty()).unwrap();
            let error = layer(&upper, io::sink(), SAME).unwrap_err();
            assert!(error.to_string().starts_with("/etc is stored"), "{error}");
        }
    }
}
