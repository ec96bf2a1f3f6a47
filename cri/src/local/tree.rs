//! Counting what a directory takes while somebody who is not trusted changes it.
//!
//! Directories are opened beneath the one that is counted, through no link: a container that puts a link in a
//! directory's place meanwhile leads nobody out of its layer. Where paths get too long for the kernel, one of the directories
//! on the way is held, and those below it are opened from there: a tree may be as deep as its disk lets it. However deep it
//! is, three directories are open at a time.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat, openat2, statat,
};
use rustix::io::Errno;

use super::disk::Usage;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// A directory with a longer path than this is held while what is below it is counted. With the name of one below, and as a
/// way back up, it is still shorter than the kernel's longest (`PATH_MAX`, 4096).
const LONG: usize = 2048;

/// Counts a directory, with everything in it on the same file system. What vanishes meanwhile is not counted.
pub(super) fn walk(directory: &Path) -> io::Result<Usage> {
    let root = open(directory, DIRECTORY, Mode::empty())?;
    let status = fstat(&root)?;
    let mut walk = Walk {
        usage: Usage::default(),
        linked: HashSet::new(),
        pending: vec![Pending {
            held: 0,
            path: PathBuf::from("."),
        }],
        held: vec![Held {
            path: PathBuf::from("."),
            identity: identity(&status),
        }],
        here: root.try_clone()?,
        root,
    };
    walk.add(&status);
    while let Some(next) = walk.pending.pop() {
        walk.count(next)?;
    }
    Ok(walk.usage)
}

/// A directory that is to be read yet.
struct Pending {
    /// Which of those held it is below.
    held: usize,
    /// The way there from that one.
    path: PathBuf,
}

/// A directory on the way to what is being counted, from which the ways go on.
struct Held {
    /// The way there from the one before.
    path: PathBuf,
    identity: (u64, u64),
}

struct Walk {
    usage: Usage,
    /// Files with several names that were counted.
    linked: HashSet<u64>,
    /// The deepest ones last.
    pending: Vec<Pending>,
    /// Each one is below the one before; the first one is the root.
    held: Vec<Held>,
    /// The last one that is held.
    here: OwnedFd,
    root: OwnedFd,
}

impl Walk {
    fn count(&mut self, Pending { held, path }: Pending) -> io::Result<()> {
        if !self.go_up_to(held)? {
            // Whatever is below it has gone with it; that is what comes next.
            while self.pending.last().is_some_and(|next| next.held >= held) {
                self.pending.pop();
            }
            return Ok(());
        }
        let Some(opened) = beneath(&self.here, &path)? else {
            return Ok(());
        };
        if path.as_os_str().len() <= LONG {
            return self.read(held, &path, &opened);
        }
        self.held.push(Held {
            path,
            identity: identity(&fstat(&opened)?),
        });
        self.here = opened.try_clone()?;
        self.read(held + 1, Path::new(""), &opened)
    }

    /// Comes back to a directory that is held. Returns whether it is still where it was.
    fn go_up_to(&mut self, index: usize) -> io::Result<bool> {
        while self.held.len() > index + 1 {
            let Some(left) = self.held.pop() else { break };
            let names = left
                .path
                .components()
                .filter(|part| matches!(part, Component::Normal(_)));
            let up: PathBuf = names.map(|_| "..").collect();
            let above = self.held.last().map(|above| above.identity);
            match openat(&self.here, &up, DIRECTORY, Mode::empty()) {
                Ok(opened) if Some(identity(&fstat(&opened)?)) == above => self.here = opened,
                // Somebody has moved it.
                _ => {
                    self.held.truncate(index + 1);
                    return self.go_down();
                }
            }
        }
        Ok(true)
    }

    /// Opens the last directory that is held anew, from the root on. Returns whether it is still there.
    fn go_down(&mut self) -> io::Result<bool> {
        self.here = self.root.try_clone()?;
        for held in self.held.iter().skip(1) {
            match beneath(&self.here, &held.path)? {
                Some(opened) if identity(&fstat(&opened)?) == held.identity => self.here = opened,
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Counts what is in a directory, the way to which is known.
    fn read(&mut self, held: usize, path: &Path, directory: &OwnedFd) -> io::Result<()> {
        for entry in Dir::read_from(directory)? {
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
            let status = match statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(status) => status,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
                let path = path.join(name);
                self.pending.push(Pending { held, path });
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

/// Opens a directory below another one, on the same file system; `None` if it is not there any more.
fn beneath(directory: &OwnedFd, path: &Path) -> io::Result<Option<OwnedFd>> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(directory, path, DIRECTORY, Mode::empty(), beneath) {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn identity(status: &Stat) -> (u64, u64) {
    (status.st_dev, status.st_ino)
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

    /// Makes a directory in another one.
    fn below(parent: &OwnedFd, name: &str) -> OwnedFd {
        rustix::fs::mkdirat(parent, name, Mode::RWXU).unwrap();
        openat(parent, name, DIRECTORY, Mode::empty()).unwrap()
    }

    fn file(parent: &OwnedFd, name: &str, bytes: usize) {
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let file = openat(parent, name, flags, Mode::RWXU).unwrap();
        rustix::io::write(&file, &vec![7; bytes]).unwrap();
    }

    #[test]
    fn a_tree_is_counted_however_deep_it_is() {
        let layer = tempfile::tempdir().unwrap();
        for (top, name, depth) in [("long", "d".repeat(200), 100), ("short", "d".to_owned(), 2500)] {
            let mut parent = open(layer.path(), DIRECTORY, Mode::empty()).unwrap();
            parent = below(&parent, top);
            for _ in 0..depth {
                let next = below(&parent, &name);
                // There is something to come back to, on the way up.
                drop(below(&parent, "beside"));
                parent = next;
            }
            file(&parent, "file", 100_000);
            let usage = walk(&layer.path().join(top)).unwrap();
            assert_eq!(usage.inodes, 2 * depth + 2, "{top}");
            assert!(usage.bytes >= 100_000, "{top}");
        }
        berth_images::delete_tree(&layer.path().join("long")).unwrap();
        berth_images::delete_tree(&layer.path().join("short")).unwrap();
    }

    /// Deep directories are moved to and fro meanwhile: it is no error, and leads nobody out.
    #[test]
    fn a_tree_that_somebody_moves_is_no_error() {
        let layer = tempfile::tempdir().unwrap();
        let root = open(layer.path(), DIRECTORY, Mode::empty()).unwrap();
        let counted = below(&root, "counted");
        let (outside, mut parent) = (below(&root, "outside"), below(&counted, "top"));
        file(&outside, "big", 1 << 20);
        let mut halfway = None;
        for level in 0..60 {
            for beside in ["x", "y"] {
                drop(below(&parent, beside));
            }
            parent = below(&parent, &"d".repeat(200));
            if level == 30 {
                halfway = Some(parent.try_clone().unwrap());
            }
        }
        let halfway = halfway.unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let name = "d".repeat(200);
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    rustix::fs::renameat(&halfway, &name, &outside, "moved").unwrap();
                    rustix::fs::renameat(&outside, "moved", &halfway, &name).unwrap();
                }
            });
            for _ in 0..20 {
                let usage = walk(&layer.path().join("counted")).unwrap();
                assert!((2..=182).contains(&usage.inodes), "{usage:?}");
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        berth_images::delete_tree(&layer.path().join("counted")).unwrap();
    }
}
