//! The engine's data, named as CRI v1 names it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

pub use berth_shim::protocol::{IdMapping, UserNamespace};
use serde::{Deserialize, Serialize};

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

/// The privileges of the process that keeps a pod's namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSecurity {
    /// Its user; `None` is nobody.
    pub run_as_user: Option<i64>,
    /// Its group, only with a user; `None` is nobody's.
    pub run_as_group: Option<i64>,
    /// Its additional groups.
    pub supplemental_groups: Vec<i64>,
    /// Its system call filter.
    pub seccomp: SeccompProfile,
    /// Its AppArmor profile.
    pub apparmor: AppArmorProfile,
    /// Its SELinux label, and that of containers which ask for none of their own.
    pub selinux: Option<SelinuxOptions>,
}

/// Which namespaces a pod or container shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceOptions {
    /// `hostNetwork`.
    pub host_network: bool,
    /// `hostPID`.
    pub host_pid: bool,
    /// `hostIPC`.
    pub host_ipc: bool,
    /// `shareProcessNamespace`: one PID namespace for the pod.
    pub shared_pid: bool,
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

/// A bind mount, or an image's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where in the container.
    pub container_path: PathBuf,
    /// What of the host; empty for an image. A missing one becomes a directory.
    pub host_path: PathBuf,
    /// Not writable.
    pub readonly: bool,
    /// Which mounts made later are seen on the other side.
    pub propagation: MountPropagation,
    /// What is mounted below it is not writable either.
    #[serde(default)]
    pub recursive_read_only: bool,
    /// User ids of its files, as they are on the disk (`container`) to what they are in the mount (`host`).
    #[serde(default)]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids, in the same way.
    #[serde(default)]
    pub gid_mappings: Vec<IdMapping>,
    /// Its files get the container's SELinux label, where the host has SELinux.
    #[serde(default)]
    pub selinux_relabel: bool,
    /// The image whose files it shows.
    #[serde(default)]
    pub image: Option<ImageMount>,
}

/// An image as a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// Its id or a name; it must be in the store.
    pub image: String,
    /// The name by which the user asked for it.
    pub user_specified_image: String,
    /// The image that is mounted; the engine says.
    pub image_ref: String,
    /// A directory in it; empty for all of it.
    pub sub_path: PathBuf,
}

/// mount_namespaces(7), as Kubernetes names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPropagation {
    /// `rprivate`.
    #[default]
    None,
    /// `rslave`.
    HostToContainer,
    /// `rshared`.
    Bidirectional,
}

/// A host device in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where in the container.
    pub container_path: PathBuf,
    /// What of the host.
    pub host_path: PathBuf,
    /// A combination of `r`, `w`, `m`; empty is all.
    pub permissions: String,
}

/// A container's limits. `None` leaves the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxContainerResources {
    /// CPU shares, v1's scale: 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time a period; -1 is no limit.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes.
    pub memory_limit: Option<i64>,
    /// Bytes of memory and swap together.
    pub memory_swap_limit: Option<i64>,
    /// -1000 to 1000.
    pub oom_score_adj: i32,
    /// A list as in cpuset(7).
    pub cpuset_cpus: Option<String>,
    /// A list as in cpuset(7).
    pub cpuset_mems: Option<String>,
    /// How many processes.
    pub pids_limit: Option<i64>,
    /// Page size (`2MB`) to bytes.
    pub hugepage_limits: BTreeMap<String, u64>,
    /// cgroup v2 files to values.
    pub unified: BTreeMap<String, String>,
}

/// A container's privileges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSecurity {
    /// All capabilities, all devices, nothing masked.
    pub privileged: bool,
    /// Added to the default capabilities: `NET_ADMIN`, `ALL`.
    pub add_capabilities: Vec<String>,
    /// Taken from the default capabilities.
    pub drop_capabilities: Vec<String>,
    /// Also inheritable and ambient, see capabilities(7): a program keeps them whose user is not root.
    pub add_ambient_capabilities: Vec<String>,
    /// `None` is the image's user.
    pub run_as_user: Option<i64>,
    /// A name in the image's `/etc/passwd`, before `run_as_user`; empty is none.
    pub run_as_username: String,
    /// `None` is the user's own group. It needs one of the two before.
    pub run_as_group: Option<i64>,
    /// Additional groups.
    pub supplemental_groups: Vec<i64>,
    /// Whether the groups that the image gives the user are added to those.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// The root file system is not writable.
    pub readonly_rootfs: bool,
    /// prctl(2) `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// System call filter.
    pub seccomp: SeccompProfile,
    /// AppArmor profile.
    pub apparmor: AppArmorProfile,
    /// SELinux label; `None` is the sandbox's.
    pub selinux: Option<SelinuxOptions>,
    /// Absolute paths that are covered, where they exist.
    pub masked_paths: Vec<PathBuf>,
    /// Absolute paths that can't be written, where they exist.
    pub readonly_paths: Vec<PathBuf>,
}

/// Where a container's additional groups come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupplementalGroupsPolicy {
    /// The request and the image's `/etc/group`.
    #[default]
    Merge,
    /// The request alone.
    Strict,
}

/// A process's AppArmor profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppArmorProfile {
    /// Nothing was said: the engine's own where the kernel has AppArmor.
    #[default]
    Unset,
    /// The engine's own, by name.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// A loaded profile, by its name.
    Localhost(String),
}

/// Parts of an SELinux label; what is empty is the policy's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelinuxOptions {
    /// `system_u`
    pub user: String,
    /// `system_r`
    pub role: String,
    /// `container_t`
    pub kind: String,
    /// `s0:c1,c2`
    pub level: String,
}

