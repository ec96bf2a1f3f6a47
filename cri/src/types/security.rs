//! What confines pods and containers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
