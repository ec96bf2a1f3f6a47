//! From CRI's messages to what the engine tells: the other way round than `server/view.rs`.
//!
//! A status of CRI has less than was asked for. What it lacks is in the [notes](super::notes) that this engine makes;
//! for objects of other clients it stays empty.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;

use crate::engine::EngineError;
use crate::local::signals;
use crate::server::{namespaces, request};
use crate::types::{
    CgroupDriver, ContainerConfig, ContainerId, ContainerState, ContainerStatus, ContainerUser,
    FilesystemUsage, Image, ImageFsInfo, ImageId, ImageMount, LinuxContainerResources, Mount,
    MountPropagation, NamespaceOptions, PodSandboxConfig, PodSandboxStatus, RuntimeCondition, RuntimeHandler,
    RuntimeStatus, SandboxId, UnixNanos, UserNamespace,
};
use crate::v1::{self, NamespaceMode};

fn map(of: HashMap<String, String>) -> BTreeMap<String, String> {
    of.into_iter().collect()
}

pub(super) fn nanos(at: i64) -> UnixNanos {
    u64::try_from(at).unwrap_or(0)
}

/// A sandbox's status. The configuration has what the message tells.
pub(super) fn sandbox_status(status: v1::PodSandboxStatus) -> PodSandboxStatus {
    let ready = status.state() == v1::PodSandboxState::SandboxReady;
    let metadata = status.metadata.unwrap_or_default();
    let options = status.linux.and_then(|linux| linux.namespaces);
    let (namespaces, user_namespace) = namespaces_of(
        options
            .and_then(|namespaces| namespaces.options)
            .unwrap_or_default(),
    );
    let network = status.network.unwrap_or_default();
    let ips = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|more| more.ip));
    PodSandboxStatus {
        id: SandboxId(status.id),
        config: PodSandboxConfig {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            attempt: metadata.attempt,
            labels: map(status.labels),
            annotations: map(status.annotations),
            namespaces,
            user_namespace,
            runtime_handler: status.runtime_handler,
            ..Default::default()
        },
        ready,
        created_at: nanos(status.created_at),
        ips: ips.filter_map(|ip| ip.parse::<IpAddr>().ok()).collect(),
    }
}

fn namespaces_of(options: v1::NamespaceOption) -> (NamespaceOptions, Option<UserNamespace>) {
    let shared = NamespaceOptions {
        host_network: options.network() == NamespaceMode::Node,
        host_pid: options.pid() == NamespaceMode::Node,
        host_ipc: options.ipc() == NamespaceMode::Node,
        shared_pid: options.pid() == NamespaceMode::Pod,
    };
    let own = |user: &v1::UserNamespace| user.mode() == NamespaceMode::Pod && !user.uids.is_empty();
    let user = options.userns_options.filter(own).map(|user| UserNamespace {
        uids: user.uids.iter().map(namespaces::range).collect(),
        gids: user.gids.iter().map(namespaces::range).collect(),
    });
    (shared, user)
}

/// The state of a container.
pub(super) fn container_state(state: v1::ContainerState) -> ContainerState {
    match state {
        v1::ContainerState::ContainerCreated => ContainerState::Created,
        v1::ContainerState::ContainerRunning => ContainerState::Running,
        v1::ContainerState::ContainerExited => ContainerState::Exited,
        v1::ContainerState::ContainerUnknown => ContainerState::Unknown,
    }
}

