//! Controllers that an ordinary user's control groups don't have. Manifests that need them are refused; what is set for every
//! pod, as the weight of its processor time is, is left out.

use berth_cri::LinuxContainerResources;

/// Which ones are missing; none, by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Processor time is neither weighed nor limited.
    pub cpu: bool,
    /// Memory is not limited.
    pub memory: bool,
    /// The number of processes is not limited.
    pub pids: bool,
    /// Huge pages are not limited.
    pub hugetlb: bool,
}

impl Lacking {
    /// What is left of limits.
    pub fn without(self, mut limits: LinuxContainerResources) -> LinuxContainerResources {
        if self.cpu {
            limits.cpu_shares = None;
            limits.cpu_quota = None;
            limits.cpu_period = None;
        }
        if self.memory {
            limits.memory_limit = None;
            limits.memory_swap_limit = None;
            limits.unified.retain(|file, _| !file.starts_with("memory."));
        }
        if self.pids {
            limits.pids_limit = None;
        }
        if self.hugetlb {
            limits.hugepage_limits.clear();
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_left_out() {
        let all = LinuxContainerResources {
            cpu_shares: Some(2),
            cpu_quota: Some(1000),
            cpu_period: Some(100_000),
            memory_limit: Some(1),
            memory_swap_limit: Some(1),
            pids_limit: Some(5),
            unified: [("memory.oom.group".to_owned(), "1".to_owned())].into(),
            hugepage_limits: [("2MB".to_owned(), 1)].into(),
            oom_score_adj: 7,
            ..LinuxContainerResources::default()
        };
        assert_eq!(Lacking::default().without(all.clone()), all);
        let nothing = Lacking {
            cpu: true,
            memory: true,
            pids: true,
            hugetlb: true,
        };
        let left = LinuxContainerResources {
            oom_score_adj: 7,
            ..LinuxContainerResources::default()
        };
        assert_eq!(nothing.without(all.clone()), left);
        let cpu = Lacking {
            cpu: true,
            ..Lacking::default()
        };
        let kept = cpu.without(all);
        assert_eq!((kept.cpu_shares, kept.memory_limit), (None, Some(1)));
    }
}
