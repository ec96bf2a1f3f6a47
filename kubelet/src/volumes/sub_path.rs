//! Parts of a volume, mounted with no way out of it (CVE-2017-1002101, CVE-2021-25741).
//!
//! The part is opened beneath the volume by openat2(2), and that very file is bound, through its descriptor, to a place
//! of ours that no container can reach. The engine mounts from there, so what a container does to the volume's links
//! meanwhile changes nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use super::beneath::{kind_and_mode, open_or_make_dirs, open_path};
use super::mounts::{bind_descriptor, is_mount_point, unmount_below};
use super::pod_dir::make_private_dirs;
use super::{PodDir, VolumeError};

/// Which container's mount a part is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) container: &'a str,
    pub(super) index: usize,
}

/// Binds the part `sub_path` of the volume at `root` to a place in the pod's directory, and returns that place. A part
/// that is not there becomes a directory with the volume's mode.
pub(super) fn bind(
    dir: &PodDir,
    volume: &str,
    root: &Path,
    sub_path: &Path,
    place: Place<'_>,
) -> Result<PathBuf, VolumeError> {
    let target = dir.sub_path(volume, place.container, place.index);
    let bound = open_part(root, sub_path).and_then(|part| bind_to(part.as_fd(), &target));
    match bound {
        Ok(()) => Ok(target),
        Err(source) => Err(VolumeError::SubPath {
            volume: volume.to_owned(),
            sub_path: sub_path.to_owned(),
            source,
        }),
    }
}

fn open_part(root: &Path, sub_path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
    match open_path(root.as_fd(), sub_path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mode = kind_and_mode(root.as_fd())?.1;
            open_or_make_dirs(root.as_fd(), sub_path, mode)
        }
        result => result,
    }
}

fn bind_to(part: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    if is_mount_point(target)? {
        if is_same(part, target)? {
            return Ok(());
        }
        unmount_below(&target.canonicalize()?)?;
    }
    prepare(part, target)?;
    bind_descriptor(part, target)
}

fn is_same(part: BorrowedFd<'_>, target: &Path) -> io::Result<bool> {
    let part = rustix::fs::statat(part, "", AtFlags::EMPTY_PATH)?;
    let target = rustix::fs::lstat(target)?;
    Ok((part.st_dev, part.st_ino) == (target.st_dev, target.st_ino))
}

/// Makes the empty file or directory that is mounted over.
fn prepare(part: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let is_dir = kind_and_mode(part)?.0 == FileType::Directory;
    berth_cri::delete_tree(target)?;
    if is_dir {
        return make_private_dirs(target);
    }
    if let Some(parent) = target.parent() {
        make_private_dirs(parent)?;
    }
    std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(target)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::identity::PodUid;

    struct Pod {
        root: tempfile::TempDir,
        dir: PodDir,
        volume: PathBuf,
    }

    impl Pod {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let dir = PodDir::new(root.path(), &PodUid("u".into()));
            let volume = root.path().join("volume");
            fs::create_dir(&volume).unwrap();
            Pod { root, dir, volume }
        }
        fn bind(&self, sub_path: &str) -> Result<PathBuf, VolumeError> {
            bind(
                &self.dir,
                "v",
                &self.volume,
                Path::new(sub_path),
                Place {
                    container: "c",
                    index: 0,
                },
            )
        }
    }

    impl Drop for Pod {
        fn drop(&mut self) {
            self.dir.remove().unwrap();
            assert!(!self.dir.exists());
        }
    }

    #[test]
    fn directories_files_and_missing_parts() {
        let pod = Pod::new();
        fs::create_dir(pod.volume.join("d")).unwrap();
        fs::write(pod.volume.join("d/f"), "1").unwrap();
        let at = pod.bind("d").unwrap();
        assert_eq!(fs::read_to_string(at.join("f")).unwrap(), "1");
        assert_eq!(pod.bind("d").unwrap(), at);
        let at = pod.bind("d/f").unwrap();
        assert_eq!(fs::read_to_string(&at).unwrap(), "1");
        let at = pod.bind("new/part").unwrap();
        fs::write(at.join("x"), "2").unwrap();
        assert_eq!(fs::read_to_string(pod.volume.join("new/part/x")).unwrap(), "2");
    }

    #[test]
    fn a_replaced_part_is_bound_anew() {
        let pod = Pod::new();
        fs::create_dir(pod.volume.join("d")).unwrap();
        pod.bind("d").unwrap();
        fs::rename(pod.volume.join("d"), pod.volume.join("old")).unwrap();
        fs::create_dir(pod.volume.join("d")).unwrap();
        fs::write(pod.volume.join("d/f"), "new").unwrap();
        assert_eq!(
            fs::read_to_string(pod.bind("d").unwrap().join("f")).unwrap(),
            "new"
        );
    }

    #[test]
    fn there_is_no_way_out() {
        let pod = Pod::new();
        fs::write(pod.root.path().join("secret"), "s").unwrap();
        symlink("../secret", pod.volume.join("up")).unwrap();
        symlink("/", pod.volume.join("root")).unwrap();
        symlink("../made", pod.volume.join("dangling")).unwrap();
        for path in ["up", "root", "root/etc", "../secret", "dangling/x", "dangling"] {
            assert!(pod.bind(path).is_err(), "{path}");
        }
        assert!(!pod.root.path().join("made").exists());
    }

    #[test]
    fn a_racing_container_gets_nothing_of_the_host() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let pod = Pod::new();
        let host = pod.root.path().join("host");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("secret"), "s").unwrap();
        let (part, link) = (pod.volume.join("part"), pod.volume.join("link"));
        fs::create_dir(&part).unwrap();
        symlink(&host, &link).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ =
                        rustix::fs::renameat_with(CWD, &part, CWD, &link, rustix::fs::RenameFlags::EXCHANGE);
                }
            });
            for _ in 0..300 {
                if let Ok(at) = pod.bind("part") {
                    assert!(!at.join("secret").exists());
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
