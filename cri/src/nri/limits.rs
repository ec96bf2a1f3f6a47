//! Limits as plugins and as the engine know them.

use super::NriError;
use super::api::{self, Field, LinuxCpu, LinuxMemory, LinuxResources};
use super::owners::Owners;
use crate::types::LinuxContainerResources;

/// `plugin` sets those limits of a container that are there.
pub(super) fn claim(
    owners: &mut Owners,
    resources: &LinuxResources,
    id: &str,
    plugin: &str,
) -> Result<(), NriError> {
    let memory = resources.memory.unwrap_or_default();
    let cpu = resources.cpu.clone().unwrap_or_default();
    let set = [
        (memory.limit.is_some(), Field::MemLimit),
        (memory.reservation.is_some(), Field::MemReservation),
        (memory.swap.is_some(), Field::MemSwapLimit),
        (memory.kernel.is_some(), Field::MemKernelLimit),
        (memory.kernel_tcp.is_some(), Field::MemTcpLimit),
        (memory.swappiness.is_some(), Field::MemSwappiness),
        (memory.disable_oom_killer.is_some(), Field::MemDisableOomKiller),
        (memory.use_hierarchy.is_some(), Field::MemUseHierarchy),
        (cpu.shares.is_some(), Field::CpuShares),
        (cpu.quota.is_some(), Field::CpuQuota),
        (cpu.period.is_some(), Field::CpuPeriod),
        (cpu.realtime_runtime.is_some(), Field::CpuRealtimeRuntime),
        (cpu.realtime_period.is_some(), Field::CpuRealtimePeriod),
        (!cpu.cpus.is_empty(), Field::CpuSetCpUs),
        (!cpu.mems.is_empty(), Field::CpuSetMems),
        (resources.pids.is_some(), Field::PidsLimit),
        (resources.blockio_class.is_some(), Field::BlockioClass),
        (resources.rdt_class.is_some(), Field::RdtClass),
    ];
    for (is_set, field) in set {
        if is_set {
            owners.claim(id, field, plugin)?;
        }
    }
    for limit in &resources.hugepage_limits {
        owners.claim_entry(id, Field::HugepageLimits, &limit.page_size, plugin)?;
    }
    for name in resources.unified.keys() {
        owners.claim_entry(id, Field::CgroupsUnified, name, plugin)?;
    }
    Ok(())
}

/// Puts those limits of `from` that are there into `to`.
pub(super) fn merge(from: &LinuxResources, to: &mut LinuxResources) {
    macro_rules! take {
        ($from:expr, $to:expr, $($field:ident)*) => {
            $(if $from.$field.is_some() { $to.$field.clone_from(&$from.$field); })*
        };
    }
    if let Some(memory) = &from.memory {
        let to = to.memory.get_or_insert_default();
        take!(memory, to, limit reservation swap kernel kernel_tcp swappiness disable_oom_killer use_hierarchy);
    }
    if let Some(cpu) = &from.cpu {
        let to = to.cpu.get_or_insert_default();
        take!(cpu, to, shares quota period realtime_runtime realtime_period);
        for (from, to) in [(&cpu.cpus, &mut to.cpus), (&cpu.mems, &mut to.mems)] {
            if !from.is_empty() {
                to.clone_from(from);
            }
        }
    }
    take!(from, to, pids blockio_class rdt_class);
    for limit in &from.hugepage_limits {
        to.hugepage_limits
            .retain(|known| known.page_size != limit.page_size);
        to.hugepage_limits.push(limit.clone());
    }
    to.unified.extend(from.unified.clone());
    to.devices.extend(from.devices.clone());
}

/// The engine's limits as a plugin sees them.
pub(super) fn shown(limits: &LinuxContainerResources) -> LinuxResources {
    LinuxResources {
        memory: Some(LinuxMemory {
            limit: limits.memory_limit.map(|value| api::OptionalInt64 { value }),
            swap: limits.memory_swap_limit.map(|value| api::OptionalInt64 { value }),
            ..Default::default()
        }),
        cpu: Some(LinuxCpu {
            shares: limits.cpu_shares.map(|value| api::OptionalUInt64 { value }),
            quota: limits.cpu_quota.map(|value| api::OptionalInt64 { value }),
            period: limits.cpu_period.map(|value| api::OptionalUInt64 { value }),
            cpus: limits.cpuset_cpus.clone().unwrap_or_default(),
            mems: limits.cpuset_mems.clone().unwrap_or_default(),
            ..Default::default()
        }),
        hugepage_limits: limits
            .hugepage_limits
            .iter()
            .map(|(size, limit)| api::HugepageLimit {
                page_size: size.clone(),
                limit: *limit,
            })
            .collect(),
        unified: limits.unified.clone(),
        pids: limits.pids_limit.map(|limit| api::LinuxPids { limit }),
        ..Default::default()
    }
}

