//! Fields of a Pod in effect: what the kernel shows of them to the containers, or to others on the machine.

use std::fs;
use std::process::Command;
use std::time::Instant;

use berth_tests::{
    Layout, Node, berth, container, document, eventually, http_get, once, once_with, pod, try_http_get,
};
use serde_json::{Value, json};

#[test]
fn names_are_looked_up_where_the_pod_says() {
    let node = Node::new();
    // The node has a resolv.conf of its own, as it has mounts of its own.
    let host = node.file(
        "resolv.conf",
        "nameserver 192.0.2.1\nsearch lan\noptions rotate\n",
    );
    let shown = Command::new("mount")
        .arg("--bind")
        .arg(&host)
        .arg("/etc/resolv.conf")
        .status();
    assert!(shown.unwrap().success());
    let config = json!({
        "nameservers": ["192.0.2.53"], "searches": ["shop.test"], "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }],
    });
    for (policy, expected) in [
        (
            "None",
            "search shop.test\nnameserver 192.0.2.53\noptions ndots:2 edns0",
        ),
        (
            "Default",
            "search lan shop.test\nnameserver 192.0.2.1\nnameserver 192.0.2.53\noptions rotate ndots:2 edns0",
        ),
    ] {
        let manifest = once_with(
            &policy.to_lowercase(),
            &["cat", "/etc/resolv.conf"],
            json!({}),
            json!({ "dnsPolicy": policy, "dnsConfig": config }),
        );
        let ended = node.succeeds(&manifest);
        let lines: Vec<&str> = ended
            .output
            .lines()
            .filter_map(|line| line.strip_prefix("main | "))
            .collect();
        let mut found: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
        let mut expected: Vec<&str> = expected.lines().collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{policy}");
    }
    let shown = Command::new("umount").arg("/etc/resolv.conf").status();
    assert!(shown.unwrap().success());
    node.finish();
}

#[test]
fn groups_of_the_image_s_user_come_unless_they_are_kept_out() {
    let node = Node::new();
    let files = [
        (
            "/etc/passwd",
            "root:x:0:0::/:/bin/sh\nworker:x:1000:1000::/:/bin/sh\n",
        ),
        ("/etc/group", "root:x:0:\nworker:x:1000:\nextra:x:50000:worker\n"),
    ];
    let image = Layout::make(
        &node.scratch().join("image"),
        "berth.local/groups:1",
        json!({}),
        &files,
    );
    berth(
        &node,
        &["image", "import", &image.directory.display().to_string()],
    )
    .expect_code(0);
    for (policy, groups) in [
        ("Merge", "groups=1000,4000,50000"),
        ("Strict", "groups=1000,4000"),
    ] {
        let manifest = once_with(
            "groups",
            &["/bin/berth-helper", "checks", groups],
            json!({ "image": "berth.local/groups:1" }),
            json!({ "securityContext": {
                "runAsUser": 1000, "runAsGroup": 1000, "supplementalGroups": [4000], "supplementalGroupsPolicy": policy,
            } }),
        );
        node.succeeds(&manifest);
    }
    node.finish();
}

