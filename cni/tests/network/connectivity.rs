//! Pods reach each other, the host and the world, and leave no trace.

use std::net::{IpAddr, TcpListener};
use std::thread;
use std::time::Duration;

use crate::host::*;

#[test]
fn pods_reach_each_other_and_the_gateway() {
    on_a_host(|host| {
        let network = host.network();
        block_on(network.status()).unwrap();
        let (a, b) = (host.pod("a"), host.pod("b"));
        let (ip_a, ip_b) = (a.join(&network), b.join(&network));
        assert_ne!(ip_a, ip_b);
        b.serve(80);
        assert_eq!(
            a.run(|| ask(ip_b, 80)).unwrap(),
            ip_a,
            "pod to pod, with its own address"
        );
        let gateway = address("10.213.0.1");
        assert_eq!(ask(ip_b, 80).unwrap(), gateway, "host to pod");
        serve(TcpListener::bind((gateway, 8080)).unwrap());
        assert_eq!(a.run(|| ask(gateway, 8080)).unwrap(), ip_a, "pod to gateway");
        a.run(|| sh("busybox ping -c1 -W5 10.213.0.1 && busybox ping -c1 -W5 127.0.0.1"));
        block_on(network.check("a")).unwrap();
        a.leave(&network);
        b.leave(&network);
        b.leave(&network);
        assert!(host.reserved("berth").is_empty());
        // What is left of the pods' interfaces goes when nobody waits for it, and before the network's end at the latest.
        drop(network);
        assert!(
            a.run(|| sh("ip -o link")).lines().count() == 1,
            "only lo is left in the pod"
        );
    });
}

#[test]
fn the_world_sees_the_host() {
    on_a_host(|host| {
        let network = host.network();
        let neighbour = host.neighbour();
        neighbour.serve(80);
        ip("link set wire mtu 1400");
        ip("route add default via 10.99.0.2");
        let pod = host.pod("pod");
        pod.join(&network);
        assert_eq!(
            pod.run(|| ask(address("10.99.0.2"), 80)).unwrap(),
            address("10.99.0.1")
        );
        assert!(
            pod.run(|| sh("ip link show eth0")).contains("mtu 1400"),
            "as narrow as the way out"
        );
        pod.leave(&network);
        ip("link del wire");
    });
}

#[test]
fn both_families() {
    on_a_host(|host| {
        let network = host.network_with(|config| {
            let default = config.default_network.as_mut().unwrap();
            default.subnets = vec!["10.77.0.0/24".parse().unwrap(), "fd77::/64".parse().unwrap()];
            default.mtu = Some(1400);
        });
        let neighbour = host.neighbour();
        let (a, b) = (host.pod("a"), host.pod("b"));
        let result = block_on(network.add(&a.attachment())).unwrap();
        let heeds = std::fs::read_to_string("/proc/sys/net/ipv6/conf/wire/accept_ra").unwrap();
        assert_eq!(heeds.trim(), "2", "the host still learns its own routes");
        ip("link del wire");
        drop(neighbour);
        assert_eq!(result.ips, [address("10.77.0.2"), address("fd77::2")]);
        b.join(&network);
        b.serve(80);
        // No wait: addresses are usable when ADD returns.
        assert_eq!(a.run(|| ask(address("fd77::3"), 80)).unwrap(), address("fd77::2"));
        assert_eq!(
            a.run(|| ask(address("10.77.0.3"), 80)).unwrap(),
            address("10.77.0.2")
        );
        assert!(a.run(|| sh("ip -6 route")).contains("default via fd77::1"));
        assert!(a.run(|| sh("ip link show eth0")).contains("mtu 1400"));
        block_on(network.check("a")).unwrap();
        a.leave(&network);
        b.leave(&network);
    });
}

