//! From CRI's messages to what the engine is asked. What this runtime can't do is refused by the field's name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::engine::EngineError;
use crate::types::{
    AuthConfig, ContainerConfig, Device, DnsConfig, ImageMount, LinuxContainerResources, Mount,
    MountPropagation, PodSandboxConfig, PortMapping, Protocol,
};
use crate::v1;

use super::{namespaces, security, sound};

pub(crate) type Result<T> = std::result::Result<T, EngineError>;

pub(super) fn invalid(message: impl Into<String>) -> EngineError {
    EngineError::InvalidArgument(message.into())
}

/// A field that this runtime does not know how to honour.
fn refuse(is_set: bool, field: &str) -> Result<()> {
    if is_set {
        return Err(invalid(format!(
            "The field {field} is not supported by this runtime."
        )));
    }
    Ok(())
}

fn needed<T>(value: Option<T>, field: &str) -> Result<T> {
    value.ok_or_else(|| invalid(format!("The request lacks {field}.")))
}

fn map(of: std::collections::HashMap<String, String>) -> BTreeMap<String, String> {
    of.into_iter().collect()
}

/// A pod sandbox as a client asks for it.
pub(crate) fn sandbox(
    config: Option<v1::PodSandboxConfig>,
    runtime_handler: String,
) -> Result<PodSandboxConfig> {
    let config = needed(config, "config")?;
    refuse(config.windows.is_some(), "config.windows")?;
    sound::sandbox(&config)?;
    let metadata = needed(config.metadata, "config.metadata")?;
    for (field, value) in [
        ("name", &metadata.name),
        ("namespace", &metadata.namespace),
        ("uid", &metadata.uid),
    ] {
        if value.is_empty() {
            return Err(invalid(format!("The request lacks config.metadata.{field}.")));
        }
    }
    let linux = config.linux.unwrap_or_default();
    let mut security = linux.security_context.unwrap_or_default();
    let namespaces = namespaces::of_sandbox(security.namespace_options.take().unwrap_or_default())?;
    Ok(PodSandboxConfig {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        attempt: metadata.attempt,
        hostname: config.hostname,
        log_directory: config.log_directory.into(),
        dns: dns(config.dns_config),
        port_mappings: port_mappings(config.port_mappings)?,
        labels: map(config.labels),
        annotations: map(config.annotations),
        cgroup_parent: cgroup_parent(&linux.cgroup_parent)?,
        sysctls: map(linux.sysctls),
        namespaces: namespaces.shared,
        user_namespace: namespaces.user,
        runtime_handler,
        privileged: security.privileged,
        overhead: linux.overhead.map(resources).transpose()?,
        resources: linux.resources.map(resources).transpose()?,
        security: security::of_sandbox(security)?,
    })
}

/// From a path of the hierarchies, with or without a slash before it, to one relative to their roots.
fn cgroup_parent(path: &str) -> Result<PathBuf> {
    let path = PathBuf::from(path.trim_start_matches('/'));
    let normal = |component| matches!(component, std::path::Component::Normal(_));
    if path.components().all(normal) {
        Ok(path)
    } else {
        Err(invalid(format!(
            "The cgroup parent {} is not a plain path below the hierarchies' roots.",
            path.display()
        )))
    }
}

fn dns(config: Option<v1::DnsConfig>) -> Option<DnsConfig> {
    let config = config?;
    let empty = config.servers.is_empty() && config.searches.is_empty() && config.options.is_empty();
    (!empty).then_some(DnsConfig {
        servers: config.servers,
        searches: config.searches,
        options: config.options,
    })
}

fn port_mappings(mappings: Vec<v1::PortMapping>) -> Result<Vec<PortMapping>> {
    mappings
        .into_iter()
        // A port without a host port only says that the container listens on it.
        .filter(|mapping| mapping.host_port != 0)
        .map(|mapping| {
            let protocol = match mapping.protocol() {
                v1::Protocol::Tcp => Protocol::Tcp,
                v1::Protocol::Udp => Protocol::Udp,
                v1::Protocol::Sctp => Protocol::Sctp,
            };
            let port = |value: i32| match u16::try_from(value) {
                Ok(port) if port > 0 => Ok(port),
                _ => Err(invalid(format!("{value} is not a port: 1 to 65535."))),
            };
            let host_ip = match mapping.host_ip.as_str() {
                "" => None,
                ip => Some(ip.parse().map_err(|_| {
                    invalid(format!("The host IP {ip:?} of a port mapping is not an address."))
                })?),
            };
            Ok(PortMapping {
                protocol,
                container_port: port(mapping.container_port)?,
                host_port: port(mapping.host_port)?,
                host_ip,
            })
        })
        .collect()
}

