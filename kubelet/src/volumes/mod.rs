//! A pod's volumes: set up before its first container, mounted in its containers, removed with the pod.
//!
//! Each kind is a file with `path` and `set_up`; setting up is idempotent, so that a pod adopted after a crash sets up
//! again what is missing. Removal needs no record of its own: everything is below the pod's directory
//! ([`PodDir::remove`]), and a hostPath is only ever referred to. Claims outlive the pod, but for those of its ephemeral
//! volumes, which carry its UID.

mod atomic_writer;
mod beneath;
mod block;
mod claim;
mod config_map;
mod downward_api;
mod empty_dir;
mod env_files;
mod error;
mod host_path;
mod local;
mod mounts;
mod nfs;
mod ownership;
mod payload;
mod pod_dir;
mod presence;
mod projected;
mod secret;
mod setting_up;
mod sub_path;
mod termination;

use std::path::{Path, PathBuf};

use berth_cri::{ImageMount, Mount};
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

pub(crate) use berth_cri::delete_tree;
pub use block::container_devices;
pub(crate) use env_files::env_files;
pub use error::VolumeError;
pub use pod_dir::PodDir;
pub(crate) use pod_dir::make_private_dirs;
pub use setting_up::{SettingUp, Wanted};
pub use termination::termination_message;

use self::ownership::ChangePolicy;
use self::payload::Style;
use self::presence::Presence;
use crate::identity::PodUid;
use crate::plan::{NodeFacts, Objects, StartContainer, VolumeMountRequest};

/// What setting up a pod's volumes depends on.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What its volumes refer to.
    pub objects: &'a Objects,
    /// Where its volumes go.
    pub dir: &'a PodDir,
    /// The node.
    pub node: &'a NodeFacts,
    /// What may take long ends when this is not wanted any more; without it, it may take as long as it likes.
    pub setting_up: Option<&'a SettingUp>,
}

impl Context<'_> {
    fn volumes(&self) -> &[Volume] {
        self.pod
            .spec
            .as_ref()
            .and_then(|spec| spec.volumes.as_deref())
            .unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    fn fs_group(&self) -> Option<(u32, ChangePolicy)> {
        let security = self.pod.spec.as_ref()?.security_context.as_ref()?;
        let group = u32::try_from(security.fs_group?).ok()?;
        let policy = match security.fs_group_change_policy.as_deref() {
            Some("OnRootMismatch") => ChangePolicy::OnRootMismatch,
            _ => ChangePolicy::Always,
        };
        Some((group, policy))
    }

    fn style(&self, default_mode: i32) -> Style {
        Style {
            default_mode,
            group: self.fs_group().map(|(group, _)| group),
        }
    }

    /// What the pod's group may use of memory.
    fn pod_memory_limit(&self) -> Option<u64> {
        let limit = crate::resources::pod_resources(self.pod, self.node).memory_limit?;
        u64::try_from(limit).ok().filter(|&bytes| bytes > 0)
    }
}

/// Makes the pod's directory and all its volumes, or what is missing of them.
pub fn set_up(context: &Context<'_>) -> Result<(), VolumeError> {
    context
        .dir
        .create(context.pod)
        .map_err(VolumeError::io("make the directory", context.dir.path()))?;
    context.volumes().iter().try_for_each(|volume| {
        set_up_volume(context, volume).map_err(|source| match source {
            // It names the volume in upstream's words.
            VolumeError::NodeAffinity { .. } => source,
            source => VolumeError::SetUp {
                volume: volume.name.clone(),
                source: Box::new(source),
            },
        })?;
        if let Some(setting_up) = context.setting_up {
            setting_up.one_done();
        }
        Ok(())
    })
}

fn set_up_volume(context: &Context<'_>, volume: &Volume) -> Result<(), VolumeError> {
    let name = volume.name.as_str();
    if let Some(source) = &volume.empty_dir {
        empty_dir::set_up(context, name, source)
    } else if let Some(source) = &volume.host_path {
        host_path::set_up(source)
    } else if let Some(source) = &volume.config_map {
        config_map::set_up(context, name, source)
    } else if let Some(source) = &volume.secret {
        secret::set_up(context, name, source)
    } else if let Some(source) = &volume.downward_api {
        downward_api::set_up(context, name, source)
    } else if let Some(source) = &volume.projected {
        projected::set_up(context, name, source)
    } else if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
        claim::set_up(context, volume)
    } else if let Some(source) = &volume.nfs {
        nfs::set_up(context, name, source, &[], false)
    } else if volume.image.is_some() {
        // The engine mounts it, in the container alone.
        Ok(())
    } else {
        Err(unsupported(name))
    }
}

