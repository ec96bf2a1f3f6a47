//! From what the engine knows to CRI's messages.

use std::collections::{BTreeMap, HashMap};

use nix::sys::signal::Signal;

use super::namespaces;
use crate::types::{
    CgroupDriver, ContainerState, ContainerStatus, ContainerUser, EngineEventKind, FilesystemUsage, Image,
    LinuxContainerResources, Mount, MountPropagation, PodSandboxStatus, RuntimeStatus, UnixNanos,
};
use crate::v1;

pub(crate) fn map(of: &BTreeMap<String, String>) -> HashMap<String, String> {
    of.iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

pub(crate) fn nanos(at: UnixNanos) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

fn sandbox_metadata(sandbox: &PodSandboxStatus) -> v1::PodSandboxMetadata {
    v1::PodSandboxMetadata {
        name: sandbox.config.name.clone(),
        uid: sandbox.config.uid.clone(),
        namespace: sandbox.config.namespace.clone(),
        attempt: sandbox.config.attempt,
    }
}

fn sandbox_state(sandbox: &PodSandboxStatus) -> i32 {
    if sandbox.ready {
        v1::PodSandboxState::SandboxReady.into()
    } else {
        v1::PodSandboxState::SandboxNotready.into()
    }
}

/// A sandbox as lists show it.
pub(super) fn sandbox(sandbox: &PodSandboxStatus) -> v1::PodSandbox {
    v1::PodSandbox {
        id: sandbox.id.0.clone(),
        metadata: Some(sandbox_metadata(sandbox)),
        state: sandbox_state(sandbox),
        created_at: nanos(sandbox.created_at),
        labels: map(&sandbox.config.labels),
        annotations: map(&sandbox.config.annotations),
        runtime_handler: sandbox.config.runtime_handler.clone(),
    }
}

/// A sandbox's status.
pub(crate) fn sandbox_status(sandbox: &PodSandboxStatus) -> v1::PodSandboxStatus {
    let mut ips = sandbox.ips.iter().map(ToString::to_string);
    v1::PodSandboxStatus {
        id: sandbox.id.0.clone(),
        metadata: Some(sandbox_metadata(sandbox)),
        state: sandbox_state(sandbox),
        created_at: nanos(sandbox.created_at),
        network: Some(v1::PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| v1::PodIp { ip }).collect(),
        }),
        linux: Some(v1::LinuxPodSandboxStatus {
            namespaces: Some(v1::Namespace {
                options: Some(namespaces::to_message(
                    sandbox.config.namespaces,
                    sandbox.config.user_namespace.as_ref(),
                )),
            }),
        }),
        labels: map(&sandbox.config.labels),
        annotations: map(&sandbox.config.annotations),
        runtime_handler: sandbox.config.runtime_handler.clone(),
    }
}

pub(super) fn container_state(state: ContainerState) -> v1::ContainerState {
    match state {
        ContainerState::Created => v1::ContainerState::ContainerCreated,
        ContainerState::Running => v1::ContainerState::ContainerRunning,
        ContainerState::Exited => v1::ContainerState::ContainerExited,
        ContainerState::Unknown => v1::ContainerState::ContainerUnknown,
    }
}

fn container_metadata(container: &ContainerStatus) -> v1::ContainerMetadata {
    v1::ContainerMetadata {
        name: container.config.name.clone(),
        attempt: container.config.attempt,
    }
}

fn image_spec(container: &ContainerStatus) -> v1::ImageSpec {
    v1::ImageSpec {
        image: container.config.image.clone(),
        user_specified_image: container.config.user_specified_image.clone(),
        ..Default::default()
    }
}

/// A container as lists show it.
pub(super) fn container(container: &ContainerStatus) -> v1::Container {
    v1::Container {
        id: container.id.0.clone(),
        pod_sandbox_id: container.sandbox.0.clone(),
        metadata: Some(container_metadata(container)),
        image: Some(image_spec(container)),
        image_ref: container.image_id.0.clone(),
        state: container_state(container.state).into(),
        created_at: nanos(container.created_at),
        labels: map(&container.config.labels),
        annotations: map(&container.config.annotations),
        image_id: container.image_id.0.clone(),
    }
}

