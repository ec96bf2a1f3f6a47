//! Block devices: `blkio` of v1, `io.stat` of v2 in v1's layout.

use serde::Serialize;

use super::super::file::Directory;
use super::super::hierarchy::Kind;
use super::super::{Cgroup, Controller, Result};
use super::pressure::{self, Pressure};

/// Counters of block devices; each list has an entry for each device and direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // names of the kernel's files
pub struct BlockIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<DeviceCounter>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<DeviceCounter>,
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<DeviceCounter>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<DeviceCounter>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<DeviceCounter>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<DeviceCounter>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<DeviceCounter>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<DeviceCounter>,
    /// Waits for devices.
    #[serde(rename = "psi", skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// A counter of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceCounter {
    /// Major number.
    #[serde(skip_serializing_if = "super::is_default")]
    pub major: u64,
    /// Minor number.
    #[serde(skip_serializing_if = "super::is_default")]
    pub minor: u64,
    /// `Read`, `Write`, …; empty for counters that have no directions.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The count.
    #[serde(skip_serializing_if = "super::is_default")]
    pub value: u64,
}

pub(super) fn read(group: &Cgroup) -> Result<BlockIo> {
    let mut all = match group.directory(Controller::BlockIo) {
        Some(directory) if directory.hierarchy.kind == Kind::V2 => {
            parse_v2(&directory.read_if_present("io.stat")?.unwrap_or_default())
        }
        Some(directory) => read_v1(directory)?,
        None => BlockIo::default(),
    };
    all.pressure = pressure::read(group, "io.pressure")?;
    Ok(all)
}

/// The counters of the scheduler that has any: BFQ's, those of schedulers before Linux 5.0, or those of throttling,
/// which are always there.
fn read_v1(directory: &Directory) -> Result<BlockIo> {
    for (prefix, suffix) in [
        ("blkio.bfq.", "_recursive"),
        ("blkio.", "_recursive"),
        ("blkio.throttle.", "_recursive"),
        ("blkio.throttle.", ""),
    ] {
        let list = |name: &str| {
            let text = directory.read_if_present(&format!("{prefix}{name}{suffix}"))?;
            Ok(parse_v1(&text.unwrap_or_default()))
        };
        let all = BlockIo {
            io_service_bytes_recursive: list("io_service_bytes")?,
            io_serviced_recursive: list("io_serviced")?,
            io_queued_recursive: list("io_queued")?,
            io_service_time_recursive: list("io_service_time")?,
            io_wait_time_recursive: list("io_wait_time")?,
            io_merged_recursive: list("io_merged")?,
            io_time_recursive: list("time")?,
            sectors_recursive: list("sectors")?,
            pressure: None,
        };
        if all != BlockIo::default() {
            return Ok(all);
        }
    }
    Ok(BlockIo::default())
}

/// Lines of `major:minor [operation] value`; the one with the sum over all devices has no numbers.
fn parse_v1(text: &str) -> Vec<DeviceCounter> {
    let counter = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (major, minor) = numbers(fields.next()?)?;
        let second = fields.next()?;
        let (op, value) = fields.next().map_or(("", second), |third| (second, third));
        Some(DeviceCounter {
            major,
            minor,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(counter).collect()
}

fn parse_v2(text: &str) -> BlockIo {
    let mut all = BlockIo::default();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let Some((major, minor)) = fields.next().and_then(numbers) else {
            continue;
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut all.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut all.io_service_bytes_recursive, "Write"),
                "rios" => (&mut all.io_serviced_recursive, "Read"),
                "wios" => (&mut all.io_serviced_recursive, "Write"),
                _ => continue,
            };
            list.push(DeviceCounter {
                major,
                minor,
                op: op.to_owned(),
                value: value.parse().unwrap_or_default(),
            });
        }
    }
    all
}

fn numbers(device: &str) -> Option<(u64, u64)> {
    let (major, minor) = device.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(major: u64, minor: u64, op: &str, value: u64) -> DeviceCounter {
        DeviceCounter {
            major,
            minor,
            op: op.to_owned(),
            value,
        }
    }

    #[test]
    fn both_versions() {
        let v1 = "8:0 Read 10\n8:0 Write 20\nTotal 30\n";
        assert_eq!(
            parse_v1(v1),
            [counter(8, 0, "Read", 10), counter(8, 0, "Write", 20)]
        );
        assert_eq!(parse_v1("254:1 7\n"), [counter(254, 1, "", 7)]);
        let v2 = parse_v2("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n254:0 \n");
        assert_eq!(
            v2.io_service_bytes_recursive,
            [counter(8, 16, "Read", 1), counter(8, 16, "Write", 2)]
        );
        assert_eq!(
            v2.io_serviced_recursive,
            [counter(8, 16, "Read", 3), counter(8, 16, "Write", 4)]
        );
    }
}
