//! Network devices that move into a container, out of a network namespace that stands for the host's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use serde_json::json;
use support::{Bundle, failed, succeeded};

/// Two devices with addresses, of which some are the link's own.
const DEVICES: &str = "ip link add v0 mtu 1400 type veth peer name p0 && ip link add v1 type veth peer name p1 && \
    ip address add 192.0.2.1/24 dev v0 && ip address add 192.0.2.2/24 dev v0 noprefixroute && \
    ip address add 2001:db8::1/64 dev v0 nodad && ip address add 169.254.7.7/16 scope link dev v0 && \
    ip link set p0 up && ip link set v0 up && ip link set lo up";

/// Runs the container in a network namespace with the devices, and then the script there.
fn run(bundle: &Bundle, after: &str) -> Output {
    let inner = bundle.command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()]);
    Command::new("unshare")
        .args(["--net", "sh", "-c"])
        .arg(format!(
            "{DEVICES} && {{ \"$@\"; code=$?; {after}; exit $code; }}"
        ))
        .arg("sh")
        .arg(inner.get_program())
        .args(inner.get_args())
        .output()
        .unwrap()
}

fn bundle(name: &str, script: &str) -> Bundle {
    let bundle = Bundle::script(name, script);
    symlink("busybox", bundle.root().join("bin/ip")).unwrap();
    bundle
}

#[test]
fn devices_move_with_their_lasting_addresses_and_are_up() {
    let mut bundle = bundle("moved", "ip -o link; ip -o address; ip route");
    bundle.config["linux"]["netDevices"] = json!({ "v0": { "name": "inside0" }, "v1": { "name": "net%d" } });
    let output = succeeded(&run(&bundle, "ip -o link"));
    let line = |start: &str| {
        output
            .lines()
            .find(|line| line.contains(start))
            .unwrap_or_else(|| panic!("{start}: {output}"))
    };
    assert!(
        line(" inside0@").contains("UP") && line(" inside0@").contains("mtu 1400"),
        "{output}"
    );
    assert!(line(" net0@").contains("UP"), "{output}");
    for address in ["192.0.2.1/24", "192.0.2.2/24", "2001:db8::1/64"] {
        assert!(line(address).contains("inside0"), "{output}");
    }
    assert!(!output.contains("169.254.7.7"), "{output}");
    // Only one of the two addresses of the net had asked for a route to it.
    assert_eq!(output.matches("192.0.2.0/24 dev inside0").count(), 1, "{output}");
    // On the host the ends of the wires are left until the container's end takes them along.
    assert!(!output.contains(" v0@") && !output.contains(" v1@"), "{output}");
}

#[test]
fn devices_go_back_when_the_container_does_not_come_to_be() {
    for (devices, said) in [
        (
            json!({ "v0": {}, "v1": { "name": "lo" } }),
            "linux.netDevices[\"v1\"].name",
        ),
        (
            json!({ "v0": {}, "v9": {} }),
            "linux.netDevices[\"v9\"]: the host has no network device",
        ),
        (
            json!({ "v0": {}, "v1": { "name": "a/b" } }),
            "is not the name of a network device",
        ),
    ] {
        let mut bundle = bundle("back", "true");
        bundle.config["linux"]["netDevices"] = devices;
        let output = run(&bundle, "ip -o link; ip -o address");
        assert!(failed(&output).contains(said), "{said}: {}", failed(&output));
        let there = String::from_utf8(output.stdout).unwrap();
        for part in [" v0@", " v1@", "192.0.2.1/24", "2001:db8::1/64"] {
            assert!(there.contains(part), "{part}: {there}");
        }
        let v0 = there.lines().find(|line| line.contains(" v0@")).unwrap();
        assert!(v0.contains("mtu 1400") && v0.contains("UP"), "{v0}");
    }
    // A failure later on: the program is missing.
    let mut bundle = Bundle::new("back-late", &["/no/such"]);
    bundle.config["linux"]["netDevices"] = json!({ "v0": { "name": "x" } });
    let output = run(&bundle, "ip -o address show v0");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("192.0.2.1/24"));
}

#[test]
fn a_container_that_shares_the_hosts_network_can_not_have_them() {
    let mut bundle = bundle("shared-net", "true");
    bundle.config["linux"]["netDevices"] = json!({ "v0": {} });
    let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|namespace| namespace["type"] != "network");
    assert!(failed(&run(&bundle, "true")).contains("linux.netDevices"));
}