/// A container's status. `image` is the one that it was made from, if that is still there.
pub(crate) fn container_status(container: &ContainerStatus, image: Option<&Image>) -> v1::ContainerStatus {
    let digest = image.and_then(|image| image.repo_digests.first().cloned());
    v1::ContainerStatus {
        id: container.id.0.clone(),
        metadata: Some(container_metadata(container)),
        state: container_state(container.state).into(),
        created_at: nanos(container.created_at),
        started_at: nanos(container.started_at),
        finished_at: nanos(container.finished_at),
        exit_code: container.exit_code,
        image: Some(image_spec(container)),
        image_ref: digest.unwrap_or_else(|| container.image_id.0.clone()),
        reason: container.reason.clone(),
        message: container.message.clone(),
        labels: map(&container.config.labels),
        annotations: map(&container.config.annotations),
        mounts: container.config.mounts.iter().map(mount).collect(),
        log_path: container.log_path.to_string_lossy().into_owned(),
        resources: Some(v1::ContainerResources {
            linux: Some(resources(&container.config.resources)),
            windows: None,
        }),
        image_id: container.image_id.0.clone(),
        user: container.user.as_ref().map(user),
        stop_signal: stop_signal(container.stop_signal).into(),
    }
}

fn user(user: &ContainerUser) -> v1::ContainerUser {
    v1::ContainerUser {
        linux: Some(v1::LinuxContainerUser {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: user
                .supplemental_groups
                .iter()
                .map(|gid| i64::from(*gid))
                .collect(),
        }),
    }
}

/// A signal by its number. The enumeration has some real-time ones twice, and those in the middle from both ends.
pub(crate) fn stop_signal(number: i32) -> v1::Signal {
    const MIN: i32 = 34;
    const MAX: i32 = 64;
    let name = match number {
        MIN => "SIGRTMIN".to_owned(),
        MAX => "SIGRTMAX".to_owned(),
        number if (MIN..=MIN + 15).contains(&number) => format!("SIGRTMINPLUS{}", number - MIN),
        number if (MIN..=MAX).contains(&number) => format!("SIGRTMAXMINUS{}", MAX - number),
        number => match Signal::try_from(number) {
            Ok(signal) => signal.as_str().to_owned(),
            Err(_) => return v1::Signal::RuntimeDefault,
        },
    };
    v1::Signal::from_str_name(&name).unwrap_or(v1::Signal::RuntimeDefault)
}

pub(crate) fn mount(mount: &Mount) -> v1::Mount {
    let propagation = match mount.propagation {
        MountPropagation::None => v1::MountPropagation::PropagationPrivate,
        MountPropagation::HostToContainer => v1::MountPropagation::PropagationHostToContainer,
        MountPropagation::Bidirectional => v1::MountPropagation::PropagationBidirectional,
    };
    v1::Mount {
        container_path: mount.container_path.to_string_lossy().into_owned(),
        host_path: mount.host_path.to_string_lossy().into_owned(),
        readonly: mount.readonly,
        propagation: propagation.into(),
        selinux_relabel: mount.selinux_relabel,
        uid_mappings: mount
            .uid_mappings
            .iter()
            .map(namespaces::range_to_message)
            .collect(),
        gid_mappings: mount
            .gid_mappings
            .iter()
            .map(namespaces::range_to_message)
            .collect(),
        recursive_read_only: mount.recursive_read_only,
        image: mount.image.as_ref().map(|image| v1::ImageSpec {
            image: image.image.clone(),
            user_specified_image: image.user_specified_image.clone(),
            image_ref: image.image_ref.clone(),
            ..Default::default()
        }),
        image_sub_path: mount
            .image
            .as_ref()
            .map_or_else(String::new, |image| image.sub_path.to_string_lossy().into_owned()),
    }
}

pub(crate) fn resources(of: &LinuxContainerResources) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources {
        cpu_period: of.cpu_period.map_or(0, nanos),
        cpu_quota: of.cpu_quota.unwrap_or_default(),
        cpu_shares: of.cpu_shares.map_or(0, nanos),
        memory_limit_in_bytes: of.memory_limit.unwrap_or_default(),
        oom_score_adj: of.oom_score_adj.into(),
        cpuset_cpus: of.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: of.cpuset_mems.clone().unwrap_or_default(),
        hugepage_limits: of
            .hugepage_limits
            .iter()
            .map(|(page_size, limit)| v1::HugepageLimit {
                page_size: page_size.clone(),
                limit: *limit,
            })
            .collect(),
        unified: map(&of.unified),
        memory_swap_limit_in_bytes: of.memory_swap_limit.unwrap_or_default(),
    }
}

