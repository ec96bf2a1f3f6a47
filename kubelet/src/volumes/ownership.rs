//! `fsGroup`: a volume's files belong to a group of the pod.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::beneath::open_dir;
use super::{Context, VolumeError};

/// Another one after each start of the machine (proc_sys_kernel(5)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The most threads that walk one volume.
const MAX_THREADS: usize = 8;
/// `rw` for owner and group.
const FILE_MASK: u32 = 0o660;
/// `rwx` for the group, and new files inherit it.
const DIR_MASK: u32 = 0o2000 | 0o770;

/// How deep a tree may be. Each level on the way down is an open file while others beside it wait; upstream ends where the
/// path is too long for the kernel.
const MAX_DEPTH: usize = 256;

/// When ownership is changed, as in `fsGroupChangePolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangePolicy {
    /// Whenever a pod gets the volume.
    Always,
    /// Only if the volume's root is not as it should be.
    OnRootMismatch,
}

/// How long the volume stays the pod's once it is given to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Once {
    /// As long as the pod lives: an emptyDir on disk.
    PerPod,
    /// Until the machine restarts.
    PerBoot,
}

/// Gives a volume to the pod's group, if it has one, once: what its containers have made of their files since then is
/// theirs, also after a restart of this program. The path is where the volume is.
pub(super) fn set_once(
    context: &Context<'_>,
    volume: &str,
    path: &Path,
    once: Once,
) -> Result<(), VolumeError> {
    let Some((gid, policy)) = context.fs_group() else {
        return Ok(());
    };
    let marker = context.dir.group_marker(volume);
    let boot = match once {
        Once::PerPod => String::new(),
        Once::PerBoot => std::fs::read_to_string(BOOT_ID).unwrap_or_default(),
    };
    let done = format!("{gid} {}", boot.trim());
    if std::fs::read_to_string(&marker).is_ok_and(|found| found == done) {
        return Ok(());
    }
    set(path, gid, policy).map_err(VolumeError::io("change the group of", path))?;
    let noted = marker.parent().map_or(Ok(()), super::make_private_dirs);
    noted
        .and_then(|()| std::fs::write(&marker, &done))
        .map_err(VolumeError::io("write", &marker))
}

/// Gives the volume at `root` to the group `gid`: group and mode of each file and directory. Symbolic links and mounts
/// are left alone.
pub(crate) fn set(root: &Path, gid: u32, policy: ChangePolicy) -> io::Result<()> {
    set_with(root, gid, policy, threads())
}

/// One for each processor; a few more than that would only wait for each other.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(MAX_THREADS))
}

fn set_with(root: &Path, gid: u32, policy: ChangePolicy, threads: usize) -> io::Result<()> {
    let directory = Arc::new(open_dir(root)?);
    if policy == ChangePolicy::OnRootMismatch && matches(directory.as_fd(), gid)? {
        return Ok(());
    }
    let walk = Walk {
        gid,
        state: Mutex::new(State::default()),
        changed: Condvar::new(),
    };
    walk.take(walk.directory(&directory, 0)?);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| walk.work());
        }
        walk.work();
    });
    let state = walk.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = state.error {
        return Err(error);
    }
    // The root comes last: after a crash in between, it does not match yet.
    set_one(directory.as_fd(), gid).map(drop)
}

fn matches(directory: BorrowedFd<'_>, gid: u32) -> io::Result<bool> {
    let stat = rustix::fs::fstat(directory)?;
    Ok(stat.st_gid == gid && stat.st_mode & DIR_MASK == DIR_MASK)
}

/// A directory that is still to be walked: its name in one that is open. So only directories on the way down are open at a
/// time, and a container that renames or swaps one meanwhile leads nowhere else.
struct Pending {
    parent: Arc<OwnedFd>,
    name: CString,
    depth: usize,
}

/// Several threads that take directories from one stack.
struct Walk {
    gid: u32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pending: Vec<Pending>,
    /// Threads that are in a directory, and may find more.
    busy: usize,
    error: Option<io::Error>,
}

impl Walk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, found: Vec<Pending>) {
        self.lock().pending.extend(found);
        self.changed.notify_all();
    }

    /// Walks until nothing is left, or something failed.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if state.error.is_some() || (state.pending.is_empty() && state.busy == 0) {
                self.changed.notify_all();
                return;
            }
            let Some(next) = state.pending.pop() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.busy += 1;
            drop(state);
            let walked = self.enter(next);
            state = self.lock();
            state.busy -= 1;
            match walked {
                Ok(found) if !found.is_empty() => {
                    state.pending.extend(found);
                    self.changed.notify_all();
                }
                Ok(_) => {}
                Err(error) => state.error = state.error.take().or(Some(error)),
            }
        }
    }

    fn enter(&self, next: Pending) -> io::Result<Vec<Pending>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let Some(directory) = open_child(next.parent.as_fd(), &next.name, flags)? else {
            return Ok(Vec::new());
        };
        let depth = next.depth;
        drop(next);
        self.directory(&Arc::new(directory), depth)
    }

    /// Sets what is in a directory; what it finds to walk has its own group and mode set already.
    fn directory(&self, directory: &Arc<OwnedFd>, depth: usize) -> io::Result<Vec<Pending>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(directory)? {
            let name = entry?.file_name().to_owned();
            if matches!(name.as_bytes(), b"." | b"..") {
                continue;
            }
            let Some(child) = open_child(directory.as_fd(), &name, OFlags::PATH)? else {
                continue;
            };
            let kind = set_one(child.as_fd(), self.gid)?;
            if kind == FileType::Directory {
                if depth == MAX_DEPTH {
                    return Err(io::Error::other(format!(
                        "it has directories that are more than {MAX_DEPTH} deep"
                    )));
                }
                found.push(Pending {
                    parent: Arc::clone(directory),
                    name,
                    depth: depth + 1,
                });
            }
        }
        Ok(found)
    }
}

