//! What v1's cpuset hierarchy says of a group.

use serde::Serialize;

use super::super::hierarchy::Kind;
use super::super::{Cgroup, Controller, Result};

/// Processors, memory nodes and flags, by the names of cpusets(7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // names of cpusets(7)
pub struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

pub(super) fn read(group: &Cgroup) -> Result<CpuSet> {
    let directory = match group.directory(Controller::CpuSet) {
        Some(directory) if directory.hierarchy.kind == Kind::V1 => directory,
        _ => return Ok(CpuSet::default()),
    };
    let text = |file| Ok(directory.read_if_present(file)?.unwrap_or_default());
    let number = |file| text(file).map(|content: String| content.trim().parse().unwrap_or(0));
    Ok(CpuSet {
        cpus: list(&text("cpuset.cpus")?),
        cpu_exclusive: number("cpuset.cpu_exclusive")?,
        mems: list(&text("cpuset.mems")?),
        mem_hardwall: number("cpuset.mem_hardwall")?,
        mem_exclusive: number("cpuset.mem_exclusive")?,
        memory_migrate: number("cpuset.memory_migrate")?,
        memory_spread_page: number("cpuset.memory_spread_page")?,
        memory_spread_slab: number("cpuset.memory_spread_slab")?,
        memory_pressure: number("cpuset.memory_pressure")?,
        sched_load_balance: number("cpuset.sched_load_balance")?,
        sched_relax_domain_level: text("cpuset.sched_relax_domain_level")?
            .trim()
            .parse()
            .unwrap_or(0),
    })
}

/// The kernel's list format: `0-3,7`.
fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(list("0-2,7\n"), [0, 1, 2, 7]);
        assert_eq!(list("\n"), [] as [u16; 0]);
        assert_eq!(list("5-3"), [] as [u16; 0]);
    }
}
