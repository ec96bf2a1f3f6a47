//! `linux.resources.blockIO`.

use crate::oci::{LinuxBlockIo, LinuxThrottleDevice};

use super::file::Directory;
use super::hierarchy::Kind;
use super::{Cgroup, CgroupError, Controller, Result};

pub(super) fn apply(group: &Cgroup, spec: &LinuxBlockIo) -> Result<()> {
    let weight_devices = &spec.weight_device;
    let throttles = throttles(spec);
    let given = |weight: Option<u16>| weight.filter(|w| *w != 0);
    let (weight, leaf_weight) = (given(spec.weight), given(spec.leaf_weight));
    if weight.is_none() && leaf_weight.is_none() && weight_devices.is_empty() && throttles.is_empty() {
        return Ok(());
    }
    let directory = group.need(Controller::BlockIo, "linux.resources.blockIO")?;
    if let Some(weight) = weight {
        apply_weight(directory, "", weight)?;
    }
    if let Some(weight) = leaf_weight {
        apply_leaf_weight(directory, "", weight)?;
    }
    for device in weight_devices {
        let numbers = format!("{}:{} ", device.major, device.minor);
        if let Some(weight) = given(device.weight) {
            apply_weight(directory, &numbers, weight)?;
        }
        if let Some(weight) = given(device.leaf_weight) {
            apply_leaf_weight(directory, &numbers, weight)?;
        }
    }
    for throttle in throttles {
        throttle.apply(directory)?;
    }
    Ok(())
}

/// The weight's file depends on the host's scheduler: BFQ's where it is in use, else the cost model's (v2 only).
/// `device` is empty, or a device's numbers and a space.
fn apply_weight(directory: &Directory, device: &str, weight: u16) -> Result<()> {
    check_range("weight", weight)?;
    let v2 = directory.hierarchy.kind == Kind::V2;
    let files = match (v2, device.is_empty()) {
        (true, _) => &["io.bfq.weight"][..],
        (false, true) => &["blkio.weight", "blkio.bfq.weight"],
        (false, false) => &["blkio.weight_device", "blkio.bfq.weight_device"],
    };
    if let Some(file) = files.iter().find(|file| directory.has(file)) {
        return directory.write(file, &format!("{device}{weight}"));
    }
    if v2 && directory.has("io.weight") {
        return directory.write("io.weight", &format!("{device}{}", cost_weight(weight)));
    }
    Err(unsupported(
        "weight",
        "no I/O scheduler of this host takes weights; switch the disk to bfq",
    ))
}

/// The share of a group's own processes against those of groups below it, which the schedulers before Linux 5.0 knew.
fn apply_leaf_weight(directory: &Directory, device: &str, weight: u16) -> Result<()> {
    check_range("leafWeight", weight)?;
    let file = if device.is_empty() {
        "blkio.leaf_weight"
    } else {
        "blkio.leaf_weight_device"
    };
    if directory.hierarchy.kind == Kind::V2 || !directory.has(file) {
        return Err(unsupported(
            "leafWeight",
            "the CFQ scheduler that it is for is gone since Linux 5.0",
        ));
    }
    directory.write(file, &format!("{device}{weight}"))
}

fn check_range(field: &str, weight: u16) -> Result<()> {
    if (10..=1000).contains(&weight) {
        return Ok(());
    }
    Err(CgroupError::Value {
        resource: format!("linux.resources.blockIO.{field}"),
        value: weight.to_string(),
        reason: "it is from 10 to 1000".to_owned(),
    })
}

/// The spec's 10…1000 as `io.weight`'s 1…10000.
fn cost_weight(weight: u16) -> u32 {
    1 + (u32::from(weight) - 10) * 9999 / 990
}

/// One limit of one device, by the names that both versions have for it.
struct Throttle<'a> {
    device: &'a LinuxThrottleDevice,
    v1_file: &'static str,
    v2_key: &'static str,
}

impl Throttle<'_> {
    fn apply(&self, directory: &Directory) -> Result<()> {
        let (major, minor, rate) = (self.device.major, self.device.minor, self.device.rate);
        match (directory.hierarchy.kind == Kind::V2, rate) {
            (false, rate) => directory.write(self.v1_file, &format!("{major}:{minor} {rate}")),
            // 0 takes a limit away on v1, and is refused on v2.
            (true, 0) => directory.write("io.max", &format!("{major}:{minor} {}=max", self.v2_key)),
            (true, rate) => directory.write("io.max", &format!("{major}:{minor} {}={rate}", self.v2_key)),
        }
    }
}

fn throttles(spec: &LinuxBlockIo) -> Vec<Throttle<'_>> {
    let kinds = [
        (
            &spec.throttle_read_bps_device,
            "blkio.throttle.read_bps_device",
            "rbps",
        ),
        (
            &spec.throttle_write_bps_device,
            "blkio.throttle.write_bps_device",
            "wbps",
        ),
        (
            &spec.throttle_read_iops_device,
            "blkio.throttle.read_iops_device",
            "riops",
        ),
        (
            &spec.throttle_write_iops_device,
            "blkio.throttle.write_iops_device",
            "wiops",
        ),
    ];
    let mut all = Vec::new();
    for (devices, v1_file, v2_key) in kinds {
        all.extend(devices.iter().map(|device| Throttle {
            device,
            v1_file,
            v2_key,
        }));
    }
    all
}

fn unsupported(field: &str, reason: &str) -> CgroupError {
    CgroupError::Unsupported {
        resource: format!("linux.resources.blockIO.{field}"),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_span_both_ranges() {
        assert_eq!(
            (cost_weight(10), cost_weight(100), cost_weight(1000)),
            (1, 910, 10_000)
        );
    }
}
