//! One look at a group.

use std::path::Path;

use berth_runtime::cgroups::{Cgroup, CgroupError, MemoryStats, Pressures, Stats, SwapStats};

use super::super::now;
use crate::types::UnixNanos;

/// What a group used at some time.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) at: UnixNanos,
    pub(super) stats: Stats,
    pub(super) pressures: Pressures,
    /// In the group and below it, if they were counted.
    pub(super) processes: Option<u64>,
}

impl Reading {
    /// Reads a group; `None` if it is gone, or goes meanwhile. Processes are listed, and counted, only if that is wanted.
    pub(super) fn of(path: &Path, count: bool) -> Option<Self> {
        match Self::read(path, count) {
            Ok(reading) => reading,
            Err(error) => {
                tracing::debug!("What the cgroup {} uses can't be read: {error}", path.display());
                None
            }
        }
    }

    fn read(path: &Path, count: bool) -> Result<Option<Self>, CgroupError> {
        let Some(group) = Cgroup::open(&path.to_string_lossy())? else {
            return Ok(None);
        };
        let processes = count.then(|| group.pids()).transpose()?;
        Ok(Some(Self {
            at: now(),
            stats: group.stats()?,
            pressures: group.pressures()?,
            processes: processes.map(|pids| u64::try_from(pids.len()).unwrap_or(u64::MAX)),
        }))
    }

    pub(super) fn cpu_ns(&self) -> Option<u64> {
        Some(self.stats.cpu?.usage_ns)
    }

    /// Two groups as one. There is no limit for both, and how long one waited tells nothing of the other.
    pub(super) fn plus(self, other: Self) -> Self {
        let mut stats = Stats {
            cpu: self.stats.cpu.or(other.stats.cpu),
            memory: self.stats.memory.or(other.stats.memory),
            pids: self.stats.pids.or(other.stats.pids),
        };
        if let (Some(one), Some(two)) = (self.stats.cpu, other.stats.cpu) {
            stats.cpu = Some(berth_runtime::cgroups::CpuStats {
                usage_ns: one.usage_ns.saturating_add(two.usage_ns),
            });
        }
        if let (Some(one), Some(two)) = (self.stats.memory, other.stats.memory) {
            stats.memory = Some(add_memory(one, two));
        }
        if let (Some(one), Some(two)) = (self.stats.pids, other.stats.pids) {
            stats.pids = Some(one.saturating_add(two));
        }
        Self {
            at: self.at.max(other.at),
            stats,
            pressures: Pressures::default(),
            processes: self
                .processes
                .zip(other.processes)
                .map(|(one, two)| one.saturating_add(two)),
        }
    }
}

fn add_memory(one: MemoryStats, two: MemoryStats) -> MemoryStats {
    let sum = |of: fn(&MemoryStats) -> u64| of(&one).saturating_add(of(&two));
    let swap = |of: &MemoryStats| of.swap.map_or(0, |swap| swap.usage);
    MemoryStats {
        usage: sum(|memory| memory.usage),
        working_set: sum(|memory| memory.working_set),
        rss: sum(|memory| memory.rss),
        swap: one.swap.or(two.swap).map(|_| SwapStats {
            usage: swap(&one).saturating_add(swap(&two)),
            available: None,
        }),
        limit: None,
        page_faults: sum(|memory| memory.page_faults),
        major_page_faults: sum(|memory| memory.major_page_faults),
    }
}

#[cfg(test)]
mod tests {
    use berth_runtime::cgroups::CpuStats;

    use super::*;

    #[test]
    fn two_groups_as_one() {
        let reading = |at, n: u64, swap| Reading {
            at,
            stats: Stats {
                cpu: Some(CpuStats { usage_ns: n }),
                memory: Some(MemoryStats {
                    usage: n,
                    limit: Some(1),
                    swap,
                    ..Default::default()
                }),
                pids: None,
            },
            pressures: Pressures::default(),
            processes: Some(n),
        };
        let swap = SwapStats {
            usage: 5,
            available: Some(6),
        };
        let both = reading(1, 10, None).plus(reading(2, 20, Some(swap)));
        let memory = both.stats.memory.unwrap();
        assert_eq!((both.at, both.cpu_ns(), both.processes), (2, Some(30), Some(30)));
        assert_eq!((memory.usage, memory.limit, both.stats.pids), (30, None, None));
        assert_eq!(
            memory.swap,
            Some(SwapStats {
                usage: 5,
                available: None
            })
        );
    }
}
