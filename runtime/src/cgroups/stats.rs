//! What a group uses, from as few files as possible.

use super::file::{Directory, keyed_number};
use super::hierarchy::Kind;
use super::{Cgroup, Controller, Result};

/// Usage of one group, with everything below it. A part is `None` when the host lacks its controller.
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
    /// Swap space; zero where swap is not accounted.
    pub swap: u64,
    /// The limit; `None` is no limit.
    pub limit: Option<u64>,
    /// Page faults since the group was made.
    pub page_faults: u64,
    /// Page faults that had to wait for a device.
    pub major_page_faults: u64,
}

/// v1 shows "no limit" as the largest number of whole pages; nothing real is near it.
const V1_NO_LIMIT: u64 = 1 << 62;

impl Cgroup {
    /// Reads the current usage.
    ///
    /// # Errors
    /// When a file can't be read or holds something unexpected.
    pub fn stats(&self) -> Result<Stats> {
        Ok(Stats {
            cpu: self.cpu_stats()?,
            memory: self.directory(Controller::Memory).map(memory_stats).transpose()?,
            pids: self
                .directory(Controller::Pids)
                .map(|d| d.read_number("pids.current"))
                .transpose()?,
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

fn memory_stats(group: &Directory) -> Result<MemoryStats> {
    let stat = group.read("memory.stat")?;
    let number = |key| keyed_number(&stat, key).unwrap_or(0);
    if group.hierarchy.kind == Kind::V2 {
        let usage = group.read_number("memory.current")?;
        let limit = group.read_number("memory.max")?;
        let swap = group.read_if_present("memory.swap.current")?;
        return Ok(MemoryStats {
            usage,
            working_set: usage.saturating_sub(number("inactive_file")),
            rss: number("anon"),
            swap: swap.and_then(|s| s.trim().parse().ok()).unwrap_or(0),
            limit: (limit != u64::MAX).then_some(limit),
            page_faults: number("pgfault"),
            major_page_faults: number("pgmajfault"),
        });
    }
    let usage = group.read_number("memory.usage_in_bytes")?;
    let limit = group.read_number("memory.limit_in_bytes")?;
    Ok(MemoryStats {
        usage,
        working_set: usage.saturating_sub(number("total_inactive_file")),
        rss: number("total_rss"),
        swap: number("total_swap"),
        limit: (limit < V1_NO_LIMIT).then_some(limit),
        page_faults: number("total_pgfault"),
        major_page_faults: number("total_pgmajfault"),
    })
}