#[test]
fn a_subnet_that_the_host_has_a_route_to_is_not_used() {
    on_a_host(|host| {
        ip("route add 10.213.4.0/24 dev lo");
        let network = host.network();
        let pod = host.pod("pod");
        assert_eq!(pod.join(&network), address("10.197.0.2"));
        pod.leave(&network);
        let network = host.network_with(|config| {
            config.default_network.as_mut().unwrap().subnets = vec!["10.213.0.0/16".parse().unwrap()];
        });
        let error = add(&network, &pod.attachment()).unwrap_err().to_string();
        assert!(
            error.contains("10.213.0.0/16") && error.contains("10.213.4.0/24"),
            "{error}"
        );
        ip("route del 10.213.4.0/24 dev lo");
    });
}

#[test]
fn the_namespace_may_be_gone_or_another_ones() {
    on_a_host(|host| {
        let network = host.network();
        let pod = host.pod("pod");
        pod.join(&network);
        let path = pod.path();
        drop(pod);
        block_on(network.del("pod", Some(&path))).unwrap();
        assert!(host.reserved("berth").is_empty());

        // The record's path leads to the host's namespace by now: nothing there is touched.
        let pod = host.pod("pod");
        pod.join(&network);
        ip("link add eth0 type veth peer name eth0-peer");
        block_on(network.del("pod", Some("/proc/thread-self/ns/net".as_ref()))).unwrap();
        ip("link del eth0");
        let own = berth_cni::Attachment {
            netns: "/proc/self/ns/net".into(),
            ..pod.attachment()
        };
        let own = berth_cni::Attachment {
            netns: format!("/proc/self/task/{}/ns/net", nix::unistd::gettid()).into(),
            ..own
        };
        let error = add(&network, &own).unwrap_err().to_string();
        assert!(error.contains("host's own"), "{error}");
    });
}

#[test]
fn pods_come_and_go_at_once() {
    on_a_host(|host| {
        let network = host.network();
        for _round in 0..2 {
            let pods: Vec<_> = (0..24).map(|i| host.pod(&format!("pod-{i}"))).collect();
            let ips: Vec<IpAddr> = thread::scope(|scope| {
                let joins: Vec<_> = pods
                    .iter()
                    .map(|pod| scope.spawn(|| pod.join(&network)))
                    .collect();
                joins.into_iter().map(|join| join.join().unwrap()).collect()
            });
            let distinct: std::collections::HashSet<_> = ips.iter().collect();
            assert_eq!(distinct.len(), 24);
            pods[0].serve(80);
            assert_eq!(pods[23].run(|| ask(ips[0], 80)).unwrap(), ips[23]);
            thread::scope(|scope| {
                pods.iter()
                    .for_each(|pod| drop(scope.spawn(|| pod.leave(&network))))
            });
            assert_eq!(host.reserved("berth"), [""; 0]);
        }
    });
}

#[test]
fn two_nodes_of_one_machine_stay_apart() {
    on_a_host(|host| {
        let one = host.network();
        let two = host.network_with(|config| {
            config.state_dir = host.path("state2");
            config.default_network = Some(berth_cni::DefaultNetwork::for_state_dir(&host.path("state2")));
        });
        let clash = host.network_with(|config| config.state_dir = host.path("state3"));
        let (a, b, c) = (host.pod("a"), host.pod("b"), host.pod("c"));
        assert_eq!(a.join(&one), address("10.213.0.2"));
        assert_eq!(b.join(&two), address("10.197.0.2"));
        let error = add(&clash, &c.attachment()).unwrap_err().to_string();
        assert!(error.contains("belongs to another node"), "{error}");
        a.leave(&one);
        b.serve(80);
        assert!(ask_within(address("10.197.0.2"), 80, Duration::from_secs(5)).is_ok());
        b.leave(&two);
    });
}

