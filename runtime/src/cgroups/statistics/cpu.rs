//! Processor time: `cpuacct` and `cpu` of v1, `cpu.stat` of v2.

use serde::Serialize;

use super::super::file::{Directory, keyed_number};
use super::super::hierarchy::Kind;
use super::super::{Cgroup, Controller, Result};
use super::pressure::{self, Pressure};

/// Processor time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// Used.
    #[serde(skip_serializing_if = "super::is_default")]
    pub usage: CpuUsage,
    /// Held back by the quota.
    #[serde(skip_serializing_if = "super::is_default")]
    pub throttling: Throttling,
    /// Waited for.
    #[serde(rename = "psi", skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// Time used since the group was made, in nanoseconds. By processor on v1 only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the names say it
pub struct CpuUsage {
    #[serde(skip_serializing_if = "super::is_default")]
    pub total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

/// Periods of the CFS bandwidth control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that passed.
    #[serde(skip_serializing_if = "super::is_default")]
    pub periods: u64,
    /// Periods in which the group was stopped.
    #[serde(skip_serializing_if = "super::is_default")]
    pub throttled_periods: u64,
    /// For how long, in nanoseconds.
    #[serde(skip_serializing_if = "super::is_default")]
    pub throttled_time: u64,
}

/// `USER_HZ` is 100 on every architecture that this program is built for.
const NANOSECONDS_PER_TICK: u64 = 1_000_000_000 / 100;

pub(super) fn read(group: &Cgroup) -> Result<Cpu> {
    let mut cpu = Cpu {
        pressure: pressure::read(group, "cpu.pressure")?,
        ..Cpu::default()
    };
    let stat = match (group.directory(Controller::Cpu), group.unified()) {
        (Some(v1), _) if v1.hierarchy.kind != Kind::V2 => v1.read_if_present("cpu.stat")?.unwrap_or_default(),
        // Every v2 group has it, with or without the controller.
        (Some(directory), _) | (None, Some(directory)) => directory.read("cpu.stat")?,
        (None, None) => String::new(),
    };
    let number = |key| keyed_number(&stat, key);
    let microseconds = |key| number(key).map(|n| n.saturating_mul(1000));
    cpu.throttling = Throttling {
        periods: number("nr_periods").unwrap_or(0),
        throttled_periods: number("nr_throttled").unwrap_or(0),
        throttled_time: number("throttled_time")
            .or_else(|| microseconds("throttled_usec"))
            .unwrap_or(0),
    };
    cpu.usage = match group.directory(Controller::CpuAcct) {
        Some(v1) => usage_v1(v1)?,
        None => CpuUsage {
            total: microseconds("usage_usec").unwrap_or(0),
            user: microseconds("user_usec").unwrap_or(0),
            kernel: microseconds("system_usec").unwrap_or(0),
            ..CpuUsage::default()
        },
    };
    Ok(cpu)
}

fn usage_v1(directory: &Directory) -> Result<CpuUsage> {
    let stat = directory.read("cpuacct.stat")?;
    let ticks = |key| {
        keyed_number(&stat, key)
            .unwrap_or(0)
            .saturating_mul(NANOSECONDS_PER_TICK)
    };
    let percpu = directory.read("cpuacct.usage_percpu")?;
    let (percpu_user, percpu_kernel) = by_mode(
        &directory
            .read_if_present("cpuacct.usage_all")?
            .unwrap_or_default(),
    );
    Ok(CpuUsage {
        total: directory.read_number("cpuacct.usage")?,
        percpu: percpu
            .split_ascii_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect(),
        percpu_kernel,
        percpu_user,
        kernel: ticks("system"),
        user: ticks("user"),
    })
}

/// `cpuacct.usage_all`: a header, then a processor, its user and its kernel time on each line.
fn by_mode(text: &str) -> (Vec<u64>, Vec<u64>) {
    let times = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        Some((
            fields.next()?.parse::<u64>().ok()?,
            fields.next()?.parse::<u64>().ok()?,
        ))
    };
    text.lines().skip(1).filter_map(times).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_by_processor_and_mode() {
        assert_eq!(
            by_mode("cpu user system\n0 10 20\n1 30 40\n"),
            (vec![10, 30], vec![20, 40])
        );
        assert_eq!(by_mode(""), (vec![], vec![]));
    }
}
