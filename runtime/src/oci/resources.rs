//! `linux.resources`: the limits of a container's control group.

use std::collections::BTreeMap;

use super::LinuxDeviceType;
use super::decode::objects;

objects! {
    /// The limits of a control group.
    struct LinuxResources {
        /// Which devices may be used; the last rule that matches decides.
        "devices" devices: Vec<LinuxDeviceCgroup>,
        /// Memory.
        "memory" memory: Option<LinuxMemory>,
        /// Processor time.
        "cpu" cpu: Option<LinuxCpu>,
        /// Processes.
        "pids" pids: Option<LinuxPids>,
        /// Block devices.
        "blockIO" block_io: Option<LinuxBlockIo>,
        /// Huge pages.
        "hugepageLimits" hugepage_limits: Vec<LinuxHugepageLimit>,
        /// Network traffic.
        "network" network: Option<LinuxNetwork>,
        /// RDMA, by the name of the device.
        "rdma" rdma: BTreeMap<String, LinuxRdma>,
        /// Files of cgroup v2 and what is written to them.
        "unified" unified: BTreeMap<String, String>,
    }

    /// A rule about devices.
    struct LinuxDeviceCgroup {
        /// They may be used.
        "allow" allow: bool,
        /// Which type; all if missing.
        "type" typ: Option<LinuxDeviceType>,
        /// Which major number; all if missing.
        "major" major: Option<i64>,
        /// Which minor number; all if missing.
        "minor" minor: Option<i64>,
        /// What may be done: some of r, w and m.
        "access" access: String,
    }

    /// Limits of memory, in bytes.
    struct LinuxMemory {
        /// The limit; -1 is none.
        "limit" limit: Option<i64>,
        /// What is left when the host's memory runs short.
        "reservation" reservation: Option<i64>,
        /// The limit of memory and swap together; -1 is none.
        "swap" swap: Option<i64>,
        /// The kernel's memory; cgroup v1 only, no longer in Linux.
        "kernel" kernel: Option<i64>,
        /// The kernel's memory for TCP; cgroup v1 only.
        "kernelTCP" kernel_tcp: Option<i64>,
        /// How readily memory is swapped out, 0 to 100; cgroup v1 only.
        "swappiness" swappiness: Option<u64>,
        /// Processes wait for memory instead of being killed; cgroup v1 only.
        "disableOOMKiller" disable_oom_killer: Option<bool>,
        /// Memory of groups below counts; cgroup v1 only, always so in Linux since 5.11.
        "useHierarchy" use_hierarchy: Option<bool>,
        /// An update to a limit below what is used fails.
        "checkBeforeUpdate" check_before_update: Option<bool>,
    }

    /// Limits of processor time.
    struct LinuxCpu {
        /// The share among groups; 1024 is one.
        "shares" shares: Option<u64>,
        /// Microseconds a period; -1 is no limit.
        "quota" quota: Option<i64>,
        /// Microseconds that may be used beyond the quota, if they were saved before.
        "burst" burst: Option<u64>,
        /// Microseconds.
        "period" period: Option<u64>,
        /// 1: only time that nobody else wants.
        "idle" idle: Option<i64>,
        /// Microseconds of real-time scheduling a period; cgroup v1 only.
        "realtimeRuntime" realtime_runtime: Option<i64>,
        /// Microseconds; cgroup v1 only.
        "realtimePeriod" realtime_period: Option<u64>,
        /// A list of processors, `0-2,7`.
        "cpus" cpus: String,
        /// A list of memory nodes.
        "mems" mems: String,
    }

    /// The limit of processes.
    struct LinuxPids {
        /// How many; 0 and less is no limit.
        "limit" limit: Option<i64>,
    }

    /// Limits of block devices.
    struct LinuxBlockIo {
        /// The share among groups, 10 to 1000.
        "weight" weight: Option<u16>,
        /// The share of this group's processes against groups below; cgroup v1 only.
        "leafWeight" leaf_weight: Option<u16>,
        /// Shares of single devices.
        "weightDevice" weight_device: Vec<LinuxWeightDevice>,
        /// Bytes a second that are read.
        "throttleReadBpsDevice" throttle_read_bps_device: Vec<LinuxThrottleDevice>,
        /// Bytes a second that are written.
        "throttleWriteBpsDevice" throttle_write_bps_device: Vec<LinuxThrottleDevice>,
        /// Reads a second.
        "throttleReadIOPSDevice" throttle_read_iops_device: Vec<LinuxThrottleDevice>,
        /// Writes a second.
        "throttleWriteIOPSDevice" throttle_write_iops_device: Vec<LinuxThrottleDevice>,
    }

    /// Shares of a device.
    struct LinuxWeightDevice {
        /// The device's major number.
        "major" major: i64,
        /// The device's minor number.
        "minor" minor: i64,
        /// The share among groups, 10 to 1000.
        "weight" weight: Option<u16>,
        /// The share of this group's processes against groups below; cgroup v1 only.
        "leafWeight" leaf_weight: Option<u16>,
    }

    /// A limit of a device.
    struct LinuxThrottleDevice {
        /// The device's major number.
        "major" major: i64,
        /// The device's minor number.
        "minor" minor: i64,
        /// Bytes or operations a second.
        "rate" rate: u64,
    }

    /// A limit of huge pages.
    struct LinuxHugepageLimit {
        /// Their size: `2MB`, `1GB`.
        "pageSize" page_size: String,
        /// Bytes.
        "limit" limit: u64,
    }

    /// Marks of network traffic; cgroup v1 only.
    struct LinuxNetwork {
        /// The class that packets are tagged with.
        "classID" class_id: Option<u32>,
        /// Priorities on interfaces.
        "priorities" priorities: Vec<LinuxInterfacePriority>,
    }

    /// The priority of traffic on an interface.
    struct LinuxInterfacePriority {
        /// The interface, as the runtime sees it.
        "name" name: String,
        /// The priority.
        "priority" priority: u32,
    }

    /// Limits of an RDMA device.
    struct LinuxRdma {
        /// Handles.
        "hcaHandles" hca_handles: Option<u32>,
        /// Objects.
        "hcaObjects" hca_objects: Option<u32>,
    }
}
