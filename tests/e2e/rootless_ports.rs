//! Ports of the machine that lead to pods of an ordinary user, whichever program connects these.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use berth_tests::{
    Node, OrdinaryUser, Running, Wire, berth, container, eventually, http_get, pod, try_http_get,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK_6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const CHOICE: &str = "BERTH_ROOTLESS_NETWORK";

#[track_caller]
/// A pod whose web server these ports lead to, and that sends back what comes to UDP port 9000.
fn server(name: &str, ports: &Value) -> String {
    let ready = json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 });
    pod(
        name,
        json!({
            "terminationGracePeriodSeconds": 1,
            "containers": [
                container("web", &["httpd", "--port", "8080"], json!({ "ports": ports, "readinessProbe": ready })),
                container("echo", &["listen", "udp", "9000"], json!({})),
            ],
        }),
    )
}

/// Hands a pod over, and waits for it.
fn detach(user: &OrdinaryUser<'_>, way: &str, name: &str, ports: &Value) {
    let file = user.file(&format!("{name}.yaml"), &server(name, ports));
    let command = user.berth_with(&[(CHOICE, way)], &["run", "-d", &file.display().to_string()]);
    Running::start(command, "").wait().expect_code(0);
    berth(user, &["wait", name, "--for=condition=Ready", "--timeout=60s"]).expect_code(0);
}

#[track_caller]
fn serves(address: IpAddr, port: u16) {
    assert_eq!(http_get((address, port), "/").status, 404, "{address}:{port}");
}

