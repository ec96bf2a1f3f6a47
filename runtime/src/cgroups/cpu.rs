//! `linux.resources.cpu`, without its cpuset.

use crate::oci::LinuxCpu;
use nix::errno::Errno;

use super::file::Directory;
use super::hierarchy::Kind;
use super::{Cgroup, CgroupError, Controller, Result, qos};

/// The parts that are asked for; 0 is "not set", as runc has it.
struct Wanted {
    shares: Option<u64>,
    quota: Option<i64>,
    period: Option<u64>,
    burst: Option<u64>,
    idle: Option<i64>,
    realtime_runtime: Option<i64>,
    realtime_period: Option<u64>,
}

pub(super) fn apply(group: &Cgroup, spec: &LinuxCpu) -> Result<()> {
    let wanted = Wanted {
        shares: spec.shares.filter(|n| *n != 0),
        quota: spec.quota.filter(|n| *n != 0),
        period: spec.period.filter(|n| *n != 0),
        burst: spec.burst,
        idle: spec.idle,
        realtime_runtime: spec.realtime_runtime.filter(|n| *n != 0),
        realtime_period: spec.realtime_period.filter(|n| *n != 0),
    };
    if wanted.is_empty() {
        return Ok(());
    }
    let directory = group.need(Controller::Cpu, "linux.resources.cpu")?;
    match directory.hierarchy.kind {
        Kind::V2 => apply_v2(directory, &wanted),
        Kind::V1 | Kind::V1Named => apply_v1(directory, &wanted),
    }
}

impl Wanted {
    fn is_empty(&self) -> bool {
        self.shares.is_none()
            && self.quota.is_none()
            && self.period.is_none()
            && self.burst.is_none()
            && self.idle.is_none()
            && self.realtime_runtime.is_none()
            && self.realtime_period.is_none()
    }
}

fn apply_v1(directory: &Directory, wanted: &Wanted) -> Result<()> {
    if let Some(shares) = wanted
        .shares
        .filter(|n| !(qos::MIN_SHARES..=qos::MAX_SHARES).contains(n))
    {
        // The kernel would take the nearest value without a word.
        return Err(CgroupError::Value {
            resource: "linux.resources.cpu.shares".to_owned(),
            value: shares.to_string(),
            reason: format!("it is from {} to {}", qos::MIN_SHARES, qos::MAX_SHARES),
        });
    }
    apply_weight(directory, wanted, "cpu.shares", |shares| shares)?;
    in_either_order(
        directory,
        wanted.period.map(|n| ("cpu.cfs_period_us", n.to_string())),
        wanted.quota.map(|n| ("cpu.cfs_quota_us", n.max(-1).to_string())),
        wanted.burst.map(|n| ("cpu.cfs_burst_us", n.to_string())),
    )?;
    in_either_order(
        directory,
        wanted
            .realtime_period
            .map(|n| ("cpu.rt_period_us", n.to_string())),
        wanted
            .realtime_runtime
            .map(|n| ("cpu.rt_runtime_us", n.to_string())),
        None,
    )
}

fn apply_v2(directory: &Directory, wanted: &Wanted) -> Result<()> {
    if wanted.realtime_runtime.is_some() || wanted.realtime_period.is_some() {
        return Err(CgroupError::Unsupported {
            resource: "linux.resources.cpu.realtimeRuntime".to_owned(),
            reason: "cgroup v2 has no control of realtime time by group".to_owned(),
        });
    }
    apply_weight(directory, wanted, "cpu.weight", qos::weight)?;
    let burst = wanted.burst.map(|n| ("cpu.max.burst", n.to_string()));
    in_either_order(
        directory,
        None,
        bandwidth_v2(directory, wanted)?.map(|value| ("cpu.max", value)),
        burst,
    )
}

/// The content of `cpu.max`. A period alone keeps the quota that is there.
fn bandwidth_v2(directory: &Directory, wanted: &Wanted) -> Result<Option<String>> {
    let quota = match wanted.quota {
        Some(..0) => "max".to_owned(),
        Some(quota) => quota.to_string(),
        None if wanted.period.is_some() => {
            let content = directory.read("cpu.max")?;
            content
                .split_ascii_whitespace()
                .next()
                .unwrap_or("max")
                .to_owned()
        }
        None => return Ok(None),
    };
    Ok(Some(wanted.period.map_or_else(
        || quota.clone(),
        |period| format!("{quota} {period}"),
    )))
}

/// The weight and the idle class exclude each other: the kernel refuses a weight for an idle group.
fn apply_weight(directory: &Directory, wanted: &Wanted, file: &str, convert: fn(u64) -> u64) -> Result<()> {
    if wanted.idle == Some(0) && directory.has("cpu.idle") {
        directory.write("cpu.idle", "0")?;
    }
    if let Some(shares) = wanted.shares {
        directory.write(file, &convert(shares).to_string())?;
    }
    match wanted.idle {
        None | Some(0) => Ok(()),
        Some(1) if directory.has("cpu.idle") => directory.write("cpu.idle", "1"),
        Some(1) => Err(CgroupError::Unsupported {
            resource: "linux.resources.cpu.idle".to_owned(),
            reason: "it needs Linux 5.15".to_owned(),
        }),
        Some(other) => Err(CgroupError::Value {
            resource: "linux.resources.cpu.idle".to_owned(),
            value: other.to_string(),
            reason: "it is 0 or 1".to_owned(),
        }),
    }
}

type Setting<'a> = Option<(&'a str, String)>;

/// Period, quota and burst bound each other, so that the order in which they can be written depends on the values
/// before: what is refused at first is written once more after the others.
fn in_either_order(directory: &Directory, period: Setting, quota: Setting, burst: Setting) -> Result<()> {
    let mut refused = Vec::new();
    for (file, value) in [burst, period, quota].into_iter().flatten() {
        match directory.try_write(file, &value)? {
            Ok(()) => {}
            Err(Errno::EINVAL) => refused.push((file, value)),
            Err(errno) => return Err(directory.refused(file, &value, errno)),
        }
    }
    // In reverse: a quota that had to wait for the period goes before the burst that has to wait for the quota.
    refused
        .into_iter()
        .rev()
        .try_for_each(|(file, value)| directory.write(file, &value))
}
