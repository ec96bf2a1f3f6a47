//! What a group uses, from as few files as possible.

use super::file::{Directory, keyed_number};
use super::hierarchy::Kind;
use super::statistics::{Pressure, pressure_of};
use super::{Cgroup, Controller, Result};

/// Usage of one group, with everything below it. A part is `None` when the host lacks its controller, or the group does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processor time.
    pub cpu: Option<CpuStats>,
    /// Memory.
    pub memory: Option<MemoryStats>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// Used since the group was made, in nanoseconds.
    pub usage_ns: u64,
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Charged to the group, page cache included.
    pub usage: u64,
    /// Usage without the page cache that can be dropped at once (`inactive_file`): what eviction looks at.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Swap space; `None` where swap is not accounted.
    pub swap: Option<SwapStats>,
    /// The limit; `None` is no limit.
    pub limit: Option<u64>,
    /// Page faults since the group was made.
    pub page_faults: u64,
    /// Page faults that had to wait for a device.
    pub major_page_faults: u64,
}

/// Swap space, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwapStats {
    /// Swapped out.
    pub usage: u64,
    /// What can still be swapped out under the limit; `None` is no limit. On v1, where the limit is one for memory and
    /// swap together, memory that comes takes of it too.
    pub available: Option<u64>,
}

/// How long the tasks of a group waited. `None` where the kernel keeps no count: the unified hierarchy has it, from
/// Linux 4.20, unless it is switched off (`psi=0`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressures {
    /// For processors.
    pub cpu: Option<Pressure>,
    /// For memory.
    pub memory: Option<Pressure>,
    /// For devices.
    pub io: Option<Pressure>,
}

/// v1 shows "no limit" as the largest number of whole pages; nothing real is near it.
pub(super) const V1_NO_LIMIT: u64 = 1 << 62;

impl Cgroup {
    /// Reads the current usage.
    ///
    /// # Errors
    /// When a file can't be read or holds something unexpected, above all because the group is gone.
    pub fn stats(&self) -> Result<Stats> {
        let memory = self.directory(Controller::Memory).map(memory_stats).transpose()?;
        let pids = self
            .directory(Controller::Pids)
            .map(|directory| directory.number_if_present("pids.current"))
            .transpose()?;
        Ok(Stats {
            cpu: self.cpu_stats()?,
            memory: memory.flatten(),
            pids: pids.flatten(),
        })
    }

    /// Reads how long the group's tasks waited.
    ///
    /// # Errors
    /// When a file can't be read, above all because the group is gone.
    pub fn pressures(&self) -> Result<Pressures> {
        Ok(Pressures {
            cpu: pressure_of(self, "cpu.pressure")?,
            memory: pressure_of(self, "memory.pressure")?,
            io: pressure_of(self, "io.pressure")?,
        })
    }

    fn cpu_stats(&self) -> Result<Option<CpuStats>> {
        if let Some(v1) = self.directory(Controller::CpuAcct) {
            return Ok(Some(CpuStats {
                usage_ns: v1.read_number("cpuacct.usage")?,
            }));
        }
        // Every v2 group has cpu.stat, with or without the controller.
        let Some(unified) = self.unified() else {
            return Ok(None);
        };
        let content = unified.read("cpu.stat")?;
        let usage_us = keyed_number(&content, "usage_usec")
            .ok_or_else(|| unified.not_understood("cpu.stat", &content))?;
        Ok(Some(CpuStats {
            usage_ns: usage_us.saturating_mul(1000),
        }))
    }
}

fn memory_stats(group: &Directory) -> Result<Option<MemoryStats>> {
    let Some(stat) = group.read_if_present("memory.stat")? else {
        return Ok(None);
    };
    let number = |key| keyed_number(&stat, key).unwrap_or(0);
    if group.hierarchy.kind == Kind::V2 {
        let usage = group.read_number("memory.current")?;
        let limit = group.read_number("memory.max")?;
        return Ok(Some(MemoryStats {
            usage,
            working_set: usage.saturating_sub(number("inactive_file")),
            rss: number("anon"),
            swap: swap_v2(group)?,
            limit: (limit != u64::MAX).then_some(limit),
            page_faults: number("pgfault"),
            major_page_faults: number("pgmajfault"),
        }));
    }
    let usage = group.read_number("memory.usage_in_bytes")?;
    let limit = group.read_number("memory.limit_in_bytes")?;
    Ok(Some(MemoryStats {
        usage,
        working_set: usage.saturating_sub(number("total_inactive_file")),
        rss: number("total_rss"),
        swap: keyed_number(&stat, "total_swap")
            .map(|usage| swap_v1(group, usage))
            .transpose()?,
        limit: (limit < V1_NO_LIMIT).then_some(limit),
        page_faults: number("total_pgfault"),
        major_page_faults: number("total_pgmajfault"),
    }))
}

