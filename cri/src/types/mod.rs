//! The engine's data, named as CRI v1 names it.

mod image;
mod limits;
mod mount;
mod node;
mod security;
mod status;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

pub use berth_shim::protocol::{IdMapping, UserNamespace};
use serde::{Deserialize, Serialize};

pub use image::{AuthConfig, FilesystemUsage, Image, ImageFsInfo, LayerState, PullProgress};
pub use limits::LinuxContainerResources;
pub use mount::{Device, ImageMount, Mount, MountPropagation};
pub use node::{CgroupDriver, RuntimeCondition, RuntimeHandler, RuntimeStatus, RuntimeVersion};
pub use security::{
    AppArmorProfile, ContainerSecurity, NamespaceOptions, SandboxSecurity, SeccompProfile, SelinuxOptions,
    SupplementalGroupsPolicy,
};
pub use status::{
    ContainerState, ContainerStatus, ContainerUser, EngineEvent, EngineEventKind, ExecOutput,
    PodSandboxStatus, RepeatedCommand,
};

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type!(
    /// A pod sandbox's id: 64 hexadecimal digits.
    SandboxId
);
id_type!(
    /// A container's id: 64 hexadecimal digits.
    ContainerId
);
id_type!(
    /// An image's id: the digest of its configuration, `sha256:…`.
    ImageId
);

/// Nanoseconds since the Unix epoch; 0 means "not yet".
pub type UnixNanos = u64;

/// A pod's sandbox as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodSandboxConfig {
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's UID.
    pub uid: String,
    /// 0 for a pod's first sandbox, one more for each next.
    pub attempt: u32,
    /// The pod's host name (ignored with the host's network).
    pub hostname: String,
    /// Where the pod's container logs go.
    pub log_directory: PathBuf,
    /// What `/etc/resolv.conf` says in the pod's containers; `None` copies the host's.
    pub dns: Option<DnsConfig>,
    /// Ports of the host that lead to the pod.
    pub port_mappings: Vec<PortMapping>,
    /// Round-tripped.
    pub labels: BTreeMap<String, String>,
    /// Round-tripped.
    pub annotations: BTreeMap<String, String>,
    /// The pod's cgroup, relative to the root of each hierarchy; where systemd makes the cgroups a slice, by its name or by
    /// its path. It exists already and is the caller's to remove.
    pub cgroup_parent: PathBuf,
    /// Dotted name to value.
    pub sysctls: BTreeMap<String, String>,
    /// Which namespaces the pod shares with the host.
    pub namespaces: NamespaceOptions,
    /// The runtime handler that starts the pod's containers; empty is the built-in one.
    #[serde(default)]
    pub runtime_handler: String,
    /// The pod's containers may be privileged.
    #[serde(default)]
    pub privileged: bool,
    /// What the pod takes besides its containers, as its caller has it; the pod's cgroup is the caller's.
    #[serde(default)]
    pub overhead: Option<LinuxContainerResources>,
    /// What the pod's containers may take together, as its caller has it.
    #[serde(default)]
    pub resources: Option<LinuxContainerResources>,
    /// The user namespace that all of the pod's other namespaces belong to; `None` is the host's.
    #[serde(default)]
    pub user_namespace: Option<UserNamespace>,
    /// What holds for the process that keeps the pod's namespaces.
    #[serde(default)]
    pub security: SandboxSecurity,
}

/// What a pod's `/etc/resolv.conf` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line.
    pub options: Vec<String>,
}

/// A port of the host that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port in the pod.
    pub container_port: u16,
    /// The port on the host.
    pub host_port: u16,
    /// The host's address; `None` is every one.
    pub host_ip: Option<IpAddr>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

/// A container as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// The container's name, unique in the pod.
    pub name: String,
    /// How often it was made before.
    pub attempt: u32,
    /// The image, by id or by name; it must be in the store.
    pub image: String,
    /// The name by which the user asked for the image.
    pub user_specified_image: String,
    /// Replaces the image's entrypoint.
    pub command: Vec<String>,
    /// Replaces the image's command.
    pub args: Vec<String>,
    /// Replaces the image's working directory.
    pub working_dir: String,
    /// Added to the image's environment, in this order.
    pub envs: Vec<(String, String)>,
    /// Mounted in this order, after the runtime's own.
    pub mounts: Vec<Mount>,
    /// Host devices to show in the container.
    pub devices: Vec<Device>,
    /// Devices of the Container Device Interface: `vendor/class=name`.
    #[serde(default)]
    pub cdi_devices: Vec<String>,
    /// Round-tripped.
    pub labels: BTreeMap<String, String>,
    /// Round-tripped.
    pub annotations: BTreeMap<String, String>,
    /// The log file, relative to the sandbox's log directory.
    pub log_path: PathBuf,
    /// Keep standard input open for attached clients.
    pub stdin: bool,
    /// Close it when the first attached client goes.
    pub stdin_once: bool,
    /// Run on a terminal.
    pub tty: bool,
    /// Limits.
    pub resources: LinuxContainerResources,
    /// Privileges.
    pub security: ContainerSecurity,
    /// Which namespaces it shares with the host (as its sandbox says).
    pub namespaces: NamespaceOptions,
    /// The container of the same pod whose processes it sees and is seen by.
    #[serde(default)]
    pub pid_target: Option<ContainerId>,
    /// The user namespace (as its sandbox says).
    #[serde(default)]
    pub user_namespace: Option<UserNamespace>,
    /// Replaces the image's stop signal: `SIGTERM`, `TERM` or a number.
    pub stop_signal: Option<String>,
}
