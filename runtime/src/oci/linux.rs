//! `linux`: namespaces, devices, and what of the kernel a container sees.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::decode::{names, objects};
use super::{LinuxResources, LinuxSeccomp};

objects! {
    /// What is particular to Linux.
    struct Linux {
        /// Namespaces, new or joined.
        "namespaces" namespaces: Vec<LinuxNamespace>,
        /// User ids of a new user namespace.
        "uidMappings" uid_mappings: Vec<LinuxIdMapping>,
        /// Group ids of a new user namespace.
        "gidMappings" gid_mappings: Vec<LinuxIdMapping>,
        /// Offsets of the clocks of a new time namespace, by `monotonic` and `boottime`.
        "timeOffsets" time_offsets: BTreeMap<String, LinuxTimeOffset>,
        /// Device nodes, beside the usual ones.
        "devices" devices: Vec<LinuxDevice>,
        /// Interfaces of the host that move into the container, by name.
        "netDevices" net_devices: BTreeMap<String, LinuxNetDevice>,
        /// The control group, relative to the root of each hierarchy, or `slice:prefix:name` for systemd.
        "cgroupsPath" cgroups_path: String,
        /// The limits of the control group.
        "resources" resources: Option<LinuxResources>,
        /// Limits of caches and memory bandwidth.
        "intelRdt" intel_rdt: Option<LinuxIntelRdt>,
        /// From which memory nodes memory is taken.
        "memoryPolicy" memory_policy: Option<LinuxMemoryPolicy>,
        /// Kernel parameters, by their names in sysctl(8).
        "sysctl" sysctl: BTreeMap<String, String>,
        /// Which system calls may be made.
        "seccomp" seccomp: Option<LinuxSeccomp>,
        /// How mounts spread between the container's root and others: `shared`, `slave`, `private`, `unbindable`.
        "rootfsPropagation" rootfs_propagation: String,
        /// Paths that can't be read.
        "maskedPaths" masked_paths: Vec<String>,
        /// Paths that can't be written to.
        "readonlyPaths" readonly_paths: Vec<String>,
        /// The SELinux context of the container's mounts.
        "mountLabel" mount_label: String,
        /// Which kernel the container believes to be on.
        "personality" personality: Option<LinuxPersonality>,
    }

    /// A namespace.
    struct LinuxNamespace {
        /// Of which type.
        "type" typ: LinuxNamespaceType = required,
        /// The file of a namespace to join; a new one is made if there is none.
        "path" path: PathBuf,
    }

    /// A range of user or group ids.
    struct LinuxIdMapping {
        /// The first one in the container.
        "containerID" container_id: u32,
        /// The same one on the host.
        "hostID" host_id: u32,
        /// How many.
        "size" size: u32,
    }

    /// The offset of a clock.
    struct LinuxTimeOffset {
        /// Seconds.
        "secs" secs: i64,
        /// Nanoseconds.
        "nanosecs" nanosecs: u32,
    }

    /// A device node.
    struct LinuxDevice {
        /// Where, in the container.
        "path" path: PathBuf = required,
        /// Of which type.
        "type" typ: LinuxDeviceType = required,
        /// The major number; not for pipes.
        "major" major: i64,
        /// The minor number; not for pipes.
        "minor" minor: i64,
        /// The mode; 0666 if missing.
        "fileMode" file_mode: Option<u32>,
        /// The owner.
        "uid" uid: Option<u32>,
        /// The group.
        "gid" gid: Option<u32>,
    }

    /// An interface of the host that moves into the container.
    struct LinuxNetDevice {
        /// Its name there; the same one if empty.
        "name" name: String,
    }

    /// Limits of caches and memory bandwidth: a group of resctrl.
    struct LinuxIntelRdt {
        /// The class of service; the container's id if empty.
        "closID" clos_id: String,
        /// Lines for the group's `schemata`.
        "schemata" schemata: Vec<String>,
        /// The older form for the L3 cache.
        "l3CacheSchema" l3_cache_schema: String,
        /// The older form for memory bandwidth.
        "memBwSchema" mem_bw_schema: String,
        /// Measure the use of caches.
        "enableCMT" enable_cmt: bool,
        /// Measure the use of memory bandwidth.
        "enableMBM" enable_mbm: bool,
        /// Measure both, in a monitoring group of the container.
        "enableMonitoring" enable_monitoring: bool,
    }

    /// From which memory nodes memory is taken; see set_mempolicy(2).
    struct LinuxMemoryPolicy {
        /// By which rule.
        "mode" mode: MemoryPolicyModeType = required,
        /// A list of nodes, `0-3,7`.
        "nodes" nodes: String,
        /// Details.
        "flags" flags: Vec<MemoryPolicyFlagType>,
    }

    /// Which kernel a program believes to be on; see personality(2).
    struct LinuxPersonality {
        /// The execution domain.
        "domain" domain: LinuxPersonalityDomain = required,
        /// None are defined yet.
        "flags" flags: Vec<String>,
    }
}

names! {
    /// A type of namespace; see namespaces(7).
    enum LinuxNamespaceType {
        /// Mounts.
        "mount" Mount,
        /// The root of the control groups.
        "cgroup" Cgroup,
        /// Host and domain name.
        "uts" Uts,
        /// System V IPC and POSIX message queues.
        "ipc" Ipc,
        /// User and group ids.
        "user" User,
        /// Process ids.
        "pid" Pid,
        /// Interfaces, routes, ports.
        "network" Network,
        /// Clocks.
        "time" Time,
    }

    /// A type of device.
    enum LinuxDeviceType {
        /// All of them, in rules.
        "a" A,
        /// Block.
        "b" B,
        /// Character.
        "c" C,
        /// Character, unbuffered; the same as character.
        "u" U,
        /// A named pipe.
        "p" P,
    }

    /// The rule of a memory policy.
    enum MemoryPolicyModeType {
        /// The one of the process that starts it.
        "MPOL_DEFAULT" Default,
        /// From these nodes only.
        "MPOL_BIND" Bind,
        /// From these nodes in turn.
        "MPOL_INTERLEAVE" Interleave,
        /// From these nodes in turn, by weights.
        "MPOL_WEIGHTED_INTERLEAVE" WeightedInterleave,
        /// From this node first.
        "MPOL_PREFERRED" Preferred,
        /// From these nodes first.
        "MPOL_PREFERRED_MANY" PreferredMany,
        /// From the processor's own node.
        "MPOL_LOCAL" Local,
    }

    /// Details of a memory policy.
    enum MemoryPolicyFlagType {
        /// Balance among the nodes.
        "MPOL_F_NUMA_BALANCING" NumaBalancing,
        /// Nodes are counted among those that are allowed.
        "MPOL_F_RELATIVE_NODES" RelativeNodes,
        /// Nodes are not renumbered when those that are allowed change.
        "MPOL_F_STATIC_NODES" StaticNodes,
    }

    /// An execution domain.
    enum LinuxPersonalityDomain {
        /// The usual one.
        "LINUX" Linux,
        /// uname(2) tells of a 32-bit machine.
        "LINUX32" Linux32,
    }
}

impl LinuxNamespaceType {
    /// Its `CLONE_NEW*` flag, as clone(2), unshare(2) and setns(2) take it.
    pub fn clone_flag(self) -> i32 {
        match self {
            LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
            LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
            LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
            LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
            LinuxNamespaceType::User => libc::CLONE_NEWUSER,
            LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
            LinuxNamespaceType::Network => libc::CLONE_NEWNET,
            LinuxNamespaceType::Time => libc::CLONE_NEWTIME,
        }
    }
}
