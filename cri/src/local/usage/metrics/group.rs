//! A container's metrics that come from its group.

use std::collections::BTreeMap;
use std::path::Path;

use berth_runtime::cgroups::statistics::{BlockIo, Cpu, DeviceCounter, HugePages, Memory, Pressure};
use berth_runtime::cgroups::{Bounds, Cgroup, CgroupError};

use super::devices::Devices;
use super::family::{self, Family};
use super::written::Written;

const SECOND: u64 = 1_000_000_000;
/// The kernel counts waits in microseconds.
const WAITED_SECOND: u64 = 1_000_000;

/// All counters of a group.
#[derive(Debug, Default)]
pub(super) struct Group {
    cpu: Cpu,
    memory: Memory,
    io: BlockIo,
    huge_pages: BTreeMap<String, HugePages>,
    bounds: Bounds,
    oom_kills: Option<u64>,
    limit_hits: Option<u64>,
    threads: Option<u64>,
    /// The processes in it.
    pub(super) pids: Vec<i32>,
}

impl Group {
    /// Reads a group; `None` if it is gone, or goes meanwhile.
    pub(super) fn of(path: &Path) -> Option<Self> {
        match Self::read(path) {
            Ok(group) => group,
            Err(error) => {
                tracing::debug!(
                    "The counters of the cgroup {} can't be read: {error}",
                    path.display()
                );
                None
            }
        }
    }

    fn read(path: &Path) -> Result<Option<Self>, CgroupError> {
        let Some(group) = Cgroup::open(&path.to_string_lossy())? else {
            return Ok(None);
        };
        Ok(Some(Self {
            cpu: group.cpu_statistics()?,
            memory: group.memory_statistics()?,
            io: group.block_io_statistics()?,
            huge_pages: group.huge_page_statistics()?,
            bounds: group.bounds()?,
            // An error where there is no memory controller.
            oom_kills: group.oom_kill_count().ok(),
            limit_hits: group.memory_limit_hits()?,
            threads: group.stats()?.pids,
            pids: group.pids()?.into_iter().map(nix::unistd::Pid::as_raw).collect(),
        }))
    }

    /// Tells them. `shares` is what was asked for, which cgroup v2 keeps only roughly.
    pub(super) fn write(&self, shares: Option<u64>, devices: &mut Devices, to: &mut Written) {
        self.write_cpu(to);
        self.write_memory(to);
        self.write_pressure(to);
        self.write_io(devices, to);
        self.write_bounds(shares, to);
        for (size, pages) in &self.huge_pages {
            to.labelled(&family::HUGETLB_USAGE, &[size], pages.usage);
            // cgroup v2 does not keep it.
            if pages.max >= pages.usage && pages.max > 0 {
                to.labelled(&family::HUGETLB_MAX_USAGE, &[size], pages.max);
            }
        }
        let count = u64::try_from(self.pids.len()).unwrap_or(u64::MAX);
        to.plain(&family::PROCESSES, count);
        to.known(&family::THREADS, self.threads);
    }

    fn write_cpu(&self, to: &mut Written) {
        let (usage, throttling) = (&self.cpu.usage, &self.cpu.throttling);
        to.labelled(&family::CPU_USAGE, &["total"], usage.total / SECOND);
        to.plain(&family::CPU_USER, usage.user / SECOND);
        to.plain(&family::CPU_SYSTEM, usage.kernel / SECOND);
        to.plain(&family::CFS_PERIODS, throttling.periods);
        to.plain(&family::CFS_THROTTLED, throttling.throttled_periods);
        to.plain(&family::CFS_THROTTLED_TIME, throttling.throttled_time / SECOND);
    }