/// An image. A user that is a number is a UID, any other is a name.
pub(crate) fn image(image: &Image) -> v1::Image {
    let user = image.user.split(':').next().unwrap_or_default();
    let uid = user.parse::<i64>().ok();
    v1::Image {
        id: image.id.0.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        username: uid.map_or_else(|| user.to_owned(), |_| String::new()),
        uid: uid.map(|value| v1::Int64Value { value }),
        spec: Some(v1::ImageSpec {
            image: image.id.0.clone(),
            ..Default::default()
        }),
        pinned: image.pinned,
    }
}

/// What a file system holds of something.
pub(crate) fn filesystem(usage: &FilesystemUsage) -> v1::FilesystemUsage {
    v1::FilesystemUsage {
        timestamp: nanos(usage.timestamp),
        fs_id: Some(v1::FilesystemIdentifier {
            mountpoint: usage.mountpoint.to_string_lossy().into_owned(),
        }),
        used_bytes: Some(v1::UInt64Value {
            value: usage.used_bytes,
        }),
        inodes_used: Some(v1::UInt64Value {
            value: usage.inodes_used,
        }),
    }
}

/// The runtime's status.
pub(crate) fn status(status: RuntimeStatus) -> v1::StatusResponse {
    let conditions = status
        .conditions
        .into_iter()
        .map(|condition| v1::RuntimeCondition {
            r#type: condition.kind,
            status: condition.status,
            reason: condition.reason,
            message: condition.message,
        });
    let handlers = status.handlers.into_iter().map(|handler| v1::RuntimeHandler {
        name: handler.name,
        features: Some(v1::RuntimeHandlerFeatures {
            recursive_read_only_mounts: handler.recursive_read_only_mounts,
            user_namespaces: handler.user_namespaces,
        }),
    });
    v1::StatusResponse {
        status: Some(v1::RuntimeStatus {
            conditions: conditions.collect(),
        }),
        info: status.info.into_iter().collect(),
        runtime_handlers: handlers.collect(),
        features: Some(v1::RuntimeFeatures {
            supplemental_groups_policy: status.supplemental_groups_policy,
            user_namespaces_host_network: false,
        }),
    }
}

pub(crate) fn cgroup_driver(driver: CgroupDriver) -> v1::CgroupDriver {
    match driver {
        CgroupDriver::Cgroupfs => v1::CgroupDriver::Cgroupfs,
        CgroupDriver::Systemd => v1::CgroupDriver::Systemd,
    }
}

/// The id and the type of an event that CRI knows. Sandboxes have events like containers.
pub(super) fn event(sandbox: &str, kind: &EngineEventKind) -> Option<(String, v1::ContainerEventType)> {
    use v1::ContainerEventType as Type;
    Some(match kind {
        EngineEventKind::SandboxStarted => (sandbox.to_owned(), Type::ContainerStartedEvent),
        EngineEventKind::SandboxStopped | EngineEventKind::SandboxLost => {
            (sandbox.to_owned(), Type::ContainerStoppedEvent)
        }
        EngineEventKind::SandboxRemoved => (sandbox.to_owned(), Type::ContainerDeletedEvent),
        EngineEventKind::ContainerCreated(id) => (id.0.clone(), Type::ContainerCreatedEvent),
        EngineEventKind::ContainerStarted(id) => (id.0.clone(), Type::ContainerStartedEvent),
        EngineEventKind::ContainerExited(id) => (id.0.clone(), Type::ContainerStoppedEvent),
        EngineEventKind::ContainerRemoved(id) => (id.0.clone(), Type::ContainerDeletedEvent),
        EngineEventKind::ContainerOom(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_has_a_name() {
        let table = [
            (15, v1::Signal::Sigterm),
            (10, v1::Signal::Sigusr1),
            (34, v1::Signal::Sigrtmin),
            (37, v1::Signal::Sigrtminplus3),
            (50, v1::Signal::Sigrtmaxminus14),
            (63, v1::Signal::Sigrtmaxminus1),
            (64, v1::Signal::Sigrtmax),
            (0, v1::Signal::RuntimeDefault),
        ];
        for (number, name) in table {
            assert_eq!(stop_signal(number), name, "{number}");
        }
        for number in (1..32).chain(34..=64) {
            assert_ne!(stop_signal(number), v1::Signal::RuntimeDefault, "{number}");
        }
    }
}
