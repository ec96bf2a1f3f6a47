//! Readings as CRI's messages.

use std::path::Path;

use berth_runtime::cgroups::statistics::{Average, Pressure, PressureLine};

use super::super::records::{ContainerRecord, SandboxRecord};
use super::layer::Count;
use super::links::Link;
use super::reading::Reading;
use crate::types::UnixNanos;
use crate::v1;

pub(super) fn nanos(at: UnixNanos) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

pub(super) fn number(value: u64) -> v1::UInt64Value {
    v1::UInt64Value { value }
}

pub(super) fn container_attributes(record: &ContainerRecord) -> v1::ContainerAttributes {
    v1::ContainerAttributes {
        id: record.id.0.clone(),
        metadata: Some(v1::ContainerMetadata {
            name: record.config.name.clone(),
            attempt: record.config.attempt,
        }),
        labels: record.config.labels.clone().into_iter().collect(),
        annotations: record.config.annotations.clone().into_iter().collect(),
    }
}

pub(super) fn sandbox_attributes(record: &SandboxRecord) -> v1::PodSandboxAttributes {
    v1::PodSandboxAttributes {
        id: record.id.0.clone(),
        metadata: Some(v1::PodSandboxMetadata {
            name: record.config.name.clone(),
            uid: record.config.uid.clone(),
            namespace: record.config.namespace.clone(),
            attempt: record.config.attempt,
        }),
        labels: record.config.labels.clone().into_iter().collect(),
        annotations: record.config.annotations.clone().into_iter().collect(),
    }
}

pub(super) fn cpu(reading: &Reading, nano_cores: Option<u64>) -> Option<v1::CpuUsage> {
    Some(v1::CpuUsage {
        timestamp: nanos(reading.at),
        usage_core_nano_seconds: Some(number(reading.cpu_ns()?)),
        usage_nano_cores: nano_cores.map(number),
        psi: reading.pressures.cpu.map(pressure),
    })
}

pub(super) fn memory(reading: &Reading) -> Option<v1::MemoryUsage> {
    let memory = reading.stats.memory?;
    let available = memory.limit.map(|limit| limit.saturating_sub(memory.working_set));
    Some(v1::MemoryUsage {
        timestamp: nanos(reading.at),
        working_set_bytes: Some(number(memory.working_set)),
        available_bytes: available.map(number),
        usage_bytes: Some(number(memory.usage)),
        rss_bytes: Some(number(memory.rss)),
        page_faults: Some(number(memory.page_faults)),
        major_page_faults: Some(number(memory.major_page_faults)),
        psi: reading.pressures.memory.map(pressure),
    })
}

pub(super) fn swap(reading: &Reading) -> Option<v1::SwapUsage> {
    let swap = reading.stats.memory?.swap?;
    Some(v1::SwapUsage {
        timestamp: nanos(reading.at),
        swap_available_bytes: swap.available.map(number),
        swap_usage_bytes: Some(number(swap.usage)),
    })
}

/// The kubelet takes of it only how long the group waited for devices.
pub(super) fn io(reading: &Reading) -> Option<v1::IoUsage> {
    Some(v1::IoUsage {
        timestamp: nanos(reading.at),
        psi: Some(pressure(reading.pressures.io?)),
    })
}

/// `home` is the directory that holds all layers, as `ImageFsInfo` names it.
pub(super) fn layer(count: &Count, home: &Path) -> v1::FilesystemUsage {
    v1::FilesystemUsage {
        timestamp: nanos(count.at),
        fs_id: Some(v1::FilesystemIdentifier {
            mountpoint: home.to_string_lossy().into_owned(),
        }),
        used_bytes: Some(number(count.usage.bytes)),
        inodes_used: Some(number(count.usage.inodes)),
    }
}

/// `links` has the default interface first, which CRI wants apart from the others.
pub(super) fn network(at: UnixNanos, links: &[Link]) -> v1::NetworkUsage {
    let mut interfaces = links.iter().map(interface);
    v1::NetworkUsage {
        timestamp: nanos(at),
        default_interface: interfaces.next(),
        interfaces: interfaces.collect(),
    }
}

fn interface(link: &Link) -> v1::NetworkInterfaceUsage {
    v1::NetworkInterfaceUsage {
        name: link.name.clone(),
        rx_bytes: Some(number(link.received.bytes)),
        rx_errors: Some(number(link.received.errors)),
        tx_bytes: Some(number(link.sent.bytes)),
        tx_errors: Some(number(link.sent.errors)),
    }
}

fn pressure(of: Pressure) -> v1::PsiStats {
    v1::PsiStats {
        full: Some(waits(of.full)),
        some: Some(waits(of.some)),
    }
}

/// The kernel's microseconds are nanoseconds here.
fn waits(line: PressureLine) -> v1::PsiData {
    let percent = |average: Average| f64::from(average.0) / 100.0;
    v1::PsiData {
        total: line.total.saturating_mul(1000),
        avg10: percent(line.avg10),
        avg60: percent(line.avg60),
        avg300: percent(line.avg300),
    }
}

#[cfg(test)]
mod tests {
    use berth_runtime::cgroups::{CpuStats, MemoryStats, Pressures, Stats, SwapStats};

    use super::*;

    fn reading() -> Reading {
        let memory = MemoryStats {
            usage: 900,
            working_set: 700,
            limit: Some(1000),
            swap: Some(SwapStats {
                usage: 3,
                available: None,
            }),
            ..Default::default()
        };
        let some = PressureLine {
            avg10: Average(150),
            total: 42,
            ..Default::default()
        };
        Reading {
            at: 77,
            stats: Stats {
                cpu: Some(CpuStats { usage_ns: 5 }),
                memory: Some(memory),
                pids: None,
            },
            pressures: Pressures {
                cpu: Some(Pressure {
                    some,
                    ..Default::default()
                }),
                ..Default::default()
            },
            processes: None,
        }
    }

    #[test]
    fn available_is_what_the_limit_leaves() {
        let available = |limit| {
            let mut reading = reading();
            reading.stats.memory.as_mut().unwrap().limit = limit;
            memory(&reading).unwrap().available_bytes.map(|bytes| bytes.value)
        };
        assert_eq!(available(Some(1000)), Some(300));
        assert_eq!(available(Some(600)), Some(0), "the limit was just lowered");
        assert_eq!(available(None), None);
    }

    #[test]
    fn what_the_kernel_does_not_count_is_left_out() {
        let usage = cpu(&reading(), None).unwrap();
        let psi = usage.psi.unwrap().some.unwrap();
        assert_eq!((psi.total, psi.avg10), (42_000, 1.5));
        assert_eq!(usage.usage_nano_cores, None);
        assert_eq!(io(&reading()), None);
        assert_eq!(swap(&reading()).unwrap().swap_available_bytes, None);
        let nothing = Reading {
            stats: Stats::default(),
            ..reading()
        };
        assert_eq!(
            (cpu(&nothing, None), memory(&nothing), swap(&nothing)),
            (None, None, None)
        );
    }

    #[test]
    fn the_default_interface_is_apart() {
        let link = |name: &str| Link {
            name: name.into(),
            ..Default::default()
        };
        let usage = network(5, &[link("eth0"), link("net1")]);
        assert_eq!(usage.default_interface.unwrap().name, "eth0");
        assert_eq!(usage.interfaces.len(), 1);
        assert_eq!(network(5, &[]).default_interface, None);
    }
}
