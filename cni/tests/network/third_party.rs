//! Other people's plugins: the executables of Debian's package containernetworking-plugins.

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth_cni::{CniConfig, CniError, PluginPreference, Protocol, plugins};
use serde_json::{Value, json};

use crate::host::*;

const PLUGINS: &str = "/usr/lib/cni";

fn installed(config: &mut CniConfig) {
    let dir = PathBuf::from(PLUGINS);
    assert!(
        dir.join("bridge").exists(),
        "these tests need the package containernetworking-plugins"
    );
    config.bin_dirs = vec![dir];
}

/// A network as an operator would write it, all by executables.
fn conflist(host: &Host, version: &str) -> String {
    let mut conf = json!({
        "cniVersion": version,
        "name": "theirs",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "ranges": [[{"subnet": "10.55.0.0/24"}]],
                    "dataDir": host.path("ipam"),
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}},
        ],
    });
    if version != "0.3.1" {
        conf["plugins"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "firewall"}));
    }
    conf.to_string()
}

#[test]
fn a_chain_of_executables() {
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        on_a_host(move |host| {
            host.write_conf("10-theirs.conflist", &conflist(host, version));
            let network = host.network_with(installed);
            block_on(network.status()).unwrap();
            let (server, client) = (host.pod("server"), host.pod("client"));
            server.serve(80);
            let result = add(&network, &server.with_ports(&[(8080, 80, Protocol::Tcp)])).unwrap();
            assert_eq!(result.network, "theirs");
            assert_eq!(result.ips, [address("10.55.0.2")]);
            client.join(&network);
            client.run(|| ask(address("10.55.0.2"), 80)).unwrap();
            ask(address("127.0.0.1"), 8080).unwrap();
            assert_eq!(
                server.run(|| sh("cat /proc/sys/net/core/somaxconn")).trim(),
                "500"
            );
            // Upstream's portmap 1.1 checks for IPv6 chains that it never made, so only a pod without ports.
            block_on(network.check("client")).unwrap();
            assert_eq!(
                host.files("state/networks"),
                [""; 0],
                "none of ours had a hand in it"
            );
            server.leave(&network);
            client.leave(&network);
            assert!(!host.files("ipam/theirs").contains(&"10.55.0.2".to_owned()));
            // Upstream's plugins leave their bridge and their chains for the next pod.
            ip("link del cni0");
            sh("nft flush ruleset");
        });
    }
}

/// The files and results of both are the same, so they can be mixed in one chain and take over from each other.
#[test]
fn ours_and_theirs_in_one_chain() {
    on_a_host(|host| {
        let text = conflist(host, "1.0.0");
        host.write_conf("10-theirs.conflist", &text);
        let theirs = host.network_with(installed);
        let ours = host.network_with(|config| {
            installed(config);
            config.preference = PluginPreference::BuiltIn;
        });
        let (a, b) = (host.pod("a"), host.pod("b"));
        assert_eq!(a.join(&theirs), address("10.55.0.2"));
        // Built in: bridge, host-local, portmap. Executables: firewall, tuning.
        assert_eq!(
            b.join_as(&ours, &b.with_ports(&[(8080, 80, Protocol::Tcp)])),
            address("10.55.0.3")
        );
        b.serve(80);
        assert_eq!(
            a.run(|| ask(address("10.55.0.3"), 80)).unwrap(),
            address("10.55.0.2")
        );
        ask(address("127.0.0.1"), 8080).unwrap();
        block_on(ours.check("b")).unwrap();
        // Each is taken away by the program that made it, whatever is preferred by then.
        a.leave(&ours);
        b.leave(&theirs);
        ip("link del cni0");
        sh("nft flush ruleset");
    });
}

#[test]
fn an_old_plugin_with_a_new_configuration_is_found_before_the_first_pod() {
    on_a_host(|host| {
        host.write_conf("10-theirs.conflist", &conflist(host, "1.1.0"));
        let network = host.network_with(installed);
        let error = block_on(network.status()).unwrap_err();
        assert!(
            matches!(&error, CniError::Config { field, .. } if field == "cniVersion"),
            "{error}"
        );
        assert!(error.to_string().contains("supports only"), "{error}");
    });
}

