//! What may be mounted on `/proc` and below it. Security labels and kernel parameters are written there, and masked
//! paths lie there: an image or a volume must not put something else in their place.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, PROC_SUPER_MAGIC, StatxFlags, fstatfs, statx};

use crate::{Error, Result};

/// Files that emulations such as lxcfs cover, because the kernel's own tell about the whole machine.
const EMULATED: &[&str] = &[
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// Checks a destination by its name. `is_proc` says that a procfs is to be mounted.
pub(super) fn check_destination(destination: &Path, is_proc: bool) -> Result<()> {
    let Ok(below) = destination.strip_prefix("/proc") else {
        return Ok(());
    };
    if below.as_os_str().is_empty() {
        if is_proc {
            return Ok(());
        }
        return Err(refused(destination, "only a procfs can be mounted there"));
    }
    if EMULATED.iter().any(|name| below == Path::new(name)) {
        return Ok(());
    }
    Err(refused(destination, "it is inside /proc"))
}

/// Checks where a destination leads: `proc_mount` is the mount on `/proc`, which symbolic links may lead to as well.
pub(super) fn check_place(place: impl AsFd, destination: &Path, proc_mount: Option<u64>) -> Result<()> {
    if proc_mount.is_none() || destination.starts_with("/proc") || mount_id(place) != proc_mount {
        return Ok(());
    }
    Err(refused(destination, "it leads into /proc"))
}

fn refused(destination: &Path, reason: &str) -> Error {
    Error::invalid(format!("mounts[{}].destination", destination.display()), reason)
}

/// The mount that an open file is on; `None` on kernels that don't tell (before Linux 5.8).
pub(super) fn mount_id(fd: impl AsFd) -> Option<u64> {
    let status = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    (status.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(status.stx_mnt_id)
}

/// Whether an open file is on a procfs.
pub(super) fn is_proc(fd: impl AsFd) -> bool {
    fstatfs(fd).is_ok_and(|status| status.f_type == PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_emulated_is_covered() {
        for (path, is_proc, allowed) in [
            ("/proc", true, true),
            ("/proc", false, false),
            ("/proc/uptime", false, true),
            ("/proc/net/dev", false, true),
            ("/proc/sys/kernel/ns_last_pid", false, true),
            ("/proc/sys", false, false),
            ("/proc/sys/kernel", false, false),
            ("/proc/self/attr", false, false),
            ("/proc/uptime/x", false, false),
            ("/proc/sub", true, false),
            ("/process", false, true),
            ("/tmp/proc", false, true),
        ] {
            assert_eq!(
                check_destination(Path::new(path), is_proc).is_ok(),
                allowed,
                "{path}"
            );
        }
    }
}
