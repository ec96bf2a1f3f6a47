//! `linux.resources.memory`.

use crate::oci::LinuxMemory;
use nix::errno::Errno;

use super::file::Directory;
use super::hierarchy::Kind;
use super::{Cgroup, CgroupError, Controller, Result};

pub(super) fn apply(group: &Cgroup, spec: &LinuxMemory) -> Result<()> {
    if is_empty(spec) {
        return Ok(());
    }
    let directory = group.need(Controller::Memory, "linux.resources.memory")?;
    if spec.check_before_update == Some(true) {
        check_usage(directory, spec)?;
    }
    match directory.hierarchy.kind {
        Kind::V2 => apply_v2(directory, spec),
        Kind::V1 | Kind::V1Named => apply_v1(directory, spec),
    }
}

/// In the spec, 0 is "not set" for all amounts, as runc has it.
fn given(value: Option<i64>) -> Option<i64> {
    value.filter(|v| *v != 0)
}

fn is_empty(spec: &LinuxMemory) -> bool {
    given(spec.limit).is_none()
        && given(spec.reservation).is_none()
        && given(spec.swap).is_none()
        && given(spec.kernel).is_none()
        && given(spec.kernel_tcp).is_none()
        && swappiness(spec).is_none()
        && spec.use_hierarchy.is_none()
        && spec.disable_oom_killer.is_none()
}

/// A container engine's -1, which is the largest number here, is "not set".
fn swappiness(spec: &LinuxMemory) -> Option<u64> {
    spec.swappiness.filter(|value| *value != u64::MAX)
}

fn check_usage(directory: &Directory, spec: &LinuxMemory) -> Result<()> {
    let file = if directory.hierarchy.kind == Kind::V2 {
        "memory.current"
    } else {
        "memory.usage_in_bytes"
    };
    let usage = directory.read_number(file)?;
    match given(spec.limit) {
        Some(limit) if limit > 0 && limit.unsigned_abs() <= usage => Err(CgroupError::BelowUsage {
            path: directory.path.to_string(),
            limit,
            usage,
        }),
        _ => Ok(()),
    }
}

fn apply_v2(directory: &Directory, spec: &LinuxMemory) -> Result<()> {
    if spec.disable_oom_killer == Some(true) {
        return Err(unsupported(
            "disableOOMKiller",
            "cgroup v2 can't switch the OOM killer off",
        ));
    }
    if swappiness(spec).is_some() {
        return Err(unsupported("swappiness", "cgroup v2 has no swappiness by group"));
    }
    // No limit is what there is.
    if spec.kernel.is_some_and(|limit| limit > 0) {
        return Err(unsupported(
            "kernel",
            "cgroup v2 has no separate limit for the kernel's memory; use limit",
        ));
    }
    if spec.kernel_tcp.is_some_and(|limit| limit > 0) {
        return Err(unsupported(
            "kernelTCP",
            "cgroup v2 has no separate limit for TCP buffers; use limit",
        ));
    }
    if spec.use_hierarchy == Some(false) {
        return Err(unsupported(
            "useHierarchy",
            "cgroup v2 accounts memory by the whole tree only",
        ));
    }
    if let Some(swap) = swap_alone(spec.limit, spec.swap)? {
        write_swap_v2(directory, &amount_v2(swap))?;
    }
    if let Some(limit) = given(spec.limit) {
        directory.write("memory.max", &amount_v2(limit))?;
    }
    if let Some(reservation) = given(spec.reservation) {
        directory.write("memory.low", &amount_v2(reservation))?;
    }
    Ok(())
}

/// The spec's `swap` is memory and swap together, as v1 has it; v2 limits swap alone. -1 is no limit, `None` stays as it
/// is. Memory without a limit takes that of swap away too.
pub(super) fn swap_alone(limit: Option<i64>, swap: Option<i64>) -> Result<Option<i64>> {
    match (given(limit), given(swap)) {
        (Some(..0), None) | (_, Some(..0)) => Ok(Some(-1)),
        (_, None) => Ok(None),
        (None | Some(..0), Some(_)) => Err(unsupported(
            "swap",
            "on cgroup v2 it is limited beside memory, so a limit of memory is needed too",
        )),
        (Some(limit), Some(swap)) if swap < limit => Err(CgroupError::Value {
            resource: "linux.resources.memory.swap".to_owned(),
            value: swap.to_string(),
            reason: format!(
                "it is memory and swap together, so it can't be below the memory limit of {limit}"
            ),
        }),
        (Some(limit), Some(swap)) => Ok(Some(swap - limit)),
    }
}

/// Without swap accounting in the kernel there is no swap to limit, but none may be promised either.
fn write_swap_v2(directory: &Directory, swap: &str) -> Result<()> {
    if directory.has("memory.swap.max") {
        return directory.write("memory.swap.max", swap);
    }
    match swap {
        "0" | "max" => Ok(()),
        _ => Err(no_swap_accounting()),
    }
}

fn amount_v2(bytes: i64) -> String {
    if bytes < 0 {
        "max".to_owned()
    } else {
        bytes.to_string()
    }
}

