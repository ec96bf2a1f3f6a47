//! A group's own limits, as the kernel has them.

use super::file::Directory;
use super::hierarchy::Kind;
use super::stats::V1_NO_LIMIT;
use super::{Cgroup, Controller, Result};

/// Bounds of one group; those of the groups above it hold as well. `None` is no limit, or no controller to set one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The weight on v1's scale. v2 has another scale, from which this one can't be told exactly.
    pub cpu_shares: Option<u64>,
    /// Microseconds of a period of the CFS bandwidth control.
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time in each period.
    pub cpu_quota: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes that are kept for the group when memory is short: the soft limit of v1, `memory.min` of v2.
    pub memory_reservation: Option<u64>,
    /// Bytes: of memory and swap together on v1, of swap alone on v2.
    pub memory_swap: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Cgroup {
    /// Reads the limits.
    ///
    /// # Errors
    /// When a file can't be read or holds something unexpected, above all because the group is gone.
    pub fn bounds(&self) -> Result<Bounds> {
        let mut bounds = Bounds::default();
        if let Some(cpu) = self.directory(Controller::Cpu) {
            read_cpu(cpu, &mut bounds)?;
        }
        if let Some(memory) = self.directory(Controller::Memory) {
            let (limit, reservation, swap) = if memory.hierarchy.kind == Kind::V2 {
                ("memory.max", "memory.min", "memory.swap.max")
            } else {
                (
                    "memory.limit_in_bytes",
                    "memory.soft_limit_in_bytes",
                    "memory.memsw.limit_in_bytes",
                )
            };
            bounds.memory = limit_in(memory, limit)?;
            bounds.memory_reservation = limit_in(memory, reservation)?;
            bounds.memory_swap = limit_in(memory, swap)?;
        }
        if let Some(pids) = self.directory(Controller::Pids) {
            bounds.pids = limit_in(pids, "pids.max")?;
        }
        Ok(bounds)
    }
}

fn read_cpu(directory: &Directory, bounds: &mut Bounds) -> Result<()> {
    if directory.hierarchy.kind == Kind::V2 {
        let Some(text) = directory.read_if_present("cpu.max")? else {
            return Ok(());
        };
        let mut words = text.split_ascii_whitespace();
        // The quota may be `max`.
        bounds.cpu_quota = words.next().and_then(|quota| quota.parse().ok());
        bounds.cpu_period = words.next().and_then(|period| period.parse().ok());
        return Ok(());
    }
    bounds.cpu_shares = directory.number_if_present("cpu.shares")?;
    bounds.cpu_period = directory.number_if_present("cpu.cfs_period_us")?;
    // -1 is no quota.
    let quota = directory.read_if_present("cpu.cfs_quota_us")?;
    bounds.cpu_quota = quota.and_then(|quota| quota.trim().parse().ok());
    Ok(())
}

fn limit_in(directory: &Directory, file: &str) -> Result<Option<u64>> {
    let limit = directory.number_if_present(file)?;
    Ok(limit.filter(|limit| *limit < V1_NO_LIMIT))
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn both_versions() {
        let v1 = fixture::v1(&[
            ("cpu", "cpu.shares", "512\n"),
            ("cpu", "cpu.cfs_period_us", "100000\n"),
            ("cpu", "cpu.cfs_quota_us", "20000\n"),
            ("memory", "memory.limit_in_bytes", "4096\n"),
            ("memory", "memory.soft_limit_in_bytes", "9223372036854771712\n"),
            ("memory", "memory.memsw.limit_in_bytes", "8192\n"),
            ("pids", "pids.max", "max\n"),
        ]);
        let expected = Bounds {
            cpu_shares: Some(512),
            cpu_period: Some(100_000),
            cpu_quota: Some(20_000),
            memory: Some(4096),
            memory_reservation: None,
            memory_swap: Some(8192),
            pids: None,
        };
        assert_eq!(v1.bounds().unwrap(), expected);
        let v2 = fixture::v2(&[
            ("cpu.max", "20000 100000\n"),
            ("memory.max", "4096\n"),
            ("memory.min", "1024\n"),
            ("memory.swap.max", "0\n"),
            ("pids.max", "30\n"),
        ]);
        let expected = Bounds {
            cpu_shares: None,
            memory_reservation: Some(1024),
            memory_swap: Some(0),
            pids: Some(30),
            ..expected
        };
        assert_eq!(v2.bounds().unwrap(), expected);
    }

    #[test]
    fn no_limits() {
        let v1 = fixture::v1(&[("cpu", "cpu.cfs_quota_us", "-1\n")]);
        assert_eq!(v1.bounds().unwrap(), Bounds::default());
        let v2 = fixture::v2(&[("cpu.max", "max 100000\n"), ("memory.max", "max\n")]);
        let expected = Bounds {
            cpu_period: Some(100_000),
            ..Bounds::default()
        };
        assert_eq!(v2.bounds().unwrap(), expected);
    }
}
