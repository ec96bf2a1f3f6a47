//! All that `events --stats` tells of a group. [`Statistics`] serializes to the `data` of runc's event, field by field:
//! what is zero is left out where runc leaves it out, times are in nanoseconds, amounts of memory in bytes.
//!
//! The numbers that berth itself follows are in [`super::Stats`], which reads far fewer files.

mod block_io;
mod cpu;
mod cpuset;
mod hugetlb;
mod memory;
mod pressure;

use std::collections::BTreeMap;

use serde::Serialize;

pub use block_io::{BlockIo, DeviceCounter};
pub use cpu::{Cpu, CpuUsage, Throttling};
pub use cpuset::CpuSet;
pub use hugetlb::HugePages;
pub use memory::{Memory, MemoryEntry};
pub(super) use pressure::read as pressure_of;
pub use pressure::{Average, Pressure, PressureLine};

use super::{Cgroup, Controller, Result};

/// What a group, with everything below it, uses. A part whose controller the host lacks is zero or empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Statistics {
    /// Processor time.
    pub cpu: Cpu,
    /// The processors and memory nodes that it may use; on v1 only.
    pub cpuset: CpuSet,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block devices.
    #[serde(rename = "blkio")]
    pub block_io: BlockIo,
    /// Huge pages by their size as file names have it: `2MB`.
    #[serde(rename = "hugetlb")]
    pub huge_pages: BTreeMap<String, HugePages>,
    /// The resctrl group is no cgroup and not counted here.
    pub intel_rdt: IntelRdt,
    /// runc counts only links that it made itself, which no OCI configuration asks for.
    pub network_interfaces: Option<()>,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// How many there are.
    #[serde(skip_serializing_if = "is_default")]
    pub current: u64,
    /// How many there may be; 0 is no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: u64,
}

/// An empty object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IntelRdt {}

/// For fields that are left out when there is nothing to say.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Cgroup {
    /// Reads all counters of the group.
    ///
    /// # Errors
    /// When a file can't be read or holds something unexpected, above all because the group is gone.
    pub fn statistics(&self) -> Result<Statistics> {
        Ok(Statistics {
            cpu: cpu::read(self)?,
            cpuset: cpuset::read(self)?,
            memory: memory::read(self)?,
            pids: self.pids_statistics()?,
            block_io: block_io::read(self)?,
            huge_pages: hugetlb::read(self)?,
            intel_rdt: IntelRdt {},
            network_interfaces: None,
        })
    }

    /// Processor time alone.
    ///
    /// # Errors
    /// As [`Cgroup::statistics`].
    pub fn cpu_statistics(&self) -> Result<Cpu> {
        cpu::read(self)
    }

    /// Memory alone.
    ///
    /// # Errors
    /// As [`Cgroup::statistics`].
    pub fn memory_statistics(&self) -> Result<Memory> {
        memory::read(self)
    }

    /// Block devices alone.
    ///
    /// # Errors
    /// As [`Cgroup::statistics`].
    pub fn block_io_statistics(&self) -> Result<BlockIo> {
        block_io::read(self)
    }

    /// Huge pages alone, by their size.
    ///
    /// # Errors
    /// As [`Cgroup::statistics`].
    pub fn huge_page_statistics(&self) -> Result<BTreeMap<String, HugePages>> {
        hugetlb::read(self)
    }

    fn pids_statistics(&self) -> Result<Pids> {
        let Some(directory) = self.directory(Controller::Pids).filter(|d| d.has("pids.max")) else {
            let current = u64::try_from(self.pids()?.len()).unwrap_or(u64::MAX);
            return Ok(Pids { current, limit: 0 });
        };
        let limit = directory.read_number("pids.max")?;
        Ok(Pids {
            current: directory.read_number("pids.current")?,
            limit: if limit == u64::MAX { 0 } else { limit },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_zero_is_left_out_as_runc_does() {
        let json = serde_json::to_value(Statistics::default()).unwrap();
        let expected = serde_json::json!({
            "cpu": {},
            "cpuset": {
                "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0, "memory_spread_page": 0,
                "memory_spread_slab": 0, "memory_pressure": 0, "sched_load_balance": 0, "sched_relax_domain_level": 0,
            },
            "memory": {}, "pids": {}, "blkio": {}, "hugetlb": {}, "intel_rdt": {}, "network_interfaces": null,
        });
        assert_eq!(json, expected);
    }
}