    fn write_memory(&self, to: &mut Written) {
        let memory = &self.memory;
        // Nothing is known of it without a controller.
        if memory.raw.is_empty() {
            return;
        }
        let raw = |key: &str| memory.raw.get(key).copied();
        // v1 has the groups below in names of their own; v2 always counts them.
        let whole = |key: &str| raw(&format!("total_{key}")).or_else(|| raw(key)).unwrap_or(0);
        let usage = memory.usage.usage;
        to.plain(&family::MEMORY_USAGE, usage);
        to.plain(
            &family::MEMORY_WORKING_SET,
            usage.saturating_sub(whole("inactive_file")),
        );
        // Linux before 5.19 does not keep it on v2.
        to.known(
            &family::MEMORY_MAX_USAGE,
            Some(memory.usage.max).filter(|max| *max > 0),
        );
        to.plain(
            &family::MEMORY_RSS,
            raw("total_rss").or_else(|| raw("anon")).unwrap_or(0),
        );
        to.plain(
            &family::MEMORY_CACHE,
            raw("total_cache").or_else(|| raw("file")).unwrap_or(0),
        );
        let mapped = raw("total_mapped_file").or_else(|| raw("file_mapped"));
        to.plain(&family::MEMORY_MAPPED, mapped.unwrap_or(0));
        to.plain(&family::MEMORY_ACTIVE_FILE, whole("active_file"));
        to.plain(&family::MEMORY_INACTIVE_FILE, whole("inactive_file"));
        to.plain(&family::MEMORY_KERNEL, self.kernel_memory());
        // On both versions this counter has memory and swap together, if there is one.
        let swap = raw("total_swap").unwrap_or_else(|| memory.swap.usage.saturating_sub(usage));
        to.plain(&family::MEMORY_SWAP, swap);
        to.known(&family::MEMORY_FAILCNT, self.limit_hits);
        for fault in ["pgfault", "pgmajfault"] {
            to.labelled(
                &family::MEMORY_FAILURES,
                &[fault, "container"],
                raw(fault).unwrap_or(0),
            );
            to.labelled(&family::MEMORY_FAILURES, &[fault, "hierarchy"], whole(fault));
        }
        to.known(&family::OOM_EVENTS, self.oom_kills);
    }

    /// v1 has a counter; v2 has a sum since Linux 5.18, and its larger parts before.
    fn kernel_memory(&self) -> u64 {
        let raw = |key: &str| self.memory.raw.get(key).copied();
        if raw("total_rss").is_some() {
            return self.memory.kernel.usage;
        }
        raw("kernel").unwrap_or_else(|| {
            ["kernel_stack", "slab", "pagetables", "percpu"]
                .into_iter()
                .filter_map(raw)
                .sum()
        })
    }

    fn write_pressure(&self, to: &mut Written) {
        let both = [
            (self.cpu.pressure, &family::CPU_WAITING, &family::CPU_STALLED),
            (
                self.memory.pressure,
                &family::MEMORY_WAITING,
                &family::MEMORY_STALLED,
            ),
            (self.io.pressure, &family::IO_WAITING, &family::IO_STALLED),
        ];
        for (pressure, waiting, stalled) in both {
            let seconds = |of: fn(&Pressure) -> u64| Some(of(pressure.as_ref()?) / WAITED_SECOND);
            to.known(waiting, seconds(|pressure| pressure.some.total));
            to.known(stalled, seconds(|pressure| pressure.full.total));
        }
    }

    fn write_io(&self, devices: &mut Devices, to: &mut Written) {
        for counter in &self.io.io_service_bytes_recursive {
            let numbers = [counter.major.to_string(), counter.minor.to_string()];
            let device = devices.name(counter.major, counter.minor);
            let [major, minor] = &numbers;
            to.labelled(
                &family::BLKIO_USAGE,
                &[device, major, minor, &counter.op],
                counter.value,
            );
            directed(
                counter,
                device,
                &family::FS_READS_BYTES,
                &family::FS_WRITES_BYTES,
                to,
            );
        }
        for counter in &self.io.io_serviced_recursive {
            let device = devices.name(counter.major, counter.minor);
            directed(counter, device, &family::FS_READS, &family::FS_WRITES, to);
        }
    }

    fn write_bounds(&self, shares: Option<u64>, to: &mut Written) {
        let bounds = &self.bounds;
        to.known(&family::SPEC_CPU_SHARES, bounds.cpu_shares.or(shares));
        to.known(&family::SPEC_CPU_PERIOD, bounds.cpu_period);
        to.known(&family::SPEC_CPU_QUOTA, bounds.cpu_quota);
        if !self.memory.raw.is_empty() {
            to.plain(&family::SPEC_MEMORY_LIMIT, bounds.memory.unwrap_or(0));
            to.plain(
                &family::SPEC_MEMORY_RESERVATION,
                bounds.memory_reservation.unwrap_or(0),
            );
            to.plain(&family::SPEC_MEMORY_SWAP, bounds.memory_swap.unwrap_or(0));
        }
        if self.threads.is_some() {
            to.plain(&family::THREADS_MAX, bounds.pids.unwrap_or(0));
        }
    }
}

