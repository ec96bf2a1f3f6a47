//! Which network is used, and what is said about one that can't be.

use berth_cni::CniError;

use crate::host::*;

#[test]
fn the_first_valid_file_counts() {
    on_a_host(|host| {
        host.write_plugin("ok", "[ $CNI_COMMAND = ADD ] && echo '{}' || true");
        let list = |name: &str| {
            format!(r#"{{"cniVersion": "1.0.0", "name": "{name}", "plugins": [{{"type": "ok"}}]}}"#)
        };
        host.write_conf("00-broken.conflist", "{");
        host.write_conf("05-ignored.txt", &list("text"));
        host.write_conf("10-first.conflist", &list("first"));
        host.write_conf("20-second.conflist", &list("second"));
        let network = host.network();
        assert_eq!(
            add(&network, &host.pod("pod").attachment()).unwrap().network,
            "first"
        );
        let skipped = block_on(network.skipped()).unwrap();
        assert!(
            skipped.len() == 1 && skipped[0].to_string().contains("00-broken.conflist"),
            "{skipped:?}"
        );
        // A network that comes later counts from then on; what is attached stays with the one that it has.
        host.write_conf(
            "05-later.conf",
            r#"{"cniVersion": "1.0.0", "name": "later", "type": "gone"}"#,
        );
        let error = block_on(network.status()).unwrap_err();
        assert!(
            matches!(&error, CniError::MissingPlugin { plugin, .. } if plugin == "gone"),
            "{error}"
        );
        block_on(network.del("pod", None)).unwrap();
        let error = add(&network, &host.pod("pod").attachment())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("\"gone\"") && error.contains("install it"),
            "{error}"
        );
    });
}

#[test]
fn plugins_from_the_networks_folder_join_the_chain() {
    on_a_host(|host| {
        host.write_plugin(
            "ok",
            "echo $CNI_COMMAND >> \"$0.log\"; [ $CNI_COMMAND = ADD ] && echo '{}' || true",
        );
        host.write_conf(
            "1.conflist",
            r#"{"cniVersion": "1.1.0", "name": "net", "plugins": []}"#,
        );
        let network = host.network();
        let error = block_on(network.status()).unwrap_err().to_string();
        assert!(
            error.contains("plugins") && error.contains("at least one"),
            "{error}"
        );
        std::fs::create_dir_all(host.path("net.d/net")).unwrap();
        std::fs::write(host.path("net.d/net/10.conf"), r#"{"type": "ok"}"#).unwrap();
        add(&network, &host.pod("pod").attachment()).unwrap();
        block_on(network.del("pod", None)).unwrap();
        assert_eq!(
            std::fs::read_to_string(host.path("bin/ok.log")).unwrap(),
            "ADD\nDEL\n"
        );
    });
}

#[test]
fn errors_name_the_file_and_the_field() {
    let table = [
        ("a.conflist", "[]", "the file"),
        (
            "a.conflist",
            r#"{"cniVersion": "1.0.0", "plugins": [{"type": "x"}]}"#,
            "name",
        ),
        (
            "a.conflist",
            r#"{"cniVersion": "1.0.0", "name": "a/b", "plugins": [{"type": "x"}]}"#,
            "name",
        ),
        (
            "a.conflist",
            r#"{"cniVersion": "1.0.0", "name": "a", "plugins": []}"#,
            "plugins",
        ),
        (
            "a.conflist",
            r#"{"cniVersion": "1.0.0", "name": "a", "type": "x"}"#,
            "plugins",
        ),
        (
            "a.conflist",
            r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{}]}"#,
            "plugins[0].type",
        ),
        (
            "a.conflist",
            r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "../x"}]}"#,
            "plugins[0].type",
        ),
        (
            "a.conflist",
            r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "x", "capabilities": {"dns": 1}}]}"#,
            "plugins[0].capabilities.dns",
        ),
        (
            "a.conflist",
            r#"{"name": "a", "plugins": [{"type": "x"}]}"#,
            "cniVersion",
        ),
        (
            "a.conflist",
            r#"{"cniVersion": "0.2.0", "name": "a", "plugins": [{"type": "x"}]}"#,
            "cniVersion",
        ),
        (
            "a.conflist",
            r#"{"cniVersion": "1.0.0", "name": "a", "disableCheck": 1, "plugins": [{"type": "x"}]}"#,
            "disableCheck",
        ),
        (
            "a.conf",
            r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "x"}]}"#,
            "plugins",
        ),
        ("a.json", r#"{"cniVersion": "1.0.0", "name": "a"}"#, "type"),
    ];
    on_a_host(move |host| {
        for (file, text, field) in table {
            let _ = std::fs::remove_dir_all(host.path("net.d"));
            host.write_conf(file, text);
            let error = block_on(host.network().status()).unwrap_err();
            assert!(
                matches!(&error, CniError::Config { field: f, .. } if f == field),
                "{text}: {error}"
            );
            assert!(error.to_string().contains(file), "{error}");
        }
    });
}