fn volume_path(context: &Context<'_>, name: &str) -> Result<PathBuf, VolumeError> {
    let volume = context.volumes().iter().find(|volume| volume.name == name);
    let Some(volume) = volume else {
        return Err(VolumeError::Unsupported(format!(
            "the pod has no volume \"{name}\""
        )));
    };
    if volume.empty_dir.is_some() {
        Ok(empty_dir::path(context, name))
    } else if let Some(source) = &volume.host_path {
        Ok(host_path::path(source))
    } else if volume.config_map.is_some() {
        Ok(config_map::path(context, name))
    } else if volume.secret.is_some() {
        Ok(secret::path(context, name))
    } else if volume.downward_api.is_some() {
        Ok(downward_api::path(context, name))
    } else if volume.projected.is_some() {
        Ok(projected::path(context, name))
    } else if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
        claim::path(context, volume)
    } else if volume.nfs.is_some() {
        Ok(nfs::path(context, name))
    } else {
        Err(unsupported(name))
    }
}

/// Where a volume is that takes room on the node's disk and counts as the pod's (IsLocalEphemeralVolume).
pub(crate) fn on_local_disk(dir: &PodDir, volume: &Volume) -> Option<PathBuf> {
    let name = &volume.name;
    let on_disk = |source: &EmptyDirVolumeSource| source.medium.as_deref().unwrap_or_default().is_empty();
    if volume.empty_dir.as_ref().is_some_and(on_disk) {
        Some(dir.volume(empty_dir::PLUGIN, name))
    } else if volume.config_map.is_some() {
        Some(dir.volume(config_map::PLUGIN, name))
    } else {
        None
    }
}

fn unsupported(name: &str) -> VolumeError {
    VolumeError::Unsupported(format!(
        "volume \"{name}\" is of a kind that is not supported yet"
    ))
}

/// The mounts of a container that is about to start: its volumes, then `/etc/hosts` and the termination message file
/// where no volume is mounted.
pub fn container_mounts(context: &Context<'_>, start: &StartContainer) -> Result<Vec<Mount>, VolumeError> {
    let mut mounts = Vec::new();
    for (index, request) in start.volume_mounts.iter().enumerate() {
        if let Some(image) = image_mount(context, request) {
            mounts.push(image);
            continue;
        }
        let root = volume_path(context, &request.volume)?;
        let host_path = match &request.sub_path {
            Some(part) if !part.as_os_str().is_empty() => {
                let place = sub_path::Place {
                    container: &start.config.name,
                    index,
                };
                sub_path::bind(context.dir, &request.volume, &root, part, place)?
            }
            _ => root,
        };
        mounts.push(Mount {
            container_path: request.container_path.clone(),
            host_path,
            readonly: request.read_only || is_always_read_only(context, &request.volume),
            recursive_read_only: request.recursive_read_only,
            propagation: request.propagation,
            selinux_relabel: is_relabelled(context, &request.volume),
            ..Mount::default()
        });
    }
    mounts.extend(own_mounts(context, start, &mounts)?);
    // Files belong to the pod's ids as the pod sees them, on the disk too: a volume is the same for any pod.
    if let Some(user) = &start.config.user_namespace {
        for mount in &mut mounts {
            mount.uid_mappings.clone_from(&user.uids);
            mount.gid_mappings.clone_from(&user.gids);
        }
    }
    Ok(mounts)
}

/// Volumes whose files the node writes are never writable in a container, nor are claims that the pod has read-only.
fn is_always_read_only(context: &Context<'_>, name: &str) -> bool {
    context
        .volumes()
        .iter()
        .filter(|volume| volume.name == name)
        .any(|volume| {
            volume.config_map.is_some()
                || volume.secret.is_some()
                || volume.downward_api.is_some()
                || volume.projected.is_some()
                || claim::is_read_only(volume)
        })
}

/// A volume that is an image's files, which are never writable.
fn image_mount(context: &Context<'_>, request: &VolumeMountRequest) -> Option<Mount> {
    let volume = context
        .volumes()
        .iter()
        .find(|volume| volume.name == request.volume)?;
    let reference = volume.image.as_ref()?.reference.clone()?;
    Some(Mount {
        container_path: request.container_path.clone(),
        readonly: true,
        recursive_read_only: request.recursive_read_only,
        image: Some(ImageMount {
            image: reference.clone(),
            user_specified_image: reference,
            sub_path: request.sub_path.clone().unwrap_or_default(),
            ..ImageMount::default()
        }),
        ..Mount::default()
    })
}