fn apply_v1(directory: &Directory, spec: &LinuxMemory) -> Result<()> {
    if let Some(wanted) = spec.use_hierarchy {
        hierarchy_v1(directory, wanted)?;
    }
    let limit = given(spec.limit);
    // Unlimited memory needs unlimited memory and swap, or the kernel refuses it.
    let swap = given(spec.swap).or_else(|| limit.filter(|l| *l < 0));
    limit_v1(directory, limit, swap)?;
    if let Some(reservation) = given(spec.reservation) {
        directory.write("memory.soft_limit_in_bytes", &reservation.to_string())?;
    }
    if let Some(limit) = given(spec.kernel) {
        write_kernel_v1(directory, "kernel", "memory.kmem.limit_in_bytes", limit)?;
    }
    if let Some(limit) = given(spec.kernel_tcp) {
        write_kernel_v1(directory, "kernelTCP", "memory.kmem.tcp.limit_in_bytes", limit)?;
    }
    if let Some(swappiness) = swappiness(spec) {
        if swappiness > 100 {
            return Err(CgroupError::Value {
                resource: "linux.resources.memory.swappiness".to_owned(),
                value: swappiness.to_string(),
                reason: "it is from 0 to 100".to_owned(),
            });
        }
        directory.write("memory.swappiness", &swappiness.to_string())?;
    }
    if let Some(disable) = spec.disable_oom_killer {
        directory.write("memory.oom_control", if disable { "1" } else { "0" })?;
    }
    Ok(())
}

/// Groups made below this one count for it, or don't. This is about the tree and comes before everything else; kernels
/// since 5.11 know one way only.
fn hierarchy_v1(directory: &Directory, wanted: bool) -> Result<()> {
    const FILE: &str = "memory.use_hierarchy";
    let now = directory
        .read_if_present(FILE)?
        .is_none_or(|now| now.trim() == "1");
    if now == wanted {
        return Ok(());
    }
    match directory
        .has(FILE)
        .then(|| directory.try_write(FILE, if wanted { "1" } else { "0" }))
        .transpose()?
    {
        Some(Ok(())) => Ok(()),
        _ => Err(unsupported(
            "useHierarchy",
            "this kernel accounts memory by the whole tree only",
        )),
    }
}

/// Kernels take one of these limits after the other away: the file first refuses, then it takes any value and forgets it,
/// then it is gone.
fn write_kernel_v1(directory: &Directory, field: &str, file: &str, limit: i64) -> Result<()> {
    let gone = || unsupported(field, "this kernel has no such limit any more; use limit");
    if !directory.has(file) {
        // No limit is what there is.
        return if limit < 0 { Ok(()) } else { Err(gone()) };
    }
    match directory.try_write(file, &limit.to_string())? {
        Ok(()) if limit < 0 || directory.read_number(file)? <= limit.unsigned_abs() => Ok(()),
        Ok(()) => Err(gone()),
        Err(Errno::EOPNOTSUPP) if limit < 0 => Ok(()),
        Err(Errno::EOPNOTSUPP) => Err(gone()),
        Err(errno) => Err(directory.refused(file, &limit.to_string(), errno)),
    }
}

/// Memory alone must never be above memory and swap together, so the order depends on which way the two move.
fn limit_v1(directory: &Directory, limit: Option<i64>, swap: Option<i64>) -> Result<()> {
    const LIMIT: &str = "memory.limit_in_bytes";
    let mut swap = swap;
    if let Some(limit) = limit {
        let value = limit.to_string();
        match (directory.try_write(LIMIT, &value)?, swap) {
            (Ok(()), _) => {}
            (Err(Errno::EINVAL), Some(first)) => {
                write_swap_v1(directory, first)?;
                swap = None;
                directory.write(LIMIT, &value)?;
            }
            (Err(errno), _) => return Err(directory.refused(LIMIT, &value, errno)),
        }
    }
    swap.map_or(Ok(()), |swap| write_swap_v1(directory, swap))
}

fn write_swap_v1(directory: &Directory, swap: i64) -> Result<()> {
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    if directory.has(SWAP) {
        return directory.write(SWAP, &swap.to_string());
    }
    if swap < 0 {
        Ok(())
    } else {
        Err(no_swap_accounting())
    }
}

fn no_swap_accounting() -> CgroupError {
    unsupported(
        "swap",
        "this kernel does not account swap; boot it with swapaccount=1",
    )
}

fn unsupported(field: &str, reason: &str) -> CgroupError {
    CgroupError::Unsupported {
        resource: format!("linux.resources.memory.{field}"),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_of_v2_is_the_difference() {
        let cases = [
            (None, None, Ok(None)),
            (Some(0), Some(0), Ok(None)),
            (Some(100), None, Ok(None)),
            (Some(100), Some(100), Ok(Some(0))),
            (Some(100), Some(250), Ok(Some(150))),
            (Some(100), Some(-1), Ok(Some(-1))),
            (None, Some(-1), Ok(Some(-1))),
            (Some(-1), None, Ok(Some(-1))),
            (None, Some(5), Err(())),
            (Some(-1), Some(5), Err(())),
            (Some(100), Some(50), Err(())),
        ];
        for (limit, swap, expected) in cases {
            assert_eq!(
                swap_alone(limit, swap).map_err(|_| ()),
                expected,
                "{limit:?} {swap:?}"
            );
        }
    }
}