#[test]
fn versions_are_negotiated() {
    on_a_host(|host| {
        host.write_plugin(
            "ok",
            "cat > \"$0.log\"; [ $CNI_COMMAND = ADD ] && echo '{}' || true",
        );
        let conf = r#"{"cniVersion": "0.4.0", "cniVersions": ["0.4.0", "1.0.0", "9.0.0"], "name": "a", "plugins": [{"type": "ok"}]}"#;
        host.write_conf("1.conflist", conf);
        let network = host.network();
        add(&network, &host.pod("pod").attachment()).unwrap();
        assert!(
            std::fs::read_to_string(host.path("bin/ok.log"))
                .unwrap()
                .contains(r#""cniVersion":"1.0.0""#)
        );
        block_on(network.del("pod", None)).unwrap();
    });
}

#[test]
fn no_network_at_all() {
    on_a_host(|host| {
        let network = host.network_with(|config| config.default_network = None);
        let error = block_on(network.status()).unwrap_err();
        assert!(matches!(error, CniError::NoNetwork { .. }));
        assert!(matches!(
            add(&network, &host.pod("pod").attachment()),
            Err(CniError::NoNetwork { .. })
        ));
        block_on(network.del("pod", None)).unwrap();
        reconcile(&network, &[]);
    });
}

#[test]
fn attachments_that_make_no_sense() {
    on_a_host(|host| {
        let network = host.network();
        let pod = host.pod("pod");
        let change = |f: fn(&mut berth_cni::Attachment)| {
            let mut attachment = pod.attachment();
            f(&mut attachment);
            attachment
        };
        for attachment in [
            change(|a| a.container_id = "../x".into()),
            change(|a| a.container_id = String::new()),
            change(|a| a.ifname = "a/b".into()),
            change(|a| a.ifname = "sixteen-letters!".into()),
            change(|a| a.pod_name = "x;IP=10.0.0.1".into()),
        ] {
            assert!(
                matches!(
                    add(&network, &attachment),
                    Err(CniError::InvalidAttachment { .. })
                ),
                "{attachment:?}"
            );
        }
        for netns in ["/no/such/file", "/etc/hostname"] {
            let attachment = berth_cni::Attachment {
                netns: netns.into(),
                ..pod.attachment()
            };
            let error = add(&network, &attachment).unwrap_err().to_string();
            assert!(error.contains(netns), "{error}");
        }
        assert!(block_on(network.del("../x", None)).is_err());
    });
}

/// Without `nft` a pod still gets its network if nothing in it needs `nft`; otherwise one message says what to do.
#[test]
fn a_missing_nft_is_one_clear_message() {
    on_a_host(|host| {
        let network = host.network();
        let pod = host.pod("pod");
        let path = std::env::var("PATH").unwrap();
        // The test has a process of its own.
        let bare = host.path("bin").display().to_string();
        std::fs::create_dir_all(&bare).unwrap();
        let run = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "conf::without_nft", "--ignored", "--nocapture"])
            .env("PATH", &bare)
            .env("BERTH_TEST_STATE", host.path("state"))
            .env("BERTH_TEST_NETNS", pod.path())
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&run.stdout);
        assert!(
            printed.contains("install the package nftables"),
            "{printed} {}",
            String::from_utf8_lossy(&run.stderr)
        );
        drop((network, path));
        assert!(host.reserved("berth").is_empty());
    });
}

/// The part of the test above that has no `nft` in its search path.
#[test]
#[ignore = "a part of another test"]
fn without_nft() {
    let Ok(state) = std::env::var("BERTH_TEST_STATE") else {
        return;
    };
    let config = berth_cni::CniConfig::new("/nowhere".into(), Vec::new(), state.into());
    let network = berth_cni::Network::load(&config).unwrap();
    println!("{}", block_on(network.status()).unwrap_err());
    let attachment = berth_cni::Attachment {
        container_id: "pod".into(),
        netns: std::env::var("BERTH_TEST_NETNS").unwrap().into(),
        ifname: "eth0".into(),
        ..Default::default()
    };
    let error = add(&network, &attachment).unwrap_err();
    assert!(
        matches!(&error, CniError::Unavailable(text) if text.contains("nftables")),
        "{error}"
    );
}
