//! Killed at any system call that changes something, the next start finds and removes everything.

use std::process::{Command, ExitStatus};

use berth_cni::{Attachment, CniConfig, Network, PortMapping, Protocol};

use crate::host::*;

/// Calls that change files, the kernel's network or processes.
const EFFECTS: [&str; 9] = [
    "mkdir", "rename", "write", "linkat", "unlink", "rmdir", "sendto", "sendmsg", "clone3",
];

/// Runs `victim` in a process of its own, which is killed when one of its threads, or of its children, makes the n-th
/// such call.
fn kill_at(call: &str, n: u32, (host, pod, verb): (&Host, &Pod, &str)) -> ExitStatus {
    let run = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=KILL:when={n}")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "crash::victim", "--ignored", "--nocapture"])
        .env("BERTH_TEST_ROOT", host.dir.path())
        .env("BERTH_TEST_NETNS", pod.path())
        .env("BERTH_TEST_VERB", verb)
        .output()
        .unwrap();
    run.status
}

/// Every point at which it can be killed, until it survives.
fn each_kill(verb: &str, host: &Host, before: impl Fn(&Pod), after: impl Fn(&Pod, &str)) {
    let mut kills = 0;
    for call in EFFECTS {
        for n in 1.. {
            let pod = host.pod("pod");
            before(&pod);
            let survived = kill_at(call, n, (host, &pod, verb)).success();
            after(&pod, &format!("killed at {call} {n}"));
            if survived {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills > 30, "only {kills} calls were met");
}

#[test]
fn during_add() {
    on_a_host(|host| {
        let clean = inventory();
        let ports = [(8080, 80, Protocol::Tcp)];
        each_kill(
            "add",
            host,
            |_| (),
            |pod, at| {
                let network = host.network();
                reconcile(&network, &[]);
                assert_eq!(inventory(), clean, "{at}");
                assert_eq!(host.reserved("berth"), [""; 0], "{at}");
                assert_eq!(host.files("state/attachments"), [""; 0], "{at}");
                assert_eq!(pod.run(|| sh("ip -o link")).lines().count(), 1, "{at}");
                // The same pod can be attached at once.
                pod.join_as(&network, &pod.with_ports(&ports));
                pod.leave(&network);
            },
        );
    });
}

#[test]
fn during_del() {
    on_a_host(|host| {
        let clean = inventory();
        let ports = [(8080, 80, Protocol::Tcp)];
        let network = host.network();
        let before = |pod: &Pod| {
            pod.join_as(&network, &pod.with_ports(&ports));
        };
        each_kill("del", host, before, |pod, at| {
            pod.leave(&network);
            assert_eq!(inventory(), clean, "{at}");
            assert_eq!(host.reserved("berth"), [""; 0], "{at}");
            assert_eq!(host.files("state/attachments"), [""; 0], "{at}");
        });
    });
}

/// A plugin that outlives the process that called it is waited for before its work is taken back.
#[test]
fn a_plugin_that_is_left_behind_is_waited_for() {
    on_a_host(|host| {
        host.write_plugin(
            "slow",
            "if [ $CNI_COMMAND = ADD ]; then echo started > \"$0.log\"; kill -9 $PPID; sleep 1; echo added >> \"$0.log\"; \
             else echo removed >> \"$0.log\"; fi",
        );
        host.write_conf(
            "1.conflist",
            r#"{"cniVersion": "1.0.0", "name": "slow", "plugins": [{"type": "slow"}]}"#,
        );
        let pod = host.pod("pod");
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::victim", "--ignored"])
            .env("BERTH_TEST_ROOT", host.dir.path())
            .env("BERTH_TEST_NETNS", pod.path())
            .env("BERTH_TEST_VERB", "add")
            .status();
        assert!(!run.unwrap().success());
        assert_eq!(reconcile(&host.network(), &[]), ["pod"]);
        assert_eq!(
            std::fs::read_to_string(host.path("bin/slow.log")).unwrap(),
            "started\nadded\nremoved\n"
        );
    });
}

/// The process that is killed.
#[test]
#[ignore = "a part of other tests"]
fn victim() {
    let Ok(root) = std::env::var("BERTH_TEST_ROOT") else {
        return;
    };
    let root = std::path::PathBuf::from(root);
    let config = CniConfig::new(root.join("net.d"), vec![root.join("bin")], root.join("state"));
    let network = Network::load(&config).unwrap();
    let attachment = Attachment {
        container_id: "pod".into(),
        netns: std::env::var("BERTH_TEST_NETNS").unwrap().into(),
        ifname: "eth0".into(),
        port_mappings: vec![PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: None,
        }],
        ..Attachment::default()
    };
    match std::env::var("BERTH_TEST_VERB").as_deref() {
        Ok("add") => drop(block_on(network.add(&attachment)).unwrap()),
        _ => block_on(network.del("pod", None)).unwrap(),
    }
}
