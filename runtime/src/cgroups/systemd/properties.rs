//! A scope's properties from `linux.resources`, by the names of systemd.resource-control(5).
//!
//! Only what systemd would otherwise set itself is told to it. Files that it doesn't know are ours alone.

use std::borrow::Cow;

use nix::unistd::Pid;

use super::super::{CgroupError, Hierarchies, Result, memory, qos};
use super::manager::{Manager, Property, pids};
use super::{Scope, devices};
use crate::dbus::Value;
use crate::oci::{LinuxCpu, LinuxMemory, LinuxResources};

/// `infinity`: no limit.
const INFINITY: u64 = u64::MAX;
const SECOND_US: u64 = 1_000_000;
/// systemd keeps quotas as whole percents of a processor.
const PERCENT_US: u64 = SECOND_US / 100;

/// The versions of systemd in which properties came.
const HAS_QUOTA_PERIOD: u32 = 242;
const HAS_CPUSET: u32 = 244;
const HAS_IDLE: u32 = 252;
const HAS_OOM_POLICY: u32 = 253;

/// What every scope has. Accounting is switched on as a whole, because processes that are there already are not charged
/// afterwards.
pub(super) fn of_scope(scope: &Scope, first: Pid) -> Vec<Property> {
    let unified = Hierarchies::get().is_ok_and(Hierarchies::is_unified);
    let io = if unified {
        "IOAccounting"
    } else {
        "BlockIOAccounting"
    };
    let text = |name: &str, text: &str| (name.to_owned(), Value::Text(text.to_owned()));
    let flag = |name: &str, value| (name.to_owned(), Value::Bool(value));
    vec![
        text(
            "Description",
            &format!("OCI container {}", scope.unit.trim_end_matches(".scope")),
        ),
        text("Slice", &scope.slice),
        ("PIDs".to_owned(), pids(first)),
        flag("Delegate", true),
        flag("MemoryAccounting", true),
        flag("CPUAccounting", true),
        flag(io, true),
        flag("TasksAccounting", true),
        flag("DefaultDependencies", false),
    ]
}

/// What can't be changed later.
pub(super) fn of_creation(resources: &LinuxResources, manager: &mut Manager<'_>) -> Result<Vec<Property>> {
    let policy = match resources
        .unified
        .get("memory.oom.group")
        .map(|value| value.trim())
    {
        Some("0") => "continue",
        Some("1") => "kill",
        _ => return Ok(Vec::new()),
    };
    if manager.version()? < HAS_OOM_POLICY {
        return Ok(Vec::new());
    }
    Ok(vec![("OOMPolicy".to_owned(), Value::Text(policy.to_owned()))])
}

pub(super) fn of_resources(resources: &LinuxResources, manager: &mut Manager<'_>) -> Result<Vec<Property>> {
    let unified = Hierarchies::get()?.is_unified();
    let mut list = Properties {
        list: devices::properties(&resources.devices)?,
        version: &mut || manager.version(),
    };
    if let Some(memory) = &resources.memory {
        list.memory(memory, unified)?;
    }
    if let Some(cpu) = &resources.cpu {
        list.cpu(cpu, unified)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        list.number("TasksMax", tasks(limit));
    }
    let weight = resources.block_io.as_ref().and_then(|block_io| block_io.weight);
    if let Some(weight) = weight.filter(|weight| *weight != 0 && !unified) {
        list.number("BlockIOWeight", u64::from(weight));
    }
    if unified {
        for (file, value) in &resources.unified {
            list.file(file, value.trim())?;
        }
    }
    Ok(list.list)
}

/// The limits as systemd will set them a moment after it was told: a quota in whole percents. What is written to the
/// files must be the same, or the last writer would win.
pub(super) fn rounded(resources: &LinuxResources) -> Cow<'_, LinuxResources> {
    let cpu = resources.cpu.as_ref();
    let quota = cpu.and_then(|cpu| Some((cpu.quota.filter(|quota| *quota > 0)?.unsigned_abs(), period(cpu))));
    let Some((quota, period)) = quota else {
        return Cow::Borrowed(resources);
    };
    let whole = u128::from(per_second(quota, period)) * u128::from(period) / u128::from(SECOND_US);
    let mut resources = resources.clone();
    if let Some(cpu) = resources.cpu.as_mut() {
        cpu.quota = i64::try_from(whole).ok();
    }
    Cow::Owned(resources)
}

fn period(cpu: &LinuxCpu) -> u64 {
    cpu.period
        .filter(|period| *period != 0)
        .unwrap_or(qos::DEFAULT_PERIOD_US)
}

