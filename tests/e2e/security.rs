//! Who a container's program is and what it may do.

use berth_tests::{Node, container, pod};
use serde_json::{Value, json};

fn expect(what: &[&str], security: Value) {
    expect_in_pod(what, security, json!({}));
}

fn expect_in_pod(what: &[&str], security: Value, spec: Value) {
    let node = Node::new();
    let command: Vec<&str> = ["checks"].iter().chain(what).copied().collect();
    let mut all = json!({
        "restartPolicy": "Never",
        "containers": [container("main", &command, json!({ "securityContext": security }))],
    });
    all.as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    node.run(&pod("security", all))
        .wait()
        .expect_code(0)
        .expect_no_panic();
    node.finish();
}

#[test]
fn users_and_groups_are_as_asked() {
    expect(
        &["uid=1000", "gid=3000", "status=CapEff:0000000000000000"],
        json!({ "runAsUser": 1000, "runAsGroup": 3000 }),
    );
    expect_in_pod(
        &["uid=1000", "gid=0", "groups=0,4000,5000"],
        json!({ "runAsUser": 1000 }),
        json!({ "securityContext": { "supplementalGroups": [4000, 5000] } }),
    );
}

#[test]
fn the_default_capabilities_are_the_usual_fourteen() {
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP
    expect(
        &["status=CapEff:00000000a80425fb", "status=CapBnd:00000000a80425fb"],
        json!({}),
    );
}

#[test]
fn capabilities_are_added_and_dropped() {
    expect(
        &["cap=12", "nocap=13"],
        json!({ "capabilities": { "add": ["NET_ADMIN"], "drop": ["NET_RAW"] } }),
    );
    expect(
        &["status=CapEff:0000000000000000"],
        json!({ "capabilities": { "drop": ["ALL"] } }),
    );
}

#[test]
fn privileges_can_be_ruled_out() {
    expect(
        &["status=NoNewPrivs:1"],
        json!({ "allowPrivilegeEscalation": false }),
    );
    expect(&["status=NoNewPrivs:0"], json!({}));
}

#[test]
fn a_read_only_root_is_read_only() {
    expect(
        &["readonly=/", "writable=/dev/shm"],
        json!({ "readOnlyRootFilesystem": true }),
    );
    expect(&["writable=/"], json!({}));
}

#[test]
fn the_kernel_s_sensitive_files_are_masked() {
    expect(
        &[
            "unreadable=/proc/kcore",
            "unreadable=/sys/firmware",
            "readonly=/proc/sys/kernel/hostname",
            "readonly=/proc/sysrq-trigger",
            "absent=/dev/kmsg",
            "absent=/dev/mem",
        ],
        json!({}),
    );
}

#[test]
fn privileged_is_everything() {
    expect(
        &[
            "cap=21",
            "cap=12",
            "exists=/dev/kmsg",
            "writable=/proc/sys/kernel/hostname",
        ],
        json!({ "privileged": true }),
    );
}

#[test]
fn only_three_descriptors_are_open() {
    expect(&["fds=3"], json!({}));
}

#[test]
fn root_is_refused_where_it_must_not_run() {
    let node = Node::new();
    let pod = node.run(&pod(
        "nonroot",
        json!({ "containers": [container("main", &["true"], json!({
        "securityContext": { "runAsNonRoot": true },
    }))] }),
    ));
    pod.line("runAsNonRoot");
    pod.interrupt();
    pod.wait().expect_no_panic();
    node.finish();
}

#[test]
fn what_a_container_must_not_do_is_refused() {
    let node = Node::new();
    let attempts = [
        "attempt",
        "mount",
        "remount",
        "mknod",
        "sethostname",
        "kmsg",
        "sysrq",
        "cgroup",
        "core-pattern",
        "setns",
    ];
    let manifest = pod(
        "attempts",
        json!({ "restartPolicy": "Never", "containers": [
        container("main", &attempts, json!({})),
    ] }),
    );
    let ended = node.run(&manifest).wait().expect_code(0);
    let lines: Vec<&str> = ended
        .output
        .lines()
        .filter(|line| line.contains("attempt "))
        .collect();
    assert_eq!(lines.len(), attempts.len() - 1, "{}", ended.output);
    for line in lines {
        assert!(!line.ends_with(": ok"), "{line}");
    }
    node.finish();
}

#[test]
fn the_host_s_network_is_shared_when_asked() {
    let node = Node::new();
    let pod = node.run(&pod(
        "hostnet",
        json!({
            "hostNetwork": true,
            "containers": [container("main", &["httpd", "--port", "8099"], json!({}))],
        }),
    ));
    pod.log("main", "serving");
    let answer = berth_tests::http_get(([127, 0, 0, 1], 8099), "/healthz");
    assert_eq!(answer.status, 200);
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

/// A profile that can't be had is no reason to run without one.
#[test]
fn a_profile_of_a_security_module_that_is_off_is_an_error() {
    if std::path::Path::new("/sys/module/apparmor/parameters/enabled").exists() {
        return;
    }
    let node = Node::new();
    let context = json!({ "securityContext": { "appArmorProfile": { "type": "RuntimeDefault" } } });
    let spec = json!({ "restartPolicy": "Never", "containers": [container("main", &["true"], context)] });
    let running = node.run(&pod("profile", spec));
    running
        .wait()
        .expect_code(1)
        .expect_output(&["profile: Cannot enforce AppArmor: AppArmor is not enabled on the host"])
        .expect_no_panic();
    node.finish();
}

#[test]
fn an_unsafe_sysctl_is_forbidden_unless_the_node_allows_it() {
    let node = Node::new();
    let spec = |name: &str| {
        json!({
            "restartPolicy": "Never",
            "securityContext": { "sysctls": [{ "name": name, "value": "77" }] },
            "containers": [container("main", &["sysctl", name], json!({}))],
        })
    };
    let unsafe_one = pod("forbidden", spec("net.core.somaxconn"));
    let ended = node
        .run_with(&["-o", "json"], &unsafe_one)
        .wait()
        .expect_code(1)
        .expect_output(&[
            "forbidden: forbidden sysctl: \"net.core.somaxconn\" not allowlisted",
            "Pod was rejected: forbidden sysctl: \\\"net.core.somaxconn\\\" not allowlisted",
            "\"reason\": \"SysctlForbidden\"",
            "\"phase\": \"Failed\"",
        ]);
    assert!(!ended.output.contains("sandbox was made"), "{}", ended.output);
    node.run_with(
        &["--allowed-unsafe-sysctls", "kernel.msg*,net.core.*"],
        &unsafe_one,
    )
    .wait()
    .expect_code(0)
    .expect_log("main", "net.core.somaxconn = 77");
    node.run(&pod("safe", spec("net.ipv4.tcp_fin_timeout")))
        .wait()
        .expect_code(0)
        .expect_log("main", "net.ipv4.tcp_fin_timeout = 77");
    node.run_with(&["--allowed-unsafe-sysctls", "vm.*"], &unsafe_one)
        .wait()
        .expect_code(2)
        .expect_output(&["is not known to be namespaced"]);
    node.finish();
}
