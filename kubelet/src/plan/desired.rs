//! What a pod is to be: its specification, what that refers to, and the node it is on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_cri::{DnsConfig, UnixNanos};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};

use crate::admission::{AllowedSysctls, ExtendedResources, NodeLabels};
use crate::backoff::Backoff;
use crate::identity::PodUid;
use crate::resources::hugepage_size;
use crate::spec;
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

impl Deletion {
    /// Somebody asks again for the end of this pod, which can only shorten what it is given.
    #[must_use]
    pub fn asked_again(self, grace: Option<Duration>, pod: &Pod) -> Self {
        let of_pod = spec::grace_period(pod);
        let grace = self.grace.unwrap_or(of_pod).min(grace.unwrap_or(of_pod));
        Self {
            grace: Some(grace),
            ..self
        }
    }
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
    /// The labels that pods choose the node by.
    pub labels: NodeLabels,
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<IpAddr>,
    /// Bytes of memory: for `oom_score_adj` and `resourceFieldRef`, and what pods may request together; 0 if it is not known.
    pub memory_capacity: u64,
    /// Thousandths of a CPU, for the same.
    pub cpu_capacity: u64,
    /// Bytes of the file system that has the kubelet directory, for the same.
    pub storage_capacity: u64,
    /// Bytes of huge pages that the kernel has set aside, by the size of a page (`2MB`).
    pub huge_pages: BTreeMap<String, u64>,
    /// How many pods may be here together; `None` is any number.
    pub max_pods: Option<u32>,
    /// What the node has beside.
    pub extended_resources: ExtendedResources,
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

impl NodeFacts {
    /// The name as that of an object: Kubernetes has none with capitals.
    pub(crate) fn kubernetes_name(&self) -> String {
        self.name.to_lowercase()
    }

    /// What the node has of a resource: thousandths of a CPU, bytes, or a number of things; `None` if that is not known.
    pub fn capacity(&self, resource: &str) -> Option<i64> {
        let known = |amount: u64| (amount > 0).then(|| i64::try_from(amount).unwrap_or(i64::MAX));
        match resource {
            "cpu" => known(self.cpu_capacity),
            "memory" => known(self.memory_capacity),
            "ephemeral-storage" => known(self.storage_capacity),
            _ => Some(match resource.strip_prefix("hugepages-") {
                Some(size) => {
                    let bytes = hugepage_size(size).and_then(|size| self.huge_pages.get(&size));
                    i64::try_from(bytes.copied().unwrap_or(0)).unwrap_or(i64::MAX)
                }
                None => self.extended_resources.count(resource),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn who_asks_again_can_only_shorten_the_grace_period() {
        let pod = pod(r#"{"terminationGracePeriodSeconds":30,"containers":[]}"#);
        let seconds = |number: Option<u64>| number.map(Duration::from_secs);
        for (first, again, together) in [
            (None, Some(50), 30),
            (None, Some(7), 7),
            (None, None, 30),
            (Some(50), None, 30),
            (Some(50), Some(40), 40),
            (Some(7), Some(40), 7),
            (Some(7), None, 7),
            (Some(0), Some(9), 0),
        ] {
            let last = Deletion {
                requested_at: 3,
                grace: seconds(first),
            };
            let expected = Deletion {
                requested_at: 3,
                grace: seconds(Some(together)),
            };
            assert_eq!(
                last.asked_again(seconds(again), &pod),
                expected,
                "{first:?}, {again:?}"
            );
        }
    }
}