/// Microseconds of processor time a second, rounded up to a percent.
fn per_second(quota: u64, period: u64) -> u64 {
    let exact = u128::from(quota) * u128::from(SECOND_US) / u128::from(period.max(1));
    u64::try_from(exact.next_multiple_of(u128::from(PERCENT_US))).unwrap_or(INFINITY)
}

/// systemd takes no 0; the kernel's 0 and 1 differ only for who is not in the group yet.
fn tasks(limit: i64) -> u64 {
    match limit {
        ..0 => INFINITY,
        limit => limit.max(1).unsigned_abs(),
    }
}

struct Properties<'a> {
    list: Vec<Property>,
    version: &'a mut dyn FnMut() -> Result<u32>,
}

impl Properties<'_> {
    fn number(&mut self, name: &str, value: u64) {
        self.list.push((name.to_owned(), Value::U64(value)));
    }

    fn amount(&mut self, name: &str, bytes: Option<i64>) {
        if let Some(bytes) = bytes.filter(|bytes| *bytes != 0) {
            self.number(name, u64::try_from(bytes).unwrap_or(INFINITY));
        }
    }

    fn memory(&mut self, spec: &LinuxMemory, unified: bool) -> Result<()> {
        if !unified {
            self.amount("MemoryLimit", spec.limit);
            return Ok(());
        }
        self.amount("MemoryMax", spec.limit);
        self.amount("MemoryLow", spec.reservation);
        if let Some(swap) = memory::swap_alone(spec.limit, spec.swap)? {
            self.number("MemorySwapMax", u64::try_from(swap).unwrap_or(INFINITY));
        }
        Ok(())
    }

    fn cpu(&mut self, spec: &LinuxCpu, unified: bool) -> Result<()> {
        let idle = spec.idle == Some(1) && (self.version)()? >= HAS_IDLE;
        match (unified, spec.shares.filter(|shares| *shares != 0)) {
            // For systemd the idle class is the weight 0.
            (true, _) if idle => self.number("CPUWeight", 0),
            (true, Some(shares)) => self.number("CPUWeight", qos::weight(shares)),
            (false, Some(shares)) => self.number("CPUShares", shares),
            (_, None) => {}
        }
        let quota = spec.quota.filter(|quota| *quota != 0);
        let given_period = spec.period.filter(|period| *period != 0);
        // A period alone keeps the quota, which systemd can't say.
        if let Some(quota) = quota {
            self.quota(u64::try_from(quota).ok(), period(spec), given_period.is_some())?;
        }
        self.cpuset("AllowedCPUs", &spec.cpus)?;
        self.cpuset("AllowedMemoryNodes", &spec.mems)
    }

    /// No quota is no limit.
    fn quota(&mut self, quota: Option<u64>, period: u64, tell_period: bool) -> Result<()> {
        if tell_period && (self.version)()? >= HAS_QUOTA_PERIOD {
            self.number("CPUQuotaPeriodUSec", period);
        }
        let share = quota.map_or(INFINITY, |quota| per_second(quota, period));
        self.number("CPUQuotaPerSecUSec", share);
        Ok(())
    }

    fn cpuset(&mut self, name: &str, list: &str) -> Result<()> {
        if !list.is_empty() && (self.version)()? >= HAS_CPUSET {
            let bits = bits(list).ok_or_else(|| invalid(name, list, "it is a list as in 0-2,7"))?;
            self.list.push((name.to_owned(), Value::bytes(&bits)));
        }
        Ok(())
    }

    /// A file of `linux.resources.unified`, if it is a property too.
    fn file(&mut self, file: &str, value: &str) -> Result<()> {
        let number = |value: &str| value.parse().map_err(|_| invalid(file, value, "it is a number"));
        let limit = || {
            if value == "max" {
                Ok(INFINITY)
            } else {
                number(value)
            }
        };
        match file {
            "cpu.weight" => self.number("CPUWeight", number(value)?),
            "cpu.idle" if value == "1" && (self.version)()? >= HAS_IDLE => self.number("CPUWeight", 0),
            "cpu.max" => {
                let (quota, period) = value.split_once(' ').unwrap_or((value, ""));
                let quota = (quota != "max").then(|| number(quota)).transpose()?;
                let period = Some(period.trim()).filter(|period| !period.is_empty());
                let microseconds = period.map_or(Ok(qos::DEFAULT_PERIOD_US), number)?;
                self.quota(quota, microseconds, period.is_some())?;
            }
            "cpuset.cpus" => self.cpuset("AllowedCPUs", value)?,
            "cpuset.mems" => self.cpuset("AllowedMemoryNodes", value)?,
            "memory.min" => self.number("MemoryMin", limit()?),
            "memory.low" => self.number("MemoryLow", limit()?),
            "memory.high" => self.number("MemoryHigh", limit()?),
            "memory.max" => self.number("MemoryMax", limit()?),
            "memory.swap.max" => self.number("MemorySwapMax", limit()?),
            "pids.max" => self.number("TasksMax", limit()?.max(1)),
            _ => {}
        }
        Ok(())
    }
}

