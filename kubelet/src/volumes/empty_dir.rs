//! `emptyDir`: a directory that lives as long as the pod, on disk or in memory.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;

use super::{Context, PodDir, VolumeError, mounts, ownership};

pub(super) const PLUGIN: &str = "kubernetes.io/empty-dir";

/// Where the volume is.
pub(super) fn path(context: &Context<'_>, name: &str) -> PathBuf {
    path_in(context.dir, name)
}

/// Where a volume of this kind is in a pod's directory.
pub(super) fn path_in(dir: &PodDir, name: &str) -> PathBuf {
    dir.volume(PLUGIN, name)
}

/// Makes the volume, or finds it made.
pub(super) fn set_up(
    context: &Context<'_>,
    name: &str,
    source: &EmptyDirVolumeSource,
) -> Result<(), VolumeError> {
    let path = path(context, name);
    std::fs::create_dir_all(&path).map_err(VolumeError::io("make the directory", &path))?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))
            .map_err(VolumeError::io("set the mode of", &path))?,
        "Memory" => {
            if !mounts::is_mount_point(&path).map_err(VolumeError::io("look at", &path))? {
                let size = memory_size(context, source);
                mounts::mount_tmpfs(&path, size, 0o777)
                    .map_err(VolumeError::io("mount a tmpfs at", &path))?;
            }
        }
        other => {
            return Err(VolumeError::Unsupported(format!(
                "emptyDir medium \"{other}\" of volume \"{name}\" is not supported; leave it out or use Memory"
            )));
        }
    }
    if let Some((gid, policy)) = context.fs_group() {
        ownership::set(&path, gid, policy).map_err(VolumeError::io("change the group of", &path))?;
    }
    Ok(())
}

/// The least of the volume's limit, the pod's memory limit and the machine's memory.
fn memory_size(context: &Context<'_>, source: &EmptyDirVolumeSource) -> Option<u64> {
    let limit = source
        .size_limit
        .as_ref()
        .and_then(super::quantity_bytes)
        .filter(|&bytes| bytes > 0);
    let capacity = Some(context.node.memory_capacity).filter(|&bytes| bytes > 0);
    [limit, context.pod_memory_limit(), capacity]
        .into_iter()
        .flatten()
        .min()
}
