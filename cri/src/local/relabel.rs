//! SELinux labels of files that a pod mounts.
//!
//! A kubelet asks for them (`selinux_relabel`) where a volume is the pod's own: everything in it gets the label that the
//! container's files have, with the pod's own categories, and no other pod's processes can use it then. As in containerd
//! and CRI-O the label is never one that is shared.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, Mode, OFlags, XattrFlags, lgetxattr, lsetxattr, openat};
use rustix::io::Errno;

use super::selinux::SelinuxLabels;
use crate::engine::EngineError;
use crate::types::Mount;

const LABEL: &str = "security.selinux";
/// Directories in each other. Each is open while what is in it is labelled.
const MAX_DEPTH: usize = 256;
/// What a host could not be used without is never labelled as one pod's, as in CRI-O and podman; what is below mostly may
/// be.
const NEVER: [&str; 25] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/passwd",
    "/etc/pki",
    "/etc/shadow",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
    "/var/log",
];

/// Labels the sources of the mounts that ask for it, and those of the pod's own files, where SELinux is in use.
///
/// # Errors
/// One of them must not be labelled, or could not be.
pub(super) async fn sources(
    mounts: &[Mount],
    of_pod: Vec<PathBuf>,
    labels: Option<SelinuxLabels>,
) -> Result<(), EngineError> {
    let Some(labels) = labels else { return Ok(()) };
    let mut paths = asked_for(mounts)?;
    paths.extend(of_pod);
    // A volume may have millions of files.
    let work = tokio::task::spawn_blocking(move || {
        paths.iter().try_for_each(|path| {
            relabel(path, &labels.mount).map_err(|error| {
                EngineError::Internal(format!(
                    "{} can't be labelled {} for SELinux: {error}.",
                    path.display(),
                    labels.mount
                ))
            })
        })
    });
    work.await
        .unwrap_or_else(|error| Err(EngineError::Internal(format!("Labelling files failed: {error}."))))
}

/// The sources to be labelled, by their real names. An image's files have their label by the mount that shows them.
fn asked_for(mounts: &[Mount]) -> Result<Vec<PathBuf>, EngineError> {
    let asking = mounts
        .iter()
        .filter(|mount| mount.selinux_relabel && mount.image.is_none());
    asking.map(|mount| source(&mount.host_path)).collect()
}

fn source(path: &Path) -> Result<PathBuf, EngineError> {
    let refused = |reason: &dyn std::fmt::Display| {
        EngineError::InvalidArgument(format!(
            "{} can't be labelled for SELinux: {reason}.",
            path.display()
        ))
    };
    // The mount shows what a link leads to.
    let real = fs::canonicalize(path).map_err(|error| refused(&error))?;
    match NEVER.iter().any(|never| Path::new(never) == real) {
        true => Err(refused(
            &"the host itself depends on its label; mount something below it",
        )),
        false => Ok(real),
    }
}

/// Labels a file, or a directory with all that is in it, of other file systems too; itself last, so that one that was not
/// finished does not look so. Links are labelled, not followed, whoever changes the tree meanwhile. What has the label
/// already is not written to.
fn relabel(path: &Path, label: &str) -> io::Result<()> {
    match open_directory(CWD, path) {
        Ok(directory) => relabel_entries(&directory, label, 0)?,
        Err(Errno::NOTDIR | Errno::LOOP) => {}
        Err(errno) => return Err(errno.into()),
    }
    set(path, label)
}

