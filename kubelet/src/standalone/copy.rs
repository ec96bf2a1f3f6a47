//! `berth cp`: files into a container and out of it, by descriptors.
//!
//! What a container holds, or does while it is copied, must not make anything be read or written elsewhere. So nothing is
//! looked up twice: the container's root is one descriptor, paths in it are resolved beneath that (openat2(2),
//! `RESOLVE_IN_ROOT`), and below the first place every entry is opened by its one name in a directory that is held, never
//! through a link. No program of the container takes part, and none need be there.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, fchmod, fchown,
    fstat, fstatfs, futimens, mkdirat, openat, openat2, readlinkat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::file_user::make;

/// Directories may be so deep: each level holds descriptors.
const DEEPEST: usize = 200;
/// procfs and sysfs (statfs(2)): they have no end, and no files that anybody wants to keep.
const ENDLESS: [i64; 2] = [0x9fa0, 0x6265_6572];

/// Why something can't be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A file or directory stands in the way.
    #[error("{}: {source}.", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It makes no sense.
    #[error("{0}")]
    Refused(String),
}

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
    fn path(&self) -> &'a Path {
        match self {
            Side::Host(path) | Side::Container { path, .. } => path,
        }
    }

    fn owner(&self) -> Option<(u32, u32)> {
        match self {
            Side::Host(_) => None,
            Side::Container { owner, .. } => Some(*owner),
        }
    }

    /// Opens a place, as the owner of this side would find it.
    fn place(&self, path: &Path) -> Result<Option<OwnedFd>, CopyError> {
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

/// Copies a file, or a directory with all that is in it, as `cp -r` does: into a directory that is there, or under the
/// name that is given. `warn` is told of what is left out.
///
/// # Errors
/// The first thing that can't be copied.
pub fn copy(from: Side<'_>, to: Side<'_>, warn: &mut dyn FnMut(&str)) -> Result<(), CopyError> {
    let source = from
        .place(from.path())?
        .ok_or_else(|| failed(from.path(), Errno::NOENT))?;
    let stat = fstat(&source).map_err(|error| failed(from.path(), error))?;
    let mut copier = Copier {
        owner: to.owner(),
        warn,
    };
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let contents_only = from.path().as_os_str().as_bytes().ends_with(b"/.") || from.path() == Path::new(".");
    let shown = from.path().to_owned();
    if let Some(there) = to.place(to.path())? {
        let kind = fstat(&there).map_err(|error| failed(to.path(), error))?.st_mode;
        if FileType::from_raw_mode(kind) == FileType::Directory {
            if is_directory && contents_only {
                return copier.contents(&source, &there, &shown, 1);
            }
            let name = from.path().file_name().ok_or_else(|| unnamed(from.path()))?;
            return copier.entry(
                source,
                &stat,
                Target {
                    directory: &there,
                    name,
                    shown: &shown,
                    depth: 0,
                },
            );
        }
        if is_directory {
            return Err(CopyError::Refused(format!(
                "{} is a directory, and {} is none.",
                from.path().display(),
                to.path().display()
            )));
        }
        // Written where it is, as a file that others have open or that is a mount of its own.
        let file = reopen(&there, true).map_err(|error| failed(to.path(), error))?;
        return copier.file(&source, &stat, file, &shown);
    }
    let name = to.path().file_name().ok_or_else(|| unnamed(to.path()))?;
    let parent = match to.path().parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let there = to.place(parent)?.ok_or_else(|| failed(parent, Errno::NOENT))?;
    let target = Target {
        directory: &there,
        name,
        shown: &shown,
        depth: 0,
    };
    copier.entry(source, &stat, target)
}

fn unnamed(path: &Path) -> CopyError {
    CopyError::Refused(format!("{} has no name of its own.", path.display()))
}

fn failed(path: &Path, error: impl Into<io::Error>) -> CopyError {
    CopyError::File {
        path: path.to_owned(),
        source: error.into(),
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

/// Opens what a descriptor stands for, if it is an ordinary file.
fn reopen(place: &OwnedFd, write: bool) -> io::Result<File> {
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
struct Target<'a> {
    directory: &'a OwnedFd,
    name: &'a OsStr,
    /// What it is called in messages.
    shown: &'a Path,
    /// 0 for what the person named, 1 for what is in that.
    depth: usize,
}

struct Copier<'a> {
    /// Who new files are to belong to.
    owner: Option<(u32, u32)>,
    warn: &'a mut dyn FnMut(&str),
}

impl Copier<'_> {
    /// Copies what `source` is.
    fn entry(&mut self, source: OwnedFd, stat: &Stat, to: Target<'_>) -> Result<(), CopyError> {
        let shown = to.shown;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file = create(to.directory, to.name, self.owner).map_err(|error| failed(shown, error))?;
                self.file(&source, stat, file, shown)
            }
            FileType::Directory => {
                let made = make_directory(to.directory, to.name, self.owner)
                    .map_err(|error| failed(shown, error))?;
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

    fn contents(
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
    fn file(&mut self, source: &OwnedFd, stat: &Stat, mut to: File, shown: &Path) -> Result<(), CopyError> {
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
fn stays_inside(target: &Path, depth: usize) -> bool {
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
        root: OwnedFd,
    }

    impl Bench {
        /// A container's root `c`, and a directory `h` of the host.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in ["c", "h"] {
                fs::create_dir(dir.path().join(name)).unwrap();
            }
            fs::write(dir.path().join("secret"), "of the host").unwrap();
            let root = File::open(dir.path().join("c")).unwrap().into();
            Self { dir, root }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }

        fn inside<'a>(&'a self, path: &'a str) -> Side<'a> {
            Side::Container {
                root: self.root.as_fd(),
                owner: (0, 0),
                path: Path::new(path),
            }
        }

        fn out(&self, from: &str, to: &str) -> Result<Vec<String>, CopyError> {
            let mut warnings = Vec::new();
            copy(self.inside(from), Side::Host(&self.path(to)), &mut |text| {
                warnings.push(text.to_owned());
            })?;
            Ok(warnings)
        }

        fn bring(&self, from: &str, to: &str) -> Result<(), CopyError> {
            copy(Side::Host(&self.path(from)), self.inside(to), &mut |_| {})
        }
    }

    #[test]
    fn trees_go_both_ways() {
        let bench = Bench::new();
        fs::create_dir_all(bench.path("c/data/sub")).unwrap();
        fs::write(bench.path("c/data/sub/file"), "content").unwrap();
        fs::set_permissions(bench.path("c/data/sub/file"), fs::Permissions::from_mode(0o4754)).unwrap();
        symlink("sub/file", bench.path("c/data/link")).unwrap();
        assert_eq!(bench.out("/data", "h").unwrap(), [""; 0]);
        assert_eq!(bench.out("data", "h/renamed").unwrap(), [""; 0]);
        for place in ["h/data", "h/renamed"] {
            let file = bench.path(place).join("sub/file");
            assert_eq!(fs::read(&file).unwrap(), b"content");
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o754);
            assert_eq!(fs::read(bench.path(place).join("link")).unwrap(), b"content");
        }
        bench.bring("h/data/.", "/").unwrap();
        assert_eq!(fs::read(bench.path("c/sub/file")).unwrap(), b"content");
        bench.bring("h/data/sub/file", "/sub/other").unwrap();
        assert_eq!(fs::read(bench.path("c/sub/other")).unwrap(), b"content");
        fs::write(bench.path("h/short"), "x").unwrap();
        bench.bring("h/short", "/sub/other").unwrap();
        assert_eq!(fs::read(bench.path("c/sub/other")).unwrap(), b"x");
        assert!(bench.bring("h/data", "/sub/other").is_err());
        assert!(bench.bring("h/none", "/").is_err());
        assert!(bench.bring("h/short", "/none/x").is_err());
    }

    #[test]
    fn links_in_the_container_lead_nowhere_else() {
        let bench = Bench::new();
        let secret = bench.path("secret");
        // Followed as in the container, where there is no such file.
        symlink(&secret, bench.path("c/file")).unwrap();
        symlink("../../../..", bench.path("c/up")).unwrap();
        assert!(bench.out("/file", "h/got").is_err());
        fs::create_dir(bench.path("c/tree")).unwrap();
        for (name, target) in [
            ("absolute", secret.as_path()),
            ("above", Path::new("../secret")),
            ("through", Path::new("a/../../secret")),
        ] {
            symlink(target, bench.path("c/tree").join(name)).unwrap();
        }
        assert_eq!(bench.out("/tree", "h").unwrap().len(), 3);
        assert_eq!(fs::read_dir(bench.path("h/tree")).unwrap().count(), 0);
        // Writing goes through no link that leads out of the root.
        fs::write(bench.path("h/new"), "new").unwrap();
        bench.bring("h/new", "/up/new").unwrap();
        assert_eq!(fs::read(bench.path("c/new")).unwrap(), b"new");
        bench.bring("h/new", "/file").unwrap();
        assert!(fs::symlink_metadata(bench.path("c/file")).unwrap().is_file());
        assert_eq!(fs::read(&secret).unwrap(), b"of the host");
    }

    #[test]
    fn what_lies_in_the_way_is_replaced_and_not_followed() {
        let bench = Bench::new();
        fs::create_dir_all(bench.path("c/tree/d")).unwrap();
        fs::write(bench.path("c/tree/f"), "f").unwrap();
        fs::create_dir(bench.path("h/tree")).unwrap();
        symlink(bench.path("secret"), bench.path("h/tree/f")).unwrap();
        bench.out("/tree", "h").unwrap();
        assert_eq!(fs::read(bench.path("secret")).unwrap(), b"of the host");
        assert_eq!(fs::read(bench.path("h/tree/f")).unwrap(), b"f");
        fs::remove_dir(bench.path("h/tree/d")).unwrap();
        symlink(bench.path("c"), bench.path("h/tree/d")).unwrap();
        assert!(
            bench.out("/tree", "h").is_err(),
            "a directory is not made through a link"
        );
    }

    #[test]
    fn pipes_and_depths_do_not_hold_it_up() {
        let bench = Bench::new();
        fs::create_dir(bench.path("c/tree")).unwrap();
        nix::unistd::mkfifo(&bench.path("c/tree/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(bench.out("/tree", "h").unwrap().len(), 1);
        assert!(bench.out("/tree/pipe", "h/x").unwrap().len() == 1);
        let mut deep = bench.path("c/deep");
        for _ in 0..DEEPEST + 2 {
            fs::create_dir(&deep).unwrap();
            deep.push("d");
        }
        assert!(bench.out("/deep", "h").is_err());
    }

    #[test]
    fn links_are_judged_by_where_they_are() {
        for (target, depth, inside) in [
            ("file", 0, true),
            ("./a/b", 0, true),
            ("../a", 0, false),
            ("../a", 1, true),
            ("../../a", 1, false),
            ("/etc/passwd", 9, false),
            ("a/../b", 9, false),
            ("..", 1, true),
        ] {
            assert_eq!(stays_inside(Path::new(target), depth), inside, "{target} {depth}");
        }
    }
}