/// A container as a client asks for it.
pub(crate) fn container(config: Option<v1::ContainerConfig>) -> Result<ContainerConfig> {
    let config = needed(config, "config")?;
    refuse(config.windows.is_some(), "config.windows")?;
    sound::container(&config)?;
    let stop_signal = stop_signal(config.stop_signal());
    let metadata = needed(config.metadata, "config.metadata")?;
    if metadata.name.is_empty() {
        return Err(invalid("The request lacks config.metadata.name."));
    }
    let image = needed(config.image, "config.image")?;
    let linux = config.linux.unwrap_or_default();
    let mut security = linux.security_context.unwrap_or_default();
    let namespaces = namespaces::of_container(security.namespace_options.take().unwrap_or_default())?;
    Ok(ContainerConfig {
        name: metadata.name,
        attempt: metadata.attempt,
        user_specified_image: match image.user_specified_image.as_str() {
            "" => image.image.clone(),
            _ => image.user_specified_image,
        },
        image: image.image,
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        envs: config.envs.into_iter().map(|env| (env.key, env.value)).collect(),
        mounts: config.mounts.into_iter().map(mount).collect::<Result<_>>()?,
        devices: config.devices.into_iter().map(device).collect(),
        cdi_devices: config.cdi_devices.into_iter().map(|device| device.name).collect(),
        labels: map(config.labels),
        annotations: map(config.annotations),
        log_path: config.log_path.into(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        resources: resources(linux.resources.unwrap_or_default())?,
        security: security::of_container(security)?,
        namespaces: namespaces.shared,
        pid_target: namespaces.pid_target,
        user_namespace: namespaces.user,
        stop_signal,
    })
}

fn mount(mount: v1::Mount) -> Result<Mount> {
    let propagation = match mount.propagation() {
        v1::MountPropagation::PropagationPrivate => MountPropagation::None,
        v1::MountPropagation::PropagationHostToContainer => MountPropagation::HostToContainer,
        v1::MountPropagation::PropagationBidirectional => MountPropagation::Bidirectional,
    };
    Ok(Mount {
        container_path: PathBuf::from(mount.container_path),
        host_path: PathBuf::from(mount.host_path),
        readonly: mount.readonly,
        propagation,
        recursive_read_only: mount.recursive_read_only,
        uid_mappings: mount.uid_mappings.iter().map(namespaces::range).collect(),
        gid_mappings: mount.gid_mappings.iter().map(namespaces::range).collect(),
        selinux_relabel: mount.selinux_relabel,
        image: image_mount(mount.image, mount.image_sub_path)?,
    })
}

/// A mount of nothing names an image without a name: so it comes from some clients.
fn image_mount(spec: Option<v1::ImageSpec>, sub_path: String) -> Result<Option<ImageMount>> {
    let Some(spec) = spec.filter(|spec| !spec.image.is_empty()) else {
        return match sub_path.as_str() {
            "" => Ok(None),
            path => Err(invalid(format!(
                "The mount's image_sub_path {path:?} is that of an image, but the mount names none."
            ))),
        };
    };
    Ok(Some(ImageMount {
        image: spec.image,
        user_specified_image: spec.user_specified_image,
        image_ref: String::new(),
        sub_path: sub_path.into(),
    }))
}

fn device(device: v1::Device) -> Device {
    Device {
        container_path: device.container_path.into(),
        host_path: device.host_path.into(),
        permissions: device.permissions,
    }
}

/// What a container's limits are to be.
///
/// Annotations are for runtimes that know some; none is known here, and who sends one means it to have an effect.
pub(super) fn update(of: v1::UpdateContainerResourcesRequest) -> Result<LinuxContainerResources> {
    if let Some(name) = of.annotations.keys().next() {
        return Err(invalid(format!(
            "annotations[{name:?}] changes nothing of a container that is there; leave it out."
        )));
    }
    refuse(of.windows.is_some(), "windows")?;
    resources(of.linux.unwrap_or_default())
}

/// A container's limits; what is 0 or empty is not asked for.
pub(crate) fn resources(of: v1::LinuxContainerResources) -> Result<LinuxContainerResources> {
    let unsigned = |value: i64, field: &str| match value {
        0 => Ok(None),
        value => u64::try_from(value)
            .map(Some)
            .map_err(|_| invalid(format!("{value} is too small for resources.{field}."))),
    };
    let text = |value: String| (!value.is_empty()).then_some(value);
    let oom_score_adj = i32::try_from(of.oom_score_adj)
        .ok()
        .filter(|value| (-1000..=1000).contains(value))
        .ok_or_else(|| {
            invalid(format!(
                "resources.oom_score_adj is {}; it is -1000 to 1000.",
                of.oom_score_adj
            ))
        })?;
    Ok(LinuxContainerResources {
        cpu_shares: unsigned(of.cpu_shares, "cpu_shares")?,
        cpu_quota: (of.cpu_quota != 0).then_some(of.cpu_quota),
        cpu_period: unsigned(of.cpu_period, "cpu_period")?,
        memory_limit: (of.memory_limit_in_bytes != 0).then_some(of.memory_limit_in_bytes),
        memory_swap_limit: (of.memory_swap_limit_in_bytes != 0).then_some(of.memory_swap_limit_in_bytes),
        oom_score_adj,
        cpuset_cpus: text(of.cpuset_cpus),
        cpuset_mems: text(of.cpuset_mems),
        pids_limit: None,
        hugepage_limits: of
            .hugepage_limits
            .into_iter()
            .map(|limit| (limit.page_size, limit.limit))
            .collect(),
        unified: map(of.unified),
    })
}

/// `SIGTERM`, `SIGRTMIN+1`: the enumeration's names spell the signs out.
fn stop_signal(signal: v1::Signal) -> Option<String> {
    match signal {
        v1::Signal::RuntimeDefault => None,
        signal => Some(
            signal
                .as_str_name()
                .replace("PLUS", "+")
                .replace("RTMAXMINUS", "RTMAX-"),
        ),
    }
}

/// How to show oneself to a registry; `None` if nothing is set.
pub(crate) fn auth(auth: Option<v1::AuthConfig>) -> Option<AuthConfig> {
    let auth = auth?;
    let auth = AuthConfig {
        username: auth.username,
        password: auth.password,
        auth: auth.auth,
        server_address: auth.server_address,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    };
    (auth != AuthConfig::default()).then_some(auth)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> v1::PodSandboxConfig {
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: "web".into(),
                uid: "1".into(),
                namespace: "default".into(),
                attempt: 2,
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_sandbox_needs_its_metadata() {
        let error = sandbox(None, String::new()).unwrap_err().to_string();
        assert_eq!(error, "The request lacks config.");
        let mut lacking = request();
        lacking.metadata.as_mut().unwrap().uid.clear();
        let error = sandbox(Some(lacking), String::new()).unwrap_err().to_string();
        assert_eq!(error, "The request lacks config.metadata.uid.");
    }

    #[test]
    fn an_update_with_annotations_is_refused_by_name() {
        let update = |annotations: &[(&str, &str)]| {
            super::update(v1::UpdateContainerResourcesRequest {
                linux: Some(v1::LinuxContainerResources {
                    cpu_shares: 7,
                    ..Default::default()
                }),
                annotations: annotations
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
                ..Default::default()
            })
        };
        assert_eq!(update(&[]).unwrap().cpu_shares, Some(7));
        let error = update(&[("example.com/turbo", "on")]).unwrap_err().to_string();
        assert!(error.contains("annotations[\"example.com/turbo\"]"), "{error}");
    }

    #[test]
    fn a_cgroup_parent_is_below_the_hierarchies_roots() {
        assert_eq!(
            cgroup_parent("/kubepods/pod1").unwrap(),
            PathBuf::from("kubepods/pod1")
        );
        assert_eq!(cgroup_parent("").unwrap(), PathBuf::new());
        assert!(cgroup_parent("/a/../../b").is_err());
    }

    #[test]
    fn unset_namespaces_are_the_pods() {
        let config = sandbox(Some(request()), String::new()).unwrap();
        assert!(config.namespaces.shared_pid && !config.namespaces.host_network);
        assert_eq!(config.attempt, 2);
    }

    #[test]
    fn ports_without_a_host_port_are_not_mapped() {
        let mapping = |host_port, container_port| v1::PortMapping {
            host_port,
            container_port,
            ..Default::default()
        };
        let mapped = port_mappings(vec![mapping(0, 80), mapping(8080, 80)]).unwrap();
        assert_eq!(mapped.len(), 1);
        assert_eq!((mapped[0].host_port, mapped[0].container_port), (8080, 80));
        assert!(port_mappings(vec![mapping(70_000, 80)]).is_err());
        assert!(port_mappings(vec![mapping(80, 0)]).is_err());
    }

    #[test]
    fn a_stop_signal_is_named_as_people_write_it() {
        let table = [
            (v1::Signal::RuntimeDefault, None),
            (v1::Signal::Sigusr1, Some("SIGUSR1")),
            (v1::Signal::Sigrtmin, Some("SIGRTMIN")),
            (v1::Signal::Sigrtminplus3, Some("SIGRTMIN+3")),
            (v1::Signal::Sigrtmaxminus14, Some("SIGRTMAX-14")),
            (v1::Signal::Sigrtmax, Some("SIGRTMAX")),
        ];
        for (signal, name) in table {
            assert_eq!(stop_signal(signal).as_deref(), name);
        }
    }

    #[test]
    fn limits_that_are_zero_are_not_asked_for() {
        assert_eq!(
            resources(v1::LinuxContainerResources::default()).unwrap(),
            LinuxContainerResources::default()
        );
        let bad = v1::LinuxContainerResources {
            oom_score_adj: 1001,
            ..Default::default()
        };
        assert!(resources(bad).is_err());
    }
}
