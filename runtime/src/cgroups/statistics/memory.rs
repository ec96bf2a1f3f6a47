//! Memory of a group on both versions.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::file::Directory;
use super::super::hierarchy::Kind;
use super::super::{Cgroup, Controller, Result};
use super::pressure::{self, Pressure};

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Page cache.
    #[serde(skip_serializing_if = "super::is_default")]
    pub cache: u64,
    /// Everything that is charged.
    #[serde(skip_serializing_if = "super::is_default")]
    pub usage: MemoryEntry,
    /// Memory and swap together, also on v2, where the kernel keeps them apart.
    #[serde(skip_serializing_if = "super::is_default")]
    pub swap: MemoryEntry,
    /// The kernel's own memory for the group (v1).
    #[serde(skip_serializing_if = "super::is_default")]
    pub kernel: MemoryEntry,
    /// TCP buffers (v1).
    #[serde(rename = "kernelTCP", skip_serializing_if = "super::is_default")]
    pub kernel_tcp: MemoryEntry,
    /// `memory.stat` as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Waits for memory.
    #[serde(rename = "psi", skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// One counter with its limit, in bytes. No limit is the largest number that the kernel shows: on v1 the pages of 63
/// bits, on v2 `u64::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEntry {
    /// The limit.
    pub limit: u64,
    /// Now.
    #[serde(skip_serializing_if = "super::is_default")]
    pub usage: u64,
    /// The most so far.
    #[serde(skip_serializing_if = "super::is_default")]
    pub max: u64,
    /// How often the limit was hit (v1).
    pub failcnt: u64,
}

pub(super) fn read(group: &Cgroup) -> Result<Memory> {
    let mut memory = Memory {
        pressure: pressure::read(group, "memory.pressure")?,
        ..Memory::default()
    };
    let Some(directory) = group.directory(Controller::Memory) else {
        return Ok(memory);
    };
    let Some(stat) = directory.read_if_present("memory.stat")? else {
        return Ok(memory);
    };
    memory.raw = parse(&stat);
    if directory.hierarchy.kind == Kind::V2 {
        read_v2(directory, &mut memory)?;
    } else {
        memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
        memory.usage = entry_v1(directory, "memory")?;
        memory.swap = entry_v1(directory, "memory.memsw")?;
        memory.kernel = entry_v1(directory, "memory.kmem")?;
        memory.kernel_tcp = entry_v1(directory, "memory.kmem.tcp")?;
    }
    Ok(memory)
}

fn read_v2(directory: &Directory, memory: &mut Memory) -> Result<()> {
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    let number = |file| Ok(directory.number_if_present(file)?.unwrap_or(0));
    memory.usage = MemoryEntry {
        limit: number("memory.max")?,
        usage: number("memory.current")?,
        max: number("memory.peak")?,
        failcnt: 0,
    };
    let (limit, usage) = (number("memory.swap.max")?, number("memory.swap.current")?);
    memory.swap = MemoryEntry {
        // u64::MAX, no limit, stays what it is.
        limit: limit.saturating_add(memory.usage.limit),
        usage: usage.saturating_add(memory.usage.usage),
        // The two may have had their peaks at different times.
        max: 0,
        failcnt: 0,
    };
    Ok(())
}

/// Nothing where the kernel doesn't have the counter: swap and kernel memory are options of it.
fn entry_v1(directory: &Directory, prefix: &str) -> Result<MemoryEntry> {
    let number = |suffix| {
        Ok(directory
            .number_if_present(&format!("{prefix}.{suffix}"))?
            .unwrap_or(0))
    };
    Ok(MemoryEntry {
        limit: number("limit_in_bytes")?,
        usage: number("usage_in_bytes")?,
        max: number("max_usage_in_bytes")?,
        failcnt: number("failcnt")?,
    })
}

fn parse(stat: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    stat.lines().filter_map(pair).collect()
}