/// What is in a directory under a name; `None` if it has gone, or another file system is mounted there.
fn open_child(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve) {
            Ok(child) => return Ok(Some(child)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A directory that was one a moment ago may be a link by now.
            Err(Errno::NOENT | Errno::XDEV | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sets one file or directory, unless it is a symbolic link. What is as it should be is not written.
fn set_one(file: BorrowedFd<'_>, gid: u32) -> io::Result<FileType> {
    let stat = rustix::fs::statat(file, "", AtFlags::EMPTY_PATH)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Symlink {
        return Ok(kind);
    }
    let mask = if kind == FileType::Directory {
        DIR_MASK
    } else {
        FILE_MASK
    };
    let mut mode = stat.st_mode;
    if stat.st_gid != gid {
        rustix::fs::chownat(file, "", None, Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
        // The kernel has taken setuid and setgid away from programs, which the mode is not to bring back.
        mode = rustix::fs::statat(file, "", AtFlags::EMPTY_PATH)?.st_mode;
    }
    if mode & mask != mask {
        // fchmod(2) does not take O_PATH descriptors; through /proc it is the same file.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::chmod(path, Mode::from_raw_mode(mode | mask))?;
    }
    Ok(kind)
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
    fn a_tree_that_is_too_deep_takes_no_more_files_than_that() {
        let dir = tempfile::tempdir().unwrap();
        let mut here: OwnedFd = fs::File::open(dir.path()).unwrap().into();
        for _ in 0..2000 {
            for name in ["beside", "down"] {
                rustix::fs::mkdirat(&here, name, Mode::RWXU).unwrap();
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            here = rustix::fs::openat(&here, "down", flags, Mode::empty()).unwrap();
        }
        let error = set_with(dir.path(), 4242, ChangePolicy::Always, 2).unwrap_err();
        assert!(error.to_string().contains("more than 256 deep"), "{error}");
        berth_cri::delete_tree(&dir.path().join("down")).unwrap();
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

    /// Directories in directories, with files in each.
    fn tree(root: &Path, directories: usize, files: usize) {
        let mut deep = root.to_owned();
        fs::create_dir(root).unwrap();
        for index in 0..directories {
            // Broad and deep.
            let parent = if index % 2 == 0 { root } else { &deep };
            let directory = parent.join(format!("d{index}"));
            fs::create_dir(&directory).unwrap();
            for file in 0..files {
                fs::write(directory.join(format!("f{file}")), "x").unwrap();
            }
            if index % 2 == 1 && index < 200 {
                deep = directory;
            }
        }
    }

    /// How many files and directories are not the group's.
    fn foreign(directory: &Path, gid: u32) -> usize {
        let mut count = 0;
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            count += usize::from(owner(&path).0 != gid);
            if path.symlink_metadata().unwrap().is_dir() {
                count += foreign(&path, gid);
            }
        }
        count
    }

    #[test]
    fn several_threads_leave_nothing_out() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        tree(&volume, 100, 5);
        for (gid, threads) in [(4001, 1), (4002, 2), (4003, 16)] {
            set_with(&volume, gid, ChangePolicy::Always, threads).unwrap();
            assert_eq!((foreign(&volume, gid), owner(&volume).0), (0, gid));
        }
    }

    #[test]
    fn a_racing_container_gets_no_file_of_the_host() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("host");
        tree(&host, 3, 3);
        let volume = dir.path().join("volume");
        fs::create_dir_all(volume.join("part/inner")).unwrap();
        symlink(&host, volume.join("link")).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (part, link) = (volume.join("part"), volume.join("link"));
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                while !stop.load(Ordering::Relaxed) {
                    let _ =
                        rustix::fs::renameat_with(rustix::fs::CWD, &part, rustix::fs::CWD, &link, exchange);
                }
            });
            for gid in 0..200 {
                set_with(&volume, 5000 + gid, ChangePolicy::Always, 2).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(foreign(&host, 0), 0);
        assert_eq!(owner(&host).0, 0);
    }

    /// Prints how long 100,000 files take: `cargo nextest run -p berth-kubelet --run-ignored only fs_group --no-capture`.
    #[test]
    #[ignore = "a measurement"]
    fn fs_group_of_a_hundred_thousand_files() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        tree(&volume, 1000, 100);
        // The first one only warms the kernel's caches.
        for (gid, threads) in [
            (6000, 1),
            (6001, 1),
            (6002, threads()),
            (6003, 1),
            (6004, threads()),
        ] {
            let begun = std::time::Instant::now();
            set_with(&volume, gid, ChangePolicy::Always, threads).unwrap();
            println!("{threads} threads: {:?}", begun.elapsed());
        }
        let begun = std::time::Instant::now();
        set(&volume, 6004, ChangePolicy::Always).unwrap();
        println!("nothing to change: {:?}", begun.elapsed());
        let begun = std::time::Instant::now();
        set(&volume, 6004, ChangePolicy::OnRootMismatch).unwrap();
        println!("OnRootMismatch: {:?}", begun.elapsed());
    }
}