/// The kernel's list format as bits: the first byte has the processors 0 to 7.
fn bits(list: &str) -> Option<Vec<u8>> {
    // More than any kernel is built for.
    const MOST: usize = 1 << 16;
    let mut bytes = Vec::new();
    for part in list
        .trim()
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        for bit in first..=last {
            bytes.resize(bytes.len().max(bit / 8 + 1), 0);
            bytes[bit / 8] |= 1 << (bit % 8);
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

fn invalid(resource: &str, value: &str, reason: &str) -> CgroupError {
    CgroupError::Value {
        resource: resource.to_owned(),
        value: value.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bits() {
        assert_eq!(bits("0"), Some(vec![1]));
        assert_eq!(bits("0-2,8\n"), Some(vec![7, 1]));
        assert_eq!(bits("4-7, 15"), Some(vec![0xf0, 0x80]));
        for bad in ["", ",", "a", "3-1", "0-99999999999", "-1", "1-"] {
            assert_eq!(bits(bad), None, "{bad}");
        }
    }

    #[test]
    fn quotas_are_whole_percents() {
        for (quota, period, expected) in [
            (50_000, 100_000, 500_000),
            (12_345, 100_000, 130_000),
            (1, 1_000_000, 10_000),
            (3, 0, 3_000_000),
        ] {
            assert_eq!(per_second(quota, period), expected, "{quota}/{period}");
        }
        let with = |quota, period| LinuxResources {
            cpu: Some(LinuxCpu {
                quota: Some(quota),
                period,
                ..LinuxCpu::default()
            }),
            ..LinuxResources::default()
        };
        let quota = |resources: LinuxResources| rounded(&resources).cpu.as_ref().and_then(|cpu| cpu.quota);
        assert_eq!(quota(with(12_345, None)), Some(13_000));
        assert_eq!(quota(with(50_000, Some(50_000))), Some(50_000));
        assert_eq!(quota(with(-1, None)), Some(-1));
    }

    fn named(version: u32, fill: impl FnOnce(&mut Properties<'_>) -> Result<()>) -> Vec<(String, Value)> {
        let mut properties = Properties {
            list: Vec::new(),
            version: &mut || Ok(version),
        };
        fill(&mut properties).unwrap();
        properties.list
    }

    #[test]
    fn what_a_version_lacks_is_not_told() {
        let cpu = LinuxCpu {
            shares: Some(1024),
            quota: Some(20_000),
            period: Some(10_000),
            idle: Some(1),
            cpus: "0-1".to_owned(),
            ..LinuxCpu::default()
        };
        let names = |version, unified| {
            let list = named(version, |p| p.cpu(&cpu, unified));
            list.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(
            names(252, true),
            [
                "CPUWeight",
                "CPUQuotaPeriodUSec",
                "CPUQuotaPerSecUSec",
                "AllowedCPUs"
            ]
        );
        assert_eq!(names(241, false), ["CPUShares", "CPUQuotaPerSecUSec"]);
        assert_eq!(named(252, |p| p.cpu(&cpu, true))[0].1, Value::U64(0));
        assert_eq!(
            named(251, |p| p.cpu(&cpu, true))[0].1,
            Value::U64(qos::weight(1024))
        );
    }

    #[test]
    fn memory_and_files() {
        let memory = LinuxMemory {
            limit: Some(100),
            swap: Some(150),
            reservation: Some(-1),
            ..LinuxMemory::default()
        };
        let pair = |name: &str, value| (name.to_owned(), Value::U64(value));
        assert_eq!(
            named(252, |p| p.memory(&memory, true)),
            [
                pair("MemoryMax", 100),
                pair("MemoryLow", INFINITY),
                pair("MemorySwapMax", 50)
            ]
        );
        assert_eq!(
            named(252, |p| p.memory(&memory, false)),
            [pair("MemoryLimit", 100)]
        );
        for (file, value, expected) in [
            ("memory.high", "max", vec![pair("MemoryHigh", INFINITY)]),
            ("pids.max", "0", vec![pair("TasksMax", 1)]),
            ("cpu.max", "max", vec![pair("CPUQuotaPerSecUSec", INFINITY)]),
            (
                "cpu.max",
                "20000 10000",
                vec![
                    pair("CPUQuotaPeriodUSec", 10_000),
                    pair("CPUQuotaPerSecUSec", 2 * SECOND_US),
                ],
            ),
            ("hugetlb.2MB.max", "1", vec![]),
        ] {
            assert_eq!(named(252, |p| p.file(file, value)), expected, "{file}");
        }
    }
}