#[test]
fn a_plugins_error_becomes_a_sentence() {
    on_a_host(|host| {
        let conf = json!({
            "cniVersion": "1.0.0", "name": "theirs",
            "plugins": [{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.55.0.0/33"}}],
        });
        host.write_conf("10-theirs.conflist", &conf.to_string());
        let network = host.network_with(installed);
        let pod = host.pod("pod");
        let error = add(&network, &pod.attachment()).unwrap_err();
        assert!(
            matches!(&error, CniError::Plugin { plugin, verb: "ADD", .. } if plugin == "bridge"),
            "{error}"
        );
        assert!(error.to_string().contains("invalid CIDR address"), "{error}");
        // The record of what could not be taken back is there, and goes with the next removal that can.
        let _ = block_on(network.del("pod", None));
        let _ = std::fs::remove_dir_all(host.path("state/attachments"));
        let links = sh("ip -o link");
        if links.contains("cni0") {
            ip("link del cni0");
        }
    });
}

/// Our plugins behind the interface of an executable, as a third party's runtime would run them.
#[test]
fn ours_are_real_plugins() {
    on_a_host(|host| {
        let pod = host.pod("pod");
        let call = |plugin: &str, command: &str, conf: &Value| {
            let env: BTreeMap<String, String> = [
                ("CNI_COMMAND", command.to_owned()),
                ("CNI_CONTAINERID", "pod".to_owned()),
                ("CNI_NETNS", pod.path().display().to_string()),
                ("CNI_IFNAME", "eth0".to_owned()),
                ("CNI_PATH", PLUGINS.to_owned()),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into();
            let read = |text: Vec<u8>| serde_json::from_slice::<Value>(&text).unwrap_or_default();
            plugins::main(plugin, &env, conf.to_string().as_bytes())
                .map(read)
                .map_err(read)
        };
        let mut conf = json!({
            "cniVersion": "0.4.0", "name": "ours", "type": "bridge", "bridge": "ours0", "isGateway": true,
            "ipam": {"type": "host-local", "dataDir": host.path("ipam"),
                     "ranges": [[{"subnet": "10.56.0.0/24", "rangeStart": "10.56.0.100"}]]},
        });
        let result = call("bridge", "ADD", &conf).unwrap();
        assert_eq!(result["cniVersion"], "0.4.0");
        assert_eq!(result["ips"][0]["address"], "10.56.0.100/24");
        assert_eq!(result["ips"][0]["version"], "4", "as 0.4.0 has it");
        assert_eq!(result["ips"][0]["gateway"], "10.56.0.1");
        assert_eq!(result["interfaces"][2]["name"], "eth0");
        assert!(result["interfaces"][2].get("mtu").is_none(), "1.1.0 has it");
        conf["prevResult"] = result;
        call("bridge", "CHECK", &conf).unwrap();
        call("bridge", "DEL", &conf).unwrap();
        call("bridge", "DEL", &conf).unwrap();
        assert!(call("bridge", "CHECK", &conf).is_err());
        assert!(!host.files("ipam/ours").contains(&"10.56.0.100".to_owned()));
        let versions = call("loopback", "VERSION", &json!({})).unwrap();
        assert_eq!(
            versions["supportedVersions"],
            json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        );

        for (plugin, command, conf, code) in [
            ("bridge", "ADD", json!({"cniVersion": "0.2.0"}), 1),
            (
                "bridge",
                "ADD",
                json!({"cniVersion": "1.0.0", "name": "x", "vlan": 5}),
                7,
            ),
            (
                "bridge",
                "ADD",
                json!({"cniVersion": "1.0.0", "name": "x", "mtu": "big"}),
                7,
            ),
            ("bridge", "DANCE", json!({}), 4),
            ("portmap", "ADD", json!({"cniVersion": "1.0.0", "name": "x"}), 7),
            ("tuning", "ADD", json!({}), 4),
        ] {
            let error = call(plugin, command, &conf).unwrap_err();
            assert_eq!(error["code"], code, "{plugin} {command} {conf}: {error}");
        }
        ip("link del ours0");
    });
}

#[test]
fn our_bridge_with_their_address_manager() {
    on_a_host(|host| {
        let conf = json!({
            "cniVersion": "1.0.0", "name": "mixed",
            "plugins": [{
                "type": "bridge", "bridge": "mixed0", "isDefaultGateway": true, "ipMasq": true,
                "ipam": {"type": "static", "addresses": [{"address": "10.57.0.9/24"}, {"address": "fd57::9/64"}]},
            }],
        });
        host.write_conf("1.conflist", &conf.to_string());
        let network = host.network_with(|config| {
            installed(config);
            config.preference = PluginPreference::BuiltIn;
        });
        block_on(network.status()).unwrap();
        let pod = host.pod("pod");
        let result = add(&network, &pod.attachment()).unwrap();
        assert_eq!(result.ips, [address("10.57.0.9"), address("fd57::9")]);
        pod.serve(80);
        assert_eq!(ask(address("10.57.0.9"), 80).unwrap(), address("10.57.0.1"));
        assert_eq!(ask(address("fd57::9"), 80).unwrap(), address("fd57::1"));
        block_on(network.check("pod")).unwrap();
        pod.leave(&network);
        // Only berth's own bridge goes with its last pod.
        ip("link del mixed0");
    });
}
