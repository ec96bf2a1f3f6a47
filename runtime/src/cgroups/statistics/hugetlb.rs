//! Huge pages of a group.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::file::{Directory, keyed_number};
use super::super::hierarchy::Kind;
use super::super::{Cgroup, Controller, Result};

/// Huge pages of one size, in bytes. Reservations are counted where the kernel counts them (Linux 5.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HugePages {
    /// Now.
    #[serde(skip_serializing_if = "super::is_default")]
    pub usage: u64,
    /// The most so far (v1).
    #[serde(skip_serializing_if = "super::is_default")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

pub(super) fn read(group: &Cgroup) -> Result<BTreeMap<String, HugePages>> {
    let mut all = BTreeMap::new();
    let Some(directory) = group.directory(Controller::HugeTlb) else {
        return Ok(all);
    };
    for size in sizes() {
        let reserved = format!("hugetlb.{size}.rsvd");
        let plain = format!("hugetlb.{size}");
        let pages = match read_size(directory, &reserved, &plain)? {
            Some(pages) => Some(pages),
            None => read_size(directory, &plain, &plain)?,
        };
        // In a hybrid hierarchy only groups with limits have the controller at all.
        if let Some(pages) = pages {
            all.insert(size, pages);
        }
    }
    Ok(all)
}

fn read_size(directory: &Directory, prefix: &str, plain: &str) -> Result<Option<HugePages>> {
    let v2 = directory.hierarchy.kind == Kind::V2;
    let usage = format!("{prefix}.{}", if v2 { "current" } else { "usage_in_bytes" });
    let Some(usage) = directory.read_if_present(&usage)? else {
        return Ok(None);
    };
    let usage = usage.trim().parse().unwrap_or(0);
    Ok(Some(if v2 {
        let events = directory.read_if_present(&format!("{plain}.events"))?;
        HugePages {
            usage,
            max: 0,
            failcnt: keyed_number(&events.unwrap_or_default(), "max").unwrap_or(0),
        }
    } else {
        HugePages {
            usage,
            max: directory.read_number(&format!("{prefix}.max_usage_in_bytes"))?,
            failcnt: directory.read_number(&format!("{prefix}.failcnt"))?,
        }
    }))
}

/// The sizes that this kernel has, as the names of the controller's files have them.
fn sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| file_size(entry.file_name().to_str()?))
        .collect()
}

/// `hugepages-2048kB` is `2MB` in the names of control files.
fn file_size(directory: &str) -> Option<String> {
    let kilobytes: u64 = directory
        .strip_prefix("hugepages-")?
        .strip_suffix("kB")?
        .parse()
        .ok()?;
    Some(match kilobytes {
        n if n >= 1 << 20 => format!("{}GB", n >> 20),
        n if n >= 1 << 10 => format!("{}MB", n >> 10),
        n => format!("{n}KB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_file_names() {
        let names = [
            "hugepages-64kB",
            "hugepages-2048kB",
            "hugepages-1048576kB",
            "other",
        ];
        let sizes: Vec<Option<String>> = names.iter().map(|name| file_size(name)).collect();
        let expected = [Some("64KB"), Some("2MB"), Some("1GB"), None];
        assert_eq!(sizes, expected.map(|size| size.map(str::to_owned)));
    }
}
