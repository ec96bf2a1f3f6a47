//! What there is to know of the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use berth_cri::DnsConfig;
use berth_cri::cgroups::{Hierarchies, is_machines_root};

use super::Host;
use crate::admission::NodeLabels;
use crate::plan::NodeFacts;
use crate::resources::hugepage_size;

/// The facts of this machine, for a node at the places of `host`.
pub(super) async fn gather(host: &Host) -> NodeFacts {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mountinfo = read("/proc/self/mountinfo");
    let is_unified = Hierarchies::get().is_ok_and(Hierarchies::is_unified);
    // Beside version 1, the unified hierarchy may have the controller; passing it on to each pod there is work for all groups.
    let limits_huge_pages = is_unified || v1_mount(&mountinfo, "hugetlb").is_some();
    let name = read("/proc/sys/kernel/hostname").trim().to_owned();
    NodeFacts {
        labels: NodeLabels::of_machine(&name.to_lowercase(), &host.node_labels),
        name,
        host_ips: host_ips(),
        memory_capacity: memory_bytes(&read("/proc/meminfo")),
        cpu_capacity: std::thread::available_parallelism().map_or(1000, |cpus| 1000 * cpus.get() as u64),
        host_dns: parse_resolv_conf(&read("/etc/resolv.conf")),
        host_hosts: read("/etc/hosts"),
        kubelet_root: host.kubelet_root.clone(),
        log_root: host.log_root.clone(),
        cgroup_root: relative(&host.cgroup_root),
        seccomp_root: host.kubelet_root.join("seccomp"),
        cgroup_v2_memory: is_unified,
        recursive_read_only: recursive_read_only(host).await,
        restart_backoff: host.restart_backoff,
        has_app_armor: is_machines_root() && read("/sys/module/apparmor/parameters/enabled").starts_with('Y'),
        allowed_sysctls: host.allowed_sysctls.clone(),
        storage_capacity: storage_bytes(&host.kubelet_root),
        huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
        max_pods: host.max_pods,
        extended_resources: host.extended_resources.clone(),
        without_cgroups: host.without_cgroups,
        lacking: host.lacking,
        swap_accounting: swap_accounting(&mountinfo, &read("/proc/self/cgroup"))
            || is_unified && always_accounts_swap(&read("/proc/sys/kernel/osrelease")),
        huge_page_sizes: if limits_huge_pages {
            huge_page_sizes(Path::new("/sys/kernel/mm/hugepages"))
        } else {
            BTreeSet::new()
        },
        ..NodeFacts::default()
    }
}

/// Only the runtime knows. One that can't be asked will say so to the first pod.
async fn recursive_read_only(host: &Host) -> BTreeSet<String> {
    let handlers = host.engine.runtime_handlers().await;
    let able = handlers.unwrap_or_default().into_iter();
    able.filter(|handler| handler.recursive_read_only_mounts)
        .map(|handler| handler.name)
        .collect()
}

