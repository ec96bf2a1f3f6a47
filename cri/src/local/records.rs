//! What the engine keeps on disk: a record before each kernel object, so that a kill at any instant leaves nothing that
//! the next engine can't find and finish or remove.
//!
//! ```text
//! <lib>/sandboxes/<id>/record.json                     SandboxRecord
//! <lib>/sandboxes/<id>/lock                            flock(2): whose engine this sandbox belongs to
//! <lib>/sandboxes/<id>/containers/<id>/record.json     ContainerRecord
//! <lib>/sandboxes/<id>/containers/<id>/{upper,work}    the writable layer
//! <lib>/sandboxes/<id>/containers/<id>/checkpoint/     what a checkpoint is made of, while that is being done
//! <run>/sandboxes/<id>/                                the shim's directory, see `berth_shim::protocol`
//! ```
//!
//! Records are renamed into place but not fsynced: what they name (processes, mounts, cgroups, links) does not outlive
//! the kernel either, so after a power cut a lost record means nothing is there to find.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use berth_shim::protocol::ExitRecord;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::handlers::Handler;
use super::selinux::SelinuxLabels;
use crate::types::{
    CgroupDriver, ContainerConfig, ContainerId, ContainerUser, ImageId, PodSandboxConfig, SandboxId,
    UnixNanos,
};

/// Where the engine keeps a sandbox.
#[derive(Clone, Debug)]
pub(crate) struct SandboxDirs {
    /// Survives a reboot.
    pub(crate) lib: PathBuf,
    /// The shim's directory.
    pub(crate) run: PathBuf,
}

impl SandboxDirs {
    pub(crate) fn record(&self) -> PathBuf {
        self.lib.join("record.json")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.lib.join("lock")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.lib.join("containers")
    }

    pub(crate) fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(&id.0)
    }

    pub(crate) fn container_record(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("record.json")
    }

    pub(crate) fn checkpoint(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("checkpoint")
    }

    pub(crate) fn bundle(&self, id: &ContainerId) -> PathBuf {
        self.run.join(berth_shim::protocol::BUNDLES_DIR).join(&id.0)
    }

    pub(crate) fn exit_record(&self, id: &ContainerId) -> PathBuf {
        self.run
            .join(berth_shim::protocol::EXITS_DIR)
            .join(format!("{id}.json"))
    }
}

/// A sandbox on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) id: SandboxId,
    /// With the cgroup parent where it is, whatever the caller named it by.
    pub(crate) config: PodSandboxConfig,
    /// Who makes its cgroups, whatever the driver of a later engine is.
    #[serde(default)]
    pub(crate) cgroup_driver: CgroupDriver,
    pub(crate) created_at: UnixNanos,
    pub(crate) phase: SandboxPhase,
    pub(crate) ips: Vec<IpAddr>,
    /// Where SELinux is in use.
    #[serde(default)]
    pub(crate) selinux: Option<SelinuxLabels>,
    /// The cgroups above its own that were not there before it, the deepest first.
    #[serde(default)]
    pub(crate) made_cgroups: Vec<PathBuf>,
    /// Its runtime handler; `None` is the built-in one.
    #[serde(default)]
    pub(super) handler: Option<Handler>,
}

/// How far a sandbox has come. It only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum SandboxPhase {
    /// Some of it may exist.
    Creating,
    /// All of it exists, unless the kernel or a fault took it.
    Ready,
    /// Its processes and its network are being taken down, or are gone.
    Stopped,
    /// It is being removed.
    Removing,
}

/// A container on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: ContainerId,
    pub(crate) config: ContainerConfig,
    pub(crate) image_id: ImageId,
    pub(crate) stop_signal: i32,
    pub(crate) created_at: UnixNanos,
    pub(crate) started_at: UnixNanos,
    pub(crate) phase: ContainerPhase,
    /// How it ended, once that is known.
    pub(crate) exit: Option<ExitRecord>,
    /// Why its program could not be started.
    pub(crate) cannot_run: Option<String>,
    /// Who its first process begins as, once the image was looked at.
    #[serde(default)]
    pub(crate) user: Option<ContainerUser>,
}

/// How far a container has come. It only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum ContainerPhase {
    /// Some of it may exist.
    Creating,
    /// All of it was made.
    Created,
    /// It is being removed.
    Removing,
}

/// Writes a record so that a reader sees the old or the new one, never a part.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_file(path, &serde_json::to_vec(value)?)
}

/// Writes a file so that a reader sees the old or the new one, never a part.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let result = File::create(&temporary).and_then(|mut file| file.write_all(bytes));
    result
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| {
            // What could not be written whole is not wanted in part.
            let _ = fs::remove_file(&temporary);
        })
}

/// Reads a record; `None` if there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a tree; one that is not there is removed.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    berth_images::delete_tree(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), None);
        write(&path, &vec![1, 2, 3]).unwrap();
        write(&path, &vec![4]).unwrap();
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), Some(vec![4]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_record_that_cannot_be_written_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir_all(path.join("full")).unwrap();
        write(&path, &1).unwrap_err();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