fn open_directory(at: impl AsFd, name: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn relabel_entries(directory: &OwnedFd, label: &str, depth: usize) -> io::Result<()> {
    if depth == MAX_DEPTH {
        return Err(io::Error::other(format!(
            "it has more than {MAX_DEPTH} directories in each other"
        )));
    }
    let here = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
        if [".", ".."].contains(&name.to_str().unwrap_or_default()) {
            continue;
        }
        match open_directory(directory, name) {
            Ok(below) => relabel_entries(&below, label, depth + 1)?,
            // No directory, a link, or gone meanwhile.
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        set(&here.join(name), label)?;
    }
    Ok(())
}

/// Not every file system keeps labels; those have one for all of their files, which is the mount's affair.
fn set(path: &Path, label: &str) -> io::Result<()> {
    let mut known = [0; 4096];
    if let Ok(length) = lgetxattr(path, LABEL, &mut known[..])
        && known
            .get(..length)
            .is_some_and(|known| known.strip_suffix(b"\0").unwrap_or(known) == label.as_bytes())
    {
        return Ok(());
    }
    match lsetxattr(path, LABEL, label.as_bytes(), XattrFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ImageMount;

    const WANTED: &str = "system_u:object_r:container_file_t:s0:c1,c2";

    fn label_of(path: &Path) -> Option<String> {
        let mut label = [0; 256];
        let length = lgetxattr(path, LABEL, &mut label[..]).ok()?;
        Some(String::from_utf8(label[..length].to_vec()).unwrap())
    }

    /// The kernel keeps such labels without a policy too.
    #[test]
    fn a_tree_is_labelled_and_nothing_that_links_lead_to() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir_all(path("volume/a/b/c")).unwrap();
        fs::create_dir(path("outside")).unwrap();
        for file in ["volume/file", "volume/a/b/c/deep", "outside/file"] {
            fs::write(path(file), "").unwrap();
        }
        rustix::fs::mknodat(
            CWD,
            path("volume/pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .unwrap();
        std::os::unix::fs::symlink(path("outside"), path("volume/directory")).unwrap();
        std::os::unix::fs::symlink(path("outside/file"), path("volume/a/link")).unwrap();
        std::os::unix::fs::symlink("nowhere", path("volume/dangling")).unwrap();
        relabel(&path("volume"), WANTED).unwrap();
        for labelled in [
            "volume",
            "volume/file",
            "volume/pipe",
            "volume/a",
            "volume/a/b/c",
            "volume/a/b/c/deep",
            "volume/directory",
            "volume/a/link",
            "volume/dangling",
        ] {
            assert_eq!(label_of(&path(labelled)).as_deref(), Some(WANTED), "{labelled}");
        }
        assert_eq!(
            (label_of(&path("outside")), label_of(&path("outside/file"))),
            (None, None)
        );
        let changed = |name: &str| {
            rustix::fs::stat(path(name))
                .map(|stat| (stat.st_ctime, stat.st_ctime_nsec))
                .unwrap()
        };
        let before = changed("volume/file");
        relabel(&path("volume"), WANTED).unwrap();
        assert_eq!(
            changed("volume/file"),
            before,
            "what has its label is not written to"
        );
        relabel(&path("volume/file"), "other:label").unwrap();
        assert_eq!(label_of(&path("volume/file")).as_deref(), Some("other:label"));
        assert_eq!(label_of(&path("volume")).as_deref(), Some(WANTED));
    }

    #[test]
    fn what_can_be_nested_for_ever_ends() {
        let root = tempfile::tempdir().unwrap();
        let mut directory = rustix::fs::open(root.path(), OFlags::PATH, Mode::empty()).unwrap();
        for _ in 0..=MAX_DEPTH {
            rustix::fs::mkdirat(&directory, "d", Mode::RWXU).unwrap();
            directory = openat(&directory, "d", OFlags::PATH, Mode::empty()).unwrap();
        }
        let error = relabel(root.path(), WANTED).unwrap_err();
        assert!(error.to_string().contains("256"), "{error}");
    }

    #[test]
    fn the_host_keeps_its_labels() {
        let mount = |path: &Path| Mount {
            container_path: "/m".into(),
            host_path: path.to_owned(),
            selinux_relabel: true,
            ..Default::default()
        };
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink("/usr", &link).unwrap();
        for refused in [
            Path::new("/"),
            Path::new("/etc/../etc/"),
            Path::new("/usr"),
            &link,
        ] {
            let error = asked_for(&[mount(refused)]).unwrap_err().to_string();
            assert!(error.contains(&refused.display().to_string()), "{error}");
        }
        let unasked = Mount {
            selinux_relabel: false,
            ..mount(Path::new("/usr"))
        };
        let image = Mount {
            host_path: PathBuf::new(),
            image: Some(ImageMount::default()),
            ..mount(Path::new(""))
        };
        let real = fs::canonicalize(root.path()).unwrap();
        assert_eq!(asked_for(&[unasked, image, mount(root.path())]).unwrap(), [real]);
    }

    #[tokio::test]
    async fn without_selinux_nothing_is_labelled_or_refused() {
        let root = Mount {
            host_path: "/".into(),
            selinux_relabel: true,
            ..Default::default()
        };
        sources(&[root], Vec::new(), None).await.unwrap();
    }
}
