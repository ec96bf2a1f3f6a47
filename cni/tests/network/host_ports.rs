//! Ports of the host lead to the pod, from wherever they can be reached.

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::time::Duration;

use berth_cni::{Attachment, CniError, PortMapping, Protocol};

use crate::host::*;

#[test]
fn from_everywhere() {
    on_a_host(|host| {
        let network = host.network();
        let neighbour = host.neighbour();
        let (server, client) = (host.pod("server"), host.pod("client"));
        server.serve(80);
        let server_ip = server.join_as(&network, &server.with_ports(&[(8080, 80, Protocol::Tcp)]));
        let client_ip = client.join(&network);
        let (loopback, outside) = (address("127.0.0.1"), address("10.99.0.1"));

        ask(loopback, 8080).expect("the host, through 127.0.0.1");
        ask(outside, 8080).expect("the host, through its address");
        ask(address("10.213.0.1"), 8080).expect("the host, through the gateway's address");
        let seen = neighbour.run(|| ask(outside, 8080)).expect("a neighbour");
        assert_eq!(seen, address("10.99.0.2"), "the pod sees who it is");
        client
            .run(|| ask(outside, 8080))
            .expect("another pod, through the host's address");
        server
            .run(|| ask(outside, 8080))
            .expect("the pod itself, through the host's address");
        assert_eq!(
            client.run(|| ask(server_ip, 80)).unwrap(),
            client_ip,
            "no detour without the port"
        );
        assert!(ask(loopback, 8081).is_err(), "other ports are closed");
        assert!(
            ask(address("::1"), 8080).is_err(),
            "IPv6 says no at once, so that localhost falls back"
        );
        block_on(network.check("server")).unwrap();

        server.leave(&network);
        assert!(ask(loopback, 8080).is_err());
        client.leave(&network);
        ip("link del wire");
    });
}

#[test]
fn udp_and_tcp_share_a_number() {
    on_a_host(|host| {
        let network = host.network();
        let neighbour = host.neighbour();
        let pod = host.pod("pod");
        pod.serve(5353);
        pod.serve_udp(53);
        let ports = [
            (53, 53, Protocol::Udp),
            (53, 5353, Protocol::Tcp),
            (54, 54, Protocol::Sctp),
        ];
        pod.join_as(&network, &pod.with_ports(&ports));
        ask_udp(address("127.0.0.1"), 53).unwrap();
        ask(address("127.0.0.1"), 53).unwrap();
        assert_eq!(
            neighbour.run(|| ask_udp(address("10.99.0.1"), 53)).unwrap(),
            address("10.99.0.2")
        );
        pod.leave(&network);
        ip("link del wire");
    });
}

#[test]
fn on_one_address_only() {
    on_a_host(|host| {
        let network = host.network();
        let neighbour = host.neighbour();
        let (inner, outer) = (host.pod("inner"), host.pod("outer"));
        let on = |pod: &Pod, host_ip: &str| Attachment {
            port_mappings: vec![PortMapping {
                host_port: 8080,
                container_port: 80,
                protocol: Protocol::Tcp,
                host_ip: Some(address(host_ip)),
            }],
            ..pod.attachment()
        };
        inner.serve(80);
        outer.serve(80);
        inner.join_as(&network, &on(&inner, "127.0.0.1"));
        assert!(neighbour.run(|| ask(address("10.99.0.1"), 8080)).is_err());
        ask(address("127.0.0.1"), 8080).unwrap();
        // The same port on another address is another port.
        outer.join_as(&network, &on(&outer, "10.99.0.1"));
        neighbour.run(|| ask(address("10.99.0.1"), 8080)).unwrap();
        let third = host.pod("third");
        let error = add(&network, &on(&third, "0.0.0.0")).unwrap_err();
        assert!(
            matches!(error, CniError::PortConflict { port: 8080, .. }),
            "{error}"
        );
        let error = add(&network, &on(&third, "fd00::1")).unwrap_err().to_string();
        assert!(error.contains("no address of the family"), "{error}");
        inner.leave(&network);
        outer.leave(&network);
        ip("link del wire");
    });
}

#[test]
fn over_ipv6() {
    on_a_host(|host| {
        let network = host.network_with(|config| {
            config.default_network.as_mut().unwrap().subnets =
                vec!["fd77::/64".parse().unwrap(), "10.77.0.0/24".parse().unwrap()];
        });
        let neighbour = host.neighbour();
        ip("addr add fd99::1/64 dev wire nodad");
        neighbour.run(|| ip("addr add fd99::2/64 dev wire nodad"));
        neighbour.serve(81);
        let (pod, client) = (host.pod("pod"), host.pod("client"));
        pod.serve(80);
        pod.join_as(&network, &pod.with_ports(&[(8080, 80, Protocol::Tcp)]));
        client.join(&network);
        let outside = address("fd99::1");
        assert_eq!(neighbour.run(|| ask(outside, 8080)).unwrap(), address("fd99::2"));
        ask(outside, 8080).expect("the host itself");
        client.run(|| ask(outside, 8080)).expect("another pod");
        pod.run(|| ask(outside, 8080)).expect("the pod itself");
        assert_eq!(
            pod.run(|| ask(address("fd99::2"), 81)).unwrap(),
            outside,
            "masqueraded"
        );
        assert!(ask(address("::1"), 8080).is_err());
        pod.leave(&network);
        client.leave(&network);
        ip("link del wire");
    });
}

