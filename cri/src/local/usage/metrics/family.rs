//! The metrics that there are: cAdvisor's names and label keys, as CRI clients expect them (KEP-2371).

use crate::v1;
use crate::v1::MetricType::{self, Counter, Gauge};

/// The labels of every metric, as cAdvisor has them in a kubelet: `id` is the cgroup and `name` the container's id.
pub(super) const BASE: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// A metric's name, meaning and shape.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    help: &'static str,
    pub(super) kind: MetricType,
    /// The labels after those that all metrics have.
    pub(super) labels: &'static [&'static str],
}

impl Family {
    pub(super) fn descriptor(&self) -> v1::MetricDescriptor {
        let keys = BASE.iter().chain(self.labels);
        v1::MetricDescriptor {
            name: self.name.to_owned(),
            help: self.help.to_owned(),
            label_keys: keys.map(|key| (*key).to_owned()).collect(),
        }
    }
}

macro_rules! families {
    ($($kind:ident $constant:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $constant: Family = Family {
            name: $name,
            help: $help,
            kind: $kind,
            labels: &[$($label),*],
        };)*
        /// All of them.
        pub(super) const ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    Gauge LAST_SEEN "container_last_seen" [] "When the container was last seen, in seconds since the Unix epoch.";
    Gauge START_TIME "container_start_time_seconds" [] "When the container started, in seconds since the Unix epoch.";

    Counter CPU_USAGE "container_cpu_usage_seconds_total" ["cpu"] "CPU time used, in seconds.";
    Counter CPU_USER "container_cpu_user_seconds_total" [] "CPU time used in user mode, in seconds.";
    Counter CPU_SYSTEM "container_cpu_system_seconds_total" [] "CPU time used in the kernel, in seconds.";
    Counter CFS_PERIODS "container_cpu_cfs_periods_total" [] "Periods in which the CPU quota was enforced.";
    Counter CFS_THROTTLED "container_cpu_cfs_throttled_periods_total" [] "Periods in which the CPU quota was used up.";
    Counter CFS_THROTTLED_TIME "container_cpu_cfs_throttled_seconds_total" [] "How long the CPU quota held the container back, in seconds.";

    Gauge MEMORY_USAGE "container_memory_usage_bytes" [] "Memory in use, the page cache included.";
    Gauge MEMORY_MAX_USAGE "container_memory_max_usage_bytes" [] "The most memory that was in use.";
    Gauge MEMORY_WORKING_SET "container_memory_working_set_bytes" [] "Memory in use without the page cache that can be dropped at once.";
    Gauge MEMORY_RSS "container_memory_rss" [] "Anonymous memory, in bytes.";
    Gauge MEMORY_CACHE "container_memory_cache" [] "Page cache, in bytes.";
    Gauge MEMORY_MAPPED "container_memory_mapped_file" [] "Files that are mapped into memory, in bytes.";
    Gauge MEMORY_ACTIVE_FILE "container_memory_total_active_file_bytes" [] "Page cache that was used lately.";
    Gauge MEMORY_INACTIVE_FILE "container_memory_total_inactive_file_bytes" [] "Page cache that was not used lately.";
    Gauge MEMORY_KERNEL "container_memory_kernel_usage" [] "Memory that the kernel uses for the container, in bytes.";
    Gauge MEMORY_SWAP "container_memory_swap" [] "Swap space in use, in bytes.";
    Counter MEMORY_FAILCNT "container_memory_failcnt" [] "How often the memory limit was hit.";
    Counter MEMORY_FAILURES "container_memory_failures_total" ["failure_type", "scope"] "Page faults, and those that had to wait for a device.";
    Counter OOM_EVENTS "container_oom_events_total" [] "Processes that were killed because memory ran out.";

    Gauge HUGETLB_USAGE "container_hugetlb_usage_bytes" ["pagesize"] "Huge pages in use.";
    Gauge HUGETLB_MAX_USAGE "container_hugetlb_max_usage_bytes" ["pagesize"] "The most huge pages that were in use.";

    Counter CPU_WAITING "container_pressure_cpu_waiting_seconds_total" [] "How long some tasks waited for a CPU, in seconds.";
    Counter CPU_STALLED "container_pressure_cpu_stalled_seconds_total" [] "How long all tasks waited for a CPU, in seconds.";
    Counter MEMORY_WAITING "container_pressure_memory_waiting_seconds_total" [] "How long some tasks waited for memory, in seconds.";
    Counter MEMORY_STALLED "container_pressure_memory_stalled_seconds_total" [] "How long all tasks waited for memory, in seconds.";
    Counter IO_WAITING "container_pressure_io_waiting_seconds_total" [] "How long some tasks waited for a device, in seconds.";
    Counter IO_STALLED "container_pressure_io_stalled_seconds_total" [] "How long all tasks waited for a device, in seconds.";

    Counter BLKIO_USAGE "container_blkio_device_usage_total" ["device", "major", "minor", "operation"] "Bytes that went to and from a block device.";
    Counter FS_READS "container_fs_reads_total" ["device"] "Reads from a block device.";
    Counter FS_READS_BYTES "container_fs_reads_bytes_total" ["device"] "Bytes that were read from a block device.";
    Counter FS_WRITES "container_fs_writes_total" ["device"] "Writes to a block device.";
    Counter FS_WRITES_BYTES "container_fs_writes_bytes_total" ["device"] "Bytes that were written to a block device.";

    Gauge FS_USAGE "container_fs_usage_bytes" ["device"] "What the container's writable layer takes of its file system.";
    Gauge FS_LIMIT "container_fs_limit_bytes" ["device"] "The size of the file system of the container's writable layer.";
    Gauge FS_INODES "container_fs_inodes_total" ["device"] "Inodes of the file system of the container's writable layer.";
    Gauge FS_INODES_FREE "container_fs_inodes_free" ["device"] "Free inodes of the file system of the container's writable layer.";

    Gauge PROCESSES "container_processes" [] "Processes in the container.";
    Gauge THREADS "container_threads" [] "Threads in the container.";
    Gauge THREADS_MAX "container_threads_max" [] "How many threads there may be; 0 is no limit.";
    Gauge FILE_DESCRIPTORS "container_file_descriptors" [] "Open file descriptors in the container.";
    Gauge SOCKETS "container_sockets" [] "Open sockets in the container.";
    Gauge ULIMITS_SOFT "container_ulimits_soft" ["ulimit"] "Soft limits of the container's first process.";

    Gauge SPEC_CPU_PERIOD "container_spec_cpu_period" [] "The period of the CPU quota, in microseconds.";
    Gauge SPEC_CPU_QUOTA "container_spec_cpu_quota" [] "CPU time that the container may use in each period, in microseconds.";
    Gauge SPEC_CPU_SHARES "container_spec_cpu_shares" [] "The container's share where CPUs are short.";
    Gauge SPEC_MEMORY_LIMIT "container_spec_memory_limit_bytes" [] "The memory limit; 0 is none.";
    Gauge SPEC_MEMORY_RESERVATION "container_spec_memory_reservation_limit_bytes" [] "Memory that is kept for the container where memory is short; 0 is none.";
    Gauge SPEC_MEMORY_SWAP "container_spec_memory_swap_limit_bytes" [] "The limit of memory and swap together on cgroup v1, and of swap on v2; 0 is none.";

    Counter RECEIVE_BYTES "container_network_receive_bytes_total" ["interface"] "Bytes that were received.";
    Counter RECEIVE_PACKETS "container_network_receive_packets_total" ["interface"] "Packets that were received.";
    Counter RECEIVE_DROPPED "container_network_receive_packets_dropped_total" ["interface"] "Packets that were dropped while they came in.";
    Counter RECEIVE_ERRORS "container_network_receive_errors_total" ["interface"] "Errors while packets came in.";
    Counter TRANSMIT_BYTES "container_network_transmit_bytes_total" ["interface"] "Bytes that were sent.";
    Counter TRANSMIT_PACKETS "container_network_transmit_packets_total" ["interface"] "Packets that were sent.";
    Counter TRANSMIT_DROPPED "container_network_transmit_packets_dropped_total" ["interface"] "Packets that were dropped while they went out.";
    Counter TRANSMIT_ERRORS "container_network_transmit_errors_total" ["interface"] "Errors while packets went out.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_counter_is_named_as_one() {
        for family in ALL {
            let total = family.name.ends_with("_total") && family.name != FS_INODES.name;
            // cAdvisor's one exception.
            let counts = total || family.name == MEMORY_FAILCNT.name;
            assert_eq!(family.kind == Counter, counts, "{}", family.name);
        }
    }

    #[test]
    fn names_are_unique_and_labels_complete() {
        let names: BTreeSet<_> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len());
        let descriptor = MEMORY_FAILURES.descriptor();
        let keys = "container id image name namespace pod failure_type scope";
        assert_eq!(descriptor.label_keys.join(" "), keys);
        assert!(ALL.iter().all(|family| family.help.ends_with('.')));
    }
}
