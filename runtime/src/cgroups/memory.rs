//! `linux.resources.memory`.

use crate::oci::LinuxMemory;
use nix::errno::Errno;

use super::file::Directory;
use super::hierarchy::Kind;
use super::{Cgroup, CgroupError, Controller, Result};

pub(super) fn apply(group: &Cgroup, spec: &LinuxMemory) -> Result<()> {
    refuse_obsolete(spec)?;
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
        && given(spec.kernel_tcp).is_none()
        && spec.swappiness.is_none()
        && spec.disable_oom_killer != Some(true)
}

fn refuse_obsolete(spec: &LinuxMemory) -> Result<()> {
    let kernel = spec.kernel;
    if given(kernel).is_some_and(|limit| limit > 0) {
        return Err(unsupported(
            "kernel",
            "Linux has had no separate limit for kernel memory since 5.4; use limit",
        ));
    }
    if spec.use_hierarchy == Some(false) {
        return Err(unsupported(
            "useHierarchy",
            "the kernel accounts memory by the whole tree only",
        ));
    }
    Ok(())
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
    if spec.swappiness.is_some() {
        return Err(unsupported("swappiness", "cgroup v2 has no swappiness by group"));
    }
    if given(spec.kernel_tcp).is_some() {
        return Err(unsupported(
            "kernelTCP",
            "cgroup v2 has no separate limit for TCP buffers",
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
    let limit = given(spec.limit);
    // Unlimited memory needs unlimited memory and swap, or the kernel refuses it.
    let swap = given(spec.swap).or_else(|| limit.filter(|l| *l < 0));
    limit_v1(directory, limit, swap)?;
    if let Some(reservation) = given(spec.reservation) {
        directory.write("memory.soft_limit_in_bytes", &reservation.to_string())?;
    }
    if let Some(limit) = given(spec.kernel_tcp) {
        directory.write("memory.kmem.tcp.limit_in_bytes", &limit.to_string())?;
    }
    if let Some(swappiness) = spec.swappiness {
        directory.write("memory.swappiness", &swappiness.to_string())?;
    }
    if spec.disable_oom_killer == Some(true) {
        directory.write("memory.oom_control", "1")?;
    }
    Ok(())
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