#[test]
fn system_calls_are_filtered_as_the_profile_says() {
    let node = Node::new();
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }],
    });
    let directory = node.root().join("var/lib/berth/kubelet/seccomp/profiles");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("no-mkdir.json"), profile.to_string()).unwrap();
    let local = json!({ "type": "Localhost", "localhostProfile": "profiles/no-mkdir.json" });
    for (name, seccomp, more, filtered) in [
        ("none", json!(null), json!({}), "0"),
        ("unconfined", json!({ "type": "Unconfined" }), json!({}), "0"),
        ("runtime", json!({ "type": "RuntimeDefault" }), json!({}), "2"),
        (
            "pod",
            json!(null),
            json!({ "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } } }),
            "2",
        ),
    ] {
        let security = json!({ "seccompProfile": seccomp });
        let check = format!("status=Seccomp:{filtered}");
        node.succeeds(&once_with(
            name,
            &["checks", &check],
            json!({ "securityContext": security }),
            more,
        ));
    }
    let manifest = once_with(
        "local",
        &["mkdir", "/made"],
        json!({ "securityContext": { "seccompProfile": local } }),
        json!({}),
    );
    let ended = node.run(&manifest).wait().expect_no_panic();
    assert_ne!(ended.code(), Some(0), "{}", ended.output);
    assert!(ended.output.contains("(os error 95)"), "{}", ended.output);
    // A profile of the whole pod is for its containers: they are who can't be made without the file.
    let local = json!({ "type": "Localhost", "localhostProfile": "profiles/none.json" });
    let security = json!({ "securityContext": { "seccompProfile": local } });
    let pod = node.run(&once_with("missing", &["show"], json!({}), security));
    pod.find(0, "whose profile is missing", |line| {
        line.contains("CreateContainerError") && line.contains("profiles/none.json")
    });
    pod.interrupt();
    pod.wait().expect_no_panic();
    fs::remove_dir_all(node.root().join("var/lib/berth/kubelet/seccomp")).unwrap();
    node.finish();
}

#[test]
fn proc_is_whole_where_it_is_asked_for() {
    let node = Node::new();
    let masked = |output: &str| output.lines().any(|line| line.contains(" /proc/sys "));
    let show = |name: &str, proc_mount: &str| {
        let security = json!({ "securityContext": { "procMount": proc_mount } });
        let manifest = once_with(name, &["mounts"], security, json!({ "hostUsers": false }));
        node.succeeds(&manifest).output
    };
    let usual = show("usual", "Default");
    assert!(masked(&usual), "{usual}");
    let whole = show("whole", "Unmasked");
    assert!(!masked(&whole), "{whole}");
    node.finish();
}

#[test]
fn a_host_port_has_its_protocol_and_its_address() {
    let node = Node::new();
    let ports = |port: Value| json!({ "ports": [port] });
    let manifest = pod(
        "ports",
        json!({ "containers": [
            container("web", &["httpd", "--port", "8080"],
                ports(json!({ "containerPort": 8080, "hostPort": 18080, "hostIP": "127.0.0.1" }))),
            container("echo", &["listen", "udp", "9000"],
                ports(json!({ "containerPort": 9000, "hostPort": 18081, "protocol": "UDP" }))),
        ] }),
    );
    let running = node.run(&manifest);
    running.line("pod is ready");
    running.log("echo", "listening on udp 9000");
    assert_eq!(http_get(([127, 0, 0, 1], 18080), "/healthz").status, 200);
    // The bridge's own address is one of the machine's, too.
    let std::net::IpAddr::V4(address) = running.address() else {
        panic!("the default network is IPv4")
    };
    let [a, b, c, _] = address.octets();
    assert!(try_http_get(([a, b, c, 1], 18080).into(), "/healthz").is_err());
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(std::time::Duration::from_secs(1)))
        .unwrap();
    let answer = eventually("an answer by UDP", || {
        socket.send_to(b"hello", "127.0.0.1:18081").unwrap();
        let mut buffer = [0; 16];
        let length = socket.recv(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    });
    assert_eq!(answer, b"hello");
    assert!(try_http_get(([127, 0, 0, 1], 18081).into(), "/").is_err());
    running.interrupt();
    running.wait().expect_code(0);
    node.finish();
}

#[test]
fn a_pod_that_ran_for_long_enough_is_ended() {
    let node = Node::new();
    let manifest = once_with(
        "deadline",
        &["sleep", "inf"],
        json!({}),
        json!({ "activeDeadlineSeconds": 1 }),
    );
    node.run_with(&["-o", "json"], &manifest)
        .wait()
        .expect_no_panic()
        .expect_output(&["\"reason\": \"DeadlineExceeded\"", "\"phase\": \"Failed\""]);
    node.finish();
}

#[test]
fn a_hook_that_sleeps_holds_the_stop_back() {
    let node = Node::new();
    let sleep = json!({ "lifecycle": { "preStop": { "sleep": { "seconds": 2 } } } });
    let running = node.run(&pod(
        "slow",
        json!({ "terminationGracePeriodSeconds": 60, "containers": [container("main", &["sleep", "inf"], sleep)] }),
    ));
    running.line("pod is ready");
    let begun = Instant::now();
    running.interrupt();
    running.wait().expect_code(0).expect_no_panic();
    assert!(begun.elapsed().as_secs() >= 2, "{:?}", begun.elapsed());
    node.finish();
}

#[test]
fn a_probe_has_a_grace_period_of_its_own_and_counts_its_successes() {
    let node = Node::new();
    // What does not heed SIGTERM would live for ten minutes by the pod's grace period.
    let stubborn = container(
        "stubborn",
        &["trap", "TERM"],
        json!({
            "livenessProbe": {
                "exec": { "command": ["false"] },
                "periodSeconds": 1, "failureThreshold": 1, "terminationGracePeriodSeconds": 1,
            },
        }),
    );
    let counting = container(
        "counting",
        &["sleep", "inf"],
        json!({
            "readinessProbe": {
                "exec": { "command": ["append", "/tmp/asked", "x"] },
                "periodSeconds": 1, "successThreshold": 1000,
            },
        }),
    );
    let mut manifest: Value = serde_json::from_str(
        pod(
            "graces",
            json!({ "terminationGracePeriodSeconds": 600, "containers": [stubborn, counting] }),
        )
        .trim_start_matches("---"),
    )
    .unwrap();
    manifest["metadata"]["annotations"] = json!({ "berth.dev/probe-period": "counting.readiness=100ms" });
    let running = node.run(&document(&manifest));
    running.line("stubborn ended with exit code 137");
    // Five successes are not a thousand.
    eventually("five probes", || {
        let read = berth(
            &node,
            &["exec", "graces", "-c", "counting", "--", "cat", "/tmp/asked"],
        );
        (read.output.lines().filter(|line| *line == "x").count() >= 5).then_some(())
    });
    assert!(
        !running.output().contains("counting is ready"),
        "{}",
        running.output()
    );
    // Once stops, twice kills.
    running.interrupt();
    running.line("Stopping");
    running.interrupt();
    running.wait().expect_no_panic();
    node.finish();
}

#[test]
fn a_container_s_terminal_is_one() {
    let node = Node::new();
    let ended = node.succeeds(&once("screen", &["fds"], json!({ "tty": true })));
    assert!(ended.output.contains("0 /dev/pts/0"), "{}", ended.output);
    let ended = node.succeeds(&once("pipes", &["fds"], json!({})));
    assert!(!ended.output.contains("/dev/pts/"), "{}", ended.output);
    node.finish();
}

#[test]
fn a_critical_pod_is_killed_last() {
    let node = Node::new();
    let scored = |name: &str, priority: i32| {
        let ended = node.succeeds(&once_with(
            name,
            &["proc", "oom_score_adj"],
            json!({}),
            json!({ "priority": priority }),
        ));
        let score = ended.output.lines().find_map(|line| line.strip_prefix("main | "));
        score.unwrap().trim().parse::<i32>().unwrap()
    };
    assert_eq!(scored("usual", 0), 1000);
    // Root without CAP_SYS_RESOURCE can't go below its own score.
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let critical = scored("critical", 2_000_001_000);
    assert!(critical == -997 || critical == own, "{critical}");
    node.finish();
}