/// Whether a volume's files get the container's SELinux label. What others than pods may have keeps its own, as does a
/// claim that the pod only reads: another pod may be writing it.
fn is_relabelled(context: &Context<'_>, name: &str) -> bool {
    let mut volumes = context.volumes().iter().filter(|volume| volume.name == name);
    volumes.all(|volume| {
        let is_claim = volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
        let is_for_others = volume.host_path.is_some() || volume.nfs.is_some();
        match is_claim {
            true => claim::is_for_pods(context, volume) && !claim::is_read_only(volume),
            false => !is_for_others,
        }
    })
}

/// Brings the volumes whose files the node writes up to date, if `is_latest` says that nothing newer is to follow. Readers
/// see either all of the old or all of the new files of a volume.
pub fn refresh(context: &Context<'_>, is_latest: impl Fn() -> bool) -> Result<(), VolumeError> {
    let presence = Presence::of(context.dir);
    let _held = presence.hold();
    if !is_latest() || !context.dir.exists() {
        return Ok(());
    }
    let written = |volume: &&Volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some()
    };
    let mut volumes = context.volumes().iter().filter(written);
    volumes.try_for_each(|volume| set_up_volume(context, volume))
}

/// Removes all volumes of a pod with its directory. Idempotent.
pub fn tear_down(kubelet_root: &Path, dir: &PodDir, uid: &PodUid) -> Result<(), VolumeError> {
    let presence = Presence::of(dir);
    let _held = presence.hold();
    // Before the directory: while that is there, this is tried again.
    claim::remove(kubelet_root, uid)?;
    dir.remove()
        .map_err(VolumeError::io("remove the pod's directory", dir.path()))
}

/// Mounts of files that the node makes for the container.
fn own_mounts(
    context: &Context<'_>,
    start: &StartContainer,
    taken: &[Mount],
) -> Result<Vec<Mount>, VolumeError> {
    let free = |path: &Path| !taken.iter().any(|mount| mount.container_path == path);
    let mut mounts = Vec::new();
    if let Some(hosts) = &start.hosts {
        let path = context.dir.etc_hosts();
        context
            .dir
            .write_etc_hosts(hosts)
            .map_err(VolumeError::io("write", &path))?;
        if free(Path::new("/etc/hosts")) {
            mounts.push(Mount {
                container_path: "/etc/hosts".into(),
                host_path: path,
                selinux_relabel: true,
                ..Mount::default()
            });
        }
    }
    if let Some(container_path) = start.termination_message_path.as_ref().filter(|path| free(path)) {
        let config = &start.config;
        let path = context
            .dir
            .create_termination_log(&config.name, config.attempt)
            .map_err(VolumeError::io(
                "make",
                &context.dir.termination_log(&config.name, config.attempt),
            ))?;
        mounts.push(Mount {
            container_path: container_path.clone(),
            host_path: path,
            selinux_relabel: true,
            ..Mount::default()
        });
    }
    Ok(mounts)
}

/// A quantity in bytes; `None` if it is not one.
fn quantity_bytes(quantity: &Quantity) -> Option<u64> {
    u64::try_from(crate::quantity::parse(&quantity.0).ok()?.as_units()).ok()
}

/// Makes a volume's directory on disk. Its mode is that of an emptyDir, as upstream: mounts of it are read-only. With a
/// group, what is made in it is that group's.
fn make_volume_dir(path: &Path, group: Option<u32>) -> Result<(), VolumeError> {
    use std::os::unix::fs::{PermissionsExt, chown};
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    std::fs::create_dir_all(path)
        .and_then(|()| group.map_or(Ok(()), |_| chown(path, None, group)))
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
        .map_err(VolumeError::io("make the directory", path))
}

/// Makes a volume's directory in memory; once, so that a restart keeps what is in it.
fn make_memory_dir(path: &Path, group: Option<u32>) -> Result<(), VolumeError> {
    std::fs::create_dir_all(path).map_err(VolumeError::io("make the directory", path))?;
    if mounts::is_mount_point(path).map_err(VolumeError::io("look at", path))? {
        return Ok(());
    }
    mounts::mount_tmpfs(path, None, group).map_err(VolumeError::io("mount a tmpfs at", path))
}
