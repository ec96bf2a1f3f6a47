//! What a pod is to be: its specification, what that refers to, and the node it is on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_cri::{DnsConfig, UnixNanos};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};

use crate::admission::AllowedSysctls;
use crate::backoff::Backoff;
use crate::identity::PodUid;
use crate::user_ids::UserIds;

/// A pod as it is to be.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The pod, defaulted and validated; `metadata.uid` is set.
    pub pod: Arc<Pod>,
    /// The pod's UID, as in `pod.metadata.uid`.
    pub uid: PodUid,
    /// What the pod's containers and volumes may refer to.
    pub objects: Arc<Objects>,
    /// What the plan needs to know of the node.
    pub node: Arc<NodeFacts>,
    /// Its ids on the node, if they are its own (`hostUsers: false`). The worker claims them.
    pub user_ids: Option<UserIds>,
    /// Somebody wants the pod to end and to be removed.
    pub deletion: Option<Deletion>,
}

/// The end that somebody wants for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When it was first asked for; the grace period counts from here.
    pub requested_at: UnixNanos,
    /// Replaces `terminationGracePeriodSeconds`. Zero kills at once, without preStop hooks.
    pub grace: Option<Duration>,
}

/// ConfigMaps and Secrets, by namespace and name.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// ConfigMaps by (namespace, name).
    pub config_maps: BTreeMap<(String, String), ConfigMap>,
    /// Secrets by (namespace, name).
    pub secrets: BTreeMap<(String, String), Secret>,
}

/// What the plan needs to know of the node; it does not change while the node runs.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// `spec.nodeName`.
    pub name: String,
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<IpAddr>,
    /// Bytes of memory, for `oom_score_adj` and `resourceFieldRef`.
    pub memory_capacity: u64,
    /// Thousandths of a CPU, for `resourceFieldRef`.
    pub cpu_capacity: u64,
    /// What the host's `/etc/resolv.conf` says, for `dnsPolicy: Default`.
    pub host_dns: DnsConfig,
    /// `clusterDNS`; without it `dnsPolicy: ClusterFirst` is `Default`.
    pub cluster_dns: Vec<IpAddr>,
    /// `clusterDomain`, or empty.
    pub cluster_domain: String,
    /// The content of the host's `/etc/hosts`, for pods with the host's network.
    pub host_hosts: String,
    /// The kubelet directory (`/var/lib/kubelet`), below which claims are kept.
    pub kubelet_root: PathBuf,
    /// Where the pods' logs go: `/var/log/pods`.
    pub log_root: PathBuf,
    /// The cgroup under which `kubepods` is, relative to the root of each hierarchy; empty for the root itself.
    pub cgroup_root: PathBuf,
    /// Where `seccompProfile.localhostProfile` files are: `/var/lib/kubelet/seccomp`.
    pub seccomp_root: PathBuf,
    /// The memory controller is cgroup v2's: containers get `memory.oom.group`.
    pub cgroup_v2_memory: bool,
    /// The kernel accounts swap per cgroup: containers get no swap (`NoSwap`).
    pub swap_accounting: bool,
    /// The sizes of huge pages that the kernel has, as it names them (`2MB`): what a container does not ask for it may not have.
    pub huge_page_sizes: BTreeSet<String>,
    /// The runtime handlers whose mounts can be read-only with all that is mounted below them; empty is the default one.
    pub recursive_read_only: BTreeSet<String>,
    /// The kernel has AppArmor, and it is on.
    pub has_app_armor: bool,
    /// Kernel parameters that pods may set.
    pub allowed_sysctls: AllowedSysctls,
    /// The pauses between two runs of a container.
    pub restart_backoff: Backoff,
    /// `podPidsLimit`; `None` is no limit.
    pub pod_pids_limit: Option<i64>,
    /// No control groups can be made, as by an ordinary user: nothing is limited and nothing weighed.
    pub without_cgroups: bool,
    /// Controllers that an ordinary user's control groups don't have.
    pub lacking: crate::Lacking,
}
