//! From what the engine is asked to CRI's messages: the other way round than `server/request.rs` and `security.rs`.

use std::path::Path;

use crate::engine::EngineError;
use crate::local::signals;
use crate::server::{namespaces, view};
use crate::types::{
    AppArmorProfile, AuthConfig, ContainerConfig, ContainerSecurity, DnsConfig, LinuxContainerResources,
    Mount, PodSandboxConfig, PortMapping, Protocol, SandboxSecurity, SeccompProfile, SelinuxOptions,
    SupplementalGroupsPolicy,
};
use crate::v1::security_profile::ProfileType;
use crate::v1::{self, NamespaceMode};

type Result<T> = std::result::Result<T, EngineError>;

/// A message holds text, and a path need not be text.
fn text(path: &Path, field: &str) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        EngineError::InvalidArgument(format!(
            "The path {} in {field} is not UTF-8, and the protocol of another runtime knows only text.",
            path.display()
        ))
    })
}

fn texts(paths: &[std::path::PathBuf], field: &str) -> Result<Vec<String>> {
    paths.iter().map(|path| text(path, field)).collect()
}

/// A pod sandbox as another runtime is asked for it. Its handler is beside this, in the request.
pub(super) fn sandbox(config: &PodSandboxConfig) -> Result<v1::PodSandboxConfig> {
    let parent = text(&config.cgroup_parent, "cgroup_parent")?;
    let security = v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces::to_message(
            config.namespaces,
            config.user_namespace.as_ref(),
        )),
        privileged: config.privileged,
        ..sandbox_security(&config.security)?
    };
    Ok(v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: config.name.clone(),
            uid: config.uid.clone(),
            namespace: config.namespace.clone(),
            attempt: config.attempt,
        }),
        hostname: config.hostname.clone(),
        log_directory: text(&config.log_directory, "log_directory")?,
        dns_config: config.dns.as_ref().map(dns),
        port_mappings: config.port_mappings.iter().map(port_mapping).collect(),
        labels: view::map(&config.labels),
        annotations: view::map(&config.annotations),
        linux: Some(v1::LinuxPodSandboxConfig {
            // Relative to the roots of the hierarchies here, below them there.
            cgroup_parent: match parent.as_str() {
                "" => String::new(),
                parent if parent.starts_with('/') => parent.to_owned(),
                parent => format!("/{parent}"),
            },
            security_context: Some(security),
            sysctls: view::map(&config.sysctls),
            overhead: config.overhead.as_ref().map(resources).transpose()?,
            resources: config.resources.as_ref().map(resources).transpose()?,
        }),
        windows: None,
    })
}

fn dns(config: &DnsConfig) -> v1::DnsConfig {
    v1::DnsConfig {
        servers: config.servers.clone(),
        searches: config.searches.clone(),
        options: config.options.clone(),
    }
}

fn port_mapping(mapping: &PortMapping) -> v1::PortMapping {
    let protocol = match mapping.protocol {
        Protocol::Tcp => v1::Protocol::Tcp,
        Protocol::Udp => v1::Protocol::Udp,
        Protocol::Sctp => v1::Protocol::Sctp,
    };
    v1::PortMapping {
        protocol: protocol.into(),
        container_port: mapping.container_port.into(),
        host_port: mapping.host_port.into(),
        host_ip: mapping.host_ip.map_or_else(String::new, |ip| ip.to_string()),
    }
}

fn sandbox_security(security: &SandboxSecurity) -> Result<v1::LinuxSandboxSecurityContext> {
    Ok(v1::LinuxSandboxSecurityContext {
        selinux_options: security.selinux.as_ref().map(selinux),
        run_as_user: security.run_as_user.map(id),
        run_as_group: security.run_as_group.map(id),
        supplemental_groups: security.supplemental_groups.clone(),
        seccomp: Some(seccomp(&security.seccomp)?),
        apparmor: apparmor(&security.apparmor),
        ..Default::default()
    })
}

fn id(value: i64) -> v1::Int64Value {
    v1::Int64Value { value }
}

fn profile(kind: ProfileType, localhost_ref: String) -> v1::SecurityProfile {
    v1::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref,
    }
}

fn seccomp(of: &SeccompProfile) -> Result<v1::SecurityProfile> {
    Ok(match of {
        SeccompProfile::Unconfined => profile(ProfileType::Unconfined, String::new()),
        SeccompProfile::RuntimeDefault => profile(ProfileType::RuntimeDefault, String::new()),
        SeccompProfile::Localhost(path) => profile(ProfileType::Localhost, text(path, "seccomp")?),
    })
}

fn apparmor(of: &AppArmorProfile) -> Option<v1::SecurityProfile> {
    match of {
        AppArmorProfile::Unset => None,
        AppArmorProfile::Unconfined => Some(profile(ProfileType::Unconfined, String::new())),
        AppArmorProfile::RuntimeDefault => Some(profile(ProfileType::RuntimeDefault, String::new())),
        AppArmorProfile::Localhost(name) => Some(profile(ProfileType::Localhost, name.clone())),
    }
}