#[test]
fn a_taken_port_is_refused_with_the_name_of_its_holder() {
    on_a_host(|host| {
        let network = host.network();
        let (first, second) = (host.pod("first"), host.pod("second"));
        let tcp = [(8080, 80, Protocol::Tcp)];
        first.join_as(&network, &first.with_ports(&tcp));
        let error = add(&network, &second.with_ports(&tcp)).unwrap_err();
        assert!(matches!(error, CniError::PortConflict { port: 8080, .. }));
        assert!(error.to_string().contains("default/first"), "{error}");
        assert_eq!(
            host.reserved("berth"),
            ["10.213.0.2"],
            "nothing of the second pod is left"
        );
        let twice = [(90, 80, Protocol::Tcp), (90, 81, Protocol::Tcp)];
        let error = add(&network, &second.with_ports(&twice)).unwrap_err().to_string();
        assert!(error.contains("maps it twice"), "{error}");

        let _tcp = TcpListener::bind("127.0.0.1:9090").unwrap();
        let _udp = UdpSocket::bind("0.0.0.0:9091").unwrap();
        for port in [(9090, 80, Protocol::Tcp), (9091, 80, Protocol::Udp)] {
            let error = add(&network, &second.with_ports(&[port])).unwrap_err();
            assert!(matches!(&error, CniError::PortConflict { .. }), "{error}");
            assert!(
                error.to_string().contains("a program on the host uses"),
                "{error}"
            );
        }
        // The other protocol's port of that number is free.
        second.join_as(
            &network,
            &second.with_ports(&[(9091, 80, Protocol::Tcp), (9090, 80, Protocol::Udp)]),
        );
        second.leave(&network);
        first.leave(&network);
    });
}

/// Host ports on 127.0.0.1 need `route_localnet`; that must not open the host's loopback services to pods.
#[test]
fn pods_and_neighbours_can_not_reach_the_hosts_loopback() {
    on_a_host(|host| {
        let network = host.network();
        let neighbour = host.neighbour();
        let pod = host.pod("pod");
        pod.join_as(&network, &pod.with_ports(&[(8080, 80, Protocol::Tcp)]));
        std::fs::write("/proc/sys/net/ipv4/conf/wire/route_localnet", "1").unwrap();
        serve(TcpListener::bind("127.0.0.1:7777").unwrap());
        assert!(ask(address("127.0.0.1"), 7777).is_ok());
        for (attacker, interface, gateway) in
            [(&pod, "eth0", "10.213.0.1"), (&neighbour, "wire", "10.99.0.1")]
        {
            let reached: Result<IpAddr, _> = attacker.run(|| {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/route_localnet"), "1").unwrap();
                ip("addr flush dev lo");
                ip("route flush table local 127.0.0.0/8");
                ip(&format!("route add 127.0.0.1/32 via {gateway} dev {interface}"));
                ask_within(address("127.0.0.1"), 7777, Duration::from_secs(1))
            });
            assert!(
                reached.is_err(),
                "{interface} reached a service of the host's loopback"
            );
        }
        pod.leave(&network);
        ip("link del wire");
    });
}

/// The kernel remembers where a UDP client's packets went; that must not outlive the pod that they went to.
#[test]
fn a_udp_client_that_never_pauses_reaches_each_next_pod() {
    on_a_host(|host| {
        let network = host.network();
        let neighbour = host.neighbour();
        for target in ["10.99.0.1", "127.0.0.1"] {
            let bind = || UdpSocket::bind("0.0.0.0:4000").unwrap();
            let client = if target == "127.0.0.1" {
                bind()
            } else {
                neighbour.run(bind)
            };
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            // To nobody, which is remembered as well.
            client.send_to(b"?", (address(target), 53)).unwrap();
            for id in ["first", "second"] {
                let pod = host.pod(id);
                pod.serve_udp(53);
                pod.join_as(&network, &pod.with_ports(&[(53, 53, Protocol::Udp)]));
                client.send_to(b"?", (address(target), 53)).unwrap();
                client
                    .recv(&mut [0; 64])
                    .unwrap_or_else(|e| panic!("{target}, {id} pod: {e}"));
                pod.leave(&network);
            }
        }
        ip("link del wire");
    });
}

/// Reloading a host's firewall often begins with `flush ruleset`.
#[test]
fn a_flushed_firewall_is_restored() {
    on_a_host(|host| {
        let network = host.network();
        let neighbour = host.neighbour();
        neighbour.serve(81);
        let (with, without) = (host.pod("with"), host.pod("without"));
        with.serve(80);
        with.join_as(&network, &with.with_ports(&[(8080, 80, Protocol::Tcp)]));
        without.join(&network);
        let works = || {
            neighbour.run(|| ask(address("10.99.0.1"), 8080)).is_ok()
                && without
                    .run(|| ask_within(address("10.99.0.2"), 81, Duration::from_secs(3)))
                    .is_ok()
        };
        assert!(works());
        let before = sh("nft list ruleset");
        sh("nft flush ruleset");
        assert!(!works());
        reconcile(&network, &["with", "without"]);
        assert!(works());
        let lines = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(lines(&sh("nft list ruleset")), lines(&before));
        with.leave(&network);
        without.leave(&network);
        ip("link del wire");
    });
}
