//! Containers that end are started again, later and later, and their logs stay readable.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_tests::{Node, container, eventually, pod};
use serde_json::json;

/// The log files of a pod's container, by attempt.
fn logs(node: &Node, pod: &str, container: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(node.root().join("var/log/berth/pods"))
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("default_{pod}_"))
        {
            let files = fs::read_dir(entry.path().join(container))
                .into_iter()
                .flatten()
                .flatten();
            found.extend(files.map(|file| file.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_crash_is_followed_by_a_restart_and_a_back_off() {
    let node = Node::new();
    let crash = container("main", &["exit", "5", "crashed"], json!({}));
    let pod = node.run(&pod("crash", json!({ "containers": [crash] })));
    let crashed = |line: &str| line.contains("| crashed");
    let (first, _) = pod.find(0, "the first crash", crashed);
    let (second, _) = pod.find(first + 1, "the second crash", crashed);
    let time = Instant::now();
    pod.line_after(first, "back-off");
    pod.find(second + 1, "the third crash", crashed);
    assert!(
        time.elapsed() >= Duration::from_secs(8),
        "there was no back-off of ten seconds"
    );
    let all = eventually("both attempts have logs", || {
        Some(logs(&node, "crash", "main")).filter(|all| all.len() >= 2)
    });
    for log in &all[..2] {
        let text = fs::read_to_string(log).unwrap();
        assert!(text.contains(" stderr F crashed"), "{}: {text}", log.display());
    }
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

#[test]
fn a_killed_process_is_started_again() {
    let node = Node::new();
    let web = container("main", &["httpd", "--port", "8080"], json!({}));
    let pod = node.run(&pod("killed", json!({ "containers": [web] })));
    pod.log("main", "serving");
    let mark = pod.mark();
    let httpd = node
        .processes()
        .into_iter()
        .find(|process| process.command.starts_with("httpd"))
        .unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(httpd.pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    pod.log_after(mark, "main", "serving");
    assert_eq!(
        berth_tests::http_get((pod.address(), 8080), "/healthz").status,
        200
    );
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

#[test]
fn logs_are_in_the_cri_format() {
    let node = Node::new();
    let command = [
        "run",
        "echo",
        "to stdout",
        ";",
        "echo",
        "--stderr",
        "to stderr",
        ";",
        "sleep",
        "inf",
    ];
    let pod = node.run(&pod(
        "logs",
        json!({ "containers": [container("main", &command, json!({}))] }),
    ));
    pod.log("main", "to stdout");
    pod.log("main", "to stderr");
    let text = fs::read_to_string(&logs(&node, "logs", "main")[0]).unwrap();
    for line in text.lines() {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        assert!(fields[0].contains('T') && fields[0].len() >= 30, "{line}");
        assert_eq!(fields[2], "F", "{line}");
        assert_eq!(fields[3], format!("to {}", fields[1]), "{line}");
    }
    assert_eq!(text.lines().count(), 2);
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

#[test]
fn back_off_is_the_node_s_unless_the_pod_says_otherwise() {
    let node = Node::new();
    let crash = |name: &str| container(name, &["exit", "5", "crashed"], json!({}));
    let mut fast: serde_json::Value =
        serde_json::from_str(pod("fast", json!({ "containers": [crash("fast")] })).trim_start_matches("---"))
            .unwrap();
    fast["metadata"]["annotations"] = json!({ "berth.dev/restart-backoff": "initial=100ms,factor=1" });
    let both = berth_tests::document(&fast) + &pod("slow", json!({ "containers": [crash("slow")] }));
    let pod = node.run_with(&["--restart-backoff", "initial=1h,max=1h"], &both);
    let mut mark = 0;
    for _ in 0..6 {
        mark =
            pod.find(mark, "a crash of the fast one", |line| {
                line.contains("fast") && line.contains("| crashed")
            })
            .0 + 1;
    }
    pod.line("back-off 1h0m0s");
    let slow = pod
        .output()
        .lines()
        .filter(|line| line.contains("slow") && line.contains("| crashed"))
        .count();
    assert_eq!(slow, 2, "{}", pod.output());
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

/// A container that ends with 42 in its first run and goes on in the second.
fn once_42(name: &str, rule: &str) -> serde_json::Value {
    let command = [
        "run",
        "append",
        "/data/runs",
        "x",
        ";",
        "exists",
        "/data/again",
        ";",
        "echo",
        "second run",
        ";",
        "sleep",
        "inf",
    ];
    let mut one = container(
        name,
        &command,
        json!({ "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }),
    );
    one["restartPolicy"] = json!("Never");
    one["restartPolicyRules"] = json!([{ "action": rule, "exitCodes": { "operator": "In", "values": [1] } }]);
    one
}

#[test]
fn a_rule_restarts_a_container_that_its_policy_would_not() {
    let node = Node::new();
    let data = node.scratch().join("data");
    fs::create_dir(&data).unwrap();
    let pod = node.run(&pod(
        "ruled",
        json!({
            "restartPolicy": "Never",
            "volumes": [{ "name": "data", "hostPath": { "path": data } }],
            "containers": [once_42("main", "Restart"), container("other", &["sleep", "inf"], json!({}))],
        }),
    ));
    pod.find(0, "the first end", |line| {
        line.contains("main") && line.contains("code 1")
    });
    fs::write(data.join("again"), "").unwrap();
    pod.log("main", "second run");
    assert_eq!(
        pod.output().matches("other started").count(),
        1,
        "{}",
        pod.output()
    );
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

#[test]
fn restart_all_containers_begins_the_pod_anew_at_its_address() {
    let node = Node::new();
    let data = node.scratch().join("data");
    fs::create_dir(&data).unwrap();
    let mounted = json!({ "volumeMounts": [{ "name": "data", "mountPath": "/data" }] });
    let mut web = container("web", &["httpd", "--port", "8080"], json!({}));
    web["restartPolicy"] = json!("Never");
    let pod = node.run(&pod(
        "anew",
        json!({
            "restartPolicy": "Never",
            "volumes": [{ "name": "data", "hostPath": { "path": data } }],
            "initContainers": [container("init", &["append", "/data/inits", "x"], mounted)],
            "containers": [web, once_42("main", "RestartAllContainers")],
        }),
    ));
    let address = pod.address();
    pod.find(0, "the first end", |line| {
        line.contains("main") && line.contains("code 1")
    });
    fs::write(data.join("again"), "").unwrap();
    pod.log("main", "second run");
    assert_eq!(berth_tests::http_get((address, 8080), "/healthz").status, 200);
    let inits = fs::read_to_string(data.join("inits")).unwrap().lines().count();
    let runs = fs::read_to_string(data.join("runs")).unwrap().lines().count();
    assert_eq!(
        (inits, pod.output().matches("Sandbox was made").count() <= 1),
        (runs, true),
        "{}",
        pod.output()
    );
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}
