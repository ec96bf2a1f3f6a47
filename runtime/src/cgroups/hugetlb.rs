//! `linux.resources.hugepageLimits`.

use crate::oci::LinuxHugepageLimit;

use super::hierarchy::Kind;
use super::{Cgroup, CgroupError, Controller, Result, create};

const FIELD: &str = "linux.resources.hugepageLimits";

pub(super) fn apply(group: &Cgroup, limits: &[LinuxHugepageLimit]) -> Result<()> {
    if limits.is_empty() {
        return Ok(());
    }
    let directory = group.need(Controller::HugeTlb, FIELD)?;
    let v2 = directory.hierarchy.kind == Kind::V2;
    if v2 {
        // On hybrid hosts this is the one controller that the unified hierarchy may have: enabled when asked for.
        create::enable(directory, &[Controller::HugeTlb])?;
    }
    for limit in limits {
        let size = page_size(&limit.page_size)?;
        let (usage, reserved) = if v2 {
            ("max", "rsvd.max")
        } else {
            ("limit_in_bytes", "rsvd.limit_in_bytes")
        };
        let value = limit.limit.to_string();
        let file = format!("hugetlb.{size}.{usage}");
        if !directory.has(&file) {
            return Err(CgroupError::Value {
                resource: format!("{FIELD}.pageSize"),
                value: size.to_owned(),
                reason: "this kernel has no huge pages of that size".to_owned(),
            });
        }
        directory.write(&file, &value)?;
        // The limit of reservations stops a process at mmap, where the other one kills it at its first touch.
        let file = format!("hugetlb.{size}.{reserved}");
        if directory.has(&file) {
            directory.write(&file, &value)?;
        }
    }
    Ok(())
}

/// Sizes are written as the kernel's file names have them: `64KB`, `2MB`, `1GB`.
fn page_size(size: &str) -> Result<&str> {
    let digits = size
        .strip_suffix("KB")
        .or_else(|| size.strip_suffix("MB"))
        .or_else(|| size.strip_suffix("GB"));
    match digits {
        Some(number) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => Ok(size),
        _ => Err(CgroupError::Value {
            resource: format!("{FIELD}.pageSize"),
            value: size.to_owned(),
            reason: "it is a number and KB, MB or GB, as in 2MB".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes() {
        for good in ["64KB", "2MB", "1GB"] {
            assert!(page_size(good).is_ok());
        }
        for bad in ["", "MB", "2", "2mb", "../2MB", "2MB/", "2 MB"] {
            assert!(page_size(bad).is_err(), "{bad}");
        }
    }
}