fn swap_v2(group: &Directory) -> Result<Option<SwapStats>> {
    let Some(usage) = group.number_if_present("memory.swap.current")? else {
        return Ok(None);
    };
    let limit = group.number_if_present("memory.swap.max")?.unwrap_or(u64::MAX);
    Ok(Some(SwapStats {
        usage,
        available: (limit != u64::MAX).then(|| limit.saturating_sub(usage)),
    }))
}

fn swap_v1(group: &Directory, usage: u64) -> Result<SwapStats> {
    let limit = group
        .number_if_present("memory.memsw.limit_in_bytes")?
        .unwrap_or(u64::MAX);
    if limit >= V1_NO_LIMIT {
        return Ok(SwapStats {
            usage,
            available: None,
        });
    }
    let both = group.read_number("memory.memsw.usage_in_bytes")?;
    Ok(SwapStats {
        usage,
        available: Some(limit.saturating_sub(both)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn the_first_version() {
        let group = fixture::v1(&[
            ("cpuacct", "cpuacct.usage", "123456789\n"),
            (
                "memory",
                "memory.stat",
                "cache 1\nrss 2\npgfault 3\ntotal_cache 500\ntotal_rss 300\ntotal_swap 40\ntotal_pgfault 70\n\
                 total_pgmajfault 8\ntotal_inactive_file 200\n",
            ),
            ("memory", "memory.usage_in_bytes", "900\n"),
            ("memory", "memory.limit_in_bytes", "4096\n"),
            ("memory", "memory.memsw.limit_in_bytes", "8192\n"),
            ("memory", "memory.memsw.usage_in_bytes", "940\n"),
            ("pids", "pids.current", "6\n"),
        ]);
        let memory = MemoryStats {
            usage: 900,
            working_set: 700,
            rss: 300,
            swap: Some(SwapStats {
                usage: 40,
                available: Some(8192 - 940),
            }),
            limit: Some(4096),
            page_faults: 70,
            major_page_faults: 8,
        };
        let expected = Stats {
            cpu: Some(CpuStats {
                usage_ns: 123_456_789,
            }),
            memory: Some(memory),
            pids: Some(6),
        };
        assert_eq!(group.stats().unwrap(), expected);
        assert_eq!(group.pressures().unwrap(), Pressures::default());
    }

    #[test]
    fn the_first_version_without_limits_or_swap_accounting() {
        let group = fixture::v1(&[
            ("cpuacct", "cpuacct.usage", "1\n"),
            ("memory", "memory.stat", "total_inactive_file 5000\n"),
            ("memory", "memory.usage_in_bytes", "900\n"),
            ("memory", "memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let memory = group.stats().unwrap().memory.unwrap();
        assert_eq!((memory.limit, memory.swap, memory.working_set), (None, None, 0));
    }

    #[test]
    fn the_second_version() {
        let group = fixture::v2(&[
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n"),
            ("cpu.pressure", "some avg10=1.00 avg60=0.00 avg300=0.00 total=9\n"),
            (
                "memory.stat",
                "anon 300\nfile 500\ninactive_file 200\npgfault 70\npgmajfault 8\n",
            ),
            ("memory.current", "900\n"),
            ("memory.max", "max\n"),
            ("memory.swap.current", "40\n"),
            ("memory.swap.max", "100\n"),
            ("pids.current", "6\n"),
        ]);
        let memory = MemoryStats {
            usage: 900,
            working_set: 700,
            rss: 300,
            swap: Some(SwapStats {
                usage: 40,
                available: Some(60),
            }),
            limit: None,
            page_faults: 70,
            major_page_faults: 8,
        };
        let expected = Stats {
            cpu: Some(CpuStats { usage_ns: 1_500_000 }),
            memory: Some(memory),
            pids: Some(6),
        };
        assert_eq!(group.stats().unwrap(), expected);
        let pressures = group.pressures().unwrap();
        let cpu = pressures.cpu.unwrap();
        assert_eq!((cpu.some.avg10.0, cpu.some.total), (100, 9));
        assert_eq!((pressures.memory, pressures.io), (None, None));
    }

    #[test]
    fn a_group_that_lacks_controllers_says_so() {
        let group = fixture::v2(&[("cpu.stat", "usage_usec 2\n")]);
        let stats = group.stats().unwrap();
        assert_eq!((stats.memory, stats.pids), (None, None));
        assert_eq!(stats.cpu.unwrap().usage_ns, 2000);
    }

    #[test]
    fn a_group_that_is_gone_is_an_error() {
        fixture::v2(&[]).stats().unwrap_err();
        fixture::v1(&[("memory", "memory.stat", "")]).stats().unwrap_err();
    }
}
