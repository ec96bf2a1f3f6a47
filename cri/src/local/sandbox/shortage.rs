//! Pods whose limit of memory is too low for their own shim.

use std::path::PathBuf;

use berth_runtime::cgroups::Cgroup;

use crate::engine::EngineError;
use crate::types::PodSandboxConfig;

/// A pod's limit of memory, and how often it was hit before its shim was started.
pub(super) struct Shortage {
    parent: PathBuf,
    limit: i64,
    hits: u64,
}

impl Shortage {
    /// `None` for a pod without a limit.
    pub(super) fn before(config: &PodSandboxConfig) -> Option<Self> {
        let limit = config.resources.as_ref()?.memory_limit?;
        let mut shortage = Shortage {
            parent: config.cgroup_parent.clone(),
            limit,
            hits: 0,
        };
        shortage.hits = shortage.hits();
        Some(shortage)
    }

    /// What there is to say of a shim that could not start, if it wanted more memory than the pod may have. The kernel
    /// refuses it one thing or another then, or kills it.
    pub(super) fn explain(&self) -> Option<EngineError> {
        let limit = self.limit;
        (self.hits() > self.hits).then(|| {
            EngineError::Unavailable(format!(
                "The pod's memory limit of {limit} bytes is too low: not even its sandbox can start with it. Raise \
                 resources.limits.memory of its containers, or of the pod."
            ))
        })
    }

    fn hits(&self) -> u64 {
        let group = Cgroup::open(&self.parent.to_string_lossy());
        let hits = group.map(|group| group.map(|group| group.memory_limit_hits()));
        // Nobody counts where there is no group.
        hits.ok()
            .flatten()
            .and_then(|hits| hits.ok().flatten())
            .unwrap_or(0)
    }
}