/// A container's status. Its sandbox, its pod and its image's id are not in the message.
///
/// # Errors
/// The limits that it tells make no sense.
pub(super) fn container_status(
    status: v1::ContainerStatus,
    sandbox: SandboxId,
    pod_uid: String,
    image_id: ImageId,
) -> Result<ContainerStatus, EngineError> {
    let state = container_state(status.state());
    let stop_signal = stop_signal(status.stop_signal());
    let metadata = status.metadata.unwrap_or_default();
    let image = status.image.unwrap_or_default();
    let resources = match status.resources.and_then(|resources| resources.linux) {
        Some(resources) => request::resources(resources)?,
        None => LinuxContainerResources::default(),
    };
    Ok(ContainerStatus {
        id: ContainerId(status.id),
        sandbox,
        pod_uid,
        config: ContainerConfig {
            name: metadata.name,
            attempt: metadata.attempt,
            user_specified_image: match image.user_specified_image.as_str() {
                "" => image.image.clone(),
                _ => image.user_specified_image,
            },
            image: image.image,
            mounts: status.mounts.into_iter().map(mount).collect(),
            labels: map(status.labels),
            annotations: map(status.annotations),
            resources,
            ..Default::default()
        },
        image_id,
        state,
        created_at: nanos(status.created_at),
        started_at: nanos(status.started_at),
        finished_at: nanos(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        log_path: PathBuf::from(status.log_path),
        pid: 0,
        user: status.user.and_then(|user| user.linux).and_then(user),
        stop_signal,
    })
}

fn user(user: v1::LinuxContainerUser) -> Option<ContainerUser> {
    let id = |id: i64| u32::try_from(id).ok();
    Some(ContainerUser {
        uid: id(user.uid)?,
        gid: id(user.gid)?,
        supplemental_groups: user
            .supplemental_groups
            .into_iter()
            .map(id)
            .collect::<Option<_>>()?,
    })
}

/// The number of a signal; 0 where the runtime does not tell.
fn stop_signal(signal: v1::Signal) -> i32 {
    let name = signal
        .as_str_name()
        .replace("PLUS", "+")
        .replace("RTMAXMINUS", "RTMAX-");
    match signal {
        v1::Signal::RuntimeDefault => 0,
        _ => signals::parse(&name).unwrap_or(0),
    }
}

fn mount(mount: v1::Mount) -> Mount {
    let propagation = match mount.propagation() {
        v1::MountPropagation::PropagationPrivate => MountPropagation::None,
        v1::MountPropagation::PropagationHostToContainer => MountPropagation::HostToContainer,
        v1::MountPropagation::PropagationBidirectional => MountPropagation::Bidirectional,
    };
    let image = mount.image.filter(|image| !image.image.is_empty());
    Mount {
        container_path: mount.container_path.into(),
        host_path: mount.host_path.into(),
        readonly: mount.readonly,
        propagation,
        recursive_read_only: mount.recursive_read_only,
        uid_mappings: mount.uid_mappings.iter().map(namespaces::range).collect(),
        gid_mappings: mount.gid_mappings.iter().map(namespaces::range).collect(),
        selinux_relabel: mount.selinux_relabel,
        image: image.map(|image| ImageMount {
            image: image.image,
            user_specified_image: image.user_specified_image,
            image_ref: image.image_ref,
            sub_path: mount.image_sub_path.into(),
        }),
    }
}

/// An image. Its user has no group here.
pub(super) fn image(image: v1::Image) -> Image {
    Image {
        id: ImageId(image.id),
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        size: image.size,
        user: match image.uid {
            Some(uid) => uid.value.to_string(),
            None => image.username,
        },
        pinned: image.pinned,
    }
}

fn filesystem(usage: v1::FilesystemUsage) -> FilesystemUsage {
    FilesystemUsage {
        timestamp: nanos(usage.timestamp),
        mountpoint: usage.fs_id.unwrap_or_default().mountpoint.into(),
        used_bytes: usage.used_bytes.map_or(0, |used| used.value),
        inodes_used: usage.inodes_used.map_or(0, |used| used.value),
    }
}

/// What images and writable layers take. A runtime that says nothing of the layers (timestamp 0) has not looked at them.
pub(super) fn image_fs_info(info: v1::ImageFsInfoResponse) -> ImageFsInfo {
    let first = |all: Vec<v1::FilesystemUsage>| all.into_iter().next().map(filesystem).unwrap_or_default();
    ImageFsInfo {
        images: first(info.image_filesystems),
        containers: first(info.container_filesystems),
    }
}

/// The runtime's status.
pub(super) fn status(status: v1::StatusResponse) -> RuntimeStatus {
    let conditions = status.status.unwrap_or_default().conditions;
    let condition = |condition: v1::RuntimeCondition| RuntimeCondition {
        kind: condition.r#type,
        status: condition.status,
        reason: condition.reason,
        message: condition.message,
    };
    let handler = |handler: v1::RuntimeHandler| {
        let features = handler.features.unwrap_or_default();
        RuntimeHandler {
            name: handler.name,
            recursive_read_only_mounts: features.recursive_read_only_mounts,
            user_namespaces: features.user_namespaces,
        }
    };
    RuntimeStatus {
        conditions: conditions.into_iter().map(condition).collect(),
        handlers: status.runtime_handlers.into_iter().map(handler).collect(),
        supplemental_groups_policy: status
            .features
            .is_some_and(|features| features.supplemental_groups_policy),
        info: map(status.info),
    }
}

/// Who makes cgroups.
pub(super) fn cgroup_driver(driver: v1::CgroupDriver) -> CgroupDriver {
    match driver {
        v1::CgroupDriver::Cgroupfs => CgroupDriver::Cgroupfs,
        v1::CgroupDriver::Systemd => CgroupDriver::Systemd,
    }
}
