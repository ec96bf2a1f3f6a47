//! The names of the kernel's controllers, and sets of them.

/// A resource controller of the kernel, by the name it has in `/proc/cgroups` and `cgroup.controllers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each variant is the controller of that name
pub enum Controller {
    Cpu,
    CpuAcct,
    CpuSet,
    Memory,
    /// `blkio` on v1, `io` on v2.
    BlockIo,
    Devices,
    Freezer,
    Pids,
    HugeTlb,
    NetCls,
    NetPrio,
    PerfEvent,
    Rdma,
    Misc,
}

use Controller::*;

impl Controller {
    /// All of them.
    pub const ALL: [Controller; 14] = [
        Cpu, CpuAcct, CpuSet, Memory, BlockIo, Devices, Freezer, Pids, HugeTlb, NetCls, NetPrio, PerfEvent,
        Rdma, Misc,
    ];

    /// The name as a v1 mount option.
    pub const fn v1_name(self) -> &'static str {
        match self {
            Cpu => "cpu",
            CpuAcct => "cpuacct",
            CpuSet => "cpuset",
            Memory => "memory",
            BlockIo => "blkio",
            Devices => "devices",
            Freezer => "freezer",
            Pids => "pids",
            HugeTlb => "hugetlb",
            NetCls => "net_cls",
            NetPrio => "net_prio",
            PerfEvent => "perf_event",
            Rdma => "rdma",
            Misc => "misc",
        }
    }

    /// The name in `cgroup.controllers` of v2.
    pub const fn v2_name(self) -> &'static str {
        match self {
            BlockIo => "io",
            other => other.v1_name(),
        }
    }
}

/// A set of controllers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controllers(u16);

impl Controllers {
    /// Those that a container's group gets on v2, as far as the parent offers them.
    pub(super) const DISTRIBUTED: [Controller; 7] = [Cpu, CpuSet, Memory, BlockIo, Pids, HugeTlb, Rdma];

    pub(super) fn insert(&mut self, controller: Controller) {
        self.0 |= 1 << controller as u16;
    }

    /// Whether the controller is in the set.
    pub const fn contains(self, controller: Controller) -> bool {
        self.0 & (1 << controller as u16) != 0
    }

    /// Whether there is no controller in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set named by the words of a `cgroup.controllers` file.
    pub(super) fn from_v2_names(words: &str) -> Self {
        Self::collect(words.split_ascii_whitespace(), Controller::v2_name)
    }

    /// The set named by a v1 mount's options.
    pub(super) fn from_v1_options(options: &str) -> Self {
        Self::collect(options.split(','), Controller::v1_name)
    }

    fn collect<'a>(words: impl Iterator<Item = &'a str>, name: impl Fn(Controller) -> &'static str) -> Self {
        let mut set = Self::default();
        for word in words {
            if let Some(&controller) = Controller::ALL.iter().find(|c| name(**c) == word) {
                set.insert(controller);
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_versions() {
        let v1 = Controllers::from_v1_options("rw,cpu,cpuacct");
        assert!(v1.contains(Cpu) && v1.contains(CpuAcct) && !v1.contains(CpuSet));
        let v2 = Controllers::from_v2_names("cpuset cpu io memory hugetlb pids rdma misc\n");
        assert!(v2.contains(BlockIo) && v2.contains(Misc) && !v2.contains(Devices));
        assert!(Controllers::from_v1_options("rw,xattr,name=systemd").is_empty());
    }
}
