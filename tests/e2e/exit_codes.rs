//! What `berth run` ends with.

use berth_tests::{Node, container, once, pod};
use serde_json::json;

#[test]
fn success_is_zero() {
    let node = Node::new();
    node.run(&once("fine", &["echo", "done"], json!({})))
        .wait()
        .expect_code(0)
        .expect_log("main", "done");
    node.finish();
}

#[test]
fn never_passes_the_container_s_code_on() {
    let node = Node::new();
    node.run(&once("fails", &["exit", "42", "alas"], json!({})))
        .wait()
        .expect_code(42)
        .expect_log("main", "alas");
    node.finish();
}

#[test]
fn the_first_failure_counts() {
    let node = Node::new();
    let manifest = pod(
        "two",
        json!({ "restartPolicy": "Never", "containers": [
            container("early", &["exit", "3"], json!({})),
            container("late", &["run", "sleep", "2", ";", "exit", "4"], json!({})),
        ]}),
    );
    node.run(&manifest).wait().expect_code(3);
    node.finish();
}

#[test]
fn a_failing_init_container_fails_a_pod_that_is_never_restarted() {
    let node = Node::new();
    let manifest = pod(
        "init",
        json!({
            "restartPolicy": "Never",
            "initContainers": [container("prepare", &["exit", "7"], json!({}))],
            "containers": [container("main", &["echo", "unreachable"], json!({}))],
        }),
    );
    let ended = node.run(&manifest).wait().expect_code(7);
    assert!(!ended.output.contains("unreachable"), "{}", ended.output);
    node.finish();
}

#[test]
fn on_failure_is_started_again_until_it_succeeds() {
    let node = Node::new();
    let count = [
        "run",
        "append",
        "/data/count",
        "x",
        ";",
        "checks",
        "file=/data/count:x\nx",
    ];
    let manifest = pod(
        "again",
        json!({
            "restartPolicy": "OnFailure",
            "volumes": [{ "name": "data", "emptyDir": {} }],
            "containers": [container("main", &count, json!({
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            }))],
        }),
    );
    node.run(&manifest)
        .wait()
        .expect_code(0)
        .expect_log("main", "FAIL")
        .expect_log("main", "ok file");
    node.finish();
}

#[test]
fn a_signal_is_128_and_its_number() {
    let node = Node::new();
    // Not PID 1 of its namespace, which the kernel would not let kill itself.
    let manifest = pod(
        "killed",
        json!({
            "restartPolicy": "Never",
            "shareProcessNamespace": true,
            "containers": [container("main", &["kill", "KILL", "self"], json!({}))],
        }),
    );
    node.run(&manifest).wait().expect_code(137);
    node.finish();
}

#[test]
fn an_interrupted_pod_is_a_success() {
    let node = Node::new();
    let pod = node.run(&once(
        "sleeps",
        &["run", "echo", "up", ";", "sleep", "inf"],
        json!({}),
    ));
    pod.log("main", "up");
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}