#[track_caller]
fn echoes(from: IpAddr, to: SocketAddr) {
    let client = UdpSocket::bind((from, 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    eventually("a datagram comes back", || {
        client.send_to(b"hello", to).unwrap();
        let mut buffer = [0; 16];
        let (count, answered) = client.recv_from(&mut buffer).ok()?;
        (&buffer[..count] == b"hello" && answered == to).then_some(())
    });
}

fn all_addresses(way: &str) {
    Wire::with(|_, user| {
        let other = json!([{ "containerPort": 8080, "hostPort": 18090, "hostIP": "127.0.0.2" }]);
        detach(user, way, "other", &other);
        let ports = json!([
            { "containerPort": 8080, "hostPort": 18090, "hostIP": "127.0.0.1" },
            { "containerPort": 8080, "hostPort": 18091 },
            { "containerPort": 8080, "hostPort": 18092, "hostIP": "::1" },
            { "containerPort": 8080, "hostPort": 18093, "hostIP": "::" },
            { "containerPort": 9000, "hostPort": 19000, "protocol": "UDP" },
            { "containerPort": 9000, "hostPort": 19001, "protocol": "UDP", "hostIP": "::1" },
        ]);
        detach(user, way, "server", &ports);
        let machine = IpAddr::from(Wire::MACHINE);
        for (address, port) in [
            (LOOPBACK, 18090),
            ([127, 0, 0, 2].into(), 18090),
            (LOOPBACK, 18091),
            (machine, 18091),
            (LOOPBACK_6, 18092),
            (LOOPBACK_6, 18091),
            (LOOPBACK_6, 18093),
            (LOOPBACK, 18093),
        ] {
            serves(address, port);
        }
        for (address, port) in [(machine, 18090), (LOOPBACK_6, 18090), (LOOPBACK, 18092)] {
            assert!(
                try_http_get((address, port).into(), "/").is_err(),
                "{address}:{port}"
            );
        }
        echoes(LOOPBACK, (LOOPBACK, 19000).into());
        echoes(machine, (machine, 19000).into());
        echoes(LOOPBACK_6, (LOOPBACK_6, 19000).into());
        echoes(LOOPBACK_6, (LOOPBACK_6, 19001).into());
        // Other pods reach a port of all addresses, at the machine's own.
        berth(
            user,
            &[
                "exec",
                "other",
                "-c",
                "web",
                "--",
                "http-get",
                "http://192.168.77.5:18091/healthz",
            ],
        )
        .expect_code(0);
        berth(user, &["rm", "--force", "server", "other"]).expect_code(0);
    });
}

#[test]
fn with_pasta_pods_have_ports_at_all_addresses() {
    all_addresses("pasta");
}

#[test]
fn with_slirp4netns_pods_have_ports_at_all_addresses() {
    all_addresses("slirp4netns");
}

#[test]
fn a_port_of_a_pod_is_free_for_the_next_one() {
    Wire::with(|_, user| {
        detach(user, "pasta", "keeps", &json!([]));
        let ports = json!([{ "containerPort": 8080, "hostPort": 18090, "hostIP": "127.0.0.1" }]);
        for _ in 0..2 {
            detach(user, "pasta", "server", &ports);
            serves(LOOPBACK, 18090);
            berth(user, &["rm", "--force", "server"]).expect_code(0);
            drop(TcpListener::bind((LOOPBACK, 18090)).expect("the port is nobody's"));
        }
        let taken = TcpListener::bind((LOOPBACK, 18090)).unwrap();
        let nowhere = json!([{ "containerPort": 8080, "hostPort": 18094, "hostIP": "2001:db8::1" }]);
        for (name, ports, why) in [
            (
                "server",
                ports,
                [
                    "Port 18090 of the machine can't be had at 127.0.0.1",
                    "something listens there",
                ],
            ),
            (
                "nowhere",
                nowhere,
                [
                    "Port 18094 of the machine can't be had at 2001:db8::1",
                    "does not have this address",
                ],
            ),
        ] {
            let file = user.file("pod.yaml", &server(name, &ports));
            berth(user, &["run", "-d", &file.display().to_string()]).expect_code(0);
            eventually("the events tell why it does not start", || {
                let events = berth(user, &["events", name]).output;
                why.iter().all(|part| events.contains(part)).then_some(())
            });
        }
        // It starts as soon as it can.
        drop(taken);
        berth(
            user,
            &["wait", "server", "--for=condition=Ready", "--timeout=120s"],
        )
        .expect_code(0);
        serves(LOOPBACK, 18090);
        berth(user, &["rm", "--force", "server", "keeps", "nowhere"]).expect_code(0);
    });
}

/// Kills the relay, and waits for another one.
fn kill_relay(node: &Node) {
    let killed = node.signal(" rootless-relay ", Signal::SIGKILL);
    eventually("another relay", || {
        let relay = node.process(" rootless-relay ")?;
        (relay.pid != killed).then_some(())
    });
}

#[track_caller]
fn eventually_serves(port: u16) {
    eventually("the port leads to the pod again", || {
        try_http_get((LOOPBACK, port).into(), "/").is_ok().then_some(())
    });
}

#[test]
fn a_killed_relay_is_followed_by_one_that_has_the_ports_of_all_pods() {
    Wire::with(|node, user| {
        let port = |number: u16| json!([{ "containerPort": 8080, "hostPort": number }]);
        detach(user, "pasta", "one", &port(18090));
        detach(user, "pasta", "two", &port(18091));
        for _ in 0..3 {
            kill_relay(node);
            eventually_serves(18090);
            eventually_serves(18091);
        }
        // Who comes and goes while there is none waits for the next one.
        node.signal(" rootless-relay ", Signal::SIGKILL);
        detach(user, "pasta", "three", &port(18092));
        serves(LOOPBACK, 18092);
        node.signal(" rootless-relay ", Signal::SIGKILL);
        berth(user, &["rm", "--force", "one"]).expect_code(0);
        eventually_serves(18091);
        eventually_serves(18092);
        drop(TcpListener::bind((LOOPBACK, 18090)).expect("the port is nobody's"));
        // With the guard the next command starts another, which has the same ports.
        node.signal(" rootless-network ", Signal::SIGKILL);
        eventually("the relay ends with it", || {
            node.process(" rootless-relay ").is_none().then_some(())
        });
        berth(user, &["ps"])
            .expect_code(0)
            .expect_output(&["two", "three"]);
        eventually_serves(18091);
        eventually_serves(18092);
        berth(user, &["rm", "--force", "two", "three"]).expect_code(0);
        for port in [18091, 18092] {
            drop(TcpListener::bind((LOOPBACK, port)).expect("the port is nobody's"));
        }
    });
}

#[test]
fn a_crowd_at_one_port_leaves_the_others_alone() {
    Wire::with(|node, user| {
        let port = |number: u16| json!([{ "containerPort": 8080, "hostPort": number }]);
        detach(user, "pasta", "crowded", &port(18090));
        detach(user, "pasta", "quiet", &port(18091));
        let relay = node.process(" rootless-relay ").expect("a relay");
        // They say nothing, and go on saying nothing.
        let crowd: Vec<_> = (0..800)
            .map(|_| std::net::TcpStream::connect((LOOPBACK, 18090)).unwrap())
            .collect();
        serves(LOOPBACK, 18091);
        let status = std::fs::read_to_string(format!("/proc/{}/status", relay.pid)).unwrap();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let resident: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(resident < 64 << 10, "the relay has {resident} kB");
        drop(crowd);
        eventually_serves(18090);
        berth(user, &["rm", "--force", "crowded", "quiet"]).expect_code(0);
    });
}
