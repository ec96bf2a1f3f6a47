//! What there is to know of the machine.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use berth_cri::DnsConfig;
use berth_cri::cgroups::{Hierarchies, is_machines_root};

use super::Host;
use crate::plan::NodeFacts;

/// The facts of this machine, for a node at the places of `host`.
pub(super) async fn gather(host: &Host) -> NodeFacts {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    NodeFacts {
        name: read("/proc/sys/kernel/hostname").trim().to_owned(),
        host_ips: host_ips(),
        memory_capacity: memory_bytes(&read("/proc/meminfo")),
        cpu_capacity: std::thread::available_parallelism().map_or(1000, |cpus| 1000 * cpus.get() as u64),
        host_dns: parse_resolv_conf(&read("/etc/resolv.conf")),
        host_hosts: read("/etc/hosts"),
        kubelet_root: host.kubelet_root.clone(),
        log_root: host.log_root.clone(),
        cgroup_root: relative(&host.cgroup_root),
        seccomp_root: host.kubelet_root.join("seccomp"),
        cgroup_v2_memory: Hierarchies::get().is_ok_and(Hierarchies::is_unified),
        recursive_read_only: recursive_read_only(host).await,
        restart_backoff: host.restart_backoff,
        has_app_armor: is_machines_root() && read("/sys/module/apparmor/parameters/enabled").starts_with('Y'),
        allowed_sysctls: host.allowed_sysctls.clone(),
        without_cgroups: host.without_cgroups,
        lacking: host.lacking,
        swap_accounting: swap_accounting(&read("/proc/self/mountinfo")),
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

/// v2 has it wherever the kernel has swap; v1 shows it as a file of its memory hierarchy.
fn swap_accounting(mountinfo: &str) -> bool {
    let memory = |line: &&str| {
        line.split_once(" - cgroup ").is_some_and(|(_, rest)| {
            rest.split(' ')
                .next_back()
                .is_some_and(|options| options.split(',').any(|option| option == "memory"))
        })
    };
    match mountinfo
        .lines()
        .find(memory)
        .and_then(|line| line.split(' ').nth(4))
    {
        Some(mount) => Path::new(mount).join("memory.memsw.limit_in_bytes").exists(),
        None => Path::new("/proc/swaps").exists(),
    }
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
    fn memory_is_read() {
        assert_eq!(memory_bytes("MemTotal:       16 kB\nMemFree: 1 kB\n"), 16384);
        assert_eq!(memory_bytes(""), 0);
    }
}
