//! Limits of pods and containers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