/// A container's system call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompProfile {
    /// None.
    #[default]
    Unconfined,
    /// The engine's own.
    RuntimeDefault,
    /// A profile file (absolute path), in the OCI `linux.seccomp` form.
    Localhost(PathBuf),
}

/// What the engine knows of a sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSandboxStatus {
    /// Its id.
    pub id: SandboxId,
    /// As it was asked for.
    pub config: PodSandboxConfig,
    /// It can take containers. A sandbox that lost its shim, its pause or its network is not ready.
    pub ready: bool,
    /// When it was made.
    pub created_at: UnixNanos,
    /// Its addresses, the primary one first; empty with the host's network.
    pub ips: Vec<IpAddr>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Its program does not run yet.
    Created,
    /// Its program runs.
    Running,
    /// Its first process has ended.
    Exited,
    /// Its shim is gone and left no word of it.
    Unknown,
}

/// What the engine knows of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// The pod's UID.
    pub pod_uid: String,
    /// As it was asked for.
    pub config: ContainerConfig,
    /// The image it was made from.
    pub image_id: ImageId,
    /// Where it is in its life.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: UnixNanos,
    /// When its program began.
    pub started_at: UnixNanos,
    /// When its first process was reaped.
    pub finished_at: UnixNanos,
    /// Of the first process: 0-255, 128 + signal; 137 for `Unknown`.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`, `ContainerStatusUnknown`, or empty.
    pub reason: String,
    /// A sentence for people, or empty.
    pub message: String,
    /// Absolute.
    pub log_path: PathBuf,
    /// The first process, as the host numbers it; 0 unless created or running.
    pub pid: i32,
    /// Who its first process begins as; `None` until that is known.
    pub user: Option<ContainerUser>,
    /// What ends it: the number of a signal.
    pub stop_signal: i32,
}

/// Who a container's first process begins as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUser {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// All its groups, its own among them.
    pub supplemental_groups: Vec<u32>,
}

/// What a command printed and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output, cut at the caller's limit.
    pub stdout: Vec<u8>,
    /// Standard error, cut at the caller's limit.
    pub stderr: Vec<u8>,
    /// 0-255; 128 + signal if a signal ended it.
    pub exit_code: i32,
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of its configuration.
    pub id: ImageId,
    /// Names with tags.
    pub repo_tags: Vec<String>,
    /// Names with manifest digests.
    pub repo_digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// The configuration's `User`, as it stands there.
    pub user: String,
    /// Garbage collection leaves it alone.
    pub pinned: bool,
}

/// What a file system holds of something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesystemUsage {
    /// When it was looked at.
    pub timestamp: UnixNanos,
    /// The directory that holds it.
    pub mountpoint: PathBuf,
    /// Bytes on disk.
    pub used_bytes: u64,
    /// Inodes.
    pub inodes_used: u64,
}

/// What images and writable layers take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFsInfo {
    /// Of images.
    pub images: FilesystemUsage,
    /// Of containers' writable layers.
    pub containers: FilesystemUsage,
}

/// How to show oneself to a registry. What is empty is not there.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// With `password`.
    pub username: String,
    /// With `username`.
    pub password: String,
    /// Both, joined by a colon, in base64.
    pub auth: String,
    /// The registry that these are for; empty is the image's.
    pub server_address: String,
    /// An OAuth2 refresh token.
    pub identity_token: String,
    /// A bearer token.
    pub registry_token: String,
}

/// Who the runtime is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Whether the runtime can work, and what it can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// `RuntimeReady`, `NetworkReady`.
    pub conditions: Vec<RuntimeCondition>,
    /// The handlers that a RuntimeClass can name; the one without a name is the default.
    pub handlers: Vec<RuntimeHandler>,
    /// `supplementalGroupsPolicy: Strict` is kept.
    pub supplemental_groups_policy: bool,
    /// Details for people, as JSON, by name.
    pub info: BTreeMap<String, String>,
}

/// One condition of the runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeCondition {
    /// Its name.
    pub kind: String,
    /// It holds.
    pub status: bool,
    /// Why not, in one word.
    pub reason: String,
    /// Why not, in a sentence.
    pub message: String,
}

/// A runtime handler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeHandler {
    /// Its name; empty is the default one.
    pub name: String,
    /// Mounts can be read-only with all that is mounted below them.
    pub recursive_read_only_mounts: bool,
    /// Pods can have user namespaces.
    pub user_namespaces: bool,
}

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupDriver {
    /// By files.
    #[default]
    Cgroupfs,
    /// By systemd's scopes and slices.
    Systemd,
}

/// How far a pull is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// The layer's digest.
    pub layer: String,
    /// Bytes that came so far.
    pub done: u64,
    /// Bytes of the layer.
    pub total: u64,
}

/// Something that happened in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineEvent {
    /// The pod's UID.
    pub pod_uid: String,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// When.
    pub at: UnixNanos,
    /// What.
    pub kind: EngineEventKind,
}

/// What happened in a pod. The status calls already tell the state after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEventKind {
    /// The sandbox is ready.
    SandboxStarted,
    /// The sandbox was stopped.
    SandboxStopped,
    /// The sandbox is gone, with its containers.
    SandboxRemoved,
    /// A container was made.
    ContainerCreated(ContainerId),
    /// A container is gone.
    ContainerRemoved(ContainerId),
    /// A container's program began.
    ContainerStarted(ContainerId),
    /// A container's first process ended.
    ContainerExited(ContainerId),
    /// The OOM killer hit a process of the container, which may go on.
    ContainerOom(ContainerId),
    /// The sandbox is not ready any more.
    SandboxLost,
}
