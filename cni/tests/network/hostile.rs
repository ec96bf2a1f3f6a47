//! Plugins that hang, lie, shout or crash.

use std::time::{Duration, Instant};

use berth_cni::CniError;
use nix::sched::{CloneFlags, unshare};

use crate::host::*;

fn conf_of(plugin: &str) -> String {
    format!(r#"{{"cniVersion": "1.0.0", "name": "odd", "plugins": [{{"type": "{plugin}"}}]}}"#)
}

#[test]
fn a_plugin_that_hangs_is_killed_with_all_its_children() {
    on_a_host(|host| {
        let marks = host.dir.path().display().to_string();
        host.write_plugin(
            "hang",
            &format!(
                "[ $CNI_COMMAND = DEL ] && exit 0\n\
                 mkfifo {marks}/never; cat {marks}/never & echo $$ $! > {marks}/pids; cat {marks}/never"
            ),
        );
        host.write_conf("1.conflist", &conf_of("hang"));
        let network = host.network_with(|config| config.plugin_timeout = Duration::from_secs(4));
        let pod = host.pod("pod");
        let error = add(&network, &pod.attachment()).unwrap_err();
        assert!(
            matches!(
                &error,
                CniError::Timeout {
                    verb: "ADD",
                    seconds: 4,
                    ..
                }
            ),
            "{error}"
        );
        let pids = std::fs::read_to_string(host.path("pids")).unwrap();
        for pid in pids.split_whitespace() {
            let status = format!("/proc/{pid}/status");
            let deadline = Instant::now() + Duration::from_secs(10);
            // The child is its parent's to reap, and init's after that: dead is enough.
            let lives = || std::fs::read_to_string(&status).is_ok_and(|text| !text.contains("State:\tZ"));
            while lives() {
                assert!(Instant::now() < deadline, "process {pid} still runs");
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn garbage_collection_that_hangs_holds_up_no_pod() {
    on_a_host(|host| {
        host.write_plugin(
            "hang",
            "[ $CNI_COMMAND = GC ] && { echo > \"$0.collects\"; exec sleep 1000; }\necho '{}'",
        );
        host.write_conf("1.conflist", &conf_of("hang").replace("1.0.0", "1.1.0"));
        let network = host.network_with(|config| config.plugin_timeout = Duration::from_secs(600));
        let (old, new) = (host.pod("old"), host.pod("new"));
        add(&network, &old.attachment()).unwrap();
        let collector = host.network_with(|config| config.plugin_timeout = Duration::from_secs(600));
        let live = ["old".to_owned(), "new".to_owned()].into();
        let collecting = std::thread::spawn(move || block_on(collector.reconcile(&live)));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !host.path("bin/hang.collects").exists() {
            assert!(Instant::now() < deadline, "GC did not begin");
            std::thread::yield_now();
        }
        let began = Instant::now();
        add(&network, &new.attachment()).unwrap();
        old.leave(&network);
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "pods waited for garbage collection"
        );
        let error = collecting.join().unwrap().unwrap_err();
        assert!(matches!(error, CniError::CalledOff { verb: "GC", .. }), "{error}");
        new.leave(&network);
    });
}

#[test]
fn odd_answers_are_errors_that_name_the_plugin() {
    let table = [
        ("exit 0", "it printed nothing"),
        ("echo '{'", "no JSON"),
        ("echo '[]'", "no JSON object"),
        ("echo null", "no JSON object"),
        (
            r#"echo '{"ips": [{"address": "10.0.0.300/8"}]}'"#,
            "no address with a prefix length",
        ),
        (r#"echo '{"ips": {"address": 5}}'"#, "no CNI result"),
        ("head -c 3000000 /dev/zero", "printed more than"),
        ("cat /dev/zero", "printed more than"),
        ("cat /dev/zero >&2", "printed more than"),
        ("yes '[' | tr -d '\\n' | head -c 500000", "no JSON"),
        ("echo broken >&2; exit 3", "exited with code 3: broken"),
        ("exit 3", "exited with code 3 without saying why"),
        ("kill -SEGV $$", "killed by signal 11"),
        (
            r#"printf %s '{"code": 7, "msg": "bad \u001b[31mconf\nx", "details": "look there"}'; exit 1"#,
            "bad  [31mconf x: look there",
        ),
        (r#"echo '{"code": -7, "msg": "x"}'; exit 1"#, "exited with code 1"),
        (
            r#"echo '{"code": 110, "msg": "80/tcp", "details": "x"}'; exit 1"#,
            "code 110",
        ),
    ];
    on_a_host(move |host| {
        host.write_conf("1.conflist", &conf_of("odd"));
        let network = host.network_with(|config| config.plugin_timeout = Duration::from_secs(20));
        for (script, expected) in table {
            host.write_plugin("odd", &format!("[ $CNI_COMMAND = DEL ] && exit 0\n{script}"));
            let error = add(&network, &host.pod("pod").attachment())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(expected) && error.contains("\"odd\""),
                "{script}: {error}"
            );
            assert!(!error.contains('\u{1b}'), "no control characters: {error:?}");
        }
    });
}

#[test]
fn a_child_that_keeps_the_streams_open_is_not_waited_for() {
    on_a_host(|host| {
        host.write_plugin(
            "daemon",
            "[ $CNI_COMMAND = DEL ] && exit 0\nsleep 60 & echo $! > \"$0.pid\"; echo '{}'",
        );
        host.write_conf("1.conflist", &conf_of("daemon"));
        let network = host.network();
        add(&network, &host.pod("pod").attachment()).unwrap();
        block_on(network.del("pod", None)).unwrap();
        sh(&format!("kill $(cat {})", host.path("bin/daemon.pid").display()));
    });
}

#[test]
fn a_plugin_that_does_not_read_its_input_does_no_harm() {
    on_a_host(|host| {
        host.write_plugin("deaf", "exec <&-; echo '{}'");
        let padding = "x".repeat(600_000);
        let conf = format!(
            r#"{{"cniVersion": "1.0.0", "name": "odd", "plugins": [{{"type": "deaf", "padding": "{padding}"}}]}}"#
        );
        host.write_conf("1.conflist", &conf);
        let network = host.network();
        add(&network, &host.pod("pod").attachment()).unwrap();
        block_on(network.del("pod", None)).unwrap();
    });
}

#[test]
fn what_a_plugin_is_told() {
    on_a_host(|host| {
        host.write_plugin(
            "spy",
            "(env | grep ^CNI_ | sort; cat; echo) >> \"$0.log\"; [ $CNI_COMMAND = ADD ] && echo '{\"dns\": {\"nameservers\": [\"9.9.9.9\"]}}' || true",
        );
        let conf = r#"{"cniVersion": "0.4.0", "name": "spied", "plugins": [
            {"type": "spy", "own": 1, "capabilities": {"portMappings": true, "bandwidth": false}},
            {"type": "spy", "own": 2, "capabilities": {"dns": true}}]}"#;
        host.write_conf("1.conflist", conf);
        let network = host.network();
        let pod = host.pod("pod");
        let attachment = berth_cni::Attachment {
            dns: Some(berth_cni::Dns {
                nameservers: vec!["1.1.1.1".into()],
                ..Default::default()
            }),
            bandwidth: Some(berth_cni::Bandwidth::default()),
            ..pod.with_ports(&[(8080, 80, berth_cni::Protocol::Tcp)])
        };
        let result = add(&network, &attachment).unwrap();
        assert_eq!(result.dns.nameservers, ["9.9.9.9"]);
        block_on(network.check("pod")).unwrap();
        pod.leave(&network);
        let log = std::fs::read_to_string(host.path("bin/spy.log")).unwrap();
        let confs: Vec<serde_json::Value> = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let told = |i: usize| (confs[i]["own"].as_u64(), confs[i]["prevResult"].is_object());
        let expected = [(1, false), (2, true), (1, true), (2, true), (2, true), (1, true)];
        assert_eq!(confs.len(), 6, "ADD, CHECK, DEL of two");
        for (i, (own, previous)) in expected.into_iter().enumerate() {
            assert_eq!(told(i), (Some(own), previous), "call {i}");
            assert_eq!(confs[i]["name"], "spied");
            assert_eq!(confs[i]["cniVersion"], "0.4.0");
        }
        let ports =
            serde_json::json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
        assert_eq!(confs[0]["runtimeConfig"], ports);
        assert_eq!(confs[1]["runtimeConfig"]["dns"]["servers"][0], "1.1.1.1");
        for line in [
            "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod;K8S_POD_INFRA_CONTAINER_ID=pod;K8S_POD_UID=uid-pod".to_owned(),
            "CNI_CONTAINERID=pod".to_owned(),
            "CNI_IFNAME=eth0".to_owned(),
            format!("CNI_NETNS={}", pod.path().display()),
            format!("CNI_PATH={}", host.path("bin").display()),
        ] {
            assert_eq!(log.matches(&line).count(), 6, "{line}\n{log}");
        }
    });
}

#[test]
fn a_full_disk_leaves_nothing_half_done() {
    on_a_host(|host| {
        // Private to this thread and its children.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        std::fs::create_dir_all(host.path("state")).unwrap();
        let state = host.path("state").display().to_string();
        sh(&format!("mount -t tmpfs -o size=1m none {state}"));
        let network = host.network();
        let keep = host.pod("keep");
        keep.join(&network);
        let before = inventory();
        // Room for one more page at a time, so that each write is once the one that fails.
        let mut failures = 0;
        for pages in 0.. {
            let _ = std::fs::remove_file(host.path("state/filler"));
            sh(&format!(
                "head -c 2m /dev/zero > {state}/filler 2>/dev/null || true"
            ));
            sh(&format!("truncate -s -$((4096 * {pages})) {state}/filler"));
            let pod = host.pod("pod");
            let added = add(&network, &pod.with_ports(&[(8080, 80, berth_cni::Protocol::Tcp)]));
            std::fs::remove_file(host.path("state/filler")).unwrap();
            let done = match added {
                Ok(_) => true,
                Err(e) => {
                    assert!(
                        e.to_string().contains("No space left on device"),
                        "{pages} pages: {e}"
                    );
                    reconcile(&network, &["keep"]);
                    false
                }
            };
            block_on(network.del("pod", None)).unwrap();
            assert_eq!(inventory(), before, "{pages} pages");
            assert_eq!(host.reserved("berth").len(), 1, "{pages} pages");
            if done {
                break;
            }
            failures += 1;
        }
        assert!(failures > 2, "{failures}");
        keep.leave(&network);
        sh(&format!("umount {state}"));
    });
}