fn relative(path: &Path) -> std::path::PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// The addresses that the machine would talk to the world from. Nothing is sent: a datagram socket only looks up its
/// route. The targets are addresses for documentation (RFC 5737, RFC 3849).
fn host_ips() -> Vec<IpAddr> {
    let from = |local: IpAddr, target: IpAddr| {
        let socket = UdpSocket::bind((local, 0)).ok()?;
        socket.connect((target, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let v4 = from(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let v6 = from(
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    );
    let mut ips: Vec<IpAddr> = [v4, v6].into_iter().flatten().collect();
    if ips.is_empty() {
        ips.push(Ipv4Addr::LOCALHOST.into());
    }
    ips
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn memory_bytes(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// What the file system holds at most that has a directory, or will have it; 0 if that can't be known.
fn storage_bytes(directory: &Path) -> u64 {
    let there = directory.ancestors().find(|path| path.exists());
    let about = there.and_then(|path| rustix::fs::statvfs(path).ok());
    about.map_or(0, |about| about.f_blocks.saturating_mul(about.f_frsize))
}

/// Bytes of huge pages that are set aside, by size. See the kernel's Documentation/admin-guide/mm/hugetlbpage.rst.
fn huge_pages(directory: &Path) -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let pages = entries.filter_map(|entry| {
        let name = entry.file_name();
        let kib: u64 = name
            .to_str()?
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        let count: u64 = std::fs::read_to_string(entry.path().join("nr_hugepages"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        Some((
            hugepage_size(&format!("{kib}Ki"))?,
            kib.saturating_mul(1024).saturating_mul(count),
        ))
    });
    pages.collect()
}

/// resolv.conf(5): the last `search` or `domain` line counts, `options` lines add up.
fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let keyword = words.next();
        let mut values = words
            .take_while(|word| !word.starts_with(['#', ';']))
            .map(str::to_owned);
        match keyword {
            Some("nameserver") => dns.servers.extend(values.next()),
            Some("search" | "domain") => dns.searches = values.collect(),
            Some("options") => dns.options.extend(values),
            _ => {}
        }
    }
    dns
}

/// v1 shows it as a file of its memory hierarchy, v2 as one of every group but the root, which has no limits.
fn swap_accounting(mountinfo: &str, own_groups: &str) -> bool {
    if let Some(mount) = v1_mount(mountinfo, "memory") {
        return mount.join("memory.memsw.limit_in_bytes").exists();
    }
    let Some(mount) = mount_of(mountinfo, |rest| rest.starts_with("cgroup2 ")) else {
        return false;
    };
    let has_limit = |group: &Path| group.join("memory.swap.max").exists();
    let own = own_groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let mut others = std::fs::read_dir(mount).into_iter().flatten().flatten();
    own.is_some_and(|own| has_limit(&mount.join(own))) || others.any(|group| has_limit(&group.path()))
}

/// Where no group is there yet to tell it: since Linux 6.1 every kernel that can swap has the file in the groups of v2.
fn always_accounts_swap(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    (next(), next()) >= (Some(6), Some(1)) && Path::new("/proc/swaps").exists()
}

/// Where the hierarchy of version 1 with a controller is mounted.
fn v1_mount<'a>(mountinfo: &'a str, controller: &str) -> Option<&'a Path> {
    mount_of(mountinfo, |rest| {
        let options = rest.split(' ').next_back().unwrap_or_default();
        rest.starts_with("cgroup ") && options.split(',').any(|option| option == controller)
    })
}

/// Where something is mounted; `wanted` sees the type, the source and the options of each mount (proc_pid_mountinfo(5)).
fn mount_of(mountinfo: &str, wanted: impl Fn(&str) -> bool) -> Option<&Path> {
    let found = mountinfo
        .lines()
        .find(|line| line.split_once(" - ").is_some_and(|(_, rest)| wanted(rest)));
    found.and_then(|line| line.split(' ').nth(4)).map(Path::new)
}

/// The sizes of huge pages by the names that control groups have for them: `hugepages-2048kB` is `2MB`.
fn huge_page_sizes(directory: &Path) -> BTreeSet<String> {
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |name: std::ffi::OsString| {
        let kib = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        hugepage_size(&format!("{kib}Ki"))
    };
    names.filter_map(|entry| size(entry.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_resolver_does() {
        let dns = parse_resolv_conf(
            "# c\nnameserver 10.0.0.1\nnameserver  10.0.0.2 # second\ndomain a\nsearch b c\noptions ndots:2\noptions rotate\n",
        );
        assert_eq!(dns.servers, ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(dns.searches, ["b", "c"]);
        assert_eq!(dns.options, ["ndots:2", "rotate"]);
    }

    #[test]
    fn huge_pages_are_counted_by_size() {
        let directory = tempfile::tempdir().unwrap();
        for (name, count) in [
            ("hugepages-2048kB", "3\n"),
            ("hugepages-1048576kB", "0\n"),
            ("other", "1\n"),
        ] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
            std::fs::write(directory.path().join(name).join("nr_hugepages"), count).unwrap();
        }
        let expected = [("2MB".to_owned(), 6 << 20), ("1GB".to_owned(), 0)];
        assert_eq!(huge_pages(directory.path()), expected.into());
        assert_eq!(huge_pages(&directory.path().join("none")), BTreeMap::new());
    }

    #[test]
    fn storage_is_that_of_the_directory_to_be() {
        let directory = tempfile::tempdir().unwrap();
        let there = storage_bytes(directory.path());
        assert!(there > 0);
        assert_eq!(storage_bytes(&directory.path().join("a/b")), there);
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(memory_bytes("MemTotal:       16 kB\nMemFree: 1 kB\n"), 16384);
        assert_eq!(memory_bytes(""), 0);
    }

    #[test]
    fn swap_is_limited_where_a_group_has_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        let v2 = format!("30 23 0:26 / {root} rw shared:4 - cgroup2 cgroup2 rw\n");
        let v1 = format!("30 23 0:26 / {root} rw shared:4 - cgroup cgroup rw,memory\n{v2}");
        for group in ["own/deep", "other"] {
            std::fs::create_dir_all(dir.path().join(group)).unwrap();
        }
        let own = "1:memory:/x\n0::/own/deep\n";
        assert!(!swap_accounting(&v2, own));
        assert!(!swap_accounting("", own));
        std::fs::write(dir.path().join("own/deep/memory.swap.max"), "").unwrap();
        assert!(swap_accounting(&v2, own));
        assert!(!swap_accounting(&v2, "0::/\n"));
        std::fs::write(dir.path().join("other/memory.swap.max"), "").unwrap();
        assert!(
            swap_accounting(&v2, "0::/\n"),
            "any group tells it of those that will be made"
        );
        assert!(!swap_accounting(&v1, own));
        std::fs::write(dir.path().join("memory.memsw.limit_in_bytes"), "").unwrap();
        assert!(swap_accounting(&v1, own));
    }

    #[test]
    fn new_kernels_always_account_swap() {
        let has_swaps = Path::new("/proc/swaps").exists();
        for (release, new) in [
            ("6.1.0-25-amd64", true),
            ("6.18.5", true),
            ("10.0", true),
            ("6.0.9", false),
            ("5.19", false),
            ("", false),
        ] {
            assert_eq!(always_accounts_swap(release), new && has_swaps, "{release}");
        }
    }

    #[test]
    fn sizes_of_huge_pages_are_named_as_control_groups_do() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["hugepages-2048kB", "hugepages-1048576kB", "hugepages-64kB", "x"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let sizes = huge_page_sizes(dir.path());
        assert_eq!(sizes.into_iter().collect::<Vec<_>>(), ["1GB", "2MB", "64KB"]);
    }
}