fn selinux(options: &SelinuxOptions) -> v1::SeLinuxOption {
    v1::SeLinuxOption {
        user: options.user.clone(),
        role: options.role.clone(),
        r#type: options.kind.clone(),
        level: options.level.clone(),
    }
}

/// A container as another runtime is asked for it.
pub(super) fn container(config: &ContainerConfig) -> Result<v1::ContainerConfig> {
    let mut options = namespaces::to_message(config.namespaces, config.user_namespace.as_ref());
    if let Some(target) = &config.pid_target {
        options.pid = NamespaceMode::Target.into();
        options.target_id.clone_from(&target.0);
    }
    let security = v1::LinuxContainerSecurityContext {
        namespace_options: Some(options),
        ..container_security(&config.security)?
    };
    let envs = config.envs.iter().map(|(key, value)| v1::KeyValue {
        key: key.clone(),
        value: value.clone(),
    });
    let devices = config.devices.iter().map(|device| {
        Ok(v1::Device {
            container_path: text(&device.container_path, "devices")?,
            host_path: text(&device.host_path, "devices")?,
            permissions: device.permissions.clone(),
        })
    });
    let cdi_devices = config.cdi_devices.iter().cloned();
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: config.name.clone(),
            attempt: config.attempt,
        }),
        image: Some(v1::ImageSpec {
            image: config.image.clone(),
            user_specified_image: config.user_specified_image.clone(),
            ..Default::default()
        }),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        envs: envs.collect(),
        mounts: config.mounts.iter().map(mount).collect::<Result<_>>()?,
        devices: devices.collect::<Result<_>>()?,
        labels: view::map(&config.labels),
        annotations: view::map(&config.annotations),
        log_path: text(&config.log_path, "log_path")?,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources(&config.resources)?),
            security_context: Some(security),
        }),
        windows: None,
        cdi_devices: cdi_devices.map(|name| v1::CdiDevice { name }).collect(),
        stop_signal: stop_signal(config.stop_signal.as_deref())?.into(),
    })
}

fn mount(mount: &Mount) -> Result<v1::Mount> {
    for path in [&mount.container_path, &mount.host_path]
        .into_iter()
        .chain(mount.image.as_ref().map(|image| &image.sub_path))
    {
        text(path, "mounts")?;
    }
    Ok(view::mount(mount))
}

fn container_security(security: &ContainerSecurity) -> Result<v1::LinuxContainerSecurityContext> {
    let policy = match security.supplemental_groups_policy {
        SupplementalGroupsPolicy::Merge => v1::SupplementalGroupsPolicy::Merge,
        SupplementalGroupsPolicy::Strict => v1::SupplementalGroupsPolicy::Strict,
    };
    Ok(v1::LinuxContainerSecurityContext {
        capabilities: Some(v1::Capability {
            add_capabilities: security.add_capabilities.clone(),
            drop_capabilities: security.drop_capabilities.clone(),
            add_ambient_capabilities: security.add_ambient_capabilities.clone(),
        }),
        privileged: security.privileged,
        selinux_options: security.selinux.as_ref().map(selinux),
        run_as_user: security.run_as_user.map(id),
        run_as_group: security.run_as_group.map(id),
        run_as_username: security.run_as_username.clone(),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups.clone(),
        supplemental_groups_policy: policy.into(),
        no_new_privs: security.no_new_privs,
        masked_paths: texts(&security.masked_paths, "masked_paths")?,
        readonly_paths: texts(&security.readonly_paths, "readonly_paths")?,
        seccomp: Some(seccomp(&security.seccomp)?),
        apparmor: apparmor(&security.apparmor),
        ..Default::default()
    })
}

/// A container's limits.
pub(super) fn resources(of: &LinuxContainerResources) -> Result<v1::LinuxContainerResources> {
    if let Some(limit) = of.pids_limit {
        return Err(EngineError::InvalidArgument(format!(
            "The limit of {limit} processes can't be had of another runtime: CRI has no field for pids_limit."
        )));
    }
    Ok(view::resources(of))
}

/// The enumeration has no numbers, so that a signal goes by its number here and by its name there.
fn stop_signal(name: Option<&str>) -> Result<v1::Signal> {
    let Some(name) = name else {
        return Ok(v1::Signal::RuntimeDefault);
    };
    match view::stop_signal(signals::parse(name)?) {
        v1::Signal::RuntimeDefault => Err(EngineError::InvalidArgument(format!(
            "The stop signal {name} has no name in CRI."
        ))),
        signal => Ok(signal),
    }
}

/// How to show oneself to a registry.
pub(super) fn auth(auth: AuthConfig) -> v1::AuthConfig {
    v1::AuthConfig {
        username: auth.username,
        password: auth.password,
        auth: auth.auth,
        server_address: auth.server_address,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    }
}