#[test]
fn reconcile_removes_what_has_no_owner() {
    on_a_host(|host| {
        let network = host.network();
        let (live, dead) = (host.pod("live"), host.pod("dead"));
        live.join(&network);
        dead.join_as(
            &network,
            &dead.with_ports(&[(8080, 80, berth_cni::Protocol::Tcp)]),
        );
        // Garbage that no record leads to.
        std::fs::write(host.path("state/networks/berth/10.213.9.9"), "lost\r\neth0").unwrap();
        std::fs::write(host.path("state/networks/berth/10.213.9.8"), "").unwrap();
        let bridge = host.default_network().bridge;
        ip(&format!(
            "link add veth0123456789a master {bridge} type veth peer name other"
        ));
        let table = host.default_network().table;
        sh(&format!(
            "nft add element inet {table} masq4 '{{ 10.213.9.9 comment \"berth/lost/eth0\" }}'"
        ));
        assert_eq!(reconcile(&network, &["live"]), ["dead"]);
        assert_eq!(host.reserved("berth"), ["10.213.0.2"]);
        assert!(!sh("ip -o link").contains("veth0123456789a"));
        let rules = sh("nft list ruleset");
        assert!(
            !rules.contains("lost") && !rules.contains("dead") && rules.contains("live"),
            "{rules}"
        );
        block_on(network.check("live")).unwrap();
        assert_eq!(reconcile(&network, &[]), ["live"]);
    });
}

#[test]
fn a_firewall_that_drops_forwarded_packets_is_told_of() {
    on_a_host(|host| {
        let network = host.network();
        assert!(block_on(network.advice()).is_empty());
        sh("iptables -P FORWARD DROP");
        let (neighbour, pod) = (host.neighbour(), host.pod("pod"));
        neighbour.serve(80);
        pod.join(&network);
        let reach = |seconds| {
            let patience = Duration::from_secs(seconds);
            pod.run(|| ask_within(address("10.99.0.2"), 80, patience))
        };
        assert!(reach(1).is_err());
        let advice = block_on(network.advice());
        assert_eq!(advice.len(), 1, "{advice:?}");
        // It does what it says.
        let (_, commands) = advice[0].split_once("run: ").unwrap();
        commands.split("; ").for_each(|command| drop(sh(command)));
        reach(10).unwrap();
        assert!(block_on(network.advice()).is_empty());
        pod.leave(&network);
        ip("link del wire");
        sh("nft flush ruleset");
    });
}

/// No frame is lost at the beginning: a client would wait a second before it tries again.
#[test]
fn a_pod_is_connected_when_it_is_attached() {
    on_a_host(|host| {
        let network = host.network();
        let keep = host.pod("keep");
        keep.join(&network);
        for i in 0..20 {
            let pod = host.pod(&format!("pod-{i}"));
            pod.serve(80);
            let ip = pod.join(&network);
            ask(ip, 80).unwrap();
            pod.leave(&network);
        }
        keep.leave(&network);
        assert_eq!(retransmitted(), 0, "segments were sent twice");
    });
}

/// TCP segments that this thread's namespace had to send again.
fn retransmitted() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut tcp = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    let mut fields = names.split(' ').zip(values.split(' '));
    fields
        .find(|(name, _)| *name == "RetransSegs")
        .unwrap()
        .1
        .parse()
        .unwrap()
}

/// What is said to all pods of a bridge costs each of them: with hundreds, that is most of what a pod's coming takes.
#[test]
fn a_pod_that_comes_asks_nobody() {
    on_a_host(|host| {
        let network = host.network();
        let pod = host.pod("pod");
        let ip = pod.join(&network);
        // Nothing was sent yet: who is where was told beforehand.
        let known = sh(&format!("ip neigh show {ip}"));
        assert!(known.contains(" lladdr "), "{known}");
        let gateway = pod.run(|| sh("ip neigh show dev eth0"));
        assert!(gateway.contains(" lladdr "), "{gateway}");
        // Nor does the kernel make up an address, and ask whether it is somebody's.
        assert_eq!(pod.run(|| sh("ip -6 -o addr show dev eth0")), "");
        pod.leave(&network);
    });
}
