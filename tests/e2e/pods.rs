//! `berth ps`, `status`, `logs` and `stop`: the pods of a node, whoever runs them.

use berth_tests::{Node, berth, container, eventually, http_get, pod};
use serde_json::{Value, json};

fn status(node: &Node, name: &str) -> Value {
    let ended = berth(node, &["status", name, "--output", "json"]).expect_code(0);
    serde_json::from_str(&ended.output).unwrap_or_else(|error| panic!("{error}:\n{}", ended.output))
}

fn condition(pod: &Value, kind: &str) -> String {
    let all = pod["status"]["conditions"].as_array().into_iter().flatten();
    let found = all
        .filter(|condition| condition["type"] == kind)
        .find_map(|found| found["status"].as_str());
    found.unwrap_or("missing").to_owned()
}

fn server() -> String {
    let probe = json!({ "httpGet": { "path": "/readyz", "port": 8080 }, "periodSeconds": 1 });
    pod(
        "web",
        json!({ "containers": [container("main", &["httpd"], json!({ "readinessProbe": probe }))] }),
    )
}

#[test]
fn the_status_of_a_running_pod_follows_its_readiness() {
    let node = Node::new();
    let pod = node.run(&server());
    let address = pod.address();
    let is = |ready: &str| {
        let found = status(&node, "web");
        (condition(&found, "Ready") == ready).then_some(found)
    };
    let found = eventually("the pod is ready", || is("True"));
    assert_eq!(found["status"]["phase"], "Running");
    assert_eq!(found["status"]["podIP"], address.to_string());
    assert!(found["status"]["containerStatuses"][0]["state"]["running"]["startedAt"].is_string());
    http_get((address, 8080), "/ready/off");
    eventually("the pod is not ready", || is("False"));
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

#[test]
fn logs_of_the_container_before_the_last_restart_can_be_read() {
    let node = Node::new();
    let twice = [
        "run",
        "append",
        "/data/runs",
        "x",
        ";",
        "checks",
        "file=/data/runs:x\nx",
        ";",
        "sleep",
        "inf",
    ];
    let pod = node.run(&pod(
        "again",
        json!({
            "volumes": [{ "name": "data", "emptyDir": {} }],
            "containers": [container("main", &twice, json!({
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            }))],
        }),
    ));
    pod.log("main", "ok file");
    let now = berth(&node, &["logs", "again"]).expect_code(0).output;
    let before = berth(&node, &["logs", "again", "--previous"])
        .expect_code(0)
        .output;
    assert!(before.starts_with("FAIL file"), "{before}");
    assert!(now.starts_with("ok file") && !now.contains("FAIL"), "{now}");
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

#[test]
fn pods_are_listed() {
    let node = Node::new();
    let pod = node.run(&server());
    pod.line("pod is ready");
    eventually("ps shows it running", || {
        let table = berth(&node, &["ps"]).expect_code(0).output;
        table
            .lines()
            .any(|line| line.contains("web") && line.contains("Running"))
            .then_some(())
    });
    pod.interrupt();
    pod.wait().expect_code(0);
    let table = berth(&node, &["ps"]).expect_code(0).output;
    assert!(!table.contains("web"), "{table}");
    node.finish();
}

#[test]
fn a_pod_whose_berth_was_killed_can_be_stopped() {
    let node = Node::new();
    let pod = node.run(&server());
    pod.line("pod is ready");
    pod.kill();
    berth(&node, &["stop", "web"]).expect_code(0);
    node.finish();
}

#[test]
fn a_pod_that_is_not_there_is_named() {
    let node = Node::new();
    for command in ["status", "logs", "stop"] {
        let ended = berth(&node, &[command, "nobody"]);
        assert_ne!(ended.code(), Some(0), "{command}");
        ended.expect_output(&["nobody"]);
    }
    node.finish();
}