/// Puts a plugin's limits into the engine's.
///
/// # Errors
/// One of them is none that a container has here once it was made.
pub(crate) fn changed(
    wanted: &LinuxResources,
    limits: &LinuxContainerResources,
) -> Result<LinuxContainerResources, NriError> {
    let memory = wanted.memory.unwrap_or_default();
    let cpu = wanted.cpu.clone().unwrap_or_default();
    let fixed = [
        ("memory.reservation", memory.reservation.is_some()),
        ("memory.kernel", memory.kernel.is_some()),
        ("memory.kernel_tcp", memory.kernel_tcp.is_some()),
        ("memory.swappiness", memory.swappiness.is_some()),
        ("memory.disable_oom_killer", memory.disable_oom_killer.is_some()),
        ("memory.use_hierarchy", memory.use_hierarchy.is_some()),
        ("cpu.realtime_runtime", cpu.realtime_runtime.is_some()),
        ("cpu.realtime_period", cpu.realtime_period.is_some()),
        ("blockio_class", wanted.blockio_class.is_some()),
        ("rdt_class", wanted.rdt_class.is_some()),
        ("devices", !wanted.devices.is_empty()),
    ];
    if let Some((name, _)) = fixed.iter().find(|(_, is_set)| *is_set) {
        return Err(NriError::impossible(
            format!("a change of {name}"),
            "a container keeps what it was made with",
        ));
    }
    let mut limits = limits.clone();
    overlay(wanted, &mut limits);
    Ok(limits)
}

/// Puts those of a plugin's limits that the engine knows into the engine's.
pub(crate) fn overlay(wanted: &LinuxResources, limits: &mut LinuxContainerResources) {
    if let Some(memory) = &wanted.memory {
        if let Some(limit) = &memory.limit {
            limits.memory_limit = Some(limit.value);
            // A limit of memory and swap together can't be below that of memory.
            let together = limits.memory_swap_limit.filter(|swap| *swap > 0);
            limits.memory_swap_limit = together
                .map(|swap| swap.max(limit.value))
                .or(limits.memory_swap_limit);
        }
        if let Some(swap) = &memory.swap {
            limits.memory_swap_limit = Some(swap.value);
        }
    }
    if let Some(cpu) = &wanted.cpu {
        let signed = |value: &Option<api::OptionalInt64>| value.as_ref().map(|value| value.value);
        let unsigned = |value: &Option<api::OptionalUInt64>| value.as_ref().map(|value| value.value);
        let list = |list: &String| (!list.is_empty()).then(|| list.clone());
        limits.cpu_shares = unsigned(&cpu.shares).or(limits.cpu_shares);
        limits.cpu_quota = signed(&cpu.quota).or(limits.cpu_quota);
        limits.cpu_period = unsigned(&cpu.period).or(limits.cpu_period);
        limits.cpuset_cpus = list(&cpu.cpus).or_else(|| limits.cpuset_cpus.take());
        limits.cpuset_mems = list(&cpu.mems).or_else(|| limits.cpuset_mems.take());
    }
    if let Some(pids) = &wanted.pids {
        limits.pids_limit = Some(pids.limit);
    }
    for limit in &wanted.hugepage_limits {
        limits
            .hugepage_limits
            .insert(limit.page_size.clone(), limit.limit);
    }
    limits.unified.extend(wanted.unified.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_put_back() {
        let limits = LinuxContainerResources {
            cpu_shares: Some(102),
            cpu_quota: Some(-1),
            cpu_period: Some(100_000),
            memory_limit: Some(1 << 30),
            memory_swap_limit: Some(1 << 31),
            cpuset_cpus: Some("0-1".into()),
            pids_limit: Some(9),
            hugepage_limits: [("2MB".to_owned(), 4)].into(),
            unified: [("memory.high".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        };
        let back = changed(&shown(&limits), &LinuxContainerResources::default()).unwrap();
        assert_eq!(back, limits);
    }

    #[test]
    fn what_cannot_be_changed_is_refused_by_name() {
        let wanted = LinuxResources {
            rdt_class: Some(api::OptionalString { value: "gold".into() }),
            ..Default::default()
        };
        let error = changed(&wanted, &LinuxContainerResources::default()).unwrap_err();
        assert!(error.to_string().contains("rdt_class"), "{error}");
    }
}
