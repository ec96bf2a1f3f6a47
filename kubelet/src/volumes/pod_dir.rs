//! Where things of a pod are on the node: `<root>/pods/<uid>`, as upstream lays it out.

use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;

use super::mounts;
use crate::identity::PodUid;
use crate::spec;

/// A pod's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDir {
    path: PathBuf,
}

impl PodDir {
    /// The directory of the pod `uid` of the node whose kubelet directory (`/var/lib/kubelet`) is `kubelet_root`. It
    /// need not be there.
    pub fn new(kubelet_root: &Path, uid: &PodUid) -> Self {
        PodDir {
            path: kubelet_root.join("pods").join(&uid.0),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Makes it, for root only, or finds it made. For a pod whose containers pass mounts on, or hear of those that come later,
    /// it is a shared mount of itself, and must be there before the sandbox is. For all others it is none: each mount of the
    /// host is copied for each process that gets mounts of its own, so that a mount for each pod costs all other pods.
    pub fn create(&self, pod: &Pod) -> io::Result<()> {
        static CREATION: Mutex<()> = Mutex::new(());
        let _one_at_a_time = CREATION.lock().unwrap_or_else(PoisonError::into_inner);
        make_private_dirs(&self.path)?;
        match passes_mounts(pod) {
            true => mounts::share(&self.path),
            false => Ok(()),
        }
    }

    /// The directory of a volume of a plugin, `kubernetes.io/empty-dir` for example.
    pub(crate) fn volume(&self, plugin: &str, name: &str) -> PathBuf {
        self.path
            .join("volumes")
            .join(plugin.replace('/', "~"))
            .join(name)
    }

    /// Where a volume of a plugin is that is a block device.
    pub(crate) fn volume_device(&self, plugin: &str, name: &str) -> PathBuf {
        self.path
            .join("volumeDevices")
            .join(plugin.replace('/', "~"))
            .join(name)
    }

    /// Where a part of a volume is bound for a container's mount.
    pub(crate) fn sub_path(&self, volume: &str, container: &str, index: usize) -> PathBuf {
        self.path
            .join("volume-subpaths")
            .join(volume)
            .join(container)
            .join(index.to_string())
    }

    /// Says that a volume was given to the pod's group.
    pub(crate) fn group_marker(&self, volume: &str) -> PathBuf {
        self.path.join("fs-group").join(volume)
    }

    /// The file of a container that says why it ended.
    pub(crate) fn termination_log(&self, container: &str, attempt: u32) -> PathBuf {
        self.path
            .join("containers")
            .join(container)
            .join(format!("{attempt}.termination-log"))
    }

    /// The pod's `/etc/hosts`.
    pub(crate) fn etc_hosts(&self) -> PathBuf {
        self.path.join("etc-hosts")
    }

    /// Writes the pod's `/etc/hosts` if it says something else. Containers have the very file mounted, so it is
    /// written in place.
    pub(crate) fn write_etc_hosts(&self, content: &str) -> io::Result<()> {
        let path = self.etc_hosts();
        // Containers may have made it as long as they like.
        let is_as_long = path.metadata().is_ok_and(|old| old.len() == content.len() as u64);
        if is_as_long && std::fs::read(&path).is_ok_and(|old| old == content.as_bytes()) {
            return Ok(());
        }
        std::fs::write(&path, content)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
    }

    /// Makes the empty termination message file of a container, writable for whoever it runs as.
    pub(crate) fn create_termination_log(&self, container: &str, attempt: u32) -> io::Result<PathBuf> {
        let path = self.termination_log(container, attempt);
        if let Some(parent) = path.parent() {
            make_private_dirs(parent)?;
        }
        let file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o666))?;
        Ok(path)
    }

    /// Removes the termination message file of a container.
    pub(crate) fn remove_termination_log(&self, container: &str, attempt: u32) -> io::Result<()> {
        match std::fs::remove_file(self.termination_log(container, attempt)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Unmounts all that is mounted in the directory and deletes it. Idempotent; what hostPath volumes lead to is never
    /// mounted there, and a mount that appears meanwhile is not entered.
    pub fn remove(&self) -> io::Result<()> {
        if !self.exists() {
            return Ok(());
        }
        mounts::unmount_below(&self.path.canonicalize()?)?;
        berth_cri::delete_tree(&self.path)?;
        // The last one takes the directory of all with it.
        match self.path.parent().map(std::fs::remove_dir) {
            Some(Err(error))
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

/// Whether a container of the pod is to pass mounts on to others, or to hear of theirs.
fn passes_mounts(pod: &Pod) -> bool {
    let ephemeral = spec::ephemeral_containers(pod);
    let mut containers = spec::all_containers(pod)
        .map(|(container, _)| container)
        .chain(ephemeral.iter().map(|(container, _)| container));
    containers.any(|container| {
        let mounts = container.volume_mounts.iter().flatten();
        let mut propagations = mounts.filter_map(|mount| mount.mount_propagation.as_deref());
        propagations.any(|propagation| propagation != "None")
    })
}

/// Makes a directory and its parents for root only.
pub(crate) fn make_private_dirs(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
}