fn directed(counter: &DeviceCounter, device: &str, reads: &Family, writes: &Family, to: &mut Written) {
    match counter.op.as_str() {
        "Read" => to.labelled(reads, &[device], counter.value),
        "Write" => to.labelled(writes, &[device], counter.value),
        // Sums, and kinds of requests that are reads or writes too.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use berth_runtime::cgroups::statistics::{MemoryEntry, PressureLine};

    use super::*;

    fn told(group: &Group) -> BTreeMap<String, u64> {
        let mut written = Written::new(Vec::new(), 1);
        group.write(Some(512), &mut Devices::default(), &mut written);
        let metrics = written.done().into_iter();
        metrics
            .map(|metric| {
                let labels = metric.label_values.join(",");
                (
                    format!("{}{{{labels}}}", metric.name),
                    metric.value.unwrap().value,
                )
            })
            .collect()
    }

    fn memory(raw: &[(&str, u64)]) -> Memory {
        let entry = |usage| MemoryEntry {
            usage,
            ..Default::default()
        };
        Memory {
            usage: entry(1000),
            swap: entry(1030),
            kernel: entry(77),
            raw: raw
                .iter()
                .map(|(key, value)| ((*key).to_owned(), *value))
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn memory_on_both_versions() {
        let v1 = told(&Group {
            memory: memory(&[
                ("inactive_file", 1),
                ("total_inactive_file", 300),
                ("total_rss", 400),
                ("total_swap", 20),
                ("pgfault", 5),
                ("total_pgfault", 6),
            ]),
            ..Default::default()
        });
        let v2 = told(&Group {
            memory: memory(&[
                ("inactive_file", 300),
                ("anon", 400),
                ("file", 500),
                ("slab", 8),
                ("kernel_stack", 9),
                ("pgfault", 6),
            ]),
            limit_hits: Some(4),
            ..Default::default()
        });
        for (name, first, second) in [
            ("container_memory_working_set_bytes{}", 700, 700),
            ("container_memory_rss{}", 400, 400),
            ("container_memory_cache{}", 0, 500),
            ("container_memory_swap{}", 20, 30),
            ("container_memory_kernel_usage{}", 77, 17),
            ("container_memory_failures_total{pgfault,container}", 5, 6),
            ("container_memory_failures_total{pgfault,hierarchy}", 6, 6),
            ("container_spec_memory_limit_bytes{}", 0, 0),
        ] {
            assert_eq!((v1[name], v2[name]), (first, second), "{name}");
        }
        assert_eq!(v2["container_memory_failcnt{}"], 4);
        for unknown in ["container_memory_failcnt{}", "container_memory_max_usage_bytes{}"] {
            assert!(!v1.contains_key(unknown), "{unknown} was not read");
        }
    }

    #[test]
    fn devices_directions_and_waits() {
        let counter = |op: &str, value| DeviceCounter {
            major: 0,
            minor: 9999,
            op: op.to_owned(),
            value,
        };
        let some = PressureLine {
            total: 3_500_000,
            ..Default::default()
        };
        let told = told(&Group {
            io: BlockIo {
                io_service_bytes_recursive: vec![counter("Read", 7), counter("Sync", 8)],
                io_serviced_recursive: vec![counter("Write", 9)],
                pressure: Some(Pressure {
                    some,
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        });
        assert_eq!(told["container_blkio_device_usage_total{,0,9999,Read}"], 7);
        assert_eq!(told["container_blkio_device_usage_total{,0,9999,Sync}"], 8);
        assert_eq!(told["container_fs_reads_bytes_total{}"], 7);
        assert_eq!(told["container_fs_writes_total{}"], 9);
        assert_eq!(told["container_pressure_io_waiting_seconds_total{}"], 3);
        assert_eq!(told["container_pressure_io_stalled_seconds_total{}"], 0);
        assert!(!told.contains_key("container_pressure_cpu_waiting_seconds_total{}"));
        assert_eq!(told["container_spec_cpu_shares{}"], 512);
        assert!(
            !told.contains_key("container_memory_usage_bytes{}"),
            "no controller, no figure"
        );
    }
}
